//! Parquet's packings, read: the counterparts of the writer's (`encode::bits`).
//!
//! What is read here only decides which pages a scan may leave out, so everything answers `None` for bytes
//! that are not what they should be: the scan then reads the page and says what is wrong with it.

/// Takes an unsigned LEB128 number off the front.
pub(super) fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for place in 0..10 {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << (7 * place);
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn zigzag(bytes: &mut &[u8]) -> Option<i64> {
    let raw = varint(bytes)?;
    Some((raw >> 1) as i64 ^ -((raw & 1) as i64))
}

/// Takes so many bytes off the front.
pub(super) fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

/// Takes a little-endian length of four bytes off the front.
pub(super) fn length(bytes: &mut &[u8]) -> Option<usize> {
    let raw = take(bytes, 4)?.try_into().ok()?;
    usize::try_from(u32::from_le_bytes(raw)).ok()
}

/// The widest value that one read of eight bytes holds, wherever it begins in its first byte.
const MAX_WIDTH: u32 = 56;

/// Values of `width` bits each, lowest bit first.
fn unpacked(bytes: &[u8], width: u32, count: usize) -> impl Iterator<Item = u64> {
    (0..count).map(move |place| number(bytes, width, place))
}

/// One of them.
fn number(bytes: &[u8], width: u32, place: usize) -> u64 {
    let bit = place * width as usize;
    let rest = bytes.get(bit / 8..).unwrap_or_default();
    let word = match rest.first_chunk::<8>() {
        Some(word) => u64::from_le_bytes(*word),
        None => rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    };
    word >> (bit % 8) & ((1u64 << width) - 1)
}

/// Gives each of a `DELTA_BINARY_PACKED` list of at most `most` numbers, taken off the front, until `give` says that
/// it is enough. `None` when the list is not what it should be.
pub(super) fn deltas(
    bytes: &mut &[u8],
    most: usize,
    mut give: impl FnMut(i64) -> bool,
) -> Option<()> {
    let block = usize::try_from(varint(bytes)?).ok()?;
    let parts = usize::try_from(varint(bytes)?).ok()?;
    let mut left = usize::try_from(varint(bytes)?).ok().filter(|count| *count <= most)?;
    let mut value = zigzag(bytes)?;
    let each = block.checked_div(parts).filter(|each| *each > 0 && each % 8 == 0)?;
    if left == 0 || !give(value) {
        return Some(());
    }
    left -= 1;
    while left > 0 {
        let least = zigzag(bytes)?;
        for width in take(bytes, parts)? {
            let wanted = left.min(each);
            // Nothing is stored of what lies wholly behind the last value.
            if wanted == 0 {
                break;
            }
            let width = u32::from(*width);
            if width > MAX_WIDTH {
                return None;
            }
            let packed = take(bytes, (each / 8).checked_mul(width as usize)?)?;
            for delta in unpacked(packed, width, wanted) {
                value = value.wrapping_add(least).wrapping_add(delta as i64);
                if !give(value) {
                    return Some(());
                }
            }
            left -= wanted;
        }
    }
    Some(())
}

/// Takes a `DELTA_BINARY_PACKED` list of at most `most` lengths off the front.
pub(super) fn lengths(bytes: &mut &[u8], most: usize) -> Option<Vec<usize>> {
    let mut lengths = Vec::new();
    let mut sound = true;
    deltas(bytes, most, |value| match usize::try_from(value) {
        Ok(length) => {
            lengths.push(length);
            true
        }
        Err(_) => {
            sound = false;
            false
        }
    })?;
    sound.then_some(lengths)
}

/// A part of an RLE and bit-packing hybrid list.
enum Run<'a> {
    /// The same number so many times.
    Same(u64, usize),
    /// So many numbers, lowest bit first. The last ones of a list may be padding.
    Packed(&'a [u8], usize),
}

/// An RLE and bit-packing hybrid list of numbers of so many bits, part by part.
struct Runs<'a> {
    bytes: &'a [u8],
    width: u32,
}

impl<'a> Runs<'a> {
    fn new(bytes: &'a [u8], width: u32) -> Option<Self> {
        (width <= 32).then_some(Self { bytes, width })
    }

    /// The next part; `None` for bytes that are none.
    fn part(&mut self) -> Option<Run<'a>> {
        let header = varint(&mut self.bytes)?;
        let count = usize::try_from(header >> 1).ok()?;
        if header & 1 == 1 {
            let count = count.checked_mul(8)?;
            if self.width == 0 {
                return Some(Run::Same(0, count));
            }
            // The last group may be cut short: what lies behind the end is no value.
            let whole = (count / 8).checked_mul(self.width as usize)?.min(self.bytes.len());
            let packed = take(&mut self.bytes, whole)?;
            let held = packed.len() * 8 / self.width as usize;
            return Some(Run::Packed(packed, held.min(count)));
        }
        let value = take(&mut self.bytes, self.width.div_ceil(8) as usize)?;
        let value = value.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        Some(Run::Same(value, count))
    }
}

