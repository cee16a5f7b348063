//! A disk in memory that fails as disks do, driven by a seed.
//!
//! The model: each file has the content that reads see (the page cache) and the content that a crash
//! leaves (the platter), with the writes in between kept in order. Then
//! - a crash keeps of each unsynced write any subset of its 512-byte sectors, independently of other
//!   writes, so data is lost, torn and written back out of order; what is not written reads as zeros;
//! - names made, renamed or removed since the last `sync_dir` survive a crash each by chance;
//! - a failing `sync` writes back by chance, and then *nothing is left to write*: the cache looks clean, a
//!   second sync succeeds, and the data is gone at the next crash;
//! - a full disk takes a part of a write before it refuses;
//! - the process can die at any operation ([`SimulatedDisk::crash_after`]), in the middle of a write.
//!
//! All chance comes from the seed, so one thread using the disk sees the same failures each time.

use super::{Disk, DiskFile, Space};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The unit that a device writes whole.
const SECTOR: u64 = 512;

/// How often operations fail, each as a number out of 1,000.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// An fsync of a file reports an I/O error.
    pub sync_error: u32,
    /// A write reports an I/O error after a part of it.
    pub write_error: u32,
    /// An fsync of a directory reports an I/O error.
    pub sync_dir_error: u32,
}

/// An in-memory disk with failures; clones share one disk.
#[derive(Debug, Clone)]
pub struct SimulatedDisk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    random: Random,
    /// Rises with each crash: handles of an earlier life are dead.
    life: u64,
    files: BTreeMap<u64, Content>,
    next_file: u64,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    name_changes: Vec<NameChange>,
    locks: BTreeSet<PathBuf>,
    capacity: u64,
    faults: Faults,
    /// Operations left until the process dies.
    fuse: Option<u64>,
    operations: u64,
}

#[derive(Debug, Default)]
struct Content {
    cache: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    Write { at: u64, bytes: Vec<u8> },
    Truncate(u64),
}

#[derive(Debug)]
enum NameChange {
    Make(PathBuf, u64),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf, u64),
}

impl NameChange {
    fn is_in(&self, dir: &Path) -> bool {
        let (Self::Make(path, _) | Self::Remove(path) | Self::Rename(_, path, _)) = self;
        path.parent() == Some(dir)
    }

    fn apply(self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Self::Make(path, file) => {
                names.insert(path, file);
            }
            Self::Remove(path) => {
                names.remove(&path);
            }
            Self::Rename(from, to, file) => {
                names.remove(&from);
                names.insert(to, file);
            }
        }
    }
}

impl Content {
    /// Puts bytes at a place, with zeros before them where the content was shorter.
    fn put(content: &mut Vec<u8>, at: u64, bytes: &[u8]) {
        let (at, end) = (at as usize, at as usize + bytes.len());
        if content.len() < end {
            content.resize(end, 0);
        }
        if let Some(place) = content.get_mut(at..end) {
            place.copy_from_slice(bytes);
        }
    }

    /// Writes all changes, or of each what `keep` says, sector by sector.
    fn write_back(&mut self, mut keep: impl FnMut() -> bool) {
        for change in std::mem::take(&mut self.unsynced) {
            match change {
                Change::Truncate(length) => {
                    if keep() {
                        self.durable.resize(length as usize, 0);
                    }
                }
                Change::Write { mut at, bytes } => {
                    let mut rest = bytes.as_slice();
                    while !rest.is_empty() {
                        let length = ((SECTOR - at % SECTOR) as usize).min(rest.len());
                        let (sector, after) = rest.split_at(length);
                        if keep() {
                            Self::put(&mut self.durable, at, sector);
                        }
                        at += length as u64;
                        rest = after;
                    }
                }
            }
        }
    }
}

/// SplitMix64.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn chance(&mut self, of_thousand: u32) -> bool {
        of_thousand > 0 && self.next() % 1000 < u64::from(of_thousand)
    }
}

