//! What a rule would cost and find, and what it can't see, from the rows that a tenant has.
//!
//! Rows of the last days are read as they are stored; of many a sample. The time that matching takes is
//! measured on them, so the figures are those of this machine now. Nothing here is part of the pipeline.

use super::Rules;
use crate::hunt::Found;
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use palisade_event::TenantId;
use palisade_event::schema::Core;
use palisade_sigma::correlation::Range;
use palisade_sigma::{Hits, LogSource, Matcher, Need, Survey};
use palisade_table::Snapshot;
use palisade_table::provider::{ReadCache, ReadError, stored_memory, stored_segments};
use serde::Serialize;
use std::time::{Duration, Instant};

const DAY: i64 = 86_400_000_000;
/// Rows that the time of matching is measured on, at most.
const MOST_MEASURED: usize = 65_536;
/// Rows of history that a rate is told from cover at least this long.
const LEAST_SPAN: i64 = DAY / 24;

/// What a report is made from.
#[derive(Debug, Clone, Copy)]
pub struct ReportOptions {
    /// How many days back, from `now` on.
    pub days: u32,
    /// Now, microseconds since the epoch.
    pub now: i64,
    /// Rows of which a sample is taken instead of all.
    pub most_rows: u64,
    /// How long rows are read, and how long times are measured.
    pub longest: Duration,
}

impl ReportOptions {
    /// Of the last days, with at most half a million rows and 20 seconds each for reading and measuring.
    #[must_use]
    pub fn of_days(days: u32, now: i64) -> Self {
        Self { days, now, most_rows: 500_000, longest: Duration::from_secs(20) }
    }
}

/// A report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// How many days of history there are in the range, as fractions; rates are by this.
    pub days: f64,
    /// The tenant's rows in the range.
    pub rows: u64,
    /// How many of them were looked at; matches are extrapolated where these are fewer.
    pub sampled: u64,
    /// Microseconds of one core that matching all these rules together takes for a million events, beside finding
    /// their log sources; none without rows.
    pub micros_per_million: Option<f64>,
    /// Whether all history was searched for fields that the sample has not; else one called missing may have been sent.
    pub searched_all: bool,
    /// By rule, those first that can't match, then by alerts.
    pub rules: Vec<RuleReport>,
    /// By correlation.
    pub correlations: Vec<CorrelationReport>,
}

/// What a rule would do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RuleReport {
    /// Its id.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Its level, as its text says.
    pub level: &'static str,
    /// Microseconds of one core for a million events, matched alone; none where time was up.
    pub micros_per_million: Option<f64>,
    /// Matches among the rows that were looked at.
    pub matches: u64,
    /// Alerts for a day of such history: 0 where its matches are only counted by correlations.
    pub alerts_per_day: f64,
    /// Whether it can't match anything of what is sent.
    pub blind: bool,
    /// Fields that it reads and nobody has ever sent.
    pub missing: Vec<String>,
    /// The logs that it is for.
    pub source: LogSource,
    /// Rows of them among those that were looked at.
    pub source_rows: u64,
    /// All fields that it reads.
    pub fields: Vec<Need>,
}

/// What a correlation would do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CorrelationReport {
    /// Its id.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Alerts for a day; none where only a sample was looked at, which tells nothing about counts.
    pub alerts_per_day: Option<f64>,
}

/// How much history there is, and how much of it was looked at.
struct Sample {
    rows: u64,
    sampled: u64,
    days: f64,
}

