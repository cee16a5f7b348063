//! Memory and rates. The memory test runs at a tenth of its size; the rates are printed:
//! `cargo test --release -p palisade-sigma rates -- --ignored --nocapture`.

use super::cases::{CUT, read};
use crate::correlation::*;
use palisade_event::RecordId;
use palisade_event::slot::SLOTS;
use palisade_event::time::SECOND;
use std::time::Instant;

const ORIGIN: Origin = Origin { stage: 0, partition: 0 };

fn yaml(kind: &str, condition: &str) -> String {
    format!(
        "title: t\nid: t\nlateness: 10s\ncorrelation:\n  type: {kind}\n  rules: [r0, r1]\n  group-by: [user]\n  timespan: 1h\n  {condition}\n"
    )
}

struct Feed {
    live: Live,
    out: Vec<Revision>,
    offset: u64,
}

impl Feed {
    fn new(kind: &str, condition: &str) -> Self {
        let set = read(&[yaml(kind, condition)]);
        let options = Options { groups_per_slot: usize::MAX, hits_per_slot: usize::MAX };
        Self { live: Live::new(&set, [ORIGIN], options), out: Vec::new(), offset: 0 }
    }

    fn send(&mut self, group: &[u8], time: i64, value: Value) {
        self.offset += 1;
        let hit = Hit {
            correlation: 0,
            input: (self.offset % 2) as u16,
            tenant: "acme",
            domain: "live",
            slot: group_slot("acme", group, SLOTS),
            group,
            record: RecordId((u128::from(self.offset) << 64 | 7).to_be_bytes()),
            time,
            clock: time,
            value,
            kind: HitKind::Record,
        };
        let position = Position { offset: self.offset, row: 0, ordinal: 0 };
        self.live.hit((ORIGIN, position), &hit, &mut self.out);
    }

    fn clock(&mut self, clock: i64) {
        self.live.progress(ORIGIN, "live", clock, None, &mut self.out);
        self.live.tick(&mut self.out);
    }
}

/// Live groups, 90 % with 2 hits, 9 % with 20, 1 % with 200, sent in rounds as they would come: bytes of all that is held.
fn bytes_of(groups: u64) -> usize {
    let mut feed = Feed::new("event_count", "condition:\n    gte: 1000");
    for round in 0..200 {
        let every = match round {
            0..2 => 1,
            2..20 => 10,
            _ => 100,
        };
        for group in (0..groups).step_by(every) {
            let key = group_key([Some(format!("user{group:06}").as_bytes())]).unwrap();
            feed.send(&key, CUT + round * SECOND, Value::None);
        }
    }
    assert_eq!(feed.live.groups() as u64, groups);
    let hits = groups * 2 * 9 / 10 + groups * 20 * 9 / 100 + groups * 2;
    assert_eq!(feed.live.counters().hits, hits);
    feed.live.memory_bytes()
}

/// A million groups are to fit into 256 MB; here a tenth of both.
#[test]
fn groups_are_small() {
    let bytes = bytes_of(100_000);
    println!("{} bytes a group", bytes / 100_000);
    assert!(bytes < 25_600_000, "{bytes}");
}

#[test]
#[ignore = "a measurement"]
fn memory_of_a_million_groups() {
    let begun = Instant::now();
    let bytes = bytes_of(1_000_000);
    println!("{:.1} MB, {:.1} s", bytes as f64 / 1e6, begun.elapsed().as_secs_f64());
}

fn rate(kind: &str, condition: &str, (groups, values): (u64, u64), window: u64) -> f64 {
    let mut feed = Feed::new(kind, condition);
    let keys: Vec<Vec<u8>> = (0..groups)
        .map(|group| group_key([Some(format!("user{group:06}").as_bytes())]).unwrap())
        .collect();
    // The timespan holds so many hits of a group.
    let step = 3_600 * SECOND / (window * groups) as i64;
    let total = (4 * window * groups).max(2_000_000);
    let mut begun = Instant::now();
    let mut time = CUT;
    let warm = window * groups;
    let mut seed = 1_u64;
    for number in 0..total + warm {
        if number == warm {
            begun = Instant::now();
        }
        time += step;
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let value = match kind {
            "value_count" => Value::Hash((seed >> 33) % values * 0x9e37_79b9_7f4a_7c15),
            "value_sum" => Value::Number((seed >> 50) as f64),
            _ => Value::None,
        };
        feed.send(&keys[(seed >> 20) as usize % keys.len()], time, value);
        // A tick a second, at about a million hits a second.
        if number % 500_000 == 0 {
            feed.clock(time);
            feed.out.clear();
        }
    }
    total as f64 / begun.elapsed().as_secs_f64()
}

#[test]
#[ignore = "a measurement"]
fn rates() {
    let quiet = "condition:\n    gte: 1000000";
    let per_second = |name: &str, rate: f64| println!("{name:<60} {:>10.0} hits/s", rate);
    per_second(
        "event_count, 1,000 groups of 100 hits",
        rate("event_count", quiet, (1_000, 1), 100),
    );
    per_second(
        "event_count, 1,000 groups, always firing",
        rate("event_count", "condition:\n    gte: 5", (1_000, 1), 100),
    );
    per_second(
        "event_count, 1,000,000 groups of 2 hits",
        rate("event_count", quiet, (1_000_000, 1), 2),
    );
    let of = |values| {
        let condition = "condition:\n    field: item\n    gte: 4000";
        rate("value_count", condition, (10, values), 4 * values.max(1_800))
    };
    per_second("value_count, 10 values, 7,200 hits a window", of(10));
    per_second("value_count, 1,800 values, 7,200 hits a window", of(1_800));
    let of = |values: u64| {
        let condition = "condition:\n    field: item\n    gte: 4000";
        rate("value_count", condition, (10, values), values)
    };
    per_second("value_count, 10 values, 10 hits a window", of(10));
    per_second("value_count, 1,800 values, 1,800 hits a window", of(1_800));
    per_second(
        "value_sum",
        rate("value_sum", "condition:\n    field: amount\n    gte: 1000000000", (1_000, 1), 100),
    );
    per_second("temporal", rate("temporal", "", (1_000, 1), 100));
    per_second("temporal_ordered", rate("temporal_ordered", "", (1_000, 1), 100));
    per_second("absence", rate("temporal_ordered", "condition: r0 and not r1", (1_000, 1), 100));
}
