//! How far back the newest rows of a user or an address reach, told by the entity index alone.
//!
//! A query for the newest rows of an entity knows only when it has found them that nothing older is needed.
//! The index knows in which blocks of rows the entity occurs, and the page index how old these are: that bounds
//! the time before any page is read. What is told here is an estimate. Who asks for what is not older and gets
//! as many rows as wanted has the newest ones; with fewer, the bound was too near.

use super::files::{Footer, ReadCache, ReadError, leaf};
use super::prune::{Rows, rows_of_tenant};
use super::tenants::intersect;
use crate::Snapshot;
use crate::encode::PAGE_ROWS;
use palisade_event::TenantId;
use palisade_event::schema::Core;
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use std::ops::Range;

/// Rows of a block of the entity index.
const BLOCK: u64 = PAGE_ROWS as u64;
/// Of fewer blocks it is not said how often the entity occurs in them.
const SAMPLE: u64 = 32;
/// How many rows more than wanted are reckoned with where their number is an estimate.
const MARGIN: f64 = 1.5;

/// Where the newest rows of an entity stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// They are probably not older than this, in microseconds since the epoch; `None`: any may be.
    pub since: Option<i64>,
    /// Whether hardly any page holds more than one of them.
    pub scattered: bool,
}

/// Where the newest `rows` rows of a tenant stand that have this value in a column; `None` when that cannot
/// be told: the column is not indexed in one of the segments, or `go_on` has said no.
///
/// # Errors
/// [`ReadError`] when a segment cannot be read.
pub fn reach(
    snapshot: &Snapshot,
    tenant: &TenantId,
    cache: &ReadCache,
    (column, value): (&str, &str),
    rows: usize,
    go_on: impl Fn() -> bool,
) -> Result<Option<Reach>, ReadError> {
    let values = [value.to_owned()];
    let (mut seen, mut found, mut counted) = (0u64, 0u64, 0u64);
    let mut since = i64::MAX;
    for segment in snapshot.segments.iter().rev() {
        if !go_on() {
            return Ok(None);
        }
        let mine = rows_of_tenant(cache, segment, tenant.as_str())?;
        if mine == Rows::None {
            continue;
        }
        let footer = cache.footer(segment)?;
        let Some(mut ranges) = footer.indexed_rows(segment, column, &values) else {
            return Ok(None);
        };
        if let Rows::Ranges(mine) = &mine {
            ranges = intersect(mine, &ranges);
        }
        seen += mine.count(segment.meta.rows).div_ceil(BLOCK);
        found += blocks(&ranges).count() as u64;
        let in_block = rows_in_block(found, seen);
        let wanted = match in_block {
            Some(many) if many >= 2.0 => (rows as f64 * MARGIN / many).ceil() as u64,
            _ => rows as u64,
        };
        for block in blocks(&ranges) {
            since = since.min(least_time(&footer, block.start).unwrap_or(segment.meta.min_time));
            counted += 1;
            if counted >= wanted {
                return Ok(Some(Reach::new(Some(since), in_block)));
            }
        }
    }
    Ok(Some(Reach::new(None, rows_in_block(found, seen))))
}

impl Reach {
    fn new(since: Option<i64>, in_block: Option<f64>) -> Self {
        Self { since, scattered: in_block.is_some_and(|many| many < 2.0) }
    }
}

/// The blocks of ascending ranges, the last one first.
fn blocks(ranges: &[Range<u64>]) -> impl Iterator<Item = Range<u64>> {
    ranges.iter().rev().flat_map(|range| {
        let first = range.start / BLOCK;
        let end = range.end.div_ceil(BLOCK);
        let range = range.clone();
        (first..end).rev().map(move |block| {
            (block * BLOCK).max(range.start)..((block + 1) * BLOCK).min(range.end)
        })
    })
}

/// How many rows a block has that has any, if they fell into `found` of `seen` blocks by chance: `None` of too
/// few blocks.
fn rows_in_block(found: u64, seen: u64) -> Option<f64> {
    if seen < SAMPLE {
        return None;
    }
    // Where every block has some, there could be one without next.
    let without = seen.saturating_sub(found).max(1) as f64 / seen as f64;
    let mean = -without.ln();
    Some(if without < 1.0 { mean / (1.0 - without) } else { 1.0 })
}

/// The least time in the page that holds a row.
fn least_time(footer: &Footer, row: u64) -> Option<i64> {
    let metadata = &footer.metadata;
    let mut first = 0u64;
    for (group, rows) in metadata.row_groups().iter().map(|group| group.num_rows()).enumerate() {
        let rows = u64::try_from(rows).ok()?;
        if row >= first + rows {
            first += rows;
            continue;
        }
        let leaf = leaf(metadata, &footer.schema, Core::Time.name())?;
        let row = i64::try_from(row - first).ok()?;
        let pages = metadata.offset_index()?.get(group)?.get(leaf)?.page_locations();
        let page = pages.partition_point(|page| page.first_row_index <= row).checked_sub(1)?;
        let ColumnIndexMetaData::INT64(times) = metadata.column_index()?.get(group)?.get(leaf)?
        else {
            return None;
        };
        return (page < pages.len() && page < times.min_values().len())
            .then(|| times.min_value(page).copied())?;
    }
    None
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "lists of ranges are meant")]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_taken_apart_from_their_end() {
        let all: Vec<_> = blocks(&[10..BLOCK + 5, 4 * BLOCK..6 * BLOCK]).collect();
        let expected = [5 * BLOCK..6 * BLOCK, 4 * BLOCK..5 * BLOCK, BLOCK..BLOCK + 5, 10..BLOCK];
        assert_eq!(all, expected);
        assert_eq!(blocks(&[]).count(), 0);
    }

    #[test]
    fn rows_of_a_block_follow_from_how_many_have_any() {
        assert_eq!(rows_in_block(3, 31), None);
        assert_eq!(rows_in_block(0, 100), Some(1.0));
        let few = rows_in_block(10, 1_000).unwrap();
        assert!((1.0..1.02).contains(&few), "{few}");
        let all = rows_in_block(1_000, 1_000).unwrap();
        assert!((6.0..8.0).contains(&all), "{all}");
    }
}
