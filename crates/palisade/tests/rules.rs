//! Sigma rules and correlations on a real server: alerts while records stream, the same after SIGKILL, rules that
//! change, and the commands on files.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests may panic; what streams has the time of the wall"
)]

#[allow(dead_code, reason = "shared with other tests of the binary")]
mod support;

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use support::{Server, output, palisade, rows, text, until};

const FAILED: &str = "title: Failed login\nid: failed\nname: failed_login\nlogsource:\n  category: authentication\ndetection:\n  selection:\n    type: login_failed\n  condition: selection\nlevel: low\n";
const MANY: &str = "title: Many failed logins\nid: many\nauthor: Ada\ntags:\n  - attack.t1110\ncorrelation:\n  type: event_count\n  rules:\n    - failed_login\n  group-by:\n    - src_ip\n  timespan: 1m\n  condition:\n    gte: 5\nlevel: high\n";
const ADMIN: &str = "title: New administrator\nid: admin\nlogsource:\n  category: authentication\ndetection:\n  selection:\n    type: privilege_change\n    user|startswith: ada\n  condition: selection\nlevel: critical\n";

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

fn start(data: &Path, rules: &Path) -> Server {
    let config = data.join("palisade.yaml");
    std::fs::write(&config, format!("detect:\n  rules: [{}]\n", rules.display())).unwrap();
    Server::start_with(palisade(data).env("PALISADE_CONFIG", &config))
}

fn failed(ids: std::ops::Range<u32>, address: &str) -> String {
    let at = now();
    let event = |id| {
        json!({"event_id": format!("f{id}"), "user": "bob", "type": "login_failed",
               "src_ip": address, "timestamp": at})
    };
    ids.map(|id| event(id).to_string() + "\n").collect()
}

fn alerts(server: &Server, detector: &str) -> Vec<Value> {
    server.rows(&format!(
        "SELECT alert_id, revision, rule_id, severity, title, src_ip, group_key, author, tags, fields, evidence
         FROM alerts WHERE detector = '{detector}' ORDER BY alert_id, revision"
    ))
}

