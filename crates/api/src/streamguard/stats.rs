//! `/api/stats/summary`.

use super::anomalies::is_anomaly;
use super::{Failure, HIGH_SCORE, count, tenant};
use crate::access::Caller;
use crate::sql;
use crate::state::ApiState;
use axum::Json;
use axum::extract::State;
use axum::response::Response;
use palisade_event::schema::{ALERTS, EVENTS};
use serde::Serialize;
use std::collections::BTreeSet;
use utoipa::ToSchema;

/// What there is, in numbers.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// All events.
    pub total_events: i64,
    /// Events with a threat score from 0.7 on.
    pub high_threat_events: i64,
    /// The mean threat score, rounded to six places.
    pub average_threat_score: f64,
    /// Always 0: there are no AI analyses.
    pub total_analyses: i64,
    /// All anomalies.
    pub total_anomalies: i64,
}

/// The query of the summary over the score columns that exist.
fn summary_sql(have: &BTreeSet<String>) -> String {
    let own = "CAST(\"threat_score\" AS DOUBLE)";
    let own_high = format!("\"threat_score\" >= CAST({HIGH_SCORE} AS REAL)");
    let reported_high = format!("\"reported_threat_score\" >= {HIGH_SCORE}");
    let scores = (have.contains("reported_threat_score"), have.contains("threat_score"));
    let (score, high) = match scores {
        (true, true) => (
            format!("coalesce(\"reported_threat_score\", {own})"),
            format!("{reported_high} OR (\"reported_threat_score\" IS NULL AND {own_high})"),
        ),
        (true, false) => ("\"reported_threat_score\"".to_owned(), reported_high),
        (false, true) => (own.to_owned(), own_high),
        (false, false) => ("CAST(0 AS DOUBLE)".to_owned(), "false".to_owned()),
    };
    format!(
        "SELECT count(*) AS n, sum(CASE WHEN {high} THEN 1 ELSE 0 END) AS high, \
         sum({score}) AS total, count({score}) AS scored FROM events"
    )
}

/// `GET /api/stats/summary`: counts of everything.
#[utoipa::path(get, path = "/api/stats/summary", tag = "streamguard", responses(
    (status = 200, description = "The numbers", body = Summary),
))]
pub async fn summary(
    State(state): State<ApiState>,
    caller: Caller,
) -> Result<Json<Summary>, Response> {
    let tenant = tenant(&caller)?;
    let have = sql::columns(&state, tenant, EVENTS).await.map_err(Failure::from)?;
    let parts = match have.is_empty() {
        true => Vec::new(),
        false => sql::parts(&state, tenant, EVENTS, &summary_sql(&have), 1)
            .await
            .map_err(Failure::from)?,
    };
    let whole = |name| parts.iter().filter_map(|row| sql::integer(row, name)).sum::<i64>();
    let total: f64 = parts.iter().filter_map(|row| sql::number(row, "total")).sum();
    let mean = total / whole("scored").max(1) as f64;
    Ok(Json(Summary {
        total_events: whole("n"),
        high_threat_events: whole("high"),
        average_threat_score: (mean * 1e6).round() / 1e6,
        total_analyses: 0,
        total_anomalies: count(&state, tenant, ALERTS, Some(is_anomaly())).await?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_names_only_columns_that_exist() {
        for (names, absent) in [
            (vec!["time"], vec!["threat_score"]),
            (vec!["threat_score"], vec!["reported_threat_score"]),
            (vec!["threat_score", "reported_threat_score"], vec![]),
        ] {
            let sql = summary_sql(&names.iter().map(|name| (*name).to_owned()).collect());
            for name in absent {
                assert!(!sql.contains(name), "{sql}");
            }
        }
    }
}
