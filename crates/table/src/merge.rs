//! Merging segments into one: all inputs are read side by side in batches, their rows put in order,
//! and written a row group at a time. In memory are a batch of each input and the row group.
//!
//! Where segments have many columns ([`WIDE`]), rows in memory would be few and row groups short, and
//! thousands of descriptions of chunks for each. There only the keys are read side by side, which gives the order;
//! the columns of a row group are read some at a time ([`columns`]).

mod columns;

use crate::encode::Run;
use crate::encode::unit::{Layout, cut_runs};
use crate::encode::{PAGE_ROWS, ROW_GROUP_ROWS};
use crate::error::TableError;
use crate::order::KeyColumns;
use crate::retention::Cutoffs;
use crate::segment::{SegmentWriter, Written};
use crate::snapshot::SegmentFile;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use columns::Sources;
use palisade_event::column::Text;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Rows of a batch that is read, at most.
const BATCH_ROWS: usize = 8192;
/// With more columns than these, segments are merged some columns at a time.
const WIDE: usize = 128;

/// How a merge came out.
pub(crate) enum Merged {
    /// Written, and how many rows retention left out.
    Written(Written, u64),
    /// No row was left.
    Empty(u64),
    /// The process is about to stop; what was written is to be given up.
    Stopped,
}

/// Merges segments of one table into the file at `path`, without the rows that are too old.
pub(crate) fn merge(
    inputs: &[Arc<SegmentFile>],
    table: &str,
    path: &Path,
    cutoffs: &Cutoffs,
    memory_bytes: usize,
    is_stopping: impl Fn() -> bool,
) -> Result<Merged, TableError> {
    let metadata: Vec<ArrowReaderMetadata> =
        inputs.iter().map(|input| open(input)).collect::<Result<_, _>>()?;
    let schemas: Vec<&SchemaRef> = metadata.iter().map(ArrowReaderMetadata::schema).collect();
    let layout = Layout::union(table, schemas.into_iter())?;
    if layout.columns.len() > WIDE {
        let sources = Sources::new(inputs, metadata, &layout, memory_bytes);
        return columns::merge(&sources, &layout, path, cutoffs, is_stopping);
    }
    let rows: u64 = inputs.iter().map(|input| input.meta.rows).sum();
    let plan = MemoryPlan::of(&metadata, rows, memory_bytes);
    let mut streams: Vec<Input> = Vec::with_capacity(inputs.len());
    for (number, (input, metadata)) in inputs.iter().zip(metadata).enumerate() {
        let all = ProjectionMask::all();
        let mut stream = Input::new(Arc::clone(input), metadata, all, plan.batch_rows, number)?;
        stream.advance(table, cutoffs)?;
        streams.push(stream);
    }
    let mut writer: Option<SegmentWriter> = None;
    let mut unit = PendingUnit::default();
    while let Some((at, until)) = next_run(&streams) {
        let Some(stream) = streams.get_mut(at) else { break };
        let limit = plan.group_rows - unit.rows;
        let taken = stream.take(until.as_ref(), limit);
        stream.keep(&taken, &mut unit);
        if stream.is_at_end() {
            stream.advance(table, cutoffs)?;
        }
        if unit.rows >= plan.group_rows || taken.is_empty() {
            if is_stopping() {
                return Ok(Merged::Stopped);
            }
            unit.write(&mut writer, path, &layout, rows)?;
            streams.iter_mut().for_each(|stream| stream.in_unit = None);
        }
    }
    unit.write(&mut writer, path, &layout, rows)?;
    let dropped = streams.iter().map(|stream| stream.dropped).sum();
    Ok(match writer {
        Some(writer) => Merged::Written(writer.finish()?, dropped),
        None => Merged::Empty(dropped),
    })
}

fn open(input: &SegmentFile) -> Result<ArrowReaderMetadata, TableError> {
    let file = File::open(&input.path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => TableError::Missing { path: input.path.clone() },
        _ => TableError::io("open", &input.path)(error),
    })?;
    ArrowReaderMetadata::load(&file, ArrowReaderOptions::new())
        .map_err(|error| TableError::damaged(&input.path, error.to_string()))
}

/// How the memory is shared out.
struct MemoryPlan {
    batch_rows: usize,
    group_rows: usize,
}

