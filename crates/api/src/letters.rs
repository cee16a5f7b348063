//! `/api/v1/dead-letters`: records that could not be taken, to look at, retry and drop. Scope
//! `admin`; changes are audited.
//!
//! Pages go from the newest to the oldest. A cursor is the position of the last letter of a page, so
//! letters that arrive meanwhile move nothing.

use crate::access::{Admin, Caller};
use crate::keys::refused;
use crate::openapi::ProblemDetails;
use crate::query::failed;
use crate::sql::{self, Row};
use crate::state::ApiState;
use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use palisade_catalog::{DeadLetterAction, DeadLetterState};
use palisade_event::TenantId;
use palisade_event::schema::DEAD_LETTERS;
use palisade_event::time::rfc3339;
use palisade_ingest::problem::{Problem, Refused};
use palisade_ingest::submit::{Body, Submission};
use palisade_query::QueryError;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// The most letters of a page.
const MAX_LIMIT: usize = 1000;

/// Which page.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageParams {
    /// At most this many, 1 to 1000; 100 when it is not said.
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<u64>,
}

/// What was last done about a letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Touched {
    /// How often it was retried.
    pub retries: u32,
    /// Who did it: a key's id, or `local`.
    pub actor: String,
    /// When, RFC 3339.
    pub time: String,
}

impl From<DeadLetterState> for Touched {
    fn from(state: DeadLetterState) -> Self {
        let DeadLetterState { action: _, retries, actor, time } = state;
        Self { retries, actor, time: rfc3339(time) }
    }
}

/// A dead letter without its bytes.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Letter {
    /// 32 hexadecimal digits.
    pub dead_letter_id: String,
    /// When it was received, RFC 3339.
    pub time: String,
    /// The listener or stream that it came by.
    pub source: String,
    /// The class of the error.
    pub class: String,
    /// Why it was not taken.
    pub reason: String,
    /// How to read the bytes: `json` or `line`.
    pub content_type: String,
    /// Whether something was done about it.
    pub state: LetterState,
    /// Who did it, and when; null when nothing was done.
    pub touched: Option<Touched>,
}

/// Whether something was done about a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LetterState {
    /// Nothing was done.
    New,
    /// It was sent again and taken.
    Retried,
    /// It was given up.
    Dropped,
}

impl Letter {
    /// The same with what was done about it.
    fn with(mut self, state: Option<DeadLetterState>) -> Self {
        self.state = match state.as_ref().map(|state| state.action) {
            None => LetterState::New,
            Some(DeadLetterAction::Retried) => LetterState::Retried,
            Some(DeadLetterAction::Dropped) => LetterState::Dropped,
        };
        self.touched = state.map(Touched::from);
        self
    }
}

/// A page of dead letters, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct LetterPage {
    /// The letters.
    pub letters: Vec<Letter>,
    /// The cursor of the next page; null after the last.
    pub next: Option<String>,
}

/// A dead letter with its bytes: `text` when they are UTF-8, `base64` otherwise.
#[derive(Debug, Serialize, ToSchema)]
pub struct WholeLetter {
    /// What is known of it.
    #[serde(flatten)]
    pub letter: Letter,
    /// The bytes as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The bytes in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
}

/// What became of a retry.
#[derive(Debug, Serialize, ToSchema)]
pub struct Retried {
    /// How many records are durable now.
    pub accepted: u64,
    /// Those that were refused once more.
    #[schema(value_type = Vec<Object>)]
    pub rejected: Vec<Refused>,
    /// Whether an earlier retry had done it already (L4).
    pub repeated: bool,
}

/// A letter that was given up.
#[derive(Debug, Serialize, ToSchema)]
pub struct Dropped {
    /// Its id.
    pub dead_letter_id: String,
    /// `dropped`.
    pub state: LetterState,
}

const COLUMNS: &str = "\"dead_letter_id\", \"ingest_time\", \"source\", \"class\", \"reason\", \"content_type\", \"position\"";

/// The query of a page. It asks for one letter more, which tells whether there is a next page.
fn page_sql(limit: usize, cursor: Option<u64>) -> String {
    let after = cursor.map_or_else(String::new, |position| {
        format!(" WHERE \"position\" < CAST({position} AS BIGINT UNSIGNED)")
    });
    let more = limit.saturating_add(1);
    format!("SELECT {COLUMNS} FROM dead_letters{after} ORDER BY \"position\" DESC LIMIT {more}")
}

