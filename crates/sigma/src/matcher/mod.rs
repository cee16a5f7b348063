//! The columnar matcher.
//!
//! Rules are compiled in groups, one for each log source. For each row of a batch it is decided first
//! to which groups it belongs: rows whose routing fields fulfil the same items are of one class, and
//! the classes of a batch are few. Within a group every distinct value of a field is scanned once,
//! by an index over the needles of all rules, which gives the items that it fulfils. A row is then the
//! union of the items of its values; the rules that have one of them as *witness*, an item that they
//! can't match without, are its candidates, and only their conditions are evaluated. Regular
//! expressions, networks and other tests are asked last, once for each distinct value.
//!
//! Who reads rows from disk can ask in steps ([`Groups`]): which groups can match at all with the columns that there
//! are, which rows belong to them by the few columns that decide that, and only then the matches.

mod compile;
mod explain;
mod grams;
mod groups;
mod index;
mod keyword;
mod run;
mod test;

pub use explain::{Explanation, Reason};
pub use groups::Groups;
pub(crate) use test::Rows;

use crate::batch::Columns;
use crate::expr::Expr;
use crate::rule::{LogSource, Rule};
use arrow::array::RecordBatch;
use compile::{Fields, Group};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use run::{Run, Values};
use std::sync::Arc;

/// Compiled rules.
#[derive(Debug)]
pub struct Matcher {
    rules: Vec<(Arc<Rule>, Option<Expr>)>,
    fields: Fields,
    /// Decides about the groups of a row.
    router: Group,
    groups: Vec<Group>,
}

/// The rules that the rows of a batch match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hits {
    /// For each row the end of its rules.
    ends: Vec<u32>,
    rules: Vec<u32>,
    /// How many rows belong to a log source of any rule.
    routed: usize,
}

impl Hits {
    /// No hits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many rows the batch had.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.ends.len()
    }

    /// The ordinals of the rules that a row matches, sorted.
    #[must_use]
    pub fn of(&self, row: usize) -> &[u32] {
        let Some(end) = self.ends.get(row) else { return &[] };
        let start = row.checked_sub(1).and_then(|row| self.ends.get(row)).copied().unwrap_or(0);
        self.rules.get(start as usize..*end as usize).unwrap_or_default()
    }

    /// Rows and the ordinals of their rules, by row and then by ordinal.
    pub fn iter(&self) -> impl Iterator<Item = (usize, u32)> {
        (0..self.rows()).flat_map(|row| self.of(row).iter().map(move |rule| (row, *rule)))
    }

    /// How many matches there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether no row matches.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// How many rows belong to the log source of any rule and so were looked at.
    #[must_use]
    pub fn routed(&self) -> usize {
        self.routed
    }
}

impl Matcher {
    pub(crate) fn new(rules: &[(Arc<Rule>, Option<Expr>)]) -> Self {
        let mut fields = Fields::default();
        let mut order: Vec<&LogSource> = Vec::new();
        let mut members: HashMap<&LogSource, Vec<(u32, &Expr)>, FixedState> = HashMap::default();
        for (ordinal, (rule, _)) in rules.iter().enumerate() {
            let group = members.entry(&rule.source).or_insert_with(|| {
                order.push(&rule.source);
                Vec::new()
            });
            group.push((ordinal as u32, &rule.condition));
        }
        let everything = Expr::And(Vec::new());
        let mut conditions: Vec<(u32, &Expr)> = Vec::new();
        let mut groups = Vec::new();
        for source in order {
            let Some(members) = members.get(source) else { continue };
            let condition = members
                .first()
                .and_then(|(ordinal, _)| rules.get(*ordinal as usize))
                .and_then(|(_, condition)| condition.as_ref());
            conditions.push((groups.len() as u32, condition.unwrap_or(&everything)));
            groups.push(compile::group(members, &mut fields));
        }
        let router = compile::group(&conditions, &mut fields);
        Self { rules: rules.to_vec(), fields, router, groups }
    }

    /// A rule by its ordinal.
    #[must_use]
    pub fn rule(&self, ordinal: u32) -> Option<&Arc<Rule>> {
        self.rules.get(ordinal as usize).map(|(rule, _)| rule)
    }

    /// Writes the rules that each row of a batch matches over `hits`.
    pub fn matches(&self, batch: &RecordBatch, hits: &mut Hits) {
        self.matches_of(batch, None, hits);
    }

    /// The same, of the rules in these groups only.
    pub fn matches_of(&self, batch: &RecordBatch, of: Option<&Groups>, hits: &mut Hits) {
        let rows = batch.num_rows();
        let mut values = Values::new(Columns::new(batch), self.fields.list.len());
        let mut members: Vec<Vec<u32>> = vec![Vec::new(); self.groups.len()];
        hits.routed = 0;
        self.route(&mut values, rows, |row, groups| {
            hits.routed += usize::from(!groups.is_empty());
            for group in groups.iter().filter(|group| of.is_none_or(|of| of.has(**group))) {
                if let Some(rows) = members.get_mut(*group as usize) {
                    rows.push(row as u32);
                }
            }
        });
        let mut pairs: Vec<(u32, u32)> = Vec::new();
        let mut out = Vec::new();
        for (group, rows) in self.groups.iter().zip(&members) {
            if rows.is_empty() {
                continue;
            }
            let mut run = self.run(group, rows, &mut values);
            for row in rows {
                run.row(&mut values, *row as usize, &mut out);
                pairs.extend(out.drain(..).map(|rule| (*row, rule)));
            }
        }
        pairs.sort_unstable();
        hits.ends.clear();
        hits.rules.clear();
        let mut pairs = pairs.into_iter().peekable();
        for row in 0..rows as u32 {
            while let Some((_, rule)) = pairs.next_if(|(of, _)| *of == row) {
                hits.rules.push(rule);
            }
            hits.ends.push(hits.rules.len() as u32);
        }
    }

    fn run<'g>(&self, group: &'g Group, rows: &'g [u32], values: &mut Values<'_>) -> Run<'g> {
        for place in compile::reads(group) {
            if let Some(field) = self.fields.list.get(place as usize) {
                values.prepare(place, field);
            }
        }
        Run::new(group, rows, |place| values.has(place))
    }

    /// Tells for each row its groups.
    fn route(&self, values: &mut Values<'_>, rows: usize, mut each: impl FnMut(usize, &[u32])) {
        let mut run = self.run(&self.router, &[], values);
        // Classes by cheap fields, with their groups where these tell them; else by all fields.
        let mut cheap: HashMap<(u32, u32), u32, FixedState> = HashMap::default();
        let mut decided: HashMap<u32, Option<Vec<u32>>, FixedState> = HashMap::default();
        let mut dear: HashMap<(u32, u32), u32, FixedState> = HashMap::default();
        let mut groups_of: HashMap<(u32, u32), Vec<u32>, FixedState> = HashMap::default();
        for row in 0..rows {
            let class = run.class(values, row, true, 0, &mut cheap);
            let known = decided.entry(class).or_insert_with(|| run.decided(values, row));
            let groups = match known {
                Some(groups) => groups,
                None => {
                    let further = run.class(values, row, false, 0, &mut dear);
                    groups_of.entry((class, further)).or_insert_with(|| {
                        let mut groups = Vec::new();
                        run.row(values, row, &mut groups);
                        groups
                    })
                }
            };
            each(row, groups);
        }
    }
}
