//! `POST /api/v1/streams/{stream}/records`: records over HTTP.
//!
//! The body is JSON (one record a line, an array, or concatenated, pretty-printed too) or, with
//! `Content-Type: text/plain`, raw lines. `Content-Encoding` may be gzip, zstd or deflate.
//!
//! | header | meaning |
//! |---|---|
//! | `Authorization` | Bearer, ApiKey or Basic ([`crate::auth`]) |
//! | `Idempotency-Key` | 1 to 255 visible ASCII characters; a repeat gets the first answer and `Idempotent-Replayed: true` |
//! | `X-Request-Id` | correlation id, at most 128 visible ASCII characters; given when missing, always answered |
//!
//! Query parameters: `source` (the column `source`, default `http`) and `domain` (the time domain
//! of a historical load, T2); both at most 128 visible ASCII characters. A historical load says
//! `POST /api/v1/domains/{domain}/start` first and `…/end` when all of it is acknowledged.
//!
//! The answer comes when the records are durable: 200 with
//! `{"accepted":n,"rejected":[{"index":i,"reason":"…"}],"rejected_total":n}`, or problem details:
//! 400 when every record was refused, 401, 403, 404, 408, 413, 415, 422, 429, 503.

use crate::auth::{self, AuthError, Authenticate, Principal};
use crate::body::{self, BodyError, BodyLimits, Budget, Received};
use crate::lines;
use crate::metrics::{Door, DoorMetrics};
use crate::problem::{Problem, Refused, refused};
use crate::submit::{Body, DomainTurn, Receipt, Submission, Submit, SubmitError};
use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::{ConnectInfo, Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use palisade_event::domain::LIVE;
use palisade_event::schema::EVENTS;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The longest source or domain that a request may name.
const MAX_NAME: usize = 128;
/// What a line takes in a list of lines.
const RANGE_BYTES: usize = size_of::<std::ops::Range<usize>>();
/// The name of the correlation header.
pub const REQUEST_ID: &str = "x-request-id";

/// What the HTTP doors share. Cheap to clone.
#[derive(Clone)]
pub struct HttpDoors(Arc<Inner>);

struct Inner {
    submit: Arc<dyn Submit>,
    auth: Arc<dyn Authenticate>,
    limits: ArcSwap<BodyLimits>,
    budget: Budget,
    requests: Arc<Semaphore>,
    records: Door,
    bulk: Door,
    ids: RequestIds,
}

impl std::fmt::Debug for HttpDoors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpDoors").field("limits", &*self.0.limits.load()).finish_non_exhaustive()
    }
}

impl HttpDoors {
    /// Doors that hand records to `submit` and ask `auth` who may send them.
    #[must_use]
    pub fn new(
        submit: Arc<dyn Submit>,
        auth: Arc<dyn Authenticate>,
        limits: BodyLimits,
        metrics: &DoorMetrics,
    ) -> Self {
        Self(Arc::new(Inner {
            submit,
            auth,
            budget: Budget::new(limits.memory_bytes),
            requests: Arc::new(Semaphore::new(limits.requests.clamp(1, Semaphore::MAX_PERMITS))),
            limits: ArcSwap::from_pointee(limits),
            records: metrics.door("http"),
            bulk: metrics.door("bulk"),
            ids: RequestIds::new(),
        }))
    }

    /// Sets other bounds of single bodies, from the next request on. The memory of all bodies and the number
    /// of requests stay.
    pub fn set_limits(&self, limits: BodyLimits) {
        self.0.limits.store(Arc::new(limits));
    }

    /// The counters of the `_bulk` door.
    pub(crate) fn bulk_door(&self) -> &Door {
        &self.0.bulk
    }

    /// The correlation id of a request.
    pub(crate) fn request_id(&self, headers: &HeaderMap) -> RequestId {
        self.0.ids.of(headers)
    }

    /// Who sends, if they may.
    pub(crate) async fn may_ingest(&self, headers: &HeaderMap) -> Result<Principal, AuthError> {
        auth::may_ingest(self.0.auth.as_ref(), headers).await
    }

