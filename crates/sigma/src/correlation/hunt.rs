//! Hunts: the live evaluator over history, and what stands once it is final.

use super::alert::{Alert, AlertId, Evidence, Revision, Standing};
use super::hit::{BACKFILL, Hit, HitKind, Origin, Position};
use super::live::{Live, Options, SnapshotError};
use super::reference::{Range, first_cuts};
use super::resolve::Correlations;
use palisade_event::time::SECOND;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// After so many hits a hunt lets go what is final.
const HITS_PER_TICK: u32 = 1_024;

/// The alerts that stand after some revisions, with their evidence.
#[derive(Debug, Clone, Default)]
pub struct Standings {
    alerts: BTreeMap<AlertId, Held>,
}

#[derive(Debug, Clone)]
struct Held {
    number: u32,
    alert: Option<Alert>,
}

impl Standings {
    /// Takes a revision in. One whose number is not above that of the last for its alert is a repeat and ignored.
    pub fn apply(&mut self, revision: &Revision) {
        let held =
            self.alerts.entry(revision.id).or_insert_with(|| Held { number: 0, alert: None });
        if revision.number <= held.number {
            return;
        }
        held.number = revision.number;
        let stays = held.alert.take().map(|alert| alert.evidence).unwrap_or_default();
        if revision.standing == Standing::Retracted {
            return;
        }
        let mut evidence: Vec<Evidence> =
            stays.into_iter().filter(|evidence| *evidence < revision.from).collect();
        evidence.extend_from_slice(&revision.evidence);
        held.alert = Some(Alert {
            id: revision.id,
            correlation: revision.correlation,
            tenant: Arc::clone(&revision.tenant),
            domain: Arc::clone(&revision.domain),
            group: Arc::clone(&revision.group),
            anchor: revision.anchor,
            opened: revision.opened,
            evidence,
        });
    }

    /// What stands, ordered by correlation, tenant, domain, group and opening time.
    #[must_use]
    pub fn into_alerts(self) -> Vec<Alert> {
        let mut alerts: Vec<Alert> =
            self.alerts.into_values().filter_map(|held| held.alert).collect();
        alerts.sort_by(|a, b| {
            let key = |alert: &Alert| (alert.correlation, alert.opened, alert.id);
            (&a.tenant, &a.domain, &a.group)
                .cmp(&(&b.tenant, &b.domain, &b.group))
                .then_with(|| key(a).cmp(&key(b)))
        });
        alerts.sort_by_key(|alert| alert.correlation);
        alerts
    }
}

/// A live evaluator whose alerts come back to it as hits, for correlations over correlations: one process with one
/// partition, and hunts. Elsewhere alerts go through the internal log (H1).
#[derive(Debug)]
pub struct Cascade {
    correlations: Correlations,
    live: Live,
    /// Over how many slots tenants are spread.
    spread: u16,
    /// The stages of alerts, from 1 on.
    stages: u8,
    position: u64,
    /// From where on each correlation answers, and before when all do.
    cuts: Vec<i64>,
    end: i64,
}

impl Cascade {
    /// An evaluator over a range; without one, for everything.
    #[must_use]
    pub fn new(correlations: Correlations, spread: u16, options: Options, range: Range) -> Self {
        let stages = stages(&correlations);
        let origins = (0..=stages).map(|stage| Origin { stage, partition: 0 });
        let live = Live::new(&correlations, origins, options);
        let cuts = first_cuts(&correlations, range.start);
        let end = range.end.unwrap_or(i64::MAX);
        Self { correlations, live, spread, stages, position: 0, cuts, end }
    }

    /// Puts other correlations in force, see [`Live::reload`]. The revisions are of correlations as they were.
    pub fn reload(&mut self, correlations: Correlations, out: &mut Vec<Revision>) {
        self.live.reload(&correlations, out);
        self.stages = stages(&correlations);
        for stage in 0..=self.stages {
            self.live.join(Origin { stage, partition: 0 });
        }
        self.cuts = first_cuts(&correlations, None);
        self.correlations = correlations;
    }

    /// The state, for snapshots and figures.
    pub fn live_mut(&mut self) -> &mut Live {
        &mut self.live
    }

