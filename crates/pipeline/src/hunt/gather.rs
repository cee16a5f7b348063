//! What a hunt finds, from all its threads: alerts, the first ones by time and bounded, and hits, which go to the
//! correlations in the order of time as soon as nothing earlier can come.

use crate::alerts::AlertRow;
use crate::rules::Rules;
use crate::rules::counting::{self, is_alert};
use palisade_event::slot::SLOTS;
use palisade_event::time::rfc3339;
use palisade_event::{ErrorClass, Offset, RecordId};
use palisade_sigma::correlation::{
    Evidence, Hit, HitKind, Hunting, Options, Range, Revision, Standing, Value, group_slot,
};
use palisade_table::provider::ReadError;
use serde_json::json;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// So many hits are sorted at once, unless it is the end.
const SORTED: usize = 1 << 16;

/// Bounds of a hunt.
#[derive(Debug, Clone, Copy)]
pub struct HuntLimits {
    /// Alerts that are kept: the first by time and id. All are counted.
    pub alerts: usize,
    /// Bytes of their texts.
    pub alert_bytes: usize,
    /// Hits of correlations that wait for earlier ones.
    pub waiting_hits: usize,
    /// Hits of correlations in all: any may become evidence.
    pub hits: u64,
}

impl Default for HuntLimits {
    fn default() -> Self {
        Self { alerts: 100_000, alert_bytes: 256 << 20, waiting_hits: 2_000_000, hits: 10_000_000 }
    }
}

/// Why a hunt ended without an answer.
#[derive(Debug, thiserror::Error)]
pub enum HuntError {
    /// Somebody wanted that, or it took longer than it may.
    #[error("the hunt was cancelled")]
    Cancelled,
    /// A segment can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Correlations count more than fits.
    #[error(
        "the correlations count more than {0} matches: narrow the range of time, or leave out the correlation over the commonest rule"
    )]
    TooMany(u64),
    /// A thread ended early.
    #[error(
        "a thread of the hunt panicked; this is a defect of Palisade, please report it with the log"
    )]
    Panicked,
}

impl HuntError {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Read(error) => error.class(),
            Self::Cancelled => ErrorClass::Transient,
            Self::TooMany(_) | Self::Panicked => ErrorClass::Permanent,
        }
    }
}

/// An alert that a hunt found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FoundAlert {
    /// When, microseconds since the epoch.
    pub time: i64,
    /// Its id, as that of the live alert.
    pub id: String,
    /// All of it: a JSON object with the columns of the table `alerts`.
    pub text: String,
}

impl FoundAlert {
    pub(super) fn of(row: &AlertRow) -> Self {
        let AlertRow { time, id, .. } = row;
        let details: BTreeMap<&str, f32> = row.details.iter().copied().collect();
        let mut object = json!({
            "tenant": row.tenant, "time": rfc3339(*time), "ingest_time": rfc3339(row.ingest_time),
            "position": row.position, "domain": row.domain, "alert_id": id,
            "revision": row.revision, "detector": row.detector, "rule_id": row.rule_id,
            "rule_version": row.rule_version, "title": row.title, "severity": row.severity,
            "score": row.score, "user": row.user, "host": row.host, "src_ip": row.src_ip,
            "event_id": row.event_id, "first_time": rfc3339(row.first_time),
            "last_time": rfc3339(row.last_time), "evidence": row.evidence, "reasons": row.reasons,
            "tags": row.tags, "author": row.author, "licence": row.licence,
            "group_key": row.group_key, "fields": row.fields, "incomplete": row.incomplete,
        });
        if let Some(object) = object.as_object_mut() {
            object.extend(details.into_iter().map(|(name, value)| (name.to_owned(), value.into())));
        }
        Self { time: *time, id: id.clone(), text: object.to_string() }
    }
}

/// A match on its way to a correlation.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) time: i64,
    pub(super) record: RecordId,
    pub(super) correlation: u32,
    pub(super) input: u16,
    pub(super) clock: i64,
    pub(super) value: Value,
    pub(super) domain: Arc<str>,
    pub(super) group: Box<[u8]>,
}

/// What was found in a unit of work.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) alerts: Vec<FoundAlert>,
    pub(super) hits: Vec<Counted>,
    /// By the ordinals of rules.
    pub(super) counts: BTreeMap<u32, u64>,
}

/// What all threads found.
#[derive(Debug)]
pub(super) struct Gathered {
    limits: HuntLimits,
    tenant: String,
    /// The greatest on top.
    alerts: BinaryHeap<FoundAlert>,
    bytes: usize,
    /// Whether alerts were left out.
    pub(super) cut: bool,
    hits: Vec<Counted>,
    seen: u64,
    hunting: Option<Hunting>,
    pub(super) counts: BTreeMap<u32, u64>,
}

