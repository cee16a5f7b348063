//! The table as a query reads it: [`EventTable`], a DataFusion table provider over one snapshot and one
//! tenant.
//!
//! The tenant is part of the provider and not of the query: there is no SQL text that reads another
//! tenant's rows. Segments without rows of the tenant are never opened; of shared segments only the
//! tenant's ranges of rows are read ([`tenants`]); in-memory batches are taken apart before anything
//! is evaluated ([`memory`]).
//!
//! A scan reads the segments as Parquet with filters pushed into the decoder, pages pruned by their
//! index and rows pruned by the entity index and Bloom filters ([`prune`]) and by a search through the pages
//! for texts that no index knows ([`search`]), together with the in-memory
//! rows of the same snapshot: never a row twice, never a gap (M3). The files of the snapshot are kept
//! for as long as a plan made from it lives.

mod adapt;
mod both;
mod files;
mod functions;
mod like;
mod memory;
mod parts;
mod prune;
mod reach;
mod schema;
mod search;
mod stored;
mod tenants;
mod views;

pub use files::{ReadCache, ReadError};
pub use functions::overflow_get;
pub use parts::{PartRows, StoredPart};
pub use reach::{Reach, reach};
pub use stored::{StoredSegment, stored_memory, stored_segments};

use crate::{SegmentFile, Snapshot};
use adapt::RowAdapterFactory;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use both::RowsExec;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, Result, ScalarValue, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::ParquetAccessPlan;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use files::SegmentReaders;
use memory::{MemoryScan, TenantBatch};
use palisade_event::TenantId;
use palisade_event::schema::Core;
use prune::{Rows, Wanted, rows_of_tenant, wanted_rows};
use schema::{Columns, field_query_type, type_of_kind};
use search::{FewSought, Search, SegmentSource};
use std::sync::Arc;

/// The address under which a session must know an object store, which is asked for and never read:
/// register an empty one.
pub const STORE_URL: &str = "palisade://segments";

/// One tenant's rows of one snapshot of a table.
#[derive(Debug)]
pub struct EventTable {
    snapshot: Snapshot,
    tenant: TenantId,
    cache: Arc<ReadCache>,
    /// The tenant's segments, newest first, with its rows in them.
    segments: Vec<(Arc<SegmentFile>, Rows)>,
    /// The tenant's in-memory rows, in log order.
    memory: Vec<TenantBatch>,
    columns: Vec<String>,
    schema: SchemaRef,
}

impl EventTable {
    /// The tenant's view of a snapshot, with a footer cache of its own.
    ///
    /// # Errors
    /// [`ReadError`] when a segment that the tenant shares with others cannot be read.
    pub fn new(snapshot: Snapshot, tenant: &TenantId) -> std::result::Result<Self, ReadError> {
        Self::with_cache(snapshot, tenant, ReadCache::new(ReadCache::DEFAULT_BYTES))
    }

    /// The tenant's view of a snapshot; footers are kept in `cache`, which queries share.
    ///
    /// # Errors
    /// [`ReadError`] when a segment that the tenant shares with others cannot be read.
    pub fn with_cache(
        snapshot: Snapshot,
        tenant: &TenantId,
        cache: Arc<ReadCache>,
    ) -> std::result::Result<Self, ReadError> {
        let name = tenant.as_str();
        let mut columns = Columns::default();
        let mut segments = Vec::new();
        for segment in snapshot.segments.iter().rev() {
            let rows = rows_of_tenant(&cache, segment, name)?;
            if rows == Rows::None {
                continue;
            }
            let mine = match rows {
                Rows::All => None,
                _ => Some(tenants::tenant_columns(&cache, segment, name)?),
            };
            for column in &segment.meta.columns {
                if mine.as_ref().is_none_or(|mine| mine.contains(&column.name)) {
                    columns.see(&column.name, type_of_kind(&column.kind));
                }
            }
            segments.push((Arc::clone(segment), rows));
        }
        let memory: Vec<TenantBatch> =
            snapshot.memory.iter().filter_map(|batch| TenantBatch::of(batch, name)).collect();
        let mut last: Option<SchemaRef> = None;
        for batch in &memory {
            // Frames mostly share their schema; nothing is new when all of it was seen.
            if last.as_ref().is_some_and(|last| Arc::ptr_eq(last, &batch.schema())) {
                continue;
            }
            let mut all = true;
            for (index, field) in batch.schema().fields().iter().enumerate() {
                let seen = field_query_type(field);
                if columns.knows(field.name(), &seen) {
                    continue;
                }
                if batch.has_values(index) {
                    columns.see(field.name(), seen);
                } else {
                    all = false;
                }
            }
            last = all.then(|| batch.schema());
        }
        let schema = columns.into_schema(&snapshot.table, &[]);
        Ok(Self {
            snapshot,
            tenant: tenant.clone(),
            cache,
            segments,
            memory,
            columns: Vec::new(),
            schema,
        })
    }

