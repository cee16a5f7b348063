//! Rules that are deployed, changed for a tenant and reported on, on a real server: over REST and by the commands.
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
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};
use support::{Server, create_key, output, palisade, rows, text, until};

const FAILED: &str = "title: Failed login\nid: failed\nname: failed_login\nlogsource:\n  category: authentication\ndetection:\n  selection:\n    type: login_failed\n  condition: selection\nlevel: low\n";
const MANY: &str = "title: Many failed logins\nid: many\ncorrelation:\n  type: event_count\n  rules:\n    - failed_login\n  group-by:\n    - src_ip\n  timespan: 10m\n  condition:\n    gte: 5\nlevel: high\n";
const ADMIN: &str = "title: New administrator\nid: admin\nlogsource:\n  category: authentication\ndetection:\n  selection:\n    type: privilege_change\n  condition: selection\nlevel: critical\n";
const OWN: &str = "title: Own\nid: own\nlogsource:\n  category: authentication\ndetection:\n  selection:\n    type: session_opened\n  condition: selection\nlevel: medium\n";
const WRONG: &str = "title: Wrong\nid: wrong\nlogsource:\n  category: authentication\ndetection:\n  selection:\n    type|nonsense: x\n  condition: selection\n";

fn start(data: &Path, rules: &Path) -> Server {
    let config = data.join("palisade.yaml");
    std::fs::write(&config, format!("detect:\n  rules: [{}]\n", rules.display())).unwrap();
    Server::start_with(palisade(data).env("PALISADE_CONFIG", &config))
}

/// Files of the configuration: a rule, and a correlation over another.
fn vendor(directory: &Path) -> std::path::PathBuf {
    let rules = directory.join("rules");
    std::fs::create_dir_all(&rules).unwrap();
    std::fs::write(rules.join("logins.yml"), format!("{FAILED}---\n{MANY}")).unwrap();
    std::fs::write(rules.join("admin.yml"), ADMIN).unwrap();
    rules
}

struct Caller<'s> {
    server: &'s Server,
    key: Option<String>,
}

impl Caller<'_> {
    fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let url = format!("{}{path}", self.server.url);
        let mut request = ureq::http::Request::builder().method(method).uri(url);
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let request = request.header("content-type", "application/json");
        let answer = match body {
            Value::Null => agent.run(request.body(()).unwrap()),
            body => agent.run(request.body(body.to_string()).unwrap()),
        };
        let mut answer = answer.unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        (answer.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    fn does(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.ask(method, path, &body);
        assert!(status < 300, "{method} {path}: {status} {answer}");
        answer
    }

    fn send(&self, events: &[Value]) {
        let body: Vec<String> = events.iter().map(Value::to_string).collect();
        let bearer = self.key.as_ref().map(|key| format!("Bearer {key}"));
        let headers: Vec<(&str, &str)> =
            bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
        assert_eq!(self.server.records(&headers, &body.join("\n")).0, 200);
    }

    /// `rule_id severity` of the alerts, sorted.
    fn alerts(&self) -> Vec<String> {
        let sql = "SELECT rule_id, severity FROM alerts WHERE detector IN ('sigma', 'correlation')
                   AND revision = 0";
        let (status, body) = self.server.ask(self.key.as_deref(), sql);
        assert_eq!(status, 200, "{body}");
        let found = rows(body.as_bytes()).into_iter();
        let mut found: Vec<String> = found
            .map(|row| {
                format!(
                    "{} {}",
                    row["rule_id"].as_str().unwrap(),
                    row["severity"].as_str().unwrap()
                )
            })
            .collect();
        found.sort();
        found
    }
}

/// Who asks with a key.
fn of<'s>(server: &'s Server, key: &str) -> Caller<'s> {
    Caller { server, key: Some(key.to_owned()) }
}

fn event(id: &str, kind: &str, user: &str) -> Value {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    json!({"event_id": id, "type": kind, "user": user, "src_ip": "203.0.113.7", "timestamp": at})
}

