//! The audit trail: who did what to what, when.
//!
//! Records that wait at the same time share one transaction (and one fsync). When
//! [`Catalog::audit`] returns, the record is on disk; a crash can lose only what had not returned.

use crate::error::CatalogError;
use crate::open::{Catalog, from_sql, to_sql};
use palisade_event::TenantId;
use serde_json::Value;
use std::sync::{Mutex, PoisonError};
use tokio::sync::oneshot;

/// The most records that may wait; beyond it the caller is told to try again.
const MAX_WAITING: usize = 10_000;
/// The longest text of a record's fields, in bytes; of its detail, [`MAX_DETAIL`].
const MAX_TEXT: usize = 1024;
const MAX_DETAIL: usize = 64 << 10;
/// The most records of one page.
const MAX_PAGE: u32 = 1000;

/// One thing that was done.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditRecord {
    /// When, microseconds since the epoch.
    pub time: i64,
    /// Whose data or settings it concerns.
    pub tenant: TenantId,
    /// Who did it: a key's id, `local` for the command line, `system`.
    pub actor: String,
    /// What was done, `resource:verb`, for example `key:revoke`.
    pub action: String,
    /// What it was done to, for example the key's id.
    pub subject: String,
    /// More about it, any JSON.
    pub detail: Value,
    /// The id that the request has in the logs, empty if there was no request.
    pub request_id: String,
}

/// Which records are wanted. Fields that are `None` let all pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Of this tenant.
    pub tenant: Option<TenantId>,
    /// By this actor.
    pub actor: Option<String>,
    /// Of this action.
    pub action: Option<String>,
    /// At or after this time, microseconds since the epoch.
    pub from: Option<i64>,
    /// Before this time.
    pub to: Option<i64>,
}

/// Some records, the newest first.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditPage {
    /// The records.
    pub records: Vec<AuditRecord>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<u64>,
}

/// Records that wait for the next transaction.
#[derive(Debug, Default)]
pub(crate) struct AuditQueue {
    waiting: Mutex<Vec<Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    record: AuditRecord,
    detail: String,
    done: oneshot::Sender<Result<(), CatalogError>>,
}

impl Catalog {
    /// Adds a record to the trail; returns when it is on disk.
    ///
    /// # Errors
    /// [`CatalogError::Invalid`] for texts that are too long (1 KiB, detail 64 KiB),
    /// [`CatalogError::Busy`] when too many wait, and storage errors.
    pub async fn audit(&self, record: AuditRecord) -> Result<(), CatalogError> {
        let texts = [&record.actor, &record.action, &record.subject, &record.request_id];
        if texts.iter().any(|text| text.len() > MAX_TEXT) {
            return Err(CatalogError::invalid("audit record", "use at most 1 KiB a field"));
        }
        let detail = record.detail.to_string();
        if detail.len() > MAX_DETAIL {
            return Err(CatalogError::invalid("audit detail", "use at most 64 KiB of JSON"));
        }
        let (done, answer) = oneshot::channel();
        {
            let mut waiting =
                self.inner.audits.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.len() >= MAX_WAITING {
                return Err(CatalogError::Busy("too many audit records wait".to_owned()));
            }
            waiting.push(Waiting { record, detail, done });
        }
        // A task of its own: a caller that goes away must not take the others' records with it.
        let catalog = self.clone();
        tokio::spawn(async move { catalog.write_audits().await });
        answer.await.unwrap_or_else(|_| {
            Err(CatalogError::Storage("the runtime was shut down before the write".to_owned()))
        })
    }

