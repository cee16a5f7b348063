//! `/api/v1/rules` and what belongs to it: the rules that a tenant's records are tried with, what it changes about them,
//! its own rules, and tools to look at rules before they are deployed.
//!
//! | paths | module |
//! |---|---|
//! | `GET /api/v1/rules`, `GET /api/v1/rules/{id}`, `/api/v1/rules/refused` | [`list`] |
//! | `POST /api/v1/rules`, `PUT`, `DELETE`, `PATCH /api/v1/rules/{id}` | [`change`] |
//! | `/api/v1/rules/exceptions` | [`exceptions`] |
//! | `/api/v1/rules/lint`, `/api/v1/rules/explain`, `/api/v1/rules/report` | [`check`] |
//!
//! Reading needs the scope `query`, changing and reports `admin`; changes are audited. A tenant sees the installation's
//! rules and its own. The installation's are deployed by administrators of the tenant `default`.

pub mod change;
pub mod check;
pub mod exceptions;
pub mod list;

use crate::access::Caller;
use axum::http::StatusCode;
use axum::response::Response;
use palisade_event::{ErrorClass, TenantId};
use palisade_pipeline::rules::deploy::{Current, DeployError};
use palisade_pipeline::rules::{INSTALLATION, RuleFile};
use palisade_sigma::Refusal;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// The largest body with rules, in bytes.
pub(crate) const MOST_BODY: usize = 32 << 20;

/// Whose rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// The tenant's own, tried on its records alone.
    #[default]
    Tenant,
    /// The installation's, tried on all records; for administrators of the tenant `default`.
    Installation,
}

/// Whose rules are meant.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct OwnerParams {
    /// `tenant` (the default) or `installation`.
    #[param(inline)]
    #[serde(default)]
    owner: Owner,
}

/// A file of rules.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SentFile {
    /// Its name, for messages.
    pub name: String,
    /// Sigma in YAML: rules, filters, correlations.
    pub text: String,
}

impl From<SentFile> for RuleFile {
    fn from(file: SentFile) -> Self {
        Self { name: file.name, text: file.text }
    }
}

/// A document that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct RefusalView {
    /// `refused`: it breaks the specification or a bound; `unsupported`: it can't be evaluated here.
    pub kind: &'static str,
    /// The file.
    pub file: String,
    /// The line, from 1, where it is known.
    pub line: Option<u64>,
    /// The rule's id, else its title, where one could be read.
    pub rule: Option<String>,
    /// What is wrong.
    pub reason: String,
    /// What to do about it.
    pub hint: String,
}

impl From<&Refusal> for RefusalView {
    fn from(refusal: &Refusal) -> Self {
        Self {
            kind: refusal.kind.name(),
            file: refusal.file.to_string(),
            line: refusal.line,
            rule: refusal.rule.clone(),
            reason: refusal.reason.clone(),
            hint: refusal.hint.clone(),
        }
    }
}

/// What is in force now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct InForceView {
    /// The hash of the set of rules that is in force; empty where there is no rule.
    pub set: String,
    /// The generation of its activation.
    pub generation: u64,
}

impl From<&Current> for InForceView {
    fn from(current: &Current) -> Self {
        Self { set: current.set.clone(), generation: current.generation }
    }
}

/// The owner that is meant, if the caller may change its rules.
#[expect(clippy::result_large_err, reason = "an answer is what the handler returns anyway")]
fn owner<'t>(caller: &Caller, tenant: &'t TenantId, owner: Owner) -> Result<&'t str, Response> {
    match owner {
        Owner::Tenant => Ok(tenant.as_str()),
        Owner::Installation if *tenant == TenantId::default_tenant() => Ok(INSTALLATION),
        Owner::Installation => Err(caller.problem(
            StatusCode::FORBIDDEN,
            "forbidden",
            "the key may not do this",
            "rules of the installation are deployed with a key of the tenant default; without owner=installation they are the tenant's own",
        )),
    }
}

/// Whether a tenant sees what belongs to an owner.
fn sees(tenant: &TenantId, owner: Option<&str>) -> bool {
    owner.is_none_or(|owner| owner == tenant.as_str())
}

/// The answer to a request that can't be followed.
fn failed(caller: &Caller, error: &DeployError) -> Response {
    let (status, slug, title) = match error {
        DeployError::Unknown { .. } => (StatusCode::NOT_FOUND, "unknown", "there is no such thing"),
        DeployError::Invalid { .. } => {
            (StatusCode::BAD_REQUEST, "invalid", "the request cannot be followed")
        }
        DeployError::Refused(_) => (StatusCode::BAD_REQUEST, "rule", "the rule is wrong"),
        DeployError::Pipeline(_) if error.class() == ErrorClass::Transient => {
            (StatusCode::SERVICE_UNAVAILABLE, "busy", "it is not in force yet")
        }
        DeployError::Pipeline(_) => {
            (StatusCode::INTERNAL_SERVER_ERROR, "rules", "it is not in force")
        }
    };
    caller.problem(status, slug, title, error.to_string())
}

/// The answer to a body that can't be read.
fn unread(caller: &Caller, error: &axum::extract::rejection::JsonRejection) -> Response {
    caller.problem(error.status(), "rules", "the request cannot be read", error.body_text())
}

/// The answer to a parameter that is wrong.
fn wrong(caller: &Caller, detail: impl Into<String>) -> Response {
    caller.problem(StatusCode::BAD_REQUEST, "parameter", "a parameter is wrong", detail)
}
