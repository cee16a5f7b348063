//! The law of the log, tried on the fault-injecting disk: whatever fails, every acknowledged entry is read back
//! exactly once, in order and with equal content, and nothing else is but entries that were handed over and not
//! refused (L2, L3).
//!
//! The writer is driven by hand, so a seed gives the same run each time. `PALISADE_SEEDS` sets the number of
//! seeds, `PALISADE_SEED` runs one.

use crate::codec::encode;
use crate::disk::{Disk, Faults, SimulatedDisk};
use crate::error::LogError;
use crate::log::{Log, LogOptions};
use crate::writer::Writer;
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, StringDictionaryBuilder};
use arrow::datatypes::Int32Type;
use palisade_event::id::GatewayIdentity;
use palisade_event::{Entry, Frame, Offset, RequestEntry};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const DIR: &str = "/log";

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound.max(1)
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

/// An entry that is found again by its clock, which is unique.
fn entry(random: &mut Random, number: i64) -> Entry {
    let gateway = GatewayIdentity { region: 1, gateway: 2, epoch: 3 };
    match random.below(4) {
        0 => Entry::Tick { clock: number, gateway },
        1 => Entry::Control {
            clock: number,
            kind: "gateway_joins".into(),
            body: "x".repeat(random.below(900) as usize),
        },
        _ => {
            let rows = random.below(40) as i64;
            let mut users = StringDictionaryBuilder::<Int32Type>::new();
            for row in 0..rows {
                users.append_value(format!("user{}", (row * 7 + number) % 11));
            }
            let mut columns: Vec<(&str, ArrayRef)> = vec![
                ("n", Arc::new(Int64Array::from_iter_values((0..rows).map(|row| row * number)))),
                ("user", Arc::new(users.finish())),
            ];
            if random.one_in(3) {
                let texts = (0..rows).map(|row| (row % 2 == 0).then(|| format!("{row}-{number}")));
                columns.push(("text", Arc::new(StringArray::from_iter(texts))));
            }
            let request = RequestEntry {
                tenant: "default".into(),
                key: format!("key{number}"),
                body_hash: "0".repeat(32),
                clock: number,
                accepted: rows as u64,
                rejected: vec![(3, "bad".into())],
                rejected_total: 1,
            };
            Entry::Frame(Frame {
                stream: "events".into(),
                clock: number,
                gateway,
                requests: if random.one_in(2) { vec![request] } else { vec![] },
                batch: RecordBatch::try_from_iter(columns).unwrap(),
            })
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Waiting,
    Acknowledged(Offset),
    /// Refused in a way that promises that it is not in the log.
    Refused,
    /// The log failed: it may be in the log or not.
    Unknown,
}

struct Sent {
    entry: Arc<Entry>,
    fate: Arc<Mutex<Fate>>,
}

struct Trial {
    seed: u64,
    random: Random,
    disk: SimulatedDisk,
    sent: BTreeMap<i64, Sent>,
    number: i64,
    /// What the catalog committed; it is durable by itself.
    committed: Offset,
    trimmed: Offset,
    /// What stands at each offset once it was seen there: it never changes.
    seen: BTreeMap<u64, i64>,
}

fn clock_of(entry: &Entry) -> i64 {
    match entry {
        Entry::Frame(frame) => frame.clock,
        Entry::Tick { clock, .. } | Entry::Control { clock, .. } => *clock,
    }
}

impl Trial {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            disk: SimulatedDisk::new(seed),
            sent: BTreeMap::new(),
            number: 1,
            committed: Offset(0),
            trimmed: Offset(0),
            seen: BTreeMap::new(),
        }
    }

    fn open(&mut self) -> Result<(Log, Writer), LogError> {
        let options = LogOptions {
            log_id: u128::from(self.seed) + 1,
            segment_bytes: 600 + self.random.below(6000),
            min_free_bytes: Some(0),
            space_check_interval: Duration::ZERO,
            ..LogOptions::default()
        };
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let (log, writer, recovery) =
            Log::open_stopped(disk, Path::new(DIR), options, Some(self.committed))?;
        assert_eq!(recovery.end, log.durable_end());
        Ok((log, writer))
    }

    /// Opens, perhaps dying on the way, until it opens.
    fn open_at_last(&mut self) -> (Log, Writer) {
        for _ in 0..3 {
            if self.random.one_in(3) {
                let operations = 1 + self.random.below(6);
                self.disk.crash_after(operations);
            } else if self.random.one_in(4) {
                self.disk.set_faults(Faults {
                    sync_error: 400,
                    sync_dir_error: 200,
                    ..Faults::default()
                });
            } else {
                break;
            }
            match self.open() {
                Ok(_opened_but_died) => {}
                Err(LogError::Io { .. }) => {}
                Err(error) => panic!("seed {}: {error}", self.seed),
            }
            self.die();
        }
        match self.open() {
            Ok(opened) => opened,
            Err(error) => panic!("seed {}: does not open: {error}", self.seed),
        }
    }

    fn die(&mut self) {
        if self.random.one_in(3) {
            self.disk.restart();
        } else {
            self.disk.crash();
        }
    }

    /// Reads everything and compares it with what was sent.
    fn check(&mut self, log: &Log) {
        let seed = self.seed;
        assert!(log.start() <= self.trimmed, "seed {seed}: more is gone than was trimmed");
        let mut read = BTreeMap::new();
        let mut next = log.start();
        for item in log.read(log.start()).unwrap() {
            let (offset, entry) = item.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            assert_eq!(offset, next, "seed {seed}: a gap");
            next = offset.next();
            let number = clock_of(&entry);
            let sent = self.sent.get(&number).unwrap_or_else(|| panic!("seed {seed}: unsent"));
            assert_eq!(*sent.entry, entry, "seed {seed}: entry {} changed", offset.0);
            assert!(*sent.fate.lock() != Fate::Refused, "seed {seed}: a refused entry is there");
            assert!(read.insert(number, offset).is_none(), "seed {seed}: {number} stands twice");
            let before = self.seen.insert(offset.0, number);
            assert!(
                before.is_none_or(|before| before == number),
                "seed {seed}: another entry at offset {}",
                offset.0
            );
        }
        assert_eq!(next, log.durable_end(), "seed {seed}: the reader stops early");
        for (number, sent) in &self.sent {
            if let Fate::Acknowledged(offset) = *sent.fate.lock()
                && offset >= log.start()
            {
                let found = read.get(number);
                assert_eq!(found, Some(&offset), "seed {seed}: acknowledged {number} is lost");
            }
        }
        // What was read once was durable, so it stays; but what follows the end never comes back.
        let gone = self.seen.range(next.0..).next();
        assert_eq!(gone, None, "seed {seed}: an entry was read and is gone");
    }

    fn append(&mut self, log: &Log) {
        let number = self.number;
        self.number += 1;
        let entry = Arc::new(entry(&mut self.random, number));
        let encoded = encode(&entry).unwrap();
        let fate = Arc::new(Mutex::new(Fate::Waiting));
        let told = Arc::clone(&fate);
        let done = Box::new(move |result: Result<Offset, LogError>| {
            let mut fate = told.lock();
            assert_eq!(*fate, Fate::Waiting, "told twice");
            *fate = match result {
                Ok(offset) => Fate::Acknowledged(offset),
                Err(LogError::DiskFull { .. }) => Fate::Refused,
                Err(_) => Fate::Unknown,
            };
        });
        if log.append(Arc::clone(&entry), encoded, done).is_ok() {
            self.sent.insert(number, Sent { entry, fate });
        }
    }

    fn live(&mut self) {
        let (log, mut writer) = self.open_at_last();
        self.check(&log);
        let delivered: Arc<Mutex<Vec<Offset>>> = Arc::default();
        let list = Arc::clone(&delivered);
        let from = log.subscribe(Box::new(move |offset, _| list.lock().push(offset)));
        match self.random.below(4) {
            0 => self.disk.crash_after(1 + self.random.below(40)),
            1 => {
                self.disk.set_faults(Faults { sync_error: 60, sync_dir_error: 60, write_error: 20 })
            }
            2 => self.disk.set_capacity(self.disk.used() + self.random.below(8000)),
            _ => {}
        }
        for _ in 0..1 + self.random.below(25) {
            for _ in 0..self.random.below(6) {
                self.append(&log);
            }
            writer.work_once();
            if self.random.one_in(8) {
                // The catalog follows the log (L3), trimming follows the catalog.
                self.committed =
                    Offset(self.random.below(log.durable_end().0 + 1)).max(self.committed);
                self.trimmed = self.trimmed.max(self.committed);
                let _ = log.trim(self.committed);
            }
            if log.is_poisoned() {
                break;
            }
        }
        if !log.is_poisoned() && self.random.one_in(2) {
            while writer.work_once() {}
        }
        let end = log.durable_end();
        let expected: Vec<Offset> = (from.0..end.0).map(Offset).collect();
        assert_eq!(*delivered.lock(), expected, "seed {}: deliveries", self.seed);
        self.die();
        self.disk.set_capacity(u64::MAX);
        for sent in self.sent.values() {
            let mut fate = sent.fate.lock();
            if *fate == Fate::Waiting {
                *fate = Fate::Unknown;
            }
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_or_doubled_whatever_fails() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("PALISADE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("PALISADE_SEEDS").unwrap_or(1_000),
    };
    for seed in seeds {
        let result = std::panic::catch_unwind(|| {
            let mut trial = Trial::new(seed);
            for _ in 0..5 {
                trial.live();
            }
            let (log, _writer) = trial.open_at_last();
            trial.check(&log);
        });
        assert!(result.is_ok(), "run again with PALISADE_SEED={seed}");
    }
}
