//! RFC 3164 and what devices make of it: `<PRI>Mmm dd hh:mm:ss host tag[pid]: message`.
//!
//! Every part may be missing. Variations that are read: time stamps of other forms ([`super::time`]),
//! no host name (the first word is a tag), Cisco's counter and `*` or `.` before the stamp and `:`
//! behind it, the host before the stamp, tags in parentheses.

use super::{Context, Fields, Format, time};
use crate::submit::OwnedValue;

/// The longest tag: RFC 3164 says 32, programs have longer names.
const MAX_TAG: usize = 64;

/// Reads a message behind its priority, if it had one.
pub(super) fn parse<'a>(
    rest: &'a str,
    has_priority: bool,
    context: &Context,
    fields: &mut Fields<'a>,
) -> Format {
    let stamp = |text: &'a str| {
        let text = text.trim_start_matches(['*', '.']);
        let (micros, length) = time::stamp(text, context.now, context.utc_offset_minutes)?;
        let after = text.get(length..)?;
        if let Some(after) = after.strip_prefix(':') {
            return Some((micros, after, true));
        }
        (after.is_empty() || after.starts_with(' ')).then_some((micros, after, false))
    };
    let mut text = rest;
    let mut host_before = "";
    let mut found = stamp(text);
    if found.is_none() && has_priority {
        // `45: *Mar  1 …`, `45: router: *Mar  1 …`, `router: Mar  1 …`
        let (sequence, after) = sequence(text);
        let before = word_with_colon(after).filter(|(_, rest)| stamp(rest).is_some());
        let candidate = before.map_or(after, |(_, rest)| rest);
        found = stamp(candidate);
        if found.is_some() || !sequence.is_empty() {
            fields.part("syslog.sequence", sequence);
            host_before = before.map_or("", |(host, _)| host);
            text = after;
        }
    }
    let Some((micros, after, colon)) = found else {
        if !has_priority {
            fields.message("", rest);
            return Format::Plain;
        }
        tagged(text.trim_start_matches(' '), fields);
        return Format::Rfc3164;
    };
    fields.push("time", OwnedValue::Time(micros));
    let text = after.trim_start_matches(' ');
    if colon || !host_before.is_empty() {
        // Cisco: the host, if any, stood before the stamp.
        fields.part("host", host_before);
        tagged(text, fields);
        return Format::Rfc3164;
    }
    // The next word is the host, unless it looks like a tag.
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    if word.ends_with(':') || word.contains('[') || rest.is_empty() {
        tagged(text, fields);
    } else {
        fields.part("host", word);
        tagged(rest.trim_start_matches(' '), fields);
    }
    Format::Rfc3164
}

/// Cisco's counter, `45: `.
fn sequence(text: &str) -> (&str, &str) {
    match word_with_colon(text) {
        Some((word, rest)) if word.bytes().all(|byte| byte.is_ascii_digit()) => (word, rest),
        _ => ("", text),
    }
}

/// `word: rest`.
fn word_with_colon(text: &str) -> Option<(&str, &str)> {
    let (word, rest) = text.split_once(' ')?;
    let word = word.strip_suffix(':')?;
    (!word.is_empty()).then_some((word, rest.trim_start_matches(' ')))
}

/// `tag: message`, `tag[pid]: message`, or a message alone.
fn tagged<'a>(text: &'a str, fields: &mut Fields<'a>) {
    let Some((tag, pid, message)) = tag(text) else {
        fields.message("", text);
        return;
    };
    fields.part("syslog.appname", tag);
    fields.part("syslog.procid", pid);
    fields.message(tag, message);
}

fn tag(text: &str) -> Option<(&str, &str, &str)> {
    if let Some(inner) = text.strip_prefix('[') {
        // `[sshd]: …` and `[sshd] …`
        let (tag, rest) = inner.split_once(']')?;
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'/');
        if !(1..=MAX_TAG).contains(&tag.len()) || !tag.bytes().all(fits) {
            return None;
        }
        let rest = rest.strip_prefix(':').unwrap_or(rest);
        return Some((tag, "", rest.strip_prefix(' ')?));
    }
    let end = text.find([':', '[', ' ']).filter(|end| (1..=MAX_TAG).contains(end))?;
    let (tag, mut rest) = text.split_at_checked(end)?;
    let mut pid = "";
    if let Some(inner) = rest.strip_prefix('[') {
        let (number, after) = inner.split_once(']')?;
        if number.len() > MAX_TAG || number.contains(' ') {
            return None;
        }
        (pid, rest) = (number, after);
    }
    let rest = match rest.strip_prefix(':') {
        Some(after) => after,
        // `tag[pid] message` is read too; `word message` is no tag.
        None if !pid.is_empty() && rest.starts_with(' ') => rest,
        None => return None,
    };
    // `https://…` and `::1` are no tags.
    if !(rest.is_empty() || rest.starts_with(' ') || !pid.is_empty() || tag.starts_with('%')) {
        return None;
    }
    Some((tag, pid, rest.strip_prefix(' ').unwrap_or(rest)))
}
