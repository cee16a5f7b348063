//! What a correlation is, once it has been read and all that it refers to has been found.

use super::condition::{Expression, Threshold};
use palisade_event::time::SECOND;
use sha2::{Digest, Sha256};
use std::fmt;

/// The most rules that one correlation may refer to.
pub const MAX_RULES: usize = 512;
/// The most fields in one group-by.
pub const MAX_GROUP_BY: usize = 16;
/// How deep correlations may stand upon correlations.
pub const MAX_DEPTH: u8 = 8;
/// The longest timespan: 366 days, in microseconds.
pub const MAX_TIMESPAN: i64 = 366 * 86_400 * SECOND;
/// Up to this number `value_count` counts exactly; a condition with a greater constant is answered from a
/// sample of the values (see `docs/correlations.md`).
pub const EXACT_VALUES: i64 = 4_096;

/// The hash of what a rule says: changing anything in it, or in a rule that it refers to, changes it (C1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(pub [u8; 32]);

impl Version {
    /// The hash of parts, each preceded by its length.
    pub(super) fn of_parts(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A detection rule as correlations see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseRule {
    /// Its id.
    pub id: String,
    /// Its name, by which correlations may refer to it.
    pub name: Option<String>,
    /// The hash of what it says.
    pub version: Version,
}

/// Why a correlation is not loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: correlation '{rule}': {reason}; {hint}")]
pub struct Refusal {
    /// The file that it is in.
    pub file: String,
    /// Its id, name or title.
    pub rule: String,
    /// What is wrong.
    pub reason: String,
    /// What to do.
    pub hint: String,
}

impl Refusal {
    pub(super) fn new(reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { file: String::new(), rule: String::new(), reason: reason.into(), hint: hint.into() }
    }
}

/// What one hit of a correlation comes from, and where its group and its value stand there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// The rule or the correlation that it refers to.
    pub source: Source,
    /// The field for each field of the group-by, aliases resolved.
    pub group_fields: Vec<String>,
    /// The fields whose values are counted; one for `value_sum` and its kin; none for counts of events.
    pub value_fields: Vec<String>,
}

/// What a correlation reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A detection rule, by its place among the base rules.
    Rule(usize),
    /// Another correlation, by its place in the [`super::Correlations`]; its alerts are the hits. They have the fields
    /// of its own group-by and no others; these are the places of the group's and of the value's fields there.
    Correlation {
        /// Its place; always less than that of the one which reads it.
        place: usize,
        /// For each field of the group-by, its place in the group-by of the one that is read.
        group: Vec<usize>,
        /// For each value field, its place there.
        value: Vec<usize>,
    },
}

/// What is measured over a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Measure {
    /// The number of distinct records.
    Events(Threshold),
    /// The number of distinct values; only values whose hash begins with so many zero bits are looked at,
    /// and each stands for `2^sampling`.
    Values {
        /// What the number must be.
        threshold: Threshold,
        /// 0 where counting is exact.
        sampling: u8,
    },
    /// The sum of the numbers.
    Sum(Threshold),
    /// Their mean.
    Average(Threshold),
    /// Their percentile by the nearest rank, 0 to 100.
    Percentile {
        /// What it must be.
        threshold: Threshold,
        /// Which one.
        rank: u8,
    },
    /// The number of different rules that matched.
    Rules(Threshold),
    /// An expression over the rules that matched.
    Expression(Expression),
    /// The rules matched in the order of the list.
    Ordered,
    /// The first rule matched, and none of the others matched within the timespan after it.
    Absence,
}

impl Measure {
    /// Whether hits carry a value.
    #[must_use]
    pub fn has_value(&self) -> bool {
        matches!(
            self,
            Self::Values { .. } | Self::Sum(_) | Self::Average(_) | Self::Percentile { .. }
        )
    }

    /// Whether a record counts once, however many of the rules it matches.
    #[must_use]
    pub fn is_per_record(&self) -> bool {
        self.has_value() || matches!(self, Self::Events(_))
    }

    /// The comparisons, where there are any.
    #[must_use]
    pub fn threshold(&self) -> Option<&Threshold> {
        match self {
            Self::Events(threshold)
            | Self::Values { threshold, .. }
            | Self::Sum(threshold)
            | Self::Average(threshold)
            | Self::Percentile { threshold, .. }
            | Self::Rules(threshold) => Some(threshold),
            Self::Expression(_) | Self::Ordered | Self::Absence => None,
        }
    }
}

