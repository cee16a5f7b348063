//! The log's behaviour under load, under failure and on a real disk.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod samples;

use palisade_event::{Entry, ErrorClass, Offset};
use palisade_log::disk::{Disk, Faults, RealDisk, SimulatedDisk};
use palisade_log::{Encoder, Log, LogError, LogOptions, Retention, encode, verify};
use samples::{entry, frame, tick};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

const DIR: &str = "/log";
type Acknowledgement = Result<Offset, LogError>;
type Delivered = Vec<(Offset, Arc<Entry>)>;

fn options() -> LogOptions {
    LogOptions {
        log_id: 7,
        min_free_bytes: Some(0),
        space_check_interval: Duration::ZERO,
        group_commit_max_wait: Duration::ZERO,
        ..LogOptions::default()
    }
}

fn open(disk: &SimulatedDisk, options: LogOptions) -> Log {
    Log::open(Arc::new(disk.clone()), Path::new(DIR), options, None).unwrap().0
}

fn append(log: &Log, entry: Entry) -> Result<Receiver<Acknowledgement>, LogError> {
    let (send, receive) = channel();
    let encoded = encode(&entry)?;
    log.append(Arc::new(entry), encoded, Box::new(move |result| send.send(result).unwrap()))?;
    Ok(receive)
}

fn read_all(log: &Log) -> Vec<Entry> {
    log.read(log.start()).unwrap().map(|item| item.unwrap().1).collect()
}

#[test]
fn many_threads_append_and_all_is_read_back_on_a_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("deep/log");
    let options = LogOptions { segment_bytes: 200_000, ..options() };
    let (log, recovery) = Log::open(Arc::new(RealDisk), &dir, options.clone(), None).unwrap();
    assert!(recovery.created);
    let acknowledged = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for thread in 0..4 {
            let (log, acknowledged) = (&log, &acknowledged);
            scope.spawn(move || {
                let mut encoder = Encoder::new().unwrap();
                let mut waiting = Vec::new();
                for number in 0..100 {
                    let entry = Arc::new(entry(thread * 1000 + number));
                    let encoded = encoder.encode(&entry).unwrap();
                    let (send, receive) = channel();
                    let done = Box::new(move |result: Acknowledgement| {
                        send.send(result.unwrap()).unwrap()
                    });
                    log.append(Arc::clone(&entry), encoded, done).unwrap();
                    waiting.push((receive, entry));
                }
                let offsets: Vec<_> = waiting
                    .into_iter()
                    .map(|(told, entry)| (told.recv().unwrap(), entry))
                    .collect();
                assert!(offsets.is_sorted_by_key(|(offset, _)| *offset), "order of one producer");
                acknowledged.lock().unwrap().extend(offsets);
            });
        }
    });
    let stats = log.stats();
    assert_eq!(stats.appended_entries, 400);
    assert!(stats.fsyncs <= 400 && stats.segments > 1, "{stats:?}");
    assert_eq!(stats.fsync_buckets.iter().sum::<u64>(), stats.fsyncs);
    drop(log);

    let mut acknowledged = acknowledged.into_inner().unwrap();
    acknowledged.sort_by_key(|(offset, _)| *offset);
    let offsets: Vec<_> = acknowledged.iter().map(|(offset, _)| offset.0).collect();
    assert_eq!(offsets, (0..400).collect::<Vec<_>>());
    assert_eq!(verify(&RealDisk, &dir, None).unwrap().end, Offset(400));
    let (log, recovery) = Log::open(Arc::new(RealDisk), &dir, options, Some(Offset(400))).unwrap();
    assert_eq!((recovery.end, recovery.cut), (Offset(400), None));
    for (offset, expected) in &acknowledged {
        if offset.0 % 37 == 0 {
            let (read, entry) = log.read(*offset).unwrap().next().unwrap().unwrap();
            assert_eq!((read, &entry), (*offset, &**expected));
        }
    }
    let expected: Vec<_> = acknowledged.into_iter().map(|(_, entry)| (*entry).clone()).collect();
    assert_eq!(read_all(&log), expected);
}

