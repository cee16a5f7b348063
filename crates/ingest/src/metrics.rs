//! What the front doors count, as Prometheus counters with bounded labels.
//!
//! | metric | labels | meaning |
//! |---|---|---|
//! | `palisade_received_requests_total` | door | HTTP requests, datagrams, or batches of a connection |
//! | `palisade_received_bytes_total` | door | bytes of bodies, as received |
//! | `palisade_received_records_total` | door | records taken durably |
//! | `palisade_refused_records_total` | door | records refused or dead-lettered by their content |
//! | `palisade_refused_requests_total` | door, reason | requests, connections or datagrams not taken |
//! | `palisade_dead_letters_total` | door | records handed on as dead letters |
//! | `palisade_open_connections` | door | connections that are open now |

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Which door.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DoorLabel {
    /// `http`, `bulk`, `files`, or `<protocol>:<listener name>`.
    pub door: String,
}

/// Which door, and why not.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RefusedLabel {
    /// As in [`DoorLabel`].
    pub door: String,
    /// One of a fixed set of words.
    pub reason: &'static str,
}

/// The counters of all doors.
#[derive(Debug, Clone, Default)]
pub struct DoorMetrics {
    requests: Family<DoorLabel, Counter>,
    bytes: Family<DoorLabel, Counter>,
    records: Family<DoorLabel, Counter>,
    refused_records: Family<DoorLabel, Counter>,
    refused_requests: Family<RefusedLabel, Counter>,
    dead_letters: Family<DoorLabel, Counter>,
    connections: Family<DoorLabel, Gauge>,
}

impl DoorMetrics {
    /// Counters that a registry shows under the prefix `palisade_` (give the root registry).
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("palisade");
        registry.register(
            "received_requests",
            "HTTP requests, datagrams, or batches of a connection",
            metrics.requests.clone(),
        );
        registry.register("received_bytes", "bytes of bodies as received", metrics.bytes.clone());
        registry.register("received_records", "records taken durably", metrics.records.clone());
        registry.register(
            "refused_records",
            "records refused or dead-lettered by their content",
            metrics.refused_records.clone(),
        );
        registry.register(
            "refused_requests",
            "requests, connections or datagrams not taken, by reason",
            metrics.refused_requests.clone(),
        );
        registry.register(
            "dead_letters",
            "records handed on as dead letters",
            metrics.dead_letters.clone(),
        );
        registry.register(
            "open_connections",
            "connections that are open now",
            metrics.connections.clone(),
        );
        metrics
    }

    /// The counters of one door, looked up once.
    #[must_use]
    pub fn door(&self, door: &str) -> Door {
        let label = DoorLabel { door: door.to_owned() };
        Door {
            name: door.to_owned(),
            requests: self.requests.get_or_create(&label).clone(),
            bytes: self.bytes.get_or_create(&label).clone(),
            records: self.records.get_or_create(&label).clone(),
            refused_records: self.refused_records.get_or_create(&label).clone(),
            dead_letters: self.dead_letters.get_or_create(&label).clone(),
            connections: self.connections.get_or_create(&label).clone(),
            refused_requests: self.refused_requests.clone(),
        }
    }
}

/// The counters of one door.
#[derive(Debug, Clone)]
pub struct Door {
    name: String,
    /// `palisade_received_requests_total`.
    pub requests: Counter,
    /// `palisade_received_bytes_total`.
    pub bytes: Counter,
    /// `palisade_received_records_total`.
    pub records: Counter,
    /// `palisade_refused_records_total`.
    pub refused_records: Counter,
    /// `palisade_dead_letters_total`.
    pub dead_letters: Counter,
    /// `palisade_open_connections`.
    pub connections: Gauge,
    refused_requests: Family<RefusedLabel, Counter>,
}

impl Door {
    /// Counts a request, connection or datagram that was not taken.
    pub fn refuse(&self, reason: &'static str) {
        self.refused_requests
            .get_or_create(&RefusedLabel { door: self.name.clone(), reason })
            .inc();
    }

    /// How many were not taken for this reason.
    #[must_use]
    pub fn refused(&self, reason: &'static str) -> u64 {
        self.refused_requests.get_or_create(&RefusedLabel { door: self.name.clone(), reason }).get()
    }

    /// Counts a connection as open until the guard is dropped.
    #[must_use]
    pub fn connection(&self) -> OpenConnection {
        self.connections.inc();
        OpenConnection(self.connections.clone())
    }
}

/// A connection that is counted as open.
#[derive(Debug)]
pub struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}
