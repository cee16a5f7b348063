//! Rules of one log source compiled together: their items, each once, the indexes of the fields, and
//! for each rule the items one of which it can't match without.

use super::index::{self, Builder, Index};
use crate::expr::{Expr, How, Item, Test};
use crate::field::Field;
use crate::pattern::{Pattern, Shape};
use aho_corasick::{AhoCorasick, MatchKind};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use std::sync::Arc;

/// A condition over items.
#[derive(Debug, Clone)]
pub(super) enum Node {
    Item(u32),
    Not(Box<Node>),
    And(Box<[Node]>),
    Or(Box<[Node]>),
    AtLeast(usize, Box<[Node]>),
}

/// How an item is decided.
#[derive(Debug)]
pub(super) enum Decide {
    /// The index of its field finds it.
    Indexed,
    /// Its field's value is asked, once for each distinct value.
    Value { field: u32, test: Test, slot: u32 },
    /// The values of two fields are compared.
    Relation { left: u32, right: u32, how: How, cased: bool },
    /// Every value of the row is asked.
    Keyword(Keyword),
}

/// A test of every value of a row.
#[derive(Debug)]
pub(super) struct Keyword {
    pub(super) test: Test,
    /// Finds all patterns at once, where they are all texts that may stand anywhere.
    pub(super) automaton: Option<AhoCorasick>,
}

/// The rules of one log source.
#[derive(Debug)]
pub(super) struct Group {
    /// Fields by their place in the matcher's list, with what their values are looked up in.
    pub(super) fields: Vec<(u32, Index)>,
    pub(super) items: Vec<Decide>,
    /// The rules: what they are called outside, and their conditions.
    pub(super) rules: Vec<(u32, Node)>,
    /// For each item the rules that are worth trying when it is fulfilled.
    pub(super) wakes: Vec<Vec<u32>>,
    /// Rules that have to be tried on every row.
    pub(super) always: Vec<u32>,
    /// How many items ask values.
    pub(super) asked: usize,
    /// Fields whose values are asked themselves.
    pub(super) dear: Vec<u32>,
    /// The indexed items of those fields.
    pub(super) dear_items: Vec<u32>,
    /// For each item the field whose index finds it, [`NO_FIELD`] for others.
    of_field: Vec<u32>,
}

const NO_FIELD: u32 = u32::MAX;

/// The fields of all groups, each once.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub(super) list: Vec<Arc<Field>>,
    places: HashMap<Arc<Field>, u32, FixedState>,
}

impl Fields {
    pub(super) fn place(&mut self, field: &Arc<Field>) -> u32 {
        if let Some(place) = self.places.get(field) {
            return *place;
        }
        let place = self.list.len() as u32;
        self.list.push(Arc::clone(field));
        self.places.insert(Arc::clone(field), place);
        place
    }
}

/// How an item is told from others.
type Key = (Option<u32>, String);

#[derive(Default)]
struct Compiler<'f> {
    fields: Option<&'f mut Fields>,
    items: Vec<Decide>,
    places: HashMap<Key, u32, FixedState>,
    /// The patterns of indexed items: field, item, pattern.
    patterns: Vec<(u32, u32, Pattern)>,
    /// Items that any value of a field fulfils.
    present: Vec<(u32, u32)>,
    /// How rarely each item may be expected to be fulfilled.
    weights: Vec<f64>,
    /// How many items ask values.
    asked: u32,
}

