//! Checkpoints of operator state (M2): the newest two of a partition are kept.
//!
//! Deletion is two-phase (M1): [`Catalog::record_checkpoint`] retires the older ones and returns all
//! that are retired; when their files are gone, [`Catalog::forget_checkpoints`] deletes the rows. A
//! crash in between only means that they are returned again.

use crate::error::{CatalogError, CommitError};
use crate::identity::partition_row;
use crate::open::{Catalog, from_sql, to_sql};
use crate::segments::check_path;
use crate::types::Checkpoint;
use palisade_event::Offset;

impl Catalog {
    /// Records a checkpoint whose file is written and fsynced, and returns those whose files may be
    /// deleted now: all but the newest two.
    ///
    /// # Errors
    /// [`CommitError::Stale`] when the partition has another owner, [`CommitError::Checkpoint`] when
    /// its position is above the committed one (S ≤ T) or below that of the newest checkpoint, and
    /// storage errors; nothing has changed then.
    pub async fn record_checkpoint(
        &self,
        checkpoint: Checkpoint,
        epoch: u64,
    ) -> Result<Vec<Checkpoint>, CommitError> {
        check_path(&checkpoint.path)?;
        let mut transaction = self.begin().await?;
        let (current, most) = partition_row(&mut transaction, checkpoint.partition).await?;
        if epoch != current || current == 0 {
            return Err(CommitError::Stale { current, got: epoch });
        }
        let newest: Option<i64> = sqlx::query_scalar(
            "SELECT max(position) FROM checkpoints WHERE partition = ? AND retired = 0",
        )
        .bind(checkpoint.partition)
        .fetch_one(&mut *transaction)
        .await?;
        let least = Offset(from_sql(newest.unwrap_or(0), "position")?);
        if checkpoint.position < least || checkpoint.position > most {
            return Err(CommitError::Checkpoint { least, most, got: checkpoint.position });
        }
        sqlx::query(
            "INSERT INTO checkpoints (partition, position, path, bytes, checksum, epoch)
             VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(checkpoint.partition)
        .bind(to_sql(checkpoint.position.0, "position")?)
        .bind(&checkpoint.path)
        .bind(to_sql(checkpoint.bytes, "byte count")?)
        .bind(checkpoint.checksum.cast_signed())
        .bind(to_sql(epoch, "epoch")?)
        .execute(&mut *transaction)
        .await
        .map_err(|error| CatalogError::taken(error, "checkpoint", &checkpoint.path))?;
        sqlx::query(
            "UPDATE checkpoints SET retired = 1 WHERE partition = ?1 AND retired = 0 AND id NOT IN
                 (SELECT id FROM checkpoints WHERE partition = ?1 ORDER BY id DESC LIMIT 2)",
        )
        .bind(checkpoint.partition)
        .execute(&mut *transaction)
        .await?;
        let rows: Vec<CheckpointRow> = sqlx::query_as(
            "SELECT partition, position, path, bytes, checksum FROM checkpoints
             WHERE partition = ? AND retired = 1 ORDER BY id",
        )
        .bind(checkpoint.partition)
        .fetch_all(&mut *transaction)
        .await?;
        let retired = rows.into_iter().map(from_row).collect::<Result<_, _>>()?;
        self.finish(transaction).await?;
        Ok(retired)
    }

    /// The newest checkpoint of a partition.
    ///
    /// # Errors
    /// Storage errors.
    pub async fn latest_checkpoint(
        &self,
        partition: u16,
    ) -> Result<Option<Checkpoint>, CatalogError> {
        Ok(self.checkpoints(partition).await?.into_iter().next())
    }

    /// The kept checkpoints of a partition, at most two, the newest first. The log may be trimmed up
    /// to the position of the last one (L3): when the newest file is damaged, the other serves.
    ///
    /// # Errors
    /// Storage errors.
    pub async fn checkpoints(&self, partition: u16) -> Result<Vec<Checkpoint>, CatalogError> {
        let mut connection = self.reader().await?;
        let rows: Vec<CheckpointRow> = sqlx::query_as(
            "SELECT partition, position, path, bytes, checksum FROM checkpoints
             WHERE partition = ? AND retired = 0 ORDER BY id DESC",
        )
        .bind(partition)
        .fetch_all(&mut *connection)
        .await?;
        rows.into_iter().map(from_row).collect()
    }

    /// Deletes the rows of retired checkpoints whose files are gone, by path.
    ///
    /// # Errors
    /// Storage errors. Paths that are unknown or not retired stay as they are.
    pub async fn forget_checkpoints(&self, paths: &[String]) -> Result<(), CatalogError> {
        if paths.is_empty() {
            return Ok(());
        }
        let mut transaction = self.begin().await?;
        for path in paths {
            sqlx::query("DELETE FROM checkpoints WHERE path = ? AND retired = 1")
                .bind(path)
                .execute(&mut *transaction)
                .await?;
        }
        self.finish(transaction).await
    }
}

/// partition, position, path, bytes, checksum
type CheckpointRow = (i64, i64, String, i64, i64);

fn from_row(row: CheckpointRow) -> Result<Checkpoint, CatalogError> {
    let (partition, position, path, bytes, checksum) = row;
    Ok(Checkpoint {
        partition: u16::try_from(partition)
            .map_err(|_| CatalogError::Damaged(format!("partition {partition}")))?,
        position: Offset(from_sql(position, "position")?),
        path,
        bytes: from_sql(bytes, "byte count")?,
        checksum: checksum.cast_unsigned(),
    })
}