#[test]
fn tenants_change_rules_for_themselves_and_it_lasts() {
    let directory = tempfile::tempdir().unwrap();
    let (data, rules) = (directory.path().join("data"), vendor(directory.path()));
    std::fs::create_dir_all(&data).unwrap();
    let scopes = "ingest,query,admin";
    let [acme, blue] = ["acme", "blue"].map(|tenant| create_key(&data, tenant, tenant, scopes));
    let reader = create_key(&data, "reader", "acme", "query");
    let server = start(&data, &rules);
    let (one, other) = (of(&server, &acme), of(&server, &blue));

    // A wrong document is named with its line in the file that was sent; the others are in force.
    let files = json!([{"name": "mine.yml", "text": format!("{OWN}---\n{WRONG}")}]);
    let answer = one.does("POST", "/api/v1/rules", json!({"files": files}));
    assert_eq!(answer["deployed"], json!(["own"]), "{answer}");
    let refused = &answer["refused"][0];
    assert_eq!((&refused["file"], &refused["line"]), (&json!("mine.yml"), &json!(17)), "{answer}");
    assert!(refused["reason"].as_str().unwrap().contains("nonsense"), "{answer}");
    let set = answer["set"].as_str().unwrap().to_owned();
    assert_eq!(set.len(), 32, "{answer}");
    let again = one.does("POST", "/api/v1/rules", json!({"files": files}));
    assert_eq!((&again["unchanged"], &again["set"]), (&json!(["own"]), &json!(set)), "{again}");

    // Own rules are tried on own records, and nobody else sees them.
    for (caller, id) in [(&one, "a1"), (&other, "b1")] {
        caller.send(&[event(id, "session_opened", "ada")]);
    }
    assert_eq!(one.alerts(), ["own medium"]);
    assert!(other.alerts().is_empty());
    assert_eq!(one.ask("GET", "/api/v1/rules/own", &Value::Null).0, 200);
    assert_eq!(other.ask("GET", "/api/v1/rules/own", &Value::Null).0, 404);
    assert_eq!(other.ask("DELETE", "/api/v1/rules/own", &Value::Null).0, 404);
    let listed = other.does("GET", "/api/v1/rules", Value::Null);
    let ids: Vec<&Value> = listed["rules"].as_array().unwrap().iter().map(|r| &r["id"]).collect();
    assert_eq!(ids, ["admin", "failed", "many"], "{listed}");
    // The installation's are not theirs to change, and who only reads changes nothing.
    let everyone = "/api/v1/rules?owner=installation";
    assert_eq!(one.ask("POST", everyone, &json!({"files": files})).0, 403);
    let off = json!({"enabled": false});
    assert_eq!(of(&server, &reader).ask("PATCH", "/api/v1/rules/admin", &off).0, 403);

    // Three of five failures, then all kinds of changes, then a crash: the count goes on.
    let failures = |from: u32, to: u32| -> Vec<Value> {
        (from..to).map(|n| event(&format!("f{n}"), "login_failed", "bob")).collect()
    };
    one.send(&failures(0, 3));
    one.does("PATCH", "/api/v1/rules/admin", off);
    other.does("PATCH", "/api/v1/rules/admin", json!({"severity": "low"}));
    assert_eq!(other.ask("PATCH", "/api/v1/rules/own", &json!({"enabled": false})).0, 404);
    assert_eq!(other.ask("PATCH", "/api/v1/rules/admin", &json!({"severity": "bad"})).0, 400);
    let exception = json!({
        "name": "Test users", "rules": ["own", "failed"], "matching": {"user|startswith": "test"},
        "reason": "they are ours",
    });
    one.does("POST", "/api/v1/rules/exceptions", exception);
    let past = json!({
        "name": "Over", "rules": ["own"], "matching": {"user": "eve"}, "reason": "was yesterday",
        "until": "2020-01-01T00:00:00Z",
    });
    one.does("POST", "/api/v1/rules/exceptions", past);
    let for_none = json!({
        "name": "None", "rules": ["nothing"], "matching": {"user": "x"}, "reason": "x",
    });
    assert_eq!(one.ask("POST", "/api/v1/rules/exceptions", &for_none).0, 400);
    server.kill();
    let server = start(&data, &rules);
    let (one, other) = (of(&server, &acme), of(&server, &blue));

    one.send(&[event("a2", "privilege_change", "ada")]);
    other.send(&[event("b2", "privilege_change", "ada")]);
    one.send(&[event("a3", "session_opened", "tester"), event("a4", "session_opened", "eve")]);
    // Left out matches are not counted either: these are four, with the three before.
    let tests: Vec<Value> =
        (10..13).map(|n| event(&format!("f{n}"), "login_failed", "test-7")).collect();
    one.send(&tests);
    one.send(&failures(3, 4));
    assert_eq!(other.alerts(), ["admin low"]);
    assert_eq!(one.alerts(), ["own medium", "own medium"]);
    one.send(&failures(4, 5));
    until("the correlation has alerted", || one.alerts().len() == 3);
    assert_eq!(one.alerts(), ["many high", "own medium", "own medium"]);

    let detail = one.does("GET", "/api/v1/rules/own", Value::Null);
    assert_eq!(detail["exceptions"], json!(["Over", "Test users"]), "{detail}");
    assert!(detail["text"].as_str().unwrap().contains("session_opened"), "{detail}");
    assert_eq!(detail["fields"][0]["name"], "type");
    let disabled = one.does("GET", "/api/v1/rules?enabled=false", Value::Null);
    assert_eq!(disabled["rules"][0]["id"], "admin", "{disabled}");
    let listed = one.does("GET", "/api/v1/rules/exceptions", Value::Null);
    assert_eq!(listed["exceptions"].as_array().unwrap().len(), 2, "{listed}");

    // Back again.
    one.does("DELETE", "/api/v1/rules/exceptions/Test%20users", Value::Null);
    one.does("PATCH", "/api/v1/rules/admin", json!({"enabled": true}));
    one.does("DELETE", "/api/v1/rules/own", Value::Null);
    one.send(&[event("a5", "privilege_change", "ada"), event("a6", "session_opened", "tester")]);
    assert_eq!(one.alerts(), ["admin critical", "many high", "own medium", "own medium"]);
    server.terminate();
}

