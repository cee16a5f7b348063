//! What people decided about alerts, their notes, and silences. Alerts are rows of the table `alerts`;
//! here is their mutable side only, made when an alert is first touched (M1).

use crate::error::CatalogError;
use crate::identity::fill_random;
use crate::open::Catalog;
use palisade_event::TenantId;
use std::collections::BTreeMap;

/// The most alerts of one call.
const MAX_ALERTS: usize = 100_000;
/// The longest reason, comment or name, in bytes; of a note, [`MAX_NOTE`].
const MAX_TEXT: usize = 1024;
const MAX_NOTE: usize = 64 << 10;
/// The most notes of an alert.
const MAX_NOTES: i64 = 1000;
/// The most silences of a tenant that are not over.
const MAX_SILENCES: i64 = 1000;

/// Where an alert stands with the people who look after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertStatus {
    /// Nobody has decided anything.
    #[default]
    New,
    /// Somebody looks at it.
    Acknowledged,
    /// It is done, for a reason.
    Closed,
}

impl AlertStatus {
    fn to_sql(self) -> i64 {
        match self {
            Self::New => 0,
            Self::Acknowledged => 1,
            Self::Closed => 2,
        }
    }

    fn from_sql(value: i64, alert: &str) -> Result<Self, CatalogError> {
        match value {
            0 => Ok(Self::New),
            1 => Ok(Self::Acknowledged),
            2 => Ok(Self::Closed),
            _ => Err(CatalogError::Damaged(format!("status of alert {alert}"))),
        }
    }
}

/// What was last decided about an alert.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AlertState {
    /// Where it stands.
    pub status: AlertStatus,
    /// Why it was closed.
    pub reason: Option<String>,
    /// Who looks after it.
    pub assignee: Option<String>,
    /// Who decided: a key's id, or `local`.
    pub actor: String,
    /// When, microseconds since the epoch.
    pub time: i64,
}

/// A change of an alert's state. What is `None` stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AlertChange {
    /// Where it stands from now on.
    pub status: Option<AlertStatus>,
    /// Why it is closed: needed for that, and only then.
    pub reason: Option<String>,
    /// Who looks after it; `Some(None)`: nobody.
    pub assignee: Option<Option<String>>,
}

/// Something that somebody wrote about an alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertNote {
    /// Its number.
    pub id: i64,
    /// Who wrote it.
    pub actor: String,
    /// When, microseconds since the epoch.
    pub time: i64,
    /// What.
    pub text: String,
}

/// For some time nobody is told of the alerts that fulfil some conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silence {
    /// 32 hexadecimal digits.
    pub id: String,
    /// Whose alerts.
    pub tenant: TenantId,
    /// The conditions, as written; whoever makes one has checked them.
    pub matchers: Vec<String>,
    /// From when on, microseconds since the epoch.
    pub starts_at: i64,
    /// Until before when.
    pub ends_at: i64,
    /// Who made it: a key's id, or `local`.
    pub creator: String,
    /// Why.
    pub comment: String,
    /// When it was made.
    pub created_at: i64,
    /// How many notifications it kept back, of all receivers.
    pub muted: u64,
}

