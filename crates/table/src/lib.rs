//! Tables.

pub mod provider;
pub mod snapshot;
pub use snapshot::{SegmentFile, Snapshot};
