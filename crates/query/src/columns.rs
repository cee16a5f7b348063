//! The columns of a table, without a query.

use crate::engine::QueryEngine;
use crate::error::QueryError;
use crate::limits::Limits;
use datafusion::catalog::TableProvider;
use palisade_event::TenantId;
use palisade_event::schema::{ALERTS, DEAD_LETTERS, EVENTS};
use palisade_table::Snapshot;
use palisade_table::provider::EventTable;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The tables that exist before their first row.
pub(crate) const BUILT_IN: [&str; 3] = [EVENTS, ALERTS, DEAD_LETTERS];

impl QueryEngine {
    /// The names of the columns that a tenant's table has; none when there is no such table. It takes a turn among the
    /// running queries: columns of segments that tenants share may have to be read.
    ///
    /// # Errors
    /// [`QueryError::Busy`] when no turn is to be had in time, [`QueryError::Read`] when a segment cannot be read.
    pub async fn columns(
        &self,
        tenant: &TenantId,
        table: &str,
        limits: Limits,
    ) -> Result<BTreeSet<String>, QueryError> {
        let snapshot = match self.snapshot(table) {
            Some(snapshot) => snapshot,
            None if BUILT_IN.contains(&table) => Snapshot::empty(table),
            None => return Ok(BTreeSet::new()),
        };
        let cache = Arc::clone(self.cache());
        let tenant = tenant.clone();
        let told = self.on_its_turn(limits, move || {
            let table = EventTable::with_cache(snapshot, &tenant, cache)?;
            Ok(table.schema().fields().iter().map(|field| field.name().clone()).collect())
        });
        told.await?.map_err(QueryError::Read)
    }
}
