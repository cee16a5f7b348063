//! What a query may do: read. Statements and plans are let through by a list of what is known to read,
//! so that whatever the SQL engine learns later is refused until it is put on the list.

use crate::QueryError;
use crate::walk::{Walk, walk};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::sqlparser::ast::Statement as Sql;
use datafusion::logical_expr::sqlparser::ast::{Expr, Query, SelectItem, SetExpr, TableFactor};
use datafusion::logical_expr::sqlparser::dialect::GenericDialect;
use datafusion::logical_expr::sqlparser::keywords::Keyword;
use datafusion::logical_expr::sqlparser::tokenizer::{Token, Tokenizer};
use datafusion::sql::parser::Statement;
use std::ops::ControlFlow;

/// Tables of `information_schema` that tell about the process and not about data.
const HIDDEN: [&str; 1] = ["df_settings"];

/// The deepest that expressions and set operations of a statement may be nested. A chain such as
/// `a OR b OR c` is as deep as it is long; `IN (…)` is not.
pub const MAX_DEPTH: usize = 500;

/// The most words of a text that the parser follows by recursion without counting: one is enough for anything
/// that can be answered.
const MAX_CHAIN: usize = 64;

/// The most tables of a statement, and the most columns that its lists name, a `*` being taken for
/// [`STAR`] of them: planning puts the columns of all tables together at each.
const MAX_TABLES: usize = 100;
const MAX_ITEMS: usize = 10_000;
const STAR: usize = 100;

/// Refuses a text on which the parser would run out of stack, which ends the process. It counts how deep
/// expressions and queries are nested, but not every bracket, and not `EXPLAIN EXPLAIN …`,
/// `INTERVAL INTERVAL …`, `ARRAY<ARRAY<…` and `[][]…`.
///
/// # Errors
/// [`QueryError::TooComplex`] with the depth at which counting stopped.
pub fn check_text(sql: &str) -> Result<(), QueryError> {
    // What can't be taken apart is told by the parser, which begins with the same step.
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, sql).tokenize() else { return Ok(()) };
    let (mut open, mut chained) = (0usize, 0usize);
    let mut before: Option<&Token> = None;
    for token in tokens.iter().filter(|token| !matches!(token, Token::Whitespace(_))) {
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => open += 1,
            Token::RParen | Token::RBrace => open = open.saturating_sub(1),
            Token::RBracket => {
                open = open.saturating_sub(1);
                chained += usize::from(matches!(before, Some(Token::LBracket)));
            }
            Token::Lt => {
                let kind = matches!(before, Some(Token::Word(word)) if matches!(
                    word.keyword,
                    Keyword::ARRAY | Keyword::STRUCT | Keyword::MAP
                ));
                chained += usize::from(kind);
            }
            Token::Word(word) => {
                let again =
                    matches!(before, Some(Token::Word(other)) if other.keyword == word.keyword);
                let nests = word.keyword == Keyword::EXPLAIN
                    || (again && word.keyword == Keyword::INTERVAL);
                chained += usize::from(nests);
            }
            _ => {}
        }
        if open > MAX_DEPTH {
            return Err(QueryError::TooComplex { nodes: open, limit: MAX_DEPTH });
        }
        if chained > MAX_CHAIN {
            return Err(QueryError::TooComplex { nodes: chained, limit: MAX_CHAIN });
        }
        before = Some(token);
    }
    Ok(())
}

/// Refuses a statement that is nested deeper than [`MAX_DEPTH`], as planning walks it by recursion, or that
/// names very many tables or columns.
///
/// # Errors
/// [`QueryError::TooComplex`] with the number at which counting stopped.
pub fn check_depth(statement: &mut Statement) -> Result<(), QueryError> {
    let sql = match statement {
        Statement::Statement(sql) => sql,
        Statement::Explain(explain) => match explain.statement.as_mut() {
            Statement::Statement(sql) => sql,
            _ => return Ok(()),
        },
        _ => return Ok(()),
    };
    let mut depth = Depth { now: 0, most: 0, tables: 0, items: 0 };
    walk(sql, &mut depth);
    let bounds = [(depth.most, MAX_DEPTH), (depth.tables, MAX_TABLES), (depth.items, MAX_ITEMS)];
    match bounds.into_iter().find(|(nodes, limit)| nodes > limit) {
        Some((nodes, limit)) => Err(QueryError::TooComplex { nodes, limit }),
        None => Ok(()),
    }
}

struct Depth {
    now: usize,
    most: usize,
    tables: usize,
    items: usize,
}

