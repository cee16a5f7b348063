//! Distinct rows: what `SELECT DISTINCT`, `UNION` and `count(DISTINCT …)` come down to.
//!
//! DataFusion groups by all columns, keeps every group's values, and sorts all of them by value each time
//! memory runs out. Here a row that is new is passed on at once, and all that is kept of it is a fingerprint
//! of 16 bytes ([`keys`], [`table`]). When there is no memory for further fingerprints, those that are there
//! stay and refuse what they know; other rows are written to disk, in sixteen parts by their fingerprints, and
//! each part is gone through later by the same rule ([`stream`]). So a row is written once for each factor of
//! sixteen that the fingerprints are larger than the memory.
//!
//! Two different rows with one fingerprint would be taken for one. Fingerprints are SipHash-1-3 with 128 bits
//! under a key that is drawn at random at the start of the process and never leaves it, so nobody can look for
//! such rows; of a hundred million rows, any two have one fingerprint with a probability of about 1.5e-23,
//! which is far below that of a memory error. (ClickHouse's `uniqExact` compares 128-bit SipHash values too,
//! under a fixed key.)

mod keys;
mod stream;
mod table;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::execution_plan::{CardinalityEffect, EmissionType};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, InputOrderMode, PlanProperties,
};
use keys::Key;
use std::fmt;
use std::sync::Arc;

/// Replaces groupings without aggregates in physical plans. It must be the last rule: it keeps how rows are
/// spread over partitions, and does not say again how they must be.
#[derive(Debug)]
pub(crate) struct DistinctRows {
    key: Key,
}

impl DistinctRows {
    /// The rule with a key of its own; `None` when the system gives no random bytes.
    pub(crate) fn new() -> Option<Self> {
        Some(Self { key: Key::random()? })
    }
}

impl PhysicalOptimizerRule for DistinctRows {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            Ok(match node.downcast_ref::<AggregateExec>().and_then(|a| self.instead_of(a)) {
                Some(distinct) => Transformed::yes(Arc::new(distinct) as Arc<dyn ExecutionPlan>),
                None => Transformed::no(node),
            })
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "distinct_rows"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

impl DistinctRows {
    fn instead_of(&self, aggregate: &AggregateExec) -> Option<DistinctExec> {
        let last = match aggregate.mode() {
            AggregateMode::Partial => false,
            AggregateMode::Final
            | AggregateMode::FinalPartitioned
            | AggregateMode::Single
            | AggregateMode::SinglePartitioned => true,
            AggregateMode::PartialReduce => return None,
        };
        let group = aggregate.group_expr();
        let schema = aggregate.schema();
        let plain = aggregate.aggr_expr().is_empty()
            && aggregate.limit_options().is_none()
            && aggregate.dynamic_expressions_produced().is_empty()
            && aggregate.input_order_mode() == &InputOrderMode::Linear
            && !group.is_empty()
            && group.is_single()
            && !group.has_grouping_set()
            && group.expr().len() == schema.fields().len();
        if !plain || !schema.fields().iter().all(|field| keys::is_known(field.data_type())) {
            return None;
        }
        let properties = PlanProperties::new(
            aggregate.cache().equivalence_properties().clone(),
            aggregate.cache().output_partitioning().clone(),
            EmissionType::Incremental,
            aggregate.cache().boundedness,
        );
        Some(DistinctExec {
            key: self.key,
            last,
            columns: group.expr().iter().map(|(expr, _)| Arc::clone(expr)).collect(),
            schema,
            input: Arc::clone(aggregate.input()),
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }
}

/// The distinct rows of each partition of its input.
#[derive(Debug)]
struct DistinctExec {
    key: Key,
    /// Whether its rows must be distinct; otherwise as many are left out as is cheap.
    last: bool,
    columns: Vec<Arc<dyn PhysicalExpr>>,
    schema: SchemaRef,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl DisplayAs for DistinctExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns: Vec<String> = self.columns.iter().map(ToString::to_string).collect();
        let mode = if self.last { "Final" } else { "Partial" };
        write!(f, "DistinctExec: mode={mode}, columns=[{}]", columns.join(", "))
    }
}

impl ExecutionPlan for DistinctExec {
    fn name(&self) -> &'static str {
        "DistinctExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (Some(input), true) = (children.pop(), children.is_empty()) else {
            return internal_err!("distinct rows have one input");
        };
        Ok(Arc::new(Self {
            key: self.key,
            last: self.last,
            columns: self.columns.clone(),
            schema: Arc::clone(&self.schema),
            input,
            properties: Arc::clone(&self.properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }))
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        for column in &self.columns {
            if f(column)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, Arc::clone(&context))?;
        Ok(stream::distinct(self, input, partition, &context))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::LowerEqual
    }
}
