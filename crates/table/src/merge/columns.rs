//! Merging segments of many columns, some columns at a time.
//!
//! First the keys alone are read, which gives a row group's rows in order. Since each segment is in order
//! itself, these are a range of its rows; so its columns are read range by range, as many columns together
//! as fit in the memory, and written before the next ones are read. Chunks without a value, of which a
//! segment of thousands of columns mostly consists, are not read at all. What is in memory does not depend
//! on how many columns there are, but for the chunks' descriptions, which the policy bounds.

use super::{BATCH_ROWS, Input, Merged, next_run, push_run};
use crate::encode::unit::Layout;
use crate::encode::{PAGE_ROWS, ROW_GROUP_ROWS, Run};
use crate::error::TableError;
use crate::retention::Cutoffs;
use crate::segment::SegmentWriter;
use crate::snapshot::SegmentFile;
use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::concat_batches;
use arrow::datatypes::Schema;
use palisade_event::schema::Core;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};
use parquet::file::metadata::RowGroupMetaData;
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// What rows are put in order by.
const KEYS: [Core; 3] = [Core::Tenant, Core::Time, Core::Position];

/// The segments to be merged.
pub(super) struct Sources {
    inputs: Vec<Source>,
    group_rows: usize,
    /// Decoded bytes that are read at a time.
    budget: u64,
    /// What ids derive from: read together with the column of ids.
    senders: Vec<usize>,
    record_id: Option<usize>,
}

struct Source {
    file: Arc<SegmentFile>,
    metadata: ArrowReaderMetadata,
    /// By column of the layout, the file's.
    places: Vec<Option<usize>>,
    /// The first row of each row group, and the end.
    starts: Vec<u64>,
}

impl Source {
    fn groups(&self) -> &[RowGroupMetaData] {
        self.metadata.metadata().row_groups()
    }

    /// The row groups that a range of rows is in.
    fn overlapping(&self, rows: &Range<u64>) -> Range<usize> {
        let first = self.starts.partition_point(|start| *start <= rows.start).saturating_sub(1);
        let end = self.starts.partition_point(|start| *start < rows.end);
        first..end.min(self.groups().len()).max(first)
    }

    /// About how many bytes a range of rows of a column has in memory; `None` when none has a value.
    fn bytes(&self, column: usize, rows: &Range<u64>) -> Option<u64> {
        let place = self.places.get(column).copied().flatten()?;
        let mut sum = None;
        for group in self.groups().get(self.overlapping(rows))? {
            let chunk = group.column(place);
            let nulls = chunk.statistics().and_then(|statistics| statistics.null_count_opt());
            if nulls != Some(chunk.num_values().max(0) as u64) {
                let all = group.num_rows().max(1) as u64;
                let share = (rows.end - rows.start).min(all);
                let stored = chunk.uncompressed_size().max(0) as u64;
                // A number takes eight bytes also where it is missing; what a dictionary saved may come back.
                *sum.get_or_insert(0) +=
                    share * 8 + (stored as u128 * 2 * u128::from(share) / u128::from(all)) as u64;
            }
        }
        sum
    }

    /// Reads a range of rows; columns without a value there are left out.
    fn read(&self, columns: &[usize], rows: &Range<u64>) -> Result<RecordBatch, TableError> {
        let count = (rows.end - rows.start) as usize;
        let mut places: Vec<usize> = columns
            .iter()
            .filter(|column| self.bytes(**column, rows).is_some())
            .filter_map(|column| self.places.get(*column).copied().flatten())
            .collect();
        places.sort_unstable();
        places.dedup();
        let damaged =
            |error: &dyn std::fmt::Display| TableError::damaged(&self.file.path, error.to_string());
        if places.is_empty() || count == 0 {
            let options = RecordBatchOptions::new().with_row_count(Some(count));
            let schema = Arc::new(Schema::empty());
            return RecordBatch::try_new_with_options(schema, Vec::new(), &options)
                .map_err(|error| damaged(&error));
        }
        let groups = self.overlapping(rows);
        let skipped = self.starts.get(groups.start).map_or(0, |start| rows.start - start) as usize;
        let handle =
            File::open(&self.file.path).map_err(TableError::io("open", &self.file.path))?;
        let mask = ProjectionMask::leaves(self.metadata.parquet_schema(), places);
        let reader =
            ParquetRecordBatchReaderBuilder::new_with_metadata(handle, self.metadata.clone())
                .with_projection(mask)
                .with_row_groups(groups.collect())
                .with_offset(skipped)
                .with_limit(count)
                .with_batch_size(count)
                .build()
                .map_err(|error| damaged(&error))?;
        let batches: Vec<RecordBatch> =
            reader.collect::<Result<_, _>>().map_err(|error| damaged(&error))?;
        let batch = match batches.as_slice() {
            [one] => one.clone(),
            [] => return Err(damaged(&"its rows end early")),
            [first, ..] => {
                concat_batches(&first.schema(), &batches).map_err(|error| damaged(&error))?
            }
        };
        if batch.num_rows() != count {
            return Err(damaged(&"its rows end early"));
        }
        Ok(batch)
    }
}

