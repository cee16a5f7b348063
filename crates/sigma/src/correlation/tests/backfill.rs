//! B1: correlations that are put in force while records stream, with what was stored before, answer as if they had
//! always been in force; those that were in force before answer as ever.

use super::cases::{Matched, Owned, Random, correlations, read, records};
use crate::correlation::reference::evaluate;
use crate::correlation::*;
use palisade_event::slot::SLOTS;
use std::collections::BTreeMap;

const DOMAINS: [&str; 2] = ["live", "load:1"];
const OTHER: &str = "title: other\nid: other\ncorrelation:\n  type: event_count\n  rules: [r0]\n  timespan: 5s\n  condition:\n    gte: 2\n";

struct Run {
    cascade: Cascade,
    /// What is in force.
    set: Correlations,
    /// Those whose history is being read.
    places: Vec<usize>,
    offset: u64,
    standings: Standings,
    out: Vec<Revision>,
}

impl Run {
    fn live(&mut self, record: &Matched, random: &mut Random) {
        self.offset += 1;
        for (ordinal, hit) in (0..).zip(record.hits(&self.set)) {
            let position = Position { offset: self.offset, row: 0, ordinal };
            self.cascade.hit(position, &hit.hit(), &mut self.out);
        }
        if record.domain == "live" && random.chance(60) {
            self.cascade.progress("live", record.clock, None, &mut self.out);
        }
    }

    /// The stored records of one time and those that follow, up to a time.
    fn stored(&mut self, batch: &[Matched], until: i64) {
        self.offset += 1;
        let hits = batch.iter().flat_map(|record| record.hits(&self.set));
        for (row, hit) in (0..).zip(hits.collect::<Vec<Owned>>()) {
            let position = Position { offset: self.offset, row, ordinal: 0 };
            self.cascade.stored_hit(position, &hit.hit(), &mut self.out);
        }
        self.cascade.backfilled(DOMAINS, until, &mut self.out);
        self.settle();
    }

    fn settle(&mut self) {
        self.out.drain(..).for_each(|revision| self.standings.apply(&revision));
    }

    /// Stops and goes on from a checkpoint.
    fn restart(&mut self) {
        let live = self.cascade.live_mut();
        live.require_full_snapshot();
        live.begin_snapshot().unwrap();
        let mut bytes = Vec::new();
        while !live.snapshot_step(3, &mut bytes) {}
        self.cascade = Cascade::new(self.set.clone(), SLOTS, Options::default(), Range::default());
        if !self.places.is_empty() {
            self.cascade.begin_backfill(self.places.iter().copied(), None);
        }
        self.cascade.load([bytes.as_slice()]).unwrap();
    }
}

fn by_id(alerts: Vec<Alert>) -> BTreeMap<AlertId, Alert> {
    alerts.into_iter().map(|alert| (alert.id, alert)).collect()
}

#[test]
fn what_is_backfilled_equals_the_reference() {
    let most = std::env::var("PALISADE_SEEDS").ok().and_then(|text| text.parse().ok());
    let one = std::env::var("PALISADE_SEED").ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = one.map_or(0..most.unwrap_or(5_000), |seed| seed..seed + 1);
    let (mut alerts, mut restarts, mut provisional) = (0, 0, 0);
    for seed in seeds {
        let mut random = Random(seed ^ 0xbac_f111);
        let (mut yaml, _) = correlations(&mut random);
        yaml.push(OTHER.to_owned());
        let set = read(&yaml);
        let mut records = records(&mut random);
        records.sort_by_key(|record| record.clock);
        let activated = random.below(records.len() as u64 + 1) as usize;
        let is_new = |(place, correlation): (usize, &Correlation)| {
            (correlation.id != "other").then_some(place)
        };
        let before = read(&[OTHER.to_owned()]);
        let mut run = Run {
            cascade: Cascade::new(before.clone(), SLOTS, Options::default(), Range::default()),
            set: before,
            places: Vec::new(),
            offset: 0,
            standings: Standings::default(),
            out: Vec::new(),
        };
        for record in &records[..activated] {
            run.live(record, &mut random);
            if random.chance(20) {
                run.cascade.tick(DOMAINS, &mut run.out);
            }
            run.settle_before(&set);
        }
        run.cascade.reload(set.clone(), &mut run.out);
        run.set = set.clone();
        run.places = set.iter().filter_map(is_new).collect();
        run.cascade.begin_backfill(run.places.clone(), None);
        let mut stored: Vec<Matched> = records[..activated].to_vec();
        stored.sort_by_key(|record| record.time);
        let (mut read_to, mut live_from, mut reads) = (0, activated, true);
        while reads || live_from < records.len() {
            if reads && (live_from == records.len() || random.chance(40)) {
                if read_to == stored.len() {
                    run.cascade.end_backfill(&mut run.out);
                    run.places.clear();
                    reads = false;
                } else {
                    let mut end = (read_to + 1 + random.below(8) as usize).min(stored.len());
                    while end < stored.len() && stored[end].time == stored[end - 1].time {
                        end += 1;
                    }
                    let until = stored[end - 1].time + 1;
                    run.stored(&stored[read_to..end], until);
                    read_to = end;
                }
            } else if let Some(record) = records.get(live_from) {
                run.live(record, &mut random);
                live_from += 1;
            }
            if random.chance(25) {
                run.cascade.tick(DOMAINS, &mut run.out);
            }
            run.settle();
            if reads {
                provisional += usize::from(run.cascade.live().groups() > 0);
            }
            if random.chance(10) {
                run.restart();
                restarts += 1;
            }
        }
        for domain in DOMAINS {
            run.cascade.end(domain, &mut run.out);
        }
        run.settle();
        let hits: Vec<Owned> = records.iter().flat_map(|record| record.hits(&set)).collect();
        let wanted = evaluate(&set, hits.iter().map(Owned::hit), Range::default());
        alerts += wanted.len();
        let (found, wanted) = (by_id(run.standings.into_alerts()), by_id(wanted));
        assert_eq!(found, wanted, "seed {seed}, activated at {activated}\n{}", yaml.join("---\n"));
    }
    assert!(one.is_some() || alerts > 1_000 && restarts > 1_000 && provisional > 1_000);
}

impl Run {
    /// Revisions under the set before, with the places of the set that follows.
    fn settle_before(&mut self, set: &Correlations) {
        let other = set.iter().find(|(_, correlation)| correlation.id == "other");
        let place = other.map_or(0, |(place, _)| place);
        for mut revision in self.out.drain(..) {
            revision.correlation = place;
            self.standings.apply(&revision);
        }
    }
}
