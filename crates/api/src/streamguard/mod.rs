//! The REST interface that StreamGuard documents, over the tables `events` and `alerts`, so that its
//! clients go on working: paths, parameters, camelCase models, newest first, errors as
//! `{"error", "message"}`. What differs: a caller sees their own tenant only, `limit` is at most
//! [`MAX_LIMIT`], a query may take ten seconds, and there are no AI analyses (their count is 0).
//!
//! A column that no record has had yet is not in the table; it reads as null, and a condition on it
//! holds for no row.

pub mod anomalies;
pub mod events;
pub mod health;
pub mod stats;

use crate::access::{Caller, Scope};
use crate::sql::{self, Row};
use crate::state::ApiState;
use axum::Json;
use axum::extract::{FromRequestParts, Query};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use palisade_event::{ErrorClass, TenantId};
use palisade_query::QueryError;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use utoipa::{IntoParams, ToSchema};

/// The most rows of one answer.
pub const MAX_LIMIT: usize = 1000;
/// The rows of an answer when none are named.
pub const DEFAULT_LIMIT: usize = 100;
/// From this score on an event counts as a threat, and an anomaly as high.
pub const HIGH_SCORE: f64 = 0.7;

/// An error in StreamGuard's shape.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    /// The kind of error.
    pub error: &'static str,
    /// What is wrong.
    pub message: String,
}

/// Why a request is not answered.
#[derive(Debug)]
pub struct Failure {
    status: StatusCode,
    body: ErrorBody,
}

impl Failure {
    fn parameter(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            body: ErrorBody { error: "Invalid parameter", message: message.into() },
        }
    }

    fn missing(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            body: ErrorBody { error: "Resource not found", message: message.into() },
        }
    }
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Self {
        let (status, kind) = match (&error, error.class()) {
            (QueryError::TooLong { .. }, _) => (StatusCode::BAD_REQUEST, "Invalid parameter"),
            (_, ErrorClass::Transient) => (StatusCode::SERVICE_UNAVAILABLE, "Service unavailable"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "Internal server error"),
        };
        Self { status, body: ErrorBody { error: kind, message: error.to_string() } }
    }
}

impl From<Failure> for Response {
    fn from(failure: Failure) -> Self {
        (failure.status, Json(failure.body)).into_response()
    }
}

/// The parameters of a request; what cannot be read is refused in StreamGuard's shape.
#[derive(Debug)]
pub struct Params<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<ApiState> for Params<T> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Response> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(params)) => Ok(Self(params)),
            Err(error) => Err(Failure::parameter(error.body_text()).into()),
        }
    }
}

/// How many.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct LimitParams {
    /// At most this many, 1 to 1000; 100 when it is not said.
    #[param(value_type = Option<u32>)]
    limit: Option<String>,
}

/// From which score on, and how many.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ScoreParams {
    /// The least threat score, 0.0 to 1.0.
    #[param(value_type = Option<f64>)]
    min_score: Option<String>,
    /// At most this many, 1 to 1000; 100 when it is not said.
    #[param(value_type = Option<u32>)]
    limit: Option<String>,
}

/// From which score on, and how many.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ThresholdParams {
    /// The least anomaly score, 0.0 to 1.0; 0.7 when it is not said.
    #[param(value_type = Option<f64>)]
    threshold: Option<String>,
    /// At most this many, 1 to 1000; 100 when it is not said.
    #[param(value_type = Option<u32>)]
    limit: Option<String>,
}

/// Between which times, and how many.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RangeParams {
    /// At or after this time, milliseconds since the epoch.
    #[param(value_type = i64, required = true)]
    start_time: Option<String>,
    /// At or before this time, milliseconds since the epoch.
    #[param(value_type = i64, required = true)]
    end_time: Option<String>,
    /// At most this many, 1 to 1000; 100 when it is not said.
    #[param(value_type = Option<u32>)]
    limit: Option<String>,
}

