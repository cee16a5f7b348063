//! A hunt: the rules in force, or others, over a tenant's stored rows in a range of event time, through the same matcher
//! and the same correlations as in the stream, and with the same ids (K4).
//!
//! Row groups are read in three steps, each leaving rows out for the next: first only the columns that decide to which
//! log sources a row belongs; then, of the rows that belong to any, the columns of the rules; at last, of the rows that
//! match, what an alert and the correlations need. Log sources of which no rule can match with the columns
//! that a row group holds are left out before anything of it is read. Where rows of all kinds are mixed so that the
//! first step spares the second no page, it is left out.
//!
//! Correlations answer from the beginning of the range on: what they need to know for that (K2) is read from before it.

use super::gather::{Counted, FoundAlert, Gathered, HuntError, HuntLimits, Part};
use super::known::Known;
use crate::alerts::{RecordIds, stored_rows};
use crate::detectors::rule_alerts;
use crate::priority::yield_to_others;
use crate::rules::counting::{domain_key, hit_rows};
use crate::rules::{FrameRules, Rules};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Field, TimestampMicrosecondType};
use palisade_event::TenantId;
use palisade_event::schema::Core;
use palisade_sigma::correlation::{Range as Answers, lead};
use palisade_sigma::{Groups, Hits};
use palisade_table::Snapshot;
use palisade_table::provider::{ReadCache, StoredPart, stored_memory, stored_segments};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};

/// Rows that are routed at once, and rows that are matched at once: a value is looked at once for all of them.
const ROUTED: usize = 65_536;
const MATCHED: usize = 32_768;
/// Rows that match, as they are read for their alerts.
const ALERTED: usize = 4_096;

/// Where so many of 16 rows are left by the first step, in stretches shorter than [`SHORT`] on average, the step
/// leaves no page out for the next one, and is not made in the row groups that follow.
const MOST_LEFT: u64 = 5;
const SHORT: u64 = 64;
/// Every so many row groups it is tried again.
const AGAIN: u64 = 16;

/// Alerts that a thread holds before it gives them away.
const HELD: usize = 4_096;

/// Columns that alerts and hits take values from.
pub(crate) const OF_ALERTS: [Core; 11] = [
    Core::Tenant,
    Core::Time,
    Core::IngestTime,
    Core::Position,
    Core::Domain,
    Core::Source,
    Core::EventId,
    Core::RecordId,
    Core::User,
    Core::Host,
    Core::SrcIp,
];

/// A hunt.
#[derive(Debug, Clone)]
pub struct Hunt {
    /// What is looked for. What the tenant has disabled or graded otherwise there is respected.
    pub rules: Arc<Rules>,
    /// Whose rows.
    pub tenant: TenantId,
    /// Event times, microseconds since the epoch. What correlations decide at the end or later is left open.
    pub times: Range<i64>,
    /// Whether correlations also count late records (T4).
    pub include_late: bool,
    /// How many threads work, all at the priority of background work unless `eager`.
    pub threads: usize,
    /// At the priority of everything else.
    pub eager: bool,
    /// Its bounds.
    pub limits: HuntLimits,
}

/// How far a hunt is, for who watches it; and how to end it.
#[derive(Debug, Default)]
pub struct Progress {
    /// Rows that it has to decide about.
    pub rows: AtomicU64,
    /// How many of them are done.
    pub rows_done: AtomicU64,
    /// Bytes of segments that hold them.
    pub bytes: AtomicU64,
    /// How many of them are done.
    pub bytes_done: AtomicU64,
    /// Matches of rules that are alerts.
    pub matches: AtomicU64,
    /// Set to end it.
    pub cancelled: AtomicBool,
}

/// What a hunt found.
#[derive(Debug, Default)]
pub struct HuntReport {
    /// The alerts, by time and id.
    pub alerts: Vec<FoundAlert>,
    /// Whether there were more than are kept.
    pub cut: bool,
    /// How many alerts each rule and each correlation has, by id, those that were cut among them.
    pub by_rule: BTreeMap<String, u64>,
    /// Rows that were decided about.
    pub rows: u64,
}

/// A piece of work.
enum Unit {
    Memory(RecordBatch),
    Stored(Box<StoredPart>),
}

