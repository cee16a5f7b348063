//! Which rows of a file are whose, for files that hold rows of several tenants.
//!
//! Segments are sorted by tenant, so a tenant's rows are few ranges. They are found by reading the
//! `tenant` column once; the footer's cache entry keeps the answer. Reading by ranges means that no
//! expression of a query is ever evaluated on another tenant's row: not a value, an error or a timing
//! of theirs can be seen.

use super::files::{Footer, ReadCache, ReadError};
use crate::SegmentFile;
use arrow::array::{Array, ArrayRef};
use hashbrown::HashMap;
use palisade_event::column::Text;
use palisade_event::schema::Core;
use parking_lot::Mutex;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

/// The rows of each tenant in a file, and the columns that hold anything for a tenant.
#[derive(Debug, Default)]
pub(super) struct TenantRows {
    ranges: BTreeMap<String, Vec<Range<u64>>>,
    columns: Mutex<HashMap<String, Arc<BTreeSet<String>>, foldhash::fast::FixedState>>,
}

impl TenantRows {
    /// The ranges of rows of a tenant, ascending; rows are numbered over the whole file.
    pub(super) fn of(&self, tenant: &str) -> &[Range<u64>] {
        self.ranges.get(tenant).map_or(&[], Vec::as_slice)
    }
}

fn damaged(segment: &SegmentFile, reason: impl ToString) -> ReadError {
    ReadError::Damaged { path: segment.path.clone(), reason: reason.to_string() }
}

/// Which rows of a segment are whose.
///
/// # Errors
/// [`ReadError`] when the file cannot be read or its rows do not all name their tenant.
pub(super) fn tenant_rows(
    cache: &ReadCache,
    segment: &SegmentFile,
) -> Result<Arc<TenantRows>, ReadError> {
    let footer = cache.footer(segment)?;
    if let Some(known) = footer.tenants.get() {
        return Ok(Arc::clone(known));
    }
    let mut rows = TenantRows::default();
    let mut at = 0u64;
    for column in column_batches(segment, &footer, Core::Tenant.name(), None)? {
        let column = column?;
        let column = arrow::compute::cast(&column, &arrow::datatypes::DataType::Utf8)
            .map_err(|error| damaged(segment, error))?;
        let Some(tenants) = Text::of(&column) else {
            return Err(damaged(segment, "its column tenant is no text"));
        };
        let mut start = 0;
        while start < tenants.len() {
            let Some(tenant) = tenants.get(start) else {
                return Err(damaged(segment, "a row has no tenant"));
            };
            let run = (start..tenants.len()).take_while(|row| tenants.get(*row) == Some(tenant));
            let end = start + run.count();
            rows.add(tenant, at + start as u64..at + end as u64);
            start = end;
        }
        at += tenants.len() as u64;
    }
    let rows = Arc::new(rows);
    let _ = footer.tenants.set(Arc::clone(&rows));
    Ok(rows)
}

impl TenantRows {
    fn add(&mut self, tenant: &str, range: Range<u64>) {
        if !self.ranges.contains_key(tenant) {
            self.ranges.insert(tenant.to_owned(), Vec::new());
        }
        let Some(ranges) = self.ranges.get_mut(tenant) else { return };
        match ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => ranges.push(range),
        }
    }
}

/// The columns of a shared segment that hold a value in any row of the tenant: other tenants' field names
/// are none of its business.
///
/// # Errors
/// [`ReadError`] when the file cannot be read.
pub(super) fn tenant_columns(
    cache: &ReadCache,
    segment: &SegmentFile,
    tenant: &str,
) -> Result<Arc<BTreeSet<String>>, ReadError> {
    let rows = tenant_rows(cache, segment)?;
    if let Some(known) = rows.columns.lock().get(tenant) {
        return Ok(Arc::clone(known));
    }
    let footer = cache.footer(segment)?;
    let ranges = rows.of(tenant);
    let mut columns = BTreeSet::new();
    for field in footer.schema.fields() {
        if Core::by_name(field.name()).is_some() {
            continue;
        }
        for column in column_batches(segment, &footer, field.name(), Some(ranges))? {
            let column = column?;
            if column.null_count() < column.len() {
                columns.insert(field.name().clone());
                break;
            }
        }
    }
    let columns = Arc::new(columns);
    rows.columns.lock().insert(tenant.to_owned(), Arc::clone(&columns));
    Ok(columns)
}

/// One column of a segment, batch by batch, in all rows or those of the given ranges.
fn column_batches<'a>(
    segment: &'a SegmentFile,
    footer: &Footer,
    name: &str,
    ranges: Option<&[Range<u64>]>,
) -> Result<impl Iterator<Item = Result<ArrayRef, ReadError>> + 'a, ReadError> {
    let file = File::open(&segment.path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => ReadError::Missing(segment.path.clone()),
        _ => ReadError::Unreadable { path: segment.path.clone(), reason: error.to_string() },
    })?;
    let metadata =
        ArrowReaderMetadata::try_new(Arc::clone(&footer.metadata), ArrowReaderOptions::new())
            .map_err(|error| damaged(segment, error))?;
    let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata);
    let index = builder
        .schema()
        .index_of(name)
        .map_err(|_| damaged(segment, format!("it has no column {name}")))?;
    let mask = ProjectionMask::roots(builder.parquet_schema(), [index]);
    builder = builder.with_projection(mask).with_batch_size(65_536);
    if let Some(ranges) = ranges {
        let total = usize::try_from(footer.metadata.file_metadata().num_rows()).unwrap_or(0);
        builder = builder.with_row_selection(selection(ranges, total));
    }
    let reader = builder.build().map_err(|error| damaged(segment, error))?;
    Ok(reader.map(move |batch| match batch {
        Ok(batch) => batch
            .columns()
            .first()
            .map(Arc::clone)
            .ok_or_else(|| damaged(segment, "a batch has no column")),
        Err(error) => Err(damaged(segment, error)),
    }))
}

/// Ranges of rows as a selection out of `total` rows.
pub(super) fn selection(ranges: &[Range<u64>], total: usize) -> RowSelection {
    let at = |row: u64| usize::try_from(row).unwrap_or(total).min(total);
    let ranges = ranges.iter().map(|range| at(range.start)..at(range.end));
    RowSelection::from_consecutive_ranges(ranges, total)
}

/// The rows that are in both of two ascending lists of ranges.
pub(super) fn intersect(left: &[Range<u64>], right: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut both = Vec::new();
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        let (start, end) = (a.start.max(b.start), a.end.min(b.end));
        if start < end {
            both.push(start..end);
        }
        if a.end <= b.end {
            left.next();
        } else {
            right.next();
        }
    }
    both
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "lists of ranges are meant")]
mod tests {
    use super::*;

    #[test]
    fn intersections_keep_what_both_have() {
        assert_eq!(intersect(&[0..10, 20..30], &[5..25]), [5..10, 20..25]);
        assert_eq!(intersect(&[0..10], &[0..3, 3..4, 9..12]), [0..3, 3..4, 9..10]);
        assert_eq!(intersect(&[0..10], &[10..20]), []);
    }
}
