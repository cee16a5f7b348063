//! Commits, replacements, retention and checkpoints at the catalog's edge (M1, M2, M3).
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may panic")]

mod support;

use palisade_catalog::{
    BlockingCatalog, Catalog, CatalogError, Checkpoint, Commit, CommitError, OpenOptions,
    SegmentMeta,
};
use palisade_event::{ErrorClass, Offset};
use support::{columns, open, segment};

fn commit(from: u64, to: u64, epoch: u64, segments: Vec<SegmentMeta>) -> Commit {
    Commit { partition: 0, from: Offset(from), to: Offset(to), epoch, segments }
}

fn checkpoint(position: u64, path: &str) -> Checkpoint {
    Checkpoint {
        partition: 0,
        position: Offset(position),
        path: path.to_owned(),
        bytes: 7,
        checksum: u64::MAX,
    }
}

/// A catalog with offsets 0 to 20 in two segments.
async fn two_segments(catalog: &Catalog) -> (u64, Vec<u64>) {
    let epoch = catalog.claim_partition(0).await.unwrap();
    let ids = catalog.pending_segments(2, "events", epoch).await.unwrap();
    catalog.commit(commit(0, 10, epoch, vec![segment(ids[0], 0, 10, 0)])).await.unwrap();
    catalog.commit(commit(10, 20, epoch, vec![segment(ids[1], 10, 20, 0)])).await.unwrap();
    (epoch, ids)
}

#[tokio::test]
async fn a_commit_makes_segments_and_position_visible_together() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let before = catalog.manifest().await.unwrap();
    assert_eq!((before.version, before.position, before.segments.len()), (0, Offset(0), 0));

    let epoch = catalog.claim_partition(0).await.unwrap();
    let ids = catalog.pending_segments(3, "events", epoch).await.unwrap();
    assert_eq!(ids, [1, 2, 3]);
    assert!(catalog.manifest().await.unwrap().segments.is_empty(), "pending is not live");

    let mut other = segment(ids[1], 4, 10, 0);
    other.columns = columns(300);
    other.tenants = vec![];
    let segments = vec![segment(ids[0], 0, 10, 0), other];
    assert_eq!(catalog.commit(commit(0, 10, epoch, segments.clone())).await.unwrap(), 1);
    let manifest = catalog.manifest().await.unwrap();
    assert_eq!(manifest.version, 1);
    assert_eq!(manifest.position, Offset(10));
    assert_eq!(manifest.segments, segments, "every field comes back");

    // An interval of ticks has no rows.
    assert_eq!(catalog.commit(commit(10, 11, epoch, vec![])).await.unwrap(), 2);
    drop(catalog);
    let manifest = open(directory.path()).await.manifest().await.unwrap();
    assert_eq!((manifest.version, manifest.position), (2, Offset(11)));
    assert_eq!(manifest.segments, segments);
}

