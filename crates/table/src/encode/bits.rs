//! Parquet's packings: varints, the RLE and bit-packing hybrid, `DELTA_BINARY_PACKED`.

/// Appends an unsigned LEB128 number.
pub(crate) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// How many bits hold every value up to this one.
pub(crate) fn width(max: u64) -> u32 {
    64 - max.leading_zeros()
}

/// Appends values of `width` bits each, lowest bit first, the last byte filled with zeros.
fn pack(out: &mut Vec<u8>, values: impl Iterator<Item = u64>, width: u32) {
    if width == 0 {
        return;
    }
    let mut word = 0u64;
    let mut filled = 0u32;
    for value in values {
        word |= value << filled;
        filled += width;
        if filled >= 64 {
            out.extend_from_slice(&word.to_le_bytes());
            filled -= 64;
            word = if filled == 0 { 0 } else { value >> (width - filled) };
        }
    }
    let bytes = filled.div_ceil(8) as usize;
    out.extend(word.to_le_bytes().into_iter().take(bytes));
}

/// The shortest run that is written as a run: below it packed bits are shorter or as good.
const MIN_RUN: usize = 24;

/// Appends numbers in the RLE and bit-packing hybrid.
pub(crate) fn hybrid(out: &mut Vec<u8>, values: &[u32], width: u32) {
    let mut literal = 0usize;
    let mut at = 0usize;
    while let Some(&value) = values.get(at) {
        let rest = values.get(at..).unwrap_or_default();
        let run = rest.iter().take_while(|other| **other == value).count();
        // A literal before a run holds a multiple of eight values, so the run lends it some.
        let lent = (at - literal).next_multiple_of(8) - (at - literal);
        if run >= MIN_RUN + lent {
            packed(out, values.get(literal..at + lent).unwrap_or_default(), width);
            rle(out, value, run - lent, width);
            literal = at + run;
        }
        at += run;
    }
    packed(out, values.get(literal..).unwrap_or_default(), width);
}

fn packed(out: &mut Vec<u8>, values: &[u32], width: u32) {
    if values.is_empty() {
        return;
    }
    let groups = values.len().div_ceil(8);
    varint(out, (groups as u64) << 1 | 1);
    let padding = groups * 8 - values.len();
    let zeros = std::iter::repeat_n(0, padding);
    pack(out, values.iter().map(|value| u64::from(*value)).chain(zeros), width);
}

fn rle(out: &mut Vec<u8>, value: u32, run: usize, width: u32) {
    varint(out, (run as u64) << 1);
    out.extend(value.to_le_bytes().into_iter().take(width.div_ceil(8) as usize));
}

/// Appends the definition levels of a nullable column: 1 for a value, 0 for null. `None` means no
/// nulls.
pub(crate) fn levels(out: &mut Vec<u8>, rows: usize, valid: Option<&[bool]>) {
    match valid {
        None => rle(out, 1, rows, 1),
        Some(valid) => {
            let mut literal = 0usize;
            let mut at = 0usize;
            while let Some(&value) = valid.get(at) {
                let rest = valid.get(at..).unwrap_or_default();
                let run = rest.iter().take_while(|other| **other == value).count();
                let lent = (at - literal).next_multiple_of(8) - (at - literal);
                if run >= 64 + lent {
                    packed_levels(out, valid.get(literal..at + lent).unwrap_or_default());
                    rle(out, u32::from(value), run - lent, 1);
                    literal = at + run;
                }
                at += run;
            }
            packed_levels(out, valid.get(literal..).unwrap_or_default());
        }
    }
}

fn packed_levels(out: &mut Vec<u8>, valid: &[bool]) {
    if valid.is_empty() {
        return;
    }
    varint(out, (valid.len().div_ceil(8) as u64) << 1 | 1);
    for group in valid.chunks(8) {
        let byte =
            group.iter().enumerate().fold(0u8, |byte, (bit, one)| byte | u8::from(*one) << bit);
        out.push(byte);
    }
}

/// Values of a delta block, in four miniblocks.
const DELTA_BLOCK: usize = 256;
const MINIBLOCK: usize = DELTA_BLOCK / 4;

/// Appends integers as `DELTA_BINARY_PACKED`. With `narrow` the numbers are 32 bits wide, and the
/// arithmetic wraps there, as readers expect.
pub(crate) fn delta(out: &mut Vec<u8>, values: &[i64], narrow: bool) {
    varint(out, DELTA_BLOCK as u64);
    varint(out, 4);
    varint(out, values.len() as u64);
    let first = values.first().copied().unwrap_or(0);
    varint(out, zigzag(first));
    let difference = |pair: &[i64]| match pair {
        [a, b] if narrow => i64::from((*b as i32).wrapping_sub(*a as i32)),
        [a, b] => b.wrapping_sub(*a),
        _ => 0,
    };
    let mut deltas = [0i64; DELTA_BLOCK];
    let mut pairs = values.windows(2);
    let mut left = values.len().saturating_sub(1);
    while left > 0 {
        let count = left.min(DELTA_BLOCK);
        let (now, _) = deltas.split_at_mut(count);
        for (slot, pair) in now.iter_mut().zip(&mut pairs) {
            *slot = difference(pair);
        }
        left -= count;
        let least = now.iter().copied().min().unwrap_or(0);
        varint(out, zigzag(least));
        let above = |delta: i64| {
            let above = delta.wrapping_sub(least) as u64;
            if narrow { above & 0xffff_ffff } else { above }
        };
        let widths = out.len();
        out.extend_from_slice(&[0; 4]);
        for (index, block) in now.chunks(MINIBLOCK).enumerate() {
            let all = block.iter().fold(0u64, |all, delta| all | above(*delta));
            let bits = width(all);
            if let Some(byte) = out.get_mut(widths + index) {
                *byte = bits as u8;
            }
            let zeros = std::iter::repeat_n(0, MINIBLOCK - block.len());
            pack(out, block.iter().map(|delta| above(*delta)).chain(zeros), bits);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_is_lowest_bit_first() {
        let mut out = Vec::new();
        pack(&mut out, [0u64, 1, 2, 3, 4, 5, 6, 7].into_iter(), 3);
        // The example of the Parquet specification.
        assert_eq!(out, [0b1000_1000, 0b1100_0110, 0b1111_1010]);
    }

    #[test]
    fn runs_and_literals() {
        let mut out = Vec::new();
        hybrid(&mut out, &[5; 100], 3);
        assert_eq!(out, [200, 1, 5]);
        out.clear();
        hybrid(&mut out, &[], 3);
        assert!(out.is_empty());
    }
}
