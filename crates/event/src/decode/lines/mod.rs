//! Lines of raw logs into typed fields: sshd and what PAM, su, sudo and login write beside it, nginx
//! and Apache (access and error logs), WordPress' authentication plugins, endlessh and Guacamole.
//!
//! A line is recognised by its content only: by the program that its syslog header names, else by its
//! form. One pass of hand-written scanners; every field is a slice of the line, so nothing is
//! allocated. A line that no reader knows gives no fields: it stays what it is, a `message`. What is
//! found stands beside the whole line, never instead of it.
//!
//! | field | from |
//! |---|---|
//! | `time` | the stamp of the line itself, else that of its syslog header; without a zone it is UTC |
//! | `host`, `syslog.appname`, `syslog.procid` | the syslog header |
//! | `type`, `outcome` | the tables of [`auth`] and below |
//! | `user`, `src_ip`, `src_host`, `src_port` | who and from where; an IPv4 address that is mapped into IPv6 is given as IPv4 |
//! | `auth.method`, `auth.target_user`, `auth.command`, `syslog.repeated` | messages about logins ([`auth`]) |
//! | `url` | the target of the request, as sent; the whole request line where it is no HTTP |
//! | `url.path`, `url.query`, `url.domain` | its parts; the domain is the virtual host of the log, else that of an absolute target |
//! | `http.request.method`, `http.version`, `http.request.referrer`, `user_agent` | the request; `-` is none |
//! | `http.response.status_code`, `http.response.body.bytes` | the answer, as integers |
//! | `log.level`, `error.code`, `server.address`, `file.path` | error logs; the code is Apache's `AH…`, the server nginx's name of it, the path the file that was asked for |
//! | `rule.id`, `rule.name` | the rule that ModSecurity names |
//!
//! | `type` | `outcome` | lines |
//! |---|---|---|
//! | `http.request` | failure from status 400 on, else success | access logs |
//! | `http.error` | failure from level `error` on | error logs that name a client |
//! | `http.denied` | failure | `access forbidden by rule`, `client denied by server configuration` |
//! | `http.limited` | failure | `limiting requests`, `limiting connections` |
//! | `http.waf` | failure when it denied | ModSecurity |
//! | `login`, `login_invalid_user`, `login_denied` | as those of [`auth`] | HTTP and mail authentication in error logs, WordPress, Guacamole |
//! | `probe` | failure | WordPress: blocked attempts to enumerate users |
//! | `connect` | none | endlessh |
//!
//! The names of the web fields are those of the Elastic Common Schema; Sigma's category `webserver` maps
//! onto them: `cs-method` is `http.request.method`, `c-uri` and `cs-uri` are `url`, `cs-uri-stem` is
//! `url.path`, `cs-uri-query` is `url.query`, `sc-status` is `http.response.status_code`, `sc-bytes` is
//! `http.response.body.bytes`, `c-ip` is `src_ip`, `cs-user-agent` is `user_agent`, `cs-host` is
//! `url.domain`, `cs-referer` is `http.request.referrer`, `cs-username` is `user`, `cs-version` is
//! `http.version`.
//!
//! Much of a line is written by whoever attacks: user names, targets, agents, referrers. Where a line
//! holds several addresses, the one counts that stands where the program writes its own.

mod access;
mod applications;
pub mod auth;
mod header;
mod web_errors;

use super::path::NONE;
use super::{FieldValue, FrameBuilder, RequestContext};
use crate::time;
use std::net::IpAddr;

/// The most fields that a line gives.
const MOST: usize = 24;

/// The value of a field of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// A part of the line.
    Part(&'a str),
    /// A word of the reader's own.
    Word(&'static str),
    /// An integer.
    Int(i64),
    /// A moment in microseconds since the epoch.
    Time(i64),
}

impl<'a> From<Value<'a>> for FieldValue<'a> {
    fn from(value: Value<'a>) -> Self {
        match value {
            Value::Part(text) | Value::Word(text) => Self::Text(text),
            Value::Int(number) => Self::Int(number),
            Value::Time(micros) => Self::Time(micros),
        }
    }
}

