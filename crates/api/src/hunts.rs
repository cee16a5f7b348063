//! `/api/v1/hunts`: rules over the tenant's stored history. A hunt is asked for, worked off in the background, watched,
//! and its alerts are read in pages.

use crate::access::{Caller, Scope};
use crate::alerts::{moment, wrong};
use crate::keys::refused;
use crate::openapi::ProblemDetails;
use crate::state::ApiState;
use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use palisade_catalog::CatalogError;
use palisade_event::time::rfc3339;
use palisade_pipeline::hunt::jobs::{HuntJob, HuntRequest, HuntRules, JobError, ResultPage};
use palisade_pipeline::rules::RuleFile;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use utoipa::{IntoParams, ToSchema};

/// Bytes of a request: all rules of a large collection fit.
pub(crate) const MAX_BODY: usize = 20 << 20;
/// Texts and ids in a request.
const MOST: usize = 100_000;
/// Results of a page, and at most.
const PAGE: u64 = 1_000;
const MOST_PAGE: u64 = 10_000;

/// With which rules is hunted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum RuleChoice {
    /// `in_force`: those in force when the hunt begins, with what the tenant has disabled and graded otherwise.
    Word(String),
    /// YAML texts of rules, filters and correlations, as they are.
    Texts(Vec<String>),
    /// Of those in force the ones with these ids, and what their correlations refer to.
    Chosen(ChosenRules),
}

/// Rules by their ids.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChosenRules {
    /// The ids.
    pub ids: BTreeSet<String>,
}

/// A hunt to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewHunt {
    /// With which rules; those in force when it is not said.
    #[serde(default)]
    pub rules: Option<RuleChoice>,
    /// From which event time on, RFC 3339; from the first row when it is not said.
    #[serde(default)]
    pub from: Option<String>,
    /// Up to which event time; now when it is not said.
    #[serde(default)]
    pub to: Option<String>,
    /// Whether correlations also count records that came too late for the stream.
    #[serde(default)]
    pub include_late: bool,
}

/// How far a hunt is.
#[derive(Debug, Serialize, ToSchema)]
pub struct HuntProgress {
    /// Rows to decide about, those that no rule can match among them.
    pub rows: u64,
    /// Rows decided about.
    pub rows_done: u64,
    /// Bytes of the segments with those rows.
    pub bytes: u64,
    /// Bytes that are done.
    pub bytes_done: u64,
    /// Seconds at work.
    pub seconds: f64,
    /// Rows decided about in a second.
    pub rows_per_second: f64,
    /// Matches of rules that are alerts by themselves.
    pub matches: u64,
}

/// A hunt. Times are RFC 3339.
#[derive(Debug, Serialize, ToSchema)]
pub struct HuntView {
    /// 32 hexadecimal digits.
    pub id: String,
    /// `queued`, `running`, `done`, `failed`, `cancelled`, or `interrupted` (the server ended while it ran).
    pub state: &'static str,
    /// With which rules: `in_force`, `ids` or `own`.
    pub rules: &'static str,
    /// From which event time on; null: from the first row.
    pub from: Option<String>,
    /// Up to which event time.
    pub to: String,
    /// Whether correlations also count late records.
    pub include_late: bool,
    /// Who asked for it.
    pub actor: String,
    /// When it was asked for.
    pub created_at: String,
    /// When it began.
    pub started_at: Option<String>,
    /// When it was over.
    pub ended_at: Option<String>,
    /// How far it is.
    pub progress: HuntProgress,
    /// How many alerts it found; known at the end.
    pub alerts: u64,
    /// How many of them are kept as results, the first by time.
    pub results: u64,
    /// Whether there are more than are kept.
    pub cut: bool,
    /// How many alerts each rule and correlation has, by id; known at the end.
    pub by_rule: BTreeMap<String, u64>,
    /// How many documents among the rules could not be taken.
    pub refused_rules: u64,
    /// Why it failed.
    pub error: Option<String>,
}

impl From<HuntJob> for HuntView {
    fn from(job: HuntJob) -> Self {
        let HuntJob { record, request, figures } = job;
        let rate = figures.rows_done as f64 / figures.seconds.max(1e-3);
        Self {
            id: record.id,
            state: record.state.name(),
            rules: match request.rules {
                HuntRules::InForce => "in_force",
                HuntRules::Ids(_) => "ids",
                HuntRules::Own => "own",
            },
            from: request.from.map(rfc3339),
            to: rfc3339(request.to),
            include_late: request.include_late,
            actor: record.actor,
            created_at: rfc3339(record.created_at),
            started_at: record.started_at.map(rfc3339),
            ended_at: record.ended_at.map(rfc3339),
            progress: HuntProgress {
                rows: figures.rows,
                rows_done: figures.rows_done,
                bytes: figures.bytes,
                bytes_done: figures.bytes_done,
                seconds: figures.seconds,
                rows_per_second: rate.round(),
                matches: figures.matches,
            },
            alerts: figures.alerts,
            results: figures.results,
            cut: figures.cut,
            by_rule: figures.by_rule,
            refused_rules: figures.refused_rules,
            error: Some(record.error).filter(|error| !error.is_empty()),
        }
    }
}

