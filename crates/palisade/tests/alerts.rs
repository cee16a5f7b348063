//! The REST interface of alerts against a real server: list, one, triage, notes, silences, incidents, risk, deliveries,
//! and who may do what.
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
use support::{Server, create_key, palisade};

/// Monday 2026-01-05 09:00 UTC, in milliseconds.
const MONDAY: i64 = 1_767_603_600_000;
const MINUTE: i64 = 60_000;

fn start(data: &Path) -> Server {
    Server::start_with(palisade(data).env("PALISADE_DETECT__BASELINE", "streamguard"))
}

/// An ordinary day of a user, and so many minutes after the next midnight and three hours something strange: an alert
/// of the baseline.
fn day(user: &str, minute: i64) -> Vec<Value> {
    let mut events: Vec<Value> = (0..150)
        .map(|n| {
            json!({
                "event_id": format!("{user}-{n}"), "user": user,
                "timestamp": MONDAY + n * 5 * MINUTE % (6 * 60 * MINUTE),
                "type": if n % 4 == 0 { "FILE_ACCESS" } else { "LOGIN_SUCCESS" },
                "source_ip": "10.0.1.50", "geo_location": "Berlin, DE", "threat_score": 0.1,
            })
        })
        .collect();
    events.push(json!({
        "event_id": format!("{user}-strange"), "user": user,
        "timestamp": MONDAY + (18 * 60 + minute) * MINUTE, "type": "PRIVILEGE_CHANGE",
        "source_ip": "203.0.113.66", "geo_location": "Nowhere", "threat_score": 0.9,
        "metadata": {"resource": "sudo"},
    }));
    events
}

fn send(server: &Server, headers: &[(&str, &str)], events: &[Value]) {
    let body: Vec<String> = events.iter().map(Value::to_string).collect();
    assert_eq!(server.records(headers, &body.join("\n")).0, 200);
}

struct Client {
    url: String,
    key: Option<String>,
}

impl Client {
    fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let url = format!("{}{path}", self.url);
        // Requests with and without a body are of two types.
        macro_rules! with_key {
            ($request:expr) => {
                match &self.key {
                    Some(key) => $request.header("authorization", format!("Bearer {key}")),
                    None => $request,
                }
            };
        }
        let (json, body) = ("application/json", body.to_string());
        let answer = match method {
            "GET" => with_key!(agent.get(url)).call(),
            "DELETE" => with_key!(agent.delete(url)).call(),
            "PATCH" => with_key!(agent.patch(url)).header("content-type", json).send(body),
            _ => with_key!(agent.post(url)).header("content-type", json).send(body),
        };
        let mut answer = answer.unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        (answer.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask("GET", path, &Value::Null);
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// All alerts of a filter, by pages of this size.
    fn all(&self, filter: &str, limit: usize) -> Vec<Value> {
        let (mut all, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.get(&format!("/api/v1/alerts?limit={limit}{filter}{cursor}"));
            all.extend(page["alerts"].as_array().unwrap().iter().cloned());
            let Some(next) = page["next"].as_str() else { return all };
            cursor = format!("&cursor={next}");
        }
    }
}

fn ids(alerts: &[Value]) -> Vec<&str> {
    alerts.iter().map(|alert| alert["alert_id"].as_str().unwrap()).collect()
}

#[test]
fn alerts_are_listed_decided_about_and_put_together() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let client = Client { url: server.url.clone(), key: None };
    // Before the first one.
    assert_eq!(client.get("/api/v1/alerts"), json!({"alerts": [], "next": null}));
    assert_eq!(client.get("/api/v1/incidents"), json!({"incidents": [], "truncated": false}));
    assert_eq!(client.get("/api/v1/entities/risk")["entities"], json!([]));
    assert_eq!(client.get("/api/v1/deliveries"), json!({"deliveries": [], "next": null}));

    for (minute, user) in ["alice", "bob", "carol", "dave", "erin"].into_iter().enumerate() {
        send(&server, &[], &day(user, minute as i64));
    }
    server.wait_visible();
    listed(&client);
    decided(&client);
    grouped(&client);
    server.terminate();
    // The same from segments.
    let server = start(data.path());
    let client = Client { url: server.url.clone(), key: None };
    listed(&client);
    grouped(&client);
    let closed = client.all("&status=closed", 10);
    assert_eq!(closed.len(), 1);
    assert_eq!((&closed[0]["reason"], &closed[0]["assignee"]), (&json!("benign"), &json!("ada")));
}

