//! `/api/anomalies`: the alerts of the behavioural baselines.

use super::{
    Condition, ErrorBody, Failure, HIGH_SCORE, LimitParams, Newest, Params, RangeParams,
    ThresholdParams, Whereabouts, count, events, has_event_id, is_record_id, limit, only, range,
    score, tenant,
};
use crate::access::Caller;
use crate::sql::{self, Row};
use crate::state::ApiState;
use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use palisade_event::TenantId;
use palisade_event::schema::ALERTS;
use serde::Serialize;
use utoipa::ToSchema;

/// An anomaly as StreamGuard shows it. All scores are 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AnomalyReport {
    /// The id of the event, as in `/api/events`.
    pub event_id: String,
    /// Whose behaviour it is.
    pub user: Option<String>,
    /// Event time, milliseconds since the epoch.
    pub timestamp: i64,
    /// The whole score.
    pub anomaly_score: f64,
    /// How unusual the hour is.
    pub time_anomaly: f64,
    /// How unusual the address is.
    pub ip_anomaly: f64,
    /// How unusual the place is.
    pub location_anomaly: f64,
    /// How unusual the kind of event is.
    pub type_anomaly: f64,
    /// How unusual the failures are.
    pub failure_anomaly: f64,
    /// Why, in sentences.
    pub reasons: Vec<String>,
}

const PICKS: &[(&str, &str, &str)] = &[
    ("\"event_id\"", "event_id", "event_id"),
    ("\"evidence\"", "evidence", "evidence"),
    ("\"user\"", "user", "user"),
    ("CAST(\"time\" AS BIGINT)", "time", "micros"),
    ("\"score\"", "score", "score"),
    ("\"baseline.time\"", "baseline.time", "of_time"),
    ("\"baseline.address\"", "baseline.address", "of_address"),
    ("\"baseline.location\"", "baseline.location", "of_location"),
    ("\"baseline.type\"", "baseline.type", "of_type"),
    ("\"baseline.failure\"", "baseline.failure", "of_failure"),
    ("\"reasons\"", "reasons", "reasons"),
];

impl AnomalyReport {
    fn of(row: &Row) -> Self {
        let part = |name| sql::number(row, name).unwrap_or(0.0);
        let id = sql::text(row, "event_id");
        Self {
            event_id: id
                .or_else(|| sql::texts(row, "evidence").into_iter().next())
                .unwrap_or_default(),
            user: sql::text(row, "user"),
            timestamp: sql::integer(row, "micros").unwrap_or(0).div_euclid(1000),
            anomaly_score: part("score"),
            time_anomaly: part("of_time"),
            ip_anomaly: part("of_address"),
            location_anomaly: part("of_location"),
            type_anomaly: part("of_type"),
            failure_anomaly: part("of_failure"),
            reasons: sql::texts(row, "reasons"),
        }
    }
}

/// The condition that an alert is a baseline's.
pub(super) fn is_anomaly() -> Condition {
    Condition::new("\"detector\" = 'baseline'", &["detector"])
}

async fn find(
    state: &ApiState,
    tenant: &TenantId,
    condition: Option<Condition>,
    limit: usize,
) -> Result<Vec<AnomalyReport>, Failure> {
    let have = sql::columns(state, tenant, ALERTS).await?;
    let conditions: Vec<Condition> = std::iter::once(is_anomaly()).chain(condition).collect();
    let newest = Newest { table: ALERTS, have: &have, picks: PICKS, more: Vec::new(), limit };
    let rows = newest.rows(state, tenant, conditions, Whereabouts::Anywhere).await?;
    Ok(rows.iter().map(AnomalyReport::of).collect())
}

/// `GET /api/anomalies` and `/api/anomalies/recent`: the latest anomalies.
#[utoipa::path(get, path = "/api/anomalies", tag = "streamguard", params(LimitParams), responses(
    (status = 200, description = "Newest first", body = Vec<AnomalyReport>),
    (status = 400, description = "A parameter is wrong", body = ErrorBody),
))]
pub async fn latest(
    State(state): State<ApiState>,
    caller: Caller,
    Params(params): Params<LimitParams>,
) -> Result<Json<Vec<AnomalyReport>>, Response> {
    let limit = limit(params.limit.as_deref())?;
    Ok(Json(find(&state, tenant(&caller)?, None, limit).await?))
}

