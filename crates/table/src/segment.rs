//! Writing one segment: a Parquet file and the entity index beside it.
//!
//! The Parquet file (version 1 of ours: the metadata key `palisade.segment` says `1`) has
//!
//! - all columns optional, core columns first, others by name; the Arrow schema under `ARROW:schema`;
//! - rows sorted by tenant, time, position, and declared so;
//! - row groups of 196,608 rows (fewer where rows are wide: about 64 MiB decoded), pages of 4,096
//!   (32,768 where a page would be smaller than its header; fewer where values are long);
//! - zstd level 1, page index, bloom filters on ids, users, hosts and addresses (not on ids whose pages
//!   hardly overlap, where the page index tells as much); the filter of `record_id` knows the ids too
//!   that derive from `event_id` and are not stored, and the metadata key `palisade.derived_ids` says so;
//! - times, positions and other integers delta-packed, texts that repeat and rounded scores with
//!   dictionaries, other texts with delta lengths or shared prefixes.

use crate::encode::chunk::Scratch;
use crate::encode::unit::{Facts, Layout, Target, Unit, indexed_columns};
use crate::encode::{PAGE_ROWS, Run};
use crate::error::TableError;
use crate::index::{EntityIndex, IndexBuilder};
use arrow::array::RecordBatch;
use palisade_catalog::SegmentColumn;
use palisade_event::schema::Core;
use parquet::arrow::arrow_writer::ArrowRowGroupWriterFactory;
use parquet::arrow::{ArrowSchemaConverter, add_encoded_arrow_schema_to_metadata};
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

/// The metadata key of our version of the file.
pub(crate) const VERSION_KEY: &str = "palisade.segment";
/// The version that this release writes.
pub(crate) const VERSION: &str = "1";
/// The metadata key, with the value `filtered`, of a file in which the filters of `record_id` know every
/// row's id, those too that derive from the sender's and are not stored.
pub(crate) const DERIVED_IDS_KEY: &str = "palisade.derived_ids";

/// What was written, for the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) rows: u64,
    /// Both files.
    pub(crate) bytes: u64,
    pub(crate) times: (i64, i64),
    pub(crate) tenants: Vec<String>,
    pub(crate) columns: Vec<SegmentColumn>,
    /// XXH3-64 of the Parquet file.
    pub(crate) checksum: u64,
}

/// A segment in the making. Dropped before [`SegmentWriter::finish`], it leaves files that nothing
/// refers to.
pub(crate) struct SegmentWriter {
    path: PathBuf,
    layout: Layout,
    file: SerializedFileWriter<Hashing>,
    target: Target,
}

impl SegmentWriter {
    pub(crate) fn create(path: &Path, layout: Layout, rows: u64) -> Result<Self, TableError> {
        let failed = |error: parquet::errors::ParquetError| {
            TableError::columns(&layout.table, format!("schema of {}: {error}", path.display()))
        };
        let schema = Arc::new(layout.schema(|_| false));
        let parquet = ArrowSchemaConverter::new().convert(&schema).map_err(failed)?;
        let sorting = [Core::Tenant, Core::Time, Core::Position].into_iter().filter_map(|core| {
            let at = layout.columns.iter().position(|(name, _)| name == core.name())?;
            Some(SortingColumn { column_idx: at as i32, descending: false, nulls_first: false })
        });
        let properties = WriterProperties::builder()
            .set_created_by("palisade".to_owned())
            .set_sorting_columns(Some(sorting.collect()))
            .set_data_page_row_count_limit(PAGE_ROWS)
            .set_compression(parquet::basic::Compression::ZSTD(
                parquet::basic::ZstdLevel::try_new(1).map_err(failed)?,
            ))
            .build();
        let out = Hashing {
            file: File::create_new(path).map_err(TableError::io("create", path))?,
            hash: Xxh3::new(),
            bytes: 0,
            unsynced: 0,
        };
        let file = SerializedFileWriter::new(out, parquet.root_schema_ptr(), Arc::new(properties))
            .map_err(failed)?;
        let nested = ArrowRowGroupWriterFactory::new(&file, Arc::clone(&schema));
        let index = IndexBuilder::new(rows, PAGE_ROWS as u32, &indexed_columns(&layout));
        let target = Target {
            schema: Arc::new(parquet),
            nested,
            scratch: Scratch::new().map_err(failed)?,
            index,
            facts: Facts::default(),
            rows: 0,
        };
        Ok(Self { path: path.to_owned(), layout, file, target })
    }

    /// Writes row groups of rows of these batches.
    pub(crate) fn write(
        &mut self,
        batches: &[RecordBatch],
        groups: &[Vec<Run>],
    ) -> Result<(), TableError> {
        let unit = Unit::new(&self.layout, batches);
        let encoded = unit.encode(0..self.layout.columns.len(), groups, &mut self.target)?;
        for (chunks, runs) in encoded.into_iter().zip(groups) {
            let write = || {
                let mut group = self.file.next_row_group()?;
                for chunk in chunks {
                    chunk.append_to(&mut group)?;
                }
                group.close()
            };
            write().map_err(|error| refused(&self.path, &self.layout.table, error))?;
            self.target.rows += runs.iter().map(|run| u64::from(run.len)).sum::<u64>();
        }
        Ok(())
    }

