//! Reading segment files: footers with their page indexes, kept in a bounded cache, and byte ranges.
//!
//! Files are read by path with positioned reads; no object store is involved. Text columns are read as
//! `Utf8View` whatever the writer's Arrow type was: the Arrow schema in the footer is replaced by one
//! that says so when the footer enters the cache. A file that is missing or damaged gives a
//! [`ReadError`] that names it.

use super::adapt::{CONSTANT_KEY, EMPTY_KEY};
use super::schema::query_type;
use super::tenants::TenantRows;
use crate::index::INDEXED;
use crate::segment::DERIVED_IDS_KEY;
use crate::{EntityIndex, SegmentFile, TableError};
use arrow::datatypes::{Field, Schema, SchemaRef};
use bytes::Bytes;
use datafusion::common::DataFusionError;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::ParquetFileReaderFactory;
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder};
use futures::FutureExt;
use futures::future::BoxFuture;
use hashbrown::HashMap;
use palisade_event::ErrorClass;
use palisade_event::schema::Core;
use parking_lot::Mutex;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::arrow::{
    ARROW_SCHEMA_META_KEY, encode_arrow_schema, parquet_column, parquet_to_arrow_schema,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    FileMetaData, KeyValue, PageIndexPolicy, ParquetMetaData, ParquetMetaDataBuilder,
    ParquetMetaDataReader,
};
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// Why a segment could not be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The catalog names a file that is not there.
    #[error("segment file {0} is missing: restore it from a backup or run `palisade table verify`")]
    Missing(PathBuf),
    /// The file is there and is not what was written.
    #[error("segment file {path} is damaged ({reason}): run `palisade table verify`")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The operating system would not read it.
    #[error("segment file {path} cannot be read ({reason}): check permissions and the disk")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        reason: String,
    },
}

impl ReadError {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Missing(_) | Self::Damaged { .. } => ErrorClass::Permanent,
            Self::Unreadable { .. } => ErrorClass::Transient,
        }
    }

    pub(super) fn from_io(path: &Path, error: &std::io::Error) -> Self {
        let path = path.to_owned();
        match error.kind() {
            std::io::ErrorKind::NotFound => Self::Missing(path),
            std::io::ErrorKind::UnexpectedEof => {
                Self::Damaged { path, reason: "it is shorter than it was".to_owned() }
            }
            _ => Self::Unreadable { path, reason: error.to_string() },
        }
    }

    /// The read error that a query failed with, if it was one.
    #[must_use]
    pub fn of<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref::<Self>() {
                return Some(found);
            }
            next = match error.downcast_ref::<ParquetError>() {
                Some(ParquetError::External(inner)) => Some(inner.as_ref()),
                _ => error.source(),
            };
        }
        None
    }
}

impl From<ReadError> for DataFusionError {
    fn from(error: ReadError) -> Self {
        Self::External(Box::new(error))
    }
}

/// What is kept of a segment file between queries.
#[derive(Debug)]
pub(super) struct Footer {
    /// The footer with its page index and the schema as queries read it.
    pub(super) metadata: Arc<ParquetMetaData>,
    /// The file's columns as queries read them.
    pub(super) schema: SchemaRef,
    /// Whether the filters of `record_id` know the ids too that derive from the senders'.
    pub(super) derived_ids: bool,
    /// Which rows are whose, once asked for.
    pub(super) tenants: OnceLock<Arc<TenantRows>>,
    /// The entity index, once asked for.
    index: OnceLock<Option<EntityIndex>>,
    bytes: usize,
}

impl Footer {
    /// Whether any row may have fields in `overflow`.
    pub(super) fn has_overflow(&self) -> bool {
        let overflow = self.schema.field_with_name(Core::Overflow.name());
        overflow.is_ok_and(|field| !field.metadata().contains_key(EMPTY_KEY))
    }