/// `GET /api/anomalies/{eventId}`: the anomaly of an event.
#[utoipa::path(get, path = "/api/anomalies/{eventId}", tag = "streamguard",
    params(("eventId" = String, Path, description = "The sender's id, or the record's")), responses(
    (status = 200, description = "The anomaly", body = AnomalyReport),
    (status = 404, description = "There is none", body = ErrorBody),
))]
pub async fn by_id(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<AnomalyReport>, Response> {
    let tenant = tenant(&caller)?;
    let mut found = find(&state, tenant, Some(has_event_id(&id)), 1).await?;
    if found.is_empty()
        && is_record_id(&id)
        && let Some(time) = events::time_of(&state, tenant, &id).await?
    {
        // The time leads to the few alerts in question; lists of evidence are not indexed.
        let of_event = format!(
            "\"time\" = {} AND array_has(\"evidence\", {})",
            sql::moment(time),
            sql::literal(&id)
        );
        let of_event = Condition::new(of_event, &["time", "evidence"]);
        found = find(&state, tenant, Some(of_event), 1).await?;
    }
    Ok(Json(only(found, "Anomaly for event with ID", &id)?))
}

/// `GET /api/anomalies/user/{user}`: a user's latest anomalies.
#[utoipa::path(get, path = "/api/anomalies/user/{user}", tag = "streamguard",
    params(("user" = String, Path, description = "The user's name"), LimitParams), responses(
    (status = 200, description = "Newest first", body = Vec<AnomalyReport>),
    (status = 400, description = "A parameter is wrong", body = ErrorBody),
))]
pub async fn by_user(
    State(state): State<ApiState>,
    caller: Caller,
    Path(user): Path<String>,
    Params(params): Params<LimitParams>,
) -> Result<Json<Vec<AnomalyReport>>, Response> {
    let limit = limit(params.limit.as_deref())?;
    let user = Condition::new(format!("\"user\" = {}", sql::literal(&user)), &["user"]);
    Ok(Json(find(&state, tenant(&caller)?, Some(user), limit).await?))
}

/// `GET /api/anomalies/high-score`: anomalies from a score on.
#[utoipa::path(get, path = "/api/anomalies/high-score", tag = "streamguard", params(ThresholdParams), responses(
    (status = 200, description = "Newest first", body = Vec<AnomalyReport>),
    (status = 400, description = "A parameter is wrong", body = ErrorBody),
))]
pub async fn high(
    State(state): State<ApiState>,
    caller: Caller,
    Params(params): Params<ThresholdParams>,
) -> Result<Json<Vec<AnomalyReport>>, Response> {
    let limit = limit(params.limit.as_deref())?;
    let threshold = score("threshold", params.threshold.as_deref(), Some(HIGH_SCORE))?;
    let high = Condition::new(format!("\"score\" >= CAST({threshold} AS REAL)"), &["score"]);
    Ok(Json(find(&state, tenant(&caller)?, Some(high), limit).await?))
}

/// `GET /api/anomalies/time-range`: anomalies between two times, both included.
#[utoipa::path(get, path = "/api/anomalies/time-range", tag = "streamguard", params(RangeParams), responses(
    (status = 200, description = "Newest first", body = Vec<AnomalyReport>),
    (status = 400, description = "A parameter is wrong or missing", body = ErrorBody),
))]
pub async fn by_time(
    State(state): State<ApiState>,
    caller: Caller,
    Params(params): Params<RangeParams>,
) -> Result<Json<Vec<AnomalyReport>>, Response> {
    let limit = limit(params.limit.as_deref())?;
    let range = range(params.start_time.as_deref(), params.end_time.as_deref())?;
    let range = Condition::new(range, &["time"]);
    Ok(Json(find(&state, tenant(&caller)?, Some(range), limit).await?))
}

/// `GET /api/anomalies/count`: how many anomalies there are.
#[utoipa::path(get, path = "/api/anomalies/count", tag = "streamguard", responses(
    (status = 200, description = "How many", body = i64),
))]
pub async fn number(State(state): State<ApiState>, caller: Caller) -> Result<Json<i64>, Response> {
    Ok(Json(count(&state, tenant(&caller)?, ALERTS, Some(is_anomaly())).await?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_row_becomes_the_documented_model() {
        let Value::Object(row) = json!({
            "event_id": null, "evidence": ["ab", "cd"], "user": "alice",
            "micros": 1_696_723_200_000_000_i64, "score": 0.73, "of_time": 0.15,
            "of_address": 0.98, "of_location": 0.08, "of_type": 0.05, "of_failure": 0.62,
            "reasons": ["Unusual IP address", "High failure rate"],
        }) else {
            panic!()
        };
        assert_eq!(
            serde_json::to_value(AnomalyReport::of(&row)).unwrap(),
            json!({
                "eventId": "ab", "user": "alice", "timestamp": 1_696_723_200_000_i64,
                "anomalyScore": 0.73, "timeAnomaly": 0.15, "ipAnomaly": 0.98,
                "locationAnomaly": 0.08, "typeAnomaly": 0.05, "failureAnomaly": 0.62,
                "reasons": ["Unusual IP address", "High failure rate"],
            })
        );
    }
}
