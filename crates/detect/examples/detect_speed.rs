//! How long the detectors take, per value and per event: `cargo run --release --example detect_speed`.
//!
//! Batches of 8,192 events as StreamGuard sends them: user agents, URLs and metadata are
//! dictionaries, one row in a thousand is an attack. All data come from a fixed generator.

use arrow::array::{ArrayRef, DictionaryArray, Float64Array, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::Int32Type;
use palisade_detect::entropy;
use palisade_detect::reputation::{List, ListKind, ListSpec, Lists, stamp};
use palisade_detect::threat::columns::Place;
use palisade_detect::threat::{SourceNorms, ThreatScorer};
use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

const ROWS: usize = 8_192;

/// A small generator, so that every run sees the same.
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

fn dictionary(rows: usize, value: impl FnMut(usize) -> String) -> ArrayRef {
    let texts: Vec<String> = (0..rows).map(value).collect();
    let array: DictionaryArray<Int32Type> = texts.iter().map(String::as_str).collect();
    Arc::new(array)
}

fn agents() -> Vec<String> {
    (0..40)
        .map(|n| {
            format!(
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{}.0.0.0 Safari/537.36",
                90 + n
            )
        })
        .collect()
}

fn batch(seed: u64, with_message: bool) -> Result<RecordBatch, Box<dyn Error>> {
    let mut random = Random(seed | 1);
    let agents = agents();
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        ("tenant", dictionary(ROWS, |_| "default".to_owned())),
        ("source", dictionary(ROWS, |_| "http".to_owned())),
        (
            "outcome",
            dictionary(ROWS, |row| if row % 20 == 0 { "failure" } else { "success" }.to_owned()),
        ),
        ("src_ip", dictionary(ROWS, |_| format!("10.{}.{}.7", random.below(8), random.below(250)))),
    ];
    let mut random = Random(seed | 3);
    columns.push((
        "user_agent",
        dictionary(ROWS, |_| agents.get(random.below(40) as usize).cloned().unwrap_or_default()),
    ));
    columns.push((
        "url",
        dictionary(ROWS, |_| match random.below(1_000) {
            0 => "/item?id=1'+union+select+1,2,3--".to_owned(),
            n => format!("/shop/item/{}?page={}&sort=price", n % 600, n % 3),
        }),
    ));
    columns
        .push(("metadata.device", dictionary(ROWS, |_| format!("device-{}", random.below(300)))));
    columns.push(("metadata.app", dictionary(ROWS, |_| format!("app-{}", random.below(12)))));
    columns.push((
        "metadata.session",
        Arc::new(StringArray::from_iter_values(
            (0..ROWS).map(|_| format!("{:016x}", random.below(u64::MAX))),
        )),
    ));
    columns.push((
        "reported_threat_score",
        Arc::new(Float64Array::from_iter_values(
            (0..ROWS).map(|_| random.below(1_000) as f64 / 2_000.0),
        )),
    ));
    columns.push((
        "reputation",
        Arc::new((0..ROWS).map(|_| (random.below(50) == 0).then_some(100)).collect::<Int32Array>()),
    ));
    if with_message {
        columns.push(("message", Arc::new(StringArray::from_iter_values((0..ROWS).map(|row| {
            format!("Dec 10 06:55:46 web{} sshd[{}]: Accepted publickey for deploy from 10.1.2.{} port {} ssh2", row % 9, 1000 + row, row % 250, 1024 + row)
        })))));
    }
    Ok(RecordBatch::try_from_iter(columns)?)
}

/// Nanoseconds of the fastest of several runs.
fn fastest(runs: usize, mut work: impl FnMut()) -> f64 {
    (0..runs)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_nanos() as f64
        })
        .fold(f64::INFINITY, f64::min)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut random = Random(7);
    for length in [20usize, 50, 100, 200, 255, 300, 1_000, 4_096, 65_536] {
        let count = (4 << 20) / length;
        let texts: Vec<Vec<u8>> = (0..count)
            .map(|_| (0..length).map(|_| b' ' + random.below(90) as u8).collect())
            .collect();
        let time = fastest(7, || {
            for text in &texts {
                black_box(entropy::quantised(black_box(text)));
            }
        });
        let each = time / count as f64;
        println!(
            "entropy, {length} bytes: {each:.1} ns, {:.2} M/s, {:.2} GB/s",
            1e3 / each,
            length as f64 / each
        );
    }

    let mut scorer = ThreatScorer::new()?;
    for (name, place, text) in [
        ("agent", Place::Agent, agents().remove(3)),
        ("URL", Place::Request, "https://shop.example.com/products/shoes/running?size=42&color=blue&page=3&sort=price&session_hint=81723".to_owned()),
        ("message", Place::Line, "Dec 10 06:55:46 web1 sshd[24200]: Accepted publickey for deploy from 10.1.2.3 port 51234 ssh2: ED25519".to_owned()),
        ("message, opens the gate", Place::Line, "the user said 'hello' and left; then (as usual) || nothing else happened for a long time, 100 bytes".to_owned()),
        ("attack", Place::Request, "/item.php?id=-1%27+union+all+select+1,2,concat(user(),0x3a,password)+from+information_schema.tables--+-".to_owned()),
    ] {
        let time = fastest(7, || {
            for _ in 0..20_000 {
                black_box(scorer.inspect(place, black_box(&text)));
            }
        });
        println!("{name} of {} bytes: {:.0} ns", text.len(), time / 20_000.0);
    }

    for (name, with_message) in [("StreamGuard", false), ("with message", true)] {
        let batch = batch(11, with_message)?;
        let mut norms = SourceNorms::default();
        let features = scorer.features(&batch);
        norms.observe(features.quantised(), &batch);
        norms.on_tick();
        let first = fastest(15, || drop(black_box(scorer.features(black_box(&batch)))));
        let second = fastest(15, || drop(black_box(scorer.combine(&features, &batch, &norms))));
        let third = fastest(15, || norms.observe(features.quantised(), &batch));
        let rows = ROWS as f64;
        println!(
            "{name} batch of {ROWS}: features {:.1} + combine {:.1} + observe {:.1} = {:.1} ns an event, {} alerts",
            first / rows,
            second / rows,
            third / rows,
            (first + second + third) / rows,
            scorer.combine(&features, &batch, &norms).alerts.len()
        );
    }

    let text: String = (0..20_000)
        .map(|_| {
            format!(
                "{}.{}.{}.{}\n",
                random.below(224),
                random.below(256),
                random.below(256),
                random.below(256)
            )
        })
        .collect();
    let list =
        List::parse(&ListSpec::new("random", ListKind::Reputation), "random", text.as_bytes())?;
    let lists = Lists::build(&[list])?;
    let asked: Vec<u32> =
        (0..1_000_000).map(|_| random.below(u64::from(u32::MAX)) as u32).collect();
    let time = fastest(7, || {
        let sum: u64 = asked.iter().map(|address| u64::from(lists.level_v4(*address))).sum();
        black_box(sum);
    });
    println!(
        "reputation: {:.1} M lookups/s of random IPv4 addresses in 20,000 entries",
        1e9 / time
    );
    let batch = batch(11, false)?;
    let time = fastest(15, || drop(black_box(stamp(&batch, &lists))));
    println!("reputation: stamp {:.1} ns an event", time / ROWS as f64);
    Ok(())
}
