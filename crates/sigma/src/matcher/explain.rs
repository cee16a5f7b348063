//! Why a row matches a rule.

use super::Matcher;
use super::test::Rows;
use crate::batch::Columns;
use crate::expr::{Expr, Item, Test};
use arrow::array::RecordBatch;
use palisade_event::column::Text;
use palisade_event::schema::Core;
use serde::Serialize;

/// Values in an explanation are cut to so many bytes.
const MAX_VALUE: usize = 2_048;

/// A part of a condition, whether the row fulfils it, and the values that decided.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reason {
    /// `and`, `or`, `not`, `at least N`, the name of a search identifier, or a line of one.
    pub what: String,
    /// Whether the row fulfils it.
    pub fulfilled: bool,
    /// The value that was compared; none for a field that the row has not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The parts of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Reason>,
}

/// Why a row matches a rule, or why not.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// The rule's id.
    pub rule: String,
    /// Whether the row matches.
    pub matches: bool,
    /// The condition on records of the rule's log source; none when every record is of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Reason>,
    /// The rule's condition.
    pub condition: Reason,
}

impl Matcher {
    /// Explains a rule, by its ordinal, on a row. `None` when there is no such rule or row.
    #[must_use]
    pub fn explain(&self, batch: &RecordBatch, row: usize, rule: u32) -> Option<Explanation> {
        let (rule, source) = self.rules.get(rule as usize)?;
        if row >= batch.num_rows() {
            return None;
        }
        let mut rows = Rows::new(Columns::new(batch));
        let source = source.as_ref().map(|source| reason(&mut rows, source, row));
        let condition = reason(&mut rows, &rule.condition, row);
        let own = Text::in_batch(batch, Core::Tenant.name());
        let tenant = own.and_then(|tenants| tenants.get(row));
        let matches = condition.fulfilled
            && source.as_ref().is_none_or(|source| source.fulfilled)
            && rule.owner.as_deref().is_none_or(|owner| tenant == Some(owner));
        Some(Explanation { rule: rule.id.clone(), matches, source, condition })
    }

    /// Whether a row matches a rule, by walking the rule's condition without any index: slow, and what
    /// [`Matcher::matches`] is held against.
    #[must_use]
    pub fn matches_plainly(&self, batch: &RecordBatch) -> Vec<Vec<u32>> {
        let mut rows = Rows::new(Columns::new(batch));
        let tenants = Text::in_batch(batch, Core::Tenant.name());
        (0..batch.num_rows())
            .map(|row| {
                let mut matched = Vec::new();
                let tenant = tenants.and_then(|tenants| tenants.get(row));
                for (ordinal, (rule, source)) in self.rules.iter().enumerate() {
                    if rule.owner.as_deref().is_none_or(|owner| tenant == Some(owner))
                        && source.as_ref().is_none_or(|source| rows.fulfils(source, row))
                        && rows.fulfils(&rule.condition, row)
                    {
                        matched.push(ordinal as u32);
                    }
                }
                matched
            })
            .collect()
    }
}

fn reason(rows: &mut Rows<'_>, expr: &Expr, row: usize) -> Reason {
    let mut parts =
        |of: &[Expr]| -> Vec<Reason> { of.iter().map(|part| reason(rows, part, row)).collect() };
    match expr {
        Expr::And(of) => {
            let parts = parts(of);
            let fulfilled = parts.iter().all(|part| part.fulfilled);
            Reason { what: "and".to_owned(), fulfilled, value: None, parts }
        }
        Expr::Or(of) => {
            let parts = parts(of);
            let fulfilled = parts.iter().any(|part| part.fulfilled);
            Reason { what: "or".to_owned(), fulfilled, value: None, parts }
        }
        Expr::AtLeast(least, of) => {
            let parts = parts(of);
            let fulfilled = parts.iter().filter(|part| part.fulfilled).count() >= *least;
            Reason { what: format!("at least {least}"), fulfilled, value: None, parts }
        }
        Expr::Not(part) => {
            let part = reason(rows, part, row);
            let fulfilled = !part.fulfilled;
            Reason { what: "not".to_owned(), fulfilled, value: None, parts: vec![part] }
        }
        Expr::Selection(name, part) => {
            let part = reason(rows, part, row);
            let (what, fulfilled) = (name.to_string(), part.fulfilled);
            Reason { what, fulfilled, value: None, parts: vec![part] }
        }
        Expr::Item(item) => line(rows, item, row),
    }
}

fn line(rows: &mut Rows<'_>, item: &Item, row: usize) -> Reason {
    let fulfilled = rows.passes(item, row);
    let value = match &item.field {
        Some(field) => rows.value(field, row).map(|cell| {
            // Of several texts the one that decided.
            let passing =
                cell.texts().find(|text| item.test.passes(text, &crate::pattern::fold(text)));
            match passing {
                Some(text) => text.to_owned(),
                None => cell.texts().collect::<Vec<_>>().join(", "),
            }
        }),
        None => rows.keyword(&item.test, row),
    };
    let mut what = item.key.to_string();
    if what.is_empty() {
        what.push_str("keywords");
    }
    let matching = value.as_deref().and_then(|value| pattern(&item.test, value));
    if let Some(pattern) = matching {
        what.push_str(": ");
        what.push_str(&pattern);
    }
    Reason { what, fulfilled, value: value.map(|value| cut(&value)), parts: Vec::new() }
}

/// Which of several values of the rule a value matches.
fn pattern(test: &Test, value: &str) -> Option<String> {
    match test {
        Test::Any(patterns) => {
            let folded = crate::pattern::fold(value);
            patterns.iter().find(|pattern| pattern.matches(value, &folded)).map(ToString::to_string)
        }
        Test::Regex(expression) => Some(expression.regex.as_str().to_owned()),
        _ => None,
    }
}

fn cut(value: &str) -> String {
    if value.len() <= MAX_VALUE {
        return value.to_owned();
    }
    let end = (0..=MAX_VALUE).rev().find(|at| value.is_char_boundary(*at)).unwrap_or(0);
    format!("{} …", value.get(..end).unwrap_or_default())
}
