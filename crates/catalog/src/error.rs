//! The catalog's errors.

use palisade_event::{ErrorClass, Offset};

/// What went wrong with the catalog itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogError {
    /// The database is locked by another process, the disk is full, or a queue is.
    #[error("catalog is busy ({0}); try again")]
    Busy(String),
    /// SQLite or the disk failed.
    #[error("catalog storage failed: {0}; check the disk and the file's permissions, then restart")]
    Storage(String),
    /// An earlier write failed, so what the disk holds is uncertain (L2).
    #[error("catalog takes no more writes since an earlier one failed; restart to recover")]
    Poisoned,
    /// The file is a database of something else.
    #[error("{0} is not a palisade catalog; name another data directory")]
    Foreign(String),
    /// The database was made by a newer release.
    #[error(
        "catalog has schema version {found}, this release knows {known}; run palisade {release} or newer"
    )]
    Newer {
        /// The version in the database.
        found: u32,
        /// The version that this release knows.
        known: u32,
        /// The release that brought the version in the database.
        release: String,
    },
    /// The number of partitions is fixed when the log is made (P2).
    #[error(
        "catalog was made for {found} partitions, the configuration says {expected}; set it back to {found}"
    )]
    Partitions {
        /// The number in the database.
        found: u16,
        /// The number that was asked for.
        expected: u16,
    },
    /// What is stored cannot be read.
    #[error("catalog content is damaged: {0}; restore the catalog from a backup")]
    Damaged(String),
    /// There is no such thing.
    #[error("there is no {what} '{name}'; list them to see the names")]
    Unknown {
        /// What kind of thing.
        what: &'static str,
        /// The name that was asked for.
        name: String,
    },
    /// It exists already.
    #[error("{what} '{name}' exists already; choose another name")]
    Exists {
        /// What kind of thing.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A value is out of its bounds.
    #[error("{what} is not acceptable: {reason}")]
    Invalid {
        /// Which value.
        what: &'static str,
        /// Why, and what would be accepted.
        reason: String,
    },
}

impl CatalogError {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Busy(_) => ErrorClass::Transient,
            Self::Unknown { .. } | Self::Exists { .. } | Self::Invalid { .. } => {
                ErrorClass::Permanent
            }
            Self::Storage(_)
            | Self::Poisoned
            | Self::Foreign(_)
            | Self::Newer { .. }
            | Self::Partitions { .. }
            | Self::Damaged(_) => ErrorClass::Critical,
        }
    }

    pub(crate) fn invalid(what: &'static str, reason: impl Into<String>) -> Self {
        Self::Invalid { what, reason: reason.into() }
    }

    /// The error of an insertion: a name that is taken, or whatever else failed.
    pub(crate) fn taken(error: sqlx::Error, what: &'static str, name: &str) -> Self {
        match &error {
            sqlx::Error::Database(database) if database.is_unique_violation() => {
                Self::Exists { what, name: name.to_owned() }
            }
            _ => error.into(),
        }
    }
}

/// SQLite's primary result codes that mean "not now": busy, locked, disk full.
const NOT_NOW: [i32; 3] = [5, 6, 13];

impl From<sqlx::Error> for CatalogError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::PoolTimedOut => Self::Busy("no connection became free".into()),
            sqlx::Error::Database(database) => {
                let code = database.code().and_then(|code| code.parse::<i32>().ok()).unwrap_or(1);
                if NOT_NOW.contains(&(code & 0xff)) {
                    Self::Busy(database.to_string())
                } else {
                    Self::Storage(database.to_string())
                }
            }
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
                Self::Damaged(error.to_string())
            }
            _ => Self::Storage(error.to_string()),
        }
    }
}

/// Why a change of the manifest or the position was refused (M1).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// `from` is not the committed position: something was committed already, or is missing.
    #[error(
        "commit begins at offset {}, the committed position is {}; recover from the catalog's position",
        got.0, expected.0
    )]
    Position {
        /// The committed position.
        expected: Offset,
        /// The commit's `from`.
        got: Offset,
    },
    /// Another process owns the partition now.
    #[error("ownership epoch {got} is stale, the partition belongs to {current}; stop this writer")]
    Stale {
        /// The partition's epoch; 0 when the caller's epoch is nobody's.
        current: u64,
        /// The caller's epoch.
        got: u64,
    },
    /// These segments are not pending under the caller's epoch with that table and path.
    #[error(
        "segments {0:?} were not registered as pending by this writer; register before writing"
    )]
    NotPending(Vec<u64>),
    /// These segments are not live any more.
    #[error("segments {0:?} are not live any more; load the manifest and plan again")]
    NotLive(Vec<u64>),
    /// These segments may not be forgotten: they are live, or their writer is alive.
    #[error("segments {0:?} are in use; retire them first")]
    InUse(Vec<u64>),
    /// A checkpoint lies beyond the committed position or before the newest one (M2).
    #[error(
        "checkpoint at offset {} is outside {}..={}; checkpoint what is committed",
        got.0, least.0, most.0
    )]
    Checkpoint {
        /// The newest checkpoint's position.
        least: Offset,
        /// The committed position.
        most: Offset,
        /// The checkpoint's position.
        got: Offset,
    },
    /// The catalog failed, or a value is out of bounds.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

impl CommitError {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Position { .. } | Self::Stale { .. } | Self::NotPending(_) => {
                ErrorClass::Critical
            }
            // A compaction that lost against retention: plan again.
            Self::NotLive(_) => ErrorClass::Transient,
            Self::InUse(_) | Self::Checkpoint { .. } => ErrorClass::Permanent,
            Self::Catalog(error) => error.class(),
        }
    }
}

impl From<sqlx::Error> for CommitError {
    fn from(error: sqlx::Error) -> Self {
        Self::Catalog(error.into())
    }
}

/// Why a key was refused. Tell the client only that it was; the difference is for the audit trail.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// The text has not the form of a key.
    #[error("this is no api key; send one of the form plsd_<id>_<secret>")]
    Malformed,
    /// There is no such key, or the secret is another.
    #[error("api key is unknown; create one with 'palisade key create'")]
    Unknown,
    /// The secret is right, the key was revoked.
    #[error("api key {0} was revoked; create another")]
    Revoked(String),
    /// The secret is right, the key's time is over.
    #[error("api key {0} has expired; create another")]
    Expired(String),
    /// Too many unknown keys were looked up; this says nothing about the key.
    #[error("too many unknown api keys are being tried; try again in a second")]
    Busy,
    /// The catalog failed; this says nothing about the key.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

impl AuthError {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Catalog(error) => error.class(),
            Self::Busy => ErrorClass::Transient,
            _ => ErrorClass::Permanent,
        }
    }
}

impl From<sqlx::Error> for AuthError {
    fn from(error: sqlx::Error) -> Self {
        Self::Catalog(error.into())
    }
}
