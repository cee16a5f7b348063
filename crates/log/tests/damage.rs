//! Damage is named with file and byte, and no bytes whatever make the log panic.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod samples;

use palisade_event::{ErrorClass, Offset};
use palisade_log::disk::{Disk, RealDisk, SimulatedDisk};
use palisade_log::{Log, LogError, LogOptions, frames, inspect, verify};
use proptest::prelude::*;
use samples::entry;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const DIR: &str = "/log";

fn options() -> LogOptions {
    LogOptions {
        log_id: 99,
        segment_bytes: 8_000,
        min_free_bytes: Some(0),
        ..LogOptions::default()
    }
}

fn open(disk: &SimulatedDisk) -> Result<Log, LogError> {
    Log::open(Arc::new(disk.clone()), Path::new(DIR), options(), None).map(|(log, _)| log)
}

/// A log of several files; each entry is its own group, so all but the last are proven.
fn filled(count: i64) -> SimulatedDisk {
    let disk = SimulatedDisk::new(5);
    let log = open(&disk).unwrap();
    for number in 0..count {
        log.append_and_wait(entry(number)).unwrap();
    }
    drop(log);
    disk
}

fn files(disk: &SimulatedDisk) -> Vec<PathBuf> {
    inspect(disk, Path::new(DIR)).unwrap().into_iter().map(|report| report.file).collect()
}

/// Each frame of a file: where it begins, where it ends, its offset.
fn places(disk: &SimulatedDisk, file: &Path) -> Vec<(u64, u64, Offset)> {
    let mut list: Vec<(u64, u64, Offset)> = Vec::new();
    frames(disk, file, |frame| {
        let end = frame.byte + 48 + frame.stored_bytes.next_multiple_of(8);
        list.push((frame.byte, end, frame.offset));
    })
    .unwrap();
    list
}

#[test]
fn a_flipped_bit_before_the_durable_end_is_named_with_file_and_byte() {
    let disk = filled(60);
    let files = files(&disk);
    assert!(files.len() > 2, "{files:?}");
    for (at, file) in files.iter().enumerate() {
        let places = places(&disk, file);
        // The last frame of the last file is not proven: there a bad frame may be a torn tail.
        let proven = if at + 1 == files.len() { places.len() - 1 } else { places.len() };
        for (begin, end, offset) in &places[..proven] {
            for byte in [*begin, begin + 20, begin + 47, (begin + end) / 2, end - 1] {
                disk.damage(file, byte, 0x10).unwrap();
                let error = open(&disk).map(drop).unwrap_err();
                assert_eq!(error.class(), ErrorClass::Critical);
                let LogError::Corrupt { file: named, byte: found, offset: entry, .. } = &error
                else {
                    panic!("{error}");
                };
                assert_eq!((named, found, entry), (file, begin, offset), "byte {byte}: {error}");
                let verified = verify(&disk, Path::new(DIR), None).unwrap_err();
                assert_eq!(verified.to_string(), error.to_string());
                disk.damage(file, byte, 0x10).unwrap();
            }
        }
        disk.damage(file, 30, 1).unwrap();
        let error = open(&disk).map(drop).unwrap_err();
        assert!(matches!(&error, LogError::Corrupt { byte: 0, .. }), "{error}");
        disk.damage(file, 30, 1).unwrap();
    }
    assert_eq!(open(&disk).unwrap().durable_end(), Offset(60));
}

#[test]
fn a_bad_last_frame_is_cut_unless_the_catalog_proves_it() {
    let disk = filled(20);
    let file = files(&disk).pop().unwrap();
    let (begin, _, offset) = *places(&disk, &file).last().unwrap();
    disk.damage(&file, begin + 50, 4).unwrap();
    let committed = |position| {
        let disk = Arc::new(disk.clone());
        Log::open(disk, Path::new(DIR), options(), Some(Offset(position)))
    };
    let error = committed(20).map(drop).unwrap_err();
    assert!(matches!(error, LogError::Corrupt { byte, .. } if byte == begin), "{error}");
    let verified = verify(&disk, Path::new(DIR), None).unwrap();
    assert_eq!(verified.end, Offset(19));
    let (log, recovery) = committed(19).unwrap();
    assert_eq!(recovery.cut, verified.tail);
    assert_eq!(recovery.cut.unwrap().byte, begin);
    assert_eq!((log.durable_end(), offset), (Offset(19), Offset(19)));
}