impl MemoryPlan {
    fn of(metadata: &[ArrowReaderMetadata], rows: u64, memory_bytes: usize) -> Self {
        let stored: i64 = metadata
            .iter()
            .flat_map(|metadata| metadata.metadata().row_groups())
            .map(|group| group.total_byte_size())
            .sum();
        // A decoded row is wider than an encoded one: each column has at least a key or a number.
        let columns = metadata.iter().map(|m| m.schema().fields().len()).max().unwrap_or(1);
        let row_bytes = (stored.max(0) as u64 / rows.max(1)) as usize * 2 + columns * 4 + 16;
        let fit = memory_bytes / 2 / row_bytes / PAGE_ROWS * PAGE_ROWS;
        let batch = memory_bytes / 4 / row_bytes / metadata.len().max(1);
        Self {
            batch_rows: batch.clamp(64, BATCH_ROWS),
            group_rows: fit.clamp(PAGE_ROWS, ROW_GROUP_ROWS),
        }
    }
}

/// A row's place in the order.
type Key = (Arc<str>, i64, u64, usize);

/// One segment that is read.
struct Input {
    file: Arc<SegmentFile>,
    reader: ParquetRecordBatchReader,
    number: usize,
    current: Option<Current>,
    /// Rows of the batches before the current one.
    before: u64,
    /// Where the current batch stands in the unit, once some of its rows do.
    in_unit: Option<u32>,
    /// Rows that were too old.
    dropped: u64,
}

/// The batch that an input is at.
struct Current {
    batch: RecordBatch,
    keys: KeyColumns,
    /// Where each tenant's rows end, ascending.
    tenants: Vec<(Arc<str>, usize)>,
    row: usize,
}

impl Current {
    fn tenant(&self) -> Option<&(Arc<str>, usize)> {
        let at = self.tenants.partition_point(|(_, end)| *end <= self.row);
        self.tenants.get(at)
    }

    fn time_and_position(&self, row: usize) -> (i64, u64) {
        let time = self.keys.times().get(row).copied().unwrap_or(i64::MAX);
        (time, self.keys.positions().get(row).copied().unwrap_or(0))
    }
}

impl Input {
    fn new(
        file: Arc<SegmentFile>,
        metadata: ArrowReaderMetadata,
        columns: ProjectionMask,
        batch_rows: usize,
        number: usize,
    ) -> Result<Self, TableError> {
        let handle = File::open(&file.path).map_err(TableError::io("open", &file.path))?;
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(handle, metadata)
            .with_projection(columns)
            .with_batch_size(batch_rows)
            .build()
            .map_err(|error| TableError::damaged(&file.path, error.to_string()))?;
        Ok(Self { file, reader, number, current: None, before: 0, in_unit: None, dropped: 0 })
    }

    /// Goes to the next row that is wanted: leaves out rows that are too old, and reads on when the
    /// batch is used up.
    fn advance(&mut self, table: &str, cutoffs: &Cutoffs) -> Result<(), TableError> {
        loop {
            if let Some(current) = &mut self.current {
                while let Some((tenant, end)) = current.tenant().cloned() {
                    let Some(cutoff) = cutoffs.before(&tenant) else { break };
                    let times = current.keys.times().get(current.row..end).unwrap_or_default();
                    let old = times.partition_point(|time| *time < cutoff);
                    self.dropped += old as u64;
                    current.row += old;
                    if current.row < end {
                        break;
                    }
                }
                if current.row < current.batch.num_rows() {
                    return Ok(());
                }
            }
            self.in_unit = None;
            self.before += self.current.as_ref().map_or(0, |last| last.batch.num_rows() as u64);
            let Some(batch) = self.reader.next() else {
                self.current = None;
                return Ok(());
            };
            let batch =
                batch.map_err(|error| TableError::damaged(&self.file.path, error.to_string()))?;
            let keys = KeyColumns::of(table, &batch)?;
            let tenants = tenant_ends(&keys)
                .ok_or_else(|| TableError::damaged(&self.file.path, "column tenant is no text"))?;
            self.current = Some(Current { batch, keys, tenants, row: 0 });
        }
    }

    fn key(&self) -> Option<Key> {
        let current = self.current.as_ref()?;
        let (time, position) = current.time_and_position(current.row);
        Some((Arc::clone(&current.tenant()?.0), time, position, self.number))
    }

    fn is_at_end(&self) -> bool {
        // Cutoffs are looked at anew with each tenant.
        self.current.as_ref().is_some_and(|current| {
            current.row >= current.batch.num_rows()
                || current.tenants.iter().any(|(_, end)| *end == current.row)
        })
    }