fn letter(row: &Row) -> Letter {
    let text = |name| sql::text(row, name).unwrap_or_default();
    Letter {
        dead_letter_id: text("dead_letter_id"),
        time: text("ingest_time"),
        source: text("source"),
        class: text("class"),
        reason: text("reason"),
        content_type: text("content_type"),
        state: LetterState::New,
        touched: None,
    }
}

/// `GET /api/v1/dead-letters`: a page of letters, newest first.
#[utoipa::path(get, path = "/api/v1/dead-letters", tag = "administration", params(PageParams), responses(
    (status = 200, description = "A page", body = LetterPage),
    (status = 400, description = "A parameter is wrong", body = ProblemDetails, content_type = "application/problem+json"),
))]
pub async fn list(
    State(state): State<ApiState>,
    Admin { caller, tenant }: Admin,
    params: Result<Query<PageParams>, QueryRejection>,
) -> Response {
    let params = match params {
        Ok(Query(params)) => params,
        Err(error) => {
            return caller.problem(error.status(), "page", "no such page", error.body_text());
        }
    };
    let limit = params.limit.unwrap_or(100);
    if !(1..=MAX_LIMIT).contains(&limit) {
        let detail = format!("limit must be between 1 and {MAX_LIMIT}");
        return caller.problem(StatusCode::BAD_REQUEST, "page", "no such page", detail);
    }
    let text = page_sql(limit, params.cursor);
    let mut rows = match sql::rows(&state, &tenant, &text, limit.saturating_add(1)).await {
        Ok(rows) => rows,
        Err(QueryError::UnknownTable { .. }) => Vec::new(),
        Err(error) => return failed(&error, &caller),
    };
    let more = rows.len() > limit;
    rows.truncate(limit);
    let position = rows.last().and_then(|row| sql::text(row, "position"));
    let letters: Vec<Letter> = rows.iter().map(letter).collect();
    let ids: Vec<String> = letters.iter().map(|letter| letter.dead_letter_id.clone()).collect();
    let mut states = match state.catalog.dead_letter_state(&tenant, &ids).await {
        Ok(states) => states,
        Err(error) => return refused(&caller, &error),
    };
    let done = |letter: Letter| {
        let state = states.remove(&letter.dead_letter_id);
        letter.with(state)
    };
    let letters = letters.into_iter().map(done).collect();
    Json(LetterPage { letters, next: position.filter(|_| more) }).into_response()
}

/// Looks up a letter of the tenant with its bytes and what was done about it.
async fn find(
    state: &ApiState,
    caller: &Caller,
    tenant: &TenantId,
    id: &str,
) -> Result<(Letter, Bytes), Response> {
    let missing = || {
        let detail = "the tenant has no such dead letter: list them at /api/v1/dead-letters";
        caller.problem(StatusCode::NOT_FOUND, "unknown", "no such dead letter", detail)
    };
    if id.len() != 32 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(missing());
    }
    let wanted = sql::literal(id);
    let text =
        format!("SELECT {COLUMNS} FROM dead_letters WHERE \"dead_letter_id\" = {wanted} LIMIT 1");
    let rows = match sql::rows(state, tenant, &text, 1).await {
        Ok(rows) => rows,
        Err(QueryError::UnknownTable { .. }) => Vec::new(),
        Err(error) => return Err(failed(&error, caller)),
    };
    let found = rows.first().map(letter).ok_or_else(missing)?;
    let raw = raw(state, tenant, &wanted).await.map_err(|error| failed(&error, caller))?;
    let ids = [found.dead_letter_id.clone()];
    let mut states = state
        .catalog
        .dead_letter_state(tenant, &ids)
        .await
        .map_err(|error| refused(caller, &error))?;
    let done = states.remove(&found.dead_letter_id);
    Ok((found.with(done), raw.ok_or_else(missing)?))
}

/// The bytes of a letter.
async fn raw(
    state: &ApiState,
    tenant: &TenantId,
    wanted: &str,
) -> Result<Option<Bytes>, QueryError> {
    let text =
        format!("SELECT \"raw\" FROM dead_letters WHERE \"dead_letter_id\" = {wanted} LIMIT 1");
    let batches = state.query.query(tenant, &text, sql::limits(state, 1)).await?.collect().await?;
    let Some(batch) = batches.iter().find(|batch| batch.num_rows() > 0) else { return Ok(None) };
    let Some(column) = batch.columns().first() else { return Ok(None) };
    let column = cast(column, &DataType::Binary)
        .map_err(|error| QueryError::Internal(format!("raw is not binary: {error}")))?;
    let bytes = column.as_binary_opt::<i32>().filter(|bytes| !bytes.is_empty());
    Ok(bytes.map(|bytes| Bytes::copy_from_slice(bytes.value(0))))
}

