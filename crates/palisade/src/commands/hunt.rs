//! `palisade hunt`.

use crate::client::Client;
use crate::config::Config;
use crate::reload::Source;
use crate::server::{Failure, Server, check_data};
use crate::{Outcome, rules};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use palisade_event::TenantId;
use palisade_event::schema::EVENTS;
use palisade_event::time::{parse_event_time, rfc3339};
use palisade_pipeline::clock::{Clock, SystemClock};
use palisade_pipeline::hunt::{self, HuntLimits, Progress};
use palisade_pipeline::rules::Rules;
use palisade_table::provider::ReadCache;
use serde::Deserialize;
use serde_json::{Value, json};
use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The exit code of a hunt that found something, where that was asked for.
const FOUND: u8 = 3;
/// How often a hunt is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// The longest answer of a server that is read.
const MOST: u64 = 256 << 20;

/// Look for what rules and correlations match in stored history. A running server hunts in the background; without
/// one, the data directory is opened for this hunt. A table on a terminal, JSON lines in a pipe: the columns of the
/// table `alerts`.
#[derive(Debug, Args)]
pub(crate) struct Hunt {
    /// Files and directories of rules; those in force without one.
    #[arg(long, value_name = "PATH")]
    rules: Vec<PathBuf>,
    /// Of the rules in force only the one with this id; may be repeated.
    #[arg(long, value_name = "ID", conflicts_with = "rules")]
    id: Vec<String>,
    /// From which event time on, for example 2026-01-31T08:00:00Z; from the first record without it.
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Up to which event time; now without it.
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Let correlations also count records that came too late for the stream.
    #[arg(long)]
    include_late: bool,
    /// JSON lines, also on a terminal.
    #[arg(long)]
    json: bool,
    /// Exit with 3 when anything is found.
    #[arg(long)]
    fail_on_match: bool,
    /// Threads, when no server runs; 0 is one a core.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// The tenant, when no server runs; a server takes the tenant from the key.
    #[arg(long, default_value = TenantId::DEFAULT)]
    tenant: String,
    /// The server, for example https://siem.example.org.
    #[arg(long, env = "PALISADE_URL")]
    url: Option<String>,
}

/// What is told at the end.
struct Summary {
    alerts: u64,
    shown: u64,
    rows: u64,
    seconds: f64,
}

impl Hunt {
    pub(crate) fn run(self, config: &Config) -> Outcome {
        let client = Client::new(self.url.as_deref(), config);
        let out = std::io::stdout();
        let table = out.is_terminal() && !self.json;
        let mut out =
            Output { out: Box::new(std::io::BufWriter::new(out.lock())), table, count: 0 };
        let summary = if self.url.is_some() || client.is_up() {
            self.ask(&client, &mut out)?
        } else {
            self.alone(config, &mut out)?
        };
        out.out.flush()?;
        let Summary { alerts, shown, rows, seconds } = summary;
        let more =
            if alerts > shown { format!(", the first {shown} shown") } else { String::new() };
        eprintln!("{alerts} alerts in {rows} rows{more}; {seconds:.1} s");
        let found = alerts > 0 && self.fail_on_match;
        Ok(if found { ExitCode::from(FOUND) } else { ExitCode::SUCCESS })
    }

    fn time(&self, name: &str, text: Option<&String>, now: i64) -> Result<Option<i64>, Failure> {
        let Some(text) = text else { return Ok(None) };
        let time = parse_event_time(text, now);
        time.map(Some).ok_or_else(|| {
            format!("--{name} '{text}' is no time: write it as 2026-01-31T08:00:00Z").into()
        })
    }

    /// Lets a server hunt.
    fn ask(&self, client: &Client, out: &mut Output<'_>) -> Result<Summary, Failure> {
        let now = SystemClock::new().now();
        let mut request = json!({"include_late": self.include_late});
        if let Some(object) = request.as_object_mut() {
            for (name, text) in [("from", &self.from), ("to", &self.to)] {
                if let Some(time) = self.time(name, text.as_ref(), now)? {
                    object.insert(name.to_owned(), rfc3339(time).into());
                }
            }
            if !self.rules.is_empty() {
                let files = rules::read_files(&rules::find(&self.rules)?)?;
                let texts: Vec<String> = files.into_iter().map(|file| file.text).collect();
                object.insert("rules".to_owned(), texts.into());
            } else if !self.id.is_empty() {
                object.insert("rules".to_owned(), json!({"ids": self.id}));
            }
        }
        let headers = [("content-type", "application/json")];
        let mut body = String::new();
        client
            .post("/api/v1/hunts", &headers, request.to_string().as_bytes())?
            .take(MOST)
            .read_to_string(&mut body)?;
        let mut job: Job = serde_json::from_str(&body)?;
        let path = format!("/api/v1/hunts/{}", job.id);
        eprintln!("Hunt {} at {}", job.id, client.url());
        let bar = bar()?;
        while matches!(job.state.as_str(), "queued" | "running") {
            bar.set_length(job.progress.rows);
            bar.set_position(job.progress.rows_done);
            bar.set_message(if job.state == "queued" { "waits" } else { "" });
            std::thread::park_timeout(LOOK);
            body.clear();
            client.get(&path)?.take(MOST).read_to_string(&mut body)?;
            job = serde_json::from_str(&body)?;
        }
        bar.finish_and_clear();
        if job.state != "done" {
            let why = job.error.unwrap_or_default();
            return Err(format!("the hunt {} is {}: {why}", job.id, job.state).into());
        }
        if job.refused_rules > 0 {
            eprintln!(
                "{} documents are not loaded: `palisade rule lint` names them",
                job.refused_rules
            );
        }
        let mut cursor = Some("0".to_owned());
        while let Some(at) = cursor {
            body.clear();
            let page = client.get(&format!("{path}/results?cursor={at}"))?;
            page.take(MOST).read_to_string(&mut body)?;
            let page: Page = serde_json::from_str(&body)?;
            page.alerts.iter().try_for_each(|alert| out.alert(&alert.to_string()))?;
            cursor = page.next;
        }
        Ok(Summary {
            alerts: job.alerts,
            shown: job.results,
            rows: job.progress.rows,
            seconds: job.progress.seconds,
        })
    }

