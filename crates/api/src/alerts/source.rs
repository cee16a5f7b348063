//! Where deliverers read alerts: the table, of all tenants, in the order of positions.
//!
//! What is new stands in memory, and one snapshot (M3) tells it whole: all rows beyond the committed position. A receiver that is
//! behind that position (after an outage, a new configuration) is served by queries, one a tenant, merged.

use super::{COLUMNS, read};
use crate::sql;
use futures::FutureExt;
use futures::future::BoxFuture;
use palisade_alert::Alert;
use palisade_alert::client::{AlertSource, Rows, SourceError};
use palisade_catalog::{AlertCursor, Catalog};
use palisade_event::schema::ALERTS;
use palisade_event::{Offset, TenantId};
use palisade_query::{Excess, Limits, QueryEngine, QueryError};
use palisade_table::Tables;
use std::sync::Arc;
use std::time::Duration;

/// How long a query for a receiver that is behind may take.
const TIME: Duration = Duration::from_secs(30);

/// The alerts of all tenants.
#[derive(Debug, Clone)]
pub struct TableAlerts {
    tables: Arc<Tables>,
    query: Arc<QueryEngine>,
    catalog: Catalog,
}

impl TableAlerts {
    /// The alerts of these tables; the catalog tells the tenants.
    #[must_use]
    pub fn new(tables: Arc<Tables>, query: Arc<QueryEngine>, catalog: Catalog) -> Self {
        Self { tables, query, catalog }
    }

    /// The rows behind a place that are in memory; `None` when the place is before them.
    fn in_memory(
        &self,
        cursor: &AlertCursor,
        limit: usize,
    ) -> Result<Option<Vec<Alert>>, SourceError> {
        let snapshot = self.tables.snapshot(ALERTS);
        if cursor.position < snapshot.committed.position(0) {
            return Ok(None);
        }
        let mut found = Vec::new();
        for batch in snapshot.memory.iter() {
            let newest = batch
                .column_by_name("position")
                .and_then(|column| arrow::array::AsArray::as_primitive_opt(column))
                .and_then(arrow::compute::max::<arrow::datatypes::UInt64Type>);
            if newest.is_none_or(|newest| newest < cursor.position) {
                continue;
            }
            let alerts = Alert::read(batch).map_err(|error| SourceError(error.to_string()))?;
            found.extend(alerts.into_iter().filter(|alert| is_behind(alert, cursor)));
            // Batches stand in the order of positions, and no two have rows of the same entry.
            if found.len() >= limit {
                break;
            }
        }
        Ok(Some(in_order(found, limit)))
    }

    /// The rows behind a place, of all tenants, by queries.
    async fn by_query(
        &self,
        cursor: &AlertCursor,
        limit: usize,
    ) -> Result<Vec<Alert>, SourceError> {
        let tenants = self.catalog.tenants().await;
        let tenants = tenants.map_err(|error| SourceError(error.to_string()))?;
        let mut found = Vec::new();
        for tenant in tenants {
            let alerts = self.of_tenant(&tenant.name, cursor, limit).await;
            found.extend(alerts.map_err(|error| SourceError(error.to_string()))?);
            // The first rows of what all have so far are the only ones that can be among the first of all.
            found = in_order(found, limit);
        }
        Ok(found)
    }

    async fn of_tenant(
        &self,
        tenant: &TenantId,
        cursor: &AlertCursor,
        limit: usize,
    ) -> Result<Vec<Alert>, QueryError> {
        let position = format!("CAST({} AS BIGINT UNSIGNED)", cursor.position);
        let id = sql::literal(&cursor.alert_id);
        let text = format!(
            "SELECT {} FROM alerts WHERE \"position\" >= {position} AND (\"position\" > {position} \
             OR \"alert_id\" > {id} OR (\"alert_id\" = {id} AND \"revision\" > {})) \
             ORDER BY \"position\", \"alert_id\", \"revision\" LIMIT {limit}",
            *COLUMNS, cursor.revision
        );
        let limits =
            Limits { time: TIME, rows: limit, excess: Excess::Truncate, ..Limits::default() };
        read(&self.query.query(tenant, &text, limits).await?.collect().await?)
    }
}

fn is_behind(alert: &Alert, cursor: &AlertCursor) -> bool {
    alert.place() > (cursor.position, cursor.alert_id.as_str(), cursor.revision)
}

/// The place of a row.
fn at(alert: &Alert) -> AlertCursor {
    let (position, alert_id, revision) = alert.place();
    AlertCursor { position, alert_id: alert_id.to_owned(), revision }
}

/// The place before all rows of an entry.
fn before(offset: Offset) -> AlertCursor {
    AlertCursor { position: offset.position(0), ..AlertCursor::default() }
}

fn in_order(mut alerts: Vec<Alert>, limit: usize) -> Vec<Alert> {
    alerts.sort_by(|a, b| a.place().cmp(&b.place()));
    alerts.truncate(limit);
    alerts
}

impl AlertSource for TableAlerts {
    fn after<'a>(
        &'a self,
        cursor: &'a AlertCursor,
        limit: usize,
    ) -> BoxFuture<'a, Result<Rows, SourceError>> {
        async move {
            // Before anything is read, so that what comes meanwhile is not passed over.
            let visible = self.tables.snapshot(ALERTS).visible;
            let alerts = match self.in_memory(cursor, limit)? {
                Some(alerts) => alerts,
                None => self.by_query(cursor, limit).await?,
            };
            let end = match alerts.last() {
                Some(last) if alerts.len() >= limit => at(last),
                last => {
                    let visible = before(visible);
                    last.map_or(visible.clone(), |last| at(last).max(visible)).max(cursor.clone())
                }
            };
            Ok(Rows { alerts, end })
        }
        .boxed()
    }

    fn end(&self) -> BoxFuture<'_, Result<AlertCursor, SourceError>> {
        let visible = self.tables.snapshot(ALERTS).visible;
        async move { Ok(before(visible)) }.boxed()
    }
}
