//! Keywords: tests that any value of a row may pass.

use super::compile::Keyword;
use super::run::remembered;
use crate::batch::{Columns, NO_VALUE, Searched};
use crate::pattern::fold_into;
use foldhash::fast::FixedState;
use hashbrown::HashMap;

/// After so many rows that were asked one by one, all rows of the group are, column by column: a row has
/// values in few of a batch's columns.
const SINGLY: u32 = 8;

/// What was found out about the keywords of a group in a batch.
#[derive(Debug, Default)]
pub(super) struct Keywords {
    states: HashMap<u32, State, FixedState>,
    folded: String,
}

#[derive(Debug, Default)]
struct State {
    asked: u32,
    /// For each searched column what each of its values answered, 0 when it was not asked.
    answers: Vec<Vec<u8>>,
    /// The rows that pass, once all were asked.
    rows: Option<Vec<bool>>,
}

impl Keywords {
    /// Whether a row passes; `rows` are those of the group.
    pub(super) fn hold<'a>(
        &mut self,
        (item, keyword): (u32, &Keyword),
        columns: &Columns<'a>,
        searched: &mut [Searched<'a>],
        row: usize,
        rows: &[u32],
    ) -> bool {
        let state = self.states.entry(item).or_default();
        if let Some(passing) = &state.rows {
            return passing.get(row) == Some(&true);
        }
        state.asked += 1;
        state.answers.resize(searched.len(), Vec::new());
        let mut one = |searched: &mut Searched<'a>, answers: &mut Vec<u8>, row: usize| {
            passes(keyword, columns, searched, answers, row, &mut self.folded)
        };
        if state.asked <= SINGLY {
            return searched
                .iter_mut()
                .zip(&mut state.answers)
                .any(|(searched, answers)| one(searched, answers, row));
        }
        let mut open = vec![false; columns.rows()];
        for row in rows {
            if let Some(open) = open.get_mut(*row as usize) {
                *open = true;
            }
        }
        let mut passing = vec![false; columns.rows()];
        for (searched, answers) in searched.iter_mut().zip(&mut state.answers) {
            for row in columns.rows_with(searched) {
                if let Some(open) = open.get_mut(row)
                    && *open
                    && one(searched, answers, row)
                {
                    *open = false;
                    if let Some(passing) = passing.get_mut(row) {
                        *passing = true;
                    }
                }
            }
        }
        let holds = passing.get(row) == Some(&true);
        state.rows = Some(passing);
        holds
    }
}

fn passes<'a>(
    keyword: &Keyword,
    columns: &Columns<'a>,
    searched: &mut Searched<'a>,
    answers: &mut Vec<u8>,
    row: usize,
    folded: &mut String,
) -> bool {
    match searched {
        Searched::Plain(place) => {
            columns.plain(*place, row).is_some_and(|text| keyword.passes(&text, folded))
        }
        Searched::Distinct(_, view) => {
            let id = view.id(columns, row);
            id != NO_VALUE
                && remembered(answers, id, || {
                    view.cell(id)
                        .is_some_and(|cell| cell.texts().any(|text| keyword.passes(text, folded)))
                })
        }
    }
}

impl Keyword {
    fn passes(&self, text: &str, buffer: &mut String) -> bool {
        let folded = if fold_into(text, buffer) { buffer.as_str() } else { text };
        match &self.automaton {
            Some(automaton) => automaton.is_match(folded),
            None => self.test.passes(text, folded),
        }
    }
}
