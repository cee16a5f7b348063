//! The law of the manifest: whatever is committed, compacted, retired, interrupted or crashed, the
//! rows of the live segments are those of the offsets below the position, each once, without those
//! that were retired.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may panic")]

mod support;

use palisade_catalog::{Catalog, Commit, CommitError, SegmentMeta};
use palisade_event::Offset;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use support::{open, segment, state};

#[derive(Debug, Clone)]
enum Step {
    /// Commit an interval cut into segments of these lengths (0: an interval without rows).
    Commit(Vec<u64>),
    /// As `Commit`, but the future is dropped after so many turns of the runtime.
    Interrupted(Vec<u64>, usize),
    /// Commit from a wrong position.
    Elsewhere(u64),
    /// Merge some live segments, chosen by these numbers.
    Merge(usize, usize),
    /// A merge that lost its race: one of its inputs is retired first.
    LateMerge(usize),
    /// Retire a live segment.
    Retire(usize),
    /// Delete the files of retired segments.
    Forget,
    /// Leave a pending file and die; the next process claims the partition.
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let parts = || prop::collection::vec(0_u64..5, 1..4);
    let step = prop_oneof![
        4 => parts().prop_map(Step::Commit),
        2 => (parts(), 0_usize..40).prop_map(|(parts, turns)| Step::Interrupted(parts, turns)),
        1 => (0_u64..60).prop_map(Step::Elsewhere),
        3 => (any::<usize>(), 2_usize..5).prop_map(|(first, count)| Step::Merge(first, count)),
        1 => any::<usize>().prop_map(Step::LateMerge),
        1 => any::<usize>().prop_map(Step::Retire),
        1 => Just(Step::Forget),
        2 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 1..40)
}

/// A row of `events`: its offset. Every offset has one row, so a multiset of rows with a double is
/// a set with a double.
#[derive(Default)]
struct Model {
    position: u64,
    version: u64,
    /// Live segments and their rows.
    live: BTreeMap<u64, Vec<u64>>,
    /// Rows that retention took.
    retired_rows: BTreeSet<u64>,
    retired: BTreeSet<u64>,
}

impl Model {
    fn chosen(&self, first: usize, count: usize) -> Vec<u64> {
        let ids: Vec<u64> = self.live.keys().copied().collect();
        let mut chosen: Vec<u64> = ids
            .iter()
            .cycle()
            .skip(first % ids.len().max(1))
            .take(count.min(ids.len()))
            .copied()
            .collect();
        chosen.sort_unstable();
        chosen
    }

    fn merged(&self, id: u64, inputs: &[u64]) -> (SegmentMeta, Vec<u64>) {
        let mut rows: Vec<u64> = inputs.iter().flat_map(|id| self.live[id].clone()).collect();
        rows.sort_unstable();
        let meta = SegmentMeta {
            rows: rows.len() as u64,
            ..segment(id, rows[0], rows[rows.len() - 1] + 1, 1)
        };
        (meta, rows)
    }
}

async fn new_commit(
    catalog: &Catalog,
    epoch: u64,
    from: u64,
    parts: &[u64],
) -> (Commit, Vec<(u64, Vec<u64>)>) {
    let count = parts.iter().filter(|length| **length > 0).count() as u32;
    let mut ids = catalog.pending_segments(count, "events", epoch).await.unwrap().into_iter();
    let (mut at, mut segments, mut rows) = (from, vec![], vec![]);
    for length in parts.iter().filter(|length| **length > 0) {
        let id = ids.next().unwrap();
        segments.push(segment(id, at, at + length, 0));
        rows.push((id, (at..at + length).collect()));
        at += length;
    }
    // An interval without rows still moves the position; its offset has no row: retired at once.
    let to = at.max(from + 1);
    (Commit { partition: 0, from: Offset(from), to: Offset(to), epoch, segments }, rows)
}

