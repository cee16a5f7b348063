//! `GET /api/v1/incidents` and `GET /api/v1/entities/risk`: alerts put together
//! ([`palisade_alert::incident`], [`palisade_alert::risk`]), out of the newest [`MAX_ALERTS`] of a span of event time.

use super::{COLUMNS, ask, moment, wrong};
use crate::access::{Caller, Scope};
use crate::openapi::ProblemDetails;
use crate::query::failed;
use crate::sql;
use crate::state::ApiState;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use palisade_alert::Alert;
use palisade_alert::incident::{self, Incident};
use palisade_alert::risk::{self, EntityRisk};
use palisade_event::TenantId;
use palisade_event::time::rfc3339;
use palisade_query::QueryError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::{IntoParams, ToSchema};

/// The most alert revisions that are put together.
const MAX_ALERTS: usize = 10_000;
/// The most alerts of an incident that are listed.
const MAX_LISTED: usize = 100;
/// The most incidents or entities of an answer.
const MAX_LIMIT: usize = 500;
/// The longest span, in days.
const MAX_DAYS: i64 = 31;
const DAY: i64 = 86_400_000_000;

/// Which incidents.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct IncidentParams {
    /// Event time from this on; a day ago when it is not said. Moved back to a cut, so that incidents are whole.
    from: Option<String>,
    /// Event time before this; now when it is not said.
    to: Option<String>,
    /// The longest time between two alerts of an entity that belong together, in seconds, 60 to 86400; 3600 when it is
    /// not said. Another gap gives other incidents.
    gap_seconds: Option<i64>,
    /// With at least this many alerts; 1 when it is not said.
    min_alerts: Option<usize>,
    /// At most this many, 1 to 500; 100 when it is not said.
    limit: Option<usize>,
}

/// User, host or address.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct EntityView {
    /// `user`, `host` or `address`.
    pub kind: &'static str,
    /// In lower case.
    pub name: String,
}

impl From<palisade_alert::alert::Entity> for EntityView {
    fn from(entity: palisade_alert::alert::Entity) -> Self {
        Self { kind: entity.kind.as_str(), name: entity.name }
    }
}

/// Alerts that belong together. Times are RFC 3339.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct IncidentView {
    /// 32 hexadecimal digits, from its first alert.
    pub incident_id: String,
    /// Event time of the first alert.
    pub first_time: String,
    /// Event time of the last.
    pub last_time: String,
    /// The worst severity.
    pub severity: &'static str,
    /// How many alerts.
    pub alerts_total: usize,
    /// The ids of the first 100.
    pub alerts: Vec<String>,
    /// The rules that raised them.
    pub rules: Vec<String>,
    /// Their tags.
    pub tags: Vec<String>,
    /// Whom they are about.
    pub entities: Vec<EntityView>,
}

impl From<Incident> for IncidentView {
    fn from(incident: Incident) -> Self {
        Self {
            incident_id: incident.id,
            first_time: rfc3339(incident.first_time),
            last_time: rfc3339(incident.last_time),
            severity: incident.severity.as_str(),
            alerts_total: incident.alerts.len(),
            alerts: incident.alerts.into_iter().take(MAX_LISTED).collect(),
            rules: incident.rules.into_iter().take(MAX_LISTED).collect(),
            tags: incident.tags.into_iter().take(MAX_LISTED).collect(),
            entities: incident.entities.into_iter().take(MAX_LISTED).map(Into::into).collect(),
        }
    }
}

/// Incidents, the one with the newest alert first.
#[derive(Debug, Serialize, ToSchema)]
pub struct IncidentList {
    /// The incidents.
    pub incidents: Vec<IncidentView>,
    /// There were more alerts than are looked at: ask for a shorter span.
    pub truncated: bool,
}

/// Whose risk.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RiskParams {
    /// At this moment; now when it is not said.
    at: Option<String>,
    /// After how many hours an alert counts half, 1 to 168; 24 when it is not said.
    half_life_hours: Option<i64>,
    /// At most this many, 1 to 500; 100 when it is not said.
    limit: Option<usize>,
}

/// The risk of an entity.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct RiskView {
    /// `user`, `host` or `address`.
    pub kind: &'static str,
    /// In lower case.
    pub name: String,
    /// 0 to 100.
    pub score: f64,
    /// The decayed sum of weights that the score is made of.
    pub raw: f64,
    /// How many alerts count.
    pub alerts: u64,
    /// The worst of them.
    pub severity: &'static str,
    /// Event time of the newest, RFC 3339.
    pub last_time: String,
}

impl From<EntityRisk> for RiskView {
    fn from(risk: EntityRisk) -> Self {
        Self {
            kind: risk.entity.kind.as_str(),
            name: risk.entity.name,
            score: risk.score,
            raw: risk.raw,
            alerts: risk.alerts,
            severity: risk.worst.as_str(),
            last_time: rfc3339(risk.last_time),
        }
    }
}

/// Entities, the one with the highest risk first.
#[derive(Debug, Serialize, ToSchema)]
pub struct RiskList {
    /// The moment, RFC 3339.
    pub at: String,
    /// The entities.
    pub entities: Vec<RiskView>,
    /// There were more alerts than are looked at: the oldest do not count.
    pub truncated: bool,
}