impl State {
    /// Counts an operation; an error when the process is dead. The operation that blows the fuse says
    /// `true`: it may happen in part.
    fn step(&mut self) -> io::Result<bool> {
        self.operations += 1;
        match &mut self.fuse {
            Some(0) => Err(dead()),
            Some(left) => {
                *left -= 1;
                Ok(*left == 0)
            }
            None => Ok(false),
        }
    }

    fn step_whole(&mut self) -> io::Result<()> {
        if self.step()? { Err(dead()) } else { Ok(()) }
    }

    fn used(&self) -> u64 {
        self.names
            .values()
            .filter_map(|file| self.files.get(file))
            .map(|c| c.cache.len() as u64)
            .sum()
    }

    fn write_back_some(&mut self, file: u64, of_thousand: u32) {
        let Self { random, files, .. } = self;
        if let Some(content) = files.get_mut(&file) {
            content.write_back(|| random.chance(of_thousand));
        }
    }

    fn empty(seed: u64) -> Self {
        Self {
            random: Random(seed),
            life: 0,
            files: BTreeMap::new(),
            next_file: 0,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            name_changes: Vec::new(),
            locks: BTreeSet::new(),
            capacity: u64::MAX,
            faults: Faults::default(),
            fuse: None,
            operations: 0,
        }
    }
}

fn dead() -> io::Error {
    io::Error::other("the simulated process is dead")
}

fn device_error() -> io::Error {
    // EIO, as a failing device gives it.
    io::Error::from_raw_os_error(5)
}

impl SimulatedDisk {
    /// An empty disk without faults.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State::empty(seed ^ 0x5eed))))
    }

    /// Sets how often operations fail from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.0.lock().faults = faults;
    }

    /// Sets the disk's size in bytes; below what is stored, every further growth fails.
    pub fn set_capacity(&self, bytes: u64) {
        self.0.lock().capacity = bytes;
    }

    /// Bytes stored in files now.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.0.lock().used()
    }

    /// How many operations were made in all.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.0.lock().operations
    }

    /// Lets the process die at the `operations`-th operation from now (1 is the next); that one may happen
    /// in part, all later ones fail until [`SimulatedDisk::crash`] or [`SimulatedDisk::restart`].
    pub fn crash_after(&self, operations: u64) {
        self.0.lock().fuse = Some(operations);
    }

    /// The machine loses power and comes back: what was not synced survives by chance, open files and
    /// locks are gone, faults and the fuse are off, the capacity stays.
    pub fn crash(&self) {
        let mut state = self.0.lock();
        let files: Vec<u64> = state.files.keys().copied().collect();
        // Mostly lost, half, or mostly kept: each hides other mistakes.
        let odds = match state.random.next() % 4 {
            0 => 0,
            1 => 100,
            2 => 500,
            _ => 950,
        };
        for file in files {
            state.write_back_some(file, odds);
        }
        for change in std::mem::take(&mut state.name_changes) {
            if state.random.chance(500) {
                change.apply(&mut state.durable_names);
            }
        }
        state.names = state.durable_names.clone();
        let kept: BTreeSet<u64> = state.names.values().copied().collect();
        state.files.retain(|file, _| kept.contains(file));
        for content in state.files.values_mut() {
            content.cache = content.durable.clone();
        }
        state.begin_life();
    }

    /// The process is killed and started again, the machine stays up: the page cache survives.
    pub fn restart(&self) {
        self.0.lock().begin_life();
    }

    /// Flips bits of a byte of a file, in the cache and on the platter.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` past the end of the file.
    pub fn damage(&self, path: &Path, at: u64, bits: u8) -> io::Result<()> {
        let mut state = self.0.lock();
        let file = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        let content = state.files.get_mut(&file).ok_or(io::ErrorKind::NotFound)?;
        let byte = content.cache.get_mut(at as usize).ok_or(io::ErrorKind::InvalidInput)?;
        *byte ^= bits;
        if let Some(byte) = content.durable.get_mut(at as usize) {
            *byte ^= bits;
        }
        Ok(())
    }
}

