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
use crate::field::Field;
use crate::rule::{LogSource, Rule};
use arrow::array::RecordBatch;
use compile::{Fields, Group};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use palisade_event::column::Text;
use palisade_event::schema::Core;
use run::{Run, Values};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Fields of rules that are gone are kept until there are so many beside those of rules that are there.
const STALE_FIELDS: usize = 4_096;

/// Compiled rules.
#[derive(Debug)]
pub struct Matcher {
    rules: Vec<(Arc<Rule>, Option<Arc<Expr>>)>,
    fields: Vec<Arc<Field>>,
    /// Decides to which log sources a row belongs.
    router: Group,
    sources: Vec<Place>,
    groups: Vec<Placed>,
}

/// The groups of a log source.
#[derive(Debug, Default)]
struct Place {
    /// Of the installation's rules.
    shared: Option<u32>,
    /// Of tenants' own.
    own: BTreeMap<Arc<str>, u32>,
}

/// A group, and the ordinals of its rules in the set.
#[derive(Debug)]
struct Placed {
    group: Arc<Group>,
    ordinals: Vec<u32>,
}

/// What was compiled for the set before, so that the groups whose rules are the same need not be compiled again.
#[derive(Debug, Default)]
pub(crate) struct Workshop {
    fields: Fields,
    groups: HashMap<OfGroup, Kept, FixedState>,
}

/// A group that was compiled, and from which rules.
#[derive(Debug)]
struct Kept {
    rules: Vec<Arc<Rule>>,
    group: Arc<Group>,
}

/// The log source and the owner of a group's rules.
type OfGroup = (LogSource, Option<Arc<str>>);

impl Workshop {
    /// The group of these rules, which are all of a log source and an owner.
    fn group(&mut self, before: &mut Self, key: OfGroup, rules: Vec<Arc<Rule>>) -> Arc<Group> {
        let known = before.groups.remove(&key).filter(|known| {
            known.rules.len() == rules.len()
                && known.rules.iter().zip(&rules).all(|(one, other)| Arc::ptr_eq(one, other))
        });
        let group = match known {
            Some(known) => known.group,
            None => {
                let conditions: Vec<(u32, &Expr)> =
                    (0u32..).zip(rules.iter().map(|rule| &rule.condition)).collect();
                Arc::new(compile::group(&conditions, &mut self.fields))
            }
        };
        self.groups.insert(key, Kept { rules, group: Arc::clone(&group) });
        group
    }
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

