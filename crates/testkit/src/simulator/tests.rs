//! The simulator at its public edge.

use super::*;
use serde_json::Value;
use std::collections::BTreeMap;

fn small() -> SimulatorOptions {
    SimulatorOptions { people: 120, hosts: 40, records: 60_000, ..SimulatorOptions::default() }
}

fn all(options: SimulatorOptions, at_once: usize) -> (Vec<u8>, Simulator) {
    let mut simulator = Simulator::new(options);
    let mut out = Vec::new();
    while simulator.fill(&mut out, at_once) > 0 {}
    (out, simulator)
}

fn time_of(record: &Value) -> i64 {
    if let Some(millis) = record["timestamp"].as_i64() {
        return millis;
    }
    let text = ["time", "TimeCreated", "@timestamp"].iter().find_map(|name| record[*name].as_str());
    let text = text.expect("a time");
    let number = |range: std::ops::Range<usize>| text[range].parse::<i64>().unwrap();
    // Only ever 4 March 2024 in these tests.
    assert_eq!(&text[..10], "2024-03-04");
    1_709_510_400_000
        + ((number(11..13) * 60 + number(14..16)) * 60 + number(17..19)) * 1000
        + number(20..23)
}

fn user_of(record: &Value) -> Option<&str> {
    record["user"]
        .as_str()
        .or(record["user"]["name"].as_str())
        .or(record["TargetUserName"].as_str())
}

#[test]
fn the_same_options_give_the_same_bytes_however_they_are_fetched() {
    let (bytes, simulator) = all(small(), 1000);
    let (again, other) = all(small(), 7);
    assert!(bytes == again && simulator.labels() == other.labels());
    let (different, _) = all(SimulatorOptions { seed: 2, ..small() }, 1000);
    assert!(bytes != different);
    let lines: Vec<String> = Simulator::new(small()).take(50).collect();
    assert_eq!(lines.join("\n").as_bytes(), &bytes[..lines.join("\n").len()]);
}

#[test]
fn records_are_json_in_order_of_time_and_as_many_as_asked_for() {
    let (bytes, simulator) = all(small(), 1000);
    let text = String::from_utf8(bytes).unwrap();
    let (mut before, mut ids, mut shapes) = (0, std::collections::BTreeSet::new(), BTreeMap::new());
    for line in text.lines() {
        let record: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        let time = time_of(&record);
        assert!(time >= before, "{line}");
        before = time;
        assert!(ids.insert(record["event_id"].as_str().unwrap().to_owned()), "{line}");
        let shape = ["timestamp", "time", "TimeCreated", "@timestamp"]
            .into_iter()
            .find(|name| !record[*name].is_null());
        *shapes.entry(shape.unwrap()).or_insert(0) += 1;
        let lower = line.to_lowercase();
        for word in ["attack\"", "label", "planted", "brute", "malicious"] {
            assert!(!lower.contains(word), "{line}");
        }
    }
    assert_eq!((ids.len(), simulator.total()), (60_000, 60_000));
    assert!(shapes.len() == 4 && shapes.values().all(|count| *count > 500), "{shapes:?}");
}

#[test]
fn labels_name_the_attacks_records() {
    let (bytes, simulator) = all(small(), 1000);
    let text = String::from_utf8(bytes).unwrap();
    let records: BTreeMap<String, Value> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|record| (record["event_id"].as_str().unwrap().to_owned(), record))
        .collect();
    let kinds: std::collections::BTreeSet<AttackKind> =
        simulator.labels().iter().map(|label| label.kind).collect();
    assert_eq!(kinds.len(), 8, "{kinds:?}");
    for label in simulator.labels() {
        assert!(label.event_ids.len() >= 15, "{label:?}");
        assert!(label.start >= simulator.options().start + 12 * 60 * MINUTE, "in the later part");
        for id in &label.event_ids {
            let record = &records[id];
            let time = time_of(record) * 1000;
            assert!((label.start - 1000..=label.end).contains(&time));
            if let Some(user) = &label.user {
                assert_eq!(user_of(record), Some(user.as_str()));
            }
        }
        // Who is measured against a history has one.
        if let Some(user) = &label.user {
            let earlier = records
                .values()
                .filter(|record| {
                    user_of(record) == Some(user) && time_of(record) * 1000 < label.start
                })
                .count();
            assert!(earlier >= 60, "{user} had {earlier} records before");
        }
    }
}

#[test]
fn days_make_a_longer_history_and_attacks_stay_on_the_last() {
    let (_, simulator) = all(SimulatorOptions { days: 3, ..small() }, 1000);
    let last = simulator.options().start + 2 * 1440 * MINUTE;
    assert!(simulator.labels().iter().all(|label| label.start > last));
}

#[test]
fn detections_are_joined_with_labels() {
    let label = |attack, kind, user: &str, ids: &[&str], start| Planted {
        attack,
        kind,
        user: Some(user.to_owned()),
        src_ip: Some(format!("198.18.0.{attack}")),
        event_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        start,
        end: start + MINUTE,
    };
    let labels = [
        label(0, AttackKind::BruteForce, "ann", &["a", "b"], 0),
        label(1, AttackKind::BruteForce, "ben", &["c"], 10 * MINUTE),
        label(2, AttackKind::Beaconing, "eva", &["d"], 20 * MINUTE),
    ];
    let by_ids = |time, ids: &[&str]| Detection {
        time,
        user: Some("ann".to_owned()),
        event_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        ..Detection::default()
    };
    let detections = [
        by_ids(5_000_000, &["x", "b"]),
        by_ids(9_000_000, &["a"]),
        by_ids(0, &["x"]),
        Detection {
            time: 11 * MINUTE,
            src_ip: Some("198.18.0.1".to_owned()),
            ..Detection::default()
        },
        Detection { time: 50 * MINUTE, user: Some("eva".to_owned()), ..Detection::default() },
    ];
    let report = evaluate(&labels, &detections);
    assert_eq!((report.detections, report.false_alarms), (5, 2));
    assert!((report.precision - 0.6).abs() < 1e-9 && (report.recall - 2.0 / 3.0).abs() < 1e-9);
    let brute = report.kinds[&AttackKind::BruteForce];
    assert_eq!(brute, KindReport { planted: 2, found: 2, detections: 3, median_delay: MINUTE });
    assert_eq!(report.kinds[&AttackKind::Beaconing].found, 0);
    let nothing = evaluate(&[], &[]);
    assert!(nothing.precision == 1.0 && nothing.recall == 1.0);
    assert!(report.to_string().contains("precision 0.600"));
}

#[test]
#[cfg_attr(debug_assertions, ignore = "a measurement")]
fn it_is_fast() {
    let start = std::time::Instant::now();
    let mut simulator =
        Simulator::new(SimulatorOptions { records: 500_000, ..SimulatorOptions::default() });
    let (mut out, mut bytes) = (Vec::new(), 0);
    while simulator.fill(&mut out, 10_000) > 0 {
        bytes += out.len();
        out.clear();
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{:.0} records/s, {} bytes a record, {} attack records",
        500_000.0 / seconds,
        bytes / 500_000,
        simulator.steps.len()
    );
}
