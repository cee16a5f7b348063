//! The thread that keeps segments in shape and the catalog small, and its metrics.

use crate::config::{Config, Span};
use arc_swap::ArcSwap;
use palisade_catalog::{Catalog, CatalogError};
use palisade_pipeline::clock::Clock;
use palisade_pipeline::priority::yield_to_others;
use palisade_table::{MaintenanceReport, Tables};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long nothing is looked for after a step that left nothing to do.
const PAUSE: Duration = Duration::from_secs(1);
/// And after one that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(10);

/// How often the catalog is looked at, microseconds.
const PRUNE_EVERY: i64 = 3_600_000_000;
/// Notifications that are kept at most, whatever their age.
const MOST_DELIVERIES: u64 = 1_000_000;
/// Audits.
const MOST_AUDITS: u64 = 10_000_000;

/// How long the catalog keeps what nobody needs any more, microseconds; `None` is for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keep {
    alert_states: Option<i64>,
    deliveries: Option<i64>,
    audits: Option<i64>,
}

impl Keep {
    pub(crate) fn of(config: &Config) -> Self {
        let micros = |span: Option<Span>| i64::try_from(span?.0.as_micros()).ok();
        let table = &config.table;
        Self {
            // What was decided about an alert is younger than the alert.
            alert_states: micros(table.alerts_retention),
            deliveries: micros(table.deliveries_retention),
            audits: micros(table.audits_retention),
        }
    }
}

/// What is pruned, and with what.
pub(crate) struct Pruning {
    pub(crate) catalog: Catalog,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) keep: Arc<ArcSwap<Keep>>,
}

impl Pruning {
    /// Deletes what is older than it is kept; answers how much that was.
    fn prune(&self, now: i64) -> Result<u64, CatalogError> {
        let keep = **self.keep.load();
        let before = |span: Option<i64>| span.map_or(i64::MIN, |span| now.saturating_sub(span));
        self.runtime.block_on(async {
            let mut gone =
                self.catalog.prune_deliveries(before(keep.deliveries), MOST_DELIVERIES).await?;
            if keep.alert_states.is_some() {
                gone += self.catalog.prune_alert_states(before(keep.alert_states)).await?;
            }
            gone += self.catalog.prune_audits(before(keep.audits), MOST_AUDITS).await?;
            Ok(gone)
        })
    }
}

/// The metrics of maintenance.
#[derive(Debug, Clone, Default)]
pub(crate) struct MaintenanceMetrics {
    running: Gauge,
    complete: Counter,
    merged_segments: Counter,
    merged_rows: Counter,
    merged_bytes: Counter,
    pruned: Counter,
}

impl MaintenanceMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "palisade_maintenance_running",
            "1 while segments are merged, left out or deleted, or more of that is due",
            metrics.running.clone(),
        );
        let counters: [(&str, &str, &Counter); 5] = [
            (
                "palisade_maintenance_complete",
                "How often maintenance had looked at all tables and left nothing to do",
                &metrics.complete,
            ),
            (
                "palisade_merged_segments",
                "Segments merged or rewritten by maintenance",
                &metrics.merged_segments,
            ),
            ("palisade_merged_rows", "Rows written by merges", &metrics.merged_rows),
            ("palisade_merged_bytes", "Bytes written by merges", &metrics.merged_bytes),
            (
                "palisade_pruned_catalog_rows",
                "Notifications, audits, states and notes of alerts that were deleted because of their age",
                &metrics.pruned,
            ),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        metrics
    }

    fn done(&self, report: &MaintenanceReport) {
        self.merged_segments.inc_by(report.merged as u64);
        self.merged_rows.inc_by(report.merged_rows);
        self.merged_bytes.inc_by(report.merged_bytes);
        if !report.more {
            self.complete.inc();
        }
    }
}

/// Compaction, retention and deletion, one bounded step after the other; the catalog once an hour.
pub(crate) fn maintain(
    tables: Arc<Tables>,
    pruning: Pruning,
    epoch: u64,
    clock: Arc<dyn Clock>,
    metrics: MaintenanceMetrics,
    stopping: Arc<AtomicBool>,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("maintenance".to_owned()).spawn(move || {
        yield_to_others();
        let mut next_prune = i64::MIN;
        while !stopping.load(Ordering::Acquire) {
            metrics.running.set(1);
            let pause = match tables.maintain(clock.now(), epoch) {
                Ok(report) => {
                    metrics.done(&report);
                    if report.more {
                        continue;
                    }
                    PAUSE
                }
                Err(error) => {
                    tracing::warn!(%error, "table maintenance failed, it is tried again");
                    AFTER_FAILURE
                }
            };
            metrics.running.set(0);
            let now = clock.now();
            if now >= next_prune {
                next_prune = now.saturating_add(PRUNE_EVERY);
                match pruning.prune(now) {
                    Ok(gone) => {
                        metrics.pruned.inc_by(gone);
                    }
                    Err(error) => tracing::warn!(%error, "the catalog was not pruned, it is tried again in an hour"),
                }
            }
            std::thread::park_timeout(pause);
        }
    })
}
