//! A real server process with a data directory of its own, and how to talk to it.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub(crate) const RECORDS: &str = "/api/v1/streams/events/records";
pub(crate) const LONGEST: Duration = Duration::from_secs(60);

/// The binary, without the settings of whoever runs the tests.
pub(crate) fn palisade(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_palisade"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PALISADE_")) {
        command.env_remove(name);
    }
    command.arg("--data").arg(data).env("PALISADE_LOGGING__LEVEL", "warn");
    // Where no server listens: commands must open the data directory themselves.
    command.env("PALISADE_HTTP__LISTEN", "127.0.0.1:1").stdin(Stdio::null());
    command
}

pub(crate) fn output(command: &mut Command) -> Output {
    command.output().expect("the binary runs")
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn rows(bytes: &[u8]) -> Vec<Value> {
    text(bytes).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A running server, killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
    agent: ureq::Agent,
    errors: Arc<Mutex<String>>,
}

impl Server {
    pub(crate) fn start(data: &Path) -> Self {
        Self::start_with(&mut palisade(data))
    }

    /// Starts the server of a command without its verb, which may bring further settings.
    pub(crate) fn start_with(command: &mut Command) -> Self {
        let mut child = command
            .arg("run")
            .env("PALISADE_HTTP__LISTEN", "127.0.0.1:0")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let errors = Arc::new(Mutex::new(String::new()));
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let kept = Arc::clone(&errors);
        std::thread::spawn(move || {
            let mut line = String::new();
            while stderr.read_line(&mut line).is_ok_and(|read| read > 0) {
                eprint!("{line}");
                kept.lock().unwrap().push_str(&line);
                line.clear();
            }
        });
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().expect("the server says where it listens").unwrap();
        std::thread::spawn(move || lines.for_each(drop));
        let url = first.split("listens on ").nth(1).unwrap().split(',').next().unwrap();
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(LONGEST))
            .build()
            .new_agent();
        Self { child, url: url.to_owned(), agent, errors }
    }

    /// What it wrote to its log so far.
    pub(crate) fn log(&self) -> String {
        self.errors.lock().unwrap().clone()
    }

    /// SIGHUP.
    pub(crate) fn hangup(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    }

    /// Status and body of a path.
    pub(crate) fn get(&self, path: &str) -> (u16, Value) {
        let mut answer = self.agent.get(format!("{}{path}", self.url)).call().unwrap();
        let body = answer.body_mut().read_to_string().unwrap();
        (answer.status().as_u16(), serde_json::from_str(&body).unwrap_or(Value::String(body)))
    }

    pub(crate) fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, Value) {
        let mut request = self.agent.post(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut answer = request.send(body).unwrap();
        let body = answer.body_mut().read_to_string().unwrap();
        (answer.status().as_u16(), serde_json::from_str(&body).unwrap_or(Value::String(body)))
    }

    pub(crate) fn records(&self, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
        let headers = [&[("content-type", "application/x-ndjson")], headers].concat();
        self.post(RECORDS, &headers, body.as_bytes())
    }

    /// Status and body of a query, once every acknowledged record is visible.
    pub(crate) fn ask(&self, key: Option<&str>, sql: &str) -> (u16, String) {
        self.wait_visible();
        let mut request = self.agent.post(format!("{}/api/v1/query", self.url));
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let query = json!({"sql": sql, "format": "jsonl"}).to_string();
        let mut answer =
            request.header("content-type", "application/json").send(query.as_bytes()).unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    }

    pub(crate) fn rows(&self, sql: &str) -> Vec<Value> {
        let (status, body) = self.ask(None, sql);
        assert_eq!(status, 200, "{body}");
        rows(body.as_bytes())
    }

    pub(crate) fn wait_visible(&self) {
        until("everything is visible", || {
            let mut answer = self.agent.get(format!("{}/readyz", self.url)).call().unwrap();
            let progress: Value =
                serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
            progress["ready"] == true && progress["lag_entries"] == 0
        });
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; it must end by itself, with success.
    pub(crate) fn terminate(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let mut status = None;
        until("the server has ended", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        assert!(status.unwrap().success(), "{status:?}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + LONGEST;
    while !condition() {
        assert!(Instant::now() < end, "not within {LONGEST:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// Events of the user ada.
pub(crate) fn events(ids: std::ops::Range<u32>) -> String {
    ids.map(|id| {
        format!("{{\"event_id\":\"e{id}\",\"user\":\"ada\",\"type\":\"LOGIN\",\"n\":{id}}}\n")
    })
    .collect()
}

pub(crate) fn create_key(data: &Path, name: &str, tenant: &str, scopes: &str) -> String {
    let made = output(
        palisade(data).args(["key", "create", name, "--tenant", tenant, "--scopes", scopes]),
    );
    assert!(made.status.success(), "{made:?}");
    text(&made.stdout).trim().to_owned()
}
