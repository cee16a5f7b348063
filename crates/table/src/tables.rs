//! All tables of a data directory: what is in memory, what is in segments, and what a query sees.
//!
//! One lock guards the lists of batches and segments; it is held for handing lists over, never for
//! reading or writing files. A second one orders changes of the manifest, so that what queries see
//! has the version that the catalog gave.

use crate::commits::Commits;
use crate::compact::CompactionPolicy;
use crate::error::TableError;
use crate::memory::{Flat, MemoryBatch, MemoryList};
use crate::retention::RetentionRule;
use crate::snapshot::{SegmentFile, Snapshot};
use arrow::array::RecordBatch;
use palisade_catalog::SegmentMeta;
use palisade_event::Offset;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

/// How tables are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableOptions {
    /// The most rows of a segment as sealed.
    pub seal_rows: u64,
    /// When segments are merged.
    pub compaction: CompactionPolicy,
    /// How long rows are kept; no rule means for ever.
    pub retention: Vec<RetentionRule>,
    /// How long a retired file stays after this process saw it retired, in microseconds: longer than
    /// any lease (M1).
    pub grace_micros: i64,
}

impl Default for TableOptions {
    /// 2 Mi rows a sealed segment, no retention, a minute of grace.
    fn default() -> Self {
        Self {
            seal_rows: 1 << 21,
            compaction: CompactionPolicy::default(),
            retention: Vec::new(),
            grace_micros: 60_000_000,
        }
    }
}

/// The tables of one data directory. Shared by the pipeline's finisher, its committer, the
/// maintenance thread and queries; all methods take `&self` and block.
#[derive(Debug)]
pub struct Tables {
    pub(crate) dir: PathBuf,
    pub(crate) commits: Arc<dyn Commits>,
    pub(crate) options: TableOptions,
    /// How long rows are kept now.
    retention: Mutex<Arc<Vec<RetentionRule>>>,
    state: Mutex<State>,
    /// Held while the catalog's manifest and ours change together.
    manifest: Mutex<()>,
    /// Held by the one seal that runs.
    pub(crate) sealing: Mutex<()>,
    /// Held by the one maintenance step that runs.
    pub(crate) maintaining: Mutex<crate::maintain::MaintenanceState>,
    stopping: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    version: u64,
    committed: Offset,
    visible: Offset,
    tables: BTreeMap<String, TableState>,
    /// Handles of files that some snapshot may use.
    files: BTreeMap<u64, Weak<SegmentFile>>,
}

#[derive(Debug, Default)]
struct TableState {
    segments: Arc<Vec<Arc<SegmentFile>>>,
    memory: MemoryList,
    /// Grows with every change of what snapshots show of the memory.
    generation: u64,
    flat: Arc<Flat>,
}

/// The rows that no segment holds yet (M4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Uncommitted {
    /// Rows of all tables.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The committed position.
    pub committed: Offset,
    /// All rows of entries below it are visible.
    pub visible: Offset,
    /// The entry of the oldest row in memory: how old it is, its clock tells.
    pub oldest: Option<Offset>,
}

/// A change of the live segments.
#[derive(Debug, Default)]
pub(crate) struct Change {
    pub(crate) add: Vec<SegmentMeta>,
    pub(crate) remove: Vec<u64>,
    /// The committed position moves here.
    pub(crate) committed: Option<Offset>,
}

impl Tables {
    pub(crate) fn new(dir: &Path, commits: Arc<dyn Commits>, options: TableOptions) -> Self {
        Self {
            dir: dir.to_owned(),
            commits,
            retention: Mutex::new(Arc::new(options.retention.clone())),
            options,
            state: Mutex::default(),
            manifest: Mutex::default(),
            sealing: Mutex::default(),
            maintaining: Mutex::default(),
            stopping: AtomicBool::new(false),
        }
    }

    /// Keeps rows for other times from the next maintenance step on.
    pub fn set_retention(&self, rules: Vec<RetentionRule>) {
        *self.retention.lock() = Arc::new(rules);
    }

    pub(crate) fn retention(&self) -> Arc<Vec<RetentionRule>> {
        Arc::clone(&self.retention.lock())
    }

