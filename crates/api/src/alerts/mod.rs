//! `/api/v1/alerts` and what belongs to it: alerts with what people decided about them, silences, incidents, risk
//! of entities, deliveries.
//!
//! | paths | module |
//! |---|---|
//! | `/api/v1/alerts`, `/api/v1/alerts/{id}` | [`list`], [`one`] |
//! | `/api/v1/silences` | [`silences`] |
//! | `/api/v1/incidents`, `/api/v1/entities/risk` | [`groups`] |
//! | `/api/v1/deliveries` | [`deliveries`] |
//! | where deliverers read alerts | [`source`] |
//!
//! Reading needs the scope `query`, changing and deliveries `admin`; changes are audited.

pub mod deliveries;
mod evidence;
pub mod groups;
pub mod list;
pub mod one;
pub mod silences;
pub mod source;
mod view;

pub use source::TableAlerts;
pub use view::AlertView;

use crate::access::Caller;
use crate::sql;
use crate::state::ApiState;
use axum::http::StatusCode;
use axum::response::Response;
use palisade_alert::Alert;
use palisade_event::TenantId;
use palisade_event::schema::alert_fields;
use palisade_event::time::parse_event_time;
use palisade_query::{Excess, Limits, QueryError};
use std::sync::LazyLock;

/// The columns of the table, as SQL.
static COLUMNS: LazyLock<String> = LazyLock::new(|| {
    let fields = alert_fields();
    let names: Vec<String> = fields.iter().map(|field| sql::identifier(field.name())).collect();
    names.join(", ")
});

/// The alert revisions that a query of the tenant gives.
async fn ask(
    state: &ApiState,
    tenant: &TenantId,
    text: &str,
    most: usize,
) -> Result<Vec<Alert>, QueryError> {
    let limits = Limits { excess: Excess::Truncate, ..sql::limits(state, most) };
    let batches = state.query.query(tenant, text, limits).await?.collect().await?;
    read(&batches)
}

fn read(batches: &[arrow::array::RecordBatch]) -> Result<Vec<Alert>, QueryError> {
    let mut alerts = Vec::new();
    for batch in batches {
        alerts.extend(
            Alert::read(batch)
                .map_err(|error| QueryError::Internal(format!("no rows of alerts: {error}")))?,
        );
    }
    Ok(alerts)
}

/// A text that is an alert's id.
fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
}

/// Ids as an SQL list; all are [`is_id`].
fn id_list<'a>(ids: impl IntoIterator<Item = &'a String>) -> String {
    ids.into_iter().map(|id| sql::literal(id)).collect::<Vec<_>>().join(", ")
}

/// A time as people write it: RFC 3339, or milliseconds since the epoch.
pub(crate) fn moment(
    caller: &Caller,
    state: &ApiState,
    name: &str,
    text: &str,
) -> Result<i64, Box<Response>> {
    parse_event_time(text, state.clock.now()).ok_or_else(|| {
        let detail = format!("{name} must be a time such as 2026-01-31T08:00:00Z");
        Box::new(caller.problem(StatusCode::BAD_REQUEST, "parameter", "no such time", detail))
    })
}

/// The answer to a parameter that is wrong.
pub(crate) fn wrong(caller: &Caller, detail: impl Into<String>) -> Response {
    caller.problem(StatusCode::BAD_REQUEST, "parameter", "a parameter is wrong", detail)
}
