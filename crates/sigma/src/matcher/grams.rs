//! Finds many needles in a text by their rarest four bytes.
//!
//! An automaton over thousands of needles does not fit the processor's caches, and each byte of a text
//! waits for memory. Here each needle is filed under four of its bytes, chosen to be rare, and a text is
//! read by a window of four bytes that asks a bitmap of a few kilobytes whether any needle is filed
//! under such bytes; only then are the needles compared. Needles of two and three bytes are filed
//! under their first two.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

/// Bits of a hash: a bitmap of 8 KiB.
const BITS: u32 = 16;

/// Needles and where their filed bytes stand in them.
#[derive(Debug, Default)]
pub(super) struct Grams {
    needles: Vec<Box<[u8]>>,
    long: Filed,
    short: Filed,
    /// Needles of one byte.
    single: Vec<u32>,
}

#[derive(Debug, Default)]
struct Filed {
    bitmap: Vec<u64>,
    /// By filed bytes the range of entries.
    ranges: HashMap<u32, (u32, u32), FixedState>,
    /// Needle, and the place in it of the filed bytes.
    entries: Vec<(u32, u32)>,
}

/// A multiplication spreads the bytes over the upper bits (Knuth, section 6.4).
fn hash(gram: u32) -> usize {
    (gram.wrapping_mul(0x9e37_79b1) >> (32 - BITS)) as usize
}

impl Filed {
    fn new(mut filed: Vec<(u32, u32, u32)>) -> Self {
        if filed.is_empty() {
            return Self::default();
        }
        filed.sort_unstable();
        let mut bitmap = vec![0u64; 1 << (BITS - 6)];
        let mut ranges: HashMap<u32, (u32, u32), FixedState> = HashMap::default();
        let mut entries = Vec::new();
        for (gram, needle, at) in filed {
            let bit = hash(gram);
            if let Some(word) = bitmap.get_mut(bit >> 6) {
                *word |= 1 << (bit & 63);
            }
            let start = entries.len() as u32;
            entries.push((needle, at));
            ranges.entry(gram).or_insert((start, start)).1 = start + 1;
        }
        Self { bitmap, ranges, entries }
    }

    #[inline]
    fn may_have(&self, gram: u32) -> bool {
        let bit = hash(gram);
        self.bitmap.get(bit >> 6).is_some_and(|word| word >> (bit & 63) & 1 == 1)
    }

    #[cold]
    fn entries(&self, gram: u32) -> &[(u32, u32)] {
        let Some(&(start, end)) = self.ranges.get(&gram) else { return &[] };
        self.entries.get(start as usize..end as usize).unwrap_or_default()
    }
}

impl Grams {
    /// Needles are called by their places.
    pub(super) fn new(needles: &[String]) -> Self {
        let mut uses: HashMap<u32, u32, FixedState> = HashMap::default();
        for needle in needles {
            for window in needle.as_bytes().windows(4) {
                *uses.entry(four(window)).or_default() += 1;
            }
        }
        let (mut long, mut short, mut single) = (Vec::new(), Vec::new(), Vec::new());
        for (place, needle) in needles.iter().enumerate() {
            let place = place as u32;
            match needle.as_bytes() {
                [] => {}
                [_] => single.push(place),
                [first, second] | [first, second, _] => {
                    short.push((u32::from(u16::from_le_bytes([*first, *second])), place, 0));
                }
                bytes => {
                    let rarest = bytes
                        .windows(4)
                        .enumerate()
                        .min_by_key(|(_, window)| {
                            let common: u32 = window.iter().map(|byte| commonness(*byte)).sum();
                            let uses = uses.get(&four(window)).copied().unwrap_or(1);
                            (common + 4 * uses.min(1_000), common)
                        })
                        .map(|(at, window)| (four(window), place, at as u32));
                    long.extend(rarest);
                }
            }
        }
        Self {
            needles: needles.iter().map(|needle| needle.as_bytes().into()).collect(),
            long: Filed::new(long),
            short: Filed::new(short),
            single,
        }
    }

    /// Calls `found` with the places of the needles that stand in a text, possibly more than once.
    pub(super) fn find(&self, text: &[u8], mut found: impl FnMut(usize)) {
        if !self.long.entries.is_empty() {
            for (at, window) in text.windows(4).enumerate() {
                let gram = four(window);
                if self.long.may_have(gram) {
                    self.compare(self.long.entries(gram), text, at, &mut found);
                }
            }
        }
        if !self.short.entries.is_empty() {
            for (at, window) in text.windows(2).enumerate() {
                let [first, second] = *window else { continue };
                let gram = u32::from(u16::from_le_bytes([first, second]));
                if self.short.may_have(gram) {
                    self.compare(self.short.entries(gram), text, at, &mut found);
                }
            }
        }
        for place in &self.single {
            let needle = self.needles.get(*place as usize).and_then(|needle| needle.first());
            if needle.is_some_and(|byte| memchr::memchr(*byte, text).is_some()) {
                found(*place as usize);
            }
        }
    }

    fn compare(
        &self,
        entries: &[(u32, u32)],
        text: &[u8],
        at: usize,
        found: &mut impl FnMut(usize),
    ) {
        for (place, inside) in entries {
            let Some(needle) = self.needles.get(*place as usize) else { continue };
            let here = at
                .checked_sub(*inside as usize)
                .and_then(|start| text.get(start..))
                .is_some_and(|text| text.starts_with(needle));
            if here {
                found(*place as usize);
            }
        }
    }
}

#[inline]
fn four(window: &[u8]) -> u32 {
    match *window {
        [a, b, c, d] => u32::from_le_bytes([a, b, c, d]),
        _ => 0,
    }
}

/// How common a byte is in paths, command lines and messages, in folded text: 0 to 9.
fn commonness(byte: u8) -> u32 {
    match byte {
        b'e' | b's' | b'i' | b't' | b'o' | b'r' | b'n' | b' ' => 9,
        b'a' | b'c' | b'l' | b'm' | b'd' | b'w' | b'p' | b'\\' | b'.' => 7,
        b'x' | b'y' | b'u' | b'f' | b'g' | b'h' | b'v' | b'b' | b'3' | b'2' | b'0' => 5,
        b'1' | b'4'..=b'9' | b'k' | b':' | b'-' | b'/' | b'"' => 3,
        b'j' | b'q' | b'z' | b'_' | b'=' | b'(' | b')' | b',' => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// Texts of these characters.
    fn text(
        of: &str,
        length: std::ops::RangeInclusive<usize>,
    ) -> impl Strategy<Value = String> + use<> {
        let of: Vec<char> = of.chars().collect();
        prop::collection::vec(prop::sample::select(of), length)
            .prop_map(|characters| characters.into_iter().collect())
    }

    proptest! {
        #[test]
        fn every_needle_that_stands_in_the_text_is_found_and_no_other(
            needles in prop::collection::btree_set(text("abé", 1..=7), 0..40),
            text in text("abcé", 0..=40),
        ) {
            let needles: Vec<String> = needles.into_iter().collect();
            let mut found = BTreeSet::new();
            Grams::new(&needles).find(text.as_bytes(), |place| { found.insert(place); });
            let expected: BTreeSet<usize> =
                (0..needles.len()).filter(|place| text.contains(&needles[*place])).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