    /// A place among the requests that are worked on; `None` when all are taken.
    pub(crate) fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0.requests).try_acquire_owned().ok()
    }

    /// The body of a request.
    pub(crate) async fn read(
        &self,
        body: axum::body::Body,
        headers: &HeaderMap,
        door: &Door,
    ) -> Result<Received, BodyError> {
        let result = body::read(body, headers, &self.0.limits.load_full(), &self.0.budget).await;
        match &result {
            Ok(received) => {
                door.bytes.inc_by(received.wire_bytes as u64);
            }
            Err(error) => door.refuse(error.reason()),
        }
        result
    }

    /// Bounds the lines of a body before they are listed; a record has so many lines, and a line in
    /// lists so many bytes.
    pub(crate) fn admit_lines(
        &self,
        received: &mut Received,
        lines_a_record: usize,
        each: usize,
        door: &Door,
    ) -> Result<(), BodyError> {
        let records = self.0.limits.load().records;
        let most = records.saturating_mul(lines_a_record);
        received.admit_lines(most, each).map_err(|error| {
            door.refuse(error.reason());
            match error {
                BodyError::TooManyRecords { .. } => {
                    BodyError::TooManyRecords { limit: records as u64 }
                }
                other => other,
            }
        })
    }

    /// Hands records over and counts what became of them. The log says where they are: with the
    /// offset and the committer's lines the way of a request is known up to its commit.
    pub(crate) async fn submit(
        &self,
        submission: Submission,
        door: &Door,
        id: &RequestId,
    ) -> Result<Receipt, SubmitError> {
        let tenant = submission.tenant.clone();
        let result = self.0.submit.submit(submission).await;
        match &result {
            Ok(receipt) => {
                tracing::debug!(
                    request_id = id.0,
                    tenant = tenant.as_str(),
                    accepted = receipt.accepted,
                    rejected = receipt.rejected_total,
                    repeated = receipt.repeated,
                    offset = receipt.offset.map(|offset| offset.0),
                    "records taken"
                );
                door.records.inc_by(receipt.accepted);
                door.refused_records.inc_by(receipt.rejected_total);
            }
            Err(error) => door.refuse(reason(error)),
        }
        result
    }
}

/// The word for metrics.
pub(crate) fn reason(error: &SubmitError) -> &'static str {
    match error {
        SubmitError::Busy { .. } => "busy",
        SubmitError::KeyConflict => "key_conflict",
        SubmitError::TooLarge { .. } => "too_large",
        SubmitError::DiskLow => "disk_low",
        SubmitError::Stopped => "stopped",
        SubmitError::Refused(_) => "sender_refused",
        SubmitError::Invalid(_) => "invalid",
    }
}

/// Gives requests their correlation ids: a random start for the process and a count.
#[derive(Debug)]
struct RequestIds {
    start: u64,
    next: AtomicU64,
}

/// A correlation id: visible ASCII, at most 128 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(pub String);

impl RequestIds {
    fn new() -> Self {
        // Without randomness the ids only lose their uniqueness over restarts.
        Self { start: getrandom::u64().unwrap_or(0), next: AtomicU64::new(1) }
    }

    fn of(&self, headers: &HeaderMap) -> RequestId {
        let sent = headers.get(REQUEST_ID).and_then(|value| visible(value, MAX_NAME));
        RequestId(sent.map_or_else(
            || format!("{:016x}-{:x}", self.start, self.next.fetch_add(1, Ordering::Relaxed)),
            str::to_owned,
        ))
    }
}

impl RequestId {
    /// Puts the id on a response.
    #[must_use]
    pub fn on(&self, mut response: Response) -> Response {
        if let Ok(value) = HeaderValue::from_str(&self.0) {
            response.headers_mut().insert(REQUEST_ID, value);
        }
        response
    }
}

fn visible(value: &HeaderValue, most: usize) -> Option<&str> {
    let text = value.to_str().ok()?;
    is_visible(text, most).then_some(text)
}

