//! Loading files: `palisade ingest PATH…`.
//!
//! Files are recognised by content, not by name: gzip and zstd are unpacked; JSON lines, arrays and
//! concatenated values, syslog and plain text are read; binaries are skipped with a reason. A file is
//! read in parts of at most about 4 MiB, so memory stays flat.
//!
//! Every record of a load has the source `file:<name>` and the domain `load:<hash>` (T2). The domain's start
//! stands in the log before the first record and its end behind the last; a load that breaks off leaves it
//! open, and loading the same files again goes on in it and ends it. A part's idempotency key comes from the file's content up to it (L4): loading the same files again within
//! 24 hours, after a crash for example, doubles nothing, and of a file that grew only the last part
//! and what is new are loaded.

mod read;
pub mod recognise;
pub mod split;
pub mod walk;

use crate::submit::{DomainTurn, Receipt, Submission, Submit, SubmitError};
use crate::syslog::Context;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use palisade_event::{ErrorClass, TenantId};
use read::{Bounds, Chunk, Event};
pub use recognise::Format;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
pub use walk::{Plan, plan};

/// The most different reasons that are kept of a file.
const MAX_REASONS: usize = 100;

/// How files are loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadOptions {
    /// Whose records they become.
    pub tenant: TenantId,
    /// The clock, microseconds since the epoch: for stamps without a year in files without a date.
    pub now: i64,
    /// What the clocks of the files' writers were ahead of UTC, in minutes.
    pub utc_offset_minutes: i32,
    /// How many bytes a part has at least, unless the file ends.
    pub chunk_bytes: usize,
    /// The longest record that is read; JSON may pass it by a block of 256 KiB. The gateway has a bound of
    /// its own.
    pub record_bytes: usize,
    /// How many parts wait for durability at once.
    pub in_flight: usize,
}

impl LoadOptions {
    /// Parts of 4 MiB, records of at most 4 MiB, four parts at once.
    #[must_use]
    pub fn new(tenant: TenantId, now: i64) -> Self {
        Self {
            tenant,
            now,
            utc_offset_minutes: 0,
            chunk_bytes: 4 << 20,
            record_bytes: 4 << 20,
            in_flight: 4,
        }
    }
}

/// How far a load is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// Files that are done.
    pub files_done: usize,
    /// All files.
    pub files_total: usize,
    /// Bytes of the files that were read, as they lie on disk.
    pub bytes_done: u64,
    /// Bytes of all files.
    pub bytes_total: u64,
    /// Records that are durable.
    pub accepted: u64,
    /// Records that were refused.
    pub refused: u64,
    /// The file that is being read.
    pub path: &'a Path,
}

/// What became of a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileReport {
    /// Which.
    pub path: PathBuf,
    /// Its size on disk.
    pub bytes: u64,
    /// What it was recognised as.
    pub format: Option<Format>,
    /// Records that are durable.
    pub accepted: u64,
    /// Records that were refused.
    pub refused: u64,
    /// Why, and how many for each reason; at most 100 reasons, the rest under `other reasons`.
    pub reasons: BTreeMap<String, u64>,
    /// Parts that had been loaded before.
    pub repeated: u64,
    /// Why it, or the rest of it, was not read.
    pub skipped: Option<String>,
}

impl FileReport {
    fn refuse(&mut self, count: u64, reason: &str) {
        self.refused += count;
        let room = self.reasons.len() < MAX_REASONS || self.reasons.contains_key(reason);
        let reason = if room { reason } else { "other reasons" };
        *self.reasons.entry(reason.to_owned()).or_default() += count;
    }

    fn take(&mut self, receipt: &Receipt) {
        self.accepted += receipt.accepted;
        self.repeated += u64::from(receipt.repeated);
        for (_, reason) in &receipt.rejected {
            self.refuse(1, reason);
        }
        let unlisted = receipt.rejected_total.saturating_sub(receipt.rejected.len() as u64);
        if unlisted > 0 {
            self.refuse(unlisted, "other reasons");
        }
    }
}

