//! What became of notifications: how far each receiver has come in the table `alerts`, what waits for
//! another attempt, what was delivered, what was given up (M5).
//!
//! A receiver has one owner, as a partition has (M1): [`Catalog::claim_receiver`] gives an epoch above all earlier ones, and
//! every change by a stale one is refused. [`Catalog::record_pull`] makes, in one transaction, the new place in the table,
//! the notifications that follow from the rows before it, and what deduplication remembers of them: whatever
//! instruction the process dies at, each row is decided about once. [`Catalog::record_attempts`] notes outcomes after the fact, so
//! what was on its way at a crash is sent again with the same key.

use crate::alerts::check_id;
use crate::error::{CatalogError, CommitError};
use crate::identity::next_number;
use crate::open::{Catalog, from_sql, to_sql};
use palisade_event::TenantId;
use sqlx::SqliteConnection;
use std::collections::{BTreeMap, BTreeSet};

/// The longest content of a notification, in bytes.
pub const MAX_CONTENT: usize = 1 << 20;
/// The most notifications or outcomes of one call.
const MAX_AT_ONCE: usize = 10_000;
/// The longest error that is kept, in bytes.
const MAX_ERROR: usize = 1024;

/// A place in the table `alerts`, in the order (position, alert id, revision). The row there was decided about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct AlertCursor {
    /// The row's position.
    pub position: u64,
    /// The alert's id; empty before all alerts of the position.
    pub alert_id: String,
    /// The revision.
    pub revision: u32,
}

/// A receiver that was taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedReceiver {
    /// The epoch of this ownership.
    pub epoch: u64,
    /// Up to where its rows are decided about.
    pub cursor: AlertCursor,
    /// What deduplication and inhibition remember, by key.
    pub memory: BTreeMap<String, String>,
}

/// A notification to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDelivery {
    /// Whose alert.
    pub tenant: TenantId,
    /// The alert's id.
    pub alert_id: String,
    /// The revision.
    pub revision: u32,
    /// What is sent, in the sender's own form; at most 1 MiB.
    pub content: String,
}

/// What follows from some rows of the table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pull {
    /// The last of the rows.
    pub cursor: AlertCursor,
    /// The notifications, in the order of the rows. One that there is already stays as it is.
    pub deliveries: Vec<NewDelivery>,
    /// What is remembered from now on, and what (`None`) no longer.
    pub memory: Vec<(String, Option<String>)>,
    /// How many notifications each silence kept back.
    pub muted: BTreeMap<String, u64>,
}

/// Where a notification stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// It waits for its first or another attempt.
    Pending,
    /// The receiver has it.
    Delivered,
    /// It was given up.
    Dead,
}

/// A notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its number.
    pub id: u64,
    /// To whom.
    pub receiver: String,
    /// Whose alert.
    pub tenant: TenantId,
    /// The alert's id.
    pub alert_id: String,
    /// The revision.
    pub revision: u32,
    /// Where it stands.
    pub state: DeliveryState,
    /// How many attempts were made.
    pub attempts: u32,
    /// When a pending one is tried, microseconds since the epoch.
    pub due: i64,
    /// When it was made.
    pub created_at: i64,
    /// When it last changed.
    pub changed_at: i64,
    /// Why the last attempt failed; empty when none did.
    pub error: String,
    /// What is sent.
    pub content: String,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// The receiver has it.
    Delivered,
    /// It is tried again at this time.
    Again {
        /// Microseconds since the epoch.
        at: i64,
        /// What failed.
        error: String,
    },
    /// It is given up.
    Dead {
        /// What failed.
        error: String,
    },
}

/// Which deliveries are wanted. Fields that are `None` let all pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeliveryFilter {
    /// In this state.
    pub state: Option<DeliveryState>,
    /// To this receiver.
    pub receiver: Option<String>,
    /// About this alert.
    pub alert_id: Option<String>,
}

