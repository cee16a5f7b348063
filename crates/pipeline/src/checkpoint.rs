//! Checkpoints of operator state (M2) on disk.
//!
//! # Format, version 3
//! A checkpoint at position S is the directory `checkpoints/<S, 20 digits>/` with one file for each
//! part and, written last, `checkpoint.json`:
//!
//! ```json
//! {"version":3,"position":17,"full":false,"chain":[3,17],
//!  "parts":[{"name":"baseline-0","bytes":123,"checksum":"16 hexadecimal digits, XXH3-64"}]}
//! ```
//!
//! `chain` lists the positions of the checkpoints to load, in order: the last full one and every
//! incremental one since, this one included. The parts `baseline-*` of all of them are applied in that
//! order; `norms` (the sources' entropy norms), `requests` (the ledger of idempotency keys) and `control` (what
//! is in force, [`crate::control::InForce`]) are whole in every checkpoint and taken from the last. Version 1
//! had no `control`; the defaults are in force there. Versions up to 2 had no `correlations` (the state of correlations):
//! each is a snapshot of its own chain, of which those since the last full one are applied, in order. All files, then the directories, are fsynced before
//! the catalog names the checkpoint (L3).

use crate::error::PipelineError;
use palisade_catalog::Checkpoint;
use palisade_event::Offset;
use palisade_sigma::correlation::live::is_full_snapshot;
use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64;

/// The part that holds the state of correlations.
pub(crate) const CORRELATIONS: &str = "correlations";
/// The version that is written.
const VERSION: u32 = 3;

/// A checkpoint that workers and finisher are writing their parts of.
#[derive(Debug)]
pub(crate) struct CheckpointTask {
    pub(crate) position: Offset,
    pub(crate) full: bool,
    expected: usize,
    state: Mutex<TaskState>,
    complete: Condvar,
}

#[derive(Debug, Default)]
struct TaskState {
    parts: BTreeMap<String, Vec<u8>>,
    failed: Option<String>,
}

impl CheckpointTask {
    /// A checkpoint at `position` that is complete with `expected` parts.
    pub(crate) fn new(position: Offset, full: bool, expected: usize) -> Self {
        Self { position, full, expected, state: Mutex::default(), complete: Condvar::new() }
    }

    pub(crate) fn part(&self, name: String, bytes: Vec<u8>) {
        self.state.lock().parts.insert(name, bytes);
        self.complete.notify_all();
    }

    pub(crate) fn fail(&self, reason: String) {
        self.state.lock().failed = Some(reason);
        self.complete.notify_all();
    }

    /// The parts once they are complete; `None` when the time is over first.
    pub(crate) fn wait(&self, time: Duration) -> Option<Result<BTreeMap<String, Vec<u8>>, String>> {
        let mut state = self.state.lock();
        if state.failed.is_none() && state.parts.len() < self.expected {
            self.complete.wait_for(&mut state, time);
        }
        if let Some(reason) = state.failed.take() {
            return Some(Err(reason));
        }
        (state.parts.len() >= self.expected).then(|| Ok(std::mem::take(&mut state.parts)))
    }
}

/// The content of `checkpoint.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    version: u32,
    position: u64,
    full: bool,
    chain: Vec<u64>,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    name: String,
    bytes: u64,
    checksum: String,
}

/// State as read back.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Loaded {
    /// For each part of the baselines (one of each former worker) what is to be applied, in order.
    pub(crate) baselines: BTreeMap<String, Vec<Vec<u8>>>,
    /// Of the correlations: what is to be applied, in order.
    pub(crate) correlations: Vec<Vec<u8>>,
    pub(crate) norms: Vec<u8>,
    pub(crate) requests: Vec<u8>,
    pub(crate) control: Vec<u8>,
}

/// The directory of all checkpoints.
#[derive(Debug, Clone)]
pub(crate) struct CheckpointStore {
    data: PathBuf,
}

fn name_of(position: Offset) -> String {
    format!("checkpoints/{:020}", position.0)
}

impl CheckpointStore {
    pub(crate) fn new(data: &Path) -> Self {
        Self { data: data.to_owned() }
    }

