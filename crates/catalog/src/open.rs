//! Opening the catalog, and its transactions.

use crate::audit::AuditQueue;
use crate::error::CatalogError;
use crate::identity::{self, LogId};
use crate::keys::KeyCache;
use crate::schema::{self, MIGRATIONS};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Sqlite, SqliteConnection, Transaction};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// After how many transactions pages move from the WAL into the database. A commit writes some ten
/// pages, so the WAL stays near 3 MB.
const TRANSACTIONS_PER_CHECKPOINT: u32 = 64;

/// How a catalog is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenOptions {
    /// The number of partitions of the log: 1 to 4,096. Used when the catalog is made, compared
    /// when it exists; `None` takes what is there, and 8 for a new catalog.
    pub partitions: Option<u16>,
    /// Connections that read.
    pub readers: u32,
    /// Whether a missing catalog is made.
    pub create: bool,
    /// How long to wait for another process that writes to the same catalog.
    pub busy_timeout: Duration,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { partitions: None, readers: 4, create: true, busy_timeout: Duration::from_secs(10) }
    }
}

impl OpenOptions {
    /// The number of partitions of a new catalog when none is asked for.
    pub const DEFAULT_PARTITIONS: u16 = 8;
}

/// The catalog. Cheap to clone; all clones share the connections.
#[derive(Debug, Clone)]
pub struct Catalog {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    writer: SqlitePool,
    readers: SqlitePool,
    poisoned: AtomicBool,
    since_checkpoint: AtomicU32,
    pub(crate) log_id: LogId,
    pub(crate) partitions: u16,
    pub(crate) keys: KeyCache,
    pub(crate) audits: AuditQueue,
}

impl Catalog {
    /// Opens or makes the catalog at `path`, and migrates it.
    ///
    /// # Errors
    /// [`CatalogError::Newer`] for a database of a newer release, [`CatalogError::Foreign`] for one
    /// of another program, [`CatalogError::Partitions`] when the log was made with another number
    /// of partitions, and storage errors.
    pub async fn open(path: &Path, options: OpenOptions) -> Result<Self, CatalogError> {
        if options.partitions.is_some_and(|n| !(1..=4096).contains(&n)) {
            return Err(CatalogError::invalid("number of partitions", "use 1 to 4096"));
        }
        if options.create {
            make_private_file(path)?;
        }
        let connect = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(false)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(options.busy_timeout)
            .pragma("trusted_schema", "OFF")
            .pragma("wal_autocheckpoint", "0")
            .pragma("journal_size_limit", "67108864")
            .row_buffer_size(256)
            .disable_statement_logging();

        let writer = pool(1).connect_with(connect.clone()).await?;
        let mut connection = writer.acquire().await?;
        schema::migrate(&mut connection, MIGRATIONS, &path.display().to_string()).await?;
        let (log_id, partitions) = identity::establish(&mut connection, options.partitions).await?;
        drop(connection);
        sync_directory(path)?;
        let readers =
            pool(options.readers.max(1)).connect_with(connect.pragma("query_only", "ON")).await?;
        Ok(Self {
            inner: Arc::new(Inner {
                writer,
                readers,
                poisoned: AtomicBool::new(false),
                since_checkpoint: AtomicU32::new(0),
                log_id,
                partitions,
                keys: KeyCache::default(),
                audits: AuditQueue::default(),
            }),
        })
    }

    /// Moves all pages into the database and closes the connections. Not needed for durability.
    ///
    /// # Errors
    /// Storage errors; the catalog is closed all the same.
    pub async fn close(&self) -> Result<(), CatalogError> {
        let mut result = Ok(());
        if !self.inner.poisoned.load(Ordering::Acquire) {
            match self.inner.writer.acquire().await {
                Ok(mut connection) => result = self.checkpoint_wal(&mut connection).await,
                Err(error) => result = Err(error.into()),
            }
        }
        self.inner.readers.close().await;
        self.inner.writer.close().await;
        result
    }