    /// The same view with further text columns, which are looked for in `overflow` by their names.
    #[must_use]
    pub fn with_overflow_columns(mut self, names: &[String]) -> Self {
        let mut columns = Columns::default();
        for field in self.schema.fields() {
            columns.see(field.name(), field.data_type().clone());
        }
        self.columns.extend(names.iter().cloned());
        self.schema = columns.into_schema(&self.snapshot.table, &self.columns);
        self
    }

    /// The snapshot that is read.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The tenant's segments, newest first, each with the number of the tenant's rows in it.
    pub fn segments(&self) -> impl Iterator<Item = (&Arc<SegmentFile>, u64)> {
        self.segments.iter().map(|(segment, rows)| (segment, rows.count(segment.meta.rows)))
    }

    /// How many of the tenant's rows are in memory.
    #[must_use]
    pub fn memory_rows(&self) -> usize {
        self.memory.iter().map(TenantBatch::rows).sum()
    }

    fn adapter(&self, state: &dyn Session) -> RowAdapterFactory {
        RowAdapterFactory {
            table: Arc::from(self.snapshot.table.as_str()),
            tenant: Arc::from(self.tenant.as_str()),
            options: Arc::clone(state.config().options()),
        }
    }

    /// The segments that a query has to read, as files with access plans.
    fn files(&self, schema: &SchemaRef, wanted: &Wanted) -> Result<Vec<PartitionedFile>> {
        let mut files = Vec::new();
        for (segment, mine) in &self.segments {
            if !wanted.may_be_in(segment) {
                continue;
            }
            let rows = wanted_rows(&self.cache, segment, wanted, mine.clone())?;
            if rows == Rows::None {
                continue;
            }
            let mut file = PartitionedFile::new(segment.meta.path.clone(), segment.meta.bytes)
                .with_extension(Arc::clone(segment));
            if let Rows::Ranges(ranges) = &rows {
                let footer = self.cache.footer(segment)?;
                file = file.with_extension(prune::access_plan(&footer, ranges));
            }
            let exact = rows == *mine;
            file.statistics = Some(Arc::new(self.statistics_of(
                schema,
                segment,
                &rows,
                exact,
                mine == &Rows::All,
            )));
            files.push(file);
        }
        Ok(files)
    }

    /// What is known of the wanted rows of a segment without reading them.
    fn statistics_of(
        &self,
        schema: &SchemaRef,
        segment: &SegmentFile,
        rows: &Rows,
        exact: bool,
        own: bool,
    ) -> Statistics {
        let mut statistics = Statistics::new_unknown(schema);
        let count = usize::try_from(rows.count(segment.meta.rows)).unwrap_or(usize::MAX);
        statistics.num_rows =
            if exact { Precision::Exact(count) } else { Precision::Inexact(count) };
        for (field, column) in schema.fields().iter().zip(&mut statistics.column_statistics) {
            if field.name() == Core::Time.name() {
                let (min, max) = (segment.meta.min_time, segment.meta.max_time);
                let bounds = (prune::time_scalar(min), prune::time_scalar(max));
                *column = bounded(bounds.0, bounds.1, exact && own);
            } else if field.name() == Core::Tenant.name() {
                let tenant = ScalarValue::Utf8View(Some(self.tenant.to_string()));
                *column = bounded(tenant.clone(), tenant, true);
            }
        }
        statistics
    }

