//! `palisade bench rules`: what rules cost a running server, and how soon an alert arrives.
//!
//! The simulator's records are sent as live ones (their times are taken out, so the gateway's clock counts): first to a
//! server without rules, then to one with all rules of `--rules` and fifty correlations. At 70 % of the rate
//! that the second reached, marked records are sent between the others: for each it is measured when its alert is in the live
//! stream and at a webhook, both read by this process, from the moment at which the record was sent. At last a rule
//! file is changed: how long from SIGHUP until the new set is in force.

mod listen;

use super::child::ServerProcess;
use crate::Outcome;
use crate::server::Failure;
use clap::Args;
use listen::{Arrivals, listen_live, receive_webhooks};
use palisade_testkit::load::{Connection, Latencies, Target, send_all, send_paced};
use palisade_testkit::simulator::{Simulator, SimulatorOptions};
use serde::Serialize;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Records of a request.
const BATCH: usize = 500;
/// Connections at full speed, and when latencies are taken.
const CONNECTIONS: usize = 8;
const PACED_CONNECTIONS: u32 = 32;
/// Between marked records.
const PROBE_EVERY: Duration = Duration::from_millis(100);
/// The webhook's secret: its variable and its value.
const SECRET: (&str, &str) = ("PALISADE_BENCH_SECRET", "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz");
/// How long an alert is waited for.
const LONGEST: Duration = Duration::from_secs(10);

/// What rules cost, and how soon alerts arrive.
#[derive(Debug, Args)]
pub(super) struct Rules {
    /// Files and directories of rules.
    #[arg(long, required = true)]
    rules: Vec<PathBuf>,
    /// Records of the simulator, sent once to each server.
    #[arg(long, default_value_t = 2_000_000)]
    events: u64,
    /// How long latencies are taken, in seconds.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Take latencies at this many records a second instead of 70 % of the rate reached.
    #[arg(long)]
    rate: Option<f64>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    events: u64,
    rules: usize,
    correlations: usize,
    spine_events_per_second: f64,
    spine_cpu_seconds_per_million: f64,
    rules_events_per_second: f64,
    rules_cpu_seconds_per_million: f64,
    ratio: f64,
    alerts: u64,
    latency_rate: f64,
    live_p50_ms: f64,
    live_p99_ms: f64,
    webhook_p50_ms: f64,
    webhook_p99_ms: f64,
    correlation_live_p50_ms: f64,
    correlation_live_p99_ms: f64,
    probes: usize,
    missed: usize,
    reload_ms: f64,
    peak_rss_bytes: u64,
}

