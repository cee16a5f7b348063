//! The match set of an independent evaluator over the real Windows events.

use crate::support;
use palisade_sigma::Hits;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Rules on `Data`, the unnamed data of an event, which the oracle could not see where `evtx_dump` writes
/// a list; `docs/sigma.md` says more. Each with the number of events.
const DATA: [(&str, usize); 4] = [
    ("350dfb37-3706-4cdc-9e2e-5e24bc3a46df", 4),
    ("d08dd86f-681e-4a00-a92c-1db218754417", 1),
    ("e6e88853-5f20-4c4a-8d26-cd469fd8d31f", 4),
    ("ebfe73c2-5bc9-4ed9-aaa8-8b54b2b4777d", 6),
];

#[test]
fn the_oracles_matches_are_found_and_no_others() {
    let Some(rules) = support::sigma_hq_rules() else { return };
    let Some(events) = support::oracle_events() else { return };
    let dir = support::data("sigma").unwrap();
    let scope: Value =
        serde_json::from_slice(&std::fs::read(dir.join("oracle_scope.json")).unwrap()).unwrap();
    let scope: BTreeSet<&str> =
        scope["evaluated_rule_ids"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let mut expected = BTreeMap::new();
    for line in std::fs::read_to_string(dir.join("oracle_matches.jsonl")).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| line[key].as_str().unwrap().to_owned();
        let ids: BTreeSet<String> = line["matching_rule_ids"]
            .as_array()
            .unwrap()
            .iter()
            .map(|id| id.as_str().unwrap().to_owned())
            .collect();
        let row = line["event_index"].as_u64().unwrap() as usize;
        expected.insert((text("set"), text("file"), row), ids);
    }
    let ids: Vec<&str> = rules.rules().map(|rule| rule.id.as_str()).collect();
    let matcher = rules.matcher();
    let (mut hits, mut agreed) = (Hits::new(), 0);
    let mut differences = BTreeSet::new();
    for events in events {
        let batch = support::batch(&events.body);
        matcher.matches(&batch, &mut hits);
        for row in 0..batch.num_rows() {
            let key = (events.set.to_owned(), events.name.clone(), row);
            let wanted = expected.remove(&key).unwrap_or_default();
            let found: BTreeSet<String> = hits
                .of(row)
                .iter()
                .map(|rule| ids[*rule as usize].to_owned())
                .filter(|id| scope.contains(id.as_str()))
                .collect();
            agreed += found.intersection(&wanted).count();
            for id in found.symmetric_difference(&wanted) {
                differences.insert((key.clone(), id.clone()));
            }
        }
    }
    assert!(expected.values().all(BTreeSet::is_empty), "events that are not there: {expected:?}");
    // Those are about `Data` alone, and there are no others.
    let by_rule: BTreeMap<&str, usize> =
        differences.iter().fold(BTreeMap::new(), |mut count, (_, id)| {
            *count.entry(id.as_str()).or_default() += 1;
            count
        });
    assert_eq!(by_rule.into_iter().collect::<Vec<_>>(), DATA);
    assert!(agreed > 600, "{agreed}");
}

#[test]
fn every_regression_rule_finds_its_event() {
    let Some(rules) = support::sigma_hq_rules() else { return };
    let Some(dir) = support::data("sigma/regression") else { return };
    let ids: Vec<&str> = rules.rules().map(|rule| rule.id.as_str()).collect();
    let matcher = rules.matcher();
    let (mut hits, mut seen) = (Hits::new(), 0);
    for folder in support::files(&dir) {
        let id = folder.file_name().unwrap().to_string_lossy().into_owned();
        let mut found = false;
        for path in support::files(&folder) {
            let batch = match path.extension().and_then(|extension| extension.to_str()) {
                Some("json") => support::batch(&support::read(&path)),
                Some("raw") => {
                    let line = String::from_utf8(support::read(&path)).unwrap();
                    let record = serde_json::json!({ "message": line.trim() });
                    support::batch(record.to_string().as_bytes())
                }
                _ => continue,
            };
            matcher.matches(&batch, &mut hits);
            found |= hits.iter().any(|(_, rule)| ids[rule as usize] == id);
        }
        assert!(found, "{id}");
        seen += 1;
    }
    assert_eq!(seen, 99);
}
