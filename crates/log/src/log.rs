//! The log as its users see it.

use crate::codec::Encoded;
use crate::disk::Disk;
use crate::error::LogError;
use crate::reader::LogReader;
use crate::recovery::{Recovery, Segment, clear_away, recover};
use crate::segment::{path_of, spare_path_of};
use crate::stats::LogStats;
use crate::writer::Writer;
use palisade_event::{Entry, Offset};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What can be chosen about a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOptions {
    /// The log's id if it is made now: a random number, so that no bytes from outside can look like its
    /// frames. An existing log keeps its own.
    pub log_id: u128,
    /// A segment file is closed when it has reached this size.
    pub segment_bytes: u64,
    /// How much may wait for its fsync, counted as stored bytes plus bytes in memory.
    pub max_queued_bytes: usize,
    /// The shortest time from one group of appends to the next while load goes on, so that a small frame does
    /// not cost an fsync of its own. The first append after a pause never waits.
    pub group_commit_max_wait: Duration,
    /// Below this many free bytes appends are refused; `None` is the larger of 2 GiB and 2 % of the disk.
    pub min_free_bytes: Option<u64>,
    /// How often free space is looked up (also after every 64 MiB appended).
    pub space_check_interval: Duration,
    /// How many of the newest bytes are verified at open; what is older is verified when it is read.
    pub checked_bytes_at_open: u64,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            log_id: 0,
            segment_bytes: 64 << 20,
            max_queued_bytes: 64 << 20,
            group_commit_max_wait: Duration::from_millis(2),
            min_free_bytes: None,
            space_check_interval: Duration::from_secs(1),
            checked_bytes_at_open: 4 << 30,
        }
    }
}

/// At most so many trimmed files wait to be used again, and not more than were begun since the last trim.
const MOST_SPARES: usize = 32;

/// Called once, on the writer's thread, when the entry is durable or will never be. It must be quick, must not
/// panic and must not wait for another append.
pub type Done = Box<dyn FnOnce(Result<Offset, LogError>) + Send>;

/// Called on the writer's thread with each durable entry, in offset order. While it waits, nothing more is
/// written: that is the backpressure.
pub type Deliver = Box<dyn FnMut(Offset, Arc<Entry>) + Send>;

/// An append that was not taken by [`Log::try_append`], to be tried again or given up.
pub struct Refused {
    /// Why.
    pub error: LogError,
    /// What was to be appended.
    pub encoded: Encoded,
    /// What was to be called; it was not.
    pub done: Done,
}

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused").field("error", &self.error).finish_non_exhaustive()
    }
}

/// What [`Log::retain`] keeps at least.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Entries younger than this are kept.
    pub max_age: Option<Duration>,
    /// This many bytes are kept.
    pub max_bytes: Option<u64>,
}

/// The durable log of one directory. Share it in an `Arc`; dropping the last one closes it.
pub struct Log {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// One trim at a time.
    trimming: Mutex<()>,
    _lock: Box<dyn Send + Sync>,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("dir", &self.shared.dir).finish_non_exhaustive()
    }
}

/// What appenders, the writer and readers share.
pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    pub(crate) log_id: u128,
    pub(crate) options: LogOptions,
    pub(crate) state: Mutex<State>,
    /// Something for the writer to do.
    pub(crate) work: Condvar,
    /// Room in the queue, or no hope of any.
    pub(crate) room: Condvar,
}

pub(crate) struct Queued {
    pub(crate) entry: Arc<Entry>,
    pub(crate) encoded: Encoded,
    pub(crate) done: Done,
}

/// What the writer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// It does not.
    No,
    /// The first append of a group.
    First,
    /// The end of the pause between groups, or a queue that is half full.
    Pause,
}

pub(crate) struct State {
    pub(crate) queue: VecDeque<Queued>,
    /// Weight of the queue and of the group being written.
    pub(crate) weight: usize,
    pub(crate) waiting: Waiting,
    pub(crate) closing: bool,
    pub(crate) poisoned: Option<String>,
    pub(crate) durable_end: Offset,
    /// Oldest first; the last one's length is that of its durable part.
    pub(crate) segments: VecDeque<Segment>,
    /// Trimmed files that wait to be used again, with the length of each.
    pub(crate) spares: Vec<(PathBuf, u64)>,
    /// Files that were begun since files were trimmed last: about as many will be needed until the next time.
    pub(crate) begun: usize,
    pub(crate) new_subscribers: Vec<Deliver>,
    pub(crate) stats: LogStats,
    space_checked: Option<Instant>,
    bytes_since_check: usize,
    /// Free and needed bytes while the disk is low.
    low: Option<(u64, u64)>,
}

