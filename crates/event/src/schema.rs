//! The Arrow schemas of the streams and tables, and the names by which senders call their columns.
//!
//! `events` has typed **core columns** ([`Core`]) and one **dynamic column** for every other field of
//! a record, named by its dotted path (`winlog.event_data.Image`). A batch carries only the columns
//! that it has values for; a column that a batch lacks reads as null.
//!
//! | core column | type | meaning |
//! |---|---|---|
//! | `tenant` | dictionary | whose row it is; never null |
//! | `time` | timestamp µs UTC | event time, from the record; the clock where the record has none |
//! | `ingest_time` | timestamp µs UTC | the gateway's clock (T1) |
//! | `position` | u64 | offset of the frame in the log << 20 \| row in the frame; never null in tables, absent in the log |
//! | `domain` | dictionary | the time domain (T2); null means `live` |
//! | `source` | dictionary | the listener or stream that it came by; never null |
//! | `event_id` | text | the sender's own id |
//! | `record_id` | 16 bytes | the record's id when it does not derive from `event_id` (I1) |
//! | `type`, `outcome` | dictionary | what happened, and `success`, `failure` or as sent |
//! | `user`, `host` | dictionary | who and where |
//! | `src_ip`, `dst_ip` | dictionary | addresses as sent |
//! | `src_port`, `dst_port` | i32 | ports 0 to 65,535 |
//! | `location` | dictionary | where the user was, as sent |
//! | `message` | text | the message, or the whole line of a raw log |
//! | `user_agent`, `url` | dictionary | of requests |
//! | `reported_threat_score` | f64 | the score that the sender gave |
//! | `reputation` | i32 | 0 to 255: the level of the worst list that names the source or destination address; null when none does |
//! | `claimed_time` | timestamp µs UTC | a time over five minutes ahead of the clock, replaced by it (T4) |
//! | `overflow` | text | JSON object of the fields past the column limit or that fit no column |
//! | `entropy` | f32 | bits per byte of the message or payload, rounded to 1/256 (pipeline) |
//! | `threat_score` | f32 | 0 to 1, rounded to 1/1000 (pipeline) |
//! | `threat_class` | dictionary | `sqli`, `xss`, … when an attack class was found (pipeline) |
//! | `anomaly_score` | f32 | 0 to 1, rounded to 1/1000; null while the user is being learned (pipeline) |
//!
//! A *dictionary* column is `Dictionary(Int32, Utf8)` or plain `Utf8` in a batch, whichever the
//! decoder found cheaper; read either through [`crate::column::Text`]. Dynamic columns are `Boolean`,
//! `Int64`, `Float64`, `Utf8` or `Dictionary(Int32, Utf8)`; a column whose values in one batch were
//! of several JSON types is `Utf8` holding each value as JSON text, and its field carries the
//! metadata `palisade.kind = json` ([`JSON_KIND`]), so nothing is lost about what was received.

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use std::collections::HashMap;
use std::sync::Arc;

/// The stream and table of security events and raw logs.
pub const EVENTS: &str = "events";
/// The table into which every detector writes its alerts.
pub const ALERTS: &str = "alerts";
/// The stream and table of records that could not be taken, with their bytes and the reason.
pub const DEAD_LETTERS: &str = "dead_letters";

/// The metadata key that tells how a text column holds its values.
pub const KIND_KEY: &str = "palisade.kind";
/// The value of [`KIND_KEY`] for a column of JSON texts.
pub const JSON_KIND: &str = "json";

/// The core columns of `events`, in their order in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[allow(missing_docs, reason = "the module's table tells what each is")]
pub enum Core {
    Tenant,
    Time,
    IngestTime,
    Position,
    Domain,
    Source,
    EventId,
    RecordId,
    Type,
    Outcome,
    User,
    Host,
    SrcIp,
    SrcPort,
    DstIp,
    DstPort,
    Location,
    Message,
    UserAgent,
    Url,
    ReportedThreatScore,
    Reputation,
    ClaimedTime,
    Overflow,
    Entropy,
    ThreatScore,
    ThreatClass,
    AnomalyScore,
}

