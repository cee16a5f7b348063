//! The correlations in force, and the revisions of their alerts (K1 to K4).

use super::{FrameRules, Rules};
use crate::alerts::{AlertRow, RecordIds};
use crate::control::{Backfill, BackfillStep, InForce, OpenDomain, StoredAlert, StoredValue};
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
    Cascade, Correlation, Correlations, Evidence, Hit, HitKind, Options, Position, Range, Revision,
    Standing, Value, first_cuts, group_key, group_slot, group_values,
};
use std::collections::BTreeMap;
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
    /// The backfill that was declared last, as of its last step.
    backfill: Option<Backfill>,
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
        backfill: Option<&Backfill>,
    ) -> Result<Self, SnapshotError> {
        let correlations =
            rules.as_ref().map(|rules| rules.book.correlations().clone()).unwrap_or_default();
        let options = Options::default();
        let mut cascade = Cascade::new(correlations, SLOTS, options, Range::default());
        if let Some(backfill) = backfill.filter(|backfill| !backfill.done) {
            begin_backfill(&mut cascade, backfill);
        }
        cascade.load(chain.iter().map(Vec::as_slice))?;
        Ok(Self { rules, cascade, out: Vec::new(), backfill: backfill.cloned() })
    }

    /// Puts other rules in force, with the backfill that this declares. Answers the last revisions of alerts that can't be
    /// decided any more.
    pub(crate) fn reload(
        &mut self,
        rules: Option<Arc<Rules>>,
        at: (Offset, i64),
        declared: Option<&Backfill>,
    ) -> Vec<AlertRow> {
        // Where only tenants' settings changed, the correlations are the same.
        if let (Some(now), Some(new), None) = (&self.rules, &rules, declared)
            && Arc::ptr_eq(&now.book, &new.book)
        {
            self.rules = rules;
            return Vec::new();
        }
        let correlations =
            rules.as_ref().map(|rules| rules.book.correlations().clone()).unwrap_or_default();
        self.cascade.reload(correlations, &mut self.out);
        // Its state is of correlations that may be gone when an older snapshot is loaded.
        self.cascade.live_mut().require_full_snapshot();
        let rows = self.take_rows(at);
        self.rules = rules;
        if let Some(backfill) = declared {
            begin_backfill(&mut self.cascade, backfill);
            self.backfill = Some(backfill.clone());
        }
        rows
    }

    /// A step of the backfill in force: counts what it found of stored records, and answers what that decides, and
    /// the alerts that it found.
    pub(crate) fn stored(
        &mut self,
        at: (Offset, i64),
        step: BackfillStep,
        in_force: &InForce,
    ) -> Vec<AlertRow> {
        let Some(backfill) = &in_force.backfill else { return Vec::new() };
        self.backfill = Some(backfill.clone());
        let versions = self.cascade.correlations().iter();
        let places: BTreeMap<String, usize> =
            versions.map(|(place, correlation)| (correlation.version.to_string(), place)).collect();
        for (stored, row) in step.hits.iter().zip(0..) {
            let Some(place) = places.get(&stored.correlation) else { continue };
            let values = stored.group.iter().map(|value| Some(value.as_bytes()));
            let Some(group) = group_key(values) else { continue };
            let domain = domain_key(&stored.tenant, &stored.domain);
            let hit = Hit {
                correlation: *place,
                input: stored.input,
                tenant: &stored.tenant,
                domain: &domain,
                slot: group_slot(&stored.tenant, &group, SLOTS),
                group: &group,
                record: record_id(&stored.record),
                time: stored.time,
                clock: stored.clock,
                value: match stored.value {
                    StoredValue::None => Value::None,
                    StoredValue::Hash(hash) => Value::Hash(hash),
                    StoredValue::Number(bits) => Value::Number(f64::from_bits(bits)),
                },
                kind: HitKind::Record,
            };
            let position = Position { offset: at.0.0, row, ordinal: 0 };
            self.cascade.stored_hit(position, &hit, &mut self.out);
        }
        let loads = || backfill.domains.iter();
        let keys: Vec<String> = loads().map(|(tenant, name)| domain_key(tenant, name)).collect();
        let domains = || std::iter::once(LIVE).chain(keys.iter().map(String::as_str));
        self.cascade.backfilled(domains(), step.until, &mut self.out);
        if step.done {
            self.cascade.end_backfill(&mut self.out);
            // Loads that have ended: nobody else will say so.
            for ((tenant, name), key) in loads().zip(&keys) {
                let is_open = |open: &OpenDomain| open.tenant == *tenant && open.domain == *name;
                if !in_force.domains.iter().any(is_open) {
                    self.cascade.end(key, &mut self.out);
                }
            }
        }
        self.cascade.tick(domains(), &mut self.out);
        let mut rows = self.take_rows(at);
        let alerts = step.alerts.into_iter().zip(rows.len()..);
        rows.extend(alerts.filter_map(|(alert, place)| alert.row(at.0.position(place))));
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

    /// Between ticks: no row that comes later has a clock before this. Gives out what waited for that.
    pub(crate) fn clock(&mut self, at: (Offset, i64)) -> Vec<AlertRow> {
        self.cascade.progress(LIVE, at.1, None, &mut self.out);
        self.take_rows(at)
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
        if self.out.is_empty() {
            return Vec::new();
        }
        let correlations = rules.book.correlations();
        let start = self.backfill.as_ref().and_then(|backfill| backfill.wanted.from);
        let cuts = first_cuts(correlations, start);
        let rows = self.out.drain(..).filter_map(|revision| {
            let correlation = correlations.get(revision.correlation)?;
            if correlation.is_read && !is_alert(correlations, revision.correlation) {
                return None;
            }
            let old = |backfill: &&Backfill| is_wanted(backfill, correlation);
            let backfill = self.backfill.as_ref().filter(old);
            // Over a part of history it answers from a cut on (K2).
            let cut = cuts.get(revision.correlation);
            if backfill.is_some() && cut.is_some_and(|cut| revision.opened < *cut) {
                return None;
            }
            let mut row = row(rules, correlation, &revision, offset, clock)?;
            row.historical = backfill.is_some_and(|backfill| {
                let opening = |evidence: &&Evidence| evidence.time == revision.opened;
                let record = revision.evidence.iter().find(opening);
                let record = record.map(|evidence| evidence.record.to_string());
                backfill.is_old(revision.opened, correlation.lateness, record)
            });
            Some(row)
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
        self.cascade.live_mut().begin_snapshot().is_ok()
    }

    /// Goes on writing; true when all is written.
    pub(crate) fn snapshot_step(&mut self, out: &mut Vec<u8>) -> bool {
        self.cascade.live_mut().snapshot_step(SNAPSHOT_STEP, out)
    }
}

fn is_wanted(backfill: &Backfill, correlation: &Correlation) -> bool {
    backfill.wanted.has(correlation.owner.as_deref(), &correlation.id)
}

/// The correlations of a backfill wait for it.
fn begin_backfill(cascade: &mut Cascade, backfill: &Backfill) {
    let all = cascade.correlations().iter();
    let wanted = all.filter(|(_, correlation)| is_wanted(backfill, correlation));
    let places: Vec<usize> = wanted.map(|(place, _)| place).collect();
    cascade.begin_backfill(places, backfill.wanted.from);
}

/// An id as [`RecordId`] displays it.
fn record_id(text: &str) -> RecordId {
    RecordId(u128::from_str_radix(text, 16).unwrap_or_default().to_be_bytes())
}

/// Whether the alerts of a correlation that others read are alerts themselves: where one of these says so, or all are a
/// tenant's own over one of the installation's.
pub(crate) fn is_alert(correlations: &Correlations, place: usize) -> bool {
    let owner = correlations.get(place).and_then(|read| read.owner.as_deref());
    let readers = correlations.readers_of_correlation(place);
    let mut readers = readers
        .filter_map(|(reader, _)| correlations.get(reader))
        .filter(|reader| reader.owner.as_deref() == owner)
        .peekable();
    readers.peek().is_none() || readers.any(|reader| reader.generate)
}

/// The level that a correlation's text names.
fn level(correlation: &Correlation) -> Level {
    let named = correlation.about.level.as_deref().and_then(Level::by_name);
    named.unwrap_or(Level::Medium)
}

/// The row of the table `alerts` of a revision; `None` where the tenant has disabled the correlation.
pub(crate) fn row(
    rules: &Rules,
    correlation: &Correlation,
    revision: &Revision,
    offset: Offset,
    clock: i64,
) -> Option<AlertRow> {
    if rules.is_silent(&revision.tenant, revision.correlation) {
        return None;
    }
    let level = rules.severity(&revision.tenant, &correlation.id, level(correlation));
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
        historical: false,
    })
}