/// Compiles rules: what they are called outside, and their conditions.
pub(super) fn group(rules: &[(u32, &Expr)], fields: &mut Fields) -> Group {
    let mut uses: HashMap<Pattern, u32, FixedState> = HashMap::default();
    for (_, expr) in rules {
        count_uses(expr, &mut uses);
    }
    let mut compiler = Compiler { fields: Some(fields), ..Compiler::default() };
    let mut compiled: Vec<(u32, Node)> = Vec::new();
    for (rule, expr) in rules {
        let node = compiler.node(expr, &uses);
        compiled.push((*rule, node));
    }
    let mut wakes = vec![Vec::new(); compiler.items.len()];
    let mut always = Vec::new();
    for (place, (_, node)) in compiled.iter_mut().enumerate() {
        compiler.order(node);
        match compiler.witness(node) {
            Some((_, items)) => {
                for item in items {
                    if let Some(wakes) = wakes.get_mut(item as usize) {
                        let wakes: &mut Vec<u32> = wakes;
                        if wakes.last() != Some(&(place as u32)) {
                            wakes.push(place as u32);
                        }
                    }
                }
            }
            None => always.push(place as u32),
        }
    }
    let mut builders: Vec<(u32, Builder)> = Vec::new();
    let mut builder = |field: u32, with: &mut dyn FnMut(&mut Builder)| match builders
        .iter_mut()
        .find(|(other, _)| *other == field)
    {
        Some((_, builder)) => with(builder),
        None => {
            let mut new = Builder::default();
            with(&mut new);
            builders.push((field, new));
        }
    };
    for (field, item) in &compiler.present {
        builder(*field, &mut |builder| builder.present(*item));
    }
    for (field, item, pattern) in &compiler.patterns {
        builder(*field, &mut |builder| builder.add(pattern, *item));
    }
    let mut dear: Vec<u32> = compiler
        .items
        .iter()
        .filter_map(|item| match item {
            Decide::Value { field, .. } => Some(*field),
            _ => None,
        })
        .collect();
    dear.sort_unstable();
    dear.dedup();
    let of_patterns = compiler.patterns.iter().map(|(field, item, _)| (field, item));
    let of_present = compiler.present.iter().map(|(field, item)| (field, item));
    let mut dear_items: Vec<u32> = of_patterns
        .chain(of_present)
        .filter(|(field, _)| dear.contains(field))
        .map(|(_, item)| *item)
        .collect();
    dear_items.sort_unstable();
    dear_items.dedup();
    let mut of_field = vec![NO_FIELD; compiler.items.len()];
    let of_patterns = compiler.patterns.iter().map(|(field, item, _)| (*field, *item));
    for (field, item) in of_patterns.chain(compiler.present.iter().copied()) {
        if let Some(slot) = of_field.get_mut(item as usize) {
            *slot = field;
        }
    }
    Group {
        of_field,
        asked: compiler.asked as usize,
        dear,
        dear_items,
        fields: builders.into_iter().map(|(field, builder)| (field, builder.build())).collect(),
        items: compiler.items,
        rules: compiled,
        wakes,
        always,
    }
}

/// The fields that a group reads.
pub(super) fn reads(group: &Group) -> impl Iterator<Item = u32> {
    let asked = group.items.iter().flat_map(|item| match item {
        Decide::Value { field, .. } => [Some(*field), None],
        Decide::Relation { left, right, .. } => [Some(*left), Some(*right)],
        Decide::Indexed | Decide::Keyword(_) => [None, None],
    });
    group.fields.iter().map(|(field, _)| *field).chain(asked.flatten())
}

/// The field whose index finds an item; `None` when the item has no patterns.
pub(super) fn indexed_field(group: &Group, item: u32) -> Option<u32> {
    group.of_field.get(item as usize).copied().filter(|field| *field != NO_FIELD)
}

/// How many items have a pattern: what stands in many rules is likely to be common.
fn count_uses(expr: &Expr, uses: &mut HashMap<Pattern, u32, FixedState>) {
    match expr {
        Expr::And(parts) | Expr::Or(parts) | Expr::AtLeast(_, parts) => {
            parts.iter().for_each(|part| count_uses(part, uses));
        }
        Expr::Not(part) | Expr::Selection(_, part) => count_uses(part, uses),
        Expr::Item(item) => {
            if let Test::Any(patterns) = &item.test {
                for pattern in patterns {
                    *uses.entry(pattern.clone()).or_default() += 1;
                }
            }
        }
    }
}

