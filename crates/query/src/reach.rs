//! Asking the entity index how far back the newest rows of an entity reach.

use crate::engine::QueryEngine;
use crate::error::QueryError;
use crate::limits::Limits;
use palisade_event::TenantId;
use palisade_table::provider::{Reach, reach};
use std::sync::Arc;
use std::time::Instant;

impl QueryEngine {
    /// Where the newest `rows` rows of a tenant's table stand that have a value in a column; `None` when that cannot
    /// be told. It is an estimate: who asks for rows since then may get fewer. It takes a turn among the running queries,
    /// and no longer than `limits.time`.
    ///
    /// # Errors
    /// [`QueryError::Busy`] when no turn is to be had in time, [`QueryError::Read`] when a segment cannot be
    /// read.
    pub async fn reach(
        &self,
        tenant: &TenantId,
        table: &str,
        (column, value): (&str, &str),
        rows: usize,
        limits: Limits,
    ) -> Result<Option<Reach>, QueryError> {
        let until = Instant::now() + limits.time;
        let Some(snapshot) = self.snapshot(table) else { return Ok(None) };
        let cache = Arc::clone(self.cache());
        let (tenant, column, value) = (tenant.clone(), column.to_owned(), value.to_owned());
        let told = self.on_its_turn(limits, move || {
            let entity = (column.as_str(), value.as_str());
            reach(&snapshot, &tenant, &cache, entity, rows, || Instant::now() < until)
        });
        told.await?.map_err(QueryError::Read)
    }
}
