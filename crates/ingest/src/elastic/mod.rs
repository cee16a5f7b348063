//! Elasticsearch's HTTP interface, as far as shippers and official clients use it to send: `_bulk`,
//! single documents, and the calls that they make first.
//!
//! Calls that set up templates, policies, pipelines and data streams are acknowledged and have no
//! effect; asked whether such a thing exists, the answer is no, so clients go on without it. What is
//! stored is searched with SQL, so there is no `_search`.
//!
//! The name of the index becomes the column `source` as `elastic:<index>`; `_id` becomes `event_id`
//! and makes a repeat of the item a repeat (L4).
//!
//! A busy server answers 429 with `Retry-After`, for the whole request or, when another part of it
//! was taken, for the items concerned.

pub mod answer;
pub mod bulk;

use crate::auth::AuthError;
use crate::body::{BodyError, Received};
use crate::http::{HttpDoors, RequestId, peer};
use crate::problem::{CHALLENGE, retry_after_seconds};
use crate::submit::{Body, BulkItem, Submission, SubmitError};
use answer::{Filter, Outcome};
use axum::Router;
use axum::extract::{Path, Query, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, head, post};
use bulk::{Action, Documents, Operation, Parsed};
use http::{HeaderValue, Method, StatusCode, header};
use palisade_event::TenantId;
use serde::Deserialize;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

/// What an item of `_bulk` takes beside its bytes until it is answered: its operation, its place, its
/// line of the answer.
const ITEM_BYTES: usize = 2 * size_of::<BulkItem>() + size_of::<Operation>() + 200;

/// The version that is answered: what clients of 8.x and 9.x accept.
pub const VERSION: &str = "8.17.0";

/// All routes with `/` and a native answer to unknown paths: for a listener of its own, or nested
/// under a path.
pub fn router(doors: HttpDoors) -> Router {
    let rest = Router::new()
        .route("/", get(info))
        .fallback(no_handler)
        .layer(middleware::from_fn_with_state(doors.clone(), native))
        .with_state(doors.clone());
    routes(doors).merge(rest)
}

/// The routes beside `/`, to be merged into another router.
pub fn routes(doors: HttpDoors) -> Router {
    Router::new()
        .route("/_bulk", post(bulk_all).put(bulk_all))
        .route("/{index}/_bulk", post(bulk_index).put(bulk_index))
        .route("/{index}/_doc", post(document))
        .route("/{index}/_doc/{id}", post(document_with_id).put(document_with_id))
        .route("/{index}/_create/{id}", post(document_with_id).put(document_with_id))
        .route("/{index}/_refresh", any(refresh))
        .route("/_refresh", any(refresh))
        .route("/_license", get(license))
        .route("/_xpack", get(xpack))
        .route("/_nodes", get(nodes))
        .route("/_nodes/{*rest}", get(nodes))
        .route("/_cluster/health", get(health))
        .route("/_cluster/health/{*rest}", get(health))
        .route("/_cat", get(cat))
        .route("/_cat/{*rest}", get(cat))
        .route("/_index_template/{name}", any(setting))
        .route("/_template/{name}", any(setting))
        .route("/_component_template/{name}", any(setting))
        .route("/_ilm/policy/{name}", any(setting))
        .route("/_ingest/pipeline/{name}", any(setting))
        .route("/_data_stream/{name}", any(setting))
        .route("/_alias/{name}", any(setting))
        .route("/{index}/_alias/{name}", any(setting))
        .route("/{index}", head(absent).put(create_index))
        .layer(middleware::from_fn_with_state(doors.clone(), native))
        .with_state(doors)
}

/// Lets in only who may send, and gives every answer the headers that clients look for.
async fn native(State(doors): State<HttpDoors>, request: Request, next: Next) -> Response {
    let id = doors.request_id(request.headers());
    let compatible = request
        .headers()
        .get(header::ACCEPT)
        .filter(|accept| accept.as_bytes().starts_with(b"application/vnd.elasticsearch+json"))
        .cloned();
    let mut response = match doors.may_ingest(request.headers()).await {
        Ok(principal) => {
            let mut request = request;
            request.extensions_mut().insert(Caller { tenant: principal.tenant, id: id.clone() });
            next.run(request).await
        }
        Err(error) => {
            doors.bulk_door().refuse("unauthenticated");
            unauthenticated(&error)
        }
    };
    let headers = response.headers_mut();
    headers.insert("x-elastic-product", HeaderValue::from_static("Elasticsearch"));
    let is_json = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if let Some(kind) = compatible.filter(|_| is_json) {
        headers.insert(header::CONTENT_TYPE, kind);
    }
    id.on(response)
}

