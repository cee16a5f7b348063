//! Deploying rules, removing them, and what a tenant changes about one: whether it is enabled, and its severity.

use super::{InForceView, OwnerParams, RefusalView, SentFile, failed, owner, unread, wrong};
use crate::access::Admin;
use crate::openapi::ProblemDetails;
use crate::state::ApiState;
use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use palisade_pipeline::rules::RuleFile;
use palisade_pipeline::rules::deploy::{Backfill, DeployError};
use palisade_sigma::Level;
use palisade_sigma::load::parts;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

/// Documents to be deployed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeployRequest {
    /// Files with them.
    pub files: Vec<SentFile>,
    /// Whether a document of an id that is deployed with another text takes its place.
    #[serde(default)]
    pub replace: bool,
    /// Read history for those that are new or changed (B1), beside the records that come: their alerts about what was
    /// stored before are marked historical, and nobody is told of them unless a route asks for that.
    #[serde(default)]
    pub backfill: Option<BackfillRequest>,
}

/// What is to be read of history.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BackfillRequest {
    /// Records with an event time from here on, milliseconds since the epoch; without it, all.
    #[serde(default)]
    pub from: Option<i64>,
}

/// A document to be deployed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleText {
    /// Sigma in YAML: one document.
    pub text: String,
}

/// What became of documents that were to be deployed.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeployAnswer {
    /// What is in force now; durable.
    #[serde(flatten)]
    pub in_force: InForceView,
    /// The ids of those that are new or changed.
    pub deployed: Vec<String>,
    /// The ids of those that were deployed already.
    pub unchanged: Vec<String>,
    /// Those that were not taken.
    pub refused: Vec<RefusalView>,
    /// Other documents that were loaded before and are not any more.
    pub broken: Vec<RefusalView>,
}

/// What a tenant changes about a rule. What is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleChange {
    /// Whether it is enabled for the tenant.
    #[serde(default)]
    pub enabled: Option<bool>,
    /// Its severity for the tenant: `informational`, `low`, `medium`, `high`, `critical`, or `original`.
    #[serde(default)]
    pub severity: Option<String>,
}

/// `POST /api/v1/rules`: deploys rules, filters and correlations. Those that are wrong are left out, with file, line and
/// a hint; the others are in force when the answer comes.
#[utoipa::path(post, path = "/api/v1/rules", tag = "rules", params(OwnerParams), request_body = DeployRequest, responses(
    (status = 200, description = "What became of each document", body = DeployAnswer),
    (status = 409, description = "A backfill is under way", body = ProblemDetails, content_type = "application/problem+json"),
    (status = 400, description = "A bound is passed", body = ProblemDetails, content_type = "application/problem+json"),
    (status = 403, description = "The key lacks the scope admin, or is not of the tenant default", body = ProblemDetails, content_type = "application/problem+json"),
    (status = 503, description = "It is noted, and in force as soon as log and catalog work", body = ProblemDetails, content_type = "application/problem+json"),
))]
pub async fn deploy(
    State(state): State<ApiState>,
    Admin { caller, tenant }: Admin,
    params: Result<Query<OwnerParams>, QueryRejection>,
    request: Result<Json<DeployRequest>, JsonRejection>,
) -> Response {
    let params = match params {
        Ok(Query(params)) => params,
        Err(error) => return wrong(&caller, error.body_text()),
    };
    let owner = match owner(&caller, &tenant, params.owner) {
        Ok(owner) => owner,
        Err(response) => return response,
    };
    let Json(DeployRequest { files, replace, backfill }) = match request {
        Ok(request) => request,
        Err(error) => return unread(&caller, &error),
    };
    let files: Vec<RuleFile> = files.into_iter().map(RuleFile::from).collect();
    if backfill.is_some() && state.engine.in_force().backfilling().is_some() {
        let reason =
            "a backfill is under way (see /api/v1/config): deploy without one, or when it is done";
        return caller.problem(
            StatusCode::CONFLICT,
            "backfilling",
            "A backfill is under way",
            reason,
        );
    }
    let from = |asked: BackfillRequest| asked.from.map(|from| from.saturating_mul(1000));
    let backfill = backfill.map(|asked| Backfill { from: from(asked) });
    let how = (replace, backfill);
    match put(&state, &caller, (owner, params.owner), &files, how).await {
        Ok(answer) => Json(answer).into_response(),
        Err(response) => *response,
    }
}

async fn put(
    state: &ApiState,
    caller: &crate::access::Caller,
    (owner, of): (&str, super::Owner),
    files: &[RuleFile],
    how: (bool, Option<Backfill>),
) -> Result<DeployAnswer, Box<Response>> {
    let names: Vec<&str> = files.iter().take(100).map(|file| file.name.as_str()).collect();
    let detail = json!({"owner": of, "files": names, "replace": how.0,
                        "backfill": how.1.map(|backfill| json!({"from": backfill.from}))});
    let subject = format!("{} files", files.len());
    caller.audit(state, "rule:deploy", &subject, detail).await.map_err(Box::new)?;
    let done = state.rules.deploy(owner, files, how).await;
    let (deployed, current) = done.map_err(|error| Box::new(failed(caller, &error)))?;
    Ok(DeployAnswer {
        in_force: InForceView::from(current.as_ref()),
        deployed: deployed.taken,
        unchanged: deployed.unchanged,
        refused: deployed.refused.iter().map(RefusalView::from).collect(),
        broken: deployed.broken.iter().map(RefusalView::from).collect(),
    })
}