fn limit(sent: Option<&str>) -> Result<usize, Failure> {
    let Some(sent) = sent else { return Ok(DEFAULT_LIMIT) };
    sent.parse()
        .ok()
        .filter(|limit| (1..=MAX_LIMIT).contains(limit))
        .ok_or_else(|| Failure::parameter(format!("limit must be between 1 and {MAX_LIMIT}")))
}

fn score(name: &str, sent: Option<&str>, default: Option<f64>) -> Result<f64, Failure> {
    match (sent, default) {
        (Some(sent), _) => sent.parse().ok().filter(|score| (0.0..=1.0).contains(score)),
        (None, default) => default,
    }
    .ok_or_else(|| Failure::parameter(format!("{name} must be between 0.0 and 1.0")))
}

/// The condition that `time` lies in the range, both ends included to the last microsecond.
fn range(start: Option<&str>, end: Option<&str>) -> Result<String, Failure> {
    let millis = |name: &str, sent: Option<&str>| {
        sent.and_then(|sent| sent.parse::<i64>().ok())
            .and_then(|millis| millis.checked_mul(1000))
            .filter(|micros| micros.checked_add(999).is_some())
            .ok_or_else(|| Failure::parameter(format!("{name} must be Unix time in milliseconds")))
    };
    let (start, end) = (millis("start_time", start)?, millis("end_time", end)?);
    if start > end {
        return Err(Failure::parameter("start_time must not be after end_time"));
    }
    Ok(format!(
        "\"time\" >= {} AND \"time\" <= {}",
        sql::moment(start),
        sql::moment(end.saturating_add(999))
    ))
}

/// A condition, and the columns it needs.
#[derive(Clone)]
struct Condition {
    sql: String,
    needs: &'static [&'static str],
}

impl Condition {
    fn new(sql: impl Into<String>, needs: &'static [&'static str]) -> Self {
        Self { sql: sql.into(), needs }
    }
}

/// The caller's tenant, or the refusal.
#[expect(clippy::result_large_err, reason = "an answer is what the handler returns anyway")]
fn tenant(caller: &Caller) -> Result<&TenantId, Response> {
    caller.may(Scope::Query)
}

/// `SELECT … WHERE … ORDER BY time DESC, position DESC LIMIT …` over the columns that exist, renamed
/// by `(column or expression, needed column, name)`; `None` when no row can be meant.
fn select(
    table: &str,
    have: &BTreeSet<String>,
    picks: &[(&str, &str, &str)],
    more: impl Iterator<Item = String>,
    conditions: &[Condition],
    limit: usize,
) -> Option<String> {
    let has = |name: &str| have.contains(name);
    if !has("time") || !conditions.iter().all(|c| c.needs.iter().all(|name| has(name))) {
        return None;
    }
    let picked = picks
        .iter()
        .filter(|(_, needed, _)| has(needed))
        .map(|(what, _, name)| format!("{what} AS {}", sql::identifier(name)));
    let columns: Vec<String> = picked.chain(more).collect();
    let conditions: Vec<String> =
        conditions.iter().map(|condition| format!("({})", condition.sql)).collect();
    let filter = match conditions.is_empty() {
        true => String::new(),
        false => format!(" WHERE {}", conditions.join(" AND ")),
    };
    let order = if has("position") { ", \"position\" DESC" } else { "" };
    Some(format!(
        "SELECT {} FROM {table}{filter} ORDER BY \"time\" DESC{order} LIMIT {limit}",
        columns.join(", ")
    ))
}

/// Picks what a condition says of a column already, an SQL literal, instead of reading the column.
fn known<'a>(picks: &mut [(&'a str, &'a str, &'a str)], column: &str, literal: &'a str) {
    for (what, needed, _) in picks {
        if *needed == column {
            *what = literal;
        }
    }
}

/// Which of the newest rows are asked for, and what of them.
struct Newest<'a> {
    table: &'a str,
    have: &'a BTreeSet<String>,
    picks: &'a [(&'a str, &'a str, &'a str)],
    /// Further columns, as SQL.
    more: Vec<String>,
    limit: usize,
}

