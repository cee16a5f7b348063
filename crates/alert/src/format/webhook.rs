//! Webhooks as Standard Webhooks 1.0.0 says (github.com/standard-webhooks).
//!
//! | header | value |
//! |---|---|
//! | `webhook-id` | `<alert id>-<revision>`: the idempotency key, the same in every attempt |
//! | `webhook-timestamp` | seconds since the epoch of this attempt |
//! | `webhook-signature` | `v1,<base64 of HMAC-SHA256>` over `<id>.<timestamp>.<body>`; one for each secret, separated by spaces |
//!
//! The body is `{"type", "timestamp", "data"}`; the type is `alert.opened` for revision 0, `alert.revised`
//! for later ones, `alert.retracted` for retractions; the timestamp is the alert's event time.

use super::{FormatError, Notification, Secret, time};
use crate::alert::State;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde_json::{Value, json};

/// The body.
#[must_use]
pub fn body(notification: &Notification) -> Value {
    let alert = &notification.alert;
    let kind = match (alert.state, alert.revision) {
        (State::Retracted, _) => "alert.retracted",
        (State::Open, 0) => "alert.opened",
        (State::Open, _) => "alert.revised",
    };
    json!({
        "type": kind,
        "timestamp": time(alert.time),
        "data": {
            "alert_id": alert.id,
            "revision": alert.revision,
            "state": alert.state,
            "tenant": alert.tenant,
            "domain": alert.domain.as_deref().unwrap_or("live"),
            "time": time(alert.time),
            "ingest_time": time(alert.ingest_time),
            "first_time": time(alert.first_time),
            "last_time": time(alert.last_time),
            "detector": alert.detector,
            "rule_id": alert.rule_id,
            "rule_version": alert.rule_version,
            "title": alert.title,
            "severity": alert.severity,
            "score": alert.score,
            "user": alert.user,
            "host": alert.host,
            "src_ip": alert.src_ip,
            "event_id": alert.event_id,
            "group_key": alert.group(),
            "tags": alert.tags,
            "author": alert.author,
            "licence": alert.licence,
            "reasons": alert.reasons,
            "fields": alert.fields,
            "evidence": alert.evidence,
            "evidence_total": alert.evidence_total,
            "historical": alert.historical,
            "incomplete": alert.incomplete,
            "supersedes": alert.supersedes,
            "suppressed": notification.suppressed,
            "link": notification.link,
        },
    })
}

/// The three headers for a body. The secret holds one or several `whsec_…`, separated by white space.
///
/// # Errors
/// When a secret is not base64 of 24 to 64 bytes.
pub fn headers(
    secret: &Secret,
    id: &str,
    sent_at: i64,
    body: &[u8],
) -> Result<Vec<(&'static str, String)>, FormatError> {
    let seconds = sent_at.div_euclid(1_000_000);
    let mut content = format!("{id}.{seconds}.").into_bytes();
    content.extend_from_slice(body);
    let mut signatures = Vec::new();
    for text in secret.0.split_whitespace() {
        let key = STANDARD
            .decode(text.strip_prefix("whsec_").unwrap_or(text))
            .map_err(|_| FormatError::Secret("a signing secret is whsec_ and base64"))?;
        if !(24..=64).contains(&key.len()) {
            return Err(FormatError::Secret("a signing secret has 24 to 64 bytes"));
        }
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), &content);
        signatures.push(format!("v1,{}", STANDARD.encode(signature.as_ref())));
    }
    if signatures.is_empty() {
        return Err(FormatError::Secret("it is empty"));
    }
    Ok(vec![
        ("webhook-id", id.to_owned()),
        ("webhook-timestamp", seconds.to_string()),
        ("webhook-signature", signatures.join(" ")),
    ])
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    /// HMAC by its definition (RFC 2104), from another implementation of SHA-256.
    fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
        let mut block = [0u8; 64];
        if key.len() > 64 {
            block[..32].copy_from_slice(&Sha256::digest(key));
        } else {
            block[..key.len()].copy_from_slice(key);
        }
        let pad = |with: u8| block.iter().map(|byte| byte ^ with).collect::<Vec<u8>>();
        let inner = Sha256::digest([pad(0x36), message.to_vec()].concat());
        Sha256::digest([pad(0x5c), inner.to_vec()].concat()).to_vec()
    }

    /// What a receiver does, written from the specification.
    fn verify(secret: &str, headers: &[(&'static str, String)], body: &[u8]) -> bool {
        let get = |name| &headers.iter().find(|(own, _)| *own == name).unwrap().1;
        let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        let content =
            [format!("{}.{}.", get("webhook-id"), get("webhook-timestamp")).as_bytes(), body]
                .concat();
        let expected = STANDARD.encode(hmac_sha256(&key, &content));
        get("webhook-signature").split(' ').any(|signature| {
            signature.split_once(',').is_some_and(|(kind, sum)| kind == "v1" && sum == expected)
        })
    }

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    /// The vector that the reference libraries of Standard Webhooks are tested with.
    #[test]
    fn the_reference_vector_is_signed_as_published() {
        let body = br#"{"test": 2432232314}"#;
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        let made = headers(&Secret(SECRET.into()), id, 1_614_265_330_999_999, body).unwrap();
        let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(
            made,
            [
                ("webhook-id", id.to_owned()),
                ("webhook-timestamp", "1614265330".to_owned()),
                ("webhook-signature", expected.to_owned()),
            ]
        );
        assert!(verify(SECRET, &made, body));
        assert!(!verify(SECRET, &made, br#"{"test": 2432232315}"#));
    }

    #[test]
    fn every_secret_signs_while_one_replaces_the_other() {
        let newer = format!("whsec_{}", STANDARD.encode([7u8; 32]));
        let made = headers(&Secret(format!("{newer}\n{SECRET}\n")), "a-0", 5, b"x").unwrap();
        assert!(verify(SECRET, &made, b"x") && verify(&newer, &made, b"x"));
        for bad in ["", "whsec_", "whsec_!!", "whsec_c2hvcnQ="] {
            assert!(headers(&Secret(bad.into()), "a-0", 5, b"x").is_err(), "{bad}");
        }
    }

    #[test]
    fn the_body_is_the_documented_one() {
        let body = body(&samples::notification());
        assert_eq!(
            (&body["type"], &body["timestamp"]),
            (&json!("alert.revised"), &body["data"]["time"])
        );
        let data = body["data"].as_object().unwrap();
        assert_eq!(data["time"], "2026-01-05T09:00:00.000Z");
        assert_eq!(data["severity"], "high");
        assert_eq!(data["suppressed"], 3);
        assert_eq!(data["evidence"], json!(["aa", "bb"]));
        assert_eq!(data["fields"], json!(["Image=C:\\Windows\\cmd.exe"]));
        assert_eq!(super::body(&samples::retraction())["type"], "alert.retracted");
        let mut first = samples::notification();
        first.alert.revision = 0;
        assert_eq!(super::body(&first)["type"], "alert.opened");
    }

    proptest! {
        #[test]
        fn whatever_is_signed_verifies(key in prop::collection::vec(any::<u8>(), 24..65), body in prop::collection::vec(any::<u8>(), 0..200), at in 0i64..4_000_000_000_000_000) {
            let secret = format!("whsec_{}", STANDARD.encode(&key));
            let made = headers(&Secret(secret.clone()), "id-1", at, &body).unwrap();
            prop_assert!(verify(&secret, &made, &body));
        }
    }
}
