//! `/api/v1/keys`: the API keys of the caller's tenant. Scope `admin`; changes are audited.

use crate::access::{Admin, Caller};
use crate::openapi::ProblemDetails;
use crate::state::ApiState;
use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use palisade_catalog::{CatalogError, KeyInfo, ScopeSet};
use palisade_event::ErrorClass;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

/// A right of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeyScope {
    /// Send records.
    Ingest,
    /// Ask and watch.
    Query,
    /// Manage keys and dead letters.
    Admin,
}

/// A key to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewKeyRequest {
    /// What it is for, 1 to 200 printable bytes.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<KeyScope>,
    /// From when on it is refused, milliseconds since the epoch; never when it is not said.
    #[serde(default)]
    pub expires_at: Option<i64>,
}

/// A key that was made. Its text is shown only here.
#[derive(Debug, Serialize, ToSchema)]
pub struct MadeKey {
    /// The public id.
    pub id: String,
    /// The whole key, `plsd_<id>_<secret>`.
    pub key: String,
}

/// A key without its secret, which nobody has but its holder. Times are milliseconds since the epoch.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct ListedKey {
    /// The public id.
    pub id: String,
    /// What it is for.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<KeyScope>,
    /// When it was made.
    pub created_at: i64,
    /// From when on it is refused.
    pub expires_at: Option<i64>,
    /// When it was revoked.
    pub revoked_at: Option<i64>,
}

/// The keys of a tenant.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeyList {
    /// By time of making.
    pub keys: Vec<ListedKey>,
}

fn scope_set(scopes: &[KeyScope]) -> ScopeSet {
    ScopeSet {
        ingest: scopes.contains(&KeyScope::Ingest),
        query: scopes.contains(&KeyScope::Query),
        admin: scopes.contains(&KeyScope::Admin),
    }
}

impl From<KeyInfo> for ListedKey {
    fn from(key: KeyInfo) -> Self {
        let scopes = [
            (key.scopes.ingest, KeyScope::Ingest),
            (key.scopes.query, KeyScope::Query),
            (key.scopes.admin, KeyScope::Admin),
        ];
        let millis = |micros: i64| micros.div_euclid(1000);
        Self {
            id: key.id,
            name: key.name,
            scopes: scopes.into_iter().filter(|(has, _)| *has).map(|(_, scope)| scope).collect(),
            created_at: millis(key.created_at),
            expires_at: key.expires_at.map(millis),
            revoked_at: key.revoked_at.map(millis),
        }
    }
}

/// The answer to what the catalog refused.
pub(crate) fn refused(caller: &Caller, error: &CatalogError) -> Response {
    let (status, slug, title) = match (error, error.class()) {
        (CatalogError::Unknown { .. }, _) => {
            (StatusCode::NOT_FOUND, "unknown", "there is no such thing")
        }
        (CatalogError::Invalid { .. }, _) => {
            (StatusCode::BAD_REQUEST, "invalid", "the request cannot be followed")
        }
        (_, ErrorClass::Transient) => {
            (StatusCode::SERVICE_UNAVAILABLE, "busy", "the catalog is busy")
        }
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "catalog", "the catalog failed"),
    };
    caller.problem(status, slug, title, error.to_string())
}

/// `GET /api/v1/keys`: the tenant's keys, revoked ones included.
#[utoipa::path(get, path = "/api/v1/keys", tag = "administration", responses(
    (status = 200, description = "The keys", body = KeyList),
    (status = 403, description = "The key lacks the scope admin", body = ProblemDetails, content_type = "application/problem+json"),
))]
pub async fn list(State(state): State<ApiState>, Admin { caller, tenant }: Admin) -> Response {
    match state.catalog.list_keys(Some(&tenant)).await {
        Ok(keys) => {
            Json(KeyList { keys: keys.into_iter().map(ListedKey::from).collect() }).into_response()
        }
        Err(error) => refused(&caller, &error),
    }
}