impl Depth {
    /// Breaks off beyond the limit.
    fn reach(&mut self, depth: usize) -> ControlFlow<()> {
        self.most = self.most.max(depth);
        if depth > MAX_DEPTH { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn enter(&mut self) -> ControlFlow<()> {
        self.now += 1;
        self.reach(self.now)
    }

    /// Counts what a list of columns names.
    fn list(&mut self, body: &SetExpr) {
        let SetExpr::Select(select) = body else { return };
        for item in &select.projection {
            let star =
                matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(_, _));
            self.items += if star { STAR } else { 1 };
        }
    }
}

impl Walk for Depth {
    fn expr(&mut self, _: &mut Expr) -> ControlFlow<()> {
        self.enter()
    }

    fn expr_end(&mut self) {
        self.now = self.now.saturating_sub(1);
    }

    fn query(&mut self, query: &mut Query) -> ControlFlow<()> {
        // UNIONs lean to the left, and are not visited one by one.
        let mut chain = 0;
        let mut body = query.body.as_ref();
        while let SetExpr::SetOperation { left, right, .. } = body {
            chain += 1;
            self.list(right);
            body = left;
        }
        self.list(body);
        self.reach(self.now + chain)?;
        if self.items > MAX_ITEMS {
            return ControlFlow::Break(());
        }
        self.enter()
    }

    fn table(&mut self, _: &mut TableFactor) -> ControlFlow<()> {
        self.tables += 1;
        if self.tables > MAX_TABLES { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn query_end(&mut self) {
        self.now = self.now.saturating_sub(1);
    }
}

/// Refuses a statement that is not one of those that read.
///
/// # Errors
/// [`QueryError::Refused`] with the name of what was asked for.
pub fn check_statement(statement: &Statement) -> Result<(), QueryError> {
    match statement {
        Statement::Explain(explain) => match explain.statement.as_ref() {
            Statement::Statement(inner) if matches!(inner.as_ref(), Sql::Query(_)) => Ok(()),
            other => Err(refused(other)),
        },
        Statement::Statement(sql) => match sql.as_ref() {
            Sql::Query(_) | Sql::ShowTables { .. } | Sql::ShowColumns { .. } => Ok(()),
            Sql::ExplainTable { .. } => Ok(()),
            Sql::Explain { statement, .. } if matches!(statement.as_ref(), Sql::Query(_)) => Ok(()),
            _ => Err(refused(statement)),
        },
        other => Err(refused(other)),
    }
}

/// The first words of a statement, which say what it is.
fn refused(statement: &Statement) -> QueryError {
    let text = statement.to_string();
    let words: Vec<&str> = text.split_whitespace().take(2).collect();
    QueryError::Refused(words.join(" ").chars().take(60).collect())
}

/// Refuses a plan in which any node, in subqueries too, does something else than read; counts the nodes.
///
/// # Errors
/// [`QueryError::Refused`] for such a node, [`QueryError::TooComplex`] for more than `limit` nodes.
pub fn check_plan(plan: &LogicalPlan, limit: usize) -> Result<(), QueryError> {
    let mut nodes = 0;
    let mut refused = None;
    let visited = plan.apply_with_subqueries(|node| {
        nodes += 1;
        refused = refusal(node);
        let stop = refused.is_some() || nodes > limit;
        Ok(if stop { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    if let Some(what) = refused {
        return Err(QueryError::Refused(what));
    }
    if nodes > limit {
        return Err(QueryError::TooComplex { nodes, limit });
    }
    visited.map(|_| ()).map_err(|error| QueryError::Internal(error.to_string()))
}

/// What is refused about a node, if anything is.
fn refusal(node: &LogicalPlan) -> Option<String> {
    match node {
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Window(_)
        | LogicalPlan::Aggregate(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Join(_)
        | LogicalPlan::Repartition(_)
        | LogicalPlan::Union(_)
        | LogicalPlan::EmptyRelation(_)
        | LogicalPlan::Subquery(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::Values(_)
        | LogicalPlan::Explain(_)
        | LogicalPlan::Analyze(_)
        | LogicalPlan::Distinct(_)
        | LogicalPlan::DescribeTable(_)
        | LogicalPlan::Unnest(_)
        | LogicalPlan::RecursiveQuery(_) => None,
        LogicalPlan::TableScan(scan) => HIDDEN
            .contains(&scan.table_name.table())
            .then(|| format!("reading {}", scan.table_name)),
        other => {
            let shown = other.display().to_string();
            Some(shown.split([':', ' ']).next().unwrap_or("this").to_owned())
        }
    }
}