impl Core {
    /// All core columns, in order.
    pub const ALL: [Self; 28] = [
        Self::Tenant,
        Self::Time,
        Self::IngestTime,
        Self::Position,
        Self::Domain,
        Self::Source,
        Self::EventId,
        Self::RecordId,
        Self::Type,
        Self::Outcome,
        Self::User,
        Self::Host,
        Self::SrcIp,
        Self::SrcPort,
        Self::DstIp,
        Self::DstPort,
        Self::Location,
        Self::Message,
        Self::UserAgent,
        Self::Url,
        Self::ReportedThreatScore,
        Self::Reputation,
        Self::ClaimedTime,
        Self::Overflow,
        Self::Entropy,
        Self::ThreatScore,
        Self::ThreatClass,
        Self::AnomalyScore,
    ];

    /// The column's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Time => "time",
            Self::IngestTime => "ingest_time",
            Self::Position => "position",
            Self::Domain => "domain",
            Self::Source => "source",
            Self::EventId => "event_id",
            Self::RecordId => "record_id",
            Self::Type => "type",
            Self::Outcome => "outcome",
            Self::User => "user",
            Self::Host => "host",
            Self::SrcIp => "src_ip",
            Self::SrcPort => "src_port",
            Self::DstIp => "dst_ip",
            Self::DstPort => "dst_port",
            Self::Location => "location",
            Self::Message => "message",
            Self::UserAgent => "user_agent",
            Self::Url => "url",
            Self::ReportedThreatScore => "reported_threat_score",
            Self::Reputation => "reputation",
            Self::ClaimedTime => "claimed_time",
            Self::Overflow => "overflow",
            Self::Entropy => "entropy",
            Self::ThreatScore => "threat_score",
            Self::ThreatClass => "threat_class",
            Self::AnomalyScore => "anomaly_score",
        }
    }

    /// The core column of this exact name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|core| core.name() == name)
    }

    /// The column's type where it is not plain `Utf8` by the decoder's choice.
    #[must_use]
    pub fn data_type(self) -> DataType {
        match self {
            Self::Time | Self::IngestTime | Self::ClaimedTime => timestamp(),
            Self::Position => DataType::UInt64,
            Self::EventId | Self::Message | Self::Overflow => DataType::Utf8,
            Self::RecordId => DataType::FixedSizeBinary(16),
            Self::SrcPort | Self::DstPort | Self::Reputation => DataType::Int32,
            Self::ReportedThreatScore => DataType::Float64,
            Self::Entropy | Self::ThreatScore | Self::AnomalyScore => DataType::Float32,
            Self::Tenant
            | Self::Domain
            | Self::Source
            | Self::Type
            | Self::Outcome
            | Self::User
            | Self::Host
            | Self::SrcIp
            | Self::DstIp
            | Self::Location
            | Self::UserAgent
            | Self::Url
            | Self::ThreatClass => dictionary(),
        }
    }

    /// Whether the pipeline adds this column; a sender's field of the same name becomes the dynamic
    /// column `sent.<name>`.
    #[must_use]
    pub fn is_derived(self) -> bool {
        matches!(
            self,
            Self::Position
                | Self::Tenant
                | Self::IngestTime
                | Self::Domain
                | Self::Source
                | Self::RecordId
                | Self::Reputation
                | Self::ClaimedTime
                | Self::Overflow
                | Self::Entropy
                | Self::ThreatClass
                | Self::AnomalyScore
                | Self::ThreatScore
                | Self::ReportedThreatScore
        )
    }

    /// The column's field.
    #[must_use]
    pub fn field(self) -> FieldRef {
        let required = matches!(self, Self::Tenant | Self::Time | Self::IngestTime | Self::Source);
        Arc::new(Field::new(self.name(), self.data_type(), !required))
    }
}

/// `Timestamp(Microsecond, "UTC")`.
#[must_use]
pub fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// `Dictionary(Int32, Utf8)`.
#[must_use]
pub fn dictionary() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

