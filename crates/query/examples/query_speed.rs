//! Measures twelve security queries over generated events like StreamGuard's.
//!
//! `query_speed <directory> [million rows] [million rows a segment] [rounds]` writes the segments once
//! (a second run reuses them), asks each query `rounds` times, and prints the best and the median time.
//! With `QUERY_SPEED_JSON` set it prints one JSON object a line instead. The SQL of each query is printed
//! as well, so that another engine can be asked the same of the same files.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a measurement may panic"
)]

use arrow::array::{
    ArrayRef, Float32Builder, Int64Array, RecordBatch, StringArray, StringDictionaryBuilder,
    TimestampMicrosecondArray, UInt64Array,
};
use arrow::datatypes::Int32Type;
use palisade_catalog::SegmentMeta;
use palisade_event::schema::EVENTS;
use palisade_event::{Offset, TenantId};
use palisade_query::{Limits, Options, QueryEngine, Snapshots};
use palisade_table::{MemoryCommits, SegmentFile, Snapshot, TableOptions, Tables};
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const START: i64 = 1_700_000_000_000_000;
/// Ten thousand events a second of event time.
const STEP: i64 = 100;
const USERS: u64 = 10_000;

/// A small generator of numbers, so that everybody generates the same.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, small ones far more often (like Zipf's law with exponent 1).
    fn zipf(&mut self, n: u64) -> u64 {
        let u = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        (((n as f64 + 1.0).powf(u) - 1.0) as u64).min(n - 1)
    }
}

const TYPES: [&str; 8] =
    ["login", "logout", "file_access", "api_call", "network", "process", "privilege", "config"];
const AGENTS: [&str; 6] = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/126.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 14_5) Safari/617.1",
    "curl/8.7.1",
    "python-requests/2.32",
    "okhttp/4.12",
    "Go-http-client/2.0",
];

type Text = StringDictionaryBuilder<Int32Type>;

fn rows(first: u64, count: u64) -> Result<RecordBatch, Box<dyn Error>> {
    let mut numbers = Numbers(first);
    let mut text: [Text; 8] = std::array::from_fn(|_| Text::new());
    let [tenant, source, kind, outcome, user, src_ip, location, agent] = &mut text;
    let mut ids = Vec::new();
    let mut messages = Vec::new();
    let (mut entropy, mut threat, mut anomaly) =
        (Float32Builder::new(), Float32Builder::new(), Float32Builder::new());
    let mut bytes = Vec::new();
    for n in first..first + count {
        let who = numbers.zipf(USERS);
        let address = numbers.zipf(50_000);
        let (a, b) = (numbers.next(), numbers.next());
        tenant.append_value("default");
        source.append_value("http");
        kind.append_value(TYPES.get((a % 8) as usize).copied().unwrap_or(""));
        outcome.append_value(if a % 100 < 7 { "failure" } else { "success" });
        user.append_value(format!("user{who:05}"));
        src_ip.append_value(format!(
            "10.{}.{}.{}",
            address >> 16,
            (address >> 8) & 255,
            address & 255
        ));
        location.append_value(format!("City{:02}", (who + b % 3) % 60));
        match b % 100_000 {
            rare @ 0..5 => agent.append_value(format!("sqlmap/1.{rare}.{}", a % 9)),
            _ => agent.append_value(AGENTS.get((b % 6) as usize).copied().unwrap_or("")),
        }
        ids.push(format!("evt_{}_{n}", (START + n as i64 * STEP) / 1_000_000));
        messages.push(format!(
            "{} by user{who:05} on /srv/data/{:04x}/{:x} took {} ms",
            TYPES.get((a % 8) as usize).copied().unwrap_or(""),
            a >> 48,
            b >> 32,
            b % 997
        ));
        entropy.append_value(
            (3.0 + (a >> 40) as f32 / (1u64 << 24) as f32 * 2.0 * 256.0).round() / 256.0,
        );
        threat.append_value(((b >> 44) as f32 / 1_048.576).round() / 1_000.0);
        if b % 50 == 0 {
            anomaly.append_value((700.0 + (a % 300) as f32) / 1_000.0);
        } else {
            anomaly.append_value((a % 700) as f32 / 1_000.0);
        }
        bytes.push((a % 100_000) as i64);
    }
    let range = first..first + count;
    let time: TimestampMicrosecondArray =
        range.clone().map(|n| Some(START + n as i64 * STEP)).collect();
    let ingest: TimestampMicrosecondArray =
        range.clone().map(|n| Some(START + n as i64 * STEP + 900)).collect();
    let [tenant, source, kind, outcome, user, src_ip, location, agent] =
        text.each_mut().map(|builder| Arc::new(builder.finish()) as ArrayRef);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("tenant", tenant),
        ("time", Arc::new(time.with_timezone("UTC"))),
        ("ingest_time", Arc::new(ingest.with_timezone("UTC"))),
        ("position", Arc::new(range.map(Some).collect::<UInt64Array>())),
        ("source", source),
        ("event_id", Arc::new(StringArray::from(ids))),
        ("type", kind),
        ("outcome", outcome),
        ("user", user),
        ("src_ip", src_ip),
        ("location", location),
        ("message", Arc::new(StringArray::from(messages))),
        ("user_agent", agent),
        ("entropy", Arc::new(entropy.finish())),
        ("threat_score", Arc::new(threat.finish())),
        ("anomaly_score", Arc::new(anomaly.finish())),
        ("bytes", Arc::new(Int64Array::from(bytes))),
    ];
    Ok(RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, column)| (name, column, true)),
    )?)
}

