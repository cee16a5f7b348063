//! A tenant's rows in one row group of a segment, read in steps: few columns of all rows first, then others of the
//! rows that are left. For hunts, which look at all of history but need most columns of few rows only.

use super::files::{Footer, ReadError, all_null, leaf};
use super::stored::{StoredSegment, all_columns};
use super::tenants::intersect;
use crate::SegmentFile;
use arrow::array::{BooleanArray, BooleanBufferBuilder, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use palisade_event::schema::Core;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection,
};
use parquet::basic::Encoding;
use parquet::file::statistics::Statistics;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

/// A tenant's rows in one row group.
#[derive(Debug, Clone)]
pub struct StoredPart {
    file: Arc<SegmentFile>,
    footer: Arc<Footer>,
    group: usize,
    /// Rows of the row group.
    total: usize,
    /// Which of them are the tenant's and may be wanted, ascending.
    rows: Vec<Range<u64>>,
    /// The least and greatest event time, microseconds since the epoch.
    times: (i64, i64),
    /// The columns that hold anything in the row group, as they are read.
    columns: Vec<Arc<Field>>,
    /// For each column of the file whether it is among them.
    held: Vec<bool>,
    /// The file's columns as they are read.
    read_as: Arc<Schema>,
    bytes: u64,
}

/// Which rows of a part are left.
#[derive(Debug)]
pub struct PartRows {
    left: BooleanBufferBuilder,
    count: usize,
}

impl PartRows {
    /// How many are left.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// How many stretches of neighbours they are: where these are short, pages can't be left out.
    #[must_use]
    pub fn stretches(&self) -> usize {
        let starts =
            |row: usize| self.left.get_bit(row) && (row == 0 || !self.left.get_bit(row - 1));
        (0..self.left.len()).filter(|row| starts(*row)).count()
    }
}

impl StoredSegment {
    /// The row groups in which there are rows, in the order of the file.
    #[must_use]
    pub fn parts(&self) -> Vec<StoredPart> {
        let footer = self.footer();
        let metadata = &footer.metadata;
        let time = leaf(metadata, &footer.schema, Core::Time.name());
        let mut parts = Vec::new();
        let mut first = 0;
        for (group, about) in metadata.row_groups().iter().enumerate() {
            let total = u64::try_from(about.num_rows()).unwrap_or(0);
            let of_group = first..first + total;
            let shifted = intersect(self.ranges(), std::slice::from_ref(&of_group));
            let rows: Vec<Range<u64>> =
                shifted.into_iter().map(|rows| rows.start - first..rows.end - first).collect();
            first += total;
            if rows.is_empty() {
                continue;
            }
            let statistics = time.and_then(|leaf| about.columns().get(leaf)?.statistics());
            let times = match statistics {
                Some(Statistics::Int64(values)) => values.min_opt().zip(values.max_opt()),
                _ => None,
            };
            let times = match times {
                Some((least, greatest)) => (*least, *greatest),
                None => (self.file().meta.min_time, self.file().meta.max_time),
            };
            let held: Vec<bool> = (footer.schema.fields().iter())
                .map(|field| match leaf(metadata, &footer.schema, field.name()) {
                    Some(leaf) => !all_null(metadata, group, leaf),
                    None => true,
                })
                .collect();
            let read_as = Arc::new(as_read(footer, group));
            let columns = read_as.fields().iter().zip(&held).filter(|(_, held)| **held);
            parts.push(StoredPart {
                file: Arc::clone(self.file()),
                footer: Arc::clone(footer),
                group,
                total: usize::try_from(total).unwrap_or(0),
                rows,
                times,
                columns: columns.map(|(field, _)| Arc::clone(field)).collect(),
                held,
                read_as: Arc::clone(&read_as),
                bytes: u64::try_from(about.compressed_size()).unwrap_or(0),
            });
        }
        parts
    }
}

