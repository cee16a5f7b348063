//! Shannon entropy of byte strings, in bits per byte, rounded to 1/256.
//!
//! `H = log2(n) − (1/n) · Σ c·log2(c)` over the counts `c` of the bytes of a string of `n` bytes.
//! `c·log2(c)` is kept in integers of 2⁻²⁰ bits, so the result does not depend on the order of
//! additions, nor on which of the paths below computed it:
//!
//! - up to 1,024 bytes the sum is carried along while counting: the step from `c` to `c + 1` adds
//!   `(c+1)·log2(c+1) − c·log2(c)`, so nothing has to look at 256 counters afterwards;
//! - above, four interleaved histograms (so that runs of one byte do not wait for themselves) and
//!   one pass over their sum.
//!
//! The result is quantised: an integer 0 to 2,048 in units of 1/256 bit ([`quantised`]). The column
//! `entropy` holds it as `f32` ([`bits`]), which is exact.

use arrow::array::{Array, ArrayRef, Float32Array, RecordBatch};
use palisade_event::column::Text;
use palisade_event::schema::Core;
use std::sync::LazyLock;

use crate::threat::columns::{PayloadColumn, payload_columns};

/// One bit, in the unit of [`quantised`].
pub const STEPS_PER_BIT: u16 = 256;

/// Fractional bits of the integer tables.
const FRACTION: u32 = 20;
/// Longest string that is counted with 8-bit counters.
const SHORT: usize = 255;
/// Longest string whose sum is carried along while counting.
const MEDIUM: usize = 1_024;
/// Counts below this have their `c·log2(c)` in the table.
const TABLE: usize = 4_097;

struct Tables {
    /// `c·log2(c)` in 2⁻²⁰ bits, for `c` from 0 to 4,096.
    total: Box<[u64; TABLE]>,
    /// `total[c+1] − total[c]` for `c` below 256.
    step: [u32; 256],
    /// The same for `c` up to 1,023.
    long_step: Box<[u32; MEDIUM]>,
}

static TABLES: LazyLock<Tables> = LazyLock::new(|| {
    let total: Box<[u64; TABLE]> = Box::new(std::array::from_fn(|c| n_log_n(c as u64)));
    let step_of = |c: usize| {
        let next = total.get(c + 1).copied().unwrap_or(0);
        (next - total.get(c).copied().unwrap_or(0)) as u32
    };
    let step = std::array::from_fn(step_of);
    let long_step = Box::new(std::array::from_fn(step_of));
    Tables { total, step, long_step }
});

/// `c·log2(c)` in 2⁻²⁰ bits, by the formula.
fn n_log_n(c: u64) -> u64 {
    if c < 2 {
        return 0;
    }
    let c = c as f64;
    (c * c.log2() * f64::from(1u32 << FRACTION)).round() as u64
}

/// The entropy of `bytes` in units of 1/256 bit per byte: 0 (one byte repeated, or nothing) to 2,048.
#[must_use]
pub fn quantised(bytes: &[u8]) -> u16 {
    let tables = &*TABLES;
    match bytes.len() {
        0 | 1 => 0,
        2..=SHORT => finish(bytes.len(), short_sum(bytes, tables), tables),
        len if len <= MEDIUM => finish(len, medium_sum(bytes, tables), tables),
        len => finish(len, long_sum(bytes, tables), tables),
    }
}

/// The entropy of `bytes` in bits per byte, 0 to 8, rounded to 1/256.
#[must_use]
pub fn bits(bytes: &[u8]) -> f32 {
    to_bits(quantised(bytes))
}

/// From units of 1/256 bit to bits, exactly.
#[must_use]
pub fn to_bits(quantised: u16) -> f32 {
    f32::from(quantised) / f32::from(STEPS_PER_BIT)
}

fn finish(len: usize, sum: u64, tables: &Tables) -> u16 {
    let whole = tables.total.get(len).copied().unwrap_or_else(|| n_log_n(len as u64));
    let scale = f64::from(STEPS_PER_BIT) / f64::from(1u32 << FRACTION);
    let value = whole.saturating_sub(sum) as f64 * scale / len as f64;
    (value + 0.5) as u16
}