/// The field of a dynamic column whose values are JSON texts.
#[must_use]
pub fn json_field(name: &str) -> Field {
    Field::new(name, DataType::Utf8, true)
        .with_metadata(HashMap::from([(KIND_KEY.to_owned(), JSON_KIND.to_owned())]))
}

/// Whether a field holds JSON texts ([`json_field`]).
#[must_use]
pub fn is_json(field: &Field) -> bool {
    field.metadata().get(KIND_KEY).is_some_and(|kind| kind == JSON_KIND)
}

/// The columns of the table `alerts`: one shape for all detectors. Detectors add what is their own
/// as further nullable columns named `<detector>.<what>` (for example `baseline.time`).
///
/// `alert_id` is the hash of invariant I2 as 32 hexadecimal digits; `revision` counts from 0;
/// `evidence` holds the ids of the records (32 hexadecimal digits each); `event_id` the sender's id
/// of the first of them; `severity` is one of `low`, `medium`, `high`, `critical`; `reasons` are
/// sentences with the numbers in them.
///
/// The columns from `state` on may be null or missing in a batch, which reads as null:
///
/// | column | meaning |
/// |---|---|
/// | `state` | `open` (also when null) or `retracted`: what this revision says of the alert |
/// | `tags` | the rule's tags, ATT&CK among them (`attack.t1059.001`) |
/// | `author`, `licence` | of the rule |
/// | `group_key` | the group of I2: the values that the rule groups by; when null the user, else the source address |
/// | `fields` | what matched, each `name=value` |
/// | `historical` | its opening hit lies before the rule came into force (B1): nobody is told unless asked |
/// | `incomplete` | state was cut at a bound (P2): there may be more |
/// | `supersedes` | the alert of the rule's earlier version that it shares evidence with (C2) |
/// | `evidence_from` | evidence that earlier revisions named stays up to here, and what follows is replaced by `evidence`: the id of a record, `/`, and how often that record itself stays at most; when null all is replaced |
#[must_use]
pub fn alert_fields() -> Vec<FieldRef> {
    let text = |name| Arc::new(Field::new(name, DataType::Utf8, true));
    let word = |name| Arc::new(Field::new(name, dictionary(), true));
    let flag = |name| Arc::new(Field::new(name, DataType::Boolean, true));
    let list = |name| {
        let item = Arc::new(Field::new("item", DataType::Utf8, true));
        Arc::new(Field::new(name, DataType::List(item), true))
    };
    vec![
        Core::Tenant.field(),
        Core::Time.field(),
        Core::IngestTime.field(),
        Core::Position.field(),
        Core::Domain.field(),
        Arc::new(Field::new("alert_id", DataType::Utf8, false)),
        Arc::new(Field::new("revision", DataType::Int32, false)),
        Arc::new(Field::new("detector", dictionary(), false)),
        Arc::new(Field::new("rule_id", dictionary(), false)),
        Arc::new(Field::new("rule_version", dictionary(), false)),
        Arc::new(Field::new("title", dictionary(), false)),
        Arc::new(Field::new("severity", dictionary(), false)),
        Arc::new(Field::new("score", DataType::Float32, true)),
        Core::User.field(),
        Core::Host.field(),
        Core::SrcIp.field(),
        text("event_id"),
        Arc::new(Field::new("first_time", timestamp(), false)),
        Arc::new(Field::new("last_time", timestamp(), false)),
        list("evidence"),
        list("reasons"),
        word("state"),
        list("tags"),
        word("author"),
        word("licence"),
        text("group_key"),
        list("fields"),
        flag("historical"),
        flag("incomplete"),
        text("supersedes"),
        text("evidence_from"),
    ]
}

/// The columns of the stream and table `dead_letters`. `dead_letter_id` is 32 hexadecimal digits and
/// serves as idempotency key when the letter is retried (L4); `class` is an error class; `raw` holds
/// the bytes as received; `content_type` tells how to read them again (`json` or `line`).
#[must_use]
pub fn dead_letter_fields() -> Vec<FieldRef> {
    vec![
        Core::Tenant.field(),
        Core::Time.field(),
        Core::IngestTime.field(),
        Core::Position.field(),
        Core::Source.field(),
        Arc::new(Field::new("dead_letter_id", DataType::Utf8, false)),
        Arc::new(Field::new("class", dictionary(), false)),
        Arc::new(Field::new("reason", DataType::Utf8, false)),
        Arc::new(Field::new("content_type", dictionary(), false)),
        Arc::new(Field::new("raw", DataType::Binary, false)),
    ]
}

