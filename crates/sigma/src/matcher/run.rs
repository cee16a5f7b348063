//! The rules of a group against rows of a batch.

use super::compile::{Decide, Group, Node};
use super::index::Scratch;
use super::keyword::Keywords;
use super::test::relates;
use crate::batch::{Cell, Columns, NO_VALUE, Searched, View};
use foldhash::fast::FixedState;
use hashbrown::HashMap;

/// The values of the fields in a batch.
pub(super) struct Values<'a> {
    pub(super) columns: Columns<'a>,
    /// By the fields' places in the matcher's list; filled in as they are asked for.
    views: Vec<Option<View<'a>>>,
    searched: Option<Vec<Searched<'a>>>,
}

impl<'a> Values<'a> {
    pub(super) fn new(columns: Columns<'a>, fields: usize) -> Self {
        Self { columns, views: (0..fields).map(|_| None).collect(), searched: None }
    }

    /// Looks for the columns of a field.
    pub(super) fn prepare(&mut self, field: u32, of: &crate::field::Field) {
        let columns = &self.columns;
        if let Some(view) = self.views.get_mut(field as usize) {
            view.get_or_insert_with(|| columns.field(of));
        }
    }

    /// Whether any row has a value for a prepared field.
    pub(super) fn has(&self, field: u32) -> bool {
        self.views
            .get(field as usize)
            .is_some_and(|view| view.as_ref().is_some_and(|view| !view.is_empty()))
    }

    #[inline]
    fn id(&mut self, field: u32, row: usize) -> u32 {
        match self.views.get_mut(field as usize) {
            Some(Some(view)) => view.id(&self.columns, row),
            _ => NO_VALUE,
        }
    }

    fn cell(&self, field: u32, id: u32) -> Option<&Cell<'a>> {
        self.views.get(field as usize)?.as_ref()?.cell(id)
    }
}

/// What was found out about the values of a field for the items of a group.
#[derive(Debug, Default)]
struct Scanned {
    /// For each value its items in [`Run::found`]; the end is 0 while it was not scanned.
    ranges: Vec<(u32, u32)>,
    /// For each value the number of its list in [`Run::lists`].
    lists: Vec<u32>,
}

/// A group at work on a batch.
pub(super) struct Run<'g> {
    group: &'g Group,
    /// The group's rows.
    rows: &'g [u32],
    /// The group's fields that the batch has, by their places in the group.
    active: Vec<usize>,
    scanned: Vec<Scanned>,
    found: Vec<u32>,
    scratch: Scratch,
    /// The row in which each item was fulfilled last.
    fulfilled: Vec<u32>,
    /// The row in which each rule was woken last.
    woken: Vec<u32>,
    candidates: Vec<u32>,
    /// For items that ask values, by their slots: what each value answered, 0 when it was not asked.
    answers: Vec<Vec<u8>>,
    keywords: Keywords,
    /// Numbers of lists of items, from 1.
    lists: HashMap<Vec<u32>, u32, FixedState>,
    mark: u32,
}

/// A list that was not looked for.
const UNKNOWN: u32 = u32::MAX;
/// Answers that were remembered.
const NO: u8 = 1;
const YES: u8 = 2;

impl<'g> Run<'g> {
    /// A run of a group whose fields are prepared; `has` tells which of them any row has.
    pub(super) fn new(group: &'g Group, rows: &'g [u32], has: impl Fn(u32) -> bool) -> Self {
        let active = group
            .fields
            .iter()
            .enumerate()
            .filter(|(_, (field, _))| has(*field))
            .map(|(place, _)| place)
            .collect();
        Self {
            group,
            rows,
            active,
            scanned: group.fields.iter().map(|_| Scanned::default()).collect(),
            found: vec![0],
            scratch: Scratch::default(),
            fulfilled: vec![0; group.items.len()],
            woken: vec![0; group.rules.len()],
            candidates: Vec::new(),
            answers: vec![Vec::new(); group.asked],
            keywords: Keywords::default(),
            lists: HashMap::default(),
            mark: 0,
        }
    }

