//! Power loss and failing disks under the catalog (L3): whatever of the unsynced writes a disk kept,
//! in whatever order, torn or whole, what was acknowledged stands, whole, and at most the one change
//! that was under way besides.
//!
//! The test starts itself again as a child whose writes, fsyncs and directory changes a small library
//! ([`interpose.c`](interpose.c), loaded with `LD_PRELOAD`, so that the tree has no unsafe code)
//! writes down in one order. From that record it makes, for each seed, what a disk may hold after the
//! power went off at a random moment: all that was synced, and of the rest any part. Failing fsyncs,
//! failing writes and a full disk are made by the same library. SQLite itself is the real one.
//!
//! `PALISADE_SEEDS` sets the number of seeds, `PALISADE_SEED` runs one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests may panic and print"
)]

mod support;

use palisade_catalog::{
    BlockingCatalog, CatalogError, Commit, CommitError, Manifest, OpenOptions, SegmentMeta,
    segment_path,
};
use palisade_event::Offset;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use support::{segment, state};

const WORK: &str = "PALISADE_CATALOG_POWER_LOSS";
const CHANGES: u64 = 400;
/// Bytes that a disk writes whole or not at all.
const SECTOR: usize = 512;

struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound.max(1)
    }

    fn chance(&mut self, of_thousand: u64) -> bool {
        self.below(1000) < of_thousand
    }
}

fn open(directory: &Path) -> Result<BlockingCatalog, CatalogError> {
    BlockingCatalog::open(&directory.join("catalog.db"), OpenOptions::default())
}

/// The child: changes a catalog, and writes to the file `marks`, before each change, what the
/// manifest will be, and after it what it is. An error ends it.
#[test]
#[ignore = "runs as the child of the tests below"]
fn changes() {
    let Ok(work) = std::env::var(WORK) else { return };
    let directory = Path::new(&work);
    let mut marks = File::create(directory.join("marks")).unwrap();
    let mut say = |word: &str, manifest: &Manifest| {
        marks.write_all(format!("{word} {}", state(manifest)).as_bytes()).unwrap();
    };
    let mut random = Random::new(4);
    // Errors at opening are a process that does not start: nothing was taken.
    let Ok(mut catalog) = open(directory) else { return };
    let Ok(mut epoch) = catalog.wait(catalog.catalog().claim_partition(0)) else { return };
    let Ok(mut manifest) = catalog.manifest() else { return };
    say("acknowledged", &manifest);
    for _ in 0..CHANGES {
        if random.chance(15) {
            // A stop and a start: the last connection takes the WAL away.
            if catalog.wait(catalog.catalog().close()).is_err() {
                return;
            }
            let Ok(opened) = open(directory) else { return };
            catalog = opened;
            let Ok(claimed) = catalog.wait(catalog.catalog().claim_partition(0)) else { return };
            epoch = claimed;
        }
        let mut next = Manifest { version: manifest.version + 1, ..manifest.clone() };
        let result = change(&catalog, epoch, &mut random, &manifest, &mut next, &mut say);
        match result {
            Ok(true) => {
                say("acknowledged", &next);
                manifest = next;
            }
            Ok(false) => {}
            Err(error) => {
                say(&format!("failed ({error})"), &manifest);
                try_once_more(&catalog, epoch, &manifest, &mut say);
                return;
            }
        }
    }
    let _ = catalog.wait(catalog.catalog().close());
}

/// One change, or none.
fn change(
    catalog: &BlockingCatalog,
    epoch: u64,
    random: &mut Random,
    manifest: &Manifest,
    next: &mut Manifest,
    say: &mut impl FnMut(&str, &Manifest),
) -> Result<bool, CommitError> {
    let live = &manifest.segments;
    match random.below(8) {
        0..5 => {
            let count = random.below(4);
            let ids = catalog.pending_segments(count as u32, "events", epoch)?;
            let from = manifest.position.0;
            let segments: Vec<SegmentMeta> =
                ids.iter().zip(from..).map(|(id, at)| segment(*id, at, at + 1, 0)).collect();
            next.position = Offset(from + count.max(1));
            next.segments.extend(segments.clone());
            say("intends", next);
            let (from, to) = (manifest.position, next.position);
            catalog.commit(Commit { partition: 0, from, to, epoch, segments })?;
        }
        5..7 if live.len() >= 4 => {
            let id = catalog.pending_segments(1, "events", epoch)?[0];
            let inputs = &live[..live.len() / 2];
            let rows = inputs.iter().map(|s| s.rows).sum();
            let from = inputs.iter().map(|s| s.from.0).min().unwrap();
            let to = inputs.iter().map(|s| s.to.0).max().unwrap();
            let merged = SegmentMeta { rows, ..segment(id, from, to, 1) };
            next.segments.retain(|s| !inputs.contains(s));
            next.segments.push(merged.clone());
            say("intends", next);
            let remove: Vec<u64> = inputs.iter().map(|s| s.id).collect();
            catalog.replace(&remove, vec![merged], epoch)?;
        }
        7 if live.len() > 20 => {
            next.segments.remove(0);
            say("intends", next);
            catalog.retire(&[live[0].id], epoch)?;
        }
        _ => {
            let retired = catalog.wait(catalog.catalog().retired()).map_err(CommitError::from)?;
            let ids: Vec<u64> = retired.iter().map(|segment| segment.id).collect();
            catalog.wait(catalog.catalog().forget(&ids))?;
            return Ok(false);
        }
    }
    Ok(true)
}

