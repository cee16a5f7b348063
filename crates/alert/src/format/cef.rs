//! Syslog (RFC 5424) that carries ArcSight's Common Event Format:
//!
//! ```text
//! <PRI>1 TIMESTAMP HOSTNAME palisade - alert - CEF:0|Palisade|Palisade|VERSION|RULE|TITLE|SEVERITY|key=value …
//! ```
//!
//! In CEF's header `\` and `|` are escaped and line ends become spaces; in values `\`, `=` and line ends (`\n`, `\r`). The facility is 13
//! (log audit). Severities are 1, 3, 5, 8, 10 of CEF's 0 to 10. The alert's id, revision and state are `externalId`, `cn1` and `act`; collectors
//! drop repeats by the first two.

use super::{Notification, time};
use crate::alert::{Alert, Severity};
use std::fmt::Write;
use std::net::IpAddr;

/// Log audit.
const FACILITY: u8 = 13;
/// The longest value, in bytes: CEF's bound of `msg`.
const MAX_VALUE: usize = 1023;

/// The message, without framing.
#[must_use]
pub fn message(hostname: &str, notification: &Notification) -> Vec<u8> {
    let alert = &notification.alert;
    // Syslog: 2 critical, 3 error, 4 warning, 5 notice, 6 informational.
    let (level, severity) = match alert.severity {
        Severity::Critical => (2, 10),
        Severity::High => (3, 8),
        Severity::Medium => (4, 5),
        Severity::Low => (5, 3),
        Severity::Informational => (6, 1),
    };
    let mut out = String::with_capacity(512);
    let _ = write!(
        out,
        "<{}>1 {} {hostname} palisade - alert - CEF:0|Palisade|Palisade|{}|{}|{}|{severity}|",
        FACILITY * 8 + level,
        time(alert.time),
        header(env!("CARGO_PKG_VERSION")),
        header(&alert.rule_id),
        header(&alert.title),
    );
    let pairs: Vec<String> = extension(notification)
        .into_iter()
        .filter(|(_, text)| !text.is_empty())
        .map(|(key, text)| format!("{key}={}", value(&text)))
        .collect();
    out.push_str(&pairs.join(" "));
    out.into_bytes()
}

fn extension(notification: &Notification) -> Vec<(&'static str, String)> {
    let alert = &notification.alert;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let millis = |micros: i64| micros.div_euclid(1000).to_string();
    let mut pairs = vec![
        ("externalId", alert.id.clone()),
        ("cn1Label", "revision".to_owned()),
        ("cn1", alert.revision.to_string()),
        ("act", alert.state.as_str().to_owned()),
        ("cat", alert.detector.clone()),
        ("rt", millis(alert.ingest_time)),
        ("start", millis(alert.first_time)),
        ("end", millis(alert.last_time)),
        ("cnt", alert.evidence_total.to_string()),
        ("suser", text(&alert.user)),
        ("shost", text(&alert.host)),
    ];
    pairs.extend(source(alert));
    for (label, key, name, text) in [
        ("cs1Label", "cs1", "tenant", alert.tenant.clone()),
        ("cs2Label", "cs2", "tags", alert.tags.join(",")),
        ("cs3Label", "cs3", "fields", alert.fields.join("; ")),
        ("cs4Label", "cs4", "link", text(&notification.link)),
    ] {
        if !text.is_empty() {
            pairs.extend([(label, name.to_owned()), (key, text)]);
        }
    }
    if notification.suppressed > 0 {
        pairs.extend([
            ("cn2Label", "suppressed".to_owned()),
            ("cn2", notification.suppressed.to_string()),
        ]);
    }
    pairs.push(("msg", alert.reasons.join(" ")));
    pairs
}

/// `src` takes IPv4 addresses only; IPv6 ones have a field of their own, other texts a custom one.
fn source(alert: &Alert) -> Vec<(&'static str, String)> {
    let Some(text) = alert.src_ip.clone() else { return Vec::new() };
    match text.parse() {
        Ok(IpAddr::V4(_)) => vec![("src", text)],
        Ok(IpAddr::V6(_)) => {
            vec![("c6a2Label", "Source IPv6 Address".to_owned()), ("c6a2", text)]
        }
        Err(_) => vec![("cs5Label", "source".to_owned()), ("cs5", text)],
    }
}

