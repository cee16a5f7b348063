//! StreamGuard's documented endpoints, over rows that a real server took, scored and stored: once from
//! memory, once from segments after a restart.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may panic"
)]

#[allow(dead_code, reason = "shared with other tests of the binary")]
mod support;

use serde_json::{Value, json};
use std::path::Path;
use support::{Server, palisade};

/// Monday 2026-01-05 09:00 UTC, in milliseconds.
const MONDAY: i64 = 1_767_603_600_000;
const MINUTE: i64 = 60_000;

fn start(data: &Path) -> Server {
    Server::start_with(palisade(data).env("PALISADE_DETECT__BASELINE", "streamguard"))
}

/// Sends events and waits until they are visible.
fn send(server: &Server, events: &[Value]) {
    let body: Vec<String> = events.iter().map(Value::to_string).collect();
    assert_eq!(server.records(&[], &body.join("\n")).0, 200);
    server.wait_visible();
}

/// A good answer.
fn ok(server: &Server, path: &str) -> Value {
    let (status, body) = server.get(path);
    assert_eq!(status, 200, "{path}: {body}");
    body
}

/// An event of alice's ordinary day, five minutes after the one before it.
fn ordinary(n: i64) -> Value {
    json!({
        "event_id": format!("evt_{n:04}"), "user": "alice", "timestamp": MONDAY + n * 5 * MINUTE % (6 * 60 * MINUTE),
        "type": if n % 4 == 0 { "FILE_ACCESS" } else { "LOGIN_SUCCESS" }, "source_ip": "10.0.1.50",
        "geo_location": "Berlin, DE", "threat_score": 0.1,
        "metadata": {"session": {"id": format!("s{n}")}, "bytes": n, "user_agent": "curl/8"},
    })
}

/// At night, from elsewhere, of another kind.
fn strange() -> Value {
    json!({
        "event_id": "evt_strange", "user": "alice", "timestamp": MONDAY + 18 * 60 * MINUTE,
        "type": "PRIVILEGE_CHANGE", "source_ip": "203.0.113.66", "geo_location": "Nowhere",
        "threat_score": 0.9, "metadata": {"resource": "sudo"},
    })
}

fn ids(events: &Value) -> Vec<&str> {
    events.as_array().unwrap().iter().map(|event| event["eventId"].as_str().unwrap()).collect()
}

fn newest_first(list: &Value) {
    let times: Vec<i64> =
        list.as_array().unwrap().iter().map(|one| one["timestamp"].as_i64().unwrap()).collect();
    assert!(times.is_sorted_by(|a, b| a >= b), "{times:?}");
}

#[test]
fn every_endpoint_answers_from_memory_and_from_segments() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    // Before the first event.
    assert_eq!(ok(&server, "/api/events"), json!([]));
    assert_eq!(ok(&server, "/api/events/count"), json!(0));
    assert_eq!(ok(&server, "/api/events/counts-by-type"), json!({}));
    assert_eq!(ok(&server, "/api/anomalies"), json!([]));
    assert_eq!(ok(&server, "/api/stats/summary")["totalEvents"], 0);
    assert_eq!(server.get("/api/events/evt_0001").0, 404);

    let mut events: Vec<Value> = (0..150).map(ordinary).collect();
    events.push(strange());
    events.push(json!({"user": "bob", "timestamp": MONDAY, "type": "LOGIN_FAILED"}));
    send(&server, &events);
    check(&server);
    server.terminate();
    check(&start(data.path()));
}

