//! Filters that are applied to what rules have matched, row by row: for one tenant's exceptions, which come and go
//! without compiling any rule again and without a new version of one.

use crate::batch::Columns;
use crate::book::Book;
use crate::expr::Expr;
use crate::filter::Filter;
use crate::matcher::Rows;
use crate::rule::{LogSource, Rule};
use arrow::array::RecordBatch;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use std::sync::Arc;

/// Filters over the rules of a book.
#[derive(Debug, Default)]
pub struct Exclusions {
    /// By a rule's ordinal: which filter, and its condition for that rule.
    by_rule: HashMap<u32, Vec<(usize, Arc<Expr>)>, FixedState>,
}

/// A batch under the eyes of [`Exclusions`].
pub struct Sieve<'b>(Rows<'b>);

impl std::fmt::Debug for Sieve<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sieve").finish_non_exhaustive()
    }
}

impl<'b> Sieve<'b> {
    /// Over a batch.
    #[must_use]
    pub fn new(batch: &'b RecordBatch) -> Self {
        Self(Rows::new(Columns::new(batch)))
    }
}

impl Exclusions {
    /// These filters over those rules of a book that `may` says. Where a filter can't be applied to a rule (a pipeline
    /// refuses its log source) it is not.
    #[must_use]
    pub fn new(book: &Book, filters: &[&Filter], may: impl Fn(&Rule) -> bool) -> Self {
        let mut by_rule: HashMap<u32, Vec<(usize, Arc<Expr>)>, FixedState> = HashMap::default();
        for (place, filter) in filters.iter().enumerate() {
            let mut conditions: HashMap<&LogSource, Option<Arc<Expr>>, FixedState> =
                HashMap::default();
            for (ordinal, rule) in (0u32..).zip(book.rules()) {
                if !filter.is_for(rule) || !may(rule) {
                    continue;
                }
                let condition = conditions.entry(&rule.source).or_insert_with(|| {
                    let read = filter.condition(&book.pipelines, &rule.source).ok();
                    read.map(|(condition, _)| Arc::new(condition))
                });
                if let Some(condition) = condition {
                    by_rule.entry(ordinal).or_default().push((place, Arc::clone(condition)));
                }
            }
        }
        Self { by_rule }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_rule.is_empty()
    }

    /// Whether a filter, of those that `holds` says, leaves out a match of a rule.
    pub fn leaves_out(
        &self,
        sieve: &mut Sieve<'_>,
        (row, rule): (usize, u32),
        holds: impl Fn(usize) -> bool,
    ) -> bool {
        let filters = self.by_rule.get(&rule).into_iter().flatten();
        let mut in_force = filters.filter(|(place, _)| holds(*place));
        in_force.any(|(_, condition)| !sieve.0.fulfils(condition, row))
    }
}
