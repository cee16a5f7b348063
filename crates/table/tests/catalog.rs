//! The tables over the real catalog: a life of sealing, merging, dying and opening again.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may panic"
)]

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array};
use palisade_catalog::BlockingCatalog;
use palisade_event::Offset;
use palisade_table::{CompactionPolicy, TableOptions, Tables, verify};
use std::path::Path;
use std::sync::Arc;

fn batch(offset: u64) -> RecordBatch {
    let rows = 20u64;
    let time = TimestampMicrosecondArray::from_iter_values((0..rows as i64).map(|r| r * 1000));
    let columns: [(&str, ArrayRef); 4] = [
        ("tenant", Arc::new(StringArray::from(vec!["default"; rows as usize]))),
        ("time", Arc::new(time.with_timezone("UTC"))),
        ("position", Arc::new(UInt64Array::from_iter_values((0..rows).map(|r| offset << 20 | r)))),
        ("user", Arc::new(StringArray::from_iter_values((0..rows).map(|r| format!("u{}", r % 7))))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn catalog(dir: &Path) -> BlockingCatalog {
    BlockingCatalog::open(&dir.join("catalog.db"), Default::default()).unwrap()
}

fn rows(tables: &Tables) -> u64 {
    let snapshot = tables.snapshot("events");
    let memory: usize = snapshot.memory.iter().map(RecordBatch::num_rows).sum();
    snapshot.segments.iter().map(|segment| segment.meta.rows).sum::<u64>() + memory as u64
}

#[test]
fn tables_live_with_the_real_catalog() {
    let dir = tempfile::tempdir().unwrap();
    let options = || TableOptions {
        compaction: CompactionPolicy { fan_in: 2, ..CompactionPolicy::default() },
        grace_micros: 0,
        ..TableOptions::default()
    };
    for life in 0..3u64 {
        let catalog = catalog(dir.path());
        let epoch = catalog.wait(catalog.catalog().claim_partition(0)).unwrap();
        let (tables, report) =
            Tables::open(dir.path(), Arc::new(catalog.clone()), options()).unwrap();
        assert!(report.damaged.is_empty(), "{:?}", report.damaged);
        assert_eq!(report.position, Offset(life * 4));
        // What the last life began and did not commit is gone.
        assert_eq!(report.orphans, usize::from(life > 0));
        for offset in life * 4..life * 4 + 4 {
            tables.append("events", Offset(offset), batch(offset)).unwrap();
            tables.advance(Offset(offset + 1));
            tables.seal(Offset(offset + 1), epoch).unwrap();
            assert_eq!(rows(&tables), (offset + 1) * 20);
        }
        let mut now = 0;
        while tables.maintain(now, epoch).unwrap().more {
            now += 1;
        }
        tables.maintain(now + 1, epoch).unwrap();
        assert_eq!(rows(&tables), (life * 4 + 4) * 20);
        assert!(tables.list().len() < 4);
        let manifest = catalog.manifest().unwrap();
        assert!(verify(dir.path(), &manifest, |_| {}).iter().all(|s| s.error.is_none()));
        // Dies while a file is written.
        let pending = catalog.pending_segments(1, "events", epoch).unwrap();
        let path = dir.path().join(palisade_catalog::segment_path("events", pending[0]));
        std::fs::write(&path, b"half a file").unwrap();
    }
}

/// Set for the child process that merges.
const CHILD: &str = "PALISADE_TEST_MERGE";

fn large_batch(offset: u64, rows: u64) -> RecordBatch {
    let n = |r: u64| (offset * rows + r).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let time = TimestampMicrosecondArray::from_iter_values((0..rows).map(|r| (n(r) >> 40) as i64));
    let texts = |f: &dyn Fn(u64) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values((0..rows).map(f)))
    };
    let message = |r| format!("{:x} {:x} {:x} {}", n(r), n(r + 1), n(r + 2), "padding ".repeat(20));
    let columns: [(&str, ArrayRef); 6] = [
        ("tenant", Arc::new(StringArray::from(vec!["default"; rows as usize]))),
        ("time", Arc::new(time.with_timezone("UTC"))),
        ("position", Arc::new(UInt64Array::from_iter_values((0..rows).map(|r| offset << 20 | r)))),
        ("user", texts(&|r| format!("user{}", n(r) >> 50))),
        ("event_id", texts(&|r| format!("{:032x}", u128::from(n(r)) << 40))),
        ("message", texts(&message)),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// The value of a line of `/proc/self/status`, in KiB.
fn status(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Merging a gigabyte of rows in random order takes no more memory than the policy says, plus a third
/// for buffers: measured as the peak of a process that does nothing else.
#[test]
fn a_merge_stays_within_its_memory() {
    if let Some(dir) = std::env::var_os(CHILD) {
        let dir = Path::new(&dir);
        let catalog = catalog(dir);
        let epoch = catalog.wait(catalog.catalog().claim_partition(0)).unwrap();
        let (tables, _) = Tables::open(dir, Arc::new(catalog), TableOptions::default()).unwrap();
        let before = status("VmRSS:");
        let report = tables.maintain(0, epoch).unwrap();
        assert_eq!((report.merged, report.merged_rows), (8, 8 * 262_144));
        println!("peak {} KiB", status("VmHWM:") - before);
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    {
        let catalog = catalog(dir.path());
        let epoch = catalog.wait(catalog.catalog().claim_partition(0)).unwrap();
        let (tables, _) =
            Tables::open(dir.path(), Arc::new(catalog), TableOptions::default()).unwrap();
        for segment in 0..8 {
            for offset in segment * 16..segment * 16 + 16 {
                tables.append("events", Offset(offset), large_batch(offset, 16_384)).unwrap();
            }
            tables.advance(Offset(segment * 16 + 16));
            tables.seal(Offset(segment * 16 + 16), epoch).unwrap();
        }
    }
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_merge_stays_within_its_memory", "--nocapture"])
        .env(CHILD, dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{text} {}", String::from_utf8_lossy(&child.stderr));
    let peak = text.lines().find_map(|line| line.strip_prefix("peak ")?.strip_suffix(" KiB"));
    let peak: u64 = peak.unwrap().parse().unwrap();
    println!("peak of a merge: {} MiB", peak / 1024);
    assert!(peak < 128 << 10, "{peak} KiB");
}
