//! What a query sees (invariant M3): one manifest version and the in-memory rows beyond that
//! version's position. Never a row twice, never a gap.

use arrow::array::RecordBatch;
use palisade_catalog::SegmentMeta;
use palisade_event::Offset;
use std::path::PathBuf;
use std::sync::Arc;

/// A consistent view of one table. Holding it keeps the files that it names from being deleted.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The table's name.
    pub table: String,
    /// The manifest version.
    pub version: u64,
    /// The committed position of that version: all rows of entries below it are in `segments`.
    pub committed: Offset,
    /// All rows of entries below this offset are in `segments` or `memory`.
    pub visible: Offset,
    /// The live segments, ordered by `min_time`.
    pub segments: Arc<Vec<Arc<SegmentFile>>>,
    /// The batches beyond `committed`, in log order.
    pub memory: Arc<Vec<RecordBatch>>,
}

impl Snapshot {
    /// A table that never had a row.
    #[must_use]
    pub fn empty(table: &str) -> Self {
        Self {
            table: table.to_owned(),
            version: 0,
            committed: Offset(0),
            visible: Offset(0),
            segments: Arc::default(),
            memory: Arc::default(),
        }
    }
}

/// A segment's description and where its file is. The table deletes a retired file only when the
/// last handle to it is gone.
#[derive(Debug)]
pub struct SegmentFile {
    /// As committed.
    pub meta: SegmentMeta,
    /// The absolute path of the Parquet file.
    pub path: PathBuf,
}