impl StoredAlert {
    /// A match of a stored record as the job found it.
    pub(crate) fn of(row: AlertRow) -> Self {
        let AlertRow { tenant, domain, rule_id, rule_version, title, severity, user, .. } = row;
        let AlertRow { host, src_ip, time, ingest_time, id, event_id, evidence, reasons, .. } = row;
        let AlertRow { tags, author, licence, fields, .. } = row;
        Self {
            tenant,
            domain,
            rule_id: rule_id.into_owned(),
            rule_version: rule_version.into_owned(),
            title,
            severity: severity.to_owned(),
            user,
            host,
            src_ip,
            time,
            ingest_time,
            id,
            event_id,
            evidence,
            reasons,
            tags,
            author,
            licence,
            fields,
        }
    }

    /// The row of `alerts`.
    fn row(self, position: u64) -> Option<AlertRow> {
        let level = Level::by_name(&self.severity)?;
        Some(AlertRow {
            tenant: self.tenant,
            domain: self.domain,
            detector: "sigma",
            rule_id: self.rule_id.into(),
            rule_version: self.rule_version.into(),
            title: self.title,
            severity: level.name(),
            score: level.score(),
            user: self.user,
            host: self.host,
            src_ip: self.src_ip,
            time: self.time,
            ingest_time: self.ingest_time,
            first_time: self.time,
            last_time: self.time,
            position,
            id: self.id,
            revision: 0,
            event_id: self.event_id,
            evidence: self.evidence,
            evidence_from: None,
            reasons: self.reasons,
            details: Vec::new(),
            state: None,
            tags: self.tags,
            author: self.author,
            licence: self.licence,
            group_key: None,
            fields: self.fields,
            incomplete: false,
            historical: true,
        })
    }
}
