//! Loads the SigmaHQ rules and holds them against the oracle's matches: `sigma load|oracle|explain RULE FILE ROW`. How
//! fast they are measures `palisade bench sigma`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a measurement may panic"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use palisade_sigma::{Hits, Matcher, RuleSet};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let started = Instant::now();
    let Some(rules) = support::sigma_hq_rules() else { return };
    println!(
        "{} rules, {} refused, {:?}",
        rules.rules().len(),
        rules.refused().len(),
        started.elapsed()
    );
    let started = Instant::now();
    let matcher = rules.matcher();
    println!("compiled in {:?}", started.elapsed());
    let number = |place: usize, otherwise: usize| {
        words.get(place).and_then(|word| word.parse().ok()).unwrap_or(otherwise)
    };
    match words.first().map(String::as_str) {
        Some("oracle") => oracle(&rules, &matcher),
        Some("explain") => explain(&rules, &matcher, &words[1], &words[2], number(3, 0)),
        _ => rules.refused().iter().for_each(|refusal| println!("{refusal}")),
    }
}

fn oracle(rules: &RuleSet, matcher: &Matcher) {
    let ids: Vec<String> = rules.rules().map(|rule| rule.id.clone()).collect();
    let dir = support::data("sigma").unwrap();
    let scope: Value =
        serde_json::from_slice(&std::fs::read(dir.join("oracle_scope.json")).unwrap()).unwrap();
    let scope: BTreeSet<&str> =
        scope["evaluated_rule_ids"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let mut expected: BTreeMap<(String, String, usize), BTreeSet<String>> = BTreeMap::new();
    for line in std::fs::read_to_string(dir.join("oracle_matches.jsonl")).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| line[key].as_str().unwrap().to_owned();
        let matched = line["matching_rule_ids"].as_array().unwrap();
        expected.insert(
            (text("set"), text("file"), line["event_index"].as_u64().unwrap() as usize),
            matched.iter().map(|id| id.as_str().unwrap().to_owned()).collect(),
        );
    }
    let (mut both, mut missing, mut extra, mut outside) = (0, 0, 0, 0);
    let mut hits = Hits::new();
    for events in support::oracle_events().unwrap() {
        let batch = support::batch(&events.body);
        matcher.matches(&batch, &mut hits);
        for row in 0..batch.num_rows() {
            let none = BTreeSet::new();
            let wanted =
                expected.get(&(events.set.to_owned(), events.name.clone(), row)).unwrap_or(&none);
            let found: BTreeSet<String> =
                hits.of(row).iter().map(|rule| ids[*rule as usize].clone()).collect();
            for id in found.union(wanted) {
                match (found.contains(id), wanted.contains(id)) {
                    (true, true) => both += 1,
                    (true, false) if !scope.contains(id.as_str()) => outside += 1,
                    (true, false) => {
                        extra += 1;
                        println!("extra   {} {} {row} {id}", events.set, events.name);
                    }
                    _ => {
                        missing += 1;
                        println!("missing {} {} {row} {id}", events.set, events.name);
                    }
                }
            }
        }
    }
    println!("both {both}, missing {missing}, extra {extra}, by rules outside its scope {outside}");
}

fn explain(rules: &RuleSet, matcher: &Matcher, rule: &str, file: &str, row: usize) {
    let ordinal = rules.rules().position(|known| known.id == rule).unwrap();
    let events = support::oracle_events().unwrap();
    let events = events.iter().find(|events| events.name.contains(file)).unwrap();
    let batch = support::batch(&events.body);
    let explanation = matcher.explain(&batch, row, ordinal as u32).unwrap();
    println!("{}", serde_json::to_string_pretty(&explanation).unwrap());
    println!("{}", support::documents(&events.body)[row]);
}