/// The columns as they are read from a row group: texts as dictionaries where they are stored so. A dictionary made
/// of plain values would cost a look at each of them, which who reads them does anyway.
fn as_read(footer: &Footer, group: usize) -> Schema {
    let all = all_columns(&footer.schema);
    let fields = all.fields().iter().map(|field| {
        let plain = || {
            let leaf = leaf(&footer.metadata, &footer.schema, field.name());
            let column =
                leaf.and_then(|leaf| footer.metadata.row_groups().get(group)?.columns().get(leaf));
            column.is_some_and(|column| {
                !column.encodings().any(|encoding| encoding == Encoding::RLE_DICTIONARY)
            })
        };
        match field.data_type() {
            DataType::Dictionary(..) if plain() => {
                Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8))
            }
            _ => Arc::clone(field),
        }
    });
    Schema::new(fields.collect::<Vec<_>>())
}

impl StoredPart {
    /// The columns that hold anything, as they are read.
    #[must_use]
    pub fn columns(&self) -> &[Arc<Field>] {
        &self.columns
    }

    /// The least and greatest event time in the row group, microseconds since the epoch.
    #[must_use]
    pub fn times(&self) -> (i64, i64) {
        self.times
    }

    /// The most rows that there can be.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows.iter().map(|range| range.end - range.start).sum()
    }

    /// The bytes of the row group in the file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All rows of the tenant.
    #[must_use]
    pub fn all(&self) -> PartRows {
        let mut left = BooleanBufferBuilder::new(self.total);
        let mut at = 0;
        for rows in &self.rows {
            let start = usize::try_from(rows.start).unwrap_or(self.total).min(self.total);
            let end = usize::try_from(rows.end).unwrap_or(self.total).min(self.total);
            left.append_n(start.saturating_sub(at), false);
            left.append_n(end.saturating_sub(start), true);
            at = end;
        }
        left.append_n(self.total.saturating_sub(at), false);
        PartRows { left, count: usize::try_from(self.rows()).unwrap_or(0) }
    }

    /// Of some rows those for which `keep` says so; it is asked for each of them, in their order, by their number
    /// among them.
    #[must_use]
    pub fn filter(&self, rows: PartRows, mut keep: impl FnMut(usize) -> bool) -> PartRows {
        let PartRows { mut left, .. } = rows;
        let (mut number, mut count) = (0, 0);
        for row in 0..left.len() {
            if left.get_bit(row) {
                if keep(number) {
                    count += 1;
                } else {
                    left.set_bit(row, false);
                }
                number += 1;
            }
        }
        PartRows { left, count }
    }

    /// These rows with the columns that are wanted, in batches of at most `batch_rows`.
    ///
    /// # Errors
    /// [`ReadError`] when the file is missing, damaged or unreadable; the iterator gives it too.
    pub fn read(
        &self,
        rows: &PartRows,
        wanted: &dyn Fn(&Field) -> bool,
        batch_rows: usize,
    ) -> Result<impl Iterator<Item = Result<RecordBatch, ReadError>> + Send + use<>, ReadError>
    {
        let path = self.file.path.clone();
        let damaged = {
            let path = path.clone();
            move |reason: String| ReadError::Damaged { path: path.clone(), reason }
        };
        let handle = File::open(&path).map_err(|error| ReadError::from_io(&path, &error))?;
        let metadata = ArrowReaderMetadata::try_new(
            Arc::clone(&self.footer.metadata),
            ArrowReaderOptions::new().with_schema(Arc::clone(&self.read_as)),
        )
        .map_err(|error| damaged(error.to_string()))?;
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(handle, metadata);
        let columns = self.read_as.fields().iter().zip(&self.held).enumerate();
        let columns =
            columns.filter(|(_, (field, held))| **held && wanted(field)).map(|(index, _)| index);
        let mask = ProjectionMask::roots(builder.parquet_schema(), columns);
        let mut builder = builder
            .with_projection(mask)
            .with_row_groups(vec![self.group])
            .with_batch_size(batch_rows);
        if rows.count < self.total {
            let left = BooleanArray::new(rows.left.finish_cloned(), None);
            builder = builder.with_row_selection(RowSelection::from_filters(&[left]));
        }
        let reader = builder.build().map_err(|error| damaged(error.to_string()))?;
        let keep = Arc::clone(&self.file);
        Ok(reader.map(move |batch| {
            // The file must not be deleted while it is read (M3).
            let _keep = &keep;
            batch.map_err(|error| damaged(error.to_string()))
        }))
    }
}
