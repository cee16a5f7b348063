//! Prometheus Alertmanager's API v2: `POST /api/v2/alerts` takes a list of alerts, each known by its labels. Labels
//! of an alert are the same in all its revisions but for `severity`, so a revision updates and a retraction, whose `endsAt` is the time of
//! the attempt, resolves. An alert that is not retracted ends by itself after the receiver's lifetime; until then
//! Alertmanager holds it for firing without being told again.

use super::{Notification, shorten, time};
use crate::alert::State;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// The body.
#[must_use]
pub fn body(notification: &Notification, lifetime: Duration, sent_at: i64) -> Value {
    let alert = &notification.alert;
    let ends_at = match alert.state {
        State::Retracted => sent_at,
        State::Open => {
            sent_at.saturating_add(i64::try_from(lifetime.as_micros()).unwrap_or(i64::MAX))
        }
    };
    let texts = |pairs: &[(&str, Option<&str>)]| {
        let map: Map<String, Value> = pairs
            .iter()
            .filter_map(|(name, value)| {
                let value = value.filter(|value| !value.is_empty())?;
                Some(((*name).to_owned(), json!(shorten(value, 1024))))
            })
            .collect();
        Value::Object(map)
    };
    let labels = texts(&[
        ("alertname", Some(&alert.title)),
        ("alert_id", Some(&alert.id)),
        ("severity", Some(alert.severity.as_str())),
        ("tenant", Some(&alert.tenant)),
        ("detector", Some(&alert.detector)),
        ("rule_id", Some(&alert.rule_id)),
        ("user", alert.user.as_deref()),
        ("host", alert.host.as_deref()),
        ("src_ip", alert.src_ip.as_deref()),
    ]);
    let (reasons, tags) = (alert.reasons.join("\n"), alert.tags.join(", "));
    let (revision, suppressed) = (alert.revision.to_string(), notification.suppressed.to_string());
    let annotations = texts(&[
        ("description", Some(&reasons)),
        ("tags", Some(&tags)),
        ("revision", Some(&revision)),
        ("suppressed", (notification.suppressed > 0).then_some(suppressed.as_str())),
    ]);
    let mut one = json!({
        "labels": labels,
        "annotations": annotations,
        // Never after its end, which Alertmanager refuses.
        "startsAt": time(alert.first_time.min(ends_at)),
        "endsAt": time(ends_at),
    });
    if let (Some(link), Some(one)) = (&notification.link, one.as_object_mut()) {
        one.insert("generatorURL".to_owned(), json!(link));
    }
    Value::Array(vec![one])
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    const SENT: i64 = 1_767_603_700_000_000;

    #[test]
    fn alerts_are_the_golden_ones() {
        let expected = json!([{
            "labels": {
                "alertname": "Shell <b>& pipe | \\ = \"x\"\nnext",
                "alert_id": "00112233445566778899aabbccddeeff", "severity": "high",
                "tenant": "acme", "detector": "sigma", "rule_id": "8d1487f1|7664",
                "user": "o'brien@corp", "host": "WS-01", "src_ip": "203.0.113.9",
            },
            "annotations": {
                "description": "because a=b\nC:\\x|y", "tags": "attack.t1059.001",
                "revision": "2", "suppressed": "3",
            },
            "startsAt": "2026-01-05T09:00:00.000Z",
            "endsAt": "2026-01-05T10:01:40.000Z",
            "generatorURL": "https://p.example.com/#/alerts/00112233445566778899aabbccddeeff",
        }]);
        assert_eq!(body(&samples::notification(), Duration::from_secs(3600), SENT), expected);
    }

    #[test]
    fn a_retraction_ends_what_its_labels_name() {
        let open = body(&samples::notification(), Duration::from_secs(3600), SENT);
        let back = body(&samples::retraction(), Duration::from_secs(3600), SENT);
        assert_eq!(back[0]["labels"], open[0]["labels"]);
        assert_eq!(back[0]["endsAt"], "2026-01-05T09:01:40.000Z");
        // Of an alert that begins later than our clock stands.
        let early = body(&samples::retraction(), Duration::from_secs(1), 0);
        assert_eq!(early[0]["startsAt"], early[0]["endsAt"]);
    }
}
