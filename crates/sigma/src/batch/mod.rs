//! The fields of rules in the columns of a batch: which columns may hold a field, and the distinct
//! values that it has.
//!
//! Every value is compared as a text: a number by its decimal form, a boolean as `true` or `false`, a
//! moment in RFC 3339. So it does not matter whether a column is typed, holds JSON texts or stands in
//! the overflow.

mod cell;
mod column;
mod reads;

pub(crate) use cell::Cell;
pub(crate) use reads::Present;
pub use reads::Reads;

use crate::field::{ANY_NAME, Field};
use arrow::array::{Array, RecordBatch};
use cell::Walk;
use column::{Column, Key};
use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashTable};
use palisade_event::schema::{self, Core};
use serde_json::Value;
use std::borrow::Cow;
use std::hash::BuildHasher;

/// A row has no value for a field.
pub(crate) const NO_VALUE: u32 = u32::MAX;
/// A row was not looked at yet.
const UNREAD: u32 = u32::MAX - 1;
/// How the table of log sources calls the listener or stream that a record came by.
const SOURCE: &str = "palisade.source";

/// Core columns that hold what the sender sent.
const SENT: [Core; 13] = [
    Core::EventId,
    Core::Type,
    Core::Outcome,
    Core::User,
    Core::Host,
    Core::SrcIp,
    Core::SrcPort,
    Core::DstIp,
    Core::DstPort,
    Core::Location,
    Core::Message,
    Core::UserAgent,
    Core::Url,
];

/// The columns of a batch.
pub(crate) struct Columns<'a> {
    rows: usize,
    columns: Vec<Column<'a>>,
    names: Vec<&'a str>,
    by_name: HashMap<&'a str, usize, FixedState>,
    /// Columns with white space in their names, by their names without it.
    spaced: Vec<(String, usize)>,
    /// The overflow of each row that has one.
    overflow: HashMap<usize, serde_json::Map<String, Value>, FixedState>,
    /// The names that stand in any overflow.
    overflowed: Vec<String>,
}

/// Where a field may be read.
#[derive(Debug, Clone)]
enum Reader {
    Column(usize),
    /// Everything in the values of a column of JSON texts.
    Leaves(usize),
    /// Below the value of a column.
    Below(usize, String),
    /// A member of the overflow.
    Overflow(String),
    /// Everything in a member of the overflow.
    OverflowLeaves(String),
    /// Below a member of the overflow.
    BelowOverflow(String, String),
}

impl<'a> Columns<'a> {
    pub(crate) fn new(batch: &'a RecordBatch) -> Self {
        let mut overflow = HashMap::default();
        let mut overflowed: Vec<String> = Vec::new();
        let (mut columns, mut names, mut spaced) = (Vec::new(), Vec::new(), Vec::new());
        let mut by_name = HashMap::default();
        let schema = batch.schema_ref();
        for (index, (field, array)) in schema.fields().iter().zip(batch.columns()).enumerate() {
            let column = Column::new(array, schema::is_json(field));
            if field.name() == Core::Overflow.name() && array.null_count() < array.len() {
                for row in 0..batch.num_rows() {
                    let Some(text) = column.text(row) else { continue };
                    let Ok(Value::Object(members)) = serde_json::from_str(&text) else { continue };
                    for name in members.keys() {
                        if !overflowed.contains(name) {
                            overflowed.push(name.clone());
                        }
                    }
                    overflow.insert(row, members);
                }
            }
            if field.name().contains(char::is_whitespace) {
                spaced.push((field.name().split_whitespace().collect(), index));
            }
            by_name.insert(field.name().as_str(), index);
            names.push(field.name().as_str());
            columns.push(column);
        }
        Self { rows: batch.num_rows(), columns, names, by_name, spaced, overflow, overflowed }
    }

