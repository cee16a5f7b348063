//! Snapshots: the format stays readable, and nothing that is damaged is taken in.

use super::cases::{CUT, Owned, read};
use crate::correlation::live::{SnapshotError, SnapshotKind};
use crate::correlation::*;
use palisade_event::RecordId;
use palisade_event::time::SECOND;

const ORIGIN: Origin = Origin { stage: 0, partition: 3 };
const GOLDEN: &str = "src/correlation/tests/golden-v1.bin";

fn set() -> Correlations {
    let of = |id: &str, kind: &str, condition: &str| {
        format!(
            "title: {id}\nid: {id}\nlateness: 10s\npatience: 3s\ncorrelation:\n  type: {kind}\n  rules: [r0, r1]\n  group-by: [user]\n  timespan: 1m\n  {condition}\n"
        )
    };
    read(&[
        of("count", "event_count", "condition:\n    gte: 2"),
        of("sum", "value_sum", "condition:\n    field: amount\n    gte: 5"),
        of("absence", "temporal_ordered", "condition: r0 and not r1"),
    ])
}

fn feed(live: &mut Live, offsets: std::ops::Range<u64>, out: &mut Vec<Revision>) {
    for offset in offsets {
        let correlation = (offset % 3) as usize;
        let owned = Owned {
            correlation,
            input: (offset / 3 % 2) as u16,
            tenant: "acme".to_owned(),
            domain: "live".to_owned(),
            group: group_key([Some(format!("user{}", offset % 4).as_bytes())]).unwrap(),
            record: RecordId(u128::from(offset).to_be_bytes()),
            time: CUT + (offset * 7 % 50) as i64 * SECOND,
            clock: CUT,
            value: if correlation == 1 { Value::Number(2.5) } else { Value::None },
            kind: HitKind::Record,
        };
        live.hit((ORIGIN, Position { offset, row: 1, ordinal: 2 }), &owned.hit(), out);
    }
    live.progress(ORIGIN, "live", CUT + offsets_clock(live), None, out);
}

/// Some way into what was sent.
fn offsets_clock(live: &Live) -> i64 {
    (live.counters().hits as i64 / 2) * SECOND
}

fn snapshot(live: &mut Live) -> Vec<u8> {
    let mut bytes = Vec::new();
    live.begin_snapshot().unwrap();
    while !live.snapshot_step(1, &mut bytes) {}
    bytes
}

fn with_state() -> Live {
    let mut live = Live::new(&set(), [ORIGIN], Options::default());
    let mut out = Vec::new();
    feed(&mut live, 1..40, &mut out);
    live.tick(&mut out);
    feed(&mut live, 40..50, &mut out);
    assert!(out.len() > 3);
    live
}

fn restored(bytes: &[u8]) -> Result<Live, SnapshotError> {
    let mut live = Live::new(&set(), [ORIGIN], Options::default());
    live.load([bytes], |_| true).map(|()| live)
}

/// What follows from a state.
fn future(mut live: Live) -> Vec<Revision> {
    let mut out = Vec::new();
    live.tick(&mut out);
    live.progress(ORIGIN, "live", CUT + 40 * SECOND, None, &mut out);
    live.tick(&mut out);
    live.progress(ORIGIN, "live", i64::MAX, None, &mut out);
    live.tick(&mut out);
    out
}

/// `PALISADE_GOLDEN=1` writes the file anew, for a new version only.
#[test]
fn golden_version_1() {
    let bytes = snapshot(&mut with_state());
    if std::env::var_os("PALISADE_GOLDEN").is_some() {
        std::fs::write(GOLDEN, &bytes).unwrap();
    }
    let golden = std::fs::read(GOLDEN).unwrap();
    assert!(bytes == golden, "the format changed: raise its version, and keep reading this one");
    let wanted = future(with_state());
    assert!(!wanted.is_empty());
    assert_eq!(future(restored(&golden).unwrap()), wanted);
}

#[test]
fn what_is_restored_is_written_again_alike() {
    let bytes = snapshot(&mut with_state());
    assert_eq!(snapshot(&mut restored(&bytes).unwrap()).len(), bytes.len());
}

#[test]
fn a_damaged_snapshot_is_refused() {
    let bytes = snapshot(&mut with_state());
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        assert!(restored(&damaged).is_err(), "byte {at}");
        assert!(restored(&bytes[..at]).is_err(), "cut at {at}");
    }
    let mut later = bytes.clone();
    later[8] = 2;
    assert_eq!(restored(&later).unwrap_err(), SnapshotError::Version(2));
}

/// Behind a right checksum too, nothing that bytes can say makes loading panic.
#[test]
fn forged_bytes_are_read_without_panic() {
    let bytes = snapshot(&mut with_state());
    let body = &bytes[..bytes.len() - 8];
    for at in 0..body.len() {
        for value in [0x80, 0xff] {
            let mut forged = body.to_vec();
            forged[at] = value;
            let hash = xxhash_rust::xxh3::xxh3_64(&forged);
            forged.extend_from_slice(&hash.to_le_bytes());
            if let Ok(live) = restored(&forged) {
                future(live);
            }
        }
    }
}

#[test]
fn a_chain_has_no_gaps() {
    let mut live = with_state();
    let full = snapshot(&mut live);
    assert_eq!(live.begin_snapshot().unwrap(), SnapshotKind::Incremental);
    assert_eq!(live.begin_snapshot().unwrap_err(), SnapshotError::InProgress);
    let mut second = Vec::new();
    while !live.snapshot_step(100, &mut second) {}
    let third = snapshot(&mut live);
    let load = |chain: &[&[u8]]| {
        Live::new(&set(), [ORIGIN], Options::default()).load(chain.iter().copied(), |_| true)
    };
    assert_eq!(load(&[&full, &second, &third]), Ok(()));
    assert_eq!(load(&[&full, &third]), Err(SnapshotError::Sequence { expected: 2, found: 3 }));
    assert_eq!(load(&[&second]), Err(SnapshotError::Sequence { expected: 1, found: 2 }));
}

/// Two workers' states, each half of the slots, become one.
#[test]
fn chains_of_several_workers_are_merged_by_slot() {
    let bytes = snapshot(&mut with_state());
    let mut live = Live::new(&set(), [ORIGIN], Options::default());
    live.load([bytes.as_slice()], |slot| slot.0 % 2 == 0).unwrap();
    let half = live.groups();
    live.load([bytes.as_slice()], |slot| slot.0 % 2 == 1).unwrap();
    assert!(half < live.groups());
    let sorted = |mut out: Vec<Revision>| {
        out.sort_by_key(|revision| (revision.id, revision.number));
        out
    };
    assert_eq!(sorted(future(live)), sorted(future(with_state())));
}