/// The core column that a field of this dotted name belongs to, by the names of ECS, OCSF,
/// StreamGuard (both its spellings) and common agents. Derived columns are never the target, except
/// that a sent `threat_score` is kept as `reported_threat_score`.
#[must_use]
pub fn alias(name: &str) -> Option<Core> {
    Some(match name {
        "time"
        | "timestamp"
        | "@timestamp"
        | "ts"
        | "eventTime"
        | "event_time"
        | "TimeCreated"
        | "datetime"
        | "_time"
        | "date"
        | "UtcTime"
        | "EventTime"
        | "Event.System.TimeCreated.#attributes.SystemTime" => Core::Time,
        "event_id" | "eventId" | "event.id" | "metadata.uid" | "eventID" => Core::EventId,
        "type" | "event_type" | "eventType" | "event.action" | "activity_name" | "eventName" => {
            Core::Type
        }
        "outcome" | "status" | "event.outcome" | "result" => Core::Outcome,
        "user"
        | "user.name"
        | "username"
        | "user_name"
        | "actor.user.name"
        | "userName"
        | "winlog.event_data.TargetUserName"
        | "TargetUserName" => Core::User,
        "host"
        | "hostname"
        | "host.name"
        | "Hostname"
        | "device.hostname"
        | "host.hostname"
        | "Computer"
        | "computer_name"
        | "winlog.computer_name"
        | "Event.System.Computer" => Core::Host,
        "src_ip"
        | "source_ip"
        | "sourceIp"
        | "source.ip"
        | "src_endpoint.ip"
        | "client.ip"
        | "client_ip"
        | "remote_addr"
        | "sourceIPAddress"
        | "srcip"
        | "SourceIp"
        | "IpAddress"
        | "winlog.event_data.IpAddress" => Core::SrcIp,
        "src_port" | "source_port" | "sourcePort" | "source.port" | "src_endpoint.port"
        | "SourcePort" | "client.port" | "srcport" => Core::SrcPort,
        "dst_ip" | "destination_ip" | "destinationIp" | "destination.ip" | "dst_endpoint.ip"
        | "server.ip" | "dest_ip" | "dstip" | "DestinationIp" => Core::DstIp,
        "dst_port" | "destination_port" | "destinationPort" | "destination.port"
        | "dst_endpoint.port" | "server.port" | "dest_port" | "DestinationPort" | "dstport" => {
            Core::DstPort
        }
        "location"
        | "geo_location"
        | "geoLocation"
        | "metadata.geo_location"
        | "source.geo.name"
        | "src_endpoint.location.desc" => Core::Location,
        "message" | "msg" | "Message" | "log" | "raw" | "event.original" | "raw_data" => {
            Core::Message
        }
        "user_agent"
        | "user_agent.original"
        | "metadata.user_agent"
        | "userAgent"
        | "http_request.user_agent"
        | "http_user_agent" => Core::UserAgent,
        "url" | "url.original" | "url.full" | "request_uri" | "http_request.url.url_string" => {
            Core::Url
        }
        "threat_score" | "threatScore" | "reported_threat_score" => Core::ReportedThreatScore,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_core_column_is_listed_once_and_found_by_its_name() {
        for (index, core) in Core::ALL.into_iter().enumerate() {
            assert_eq!(core as usize, index);
            assert_eq!(Core::by_name(core.name()), Some(core));
        }
    }

    #[test]
    fn aliases_never_reach_a_derived_column_but_the_reported_score() {
        for core in Core::ALL {
            if let Some(target) = alias(core.name()) {
                assert!(!target.is_derived() || target == Core::ReportedThreatScore, "{core:?}");
            }
        }
    }
}
