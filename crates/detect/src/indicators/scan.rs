//! Finding indicators in values and in the rows of a batch.

use super::Kind;
use super::columns::{Looks, looks};
use super::set::Indicators;
use super::value::{self, hash, push_email, push_name, push_url, tag, url_parts};
use arrow::array::{Array, DictionaryArray, RecordBatch, StringArray};
use arrow::datatypes::Int32Type;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use palisade_event::column::Text;
use palisade_event::schema::{Core, is_json};

/// A value longer than this is looked at up to here.
const MAX_VALUE: usize = 64 << 10;
/// Parts of a value that are looked at.
const MAX_PARTS: usize = 1024;
/// Names of columns that are remembered.
const MAX_NAMES: usize = 16 << 10;

/// An indicator in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// The row in the batch.
    pub row: u32,
    /// The column in the batch.
    pub column: u32,
    /// The indicator ([`Indicators::get`]).
    pub indicator: u32,
}

/// Finds indicators in single values.
#[derive(Debug, Default)]
pub struct ValueScanner {
    form: Vec<u8>,
}

impl ValueScanner {
    /// Appends the indicators that a value of a column holds: in the order in which they are found, some twice
    /// when the value names them twice. `json` says that the value is a JSON text.
    pub fn find(
        &mut self,
        set: &Indicators,
        looks: Looks,
        json: bool,
        value: &str,
        found: &mut Vec<u32>,
    ) {
        let end = (0..=MAX_VALUE.min(value.len())).rev().find(|at| value.is_char_boundary(*at));
        let value = value.get(..end.unwrap_or(0)).unwrap_or_default();
        if json {
            strings(value, |text| self.text(set, looks, text, found));
        } else {
            self.text(set, looks, value, found);
        }
    }

    fn text(&mut self, set: &Indicators, looks: Looks, text: &str, found: &mut Vec<u32>) {
        let text = text.trim_ascii();
        if looks.has(Looks::URLS)
            && let Some(parts) = url_parts(text)
        {
            if set.has(Kind::Url.bit()) {
                self.form.clear();
                push_url(&parts, &mut self.form);
                self.form.push(tag(Kind::Url));
                set.find(&self.form, found);
            }
            self.place(set, parts.host, found);
        }
        if looks.has(Looks::EMAILS) && memchr::memchr(b'@', text.as_bytes()).is_some() {
            for part in text.split([',', ';']).take(MAX_PARTS) {
                self.email(set, part.trim_ascii(), found);
            }
        }
        if !looks.has(Looks::PLACES.and(Looks::HASHES)) {
            return;
        }
        for part in text.split(is_separator).filter(|part| !part.is_empty()).take(MAX_PARTS) {
            if looks.has(Looks::HASHES) {
                self.hash(set, part, found);
            }
            if looks.has(Looks::PLACES) {
                self.place(set, part, found);
            }
        }
    }

    /// An address or a name.
    fn place(&mut self, set: &Indicators, text: &str, found: &mut Vec<u32>) {
        if let Some(address) = value::address(text) {
            set.find_address(address, &mut self.form, found);
            return;
        }
        if set.has(Kind::Domain.bit() | Kind::Hostname.bit()) {
            self.form.clear();
            if push_name(text, &mut self.form) {
                self.names(set, 0, found);
            }
        }
    }

    /// The name that stands in the form from `start` on, and the domains above it.
    fn names(&mut self, set: &Indicators, start: usize, found: &mut Vec<u32>) {
        if set.has(Kind::Hostname.bit()) {
            self.form.push(tag(Kind::Hostname));
            set.find(self.form.get(start..).unwrap_or_default(), found);
            self.form.pop();
        }
        if !set.has(Kind::Domain.bit()) {
            return;
        }
        self.form.push(tag(Kind::Domain));
        let mut rest = self.form.get(start..).unwrap_or_default();
        loop {
            set.find(rest, found);
            let Some(dot) = memchr::memchr(b'.', rest) else { break };
            rest = rest.get(dot + 1..).unwrap_or_default();
            // The last label alone is no indicator.
            if memchr::memchr(b'.', rest).is_none() {
                break;
            }
        }
    }

    fn email(&mut self, set: &Indicators, text: &str, found: &mut Vec<u32>) {
        self.form.clear();
        let Some(domain) = push_email(text, &mut self.form) else { return };
        self.form.push(tag(Kind::Email));
        set.find(&self.form, found);
        self.form.pop();
        self.names(set, domain, found);
    }

    /// A hash, alone or behind its name (`SHA256=…`, `md5:…`).
    fn hash(&mut self, set: &Indicators, text: &str, found: &mut Vec<u32>) {
        let (name, text) = match text.split_once(['=', ':']) {
            Some((name, text)) => (Some(name), text),
            None => (None, text),
        };
        let Some((kind, bytes, length)) = hash(text) else { return };
        let named = |name: &str| {
            let plain = name.replace('-', "");
            plain.eq_ignore_ascii_case(kind.name())
        };
        if name.is_none_or(named) {
            self.form.clear();
            self.form.extend_from_slice(bytes.get(..length).unwrap_or_default());
            self.form.push(tag(kind));
            set.find(&self.form, found);
        }
    }
}

fn is_separator(c: char) -> bool {
    matches!(c, ',' | ';' | '|' | '"' | '\'' | '{' | '}') || c.is_ascii_whitespace()
}