#[tokio::test]
async fn commits_that_do_not_fit_are_refused_and_change_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let (epoch, ids) = two_segments(&catalog).await;
    let before = catalog.manifest().await.unwrap();
    let pending = catalog.pending_segments(1, "events", epoch).await.unwrap()[0];

    for from in [0, 10, 19, 21] {
        let refused = catalog.commit(commit(from, 30, epoch, vec![])).await.unwrap_err();
        assert_eq!(
            refused,
            CommitError::Position { expected: Offset(20), got: Offset(from) },
            "{refused}"
        );
        assert_eq!(refused.class(), ErrorClass::Critical);
    }
    let wrong_table = SegmentMeta { table: "alerts".into(), ..segment(pending, 20, 30, 0) };
    let wrong_path = SegmentMeta { path: "tables/x".into(), ..segment(pending, 20, 30, 0) };
    for bad in [wrong_table, wrong_path, segment(ids[0], 20, 30, 0), segment(999, 20, 30, 0)] {
        let id = bad.id;
        let refused = catalog.commit(commit(20, 30, epoch, vec![bad])).await.unwrap_err();
        assert_eq!(refused, CommitError::NotPending(vec![id]));
    }
    // The same file twice in one commit.
    let twice = vec![segment(pending, 20, 30, 0), segment(pending, 20, 30, 0)];
    let refused = catalog.commit(commit(20, 30, epoch, twice)).await.unwrap_err();
    assert_eq!(refused, CommitError::NotPending(vec![pending]));
    // Outside the interval, an empty interval, unsorted tenants.
    let outside = vec![segment(pending, 15, 30, 0)];
    let unsorted =
        SegmentMeta { tenants: vec!["b".into(), "a".into()], ..segment(pending, 20, 30, 0) };
    for bad in [
        commit(20, 30, epoch, outside),
        commit(20, 20, epoch, vec![]),
        commit(20, 30, epoch, vec![unsorted]),
    ] {
        let refused = catalog.commit(bad).await.unwrap_err();
        assert_eq!(refused.class(), ErrorClass::Permanent, "{refused}");
    }
    let refused = catalog.commit(Commit { partition: 8, ..commit(20, 30, epoch, vec![]) }).await;
    assert!(matches!(refused, Err(CommitError::Catalog(CatalogError::Unknown { .. }))));
    assert_eq!(catalog.manifest().await.unwrap(), before);

    catalog.commit(commit(20, 30, epoch, vec![segment(pending, 20, 30, 0)])).await.unwrap();
}

#[tokio::test]
async fn a_new_owner_shuts_the_old_one_out() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let refused = catalog.commit(commit(0, 1, 0, vec![])).await.unwrap_err();
    assert_eq!(refused, CommitError::Stale { current: 0, got: 0 }, "nobody owns it yet");

    let (old, ids) = two_segments(&catalog).await;
    let pending = catalog.pending_segments(1, "events", old).await.unwrap()[0];
    assert!(catalog.orphans().await.unwrap().is_empty(), "its writer lives");
    let neighbour = catalog.claim_partition(1).await.unwrap();
    assert!(neighbour > old, "epochs are unique over partitions");

    // The owner of another partition wrote this file.
    let theirs = catalog.pending_segments(1, "events", neighbour).await.unwrap()[0];
    let segments = vec![segment(theirs, 20, 30, 0)];
    let refused = catalog.commit(commit(20, 30, old, segments)).await.unwrap_err();
    assert_eq!(refused, CommitError::NotPending(vec![theirs]));

    // A second process over the same file.
    let second = open(directory.path()).await;
    let new = second.claim_partition(0).await.unwrap();
    assert!(new > neighbour);
    let stale = CommitError::Stale { current: new, got: old };
    let nobodys = CommitError::Stale { current: 0, got: old };
    let segments = vec![segment(pending, 20, 30, 0)];
    assert_eq!(catalog.commit(commit(20, 30, old, segments)).await.unwrap_err(), stale);
    assert_eq!(catalog.retire(&ids, old).await.unwrap_err(), nobodys);
    assert_eq!(catalog.pending_segments(1, "events", old).await.unwrap_err(), nobodys);
    let refused = catalog.record_checkpoint(checkpoint(5, "c/1"), old).await.unwrap_err();
    assert_eq!(refused, stale);
    assert_eq!(stale.class(), ErrorClass::Critical);
    // The new owner does not own what the old one registered.
    let segments = vec![segment(pending, 20, 30, 0)];
    let refused = second.commit(commit(20, 30, new, segments)).await.unwrap_err();
    assert_eq!(refused, CommitError::NotPending(vec![pending]));

    let orphans = second.orphans().await.unwrap();
    assert_eq!(orphans.iter().map(|o| (o.id, o.epoch)).collect::<Vec<_>>(), [(pending, old)]);
    assert_eq!(orphans[0].path, palisade_catalog::segment_path("events", pending));
    second.forget(&[pending]).await.unwrap();
    assert!(second.orphans().await.unwrap().is_empty());
}

