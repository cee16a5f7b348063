//! The configuration: one YAML file, every default works without it.
//!
//! Precedence: default < file < environment (`PALISADE_SECTION__KEY`) < flag. Unknown keys are errors
//! with the line and a suggestion. This struct is the documentation and the JSON Schema
//! (`palisade validate --schema`); `default.yaml` beside it shows every default and is tested to be equal
//! to [`Config::default`]. Checking a configuration opens no file but itself and no socket.

mod load;
mod suggest;
mod units;

pub(crate) use load::{ConfigError, check, load};
pub(crate) use units::{Size, Span};

use palisade_alert::AlertSettings;
use palisade_ingest::listener::ListenerConfig;
use palisade_ingest::tls::TlsFiles;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Every default, with what it means: what `palisade validate --defaults` prints.
pub(crate) const DEFAULTS: &str = include_str!("default.yaml");

/// The whole configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Where everything is kept: log, segments, catalog, checkpoints.
    pub(crate) data: PathBuf,
    /// The HTTP listener: ingestion, `_bulk`, queries, the page.
    pub(crate) http: Http,
    /// Listeners for raw lines, syslog over TCP or TLS, and syslog over UDP.
    pub(crate) listeners: Vec<ListenerConfig>,
    /// Bounds of what senders may send.
    pub(crate) limits: Limits,
    /// The durable log.
    pub(crate) log: Log,
    /// The pipeline between log and tables.
    pub(crate) pipeline: Pipeline,
    /// The detectors.
    pub(crate) detect: Detect,
    /// Who is told of alerts.
    pub(crate) alerts: AlertSettings,
    /// The tables.
    pub(crate) table: Table,
    /// Queries.
    pub(crate) query: Query,
    /// Disk space that is kept free.
    pub(crate) disk: Disk,
    /// The process's own log.
    pub(crate) logging: Logging,
}

/// The HTTP listener.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Http {
    /// The address. Off loopback, TLS and an API key are required.
    pub(crate) listen: SocketAddr,
    /// Certificate and key. Both are read again when they change.
    pub(crate) tls: Option<TlsFiles>,
    /// Allow plain HTTP off loopback. Whoever can read the network can then read keys and records.
    pub(crate) allow_plaintext: bool,
    /// Connections at a time; further ones wait.
    pub(crate) max_connections: usize,
    /// Further names by which this server is reached, without a port. While no key exists, a request that
    /// names another host than loopback or one of these is refused: a page of another site that lets its
    /// own name point here could read everything (DNS rebinding).
    pub(crate) names: Vec<String>,
}

/// Bounds of what senders may send.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    /// A request body as sent.
    pub(crate) body: Size,
    /// A request body after decompression.
    pub(crate) decompressed: Size,
    /// One record.
    pub(crate) record: Size,
    /// Nesting of JSON.
    pub(crate) depth: usize,
    /// Keys of one record.
    pub(crate) keys: usize,
    /// Dynamic columns of a source; further fields go to the column `overflow`.
    pub(crate) dynamic_columns: usize,
    /// Dynamic columns that a tenant may bring in a day; further fields go to the column `overflow`.
    pub(crate) tenant_columns: usize,
    /// Sources of a tenant that have their own column limit; further ones share one.
    pub(crate) sources: usize,
    /// Requests that may wait for a decoder; beyond, the answer is 429.
    pub(crate) waiting_requests: usize,
    /// Bytes that may wait for a decoder or for their fsync.
    pub(crate) waiting: Size,
}

/// The durable log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Log {
    /// A log segment is closed at this size.
    pub(crate) segment: Size,
    /// Partitions: fixed when the log is made; more than there will ever be cores is fine.
    pub(crate) partitions: u16,
}

/// The pipeline between log and tables.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Pipeline {
    /// Worker threads; 0 is one a core.
    pub(crate) workers: usize,
    /// Decoder threads; 0 is one for two cores.
    pub(crate) decoders: usize,
    /// Rows are committed when this much is uncommitted …
    pub(crate) commit: Size,
    /// … or when the oldest uncommitted row is this old.
    pub(crate) commit_age: Span,
    /// State is checkpointed this often.
    pub(crate) checkpoint_every: Span,
}

/// The detectors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Detect {
    /// How user behaviour is scored.
    pub(crate) baseline: BaselineMode,
    /// Events of a user that are only learned from.
    pub(crate) learning_events: u32,
    /// From this score on an event is an anomaly.
    pub(crate) threshold: f32,
    /// From this threat score on a record makes an alert.
    pub(crate) threat_threshold: f32,
    /// Lists of addresses: reputation, block and allow lists. Read again when they change.
    pub(crate) lists: Vec<List>,
    /// Files and directories of Sigma rules, filters and correlations. Read again when they change.
    pub(crate) rules: Vec<PathBuf>,
    /// Lists of indicators that records are held against. Read again when they change.
    pub(crate) indicators: Vec<IndicatorFile>,
}

/// A list of indicators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct IndicatorFile {
    /// Its name, in alerts: 1 to 64 letters, digits, `-`, `_` and `.`.
    pub(crate) name: String,
    /// The file, see docs/indicators.md.
    pub(crate) file: PathBuf,
    /// The level of indicators that bring none.
    #[serde(default)]
    pub(crate) level: IndicatorLevel,
}

/// How bad it is when an indicator is seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum IndicatorLevel {
    /// Enriches events.
    Informational,
    /// Notable, rarely an incident.
    Low,
    /// To be reviewed regularly.
    #[default]
    Medium,
    /// To be reviewed promptly.
    High,
    /// An incident.
    Critical,
}

