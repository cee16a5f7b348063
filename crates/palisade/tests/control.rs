//! What is in force, from outside: settings that change live and across crashes (C1), operators that a release
//! lacks (C3), historical loads (T2), hot reload, and under which names the open tenant answers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may panic"
)]

#[allow(dead_code, reason = "shared with other tests of the binary")]
mod support;

use palisade_event::domain::is_late;
use palisade_event::{Entry, Offset};
use palisade_log::disk::RealDisk;
use palisade_log::{Log, LogOptions};
use palisade_pipeline::control::{self, OPERATORS, OperatorVersions};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use support::{Server, create_key, output, palisade, text, until};

/// Settings of the detectors, as a configuration file has them.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Settings {
    baseline: &'static str,
    learning_events: u32,
    threshold: f64,
    threat_threshold: f64,
}

const PHASES: [Settings; 3] = [
    Settings { baseline: "calibrated", learning_events: 8, threshold: 0.3, threat_threshold: 0.4 },
    Settings {
        baseline: "calibrated",
        learning_events: 60,
        threshold: 0.45,
        threat_threshold: 0.45,
    },
    Settings { baseline: "streamguard", learning_events: 5, threshold: 0.5, threat_threshold: 0.3 },
];

fn write_settings(file: &Path, settings: Settings) {
    let Settings { baseline, learning_events, threshold, threat_threshold } = settings;
    let text = format!(
        "detect:\n  baseline: {baseline}\n  learning_events: {learning_events}\n  threshold: {threshold}\n  threat_threshold: {threat_threshold}\n"
    );
    std::fs::write(file, text).unwrap();
}

/// A small, even generator of test data.
struct Draws(u64);

