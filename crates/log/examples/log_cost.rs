//! What the log costs: CPU per row of encoding, decoding and appending, for narrow and wide batches.
//!
//! `cargo run --release -p palisade-log --example log_cost`. Figures are CPU time of the thread (of the
//! process where the writer's thread takes part), so they hold on a busy machine too.

use arrow::array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, StringDictionaryBuilder,
    TimestampMicrosecondArray,
};
use arrow::datatypes::Int32Type;
use palisade_event::id::GatewayIdentity;
use palisade_event::{Entry, Frame, Offset};
use palisade_log::disk::RealDisk;
use palisade_log::{Encoder, Log, LogOptions};
use std::error::Error;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    /// Few values often, many seldom.
    fn skewed(&mut self, values: usize) -> usize {
        let unit = self.next() as f64 / (1_u64 << 31) as f64;
        (unit * unit * values as f64) as usize
    }
}

fn dictionary(rows: usize, values: usize, prefix: &str, random: &mut Random) -> ArrayRef {
    let mut builder = StringDictionaryBuilder::<Int32Type>::new();
    for _ in 0..rows {
        builder.append_value(format!("{prefix}{}", random.skewed(values)));
    }
    Arc::new(builder.finish())
}

/// 8,192 rows as StreamGuard sends them.
fn narrow() -> Result<RecordBatch, Box<dyn Error>> {
    let (rows, start) = (8_192, 1_700_000_000_000_000_i64);
    let random = &mut Random(7);
    let times = |step: i64| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from_iter_values(
            (0..rows as i64).map(|n| start + n / step * 37),
        ))
    };
    let ids = (0..rows).map(|n| format!("evt_{}_{}", 1_700_000_000 + n / 4_000, 100_000 + n));
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        ("time", times(1)),
        ("ingest_time", times(100)),
        ("event_id", Arc::new(StringArray::from_iter_values(ids))),
    ];
    for (name, values, prefix) in [
        ("tenant", 1, "default"),
        ("source", 1, "http"),
        ("type", 8, "type_"),
        ("outcome", 2, "outcome"),
        ("user", 10_000, "user_"),
        ("host", 200, "host_"),
        ("src_ip", 20_000, "203.0.113."),
        ("location", 50, "City, Land "),
        ("user_agent", 100, "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/12"),
        ("session", 5_000, "session-"),
        ("device", 300, "device-"),
    ] {
        columns.push((name, dictionary(rows, values, prefix, random)));
    }
    let scores = (0..rows).map(|_| (random.next() % 1_000) as f64 / 1_000.0);
    columns.push(("reported_threat_score", Arc::new(Float64Array::from_iter_values(scores))));
    Ok(RecordBatch::try_from_iter(columns)?)
}

/// 1,000 rows of 233 columns, many of them sparse, as Windows events are.
fn wide() -> Result<RecordBatch, Box<dyn Error>> {
    let rows = 1_000_usize;
    let random = &mut Random(9);
    let columns = (0..233_usize).map(|column| {
        let array: ArrayRef =
            match column % 4 {
                0 => Arc::new(Int64Array::from_iter(
                    (0..rows).map(|n| n.is_multiple_of(3).then_some((n * column) as i64)),
                )),
                1 => Arc::new(StringArray::from_iter((0..rows).map(|n| {
                    n.is_multiple_of(5).then(|| format!("value-{column}-{}", n * 31 % 97))
                }))),
                _ => dictionary(rows, 1 + column % 37, "some value ", random),
            };
        (format!("winlog.event_data.field{column}"), array)
    });
    Ok(RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true)))?)
}

/// CPU nanoseconds of this thread so far.
fn thread_cpu() -> Result<u64, Box<dyn Error>> {
    let stat = fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(stat.split(' ').next().ok_or("no schedstat")?.parse()?)
}

/// CPU nanoseconds of all threads so far.
fn process_cpu() -> Result<u64, Box<dyn Error>> {
    let mut sum = 0;
    for task in fs::read_dir("/proc/self/task")? {
        let stat = fs::read_to_string(task?.path().join("schedstat"))?;
        sum += stat.split(' ').next().ok_or("no schedstat")?.parse::<u64>()?;
    }
    Ok(sum)
}

fn main() -> Result<(), Box<dyn Error>> {
    let rounds = 200_u64;
    for (name, batch) in [("narrow", narrow()?), ("wide", wide()?)] {
        let rows = batch.num_rows() as u64;
        let entry = Arc::new(Entry::Frame(Frame {
            stream: "events".into(),
            clock: 1,
            gateway: GatewayIdentity { region: 0, gateway: 0, epoch: 1 },
            requests: vec![],
            batch,
        }));
        let mut encoder = Encoder::new()?;
        let encoded = encoder.encode(&entry)?;
        println!(
            "{name}: {rows} rows, {:.1} raw bytes a row, {:.1} stored",
            encoded.raw_bytes() as f64 / rows as f64,
            encoded.stored_bytes() as f64 / rows as f64
        );
        let per_row = |what: &str, cpu: u64, wall: Duration| {
            let rows = (rounds * rows) as f64;
            println!(
                "  {what:24} {:8.1} ns CPU a row, {:8.1} ns wall",
                cpu as f64 / rows,
                wall.as_nanos() as f64 / rows
            );
        };
        let (cpu, wall) = (thread_cpu()?, Instant::now());
        for _ in 0..rounds {
            std::hint::black_box(encoder.encode(&entry)?);
        }
        per_row("encode", thread_cpu()? - cpu, wall.elapsed());

        let dir = tempfile::tempdir_in(".")?;
        let (log, _) = Log::open(Arc::new(RealDisk), dir.path(), LogOptions::default(), None)?;
        let (cpu, wall) = (process_cpu()?, Instant::now());
        let mut last = None;
        for _ in 0..rounds {
            let (send, receive) = std::sync::mpsc::channel();
            let done = Box::new(move |result| {
                let _ = send.send(result);
            });
            log.append(Arc::clone(&entry), encoded.clone(), done)?;
            last = Some(receive);
        }
        if let Some(last) = last {
            last.recv()??;
        }
        per_row("append, fsync", process_cpu()? - cpu, wall.elapsed());
        println!("  {:24} {}", "fsyncs", log.stats().fsyncs);

        let (cpu, wall) = (thread_cpu()?, Instant::now());
        for item in log.read(Offset(0))? {
            std::hint::black_box(item?);
        }
        per_row("read, verify, decode", thread_cpu()? - cpu, wall.elapsed());
    }
    Ok(())
}
