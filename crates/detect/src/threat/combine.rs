//! The second step: the score of each row, and the alerts.
//!
//! Each sign says how likely the row is to be hostile, and the signs are brought together as if
//! they were independent: `score = 1 − Π (1 − weight · sign)`.
//!
//! | sign, 0 to 1 | weight |
//! |---|---|
//! | strength of the attack classes that were found | 0.85 |
//! | score that the sender reported (above 1 read as per cent) | 0.50 |
//! | reputation level / 255 | 0.45 |
//! | entropy above the source's norm: 0 at 3 deviations, 1 at 6 | 0.30 |
//! | outcome is a failure or a refusal | 0.15 |
//!
//! So an attack that is beyond doubt makes an alert by itself, and nothing else does: a bad address,
//! a failed login, a path that is only probed or a long random string need company.

use super::features::Features;
use super::norms::{Groups, SourceNorms};
use super::{Class, FOUND_FROM, ThreatScorer};
use crate::entropy;
use arrow::array::{
    Array, ArrayRef, AsArray, DictionaryArray, Float32Array, PrimitiveArray, RecordBatch,
    StringArray,
};
use arrow::datatypes::{Float64Type, Int32Type};
use palisade_event::column::Text;
use palisade_event::schema::Core;
use std::sync::Arc;

/// The score from which on a row makes an alert, unless another is asked for.
pub const ALERT_FROM: f32 = 0.7;

const ATTACK: f32 = 0.85;
const REPORTED: f32 = 0.50;
const REPUTATION: f32 = 0.45;
const SURPRISE: f32 = 0.30;
const OUTCOME: f32 = 0.15;

/// How bad an alert is, by its score: medium from 0.7, high from 0.8, critical from 0.9.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// Below 0.7, where alerts are asked for from a lower score on.
    Low,
    /// From 0.7.
    Medium,
    /// From 0.8.
    High,
    /// From 0.9.
    Critical,
}

impl Severity {
    /// The severity of a score; `None` below the score from which on alerts are asked for.
    #[must_use]
    pub fn of(score: f32, alert_from: f32) -> Option<Self> {
        match score {
            s if s < alert_from => None,
            s if s >= 0.9 => Some(Self::Critical),
            s if s >= 0.8 => Some(Self::High),
            s if s >= 0.7 => Some(Self::Medium),
            _ => Some(Self::Low),
        }
    }

    /// The name in the column `severity`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// A row whose score reached what alerts are asked for from.
#[derive(Debug, Clone, PartialEq)]
pub struct ThreatAlert {
    /// The row in the batch.
    pub row: usize,
    /// Its score, rounded to 1/1000.
    pub score: f32,
    /// Its severity.
    pub severity: Severity,
    /// Its attack class, where one was found.
    pub class: Option<Class>,
    /// Why, in words with the numbers.
    pub reasons: Vec<String>,
}

/// The columns and alerts of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct ThreatOutput {
    /// The column `threat_score`: 0 to 1, rounded to 1/1000, never null.
    pub threat_score: Float32Array,
    /// The column `threat_class`; `None` when no row has a class.
    pub threat_class: Option<DictionaryArray<Int32Type>>,
    /// The alerts, by row.
    pub alerts: Vec<ThreatAlert>,
}

/// The signs of one row, each 0 to 1.
#[derive(Debug, Clone, Copy, Default)]
struct Signs {
    attack: f32,
    reported: f32,
    reputation: f32,
    surprise: f32,
    outcome: f32,
}

/// A column of the score the sender reported or of the reputation, as it is in the batch.
struct Inputs<'a> {
    reputation: Option<&'a PrimitiveArray<Int32Type>>,
    reported: Option<&'a PrimitiveArray<Float64Type>>,
    outcome: Option<Text<'a>>,
    groups: Groups<'a>,
}

impl<'a> Inputs<'a> {
    fn of(batch: &'a RecordBatch) -> Self {
        let column = |core: Core| batch.column_by_name(core.name());
        Self {
            reputation: column(Core::Reputation).and_then(|c| c.as_primitive_opt::<Int32Type>()),
            reported: column(Core::ReportedThreatScore)
                .and_then(|c| c.as_primitive_opt::<Float64Type>()),
            outcome: Text::in_batch(batch, Core::Outcome.name()),
            groups: Groups::of(batch),
        }
    }
}