#[test]
fn rules_and_correlations_alert_once_whatever_happens() {
    let directory = tempfile::tempdir().unwrap();
    let (data, rules) = (directory.path().join("data"), directory.path().join("rules"));
    std::fs::create_dir_all(&rules).unwrap();
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(rules.join("logins.yml"), format!("{FAILED}---\n{MANY}")).unwrap();
    std::fs::write(rules.join("admin.yml"), ADMIN).unwrap();
    let server = start(&data, &rules);

    let change = json!({"event_id": "p1", "user": "Ada Lovelace", "type": "privilege_change"});
    assert_eq!(server.records(&[], &change.to_string()).0, 200);
    assert_eq!(server.records(&[], &failed(0..4, "203.0.113.7")).0, 200);
    assert_eq!(server.records(&[], &failed(100..104, "203.0.113.8")).0, 200);
    let found = alerts(&server, "sigma");
    assert_eq!(found.len(), 1, "single failures are only counted: {found:?}");
    assert_eq!(
        (&found[0]["rule_id"], &found[0]["severity"]),
        (&json!("admin"), &json!("critical"))
    );
    let fields = json!(["type=privilege_change", "user=Ada Lovelace"]);
    assert_eq!(found[0]["fields"], fields);

    // The count goes on where it was after a crash.
    server.kill();
    let server = start(&data, &rules);
    assert_eq!(server.records(&[], &failed(4..6, "203.0.113.7")).0, 200);
    until("the correlation has alerted", || !alerts(&server, "correlation").is_empty());
    let found = alerts(&server, "correlation");
    let first = found[0].clone();
    assert_eq!((&first["rule_id"], &first["severity"]), (&json!("many"), &json!("high")));
    assert_eq!((&first["src_ip"], &first["author"]), (&json!("203.0.113.7"), &json!("Ada")));
    assert_eq!(
        (&first["group_key"], &first["tags"]),
        (&json!("src_ip=203.0.113.7"), &json!(["attack.t1110"]))
    );
    assert!(first["evidence"].as_array().unwrap().len() >= 5, "{first}");

    // The same records again, and one more: the same alert, however often it is revised.
    server.kill();
    let server = start(&data, &rules);
    assert_eq!(server.records(&[], &failed(6..7, "203.0.113.7")).0, 200);
    server.wait_visible();
    let again = alerts(&server, "correlation");
    assert!(again.iter().all(|alert| alert["alert_id"] == first["alert_id"]), "{again:?}");
    let mut revisions: Vec<i64> =
        again.iter().map(|one| one["revision"].as_i64().unwrap()).collect();
    revisions.dedup();
    assert_eq!(revisions.len(), again.len(), "no revision twice: {again:?}");
    assert_eq!(alerts(&server, "sigma").len(), 1);

    // Each revision names what changed; asked for the alert, the interface puts them together.
    let whole = format!("/api/v1/alerts/{}", first["alert_id"].as_str().unwrap());
    until("all seven failures are its evidence", || {
        let (status, alert) = server.get(&whole);
        assert_eq!(status, 200, "{alert}");
        alert["all_evidence"].as_array().unwrap().len() == 7
    });
    let records =
        server.rows("SELECT id FROM events WHERE src_ip = '203.0.113.7' ORDER BY time, id");
    let records: Vec<&Value> = records.iter().map(|row| &row["id"]).collect();
    let (_, alert) = server.get(&whole);
    assert_eq!(alert["all_evidence"].as_array().unwrap().iter().collect::<Vec<_>>(), records);
    assert_eq!(alert["more_evidence"], false);

    // A rule that is new is in force soon, and a wrong one is left out by name.
    let other =
        ADMIN.replace("id: admin", "id: other").replace("privilege_change", "password_shown");
    std::fs::write(rules.join("other.yml"), other).unwrap();
    std::fs::write(
        rules.join("wrong.yml"),
        "title: x\nlogsource: {}\ndetection:\n  a:\n    b|nonsense: 1\n  condition: a\n",
    )
    .unwrap();
    let mut id = 0;
    until("the new rule is in force", || {
        id += 1;
        let read = json!({"event_id": format!("s{id}"), "user": "ada", "type": "password_shown"});
        assert_eq!(server.records(&[], &read.to_string()).0, 200);
        alerts(&server, "sigma").iter().any(|alert| alert["rule_id"] == "other")
    });
    assert!(server.log().contains("nonsense"), "{}", server.log());
    // The correlation is unchanged, so its alert is the same.
    let last = alerts(&server, "correlation");
    assert!(last.iter().all(|alert| alert["alert_id"] == first["alert_id"]), "{last:?}");
    server.terminate();
}

/// Whether a checkpoint was begun whose correlations are being written or written, and which is not complete.
fn has_half_checkpoint(data: &Path) -> bool {
    let Ok(all) = std::fs::read_dir(data.join("checkpoints")) else { return false };
    all.filter_map(Result::ok).any(|one| {
        let path = one.path();
        path.join("correlations").exists() && !path.join("checkpoint.json").exists()
    })
}

