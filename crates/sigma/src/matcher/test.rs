//! Tests of single values, and the plain evaluator that walks a condition row by row. It explains
//! matches, and the fast one is held against it.

use crate::batch::{Cell, Columns, NO_VALUE, Searched, View};
use crate::expr::{Expr, How, Item, Test};
use crate::field::Field;
use crate::pattern::fold;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use std::sync::Arc;

impl Test {
    /// Whether a text passes. What needs more than one value never does.
    pub(crate) fn passes(&self, raw: &str, folded: &str) -> bool {
        match self {
            Self::Any(patterns) => patterns.iter().any(|pattern| pattern.matches(raw, folded)),
            Self::Regex(expression) => expression.is_match(raw),
            Self::Cidr(network) => network.contains(raw),
            Self::Compare(order, number) => {
                crate::expr::number(raw).is_some_and(|value| order.holds(value, *number))
            }
            Self::Part(part, numbers) => part.of(raw).is_some_and(|value| {
                numbers.iter().any(|(order, number)| order.holds(value, *number))
            }),
            Self::Exists => true,
            Self::Null | Self::Field { .. } => false,
        }
    }

    /// Whether one of a value's texts passes.
    pub(crate) fn passes_cell(&self, cell: &Cell<'_>) -> bool {
        *self == Self::Exists || cell.texts().any(|text| self.passes(text, &fold(text)))
    }
}

/// Whether a text of one value stands in a relation to one of another.
pub(crate) fn relates(how: How, cased: bool, left: &Cell<'_>, right: &Cell<'_>) -> bool {
    left.texts().any(|left| {
        right.texts().any(|right| {
            let relates = |left: &str, right: &str| match how {
                How::Equal => left == right,
                How::StartsWith => left.starts_with(right),
                How::EndsWith => left.ends_with(right),
                How::Contains => left.contains(right),
            };
            if cased { relates(left, right) } else { relates(&fold(left), &fold(right)) }
        })
    })
}

/// A batch and the fields that were asked for.
pub(crate) struct Rows<'a> {
    pub(crate) columns: Columns<'a>,
    fields: HashMap<Arc<Field>, View<'a>, FixedState>,
    searched: Option<Vec<Searched<'a>>>,
}

impl<'a> Rows<'a> {
    pub(crate) fn new(columns: Columns<'a>) -> Self {
        Self { columns, fields: HashMap::default(), searched: None }
    }

    /// The value of a field in a row.
    pub(crate) fn value(&mut self, field: &Arc<Field>, row: usize) -> Option<Cell<'a>> {
        let columns = &self.columns;
        let view = self.fields.entry(Arc::clone(field)).or_insert_with(|| columns.field(field));
        let id = view.id(columns, row);
        if id == NO_VALUE { None } else { view.cell(id).cloned() }
    }

    /// Whether a row fulfils a condition.
    pub(crate) fn fulfils(&mut self, expr: &Expr, row: usize) -> bool {
        match expr {
            Expr::And(parts) => parts.iter().all(|part| self.fulfils(part, row)),
            Expr::Or(parts) => parts.iter().any(|part| self.fulfils(part, row)),
            Expr::AtLeast(least, parts) => {
                parts.iter().filter(|part| self.fulfils(part, row)).count() >= *least
            }
            Expr::Not(part) => !self.fulfils(part, row),
            Expr::Selection(_, part) => self.fulfils(part, row),
            Expr::Item(item) => self.passes(item, row),
        }
    }

    /// Whether a row passes a test.
    pub(crate) fn passes(&mut self, item: &Item, row: usize) -> bool {
        let Some(field) = &item.field else {
            return self.keyword(&item.test, row).is_some();
        };
        let value = self.value(field, row);
        match (&item.test, value) {
            (Test::Null, value) => value.is_none(),
            (Test::Field { other, how, cased }, Some(value)) => {
                self.value(other, row).is_some_and(|other| relates(*how, *cased, &value, &other))
            }
            (test, Some(value)) => test.passes_cell(&value),
            (_, None) => false,
        }
    }

    /// The first value of the row that passes a test, whatever its field.
    pub(crate) fn keyword(&mut self, test: &Test, row: usize) -> Option<String> {
        let columns = &self.columns;
        let searched = self.searched.get_or_insert_with(|| columns.searched());
        searched.iter_mut().find_map(|searched| match searched {
            Searched::Plain(place) => columns
                .plain(*place, row)
                .filter(|text| test.passes(text, &fold(text)))
                .map(|text| text.into_owned()),
            Searched::Distinct(_, view) => {
                let id = view.id(columns, row);
                let cell = if id == NO_VALUE { None } else { view.cell(id) }?;
                cell.texts().find(|text| test.passes(text, &fold(text))).map(str::to_owned)
            }
        })
    }
}