const COLUMNS: &str = "id, receiver, tenant, alert_id, revision, state, attempts, due, created_at, changed_at, error, content";

impl Catalog {
    /// Takes a receiver over. One that was never seen begins at `start`, so that nobody is told of the past.
    ///
    /// # Errors
    /// [`CatalogError::Invalid`] for a name out of bounds, and storage errors.
    pub async fn claim_receiver(
        &self,
        name: &str,
        start: &AlertCursor,
    ) -> Result<ClaimedReceiver, CatalogError> {
        if name.is_empty() || name.len() > 256 {
            return Err(CatalogError::invalid("receiver", "use 1 to 256 bytes"));
        }
        let mut transaction = self.begin().await?;
        let epoch = next_number(&mut transaction, "ownership_epoch", 1).await?;
        let (position, alert_id, revision): (i64, String, i64) = sqlx::query_as(
            "INSERT INTO receivers (name, epoch, position, alert_id, revision) VALUES (?, ?, ?, ?, ?)
             ON CONFLICT (name) DO UPDATE SET epoch = excluded.epoch
             RETURNING position, alert_id, revision",
        )
        .bind(name)
        .bind(epoch)
        .bind(to_sql(start.position, "position")?)
        .bind(&start.alert_id)
        .bind(start.revision)
        .fetch_one(&mut *transaction)
        .await?;
        let memory: Vec<(String, String)> =
            sqlx::query_as("SELECT key, value FROM receiver_memory WHERE receiver = ?")
                .bind(name)
                .fetch_all(&mut *transaction)
                .await?;
        self.finish(transaction).await?;
        let revision = u32::try_from(revision)
            .map_err(|_| CatalogError::Damaged(format!("cursor of receiver {name}")))?;
        let cursor = AlertCursor { position: from_sql(position, "position")?, alert_id, revision };
        let epoch = from_sql(epoch, "ownership epoch")?;
        Ok(ClaimedReceiver { epoch, cursor, memory: memory.into_iter().collect() })
    }

    /// Up to where a receiver's rows are decided about; `None` when it was never claimed.
    ///
    /// # Errors
    /// Storage errors.
    pub async fn receiver_cursor(&self, name: &str) -> Result<Option<AlertCursor>, CatalogError> {
        let mut connection = self.reader().await?;
        let row = receiver_row(&mut connection, name).await?;
        Ok(row.map(|(_, cursor)| cursor))
    }

