//! `/api/v1/alerts/{id}`: one alert with all its revisions, what people decided and wrote, and what became of
//! its notifications; deciding and writing.

use super::deliveries::DeliveryView;
use super::view::{AlertView, Status};
use super::{COLUMNS, ask, evidence, is_id};
use crate::access::{Admin, Caller, Scope};
use crate::keys::refused;
use crate::openapi::ProblemDetails;
use crate::query::failed;
use crate::sql::{self, Row};
use crate::state::ApiState;
use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use palisade_alert::Alert;
use palisade_catalog::{AlertChange, AlertNote, DeliveryFilter};
use palisade_event::TenantId;
use palisade_event::time::rfc3339;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

/// The most revisions that are shown.
const MAX_REVISIONS: usize = 200;
/// The most deliveries that are shown.
const MAX_DELIVERIES: u32 = 100;

/// Something that somebody wrote about an alert.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Note {
    /// Its number.
    pub id: i64,
    /// Who wrote it.
    pub actor: String,
    /// When, RFC 3339.
    pub time: String,
    /// What.
    pub text: String,
}

impl From<AlertNote> for Note {
    fn from(note: AlertNote) -> Self {
        let AlertNote { id, actor, time, text } = note;
        Self { id, actor, time: rfc3339(time), text }
    }
}

/// One alert with all that is known of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct WholeAlert {
    /// Its latest revision.
    #[serde(flatten)]
    pub alert: AlertView,
    /// Ids of all records of the evidence as the latest revision leaves it, at most 10,000.
    pub all_evidence: Vec<String>,
    /// Whether there are more of them, or more revisions than are gone through.
    pub more_evidence: bool,
    /// The detector's own columns of that revision.
    #[schema(value_type = Object)]
    pub details: Map<String, Value>,
    /// All revisions, the latest first, at most 200.
    pub revisions: Vec<AlertView>,
    /// What people wrote, the oldest first.
    pub notes: Vec<Note>,
    /// Its notifications, the newest first, at most 100.
    pub deliveries: Vec<DeliveryView>,
}

/// A change of where an alert stands. What is not said stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AlertPatch {
    /// Where it stands from now on.
    #[serde(default)]
    pub status: Option<Status>,
    /// Why it is closed; needed for that.
    #[serde(default)]
    pub reason: Option<String>,
    /// Who looks after it; null for nobody.
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<String>)]
    pub assignee: Option<Option<String>>,
}

/// Tells null from nothing.
fn said<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// A note to be written.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewNote {
    /// 1 byte to 64 KiB.
    pub text: String,
}

/// All revisions of an alert of the tenant, the latest first.
async fn revisions(
    state: &ApiState,
    caller: &Caller,
    tenant: &TenantId,
    id: &str,
) -> Result<Vec<Alert>, Response> {
    let missing = || {
        let detail = "the tenant has no such alert: list them at /api/v1/alerts";
        caller.problem(StatusCode::NOT_FOUND, "unknown", "no such alert", detail)
    };
    if !is_id(id) {
        return Err(missing());
    }
    let text = format!(
        "SELECT {} FROM alerts WHERE \"alert_id\" = {} ORDER BY \"revision\" DESC, \
         \"position\" DESC LIMIT {MAX_REVISIONS}",
        *COLUMNS,
        sql::literal(id)
    );
    let found = ask(state, tenant, &text, MAX_REVISIONS).await;
    let found = found.map_err(|error| failed(&error, caller))?;
    if found.is_empty() { Err(missing()) } else { Ok(found) }
}

/// `GET /api/v1/alerts/{id}`: one alert with its revisions, notes and deliveries.
#[utoipa::path(get, path = "/api/v1/alerts/{id}", tag = "alerts",
    params(("id" = String, Path, description = "The alert's id")), responses(
    (status = 200, description = "The alert", body = WholeAlert),
    (status = 404, description = "There is none", body = ProblemDetails, content_type = "application/problem+json"),
))]
pub async fn show(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Response {
    match whole(&state, &caller, &id).await {
        Ok(alert) => Json(alert).into_response(),
        Err(response) => response,
    }
}

async fn whole(state: &ApiState, caller: &Caller, id: &str) -> Result<WholeAlert, Response> {
    let tenant = caller.may(Scope::Query)?;
    let found = revisions(state, caller, tenant, id).await?;
    let catalog = &state.catalog;
    let refused = |error| refused(caller, &error);
    let states = catalog.alert_states(tenant, &[id.to_owned()]).await.map_err(refused)?;
    let notes = catalog.alert_notes(tenant, id).await.map_err(refused)?;
    let filter = DeliveryFilter { alert_id: Some(id.to_owned()), ..DeliveryFilter::default() };
    let deliveries =
        catalog.deliveries(tenant, &filter, None, MAX_DELIVERIES).await.map_err(refused)?;
    let decided = states.get(id);
    let latest = found.first().cloned().unwrap_or_default();
    let whole = evidence::whole(state, tenant, id).await;
    let whole = whole.map_err(|error| failed(&error, caller))?;
    let details = details(state, tenant, &latest).await.map_err(|error| failed(&error, caller))?;
    Ok(WholeAlert {
        alert: AlertView::new(latest, decided),
        all_evidence: whole.records,
        more_evidence: whole.more,
        details,
        revisions: found.into_iter().map(|alert| AlertView::new(alert, decided)).collect(),
        notes: notes.into_iter().map(Note::from).collect(),
        deliveries: deliveries.into_iter().map(DeliveryView::from).collect(),
    })
}

/// The columns `<detector>.<what>` of a revision.
async fn details(
    state: &ApiState,
    tenant: &TenantId,
    alert: &Alert,
) -> Result<Row, palisade_query::QueryError> {
    let prefix = format!("{}.", alert.detector);
    let have = sql::columns(state, tenant, palisade_event::schema::ALERTS).await?;
    let own: Vec<String> =
        have.iter().filter(|name| name.starts_with(&prefix)).map(|n| sql::identifier(n)).collect();
    if own.is_empty() {
        return Ok(Row::new());
    }
    let text = format!(
        "SELECT {} FROM alerts WHERE \"alert_id\" = {} AND \"revision\" = {} LIMIT 1",
        own.join(", "),
        sql::literal(&alert.id),
        alert.revision
    );
    let mut row = sql::rows(state, tenant, &text, 1).await?.pop().unwrap_or_default();
    row.retain(|_, value| !value.is_null());
    Ok(row)
}

/// `PATCH /api/v1/alerts/{id}`: decides where an alert stands and who looks after it.
#[utoipa::path(patch, path = "/api/v1/alerts/{id}", tag = "alerts", request_body = AlertPatch,
    params(("id" = String, Path, description = "The alert's id")), responses(
    (status = 200, description = "The alert as it stands now", body = AlertView),
    (status = 400, description = "It is closed without a reason, or a text is too long", body = ProblemDetails, content_type = "application/problem+json"),
    (status = 403, description = "The key lacks the scope admin", body = ProblemDetails, content_type = "application/problem+json"),
    (status = 404, description = "There is none", body = ProblemDetails, content_type = "application/problem+json"),
))]
pub async fn change(
    State(state): State<ApiState>,
    Admin { caller, tenant }: Admin,
    Path(id): Path<String>,
    patch: Result<Json<AlertPatch>, JsonRejection>,
) -> Response {
    match decide(&state, &caller, &tenant, &id, patch).await {
        Ok(alert) => Json(alert).into_response(),
        Err(response) => response,
    }
}

