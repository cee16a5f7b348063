//! What the tables need of the catalog, for plain threads: [`Commits`].

use crate::error::TableError;
use palisade_catalog::{Commit, Manifest, PendingSegment, RetiredSegment, SegmentMeta};
use palisade_event::ErrorClass;
use parking_lot::Mutex;
use std::collections::BTreeMap;

/// The catalog's side of a segment's life (M1, M3): pending, live, retired, forgotten. All calls
/// block until they are durable.
pub trait Commits: Send + Sync + std::fmt::Debug {
    /// Registers `count` files of a table before they are written; their ids and relative paths.
    ///
    /// # Errors
    /// [`TableError::Catalog`], as in all calls.
    fn pending(
        &self,
        count: u32,
        table: &str,
        epoch: u64,
    ) -> Result<Vec<PendingSegment>, TableError>;
    /// Commits an interval of the log; the new manifest version.
    ///
    /// # Errors
    /// Refused when `from` is not the committed position or the epoch is stale.
    fn commit(&self, commit: Commit) -> Result<u64, TableError>;
    /// Replaces live segments by pending ones of the same rows; the new manifest version.
    ///
    /// # Errors
    /// Refused when one of `remove` is not live.
    fn replace(&self, remove: &[u64], add: Vec<SegmentMeta>, epoch: u64)
    -> Result<u64, TableError>;
    /// Takes live segments out of the manifest; the new manifest version.
    ///
    /// # Errors
    /// Refused when one is not live.
    fn retire(&self, ids: &[u64], epoch: u64) -> Result<u64, TableError>;
    /// Gives up pending segments of this writer: they become retired.
    ///
    /// # Errors
    /// Refused when one is not pending.
    fn abandon(&self, ids: &[u64], epoch: u64) -> Result<(), TableError>;
    /// The segments whose files may be deleted when no snapshot uses them.
    ///
    /// # Errors
    /// [`TableError::Catalog`].
    fn retired(&self) -> Result<Vec<RetiredSegment>, TableError>;
    /// The pending segments whose writers are dead.
    ///
    /// # Errors
    /// [`TableError::Catalog`].
    fn orphans(&self) -> Result<Vec<PendingSegment>, TableError>;
    /// Forgets retired segments and orphans whose files are gone.
    ///
    /// # Errors
    /// Refused when one is live or its writer is.
    fn forget(&self, ids: &[u64]) -> Result<(), TableError>;
    /// All live segments with version and position.
    ///
    /// # Errors
    /// [`TableError::Catalog`].
    fn manifest(&self) -> Result<Manifest, TableError>;
}

/// A catalog in memory, for tests and benchmarks: as long as it lives it is as strict as the real
/// one, and nothing of it is on disk.
#[derive(Debug, Default)]
pub struct MemoryCommits(Mutex<MemoryCatalog>);

#[derive(Debug, Default)]
struct MemoryCatalog {
    manifest: Manifest,
    last_id: u64,
    /// The epoch of the partition's owner.
    epoch: u64,
    pending: BTreeMap<u64, PendingSegment>,
    retired: BTreeMap<u64, RetiredSegment>,
}

fn refused(message: impl Into<String>) -> TableError {
    TableError::Catalog { message: message.into(), class: ErrorClass::Critical }
}

impl MemoryCommits {
    /// Takes ownership over, as a restarted process does: earlier epochs are dead.
    pub fn claim(&self) -> u64 {
        let mut catalog = self.0.lock();
        catalog.epoch += 1;
        catalog.epoch
    }
}

impl MemoryCatalog {
    fn check(&self, epoch: u64) -> Result<(), TableError> {
        if epoch == self.epoch && epoch > 0 {
            return Ok(());
        }
        Err(refused(format!("epoch {epoch} is stale, the owner's is {}", self.epoch)))
    }

    fn make_live(&mut self, segments: Vec<SegmentMeta>, epoch: u64) -> Result<(), TableError> {
        for segment in &segments {
            let known = self.pending.get(&segment.id).is_some_and(|pending| {
                pending.path == segment.path
                    && pending.table == segment.table
                    && pending.epoch == epoch
            });
            if !known {
                return Err(refused(format!("segment {} is not pending", segment.id)));
            }
        }
        for segment in segments {
            self.pending.remove(&segment.id);
            self.manifest.segments.push(segment);
        }
        self.manifest.segments.sort_by_key(|segment| segment.id);
        Ok(())
    }
}