fn check(server: &Server) {
    let latest = ok(server, "/api/events?limit=3");
    assert_eq!(latest.as_array().unwrap().len(), 3);
    assert_eq!(
        latest[0],
        json!({
            "eventId": "evt_strange", "user": "alice", "timestamp": MONDAY + 18 * 60 * MINUTE,
            "type": "PRIVILEGE_CHANGE", "sourceIp": "203.0.113.66", "geoLocation": "Nowhere",
            "threatScore": 0.9, "metadata": {"resource": "sudo"},
        })
    );
    newest_first(&latest);
    assert_eq!(ok(server, "/api/events/recent?limit=3"), latest);
    assert_eq!(ok(server, "/api/events").as_array().unwrap().len(), 100);
    let all = ok(server, "/api/events?limit=1000");
    assert_eq!(all.as_array().unwrap().len(), 152);
    newest_first(&all);
    assert_eq!(ok(server, "/api/events/count"), json!(152));

    let event = ok(server, "/api/events/evt_0007");
    assert_eq!(
        (&event["timestamp"], &event["metadata"]),
        (
            &json!(MONDAY + 35 * MINUTE),
            &json!({"session": {"id": "s7"}, "bytes": 7, "user_agent": "curl/8"})
        )
    );
    let (status, missing) = server.get("/api/events/evt_none");
    assert_eq!(
        (status, missing),
        (
            404,
            json!({"error": "Resource not found", "message": "Event with ID evt_none not found"})
        )
    );

    let bob = ok(server, "/api/events/user/bob");
    assert_eq!(bob.as_array().unwrap().len(), 1);
    // Nobody named bob's event: its own id leads to it.
    let id = bob[0]["eventId"].as_str().unwrap();
    assert_eq!(id.len(), 32, "{id}");
    assert_eq!(ok(server, &format!("/api/events/{id}")), bob[0]);
    assert_eq!(ok(server, "/api/events/user/alice?limit=1000").as_array().unwrap().len(), 151);
    assert_eq!(ok(server, "/api/events/user/o'brien"), json!([]));

    let threats = ok(server, "/api/events/threats");
    assert_eq!(ids(&threats), ["evt_strange"]);
    assert_eq!(ok(server, "/api/events/threat-score?min_score=0.9"), threats);
    let (low, high) = (MONDAY + 5 * MINUTE, MONDAY + 10 * MINUTE);
    let range =
        ok(server, &format!("/api/events/time-range?start_time={low}&end_time={high}&limit=1000"));
    assert_eq!(range.as_array().unwrap().len(), 6, "{range}");
    newest_first(&range);
    assert_eq!(
        ok(server, "/api/events/counts-by-type"),
        json!({"LOGIN_SUCCESS": 112, "FILE_ACCESS": 38, "PRIVILEGE_CHANGE": 1, "LOGIN_FAILED": 1})
    );

    let anomalies = ok(server, "/api/anomalies");
    assert_eq!(ids(&anomalies), ["evt_strange"], "{anomalies}");
    let anomaly = &anomalies[0];
    assert_eq!(
        (&anomaly["user"], &anomaly["timestamp"]),
        (&json!("alice"), &json!(MONDAY + 18 * 60 * MINUTE))
    );
    let score = anomaly["anomalyScore"].as_f64().unwrap();
    let weighted: f64 = [
        ("timeAnomaly", 0.25),
        ("ipAnomaly", 0.3),
        ("locationAnomaly", 0.2),
        ("typeAnomaly", 0.15),
        ("failureAnomaly", 0.1),
    ]
    .iter()
    .map(|(part, weight)| anomaly[*part].as_f64().unwrap() * weight)
    .sum();
    assert!(score >= 0.7 && (score - weighted).abs() < 0.01, "{anomaly}");
    assert!(!anomaly["reasons"].as_array().unwrap().is_empty());
    for path in [
        "/api/anomalies/recent",
        "/api/anomalies/high-score",
        "/api/anomalies/high-score?threshold=0.7&limit=5",
        "/api/anomalies/user/alice",
        &format!(
            "/api/anomalies/time-range?start_time={MONDAY}&end_time={}",
            MONDAY + 24 * 60 * MINUTE
        ),
    ] {
        assert_eq!(ok(server, path), anomalies, "{path}");
    }
    assert_eq!(ok(server, "/api/anomalies/high-score?threshold=1"), json!([]));
    assert_eq!(ok(server, "/api/anomalies/user/bob"), json!([]));
    assert_eq!(ok(server, "/api/anomalies/count"), json!(1));
    assert_eq!(ok(server, "/api/anomalies/evt_strange"), *anomaly);
    // The record's own id leads to the event and to its anomaly as well.
    let rows = server.rows("SELECT id FROM events WHERE event_id = 'evt_strange'");
    let id = rows[0]["id"].as_str().unwrap();
    assert_eq!(ok(server, &format!("/api/events/{id}"))["eventId"], "evt_strange");
    assert_eq!(ok(server, &format!("/api/anomalies/{id}")), *anomaly);
    assert_eq!(
        server.get("/api/anomalies/evt_0007").1["message"],
        "Anomaly for event with ID evt_0007 not found"
    );

    let summary = ok(server, "/api/stats/summary");
    assert_eq!(
        (
            &summary["totalEvents"],
            &summary["highThreatEvents"],
            &summary["totalAnomalies"],
            &summary["totalAnalyses"]
        ),
        (&json!(152), &json!(1), &json!(1), &json!(0))
    );
    let status = ok(server, "/api/health/status");
    assert_eq!(
        (&status["database"]["eventCount"], &status["database"]["anomalyCount"]),
        (&json!(152), &json!(1))
    );
    assert_eq!(ok(server, "/api/health/ready")["ready"], true);

    for path in [
        "/api/events?limit=0",
        "/api/events?limit=1001",
        "/api/events/threat-score",
        "/api/events/threat-score?min_score=2",
        "/api/events/time-range?start_time=2&end_time=1",
        "/api/events/time-range?start_time=1",
        "/api/anomalies/high-score?threshold=x",
        "/api/anomalies/time-range",
    ] {
        let (status, body) = server.get(path);
        assert_eq!((status, &body["error"]), (400, &json!("Invalid parameter")), "{path}: {body}");
    }
}
