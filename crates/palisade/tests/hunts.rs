//! Hunts on a real server: what is found in history is what was found while it streamed, id by id, whether rows are in
//! memory, sealed or merged; jobs over HTTP; the command.
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
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use support::{Server, create_key, output, palisade, rows, text, until};

const RULES: &str = "title: Failed login\nid: failed\nname: failed_login\nlogsource:\n  category: authentication\ndetection:\n  selection:\n    type: login_failed\n  condition: selection\nlevel: low\n---\ntitle: Many failed logins\nid: many\nname: many_failed\nauthor: Ada\ntags:\n  - attack.t1110\ncorrelation:\n  type: event_count\n  rules:\n    - failed_login\n  group-by:\n    - src_ip\n  timespan: 1m\n  condition:\n    gte: 5\nlevel: high\n---\ntitle: Many hosts\nid: hosts\ncorrelation:\n  type: value_count\n  rules:\n    - failed_login\n  group-by:\n    - user\n  timespan: 10m\n  condition:\n    gte: 3\n    field: host\nlevel: medium\n---\ntitle: New administrator\nid: admin\nlogsource:\n  category: authentication\ndetection:\n  selection:\n    type: privilege_change\n    user|startswith: ada\n  condition: selection\nlevel: critical\n---\ntitle: A word anywhere\nid: word\nlogsource:\n  category: authentication\ndetection:\n  keywords:\n    - xyzzy\n  condition: keywords\nlevel: informational\n";
/// Windows rules of our own over the data beside the project, with a correlation.
const WINDOWS: &str = "title: Process\nid: process\nname: process\nlogsource:\n  product: windows\n  category: process_creation\ndetection:\n  selection:\n    Image|endswith: '.exe'\n  condition: selection\nlevel: informational\n---\ntitle: Many processes\nid: processes\ncorrelation:\n  type: event_count\n  rules:\n    - process\n  group-by:\n    - Computer\n  timespan: 1h\n  condition:\n    gte: 2\n  generate: true\nlevel: medium\n";

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

fn data(what: &str) -> Option<PathBuf> {
    let path = Path::new("../../../shared/data").join(what);
    if path.exists() {
        return Some(std::path::absolute(path).unwrap());
    }
    println!("skipped: ../shared/data/{what} is not there");
    None
}

/// A server under the rules at these paths; rows stay in memory for `commit_age`.
fn start(data: &Path, rules: &[PathBuf], commit_age: &str) -> Server {
    let config = data.join("palisade.yaml");
    std::fs::write(&config, json!({"detect": {"rules": rules}}).to_string()).unwrap();
    let mut command = palisade(data);
    command.env("PALISADE_CONFIG", &config).env("PALISADE_PIPELINE__COMMIT_AGE", commit_age);
    Server::start_with(&mut command)
}

/// A directory of rules.
fn rules(directory: &Path, texts: &[(&str, &str)]) -> PathBuf {
    let rules = directory.join("rules");
    std::fs::create_dir_all(&rules).unwrap();
    for (name, text) in texts {
        std::fs::write(rules.join(name), text).unwrap();
    }
    rules
}

fn failed(id: &str, user: &str, host: u32, address: &str, at: i64) -> String {
    let event = json!({"event_id": id, "user": user, "type": "login_failed", "host": format!("h{host}"),
        "src_ip": address, "timestamp": at});
    event.to_string() + "\n"
}

/// What a tenant's people did: two attacks, one of which came too late for the stream, and much else.
fn synthetic(from: u32) -> String {
    let mut lines = String::new();
    for n in from..from + 40 {
        lines += &failed(&format!("a{n}"), "bob", n % 4, "203.0.113.7", now());
        lines += &failed(&format!("b{n}"), "eve", 1, "203.0.113.8", now() - 3_600_000);
        let change = json!({"event_id": format!("c{n}"), "user": "Ada Lovelace",
            "type": if n % 10 == 0 { "privilege_change" } else { "login" },
            "note": if n % 13 == 0 { json!("say XYZZY") } else { json!(n) }, "timestamp": now()});
        lines += &(change.to_string() + "\n");
    }
    lines
}

