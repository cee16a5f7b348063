//! A source of segments: looks through each file before it is opened, reads few rows by itself, and gives texts that do
//! not hold the pages that they were in. Everything else is the Parquet source's.

use super::Search;
use super::few::{Few, Sought};
use crate::provider::adapt::RowAdapterFactory;
use crate::provider::views;
use arrow::array::RecordBatch;
use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileOpener, FileScanConfig, FileSource};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::object_store::ObjectStore;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::{
    EquivalenceProperties, LexOrdering, PhysicalExpr, PhysicalSortExpr,
};
use datafusion::physical_plan::filter_pushdown::FilterPushdownPropagation;
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder};
use datafusion::physical_plan::{DisplayFormatType, SortOrderPushdownResult};
use datafusion_datasource::morsel::{Morsel, MorselPlan, MorselPlanner, Morselizer};
use futures::StreamExt;
use futures::stream::BoxStream;
use std::fmt;
use std::sync::Arc;

/// The segments that a Parquet source reads.
pub(in super::super) struct SegmentSource {
    inner: Arc<dyn FileSource>,
    own: Arc<Own>,
}

/// What is done beside the Parquet source.
struct Own {
    search: Option<Arc<Search>>,
    sought: Option<Sought>,
    adapter: RowAdapterFactory,
}

impl SegmentSource {
    /// What `inner` reads, with `search` looking through the files and rows that are `sought` read where they are few.
    pub(in super::super) fn over(
        inner: Arc<dyn FileSource>,
        search: Option<Search>,
        sought: Option<Sought>,
        adapter: RowAdapterFactory,
    ) -> Arc<dyn FileSource> {
        let search = search.map(Arc::new);
        Arc::new(Self { inner, own: Arc::new(Own { search, sought, adapter }) })
    }

    fn with(&self, inner: Arc<dyn FileSource>) -> Arc<dyn FileSource> {
        Arc::new(Self { inner, own: Arc::clone(&self.own) })
    }
}

impl FileSource for SegmentSource {
    fn create_file_opener(
        &self,
        object_store: Arc<dyn ObjectStore>,
        base_config: &FileScanConfig,
        partition: usize,
    ) -> Result<Arc<dyn FileOpener>> {
        self.inner.create_file_opener(object_store, base_config, partition)
    }

    fn create_morselizer(
        &self,
        object_store: Arc<dyn ObjectStore>,
        base_config: &FileScanConfig,
        partition: usize,
    ) -> Result<Box<dyn Morselizer>> {
        let read = MetricBuilder::new(self.metrics()).counter("bytes_scanned", partition);
        let inner = self.inner.create_morselizer(object_store, base_config, partition)?;
        let search = self.own.search.clone();
        let source = self.inner.as_ref();
        let few = self.own.sought.as_ref();
        let picked = MetricBuilder::new(self.metrics()).counter("rows_picked", partition);
        let few = few.and_then(|sought| Few::new(sought, source, &self.own.adapter, picked));
        let few = few.map(Arc::new);
        Ok(Box::new(SegmentMorsels { inner: Arc::from(inner), search, few, read }))
    }

    fn table_schema(&self) -> &TableSchema {
        self.inner.table_schema()
    }

    fn with_batch_size(&self, batch_size: usize) -> Arc<dyn FileSource> {
        self.with(self.inner.with_batch_size(batch_size))
    }

    fn filter(&self) -> Option<Arc<dyn PhysicalExpr>> {
        self.inner.filter()
    }

    fn projection(&self) -> Option<&ProjectionExprs> {
        self.inner.projection()
    }

    fn metrics(&self) -> &ExecutionPlanMetricsSet {
        self.inner.metrics()
    }

    fn file_type(&self) -> &str {
        self.inner.file_type()
    }

    fn fmt_extra(&self, kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt_extra(kind, f)
    }

    fn supports_repartitioning(&self) -> bool {
        self.inner.supports_repartitioning()
    }

    fn repartitioned(
        &self,
        target_partitions: usize,
        repartition_file_min_size: usize,
        output_ordering: Option<LexOrdering>,
        config: &FileScanConfig,
    ) -> Result<Option<FileScanConfig>> {
        let least = repartition_file_min_size;
        self.inner.repartitioned(target_partitions, least, output_ordering, config)
    }