/// Gives rows of the last days to `each`, batch by batch: all, or of many a sample, so that few are held at a time.
fn read_sample(
    snapshot: &Snapshot,
    tenant: &TenantId,
    cache: &ReadCache,
    options: &ReportOptions,
    mut each: impl FnMut(&RecordBatch),
) -> Result<Sample, ReadError> {
    let since = options.now.saturating_sub(i64::from(options.days).saturating_mul(DAY));
    // Times may be a little ahead of the clock.
    let times = since..options.now.saturating_add(DAY);
    let segments = stored_segments(snapshot, tenant, cache, &times)?;
    let memory = stored_memory(snapshot, tenant, &times);
    let stored: u64 = segments.iter().map(|segment| segment.rows()).sum();
    let waiting: u64 = memory.iter().map(|batch| batch.num_rows() as u64).sum();
    let first = |batch: &RecordBatch| {
        let column = batch.column_by_name(Core::Time.name())?;
        let times = column.as_primitive_opt::<TimestampMicrosecondType>()?;
        arrow::compute::min(times)
    };
    let oldest = segments.iter().map(|segment| segment.file().meta.min_time);
    let oldest = oldest.chain(memory.iter().filter_map(first)).min();
    let oldest = oldest.unwrap_or(i64::MAX).max(since).min(options.now);
    let span = (options.now - oldest).max(LEAST_SPAN);
    let begun = Instant::now();
    // Of every so many segments one is read, and of its batches every so many.
    let over = (stored + waiting).div_ceil(options.most_rows.max(1)).max(1);
    let (skip_segments, skip_batches) = (over.div_ceil(8).max(1), over.min(8));
    let (mut met, mut skipped, mut sampled) = (0u64, 0u64, 0u64);
    'segments: for (place, segment) in (0u64..).zip(segments.iter().rev()) {
        if place % skip_segments != 0 {
            skipped += segment.rows();
            continue;
        }
        for batch in segment.read(&|_| true)? {
            let batch = batch?;
            met += 1;
            if (met - 1) % skip_batches != 0 {
                skipped += batch.num_rows() as u64;
                continue;
            }
            if sampled >= options.most_rows || begun.elapsed() > options.longest {
                skipped += batch.num_rows() as u64;
                break 'segments;
            }
            sampled += batch.num_rows() as u64;
            each(&batch);
        }
    }
    for batch in &memory {
        if sampled >= options.most_rows || begun.elapsed() > options.longest {
            skipped += 1;
            break;
        }
        sampled += batch.num_rows() as u64;
        each(batch);
    }
    // Segments count rows whose time is outside of the range too: read whole, it is known how many are in it.
    let rows = if skipped == 0 { sampled } else { stored + waiting };
    Ok(Sample { rows, sampled, days: span as f64 / DAY as f64 })
}

/// How long a matcher takes for batches beside finding the log sources, in microseconds for a million rows.
fn cost(matcher: &Matcher, rules: usize, batches: &[RecordBatch]) -> Option<f64> {
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    if rows == 0 {
        return None;
    }
    let (mut hits, mut sources) = (Hits::new(), vec![0; rules]);
    let timed = |work: &mut dyn FnMut(&RecordBatch)| {
        let begun = Instant::now();
        batches.iter().for_each(work);
        begun.elapsed()
    };
    // Once for the caches.
    batches.iter().take(1).for_each(|batch| matcher.matches(batch, &mut hits));
    let all = timed(&mut |batch| matcher.matches(batch, &mut hits));
    let routing = timed(&mut |batch| matcher.count_sources(batch, &mut sources));
    Some(all.saturating_sub(routing).as_secs_f64() * 1e12 / rows as f64)
}