/// `PUT /api/v1/rules/{id}`: deploys one document, in the place of the one that is deployed under its id.
#[utoipa::path(put, path = "/api/v1/rules/{id}", tag = "rules",
    params(("id" = String, Path, description = "The id that the document has"), OwnerParams), request_body = RuleText, responses(
    (status = 200, description = "It is in force", body = DeployAnswer),
    (status = 400, description = "The document is wrong, or has another id", body = ProblemDetails, content_type = "application/problem+json"),
    (status = 403, description = "The key lacks the scope admin, or is not of the tenant default", body = ProblemDetails, content_type = "application/problem+json"),
    (status = 503, description = "It is noted, and in force as soon as log and catalog work", body = ProblemDetails, content_type = "application/problem+json"),
))]
pub async fn replace(
    State(state): State<ApiState>,
    Admin { caller, tenant }: Admin,
    Path(id): Path<String>,
    params: Result<Query<OwnerParams>, QueryRejection>,
    request: Result<Json<RuleText>, JsonRejection>,
) -> Response {
    let params = match params {
        Ok(Query(params)) => params,
        Err(error) => return wrong(&caller, error.body_text()),
    };
    let owner = match owner(&caller, &tenant, params.owner) {
        Ok(owner) => owner,
        Err(response) => return response,
    };
    let Json(RuleText { text }) = match request {
        Ok(request) => request,
        Err(error) => return unread(&caller, &error),
    };
    let has_other = match parts(&text).as_slice() {
        [part] => part.id.as_ref().is_some_and(|has| *has != id),
        _ => true,
    };
    if has_other {
        return wrong(&caller, format!("send one document, with the id {id}"));
    }
    let files = [RuleFile { name: id, text }];
    match put(&state, &caller, (owner, params.owner), &files, (true, None)).await {
        Ok(answer) => match answer.refused.first() {
            Some(refusal) => {
                let line = refusal.line.map(|line| format!("line {line}: ")).unwrap_or_default();
                wrong(&caller, format!("{line}{} ({})", refusal.reason, refusal.hint))
            }
            None => Json(answer).into_response(),
        },
        Err(response) => *response,
    }
}

/// `DELETE /api/v1/rules/{id}`: removes a deployed document.
#[utoipa::path(delete, path = "/api/v1/rules/{id}", tag = "rules",
    params(("id" = String, Path, description = "The document's id"), OwnerParams), responses(
    (status = 200, description = "It is out of force", body = InForceView),
    (status = 403, description = "The key lacks the scope admin, or is not of the tenant default", body = ProblemDetails, content_type = "application/problem+json"),
    (status = 404, description = "No such document is deployed", body = ProblemDetails, content_type = "application/problem+json"),
))]
pub async fn remove(
    State(state): State<ApiState>,
    Admin { caller, tenant }: Admin,
    Path(id): Path<String>,
    params: Result<Query<OwnerParams>, QueryRejection>,
) -> Response {
    let params = match params {
        Ok(Query(params)) => params,
        Err(error) => return wrong(&caller, error.body_text()),
    };
    let owner = match owner(&caller, &tenant, params.owner) {
        Ok(owner) => owner,
        Err(response) => return response,
    };
    let detail = json!({"owner": params.owner});
    if let Err(response) = caller.audit(&state, "rule:remove", &id, detail).await {
        return response;
    }
    match state.rules.remove(owner, &id).await {
        Ok(current) => Json(InForceView::from(current.as_ref())).into_response(),
        Err(error) => failed(&caller, &error),
    }
}

/// `PATCH /api/v1/rules/{id}`: enables or disables a rule for the tenant, or sets its severity there. The rule itself
/// stays as it is, for this tenant and all others.
#[utoipa::path(patch, path = "/api/v1/rules/{id}", tag = "rules",
    params(("id" = String, Path, description = "The rule's id")), request_body = RuleChange, responses(
    (status = 200, description = "It is in force", body = InForceView),
    (status = 400, description = "There is no such severity", body = ProblemDetails, content_type = "application/problem+json"),
    (status = 403, description = "The key lacks the scope admin", body = ProblemDetails, content_type = "application/problem+json"),
    (status = 404, description = "The tenant has no such rule", body = ProblemDetails, content_type = "application/problem+json"),
))]
pub async fn grade(
    State(state): State<ApiState>,
    Admin { caller, tenant }: Admin,
    Path(id): Path<String>,
    request: Result<Json<RuleChange>, JsonRejection>,
) -> Response {
    let Json(RuleChange { enabled, severity }) = match request {
        Ok(request) => request,
        Err(error) => return unread(&caller, &error),
    };
    let level = match severity.as_deref() {
        None => None,
        Some("original") => Some(None),
        Some(name) => match Level::by_name(name) {
            Some(level) => Some(Some(level)),
            None => {
                let hint = "use informational, low, medium, high, critical or original";
                return wrong(&caller, format!("there is no severity '{name}': {hint}"));
            }
        },
    };
    let detail = json!({"enabled": enabled, "severity": severity});
    if let Err(response) = caller.audit(&state, "rule:change", &id, detail).await {
        return response;
    }
    let done: Result<_, DeployError> =
        state.rules.grade(tenant.as_str(), &id, enabled, level).await;
    match done {
        Ok(current) => Json(InForceView::from(current.as_ref())).into_response(),
        Err(error) => failed(&caller, &error),
    }
}