/// The hunts of a tenant.
#[derive(Debug, Serialize, ToSchema)]
pub struct HuntList {
    /// The newest first, without the counts of single rules.
    pub hunts: Vec<HuntView>,
}

/// A page of what a hunt found.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "it describes an answer that is put together from texts")]
pub struct HuntResults {
    /// Alerts by time and id, each with the columns of the table `alerts`.
    #[schema(value_type = Vec<Object>)]
    pub alerts: Vec<()>,
    /// The cursor of the next page; null after the last.
    pub next: Option<String>,
}

/// Which page.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ResultParams {
    /// `next` of the page before.
    cursor: Option<String>,
    /// At most this many, 1 to 10,000; 1,000 when it is not said.
    limit: Option<u64>,
}

/// The answer to what can't be done with a hunt.
fn failed(caller: &Caller, error: &JobError) -> Response {
    let (status, slug, title) = match error {
        JobError::Catalog(CatalogError::Busy(_)) => {
            let detail = format!("{error}: wait for one, or cancel one");
            let (status, title) = (StatusCode::TOO_MANY_REQUESTS, "too many hunts");
            return caller.problem(status, "hunts", title, detail);
        }
        JobError::Catalog(error) => return refused(caller, error),
        JobError::Invalid(reason) => return wrong(caller, reason.clone()),
        JobError::NoResults(_) => (StatusCode::CONFLICT, "results", "there are no results"),
        JobError::Io { .. } | JobError::Stopped => {
            (StatusCode::SERVICE_UNAVAILABLE, "hunts", "the hunt can't be served")
        }
    };
    caller.problem(status, slug, title, error.to_string())
}

/// `POST /api/v1/hunts`: asks for a hunt. It waits for the hunts before it, and is watched under `Location`.
#[utoipa::path(post, path = "/api/v1/hunts", tag = "hunts", request_body = NewHunt, responses(
    (status = 202, description = "It waits or runs", body = HuntView),
    (status = 400, description = "Rules or times are wrong", body = ProblemDetails, content_type = "application/problem+json"),
    (status = 413, description = "The rules are too large", body = ProblemDetails, content_type = "application/problem+json"),
    (status = 429, description = "The tenant has too many hunts that are not over", body = ProblemDetails, content_type = "application/problem+json"),
))]
pub async fn make(
    State(state): State<ApiState>,
    caller: Caller,
    request: Result<Json<NewHunt>, JsonRejection>,
) -> Response {
    match ask(&state, &caller, request).await {
        Ok(job) => {
            let place = HeaderValue::from_str(&format!("/api/v1/hunts/{}", job.record.id));
            let mut response = (StatusCode::ACCEPTED, Json(HuntView::from(job))).into_response();
            if let Ok(place) = place {
                response.headers_mut().insert(header::LOCATION, place);
            }
            response
        }
        Err(response) => *response,
    }
}

async fn ask(
    state: &ApiState,
    caller: &Caller,
    request: Result<Json<NewHunt>, JsonRejection>,
) -> Result<HuntJob, Box<Response>> {
    let tenant = caller.may(Scope::Query).map_err(Box::new)?;
    let Json(request) = request.map_err(|error| {
        Box::new(caller.problem(error.status(), "hunt", "no hunt", error.body_text()))
    })?;
    let time = |name: &str, text: &Option<String>| {
        text.as_deref().map(|text| moment(caller, state, name, text)).transpose()
    };
    let from = time("from", &request.from)?;
    let to = time("to", &request.to)?.unwrap_or_else(|| state.clock.now());
    let bad = |detail: String| Box::new(wrong(caller, detail));
    let (rules, own) = match request.rules {
        None => (HuntRules::InForce, None),
        Some(RuleChoice::Word(word)) if word == "in_force" => (HuntRules::InForce, None),
        Some(RuleChoice::Word(word)) => {
            let word: String = word.chars().take(40).collect();
            return Err(bad(format!("rules is 'in_force', a list of texts, or ids; not '{word}'")));
        }
        Some(RuleChoice::Chosen(ChosenRules { ids })) => {
            let fine = |id: &String| (1..=1_024).contains(&id.len());
            if ids.is_empty() || ids.len() > 1_000 || !ids.iter().all(fine) {
                return Err(bad("name 1 to 1000 ids of at most 1024 bytes".to_owned()));
            }
            (HuntRules::Ids(ids), None)
        }
        Some(RuleChoice::Texts(texts)) => {
            if texts.is_empty() || texts.len() > MOST {
                return Err(bad(format!("rules needs 1 to {MOST} texts")));
            }
            let file = |(number, text)| RuleFile { name: format!("rules[{number:05}]"), text };
            let files: Vec<RuleFile> = texts.into_iter().enumerate().map(file).collect();
            (HuntRules::Own, Some(files))
        }
    };
    let request = HuntRequest { rules, from, to, include_late: request.include_late };
    let detail = json!({
        "from": from.map(rfc3339), "to": rfc3339(to), "include_late": request.include_late,
        "texts": own.as_ref().map(Vec::len),
        "ids": match &request.rules { HuntRules::Ids(ids) => Some(ids.len()), _ => None },
    });
    caller.audit(state, "hunt:create", "hunt", detail).await.map_err(Box::new)?;
    let actor = caller.principal.key_id.as_deref().unwrap_or("local");
    let made = state.hunts.submit(tenant, actor, &request, own).await;
    made.map_err(|error| Box::new(failed(caller, &error)))
}

