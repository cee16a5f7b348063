//! The one thread that owns the newest segment file.
//!
//! It takes everything that waits, writes it with one call and one fsync, and only then says so: first `done` of
//! every entry of the group, then the subscribers, both in offset order. What goes wrong:
//! - the disk is full in the middle of a write: the half-written frames are cut off and the cut is fsynced; the
//!   group is refused and everything goes on;
//! - any other failed write, a failed cut or a failed fsync poisons the log (L2).

use crate::codec::Payload;
use crate::disk::DiskFile;
use crate::error::{LogError, is_full};
use crate::format::{END_MARK, FRAME_HEADER_BYTES, FrameHeader, SegmentHeader};
use crate::log::{Deliver, Queued, Shared, Waiting};
use crate::recovery::{Segment, clear_away, create_segment, reuse_segment};
use crate::segment::{Continuation, path_of};
use palisade_event::Offset;
use std::collections::BTreeSet;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Instant;

/// A group is not larger than this, so that acknowledgements keep coming under a backlog.
const GROUP_BYTES: usize = 16 << 20;

pub(crate) struct Writer {
    shared: Arc<Shared>,
    file: Box<dyn DiskFile>,
    /// Where the next frame goes.
    at: Continuation,
    /// First entry of the newest file.
    first: Offset,
    /// Up to this byte the newest file holds frames of an earlier life, 0 if it has none.
    stale_end: u64,
    /// Highest clock of all entries.
    clock: i64,
    /// Schemas that stand in the newest file.
    schemas: BTreeSet<u128>,
    subscribers: Vec<Deliver>,
    last_group: Option<Instant>,
}

/// Why a write did not happen.
enum Failure {
    /// Nothing of it is left on disk.
    Refused(LogError),
    /// What is on disk is unknown.
    Poison(String),
}

/// Fails everything that waits if a callback panics, or else appenders would wait for ever.
struct PoisonOnPanic(Arc<Shared>);

