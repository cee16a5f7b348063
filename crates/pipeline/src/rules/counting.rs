//! The correlations in force, and the revisions of their alerts (K1 to K4).

use super::{FrameRules, Rules};
use crate::alerts::{AlertRow, RecordIds};
use crate::control::InForce;
use arrow::array::{Array, AsArray, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::TimestampMicrosecondType;
use palisade_event::column::Text;
use palisade_event::domain::LIVE;
use palisade_event::schema::{Core, alias};
use palisade_event::slot::SLOTS;
use palisade_event::{Offset, RecordId};
use palisade_sigma::Level;
use palisade_sigma::correlation::live::SnapshotError;
use palisade_sigma::correlation::{
    Cascade, Correlation, Correlations, Hit, HitKind, Options, Position, Range, Revision, Standing,
    group_slot, group_values,
};
use std::sync::Arc;

/// Groups that a checkpoint writes between two frames, at most (M2).
const SNAPSHOT_STEP: usize = 512;
/// Records that a revision names as evidence, at most; how many there are say its reasons.
const MOST_EVIDENCE: usize = 10_000;
/// Between tenant and domain in the names that the evaluator knows domains of loads by.
const SEPARATOR: char = '\u{1f}';

/// The state of all correlations.
#[derive(Debug)]
pub(crate) struct Counting {
    rules: Option<Arc<Rules>>,
    cascade: Cascade,
    out: Vec<Revision>,
    /// A checkpoint is being written.
    saving: bool,
}

/// The name of a tenant's domain: loads of two tenants may be called the same, and end apart.
pub(crate) fn domain_key(tenant: &str, domain: &str) -> String {
    if domain == LIVE { LIVE.to_owned() } else { format!("{tenant}{SEPARATOR}{domain}") }
}

/// Tenant, domain, event time and clock of the rows of a batch.
pub(crate) fn hit_rows<'b>(
    batch: &'b RecordBatch,
) -> impl Fn(usize) -> (&'b str, &'b str, i64, i64) {
    let text = |core: Core| Text::in_batch(batch, core.name());
    let micros = |core: Core| {
        let column = batch.column_by_name(core.name())?;
        column.as_primitive_opt::<TimestampMicrosecondType>()
    };
    let (tenants, domains) = (text(Core::Tenant), text(Core::Domain));
    let (times, clocks) = (micros(Core::Time), micros(Core::IngestTime));
    move |row| {
        let value = |array: Option<&TimestampMicrosecondArray>| {
            array.filter(|array| row < array.len()).map_or(0, |array| array.value(row))
        };
        let tenant = tenants.and_then(|tenants| tenants.get(row)).unwrap_or_default();
        let domain = domains.and_then(|domains| domains.get(row)).unwrap_or(LIVE);
        (tenant, domain, value(times), value(clocks))
    }
}

/// The domain of such a name.
fn domain_of(key: &str) -> &str {
    key.split_once(SEPARATOR).map_or(key, |(_, domain)| domain)
}

impl Counting {
    /// The state of a checkpoint's chain under the rules that were in force there.
    pub(crate) fn restore(
        rules: Option<Arc<Rules>>,
        chain: &[Vec<u8>],
    ) -> Result<Self, SnapshotError> {
        let correlations =
            rules.as_ref().map(|rules| rules.book.correlations().clone()).unwrap_or_default();
        let options = Options::default();
        let mut cascade = Cascade::new(correlations, SLOTS, options, Range::default());
        cascade.load(chain.iter().map(Vec::as_slice))?;
        Ok(Self { rules, cascade, out: Vec::new(), saving: false })
    }

    /// Puts other rules in force. Answers the last revisions of alerts that can't be decided any more.
    pub(crate) fn reload(&mut self, rules: Option<Arc<Rules>>, at: (Offset, i64)) -> Vec<AlertRow> {
        let correlations =
            rules.as_ref().map(|rules| rules.book.correlations().clone()).unwrap_or_default();
        self.cascade.reload(correlations, &mut self.out);
        // Its state is of correlations that may be gone when an older snapshot is loaded.
        self.cascade.live_mut().require_full_snapshot();
        let rows = self.take_rows(at);
        self.rules = rules;
        rows
    }

    /// Counts what the rules found in a frame.
    pub(crate) fn frame(
        &mut self,
        offset: Offset,
        clock: i64,
        batch: &RecordBatch,
        found: &FrameRules,
    ) -> Vec<AlertRow> {
        if found.counted.is_empty() {
            return Vec::new();
        }
        let records = RecordIds::of(batch);
        let about = hit_rows(batch);
        for counted in &found.counted {
            let row = counted.row;
            let (tenant, domain, time, clock) = about(row);
            let domain = domain_key(tenant, domain);
            let hit = Hit {
                correlation: counted.correlation,
                input: counted.input,
                tenant,
                domain: &domain,
                slot: group_slot(tenant, &counted.group, SLOTS),
                group: &counted.group,
                record: records.get(row),
                time,
                clock,
                value: counted.value,
                kind: HitKind::Record,
            };
            let position = Position { offset: offset.0, row: row as u32, ordinal: counted.ordinal };
            self.cascade.hit(position, &hit, &mut self.out);
        }
        self.take_rows((offset, clock))
    }

