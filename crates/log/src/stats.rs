//! Figures about a running log.

use std::time::Duration;

/// Upper bounds of the buckets of [`LogStats::fsync_buckets`], in microseconds; one more bucket holds what
/// took longer.
pub const FSYNC_BUCKETS_MICROS: [u64; 14] = [
    100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
    1_000_000, 5_000_000,
];

/// A snapshot of what the log holds and has done since it was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct LogStats {
    /// Bytes of all segment files.
    pub bytes: u64,
    /// Segment files.
    pub segments: usize,
    /// The oldest entry kept.
    pub start: u64,
    /// One past the newest durable entry.
    pub durable_end: u64,
    /// Entries appended and fsynced.
    pub appended_entries: u64,
    /// Bytes of them, schemas and headers included.
    pub appended_bytes: u64,
    /// Fsyncs of segment files: one for each group of appends.
    pub fsyncs: u64,
    /// How many fsyncs took at most [`FSYNC_BUCKETS_MICROS`], and in the last place longer. Not cumulative.
    pub fsync_buckets: [u64; FSYNC_BUCKETS_MICROS.len() + 1],
    /// Time spent in fsyncs, in microseconds.
    pub fsync_micros: u64,
    /// Entries that wait for their fsync.
    pub queued_entries: usize,
    /// What they count against the queue's bound, in bytes.
    pub queued_bytes: usize,
    /// Appends refused because the disk is low or full.
    pub refused: u64,
    /// Whether appends are refused because the disk is low.
    pub disk_low: bool,
    /// Whether a failed write or fsync stopped the log.
    pub poisoned: bool,
}

impl LogStats {
    pub(crate) fn count_fsync(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = FSYNC_BUCKETS_MICROS.partition_point(|bound| *bound < micros);
        if let Some(count) = self.fsync_buckets.get_mut(bucket) {
            *count += 1;
        }
        self.fsyncs += 1;
        self.fsync_micros = self.fsync_micros.saturating_add(micros);
    }
}