impl Catalog {
    /// Changes the state of an alert of a tenant (an id of 32 hexadecimal digits), and returns what it is now.
    ///
    /// # Errors
    /// [`CatalogError::Invalid`] for a text that is no alert's id, for texts that are too long, for
    /// closing without a reason and a reason without closing; storage errors. Nothing has changed then.
    pub async fn change_alert(
        &self,
        tenant: &TenantId,
        alert_id: &str,
        change: &AlertChange,
        actor: &str,
        now: i64,
    ) -> Result<AlertState, CatalogError> {
        check_id(alert_id)?;
        check_text("actor", actor, MAX_TEXT)?;
        if let Some(reason) = &change.reason {
            check_text("reason", reason, MAX_TEXT)?;
        }
        if let Some(Some(assignee)) = &change.assignee {
            check_text("assignee", assignee, MAX_TEXT)?;
        }
        let mut transaction = self.begin().await?;
        let row: Option<StateRow> = sqlx::query_as(
            "SELECT alert_id, status, reason, assignee, actor, time FROM alert_states
             WHERE tenant = ? AND alert_id = ?",
        )
        .bind(tenant.as_str())
        .bind(alert_id)
        .fetch_optional(&mut *transaction)
        .await?;
        let before = row.map(state_from_row).transpose()?.unwrap_or_default();
        let status = change.status.unwrap_or(before.status);
        let reason = match (change.status, status) {
            (Some(AlertStatus::Closed), _) if change.reason.is_none() => {
                return Err(CatalogError::invalid("reason", "say why the alert is closed"));
            }
            (_, AlertStatus::Closed) => change.reason.clone().or(before.reason),
            _ if change.reason.is_some() => {
                return Err(CatalogError::invalid("reason", "only closing an alert has one"));
            }
            _ => None,
        };
        let assignee = change.assignee.clone().unwrap_or(before.assignee);
        let state = AlertState { status, reason, assignee, actor: actor.to_owned(), time: now };
        sqlx::query(
            "INSERT INTO alert_states (tenant, alert_id, status, reason, assignee, actor, time)
             VALUES (?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (tenant, alert_id) DO UPDATE SET status = excluded.status,
                 reason = excluded.reason, assignee = excluded.assignee,
                 actor = excluded.actor, time = excluded.time",
        )
        .bind(tenant.as_str())
        .bind(alert_id)
        .bind(status.to_sql())
        .bind(&state.reason)
        .bind(&state.assignee)
        .bind(actor)
        .bind(now)
        .execute(&mut *transaction)
        .await?;
        self.finish(transaction).await?;
        Ok(state)
    }

    /// The states of these alerts of a tenant, by id; alerts that nobody touched are missing.
    ///
    /// # Errors
    /// [`CatalogError::Invalid`] for more than 100,000 ids, and storage errors.
    pub async fn alert_states(
        &self,
        tenant: &TenantId,
        ids: &[String],
    ) -> Result<BTreeMap<String, AlertState>, CatalogError> {
        let ids = as_json(ids)?;
        let mut connection = self.reader().await?;
        let rows: Vec<StateRow> = sqlx::query_as(
            "SELECT alert_id, status, reason, assignee, actor, time FROM alert_states
             WHERE tenant = ? AND alert_id IN (SELECT value FROM json_each(?))",
        )
        .bind(tenant.as_str())
        .bind(ids)
        .fetch_all(&mut *connection)
        .await?;
        rows.into_iter()
            .map(|row| {
                let id = row.0.clone();
                Ok((id, state_from_row(row)?))
            })
            .collect()
    }

    /// The ids of a tenant's alerts that have been given one of these statuses, the last changed first, at most
    /// `limit`. Alerts that nobody touched are new and not among them.
    ///
    /// # Errors
    /// Storage errors.
    pub async fn alerts_with_status(
        &self,
        tenant: &TenantId,
        statuses: &[AlertStatus],
        limit: u32,
    ) -> Result<Vec<String>, CatalogError> {
        let statuses: Vec<i64> = statuses.iter().map(|status| status.to_sql()).collect();
        let statuses = serde_json::to_string(&statuses)
            .map_err(|error| CatalogError::invalid("statuses", error.to_string()))?;
        let mut connection = self.reader().await?;
        Ok(sqlx::query_scalar(
            "SELECT alert_id FROM alert_states
             WHERE tenant = ? AND status IN (SELECT value FROM json_each(?))
             ORDER BY time DESC, alert_id LIMIT ?",
        )
        .bind(tenant.as_str())
        .bind(statuses)
        .bind(limit)
        .fetch_all(&mut *connection)
        .await?)
    }

    /// Adds a note to an alert of a tenant.
    ///
    /// # Errors
    /// [`CatalogError::Invalid`] for a text that is no alert's id, an empty note or one over 64 KiB, and for
    /// more than 1,000 notes of one alert; storage errors.
    pub async fn add_alert_note(
        &self,
        tenant: &TenantId,
        alert_id: &str,
        actor: &str,
        now: i64,
        text: &str,
    ) -> Result<AlertNote, CatalogError> {
        check_id(alert_id)?;
        check_text("actor", actor, MAX_TEXT)?;
        check_text("note", text, MAX_NOTE)?;
        let mut transaction = self.begin().await?;
        let count: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM alert_notes WHERE tenant = ? AND alert_id = ?",
        )
        .bind(tenant.as_str())
        .bind(alert_id)
        .fetch_one(&mut *transaction)
        .await?;
        if count >= MAX_NOTES {
            return Err(CatalogError::invalid("note", "an alert has at most 1000 notes"));
        }
        let id: i64 = sqlx::query_scalar(
            "INSERT INTO alert_notes (tenant, alert_id, actor, time, text)
             VALUES (?, ?, ?, ?, ?) RETURNING id",
        )
        .bind(tenant.as_str())
        .bind(alert_id)
        .bind(actor)
        .bind(now)
        .bind(text)
        .fetch_one(&mut *transaction)
        .await?;
        self.finish(transaction).await?;
        Ok(AlertNote { id, actor: actor.to_owned(), time: now, text: text.to_owned() })
    }

