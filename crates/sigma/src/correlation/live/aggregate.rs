//! What is measured over a window, kept up as hits enter and leave it at either end.
//!
//! Everything here can be undone exactly (sums are whole multiples of 2^−32), so a window moves back for a hit that
//! came late as it moves forward, at the cost of the hits passed. Percentiles are compared with constants only, so
//! counting the numbers on each side of a constant answers them without sorting. `Ordered` alone can't be undone: it is
//! built again from the beginning of the window of the hit that came late.

use super::super::condition::{Comparison, Threshold};
use super::super::definition::{Correlation, Measure};
use super::super::hit::{ONE, fixed_point};
use super::hits::Hits;
use hashbrown::HashTable;
use smallvec::SmallVec;

/// A window over the places `from..to` of a group's hits.
#[derive(Debug, Default)]
pub(super) struct Window {
    pub(super) from: usize,
    pub(super) to: usize,
    aggregate: Aggregate,
}

#[derive(Debug, Default)]
enum Aggregate {
    #[default]
    Nothing,
    Values(HashTable<(u64, u32)>),
    Numbers(Numbers),
    Rules {
        counts: SmallVec<[u32; 8]>,
        present: u32,
    },
    Ordered(Ordered),
}

#[derive(Debug, Default)]
struct Numbers {
    sum: i128,
    count: i128,
    /// For each comparison: how many are less than its constant, and less or equal.
    less: SmallVec<[(i128, i128); 2]>,
}

#[derive(Debug, Default)]
struct Ordered {
    /// For each step, the latest moment at which a sequence that reaches it began.
    begun: SmallVec<[i64; 4]>,
    /// The moment of the last hit, and which steps had a hit in it: equal times count as in order.
    moment: i64,
    seen: SmallVec<[bool; 8]>,
}

