//! What is said of hunts that are asked for: requests, figures, bounds, errors.

use super::HuntLimits;
use palisade_catalog::{CatalogError, HuntRecord};
use palisade_event::ErrorClass;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

/// Bounds of all hunts.
#[derive(Debug, Clone)]
pub struct JobOptions {
    /// Threads of a hunt.
    pub threads: usize,
    /// Hunts of a tenant that wait or run.
    pub waiting: u32,
    /// Hunts of a tenant that are over and kept with what they found; older ones go.
    pub kept: usize,
    /// How long they are kept, microseconds.
    pub kept_for: i64,
    /// How long a hunt may take.
    pub longest: Duration,
    /// Bytes of the rules that a hunt brings.
    pub rule_bytes: usize,
    /// What a hunt may find.
    pub limits: HuntLimits,
}

impl Default for JobOptions {
    fn default() -> Self {
        Self {
            threads: 1,
            waiting: 4,
            kept: 20,
            kept_for: 7 * 86_400_000_000,
            longest: Duration::from_secs(6 * 3_600),
            rule_bytes: 24 << 20,
            limits: HuntLimits { alert_bytes: 128 << 20, ..HuntLimits::default() },
        }
    }
}

/// With which rules is hunted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HuntRules {
    /// Those in force when the hunt begins, with what the tenant has disabled and graded.
    InForce,
    /// Those of them with these ids, and what their correlations refer to.
    Ids(BTreeSet<String>),
    /// Those that the hunt brought, as they are.
    Own,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HuntRequest {
    /// With which rules.
    pub rules: HuntRules,
    /// From which event time on, microseconds since the epoch; from the first row without it.
    pub from: Option<i64>,
    /// Up to which.
    pub to: i64,
    /// Whether correlations also count late records (T4).
    pub include_late: bool,
}

/// How far a hunt is, or was at its end.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HuntFigures {
    /// Rows to decide about.
    pub rows: u64,
    /// Rows decided about.
    pub rows_done: u64,
    /// Bytes of the segments with those rows.
    pub bytes: u64,
    /// Bytes that are done.
    pub bytes_done: u64,
    /// Seconds since the beginning.
    pub seconds: f64,
    /// Matches of rules that are alerts by themselves.
    pub matches: u64,
    /// Alerts that were found, those of correlations among them. Known at the end.
    pub alerts: u64,
    /// Alerts that are kept as results.
    pub results: u64,
    /// Whether there are more than are kept.
    pub cut: bool,
    /// How many alerts each rule and correlation has, by id. Known at the end.
    pub by_rule: BTreeMap<String, u64>,
    /// Documents among the rules that could not be taken.
    pub refused_rules: u64,
}

/// A hunt as it is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct HuntJob {
    /// As the catalog has it.
    pub record: HuntRecord,
    /// What was asked for.
    pub request: HuntRequest,
    /// How far it is.
    pub figures: HuntFigures,
}

/// A page of results: JSON objects, and the cursor of the next page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultPage {
    /// Alerts by time and id.
    pub alerts: Vec<String>,
    /// The number of the next one.
    pub next: Option<u64>,
}

/// Why something about a hunt could not be done.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The catalog refused.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The request can't be followed.
    #[error("{0}")]
    Invalid(String),
    /// The hunt has no results, or not yet.
    #[error("the hunt is {0}: it has no results")]
    NoResults(&'static str),
    /// The disk refused.
    #[error("{what}: {source}; check the disk, or hunt again")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// The server stops.
    #[error("the server stops; ask again when it runs")]
    Stopped,
}

impl JobError {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Catalog(error) => error.class(),
            Self::Invalid(_) | Self::NoResults(_) => ErrorClass::Permanent,
            Self::Io { .. } | Self::Stopped => ErrorClass::Transient,
        }
    }
}
