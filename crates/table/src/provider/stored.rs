//! A tenant's rows as they are stored, for what reads history in bulk (hunts, backfills) and needs no SQL: batch by
//! batch, in the order of the files, each value in its stored kind.
//!
//! Texts come as `Dictionary(Int32, Utf8)`, so that who looks at values does so once per distinct value of a page's
//! dictionary; columns of JSON texts come as `Utf8` and keep their mark ([`palisade_event::schema::is_json`]). A column
//! that is null in every row of a file is not among its columns. Nothing is converted between kinds: two
//! files may have a column of one name in two kinds.

use super::adapt::EMPTY_KEY;
use super::files::{Footer, ReadCache, ReadError, leaf};
use super::prune::{Rows, rows_of_tenant};
use super::search::rows_holding;
use super::tenants::{intersect, selection};
use crate::{SegmentFile, Snapshot};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType};
use palisade_event::TenantId;
use palisade_event::schema::{Core, dictionary, is_json};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

/// Rows of a page, and so of a batch that needs no dictionary of its own.
const BATCH_ROWS: usize = 8192;

/// A tenant's rows in one segment.
#[derive(Debug)]
pub struct StoredSegment {
    file: Arc<SegmentFile>,
    footer: Arc<Footer>,
    rows: Vec<Range<u64>>,
    /// Event times that are wanted, microseconds since the epoch.
    times: Range<i64>,
    schema: SchemaRef,
}

/// The segments of a snapshot in which a tenant has rows whose event time may lie in `times` (microseconds since the
/// epoch), oldest first.
///
/// # Errors
/// [`ReadError`] when a segment that the tenant has rows in cannot be read.
pub fn stored_segments(
    snapshot: &Snapshot,
    tenant: &TenantId,
    cache: &ReadCache,
    times: &Range<i64>,
) -> Result<Vec<StoredSegment>, ReadError> {
    let mut segments = Vec::new();
    for file in snapshot.segments.iter() {
        if file.meta.max_time < times.start || file.meta.min_time >= times.end {
            continue;
        }
        let mine = match rows_of_tenant(cache, file, tenant.as_str())? {
            Rows::None => continue,
            Rows::All => std::iter::once(0..file.meta.rows).collect(),
            Rows::Ranges(ranges) => ranges,
        };
        let footer = cache.footer(file)?;
        let rows = match pages_between(&footer, times) {
            Some(pages) => intersect(&mine, &pages),
            None => mine,
        };
        if rows.is_empty() {
            continue;
        }
        let schema = as_stored(&footer.schema);
        segments.push(StoredSegment {
            file: Arc::clone(file),
            footer,
            rows,
            times: times.clone(),
            schema,
        });
    }
    Ok(segments)
}

/// The tenant's rows of a snapshot that are in no segment yet, with event times in `times`, in log order.
#[must_use]
pub fn stored_memory(
    snapshot: &Snapshot,
    tenant: &TenantId,
    times: &Range<i64>,
) -> Vec<RecordBatch> {
    let batches = snapshot.memory.iter();
    let mine = batches.filter_map(|batch| {
        super::memory::TenantBatch::of(batch, tenant.as_str())?
            .into_rows(|time| times.contains(&time))
    });
    mine.collect()
}

