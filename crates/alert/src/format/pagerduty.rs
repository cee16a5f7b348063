//! PagerDuty's Events API v2: `POST https://events.pagerduty.com/v2/enqueue`. The alert's id is the `dedup_key`, so later
//! revisions update the same incident and a retraction resolves it. Bounds: summary 1,024 characters, `dedup_key` 255.

use super::{Notification, shorten, time};
use crate::alert::{Severity, State};
use serde_json::{Value, json};

/// The body.
#[must_use]
pub fn body(routing_key: &str, notification: &Notification) -> Value {
    let alert = &notification.alert;
    if alert.state == State::Retracted {
        return json!({
            "routing_key": routing_key,
            "event_action": "resolve",
            "dedup_key": alert.id,
        });
    }
    let severity = match alert.severity {
        Severity::Critical => "critical",
        Severity::High => "error",
        Severity::Medium => "warning",
        Severity::Low | Severity::Informational => "info",
    };
    let of_whom = alert.host.as_deref().or(alert.src_ip.as_deref()).or(alert.user.as_deref());
    let mut body = json!({
        "routing_key": routing_key,
        "event_action": "trigger",
        "dedup_key": alert.id,
        "client": "Palisade",
        "payload": {
            "summary": shorten(&alert.title, 1024),
            "source": of_whom.unwrap_or("palisade"),
            "severity": severity,
            "timestamp": time(alert.time),
            "component": alert.detector,
            "group": alert.group(),
            "class": alert.rule_id,
            "custom_details": {
                "alert_id": alert.id,
                "revision": alert.revision,
                "tenant": alert.tenant,
                "user": alert.user,
                "host": alert.host,
                "src_ip": alert.src_ip,
                "reasons": alert.reasons,
                "tags": alert.tags,
                "fields": alert.fields,
                "evidence_total": alert.evidence_total,
                "suppressed": notification.suppressed,
                "incomplete": alert.incomplete,
            },
        },
    });
    if let (Some(link), Some(body)) = (&notification.link, body.as_object_mut()) {
        body.insert("client_url".to_owned(), json!(link));
        body.insert("links".to_owned(), json!([{"href": link, "text": "The alert in Palisade"}]));
    }
    body
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn events_are_the_golden_ones() {
        let link = "https://p.example.com/#/alerts/00112233445566778899aabbccddeeff";
        let expected = json!({
            "routing_key": "R0", "event_action": "trigger",
            "dedup_key": "00112233445566778899aabbccddeeff",
            "client": "Palisade", "client_url": link,
            "links": [{"href": link, "text": "The alert in Palisade"}],
            "payload": {
                "summary": "Shell <b>& pipe | \\ = \"x\"\nnext", "source": "WS-01", "severity": "error",
                "timestamp": "2026-01-05T09:00:00.000Z", "component": "sigma",
                "group": "o'brien@corp", "class": "8d1487f1|7664",
                "custom_details": {
                    "alert_id": "00112233445566778899aabbccddeeff", "revision": 2, "tenant": "acme",
                    "user": "o'brien@corp", "host": "WS-01", "src_ip": "203.0.113.9",
                    "reasons": ["because a=b", "C:\\x|y"], "tags": ["attack.t1059.001"],
                    "fields": ["Image=C:\\Windows\\cmd.exe"], "evidence_total": 2, "suppressed": 3,
                    "incomplete": false,
                },
            },
        });
        assert_eq!(body("R0", &samples::notification()), expected);
        assert_eq!(
            body("R0", &samples::retraction()),
            json!({"routing_key": "R0", "event_action": "resolve", "dedup_key": "00112233445566778899aabbccddeeff"})
        );
    }

    #[test]
    fn every_severity_is_one_of_pagerdutys_and_long_titles_are_cut() {
        for severity in Severity::ALL {
            let mut notification = samples::notification();
            notification.alert.severity = severity;
            notification.alert.title = "ä".repeat(3000);
            let payload = &body("R", &notification)["payload"];
            assert!(
                ["critical", "error", "warning", "info"]
                    .contains(&payload["severity"].as_str().unwrap())
            );
            assert_eq!(payload["summary"].as_str().unwrap().chars().count(), 1024);
        }
    }
}