impl Shared {
    /// Whether appends are taken at all now.
    fn admit(&self, state: &mut State) -> Result<(), LogError> {
        if let Some(reason) = &state.poisoned {
            return Err(LogError::Poisoned { reason: reason.clone() });
        }
        if state.closing {
            return Err(LogError::Closed);
        }
        let due = state.bytes_since_check >= 64 << 20
            || state
                .space_checked
                .is_none_or(|at| at.elapsed() >= self.options.space_check_interval);
        if due {
            state.space_checked = Some(Instant::now());
            state.bytes_since_check = 0;
            state.low = self.lacks_space();
            if state.low.is_some() && !state.spares.is_empty() {
                // Room that waits to be used again is no reason to refuse anything.
                for (path, _) in std::mem::take(&mut state.spares) {
                    if let Err(error) = clear_away(&*self.disk, &path) {
                        tracing::warn!(file = %path.display(), %error, "a spare file stays until the next start");
                    }
                }
                state.low = self.lacks_space();
            }
        }
        match state.low {
            Some((free, needed)) => {
                state.stats.refused += 1;
                Err(LogError::DiskLow { free, needed })
            }
            None => Ok(()),
        }
    }

    /// Free and needed bytes when the first are fewer. If the system cannot tell, a write will.
    fn lacks_space(&self) -> Option<(u64, u64)> {
        let space = self.disk.space(&self.dir).ok()?;
        let needed = self.options.min_free_bytes.unwrap_or((2 << 30).max(space.total / 50));
        (space.free < needed).then_some((space.free, needed))
    }

    fn push(&self, state: &mut State, queued: Queued) {
        let weight = queued.encoded.weight();
        state.weight += weight;
        state.bytes_since_check += queued.encoded.stored_bytes();
        state.queue.push_back(queued);
        let wake = match state.waiting {
            Waiting::No => false,
            Waiting::First => true,
            Waiting::Pause => state.weight >= self.options.max_queued_bytes / 2,
        };
        if wake {
            self.work.notify_one();
        }
    }

    fn has_room(&self, state: &State, encoded: &Encoded) -> bool {
        state.weight == 0 || state.weight + encoded.weight() <= self.options.max_queued_bytes
    }

    /// Stops the log for good and fails everything that waits.
    pub(crate) fn poison(&self, reason: &str, group: impl IntoIterator<Item = Queued>) {
        let (reason, waiting) = {
            let mut state = self.state.lock();
            let reason = state.poisoned.get_or_insert_with(|| reason.to_owned()).clone();
            state.weight = 0;
            (reason, std::mem::take(&mut state.queue))
        };
        tracing::error!(dir = %self.dir.display(), reason, "the log is poisoned");
        self.room.notify_all();
        self.work.notify_all();
        for queued in group.into_iter().chain(waiting) {
            (queued.done)(Err(LogError::Poisoned { reason: reason.clone() }));
        }
    }
}