async fn decide(
    state: &ApiState,
    caller: &Caller,
    tenant: &TenantId,
    id: &str,
    patch: Result<Json<AlertPatch>, JsonRejection>,
) -> Result<AlertView, Response> {
    let Json(patch) = patch.map_err(|error| {
        caller.problem(error.status(), "alert", "no such change", error.body_text())
    })?;
    if patch.status.is_none() && patch.reason.is_none() && patch.assignee.is_none() {
        let detail = "say at least one of status, reason and assignee";
        return Err(caller.problem(StatusCode::BAD_REQUEST, "alert", "no change", detail));
    }
    let latest = revisions(state, caller, tenant, id).await?.into_iter().next();
    let detail =
        json!({"status": patch.status, "reason": patch.reason, "assignee": patch.assignee});
    caller.audit(state, "alert:change", id, detail).await?;
    let change = AlertChange {
        status: patch.status.map(Into::into),
        reason: patch.reason,
        assignee: patch.assignee,
    };
    let now = state.clock.now();
    let decided = state.catalog.change_alert(tenant, id, &change, actor(caller), now).await;
    let decided = decided.map_err(|error| refused(caller, &error))?;
    Ok(AlertView::new(latest.unwrap_or_default(), Some(&decided)))
}

/// `POST /api/v1/alerts/{id}/notes`: writes a note.
#[utoipa::path(post, path = "/api/v1/alerts/{id}/notes", tag = "alerts", request_body = NewNote,
    params(("id" = String, Path, description = "The alert's id")), responses(
    (status = 201, description = "The note", body = Note),
    (status = 400, description = "It is empty or too long, or there are too many", body = ProblemDetails, content_type = "application/problem+json"),
    (status = 403, description = "The key lacks the scope admin", body = ProblemDetails, content_type = "application/problem+json"),
    (status = 404, description = "There is no such alert", body = ProblemDetails, content_type = "application/problem+json"),
))]
pub async fn note(
    State(state): State<ApiState>,
    Admin { caller, tenant }: Admin,
    Path(id): Path<String>,
    note: Result<Json<NewNote>, JsonRejection>,
) -> Response {
    match write(&state, &caller, &tenant, &id, note).await {
        Ok(note) => (StatusCode::CREATED, Json(note)).into_response(),
        Err(response) => response,
    }
}

async fn write(
    state: &ApiState,
    caller: &Caller,
    tenant: &TenantId,
    id: &str,
    note: Result<Json<NewNote>, JsonRejection>,
) -> Result<Note, Response> {
    let Json(note) =
        note.map_err(|error| caller.problem(error.status(), "note", "no note", error.body_text()))?;
    revisions(state, caller, tenant, id).await?;
    caller.audit(state, "alert:note", id, json!({"bytes": note.text.len()})).await?;
    let now = state.clock.now();
    let made = state.catalog.add_alert_note(tenant, id, actor(caller), now, &note.text).await;
    Ok(made.map_err(|error| refused(caller, &error))?.into())
}

/// Who asks, as the catalog keeps it.
pub(crate) fn actor(caller: &Caller) -> &str {
    caller.principal.key_id.as_deref().unwrap_or("local")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_tells_null_from_nothing() {
        let read = |text| serde_json::from_str::<AlertPatch>(text).unwrap();
        assert_eq!(read("{}").assignee, None);
        assert_eq!(read(r#"{"assignee":null}"#).assignee, Some(None));
        assert_eq!(read(r#"{"assignee":"ada"}"#).assignee, Some(Some("ada".into())));
        assert_eq!(read(r#"{"status":"closed"}"#).status, Some(Status::Closed));
        assert!(serde_json::from_str::<AlertPatch>(r#"{"state":"closed"}"#).is_err());
    }
}
