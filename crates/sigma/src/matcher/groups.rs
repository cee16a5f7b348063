//! What can be told before a row is read, or from few of its columns: for hunts.

use super::compile::{self, Decide, Group, Node};
use super::run::Values;
use super::{Hits, Matcher, Placed};
use crate::batch::{Columns, Present, Reads};
use arrow::array::RecordBatch;
use arrow::datatypes::Field;
use std::collections::BTreeSet;

/// Some of a matcher's groups: the rules of a log source are one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups(Vec<bool>);

impl Groups {
    /// Whether a group is among them.
    #[must_use]
    pub fn has(&self, group: u32) -> bool {
        self.0.get(group as usize).copied().unwrap_or_default()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.0.contains(&true)
    }

    /// Leaves only those that are also among others.
    pub fn intersect(&mut self, others: &Self) {
        for (own, other) in self.0.iter_mut().zip(&others.0) {
            *own &= *other;
        }
    }

    fn add(&mut self, group: u32) {
        if let Some(has) = self.0.get_mut(group as usize) {
            *has = true;
        }
    }
}

impl Matcher {
    /// The groups that have a rule of which `which` is true of its ordinal.
    #[must_use]
    pub fn groups_of(&self, which: impl Fn(u32) -> bool) -> Groups {
        let has = |placed: &Placed| placed.ordinals.iter().any(|rule| which(*rule));
        Groups(self.groups.iter().map(has).collect())
    }

    /// The groups that can match a row which has values in no other columns than these: the others need a field that
    /// is not there.
    #[must_use]
    pub fn possible<'c>(&self, columns: impl IntoIterator<Item = &'c Field>) -> Groups {
        let present = Present::new(columns);
        let has: Vec<bool> = self.fields.iter().map(|field| present.has(field)).collect();
        let has = |field: u32| has.get(field as usize).copied().unwrap_or_default();
        let mut possible = Groups(vec![false; self.groups.len()]);
        for (source, node) in &self.router.rules {
            if may(&self.router, node, &has) == Some(false) {
                continue;
            }
            for group in self.groups_of_source(*source) {
                let of_any_rule = |Placed { group, .. }: &Placed| {
                    group.rules.iter().any(|(_, node)| may(group, node, &has) != Some(false))
                };
                if self.groups.get(group as usize).is_some_and(of_any_rule) {
                    possible.add(group);
                }
            }
        }
        possible
    }

    /// The columns that decide which rows belong to these groups.
    #[must_use]
    pub fn routing_reads(&self, groups: &Groups) -> Reads {
        let mut reads = Reads::default();
        for (source, node) in &self.router.rules {
            if self.groups_of_source(*source).any(|group| groups.has(group)) {
                self.reads_of(&self.router, node, &mut reads);
            }
        }
        // Whose records they are decides about tenants' own.
        if self.sources.iter().any(|place| place.own.values().any(|group| groups.has(*group))) {
            reads.add_tenant();
        }
        reads
    }

    /// The groups of a log source: the one of the installation's rules, and those of tenants' own.
    fn groups_of_source(&self, source: u32) -> impl Iterator<Item = u32> {
        let place = self.sources.get(source as usize);
        place
            .into_iter()
            .flat_map(|place| place.shared.into_iter().chain(place.own.values().copied()))
    }

    /// The columns that decide which rules of these groups a row matches, those that decide about the groups among them.
    #[must_use]
    pub fn reads(&self, groups: &Groups) -> Reads {
        let mut reads = self.routing_reads(groups);
        for (place, Placed { group, .. }) in self.groups.iter().enumerate() {
            if groups.has(place as u32) {
                group.rules.iter().for_each(|(_, node)| self.reads_of(group, node, &mut reads));
            }
        }
        reads
    }

    /// The columns that decide about these rules, by their ordinals, given that a row belongs to their groups.
    #[must_use]
    pub fn reads_of_rules(&self, rules: &BTreeSet<u32>) -> Reads {
        let mut reads = Reads::default();
        for Placed { group, ordinals } in &self.groups {
            let is_wanted = |rule: &u32| {
                ordinals.get(*rule as usize).is_some_and(|ordinal| rules.contains(ordinal))
            };
            let wanted = group.rules.iter().filter(|(rule, _)| is_wanted(rule));
            wanted.for_each(|(_, node)| self.reads_of(group, node, &mut reads));
        }
        reads
    }

    /// The ordinals of the rules in these groups.
    pub fn rules_of(&self, groups: &Groups) -> impl Iterator<Item = u32> {
        let of = self.groups.iter().enumerate().filter(|(place, _)| groups.has(*place as u32));
        of.flat_map(|(_, placed)| placed.ordinals.iter().copied())
    }

    /// Tells for each row of a batch, which has the columns of [`Matcher::routing_reads`], whether it belongs to any of
    /// these groups, and adds the groups that rows belong to to `found`.
    pub fn routed(
        &self,
        batch: &RecordBatch,
        of: &Groups,
        found: &mut Groups,
        mut each: impl FnMut(bool),
    ) {
        let mut values = Values::new(Columns::new(batch), self.fields.len());
        self.route(batch, &mut values, |_, groups| {
            let mut any = false;
            for group in groups.iter().filter(|group| of.has(**group)) {
                any = true;
                found.add(*group);
            }
            each(any);
        });
    }

    /// No groups of this matcher.
    #[must_use]
    pub fn no_groups(&self) -> Groups {
        Groups(vec![false; self.groups.len()])
    }

    fn reads_of(&self, group: &Group, node: &Node, reads: &mut Reads) {
        match node {
            Node::Not(part) => self.reads_of(group, part, reads),
            Node::And(parts) | Node::Or(parts) | Node::AtLeast(_, parts) => {
                parts.iter().for_each(|part| self.reads_of(group, part, reads));
            }
            Node::Item(item) => {
                let [one, other] = match group.items.get(*item as usize) {
                    Some(Decide::Indexed) => [compile::indexed_field(group, *item), None],
                    Some(Decide::Value { field, .. }) => [Some(*field), None],
                    Some(Decide::Relation { left, right, .. }) => [Some(*left), Some(*right)],
                    Some(Decide::Keyword(_)) => {
                        reads.add_keywords();
                        [None, None]
                    }
                    None => [None, None],
                };
                for field in [one, other].into_iter().flatten() {
                    if let Some(field) = self.fields.get(field as usize) {
                        reads.add(field);
                    }
                }
            }
        }
    }
}

