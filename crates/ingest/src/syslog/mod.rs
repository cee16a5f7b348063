//! Syslog messages to records.
//!
//! [`parse`] takes one message, RFC 5424, RFC 3164 or what devices make of it, and never fails: a
//! line that is no syslog is a record whose `message` is the line.
//!
//! | field | from |
//! |---|---|
//! | `time` | the stamp; a stamp without year or zone is completed ([`time`]) |
//! | `host` | the host name |
//! | `message` | the text behind the header, as received |
//! | `syslog.facility`, `syslog.severity`, `syslog.severity_code` | `<PRI>`: names, and 0 (emerg) to 7 (debug) |
//! | `syslog.appname`, `syslog.procid`, `syslog.msgid` | the header; of RFC 3164 the tag and its `[pid]` |
//! | `sd.<id>.<param>` | structured data; a repeated parameter has `.2`, `.3` … behind it |
//! | `syslog.structured_data` | structured data that is malformed or over 256 parameters, as received |
//! | `syslog.sequence` | the counter that Cisco devices put first |
//! | `syslog.repeated` | n of `message repeated n times: [ … ]` |
//! | `syslog.encoding` | `iso-8859-1` when the bytes were not UTF-8: they are decoded so, which loses nothing |
//!
//! A message that is a JSON object (also behind `@cee:`) gives its members as fields, dotted; a
//! member whose name, or the core column that it means, is taken already stands under `json.<name>`.
//! The well-known messages of sshd, PAM, sudo, su, login and of web servers give user, address, type,
//! outcome, the request and more ([`palisade_event::decode::lines`]).

pub mod framing;
mod json;
mod rfc3164;
mod rfc5424;
pub mod stream;
pub mod time;
pub mod udp;

use crate::submit::{OwnedValue, ParsedRecord};
use bytes::Bytes;
pub use palisade_event::decode::lines::auth;
use palisade_event::decode::lines::{self, Value};
use std::borrow::Cow;
use std::ops::Range;

/// What is needed beside the message.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    /// The clock, microseconds since the epoch: for stamps without a year.
    pub now: i64,
    /// What the sender's clock is ahead of UTC, in minutes, where no zone is written.
    pub utc_offset_minutes: i32,
}

/// What a message was recognised as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// RFC 5424.
    Rfc5424,
    /// RFC 3164, or a variation with at least a priority or a time stamp.
    Rfc3164,
    /// No syslog header.
    Plain,
}

/// Reads one message (without the bytes that end it).
#[must_use]
pub fn parse(line: &Bytes, context: &Context) -> (ParsedRecord, Format) {
    let (raw, latin) = as_text(line);
    let text = std::str::from_utf8(&raw).unwrap_or_default();
    let mut fields = Fields { text, now: context.now, list: Vec::with_capacity(12) };
    let (priority, rest) = priority(text);
    if let Some(priority) = priority {
        fields.priority(priority);
    }
    if latin {
        fields.push("syslog.encoding", OwnedValue::Text(Cow::Borrowed("iso-8859-1")));
    }
    let format = match priority.and_then(|_| rfc5424::parse(rest, context)) {
        Some(header) => {
            header.fill(&mut fields);
            Format::Rfc5424
        }
        None => rfc3164::parse(rest, priority.is_some(), context, &mut fields),
    };
    let mut fields = fields.list;
    // Most messages have few fields; what waits for its fsync must not hold room for many.
    fields.shrink_to_fit();
    (ParsedRecord { raw, fields }, format)
}

/// The bytes as UTF-8 text; true when they had to be decoded as ISO 8859-1.
fn as_text(line: &Bytes) -> (Bytes, bool) {
    if std::str::from_utf8(line).is_ok() {
        return (line.clone(), false);
    }
    let text: String = line.iter().map(|byte| char::from(*byte)).collect();
    (Bytes::from(text), true)
}

/// `<0>` to `<191>` at the beginning, and what follows.
fn priority(text: &str) -> (Option<u8>, &str) {
    let inner = || {
        let (number, rest) = text.strip_prefix('<')?.split_once('>')?;
        let plain = (1..=3).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit());
        let number = number.parse::<u8>().ok().filter(|number| plain && *number <= 191)?;
        Some((number, rest))
    };
    inner().map_or((None, text), |(number, rest)| (Some(number), rest))
}

const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
];
const SEVERITIES: [&str; 8] =
    ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];

/// The fields of a record while it is read.
struct Fields<'a> {
    text: &'a str,
    /// The clock ([`Context::now`]).
    now: i64,
    list: Vec<(Cow<'static, str>, OwnedValue)>,
}

impl<'a> Fields<'a> {
    fn push(&mut self, name: impl Into<Cow<'static, str>>, value: OwnedValue) {
        self.list.push((name.into(), value));
    }

    /// A field whose value stands in the text; an empty one is none.
    fn part(&mut self, name: &'static str, part: &'a str) {
        if !part.is_empty() {
            let range = self.range(part);
            self.push(name, OwnedValue::Part(range));
        }
    }

    /// Where a slice of the text stands in it.
    fn range(&self, part: &str) -> Range<u32> {
        let start = (part.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        narrow(start)..narrow(start + part.len())
    }

    fn priority(&mut self, priority: u8) {
        let name = |names: &[&'static str], at: u8| {
            names.get(usize::from(at)).copied().map(|name| OwnedValue::Text(Cow::Borrowed(name)))
        };
        if let Some(facility) = name(&FACILITIES, priority / 8) {
            self.push("syslog.facility", facility);
        }
        if let Some(severity) = name(&SEVERITIES, priority % 8) {
            self.push("syslog.severity", severity);
        }
        self.push("syslog.severity_code", OwnedValue::Int(i64::from(priority % 8)));
    }

    /// The message, and what can be read out of it.
    fn message(&mut self, program: &str, message: &'a str) {
        self.part("message", message);
        let inner = message.trim();
        let object = inner.strip_prefix("@cee:").unwrap_or(inner).trim_start();
        if object.starts_with('{') && object.ends_with('}') {
            json::fill(object, &mut self.list);
        } else {
            self.found(&lines::read_message(program, message, self.now));
        }
    }

    /// What a reader found in the message. What the header said already counts.
    fn found(&mut self, found: &lines::Fields<'a>) {
        for (name, value) in found.iter() {
            if self.list.iter().any(|(have, _)| have == name) {
                continue;
            }
            match value {
                Value::Part(part) => self.part(name, part),
                Value::Word(word) => self.push(name, OwnedValue::Text(Cow::Borrowed(word))),
                Value::Int(number) => self.push(name, OwnedValue::Int(number)),
                Value::Time(micros) => self.push(name, OwnedValue::Time(micros)),
            }
        }
    }
}

#[cfg(test)]
mod tests;
