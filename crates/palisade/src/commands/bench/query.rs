//! `palisade bench query`.
//!
//! Thirteen questions of security teams over `--rows` events of the published generator
//! (`palisade_testkit::streamguard`), asked of Palisade's query engine and of ClickHouse's (`chdb`, from
//! Python) on the same Parquet segments, in the same run, with the same number of threads. The rows came
//! the way that all rows come: through gateway, log, all detectors, sealing and compaction ([`data`]).
//!
//! Each question is asked once to warm up and then `--runs` times, of the two engines in turn; the best
//! time of each counts. It runs from the text of the query to the whole answer in columns: Arrow batches here,
//! ClickHouse's `Native` blocks there, planning included. Both answers must be equal: a difference is an
//! error ([`answers`]). Palisade runs within the default limits of a query, 192 MiB of memory included;
//! ClickHouse has no limit.
//!
//! With `--rest` the documented StreamGuard endpoints are measured instead, over HTTP against a server on
//! the same data ([`rest`]).

mod answers;
mod clickhouse;
pub(super) mod data;
mod questions;
mod rest;

use crate::Outcome;
use crate::config::Config;
use crate::server::{Failure, spill_directory};
use answers::Answer;
use clap::Args;
use clickhouse::ClickHouse;
use palisade_event::TenantId;
use palisade_query::{Excess, Limits, Options, QueryEngine};
use questions::Question;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Ask thirteen security questions of Palisade and of ClickHouse's engine, on the same files.
#[derive(Debug, Args)]
pub(crate) struct Query {
    /// How many events there are. Those of an earlier run in the same --data directory are used again.
    #[arg(long, default_value_t = 10_000_000)]
    rows: u64,
    /// The seed of the published generator.
    #[arg(long, default_value_t = palisade_testkit::streamguard::SEED)]
    seed: u64,
    /// How often each question is asked after it was asked once; the best time counts.
    #[arg(long, default_value_t = 5)]
    runs: u32,
    /// The Python that has the module `chdb`.
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// Threads of both engines; 0 is one a core.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Ask only the questions whose names contain this.
    #[arg(long, default_value = "")]
    only: String,
    /// Ask Palisade only.
    #[arg(long)]
    alone: bool,
    /// Print how Palisade ran each question.
    #[arg(long)]
    explain: bool,
    /// Measure StreamGuard's endpoints over HTTP instead.
    #[arg(long, conflicts_with_all = ["alone", "explain"])]
    rest: bool,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

/// What is printed of a question.
#[derive(Debug, Serialize)]
struct Line {
    name: &'static str,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    chdb_seconds: Option<f64>,
}

impl Query {
    pub(crate) fn run(self, config: &Config, data: Option<&Path>) -> Outcome {
        let temporary;
        let directory = match data {
            Some(data) => data,
            None => {
                temporary = tempfile::tempdir()?;
                temporary.path()
            }
        };
        let threads = match self.threads {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            threads => threads,
        };
        let mut clickhouse = match self.alone || self.rest {
            true => None,
            false => Some(ClickHouse::start(&self.python, threads)?),
        };
        data::prepare(config, directory, self.rows, self.seed)?;
        if self.rest {
            return rest::measure(config, directory, self.rows, self.json);
        }
        let files = data::open(config, directory)?;
        let spill = Some(spill_directory(directory)?);
        let options = Options { threads, spill, ..Options::default() };
        let engine = QueryEngine::new(options, files.snapshots())?;
        let palisade = Palisade::new(engine)?;
        let questions = questions::all(&palisade, self.rows)?;
        let mut lines = Vec::new();
        for question in questions.iter().filter(|question| question.name.contains(&self.only)) {
            if self.explain {
                explain(&palisade, question)?;
            }
            let theirs = question.for_clickhouse(&files.paths);
            if let Some(clickhouse) = &mut clickhouse {
                let ours = palisade.answer(&question.sql)?;
                answers::compare(question.name, &ours, &clickhouse.answer(&theirs)?)?;
            }
            let (mut seconds, mut chdb_seconds) = (f64::INFINITY, None);
            for round in 0..=self.runs.max(1) {
                let ours = palisade.time(&question.sql)?;
                let theirs = match &mut clickhouse {
                    Some(clickhouse) => Some(clickhouse.time(&theirs)?),
                    None => None,
                };
                // The first round warms up.
                if round > 0 {
                    seconds = seconds.min(ours);
                    chdb_seconds = theirs.map(|theirs| theirs.min(chdb_seconds.unwrap_or(theirs)));
                }
            }
            let line = Line {
                name: question.name,
                seconds: round(seconds),
                chdb_seconds: chdb_seconds.map(round),
            };
            if self.json {
                println!("{}", serde_json::to_string(&line)?);
            } else {
                show(&line);
            }
            lines.push(line);
        }
        if !self.json {
            show_mean(&lines);
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Prints how a question is answered.
fn explain(palisade: &Palisade, question: &Question) -> Result<(), Failure> {
    for row in palisade.answer(&format!("EXPLAIN ANALYZE {}", question.sql))? {
        if let Some(plan) = row.get("plan").and_then(|plan| plan.as_str()) {
            eprintln!("{}\n{plan}", question.sql);
        }
    }
    Ok(())
}

/// Microseconds are what can be told apart.
fn round(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e6
}

fn show(line: &Line) {
    match line.chdb_seconds {
        Some(chdb) => println!(
            "{:<24} {:>10.1} ms {:>10.1} ms {:>7.2}",
            line.name,
            line.seconds * 1e3,
            chdb * 1e3,
            line.seconds / chdb
        ),
        None => println!("{:<24} {:>10.1} ms", line.name, line.seconds * 1e3),
    }
}

fn show_mean(lines: &[Line]) {
    let logs: Vec<f64> =
        lines.iter().filter_map(|line| Some((line.seconds / line.chdb_seconds?).ln())).collect();
    if !logs.is_empty() {
        let mean = (logs.iter().sum::<f64>() / logs.len() as f64).exp();
        println!("{:<24} {:>13} {:>13} {mean:>7.2}", "geometric mean", "Palisade", "ClickHouse");
    }
}

/// The query engine and a small runtime to wait for it.
struct Palisade {
    engine: QueryEngine,
    runtime: tokio::runtime::Runtime,
    tenant: TenantId,
}

impl Palisade {
    fn new(engine: QueryEngine) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { engine, runtime, tenant: TenantId::default_tenant() })
    }

    fn limits() -> Limits {
        Limits {
            time: Duration::from_secs(600),
            rows: 10_000_000,
            excess: Excess::Refuse,
            ..Limits::default()
        }
    }

    /// The whole answer in columns.
    fn columns(&self, sql: &str) -> Result<Vec<arrow::array::RecordBatch>, Failure> {
        let answer =
            async { self.engine.query(&self.tenant, sql, Self::limits()).await?.collect().await };
        self.runtime.block_on(answer).map_err(|error| format!("{sql}: {error}").into())
    }

    /// How long the whole answer takes, in seconds.
    fn time(&self, sql: &str) -> Result<f64, Failure> {
        let begun = Instant::now();
        self.columns(sql)?;
        Ok(begun.elapsed().as_secs_f64())
    }

    /// The whole answer, row by row.
    fn answer(&self, sql: &str) -> Result<Answer, Failure> {
        let mut rows = Vec::new();
        for batch in self.columns(sql)? {
            answers::rows(&batch, &mut rows)?;
        }
        Ok(rows)
    }
}