    /// Takes in the state of a chain of snapshots, see [`Live::load`].
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn load<'b>(
        &mut self,
        chain: impl IntoIterator<Item = &'b [u8]>,
    ) -> Result<(), SnapshotError> {
        self.live.load(chain, |_| true)?;
        self.position = self.live.highest_of_alerts();
        Ok(())
    }

    /// Takes in a record's hit.
    pub fn hit(&mut self, position: Position, hit: &Hit<'_>, out: &mut Vec<Revision>) {
        let from = out.len();
        self.live.hit((Origin { stage: 0, partition: 0 }, position), hit, out);
        self.feed(from, out);
    }

    /// History is read for these correlations, see [`Live::begin_backfill`]; where it begins at a start, they answer to
    /// others from the first cut behind it on.
    pub fn begin_backfill(&mut self, places: impl IntoIterator<Item = usize>, start: Option<i64>) {
        let cuts = first_cuts(&self.correlations, start);
        let places = places.into_iter().inspect(|place| {
            if let (Some(cut), Some(first)) = (self.cuts.get_mut(*place), cuts.get(*place)) {
                *cut = *first;
            }
        });
        self.live.begin_backfill(places);
    }

    /// Takes in a hit of a stored record, for a correlation that is being backfilled.
    pub fn stored_hit(&mut self, position: Position, hit: &Hit<'_>, out: &mut Vec<Revision>) {
        if self.live.is_backfilling(hit.correlation) {
            let from = out.len();
            self.live.hit((BACKFILL, position), hit, out);
            self.feed(from, out);
        }
    }

    /// All stored records of these domains whose event time is before `until` were read.
    pub fn backfilled<'d>(
        &mut self,
        domains: impl IntoIterator<Item = &'d str>,
        until: i64,
        out: &mut Vec<Revision>,
    ) {
        for domain in domains {
            let from = out.len();
            self.live.progress(BACKFILL, domain, until, Some(until), out);
            self.feed(from, out);
        }
    }

    /// All of history was read.
    pub fn end_backfill(&mut self, out: &mut Vec<Revision>) {
        let from = out.len();
        self.live.end_backfill(out);
        self.feed(from, out);
    }

    /// The clock of the records of a domain went on; see [`Live::progress`].
    pub fn progress(
        &mut self,
        domain: &str,
        clock: i64,
        frontier: Option<i64>,
        out: &mut Vec<Revision>,
    ) {
        for stage in 0..=self.stages {
            let from = out.len();
            let origin = Origin { stage, partition: 0 };
            self.live.progress(origin, domain, clock, frontier.filter(|_| stage == 0), out);
            self.feed(from, out);
        }
    }

    /// A tick; the frontiers of these domains go on to those correlations that read others.
    pub fn tick<'d>(
        &mut self,
        domains: impl IntoIterator<Item = &'d str>,
        out: &mut Vec<Revision>,
    ) {
        let from = out.len();
        self.live.tick(out);
        self.feed(from, out);
        for domain in domains {
            for (place, correlation) in self.correlations.iter() {
                if correlation.is_read {
                    let settled = self.live.settled(place, domain);
                    let origin = Origin { stage: correlation.depth + 1, partition: 0 };
                    self.live.progress_output(origin, domain, place, settled);
                }
            }
        }
    }

    /// Ends a domain: everything in it becomes final.
    pub fn end(&mut self, domain: &str, out: &mut Vec<Revision>) {
        self.progress(domain, i64::MAX, Some(i64::MAX), out);
        for _ in 0..=self.stages {
            self.tick([domain], out);
        }
    }

    /// What is evaluated.
    #[must_use]
    pub fn correlations(&self) -> &Correlations {
        &self.correlations
    }

    /// The evaluator, for its counters and its memory.
    #[must_use]
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// Alerts as hits, and the alerts that come of those, until none comes.
    fn feed(&mut self, mut from: usize, out: &mut Vec<Revision>) {
        while let Some(revision) = out.get(from).cloned() {
            from += 1;
            let Some(correlation) = self.correlations.get(revision.correlation) else { continue };
            let origin = Origin { stage: correlation.depth + 1, partition: 0 };
            let cut = self.cuts.get(revision.correlation).copied().unwrap_or(i64::MIN);
            for chained in self.correlations.hits_of_revision(&revision) {
                let hit = chained.as_hit(self.spread);
                if hit.time >= cut && hit.time < self.end {
                    self.position += 1;
                    let position = Position { offset: self.position, row: 0, ordinal: 0 };
                    self.live.hit((origin, position), &hit, out);
                }
            }
        }
    }
}

/// The stages of alerts.
fn stages(correlations: &Correlations) -> u8 {
    correlations.iter().map(|(_, correlation)| correlation.depth).max().unwrap_or(0)
}

/// A hunt at work: the live evaluator, told that nothing comes before the hit that it is at.
#[derive(Debug)]
pub struct Hunting {
    cascade: Cascade,
    range: Range,
    standings: Standings,
    out: Vec<Revision>,
    domains: BTreeSet<String>,
    offset: u64,
    since_tick: u32,
}

impl Hunting {
    /// A hunt over a range.
    #[must_use]
    pub fn new(
        correlations: &Correlations,
        range: Range,
        (spread, options): (u16, Options),
    ) -> Self {
        Self {
            cascade: Cascade::new(correlations.clone(), spread, options, range),
            range,
            standings: Standings::default(),
            out: Vec::new(),
            domains: BTreeSet::new(),
            offset: 0,
            since_tick: 0,
        }
    }

