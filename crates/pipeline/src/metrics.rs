//! The pipeline's metrics: names `palisade_<noun>_<unit>`, base units, bounded labels, updated once
//! a frame and never once an event. StreamGuard's documented names are offered beside them.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// The label of a stage: `gateway`, `log`, `workers`, `tables`, …
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StageLabel {
    /// The stage's name.
    pub stage: &'static str,
}

/// The label of a detector: `baseline`, `threat`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DetectorLabel {
    /// The detector's name.
    pub detector: &'static str,
    /// The alert's severity.
    pub severity: &'static str,
}

/// All metrics of gateway, pipeline and committer. Cheap to clone.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "each is described where it is registered")]
pub struct Metrics {
    pub records_received: Counter,
    pub bytes_received: Counter,
    pub requests: Counter,
    pub requests_repeated: Counter,
    pub requests_busy: Counter,
    pub records_accepted: Counter,
    pub records_refused: Counter,
    pub records_stored: Counter,
    pub records_dead_lettered: Counter,
    pub records_ahead_of_clock: Counter,
    pub fields_overflowed: Counter,
    pub further_source_records: Counter,
    pub frames: Counter,
    pub frame_rows: Histogram,
    pub alerts: Family<DetectorLabel, Counter>,
    pub queue_depth: Family<StageLabel, Gauge>,
    pub uncommitted_bytes: Gauge,
    pub log_end: Gauge,
    pub visible_position: Gauge,
    pub committed_position: Gauge,
    pub commits: Counter,
    pub commit_failures: Counter,
    pub checkpoints: Counter,
    /// Stored rows that backfills have read.
    pub backfill_rows: Counter,
    /// Hits and alerts that backfills have found in them.
    pub backfill_found: Counter,
    pub ack_seconds: Histogram,
    pub visible_seconds: Histogram,
    pub commit_seconds: Histogram,
    pub checkpoint_pause_seconds: Histogram,
    pub streamguard_events: Counter,
    pub streamguard_anomalies: Counter,
    pub streamguard_score: Histogram,
    pub streamguard_latency: Histogram,
}

fn latency() -> Histogram {
    Histogram::new(exponential_buckets(0.000_25, 2.0, 18))
}