    /// Hunts in the data directory.
    fn alone(&self, config: &Config, out: &mut Output<'_>) -> Result<Summary, Failure> {
        check_data(&config.data)?;
        let mut alone = config.clone();
        alone.http.listen = ([127, 0, 0, 1], 0).into();
        alone.http.tls = None;
        alone.listeners.clear();
        let server = Server::start(&alone, Source::only_to_ask())?;
        if !server.engine().wait_visible(Duration::from_secs(600)) {
            return Err("the log could not be read to its end; see `palisade log verify`".into());
        }
        let found = self.hunt(&server, out);
        server.stop(Duration::from_secs(60));
        found
    }

    fn hunt(&self, server: &Server, out: &mut Output<'_>) -> Result<Summary, Failure> {
        let now = SystemClock::new().now();
        let from = self.time("from", self.from.as_ref(), now)?.unwrap_or(i64::MIN);
        let to = self.time("to", self.to.as_ref(), now)?.unwrap_or(now);
        if from >= to {
            return Err("--from must lie before --to".into());
        }
        let rules = self.loaded(server)?;
        let refused = rules.book.refused().len();
        if refused > 0 {
            eprintln!("{refused} documents are not loaded: `palisade rule lint` names them");
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let hunt = hunt::Hunt {
            rules,
            tenant: TenantId::new(&self.tenant)?,
            times: from..to,
            include_late: self.include_late,
            threads: if self.threads == 0 { cores } else { self.threads },
            eager: true,
            limits: HuntLimits::default(),
        };
        let begun = Instant::now();
        let (snapshot, cache) =
            (server.tables().snapshot(EVENTS), ReadCache::new(ReadCache::DEFAULT_BYTES));
        let (progress, bar) = (Progress::default(), bar()?);
        let found = std::thread::scope(|scope| {
            let work = scope.spawn(|| hunt.run(&snapshot, &cache, &progress));
            while !work.is_finished() {
                bar.set_length(progress.rows.load(Ordering::Relaxed));
                bar.set_position(progress.rows_done.load(Ordering::Relaxed));
                std::thread::park_timeout(LOOK / 4);
            }
            work.join()
        });
        bar.finish_and_clear();
        let found = found.map_err(|_| "the hunt panicked; this is a defect of Palisade")??;
        found.alerts.iter().try_for_each(|alert| out.alert(&alert.text))?;
        Ok(Summary {
            alerts: found.by_rule.values().sum(),
            shown: found.alerts.len() as u64,
            rows: found.rows,
            seconds: begun.elapsed().as_secs_f64(),
        })
    }

    fn loaded(&self, server: &Server) -> Result<Arc<Rules>, Failure> {
        if !self.rules.is_empty() {
            return Ok(Arc::new(rules::load(&self.rules)?));
        }
        let found = if self.id.is_empty() {
            server.hunts().in_force()?
        } else {
            server.hunts().in_force_only(&self.id.iter().cloned().collect())?
        };
        found.ok_or_else(|| "no rules are in force: name some with --rules".into())
    }
}

/// A hunt as the server shows it.
#[derive(Debug, Deserialize)]
struct Job {
    id: String,
    state: String,
    progress: JobProgress,
    alerts: u64,
    results: u64,
    refused_rules: u64,
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
struct JobProgress {
    rows: u64,
    rows_done: u64,
    seconds: f64,
}

#[derive(Debug, Deserialize)]
struct Page {
    alerts: Vec<Value>,
    next: Option<String>,
}

fn bar() -> Result<ProgressBar, Failure> {
    Ok(ProgressBar::new(0).with_style(ProgressStyle::with_template(
        "{elapsed_precise} {wide_bar} {human_pos}/{human_len} rows, {per_sec}, {eta} left  {msg}",
    )?))
}

/// Where alerts go.
struct Output<'o> {
    out: Box<dyn Write + 'o>,
    table: bool,
    count: u64,
}

impl Output<'_> {
    fn alert(&mut self, text: &str) -> Result<(), Failure> {
        self.count += 1;
        if !self.table {
            writeln!(self.out, "{text}")?;
            return Ok(());
        }
        if self.count == 1 {
            writeln!(self.out, "{:<27} {:<13} {:<36} WHAT", "TIME", "SEVERITY", "RULE")?;
        }
        let alert: Value = serde_json::from_str(text)?;
        let text = |name: &str| alert.get(name).and_then(Value::as_str).unwrap_or_default();
        let about = ["user", "host", "src_ip"].map(text);
        let about: Vec<&str> = about.into_iter().filter(|text| !text.is_empty()).collect();
        writeln!(
            self.out,
            "{:<27} {:<13} {:<36} {} ({})",
            text("time"),
            text("severity"),
            text("rule_id"),
            text("title"),
            about.join(", ")
        )?;
        Ok(())
    }
}