impl StoredSegment {
    /// The columns that hold anything, as they are read. Names of other tenants' fields may be among them where a
    /// file is shared: their rows never are.
    #[must_use]
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The most rows that there can be.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows.iter().map(|range| range.end - range.start).sum()
    }

    pub(super) fn footer(&self) -> &Arc<Footer> {
        &self.footer
    }

    /// Its rows, numbered over the whole file.
    pub(super) fn ranges(&self) -> &[Range<u64>] {
        &self.rows
    }

    /// Leaves only rows that may hold a wanted text in one of these columns, of those that are texts, JSON texts among
    /// them. `wanted` is given the column's place among `columns` and the text: each distinct text of a row group
    /// once where the file has a dictionary of them, and then no row without a wanted one is read. A segment that
    /// several tenants share keeps its rows: nothing is asked about another tenant's values.
    ///
    /// # Errors
    /// [`ReadError`] when the file is missing or unreadable.
    pub fn narrow(
        &mut self,
        columns: &[&str],
        wanted: &mut dyn FnMut(usize, &str) -> bool,
    ) -> Result<(), ReadError> {
        if self.file.meta.tenants.len() == 1 {
            let path = &self.file.path;
            self.rows = rows_holding(path, &self.footer, &self.rows, columns, wanted)?;
        }
        Ok(())
    }

    /// The segment.
    #[must_use]
    pub fn file(&self) -> &Arc<SegmentFile> {
        &self.file
    }

    /// The rows, with these columns where the file has them; `time` is always among them.
    ///
    /// # Errors
    /// [`ReadError`] when the file is missing, damaged or unreadable; the iterator gives it too.
    pub fn read(
        &self,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<impl Iterator<Item = Result<RecordBatch, ReadError>> + Send + use<>, ReadError>
    {
        let path = self.file.path.clone();
        let damaged = {
            let path = path.clone();
            move |reason: String| ReadError::Damaged { path: path.clone(), reason }
        };
        let handle = File::open(&path).map_err(|error| ReadError::from_io(&path, &error))?;
        let full = Arc::new(all_columns(&self.footer.schema));
        let metadata = ArrowReaderMetadata::try_new(
            Arc::clone(&self.footer.metadata),
            ArrowReaderOptions::new().with_schema(full),
        )
        .map_err(|error| damaged(error.to_string()))?;
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(handle, metadata);
        let columns = self.footer.schema.fields().iter().enumerate().filter(|(_, field)| {
            let has_any = !field.metadata().contains_key(EMPTY_KEY);
            field.name() == Core::Time.name() || has_any && wanted(field.name())
        });
        let columns: Vec<usize> = columns.map(|(index, _)| index).collect();
        let mask = ProjectionMask::roots(builder.parquet_schema(), columns);
        let total = usize::try_from(self.footer.metadata.file_metadata().num_rows()).unwrap_or(0);
        let reader = builder
            .with_projection(mask)
            .with_batch_size(BATCH_ROWS)
            .with_row_selection(selection(&self.rows, total))
            .build()
            .map_err(|error| damaged(error.to_string()))?;
        let (times, keep) = (self.times.clone(), Arc::clone(&self.file));
        Ok(reader.filter_map(move |batch| {
            // The file must not be deleted while it is read (M3).
            let _keep = &keep;
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => return Some(Err(damaged(error.to_string()))),
            };
            match between(&batch, &times) {
                Some(batch) if batch.num_rows() > 0 => Some(Ok(batch)),
                Some(_) => None,
                None => Some(Err(damaged("its column time is no timestamp".to_owned()))),
            }
        }))
    }
}

/// The rows of a batch with a time in the range. Rows of one tenant are sorted by time, so they are one slice.
fn between(batch: &RecordBatch, times: &Range<i64>) -> Option<RecordBatch> {
    let column = batch.column_by_name(Core::Time.name())?;
    let values = column.as_primitive_opt::<TimestampMicrosecondType>()?.values();
    let start = values.partition_point(|time| *time < times.start);
    let end = values.partition_point(|time| *time < times.end);
    Some(batch.slice(start, end.saturating_sub(start)))
}

/// A file's columns with texts as dictionaries.
pub(super) fn all_columns(schema: &Schema) -> Schema {
    let fields = schema.fields().iter().map(|field| {
        let read = match field.data_type() {
            DataType::Utf8View if is_json(field) => DataType::Utf8,
            DataType::Utf8View => dictionary(),
            other => other.clone(),
        };
        Field::new(field.name(), read, field.is_nullable()).with_metadata(field.metadata().clone())
    });
    Schema::new(fields.collect::<Vec<_>>())
}

/// Those of them that hold anything.
fn as_stored(schema: &Schema) -> SchemaRef {
    let all = all_columns(schema);
    let fields = all.fields().iter().filter(|field| !field.metadata().contains_key(EMPTY_KEY));
    Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>()))
}

/// The rows of the pages whose times may lie in a range; `None` where the page index does not tell.
fn pages_between(footer: &Footer, times: &Range<i64>) -> Option<Vec<Range<u64>>> {
    let metadata = &footer.metadata;
    let leaf = leaf(metadata, &footer.schema, Core::Time.name())?;
    let mut rows: Vec<Range<u64>> = Vec::new();
    let mut first = 0u64;
    for (group, meta) in metadata.row_groups().iter().enumerate() {
        let end = first + u64::try_from(meta.num_rows()).ok()?;
        let pages = metadata.offset_index()?.get(group)?.get(leaf)?.page_locations();
        let ColumnIndexMetaData::INT64(bounds) = metadata.column_index()?.get(group)?.get(leaf)?
        else {
            return None;
        };
        for (index, page) in pages.iter().enumerate() {
            let start = first + u64::try_from(page.first_row_index).ok()?;
            let until = match pages.get(index + 1) {
                Some(next) => first + u64::try_from(next.first_row_index).ok()?,
                None => end,
            };
            let outside = bounds.min_value(index).is_some_and(|least| *least >= times.end)
                || bounds.max_value(index).is_some_and(|most| *most < times.start);
            match rows.last_mut() {
                _ if outside => {}
                Some(last) if last.end == start => last.end = until,
                _ => rows.push(start..until),
            }
        }
        first = end;
    }
    Some(rows)
}
