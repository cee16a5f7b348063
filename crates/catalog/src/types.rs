//! What the catalog keeps, as plain values.

use palisade_event::Offset;
use serde::{Deserialize, Serialize};

/// One column of a segment, for planning without opening the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentColumn {
    /// The column's name.
    pub name: String,
    /// Its type: `bool`, `i32`, `i64`, `u64`, `f32`, `f64`, `text`, `json`, `timestamp`, `binary`, `list`.
    pub kind: String,
}

/// One immutable file of a table, as committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentMeta {
    /// Unique within the catalog, given when the file was registered as pending.
    pub id: u64,
    /// The table: `events`, `alerts`, `dead_letters`.
    pub table: String,
    /// The file's path, relative to the data directory, with `/` between parts.
    pub path: String,
    /// Rows in the file.
    pub rows: u64,
    /// Bytes on disk, the index beside the file included.
    pub bytes: u64,
    /// The least `time` in it, microseconds since the epoch.
    pub min_time: i64,
    /// The greatest `time` in it.
    pub max_time: i64,
    /// The tenants that have rows in it, sorted.
    pub tenants: Vec<String>,
    /// The rows come from log entries above this offset's predecessor …
    pub from: Offset,
    /// … and below this one (exclusive).
    pub to: Offset,
    /// 0 as sealed from memory; a merge is one above the highest of its inputs.
    pub level: u32,
    /// The columns that it has.
    pub columns: Vec<SegmentColumn>,
    /// XXH3-64 of the whole file, for `palisade table verify`.
    pub checksum: u64,
}

/// A commit (invariant M1): the segments that hold the rows of log entries `from ≤ offset < to`,
/// made visible in one transaction with the new position.
#[derive(Debug, Clone, PartialEq)]
pub struct Commit {
    /// The partition whose position moves; 0 for the embedded log, which is one for all partitions.
    pub partition: u16,
    /// The first offset that is new; refused unless it is the committed position.
    pub from: Offset,
    /// The new committed position: the first offset that is not in a table yet.
    pub to: Offset,
    /// The ownership epoch of the writer; refused when it is stale.
    pub epoch: u64,
    /// The segments written for the interval, of all tables; each was registered as pending.
    pub segments: Vec<SegmentMeta>,
}

/// A checkpoint (invariant M2): where a file holds the operators' state as it was before the entry
/// at `position`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// As in [`Commit`].
    pub partition: u16,
    /// The state is that after all entries below this offset.
    pub position: Offset,
    /// The file, relative to the data directory.
    pub path: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// XXH3-64 of the file.
    pub checksum: u64,
}

/// One version of a table's list of segments (invariant M3).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Manifest {
    /// Grows by one with every change.
    pub version: u64,
    /// The committed position at this version.
    pub position: Offset,
    /// All live segments of all tables, by id.
    pub segments: Vec<SegmentMeta>,
}

/// A file that was announced and is not committed (invariant M3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingSegment {
    /// The segment's id.
    pub id: u64,
    /// The table that it was meant for.
    pub table: String,
    /// The file's path, relative to the data directory; the file need not exist.
    pub path: String,
    /// The ownership epoch of its writer.
    pub epoch: u64,
}

/// A file that no manifest from `version` on names. It may be deleted when no snapshot of an older
/// version is in use; then its row is forgotten (M1: catalog first, deletion later).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetiredSegment {
    /// The segment's id.
    pub id: u64,
    /// The table that it belonged to.
    pub table: String,
    /// The file's path, relative to the data directory.
    pub path: String,
    /// The first manifest version without it.
    pub version: u64,
}