/// What became of a load.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LoadReport {
    /// The domain of all its records.
    pub domain: String,
    /// All files, those that were skipped among them.
    pub files: Vec<FileReport>,
}

impl LoadReport {
    /// Records that are durable.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.files.iter().map(|file| file.accepted).sum()
    }

    /// Records that were refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.files.iter().map(|file| file.refused).sum()
    }
}

/// Why a load ended early.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A path that does not exist.
    #[error("'{path}': {source}")]
    NoSuchPath {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Too many files.
    #[error("there are over {most} files: load fewer at once")]
    TooMany {
        /// The bound.
        most: usize,
    },
    /// The gateway takes no more; the report tells what is durable.
    #[error("{error}; what was taken is durable, load the same paths again to go on")]
    Submit {
        /// Why.
        error: SubmitError,
        /// So far.
        report: Box<LoadReport>,
    },
}

impl LoadError {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::NoSuchPath { .. } | Self::TooMany { .. } => ErrorClass::Permanent,
            Self::Submit { error, .. } => error.class(),
        }
    }
}

/// Loads files and tells about each part that is done.
///
/// # Errors
/// [`LoadError::Submit`].
pub async fn load(
    plan: Plan,
    submit: &dyn Submit,
    options: &LoadOptions,
    progress: &mut (dyn FnMut(&Progress<'_>) + Send),
) -> Result<LoadReport, LoadError> {
    let mut load = Load::new(&plan, options);
    if let Err(error) = load.turn(submit, DomainTurn::Starts).await {
        return Err(LoadError::Submit { error, report: Box::new(load.report) });
    }
    let count = Arc::clone(&load.count);
    let bounds = Bounds { chunk: options.chunk_bytes.max(1), record: options.record_bytes.max(1) };
    let context = Context { now: options.now, utc_offset_minutes: options.utc_offset_minutes };
    let (sender, mut events) = mpsc::channel(1);
    let files = plan.files.clone();
    let reader = tokio::task::spawn_blocking(move || {
        for (number, file) in files.iter().enumerate() {
            let mut emit = |event| sender.blocking_send((number, Some(event))).is_ok();
            read::read(file, &context, bounds, &count, &mut emit);
            if sender.blocking_send((number, None)).is_err() {
                return;
            }
        }
    });
    let mut waiting = FuturesUnordered::new();
    let mut open = true;
    while open || !waiting.is_empty() {
        tokio::select! {
            biased;
            Some((number, result)) = waiting.next(), if !waiting.is_empty() => {
                if let Err(error) = load.done(number, result) {
                    return Err(LoadError::Submit { error, report: Box::new(load.report) });
                }
            }
            event = events.recv(), if open && waiting.len() < options.in_flight.max(1) => {
                match event {
                    None => open = false,
                    Some((number, Some(Event::Chunk(chunk)))) => {
                        let submission = load.submission(number, chunk, &plan);
                        waiting.push(async move { (number, until_taken(submit, submission).await) });
                    }
                    Some((number, event)) => load.note(number, event),
                }
            }
        }
        load.tell(progress);
    }
    // A reader that panicked has said so; its file is reported as far as it came.
    let _ = reader.await;
    // Everything is durable, so the end stands behind all of it.
    if let Err(error) = load.turn(submit, DomainTurn::Ends).await {
        return Err(LoadError::Submit { error, report: Box::new(load.report) });
    }
    load.report.files.extend(plan.skipped.into_iter().map(|(path, reason)| FileReport {
        path,
        skipped: Some(reason),
        ..FileReport::default()
    }));
    Ok(load.report)
}

struct Load<'a> {
    options: &'a LoadOptions,
    domain: Arc<str>,
    sources: Vec<Arc<str>>,
    report: LoadReport,
    count: Arc<AtomicU64>,
    files_done: usize,
    current: usize,
    bytes_total: u64,
    accepted: u64,
    refused: u64,
}

impl<'a> Load<'a> {
    fn new(plan: &Plan, options: &'a LoadOptions) -> Self {
        let files = plan.files.iter().map(|file| FileReport {
            path: file.path.clone(),
            bytes: file.bytes,
            ..FileReport::default()
        });
        Self {
            options,
            domain: Arc::from(plan.domain.as_str()),
            sources: plan.files.iter().map(|file| source(&file.path)).collect(),
            report: LoadReport { domain: plan.domain.clone(), files: files.collect() },
            count: Arc::default(),
            files_done: 0,
            current: 0,
            bytes_total: plan.bytes(),
            accepted: 0,
            refused: 0,
        }
    }

    /// Starts or ends the domain; a load without a file has none.
    async fn turn(&self, submit: &dyn Submit, turn: DomainTurn) -> Result<(), SubmitError> {
        while !self.sources.is_empty() {
            let domain = Arc::clone(&self.domain);
            match submit.turn_domain(self.options.tenant.clone(), domain, turn).await {
                Err(SubmitError::Busy { retry_after_ms }) => wait(retry_after_ms).await,
                other => return other,
            }
        }
        Ok(())
    }

    fn submission(&mut self, number: usize, chunk: Chunk, plan: &Plan) -> Submission {
        self.current = number;
        let source = self.sources.get(number).map_or_else(
            || source(&plan.files.get(number).map_or_else(PathBuf::new, |file| file.path.clone())),
            Arc::clone,
        );
        Submission {
            tenant: self.options.tenant.clone(),
            source,
            domain: Some(Arc::clone(&self.domain)),
            key: Some(chunk.key),
            body: chunk.body,
            peer: None,
        }
    }

    fn note(&mut self, number: usize, event: Option<Event>) {
        self.current = number;
        let Some(file) = self.report.files.get_mut(number) else { return };
        match event {
            None => self.files_done += 1,
            Some(Event::Format(format)) => file.format = Some(format),
            Some(Event::Skipped(reason)) => file.skipped = Some(reason),
            Some(Event::Refused(count, reason)) => {
                file.refuse(count, &reason);
                self.refused += count;
            }
            Some(Event::Chunk(_)) => {}
        }
    }

    fn done(
        &mut self,
        number: usize,
        result: Result<Receipt, SubmitError>,
    ) -> Result<(), SubmitError> {
        let Some(file) = self.report.files.get_mut(number) else { return Ok(()) };
        match result {
            Ok(receipt) => {
                file.take(&receipt);
                self.accepted += receipt.accepted;
                self.refused += receipt.rejected_total;
            }
            // The part is refused, not the load.
            Err(
                error @ (SubmitError::Invalid(_)
                | SubmitError::TooLarge { .. }
                | SubmitError::KeyConflict),
            ) => {
                file.refuse(1, &format!("a whole part: {error}"));
                self.refused += 1;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn tell(&self, progress: &mut (dyn FnMut(&Progress<'_>) + Send)) {
        let path = self.report.files.get(self.current).map_or(Path::new(""), |file| &file.path);
        progress(&Progress {
            files_done: self.files_done,
            files_total: self.sources.len(),
            bytes_done: self.count.load(Ordering::Relaxed).min(self.bytes_total),
            bytes_total: self.bytes_total,
            accepted: self.accepted,
            refused: self.refused,
            path,
        });
    }
}

/// `file:<name>`, at most 128 bytes.
fn source(path: &Path) -> Arc<str> {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let mut end = name.len().min(123);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    Arc::from(format!("file:{}", name.get(..end).unwrap_or_default()))
}

async fn until_taken(submit: &dyn Submit, submission: Submission) -> Result<Receipt, SubmitError> {
    loop {
        match submit.submit(submission.clone()).await {
            Err(SubmitError::Busy { retry_after_ms }) => wait(retry_after_ms).await,
            other => return other,
        }
    }
}

async fn wait(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds.clamp(1, 2000))).await;
}
