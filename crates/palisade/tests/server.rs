//! The binary from outside: real processes, real sockets, a data directory for each test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may panic"
)]

#[allow(dead_code, reason = "shared with other tests of the binary")]
mod support;

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use std::io::Write;
use support::{RECORDS, Server, create_key, events, output, palisade, rows, text, until};

#[test]
fn records_then_sql_with_refusals_and_gzip() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let (status, answer) =
        server.records(&[], &format!("{}no json\n[1]\n{}", events(0..2), events(2..3)));
    assert_eq!((status, &answer["accepted"]), (200, &json!(3)), "{answer}");
    assert_eq!(answer["rejected_total"], 2);
    let indexes: Vec<_> =
        answer["rejected"].as_array().unwrap().iter().map(|one| &one["index"]).collect();
    assert_eq!(indexes, [2, 3]);
    assert!(answer["rejected"][0]["reason"].as_str().unwrap().contains("JSON object"));

    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(events(3..10).as_bytes()).unwrap();
    let headers = [("content-type", "application/x-ndjson"), ("content-encoding", "gzip")];
    let (status, answer) = server.post(RECORDS, &headers, &gzip.finish().unwrap());
    assert_eq!((status, &answer["accepted"]), (200, &json!(7)), "{answer}");

    let (status, answer) = server.records(&[], "nothing of this\n");
    assert_eq!((status, answer["errors"][0]["index"].as_u64()), (400, Some(0)), "{answer}");

    let sql = "SELECT count(*) AS rows, count(DISTINCT event_id) AS ids, sum(n) AS sum FROM events WHERE \"user\" = 'ada'";
    assert_eq!(server.rows(sql), [json!({"rows": 10, "ids": 10, "sum": 45})]);
    let (status, body) = server.ask(None, "SELECT evnt_id FROM events");
    assert!(status == 400 && body.contains("did you mean event_id"), "{status} {body}");
}

#[test]
fn a_repeated_key_brings_the_first_answer_even_after_a_crash() {
    let data = tempfile::tempdir().unwrap();
    let key = [("idempotency-key", "once")];
    let body = format!("{}no json\n", events(0..20));
    let server = Server::start(data.path());
    let first = server.records(&key, &body);
    assert_eq!((first.0, &first.1["accepted"]), (200, &json!(20)));
    assert_eq!(server.records(&key, &body), first);
    let (status, problem) = server.records(&key, &events(0..21));
    assert_eq!((status, &problem["type"]), (422, &json!("urn:palisade:problem:key-conflict")));
    let without_key = server.records(&[], &events(20..30));
    assert_eq!(without_key.0, 200);
    server.kill();

    let server = Server::start(data.path());
    assert_eq!(server.records(&key, &body), first);
    assert_eq!(server.records(&key, &events(0..21)).0, 422);
    let sql = "SELECT count(*) AS rows, count(DISTINCT event_id) AS ids FROM events";
    assert_eq!(server.rows(sql), [json!({"rows": 30, "ids": 30})]);
    server.terminate();

    // The ledger is in the checkpoint now, and the log may be trimmed.
    let server = Server::start(data.path());
    assert_eq!(server.records(&key, &body), first);
    assert_eq!(server.rows(sql), [json!({"rows": 30, "ids": 30})]);
}

#[test]
fn bulk_answers_natively_for_each_item() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let body = "{\"index\":{\"_index\":\"logs\",\"_id\":\"i1\"}}\n{\"message\":\"hello\"}\n\
                {\"create\":{\"_index\":\"logs\"}}\n{broken\n\
                {\"create\":{\"_index\":\"logs\"}}\n{\"message\":\"again\"}\n";
    let headers = [("content-type", "application/x-ndjson")];
    let (status, answer) = server.post("/_bulk", &headers, body.as_bytes());
    assert_eq!((status, &answer["errors"]), (200, &json!(true)), "{answer}");
    let items = answer["items"].as_array().unwrap();
    assert_eq!(items.len(), 3);
    assert_eq!(
        (&items[0]["index"]["_id"], &items[0]["index"]["status"]),
        (&json!("i1"), &json!(201))
    );
    assert_eq!(items[0]["index"]["result"], "created");
    assert_eq!(items[1]["create"]["status"], 400);
    assert_eq!(items[1]["create"]["error"]["type"], "document_parsing_exception");
    assert_eq!(items[2]["create"]["status"], 201);
    let found = server.rows("SELECT message FROM events ORDER BY message");
    assert_eq!(found, [json!({"message": "again"}), json!({"message": "hello"})]);
}

#[test]
fn a_bad_configuration_exits_with_78() {
    let data = tempfile::tempdir().unwrap();
    let open = output(palisade(data.path()).arg("run").env("PALISADE_HTTP__LISTEN", "0.0.0.0:0"));
    assert_eq!(open.status.code(), Some(78), "{open:?}");
    assert!(text(&open.stderr).contains("http.tls"), "{open:?}");

    let file = data.path().join("palisade.yaml");
    std::fs::write(&file, "data: x\nhttp:\n  lissten: 127.0.0.1:1\n").unwrap();
    let bad = output(palisade(data.path()).arg("validate").arg(&file));
    assert_eq!(bad.status.code(), Some(78), "{bad:?}");
    let message = text(&bad.stderr);
    assert!(message.contains("line 3") || message.contains(":3:"), "{message}");
    assert!(message.contains("did you mean 'listen'"), "{message}");

    std::fs::write(&file, "http:\n  listen: 127.0.0.1:1\n").unwrap();
    let good = output(palisade(data.path()).arg("validate").arg(&file));
    assert!(good.status.success(), "{good:?}");
}