    /// Takes in a record's hit. None before had a later time.
    pub fn hit(&mut self, hit: &Hit<'_>) {
        if !self.domains.contains(hit.domain) {
            self.domains.insert(hit.domain.to_owned());
        }
        debug_assert!(hit.kind == HitKind::Record, "alerts are made here");
        self.offset += 1;
        self.since_tick += 1;
        if self.since_tick == HITS_PER_TICK {
            self.since_tick = 0;
            for domain in &self.domains {
                self.cascade.progress(domain, hit.time, Some(hit.time), &mut self.out);
            }
            self.cascade.tick(self.domains.iter().map(String::as_str), &mut self.out);
            self.out.drain(..).for_each(|revision| self.standings.apply(&revision));
        }
        let position = Position { offset: self.offset, row: 0, ordinal: 0 };
        self.cascade.hit(position, hit, &mut self.out);
    }

    /// The alerts that stand, in the order of [`Standings::into_alerts`].
    #[must_use]
    pub fn finish(mut self) -> Vec<Alert> {
        for domain in &self.domains {
            self.cascade.end(domain, &mut self.out);
        }
        self.out.iter().for_each(|revision| self.standings.apply(revision));
        let (correlations, range) = (&self.cascade.correlations, self.range);
        let cuts = first_cuts(correlations, range.start);
        let answers = |alert: &Alert| {
            cuts.get(alert.correlation).is_none_or(|cut| alert.opened >= *cut)
                && range.end.is_none_or(|end| alert.opened < end)
        };
        let mut alerts: Vec<Alert> =
            self.standings.into_alerts().into_iter().filter(answers).collect();
        // What decides at the end or later is left open, also in an episode that opened before.
        for alert in &mut alerts {
            if let (Some(end), Some(correlation)) = (range.end, correlations.get(alert.correlation))
            {
                alert.evidence.retain(|evidence| correlation.decided_at(evidence.time) < end);
            }
        }
        alerts
    }
}

/// From where on the hits of records have to be known so that every correlation answers from `start` on (K2).
#[must_use]
pub fn lead(correlations: &Correlations, start: i64) -> i64 {
    let mut from = start;
    // From when on each has to answer: those that are read stand before their readers.
    let mut since = vec![start; correlations.len()];
    let places: Vec<_> = correlations.iter().collect();
    for (place, correlation) in places.into_iter().rev() {
        let Some(answers) = since.get(place) else { continue };
        let cut = answers.div_euclid(correlation.period()).saturating_mul(correlation.period());
        let needed = cut.saturating_sub(correlation.timespan);
        from = from.min(needed.saturating_sub(300 * SECOND));
        for below in correlation.reads() {
            if let Some(since) = since.get_mut(below) {
                *since = needed.min(*since);
            }
        }
    }
    from
}

/// The final alerts over a range, from the hits of its records **sorted by time**.
#[must_use]
pub fn hunt<'h>(
    correlations: &Correlations,
    hits: impl IntoIterator<Item = Hit<'h>>,
    range: Range,
    options: (u16, Options),
) -> Vec<Alert> {
    let mut hunting = Hunting::new(correlations, range, options);
    for hit in hits {
        hunting.hit(&hit);
    }
    hunting.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Book;

    #[test]
    fn a_lead_lets_every_correlation_answer_from_the_start_on() {
        let rule = "title: a\nname: a\nlogsource: {category: x}\ndetection: {s: {type: a}, condition: s}\n";
        let over = |name: &str, below: &str, span: &str| {
            format!(
                "---\ntitle: {name}\nname: {name}\nid: {name}\ncorrelation:\n  type: event_count\n  rules: [{below}]\n  group-by: [user]\n  timespan: {span}\n  condition: {{gte: 2}}\n"
            )
        };
        let text = format!(
            "{rule}{}{}{}",
            over("b", "a", "7h"),
            over("c", "b", "1m"),
            over("d", "c", "3d")
        );
        let book = Book::read([("rules.yml", text.as_str())]);
        assert!(book.refused().is_empty(), "{:?}", book.refused());
        for start in [0, 1_700_000_000_000_000, 1_767_571_200_000_000, 86_399_999_999] {
            let from = lead(book.correlations(), start);
            let cuts = first_cuts(book.correlations(), Some(from));
            assert_eq!(cuts.len(), 3);
            assert!(cuts.iter().all(|cut| *cut <= start), "{start}: {from} {cuts:?}");
            // And not from much earlier: a period of the longest and the timespans.
            assert!(start - from <= (12 * 86_400 + 5 * 86_400) * SECOND, "{start}: {from}");
        }
    }
}