/// How user behaviour is scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BaselineMode {
    /// StreamGuard's weights over raw relative frequencies.
    Streamguard,
    /// A tail probability under the user's own history, robust to busy users.
    Calibrated,
}

/// A list of addresses and networks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct List {
    /// Its name, in reasons and refusals.
    pub(crate) name: String,
    /// The file.
    pub(crate) path: PathBuf,
    /// What it is for.
    pub(crate) kind: ListKind,
    /// The level of entries that bring none, 1 to 255.
    #[serde(default = "default_level")]
    pub(crate) level: u8,
}

fn default_level() -> u8 {
    100
}

/// What a list is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ListKind {
    /// Levels that are stamped into records.
    Reputation,
    /// Senders that are refused; an event that merely names such an address is kept.
    Block,
    /// Senders that are never refused.
    Allow,
}

/// The tables.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Table {
    /// Rows of `events` are kept this long; absent is for ever.
    pub(crate) events_retention: Option<Span>,
    /// Rows of `alerts`, and what people decided and wrote about them.
    pub(crate) alerts_retention: Option<Span>,
    /// Rows of `dead_letters`.
    pub(crate) dead_letters_retention: Option<Span>,
    /// Notifications that were delivered or given up; absent is for ever.
    pub(crate) deliveries_retention: Option<Span>,
    /// Records of who did what; absent is for ever.
    pub(crate) audits_retention: Option<Span>,
}

/// Queries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Query {
    /// A query may take this long.
    pub(crate) time: Span,
    /// Memory of all queries together.
    pub(crate) memory: Size,
    /// Rows of one answer.
    pub(crate) rows: usize,
    /// Queries at a time.
    pub(crate) concurrent: usize,
}

/// Disk space that is kept free: below the larger of the two, ingestion stops and says so.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Disk {
    /// Bytes.
    pub(crate) keep_free: Size,
    /// Percent of the file system.
    pub(crate) keep_free_percent: u8,
}

/// The process's own log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Logging {
    /// A `tracing` filter: `info`, `palisade_ingest=debug,info`, …
    pub(crate) level: String,
    /// JSON lines instead of text.
    pub(crate) json: bool,
}

const fn span(seconds: u64) -> Span {
    Span(Duration::from_secs(seconds))
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: PathBuf::from("data"),
            http: Http::default(),
            listeners: Vec::new(),
            limits: Limits::default(),
            log: Log::default(),
            pipeline: Pipeline::default(),
            detect: Detect::default(),
            alerts: AlertSettings::default(),
            table: Table::default(),
            query: Query::default(),
            disk: Disk::default(),
            logging: Logging::default(),
        }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7300)),
            tls: None,
            allow_plaintext: false,
            max_connections: 4096,
            names: Vec::new(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: Size(16 << 20),
            decompressed: Size(64 << 20),
            record: Size(1 << 20),
            depth: 64,
            keys: 10_000,
            dynamic_columns: 1000,
            tenant_columns: 4000,
            sources: 128,
            waiting_requests: 4096,
            waiting: Size(96 << 20),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { segment: Size(64 << 20), partitions: 16 }
    }
}

impl Default for Pipeline {
    fn default() -> Self {
        Self {
            workers: 0,
            decoders: 0,
            commit: Size(128 << 20),
            commit_age: span(5),
            checkpoint_every: span(30),
        }
    }
}

impl Default for Detect {
    fn default() -> Self {
        Self {
            baseline: BaselineMode::Calibrated,
            learning_events: 100,
            threshold: 0.7,
            threat_threshold: 0.7,
            lists: Vec::new(),
            rules: Vec::new(),
            indicators: Vec::new(),
        }
    }
}

impl Default for Table {
    fn default() -> Self {
        Self {
            events_retention: None,
            alerts_retention: None,
            dead_letters_retention: Some(span(30 * 86_400)),
            deliveries_retention: Some(span(30 * 86_400)),
            audits_retention: Some(span(400 * 86_400)),
        }
    }
}

impl Default for Query {
    fn default() -> Self {
        Self { time: span(60), memory: Size(256 << 20), rows: 1_000_000, concurrent: 8 }
    }
}

impl Default for Disk {
    fn default() -> Self {
        Self { keep_free: Size(2 << 30), keep_free_percent: 2 }
    }
}

impl Default for Logging {
    fn default() -> Self {
        Self { level: "info".into(), json: false }
    }
}

/// The JSON Schema of the configuration file.
pub(crate) fn schema() -> serde_json::Value {
    schemars::schema_for!(Config).to_value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_defaults_are_the_defaults() {
        let documented: Config = serde_saphyr::from_str(DEFAULTS).unwrap();
        assert_eq!(documented, Config::default());
        let text = serde_json::to_value(Config::default()).unwrap();
        for section in text.as_object().unwrap().keys() {
            assert!(DEFAULTS.contains(&format!("\n{section}:")), "{section} is not documented");
        }
    }

    #[test]
    fn every_key_of_the_schema_is_described() {
        let schema = schema();
        let mut objects: Vec<_> =
            schema["$defs"].as_object().unwrap().iter().map(|(k, v)| (k.as_str(), v)).collect();
        objects.push(("Config", &schema));
        for (name, object) in objects {
            for (key, property) in object["properties"].as_object().into_iter().flatten() {
                assert!(property.get("description").is_some(), "{name}.{key} says nothing");
            }
        }
    }
}
