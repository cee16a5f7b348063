//! `GET /api/v1/alerts`: the latest revision of each alert, newest first.
//!
//! A page is found in steps. The places (time, id, revision) of the next rows that pass the filters are read, few
//! narrow columns; rows that have a later revision, and those whose status is not wanted, are left out; then all columns are read of
//! what is left. Rows of revisions above 0 are few, and statistics lead to them, so asking for later revisions costs little.
//! A cursor is the place of the last row of a page: alerts that come meanwhile move nothing.

use super::view::AlertView;
use super::{COLUMNS, ask, id_list, is_id, moment, wrong};
use crate::access::{Caller, Scope};
use crate::keys::refused;
use crate::openapi::ProblemDetails;
use crate::query::failed;
use crate::sql;
use crate::state::ApiState;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use palisade_alert::{Alert, Severity};
use palisade_catalog::{AlertState, AlertStatus};
use palisade_event::TenantId;
use palisade_query::QueryError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::{IntoParams, ToSchema};

/// The most alerts of a page.
const MAX_LIMIT: usize = 500;
/// How many rows are looked at for one page at most; beyond it the page is shorter and goes on.
const MAX_LOOKED: usize = 20_000;
/// How many rows are looked at in one step: their ids must fit into the text of a query.
const STEP: usize = 1_000;
/// Up to so many alerts that people touched are asked for by id.
const MAX_TOUCHED: u32 = 1_000;

/// Which alerts.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AlertParams {
    /// With this status: `new`, `acknowledged`, `closed`; several separated by commas.
    status: Option<String>,
    /// Of these severities, separated by commas.
    severity: Option<String>,
    /// Of this rule.
    rule: Option<String>,
    /// Of this detector.
    detector: Option<String>,
    /// About this user, host or source address, as it is written.
    entity: Option<String>,
    /// Event time at or after this.
    from: Option<String>,
    /// Event time before this.
    to: Option<String>,
    /// Also those that were taken back.
    retracted: Option<bool>,
    /// At most this many, 1 to 500; 100 when it is not said.
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// A page of alerts, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct AlertPage {
    /// The alerts.
    pub alerts: Vec<AlertView>,
    /// The cursor of the next page; null after the last. A page may be shorter than asked for and still have a next.
    pub next: Option<String>,
}

/// A place in the order of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    time: i64,
    id: String,
    revision: u32,
}

impl Place {
    fn of(alert: &Alert) -> Self {
        Self { time: alert.time, id: alert.id.clone(), revision: alert.revision }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let place = Self {
            time: parts.next()?.parse().ok()?,
            id: parts.next().filter(|id| is_id(id))?.to_owned(),
            revision: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(place)
    }

    fn text(&self) -> String {
        format!("{}.{}.{}", self.time, self.id, self.revision)
    }

    /// What lies behind it in the list, as SQL.
    fn behind(&self) -> String {
        let (time, id) = (sql::moment(self.time), sql::literal(&self.id));
        format!(
            "\"time\" <= {time} AND (\"time\" < {time} OR \"alert_id\" < {id} \
             OR (\"alert_id\" = {id} AND \"revision\" < {}))",
            self.revision
        )
    }
}

/// The checked parameters.
struct Wanted {
    conditions: Vec<String>,
    statuses: Option<Vec<AlertStatus>>,
    retracted: bool,
    limit: usize,
    place: Option<Place>,
}

#[expect(clippy::result_large_err, reason = "an answer is what the handler returns anyway")]
fn check(state: &ApiState, caller: &Caller, params: &AlertParams) -> Result<Wanted, Response> {
    let limit = params.limit.unwrap_or(100);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(wrong(caller, format!("limit must be between 1 and {MAX_LIMIT}")));
    }
    let mut conditions = Vec::new();
    if let Some(list) = &params.severity {
        let mut names = Vec::new();
        for name in list.split(',') {
            let severity = Severity::by_name(name.trim()).ok_or_else(|| {
                let names = Severity::ALL.map(Severity::as_str).join(", ");
                wrong(caller, format!("severity must be some of {names}"))
            })?;
            names.push(sql::literal(severity.as_str()));
        }
        conditions.push(format!("\"severity\" IN ({})", names.join(", ")));
    }
    for (column, value) in [("rule_id", &params.rule), ("detector", &params.detector)] {
        if let Some(value) = value {
            conditions.push(format!("\"{column}\" = {}", sql::literal(value)));
        }
    }
    if let Some(entity) = &params.entity {
        let entity = sql::literal(entity);
        conditions
            .push(format!("(\"user\" = {entity} OR \"host\" = {entity} OR \"src_ip\" = {entity})"));
    }
    for (name, operator, text) in [("from", ">=", &params.from), ("to", "<", &params.to)] {
        if let Some(text) = text {
            let time = moment(caller, state, name, text).map_err(|answer| *answer)?;
            conditions.push(format!("\"time\" {operator} {}", sql::moment(time)));
        }
    }
    let statuses = params.status.as_deref().map(|list| {
        list.split(',')
            .map(|name| match name.trim() {
                "new" => Ok(AlertStatus::New),
                "acknowledged" => Ok(AlertStatus::Acknowledged),
                "closed" => Ok(AlertStatus::Closed),
                _ => Err(wrong(caller, "status must be some of new, acknowledged, closed")),
            })
            .collect::<Result<Vec<_>, _>>()
    });
    let place = params.cursor.as_deref().map(|cursor| {
        Place::parse(cursor)
            .ok_or_else(|| wrong(caller, "cursor must be 'next' of an earlier page"))
    });
    Ok(Wanted {
        conditions,
        statuses: statuses.transpose()?,
        retracted: params.retracted.unwrap_or(false),
        limit,
        place: place.transpose()?,
    })
}