#[tokio::test]
async fn of_two_that_claim_from_the_same_epoch_one_wins() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let other = open(directory.path()).await;
    for _ in 0..20 {
        let seen = catalog.epoch(3).await.unwrap();
        let (a, b) = tokio::join!(
            catalog.claim_partition_from(3, seen),
            other.claim_partition_from(3, seen)
        );
        let (won, lost) = if a.is_ok() { (a, b) } else { (b, a) };
        let current = won.unwrap();
        assert_eq!(lost.unwrap_err(), CommitError::Stale { current, got: seen });
        assert_eq!(catalog.epoch(3).await.unwrap(), current);
    }
}

#[tokio::test]
async fn a_replacement_is_atomic_and_removal_has_two_phases() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let (epoch, ids) = two_segments(&catalog).await;
    let merged = catalog.pending_segments(1, "events", epoch).await.unwrap()[0];
    let refused = catalog.forget(&ids).await.unwrap_err();
    assert_eq!(refused, CommitError::InUse(ids.clone()), "live segments are not forgotten");
    assert_eq!(catalog.forget(&[merged]).await.unwrap_err(), CommitError::InUse(vec![merged]));

    let version = catalog.replace(&ids, vec![segment(merged, 0, 20, 1)], epoch).await.unwrap();
    assert_eq!(version, 3);
    let manifest = catalog.manifest().await.unwrap();
    assert_eq!((manifest.version, manifest.position), (3, Offset(20)));
    assert_eq!(manifest.segments, [segment(merged, 0, 20, 1)]);
    let retired = catalog.retired().await.unwrap();
    assert_eq!(retired.iter().map(|r| (r.id, r.version)).collect::<Vec<_>>(), [(1, 3), (2, 3)]);

    // Another compaction of the same inputs comes too late.
    let late = catalog.pending_segments(1, "events", epoch).await.unwrap()[0];
    let refused =
        catalog.replace(&[ids[1], merged], vec![segment(late, 0, 20, 1)], epoch).await.unwrap_err();
    assert_eq!(refused, CommitError::NotLive(vec![ids[1]]));
    assert_eq!(refused.class(), ErrorClass::Transient);
    assert_eq!(catalog.manifest().await.unwrap(), manifest);
    catalog.abandon(&[late], epoch).await.unwrap();
    assert_eq!(catalog.retired().await.unwrap().len(), 3);
    assert_eq!(
        catalog.abandon(&[late], epoch).await.unwrap_err(),
        CommitError::NotPending(vec![late])
    );

    catalog.forget(&[ids[0], ids[1], late]).await.unwrap();
    catalog.forget(&ids).await.unwrap();
    assert!(catalog.retired().await.unwrap().is_empty());
    assert_eq!(catalog.retire(&[merged], epoch).await.unwrap(), 4);
    let manifest = catalog.manifest().await.unwrap();
    assert_eq!((manifest.position, manifest.segments.len()), (Offset(20), 0));
}

#[tokio::test]
async fn a_replacement_may_not_invent_rows() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let (epoch, ids) = two_segments(&catalog).await;
    let new = catalog.pending_segments(1, "events", epoch).await.unwrap()[0];
    let alerts = catalog.pending_segments(1, "alerts", epoch).await.unwrap()[0];
    let more = SegmentMeta { rows: 21, ..segment(new, 0, 20, 1) };
    let mut foreign = segment(alerts, 0, 20, 1);
    foreign.table = "alerts".into();
    foreign.path = palisade_catalog::segment_path("alerts", alerts);
    for bad in [more, segment(new, 0, 21, 1), foreign] {
        let refused = catalog.replace(&ids, vec![bad], epoch).await.unwrap_err();
        assert_eq!(refused.class(), ErrorClass::Permanent, "{refused}");
    }
    let twice = [ids[0], ids[0]];
    let refused = catalog.retire(&twice, epoch).await.unwrap_err();
    assert_eq!(refused, CommitError::NotLive(vec![ids[0]]));
    assert_eq!(catalog.manifest().await.unwrap().segments.len(), 2);
}

