//! `POST /api/v1/query`: SQL over everything of the caller's tenant.

use crate::access::{Caller, Scope};
use crate::openapi::ProblemDetails;
use crate::state::ApiState;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};
use palisade_event::ErrorClass;
use palisade_query::format::{Encoder, Format};
use palisade_query::{Limits, QueryError, QueryResult};
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;
use utoipa::ToSchema;

/// A query.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QueryRequest {
    /// One SELECT (also with WITH), EXPLAIN, SHOW or DESCRIBE, in DataFusion's dialect.
    pub sql: String,
    /// `json` (default), `json-rows`, `jsonl`, `csv`, `arrow`, `table`. Without it the `Accept` header
    /// decides.
    #[serde(default)]
    pub format: Option<String>,
    /// At most this many rows; never above the server's limit.
    #[serde(default)]
    pub max_rows: Option<usize>,
    /// At most this long, in milliseconds; never above the server's limit.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

/// Answers a query; rows are sent as they are found.
#[utoipa::path(
    post, path = "/api/v1/query", tag = "query",
    request_body = QueryRequest,
    responses(
        (status = 200, description = "The rows, in the format asked for", content_type = "application/json"),
        (status = 400, description = "The query is wrong or needs too much", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 429, description = "Too many queries run, or this one took too long", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub async fn post_query(
    State(state): State<ApiState>,
    caller: Caller,
    headers: HeaderMap,
    request: Result<Json<QueryRequest>, JsonRejection>,
) -> Response {
    let tenant = match caller.may(Scope::Query) {
        Ok(tenant) => tenant.clone(),
        Err(response) => return response,
    };
    let request = match request {
        Ok(Json(request)) => request,
        Err(error) => {
            return caller.problem(error.status(), "query", "no query", error.body_text());
        }
    };
    let format = match format_of(&request, &headers) {
        Ok(format) => format,
        Err(reason) => {
            return caller.problem(StatusCode::BAD_REQUEST, "format", "no such format", reason);
        }
    };
    let detail = json!({"sql": request.sql.chars().take(8192).collect::<String>()});
    let mut limits: Limits = **state.limits.load();
    limits.rows = request.max_rows.unwrap_or(limits.rows).min(limits.rows);
    let wanted = request.timeout_ms.map_or(limits.time, Duration::from_millis);
    limits.time = wanted.min(limits.time);
    let progress = state.engine.progress();
    // A query changes nothing, so its record is written while it is planned; without it nothing is shown.
    let (audited, answered) = tokio::join!(
        caller.audit(&state, "query:run", "sql", detail),
        state.query.query(&tenant, &request.sql, limits),
    );
    if let Err(response) = audited {
        return response;
    }
    let mut response = match answered {
        Ok(result) => send(result, format, &caller).await,
        Err(error) => failed(&error, &caller),
    };
    if !progress.ready {
        // After a crash the log is replayed while queries are answered already.
        let lag = progress.log_end.saturating_sub(progress.visible);
        response.headers_mut().insert(LAG_HEADER, lag.into());
    }
    response
}

/// On answers given while acknowledged records are not all visible yet (M4): how many entries of the
/// log are missing.
const LAG_HEADER: &str = "x-palisade-lag-entries";

fn format_of(request: &QueryRequest, headers: &HeaderMap) -> Result<Format, String> {
    if let Some(name) = &request.format {
        return name.parse();
    }
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    Ok(match accept.split(',').next().unwrap_or("").split(';').next().unwrap_or("").trim() {
        "application/x-ndjson" | "application/jsonl" => Format::JsonLines,
        "text/csv" => Format::Csv,
        "application/vnd.apache.arrow.stream" => Format::Arrow,
        "text/plain" => Format::Table(160),
        _ => Format::Json,
    })
}

/// Sends a result. The first batch is waited for, so that an error in it is still an error answer.
async fn send(mut result: QueryResult, format: Format, caller: &Caller) -> Response {
    let mut encoder = match Encoder::new(format, &result.schema) {
        Ok(encoder) => encoder,
        Err(error) => return failed(&error, caller),
    };
    let first = match result.next().await.transpose() {
        Ok(first) => first,
        Err(error) => return failed(&error, caller),
    };
    let mut head = encoder.start();
    if let Some(batch) = first {
        match encoder.batch(&batch) {
            Ok(bytes) => head.extend(bytes),
            Err(error) => return failed(&error, caller),
        }
    }
    let stats = std::sync::Arc::clone(&result.stats);
    let rest = stream::unfold(Some((result, encoder)), move |state| {
        let stats = std::sync::Arc::clone(&stats);
        async move {
            let (mut result, mut encoder) = state?;
            match result.next().await {
                Some(Ok(batch)) => match encoder.batch(&batch) {
                    Ok(bytes) => Some((Ok(bytes), Some((result, encoder)))),
                    Err(error) => Some((Err(error), None)),
                },
                // A connection that breaks off tells the client that the answer is not whole.
                Some(Err(error)) => Some((Err(error), None)),
                None => Some((encoder.finish(&stats), None)),
            }
        }
    });
    let body = stream::once(async move { Ok::<_, QueryError>(head) }).chain(rest);
    let mut response = Body::from_stream(body).into_response();
    if let Ok(kind) = format.media_type().parse() {
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    if let Ok(id) = caller.request_id.parse() {
        response.headers_mut().insert("x-request-id", id);
    }
    response
}

/// The answer to a query that failed.
#[must_use]
pub fn failed(error: &QueryError, caller: &Caller) -> Response {
    let status = match error.class() {
        ErrorClass::Permanent => StatusCode::BAD_REQUEST,
        ErrorClass::Transient => StatusCode::TOO_MANY_REQUESTS,
        ErrorClass::Critical => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let mut response = caller.problem(status, error.code(), "the query failed", error.to_string());
    if status == StatusCode::TOO_MANY_REQUESTS
        && let Ok(seconds) = "1".parse()
    {
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
}