impl Drop for PoisonOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.poison("a callback of the log panicked", []);
        }
    }
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        file: Box<dyn DiskFile>,
        at: Continuation,
        clock: i64,
    ) -> Self {
        let first = shared.state.lock().segments.back().map_or(at.next, |segment| segment.first);
        Self {
            shared,
            file,
            at,
            first,
            stale_end: 0,
            clock,
            schemas: BTreeSet::new(),
            subscribers: Vec::new(),
            last_group: None,
        }
    }

    /// Works until the log is closed or poisoned.
    pub(crate) fn run(mut self) {
        let _guard = PoisonOnPanic(Arc::clone(&self.shared));
        while let Some(group) = self.wait_for_group() {
            self.commit(group);
        }
    }

    /// Commits what waits now, without waiting for more; says whether there was anything.
    #[cfg(test)]
    pub(crate) fn work_once(&mut self) -> bool {
        let group = take_group(&mut self.shared.state.lock());
        let any = !group.is_empty();
        self.commit(group);
        any
    }

    fn wait_for_group(&mut self) -> Option<Vec<Queued>> {
        let options = &self.shared.options;
        let mut state = self.shared.state.lock();
        while state.queue.is_empty() {
            if state.closing || state.poisoned.is_some() {
                return None;
            }
            state.waiting = Waiting::First;
            self.shared.work.wait(&mut state);
        }
        let pause_ends = self.last_group.map(|last| last + options.group_commit_max_wait);
        while let Some(until) = pause_ends
            && !state.closing
            && state.weight < options.max_queued_bytes / 2
        {
            state.waiting = Waiting::Pause;
            if self.shared.work.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        state.waiting = Waiting::No;
        self.last_group = Some(Instant::now());
        Some(take_group(&mut state))
    }

    fn commit(&mut self, group: Vec<Queued>) {
        let mut rest = group;
        while !rest.is_empty() {
            let written = self.roll_if_full().and_then(|()| self.write(&rest));
            match written {
                Ok(count) => {
                    let after = rest.split_off(count);
                    self.publish(std::mem::replace(&mut rest, after));
                }
                Err(Failure::Refused(error)) => {
                    self.refuse(rest, &error);
                    return;
                }
                Err(Failure::Poison(reason)) => {
                    self.shared.poison(&reason, rest);
                    return;
                }
            }
        }
    }

    /// Begins a new segment file when the newest is large enough.
    fn roll_if_full(&mut self) -> Result<(), Failure> {
        let shared = Arc::clone(&self.shared);
        if self.at.byte < shared.options.segment_bytes || self.at.next == self.first {
            return Ok(());
        }
        // All that stands in the old file was fsynced: a group ends with that.
        let header = SegmentHeader {
            previous: self.at.previous,
            first: self.at.next,
            log_id: shared.log_id,
            clock: self.clock,
        };
        // Only the newest file may have anything behind its last frame.
        if self.stale_end > self.at.byte {
            let cut = self.file.truncate(self.at.byte).and_then(|()| self.file.sync());
            cut.map_err(|error| {
                Failure::Poison(format!("a segment file could not be cut to its end: {error}"))
            })?;
        }
        let made = match self.reuse(&header) {
            Some(made) => made,
            None => create_segment(&*shared.disk, &shared.dir, &header).map(|file| (file, 0)),
        };
        match made {
            Ok((file, stale_end)) => {
                self.file = file;
                self.stale_end = stale_end;
                self.first = header.first;
                self.at = Continuation::of(&header);
                self.schemas.clear();
                let segment =
                    Segment { first: header.first, bytes: self.at.byte, clock: self.clock };
                let mut state = shared.state.lock();
                state.segments.push_back(segment);
                state.begun += 1;
                drop(state);
                Ok(())
            }
            Err(error) if is_full(&error) => {
                let path = path_of(&shared.dir, header.first);
                let gone =
                    shared.disk.remove(&path).and_then(|()| shared.disk.sync_dir(&shared.dir));
                match gone {
                    Ok(()) => {
                        Err(Failure::Refused(LogError::DiskFull { reason: error.to_string() }))
                    }
                    Err(again) => Err(Failure::Poison(format!(
                        "a new segment file could not be made ({error}) nor removed ({again})"
                    ))),
                }
            }
            Err(error) => {
                Err(Failure::Poison(format!("a new segment file could not be made: {error}")))
            }
        }
    }

    /// Begins a file in a trimmed one, if one waits and the disk takes it; with it, where its old bytes end.
    fn reuse(&self, header: &SegmentHeader) -> Option<io::Result<(Box<dyn DiskFile>, u64)>> {
        let Shared { disk, dir, state, .. } = &*self.shared;
        let (spare, bytes) = state.lock().spares.pop()?;
        match reuse_segment(&**disk, dir, &spare, header) {
            Ok(file) => Some(Ok((file, bytes))),
            // Where a file system needs room even to overwrite, a new file has a chance.
            Err(error) if is_full(&error) => match clear_away(&**disk, &spare) {
                Ok(()) => None,
                Err(again) => Some(Err(again)),
            },
            Err(error) => Some(Err(error)),
        }
    }

    /// Writes and fsyncs as many of the entries as the newest file takes, at least one; says how many.
    fn write(&mut self, group: &[Queued]) -> Result<usize, Failure> {
        let limit = self.shared.options.segment_bytes;
        let durable_end = self.at.next;
        let mut at = self.at;
        let (mut clock, mut count) = (self.clock, 0);
        let mut new_schemas: BTreeSet<u128> = BTreeSet::new();
        let mut frames: Vec<([u8; FRAME_HEADER_BYTES], &[u8])> =
            Vec::with_capacity(group.len() + 1);
        let log_id = self.shared.log_id;
        let put = |payload: &Payload, entry_clock: i64, at: &mut Continuation| {
            let header = FrameHeader {
                kind: payload.kind,
                codec: payload.codec,
                length: payload.length,
                payload_crc: payload.crc,
                offset: at.next,
                durable_end,
                clock: entry_clock,
                previous: at.previous,
            };
            let (head, crc) = header.encode(log_id);
            at.previous = crc;
            at.byte += (FRAME_HEADER_BYTES + payload.bytes.len()) as u64;
            head
        };
        for queued in group {
            if count > 0 && at.byte >= limit {
                break;
            }
            let encoded = &queued.encoded;
            if let Some(schema) = &encoded.schema
                && !self.schemas.contains(&schema.hash)
                && new_schemas.insert(schema.hash)
            {
                let head = put(&schema.payload, encoded.clock, &mut at);
                frames.push((head, schema.payload.bytes.as_slice()));
            }
            let head = put(&encoded.payload, encoded.clock, &mut at);
            frames.push((head, encoded.payload.bytes.as_slice()));
            at.next = at.next.next();
            clock = clock.max(encoded.clock);
            count += 1;
        }
        let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(frames.len() * 2);
        for (head, payload) in &frames {
            slices.push(IoSlice::new(head));
            slices.push(IoSlice::new(payload));
        }
        if at.byte < self.stale_end {
            slices.push(IoSlice::new(&END_MARK));
        }
        if let Err(error) = self.file.write_all_at(&mut slices, self.at.byte) {
            return Err(self.cut_after(&error));
        }
        let began = Instant::now();
        if let Err(error) = self.file.sync() {
            return Err(Failure::Poison(format!("an fsync of the log failed: {error}")));
        }
        let took = began.elapsed();
        let bytes = at.byte - self.at.byte;
        self.at = at;
        self.clock = clock;
        self.schemas.append(&mut new_schemas);
        let mut state = self.shared.state.lock();
        state.stats.count_fsync(took);
        state.stats.appended_entries += count as u64;
        state.stats.appended_bytes += bytes;
        Ok(count)
    }

    /// A write failed: gets the half-written frames off the disk if it was only full.
    fn cut_after(&mut self, error: &std::io::Error) -> Failure {
        if !is_full(error) {
            return Failure::Poison(format!("a write to the log failed: {error}"));
        }
        self.stale_end = 0;
        match self.file.truncate(self.at.byte).and_then(|()| self.file.sync()) {
            Ok(()) => Failure::Refused(LogError::DiskFull { reason: error.to_string() }),
            Err(again) => Failure::Poison(format!(
                "a write to the log failed ({error}) and could not be undone ({again})"
            )),
        }
    }

    /// The entries are durable: says so to everyone.
    fn publish(&mut self, group: Vec<Queued>) {
        let end = self.at.next;
        let first = Offset(end.0 - group.len() as u64);
        {
            let mut state = self.shared.state.lock();
            // Who subscribed while the durable end was `first` gets everything from there on.
            self.subscribers.append(&mut state.new_subscribers);
            state.durable_end = end;
            if let Some(segment) = state.segments.back_mut() {
                segment.bytes = self.at.byte;
                segment.clock = self.clock;
            }
            let weight: usize = group.iter().map(|queued| queued.encoded.weight()).sum();
            state.weight = state.weight.saturating_sub(weight);
        }
        self.shared.room.notify_all();
        let mut offset = first;
        let mut entries = Vec::with_capacity(group.len());
        for Queued { entry, done, .. } in group {
            done(Ok(offset));
            entries.push((offset, entry));
            offset = offset.next();
        }
        for (offset, entry) in entries {
            for deliver in &mut self.subscribers {
                deliver(offset, Arc::clone(&entry));
            }
        }
    }

    fn refuse(&self, group: Vec<Queued>, error: &LogError) {
        {
            let mut state = self.shared.state.lock();
            let weight: usize = group.iter().map(|queued| queued.encoded.weight()).sum();
            state.weight = state.weight.saturating_sub(weight);
            state.stats.refused += group.len() as u64;
        }
        self.shared.room.notify_all();
        tracing::warn!(%error, entries = group.len(), "the log refused entries");
        for queued in group {
            (queued.done)(Err(LogError::DiskFull { reason: error.to_string() }));
        }
    }
}

fn take_group(state: &mut crate::log::State) -> Vec<Queued> {
    let mut bytes = 0;
    let mut count = 0;
    for queued in &state.queue {
        if count > 0 && bytes >= GROUP_BYTES {
            break;
        }
        bytes += queued.encoded.stored_bytes();
        count += 1;
    }
    state.queue.drain(..count).collect()
}
