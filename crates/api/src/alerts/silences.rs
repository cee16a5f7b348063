//! `/api/v1/silences`: for some time nobody is told of the alerts that fulfil some conditions.

use super::one::actor;
use super::{moment, wrong};
use crate::access::{Admin, Caller, Scope};
use crate::keys::refused;
use crate::openapi::ProblemDetails;
use crate::state::ApiState;
use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use palisade_catalog::Silence;
use palisade_event::TenantId;
use palisade_event::time::rfc3339;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

/// A silence. Times are RFC 3339.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct SilenceView {
    /// 32 hexadecimal digits.
    pub id: String,
    /// What an alert must fulfil, all of them.
    pub matchers: Vec<String>,
    /// From when on.
    pub starts_at: String,
    /// Until when.
    pub ends_at: String,
    /// Who made it.
    pub creator: String,
    /// Why.
    pub comment: String,
    /// When it was made.
    pub created_at: String,
    /// How many notifications it kept back, of all receivers.
    pub muted: u64,
}

impl From<Silence> for SilenceView {
    fn from(silence: Silence) -> Self {
        Self {
            id: silence.id,
            matchers: silence.matchers,
            starts_at: rfc3339(silence.starts_at),
            ends_at: rfc3339(silence.ends_at),
            creator: silence.creator,
            comment: silence.comment,
            created_at: rfc3339(silence.created_at),
            muted: silence.muted,
        }
    }
}

/// The silences of a tenant.
#[derive(Debug, Serialize, ToSchema)]
pub struct SilenceList {
    /// The last to end first.
    pub silences: Vec<SilenceView>,
}

/// Which silences.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SilenceParams {
    /// Also those that are over.
    expired: Option<bool>,
}

/// A silence to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSilence {
    /// What an alert must fulfil, 1 to 20 conditions such as `rule_id=abc`, `severity<=low`, `user=~svc-.*`.
    pub matchers: Vec<String>,
    /// From when on, RFC 3339; now when it is not said.
    #[serde(default)]
    pub starts_at: Option<String>,
    /// Until when, RFC 3339; this or `duration_seconds`.
    #[serde(default)]
    pub ends_at: Option<String>,
    /// For how long; at most 366 days.
    #[serde(default)]
    pub duration_seconds: Option<i64>,
    /// Why.
    pub comment: String,
}

/// `GET /api/v1/silences`: the tenant's silences.
#[utoipa::path(get, path = "/api/v1/silences", tag = "alerts", params(SilenceParams), responses(
    (status = 200, description = "The silences", body = SilenceList),
))]
pub async fn list(
    State(state): State<ApiState>,
    caller: Caller,
    params: Result<Query<SilenceParams>, QueryRejection>,
) -> Response {
    let tenant = match caller.may(Scope::Query) {
        Ok(tenant) => tenant,
        Err(response) => return response,
    };
    let expired = match params {
        Ok(Query(params)) => params.expired.unwrap_or(false),
        Err(error) => return wrong(&caller, error.body_text()),
    };
    let since = if expired { i64::MIN } else { state.clock.now() };
    match state.catalog.silences(Some(tenant), since).await {
        Ok(silences) => {
            let silences = silences.into_iter().map(SilenceView::from).collect();
            Json(SilenceList { silences }).into_response()
        }
        Err(error) => refused(&caller, &error),
    }
}

/// `POST /api/v1/silences`: makes a silence.
#[utoipa::path(post, path = "/api/v1/silences", tag = "alerts", request_body = NewSilence, responses(
    (status = 201, description = "The silence", body = SilenceView),
    (status = 400, description = "A condition or a time is wrong", body = ProblemDetails, content_type = "application/problem+json"),
    (status = 403, description = "The key lacks the scope admin", body = ProblemDetails, content_type = "application/problem+json"),
))]
pub async fn make(
    State(state): State<ApiState>,
    Admin { caller, tenant }: Admin,
    request: Result<Json<NewSilence>, JsonRejection>,
) -> Response {
    match silence(&state, &caller, &tenant, request).await {
        Ok(silence) => (StatusCode::CREATED, Json(silence)).into_response(),
        Err(response) => response,
    }
}

async fn silence(
    state: &ApiState,
    caller: &Caller,
    tenant: &TenantId,
    request: Result<Json<NewSilence>, JsonRejection>,
) -> Result<SilenceView, Response> {
    let Json(request) = request.map_err(|error| {
        caller.problem(error.status(), "silence", "no silence", error.body_text())
    })?;
    let now = state.clock.now();
    let time = |name: &str, text: &str| moment(caller, state, name, text);
    let starts_at = match &request.starts_at {
        Some(text) => time("starts_at", text).map_err(|answer| *answer)?,
        None => now,
    };
    let ends_at = match (&request.ends_at, request.duration_seconds) {
        (Some(text), None) => time("ends_at", text).map_err(|answer| *answer)?,
        (None, Some(seconds)) => starts_at.saturating_add(seconds.saturating_mul(1_000_000)),
        _ => return Err(wrong(caller, "give either ends_at or duration_seconds")),
    };
    let checked = palisade_alert::silence::Silence::new(
        "",
        tenant.as_str(),
        &request.matchers,
        starts_at,
        ends_at,
    );
    let checked = checked.map_err(|error| wrong(caller, error.to_string()))?;
    let matchers: Vec<String> = checked.matchers.iter().map(ToString::to_string).collect();
    let detail = json!({
        "matchers": matchers, "starts_at": rfc3339(starts_at), "ends_at": rfc3339(ends_at),
    });
    let subject: String = request.comment.chars().take(200).collect();
    caller.audit(state, "silence:create", &subject, detail).await?;
    let silence = Silence {
        id: String::new(),
        tenant: tenant.clone(),
        matchers,
        starts_at,
        ends_at,
        creator: actor(caller).to_owned(),
        comment: request.comment,
        created_at: now,
        muted: 0,
    };
    let made = state.catalog.create_silence(silence).await;
    Ok(made.map_err(|error| refused(caller, &error))?.into())
}

/// `DELETE /api/v1/silences/{id}`: ends a silence now. Again changes nothing.
#[utoipa::path(delete, path = "/api/v1/silences/{id}", tag = "alerts",
    params(("id" = String, Path, description = "The silence's id")), responses(
    (status = 204, description = "It is over"),
    (status = 403, description = "The key lacks the scope admin", body = ProblemDetails, content_type = "application/problem+json"),
    (status = 404, description = "The tenant has no such silence", body = ProblemDetails, content_type = "application/problem+json"),
))]
pub async fn lift(
    State(state): State<ApiState>,
    Admin { caller, tenant }: Admin,
    Path(id): Path<String>,
) -> Response {
    if let Err(response) = caller.audit(&state, "silence:lift", &id, json!({})).await {
        return response;
    }
    match state.catalog.lift_silence(&tenant, &id, state.clock.now()).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => refused(&caller, &error),
    }
}
