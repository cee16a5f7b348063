//! The first step: what the rows of a batch hold, whoever sent them.

use super::columns::{PayloadColumn, Place, payload_columns};
use super::matcher::{REASONS, RuleId, Verdict};
use super::{Class, FOUND_FROM, ThreatScorer};
use crate::entropy;
use arrow::array::{Array, ArrayRef, Float32Array, RecordBatch};
use palisade_event::column::Text;
use palisade_event::schema::Core;
use smallvec::SmallVec;

/// What was found in the rows of a batch. It depends on the batch alone.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Features {
    /// Quantised entropy of each row, [`entropy::NONE`] where it has no payload.
    pub(super) quantised: Vec<u16>,
    /// Rows in which something was found, ascending.
    pub(super) hits: Vec<Hit>,
    /// The names of the columns that hits refer to.
    pub(super) columns: Vec<String>,
}

/// A row in which something was found.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Hit {
    pub(super) row: u32,
    pub(super) verdict: Verdict,
    /// The rules that matched and the index of the column in which.
    pub(super) found: SmallVec<[(RuleId, u16); REASONS]>,
}

impl Features {
    /// How many rows there are.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.quantised.len()
    }

    /// The column `entropy`: bits per byte, null for rows without a payload.
    #[must_use]
    pub fn entropy(&self) -> Float32Array {
        entropy::column_of(&self.quantised)
    }

    /// The entropies in units of 1/256 bit, [`entropy::NONE`] for rows without a payload: what
    /// [`super::SourceNorms::observe`] takes.
    #[must_use]
    pub fn quantised(&self) -> &[u16] {
        &self.quantised
    }

    /// The rows in which something was found, with their class where it is strong enough, and how
    /// strongly they speak for an attack.
    pub fn found(&self) -> impl Iterator<Item = (usize, Option<Class>, f32)> {
        self.hits.iter().map(|hit| (hit.row as usize, hit.class(), hit.verdict.overall()))
    }

    pub(super) fn hit(&self, row: usize) -> Option<&Hit> {
        let at = self.hits.binary_search_by_key(&row, |hit| hit.row as usize).ok()?;
        self.hits.get(at)
    }
}

impl Hit {
    pub(super) fn class(&self) -> Option<Class> {
        self.verdict.best().filter(|(_, strength)| *strength >= FOUND_FROM).map(|(class, _)| class)
    }
}

/// A value in which something was found: the row, the column's index, the verdict's index.
type Mark = (u32, u16, u32);

impl ThreatScorer {
    /// Computes entropies and finds attack classes in a batch of `events`, once per distinct value
    /// where a column has a dictionary.
    pub fn features(&mut self, batch: &RecordBatch) -> Features {
        let dynamic = payload_columns(batch);
        let quantised = entropy::quantised_with(batch, &dynamic);
        let core = [
            (Core::Message, Place::Line),
            (Core::Url, Place::Request),
            (Core::UserAgent, Place::Agent),
        ];
        let core = core.into_iter().filter_map(|(core, place)| {
            let name = core.name();
            Some(PayloadColumn { name, place, array: batch.column_by_name(name)? })
        });
        let mut verdicts = Vec::new();
        let mut marks: Vec<Mark> = Vec::new();
        let mut columns = Vec::new();
        for column in core.chain(dynamic.iter().copied()) {
            let before = marks.len();
            let index = columns.len() as u16;
            self.scan(column.array, column.place, index, &mut verdicts, &mut marks);
            if marks.len() > before {
                columns.push(column.name.to_owned());
            }
        }
        Features { quantised, hits: gather(&mut marks, &verdicts, self.matcher.version()), columns }
    }

    /// Looks at the values of one column.
    fn scan(
        &mut self,
        array: &ArrayRef,
        place: Place,
        column: u16,
        verdicts: &mut Vec<Verdict>,
        marks: &mut Vec<Mark>,
    ) {
        let mut look = |text: &str, verdicts: &mut Vec<Verdict>| -> Option<u32> {
            let verdict = self.matcher.look(text.as_bytes(), place)?;
            verdicts.push(verdict);
            Some(verdicts.len() as u32 - 1)
        };
        match Text::of(array) {
            Some(Text::Plain(plain)) => {
                for (row, value) in plain.iter().enumerate() {
                    if let Some(verdict) = value.and_then(|value| look(value, verdicts)) {
                        marks.push((row as u32, column, verdict));
                    }
                }
            }
            Some(Text::Dictionary(keys, values)) => {
                // A slice may hold a dictionary that is larger than itself; then only what its rows
                // use is looked at.
                let known = if values.len() <= keys.len() {
                    let known: Vec<Option<u32>> = values
                        .iter()
                        .map(|value| value.and_then(|value| look(value, verdicts)))
                        .collect();
                    if known.iter().all(Option::is_none) {
                        return;
                    }
                    known
                } else {
                    let mut known = vec![None; values.len()];
                    let mut seen = vec![false; values.len()];
                    for key in keys.keys().iter().flatten() {
                        let key = key as usize;
                        if let (Some(seen), Some(slot)) = (seen.get_mut(key), known.get_mut(key))
                            && !std::mem::replace(seen, true)
                            && values.is_valid(key)
                        {
                            *slot = look(values.value(key), verdicts);
                        }
                    }
                    known
                };
                for (row, key) in keys.keys().iter().enumerate() {
                    let verdict = key.and_then(|key| known.get(key as usize).copied().flatten());
                    if let Some(verdict) = verdict {
                        marks.push((row as u32, column, verdict));
                    }
                }
            }
            None => {}
        }
    }
}

/// Brings what was found in several columns of a row together.
fn gather(marks: &mut [Mark], verdicts: &[Verdict], version: u32) -> Vec<Hit> {
    marks.sort_unstable();
    let mut hits: Vec<Hit> = Vec::new();
    for (row, column, verdict) in marks.iter() {
        let Some(verdict) = verdicts.get(*verdict as usize) else { continue };
        let found = verdict.rules.iter().map(|rule| (*rule, *column));
        match hits.last_mut() {
            Some(last) if last.row == *row => {
                last.verdict.add(verdict, version);
                let room = REASONS.saturating_sub(last.found.len());
                last.found.extend(found.take(room));
            }
            _ => hits.push(Hit { row: *row, verdict: verdict.clone(), found: found.collect() }),
        }
    }
    hits
}