    /// Appends what the rules that the row matches are called, in no order.
    pub(super) fn row(&mut self, values: &mut Values<'_>, row: usize, out: &mut Vec<u32>) {
        self.mark += 1;
        self.candidates.clear();
        for at in 0..self.active.len() {
            let Some(&place) = self.active.get(at) else { break };
            let Some((field, _)) = self.group.fields.get(place) else { continue };
            let id = values.id(*field, row);
            if id != NO_VALUE {
                let (start, end) = self.scan(values, place, id);
                self.wake(start, end);
            }
        }
        for rule in &self.group.always {
            if let Some(woken) = self.woken.get_mut(*rule as usize)
                && *woken != self.mark
            {
                *woken = self.mark;
                self.candidates.push(*rule);
            }
        }
        for at in 0..self.candidates.len() {
            let Some(&rule) = self.candidates.get(at) else { break };
            if let Some((name, node)) = self.group.rules.get(rule as usize)
                && self.holds(node, values, row)
            {
                out.push(*name);
            }
        }
    }

    /// A number for what the values of a row fulfil in fields that are cheap to ask, or in the others:
    /// rows with the same number match the same rules.
    pub(super) fn class(
        &mut self,
        values: &mut Values<'_>,
        row: usize,
        cheap: bool,
        mut class: u32,
        classes: &mut HashMap<(u32, u32), u32, FixedState>,
    ) -> u32 {
        for at in 0..self.active.len() {
            let Some(&place) = self.active.get(at) else { break };
            let Some((field, _)) = self.group.fields.get(place) else { continue };
            if self.is_cheap(*field) != cheap {
                continue;
            }
            let id = values.id(*field, row);
            if id == NO_VALUE {
                continue;
            }
            let list = self.list(values, place, id);
            if list != 0 {
                let next = classes.len() as u32 + 1;
                class = *classes.entry((class, list)).or_insert(next);
            }
        }
        class
    }

    /// Whether no item asks the values of a field themselves.
    fn is_cheap(&self, field: u32) -> bool {
        !self.group.dear.contains(&field)
    }

    /// What the rules that a row matches are called, by its cheap fields alone; `None` when it
    /// takes the others to tell.
    pub(super) fn decided(&mut self, values: &mut Values<'_>, row: usize) -> Option<Vec<u32>> {
        self.mark += 1;
        for at in 0..self.active.len() {
            let Some(&place) = self.active.get(at) else { break };
            let Some((field, _)) = self.group.fields.get(place) else { continue };
            let id = if self.is_cheap(*field) { values.id(*field, row) } else { NO_VALUE };
            if id != NO_VALUE {
                let (start, end) = self.scan(values, place, id);
                self.wake(start, end);
            }
        }
        let mut matched = Vec::new();
        for (name, node) in &self.group.rules {
            if self.known(node)? {
                matched.push(*name);
            }
        }
        Some(matched)
    }