impl Commits for MemoryCommits {
    fn pending(
        &self,
        count: u32,
        table: &str,
        epoch: u64,
    ) -> Result<Vec<PendingSegment>, TableError> {
        let mut catalog = self.0.lock();
        catalog.check(epoch)?;
        let ids = catalog.last_id + 1..=catalog.last_id + u64::from(count);
        catalog.last_id += u64::from(count);
        let files: Vec<PendingSegment> = ids
            .map(|id| PendingSegment {
                id,
                table: table.to_owned(),
                path: format!("tables/{table}/{id:016x}.parquet"),
                epoch,
            })
            .collect();
        catalog.pending.extend(files.iter().map(|file| (file.id, file.clone())));
        Ok(files)
    }

    fn commit(&self, commit: Commit) -> Result<u64, TableError> {
        let mut catalog = self.0.lock();
        catalog.check(commit.epoch)?;
        if commit.from != catalog.manifest.position || commit.to <= commit.from {
            return Err(refused(format!("position is {:?}", catalog.manifest.position)));
        }
        catalog.make_live(commit.segments, commit.epoch)?;
        catalog.manifest.position = commit.to;
        catalog.manifest.version += 1;
        Ok(catalog.manifest.version)
    }

    fn replace(
        &self,
        remove: &[u64],
        add: Vec<SegmentMeta>,
        epoch: u64,
    ) -> Result<u64, TableError> {
        let mut catalog = self.0.lock();
        catalog.check(epoch)?;
        let live = |id: &u64| catalog.manifest.segments.iter().any(|segment| segment.id == *id);
        if !remove.iter().all(live) {
            return Err(refused("a segment to be replaced is not live"));
        }
        catalog.make_live(add, epoch)?;
        catalog.manifest.version += 1;
        let version = catalog.manifest.version;
        let (gone, live) = std::mem::take(&mut catalog.manifest.segments)
            .into_iter()
            .partition::<Vec<_>, _>(|segment| remove.contains(&segment.id));
        catalog.manifest.segments = live;
        catalog.retired.extend(gone.into_iter().map(|segment| {
            let retired = RetiredSegment {
                id: segment.id,
                table: segment.table,
                path: segment.path,
                version,
            };
            (segment.id, retired)
        }));
        Ok(version)
    }

    fn retire(&self, ids: &[u64], epoch: u64) -> Result<u64, TableError> {
        self.replace(ids, Vec::new(), epoch)
    }

    fn abandon(&self, ids: &[u64], epoch: u64) -> Result<(), TableError> {
        let mut catalog = self.0.lock();
        catalog.check(epoch)?;
        let version = catalog.manifest.version;
        for id in ids {
            let pending = catalog.pending.remove(id).ok_or_else(|| refused("not pending"))?;
            let PendingSegment { id, table, path, .. } = pending;
            catalog.retired.insert(id, RetiredSegment { id, table, path, version });
        }
        Ok(())
    }

    fn retired(&self) -> Result<Vec<RetiredSegment>, TableError> {
        Ok(self.0.lock().retired.values().cloned().collect())
    }

    fn orphans(&self) -> Result<Vec<PendingSegment>, TableError> {
        let catalog = self.0.lock();
        let dead = |file: &&PendingSegment| file.epoch != catalog.epoch;
        Ok(catalog.pending.values().filter(dead).cloned().collect())
    }

    fn forget(&self, ids: &[u64]) -> Result<(), TableError> {
        let mut catalog = self.0.lock();
        for id in ids {
            catalog.retired.remove(id);
            if catalog.pending.get(id).is_some_and(|file| file.epoch != catalog.epoch) {
                catalog.pending.remove(id);
            }
        }
        Ok(())
    }

    fn manifest(&self) -> Result<Manifest, TableError> {
        Ok(self.0.lock().manifest.clone())
    }
}
