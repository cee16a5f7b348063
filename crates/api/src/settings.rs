//! `/api/v1/config`: which configuration is in force and how the last reload went; `/api/v1/domains`: the
//! tenant's historical loads that have not ended.

use crate::access::{Admin, Caller, Scope};
use crate::openapi::ProblemDetails;
use crate::state::ApiState;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use palisade_pipeline::control::{
    DetectorSettings, InForce, OperatorVersions, RulesInForce, Stated,
};
use serde::Serialize;
use utoipa::ToSchema;

/// The configuration of the process. Times are milliseconds since the epoch.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, ToSchema)]
pub struct ConfigStatus {
    /// Counts the configurations that came into force since the start, from 1.
    pub generation: u64,
    /// When this one did.
    pub loaded_at: i64,
    /// The file, when there is one.
    pub file: Option<String>,
    /// Keys whose values in the file are others than those in force and need a restart.
    pub needs_restart: Vec<String>,
    /// Why the file as it is now was not taken; null when it was.
    pub last_error: Option<ReloadError>,
}

/// A reload that changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ReloadError {
    /// When.
    pub time: i64,
    /// What is wrong.
    pub message: String,
}

/// What is in force.
#[derive(Debug, Serialize, ToSchema)]
pub struct ConfigAnswer {
    /// The configuration of the process.
    #[serde(flatten)]
    pub config: ConfigStatus,
    /// The detectors' settings behind the last visible entry of the log, with the generation of their
    /// activation (C1).
    #[schema(value_type = Object)]
    pub detectors: Stated<DetectorSettings>,
    /// The operators' versions there (C3).
    #[schema(value_type = Object)]
    pub operators: Stated<OperatorVersions>,
    /// The set of rules there, by its hash.
    #[schema(value_type = Object)]
    pub rules: Stated<RulesInForce>,
    /// The backfill that was declared last, done or not; null without one.
    pub backfill: Option<BackfillStatus>,
}

/// How far a backfill is (B1). Times are microseconds since the epoch.
#[derive(Debug, Serialize, ToSchema)]
pub struct BackfillStatus {
    /// The generation of its activation.
    pub generation: u64,
    /// The rules and correlations that history is read for.
    pub rules: Vec<String>,
    /// Records before this event time are not read; null when all are.
    pub from: Option<i64>,
    /// All records with an event time before it were read; null at first.
    pub until: Option<i64>,
    /// Rows that were read.
    pub rows: u64,
    /// Hits and alerts that were found in them.
    pub found: u64,
    /// All was read.
    pub done: bool,
}

impl BackfillStatus {
    /// That of what is in force.
    #[must_use]
    pub fn of(in_force: &InForce) -> Option<Self> {
        let backfill = in_force.backfill.as_ref()?;
        Some(Self {
            generation: backfill.generation,
            rules: backfill.wanted.rules.iter().cloned().collect(),
            from: backfill.wanted.from,
            until: backfill.until,
            rows: backfill.rows,
            found: backfill.found,
            done: backfill.done,
        })
    }
}

/// `GET /api/v1/config`: what is in force. Scope `admin`.
#[utoipa::path(get, path = "/api/v1/config", tag = "administration", responses(
    (status = 200, description = "What is in force", body = ConfigAnswer),
    (status = 403, description = "The key lacks the scope admin", body = ProblemDetails, content_type = "application/problem+json"),
))]
pub async fn get_config(State(state): State<ApiState>, _: Admin) -> Response {
    let in_force = state.engine.in_force();
    let config = ConfigStatus::clone(&state.config.load());
    let (detectors, operators) = (in_force.detectors.clone(), in_force.operators.clone());
    let (rules, backfill) = (in_force.rules.clone(), BackfillStatus::of(&in_force));
    Json(ConfigAnswer { config, detectors, operators, rules, backfill }).into_response()
}

/// A historical load that has started and not ended.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ListedDomain {
    /// Its name, the column `domain`.
    pub domain: String,
    /// When it started, milliseconds since the epoch.
    pub since: i64,
}

/// The open domains of a tenant.
#[derive(Debug, Serialize, ToSchema)]
pub struct DomainList {
    /// By time of their start.
    pub domains: Vec<ListedDomain>,
}

/// `GET /api/v1/domains`: the tenant's historical loads that have not ended (T2).
#[utoipa::path(get, path = "/api/v1/domains", tag = "ingestion", responses(
    (status = 200, description = "The open domains", body = DomainList),
    (status = 403, description = "The key lacks the scope query", body = ProblemDetails, content_type = "application/problem+json"),
))]
pub async fn get_domains(State(state): State<ApiState>, caller: Caller) -> Response {
    let tenant = match caller.may(Scope::Query) {
        Ok(tenant) => tenant.as_str(),
        Err(response) => return response,
    };
    let in_force = state.engine.in_force();
    let domains = in_force.domains.iter().filter(|open| open.tenant == tenant);
    let domains = domains
        .map(|open| ListedDomain {
            domain: open.domain.clone(),
            since: open.since.div_euclid(1000),
        })
        .collect();
    Json(DomainList { domains }).into_response()
}