impl ThreatScorer {
    /// The scores of a batch, from its features, its columns `reputation`, `outcome` and
    /// `reported_threat_score`, and the norms in force. `features` must be of this batch.
    #[must_use]
    pub fn combine(
        &self,
        features: &Features,
        batch: &RecordBatch,
        norms: &SourceNorms,
    ) -> ThreatOutput {
        self.combine_from(features, batch, norms, ALERT_FROM)
    }

    /// As [`Self::combine`], with alerts from another score on.
    #[must_use]
    pub fn combine_from(
        &self,
        features: &Features,
        batch: &RecordBatch,
        norms: &SourceNorms,
        alert_from: f32,
    ) -> ThreatOutput {
        let inputs = Inputs::of(batch);
        let rows = batch.num_rows();
        // What is left when the signs are taken away: 1 − score.
        let mut left = vec![1.0f32; rows];
        add_surprise(&mut left, features, &inputs.groups, norms);
        if let Some(reputation) = inputs.reputation {
            for (left, level) in left.iter_mut().zip(reputation.iter()) {
                *left *= 1.0 - REPUTATION * level.map_or(0.0, reputation_sign);
            }
        }
        if let Some(reported) = inputs.reported {
            for (left, score) in left.iter_mut().zip(reported.iter()) {
                *left *= 1.0 - REPORTED * score.map_or(0.0, reported_sign);
            }
        }
        if let Some(outcome) = inputs.outcome {
            add_outcome(&mut left, &outcome);
        }
        for hit in &features.hits {
            if let Some(left) = left.get_mut(hit.row as usize) {
                *left *= 1.0 - ATTACK * hit.verdict.overall();
            }
        }
        let scores: Vec<f32> = left.iter().map(|left| rounded(1.0 - left)).collect();
        let alerts = scores
            .iter()
            .enumerate()
            .filter_map(|(row, score)| {
                let severity = Severity::of(*score, alert_from)?;
                let class = features.hit(row).and_then(super::features::Hit::class);
                let reasons = self.reasons(features, &inputs, norms, row);
                Some(ThreatAlert { row, score: *score, severity, class, reasons })
            })
            .collect();
        ThreatOutput { threat_score: scores.into(), threat_class: classes(features, rows), alerts }
    }

    /// Why a row has its score, in words with the numbers; empty for a row that nothing speaks
    /// against.
    #[must_use]
    pub fn explain(
        &self,
        features: &Features,
        batch: &RecordBatch,
        norms: &SourceNorms,
        row: usize,
    ) -> Vec<String> {
        self.reasons(features, &Inputs::of(batch), norms, row)
    }

    fn reasons(
        &self,
        features: &Features,
        inputs: &Inputs<'_>,
        norms: &SourceNorms,
        row: usize,
    ) -> Vec<String> {
        let mut reasons = Vec::new();
        if let Some(hit) = features.hit(row) {
            for (rule, column) in &hit.found {
                let column = features.columns.get(usize::from(*column));
                let column = column.map_or("?", String::as_str);
                reasons.push(format!("{} (in {column})", self.reason(*rule)));
            }
        }
        if let Some(reported) = inputs.reported.filter(|r| row < r.len() && r.is_valid(row)) {
            let value = reported.value(row);
            if reported_sign(value) > 0.0 {
                reasons.push(format!("the sender reported a threat score of {value:.3}"));
            }
        }
        if let Some(reputation) = inputs.reputation.filter(|r| row < r.len() && r.is_valid(row)) {
            let level = reputation.value(row);
            if reputation_sign(level) > 0.0 {
                reasons.push(format!("an address has reputation level {level} of 255"));
            }
        }
        if let Some(outcome) = inputs.outcome.and_then(|o| o.get(row))
            && is_failure(outcome)
        {
            let shown: String = outcome.chars().take(40).collect();
            reasons.push(format!("the outcome was '{shown}'"));
        }
        if let (Some(value), Some((tenant, source))) = (
            features.quantised.get(row).filter(|q| **q != entropy::NONE),
            inputs.groups.names.get(inputs.groups.of_row(row)),
        ) && let Some(norm) = norms.norm(tenant, source)
        {
            let bits = entropy::to_bits(*value);
            let deviations = norm.deviations(bits);
            if surprise_sign(deviations) > 0.0 {
                reasons.push(format!(
                    "entropy {bits:.2} bits per byte is {deviations:.1} deviations above the {:.2} of its source '{source}'",
                    norm.mean
                ));
            }
        }
        reasons
    }

    /// The score of an attack strength alone, as [`Self::score_line`] gives it.
    pub(super) fn score_of_strength(strength: f32, surprise: f32) -> f32 {
        let signs = Signs { attack: strength, surprise, ..Signs::default() };
        rounded(1.0 - signs.left())
    }
}