    /// Writes one row group of which not all columns are in memory at a time. `read` is asked for the
    /// columns from an index on, and gives the index after the last one read and the batches that the
    /// runs are of; columns that a batch does not have are null there.
    pub(crate) fn write_by_columns(
        &mut self,
        runs: Vec<Run>,
        mut read: impl FnMut(usize) -> Result<(usize, Vec<RecordBatch>), TableError>,
    ) -> Result<(), TableError> {
        let Self { path, layout, file, target } = self;
        let failed = |error| refused(path, &layout.table, error);
        let rows = runs.iter().map(|run| u64::from(run.len)).sum::<u64>();
        let groups = [runs];
        let mut group = file.next_row_group().map_err(failed)?;
        let mut column = 0;
        while column < layout.columns.len() {
            let (end, batches) = read(column)?;
            let end = end.max(column + 1);
            let encoded = Unit::new(layout, &batches).encode(column..end, &groups, target)?;
            for chunk in encoded.into_iter().flatten() {
                chunk.append_to(&mut group).map_err(failed)?;
            }
            column = end;
        }
        group.close().map_err(failed)?;
        target.rows += rows;
        Ok(())
    }

    /// Ends both files and fsyncs them; the directory is the caller's to fsync.
    pub(crate) fn finish(mut self) -> Result<Written, TableError> {
        let encoded = std::mem::take(&mut self.target.facts.encoded);
        let schema = self.layout.schema(|column| encoded.get(column) == Some(&true));
        let mut properties = WriterProperties::builder().build();
        add_encoded_arrow_schema_to_metadata(&schema, &mut properties);
        for pair in properties.key_value_metadata().into_iter().flatten() {
            self.file.append_key_value_metadata(pair.clone());
        }
        self.file
            .append_key_value_metadata(KeyValue::new(VERSION_KEY.to_owned(), VERSION.to_owned()));
        if self.layout.filters_derived_ids() {
            let filtered = KeyValue::new(DERIVED_IDS_KEY.to_owned(), "filtered".to_owned());
            self.file.append_key_value_metadata(filtered);
        }
        let Self { path, layout, file, target } = self;
        let Target { index, facts, rows, .. } = target;
        let out = file.into_inner().map_err(|error| refused(&path, &layout.table, error))?;
        out.file.sync_all().map_err(TableError::io("fsync", &path))?;
        let index_path = EntityIndex::path_of(&path);
        let index = index.finish(rows);
        let mut index_file =
            File::create_new(&index_path).map_err(TableError::io("create", &index_path))?;
        index_file.write_all(&index).map_err(TableError::io("write", &index_path))?;
        index_file.sync_all().map_err(TableError::io("fsync", &index_path))?;
        let columns = layout
            .columns
            .iter()
            .map(|(name, kind)| SegmentColumn { name: name.clone(), kind: kind.name().to_owned() });
        Ok(Written {
            rows,
            bytes: out.bytes + index.len() as u64,
            times: facts.times.unwrap_or((0, 0)),
            tenants: facts.tenants.into_iter().collect(),
            columns: columns.collect(),
            checksum: out.hash.digest(),
        })
    }
}

/// The disk's refusal, or what the Parquet library found wrong.
fn refused(path: &Path, table: &str, error: parquet::errors::ParquetError) -> TableError {
    let message = error.to_string();
    match error {
        parquet::errors::ParquetError::External(inner) => {
            match inner.downcast::<std::io::Error>() {
                Ok(source) => TableError::io("write", path)(*source),
                Err(_) => TableError::columns(table, message),
            }
        }
        _ => TableError::columns(table, message),
    }
}

/// A file is synced whenever so much was written. Where the log is on the same file system, its syncs
/// wait for what others have begun to sync: of a whole segment, a tenth of a second.
const SYNC_EVERY: usize = 2 << 20;

/// A file whose bytes are hashed on their way.
struct Hashing {
    file: File,
    hash: Xxh3,
    bytes: u64,
    /// Bytes since the last sync.
    unsynced: usize,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(bytes.get(..written).unwrap_or_default());
        self.bytes += written as u64;
        self.unsynced += written;
        if self.unsynced >= SYNC_EVERY {
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// Makes a directory and fsyncs what names it.
pub(crate) fn make_directory(path: &Path) -> Result<(), TableError> {
    if path.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(path).map_err(TableError::io("create", path))?;
    for parent in path.ancestors().skip(1).take(2) {
        sync_directory(parent)?;
    }
    Ok(())
}

/// Fsyncs a directory, so that the names of its files are durable.
pub(crate) fn sync_directory(path: &Path) -> Result<(), TableError> {
    let directory = File::open(path).map_err(TableError::io("open", path))?;
    directory.sync_all().map_err(TableError::io("fsync", path))
}
