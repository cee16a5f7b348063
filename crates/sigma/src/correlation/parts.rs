//! The parts of a parsed correlation: its shape, its measure, its hash.

use super::condition::{Comparison, Expression, Names, Threshold};
use super::definition::{
    Correlation, EXACT_VALUES, MAX_GROUP_BY, MAX_RULES, MAX_TIMESPAN, Measure, Refusal, Version,
};
use palisade_event::time::SECOND;
use rsigma_parser::{
    ConditionExpr, CorrelationCondition, CorrelationRule, CorrelationType, WindowMode,
};

pub(super) fn check_shape(rule: &CorrelationRule) -> Result<(), Refusal> {
    let refuse = |reason: String, hint: &str| Err(Refusal::new(reason, hint));
    if rule.rules.is_empty() {
        return refuse("it refers to no rule".into(), "list ids or names under 'rules'");
    }
    if rule.rules.len() > MAX_RULES {
        return refuse(
            format!("it refers to {} rules, more than {MAX_RULES}", rule.rules.len()),
            "split it into correlations, and refer to those",
        );
    }
    if rule.group_by.len() > MAX_GROUP_BY {
        return refuse(
            format!("it groups by {} fields, more than {MAX_GROUP_BY}", rule.group_by.len()),
            "group by fewer fields",
        );
    }
    if rule.window != WindowMode::Sliding || rule.gap.is_some() {
        return refuse(
            format!("it asks for a {} window, which Sigma does not have", rule.window.as_str()),
            "remove 'window' and 'gap': windows slide, or tumble where the condition has lt or lte",
        );
    }
    for alias in &rule.aliases {
        if alias.mapping.is_empty() {
            return refuse(
                format!("its alias '{}' names no field", alias.alias),
                "write a field for every rule of the list under the alias",
            );
        }
    }
    Ok(())
}

pub(super) fn timespan(rule: &CorrelationRule) -> Result<i64, Refusal> {
    let micros =
        i64::try_from(rule.timespan.seconds).ok().and_then(|seconds| seconds.checked_mul(SECOND));
    micros.filter(|micros| (SECOND..=MAX_TIMESPAN).contains(micros)).ok_or_else(|| {
        Refusal::new(
            format!("its timespan {} is not between 1s and 366d", rule.timespan.original),
            "choose a timespan within these bounds",
        )
    })
}

pub(super) fn value_fields(rule: &CorrelationRule) -> Result<Vec<String>, Refusal> {
    let kind = rule.correlation_type.as_str();
    let fields = match &rule.condition {
        CorrelationCondition::Threshold { field: Some(fields), .. } => fields.clone(),
        _ => Vec::new(),
    };
    match rule.correlation_type {
        CorrelationType::ValueCount if fields.is_empty() => Err(Refusal::new(
            "value_count needs the field whose values it counts",
            "write 'field: NAME' in the condition",
        )),
        CorrelationType::ValueCount => Ok(fields),
        CorrelationType::ValueSum
        | CorrelationType::ValueAvg
        | CorrelationType::ValuePercentile
        | CorrelationType::ValueMedian => {
            if fields.len() == 1 {
                Ok(fields)
            } else {
                Err(Refusal::new(
                    format!("{kind} needs exactly one field with numbers"),
                    "write 'field: NAME' in the condition",
                ))
            }
        }
        // A field says nothing there, so it is none of the answer either.
        _ => Ok(Vec::new()),
    }
}

pub(super) fn measure(rule: &CorrelationRule, names: &Names<'_>) -> Result<Measure, Refusal> {
    let kind = rule.correlation_type;
    let (predicates, percentile) = match &rule.condition {
        CorrelationCondition::Extended(expression) => return extended(rule, expression, names),
        CorrelationCondition::Threshold { predicates, percentile, .. } => (predicates, *percentile),
    };
    let mut threshold = Threshold::default();
    for (operator, constant) in predicates {
        let operator = Comparison::of(*operator);
        let constant = i64::try_from(*constant).map_err(|_| {
            Refusal::new(
                format!(
                    "its condition '{}' has a negative or far too great number",
                    operator.name()
                ),
                "write a whole number from 0 on",
            )
        })?;
        threshold.0.push((operator, constant));
    }
    if threshold.0.len() > 2 {
        return Err(Refusal::new(
            "its condition has more than two comparisons",
            "write one, or two for a range",
        ));
    }
    // The parser gives `gte: 1` for a temporal correlation without a condition.
    let is_default = threshold.0 == [(Comparison::Gte, 1)];
    let all = Threshold(vec![(Comparison::Gte, rule.rules.len() as i64)]);
    Ok(match kind {
        CorrelationType::EventCount => Measure::Events(threshold),
        CorrelationType::ValueCount => {
            let mut sampling = 0;
            while threshold.greatest() >> sampling > EXACT_VALUES {
                sampling += 1;
            }
            Measure::Values { threshold, sampling }
        }
        CorrelationType::ValueSum => Measure::Sum(threshold),
        CorrelationType::ValueAvg => Measure::Average(threshold),
        CorrelationType::ValueMedian => Measure::Percentile { threshold, rank: 50 },
        CorrelationType::ValuePercentile => {
            let rank = u8::try_from(percentile.unwrap_or(50)).ok().filter(|rank| *rank <= 100);
            let rank = rank.ok_or_else(|| {
                Refusal::new("its percentile is above 100", "write 'percentile: 0' to 100")
            })?;
            Measure::Percentile { threshold, rank }
        }
        CorrelationType::Temporal if is_default => Measure::Rules(all),
        CorrelationType::Temporal => Measure::Rules(threshold),
        CorrelationType::TemporalOrdered if is_default || threshold == all => Measure::Ordered,
        CorrelationType::TemporalOrdered => {
            return Err(Refusal::new(
                "temporal_ordered asks for all of its rules in order, so a number of them means nothing",
                "list only the rules wanted and remove the condition, or use temporal",
            ));
        }
    })
}