#[test]
fn reader_and_subscriber_see_all_without_gap_while_appends_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { segment_bytes: 30_000, ..options() };
    let (log, _) = Log::open(Arc::new(RealDisk), dir.path(), options, None).unwrap();
    let delivered: Arc<Mutex<Delivered>> = Arc::default();
    let mut from = Offset(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..300 {
                log.append_and_wait(entry(number)).unwrap();
            }
        });
        let mut reader = log.read(Offset(0)).unwrap();
        let mut seen = 0;
        while seen < 300 {
            if seen == 100 && from == Offset(0) {
                let list = Arc::clone(&delivered);
                from = log.subscribe(Box::new(move |offset, entry| {
                    list.lock().unwrap().push((offset, entry));
                }));
            }
            match reader.next() {
                None => thread::yield_now(),
                Some(item) => {
                    let (offset, read) = item.unwrap();
                    assert_eq!((offset, read), (Offset(seen as u64), entry(seen)));
                    assert!(log.durable_end() > offset);
                    seen += 1;
                }
            }
        }
    });
    log.close();
    let delivered = delivered.lock().unwrap();
    let offsets: Vec<_> = delivered.iter().map(|(offset, _)| offset.0).collect();
    assert_eq!(offsets, (from.0..300).collect::<Vec<_>>());
    assert!(delivered.iter().all(|(offset, found)| **found == entry(offset.0 as i64)));
}

#[test]
fn a_blocked_subscriber_holds_writers_back_but_not_acknowledgements() {
    let disk = SimulatedDisk::new(1);
    let weight = {
        let e = encode(&frame(1, 30)).unwrap();
        e.stored_bytes() + e.raw_bytes()
    };
    let log = open(&disk, LogOptions { max_queued_bytes: weight * 3, ..options() });
    let (entered, release) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let (entered_by_writer, release_by_writer) = (Arc::clone(&entered), Arc::clone(&release));
    let mut first = true;
    log.subscribe(Box::new(move |_, _| {
        if std::mem::take(&mut first) {
            entered_by_writer.wait();
            release_by_writer.wait();
        }
    }));
    let told = append(&log, frame(1, 30)).unwrap();
    entered.wait();
    // The writer stands in the subscriber, and the acknowledgement was given before.
    assert_eq!(told.try_recv().unwrap().unwrap(), Offset(0));
    let mut waiting = Vec::new();
    let busy = loop {
        let entry = frame(1, 30);
        let encoded = encode(&entry).unwrap();
        let (send, receive) = channel();
        let done = Box::new(move |result| send.send(result).unwrap());
        match log.try_append(Arc::new(entry), encoded, done) {
            Ok(()) => waiting.push(receive),
            Err(refused) => break refused,
        }
    };
    assert!(matches!(busy.error, LogError::Busy { .. }), "{busy:?}");
    assert_eq!(busy.error.class(), ErrorClass::Transient);
    assert_eq!(waiting.len(), 3);
    assert_eq!(log.stats().queued_entries, 3);
    thread::scope(|scope| {
        let blocked = scope.spawn(|| append(&log, frame(1, 30)).unwrap().recv().unwrap().unwrap());
        release.wait();
        assert_eq!(blocked.join().unwrap(), Offset(4));
    });
    for (at, told) in waiting.into_iter().enumerate() {
        assert_eq!(told.recv().unwrap().unwrap(), Offset(at as u64 + 1));
    }
}

#[test]
fn a_failed_fsync_poisons_for_good() {
    let disk = SimulatedDisk::new(1);
    let log = open(&disk, options());
    log.append_and_wait(tick(1)).unwrap();
    disk.set_faults(Faults { sync_error: 1000, ..Faults::default() });
    let error = log.append_and_wait(tick(2)).unwrap_err();
    assert!(matches!(error, LogError::Poisoned { .. }), "{error}");
    assert_eq!(error.class(), ErrorClass::Critical);
    disk.set_faults(Faults::default());
    let error = append(&log, tick(3)).map(drop).unwrap_err();
    assert!(matches!(error, LogError::Poisoned { .. }), "{error}");
    assert!(log.is_poisoned());
    assert_eq!(read_all(&log), [tick(1)], "what was durable can still be read, nothing else");
    log.close();
}