/// Whether a condition holds for rows that have no value for some fields; `None` when it takes a row to tell.
fn may(group: &Group, node: &Node, has: &impl Fn(u32) -> bool) -> Option<bool> {
    match node {
        Node::Item(item) => {
            let possible = match group.items.get(*item as usize)? {
                Decide::Indexed => compile::indexed_field(group, *item).is_none_or(has),
                Decide::Value { field, .. } => has(*field),
                Decide::Relation { left, right, .. } => has(*left) && has(*right),
                Decide::Keyword(_) => true,
            };
            if possible { None } else { Some(false) }
        }
        Node::Not(part) => may(group, part, has).map(|holds| !holds),
        Node::And(parts) => {
            let mut all = Some(true);
            for part in parts {
                match may(group, part, has) {
                    Some(false) => return Some(false),
                    Some(true) => {}
                    None => all = None,
                }
            }
            all
        }
        Node::Or(parts) => {
            let mut any = Some(false);
            for part in parts {
                match may(group, part, has) {
                    Some(true) => return Some(true),
                    Some(false) => {}
                    None => any = None,
                }
            }
            any
        }
        Node::AtLeast(least, parts) => {
            let all: Vec<Option<bool>> = parts.iter().map(|part| may(group, part, has)).collect();
            let sure = all.iter().filter(|holds| **holds == Some(true)).count();
            let possible = all.iter().filter(|holds| **holds != Some(false)).count();
            match (sure >= *least, possible >= *least) {
                (true, _) => Some(true),
                (_, false) => Some(false),
                _ => None,
            }
        }
    }
}

impl Hits {
    /// Forgets all rows.
    pub fn clear(&mut self) {
        self.ends.clear();
        self.rules.clear();
        self.routed = 0;
    }

    /// Adds a row with the rules that it matches, sorted: for who has matched it before, with other columns.
    pub fn push(&mut self, rules: &[u32]) {
        self.rules.extend_from_slice(rules);
        self.ends.push(self.rules.len() as u32);
    }
}