/// After a failure a further change is either refused, or taken and durable like any other.
fn try_once_more(
    catalog: &BlockingCatalog,
    epoch: u64,
    manifest: &Manifest,
    say: &mut impl FnMut(&str, &Manifest),
) {
    let (from, to) = (manifest.position, Offset(manifest.position.0 + 1));
    let more = Commit { partition: 0, from, to, epoch, segments: vec![] };
    if catalog.commit(more).is_ok() {
        let next = Manifest { version: manifest.version + 1, position: to, ..manifest.clone() };
        say("acknowledged", &next);
    }
}

/// What happened on the disk, in order.
#[derive(Debug)]
enum Step {
    Made(String, u64),
    Removed(String),
    Written(u64, usize, Vec<u8>),
    Cut(u64, usize),
    Synced(u64),
    SyncFailed,
    DirectorySynced,
    Mark(String),
}

fn parse(record: &[u8]) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = record;
    while let Some((head, after)) = rest.split_first_chunk::<25>() {
        let number = |at: usize| u64::from_ne_bytes(head[at..at + 8].try_into().unwrap());
        let (inode, offset, length) = (number(1), number(9) as usize, number(17) as usize);
        // A process that ends while another thread writes down its step leaves a part of it.
        let Some((bytes, after)) = after.split_at_checked(length) else { break };
        rest = after;
        let text = || String::from_utf8(bytes.to_vec()).unwrap();
        steps.push(match head[0] {
            b'C' => Step::Made(text(), inode),
            b'U' => Step::Removed(text()),
            b'W' => Step::Written(inode, offset, bytes.to_vec()),
            b'T' => Step::Cut(inode, offset),
            b'S' => Step::Synced(inode),
            b'F' => Step::SyncFailed,
            b'D' => Step::DirectorySynced,
            b'M' => Step::Mark(text()),
            other => panic!("unknown record {other}"),
        });
    }
    steps
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Cut(usize),
}

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(at, bytes) => {
            if content.len() < at + bytes.len() {
                content.resize(at + bytes.len(), 0);
            }
            content[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        Change::Cut(length) => content.resize(*length, 0),
    }
}

#[derive(Debug, Default)]
struct Content {
    durable: Vec<u8>,
    /// Written and not synced: any part may be on disk.
    pending: Vec<Change>,
}

#[derive(Debug, Clone)]
enum NameChange {
    Link(String, usize),
    Unlink(String),
}

/// The disk while the record is played.
#[derive(Debug, Default)]
struct Disk {
    contents: Vec<Content>,
    by_inode: BTreeMap<u64, usize>,
    durable_names: BTreeMap<String, usize>,
    name_changes: Vec<NameChange>,
    acknowledged: Option<String>,
    intended: Option<String>,
    /// It says that it synced and did not.
    lies: bool,
}

fn rename(names: &mut BTreeMap<String, usize>, change: &NameChange) {
    match change {
        NameChange::Link(name, file) => drop(names.insert(name.clone(), *file)),
        NameChange::Unlink(name) => drop(names.remove(name)),
    }
}

impl Disk {
    fn content(&mut self, inode: u64) -> &mut Content {
        let file = *self.by_inode.get(&inode).expect("a file is made before it is written");
        &mut self.contents[file]
    }

