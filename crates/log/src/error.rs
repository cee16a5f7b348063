//! What can go wrong in the log, and what to do about it.

use palisade_event::{ErrorClass, Offset};
use std::io;
use std::path::{Path, PathBuf};

/// Every error of this crate. [`LogError::class`] says what its receiver does with it.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk refused an operation that is not an append (those have names of their own).
    #[error("cannot {action} {}: {source}; look at the disk and its permissions", path.display())]
    Io {
        /// What was tried, as a verb: `open`, `read`, `remove`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Bytes that were proven durable are damaged (L2). Nothing was changed on disk.
    #[error(
        "log file {} is damaged at byte {byte}, before the proven durable end (entry {}): {reason}; restore the file from a copy, or move the log directory away to start without what it holds",
        file.display(), offset.0
    )]
    Corrupt {
        /// The segment file.
        file: PathBuf,
        /// The byte in the file at which the first bad frame or header begins.
        byte: u64,
        /// The offset that the entry at that place should have.
        offset: Offset,
        /// What is wrong there.
        reason: String,
    },
    /// A segment was written by a release that this one does not know.
    #[error(
        "log file {} has format version {version}; this release reads version {supported}: use the release that wrote it",
        file.display()
    )]
    Version {
        /// The segment file.
        file: PathBuf,
        /// The version that it names.
        version: u32,
        /// The version that this release writes and reads.
        supported: u32,
    },
    /// The catalog's committed position is not within the log (L3): log and catalog are not of the
    /// same time.
    #[error(
        "the catalog's committed position {} is outside the log, which holds [{}, {}): log and catalog are not of the same time; restore both from one copy",
        position.0, start.0, end.0
    )]
    PositionOutside {
        /// What the catalog says.
        position: Offset,
        /// The oldest entry kept.
        start: Offset,
        /// One past the newest entry.
        end: Offset,
    },
    /// Another process has the log open.
    #[error("log directory {} is in use by another process; stop that one first", dir.display())]
    InUse {
        /// The log's directory.
        dir: PathBuf,
    },
    /// A write or fsync failed in a way that leaves unknown what is on disk: nothing is taken any more.
    #[error(
        "the log takes no more writes, because {reason}; nothing after the durable end was acknowledged: check the disk, then restart"
    )]
    Poisoned {
        /// The first failure, in words.
        reason: String,
    },
    /// Free space is below the low-water mark. Appends are taken again when it has recovered.
    #[error(
        "disk is low: {free} bytes free, {needed} needed; free some space, ingestion resumes by itself"
    )]
    DiskLow {
        /// Bytes free now.
        free: u64,
        /// The low-water mark in bytes.
        needed: u64,
    },
    /// The disk was full in the middle of a write. What was half written is cut off again; the
    /// entry is not in the log.
    #[error("disk is full, the entry was not stored: {reason}; free some space and send it again")]
    DiskFull {
        /// What the system said.
        reason: String,
    },
    /// The queue is full ([`crate::Log::try_append`] only).
    #[error("the log's queue is full ({queued} bytes wait); try again in a moment")]
    Busy {
        /// Bytes in the queue.
        queued: usize,
    },
    /// The log was closed.
    #[error("the log is closed because the process is stopping; try again after the restart")]
    Closed,
    /// An entry is larger than a frame may be.
    #[error(
        "entry of {bytes} bytes is larger than the log's limit of {limit}: send smaller batches"
    )]
    TooLarge {
        /// The size of the entry.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A batch that Arrow IPC cannot write.
    #[error("cannot encode the batch: {reason}; this is a defect of the decoder that built it")]
    Encode {
        /// What Arrow said.
        reason: String,
    },
    /// A payload whose checksum is right but which cannot be decoded.
    #[error("cannot decode the entry: {reason}")]
    Decode {
        /// What is wrong.
        reason: String,
    },
    /// The entries asked for were trimmed.
    #[error("entry {} was trimmed, the log begins at {}", from.0, start.0)]
    Trimmed {
        /// What was asked for.
        from: Offset,
        /// The oldest entry kept.
        start: Offset,
    },
    /// The entries asked for are not there yet.
    #[error("entry {} is beyond the durable end {}", from.0, end.0)]
    BeyondEnd {
        /// What was asked for.
        from: Offset,
        /// One past the newest durable entry.
        end: Offset,
    },
}

impl LogError {
    /// What the receiver does with it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::DiskLow { .. }
            | Self::DiskFull { .. }
            | Self::Busy { .. }
            | Self::Closed
            | Self::InUse { .. } => ErrorClass::Transient,
            Self::TooLarge { .. }
            | Self::Encode { .. }
            | Self::Trimmed { .. }
            | Self::BeyondEnd { .. } => ErrorClass::Permanent,
            Self::Io { source, .. } if is_full(source) => ErrorClass::Transient,
            Self::Io { .. }
            | Self::Corrupt { .. }
            | Self::Version { .. }
            | Self::PositionOutside { .. }
            | Self::Poisoned { .. }
            | Self::Decode { .. } => ErrorClass::Critical,
        }
    }

    /// Wraps an error of the system with what was tried on which path.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// Whether the system said that there is no room, as against a failing device.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
