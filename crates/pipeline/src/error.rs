//! What can go wrong in the pipeline.

use crate::recovery::Refusal;
use palisade_event::ErrorClass;

/// An error of the pipeline. Nearly all are critical: the pipeline has no sender to refuse to.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what each is")]
pub enum PipelineError {
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error("the log failed: {0}")]
    Log(#[from] palisade_log::LogError),
    #[error("the tables failed: {0}")]
    Table(#[from] palisade_table::TableError),
    #[error("the catalog failed: {0}")]
    Catalog(#[from] palisade_catalog::CatalogError),
    #[error("the catalog refused: {0}")]
    Commit(#[from] palisade_catalog::CommitError),
    #[error(
        "checkpoint '{path}': {reason}; remove the newest checkpoint directory to fall back to the one before"
    )]
    Checkpoint { path: String, reason: String },
    #[error(transparent)]
    Control(#[from] crate::control::ControlError),
    #[error("the columns of the frame at offset {offset} do not fit together: {source}")]
    Columns { offset: u64, source: arrow::error::ArrowError },
    #[error("{what}: {source}; check the disk and start again")]
    Io { what: String, source: std::io::Error },
    #[error(
        "the thread '{0}' panicked; this is a defect of Palisade, please report it with the log"
    )]
    Panicked(&'static str),
}

impl PipelineError {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Log(error) => error.class(),
            Self::Table(error) => error.class(),
            Self::Catalog(error) => error.class(),
            Self::Commit(error) => error.class(),
            Self::Refused(_)
            | Self::Checkpoint { .. }
            | Self::Control(_)
            | Self::Columns { .. }
            | Self::Io { .. }
            | Self::Panicked(_) => ErrorClass::Critical,
        }
    }
}