fn spread(value: u64) -> u64 {
    value.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Window {
    /// An empty window before the place `at`.
    pub(super) fn reset(&mut self, correlation: &Correlation, at: usize) {
        (self.from, self.to) = (at, at);
        let steps = correlation.inputs.len();
        match &correlation.measure {
            Measure::Events(_) | Measure::Absence => self.aggregate = Aggregate::Nothing,
            Measure::Values { .. } => match &mut self.aggregate {
                Aggregate::Values(table) if table.capacity() <= 128 => table.clear(),
                other => *other = Aggregate::Values(HashTable::new()),
            },
            Measure::Sum(threshold)
            | Measure::Average(threshold)
            | Measure::Percentile { threshold, .. } => {
                let less = threshold.0.iter().map(|_| (0, 0)).collect();
                self.aggregate = Aggregate::Numbers(Numbers { sum: 0, count: 0, less });
            }
            Measure::Rules(_) | Measure::Expression(_) => {
                let counts = SmallVec::from_elem(0, steps);
                self.aggregate = Aggregate::Rules { counts, present: 0 };
            }
            Measure::Ordered => {
                self.aggregate = Aggregate::Ordered(Ordered {
                    begun: SmallVec::from_elem(i64::MIN, steps),
                    moment: i64::MIN,
                    seen: SmallVec::from_elem(false, steps),
                });
            }
        }
    }

    /// Whether hits can be taken out again at the end.
    fn can_undo(&self) -> bool {
        !matches!(self.aggregate, Aggregate::Ordered(_))
    }

    fn change(&mut self, correlation: &Correlation, hits: &Hits, at: usize, enters: bool) {
        match &mut self.aggregate {
            Aggregate::Nothing => {}
            Aggregate::Values(table) => {
                let value = hits.value(at);
                let same = |entry: &(u64, u32)| entry.0 == value;
                if enters {
                    match table.find_mut(spread(value), same) {
                        Some((_, count)) => *count += 1,
                        None => {
                            table.insert_unique(spread(value), (value, 1), |entry| spread(entry.0));
                        }
                    }
                } else if let Ok(mut entry) = table.find_entry(spread(value), same) {
                    entry.get_mut().1 -= 1;
                    if entry.get().1 == 0 {
                        entry.remove();
                    }
                }
            }
            Aggregate::Numbers(numbers) => {
                let Some(number) = fixed_point(f64::from_bits(hits.value(at))) else { return };
                let sign = if enters { 1 } else { -1 };
                numbers.sum += sign * number;
                numbers.count += sign;
                let constants = correlation.measure.threshold().map_or(&[][..], |t| &t.0);
                for ((_, constant), (less, less_or_equal)) in
                    constants.iter().zip(&mut numbers.less)
                {
                    let constant = i128::from(*constant) * ONE;
                    *less += sign * i128::from(number < constant);
                    *less_or_equal += sign * i128::from(number <= constant);
                }
            }
            Aggregate::Rules { counts, present } => {
                let Some(count) = counts.get_mut(usize::from(hits.input(at))) else { return };
                if enters {
                    *present += u32::from(*count == 0);
                    *count += 1;
                } else {
                    *count -= 1;
                    *present -= u32::from(*count == 0);
                }
            }
            Aggregate::Ordered(ordered) => {
                if enters {
                    ordered.enter(hits.time(at), usize::from(hits.input(at)));
                }
            }
        }
    }

    /// Takes in the next hit and lets those go that are a timespan older: the window of that hit.
    pub(super) fn advance(&mut self, correlation: &Correlation, hits: &Hits) {
        let since = hits.time(self.to) - correlation.timespan;
        self.change(correlation, hits, self.to, true);
        self.to += 1;
        while self.from < self.to && hits.time(self.from) <= since {
            self.change(correlation, hits, self.from, false);
            self.from += 1;
        }
    }

    /// Takes in the next hit and lets none go.
    pub(super) fn extend(&mut self, correlation: &Correlation, hits: &Hits) {
        self.change(correlation, hits, self.to, true);
        self.to += 1;
    }

    /// Takes in a hit that was put at a place within the window, whose order means nothing.
    pub(super) fn enter(&mut self, correlation: &Correlation, hits: &Hits, at: usize) {
        self.change(correlation, hits, at, true);
        self.to += 1;
    }

    /// Moves back, so that it ends before the place `at` and begins where the window of a hit of `time` does.
    pub(super) fn rewind(&mut self, correlation: &Correlation, hits: &Hits, at: usize, time: i64) {
        let since = time - correlation.timespan;
        if at < self.from || !self.can_undo() {
            self.reset(correlation, hits.after(since).min(at));
            while self.to < at {
                self.extend(correlation, hits);
            }
            return;
        }
        while self.to > at {
            self.to -= 1;
            self.change(correlation, hits, self.to, false);
        }
        while self.from > 0 && hits.time(self.from - 1) > since {
            self.from -= 1;
            self.change(correlation, hits, self.from, true);
        }
    }

    /// The first `count` hits of the group are gone; the window does not hold them any more.
    pub(super) fn leave(&mut self, correlation: &Correlation, hits: &Hits, count: usize) {
        while self.from < count.min(self.to) {
            self.change(correlation, hits, self.from, false);
            self.from += 1;
        }
        self.from = self.from.saturating_sub(count);
        self.to = self.to.saturating_sub(count);
    }

    /// Whether the window fulfils the condition; `last` is the time of its last hit.
    pub(super) fn fulfils(&self, correlation: &Correlation, last: i64) -> bool {
        match (&correlation.measure, &self.aggregate) {
            (Measure::Events(threshold), _) => threshold.holds((self.to - self.from) as i128, 1),
            (Measure::Values { threshold, sampling }, Aggregate::Values(table)) => {
                threshold.holds((table.len() as i128) << sampling, 1)
            }
            (Measure::Sum(threshold), Aggregate::Numbers(numbers)) => {
                threshold.holds(numbers.sum, ONE)
            }
            (Measure::Average(threshold), Aggregate::Numbers(numbers)) => {
                threshold.holds(numbers.sum, ONE * numbers.count)
            }
            (Measure::Percentile { threshold, rank }, Aggregate::Numbers(numbers)) => {
                numbers.percentile_holds(threshold, *rank)
            }
            (Measure::Rules(threshold), Aggregate::Rules { present, .. }) => {
                threshold.holds((*present).into(), 1)
            }
            (Measure::Expression(expression), Aggregate::Rules { counts, .. }) => expression
                .holds(&|rule| counts.get(usize::from(rule)).is_some_and(|count| *count > 0)),
            (Measure::Ordered, Aggregate::Ordered(ordered)) => {
                ordered.begun.last().is_some_and(|begun| *begun > last - correlation.timespan)
            }
            _ => false,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match &self.aggregate {
            Aggregate::Values(table) => table.allocation_size(),
            _ => 0,
        }
    }
}

impl Numbers {
    /// With the numbers sorted, the percentile is the one at place `nearest` from 1: less than a constant exactly when so
    /// many are less than the constant.
    fn percentile_holds(&self, threshold: &Threshold, rank: u8) -> bool {
        let nearest = ((self.count * i128::from(rank) + 99) / 100).max(1);
        self.count > 0
            && threshold.0.iter().zip(&self.less).all(|((comparison, _), (less, less_or_equal))| {
                let (is_less, is_less_or_equal) = (*less >= nearest, *less_or_equal >= nearest);
                match comparison {
                    Comparison::Lt => is_less,
                    Comparison::Lte => is_less_or_equal,
                    Comparison::Gt => !is_less_or_equal,
                    Comparison::Gte => !is_less,
                    Comparison::Eq => is_less_or_equal && !is_less,
                    Comparison::Neq => is_less || !is_less_or_equal,
                }
            })
    }
}

impl Ordered {
    fn enter(&mut self, time: i64, step: usize) {
        if time != self.moment {
            self.moment = time;
            self.seen.iter_mut().for_each(|seen| *seen = false);
        }
        if let Some(seen) = self.seen.get_mut(step) {
            *seen = true;
        }
        // A hit of this moment may be the next step of another of it, whichever came first.
        let mut before = time;
        for (begun, seen) in self.begun.iter_mut().zip(&self.seen) {
            if *seen {
                *begun = (*begun).max(before);
            }
            before = *begun;
        }
    }
}
