//! Who asks, what they may do, and the id that the request has in logs and audits.

use crate::state::ApiState;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use palisade_catalog::AuditRecord;
use palisade_event::TenantId;
use palisade_ingest::auth::{AuthError, Principal, authenticate};
use palisade_ingest::problem::Problem;
use std::sync::atomic::Ordering;

/// What a handler asks for before anything else: the principal and the request's id.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who.
    pub principal: Principal,
    /// The request's id: the caller's `X-Request-Id`, or one of ours.
    pub request_id: String,
    /// The path that was asked for.
    pub path: String,
}

/// The header in which a sender may say of which tenant its key is; another one is refused where something is changed.
pub const TENANT_HEADER: &str = "palisade-tenant";

/// A right to do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Ask for data.
    Query,
    /// Change keys, dead letters, settings.
    Admin,
}

impl FromRequestParts<ApiState> for Caller {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Response> {
        let sent = parts.headers.get("x-request-id").and_then(|value| value.to_str().ok());
        let request_id = match sent.filter(|id| {
            (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
        }) {
            Some(id) => id.to_owned(),
            None => format!("a{:x}", state.requests.fetch_add(1, Ordering::Relaxed)),
        };
        let path = parts.uri.path().to_owned();
        if !parts.method.is_safe() && is_foreign(&parts.headers) {
            let detail = "a page of another site sent this: use the server's own page or a program";
            return Err(Problem::new(StatusCode::FORBIDDEN, "cross-site", "other site", detail)
                .at(&path, &request_id)
                .into_response());
        }
        match authenticate(state.auth.as_ref(), &parts.headers).await {
            Ok(principal) => Ok(Self { principal, request_id, path }),
            Err(error) => Err(refused(&error, &path, &request_id)),
        }
    }
}

/// Whether a browser says that a page of another site asks. While the tenant is open, credentials do
/// not keep such pages from changing things.
pub(crate) fn is_foreign(headers: &HeaderMap) -> bool {
    headers
        .get("sec-fetch-site")
        .and_then(|site| site.to_str().ok())
        .is_some_and(|site| !matches!(site, "same-origin" | "none"))
}

fn refused(error: &AuthError, path: &str, request_id: &str) -> Response {
    let (slug, title) = match error.status() {
        StatusCode::UNAUTHORIZED => ("unauthorized", "who you are is not known"),
        StatusCode::FORBIDDEN => ("forbidden", "the key may not do this"),
        _ => ("unavailable", "keys cannot be checked"),
    };
    let mut response = Problem::new(error.status(), slug, title, error.to_string())
        .at(path, request_id)
        .into_response();
    if error.status() == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Bearer, ApiKey, Basic realm=\"palisade\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

/// A caller with the scope `admin`, and their tenant: what handlers that change something ask for.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Who.
    pub caller: Caller,
    /// Whose things they may change.
    pub tenant: TenantId,
}

impl FromRequestParts<ApiState> for Admin {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Response> {
        let caller = Caller::from_request_parts(parts, state).await?;
        let tenant = caller.may(Scope::Admin)?.clone();
        // Who says which tenant they mean is not to change another by a key that they took by mistake.
        let meant = parts.headers.get(TENANT_HEADER).map(HeaderValue::as_bytes);
        if meant.is_some_and(|meant| meant != tenant.as_str().as_bytes()) {
            let detail =
                format!("the key is of the tenant {tenant}: use one of the tenant that is meant");
            return Err(caller.problem(
                StatusCode::FORBIDDEN,
                "forbidden",
                "the key is of another tenant",
                detail,
            ));
        }
        Ok(Self { caller, tenant })
    }
}

impl Caller {
    /// The caller's tenant, if they have the right.
    ///
    /// # Errors
    /// The answer 403 that names the missing scope.
    #[expect(clippy::result_large_err, reason = "an answer is what the handler returns anyway")]
    pub fn may(&self, scope: Scope) -> Result<&TenantId, Response> {
        let (has, name) = match scope {
            Scope::Query => (self.principal.scopes.query, "query"),
            Scope::Admin => (self.principal.scopes.admin, "admin"),
        };
        if has {
            Ok(&self.principal.tenant)
        } else {
            Err(refused(&AuthError::Forbidden(name), &self.path, &self.request_id))
        }
    }

    /// A problem about this request.
    #[must_use]
    pub fn problem(
        &self,
        status: StatusCode,
        slug: &str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Response {
        Problem::new(status, slug, title, detail).at(&self.path, &self.request_id).into_response()
    }

    /// Keeps in the catalog what the caller did. An action whose audit can't be kept is not done, so
    /// this comes first.
    ///
    /// # Errors
    /// The answer 503.
    pub async fn audit(
        &self,
        state: &ApiState,
        action: &str,
        subject: &str,
        detail: serde_json::Value,
    ) -> Result<(), Response> {
        let record = AuditRecord {
            time: state.clock.now(),
            tenant: self.principal.tenant.clone(),
            actor: self.principal.key_id.as_deref().unwrap_or("local").to_owned(),
            action: action.to_owned(),
            subject: subject.chars().take(256).collect(),
            detail,
            request_id: self.request_id.clone(),
        };
        state.catalog.audit(record).await.map_err(|error| {
            self.problem(
                StatusCode::SERVICE_UNAVAILABLE,
                "audit",
                "the action could not be audited",
                format!("{error}; nothing was done"),
            )
        })
    }
}