fn adopt(model: &mut Model, commit_to: u64, rows: Vec<(u64, Vec<u64>)>) {
    if rows.is_empty() {
        model.retired_rows.extend(model.position..commit_to);
    }
    model.position = commit_to;
    model.version += 1;
    model.live.extend(rows);
}

async fn check(catalog: &Catalog, model: &Model) {
    let manifest = catalog.manifest().await.unwrap();
    assert_eq!(manifest.position, Offset(model.position));
    assert_eq!(manifest.version, model.version);
    let live: Vec<u64> = manifest.segments.iter().map(|s| s.id).collect();
    assert_eq!(live, model.live.keys().copied().collect::<Vec<_>>());
    let mut rows: Vec<u64> = live.iter().flat_map(|id| model.live[id].clone()).collect();
    assert_eq!(rows.len() as u64, manifest.segments.iter().map(|s| s.rows).sum::<u64>());
    rows.sort_unstable();
    let expected: Vec<u64> =
        (0..model.position).filter(|row| !model.retired_rows.contains(row)).collect();
    assert_eq!(rows, expected, "each row once");
    for meta in &manifest.segments {
        let rows = &model.live[&meta.id];
        assert!(rows.iter().all(|row| (meta.from.0..meta.to.0).contains(row)));
    }
    let retired: BTreeSet<u64> =
        catalog.retired().await.unwrap().into_iter().map(|r| r.id).collect();
    assert_eq!(retired, model.retired);
}

async fn run(steps: Vec<Step>) {
    let directory = tempfile::tempdir().unwrap();
    let mut catalog = open(directory.path()).await;
    let mut epoch = catalog.claim_partition(0).await.unwrap();
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Commit(parts) => {
                let (commit, rows) = new_commit(&catalog, epoch, model.position, &parts).await;
                let to = commit.to.0;
                catalog.commit(commit).await.unwrap();
                adopt(&mut model, to, rows);
            }
            Step::Interrupted(parts, turns) => {
                let (commit, rows) = new_commit(&catalog, epoch, model.position, &parts).await;
                let to = commit.to.0;
                let patience = async {
                    for _ in 0..turns {
                        tokio::task::yield_now().await;
                    }
                };
                tokio::select! {
                    biased;
                    () = patience => {}
                    result = catalog.commit(commit) => { result.unwrap(); }
                }
                // The writer is free again only when the dropped transaction has ended.
                catalog.next_gateway_epoch(0, 0).await.unwrap();
                let position = catalog.position(0).await.unwrap().0;
                assert!(position == model.position || position == to);
                if position == to {
                    adopt(&mut model, to, rows);
                }
            }
            Step::Elsewhere(from) => {
                if from != model.position {
                    let (commit, _) = new_commit(&catalog, epoch, from, &[1]).await;
                    let refused = catalog.commit(commit).await.unwrap_err();
                    assert!(matches!(refused, CommitError::Position { .. }), "{refused}");
                }
            }
            Step::Merge(first, count) => {
                let inputs = model.chosen(first, count);
                if inputs.is_empty() {
                    continue;
                }
                let id = catalog.pending_segments(1, "events", epoch).await.unwrap()[0];
                let (meta, rows) = model.merged(id, &inputs);
                model.version = catalog.replace(&inputs, vec![meta], epoch).await.unwrap();
                for input in inputs {
                    model.live.remove(&input);
                    model.retired.insert(input);
                }
                model.live.insert(id, rows);
            }
            Step::LateMerge(first) => {
                let inputs = model.chosen(first, 3);
                if inputs.is_empty() {
                    continue;
                }
                let id = catalog.pending_segments(1, "events", epoch).await.unwrap()[0];
                let (meta, _) = model.merged(id, &inputs);
                model.version = catalog.retire(&inputs[..1], epoch).await.unwrap();
                model.retired_rows.extend(model.live.remove(&inputs[0]).unwrap());
                model.retired.insert(inputs[0]);
                let refused = catalog.replace(&inputs, vec![meta], epoch).await.unwrap_err();
                assert_eq!(refused, CommitError::NotLive(vec![inputs[0]]));
                catalog.abandon(&[id], epoch).await.unwrap();
                model.retired.insert(id);
            }
            Step::Retire(first) => {
                for id in model.chosen(first, 1) {
                    model.version = catalog.retire(&[id], epoch).await.unwrap();
                    model.retired_rows.extend(model.live.remove(&id).unwrap());
                    model.retired.insert(id);
                }
            }
            Step::Forget => {
                let ids: Vec<u64> = std::mem::take(&mut model.retired).into_iter().collect();
                catalog.forget(&ids).await.unwrap();
            }
            Step::Crash => {
                let left = catalog.pending_segments(1, "events", epoch).await.unwrap()[0];
                catalog = open(directory.path()).await;
                let old = epoch;
                epoch = catalog.claim_partition(0).await.unwrap();
                let refused = catalog.retire(&[], old).await.unwrap_err();
                assert!(matches!(refused, CommitError::Stale { .. }));
                let orphans: Vec<u64> =
                    catalog.orphans().await.unwrap().into_iter().map(|o| o.id).collect();
                assert!(orphans.contains(&left));
                catalog.forget(&orphans).await.unwrap();
            }
        }
        check(&catalog, &model).await;
    }
    catalog.verify().await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn each_row_below_the_position_is_in_one_live_segment(steps in steps()) {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_time()
            .build()
            .unwrap()
            .block_on(run(steps));
    }
}

