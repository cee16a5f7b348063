//! One record straight into the columns: the object parser and where each value goes.

use super::FieldValue;
use super::column::Value;
use super::number::Number;
use super::path::{NONE, OVERFLOW, Paths, ROOT, column_name};
use super::rows::Rows;
use super::scan::{Parsed, Scan, Why};
use super::written::{replace_surrogates, write_string};
use crate::schema::Core;
use crate::time;

/// Buffers that live as long as the builder, so that records allocate nothing.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    key: Vec<u8>,
    text: Vec<u8>,
    path: Vec<u8>,
}

/// Decodes the fields of one record.
pub(super) struct Record<'b> {
    pub(super) rows: &'b mut Rows,
    pub(super) paths: &'b mut Paths,
    pub(super) scratch: &'b mut Scratch,
}

impl Record<'_> {
    /// The record that begins here; the scan ends after its closing brace.
    pub(super) fn json(&mut self, scan: &mut Scan<'_>) -> Parsed<()> {
        if scan.next() != Some(b'{') {
            return scan.refuse(Why::NotAnObject);
        }
        self.object(scan, ROOT, 1)?;
        self.rows.surrogates += scan.surrogates;
        Ok(())
    }

    /// The members of an object, at its opening brace; whether there were any.
    fn object(&mut self, scan: &mut Scan<'_>, node: u32, depth: u32) -> Parsed<bool> {
        scan.descend(depth)?;
        if scan.next() == Some(b'}') {
            scan.step();
            return Ok(false);
        }
        let mut previous = NONE;
        loop {
            scan.count_key()?;
            let entry = match self.paths.predicted(node, previous) {
                Some((entry, key)) if scan.take(key) => entry,
                _ => self.key(scan, node, previous)?,
            };
            self.value(scan, entry, depth)?;
            previous = entry;
            match scan.next() {
                Some(b',') => {
                    scan.step();
                    scan.next();
                }
                Some(b'}') => {
                    scan.step();
                    return Ok(true);
                }
                _ => return scan.refuse(Why::Expected("',' or '}' in an object")),
            }
        }
    }

    /// The entry of the key that comes next, with the colon after it.
    #[inline(never)]
    fn key(&mut self, scan: &mut Scan<'_>, node: u32, previous: u32) -> Parsed<u32> {
        scan.expect(b'"', "a key in quotes")?;
        let key = scan.string(&mut self.scratch.key)?;
        let entry = self.paths.find(node, previous, key);
        scan.expect(b':', "':' after a key")?;
        Ok(entry)
    }

    #[inline]
    fn value(&mut self, scan: &mut Scan<'_>, entry: u32, depth: u32) -> Parsed<()> {
        match scan.next() {
            Some(b'"') => {
                scan.step();
                match scan.plain_string() {
                    Some(text) => {
                        self.put_text(entry, text);
                        Ok(())
                    }
                    None => self.escaped_text(scan, entry),
                }
            }
            Some(b'-' | b'0'..=b'9') => {
                let start = scan.at();
                let number = scan.number()?;
                let text = scan.since(start);
                self.put(
                    entry,
                    &match number {
                        Number::Int(value) => Value::Int(value, text),
                        Number::Float(value) => Value::Float(value, text),
                        Number::Text => Value::Json(text),
                    },
                );
                Ok(())
            }
            Some(b'{') => {
                let child = self.paths.child(entry);
                if !self.object(scan, child, depth + 1)? {
                    self.put(entry, &Value::Json(b"{}"));
                }
                Ok(())
            }
            Some(b'[') => {
                let start = scan.at();
                let surrogates = scan.surrogates;
                scan.skip(depth)?;
                let text = scan.since(start);
                if scan.surrogates == surrogates {
                    self.put(entry, &Value::Json(text));
                } else {
                    let mut scratch = std::mem::take(&mut self.scratch.text);
                    replace_surrogates(text, &mut scratch);
                    self.put(entry, &Value::Json(&scratch));
                    self.scratch.text = scratch;
                }
                Ok(())
            }
            _ => {
                if let Some(value) = scan.literal()? {
                    self.put(entry, &Value::Bool(value));
                }
                Ok(())
            }
        }
    }

    #[inline(never)]
    fn escaped_text(&mut self, scan: &mut Scan<'_>, entry: u32) -> Parsed<()> {
        // Taken out, so that the text can be borrowed from it while columns change.
        let mut scratch = std::mem::take(&mut self.scratch.text);
        let done = scan.unescape(&mut scratch);
        if done.is_ok() {
            self.put(entry, &Value::Text(&scratch, true));
        }
        self.scratch.text = scratch;
        done
    }

    /// The entry of a field that is named by its whole path.
    pub(super) fn named(&mut self, name: &str, previous: u32) -> u32 {
        match self.paths.predicted(ROOT, previous) {
            Some((entry, key))
                if key.split_last().is_some_and(|(_, key)| key == name.as_bytes()) =>
            {
                entry
            }
            _ => self.paths.find(ROOT, previous, name.as_bytes()),
        }
    }

    /// Puts a value that another parser found.
    pub(super) fn put_field(&mut self, entry: u32, value: FieldValue<'_>) -> Parsed<()> {
        match value {
            FieldValue::Text(text) => self.put(entry, &Value::Text(text.as_bytes(), true)),
            FieldValue::Int(value) => {
                self.put(entry, &Value::Int(value, itoa::Buffer::new().format(value).as_bytes()));
            }
            FieldValue::Float(value) if value.is_finite() => {
                self.put(
                    entry,
                    &Value::Float(value, ryu::Buffer::new().format_finite(value).as_bytes()),
                );
            }
            FieldValue::Float(_) => {}
            FieldValue::Bool(value) => self.put(entry, &Value::Bool(value)),
            FieldValue::Time(micros) => {
                let is_time = self.paths.entry(entry).is_some_and(|e| e.core == Some(Core::Time));
                if !is_time || !self.rows.put_time(micros) {
                    self.put(entry, &Value::Text(time::rfc3339(micros).as_bytes(), false));
                }
            }
            FieldValue::Json(text) => {
                let limits = &self.rows.limits;
                let mut scan = Scan::new(text.as_bytes(), 0, limits.max_keys, limits.max_depth);
                self.value(&mut scan, entry, 1)?;
                if scan.next().is_some() {
                    return scan.refuse(Why::Expected("nothing after the field's JSON value"));
                }
                self.rows.surrogates += scan.surrogates;
            }
        }
        Ok(())
    }

    /// [`Record::put`] for a text without escapes, the commonest value.
    #[inline]
    fn put_text(&mut self, entry: u32, text: &[u8]) {
        if let Some(found) = self.paths.entry(entry) {
            let done = match found.core {
                Some(core) => self.rows.put_core_text(core, text),
                None => found.epoch == self.paths.epoch && self.rows.put_text(found.leaf, text),
            };
            if done {
                return;
            }
        }
        self.put(entry, &Value::Text(text, false));
    }

    /// Puts a value where it belongs: into its core column if it fits and that is free, else into a
    /// column of its own path, else into the overflow.
    #[inline]
    pub(super) fn put(&mut self, entry: u32, value: &Value<'_>) {
        let Some(found) = self.paths.entry(entry) else {
            return;
        };
        let leaf = if found.epoch == self.paths.epoch { found.leaf } else { NONE };
        if let Some(core) = found.core
            && self.rows.put_core(core, value)
        {
            return;
        }
        let leaf = if leaf == NONE { self.resolve(entry) } else { leaf };
        if leaf == OVERFLOW || !self.rows.put(leaf, value) {
            self.overflow(entry, leaf, value);
        }
    }

    /// Where the values of an entry go in this frame.
    #[cold]
    fn resolve(&mut self, entry: u32) -> u32 {
        let path = self.paths.path(entry);
        let leaf = match column_name(&path) {
            None => OVERFLOW,
            Some(name) => self.rows.begin_column(self.paths, &name, &path),
        };
        self.paths.set_leaf(entry, leaf);
        leaf
    }

    /// Adds a member to the row's overflow, under the name by which it would have had a column.
    #[cold]
    fn overflow(&mut self, entry: u32, leaf: u32, value: &Value<'_>) {
        self.scratch.path.clear();
        match self.rows.column_name(leaf) {
            Some(name) => self.scratch.path.extend_from_slice(name.as_bytes()),
            None => {
                self.paths.write_path(entry, &mut self.scratch.path);
                let derived = std::str::from_utf8(&self.scratch.path)
                    .ok()
                    .and_then(Core::by_name)
                    .is_some_and(Core::is_derived);
                if derived {
                    self.scratch.path.splice(..0, *b"sent.");
                }
            }
        }
        let out = &mut self.rows.overflow;
        out.push(if out.is_empty() { b'{' } else { b',' });
        write_string(&self.scratch.path, out);
        out.push(b':');
        value.write_json(out);
        self.rows.stats.overflow_fields += 1;
    }
}

