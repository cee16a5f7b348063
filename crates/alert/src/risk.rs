//! Risk of an entity: the sum of the weights of its alerts, each halved every `half_life`.
//!
//! ```text
//! raw(t)   = Σ weight(severity) · 2^(−(t − time) / half_life)
//! score(t) = 100 · (1 − e^(−raw(t) / 100))
//! ```
//!
//! Weights: informational 1, low 5, medium 15, high 40, critical 80. One fresh critical alert gives a score of 55, five
//! high ones 86. Only the latest revision of an alert counts, and none that was retracted. The half-life is a day
//! unless asked otherwise.
//!
//! The sum can be kept as one number and its moment ([`Risk::add`]): moving it to another moment
//! multiplies it, so the order of additions does not matter but for rounding.

use crate::alert::{Alert, Entity, Severity, State};
use std::collections::BTreeMap;

/// A day, in microseconds.
pub const HALF_LIFE: i64 = 86_400_000_000;

/// What an alert adds when it is fresh.
#[must_use]
pub fn weight(severity: Severity) -> f64 {
    match severity {
        Severity::Informational => 1.0,
        Severity::Low => 5.0,
        Severity::Medium => 15.0,
        Severity::High => 40.0,
        Severity::Critical => 80.0,
    }
}

/// The decayed sum of an entity.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Risk {
    raw: f64,
    at: i64,
}

impl Risk {
    /// Adds an alert of this severity and event time. Times may come in any order.
    pub fn add(&mut self, severity: Severity, time: i64, half_life: i64) {
        let later = if self.raw == 0.0 { time } else { self.at.max(time) };
        self.raw =
            self.raw_at(later, half_life) + weight(severity) * decay(later - time, half_life);
        self.at = later;
    }

    /// The sum at a moment; before its newest alert, that of the newest alert.
    #[must_use]
    pub fn raw_at(&self, now: i64, half_life: i64) -> f64 {
        self.raw * decay(now.saturating_sub(self.at), half_life)
    }

    /// The score at a moment, 0 to 100.
    #[must_use]
    pub fn score_at(&self, now: i64, half_life: i64) -> f64 {
        100.0 * (1.0 - (-self.raw_at(now, half_life) / 100.0).exp())
    }
}

#[expect(clippy::cast_precision_loss, reason = "microseconds of years are below 2^53")]
fn decay(age: i64, half_life: i64) -> f64 {
    (-(age.max(0) as f64) / (half_life.max(1) as f64)).exp2()
}

/// An entity's risk and what it is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct EntityRisk {
    /// Who.
    pub entity: Entity,
    /// 0 to 100.
    pub score: f64,
    /// The decayed sum.
    pub raw: f64,
    /// How many alerts count.
    pub alerts: u64,
    /// The worst of them.
    pub worst: Severity,
    /// The event time of the newest, microseconds since the epoch.
    pub last_time: i64,
}

/// The risk at `now` of every entity of these alerts, the highest first. The alerts are the latest revision of each
/// id; retracted ones do not count, nor do those after `now`.
#[must_use]
pub fn of_entities(alerts: &[Alert], now: i64, half_life: i64) -> Vec<EntityRisk> {
    let mut ordered: Vec<&Alert> =
        alerts.iter().filter(|alert| alert.state == State::Open && alert.time <= now).collect();
    // In one order, so that rounding is the same for the same alerts.
    ordered.sort_by(|a, b| (a.time, &a.id).cmp(&(b.time, &b.id)));
    let mut found: BTreeMap<Entity, (Risk, u64, Severity, i64)> = BTreeMap::new();
    for alert in ordered {
        for entity in alert.entities() {
            let (risk, alerts, worst, last) = found.entry(entity).or_default();
            risk.add(alert.severity, alert.time, half_life);
            *alerts += 1;
            *worst = (*worst).max(alert.severity);
            *last = alert.time;
        }
    }
    let mut risks: Vec<EntityRisk> = found
        .into_iter()
        .map(|(entity, (risk, alerts, worst, last_time))| EntityRisk {
            entity,
            score: risk.score_at(now, half_life),
            raw: risk.raw_at(now, half_life),
            alerts,
            worst,
            last_time,
        })
        .collect();
    risks.sort_by(|a, b| b.raw.total_cmp(&a.raw).then_with(|| a.entity.cmp(&b.entity)));
    risks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::EntityKind;
    use proptest::prelude::*;

    fn alert(user: &str, severity: Severity, time: i64) -> Alert {
        Alert {
            id: format!("{user}-{time}"),
            user: Some(user.into()),
            severity,
            time,
            ..Alert::default()
        }
    }

    #[test]
    fn the_formula_holds() {
        let alerts = [
            alert("alice", Severity::Critical, 0),
            alert("alice", Severity::High, HALF_LIFE),
            alert("bob", Severity::Low, HALF_LIFE),
            Alert { state: State::Retracted, ..alert("carol", Severity::Critical, 0) },
            alert("dave", Severity::Critical, HALF_LIFE + 1),
        ];
        let risks = of_entities(&alerts, HALF_LIFE, HALF_LIFE);
        let [alice, bob] = risks.as_slice() else { panic!("{risks:?}") };
        assert_eq!(alice.entity, Entity::new(EntityKind::User, "alice"));
        assert!((alice.raw - 80.0).abs() < 1e-9, "80 halved and 40: {}", alice.raw);
        assert!((alice.score - 100.0 * (1.0 - (-0.8f64).exp())).abs() < 1e-9);
        assert_eq!(
            (alice.alerts, alice.worst, alice.last_time),
            (2, Severity::Critical, HALF_LIFE)
        );
        assert!((bob.raw - 5.0).abs() < 1e-9);
    }

    proptest! {
        /// Kept as one number, in any order, it is the sum that the formula says.
        #[test]
        fn a_kept_sum_is_the_sum(times in prop::collection::vec((0i64..10 * HALF_LIFE, 0usize..5), 1..40), later in 0i64..HALF_LIFE) {
            let now = times.iter().map(|(time, _)| *time).max().unwrap() + later;
            let mut kept = Risk::default();
            let mut sum = 0.0;
            for (time, severity) in &times {
                kept.add(Severity::ALL[*severity], *time, HALF_LIFE);
                sum += weight(Severity::ALL[*severity]) * decay(now - time, HALF_LIFE);
            }
            prop_assert!((kept.raw_at(now, HALF_LIFE) - sum).abs() < 1e-6 * sum.max(1.0));
        }
    }
}