/// Gives the strings of a JSON text, keys of objects among them.
fn strings(json: &str, mut each: impl FnMut(&str)) {
    let mut rest = json;
    let mut unescaped = String::new();
    for _ in 0..MAX_PARTS {
        let Some(start) = memchr::memchr(b'"', rest.as_bytes()) else { return };
        let Some(text) = rest.get(start + 1..) else { return };
        let mut escaped = false;
        let mut at = 0;
        let end = loop {
            let Some(found) =
                text.get(at..).and_then(|text| memchr::memchr2(b'"', b'\\', text.as_bytes()))
            else {
                return;
            };
            if text.as_bytes().get(at + found) == Some(&b'"') {
                break at + found;
            }
            escaped = true;
            at = (at + found + 2).min(text.len());
        };
        let inner = text.get(..end).unwrap_or_default();
        if escaped {
            // What else is escaped stands in no indicator.
            unescaped.clear();
            unescaped.push_str(&inner.replace("\\/", "/"));
            each(&unescaped);
        } else {
            each(inner);
        }
        rest = text.get(end + 1..).unwrap_or_default();
    }
}

/// Finds indicators in batches. It remembers names of columns, nothing of rows.
#[derive(Debug, Default)]
pub struct Scanner {
    values: ValueScanner,
    names: HashMap<String, Looks, FixedState>,
    hits: Vec<u32>,
    /// For the values of a dictionary: where their hits end in `hits`.
    ends: Vec<u32>,
    found: Vec<Found>,
}

impl Scanner {
    /// A scanner.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The indicators in the rows of a batch, by row, column and indicator, each once. Lists of a tenant are for
    /// that tenant's rows only, as the column `tenant` says.
    pub fn scan(&mut self, set: &Indicators, batch: &RecordBatch) -> &[Found] {
        self.found.clear();
        if set.is_empty() {
            return &self.found;
        }
        for (index, (field, array)) in
            batch.schema_ref().fields().iter().zip(batch.columns()).enumerate()
        {
            let looks = self.looks(field.name());
            if !set.may_be_in(looks) || array.null_count() == array.len() {
                continue;
            }
            let column = u32::try_from(index).unwrap_or(u32::MAX);
            let json = is_json(field);
            match Text::of(array) {
                Some(Text::Plain(plain)) => self.plain(set, looks, json, column, plain),
                Some(Text::Dictionary(keys, values)) => {
                    self.dictionary(set, looks, json, column, keys, values);
                }
                None => {}
            }
        }
        if set.lists().iter().any(|list| list.spec.tenant.is_some()) {
            let tenants = Text::in_batch(batch, Core::Tenant.name());
            self.found.retain(|found| {
                let tenant = tenants.and_then(|tenants| tenants.get(found.row as usize));
                set.is_for(found.indicator, tenant.unwrap_or_default())
            });
        }
        self.found.sort_unstable();
        self.found.dedup();
        &self.found
    }

    fn looks(&mut self, name: &str) -> Looks {
        if let Some(known) = self.names.get(name) {
            return *known;
        }
        if self.names.len() >= MAX_NAMES {
            self.names.clear();
        }
        let found = looks(name);
        self.names.insert(name.to_owned(), found);
        found
    }

    fn plain(
        &mut self,
        set: &Indicators,
        looks: Looks,
        json: bool,
        column: u32,
        array: &StringArray,
    ) {
        let mut last: Option<&str> = None;
        for (row, text) in array.iter().enumerate() {
            let Some(text) = text else { continue };
            // Neighbours are often the same.
            if last != Some(text) {
                self.hits.clear();
                self.values.find(set, looks, json, text, &mut self.hits);
                last = Some(text);
            }
            let row = row as u32;
            self.found.extend(self.hits.iter().map(|indicator| Found {
                row,
                column,
                indicator: *indicator,
            }));
        }
    }

    fn dictionary(
        &mut self,
        set: &Indicators,
        looks: Looks,
        json: bool,
        column: u32,
        array: &DictionaryArray<Int32Type>,
        values: &StringArray,
    ) {
        self.hits.clear();
        let rows = array.keys().iter().enumerate();
        if values.len() > array.len() {
            // A slice whose dictionary is larger than itself: only what its rows use is looked at.
            for (row, key) in rows {
                let Some(key) = key.map(|key| key as usize).filter(|key| *key < values.len())
                else {
                    continue;
                };
                self.hits.clear();
                if values.is_valid(key) {
                    self.values.find(set, looks, json, values.value(key), &mut self.hits);
                }
                let row = row as u32;
                self.found.extend(self.hits.iter().map(|indicator| Found {
                    row,
                    column,
                    indicator: *indicator,
                }));
            }
            return;
        }
        self.ends.clear();
        for text in values {
            if let Some(text) = text {
                self.values.find(set, looks, json, text, &mut self.hits);
            }
            self.ends.push(self.hits.len() as u32);
        }
        if self.hits.is_empty() {
            return;
        }
        let (ends, hits) = (&self.ends, &self.hits);
        for (row, key) in rows {
            let Some(key) = key.and_then(|key| usize::try_from(key).ok()) else { continue };
            let from = key.checked_sub(1).and_then(|before| ends.get(before)).copied().unwrap_or(0);
            let to = ends.get(key).copied().unwrap_or(from);
            let row = row as u32;
            let hits = hits.get(from as usize..to as usize).unwrap_or_default();
            self.found.extend(hits.iter().map(|indicator| Found {
                row,
                column,
                indicator: *indicator,
            }));
        }
    }
}