fn listed(client: &Client) {
    let all = client.all("", 500);
    assert!(all.len() >= 5, "{}", all.len());
    let times: Vec<&str> = all.iter().map(|alert| alert["time"].as_str().unwrap()).collect();
    assert!(times.is_sorted_by(|a, b| a >= b), "newest first: {times:?}");
    for limit in [1, 2, 3, all.len()] {
        assert_eq!(client.all("", limit), all, "pages of {limit}");
    }
    let of = |filter: &str| client.all(filter, 3);
    let count = |name: &str, value: &str| all.iter().filter(|alert| alert[name] == value).count();
    assert_eq!(of("&entity=bob").len(), count("user", "bob"));
    assert_eq!(of("&entity=203.0.113.66").len(), count("src_ip", "203.0.113.66"));
    assert_eq!(of("&entity=o'brien"), [] as [Value; 0]);
    assert_eq!(of("&detector=baseline").len(), count("detector", "baseline"));
    let severity = all[0]["severity"].as_str().unwrap();
    assert_eq!(
        of(&format!("&severity={severity},informational")).len(),
        count("severity", severity)
    );
    let rule = all[0]["rule_id"].as_str().unwrap();
    assert_eq!(of(&format!("&rule={rule}")).len(), count("rule_id", rule));
    let middle = times[all.len() / 2];
    let before = of(&format!("&to={middle}")).len();
    assert_eq!(before + of(&format!("&from={middle}")).len(), all.len());
    for bad in ["severity=bad", "status=open", "cursor=x", "limit=0", "limit=501", "from=x", "x=1"]
    {
        assert_eq!(
            client.ask("GET", &format!("/api/v1/alerts?{bad}"), &Value::Null).0,
            400,
            "{bad}"
        );
    }

    let one = client.get(&format!("/api/v1/alerts/{}", ids(&all)[0]));
    for (name, value) in all[0].as_object().unwrap() {
        assert_eq!(&one[name], value, "{name}");
    }
    assert_eq!(one["revisions"].as_array().unwrap().len(), 1);
    assert_eq!(one["deliveries"], json!([]));
    let baseline = of("&detector=baseline");
    let one = client.get(&format!("/api/v1/alerts/{}", ids(&baseline)[0]));
    assert!(one["details"]["baseline.time"].is_number(), "{one}");
    for id in ["x", &"0".repeat(32), "'%20OR%201=1"] {
        assert_eq!(client.ask("GET", &format!("/api/v1/alerts/{id}"), &Value::Null).0, 404, "{id}");
    }
}