fn extended(
    rule: &CorrelationRule,
    expression: &ConditionExpr,
    names: &Names<'_>,
) -> Result<Measure, Refusal> {
    let expression = Expression::of(expression, names)?;
    match rule.correlation_type {
        CorrelationType::Temporal => Ok(Measure::Expression(expression)),
        CorrelationType::TemporalOrdered => {
            let parts = match expression {
                Expression::And(parts) => parts,
                one => vec![one],
            };
            let (mut wanted, mut unwanted) = (Vec::new(), Vec::new());
            for part in &parts {
                match part {
                    Expression::Rule(rule) => wanted.push(*rule),
                    Expression::Not(inner) => match inner.as_ref() {
                        Expression::Rule(rule) => unwanted.push(*rule),
                        Expression::Or(rules)
                            if rules.iter().all(|rule| matches!(rule, Expression::Rule(_))) =>
                        {
                            unwanted.extend(rules.iter().filter_map(|rule| match rule {
                                Expression::Rule(rule) => Some(*rule),
                                _ => None,
                            }));
                        }
                        _ => return Err(bad_order()),
                    },
                    _ => return Err(bad_order()),
                }
            }
            let listed = names.0.len();
            let mut all: Vec<u16> = wanted.iter().chain(&unwanted).copied().collect();
            all.sort_unstable();
            all.dedup();
            if all.len() != listed || all.len() != wanted.len() + unwanted.len() {
                return Err(bad_order());
            }
            match (wanted.as_slice(), unwanted.is_empty()) {
                (_, true) if wanted.is_sorted() => Ok(Measure::Ordered),
                ([0], false) => Ok(Measure::Absence),
                _ => Err(bad_order()),
            }
        }
        other => Err(Refusal::new(
            format!("{} has a number as condition, not an expression", other.as_str()),
            "write 'condition:' with gt, gte, lt, lte, eq or neq",
        )),
    }
}

fn bad_order() -> Refusal {
    Refusal::new(
        "its condition is none that temporal_ordered can have",
        "join all rules with 'and' in the order of the list, or write 'first and not second' for one that is not followed by another; for anything else use temporal, or correlate a correlation",
    )
}

/// Reads `30s`, `5m`, `2h`, `1d` or `0s` as microseconds.
pub(super) fn read_duration(text: &str) -> Option<i64> {
    let (number, unit) = text.trim().split_at_checked(text.trim().len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    let number: i64 = number.parse().ok().filter(|number| *number >= 0)?;
    number.checked_mul(seconds)?.checked_mul(SECOND).filter(|micros| *micros <= MAX_TIMESPAN)
}

/// The hash of all that can change the answer, and of what is said about it: a rule is stored and activated under it.
pub(super) fn version(correlation: &Correlation, referred: &[Version]) -> Version {
    let mut parts: Vec<Vec<u8>> = vec![b"correlation 1".to_vec(), correlation.id.clone().into()];
    let mut measure = Vec::new();
    let (kind, more): (u8, u64) = match &correlation.measure {
        Measure::Events(_) => (0, 0),
        Measure::Values { sampling, .. } => (1, (*sampling).into()),
        Measure::Sum(_) => (2, 0),
        Measure::Average(_) => (3, 0),
        Measure::Percentile { rank, .. } => (4, (*rank).into()),
        Measure::Rules(_) => (5, 0),
        Measure::Expression(_) => (6, 0),
        Measure::Ordered => (7, 0),
        Measure::Absence => (8, 0),
    };
    measure.push(kind);
    measure.extend_from_slice(&more.to_le_bytes());
    for (comparison, constant) in correlation.measure.threshold().map_or(&[][..], |t| &t.0) {
        measure.push(*comparison as u8);
        measure.extend_from_slice(&constant.to_le_bytes());
    }
    if let Measure::Expression(expression) = &correlation.measure {
        expression.write(&mut measure);
    }
    parts.push(measure);
    for number in [correlation.timespan, correlation.lateness, correlation.patience] {
        parts.push(number.to_le_bytes().to_vec());
    }
    parts.push(vec![correlation.generate.into()]);
    let about = &correlation.about;
    for text in [
        Some(&about.title),
        about.description.as_ref(),
        about.level.as_ref(),
        about.author.as_ref(),
        about.license.as_ref(),
    ] {
        parts.push(text.map_or_else(Vec::new, |text| text.clone().into()));
    }
    let mut list = |texts: &[String]| {
        parts.push((texts.len() as u64).to_le_bytes().to_vec());
        parts.extend(texts.iter().map(|text| text.clone().into()));
    };
    list(&about.tags);
    list(&about.references);
    list(&about.falsepositives);
    list(&correlation.group_by);
    for input in &correlation.inputs {
        list(&input.group_fields);
        list(&input.value_fields);
    }
    parts.extend(referred.iter().map(|version| version.0.to_vec()));
    // Two tenants may have the same: each has its own state.
    if let Some(owner) = &correlation.owner {
        parts.push(b"owner".to_vec());
        parts.push(owner.clone().into());
    }
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    Version::of_parts(&parts)
}