/// A value as a moment, if it is one.
pub(super) fn moment(value: &Value<'_>, clock: i64) -> Option<i64> {
    match value {
        Value::Text(text, _) => time::parse_bytes(text, clock),
        Value::Int(value, _) => time::from_epoch(*value),
        Value::Float(_, text) => time::number(text),
        Value::Bool(_) | Value::Json(_) => None,
    }
}

/// A value as a port: an integer, or a text of just its digits, from 0 to 65,535.
pub(super) fn port(value: &Value<'_>) -> Option<i64> {
    let port = match value {
        Value::Int(value, _) => *value,
        Value::Text(text @ [first, ..], _) if *first != b'0' || text.len() == 1 => {
            if text.len() > 5 || !text.iter().all(u8::is_ascii_digit) {
                return None;
            }
            text.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'))
        }
        _ => return None,
    };
    (0..=65_535).contains(&port).then_some(port)
}

/// A value as a score: a number that a double holds exactly, or a text of one.
pub(super) fn score(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Float(value, _) => Some(*value),
        Value::Int(value, _) => (value.unsigned_abs() <= 1 << 53).then_some(*value as f64),
        Value::Text(text, _) => {
            let mut scan = Scan::new(text, 0, 0, 0);
            let number = scan.number().ok()?;
            if scan.at() != text.len() {
                return None;
            }
            match number {
                Number::Float(value) => Some(value),
                Number::Int(value) => score(&Value::Int(value, text)),
                Number::Text => None,
            }
        }
        Value::Bool(_) | Value::Json(_) => None,
    }
}