#[test]
fn keys_close_the_open_tenant_and_part_tenants() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    assert_eq!(server.records(&[], &events(0..5)).0, 200);
    let both = create_key(data.path(), "both", "default", "ingest,query");
    until("the open tenant is closed", || server.records(&[], &events(5..6)).0 == 401);
    assert_eq!(server.ask(None, "SELECT 1 AS one").0, 401);

    let query = create_key(data.path(), "query", "default", "query");
    let other = create_key(data.path(), "other", "acme", "ingest,query");
    let with = |key: &str, body: &str| {
        server.records(&[("authorization", &format!("Bearer {key}"))], body).0
    };
    assert_eq!(with(&both, &events(100..105)), 200);
    assert_eq!(with(&query, &events(6..7)), 403);
    assert_eq!(with("psd_nothing_of_this", &events(6..7)), 401);
    assert_eq!(with(&other, "{\"event_id\":\"theirs\"}\n"), 200);

    let sql = "SELECT event_id FROM events WHERE event_id IN ('e0', 'e100', 'theirs') ORDER BY 1";
    let (status, body) = server.ask(Some(&query), sql);
    assert_eq!(status, 200, "{body}");
    assert_eq!(rows(body.as_bytes()), [json!({"event_id": "e0"}), json!({"event_id": "e100"})]);
    let (status, body) = server.ask(Some(&other), sql);
    assert_eq!(status, 200, "{body}");
    assert_eq!(rows(body.as_bytes()), [json!({"event_id": "theirs"})]);

    // Revoked by another process: refused within about a second, and so are those that nobody made.
    let id = both.split('_').nth(1).unwrap();
    let revoked = output(palisade(data.path()).args(["key", "revoke", id]));
    assert!(revoked.status.success(), "{revoked:?}");
    let begun = std::time::Instant::now();
    until("the revoked key is refused", || with(&both, &events(200..201)) == 401);
    assert!(begun.elapsed() < std::time::Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(with(&other, "{\"event_id\":\"more of theirs\"}\n"), 200);
}

#[test]
fn termination_commits_everything_and_the_stopped_data_can_be_asked() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    assert_eq!(server.records(&[], &events(0..500)).0, 200);
    server.terminate();

    let list = output(palisade(data.path()).args(["table", "list"]));
    let of_events: u64 = text(&list.stdout)
        .lines()
        .filter(|line| line.starts_with("events "))
        .map(|line| line.split_whitespace().nth(2).unwrap().parse::<u64>().unwrap())
        .sum();
    assert_eq!(of_events, 500, "{list:?}");
    let sql = "SELECT count(*) AS rows, max(n) AS last FROM events";
    let asked = output(palisade(data.path()).args(["query", sql]));
    assert!(asked.status.success(), "{asked:?}");
    assert_eq!(rows(&asked.stdout), [json!({"rows": 500, "last": 499})]);
    let verified = output(palisade(data.path()).args(["table", "verify"]));
    assert!(verified.status.success(), "{verified:?}");
}

#[test]
fn score_prints_json_lines() {
    let data = tempfile::tempdir().unwrap();
    let lines = data.path().join("lines");
    std::fs::write(&lines, "GET /?id=1' OR '1'='1' -- HTTP/1.1\nall is well\n").unwrap();
    let scored = output(palisade(data.path()).arg("score").arg(&lines));
    assert!(scored.status.success(), "{scored:?}");
    let scored = rows(&scored.stdout);
    assert_eq!(scored.len(), 2);
    assert_eq!(scored[0]["class"], "sqli", "{scored:?}");
    assert!(scored[0]["score"].as_f64() > scored[1]["score"].as_f64(), "{scored:?}");
    assert_eq!(scored[1]["class"], Value::Null, "{scored:?}");
}

/// The short form of the long run: SIGKILL under load loses nothing and doubles nothing.
#[test]
fn crashes_lose_nothing_and_double_nothing() {
    let data = tempfile::tempdir().unwrap();
    let run = output(
        palisade(data.path()).args(["bench", "crash", "--rounds", "3", "--lanes", "2", "--json"]),
    );
    let report: Value = serde_json::from_slice(&run.stdout).unwrap_or_else(|_| panic!("{run:?}"));
    for key in ["lost", "doubled", "unknown", "scores_differ", "alerts_differ", "answers_differ"] {
        assert_eq!(report[key], 0, "{key}: {report} {}", text(&run.stderr));
    }
    assert_eq!(report["rounds"], 3);
    assert!(report["acked"].as_u64() > Some(0), "{report}");
    assert!(run.status.success(), "{run:?}");
}