/// `POST /api/v1/keys`: makes a key of the caller's tenant. The first key of all closes the open
/// tenant.
#[utoipa::path(post, path = "/api/v1/keys", tag = "administration", request_body = NewKeyRequest, responses(
    (status = 201, description = "The key, shown this once", body = MadeKey),
    (status = 400, description = "Name, scopes or time are wrong", body = ProblemDetails, content_type = "application/problem+json"),
    (status = 403, description = "The key lacks the scope admin", body = ProblemDetails, content_type = "application/problem+json"),
))]
pub async fn make(
    State(state): State<ApiState>,
    Admin { caller, tenant }: Admin,
    request: Result<Json<NewKeyRequest>, JsonRejection>,
) -> Response {
    let request = match request {
        Ok(Json(request)) => request,
        Err(error) => return caller.problem(error.status(), "key", "no key", error.body_text()),
    };
    let Some(expires) = request.expires_at.map_or(Some(None), |at| at.checked_mul(1000).map(Some))
    else {
        let detail = "expires_at is too far away: give milliseconds since the epoch";
        return caller.problem(StatusCode::BAD_REQUEST, "key", "no key", detail);
    };
    let subject: String = request.name.chars().take(200).collect();
    let detail = json!({"scopes": request.scopes, "expires_at": request.expires_at});
    if let Err(response) = caller.audit(&state, "key:create", &subject, detail).await {
        return response;
    }
    let scopes = scope_set(&request.scopes);
    let now = state.clock.now();
    match state.catalog.create_key(&tenant, &request.name, scopes, expires, now).await {
        Ok(key) => {
            let no_store = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
            let made = MadeKey { id: key.id, key: key.text };
            (StatusCode::CREATED, no_store, Json(made)).into_response()
        }
        Err(error) => refused(&caller, &error),
    }
}

/// `DELETE /api/v1/keys/{id}`: revokes a key of the caller's tenant. Again changes nothing.
#[utoipa::path(delete, path = "/api/v1/keys/{id}", tag = "administration",
    params(("id" = String, Path, description = "The key's public id")), responses(
    (status = 204, description = "It is revoked"),
    (status = 403, description = "The key lacks the scope admin", body = ProblemDetails, content_type = "application/problem+json"),
    (status = 404, description = "The tenant has no such key", body = ProblemDetails, content_type = "application/problem+json"),
))]
pub async fn revoke(
    State(state): State<ApiState>,
    Admin { caller, tenant }: Admin,
    Path(id): Path<String>,
) -> Response {
    if let Err(response) = caller.audit(&state, "key:revoke", &id, json!({})).await {
        return response;
    }
    match state.catalog.revoke_key(Some(&tenant), &id, state.clock.now()).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => refused(&caller, &error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use palisade_event::TenantId;

    #[test]
    fn requests_name_known_scopes_only() {
        let read = |text| serde_json::from_str::<NewKeyRequest>(text);
        let request = read(r#"{"name":"a","scopes":["query","ingest"]}"#).unwrap();
        let set = scope_set(&request.scopes);
        assert!(set.ingest && set.query && !set.admin);
        assert!(read(r#"{"name":"a","scopes":["root"]}"#).is_err());
        assert!(read(r#"{"name":"a","scopes":[],"tenant":"other"}"#).is_err());
    }

    #[test]
    fn listed_keys_are_in_milliseconds() {
        let key = ListedKey::from(KeyInfo {
            id: "i".into(),
            tenant: TenantId::default_tenant(),
            name: "n".into(),
            scopes: ScopeSet { query: true, ..ScopeSet::default() },
            created_at: 1_999,
            expires_at: Some(5_000),
            revoked_at: None,
        });
        assert_eq!((key.created_at, key.expires_at, key.revoked_at), (1, Some(5), None));
        assert_eq!(key.scopes, [KeyScope::Query]);
    }
}
