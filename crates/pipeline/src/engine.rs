//! The engine: recovery at start, the threads while it runs, and the drain at its end.

use crate::checkpoint::{CheckpointStore, Loaded};
use crate::committer::{CommitOptions, Committer};
use crate::control::InForce;
use crate::detectors::{OrderedDetectors, WorkerDetectors};
use crate::error::PipelineError;
use crate::feed::Feed;
use crate::finisher::Finisher;
use crate::ledger::Ledger;
use crate::live::Live;
use crate::metrics::Metrics;
use crate::priority::yield_to_others;
use crate::recovery::{Decision, Found, decide};
use crate::rules::Books;
use crate::worker::Worker;
use palisade_catalog::{Catalog, Checkpoint};
use palisade_event::Offset;
use palisade_log::Log;
use palisade_table::Tables;
use parking_lot::Mutex;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::watch;

/// How the engine is built. Nothing here changes a result: what does comes out of the log
/// ([`crate::control`]).
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Worker threads.
    pub workers: usize,
    /// Partitions of the log, fixed when the log was made.
    pub partitions: u16,
    /// Frames that may wait in front of a worker.
    pub queue_frames: usize,
    /// When to commit and to checkpoint.
    pub commit: CommitOptions,
}

/// What the engine is built upon.
#[derive(Debug, Clone)]
pub struct Foundations {
    /// The log, open.
    pub log: Arc<Log>,
    /// The tables, open.
    pub tables: Arc<Tables>,
    /// The catalog.
    pub catalog: Catalog,
    /// The runtime on which the catalog is called.
    pub runtime: tokio::runtime::Handle,
    /// The ledger of idempotency keys, empty; it is whole when [`Engine::start`] returns.
    pub ledger: Arc<Ledger>,
    /// The live counters.
    pub live: Arc<Live>,
    /// The metrics.
    pub metrics: Metrics,
    /// The sets of rules.
    pub books: Arc<Books>,
}

/// The running pipeline.
#[derive(Debug)]
pub struct Engine {
    log: Arc<Log>,
    feed: Arc<Feed>,
    finisher: Arc<Finisher>,
    committed: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    stop_reader: Arc<AtomicBool>,
    target: Offset,
    fatal: watch::Receiver<Option<String>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    committer: Mutex<Option<JoinHandle<()>>>,
}

/// Where the pipeline stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Progress {
    /// The offset after the last durable entry of the log.
    pub log_end: u64,
    /// Entries below it are visible to SQL.
    pub visible: u64,
    /// Entries below it are in segments.
    pub committed: u64,
    /// Whether everything that was acknowledged before the start is visible (M4).
    pub ready: bool,
}

