//! Tables: what the pipeline writes and queries read.
//!
//! A table is the rows in memory beyond the committed position ([`memory`]) and segments, immutable
//! Parquet files ([`segment`]) with an entity index beside each ([`index`]). [`Tables`] takes rows in
//! log order, seals them ([`seal`]), keeps segments in shape ([`maintain`], [`compact`],
//! [`retention`]), and hands out consistent snapshots (M3). The catalog knows which segments are live
//! ([`commits`]). With the feature `provider`, the module of that name is the table as SQL reads it.

pub mod commits;
mod commits_catalog;
pub mod compact;
mod encode;
pub mod error;
pub mod index;
pub mod kind;
pub mod maintain;
mod memory;
mod merge;
pub mod open;
mod order;
#[cfg(feature = "provider")]
pub mod provider;
pub mod retention;
pub mod seal;
mod segment;
pub mod snapshot;
pub mod tables;
pub mod verify;

pub use commits::{Commits, MemoryCommits};
pub use compact::CompactionPolicy;
pub use error::TableError;
pub use index::EntityIndex;
pub use kind::Kind;
pub use maintain::MaintenanceReport;
pub use open::OpenReport;
pub use retention::RetentionRule;
pub use seal::SealReport;
pub use snapshot::{SegmentFile, Snapshot};
pub use tables::{TableOptions, Tables, Uncommitted};
pub use verify::{VerifiedSegment, verify, verify_segment};
