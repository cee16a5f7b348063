//! Compares the two modes of the baselines on the simulator's labels: area under the ROC and the
//! precision-recall curve per event, and the attacks found at equal numbers of alerts per day.
//!
//! `cargo run --release -p palisade-detect --example compare_baselines -- [days] [records] [seeds]`
//!
//! An event is positive when it belongs to an attack on a user's behaviour (takeover, travel, misuse).
//! Events of other attacks are left out of the curves, since no baseline is asked to know them. An
//! alert is a user and clock hour with an event at or above the score. Alerts on other attacks are
//! neither false nor counted; the budgets are of false alerts a day. The curves are also drawn per
//! user and clock hour, by its highest score.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use arrow::array::{ArrayRef, DictionaryArray, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{Field, Int32Type, Schema};
use palisade_detect::baseline::{
    BaselineOptions, BaselineOutput, Baselines, Mode, Routing, RowsOfSlots,
};
use palisade_event::schema::{Core, alias};
use palisade_event::slot::partition_table;
use palisade_testkit::simulator::{AttackKind, Simulator, SimulatorOptions};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

const DAY: i64 = 86_400_000_000;
const COLUMNS: [Core; 5] = [Core::User, Core::SrcIp, Core::Location, Core::Type, Core::Outcome];

/// The core fields of a record, by the aliases of the schema.
fn fields(prefix: &str, value: &Value, out: &mut BTreeMap<Core, String>) {
    for (name, value) in value.as_object().into_iter().flatten() {
        let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            Value::Object(_) => fields(&name, value, out),
            Value::Null => {}
            value => {
                if let Some(core) = alias(&name) {
                    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    out.insert(core, text);
                }
            }
        }
    }
}

fn micros(text: &str) -> i64 {
    if let Ok(millis) = text.parse::<i64>() {
        return millis * 1000;
    }
    let number = |range: std::ops::Range<usize>| text[range].parse::<i64>().unwrap();
    // All simulated days of this comparison lie in March 2024.
    assert_eq!(&text[..8], "2024-03-");
    let day = 1_709_251_200 + (number(8..10) - 1) * 86_400;
    (day + (number(11..13) * 60 + number(14..16)) * 60 + number(17..19)) * 1_000_000
        + number(20..23) * 1000
}

struct Scored {
    score: u32,
    user: String,
    time: i64,
    /// The attack it belongs to.
    attack: Option<(u32, AttackKind)>,
}

fn behaviour(kind: AttackKind) -> bool {
    use AttackKind::{ImpossibleTravel, NewDeviceTakeover, PrivilegeMisuse};
    matches!(kind, ImpossibleTravel | NewDeviceTakeover | PrivilegeMisuse)
}

