//! `palisade demo`.

use crate::Outcome;
use crate::config::Config;
use crate::reload::Source;
use crate::server::{Failure, Server};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use palisade_event::TenantId;
use palisade_ingest::submit::DomainTurn;
use palisade_testkit::load::{Connection, Target};
use palisade_testkit::simulator::{Detection, Simulator, SimulatorOptions, evaluate};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Records in one request of the simulator.
const BATCH: usize = 2000;

/// Simulate a company's day against a server of this process, show what was detected against what was
/// planted, and keep serving.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Records of the simulated day.
    #[arg(long, default_value_t = 2_000_000)]
    records: u64,
    /// The seed: the same one gives the same day.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Stop when the results are shown, instead of serving on.
    #[arg(long)]
    exit: bool,
}

impl Demo {
    pub(crate) fn run(self, config: &Config) -> Outcome {
        let mut config = config.clone();
        config.data = config.data.join("demo");
        if config.data.exists() {
            // Only what an earlier demo made is ever removed.
            if !config.data.join("catalog.db").exists() {
                return Err(format!(
                    "{} is in the way and was not made by a demo; move it",
                    config.data.display()
                )
                .into());
            }
            std::fs::remove_dir_all(&config.data)?;
        }
        let server = Server::start(&config, Source::default())?;
        let url = server.url();
        println!("Palisade listens on {url}, data in {}", config.data.display());
        println!(
            "Simulating one day of a company of 500 people and 200 hosts: {} records over HTTP, attacks among them.",
            self.records
        );
        let mut simulator = Simulator::new(SimulatorOptions {
            seed: self.seed,
            records: self.records,
            ..SimulatorOptions::default()
        });
        let begun = Instant::now();
        let sent = send(&server, &mut simulator, self.seed)?;
        let seconds = begun.elapsed().as_secs_f64();
        println!(
            "{sent} records acknowledged after fsync in {seconds:.1} s ({:.0} a second), all detectors on.\n",
            sent as f64 / seconds
        );
        if !server.engine().wait_visible(Duration::from_secs(120)) {
            return Err("the records did not become visible; see the messages above".into());
        }
        show_detections(&server, &simulator)?;
        show_queries(&server)?;
        println!("\nThe page is at {url}/");
        if self.exit {
            return if server.stop(Duration::from_secs(120)) {
                Ok(ExitCode::SUCCESS)
            } else {
                Err("not everything could be committed in time".into())
            };
        }
        println!("Ctrl-C stops it.");
        if let Some(message) = server.wait(server.signals()?) {
            eprintln!("palisade: stopped: {message}");
            std::process::exit(1);
        }
        server.stop(Duration::from_secs(60));
        Ok(ExitCode::SUCCESS)
    }
}

/// Sends the whole day, in order, over one connection.
fn send(server: &Server, simulator: &mut Simulator, seed: u64) -> Result<u64, Failure> {
    let address = server.url().trim_start_matches("http://").parse()?;
    let target = Target {
        address,
        path: format!("/api/v1/streams/events/records?source=simulator&domain=simulated-{seed}"),
        headers: String::new(),
    };
    // A historical load: its domain starts before and ends behind its records (T2).
    let turn = |turn: DomainTurn| {
        let domain = Arc::from(format!("simulated-{seed}"));
        server.block_on(server.submit().turn_domain(TenantId::default_tenant(), domain, turn))
    };
    turn(DomainTurn::Starts)?;
    let bar = ProgressBar::new(simulator.total()).with_style(ProgressStyle::with_template(
        "{elapsed_precise} {wide_bar} {human_pos}/{human_len} records, {per_sec}, {eta} left",
    )?);
    let mut connection = Connection::open(&target)?;
    let mut body = Vec::new();
    let mut sent = 0;
    loop {
        body.clear();
        let records = simulator.fill(&mut body, BATCH);
        if records == 0 {
            bar.finish_and_clear();
            turn(DomainTurn::Ends)?;
            return Ok(sent);
        }
        loop {
            let answer = connection.send("", &body)?;
            match answer.status {
                200 => break,
                429 | 503 => std::thread::park_timeout(Duration::from_millis(50)),
                status => {
                    let text = String::from_utf8_lossy(&answer.body);
                    return Err(format!("the server answered {status}: {text}").into());
                }
            }
        }
        sent += records as u64;
        bar.inc(records as u64);
    }
}

fn ask(server: &Server, sql: &str, format: &str) -> Result<String, Failure> {
    let request = serde_json::json!({"sql": sql, "format": format, "max_rows": 200_000});
    let mut answer = ureq::post(format!("{}/api/v1/query", server.url()))
        .header("content-type", "application/json")
        .config()
        .http_status_as_error(false)
        .build()
        .send(request.to_string().as_bytes())?;
    let text = answer.body_mut().with_config().limit(256 << 20).read_to_string()?;
    if answer.status() == 200 { Ok(text) } else { Err(format!("{sql}: {text}").into()) }
}

fn show_detections(server: &Server, simulator: &Simulator) -> Result<(), Failure> {
    let rows = ask(
        server,
        "SELECT CAST(time AS BIGINT) AS micros, \"user\", src_ip, event_id FROM alerts",
        "jsonl",
    )?;
    let detections: Vec<Detection> = rows
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .map(|row| {
            let text =
                |name: &str| row.get(name).and_then(serde_json::Value::as_str).map(str::to_owned);
            Detection {
                time: row.get("micros").and_then(serde_json::Value::as_i64).unwrap_or(0),
                user: text("user"),
                src_ip: text("src_ip"),
                event_ids: text("event_id").into_iter().collect(),
            }
        })
        .collect();
    println!("Planted against detected:");
    println!("{}", evaluate(simulator.labels(), &detections));
    Ok(())
}

fn show_queries(server: &Server) -> Result<(), Failure> {
    let queries = [
        (
            "Who fails most?",
            "SELECT \"user\", count(*) AS failures FROM events WHERE outcome IN ('failure', 'failed') GROUP BY \"user\" ORDER BY failures DESC LIMIT 5",
        ),
        (
            "What was unusual, and how bad?",
            "SELECT detector, severity, count(*) AS alerts, round(max(score), 3) AS worst FROM alerts GROUP BY detector, severity ORDER BY alerts DESC LIMIT 8",
        ),
        (
            "Where do attack payloads come from?",
            "SELECT src_ip, threat_class, count(*) AS requests, round(avg(entropy), 2) AS entropy FROM events WHERE threat_class IS NOT NULL GROUP BY src_ip, threat_class ORDER BY requests DESC LIMIT 5",
        ),
    ];
    for (title, sql) in queries {
        let begun = Instant::now();
        let answer = ask(server, sql, "table")?;
        println!("\n{title} ({:.0} ms)\n  {sql}\n{answer}", begun.elapsed().as_secs_f64() * 1e3);
    }
    Ok(())
}
