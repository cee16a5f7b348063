//! The naive evaluator that **defines** what correlations answer (K1, K2).
//!
//! A fold over the sorted hits of one domain and group, as short as it can be; the live evaluator and the hunt are
//! tested against it, id by id and with all evidence (K4). What Sigma leaves open is decided here; `docs/correlations.md`
//! gives the reasons.

use super::alert::{Alert, AlertId, Anchor, Evidence};
use super::definition::{Correlation, Measure};
use super::hit::{Hit, HitKind, ONE, fixed_point};
use super::resolve::Correlations;
use palisade_event::RecordId;
use palisade_event::time::SECOND;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A hit within its group.
#[derive(Debug, Clone, Copy)]
struct Counted {
    time: i64,
    record: RecordId,
    input: u16,
    value: u64,
}

/// A window that fulfils the condition: the places of its first and last hit, and when it decides.
struct Fulfilling {
    first: usize,
    last: usize,
    decided: i64,
}

/// A range of event time that is looked at: hits are in `[start, end)`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Range {
    /// Answers begin at the first cut from which on they are complete (K2); without it, with the first hit.
    pub start: Option<i64>,
    /// What decides here or later is not answered.
    pub end: Option<i64>,
}

/// For each correlation, the time from which on it answers over a range (K2): the first cut ≥ start + 5 min + timespan,
/// where a correlation that reads others starts at their first cuts.
#[must_use]
pub fn first_cuts(correlations: &Correlations, start: Option<i64>) -> Vec<i64> {
    let Some(start) = start else { return vec![i64::MIN; correlations.len()] };
    let mut cuts: Vec<i64> = Vec::new();
    for (_, correlation) in correlations.iter() {
        let below = correlation.reads().filter_map(|place| cuts.get(place).copied()).max();
        let start = start.saturating_add(300 * SECOND).max(below.unwrap_or(i64::MIN));
        cuts.push(correlation.first_cut(start));
    }
    cuts
}

/// The alerts that stand once everything is final, by correlation, tenant, domain, group and time. `hits` are those of records, in
/// any order; repeats of a hit change nothing.
#[must_use]
pub fn evaluate<'h>(
    correlations: &Correlations,
    hits: impl IntoIterator<Item = Hit<'h>>,
    range: Range,
) -> Vec<Alert> {
    type Groups = BTreeMap<(String, String, Vec<u8>), Vec<Counted>>;
    let mut groups: Vec<Groups> = vec![Groups::new(); correlations.len()];
    let add = |groups: &mut Vec<Groups>, hit: &Hit<'_>| {
        let Some(correlation) = correlations.get(hit.correlation) else { return };
        let Some(value) = correlation.admits(hit) else { return };
        if let Some(groups) = groups.get_mut(hit.correlation) {
            let group = (hit.tenant.to_owned(), hit.domain.to_owned(), hit.group.to_vec());
            let Hit { time, record, input, .. } = *hit;
            groups.entry(group).or_default().push(Counted { time, record, input, value });
        }
    };
    hits.into_iter().for_each(|hit| add(&mut groups, &hit));
    let cuts = first_cuts(correlations, range.start);
    let mut alerts = Vec::new();
    for (place, correlation) in correlations.iter() {
        let of_this = groups.get_mut(place).map(std::mem::take).unwrap_or_default();
        for ((tenant, domain, group), hits) in of_this {
            for (anchor, opened, evidence) in fold(correlation, hits, range.end) {
                let from = cuts.get(place).copied().unwrap_or(i64::MIN);
                if opened < from {
                    continue;
                }
                let id = AlertId::new(correlation, &tenant, &domain, &group, &anchor);
                for (reader, input) in correlations.readers_of_correlation(place) {
                    if let Some(hit) = correlations.hit_of_alert(
                        (reader, input),
                        (id, opened, HitKind::Alert),
                        (&tenant, &domain),
                        &group,
                    ) {
                        add(&mut groups, &hit.as_hit(1));
                    }
                }
                alerts.push(Alert {
                    id,
                    correlation: place,
                    tenant: Arc::from(tenant.as_str()),
                    domain: Arc::from(domain.as_str()),
                    group: Arc::from(group.as_slice()),
                    anchor,
                    opened,
                    evidence,
                });
            }
        }
    }
    alerts
}