/// Writes the segments as the server does, or finds them from an earlier run.
fn segments(
    directory: &Path,
    total: u64,
    each: u64,
) -> Result<Vec<Arc<SegmentFile>>, Box<dyn Error>> {
    const FRAME: u64 = 16_384;
    let list = directory.join("segments.json");
    if !list.exists() {
        let commits = Arc::new(MemoryCommits::default());
        let epoch = commits.claim();
        let options = TableOptions { seal_rows: each, ..TableOptions::default() };
        let (tables, _) = Tables::open(directory, commits, options)?;
        let (mut at, mut offset) = (0, 0);
        while at < total {
            let end = (at + each).min(total);
            while at < end {
                let count = FRAME.min(end - at);
                tables.append(EVENTS, Offset(offset), rows(at, count)?)?;
                at += count;
                offset += 1;
            }
            tables.advance(Offset(offset));
            tables.seal(Offset(offset), epoch)?;
        }
        let metas: Vec<SegmentMeta> = tables.list().iter().map(|file| file.meta.clone()).collect();
        std::fs::write(&list, serde_json::to_vec(&metas)?)?;
    }
    let metas: Vec<SegmentMeta> = serde_json::from_slice(&std::fs::read(&list)?)?;
    let mut files: Vec<Arc<SegmentFile>> = metas
        .into_iter()
        .map(|meta| Arc::new(SegmentFile { path: directory.join(&meta.path), meta }))
        .collect();
    files.sort_by_key(|file| file.meta.min_time);
    Ok(files)
}

struct One(Snapshot);

impl Snapshots for One {
    fn snapshot(&self, table: &str) -> Option<Snapshot> {
        (table == EVENTS).then(|| self.0.clone())
    }

    fn tables(&self) -> Vec<String> {
        vec![EVENTS.to_owned()]
    }
}