impl Compiler<'_> {
    fn field(&mut self, field: &Arc<Field>) -> u32 {
        self.fields.as_mut().map_or(0, |fields| fields.place(field))
    }

    fn add(&mut self, key: Key, weight: f64, decide: Decide) -> (u32, bool) {
        if let Some(place) = self.places.get(&key) {
            return (*place, false);
        }
        let place = self.items.len() as u32;
        self.items.push(decide);
        self.weights.push(weight);
        self.places.insert(key, place);
        (place, true)
    }

    fn node(&mut self, expr: &Expr, uses: &HashMap<Pattern, u32, FixedState>) -> Node {
        let mut all = |parts: &[Expr]| parts.iter().map(|part| self.node(part, uses)).collect();
        match expr {
            Expr::And(parts) => Node::And(all(parts)),
            Expr::Or(parts) => Node::Or(all(parts)),
            Expr::AtLeast(least, parts) => Node::AtLeast(*least, all(parts)),
            Expr::Not(part) => Node::Not(Box::new(self.node(part, uses))),
            Expr::Selection(_, part) => self.node(part, uses),
            Expr::Item(item) => self.item(item, uses),
        }
    }

    fn item(&mut self, item: &Item, uses: &HashMap<Pattern, u32, FixedState>) -> Node {
        let Some(field) = &item.field else {
            let key = (None, format!("{:?}", item.test));
            let keyword =
                Keyword { automaton: keyword_automaton(&item.test), test: item.test.clone() };
            return Node::Item(self.add(key, f64::INFINITY, Decide::Keyword(keyword)).0);
        };
        let field = self.field(field);
        match &item.test {
            Test::Null => Node::Not(Box::new(self.present(field))),
            Test::Exists => self.present(field),
            Test::Any(patterns) if patterns.iter().all(index::indexable) => {
                let mut patterns = patterns.clone();
                patterns.sort();
                patterns.dedup();
                let weight = patterns.iter().map(|pattern| weight(pattern, uses)).sum();
                let key = (Some(field), format!("{patterns:?}"));
                let (place, new) = self.add(key, weight, Decide::Indexed);
                if new {
                    for pattern in patterns {
                        self.patterns.push((field, place, pattern));
                    }
                }
                Node::Item(place)
            }
            Test::Field { other, how, cased } => {
                let right = self.field(other);
                let relation = Decide::Relation { left: field, right, how: *how, cased: *cased };
                let key = (Some(field), format!("{relation:?}"));
                let node = Node::Item(self.add(key, f64::INFINITY, relation).0);
                Node::And(Box::new([self.present(field), node]))
            }
            test => {
                let key = (Some(field), format!("{test:?}"));
                let slot = self.asked;
                let decide = Decide::Value { field, test: test.clone(), slot };
                let (place, new) = self.add(key, f64::INFINITY, decide);
                self.asked += u32::from(new);
                let node = Node::Item(place);
                // So that the rule is not tried on rows without the field.
                Node::And(Box::new([self.present(field), node]))
            }
        }
    }

    fn present(&mut self, field: u32) -> Node {
        let key = (Some(field), "present".to_owned());
        let (place, new) = self.add(key, 1e6, Decide::Indexed);
        if new {
            self.present.push((field, place));
        }
        Node::Item(place)
    }

    /// Puts what is cheap to decide first.
    fn order(&self, node: &mut Node) {
        match node {
            Node::And(parts) | Node::Or(parts) | Node::AtLeast(_, parts) => {
                parts.iter_mut().for_each(|part| self.order(part));
                parts.sort_by_key(|part| self.cost(part));
            }
            Node::Not(part) => self.order(part),
            Node::Item(_) => {}
        }
    }

    fn cost(&self, node: &Node) -> u32 {
        match node {
            Node::Item(item) => match self.items.get(*item as usize) {
                Some(Decide::Indexed) | None => 0,
                Some(Decide::Value { .. }) => 1,
                Some(Decide::Relation { .. }) => 2,
                Some(Decide::Keyword(_)) => 3,
            },
            Node::Not(part) => self.cost(part),
            Node::And(parts) | Node::Or(parts) | Node::AtLeast(_, parts) => {
                parts.iter().map(|part| self.cost(part)).max().unwrap_or(0)
            }
        }
    }

    /// Indexed items one of which is fulfilled wherever a condition is, chosen to be rare.
    fn witness(&self, node: &Node) -> Option<(f64, Vec<u32>)> {
        match node {
            Node::Item(item) => match self.items.get(*item as usize) {
                Some(Decide::Indexed) => {
                    Some((self.weights.get(*item as usize).copied().unwrap_or(1.0), vec![*item]))
                }
                _ => None,
            },
            Node::Not(part) => match part.as_ref() {
                Node::Not(part) => self.witness(part),
                // Not any of these: none of them says so, but each of their negations may.
                Node::Or(parts) => parts
                    .iter()
                    .filter_map(|part| self.witness(&Node::Not(Box::new(part.clone()))))
                    .min_by(|(a, _), (b, _)| a.total_cmp(b)),
                _ => None,
            },
            Node::And(parts) => parts
                .iter()
                .filter_map(|part| self.witness(part))
                .min_by(|(a, _), (b, _)| a.total_cmp(b)),
            Node::Or(parts) | Node::AtLeast(_, parts) => {
                let mut weight = 0.0;
                let mut items = Vec::new();
                for part in parts {
                    let (one, some) = self.witness(part)?;
                    weight += one;
                    items.extend(some);
                }
                items.sort_unstable();
                items.dedup();
                Some((weight, items))
            }
        }
    }
}

/// How often a pattern may be expected to match: short ones more, and those that many rules share.
fn weight(pattern: &Pattern, uses: &HashMap<Pattern, u32, FixedState>) -> f64 {
    let uses = f64::from(uses.get(pattern).copied().unwrap_or(1));
    let (length, shape) = match pattern.shape() {
        Shape::Anything => return 1e6,
        Shape::Exact(text) => (text.len(), 0.5),
        Shape::Prefix(text) | Shape::Suffix(text) => (text.len(), 0.8),
        Shape::Contains(text) | Shape::Glob(text) => (text.len(), 1.0),
    };
    let length = length as f64 + 1.0;
    shape * uses / (length * length)
}

fn keyword_automaton(test: &Test) -> Option<AhoCorasick> {
    let Test::Any(patterns) = test else { return None };
    let needles: Option<Vec<&str>> = patterns
        .iter()
        .map(|pattern| match pattern.shape() {
            Shape::Contains(text) if !pattern.cased => Some(text),
            _ => None,
        })
        .collect();
    AhoCorasick::builder().match_kind(MatchKind::LeftmostFirst).build(needles?).ok()
}
