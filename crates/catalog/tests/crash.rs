//! SIGKILL in the middle of many changes: what was acknowledged stands, whole, and at most the one
//! change that was under way besides (M1).
//!
//! The test starts itself again as a child that changes a catalog and prints, before each change,
//! what the manifest will be (`intends …`), and after it what it is (`acknowledged …`).
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests may panic and print"
)]

mod support;

use palisade_catalog::{BlockingCatalog, Commit, Manifest, OpenOptions, SegmentMeta};
use palisade_event::Offset;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use support::{segment, state};

const DIRECTORY: &str = "PALISADE_CATALOG_CRASH_DIRECTORY";
const ROUNDS: u64 = 25;

fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

fn open(directory: &Path) -> BlockingCatalog {
    BlockingCatalog::open(&directory.join("catalog.db"), OpenOptions::default()).unwrap()
}

fn say(word: &str, manifest: &Manifest) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{word} {}", state(manifest)).unwrap();
    out.flush().unwrap();
}

/// The child: changes the catalog until it is killed.
#[test]
#[ignore = "runs as the child of the test below"]
fn changes_without_end() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let catalog = open(Path::new(&directory));
    let mut seed = u64::from(std::process::id());
    let epoch = catalog.wait(catalog.catalog().claim_partition(0)).unwrap();
    let mut manifest = catalog.manifest().unwrap();
    loop {
        let live: Vec<SegmentMeta> = manifest.segments.clone();
        let mut next = Manifest { version: manifest.version + 1, ..manifest.clone() };
        match random(&mut seed) % 8 {
            0..5 => {
                let count = random(&mut seed) % 4;
                let ids = catalog.pending_segments(count as u32, "events", epoch).unwrap();
                let from = manifest.position.0;
                let segments: Vec<SegmentMeta> =
                    ids.iter().zip(from..).map(|(id, at)| segment(*id, at, at + 1, 0)).collect();
                next.position = Offset(from + count.max(1));
                next.segments.extend(segments.clone());
                say("intends", &next);
                let (from, to) = (manifest.position, next.position);
                catalog.commit(Commit { partition: 0, from, to, epoch, segments }).unwrap();
            }
            5..7 if live.len() >= 4 => {
                let id = catalog.pending_segments(1, "events", epoch).unwrap()[0];
                let inputs = &live[..live.len() / 2];
                let rows = inputs.iter().map(|s| s.rows).sum();
                let from = inputs.iter().map(|s| s.from.0).min().unwrap();
                let to = inputs.iter().map(|s| s.to.0).max().unwrap();
                let merged = SegmentMeta { rows, ..segment(id, from, to, 1) };
                next.segments.retain(|s| !inputs.contains(s));
                next.segments.push(merged.clone());
                say("intends", &next);
                let remove: Vec<u64> = inputs.iter().map(|s| s.id).collect();
                catalog.replace(&remove, vec![merged], epoch).unwrap();
            }
            7 if live.len() > 20 => {
                next.segments.remove(0);
                say("intends", &next);
                catalog.retire(&[live[0].id], epoch).unwrap();
            }
            _ => {
                let ids: Vec<u64> = catalog
                    .wait(catalog.catalog().retired())
                    .unwrap()
                    .iter()
                    .map(|segment| segment.id)
                    .collect();
                catalog.wait(catalog.catalog().forget(&ids)).unwrap();
                continue;
            }
        }
        say("acknowledged", &next);
        manifest = next;
    }
}

#[test]
fn what_was_acknowledged_stands_after_sigkill() {
    let directory = tempfile::tempdir().unwrap();
    let mut seed = 7;
    let (mut unanswered, mut changes) = (0, 0);
    for round in 0..ROUNDS {
        let before = state(&open(directory.path()).manifest().unwrap());
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["changes_without_end", "--exact", "--ignored", "--nocapture"])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (mut acknowledged, mut intended) = (before.clone(), before);
        let mut note = |line: String| {
            if let Some(state) = line.strip_prefix("acknowledged ") {
                acknowledged = state.to_owned();
                changes += 1;
            } else if let Some(state) = line.strip_prefix("intends ") {
                intended = state.to_owned();
            }
        };
        // Some rounds die at once, some after hundreds of changes.
        let patience = random(&mut seed) % 300;
        for _ in 0..patience {
            note(lines.next().expect("the child lives").unwrap());
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines {
            note(line.unwrap());
        }

        let catalog = open(directory.path());
        catalog.wait(catalog.catalog().verify()).unwrap();
        let manifest = catalog.manifest().unwrap();
        let found = state(&manifest);
        assert!(
            found == acknowledged || found == intended,
            "round {round}: found {found}\nacknowledged {acknowledged}\nintended {intended}"
        );
        unanswered += u32::from(found != acknowledged);
        // What the dead child registered is an orphan for the next owner, and only that.
        let epoch = catalog.wait(catalog.catalog().claim_partition(0)).unwrap();
        let orphans = catalog.wait(catalog.catalog().orphans()).unwrap();
        assert!(orphans.iter().all(|o| o.epoch < epoch));
        let ids: Vec<u64> = orphans.iter().map(|o| o.id).collect();
        assert!(manifest.segments.iter().all(|s| !ids.contains(&s.id)));
        catalog.wait(catalog.catalog().forget(&ids)).unwrap();
        assert_eq!(catalog.manifest().unwrap(), manifest);
    }
    assert!(changes > ROUNDS, "the children worked: {changes} changes");
    println!("{ROUNDS} kills in {changes} changes, {unanswered} done but unanswered");
}