#[expect(clippy::indexing_slicing, reason = "256 counters, indexed by bytes")]
fn short_sum(bytes: &[u8], tables: &Tables) -> u64 {
    let mut counts = [0u8; 256];
    let mut sum = 0u64;
    for &byte in bytes {
        let count = &mut counts[usize::from(byte)];
        sum += u64::from(tables.step[usize::from(*count)]);
        *count = count.wrapping_add(1);
    }
    sum
}

#[expect(clippy::indexing_slicing, reason = "256 counters, indexed by bytes; counts masked")]
fn medium_sum(bytes: &[u8], tables: &Tables) -> u64 {
    let mut counts = [0u16; 256];
    let mut sum = 0u64;
    for &byte in bytes {
        let count = &mut counts[usize::from(byte)];
        sum += u64::from(tables.long_step[usize::from(*count) & (MEDIUM - 1)]);
        *count = count.wrapping_add(1);
    }
    sum
}

#[expect(clippy::indexing_slicing, reason = "256 counters, indexed by bytes")]
fn long_sum(bytes: &[u8], tables: &Tables) -> u64 {
    // 32-bit counters are enough for 16 GiB in four histograms; no record is that long.
    let mut counts = [[0u32; 256]; 4];
    let [a, b, c, d] = &mut counts;
    let (chunks, rest) = bytes.as_chunks::<8>();
    for chunk in chunks {
        let word = u64::from_le_bytes(*chunk);
        a[(word & 0xff) as usize] += 1;
        b[(word >> 8 & 0xff) as usize] += 1;
        c[(word >> 16 & 0xff) as usize] += 1;
        d[(word >> 24 & 0xff) as usize] += 1;
        a[(word >> 32 & 0xff) as usize] += 1;
        b[(word >> 40 & 0xff) as usize] += 1;
        c[(word >> 48 & 0xff) as usize] += 1;
        d[(word >> 56) as usize] += 1;
    }
    for &byte in rest {
        a[usize::from(byte)] += 1;
    }
    let mut sum = 0u64;
    for (((a, b), c), d) in a.iter().zip(b.iter()).zip(c.iter()).zip(d.iter()) {
        let count = u64::from(*a) + u64::from(*b) + u64::from(*c) + u64::from(*d);
        sum += match tables.total.get(count as usize) {
            Some(known) => *known,
            None => n_log_n(count),
        };
    }
    sum
}

/// No entropy: what [`quantised_rows`] holds for a row without a payload.
pub const NONE: u16 = u16::MAX;

/// The quantised entropy of each row's payload, [`NONE`] where it has none.
///
/// The payload of a row is its `message`; without one its `url`; without one the first payload
/// column that has a value, in the order that [`payload_columns`] documents (request bodies and
/// queries, then command lines, then the other payload columns by name, then `user_agent`). One
/// text stands for the row, never several joined: a column with a dictionary is computed once per
/// distinct value, and a structured event of five low-cardinality fields costs almost nothing.
#[must_use]
pub fn quantised_rows(batch: &RecordBatch) -> Vec<u16> {
    quantised_with(batch, &payload_columns(batch))
}

