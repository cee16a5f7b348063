//! Keeping segments in shape: deleting what is retired, dropping what is too old, merging.

use crate::compact::CompactionPolicy;
use crate::error::TableError;
use crate::index::EntityIndex;
use crate::merge::{Merged, merge};
use crate::retention::{Cutoffs, Expiry};
use crate::seal::meta_of;
use crate::segment::sync_directory;
use crate::snapshot::SegmentFile;
use crate::tables::{Change, Tables};
use palisade_catalog::SegmentMeta;
use palisade_event::Offset;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// What maintenance remembers between its steps.
#[derive(Debug, Default)]
pub(crate) struct MaintenanceState {
    /// When a retired file was first seen as such, by the caller's clock.
    retired_since: BTreeMap<u64, i64>,
    /// Segments that were looked at row by row and had nothing worth dropping, with the time then.
    not_worth: BTreeMap<u64, i64>,
    /// Segments that can't be read; they are left alone until the process starts again.
    unreadable: BTreeSet<u64>,
}

/// What a maintenance step did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MaintenanceReport {
    /// Files deleted (a segment and its index count as one).
    pub deleted: usize,
    /// Segments taken out of the manifest because all their rows were too old.
    pub dropped: usize,
    /// Segments merged or rewritten.
    pub merged: usize,
    /// Rows written by that.
    pub merged_rows: u64,
    /// Bytes written by that.
    pub merged_bytes: u64,
    /// Rows left out because they were too old.
    pub expired_rows: u64,
    /// Whether another step would find work at once.
    pub more: bool,
}

/// A merge or rewrite to be done.
struct Job {
    table: String,
    inputs: Vec<Arc<SegmentFile>>,
    cutoffs: Cutoffs,
}

impl Tables {
    /// One bounded step of maintenance: deletes files whose time has come, retires segments that are
    /// too old, and does at most one merge. `now` is the caller's clock in microseconds. The caller
    /// repeats it, at once while `more` is set.
    ///
    /// # Errors
    /// [`TableError::Io`] and the catalog's refusals. A segment that can't be read is reported
    /// ([`TableError::Missing`], [`TableError::Damaged`]) once and left alone from then on.
    pub fn maintain(&self, now: i64, epoch: u64) -> Result<MaintenanceReport, TableError> {
        let mut state = self.maintaining.lock();
        let mut report = MaintenanceReport::default();
        self.delete_retired(now, &mut state, &mut report)?;
        self.drop_expired(now, epoch, &mut report)?;
        if let Some(job) = self.next_job(now, &state) {
            let done = self.run_job(&job, now, epoch, &mut state, &mut report);
            if let Err(TableError::Missing { path } | TableError::Damaged { path, .. }) = &done {
                let is_bad = |input: &&Arc<SegmentFile>| input.path == *path;
                state.unreadable.extend(job.inputs.iter().filter(is_bad).map(|i| i.meta.id));
            }
            done?;
            report.more = !self.is_stopping() && self.next_job(now, &state).is_some();
        }
        Ok(report)
    }

    /// Second phase of deletion (M1): files that no snapshot uses and whose grace is over.
    fn delete_retired(
        &self,
        now: i64,
        state: &mut MaintenanceState,
        report: &mut MaintenanceReport,
    ) -> Result<(), TableError> {
        let retired = self.commits.retired()?;
        let mut since = std::mem::take(&mut state.retired_since);
        let mut gone: Vec<u64> = Vec::new();
        let mut directories: BTreeSet<&Path> = BTreeSet::new();
        let paths: Vec<_> = retired.iter().map(|file| self.dir.join(&file.path)).collect();
        for (file, path) in retired.iter().zip(&paths) {
            let first = since.remove(&file.id).unwrap_or(now);
            if now.saturating_sub(first) < self.options.grace_micros || self.is_in_use(file.id) {
                state.retired_since.insert(file.id, first);
                continue;
            }
            delete_segment(path)?;
            directories.extend(path.parent());
            gone.push(file.id);
        }
        for directory in directories.into_iter().filter(|directory| directory.is_dir()) {
            sync_directory(directory)?;
        }
        if !gone.is_empty() {
            self.commits.forget(&gone)?;
        }
        report.deleted = gone.len();
        Ok(())
    }

    /// Retires the segments of which every row is too old.
    fn drop_expired(
        &self,
        now: i64,
        epoch: u64,
        report: &mut MaintenanceReport,
    ) -> Result<(), TableError> {
        let retention = self.retention();
        if retention.is_empty() {
            return Ok(());
        }
        let mut expired: Vec<u64> = Vec::new();
        for segment in self.list() {
            let cutoffs = Cutoffs::of(&retention, &segment.meta.table, now);
            if cutoffs.judge(&segment.meta) == Expiry::Drop {
                expired.push(segment.meta.id);
            }
        }
        if expired.is_empty() {
            return Ok(());
        }
        report.dropped = expired.len();
        let change = Change { remove: expired.clone(), ..Change::default() };
        self.publish(change, |_| self.commits.retire(&expired, epoch)).map(drop)
    }

