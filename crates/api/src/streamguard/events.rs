//! `/api/events`.

use super::{
    Condition, ErrorBody, Failure, HIGH_SCORE, LimitParams, MAX_LIMIT, Newest, Params, RangeParams,
    ScoreParams, Whereabouts, count, has_event_id, is_record_id, known, limit, only, range, score,
    tenant,
};
use crate::access::Caller;
use crate::sql::{self, Row};
use crate::state::ApiState;
use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use palisade_event::TenantId;
use palisade_event::schema::EVENTS;
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// The most columns `metadata.*` that are given back.
const MAX_METADATA: usize = 256;
/// The most types of one segment that are counted.
const MAX_TYPES: usize = 100_000;

/// An event as StreamGuard shows it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecurityEvent {
    /// The sender's id; the record's own where it sent none.
    pub event_id: String,
    /// Who.
    pub user: Option<String>,
    /// Event time, milliseconds since the epoch.
    pub timestamp: i64,
    /// What happened.
    pub r#type: Option<String>,
    /// Where from.
    pub source_ip: Option<String>,
    /// Where the user was.
    pub geo_location: Option<String>,
    /// The score that the sender gave, otherwise ours: 0 to 1.
    pub threat_score: f64,
    /// The sender's further fields.
    #[schema(value_type = Object)]
    pub metadata: Map<String, Value>,
}

const PICKS: &[(&str, &str, &str)] = &[
    ("\"event_id\"", "event_id", "event_id"),
    ("\"id\"", "id", "id"),
    ("\"user\"", "user", "user"),
    ("CAST(\"time\" AS BIGINT)", "time", "micros"),
    ("\"type\"", "type", "type"),
    ("\"src_ip\"", "src_ip", "src_ip"),
    ("\"location\"", "location", "location"),
    ("\"reported_threat_score\"", "reported_threat_score", "reported"),
    ("\"threat_score\"", "threat_score", "own"),
    ("\"user_agent\"", "user_agent", "user_agent"),
];

impl SecurityEvent {
    fn of(row: &Row) -> Self {
        let mut metadata = Map::new();
        for (name, value) in row {
            if let Some(path) = name.strip_prefix("metadata.")
                && !value.is_null()
            {
                nest(&mut metadata, path, value.clone());
            }
        }
        if let Some(agent) = sql::text(row, "user_agent") {
            metadata.entry("user_agent").or_insert(Value::String(agent));
        }
        let id = sql::text(row, "event_id").or_else(|| sql::text(row, "id"));
        Self {
            event_id: id.unwrap_or_default(),
            user: sql::text(row, "user"),
            timestamp: sql::integer(row, "micros").unwrap_or(0).div_euclid(1000),
            r#type: sql::text(row, "type"),
            source_ip: sql::text(row, "src_ip"),
            geo_location: sql::text(row, "location"),
            threat_score: sql::number(row, "reported")
                .or_else(|| sql::number(row, "own"))
                .unwrap_or(0.0),
            metadata,
        }
    }
}

/// Puts a value where its dotted path says. Where a part of the path is taken by something that is no
/// object, the rest of the path is one name, so nothing is lost.
fn nest(object: &mut Map<String, Value>, path: &str, value: Value) {
    if let Some((first, rest)) = path.split_once('.')
        && !first.is_empty()
        && !rest.is_empty()
    {
        let inner = object.entry(first).or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(inner) = inner {
            return nest(inner, rest, value);
        }
    }
    object.insert(path.to_owned(), value);
}

/// The condition that an event's score is at least this. Scores of ours are single precision, so they
/// are compared as such: 0.7 includes what shows as 0.7.
fn at_least(have_own: bool, have_reported: bool, score: f64) -> Condition {
    let own = format!("\"threat_score\" >= CAST({score} AS REAL)");
    let reported = format!("\"reported_threat_score\" >= {score}");
    match (have_reported, have_own) {
        (true, true) => Condition::new(
            format!("{reported} OR (\"reported_threat_score\" IS NULL AND {own})"),
            &["threat_score", "reported_threat_score"],
        ),
        (true, false) => Condition::new(reported, &["reported_threat_score"]),
        (false, _) => Condition::new(own, &["threat_score"]),
    }
}

/// The condition that an event has this id of a record.
fn has_record_id(id: &str) -> Condition {
    Condition::new(format!("\"id\" = {}", sql::literal(id)), &["id"])
}

/// When the event with this record's id happened, in microseconds since the epoch.
pub(super) async fn time_of(
    state: &ApiState,
    tenant: &TenantId,
    id: &str,
) -> Result<Option<i64>, Failure> {
    let text = format!(
        "SELECT CAST(\"time\" AS BIGINT) AS micros FROM {EVENTS} WHERE {} LIMIT 1",
        has_record_id(id).sql
    );
    let rows = sql::rows(state, tenant, &text, 1).await?;
    Ok(rows.first().and_then(|row| sql::integer(row, "micros")))
}

enum Which {
    All,
    Score(f64),
    Where(Condition),
    /// The one of this id.
    Id(Condition),
    /// Events of this user.
    User(String),
}

