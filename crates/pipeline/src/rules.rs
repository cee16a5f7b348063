//! Sigma rules and correlations in the pipeline.
//!
//! A set of rules is kept in the catalog under its content hash; what is in force is a control record that names the
//! hash (C1), so workers and finisher switch at the same offset, live and in a replay. Matching is stateless: one worker
//! does it for a whole frame. Correlations need an order over all rows: the finisher counts the matches of each
//! frame in the order of rows and rules ([`counting`]). Embedded, that is the internal log of H1 to H3: the
//! finisher sees the matches in the order of the positions that they derive from, and a replay derives them again.

pub(crate) mod counting;

use crate::control::{ControlError, content_hash};
use arrow::array::RecordBatch;
use palisade_detect::indicators::Indicators;
use palisade_event::Offset;
use palisade_sigma::{Book, Counted, Hits, Level};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// The kind under which the catalog keeps sets of rules.
pub const RULE_SET: &str = "rule_set";
/// Sets that are kept compiled: the one in force, the one before it, and one that is tried.
const MOST_KEPT: usize = 3;

/// A file of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleFile {
    /// Its name, for messages.
    pub name: String,
    /// YAML: rules, filters, correlations.
    pub text: String,
}

/// What a tenant has changed of a set, without touching its texts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantRules {
    /// Ids of rules and correlations that make no alerts for it.
    #[serde(default)]
    pub disabled: BTreeSet<String>,
    /// Severities that differ, by the id of a rule or correlation.
    #[serde(default)]
    pub severity: BTreeMap<String, Level>,
}

/// A set of rules as it is kept: its canonical form is this as JSON, files by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleTexts {
    /// The files, sorted by name: of two rules with the same id the first stays.
    pub files: Vec<RuleFile>,
    /// By tenant.
    #[serde(default)]
    pub tenants: BTreeMap<String, TenantRules>,
}

impl RuleTexts {
    /// Whether there is no rule.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Its hash and its bytes.
    ///
    /// # Errors
    /// When it can't be written as JSON (it always can).
    pub fn content(&self) -> Result<(String, Vec<u8>), ControlError> {
        let text = serde_json::to_string(self)
            .map_err(|error| ControlError::Damaged(error.to_string()))?;
        Ok((content_hash(&text), text.into_bytes()))
    }
}

/// A set, compiled.
#[derive(Debug)]
pub struct Rules {
    /// Rules and correlations.
    pub book: Book,
    /// By tenant.
    pub tenants: BTreeMap<String, TenantRules>,
}

impl Rules {
    /// Compiles a set. What can't be taken of it is named in [`Book::refused`].
    #[must_use]
    pub fn compile(texts: RuleTexts) -> Self {
        let files = texts.files.iter().map(|file| (file.name.as_str(), file.text.as_str()));
        Self { book: Book::read(files), tenants: texts.tenants }
    }

    /// Whether a rule makes alerts for a tenant, and with what severity.
    pub(crate) fn severity(&self, tenant: &str, rule: &str, level: Level) -> Option<Level> {
        let Some(own) = self.tenants.get(tenant) else { return Some(level) };
        if own.disabled.contains(rule) {
            return None;
        }
        Some(own.severity.get(rule).copied().unwrap_or(level))
    }
}

type ReadSet = dyn Fn(&str) -> Result<Vec<u8>, String> + Send + Sync;

/// The sets that are compiled, by hash: of rules, and of indicators ([`crate::indicators`]).
pub struct Books {
    pub(crate) read: Box<ReadSet>,
    kept: Mutex<Vec<(String, Arc<Rules>)>>,
    pub(crate) watched: Mutex<Vec<(String, Arc<Indicators>)>>,
}

impl fmt::Debug for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Books").finish_non_exhaustive()
    }
}

impl Books {
    /// Sets are read with this function, by their hash.
    pub fn new(read: impl Fn(&str) -> Result<Vec<u8>, String> + Send + Sync + 'static) -> Self {
        Self { read: Box::new(read), kept: Mutex::default(), watched: Mutex::default() }
    }

    /// Keeps a set that was compiled elsewhere, so that putting it in force makes nobody wait.
    pub fn keep(&self, hash: &str, rules: Arc<Rules>) {
        let mut kept = self.kept.lock();
        kept.retain(|(known, _)| known != hash);
        kept.push((hash.to_owned(), rules));
        let over = kept.len().saturating_sub(MOST_KEPT);
        kept.drain(..over);
    }

    /// The set of a hash; `None` for the empty one.
    ///
    /// # Errors
    /// Why it can't be had.
    pub fn get(&self, hash: &str) -> Result<Option<Arc<Rules>>, String> {
        if hash.is_empty() {
            return Ok(None);
        }
        // Held while a set is compiled: workers that ask for the same one wait for it and don't do it again.
        let mut kept = self.kept.lock();
        if let Some((_, rules)) = kept.iter().find(|(known, _)| known == hash) {
            return Ok(Some(Arc::clone(rules)));
        }
        let bytes = (self.read)(hash)?;
        let texts = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        let rules = Arc::new(Rules::compile(texts));
        kept.push((hash.to_owned(), Arc::clone(&rules)));
        let over = kept.len().saturating_sub(MOST_KEPT);
        kept.drain(..over);
        Ok(Some(rules))
    }

    /// The set of a hash that the record at `offset` puts in force.
    pub(crate) fn in_force(
        &self,
        offset: Offset,
        hash: &str,
    ) -> Result<Option<Arc<Rules>>, ControlError> {
        self.get(hash).map_err(|reason| ControlError::Rules { offset: offset.0, reason })
    }
}

/// What the rules found in a frame.
#[derive(Debug)]
pub(crate) struct FrameRules {
    /// By which rules: the finisher may have gone on to others.
    pub(crate) rules: Arc<Rules>,
    /// Row, ordinal of the rule, and the fields that matched, of matches that are alerts.
    pub(crate) alerts: Vec<(usize, u32, Vec<String>)>,
    /// What correlations count.
    pub(crate) counted: Vec<Counted>,
}

/// Matches the rows of a frame.
pub(crate) fn matches(rules: &Arc<Rules>, batch: &RecordBatch, hits: &mut Hits) -> FrameRules {
    let book = &rules.book;
    book.matcher().matches(batch, hits);
    let alerts: Vec<(usize, u32)> =
        hits.iter().filter(|(_, rule)| book.makes_alerts(*rule)).collect();
    let fields = book.matched_fields(batch, &alerts);
    let alerts = alerts.into_iter().zip(fields).map(|((row, rule), fields)| (row, rule, fields));
    FrameRules {
        rules: Arc::clone(rules),
        alerts: alerts.collect(),
        counted: book.counted(batch, hits),
    }
}
