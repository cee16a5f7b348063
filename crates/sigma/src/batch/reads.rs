//! Which columns of a table can decide something about fields, known before any row is read: so that a hunt reads no
//! others. It says the same as [`super::Columns`] does where it looks for the readers of a path.

use super::{SENT, SOURCE};
use crate::field::{ANY_NAME, Field};
use arrow::datatypes::Field as Column;
use foldhash::fast::FixedState;
use hashbrown::HashSet;
use palisade_event::schema::{self, Core};

type Names = HashSet<String, FixedState>;

/// The columns that some fields may be read from.
#[derive(Debug, Clone, Default)]
pub struct Reads {
    /// Columns by their names; those with white space in them without it.
    names: Names,
    /// Columns of JSON texts in which a field may stand.
    above: Names,
    /// Beginnings and ends of names that may be any in between.
    wild: Vec<(String, String)>,
    /// A keyword may stand in everything that was sent.
    keywords: bool,
}

impl Reads {
    /// Adds the columns of a field.
    pub(crate) fn add(&mut self, field: &Field) {
        for path in field.paths.iter() {
            if let Some((before, behind)) = path.split_once(ANY_NAME) {
                let wild = (before.to_owned(), behind.to_owned());
                if !self.wild.contains(&wild) {
                    self.wild.push(wild);
                }
                continue;
            }
            let name = match Core::by_name(path) {
                _ if path == SOURCE => Core::Source.name().to_owned(),
                Some(core) if core.is_derived() => format!("sent.{path}"),
                _ => path.clone(),
            };
            for (at, _) in name.match_indices('.') {
                if let Some(above) = name.get(..at) {
                    self.above.insert(above.to_owned());
                }
            }
            if let Some(alias) = schema::alias(path) {
                self.names.insert(alias.name().to_owned());
            }
            self.names.insert(name);
        }
    }

    /// Adds the column that says whose a row is.
    pub(crate) fn add_tenant(&mut self) {
        self.names.insert(Core::Tenant.name().to_owned());
    }

    /// Adds every column in which a keyword may stand.
    pub(crate) fn add_keywords(&mut self) {
        self.keywords = true;
    }

    /// Whether no column decides anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && self.wild.is_empty() && !self.keywords
    }

    /// Whether a column may hold a value that decides.
    #[must_use]
    pub fn wants(&self, column: &Column) -> bool {
        let name = column.name().as_str();
        if self.is_empty() {
            return false;
        }
        name == Core::Overflow.name()
            || self.keywords && Core::by_name(name).is_none_or(|core| SENT.contains(&core))
            || self.names.contains(name)
            || self.above.contains(name) && schema::is_json(column)
            || name.contains(char::is_whitespace)
                && self.names.contains(&name.split_whitespace().collect::<String>())
            || self.wild.iter().any(|(before, behind)| is_between(name, before, behind))
    }
}

fn is_between(name: &str, before: &str, behind: &str) -> bool {
    let between = name.strip_prefix(before).and_then(|rest| rest.strip_suffix(behind));
    between.is_some_and(|between| !between.is_empty())
}

/// The columns that a part of a table has values in.
#[derive(Debug)]
pub(crate) struct Present<'c> {
    columns: HashSet<&'c str, FixedState>,
    json: HashSet<&'c str, FixedState>,
    spaced: Names,
    /// Fields may stand in the overflow, which nobody knows before it is read.
    overflow: bool,
}

impl<'c> Present<'c> {
    pub(crate) fn new(columns: impl IntoIterator<Item = &'c Column>) -> Self {
        let mut present = Self {
            columns: HashSet::default(),
            json: HashSet::default(),
            spaced: HashSet::default(),
            overflow: false,
        };
        for column in columns {
            let name = column.name().as_str();
            present.overflow |= name == Core::Overflow.name();
            present.columns.insert(name);
            if schema::is_json(column) {
                present.json.insert(name);
            }
            if name.contains(char::is_whitespace) {
                present.spaced.insert(name.split_whitespace().collect());
            }
        }
        present
    }

    /// Whether any row may have a value for a field.
    pub(crate) fn has(&self, field: &Field) -> bool {
        self.overflow || field.paths.iter().any(|path| self.has_path(path))
    }

    fn has_path(&self, path: &str) -> bool {
        if let Some((before, behind)) = path.split_once(ANY_NAME) {
            return self.columns.iter().any(|name| is_between(name, before, behind));
        }
        let derived = Core::by_name(path).is_some_and(Core::is_derived);
        let sent = derived.then(|| format!("sent.{path}"));
        let name = match &sent {
            _ if path == SOURCE => Core::Source.name(),
            Some(sent) => sent,
            None => path,
        };
        self.columns.contains(name)
            || schema::alias(path).is_some_and(|alias| self.columns.contains(alias.name()))
            || !self.spaced.is_empty() && self.spaced.contains(name)
            || !self.json.is_empty()
                && (name.match_indices('.'))
                    .any(|(at, _)| name.get(..at).is_some_and(|above| self.json.contains(above)))
    }
}