#[test]
fn two_tenants_have_rules_of_one_id_and_replace_the_installations() {
    let directory = tempfile::tempdir().unwrap();
    let (data, rules) = (directory.path().join("data"), vendor(directory.path()));
    std::fs::create_dir_all(&data).unwrap();
    let scopes = "ingest,query,admin";
    let [acme, blue] = ["acme", "blue"].map(|tenant| create_key(&data, tenant, tenant, scopes));
    let server = start(&data, &rules);
    let [one, other] = [&acme, &blue].map(|key| of(&server, key));
    // The same correlation for both, over the installation's rule; and a rule in the place of the installation's.
    let few = MANY.replace("id: many", "id: few").replace("gte: 5", "gte: 2");
    let admin = ADMIN.replace("privilege_change", "login_root");
    for (caller, files) in [(&one, format!("{few}---\n{admin}")), (&other, few.clone())] {
        let body = json!({"files": [{"name": "x.yml", "text": files}]});
        let answer = caller.does("POST", "/api/v1/rules", body);
        assert_eq!(answer["refused"], json!([]), "{answer}");
    }
    for (caller, id) in [(&one, "a"), (&other, "b")] {
        caller.send(&[
            event(&format!("{id}1"), "login_failed", "bob"),
            event(&format!("{id}2"), "privilege_change", "ada"),
            event(&format!("{id}3"), "login_root", "ada"),
        ]);
    }
    assert_eq!(one.alerts(), ["admin critical"]);
    assert_eq!(other.alerts(), ["admin critical"]);
    let matched = |caller: &Caller<'_>| {
        let sql = "SELECT fields FROM alerts WHERE rule_id = 'admin'";
        rows(server.ask(caller.key.as_deref(), sql).1.as_bytes())[0]["fields"].clone()
    };
    assert_eq!(matched(&one), json!(["type=login_root"]));
    assert_eq!(matched(&other), json!(["type=privilege_change"]));
    // Each counts its own.
    one.send(&[event("a4", "login_failed", "bob")]);
    until("the tenant's correlation has alerted", || one.alerts().len() == 2);
    assert_eq!(one.alerts(), ["admin critical", "few high"]);
    assert_eq!(other.alerts(), ["admin critical"]);

    let put = json!({"text": few.replace("gte: 2", "gte: 3")});
    one.does("PUT", "/api/v1/rules/few", put.clone());
    assert_eq!(one.ask("PUT", "/api/v1/rules/other", &put).0, 400);
    let wrong = json!({"text": WRONG});
    let (status, answer) = one.ask("PUT", "/api/v1/rules/wrong", &wrong);
    assert!(status == 400 && answer["detail"].as_str().unwrap().contains("line 7"), "{answer}");
    server.terminate();
}

