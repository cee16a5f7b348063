//! The order of rows in a segment: by tenant, time, position; equal ones as they came.
//!
//! Frames come nearly in order of time, so first it is looked whether the batches are in order
//! already; otherwise their rows' keys are sorted by a merge sort, which makes use of ordered runs.

use crate::encode::Run;
use crate::error::TableError;
use crate::kind::{Kind, conform};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{TimestampMicrosecondType, UInt64Type};
use palisade_event::column::Text;
use palisade_event::schema::Core;
use std::collections::BTreeMap;

/// The key columns of one batch.
#[derive(Debug, Clone)]
pub(crate) struct KeyColumns {
    pub(crate) tenants: ArrayRef,
    times: ArrayRef,
    positions: Option<ArrayRef>,
}

impl KeyColumns {
    pub(crate) fn of(table: &str, batch: &RecordBatch) -> Result<Self, TableError> {
        let schema = batch.schema_ref();
        let column = |core: Core, kind: Kind| {
            let Some((at, field)) = schema.column_with_name(core.name()) else { return Ok(None) };
            let array = batch.columns().get(at).map(|array| conform(array, field, kind, table));
            array.transpose()
        };
        let missing = |core: Core| TableError::columns(table, format!("no column {}", core.name()));
        let tenants = column(Core::Tenant, Kind::Text)?.ok_or_else(|| missing(Core::Tenant))?;
        let times = column(Core::Time, Kind::Timestamp)?.ok_or_else(|| missing(Core::Time))?;
        let positions = column(Core::Position, Kind::U64)?;
        if tenants.logical_null_count() > 0 || times.null_count() > 0 {
            return Err(TableError::columns(table, "a row has no tenant or no time"));
        }
        Ok(Self { tenants, times, positions })
    }

    /// Microseconds, per row.
    pub(crate) fn times(&self) -> &[i64] {
        self.times
            .as_primitive_opt::<TimestampMicrosecondType>()
            .map_or(&[], |times| times.values())
    }

    /// Positions, per row; empty when the batch has none.
    pub(crate) fn positions(&self) -> &[u64] {
        let positions =
            self.positions.as_ref().and_then(|array| array.as_primitive_opt::<UInt64Type>());
        positions.map_or(&[], |positions| positions.values())
    }
}

/// A batch's tenants, as ranks by name.
enum Ranks {
    One(u64),
    Rows(Vec<u64>),
}

/// The rows of all batches in order, as runs.
pub(crate) fn sorted_runs(table: &str, batches: &[RecordBatch]) -> Result<Vec<Run>, TableError> {
    let keys: Vec<KeyColumns> =
        batches.iter().map(|batch| KeyColumns::of(table, batch)).collect::<Result<_, _>>()?;
    let (ranks, tenants) =
        ranks(&keys).ok_or_else(|| TableError::columns(table, "tenant is no text"))?;
    let times = || keys.iter().flat_map(|key| key.times().iter().copied());
    let (min, max) = (times().min().unwrap_or(0), times().max().unwrap_or(0));
    let span = (i128::from(max) - i128::from(min) + 1) as u128;
    let rows = batches.iter().map(RecordBatch::num_rows).sum::<usize>();
    if u32::try_from(rows).is_err() {
        return Err(TableError::columns(table, "more than 2^32 rows are sealed at once"));
    }
    if span.checked_mul(u128::from(tenants)).is_some_and(|keys| keys <= u128::from(u64::MAX)) {
        let span = span as u64;
        let key = |rank: u64, time: i64| rank * span + time.wrapping_sub(min) as u64;
        Ok(runs_by(batches, &keys, &ranks, key, rows))
    } else {
        let key = |rank: u64, time: i64| (rank, time);
        Ok(runs_by(batches, &keys, &ranks, key, rows))
    }
}

