//! [`Commits`] by the real catalog.

use crate::commits::Commits;
use crate::error::TableError;
use palisade_catalog::{
    BlockingCatalog, CatalogError, Commit, CommitError, Manifest, PendingSegment, RetiredSegment,
    SegmentMeta, segment_path,
};

impl From<CommitError> for TableError {
    fn from(error: CommitError) -> Self {
        Self::Catalog { class: error.class(), message: error.to_string() }
    }
}

impl From<CatalogError> for TableError {
    fn from(error: CatalogError) -> Self {
        Self::Catalog { class: error.class(), message: error.to_string() }
    }
}

impl Commits for BlockingCatalog {
    fn pending(
        &self,
        count: u32,
        table: &str,
        epoch: u64,
    ) -> Result<Vec<PendingSegment>, TableError> {
        let ids = self.pending_segments(count, table, epoch)?;
        let file = |id| PendingSegment {
            id,
            table: table.to_owned(),
            path: segment_path(table, id),
            epoch,
        };
        Ok(ids.into_iter().map(file).collect())
    }

    fn commit(&self, commit: Commit) -> Result<u64, TableError> {
        Ok(Self::commit(self, commit)?)
    }

    fn replace(
        &self,
        remove: &[u64],
        add: Vec<SegmentMeta>,
        epoch: u64,
    ) -> Result<u64, TableError> {
        Ok(Self::replace(self, remove, add, epoch)?)
    }

    fn retire(&self, ids: &[u64], epoch: u64) -> Result<u64, TableError> {
        Ok(Self::retire(self, ids, epoch)?)
    }

    fn abandon(&self, ids: &[u64], epoch: u64) -> Result<(), TableError> {
        Ok(self.wait(self.catalog().abandon(ids, epoch))?)
    }

    fn retired(&self) -> Result<Vec<RetiredSegment>, TableError> {
        Ok(self.wait(self.catalog().retired())?)
    }

    fn orphans(&self) -> Result<Vec<PendingSegment>, TableError> {
        Ok(self.wait(self.catalog().orphans())?)
    }

    fn forget(&self, ids: &[u64]) -> Result<(), TableError> {
        Ok(self.wait(self.catalog().forget(ids))?)
    }

    fn manifest(&self) -> Result<Manifest, TableError> {
        Ok(Self::manifest(self)?)
    }
}