impl State {
    fn begin_life(&mut self) {
        self.life += 1;
        self.locks.clear();
        self.faults = Faults::default();
        self.fuse = None;
    }
}

#[derive(Debug)]
struct SimulatedFile {
    disk: Arc<Mutex<State>>,
    file: u64,
    life: u64,
}

impl SimulatedFile {
    fn with<T>(&self, operation: impl FnOnce(&mut State, u64) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.lock();
        if state.life != self.life {
            return Err(dead());
        }
        operation(&mut state, self.file)
    }
}

struct Lock {
    disk: Arc<Mutex<State>>,
    path: PathBuf,
    life: u64,
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut state = self.disk.lock();
        if state.life == self.life {
            state.locks.remove(&self.path);
        }
    }
}

impl Disk for SimulatedDisk {
    fn create_dir_all(&self, _dir: &Path) -> io::Result<()> {
        // Directories exist by being named; losing whole directories is not modelled.
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.0.lock();
        state.step_whole()?;
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = state.next_file;
        state.next_file += 1;
        state.files.insert(file, Content::default());
        state.names.insert(path.to_owned(), file);
        state.name_changes.push(NameChange::Make(path.to_owned(), file));
        Ok(Box::new(SimulatedFile { disk: Arc::clone(&self.0), file, life: state.life }))
    }

    fn open(&self, path: &Path, _write: bool) -> io::Result<Box<dyn DiskFile>> {
        let state = self.0.lock();
        let file = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(SimulatedFile { disk: Arc::clone(&self.0), file, life: state.life }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step_whole()?;
        let file = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), file);
        state.name_changes.push(NameChange::Rename(from.to_owned(), to.to_owned(), file));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step_whole()?;
        state.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
        state.name_changes.push(NameChange::Remove(path.to_owned()));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.0.lock();
        Ok(state
            .names
            .keys()
            .filter(|path| path.parent() == Some(dir))
            .filter_map(|path| path.file_name()?.to_str().map(str::to_owned))
            .collect())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step_whole()?;
        let fails = {
            let odds = state.faults.sync_dir_error;
            state.random.chance(odds)
        };
        let (here, elsewhere): (Vec<_>, Vec<_>) =
            std::mem::take(&mut state.name_changes).into_iter().partition(|c| c.is_in(dir));
        state.name_changes = elsewhere;
        for change in here {
            if !fails || state.random.chance(500) {
                change.apply(&mut state.durable_names);
            }
        }
        if fails { Err(device_error()) } else { Ok(()) }
    }

    fn space(&self, _path: &Path) -> io::Result<Space> {
        let state = self.0.lock();
        Ok(Space { free: state.capacity.saturating_sub(state.used()), total: state.capacity })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let mut state = self.0.lock();
        if !state.locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Lock { disk: Arc::clone(&self.0), path: path.to_owned(), life: state.life }))
    }
}

impl DiskFile for SimulatedFile {
    fn len(&self) -> io::Result<u64> {
        self.with(|state, file| {
            Ok(state.files.get(&file).map_or(0, |content| content.cache.len() as u64))
        })
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.with(|state, file| {
            let cache = state.files.get(&file).map_or(&[][..], |content| &content.cache);
            let rest = cache.get(at as usize..).unwrap_or_default();
            let length = rest.len().min(buffer.len());
            if let (Some(to), Some(from)) = (buffer.get_mut(..length), rest.get(..length)) {
                to.copy_from_slice(from);
            }
            Ok(length)
        })
    }

