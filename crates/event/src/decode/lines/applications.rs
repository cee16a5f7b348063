//! Applications behind or beside a web server: WordPress' authentication plugins, Guacamole, and
//! endlessh, which holds those who look for an SSH server.

use super::{Fields, auth, is_address};
use crate::time;

/// The message of a program of this name.
pub(super) fn named<'a>(program: &str, message: &'a str, fields: &mut Fields<'a>) -> Option<()> {
    match program {
        "endlessh" => endlessh(message, fields),
        _ if program.starts_with("wordpress") => wordpress(message, fields),
        _ => None,
    }
}

/// A line that begins with a stamp after RFC 3339 and has no syslog header.
pub(super) fn bare<'a>(line: &'a str, clock: i64, fields: &mut Fields<'a>) -> Option<()> {
    let (stamp, rest) = line.split_once(' ')?;
    if rest.starts_with('[') {
        let (_, rest) = rest.split_once("AuthenticationService - Authentication attempt from ")?;
        guacamole(rest, fields)?;
    } else {
        endlessh(rest, fields)?;
    }
    fields.time(time::parse_event_time(stamp, clock));
    Some(())
}

/// `ACCEPT host=::ffff:192.0.2.1 port=39590 fd=4 n=1/4096`
fn endlessh<'a>(message: &'a str, fields: &mut Fields<'a>) -> Option<()> {
    let rest = message.strip_prefix("ACCEPT host=")?;
    let (address, rest) = rest.split_once(' ')?;
    let port = rest.strip_prefix("port=")?.split(' ').next()?.parse().ok();
    if !is_address(address) {
        return None;
    }
    fields.auth(&auth::Extract { kind: "connect", address, port, ..auth::Extract::default() });
    Some(())
}

/// `[192.0.2.1, 198.51.100.1] for user "name" failed.`: the first address is the sender's.
fn guacamole<'a>(rest: &'a str, fields: &mut Fields<'a>) -> Option<()> {
    let (from, rest) = match rest.strip_prefix('[') {
        Some(inner) => inner.split_once("] ")?,
        None => rest.split_once(' ')?,
    };
    let address = from.split(", ").next()?;
    let user = rest.strip_prefix("for user \"")?.strip_suffix("\" failed.")?;
    if !is_address(address) {
        return None;
    }
    fields.auth(&auth::Extract {
        kind: "login",
        outcome: Some("failure"),
        user,
        address,
        ..auth::Extract::default()
    });
    Some(())
}

/// What the plugins write to syslog: `Authentication failure for admin from 192.0.2.1`. The address
/// ends the message, so a user can't bring another.
fn wordpress<'a>(message: &'a str, fields: &mut Fields<'a>) -> Option<()> {
    let (what, address) = message.rsplit_once(" from ")?;
    let address = address.trim();
    if !is_address(address) {
        return None;
    }
    let (what, method) = match (what.strip_prefix("XML-RPC "), what.strip_prefix("REST ")) {
        (Some(rest), _) => (rest, "xmlrpc"),
        (_, Some(rest)) => (rest, "rest"),
        _ => (what, "password"),
    };
    let (kind, outcome, user) = if let Some(user) = what.strip_prefix("Accepted password for ") {
        ("login", "success", user)
    } else if let Some(user) = what.strip_prefix("Blocked authentication attempt for ") {
        ("login_denied", "failure", user)
    } else if let Some(user) = what.strip_prefix("Blocked username authentication attempt for ") {
        ("login_denied", "failure", user)
    } else if what.eq_ignore_ascii_case("blocked user enumeration attempt") {
        ("probe", "failure", "")
    } else {
        let what = what.strip_prefix("multicall ").unwrap_or(what);
        let rest = what
            .strip_prefix("Authentication ")
            .or_else(|| what.strip_prefix("authentication "))?;
        if let Some(user) = rest.strip_prefix("failure for ") {
            ("login", "failure", user)
        } else if let Some(user) = rest.strip_prefix("attempt for unknown user ") {
            ("login_invalid_user", "failure", user)
        } else if rest == "failure" {
            ("login", "failure", "")
        } else {
            return None;
        }
    };
    fields.auth(&auth::Extract {
        kind,
        outcome: Some(outcome),
        user,
        address,
        implied_method: method,
        ..auth::Extract::default()
    });
    Some(())
}
