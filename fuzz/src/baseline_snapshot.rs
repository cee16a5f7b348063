//! Snapshots of the baselines: damaged ones are refused by name; one that is taken gives, written
//! again, a snapshot that loads to the same state.

use palisade_detect::baseline::{BaselineOptions, Baselines};
use xxhash_rust::xxh3::xxh3_64;

fn options() -> BaselineOptions {
    BaselineOptions { max_users_per_slot: 8, ..BaselineOptions::default() }
}

fn snapshot(baselines: &mut Baselines) -> Vec<u8> {
    let mut out = Vec::new();
    baselines.require_full_snapshot();
    baselines.begin_snapshot().expect("none is running");
    while !baselines.snapshot_step(3, &mut out) {}
    out
}

pub fn run(data: &[u8]) {
    // The checksum is put right, or nothing behind it would be reached.
    let Some(body) = data.len().checked_sub(8).map(|end| &data[..end]) else { return };
    if xxh3_64(data) % 64 == 0 {
        let _ = Baselines::restore(options(), [data]);
    }
    let mut sound = body.to_vec();
    sound.extend_from_slice(&xxh3_64(body).to_le_bytes());
    let Ok(mut baselines) = Baselines::restore(options(), [sound.as_slice()]) else { return };
    let users = baselines.users();
    let first = snapshot(&mut baselines);
    let mut again = Baselines::restore(options(), [first.as_slice()]).expect("what was written");
    assert_eq!(again.users(), users);
    // Users may stand in another order.
    assert_eq!(snapshot(&mut again).len(), first.len());
}