/// `GET /api/v1/alerts`: a page of alerts, newest first, each with its latest revision.
#[utoipa::path(get, path = "/api/v1/alerts", tag = "alerts", params(AlertParams), responses(
    (status = 200, description = "A page", body = AlertPage),
    (status = 400, description = "A parameter is wrong", body = ProblemDetails, content_type = "application/problem+json"),
))]
pub async fn list(
    State(state): State<ApiState>,
    caller: Caller,
    params: Result<Query<AlertParams>, QueryRejection>,
) -> Response {
    match page(&state, &caller, params).await {
        Ok(page) => Json(page).into_response(),
        Err(response) => response,
    }
}

async fn page(
    state: &ApiState,
    caller: &Caller,
    params: Result<Query<AlertParams>, QueryRejection>,
) -> Result<AlertPage, Response> {
    let tenant = caller.may(Scope::Query)?;
    let Query(params) = params.map_err(|error| wrong(caller, error.body_text()))?;
    let mut wanted = check(state, caller, &params)?;
    // Alerts that people touched may be few among very many, and then are asked for by id.
    if let Some(statuses) = &wanted.statuses
        && !statuses.contains(&AlertStatus::New)
    {
        let ids = state.catalog.alerts_with_status(tenant, statuses, MAX_TOUCHED + 1).await;
        let ids = ids.map_err(|error| refused(caller, &error))?;
        if ids.is_empty() {
            return Ok(AlertPage { alerts: Vec::new(), next: None });
        }
        if ids.len() <= MAX_TOUCHED as usize {
            wanted.conditions.push(format!("\"alert_id\" IN ({})", id_list(&ids)));
        }
    }
    let (mut chosen, mut decided) = (Vec::new(), BTreeMap::new());
    let mut place = wanted.place.clone();
    let mut looked = 0;
    let next = loop {
        let step = (wanted.limit * 2).clamp(100, STEP);
        let rows = places(state, tenant, &wanted, place.as_ref(), step).await;
        let rows = rows.map_err(|error| failed(&error, caller))?;
        looked += rows.len();
        let (whole, last) = (rows.len() < step, rows.last().map(Place::of));
        let (mut kept, states) = current(state, caller, tenant, &wanted, rows).await?;
        let missing = wanted.limit - chosen.len();
        let more = kept.len() > missing;
        kept.truncate(missing);
        chosen.extend(kept);
        decided.extend(states);
        if more || chosen.len() == wanted.limit {
            let end = chosen.last().map(Place::of);
            // Whether anything follows is known only after looking; a next page may be empty.
            break if whole && !more { None } else { end };
        }
        if whole {
            break None;
        }
        if looked >= MAX_LOOKED {
            break last;
        }
        place = last;
    };
    let alerts = whole_rows(state, tenant, &chosen).await;
    let alerts = alerts.map_err(|error| failed(&error, caller))?;
    let view = |alert: Alert| {
        let state = decided.get(&alert.id);
        AlertView::new(alert, state)
    };
    Ok(AlertPage {
        alerts: alerts.into_iter().map(view).collect(),
        next: next.map(|place| place.text()),
    })
}