    /// Reads the whole database and checks its structure, for `palisade doctor`. Takes a second per
    /// gigabyte or so.
    ///
    /// # Errors
    /// [`CatalogError::Damaged`] with SQLite's first findings, and storage errors.
    pub async fn verify(&self) -> Result<(), CatalogError> {
        let mut connection = self.reader().await?;
        let findings: Vec<String> =
            sqlx::query_scalar("PRAGMA integrity_check(10)").fetch_all(&mut *connection).await?;
        if findings.len() == 1 && findings.first().is_some_and(|finding| finding == "ok") {
            return Ok(());
        }
        Err(CatalogError::Damaged(findings.join("; ")))
    }

    /// Begins a transaction that will write; waits for the one before it.
    pub(crate) async fn begin(&self) -> Result<Transaction<'static, Sqlite>, CatalogError> {
        let written = self.inner.since_checkpoint.fetch_add(1, Ordering::Relaxed);
        if written >= TRANSACTIONS_PER_CHECKPOINT {
            self.check_poison()?;
            let mut connection = self.inner.writer.acquire().await?;
            match self.checkpoint_wal(&mut connection).await {
                // A full disk or a busy neighbour: the WAL grows on, the next time will do.
                Ok(()) | Err(CatalogError::Busy(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let transaction = self.inner.writer.begin_with("BEGIN IMMEDIATE").await?;
        // After the wait, because the one before may have failed.
        self.check_poison()?;
        Ok(transaction)
    }

    /// Commits: on return the change is on disk (L3). An error that is not "busy" leaves open what
    /// the disk holds, so nothing is written any more.
    pub(crate) async fn finish(
        &self,
        transaction: Transaction<'static, Sqlite>,
    ) -> Result<(), CatalogError> {
        transaction.commit().await.map_err(|error| self.poison_unless_busy(error.into()))
    }

    fn check_poison(&self) -> Result<(), CatalogError> {
        if self.inner.poisoned.load(Ordering::Acquire) {
            return Err(CatalogError::Poisoned);
        }
        Ok(())
    }

    /// A connection that reads. One statement is one snapshot; several need [`Catalog::snapshot`].
    pub(crate) async fn reader(&self) -> Result<sqlx::pool::PoolConnection<Sqlite>, CatalogError> {
        Ok(self.inner.readers.acquire().await?)
    }

    /// A transaction that only reads: all its statements see one state.
    pub(crate) async fn snapshot(&self) -> Result<Transaction<'static, Sqlite>, CatalogError> {
        Ok(self.inner.readers.begin().await?)
    }

    async fn checkpoint_wal(&self, connection: &mut SqliteConnection) -> Result<(), CatalogError> {
        self.inner.since_checkpoint.store(0, Ordering::Relaxed);
        // PASSIVE waits for nobody: pages that a reader still needs stay for the next time.
        sqlx::raw_sql("PRAGMA wal_checkpoint(PASSIVE)")
            .execute(connection)
            .await
            .map_err(|error| self.poison_unless_busy(error.into()))?;
        Ok(())
    }

    fn poison_unless_busy(&self, error: CatalogError) -> CatalogError {
        if !matches!(error, CatalogError::Busy(_)) {
            self.inner.poisoned.store(true, Ordering::Release);
        }
        error
    }
}

fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .min_connections(1)
        .max_connections(connections)
        .acquire_timeout(Duration::from_secs(30))
        .max_lifetime(None)
        .idle_timeout(None)
        .test_before_acquire(false)
}

/// Makes the file readable by its owner only before SQLite opens it; SQLite gives `-wal` and `-shm`
/// the same mode.
fn make_private_file(path: &Path) -> Result<(), CatalogError> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(storage(path, &error)),
    }
}

/// Makes the names of the files durable.
fn sync_directory(path: &Path) -> Result<(), CatalogError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| storage(directory, &error))
}

fn storage(path: &Path, error: &std::io::Error) -> CatalogError {
    CatalogError::Storage(format!("{}: {error}", path.display()))
}

/// An unsigned number as SQLite stores it.
pub(crate) fn to_sql(value: u64, what: &'static str) -> Result<i64, CatalogError> {
    i64::try_from(value).map_err(|_| CatalogError::invalid(what, "must be below 2^63"))
}

/// The way back.
pub(crate) fn from_sql(value: i64, what: &'static str) -> Result<u64, CatalogError> {
    u64::try_from(value).map_err(|_| CatalogError::Damaged(format!("{what} is {value}")))
}
