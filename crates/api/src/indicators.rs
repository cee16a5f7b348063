//! `/api/v1/indicators`: the lists of indicators that a tenant's rows are held against, live; `/api/v1/indicators/match`
//! holds a list against the rows that are stored. Changing needs the scope `admin`, the rest `query`; changes and
//! searches are audited.

pub mod history;

use crate::access::{Admin, Caller, Scope};
use crate::alerts::moment;
use crate::openapi::ProblemDetails;
use crate::state::ApiState;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequest, Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use history::{Search, Sightings};
use palisade_detect::indicators::{Indicators, LIMITS, Level, List, ListInfo, ListSpec, Refused};
use palisade_event::schema::EVENTS;
use palisade_event::time::rfc3339;
use palisade_event::{ErrorClass, TenantId};
use palisade_pipeline::indicators::{ListStatus, WatchError};
use palisade_table::provider::ReadError;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;
use utoipa::{IntoParams, ToSchema};

/// Bytes of a list that may be sent.
pub(crate) const MAX_BODY: usize = LIMITS.file_bytes;
/// How long a list may take to come.
const BODY_TIME: Duration = Duration::from_secs(60);
/// Rows of an indicator that are shown unless asked otherwise, and at most.
const ROWS: usize = 10;
const MAX_ROWS: usize = 1000;

/// A line of a list that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct RefusedLine {
    /// Its number, from 1.
    pub line: usize,
    /// Why, and what to do.
    pub reason: String,
}

impl From<&Refused> for RefusedLine {
    fn from(refused: &Refused) -> Self {
        Self { line: refused.line, reason: refused.reason.clone() }
    }
}

/// A list of indicators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct IndicatorList {
    /// Its name.
    pub name: String,
    /// Whether it is of the configuration, and so for all tenants.
    pub shared: bool,
    /// The level of indicators that bring none.
    pub level: String,
    /// The hash of its content.
    pub hash: String,
    /// How many different indicators it has, by kind.
    pub indicators: BTreeMap<String, usize>,
    /// The first 1,000 lines that were not taken.
    pub refused: Vec<RefusedLine>,
    /// How many lines were not taken.
    pub refused_total: usize,
    /// The generation of the activation that it is in force with (C1).
    pub generation: u64,
}

impl From<ListStatus> for IndicatorList {
    fn from(status: ListStatus) -> Self {
        let ListInfo { spec, kinds, refused, refused_total } = status.info;
        Self {
            shared: spec.tenant.is_none(),
            name: spec.name,
            level: spec.level.name().to_owned(),
            hash: spec.version,
            indicators: kinds
                .iter()
                .map(|(kind, count)| (kind.name().to_owned(), *count))
                .collect(),
            refused: refused.iter().map(RefusedLine::from).collect(),
            refused_total,
            generation: status.generation,
        }
    }
}

/// The lists that are for a tenant's rows.
#[derive(Debug, Serialize, ToSchema)]
pub struct IndicatorLists {
    /// Those of the configuration first, then by name.
    pub lists: Vec<IndicatorList>,
}

/// How a list is taken.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListParams {
    /// The level of indicators that bring none: informational, low, medium (the default), high or critical.
    level: Option<String>,
}

#[expect(clippy::result_large_err, reason = "an answer is what the handler returns anyway")]
fn level_of(caller: &Caller, name: Option<&str>) -> Result<Level, Response> {
    let Some(name) = name else { return Ok(Level::default()) };
    Level::by_name(name).ok_or_else(|| {
        let detail = "level must be informational, low, medium, high or critical";
        caller.problem(StatusCode::BAD_REQUEST, "indicators", "no such level", detail)
    })
}

fn refused(caller: &Caller, error: &WatchError) -> Response {
    let (status, title) = match (error, error.class()) {
        (WatchError::Unknown(_), _) => (StatusCode::NOT_FOUND, "there is no such list"),
        (_, ErrorClass::Permanent) => (StatusCode::BAD_REQUEST, "the list cannot be taken"),
        (_, ErrorClass::Transient) => (StatusCode::SERVICE_UNAVAILABLE, "the catalog is busy"),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "lists cannot be changed"),
    };
    caller.problem(status, "indicators", title, error.to_string())
}