/// M2, L3: a process that dies while it writes a checkpoint goes on from the one before, and counts what it counted.
#[test]
fn a_kill_while_a_checkpoint_of_correlations_is_half_written_loses_no_count() {
    let directory = tempfile::tempdir().unwrap();
    let (data, rules) = (directory.path().join("data"), directory.path().join("rules"));
    std::fs::create_dir_all(&rules).unwrap();
    std::fs::create_dir_all(&data).unwrap();
    // Long enough that nothing is over before the test is.
    let many = MANY.replace("timespan: 1m", "timespan: 1h");
    std::fs::write(rules.join("logins.yml"), format!("{FAILED}---\n{many}")).unwrap();
    let start = || {
        let config = data.join("palisade.yaml");
        let settings = json!({
            "detect": {"rules": [rules]},
            "pipeline": {"checkpoint_every": "20ms", "commit_age": "20ms"},
        });
        std::fs::write(&config, settings.to_string()).unwrap();
        Server::start_with(palisade(&data).env("PALISADE_CONFIG", &config))
    };
    // Four failures of each of many addresses, none of which is an alert yet.
    let addresses: Vec<String> =
        (0..500).map(|n| format!("203.0.{}.{}", n / 250, n % 250)).collect();
    let mut server = start();
    let (mut sent, mut killed) = (0, 0);
    for round in 0..4u32 {
        for (n, chunk) in addresses.chunks(50).enumerate() {
            let first = round * 1_000_000 + n as u32 * 1_000;
            let events: String = chunk
                .iter()
                .zip(first..)
                .map(|(address, id)| failed(id..id + 1, address))
                .collect();
            assert_eq!(server.records(&[], &events).0, 200);
            sent += chunk.len();
            // Mostly a checkpoint is complete before the signal comes; then there will be another.
            let until = std::time::Instant::now() + std::time::Duration::from_millis(150);
            while std::time::Instant::now() < until && !has_half_checkpoint(&data) {
                std::thread::park_timeout(std::time::Duration::from_micros(200));
            }
            if has_half_checkpoint(&data) {
                server.kill();
                killed += usize::from(has_half_checkpoint(&data));
                server = start();
            }
        }
    }
    assert!(killed > 0, "no kill met a checkpoint half written");
    server.wait_visible();
    assert_eq!(alerts(&server, "correlation"), Vec::<Value>::new(), "four are not five");
    let events: String = addresses
        .iter()
        .zip(9_000_000..)
        .map(|(address, id)| failed(id..id + 1, address))
        .collect();
    assert_eq!(server.records(&[], &events).0, 200);
    sent += addresses.len();
    let opened = || {
        let all = alerts(&server, "correlation");
        let mut ids: Vec<String> =
            all.iter().map(|alert| alert["src_ip"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        ids.dedup();
        ids.len()
    };
    until("every address has its alert", || opened() == addresses.len());
    let all = server.rows(
        "SELECT count(DISTINCT alert_id) AS alerts, min(array_length(evidence)) AS least,
         max(array_length(evidence)) AS most FROM alerts WHERE detector = 'correlation' AND revision = 0",
    );
    let of = |name: &str| all[0][name].as_u64().unwrap();
    assert_eq!((of("alerts"), of("least"), of("most")), (500, 5, 5), "{all:?}");
    assert_eq!(server.rows("SELECT count(*) AS n FROM events"), [json!({"n": sent})]);
    server.terminate();
}

/// Answers every request with 200 and gives their heads and bodies.
fn receiver() -> (u16, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (port, receiver_on(listener, &Arc::default()).0)
}

/// The same on a socket, until it is told to stop and gets a connection.
fn receiver_on(
    listener: TcpListener,
    stop: &Arc<AtomicBool>,
) -> (std::sync::mpsc::Receiver<String>, std::thread::JoinHandle<()>) {
    let (sender, requests) = std::sync::mpsc::channel();
    let stop = Arc::clone(stop);
    let thread = std::thread::spawn(move || {
        for stream in listener.incoming() {
            if stop.load(Ordering::Acquire) {
                return;
            }
            let mut stream = BufReader::new(stream.unwrap());
            let (mut head, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                if stream.read_line(&mut line).unwrap_or(0) <= 2 {
                    break;
                }
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                head.push_str(&line);
            }
            let mut body = vec![0; length];
            if stream.read_exact(&mut body).is_err() {
                continue;
            }
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            let _ = stream.get_mut().write_all(answer);
            let _ = sender.send(head + &text(&body));
        }
    });
    (requests, thread)
}

/// At-least-once (M5): what a receiver misses while it is away it gets when it is back, over a restart too.
#[test]
fn a_receiver_that_goes_away_and_comes_back_misses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    std::fs::create_dir_all(&data).unwrap();
    let rule = directory.path().join("admin.yml");
    std::fs::write(&rule, ADMIN).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let config = data.join("palisade.yaml");
    let settings = json!({
        "detect": {"rules": [rule]},
        "alerts": {
            "receivers": [{"name": "soc", "kind": "webhook", "url": format!("http://{address}/hook"),
                           "secret_env": "SOC_SECRET"}],
            "routes": [{"receivers": ["soc"], "window_seconds": 1, "group_by": ["user"]}],
            "egress": {"allow": ["127.0.0.0/8"], "allow_plaintext": true},
        },
    });
    std::fs::write(&config, settings.to_string()).unwrap();
    let start = || {
        let mut command = palisade(&data);
        command.env("PALISADE_CONFIG", &config);
        command.env("SOC_SECRET", "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz");
        Server::start_with(&mut command)
    };
    let change = |server: &Server, n: u32| {
        let event = json!({"event_id": format!("p{n}"), "user": format!("ada{n}"), "type": "privilege_change"});
        assert_eq!(server.records(&[], &event.to_string()).0, 200);
    };
    let stop = Arc::new(AtomicBool::new(false));
    let (requests, thread) = receiver_on(listener, &stop);
    let server = start();
    change(&server, 1);
    assert!(requests.recv_timeout(support::LONGEST).unwrap().contains("ada1"));

    // Away: the next two wait, one of them over a kill.
    stop.store(true, Ordering::Release);
    drop(std::net::TcpStream::connect(address).unwrap());
    thread.join().unwrap();
    change(&server, 2);
    until("an attempt has failed", || {
        let (_, deliveries) = server.get("/api/v1/deliveries?state=pending");
        let all = deliveries["deliveries"].as_array().unwrap();
        all.iter().any(|one| one["attempts"].as_u64() > Some(0))
    });
    server.kill();
    let server = start();
    change(&server, 3);

    let stop = Arc::new(AtomicBool::new(false));
    let (requests, _) = receiver_on(TcpListener::bind(address).unwrap(), &stop);
    let mut got = Vec::new();
    while got.len() < 2 {
        let request = requests.recv_timeout(support::LONGEST).unwrap();
        for user in ["ada2", "ada3"] {
            if request.contains(user) && !got.contains(&user) {
                got.push(user);
            }
        }
        assert!(!request.contains("ada1"), "what was delivered is not sent again: {request}");
    }
    until("nothing waits any more", || {
        let (_, deliveries) = server.get("/api/v1/deliveries?state=pending");
        deliveries["deliveries"] == json!([])
    });
    server.terminate();
}

#[test]
fn an_alert_reaches_its_receiver_signed() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    std::fs::create_dir_all(&data).unwrap();
    let rule = directory.path().join("admin.yml");
    std::fs::write(&rule, ADMIN).unwrap();
    let (port, requests) = receiver();
    let config = data.join("palisade.yaml");
    let settings = json!({
        "detect": {"rules": [rule]},
        "alerts": {
            "receivers": [{"name": "soc", "kind": "webhook", "url": format!("http://127.0.0.1:{port}/hook"),
                           "secret_env": "SOC_SECRET"}],
            "routes": [{"match": ["severity>=high"], "receivers": ["soc"]}],
            "egress": {"allow": ["127.0.0.0/8"], "allow_plaintext": true},
        },
    });
    std::fs::write(&config, settings.to_string()).unwrap();
    let mut command = palisade(&data);
    command.env("PALISADE_CONFIG", &config);
    command.env("SOC_SECRET", "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz");
    let server = Server::start_with(&mut command);
    let change = json!({"event_id": "p1", "user": "ada", "type": "privilege_change"});
    assert_eq!(server.records(&[], &change.to_string()).0, 200);
    let request = requests.recv_timeout(support::LONGEST).unwrap();
    let lower = request.to_ascii_lowercase();
    assert!(request.starts_with("POST /hook"), "{request}");
    assert!(
        lower.contains("webhook-signature: v1,") && lower.contains("webhook-id: "),
        "{request}"
    );
    assert!(request.contains("New administrator") && request.contains("alert.opened"), "{request}");
    let id = alerts(&server, "sigma")[0]["alert_id"].as_str().unwrap().to_owned();
    assert!(request.contains(&id), "{request}");
    server.terminate();
    // A restart tells nobody again.
    let server = Server::start_with(&mut {
        let mut command = palisade(&data);
        command.env("PALISADE_CONFIG", &config);
        command.env("SOC_SECRET", "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz");
        command
    });
    server.wait_visible();
    let again = requests.recv_timeout(std::time::Duration::from_secs(1));
    assert!(again.is_err(), "{again:?}");
    server.terminate();
}

