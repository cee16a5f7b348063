//! What people did about dead letters. The letters are rows of the table `dead_letters`; here is
//! their mutable side only, made when a letter is first touched (M1).

use crate::error::CatalogError;
use crate::open::Catalog;
use palisade_event::TenantId;
use std::collections::BTreeMap;

/// The most letters of one call.
const MAX_LETTERS: usize = 100_000;

/// What is done about a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeadLetterAction {
    /// Sent again, with its id as idempotency key (L4).
    Retried,
    /// Given up.
    Dropped,
}

/// What was last done about a letter.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DeadLetterState {
    /// What was done.
    pub action: DeadLetterAction,
    /// How often it was retried.
    pub retries: u32,
    /// Who did it: a key's id, or `local`.
    pub actor: String,
    /// When, microseconds since the epoch.
    pub time: i64,
}

impl Catalog {
    /// Notes in one transaction that these letters of a tenant (ids of 32 hexadecimal digits) were
    /// retried or dropped.
    ///
    /// # Errors
    /// [`CatalogError::Invalid`] for a text that is no letter's id and for more than 100,000, and
    /// storage errors; nothing has changed then.
    pub async fn touch_dead_letters(
        &self,
        tenant: &TenantId,
        ids: &[String],
        action: DeadLetterAction,
        actor: &str,
        now: i64,
    ) -> Result<(), CatalogError> {
        check(ids)?;
        if actor.len() > 1024 {
            return Err(CatalogError::invalid("actor", "use at most 1 KiB"));
        }
        if ids.is_empty() {
            return Ok(());
        }
        let (state, retries) = match action {
            DeadLetterAction::Retried => (1, 1),
            DeadLetterAction::Dropped => (2, 0),
        };
        let mut transaction = self.begin().await?;
        for id in ids {
            sqlx::query(
                "INSERT INTO dead_letter_states (tenant, id, state, retries, actor, time)
                 VALUES (?, ?, ?, ?, ?, ?)
                 ON CONFLICT (tenant, id) DO UPDATE SET state = excluded.state,
                     retries = retries + excluded.retries, actor = excluded.actor,
                     time = excluded.time",
            )
            .bind(tenant.as_str())
            .bind(id)
            .bind(state)
            .bind(retries)
            .bind(actor)
            .bind(now)
            .execute(&mut *transaction)
            .await?;
        }
        self.finish(transaction).await
    }

    /// What was done about these letters of a tenant, by id; letters that nobody touched are
    /// missing.
    ///
    /// # Errors
    /// [`CatalogError::Invalid`] as in [`Catalog::touch_dead_letters`], and storage errors.
    pub async fn dead_letter_state(
        &self,
        tenant: &TenantId,
        ids: &[String],
    ) -> Result<BTreeMap<String, DeadLetterState>, CatalogError> {
        check(ids)?;
        let ids_json = serde_json::to_string(ids)
            .map_err(|error| CatalogError::invalid("dead letter ids", error.to_string()))?;
        let mut connection = self.reader().await?;
        let rows: Vec<(String, i64, i64, String, i64)> = sqlx::query_as(
            "SELECT id, state, retries, actor, time FROM dead_letter_states
             WHERE tenant = ? AND id IN (SELECT value FROM json_each(?))",
        )
        .bind(tenant.as_str())
        .bind(ids_json)
        .fetch_all(&mut *connection)
        .await?;
        rows.into_iter()
            .map(|(id, state, retries, actor, time)| {
                let action = match state {
                    1 => DeadLetterAction::Retried,
                    2 => DeadLetterAction::Dropped,
                    _ => return Err(CatalogError::Damaged(format!("dead letter {id}"))),
                };
                let retries = u32::try_from(retries).unwrap_or(u32::MAX);
                Ok((id, DeadLetterState { action, retries, actor, time }))
            })
            .collect()
    }

    /// Deletes what was noted before `time` (microseconds since the epoch): the letters themselves
    /// are gone by then. Returns how many.
    ///
    /// # Errors
    /// Storage errors.
    pub async fn prune_dead_letter_states(&self, time: i64) -> Result<u64, CatalogError> {
        let mut transaction = self.begin().await?;
        let deleted = sqlx::query("DELETE FROM dead_letter_states WHERE time < ?")
            .bind(time)
            .execute(&mut *transaction)
            .await?;
        self.finish(transaction).await?;
        Ok(deleted.rows_affected())
    }
}

fn check(ids: &[String]) -> Result<(), CatalogError> {
    if ids.len() > MAX_LETTERS {
        return Err(CatalogError::invalid("number of dead letters", "use at most 100000 at once"));
    }
    let is_id =
        |id: &String| id.len() == 32 && id.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    match ids.iter().find(|id| !is_id(id)) {
        None => Ok(()),
        Some(bad) => Err(CatalogError::invalid(
            "dead letter id",
            format!("'{}' is not 32 hexadecimal digits", bad.chars().take(80).collect::<String>()),
        )),
    }
}
