//! The job of a backfill (B1): reads what was stored before its activation and appends what it finds to the log.
//!
//! What is under way stands in what is in force ([`crate::control::Backfill`]), with the cursor, so a job that was killed goes
//! on by itself. It reads windows of event time, ascending, of all tenants; rows are history when their position is below that
//! of the activation, wherever compaction has put them meanwhile. A step is one control record; nothing in it depends on how
//! windows were cut.

use crate::alerts;
use crate::clock::Clock;
use crate::control::{Backfill, BackfillStep, InForce, StoredAlert, StoredHit, StoredValue};
use crate::detectors::rule_alerts;
use crate::engine::Engine;
use crate::error::PipelineError;
use crate::hunt::OF_ALERTS;
use crate::metrics::Metrics;
use crate::priority::yield_to_others;
use crate::rules::counting::hit_rows;
use crate::rules::{Books, FrameRules, Rules, matches};
use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{TimestampMicrosecondType, UInt64Type};
use palisade_event::column::Text;
use palisade_event::schema::{Core, EVENTS};
use palisade_event::{ErrorClass, Offset, TenantId};
use palisade_log::Log;
use palisade_sigma::correlation::{Value, group_values};
use palisade_sigma::{Hits, Rule};
use palisade_table::provider::{ReadCache, ReadError, stored_memory, stored_segments};
use palisade_table::{Snapshot, Tables};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Hits and alerts of a step, about: more where many have the same event time.
const STEP: usize = 2_000;
/// Rows of a window that are wanted …
const WINDOW_ROWS: u64 = 250_000;
/// … which the window's length follows from here …
const FIRST_WINDOW: i64 = 3_600 * palisade_event::time::SECOND;
/// … up to here.
const LONGEST_WINDOW: i64 = 64 * 24 * FIRST_WINDOW;
/// Rows after which the cursor is kept although nothing was found.
const ROWS_PER_STEP: u64 = 2_000_000;
/// How often it looks whether there is something to do.
const LOOK: Duration = Duration::from_millis(200);
/// How long it waits after a failure that may pass.
const AGAIN: Duration = Duration::from_secs(5);
/// Behind all event times.
const END: i64 = i64::MAX;

/// The job.
#[derive(Debug)]
pub struct Backfiller {
    /// What is in force.
    pub engine: Arc<Engine>,
    /// Where it appends.
    pub log: Arc<Log>,
    /// What it reads.
    pub tables: Arc<Tables>,
    /// The sets of rules.
    pub books: Arc<Books>,
    /// Stamped on its records.
    pub clock: Arc<dyn Clock>,
    /// Rows and finds.
    pub metrics: Metrics,
}

/// What one backfill reads with.
struct Job<'j> {
    backfill: &'j Backfill,
    /// The rules that history is read for, and what they refer to.
    rules: Arc<Rules>,
    /// Those whose matches are alerts.
    alerts: BTreeSet<String>,
    hits: Hits,
    cache: Arc<ReadCache>,
}

/// What was found in a window, by event time.
#[derive(Default)]
struct Found {
    rows: u64,
    hits: Vec<(StoredHit, u32)>,
    alerts: Vec<StoredAlert>,
}

/// Why a job stopped.
enum Stop {
    Told,
    Failed(String),
    Pipeline(PipelineError),
}