#[test]
fn a_full_disk_refuses_and_goes_on_when_there_is_room() {
    let disk = SimulatedDisk::new(1);
    let log = open(&disk, options());
    log.append_and_wait(frame(1, 40)).unwrap();
    let used = disk.used();
    disk.set_capacity(used + 300);
    let error = log.append_and_wait(frame(2, 40)).unwrap_err();
    assert!(matches!(error, LogError::DiskFull { .. }), "{error}");
    assert_eq!(error.class(), ErrorClass::Transient);
    assert_eq!(disk.used(), used, "the half-written frame is cut off");
    disk.set_capacity(u64::MAX);
    assert_eq!(log.append_and_wait(frame(3, 40)).unwrap(), Offset(1));
    drop(log);
    disk.crash();
    assert_eq!(read_all(&open(&disk, options())), [frame(1, 40), frame(3, 40)]);
}

#[test]
fn below_the_low_water_mark_appends_are_refused_until_it_recovers() {
    let disk = SimulatedDisk::new(1);
    disk.set_capacity(100_000);
    let options = LogOptions { min_free_bytes: Some(60_000), segment_bytes: 4_000, ..options() };
    let log = open(&disk, options);
    let mut number = 0;
    let error = loop {
        match log.append_and_wait(frame(number, 30)) {
            Ok(_) => number += 1,
            Err(error) => break error,
        }
    };
    assert!(
        matches!(error, LogError::DiskLow { free, needed: 60_000 } if free < 60_000),
        "{error}"
    );
    assert_eq!(error.class(), ErrorClass::Transient);
    assert!(log.stats().disk_low && !log.is_poisoned());
    assert!(number > 5);
    // Reading and trimming go on, and make room.
    assert_eq!(read_all(&log).len() as i64, number);
    assert!(log.trim(log.durable_end()).unwrap() > 0);
    log.append_and_wait(frame(number, 30)).unwrap();
    assert!(!log.stats().disk_low);
}

#[test]
fn trimming_removes_whole_files_and_never_what_is_needed() {
    let disk = SimulatedDisk::new(1);
    let log = open(&disk, LogOptions { segment_bytes: 5_000, ..options() });
    for number in 0..80 {
        log.append_and_wait(frame(number, 30)).unwrap();
    }
    let before = log.stats();
    assert!(before.segments > 5, "{before:?}");
    assert_eq!(log.trim(Offset(0)).unwrap(), 0);
    let freed = log.trim(Offset(40)).unwrap();
    let after = log.stats();
    assert_eq!(before.bytes - after.bytes, freed);
    assert!(freed > 0 && after.start > 0 && after.start <= 40, "{after:?}");
    let error = log.read(Offset(0)).map(drop).unwrap_err();
    assert!(matches!(error, LogError::Trimmed { .. }), "{error}");
    let error = log.read(Offset(81)).map(drop).unwrap_err();
    assert!(matches!(error, LogError::BeyondEnd { .. }), "{error}");
    assert_eq!(log.read(Offset(40)).unwrap().count(), 40);

    // By age: only files whose youngest entry is older than that, below what is allowed.
    let young = Retention { max_age: Some(Duration::from_micros(30)), max_bytes: None };
    log.retain(young, 80, Offset(80)).unwrap();
    let start = log.start();
    assert!(start.0 > after.start && start.0 <= 50, "{start:?}");
    assert_eq!(log.retain(young, 1_000, start).unwrap(), 0);
    // By size.
    let small = Retention { max_age: None, max_bytes: Some(11_000) };
    log.retain(small, 80, Offset(80)).unwrap();
    let kept = log.stats().bytes;
    assert!((11_000..17_000).contains(&kept), "{kept}");

    log.trim(Offset(80)).unwrap();
    assert_eq!(log.stats().segments, 1);
    let start = log.start();
    drop(log);
    disk.crash();
    let log = open(&disk, options());
    assert_eq!((log.start(), log.durable_end()), (start, Offset(80)));
    assert_eq!(read_all(&log).len() as u64, 80 - start.0);
}

