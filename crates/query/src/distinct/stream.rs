//! The distinct rows of one partition, as a stream.

use super::DistinctExec;
use super::keys::Key;
use super::table::{Fingerprints, MAX_LEVEL, PARTS, Taken};
use datafusion::arrow::array::{ArrayRef, BooleanArray, RecordBatch, UInt64Array};
use datafusion::arrow::buffer::BooleanBuffer;
use datafusion::arrow::compute::{BatchCoalescer, filter_record_batch};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::{Result, resources_datafusion_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit};
use datafusion::execution::{SendableRecordBatchStream, SpillFile, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::SpillManager;
use datafusion::physical_plan::metrics::{BaselineMetrics, SpillMetrics};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, stream};
use std::sync::Arc;

/// The most memory of fingerprints where rows need not be distinct yet.
const EARLY_BYTES: usize = 8 << 20;
/// After so many rows it is asked whether leaving some out early pays …
const TRIAL: usize = 1 << 17;
/// … which it does when more than this many out of ten are left out.
const LEAST_GAIN: usize = 2;
/// Rows of a batch on disk.
const SPILLED_ROWS: usize = 4_096;

type Write = dyn FnMut(Option<&RecordBatch>) -> Result<Option<Arc<dyn SpillFile>>> + Send;

/// Rows of one part on their way to disk.
struct Spilled {
    rows: BatchCoalescer,
    /// Writes a batch, or ends the file and gives it back.
    write: Box<Write>,
}

impl Spilled {
    fn new(disk: &SpillManager, schema: &SchemaRef) -> Result<Self> {
        let mut file = disk.create_in_progress_file("distinct rows")?;
        let write = move |batch: Option<&RecordBatch>| match batch {
            Some(batch) => file.append_batch(batch).map(|_| None),
            None => file.finish(),
        };
        let rows = BatchCoalescer::new(Arc::clone(schema), SPILLED_ROWS);
        Ok(Self { rows, write: Box::new(write) })
    }

    fn write_full(&mut self) -> Result<()> {
        while let Some(full) = self.rows.next_completed_batch() {
            (self.write)(Some(&full))?;
        }
        Ok(())
    }
}

/// The work on one partition.
struct Distinct {
    key: Key,
    last: bool,
    /// Emptied when the input is what was written to disk.
    columns: Vec<Arc<dyn PhysicalExpr>>,
    schema: SchemaRef,
    input: SendableRecordBatchStream,
    /// `None` when leaving rows out early does not pay.
    known: Option<Fingerprints>,
    level: u32,
    seen: usize,
    new: usize,
    disk: SpillManager,
    parts: [Option<Spilled>; PARTS],
    waiting: Vec<(u32, Arc<dyn SpillFile>)>,
    metrics: BaselineMetrics,
}

pub(super) fn distinct(
    plan: &DistinctExec,
    input: SendableRecordBatchStream,
    partition: usize,
    context: &TaskContext,
) -> SendableRecordBatchStream {
    let pool = context.memory_pool();
    let partitions = context.session_config().target_partitions().max(1);
    let bound = match (plan.last, pool.memory_limit()) {
        // A quarter is left to the other steps of the query.
        (true, MemoryLimit::Finite(bytes)) => bytes / 4 * 3 / partitions,
        (true, _) => usize::MAX,
        (false, MemoryLimit::Finite(bytes)) => (bytes / 16 / partitions).min(EARLY_BYTES),
        (false, _) => EARLY_BYTES,
    };
    let memory = MemoryConsumer::new(format!("DistinctExec[{partition}]"))
        .with_can_spill(true)
        .register(pool);
    let compression = context.session_config().spill_compression();
    let disk = SpillManager::new(
        context.runtime_env(),
        SpillMetrics::new(&plan.metrics, partition),
        Arc::clone(&plan.schema),
    )
    .with_compression_type(compression);
    let work = Distinct {
        key: plan.key,
        last: plan.last,
        columns: plan.columns.clone(),
        schema: Arc::clone(&plan.schema),
        input,
        known: Some(Fingerprints::new(memory, bound)),
        level: 0,
        seen: 0,
        new: 0,
        disk,
        parts: Default::default(),
        waiting: Vec::new(),
        metrics: BaselineMetrics::new(&plan.metrics, partition),
    };
    let rows = stream::try_unfold(work, |mut work| async move {
        Ok(work.next().await?.map(|batch| (batch, work)))
    });
    Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&plan.schema), rows))
}

