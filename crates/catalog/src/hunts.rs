//! Hunts that were asked for, and what became of them. What they found lies in files that whoever runs them keeps.

use crate::alerts::check_id;
use crate::error::CatalogError;
use crate::identity::fill_random;
use crate::open::Catalog;
use palisade_event::TenantId;

/// The largest request or report, in bytes.
const MAX_TEXT: usize = 1 << 20;

/// Where a hunt stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HuntState {
    /// It waits for those before it.
    Queued,
    /// It is at work.
    Running,
    /// Its results are there.
    Done,
    /// It ended with an error.
    Failed,
    /// Somebody ended it.
    Cancelled,
    /// The process ended while it ran.
    Interrupted,
}

const STATES: [HuntState; 6] = [
    HuntState::Queued,
    HuntState::Running,
    HuntState::Done,
    HuntState::Failed,
    HuntState::Cancelled,
    HuntState::Interrupted,
];

impl HuntState {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Interrupted => "interrupted",
        }
    }

    /// Whether nothing more comes of it.
    #[must_use]
    pub fn is_over(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }

    fn to_sql(self) -> i64 {
        STATES.iter().zip(0..).find(|(state, _)| **state == self).map_or(0, |(_, number)| number)
    }

    fn from_sql(value: i64, id: &str) -> Result<Self, CatalogError> {
        let state = usize::try_from(value).ok().and_then(|value| STATES.get(value));
        state.copied().ok_or_else(|| CatalogError::Damaged(format!("state of hunt {id}")))
    }
}

/// A hunt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HuntRecord {
    /// 32 hexadecimal digits.
    pub id: String,
    /// Above that of every hunt that was asked for earlier.
    pub number: i64,
    /// Whose rows.
    pub tenant: TenantId,
    /// Who asked for it: a key's id, or `local`.
    pub actor: String,
    /// Where it stands.
    pub state: HuntState,
    /// When it was asked for, microseconds since the epoch.
    pub created_at: i64,
    /// When it began.
    pub started_at: Option<i64>,
    /// When it was over.
    pub ended_at: Option<i64>,
    /// What was asked for: JSON.
    pub request: String,
    /// What came of it: JSON, or empty.
    pub report: String,
    /// Why it failed, or empty.
    pub error: String,
}

impl Catalog {
    /// Notes a hunt that is asked for, if the tenant has fewer than `most` that are not over.
    ///
    /// # Errors
    /// [`CatalogError::Busy`] for one too many, [`CatalogError::Invalid`] for texts out of bounds, and storage errors.
    pub async fn create_hunt(
        &self,
        tenant: &TenantId,
        actor: &str,
        request: &str,
        most: u32,
        now: i64,
    ) -> Result<String, CatalogError> {
        check("request", request)?;
        let mut random = [0; 16];
        fill_random(&mut random)?;
        let id = hex::encode(random);
        let mut transaction = self.begin().await?;
        let open: i64 =
            sqlx::query_scalar("SELECT count(*) FROM hunts WHERE tenant = ? AND state IN (0, 1)")
                .bind(tenant.as_str())
                .fetch_one(&mut *transaction)
                .await?;
        if open >= i64::from(most) {
            return Err(CatalogError::Busy(format!("{open} hunts of the tenant wait or run")));
        }
        sqlx::query(
            "INSERT INTO hunts (id, tenant, actor, state, created_at, request, report, error)
             VALUES (?, ?, ?, 0, ?, ?, '', '')",
        )
        .bind(&id)
        .bind(tenant.as_str())
        .bind(actor)
        .bind(now)
        .bind(request)
        .execute(&mut *transaction)
        .await?;
        self.finish(transaction).await?;
        Ok(id)
    }