fn is_visible(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The routes of this module.
pub fn router(doors: HttpDoors) -> Router {
    Router::new()
        .route("/api/v1/streams/{stream}/records", post(post_records))
        .route("/api/v1/domains/{domain}/{turn}", post(post_turn))
        .with_state(doors)
}

/// What the query string may say.
#[derive(Debug, Default, Deserialize)]
pub struct RecordsQuery {
    /// The column `source`.
    pub source: Option<String>,
    /// The time domain (T2).
    pub domain: Option<String>,
}

/// The answer when at least one record was taken.
#[derive(Debug, Clone, Serialize)]
pub struct RecordsAnswer {
    /// How many records are durable now.
    pub accepted: u64,
    /// The first 1,000 refused ones.
    pub rejected: Vec<Refused>,
    /// How many were refused in all.
    pub rejected_total: u64,
}

/// The sender's address, where the server noted it.
pub(crate) fn peer(request: &Request) -> Option<IpAddr> {
    request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip())
}

async fn post_records(
    State(doors): State<HttpDoors>,
    Path(stream): Path<String>,
    Query(query): Query<RecordsQuery>,
    request: Request,
) -> Response {
    let id = doors.request_id(request.headers());
    let path = request.uri().path().to_owned();
    doors.0.records.requests.inc();
    let response = match take(&doors, &stream, query, request, &id).await {
        Ok(receipt) => answer(&receipt, &path, &id),
        Err(problem) => {
            tracing::debug!(request_id = id.0, status = problem.status, problem.detail, "refused");
            problem.at(&path, &id.0).into_response()
        }
    };
    id.on(response)
}

/// `POST /api/v1/domains/{domain}/start` and `…/end`: a historical load begins, or all of it is durable
/// (T2). 204 when the control record is durable.
async fn post_turn(
    State(doors): State<HttpDoors>,
    Path((domain, turn)): Path<(String, String)>,
    request: Request,
) -> Response {
    let id = doors.request_id(request.headers());
    let path = request.uri().path().to_owned();
    doors.0.records.requests.inc();
    let response = match turn_domain(&doors, &domain, &turn, request.headers()).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(problem) => problem.at(&path, &id.0).into_response(),
    };
    id.on(response)
}

async fn turn_domain(
    doors: &HttpDoors,
    domain: &str,
    turn: &str,
    headers: &HeaderMap,
) -> Result<(), Problem> {
    let principal = doors.may_ingest(headers).await.map_err(|error| {
        doors.0.records.refuse("unauthenticated");
        Problem::from(&error)
    })?;
    let turn = match turn {
        "start" => DomainTurn::Starts,
        "end" => DomainTurn::Ends,
        _ => {
            let detail = "a domain has a 'start' and an 'end', nothing else";
            return Err(Problem::new(StatusCode::NOT_FOUND, "unknown", "no such thing", detail));
        }
    };
    if domain == LIVE || !is_visible(domain, MAX_NAME) {
        let detail = format!(
            "a domain's name must be 1 to {MAX_NAME} visible ASCII characters and not '{LIVE}', which never ends"
        );
        return Err(Problem::new(StatusCode::BAD_REQUEST, "invalid", "no such domain", detail));
    }
    let turned = doors.0.submit.turn_domain(principal.tenant, Arc::from(domain), turn).await;
    turned.map_err(|error| Problem::from(&error))
}