impl From<PipelineError> for Stop {
    fn from(error: PipelineError) -> Self {
        Self::Pipeline(error)
    }
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl Backfiller {
    /// Works on whatever backfill is in force, until told to stop.
    pub fn run(&self, stop: &AtomicBool) {
        yield_to_others();
        while !stop.load(Ordering::Acquire) {
            // Before the log is read to its end, the cursor is one from before the restart.
            let is_ready = self.engine.progress().ready;
            let in_force = self.engine.in_force();
            let Some(backfill) = in_force.backfilling().filter(|_| is_ready) else {
                std::thread::park_timeout(LOOK);
                continue;
            };
            match self.go_on(backfill, &in_force, stop) {
                Ok(()) => {}
                Err(Stop::Told) => return,
                Err(Stop::Pipeline(error)) if error.class() != ErrorClass::Transient => {
                    tracing::error!(%error, "the backfill stops; it goes on with the next start");
                    return;
                }
                Err(Stop::Pipeline(error)) => {
                    tracing::warn!(%error, "the backfill waits");
                    wait(stop, AGAIN);
                }
                Err(Stop::Failed(reason)) => {
                    tracing::error!(reason, "the backfill can't go on, it is tried again");
                    wait(stop, AGAIN);
                }
            }
        }
    }

    /// From the cursor to the end.
    fn go_on(
        &self,
        backfill: &Backfill,
        in_force: &InForce,
        stop: &AtomicBool,
    ) -> Result<(), Stop> {
        let set = &in_force.rules.content.set;
        let full = self.books.get(set).map_err(Stop::Failed)?;
        let makes = |rules: &Rules| alerting(rules, backfill);
        let mut job = Job {
            backfill,
            rules: Arc::new(if set.is_empty() {
                Rules::compile(crate::rules::RuleTexts::default())
            } else {
                let texts = self.books.texts(set).map_err(Stop::Failed)?;
                Rules::compile_only(texts, &backfill.wanted.rules)
            }),
            alerts: full.iter().flat_map(|rules| makes(rules)).collect(),
            hits: Hits::new(),
            cache: ReadCache::new(ReadCache::DEFAULT_BYTES / 4),
        };
        // What the log knows, and where reading stands.
        let mut kept = backfill.until;
        let mut at = kept.or(backfill.wanted.from).unwrap_or(i64::MIN);
        let (mut length, mut rows) = (FIRST_WINDOW, 0);
        tracing::info!(generation = backfill.generation, ?kept, "a backfill goes on");
        loop {
            let snapshot = self.tables.snapshot(EVENTS);
            let Some(window) = window(&snapshot, at, length) else { break };
            let found = job.read(&snapshot, &window, stop)?;
            at = window.end;
            if found.rows < WINDOW_ROWS / 2 {
                length = length.saturating_mul(2).min(LONGEST_WINDOW);
            } else if found.rows > WINDOW_ROWS {
                length = (length / 2).max(1);
            }
            rows += found.rows;
            self.metrics.backfill_rows.inc_by(found.rows);
            let finds = found.hits.len() + found.alerts.len();
            self.metrics.backfill_found.inc_by(finds as u64);
            if finds > 0 || rows >= ROWS_PER_STEP {
                self.append(backfill.generation, found, rows, (kept, at))?;
                (kept, rows) = (Some(at), 0);
            }
        }
        let mut last = BackfillStep::new(backfill.generation, kept, END);
        (last.done, last.rows) = (true, rows);
        let offset = self.write(&last)?;
        // What is in force says that it is done once the record is processed.
        while self.engine.in_force().backfilling().is_some_and(|now| now == backfill)
            || Offset(self.engine.progress().visible) <= offset
        {
            if stop.load(Ordering::Acquire) || self.engine.fatal().borrow().is_some() {
                return Err(Stop::Told);
            }
            std::thread::park_timeout(LOOK / 10);
        }
        tracing::info!(generation = backfill.generation, "the backfill is done");
        Ok(())
    }

    /// Appends what was found in a window, in steps that end between event times.
    fn append(
        &self,
        generation: u64,
        found: Found,
        rows: u64,
        (kept, end): (Option<i64>, i64),
    ) -> Result<(), Stop> {
        let mut hits = found.hits.into_iter().map(|(hit, _)| hit).peekable();
        let mut alerts = found.alerts.into_iter().peekable();
        let mut from = kept;
        loop {
            let mut step = BackfillStep::new(generation, from, end);
            let mut last = None;
            loop {
                let times =
                    (hits.peek().map(|hit| hit.time), alerts.peek().map(|alert| alert.time));
                let next = match times {
                    (Some(hit), Some(alert)) => hit.min(alert),
                    (Some(time), None) | (None, Some(time)) => time,
                    (None, None) => break,
                };
                if step.hits.len() + step.alerts.len() >= STEP && last != Some(next) {
                    step.until = next;
                    break;
                }
                last = Some(next);
                if times.0 == last {
                    step.hits.extend(hits.next());
                } else {
                    step.alerts.extend(alerts.next());
                }
            }
            let is_last = step.until == end;
            step.rows = if is_last { rows } else { 0 };
            self.write(&step)?;
            if is_last {
                return Ok(());
            }
            from = Some(step.until);
        }
    }

    fn write(&self, step: &BackfillStep) -> Result<Offset, PipelineError> {
        let entry = step
            .entry(self.clock.now())
            .map_err(|error| crate::control::ControlError::Damaged(error.to_string()))?;
        Ok(self.log.append_and_wait(entry)?)
    }
}

impl Job<'_> {
    /// What was stored in a window of event time before the activation.
    fn read(
        &mut self,
        snapshot: &Snapshot,
        window: &Range<i64>,
        stop: &AtomicBool,
    ) -> Result<Found, Stop> {
        let mut found = Found::default();
        let book = &self.rules.book;
        let all: BTreeSet<u32> = (0..).zip(book.rules()).map(|(ordinal, _)| ordinal).collect();
        let routing = book.matcher().routing_reads(&book.matcher().groups_of(|_| true));
        let reads = book.reads_of_rules(&all);
        let owner = &self.backfill.wanted.owner;
        let concerned = tenants(snapshot).into_iter();
        let concerned = concerned.filter(|tenant| owner.is_empty() || tenant.as_str() == owner);
        for tenant in concerned.collect::<Vec<_>>() {
            let segments = stored_segments(snapshot, &tenant, &self.cache, window)?;
            for segment in segments {
                if Offset(self.backfill.offset) <= segment.file().meta.from {
                    continue;
                }
                let all = self.rules.has_exceptions(tenant.as_str());
                let schema = Arc::clone(segment.schema());
                let wanted = |name: &str| {
                    all || Core::by_name(name).is_some_and(|core| OF_ALERTS.contains(&core))
                        || schema
                            .field_with_name(name)
                            .is_ok_and(|field| reads.wants(field) || routing.wants(field))
                };
                for batch in segment.read(&wanted)? {
                    if stop.load(Ordering::Acquire) {
                        return Err(Stop::Told);
                    }
                    self.take(&batch?, &mut found)?;
                }
            }
            for batch in stored_memory(snapshot, &tenant, window) {
                self.take(&batch, &mut found)?;
            }
        }
        // The order of a step must not depend on which files rows are in.
        found.hits.sort_by(|(a, m), (b, n)| (a.time, &a.record, m).cmp(&(b.time, &b.record, n)));
        found.alerts.sort_by(|a, b| (a.time, &a.id).cmp(&(b.time, &b.id)));
        Ok(found)
    }