/// At most [`MAX_VALUE`] bytes, whole characters only, without what a line cannot carry.
fn bounded(text: &str) -> &str {
    let mut end = text.len().min(MAX_VALUE);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

fn header(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in bounded(text).chars() {
        match c {
            '\\' | '|' => out.extend(['\\', c]),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

fn value(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in bounded(text).chars() {
        match c {
            '\\' | '=' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_message_is_the_golden_one() {
        let expected = concat!(
            "<107>1 2026-01-05T09:00:00.000Z sensor-1 palisade - alert - CEF:0|Palisade|Palisade|",
            env!("CARGO_PKG_VERSION"),
            r#"|8d1487f1\|7664|Shell <b>& pipe \| \\ = "x" next|8|"#,
            "externalId=00112233445566778899aabbccddeeff cn1Label=revision cn1=2 act=open cat=sigma ",
            "rt=1767603601500 start=1767603600000 end=1767603660250 cnt=2 suser=o'brien@corp shost=WS-01 ",
            "src=203.0.113.9 cs1Label=tenant cs1=acme cs2Label=tags cs2=attack.t1059.001 ",
            r"cs3Label=fields cs3=Image\=C:\\Windows\\cmd.exe cs4Label=link ",
            "cs4=https://p.example.com/#/alerts/00112233445566778899aabbccddeeff ",
            r"cn2Label=suppressed cn2=3 msg=because a\=b C:\\x|y",
        );
        let message = String::from_utf8(message("sensor-1", &samples::notification())).unwrap();
        assert_eq!(message, expected);
        let back = String::from_utf8(super::message("-", &samples::retraction())).unwrap();
        assert!(back.contains(" cn1=3 act=retracted "), "{back}");
    }

    #[test]
    fn addresses_go_where_cef_wants_them() {
        let source = |text: &str| {
            source(&Alert { src_ip: Some(text.into()), ..Alert::default() })
                .into_iter()
                .map(|(key, _)| key)
                .collect::<Vec<_>>()
        };
        assert_eq!(source("10.0.0.1"), ["src"]);
        assert_eq!(source("2001:db8::1"), ["c6a2Label", "c6a2"]);
        assert_eq!(source("somewhere"), ["cs5Label", "cs5"]);
    }

    /// A collector's way to read the extension: a key begins after a space, before an `=` that is not escaped.
    fn read(text: &str) -> Vec<(String, String)> {
        let regex = regex::Regex::new(r"(?:^| )([A-Za-z0-9_]+)=").unwrap();
        let starts: Vec<_> =
            regex.captures_iter(text).map(|c| (c.get(0).unwrap(), c[1].to_owned())).collect();
        let unescape = |text: &str| {
            let mut out = String::new();
            let mut chars = text.chars();
            while let Some(c) = chars.next() {
                match c {
                    '\\' => match chars.next() {
                        Some('n') => out.push('\n'),
                        Some('r') => out.push('\r'),
                        Some(c) => out.push(c),
                        None => {}
                    },
                    c => out.push(c),
                }
            }
            out
        };
        starts
            .iter()
            .enumerate()
            .map(|(index, (start, key))| {
                let end = starts.get(index + 1).map_or(text.len(), |(next, _)| next.start());
                (key.clone(), unescape(&text[start.end()..end]))
            })
            .collect()
    }

    fn hostile(least: usize) -> impl Strategy<Value = String> {
        let chars: Vec<char> = "ab1 _=|\\\n\r\"ä<>CEF:".chars().collect();
        let text = prop::collection::vec(prop::sample::select(chars), least..60);
        text.prop_map(|chars| chars.into_iter().collect())
    }

    proptest! {
        /// Whatever stands in an alert, it is one line with the same seven bars, and every value is read back.
        #[test]
        fn hostile_texts_stay_in_their_fields(title in hostile(0), user in hostile(1)) {
            let mut notification = samples::notification();
            notification.alert.title = title;
            notification.alert.user = Some(user.clone());
            let message = String::from_utf8(message("-", &notification)).unwrap();
            prop_assert!(!message.contains(['\n', '\r']));
            let cef = message.split_once("CEF:0|").unwrap().1;
            let mut bars = Vec::new();
            let mut escaped = false;
            for (at, c) in cef.char_indices() {
                match c {
                    _ if escaped => escaped = false,
                    '\\' => escaped = true,
                    '|' => bars.push(at),
                    _ => {}
                }
            }
            // Version, product, … : the sixth bar ends the header.
            let extension = &cef[bars[5] + 1..];
            let pairs = read(extension);
            let found = pairs.iter().find(|(key, _)| key == "suser").unwrap();
            prop_assert_eq!(&found.1, &user);
            prop_assert_eq!(&pairs[0].0, "externalId");
        }
    }
}