    /// The columns whose values a keyword may stand in.
    pub(crate) fn searched(&self) -> Vec<Searched<'a>> {
        let mut searched = Vec::new();
        for (index, name) in self.names.iter().enumerate() {
            let sent = Core::by_name(name).is_none_or(|core| SENT.contains(&core));
            let Some(column) = self.columns.get(index).filter(|column| !column.is_empty()) else {
                continue;
            };
            if sent && column.is_plain() {
                searched.push(Searched::Plain(index));
            } else if sent {
                let reader =
                    if column.is_json() { Reader::Leaves(index) } else { Reader::Column(index) };
                searched.push(Searched::Distinct(Some(index), self.view(vec![reader])));
            }
        }
        for name in &self.overflowed {
            let reader = Reader::OverflowLeaves(name.clone());
            searched.push(Searched::Distinct(None, self.view(vec![reader])));
        }
        searched
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// The rows that may have a value in a searched column.
    pub(crate) fn rows_with<'c>(
        &'c self,
        searched: &Searched<'a>,
    ) -> Box<dyn Iterator<Item = usize> + 'c> {
        let place = match searched {
            Searched::Plain(place) | Searched::Distinct(Some(place), _) => Some(*place),
            Searched::Distinct(None, _) => None,
        };
        match place.and_then(|place| self.columns.get(place)).and_then(Column::nulls) {
            Some(nulls) => Box::new(nulls.valid_indices()),
            None => Box::new(0..self.rows),
        }
    }

    /// The text of a row in a column of plain texts.
    pub(crate) fn plain(&self, index: usize, row: usize) -> Option<Cow<'a, str>> {
        self.columns.get(index)?.text(row)
    }

    /// The values of a field.
    pub(crate) fn field(&self, field: &Field) -> View<'a> {
        let mut readers = Vec::new();
        for path in field.paths.iter() {
            self.readers(path, &mut readers);
        }
        self.view(readers)
    }

    fn view(&self, readers: Vec<Reader>) -> View<'a> {
        let ids = if readers.is_empty() { Vec::new() } else { vec![UNREAD; self.rows] };
        let keys = readers
            .iter()
            .map(|reader| match reader {
                Reader::Column(index) => {
                    let distinct = self.columns.get(*index).map_or(0, Column::distinct);
                    vec![UNREAD; distinct]
                }
                _ => Vec::new(),
            })
            .collect();
        View {
            readers,
            keys,
            ints: HashMap::default(),
            ids,
            cells: Vec::new(),
            table: HashTable::new(),
        }
    }

    /// Adds the places at which a path may stand.
    fn readers(&self, path: &str, readers: &mut Vec<Reader>) {
        if let Some((before, behind)) = path.split_once(ANY_NAME) {
            for (index, name) in self.names.iter().enumerate() {
                let between = name.strip_prefix(before).and_then(|rest| rest.strip_suffix(behind));
                if between.is_some_and(|name| !name.is_empty()) {
                    readers.push(Reader::Column(index));
                }
            }
            return;
        }
        let core = Core::by_name(path);
        let name: Cow<'_, str> = match core {
            _ if path == SOURCE => Core::Source.name().into(),
            Some(core) if core.is_derived() => format!("sent.{path}").into(),
            _ => path.into(),
        };
        let column = |name: &str| {
            let index = *self.by_name.get(name)?;
            self.columns.get(index).filter(|column| !column.is_empty()).map(|_| index)
        };
        if let Some(index) = column(&name) {
            readers.push(Reader::Column(index));
        }
        for (_, index) in self.spaced.iter().filter(|(spaced, _)| **spaced == *name) {
            readers.push(Reader::Column(*index));
        }
        for overflowed in &self.overflowed {
            let spaced = overflowed.contains(char::is_whitespace)
                && overflowed.split_whitespace().collect::<String>() == *name;
            if **overflowed == *name || spaced {
                readers.push(Reader::Overflow(overflowed.clone()));
            }
        }
        if let Some(alias) = schema::alias(path)
            && Some(alias) != core
            && let Some(index) = column(alias.name())
        {
            readers.push(Reader::Column(index));
        }
        for (at, _) in name.match_indices('.').collect::<Vec<_>>().into_iter().rev() {
            let (above, rest) = (name.get(..at), name.get(at + 1..));
            let (Some(above), Some(rest)) = (above, rest) else { continue };
            if let Some(index) = column(above)
                && self.columns.get(index).is_some_and(Column::is_json)
            {
                readers.push(Reader::Below(index, rest.to_owned()));
            }
            if self.overflowed.iter().any(|overflowed| overflowed == above) {
                readers.push(Reader::BelowOverflow(above.to_owned(), rest.to_owned()));
            }
        }
    }

    fn read(&self, reader: &Reader, row: usize) -> Option<Cell<'a>> {
        let member = |name: &str| self.overflow.get(&row)?.get(name);
        match reader {
            Reader::Column(index) => self.columns.get(*index)?.cell(row),
            Reader::Leaves(index) => {
                let text = self.columns.get(*index)?.text(row)?;
                Cell::of_json(&serde_json::from_str(&text).ok()?, Walk::Leaves)
            }
            Reader::Below(index, rest) => {
                let text = self.columns.get(*index)?.text(row)?;
                Cell::below(&serde_json::from_str(&text).ok()?, rest)
            }
            Reader::Overflow(name) => Cell::of_json(member(name)?, Walk::Members),
            Reader::OverflowLeaves(name) => Cell::of_json(member(name)?, Walk::Leaves),
            Reader::BelowOverflow(name, rest) => Cell::below(member(name)?, rest),
        }
    }
}