/// The JSON events of a packed file.
fn events(path: &Path) -> String {
    let mut text = String::new();
    let file = std::fs::File::open(path).unwrap();
    flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text).unwrap();
    text
}

/// Alerts by id: what a person sees of them, and their evidence.
type Alerts = BTreeMap<String, (Value, BTreeSet<String>)>;

const SHOWN: [&str; 16] = [
    "rule_id",
    "rule_version",
    "detector",
    "severity",
    "title",
    "user",
    "host",
    "src_ip",
    "event_id",
    "first_time",
    "tags",
    "author",
    "group_key",
    "fields",
    "domain",
    "time",
];

/// A time with six digits behind its seconds.
fn digits(time: &str) -> String {
    let time = time.trim_end_matches('Z');
    let dot = if time.contains('.') { "" } else { "." };
    format!("{:0<26}Z", format!("{time}{dot}"))
}

fn shown(alert: &Value) -> (Value, BTreeSet<String>) {
    let fields: BTreeMap<&str, &Value> = SHOWN.iter().map(|name| (*name, &alert[*name])).collect();
    let empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
    // A column that is null in a whole frame is null, not an empty list; a time has more or fewer digits.
    let fields = fields.into_iter().map(|(name, value)| match value {
        value if empty(value) => (name.to_owned(), Value::Null),
        Value::String(time) if name.ends_with("time") => (name.to_owned(), json!(digits(time))),
        value => (name.to_owned(), value.clone()),
    });
    let evidence = alert["evidence"].as_array().into_iter().flatten();
    let evidence = evidence.map(|one| one.as_str().unwrap().to_owned()).collect();
    (Value::Object(fields.collect()), evidence)
}

/// What stands of the alerts that were made in the stream.
fn live(server: &Server) -> Alerts {
    let columns = SHOWN.map(|name| format!("\"{name}\"")).join(", ");
    let rows = server.rows(&format!(
        "SELECT alert_id, revision, state, evidence, {columns} FROM alerts
         WHERE detector IN ('sigma', 'correlation') ORDER BY revision"
    ));
    let mut alerts = Alerts::new();
    for row in rows {
        let id = row["alert_id"].as_str().unwrap().to_owned();
        if row["state"] == "retracted" {
            alerts.remove(&id);
            continue;
        }
        let (fields, evidence) = shown(&row);
        let alert = alerts.entry(id).or_insert_with(|| (Value::Null, BTreeSet::new()));
        alert.0 = fields;
        alert.1.extend(evidence);
    }
    alerts
}

/// Asks for a hunt and waits until it is over.
fn hunt(server: &Server, request: &Value) -> Value {
    server.wait_visible();
    let json = [("content-type", "application/json")];
    let (status, job) = server.post("/api/v1/hunts", &json, request.to_string().as_bytes());
    assert_eq!(status, 202, "{job}");
    let path = format!("/api/v1/hunts/{}", job["id"].as_str().unwrap());
    let mut job = Value::Null;
    until("the hunt is over", || {
        job = server.get(&path).1;
        !["queued", "running"].contains(&job["state"].as_str().unwrap())
    });
    job
}

fn found(server: &Server, job: &Value, limit: usize) -> Alerts {
    assert_eq!(job["state"], "done", "{job}");
    let path = format!("/api/v1/hunts/{}/results?limit={limit}", job["id"].as_str().unwrap());
    let (mut alerts, mut cursor, mut last) = (Alerts::new(), None, (String::new(), String::new()));
    loop {
        let at = cursor.map_or(String::new(), |cursor: String| format!("&cursor={cursor}"));
        let (status, page) = server.get(&format!("{path}{at}"));
        assert_eq!(status, 200, "{page}");
        let of_page = page["alerts"].as_array().unwrap();
        assert!(of_page.len() <= limit);
        for alert in of_page {
            let text = |name: &str| alert[name].as_str().unwrap().to_owned();
            let place = (digits(&text("time")), text("alert_id"));
            assert!(place > last, "by time and id: {place:?} behind {last:?}");
            last = place.clone();
            assert!(alerts.insert(place.1, shown(alert)).is_none());
        }
        match page["next"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => break,
        }
    }
    assert_eq!(job["results"], alerts.len());
    alerts
}