/// The names of a directory that end so.
fn names(dir: &Path, ending: &str) -> Vec<String> {
    RealDisk.list(dir).unwrap().into_iter().filter(|name| name.ends_with(ending)).collect()
}

#[test]
fn trimmed_files_are_used_again() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("log");
    let options = LogOptions { segment_bytes: 20_000, ..options() };
    let (log, _) = Log::open(Arc::new(RealDisk), &dir, options.clone(), None).unwrap();
    let fill = |from: i64, to: i64| {
        for number in from..to {
            log.append_and_wait(frame(number, 30)).unwrap();
        }
    };
    fill(0, 100);
    let begun = names(&dir, ".log").len() - 1;
    assert!(begun > 4, "{begun}");
    // Of those that go, as many are kept as were begun since the last time.
    log.trim(Offset(100)).unwrap();
    assert_eq!((names(&dir, ".log").len(), names(&dir, ".spare").len()), (1, begun));
    fill(100, 130);
    let spares = names(&dir, ".spare").len();
    let used = begun - spares;
    assert!(used > 0 && spares > 0, "{used} {spares}");

    // The newest file is as long as the one before it was, and holds its own entries only.
    let newest = names(&dir, ".log").pop().unwrap();
    let length = std::fs::metadata(dir.join(newest)).unwrap().len();
    let expected: Vec<Entry> = (log.start().0..130).map(|n| frame(n as i64, 30)).collect();
    assert_eq!(read_all(&log), expected);
    let reports = palisade_log::inspect(&RealDisk, &dir).unwrap();
    assert!(reports.iter().all(|report| report.problem.is_none()), "{reports:?}");
    let last = reports.last().unwrap();
    assert!(last.end == Offset(130) && last.bytes < length, "{last:?} {length}");
    let verified = verify(&RealDisk, &dir, None).unwrap();
    assert!(verified.end == Offset(130) && verified.tail.is_none(), "{verified:?}");

    // Fewer are needed than wait: the rest is given up.
    log.trim(Offset(130)).unwrap();
    assert_eq!(names(&dir, ".spare").len(), used);
    drop(log);
    let (log, recovery) = Log::open(Arc::new(RealDisk), &dir, options, None).unwrap();
    assert_eq!((recovery.cut, log.durable_end()), (None, Offset(130)));
    assert!(names(&dir, ".spare").is_empty());
    log.append_and_wait(frame(130, 30)).unwrap();
    assert_eq!(read_all(&log).last(), Some(&frame(130, 30)));
}

#[test]
fn spare_files_go_before_anything_is_refused_for_want_of_room() {
    let disk = SimulatedDisk::new(1);
    let options = LogOptions { min_free_bytes: Some(60_000), segment_bytes: 5_000, ..options() };
    let log = open(&disk, options);
    for number in 0..60 {
        log.append_and_wait(frame(number, 30)).unwrap();
    }
    log.trim(Offset(60)).unwrap();
    let spares = |disk: &SimulatedDisk| {
        disk.list(Path::new(DIR)).unwrap().iter().filter(|name| name.ends_with(".spare")).count()
    };
    assert!(spares(&disk) > 3);
    disk.set_capacity(disk.used() + 59_000);
    log.append_and_wait(frame(60, 30)).unwrap();
    assert_eq!(spares(&disk), 0);
    assert!(!log.stats().disk_low);
}

#[test]
fn a_reader_that_is_overtaken_by_trimming_says_so() {
    let disk = SimulatedDisk::new(1);
    let log = open(&disk, LogOptions { segment_bytes: 5_000, ..options() });
    for number in 0..60 {
        log.append_and_wait(frame(number, 30)).unwrap();
    }
    let mut reader = log.read(Offset(0)).unwrap();
    reader.next().unwrap().unwrap();
    log.trim(Offset(60)).unwrap();
    let error = reader.find_map(Result::err).unwrap();
    assert!(matches!(error, LogError::Trimmed { .. }), "{error}");
    assert!(reader.next().is_none());
}

