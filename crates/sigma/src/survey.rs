//! What the rules of a book need and what records have: which fields were ever sent, which log sources were ever seen,
//! and so which rules can't match anything.

use crate::batch::{Columns, NO_VALUE};
use crate::book::Book;
use crate::expr::{Expr, Test};
use crate::field::Field;
use arrow::array::RecordBatch;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use palisade_event::schema::{self, Core};
use serde::Serialize;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A field that a rule reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Need {
    /// As the rule writes it.
    pub name: String,
    /// Under which names records may have it, pipelines applied; the first with a value is taken.
    pub paths: Vec<String>,
    /// Whether any record that was looked at has a value for it.
    pub seen: bool,
}

/// What a rule needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Needs {
    /// The fields that it reads, by name.
    pub fields: Vec<Need>,
    /// How many of the rows that were looked at belong to its log source.
    pub rows: u64,
    /// Whether it can't match: whatever values come, its condition fails for lack of fields that nobody sends, or no
    /// row belongs to its log source.
    pub blind: bool,
}

/// What was looked at so far.
#[derive(Debug)]
pub struct Survey<'b> {
    book: &'b Book,
    seen: HashMap<Arc<Field>, bool, FixedState>,
    /// By a rule's ordinal.
    sources: Vec<u64>,
    rows: u64,
}

impl<'b> Survey<'b> {
    /// A survey for some rules of a book, by their ordinals, that has looked at nothing.
    #[must_use]
    pub fn new(book: &'b Book, ordinals: &[u32]) -> Self {
        let mut seen = HashMap::default();
        for rule in ordinals.iter().filter_map(|ordinal| book.rule(*ordinal)) {
            rule.condition.each_field(&mut |field| {
                seen.entry(Arc::clone(field)).or_insert(false);
            });
        }
        Self { book, seen, sources: vec![0; book.rules().count()], rows: 0 }
    }

    /// Looks at a batch with all columns.
    pub fn take(&mut self, batch: &RecordBatch) {
        self.rows += batch.num_rows() as u64;
        self.book.matcher().count_sources(batch, &mut self.sources);
        self.take_columns(batch);
    }

    /// Looks at a batch with the columns that [`Survey::wants`] said: for fields only.
    pub fn take_columns(&mut self, batch: &RecordBatch) {
        let columns = Columns::new(batch);
        for (field, seen) in self.seen.iter_mut().filter(|(_, seen)| !**seen) {
            let mut view = columns.field(field);
            *seen = !view.is_empty()
                && (0..batch.num_rows()).any(|row| view.id(&columns, row) != NO_VALUE);
        }
    }

    /// The columns in which fields that were not seen yet may stand.
    #[must_use]
    pub fn wants(&self) -> Wanted {
        let mut wanted = Wanted::default();
        for (field, _) in self.seen.iter().filter(|(_, seen)| !**seen) {
            wanted.any = true;
            for path in field.paths.iter() {
                let core = Core::by_name(path).or_else(|| schema::alias(path));
                wanted.names.extend(core.map(|core| core.name().to_owned()));
                // What stands for several names is looked for by the part before it.
                let path = path.split_once('*').map_or(path.as_str(), |(before, _)| before);
                wanted.names.insert(path.to_owned());
            }
        }
        wanted
    }

    /// How many rows were looked at with all columns.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// What a rule needs, by its ordinal.
    #[must_use]
    pub fn needs(&self, ordinal: u32) -> Option<Needs> {
        let rule = self.book.rule(ordinal)?;
        let mut fields: Vec<Need> = Vec::new();
        rule.condition.each_field(&mut |field| {
            if !fields.iter().any(|need| *need.name == *field.name) {
                let paths = field.plain_paths().cloned().collect();
                let name = field.name.to_string();
                fields.push(Need { name, paths, seen: self.has(field) });
            }
        });
        fields.sort_by(|one, other| one.name.cmp(&other.name));
        let rows = self.sources.get(ordinal as usize).copied().unwrap_or(0);
        let blind = rows == 0 || !self.can(&rule.condition, true);
        Some(Needs { fields, rows, blind })
    }

    fn has(&self, field: &Arc<Field>) -> bool {
        self.seen.get(field).copied().unwrap_or(false)
    }

    /// Whether a condition may be `wanted` for records that have only the fields that were seen.
    fn can(&self, expr: &Expr, wanted: bool) -> bool {
        match expr {
            Expr::And(parts) if wanted => parts.iter().all(|part| self.can(part, true)),
            Expr::And(parts) => parts.iter().any(|part| self.can(part, false)),
            Expr::Or(parts) if wanted => parts.iter().any(|part| self.can(part, true)),
            Expr::Or(parts) => parts.iter().all(|part| self.can(part, false)),
            Expr::AtLeast(least, parts) => {
                let can = parts.iter().filter(|part| self.can(part, wanted)).count();
                if wanted { can >= *least } else { parts.len() - can < *least }
            }
            Expr::Not(part) => self.can(part, !wanted),
            Expr::Selection(_, part) => self.can(part, wanted),
            Expr::Item(item) => match (&item.field, &item.test) {
                (None, _) => true,
                // Every record may lack a field; only one that is sent can be there.
                (Some(field), Test::Null) => wanted || self.has(field),
                (Some(field), Test::Field { other, .. }) => {
                    !wanted || self.has(field) && self.has(other)
                }
                (Some(field), _) => !wanted || self.has(field),
            },
        }
    }
}

/// Columns in which fields are looked for.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    any: bool,
    names: BTreeSet<String>,
}

impl Wanted {
    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.any
    }

    /// Whether a field may stand in the column of this name.
    #[must_use]
    pub fn contains(&self, column: &str) -> bool {
        if !self.any {
            return false;
        }
        let bare: String = column.split_whitespace().collect();
        let sent = column.strip_prefix("sent.").unwrap_or(column);
        if column == Core::Overflow.name()
            || [column, &bare, sent].iter().any(|name| self.names.contains(*name))
        {
            return true;
        }
        // Below a column of JSON texts, or a name of which the column is one of several.
        let below = format!("{column}.");
        let mut behind = self.names.range(below.clone()..);
        behind.next().is_some_and(|name| name.starts_with(&below))
            || column
                .match_indices('.')
                .any(|(at, _)| column.get(..=at).is_some_and(|name| self.names.contains(name)))
    }
}