async fn find(
    state: &ApiState,
    tenant: &TenantId,
    which: Which,
    limit: usize,
) -> Result<Vec<SecurityEvent>, Failure> {
    let have = sql::columns(state, tenant, EVENTS).await?;
    let has = |name: &str| have.contains(name);
    let mut picks = PICKS.to_vec();
    let user = match &which {
        Which::User(user) => sql::literal(user),
        _ => String::new(),
    };
    if let Which::User(_) = &which {
        known(&mut picks, "user", &user);
    }
    let conditions = match &which {
        Which::All => Vec::new(),
        Which::Score(score) => {
            vec![at_least(has("threat_score"), has("reported_threat_score"), *score)]
        }
        Which::Where(condition) | Which::Id(condition) => vec![condition.clone()],
        Which::User(_) => vec![Condition::new(format!("\"user\" = {user}"), &["user"])],
    };
    let metadata = have
        .iter()
        .filter(|name| name.starts_with("metadata."))
        .take(MAX_METADATA)
        .map(|name| sql::identifier(name));
    let whereabouts = match &which {
        Which::User(user) => Whereabouts::Of("user", user),
        Which::Id(_) => Whereabouts::Few,
        _ => Whereabouts::Anywhere,
    };
    let more = metadata.collect();
    let newest = Newest { table: EVENTS, have: &have, picks: &picks, more, limit };
    let rows = newest.rows(state, tenant, conditions, whereabouts).await?;
    Ok(rows.iter().map(SecurityEvent::of).collect())
}

/// `GET /api/events` and `/api/events/recent`: the latest events.
#[utoipa::path(get, path = "/api/events", tag = "streamguard", params(LimitParams), responses(
    (status = 200, description = "Newest first", body = Vec<SecurityEvent>),
    (status = 400, description = "A parameter is wrong", body = ErrorBody),
))]
pub async fn latest(
    State(state): State<ApiState>,
    caller: Caller,
    Params(params): Params<LimitParams>,
) -> Result<Json<Vec<SecurityEvent>>, Response> {
    let limit = limit(params.limit.as_deref())?;
    Ok(Json(find(&state, tenant(&caller)?, Which::All, limit).await?))
}

/// `GET /api/events/{eventId}`: one event.
#[utoipa::path(get, path = "/api/events/{eventId}", tag = "streamguard",
    params(("eventId" = String, Path, description = "The sender's id, or the record's")), responses(
    (status = 200, description = "The event", body = SecurityEvent),
    (status = 404, description = "There is none", body = ErrorBody),
))]
pub async fn by_id(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<SecurityEvent>, Response> {
    let tenant = tenant(&caller)?;
    let mut found = find(&state, tenant, Which::Id(has_event_id(&id)), 1).await?;
    if found.is_empty() && is_record_id(&id) {
        found = find(&state, tenant, Which::Id(has_record_id(&id)), 1).await?;
    }
    Ok(Json(only(found, "Event with ID", &id)?))
}

/// `GET /api/events/count`: how many events there are.
#[utoipa::path(get, path = "/api/events/count", tag = "streamguard", responses(
    (status = 200, description = "How many", body = i64),
))]
pub async fn number(State(state): State<ApiState>, caller: Caller) -> Result<Json<i64>, Response> {
    Ok(Json(count(&state, tenant(&caller)?, EVENTS, None).await?))
}

/// `GET /api/events/threat-score`: events from a score on.
#[utoipa::path(get, path = "/api/events/threat-score", tag = "streamguard", params(ScoreParams), responses(
    (status = 200, description = "Newest first", body = Vec<SecurityEvent>),
    (status = 400, description = "A parameter is wrong or min_score is missing", body = ErrorBody),
))]
pub async fn by_score(
    State(state): State<ApiState>,
    caller: Caller,
    Params(params): Params<ScoreParams>,
) -> Result<Json<Vec<SecurityEvent>>, Response> {
    let limit = limit(params.limit.as_deref())?;
    let score = score("min_score", params.min_score.as_deref(), None)?;
    Ok(Json(find(&state, tenant(&caller)?, Which::Score(score), limit).await?))
}

/// `GET /api/events/threats`: events from a score on, 0.7 when none is named.
#[utoipa::path(get, path = "/api/events/threats", tag = "streamguard", params(ScoreParams), responses(
    (status = 200, description = "Newest first", body = Vec<SecurityEvent>),
    (status = 400, description = "A parameter is wrong", body = ErrorBody),
))]
pub async fn threats(
    State(state): State<ApiState>,
    caller: Caller,
    Params(params): Params<ScoreParams>,
) -> Result<Json<Vec<SecurityEvent>>, Response> {
    let limit = limit(params.limit.as_deref())?;
    let score = score("min_score", params.min_score.as_deref(), Some(HIGH_SCORE))?;
    Ok(Json(find(&state, tenant(&caller)?, Which::Score(score), limit).await?))
}