/// The next rows that pass the filters, narrow columns only.
async fn places(
    state: &ApiState,
    tenant: &TenantId,
    wanted: &Wanted,
    place: Option<&Place>,
    limit: usize,
) -> Result<Vec<Alert>, QueryError> {
    let conditions: Vec<String> =
        wanted.conditions.iter().cloned().chain(place.map(Place::behind)).collect();
    let filter = match conditions.is_empty() {
        true => String::new(),
        false => format!(" WHERE {}", conditions.join(" AND ")),
    };
    let text = format!(
        "SELECT \"time\", \"alert_id\", \"revision\", \"state\" FROM alerts{filter} \
         ORDER BY \"time\" DESC, \"alert_id\" DESC, \"revision\" DESC LIMIT {limit}"
    );
    ask(state, tenant, &text, limit).await
}

/// Of these rows those that are the latest of their alert, not taken back, and of a wanted status; and what people decided.
async fn current(
    state: &ApiState,
    caller: &Caller,
    tenant: &TenantId,
    wanted: &Wanted,
    rows: Vec<Alert>,
) -> Result<(Vec<Alert>, BTreeMap<String, AlertState>), Response> {
    if rows.is_empty() {
        return Ok((rows, BTreeMap::new()));
    }
    let latest = latest(state, tenant, &rows).await.map_err(|error| failed(&error, caller))?;
    let ids: Vec<String> = rows.iter().map(|alert| alert.id.clone()).collect();
    let states = state.catalog.alert_states(tenant, &ids).await;
    let states = states.map_err(|error| refused(caller, &error))?;
    let is_wanted = |alert: &Alert| {
        let newest = latest.get(&alert.id).is_none_or(|newest| alert.revision >= *newest);
        let stands = wanted.retracted || alert.state == palisade_alert::State::Open;
        let status = states.get(&alert.id).map(|state| state.status).unwrap_or_default();
        newest && stands && wanted.statuses.as_ref().is_none_or(|list| list.contains(&status))
    };
    Ok((rows.into_iter().filter(is_wanted).collect(), states))
}

/// The latest revision of each of these alerts that has one above 0.
pub(super) async fn latest(
    state: &ApiState,
    tenant: &TenantId,
    rows: &[Alert],
) -> Result<BTreeMap<String, u32>, QueryError> {
    let ids = id_list(rows.iter().map(|alert| &alert.id));
    let text = format!(
        "SELECT \"alert_id\", max(\"revision\") AS \"revision\" FROM alerts \
         WHERE \"revision\" > 0 AND \"alert_id\" IN ({ids}) GROUP BY \"alert_id\""
    );
    let found = ask(state, tenant, &text, rows.len()).await?;
    Ok(found.into_iter().map(|alert| (alert.id, alert.revision)).collect())
}

/// The same rows with all columns, in the same order.
async fn whole_rows(
    state: &ApiState,
    tenant: &TenantId,
    chosen: &[Alert],
) -> Result<Vec<Alert>, QueryError> {
    let (Some(first), Some(last)) = (chosen.first(), chosen.last()) else { return Ok(Vec::new()) };
    let mut by_revision: BTreeMap<u32, Vec<&String>> = BTreeMap::new();
    for alert in chosen {
        by_revision.entry(alert.revision).or_default().push(&alert.id);
    }
    let wanted: Vec<String> = by_revision
        .into_iter()
        .map(|(revision, ids)| {
            format!("(\"revision\" = {revision} AND \"alert_id\" IN ({}))", id_list(ids))
        })
        .collect();
    let text = format!(
        "SELECT {} FROM alerts WHERE \"time\" >= {} AND \"time\" <= {} AND ({})",
        *COLUMNS,
        sql::moment(last.time),
        sql::moment(first.time),
        wanted.join(" OR "),
    );
    let found = ask(state, tenant, &text, chosen.len()).await?;
    let mut found: BTreeMap<(String, u32), Alert> =
        found.into_iter().map(|alert| ((alert.id.clone(), alert.revision), alert)).collect();
    let whole = chosen.iter().filter_map(|one| found.remove(&(one.id.clone(), one.revision)));
    Ok(whole.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_a_place_and_nothing_else() {
        let place = Place { time: -5, id: "0".repeat(32), revision: 7 };
        assert_eq!(Place::parse(&place.text()), Some(place.clone()));
        for bad in ["", "5", "5.x.0", "x.00000000000000000000000000000000.0", "5.' OR 1.0"] {
            assert_eq!(Place::parse(bad), None, "{bad}");
        }
        assert_eq!(Place::parse(&format!("{}.1", place.text())), None);
        assert!(place.behind().contains("\"revision\" < 7"));
    }
}