    fn scan_segments(
        &self,
        state: &dyn Session,
        schema: &SchemaRef,
        files: Vec<PartitionedFile>,
        limit: Option<usize>,
        wanted: &Wanted,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let options = state.config().options();
        let total = files
            .iter()
            .filter_map(|file| file.statistics.as_deref())
            .cloned()
            .reduce(|left, right| {
                let both = [&left, &right];
                Statistics::try_merge_iter(both, schema)
                    .unwrap_or_else(|_| Statistics::new_unknown(schema))
            })
            .unwrap_or_else(|| Statistics::new_unknown(schema));
        let mut parquet = datafusion::config::TableParquetOptions::new();
        parquet.global = options.execution.parquet.clone();
        // Only one block of a Bloom filter decides: `prune` reads that, the scan would read all.
        parquet.global.bloom_filter_on_read = false;
        // The cache of what filters have decoded reads whole batches, also around the few pages that the
        // entity index or a search leaves: there it costs several times what it saves.
        let table = &self.snapshot.table;
        let search = Search::new(&self.cache, &self.tenant, table, wanted);
        let few = files.iter().any(|file| file.extension::<ParquetAccessPlan>().is_some());
        let few = few || search.is_some();
        if few {
            parquet.global.max_predicate_cache_size = Some(0);
        }
        let sought = FewSought::new(&self.cache, table, wanted).filter(|_| few);
        let source = ParquetSource::new(Arc::clone(schema))
            .with_table_parquet_options(parquet)
            .with_parquet_file_reader_factory(Arc::new(SegmentReaders {
                cache: Arc::clone(&self.cache),
            }));
        let source = SegmentSource::over(Arc::new(source), search, sought, self.adapter(state));
        // Dealt out in turn, so that every partition begins with new rows.
        let partitions = state.config().target_partitions().clamp(1, files.len().max(1));
        let mut groups = vec![Vec::new(); partitions];
        for (index, file) in files.into_iter().enumerate() {
            if let Some(group) = groups.get_mut(index % partitions) {
                group.push(file);
            }
        }
        let url = ObjectStoreUrl::parse(STORE_URL)?;
        let config = FileScanConfigBuilder::new(url, source)
            .with_file_groups(groups.into_iter().map(FileGroup::new).collect())
            .with_statistics(total)
            .with_limit(limit)
            .with_expr_adapter(Some(Arc::new(self.adapter(state))))
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

fn bounded(min: ScalarValue, max: ScalarValue, exact: bool) -> ColumnStatistics {
    let mut column = ColumnStatistics::new_unknown();
    if exact {
        column.null_count = Precision::Exact(0);
        column.min_value = Precision::Exact(min);
        column.max_value = Precision::Exact(max);
    } else {
        column.min_value = Precision::Inexact(min);
        column.max_value = Precision::Inexact(max);
    }
    column
}

#[async_trait]
impl TableProvider for EventTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        // The filter stays in the plan, and the physical planner moves it into the scan.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = match projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => Arc::clone(&self.schema),
        };
        let wanted = Wanted::by(filters);
        let files = self.files(&schema, &wanted)?;
        let mut inputs: Vec<Arc<dyn ExecutionPlan>> = Vec::with_capacity(2);
        if !self.memory.is_empty() {
            inputs.push(Arc::new(MemoryScan::new(
                &self.memory,
                Arc::clone(&schema),
                self.adapter(state),
                state.config().target_partitions(),
            )));
        }
        if !files.is_empty() {
            inputs.push(self.scan_segments(state, &schema, files, limit, &wanted)?);
        }
        if inputs.is_empty() {
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        RowsExec::over(inputs)
    }
}

/// Looks for the damaged file behind a decoding error: the first of the tenant's segments whose bytes are
/// not what was committed. Reads whole files, so it is for the moment after a failure only.
#[must_use]
pub fn find_damage(table: &EventTable) -> Option<ReadError> {
    table.segments.iter().find_map(|(segment, _)| files::check(segment).err())
}