#[test]
fn a_position_outside_the_log_is_named() {
    let disk = filled(30);
    let log = open(&disk).unwrap();
    log.trim(Offset(25)).unwrap();
    let start = log.start();
    assert!(start > Offset(0));
    drop(log);
    for position in [Offset(start.0 - 1), Offset(31)] {
        let disk = Arc::new(disk.clone());
        let error =
            Log::open(disk, Path::new(DIR), options(), Some(position)).map(drop).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Critical);
        let LogError::PositionOutside { position: named, start: low, end } = error else {
            panic!("{error}");
        };
        assert_eq!((named, low, end), (position, start, Offset(30)));
    }
    let empty = Arc::new(SimulatedDisk::new(1));
    let error = Log::open(empty, Path::new(DIR), options(), Some(Offset(1))).map(drop).unwrap_err();
    assert!(matches!(error, LogError::PositionOutside { .. }), "{error}");
}

#[test]
fn a_missing_file_in_the_middle_is_named() {
    let disk = filled(60);
    let files = files(&disk);
    disk.remove(&files[1]).unwrap();
    let error = open(&disk).map(drop).unwrap_err();
    let LogError::Corrupt { file, .. } = &error else { panic!("{error}") };
    assert_eq!(file, &files[0]);
    assert!(error.to_string().contains("next file begins"), "{error}");
}

#[test]
fn a_later_version_is_not_guessed_at() {
    let disk = filled(1);
    let file = files(&disk).pop().unwrap();
    let source = disk.open(&file, false).unwrap();
    let mut header = [0; 64];
    source.read_at(&mut header, 0).unwrap();
    header[8] = 2;
    let crc = crc32c::crc32c(&header[..60]);
    header[60..].copy_from_slice(&crc.to_le_bytes());
    let target = disk.open(&file, true).unwrap();
    target.write_all_at(&mut [std::io::IoSlice::new(&header)], 0).unwrap();
    let error = open(&disk).map(drop).unwrap_err();
    assert!(matches!(error, LogError::Version { version: 2, .. }), "{error}");
}

/// Opens and reads whatever stands in a directory; only errors may come of it.
fn survive(dir: &Path) {
    let _ = inspect(&RealDisk, dir);
    let _ = verify(&RealDisk, dir, None);
    if let Ok((log, _)) = Log::open(Arc::new(RealDisk), dir, options(), None) {
        for item in log.read(log.start()).unwrap() {
            let _ = item;
        }
    }
}

/// The bytes of a small log of one file.
fn small_log() -> Vec<u8> {
    let disk = filled(12);
    let file = disk.open(&files(&disk)[0], false).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(&mut bytes, 0).unwrap();
    bytes
}

/// Makes the checksums of the first frame right again, so that what lies behind them is tried.
fn reseal(bytes: &mut [u8]) {
    let mut at = 64;
    let mut previous = 0_u32;
    while at + 48 <= bytes.len() {
        let length = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize;
        let end = (at + 48).saturating_add(length.next_multiple_of(8));
        if end > bytes.len() {
            return;
        }
        let payload = crc32c::crc32c(&bytes[at + 48..end]);
        bytes[at + 12..at + 16].copy_from_slice(&payload.to_le_bytes());
        bytes[at + 40..at + 44].copy_from_slice(&previous.to_le_bytes());
        let head =
            crc32c::crc32c_append(crc32c::crc32c(&99_u128.to_le_bytes()), &bytes[at..at + 44]);
        bytes[at + 44..at + 48].copy_from_slice(&head.to_le_bytes());
        previous = head;
        at = end;
    }
}

fn in_a_directory(bytes: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("00000000000000000000.log"), bytes).unwrap();
    survive(dir.path());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..3_000), head in any::<bool>()) {
        let mut file = if head { small_log()[..64].to_vec() } else { vec![] };
        file.extend(bytes);
        in_a_directory(&file);
    }

    #[test]
    fn changed_bytes_behind_right_checksums_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)
    ) {
        let mut file = small_log();
        for (place, value) in changes {
            let at = 64 + place.index(file.len() - 64);
            file[at] = value;
        }
        reseal(&mut file);
        in_a_directory(&file);
    }

    #[test]
    fn any_prefix_opens_or_is_named(cut in any::<prop::sample::Index>()) {
        let whole = small_log();
        let file = &whole[..cut.index(whole.len())];
        in_a_directory(file);
    }
}