impl Sources {
    pub(super) fn new(
        inputs: &[Arc<SegmentFile>],
        metadata: Vec<ArrowReaderMetadata>,
        layout: &Layout,
        memory_bytes: usize,
    ) -> Self {
        let mut sources = Vec::with_capacity(inputs.len());
        for (file, metadata) in inputs.iter().zip(metadata) {
            let schema = metadata.schema();
            let mut names: Vec<(&str, usize)> = schema
                .fields()
                .iter()
                .enumerate()
                .map(|(at, field)| (field.name().as_str(), at))
                .collect();
            names.sort_unstable();
            let place = |(name, _): &(String, _)| {
                let at = names.binary_search_by(|(known, _)| (*known).cmp(name.as_str())).ok()?;
                names.get(at).map(|(_, place)| *place)
            };
            let places = layout.columns.iter().map(place).collect();
            let mut starts = vec![0];
            for group in metadata.metadata().row_groups() {
                starts.push(starts.last().copied().unwrap_or(0) + group.num_rows().max(0) as u64);
            }
            sources.push(Source { file: Arc::clone(file), metadata, places, starts });
        }
        let column = |core: Core| layout.columns.iter().position(|(name, _)| name == core.name());
        let budget = (memory_bytes / 2) as u64;
        let derive = layout.filters_derived_ids();
        let senders = [Core::Tenant, Core::Source, Core::EventId].into_iter().filter(|_| derive);
        let mut all = Self {
            inputs: sources,
            group_rows: ROW_GROUP_ROWS,
            budget,
            senders: senders.filter_map(column).collect(),
            record_id: column(Core::RecordId),
        };
        // No column, nor those that are read together, may have more than fits.
        let rows: u64 = all.inputs.iter().filter_map(|input| input.starts.last()).sum();
        let widest = (0..layout.columns.len())
            .map(|column| all.wanted(column..column + 1).map(|one| all.stored(one)).sum::<u64>())
            .max();
        let fit = u128::from(budget) * u128::from(rows) / u128::from(widest.unwrap_or(0).max(1));
        let fit = usize::try_from(fit).unwrap_or(usize::MAX) / PAGE_ROWS * PAGE_ROWS;
        all.group_rows = fit.clamp(PAGE_ROWS, ROW_GROUP_ROWS);
        all
    }