    fn try_pushdown_filters(
        &self,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn FileSource>>> {
        let mut pushed = self.inner.try_pushdown_filters(filters, config)?;
        pushed.updated_node = pushed.updated_node.map(|inner| self.with(inner));
        Ok(pushed)
    }

    fn try_pushdown_sort(
        &self,
        order: &[PhysicalSortExpr],
        properties: &EquivalenceProperties,
    ) -> Result<SortOrderPushdownResult<Arc<dyn FileSource>>> {
        Ok(match self.inner.try_pushdown_sort(order, properties)? {
            SortOrderPushdownResult::Exact { inner } => {
                SortOrderPushdownResult::Exact { inner: self.with(inner) }
            }
            SortOrderPushdownResult::Inexact { inner } => {
                SortOrderPushdownResult::Inexact { inner: self.with(inner) }
            }
            SortOrderPushdownResult::Unsupported => SortOrderPushdownResult::Unsupported,
        })
    }

    fn reorder_files(&self, files: Vec<PartitionedFile>) -> Vec<PartitionedFile> {
        self.inner.reorder_files(files)
    }

    fn try_pushdown_projection(
        &self,
        projection: &ProjectionExprs,
    ) -> Result<Option<Arc<dyn FileSource>>> {
        let pushed = self.inner.try_pushdown_projection(projection)?;
        Ok(pushed.map(|inner| self.with(inner)))
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.inner.apply_expressions(f)
    }
}

#[derive(Debug)]
struct SegmentMorsels {
    inner: Arc<dyn Morselizer>,
    search: Option<Arc<Search>>,
    few: Option<Arc<Few>>,
    read: Count,
}

impl Morselizer for SegmentMorsels {
    fn plan_file(&self, file: PartitionedFile) -> Result<Box<dyn MorselPlanner>> {
        if self.search.is_none() && self.few.is_none() {
            return Ok(Box::new(Compacted(self.inner.plan_file(file)?)));
        }
        Ok(Box::new(Searching {
            inner: Arc::clone(&self.inner),
            search: self.search.clone(),
            few: self.few.clone(),
            read: self.read.clone(),
            file: Box::new(file),
        }))
    }
}

/// A file that is still to be looked through.
#[derive(Debug)]
struct Searching {
    inner: Arc<dyn Morselizer>,
    search: Option<Arc<Search>>,
    few: Option<Arc<Few>>,
    read: Count,
    file: Box<PartitionedFile>,
}

impl MorselPlanner for Searching {
    fn plan(self: Box<Self>) -> Result<Option<MorselPlan>> {
        Ok(Some(MorselPlan::new().with_pending_planner(async move {
            let mut file = *self.file;
            if let Some(search) = &self.search {
                file = search.narrow(file, &self.read).await;
            }
            if let Some(few) = &self.few
                && let Some(rows) = few.read(&file, &self.read).await
            {
                return Ok(Box::new(Done(rows)) as Box<dyn MorselPlanner>);
            }
            Ok(Box::new(Compacted(self.inner.plan_file(file)?)) as Box<dyn MorselPlanner>)
        })))
    }
}

/// A file whose rows are read.
#[derive(Debug)]
struct Done(RecordBatch);

impl MorselPlanner for Done {
    fn plan(self: Box<Self>) -> Result<Option<MorselPlan>> {
        Ok((self.0.num_rows() > 0)
            .then(|| MorselPlan::new().with_morsels(vec![self as Box<dyn Morsel>])))
    }
}

impl Morsel for Done {
    fn into_stream(self: Box<Self>) -> BoxStream<'static, Result<RecordBatch>> {
        futures::stream::iter([Ok(self.0)]).boxed()
    }
}

/// What the Parquet source gives, without what texts hold beside themselves.
#[derive(Debug)]
struct Compacted<T: ?Sized>(Box<T>);

impl MorselPlanner for Compacted<dyn MorselPlanner> {
    fn plan(self: Box<Self>) -> Result<Option<MorselPlan>> {
        let Some(mut plan) = self.0.plan()? else { return Ok(None) };
        let morsels = plan.take_morsels().into_iter();
        let morsels = morsels.map(|inner| Box::new(Compacted(inner)) as Box<dyn Morsel>).collect();
        let planners = plan.take_ready_planners().into_iter();
        let planners =
            planners.map(|inner| Box::new(Compacted(inner)) as Box<dyn MorselPlanner>).collect();
        let pending = plan.take_pending_planner();
        let mut compacted = MorselPlan::new().with_morsels(morsels).with_planners(planners);
        if let Some(pending) = pending {
            compacted.set_pending_planner(async move {
                Ok(Box::new(Compacted(pending.await?)) as Box<dyn MorselPlanner>)
            });
        }
        Ok(Some(compacted))
    }
}

impl Morsel for Compacted<dyn Morsel> {
    fn into_stream(self: Box<Self>) -> BoxStream<'static, Result<RecordBatch>> {
        self.0.into_stream().map(|batch| Ok(views::compacted(batch?))).boxed()
    }
}