/// What is known of where the rows stand.
enum Whereabouts<'a> {
    Anywhere,
    /// Those of a user, a host or an address: a column and the value in it.
    Of(&'a str, &'a str),
    /// Wherever they are, there are very few.
    Few,
}

impl Newest<'_> {
    fn select(&self, conditions: &[Condition]) -> Option<String> {
        let more = self.more.iter().cloned();
        select(self.table, self.have, self.picks, more, conditions, self.limit)
    }

    /// The newest rows that meet all conditions, as [`select`] shows them.
    async fn rows(
        &self,
        state: &ApiState,
        tenant: &TenantId,
        conditions: Vec<Condition>,
        whereabouts: Whereabouts<'_>,
    ) -> Result<Vec<Row>, Failure> {
        let Whereabouts::Of(column, value) = whereabouts else {
            let few = matches!(whereabouts, Whereabouts::Few);
            return self.found(state, tenant, conditions, few).await;
        };
        let limits = sql::limits(state, self.limit);
        let reach = state.query.reach(tenant, self.table, (column, value), self.limit, limits);
        let Some(reach) = reach.await? else {
            return self.found(state, tenant, conditions, false).await;
        };
        let Some(since) = reach.since else {
            return self.found(state, tenant, conditions, reach.scattered).await;
        };
        let bound =
            |op: &str| Condition::new(format!("\"time\" {op} {}", sql::moment(since)), &["time"]);
        let mut near = conditions.clone();
        near.push(bound(">="));
        let mut found = self.found(state, tenant, near, reach.scattered).await?;
        if found.len() < self.limit {
            // The estimate was too near.
            let mut far = conditions;
            far.push(bound("<"));
            found.extend(self.found(state, tenant, far, false).await?);
            found.truncate(self.limit);
        }
        Ok(found)
    }

    /// The newest rows that meet all conditions. Few rows that stand in a page each are read at once.
    async fn found(
        &self,
        state: &ApiState,
        tenant: &TenantId,
        conditions: Vec<Condition>,
        few: bool,
    ) -> Result<Vec<Row>, Failure> {
        if !few {
            return self.in_two_steps(state, tenant, conditions).await;
        }
        let Some(text) = self.select(&conditions) else { return Ok(Vec::new()) };
        Ok(sql::rows(state, tenant, &text, self.limit).await?)
    }

    /// At first only the span of time of so many rows is looked for, in the columns of the conditions; then
    /// all columns are read of what lies in it, which is few pages.
    async fn in_two_steps(
        &self,
        state: &ApiState,
        tenant: &TenantId,
        mut conditions: Vec<Condition>,
    ) -> Result<Vec<Row>, Failure> {
        const TIME: [(&str, &str, &str); 1] = [("\"time\"", "time", "time")];
        let none = std::iter::empty();
        let Some(times) = select(self.table, self.have, &TIME, none, &conditions, self.limit)
        else {
            return Ok(Vec::new());
        };
        let text = format!(
            "SELECT CAST(min(\"time\") AS BIGINT) AS since, \
             CAST(max(\"time\") AS BIGINT) AS until FROM ({times})"
        );
        let span = sql::rows(state, tenant, &text, 1).await?;
        let bound = |name| span.first().and_then(|row| sql::integer(row, name));
        let (Some(since), Some(until)) = (bound("since"), bound("until")) else {
            return Ok(Vec::new());
        };
        let span =
            format!("\"time\" >= {} AND \"time\" <= {}", sql::moment(since), sql::moment(until));
        conditions.push(Condition::new(span, &["time"]));
        let Some(text) = self.select(&conditions) else { return Ok(Vec::new()) };
        Ok(sql::rows(state, tenant, &text, self.limit).await?)
    }
}