    fn write_all_at(&self, slices: &mut [IoSlice<'_>], at: u64) -> io::Result<()> {
        self.with(|state, file| {
            let last = state.step()?;
            let odds = state.faults.write_error;
            let fails = state.random.chance(odds);
            let mut bytes: Vec<u8> =
                slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            let mut result = Ok(());
            if last {
                let part = state.random.next() % (bytes.len() as u64 + 1);
                bytes.truncate(part as usize);
                result = Err(dead());
            } else if fails {
                let part = state.random.next() % (bytes.len() as u64 + 1);
                bytes.truncate(part as usize);
                result = Err(device_error());
            }
            let free = state.capacity.saturating_sub(state.used());
            let Some(content) = state.files.get_mut(&file) else { return Err(dead()) };
            let overwrites = (content.cache.len() as u64).saturating_sub(at);
            let fits = free.saturating_add(overwrites);
            if bytes.len() as u64 > fits {
                bytes.truncate(fits as usize);
                result = Err(io::ErrorKind::StorageFull.into());
            }
            Content::put(&mut content.cache, at, &bytes);
            content.unsynced.push(Change::Write { at, bytes });
            result
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|state, file| {
            if state.step()? {
                if state.random.chance(500) {
                    state.write_back_some(file, 1000);
                }
                return Err(dead());
            }
            let odds = state.faults.sync_error;
            if state.random.chance(odds) {
                state.write_back_some(file, 300);
                return Err(device_error());
            }
            if let Some(content) = state.files.get_mut(&file) {
                content.write_back(|| true);
            }
            Ok(())
        })
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.with(|state, file| {
            state.step_whole()?;
            if let Some(content) = state.files.get_mut(&file) {
                content.cache.resize(length as usize, 0);
                content.unsynced.push(Change::Truncate(length));
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(file: &dyn DiskFile, bytes: &[u8], at: u64) -> io::Result<()> {
        file.write_all_at(&mut [IoSlice::new(bytes)], at)
    }

    #[test]
    fn a_crash_loses_and_tears_only_what_was_not_synced() {
        let (dir, path) = (Path::new("/d"), Path::new("/d/f"));
        let (mut lost, mut torn, mut nameless) = (0, 0, 0);
        for seed in 0..200 {
            let disk = SimulatedDisk::new(seed);
            let file = disk.create(path).unwrap();
            write(&*file, &[1; 700], 0).unwrap();
            file.sync().unwrap();
            if seed % 2 == 0 {
                disk.sync_dir(dir).unwrap();
            }
            write(&*file, &[2; 2000], 700).unwrap();
            disk.crash();
            assert!(file.len().is_err(), "handles die");
            let Ok(file) = disk.open(path, false) else {
                assert!(seed % 2 == 1, "seed {seed}: a synced name is lost");
                nameless += 1;
                continue;
            };
            let mut bytes = vec![9; 4000];
            let length = file.read_at(&mut bytes, 0).unwrap();
            bytes.truncate(length);
            assert_eq!(bytes[..700], [1; 700], "seed {seed}");
            lost += usize::from(length == 700);
            torn += usize::from(bytes[700..].contains(&0));
        }
        assert!(lost > 20 && torn > 5 && nameless > 20, "{lost} {torn} {nameless}");
    }

    #[test]
    fn after_a_failed_sync_the_cache_looks_clean_and_the_data_is_gone() {
        let path = Path::new("/d/f");
        let mut gone = 0;
        for seed in 0..50 {
            let disk = SimulatedDisk::new(seed);
            let file = disk.create(path).unwrap();
            disk.sync_dir(Path::new("/d")).unwrap();
            write(&*file, &[1; 600], 0).unwrap();
            disk.set_faults(Faults { sync_error: 1000, ..Faults::default() });
            assert!(file.sync().is_err());
            disk.set_faults(Faults::default());
            file.sync().unwrap();
            let mut bytes = [0; 600];
            assert_eq!(file.read_at(&mut bytes, 0).unwrap(), 600);
            assert_eq!(bytes, [1; 600], "the cache still has it");
            disk.crash();
            gone += usize::from(disk.open(path, false).unwrap().len().unwrap() < 600);
        }
        assert!(gone > 10, "{gone}");
    }

    #[test]
    fn a_full_disk_takes_a_part() {
        let disk = SimulatedDisk::new(1);
        disk.set_capacity(100);
        let file = disk.create(Path::new("/d/f")).unwrap();
        let error = write(&*file, &[1; 150], 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(file.len().unwrap(), 100);
        write(&*file, &[2; 100], 0).unwrap();
    }
}
