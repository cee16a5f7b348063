//! Segments of every version that was released stay readable.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod samples;

use palisade_event::Offset;
use palisade_log::disk::RealDisk;
use palisade_log::{Log, LogOptions, verify};
use samples::{control, frame, tick};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

fn entries() -> Vec<palisade_event::Entry> {
    vec![
        tick(1_700_000_000_000_000),
        frame(1_700_000_000_000_100, 40),
        control(5, "{}"),
        frame(6, 0),
    ]
}

/// `tests/golden/v1.log` was written by the first release. With `PALISADE_WRITE_GOLDEN` set, the test writes it
/// anew, which is right only before version 1 is released.
#[test]
fn version_1_is_readable() {
    let golden = PathBuf::from("tests/golden/v1.log");
    let dir = tempfile::tempdir().unwrap();
    let segment = dir.path().join("00000000000000000000.log");
    let options = LogOptions { log_id: 0x1234_5678_9abc_def0, ..LogOptions::default() };
    if std::env::var_os("PALISADE_WRITE_GOLDEN").is_some() {
        let (log, _) = Log::open(Arc::new(RealDisk), dir.path(), options.clone(), None).unwrap();
        for entry in entries() {
            log.append_and_wait(entry).unwrap();
        }
        log.close();
        fs::create_dir_all(golden.parent().unwrap()).unwrap();
        fs::copy(&segment, &golden).unwrap();
    } else {
        fs::copy(&golden, &segment).unwrap();
    }
    let verified = verify(&RealDisk, dir.path(), None).unwrap();
    assert_eq!((verified.start, verified.end, verified.rows), (Offset(0), Offset(4), 40));
    assert_eq!(verified.tail, None);
    let (log, _) = Log::open(Arc::new(RealDisk), dir.path(), LogOptions::default(), None).unwrap();
    assert_eq!(log.id(), 0x1234_5678_9abc_def0);
    let read: Vec<_> = log.read(Offset(0)).unwrap().map(|item| item.unwrap().1).collect();
    assert_eq!(read, entries());
}
