//! Opening the tables: what the catalog says is live is looked for on disk, and what dead writers
//! left behind is removed.

use crate::commits::Commits;
use crate::error::TableError;
use crate::index::EntityIndex;
use crate::maintain::delete_segment;
use crate::segment::sync_directory;
use crate::tables::{TableOptions, Tables};
use palisade_catalog::SegmentMeta;
use palisade_event::Offset;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

/// What opening found.
#[derive(Debug, Default)]
pub struct OpenReport {
    /// The committed position: the log is replayed from here.
    pub position: Offset,
    /// The manifest version.
    pub version: u64,
    /// Live segments.
    pub segments: usize,
    /// Live segments whose files are missing or have a wrong length. The tables open without them
    /// being readable: a query that needs one fails and names it.
    pub damaged: Vec<TableError>,
    /// Files removed that dead writers had begun.
    pub orphans: usize,
}

impl Tables {
    /// Opens the tables of a data directory. Segments stand in `<dir>/tables/<table>/`.
    ///
    /// # Errors
    /// [`TableError::Io`] when orphans can't be removed, and the catalog's refusals. Missing and
    /// damaged segments are no error here; see [`OpenReport::damaged`].
    pub fn open(
        dir: &Path,
        commits: Arc<dyn Commits>,
        options: TableOptions,
    ) -> Result<(Self, OpenReport), TableError> {
        let tables = Self::new(dir, commits, options);
        let manifest = tables.commits.manifest()?;
        let mut report = OpenReport {
            position: manifest.position,
            version: manifest.version,
            segments: manifest.segments.len(),
            orphans: tables.remove_orphans()?,
            ..OpenReport::default()
        };
        for segment in &manifest.segments {
            if let Err(error) = check_size(dir, segment) {
                tracing::error!(%error, table = segment.table, "a segment can't be read");
                report.damaged.push(error);
            }
        }
        tables.load(manifest.version, manifest.position, manifest.segments);
        Ok((tables, report))
    }

    /// Removes the files that dead writers announced and never committed (M3).
    fn remove_orphans(&self) -> Result<usize, TableError> {
        let orphans = self.commits.orphans()?;
        if orphans.is_empty() {
            return Ok(0);
        }
        let paths: Vec<_> = orphans.iter().map(|orphan| self.dir.join(&orphan.path)).collect();
        paths.iter().try_for_each(|path| delete_segment(path))?;
        let directories: BTreeSet<&Path> = paths.iter().filter_map(|path| path.parent()).collect();
        for directory in directories.into_iter().filter(|directory| directory.is_dir()) {
            sync_directory(directory)?;
        }
        let ids: Vec<u64> = orphans.iter().map(|orphan| orphan.id).collect();
        self.commits.forget(&ids)?;
        Ok(ids.len())
    }
}

/// Whether a segment's files are there and as long as they were written.
pub(crate) fn check_size(dir: &Path, segment: &SegmentMeta) -> Result<(), TableError> {
    let path = dir.join(&segment.path);
    let mut bytes = 0u64;
    for path in [path.clone(), EntityIndex::path_of(&path)] {
        match std::fs::metadata(&path) {
            Ok(metadata) => bytes += metadata.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(TableError::Missing { path });
            }
            Err(error) => return Err(TableError::io("look at", &path)(error)),
        }
    }
    if bytes != segment.bytes {
        let reason =
            format!("it and its index have {bytes} bytes, the catalog says {}", segment.bytes);
        return Err(TableError::damaged(path, reason));
    }
    Ok(())
}
