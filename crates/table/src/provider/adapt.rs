//! Reading a table's columns out of a file or batch whose columns differ: the expressions of a query,
//! written on the table's schema, are rewritten onto the columns that are really there.
//!
//! A column that is missing becomes a null of its type (or what `overflow` holds under its name), one
//! of another type is converted, JSON texts are decoded, `id` is computed, and `tenant` is the constant
//! that it is. Parquet files and in-memory batches go through the same code.

use super::functions::{JsonText, RecordIdText, WithOverflow};
use super::like::LikeText;
use super::schema::{ID, stored_name};
use arrow::compute::can_cast_types;
use arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::ScalarUDF;
use datafusion::physical_expr::expressions::{CastExpr, Column, LikeExpr, Literal};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_expr_adapter::{PhysicalExprAdapter, PhysicalExprAdapterFactory};
use palisade_event::schema::{Core, EVENTS, is_json};
use std::sync::Arc;

/// The metadata key of a field of which a file is known to hold nulls only.
pub(super) const EMPTY_KEY: &str = "palisade.empty";
/// The metadata key of a field that is known to have the same text in every row of a file: that text.
pub(super) const CONSTANT_KEY: &str = "palisade.constant";

/// Makes adapters for one table and tenant.
#[derive(Debug, Clone)]
pub(super) struct RowAdapterFactory {
    pub(super) table: Arc<str>,
    pub(super) tenant: Arc<str>,
    pub(super) options: Arc<ConfigOptions>,
}

impl RowAdapterFactory {
    pub(super) fn adapter(&self, logical: SchemaRef, physical: SchemaRef) -> RowAdapter {
        RowAdapter { factory: self.clone(), logical, physical }
    }
}

impl PhysicalExprAdapterFactory for RowAdapterFactory {
    fn create(
        &self,
        logical_file_schema: SchemaRef,
        physical_file_schema: SchemaRef,
    ) -> Result<Arc<dyn PhysicalExprAdapter>> {
        Ok(Arc::new(self.adapter(logical_file_schema, physical_file_schema)))
    }
}

/// Rewrites expressions on the table's columns onto those of one file or batch.
#[derive(Debug)]
pub(super) struct RowAdapter {
    factory: RowAdapterFactory,
    logical: SchemaRef,
    physical: SchemaRef,
}

impl PhysicalExprAdapter for RowAdapter {
    fn rewrite(&self, expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
        expr.transform(|expr| {
            if let Some(column) = expr.downcast_ref::<Column>() {
                return Ok(Transformed::yes(self.column(column.name())?));
            }
            Ok(match expr.downcast_ref::<LikeExpr>().and_then(|like| self.like(like)) {
                Some(own) => Transformed::yes(own),
                None => Transformed::no(expr),
            })
        })
        .data()
    }
}

fn null(target: &DataType) -> Result<Arc<dyn PhysicalExpr>> {
    Ok(Arc::new(Literal::new(ScalarValue::try_new_null(target)?)))
}

impl RowAdapter {
    /// What a column of the table is in this file or batch.
    pub(super) fn column(&self, name: &str) -> Result<Arc<dyn PhysicalExpr>> {
        let events = self.factory.table.as_ref() == EVENTS;
        let target = match self.logical.field_with_name(name) {
            Ok(field) => field.data_type().clone(),
            Err(_) => match self.physical.field_with_name(name) {
                Ok(field) => field.data_type().clone(),
                Err(_) => return exec_err!("column '{name}' is in neither schema"),
            },
        };
        if name == Core::Tenant.name() {
            let tenant = ScalarValue::Utf8View(Some(self.factory.tenant.to_string()));
            return Ok(Arc::new(Literal::new(tenant)));
        }
        if events && name == ID {
            return self.record_id();
        }
        let stored = self.stored(stored_name(&self.factory.table, name));
        let column = match stored {
            Some((index, field)) => self.convert(index, field, &target)?,
            None => null(&target)?,
        };
        if events && Core::by_name(name).is_none() {
            return self.with_overflow(name, column, target);
        }
        Ok(column)
    }

    /// The column of this name that is really there and holds anything.
    fn stored(&self, name: &str) -> Option<(usize, &Field)> {
        let (index, field) = self.physical.column_with_name(name)?;
        (!field.metadata().contains_key(EMPTY_KEY)).then_some((index, field))
    }

    fn convert(
        &self,
        index: usize,
        field: &Field,
        target: &DataType,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(field.name(), index));
        if is_json(field) {
            let decoded = self.call(JsonText::new(), vec![column], DataType::Utf8View);
            return Ok(match target {
                DataType::Utf8View => decoded,
                other => Arc::new(CastExpr::new(decoded, other.clone(), None)),
            });
        }
        if field.data_type() == target {
            return Ok(column);
        }
        if !can_cast_types(field.data_type(), target) {
            return exec_err!(
                "column '{}' is stored as {} and cannot be read as {target}",
                field.name(),
                field.data_type()
            );
        }
        Ok(Arc::new(CastExpr::new(column, target.clone(), None)))
    }

    fn with_overflow(
        &self,
        name: &str,
        column: Arc<dyn PhysicalExpr>,
        target: DataType,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        let Some((index, field)) = self.stored(Core::Overflow.name()) else {
            return Ok(column);
        };
        let overflow = Arc::new(Column::new(field.name(), index));
        let name = stored_name(&self.factory.table, name);
        let function = WithOverflow::new(name, target.clone());
        Ok(self.call(function, vec![column, overflow], target))
    }

    /// A `LIKE` with which the kernel is slow.
    fn like(&self, like: &LikeExpr) -> Option<Arc<dyn PhysicalExpr>> {
        let pattern = like.pattern().downcast_ref::<Literal>()?.value().try_as_str()??;
        let own = LikeText::new(pattern, like.negated()).filter(|_| !like.case_insensitive())?;
        Some(self.call(own, vec![Arc::clone(like.expr())], DataType::Boolean))
    }

    fn record_id(&self) -> Result<Arc<dyn PhysicalExpr>> {
        let mut args = Vec::with_capacity(3);
        for core in [Core::Source, Core::EventId, Core::RecordId] {
            let wanted = match core {
                Core::RecordId => DataType::FixedSizeBinary(16),
                _ => DataType::Utf8View,
            };
            args.push(match self.stored(core.name()) {
                Some((index, field)) => match field.metadata().get(CONSTANT_KEY) {
                    Some(text) => Arc::new(Literal::new(ScalarValue::Utf8View(Some(text.clone())))),
                    None => self.convert(index, field, &wanted)?,
                },
                None => null(&wanted)?,
            });
        }
        let function = RecordIdText::new(Arc::clone(&self.factory.tenant));
        Ok(self.call(function, args, DataType::Utf8View))
    }

    fn call(
        &self,
        function: impl datafusion::logical_expr::ScalarUDFImpl + 'static,
        args: Vec<Arc<dyn PhysicalExpr>>,
        returns: DataType,
    ) -> Arc<dyn PhysicalExpr> {
        let function = Arc::new(ScalarUDF::from(function));
        let name = function.name().to_owned();
        let field = Arc::new(Field::new(&name, returns, true));
        let options = Arc::clone(&self.factory.options);
        Arc::new(ScalarFunctionExpr::new(&name, function, args, field, options))
    }
}
