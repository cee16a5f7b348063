//! The feed: how entries come from the log to the workers, once each and in order, whether they are
//! read back from disk after a restart or arrive fresh from the log's writer.
//!
//! After a start the feed is *catching up*: a reader thread walks the log from the replay position,
//! and what the log's writer announces meanwhile is left for the reader, which will find it on disk.
//! When the writer announces exactly the offset that the reader would read next, the feed is *live*
//! and entries keep the batch they were decoded into. Bounded worker queues make the log's writer
//! wait, which fills the gateway's queue, which answers 429.

use crate::checkpoint::CheckpointTask;
use crate::flow::{InFlight, Results, Work, WorkKind};
use crossbeam_channel::Sender;
use palisade_event::{Entry, Offset};
use parking_lot::Mutex;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

#[derive(Debug)]
struct State {
    next: Offset,
    number: u64,
    live: bool,
}

/// The single place at which work gets its number.
#[derive(Debug)]
pub(crate) struct Feed {
    state: Mutex<State>,
    workers: Vec<Sender<Arc<Work>>>,
    committed: Offset,
}

impl Feed {
    /// A feed that expects the entry at `from` next; entries below `committed` renew state only.
    pub(crate) fn new(workers: Vec<Sender<Arc<Work>>>, from: Offset, committed: Offset) -> Self {
        Self { state: Mutex::new(State { next: from, number: 0, live: false }), workers, committed }
    }

    /// The log's writer announces a durable entry.
    pub(crate) fn announce(&self, offset: Offset, entry: Arc<Entry>) {
        let mut state = self.state.lock();
        if !state.live {
            if offset != state.next {
                return;
            }
            state.live = true;
        }
        self.send_entry(&mut state, offset, entry);
    }

    /// The reader thread brings an entry from disk; false when the feed is live and the reader is
    /// no longer needed.
    pub(crate) fn replay(&self, offset: Offset, entry: Arc<Entry>) -> bool {
        let mut state = self.state.lock();
        if state.live || offset != state.next {
            return false;
        }
        self.send_entry(&mut state, offset, entry);
        true
    }

    /// The offset that is expected next, and whether the feed is live.
    pub(crate) fn next(&self) -> (Offset, bool) {
        let state = self.state.lock();
        (state.next, state.live)
    }

    /// Puts a checkpoint's marker before the next entry; gives the position that it stands at.
    pub(crate) fn mark(
        &self,
        task: impl FnOnce(Offset) -> Arc<CheckpointTask>,
    ) -> Arc<CheckpointTask> {
        let mut state = self.state.lock();
        let task = task(state.next);
        self.send(&mut state, WorkKind::Checkpoint(Arc::clone(&task)));
        task
    }

    fn send_entry(&self, state: &mut State, offset: Offset, entry: Arc<Entry>) {
        state.next = offset.next();
        let flight = InFlight {
            offset,
            entry,
            full: offset >= self.committed,
            since: Instant::now(),
            routing: OnceLock::new(),
            results: Mutex::new(Results::default()),
        };
        self.send(state, WorkKind::Entry(flight));
    }

    fn send(&self, state: &mut State, kind: WorkKind) {
        let work = Work::new(state.number, self.workers.len(), kind);
        state.number += 1;
        for worker in &self.workers {
            // A worker that is gone has reported why; the process is stopping.
            let _ = worker.send(Arc::clone(&work));
        }
    }
}