/// The latest revision of each alert of a span, and whether there were too many.
async fn alerts(
    state: &ApiState,
    tenant: &TenantId,
    from: i64,
    to: i64,
) -> Result<(Vec<Alert>, bool), QueryError> {
    let text = format!(
        "SELECT {} FROM alerts WHERE \"time\" >= {} AND \"time\" < {} \
         ORDER BY \"time\" DESC, \"alert_id\" DESC, \"revision\" DESC LIMIT {}",
        *COLUMNS,
        sql::moment(from),
        sql::moment(to),
        MAX_ALERTS + 1
    );
    let mut found = ask(state, tenant, &text, MAX_ALERTS + 1).await?;
    let truncated = found.len() > MAX_ALERTS;
    found.truncate(MAX_ALERTS);
    let mut latest: BTreeMap<String, Alert> = BTreeMap::new();
    for alert in found {
        match latest.get(&alert.id) {
            Some(known) if known.revision >= alert.revision => {}
            _ => {
                latest.insert(alert.id.clone(), alert);
            }
        }
    }
    Ok((latest.into_values().collect(), truncated))
}

#[expect(clippy::result_large_err, reason = "an answer is what the handler returns anyway")]
fn bounded<T: PartialOrd + Copy + std::fmt::Display>(
    caller: &Caller,
    name: &str,
    value: Option<T>,
    (least, usual, most): (T, T, T),
) -> Result<T, Response> {
    let value = value.unwrap_or(usual);
    if value < least || value > most {
        return Err(wrong(caller, format!("{name} must be between {least} and {most}")));
    }
    Ok(value)
}

/// `GET /api/v1/incidents`: alerts that share a user, host or source address and follow each other.
#[utoipa::path(get, path = "/api/v1/incidents", tag = "alerts", params(IncidentParams), responses(
    (status = 200, description = "The incidents", body = IncidentList),
    (status = 400, description = "A parameter is wrong", body = ProblemDetails, content_type = "application/problem+json"),
))]
pub async fn incidents(
    State(state): State<ApiState>,
    caller: Caller,
    params: Result<Query<IncidentParams>, QueryRejection>,
) -> Response {
    match group(&state, &caller, params).await {
        Ok(list) => Json(list).into_response(),
        Err(response) => response,
    }
}

async fn group(
    state: &ApiState,
    caller: &Caller,
    params: Result<Query<IncidentParams>, QueryRejection>,
) -> Result<IncidentList, Response> {
    let tenant = caller.may(Scope::Query)?;
    let Query(params) = params.map_err(|error| wrong(caller, error.body_text()))?;
    let gap = bounded(caller, "gap_seconds", params.gap_seconds, (60, 3600, 86_400))? * 1_000_000;
    let limit = bounded(caller, "limit", params.limit, (1, 100, MAX_LIMIT))?;
    let least = bounded(caller, "min_alerts", params.min_alerts, (1, 1, MAX_ALERTS))?;
    let now = state.clock.now();
    let time = |name: &str, text: Option<&str>, usual: i64| match text {
        Some(text) => moment(caller, state, name, text),
        None => Ok(usual),
    };
    let to = time("to", params.to.as_deref(), now.saturating_add(1)).map_err(|answer| *answer)?;
    let from =
        time("from", params.from.as_deref(), to.saturating_sub(DAY)).map_err(|answer| *answer)?;
    if from >= to || to.saturating_sub(from) > MAX_DAYS * DAY {
        return Err(wrong(caller, format!("from must be before to, by at most {MAX_DAYS} days")));
    }
    // From a cut on incidents do not depend on what was before.
    let start = incident::cut_before(from, gap);
    let found = alerts(state, tenant, start, to).await;
    let (alerts, truncated) = found.map_err(|error| failed(&error, caller))?;
    let incidents = incident::group(&alerts, gap)
        .into_iter()
        .filter(|incident| incident.last_time >= from && incident.alerts.len() >= least)
        .take(limit)
        .map(IncidentView::from)
        .collect();
    Ok(IncidentList { incidents, truncated })
}

/// `GET /api/v1/entities/risk`: users, hosts and addresses by risk.
#[utoipa::path(get, path = "/api/v1/entities/risk", tag = "alerts", params(RiskParams), responses(
    (status = 200, description = "The entities", body = RiskList),
    (status = 400, description = "A parameter is wrong", body = ProblemDetails, content_type = "application/problem+json"),
))]
pub async fn entity_risk(
    State(state): State<ApiState>,
    caller: Caller,
    params: Result<Query<RiskParams>, QueryRejection>,
) -> Response {
    match risks(&state, &caller, params).await {
        Ok(list) => Json(list).into_response(),
        Err(response) => response,
    }
}

async fn risks(
    state: &ApiState,
    caller: &Caller,
    params: Result<Query<RiskParams>, QueryRejection>,
) -> Result<RiskList, Response> {
    let tenant = caller.may(Scope::Query)?;
    let Query(params) = params.map_err(|error| wrong(caller, error.body_text()))?;
    let hours = bounded(caller, "half_life_hours", params.half_life_hours, (1, 24, 168))?;
    let limit = bounded(caller, "limit", params.limit, (1, 100, MAX_LIMIT))?;
    let at = match params.at.as_deref() {
        Some(text) => moment(caller, state, "at", text).map_err(|answer| *answer)?,
        None => state.clock.now(),
    };
    let half_life = hours * 3_600_000_000;
    // After ten half-lives an alert counts a thousandth.
    let from = at.saturating_sub(half_life * 10);
    let found = alerts(state, tenant, from, at.saturating_add(1)).await;
    let (alerts, truncated) = found.map_err(|error| failed(&error, caller))?;
    let entities = risk::of_entities(&alerts, at, half_life);
    let entities = entities.into_iter().take(limit).map(RiskView::from).collect();
    Ok(RiskList { at: rfc3339(at), entities, truncated })
}