#[test]
fn a_report_tells_rates_costs_and_blindness() {
    let directory = tempfile::tempdir().unwrap();
    let (data, rules) = (directory.path().join("data"), vendor(directory.path()));
    std::fs::create_dir_all(&data).unwrap();
    let server = start(&data, &rules);
    let caller = Caller { server: &server, key: None };
    let mut events: Vec<Value> =
        (0..40).map(|n| event(&format!("e{n}"), "privilege_change", "ada")).collect();
    events.push(
        json!({"event_id": "w1", "EventID": 1, "Channel": "Microsoft-Windows-Sysmon/Operational",
        "winlog": {"event_data": {"Image": "C:\\a.exe"}}}),
    );
    caller.send(&events);
    server.wait_visible();
    let blind = "title: Blind\nid: blind\nlogsource:\n  category: authentication\ndetection:\n  selection:\n    type: privilege_change\n    colour: red\n  condition: selection\n";
    let half = "title: Half\nid: half\nlogsource:\n  category: authentication\ndetection:\n  selection:\n    - type: privilege_change\n    - colour: red\n  condition: selection\n";
    let unseen = "title: Unseen\nid: unseen\nlogsource:\n  product: zeek\n  service: dns\ndetection:\n  selection:\n    type: privilege_change\n  condition: selection\n";
    let mapped = "title: Mapped\nid: mapped\nlogsource:\n  product: windows\n  category: process_creation\ndetection:\n  selection:\n    Image|endswith: b.exe\n  condition: selection\n";
    let all = [blind, half, unseen, mapped, WRONG].join("---\n");
    let body = json!({"files": [{"name": "new.yml", "text": all}], "ids": ["many"], "days": 7});
    let report = caller.does("POST", "/api/v1/rules/report", body);
    assert_eq!((&report["rows"], &report["sampled"]), (&json!(41), &json!(41)), "{report}");
    let rule = |id: &str| {
        let rules = report["rules"].as_array().unwrap();
        rules
            .iter()
            .find(|rule| rule["id"] == id)
            .unwrap_or_else(|| panic!("{id}: {report}"))
            .clone()
    };
    let (blind, half, unseen, mapped) =
        (rule("blind"), rule("half"), rule("unseen"), rule("mapped"));
    assert_eq!((&blind["blind"], &blind["missing"]), (&json!(true), &json!(["colour"])), "{blind}");
    assert_eq!((&half["blind"], &half["matches"]), (&json!(false), &json!(40)), "{half}");
    assert!(half["alerts_per_day"].as_f64().unwrap() >= 40.0, "{half}");
    assert!(half["micros_per_million"].as_f64().is_some(), "{half}");
    assert_eq!((&unseen["blind"], &unseen["source_rows"]), (&json!(true), &json!(0)), "{unseen}");
    // The field was sent under a name that a shape of records has for it.
    assert_eq!((&mapped["blind"], &mapped["missing"]), (&json!(false), &json!([])), "{mapped}");
    assert_eq!(report["refused"].as_array().unwrap().len(), 1, "{report}");
    assert_eq!(report["correlations"][0]["id"], "many", "{report}");

    // A field that was sent long ago is found too, once it is in a segment.
    let body = json!({"ids": ["admin"]});
    let admin = caller.does("POST", "/api/v1/rules/report", body)["rules"][0].clone();
    assert_eq!((&admin["blind"], &admin["missing"]), (&json!(false), &json!([])), "{admin}");
    assert_eq!(caller.ask("POST", "/api/v1/rules/report", &json!({})).0, 400);

    let lint = json!({"files": [{"name": "w.yml", "text": WRONG}, {"name": "o.yml", "text": OWN}]});
    let lint = caller.does("POST", "/api/v1/rules/lint", lint);
    assert_eq!((&lint["rules"], &lint["refused"][0]["line"]), (&json!(1), &json!(7)), "{lint}");
    let event = event("x", "privilege_change", "ada");
    let of_id = json!({"event": event, "rule": "admin"});
    let explained = caller.does("POST", "/api/v1/rules/explain", of_id);
    assert_eq!(explained["explanations"][0]["matches"], true, "{explained}");
    let of_text = json!({"event": event, "text": OWN});
    let explained = caller.does("POST", "/api/v1/rules/explain", of_text);
    assert_eq!(explained["explanations"][0]["matches"], false, "{explained}");
    let of_all = caller.does("POST", "/api/v1/rules/explain", json!({"event": event}));
    assert_eq!(of_all["explanations"].as_array().unwrap().len(), 1, "{of_all}");
    let unknown = json!({"event": event, "rule": "nothing"});
    assert_eq!(caller.ask("POST", "/api/v1/rules/explain", &unknown).0, 404);
    server.terminate();
}

