//! Segments and commits (M1, M3, L3).
//!
//! A segment's life: *pending* (its path is known before the file is written) → *live* (a commit or
//! a replacement made it part of the manifest) → *retired* (no newer manifest names it; snapshots
//! may) → forgotten (the file is gone, then the row). A pending segment is an **orphan** when its
//! writer's epoch is dead.
//!
//! Every change of the live segments or of a position raises the manifest version by one. Files and
//! their directories must be fsynced before they are handed to [`Catalog::commit`] or
//! [`Catalog::replace`] (L3).

use crate::error::{CatalogError, CommitError};
use crate::identity::{next_number, partition_row};
use crate::lists::{self, Lists};
use crate::open::{Catalog, from_sql, to_sql};
use crate::types::{Commit, Manifest, PendingSegment, RetiredSegment, SegmentMeta};
use palisade_event::Offset;
use sqlx::SqliteConnection;
use std::collections::{BTreeMap, BTreeSet};

/// The most segments of one call.
const MAX_SEGMENTS: usize = 100_000;
/// The longest path, in bytes.
const MAX_PATH: usize = 1024;

/// Where the file of a segment lies, relative to the data directory, unless the writer says
/// otherwise: `tables/<table>/<id>.parquet`, the id as 16 hexadecimal digits.
#[must_use]
pub fn segment_path(table: &str, id: u64) -> String {
    format!("tables/{table}/{id:016x}.parquet")
}

impl Catalog {
    /// Registers `count` files of a table as pending under [`segment_path`], before they are
    /// written (M3). Returns their ids, ascending; an id is never given twice.
    ///
    /// # Errors
    /// [`CommitError::Stale`] when the epoch is no partition's, and storage errors.
    pub async fn pending_segments(
        &self,
        count: u32,
        table: &str,
        epoch: u64,
    ) -> Result<Vec<u64>, CommitError> {
        self.pending_segments_at(count, table, epoch, |id| segment_path(table, id)).await
    }

    /// As [`Catalog::pending_segments`], with paths of the caller's choice: relative, with `/`
    /// between parts, none of them `.` or `..`.
    ///
    /// # Errors
    /// Those of [`Catalog::pending_segments`], and [`CatalogError::Invalid`] for a bad path.
    pub async fn pending_segments_at(
        &self,
        count: u32,
        table: &str,
        epoch: u64,
        path: impl Fn(u64) -> String + Send,
    ) -> Result<Vec<u64>, CommitError> {
        if count == 0 {
            return Ok(Vec::new());
        }
        check_count(count as usize)?;
        check_table(table)?;
        let mut transaction = self.begin().await?;
        check_epoch(&mut transaction, epoch).await?;
        let last =
            from_sql(next_number(&mut transaction, "segment_id", count).await?, "segment id")?;
        let ids: Vec<u64> = (last + 1 - u64::from(count)..=last).collect();
        for id in &ids {
            let path = path(*id);
            check_path(&path)?;
            sqlx::query(
                "INSERT INTO segments (id, state, table_name, path, epoch) VALUES (?, 0, ?, ?, ?)",
            )
            .bind(to_sql(*id, "segment id")?)
            .bind(table)
            .bind(&path)
            .bind(to_sql(epoch, "epoch")?)
            .execute(&mut *transaction)
            .await
            .map_err(|error| CatalogError::taken(error, "segment", &path))?;
        }
        self.finish(transaction).await?;
        Ok(ids)
    }

