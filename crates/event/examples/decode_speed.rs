//! Measures decoding on one core: `cargo run --release -p palisade-event --example decode_speed`.
//!
//! (a) StreamGuard events of about 300 bytes, 10,000 users and addresses after Zipf's law, in frames
//! of 8,192 rows and smaller; (b) real Windows events, where the test data is there. Prints JSON lines.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a measurement may stop")]

use palisade_event::decode::{DecodeLimits, FrameBuilder, RequestContext};
use palisade_event::id::GatewayIdentity;
use std::io::Read;
use std::time::Instant;

const CTX: RequestContext<'_> = RequestContext {
    tenant: "default",
    source: "events",
    clock: 1_800_000_000_000_000,
    domain: None,
    gateway: GatewayIdentity { region: 0, gateway: 0, epoch: 1 },
    request: 1,
    key: None,
};

/// A fixed sequence of numbers (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Roughly Zipf with exponent 1 over `n` ranks.
    fn zipf(&mut self, n: u64) -> u64 {
        let uniform = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        ((n as f64).powf(uniform) as u64).min(n) - 1
    }
}

fn streamguard(events: usize) -> Vec<String> {
    let mut numbers = Numbers(7);
    let types = ["LOGIN_SUCCESS", "LOGIN_FAILED", "FILE_ACCESS", "API_CALL", "LOGOUT"];
    let places = ["San Francisco, CA", "New York, NY", "Berlin, DE", "Singapore", "London, UK"];
    let agents = ["Mozilla/5.0 (Windows NT 10.0; Win64; x64)", "curl/8.4.0", "okhttp/4.12.0"];
    (0..events)
        .map(|n| {
            let (user, address) = (numbers.zipf(10_000), numbers.zipf(10_000));
            let second = 1_696_723_200 + n / 1_000;
            format!(
                "{{\"event_id\":\"evt_{second}_{n:03}\",\"user\":\"user{user:05}\",\"timestamp\":{second}{:03},\"type\":\"{}\",\"source_ip\":\"10.{}.{}.{}\",\"geo_location\":\"{}\",\"threat_score\":0.{:02},\"metadata\":{{\"user_agent\":\"{}\",\"session_id\":\"sess_{:08x}\",\"device\":\"laptop-{}\"}}}}",
                n % 1_000,
                types[(numbers.next() % 5) as usize],
                address >> 16,
                address >> 8 & 255,
                address & 255,
                places[(numbers.next() % 5) as usize],
                numbers.next() % 100,
                agents[(numbers.next() % 3) as usize],
                numbers.next() as u32,
                user % 500,
            )
        })
        .collect()
}

fn otrf() -> Option<Vec<String>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/events-otrf");
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).ok()?.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut lines = Vec::new();
    for path in paths.iter().filter(|path| path.to_string_lossy().ends_with(".json.gz")) {
        let mut text = String::new();
        let file = std::fs::File::open(path).unwrap();
        flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
        lines.extend(text.lines().map(str::to_owned));
    }
    Some(lines)
}

/// Seconds that this thread has run on a CPU, where the kernel tells; else of wall time. Other work
/// on the machine then counts only as far as it shares caches and cores.
fn cpu_seconds(begun: Instant) -> f64 {
    std::fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|text| text.split(' ').next()?.parse::<f64>().ok())
        .map_or_else(|| begun.elapsed().as_secs_f64(), |nanoseconds| nanoseconds / 1e9)
}

fn measure(name: &str, lines: &[String], rows_a_frame: usize, seconds: f64) {
    let bodies: Vec<String> = lines.chunks(rows_a_frame).map(|chunk| chunk.join("\n")).collect();
    let bytes: usize = bodies.iter().map(String::len).sum();
    let mut builder = FrameBuilder::new(DecodeLimits::default());
    let (mut best, mut columns) = (f64::INFINITY, 0);
    let begun = Instant::now();
    for round in 0.. {
        let start = cpu_seconds(begun);
        for body in &bodies {
            let outcome = builder.push_json_body(&CTX, body.as_bytes());
            assert_eq!(outcome.rejected_total, 0, "{:?}", outcome.rejected.first());
            columns = builder.finish().unwrap().num_columns();
        }
        best = best.min(cpu_seconds(begun) - start);
        if begun.elapsed().as_secs_f64() >= seconds && (round > 2 || seconds == 0.0) {
            break;
        }
    }
    let events = lines.len() as f64;
    println!(
        "{{\"name\":\"{name}\",\"events\":{},\"bytes_per_event\":{:.0},\"rows_per_frame\":{rows_a_frame},\"columns\":{columns},\"events_per_second\":{:.0},\"megabytes_per_second\":{:.0},\"nanoseconds_per_event\":{:.0}}}",
        lines.len(),
        bytes as f64 / events,
        events / best,
        bytes as f64 / best / 1e6,
        best / events * 1e9,
    );
}

/// Arguments: seconds a measurement (3; 0 is one round, for a profiler), rows a frame.
fn main() {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().map_or(3.0, |text| text.parse().unwrap());
    let rows: Option<usize> = arguments.next().map(|text| text.parse().unwrap());
    let events = streamguard(40 * 8_192);
    for rows in rows.map_or(vec![8_192, 256, 16], |rows| vec![rows]) {
        measure("streamguard", &events, rows, seconds);
    }
    match otrf() {
        Some(lines) => {
            for rows in rows.map_or(vec![8_192, 2_048, 256], |rows| vec![rows]) {
                measure("events-otrf", &lines, rows, seconds);
            }
        }
        None => println!("skipped: events-otrf is not there"),
    }
}