/// `GET /api/v1/hunts`: the tenant's hunts that are kept.
#[utoipa::path(get, path = "/api/v1/hunts", tag = "hunts", responses(
    (status = 200, description = "The hunts", body = HuntList),
))]
pub async fn list(State(state): State<ApiState>, caller: Caller) -> Response {
    let tenant = match caller.may(Scope::Query) {
        Ok(tenant) => tenant,
        Err(response) => return response,
    };
    match state.hunts.list(tenant).await {
        Ok(jobs) => {
            let hunts = jobs.into_iter().map(|job| {
                let view = HuntView::from(job);
                HuntView { by_rule: BTreeMap::new(), ..view }
            });
            Json(HuntList { hunts: hunts.collect() }).into_response()
        }
        Err(error) => failed(&caller, &error),
    }
}

/// `GET /api/v1/hunts/{id}`: where a hunt stands.
#[utoipa::path(get, path = "/api/v1/hunts/{id}", tag = "hunts",
    params(("id" = String, Path, description = "The hunt's id")), responses(
    (status = 200, description = "The hunt", body = HuntView),
    (status = 404, description = "The tenant has no such hunt", body = ProblemDetails, content_type = "application/problem+json"),
))]
pub async fn show(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Response {
    let tenant = match caller.may(Scope::Query) {
        Ok(tenant) => tenant,
        Err(response) => return response,
    };
    match state.hunts.get(tenant, &id).await {
        Ok(job) => Json(HuntView::from(job)).into_response(),
        Err(error) => failed(&caller, &error),
    }
}

/// `DELETE /api/v1/hunts/{id}`: ends a hunt. One that is over is forgotten with what it found.
#[utoipa::path(delete, path = "/api/v1/hunts/{id}", tag = "hunts",
    params(("id" = String, Path, description = "The hunt's id")), responses(
    (status = 204, description = "It is over, or forgotten"),
    (status = 404, description = "The tenant has no such hunt", body = ProblemDetails, content_type = "application/problem+json"),
))]
pub async fn end(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Response {
    let tenant = match caller.may(Scope::Query) {
        Ok(tenant) => tenant.clone(),
        Err(response) => return response,
    };
    if let Err(response) = caller.audit(&state, "hunt:end", &id, json!({})).await {
        return response;
    }
    match state.hunts.cancel(&tenant, &id).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => failed(&caller, &error),
    }
}

/// `GET /api/v1/hunts/{id}/results`: a page of what a hunt found, by time and id.
#[utoipa::path(get, path = "/api/v1/hunts/{id}/results", tag = "hunts",
    params(("id" = String, Path, description = "The hunt's id"), ResultParams), responses(
    (status = 200, description = "A page", body = HuntResults),
    (status = 404, description = "The tenant has no such hunt", body = ProblemDetails, content_type = "application/problem+json"),
    (status = 409, description = "It is not done", body = ProblemDetails, content_type = "application/problem+json"),
))]
pub async fn results(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<String>,
    params: Result<Query<ResultParams>, QueryRejection>,
) -> Response {
    let tenant = match caller.may(Scope::Query) {
        Ok(tenant) => tenant.clone(),
        Err(response) => return response,
    };
    let Query(ResultParams { cursor, limit }) = match params {
        Ok(params) => params,
        Err(error) => return wrong(&caller, error.body_text()),
    };
    let limit = limit.unwrap_or(PAGE);
    if !(1..=MOST_PAGE).contains(&limit) {
        return wrong(&caller, format!("limit must be 1 to {MOST_PAGE}"));
    }
    let Ok(from) = cursor.as_deref().unwrap_or("0").parse::<u64>() else {
        return wrong(&caller, "cursor must be 'next' of an earlier page");
    };
    let detail = json!({"cursor": from, "limit": limit});
    if let Err(response) = caller.audit(&state, "hunt:results", &id, detail).await {
        return response;
    }
    match state.hunts.results(&tenant, &id, from, limit).await {
        Ok(ResultPage { alerts, next }) => {
            let next = next.map_or("null".to_owned(), |next| format!("\"{next}\""));
            let body = format!("{{\"alerts\":[{}],\"next\":{next}}}", alerts.join(","));
            ([(header::CONTENT_TYPE, "application/json")], body).into_response()
        }
        Err(error) => failed(&caller, &error),
    }
}