    /// Commits an interval of the log (M1): in one transaction its segments become live and the
    /// position moves to `to`. Returns the new manifest version.
    ///
    /// # Errors
    /// [`CommitError::Position`] when `from` is not the committed position, [`CommitError::Stale`]
    /// when the partition has another owner, [`CommitError::NotPending`] for segments that were not
    /// registered with that table and path by this epoch; nothing has changed then.
    pub async fn commit(&self, commit: Commit) -> Result<u64, CommitError> {
        check_count(commit.segments.len())?;
        if commit.to <= commit.from {
            return Err(CatalogError::invalid("commit", "'to' must be above 'from'").into());
        }
        for segment in &commit.segments {
            check_segment(segment)?;
            if segment.from < commit.from || segment.to > commit.to {
                return Err(CatalogError::invalid(
                    "segment",
                    format!("{} is outside the commit's interval", segment.path),
                )
                .into());
            }
        }
        let mut transaction = self.begin().await?;
        let (current, position) = partition_row(&mut transaction, commit.partition).await?;
        if commit.epoch != current || current == 0 {
            return Err(CommitError::Stale { current, got: commit.epoch });
        }
        if commit.from != position {
            return Err(CommitError::Position { expected: position, got: commit.from });
        }
        let version = next_number(&mut transaction, "manifest_version", 1).await?;
        make_live(&mut transaction, &commit.segments, commit.epoch, version).await?;
        sqlx::query("UPDATE partitions SET position = ? WHERE partition = ?")
            .bind(to_sql(commit.to.0, "position")?)
            .bind(commit.partition)
            .execute(&mut *transaction)
            .await?;
        self.finish(transaction).await?;
        Ok(from_sql(version, "manifest version")?)
    }

    /// Replaces live segments by pending ones that hold the same rows (compaction), in one
    /// transaction. Returns the new manifest version. What is added must be of the removed segments'
    /// tables, within the hull of their intervals, and not of more rows (retention may drop some).
    ///
    /// # Errors
    /// [`CommitError::NotLive`] when a segment of `remove` was removed meanwhile: then
    /// [`Catalog::abandon`] what was written. Otherwise as [`Catalog::commit`].
    pub async fn replace(
        &self,
        remove: &[u64],
        add: Vec<SegmentMeta>,
        epoch: u64,
    ) -> Result<u64, CommitError> {
        check_count(remove.len().max(add.len()))?;
        add.iter().try_for_each(check_segment)?;
        let mut transaction = self.begin().await?;
        check_epoch(&mut transaction, epoch).await?;
        let version = next_number(&mut transaction, "manifest_version", 1).await?;
        let removed = make_retired(&mut transaction, remove, version).await?;
        check_replacement(&removed, &add)?;
        make_live(&mut transaction, &add, epoch, version).await?;
        self.finish(transaction).await?;
        Ok(from_sql(version, "manifest version")?)
    }

    /// Takes live segments out of the manifest (retention). Returns the new manifest version.
    ///
    /// # Errors
    /// [`CommitError::NotLive`] when one was removed meanwhile, [`CommitError::Stale`] when the
    /// epoch is no partition's, and storage errors; nothing has changed then.
    pub async fn retire(&self, ids: &[u64], epoch: u64) -> Result<u64, CommitError> {
        self.replace(ids, Vec::new(), epoch).await
    }

    /// Gives up pending segments of this writer, for example of a compaction that came too late:
    /// they are retired, so that their files are deleted like any other.
    ///
    /// # Errors
    /// [`CommitError::NotPending`] when one is not pending under this epoch, and storage errors.
    pub async fn abandon(&self, ids: &[u64], epoch: u64) -> Result<(), CommitError> {
        check_count(ids.len())?;
        let mut transaction = self.begin().await?;
        let mut refused = Vec::new();
        for id in ids {
            let done = sqlx::query(
                "UPDATE segments SET state = 2, removed_version =
                     (SELECT value FROM counters WHERE name = 'manifest_version')
                 WHERE id = ? AND state = 0 AND epoch = ?",
            )
            .bind(to_sql(*id, "segment id")?)
            .bind(to_sql(epoch, "epoch")?)
            .execute(&mut *transaction)
            .await?;
            if done.rows_affected() != 1 {
                refused.push(*id);
            }
        }
        if !refused.is_empty() {
            return Err(CommitError::NotPending(refused));
        }
        Ok(self.finish(transaction).await?)
    }