/// [`quantised_rows`] with the batch's payload columns.
pub(crate) fn quantised_with(batch: &RecordBatch, columns: &[PayloadColumn<'_>]) -> Vec<u16> {
    let rows = batch.num_rows();
    let mut out = vec![NONE; rows];
    let mut open = rows;
    let named =
        [Core::Message, Core::Url].into_iter().filter_map(|c| batch.column_by_name(c.name()));
    let dynamic = columns.iter().map(|column| column.array);
    let agent = batch.column_by_name(Core::UserAgent.name());
    for array in named.chain(dynamic).chain(agent) {
        if open == 0 {
            break;
        }
        fill(&mut out, array, &mut open);
    }
    out
}

/// Fills the rows that are still open from one text column.
fn fill(out: &mut [u16], array: &ArrayRef, open: &mut usize) {
    match Text::of(array) {
        Some(Text::Plain(plain)) => {
            for (slot, value) in out.iter_mut().zip(plain.iter()) {
                if let (&mut NONE, Some(value)) = (&mut *slot, value)
                    && !value.is_empty()
                {
                    *slot = quantised(value.as_bytes());
                    *open -= 1;
                }
            }
        }
        Some(Text::Dictionary(keys, values)) => {
            // Computed when first met: a sliced batch may hold a dictionary larger than itself.
            const UNKNOWN: u16 = u16::MAX - 1;
            let mut known = vec![UNKNOWN; values.len()];
            for (slot, key) in out.iter_mut().zip(keys.keys().iter()) {
                let (&mut NONE, Some(key)) = (&mut *slot, key) else { continue };
                let Some(entry) = known.get_mut(key as usize) else { continue };
                if *entry == UNKNOWN {
                    let text =
                        if values.is_valid(key as usize) { values.value(key as usize) } else { "" };
                    *entry = if text.is_empty() { NONE } else { quantised(text.as_bytes()) };
                }
                if *entry != NONE {
                    *slot = *entry;
                    *open -= 1;
                }
            }
        }
        None => {}
    }
}

/// The column `entropy` of a batch: bits per byte of each row's payload ([`quantised_rows`]), null
/// for rows without one.
#[must_use]
pub fn entropy_column(batch: &RecordBatch) -> Float32Array {
    column_of(&quantised_rows(batch))
}

/// Quantised entropies as the column `entropy`.
#[must_use]
pub fn column_of(quantised: &[u16]) -> Float32Array {
    if quantised.contains(&NONE) {
        quantised.iter().map(|q| (*q != NONE).then(|| to_bits(*q))).collect()
    } else {
        quantised.iter().map(|q| to_bits(*q)).collect::<Vec<f32>>().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{DictionaryArray, StringArray};
    use arrow::datatypes::{DataType, Field, Int32Type, Schema};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn naive(bytes: &[u8]) -> f64 {
        let mut counts = [0u64; 256];
        for b in bytes {
            counts[*b as usize] += 1;
        }
        let n = bytes.len() as f64;
        counts.iter().filter(|c| **c > 0).map(|c| *c as f64 / n).map(|p| -p * p.log2()).sum()
    }

    fn near(bytes: &[u8]) -> bool {
        let expected = if bytes.is_empty() { 0.0 } else { naive(bytes) };
        (f64::from(bits(bytes)) - expected).abs() <= 0.5 / 256.0 + 1e-5
    }

    proptest! {
        #[test]
        fn agrees_with_the_formula(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
            prop_assert!(near(&bytes));
        }

        #[test]
        fn agrees_on_few_symbols(bytes in prop::collection::vec(0u8..4, 0..9000)) {
            prop_assert!(near(&bytes));
        }

        #[test]
        fn ignores_order(mut bytes in prop::collection::vec(any::<u8>(), 0..1500)) {
            let before = quantised(&bytes);
            bytes.sort_unstable();
            prop_assert_eq!(before, quantised(&bytes));
        }
    }

    #[test]
    fn known_values_and_edges_of_the_paths() {
        assert_eq!(quantised(b""), 0);
        assert_eq!(quantised(b"aaaa"), 0);
        assert_eq!(bits(b"ab"), 1.0);
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(bits(&all), 8.0);
        for len in [254, 255, 256, 257, 1023, 1024, 1025, 4096, 4097, 70_000] {
            assert!(near(&vec![7; len]), "{len}");
            let mixed: Vec<u8> = (0..len).map(|i| (i * i % 251) as u8).collect();
            assert!(near(&mixed), "{len}");
            assert!(near(&all.iter().copied().cycle().take(len).collect::<Vec<_>>()), "{len}");
        }
    }

    #[test]
    fn the_payload_is_message_then_url_then_payload_columns() {
        let message = StringArray::from(vec![Some("ab"), None, Some(""), None, None]);
        let url: DictionaryArray<Int32Type> =
            vec![Some("/x"), Some("abcd"), None, None, None].into_iter().collect();
        let meta = StringArray::from(vec![Some("zz"), Some("zz"), Some("aabb"), None, None]);
        let agent: DictionaryArray<Int32Type> =
            vec![None, None, None, Some("abcdefgh"), None].into_iter().collect();
        let schema = Schema::new(vec![
            Field::new("message", DataType::Utf8, true),
            Field::new("url", url.data_type().clone(), true),
            Field::new("metadata.note", DataType::Utf8, true),
            Field::new("user_agent", agent.data_type().clone(), true),
        ]);
        let columns: Vec<ArrayRef> =
            vec![Arc::new(message), Arc::new(url), Arc::new(meta), Arc::new(agent)];
        let batch = RecordBatch::try_new(Arc::new(schema), columns).unwrap();
        let expected = Float32Array::from(vec![Some(1.0), Some(2.0), Some(1.0), Some(3.0), None]);
        assert_eq!(entropy_column(&batch), expected);
    }
}
