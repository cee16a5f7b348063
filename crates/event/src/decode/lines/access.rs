//! Access logs: the Common and the Combined Log Format of Apache and nginx, with a virtual host before
//! the address or not.

use super::{Fields, Value, endpoint, is_address};
use crate::time;
use memchr::{memchr, memchr2, memrchr};

/// How far into a line its stamp may stand: host, identity and user come before it.
const HEAD: usize = 1024;
/// `[08/Jun/2020:06:49:01 +0000] "`
const STAMP: usize = 30;
/// The longest method.
const METHOD: usize = 20;

/// Reads `[vhost[:port]] host identity user [stamp] "request" status bytes ["referrer" "agent" …]`.
pub(super) fn read<'a>(line: &'a str, clock: i64, fields: &mut Fields<'a>) -> Option<()> {
    let bytes = line.as_bytes();
    let at = stamp(bytes)?;
    let (vhost, client, user) = head(line.get(..at)?)?;
    let stamp = line.get(at + 1..at + STAMP - 3)?;
    fields.word("type", "http.request");
    fields.time(time::parse_event_time(stamp, clock));
    match client {
        Client::Address(address) => fields.address(address),
        Client::Name(name) => fields.text("src_host", name),
    }
    fields.logged("user", user);
    domain(vhost, fields);
    let (request, rest) = quoted(line.get(at + STAMP..)?);
    self::request(request, fields);
    let Some(rest) = rest.strip_prefix(' ') else { return Some(()) };
    let (status, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    if let Some(status) = number(status).filter(|status| (100..=999).contains(status)) {
        fields.put("http.response.status_code", Value::Int(status));
        fields.outcome(status >= 400);
    }
    let (sent, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    if let Some(sent) = number(sent) {
        fields.put("http.response.body.bytes", Value::Int(sent));
    }
    let Some(rest) = rest.strip_prefix('"') else { return Some(()) };
    let (referrer, rest) = quoted(rest);
    fields.logged("http.request.referrer", referrer);
    let Some(rest) = rest.strip_prefix(" \"") else { return Some(()) };
    fields.logged("user_agent", quoted(rest).0);
    Some(())
}

/// Where the stamp stands, with the quote of the request behind it.
fn stamp(bytes: &[u8]) -> Option<usize> {
    let head = bytes.get(..HEAD).unwrap_or(bytes);
    let mut from = 0;
    loop {
        let at = from + memchr(b'[', head.get(from..)?)?;
        if let Some(stamp) = bytes.get(at..at + STAMP)
            && let [_, _, _, b'/', _, _, _, b'/', _, _, _, _, b':', .., b']', b' ', b'"'] = stamp
        {
            return Some(at);
        }
        from = at + 1;
    }
}

enum Client<'a> {
    Address(&'a str),
    Name(&'a str),
}

/// What stands before the stamp: virtual host, client, user.
fn head(head: &str) -> Option<(&str, Client<'_>, &str)> {
    let (first, rest) = head.split_once(' ')?;
    let (second, after) = rest.split_once(' ')?;
    let (vhost, client, rest) = if is_address(second) {
        (first, Client::Address(second), after)
    } else if is_address(first) {
        ("", Client::Address(first), rest)
    } else {
        let name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':');
        if first.is_empty() || !first.bytes().all(name) {
            return None;
        }
        ("", Client::Name(first), rest)
    };
    let (_, user) = rest.split_once(' ')?;
    let user = user.trim();
    Some((vhost, client, if user == "\"\"" { "" } else { user }))
}

/// A virtual host, its port left out.
pub(super) fn domain<'a>(host: &'a str, fields: &mut Fields<'a>) {
    let bare = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    // An IPv6 address that has no port ends in digits behind a colon, too.
    let bare = if is_address(host) { host } else { bare };
    if !fields.has("url.domain") {
        fields.logged("url.domain", bare);
    }
}

/// A text up to the quote that ends it, and what follows; a backslash keeps the next byte from ending
/// it. A line that was cut off ends it as well.
pub(super) fn quoted(text: &str) -> (&str, &str) {
    let bytes = text.as_bytes();
    let mut from = 0;
    while let Some(found) = bytes.get(from..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        let at = from + found;
        if bytes.get(at) == Some(&b'"') {
            return (text.get(..at).unwrap_or_default(), text.get(at + 1..).unwrap_or_default());
        }
        from = at + 2;
    }
    (text, "")
}

/// `method target HTTP/version`. What is none of these is kept whole as `url`.
pub(super) fn request<'a>(text: &'a str, fields: &mut Fields<'a>) {
    let Some((method, target, version)) = parts(text) else {
        return fields.logged("url", text);
    };
    fields.text("http.request.method", method);
    fields.text("http.version", version);
    fields.text("url", target);
    if method != "CONNECT" {
        self::target(target, fields);
    }
}

fn parts(text: &str) -> Option<(&str, &str, &str)> {
    let (method, rest) = text.split_once(' ')?;
    let fits = |b: u8| b.is_ascii_uppercase() || matches!(b, b'-' | b'_');
    if !(1..=METHOD).contains(&method.len()) || !method.bytes().all(fits) {
        return None;
    }
    if let Some(last) = memrchr(b' ', rest.as_bytes())
        && let (target, version) = rest.split_at_checked(last)?
        && let Some(version) = version.strip_prefix(" HTTP/")
        && (1..=8).contains(&version.len())
        && version.bytes().all(|b| b.is_ascii_digit() || b == b'.')
    {
        return (!target.is_empty()).then_some((method, target, version));
    }
    // HTTP/0.9 has no version.
    (rest.starts_with('/') && !rest.contains(' ')).then_some((method, rest, ""))
}

/// The parts of a target: a path with a query, or an absolute one with a host before it.
pub(super) fn target<'a>(target: &'a str, fields: &mut Fields<'a>) {
    let mut local = target;
    if !target.starts_with('/')
        && let Some((scheme, rest)) = target.split_once("://")
        && (scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https"))
    {
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(end).unwrap_or((rest, ""));
        domain(endpoint(authority).map_or(authority, |(address, _)| address), fields);
        local = path;
    }
    let (path, query) = local.split_once('?').unwrap_or((local, ""));
    fields.text("url.path", path);
    fields.text("url.query", query);
}

fn number(text: &str) -> Option<i64> {
    let digits = (1..=18).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}
