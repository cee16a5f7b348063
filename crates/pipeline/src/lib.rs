//! The engine between log and tables: partition workers, the ordered finisher, commit and
//! checkpoint protocol, and recovery.
//!
//! The log is the truth; everything here is a deterministic function of it. Nothing in this crate
//! but [`clock`] reads a clock for anything that can change a result; `Instant` serves metrics and the
//! pacing of commits only, and where a commit falls is invisible in the rows (I3, M3).

pub mod activate;
pub mod alerts;
pub mod backfill;
mod checkpoint;
pub mod clock;
mod committer;
pub mod control;
pub mod detectors;
mod engine;
pub mod error;
mod feed;
mod finisher;
mod flow;
pub mod hunt;
pub mod indicators;
pub mod ledger;
pub mod live;
pub mod metrics;
pub mod priority;
pub mod recovery;
pub mod rules;
mod worker;

pub use committer::CommitOptions;
pub use engine::{Engine, EngineOptions, Foundations, Progress};
pub use error::PipelineError;
