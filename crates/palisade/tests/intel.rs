//! Indicators on a real server: rows that were stored before a list, rows that come after it, lists that change, over
//! kills and restarts, who may do what, and the commands.
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
use support::{Server, create_key, output, palisade, rows, text, until};

const SHA: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn start(data: &Path, config: Option<&Path>) -> Server {
    let mut command = palisade(data);
    command.env("PALISADE_PIPELINE__COMMIT_AGE", "200ms");
    if let Some(config) = config {
        command.env("PALISADE_CONFIG", config);
    }
    Server::start_with(&mut command)
}

fn ask(server: &Server, method: &str, path: &str, key: Option<&str>, body: &str) -> (u16, Value) {
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let url = format!("{}{path}", server.url);
    // Requests with and without a body are of two types.
    macro_rules! with_key {
        ($request:expr) => {
            match key {
                Some(key) => $request.header("authorization", format!("Bearer {key}")),
                None => $request,
            }
        };
    }
    let answer = match method {
        "GET" => with_key!(agent.get(url)).call(),
        "DELETE" => with_key!(agent.delete(url)).call(),
        "PUT" => with_key!(agent.put(url)).header("content-type", "text/plain").send(body),
        _ => with_key!(agent.post(url)).header("content-type", "text/plain").send(body),
    };
    let mut answer = answer.unwrap();
    let text = answer.body_mut().read_to_string().unwrap();
    (answer.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// An ordinary event, and what it names besides.
fn event(id: &str, more: &Value) -> String {
    let mut event = json!({
        "event_id": id, "type": "connection", "src_ip": "10.0.0.5", "dst_ip": "10.0.0.6",
        "timestamp": "2026-01-05T09:00:00Z",
    });
    for (name, value) in more.as_object().unwrap() {
        event[name] = value.clone();
    }
    event.to_string() + "\n"
}

/// Rule, severity and record of the alerts.
fn alerts(server: &Server) -> Vec<(String, String, String)> {
    let found = server.rows(
        "SELECT rule_id, severity, event_id FROM alerts WHERE detector = 'indicator' ORDER BY event_id, rule_id",
    );
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    found
        .iter()
        .map(|row| (text(row, "rule_id"), text(row, "severity"), text(row, "event_id")))
        .collect()
}

fn of(rows: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
    rows.iter().map(|(a, b, c)| ((*a).into(), (*b).into(), (*c).into())).collect()
}

#[test]
fn a_list_finds_old_rows_and_then_stays_live() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let server = start(&data, None);
    let mut old: String = (0..500).map(|n| event(&format!("o{n}"), &json!({"n": n}))).collect();
    old += &event("h1", &json!({"dst_ip": "203.0.113.9:443"}));
    old += &event("h2", &json!({"dns.question.name": "WWW.Evil.example."}));
    old += &event(
        "h3",
        &json!({"file.hash.sha256": SHA.to_uppercase(), "timestamp": "2026-01-06T09:00:00Z"}),
    );
    assert_eq!(server.records(&[], &old).0, 200);
    // Some in segments, some in memory.
    until("the rows are committed", || {
        !server.rows("SELECT rows FROM system.segments WHERE \"table\" = 'events'").is_empty()
    });
    assert_eq!(server.records(&[], &event("h4", &json!({"src_ip": "198.51.100.77"}))).0, 200);
    server.wait_visible();

    let list = format!(
        "# from a feed\n203.0.113.9,high,feed,seen\n198.51.100.0/24\nevil.example,critical\n{SHA}\n192.0.2.200\nnonsense\n"
    );
    let (status, found) = ask(&server, "POST", "/api/v1/indicators/match", None, &list);
    assert_eq!(status, 200, "{found}");
    assert_eq!((&found["complete"], &found["indicators"]), (&json!(true), &json!(5)));
    assert_eq!(found["refused"][0]["line"], 7, "{found}");
    let seen: Vec<(&str, &str, u64)> = found["found"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            let text = |name: &str| one[name].as_str().unwrap();
            (text("kind"), text("indicator"), one["count"].as_u64().unwrap())
        })
        .collect();
    let expected = [
        ("address", "203.0.113.9", 1),
        ("network", "198.51.100.0/24", 1),
        ("domain", "evil.example", 1),
        ("sha256", SHA, 1),
    ];
    assert_eq!(seen, expected, "{found}");
    let first = &found["found"][0];
    assert_eq!(
        (&first["level"], &first["source"], &first["note"]),
        (&json!("high"), &json!("feed"), &json!("seen"))
    );
    let row = &first["rows"][0];
    assert_eq!((&row["column"], &row["value"]), (&json!("dst_ip"), &json!("203.0.113.9:443")));
    assert_eq!(row["time"], "2026-01-05T09:00:00.000Z");
    let by_id = format!("SELECT event_id FROM events WHERE id = '{}'", row["id"].as_str().unwrap());
    assert_eq!(server.rows(&by_id), [json!({"event_id": "h1"})]);
    // Only what could hold one was read.
    assert!(
        found["rows"].as_u64().unwrap() >= 504 && found["rows_read"].as_u64().unwrap() < 100,
        "{found}"
    );
    let later = "/api/v1/indicators/match?from=2026-01-06T00:00:00Z&to=2026-01-07T00:00:00Z&rows=0";
    let (_, some) = ask(&server, "POST", later, None, &list);
    assert_eq!(some["found"].as_array().unwrap().len(), 1, "{some}");
    assert_eq!(some["found"][0]["rows"], json!([]));
    for (path, body) in [
        ("/api/v1/indicators/match?from=never", list.as_str()),
        ("/api/v1/indicators/match?rows=9999", &list),
        ("/api/v1/indicators/match", "nothing\n"),
        ("/api/v1/indicators/match?level=grave", &list),
    ] {
        assert_eq!(ask(&server, "POST", path, None, body).0, 400, "{path}");
    }

    // The list stays: what comes from now on makes alerts, what was there does not.
    assert_eq!(ask(&server, "GET", "/api/v1/indicators", None, "").1, json!({"lists": []}));
    let (status, put) = ask(&server, "PUT", "/api/v1/indicators/c2?level=low", None, &list);
    assert_eq!(status, 200, "{put}");
    assert_eq!(put["indicators"], json!({"address": 2, "network": 1, "domain": 1, "sha256": 1}));
    assert_eq!((&put["refused_total"], &put["shared"]), (&json!(1), &json!(false)));
    let both = json!({"src_ip": "198.51.100.1", "dst_ip": "203.0.113.9", "url": "http://a.evil.example/x"});
    assert_eq!(server.records(&[], &event("n1", &both)).0, 200);
    let expected = [
        ("own/c2/address", "high", "n1"),
        ("own/c2/domain", "critical", "n1"),
        ("own/c2/network", "low", "n1"),
    ];
    assert_eq!(alerts(&server), of(&expected));
    let whole = server.rows("SELECT title, fields, reasons, score, evidence FROM alerts WHERE rule_id = 'own/c2/address'");
    assert_eq!(whole[0]["title"], "address on the list 'c2'");
    assert_eq!(whole[0]["fields"], json!(["dst_ip=203.0.113.9"]));
    let reason = whole[0]["reasons"][0].as_str().unwrap();
    assert_eq!(
        reason,
        "dst_ip is 203.0.113.9, and the list 'c2' has the address 203.0.113.9 from feed: seen"
    );

    // A kill changes nothing: the list is in force, and what it found is there once.
    server.kill();
    let server = start(&data, None);
    server.wait_visible();
    assert_eq!(alerts(&server), of(&expected));
    assert_eq!(server.records(&[], &event("n2", &json!({"dst_ip": "203.0.113.9"}))).0, 200);
    assert_eq!(alerts(&server).len(), 4);
    let (_, lists) = ask(&server, "GET", "/api/v1/indicators", None, "");
    assert_eq!(lists["lists"][0]["hash"], put["hash"]);
    assert_eq!(ask(&server, "GET", "/api/v1/indicators/c2", None, "").1, lists["lists"][0]);

    // Another content in its place, and none.
    let (status, put) = ask(&server, "PUT", "/api/v1/indicators/c2", None, "192.0.2.1\n");
    assert_eq!((status, &put["indicators"]), (200, &json!({"address": 1})));
    let gone = event("n3", &json!({"dst_ip": "203.0.113.9"}))
        + &event("n4", &json!({"dst_ip": "192.0.2.1"}));
    assert_eq!(server.records(&[], &gone).0, 200);
    let last = alerts(&server);
    assert_eq!(last.len(), 5, "{last:?}");
    assert!(last.contains(&("own/c2/address".into(), "medium".into(), "n4".into())), "{last:?}");
    assert_eq!(ask(&server, "PUT", "/api/v1/indicators/c2", None, "nonsense\n").0, 400);
    for bad in ["match", "a%20b", &"x".repeat(65), "..."] {
        let status =
            ask(&server, "PUT", &format!("/api/v1/indicators/{bad}"), None, "192.0.2.1\n").0;
        assert!([400, 405].contains(&status), "{bad}: {status}");
    }
    assert_eq!(ask(&server, "DELETE", "/api/v1/indicators/c2", None, "").0, 204);
    assert_eq!(ask(&server, "DELETE", "/api/v1/indicators/c2", None, "").0, 404);
    assert_eq!(server.records(&[], &event("n5", &json!({"dst_ip": "192.0.2.1"}))).0, 200);
    assert_eq!(alerts(&server).len(), 5);
    server.terminate();

    // Without a server the command opens the data directory itself.
    let file = directory.path().join("list.txt");
    std::fs::write(&file, &list).unwrap();
    let found = output(palisade(&data).args(["intel", "match", "--json"]).arg(&file));
    let answer = rows(&found.stdout);
    assert_eq!(answer[0]["found"].as_array().unwrap().len(), 4, "{found:?}");
    assert_eq!(answer[0]["found"][0]["count"], 4, "h1, n1, n2, n3: {answer:?}");
    let found = output(palisade(&data).args(["intel", "match", "--tenant", "other"]).arg(&file));
    assert!(text(&found.stdout).starts_with("0 of 5 indicators found; 0 rows"), "{found:?}");
    let checked = output(palisade(&data).args(["intel", "check"]).arg(&file));
    assert_eq!(checked.status.code(), Some(1), "{checked:?}");
    assert!(text(&checked.stdout).contains("list.txt:7: 'nonsense' is no address"), "{checked:?}");
}

