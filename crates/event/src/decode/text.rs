//! Text cells as they are gathered: plain (bytes and offsets) or with a dictionary of the distinct
//! values. Cells are dense here; which rows they belong to is the column's knowledge.

/// A hash of bytes for the tables of this module and of the paths: fixed, fast, not for secrets.
#[inline]
pub(super) fn hash(bytes: &[u8], seed: u64) -> u64 {
    const A: u64 = 0x9e37_79b9_7f4a_7c15;
    const B: u64 = 0xd1b5_4a32_d192_ed03;
    let fold = |a: u64, b: u64| {
        let product = u128::from(a) * u128::from(b);
        product as u64 ^ (product >> 64) as u64
    };
    let mut state = fold(seed ^ A, bytes.len() as u64 ^ B);
    let (first, last) = match (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
        _ => match (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
            (Some(first), Some(last)) => {
                (u64::from(u32::from_le_bytes(*first)), u64::from(u32::from_le_bytes(*last)))
            }
            _ => (bytes.iter().fold(0, |sum, b| sum << 8 | u64::from(*b)), 0),
        },
    };
    if bytes.len() > 16 {
        let (words, _) = bytes.as_chunks::<8>();
        for word in words {
            state = fold(state ^ u64::from_le_bytes(*word), B);
        }
        return fold(state ^ last, A);
    }
    fold(first ^ state, last ^ B)
}

/// Whether two texts are the same: short ones, which most are, without a call.
#[inline(always)]
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    if a.len() > 32 {
        return a == b;
    }
    if let (Some(a_first), Some(b_first), Some(a_last), Some(b_last)) =
        (a.first_chunk::<16>(), b.first_chunk::<16>(), a.last_chunk::<16>(), b.last_chunk::<16>())
    {
        return (u128::from_le_bytes(*a_first) ^ u128::from_le_bytes(*b_first))
            | (u128::from_le_bytes(*a_last) ^ u128::from_le_bytes(*b_last))
            == 0;
    }
    if let (Some(a_first), Some(b_first), Some(a_last), Some(b_last)) =
        (a.first_chunk::<8>(), b.first_chunk::<8>(), a.last_chunk::<8>(), b.last_chunk::<8>())
    {
        return (u64::from_le_bytes(*a_first) ^ u64::from_le_bytes(*b_first))
            | (u64::from_le_bytes(*a_last) ^ u64::from_le_bytes(*b_last))
            == 0;
    }
    if let (Some(a_first), Some(b_first), Some(a_last), Some(b_last)) =
        (a.first_chunk::<4>(), b.first_chunk::<4>(), a.last_chunk::<4>(), b.last_chunk::<4>())
    {
        return (u32::from_le_bytes(*a_first) ^ u32::from_le_bytes(*b_first))
            | (u32::from_le_bytes(*a_last) ^ u32::from_le_bytes(*b_last))
            == 0;
    }
    a.iter().zip(b).all(|(a, b)| a == b)
}

/// Texts one after the other.
#[derive(Debug, Default)]
pub(super) struct Plain {
    pub(super) data: Vec<u8>,
    /// Where each text ends.
    pub(super) ends: Vec<i32>,
}

impl Plain {
    pub(super) fn with_capacity(texts: usize, bytes: usize) -> Self {
        Self { data: Vec::with_capacity(bytes), ends: Vec::with_capacity(texts) }
    }

    #[inline(always)]
    pub(super) fn push(&mut self, text: &[u8]) {
        self.data.extend_from_slice(text);
        self.ends.push(self.data.len() as i32);
    }

    #[inline(always)]
    pub(super) fn get(&self, index: usize) -> &[u8] {
        let start = match index.checked_sub(1) {
            Some(before) => self.ends.get(before).copied().unwrap_or_default(),
            None => 0,
        };
        let end = self.ends.get(index).copied().unwrap_or_default();
        self.data.get(start as usize..end as usize).unwrap_or_default()
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.ends.truncate(len);
        self.data.truncate(self.ends.last().copied().unwrap_or_default() as usize);
    }

    pub(super) fn clear(&mut self) {
        self.data.clear();
        self.ends.clear();
    }
}

/// Texts as keys into their distinct values, which are numbered in the order of first appearance.
#[derive(Debug, Default)]
pub(super) struct Dictionary {
    /// The key of each cell.
    pub(super) keys: Vec<i32>,
    pub(super) values: Plain,
    /// How long the text of the last cell is.
    last_length: usize,
    /// The cell at which each value appeared first.
    first_cells: Vec<u32>,
    /// Open addressing: the upper half of the hash beside the key plus one; 0 is a free place.
    table: Vec<u64>,
}

/// How far a value may lie from its place. Hashes of honest values never get there; a sender who
/// makes values collide only turns the dictionary off.
const MAX_PROBES: usize = 32;
/// Cells after which a column with hardly any repeated value gives its dictionary up.
const TRIAL: usize = 256;

impl Dictionary {
    /// Appends a text; `false` when the dictionary does not pay and the text was not appended.
    #[inline]
    pub(super) fn push(&mut self, text: &[u8]) -> bool {
        if self.last_length == text.len()
            && let Some(last) = self.keys.last()
            && same(self.values.get(*last as usize), text)
        {
            let last = *last;
            self.keys.push(last);
            return true;
        }
        self.last_length = text.len();
        self.push_new(text)
    }

