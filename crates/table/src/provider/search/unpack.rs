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
    let mask = (1u64 << width) - 1;
    (0..count).map(move |number| {
        let bit = number * width as usize;
        let rest = bytes.get(bit / 8..).unwrap_or_default();
        let word = match rest.first_chunk::<8>() {
            Some(word) => u64::from_le_bytes(*word),
            None => rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
        };
        word >> (bit % 8) & mask
    })
}

/// Takes a `DELTA_BINARY_PACKED` list of at most `most` lengths off the front.
pub(super) fn lengths(bytes: &mut &[u8], most: usize) -> Option<Vec<usize>> {
    let block = usize::try_from(varint(bytes)?).ok()?;
    let parts = usize::try_from(varint(bytes)?).ok()?;
    let count = usize::try_from(varint(bytes)?).ok().filter(|count| *count <= most)?;
    let mut value = zigzag(bytes)?;
    let each = block.checked_div(parts).filter(|each| *each > 0 && each % 8 == 0)?;
    let mut lengths = Vec::with_capacity(count);
    if count == 0 {
        return Some(lengths);
    }
    lengths.push(usize::try_from(value).ok()?);
    while lengths.len() < count {
        let least = zigzag(bytes)?;
        for width in take(bytes, parts)? {
            let wanted = (count - lengths.len()).min(each);
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
                lengths.push(usize::try_from(value).ok()?);
            }
        }
    }
    Some(lengths)
}

/// Whether any number of an RLE and bit-packing hybrid list is one of those marked in `wanted`.
pub(super) fn any_marked(mut bytes: &[u8], width: u32, wanted: &[bool]) -> Option<bool> {
    let marked = |number: u64| {
        usize::try_from(number).is_ok_and(|number| wanted.get(number).copied().unwrap_or(true))
    };
    if width > 32 {
        return None;
    }
    while !bytes.is_empty() {
        let header = varint(&mut bytes)?;
        let count = usize::try_from(header >> 1).ok()?;
        if header & 1 == 1 && width > 0 {
            // The last group may be cut short: what lies behind the end is no value.
            let whole = count.checked_mul(width as usize)?.min(bytes.len());
            let packed = take(&mut bytes, whole)?;
            if unpacked(packed, width, packed.len() * 8 / width as usize).any(marked) {
                return Some(true);
            }
        } else {
            let value = take(&mut bytes, width.div_ceil(8) as usize)?;
            let value = value.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
            if count > 0 && marked(value) {
                return Some(true);
            }
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]

        #[test]
        fn any_bytes_are_read_or_not(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            (width, most) in (0..40_u32, 0..5_000_usize),
        ) {
            let read = lengths(&mut bytes.as_slice(), most);
            prop_assert!(read.is_none_or(|lengths| lengths.len() <= most));
            let _ = any_marked(&bytes, width, &[false, true, false]);
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