    /// The rows that may hold one of these values in a column, by the entity index; `None` when the
    /// column is not indexed or the index cannot be used.
    pub(super) fn indexed_rows(
        &self,
        segment: &SegmentFile,
        column: &str,
        values: &[String],
    ) -> Option<Vec<Range<u64>>> {
        if !INDEXED.contains(&column) {
            return None;
        }
        let index = self.index.get_or_init(|| {
            let path = EntityIndex::path_of(&segment.path);
            match EntityIndex::open(&path) {
                Ok(index) if index.rows() == segment.meta.rows => Some(index),
                Ok(_) => {
                    tracing::warn!(path = %path.display(), "entity index of another file, scanning");
                    None
                }
                // Segments without an index are read all the same.
                Err(TableError::Missing { .. }) => None,
                Err(error) => {
                    tracing::warn!(%error, "entity index not usable, scanning instead");
                    None
                }
            }
        });
        let index = index.as_ref()?;
        let mut ranges = Vec::new();
        for value in values {
            ranges.extend(index.blocks(column, value)?);
        }
        Some(union(ranges))
    }
}

/// Ranges as an ascending list without overlaps.
pub(super) fn union(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut joined: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

/// A bounded cache of footers, shared by all queries. The least recently used footers go first.
#[derive(Debug)]
pub struct ReadCache {
    bound: usize,
    inner: Mutex<Footers>,
}

#[derive(Debug, Default)]
struct Footers {
    by_path: HashMap<PathBuf, (Arc<Footer>, u64), foldhash::fast::FixedState>,
    bytes: usize,
    clock: u64,
}

impl ReadCache {
    /// The bound that servers use unless told otherwise.
    pub const DEFAULT_BYTES: usize = 96 << 20;

    /// A cache that keeps at most this many bytes of footers.
    #[must_use]
    pub fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self { bound: bytes, inner: Mutex::new(Footers::default()) })
    }

    /// How many bytes of footers are kept now.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.inner.lock().bytes
    }

    /// The footer of a segment, read if it is not kept.
    ///
    /// # Errors
    /// [`ReadError`] when the file is missing, damaged or cannot be read.
    pub(super) fn footer(&self, segment: &SegmentFile) -> Result<Arc<Footer>, ReadError> {
        {
            let mut inner = self.inner.lock();
            inner.clock += 1;
            let now = inner.clock;
            if let Some((footer, used)) = inner.by_path.get_mut(&segment.path) {
                *used = now;
                return Ok(Arc::clone(footer));
            }
        }
        let footer = Arc::new(load(&segment.path)?);
        let mut inner = self.inner.lock();
        inner.clock += 1;
        let now = inner.clock;
        let entry = (Arc::clone(&footer), now);
        inner.bytes += footer.bytes;
        if let Some((replaced, _)) = inner.by_path.insert(segment.path.clone(), entry) {
            inner.bytes = inner.bytes.saturating_sub(replaced.bytes);
        }
        while inner.bytes > self.bound && inner.by_path.len() > 1 {
            let oldest = inner.by_path.iter().min_by_key(|(_, (_, used))| *used);
            let Some(path) = oldest.map(|(path, _)| path.clone()) else { break };
            if let Some((gone, _)) = inner.by_path.remove(&path) {
                inner.bytes = inner.bytes.saturating_sub(gone.bytes);
            }
        }
        Ok(footer)
    }
}

