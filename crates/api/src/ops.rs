//! Probes and metrics: open to all, they tell no tenant's data.

use crate::state::ApiState;
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// `GET /healthz`: the process answers.
#[utoipa::path(get, path = "/healthz", tag = "operation", security(()),
    responses((status = 200, description = "The process answers")))]
pub async fn healthz() -> Json<serde_json::Value> {
    Json(json!({"status": "ok"}))
}

/// `GET /readyz`: every acknowledged record is visible to SQL (M4). 503 while a replay after a start
/// goes on, with how far it is, and after a critical error.
#[utoipa::path(get, path = "/readyz", tag = "operation", security(()), responses(
    (status = 200, description = "Everything acknowledged is visible to SQL"),
    (status = 503, description = "A replay goes on, or a critical error happened"),
))]
pub async fn readyz(State(state): State<ApiState>) -> Response {
    let progress = state.engine.progress();
    let fatal = state.engine.fatal().borrow().clone();
    let status = if progress.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({
        "ready": progress.ready,
        "log_end": progress.log_end,
        "visible": progress.visible,
        "committed": progress.committed,
        "lag_entries": progress.log_end.saturating_sub(progress.visible),
        "error": fatal,
    });
    (status, Json(body)).into_response()
}

/// `GET /metrics`: OpenMetrics text.
#[utoipa::path(get, path = "/metrics", tag = "operation", security(()), responses(
    (status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text"),
))]
pub async fn metrics(State(state): State<ApiState>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &state.registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