/// How many rows of a table a condition holds for.
async fn count(
    state: &ApiState,
    tenant: &TenantId,
    table: &str,
    condition: Option<Condition>,
) -> Result<i64, Failure> {
    let have = sql::columns(state, tenant, table).await?;
    let filter = match condition {
        _ if have.is_empty() => return Ok(0),
        Some(condition) if !condition.needs.iter().all(|name| have.contains(*name)) => {
            return Ok(0);
        }
        Some(condition) => format!(" WHERE {}", condition.sql),
        None => String::new(),
    };
    let text = format!("SELECT count(*) AS n FROM {table}{filter}");
    let parts = sql::parts(state, tenant, table, &text, 1).await?;
    Ok(parts.iter().filter_map(|row| sql::integer(row, "n")).sum())
}

/// The condition that an event, or an alert's, has this id of its sender.
fn has_event_id(id: &str) -> Condition {
    Condition::new(format!("\"event_id\" = {}", sql::literal(id)), &["event_id"])
}

/// The one that was found, or the answer that there is none; `what` and the id say of what.
fn only<T>(found: Vec<T>, what: &str, id: &str) -> Result<T, Failure> {
    let missing = || {
        let shown: String = id.chars().take(128).collect();
        Failure::missing(format!("{what} {shown} not found"))
    };
    found.into_iter().next().ok_or_else(missing)
}