/// The hunt finds what the stream found: once what waits for time is decided.
fn compare(server: &Server, what: &str) -> Alerts {
    let mut both = (Alerts::new(), Alerts::new());
    until(&format!("stream and hunt agree: {what}"), || {
        let job = hunt(server, &json!({}));
        let hunted = found(server, &job, 50);
        both = (live(server), hunted);
        // What differs is shown when the time is over.
        let missing: Vec<_> = both.0.iter().filter(|(id, _)| !both.1.contains_key(*id)).collect();
        let more: Vec<_> = both.1.iter().filter(|(id, _)| !both.0.contains_key(*id)).collect();
        let other = both.0.iter().find(|(id, alert)| both.1.get(*id).is_some_and(|h| h != *alert));
        if both.0 != both.1 {
            println!(
                "{what}: {} live, {} hunted; not hunted {:?}; only hunted {:?}; different {:?}",
                both.0.len(),
                both.1.len(),
                missing.first(),
                more.first(),
                other.map(|(id, alert)| (id, alert, &both.1[id]))
            );
        }
        both.0 == both.1
    });
    both.1
}

#[test]
fn history_holds_what_the_stream_found() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    std::fs::create_dir_all(&data_dir).unwrap();
    let own = rules(directory.path(), &[("logins.yml", RULES), ("windows.yml", WINDOWS)]);
    let mut paths = vec![own, std::path::absolute("../../rules").unwrap()];
    paths.extend(data("sigma/regression"));

    // In memory.
    let server = start(&data_dir, &paths, "1h");
    assert_eq!(server.records(&[], &synthetic(0)).0, 200);
    let files: Vec<PathBuf> = ["events-otrf", "events-evtx-mitre"]
        .iter()
        .filter_map(|folder| data(folder))
        .flat_map(|folder| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()))
        .filter(|path| path.to_string_lossy().ends_with(".json.gz"))
        .collect();
    let send = |server: &Server, files: &[PathBuf], domain: &str| {
        let turn = |turn| server.post(&format!("/api/v1/domains/{domain}/{turn}"), &[], b"").0;
        assert_eq!(turn("start"), 204);
        for path in files {
            let path_of = format!("{}?domain={domain}", support::RECORDS);
            let headers = [("content-type", "application/x-ndjson")];
            let (status, answer) = server.post(&path_of, &headers, events(path).as_bytes());
            assert_eq!(status, 200, "{}: {answer}", path.display());
        }
        assert_eq!(turn("end"), 204);
    };
    let half = files.len() / 2;
    send(&server, &files[..half], "one");
    let in_memory = compare(&server, "in memory");
    let of = |alerts: &Alerts, rule: &str| {
        alerts.values().filter(|(fields, _)| fields["rule_id"] == rule).count()
    };
    assert_eq!(of(&in_memory, "failed"), 0, "single failures are only counted");
    assert_eq!((of(&in_memory, "admin"), of(&in_memory, "word")), (4, 4));
    assert!(of(&in_memory, "many") > 0 && of(&in_memory, "hosts") > 0);
    if !files.is_empty() {
        assert!(in_memory.len() > 50 && of(&in_memory, "processes") > 0, "{}", in_memory.len());
    }
    // Eve's failures were late for the stream.
    let late = found(&server, &hunt(&server, &json!({"include_late": true})), 1_000);
    assert_eq!(of(&late, "many"), of(&in_memory, "many") + 1);
    assert_eq!(late.len(), in_memory.len() + 1);

    // Sealed, by a graceful stop, and more in memory; then sealed and merged.
    server.terminate();
    let server = start(&data_dir, &paths, "1h");
    assert_eq!(compare(&server, "sealed"), in_memory);
    send(&server, &files[half..], "two");
    compare(&server, "sealed and in memory");
    server.terminate();
    let server = start(&data_dir, &paths, "100ms");
    for round in 1..20 {
        assert_eq!(server.records(&[], &synthetic(round * 40)).0, 200);
        server.wait_visible();
        std::thread::park_timeout(std::time::Duration::from_millis(250));
    }
    until("segments are merged", || {
        let sql = "SELECT max(level) AS level FROM system.segments WHERE \"table\" = 'events'";
        server.rows(sql)[0]["level"].as_i64().is_some_and(|level| level > 0)
    });
    compare(&server, "merged");

    // A part of the time: the alerts of that part, those of correlations too.
    let all = live(&server);
    let mut times: Vec<&str> =
        all.values().map(|(fields, _)| fields["time"].as_str().unwrap()).collect();
    times.sort_unstable();
    let (from, to) = (times[times.len() / 4], times[times.len() / 4 * 3]);
    let job = hunt(&server, &json!({"from": from, "to": to}));
    let part = found(&server, &job, 1_000);
    let at = |fields: &Value| fields["time"].as_str().unwrap().to_owned();
    let expected: Alerts = all
        .clone()
        .into_iter()
        .filter(|(_, (fields, _))| (from..to).contains(&at(fields).as_str()))
        .collect();
    let ids = |alerts: &Alerts| alerts.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(ids(&part), ids(&expected));
    server.terminate();
}