    /// Makes what follows from some rows, and moves the cursor behind them.
    ///
    /// # Errors
    /// [`CommitError::Stale`] when another owns the receiver now; [`CatalogError::Invalid`] for a cursor that
    /// would go back, more than 10,000 notifications or content over 1 MiB; storage errors. Nothing has changed then.
    pub async fn record_pull(
        &self,
        receiver: &str,
        epoch: u64,
        pull: &Pull,
        now: i64,
    ) -> Result<(), CommitError> {
        if pull.deliveries.len() > MAX_AT_ONCE {
            return Err(CatalogError::invalid("deliveries", "use at most 10000 at once").into());
        }
        let mut transaction = self.begin().await?;
        let before = owned(&mut transaction, receiver, epoch).await?;
        if pull.cursor < before {
            return Err(CatalogError::invalid("cursor", "it may not go back").into());
        }
        for delivery in &pull.deliveries {
            check_id(&delivery.alert_id)?;
            if delivery.content.len() > MAX_CONTENT {
                return Err(CatalogError::invalid("delivery", "use at most 1 MiB").into());
            }
            sqlx::query(
                "INSERT INTO deliveries (receiver, tenant, alert_id, revision, state, attempts,
                     due, created_at, changed_at, error, content)
                 VALUES (?, ?, ?, ?, 0, 0, ?, ?, ?, '', ?)
                 ON CONFLICT (receiver, tenant, alert_id, revision) DO NOTHING",
            )
            .bind(receiver)
            .bind(delivery.tenant.as_str())
            .bind(&delivery.alert_id)
            .bind(delivery.revision)
            .bind(now)
            .bind(now)
            .bind(now)
            .bind(&delivery.content)
            .execute(&mut *transaction)
            .await?;
        }
        for (key, value) in &pull.memory {
            let query = match value {
                Some(value) => sqlx::query(
                    "INSERT INTO receiver_memory (receiver, key, value) VALUES (?, ?, ?)
                     ON CONFLICT (receiver, key) DO UPDATE SET value = excluded.value",
                )
                .bind(receiver)
                .bind(key)
                .bind(value),
                None => sqlx::query("DELETE FROM receiver_memory WHERE receiver = ? AND key = ?")
                    .bind(receiver)
                    .bind(key),
            };
            query.execute(&mut *transaction).await?;
        }
        for (silence, count) in &pull.muted {
            sqlx::query("UPDATE silences SET muted = muted + ? WHERE id = ?")
                .bind(to_sql(*count, "count")?)
                .bind(silence)
                .execute(&mut *transaction)
                .await?;
        }
        sqlx::query("UPDATE receivers SET position = ?, alert_id = ?, revision = ? WHERE name = ?")
            .bind(to_sql(pull.cursor.position, "position")?)
            .bind(&pull.cursor.alert_id)
            .bind(pull.cursor.revision)
            .bind(receiver)
            .execute(&mut *transaction)
            .await?;
        Ok(self.finish(transaction).await?)
    }

    /// Of these alerts (tenant and id), those about which there is a notification for the receiver.
    ///
    /// # Errors
    /// Storage errors.
    pub async fn told(
        &self,
        receiver: &str,
        alerts: &[(String, String)],
    ) -> Result<BTreeSet<(String, String)>, CatalogError> {
        let mut found = BTreeSet::new();
        let mut connection = self.reader().await?;
        for (tenant, id) in alerts {
            let any: Option<i64> = sqlx::query_scalar(
                "SELECT 1 FROM deliveries WHERE receiver = ? AND tenant = ? AND alert_id = ? LIMIT 1",
            )
            .bind(receiver)
            .bind(tenant)
            .bind(id)
            .fetch_optional(&mut *connection)
            .await?;
            if any.is_some() {
                found.insert((tenant.clone(), id.clone()));
            }
        }
        Ok(found)
    }

    /// The pending notifications of a receiver that are due, in the order in which they were made, at most `limit`. One that is
    /// about a later revision waits for the earlier ones of the same alert.
    ///
    /// # Errors
    /// Storage errors.
    pub async fn due_deliveries(
        &self,
        receiver: &str,
        now: i64,
        limit: u32,
    ) -> Result<Vec<Delivery>, CatalogError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM deliveries AS d
             WHERE state = 0 AND receiver = ? AND due <= ? AND NOT EXISTS
                 (SELECT 1 FROM deliveries AS e WHERE e.state = 0 AND e.receiver = d.receiver
                  AND e.tenant = d.tenant AND e.alert_id = d.alert_id AND e.revision < d.revision)
             ORDER BY due, id LIMIT ?"
        );
        let mut connection = self.reader().await?;
        let rows: Vec<DeliveryRow> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
            .bind(receiver)
            .bind(now)
            .bind(limit)
            .fetch_all(&mut *connection)
            .await?;
        rows.into_iter().map(from_row).collect()
    }

    /// How many notifications of a receiver are pending.
    ///
    /// # Errors
    /// Storage errors.
    pub async fn pending_deliveries(&self, receiver: &str) -> Result<u64, CatalogError> {
        let mut connection = self.reader().await?;
        let count: i64 =
            sqlx::query_scalar("SELECT count(*) FROM deliveries WHERE state = 0 AND receiver = ?")
                .bind(receiver)
                .fetch_one(&mut *connection)
                .await?;
        from_sql(count, "number of deliveries")
    }

    /// Notes how attempts ended, in one transaction. One that is not pending any more stays as it is.
    ///
    /// # Errors
    /// [`CommitError::Stale`] when another owns the receiver now, and storage errors.
    pub async fn record_attempts(
        &self,
        receiver: &str,
        epoch: u64,
        outcomes: &[(u64, AttemptOutcome)],
        now: i64,
    ) -> Result<(), CommitError> {
        if outcomes.is_empty() {
            return Ok(());
        }
        let mut transaction = self.begin().await?;
        owned(&mut transaction, receiver, epoch).await?;
        for (id, outcome) in outcomes {
            let (state, due, error) = match outcome {
                AttemptOutcome::Delivered => (1, now, ""),
                AttemptOutcome::Again { at, error } => (0, *at, error.as_str()),
                AttemptOutcome::Dead { error } => (2, now, error.as_str()),
            };
            sqlx::query(
                "UPDATE deliveries SET state = ?, attempts = attempts + 1, due = ?, error = ?, changed_at = ?
                 WHERE id = ? AND receiver = ? AND state = 0",
            )
            .bind(state)
            .bind(due)
            .bind(cut(error))
            .bind(now)
            .bind(to_sql(*id, "delivery")?)
            .bind(receiver)
            .execute(&mut *transaction)
            .await?;
        }
        Ok(self.finish(transaction).await?)
    }

    /// Some deliveries of a tenant, the newest first: at most `limit` (at most 1,000) below the number `cursor`.
    ///
    /// # Errors
    /// Storage errors.
    pub async fn deliveries(
        &self,
        tenant: &TenantId,
        filter: &DeliveryFilter,
        cursor: Option<u64>,
        limit: u32,
    ) -> Result<Vec<Delivery>, CatalogError> {
        let mut query =
            sqlx::QueryBuilder::new(format!("SELECT {COLUMNS} FROM deliveries WHERE tenant = "));
        query.push_bind(tenant.as_str());
        if let Some(cursor) = cursor {
            query.push(" AND id < ").push_bind(to_sql(cursor, "cursor")?);
        }
        if let Some(state) = filter.state {
            query.push(" AND state = ").push_bind(number(state));
        }
        if let Some(receiver) = &filter.receiver {
            query.push(" AND receiver = ").push_bind(receiver);
        }
        if let Some(alert) = &filter.alert_id {
            query.push(" AND alert_id = ").push_bind(alert);
        }
        query.push(" ORDER BY id DESC LIMIT ").push_bind(limit.clamp(1, 1000));
        let mut connection = self.reader().await?;
        let rows: Vec<DeliveryRow> = query.build_query_as().fetch_all(&mut *connection).await?;
        rows.into_iter().map(from_row).collect()
    }

    /// Makes a dead delivery of a tenant pending again, with all its attempts before it.
    ///
    /// # Errors
    /// [`CatalogError::Unknown`] when the tenant has none of this number, [`CatalogError::Invalid`] when it is not dead,
    /// and storage errors.
    pub async fn retry_delivery(
        &self,
        tenant: &TenantId,
        id: u64,
        now: i64,
    ) -> Result<(), CatalogError> {
        let id = to_sql(id, "delivery")?;
        let mut transaction = self.begin().await?;
        let state: Option<i64> =
            sqlx::query_scalar("SELECT state FROM deliveries WHERE tenant = ? AND id = ?")
                .bind(tenant.as_str())
                .bind(id)
                .fetch_optional(&mut *transaction)
                .await?;
        match state {
            None => {
                return Err(CatalogError::Unknown { what: "delivery", name: id.to_string() });
            }
            Some(2) => {}
            Some(_) => {
                return Err(CatalogError::invalid("delivery", "only a dead one is tried again"));
            }
        }
        // Its patience begins anew.
        sqlx::query(
            "UPDATE deliveries SET state = 0, attempts = 0, due = ?1, created_at = ?1, changed_at = ?1
             WHERE id = ?2",
        )
        .bind(now)
        .bind(id)
        .execute(&mut *transaction)
        .await?;
        self.finish(transaction).await
    }

    /// Deletes delivered and dead notifications that last changed before `time` (microseconds since the epoch), and
    /// of what remains the oldest beyond `most`. Pending ones stay. Returns how many.
    ///
    /// # Errors
    /// Storage errors.
    pub async fn prune_deliveries(&self, time: i64, most: u64) -> Result<u64, CatalogError> {
        let mut transaction = self.begin().await?;
        let old = sqlx::query("DELETE FROM deliveries WHERE state <> 0 AND changed_at < ?")
            .bind(time)
            .execute(&mut *transaction)
            .await?;
        let many = sqlx::query(
            "DELETE FROM deliveries WHERE state <> 0 AND id <=
                 (SELECT id FROM deliveries WHERE state <> 0 ORDER BY id DESC LIMIT 1 OFFSET ?)",
        )
        .bind(to_sql(most, "number of deliveries")?)
        .execute(&mut *transaction)
        .await?;
        self.finish(transaction).await?;
        Ok(old.rows_affected() + many.rows_affected())
    }
}