    fn take(&mut self, batch: &RecordBatch, found: &mut Found) -> Result<(), Stop> {
        let batch = before(batch, Offset(self.backfill.offset)).map_err(Stop::Failed)?;
        found.rows += batch.num_rows() as u64;
        let matched = matches(&self.rules, &batch, &mut self.hits);
        let FrameRules { rules, alerts: matched_rules, counted } = matched;
        let correlations = rules.book.correlations();
        if !counted.is_empty() {
            let records = alerts::RecordIds::of(&batch);
            let about = hit_rows(&batch);
            for counted in &counted {
                let Some(correlation) = correlations.get(counted.correlation) else { continue };
                let (tenant, domain, time, clock) = about(counted.row);
                let group = group_values(&counted.group).into_iter();
                let hit = StoredHit {
                    correlation: correlation.version.to_string(),
                    input: counted.input,
                    tenant: tenant.to_owned(),
                    domain: domain.to_owned(),
                    group: group.map(|value| String::from_utf8_lossy(value).into_owned()).collect(),
                    record: records.get(counted.row).to_string(),
                    time,
                    clock,
                    value: match counted.value {
                        Value::None => StoredValue::None,
                        Value::Hash(hash) => StoredValue::Hash(hash),
                        Value::Number(number) => StoredValue::Number(number.to_bits()),
                    },
                };
                found.hits.push((hit, counted.ordinal));
            }
        }
        let is_alert = |(_, ordinal, _): &(usize, u32, Vec<String>)| {
            rules.book.rule(*ordinal).is_some_and(|rule| {
                self.alerts.contains(&rule.id)
                    && self.backfill.wanted.has(rule.owner.as_deref(), &rule.id)
            })
        };
        let matched_rules = matched_rules.into_iter().filter(is_alert).collect();
        let rows = FrameRules { rules: Arc::clone(&rules), alerts: matched_rules, counted: vec![] };
        let rows = alerts::rows(&batch, Offset(0), rule_alerts(&batch, rows));
        found.alerts.extend(rows.into_iter().map(StoredAlert::of));
        Ok(())
    }
}

