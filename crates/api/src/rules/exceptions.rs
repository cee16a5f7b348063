//! `/api/v1/rules/exceptions`: filters that leave out a tenant's matches of some rules.

use super::{InForceView, failed, unread, wrong};
use crate::access::{Admin, Caller, Scope};
use crate::alerts::one::actor;
use crate::openapi::ProblemDetails;
use crate::state::ApiState;
use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use palisade_event::time::{parse_event_time, rfc3339};
use palisade_pipeline::rules::RuleException;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

/// An exception.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ExceptionView {
    /// Its name.
    pub name: String,
    /// The Sigma filter: a match stays where its condition holds.
    pub filter: String,
    /// Who made it.
    pub author: String,
    /// Why.
    pub reason: String,
    /// Up to which clock of a record it holds, RFC 3339; null without an end.
    pub until: Option<String>,
}

/// The exceptions of a tenant.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExceptionList {
    /// By name.
    pub exceptions: Vec<ExceptionView>,
}

/// An exception to be made: with `filter`, or with `rules` and `matching`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewException {
    /// Its name; another of the tenant with this name is replaced.
    pub name: String,
    /// A Sigma filter in YAML. Its condition says what stays: `not selection` leaves out what the selection matches.
    #[serde(default)]
    pub filter: Option<String>,
    /// The ids of the rules that it is for.
    #[serde(default)]
    pub rules: Vec<String>,
    /// A selection of Sigma, fields and values: matches that fulfil it are left out.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub matching: Option<Map<String, Value>>,
    /// Why.
    pub reason: String,
    /// Up to which clock of a record it holds, RFC 3339; without an end if none.
    #[serde(default)]
    pub until: Option<String>,
}

/// `GET /api/v1/rules/exceptions`: the tenant's exceptions.
#[utoipa::path(get, path = "/api/v1/rules/exceptions", tag = "rules", responses(
    (status = 200, description = "The exceptions", body = ExceptionList),
))]
pub async fn list(State(state): State<ApiState>, caller: Caller) -> Response {
    let tenant = match caller.may(Scope::Query) {
        Ok(tenant) => tenant,
        Err(response) => return response,
    };
    let changed = state.rules.changed_by(tenant.as_str());
    let exceptions = changed.exceptions.into_iter().map(|(name, of)| ExceptionView {
        name,
        filter: of.filter,
        author: of.author,
        reason: of.reason,
        until: of.until.map(rfc3339),
    });
    Json(ExceptionList { exceptions: exceptions.collect() }).into_response()
}

/// `POST /api/v1/rules/exceptions`: makes an exception, in force when the answer comes.
#[utoipa::path(post, path = "/api/v1/rules/exceptions", tag = "rules", request_body = NewException, responses(
    (status = 200, description = "It is in force", body = InForceView),
    (status = 400, description = "The filter is wrong, or for no rule", body = ProblemDetails, content_type = "application/problem+json"),
    (status = 403, description = "The key lacks the scope admin", body = ProblemDetails, content_type = "application/problem+json"),
))]
pub async fn make(
    State(state): State<ApiState>,
    Admin { caller, tenant }: Admin,
    request: Result<Json<NewException>, JsonRejection>,
) -> Response {
    let Json(request) = match request {
        Ok(request) => request,
        Err(error) => return unread(&caller, &error),
    };
    let until = match &request.until {
        None => None,
        Some(text) => match parse_event_time(text, state.clock.now()) {
            Some(time) => Some(time),
            None => return wrong(&caller, "until must be a time such as 2026-01-31T08:00:00Z"),
        },
    };
    let filter = match (request.filter, request.matching) {
        (Some(filter), None) if request.rules.is_empty() => filter,
        // JSON is YAML, and needs no quoting of our own.
        (None, Some(matching)) if !request.rules.is_empty() => json!({
            "title": request.name,
            "filter": {"rules": request.rules, "selection": matching, "condition": "not selection"},
        })
        .to_string(),
        _ => return wrong(&caller, "give either filter, or rules and matching"),
    };
    let detail = json!({"filter": filter, "reason": request.reason, "until": until.map(rfc3339)});
    if let Err(response) = caller.audit(&state, "rule:except", &request.name, detail).await {
        return response;
    }
    let author = actor(&caller).to_owned();
    let exception = RuleException { filter, author, reason: request.reason, until };
    match state.rules.except(tenant.as_str(), &request.name, exception).await {
        Ok(current) => Json(InForceView::from(current.as_ref())).into_response(),
        Err(error) => failed(&caller, &error),
    }
}

/// `DELETE /api/v1/rules/exceptions/{name}`: ends an exception.
#[utoipa::path(delete, path = "/api/v1/rules/exceptions/{name}", tag = "rules",
    params(("name" = String, Path, description = "The exception's name")), responses(
    (status = 200, description = "It is out of force", body = InForceView),
    (status = 403, description = "The key lacks the scope admin", body = ProblemDetails, content_type = "application/problem+json"),
    (status = 404, description = "The tenant has no such exception", body = ProblemDetails, content_type = "application/problem+json"),
))]
pub async fn end(
    State(state): State<ApiState>,
    Admin { caller, tenant }: Admin,
    Path(name): Path<String>,
) -> Response {
    if let Err(response) = caller.audit(&state, "rule:end-exception", &name, json!({})).await {
        return response;
    }
    match state.rules.end_exception(tenant.as_str(), &name).await {
        Ok(current) => Json(InForceView::from(current.as_ref())).into_response(),
        Err(error) => failed(&caller, &error),
    }
}