/// What the threads share.
struct Shared<'h> {
    hunt: &'h Hunt,
    progress: &'h Progress,
    /// From when on rows are read: for correlations earlier than the hunt begins.
    since: i64,
    /// The groups of rules that correlations count: all that is needed from before the hunt begins.
    counted: Groups,
    all: Groups,
    units: Vec<(i64, Mutex<Option<Unit>>)>,
    next: AtomicUsize,
    gathered: Mutex<(Gathered, Vec<bool>, usize)>,
    latest: AtomicI64,
    failed: AtomicBool,
    known: Known,
    /// How many row groups the first step is left out for.
    without_first: AtomicU64,
}

impl Hunt {
    /// Hunts over a snapshot of the table of events.
    ///
    /// # Errors
    /// [`HuntError`]; what was found until then is gone.
    pub fn run(
        &self,
        snapshot: &Snapshot,
        cache: &ReadCache,
        progress: &Progress,
    ) -> Result<HuntReport, HuntError> {
        let book = &self.rules.book;
        let Range { start, end } = self.times;
        let since = if start > i64::MIN { lead(book.correlations(), start) } else { start };
        let times = since..end;
        let mut units = Vec::new();
        for batch in stored_memory(snapshot, &self.tenant, &times) {
            units.push((least_time(&batch), Unit::Memory(batch)));
        }
        let (mut rows, mut bytes) = (units.iter().map(|(_, unit)| unit.rows()).sum::<u64>(), 0);
        for segment in stored_segments(snapshot, &self.tenant, cache, &times)? {
            for part in segment.parts() {
                let (least, greatest) = part.times();
                if greatest < times.start || least >= times.end {
                    continue;
                }
                rows += part.rows();
                bytes += part.bytes();
                units.push((least.max(times.start), Unit::Stored(Box::new(part))));
            }
        }
        units.sort_by_key(|(least, _)| *least);
        progress.rows.store(rows, Ordering::Relaxed);
        progress.bytes.store(bytes, Ordering::Relaxed);
        let answers = Answers {
            start: (since > i64::MIN).then_some(since),
            end: (end < i64::MAX).then_some(end),
        };
        let gathered = Gathered::new(&self.rules, self.tenant.as_str(), answers, self.limits);
        let done = vec![false; units.len()];
        let shared = Shared {
            hunt: self,
            progress,
            since,
            counted: book.matcher().groups_of(|rule| book.is_counted(rule)),
            all: book.matcher().groups_of(|_| true),
            units: units.into_iter().map(|(at, unit)| (at, Mutex::new(Some(unit)))).collect(),
            next: AtomicUsize::new(0),
            gathered: Mutex::new((gathered, done, 0)),
            latest: AtomicI64::new(i64::MAX),
            failed: AtomicBool::new(false),
            known: Known::default(),
            without_first: AtomicU64::new(0),
        };
        let threads = self.threads.clamp(1, shared.units.len().max(1));
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| shared.work())).collect();
            let results = workers.into_iter().map(|worker| worker.join());
            let results = results.map(|result| result.unwrap_or(Err(HuntError::Panicked)));
            // The others end because one has failed: that one says why.
            let mut errors: Vec<HuntError> = results.filter_map(Result::err).collect();
            errors.sort_by_key(|error| matches!(error, HuntError::Cancelled));
            errors.into_iter().next().map_or(Ok(()), Err)
        })?;
        let (gathered, ..) = shared.gathered.into_inner();
        let mut by_rule = BTreeMap::new();
        for (ordinal, count) in &gathered.counts {
            if let Some(rule) = book.rule(*ordinal) {
                by_rule.insert(rule.id.clone(), *count);
            }
        }
        let (alerts, counts, cut) = gathered.finish(&self.rules, start);
        for (place, correlation) in book.correlations().iter() {
            if let Some(count) = counts.get(place).filter(|count| **count > 0) {
                by_rule.insert(correlation.id.clone(), *count);
            }
        }
        Ok(HuntReport { alerts, cut, by_rule, rows })
    }
}

impl Unit {
    fn rows(&self) -> u64 {
        match self {
            Self::Memory(batch) => batch.num_rows() as u64,
            Self::Stored(part) => part.rows(),
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::Memory(_) => 0,
            Self::Stored(part) => part.bytes(),
        }
    }
}

fn times_of(batch: &RecordBatch) -> &[i64] {
    let column = batch.column_by_name(Core::Time.name());
    let column = column.and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
    column.map_or(&[], |column| column.values().as_ref())
}