/// The ids of those wanted rules whose matches are alerts.
fn alerting(rules: &Rules, backfill: &Backfill) -> Vec<String> {
    let is_wanted = |rule: &Rule| backfill.wanted.has(rule.owner.as_deref(), &rule.id);
    let all = rules.book.rules().zip(0..);
    let wanted = all.filter(|(rule, ordinal)| is_wanted(rule) && rules.book.makes_alerts(*ordinal));
    wanted.map(|(rule, _)| rule.id.clone()).collect()
}

/// The next window with rows, from an event time on.
fn window(snapshot: &Snapshot, from: i64, length: i64) -> Option<Range<i64>> {
    let segments = snapshot.segments.iter().map(|file| (file.meta.min_time, file.meta.max_time));
    let memory = snapshot.memory.iter().filter_map(|batch| {
        let times = batch.column_by_name(Core::Time.name())?;
        let times = times.as_primitive_opt::<TimestampMicrosecondType>()?;
        Some((arrow::compute::min(times)?, arrow::compute::max(times)?))
    });
    let starts = segments.chain(memory).filter(|(_, last)| *last >= from);
    let start = starts.map(|(first, _)| first.max(from)).min()?;
    Some(start..start.saturating_add(length))
}

/// Everybody who has rows.
fn tenants(snapshot: &Snapshot) -> BTreeSet<TenantId> {
    let named = snapshot.segments.iter().flat_map(|file| file.meta.tenants.iter().cloned());
    let mut names: BTreeSet<String> = named.collect();
    for batch in snapshot.memory.iter() {
        let Some(column) = Text::in_batch(batch, Core::Tenant.name()) else { continue };
        let mut last = "";
        for name in (0..column.len()).filter_map(|row| column.get(row)) {
            if name != last {
                names.insert(name.to_owned());
                last = name;
            }
        }
    }
    names.iter().filter_map(|name| TenantId::new(name).ok()).collect()
}

/// The rows of entries before an offset.
fn before(batch: &RecordBatch, offset: Offset) -> Result<RecordBatch, String> {
    let column = batch.column_by_name(Core::Position.name());
    let positions = column.and_then(|column| column.as_primitive_opt::<UInt64Type>());
    let positions = positions.ok_or("stored rows have no position")?;
    let end = offset.position(0);
    if positions.values().iter().all(|position| *position < end) {
        return Ok(batch.clone());
    }
    let keep: BooleanArray = positions.values().iter().map(|at| Some(*at < end)).collect();
    filter_record_batch(batch, &keep).map_err(|error| error.to_string())
}

/// Waits, unless told to stop.
fn wait(stop: &AtomicBool, time: Duration) {
    let mut left = time;
    while !left.is_zero() && !stop.load(Ordering::Acquire) {
        std::thread::park_timeout(LOOK);
        left = left.saturating_sub(LOOK);
    }
}
