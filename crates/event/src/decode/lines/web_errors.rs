//! Error logs of nginx and Apache: who, what was asked for, whether a login failed, and what
//! ModSecurity says.
//!
//! Neither server escapes what it quotes, so the client's address is taken from where it writes its own:
//! Apache before the message, nginx behind it, at the first `, client: ` that stands outside of quotes
//! (a user of Basic authentication has no quote before it: names end at a colon).

use super::{Fields, Value, access, cut, endpoint};
use crate::time;

/// Reads `yyyy/mm/dd hh:mm:ss [level] pid#tid: *connection message, client: …, server: …, request: "…"`.
pub(super) fn nginx<'a>(line: &'a str, clock: i64, fields: &mut Fields<'a>) -> Option<()> {
    let (stamp, rest) = line.split_at_checked(19)?;
    let moment = time::parse_event_time(stamp, clock)?;
    let (level, rest) = rest.strip_prefix(" [")?.split_once("] ")?;
    level_of(level)?;
    let (process, rest) = cut(rest, ": ")?;
    let (pid, tid) = process.split_once('#')?;
    if !digits(pid) || !digits(tid) {
        return None;
    }
    let message = match rest.strip_prefix('*').and_then(|rest| rest.split_once(' ')) {
        Some((connection, rest)) if digits(connection) => rest,
        _ => rest,
    };
    fields.time(Some(moment));
    fields.text("log.level", level);
    let Some((what, client, tail)) = nginx_client(message) else { return Some(()) };
    let mut named = false;
    if what.starts_with("ModSecurity: ") {
        modsecurity(what, fields);
    } else if what.starts_with("client login failed: ") {
        login(fields, "login", "mail");
        let (_, login) = cut(tail, ", login: \"").unwrap_or_default();
        fields.text("user", access::quoted(login).0);
        named = true;
    } else if let Some((kind, method, user)) = nginx_login(what) {
        login(fields, kind, method);
        fields.text("user", user);
    } else {
        error(what, level, fields);
    }
    fields.address(client);
    let tail = tail.strip_prefix(", server: ").unwrap_or(tail);
    let (server, tail) = cut(tail, ", ").unwrap_or((tail, ""));
    fields.logged("server.address", server);
    if named {
        return Some(());
    }
    let Some(tail) = tail.strip_prefix("request: \"") else { return Some(()) };
    // A quote in the target is not escaped; the one that counts ends the field.
    let (request, tail) = match tail.find("\", ") {
        Some(end) => (tail.get(..end)?, tail.get(end + 2..)?),
        None => (tail.strip_suffix('"').unwrap_or(tail), ""),
    };
    let (_, host) = cut(tail, " host: \"").unwrap_or_default();
    let (host, tail) = access::quoted(host);
    access::domain(host, fields);
    access::request(request, fields);
    if let Some(referrer) = tail.strip_prefix(", referrer: \"") {
        fields.logged("http.request.referrer", referrer.strip_suffix('"').unwrap_or(referrer));
    }
    Some(())
}

/// The message, the client's address and what stands behind it.
fn nginx_client(text: &str) -> Option<(&str, &str, &str)> {
    const MARK: &str = ", client: ";
    if let Some(rest) = text.strip_prefix("[client ") {
        let (client, what) = cut(rest, "] ")?;
        let (address, _) = endpoint(client)?;
        let tail = text.find(MARK).and_then(|at| text.get(at + MARK.len()..)).unwrap_or_default();
        return Some((what, address, tail.find(", ").and_then(|at| tail.get(at..)).unwrap_or("")));
    }
    let mut fallback = None;
    let (mut from, mut quotes) = (0, 0);
    while let Some((before, _)) = cut(text.get(from..)?, MARK) {
        let at = from + before.len();
        quotes += before.bytes().filter(|byte| *byte == b'"').count();
        let rest = text.get(at + MARK.len()..)?;
        let (client, tail) = rest.split_at_checked(rest.find(", ").unwrap_or(rest.len()))?;
        // Sockets have no address.
        if let Some((address, _)) = endpoint(client) {
            let found = (text.get(..at)?, address, tail);
            if quotes.is_multiple_of(2) {
                return Some(found);
            }
            fallback = fallback.or(Some(found));
        }
        from = at + MARK.len();
    }
    fallback
}