    /// Writes a checkpoint and makes it durable; the catalog may name it afterwards.
    pub(crate) fn write(
        &self,
        position: Offset,
        chain: &[Offset],
        parts: &BTreeMap<String, Vec<u8>>,
    ) -> Result<Checkpoint, PipelineError> {
        let path = name_of(position);
        let directory = self.data.join(&path);
        let io =
            |source| PipelineError::Io { what: format!("writing checkpoint '{path}'"), source };
        if directory.exists() {
            fs::remove_dir_all(&directory).map_err(io)?;
        }
        fs::create_dir_all(&directory).map_err(io)?;
        let mut description = Description {
            version: VERSION,
            position: position.0,
            full: chain.len() <= 1,
            chain: chain.iter().map(|position| position.0).collect(),
            parts: Vec::new(),
        };
        let mut total = 0;
        for (name, bytes) in parts {
            write_synced(&directory.join(name), bytes).map_err(io)?;
            total += bytes.len() as u64;
            description.parts.push(Part {
                name: name.clone(),
                bytes: bytes.len() as u64,
                checksum: format!("{:016x}", xxh3_64(bytes)),
            });
        }
        let text = serde_json::to_vec(&description).map_err(|error| PipelineError::Checkpoint {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        write_synced(&directory.join("checkpoint.json"), &text).map_err(io)?;
        for directory in [directory.as_path(), &self.data.join("checkpoints"), &self.data] {
            File::open(directory).and_then(|file| file.sync_all()).map_err(io)?;
        }
        Ok(Checkpoint { partition: 0, position, path, bytes: total, checksum: xxh3_64(&text) })
    }

    /// Reads the checkpoint that the catalog names, with all that it builds upon.
    pub(crate) fn load(&self, checkpoint: &Checkpoint) -> Result<Loaded, PipelineError> {
        let description = self.describe(&checkpoint.path, Some(checkpoint.checksum))?;
        let mut loaded = Loaded::default();
        for position in description.chain {
            let path = name_of(Offset(position));
            let description = self.describe(&path, None)?;
            for part in &description.parts {
                let bytes = self.read_part(&path, part)?;
                match part.name.as_str() {
                    "norms" => loaded.norms = bytes,
                    "requests" => loaded.requests = bytes,
                    "control" => loaded.control = bytes,
                    CORRELATIONS => {
                        if is_full_snapshot(&bytes) {
                            loaded.correlations.clear();
                        }
                        loaded.correlations.push(bytes);
                    }
                    name => loaded.baselines.entry(name.to_owned()).or_default().push(bytes),
                }
            }
        }
        Ok(loaded)
    }

    /// Removes every checkpoint directory that none of the kept ones builds upon.
    pub(crate) fn remove_unneeded(&self, kept: &[Checkpoint]) -> Result<(), PipelineError> {
        let mut needed = Vec::new();
        for checkpoint in kept {
            let description = self.describe(&checkpoint.path, None)?;
            needed.extend(description.chain.into_iter().map(|position| name_of(Offset(position))));
        }
        let directory = self.data.join("checkpoints");
        let io = |source| PipelineError::Io { what: "removing old checkpoints".into(), source };
        for entry in fs::read_dir(&directory).map_err(io)? {
            let entry = entry.map_err(io)?;
            let name = format!("checkpoints/{}", entry.file_name().to_string_lossy());
            if !needed.contains(&name) {
                fs::remove_dir_all(entry.path()).map_err(io)?;
            }
        }
        Ok(())
    }

    fn describe(&self, path: &str, checksum: Option<u64>) -> Result<Description, PipelineError> {
        let bad = |reason: String| PipelineError::Checkpoint { path: path.to_owned(), reason };
        let text = fs::read(self.data.join(path).join("checkpoint.json"))
            .map_err(|error| bad(format!("can't read its description: {error}")))?;
        if checksum.is_some_and(|checksum| checksum != xxh3_64(&text)) {
            return Err(bad("its description does not have the checksum in the catalog".into()));
        }
        let description: Description = serde_json::from_slice(&text)
            .map_err(|error| bad(format!("can't understand its description: {error}")))?;
        if !(1..=VERSION).contains(&description.version) {
            return Err(bad(format!(
                "it is of version {}, which a newer release wrote",
                description.version
            )));
        }
        Ok(description)
    }

    fn read_part(&self, path: &str, part: &Part) -> Result<Vec<u8>, PipelineError> {
        let bad = |reason: String| PipelineError::Checkpoint { path: path.to_owned(), reason };
        let bytes = fs::read(self.data.join(path).join(&part.name))
            .map_err(|error| bad(format!("can't read its part '{}': {error}", part.name)))?;
        if format!("{:016x}", xxh3_64(&bytes)) != part.checksum {
            return Err(bad(format!("its part '{}' is damaged", part.name)));
        }
        Ok(bytes)
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> BTreeMap<String, Vec<u8>> {
        ["baseline-0", "norms", "requests", "control"]
            .into_iter()
            .map(|name| (name.to_owned(), format!("{name} {text}").into_bytes()))
            .collect()
    }

    #[test]
    fn a_chain_is_read_in_order_and_unneeded_ones_go() {
        let data = tempfile::tempdir().unwrap();
        let store = CheckpointStore::new(data.path());
        store.write(Offset(1), &[Offset(1)], &parts("old")).unwrap();
        let base = store.write(Offset(3), &[Offset(3)], &parts("a")).unwrap();
        let next = store.write(Offset(17), &[Offset(3), Offset(17)], &parts("b")).unwrap();
        let loaded = store.load(&next).unwrap();
        let chain = vec![b"baseline-0 a".to_vec(), b"baseline-0 b".to_vec()];
        assert_eq!(loaded.baselines, BTreeMap::from([("baseline-0".to_owned(), chain)]));
        assert_eq!(loaded.norms, b"norms b");
        assert_eq!(loaded.requests, b"requests b");
        assert_eq!(loaded.control, b"control b");
        store.remove_unneeded(std::slice::from_ref(&next)).unwrap();
        assert!(store.load(&next).is_ok());
        assert!(store.load(&base).is_ok());
        assert!(!data.path().join(name_of(Offset(1))).exists());
    }

    #[test]
    fn damage_is_named() {
        let data = tempfile::tempdir().unwrap();
        let store = CheckpointStore::new(data.path());
        let checkpoint = store.write(Offset(1), &[Offset(1)], &parts("a")).unwrap();
        let part = data.path().join(&checkpoint.path).join("norms");
        fs::write(&part, b"other").unwrap();
        assert!(store.load(&checkpoint).unwrap_err().to_string().contains("'norms' is damaged"));
        fs::remove_file(part).unwrap();
        assert!(store.load(&checkpoint).unwrap_err().to_string().contains("can't read"));
        let text = data.path().join(&checkpoint.path).join("checkpoint.json");
        fs::write(text, b"{}").unwrap();
        assert!(store.load(&checkpoint).unwrap_err().to_string().contains("checksum"));
    }

    /// The file of version 1 stays readable.
    #[test]
    fn golden_description() {
        let text = r#"{"version":1,"position":17,"full":false,"chain":[3,17],"parts":[{"name":"baseline-0","bytes":123,"checksum":"00000000000000ff"}]}"#;
        let description: Description = serde_json::from_str(text).unwrap();
        assert_eq!(description.chain, vec![3, 17]);
        assert_eq!(serde_json::to_string(&description).unwrap(), text);
    }

    /// A checkpoint of version 1 is read, without what was in force; one of a later version is refused.
    #[test]
    fn version_1_is_read_and_version_4_is_not() {
        let data = tempfile::tempdir().unwrap();
        let store = CheckpointStore::new(data.path());
        let mut checkpoint = store.write(Offset(1), &[Offset(1)], &parts("a")).unwrap();
        let path = data.path().join(&checkpoint.path).join("checkpoint.json");
        let text = fs::read_to_string(&path).unwrap();
        let mut of_version = |version: u32, without_control: bool| {
            let mut description: Description = serde_json::from_str(&text).unwrap();
            description.version = version;
            description.parts.retain(|part| !without_control || part.name != "control");
            let bytes = serde_json::to_vec(&description).unwrap();
            fs::write(&path, &bytes).unwrap();
            checkpoint.checksum = xxh3_64(&bytes);
            store.load(&checkpoint)
        };
        let loaded = of_version(1, true).unwrap();
        assert_eq!(
            (loaded.norms.as_slice(), loaded.control.as_slice()),
            (&b"norms a"[..], &b""[..])
        );
        assert!(of_version(4, false).unwrap_err().to_string().contains("newer release"));
    }
}