/// The cursor of a receiver, if this epoch owns it.
async fn owned(
    connection: &mut SqliteConnection,
    receiver: &str,
    epoch: u64,
) -> Result<AlertCursor, CommitError> {
    match receiver_row(connection, receiver).await? {
        Some((current, cursor)) if current == epoch => Ok(cursor),
        Some((current, _)) => Err(CommitError::Stale { current, got: epoch }),
        None => Err(CommitError::Stale { current: 0, got: epoch }),
    }
}

/// Epoch and cursor of a receiver.
async fn receiver_row(
    connection: &mut SqliteConnection,
    receiver: &str,
) -> Result<Option<(u64, AlertCursor)>, CatalogError> {
    let row: Option<(i64, i64, String, i64)> =
        sqlx::query_as("SELECT epoch, position, alert_id, revision FROM receivers WHERE name = ?")
            .bind(receiver)
            .fetch_optional(connection)
            .await?;
    let Some((epoch, position, alert_id, revision)) = row else { return Ok(None) };
    let revision = u32::try_from(revision)
        .map_err(|_| CatalogError::Damaged(format!("cursor of receiver {receiver}")))?;
    let cursor = AlertCursor { position: from_sql(position, "position")?, alert_id, revision };
    Ok(Some((from_sql(epoch, "ownership epoch")?, cursor)))
}