/// Whether a text may be the id of a record of ours: 32 hexadecimal digits.
fn is_record_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn columns(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn limits_and_scores_are_bounded() {
        assert_eq!(limit(None).unwrap(), 100);
        assert_eq!(limit(Some("1000")).unwrap(), 1000);
        for bad in ["0", "1001", "-1", "x", ""] {
            let failure = limit(Some(bad)).unwrap_err();
            assert_eq!(failure.status, StatusCode::BAD_REQUEST, "{bad}");
            assert_eq!(failure.body.error, "Invalid parameter");
        }
        assert_eq!(score("threshold", None, Some(0.7)).unwrap(), 0.7);
        assert_eq!(score("threshold", Some("1"), None).unwrap(), 1.0);
        for bad in ["1.1", "-0.1", "NaN", "x"] {
            assert!(score("threshold", Some(bad), Some(0.7)).is_err(), "{bad}");
        }
        let missing = score("min_score", None, None).unwrap_err();
        assert_eq!(missing.body.message, "min_score must be between 0.0 and 1.0");
    }

    #[test]
    fn ranges_take_both_ends_whole() {
        let sql = range(Some("1"), Some("2")).unwrap();
        assert!(
            sql.contains("CAST(1000 AS BIGINT)") && sql.contains("CAST(2999 AS BIGINT)"),
            "{sql}"
        );
        assert!(range(Some("2"), Some("1")).is_err());
        assert!(range(None, Some("1")).is_err());
        assert!(range(Some("1"), Some("9223372036854775807")).is_err());
    }

    #[test]
    fn a_select_has_only_columns_that_exist() {
        let picks = [("\"user\"", "user", "user"), ("\"src_ip\"", "src_ip", "sourceIp")];
        let some = select(
            "events",
            &columns(&["time", "position", "user"]),
            &picks,
            std::iter::once("\"metadata.a\"".to_owned()),
            &[Condition::new("\"user\" = 'a'", &["user"])],
            5,
        );
        assert_eq!(
            some.as_deref(),
            Some(
                "SELECT \"user\" AS \"user\", \"metadata.a\" FROM events WHERE (\"user\" = 'a') \
                 ORDER BY \"time\" DESC, \"position\" DESC LIMIT 5"
            )
        );
        let absent = Condition::new("\"src_ip\" = 'a'", &["src_ip"]);
        let have = columns(&["time", "user"]);
        assert_eq!(select("events", &have, &picks, std::iter::empty(), &[absent], 5), None);
        assert_eq!(select("events", &columns(&[]), &picks, std::iter::empty(), &[], 5), None);
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(only(vec![7, 8], "Event with ID", "x").unwrap(), 7);
        let failure = only(Vec::<u8>::new(), "Event with ID", &"y".repeat(500)).unwrap_err();
        assert_eq!(failure.status, StatusCode::NOT_FOUND);
        assert_eq!(failure.body.message, format!("Event with ID {} not found", "y".repeat(128)));
        assert_eq!(has_event_id("evt'1").sql, "\"event_id\" = 'evt''1'");
    }

    #[test]
    fn record_ids_are_told_from_other_ids() {
        assert!(is_record_id("0123456789abcdef0123456789abcdef"));
        assert!(!is_record_id("0123456789ABCDEF0123456789abcdef"));
        assert!(!is_record_id("evt_1"));
    }

    /// Parameters as a request brings them: any text, encoded or not.
    fn parameters() -> impl Strategy<Value = String> {
        const NAMES: &[&str] =
            &["limit", "min_score", "threshold", "start_time", "end_time", "other", ""];
        const VALUES: &[&str] = &[
            "0",
            "1",
            "1000",
            "1001",
            "-1",
            "00007",
            "+5",
            "1e3",
            "0.5",
            "-0.0",
            "NaN",
            "inf",
            "1e-400",
            "9223372036854775807",
            "-9223372036854775808",
            "9223372036854775",
            "-9223372036854775",
            "%31",
            "%00",
            "%",
            "%zz",
            "a'--",
            "1;2",
            "1 OR 1=1",
            "%F0%9F%98%80",
        ];
        let value = prop_oneof![
            prop::sample::select(VALUES).prop_map(str::to_owned),
            any::<i64>().prop_map(|number| number.to_string()),
            any::<f64>().prop_map(|number| number.to_string()),
            prop::collection::vec(
                prop::sample::select(b"0123456789abcXYZ%+-._~&=;!'".as_slice()),
                0..20
            )
            .prop_map(|bytes| bytes.into_iter().map(char::from).collect()),
        ];
        let pair = (prop::sample::select(NAMES), value);
        prop::collection::vec(pair, 0..6).prop_map(|pairs| {
            let pairs: Vec<String> =
                pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
            pairs.join("&").replace(' ', "+")
        })
    }

    fn parsed<T: DeserializeOwned>(query: &str) -> Option<T> {
        let uri: axum::http::Uri = format!("/api/events?{query}").parse().ok()?;
        Query::<T>::try_from_uri(&uri).ok().map(|Query(params)| params)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]

        #[test]
        fn any_parameters_are_taken_within_their_bounds_or_refused(query in parameters()) {
            if let Some(params) = parsed::<LimitParams>(&query)
                && let Ok(limit) = limit(params.limit.as_deref())
            {
                prop_assert!((1..=MAX_LIMIT).contains(&limit));
            }
            if let Some(params) = parsed::<ScoreParams>(&query)
                && let Ok(score) = score("min_score", params.min_score.as_deref(), None)
            {
                prop_assert!((0.0..=1.0).contains(&score));
            }
            if let Some(params) = parsed::<ThresholdParams>(&query)
                && let Ok(score) = score("threshold", params.threshold.as_deref(), Some(0.7))
            {
                prop_assert!((0.0..=1.0).contains(&score));
            }
            if let Some(params) = parsed::<RangeParams>(&query)
                && let Ok(sql) = range(params.start_time.as_deref(), params.end_time.as_deref())
            {
                // Numbers and the fixed words around them, nothing of what was sent.
                let words = sql.replace(|c: char| c.is_ascii_digit() || c == '-', "");
                prop_assert_eq!(
                    words,
                    "\"time\" >= to_timestamp_micros(CAST( AS BIGINT)) AND \
                     \"time\" <= to_timestamp_micros(CAST( AS BIGINT))"
                );
            }
        }

        #[test]
        fn any_text_stays_within_its_quotes(text in prop::collection::vec(any::<char>(), 0..40)) {
            let text = String::from_iter(text);
            let literal = sql::literal(&text);
            let inner = literal.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
            // Quotes stand in pairs only, and undoubled they are the text.
            prop_assert_eq!(inner.map(|inner| inner.replace("''", "'")), Some(text));
            let single = inner.is_some_and(|inner| inner.replace("''", "").contains('\''));
            prop_assert!(!single);
        }
    }
}