#[test]
fn the_commands_work_with_and_without_a_server() {
    let directory = tempfile::tempdir().unwrap();
    let (data, rules) = (directory.path().join("data"), vendor(directory.path()));
    std::fs::create_dir_all(&data).unwrap();
    let own = directory.path().join("own.yml");
    std::fs::write(&own, format!("{OWN}---\n{WRONG}")).unwrap();
    start(&data, &rules).terminate();

    // Without a server, and without the configuration: its files stay in force all the same.
    let run = |words: &[&str]| output(palisade(&data).arg("rule").args(words));
    let path = own.to_str().unwrap();
    let deployed = run(&["deploy", path, "--tenant", "acme"]);
    assert_eq!(deployed.status.code(), Some(1), "{deployed:?}");
    let said = text(&deployed.stdout);
    assert!(said.contains("own.yml:17: wrong: refused") && said.contains("1 deployed"), "{said}");
    let disabled = run(&["disable", "admin"]);
    assert!(disabled.status.success(), "{disabled:?}");
    assert!(text(&disabled.stderr).contains("In force: set "), "{disabled:?}");
    assert!(!run(&["disable", "nothing"]).status.success());
    let key = create_key(&data, "acme", "acme", "ingest,query,admin");
    let open = create_key(&data, "default", "default", "ingest,query,admin");

    let server = start(&data, &rules);
    let acme = of(&server, &key);
    let default = of(&server, &open);
    for caller in [&acme, &default] {
        caller.send(&[event("1", "session_opened", "ada"), event("2", "privilege_change", "ada")]);
    }
    assert_eq!(acme.alerts(), ["admin critical", "own medium"]);
    assert!(default.alerts().is_empty());

    // With one, which takes the tenant from the key.
    let run = |key: &str, words: &[&str]| {
        let mut command = palisade(&data);
        command.arg("rule").args(words).env("PALISADE_KEY", key).env("PALISADE_URL", &server.url);
        output(&mut command)
    };
    let wrong_key = run(&open, &["disable", "own", "--tenant", "acme"]);
    assert!(text(&wrong_key.stderr).contains("the key is of the tenant default"), "{wrong_key:?}");
    for words in [
        &["severity", "own", "high", "--tenant", "acme"][..],
        &["exception", "add", "Eve", "--rule", "own", "--match", "user=eve", "--reason", "a test"],
        &["remove", "nothing"],
    ] {
        let done = run(&key, words);
        assert_eq!(done.status.success(), words[0] != "remove", "{done:?}");
    }
    let listed = run(&key, &["exception", "list"]);
    assert_eq!(rows(&listed.stdout)[0]["name"], "Eve", "{listed:?}");
    acme.send(&[event("3", "session_opened", "eve"), event("4", "session_opened", "ada")]);
    assert_eq!(acme.alerts(), ["admin critical", "own high", "own medium"]);
    let reported = run(&key, &["report", path, "--id", "admin"]);
    assert_eq!(reported.status.code(), Some(1), "one document is wrong: {reported:?}");
    let report: Value = serde_json::from_slice(&reported.stdout).unwrap();
    assert_eq!(report["rules"].as_array().unwrap().len(), 2, "{report}");
    assert!(run(&open, &["enable", "admin"]).status.success());
    // The installation's, by its administrators.
    let everyone = directory.path().join("everyone.yml");
    let everywhere =
        OWN.replace("id: own", "id: everywhere").replace("session_opened", "session_window");
    std::fs::write(&everyone, everywhere).unwrap();
    let path = everyone.to_str().unwrap();
    assert!(!run(&key, &["deploy", path]).status.success());
    let deployed = run(&open, &["deploy", path, "--report"]);
    assert!(deployed.status.success(), "{deployed:?}");
    assert!(
        text(&deployed.stdout).contains("never sent")
            || text(&deployed.stdout).contains("everywhere")
    );
    acme.send(&[event("5", "session_window", "ada")]);
    assert!(acme.alerts().contains(&"everywhere medium".to_owned()));
    server.terminate();
}