/// At most [`MAX_ERROR`] bytes, whole characters only.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(MAX_ERROR);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

fn number(state: DeliveryState) -> i64 {
    match state {
        DeliveryState::Pending => 0,
        DeliveryState::Delivered => 1,
        DeliveryState::Dead => 2,
    }
}

/// As in [`COLUMNS`].
type DeliveryRow = (i64, String, String, String, i64, i64, i64, i64, i64, i64, String, String);

fn from_row(row: DeliveryRow) -> Result<Delivery, CatalogError> {
    let (
        id,
        receiver,
        tenant,
        alert_id,
        revision,
        state,
        attempts,
        due,
        made,
        changed,
        error,
        content,
    ) = row;
    let damaged = || CatalogError::Damaged(format!("delivery {id}"));
    Ok(Delivery {
        id: from_sql(id, "delivery")?,
        receiver,
        tenant: TenantId::new(&tenant).map_err(|_| damaged())?,
        alert_id,
        revision: u32::try_from(revision).map_err(|_| damaged())?,
        state: match state {
            0 => DeliveryState::Pending,
            1 => DeliveryState::Delivered,
            2 => DeliveryState::Dead,
            _ => return Err(damaged()),
        },
        attempts: u32::try_from(attempts).map_err(|_| damaged())?,
        due,
        created_at: made,
        changed_at: changed,
        error,
        content,
    })
}
