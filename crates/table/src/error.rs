//! What can go wrong in the tables, and what to do about it.

use palisade_event::ErrorClass;
use std::path::PathBuf;

/// An error of the tables.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The disk refused.
    #[error("{action} {}: {source}; free or repair the disk and start again", path.display())]
    Io {
        /// What was tried, for example `write`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file of the table is not there.
    #[error("segment file {} is missing; restore it from a backup, or retire it to go on without its rows", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A file of the table does not hold what was written to it.
    #[error("segment file {} is damaged: {reason}; restore it from a backup, or retire it to go on without its rows", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How it was noticed.
        reason: String,
    },
    /// The catalog refused or could not be reached.
    #[error("catalog: {message}")]
    Catalog {
        /// What the catalog said.
        message: String,
        /// What to do about it.
        class: ErrorClass,
    },
    /// Columns could not be read, merged or encoded.
    #[error("columns of table {table}: {message}")]
    Columns {
        /// The table.
        table: String,
        /// Which column and why.
        message: String,
    },
    /// A call that breaks the protocol of the tables, for example a seal beyond what is visible.
    #[error("protocol: {0}")]
    Protocol(String),
}

impl TableError {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Catalog { class, .. } => *class,
            Self::Missing { .. } | Self::Damaged { .. } => ErrorClass::Permanent,
            Self::Io { .. } | Self::Columns { .. } | Self::Protocol(_) => ErrorClass::Critical,
        }
    }

    /// An I/O error at a path.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    /// A damaged file.
    pub(crate) fn damaged(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self::Damaged { path: path.into(), reason: reason.into() }
    }

    /// A trouble with a table's columns.
    pub(crate) fn columns(table: &str, message: impl std::fmt::Display) -> Self {
        Self::Columns { table: table.to_owned(), message: message.to_string() }
    }
}