/// Takes a turn and then the list that is sent: few are held in memory at a time, whoever sends them.
async fn receive(
    state: &ApiState,
    caller: &Caller,
    request: Request,
) -> Result<(OwnedSemaphorePermit, Bytes), Response> {
    let turns = std::sync::Arc::clone(state.watchlists.turns());
    let Ok(turn) = turns.try_acquire_owned() else {
        let detail = "other lists are being taken or held against the stored rows: try again later";
        let mut busy =
            caller.problem(StatusCode::TOO_MANY_REQUESTS, "busy", "the server is busy", detail);
        busy.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("5"));
        return Err(busy);
    };
    let body = tokio::time::timeout(BODY_TIME, Bytes::from_request(request, state)).await;
    let body = body.map_err(|_| {
        let detail = format!("the list did not come within {} s", BODY_TIME.as_secs());
        caller.problem(StatusCode::REQUEST_TIMEOUT, "indicators", "too slow", detail)
    })?;
    let body = body.map_err(|error| {
        let detail = format!("{}; a list may have {MAX_BODY} bytes", error.body_text());
        caller.problem(error.status(), "indicators", "the list cannot be read", detail)
    })?;
    Ok((turn, body))
}

/// `GET /api/v1/indicators`: the lists that the tenant's rows are held against.
#[utoipa::path(get, path = "/api/v1/indicators", tag = "indicators", responses(
    (status = 200, description = "The lists", body = IndicatorLists),
    (status = 403, description = "The key lacks the scope query", body = ProblemDetails, content_type = "application/problem+json"),
))]
pub async fn list(State(state): State<ApiState>, caller: Caller) -> Response {
    let tenant = match caller.may(Scope::Query) {
        Ok(tenant) => tenant,
        Err(response) => return response,
    };
    match state.watchlists.lists(tenant.as_str()).await {
        Ok(lists) => {
            Json(IndicatorLists { lists: lists.into_iter().map(IndicatorList::from).collect() })
                .into_response()
        }
        Err(error) => refused(&caller, &error),
    }
}

/// `GET /api/v1/indicators/{list}`: one of the tenant's own lists.
#[utoipa::path(get, path = "/api/v1/indicators/{list}", tag = "indicators",
    params(("list" = String, Path, description = "The list's name")), responses(
    (status = 200, description = "The list, without its lines", body = IndicatorList),
    (status = 403, description = "The key lacks the scope query", body = ProblemDetails, content_type = "application/problem+json"),
    (status = 404, description = "The tenant has no such list", body = ProblemDetails, content_type = "application/problem+json"),
))]
pub async fn show(
    State(state): State<ApiState>,
    caller: Caller,
    Path(name): Path<String>,
) -> Response {
    let tenant = match caller.may(Scope::Query) {
        Ok(tenant) => tenant,
        Err(response) => return response,
    };
    let lists = match state.watchlists.lists(tenant.as_str()).await {
        Ok(lists) => lists,
        Err(error) => return refused(&caller, &error),
    };
    let is_own =
        |list: &&ListStatus| list.info.spec.tenant.is_some() && list.info.spec.name == name;
    match lists.iter().find(is_own) {
        Some(own) => Json(IndicatorList::from(own.clone())).into_response(),
        None => refused(&caller, &WatchError::Unknown(name)),
    }
}

/// `PUT /api/v1/indicators/{list}`: takes a list of the tenant, in the place of the one of that name, and puts it in
/// force: records that are taken from then on are held against it.
#[utoipa::path(put, path = "/api/v1/indicators/{list}", tag = "indicators",
    params(("list" = String, Path, description = "The list's name: 1 to 64 letters, digits, `-`, `_` and `.`"), ListParams),
    request_body(content = String, content_type = "text/plain", description = "One indicator a line, or CSV; see docs/indicators.md"),
    responses(
    (status = 200, description = "The list as it was taken, with the lines that were not", body = IndicatorList),
    (status = 400, description = "No line is an indicator, or the name or level is wrong", body = ProblemDetails, content_type = "application/problem+json"),
    (status = 403, description = "The key lacks the scope admin", body = ProblemDetails, content_type = "application/problem+json"),
    (status = 413, description = "The list is too large", body = ProblemDetails, content_type = "application/problem+json"),
    (status = 429, description = "Other lists are being taken: try again after Retry-After", body = ProblemDetails, content_type = "application/problem+json"),
))]
pub async fn put(
    State(state): State<ApiState>,
    Admin { caller, tenant }: Admin,
    Path(name): Path<String>,
    params: Result<Query<ListParams>, QueryRejection>,
    request: Request,
) -> Response {
    match take(&state, &caller, &tenant, &name, params, request).await {
        Ok(list) => Json(list).into_response(),
        Err(response) => response,
    }
}