/// The fields of a line, in the order in which they were found. No name stands twice.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    list: [(&'static str, Value<'a>); MOST],
    len: usize,
}

impl Default for Fields<'_> {
    fn default() -> Self {
        Self { list: [("", Value::Int(0)); MOST], len: 0 }
    }
}

impl<'a> Fields<'a> {
    /// The fields.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, Value<'a>)> {
        self.list.iter().take(self.len).copied()
    }

    /// Whether no reader knew the line.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of the field of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Value<'a>> {
        self.iter().find(|(have, _)| *have == name).map(|(_, value)| value)
    }

    /// Adds a field. Readers name no field twice; where two places of a line may, they ask
    /// [`Fields::has`].
    fn put(&mut self, name: &'static str, value: Value<'a>) {
        if let Some(free) = self.list.get_mut(self.len) {
            *free = (name, value);
            self.len += 1;
        }
    }

    fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Adds a text; an empty one is none.
    fn text(&mut self, name: &'static str, text: &'a str) {
        if !text.is_empty() {
            self.put(name, Value::Part(text));
        }
    }

    fn word(&mut self, name: &'static str, word: &'static str) {
        self.put(name, Value::Word(word));
    }

    /// Adds a text of a log that writes `-` for none.
    fn logged(&mut self, name: &'static str, text: &'a str) {
        if text != "-" {
            self.text(name, text);
        }
    }

    /// Adds an address. One that a dual-stack socket shows as IPv6 is the same sender's as its IPv4
    /// form, and rules count by this column.
    fn address(&mut self, address: &'a str) {
        let mapped = address
            .split_at_checked(7)
            .filter(|(head, _)| head.eq_ignore_ascii_case("::ffff:"))
            .filter(|(_, tail)| tail.parse::<std::net::Ipv4Addr>().is_ok());
        self.text("src_ip", mapped.map_or(address, |(_, tail)| tail));
    }

    fn outcome(&mut self, failed: bool) {
        self.word("outcome", if failed { "failure" } else { "success" });
    }

    fn time(&mut self, stamp: Option<i64>) {
        if let Some(micros) = stamp.filter(|_| !self.has("time")) {
            self.put("time", Value::Time(micros));
        }
    }

    fn auth(&mut self, found: &auth::Extract<'a>) {
        self.word("type", found.kind);
        if let Some(outcome) = found.outcome {
            self.word("outcome", outcome);
        }
        self.text("user", found.user);
        if !found.implied_user.is_empty() && found.user.is_empty() {
            self.word("user", found.implied_user);
        }
        self.address(found.address);
        self.text("src_host", found.remote_host);
        if let Some(port) = found.port {
            self.put("src_port", Value::Int(i64::from(port)));
        }
        self.text("auth.method", found.method);
        if !found.implied_method.is_empty() && found.method.is_empty() {
            self.word("auth.method", found.implied_method);
        }
        self.text("auth.target_user", found.target_user);
        self.text("auth.command", found.command);
        if let Some(times) = found.repeated {
            self.put("syslog.repeated", Value::Int(i64::from(times)));
        }
    }
}

impl FrameBuilder {
    /// Takes a line of plain text: it becomes the `message` of a row, beside the fields that
    /// [`read`] finds in it. Its time is the clock where it has none of its own.
    ///
    /// # Errors
    /// The reason why the line was refused.
    pub fn push_line(
        &mut self,
        ctx: &RequestContext<'_>,
        index: u32,
        line: &str,
    ) -> Result<(), String> {
        if line.is_empty() {
            return Err("the line is empty".to_owned());
        }
        if line.len() > self.rows.limits.max_record_bytes {
            return Err(self.too_large());
        }
        let found = read(line, ctx.clock);
        let source = self.source(ctx);
        let taken = self.push(ctx, source, index, line.len(), |record| {
            // What was found are parts of the line: it is the line that has a bound.
            let mut previous = record.named("message", NONE);
            record.put_field(previous, FieldValue::Text(line))?;
            for (name, value) in found.iter() {
                previous = record.named(name, previous);
                record.put_field(previous, value.into())?;
            }
            Ok(())
        });
        taken.map_err(|refusal| self.reason(refusal, 0))
    }
}