impl Metrics {
    /// Makes the metrics and registers them.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            records_received: Counter::default(),
            bytes_received: Counter::default(),
            requests: Counter::default(),
            requests_repeated: Counter::default(),
            requests_busy: Counter::default(),
            records_accepted: Counter::default(),
            records_refused: Counter::default(),
            records_stored: Counter::default(),
            records_dead_lettered: Counter::default(),
            records_ahead_of_clock: Counter::default(),
            fields_overflowed: Counter::default(),
            further_source_records: Counter::default(),
            frames: Counter::default(),
            frame_rows: Histogram::new(exponential_buckets(1.0, 4.0, 11)),
            alerts: Family::default(),
            queue_depth: Family::default(),
            uncommitted_bytes: Gauge::default(),
            log_end: Gauge::default(),
            visible_position: Gauge::default(),
            committed_position: Gauge::default(),
            commits: Counter::default(),
            commit_failures: Counter::default(),
            checkpoints: Counter::default(),
            backfill_rows: Counter::default(),
            backfill_found: Counter::default(),
            ack_seconds: latency(),
            visible_seconds: latency(),
            commit_seconds: latency(),
            checkpoint_pause_seconds: latency(),
            streamguard_events: Counter::default(),
            streamguard_anomalies: Counter::default(),
            streamguard_score: Histogram::new((0..=10).map(|tenth| f64::from(tenth) / 10.0)),
            streamguard_latency: latency(),
        };
        metrics.register_counters(registry);
        metrics.register_rest(registry);
        metrics
    }

    fn register_counters(&self, registry: &mut Registry) {
        let counters: [(&str, &str, &Counter); 18] = [
            (
                "palisade_gateway_records",
                "Records that front doors handed to the gateway",
                &self.records_received,
            ),
            (
                "palisade_gateway_bytes",
                "Bytes of records received, after content decoding",
                &self.bytes_received,
            ),
            ("palisade_requests", "Requests that the gateway took", &self.requests),
            (
                "palisade_requests_repeated",
                "Requests answered from the ledger of idempotency keys",
                &self.requests_repeated,
            ),
            (
                "palisade_requests_busy",
                "Requests turned away because a queue was full",
                &self.requests_busy,
            ),
            (
                "palisade_records_accepted",
                "Records acknowledged after fsync",
                &self.records_accepted,
            ),
            (
                "palisade_records_refused",
                "Records refused to their sender with a reason",
                &self.records_refused,
            ),
            ("palisade_records_stored", "Records visible to SQL", &self.records_stored),
            (
                "palisade_records_dead_lettered",
                "Records kept as dead letters",
                &self.records_dead_lettered,
            ),
            (
                "palisade_records_ahead_of_clock",
                "Records whose time was replaced by the clock",
                &self.records_ahead_of_clock,
            ),
            (
                "palisade_fields_overflowed",
                "Fields kept in the overflow column",
                &self.fields_overflowed,
            ),
            (
                "palisade_further_source_records",
                "Records of sources past their tenant's bound, which share their limits",
                &self.further_source_records,
            ),
            ("palisade_frames", "Frames that passed the pipeline", &self.frames),
            ("palisade_commits", "Commits made", &self.commits),
            (
                "palisade_commit_failures",
                "Commits that failed and were tried again",
                &self.commit_failures,
            ),
            ("palisade_checkpoints", "Checkpoints of operator state made", &self.checkpoints),
            ("palisade_backfill_rows", "Stored rows read by backfills", &self.backfill_rows),
            ("palisade_backfill_found", "Hits and alerts found by backfills", &self.backfill_found),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        registry.register(
            "streamguard_events_processed",
            "Events processed (StreamGuard's name)",
            self.streamguard_events.clone(),
        );
        registry.register(
            "streamguard_anomalies_detected",
            "Behavioural anomalies detected (StreamGuard's name)",
            self.streamguard_anomalies.clone(),
        );
    }

    fn register_rest(&self, registry: &mut Registry) {
        registry.register("palisade_frame_rows", "Rows per frame", self.frame_rows.clone());
        registry.register(
            "palisade_alerts",
            "Alerts raised, by detector and severity",
            self.alerts.clone(),
        );
        registry.register(
            "palisade_queue_depth",
            "What waits in front of a stage: requests, frames",
            self.queue_depth.clone(),
        );
        let gauges: [(&str, &str, &Gauge); 4] = [
            (
                "palisade_uncommitted_bytes",
                "Bytes of rows that are visible but not committed",
                &self.uncommitted_bytes,
            ),
            ("palisade_log_end_offset", "The offset after the last durable entry", &self.log_end),
            (
                "palisade_visible_offset",
                "Entries below this offset are visible to SQL",
                &self.visible_position,
            ),
            (
                "palisade_committed_offset",
                "Entries below this offset are committed",
                &self.committed_position,
            ),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
        let histograms: [(&str, &str, &Histogram); 4] = [
            (
                "palisade_ack",
                "From a request's arrival at the gateway to its acknowledgement",
                &self.ack_seconds,
            ),
            (
                "palisade_visible",
                "From a frame's first record to its visibility to SQL",
                &self.visible_seconds,
            ),
            ("palisade_commit", "How long a commit took", &self.commit_seconds),
            (
                "palisade_checkpoint_pause",
                "How long a checkpoint held a worker at a time",
                &self.checkpoint_pause_seconds,
            ),
        ];
        for (name, help, histogram) in histograms {
            registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        }
        registry.register(
            "streamguard_anomaly_score",
            "Scores of detected anomalies (StreamGuard's name)",
            self.streamguard_score.clone(),
        );
        registry.register(
            "streamguard_processing_latency_seconds",
            "From arrival to visibility, per frame (StreamGuard's name)",
            self.streamguard_latency.clone(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_names_are_there() -> Result<(), std::fmt::Error> {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.streamguard_events.inc();
        metrics.ack_seconds.observe(0.1);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry)?;
        for name in [
            "streamguard_events_processed_total 1",
            "streamguard_anomalies_detected_total 0",
            "streamguard_anomaly_score_bucket",
            "streamguard_processing_latency_seconds_bucket",
            "palisade_ack_seconds_bucket",
            "palisade_records_accepted_total 0",
        ] {
            assert!(text.contains(name), "{name} is missing in\n{text}");
        }
        Ok(())
    }
}