impl Rules {
    pub(super) fn run(self) -> Outcome {
        let bodies = self.bodies()?;
        let directory = tempfile::tempdir()?;
        let spine = {
            let server = ServerProcess::start(&directory.path().join("spine"))?;
            let spine = full_speed(&server, &bodies)?;
            server.stop()?;
            spine
        };
        let extra = directory.path().join("correlations.yml");
        std::fs::write(&extra, correlations())?;
        let webhook = receive_webhooks()?;
        let config = directory.path().join("palisade.yaml");
        let paths: Vec<PathBuf> =
            self.rules.iter().map(std::path::absolute).collect::<Result<_, _>>()?;
        let named = paths.iter().chain([&extra]).collect::<Vec<_>>();
        let settings = serde_json::json!({
            "detect": {"rules": named},
            "alerts": {
                "receivers": [{"name": "bench", "kind": "webhook", "url": format!("http://{}/", webhook.address),
                               "secret_env": SECRET.0}],
                "routes": [{"match": ["rule_id=bench-probe"], "receivers": ["bench"]}],
                "egress": {"allow": ["127.0.0.0/8"], "allow_plaintext": true},
            },
        });
        std::fs::write(&config, settings.to_string())?;
        let config = config.to_string_lossy().into_owned();
        let begun = Instant::now();
        let data = directory.path().join("rules");
        let server = ServerProcess::start_with(&data, &[("PALISADE_CONFIG", &config), SECRET])?;
        tracing::debug!(seconds = begun.elapsed().as_secs_f64(), "started with rules");
        let with_rules = full_speed(&server, &bodies)?;
        let (rules, correlations) = self.count(&extra)?;

        let rate = self.rate.unwrap_or(with_rules.rate * 0.7).max(1.0);
        let live = listen_live(server.address)?;
        let (probes, pairs) = self.latencies(&server, &bodies, rate)?;
        let measured = |sent: &[(String, Instant)], arrivals: &Arrivals| {
            let mut latencies = Latencies::default();
            let mut missed = 0;
            for (id, at) in sent {
                // Those that are not there when one was given up won't come.
                match arrivals.wait(id, if missed == 0 { LONGEST } else { Duration::ZERO }) {
                    Some(arrived) => latencies.add(arrived.saturating_duration_since(*at)),
                    None => missed += 1,
                }
            }
            (latencies, missed)
        };
        let (by_live, missed) = measured(&probes, &live);
        let (by_webhook, unsent) = measured(&probes, &webhook.arrivals);
        let (by_pair, uncounted) = measured(&pairs, &live);
        let reload_ms = reload(&server, &extra)?;
        let report = Report {
            events: self.events,
            rules,
            correlations,
            spine_events_per_second: spine.rate.round(),
            spine_cpu_seconds_per_million: round(spine.cpu),
            rules_events_per_second: with_rules.rate.round(),
            rules_cpu_seconds_per_million: round(with_rules.cpu),
            ratio: round(with_rules.cpu / spine.cpu.max(1e-9)),
            alerts: live.count(),
            latency_rate: rate.round(),
            live_p50_ms: round(by_live.percentile_ms(0.5)),
            live_p99_ms: round(by_live.percentile_ms(0.99)),
            webhook_p50_ms: round(by_webhook.percentile_ms(0.5)),
            webhook_p99_ms: round(by_webhook.percentile_ms(0.99)),
            correlation_live_p50_ms: round(by_pair.percentile_ms(0.5)),
            correlation_live_p99_ms: round(by_pair.percentile_ms(0.99)),
            probes: probes.len() + pairs.len(),
            missed: missed + unsent + uncounted,
            reload_ms: round(reload_ms),
            peak_rss_bytes: server.peak_rss_bytes(),
        };
        server.stop()?;
        if self.json {
            println!("{}", serde_json::to_string(&report)?);
        } else {
            println!("{report:#?}");
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The simulator's day as bodies of requests, without times.
    fn bodies(&self) -> Result<Arc<Vec<Vec<u8>>>, Failure> {
        let mut simulator = Simulator::new(SimulatorOptions {
            records: self.events,
            ..SimulatorOptions::default()
        });
        let (mut bodies, mut lines) = (Vec::new(), Vec::new());
        loop {
            lines.clear();
            if simulator.fill(&mut lines, BATCH) == 0 {
                return Ok(Arc::new(bodies));
            }
            let mut body = Vec::with_capacity(lines.len());
            for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let mut record: serde_json::Map<String, serde_json::Value> =
                    serde_json::from_slice(line)?;
                for name in ["timestamp", "time", "@timestamp"] {
                    record.remove(name);
                }
                serde_json::to_writer(&mut body, &record)?;
                body.push(b'\n');
            }
            bodies.push(body);
        }
    }

    /// Rules and correlations that load.
    fn count(&self, extra: &Path) -> Result<(usize, usize), Failure> {
        let mut paths = self.rules.clone();
        paths.push(extra.to_owned());
        let rules = crate::rules::load(&paths)?;
        Ok((rules.book.rules().count(), rules.book.correlations().len()))
    }

    /// Sends at a rate, with marked records between: which were sent when, single ones and pairs.
    fn latencies(
        &self,
        server: &ServerProcess,
        bodies: &Arc<Vec<Vec<u8>>>,
        rate: f64,
    ) -> Result<(Sent, Sent), Failure> {
        let target = target(server);
        let done = AtomicBool::new(false);
        let requests = (rate * self.seconds as f64 / BATCH as f64).max(1.0) as usize;
        let interval = Duration::from_secs_f64(BATCH as f64 / rate);
        std::thread::scope(|scope| {
            let probing = scope.spawn(|| probe(&target, &done));
            let mut sent = 0;
            let next = |body: &mut Vec<u8>| {
                let Some(next) = bodies.get(sent % bodies.len().max(1)) else { return 0 };
                sent += 1;
                if sent > requests {
                    return 0;
                }
                body.extend_from_slice(next);
                BATCH as u64
            };
            let paced = send_paced(&target, PACED_CONNECTIONS, interval, next, |_| ());
            done.store(true, Ordering::Release);
            let probed = probing.join().map_err(|_| "the probe panicked")??;
            paced?;
            Ok(probed)
        })
    }
}

/// What was sent, by the name that its alert has, and when.
type Sent = Vec<(String, Instant)>;

/// Sends marked records until told to stop.
fn probe(target: &Target, done: &AtomicBool) -> std::io::Result<(Sent, Sent)> {
    let mut connection = Connection::open(target)?;
    let (mut probes, mut pairs) = (Vec::new(), Vec::new());
    for number in 0_u64.. {
        if done.load(Ordering::Acquire) {
            break;
        }
        let begun = Instant::now();
        let (probe, pair) = (format!("probe-{number}"), format!("pair-{number}"));
        let first = format!("{{\"type\":\"bench_pair\",\"user\":\"{pair}\"}}\n");
        let second = format!("{first}{{\"type\":\"bench_probe\",\"user\":\"{probe}\"}}\n");
        if connection.send("", first.as_bytes())?.status == 200 {
            let at = Instant::now();
            if connection.send("", second.as_bytes())?.status == 200 {
                probes.push((probe, at));
                pairs.push((pair, at));
            }
        }
        std::thread::park_timeout(PROBE_EVERY.saturating_sub(begun.elapsed()));
    }
    Ok((probes, pairs))
}

struct FullSpeed {
    rate: f64,
    cpu: f64,
}

/// Sends all bodies as fast as they are taken; CPU is taken when compaction has caught up.
fn full_speed(server: &ServerProcess, bodies: &Arc<Vec<Vec<u8>>>) -> Result<FullSpeed, Failure> {
    let target = target(server);
    let at = AtomicUsize::new(0);
    let before = server.cpu_seconds();
    let begun = Instant::now();
    let results: Vec<std::io::Result<u64>> = std::thread::scope(|scope| {
        let send = || {
            let next = |body: &mut Vec<u8>| match bodies.get(at.fetch_add(1, Ordering::AcqRel)) {
                Some(next) => {
                    body.extend_from_slice(next);
                    next.iter().filter(|byte| **byte == b'\n').count() as u64
                }
                None => 0,
            };
            send_all(&target, next, |_| ()).map(|sent| sent.records)
        };
        let threads: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(send)).collect();
        let ended = threads.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_| Err(std::io::Error::other("a sender panicked")))
        });
        ended.collect()
    });
    let seconds = begun.elapsed().as_secs_f64();
    let records: u64 = results.into_iter().sum::<std::io::Result<u64>>()?;
    server.wait_idle(Duration::from_secs(600))?;
    let cpu = server.cpu_seconds() - before;
    let millions = records as f64 / 1e6;
    Ok(FullSpeed { rate: records as f64 / seconds, cpu: cpu / millions.max(1e-9) })
}

