//! Metrics of notifications. Labels are bounded: receivers are configured, decisions and outcomes a fixed list.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// The label of a receiver.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReceiverLabel {
    /// Its name.
    pub receiver: String,
}

/// A receiver and what was decided about an alert.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DecisionLabel {
    /// The receiver's name.
    pub receiver: String,
    /// `notify`, `duplicate`, `silenced`, …
    pub decision: &'static str,
}

/// A receiver and how an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabel {
    /// The receiver's name.
    pub receiver: String,
    /// `delivered`, `retried`, `dead`.
    pub outcome: &'static str,
}

/// Makes the histograms.
#[derive(Debug, Clone, Copy)]
pub struct Seconds;

impl MetricConstructor<Histogram> for Seconds {
    fn new_metric(&self) -> Histogram {
        // 5 ms to 2 h.
        Histogram::new(exponential_buckets(0.005, 2.0, 21))
    }
}

/// All metrics of notifications. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DeliveryMetrics {
    /// Decisions about alert revisions.
    pub decisions: Family<DecisionLabel, Counter>,
    /// Attempts by how they ended.
    pub attempts: Family<OutcomeLabel, Counter>,
    /// Notifications that wait.
    pub pending: Family<ReceiverLabel, Gauge>,
    /// Times that reading alerts or writing the catalog failed and was tried again.
    pub failures: Family<ReceiverLabel, Counter>,
    /// From the clock in the alert's row to its delivery.
    pub seconds: Family<ReceiverLabel, Histogram, Seconds>,
}

impl Default for DeliveryMetrics {
    fn default() -> Self {
        Self {
            decisions: Family::default(),
            attempts: Family::default(),
            pending: Family::default(),
            failures: Family::default(),
            seconds: Family::new_with_constructor(Seconds),
        }
    }
}

impl DeliveryMetrics {
    /// Makes and registers them.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "palisade_alert_decisions",
            "Alert revisions by receiver and what was decided about them",
            metrics.decisions.clone(),
        );
        registry.register(
            "palisade_notification_attempts",
            "Attempts to deliver notifications by receiver and how they ended",
            metrics.attempts.clone(),
        );
        registry.register(
            "palisade_notifications_pending",
            "Notifications that wait for an attempt",
            metrics.pending.clone(),
        );
        registry.register(
            "palisade_notification_failures",
            "Times that reading alerts or writing the catalog failed and was tried again",
            metrics.failures.clone(),
        );
        registry.register_with_unit(
            "palisade_notification",
            "From the clock in the alert's row to its delivery",
            Unit::Seconds,
            metrics.seconds.clone(),
        );
        metrics
    }
}
