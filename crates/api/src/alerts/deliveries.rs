//! `/api/v1/deliveries`: what became of notifications, and trying dead ones again. Scope `admin`; changes are
//! audited.

use super::{is_id, wrong};
use crate::access::Admin;
use crate::keys::refused;
use crate::openapi::ProblemDetails;
use crate::state::ApiState;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use palisade_catalog::{Delivery, DeliveryFilter, DeliveryState};
use palisade_event::time::rfc3339;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

/// The most deliveries of a page.
const MAX_LIMIT: u32 = 500;

/// Where a notification stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// It waits for its first or another attempt.
    Pending,
    /// The receiver has it.
    Delivered,
    /// It was given up.
    Dead,
}

/// A notification. Times are RFC 3339.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct DeliveryView {
    /// Its number.
    pub id: u64,
    /// To whom.
    pub receiver: String,
    /// About which alert.
    pub alert_id: String,
    /// About which revision.
    pub revision: u32,
    /// Where it stands.
    pub state: Standing,
    /// How many attempts were made.
    pub attempts: u32,
    /// When the next attempt is made; null unless it is pending.
    pub due: Option<String>,
    /// When it was made.
    pub created_at: String,
    /// When it last changed.
    pub changed_at: String,
    /// Why the last attempt failed.
    pub error: Option<String>,
}

impl From<Delivery> for DeliveryView {
    fn from(delivery: Delivery) -> Self {
        let state = match delivery.state {
            DeliveryState::Pending => Standing::Pending,
            DeliveryState::Delivered => Standing::Delivered,
            DeliveryState::Dead => Standing::Dead,
        };
        Self {
            id: delivery.id,
            receiver: delivery.receiver,
            alert_id: delivery.alert_id,
            revision: delivery.revision,
            state,
            attempts: delivery.attempts,
            due: (state == Standing::Pending).then(|| rfc3339(delivery.due)),
            created_at: rfc3339(delivery.created_at),
            changed_at: rfc3339(delivery.changed_at),
            error: Some(delivery.error).filter(|error| !error.is_empty()),
        }
    }
}

/// Which deliveries.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeliveryParams {
    /// In this state: `pending`, `delivered`, `dead`.
    #[param(inline)]
    state: Option<Standing>,
    /// To this receiver.
    receiver: Option<String>,
    /// About this alert.
    alert_id: Option<String>,
    /// At most this many, 1 to 500; 100 when it is not said.
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<u64>,
}

/// A page of deliveries, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeliveryPage {
    /// The deliveries.
    pub deliveries: Vec<DeliveryView>,
    /// The cursor of the next page; null after the last.
    pub next: Option<String>,
}

/// `GET /api/v1/deliveries`: a page of notifications, newest first.
#[utoipa::path(get, path = "/api/v1/deliveries", tag = "alerts", params(DeliveryParams), responses(
    (status = 200, description = "A page", body = DeliveryPage),
    (status = 400, description = "A parameter is wrong", body = ProblemDetails, content_type = "application/problem+json"),
    (status = 403, description = "The key lacks the scope admin", body = ProblemDetails, content_type = "application/problem+json"),
))]
pub async fn list(
    State(state): State<ApiState>,
    Admin { caller, tenant }: Admin,
    params: Result<Query<DeliveryParams>, QueryRejection>,
) -> Response {
    let params = match params {
        Ok(Query(params)) => params,
        Err(error) => return wrong(&caller, error.body_text()),
    };
    let limit = params.limit.unwrap_or(100);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return wrong(&caller, format!("limit must be between 1 and {MAX_LIMIT}"));
    }
    if params.alert_id.as_deref().is_some_and(|id| !is_id(id)) {
        return wrong(&caller, "alert_id must be 32 hexadecimal digits");
    }
    let filter = DeliveryFilter {
        state: params.state.map(|standing| match standing {
            Standing::Pending => DeliveryState::Pending,
            Standing::Delivered => DeliveryState::Delivered,
            Standing::Dead => DeliveryState::Dead,
        }),
        receiver: params.receiver,
        alert_id: params.alert_id,
    };
    let found = state.catalog.deliveries(&tenant, &filter, params.cursor, limit + 1).await;
    let mut found = match found {
        Ok(found) => found,
        Err(error) => return refused(&caller, &error),
    };
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next = found.last().filter(|_| more).map(|last| last.id.to_string());
    let deliveries = found.into_iter().map(DeliveryView::from).collect();
    Json(DeliveryPage { deliveries, next }).into_response()
}

/// `POST /api/v1/deliveries/{id}/retry`: makes a dead notification pending again.
#[utoipa::path(post, path = "/api/v1/deliveries/{id}/retry", tag = "alerts",
    params(("id" = u64, Path, description = "The delivery's number")), responses(
    (status = 202, description = "It waits for its attempt"),
    (status = 400, description = "It is not dead", body = ProblemDetails, content_type = "application/problem+json"),
    (status = 403, description = "The key lacks the scope admin", body = ProblemDetails, content_type = "application/problem+json"),
    (status = 404, description = "The tenant has no such delivery", body = ProblemDetails, content_type = "application/problem+json"),
))]
pub async fn retry(
    State(state): State<ApiState>,
    Admin { caller, tenant }: Admin,
    Path(id): Path<String>,
) -> Response {
    let Ok(number) = id.parse::<u64>() else {
        let detail = "the tenant has no such delivery: list them at /api/v1/deliveries";
        return caller.problem(StatusCode::NOT_FOUND, "unknown", "no such delivery", detail);
    };
    if let Err(response) = caller.audit(&state, "delivery:retry", &id, json!({})).await {
        return response;
    }
    match state.catalog.retry_delivery(&tenant, number, state.clock.now()).await {
        Ok(()) => StatusCode::ACCEPTED.into_response(),
        Err(error) => refused(&caller, &error),
    }
}