    /// Leaves out the matches for which `keep` is false.
    pub fn retain(&mut self, mut keep: impl FnMut(usize, u32) -> bool) {
        let (mut from, mut kept) = (0, 0);
        for (row, end) in self.ends.iter_mut().enumerate() {
            for at in from..*end as usize {
                let Some(&rule) = self.rules.get(at) else { break };
                if keep(row, rule)
                    && let Some(slot) = self.rules.get_mut(kept)
                {
                    *slot = rule;
                    kept += 1;
                }
            }
            from = *end as usize;
            *end = kept as u32;
        }
        self.rules.truncate(kept);
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
    pub(crate) fn new(rules: &[(Arc<Rule>, Option<Arc<Expr>>)], workshop: &mut Workshop) -> Self {
        let mut before = std::mem::take(workshop);
        let used: usize =
            before.groups.values().map(|kept| compile::reads(&kept.group).count()).sum();
        if before.fields.list.len() > used + STALE_FIELDS {
            before = Workshop::default();
        }
        workshop.fields = std::mem::take(&mut before.fields);
        let mut order: Vec<(&LogSource, Option<&Arc<Expr>>)> = Vec::new();
        let mut places: HashMap<&LogSource, usize, FixedState> = HashMap::default();
        let mut members: Vec<BTreeMap<Option<&Arc<str>>, Vec<u32>>> = Vec::new();
        for (ordinal, (rule, condition)) in rules.iter().enumerate() {
            let place = *places.entry(&rule.source).or_insert_with(|| {
                order.push((&rule.source, condition.as_ref()));
                members.push(BTreeMap::new());
                order.len() - 1
            });
            if let Some(members) = members.get_mut(place) {
                members.entry(rule.owner.as_ref()).or_default().push(ordinal as u32);
            }
        }
        let everything = Expr::And(Vec::new());
        let mut conditions: Vec<(u32, &Expr)> = Vec::new();
        let (mut sources, mut groups) = (Vec::new(), Vec::new());
        for ((source, condition), members) in order.into_iter().zip(members) {
            conditions.push((sources.len() as u32, condition.map_or(&everything, |of| of)));
            let mut place = Place::default();
            for (owner, ordinals) in members {
                let of_group = ordinals.iter().filter_map(|ordinal| rules.get(*ordinal as usize));
                let of_group = of_group.map(|(rule, _)| Arc::clone(rule)).collect();
                let key = (source.clone(), owner.cloned());
                let group = workshop.group(&mut before, key, of_group);
                match owner {
                    None => place.shared = Some(groups.len() as u32),
                    Some(owner) => {
                        place.own.insert(Arc::clone(owner), groups.len() as u32);
                    }
                }
                groups.push(Placed { group, ordinals });
            }
            sources.push(place);
        }
        let router = compile::group(&conditions, &mut workshop.fields);
        let fields = workshop.fields.list.clone();
        Self { rules: rules.to_vec(), fields, router, sources, groups }
    }

    /// A matcher of some of its rules only, by their ordinals; theirs are their places in that list.
    #[must_use]
    pub fn only(&self, ordinals: &[u32]) -> Self {
        let rules = ordinals.iter().filter_map(|ordinal| self.rules.get(*ordinal as usize));
        let rules: Vec<_> = rules.cloned().collect();
        Self::new(&rules, &mut Workshop::default())
    }

    /// The rules, each with the condition on records of its log source.
    pub(crate) fn rules(&self) -> &[(Arc<Rule>, Option<Arc<Expr>>)] {
        &self.rules
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
        let mut values = Values::new(Columns::new(batch), self.fields.len());
        let mut members: Vec<Vec<u32>> = vec![Vec::new(); self.groups.len()];
        hits.routed = 0;
        self.route(batch, &mut values, |row, groups| {
            hits.routed += usize::from(!groups.is_empty());
            for group in groups.iter().filter(|group| of.is_none_or(|of| of.has(**group))) {
                if let Some(rows) = members.get_mut(*group as usize) {
                    rows.push(row as u32);
                }
            }
        });
        let mut pairs: Vec<(u32, u32)> = Vec::new();
        let mut out = Vec::new();
        for (Placed { group, ordinals }, rows) in self.groups.iter().zip(&members) {
            if rows.is_empty() {
                continue;
            }
            let mut run = self.run(group, rows, &mut values);
            for row in rows {
                run.row(&mut values, *row as usize, &mut out);
                let found = out.drain(..).filter_map(|rule| ordinals.get(rule as usize));
                pairs.extend(found.map(|rule| (*row, *rule)));
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

    /// Adds to the number of each rule, by its ordinal, how many rows of a batch belong to its log source.
    pub fn count_sources(&self, batch: &RecordBatch, rows: &mut [u64]) {
        let mut values = Values::new(Columns::new(batch), self.fields.len());
        let mut members = vec![0; self.groups.len()];
        self.route(batch, &mut values, |_, groups| {
            for group in groups {
                if let Some(members) = members.get_mut(*group as usize) {
                    *members += 1;
                }
            }
        });
        for (Placed { ordinals, .. }, members) in self.groups.iter().zip(&members) {
            for ordinal in ordinals {
                if let Some(rows) = rows.get_mut(*ordinal as usize) {
                    *rows += members;
                }
            }
        }
    }

    fn run<'g>(&self, group: &'g Group, rows: &'g [u32], values: &mut Values<'_>) -> Run<'g> {
        for place in compile::reads(group) {
            if let Some(field) = self.fields.get(place as usize) {
                values.prepare(place, field);
            }
        }
        Run::new(group, rows, |place| values.has(place))
    }

    /// Tells for each row its groups.
    fn route(
        &self,
        batch: &RecordBatch,
        values: &mut Values<'_>,
        mut each: impl FnMut(usize, &[u32]),
    ) {
        let has_own = self.sources.iter().any(|place| !place.own.is_empty());
        let tenants = Text::in_batch(batch, Core::Tenant.name()).filter(|_| has_own);
        let mut of_row = Vec::new();
        let mut run = self.run(&self.router, &[], values);
        // Classes by cheap fields, with their groups where these tell them; else by all fields.
        let mut cheap: HashMap<(u32, u32), u32, FixedState> = HashMap::default();
        let mut decided: HashMap<u32, Option<Vec<u32>>, FixedState> = HashMap::default();
        let mut dear: HashMap<(u32, u32), u32, FixedState> = HashMap::default();
        let mut groups_of: HashMap<(u32, u32), Vec<u32>, FixedState> = HashMap::default();
        for row in 0..batch.num_rows() {
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
            let tenant = tenants.and_then(|tenants| tenants.get(row));
            of_row.clear();
            for place in groups.iter().filter_map(|source| self.sources.get(*source as usize)) {
                of_row.extend(place.shared);
                of_row.extend(tenant.and_then(|tenant| place.own.get(tenant)));
            }
            each(row, &of_row);
        }
    }
}