#[test]
fn jobs_are_bounded_kept_apart_and_survive() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    std::fs::create_dir_all(&data_dir).unwrap();
    let own = rules(directory.path(), &[("logins.yml", RULES)]);
    let server = start(&data_dir, std::slice::from_ref(&own), "1s");
    assert_eq!(server.records(&[], &synthetic(0)).0, 200);
    let json_type = [("content-type", "application/json")];
    let ask =
        |request: &Value| server.post("/api/v1/hunts", &json_type, request.to_string().as_bytes());

    // What is wrong is refused with the reason.
    for (request, reason) in [
        (json!({"rules": "all"}), "in_force"),
        (json!({"rules": []}), "texts"),
        (json!({"rules": {"ids": []}}), "ids"),
        (json!({"from": "yesterday-ish"}), "from"),
        (json!({"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"}), "before"),
        (json!({"speed": 11}), "unknown field"),
    ] {
        let (status, problem) = ask(&request);
        let status_fits = status == 400 || status == 422;
        let said = problem["detail"].as_str().unwrap_or_default();
        assert!(status_fits && said.contains(reason), "{request}: {status} {problem}");
    }

    // Rules by id bring what they count; own rules are as they are.
    let job = hunt(&server, &json!({"rules": {"ids": ["many"]}}));
    assert_eq!(job["by_rule"], json!({"many": 1}), "{job}");
    assert!(job["progress"]["rows"].as_u64().unwrap() >= 120, "{job}");
    assert_eq!(job["progress"]["rows"], job["progress"]["rows_done"]);
    let loud = RULES.replace(
        "condition: keywords\nlevel: informational",
        "condition: keywords\nlevel: critical",
    );
    let job = hunt(&server, &json!({"rules": [loud, "title: x"]}));
    assert_eq!((&job["refused_rules"], &job["rules"]), (&json!(1), &json!("own")), "{job}");
    let alerts = found(&server, &job, 1_000);
    assert!(
        alerts
            .values()
            .any(|(fields, _)| fields["rule_id"] == "word" && fields["severity"] == "critical")
    );
    let job = hunt(&server, &json!({"rules": ["title: x"]}));
    assert_eq!(job["state"], "failed");
    assert!(job["error"].as_str().unwrap().contains("no rule could be taken"), "{job}");
    let failed = job["id"].as_str().unwrap().to_owned();
    assert_eq!(server.get(&format!("/api/v1/hunts/{failed}/results")).0, 409);
    let job = hunt(&server, &json!({"rules": {"ids": ["nobody"]}}));
    assert_eq!(job["state"], "failed");

    // What was found is there after a crash.
    let done = hunt(&server, &json!({}));
    let before = found(&server, &done, 9);
    server.kill();
    let server = start(&data_dir, &[own], "1s");
    assert_eq!(found(&server, &done, 1_000), before);
    let (_, listed) = server.get("/api/v1/hunts");
    assert!(listed["hunts"].as_array().unwrap().len() >= 5, "{listed}");

    // Forgotten with its files.
    let id = done["id"].as_str().unwrap();
    assert!(data_dir.join("hunts").join(id).exists());
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let delete = |key: Option<&str>, id: &str| {
        let mut request = agent.delete(format!("{}/api/v1/hunts/{id}", server.url));
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        request.call().unwrap().status().as_u16()
    };
    assert_eq!(delete(None, id), 204);
    assert!(!data_dir.join("hunts").join(id).exists());
    assert_eq!((delete(None, id), server.get(&format!("/api/v1/hunts/{id}")).0), (404, 404));

    // Tenants and scopes.
    let mine = create_key(&data_dir, "mine", "default", "query");
    let other = create_key(&data_dir, "other", "other", "query");
    let sender = create_key(&data_dir, "sender", "default", "ingest");
    until("keys are needed", || server.get("/api/v1/hunts").0 == 401);
    let get = |key: &str, path: &str| {
        let request = agent.get(format!("{}{path}", server.url));
        let request = request.header("authorization", format!("Bearer {key}"));
        request.call().unwrap().status().as_u16()
    };
    let path = format!("/api/v1/hunts/{failed}");
    assert_eq!((get(&mine, &path), get(&other, &path), get(&sender, &path)), (200, 404, 403));
    assert_eq!(get(&other, &format!("{path}/results")), 404);
    assert_eq!((delete(Some(&other), &failed), delete(Some(&sender), &failed)), (404, 403));
    assert_eq!(delete(Some(&mine), &failed), 204);
    server.terminate();
}