    /// The next merge, or the next rewrite for retention.
    fn next_job(&self, now: i64, state: &MaintenanceState) -> Option<Job> {
        let retention = self.retention();
        for table in self.names() {
            let cutoffs = Cutoffs::of(&retention, &table, now);
            let mut segments: Vec<Arc<SegmentFile>> =
                self.list().into_iter().filter(|segment| segment.meta.table == table).collect();
            segments.sort_by_key(|segment| (segment.meta.from, segment.meta.to, segment.meta.id));
            let readable = |id: u64| !state.unreadable.contains(&id);
            // What can't be read parts its neighbours: a merge across it would hide which rows are
            // missing.
            for part in segments.split(|segment| !readable(segment.meta.id)) {
                let policy: &CompactionPolicy = &self.options.compaction;
                let metas: Vec<&SegmentMeta> = part.iter().map(|segment| &segment.meta).collect();
                if let Some(chosen) = policy.choose(&metas) {
                    let inputs = chosen.iter().filter_map(|at| part.get(*at).cloned()).collect();
                    return Some(Job { table, inputs, cutoffs });
                }
                let worth = |segment: &&Arc<SegmentFile>| {
                    let meta = &segment.meta;
                    // Looked at again once another tenth of the file's time has passed.
                    let tenth = meta.max_time.saturating_sub(meta.min_time) / 10;
                    let known = state.not_worth.get(&meta.id);
                    cutoffs.judge(meta) == Expiry::Rewrite
                        && known.is_none_or(|seen| now.saturating_sub(*seen) > tenth)
                };
                if let Some(segment) = part.iter().find(worth) {
                    return Some(Job { table, inputs: vec![Arc::clone(segment)], cutoffs });
                }
            }
        }
        None
    }

    fn run_job(
        &self,
        job: &Job,
        now: i64,
        epoch: u64,
        state: &mut MaintenanceState,
        report: &mut MaintenanceReport,
    ) -> Result<(), TableError> {
        let directory = self.table_directory(&job.table)?;
        let pending = self.commits.pending(1, &job.table, epoch)?;
        let Some(file) = pending.first() else {
            return Err(TableError::Protocol("the catalog gave no file".to_owned()));
        };
        let memory = self.options.compaction.memory_bytes;
        let merged = merge(
            &job.inputs,
            &job.table,
            &self.dir.join(&file.path),
            &job.cutoffs,
            memory,
            || self.is_stopping(),
        );
        let done = merged.and_then(|merged| {
            sync_directory(&directory)?;
            let remove: Vec<u64> = job.inputs.iter().map(|input| input.meta.id).collect();
            let mut change = Change { remove: remove.clone(), ..Change::default() };
            match merged {
                Merged::Stopped => {
                    return self.commits.abandon(&[file.id], epoch);
                }
                Merged::Empty(expired) => {
                    self.commits.abandon(&[file.id], epoch)?;
                    report.expired_rows = expired;
                }
                Merged::Written(_, 0) if remove.len() == 1 => {
                    // Nothing was too old after all: the file stays as it is.
                    state.not_worth.extend(remove.iter().map(|id| (*id, now)));
                    return self.commits.abandon(&[file.id], epoch);
                }
                Merged::Written(written, expired) => {
                    report.merged_rows = written.rows;
                    report.merged_bytes = written.bytes;
                    report.expired_rows = expired;
                    let metas = || job.inputs.iter().map(|input| &input.meta);
                    let from = metas().map(|meta| meta.from).min().unwrap_or(Offset(0));
                    let to = metas().map(|meta| meta.to).max().unwrap_or(Offset(0));
                    let level = metas().map(|meta| meta.level).max().unwrap_or(0) + 1;
                    let meta = meta_of(file, written, from, to, level);
                    if remove.len() == 1 {
                        state.not_worth.insert(meta.id, now);
                    }
                    change.add.push(meta);
                }
            }
            report.merged = remove.len();
            self.publish(change, |add| match add {
                [] => self.commits.retire(&remove, epoch),
                add => self.commits.replace(&remove, add.to_vec(), epoch),
            })
            .map(drop)
        });
        if let Err(error) = &done {
            tracing::warn!(%error, table = job.table, "merging segments failed");
            // Best effort: what stays pending is an orphan once this epoch is dead.
            let _ = self.commits.abandon(&[file.id], epoch);
        }
        done
    }
}

/// Deletes a segment's file and its index; files that are gone already are fine.
pub(crate) fn delete_segment(path: &Path) -> Result<(), TableError> {
    let index = EntityIndex::path_of(path);
    for path in [index.as_path(), path] {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(TableError::io("delete", path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}