    /// The columns to be read for a range of columns: what ids derive from comes with the ids.
    fn wanted(&self, columns: Range<usize>) -> impl Iterator<Item = usize> + '_ {
        let ids = self.record_id.is_some_and(|id| columns.contains(&id));
        columns.chain(self.senders.iter().copied().filter(move |_| ids))
    }

    /// About how many bytes all rows of a column have in memory.
    fn stored(&self, column: usize) -> u64 {
        let whole = |input: &Source| {
            input.bytes(column, &(0..input.starts.last().copied().unwrap_or(0))).unwrap_or(0)
        };
        self.inputs.iter().map(whole).sum()
    }

    /// Reads as many columns from `first` on as fit, of a range of rows of each segment: the column
    /// after the last one, and the rows.
    fn read(
        &self,
        first: usize,
        columns: usize,
        ranges: &[Range<u64>],
    ) -> Result<(usize, Vec<RecordBatch>), TableError> {
        let inputs = || self.inputs.iter().zip(ranges);
        let mut end = first;
        let mut bytes = 0u64;
        while end < columns {
            for column in self.wanted(end..end + 1) {
                let sizes = inputs().filter_map(|(input, rows)| input.bytes(column, rows));
                bytes = bytes.saturating_add(sizes.sum());
            }
            if end > first && bytes > self.budget {
                break;
            }
            end += 1;
        }
        let wanted: Vec<usize> = self.wanted(first..end).collect();
        let batches = inputs().map(|(input, rows)| input.read(&wanted, rows));
        Ok((end, batches.collect::<Result<_, _>>()?))
    }

    fn keys(&self, table: &str, cutoffs: &Cutoffs) -> Result<Vec<Input>, TableError> {
        let mut streams = Vec::with_capacity(self.inputs.len());
        for (number, input) in self.inputs.iter().enumerate() {
            let fields = input.metadata.schema().fields();
            let keys = KEYS.iter().filter_map(|core| fields.find(core.name()).map(|(at, _)| at));
            let mask = ProjectionMask::leaves(input.metadata.parquet_schema(), keys);
            let (file, metadata) = (Arc::clone(&input.file), input.metadata.clone());
            let mut stream = Input::new(file, metadata, mask, BATCH_ROWS, number)?;
            stream.advance(table, cutoffs)?;
            streams.push(stream);
        }
        Ok(streams)
    }
}

/// Merges segments into the file at `path`, without the rows that are too old.
pub(super) fn merge(
    sources: &Sources,
    layout: &Layout,
    path: &Path,
    cutoffs: &Cutoffs,
    is_stopping: impl Fn() -> bool,
) -> Result<Merged, TableError> {
    let mut streams = sources.keys(&layout.table, cutoffs)?;
    let total: u64 = sources.inputs.iter().map(|input| input.file.meta.rows).sum();
    let mut writer: Option<SegmentWriter> = None;
    loop {
        if is_stopping() {
            return Ok(Merged::Stopped);
        }
        let (mut runs, mut rows) = (Vec::new(), 0);
        while rows < sources.group_rows
            && let Some((at, until)) = next_run(&streams)
        {
            let Some(stream) = streams.get_mut(at) else { break };
            let taken = stream.take(until.as_ref(), sources.group_rows - rows);
            if taken.is_empty() {
                break;
            }
            rows += taken.len();
            let start = stream.before + taken.start as u64;
            push_run(&mut runs, row_run(at, start, taken.len())?);
            if stream.is_at_end() {
                stream.advance(&layout.table, cutoffs)?;
            }
        }
        if runs.is_empty() {
            break;
        }
        let writer = match &mut writer {
            Some(writer) => writer,
            None => writer.insert(SegmentWriter::create(path, layout.clone(), total)?),
        };
        let ranges = ranges(&mut runs, sources.inputs.len());
        writer
            .write_by_columns(runs, |first| sources.read(first, layout.columns.len(), &ranges))?;
    }
    let dropped = streams.iter().map(|stream| stream.dropped).sum();
    Ok(match writer {
        Some(writer) => Merged::Written(writer.finish()?, dropped),
        None => Merged::Empty(dropped),
    })
}

/// A run of rows of a whole segment.
fn row_run(input: usize, start: u64, rows: usize) -> Result<Run, TableError> {
    match (u32::try_from(start), u32::try_from(rows)) {
        (Ok(start), Ok(len)) => Ok(Run { batch: input as u32, start, len }),
        _ => Err(TableError::Protocol("a segment has more than 2^32 rows".to_owned())),
    }
}

/// The range of rows of each segment that runs are in; the runs then count from its start.
fn ranges(runs: &mut [Run], inputs: usize) -> Vec<Range<u64>> {
    let mut ranges: Vec<Option<Range<u64>>> = vec![None; inputs];
    for run in runs.iter() {
        if let Some(range) = ranges.get_mut(run.batch as usize) {
            let rows = u64::from(run.start)..u64::from(run.start) + u64::from(run.len);
            *range = Some(match range.take() {
                Some(known) => known.start.min(rows.start)..known.end.max(rows.end),
                None => rows,
            });
        }
    }
    let ranges: Vec<Range<u64>> = ranges.into_iter().map(Option::unwrap_or_default).collect();
    for run in runs {
        let first = ranges.get(run.batch as usize).map_or(0, |range| range.start);
        run.start -= first as u32;
    }
    ranges
}