#[test]
fn the_command_hunts_with_and_without_a_server() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    std::fs::create_dir_all(&data_dir).unwrap();
    let own = rules(directory.path(), &[("logins.yml", RULES)]);
    let server = start(&data_dir, std::slice::from_ref(&own), "1s");
    assert_eq!(server.records(&[], &synthetic(0)).0, 200);
    server.wait_visible();
    let lines = |output: &std::process::Output| {
        let mut ids: Vec<String> = rows(&output.stdout)
            .iter()
            .map(|alert| format!("{} {}", alert["rule_id"], alert["alert_id"]))
            .collect();
        ids.sort();
        ids
    };
    let asked = output(palisade(&data_dir).args(["hunt", "--url", &server.url]));
    assert!(asked.status.success(), "{asked:?}");
    let brought = output(
        palisade(&data_dir)
            .args(["hunt", "--fail-on-match", "--url", &server.url, "--rules"])
            .arg(&own),
    );
    assert_eq!(brought.status.code(), Some(3), "{brought:?}");
    assert_eq!(lines(&asked), lines(&brought));
    assert!(lines(&asked).len() >= 10, "{asked:?}");
    server.terminate();

    let alone = output(palisade(&data_dir).args(["hunt", "--threads", "3"]));
    assert!(alone.status.success(), "{alone:?}");
    assert_eq!(lines(&alone), lines(&asked));
    let one = output(palisade(&data_dir).args(["hunt", "--id", "admin", "--fail-on-match"]));
    assert_eq!((one.status.code(), lines(&one).len()), (Some(3), 4), "{one:?}");
    let before = output(palisade(&data_dir).args([
        "hunt",
        "--to",
        "2020-01-01T00:00:00Z",
        "--fail-on-match",
    ]));
    assert_eq!((before.status.code(), lines(&before).len()), (Some(0), 0), "{before:?}");
    let nobody = output(palisade(&data_dir).args(["hunt", "--tenant", "nobody"]));
    assert_eq!((nobody.status.code(), lines(&nobody).len()), (Some(0), 0), "{nobody:?}");
    let wrong = output(palisade(&data_dir).args(["hunt", "--from", "soon"]));
    assert_eq!(wrong.status.code(), Some(1));
    assert!(text(&wrong.stderr).contains("2026-01-31"), "{wrong:?}");
}