    /// The hunts of a tenant, or of all, the newest first, at most 100,000.
    ///
    /// # Errors
    /// Storage errors.
    pub async fn hunts(&self, tenant: Option<&TenantId>) -> Result<Vec<HuntRecord>, CatalogError> {
        let mut query = sqlx::QueryBuilder::new(SELECT);
        if let Some(tenant) = tenant {
            query.push(" WHERE tenant = ").push_bind(tenant.as_str());
        }
        query.push(" ORDER BY number DESC LIMIT 100000");
        let mut connection = self.reader().await?;
        let rows: Vec<HuntRow> = query.build_query_as().fetch_all(&mut *connection).await?;
        rows.into_iter().map(from_row).collect()
    }

    /// A hunt of a tenant.
    ///
    /// # Errors
    /// [`CatalogError::Unknown`] when the tenant has none of this id, and storage errors.
    pub async fn hunt(&self, tenant: &TenantId, id: &str) -> Result<HuntRecord, CatalogError> {
        let unknown =
            || CatalogError::Unknown { what: "hunt", name: id.chars().take(80).collect() };
        check_id(id).map_err(|_| unknown())?;
        let mut query = sqlx::QueryBuilder::new(SELECT);
        query.push(" WHERE tenant = ").push_bind(tenant.as_str());
        query.push(" AND id = ").push_bind(id);
        let mut connection = self.reader().await?;
        let row: Option<HuntRow> = query.build_query_as().fetch_optional(&mut *connection).await?;
        from_row(row.ok_or_else(unknown)?)
    }

    /// Begins the hunt that waits longest; `None` when none waits.
    ///
    /// # Errors
    /// Storage errors.
    pub async fn begin_hunt(&self, now: i64) -> Result<Option<HuntRecord>, CatalogError> {
        let mut transaction = self.begin().await?;
        let sql = format!("{SELECT} WHERE state = 0 ORDER BY number LIMIT 1");
        let row: Option<HuntRow> =
            sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_optional(&mut *transaction).await?;
        let Some(record) = row.map(from_row).transpose()? else { return Ok(None) };
        sqlx::query("UPDATE hunts SET state = 1, started_at = ? WHERE number = ?")
            .bind(now)
            .bind(record.number)
            .execute(&mut *transaction)
            .await?;
        self.finish(transaction).await?;
        Ok(Some(HuntRecord { state: HuntState::Running, started_at: Some(now), ..record }))
    }

    /// Ends a hunt that is not over: with what came of it, or why it failed. False when it was over already.
    ///
    /// # Errors
    /// [`CatalogError::Invalid`] for texts out of bounds, and storage errors.
    pub async fn end_hunt(
        &self,
        id: &str,
        state: HuntState,
        (report, error): (&str, &str),
        now: i64,
    ) -> Result<bool, CatalogError> {
        check("report", report)?;
        check("error", error)?;
        let mut transaction = self.begin().await?;
        let done = sqlx::query(
            "UPDATE hunts SET state = ?, report = ?, error = ?, ended_at = ?
             WHERE id = ? AND state IN (0, 1)",
        )
        .bind(state.to_sql())
        .bind(report)
        .bind(error)
        .bind(now)
        .bind(id)
        .execute(&mut *transaction)
        .await?;
        self.finish(transaction).await?;
        Ok(done.rows_affected() > 0)
    }

    /// Notes of hunts that ran when an earlier process ended that they are over.
    ///
    /// # Errors
    /// Storage errors.
    pub async fn interrupt_hunts(&self, now: i64) -> Result<u64, CatalogError> {
        let mut transaction = self.begin().await?;
        let done = sqlx::query(
            "UPDATE hunts SET state = 5, ended_at = ?,
                 error = 'the server ended while it ran: ask for it again' WHERE state = 1",
        )
        .bind(now)
        .execute(&mut *transaction)
        .await?;
        self.finish(transaction).await?;
        Ok(done.rows_affected())
    }

    /// Forgets a hunt that is over.
    ///
    /// # Errors
    /// Storage errors.
    pub async fn forget_hunt(&self, id: &str) -> Result<(), CatalogError> {
        let mut transaction = self.begin().await?;
        sqlx::query("DELETE FROM hunts WHERE id = ? AND state NOT IN (0, 1)")
            .bind(id)
            .execute(&mut *transaction)
            .await?;
        self.finish(transaction).await?;
        Ok(())
    }
}

