//! The table `alerts` as those who deliver notifications read it: all tenants, in the order of positions.

use crate::server::Failure;
use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::UInt64Type;
use futures::FutureExt;
use futures::future::BoxFuture;
use palisade_alert::Alert;
use palisade_alert::client::{AlertSource, Prepared, Rows, SourceError};
use palisade_alert::plan::Plan;
use palisade_alert::settings::AlertSettings;
use palisade_catalog::AlertCursor;
use palisade_event::Offset;
use palisade_event::schema::{ALERTS, Core};
use palisade_table::Tables;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::fs::File;
use std::sync::Arc;

/// Reads the table.
pub(crate) struct TableAlerts(pub(crate) Arc<Tables>);

fn failed(error: impl ToString) -> SourceError {
    SourceError(error.to_string())
}

/// The place before all rows of an offset and those behind it.
fn before(offset: Offset) -> AlertCursor {
    AlertCursor { position: offset.position(0), alert_id: String::new(), revision: 0 }
}

/// Adds the alerts of a batch behind a place.
fn add(
    batch: &RecordBatch,
    place: &AlertCursor,
    found: &mut Vec<Alert>,
) -> Result<(), SourceError> {
    let positions = batch.column_by_name(Core::Position.name());
    let Some(positions) = positions.and_then(|array| array.as_primitive_opt::<UInt64Type>()) else {
        return Err(failed("the table alerts has a batch without positions"));
    };
    // Rows at the place itself are told apart by their ids.
    let behind: BooleanArray =
        positions.values().iter().map(|position| Some(*position >= place.position)).collect();
    if behind.true_count() == 0 {
        return Ok(());
    }
    let batch = filter_record_batch(batch, &behind).map_err(failed)?;
    let alerts = Alert::read(&batch).map_err(failed)?;
    let place = (place.position, place.alert_id.as_str(), place.revision);
    found.extend(alerts.into_iter().filter(|alert| alert.place() > place));
    Ok(())
}

/// Keeps the first rows by place.
fn keep(found: &mut Vec<Alert>, limit: usize) {
    found.sort_by(|a, b| a.place().cmp(&b.place()));
    found.truncate(limit);
}

impl TableAlerts {
    fn read(tables: &Tables, place: &AlertCursor, limit: usize) -> Result<Rows, SourceError> {
        let snapshot = tables.snapshot(ALERTS);
        let mut found = Vec::new();
        for segment in snapshot.segments.iter() {
            if segment.meta.to.position(0) <= place.position {
                continue;
            }
            let file = File::open(&segment.path).map_err(failed)?;
            let reader = ParquetRecordBatchReaderBuilder::try_new(file).map_err(failed)?;
            for batch in reader.build().map_err(failed)? {
                add(&batch.map_err(failed)?, place, &mut found)?;
                if found.len() > 4 * limit {
                    keep(&mut found, limit);
                }
            }
        }
        // Batches stand in the order of the log.
        for batch in snapshot.memory.iter() {
            if found.len() > 4 * limit {
                break;
            }
            add(batch, place, &mut found)?;
        }
        keep(&mut found, limit);
        let end = match found.last() {
            Some(last) if found.len() >= limit => {
                let (position, id, revision) = last.place();
                AlertCursor { position, alert_id: id.to_owned(), revision }
            }
            _ => before(snapshot.visible).max(place.clone()),
        };
        Ok(Rows { alerts: found, end })
    }
}

impl AlertSource for TableAlerts {
    fn after<'a>(
        &'a self,
        place: &'a AlertCursor,
        limit: usize,
    ) -> BoxFuture<'a, Result<Rows, SourceError>> {
        let (tables, place) = (Arc::clone(&self.0), place.clone());
        async move {
            let read = move || Self::read(&tables, &place, limit);
            tokio::task::spawn_blocking(read).await.map_err(failed)?
        }
        .boxed()
    }

    fn end(&self) -> BoxFuture<'_, Result<AlertCursor, SourceError>> {
        let end = before(self.0.snapshot(ALERTS).visible);
        async move { Ok(end) }.boxed()
    }
}

/// The receivers of a configuration with their secrets; `None` when there are none.
pub(crate) fn prepare(settings: &AlertSettings) -> Result<Option<Prepared>, Failure> {
    let plan = Plan::check(settings)?;
    if plan.receivers.is_empty() {
        return Ok(None);
    }
    Ok(Some(Prepared::new(plan)?))
}
