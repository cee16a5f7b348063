//! `/api/health`. The check and readiness are open to all and tell no tenant's data; the status is
//! the caller's.

use super::anomalies::is_anomaly;
use super::{count, tenant};
use crate::access::Caller;
use crate::state::ApiState;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use palisade_event::schema::{ALERTS, EVENTS};
use serde_json::{Map, Value, json};

/// `GET /api/health`: the process answers.
#[utoipa::path(get, path = "/api/health", tag = "streamguard", security(()), responses(
    (status = 200, description = "`status` and `timestamp`"),
))]
pub async fn health(State(state): State<ApiState>) -> Json<Value> {
    Json(json!({"status": "UP", "timestamp": state.clock.now().div_euclid(1000)}))
}

/// `GET /api/health/status`: what there is, and what is missing.
#[utoipa::path(get, path = "/api/health/status", tag = "streamguard", responses(
    (status = 200, description = "`database`, `features` and `warnings`"),
))]
pub async fn status(
    State(state): State<ApiState>,
    caller: Caller,
) -> Result<Json<Value>, Response> {
    let tenant = tenant(&caller)?;
    let events = count(&state, tenant, EVENTS, None).await?;
    let anomalies = count(&state, tenant, ALERTS, Some(is_anomaly())).await?;
    let mut status = json!({
        "status": "UP",
        "timestamp": state.clock.now().div_euclid(1000),
        "database": {
            "connected": true,
            "eventCount": events,
            "anomalyCount": anomalies,
            "analysisCount": 0,
        },
        "features": {
            "eventsAvailable": events > 0,
            "anomalyDetectionAvailable": true,
            "aiAnalysisAvailable": false,
        },
    });
    if let Some(status) = status.as_object_mut() {
        status.insert("warnings".to_owned(), Value::Object(warnings(events, anomalies)));
    }
    Ok(Json(status))
}

fn warnings(events: i64, anomalies: i64) -> Map<String, Value> {
    let mut warnings = Map::new();
    let mut warn = |name: &str, text: &str| warnings.insert(name.to_owned(), text.into());
    if events == 0 {
        warn("events", "No events found - send some to /api/v1/streams/events/records");
    }
    if anomalies == 0 {
        warn("anomalies", "No anomalies detected - a user is learned for some events first");
    }
    warn("aiAnalysis", "AI analyses are not part of this server");
    warnings
}

/// `GET /api/health/ready`: whether everything acknowledged can be asked for.
#[utoipa::path(get, path = "/api/health/ready", tag = "streamguard", security(()), responses(
    (status = 200, description = "Ready"),
    (status = 503, description = "Not ready"),
))]
pub async fn ready(State(state): State<ApiState>) -> (StatusCode, Json<Value>) {
    if state.engine.progress().ready {
        (StatusCode::OK, Json(json!({"ready": true, "message": "System is ready"})))
    } else {
        let body = json!({"ready": false, "message": "System is not ready - the log is replayed"});
        (StatusCode::SERVICE_UNAVAILABLE, Json(body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_name_what_is_missing() {
        assert_eq!(warnings(0, 0).len(), 3);
        assert_eq!(warnings(1, 1).keys().collect::<Vec<_>>(), ["aiAnalysis"]);
    }
}