fn target(server: &ServerProcess) -> Target {
    Target {
        address: server.address,
        path: "/api/v1/streams/events/records?source=simulator".to_owned(),
        headers: String::new(),
    }
}

/// How long from SIGHUP until a set with one changed rule is in force, milliseconds.
fn reload(server: &ServerProcess, extra: &Path) -> Result<f64, Failure> {
    let before = server.rules_in_force();
    let text = std::fs::read_to_string(extra)?;
    std::fs::write(extra, text.replace("Bench probe", "Bench probe, changed"))?;
    let begun = Instant::now();
    server.hang_up()?;
    while server.rules_in_force() == before {
        if begun.elapsed() > Duration::from_secs(60) {
            return Err("the changed rules did not come into force within a minute".into());
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
    Ok(begun.elapsed().as_secs_f64() * 1000.0)
}

/// Base rules over what the simulator sends, and fifty correlations over them: ten sizes of five kinds; and what marked
/// records match.
fn correlations() -> String {
    let mut text = String::new();
    let mut rule = |id: &str, title: &str, field: &str, value: &str| {
        let _ = write!(
            text,
            "title: {title}\nid: {id}\nname: {}\nlogsource:\n  product: simulator\ndetection:\n  selection:\n    {field}: {value}\n  condition: selection\nlevel: low\n---\n",
            id.replace('-', "_")
        );
    };
    rule("bench-probe", "Bench probe", "type", "bench_probe");
    rule("bench-pair", "Bench pair", "type", "bench_pair");
    rule("bench-failed", "Failed", "status", "failure");
    rule("bench-login", "Login", "type", "login");
    rule("bench-file", "File", "type", "file_access");
    rule("bench-change", "Change", "type", "role_change");
    let mut correlation = |id: String,
                           kind: &str,
                           rules: &str,
                           group: &str,
                           seconds: u32,
                           condition: String| {
        let _ = write!(
            text,
            "title: {id}\nid: {id}\ncorrelation:\n  type: {kind}\n  rules: [{rules}]\n  group-by: [{group}]\n  timespan: {seconds}s\n  generate: false\n{condition}level: medium\n---\n"
        );
    };
    let gte = |count: u32| format!("  condition:\n    gte: {count}\n");
    let distinct =
        |field: &str, count: u32| format!("  condition:\n    field: {field}\n    gte: {count}\n");
    let none = String::new;
    correlation("bench-pairs".into(), "event_count", "bench_pair", "user", 60, gte(2));
    for n in 1..=10 {
        let span = 30 * n;
        correlation(
            format!("c-failures-{n}"),
            "event_count",
            "bench_failed",
            "src_ip",
            span,
            gte(20 * n),
        );
        correlation(
            format!("c-users-{n}"),
            "value_count",
            "bench_failed",
            "src_ip",
            span,
            distinct("user", 5 * n),
        );
        correlation(
            format!("c-files-{n}"),
            "value_count",
            "bench_file",
            "user",
            span,
            distinct("resource", 200 * n),
        );
        correlation(
            format!("c-both-{n}"),
            "temporal",
            "bench_failed, bench_change",
            "user",
            span,
            none(),
        );
        if n < 10 {
            correlation(
                format!("c-then-{n}"),
                "temporal_ordered",
                "bench_failed, bench_login",
                "user",
                span,
                none(),
            );
        }
    }
    text
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use palisade_sigma::Book;

    #[test]
    fn the_correlations_load() {
        let text = correlations();
        let book = Book::read([("bench.yml", text.as_str())]);
        assert!(book.refused().is_empty(), "{:?}", book.refused());
        assert_eq!(book.correlations().len(), 50);
    }
}