fn whole(letter: Letter, raw: Bytes) -> WholeLetter {
    match String::from_utf8(raw.into()) {
        Ok(text) => WholeLetter { letter, text: Some(text), base64: None },
        Err(error) => {
            WholeLetter { letter, text: None, base64: Some(STANDARD.encode(error.as_bytes())) }
        }
    }
}

/// `GET /api/v1/dead-letters/{id}`: a letter with its bytes.
#[utoipa::path(get, path = "/api/v1/dead-letters/{id}", tag = "administration",
    params(("id" = String, Path, description = "The letter's id")), responses(
    (status = 200, description = "The letter", body = WholeLetter),
    (status = 404, description = "There is none", body = ProblemDetails, content_type = "application/problem+json"),
))]
pub async fn show(
    State(state): State<ApiState>,
    Admin { caller, tenant }: Admin,
    Path(id): Path<String>,
) -> Response {
    match find(&state, &caller, &tenant, &id).await {
        Ok((letter, raw)) => Json(whole(letter, raw)).into_response(),
        Err(response) => response,
    }
}

/// A letter as a submission; its id is the idempotency key (L4), so a retry that is repeated stores
/// nothing twice. `None` when the letter holds no bytes.
fn submission(tenant: &TenantId, letter: &Letter, raw: Bytes) -> Option<Submission> {
    if raw.is_empty() {
        return None;
    }
    let body = match letter.content_type.as_str() {
        "json" => Body::Json(raw),
        _ => {
            let line = 0..raw.len();
            Body::Lines { body: raw, ranges: Arc::new(vec![line]) }
        }
    };
    Some(Submission {
        tenant: tenant.clone(),
        source: Arc::from(letter.source.as_str()),
        domain: None,
        key: Some(letter.dead_letter_id.clone()),
        body,
        peer: None,
    })
}

/// `POST /api/v1/dead-letters/{id}/retry`: sends a letter again. Only once it is taken it counts as
/// retried.
#[utoipa::path(post, path = "/api/v1/dead-letters/{id}/retry", tag = "administration",
    params(("id" = String, Path, description = "The letter's id")), responses(
    (status = 200, description = "It is durable as a record now", body = Retried),
    (status = 404, description = "There is none", body = ProblemDetails, content_type = "application/problem+json"),
    (status = 409, description = "It was retried or dropped before", body = ProblemDetails, content_type = "application/problem+json"),
    (status = 422, description = "It was refused again", body = ProblemDetails, content_type = "application/problem+json"),
))]
pub async fn retry(
    State(state): State<ApiState>,
    Admin { caller, tenant }: Admin,
    Path(id): Path<String>,
) -> Response {
    match try_again(&state, &caller, &tenant, &id).await {
        Ok(retried) => Json(retried).into_response(),
        Err(response) => response,
    }
}

async fn try_again(
    state: &ApiState,
    caller: &Caller,
    tenant: &TenantId,
    id: &str,
) -> Result<Retried, Response> {
    let (letter, raw) = find(state, caller, tenant, id).await?;
    let settled = match letter.state {
        LetterState::New => None,
        LetterState::Retried => Some("this letter was retried and taken already"),
        LetterState::Dropped => Some("this letter was dropped: send its bytes as a new record"),
    };
    if let Some(detail) = settled {
        return Err(caller.problem(StatusCode::CONFLICT, "settled", "it is settled", detail));
    }
    let submission = submission(tenant, &letter, raw).ok_or_else(|| {
        let detail = "the letter holds no bytes: drop it";
        caller.problem(StatusCode::UNPROCESSABLE_ENTITY, "refused-again", "refused again", detail)
    })?;
    caller.audit(state, "dead_letter:retry", &letter.dead_letter_id, json!({})).await?;
    let receipt = state.submit.submit(submission).await.map_err(|error| {
        Problem::from(&error).at(&caller.path, &caller.request_id).into_response()
    })?;
    if receipt.accepted == 0 {
        let detail =
            "the letter was refused again for the reasons listed: correct it at its sender";
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        return Err(Problem::new(status, "refused-again", "refused again", detail)
            .at(&caller.path, &caller.request_id)
            .with_errors(&receipt.rejected)
            .into_response());
    }
    touch(state, caller, tenant, &letter.dead_letter_id, DeadLetterAction::Retried).await?;
    Ok(Retried {
        accepted: receipt.accepted,
        rejected: palisade_ingest::problem::refused(&receipt.rejected),
        repeated: receipt.repeated,
    })
}