async fn take(
    state: &ApiState,
    caller: &Caller,
    tenant: &TenantId,
    name: &str,
    params: Result<Query<ListParams>, QueryRejection>,
    request: Request,
) -> Result<IndicatorList, Response> {
    let Query(params) = params.map_err(|error| {
        caller.problem(error.status(), "indicators", "no such parameters", error.body_text())
    })?;
    let level = level_of(caller, params.level.as_deref())?;
    let (_turn, bytes) = receive(state, caller, request).await?;
    let detail = json!({"bytes": bytes.len(), "level": level.name()});
    caller.audit(state, "indicators:put", name, detail).await?;
    let taken = state.watchlists.put(tenant.as_str(), name, level, bytes.to_vec()).await;
    taken.map(IndicatorList::from).map_err(|error| refused(caller, &error))
}

/// `DELETE /api/v1/indicators/{list}`: takes a list of the tenant out of force.
#[utoipa::path(delete, path = "/api/v1/indicators/{list}", tag = "indicators",
    params(("list" = String, Path, description = "The list's name")), responses(
    (status = 204, description = "It is out of force"),
    (status = 403, description = "The key lacks the scope admin", body = ProblemDetails, content_type = "application/problem+json"),
    (status = 404, description = "The tenant has no such list", body = ProblemDetails, content_type = "application/problem+json"),
))]
pub async fn remove(
    State(state): State<ApiState>,
    Admin { caller, tenant }: Admin,
    Path(name): Path<String>,
) -> Response {
    if let Err(response) = caller.audit(&state, "indicators:delete", &name, json!({})).await {
        return response;
    }
    match state.watchlists.remove(tenant.as_str(), &name).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => refused(&caller, &error),
    }
}

/// Where a list is looked for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct MatchParams {
    /// Event times from here on, RFC 3339; from the beginning when it is not said.
    from: Option<String>,
    /// Up to here, without it; to the end when it is not said.
    to: Option<String>,
    /// Rows that are told of each indicator, 0 to 1000; 10 when it is not said.
    rows: Option<usize>,
    /// The level of indicators that bring none.
    level: Option<String>,
}

/// A row in which an indicator is.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct SightedRow {
    /// The record's id, the column `id` of `events`.
    pub id: String,
    /// Its event time, RFC 3339.
    pub time: String,
    /// The column.
    pub column: String,
    /// The row's value there.
    pub value: String,
}

/// An indicator that was found.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct SightedIndicator {
    /// What it is.
    pub kind: String,
    /// The indicator.
    pub indicator: String,
    /// How bad it is.
    pub level: String,
    /// Where it comes from, as its line says.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// What its line says about it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// How many rows name it; one that names it in two columns counts twice.
    pub count: u64,
    /// The earliest event time of them.
    pub first_time: String,
    /// The latest.
    pub last_time: String,
    /// The earliest of them.
    pub rows: Vec<SightedRow>,
}

/// What a list found in the rows that are stored.
#[derive(Debug, Serialize, ToSchema)]
pub struct MatchAnswer {
    /// The indicators that were found, in the order of their lines.
    pub found: Vec<SightedIndicator>,
    /// How many different indicators were looked for.
    pub indicators: usize,
    /// The first 1,000 lines that were not taken.
    pub refused: Vec<RefusedLine>,
    /// How many lines were not taken.
    pub refused_total: usize,
    /// Rows in which they were looked for.
    pub rows: u64,
    /// Rows that had to be read for that.
    pub rows_read: u64,
    /// Segments in which they were looked for.
    pub segments: usize,
    /// Whether the whole range was looked through: false when the time for it was over.
    pub complete: bool,
    /// How long it took.
    pub seconds: f64,
}

impl MatchAnswer {
    /// What a search found, as it is shown.
    #[must_use]
    pub fn new(set: &Indicators, sightings: Sightings, took: Duration) -> Self {
        let found = sightings.seen.into_iter().filter_map(|(number, seen)| {
            let indicator = set.get(number)?;
            let rows = seen.rows.into_iter().map(|row| SightedRow {
                id: row.record.to_string(),
                time: rfc3339(row.time),
                column: row.column,
                value: row.value,
            });
            Some(SightedIndicator {
                kind: indicator.kind.name().to_owned(),
                indicator: indicator.value(),
                level: indicator.level.name().to_owned(),
                source: indicator.source.to_owned(),
                note: indicator.note.to_owned(),
                count: seen.count,
                first_time: rfc3339(seen.first),
                last_time: rfc3339(seen.last),
                rows: rows.collect(),
            })
        });
        let list = set.lists().first();
        Self {
            found: found.collect(),
            indicators: set.len(),
            refused: list.iter().flat_map(|list| &list.refused).map(RefusedLine::from).collect(),
            refused_total: list.map_or(0, |list| list.refused_total),
            rows: sightings.rows,
            rows_read: sightings.rows_read,
            segments: sightings.segments,
            complete: sightings.complete,
            seconds: took.as_secs_f64(),
        }
    }
}