#[test]
fn fields_that_rules_need_have_columns_beyond_the_bound() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let server = Server::start_with(palisade(&data).env("PALISADE_LIMITS__DYNAMIC_COLUMNS", "10"));
    let caller = Caller { server: &server, key: None };
    let rule =
        ADMIN.replace("id: admin", "id: zebra").replace("type: privilege_change", "zebra: 1");
    let body = json!({"files": [{"name": "zebra.yml", "text": rule}]});
    caller.does("POST", "/api/v1/rules?owner=installation", body);
    let mut fields: serde_json::Map<String, Value> =
        (0..40).map(|n| (format!("field_{n:02}"), json!(n))).collect();
    fields.insert("event_id".into(), json!("1"));
    fields.insert("type".into(), json!("login"));
    fields.insert("zebra".into(), json!(1));
    caller.send(&[Value::Object(fields)]);
    assert_eq!(caller.alerts(), ["zebra critical"]);
    let columns: Vec<String> = server
        .rows("DESCRIBE events")
        .iter()
        .map(|row| row["column_name"].as_str().unwrap().to_owned())
        .collect();
    assert!(columns.contains(&"zebra".to_owned()), "{columns:?}");
    assert!(!columns.contains(&"field_39".to_owned()), "{columns:?}");
    server.terminate();
}

/// Alerts of rules and correlations: rule, revision, whether they are old news, and their id.
fn alerts_with_history(server: &Server) -> Vec<(String, i64, bool, String)> {
    let sql = "SELECT rule_id, revision, historical, alert_id FROM alerts
               WHERE detector IN ('sigma', 'correlation') ORDER BY rule_id, alert_id, revision";
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    let rows = server.rows(sql).into_iter().map(|row| {
        let is_old = row["historical"].as_bool().unwrap_or_default();
        (text(&row, "rule_id"), row["revision"].as_i64().unwrap(), is_old, text(&row, "alert_id"))
    });
    rows.collect()
}