/// What is said about a correlation and does not change its answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct About {
    /// Its title.
    pub title: String,
    /// What it finds.
    pub description: Option<String>,
    /// How bad that is: `informational` to `critical`.
    pub level: Option<String>,
    /// Who wrote it.
    pub author: Option<String>,
    /// Under which licence.
    pub license: Option<String>,
    /// Its tags, ATT&CK techniques among them.
    pub tags: Vec<String>,
    /// Where it comes from.
    pub references: Vec<String>,
    /// What it finds though nothing is wrong.
    pub falsepositives: Vec<String>,
}

/// A correlation whose references are all found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Correlation {
    /// Its id; its name or title where it has none.
    pub id: String,
    /// Its name.
    pub name: Option<String>,
    /// The tenant whose it is, and whose hits alone it counts; none for the installation's.
    pub owner: Option<String>,
    /// The hash of all that can change its answer, rules that it refers to included (C1).
    pub version: Version,
    /// What is said about it.
    pub about: About,
    /// What it reads, in the order of its list; a hit names its place here.
    pub inputs: Vec<Input>,
    /// The fields, or aliases, that make a group.
    pub group_by: Vec<String>,
    /// Microseconds.
    pub timespan: i64,
    /// What is measured and what it must be.
    pub measure: Measure,
    /// Microseconds that a record's time may be behind its clock (T4).
    pub lateness: i64,
    /// Microseconds of the live origins' clock that a falsifiable answer waits (K3).
    pub patience: i64,
    /// Whether the rules that it refers to alert on their own too.
    pub generate: bool,
    /// 0 where it reads rules only, else one more than the deepest correlation that it reads.
    pub depth: u8,
    /// The stages whose origins it reads, a bit each: bit 0 for rules, bit n for correlations of depth n − 1.
    pub stages: u16,
    /// Whether other correlations read it.
    pub is_read: bool,
}

impl Correlation {
    /// Whether it counts hits of a tenant.
    #[must_use]
    pub fn is_of(&self, tenant: &str) -> bool {
        self.owner.as_deref().is_none_or(|owner| owner == tenant)
    }

    /// Whether windows are tumbling, aligned to the epoch: those whose condition has an upper bound.
    #[must_use]
    pub fn is_tumbling(&self) -> bool {
        self.measure.threshold().is_some_and(Threshold::has_upper_bound)
    }

    /// Whether more hits can falsify an answer (K3). Sums can fall too, by negative numbers.
    #[must_use]
    pub fn is_falsifiable(&self) -> bool {
        self.depth > 0
            || match &self.measure {
                Measure::Events(threshold)
                | Measure::Values { threshold, .. }
                | Measure::Rules(threshold) => !threshold.is_lower_bound(),
                Measure::Sum(_) | Measure::Average(_) | Measure::Percentile { .. } => true,
                Measure::Expression(expression) => !expression.is_monotone(),
                Measure::Ordered => false,
                Measure::Absence => true,
            }
    }

    /// The length of a cut period: max(24 h, 4 timespans) (K2).
    #[must_use]
    pub fn period(&self) -> i64 {
        (86_400 * SECOND).max(self.timespan.saturating_mul(4))
    }

    /// The first cut from which on an answer over a range that begins at `start` is complete (K2). For a correlation
    /// that reads others `start` is the latest of the first cuts of those.
    #[must_use]
    pub fn first_cut(&self, start: i64) -> i64 {
        let period = self.period();
        let from = start.saturating_add(self.timespan);
        from.div_euclid(period)
            .saturating_add(i64::from(from.rem_euclid(period) != 0))
            .saturating_mul(period)
    }

    /// When a hit, or the window that it is in, decides: the hit's time, or for absence a timespan later, or the end of
    /// its tumbling window.
    #[must_use]
    pub fn decided_at(&self, time: i64) -> i64 {
        if matches!(self.measure, Measure::Absence) {
            time.saturating_add(self.timespan)
        } else if self.is_tumbling() {
            (time.div_euclid(self.timespan) + 1).saturating_mul(self.timespan)
        } else {
            time
        }
    }
}