/// Who calls and the call's correlation id, noted by [`native`].
#[derive(Clone)]
struct Caller {
    tenant: TenantId,
    id: RequestId,
}

#[derive(Debug, Default, Deserialize)]
struct BulkQuery {
    filter_path: Option<String>,
}

async fn bulk_all(
    State(doors): State<HttpDoors>,
    Query(query): Query<BulkQuery>,
    request: Request,
) -> Response {
    bulk_request(&doors, None, query, request).await
}

async fn bulk_index(
    State(doors): State<HttpDoors>,
    Path(index): Path<String>,
    Query(query): Query<BulkQuery>,
    request: Request,
) -> Response {
    bulk_request(&doors, Some(index), query, request).await
}

async fn bulk_request(
    doors: &HttpDoors,
    index: Option<String>,
    query: BulkQuery,
    request: Request,
) -> Response {
    let start = Instant::now();
    let mut opened = match open(doors, request).await {
        Ok(opened) => opened,
        Err(response) => return response,
    };
    // An item is an action and a document, two lines; what is kept of it for its answer, a line of
    // the answer, and the reason if it is refused.
    if let Err(error) = doors.admit_lines(&mut opened.body, 2, ITEM_BYTES / 2, doors.bulk_door()) {
        return unread(&error);
    }
    let parsed = match bulk::parse(&opened.body.bytes, index.as_deref()) {
        Ok(parsed) => parsed,
        Err(error) => {
            doors.bulk_door().refuse("invalid");
            return failed(error.kind, &error.reason, StatusCode::BAD_REQUEST);
        }
    };
    let outcomes = submit_all(doors, &opened, &parsed).await;
    let took = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    if let Some(error) = all_failed(&parsed, &outcomes) {
        return not_taken(error);
    }
    let filter = Filter::parse(query.filter_path.as_deref());
    native_json(
        StatusCode::OK,
        answer::items(&parsed, &outcomes, took, &opened.caller.id.0, filter),
    )
}

/// A request whose body was read; it holds its memory and its place until it is answered.
struct Opened {
    caller: Caller,
    peer: Option<IpAddr>,
    body: Received,
    _place: OwnedSemaphorePermit,
}

/// Reads the body of a request.
async fn open(doors: &HttpDoors, request: Request) -> Result<Opened, Response> {
    let door = doors.bulk_door();
    door.requests.inc();
    let peer = peer(&request);
    let (parts, body) = request.into_parts();
    let caller = parts
        .extensions
        .get::<Caller>()
        .cloned()
        .ok_or_else(|| unauthenticated(&AuthError::Missing))?;
    let Some(place) = doors.place() else {
        door.refuse("busy");
        return Err(not_taken(&SubmitError::Busy { retry_after_ms: 1000 }));
    };
    match doors.read(body, &parts.headers, door).await {
        Ok(body) => Ok(Opened { caller, peer, body, _place: place }),
        Err(error) => Err(unread(&error)),
    }
}

/// One submission for each index, all at once; a request names one index as a rule.
async fn submit_all(doors: &HttpDoors, opened: &Opened, parsed: &Parsed) -> Vec<Outcome> {
    let submissions = parsed.indexes.iter().map(|index| async {
        if index.items.is_empty() {
            return Ok(crate::submit::Receipt::default());
        }
        let submission = Submission {
            tenant: opened.caller.tenant.clone(),
            source: Arc::from(format!("elastic:{}", index.name)),
            domain: None,
            key: None,
            body: Body::BulkItems {
                body: opened.body.bytes.clone(),
                items: Arc::new(index.items.clone()),
            },
            peer: opened.peer,
        };
        doors.submit(submission, doors.bulk_door(), &opened.caller.id).await
    });
    let outcomes = futures::future::join_all(submissions).await;
    let before = parsed.operations.iter().filter(|op| op.document.is_err()).count();
    doors.bulk_door().refused_records.inc_by(before as u64);
    outcomes
}