#[test]
fn the_shipped_rules_load_and_pass_their_tests() {
    let directory = tempfile::tempdir().unwrap();
    let shipped = Path::new("../../rules");
    let linted = output(palisade(directory.path()).args(["rule", "lint"]).arg(shipped));
    assert!(linted.status.success(), "{linted:?}");
    let tested = output(palisade(directory.path()).args(["rule", "test"]).arg(shipped));
    assert!(tested.status.success(), "{tested:?}");
    assert!(
        text(&tested.stdout).contains("0 failed") && !text(&tested.stdout).starts_with("0 cases")
    );
}

#[test]
fn the_commands_on_files_say_what_matches_and_why() {
    let directory = tempfile::tempdir().unwrap();
    let rules = directory.path().join("rules");
    std::fs::create_dir_all(&rules).unwrap();
    std::fs::write(rules.join("logins.yml"), format!("{FAILED}---\n{MANY}")).unwrap();
    std::fs::write(rules.join("admin.yml"), ADMIN).unwrap();
    let events = directory.path().join("events.json");
    let change = json!({"user": "Ada", "type": "privilege_change"});
    std::fs::write(&events, format!("{}\n[1]\n{}", json!({"type": "other"}), change)).unwrap();
    let run = |words: &[&str]| {
        let mut command = palisade(directory.path());
        for word in words {
            match *word {
                "RULES" => command.arg(&rules),
                "EVENTS" => command.arg(&events),
                word => command.arg(word),
            };
        }
        output(&mut command)
    };

    let linted = run(&["rule", "lint", "RULES"]);
    assert!(linted.status.success(), "{linted:?}");
    assert!(text(&linted.stdout).contains("2 rules and 1 correlations loaded, 0 documents not"));
    let listed = run(&["rule", "list", "RULES", "--json"]);
    assert_eq!(rows(&listed.stdout).len(), 3, "{listed:?}");

    let matched = run(&["rule", "match", "--rules", "RULES", "--events", "EVENTS", "--json"]);
    let lines = rows(&matched.stdout);
    assert_eq!(lines.len(), 1, "{matched:?}");
    assert_eq!((&lines[0]["index"], &lines[0]["rules"]), (&json!(2), &json!(["admin"])));

    let explained = run(&[
        "rule", "explain", "--rules", "RULES", "--events", "EVENTS", "--index", "2", "--rule",
        "admin",
    ]);
    let explained: Value = serde_json::from_slice(&explained.stdout).unwrap();
    assert_eq!(explained["matches"], true, "{explained}");

    let case = |expected: usize| {
        let events: Vec<Value> = (0..5)
            .map(|n| json!({"type": "login_failed", "src_ip": "10.0.0.1", "timestamp": 1_767_600_000_000_i64 + n * 1_000}))
            .collect();
        json!({"cases": [{"name": "five", "events": events, "matches": ["failed"], "alerts": {"many": expected}}]})
            .to_string()
    };
    let tests = rules.join("logins.test.yml");
    std::fs::write(&tests, case(1)).unwrap();
    let report = directory.path().join("report.xml");
    let tested = output(
        palisade(directory.path()).args(["rule", "test"]).arg(&rules).arg("--junit").arg(&report),
    );
    assert!(tested.status.success(), "{tested:?}");
    assert!(std::fs::read_to_string(&report).unwrap().contains("tests=\"1\" failures=\"0\""));
    std::fs::write(&tests, case(2)).unwrap();
    let tested = output(palisade(directory.path()).args(["rule", "test"]).arg(&rules));
    assert_eq!(tested.status.code(), Some(1), "{tested:?}");
    assert!(text(&tested.stdout).contains("FAILED"), "{tested:?}");

    std::fs::write(
        rules.join("wrong.yml"),
        "title: x\nlogsource: {}\ndetection:\n  a:\n    b|nonsense: 1\n  condition: a\n",
    )
    .unwrap();
    let linted = run(&["rule", "lint", "RULES"]);
    assert_eq!(linted.status.code(), Some(1));
    let said = text(&linted.stdout);
    assert!(said.contains("wrong.yml") && said.contains("nonsense"), "{said}");
}
