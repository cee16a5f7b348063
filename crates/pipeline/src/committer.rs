//! The committer: seals visible rows into segments and commits them (M1), takes checkpoints (M2),
//! and trims the log (L3). One thread; the only one that writes to the catalog's positions.

use crate::checkpoint::{CheckpointStore, CheckpointTask};
use crate::error::PipelineError;
use crate::feed::Feed;
use crate::finisher::Finisher;
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::recovery::trim_before;
use palisade_catalog::{Catalog, Checkpoint};
use palisade_event::{ErrorClass, Offset};
use palisade_log::Log;
use palisade_table::Tables;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// When to commit and to checkpoint.
#[derive(Debug, Clone, Copy)]
pub struct CommitOptions {
    /// Commit when this many bytes are visible but not committed. At twice as many the pipeline waits, which is
    /// the bound of M4: what arrives while a commit is written has room.
    pub bytes: u64,
    /// Commit when the oldest uncommitted row has waited this long (M4).
    pub age: Duration,
    /// Take a checkpoint this long after the one before.
    pub checkpoint_every: Duration,
    /// Every how many checkpoints the state is written whole, the others being increments.
    pub full_every: usize,
}

impl Default for CommitOptions {
    fn default() -> Self {
        Self {
            bytes: 128 << 20,
            age: Duration::from_secs(5),
            checkpoint_every: Duration::from_secs(30),
            full_every: 10,
        }
    }
}

pub(crate) struct Committer {
    pub(crate) options: CommitOptions,
    pub(crate) workers: usize,
    pub(crate) epoch: u64,
    pub(crate) catalog: Catalog,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) log: Arc<Log>,
    pub(crate) tables: Arc<Tables>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) finisher: Arc<Finisher>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) store: CheckpointStore,
    pub(crate) metrics: Metrics,
    pub(crate) committed: Arc<AtomicU64>,
    pub(crate) stop: Arc<AtomicBool>,
    /// Checkpoints that the catalog names, oldest first, at most two.
    pub(crate) kept: Vec<Checkpoint>,
    /// What the next incremental checkpoint builds upon; empty makes the next one full.
    pub(crate) chain: Vec<Offset>,
}

/// How long the committer sleeps when nothing moves.
const IDLE: Duration = Duration::from_millis(100);

impl Committer {
    /// Works until told to stop and everything visible is committed and checkpointed.
    pub(crate) fn run(mut self) -> Result<(), PipelineError> {
        let mut oldest: Option<Instant> = None;
        let mut checkpointed = Instant::now();
        let mut running: Option<(Arc<CheckpointTask>, Vec<Offset>)> = None;
        loop {
            let stopping = self.stop.load(Ordering::Acquire);
            let visible = self.finisher.visible();
            let committed = Offset(self.committed.load(Ordering::Acquire));
            self.metrics.log_end.set(i64::try_from(self.log.durable_end().0).unwrap_or(i64::MAX));
            let bytes = self.tables.uncommitted().bytes;
            self.metrics.uncommitted_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
            if visible > committed {
                let since = *oldest.get_or_insert_with(Instant::now);
                if stopping || bytes >= self.options.bytes || since.elapsed() >= self.options.age {
                    oldest = None;
                    self.commit(visible)?;
                    continue;
                }
            }
            if let Some((task, chain)) = &running {
                // S ≤ T: the parts are only taken once they may be recorded.
                if committed >= task.position
                    && let Some(parts) = task.wait(Duration::ZERO)
                {
                    let failed = |reason| PipelineError::Checkpoint {
                        path: format!("at offset {}", task.position.0),
                        reason,
                    };
                    let mut parts = parts.map_err(failed)?;
                    // The pipeline has passed the position, so no key before it is missing.
                    let requests = self.ledger.save().map_err(|error| failed(error.to_string()))?;
                    parts.insert("requests".to_owned(), requests);
                    let checkpoint = self.store.write(task.position, chain, &parts)?;
                    self.chain.clone_from(chain);
                    self.keep(checkpoint)?;
                    running = None;
                }
            } else {
                let last = self.kept.last().map_or(Offset(0), |checkpoint| checkpoint.position);
                let due = checkpointed.elapsed() >= self.options.checkpoint_every;
                if self.feed.position() > last && (due || stopping) {
                    running = self.begin_checkpoint();
                    if running.is_some() {
                        checkpointed = Instant::now();
                        continue;
                    }
                }
                if stopping && visible <= committed && self.feed.position() <= visible {
                    return Ok(());
                }
            }
            self.finisher.wait_moved(if running.is_some() { IDLE / 10 } else { IDLE });
        }
    }

    fn commit(&mut self, to: Offset) -> Result<(), PipelineError> {
        let mut pause = Duration::from_millis(100);
        loop {
            let begun = Instant::now();
            match self.tables.seal(to, self.epoch) {
                Ok(sealed) => {
                    tracing::debug!(
                        from = sealed.from.0,
                        to = sealed.to.0,
                        rows = sealed.rows,
                        bytes = sealed.bytes,
                        version = sealed.version,
                        "committed"
                    );
                    self.committed.store(to.0, Ordering::Release);
                    self.finisher.committed();
                    self.metrics.commits.inc();
                    self.metrics.commit_seconds.observe(begun.elapsed().as_secs_f64());
                    self.metrics.committed_position.set(i64::try_from(to.0).unwrap_or(i64::MAX));
                    return Ok(());
                }
                Err(error) if error.class() == ErrorClass::Transient => {
                    self.metrics.commit_failures.inc();
                    tracing::warn!(%error, "commit failed, it is tried again; rows stay visible and in the log");
                    self.finisher.wait_moved(pause);
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn begin_checkpoint(&self) -> Option<(Arc<CheckpointTask>, Vec<Offset>)> {
        let full = self.chain.is_empty() || self.chain.len() >= self.options.full_every;
        // One of each worker; norms, what is in force and the correlations from the finisher.
        let parts = self.workers + 3;
        let task =
            self.feed.mark(|position| Arc::new(CheckpointTask::new(position, full, parts)))?;
        let mut chain = if full { Vec::new() } else { self.chain.clone() };
        chain.push(task.position);
        Some((task, chain))
    }

    fn keep(&mut self, checkpoint: Checkpoint) -> Result<(), PipelineError> {
        let recorded = self.catalog.record_checkpoint(checkpoint.clone(), self.epoch);
        let retired = self.runtime.block_on(recorded)?;
        self.metrics.checkpoints.inc();
        self.kept.push(checkpoint);
        if self.kept.len() > 2 {
            self.kept.remove(0);
        }
        self.store.remove_unneeded(&self.kept)?;
        let gone: Vec<_> = retired.into_iter().map(|checkpoint| checkpoint.path).collect();
        self.runtime.block_on(self.catalog.forget_checkpoints(&gone))?;
        let positions: Vec<_> = self.kept.iter().map(|checkpoint| checkpoint.position).collect();
        let committed = Offset(self.committed.load(Ordering::Acquire));
        self.log.trim(trim_before(committed, &positions))?;
        Ok(())
    }
}