/// The error of a request of which nothing was taken and every document failed alike.
fn all_failed<'a>(parsed: &Parsed, outcomes: &'a [Outcome]) -> Option<&'a SubmitError> {
    let refused_items = parsed.operations.iter().any(|operation| operation.document.is_err());
    let first = outcomes.first()?.as_ref().err()?;
    (!refused_items && outcomes.iter().all(|outcome| outcome.as_ref().err() == Some(first)))
        .then_some(first)
}

async fn document(
    State(doors): State<HttpDoors>,
    Path(index): Path<String>,
    request: Request,
) -> Response {
    one_document(&doors, index, None, request).await
}

async fn document_with_id(
    State(doors): State<HttpDoors>,
    Path((index, id)): Path<(String, String)>,
    request: Request,
) -> Response {
    one_document(&doors, index, Some(id), request).await
}

async fn one_document(
    doors: &HttpDoors,
    index: String,
    id: Option<String>,
    request: Request,
) -> Response {
    let opened = match open(doors, request).await {
        Ok(opened) => opened,
        Err(response) => return response,
    };
    if let Err(reason) = bulk::check_index(&index) {
        return failed("invalid_index_name_exception", &reason, StatusCode::BAD_REQUEST);
    }
    let item = BulkItem { range: 0..opened.body.bytes.len(), id: id.clone() };
    let parsed = Parsed {
        operations: vec![Operation {
            action: Action::Index,
            index: 0,
            id: id.clone(),
            document: Ok(0),
        }],
        indexes: vec![Documents { name: Arc::from(index.as_str()), items: vec![item] }],
    };
    let mut outcomes = submit_all(doors, &opened, &parsed).await;
    match outcomes.pop() {
        Some(Ok(receipt)) => match receipt.rejected.first() {
            None => json_answer(
                StatusCode::CREATED,
                &json!({
                    "_index": index, "_id": id.unwrap_or_else(|| format!("{}:0", opened.caller.id.0)),
                    "_version": 1, "result": "created",
                    "_shards": {"total": 1, "successful": 1, "failed": 0},
                    "_seq_no": 0, "_primary_term": 1,
                }),
            ),
            Some((_, reason)) => {
                failed("document_parsing_exception", reason, StatusCode::BAD_REQUEST)
            }
        },
        Some(Err(error)) => not_taken(&error),
        None => not_taken(&SubmitError::Stopped),
    }
}

fn native_json(status: StatusCode, body: Vec<u8>) -> Response {
    let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    (status, kind, body).into_response()
}

fn json_answer(status: StatusCode, body: &Value) -> Response {
    native_json(status, body.to_string().into_bytes())
}

fn failed(kind: &str, reason: &str, status: StatusCode) -> Response {
    native_json(status, answer::whole(kind, reason, status))
}

fn not_taken(error: &SubmitError) -> Response {
    let (kind, status, reason) = answer::error_of(error);
    let mut response = failed(kind, &reason, status);
    let wait = match error {
        SubmitError::Busy { retry_after_ms } => *retry_after_ms,
        SubmitError::DiskLow => 30_000,
        _ => return response,
    };
    response.headers_mut().insert(header::RETRY_AFTER, retry_after_seconds(wait));
    response
}