#[test]
fn files_of_the_configuration_are_read_again_when_they_change() {
    let directory = tempfile::tempdir().unwrap();
    let (data, file) = (directory.path().join("data"), directory.path().join("c2.csv"));
    let config = directory.path().join("palisade.yaml");
    std::fs::write(&file, "value,severity\n203.0.113.9,critical\n").unwrap();
    let settings =
        json!({"detect": {"indicators": [{"name": "feed", "file": file, "level": "high"}]}});
    std::fs::write(&config, settings.to_string()).unwrap();
    let server = start(&data, Some(&config));
    assert_eq!(server.records(&[], &event("a1", &json!({"dst_ip": "203.0.113.9"}))).0, 200);
    assert_eq!(alerts(&server), of(&[("feed/address", "critical", "a1")]));
    // A tenant's list beside it may have the same name.
    assert_eq!(ask(&server, "PUT", "/api/v1/indicators/feed", None, "203.0.113.9\n").0, 200);

    std::fs::write(&file, "evil.example\nwrong\n").unwrap();
    let mut id = 0;
    until("the changed file is in force", || {
        id += 1;
        let named = event(&format!("b{id}"), &json!({"host": "evil.example"}));
        assert_eq!(server.records(&[], &named).0, 200);
        alerts(&server).iter().any(|(rule, ..)| rule == "feed/domain")
    });
    assert!(
        server.log().contains("lines of a list of indicators are not taken"),
        "{}",
        server.log()
    );
    let (_, lists) = ask(&server, "GET", "/api/v1/indicators", None, "");
    let shared: Vec<_> =
        lists["lists"].as_array().unwrap().iter().map(|list| &list["shared"]).collect();
    assert_eq!(shared, [true, false], "{lists}");
    server.terminate();

    // Out of the configuration, out of force; the tenant's own stays.
    std::fs::write(&config, "{}").unwrap();
    let server = start(&data, Some(&config));
    let rows = event("c1", &json!({"host": "evil.example"}))
        + &event("c2", &json!({"src_ip": "203.0.113.9"}));
    assert_eq!(server.records(&[], &rows).0, 200);
    let last: Vec<_> = alerts(&server).into_iter().filter(|(.., id)| id.starts_with('c')).collect();
    assert_eq!(last, of(&[("own/feed/address", "medium", "c2")]));
    server.terminate();
}