impl Engine {
    /// Recovers the state of `data` and starts the threads. The ledger is whole then, so a gateway may
    /// take records; the replay goes on in the background, [`Engine::progress`] says when it is done. The log must not have had a subscriber before.
    ///
    /// # Errors
    /// When log, catalog and checkpoints do not belong together, or a thread can't be started.
    pub fn start(
        on: Foundations,
        options: &EngineOptions,
        data: &Path,
        epoch: u64,
    ) -> Result<Self, PipelineError> {
        let manifest = on.runtime.block_on(on.catalog.manifest())?;
        let store = CheckpointStore::new(data);
        let mut kept = on.runtime.block_on(on.catalog.checkpoints(0))?;
        let (newest, loaded) = newest_readable(&store, &kept)?;
        // Oldest first, as the committer keeps them.
        kept.reverse();
        let log_end = on.log.durable_end();
        let decision = decide(Found {
            log_start: on.log.start(),
            log_end,
            committed: manifest.position,
            checkpoint: newest.as_ref().map(|checkpoint| checkpoint.position),
        });
        let state_from = match decision {
            Decision::Refuse(refusal) => return Err(refusal.into()),
            Decision::Replay { state_from, .. } => state_from,
        };
        let bad = |reason: String| PipelineError::Checkpoint {
            path: newest.as_ref().map_or(String::new(), |checkpoint| checkpoint.path.clone()),
            reason,
        };
        on.ledger.restore(&loaded.requests).map_err(|error| bad(error.to_string()))?;
        on.ledger.read_log(&on.log, state_from, log_end)?;
        let in_force = InForce::restore(&loaded.control)?;
        in_force.check_newer(state_from)?;
        let ordered = OrderedDetectors::restore(
            &loaded.norms,
            &loaded.correlations,
            in_force.clone(),
            Arc::clone(&on.books),
        )
        .map_err(bad)?;
        let finisher = Arc::new(Finisher::new(
            ordered,
            Arc::clone(&on.tables),
            Arc::clone(&on.ledger),
            Arc::clone(&on.live),
            on.metrics.clone(),
            state_from,
            options.commit.bytes.saturating_mul(2),
        ));

        let workers = options.workers.max(1);
        let (senders, queues): (Vec<_>, Vec<_>) =
            (0..workers).map(|_| crossbeam_channel::bounded(options.queue_frames.max(1))).unzip();
        let feed = Arc::new(Feed::new(senders, state_from, manifest.position));
        let (fatal_sender, fatal) = watch::channel(None);
        let fatal_sender = Arc::new(fatal_sender);
        let stop = Arc::new(AtomicBool::new(false));
        let stop_reader = Arc::new(AtomicBool::new(false));
        let committed = Arc::new(AtomicU64::new(manifest.position.0));
        let mut threads = Vec::new();

        for (index, queue) in queues.into_iter().enumerate() {
            let detectors = WorkerDetectors::restore(
                options.partitions,
                index,
                workers,
                &loaded.baselines,
                in_force.clone(),
                Arc::clone(&on.books),
            )
            .map_err(bad)?;
            let worker = Worker {
                index,
                workers,
                queue,
                detectors,
                finisher: Arc::clone(&finisher),
                metrics: on.metrics.clone(),
                saving: None,
            };
            threads.push(spawn("worker", &fatal_sender, move || worker.run())?);
        }
        on.log.subscribe(Box::new({
            let feed = Arc::clone(&feed);
            move |offset, entry| feed.announce(offset, entry)
        }));
        threads.push(spawn("replay", &fatal_sender, {
            let (log, feed, stop) =
                (Arc::clone(&on.log), Arc::clone(&feed), Arc::clone(&stop_reader));
            move || replay(&log, &feed, &stop)
        })?);
        let committer = Committer {
            options: options.commit,
            workers,
            epoch,
            catalog: on.catalog.clone(),
            runtime: on.runtime.clone(),
            log: Arc::clone(&on.log),
            tables: Arc::clone(&on.tables),
            feed: Arc::clone(&feed),
            finisher: Arc::clone(&finisher),
            ledger: Arc::clone(&on.ledger),
            store,
            metrics: on.metrics.clone(),
            committed: Arc::clone(&committed),
            stop: Arc::clone(&stop),
            kept,
            chain: Vec::new(),
        };
        let committer = spawn("committer", &fatal_sender, move || {
            yield_to_others();
            committer.run()
        })?;
        Ok(Self {
            log: on.log,
            feed,
            finisher,
            committed,
            stop,
            stop_reader,
            target: log_end,
            fatal,
            threads: Mutex::new(threads),
            committer: Mutex::new(Some(committer)),
        })
    }