impl<'a> Iterator for Runs<'a> {
    type Item = Option<Run<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.bytes.is_empty()).then(|| self.part())
    }
}

/// Whether any number of an RLE and bit-packing hybrid list is one of those marked in `wanted`.
pub(super) fn any_marked(bytes: &[u8], width: u32, wanted: &[bool]) -> Option<bool> {
    let marked = |number: u64| {
        usize::try_from(number).is_ok_and(|number| wanted.get(number).copied().unwrap_or(true))
    };
    for run in Runs::new(bytes, width)? {
        let any = match run? {
            Run::Same(value, count) => count > 0 && marked(value),
            Run::Packed(packed, count) => unpacked(packed, width, count).any(marked),
        };
        if any {
            return Some(true);
        }
    }
    Some(false)
}

/// The places, of the first `most`, at which such a list has a number that is marked in `wanted`.
pub(super) fn marked_places(
    bytes: &[u8],
    width: u32,
    most: usize,
    wanted: &[bool],
) -> Option<Vec<usize>> {
    let marked =
        |number: u64| usize::try_from(number).is_ok_and(|number| wanted.get(number) == Some(&true));
    let mut places = Vec::new();
    let mut first = 0usize;
    for run in Runs::new(bytes, width)? {
        let left = most.saturating_sub(first);
        let count = match run? {
            Run::Same(value, count) => {
                if marked(value) {
                    places.extend(first..first + count.min(left));
                }
                count
            }
            Run::Packed(packed, count) => {
                let numbers = unpacked(packed, width, count.min(left)).enumerate();
                places.extend(
                    numbers.filter(|(_, number)| marked(*number)).map(|(at, _)| first + at),
                );
                count
            }
        };
        first = first.checked_add(count)?;
        if first >= most {
            break;
        }
    }
    Some(places)
}

/// Gives the numbers that such a list has at these places, which ascend. `None` when it has not that many.
pub(super) fn numbers_at(
    bytes: &[u8],
    width: u32,
    places: &[usize],
    mut give: impl FnMut(u64) -> Option<()>,
) -> Option<()> {
    let mut places = places.iter().copied().peekable();
    let mut first = 0usize;
    for run in Runs::new(bytes, width)? {
        if places.peek().is_none() {
            break;
        }
        let run = run?;
        let (Run::Same(_, count) | Run::Packed(_, count)) = run;
        let end = first.checked_add(count)?;
        while let Some(place) = places.next_if(|place| *place < end) {
            give(match run {
                Run::Same(value, _) => value,
                Run::Packed(packed, _) => number(packed, width, place - first),
            })?;
        }
        first = end;
    }
    places.next().is_none().then_some(())
}

/// For rows of a page, which ascend, where their values stand among the page's values; `None` for a null. The
/// levels are a list of ones and zeros: which rows have a value.
pub(super) fn values_of_rows(levels: &[u8], rows: &[usize]) -> Option<Vec<Option<usize>>> {
    let mut found = Vec::with_capacity(rows.len());
    let mut rows = rows.iter().copied().peekable();
    let (mut first, mut before) = (0usize, 0usize);
    for run in Runs::new(levels, 1)? {
        if rows.peek().is_none() {
            break;
        }
        match run? {
            Run::Same(value, count) => {
                let end = first.checked_add(count)?;
                while let Some(row) = rows.next_if(|row| *row < end) {
                    found.push((value == 1).then_some(before + (row - first)));
                }
                first = end;
                before += if value == 1 { count } else { 0 };
            }
            Run::Packed(packed, count) => {
                for at in 0..count {
                    let value = number(packed, 1, at);
                    if rows.next_if(|row| *row == first + at).is_some() {
                        found.push((value == 1).then_some(before));
                    }
                    before += usize::from(value == 1);
                }
                first = first.checked_add(count)?;
            }
        }
    }
    rows.next().is_none().then_some(found)
}

