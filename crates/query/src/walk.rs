//! Walking a statement's syntax tree. The tree's own visitor is generic code for every kind of node, a
//! megabyte of it for each type that visits; so there is one such type, and it asks a [`Walk`].

use datafusion::logical_expr::sqlparser::ast::{
    Expr, Query, Statement, TableFactor, VisitMut, VisitorMut,
};
use std::ops::ControlFlow;

/// What to do on the way. Breaking off ends the walk.
pub(crate) trait Walk {
    /// Before the parts of an expression.
    fn expr(&mut self, _: &mut Expr) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// After the parts of an expression.
    fn expr_end(&mut self) {}

    /// Before the parts of a query or subquery.
    fn query(&mut self, _: &mut Query) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// After the parts of a query or subquery.
    fn query_end(&mut self) {}

    /// Before the parts of something that stands in FROM.
    fn table(&mut self, _: &mut TableFactor) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

struct Walker<'w>(&'w mut dyn Walk);

impl VisitorMut for Walker<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        self.0.expr(expr)
    }

    fn post_visit_expr(&mut self, _: &mut Expr) -> ControlFlow<()> {
        self.0.expr_end();
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        self.0.query(query)
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.0.query_end();
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        self.0.table(factor)
    }
}

/// Walks a statement, parents before their parts.
pub(crate) fn walk(statement: &mut Statement, with: &mut dyn Walk) {
    let _ = VisitMut::visit(statement, &mut Walker(with));
}
