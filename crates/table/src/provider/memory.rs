//! Scanning the in-memory part of a table: the batches beyond the committed position, in log order.
//!
//! A batch may hold rows of several tenants: they are taken apart before any expression of the query
//! is evaluated.

use super::adapt::{RowAdapter, RowAdapterFactory};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::{FilterBuilder, and, prep_null_mask_filter};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, ScalarValue, Statistics, exec_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, CastExpr, Column, Literal};
use datafusion::physical_expr::utils::{collect_columns, reassign_expr_columns};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_expr_adapter::PhysicalExprAdapter;
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, SchedulingType};
use datafusion::physical_plan::filter_pushdown::{
    ChildPushdownResult, FilterPushdownPhase, FilterPushdownPropagation, PushedDown,
};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, StatisticsArgs,
    apply_expression_roots,
};
use futures::StreamExt;
use palisade_event::column::Text;
use palisade_event::schema::Core;
use std::fmt;
use std::sync::Arc;

/// The tenant's rows of a batch.
#[derive(Debug, Clone)]
pub(super) struct TenantBatch {
    batch: RecordBatch,
    /// Which rows; all when there is none.
    mine: Option<BooleanArray>,
    rows: usize,
}

impl TenantBatch {
    /// The rows of `batch` that are the tenant's; `None` when there is none.
    pub(super) fn of(batch: &RecordBatch, tenant: &str) -> Option<Self> {
        let text = Text::in_batch(batch, Core::Tenant.name())?;
        let mine: BooleanArray = match text {
            Text::Dictionary(keys, values) => {
                // Null values are no tenant's.
                let is_mine: Vec<bool> = values.iter().map(|value| value == Some(tenant)).collect();
                if is_mine.iter().all(|mine| *mine) && keys.null_count() == 0 {
                    return Some(Self::all(batch));
                }
                (0..keys.len())
                    .map(|row| {
                        let key = keys.key(row);
                        Some(key.and_then(|key| is_mine.get(key)).copied().unwrap_or(false))
                    })
                    .collect()
            }
            Text::Plain(values) => values.iter().map(|value| Some(value == Some(tenant))).collect(),
        };
        match mine.true_count() {
            0 => None,
            rows if rows == batch.num_rows() => Some(Self::all(batch)),
            rows => Some(Self { batch: batch.clone(), mine: Some(mine), rows }),
        }
    }

    fn all(batch: &RecordBatch) -> Self {
        Self { batch: batch.clone(), mine: None, rows: batch.num_rows() }
    }

    /// How many rows are the tenant's.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// The batch's schema.
    pub(super) fn schema(&self) -> SchemaRef {
        self.batch.schema()
    }

    /// Whether a column holds a value in any of the tenant's rows.
    pub(super) fn has_values(&self, column: usize) -> bool {
        let Some(column) = self.batch.columns().get(column) else { return false };
        let Some(nulls) = column.logical_nulls() else { return true };
        match &self.mine {
            None => nulls.null_count() < column.len(),
            Some(mine) => (0..column.len()).any(|row| mine.value(row) && nulls.is_valid(row)),
        }
    }
}

