//! What single events score, and against a naive reading of StreamGuard's documents.

use super::*;
use std::collections::BTreeMap;

fn options(mode: Mode) -> BaselineOptions {
    BaselineOptions { mode, ..BaselineOptions::default() }
}

/// StreamGuard's documents, read naively: maps of texts to counts, one user.
#[derive(Default)]
struct Naive {
    hours: BTreeMap<i64, f64>,
    addresses: BTreeMap<String, f64>,
    locations: BTreeMap<String, f64>,
    types: BTreeMap<String, f64>,
    outcomes: Vec<bool>,
    events: f64,
}

impl Naive {
    fn score(&mut self, row: &Row) -> Option<f64> {
        let hour = row.time / HOUR % 24;
        let frequency = |map: &BTreeMap<String, f64>, value: &Option<String>| {
            let total: f64 = map.values().sum();
            match value {
                Some(value) if total > 0.0 => 1.0 - map.get(value).unwrap_or(&0.0) / total,
                _ => 0.0,
            }
        };
        let failed = row.outcome.as_ref().map(|outcome| outcome == "failed");
        let failure = failed.map_or(0.0, |failed| {
            let share = |list: &[bool]| {
                list.iter().filter(|failed| **failed).count() as f64 / list.len().max(1) as f64
            };
            let own = share(&self.outcomes);
            let mut recent: Vec<bool> = self.outcomes.iter().rev().take(15).copied().collect();
            recent.push(failed);
            (share(&recent) - own).max(0.0)
        });
        let score = 0.25 * (1.0 - self.hours.get(&hour).unwrap_or(&0.0) / self.events.max(1.0))
            + 0.30 * frequency(&self.addresses, &row.address)
            + 0.20 * frequency(&self.locations, &row.location)
            + 0.15 * frequency(&self.types, &row.event_type)
            + 0.10 * failure;
        let learned = self.events >= 100.0;
        self.events += 1.0;
        *self.hours.entry(hour).or_default() += 1.0;
        for (map, value) in [
            (&mut self.addresses, &row.address),
            (&mut self.locations, &row.location),
            (&mut self.types, &row.event_type),
        ] {
            if let Some(value) = value {
                *map.entry(value.clone()).or_default() += 1.0;
            }
        }
        self.outcomes.extend(failed);
        learned.then_some(score)
    }
}

#[test]
fn streamguard_s_score_is_the_naive_one() {
    let mut draws = Draws(1);
    let mut naive: BTreeMap<String, Naive> = BTreeMap::new();
    let mut baselines = Baselines::new(options(Mode::StreamGuard));
    let (mut compared, mut alarms) = (0, 0);
    for round in 0..40 {
        let rows: Vec<Row> = (0..200)
            .map(|i| {
                let pick = |draws: &mut Draws, n: u64, name: &str| {
                    let skewed = draws.below(n).min(draws.below(n)).min(draws.below(n));
                    (!draws.chance(0.1)).then(|| format!("{name}{skewed}"))
                };
                Row {
                    time: MONDAY + round * 5 * HOUR + i * 90_000_000,
                    user: Some(format!("user{}", draws.below(7))),
                    address: pick(&mut draws, 16, "10.0.0."),
                    location: pick(&mut draws, 7, "place"),
                    event_type: pick(&mut draws, 12, "type"),
                    outcome: pick(&mut draws, 4, "")
                        .map(|text| if text == "3" { "failed" } else { "success" }.to_owned()),
                }
            })
            .collect();
        let out = process(&mut baselines, &rows);
        for (row, score) in rows.iter().zip(&out.scores) {
            let expected = naive.entry(row.user.clone().unwrap()).or_default().score(row);
            assert_eq!(score.is_some(), expected.is_some());
            if let (Some(score), Some(expected)) = (score, expected) {
                compared += 1;
                assert!(
                    (f64::from(*score) - expected).abs() < 0.000_51,
                    "{row:?}: {score} {expected}"
                );
            }
        }
        for anomaly in &out.anomalies {
            alarms += 1;
            assert!(anomaly.score >= 0.7 && !anomaly.reasons.is_empty());
            assert_eq!(anomaly.severity, Severity::of(anomaly.score));
        }
        let reached = out.scores.iter().flatten().filter(|score| **score >= 0.7).count();
        assert_eq!(reached, out.anomalies.len());
    }
    assert!(compared > 6000 && alarms > 50, "{compared} {alarms}");
}