#[test]
fn lists_are_the_tenants_and_change_needs_admin() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    start(&data, None).terminate();
    let acme = create_key(&data, "a", "acme", "ingest,query,admin");
    let reader = create_key(&data, "r", "acme", "query");
    let sender = create_key(&data, "s", "acme", "ingest");
    let other = create_key(&data, "o", "other", "ingest,query,admin");
    let server = start(&data, None);
    let list = "203.0.113.9\n";
    assert_eq!(ask(&server, "PUT", "/api/v1/indicators/c2", Some(&acme), list).0, 200);
    for (method, path, key, expected) in [
        ("PUT", "/api/v1/indicators/c2", None, 401),
        ("PUT", "/api/v1/indicators/c2", Some(&reader), 403),
        ("DELETE", "/api/v1/indicators/c2", Some(&reader), 403),
        ("GET", "/api/v1/indicators", Some(&sender), 403),
        ("POST", "/api/v1/indicators/match", Some(&sender), 403),
        ("GET", "/api/v1/indicators/c2", Some(&reader), 200),
        ("POST", "/api/v1/indicators/match", Some(&reader), 200),
        ("GET", "/api/v1/indicators/c2", Some(&other), 404),
        ("DELETE", "/api/v1/indicators/c2", Some(&other), 404),
    ] {
        let key = key.map(String::as_str);
        assert_eq!(ask(&server, method, path, key, list).0, expected, "{method} {path}");
    }
    for key in [&acme, &other] {
        let headers = [("authorization", format!("Bearer {key}"))];
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let body = event("e1", &json!({"dst_ip": "203.0.113.9"}));
        assert_eq!(server.records(&headers, &body).0, 200);
    }
    let count = |key: &str| {
        let (status, body) =
            server.ask(Some(key), "SELECT count(*) AS n FROM alerts WHERE detector = 'indicator'");
        assert_eq!(status, 200, "{body}");
        rows(body.as_bytes())[0]["n"].clone()
    };
    assert_eq!((count(&acme), count(&other)), (json!(1), json!(0)));
    for key in [&acme, &other] {
        let (_, found) = ask(&server, "POST", "/api/v1/indicators/match", Some(key), list);
        assert_eq!(found["found"][0]["count"], 1, "a tenant's own row only: {found}");
    }
    server.terminate();
}