/// B1: history up to the activation, live from there, nothing twice; the same alerts as a hunt over all of it.
#[test]
fn rules_are_deployed_with_history_and_then_live() {
    let directory = tempfile::tempdir().unwrap();
    let (data, rules) = (directory.path().join("data"), directory.path().join("rules"));
    std::fs::create_dir_all(&rules).unwrap();
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(rules.join("all.yml"), format!("{FAILED}---\n{MANY}---\n{ADMIN}")).unwrap();
    let server = Server::start_with(&mut palisade(&data));
    let caller = Caller { server: &server, key: None };
    let at = |address: &str, id: &str, kind: &str| {
        let mut event = event(id, kind, "bob");
        event["src_ip"] = json!(address);
        event
    };
    // Before: one address fails often enough, another not yet.
    let many: Vec<Value> =
        (0..6).map(|n| at("203.0.113.1", &format!("a{n}"), "login_failed")).collect();
    let few: Vec<Value> =
        (0..4).map(|n| at("203.0.113.2", &format!("b{n}"), "login_failed")).collect();
    caller.send(&many);
    caller.send(&few);
    caller.send(&[at("203.0.113.3", "p1", "privilege_change")]);
    server.wait_visible();
    let deployed = output(
        palisade(&data)
            .args([
                "rule",
                "deploy",
                "--backfill",
                "all",
                "--then-live",
                "--no-wait",
                "--url",
                &server.url,
            ])
            .arg(&rules),
    );
    assert!(deployed.status.success(), "{deployed:?}");
    // It goes on where it was, whatever it had done by now.
    server.kill();
    let server = Server::start_with(&mut palisade(&data));
    let caller = Caller { server: &server, key: None };
    caller.send(&[
        at("203.0.113.2", "b4", "login_failed"),
        at("203.0.113.3", "p2", "privilege_change"),
    ]);
    let done = || {
        let status = caller.does("GET", "/api/v1/config", Value::Null);
        status["backfill"]["done"] == true
    };
    until("history is read", done);
    let firsts = || {
        let found = alerts_with_history(&server).into_iter();
        let mut firsts: Vec<(String, bool)> = found
            .filter(|(_, revision, ..)| *revision == 0)
            .map(|(rule, _, is_old, _)| (rule, is_old))
            .collect();
        firsts.sort();
        firsts
    };
    let wanted = [("admin", false), ("admin", true), ("many", false), ("many", true)];
    let wanted: Vec<(String, bool)> = wanted.map(|(rule, old)| (rule.to_owned(), old)).to_vec();
    until("old and new news have alerts", || firsts() == wanted);
    let status = caller.does("GET", "/api/v1/config", Value::Null);
    assert_eq!(status["backfill"]["rows"], 11, "{status}");

    // Nothing comes twice after another crash, and a second backfill of the same rules is none.
    server.kill();
    let server = Server::start_with(&mut palisade(&data));
    server.wait_visible();
    let again = output(
        palisade(&data)
            .args(["rule", "deploy", "--backfill", "1d", "--url", &server.url])
            .arg(&rules),
    );
    assert!(again.status.success(), "{again:?}");
    let found = alerts_with_history(&server);
    let mut once = found.clone();
    once.dedup();
    assert_eq!(once.len(), found.len(), "{found:?}");
    let ids = |found: Vec<(String, i64, bool, String)>| {
        let mut ids: Vec<(String, String)> =
            found.into_iter().map(|(rule, _, _, id)| (rule, id)).collect();
        ids.sort();
        ids.dedup();
        ids
    };
    let hunted = output(palisade(&data).args(["hunt", "--json", "--url", &server.url]));
    let hunted: Vec<Value> = rows(&hunted.stdout);
    let word = |alert: &Value, name: &str| alert[name].as_str().unwrap().to_owned();
    let mut of_hunt: Vec<(String, String)> =
        hunted.iter().map(|alert| (word(alert, "rule_id"), word(alert, "alert_id"))).collect();
    of_hunt.sort();
    assert_eq!(ids(found), of_hunt);
    server.terminate();
}
