//! `palisade bench ingest`.
//!
//! The server is a process of its own with default settings; this process generates the load. First
//! the events are sent as fast as the server takes them; then, once compaction has caught up, CPU
//! and bytes are read; then further events are sent at 70 % of [`AIM`] or of the rate that was reached, whichever is less (or at `--rate`), over so many
//! connections that one is free when a request is due, and the latencies of acknowledgement and of
//! visibility to SQL are taken, from the moment at which a request was due.

use super::child::ServerProcess;
use crate::Outcome;
use crate::server::Failure;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use palisade_testkit::load::{Connection, Latencies, Sent, Target, send_all, send_paced};
use palisade_testkit::streamguard::{Generator, IdStyle};
use serde::Serialize;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Measure ingestion.
#[derive(Debug, Args)]
pub(crate) struct Ingest {
    /// How many events are sent at full speed.
    #[arg(long, default_value_t = 5_000_000)]
    events: u64,
    /// Events in a request.
    #[arg(long, default_value_t = 500)]
    batch: u64,
    /// Connections at a time at full speed.
    #[arg(long, default_value_t = 8)]
    connections: u32,
    /// Connections over which latencies are taken: enough that one is free when a request is due.
    #[arg(long, default_value_t = 32)]
    paced_connections: u32,
    /// How many users the events are of.
    #[arg(long, default_value_t = 10_000)]
    users: u32,
    /// The events' ids.
    #[arg(long, value_enum, default_value = "streamguard")]
    ids: Ids,
    /// The seed of the published generator.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// How long latencies are taken, in seconds.
    #[arg(long, default_value_t = 20)]
    latency_seconds: u64,
    /// Take latencies at this many events a second instead of 70 % of 400,000, or of the rate reached where that is
    /// less.
    #[arg(long)]
    rate: Option<f64>,
    /// Send the JSON lines of a file or directory (gzip too) instead, repeated up to --bytes.
    #[arg(long)]
    file: Option<PathBuf>,
    /// How many bytes of --file are sent.
    #[arg(long, default_value_t = 1_000_000_000)]
    bytes: u64,
    /// Keep the data in this directory.
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Ids {
    /// `evt_<seconds>_<n>`
    Streamguard,
    /// Random UUIDs.
    Uuid,
}

/// Events a second that a machine of two cores is to take.
const AIM: f64 = 400_000.0;

/// What is printed.
#[derive(Debug, Serialize)]
struct Report {
    events: u64,
    seconds: f64,
    events_per_second: f64,
    server_cpu_seconds_per_million: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw_megabytes_per_second_per_core: Option<f64>,
    ack_p50_ms: f64,
    ack_p99_ms: f64,
    visible_p99_ms: f64,
    raw_bytes_per_event: f64,
    stored_bytes_per_event: f64,
    peak_rss_bytes: u64,
}

/// Makes the body of the next request of one connection.
type Source = Box<dyn FnMut(&mut Vec<u8>, u64) -> u64 + Send>;

impl Ingest {
    pub(crate) fn run(self) -> Outcome {
        let temporary;
        let data = match &self.keep {
            Some(data) => data.clone(),
            None => {
                temporary = tempfile::tempdir()?;
                temporary.path().join("data")
            }
        };
        let lines = self.file.as_deref().map(read_lines).transpose()?.map(Arc::new);
        let server = ServerProcess::start(&data)?;
        let target = Target {
            address: server.address,
            path: "/api/v1/streams/events/records".to_owned(),
            headers: String::new(),
        };
        let events = match &lines {
            Some(lines) => {
                let size: u64 = lines.iter().map(|line| line.len() as u64 + 1).sum();
                (self.bytes / size.max(1)).max(1) * lines.len() as u64
            }
            None => self.events,
        };
        let batch = if lines.is_some() { self.batch.min(200) } else { self.batch }.max(1);
        let mut sources = self.sources(lines.as_ref(), self.seed, self.connections);

        let cpu_before = server.cpu_seconds();
        let begun = Instant::now();
        let full = drive(&target, &mut sources, batch, events)?;
        let seconds = begun.elapsed().as_secs_f64();
        let rate = full.records as f64 / seconds;
        server.wait_idle(Duration::from_secs(600))?;
        let cpu = server.cpu_seconds() - cpu_before;
        let stored = server.stored_bytes();
        let frames = server.metric("palisade_frame_rows_count").max(1.0);
        let rows_per_batch = server.metric("palisade_frame_rows_sum") / frames;

        // The load that is aimed at, not the one reached: or a build that takes more would have to show its latencies
        // under more.
        let wanted = self.rate.unwrap_or(rate.min(AIM) * 0.7).max(1.0);
        let slow_events = (wanted * self.latency_seconds as f64) as u64;
        let interval = Duration::from_secs_f64(batch as f64 / wanted);
        let connections = self.paced_connections.max(1);
        // Other events than before, of the same users.
        let mut sources = self.sources(lines.as_ref(), self.seed.wrapping_add(1), 1);
        let done = Arc::new(AtomicBool::new(false));
        let probe = std::thread::spawn({
            let (target, done) = (target.clone(), Arc::clone(&done));
            move || probe(&target, &done)
        });
        let bar = progress_bar(slow_events)?;
        let left = AtomicU64::new(slow_events);
        let next = |body: &mut Vec<u8>| match sources.first_mut() {
            Some(source) => fill(source, &left, batch, body),
            None => 0,
        };
        let paced = send_paced(&target, connections, interval, next, |records| bar.inc(records));
        bar.finish_and_clear();
        done.store(true, Ordering::Release);
        let visible = probe.join().map_err(|_| "the probe panicked")??;
        let paced = paced?;

        let megabytes = full.bytes as f64 / 1e6;
        let report = Report {
            events: full.records,
            seconds: round(seconds),
            events_per_second: round(rate),
            server_cpu_seconds_per_million: round(cpu * 1e6 / full.records as f64),
            raw_megabytes_per_second_per_core: lines.is_some().then(|| round(megabytes / cpu)),
            ack_p50_ms: round(paced.latencies.percentile_ms(0.5)),
            ack_p99_ms: round(paced.latencies.percentile_ms(0.99)),
            visible_p99_ms: round(visible.percentile_ms(0.99)),
            raw_bytes_per_event: round(full.bytes as f64 / full.records as f64),
            stored_bytes_per_event: round(stored as f64 / full.records as f64),
            peak_rss_bytes: server.peak_rss_bytes(),
        };
        server.stop()?;
        if self.json {
            println!("{}", serde_json::to_string(&report)?);
        } else {
            println!("{report:#?}\nrows per operator batch: {rows_per_batch:.0}");
        }
        Ok(ExitCode::SUCCESS)
    }

