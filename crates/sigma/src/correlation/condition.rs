//! What a correlation asks of a window: comparisons of a number, or a boolean expression over the rules that matched.

use super::definition::Refusal;
use rsigma_parser::{ConditionExpr, ConditionOperator, Quantifier, SelectorPattern};

/// One comparison with a constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Comparison {
    /// Less than.
    Lt,
    /// Less than or equal.
    Lte,
    /// Greater than.
    Gt,
    /// Greater than or equal.
    Gte,
    /// Equal.
    Eq,
    /// Different.
    Neq,
}

impl Comparison {
    pub(super) fn of(operator: ConditionOperator) -> Self {
        match operator {
            ConditionOperator::Lt => Self::Lt,
            ConditionOperator::Lte => Self::Lte,
            ConditionOperator::Gt => Self::Gt,
            ConditionOperator::Gte => Self::Gte,
            ConditionOperator::Eq => Self::Eq,
            ConditionOperator::Neq => Self::Neq,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Lt => "lt",
            Self::Lte => "lte",
            Self::Gt => "gt",
            Self::Gte => "gte",
            Self::Eq => "eq",
            Self::Neq => "neq",
        }
    }

    /// Whether `value` compares so with `constant`.
    #[must_use]
    pub fn holds(self, value: i128, constant: i128) -> bool {
        match self {
            Self::Lt => value < constant,
            Self::Lte => value <= constant,
            Self::Gt => value > constant,
            Self::Gte => value >= constant,
            Self::Eq => value == constant,
            Self::Neq => value != constant,
        }
    }
}

/// A conjunction of comparisons with whole numbers: one, or two for a range.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Threshold(pub Vec<(Comparison, i64)>);

impl Threshold {
    /// Whether a number fulfils all comparisons, with each constant multiplied by `unit`.
    #[must_use]
    pub fn holds(&self, value: i128, unit: i128) -> bool {
        self.0.iter().all(|(comparison, constant)| {
            comparison.holds(value, i128::from(*constant).saturating_mul(unit))
        })
    }

    /// Whether a growing number can only come to fulfil it, never cease to.
    #[must_use]
    pub fn is_lower_bound(&self) -> bool {
        self.0.iter().all(|(comparison, _)| matches!(comparison, Comparison::Gt | Comparison::Gte))
    }

    /// Whether it bounds the number from above, so that it can be decided only when a window has ended.
    #[must_use]
    pub fn has_upper_bound(&self) -> bool {
        self.0.iter().any(|(comparison, _)| matches!(comparison, Comparison::Lt | Comparison::Lte))
    }

    /// The greatest constant: beyond it the number need not be known exactly.
    #[must_use]
    pub fn greatest(&self) -> i64 {
        self.0.iter().map(|(_, constant)| *constant).max().unwrap_or(0)
    }

    /// When it asks for no more than a least number: that number.
    #[must_use]
    pub fn at_least(&self) -> Option<i64> {
        let least = |(comparison, constant): &(Comparison, i64)| match comparison {
            Comparison::Gt => Some(constant.saturating_add(1)),
            Comparison::Gte => Some(*constant),
            _ => None,
        };
        self.0.iter().map(least).try_fold(0, |most, least| Some(most.max(least?)))
    }
}

/// A boolean expression over the rules of a correlation, which are named by their place in its list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    /// The rule has matched.
    Rule(u16),
    /// All hold.
    And(Vec<Expression>),
    /// At least one holds.
    Or(Vec<Expression>),
    /// It does not hold.
    Not(Box<Expression>),
    /// At least so many of these rules have matched.
    AtLeast(u64, Vec<u16>),
}

impl Expression {
    /// Whether it holds where `matched` tells which rules have matched.
    pub fn holds(&self, matched: &impl Fn(u16) -> bool) -> bool {
        match self {
            Self::Rule(rule) => matched(*rule),
            Self::And(parts) => parts.iter().all(|part| part.holds(matched)),
            Self::Or(parts) => parts.iter().any(|part| part.holds(matched)),
            Self::Not(part) => !part.holds(matched),
            Self::AtLeast(count, rules) => {
                rules.iter().filter(|rule| matched(**rule)).count() as u64 >= *count
            }
        }
    }

