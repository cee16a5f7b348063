//! A partition worker: sees every piece of work in order, runs the stateless detectors on its share
//! of the frames and the stateful ones on the rows of its own partitions.

use crate::checkpoint::CheckpointTask;
use crate::detectors::WorkerDetectors;
use crate::error::PipelineError;
use crate::finisher::Finisher;
use crate::flow::{InFlight, Work, WorkKind};
use crate::metrics::Metrics;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use palisade_event::Entry;
use palisade_event::schema::EVENTS;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The most users that a checkpoint writes between two frames: one millisecond of work where memory is touched for
/// the first time, so that a step is over before the scheduler takes its core away (M2: no pause above 10 ms).
const SNAPSHOT_STEP: usize = 256;

pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) workers: usize,
    pub(crate) queue: Receiver<Arc<Work>>,
    pub(crate) detectors: WorkerDetectors,
    pub(crate) finisher: Arc<Finisher>,
    pub(crate) metrics: Metrics,
    pub(crate) saving: Option<Saving>,
}

/// A checkpoint that this worker is writing its part of.
pub(crate) struct Saving {
    task: Arc<CheckpointTask>,
    bytes: Vec<u8>,
}

impl Worker {
    /// Works until the feed is closed.
    pub(crate) fn run(mut self) -> Result<(), PipelineError> {
        loop {
            let work = if self.saving.is_some() || self.finisher.is_saving() {
                match self.queue.recv_timeout(Duration::from_micros(200)) {
                    Ok(work) => Some(work),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => return Ok(()),
                }
            } else {
                match self.queue.recv() {
                    Ok(work) => Some(work),
                    Err(_) => return Ok(()),
                }
            };
            if let Some(work) = work {
                self.take(&work)?;
                if work.done() {
                    self.finisher.hand_over(work)?;
                }
            }
            self.save_some();
            self.finisher.save_some();
        }
    }

    fn take(&mut self, work: &Work) -> Result<(), PipelineError> {
        match &work.kind {
            WorkKind::Entry(flight) => match flight.entry.as_ref() {
                Entry::Frame(frame) if frame.stream == EVENTS => {
                    self.detectors.check(flight.offset)?;
                    self.judge(work.number, flight, &frame.batch);
                }
                Entry::Control { clock, kind, body } => {
                    self.detectors.control(flight.offset, *clock, kind, body)?;
                }
                Entry::Frame(_) | Entry::Tick { .. } => {}
            },
            WorkKind::Checkpoint(task) => {
                // A second checkpoint is only asked for when the first is complete.
                let begun = Instant::now();
                self.finish_saving();
                if !self.detectors.begin_snapshot(task.full) {
                    task.fail(format!("worker {} is still writing the one before", self.index));
                    return Ok(());
                }
                // Reserved whole, which touches nothing: growing step by step would copy hundreds of megabytes at a
                // time, with the rows waiting.
                let bytes = Vec::with_capacity(self.detectors.snapshot_room());
                self.saving = Some(Saving { task: Arc::clone(task), bytes });
                self.metrics.checkpoint_pause_seconds.observe(begun.elapsed().as_secs_f64());
            }
        }
        Ok(())
    }

    fn judge(&mut self, number: u64, flight: &InFlight, batch: &arrow::array::RecordBatch) {
        let mine = number % self.workers as u64 == self.index as u64;
        let features = mine.then(|| self.detectors.features(batch));
        let rules = if mine { self.detectors.rules(batch) } else { None };
        let indicators = if mine { self.detectors.indicators(batch) } else { None };
        let routing = flight.routing.get_or_init(|| self.detectors.route(batch));
        let part = self.detectors.baseline(batch, routing);
        let mut results = flight.results.lock();
        if let Some(features) = features {
            results.features = Some(features);
            results.rules = rules;
            results.indicators = indicators;
        }
        results.baselines.push(part);
    }

    fn save_some(&mut self) {
        let Some(saving) = &mut self.saving else { return };
        let begun = Instant::now();
        let complete = self.detectors.snapshot_step(SNAPSHOT_STEP, &mut saving.bytes);
        self.metrics.checkpoint_pause_seconds.observe(begun.elapsed().as_secs_f64());
        if complete {
            self.deliver_saved();
        }
    }

    fn finish_saving(&mut self) {
        if let Some(saving) = &mut self.saving {
            while !self.detectors.snapshot_step(usize::MAX, &mut saving.bytes) {}
            self.deliver_saved();
        }
    }

    fn deliver_saved(&mut self) {
        if let Some(Saving { task, bytes }) = self.saving.take() {
            task.part(format!("baseline-{}", self.index), bytes);
        }
    }
}
