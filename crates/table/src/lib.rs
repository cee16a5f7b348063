//! Tables.

pub mod snapshot;
pub use snapshot::{SegmentFile, Snapshot};