/// Area under the ROC curve (ties count half) and average precision.
fn areas(events: &[(u32, bool)]) -> (f64, f64) {
    let mut sorted = events.to_vec();
    sorted.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
    let positives = sorted.iter().filter(|(_, positive)| *positive).count() as f64;
    let negatives = sorted.len() as f64 - positives;
    let (mut hits, mut misses, mut area, mut precision) = (0.0, 0.0, 0.0, 0.0);
    for same in sorted.chunk_by(|a, b| a.0 == b.0) {
        let up = same.iter().filter(|(_, positive)| *positive).count() as f64;
        let across = same.len() as f64 - up;
        area += across * (hits + up / 2.0);
        hits += up;
        misses += across;
        precision += up * hits / (hits + misses);
    }
    (area / (positives * negatives), precision / positives)
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<u64>().unwrap());
    let days = arguments.next().unwrap_or(1) as u32;
    let records = arguments.next().unwrap_or(2_000_000);
    let seeds = arguments.next().unwrap_or(1);
    for mode in [Mode::StreamGuard, Mode::Calibrated] {
        println!("== {mode:?}, {days} days, {records} records, {seeds} seeds");
        let mut found: BTreeMap<(usize, AttackKind), usize> = BTreeMap::new();
        let mut planted: BTreeMap<AttackKind, usize> = BTreeMap::new();
        let (mut auroc, mut auprc, mut scored, mut negatives) = (0.0, 0.0, 0, 0);
        let mut hourly = (0.0, 0.0);
        let mut false_alarms = [0; 3];
        let mut at_threshold = [(0, 0); 3];
        const BUDGETS: [usize; 5] = [0, 5, 20, 50, 200];
        for seed in 1..=seeds {
            let options = SimulatorOptions { seed, days, records, ..SimulatorOptions::default() };
            let last_day = options.start + i64::from(days - 1) * DAY;
            let (events, labels) = run(mode, options);
            for label in labels.values().filter(|kind| behaviour(**kind)) {
                *planted.entry(*label).or_default() += 1;
            }
            scored += events.len();
            let curve: Vec<(u32, bool)> = events
                .iter()
                .filter(|event| event.attack.is_none_or(|(_, kind)| behaviour(kind)))
                .map(|event| (event.score, event.attack.is_some()))
                .collect();
            for (score, positive) in &curve {
                negatives += usize::from(!positive);
                for (count, threshold) in false_alarms.iter_mut().zip([700, 800, 900]) {
                    *count += usize::from(!positive && *score >= threshold);
                }
            }
            let (roc, prc) = areas(&curve);
            auroc += roc / seeds as f64;
            auprc += prc / seeds as f64;
            let mut order: Vec<&Scored> =
                events.iter().filter(|event| event.time >= last_day).collect();
            order.sort_by_key(|event| (std::cmp::Reverse(event.score), event.time));
            let mut alerts: BTreeSet<(&str, i64)> = BTreeSet::new();
            let mut seen: BTreeSet<u32> = BTreeSet::new();
            let mut hours: BTreeMap<(&str, i64), (u32, bool, bool)> = BTreeMap::new();
            for event in &events {
                let hour =
                    hours.entry((event.user.as_str(), event.time / 3_600_000_000)).or_default();
                hour.0 = hour.0.max(event.score);
                hour.1 |= event.attack.is_some_and(|(_, kind)| behaviour(kind));
                hour.2 |= event.attack.is_some_and(|(_, kind)| !behaviour(kind));
            }
            let attacked: BTreeSet<(&str, i64)> = hours
                .iter()
                .filter(|(_, (_, attack, other))| *attack || *other)
                .map(|(hour, _)| *hour)
                .collect();
            let curve: Vec<(u32, bool)> = hours
                .values()
                .filter(|(_, attack, other)| *attack || !other)
                .map(|(score, attack, _)| (*score, *attack))
                .collect();
            let (roc, prc) = areas(&curve);
            hourly.0 += roc / seeds as f64;
            hourly.1 += prc / seeds as f64;
            for event in order {
                let harmless = event.attack.is_none();
                let hour = (event.user.as_str(), event.time / 3_600_000_000);
                let new = harmless && !attacked.contains(&hour) && alerts.insert(hour);
                for ((alerts, attacks), threshold) in at_threshold.iter_mut().zip([700, 800, 900]) {
                    if event.score >= threshold {
                        *alerts += usize::from(new);
                        *attacks += usize::from(event.attack.is_some_and(|(number, kind)| {
                            behaviour(kind) && !seen.contains(&number)
                        }));
                    }
                }
                if let Some((number, kind)) = event.attack.filter(|(_, kind)| behaviour(*kind))
                    && seen.insert(number)
                {
                    for budget in BUDGETS.iter().filter(|budget| alerts.len() <= **budget) {
                        *found.entry((*budget, kind)).or_default() += 1;
                    }
                }
            }
        }
        println!("scored {scored}, per event AUROC {auroc:.4}, AUPRC {auprc:.4}");
        println!("per user and hour AUROC {:.4}, AUPRC {:.4}", hourly.0, hourly.1);
        let rates = false_alarms.map(|count| count as f64 / negatives as f64);
        println!("false alarms per harmless event at 0.7, 0.8, 0.9: {rates:.6?}");
        println!(
            "(false alerts on the last day, attacks found) at 0.7, 0.8, 0.9, all seeds: {at_threshold:?}"
        );
        for budget in BUDGETS {
            let text: Vec<String> = planted
                .iter()
                .map(|(kind, all)| {
                    format!("{} {}/{all}", kind.as_str(), found.get(&(budget, *kind)).unwrap_or(&0))
                })
                .collect();
            println!("{budget:>4} false alerts a day: {}", text.join(", "));
        }
    }
}

