//! What is sent to a receiver: pure functions from an alert revision to bytes. Every format has a golden test
//! against the specification that it names.
//!
//! | receiver | module | specification |
//! |---|---|---|
//! | webhook | [`webhook`] | Standard Webhooks 1.0.0 |
//! | Slack | [`slack`] | incoming webhooks, Block Kit |
//! | PagerDuty | [`pagerduty`] | Events API v2 |
//! | Alertmanager | [`alertmanager`] | API v2, `POST /api/v2/alerts` |
//! | syslog | [`cef`] | RFC 5424 with ArcSight's Common Event Format 0 (rev. 25) |

pub mod alertmanager;
pub mod cef;
pub mod pagerduty;
pub mod slack;
pub mod webhook;

use crate::alert::Alert;
use crate::plan::{Channel, Target};
use palisade_event::time::rfc3339;
use serde::{Deserialize, Serialize};

/// What a receiver is told: an alert revision, and how many of its group were counted instead.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notification {
    /// The revision.
    pub alert: Alert,
    /// How many alerts of its group were counted since the last notification.
    #[serde(default)]
    pub suppressed: u64,
    /// Where people see the alert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
}

/// The secret of a receiver, read from its place.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What goes over the wire.
#[derive(Clone, PartialEq, Eq)]
pub enum Wire {
    /// A POST.
    Http {
        /// Where.
        target: Target,
        /// Names in lower case.
        headers: Vec<(&'static str, String)>,
        /// The body.
        body: Vec<u8>,
    },
    /// One syslog message, without framing.
    Syslog(Vec<u8>),
}

impl std::fmt::Debug for Wire {
    /// Without headers and addresses, which hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Http { body, .. } => write!(f, "Http({} bytes)", body.len()),
            Self::Syslog(line) => write!(f, "Syslog({} bytes)", line.len()),
        }
    }
}

/// Why nothing can be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The secret is missing or has not the form that it should have.
    #[error("the receiver's secret cannot be used: {0}")]
    Secret(&'static str),
    /// The secret address cannot be used.
    #[error("the receiver's address cannot be used: {0}")]
    Target(String),
}

/// Writes a notification for a channel. `sent_at` is the time of this attempt, microseconds since the epoch.
///
/// # Errors
/// When the secret cannot be used.
pub fn render(
    channel: &Channel,
    secret: Option<&Secret>,
    notification: &Notification,
    sent_at: i64,
) -> Result<Wire, FormatError> {
    let needed = || secret.ok_or(FormatError::Secret("it is missing"));
    let json = ("content-type", "application/json".to_owned());
    let post = |target: &Target, mut headers: Vec<_>, body: serde_json::Value| {
        headers.push(json.clone());
        Wire::Http { target: target.clone(), headers, body: body.to_string().into_bytes() }
    };
    Ok(match channel {
        Channel::Webhook { target, .. } => {
            let body = webhook::body(notification).to_string().into_bytes();
            let mut headers =
                webhook::headers(needed()?, &notification.alert.key(), sent_at, &body)?;
            headers.push(json);
            Wire::Http { target: target.clone(), headers, body }
        }
        Channel::Slack { .. } => {
            let target = Target::parse(needed()?.0.trim()).map_err(FormatError::Target)?;
            post(&target, Vec::new(), slack::body(notification))
        }
        Channel::Pagerduty { target, .. } => {
            post(target, Vec::new(), pagerduty::body(needed()?.0.trim(), notification))
        }
        Channel::Alertmanager { target, lifetime, .. } => {
            let bearer = secret.map(|secret| format!("Bearer {}", secret.0.trim()));
            let headers = bearer.map(|bearer| ("authorization", bearer)).into_iter().collect();
            post(target, headers, alertmanager::body(notification, *lifetime, sent_at))
        }
        Channel::Syslog { hostname, .. } => Wire::Syslog(cef::message(hostname, notification)),
    })
}

/// At most `most` characters of a text, with a mark where some are missing.
fn shorten(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(most.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// A time as RFC 3339.
fn time(micros: i64) -> String {
    rfc3339(micros)
}

#[cfg(test)]
pub(crate) mod samples {
    use super::Notification;
    use crate::alert::{Alert, Severity, State};

    /// An alert with something to escape in every field.
    pub(crate) fn notification() -> Notification {
        Notification {
            alert: Alert {
                tenant: "acme".into(),
                position: 7 << 20,
                id: "00112233445566778899aabbccddeeff".into(),
                revision: 2,
                state: State::Open,
                time: 1_767_603_600_000_000,
                ingest_time: 1_767_603_601_500_000,
                first_time: 1_767_603_600_000_000,
                last_time: 1_767_603_660_250_000,
                domain: None,
                detector: "sigma".into(),
                rule_id: "8d1487f1|7664".into(),
                rule_version: "v1".into(),
                title: "Shell <b>& pipe | \\ = \"x\"\nnext".into(),
                severity: Severity::High,
                score: Some(0.5),
                user: Some("o'brien@corp".into()),
                host: Some("WS-01".into()),
                src_ip: Some("203.0.113.9".into()),
                event_id: Some("e1".into()),
                evidence: vec!["aa".into(), "bb".into()],
                evidence_total: 2,
                reasons: vec!["because a=b".into(), "C:\\x|y".into()],
                tags: vec!["attack.t1059.001".into()],
                author: Some("Somebody".into()),
                licence: Some("DRL-1.1".into()),
                group_key: Some("o'brien@corp".into()),
                fields: vec!["Image=C:\\Windows\\cmd.exe".into()],
                historical: false,
                incomplete: false,
                supersedes: None,
            },
            suppressed: 3,
            link: Some("https://p.example.com/#/alerts/00112233445566778899aabbccddeeff".into()),
        }
    }

    pub(crate) fn retraction() -> Notification {
        let mut notification = notification();
        notification.alert.state = State::Retracted;
        notification.alert.revision = 3;
        notification.suppressed = 0;
        notification
    }
}
