//! Segments and memory together: a union that also passes a wanted order on to its inputs.
//!
//! DataFusion's own union stops a sort that is pushed down; then `ORDER BY time DESC LIMIT n` would read
//! the oldest segments first. This one lets the segments be read newest first.

use datafusion::common::Result;
use datafusion::common::Statistics;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::execution_plan::CardinalityEffect;
use datafusion::physical_plan::filter_pushdown::{
    ChildPushdownResult, FilterDescription, FilterPushdownPhase, FilterPushdownPropagation,
};
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{
    ChildStats, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
    SortOrderPushdownResult, StatisticsArgs,
};
use std::fmt;
use std::sync::Arc;

/// All rows of its inputs.
#[derive(Debug)]
pub(super) struct RowsExec {
    union: Arc<dyn ExecutionPlan>,
}

impl RowsExec {
    /// The union of these inputs, of equal schemas; an only input is itself.
    pub(super) fn over(inputs: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let union = UnionExec::try_new(inputs)?;
        Ok(if union.is::<UnionExec>() { Arc::new(Self { union }) } else { union })
    }

    fn inputs(&self) -> Vec<Arc<dyn ExecutionPlan>> {
        self.union.children().into_iter().map(Arc::clone).collect()
    }
}

impl DisplayAs for RowsExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RowsExec")
    }
}

impl ExecutionPlan for RowsExec {
    fn name(&self) -> &'static str {
        "RowsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.union.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        self.union.maintains_input_order()
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        self.union.benefits_from_input_partitioning()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.union.children()
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Self::over(children)
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.union.apply_expressions(f)
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        self.union.execute(partition, context)
    }

    fn metrics(&self) -> Option<MetricsSet> {
        self.union.metrics()
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        self.union.child_stats_requests(partition)
    }

    fn statistics_from_inputs(
        &self,
        input_stats: &[Arc<Statistics>],
        args: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        self.union.statistics_from_inputs(input_stats, args)
    }

    fn supports_limit_pushdown(&self) -> bool {
        true
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        self.union.cardinality_effect()
    }

    fn try_swapping_with_projection(
        &self,
        projection: &ProjectionExec,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        match self.union.try_swapping_with_projection(projection)? {
            Some(swapped) if swapped.is::<UnionExec>() => {
                Self::over(swapped.children().into_iter().map(Arc::clone).collect()).map(Some)
            }
            other => Ok(other),
        }
    }

    fn gather_filters_for_pushdown(
        &self,
        phase: FilterPushdownPhase,
        parent_filters: Vec<Arc<dyn PhysicalExpr>>,
        config: &ConfigOptions,
    ) -> Result<FilterDescription> {
        self.union.gather_filters_for_pushdown(phase, parent_filters, config)
    }

    fn handle_child_pushdown_result(
        &self,
        phase: FilterPushdownPhase,
        child_pushdown_result: ChildPushdownResult,
        config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        let answer =
            self.union.handle_child_pushdown_result(phase, child_pushdown_result, config)?;
        let updated_node = match answer.updated_node {
            Some(union) if union.is::<UnionExec>() => {
                let inputs = union.children().into_iter().map(Arc::clone).collect();
                Some(Self::over(inputs)?)
            }
            other => other,
        };
        Ok(FilterPushdownPropagation { filters: answer.filters, updated_node })
    }

    fn try_pushdown_sort(
        &self,
        order: &[PhysicalSortExpr],
    ) -> Result<SortOrderPushdownResult<Arc<dyn ExecutionPlan>>> {
        let mut helped = false;
        let mut inputs = self.inputs();
        for input in &mut inputs {
            match input.try_pushdown_sort(order)? {
                SortOrderPushdownResult::Exact { inner }
                | SortOrderPushdownResult::Inexact { inner } => {
                    *input = inner;
                    helped = true;
                }
                SortOrderPushdownResult::Unsupported => {}
            }
        }
        if !helped {
            return Ok(SortOrderPushdownResult::Unsupported);
        }
        Ok(SortOrderPushdownResult::Inexact { inner: Self::over(inputs)? })
    }
}
