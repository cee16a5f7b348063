//! What the log and its writers are called: the log's id, the number of partitions, the epochs of
//! gateways (I1) and of partitions' owners (M1).

use crate::error::{CatalogError, CommitError};
use crate::open::{Catalog, OpenOptions, from_sql};
use palisade_event::Offset;
use sqlx::{Connection, SqliteConnection};
use std::fmt;

/// The id of the log that this catalog describes: 128 random bits, made with the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LogId(pub [u8; 16]);

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl Catalog {
    /// The id of the log.
    #[must_use]
    pub fn log_id(&self) -> LogId {
        self.inner.log_id
    }

    /// The number of partitions, fixed when the log was made (P2).
    #[must_use]
    pub fn partitions(&self) -> u16 {
        self.inner.partitions
    }

    /// The epoch of this life of a gateway, from 1: one more than at its last start (I1).
    ///
    /// # Errors
    /// Storage errors; [`CatalogError::Invalid`] after 2^32 starts.
    pub async fn next_gateway_epoch(&self, region: u16, gateway: u16) -> Result<u32, CatalogError> {
        let mut transaction = self.begin().await?;
        let epoch: i64 = sqlx::query_scalar(
            "INSERT INTO gateways (region, gateway, epoch) VALUES (?, ?, 1)
             ON CONFLICT (region, gateway) DO UPDATE SET epoch = epoch + 1 RETURNING epoch",
        )
        .bind(region)
        .bind(gateway)
        .fetch_one(&mut *transaction)
        .await?;
        let epoch = u32::try_from(epoch)
            .map_err(|_| CatalogError::invalid("gateway epoch", "use another gateway number"))?;
        self.finish(transaction).await?;
        Ok(epoch)
    }

    /// Takes ownership of a partition: returns its new epoch, which is above every epoch that any
    /// partition ever had. From then on the writer before is refused ([`CommitError::Stale`]).
    ///
    /// # Errors
    /// [`CatalogError::Unknown`] for a partition that does not exist, and storage errors.
    pub async fn claim_partition(&self, partition: u16) -> Result<u64, CatalogError> {
        match self.claim(partition, None).await {
            Ok(epoch) => Ok(epoch),
            Err(CommitError::Catalog(error)) => Err(error),
            Err(other) => Err(CatalogError::Storage(other.to_string())),
        }
    }

    /// Takes ownership of a partition only if its epoch is still `seen`: of several processes that
    /// saw the same epoch, one succeeds.
    ///
    /// # Errors
    /// [`CommitError::Stale`] when another was faster, and those of [`Catalog::claim_partition`].
    pub async fn claim_partition_from(
        &self,
        partition: u16,
        seen: u64,
    ) -> Result<u64, CommitError> {
        self.claim(partition, Some(seen)).await
    }

    /// The ownership epoch of a partition; 0 when it never had an owner.
    ///
    /// # Errors
    /// [`CatalogError::Unknown`] for a partition that does not exist, and storage errors.
    pub async fn epoch(&self, partition: u16) -> Result<u64, CatalogError> {
        let mut connection = self.reader().await?;
        Ok(partition_row(&mut connection, partition).await?.0)
    }

    /// The committed position of a partition: the first offset that is in no table yet.
    ///
    /// # Errors
    /// [`CatalogError::Unknown`] for a partition that does not exist, and storage errors.
    pub async fn position(&self, partition: u16) -> Result<Offset, CatalogError> {
        let mut connection = self.reader().await?;
        Ok(partition_row(&mut connection, partition).await?.1)
    }

    async fn claim(&self, partition: u16, seen: Option<u64>) -> Result<u64, CommitError> {
        let mut transaction = self.begin().await?;
        let (current, _) = partition_row(&mut transaction, partition).await?;
        if let Some(seen) = seen
            && seen != current
        {
            return Err(CommitError::Stale { current, got: seen });
        }
        // One counter for all partitions: an epoch alone says whose it is.
        let epoch = next_number(&mut transaction, "ownership_epoch", 1).await?;
        sqlx::query("UPDATE partitions SET epoch = ? WHERE partition = ?")
            .bind(epoch)
            .bind(partition)
            .execute(&mut *transaction)
            .await?;
        self.finish(transaction).await?;
        Ok(from_sql(epoch, "ownership epoch")?)
    }
}

/// Epoch and position of a partition.
pub(crate) async fn partition_row(
    connection: &mut SqliteConnection,
    partition: u16,
) -> Result<(u64, Offset), CatalogError> {
    let row: Option<(i64, i64)> =
        sqlx::query_as("SELECT epoch, position FROM partitions WHERE partition = ?")
            .bind(partition)
            .fetch_optional(connection)
            .await?;
    let Some((epoch, position)) = row else {
        return Err(CatalogError::Unknown { what: "partition", name: partition.to_string() });
    };
    Ok((from_sql(epoch, "ownership epoch")?, Offset(from_sql(position, "position")?)))
}

/// Takes `count` numbers from a counter and returns the last.
pub(crate) async fn next_number(
    connection: &mut SqliteConnection,
    name: &'static str,
    count: u32,
) -> Result<i64, CatalogError> {
    Ok(sqlx::query_scalar("UPDATE counters SET value = value + ? WHERE name = ? RETURNING value")
        .bind(count)
        .bind(name)
        .fetch_one(connection)
        .await?)
}

/// Reads the identity, or makes it in a new database.
pub(crate) async fn establish(
    connection: &mut SqliteConnection,
    expected: Option<u16>,
) -> Result<(LogId, u16), CatalogError> {
    if let Some(found) = read(connection).await? {
        return check(found, expected);
    }
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    if let Some(found) = read(&mut transaction).await? {
        transaction.rollback().await?;
        return check(found, expected);
    }
    let mut log_id = [0; 16];
    fill_random(&mut log_id)?;
    let partitions = expected.unwrap_or(OpenOptions::DEFAULT_PARTITIONS);
    sqlx::query("INSERT INTO identity (only_row, log_id, partitions) VALUES (1, ?, ?)")
        .bind(log_id.as_slice())
        .bind(partitions)
        .execute(&mut *transaction)
        .await?;
    for partition in 0..partitions {
        sqlx::query("INSERT INTO partitions (partition, epoch, position) VALUES (?, 0, 0)")
            .bind(partition)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok((LogId(log_id), partitions))
}

/// Random bytes of the operating system.
pub(crate) fn fill_random(bytes: &mut [u8]) -> Result<(), CatalogError> {
    getrandom::fill(bytes).map_err(|error| CatalogError::Storage(format!("no randomness: {error}")))
}

async fn read(connection: &mut SqliteConnection) -> Result<Option<(LogId, u16)>, CatalogError> {
    let row: Option<(Vec<u8>, i64)> = sqlx::query_as("SELECT log_id, partitions FROM identity")
        .fetch_optional(connection)
        .await?;
    row.map(|(log_id, partitions)| {
        let damaged = || CatalogError::Damaged("identity".to_owned());
        Ok((
            LogId(log_id.try_into().map_err(|_| damaged())?),
            u16::try_from(partitions).map_err(|_| damaged())?,
        ))
    })
    .transpose()
}

fn check(found: (LogId, u16), expected: Option<u16>) -> Result<(LogId, u16), CatalogError> {
    match expected {
        Some(expected) if expected != found.1 => {
            Err(CatalogError::Partitions { found: found.1, expected })
        }
        _ => Ok(found),
    }
}
