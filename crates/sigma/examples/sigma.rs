//! Loads the SigmaHQ rules, holds them against the oracle's matches, and measures the matcher beside
//! `rsigma-eval`: `sigma load|oracle|explain RULE FILE ROW|bench [PASSES] [ROWS]`.
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
use rsigma_eval::event::JsonEvent;
use rsigma_eval::{Engine, LogSourceExtractor};
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
        Some("bench") => bench(&rules, &matcher, number(1, 3), number(2, 4_096)),
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

/// A small generator, so that runs are alike.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Varies what differs from machine to machine: process ids, folders of users and programs, hashes,
/// users, the ends of command lines.
fn vary(event: &mut Value, random: &mut Random) {
    let Some(members) = event.as_object_mut() else { return };
    for (name, value) in members.iter_mut() {
        let number = random.next();
        if name.ends_with("ProcessId") || name == "ExecutionProcessID" || name == "ProcessID" {
            *value = match value {
                Value::String(text) if text.starts_with("0x") => {
                    format!("0x{:x}", number % 65_536).into()
                }
                Value::String(_) => (number % 65_536).to_string().into(),
                _ => (number % 65_536).into(),
            };
            continue;
        }
        let Value::String(text) = value else { continue };
        if name == "Hashes" {
            let digits: String = text
                .chars()
                .map(|c| {
                    if c.is_ascii_digit() {
                        char::from(b'0' + (random.next() % 10) as u8)
                    } else {
                        c
                    }
                })
                .collect();
            *text = digits;
        } else if name.ends_with("CommandLine") || name == "ScriptBlockText" || name == "Message" {
            text.push_str(&format!(" {number:x}"));
        } else if name.ends_with("UserName") || name == "User" {
            text.push_str(&format!("{:x}", number % 4_096));
        } else if name.ends_with("Guid") || name.ends_with("GUID") {
            *text = format!("{{{number:032x}}}");
        } else if name.ends_with("Image")
            || name.contains("Name")
            || name == "ImageLoaded"
            || name == "TargetObject"
            || name == "CallTrace"
        {
            // The folder before the last name, where it is none that rules name.
            if let Some(at) = text.rfind('\\')
                && text.len() > 12
                && !text.to_ascii_lowercase().contains("system32")
            {
                text.insert_str(at, &format!("\\{:x}", number % 100_000));
            }
        }
    }
}

fn bench(rules: &RuleSet, matcher: &Matcher, passes: usize, rows: usize) {
    let mut originals = Vec::new();
    for events in support::oracle_events().unwrap() {
        if events.set == "otrf" {
            originals.extend(support::documents(&events.body));
        }
    }
    let mut engine = Engine::new();
    let mut collection = rsigma_parser::SigmaCollection::new();
    for text in support::sigma_hq().unwrap().values() {
        let parsed = rsigma_parser::parse_sigma_yaml(text).unwrap();
        collection.rules.extend(parsed.rules);
    }
    let failed = engine.add_rules(&collection.rules);
    println!("the peer refused {} rules", failed.len());
    engine.set_logsource_extractor(Some(LogSourceExtractor::new()));
    let mut random = Random(7);
    let (mut ours, mut theirs) = (0.0, 0.0);
    let (mut events, mut hits_ours, mut hits_theirs, mut routed) = (0, 0, 0, 0);
    let mut hits = Hits::new();
    for pass in 0..=passes {
        let mut varied = originals.clone();
        varied.iter_mut().for_each(|event| vary(event, &mut random));
        let batches: Vec<_> = varied
            .chunks(rows)
            .map(|chunk| {
                let mut body = Vec::new();
                for event in chunk {
                    serde_json::to_writer(&mut body, event).unwrap();
                    body.push(b'\n');
                }
                support::batch(&body)
            })
            .collect();
        let started = Instant::now();
        let (mut found, mut looked_at) = (0, 0);
        for batch in &batches {
            // For a profile of the matcher alone.
            let repeat = std::env::var("REPEAT").ok().and_then(|times| times.parse().ok());
            for _ in 1..repeat.unwrap_or(1) {
                matcher.matches(batch, &mut hits);
            }
            matcher.matches(batch, &mut hits);
            found += hits.len();
            looked_at += hits.routed();
        }
        let our_time = started.elapsed().as_secs_f64();
        drop(batches);
        for event in &mut varied {
            label(event);
        }
        let started = Instant::now();
        let mut peer = 0;
        if std::env::var_os("ALONE").is_none() {
            for event in &varied {
                peer += engine.evaluate(&JsonEvent::borrow(event)).len();
            }
        }
        let their_time = started.elapsed().as_secs_f64();
        if pass == 0 {
            continue;
        }
        ours += our_time;
        theirs += their_time;
        events += varied.len();
        hits_ours += found;
        hits_theirs += peer;
        routed += looked_at;
    }
    let rate = |seconds: f64| events as f64 / seconds;
    println!(
        "{} rules, {events} events, {rows} rows a batch: {:.0} events/s, the peer {:.0}, {:.2} times; matches {hits_ours} and {hits_theirs}; {:.3} of rows looked at",
        rules.rules().len(),
        rate(ours),
        rate(theirs),
        theirs / ours,
        routed as f64 / events as f64
    );
}

/// Names the log source of an event for the peer, as the table of log sources has it.
fn label(event: &mut Value) {
    let channel = event["Channel"].as_str().unwrap_or_default().to_owned();
    let id = event["EventID"].as_u64().unwrap_or_default();
    let (service, category) = match channel.as_str() {
        "Microsoft-Windows-Sysmon/Operational" => (
            "sysmon",
            match id {
                1 => "process_creation",
                2 => "file_change",
                3 => "network_connection",
                4 | 16 => "sysmon_status",
                5 => "process_termination",
                6 => "driver_load",
                7 => "image_load",
                8 => "create_remote_thread",
                9 => "raw_access_thread",
                10 => "process_access",
                11 => "file_event",
                12 => "registry_event",
                13 => "registry_set",
                14 => "registry_rename",
                15 => "create_stream_hash",
                17 | 18 => "pipe_created",
                19..=21 => "wmi_event",
                22 => "dns_query",
                23 | 26 => "file_delete",
                _ => "other",
            },
        ),
        "Security" => ("security", "other"),
        "System" => ("system", "other"),
        "Application" => ("application", "other"),
        "Windows PowerShell" => (
            "powershell-classic",
            match id {
                400 => "ps_classic_start",
                600 => "ps_classic_provider_start",
                _ => "other",
            },
        ),
        "Microsoft-Windows-PowerShell/Operational" => (
            "powershell",
            match id {
                4_103 => "ps_module",
                4_104 => "ps_script",
                _ => "other",
            },
        ),
        "Microsoft-Windows-WMI-Activity/Operational" => ("wmi", "other"),
        "Microsoft-Windows-TaskScheduler/Operational" => ("taskscheduler", "other"),
        "Microsoft-Windows-Bits-Client/Operational" => ("bits-client", "other"),
        _ => ("other", "other"),
    };
    if let Some(members) = event.as_object_mut() {
        members.insert("product".into(), "windows".into());
        members.insert("service".into(), service.into());
        members.insert("category".into(), category.into());
    }
}