fn decided(client: &Client) {
    let all = client.all("", 500);
    let [first, second] = [0, 1].map(|n| format!("/api/v1/alerts/{}", ids(&all)[n]));
    let patch = |path: &str, body: Value| client.ask("PATCH", path, &body);
    let (status, alert) = patch(&first, json!({"status": "acknowledged", "assignee": "ada"}));
    assert_eq!(
        (status, &alert["status"], &alert["assignee"]),
        (200, &json!("acknowledged"), &json!("ada"))
    );
    assert_eq!(alert["changed_by"], "local");
    assert_eq!(client.all("&status=acknowledged", 10).len(), 1);
    assert_eq!(client.all("&status=new", 2).len(), all.len() - 1);
    assert_eq!(client.all("&status=new,acknowledged", 2).len(), all.len());
    for bad in
        [json!({"status": "closed"}), json!({}), json!({"status": "gone"}), json!({"reason": "x"})]
    {
        let (status, problem) = patch(&first, bad.clone());
        assert!(matches!(status, 400 | 422), "{bad}: {status} {problem}");
    }
    assert_eq!(patch("/api/v1/alerts/00", json!({"status": "new"})).0, 404);
    assert_eq!(
        patch(&format!("/api/v1/alerts/{}", "0".repeat(32)), json!({"status": "new"})).0,
        404
    );
    let (status, alert) = patch(&first, json!({"status": "closed", "reason": "benign"}));
    assert_eq!(
        (status, &alert["reason"], &alert["assignee"]),
        (200, &json!("benign"), &json!("ada"))
    );
    // Nobody looks after it any more.
    assert_eq!(patch(&second, json!({"assignee": "bob"})).1["assignee"], "bob");
    assert_eq!(patch(&second, json!({"assignee": null})).1["assignee"], Value::Null);
    let (status, note) =
        client.ask("POST", &format!("{first}/notes"), &json!({"text": "it's <fine>"}));
    assert_eq!((status, &note["text"]), (201, &json!("it's <fine>")));
    assert_eq!(client.ask("POST", &format!("{first}/notes"), &json!({"text": ""})).0, 400);
    assert_eq!(client.get(&first)["notes"], json!([note]));

    let (status, made) = client.ask("POST", "/api/v1/silences", &json!({
        "matchers": ["user = alice", "severity<=high"], "duration_seconds": 3600, "comment": "maintenance",
    }));
    assert_eq!((status, &made["matchers"]), (201, &json!(["user=alice", "severity<=high"])));
    assert_eq!(client.get("/api/v1/silences")["silences"], json!([made]));
    for bad in [
        json!({"matchers": [], "duration_seconds": 60, "comment": "c"}),
        json!({"matchers": ["colour=red"], "duration_seconds": 60, "comment": "c"}),
        json!({"matchers": ["user=a"], "duration_seconds": 0, "comment": "c"}),
        json!({"matchers": ["user=a"], "comment": "c"}),
        json!({"matchers": ["user=a"], "duration_seconds": 60, "comment": ""}),
        json!({"matchers": ["user=a"], "ends_at": "yesterday", "comment": "c"}),
        json!({"matchers": ["user=a"], "duration_seconds": i64::MAX, "comment": "c"}),
    ] {
        assert_eq!(client.ask("POST", "/api/v1/silences", &bad).0, 400, "{bad}");
    }
    let path = format!("/api/v1/silences/{}", made["id"].as_str().unwrap());
    assert_eq!(client.ask("DELETE", &path, &Value::Null).0, 204);
    assert_eq!(client.ask("DELETE", "/api/v1/silences/x", &Value::Null).0, 404);
    assert_eq!(client.get("/api/v1/silences")["silences"], json!([]));
    assert_eq!(client.get("/api/v1/silences?expired=true")["silences"][0]["id"], made["id"]);
    assert_eq!(client.ask("POST", "/api/v1/deliveries/7/retry", &Value::Null).0, 404);
    assert_eq!(client.ask("POST", "/api/v1/deliveries/x/retry", &Value::Null).0, 404);
}

fn grouped(client: &Client) {
    let span = "from=2026-01-05T12:00:00Z&to=2026-01-06T12:00:00Z";
    let list = client.get(&format!("/api/v1/incidents?{span}"));
    let incidents = list["incidents"].as_array().unwrap();
    assert_eq!((list["truncated"].as_bool(), incidents.is_empty()), (Some(false), false));
    let total: u64 = incidents.iter().map(|one| one["alerts_total"].as_u64().unwrap()).sum();
    // All strange nights came from one address, so they are one.
    let biggest = &incidents.iter().max_by_key(|one| one["alerts_total"].as_u64()).unwrap();
    let entities = biggest["entities"].as_array().unwrap();
    for name in ["alice", "bob", "203.0.113.66"] {
        assert!(entities.iter().any(|one| one["name"] == name), "{entities:?}");
    }
    // Wherever the question begins, it is the same incident.
    let later = client.get("/api/v1/incidents?from=2026-01-06T03:01:30Z&to=2026-01-06T12:00:00Z");
    let same = later["incidents"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["incident_id"] == biggest["incident_id"]);
    assert_eq!(same, Some(*biggest), "{later}");
    assert!(total >= 5);
    for bad in [
        "gap_seconds=1",
        "limit=0",
        "from=x",
        "from=2026-01-01T00:00:00Z&to=2026-03-01T00:00:00Z",
        "y=1",
    ] {
        assert_eq!(
            client.ask("GET", &format!("/api/v1/incidents?{bad}"), &Value::Null).0,
            400,
            "{bad}"
        );
    }

    let list = client.get("/api/v1/entities/risk?at=2026-01-06T04:00:00Z");
    let risks = list["entities"].as_array().unwrap();
    let raw: Vec<f64> = risks.iter().map(|one| one["raw"].as_f64().unwrap()).collect();
    assert!(raw.is_sorted_by(|a, b| a >= b) && raw[0] > 0.0, "{raw:?}");
    let of =
        |name: &str| risks.iter().find(|one| one["name"] == name).unwrap()["raw"].as_f64().unwrap();
    // The address has the alerts of all.
    assert!(of("203.0.113.66") > of("alice").min(of("bob")));
    assert_eq!(client.get("/api/v1/entities/risk?at=2025-01-06T04:00:00Z")["entities"], json!([]));
    assert_eq!(client.ask("GET", "/api/v1/entities/risk?half_life_hours=0", &Value::Null).0, 400);
}