const SELECT: &str = "SELECT id, number, tenant, actor, state, created_at, started_at, ended_at, request, report, error FROM hunts";

type HuntRow =
    (String, i64, String, String, i64, i64, Option<i64>, Option<i64>, String, String, String);

fn from_row(row: HuntRow) -> Result<HuntRecord, CatalogError> {
    let (
        id,
        number,
        tenant,
        actor,
        state,
        created_at,
        started_at,
        ended_at,
        request,
        report,
        error,
    ) = row;
    let tenant = TenantId::new(&tenant)
        .map_err(|_| CatalogError::Damaged(format!("tenant of hunt {id}")))?;
    let state = HuntState::from_sql(state, &id)?;
    Ok(HuntRecord {
        id,
        number,
        tenant,
        actor,
        state,
        created_at,
        started_at,
        ended_at,
        request,
        report,
        error,
    })
}

fn check(what: &'static str, text: &str) -> Result<(), CatalogError> {
    if text.len() > MAX_TEXT {
        return Err(CatalogError::invalid(what, "use at most 1 MiB"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open::OpenOptions;

    #[tokio::test]
    async fn a_hunt_goes_through_its_states_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("catalog.db");
        let catalog = Catalog::open(&path, OpenOptions::default()).await.unwrap();
        let (acme, other) = (TenantId::new("acme").unwrap(), TenantId::new("other").unwrap());
        let make = |tenant| {
            let catalog = catalog.clone();
            async move { catalog.create_hunt(&tenant, "local", "{}", 2, 10).await }
        };
        let (one, two) = (make(acme.clone()).await.unwrap(), make(acme.clone()).await.unwrap());
        assert!(matches!(make(acme.clone()).await, Err(CatalogError::Busy(_))));
        let three = make(other.clone()).await.unwrap();

        let begun = catalog.begin_hunt(11).await.unwrap().unwrap();
        assert_eq!((begun.id.as_str(), begun.state), (one.as_str(), HuntState::Running));
        assert!(catalog.end_hunt(&two, HuntState::Cancelled, ("", ""), 12).await.unwrap());
        assert!(catalog.end_hunt(&one, HuntState::Done, ("{\"a\":1}", ""), 13).await.unwrap());
        assert!(!catalog.end_hunt(&one, HuntState::Cancelled, ("", ""), 14).await.unwrap());
        let done = catalog.hunt(&acme, &one).await.unwrap();
        assert_eq!(
            (done.state, done.report.as_str(), done.started_at, done.ended_at),
            (HuntState::Done, "{\"a\":1}", Some(11), Some(13))
        );

        // Another tenant's is not there.
        assert!(matches!(catalog.hunt(&acme, &three).await, Err(CatalogError::Unknown { .. })));
        assert!(matches!(catalog.hunt(&acme, "x' OR 1").await, Err(CatalogError::Unknown { .. })));
        let ids = |hunts: Vec<HuntRecord>| hunts.into_iter().map(|one| one.id).collect::<Vec<_>>();
        assert_eq!(ids(catalog.hunts(Some(&acme)).await.unwrap()), [two.clone(), one.clone()]);

        // What ran when the process ended is over at the next start; what waited still waits.
        assert_eq!(catalog.begin_hunt(15).await.unwrap().unwrap().id, three);
        let waits = make(acme.clone()).await.unwrap();
        assert_eq!(catalog.interrupt_hunts(16).await.unwrap(), 1);
        let three = catalog.hunt(&other, &three).await.unwrap();
        assert_eq!(three.state, HuntState::Interrupted);
        assert!(!three.error.is_empty());
        assert_eq!(catalog.begin_hunt(17).await.unwrap().unwrap().id, waits);

        catalog.forget_hunt(&waits).await.unwrap();
        catalog.forget_hunt(&one).await.unwrap();
        assert_eq!(ids(catalog.hunts(Some(&acme)).await.unwrap()), [waits, two]);
    }
}