/// `POST /api/v1/indicators/match`: holds a list against the tenant's rows that are stored. The list is kept nowhere.
#[utoipa::path(post, path = "/api/v1/indicators/match", tag = "indicators", params(MatchParams),
    request_body(content = String, content_type = "text/plain", description = "One indicator a line, or CSV; see docs/indicators.md"),
    responses(
    (status = 200, description = "What was found", body = MatchAnswer),
    (status = 400, description = "A parameter is wrong, or no line is an indicator", body = ProblemDetails, content_type = "application/problem+json"),
    (status = 403, description = "The key lacks the scope query", body = ProblemDetails, content_type = "application/problem+json"),
    (status = 413, description = "The list is too large", body = ProblemDetails, content_type = "application/problem+json"),
    (status = 429, description = "Another search is running: try again after Retry-After", body = ProblemDetails, content_type = "application/problem+json"),
))]
pub async fn search(
    State(state): State<ApiState>,
    caller: Caller,
    params: Result<Query<MatchParams>, QueryRejection>,
    request: Request,
) -> Response {
    match look(&state, &caller, params, request).await {
        Ok(answer) => Json(answer).into_response(),
        Err(response) => response,
    }
}

async fn look(
    state: &ApiState,
    caller: &Caller,
    params: Result<Query<MatchParams>, QueryRejection>,
    request: Request,
) -> Result<MatchAnswer, Response> {
    let tenant = caller.may(Scope::Query)?.clone();
    let wrong = |detail: String| {
        caller.problem(StatusCode::BAD_REQUEST, "indicators", "no such search", detail)
    };
    let Query(params) = params.map_err(|error| wrong(error.body_text()))?;
    let time = |name: &str, text: &Option<String>, none: i64| match text {
        Some(text) => moment(caller, state, name, text),
        None => Ok(none),
    };
    let from = time("from", &params.from, i64::MIN).map_err(|answer| *answer)?;
    let times = from..time("to", &params.to, i64::MAX).map_err(|answer| *answer)?;
    let rows = params.rows.unwrap_or(ROWS);
    if rows > MAX_ROWS {
        return Err(wrong(format!("rows must be 0 to {MAX_ROWS}")));
    }
    let level = level_of(caller, params.level.as_deref())?;
    // Each may hold a list and read whole tables.
    let (turn, bytes) = receive(state, caller, request).await?;
    let detail = json!({"bytes": bytes.len(), "from": params.from, "to": params.to});
    caller.audit(state, "indicators:match", "list", detail).await?;
    // There is none before the first row.
    let snapshot = state.query.snapshot(EVENTS);
    let cache = std::sync::Arc::clone(state.query.cache());
    let limit = state.limits.load().time;
    let searched = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let set = one_list(&bytes, level)?;
        let begun = Instant::now();
        let Some(snapshot) = snapshot else {
            let nothing = Sightings { complete: true, ..Sightings::default() };
            return Ok(MatchAnswer::new(&set, nothing, begun.elapsed()));
        };
        let search = Search {
            set: &set,
            snapshot: &snapshot,
            tenant: &tenant,
            cache: &cache,
            times,
            rows,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            go_on: &|| begun.elapsed() < limit,
        };
        let sightings = search.run().map_err(Unanswered::Read)?;
        Ok(MatchAnswer::new(&set, sightings, begun.elapsed()))
    });
    match searched.await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(Unanswered::List(detail))) => Err(wrong(detail)),
        Ok(Err(Unanswered::Read(error))) => {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            Err(caller.problem(status, "segment", "a segment cannot be read", error.to_string()))
        }
        Err(error) => {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            Err(caller.problem(status, "defect", "the search ended early", error.to_string()))
        }
    }
}

/// Why a search has no answer.
enum Unanswered {
    List(String),
    Read(ReadError),
}

fn one_list(bytes: &[u8], level: Level) -> Result<Indicators, Unanswered> {
    let list = List::parse(bytes).map_err(|error| Unanswered::List(error.to_string()))?;
    if list.is_empty() {
        let refused = list.refused().first();
        let why = refused.map_or_else(
            || "the list is empty".to_owned(),
            |refused| format!("line {}: {}", refused.line, refused.reason),
        );
        return Err(Unanswered::List(format!("no line of the list is an indicator; {why}")));
    }
    let spec = ListSpec { tenant: None, name: String::new(), level, version: String::new() };
    Indicators::build(vec![(spec, list)]).map_err(|error| Unanswered::List(error.to_string()))
}