impl Log {
    /// Opens the log of a directory, or makes one, and starts its writer.
    ///
    /// `committed` is the catalog's committed position: entries below it are known to be durable (L2, L3).
    ///
    /// # Errors
    /// [`LogError::Corrupt`] when what is proven durable is damaged; [`LogError::PositionOutside`];
    /// [`LogError::Version`]; [`LogError::InUse`]; [`LogError::Io`].
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: LogOptions,
        committed: Option<Offset>,
    ) -> Result<(Self, Recovery), LogError> {
        let (log, writer, recovery) = Self::open_stopped(disk, dir, options, committed)?;
        let thread = std::thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(LogError::io("start the writer of", dir))?;
        *log.writer.lock() = Some(thread);
        Ok((log, recovery))
    }

    /// Opens the log without a thread: whoever holds the writer drives it.
    pub(crate) fn open_stopped(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: LogOptions,
        committed: Option<Offset>,
    ) -> Result<(Self, Writer, Recovery), LogError> {
        disk.create_dir_all(dir).map_err(LogError::io("make", dir))?;
        let path = dir.join("lock");
        let lock = disk.lock(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => LogError::InUse { dir: dir.to_owned() },
            _ => LogError::io("lock", &path)(error),
        })?;
        let recovered =
            recover(&*disk, dir, options.log_id, options.checked_bytes_at_open, committed)?;
        if let Some(cut) = &recovered.report.cut {
            tracing::warn!(file = %cut.file.display(), byte = cut.byte, bytes = cut.bytes,
                reason = cut.reason, "cut a torn tail off the log");
        }
        let state = State {
            queue: VecDeque::new(),
            weight: 0,
            waiting: Waiting::No,
            closing: false,
            poisoned: None,
            durable_end: recovered.end.next,
            segments: recovered.segments,
            spares: Vec::new(),
            begun: 0,
            new_subscribers: Vec::new(),
            stats: LogStats::default(),
            space_checked: None,
            bytes_since_check: 0,
            low: None,
        };
        let shared = Arc::new(Shared {
            disk,
            dir: dir.to_owned(),
            log_id: recovered.log_id,
            options,
            state: Mutex::new(state),
            work: Condvar::new(),
            room: Condvar::new(),
        });
        let clock = recovered.report.clock;
        let writer = Writer::new(Arc::clone(&shared), recovered.file, recovered.end, clock);
        let log = Self { shared, writer: Mutex::new(None), trimming: Mutex::new(()), _lock: lock };
        Ok((log, writer, recovered.report))
    }

    /// Hands an entry to the writer; waits while the queue is full. `done` is called when the entry is durable.
    /// Entries get offsets in the order in which this returns. On an error `done` is not called.
    ///
    /// # Errors
    /// [`LogError::Poisoned`], [`LogError::DiskLow`], [`LogError::Closed`].
    pub fn append(&self, entry: Arc<Entry>, encoded: Encoded, done: Done) -> Result<(), LogError> {
        let mut state = self.shared.state.lock();
        loop {
            self.shared.admit(&mut state)?;
            if self.shared.has_room(&state, &encoded) {
                self.shared.push(&mut state, Queued { entry, encoded, done });
                return Ok(());
            }
            self.shared.room.wait(&mut state);
        }
    }

    /// As [`Log::append`], but refuses with [`LogError::Busy`] instead of waiting, and gives back what it
    /// was given.
    ///
    /// # Errors
    /// Those of [`Log::append`], and [`LogError::Busy`].
    pub fn try_append(
        &self,
        entry: Arc<Entry>,
        encoded: Encoded,
        done: Done,
    ) -> Result<(), Box<Refused>> {
        let mut state = self.shared.state.lock();
        let error = match self.shared.admit(&mut state) {
            Ok(()) if self.shared.has_room(&state, &encoded) => {
                self.shared.push(&mut state, Queued { entry, encoded, done });
                return Ok(());
            }
            Ok(()) => LogError::Busy { queued: state.weight },
            Err(error) => error,
        };
        Err(Box::new(Refused { error, encoded, done }))
    }

    /// Appends one entry and waits until it is durable.
    ///
    /// # Errors
    /// Those of [`Log::append`], of [`crate::encode`], and [`LogError::DiskFull`].
    pub fn append_and_wait(&self, entry: Entry) -> Result<Offset, LogError> {
        let encoded = crate::codec::encode(&entry)?;
        let (send, receive) = std::sync::mpsc::sync_channel(1);
        let done = Box::new(move |result| {
            // The receiver waits below.
            let _ = send.send(result);
        });
        self.append(Arc::new(entry), encoded, done)?;
        receive.recv().unwrap_or(Err(LogError::Closed))
    }

    /// Has every entry from the returned offset on delivered, after its fsync and after the `done` of every
    /// entry of its group. What stands before that offset is for [`Log::read`]: no gap, nothing twice.
    pub fn subscribe(&self, deliver: Deliver) -> Offset {
        let mut state = self.shared.state.lock();
        state.new_subscribers.push(deliver);
        state.durable_end
    }

    /// One past the newest entry that is known to be durable.
    #[must_use]
    pub fn durable_end(&self) -> Offset {
        self.shared.state.lock().durable_end
    }

    /// The oldest entry kept.
    #[must_use]
    pub fn start(&self) -> Offset {
        self.shared.start()
    }

    /// The random number that was given to the log when it was made.
    #[must_use]
    pub fn id(&self) -> u128 {
        self.shared.log_id
    }

    /// Reads entries in order, beginning with `from`, nothing beyond the durable end (L2). At the end the
    /// iterator says `None`, and goes on later when more was appended.
    ///
    /// # Errors
    /// [`LogError::Trimmed`], [`LogError::BeyondEnd`].
    pub fn read(&self, from: Offset) -> Result<LogReader, LogError> {
        let (start, end) = (self.start(), self.durable_end());
        if from < start {
            return Err(LogError::Trimmed { from, start });
        }
        if from > end {
            return Err(LogError::BeyondEnd { from, end });
        }
        Ok(LogReader::new(Arc::clone(&self.shared), from))
    }

    /// Removes the segment files that hold only entries below `before`, but never the newest; some of
    /// them are kept under another name, to be used again. Returns the bytes that left the log.
    ///
    /// # Errors
    /// [`LogError::Io`] when the oldest file cannot be opened; what fails after that poisons the log.
    pub fn trim(&self, before: Offset) -> Result<u64, LogError> {
        self.remove_while(before, |_, _| true)
    }

    /// As [`Log::trim`], but keeps what the retention says. `now` is the clock in microseconds since the
    /// epoch; `before` is what no commit and no checkpoint needs any more (L3).
    ///
    /// # Errors
    /// As [`Log::trim`].
    pub fn retain(&self, keep: Retention, now: i64, before: Offset) -> Result<u64, LogError> {
        let oldest = keep
            .max_age
            .map(|age| now.saturating_sub(i64::try_from(age.as_micros()).unwrap_or(i64::MAX)));
        self.remove_while(before, |segment, total| {
            oldest.is_none_or(|oldest| segment.clock < oldest)
                && keep.max_bytes.is_none_or(|most| total.saturating_sub(segment.bytes) >= most)
        })
    }

    fn remove_while(
        &self,
        before: Offset,
        goes: impl Fn(&Segment, u64) -> bool,
    ) -> Result<u64, LogError> {
        let _one = self.trimming.lock();
        let mut freed = 0;
        let wanted = {
            let state = self.shared.state.lock();
            state.begun.min(MOST_SPARES)
        };
        loop {
            let oldest = {
                let state = self.shared.state.lock();
                let total = state.segments.iter().map(|segment| segment.bytes).sum();
                match (state.segments.front(), state.segments.get(1)) {
                    (Some(oldest), Some(next)) if next.first <= before && goes(oldest, total) => {
                        *oldest
                    }
                    _ => break,
                }
            };
            let (disk, dir) = (&self.shared.disk, &self.shared.dir);
            let path = path_of(dir, oldest.first);
            // Seen to be there before it counts as gone.
            drop(disk.open(&path, true).map_err(LogError::io("open", &path))?);
            // Emptied before its name goes or durably renamed before it is used again, and one at a time, so that
            // after any failure an old file that is there again cannot be taken for one with a gap behind it.
            let keeps = {
                let mut state = self.shared.state.lock();
                state.segments.pop_front();
                state.low.is_none()
                    && state.spares.len() < wanted
                    && oldest.bytes >= self.shared.options.segment_bytes / 2
            };
            let spare = spare_path_of(dir, oldest.first);
            let removed = if keeps {
                disk.rename(&path, &spare).and_then(|()| disk.sync_dir(dir))
            } else {
                clear_away(&**disk, &path).and_then(|()| disk.sync_dir(dir))
            };
            if let Err(error) = removed {
                let reason = format!("trimming {} failed: {error}", path.display());
                self.shared.poison(&reason, []);
                return Err(LogError::Poisoned { reason });
            }
            if keeps {
                self.shared.state.lock().spares.push((spare, oldest.bytes));
            }
            freed += oldest.bytes;
        }
        if freed > 0 {
            self.give_up_spares(wanted)?;
        }
        Ok(freed)
    }

    /// Removes the spare files beyond those that will be needed, all when the disk is low.
    fn give_up_spares(&self, wanted: usize) -> Result<(), LogError> {
        let surplus = {
            let mut state = self.shared.state.lock();
            state.begun = 0;
            let kept = if state.low.is_some() { 0 } else { wanted.min(state.spares.len()) };
            state.spares.split_off(kept)
        };
        for (path, _) in surplus {
            // It holds nothing that anyone needs: what is left of it is removed when the log is opened.
            clear_away(&*self.shared.disk, &path).map_err(LogError::io("remove", &path))?;
        }
        Ok(())
    }

    /// Figures about the log as it stands.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        let state = self.shared.state.lock();
        LogStats {
            bytes: state.segments.iter().map(|segment| segment.bytes).sum(),
            segments: state.segments.len(),
            start: state.segments.front().map_or(0, |segment| segment.first.0),
            durable_end: state.durable_end.0,
            queued_entries: state.queue.len(),
            queued_bytes: state.weight,
            disk_low: state.low.is_some(),
            poisoned: state.poisoned.is_some(),
            ..state.stats.clone()
        }
    }

    /// Whether a failed write or fsync stopped the log: the process should exit, loudly.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.shared.state.lock().poisoned.is_some()
    }

    /// Takes no more appends, waits until all that were taken are durable and delivered, and stops the
    /// writer. Reading goes on working.
    pub fn close(&self) {
        self.shared.state.lock().closing = true;
        self.shared.work.notify_all();
        self.shared.room.notify_all();
        if let Some(thread) = self.writer.lock().take() {
            // A panic of a callback was reported by the poison already.
            let _ = thread.join();
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    pub(crate) fn start(&self) -> Offset {
        self.state.lock().segments.front().map_or(Offset(0), |segment| segment.first)
    }
}