    fn push_new(&mut self, text: &[u8]) -> bool {
        let Some(key) = self.key(text) else {
            return false;
        };
        self.keys.push(key);
        true
    }

    /// The key of a text, which is added if it is new; `None` when the dictionary does not pay.
    fn key(&mut self, text: &[u8]) -> Option<i32> {
        if self.values.len() * 2 >= self.table.len() {
            self.grow();
        }
        let hash = hash(text, 0);
        let mask = self.table.len() - 1;
        let mut place = hash as usize & mask;
        for _ in 0..MAX_PROBES {
            let slot = self.table.get_mut(place)?;
            if *slot == 0 {
                let distinct = self.values.len();
                if self.keys.len() >= TRIAL && distinct * 8 > self.keys.len() * 7 {
                    return None;
                }
                *slot = hash & !0xffff_ffff | (distinct as u64 + 1);
                self.values.push(text);
                self.first_cells.push(self.keys.len() as u32);
                return Some(distinct as i32);
            }
            if (*slot ^ hash) >> 32 == 0 {
                let key = (*slot as u32).wrapping_sub(1);
                if same(self.values.get(key as usize), text) {
                    return Some(key as i32);
                }
            }
            place = (place + 1) & mask;
        }
        None
    }

    /// Doubles the table. Values are put back in their order, so that the latest can be taken out
    /// again without leaving a hole that another was pushed past.
    #[cold]
    fn grow(&mut self) {
        let size = (self.table.len() * 2).max(64);
        self.table.clear();
        self.table.resize(size, 0);
        let mask = size - 1;
        for key in 0..self.values.len() {
            let hash = hash(self.values.get(key), 0);
            let mut place = hash as usize & mask;
            while self.table.get(place).is_some_and(|slot| *slot != 0) {
                place = (place + 1) & mask;
            }
            if let Some(slot) = self.table.get_mut(place) {
                *slot = hash & !0xffff_ffff | (key as u64 + 1);
            }
        }
    }

    /// Drops the cells from `len` on, and the values that only they had.
    pub(super) fn truncate(&mut self, len: usize) {
        self.keys.truncate(len);
        while self.first_cells.pop_if(|cell| *cell as usize >= len).is_some() {
            let key = self.values.len() - 1;
            let mask = self.table.len() - 1;
            let mut place = hash(self.values.get(key), 0) as usize & mask;
            while let Some(slot) = self.table.get_mut(place) {
                if *slot as u32 as usize == key + 1 {
                    *slot = 0;
                    break;
                }
                place = (place + 1) & mask;
            }
            self.values.truncate(key);
        }
    }

    pub(super) fn clear(&mut self) {
        // A table made for far more values than there were would cost more to sweep than to regrow.
        let wanted = (self.values.len() * 4).next_power_of_two().max(64);
        self.table.truncate(wanted);
        self.table.fill(0);
        self.keys.clear();
        self.values.clear();
        self.first_cells.clear();
    }

    pub(super) fn get(&self, cell: usize) -> &[u8] {
        self.keys.get(cell).map(|key| self.values.get(*key as usize)).unwrap_or_default()
    }

    /// The cells without their dictionary.
    pub(super) fn to_plain(&self) -> Plain {
        let bytes = self.keys.iter().map(|key| self.values.get(*key as usize).len()).sum();
        let mut plain = Plain::with_capacity(self.keys.len() + 1, bytes);
        for key in &self.keys {
            plain.push(self.values.get(*key as usize));
        }
        plain
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_dictionary_reads_as_what_was_pushed_and_truncates_without_trace(
            texts in prop::collection::vec(
                prop_oneof![
                    prop::collection::vec(b'a'..=b'd', 0..4),
                    prop::collection::vec(b'a'..=b'z', 7..40),
                ],
                0..400,
            ),
            cut in 0usize..400,
        ) {
            let mut dictionary = Dictionary::default();
            let mut pushed = Vec::new();
            for text in &texts {
                if !dictionary.push(text) { break; }
                pushed.push(text.as_slice());
            }
            prop_assert!(pushed.len() == texts.len() || pushed.len() >= TRIAL);
            let cut = cut.min(pushed.len());
            dictionary.truncate(cut);
            let mut fresh = Dictionary::default();
            for text in &pushed[..cut] { prop_assert!(fresh.push(text)); }
            prop_assert_eq!(&dictionary.keys, &fresh.keys);
            prop_assert_eq!(&dictionary.values.data, &fresh.values.data);
            prop_assert_eq!(&dictionary.values.ends, &fresh.values.ends);
            for text in pushed.iter().rev() {
                prop_assert_eq!(dictionary.push(text), fresh.push(text));
            }
            prop_assert_eq!(&dictionary.keys, &fresh.keys);
            prop_assert_eq!(&dictionary.values.data, &fresh.values.data);
            let plain = dictionary.to_plain();
            for cell in 0..plain.len() {
                prop_assert_eq!(plain.get(cell), dictionary.get(cell));
            }
        }
    }
}
