//! The catalog for plain threads.

use crate::error::{CatalogError, CommitError};
use crate::open::{Catalog, OpenOptions};
use crate::types::{Checkpoint, Commit, Manifest, SegmentMeta};
use std::path::Path;
use std::sync::Arc;
use tokio::runtime::{Builder, Handle, Runtime};

/// A [`Catalog`] that threads without a runtime use. Cheap to clone.
///
/// Must not be called from inside an async task: that thread would wait for itself (tokio panics
/// there). Everything that has no method of its own here goes through [`BlockingCatalog::wait`].
#[derive(Debug, Clone)]
pub struct BlockingCatalog {
    catalog: Catalog,
    handle: Handle,
    /// Set when the runtime belongs to this catalog.
    _runtime: Option<Arc<Runtime>>,
}

impl Catalog {
    /// The same catalog for plain threads. `handle` is the multi-threaded runtime that drives it.
    #[must_use]
    pub fn blocking(&self, handle: Handle) -> BlockingCatalog {
        BlockingCatalog { catalog: self.clone(), handle, _runtime: None }
    }
}

impl BlockingCatalog {
    /// Opens a catalog with a small runtime of its own, for command line tools and tests.
    ///
    /// # Errors
    /// Those of [`Catalog::open`].
    pub fn open(path: &Path, options: OpenOptions) -> Result<Self, CatalogError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_time()
            .thread_name("catalog")
            .build()
            .map_err(|error| CatalogError::Storage(format!("no runtime: {error}")))?;
        let catalog = runtime.block_on(Catalog::open(path, options))?;
        let handle = runtime.handle().clone();
        Ok(Self { catalog, handle, _runtime: Some(Arc::new(runtime)) })
    }

    /// The async catalog.
    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Waits for any function of the catalog: `blocking.wait(blocking.catalog().tenants())`.
    pub fn wait<F: Future>(&self, future: F) -> F::Output {
        self.handle.block_on(future)
    }

    /// [`Catalog::pending_segments`].
    ///
    /// # Errors
    /// As there.
    pub fn pending_segments(
        &self,
        count: u32,
        table: &str,
        epoch: u64,
    ) -> Result<Vec<u64>, CommitError> {
        self.wait(self.catalog.pending_segments(count, table, epoch))
    }

    /// [`Catalog::commit`].
    ///
    /// # Errors
    /// As there.
    pub fn commit(&self, commit: Commit) -> Result<u64, CommitError> {
        self.wait(self.catalog.commit(commit))
    }

    /// [`Catalog::replace`].
    ///
    /// # Errors
    /// As there.
    pub fn replace(
        &self,
        remove: &[u64],
        add: Vec<SegmentMeta>,
        epoch: u64,
    ) -> Result<u64, CommitError> {
        self.wait(self.catalog.replace(remove, add, epoch))
    }

    /// [`Catalog::retire`].
    ///
    /// # Errors
    /// As there.
    pub fn retire(&self, ids: &[u64], epoch: u64) -> Result<u64, CommitError> {
        self.wait(self.catalog.retire(ids, epoch))
    }

    /// [`Catalog::manifest`].
    ///
    /// # Errors
    /// As there.
    pub fn manifest(&self) -> Result<Manifest, CatalogError> {
        self.wait(self.catalog.manifest())
    }

    /// [`Catalog::record_checkpoint`].
    ///
    /// # Errors
    /// As there.
    pub fn record_checkpoint(
        &self,
        checkpoint: Checkpoint,
        epoch: u64,
    ) -> Result<Vec<Checkpoint>, CommitError> {
        self.wait(self.catalog.record_checkpoint(checkpoint, epoch))
    }
}