    /// Where the pipeline stands.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let visible = self.finisher.visible();
        Progress {
            log_end: self.log.durable_end().0,
            visible: visible.0,
            committed: self.committed.load(Ordering::Acquire),
            ready: visible >= self.target && self.fatal.borrow().is_none(),
        }
    }

    /// What is in force behind the last entry that is visible (C1).
    #[must_use]
    pub fn in_force(&self) -> Arc<InForce> {
        self.finisher.in_force()
    }

    /// The message of the first critical error, when there is one. The process has to stop then.
    #[must_use]
    pub fn fatal(&self) -> watch::Receiver<Option<String>> {
        self.fatal.clone()
    }

    /// Waits until every entry that is durable now is visible to SQL; false when the time is over
    /// first.
    #[must_use]
    pub fn wait_visible(&self, time: Duration) -> bool {
        let target = self.log.durable_end();
        let end = std::time::Instant::now() + time;
        while self.finisher.visible() < target {
            let left = end.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() || self.fatal.borrow().is_some() {
                return false;
            }
            self.finisher.wait_moved(left.min(Duration::from_millis(20)));
        }
        true
    }

    /// Makes everything durable visible, commits it, takes a last checkpoint and stops the threads.
    /// The gateway must have stopped before. Returns whether all of it was done in time; what was
    /// not is in the log and is done at the next start.
    pub fn drain(&self, time: Duration) -> bool {
        let visible = self.wait_visible(time);
        self.stop.store(true, Ordering::Release);
        self.stop_reader.store(true, Ordering::Release);
        let committer = self.committer.lock().take();
        let done = visible && committer.is_some_and(|thread| thread.join().is_ok());
        done && self.fatal.borrow().is_none() && self.feed.position() <= self.finisher.visible()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.stop_reader.store(true, Ordering::Release);
        self.threads.lock().clear();
    }
}

/// Loads the newest checkpoint that can be read: when its files are damaged, the one before serves,
/// for the log is kept one checkpoint behind (L3).
fn newest_readable(
    store: &CheckpointStore,
    newest_first: &[Checkpoint],
) -> Result<(Option<Checkpoint>, Loaded), PipelineError> {
    let mut failed = None;
    for checkpoint in newest_first {
        match store.load(checkpoint) {
            Ok(loaded) => return Ok((Some(checkpoint.clone()), loaded)),
            Err(error) => {
                tracing::error!(%error, "a checkpoint can't be read, the one before is tried");
                failed.get_or_insert(error);
            }
        }
    }
    failed.map_or(Ok((None, Loaded::default())), Err)
}

/// Reads the log from the feed's position until the feed is live.
fn replay(log: &Log, feed: &Feed, stop: &AtomicBool) -> Result<(), PipelineError> {
    loop {
        let (next, live) = feed.next();
        if live || stop.load(Ordering::Acquire) {
            return Ok(());
        }
        if next < log.durable_end() {
            for read in log.read(next)? {
                let (offset, entry) = read?;
                if stop.load(Ordering::Acquire) || !feed.replay(offset, Arc::new(entry)) {
                    break;
                }
            }
        } else {
            // Nothing to read and nobody has announced anything yet.
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

fn spawn(
    name: &'static str,
    fatal: &Arc<watch::Sender<Option<String>>>,
    work: impl FnOnce() -> Result<(), PipelineError> + Send + 'static,
) -> Result<JoinHandle<()>, PipelineError> {
    struct Watch(&'static str, Arc<watch::Sender<Option<String>>>, bool);
    impl Drop for Watch {
        fn drop(&mut self) {
            if !self.2 {
                self.1.send_if_modified(|first| {
                    let new = first.is_none();
                    first.get_or_insert_with(|| PipelineError::Panicked(self.0).to_string());
                    new
                });
            }
        }
    }
    let mut watch = Watch(name, Arc::clone(fatal), false);
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let result = work();
            watch.2 = true;
            if let Err(error) = result {
                tracing::error!(thread = name, %error, "the pipeline has to stop");
                watch.1.send_if_modified(|first| {
                    let new = first.is_none();
                    first.get_or_insert_with(|| error.to_string());
                    new
                });
            }
        })
        .map_err(|source| PipelineError::Io {
            what: format!("starting the thread '{name}'"),
            source,
        })
}