/// Reads a whole line. `clock` (microseconds) decides the year of a stamp that has none: the latest
/// that does not put the line over half a day ahead of it.
#[must_use]
pub fn read(line: &str, clock: i64) -> Fields<'_> {
    let mut fields = Fields::default();
    let line = line.trim_end();
    let Some(header) = header::read(line) else {
        return form(line, clock, &mut fields).map_or_else(Fields::default, |()| fields);
    };
    if applications::bare(line, clock, &mut fields).is_some() {
        return fields;
    }
    if program(header.program, header.message, clock, &mut fields).is_none() {
        return Fields::default();
    }
    fields.time(header::moment(header.stamp, clock));
    fields.text("host", header.host);
    fields.text("syslog.appname", header.program);
    fields.text("syslog.procid", header.pid);
    fields
}

/// Reads the message behind a syslog header that somebody else has read; `program` is the tag or the
/// name of the application. For `clock` see [`read`].
#[must_use]
pub fn read_message<'a>(program_name: &str, message: &'a str, clock: i64) -> Fields<'a> {
    let mut fields = Fields::default();
    program(program_name, message, clock, &mut fields).map_or_else(Fields::default, |()| fields)
}

/// The message of a program.
fn program<'a>(name: &str, message: &'a str, clock: i64, fields: &mut Fields<'a>) -> Option<()> {
    let base = name.rsplit('/').next().unwrap_or_default();
    if ["nginx", "apache", "httpd"].iter().any(|known| base.starts_with(known)) {
        return form(message, clock, fields);
    }
    if applications::named(base, message, fields).is_some() {
        return Some(());
    }
    if let Some(found) = auth::extract(name, message) {
        fields.auth(&found);
        return Some(());
    }
    // In a container the program of a web server has any name. A program that writes about logins
    // is not taken for one, whatever a user is called.
    if auth::is_known(name) { None } else { form(message, clock, fields) }
}

/// A line that shows by its form what it is.
fn form<'a>(line: &'a str, clock: i64, fields: &mut Fields<'a>) -> Option<()> {
    match line.as_bytes() {
        [b'[', ..] => web_errors::apache(line, clock, fields),
        [b'0'..=b'9', _, _, _, b'/', ..] => web_errors::nginx(line, clock, fields),
        [b'0'..=b'9', _, _, _, b'-', ..] => {
            applications::bare(line, clock, fields).or_else(|| access::read(line, clock, fields))
        }
        _ => access::read(line, clock, fields),
    }
}

/// The clock that makes [`time`] read a stamp without year as the latest that is not over half a day
/// ahead: `time` takes the nearest.
fn before(clock: i64) -> i64 {
    clock.saturating_sub(182 * 86_400 * time::SECOND)
}

/// What stands before and behind the first occurrence of a mark: [`str::split_once`], faster on the
/// short texts of logs.
#[inline]
fn cut<'a>(text: &'a str, mark: &str) -> Option<(&'a str, &'a str)> {
    let at = memchr::memmem::find(text.as_bytes(), mark.as_bytes())?;
    Some((text.get(..at)?, text.get(at + mark.len()..)?))
}

/// Whether a text is an address.
fn is_address(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

/// `address`, `address:port` or `[address]:port`.
fn endpoint(text: &str) -> Option<(&str, Option<u16>)> {
    if let Some(inner) = text.strip_prefix('[') {
        let (address, rest) = inner.split_once(']')?;
        let port = rest.strip_prefix(':').and_then(|port| port.parse().ok());
        return is_address(address).then_some((address, port));
    }
    if is_address(text) {
        return Some((text, None));
    }
    let (address, port) = text.rsplit_once(':')?;
    let port = port.parse().ok()?;
    is_address(address).then_some((address, Some(port)))
}
