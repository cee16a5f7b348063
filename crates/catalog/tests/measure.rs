//! Measurements. Run one with
//! `cargo test --release -p palisade-catalog --test measure -- --ignored --nocapture`.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "measurements print"
)]

mod support;

use palisade_catalog::{Commit, OpenOptions, ScopeSet, SegmentMeta};
use palisade_event::{Offset, TenantId};
use std::time::{Duration, Instant};
use support::{columns, segment};

fn percentiles(name: &str, mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    let at = |part: usize| times[(times.len() - 1) * part / 100];
    println!("{name}: p50 {:?}, p99 {:?}, max {:?} of {}", at(50), at(99), at(100), times.len());
    at(50)
}

#[test]
#[ignore = "a measurement"]
fn commit_latency_and_manifest_load() {
    manifest_load(35);
    manifest_load(250);
}

fn manifest_load(width: usize) {
    println!("-- {width} columns");
    // Beside the sources: the system's temporary directory may be memory.
    let directory = tempfile::tempdir_in(".").unwrap();
    let path = directory.path().join("catalog.db");
    let catalog = palisade_catalog::BlockingCatalog::open(&path, OpenOptions::default()).unwrap();
    let epoch = catalog.wait(catalog.catalog().claim_partition(0)).unwrap();

    // 10,000 segments in ten shapes.
    let shapes: Vec<_> = (0..10).map(|n| columns(width - 5 + n)).collect();
    let begin = Instant::now();
    let mut at = 0;
    for round in 0..100 {
        let ids = catalog.pending_segments(100, "events", epoch).unwrap();
        let segments: Vec<SegmentMeta> = ids
            .iter()
            .zip(at..)
            .map(|(id, at)| SegmentMeta {
                columns: shapes[round % 10].clone(),
                ..segment(*id, at, at + 1, 0)
            })
            .collect();
        let (from, to) = (Offset(at), Offset(at + 100));
        catalog.commit(Commit { partition: 0, from, to, epoch, segments }).unwrap();
        at += 100;
    }
    println!("10,000 segments registered and committed in {:?}", begin.elapsed());

    let times = (0..20)
        .map(|_| {
            let begin = Instant::now();
            let manifest = catalog.manifest().unwrap();
            let took = begin.elapsed();
            assert_eq!(manifest.segments.len(), 10_000);
            took
        })
        .collect();
    percentiles("manifest of 10,000 segments", times);

    let (mut registered, mut committed) = (vec![], vec![]);
    for _ in 0..1000 {
        let begin = Instant::now();
        let ids = catalog.pending_segments(3, "events", epoch).unwrap();
        registered.push(begin.elapsed());
        let segments: Vec<SegmentMeta> = ids
            .iter()
            .map(|id| SegmentMeta { columns: shapes[0].clone(), ..segment(*id, at, at + 1, 0) })
            .collect();
        let begin = Instant::now();
        let (from, to) = (Offset(at), Offset(at + 1));
        catalog.commit(Commit { partition: 0, from, to, epoch, segments }).unwrap();
        committed.push(begin.elapsed());
        at += 1;
    }
    percentiles("registering 3 files", registered);
    let commit = percentiles("commit of 3 segments", committed);
    assert!(commit < Duration::from_millis(5), "the aim");
    let bytes = std::fs::metadata(&path).unwrap().len();
    println!("database: {bytes} bytes, {} a segment", bytes / 13_000);

    let scopes = ScopeSet { ingest: true, ..ScopeSet::default() };
    let tenant = TenantId::default_tenant();
    let key = catalog.wait(catalog.catalog().create_key(&tenant, "k", scopes, None, 0)).unwrap();
    let begin = Instant::now();
    catalog.wait(async {
        for _ in 0..100_000 {
            catalog.catalog().authenticate(&key.text, 1).await.unwrap();
        }
    });
    println!("authenticate, remembered: {:?} each", begin.elapsed() / 100_000);
}