/// The rows of a page whose values stand at these places, which ascend, among the page's values. Places behind the
/// last value are nobody's.
pub(super) fn rows_of_values(levels: &[u8], places: &[usize]) -> Option<Vec<usize>> {
    let mut found = Vec::with_capacity(places.len());
    let mut places = places.iter().copied().peekable();
    let (mut first, mut before) = (0usize, 0usize);
    for run in Runs::new(levels, 1)? {
        if places.peek().is_none() {
            break;
        }
        match run? {
            Run::Same(value, count) => {
                if value == 1 {
                    let end = before.checked_add(count)?;
                    while let Some(place) = places.next_if(|place| *place < end) {
                        found.push(first + (place - before));
                    }
                    before = end;
                }
                first = first.checked_add(count)?;
            }
            Run::Packed(packed, count) => {
                for at in (0..count).filter(|at| number(packed, 1, *at) == 1) {
                    if places.next_if(|place| *place == before).is_some() {
                        found.push(first + at);
                    }
                    before += 1;
                }
                first = first.checked_add(count)?;
            }
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use crate::encode::bits;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]

        #[test]
        fn places_are_those_of_what_was_packed(
            valid in prop::collection::vec((any::<bool>(), 1..90_usize), 0..12),
            numbers in prop::collection::vec((0..9_u32, 1..40_usize), 0..12),
            picks in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let repeated = |(one, count): (bool, usize)| std::iter::repeat_n(one, count);
            let valid: Vec<bool> = valid.into_iter().flat_map(repeated).collect();
            let mut levels = Vec::new();
            bits::levels(&mut levels, valid.len(), Some(&valid));
            let given: Vec<usize> =
                valid.iter().enumerate().filter(|(_, v)| **v).map(|(row, _)| row).collect();
            let pick = |of: usize| {
                let mut picked: Vec<usize> =
                    picks.iter().filter(|_| of > 0).map(|pick| pick.index(of)).collect();
                picked.sort_unstable();
                picked.dedup();
                picked
            };
            let rows = pick(valid.len());
            let expected: Vec<Option<usize>> =
                rows.iter().map(|row| given.binary_search(row).ok()).collect();
            prop_assert_eq!(values_of_rows(&levels, &rows), Some(expected));
            prop_assert_eq!(values_of_rows(&levels, &[valid.len() + 8]), None);
            let places = pick(given.len());
            let mut behind = places.clone();
            behind.push(given.len());
            let expected: Vec<usize> = places.iter().map(|place| given[*place]).collect();
            prop_assert_eq!(rows_of_values(&levels, &behind), Some(expected));

            let numbers: Vec<u32> = numbers
                .into_iter()
                .flat_map(|(number, count)| std::iter::repeat_n(number, count))
                .collect();
            let mut packed = Vec::new();
            bits::hybrid(&mut packed, &numbers, 4);
            let places = pick(numbers.len());
            let mut found = Vec::new();
            let all = numbers_at(&packed, 4, &places, |number| {
                found.push(number as u32);
                Some(())
            });
            let expected: Vec<u32> = places.iter().map(|place| numbers[*place]).collect();
            prop_assert_eq!((all, found), (Some(()), expected));
            let wanted: Vec<bool> = (0..16).map(|number| number % 3 == 0).collect();
            let marked = (0..numbers.len()).filter(|place| numbers[*place].is_multiple_of(3));
            let most = numbers.len();
            prop_assert_eq!(
                marked_places(&packed, 4, most, &wanted), Some(marked.collect::<Vec<_>>())
            );
        }

        #[test]
        fn any_bytes_are_read_or_not(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            (width, most) in (0..40_u32, 0..5_000_usize),
        ) {
            let read = lengths(&mut bytes.as_slice(), most);
            prop_assert!(read.is_none_or(|lengths| lengths.len() <= most));
            let _ = any_marked(&bytes, width, &[false, true, false]);
            let places = marked_places(&bytes, width, most, &[false, true, false]);
            prop_assert!(places.is_none_or(|places| places.iter().all(|place| *place < most)));
            let _ = numbers_at(&bytes, width, &[0, 7, most], |_| Some(()));
            let _ = values_of_rows(&bytes, &[0, 7, most]);
            let _ = rows_of_values(&bytes, &[0, 7, most]);
        }
    }

    #[test]
    fn numbers_of_the_specification_are_read() {
        // 1, 2, 3, 4, 5 of the Parquet specification's example: block 128, 4 parts, 5 values.
        let packed = [0x80, 0x01, 0x04, 0x05, 0x02, 0x02, 0, 0, 0, 0];
        assert_eq!(lengths(&mut packed.as_slice(), 5).unwrap(), [1, 2, 3, 4, 5]);
        assert_eq!(lengths(&mut packed.as_slice(), 4), None);
        assert_eq!(lengths(&mut &packed[..6], 5), None);
        // 0 to 7 in three bits each, of the same place.
        let hybrid = [0x03, 0x88, 0xc6, 0xfa];
        for number in 0..8 {
            let wanted: Vec<bool> = (0..8).map(|other| other == number).collect();
            assert_eq!(any_marked(&hybrid, 3, &wanted), Some(true));
        }
        assert_eq!(any_marked(&hybrid, 3, &[false; 8]), Some(false));
        // Four times 5.
        assert_eq!(any_marked(&[0x08, 0x05], 3, &[false; 8]), Some(false));
        assert_eq!(
            any_marked(&[0x08, 0x05], 3, &[false, false, false, false, false, true]),
            Some(true)
        );
    }
}