    /// The segments whose files may be deleted once no snapshot older than their version is in use.
    ///
    /// # Errors
    /// Storage errors.
    pub async fn retired(&self) -> Result<Vec<RetiredSegment>, CatalogError> {
        let mut connection = self.reader().await?;
        let rows: Vec<(i64, String, String, i64)> = sqlx::query_as(
            "SELECT id, table_name, path, removed_version FROM segments WHERE state = 2 ORDER BY id",
        )
        .fetch_all(&mut *connection)
        .await?;
        rows.into_iter()
            .map(|(id, table, path, version)| {
                Ok(RetiredSegment {
                    id: from_sql(id, "segment id")?,
                    table,
                    path,
                    version: from_sql(version, "manifest version")?,
                })
            })
            .collect()
    }

    /// The pending segments whose writer's epoch is dead (M3): nobody will ever commit them.
    ///
    /// # Errors
    /// Storage errors.
    pub async fn orphans(&self) -> Result<Vec<PendingSegment>, CatalogError> {
        let mut connection = self.reader().await?;
        let rows: Vec<(i64, String, String, i64)> = sqlx::query_as(
            "SELECT id, table_name, path, epoch FROM segments
             WHERE state = 0 AND epoch NOT IN (SELECT epoch FROM partitions) ORDER BY id",
        )
        .fetch_all(&mut *connection)
        .await?;
        rows.into_iter()
            .map(|(id, table, path, epoch)| {
                Ok(PendingSegment {
                    id: from_sql(id, "segment id")?,
                    table,
                    path,
                    epoch: from_sql(epoch, "epoch")?,
                })
            })
            .collect()
    }

    /// Deletes the rows of retired segments and orphans, after their files and the directory entry
    /// are gone for good. Ids that are unknown were forgotten already and do no harm.
    ///
    /// # Errors
    /// [`CommitError::InUse`] when one is live or its writer is; nothing has changed then.
    pub async fn forget(&self, ids: &[u64]) -> Result<(), CommitError> {
        check_count(ids.len())?;
        let mut transaction = self.begin().await?;
        let mut refused = Vec::new();
        for id in ids {
            let id_in_sql = to_sql(*id, "segment id")?;
            let deleted = sqlx::query(
                "DELETE FROM segments WHERE id = ? AND (state = 2
                     OR (state = 0 AND epoch NOT IN (SELECT epoch FROM partitions)))",
            )
            .bind(id_in_sql)
            .execute(&mut *transaction)
            .await?;
            if deleted.rows_affected() == 0 {
                let left: Option<i64> = sqlx::query_scalar("SELECT id FROM segments WHERE id = ?")
                    .bind(id_in_sql)
                    .fetch_optional(&mut *transaction)
                    .await?;
                refused.extend(left.map(|_| *id));
            }
        }
        if !refused.is_empty() {
            return Err(CommitError::InUse(refused));
        }
        lists::collect_garbage(&mut transaction).await?;
        Ok(self.finish(transaction).await?)
    }

    /// All live segments by id, with version and position of partition 0, as one consistent state
    /// (M3).
    ///
    /// # Errors
    /// Storage errors, and [`CatalogError::Damaged`] for content that cannot be read.
    pub async fn manifest(&self) -> Result<Manifest, CatalogError> {
        let mut snapshot = self.snapshot().await?;
        let version: i64 =
            sqlx::query_scalar("SELECT value FROM counters WHERE name = 'manifest_version'")
                .fetch_one(&mut *snapshot)
                .await?;
        let (_, position) = partition_row(&mut snapshot, 0).await?;
        let texts: Vec<(i64, String)> =
            sqlx::query_as("SELECT id, content FROM lists").fetch_all(&mut *snapshot).await?;
        let rows: Vec<SegmentRow> = sqlx::query_as(
            "SELECT id, table_name, path, row_count, bytes, min_time, max_time, tenants,
                    from_offset, to_offset, level, columns, checksum
             FROM segments WHERE state = 1 ORDER BY id",
        )
        .fetch_all(&mut *snapshot)
        .await?;
        snapshot.rollback().await?;

        let texts: BTreeMap<i64, String> = texts.into_iter().collect();
        let mut columns = BTreeMap::new();
        let mut tenants = BTreeMap::new();
        let mut segments = Vec::with_capacity(rows.len());
        for row in rows {
            let text = |id: i64| {
                texts.get(&id).ok_or_else(|| CatalogError::Damaged(format!("list {id} is missing")))
            };
            if let std::collections::btree_map::Entry::Vacant(slot) = tenants.entry(row.7) {
                slot.insert(lists::tenants_from_text(text(row.7)?));
            }
            if let std::collections::btree_map::Entry::Vacant(slot) = columns.entry(row.11) {
                slot.insert(lists::columns_from_text(text(row.11)?)?);
            }
            segments.push(SegmentMeta {
                id: from_sql(row.0, "segment id")?,
                table: row.1,
                path: row.2,
                rows: from_sql(row.3, "row count")?,
                bytes: from_sql(row.4, "byte count")?,
                min_time: row.5,
                max_time: row.6,
                tenants: tenants.get(&row.7).cloned().unwrap_or_default(),
                from: Offset(from_sql(row.8, "offset")?),
                to: Offset(from_sql(row.9, "offset")?),
                level: u32::try_from(row.10)
                    .map_err(|_| CatalogError::Damaged(format!("level {}", row.10)))?,
                columns: columns.get(&row.11).cloned().unwrap_or_default(),
                checksum: row.12.cast_unsigned(),
            });
        }
        Ok(Manifest { version: from_sql(version, "manifest version")?, position, segments })
    }
}