/// The queries, with a point in the middle of the data.
fn queries(total: u64) -> Vec<(&'static str, String)> {
    let middle = total / 2;
    let at = START + middle as i64 * STEP;
    let id = format!("evt_{}_{middle}", at / 1_000_000);
    let (low, high) = (at / 1_000_000, at / 1_000_000 + 20);
    let sql = |text: &str| text.to_owned();
    vec![
        (
            "entropy_p95",
            sql("SELECT approx_percentile_cont(0.95) WITHIN GROUP (ORDER BY entropy) FROM events"),
        ),
        (
            "users_by_failures",
            sql(
                "SELECT \"user\", count(*) AS n FROM events WHERE outcome = 'failure' GROUP BY \"user\" ORDER BY n DESC, \"user\" LIMIT 10",
            ),
        ),
        (
            "anomalies_of_a_user",
            sql(
                "SELECT time, event_id, anomaly_score, type FROM events WHERE \"user\" = 'user00042' AND anomaly_score >= 0.7 ORDER BY time DESC LIMIT 100",
            ),
        ),
        (
            "anomalies_of_a_rare_user",
            sql(
                "SELECT time, event_id, anomaly_score, type FROM events WHERE \"user\" = 'user09876' AND anomaly_score >= 0.7 ORDER BY time DESC LIMIT 100",
            ),
        ),
        (
            "per_minute_and_type",
            sql(
                "SELECT date_trunc('minute', time) AS m, type, count(*) AS n FROM events GROUP BY m, type ORDER BY m, type",
            ),
        ),
        (
            "addresses_per_user",
            sql(
                "SELECT \"user\", count(DISTINCT src_ip) AS n FROM events GROUP BY \"user\" ORDER BY n DESC, \"user\" LIMIT 10",
            ),
        ),
        (
            "rare_user_agents",
            sql(
                "SELECT user_agent, count(*) AS n FROM events GROUP BY user_agent HAVING count(*) < 100 ORDER BY n, user_agent LIMIT 20",
            ),
        ),
        ("point_lookup", format!("SELECT * FROM events WHERE event_id = '{id}'")),
        ("substring", sql("SELECT count(*) FROM events WHERE message LIKE '%/dead%'")),
        ("latest_100", sql("SELECT * FROM events ORDER BY time DESC LIMIT 100")),
        (
            "by_type",
            sql("SELECT type, count(*) AS n FROM events GROUP BY type ORDER BY n DESC, type"),
        ),
        (
            "high_score",
            sql(
                "SELECT time, event_id, \"user\", anomaly_score FROM events WHERE anomaly_score >= 0.95 ORDER BY time DESC LIMIT 100",
            ),
        ),
        (
            "time_range",
            format!(
                "SELECT count(*), avg(threat_score), max(bytes) FROM events WHERE time >= to_timestamp({low}) AND time < to_timestamp({high})"
            ),
        ),
        ("count", sql("SELECT count(*) FROM events")),
    ]
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let directory =
        args.next().ok_or("query_speed <directory> [million rows] [million a segment] [rounds]")?;
    let mut number = |default: f64| args.next().map_or(Ok(default), |text| text.parse::<f64>());
    let total = (number(10.0)? * 1e6) as u64;
    let each = (number(2.0)? * 1e6) as u64;
    let rounds = number(5.0)? as usize;
    let directory = Path::new(&directory).join(format!("rows-{total}-{each}"));
    std::fs::create_dir_all(&directory)?;
    let started = Instant::now();
    let segments = segments(&directory, total, each)?;
    let bytes: u64 = segments.iter().map(|segment| segment.meta.bytes).sum();
    let json = std::env::var_os("QUERY_SPEED_JSON").is_some();
    if !json {
        println!(
            "{total} rows, {:.1} bytes a row, ready in {:.1?}",
            bytes as f64 / total as f64,
            started.elapsed()
        );
    }
    let snapshot = Snapshot {
        table: EVENTS.to_owned(),
        version: 1,
        committed: Offset(0),
        visible: Offset(0),
        segments: Arc::new(segments),
        memory: Arc::new(Vec::new()),
    };
    let engine = QueryEngine::new(Options::default(), Arc::new(One(snapshot)))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let who = TenantId::default_tenant();
    let limits = Limits { time: Duration::from_secs(120), rows: 100_000, ..Limits::default() };
    let wanted = std::env::var("QUERY_SPEED_ONLY").unwrap_or_default();
    for (name, sql) in queries(total) {
        if !name.contains(&wanted) {
            continue;
        }
        if std::env::var_os("QUERY_SPEED_PLAN").is_some() {
            let explain = format!("EXPLAIN ANALYZE {sql}");
            let plan = runtime
                .block_on(async { engine.query(&who, &explain, limits).await?.collect().await })?;
            println!("{}", arrow::util::pretty::pretty_format_batches(&plan)?);
        }
        let mut seconds = Vec::new();
        let mut rows = 0;
        let mut first = 0.0;
        for round in 0..=rounds {
            let started = Instant::now();
            let batches = runtime
                .block_on(async { engine.query(&who, &sql, limits).await?.collect().await })?;
            let took = started.elapsed().as_secs_f64();
            // The first round warms the caches.
            if round == 0 {
                first = took
            } else {
                seconds.push(took)
            }
            rows = batches.iter().map(RecordBatch::num_rows).sum();
        }
        seconds.sort_by(f64::total_cmp);
        let best = seconds.first().copied().unwrap_or(0.0);
        let median = seconds.get(seconds.len() / 2).copied().unwrap_or(0.0);
        if json {
            let line = serde_json::json!({
                "name": name, "seconds": best, "median": median, "first": first, "rows": rows, "sql": sql,
            });
            println!("{line}");
        } else {
            println!(
                "{name:26} best {:8.2} ms  median {:8.2} ms  first {:8.2} ms  {rows} rows",
                best * 1e3,
                median * 1e3,
                first * 1e3
            );
        }
    }
    Ok(())
}
