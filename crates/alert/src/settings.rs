//! The section `alerts` of the configuration. [`crate::plan::Plan::check`] judges it without opening anything.
//!
//! ```yaml
//! alerts:
//!   receivers:
//!     - { name: soc, kind: webhook, url: "https://soc.example.com/hook", secret_env: SOC_SECRET }
//!     - { name: chat, kind: slack, secret_file: /run/secrets/slack-url }
//!     - { name: night, kind: pagerduty, secret_env: PAGERDUTY_KEY }
//!     - { name: siem, kind: syslog, address: "siem.example.com:6514", transport: tls }
//!   routes:
//!     - { match: ["severity>=medium"], receivers: [soc, chat] }
//!     - { match: ["severity=critical", "tag!=attack.discovery"], receivers: [night], window_seconds: 600 }
//!   inhibit:
//!     - { source: ["severity>=critical"], target: ["severity<=medium"] }
//!   egress: { allow: ["10.20.0.0/16"] }
//! ```

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Who is told of alerts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(deny_unknown_fields, default)]
pub struct AlertSettings {
    /// Where notifications go.
    pub receivers: Vec<ReceiverSettings>,
    /// Which alerts go to which receivers. An alert goes once to a receiver, by the first route that leads there.
    pub routes: Vec<RouteSettings>,
    /// Which alerts mute others.
    pub inhibit: Vec<InhibitSettings>,
    /// Where may be sent to.
    pub egress: EgressSettings,
    /// The address under which people reach this server, for links in notifications, for example
    /// `https://palisade.example.com`.
    pub public_url: Option<String>,
}

/// What a receiver speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReceiverKind {
    /// JSON by HTTP, signed as Standard Webhooks says.
    Webhook,
    /// Slack's incoming webhooks.
    Slack,
    /// PagerDuty's Events API v2.
    Pagerduty,
    /// Prometheus Alertmanager's API v2.
    Alertmanager,
    /// Syslog (RFC 5424) with CEF in it.
    Syslog,
}

/// How syslog travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// RFC 5425.
    #[default]
    Tls,
    /// RFC 6587, counted octets. Needs `egress.allow_plaintext`.
    Tcp,
    /// RFC 5426. Needs `egress.allow_plaintext`; what is lost on the way is lost.
    Udp,
}

/// One receiver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReceiverSettings {
    /// Its name, 1 to 64 of `a-z`, `0-9`, `-`, `_`. What was sent is remembered under it.
    pub name: String,
    /// What it speaks.
    pub kind: ReceiverKind,
    /// The address of a webhook or of an Alertmanager (its base, without `/api/v2`). PagerDuty has one of its own;
    /// Slack's is a secret.
    #[serde(default)]
    pub url: Option<String>,
    /// Host and port of a syslog server.
    #[serde(default)]
    pub address: Option<String>,
    /// How syslog travels.
    #[serde(default)]
    pub transport: Transport,
    /// The environment variable that holds the secret: a webhook's signing secrets (`whsec_…`, several separated by
    /// white space, the newest first), Slack's whole URL, PagerDuty's routing key, Alertmanager's bearer token.
    #[serde(default)]
    pub secret_env: Option<String>,
    /// The file that holds the secret.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
    /// PEM file of further authorities whose certificates are trusted.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// How long one attempt may take, 1 to 120 seconds.
    #[serde(default = "default_timeout")]
    pub timeout_seconds: u64,
    /// How many notifications are on their way at once, 1 to 64.
    #[serde(default = "default_concurrency")]
    pub concurrency: usize,
    /// For an Alertmanager: after how long without a retraction an alert ends by itself.
    #[serde(default = "default_lifetime")]
    pub lifetime_seconds: u64,
    /// For syslog: the name of this machine; `-` when it is not given.
    #[serde(default)]
    pub hostname: Option<String>,
}

fn default_timeout() -> u64 {
    10
}

fn default_concurrency() -> usize {
    4
}

fn default_lifetime() -> u64 {
    4 * 3600
}

/// One route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteSettings {
    /// What an alert must fulfil, all of them; without any, every alert.
    #[serde(default, rename = "match")]
    pub matchers: Vec<String>,
    /// The names of the receivers.
    pub receivers: Vec<String>,
    /// Of these tenants only; of all when none is named.
    #[serde(default)]
    pub tenants: Vec<String>,
    /// Fields that make alerts the same for deduplication.
    #[serde(default = "default_group_by")]
    pub group_by: Vec<String>,
    /// For how long further alerts of the same group are counted instead of sent; 0 sends all.
    #[serde(default = "default_window")]
    pub window_seconds: u64,
    /// Also alerts about old news: those of a backfill before its rule came into force (B1) and of historical loads (T2).
    #[serde(default)]
    pub historical: bool,
    /// Tell also when an alert was taken back.
    #[serde(default = "default_true")]
    pub retractions: bool,
}

fn default_group_by() -> Vec<String> {
    vec!["rule_id".to_owned(), "group_key".to_owned()]
}

fn default_window() -> u64 {
    3600
}

fn default_true() -> bool {
    true
}

impl RouteSettings {
    /// A route with defaults.
    #[must_use]
    pub fn new(matchers: &[&str], receivers: &[&str]) -> Self {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Self {
            matchers: owned(matchers),
            receivers: owned(receivers),
            tenants: Vec::new(),
            group_by: default_group_by(),
            window_seconds: default_window(),
            historical: false,
            retractions: true,
        }
    }
}

impl ReceiverSettings {
    /// A receiver with defaults.
    #[must_use]
    pub fn new(name: &str, kind: ReceiverKind) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            url: None,
            address: None,
            transport: Transport::default(),
            secret_env: None,
            secret_file: None,
            ca_file: None,
            timeout_seconds: default_timeout(),
            concurrency: default_concurrency(),
            lifetime_seconds: default_lifetime(),
            hostname: None,
        }
    }
}

/// An alert of `source` mutes those of `target` that are less severe and about the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InhibitSettings {
    /// What the muting alert fulfils.
    pub source: Vec<String>,
    /// What the muted alert fulfils.
    pub target: Vec<String>,
    /// The fields that must be the same; `entity`: they share a user, host or source address.
    #[serde(default = "default_equal")]
    pub equal: Vec<String>,
    /// For how long after the muting alert.
    #[serde(default = "default_window")]
    pub seconds: u64,
}

fn default_equal() -> Vec<String> {
    vec!["entity".to_owned()]
}

/// Where may be sent to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(deny_unknown_fields, default)]
pub struct EgressSettings {
    /// Networks that are allowed although they are private, link-local or this machine.
    pub allow: Vec<String>,
    /// Allow HTTP and syslog without TLS: whoever is on the way can read and change what is sent.
    pub allow_plaintext: bool,
}
