//! What is known of time: for each domain the clock and the frontier of every origin (T5), and the timers that wait for the
//! clocks.

use super::super::hit::{BACKFILL, Origin};
use super::Rule;
use palisade_event::domain::is_live;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

/// The bit of [`BACKFILL`] among the stages that a correlation waits for.
pub(super) const BACKFILL_BIT: u16 = 1 << BACKFILL.stage;
/// Not heard of yet.
pub(super) const NEVER: i64 = i64::MIN;

/// A group that is to be looked at when the least clock reaches `due`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Timer {
    pub(super) due: i64,
    pub(super) slot: u16,
    /// Of the group's name: orders timers, and tells whether the handle is still that group's.
    pub(super) hash: u64,
    pub(super) handle: u32,
}

/// How far an origin is in a domain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) clock: Option<i64>,
    /// Where it does not follow from the clock and the correlation's lateness.
    pub(super) frontier: Option<i64>,
    /// For origins of alerts: by correlation.
    pub(super) outputs: BTreeMap<u32, i64>,
}

/// Timers that wait for the same clocks: those of the origins of some stages.
#[derive(Debug, Default)]
pub(super) struct Lane {
    pub(super) stages: u16,
    pub(super) least: Option<i64>,
    pub(super) timers: BinaryHeap<Reverse<Timer>>,
}

#[derive(Debug)]
pub(super) struct Domain {
    pub(super) name: Arc<str>,
    pub(super) is_live: bool,
    pub(super) progress: BTreeMap<Origin, Progress>,
    pub(super) lanes: Vec<Lane>,
    /// For each rule: everything that decides before is final and was given out, as of the last tick.
    pub(super) settled: Vec<i64>,
    pub(super) groups: usize,
    /// Everything in it is final and let go; the next tick forgets it.
    pub(super) is_over: bool,
}

fn reads(stages: u16, origin: Origin) -> bool {
    1_u16.checked_shl(u32::from(origin.stage)).is_some_and(|bit| stages & bit != 0)
}

impl Domain {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: Arc::from(name),
            is_live: is_live(Some(name)),
            progress: BTreeMap::new(),
            lanes: Vec::new(),
            settled: Vec::new(),
            groups: 0,
            is_over: false,
        }
    }

    /// The lane of a correlation that reads these stages.
    pub(super) fn lane(&mut self, stages: u16, origins: &BTreeSet<Origin>) -> Option<&mut Lane> {
        let place = match self.lanes.iter().position(|lane| lane.stages == stages) {
            Some(place) => place,
            None => {
                let least = self.least_clock(stages, origins);
                self.lanes.push(Lane { stages, least: Some(least), timers: BinaryHeap::new() });
                self.lanes.len() - 1
            }
        };
        self.lanes.get_mut(place)
    }

    /// The least clock of the origins of these stages; one not heard of yet is at −∞.
    pub(super) fn least_clock(&self, stages: u16, origins: &BTreeSet<Origin>) -> i64 {
        let clock = |origin: &Origin| {
            self.progress.get(origin).and_then(|progress| progress.clock).unwrap_or(NEVER)
        };
        // Each stage that is read needs an origin.
        let heard = origins.iter().filter(|origin| reads(stages, **origin));
        let found = heard.clone().fold(0_u16, |found, origin| found | 1 << origin.stage);
        if found != stages { NEVER } else { heard.map(clock).min().unwrap_or(NEVER) }
    }

    /// The least frontier of the origins of a correlation.
    pub(super) fn frontier(&self, rule: &Rule, origins: &BTreeSet<Origin>) -> i64 {
        let (correlation, stages) = (&rule.correlation, rule.stages());
        let mut least = i64::MAX;
        let mut found = 0_u16;
        for origin in origins.iter().filter(|origin| reads(stages, **origin)) {
            found |= 1 << origin.stage;
            let Some(progress) = self.progress.get(origin) else { return NEVER };
            if origin.stage == 0 || *origin == BACKFILL {
                let clock = progress.clock.unwrap_or(NEVER);
                let of_clock = if clock == i64::MAX {
                    clock
                } else {
                    clock.saturating_sub(correlation.lateness)
                };
                least = least.min(progress.frontier.unwrap_or(of_clock));
            } else {
                for (_, rule) in rule.upstream.iter().filter(|(stage, _)| *stage == origin.stage) {
                    least = least.min(progress.outputs.get(rule).copied().unwrap_or(NEVER));
                }
            }
        }
        if found != stages { NEVER } else { least }
    }

    /// Nothing is known of a rule any more: its number is another's from now on.
    pub(super) fn forget_rule(&mut self, rule: u32) {
        if let Some(settled) = self.settled.get_mut(rule as usize) {
            *settled = NEVER;
        }
        for progress in self.progress.values_mut() {
            progress.outputs.remove(&rule);
        }
    }

    pub(super) fn settled(&self, rule: u32) -> i64 {
        self.settled.get(rule as usize).copied().unwrap_or(NEVER)
    }

    pub(super) fn settle(&mut self, rule: u32, until: i64) {
        let rule = rule as usize;
        if self.settled.len() <= rule {
            self.settled.resize(rule + 1, NEVER);
        }
        if let Some(settled) = self.settled.get_mut(rule) {
            *settled = until.max(*settled);
        }
    }
}