fn ranks(keys: &[KeyColumns]) -> Option<(Vec<Ranks>, u64)> {
    let mut names: BTreeMap<String, u64> = BTreeMap::new();
    for key in keys {
        let text = Text::of(&key.tenants)?;
        match text.values() {
            Some(values) => {
                for value in values.iter().flatten() {
                    if !names.contains_key(value) {
                        names.insert(value.to_owned(), 0);
                    }
                }
            }
            None => {
                let mut last = None;
                for value in (0..text.len()).filter_map(|row| text.get(row)) {
                    if last != Some(value) && !names.contains_key(value) {
                        names.insert(value.to_owned(), 0);
                    }
                    last = Some(value);
                }
            }
        }
    }
    names.values_mut().enumerate().for_each(|(rank, slot)| *slot = rank as u64);
    let count = names.len() as u64;
    let rank = |name: &str| names.get(name).copied().unwrap_or(0);
    let mut all = Vec::with_capacity(keys.len());
    for key in keys {
        let text = Text::of(&key.tenants)?;
        all.push(match text.values() {
            Some(values) if values.len() == 1 => Ranks::One(rank(values.value(0))),
            Some(values) => {
                let by_key: Vec<u64> = values.iter().map(|value| value.map_or(0, rank)).collect();
                let rows = (0..text.len())
                    .map(|row| text.key(row).and_then(|key| by_key.get(key)).copied().unwrap_or(0));
                Ranks::Rows(rows.collect())
            }
            None => Ranks::Rows((0..text.len()).map(|row| text.get(row).map_or(0, rank)).collect()),
        });
    }
    Some((all, count.max(1)))
}

fn runs_by<K: Ord + Copy>(
    batches: &[RecordBatch],
    keys: &[KeyColumns],
    ranks: &[Ranks],
    key: impl Fn(u64, i64) -> K,
    rows: usize,
) -> Vec<Run> {
    // Each row's key with its place: batch << 32 | row.
    let mut order: Vec<(K, u64)> = Vec::with_capacity(rows);
    let mut sorted = true;
    let mut positions_ascend = true;
    let mut last: Option<K> = None;
    let mut last_position = 0u64;
    for (batch, (columns, ranks)) in keys.iter().zip(ranks).enumerate() {
        let place = (batch as u64) << 32;
        let mut push = |row: usize, rank: u64, time: i64| {
            let key = key(rank, time);
            sorted &= last.is_none_or(|last| last <= key);
            last = Some(key);
            order.push((key, place | row as u64));
        };
        match ranks {
            Ranks::One(rank) => {
                columns.times().iter().enumerate().for_each(|(row, time)| push(row, *rank, *time));
            }
            Ranks::Rows(ranks) => {
                let pairs = columns.times().iter().zip(ranks).enumerate();
                pairs.for_each(|(row, (time, rank))| push(row, *rank, *time));
            }
        }
        for position in columns.positions() {
            positions_ascend &= last_position <= *position;
            last_position = *position;
        }
    }
    if !positions_ascend {
        let position = |place: u64| {
            let columns = keys.get((place >> 32) as usize);
            let positions = columns.map_or(&[][..], KeyColumns::positions);
            positions.get((place & 0xffff_ffff) as usize).copied().unwrap_or(0)
        };
        order.sort_by_key(|(key, place)| (*key, position(*place)));
    } else if sorted {
        let whole = batches.iter().enumerate().filter(|(_, batch)| batch.num_rows() > 0);
        return whole
            .map(|(batch, rows)| Run { batch: batch as u32, start: 0, len: rows.num_rows() as u32 })
            .collect();
    } else {
        order.sort_by_key(|(key, _)| *key);
    }
    let mut runs: Vec<Run> = Vec::new();
    let mut next = u64::MAX;
    for (_, place) in order {
        match runs.last_mut() {
            Some(run) if place == next => run.len += 1,
            _ => runs.push(Run {
                batch: (place >> 32) as u32,
                start: (place & 0xffff_ffff) as u32,
                len: 1,
            }),
        }
        next = place + 1;
    }
    runs
}