    /// The trail, the newest first: at most `limit` (at most 1,000) records that pass the filter,
    /// from `cursor` on ([`AuditPage::next`]; `None` for the first page).
    ///
    /// # Errors
    /// Storage errors.
    pub async fn audits(
        &self,
        filter: &AuditFilter,
        cursor: Option<u64>,
        limit: u32,
    ) -> Result<AuditPage, CatalogError> {
        let limit = limit.clamp(1, MAX_PAGE);
        let mut query = sqlx::QueryBuilder::new(
            "SELECT id, time, tenant, actor, action, subject, detail, request_id FROM audits
             WHERE id < ",
        );
        query.push_bind(to_sql(cursor.unwrap_or(i64::MAX.cast_unsigned()), "cursor")?);
        if let Some(tenant) = &filter.tenant {
            query.push(" AND tenant = ").push_bind(tenant.as_str());
        }
        if let Some(actor) = &filter.actor {
            query.push(" AND actor = ").push_bind(actor);
        }
        if let Some(action) = &filter.action {
            query.push(" AND action = ").push_bind(action);
        }
        if let Some(from) = filter.from {
            query.push(" AND time >= ").push_bind(from);
        }
        if let Some(to) = filter.to {
            query.push(" AND time < ").push_bind(to);
        }
        query.push(" ORDER BY id DESC LIMIT ").push_bind(i64::from(limit) + 1);
        let mut connection = self.reader().await?;
        let mut rows: Vec<AuditRow> = query.build_query_as().fetch_all(&mut *connection).await?;
        drop(connection);

        let more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        let next = match rows.last() {
            Some(last) if more => Some(from_sql(last.0, "audit id")?),
            _ => None,
        };
        let records = rows.into_iter().map(from_row).collect::<Result<_, _>>()?;
        Ok(AuditPage { records, next })
    }

    /// Deletes records before `time` (microseconds since the epoch), and of what remains all but
    /// the newest `max_records`. Returns how many were deleted.
    ///
    /// # Errors
    /// Storage errors.
    pub async fn prune_audits(&self, time: i64, max_records: u64) -> Result<u64, CatalogError> {
        let mut transaction = self.begin().await?;
        let old = sqlx::query("DELETE FROM audits WHERE time < ?")
            .bind(time)
            .execute(&mut *transaction)
            .await?;
        let many = sqlx::query(
            "DELETE FROM audits WHERE id <=
                 (SELECT id FROM audits ORDER BY id DESC LIMIT 1 OFFSET ?)",
        )
        .bind(to_sql(max_records, "number of records")?)
        .execute(&mut *transaction)
        .await?;
        self.finish(transaction).await?;
        Ok(old.rows_affected() + many.rows_affected())
    }

    /// Writes what waits. The first of several tasks writes for all, the others find nothing.
    async fn write_audits(&self) {
        let take = || {
            std::mem::take(
                &mut *self.inner.audits.waiting.lock().unwrap_or_else(PoisonError::into_inner),
            )
        };
        let is_empty =
            self.inner.audits.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        if is_empty {
            return;
        }
        // More records come while this one waits for the writer.
        let transaction = self.begin().await;
        let batch = take();
        if batch.is_empty() {
            return;
        }
        let result = match transaction {
            Ok(transaction) => self.insert_audits(transaction, &batch).await,
            Err(error) => Err(error),
        };
        for waiting in batch {
            // A caller that went away does not want the answer.
            let _ = waiting.done.send(result.clone());
        }
    }

    async fn insert_audits(
        &self,
        mut transaction: sqlx::Transaction<'static, sqlx::Sqlite>,
        batch: &[Waiting],
    ) -> Result<(), CatalogError> {
        for Waiting { record, detail, .. } in batch {
            sqlx::query(
                "INSERT INTO audits (time, tenant, actor, action, subject, detail, request_id)
                 VALUES (?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(record.time)
            .bind(record.tenant.as_str())
            .bind(&record.actor)
            .bind(&record.action)
            .bind(&record.subject)
            .bind(detail)
            .bind(&record.request_id)
            .execute(&mut *transaction)
            .await?;
        }
        self.finish(transaction).await
    }
}

/// id, time, tenant, actor, action, subject, detail, request
type AuditRow = (i64, i64, String, String, String, String, String, String);

fn from_row(row: AuditRow) -> Result<AuditRecord, CatalogError> {
    let (id, time, tenant, actor, action, subject, detail, request_id) = row;
    let damaged = || CatalogError::Damaged(format!("audit record {id}"));
    Ok(AuditRecord {
        time,
        tenant: TenantId::new(&tenant).map_err(|_| damaged())?,
        actor,
        action,
        subject,
        detail: serde_json::from_str(&detail).map_err(|_| damaged())?,
        request_id,
    })
}