impl Draws {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// The requests of a phase: 12 users with habits, which they sometimes leave.
fn requests(seed: u64, phase: usize) -> Vec<String> {
    let mut draws = Draws(seed * 31 + phase as u64);
    let event = |draws: &mut Draws, n: u64| {
        let user = draws.below(12);
        let odd = draws.below(25) == 0;
        let place = if odd { 100 + draws.below(50) } else { user * 3 + draws.below(2) };
        let time = 1_772_000_000 + (phase as u64 * 1000 + n) * 1800;
        json!({
            "event_id": format!("{phase}-{n:05}"),
            "user": format!("user{user}"),
            "timestamp": time,
            "type": if odd { "PRIVILEGE_CHANGE" } else { "LOGIN" },
            "source_ip": format!("10.0.{}.{}", place / 200, place % 200 + 1),
            "geo_location": format!("city{}", place / 4),
            "outcome": if odd && draws.below(2) == 0 { "failure" } else { "success" },
            "threat_score": draws.below(100) as f64 / 100.0,
        })
    };
    let mut number = 0;
    (0..6)
        .map(|_| {
            (0..100)
                .map(|_| {
                    number += 1;
                    format!("{}\n", event(&mut draws, number))
                })
                .collect()
        })
        .collect()
}

/// A server with a configuration file, which the command line's environment does not hide.
fn with_file(data: &Path, file: &Path) -> Command {
    let mut command = palisade(data);
    command.env_remove("PALISADE_LOGGING__LEVEL").arg("--config").arg(file);
    command
}

fn send(server: &Server, requests: &[String]) {
    for body in requests {
        let (status, answer) = server.records(&[], body);
        assert_eq!((status, &answer["accepted"]), (200, &json!(100)), "{answer}");
    }
}

fn in_force(server: &Server) -> Value {
    let (status, answer) = server.get("/api/v1/config");
    assert_eq!(status, 200, "{answer}");
    answer
}

fn is_in_force(server: &Server, settings: Settings) -> bool {
    let content = in_force(server)["detectors"]["content"].clone();
    let number = |name: &str| (content[name].as_f64().unwrap() * 1000.0).round() / 1000.0;
    content["baseline"] == settings.baseline
        && content["learning_events"] == settings.learning_events
        && number("threshold") == settings.threshold
        && number("threat_threshold") == settings.threat_threshold
}

/// Rows by event id, and alerts by their own.
type Results = (BTreeMap<String, Value>, BTreeMap<String, Value>);

fn results(server: &Server) -> Results {
    let by = |rows: Vec<Value>, key: &str| -> BTreeMap<String, Value> {
        let count = rows.len();
        let map: BTreeMap<_, _> =
            rows.into_iter().map(|row| (row[key].as_str().unwrap().to_owned(), row)).collect();
        assert_eq!(map.len(), count, "{key} is unique");
        map
    };
    let rows = server.rows("SELECT event_id, anomaly_score, threat_score FROM events");
    let alerts = server.rows(
        "SELECT alert_id, detector, rule_id, rule_version, event_id, severity, score, reasons, \"baseline.time\", \"baseline.streak\" FROM alerts",
    );
    (by(rows, "event_id"), by(alerts, "alert_id"))
}

/// All phases in one life of the server, the settings changed by reloads.
fn undisturbed(seed: u64) -> Results {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("palisade.yaml");
    write_settings(&file, PHASES[0]);
    let server = Server::start_with(&mut with_file(data.path(), &file));
    for (phase, settings) in PHASES.into_iter().enumerate() {
        if phase > 0 {
            write_settings(&file, settings);
            server.hangup();
        }
        until("the settings are in force", || is_in_force(&server, settings));
        send(&server, &requests(seed, phase));
    }
    results(&server)
}

/// The first change live; then a kill and a restart with the last settings while the records of the second
/// phase may be in the log only; then a kill and a restart with the first settings again.
fn disturbed(seed: u64, environment: &[(&str, &str)]) -> Results {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("palisade.yaml");
    let start = |settings| {
        write_settings(&file, settings);
        let mut command = with_file(data.path(), &file);
        command.envs(environment.iter().copied());
        Server::start_with(&mut command)
    };
    let server = start(PHASES[0]);
    send(&server, &requests(seed, 0));
    write_settings(&file, PHASES[1]);
    until("the settings are in force", || is_in_force(&server, PHASES[1]));
    send(&server, &requests(seed, 1));
    server.kill();

    let server = start(PHASES[2]);
    send(&server, &requests(seed, 2));
    if environment.iter().any(|(_, value)| *value == "1s") {
        // Time for a checkpoint in the middle of the last settings.
        std::thread::park_timeout(Duration::from_millis(2500));
    }
    server.kill();
    let server = start(PHASES[0]);
    let found = results(&server);
    until("the first settings are in force again", || is_in_force(&server, PHASES[0]));
    found
}

/// C1: rows and alerts change exactly at the control record, whatever is configured when they are replayed.
#[test]
fn settings_split_exactly_and_a_replay_uses_what_was_in_force() {
    for seed in [1, 2] {
        let (rows, alerts) = undisturbed(seed);
        assert_eq!(rows.len(), 1800, "seed {seed}");
        let over = |phase: usize, column: &str, threshold: f64| -> BTreeSet<String> {
            let of_phase = |id: &&String| id.starts_with(&format!("{phase}-"));
            let reaches =
                |id: &&String| rows[*id][column].as_f64().is_some_and(|s| s > threshold - 0.0005);
            rows.keys().filter(of_phase).filter(reaches).cloned().collect()
        };
        for (phase, settings) in PHASES.into_iter().enumerate() {
            for (detector, column, threshold) in [
                ("baseline", "anomaly_score", settings.threshold),
                ("threat", "threat_score", settings.threat_threshold),
            ] {
                let alerted: BTreeSet<String> = alerts
                    .values()
                    .filter(|alert| alert["detector"] == detector)
                    .map(|alert| alert["event_id"].as_str().unwrap().to_owned())
                    .filter(|id| id.starts_with(&format!("{phase}-")))
                    .collect();
                assert_eq!(
                    alerted,
                    over(phase, column, threshold),
                    "seed {seed} {phase} {detector}"
                );
                assert!(
                    !alerted.is_empty(),
                    "seed {seed} {phase} {detector}: the test shows nothing"
                );
                let differs = |other: &Settings| {
                    let other = if column == "anomaly_score" {
                        other.threshold
                    } else {
                        other.threat_threshold
                    };
                    over(phase, column, other) != alerted
                };
                assert!(PHASES.iter().any(differs), "seed {seed} {phase} {detector}: any would do");
            }
        }
        for environment in [
            &[("PALISADE_PIPELINE__COMMIT_AGE", "10m"), ("PALISADE_PIPELINE__WORKERS", "3")][..],
            &[
                ("PALISADE_PIPELINE__COMMIT_AGE", "300ms"),
                ("PALISADE_PIPELINE__CHECKPOINT_EVERY", "1s"),
                ("PALISADE_PIPELINE__WORKERS", "1"),
            ],
        ] {
            let (found_rows, found_alerts) = disturbed(seed, environment);
            assert_eq!(found_rows, rows, "seed {seed} {environment:?}");
            assert_eq!(found_alerts, alerts, "seed {seed} {environment:?}");
        }
    }
}

fn open_log(data: &Path) -> Log {
    let options = LogOptions { min_free_bytes: Some(0), ..LogOptions::default() };
    Log::open(Arc::new(RealDisk), &data.join("log"), options, None).unwrap().0
}

/// C3: a log that goes on under an operator's version of a later release is refused, and which release is
/// needed is said.
#[test]
fn operators_that_are_lacking_are_refused_by_release() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    assert_eq!(server.records(&[], "{\"event_id\":\"e1\"}\n").0, 200);
    let operators = in_force(&server)["operators"].clone();
    assert_eq!(operators["content"]["baseline"], 1, "{operators}");
    assert!(operators["generation"].as_u64() > Some(0), "{operators}");
    server.terminate();

