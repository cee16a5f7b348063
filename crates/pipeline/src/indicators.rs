//! Lists of indicators in the pipeline: which are in force, and the alerts that they make.
//!
//! A list is kept in the catalog under its content hash; so is the set that names the lists in force, and a control
//! record names the set (C1). Matching needs no state: one worker does it for a whole frame, beside the rules. A
//! record makes one alert for each list and kind of indicator that it names, with everything of that kind in it.

mod watchlists;

pub use watchlists::{Configured, ListStatus, WatchError, Watchlists, check_name};

use crate::alerts::{RowAlert, RuleAlert};
use crate::control::{ControlError, content_hash};
use crate::rules::Books;
use arrow::array::RecordBatch;
use palisade_detect::indicators::{
    Found, Indicator, Indicators, Kind, Level, List, ListSpec, Scanner,
};
use palisade_event::Offset;
use palisade_event::column::Text;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The kind under which the catalog keeps the bytes of lists.
pub const INDICATOR_LIST: &str = "indicator_list";
/// The kind under which it keeps sets of lists.
pub const INDICATOR_SET: &str = "indicator_set";
/// Sets that are kept ready: the one in force, and the one before it or after it.
const MOST_KEPT: usize = 2;
/// Characters of a record's value that an alert tells.
const VALUE_CHARS: usize = 512;
/// Findings of one alert that are told.
const MOST_TOLD: usize = 20;

/// A list of a set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedList {
    /// Whose; `None`: of the configuration, for all tenants.
    pub tenant: Option<String>,
    /// Its name.
    pub name: String,
    /// The level of indicators that bring none.
    pub level: String,
    /// The hash under which the catalog keeps its bytes.
    pub hash: String,
}

/// The lists of a set as it is kept: its canonical form is this as JSON, lists sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndicatorSet {
    /// By tenant and name.
    pub lists: Vec<NamedList>,
}

impl IndicatorSet {
    /// Its hash and its bytes.
    ///
    /// # Errors
    /// When it can't be written as JSON (it always can).
    pub fn content(&self) -> Result<(String, Vec<u8>), ControlError> {
        let text = serde_json::to_string(self)
            .map_err(|error| ControlError::Damaged(error.to_string()))?;
        Ok((content_hash(&text), text.into_bytes()))
    }

    /// The lists, read.
    fn compile(
        &self,
        read: impl Fn(&str) -> Result<Vec<u8>, String>,
    ) -> Result<Indicators, String> {
        let mut lists = Vec::with_capacity(self.lists.len());
        for named in &self.lists {
            let list = List::parse(&read(&named.hash)?);
            let list = list.map_err(|error| format!("the list '{}': {error}", named.name))?;
            lists.push((named.spec(), list));
        }
        Indicators::build(lists).map_err(|error| error.to_string())
    }
}

impl NamedList {
    fn spec(&self) -> ListSpec {
        ListSpec {
            tenant: self.tenant.clone(),
            name: self.name.clone(),
            level: Level::by_name(&self.level).unwrap_or_default(),
            version: self.hash.clone(),
        }
    }
}

impl Books {
    /// Keeps a set that was made ready elsewhere, so that putting it in force makes nobody wait.
    pub(crate) fn keep_watched(&self, hash: &str, set: Arc<Indicators>) {
        let mut kept = self.watched.lock();
        kept.retain(|(known, _)| known != hash);
        kept.push((hash.to_owned(), set));
        let over = kept.len().saturating_sub(MOST_KEPT);
        kept.drain(..over);
    }

    /// The set of lists of a hash; `None` for the empty one.
    ///
    /// # Errors
    /// Why it can't be had.
    pub fn watched(&self, hash: &str) -> Result<Option<Arc<Indicators>>, String> {
        if hash.is_empty() {
            return Ok(None);
        }
        // Held while a set is read: workers that ask for the same one wait for it and don't do it again.
        let mut kept = self.watched.lock();
        if let Some((_, set)) = kept.iter().find(|(known, _)| known == hash) {
            return Ok(Some(Arc::clone(set)));
        }
        let bytes = (self.read)(hash)?;
        let set: IndicatorSet =
            serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        let set = Arc::new(set.compile(|hash| (self.read)(hash))?);
        kept.push((hash.to_owned(), Arc::clone(&set)));
        let over = kept.len().saturating_sub(MOST_KEPT);
        kept.drain(..over);
        Ok(Some(set))
    }