    fn play(&mut self, step: &Step) {
        match step {
            Step::Made(name, inode) => {
                let file = self.contents.len();
                self.contents.push(Content::default());
                self.by_inode.insert(*inode, file);
                self.name_changes.push(NameChange::Link(name.clone(), file));
            }
            Step::Removed(name) => self.name_changes.push(NameChange::Unlink(name.clone())),
            Step::Written(inode, at, bytes) => {
                self.content(*inode).pending.push(Change::Write(*at, bytes.clone()));
            }
            Step::Cut(inode, length) => self.content(*inode).pending.push(Change::Cut(*length)),
            Step::Synced(_) if self.lies => {}
            Step::Synced(inode) => {
                let content = self.content(*inode);
                for change in std::mem::take(&mut content.pending) {
                    apply(&mut content.durable, &change);
                }
            }
            // What it was to make durable may be lost, and looks clean ever after: it stays pending,
            // because nothing may be written after it.
            Step::SyncFailed => {}
            Step::DirectorySynced => {
                for change in std::mem::take(&mut self.name_changes) {
                    rename(&mut self.durable_names, &change);
                }
            }
            Step::Mark(line) => {
                if let Some(state) = line.strip_prefix("acknowledged ") {
                    self.acknowledged = Some(state.to_owned());
                    self.intended = None;
                } else if let Some(state) = line.strip_prefix("intends ") {
                    self.intended = Some(state.to_owned());
                }
            }
        }
    }

    /// Makes the files as they may be after the power comes back.
    fn restart(&self, random: &mut Random, directory: &Path) {
        // Mostly lost, half, or mostly kept: each hides other mistakes.
        let odds = [0, 100, 500, 950][random.below(4) as usize];
        let mut names = self.durable_names.clone();
        for change in &self.name_changes {
            if random.chance(500) {
                rename(&mut names, change);
            }
        }
        for (name, file) in names {
            let content = &self.contents[file];
            let mut bytes = content.durable.clone();
            for change in &content.pending {
                if random.chance(odds) {
                    apply(&mut bytes, change);
                } else if let Change::Write(at, written) = change
                    && random.chance(200)
                {
                    // Some sectors of it.
                    for (index, sector) in written.chunks(SECTOR).enumerate() {
                        if random.chance(500) {
                            let part = Change::Write(at + index * SECTOR, sector.to_vec());
                            apply(&mut bytes, &part);
                        }
                    }
                }
            }
            std::fs::write(directory.join(name), bytes).unwrap();
        }
    }
}

/// A directory in memory where there is one: thousands of databases are written.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// The library that writes the record, built once.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = LIBRARY.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("interpose.so");
        let source = "tests/interpose.c";
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&path)
            .arg(source)
            .arg("-ldl")
            .status()
            .expect("a C compiler is needed, as for the build");
        assert!(built.success());
        (directory, path)
    });
    path
}

/// Runs the child and gives what it did to the disk.
fn record(fail: &str) -> Vec<Step> {
    let work = scratch();
    let directory = work.path().join("data");
    std::fs::create_dir(&directory).unwrap();
    let record = work.path().join("record");
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["changes", "--exact", "--ignored", "--nocapture"])
        .env(WORK, &directory)
        .env("LD_PRELOAD", library())
        .env("PALISADE_RECORD", &record)
        .env("PALISADE_DIRECTORY", &directory)
        .env("PALISADE_FAIL", fail)
        .output()
        .unwrap();
    assert!(child.status.success(), "{fail}: {}", String::from_utf8_lossy(&child.stderr));
    let output = String::from_utf8_lossy(&child.stdout);
    assert!(output.contains("1 passed"), "the child did not run: {output}");
    parse(&std::fs::read(record).unwrap())
}

/// What a new process finds must be what was acknowledged, or that and the change under way; and it
/// must be able to go on.
fn check(disk: &Disk, directory: &Path) -> Result<(), String> {
    let Some(acknowledged) = &disk.acknowledged else {
        // Nothing was acknowledged yet: it opens, or says why not.
        drop(open(directory));
        return Ok(());
    };
    let words = |error: CatalogError| error.to_string();
    let catalog = open(directory).map_err(words)?;
    catalog.wait(catalog.catalog().verify()).map_err(words)?;
    let manifest = catalog.manifest().map_err(words)?;
    let found = state(&manifest);
    if found != *acknowledged && Some(&found) != disk.intended.as_ref() {
        let intended = &disk.intended;
        return Err(format!("found {found}\nacknowledged {acknowledged}\nintended {intended:?}"));
    }
    let epoch = catalog.wait(catalog.catalog().claim_partition(0)).map_err(words)?;
    let id = catalog.pending_segments(1, "events", epoch).map_err(|e| e.to_string())?[0];
    if manifest.segments.iter().any(|live| live.id == id) {
        return Err(format!("the id {id} is given twice"));
    }
    let (from, to) = (manifest.position, Offset(manifest.position.0 + 1));
    let segments = vec![segment(id, from.0, to.0, 0)];
    assert_eq!(segments[0].path, segment_path("events", id));
    let more = Commit { partition: 0, from, to, epoch, segments };
    catalog.commit(more).map_err(|error| error.to_string())?;
    catalog.wait(catalog.catalog().close()).map_err(words)?;
    drop(catalog);
    let again = open(directory).and_then(|catalog| catalog.manifest()).map_err(words)?;
    if (again.position, again.version) != (to, manifest.version + 1) {
        return Err(format!("a change after the restart is gone: {}", state(&again)));
    }
    Ok(())
}