/// Scans the tenant's in-memory rows.
#[derive(Debug, Clone)]
pub(super) struct MemoryScan {
    batches: Vec<Arc<[TenantBatch]>>,
    schema: SchemaRef,
    adapter: RowAdapterFactory,
    filters: Vec<Arc<dyn PhysicalExpr>>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl MemoryScan {
    /// A scan of these batches, giving the columns of `schema` in up to `partitions` partitions.
    pub(super) fn new(
        batches: &[TenantBatch],
        schema: SchemaRef,
        adapter: RowAdapterFactory,
        partitions: usize,
    ) -> Self {
        let rows: usize = batches.iter().map(TenantBatch::rows).sum();
        // A partition for little is not worth its task.
        let partitions = partitions.min(rows / 65_536 + 1).max(1);
        let share = batches.len().div_ceil(partitions).max(1);
        let batches: Vec<Arc<[TenantBatch]>> = batches.chunks(share).map(Arc::from).collect();
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(batches.len()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        Self {
            batches,
            schema,
            adapter,
            filters: Vec::new(),
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }
}

impl DisplayAs for MemoryScan {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: usize = self.batches.iter().flat_map(|part| part.iter()).map(|b| b.rows).sum();
        write!(f, "MemoryScan: rows={rows}")?;
        for filter in &self.filters {
            write!(f, ", filter={filter}")?;
        }
        Ok(())
    }
}

impl ExecutionPlan for MemoryScan {
    fn name(&self) -> &'static str {
        "MemoryScan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn with_new_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        apply_expression_roots(self.filters.iter(), f)
    }

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let Some(batches) = self.batches.get(partition) else {
            return exec_err!("the in-memory scan has no partition {partition}");
        };
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let mut reader = BatchReader {
            adapter: self.adapter.clone(),
            schema: Arc::clone(&self.schema),
            filters: self.filters.clone(),
            known: None,
        };
        let batches = Arc::clone(batches);
        let stream = futures::stream::iter(0..batches.len()).filter_map(move |index| {
            let timer = metrics.elapsed_compute().timer();
            let read = match batches.get(index) {
                Some(batch) => reader.read(batch),
                None => exec_err!("the in-memory scan has no batch {index}"),
            };
            drop(timer);
            if let Ok(Some(batch)) = &read {
                metrics.record_output(batch.num_rows());
            }
            futures::future::ready(read.transpose())
        });
        let stream = RecordBatchStreamAdapter::new(Arc::clone(&self.schema), stream);
        Ok(Box::pin(cooperative(stream)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn statistics_from_inputs(
        &self,
        _: &[Arc<Statistics>],
        args: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        let parts = self.batches.iter().enumerate();
        let rows = parts
            .filter(|(index, _)| args.partition().is_none_or(|wanted| wanted == *index))
            .flat_map(|(_, part)| part.iter())
            .map(TenantBatch::rows)
            .sum();
        let mut statistics = Statistics::new_unknown(&self.schema);
        statistics.num_rows =
            if self.filters.is_empty() { Precision::Exact(rows) } else { Precision::Inexact(rows) };
        Ok(Arc::new(statistics))
    }

    fn handle_child_pushdown_result(
        &self,
        _: FilterPushdownPhase,
        child_pushdown_result: ChildPushdownResult,
        _: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        let mut taken = self.clone();
        taken.metrics = ExecutionPlanMetricsSet::new();
        let filters = child_pushdown_result.parent_filters;
        let answer = vec![PushedDown::Yes; filters.len()];
        for filter in filters {
            taken.filters.push(reassign_expr_columns(filter.filter, &self.schema)?);
        }
        let answer = FilterPushdownPropagation::with_parent_pushdown_result(answer);
        Ok(answer.with_updated_node(Arc::new(taken)))
    }
}

/// The query's expressions on the columns of one batch schema.
struct Adapted {
    /// The schema that they are for.
    of: SchemaRef,
    /// Which of its columns are needed.
    needed: Vec<usize>,
    /// The filters and the table's columns, written on the needed columns.
    filters: Vec<Arc<dyn PhysicalExpr>>,
    columns: Vec<Arc<dyn PhysicalExpr>>,
}

/// Reads batches of changing schemas as the table's.
struct BatchReader {
    adapter: RowAdapterFactory,
    schema: SchemaRef,
    filters: Vec<Arc<dyn PhysicalExpr>>,
    known: Option<Adapted>,
}

impl BatchReader {
    /// The rows of a batch that pass; `None` without any.
    fn read(&mut self, batch: &TenantBatch) -> Result<Option<RecordBatch>> {
        let schema = batch.batch.schema_ref();
        if self.known.as_ref().is_none_or(|known| !Arc::ptr_eq(&known.of, schema)) {
            self.known = Some(self.adapt(schema)?);
        }
        let Some(adapted) = &self.known else { return exec_err!("no schema to read with") };
        let mut rows = batch.batch.project(&adapted.needed)?;
        if let Some(mine) = &batch.mine {
            rows = filter(&rows, mine)?;
        }
        let mut kept: Option<BooleanArray> = None;
        for expr in &adapted.filters {
            let passed = boolean(&expr.evaluate(&rows)?.into_array(rows.num_rows())?)?;
            let both = match kept {
                Some(kept) => and(&kept, &passed)?,
                None => passed,
            };
            if !both.has_true() {
                return Ok(None);
            }
            kept = Some(both);
        }
        if let Some(kept) = kept.filter(|kept| kept.true_count() < rows.num_rows()) {
            rows = filter(&rows, &kept)?;
        }
        let columns = adapted
            .columns
            .iter()
            .map(|column| column.evaluate(&rows)?.into_array(rows.num_rows()))
            .collect::<Result<Vec<ArrayRef>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let schema = Arc::clone(&self.schema);
        Ok(Some(RecordBatch::try_new_with_options(schema, columns, &options)?))
    }

    fn adapt(&self, physical: &SchemaRef) -> Result<Adapted> {
        let adapter: RowAdapter =
            self.adapter.adapter(Arc::clone(&self.schema), Arc::clone(physical));
        let rewrite = |expr: &Arc<dyn PhysicalExpr>| adapter.rewrite(Arc::clone(expr));
        let filters = self.filters.iter().map(rewrite).collect::<Result<Vec<_>>>()?;
        let fields = self.schema.fields().iter();
        let columns =
            fields.map(|field| adapter.column(field.name())).collect::<Result<Vec<_>>>()?;
        let mut needed: Vec<usize> = filters
            .iter()
            .chain(&columns)
            .flat_map(collect_columns)
            .map(|column| column.index())
            .collect();
        needed.sort_unstable();
        needed.dedup();
        let projected = physical.project(&needed)?;
        let on_needed = |expr| reassign_expr_columns(expr, &projected);
        let filters = filters.into_iter().map(|filter| direct(on_needed(filter)?, &projected));
        Ok(Adapted {
            of: Arc::clone(physical),
            filters: filters.collect::<Result<_>>()?,
            columns: columns.into_iter().map(on_needed).collect::<Result<_>>()?,
            needed,
        })
    }
}

/// Compares texts as they are stored where a filter compares a column converted to the query's kind of text
/// with a constant: the conversion of millions of rows costs more than the comparison.
fn direct(filter: Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<Arc<dyn PhysicalExpr>> {
    filter
        .transform_up(|expr| {
            Ok(match stored_comparison(&expr, schema) {
                Some(comparison) => Transformed::yes(comparison),
                None => Transformed::no(expr),
            })
        })
        .data()
}

fn stored_comparison(
    expr: &Arc<dyn PhysicalExpr>,
    schema: &Schema,
) -> Option<Arc<dyn PhysicalExpr>> {
    let comparison = expr.downcast_ref::<BinaryExpr>()?;
    let operator = *comparison.op();
    if !matches!(
        operator,
        Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
    ) {
        return None;
    }
    let cast = comparison.left().downcast_ref::<CastExpr>()?;
    let column = cast.expr().downcast_ref::<Column>()?;
    let stored = match schema.fields().get(column.index())?.data_type() {
        DataType::Dictionary(_, values) => values.as_ref(),
        other => other,
    };
    let literal = comparison.right().downcast_ref::<Literal>()?;
    let ScalarValue::Utf8View(Some(text)) = literal.value() else { return None };
    if *cast.cast_type() != DataType::Utf8View || *stored != DataType::Utf8 {
        return None;
    }
    let constant = Arc::new(Literal::new(ScalarValue::Utf8(Some(text.clone()))));
    Some(Arc::new(BinaryExpr::new(Arc::clone(cast.expr()), operator, constant)))
}

/// A filter's result with null as false.
fn boolean(array: &ArrayRef) -> Result<BooleanArray> {
    let Some(passed) = array.as_boolean_opt() else {
        return exec_err!("a filter gave {} instead of a boolean", array.data_type());
    };
    Ok(if passed.null_count() > 0 { prep_null_mask_filter(passed) } else { passed.clone() })
}

fn filter(rows: &RecordBatch, kept: &BooleanArray) -> Result<RecordBatch> {
    let filter = FilterBuilder::new(kept).optimize().build();
    Ok(filter.filter_record_batch(rows)?)
}
