//! Law K4, from printed seeds. `PALISADE_SEEDS=n` for so many, `PALISADE_SEED=n` for one.

use super::cases::{CUT, Matched, Owned, Random, correlations, read, records};
use super::simulation::Simulation;
use crate::correlation::reference::evaluate;
use crate::correlation::*;
use palisade_event::slot::SLOTS;
use palisade_event::time::SECOND;
use std::collections::BTreeMap;

fn seeds(most: u64) -> std::ops::Range<u64> {
    let of = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match of("PALISADE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..of("PALISADE_SEEDS").unwrap_or(most),
    }
}

fn by_id(alerts: Vec<Alert>) -> BTreeMap<AlertId, Alert> {
    let count = alerts.len();
    let map: BTreeMap<AlertId, Alert> = alerts.into_iter().map(|alert| (alert.id, alert)).collect();
    assert_eq!(map.len(), count, "two alerts have one id");
    map
}

fn all_hits(set: &Correlations, records: &[Matched]) -> Vec<Owned> {
    records.iter().flat_map(|record| record.hits(set)).collect()
}

fn assert_same(seed: u64, what: &str, yaml: &[String], found: Vec<Alert>, wanted: Vec<Alert>) {
    let (found, wanted) = (by_id(found), by_id(wanted));
    if found != wanted {
        let only = |a: &BTreeMap<AlertId, Alert>, b: &BTreeMap<AlertId, Alert>| -> Vec<String> {
            a.values()
                .filter(|alert| b.get(&alert.id) != Some(alert))
                .map(|alert| {
                    let at = |time: i64| (time - CUT) as f64 / SECOND as f64;
                    let evidence: Vec<String> = alert
                        .evidence
                        .iter()
                        .map(|e| {
                            let id = u128::from_be_bytes(e.record.0) % 1_000_000;
                            format!("{}/{id}/{}", at(e.time), e.input)
                        })
                        .collect();
                    format!(
                        "c{} {:?} anchor {} opened {} evidence {}",
                        alert.correlation,
                        String::from_utf8_lossy(&alert.group),
                        at(alert.anchor.time),
                        at(alert.opened),
                        evidence.join(" ")
                    )
                })
                .collect()
        };
        panic!(
            "seed {seed}, {what}\n{}\nonly {what}: {:#?}\nonly reference: {:#?}",
            yaml.join("---\n"),
            only(&found, &wanted),
            only(&wanted, &found)
        );
    }
}

/// Live, in any arrival order, on any partitions, stopped and restored: what stands in the end is the reference's.
#[test]
fn live_equals_the_reference() {
    let (mut alerts, mut revisions) = (0, 0);
    for seed in seeds(10_000) {
        let mut random = Random(seed);
        let (yaml, set) = correlations(&mut random);
        let records = records(&mut random);
        let mut others = yaml.clone();
        others.push(
            "title: other\nid: other\ncorrelation:\n  type: event_count\n  rules: [r0]\n  timespan: 5s\n  condition:\n    gte: 2\n"
                .to_owned(),
        );
        let mut simulation = Simulation::new(&set, read(&others), &records, &mut random);
        let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            simulation.run(&mut random);
            simulation.finish(&mut random);
        }));
        if let Err(error) = run {
            eprintln!("seed {seed}\n{}", yaml.join("---\n"));
            std::panic::resume_unwind(error);
        }
        let hits = all_hits(&set, &records);
        let wanted = evaluate(&set, hits.iter().map(Owned::hit), Range::default());
        if std::env::var_os("PALISADE_SEED").is_some() {
            simulation.log.iter().for_each(|line| println!("{line}"));
        }
        alerts += wanted.len();
        revisions += simulation.revisions;
        assert_same(seed, "live", &yaml, simulation.standings.into_alerts(), wanted);
    }
    println!("{alerts} alerts, {revisions} revisions");
}

/// A hunt over sorted hits answers what the reference does, over a range too; and over a range, what it answers of all.
#[test]
fn a_hunt_equals_the_reference() {
    for seed in seeds(5_000) {
        let mut random = Random(seed ^ 0x5ca1_ab1e);
        let (yaml, set) = correlations(&mut random);
        let mut records = records(&mut random);
        // Some near where the ranges below begin.
        for record in &mut records {
            if random.chance(30) {
                record.time -= 305 * SECOND;
                record.clock -= 305 * SECOND;
            }
        }
        let mut hits = all_hits(&set, &records);
        hits.sort_by_key(|hit| hit.time);
        let all = evaluate(&set, hits.iter().map(Owned::hit), Range::default());
        let with = (SLOTS, Options::default());
        let found = hunt(&set, hits.iter().map(Owned::hit), Range::default(), with);
        assert_same(seed, "hunt", &yaml, found, all.clone());

        let range = Range {
            start: random.chance(80).then(|| CUT - random.between(300, 315) * SECOND),
            end: random.chance(60).then(|| CUT + random.between(0, 30) * SECOND),
        };
        let is_in = |hit: &&Owned| {
            range.start.is_none_or(|start| hit.time >= start)
                && range.end.is_none_or(|end| hit.time < end)
        };
        let some: Vec<Owned> = hits.iter().filter(is_in).cloned().collect();
        let wanted = evaluate(&set, some.iter().map(Owned::hit), range);
        let found = hunt(&set, some.iter().map(Owned::hit), range, with);
        assert_same(seed, "hunt over a range", &yaml, found, wanted.clone());
        let cuts = first_cuts(&set, range.start);
        let of_all = all
            .into_iter()
            .filter(|alert| alert.opened >= cuts[alert.correlation])
            .filter(|alert| range.end.is_none_or(|end| alert.opened < end));
        // What has not ended before the end of the range may have more evidence when all is known.
        if set.iter().all(|(_, correlation)| correlation.depth == 0) {
            let of_all: Vec<Alert> = of_all.collect();
            assert_eq!(of_all.len(), wanted.len(), "seed {seed}");
            for (of_all, of_range) in of_all.iter().zip(&wanted) {
                assert_eq!(
                    (of_all.id, of_all.opened),
                    (of_range.id, of_range.opened),
                    "seed {seed}"
                );
                assert!(of_all.evidence.starts_with(&of_range.evidence), "seed {seed}");
            }
        }
    }
}