/// Reports on some rules (by their ordinals) and correlations (by their places) of a set over a tenant's rows.
///
/// # Errors
/// [`ReadError`] when a segment can't be read.
pub fn report(
    rules: &Rules,
    (ordinals, places): (&[u32], &[usize]),
    snapshot: &Snapshot,
    tenant: &TenantId,
    options: &ReportOptions,
) -> Result<Report, ReadError> {
    let cache = ReadCache::new(ReadCache::DEFAULT_BYTES);
    let book = &rules.book;
    let mut survey = Survey::new(book, ordinals);
    let mut matches = vec![0u64; book.rules().count()];
    let mut found = Found::default();
    let mut hits = Hits::new();
    let (mut measured, mut room) = (Vec::new(), MOST_MEASURED);
    let sample = read_sample(snapshot, tenant, &cache, options, |batch| {
        survey.take(batch);
        rules.matches(batch, &mut hits);
        for (_, rule) in hits.iter() {
            if let Some(matches) = matches.get_mut(rule as usize) {
                *matches += 1;
            }
        }
        if !places.is_empty() {
            found.take(rules, batch, |_, _| {});
        }
        if room > 0 {
            let part = batch.slice(0, batch.num_rows().min(room));
            room -= part.num_rows();
            measured.push(part);
        }
    })?;
    let Sample { rows: of, sampled, days } = sample;
    // A sample tells nothing about counts.
    let whole = sampled == of && !places.is_empty();
    let searched_all = search(&mut survey, snapshot, tenant, &cache, options)?;
    let together = cost(&book.matcher().only(ordinals), ordinals.len(), &measured);
    let begun = Instant::now();
    let up = if sampled == 0 { 0.0 } else { of as f64 / sampled as f64 };
    let mut reports = Vec::new();
    for ordinal in ordinals {
        let (Some(rule), Some(needs)) = (book.rule(*ordinal), survey.needs(*ordinal)) else {
            continue;
        };
        let matches = matches.get(*ordinal as usize).copied().unwrap_or(0);
        let micros = (begun.elapsed() < options.longest)
            .then(|| cost(&book.matcher().only(&[*ordinal]), 1, &measured))
            .flatten();
        let alerts = if book.makes_alerts(*ordinal) { matches as f64 * up } else { 0.0 };
        let missing = needs.fields.iter().filter(|need| !need.seen);
        reports.push(RuleReport {
            id: rule.id.clone(),
            title: rule.title.clone(),
            level: rule.level.name(),
            micros_per_million: micros,
            matches,
            alerts_per_day: alerts / days,
            blind: needs.blind,
            missing: missing.map(|need| need.name.clone()).collect(),
            source: rule.source.clone(),
            source_rows: needs.rows,
            fields: needs.fields,
        });
    }
    reports.sort_by(|one, other| {
        let order = other.blind.cmp(&one.blind);
        let order = order.then(other.alerts_per_day.total_cmp(&one.alerts_per_day));
        order.then_with(|| one.id.cmp(&other.id))
    });
    let alerts = if whole { found.alerts(rules, Range::default()) } else { Vec::new() };
    let correlations = places.iter().filter_map(|place| {
        let correlation = book.correlations().get(*place)?;
        let of = alerts.iter().filter(|alert| alert.correlation == *place).count();
        Some(CorrelationReport {
            id: correlation.id.clone(),
            title: correlation.about.title.clone(),
            alerts_per_day: whole.then_some(of as f64 / days),
        })
    });
    Ok(Report {
        days,
        rows: of,
        sampled,
        micros_per_million: together,
        searched_all,
        correlations: correlations.collect(),
        rules: reports,
    })
}

/// Looks through all history for fields that the sample has not: only where a segment has a column for one, and only
/// that column. Says whether time sufficed.
fn search(
    survey: &mut Survey<'_>,
    snapshot: &Snapshot,
    tenant: &TenantId,
    cache: &ReadCache,
    options: &ReportOptions,
) -> Result<bool, ReadError> {
    let ever = i64::MIN..i64::MAX;
    let begun = Instant::now();
    for batch in stored_memory(snapshot, tenant, &ever) {
        survey.take_columns(&batch);
    }
    for segment in stored_segments(snapshot, tenant, cache, &ever)?.iter().rev() {
        let wanted = survey.wants();
        if wanted.is_empty() {
            return Ok(true);
        }
        if !segment.schema().fields().iter().any(|field| wanted.contains(field.name())) {
            continue;
        }
        for batch in segment.read(&|name| wanted.contains(name))? {
            survey.take_columns(&batch?);
            if begun.elapsed() > options.longest {
                return Ok(false);
            }
        }
    }
    Ok(true)
}