/// id, table, path, rows, bytes, min and max time, tenant list, from, to, level, column list,
/// checksum.
type SegmentRow = (i64, String, String, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64);

/// What a removed segment says about its replacement.
struct Removed {
    table: String,
    rows: u64,
    from: Offset,
    to: Offset,
}

async fn make_live(
    connection: &mut SqliteConnection,
    segments: &[SegmentMeta],
    epoch: u64,
    version: i64,
) -> Result<(), CommitError> {
    let mut lists = Lists::default();
    let mut refused = Vec::new();
    for segment in segments {
        let columns = lists.id(connection, lists::columns_to_text(&segment.columns)?).await?;
        let tenants = lists.id(connection, lists::tenants_to_text(&segment.tenants)?).await?;
        let done = sqlx::query(
            "UPDATE segments SET state = 1, added_version = ?, row_count = ?, bytes = ?,
                 min_time = ?, max_time = ?, tenants = ?, from_offset = ?, to_offset = ?, level = ?,
                 columns = ?, checksum = ?
             WHERE id = ? AND state = 0 AND epoch = ? AND table_name = ? AND path = ?",
        )
        .bind(version)
        .bind(to_sql(segment.rows, "row count")?)
        .bind(to_sql(segment.bytes, "byte count")?)
        .bind(segment.min_time)
        .bind(segment.max_time)
        .bind(tenants)
        .bind(to_sql(segment.from.0, "offset")?)
        .bind(to_sql(segment.to.0, "offset")?)
        .bind(segment.level)
        .bind(columns)
        .bind(segment.checksum.cast_signed())
        .bind(to_sql(segment.id, "segment id")?)
        .bind(to_sql(epoch, "epoch")?)
        .bind(&segment.table)
        .bind(&segment.path)
        .execute(&mut *connection)
        .await?;
        if done.rows_affected() != 1 {
            refused.push(segment.id);
        }
    }
    if refused.is_empty() { Ok(()) } else { Err(CommitError::NotPending(refused)) }
}

