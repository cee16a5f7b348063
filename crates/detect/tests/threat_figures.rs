//! Precision and recall of the attack classes on labelled payloads and requests. The data stands
//! beside a development checkout; without it the tests say so and return.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may panic")]

use palisade_detect::threat::columns::Place;
use palisade_detect::threat::{Class, ThreatScorer};
use std::collections::BTreeMap;

fn data(name: &str) -> Option<String> {
    let path = format!("../../../shared/data/{name}");
    match std::fs::read(&path) {
        Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) => {
            println!("skipped: {name} is not beside the project ({error})");
            None
        }
    }
}

/// The records of a CSV with quoted fields.
fn records(text: &str) -> Vec<Vec<String>> {
    let (mut out, mut record, mut field, mut quoted) = (vec![], vec![], String::new(), false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                field.push('"');
                chars.next();
            }
            '"' => quoted = !quoted,
            ',' if !quoted => record.push(std::mem::take(&mut field)),
            '\n' if !quoted => {
                record.push(std::mem::take(&mut field).trim_end_matches('\r').to_owned());
                out.push(std::mem::take(&mut record));
            }
            _ => field.push(c),
        }
    }
    out
}

/// How well one label is told from all others.
#[derive(Default, Debug)]
struct Figures {
    right: u32,
    wrong: u32,
    missed: u32,
}

impl Figures {
    fn add(&mut self, expected: bool, found: bool) {
        match (expected, found) {
            (true, true) => self.right += 1,
            (false, true) => self.wrong += 1,
            (true, false) => self.missed += 1,
            (false, false) => {}
        }
    }

    fn precision(&self) -> f64 {
        f64::from(self.right) / f64::from((self.right + self.wrong).max(1))
    }

    fn recall(&self) -> f64 {
        f64::from(self.right) / f64::from((self.right + self.missed).max(1))
    }

    fn f1(&self) -> f64 {
        2.0 * self.precision() * self.recall() / (self.precision() + self.recall()).max(1e-9)
    }
}

/// Attack or not, and each class, on the payloads of `http-params`, scored as lines of which nothing
/// else is known. Floors are a little below what was measured.
#[test]
fn payloads_of_http_params() {
    let Some(text) = data("http-params/payload_train.csv") else { return };
    let mut scorer = ThreatScorer::new().unwrap();
    let mut binary = Figures::default();
    let mut alerts = Figures::default();
    let labels = [
        ("sqli", Class::Sqli),
        ("xss", Class::Xss),
        ("cmdi", Class::Cmdi),
        ("path-traversal", Class::PathTraversal),
    ];
    let mut by_class: BTreeMap<&str, Figures> = BTreeMap::new();
    let mut any_class: BTreeMap<String, Figures> = BTreeMap::new();
    let show = std::env::var("PALISADE_SHOW").unwrap_or_default();
    for record in records(&text).into_iter().skip(1) {
        let [payload, _, label, _] = record.as_slice() else { continue };
        let result = scorer.score_line(payload);
        let attack = label != "norm";
        binary.add(attack, result.class.is_some());
        alerts.add(attack, result.score >= 0.7);
        any_class.entry(label.clone()).or_default().add(true, result.class.is_some());
        for (name, class) in labels {
            by_class.entry(name).or_default().add(label == name, result.class == Some(class));
        }
        if (show == "missed" && attack && result.class.is_none())
            || (show == "wrong" && !attack && result.class.is_some())
            || (show == "class"
                && attack
                && result.class.is_some_and(|c| !labels.contains(&(label, c))))
        {
            println!("{label}: {payload:?} {:?} {:?}", result.class, result.reasons);
        }
    }
    println!(
        "http-params, attack or not: precision {:.4} recall {:.4} F1 {:.4} {binary:?}",
        binary.precision(),
        binary.recall(),
        binary.f1()
    );
    println!("http-params, score >= 0.7: F1 {:.4} {alerts:?}", alerts.f1());
    for (name, figures) in &by_class {
        println!(
            "  {name}: precision {:.4} recall {:.4}; any class: recall {:.4}",
            figures.precision(),
            figures.recall(),
            any_class.get(*name).map_or(0.0, Figures::recall)
        );
    }
    assert!(binary.f1() >= 0.995 && binary.precision() >= 0.999, "{binary:?}");
    assert!(alerts.f1() >= 0.985, "{alerts:?}");
    for (name, floor) in [("sqli", 0.995), ("xss", 0.95), ("cmdi", 0.86), ("path-traversal", 0.87)]
    {
        let figures = by_class.get(name).unwrap();
        assert!(figures.recall() >= floor && figures.precision() >= 0.98, "{name}: {figures:?}");
    }
}

/// Recall of the attacks among the requests of the OWASP Core Rule Set's tests, by category, and
/// how many of the requests are flagged that one rule must not fire for (others may).
#[test]
fn requests_of_the_core_rule_set() {
    let Some(text) = data("http-crs/crs_requests.jsonl") else { return };
    let mut scorer = ThreatScorer::new().unwrap();
    let mut by_category: BTreeMap<String, [u32; 4]> = BTreeMap::new();
    let show = std::env::var("PALISADE_SHOW").unwrap_or_default();
    for line in text.lines() {
        let request: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| request[key].as_str().unwrap_or_default().to_owned();
        let mut parts = vec![(Place::Request, text("uri")), (Place::Request, text("data"))];
        for (name, value) in request["headers"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default().to_owned();
            match name.to_ascii_lowercase().as_str() {
                "user-agent" => parts.push((Place::Agent, value)),
                "host" | "accept" | "connection" | "accept-encoding" | "accept-language" => {}
                _ => parts.push((Place::Request, value)),
            }
        }
        let found: Vec<_> =
            parts.iter().map(|(place, text)| scorer.inspect(*place, text)).collect();
        let flagged = found.iter().any(|inspection| inspection.class.is_some());
        let fires = request["expect_ids"].as_array().is_some_and(|ids| !ids.is_empty());
        let category = text("category");
        if (show == "missed" && fires && !flagged) || (show == "wrong" && !fires && flagged) {
            let reasons: Vec<_> = found.iter().flat_map(|i| i.reasons.clone()).collect();
            println!("{} {category} {parts:?} {reasons:?}", text("crs_rule"));
        }
        let counts = by_category.entry(category).or_default();
        let at = if fires { 0 } else { 2 };
        counts[at] += u32::from(flagged);
        counts[at + 1] += 1;
    }
    let (mut attacks, mut of_attacks) = (0, 0);
    let (mut quiet, mut of_quiet) = (0, 0);
    for (category, [fired, of_fired, not, of_not]) in &by_category {
        println!("  {category}: must fire {fired}/{of_fired}, one rule must not {not}/{of_not}");
        quiet += not;
        of_quiet += of_not;
        if !["920", "922", "943", "949"].iter().any(|number| category.contains(number)) {
            attacks += fired;
            of_attacks += of_fired;
        }
    }
    let recall = f64::from(attacks) / f64::from(of_attacks);
    let others = f64::from(quiet) / f64::from(of_quiet);
    println!(
        "http-crs: attack categories (921, 930 to 934, 941, 942, 944) {recall:.4} of {of_attacks}, flagged where one rule must not fire {others:.4} of {of_quiet}"
    );
    assert!(recall >= 0.70, "{recall}");
}