#[test]
fn names_that_come_back_after_a_failed_fsync_of_the_directory_do_no_harm() {
    for seed in 0..60 {
        let disk = SimulatedDisk::new(seed);
        let options = LogOptions { segment_bytes: 3_000, ..options() };
        let log = open(&disk, options.clone());
        for number in 0..60 {
            log.append_and_wait(frame(number, 30)).unwrap();
        }
        disk.set_faults(Faults { sync_dir_error: 1000, ..Faults::default() });
        assert!(log.trim(Offset(20)).is_err());
        assert!(log.is_poisoned());
        drop(log);
        // The process is started again on the same page cache, and trims on.
        disk.restart();
        let log = open(&disk, options.clone());
        log.trim(Offset(60)).unwrap();
        let start = log.start();
        drop(log);
        disk.crash();
        let log = open(&disk, options);
        assert_eq!((log.start(), log.durable_end()), (start, Offset(60)), "seed {seed}");
    }
}

#[test]
fn closing_drains_and_a_second_process_is_kept_out() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Log::open(Arc::new(RealDisk), dir.path(), options(), None);
    let (log, _) = open().unwrap();
    let error = open().map(drop).unwrap_err();
    assert!(matches!(error, LogError::InUse { .. }), "{error}");
    let told: Vec<_> = (0..50).map(|number| append(&log, entry(number)).unwrap()).collect();
    log.close();
    for (at, told) in told.into_iter().enumerate() {
        assert_eq!(told.try_recv().unwrap().unwrap(), Offset(at as u64));
    }
    let error = append(&log, tick(1)).map(drop).unwrap_err();
    assert!(matches!(error, LogError::Closed), "{error}");
    drop(log);
    assert_eq!(open().unwrap().0.durable_end(), Offset(50));
}

#[test]
fn a_torn_tail_on_a_real_disk_is_cut_before_the_next_append() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("00000000000000000000.log");
    let open = || Log::open(Arc::new(RealDisk), dir.path(), options(), None).unwrap();
    let (log, _) = open();
    for number in 0..10 {
        log.append_and_wait(entry(number)).unwrap();
    }
    drop(log);
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, [&whole[..], &whole[64..120]].concat()).unwrap();
    let (log, recovery) = open();
    let cut = recovery.cut.unwrap();
    assert_eq!((cut.byte, cut.bytes), (whole.len() as u64, 56));
    assert_eq!(std::fs::read(&file).unwrap(), whole);
    assert!(recovery.rewritten_bytes > 0 && recovery.proven == Offset(9));
    log.append_and_wait(entry(10)).unwrap();
    assert_eq!(read_all(&log), (0..11).map(entry).collect::<Vec<_>>());
}

#[test]
fn the_first_append_after_a_pause_does_not_wait_and_the_others_share_an_fsync() {
    let disk = SimulatedDisk::new(1);
    let log =
        open(&disk, LogOptions { group_commit_max_wait: Duration::from_millis(50), ..options() });
    let told: Vec<_> = (0..200).map(|number| append(&log, tick(number)).unwrap()).collect();
    for told in told {
        told.recv().unwrap().unwrap();
    }
    assert!(log.stats().fsyncs <= 20, "{:?}", log.stats());
}

#[test]
fn a_panicking_callback_fails_the_others_instead_of_hanging_them() {
    let disk = SimulatedDisk::new(1);
    let log = open(&disk, options());
    log.subscribe(Box::new(|_, _| panic!("a defect of the subscriber")));
    log.append_and_wait(tick(1)).unwrap();
    let error = loop {
        if let Err(error) = log.append_and_wait(tick(2)) {
            break error;
        }
    };
    assert!(matches!(error, LogError::Poisoned { .. } | LogError::Closed), "{error}");
    assert!(log.is_poisoned());
    log.close();
}

#[test]
fn real_disks_tell_their_space() {
    let dir = tempfile::tempdir().unwrap();
    let space = RealDisk.space(dir.path()).unwrap();
    assert!(space.total > 0 && space.free <= space.total);
}