fn run(mode: Mode, options: SimulatorOptions) -> (Vec<Scored>, BTreeMap<u32, AttackKind>) {
    let mut simulator = Simulator::new(options);
    let mut baselines = Baselines::new(BaselineOptions { mode, ..BaselineOptions::default() });
    let (mut text, mut routing, mut out) =
        (Vec::new(), Routing::default(), BaselineOutput::default());
    let table = partition_table(1);
    let mut pending: Vec<(String, Scored)> = Vec::new();
    let explain = std::env::var_os("EXPLAIN").is_some();
    let mut reasons: Vec<(String, String)> = Vec::new();
    while simulator.fill(&mut text, 8192) > 0 {
        let rows: Vec<BTreeMap<Core, String>> = text
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| {
                let mut row = BTreeMap::new();
                fields("", &serde_json::from_slice(line).unwrap(), &mut row);
                row
            })
            .collect();
        text.clear();
        let times: Vec<i64> = rows.iter().map(|row| micros(&row[&Core::Time])).collect();
        let mut arrays: Vec<(&str, ArrayRef)> = vec![(
            "time",
            Arc::new(TimestampMicrosecondArray::from(times.clone()).with_timezone("UTC")),
        )];
        for core in COLUMNS {
            let values = rows.iter().map(|row| row.get(&core).map(String::as_str));
            arrays.push((core.name(), Arc::new(values.collect::<DictionaryArray<Int32Type>>())));
        }
        let schema: Vec<Field> = arrays
            .iter()
            .map(|(name, array)| Field::new(*name, array.data_type().clone(), true))
            .collect();
        let arrays = arrays.into_iter().map(|(_, array)| array).collect();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(schema)), arrays).unwrap();
        routing.fill(&batch, |_| 4096, &table);
        let all: Vec<u32> = (0..rows.len() as u32).collect();
        baselines.process(&batch, &RowsOfSlots { routing: &routing, rows: &all }, &mut out);
        if explain {
            for anomaly in &out.anomalies {
                let row = &rows[anomaly.row as usize];
                let text = format!(
                    "{} {} {}",
                    anomaly.score,
                    row[&Core::User],
                    anomaly.reasons.join("; ")
                );
                reasons.push((row[&Core::EventId].clone(), text));
            }
        }
        for ((row, time), score) in rows.into_iter().zip(times).zip(&out.scores) {
            if let Some(score) = score {
                let scored = Scored {
                    score: (score * 1000.0).round() as u32,
                    user: row[&Core::User].clone(),
                    time,
                    attack: None,
                };
                pending.push((row[&Core::EventId].clone(), scored));
            }
        }
    }
    let mut of_record: HashMap<&str, (u32, AttackKind), foldhash::fast::FixedState> =
        HashMap::default();
    for label in simulator.labels() {
        of_record
            .extend(label.event_ids.iter().map(|id| (id.as_str(), (label.attack, label.kind))));
    }
    for (id, text) in reasons {
        println!("{:?}: {text}", of_record.get(id.as_str()).map(|(_, kind)| kind.as_str()));
    }
    let events = pending
        .into_iter()
        .map(|(id, scored)| Scored { attack: of_record.get(id.as_str()).copied(), ..scored })
        .collect();
    let labels = simulator.labels().iter().map(|label| (label.attack, label.kind)).collect();
    (events, labels)
}
