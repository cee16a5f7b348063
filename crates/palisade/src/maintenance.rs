//! The thread that keeps segments in shape, and its metrics.

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

/// The metrics of maintenance.
#[derive(Debug, Clone, Default)]
pub(crate) struct MaintenanceMetrics {
    running: Gauge,
    complete: Counter,
    merged_segments: Counter,
    merged_rows: Counter,
    merged_bytes: Counter,
}

impl MaintenanceMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "palisade_maintenance_running",
            "1 while segments are merged, left out or deleted, or more of that is due",
            metrics.running.clone(),
        );
        let counters: [(&str, &str, &Counter); 4] = [
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

/// Compaction, retention and deletion, one bounded step after the other.
pub(crate) fn maintain(
    tables: Arc<Tables>,
    epoch: u64,
    clock: Arc<dyn Clock>,
    metrics: MaintenanceMetrics,
    stopping: Arc<AtomicBool>,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("maintenance".to_owned()).spawn(move || {
        yield_to_others();
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
            std::thread::park_timeout(pause);
        }
    })
}
