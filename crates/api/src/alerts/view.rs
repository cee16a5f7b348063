//! An alert as the interface shows it.

use palisade_alert::Alert;
use palisade_catalog::{AlertState, AlertStatus};
use palisade_event::time::rfc3339;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where an alert stands with the people who look after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Nobody has decided anything.
    New,
    /// Somebody looks at it.
    Acknowledged,
    /// It is done, for a reason.
    Closed,
}

impl From<AlertStatus> for Status {
    fn from(status: AlertStatus) -> Self {
        match status {
            AlertStatus::New => Self::New,
            AlertStatus::Acknowledged => Self::Acknowledged,
            AlertStatus::Closed => Self::Closed,
        }
    }
}

impl From<Status> for AlertStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::New => Self::New,
            Status::Acknowledged => Self::Acknowledged,
            Status::Closed => Self::Closed,
        }
    }
}

/// One revision of an alert, with what people decided. Times are RFC 3339.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct AlertView {
    /// 32 hexadecimal digits.
    pub alert_id: String,
    /// Counts from 0.
    pub revision: u32,
    /// `open`, or `retracted`: it was taken back.
    pub state: &'static str,
    /// Event time.
    pub time: String,
    /// The gateway's clock.
    pub ingest_time: String,
    /// Event time of the first record of the evidence.
    pub first_time: String,
    /// Event time of the last.
    pub last_time: String,
    /// The time domain; `live` is now.
    pub domain: String,
    /// Which detector: `baseline`, `threat`, …
    pub detector: String,
    /// The rule.
    pub rule_id: String,
    /// The version of its definition.
    pub rule_version: String,
    /// What it is, in a few words.
    pub title: String,
    /// `informational` to `critical`.
    pub severity: String,
    /// 0 to 1.
    pub score: Option<f32>,
    /// The user, where there is one.
    pub user: Option<String>,
    /// The machine, where there is one.
    pub host: Option<String>,
    /// The source address, where there is one.
    pub src_ip: Option<String>,
    /// The sender's id of the first record.
    pub event_id: Option<String>,
    /// What the rule groups by.
    pub group_key: String,
    /// Why, in sentences.
    pub reasons: Vec<String>,
    /// What matched, each `name=value`.
    pub fields: Vec<String>,
    /// The rule's tags, ATT&CK among them.
    pub tags: Vec<String>,
    /// The rule's author.
    pub author: Option<String>,
    /// The rule's licence.
    pub licence: Option<String>,
    /// Ids of the first 100 records; of an alert that was revised, those that this revision brought.
    pub evidence: Vec<String>,
    /// How many of them there are.
    pub evidence_total: u64,
    /// It was found in old news.
    pub historical: bool,
    /// State was cut: there may be more.
    pub incomplete: bool,
    /// The alert of the rule's earlier version about the same.
    pub supersedes: Option<String>,
    /// Where it stands with people.
    pub status: Status,
    /// Why it was closed.
    pub reason: Option<String>,
    /// Who looks after it.
    pub assignee: Option<String>,
    /// Who decided last; null when nobody did.
    pub changed_by: Option<String>,
    /// When.
    pub changed_at: Option<String>,
}

impl AlertView {
    /// An alert and what people decided about it.
    pub(super) fn new(alert: Alert, decided: Option<&AlertState>) -> Self {
        let group_key = alert.group().to_owned();
        Self {
            revision: alert.revision,
            state: alert.state.as_str(),
            time: rfc3339(alert.time),
            ingest_time: rfc3339(alert.ingest_time),
            first_time: rfc3339(alert.first_time),
            last_time: rfc3339(alert.last_time),
            domain: alert.domain.unwrap_or_else(|| "live".to_owned()),
            severity: alert.severity.to_string(),
            alert_id: alert.id,
            detector: alert.detector,
            rule_id: alert.rule_id,
            rule_version: alert.rule_version,
            title: alert.title,
            score: alert.score,
            user: alert.user,
            host: alert.host,
            src_ip: alert.src_ip,
            event_id: alert.event_id,
            group_key,
            reasons: alert.reasons,
            fields: alert.fields,
            tags: alert.tags,
            author: alert.author,
            licence: alert.licence,
            evidence: alert.evidence,
            evidence_total: alert.evidence_total,
            historical: alert.historical,
            incomplete: alert.incomplete,
            supersedes: alert.supersedes,
            status: decided.map_or(Status::New, |state| state.status.into()),
            reason: decided.and_then(|state| state.reason.clone()),
            assignee: decided.and_then(|state| state.assignee.clone()),
            changed_by: decided.map(|state| state.actor.clone()),
            changed_at: decided.map(|state| rfc3339(state.time)),
        }
    }
}