#[test]
fn the_first_hundred_events_are_learned_and_not_scored() {
    for mode in [Mode::StreamGuard, Mode::Calibrated] {
        let mut baselines = Baselines::new(options(mode));
        let rows: Vec<Row> =
            (0..101).map(|i| row(MONDAY + i, "ann", "10.0.0.1", "Berlin", "login", true)).collect();
        let out = process(&mut baselines, &rows);
        assert!(out.scores[..100].iter().all(Option::is_none));
        assert_eq!(out.scores[100], Some(0.0), "{mode:?}: nothing is unusual");
        let none = process(&mut baselines, &[row(MONDAY, "", "10.0.0.1", "Berlin", "login", true)]);
        assert_eq!(none.scores, [None], "a row without a user has no score");
    }
}

#[test]
fn streamguard_s_worst_event_scores_as_documented() {
    let mut baselines = Baselines::new(options(Mode::StreamGuard));
    let rows: Vec<Row> = (0..100)
        .map(|i| row(MONDAY + 9 * HOUR + i, "ann", "10.0.0.1", "Berlin", "login", true))
        .collect();
    process(&mut baselines, &rows);
    let out = process(
        &mut baselines,
        &[row(MONDAY + 27 * HOUR, "ANN ", "198.51.100.7", "Lagos", "file_access", true)],
    );
    assert_eq!(out.scores, [Some(0.9)], "user names are normalised, failure is 0");
    let anomaly = &out.anomalies[0];
    assert_eq!((anomaly.severity, anomaly.row), (Severity::Critical, 0));
    assert_eq!(
        anomaly.reasons,
        [
            "unusual hour: 0 of 100 earlier events came at 03:00 to 03:59 UTC (rarity 1.00)",
            "new address: 198.51.100.7 was never seen in 100 earlier events (rarity 1.00)",
            "new location: Lagos was never seen in 100 earlier events (rarity 1.00)",
            "new event type: file_access was never seen in 100 earlier events (rarity 1.00)",
        ]
    );
    // A field that is missing counts nothing and gives its weight to no other.
    let out = process(
        &mut baselines,
        &[row(MONDAY + 28 * HOUR, "ann", "198.51.100.8", "", "file_write", true)],
    );
    assert_eq!(out.scores, [Some(0.7)]);
}

#[test]
fn outcomes_are_read_in_any_spelling() {
    for failure in ["failure", "FAILED", " Denied", "401", "error"] {
        assert!(is_failure(failure), "{failure}");
    }
    for other in ["success", "", "blocked", "pending", "200", "404", "failover"] {
        assert!(!is_failure(other), "{other}");
    }
}

#[test]
fn calibrated_takeover_is_found_and_said_in_words() {
    let mut baselines = Baselines::new(options(Mode::Calibrated));
    let mut rows = Vec::new();
    for day in 0..10 {
        for i in 0..80 {
            let kind = if i % 8 == 0 { "login" } else { "file_access" };
            let time = MONDAY + day * 24 * HOUR + 8 * HOUR + i * HOUR / 10;
            rows.push(row(time, "ann", "10.0.0.1", "Berlin", kind, true));
        }
    }
    let quiet = process(&mut baselines, &rows);
    assert!(quiet.anomalies.is_empty(), "{:?}", quiet.anomalies);
    let at = MONDAY + 9 * 24 * HOUR + 16 * HOUR + 30 * 60_000_000;
    let stolen: Vec<Row> =
        (0..5).map(|i| row(at + i, "ann", "198.51.100.7", "Lagos", "mailbox_rule", true)).collect();
    let out = process(&mut baselines, &stolen);
    let first = &out.anomalies[0];
    assert!(first.score >= 0.8, "{first:?}");
    let text = first.reasons.join("\n");
    for part in [
        "new address: 198.51.100.7 was never seen in 800 earlier",
        "fast travel",
        "Lagos",
        "mailbox_rule",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert!(out.anomalies.len() <= 2, "the session is surprising when it begins: {:?}", out.scores);
}
