//! RFC 5424: `<PRI>1 TIMESTAMP HOSTNAME APP-NAME PROCID MSGID STRUCTURED-DATA [MSG]`.

use super::{Context, Fields, time};
use crate::submit::OwnedValue;
use std::borrow::Cow;

/// The most parameters of structured data that become fields.
const MAX_PARAMETERS: usize = 256;

pub(super) struct Header<'a> {
    time: Option<i64>,
    host: &'a str,
    appname: &'a str,
    procid: &'a str,
    msgid: &'a str,
    structured: Structured<'a>,
    message: &'a str,
}

enum Structured<'a> {
    Parameters(Vec<(String, Cow<'a, str>)>),
    /// As received, because it is over the bound.
    Raw(&'a str),
}

/// Reads what follows `<PRI>`; `None` when it is not of this form.
pub(super) fn parse<'a>(rest: &'a str, context: &Context) -> Option<Header<'a>> {
    let rest = rest.strip_prefix("1 ")?;
    let (stamp, rest) = rest.split_once(' ')?;
    let time = match nil(stamp) {
        "" => None,
        stamp => {
            let (micros, length) = time::stamp(stamp, context.now, context.utc_offset_minutes)?;
            (length == stamp.len()).then_some(())?;
            Some(micros)
        }
    };
    let (host, rest) = rest.split_once(' ')?;
    let (appname, rest) = rest.split_once(' ')?;
    let (procid, rest) = rest.split_once(' ')?;
    let (msgid, rest) = rest.split_once(' ').unwrap_or((rest, "-"));
    let (structured, message) = structured(rest);
    Some(Header {
        time,
        host: nil(host),
        appname: nil(appname),
        procid: nil(procid),
        msgid: nil(msgid),
        structured,
        message,
    })
}

fn nil(value: &str) -> &str {
    if value == "-" { "" } else { value }
}

/// Structured data and the message behind it. What does not parse is part of the message.
fn structured(rest: &str) -> (Structured<'_>, &str) {
    let none = || Structured::Parameters(Vec::new());
    if let Some(after) = rest.strip_prefix('-')
        && (after.is_empty() || after.starts_with(' '))
    {
        return (none(), message(after));
    }
    let mut parameters = Vec::new();
    let mut at = rest;
    let mut many = false;
    while at.starts_with('[') {
        let Some((after, over)) = element(at, &mut parameters) else {
            return (none(), rest);
        };
        many |= over;
        at = after;
    }
    if at.len() == rest.len() || !(at.is_empty() || at.starts_with(' ')) {
        return (none(), rest);
    }
    let raw = rest.get(..rest.len() - at.len()).unwrap_or_default();
    let structured = if many { Structured::Raw(raw) } else { Structured::Parameters(parameters) };
    (structured, message(at))
}

/// The text behind the space that ends the header, without a byte order mark.
fn message(after: &str) -> &str {
    let text = after.strip_prefix(' ').unwrap_or(after);
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// One `[id name="value" …]`: what follows it, and whether there are too many parameters.
fn element<'a>(text: &'a str, out: &mut Vec<(String, Cow<'a, str>)>) -> Option<(&'a str, bool)> {
    let inner = text.strip_prefix('[')?;
    let end = inner.find([' ', ']'])?;
    let (id, mut rest) = inner.split_at_checked(end)?;
    if id.is_empty() || id.contains(['=', '"']) {
        return None;
    }
    let mut many = false;
    loop {
        if let Some(after) = rest.strip_prefix(']') {
            return Some((after, many));
        }
        rest = rest.strip_prefix(' ')?.trim_start_matches(' ');
        if rest.starts_with(']') {
            continue;
        }
        let (name, after) = rest.split_once("=\"")?;
        if name.is_empty() || name.contains([' ', ']', '"']) {
            return None;
        }
        let (value, after) = value(after)?;
        rest = after;
        if out.len() >= MAX_PARAMETERS {
            many = true;
            continue;
        }
        let base = format!("sd.{id}.{name}");
        let mut full = base.clone();
        let mut count = 2;
        while out.iter().any(|(have, _)| *have == full) {
            full = format!("{base}.{count}");
            count += 1;
        }
        out.push((full, value));
    }
}

/// A quoted value: `\"`, `\\` and `\]` stand for the second character, another `\` for itself.
fn value(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let mut own: Option<String> = None;
    let mut start = 0;
    let bytes = text.as_bytes();
    let mut at = 0;
    loop {
        at += memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        let stretch = text.get(start..at)?;
        if bytes.get(at) == Some(&b'"') {
            let rest = text.get(at + 1..)?;
            return Some(match own {
                None => (Cow::Borrowed(stretch), rest),
                Some(own) => (Cow::Owned(own + stretch), rest),
            });
        }
        match bytes.get(at + 1)? {
            b'"' | b'\\' | b']' => {
                own.get_or_insert_default().push_str(stretch);
                start = at + 1;
                at += 2;
            }
            _ => at += 1,
        }
    }
}

impl<'a> Header<'a> {
    pub(super) fn fill(self, fields: &mut Fields<'a>) {
        if let Some(time) = self.time {
            fields.push("time", OwnedValue::Time(time));
        }
        fields.part("host", self.host);
        fields.part("syslog.appname", self.appname);
        fields.part("syslog.procid", self.procid);
        fields.part("syslog.msgid", self.msgid);
        match self.structured {
            Structured::Raw(text) => fields.part("syslog.structured_data", text),
            Structured::Parameters(parameters) => {
                for (name, value) in parameters {
                    let value = match value {
                        Cow::Borrowed(part) => OwnedValue::Part(fields.range(part)),
                        Cow::Owned(text) => OwnedValue::Text(Cow::Owned(text)),
                    };
                    fields.push(name, value);
                }
            }
        }
        fields.message(self.appname, self.message);
    }
}