impl Distinct {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            let batch = self.input.next().await.transpose()?;
            let time = self.metrics.elapsed_compute().clone();
            let timer = time.timer();
            match batch {
                Some(batch) => {
                    if let Some(new) = self.take(&batch)? {
                        timer.done();
                        self.metrics.record_output(new.num_rows());
                        return Ok(Some(new));
                    }
                }
                None => {
                    if !self.turn_to_disk()? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// The rows of a batch that are new.
    fn take(&mut self, batch: &RecordBatch) -> Result<Option<RecordBatch>> {
        let rows = batch.num_rows();
        let columns: Vec<ArrayRef> = if self.columns.is_empty() {
            batch.columns().to_vec()
        } else {
            let evaluated =
                self.columns.iter().map(|column| column.evaluate(batch)?.into_array(rows));
            evaluated.collect::<Result<_>>()?
        };
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        if rows == 0 {
            return Ok(None);
        }
        let Some(known) = &mut self.known else { return Ok(Some(batch)) };
        let mut fingerprints = Vec::new();
        self.key.fingerprints(batch.columns(), &mut fingerprints)?;
        let mut without_room: [Vec<u64>; PARTS] = Default::default();
        let mut spilled = false;
        let mut new = 0;
        let passes = BooleanBuffer::collect_bool(rows, |row| {
            let Some(fingerprint) = fingerprints.get(row) else { return true };
            let is_new = match known.take(*fingerprint) {
                Taken::New => true,
                Taken::Known => false,
                // Where rows need not be distinct yet, the set begins anew.
                Taken::NoRoom(_) if !self.last => {
                    known.clear(0);
                    true
                }
                Taken::NoRoom(part) => {
                    if let Some(rows) = without_room.get_mut(part) {
                        rows.push(row as u64);
                    }
                    spilled = true;
                    false
                }
            };
            new += usize::from(is_new);
            is_new
        });
        self.seen += rows;
        self.new += new;
        if !self.last && self.seen >= TRIAL && self.new > self.seen / 10 * (10 - LEAST_GAIN) {
            self.known = None;
        }
        if spilled {
            for (part, rows) in without_room.into_iter().enumerate() {
                if !rows.is_empty() {
                    self.spill(part, &batch, rows)?;
                }
            }
        }
        Ok(match new {
            0 => None,
            all if all == rows => Some(batch),
            _ => Some(filter_record_batch(&batch, &BooleanArray::new(passes, None))?),
        })
    }

    /// Writes rows of a part to disk.
    fn spill(&mut self, part: usize, batch: &RecordBatch, rows: Vec<u64>) -> Result<()> {
        if self.level + 1 >= MAX_LEVEL {
            return Err(resources_datafusion_err!("no memory for any distinct rows"));
        }
        let Some(place) = self.parts.get_mut(part) else { return Ok(()) };
        let part = match place {
            Some(part) => part,
            None => place.insert(Spilled::new(&self.disk, &self.schema)?),
        };
        part.rows.push_batch_with_indices(batch.clone(), &UInt64Array::from(rows))?;
        part.write_full()
    }

    /// Goes on with rows that were written to disk; false when there are none left.
    fn turn_to_disk(&mut self) -> Result<bool> {
        for part in &mut self.parts {
            let Some(mut part) = part.take() else { continue };
            part.rows.finish_buffered_batch()?;
            part.write_full()?;
            self.waiting.extend((part.write)(None)?.map(|file| (self.level + 1, file)));
        }
        let Some((level, file)) = self.waiting.pop() else {
            self.known = None;
            return Ok(false);
        };
        self.level = level;
        if let Some(known) = &mut self.known {
            known.clear(level);
        }
        self.columns.clear();
        self.input = self.disk.read_spill_as_stream(file, None)?;
        Ok(true)
    }
}