async fn take(
    doors: &HttpDoors,
    stream: &str,
    query: RecordsQuery,
    request: Request,
    id: &RequestId,
) -> Result<Receipt, Problem> {
    let door = &doors.0.records;
    let principal = doors.may_ingest(request.headers()).await.map_err(|error| {
        door.refuse("unauthenticated");
        Problem::from(&error)
    })?;
    if stream != EVENTS {
        door.refuse("no_such_stream");
        return Err(Problem::new(
            StatusCode::NOT_FOUND,
            "no-such-stream",
            "no such stream",
            format!("there is no stream '{}': send to '{EVENTS}'", cut(stream)),
        ));
    }
    let invalid = |detail: String| {
        door.refuse("invalid");
        Problem::new(StatusCode::BAD_REQUEST, "invalid", "request cannot be read", detail)
    };
    let key = match request.headers().get("idempotency-key") {
        None => None,
        Some(value) => Some(
            visible(value, 255)
                .ok_or_else(|| {
                    invalid("the Idempotency-Key must be 1 to 255 visible ASCII characters".into())
                })?
                .to_owned(),
        ),
    };
    for (what, name) in [("source", &query.source), ("domain", &query.domain)] {
        if name.as_ref().is_some_and(|name| !is_visible(name, MAX_NAME)) {
            return Err(invalid(format!(
                "the parameter {what} must be 1 to {MAX_NAME} visible ASCII characters"
            )));
        }
    }
    let kind = kind(request.headers()).map_err(|sent| {
        door.refuse("unknown_type");
        Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unknown-type",
            "content type not understood",
            format!(
                "'{}' is not understood: send application/json, application/x-ndjson or text/plain",
                cut(&sent)
            ),
        )
    })?;
    let Some(_place) = doors.place() else {
        door.refuse("busy");
        return Err(Problem::from(&SubmitError::Busy { retry_after_ms: 1000 }));
    };
    let peer = peer(&request);
    let (parts, body) = request.into_parts();
    let mut received =
        doors.read(body, &parts.headers, door).await.map_err(|error| Problem::from(&error))?;
    if received.bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(invalid("the body is empty: send at least one record".into()));
    }
    let body = match kind {
        Kind::Json => Body::Json(received.bytes),
        Kind::Lines => {
            doors
                .admit_lines(&mut received, 1, RANGE_BYTES, door)
                .map_err(|error| Problem::from(&error))?;
            Body::Lines { ranges: Arc::new(lines::ranges(&received.bytes)), body: received.bytes }
        }
    };
    let submission = Submission {
        tenant: principal.tenant,
        source: query.source.map_or_else(|| Arc::from("http"), Arc::from),
        domain: query.domain.map(Arc::from),
        key,
        body,
        peer,
    };
    doors.submit(submission, door, id).await.map_err(|error| Problem::from(&error))
}

fn answer(receipt: &Receipt, path: &str, id: &RequestId) -> Response {
    if receipt.accepted == 0 && receipt.rejected_total > 0 {
        let first = receipt.rejected.first().map_or("", |(_, reason)| reason.as_str());
        let mut response = Problem::new(
            StatusCode::BAD_REQUEST,
            "all-refused",
            "every record was refused",
            format!("{} records, none taken; the first: {first}", receipt.rejected_total),
        )
        .with_errors(&receipt.rejected)
        .at(path, &id.0)
        .into_response();
        mark_repeated(&mut response, receipt);
        return response;
    }
    let mut response = axum::Json(RecordsAnswer {
        accepted: receipt.accepted,
        rejected: refused(&receipt.rejected),
        rejected_total: receipt.rejected_total,
    })
    .into_response();
    mark_repeated(&mut response, receipt);
    response
}

fn mark_repeated(response: &mut Response, receipt: &Receipt) {
    if receipt.repeated {
        response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
    }
}

fn cut(text: &str) -> String {
    text.chars().take(60).collect()
}

enum Kind {
    Json,
    Lines,
}

/// What the content type says. Curl's default for `-d` counts as JSON.
fn kind(headers: &HeaderMap) -> Result<Kind, String> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Ok(Kind::Json);
    };
    let text = value.to_str().unwrap_or("?");
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "text/plain" => Ok(Kind::Lines),
        ""
        | "application/json"
        | "application/x-ndjson"
        | "application/ndjson"
        | "application/jsonl"
        | "application/x-jsonlines"
        | "application/json-lines"
        | "text/json"
        | "application/octet-stream"
        | "application/x-www-form-urlencoded" => Ok(Kind::Json),
        other if other.starts_with("application/") && other.ends_with("+json") => Ok(Kind::Json),
        _ => Err(text.to_owned()),
    }
}

impl From<&BodyError> for Problem {
    fn from(error: &BodyError) -> Self {
        let title = match error {
            BodyError::TooLarge { .. } => "body too large",
            BodyError::TooManyRecords { .. } => "too many records",
            BodyError::UnknownEncoding(_) => "content encoding not understood",
            BodyError::Corrupt(_) => "body does not decode",
            BodyError::Slow(_) => "body too slow",
            BodyError::Disconnected(_) => "body cut off",
            BodyError::Busy => "the server is busy",
        };
        let slug = error.reason().replace('_', "-");
        let problem = Self::new(error.status(), &slug, title, error.to_string());
        match error {
            BodyError::TooLarge { limit, .. } | BodyError::TooManyRecords { limit } => {
                problem.with_limit(*limit)
            }
            BodyError::Busy => problem.with_retry_after(1000),
            _ => problem,
        }
    }
}
