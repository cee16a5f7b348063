//! ClickHouse's engine as a Python process that answers queries, one JSON line each.

use super::answers::Answer;
use crate::server::Failure;
use serde::Deserialize;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// What the process runs.
const PROGRAM: &str = include_str!("clickhouse.py");
/// The program's exit code when there is no `chdb`.
const NO_CHDB: i32 = 3;

/// A running engine; ended when dropped.
pub(super) struct ClickHouse {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

/// What the process says to a query.
#[derive(Debug, Deserialize)]
struct Said {
    #[serde(default)]
    seconds: f64,
    #[serde(default)]
    rows: Answer,
    error: Option<String>,
}

impl ClickHouse {
    /// Starts Python with the engine in it.
    pub(super) fn start(python: &Path, threads: usize) -> Result<Self, Failure> {
        let mut child = Command::new(python)
            .args(["-c", PROGRAM])
            .arg(threads.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| {
                format!("{} does not start: {error}; name a Python with --python", python.display())
            })?;
        let to = child.stdin.take().ok_or("Python has no input")?;
        let from = child.stdout.take().ok_or("Python has no output")?;
        let mut engine = Self { child, to, from: BufReader::new(from) };
        let mut ready = String::new();
        engine.from.read_line(&mut ready)?;
        if ready.trim() == "ready" {
            return Ok(engine);
        }
        let status = engine.child.wait()?;
        if status.code() == Some(NO_CHDB) {
            return Err(format!(
                "{0} has no module chdb: `python3 -m venv venv && venv/bin/pip install chdb`, then \
                 `--python venv/bin/python`; or measure Palisade only with --alone",
                python.display()
            )
            .into());
        }
        Err(format!("Python ended with {status}; what it said stands above").into())
    }

    /// How long a query takes, in seconds.
    pub(super) fn time(&mut self, sql: &str) -> Result<f64, Failure> {
        Ok(self.ask(sql, false)?.seconds)
    }

    /// The answer to a query.
    pub(super) fn answer(&mut self, sql: &str) -> Result<Answer, Failure> {
        Ok(self.ask(sql, true)?.rows)
    }

    fn ask(&mut self, sql: &str, rows: bool) -> Result<Said, Failure> {
        let request = serde_json::json!({"sql": sql, "rows": rows});
        writeln!(self.to, "{request}")?;
        self.to.flush()?;
        let mut line = String::new();
        if self.from.read_line(&mut line)? == 0 {
            return Err("ClickHouse's engine ended; what it said stands above".into());
        }
        let said: Said = serde_json::from_str(&line)?;
        match said.error {
            Some(error) => Err(format!("ClickHouse: {sql}: {error}").into()),
            None => Ok(said),
        }
    }
}

impl Drop for ClickHouse {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