    /// The notes of an alert of a tenant, the oldest first.
    ///
    /// # Errors
    /// Storage errors.
    pub async fn alert_notes(
        &self,
        tenant: &TenantId,
        alert_id: &str,
    ) -> Result<Vec<AlertNote>, CatalogError> {
        let mut connection = self.reader().await?;
        let rows: Vec<(i64, String, i64, String)> = sqlx::query_as(
            "SELECT id, actor, time, text FROM alert_notes
             WHERE tenant = ? AND alert_id = ? ORDER BY id",
        )
        .bind(tenant.as_str())
        .bind(alert_id)
        .fetch_all(&mut *connection)
        .await?;
        let note = |(id, actor, time, text)| AlertNote { id, actor, time, text };
        Ok(rows.into_iter().map(note).collect())
    }

    /// Makes a silence and returns it with its id. The conditions are the caller's to check.
    ///
    /// # Errors
    /// [`CatalogError::Invalid`] for texts out of bounds, a silence that ends before it starts, and more
    /// than 1,000 silences of a tenant that are not over; storage errors.
    pub async fn create_silence(&self, silence: Silence) -> Result<Silence, CatalogError> {
        check_text("creator", &silence.creator, MAX_TEXT)?;
        check_text("comment", &silence.comment, MAX_TEXT)?;
        if silence.ends_at <= silence.starts_at {
            return Err(CatalogError::invalid("silence", "it must end after it starts"));
        }
        let matchers = serde_json::to_string(&silence.matchers)
            .map_err(|error| CatalogError::invalid("matchers", error.to_string()))?;
        if matchers.len() > MAX_NOTE {
            return Err(CatalogError::invalid("matchers", "use at most 64 KiB"));
        }
        let mut random = [0; 16];
        fill_random(&mut random)?;
        let silence = Silence { id: hex::encode(random), muted: 0, ..silence };
        let mut transaction = self.begin().await?;
        let count: i64 =
            sqlx::query_scalar("SELECT count(*) FROM silences WHERE tenant = ? AND ends_at > ?")
                .bind(silence.tenant.as_str())
                .bind(silence.created_at)
                .fetch_one(&mut *transaction)
                .await?;
        if count >= MAX_SILENCES {
            let reason = "a tenant has at most 1000 that are not over; lift some";
            return Err(CatalogError::invalid("silence", reason));
        }
        sqlx::query(
            "INSERT INTO silences (id, tenant, matchers, starts_at, ends_at, creator, comment, created_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(&silence.id)
        .bind(silence.tenant.as_str())
        .bind(matchers)
        .bind(silence.starts_at)
        .bind(silence.ends_at)
        .bind(&silence.creator)
        .bind(&silence.comment)
        .bind(silence.created_at)
        .execute(&mut *transaction)
        .await?;
        self.finish(transaction).await?;
        Ok(silence)
    }

    /// The silences that end after `time`, of one tenant or of all, the last to end first, at most 10,000.
    ///
    /// # Errors
    /// Storage errors.
    pub async fn silences(
        &self,
        tenant: Option<&TenantId>,
        time: i64,
    ) -> Result<Vec<Silence>, CatalogError> {
        let mut query = sqlx::QueryBuilder::new(
            "SELECT id, tenant, matchers, starts_at, ends_at, creator, comment, created_at, muted
             FROM silences WHERE ends_at > ",
        );
        query.push_bind(time);
        if let Some(tenant) = tenant {
            query.push(" AND tenant = ").push_bind(tenant.as_str());
        }
        query.push(" ORDER BY ends_at DESC, id LIMIT 10000");
        let mut connection = self.reader().await?;
        let rows: Vec<SilenceRow> = query.build_query_as().fetch_all(&mut *connection).await?;
        rows.into_iter().map(silence_from_row).collect()
    }

    /// Ends a silence of a tenant now. One that is over changes nothing.
    ///
    /// # Errors
    /// [`CatalogError::Unknown`] when the tenant has none of this id, and storage errors.
    pub async fn lift_silence(
        &self,
        tenant: &TenantId,
        id: &str,
        now: i64,
    ) -> Result<(), CatalogError> {
        let mut transaction = self.begin().await?;
        let done = sqlx::query(
            "UPDATE silences SET ends_at = min(ends_at, max(?, starts_at)) WHERE tenant = ? AND id = ?",
        )
        .bind(now)
        .bind(tenant.as_str())
        .bind(id)
        .execute(&mut *transaction)
        .await?;
        if done.rows_affected() == 0 {
            let name = id.chars().take(80).collect();
            return Err(CatalogError::Unknown { what: "silence", name });
        }
        self.finish(transaction).await
    }

    /// Deletes states and notes of before `time` (microseconds since the epoch), whose alerts are gone by then,
    /// and silences that ended before it. Returns how many.
    ///
    /// # Errors
    /// Storage errors.
    pub async fn prune_alert_states(&self, time: i64) -> Result<u64, CatalogError> {
        let mut transaction = self.begin().await?;
        let mut deleted = 0;
        for statement in [
            "DELETE FROM alert_states WHERE time < ?",
            "DELETE FROM alert_notes WHERE time < ?",
            "DELETE FROM silences WHERE ends_at < ?",
        ] {
            let done = sqlx::query(statement).bind(time).execute(&mut *transaction).await?;
            deleted += done.rows_affected();
        }
        self.finish(transaction).await?;
        Ok(deleted)
    }
}

/// id, status, reason, assignee, actor, time
type StateRow = (String, i64, Option<String>, Option<String>, String, i64);

fn state_from_row(row: StateRow) -> Result<AlertState, CatalogError> {
    let (id, status, reason, assignee, actor, time) = row;
    let status = AlertStatus::from_sql(status, &id)?;
    Ok(AlertState { status, reason, assignee, actor, time })
}

/// id, tenant, matchers, start, end, creator, comment, made, muted
type SilenceRow = (String, String, String, i64, i64, String, String, i64, i64);

fn silence_from_row(row: SilenceRow) -> Result<Silence, CatalogError> {
    let (id, tenant, matchers, starts_at, ends_at, creator, comment, created_at, muted) = row;
    let damaged = || CatalogError::Damaged(format!("silence {id}"));
    Ok(Silence {
        tenant: TenantId::new(&tenant).map_err(|_| damaged())?,
        matchers: serde_json::from_str(&matchers).map_err(|_| damaged())?,
        muted: u64::try_from(muted).map_err(|_| damaged())?,
        id,
        starts_at,
        ends_at,
        creator,
        comment,
        created_at,
    })
}

fn as_json(ids: &[String]) -> Result<String, CatalogError> {
    if ids.len() > MAX_ALERTS {
        return Err(CatalogError::invalid("number of alerts", "use at most 100000 at once"));
    }
    serde_json::to_string(ids)
        .map_err(|error| CatalogError::invalid("alert ids", error.to_string()))
}

pub(crate) fn check_id(id: &str) -> Result<(), CatalogError> {
    if id.len() == 32 && id.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')) {
        return Ok(());
    }
    let short: String = id.chars().take(80).collect();
    Err(CatalogError::invalid("alert id", format!("'{short}' is not 32 hexadecimal digits")))
}

fn check_text(what: &'static str, text: &str, most: usize) -> Result<(), CatalogError> {
    if text.trim().is_empty() || text.len() > most {
        return Err(CatalogError::invalid(what, format!("use 1 to {most} bytes")));
    }
    Ok(())
}
