//! Names in queries: columns whose names hold dots or capitals may be written without quotes, and an
//! unknown name is answered with the nearest known ones.
//!
//! `winlog.event_data.Image` is read as one column where the table has a column of that name; SQL alone
//! would read it as a column of a table of a schema. An alias of the query wins over such a column.

use crate::walk::{Walk, walk};
use datafusion::logical_expr::sqlparser::ast::{Expr, Ident, Query, Statement, TableFactor};
use std::collections::BTreeSet;
use std::ops::ControlFlow;

/// Up to three names near this one, quoted as SQL needs them.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let wanted = name.to_lowercase();
    let allowed = (wanted.chars().count() / 3).clamp(1, 4);
    let mut found: Vec<(usize, &str)> = known
        .filter_map(|candidate| {
            let lower = candidate.to_lowercase();
            let distance = if lower == wanted {
                0
            } else if wanted.len() > 2 && (lower.contains(&wanted) || wanted.contains(&lower)) {
                1
            } else {
                distance(&wanted, &lower, allowed)?
            };
            Some((distance, candidate))
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    let found: Vec<String> = found.into_iter().take(3).map(|(_, name)| quoted(name)).collect();
    (!found.is_empty()).then(|| found.join(", "))
}

/// A name as it must be written in SQL.
fn quoted(name: &str) -> String {
    let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// The edit distance of two texts when it is at most `allowed`.
fn distance(left: &str, right: &str, allowed: usize) -> Option<usize> {
    let right: Vec<char> = right.chars().take(200).collect();
    if left.chars().count().abs_diff(right.len()) > allowed {
        return None;
    }
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate().take(200) {
        let mut next = Vec::with_capacity(row.len());
        next.push(i + 1);
        let mut before = i + 1;
        for (b, pair) in right.iter().zip(row.windows(2)) {
            let [diagonal, above] = pair else { break };
            before = (diagonal + usize::from(a != *b)).min(above + 1).min(before + 1);
            next.push(before);
        }
        row = next;
    }
    row.last().copied().filter(|distance| *distance <= allowed)
}

/// Quotes the columns of `known` that a statement names without quotes.
pub(crate) fn resolve(statement: &mut Statement, known: &BTreeSet<String>) {
    let mut aliases = Aliases::default();
    walk(statement, &mut aliases);
    let mut resolver = Resolver { known, aliases: aliases.names };
    walk(statement, &mut resolver);
}

/// How a statement spells a name that is known in lower case only.
pub(crate) fn spelled(statement: &mut Statement, lower: &str) -> Option<String> {
    let mut search = Spelling { lower, found: None };
    walk(statement, &mut search);
    search.found
}

struct Spelling<'a> {
    lower: &'a str,
    found: Option<String>,
}

impl Walk for Spelling<'_> {
    fn expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let parts = match expr {
            Expr::Identifier(ident) => std::slice::from_ref(ident),
            Expr::CompoundIdentifier(parts) => parts.as_slice(),
            _ => return ControlFlow::Continue(()),
        };
        let name: Vec<&str> = parts.iter().map(|part| part.value.as_str()).collect();
        let name = name.join(".");
        if name.to_lowercase() == self.lower {
            self.found = Some(name);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}

/// Every name by which the statement calls a table.
#[derive(Default)]
struct Aliases {
    names: BTreeSet<String>,
}

impl Walk for Aliases {
    fn table(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        let alias = match factor {
            TableFactor::Table { name, alias, .. } => {
                for part in &name.0 {
                    if let Some(ident) = part.as_ident() {
                        self.names.insert(ident.value.to_lowercase());
                    }
                }
                alias
            }
            TableFactor::Derived { alias, .. } | TableFactor::NestedJoin { alias, .. } => alias,
            _ => return ControlFlow::Continue(()),
        };
        if let Some(alias) = alias {
            self.names.insert(alias.name.value.to_lowercase());
        }
        ControlFlow::Continue(())
    }

    fn query(&mut self, query: &mut Query) -> ControlFlow<()> {
        for table in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.names.insert(table.alias.name.value.to_lowercase());
        }
        ControlFlow::Continue(())
    }
}

struct Resolver<'a> {
    known: &'a BTreeSet<String>,
    aliases: BTreeSet<String>,
}

impl Resolver<'_> {
    fn find(&self, parts: &[Ident]) -> Option<Ident> {
        if parts.iter().any(|part| part.quote_style.is_some()) {
            return None;
        }
        let name: Vec<&str> = parts.iter().map(|part| part.value.as_str()).collect();
        let name = name.join(".");
        self.known.contains(&name).then(|| Ident::with_quote('"', name))
    }
}

impl Walk for Resolver<'_> {
    fn expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Identifier(ident) => {
                if let Some(found) = self.find(std::slice::from_ref(ident)) {
                    *ident = found;
                }
            }
            Expr::CompoundIdentifier(parts) => {
                let first = parts.first().map(|part| part.value.to_lowercase());
                let aliased = first.is_some_and(|first| self.aliases.contains(&first));
                if aliased {
                    let found = parts.get(1..).and_then(|rest| self.find(rest));
                    if let (Some(first), Some(found)) = (parts.first().cloned(), found) {
                        *parts = vec![first, found];
                    }
                } else if let Some(found) = self.find(parts) {
                    *expr = Expr::Identifier(found);
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::logical_expr::sqlparser::dialect::GenericDialect;
    use datafusion::logical_expr::sqlparser::parser::Parser;

    #[test]
    fn near_names_are_found() {
        let known = ["user", "user_agent", "src_ip", "Image", "winlog.event_data.Image"];
        let near = |name| nearest(name, known.into_iter());
        assert_eq!(near("usr").as_deref(), Some("user"));
        assert_eq!(near("source_ip").as_deref(), Some("src_ip"));
        assert_eq!(near("srcip").as_deref(), Some("src_ip"));
        assert_eq!(near("image").as_deref(), Some("\"Image\", \"winlog.event_data.Image\""));
        assert_eq!(near("zzz"), None);
    }

    #[test]
    fn dotted_columns_need_no_quotes_and_aliases_win() {
        let known: BTreeSet<String> =
            ["a.b.C", "Image", "e.x"].into_iter().map(str::to_owned).collect();
        let resolved = |sql: &str| {
            let mut parsed = Parser::parse_sql(&GenericDialect {}, sql).unwrap();
            resolve(&mut parsed[0], &known);
            parsed[0].to_string()
        };
        assert_eq!(
            resolved("SELECT a.b.C, Image, image FROM events WHERE a.b.C = 1"),
            "SELECT \"a.b.C\", \"Image\", image FROM events WHERE \"a.b.C\" = 1"
        );
        assert_eq!(
            resolved("SELECT e.x, e.a.b.C FROM events AS e"),
            "SELECT e.x, e.\"a.b.C\" FROM events AS e"
        );
        assert_eq!(
            resolved("WITH e AS (SELECT e.x FROM events) SELECT e.x FROM e"),
            "WITH e AS (SELECT e.x FROM events) SELECT e.x FROM e"
        );
    }
}