    /// Appends the rows that an entry of the log has in a table. Called in the order of offsets; the
    /// rows are seen once [`Tables::advance`] has passed the entry.
    ///
    /// # Errors
    /// [`TableError::Protocol`] when the entry is visible already or comes after a later one.
    pub fn append(
        &self,
        table: &str,
        offset: Offset,
        batch: RecordBatch,
    ) -> Result<(), TableError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let mut state = self.state.lock();
        if offset < state.visible {
            let message = format!("rows of entry {} come after it became visible", offset.0);
            return Err(TableError::Protocol(message));
        }
        if !state.tables.contains_key(table) {
            state.tables.insert(table.to_owned(), TableState::default());
        }
        if let Some(table) = state.tables.get_mut(table) {
            table.memory.push(offset, batch);
            table.generation += 1;
        }
        Ok(())
    }

    /// Makes the rows of all entries below `visible` visible, of all tables at once. Positions that
    /// are visible already change nothing.
    pub fn advance(&self, visible: Offset) {
        let mut state = self.state.lock();
        if visible > state.visible {
            state.visible = visible;
            for table in state.tables.values_mut() {
                table.generation += 1;
            }
        }
    }

    /// What a query sees of a table (M3). A table without rows is empty, not an error.
    #[must_use]
    pub fn snapshot(&self, table: &str) -> Snapshot {
        let mut snapshots = self.snapshots(&[table]);
        snapshots.pop().unwrap_or_else(|| Snapshot::empty(table))
    }

    /// What a query sees of several tables at the same instant, in the order asked for.
    #[must_use]
    pub fn snapshots(&self, tables: &[&str]) -> Vec<Snapshot> {
        let parts: Vec<_> = {
            let state = self.state.lock();
            let part = |name: &&str| {
                let mut snapshot = Snapshot::empty(name);
                snapshot.version = state.version;
                snapshot.committed = state.committed;
                snapshot.visible = state.visible;
                let memory = state.tables.get(*name).map(|table| {
                    snapshot.segments = Arc::clone(&table.segments);
                    (table.generation, table.memory.clone(), Arc::clone(&table.flat))
                });
                (snapshot, memory)
            };
            tables.iter().map(part).collect()
        };
        let fill = |(mut snapshot, memory): (Snapshot, Option<(u64, MemoryList, Arc<Flat>)>)| {
            if let Some((generation, list, flat)) = memory {
                snapshot.memory = flat.get(generation, &list, snapshot.visible);
            }
            snapshot
        };
        parts.into_iter().map(fill).collect()
    }

    /// The names of the tables that have rows, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.state.lock().tables.keys().cloned().collect()
    }

    /// How much is in memory only, and up to where it is visible.
    #[must_use]
    pub fn uncommitted(&self) -> Uncommitted {
        let state = self.state.lock();
        let mut sum = Uncommitted {
            committed: state.committed,
            visible: state.visible,
            ..Uncommitted::default()
        };
        for table in state.tables.values() {
            sum.rows += table.memory.rows;
            sum.bytes += table.memory.bytes;
            let first = table.memory.iter().next().map(|batch| batch.offset);
            sum.oldest = match (sum.oldest, first) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        sum
    }

    /// All live segments of all tables, by table, then by least time: `palisade table list`.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<SegmentFile>> {
        let state = self.state.lock();
        state.tables.values().flat_map(|table| table.segments.iter().cloned()).collect()
    }

    /// Asks a running maintenance step to give up soon, for a quick shutdown.
    pub fn stop_maintenance(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// The batches of entries in `[committed, to)` by table, and the committed position.
    #[expect(clippy::type_complexity, reason = "a pair for one caller")]
    pub(crate) fn rows_before(
        &self,
        to: Offset,
    ) -> Result<(Offset, Vec<(String, Vec<Arc<MemoryBatch>>)>), TableError> {
        let state = self.state.lock();
        if to > state.visible {
            return Err(TableError::Protocol(format!(
                "a seal up to {} goes beyond what is visible, {}",
                to.0, state.visible.0
            )));
        }
        let tables = state.tables.iter().map(|(name, table)| {
            let rows = table.memory.iter().take_while(|batch| batch.offset < to);
            (name.clone(), rows.cloned().collect::<Vec<_>>())
        });
        Ok((state.committed, tables.filter(|(_, rows)| !rows.is_empty()).collect()))
    }

    /// Makes a change in the catalog and, when it is durable there, for snapshots: rows leave the
    /// memory in the same instant in which their segments appear.
    pub(crate) fn publish(
        &self,
        change: Change,
        in_catalog: impl FnOnce(&[SegmentMeta]) -> Result<u64, TableError>,
    ) -> Result<u64, TableError> {
        let _order = self.manifest.lock();
        let version = in_catalog(&change.add)?;
        let files: Vec<Arc<SegmentFile>> =
            change.add.into_iter().map(|meta| Arc::new(self.file_of(meta))).collect();
        let mut state = self.state.lock();
        let State { tables, files: known, .. } = &mut *state;
        for file in &files {
            known.insert(file.meta.id, Arc::downgrade(file));
            tables.entry(file.meta.table.clone()).or_default();
        }
        for (name, table) in tables.iter_mut() {
            let added = files.iter().filter(|file| file.meta.table == *name);
            let gone = |file: &Arc<SegmentFile>| change.remove.contains(&file.meta.id);
            if added.clone().next().is_some() || table.segments.iter().any(gone) {
                let mut segments: Vec<Arc<SegmentFile>> =
                    table.segments.iter().filter(|file| !gone(file)).cloned().collect();
                segments.extend(added.cloned());
                segments.sort_by_key(|file| (file.meta.min_time, file.meta.id));
                table.segments = Arc::new(segments);
            }
            if let Some(committed) = change.committed {
                table.memory.drop_before(committed);
                table.generation += 1;
            }
        }
        state.version = version;
        if let Some(committed) = change.committed {
            state.committed = committed;
            state.visible = state.visible.max(committed);
        }
        Ok(version)
    }

    /// Whether some snapshot may still use a file; forgets handles that are gone.
    pub(crate) fn is_in_use(&self, id: u64) -> bool {
        let mut state = self.state.lock();
        let used = state.files.get(&id).is_some_and(|file| file.strong_count() > 0);
        if !used {
            state.files.remove(&id);
        }
        used
    }

    pub(crate) fn file_of(&self, meta: SegmentMeta) -> SegmentFile {
        SegmentFile { path: self.dir.join(&meta.path), meta }
    }

    /// Takes over what the catalog says is live, at open.
    pub(crate) fn load(&self, version: u64, position: Offset, segments: Vec<SegmentMeta>) {
        let mut state = self.state.lock();
        state.version = version;
        state.committed = position;
        state.visible = position;
        let mut tables: BTreeMap<String, Vec<Arc<SegmentFile>>> = BTreeMap::new();
        for meta in segments {
            let file = Arc::new(self.file_of(meta));
            state.files.insert(file.meta.id, Arc::downgrade(&file));
            tables.entry(file.meta.table.clone()).or_default().push(file);
        }
        for (name, mut segments) in tables {
            segments.sort_by_key(|file| (file.meta.min_time, file.meta.id));
            state.tables.entry(name).or_default().segments = Arc::new(segments);
        }
    }
}
