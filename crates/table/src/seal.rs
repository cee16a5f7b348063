//! Sealing: the rows of an interval of the log become segments, and are committed (M1).
//!
//! Order of events: files registered as pending, written and fsynced, their directories fsynced,
//! committed in the catalog, published to snapshots. Whatever instant the process dies at, the log
//! still has the rows or the catalog has the segments, and no file is taken for live that is not.

use crate::encode::Run;
use crate::encode::unit::{Layout, cut_runs, group_rows};
use crate::error::TableError;
use crate::memory::MemoryBatch;
use crate::order::sorted_runs;
use crate::segment::{SegmentWriter, Written, make_directory, sync_directory};
use crate::tables::{Change, Tables};
use arrow::array::RecordBatch;
use palisade_catalog::{Commit, PendingSegment, SegmentMeta};
use palisade_event::Offset;
use std::sync::Arc;

/// What a seal did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SealReport {
    /// The manifest version that shows it; 0 when there was nothing to do.
    pub version: u64,
    /// The interval.
    pub from: Offset,
    /// Its end, exclusive: the new committed position.
    pub to: Offset,
    /// Rows written, of all tables.
    pub rows: u64,
    /// Bytes written, indexes included.
    pub bytes: u64,
    /// Segments written.
    pub segments: usize,
}

impl Tables {
    /// Seals the rows of the entries from the committed position up to `to` (exclusive) into
    /// segments and commits them. One seal runs at a time; appends and queries go on meanwhile.
    ///
    /// On error nothing has changed for queries, and the call may be repeated: what was written is
    /// given up and deleted later.
    ///
    /// # Errors
    /// [`TableError::Protocol`] when `to` is not visible yet, [`TableError::Io`],
    /// [`TableError::Columns`], and the catalog's refusal.
    pub fn seal(&self, to: Offset, epoch: u64) -> Result<SealReport, TableError> {
        let _one = self.sealing.lock();
        let (from, tables) = self.rows_before(to)?;
        if to <= from {
            return Ok(SealReport { from, to: from, ..SealReport::default() });
        }
        let mut pending = Vec::new();
        let sealed = self.write_and_commit(from, to, epoch, &tables, &mut pending);
        if sealed.is_err() && !pending.is_empty() {
            // Best effort: what stays pending is an orphan once this epoch is dead.
            if let Err(error) = self.commits.abandon(&pending, epoch) {
                tracing::warn!(%error, "files of a failed seal stay until the next start");
            }
        }
        sealed
    }

    fn write_and_commit(
        &self,
        from: Offset,
        to: Offset,
        epoch: u64,
        tables: &[(String, Vec<Arc<MemoryBatch>>)],
        pending: &mut Vec<u64>,
    ) -> Result<SealReport, TableError> {
        let mut segments: Vec<SegmentMeta> = Vec::new();
        for (table, rows) in tables {
            let bytes: usize = rows.iter().map(|batch| batch.bytes).sum();
            let batches: Vec<RecordBatch> = rows.iter().map(|batch| batch.batch.clone()).collect();
            let runs = sorted_runs(table, &batches)?;
            let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
            let seal_rows = usize::try_from(self.options.seal_rows).unwrap_or(usize::MAX).max(1);
            let parts = cut_runs(&runs, even_parts(rows, seal_rows));
            let group = group_rows(bytes, rows);
            let layout = Layout::union(table, batches.iter().map(|batch| batch.schema_ref()))?;
            let files = self.commits.pending(parts.len() as u32, table, epoch)?;
            pending.extend(files.iter().map(|file| file.id));
            let directory = self.table_directory(table)?;
            for (file, runs) in files.iter().zip(&parts) {
                let written = self.write_segment(&layout, &batches, runs, group, file)?;
                segments.push(meta_of(file, written, from, to, 0));
            }
            sync_directory(&directory)?;
        }
        let mut report = SealReport { from, to, segments: segments.len(), ..SealReport::default() };
        report.rows = segments.iter().map(|segment| segment.rows).sum();
        report.bytes = segments.iter().map(|segment| segment.bytes).sum();
        let change = Change { add: segments, remove: Vec::new(), committed: Some(to) };
        report.version = self.publish(change, |segments| {
            let segments = segments.to_vec();
            self.commits.commit(Commit { partition: 0, from, to, epoch, segments })
        })?;
        pending.clear();
        Ok(report)
    }

    fn write_segment(
        &self,
        layout: &Layout,
        batches: &[RecordBatch],
        runs: &[Run],
        group: usize,
        file: &PendingSegment,
    ) -> Result<Written, TableError> {
        let rows: u64 = runs.iter().map(|run| u64::from(run.len)).sum();
        let path = self.dir.join(&file.path);
        let mut writer = SegmentWriter::create(&path, layout.clone(), rows)?;
        writer.write(batches, &cut_runs(runs, group))?;
        writer.finish()
    }

    /// The directory of a table's segments; made when it is not there.
    pub(crate) fn table_directory(&self, table: &str) -> Result<std::path::PathBuf, TableError> {
        let directory = self.dir.join("tables").join(table);
        make_directory(&directory)?;
        Ok(directory)
    }
}

/// Rows of each part, so that no part has more than `most` and all are about as long.
fn even_parts(rows: usize, most: usize) -> usize {
    rows.div_ceil(rows.div_ceil(most).max(1)).max(1)
}

pub(crate) fn meta_of(
    file: &PendingSegment,
    written: Written,
    from: Offset,
    to: Offset,
    level: u32,
) -> SegmentMeta {
    SegmentMeta {
        id: file.id,
        table: file.table.clone(),
        path: file.path.clone(),
        rows: written.rows,
        bytes: written.bytes,
        min_time: written.times.0,
        max_time: written.times.1,
        tenants: written.tenants,
        from,
        to,
        level,
        columns: written.columns,
        checksum: written.checksum,
    }
}
