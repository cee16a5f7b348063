//! `palisade bench hunt`: rules over `--rows` stored rows, half of them Windows events that are varied one by one as
//! `palisade bench sigma` does, the other half of the published generator, mixed in time. They came the way all rows
//! come: through gateway, log, all detectors, sealing and compaction.
//!
//! All rules are hunted with at once, then single ones, spread evenly over the set, each alone. One thread works
//! unless `--threads` says otherwise; rates are rows a second of CPU time, whatever else the machine does meanwhile.

use super::child::cpu_seconds;
use super::query::data::{Mark, open, prepare_with};
use super::sigma::documents;
use super::sigma::vary::{Random, vary};
use crate::config::Config;
use crate::server::Failure;
use crate::{Outcome, rules};
use clap::Args;
use palisade_event::TenantId;
use palisade_event::schema::EVENTS;
use palisade_event::time::rfc3339;
use palisade_pipeline::hunt::{self, HuntLimits, HuntReport, Progress};
use palisade_pipeline::rules::{RuleTexts, Rules};
use palisade_table::Snapshot;
use palisade_table::provider::ReadCache;
use palisade_testkit::streamguard::{Generator, IdStyle, RATE, SEED, START, USERS};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

/// Hunt with rules over stored rows.
#[derive(Debug, Args)]
pub(super) struct Hunt {
    /// How many rows there are. Those of an earlier run in the same --data directory are used again.
    #[arg(long, default_value_t = 2_000_000)]
    rows: u64,
    /// Files and directories of rules.
    #[arg(long, required = true)]
    rules: Vec<PathBuf>,
    /// A file or directory of Windows events: JSON, packed or not.
    #[arg(long)]
    events: PathBuf,
    /// How many rules are tried alone.
    #[arg(long, default_value_t = 9)]
    alone: usize,
    /// Rules that are tried alone instead, by their ids.
    #[arg(long, value_name = "ID")]
    id: Vec<String>,
    /// How often each hunt is made; the best counts.
    #[arg(long, default_value_t = 2)]
    runs: u32,
    /// Threads of a hunt.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// Names under which events bring their times; they get others.
const TIMES: [&str; 5] = ["EventTime", "TimeCreated", "timestamp", "EventReceivedTime", "UtcTime"];

/// What a hunt took.
struct Took {
    seconds: f64,
    cpu: f64,
    found: HuntReport,
}

impl Hunt {
    pub(super) fn run(self, config: &Config, data: Option<&Path>) -> Outcome {
        let directory = data.map_or_else(|| config.data.join("bench-hunt"), Path::to_owned);
        self.prepare(config, &directory)?;
        let files = open(config, &directory)?;
        let snapshot = files.tables.snapshot(EVENTS);
        let texts = rules::read(&rules::find(&self.rules)?)?;
        let all = Arc::new(Rules::compile(texts.clone()));
        let cache = ReadCache::new(ReadCache::DEFAULT_BYTES);
        let took = self.best(&snapshot, &cache, &all)?;
        let rows = took.found.rows;
        let mut alone = Vec::new();
        for id in self.chosen(&all) {
            let one = Arc::new(only(&texts, &id));
            let took = self.best(&snapshot, &cache, &one)?;
            if !self.json {
                let rate = rows as f64 / took.cpu;
                let source = one.book.rules().next().map(|rule| format!("{:?}", rule.source));
                let found: u64 = took.found.by_rule.values().sum();
                eprintln!(
                    "{rate:>14.0} rows/s  {found:>8} alerts  {id}  {}",
                    source.unwrap_or_default()
                );
            }
            alone.push((took.cpu, took.seconds));
        }
        alone.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (median, slowest) = (alone.get(alone.len() / 2), alone.last());
        let rate = |cpu: Option<&(f64, f64)>| cpu.map(|(cpu, _)| rows as f64 / cpu);
        let bytes: u64 = snapshot.segments.iter().map(|segment| segment.meta.bytes).sum();
        let figures = json!({
            "rows": rows,
            "rows_windows": self.rows / 2,
            "bytes": bytes,
            "segments": snapshot.segments.len(),
            "threads": self.threads,
            "rules": all.book.rules().count(),
            "correlations": all.book.correlations().len(),
            "seconds_all": took.seconds,
            "cpu_seconds_all": took.cpu,
            "rows_per_second_per_core_all": rows as f64 / took.cpu,
            "alerts": took.found.by_rule.values().sum::<u64>(),
            "alerts_kept": took.found.alerts.len(),
            "rules_alone": alone.len(),
            "seconds_one": median.map(|(_, seconds)| seconds),
            "cpu_seconds_one": median.map(|(cpu, _)| cpu),
            "rows_per_second_per_core_one": rate(median),
            "rows_per_second_per_core_slowest_one": rate(slowest),
        });
        if self.json {
            println!("{figures}");
        } else {
            for (name, value) in figures.as_object().into_iter().flatten() {
                println!("{name:<38} {value}");
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Makes the rows, unless they are there.
    fn prepare(&self, config: &Config, directory: &Path) -> Result<(), Failure> {
        let mark = Mark { what: "hunt".to_owned(), rows: self.rows, seed: SEED };
        let mut originals = documents(&self.events)?;
        for event in originals.iter_mut().filter_map(Value::as_object_mut) {
            TIMES.iter().for_each(|name| drop(event.remove(*name)));
        }
        if originals.is_empty() {
            return Err(format!("no events at {}", self.events.display()).into());
        }
        // Both halves together have the generator's rate.
        let mut generator =
            Generator::new(SEED, USERS, IdStyle::StreamGuard).with_rate(RATE.div_euclid(2).max(1));
        let (mut random, mut number, mut batch) = (Random::new(7), 0u64, 0u64);
        prepare_with(config, directory, &mark, |count| {
            batch += 1;
            let mut body = Vec::new();
            if batch % 2 == 0 {
                generator.fill(usize::try_from(count)?, &mut body);
                return Ok(body);
            }
            for _ in 0..count {
                let place = usize::try_from(number % originals.len() as u64)?;
                let Some(mut event) = originals.get(place).cloned() else { break };
                vary(&mut event, &mut random);
                let micros = START * 1_000 + i64::try_from(number)? * 2_000_000 / i64::from(RATE);
                if let Some(members) = event.as_object_mut() {
                    members.insert("@timestamp".to_owned(), rfc3339(micros).into());
                }
                number += 1;
                serde_json::to_writer(&mut body, &event)?;
                body.push(b'\n');
            }
            Ok(body)
        })
    }

    /// The best of some hunts.
    fn best(
        &self,
        snapshot: &Snapshot,
        cache: &ReadCache,
        rules: &Arc<Rules>,
    ) -> Result<Took, Failure> {
        let hunt = hunt::Hunt {
            rules: Arc::clone(rules),
            tenant: TenantId::default_tenant(),
            times: i64::MIN..i64::MAX,
            include_late: false,
            threads: self.threads,
            eager: true,
            limits: HuntLimits::default(),
        };
        let mut best: Option<Took> = None;
        for _ in 0..self.runs.max(1) {
            let (begun, before) = (Instant::now(), cpu_seconds("self"));
            let found = hunt.run(snapshot, cache, &Progress::default())?;
            let cpu = (cpu_seconds("self") - before).max(0.01);
            let took = Took { seconds: begun.elapsed().as_secs_f64(), cpu, found };
            if best.as_ref().is_none_or(|best| took.cpu < best.cpu) {
                best = Some(took);
            }
        }
        best.ok_or_else(|| "no hunt was made".into())
    }

    /// The rules that are tried alone.
    fn chosen(&self, all: &Rules) -> Vec<String> {
        if !self.id.is_empty() {
            return self.id.clone();
        }
        // Those that have anything to do with what is stored.
        let windows =
            all.book.rules().filter(|rule| rule.source.product.as_deref() == Some("windows"));
        let ids: Vec<&String> = windows.map(|rule| &rule.id).collect();
        let step = ids.len().div_ceil(self.alone.max(1)).max(1);
        ids.into_iter().skip(step / 2).step_by(step).cloned().collect()
    }
}

fn only(texts: &RuleTexts, id: &str) -> Rules {
    Rules::compile_only(texts.clone(), &BTreeSet::from([id.to_owned()]))
}
