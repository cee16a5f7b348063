//! StreamGuard's endpoints over HTTP, for users that are common, rare and absent.

use super::data;
use crate::Outcome;
use crate::config::Config;
use crate::reload::Source;
use crate::server::{Failure, Server};
use palisade_testkit::load::Latencies;
use palisade_testkit::streamguard::{RATE, START};
use serde::Serialize;
use serde_json::Value;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// An endpoint is asked this often …
const REQUESTS: usize = 200;
/// … but no longer than this.
const LONGEST: Duration = Duration::from_secs(10);

/// What is printed of an endpoint.
#[derive(Debug, Serialize)]
struct Line {
    name: String,
    path: String,
    rows: usize,
    requests: u64,
    p50_ms: f64,
    p99_ms: f64,
}

/// Starts a server on the data and measures one endpoint after the other, over one connection.
pub(super) fn measure(config: &Config, directory: &Path, rows: u64, json: bool) -> Outcome {
    let server = Server::start(&data::alone(config, directory), Source::only_to_ask())?;
    let result = Client::new(server.url()).and_then(|client| client.measure(rows, json));
    server.stop(Duration::from_secs(60));
    result?;
    Ok(ExitCode::SUCCESS)
}

struct Client {
    url: String,
    agent: ureq::Agent,
}

impl Client {
    fn new(url: String) -> Result<Self, Failure> {
        Ok(Self { url, agent: ureq::Agent::new_with_defaults() })
    }

    fn get(&self, path: &str) -> Result<Value, Failure> {
        let url = format!("{}{path}", self.url);
        let mut answer = match self.agent.get(&url).call() {
            // What is not there is an answer too.
            Err(ureq::Error::StatusCode(404)) => return Ok(Value::Null),
            answer => answer.map_err(|error| format!("{path}: {error}"))?,
        };
        let text = answer.body_mut().with_config().limit(64 << 20).read_to_string()?;
        Ok(serde_json::from_str(&text)?)
    }

    fn ask(&self, sql: &str) -> Result<Vec<Value>, Failure> {
        let request = serde_json::json!({"sql": sql, "format": "jsonl"}).to_string();
        let mut answer = self
            .agent
            .post(format!("{}/api/v1/query", self.url))
            .header("content-type", "application/json")
            .send(request.as_bytes())?;
        let text = answer.body_mut().read_to_string()?;
        text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    fn text(&self, sql: &str) -> Result<String, Failure> {
        let rows = self.ask(sql)?;
        let text = rows.first().and_then(|row| row.get("x")?.as_str());
        Ok(text.ok_or_else(|| format!("nothing to ask about: {sql}"))?.to_owned())
    }

    fn measure(&self, rows: u64, json: bool) -> Result<(), Failure> {
        let users = |order: &str, offset: u32| {
            format!(
                "SELECT \"user\" AS x, count(*) AS n FROM events WHERE \"user\" IS NOT NULL \
                 GROUP BY \"user\" ORDER BY n {order}, \"user\" LIMIT 1 OFFSET {offset}"
            )
        };
        let common = self.text(&users("DESC", 0))?;
        let rare = self.text(&users("ASC", 0))?;
        let middle = START / 1000 + (rows / 2 / u64::from(RATE)) as i64;
        let around = format!(
            "FROM events WHERE time >= to_timestamp({middle}) AND \
             time < to_timestamp({middle} + 60) ORDER BY position LIMIT 1"
        );
        let event = self.text(&format!("SELECT event_id AS x {around}"))?;
        let record = self.text(&format!("SELECT id AS x {around}"))?;
        let anomaly = self.text("SELECT event_id AS x FROM alerts ORDER BY position LIMIT 1")?;
        let absent = "evt_1_000000";
        let unknown = "00112233445566778899aabbccddeeff";
        let (low, high) = (middle * 1000, (middle + 3600) * 1000);
        let endpoints = [
            ("latest events", "/api/events?limit=100".to_owned()),
            ("1,000 latest events", "/api/events?limit=1000".to_owned()),
            ("events of a common user", format!("/api/events/user/{common}")),
            ("events of a rare user", format!("/api/events/user/{rare}")),
            ("events of an absent user", "/api/events/user/nobody.nowhere".to_owned()),
            ("event by its sender's id", format!("/api/events/{event}")),
            ("event by an id nobody sent", format!("/api/events/{absent}")),
            ("event by its record's id", format!("/api/events/{record}")),
            ("event by an absent record's id", format!("/api/events/{unknown}")),
            ("threats", "/api/events/threats".to_owned()),
            ("an hour", format!("/api/events/time-range?start_time={low}&end_time={high}")),
            ("count", "/api/events/count".to_owned()),
            ("counts by type", "/api/events/counts-by-type".to_owned()),
            ("latest anomalies", "/api/anomalies".to_owned()),
            ("high anomalies", "/api/anomalies/high-score?threshold=0.9&limit=100".to_owned()),
            ("anomalies of a common user", format!("/api/anomalies/user/{common}")),
            ("anomalies of a rare user", format!("/api/anomalies/user/{rare}")),
            ("anomalies of an absent user", "/api/anomalies/user/nobody.nowhere".to_owned()),
            ("anomaly of an event", format!("/api/anomalies/{anomaly}")),
            ("anomaly of an absent event", format!("/api/anomalies/{absent}")),
            ("summary", "/api/stats/summary".to_owned()),
        ];
        for (name, path) in endpoints {
            let line = self.time(name, path)?;
            if json {
                println!("{}", serde_json::to_string(&line)?);
            } else {
                println!(
                    "{:<32} {:>6} rows  p50 {:>8.1} ms  p99 {:>8.1} ms",
                    line.name, line.rows, line.p50_ms, line.p99_ms
                );
            }
        }
        Ok(())
    }

    fn time(&self, name: &str, path: String) -> Result<Line, Failure> {
        let answer = self.get(&path)?;
        let mut latencies = Latencies::default();
        let begun = Instant::now();
        for _ in 0..REQUESTS {
            let asked = Instant::now();
            self.get(&path)?;
            latencies.add(asked.elapsed());
            if begun.elapsed() > LONGEST {
                break;
            }
        }
        Ok(Line {
            name: name.to_owned(),
            path,
            rows: answer.as_array().map_or(usize::from(!answer.is_null()), Vec::len),
            requests: latencies.len(),
            p50_ms: latencies.percentile_ms(0.5),
            p99_ms: latencies.percentile_ms(0.99),
        })
    }
}