    /// Whether a condition holds, if the cheap fields tell.
    fn known(&self, node: &Node) -> Option<bool> {
        match node {
            Node::Item(item) => match self.group.items.get(*item as usize) {
                Some(Decide::Indexed) if !self.group.dear_items.contains(item) => {
                    Some(self.fulfilled.get(*item as usize) == Some(&self.mark))
                }
                _ => None,
            },
            Node::Not(part) => self.known(part).map(|holds| !holds),
            Node::And(parts) => {
                let mut all = Some(true);
                for part in parts {
                    match self.known(part) {
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
                    match self.known(part) {
                        Some(true) => return Some(true),
                        Some(false) => {}
                        None => any = None,
                    }
                }
                any
            }
            Node::AtLeast(..) => None,
        }
    }

    /// A number for the items that a value fulfils and the answers that it gives, over all fields; 0
    /// when there are none.
    fn list(&mut self, values: &Values<'_>, place: usize, id: u32) -> u32 {
        let known = self.scanned.get(place).and_then(|s| s.lists.get(id as usize));
        if let Some(&list) = known
            && list != UNKNOWN
        {
            return list;
        }
        let (start, end) = self.scan(values, place, id);
        let mut items: Vec<u32> =
            self.found.get(start as usize..end as usize).unwrap_or_default().to_vec();
        let field = self.group.fields.get(place).map(|(field, _)| *field);
        for (item, decide) in self.group.items.iter().enumerate() {
            if let Decide::Value { field: of, test, .. } = decide
                && Some(*of) == field
                && values.cell(*of, id).is_some_and(|cell| test.passes_cell(cell))
            {
                items.push(item as u32);
            }
        }
        let next = self.lists.len() as u32 + 1;
        let list = if items.is_empty() { 0 } else { *self.lists.entry(items).or_insert(next) };
        if let Some(scanned) = self.scanned.get_mut(place) {
            if scanned.lists.len() <= id as usize {
                scanned.lists.resize(id as usize + 1, UNKNOWN);
            }
            if let Some(slot) = scanned.lists.get_mut(id as usize) {
                *slot = list;
            }
        }
        list
    }

    /// The items of a value.
    #[inline]
    fn scan(&mut self, values: &Values<'_>, place: usize, id: u32) -> (u32, u32) {
        let known = self.scanned.get(place).and_then(|s| s.ranges.get(id as usize));
        match known {
            Some(&(start, end)) if end != 0 => (start, end),
            _ => self.scan_new(values, place, id),
        }
    }

    fn scan_new(&mut self, values: &Values<'_>, place: usize, id: u32) -> (u32, u32) {
        let Some((field, index)) = self.group.fields.get(place) else { return (0, 0) };
        let start = self.found.len() as u32;
        if let Some(cell) = values.cell(*field, id) {
            index.scan(cell, &mut self.scratch, &mut self.found);
        }
        let range = (start, self.found.len() as u32);
        if let Some(scanned) = self.scanned.get_mut(place) {
            if scanned.ranges.len() <= id as usize {
                scanned.ranges.resize(id as usize + 1, (0, 0));
            }
            if let Some(slot) = scanned.ranges.get_mut(id as usize) {
                *slot = range;
            }
        }
        range
    }

    #[inline]
    fn wake(&mut self, start: u32, end: u32) {
        let Some(items) = self.found.get(start as usize..end as usize) else { return };
        for item in items {
            if let Some(fulfilled) = self.fulfilled.get_mut(*item as usize) {
                *fulfilled = self.mark;
            }
            let Some(wakes) = self.group.wakes.get(*item as usize) else { continue };
            for rule in wakes {
                if let Some(woken) = self.woken.get_mut(*rule as usize)
                    && *woken != self.mark
                {
                    *woken = self.mark;
                    self.candidates.push(*rule);
                }
            }
        }
    }

    fn holds(&mut self, node: &Node, values: &mut Values<'_>, row: usize) -> bool {
        match node {
            Node::Item(item) => self.decide(*item, values, row),
            Node::Not(part) => !self.holds(part, values, row),
            Node::And(parts) => parts.iter().all(|part| self.holds(part, values, row)),
            Node::Or(parts) => parts.iter().any(|part| self.holds(part, values, row)),
            Node::AtLeast(least, parts) => {
                parts.iter().filter(|part| self.holds(part, values, row)).count() >= *least
            }
        }
    }

    #[inline]
    fn decide(&mut self, item: u32, values: &mut Values<'_>, row: usize) -> bool {
        match self.group.items.get(item as usize) {
            Some(Decide::Indexed) => self.fulfilled.get(item as usize) == Some(&self.mark),
            Some(Decide::Value { field, test, slot }) => {
                let id = values.id(*field, row);
                if id == NO_VALUE {
                    return false;
                }
                let Some(answers) = self.answers.get_mut(*slot as usize) else { return false };
                remembered(answers, id, || {
                    values.cell(*field, id).is_some_and(|cell| test.passes_cell(cell))
                })
            }
            Some(Decide::Relation { left, right, how, cased }) => {
                let (one, other) = (values.id(*left, row), values.id(*right, row));
                if one == NO_VALUE || other == NO_VALUE {
                    return false;
                }
                match (values.cell(*left, one), values.cell(*right, other)) {
                    (Some(one), Some(other)) => relates(*how, *cased, one, other),
                    _ => false,
                }
            }
            Some(Decide::Keyword(keyword)) => {
                let columns = &values.columns;
                let searched = values.searched.get_or_insert_with(|| columns.searched());
                self.keywords.hold((item, keyword), columns, searched, row, self.rows)
            }
            None => false,
        }
    }
}

/// What was answered for a value, asked once.
pub(super) fn remembered(answers: &mut Vec<u8>, id: u32, ask: impl FnOnce() -> bool) -> bool {
    if answers.len() <= id as usize {
        answers.resize(id as usize + 1, 0);
    }
    let Some(answer) = answers.get_mut(id as usize) else { return false };
    if *answer == 0 {
        *answer = if ask() { YES } else { NO };
    }
    *answer == YES
}