fn least_time(batch: &RecordBatch) -> i64 {
    times_of(batch).iter().copied().min().unwrap_or(i64::MIN)
}

impl Shared<'_> {
    fn work(&self) -> Result<(), HuntError> {
        if !self.hunt.eager {
            yield_to_others();
        }
        let mut hits = Hits::new();
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let Some((_, unit)) = self.units.get(number) else { return Ok(()) };
            let Some(unit) = unit.lock().take() else { continue };
            let mut part = Part::default();
            let read = match &unit {
                Unit::Memory(batch) => self.batch(batch, None, &mut hits, &mut part),
                Unit::Stored(stored) => self.stored(stored, &mut hits, &mut part),
            };
            let taken = read.and_then(|()| self.give(number, part));
            if taken.is_err() {
                self.failed.store(true, Ordering::Relaxed);
            }
            taken?;
            self.progress.rows_done.fetch_add(unit.rows(), Ordering::Relaxed);
            self.progress.bytes_done.fetch_add(unit.bytes(), Ordering::Relaxed);
        }
    }

    fn give(&self, number: usize, part: Part) -> Result<(), HuntError> {
        let mut gathered = self.gathered.lock();
        let (gathered, done, first) = &mut *gathered;
        if let Some(done) = done.get_mut(number) {
            *done = true;
        }
        while done.get(*first) == Some(&true) {
            *first += 1;
        }
        let until = self.units.get(*first).map_or(i64::MAX, |(least, _)| *least);
        gathered.take(part, until, &self.latest)
    }

    fn check(&self) -> Result<(), HuntError> {
        let ends = self.progress.cancelled.load(Ordering::Relaxed);
        if ends || self.failed.load(Ordering::Relaxed) {
            return Err(HuntError::Cancelled);
        }
        Ok(())
    }

    /// Looks at a row group.
    fn stored(
        &self,
        stored: &StoredPart,
        hits: &mut Hits,
        part: &mut Part,
    ) -> Result<(), HuntError> {
        let book = &self.hunt.rules.book;
        let matcher = book.matcher();
        let (start, end) = (self.hunt.times.start, self.hunt.times.end);
        let (least, greatest) = stored.times();
        let mut groups = self.known.possible(book, stored.columns());
        groups.intersect(if greatest < start { &self.counted } else { &self.all });
        if groups.is_empty() {
            return Ok(());
        }
        let mut rows = stored.all();
        let inside = least >= self.since && greatest < end;
        let steps = self.known.steps(book, &groups);
        let routing = &steps.routing;
        if !inside || !routing.is_empty() && !self.leaves_out_first() {
            let mut found = matcher.no_groups();
            let mut keep: Vec<bool> = Vec::with_capacity(rows.count());
            let wanted = |field: &Field| {
                routing.wants(field) || !inside && field.name() == Core::Time.name()
            };
            for batch in stored.read(&rows, &wanted, ROUTED)? {
                self.check()?;
                let (batch, before) = (batch?, keep.len());
                matcher.routed(&batch, &groups, &mut found, |any| keep.push(any));
                if !inside {
                    let wanted = self.since..end;
                    let of_batch = keep.get_mut(before..).unwrap_or_default();
                    for (keep, time) in of_batch.iter_mut().zip(times_of(&batch)) {
                        *keep &= wanted.contains(time);
                    }
                }
            }
            let all = rows.count() as u64;
            rows = stored.filter(rows, |row| keep.get(row) == Some(&true));
            groups = found;
            let (left, stretches) = (rows.count() as u64, rows.stretches() as u64);
            if left * 16 >= all * MOST_LEFT && left < stretches * SHORT {
                self.without_first.store(AGAIN, Ordering::Relaxed);
            }
        }
        if rows.count() == 0 {
            return Ok(());
        }
        let steps = self.known.steps(book, &groups);
        let reads = &steps.rules;
        let mut keep: Vec<bool> = Vec::with_capacity(rows.count());
        // The rules of the rows that match, one row after the other, and where those of each end.
        let (mut rules, mut ends): (Vec<u32>, Vec<usize>) = (Vec::new(), Vec::new());
        for batch in stored.read(&rows, &|field| reads.wants(field), MATCHED)? {
            self.check()?;
            let batch = batch?;
            matcher.matches_of(&batch, Some(&groups), hits);
            for row in 0..batch.num_rows() {
                let of_row = hits.of(row);
                keep.push(!of_row.is_empty());
                if !of_row.is_empty() {
                    rules.extend_from_slice(of_row);
                    ends.push(rules.len());
                }
            }
        }
        rows = stored.filter(rows, |row| keep.get(row) == Some(&true));
        if rows.count() == 0 {
            return Ok(());
        }
        let may_look_anywhere = self.hunt.rules.has_exceptions(self.hunt.tenant.as_str());
        let reads = book.reads_of_rules(&rules.iter().copied().collect());
        let wanted = |field: &Field| {
            may_look_anywhere
                || reads.wants(field)
                || Core::by_name(field.name()).is_some_and(|core| OF_ALERTS.contains(&core))
        };
        let (mut ends, mut start) = (ends.into_iter(), 0);
        for batch in stored.read(&rows, &wanted, ALERTED)? {
            self.check()?;
            let batch = batch?;
            hits.clear();
            for end in ends.by_ref().take(batch.num_rows()) {
                hits.push(rules.get(start..end).unwrap_or_default());
                start = end;
            }
            self.hunt.rules.sift(&batch, hits);
            self.found(&batch, hits, part)?;
        }
        Ok(())
    }

    /// Whether the first step is left out for the next row group.
    fn leaves_out_first(&self) -> bool {
        let less = |left: u64| left.checked_sub(1);
        self.without_first.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    /// Looks at a batch that has all columns.
    fn batch(
        &self,
        batch: &RecordBatch,
        groups: Option<&Groups>,
        hits: &mut Hits,
        part: &mut Part,
    ) -> Result<(), HuntError> {
        self.check()?;
        let matcher = self.hunt.rules.book.matcher();
        matcher.matches_of(batch, groups, hits);
        self.hunt.rules.sift(batch, hits);
        if hits.is_empty() {
            return Ok(());
        }
        self.found(batch, hits, part)
    }

    /// Takes in the matches of a batch with the columns that alerts need.
    fn found(&self, batch: &RecordBatch, hits: &Hits, part: &mut Part) -> Result<(), HuntError> {
        let Hunt { rules, tenant, times, limits, include_late, .. } = self.hunt;
        let (book, tenant) = (&rules.book, tenant.as_str());
        let about = hit_rows(batch);
        let latest = self.latest.load(Ordering::Relaxed);
        let mut alerts: Vec<(usize, u32)> = Vec::new();
        let mut matches = 0;
        for (row, ordinal) in hits.iter().filter(|(_, rule)| book.makes_alerts(*rule)) {
            let (_, _, time, _) = about(row);
            if !times.contains(&time) {
                continue;
            }
            matches += 1;
            *part.counts.entry(ordinal).or_default() += 1;
            if time <= latest {
                alerts.push((row, ordinal));
            }
        }
        self.progress.matches.fetch_add(matches, Ordering::Relaxed);
        let counted = book.counted(batch, hits);
        let fields = book.matched_fields(batch, &alerts);
        let alerts = alerts.into_iter().zip(fields);
        let found = FrameRules {
            rules: Arc::clone(rules),
            alerts: alerts.map(|((row, rule), fields)| (row, rule, fields)).collect(),
            counted: Vec::new(),
        };
        let rows = stored_rows(batch, rule_alerts(batch, found));
        part.alerts.extend(rows.iter().map(FoundAlert::of));
        if part.alerts.len() > HELD {
            self.gathered.lock().0.keep_all(part, &self.latest);
        }
        if part.hits.len() + counted.len() > limits.waiting_hits {
            return Err(HuntError::TooMany(limits.waiting_hits as u64));
        }
        let ids = RecordIds::of(batch);
        let mut domains: BTreeMap<&str, Arc<str>> = BTreeMap::new();
        for counted in counted {
            let (_, domain, time, clock) = about(counted.row);
            let key = domains.entry(domain).or_insert_with(|| domain_key(tenant, domain).into());
            part.hits.push(Counted {
                time,
                record: ids.get(counted.row),
                correlation: u32::try_from(counted.correlation).unwrap_or(u32::MAX),
                input: counted.input,
                clock: if *include_late { time.min(clock) } else { clock },
                value: counted.value,
                domain: Arc::clone(key),
                group: counted.group.into(),
            });
        }
        Ok(())
    }
}