impl Signs {
    fn left(&self) -> f32 {
        (1.0 - ATTACK * self.attack)
            * (1.0 - REPORTED * self.reported)
            * (1.0 - REPUTATION * self.reputation)
            * (1.0 - SURPRISE * self.surprise)
            * (1.0 - OUTCOME * self.outcome)
    }
}

/// Rounded to 1/1000.
fn rounded(score: f32) -> f32 {
    let thousandths = (score.clamp(0.0, 1.0) * 1000.0 + 0.5) as u32;
    thousandths as f32 / 1000.0
}

fn reputation_sign(level: i32) -> f32 {
    level.clamp(0, 255) as f32 / 255.0
}

fn reported_sign(score: f64) -> f32 {
    if score.is_nan() {
        return 0.0;
    }
    let score = if score > 1.0 { score / 100.0 } else { score };
    score.clamp(0.0, 1.0) as f32
}

pub(super) fn surprise_sign(deviations: f32) -> f32 {
    ((deviations - 3.0) / 3.0).clamp(0.0, 1.0)
}

fn add_surprise(left: &mut [f32], features: &Features, groups: &Groups<'_>, norms: &SourceNorms) {
    let known: Vec<_> =
        groups.names.iter().map(|(tenant, source)| norms.norm(tenant, source)).collect();
    if known.iter().all(Option::is_none) {
        return;
    }
    for (row, (left, value)) in left.iter_mut().zip(&features.quantised).enumerate() {
        if *value == entropy::NONE {
            continue;
        }
        if let Some(Some(norm)) = known.get(groups.of_row(row)) {
            *left *= 1.0 - SURPRISE * surprise_sign(norm.deviations(entropy::to_bits(*value)));
        }
    }
}

fn add_outcome(left: &mut [f32], outcome: &Text<'_>) {
    match outcome {
        Text::Plain(plain) => {
            for (left, value) in left.iter_mut().zip(plain.iter()) {
                if value.is_some_and(is_failure) {
                    *left *= 1.0 - OUTCOME;
                }
            }
        }
        Text::Dictionary(keys, values) => {
            let factors: Vec<f32> = values
                .iter()
                .map(|value| if value.is_some_and(is_failure) { 1.0 - OUTCOME } else { 1.0 })
                .collect();
            for (left, key) in left.iter_mut().zip(keys.keys().iter()) {
                if let Some(factor) = key.and_then(|key| factors.get(key as usize)) {
                    *left *= factor;
                }
            }
        }
    }
}

/// Whether an outcome says that something failed or was refused. Compared without case and
/// surrounding white space; HTTP's 401, 403 and 429 count.
#[must_use]
pub fn is_failure(outcome: &str) -> bool {
    const WORDS: [&str; 28] = [
        "failure",
        "failed",
        "fail",
        "error",
        "denied",
        "deny",
        "blocked",
        "block",
        "rejected",
        "reject",
        "refused",
        "unauthorized",
        "unauthorised",
        "forbidden",
        "drop",
        "dropped",
        "invalid",
        "unsuccessful",
        "access denied",
        "access_denied",
        "locked",
        "quarantined",
        "prevented",
        "timeout",
        "false",
        "401",
        "403",
        "429",
    ];
    let outcome = outcome.trim();
    outcome.len() <= 16 && WORDS.iter().any(|word| outcome.eq_ignore_ascii_case(word))
}

/// The column `threat_class`.
fn classes(features: &Features, rows: usize) -> Option<DictionaryArray<Int32Type>> {
    let found: Vec<(usize, Class)> =
        features.hits.iter().filter_map(|hit| Some((hit.row as usize, hit.class()?))).collect();
    if found.is_empty() {
        return None;
    }
    let mut keys: Vec<Option<i32>> = vec![None; rows];
    for (row, class) in found {
        if let Some(key) = keys.get_mut(row) {
            *key = Some(class as i32);
        }
    }
    let names = StringArray::from_iter_values(Class::ALL.iter().map(|class| class.as_str()));
    DictionaryArray::try_new(keys.into(), Arc::new(names) as ArrayRef).ok()
}

/// The strength at which an attack alone reaches [`ALERT_FROM`] (for documentation and tests).
#[must_use]
pub fn alert_strength() -> f32 {
    ALERT_FROM / ATTACK
}

const _: () = assert!(FOUND_FROM < ALERT_FROM / ATTACK);
