//! `palisade table verify`: reads every byte of every live segment and checks what the catalog and
//! the format promise.

use crate::error::TableError;
use crate::index::EntityIndex;
use crate::open::check_size;
use crate::order::KeyColumns;
use arrow::array::RecordBatch;
use palisade_catalog::{Manifest, SegmentMeta};
use palisade_event::column::Text;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use xxhash_rust::xxh3::Xxh3;

/// How one segment's check came out.
#[derive(Debug)]
pub struct VerifiedSegment {
    /// The segment's id.
    pub id: u64,
    /// Its table.
    pub table: String,
    /// Its path, relative to the data directory.
    pub path: String,
    /// What is wrong; `None` when all is right.
    pub error: Option<TableError>,
}

/// Checks every live segment: presence, length, checksum, decoding of every row, row count, range of
/// times, tenants, order, and the entity index against the rows. `progress` is called after each
/// segment with the number done.
pub fn verify(
    dir: &Path,
    manifest: &Manifest,
    mut progress: impl FnMut(usize),
) -> Vec<VerifiedSegment> {
    let mut checked = Vec::with_capacity(manifest.segments.len());
    for (done, segment) in manifest.segments.iter().enumerate() {
        checked.push(VerifiedSegment {
            id: segment.id,
            table: segment.table.clone(),
            path: segment.path.clone(),
            error: verify_segment(dir, segment).err(),
        });
        progress(done + 1);
    }
    checked
}

/// Checks one segment; the first thing that is wrong.
///
/// # Errors
/// [`TableError::Missing`], [`TableError::Damaged`] or [`TableError::Io`].
pub fn verify_segment(dir: &Path, segment: &SegmentMeta) -> Result<(), TableError> {
    check_size(dir, segment)?;
    let path = dir.join(&segment.path);
    let damaged = |reason: String| TableError::damaged(&path, reason);
    let sum = checksum(&path)?;
    if sum != segment.checksum {
        return Err(damaged(format!("its checksum is {sum:016x}, not {:016x}", segment.checksum)));
    }
    let index = EntityIndex::open(&EntityIndex::path_of(&path))?;
    index.verify()?;
    if index.rows() != segment.rows {
        return Err(damaged(format!("its index is of {} rows", index.rows())));
    }
    let file = File::open(&path).map_err(TableError::io("open", &path))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .and_then(ParquetRecordBatchReaderBuilder::build)
        .map_err(|error| damaged(error.to_string()))?;
    let mut rows = Rows::default();
    for batch in reader {
        let batch = batch.map_err(|error| damaged(error.to_string()))?;
        rows.see(&segment.table, &batch, &index).map_err(&damaged)?;
    }
    if rows.count != segment.rows {
        return Err(damaged(format!(
            "it has {} rows, the catalog says {}",
            rows.count, segment.rows
        )));
    }
    let times = rows.times.unwrap_or((0, 0));
    if times != (segment.min_time, segment.max_time) {
        return Err(damaged(format!("its times are {times:?}, which the catalog does not say")));
    }
    if !rows.tenants.iter().eq(segment.tenants.iter()) {
        return Err(damaged("its tenants are not those of the catalog".to_owned()));
    }
    Ok(())
}

fn checksum(path: &Path) -> Result<u64, TableError> {
    let mut file = File::open(path).map_err(TableError::io("open", path))?;
    let mut hash = Xxh3::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).map_err(TableError::io("read", path))?;
        if read == 0 {
            return Ok(hash.digest());
        }
        hash.update(buffer.get(..read).unwrap_or_default());
    }
}

/// What the rows so far were like.
#[derive(Default)]
struct Rows {
    count: u64,
    times: Option<(i64, i64)>,
    tenants: BTreeSet<String>,
    last: Option<(String, i64, u64)>,
}

impl Rows {
    fn see(&mut self, table: &str, batch: &RecordBatch, index: &EntityIndex) -> Result<(), String> {
        let keys = KeyColumns::of(table, batch).map_err(|error| error.to_string())?;
        let tenants = Text::of(&keys.tenants).ok_or("column tenant is no text")?;
        for row in 0..batch.num_rows() {
            let tenant = tenants.get(row).ok_or("a row has no tenant")?;
            let time = keys.times().get(row).copied().ok_or("a row has no time")?;
            let position = keys.positions().get(row).copied().unwrap_or(0);
            if let Some((last_tenant, last_time, last_position)) = &mut self.last {
                if (last_tenant.as_str(), *last_time, *last_position) > (tenant, time, position) {
                    return Err(format!("row {} is out of order", self.count + row as u64));
                }
                if last_tenant != tenant {
                    tenant.clone_into(last_tenant);
                    self.tenants.insert(tenant.to_owned());
                }
                (*last_time, *last_position) = (time, position);
            } else {
                self.tenants.insert(tenant.to_owned());
                self.last = Some((tenant.to_owned(), time, position));
            }
            let (min, max) = self.times.unwrap_or((time, time));
            self.times = Some((min.min(time), max.max(time)));
        }
        self.see_index(batch, index)?;
        self.count += batch.num_rows() as u64;
        Ok(())
    }

    /// A sample of the batch's values must be found by the index.
    fn see_index(&self, batch: &RecordBatch, index: &EntityIndex) -> Result<(), String> {
        for (name, _) in index.columns() {
            let Some(text) = Text::in_batch(batch, name) else { continue };
            for row in (0..batch.num_rows()).step_by(997) {
                let Some(value) = text.get(row) else { continue };
                let place = self.count + row as u64;
                let found = index.lookup(name, value).map_err(|error| error.to_string())?;
                if !found.unwrap_or_default().iter().any(|range| range.contains(&place)) {
                    return Err(format!("its index does not lead to row {place} by {name}"));
                }
            }
        }
        Ok(())
    }
}
