//! Who a request comes from: credentials out of the `Authorization` header, and the trait behind
//! which the key store sits.
//!
//! Three forms are understood: `Bearer <token>`, `ApiKey <base64 of id:secret>` as Elasticsearch's
//! clients send it, and `Basic <base64 of user:password>`. While no key was made, the store may name
//! an open tenant; then credentials are neither needed nor looked at.

use base64::Engine;
use http::{HeaderMap, header};
use palisade_event::{ErrorClass, TenantId};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// The longest `Authorization` header that is looked at, in bytes.
pub const MAX_AUTHORIZATION: usize = 4096;

/// What a key may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scopes {
    /// Send records.
    pub ingest: bool,
    /// Ask and watch.
    pub query: bool,
    /// Make and revoke keys, handle dead letters, change what is in force.
    pub admin: bool,
}

impl Scopes {
    /// All of them: what the open tenant has.
    pub const ALL: Self = Self { ingest: true, query: true, admin: true };
}

/// Who a request comes from, once that is proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Whose data the request may touch.
    pub tenant: TenantId,
    /// What it may do.
    pub scopes: Scopes,
    /// The key's public id, for the audit; `None` for the open tenant.
    pub key_id: Option<Arc<str>>,
}

/// Why a request is not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Nothing was sent.
    #[error("no credentials: send 'Authorization: Bearer <key>', ApiKey or Basic")]
    Missing,
    /// The header cannot be understood.
    #[error("the Authorization header is malformed: {0}")]
    Malformed(&'static str),
    /// No such key, a wrong secret, or a revoked key.
    #[error("the key is unknown or revoked: make one with 'palisade key create'")]
    Invalid,
    /// The key lacks a scope.
    #[error("the key lacks the scope '{0}': make a key that has it")]
    Forbidden(&'static str),
    /// The key store cannot answer.
    #[error("keys cannot be checked at the moment: {0}")]
    Unavailable(String),
}

impl AuthError {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Unavailable(_) => ErrorClass::Transient,
            _ => ErrorClass::Permanent,
        }
    }

    /// The HTTP status that says so.
    #[must_use]
    pub fn status(&self) -> http::StatusCode {
        match self {
            Self::Missing | Self::Malformed(_) | Self::Invalid => http::StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => http::StatusCode::FORBIDDEN,
            Self::Unavailable(_) => http::StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// The answer of a key store.
pub type Authenticated<'a> =
    Pin<Box<dyn Future<Output = Result<Principal, AuthError>> + Send + 'a>>;

/// A key store.
pub trait Authenticate: Send + Sync {
    /// Checks a bearer token.
    fn bearer<'a>(&'a self, token: &'a str) -> Authenticated<'a>;
    /// Checks an id and its secret.
    fn api_key<'a>(&'a self, id: &'a str, secret: &'a str) -> Authenticated<'a>;
    /// Checks a user name and password; a key's id and secret serve as these.
    fn basic<'a>(&'a self, user: &'a str, password: &'a str) -> Authenticated<'a>;
    /// The tenant that needs no credentials, if there is one now.
    fn open_tenant(&self) -> Option<TenantId>;
}

/// Credentials as sent. The secrets in it are not printed.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A bearer token.
    Bearer(String),
    /// An id and its secret.
    ApiKey(String, String),
    /// A user name and password.
    Basic(String, String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bearer(_) => f.write_str("Bearer(…)"),
            Self::ApiKey(id, _) => write!(f, "ApiKey({id:?}, …)"),
            Self::Basic(user, _) => write!(f, "Basic({user:?}, …)"),
        }
    }
}

/// Reads the `Authorization` header; `None` when there is none.
///
/// # Errors
/// [`AuthError::Malformed`] for a header of another form.
pub fn credentials(headers: &HeaderMap) -> Result<Option<Credentials>, AuthError> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return Ok(None);
    };
    if value.len() > MAX_AUTHORIZATION {
        return Err(AuthError::Malformed("it is over 4096 bytes"));
    }
    let text = value.to_str().map_err(|_| AuthError::Malformed("it is not ASCII"))?;
    let (scheme, rest) = text
        .trim()
        .split_once(' ')
        .ok_or(AuthError::Malformed("no credentials stand behind it"))?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        Ok(Some(Credentials::Bearer(rest.to_owned())))
    } else if scheme.eq_ignore_ascii_case("apikey") {
        let (id, secret) = pair(rest)?;
        Ok(Some(Credentials::ApiKey(id, secret)))
    } else if scheme.eq_ignore_ascii_case("basic") {
        let (user, password) = pair(rest)?;
        Ok(Some(Credentials::Basic(user, password)))
    } else {
        Err(AuthError::Malformed("the scheme is none of Bearer, ApiKey, Basic"))
    }
}

fn pair(encoded: &str) -> Result<(String, String), AuthError> {
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(encoded)
        .map_err(|_| AuthError::Malformed("it is no base64"))?;
    let text = String::from_utf8(bytes).map_err(|_| AuthError::Malformed("it is not UTF-8"))?;
    let (left, right) =
        text.split_once(':').ok_or(AuthError::Malformed("no ':' parts id and secret"))?;
    Ok((left.to_owned(), right.to_owned()))
}

/// Finds out who a request comes from.
///
/// # Errors
/// Every [`AuthError`] but `Forbidden`.
pub async fn authenticate(
    store: &dyn Authenticate,
    headers: &HeaderMap,
) -> Result<Principal, AuthError> {
    if let Some(tenant) = store.open_tenant() {
        return Ok(Principal { tenant, scopes: Scopes::ALL, key_id: None });
    }
    match credentials(headers)?.ok_or(AuthError::Missing)? {
        Credentials::Bearer(token) => store.bearer(&token).await,
        Credentials::ApiKey(id, secret) => store.api_key(&id, &secret).await,
        Credentials::Basic(user, password) => store.basic(&user, &password).await,
    }
}

/// Finds out who a request comes from and that it may send records.
///
/// # Errors
/// Every [`AuthError`].
pub async fn may_ingest(
    store: &dyn Authenticate,
    headers: &HeaderMap,
) -> Result<Principal, AuthError> {
    let principal = authenticate(store, headers).await?;
    if principal.scopes.ingest { Ok(principal) } else { Err(AuthError::Forbidden("ingest")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Result<Option<Credentials>, AuthError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        credentials(&headers)
    }

    #[test]
    fn the_three_forms_are_read() {
        assert_eq!(read("Bearer abc"), Ok(Some(Credentials::Bearer("abc".into()))));
        assert_eq!(read("bearer  abc "), Ok(Some(Credentials::Bearer("abc".into()))));
        let pair = || ("id".to_owned(), "se:cret".to_owned());
        let (id, secret) = pair();
        assert_eq!(read("ApiKey aWQ6c2U6Y3JldA=="), Ok(Some(Credentials::ApiKey(id, secret))));
        let (id, secret) = pair();
        assert_eq!(read("Basic aWQ6c2U6Y3JldA=="), Ok(Some(Credentials::Basic(id, secret))));
        assert_eq!(credentials(&HeaderMap::new()), Ok(None));
    }

    #[test]
    fn other_forms_are_refused_and_secrets_not_printed() {
        for bad in
            ["Bearer", "Digest x", "Basic ???", "Basic aWQ=", "ApiKey /w==", &"x ".repeat(4000)]
        {
            assert!(matches!(read(bad), Err(AuthError::Malformed(_))), "{bad}");
        }
        assert!(
            !format!("{:?}", Credentials::Basic("u".into(), "hidden".into())).contains("hidden")
        );
    }
}