    /// Whether more matches can only come to fulfil it: no `not` anywhere.
    #[must_use]
    pub fn is_monotone(&self) -> bool {
        match self {
            Self::Rule(_) | Self::AtLeast(..) => true,
            Self::And(parts) | Self::Or(parts) => parts.iter().all(Self::is_monotone),
            Self::Not(_) => false,
        }
    }

    /// Bytes that tell this expression from any other, for the content hash.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let list = |kind: u8, parts: &[Self], out: &mut Vec<u8>| {
            out.push(kind);
            out.extend_from_slice(&(parts.len() as u64).to_le_bytes());
            parts.iter().for_each(|part| part.write(out));
        };
        match self {
            Self::Rule(rule) => {
                out.push(0);
                out.extend_from_slice(&rule.to_le_bytes());
            }
            Self::And(parts) => list(1, parts, out),
            Self::Or(parts) => list(2, parts, out),
            Self::Not(part) => {
                out.push(3);
                part.write(out);
            }
            Self::AtLeast(count, rules) => {
                out.push(4);
                out.extend_from_slice(&count.to_le_bytes());
                out.extend_from_slice(&(rules.len() as u64).to_le_bytes());
                rules.iter().for_each(|rule| out.extend_from_slice(&rule.to_le_bytes()));
            }
        }
    }

    /// Takes the parser's expression over; `names` are the correlation's rules as it lists them, and their
    /// names and ids.
    pub(super) fn of(expression: &ConditionExpr, names: &Names<'_>) -> Result<Self, Refusal> {
        let all = |parts: &[ConditionExpr]| -> Result<Vec<Self>, Refusal> {
            parts.iter().map(|part| Self::of(part, names)).collect()
        };
        Ok(match expression {
            ConditionExpr::And(parts) => Self::And(all(parts)?),
            ConditionExpr::Or(parts) => Self::Or(all(parts)?),
            ConditionExpr::Not(part) => Self::Not(Box::new(Self::of(part, names)?)),
            ConditionExpr::Identifier(name) => Self::Rule(names.find(name)?),
            ConditionExpr::Selector { quantifier, pattern } => {
                let rules = match pattern {
                    SelectorPattern::Them => names.all(),
                    SelectorPattern::Pattern(pattern) => names.like(pattern)?,
                };
                let count = match quantifier {
                    Quantifier::Any => 1,
                    Quantifier::All => rules.len() as u64,
                    Quantifier::Count(count) => *count,
                };
                Self::AtLeast(count, rules)
            }
        })
    }
}

/// The rules of a correlation under all names by which its condition may call them.
pub(super) struct Names<'a>(pub(super) Vec<Vec<&'a str>>);

impl Names<'_> {
    fn all(&self) -> Vec<u16> {
        (0..self.0.len() as u16).collect()
    }

    fn find(&self, name: &str) -> Result<u16, Refusal> {
        let place = self.0.iter().position(|names| names.contains(&name));
        place.map(|place| place as u16).ok_or_else(|| {
            Refusal::new(
                format!("its condition names '{name}', which is not among its rules"),
                "list every rule of the condition under 'rules', by the same name",
            )
        })
    }

    fn like(&self, pattern: &str) -> Result<Vec<u16>, Refusal> {
        let matches = |name: &&str| match pattern.split_once('*') {
            None => *name == pattern,
            Some((head, tail)) => {
                name.len() >= head.len() + tail.len()
                    && name.starts_with(head)
                    && name.ends_with(tail)
            }
        };
        if pattern.matches('*').count() > 1 {
            return Err(Refusal::new(
                format!("its condition has the pattern '{pattern}' with more than one '*'"),
                "use one '*' in a pattern",
            ));
        }
        let found = self.0.iter().zip(0_u16..).filter(|(names, _)| names.iter().any(matches));
        let found: Vec<u16> = found.map(|(_, place)| place).collect();
        if found.is_empty() {
            return Err(Refusal::new(
                format!("its condition's pattern '{pattern}' is true of none of its rules"),
                "name the rules under 'rules' so that the pattern finds them",
            ));
        }
        Ok(found)
    }
}
