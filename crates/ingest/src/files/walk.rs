//! Finding the files to load.

use super::LoadError;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// The deepest directory below a given one.
const MAX_DEPTH: usize = 32;
/// The most files of one load.
const MAX_FILES: usize = 1_000_000;
/// How much of a file goes into the load's name.
const HEAD: u64 = 64 * 1024;

/// A file to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its size when it was found: no more than this is read.
    pub bytes: u64,
    /// When it was changed last, microseconds since the epoch.
    pub modified: Option<i64>,
}

/// What is to be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The files, in the order of the given paths, sorted within directories.
    pub files: Vec<PlannedFile>,
    /// What is no regular file or cannot be read, with the reason.
    pub skipped: Vec<(PathBuf, String)>,
    /// The time domain (T2): `load:` and a hash of the files' sizes and beginnings, so the same files
    /// have the same domain wherever they lie.
    pub domain: String,
}

impl Plan {
    /// How many bytes there are to read.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// Walks the paths. Symbolic links are followed only where they are given, so there are no circles.
/// Blocks.
///
/// # Errors
/// [`LoadError::NoSuchPath`], and [`LoadError::TooMany`] for over a million files.
pub fn plan(paths: &[PathBuf]) -> Result<Plan, LoadError> {
    let mut plan = Plan { files: Vec::new(), skipped: Vec::new(), domain: String::new() };
    for path in paths {
        let metadata = fs::metadata(path)
            .map_err(|source| LoadError::NoSuchPath { path: path.clone(), source })?;
        visit(path, &metadata, 0, &mut plan)?;
    }
    let mut marks: Vec<u128> = Vec::with_capacity(plan.files.len());
    let mut readable = Vec::with_capacity(plan.files.len());
    for file in plan.files {
        match mark(&file) {
            Ok(mark) => {
                marks.push(mark);
                readable.push(file);
            }
            Err(error) => plan.skipped.push((file.path, format!("cannot be read: {error}"))),
        }
    }
    plan.files = readable;
    marks.sort_unstable();
    let mut hash = Xxh3::new();
    for mark in marks {
        hash.update(&mark.to_le_bytes());
    }
    plan.domain = format!("load:{:032x}", hash.digest128());
    Ok(plan)
}

fn visit(
    path: &Path,
    metadata: &fs::Metadata,
    depth: usize,
    plan: &mut Plan,
) -> Result<(), LoadError> {
    if metadata.is_file() {
        if plan.files.len() == MAX_FILES {
            return Err(LoadError::TooMany { most: MAX_FILES });
        }
        let modified = metadata.modified().ok().and_then(|time| {
            let since = time.duration_since(std::time::UNIX_EPOCH).ok()?;
            i64::try_from(since.as_micros()).ok()
        });
        plan.files.push(PlannedFile { path: path.to_owned(), bytes: metadata.len(), modified });
        return Ok(());
    }
    let mut skip = |reason: String| plan.skipped.push((path.to_owned(), reason));
    if !metadata.is_dir() {
        skip("no regular file".to_owned());
        return Ok(());
    }
    if depth == MAX_DEPTH {
        skip(format!("over {MAX_DEPTH} directories deep"));
        return Ok(());
    }
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => {
            skip(format!("cannot be read: {error}"));
            return Ok(());
        }
    };
    let mut entries: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    entries.sort_unstable();
    for entry in entries {
        match fs::symlink_metadata(&entry) {
            Ok(metadata) if metadata.is_symlink() => {
                plan.skipped.push((entry, "a symbolic link: name it to load it".to_owned()));
            }
            Ok(metadata) => visit(&entry, &metadata, depth + 1, plan)?,
            Err(error) => plan.skipped.push((entry, format!("cannot be read: {error}"))),
        }
    }
    Ok(())
}

fn mark(file: &PlannedFile) -> std::io::Result<u128> {
    let mut head = Vec::new();
    fs::File::open(&file.path)?.take(HEAD).read_to_end(&mut head)?;
    head.extend_from_slice(&file.bytes.to_le_bytes());
    Ok(xxh3_128(&head))
}