/// Type, method and user of a failed login.
fn nginx_login(what: &str) -> Option<(&'static str, &'static str, &str)> {
    if let Some(rest) = what.strip_prefix("PAM: user '") {
        let (user, reason) = cut(rest, "' - ")?;
        return reason.starts_with("not authenticated").then_some(("login", "pam", user));
    }
    let rest = what.strip_prefix("user \"")?;
    if let Some(user) = cut(rest, "\": password mismatch").map(|(user, _)| user) {
        return Some(("login", "basic", user));
    }
    let (user, _) = cut(rest, "\" was not found in \"")?;
    Some(("login_invalid_user", "basic", user))
}

/// Reads `[stamp] [module:level] [pid p:tid t] [client address:port] AH00000: message, referer: …`.
pub(super) fn apache<'a>(line: &'a str, clock: i64, fields: &mut Fields<'a>) -> Option<()> {
    let (first, rest) = line.strip_prefix('[')?.split_once("] ")?;
    // Through syslog Apache leaves its own stamp out.
    let (moment, level, mut rest) = match apache_time(first, clock) {
        Some(moment) => {
            let (level, rest) = rest.strip_prefix('[')?.split_once("] ")?;
            (Some(moment), level, rest)
        }
        None => (None, first, rest),
    };
    let (module, level) = level.rsplit_once(':').unwrap_or(("", level));
    level_of(level)?;
    let bracket = ["[pid ", "[client ", "[remote "].iter().any(|start| rest.starts_with(start));
    if moment.is_none() && !bracket {
        return None;
    }
    if let Some((process, after)) = rest.strip_prefix("[pid ").and_then(|r| cut(r, "] "))
        && process.len() <= 64
    {
        rest = after;
    }
    fields.time(moment);
    fields.text("log.level", level);
    // The error of the operating system: `(70014)End of file found: `.
    if rest.starts_with('(')
        && let Some(at) = rest.find(": [client ")
    {
        rest = rest.get(at + 2..)?;
    }
    let client = rest.strip_prefix("[client ").or_else(|| rest.strip_prefix("[remote "));
    let Some((client, mut what)) = client.and_then(|client| cut(client, "] ")) else {
        return Some(());
    };
    let Some((address, port)) = endpoint(client) else { return Some(()) };
    fields.address(address);
    if let Some(port) = port {
        fields.put("src_port", Value::Int(i64::from(port)));
    }
    // ModSecurity names the client once more.
    if let Some((_, after)) = what.strip_prefix("[client ").and_then(|r| cut(r, "] ")) {
        what = after;
    }
    if let Some((code, after)) = cut(what, ": ")
        && code.len() == 7
        && code.starts_with("AH")
    {
        fields.text("error.code", code);
        what = after;
    }
    if what.starts_with("ModSecurity: ") {
        modsecurity(what, fields);
        return Some(());
    }
    let (what, referrer) = what.rsplit_once(", referer: ").unwrap_or((what, ""));
    let digest = what.strip_prefix("Digest: ");
    if apache_login(digest.unwrap_or(what), fields).is_none() {
        let broken = ["invalid nonce ", "invalid qop ", "realm mismatch - ", "unknown algorithm "];
        let told = digest.unwrap_or(what);
        if (digest.is_some() || module == "auth_digest")
            && broken.iter().any(|start| told.starts_with(start))
        {
            login(fields, "login", "digest");
        } else if what.starts_with("client used wrong authentication scheme: ") {
            login(fields, "login", "basic");
        } else {
            error(what, level, fields);
        }
    }
    fields.logged("http.request.referrer", referrer);
    Some(())
}