/// K1 and K2 for the hits of one domain and group: anchor, opening time and evidence of each episode that opens before `end`.
fn fold(
    correlation: &Correlation,
    mut hits: Vec<Counted>,
    end: Option<i64>,
) -> Vec<(Anchor, i64, Vec<Evidence>)> {
    hits.sort_unstable_by_key(|hit| (hit.time, hit.record, hit.input));
    // Counts are of distinct records: of a record that matched several rules, the first rule's hit counts. Where rules
    // are told apart, a record that matched several stands for each of them.
    let per_record = correlation.measure.is_per_record();
    hits.dedup_by_key(|hit| (hit.time, hit.record, if per_record { 0 } else { hit.input }));

    // What decides at the end of the range or later is left open.
    let is_decided = |window: &Fulfilling| end.is_none_or(|end| window.decided < end);
    let timespan = correlation.timespan;
    let mut episodes: Vec<(Anchor, i64, i64, BTreeSet<Evidence>)> = Vec::new();
    for window in windows(correlation, &hits).into_iter().filter(is_decided) {
        let members = hits.get(window.first..=window.last).unwrap_or_default();
        let Some(first) = members.first() else { continue };
        // A cut ends every episode (K2).
        let period = window.decided.div_euclid(correlation.period());
        let evidence = members.iter().map(|hit| Evidence {
            time: hit.time,
            record: hit.record,
            input: hit.input,
        });
        match episodes.last_mut() {
            Some((anchor, _, last, union))
                if anchor.period == period && window.decided - *last < timespan =>
            {
                *last = window.decided;
                union.extend(evidence);
            }
            _ => {
                let anchor = Anchor { period, time: first.time, record: first.record };
                episodes.push((anchor, window.decided, window.decided, evidence.collect()));
            }
        }
    }
    let finish = |(anchor, opened, _, evidence): (Anchor, i64, i64, BTreeSet<Evidence>)| {
        (anchor, opened, evidence.into_iter().collect())
    };
    episodes.into_iter().map(finish).collect()
}

/// The windows that fulfil the condition, in order.
fn windows(correlation: &Correlation, hits: &[Counted]) -> Vec<Fulfilling> {
    let timespan = correlation.timespan;
    let mut found = Vec::new();
    for (place, hit) in hits.iter().enumerate() {
        let decided = correlation.decided_at(hit.time);
        let (first, last) = if correlation.measure == Measure::Absence {
            // "A, not followed by B within T": its window is A alone. A B of the same time counts as following.
            let answers = |other: &&Counted| {
                other.input > 0 && other.time >= hit.time && other.time < hit.time + timespan
            };
            if hit.input == 0 && !hits.iter().any(|other| answers(&other)) {
                found.push(Fulfilling { first: place, last: place, decided });
            }
            continue;
        } else if correlation.is_tumbling() {
            // The whole window [decided − T, decided), once: at its last hit.
            if hits.get(place + 1).is_some_and(|next| next.time < decided) {
                continue;
            }
            (hits.partition_point(|other| other.time < decided - timespan), place)
        } else {
            (hits.partition_point(|other| other.time <= hit.time - timespan), place)
        };
        if fulfils(correlation, hits.get(first..=last).unwrap_or_default()) {
            found.push(Fulfilling { first, last, decided });
        }
    }
    found
}

fn fulfils(correlation: &Correlation, window: &[Counted]) -> bool {
    let count = window.len() as i128;
    let numbers = || {
        window.iter().filter_map(|hit| fixed_point(f64::from_bits(hit.value))).collect::<Vec<_>>()
    };
    let rules: BTreeSet<u16> = window.iter().map(|hit| hit.input).collect();
    match &correlation.measure {
        Measure::Events(threshold) => threshold.holds(count, 1),
        Measure::Values { threshold, sampling } => {
            let values: BTreeSet<u64> = window.iter().map(|hit| hit.value).collect();
            threshold.holds((values.len() as i128) << sampling, 1)
        }
        Measure::Sum(threshold) => threshold.holds(numbers().iter().sum(), ONE),
        // Sum and count are compared, so that nothing is rounded.
        Measure::Average(threshold) => threshold.holds(numbers().iter().sum(), ONE * count),
        Measure::Percentile { threshold, rank } => {
            let mut numbers = numbers();
            numbers.sort_unstable();
            let nearest = (numbers.len() * usize::from(*rank)).div_ceil(100).max(1);
            numbers.get(nearest - 1).is_some_and(|number| threshold.holds(*number, ONE))
        }
        Measure::Rules(threshold) => threshold.holds(rules.len() as i128, 1),
        Measure::Expression(expression) => expression.holds(&|rule| rules.contains(&rule)),
        Measure::Ordered => {
            // A hit of each rule, none earlier than that of the rule before: taking the earliest each time is enough.
            let mut at = i64::MIN;
            (0..correlation.inputs.len()).all(|step| {
                let of_step = |hit: &&Counted| usize::from(hit.input) == step && hit.time >= at;
                let next = window.iter().find(of_step).map(|hit| hit.time);
                at = next.unwrap_or(at);
                next.is_some()
            })
        }
        Measure::Absence => false,
    }
}