async fn touch(
    state: &ApiState,
    caller: &Caller,
    tenant: &TenantId,
    id: &str,
    action: DeadLetterAction,
) -> Result<(), Response> {
    let actor = caller.principal.key_id.as_deref().unwrap_or("local");
    let (ids, now) = ([id.to_owned()], state.clock.now());
    let done = state.catalog.touch_dead_letters(tenant, &ids, action, actor, now).await;
    done.map_err(|error| refused(caller, &error))
}

/// `POST /api/v1/dead-letters/{id}/drop`: gives a letter up. Its row stays until its time is over.
#[utoipa::path(post, path = "/api/v1/dead-letters/{id}/drop", tag = "administration",
    params(("id" = String, Path, description = "The letter's id")), responses(
    (status = 200, description = "It is dropped", body = Dropped),
    (status = 404, description = "There is none", body = ProblemDetails, content_type = "application/problem+json"),
))]
pub async fn drop_letter(
    State(state): State<ApiState>,
    Admin { caller, tenant }: Admin,
    Path(id): Path<String>,
) -> Response {
    match give_up(&state, &caller, &tenant, &id).await {
        Ok(dropped) => Json(dropped).into_response(),
        Err(response) => response,
    }
}

async fn give_up(
    state: &ApiState,
    caller: &Caller,
    tenant: &TenantId,
    id: &str,
) -> Result<Dropped, Response> {
    let (letter, _) = find(state, caller, tenant, id).await?;
    caller.audit(state, "dead_letter:drop", &letter.dead_letter_id, json!({})).await?;
    touch(state, caller, tenant, &letter.dead_letter_id, DeadLetterAction::Dropped).await?;
    Ok(Dropped { dead_letter_id: letter.dead_letter_id, state: LetterState::Dropped })
}

// The table's name stands in the queries above as text.
const _: () = assert!(matches!(DEAD_LETTERS.as_bytes(), b"dead_letters"));

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn sample(kind: &str) -> Letter {
        let Value::Object(row) = json!({
            "dead_letter_id": "00112233445566778899aabbccddeeff", "ingest_time": "2026-01-02T03:04:05.000006Z", "source": "tcp",
            "class": "permanent", "reason": "no JSON", "content_type": kind,
            "position": 18_446_744_073_709_551_615_u64,
        }) else {
            panic!()
        };
        assert_eq!(sql::text(&row, "position").as_deref(), Some("18446744073709551615"));
        letter(&row)
    }

    #[test]
    fn a_page_asks_for_one_more_and_goes_down() {
        assert!(
            page_sql(2, None).ends_with("FROM dead_letters ORDER BY \"position\" DESC LIMIT 3")
        );
        assert!(page_sql(2, Some(u64::MAX)).contains("\"position\" < CAST(18446744073709551615"));
    }

    #[test]
    fn bytes_come_as_text_or_base64() {
        let text = whole(sample("line"), Bytes::from_static(b"{x"));
        assert_eq!((text.text.as_deref(), text.base64.as_deref()), (Some("{x"), None));
        let bytes = whole(sample("line"), Bytes::from_static(b"\xff\x00"));
        assert_eq!((bytes.text.as_deref(), bytes.base64.as_deref()), (None, Some("/wA=")));
        let shown = serde_json::to_value(bytes).unwrap();
        assert_eq!(shown["time"], "2026-01-02T03:04:05.000006Z");
        assert_eq!(shown["state"], "new");
    }

    #[test]
    fn a_retry_carries_the_letters_id_as_key() {
        let tenant = TenantId::default_tenant();
        let json = submission(&tenant, &sample("json"), Bytes::from_static(b"{}")).unwrap();
        assert!(matches!(json.body, Body::Json(_)));
        assert_eq!(json.key.as_deref(), Some("00112233445566778899aabbccddeeff"));
        let line = submission(&tenant, &sample("line"), Bytes::from_static(b"a b")).unwrap();
        assert_eq!(line.body.raw(0), Some((Bytes::from_static(b"a b"), "line")));
        assert_eq!(&*line.source, "tcp");
        assert!(submission(&tenant, &sample("line"), Bytes::new()).is_none());
    }
}