fn unread(error: &BodyError) -> Response {
    let kind = match error {
        BodyError::TooLarge { .. } | BodyError::TooManyRecords { .. } => {
            "content_too_long_exception"
        }
        BodyError::Busy => "es_rejected_execution_exception",
        _ => "illegal_argument_exception",
    };
    let mut response = failed(kind, &error.to_string(), error.status());
    let headers = response.headers_mut();
    match error {
        BodyError::Busy => {
            headers.insert(header::RETRY_AFTER, retry_after_seconds(1000));
        }
        BodyError::TooLarge { .. } | BodyError::Slow(_) => {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        _ => {}
    }
    response
}

fn unauthenticated(error: &AuthError) -> Response {
    let mut response = failed("security_exception", &error.to_string(), error.status());
    if error.status() == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static(CHALLENGE);
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

/// The answer to `GET /`.
pub async fn info() -> Response {
    json_answer(
        StatusCode::OK,
        &json!({
            "name": "palisade",
            "cluster_name": "palisade",
            "cluster_uuid": "cGFsaXNhZGUtcGFsaXNhZA",
            "version": {
                "number": VERSION, "build_flavor": "default", "build_type": "tar",
                "build_hash": "0000000000000000000000000000000000000000",
                "build_date": "2025-01-01T00:00:00.000000000Z", "build_snapshot": false,
                "lucene_version": "9.12.0", "minimum_wire_compatibility_version": "7.17.0",
                "minimum_index_compatibility_version": "7.0.0",
            },
            "tagline": "You Know, for Search",
        }),
    )
}

async fn license() -> Response {
    json_answer(
        StatusCode::OK,
        &json!({"license": {
            "status": "active", "uid": "00000000-0000-0000-0000-000000000000", "type": "basic",
            "issue_date": "2025-01-01T00:00:00.000Z", "issue_date_in_millis": 1_735_689_600_000_i64,
            "max_nodes": 1000, "max_resource_units": null, "issued_to": "palisade",
            "issuer": "palisade", "start_date_in_millis": -1,
        }}),
    )
}

async fn xpack() -> Response {
    json_answer(
        StatusCode::OK,
        &json!({
            "build": {"hash": "0000000000000000000000000000000000000000", "date": "2025-01-01T00:00:00.000000000Z"},
            "license": {"uid": "00000000-0000-0000-0000-000000000000", "type": "basic", "mode": "basic", "status": "active"},
            "features": {
                "ilm": {"available": true, "enabled": true},
                "data_streams": {"available": true, "enabled": true},
                "security": {"available": true, "enabled": true},
            },
            "tagline": "You know, for X",
        }),
    )
}

async fn nodes() -> Response {
    json_answer(
        StatusCode::OK,
        &json!({
            "_nodes": {"total": 1, "successful": 1, "failed": 0},
            "cluster_name": "palisade",
            "nodes": {"palisade": {"name": "palisade", "version": VERSION, "roles": ["data", "ingest"], "attributes": {}}},
        }),
    )
}

async fn health() -> Response {
    json_answer(
        StatusCode::OK,
        &json!({
            "cluster_name": "palisade", "status": "green", "timed_out": false,
            "number_of_nodes": 1, "number_of_data_nodes": 1, "active_primary_shards": 1,
            "active_shards": 1, "relocating_shards": 0, "initializing_shards": 0,
            "unassigned_shards": 0, "delayed_unassigned_shards": 0,
            "number_of_pending_tasks": 0, "number_of_in_flight_fetch": 0,
            "task_max_waiting_in_queue_millis": 0, "active_shards_percent_as_number": 100.0,
        }),
    )
}

/// `_cat` lists nothing: tables are in `system.segments`, by SQL.
async fn cat(request: Request) -> Response {
    let asks_json = request.uri().query().is_some_and(|query| query.contains("format=json"));
    if asks_json { json_answer(StatusCode::OK, &json!([])) } else { StatusCode::OK.into_response() }
}

async fn refresh() -> Response {
    json_answer(StatusCode::OK, &json!({"_shards": {"total": 1, "successful": 1, "failed": 0}}))
}

/// A thing that this server has no use for: it is never there, and setting it up is acknowledged.
async fn setting(method: Method) -> Response {
    if matches!(method, Method::PUT | Method::POST | Method::DELETE) {
        return json_answer(StatusCode::OK, &json!({"acknowledged": true}));
    }
    failed("resource_not_found_exception", "there is none here", StatusCode::NOT_FOUND)
}

async fn absent() -> StatusCode {
    StatusCode::NOT_FOUND
}

async fn create_index(Path(index): Path<String>) -> Response {
    match bulk::check_index(&index) {
        Ok(()) => json_answer(
            StatusCode::OK,
            &json!({"acknowledged": true, "shards_acknowledged": true, "index": index}),
        ),
        Err(reason) => failed("invalid_index_name_exception", &reason, StatusCode::BAD_REQUEST),
    }
}

async fn no_handler(request: Request) -> Response {
    let path: String = request.uri().path().chars().take(200).collect();
    let reason = format!("no handler found for uri [{path}] and method [{}]", request.method());
    json_answer(StatusCode::BAD_REQUEST, &json!({"error": reason, "status": 400}))
}
