//! Hits: what correlations count. A hit says that a record matched a rule that a correlation refers to.

use super::definition::{Correlation, Measure};
use palisade_event::RecordId;
use palisade_event::domain::is_late;
use palisade_event::slot::{Slot, slot_of};
use xxhash_rust::xxh3::xxh3_64;

/// The first moment that a hit cannot have: times are 53 bits of microseconds from 1970 on (until 2255).
pub const END_OF_TIME: i64 = 1 << 53;
/// The magnitude from which on a number is none that can be summed exactly: 2^63.
const GREATEST: f64 = 9_223_372_036_854_775_808.0;

/// Where hits come from (H1). Hits of an origin come in the order of their positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// 0 for the hits of records, n for the alerts of correlations of depth n − 1.
    pub stage: u8,
    /// The partition of that stage.
    pub partition: u16,
}

/// The origin of the hits that a backfill reads from stored rows (B1). Only correlations that are being backfilled wait
/// for it.
pub const BACKFILL: Origin = Origin { stage: 15, partition: 0 };

/// Where in its origin a hit stands (H1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Position {
    /// The offset of the record, or of what passed the timer.
    pub offset: u64,
    /// The row in that frame.
    pub row: u32,
    /// Which of the hits of that row.
    pub ordinal: u32,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HitKind {
    /// A record matched; it may be late (T4).
    Record,
    /// A correlation that is read has an alert; never late (H1).
    Alert,
    /// An alert that came before is retracted: same record id and time.
    Retraction,
}

/// The value of a hit in the field that the correlation measures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// None, or none that counts.
    None,
    /// For `value_count`: see [`value_hash`].
    Hash(u64),
    /// For `value_sum`, `value_avg`, `value_percentile`, `value_median`.
    Number(f64),
}

/// A hit, on its way to one input of one correlation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit<'a> {
    /// The correlation's place in the [`super::Correlations`].
    pub correlation: usize,
    /// Which of its inputs.
    pub input: u16,
    /// Whose data.
    pub tenant: &'a str,
    /// The time domain (T2), not empty.
    pub domain: &'a str,
    /// The slot of its group ([`group_slot`]).
    pub slot: Slot,
    /// The group ([`group_key`]).
    pub group: &'a [u8],
    /// The record, or the alert that was read.
    pub record: RecordId,
    /// Event time, microseconds.
    pub time: i64,
    /// The record's clock (T1), microseconds.
    pub clock: i64,
    /// The measured value.
    pub value: Value,
    /// What happened.
    pub kind: HitKind,
}

/// Appends a value to `out` as groups and counts of values compare it: without surrounding white space, ASCII letters
/// in lower case.
pub fn normalise(value: &[u8], out: &mut Vec<u8>) {
    out.extend(value.trim_ascii().iter().map(u8::to_ascii_lowercase));
}

/// The key of a group, from the values of its fields in order; `None` when one is missing or empty: such a hit is in no
/// group. Each value is normalised and preceded by its length, four bytes.
#[must_use]
pub fn group_key<'v>(values: impl IntoIterator<Item = Option<&'v [u8]>>) -> Option<Vec<u8>> {
    let mut key = Vec::new();
    for value in values {
        let value = value?.trim_ascii();
        if value.is_empty() {
            return None;
        }
        key.extend_from_slice(&u32::try_from(value.len()).ok()?.to_le_bytes());
        normalise(value, &mut key);
    }
    Some(key)
}

/// The values of a group's key, in order.
#[must_use]
pub fn group_values(key: &[u8]) -> Vec<&[u8]> {
    let mut values = Vec::new();
    let mut rest = key;
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let Some((value, tail)) = tail.split_at_checked(u32::from_le_bytes(*length) as usize)
        else {
            break;
        };
        values.push(value);
        rest = tail;
    }
    values
}

/// The slot of a group of a tenant that is spread over `spread` slots (P1).
#[must_use]
pub fn group_slot(tenant: &str, group: &[u8], spread: u16) -> Slot {
    slot_of(tenant, xxh3_64(group), spread)
}

/// The value of a hit for `value_count`: the hash of its fields' values together, `None` when one is missing. Values
/// are told apart by 64 bits.
#[must_use]
pub fn value_hash<'v>(values: impl IntoIterator<Item = Option<&'v [u8]>>) -> Value {
    group_key(values).map_or(Value::None, |key| Value::Hash(xxh3_64(&key)))
}

/// The value of a hit for sums and their kin, from its text: a finite decimal number of magnitude below 2^63.
#[must_use]
pub fn number(text: &[u8]) -> Value {
    let parsed = std::str::from_utf8(text.trim_ascii()).ok().and_then(|text| text.parse().ok());
    parsed.map_or(Value::None, Value::Number)
}

/// A number as a multiple of 2^−32, what is finer cut off: what sums, means and percentiles are computed with, exactly
/// and in any order. `None` for what is no number of magnitude below 2^63.
#[must_use]
pub fn fixed_point(number: f64) -> Option<i128> {
    // Multiplying by a power of two is exact.
    (number.is_finite() && number.abs() < GREATEST).then_some((number * 4_294_967_296.0) as i128)
}

/// One in [`fixed_point`].
pub const ONE: i128 = 1 << 32;

impl Correlation {
    /// The hit's value as it is kept, when the hit counts at all: it is in time (T4), its time can be, and where the
    /// correlation measures a value it has one, which is in the sample. 0 where no value is measured.
    #[must_use]
    pub fn admits(&self, hit: &Hit<'_>) -> Option<u64> {
        let late = hit.kind == HitKind::Record
            && is_late(Some(hit.domain), hit.clock, hit.time, self.lateness);
        if late
            || hit.domain.is_empty()
            || !(0..END_OF_TIME).contains(&hit.time)
            || usize::from(hit.input) >= self.inputs.len()
        {
            return None;
        }
        match (&self.measure, hit.value) {
            (Measure::Values { sampling, .. }, Value::Hash(hash)) => {
                (hash.leading_zeros() >= u32::from(*sampling)).then_some(hash)
            }
            (
                Measure::Sum(_) | Measure::Average(_) | Measure::Percentile { .. },
                Value::Number(number),
            ) => fixed_point(number).map(|_| number.to_bits()),
            (measure, _) => (!measure.has_value()).then_some(0),
        }
    }
}
