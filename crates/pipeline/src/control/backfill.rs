//! Backfills in the log (B1): which one is under way, and what each step of it found.
//!
//! The activation of a set of rules declares the backfill. A job reads the rows that were stored before it, by event
//! time, and appends what it finds: each step is one control record of the kind [`BACKFILL_STEP`], with the hits for
//! correlations, the alerts of rules about single records, and the cursor behind both. So a step is taken whole
//! or not at all, a crash goes on at the cursor, and a replay meets the same hits at the same places.
//!
//! The cursor is an event time, not a position as B1 has it: rows before the activation are told by their position, so the set
//! is exact across compactions, and reading them by time lets a correlation's frontier follow the cursor; by position it
//! would be −∞ until the end, and all of history in memory until then.

use super::{ControlError, InForce, RELEASE};
use palisade_event::{Entry, Offset};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The kind of the steps of a backfill.
pub const BACKFILL_STEP: &str = "backfill";
/// Live records may be older than the activation, by a correlation's lateness. The ids of stored records that are not further
/// behind it than this are kept, to tell them from each other …
const RECENT: i64 = 3600 * palisade_event::time::SECOND;
/// … and so many of them.
const MOST_RECENT: usize = 10_000;

/// What an activation declares to be read of history.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackfillWanted {
    /// Whose rules they are: a tenant's, or the installation's where it is empty.
    #[serde(default)]
    pub owner: String,
    /// The ids of the rules and correlations that history is read for.
    pub rules: BTreeSet<String>,
    /// Records with an event time from here on, microseconds since the epoch; without it, all.
    #[serde(default)]
    pub from: Option<i64>,
}

impl BackfillWanted {
    /// Whether history is read for a rule or correlation.
    #[must_use]
    pub fn has(&self, owner: Option<&str>, id: &str) -> bool {
        owner.unwrap_or_default() == self.owner && self.rules.contains(id)
    }
}

/// The backfill that was declared last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backfill {
    /// The generation of its activation.
    pub generation: u64,
    /// The offset of its activation: rows of entries before it are history.
    pub offset: u64,
    /// The clock of its activation, microseconds since the epoch.
    pub clock: i64,
    /// What is read, and for which rules.
    pub wanted: BackfillWanted,
    /// Everything with an event time before it was read; `None` before the first step.
    pub until: Option<i64>,
    /// All was read.
    pub done: bool,
    /// Rows that were read.
    pub rows: u64,
    /// Hits and alerts that were found.
    pub found: u64,
    /// Domains of loads that were met, with their tenants.
    pub domains: BTreeSet<(String, String)>,
    /// Records among them that are hardly older than the activation, by event time.
    pub recent: BTreeSet<(i64, String)>,
}

/// A match of a stored record on its way to a correlation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredHit {
    /// The version of the correlation.
    pub correlation: String,
    /// Which of its inputs.
    pub input: u16,
    /// Whose.
    pub tenant: String,
    /// The time domain.
    pub domain: String,
    /// The values of the group.
    pub group: Vec<String>,
    /// The record's id.
    pub record: String,
    /// Event time, microseconds since the epoch.
    pub time: i64,
    /// The record's clock.
    pub clock: i64,
    /// The measured value.
    pub value: StoredValue,
}

/// A measured value, without loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoredValue {
    /// None that counts.
    None,
    /// The hash of a value that is counted.
    Hash(u64),
    /// The bits of a number (IEEE 754 binary64).
    Number(u64),
}

/// A match of a stored record that is an alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "they are the columns of the table of alerts")]
pub struct StoredAlert {
    pub tenant: String,
    pub domain: Option<String>,
    pub rule_id: String,
    pub rule_version: String,
    pub title: String,
    pub severity: String,
    pub user: Option<String>,
    pub host: Option<String>,
    pub src_ip: Option<String>,
    pub time: i64,
    pub ingest_time: i64,
    pub id: String,
    pub event_id: Option<String>,
    pub evidence: Vec<String>,
    pub reasons: Vec<String>,
    pub tags: Vec<String>,
    pub author: Option<String>,
    pub licence: Option<String>,
    pub fields: Vec<String>,
}