/// A column whose values a keyword may stand in.
pub(crate) enum Searched<'a> {
    /// Of plain texts, which are likely to be different: by its place.
    Plain(usize),
    /// Whose distinct values are looked at once each: its place, where it is a column.
    Distinct(Option<usize>, View<'a>),
}

/// The distinct values of a field in a batch, found as rows are asked for.
pub(crate) struct View<'a> {
    readers: Vec<Reader>,
    /// For each reader of a dictionary, the value of each of its keys.
    keys: Vec<Vec<u32>>,
    /// The value of each integer that was met.
    ints: HashMap<i64, u32, FixedState>,
    /// The value of each row.
    ids: Vec<u32>,
    cells: Vec<Cell<'a>>,
    table: HashTable<u32>,
}

impl<'a> View<'a> {
    /// Whether no row has a value.
    pub(crate) fn is_empty(&self) -> bool {
        self.readers.is_empty()
    }

    /// The number of a row's value; equal numbers mean equal values.
    #[inline]
    pub(crate) fn id(&mut self, columns: &Columns<'a>, row: usize) -> u32 {
        match self.ids.get(row) {
            Some(&UNREAD) => self.read(columns, row),
            Some(&id) => id,
            None => NO_VALUE,
        }
    }

    fn read(&mut self, columns: &Columns<'a>, row: usize) -> u32 {
        let mut found = NO_VALUE;
        for place in 0..self.readers.len() {
            let Some(reader) = self.readers.get(place) else { break };
            let key = match reader {
                Reader::Column(index) => {
                    columns.columns.get(*index).map_or(Key::Nothing, |column| column.key(row))
                }
                _ => Key::Value,
            };
            found = match key {
                Key::Nothing => continue,
                Key::Int(value) if self.ints.contains_key(&value) => {
                    self.ints.get(&value).copied().unwrap_or(NO_VALUE)
                }
                Key::Place(key) if self.known(place, key) != UNREAD => self.known(place, key),
                key => {
                    let cell = columns.read(reader, row);
                    let id = cell.map_or(NO_VALUE, |cell| self.intern(cell));
                    match key {
                        Key::Int(value) => {
                            self.ints.insert(value, id);
                        }
                        Key::Place(key) => {
                            let keys = self.keys.get_mut(place);
                            if let Some(slot) = keys.and_then(|keys| keys.get_mut(key)) {
                                *slot = id;
                            }
                        }
                        Key::Nothing | Key::Value => {}
                    }
                    id
                }
            };
            if found != NO_VALUE {
                break;
            }
        }
        if let Some(slot) = self.ids.get_mut(row) {
            *slot = found;
        }
        found
    }

    fn known(&self, place: usize, key: usize) -> u32 {
        self.keys.get(place).and_then(|keys| keys.get(key)).copied().unwrap_or(UNREAD)
    }

    fn intern(&mut self, cell: Cell<'a>) -> u32 {
        let hasher = FixedState::default();
        let hash = hasher.hash_one(&cell);
        let cells = &self.cells;
        let same = |id: &u32| cells.get(*id as usize) == Some(&cell);
        if let Some(id) = self.table.find(hash, same) {
            return *id;
        }
        let id = self.cells.len() as u32;
        self.cells.push(cell);
        let cells = &self.cells;
        self.table.insert_unique(hash, id, |id| {
            cells.get(*id as usize).map_or(0, |cell| hasher.hash_one(cell))
        });
        id
    }

    /// A value by its number.
    pub(crate) fn cell(&self, id: u32) -> Option<&Cell<'a>> {
        self.cells.get(id as usize)
    }
}