    let mut versions = OperatorVersions::newest();
    versions.0.insert("baseline".to_owned(), 99);
    let content = serde_json::to_string(&versions).unwrap();
    let Ok(Entry::Control { clock, kind, body }) =
        control::activation(1_772_000_000_000_000, 1_000_000, OPERATORS, &content)
    else {
        panic!("no control record")
    };
    let body =
        body.replace(&format!("\"release\":\"{}\"", control::RELEASE), "\"release\":\"9.8.7\"");
    let log = open_log(data.path());
    let offset = log.append_and_wait(Entry::Control { clock, kind, body }).unwrap();
    log.close();
    drop(log);

    let refused =
        output(palisade(data.path()).arg("run").env("PALISADE_HTTP__LISTEN", "127.0.0.1:0"));
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let message = text(&refused.stderr);
    let place = format!("offset {}", offset.0);
    for part in [place.as_str(), "version 99 of the operator 'baseline'", "run palisade 9.8.7"] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

/// The control records and the frames' domains of a stopped server's log, in order.
fn entries(data: &Path) -> Vec<String> {
    let log = open_log(data);
    let mut found = Vec::new();
    for read in log.read(Offset(log.start().0)).unwrap() {
        match read.unwrap().1 {
            Entry::Control { kind, body, .. } if kind != control::ACTIVATION => {
                let body: Value = serde_json::from_str(&body).unwrap();
                found.push(format!("{kind} {}", body["domain"].as_str().unwrap()));
            }
            Entry::Frame(frame) => {
                use palisade_event::column::Text;
                let domains = Text::in_batch(&frame.batch, "domain");
                let domains: BTreeSet<_> = (0..frame.batch.num_rows())
                    .map(|row| domains.and_then(|text| text.get(row)).unwrap_or("live"))
                    .collect();
                found.extend(domains.into_iter().map(|domain| format!("frame {domain}")));
            }
            _ => {}
        }
    }
    found.dedup();
    found
}

/// T2: a file load has a domain, which starts before its first record and ends behind its last; none of its
/// records is late, and a domain that is open when the process dies is open afterwards.
#[test]
fn a_file_load_has_a_domain_of_its_own() {
    let data = tempfile::tempdir().unwrap();
    let files = tempfile::tempdir().unwrap();
    let old: String = (0..300)
        .map(|n| format!("{{\"event_id\":\"o{n}\",\"timestamp\":{}}}\n", 946_684_800 + n))
        .collect();
    std::fs::write(files.path().join("old.jsonl"), &old).unwrap();
    std::fs::write(files.path().join("older.log"), "Jan  1 00:00:00 host sshd[1]: hello\n")
        .unwrap();

    let server = Server::start(data.path());
    assert_eq!(server.records(&[], "{\"event_id\":\"live1\"}\n").0, 200);
    let loaded = output(
        palisade(data.path()).arg("ingest").arg(files.path()).env("PALISADE_URL", &server.url),
    );
    assert!(loaded.status.success(), "{loaded:?}");
    let shown = text(&loaded.stdout);
    let domain = shown.trim().rsplit("time domain ").next().unwrap().to_owned();
    assert!(domain.starts_with("load:"), "{shown}");
    assert_eq!(server.records(&[], "{\"event_id\":\"live2\"}\n").0, 200);

    let open = || server.get("/api/v1/domains").1["domains"].clone();
    until("the load has ended", || open() == json!([]));
    assert_eq!(server.post("/api/v1/domains/batch/start", &[], b"").0, 204);
    until("the domain is open", || open()[0]["domain"] == "batch");
    assert_eq!(server.post("/api/v1/domains/batch/start", &[], b"").0, 204);

    let rows = server.rows(
        "SELECT domain, CAST(ingest_time AS BIGINT) AS clock, CAST(time AS BIGINT) AS micros FROM events WHERE event_id LIKE 'o%'",
    );
    assert_eq!(rows.len(), 300);
    for row in &rows {
        let (clock, time) = (row["clock"].as_i64().unwrap(), row["micros"].as_i64().unwrap());
        assert_eq!(row["domain"], domain.as_str());
        assert!(!is_late(row["domain"].as_str(), clock, time, 0), "{row}");
        assert!(
            is_late(None, clock, time, 3_600_000_000),
            "it would be late if it were live: {row}"
        );
    }
    server.kill();

    let server = Server::start(data.path());
    let open = || server.get("/api/v1/domains").1["domains"].clone();
    until("the domain is open again", || open()[0]["domain"] == "batch");
    assert_eq!(server.post("/api/v1/domains/batch/end", &[], b"").0, 204);
    until("it has ended", || open() == json!([]));
    server.terminate();

    let expected = [
        "frame live".to_owned(),
        format!("domain_starts {domain}"),
        format!("frame {domain}"),
        format!("domain_ends {domain}"),
        "frame live".to_owned(),
        "domain_starts batch".to_owned(),
        "domain_ends batch".to_owned(),
    ];
    assert_eq!(entries(data.path()), expected);

    let shown = output(palisade(data.path()).args(["log", "control"]));
    assert!(shown.status.success(), "{shown:?}");
    let kinds: Vec<_> = text(&shown.stdout)
        .lines()
        .skip(1)
        .filter_map(|line| Some(line.split_whitespace().nth(2)?.to_owned()))
        .collect();
    // A start that is sent again stands there again and changes nothing.
    let turns = ["domain_starts", "domain_ends", "domain_starts", "domain_starts", "domain_ends"];
    assert_eq!(kinds[..2], ["activation", "activation"], "{shown:?}");
    assert_eq!(kinds[2..], turns, "{shown:?}");
}

/// The value of a metric.
fn metric(server: &Server, name: &str) -> f64 {
    let Value::String(text) = server.get("/metrics").1 else { panic!("no text") };
    let line =
        text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
    line.unwrap_or_else(|| panic!("{name} is missing in\n{text}"))
        .rsplit(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

#[test]
fn the_configuration_is_read_again() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("palisade.yaml");
    let list = data.path().join("bad.txt");
    std::fs::write(&file, "query: {rows: 3}\nlogging: {level: warn}\n").unwrap();
    let server = Server::start_with(&mut with_file(data.path(), &file));
    assert_eq!(server.records(&[], &support::events(0..10)).0, 200);
    let rows = || server.rows("SELECT event_id FROM events").len();
    assert_eq!(rows(), 3);
    assert_eq!(in_force(&server)["generation"], 1);

    // Found by looking: other limits, another list, another level of the log.
    std::fs::write(&list, "198.51.100.7\n").unwrap();
    let lists = format!(
        "detect: {{lists: [{{name: bad, path: '{}', kind: reputation, level: 90}}]}}\n",
        list.display()
    );
    let good =
        format!("query: {{rows: 7}}\nlimits: {{record: 1KiB}}\nlogging: {{level: info}}\n{lists}");
    std::fs::write(&file, &good).unwrap();
    until("the file is read again", || in_force(&server)["generation"] == 2);
    assert_eq!(rows(), 7);
    let long = format!("{{\"event_id\":\"long\",\"message\":\"{}\"}}\n", "x".repeat(2000));
    assert_eq!(server.records(&[], &long).0, 400);
    assert_eq!(
        server.records(&[], "{\"event_id\":\"listed\",\"source_ip\":\"198.51.100.7\"}\n").0,
        200
    );
    let listed = server.rows("SELECT reputation FROM events WHERE event_id = 'listed'");
    assert_eq!(listed, [json!({"reputation": 90})]);
    until("the level holds", || server.log().contains("the configuration was read again"));

    // A file that is wrong changes nothing and says what is wrong.
    std::fs::write(&file, format!("{good}http:\n  naames: []\n")).unwrap();
    until("the error is seen", || in_force(&server)["last_error"].is_object());
    let answer = in_force(&server);
    let error = answer["last_error"]["message"].as_str().unwrap();
    assert!(error.contains("did you mean 'names'"), "{error}");
    assert_eq!(answer["generation"], 2);
    assert_eq!(rows(), 7);
    assert_eq!(metric(&server, "palisade_config_reloads_total{result=\"refused\"}"), 1.0);
    // So does a list that can't be read.
    std::fs::write(&file, good.replace("bad.txt", "missing.txt")).unwrap();
    until("the missing list is seen", || {
        in_force(&server)["last_error"]["message"]
            .as_str()
            .is_some_and(|m| m.contains("missing.txt"))
    });
    assert_eq!(in_force(&server)["generation"], 2);

    // What needs a restart is named and stays, the rest is taken.
    let mixed =
        good.replace("rows: 7", "rows: 5") + "pipeline: {workers: 7}\nhttp: {max_connections: 9}\n";
    std::fs::write(&file, mixed).unwrap();
    until("the rest is taken", || in_force(&server)["generation"] == 3);
    let answer = in_force(&server);
    assert_eq!(answer["needs_restart"], json!(["http.max_connections", "pipeline.workers"]));
    assert_eq!(answer["last_error"], Value::Null);
    assert_eq!(rows(), 5);
    let log = server.log();
    for key in ["http.max_connections", "pipeline.workers"] {
        assert!(log.contains(&format!("a change of {key} needs a restart")), "{log}");
    }
    assert_eq!(metric(&server, "palisade_config_reloads_total{result=\"partly\"}"), 1.0);
    assert_eq!(metric(&server, "palisade_config_generation"), 3.0);

    // SIGHUP reads it again although nothing changed.
    std::fs::write(&file, &good).unwrap();
    until("taken back", || in_force(&server)["needs_restart"] == json!([]));
    let unchanged = || metric(&server, "palisade_config_reloads_total{result=\"unchanged\"}");
    let before = unchanged();
    server.hangup();
    until("SIGHUP is heard", || unchanged() > before);
    server.terminate();
}

/// One request as a browser would send it; status and body.
fn raw(server: &Server, head: &str) -> (u16, String) {
    let address = server.url.trim_start_matches("http://");
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(format!("{head}connection: close\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
}

/// A page of another site that points its name at the server (DNS rebinding) reads and writes nothing.
#[test]
fn the_open_tenant_answers_under_its_own_names_only() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("palisade.yaml");
    std::fs::write(&file, "http: {names: []}\n").unwrap();
    let server = Server::start_with(&mut with_file(data.path(), &file));
    let get =
        |path: &str, host: &str| raw(&server, &format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n"));
    for host in ["localhost", "127.0.0.1:7300", "[::1]:7300", "LocalHost.:1"] {
        assert_eq!(get("/api/v1/stats", host).0, 200, "{host}");
    }
    for path in
        ["/api/v1/stats", "/", "/metrics", "/healthz", "/api/events", "/_license", "/nowhere"]
    {
        let (status, answer) = get(path, "evil.example:7300");
        assert_eq!(status, 421, "{path} {answer}");
        assert!(
            answer.contains("application/problem+json") && answer.contains("http.names"),
            "{answer}"
        );
    }
    assert_eq!(get("http://evil.example/api/v1/stats", "localhost").0, 421);
    let write = "POST /api/v1/streams/events/records HTTP/1.1\r\ncontent-type: text/plain\r\ncontent-length: 5\r\nhost: ";
    assert_eq!(raw(&server, &format!("{write}evil.example\r\n")).0, 421);
    // A form of another page, sent to the real name.
    let (status, answer) =
        raw(&server, &format!("{write}localhost\r\nsec-fetch-site: cross-site\r\n"));
    assert_eq!(status, 403, "{answer}");

    std::fs::write(&file, "http: {names: [siem.example.org]}\n").unwrap();
    until("the name is allowed", || get("/api/v1/stats", "siem.example.org:7300").0 == 200);
    assert_eq!(get("/api/v1/stats", "evil.example").0, 421);

    // With a key the name no longer matters: a page has none to send.
    create_key(data.path(), "one", "default", "query");
    until("the tenant is closed", || get("/api/v1/stats", "evil.example").0 == 401);
}
