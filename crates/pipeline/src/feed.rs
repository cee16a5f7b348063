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
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

#[derive(Debug)]
struct State {
    next: Offset,
    number: u64,
    live: bool,
}

/// The single place at which work gets its number.
///
/// Whoever sends holds the lock while a worker's queue is full, and workers may be waiting for the
/// committer to make room (M4). So the committer must never wait here: it reads the position
/// without the lock, and its marker is only placed when that needs no waiting.
#[derive(Debug)]
pub(crate) struct Feed {
    state: Mutex<State>,
    position: AtomicU64,
    workers: Vec<Sender<Arc<Work>>>,
    committed: Offset,
}

impl Feed {
    /// A feed that expects the entry at `from` next; entries below `committed` renew state only.
    pub(crate) fn new(workers: Vec<Sender<Arc<Work>>>, from: Offset, committed: Offset) -> Self {
        Self {
            state: Mutex::new(State { next: from, number: 0, live: false }),
            position: AtomicU64::new(from.0),
            workers,
            committed,
        }
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

    /// The offset that is expected next, without waiting.
    pub(crate) fn position(&self) -> Offset {
        Offset(self.position.load(Ordering::Acquire))
    }

    /// Puts a checkpoint's marker before the next entry, which is its position; `None` when that
    /// would mean to wait.
    pub(crate) fn mark(
        &self,
        task: impl FnOnce(Offset) -> Arc<CheckpointTask>,
    ) -> Option<Arc<CheckpointTask>> {
        let mut state = self.state.try_lock()?;
        // Only the holder of the lock sends, so a queue that has room now keeps it.
        if self.workers.iter().any(Sender::is_full) {
            return None;
        }
        let task = task(state.next);
        self.send(&mut state, WorkKind::Checkpoint(Arc::clone(&task)));
        Some(task)
    }

    fn send_entry(&self, state: &mut State, offset: Offset, entry: Arc<Entry>) {
        state.next = offset.next();
        self.position.store(state.next.0, Ordering::Release);
        let flight = Box::new(InFlight {
            offset,
            entry,
            full: offset >= self.committed,
            since: Instant::now(),
            routing: OnceLock::new(),
            results: Mutex::new(Results::default()),
        });
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

#[cfg(test)]
mod tests {
    use super::*;
    use palisade_event::id::GatewayIdentity;

    fn tick(clock: i64) -> Arc<Entry> {
        let gateway = GatewayIdentity { region: 0, gateway: 0, epoch: 1 };
        Arc::new(Entry::Tick { clock, gateway })
    }

    fn offsets(queue: &crossbeam_channel::Receiver<Arc<Work>>) -> Vec<u64> {
        queue
            .try_iter()
            .filter_map(|work| match &work.kind {
                WorkKind::Entry(flight) => Some(flight.offset.0),
                WorkKind::Checkpoint(_) => None,
            })
            .collect()
    }

    #[test]
    fn the_reader_and_the_writer_bring_each_entry_once_and_in_order() {
        let (sender, queue) = crossbeam_channel::bounded(16);
        let feed = Feed::new(vec![sender], Offset(3), Offset(5));
        // Announced while the reader is behind: left for the reader.
        feed.announce(Offset(5), tick(5));
        assert!(feed.replay(Offset(3), tick(3)));
        assert!(feed.replay(Offset(4), tick(4)));
        assert!(feed.replay(Offset(5), tick(5)));
        feed.announce(Offset(6), tick(6));
        assert_eq!(feed.next(), (Offset(7), true));
        // The reader may have read it too; it is no longer needed.
        assert!(!feed.replay(Offset(6), tick(6)));
        assert_eq!(offsets(&queue), vec![3, 4, 5, 6]);
    }

    /// The committer would wait for workers that wait for the committer.
    #[test]
    fn a_marker_never_waits() {
        let (sender, queue) = crossbeam_channel::bounded(1);
        let feed = Feed::new(vec![sender], Offset(0), Offset(0));
        let task = |position| Arc::new(CheckpointTask::new(position, true, 1));
        feed.announce(Offset(0), tick(0));
        assert!(feed.mark(task).is_none());
        assert_eq!(offsets(&queue), vec![0]);
        assert_eq!(feed.mark(task).map(|task| task.position), Some(Offset(1)));
        let held = feed.state.lock();
        assert!(feed.mark(task).is_none());
        assert_eq!(feed.position(), Offset(1));
        drop(held);
    }
}