/// `GET /api/events/time-range`: events between two times, both included.
#[utoipa::path(get, path = "/api/events/time-range", tag = "streamguard", params(RangeParams), responses(
    (status = 200, description = "Newest first", body = Vec<SecurityEvent>),
    (status = 400, description = "A parameter is wrong or missing", body = ErrorBody),
))]
pub async fn by_time(
    State(state): State<ApiState>,
    caller: Caller,
    Params(params): Params<RangeParams>,
) -> Result<Json<Vec<SecurityEvent>>, Response> {
    let limit = limit(params.limit.as_deref())?;
    let range = range(params.start_time.as_deref(), params.end_time.as_deref())?;
    let which = Which::Where(Condition::new(range, &["time"]));
    Ok(Json(find(&state, tenant(&caller)?, which, limit).await?))
}

/// `GET /api/events/user/{user}`: a user's latest events.
#[utoipa::path(get, path = "/api/events/user/{user}", tag = "streamguard",
    params(("user" = String, Path, description = "The user's name"), LimitParams), responses(
    (status = 200, description = "Newest first", body = Vec<SecurityEvent>),
    (status = 400, description = "A parameter is wrong", body = ErrorBody),
))]
pub async fn by_user(
    State(state): State<ApiState>,
    caller: Caller,
    Path(user): Path<String>,
    Params(params): Params<LimitParams>,
) -> Result<Json<Vec<SecurityEvent>>, Response> {
    let limit = limit(params.limit.as_deref())?;
    Ok(Json(find(&state, tenant(&caller)?, Which::User(user), limit).await?))
}

/// `GET /api/events/counts-by-type`: how many events there are of each type, the 1,000 most frequent.
#[utoipa::path(get, path = "/api/events/counts-by-type", tag = "streamguard", responses(
    (status = 200, description = "Counts by type", body = BTreeMap<String, i64>),
))]
pub async fn by_type(
    State(state): State<ApiState>,
    caller: Caller,
) -> Result<Json<BTreeMap<String, i64>>, Response> {
    let tenant = tenant(&caller)?;
    let text = "SELECT \"type\", count(*) AS n FROM events WHERE \"type\" IS NOT NULL \
                GROUP BY \"type\"";
    let parts = sql::parts(&state, tenant, EVENTS, text, MAX_TYPES).await.map_err(Failure::from)?;
    let mut counts: BTreeMap<String, i64> = BTreeMap::new();
    for row in &parts {
        if let (Some(kind), Some(count)) = (sql::text(row, "type"), sql::integer(row, "n")) {
            *counts.entry(kind).or_default() += count;
        }
    }
    if counts.len() > MAX_LIMIT {
        let mut by_count: Vec<(String, i64)> = counts.into_iter().collect();
        by_count.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        by_count.truncate(MAX_LIMIT);
        counts = by_count.into_iter().collect();
    }
    Ok(Json(counts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(value: Value) -> Row {
        match value {
            Value::Object(row) => row,
            _ => Row::new(),
        }
    }

    #[test]
    fn a_row_becomes_the_documented_model() {
        let event = SecurityEvent::of(&row(json!({
            "event_id": "evt_1", "user": "alice", "micros": 1_696_723_200_000_999_i64,
            "type": "LOGIN_FAILED", "src_ip": "10.0.1.50", "location": "San Francisco, CA",
            "reported": 0.45, "own": 0.9, "user_agent": "curl",
            "metadata.session.id": "s", "metadata.session.port": 22, "metadata.none": null,
        })));
        assert_eq!(
            serde_json::to_value(event).unwrap(),
            json!({
                "eventId": "evt_1", "user": "alice", "timestamp": 1_696_723_200_000_i64,
                "type": "LOGIN_FAILED", "sourceIp": "10.0.1.50",
                "geoLocation": "San Francisco, CA", "threatScore": 0.45,
                "metadata": {"session": {"id": "s", "port": 22}, "user_agent": "curl"},
            })
        );
    }

    #[test]
    fn without_a_reported_score_or_id_ours_stand() {
        let event = SecurityEvent::of(&row(json!({
            "id": "00ff", "micros": -1, "reported": null, "own": 0.9
        })));
        assert_eq!(
            (event.event_id.as_str(), event.threat_score, event.timestamp),
            ("00ff", 0.9, -1)
        );
        assert!(event.metadata.is_empty());
    }

    #[test]
    fn a_path_through_a_plain_value_loses_nothing() {
        let mut object = Map::new();
        nest(&mut object, "a", json!(1));
        nest(&mut object, "a.b", json!(2));
        nest(&mut object, "c.", json!(3));
        assert_eq!(Value::Object(object), json!({"a": 1, "a.b": 2, "c.": 3}));
    }

    #[test]
    fn the_score_condition_needs_only_what_exists() {
        assert_eq!(at_least(true, false, 0.7).needs, ["threat_score"]);
        assert_eq!(at_least(false, true, 0.7).sql, "\"reported_threat_score\" >= 0.7");
        assert!(at_least(true, true, 0.7).sql.contains("IS NULL"));
    }
}