#[test]
fn keys_open_their_own_tenant_and_no_more_than_they_may() {
    let data = tempfile::tempdir().unwrap();
    start(data.path()).terminate();
    let key =
        |name: &str, tenant: &str, scopes: &str| create_key(data.path(), name, tenant, scopes);
    let sender = key("sender", "default", "ingest");
    let reader = key("reader", "default", "query");
    let admin = key("admin", "default", "query,admin");
    let foreign = key("foreign", "acme", "query,admin");
    let server = start(data.path());
    let client = |key: &str| Client { url: server.url.clone(), key: Some(key.to_owned()) };
    let bearer = format!("Bearer {sender}");
    send(&server, &[("authorization", &bearer)], &day("alice", 0));
    server.wait_visible();
    let alerts = client(&reader).all("", 10);
    assert!(!alerts.is_empty());
    let path = format!("/api/v1/alerts/{}", ids(&alerts)[0]);
    let patch = json!({"status": "acknowledged"});
    let silence = json!({"matchers": ["user=a"], "duration_seconds": 60, "comment": "c"});
    for (method, path, body) in [
        ("PATCH", path.as_str(), &patch),
        ("POST", &format!("{path}/notes"), &json!({"text": "x"})),
        ("POST", "/api/v1/silences", &silence),
        ("DELETE", "/api/v1/silences/x", &Value::Null),
        ("GET", "/api/v1/deliveries", &Value::Null),
        ("POST", "/api/v1/deliveries/1/retry", &Value::Null),
    ] {
        assert_eq!(client(&reader).ask(method, path, body).0, 403, "{method} {path}");
        assert_eq!(client("plsd_no_key").ask(method, path, body).0, 401, "{method} {path}");
    }
    for path in
        ["/api/v1/alerts", &path, "/api/v1/silences", "/api/v1/incidents", "/api/v1/entities/risk"]
    {
        assert_eq!(client(&sender).ask("GET", path, &Value::Null).0, 403, "{path}");
        assert_eq!(client(&reader).ask("GET", path, &Value::Null).0, 200, "{path}");
    }
    // Another tenant's admin sees and changes nothing.
    assert!(client(&foreign).all("", 10).is_empty());
    assert_eq!(client(&foreign).ask("GET", &path, &Value::Null).0, 404);
    assert_eq!(client(&foreign).ask("PATCH", &path, &patch).0, 404);
    assert_eq!(client(&admin).ask("PATCH", &path, &patch).0, 200);
    let made = client(&admin).ask("POST", "/api/v1/silences", &silence).1;
    let lift = format!("/api/v1/silences/{}", made["id"].as_str().unwrap());
    assert_eq!(client(&foreign).ask("DELETE", &lift, &Value::Null).0, 404);
    assert_eq!(client(&foreign).get("/api/v1/silences")["silences"], json!([]));
    assert_eq!(made["creator"], client(&reader).get("/api/v1/silences")["silences"][0]["creator"]);
    // Who did it is the key, not a name that was sent.
    let changed_by = &client(&reader).get(&path)["changed_by"];
    assert_eq!(changed_by, &made["creator"]);
}

/// What the catalog keeps about the past goes when it is older than configured, and stays otherwise.
#[test]
fn audits_go_when_they_are_old() {
    let directory = tempfile::tempdir().unwrap();
    let start = |retention: &str| {
        let mut command = palisade(directory.path());
        Server::start_with(command.env("PALISADE_TABLE__AUDITS_RETENTION", retention))
    };
    let pruned = |server: &Server| -> u64 {
        let (_, Value::String(metrics)) = server.get("/metrics") else { panic!("no metrics") };
        let line =
            metrics.lines().find(|line| line.starts_with("palisade_pruned_catalog_rows_total"));
        line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
    };
    let looked = |server: &Server| {
        support::until("maintenance had its turn", || {
            let (_, Value::String(metrics)) = server.get("/metrics") else { return false };
            metrics.lines().any(|line| {
                line.strip_prefix("palisade_maintenance_complete_total ").is_some_and(|n| n != "0")
            })
        });
    };
    let server = start("30d");
    for _ in 0..3 {
        assert_eq!(server.rows("SELECT 1 AS one"), [json!({"one": 1})]);
    }
    server.terminate();
    let server = start("30d");
    looked(&server);
    assert_eq!(pruned(&server), 0);
    server.terminate();
    let server = start("1ms");
    support::until("old audits are gone", || pruned(&server) >= 3);
    server.terminate();
}