fn seeds(default: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("PALISADE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("PALISADE_SEEDS").unwrap_or(default),
    }
}

/// Plays the record up to a random moment for each seed, the moments in order.
fn crash_at_random_moments(
    steps: &[Step],
    seeds: impl Iterator<Item = u64>,
    lies: bool,
) -> Vec<(u64, Result<(), String>)> {
    let mut moments: Vec<(usize, u64)> = seeds
        .map(|seed| (Random::new(seed).below(steps.len() as u64 + 1) as usize, seed))
        .collect();
    moments.sort_unstable();
    let mut disk = Disk { lies, ..Disk::default() };
    let mut played = 0;
    let mut results = Vec::new();
    for (moment, seed) in &moments {
        for step in &steps[played..*moment] {
            disk.play(step);
        }
        played = *moment;
        let directory = scratch();
        disk.restart(&mut Random::new(seed ^ 0x5eed), directory.path());
        results.push((*seed, check(&disk, directory.path())));
    }
    results
}

/// No seed may break the law.
fn assert_all_hold(results: &[(u64, Result<(), String>)]) {
    for (seed, result) in results {
        if let Err(reason) = result {
            panic!("run again with PALISADE_SEED={seed}: {reason}");
        }
    }
}

#[test]
fn what_was_acknowledged_survives_the_loss_of_power() {
    let steps = record("");
    let count = |wanted: fn(&Step) -> bool| steps.iter().filter(|step| wanted(step)).count();
    let marks = count(|step| matches!(step, Step::Mark(line) if line.starts_with("acknowledged")));
    let removed = count(|step| matches!(step, Step::Removed(_)));
    assert!(marks > CHANGES as usize / 2 && removed > 0, "{marks} changes, {removed} removals");
    let results = crash_at_random_moments(&steps, seeds(300), false);
    println!("{} losses of power, {} steps, {marks} changes", results.len(), steps.len());
    assert_all_hold(&results);
}

/// The law can be broken: a disk that forgets what it was told to make durable is found out.
#[test]
fn a_disk_that_lies_is_noticed() {
    let results = crash_at_random_moments(&record(""), 0..60, true);
    let broken = results.iter().filter(|(_, result)| result.is_err()).count();
    assert!(broken > 5, "only {broken} of {} losses of power were noticed", results.len());
}

#[test]
fn failing_disks_acknowledge_nothing_that_is_not_there() {
    let seeds = seeds(300);
    let runs = (seeds.end - seeds.start).div_ceil(20);
    let mut failed = 0;
    for run in 0..runs {
        let mut random = Random::new(run + 77);
        let kind = ["s", "e", "n"][(run % 3) as usize];
        let fail = format!("{kind}{}", 1 + random.below(if kind == "s" { 500 } else { 2500 }));
        let steps = record(&fail);
        failed += usize::from(
            steps.iter().any(|step| matches!(step, Step::Mark(line) if line.starts_with("failed"))),
        );
        if kind == "s"
            && let Some(at) = steps.iter().position(|step| matches!(step, Step::SyncFailed))
        {
            let after = &steps[at..];
            let taken = after
                .iter()
                .any(|step| matches!(step, Step::Mark(line) if line.starts_with("acknowledged")));
            assert!(!taken, "{fail}: a change was acknowledged after a failed fsync");
        }
        // The end of the record is the state in which the process gave up.
        let mut disk = Disk::default();
        steps.iter().for_each(|step| disk.play(step));
        for seed in seeds.start + run * 20..(seeds.start + run * 20 + 20).min(seeds.end) {
            let directory = scratch();
            disk.restart(&mut Random::new(seed ^ 0x5eed), directory.path());
            assert_all_hold(&[(seed, check(&disk, directory.path()))]);
        }
    }
    assert!(failed > 0 || runs < 3, "no fault was noticed in {runs} runs");
    println!("{failed} of {runs} processes met a fault at a change");
}