/// A failed login or a user who may not, with the path that was asked for.
fn apache_login<'a>(what: &'a str, fields: &mut Fields<'a>) -> Option<()> {
    let mut put = |kind, method, user, path: &'a str| {
        login(fields, kind, method);
        fields.text("user", user);
        if path.starts_with('/') {
            fields.text("url", path);
            access::target(path, fields);
        }
    };
    if let Some(rest) = what.strip_prefix("Authorization of user ") {
        let (user, rest) = cut(rest, " to access ")?;
        let (path, _) = cut(rest, " failed, reason: ")?;
        put("login_denied", "basic", user, path);
        return Some(());
    }
    let rest = what.strip_prefix("user ")?;
    if let Some(rest) = rest.strip_prefix('`') {
        let (user, rest) = cut(rest, "' in realm `")?;
        let (_, path) = cut(rest, "' not found: ")?;
        put("login_invalid_user", "digest", user, path);
        return Some(());
    }
    // No user of Basic or Digest authentication has a colon in their name.
    for (mark, kind, method) in [
        (": authentication failure for \"", "login", "basic"),
        (": authorization failure for \"", "login_denied", "basic"),
        (": password mismatch: ", "login", "digest"),
        (" not found: ", "login_invalid_user", "basic"),
    ] {
        if let Some((user, path)) = cut(rest, mark) {
            let path = if mark.ends_with('"') { access::quoted(path).0 } else { path };
            put(kind, method, user, path);
            return Some(());
        }
    }
    let user = rest.strip_suffix(" not found")?;
    put("login_invalid_user", "basic", user, "");
    Some(())
}

fn login(fields: &mut Fields<'_>, kind: &'static str, method: &'static str) {
    fields.word("type", kind);
    fields.outcome(true);
    fields.word("auth.method", method);
}

/// Any other error: the file that it is about, and whether it was a refusal.
fn error<'a>(what: &'a str, level: &str, fields: &mut Fields<'a>) {
    let starts = |with: [&str; 2]| with.iter().any(|start| what.starts_with(start));
    let kind = if starts(["access forbidden by rule", "client denied by server configuration"]) {
        "http.denied"
    } else if starts(["limiting requests, excess", "limiting connections by zone"]) {
        "http.limited"
    } else {
        "http.error"
    };
    fields.word("type", kind);
    if kind != "http.error" || matches!(level_of(level), Some(true)) {
        fields.outcome(true);
    }
    let path = if let Some(rest) = what.strip_prefix("open() \"") {
        cut(rest, "\" failed").map(|(path, _)| path)
    } else if let Some(rest) = what.strip_prefix("script '") {
        cut(rest, "' not found").map(|(path, _)| path)
    } else {
        [
            "File does not exist: ",
            "script not found or unable to stat: ",
            "client denied by server configuration: ",
        ]
        .iter()
        .find_map(|start| what.strip_prefix(start))
    };
    fields.text("file.path", path.unwrap_or_default());
}

fn modsecurity<'a>(what: &'a str, fields: &mut Fields<'a>) {
    fields.word("type", "http.waf");
    if what.contains("Access denied with ") {
        fields.outcome(true);
    }
    // Its own brackets begin with the file of the rule; what matched stands before and behind it.
    let Some(rest) = what.find("[file \"").and_then(|at| what.get(at..)) else { return };
    let part = |name: &str| {
        let (_, rest) = cut(rest, name)?;
        Some(access::quoted(rest).0)
    };
    fields.text("rule.id", part("[id \"").unwrap_or_default());
    fields.text("rule.name", part("[msg \"").unwrap_or_default());
}

/// Whether a level is an error; nothing for what is no level.
fn level_of(level: &str) -> Option<bool> {
    match level {
        "error" | "crit" | "alert" | "emerg" => Some(true),
        "debug" | "info" | "notice" | "warn" => Some(false),
        _ if level.strip_prefix("trace").is_some_and(digits) => Some(false),
        _ => None,
    }
}

fn digits(text: &str) -> bool {
    (1..=20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// `Www Mmm dd hh:mm:ss[.ffffff] yyyy`: the year is moved to where [`time`] reads it.
fn apache_time(stamp: &str, clock: i64) -> Option<i64> {
    let mut words = stamp.get(4..)?.split_ascii_whitespace();
    let (month, day, of_day, year) = (words.next()?, words.next()?, words.next()?, words.next()?);
    if words.next().is_some() || year.len() != 4 {
        return None;
    }
    let mut text = [b' '; 40];
    let mut at = 0;
    for word in [month, day, year, of_day] {
        text.get_mut(at..at + word.len())?.copy_from_slice(word.as_bytes());
        at += word.len() + 1;
    }
    time::parse_event_time(std::str::from_utf8(text.get(..at)?).ok()?.trim_end(), clock)
}
