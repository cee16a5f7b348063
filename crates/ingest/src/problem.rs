//! Errors over HTTP as RFC 9457 problem details (`application/problem+json`).
//!
//! Members: `type` (a URN that names the kind), `title`, `status`, `detail` (what to do next),
//! `instance` (the path), `request_id`, and where they apply `errors` (index and reason of refused
//! records), `limit` (bytes) and `retry_after_ms`.

use crate::auth::AuthError;
use crate::submit::SubmitError;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

/// The most refused records that a problem or an answer lists.
pub const MAX_LISTED: usize = 1000;

/// One refused record.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct Refused {
    /// Its index in the request, from 0.
    pub index: u64,
    /// Why.
    pub reason: String,
}

/// Problem details.
#[derive(Debug, Clone, Serialize)]
pub struct Problem {
    /// The kind, `urn:palisade:problem:<slug>`.
    pub r#type: String,
    /// The kind in words.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What happened here and what to do.
    pub detail: String,
    /// The path that was asked for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub instance: String,
    /// The correlation id, also in `X-Request-Id`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub request_id: String,
    /// Refused records.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Refused>,
    /// The bound that was passed, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// When to try again, in milliseconds; `Retry-After` has it in whole seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl Problem {
    /// A problem of this status; `slug` ends its type.
    #[must_use]
    pub fn new(
        status: StatusCode,
        slug: &str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            r#type: format!("urn:palisade:problem:{slug}"),
            title,
            status: status.as_u16(),
            detail: detail.into(),
            instance: String::new(),
            request_id: String::new(),
            errors: Vec::new(),
            limit: None,
            retry_after_ms: None,
        }
    }

    /// The same, about this path and request.
    #[must_use]
    pub fn at(mut self, instance: &str, request_id: &str) -> Self {
        instance.clone_into(&mut self.instance);
        request_id.clone_into(&mut self.request_id);
        self
    }

    /// The same with the bound that was passed.
    #[must_use]
    pub fn with_limit(mut self, bytes: u64) -> Self {
        self.limit = Some(bytes);
        self
    }

    /// The same with the time to wait.
    #[must_use]
    pub fn with_retry_after(mut self, milliseconds: u64) -> Self {
        self.retry_after_ms = Some(milliseconds);
        self
    }

    /// The same with refused records, the first [`MAX_LISTED`] of them.
    #[must_use]
    pub fn with_errors(mut self, rejected: &[(u64, String)]) -> Self {
        self.errors = refused(rejected);
        self
    }
}

/// The first [`MAX_LISTED`] refused records as they are listed in answers.
#[must_use]
pub fn refused(rejected: &[(u64, String)]) -> Vec<Refused> {
    rejected
        .iter()
        .take(MAX_LISTED)
        .map(|(index, reason)| Refused { index: *index, reason: reason.clone() })
        .collect()
}

impl From<&SubmitError> for Problem {
    fn from(error: &SubmitError) -> Self {
        let detail = error.to_string();
        match error {
            SubmitError::Busy { retry_after_ms } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "busy", "the server is busy", detail)
                    .with_retry_after(*retry_after_ms)
            }
            SubmitError::KeyConflict => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "key-conflict",
                "idempotency key used with another body",
                detail,
            ),
            SubmitError::TooLarge { limit } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "body too large", detail)
                    .with_limit(*limit)
            }
            SubmitError::DiskLow => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "disk-low", "disk nearly full", detail)
                    .with_retry_after(30_000)
            }
            SubmitError::Stopped => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "server is stopping", detail)
                    .with_retry_after(5_000)
            }
            SubmitError::Refused(_) => {
                Self::new(StatusCode::FORBIDDEN, "sender-refused", "sender refused", detail)
            }
            SubmitError::Invalid(_) => {
                Self::new(StatusCode::BAD_REQUEST, "invalid", "body cannot be read", detail)
            }
        }
    }
}

impl From<&AuthError> for Problem {
    fn from(error: &AuthError) -> Self {
        let (slug, title) = match error {
            AuthError::Missing | AuthError::Malformed(_) | AuthError::Invalid => {
                ("unauthenticated", "credentials needed")
            }
            AuthError::Forbidden(_) => ("forbidden", "not permitted"),
            AuthError::Unavailable(_) => ("keys-unavailable", "keys cannot be checked"),
        };
        Self::new(error.status(), slug, title, error.to_string())
    }
}

/// The header value of `WWW-Authenticate` that names what is understood.
pub const CHALLENGE: &str =
    r#"Bearer realm="palisade", ApiKey, Basic realm="palisade", charset="UTF-8""#;

/// Whole seconds for `Retry-After`, rounded up, at least 1.
#[must_use]
pub fn retry_after_seconds(milliseconds: u64) -> HeaderValue {
    HeaderValue::from(milliseconds.div_ceil(1000).max(1))
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(milliseconds) = self.retry_after_ms {
            headers.insert(header::RETRY_AFTER, retry_after_seconds(milliseconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE));
        }
        if matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::PAYLOAD_TOO_LARGE) {
            // The rest of the body is not read, so the connection cannot serve another request.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
