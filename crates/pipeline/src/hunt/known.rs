//! What was found out about rules and columns, and holds for other row groups too: they mostly have the same columns.

use arrow::datatypes::Field;
use palisade_sigma::{Book, Groups, Reads};
use parking_lot::Mutex;
use std::sync::Arc;

/// So many answers of a kind are kept.
const KEPT: usize = 64;

/// The columns of the first two steps for some groups of rules.
#[derive(Debug)]
pub(super) struct Steps {
    /// What decides which rows belong to them.
    pub(super) routing: Reads,
    /// What decides about their rules.
    pub(super) rules: Reads,
}

/// What is known, for all threads.
#[derive(Debug, Default)]
pub(super) struct Known {
    possible: Mutex<Vec<(Vec<Arc<Field>>, Groups)>>,
    steps: Mutex<Vec<(Groups, Arc<Steps>)>>,
}

impl Known {
    /// [`palisade_sigma::Matcher::possible`].
    pub(super) fn possible(&self, book: &Book, columns: &[Arc<Field>]) -> Groups {
        let mut possible = self.possible.lock();
        if let Some((_, groups)) = possible.iter().find(|(known, _)| known.as_slice() == columns) {
            return groups.clone();
        }
        let groups = book.matcher().possible(columns.iter().map(AsRef::as_ref));
        if possible.len() >= KEPT {
            possible.clear();
        }
        possible.push((columns.to_vec(), groups.clone()));
        groups
    }

    /// The columns of the steps for these groups.
    pub(super) fn steps(&self, book: &Book, groups: &Groups) -> Arc<Steps> {
        let mut steps = self.steps.lock();
        if let Some((_, found)) = steps.iter().find(|(known, _)| known == groups) {
            return Arc::clone(found);
        }
        let matcher = book.matcher();
        let found = Arc::new(Steps {
            routing: matcher.routing_reads(groups),
            rules: matcher.reads(groups),
        });
        if steps.len() >= KEPT {
            steps.clear();
        }
        steps.push((groups.clone(), Arc::clone(&found)));
        found
    }
}
