//! The catalog.

pub mod types;
pub use types::{Checkpoint, Commit, Manifest, SegmentColumn, SegmentMeta};