    /// A tick: no row that comes later has a clock before it (T3).
    pub(crate) fn tick(&mut self, at: (Offset, i64), in_force: &InForce) -> Vec<AlertRow> {
        self.cascade.progress(LIVE, at.1, None, &mut self.out);
        let loads = in_force.domains.iter().map(|open| domain_key(&open.tenant, &open.domain));
        let loads: Vec<String> = loads.collect();
        let domains = std::iter::once(LIVE).chain(loads.iter().map(String::as_str));
        self.cascade.tick(domains, &mut self.out);
        self.take_rows(at)
    }

    /// A domain has ended: everything in it is final.
    pub(crate) fn end(&mut self, tenant: &str, domain: &str, at: (Offset, i64)) -> Vec<AlertRow> {
        self.cascade.end(&domain_key(tenant, domain), &mut self.out);
        self.take_rows(at)
    }

    fn take_rows(&mut self, (offset, clock): (Offset, i64)) -> Vec<AlertRow> {
        let Some(rules) = &self.rules else {
            self.out.clear();
            return Vec::new();
        };
        let correlations = rules.book.correlations();
        let rows = self.out.drain(..).filter_map(|revision| {
            let correlation = correlations.get(revision.correlation)?;
            if correlation.is_read && !is_alert(correlations, revision.correlation) {
                return None;
            }
            row(rules, correlation, &revision, offset, clock)
        });
        rows.collect()
    }

    /// Whether time alone can decide something.
    pub(crate) fn waits(&self) -> bool {
        self.cascade.live().groups() > 0
    }

    /// Begins to write the state as it is now; false while an earlier one is being written, which is a defect.
    pub(crate) fn begin_snapshot(&mut self, full: bool) -> bool {
        if full {
            self.cascade.live_mut().require_full_snapshot();
        }
        self.saving = self.cascade.live_mut().begin_snapshot().is_ok();
        self.saving
    }

    /// Goes on writing; true when all is written.
    pub(crate) fn snapshot_step(&mut self, out: &mut Vec<u8>) -> bool {
        let done = self.cascade.live_mut().snapshot_step(SNAPSHOT_STEP, out);
        self.saving = !done;
        done
    }
}

/// Whether the alerts of a correlation that others read are alerts themselves: where one of these says so.
fn is_alert(correlations: &Correlations, place: usize) -> bool {
    let mut readers = correlations.readers_of_correlation(place);
    readers.any(|(reader, _)| correlations.get(reader).is_some_and(|reader| reader.generate))
}

/// The level that a correlation's text names.
fn level(correlation: &Correlation) -> Level {
    let named = correlation.about.level.as_deref().and_then(Level::by_name);
    named.unwrap_or(Level::Medium)
}

fn row(
    rules: &Rules,
    correlation: &Correlation,
    revision: &Revision,
    offset: Offset,
    clock: i64,
) -> Option<AlertRow> {
    let level = rules.severity(&revision.tenant, &correlation.id, level(correlation))?;
    let texts = group_values(&revision.group);
    let texts = texts.iter().map(|value| String::from_utf8_lossy(value).into_owned());
    let group: Vec<(&str, String)> =
        correlation.group_by.iter().map(String::as_str).zip(texts).collect();
    let of = |core: Core| {
        let is = |name: &str| Core::by_name(name).or_else(|| alias(name)) == Some(core);
        group.iter().find(|(name, _)| is(name)).map(|(_, value)| value.clone())
    };
    let named = |(name, value): &(&str, String)| format!("{name}={value}");
    let fields: Vec<String> = group.iter().map(named).collect();
    let retracted = revision.standing == Standing::Retracted;
    let last = revision.evidence.last().map_or(revision.opened, |evidence| evidence.time);
    let count = revision.evidence.len();
    let span = correlation.timespan / palisade_event::time::SECOND;
    let mut reasons = Vec::new();
    if retracted {
        reasons.push("what came later has falsified it".to_owned());
    } else {
        let place =
            if group.is_empty() { String::new() } else { format!(" for {}", fields.join(", ")) };
        reasons.push(format!("{count} matching records within {span} s of each other{place}"));
    }
    let records = revision.evidence.iter().take(MOST_EVIDENCE);
    let evidence: Vec<RecordId> = records.map(|evidence| evidence.record).collect();
    Some(AlertRow {
        tenant: revision.tenant.to_string(),
        domain: Some(domain_of(&revision.domain))
            .filter(|domain| *domain != LIVE)
            .map(str::to_owned),
        detector: "correlation",
        rule_id: correlation.id.clone().into(),
        rule_version: correlation.version.to_string().into(),
        title: correlation.about.title.clone(),
        severity: level.name(),
        score: level.score(),
        user: of(Core::User),
        host: of(Core::Host),
        src_ip: of(Core::SrcIp),
        time: revision.opened,
        ingest_time: clock,
        first_time: revision.anchor.time,
        last_time: last.max(revision.anchor.time),
        position: offset.position(0),
        id: revision.id.to_string(),
        // Revisions of the table count from 0.
        revision: i32::try_from(revision.number.saturating_sub(1)).unwrap_or(i32::MAX),
        event_id: None,
        evidence: evidence.iter().map(ToString::to_string).collect(),
        // The first revision names everything.
        evidence_from: (revision.number > 1)
            .then(|| format!("{}/{}", revision.from.record, revision.from.input)),
        reasons,
        details: Vec::new(),
        state: retracted.then_some("retracted"),
        tags: correlation.about.tags.clone(),
        author: correlation.about.author.clone(),
        licence: correlation.about.license.clone(),
        group_key: Some(fields.join(", ")),
        fields,
        incomplete: revision.cut || count > MOST_EVIDENCE,
    })
}