async fn make_retired(
    connection: &mut SqliteConnection,
    ids: &[u64],
    version: i64,
) -> Result<Vec<Removed>, CommitError> {
    let mut removed = Vec::with_capacity(ids.len());
    let mut refused = Vec::new();
    for id in ids {
        let row: Option<(String, i64, i64, i64)> = sqlx::query_as(
            "UPDATE segments SET state = 2, removed_version = ? WHERE id = ? AND state = 1
             RETURNING table_name, row_count, from_offset, to_offset",
        )
        .bind(version)
        .bind(to_sql(*id, "segment id")?)
        .fetch_optional(&mut *connection)
        .await?;
        match row {
            Some((table, rows, from, to)) => removed.push(Removed {
                table,
                rows: from_sql(rows, "row count")?,
                from: Offset(from_sql(from, "offset")?),
                to: Offset(from_sql(to, "offset")?),
            }),
            None => refused.push(*id),
        }
    }
    if refused.is_empty() { Ok(removed) } else { Err(CommitError::NotLive(refused)) }
}

/// A replacement may not bring rows or offsets that were not there.
fn check_replacement(removed: &[Removed], add: &[SegmentMeta]) -> Result<(), CommitError> {
    for table in add.iter().map(|segment| &segment.table).collect::<BTreeSet<_>>() {
        let old = || removed.iter().filter(|segment| segment.table == *table);
        let new = || add.iter().filter(|segment| segment.table == *table);
        let hull = old().map(|s| s.from).min().zip(old().map(|s| s.to).max());
        let within = hull.is_some_and(|(from, to)| new().all(|s| s.from >= from && s.to <= to));
        // Summed in 128 bits: counts come from outside the catalog.
        let old_rows: u128 = old().map(|s| u128::from(s.rows)).sum();
        let new_rows: u128 = new().map(|s| u128::from(s.rows)).sum();
        if !within || new_rows > old_rows {
            return Err(CatalogError::invalid(
                "replacement",
                format!(
                    "table '{table}' would have rows or offsets that the removed segments lack"
                ),
            )
            .into());
        }
    }
    Ok(())
}

/// The epoch must be a living owner's. Epochs are unique over partitions, 0 is nobody's.
pub(crate) async fn check_epoch(
    connection: &mut SqliteConnection,
    epoch: u64,
) -> Result<(), CommitError> {
    let owner: Option<i64> =
        sqlx::query_scalar("SELECT partition FROM partitions WHERE epoch = ? AND epoch > 0")
            .bind(to_sql(epoch, "epoch")?)
            .fetch_optional(connection)
            .await?;
    owner.map(|_| ()).ok_or(CommitError::Stale { current: 0, got: epoch })
}

fn check_segment(segment: &SegmentMeta) -> Result<(), CommitError> {
    let reason = if segment.from >= segment.to {
        "'to' must be above 'from'"
    } else if segment.min_time > segment.max_time {
        "'min_time' must not be above 'max_time'"
    } else {
        return Ok(());
    };
    Err(CatalogError::invalid("segment", format!("{}: {reason}", segment.path)).into())
}

fn check_count(count: usize) -> Result<(), CatalogError> {
    if count > MAX_SEGMENTS {
        return Err(CatalogError::invalid("number of segments", "use at most 100000 in one call"));
    }
    Ok(())
}

fn check_table(table: &str) -> Result<(), CatalogError> {
    let fits = |c: u8| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'_');
    if table.is_empty() || table.len() > 64 || !table.bytes().all(fits) {
        return Err(CatalogError::invalid("table name", "use 1 to 64 of a-z, 0-9 and '_'"));
    }
    Ok(())
}

/// Refuses paths that could leave the data directory.
pub(crate) fn check_path(path: &str) -> Result<(), CatalogError> {
    let fits = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\\', '\0', ':']);
    if path.len() > MAX_PATH || !path.split('/').all(fits) {
        return Err(CatalogError::invalid(
            "path",
            "use a path below the data directory, at most 1024 bytes, with '/' between its parts",
        ));
    }
    Ok(())
}