/// Reads a footer and its page index.
fn load(path: &Path) -> Result<Footer, ReadError> {
    let file = File::open(path).map_err(|error| ReadError::from_io(path, &error))?;
    let damaged = |error: ParquetError| ReadError::Damaged {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    let metadata = ParquetMetaDataReader::new()
        .with_page_index_policy(PageIndexPolicy::Optional)
        .parse_and_finish(&file)
        .map_err(damaged)?;
    let (metadata, schema) = as_queried(metadata).map_err(damaged)?;
    let bytes = metadata.memory_size() + 256;
    let pairs = metadata.file_metadata().key_value_metadata();
    let derived_ids = pairs
        .into_iter()
        .flatten()
        .any(|pair| pair.key == DERIVED_IDS_KEY && pair.value.as_deref() == Some("filtered"));
    Ok(Footer {
        metadata: Arc::new(metadata),
        schema,
        derived_ids,
        tenants: OnceLock::new(),
        index: OnceLock::new(),
        bytes,
    })
}

/// Replaces the Arrow schema of a footer by the one that queries read with.
fn as_queried(metadata: ParquetMetaData) -> Result<(ParquetMetaData, SchemaRef), ParquetError> {
    let file = metadata.file_metadata();
    let written = parquet_to_arrow_schema(file.schema_descr(), file.key_value_metadata())?;
    let leaves = flat_leaves(&metadata);
    let fields: Vec<Field> = written
        .fields()
        .iter()
        .enumerate()
        .map(|(root, field)| {
            let read = match field.data_type() {
                // Nested text keeps its type: views exist at the top level only.
                nested if nested.is_nested() => nested.clone(),
                flat => query_type(flat),
            };
            let mut kept = field.metadata().clone();
            if let Some(leaf) = leaves.get(root).copied().flatten() {
                if is_empty(&metadata, leaf) {
                    kept.insert(EMPTY_KEY.to_owned(), "true".to_owned());
                } else if field.name() == Core::Source.name()
                    && let Some(text) = constant_text(&metadata, leaf)
                {
                    kept.insert(CONSTANT_KEY.to_owned(), text);
                }
            }
            Field::new(field.name(), read, field.is_nullable()).with_metadata(kept)
        })
        .collect();
    let schema = Schema::new(fields);
    let mut pairs: Vec<KeyValue> = file.key_value_metadata().cloned().unwrap_or_default();
    pairs.retain(|pair| pair.key != ARROW_SCHEMA_META_KEY);
    pairs.push(KeyValue::new(ARROW_SCHEMA_META_KEY.to_owned(), encode_arrow_schema(&schema)));
    let file = FileMetaData::new(
        file.version(),
        file.num_rows(),
        file.created_by().map(str::to_owned),
        Some(pairs),
        file.schema_descr_ptr(),
        file.column_orders().cloned(),
    );
    let mut old = metadata.into_builder();
    let new = ParquetMetaDataBuilder::new(file)
        .set_row_groups(old.take_row_groups())
        .set_column_index(old.take_column_index())
        .set_offset_index(old.take_offset_index())
        .build();
    Ok((new, Arc::new(schema)))
}

/// The leaf of each of a file's columns, in order; `None` for nested ones.
fn flat_leaves(metadata: &ParquetMetaData) -> Vec<Option<usize>> {
    let parquet = metadata.file_metadata().schema_descr();
    let mut leaves: Vec<Option<usize>> = Vec::new();
    let mut last = None;
    for leaf in 0..parquet.num_columns() {
        let root = parquet.get_column_root_idx(leaf);
        if last == Some(root) {
            if let Some(nested) = leaves.last_mut() {
                *nested = None;
            }
        } else {
            leaves.push((parquet.column(leaf).max_rep_level() == 0).then_some(leaf));
        }
        last = Some(root);
    }
    leaves
}

/// Whether the statistics prove that a leaf is null in every row.
fn is_empty(metadata: &ParquetMetaData, leaf: usize) -> bool {
    let groups = metadata.row_groups().len();
    groups > 0 && (0..groups).all(|group| all_null(metadata, group, leaf))
}

/// The text that a leaf has in every row, if the statistics prove that there is one.
fn constant_text(metadata: &ParquetMetaData, leaf: usize) -> Option<String> {
    let groups = 0..metadata.row_groups().len();
    let mut texts = groups.map(|group| constant_in(metadata, group, leaf));
    let first = texts.next()??;
    texts.all(|text| text == Some(first)).then(|| first.to_owned())
}

/// The text that a leaf has in every row of a row group, if the statistics prove that there is one.
pub(super) fn constant_in(metadata: &ParquetMetaData, group: usize, leaf: usize) -> Option<&str> {
    let statistics = metadata.row_groups().get(group)?.columns().get(leaf)?.statistics()?;
    let exact = statistics.min_is_exact()
        && statistics.max_is_exact()
        && statistics.null_count_opt() == Some(0);
    let least = statistics.min_bytes_opt().filter(|_| exact)?;
    (Some(least) == statistics.max_bytes_opt()).then(|| std::str::from_utf8(least).ok())?
}

/// The number of the leaf of a flat column of this name.
pub(super) fn leaf(metadata: &ParquetMetaData, schema: &Schema, name: &str) -> Option<usize> {
    let parquet = metadata.file_metadata().schema_descr();
    parquet_column(parquet, schema, name).map(|(leaf, _)| leaf)
}

/// Whether the statistics prove that a leaf is null in every row of a row group.
pub(super) fn all_null(metadata: &ParquetMetaData, group: usize, leaf: usize) -> bool {
    let Some(group) = metadata.row_groups().get(group) else { return false };
    let column = group.columns().get(leaf);
    let nulls = column.and_then(|column| column.statistics()?.null_count_opt());
    nulls.is_some_and(|nulls| Ok(nulls) == u64::try_from(group.num_rows()))
}

/// Makes readers for the files of a scan. Every file carries its [`SegmentFile`], which keeps it from
/// being deleted for as long as the scan lives (M3).
#[derive(Debug)]
pub(super) struct SegmentReaders {
    pub(super) cache: Arc<ReadCache>,
}

impl ParquetFileReaderFactory for SegmentReaders {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        _: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> datafusion::common::Result<Box<dyn AsyncFileReader + Send>> {
        let Some(segment) = file.extension::<Arc<SegmentFile>>() else {
            return datafusion::common::internal_err!("a scanned file has no segment");
        };
        let read = MetricBuilder::new(metrics).counter("bytes_scanned", partition);
        let segment = Arc::clone(segment);
        Ok(Box::new(SegmentReader { segment, cache: Arc::clone(&self.cache), file: None, read }))
    }
}

/// Reads one segment file. Reads block the calling thread: queries run on threads of their own.
struct SegmentReader {
    segment: Arc<SegmentFile>,
    cache: Arc<ReadCache>,
    file: Option<File>,
    read: Count,
}

impl SegmentReader {
    fn bytes(&mut self, range: &Range<u64>) -> Result<Bytes, ParquetError> {
        read_range(&self.segment.path, &mut self.file, range)
            .inspect(|bytes| self.read.add(bytes.len()))
            .map_err(|error| ParquetError::External(Box::new(error)))
    }
}

/// Reads a range of a file, opening it first if it is not open.
pub(super) fn read_range(
    path: &Path,
    file: &mut Option<File>,
    range: &Range<u64>,
) -> Result<Bytes, ReadError> {
    let io = |error: std::io::Error| ReadError::from_io(path, &error);
    let open = match file {
        Some(open) => open,
        None => file.insert(File::open(path).map_err(io)?),
    };
    let length = range.end.saturating_sub(range.start);
    let length =
        usize::try_from(length).ok().filter(|length| *length <= 1 << 32).ok_or_else(|| {
            ReadError::Damaged {
                path: path.to_owned(),
                reason: format!("a part of {length} bytes"),
            }
        })?;
    let mut buffer = vec![0; length];
    open.read_exact_at(&mut buffer, range.start).map_err(io)?;
    Ok(Bytes::from(buffer))
}

impl AsyncFileReader for SegmentReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        std::future::ready(self.bytes(&range)).boxed()
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, Result<Vec<Bytes>, ParquetError>> {
        let read = ranges.iter().map(|range| self.bytes(range)).collect();
        std::future::ready(read).boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        let footer = self.cache.footer(&self.segment);
        let metadata = footer
            .map(|footer| Arc::clone(&footer.metadata))
            .map_err(|error| ParquetError::External(Box::new(error)));
        std::future::ready(metadata).boxed()
    }
}

/// Compares a file with the checksum of its commit.
pub(super) fn check(segment: &SegmentFile) -> Result<(), ReadError> {
    let path = &segment.path;
    let io = |error: std::io::Error| ReadError::from_io(path, &error);
    let mut file = File::open(path).map_err(io)?;
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).map_err(io)?;
        match buffer.get(..read) {
            Some(bytes) if read > 0 => hash.update(bytes),
            _ => break,
        }
    }
    if hash.digest() == segment.meta.checksum {
        return Ok(());
    }
    Err(ReadError::Damaged { path: path.clone(), reason: "its checksum is wrong".to_owned() })
}