    /// The set of a hash that the record at `offset` puts in force.
    pub(crate) fn watched_from(
        &self,
        offset: Offset,
        hash: &str,
    ) -> Result<Option<Arc<Indicators>>, ControlError> {
        self.watched(hash).map_err(|reason| ControlError::Rules { offset: offset.0, reason })
    }
}

/// What the lists found in a frame.
#[derive(Debug)]
pub(crate) struct FrameIndicators {
    /// Of which set: a worker may have gone on to another.
    set: Arc<Indicators>,
    found: Vec<Found>,
}

/// Looks for indicators in the rows of a frame.
pub(crate) fn matches(
    set: &Arc<Indicators>,
    batch: &RecordBatch,
    scanner: &mut Scanner,
) -> Option<FrameIndicators> {
    let found = scanner.scan(set, batch);
    (!found.is_empty()).then(|| FrameIndicators { set: Arc::clone(set), found: found.to_vec() })
}

impl FrameIndicators {
    /// The alerts: one for each row, list and kind.
    pub(crate) fn alerts(&self, batch: &RecordBatch) -> Vec<RowAlert> {
        let mut groups: BTreeMap<(u32, u16, Kind), Vec<(Found, Indicator<'_>)>> = BTreeMap::new();
        for found in &self.found {
            let Some(indicator) = self.set.get(found.indicator) else { continue };
            let key = (found.row, indicator.list_number, indicator.kind);
            groups.entry(key).or_default().push((*found, indicator));
        }
        let alerts = groups.into_iter().filter_map(|((row, _, kind), found)| {
            let (_, first) = found.first()?;
            let spec = &first.list.spec;
            let level = found.iter().map(|(_, indicator)| indicator.level).max()?;
            let score = palisade_sigma::Level::by_name(level.name())?.score();
            let mut fields: Vec<String> = Vec::new();
            let mut reasons = Vec::new();
            for (found, indicator) in found.iter().take(MOST_TOLD) {
                let (column, value) = value_of(batch, found);
                reasons.push(reason(&column, &value, indicator));
                fields.push(format!("{column}={value}"));
            }
            // Two indicators may be in one value.
            fields.dedup();
            Some(RowAlert {
                row: row as usize,
                detector: "indicator",
                rule_id: rule_id(spec, kind).into(),
                rule_version: spec.version.clone().into(),
                title: format!("{} on the list '{}'", kind.name(), spec.name),
                severity: level.name(),
                score,
                reasons,
                details: Vec::new(),
                rule: Some(RuleAlert { rule: None, fields }),
            })
        });
        alerts.collect()
    }
}

/// The rule id of alerts: `list/kind`, and `own/list/kind` of a tenant's own list, which may be called as one of the
/// configuration is.
fn rule_id(spec: &ListSpec, kind: Kind) -> String {
    let own = if spec.tenant.is_some() { "own/" } else { "" };
    format!("{own}{}/{}", spec.name, kind.name())
}

/// The name of a finding's column and the row's value in it, at most 512 characters.
#[must_use]
pub fn value_of(batch: &RecordBatch, found: &Found) -> (String, String) {
    let column = found.column as usize;
    let name = batch.schema_ref().fields().get(column).map(|field| field.name().clone());
    let text = batch.columns().get(column).and_then(Text::of);
    let value = text.and_then(|text| text.get(found.row as usize)).unwrap_or_default();
    (name.unwrap_or_default(), value.chars().take(VALUE_CHARS).collect())
}

fn reason(column: &str, value: &str, indicator: &Indicator<'_>) -> String {
    let mut reason = format!(
        "{column} is {value}, and the list '{}' has the {} {}",
        indicator.list.spec.name,
        indicator.kind.name(),
        indicator.value()
    );
    for (before, text) in [(" from ", indicator.source), (": ", indicator.note)] {
        if !text.is_empty() {
            reason.push_str(before);
            reason.push_str(text);
        }
    }
    reason
}