    /// Goes past the rows of the current tenant that come before `until`, at most `limit`; which they
    /// are in the current batch.
    fn take(&mut self, until: Option<&Key>, limit: usize) -> Range<usize> {
        let Some(current) = &mut self.current else { return 0..0 };
        let Some((tenant, end)) = current.tenant().cloned() else { return 0..0 };
        let start = current.row;
        let mut rows = (end - start).min(limit);
        if let Some((other, time, position, number)) = until
            && *other == tenant
        {
            let before = |row: usize| {
                let (mine_time, mine_position) = current.time_and_position(row);
                (mine_time, mine_position, self.number) < (*time, *position, *number)
            };
            // Most often few rows or all come before, so the step is doubled from one on.
            let mut known = 0usize;
            let mut step = 1usize;
            while known + step <= rows && before(start + known + step - 1) {
                known += step;
                step *= 2;
            }
            let mut beyond = (known + step).min(rows + 1);
            while known + 1 < beyond {
                let middle = known + (beyond - known) / 2;
                if before(start + middle - 1) { known = middle } else { beyond = middle }
            }
            rows = known;
        }
        current.row += rows;
        start..start + rows
    }

    /// Moves rows of the current batch into the unit.
    fn keep(&mut self, rows: &Range<usize>, unit: &mut PendingUnit) {
        let Some(current) = self.current.as_ref().filter(|_| !rows.is_empty()) else { return };
        let batch = *self.in_unit.get_or_insert_with(|| {
            unit.batches.push(current.batch.clone());
            unit.batches.len() as u32 - 1
        });
        unit.push(Run { batch, start: rows.start as u32, len: rows.len() as u32 });
    }
}

/// Where each tenant's rows end in a batch that is sorted by tenant.
fn tenant_ends(keys: &KeyColumns) -> Option<Vec<(Arc<str>, usize)>> {
    let text = Text::of(&keys.tenants)?;
    let mut ends: Vec<(Arc<str>, usize)> = Vec::new();
    let rows = text.len();
    let mut row = 0usize;
    while row < rows {
        let tenant = text.get(row)?;
        // Rows are sorted, so where the tenant ends is found by halving.
        let (mut same, mut other) = (row, rows);
        if text.get(rows - 1) == Some(tenant) {
            same = rows;
        }
        while same + 1 < other {
            let middle = same + (other - same) / 2;
            if text.get(middle) == Some(tenant) { same = middle } else { other = middle }
        }
        row = if same == rows { rows } else { same + 1 };
        ends.push((Arc::from(tenant), row));
    }
    Some(ends)
}

/// The input whose next row is the least, and the least of the others' next rows.
fn next_run(streams: &[Input]) -> Option<(usize, Option<Key>)> {
    let mut least: Option<(usize, Key)> = None;
    let mut second: Option<Key> = None;
    for (at, stream) in streams.iter().enumerate() {
        let Some(key) = stream.key() else { continue };
        match &least {
            Some((_, known)) if *known < key => {
                if second.as_ref().is_none_or(|second| key < *second) {
                    second = Some(key);
                }
            }
            _ => {
                second = least.take().map(|(_, key)| key);
                least = Some((at, key));
            }
        }
    }
    least.map(|(at, _)| (at, second))
}

fn push_run(runs: &mut Vec<Run>, run: Run) {
    match runs.last_mut() {
        Some(last) if last.batch == run.batch && last.start + last.len == run.start => {
            last.len += run.len;
        }
        _ => runs.push(run),
    }
}

/// Rows in order that are not written yet.
#[derive(Default)]
struct PendingUnit {
    batches: Vec<RecordBatch>,
    runs: Vec<Run>,
    rows: usize,
}

impl PendingUnit {
    fn push(&mut self, run: Run) {
        self.rows += run.len as usize;
        push_run(&mut self.runs, run);
    }

    /// Writes the rows as one row group; the file is made with the first.
    fn write(
        &mut self,
        writer: &mut Option<SegmentWriter>,
        path: &Path,
        layout: &Layout,
        rows: u64,
    ) -> Result<(), TableError> {
        if self.rows == 0 {
            return Ok(());
        }
        let writer = match writer {
            Some(writer) => writer,
            None => writer.insert(SegmentWriter::create(path, layout.clone(), rows)?),
        };
        writer.write(&self.batches, &cut_runs(&self.runs, self.rows))?;
        *self = Self::default();
        Ok(())
    }
}