    /// One source of bodies for each connection.
    fn sources(
        &self,
        lines: Option<&Arc<Vec<Vec<u8>>>>,
        seed: u64,
        connections: u32,
    ) -> Vec<Source> {
        let connections = connections.max(1);
        let ids = match self.ids {
            Ids::Streamguard => IdStyle::StreamGuard,
            Ids::Uuid => IdStyle::RandomUuid,
        };
        let generator = Generator::new(seed, self.users, ids);
        (0..connections)
            .map(|index| -> Source {
                if let Some(lines) = lines {
                    let lines = Arc::clone(lines);
                    let mut at = index as usize * lines.len() / connections as usize;
                    return Box::new(move |body, count| {
                        for _ in 0..count {
                            body.extend_from_slice(lines.get(at).map_or(&[][..], Vec::as_slice));
                            body.push(b'\n');
                            at = (at + 1) % lines.len().max(1);
                        }
                        count
                    });
                }
                let mut generator = generator.clone().with_share(index, connections);
                Box::new(move |body, count| {
                    generator.fill(usize::try_from(count).unwrap_or(0), body);
                    count
                })
            })
            .collect()
    }
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn progress_bar(total: u64) -> Result<ProgressBar, Failure> {
    Ok(ProgressBar::new(total).with_style(ProgressStyle::with_template(
        "{elapsed_precise} {wide_bar} {human_pos}/{human_len} events, {per_sec}, {eta} left",
    )?))
}

/// Makes the next body of at most `batch` of the events that are left; says how many it has.
fn fill(source: &mut Source, left: &AtomicU64, batch: u64, body: &mut Vec<u8>) -> u64 {
    let before = left
        .fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| Some(left.saturating_sub(batch)))
        .unwrap_or(0);
    match before.min(batch) {
        0 => 0,
        count => source(body, count),
    }
}

/// Sends over all connections until nothing is left, as fast as the server takes it.
fn drive(target: &Target, sources: &mut [Source], batch: u64, total: u64) -> Result<Sent, Failure> {
    let bar = progress_bar(total)?;
    let left = AtomicU64::new(total);
    let results: Vec<std::io::Result<Sent>> = std::thread::scope(|scope| {
        let threads: Vec<_> = sources
            .iter_mut()
            .map(|source| {
                let (bar, left) = (&bar, &left);
                scope.spawn(move || {
                    let next = |body: &mut Vec<u8>| fill(source, left, batch, body);
                    send_all(target, next, |records| bar.inc(records))
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread.join().unwrap_or_else(|_| Err(std::io::Error::other("a sender panicked")))
            })
            .collect()
    });
    bar.finish_and_clear();
    let mut sum = Sent::default();
    for result in results {
        sum.merge(&result?);
    }
    Ok(sum)
}

/// Sends one marked event ten times a second and asks SQL for it until it is there, among the records of the time for
/// which it asks.
fn probe(target: &Target, done: &AtomicBool) -> std::io::Result<Latencies> {
    let mut records = Connection::open(target)?;
    let query = Target {
        path: "/api/v1/query".to_owned(),
        headers: "accept: application/json\r\n".to_owned(),
        ..target.clone()
    };
    let url = format!("http://{}{}", query.address, query.path);
    let mut latencies = Latencies::default();
    for number in 0_u64.. {
        if done.load(Ordering::Acquire) {
            break;
        }
        let id = format!("probe_{number}");
        let now = Instant::now();
        let event = format!("{{\"event_id\":\"{id}\",\"type\":\"PROBE\"}}\n");
        let answer = records.send("", event.as_bytes())?;
        if answer.status != 200 {
            continue;
        }
        let sql = format!(
            "SELECT count(*) AS n FROM events WHERE event_id = '{id}' AND ingest_time > now() - interval '10 seconds'"
        );
        let request = serde_json::json!({"sql": sql}).to_string();
        while now.elapsed() < Duration::from_secs(10) {
            let text = ureq::post(&url)
                .header("content-type", "application/json")
                .send(request.as_bytes())
                .and_then(|mut answer| answer.body_mut().read_to_string())
                .map_err(std::io::Error::other)?;
            if text.contains("\"n\":1") {
                break;
            }
        }
        latencies.add(now.elapsed());
        std::thread::park_timeout(Duration::from_millis(100).saturating_sub(now.elapsed()));
    }
    Ok(latencies)
}

/// The JSON lines of a file, or of all `.json`, `.jsonl` and `.gz` files of a directory.
fn read_lines(path: &Path) -> Result<Vec<Vec<u8>>, Failure> {
    let mut files = Vec::new();
    if path.is_dir() {
        for entry in std::fs::read_dir(path)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if [".json", ".jsonl", ".json.gz", ".jsonl.gz"].iter().any(|end| name.ends_with(end))
                && name != "manifest.json"
            {
                files.push(path);
            }
        }
        files.sort();
    } else {
        files.push(path.to_owned());
    }
    let mut lines = Vec::new();
    for path in files {
        let file = std::fs::File::open(&path)?;
        let mut bytes = Vec::new();
        if path.extension().is_some_and(|extension| extension == "gz") {
            flate2::read::MultiGzDecoder::new(file).take(1 << 30).read_to_end(&mut bytes)?;
        } else {
            file.take(1 << 30).read_to_end(&mut bytes)?;
        }
        let objects = bytes.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"{"));
        lines.extend(objects.map(<[u8]>::to_vec));
    }
    if lines.is_empty() {
        return Err(format!("{} holds no JSON lines", path.display()).into());
    }
    Ok(lines)
}