impl Gathered {
    pub(super) fn new(rules: &Rules, tenant: &str, range: Range, limits: HuntLimits) -> Self {
        let correlations = rules.book.correlations();
        let hunting = (!correlations.is_empty())
            .then(|| Hunting::new(correlations, range, (SLOTS, Options::default())));
        Self {
            limits,
            tenant: tenant.to_owned(),
            alerts: BinaryHeap::new(),
            bytes: 0,
            cut: false,
            hits: Vec::new(),
            seen: 0,
            hunting,
            counts: BTreeMap::new(),
        }
    }

    /// Takes in what was found in a unit; nothing before `until` comes later. Keeps in `latest` from which time on
    /// alerts need not be made any more.
    pub(super) fn take(
        &mut self,
        mut part: Part,
        until: i64,
        latest: &AtomicI64,
    ) -> Result<(), HuntError> {
        self.keep_all(&mut part, latest);
        for (rule, count) in part.counts {
            *self.counts.entry(rule).or_default() += count;
        }
        self.seen += part.hits.len() as u64;
        self.hits.extend(part.hits);
        if self.seen > self.limits.hits {
            return Err(HuntError::TooMany(self.limits.hits));
        }
        if self.hits.len() >= SORTED {
            self.count(until);
        }
        if self.hits.len() > self.limits.waiting_hits {
            return Err(HuntError::TooMany(self.limits.waiting_hits as u64));
        }
        Ok(())
    }

    /// Takes the alerts out of what was found in a unit so far.
    pub(super) fn keep_all(&mut self, part: &mut Part, latest: &AtomicI64) {
        part.alerts.drain(..).for_each(|alert| self.keep(alert));
        if self.cut {
            let last = self.alerts.peek().map_or(i64::MIN, |alert| alert.time);
            latest.store(last, Ordering::Relaxed);
        }
    }

    fn keep(&mut self, alert: FoundAlert) {
        self.bytes += alert.text.len();
        self.alerts.push(alert);
        while self.alerts.len() > self.limits.alerts || self.bytes > self.limits.alert_bytes {
            let Some(gone) = self.alerts.pop() else { break };
            self.bytes -= gone.text.len();
            self.cut = true;
        }
    }

    /// Gives the hits before a moment to the correlations.
    fn count(&mut self, until: i64) {
        let Some(hunting) = &mut self.hunting else { return };
        // The same order whichever thread found them.
        self.hits.sort_by(|a, b| {
            let key = |hit: &Counted| (hit.time, hit.record, hit.correlation, hit.input);
            key(a).cmp(&key(b))
        });
        let end = self.hits.partition_point(|hit| hit.time < until);
        for hit in self.hits.drain(..end) {
            hunting.hit(&Hit {
                correlation: hit.correlation as usize,
                input: hit.input,
                tenant: &self.tenant,
                domain: &hit.domain,
                slot: group_slot(&self.tenant, &hit.group, SLOTS),
                group: &hit.group,
                record: hit.record,
                time: hit.time,
                clock: hit.clock,
                value: hit.value,
                kind: HitKind::Record,
            });
        }
    }

    /// All is there: the alerts by time and id, and how many each correlation has, those that open before `from` left
    /// out.
    pub(super) fn finish(mut self, rules: &Rules, from: i64) -> (Vec<FoundAlert>, Vec<u64>, bool) {
        self.count(i64::MAX);
        let correlations = rules.book.correlations();
        let mut counts = vec![0; correlations.len()];
        let alerts = self.hunting.take().map(Hunting::finish).unwrap_or_default();
        for alert in alerts.into_iter().filter(|alert| alert.opened >= from) {
            let (place, opened) = (alert.correlation, alert.opened);
            let Some(correlation) = correlations.get(place) else { continue };
            if correlation.is_read && !is_alert(correlations, place) {
                continue;
            }
            let revision = Revision {
                id: alert.id,
                number: 1,
                standing: Standing::Stands,
                correlation: place,
                slot: group_slot(&self.tenant, &alert.group, SLOTS),
                tenant: alert.tenant,
                domain: alert.domain,
                group: alert.group,
                anchor: alert.anchor,
                opened,
                opened_before: None,
                from: Evidence { time: i64::MIN, record: RecordId([0; 16]), input: 0 },
                evidence: alert.evidence,
                cut: false,
            };
            let row = counting::row(rules, correlation, &revision, Offset(0), opened);
            let Some(row) = row else { continue };
            if let Some(count) = counts.get_mut(place) {
                *count += 1;
            }
            self.keep(FoundAlert::of(&row));
        }
        (self.alerts.into_sorted_vec(), counts, self.cut)
    }
}