/// A step of a backfill.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackfillStep {
    /// The release that wrote it.
    pub release: String,
    /// The generation of the activation that declared it.
    pub generation: u64,
    /// The cursor that it goes on from: a step that does not is a repeat.
    pub from: Option<i64>,
    /// The cursor behind it: everything with an event time before it was read.
    pub until: i64,
    /// All was read.
    pub done: bool,
    /// Rows that were read in this step.
    pub rows: u64,
    /// Hits, by event time.
    pub hits: Vec<StoredHit>,
    /// Alerts, by event time.
    pub alerts: Vec<StoredAlert>,
}

impl BackfillStep {
    /// A step that found nothing yet.
    #[must_use]
    pub fn new(generation: u64, from: Option<i64>, until: i64) -> Self {
        Self {
            release: RELEASE.to_owned(),
            generation,
            from,
            until,
            done: false,
            rows: 0,
            hits: Vec::new(),
            alerts: Vec::new(),
        }
    }

    /// The control record of the step.
    ///
    /// # Errors
    /// When the body can't be written as JSON (it always can).
    pub fn entry(&self, clock: i64) -> Result<Entry, serde_json::Error> {
        let body = serde_json::to_string(self)?;
        Ok(Entry::Control { clock, kind: BACKFILL_STEP.to_owned(), body })
    }

    /// The step of a control record.
    ///
    /// # Errors
    /// [`ControlError::NotUnderstood`].
    pub fn read(offset: Offset, body: &str) -> Result<Self, ControlError> {
        serde_json::from_str(body).map_err(|error| ControlError::NotUnderstood {
            offset: offset.0,
            reason: error.to_string(),
            release: "(unknown)".to_owned(),
        })
    }
}

impl Backfill {
    /// The one that the activation at `offset` declares.
    #[must_use]
    pub fn new(generation: u64, offset: Offset, clock: i64, wanted: BackfillWanted) -> Self {
        Self {
            generation,
            offset: offset.0,
            clock,
            wanted,
            until: None,
            done: false,
            rows: 0,
            found: 0,
            domains: BTreeSet::new(),
            recent: BTreeSet::new(),
        }
    }

    /// Whether an alert that opened at this time is old news; with the record of the opening hit, where that is known. Live
    /// records from the activation on are not older than `lateness` before it, or are not counted.
    #[must_use]
    pub fn is_old(&self, opened: i64, lateness: i64, record: Option<String>) -> bool {
        if opened < self.clock.saturating_sub(lateness.min(RECENT)) {
            return true;
        }
        match record {
            Some(record) => self.recent.contains(&(opened, record)),
            None => {
                let from = self.recent.range((opened, String::new())..);
                from.take(1).any(|(time, _)| *time == opened)
            }
        }
    }

    fn take(&mut self, step: &BackfillStep) {
        self.until = Some(step.until);
        self.done = step.done;
        self.rows += step.rows;
        self.found += (step.hits.len() + step.alerts.len()) as u64;
        let loads = step.hits.iter().filter(|hit| hit.domain != palisade_event::domain::LIVE);
        self.domains.extend(loads.map(|hit| (hit.tenant.clone(), hit.domain.clone())));
        let from = self.clock.saturating_sub(RECENT);
        for hit in step.hits.iter().filter(|hit| hit.time >= from) {
            if self.recent.len() < MOST_RECENT {
                self.recent.insert((hit.time, hit.record.clone()));
            }
        }
    }
}

impl InForce {
    /// Takes in a step of a backfill; false for one that came before, or of a backfill that is no more.
    pub(super) fn step(&mut self, step: &BackfillStep) -> bool {
        let Some(backfill) = &mut self.backfill else { return false };
        let is_next =
            backfill.generation == step.generation && !backfill.done && backfill.until == step.from;
        if is_next {
            backfill.take(step);
        }
        is_next
    }

    /// The backfill that is not done.
    #[must_use]
    pub fn backfilling(&self) -> Option<&Backfill> {
        self.backfill.as_ref().filter(|backfill| !backfill.done)
    }
}