#[tokio::test]
async fn paths_stay_below_the_data_directory() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let epoch = catalog.claim_partition(0).await.unwrap();
    for bad in ["/etc/passwd", "../x", "a/../../x", "a//b", "", "a/.", "c:/x", "a\\b"] {
        let refused = catalog.pending_segments_at(1, "events", epoch, |_| bad.to_owned()).await;
        assert!(
            matches!(refused, Err(CommitError::Catalog(CatalogError::Invalid { .. }))),
            "{bad}: {refused:?}"
        );
    }
    for bad in ["", "Events", "a/b", "a.b"] {
        assert!(catalog.pending_segments(1, bad, epoch).await.is_err(), "{bad}");
    }
    let path = |id: u64| format!("tables/events/2026-01-01/{id}.parquet");
    let ids = catalog.pending_segments_at(2, "events", epoch, path).await.unwrap();
    let good = SegmentMeta { path: path(ids[0]), ..segment(ids[0], 0, 1, 0) };
    catalog.commit(commit(0, 1, epoch, vec![good])).await.unwrap();
    let taken = catalog.pending_segments_at(1, "events", epoch, |_| path(ids[0])).await;
    assert!(matches!(taken, Err(CommitError::Catalog(CatalogError::Exists { .. }))));
}

#[tokio::test]
async fn the_newest_two_checkpoints_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let (epoch, _) = two_segments(&catalog).await;
    assert_eq!(catalog.latest_checkpoint(0).await.unwrap(), None);
    let record =
        |position, path: &'static str| catalog.record_checkpoint(checkpoint(position, path), epoch);
    assert_eq!(record(5, "c/1").await.unwrap(), []);
    assert_eq!(record(8, "c/2").await.unwrap(), []);
    let refused = record(21, "c/3").await.unwrap_err();
    let (least, most) = (Offset(8), Offset(20));
    assert_eq!(refused, CommitError::Checkpoint { least, most, got: Offset(21) }, "S ≤ T");
    let refused = record(7, "c/3").await.unwrap_err();
    assert_eq!(refused, CommitError::Checkpoint { least, most, got: Offset(7) });
    assert!(matches!(
        record(9, "c/2").await,
        Err(CommitError::Catalog(CatalogError::Exists { .. }))
    ));

    assert_eq!(record(20, "c/3").await.unwrap(), [checkpoint(5, "c/1")]);
    assert_eq!(
        record(20, "c/4").await.unwrap(),
        [checkpoint(5, "c/1"), checkpoint(8, "c/2")],
        "what was not forgotten comes again"
    );
    let deleted = ["c/1".to_owned(), "c/2".to_owned(), "c/4".to_owned()];
    catalog.forget_checkpoints(&deleted).await.unwrap();
    drop(catalog);
    let catalog = open(directory.path()).await;
    assert_eq!(catalog.latest_checkpoint(0).await.unwrap(), Some(checkpoint(20, "c/4")));
    assert_eq!(
        catalog.checkpoints(0).await.unwrap(),
        [checkpoint(20, "c/4"), checkpoint(20, "c/3")]
    );
    assert_eq!(catalog.checkpoints(1).await.unwrap(), []);
    let epoch = catalog.claim_partition(0).await.unwrap();
    assert_eq!(
        catalog.record_checkpoint(checkpoint(20, "c/5"), epoch).await.unwrap(),
        [checkpoint(20, "c/3")]
    );
}

#[test]
fn plain_threads_share_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("catalog.db");
    let catalog = BlockingCatalog::open(&path, OpenOptions::default()).unwrap();
    let epoch = catalog.wait(catalog.catalog().claim_partition(0)).unwrap();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let catalog = catalog.clone();
            std::thread::spawn(move || {
                (0..10)
                    .flat_map(|_| catalog.pending_segments(2, "events", epoch).unwrap())
                    .collect::<Vec<_>>()
            })
        })
        .collect();
    let mut ids: Vec<u64> = threads.into_iter().flat_map(|t| t.join().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (1..=80).collect::<Vec<_>>());
    catalog.commit(commit(0, 9, epoch, vec![segment(ids[0], 0, 9, 0)])).unwrap();
    assert_eq!(catalog.manifest().unwrap().segments.len(), 1);
    catalog.wait(catalog.catalog().close()).unwrap();
}