/// A crash of the machine keeps a prefix of the WAL: the catalog is then exactly what it was at
/// some version, position and segments alike. (Fewer transactions than lead to a checkpoint, so the
/// WAL holds them all.)
#[tokio::test]
async fn a_torn_write_ahead_log_gives_an_earlier_version_whole() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let epoch = catalog.claim_partition(0).await.unwrap();
    let mut states = BTreeMap::new();
    states.insert(0, state(&catalog.manifest().await.unwrap()));
    let mut at = 0;
    for round in 0..20_u64 {
        let parts = [1 + round % 3, 2];
        let (commit, _) = new_commit(&catalog, epoch, at, &parts).await;
        at = commit.to.0;
        let ids: Vec<u64> = commit.segments.iter().map(|s| s.id).collect();
        let version = catalog.commit(commit).await.unwrap();
        states.insert(version, state(&catalog.manifest().await.unwrap()));
        if round % 4 == 3 {
            let version = catalog.retire(&ids, epoch).await.unwrap();
            states.insert(version, state(&catalog.manifest().await.unwrap()));
        }
    }
    let database = std::fs::read(directory.path().join("catalog.db")).unwrap();
    let wal = std::fs::read(directory.path().join("catalog.db-wal")).unwrap();
    let mut seen = BTreeSet::new();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..60 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let length = if round == 0 { wal.len() } else { (seed >> 33) as usize % wal.len() };
        let torn = tempfile::tempdir().unwrap();
        std::fs::write(torn.path().join("catalog.db"), &database).unwrap();
        let mut tail = wal[..length].to_vec();
        // Half the time the last sector holds rubbish instead of being missing.
        if round % 2 == 1 {
            let from = tail.len().saturating_sub(512);
            tail[from..].fill(0xa5);
        }
        std::fs::write(torn.path().join("catalog.db-wal"), tail).unwrap();
        let Ok(catalog) = Catalog::open(
            &torn.path().join("catalog.db"),
            palisade_catalog::OpenOptions { create: false, ..Default::default() },
        )
        .await
        else {
            panic!("length {length} of {}: does not open", wal.len());
        };
        catalog.verify().await.unwrap();
        let manifest = catalog.manifest().await.unwrap();
        assert_eq!(state(&manifest), states[&manifest.version], "length {length}");
        seen.insert(manifest.version);
    }
    let newest = *states.keys().last().unwrap();
    assert!(seen.contains(&newest) && seen.len() > 10, "many versions were met: {seen:?}");
}
