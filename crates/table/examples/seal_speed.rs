//! How fast rows are sealed and merged, and how many bytes they take on disk.
//!
//! `cargo run --release -p palisade-table --example seal_speed [rows]` makes StreamGuard-like events
//! (10,000 users and 20,000 addresses by Zipf's law, ids `evt_<seconds>_<n>`, 20 columns) and prints the
//! CPU microseconds a row of sealing and of merging, and the bytes a row. Then the same for wide
//! events of 200 sparse columns, in megabytes of raw JSON a second. Given `columns` after the
//! rows, it prints what each column takes; given `repeat`, it seals the same rows ten times.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a measurement may panic"
)]

use arrow::array::{
    ArrayRef, DictionaryArray, Float32Array, Float64Array, Int32Array, Int64Array, RecordBatch,
    StringArray, TimestampMicrosecondArray, UInt64Array,
};
use arrow::datatypes::{Field, Int32Type, Schema};
use palisade_event::Offset;
use palisade_event::schema::EVENTS;
use palisade_table::{CompactionPolicy, MemoryCommits, TableOptions, Tables};
use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;

/// A small generator of numbers (splitmix64), so that every run has the same rows.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// About Zipf's law with exponent 1 over `0..n`.
    fn zipf(&mut self, n: u64) -> u64 {
        let rank = ((n as f64 + 1.0).powf(self.unit())) as u64;
        rank.saturating_sub(1).min(n - 1)
    }
}

fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

/// Builds a dictionary column by order of first appearance.
fn encoded(values: impl Iterator<Item = Option<String>>) -> ArrayRef {
    let mut known: BTreeMap<String, i32> = BTreeMap::new();
    let mut order: Vec<String> = Vec::new();
    let keys: Vec<Option<i32>> = values
        .map(|value| {
            let value = value?;
            let next = known.len() as i32;
            Some(*known.entry(value.clone()).or_insert_with(|| {
                order.push(value);
                next
            }))
        })
        .collect();
    let keys = Int32Array::from(keys);
    Arc::new(DictionaryArray::<Int32Type>::new(keys, Arc::new(StringArray::from(order))))
}

fn times(values: Vec<i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC"))
}

const TYPES: [&str; 8] =
    ["login", "logout", "file_access", "api_call", "admin", "download", "upload", "query"];

/// One frame: rows of a few milliseconds at 400,000 a second.
fn frame(offset: u64, rows: usize, random: &mut Random) -> RecordBatch {
    let base = 1_700_000_000_000_000i64 + (offset as i64) * (rows as i64) * 5 / 2;
    let users: Vec<u64> = (0..rows).map(|_| random.zipf(10_000)).collect();
    let event_times: Vec<i64> = (0..rows)
        .map(|row| (base + row as i64 * 5 / 2 - (random.next() % 50_000) as i64) / 1000 * 1000)
        .collect();
    let ids: Vec<String> = event_times
        .iter()
        .enumerate()
        .map(|(row, time)| {
            format!("evt_{}_{}", time / 1_000_000, offset * rows as u64 + row as u64)
        })
        .collect();
    let kinds: Vec<&str> = (0..rows).map(|_| TYPES[random.zipf(8) as usize]).collect();
    let text = |f: &mut dyn FnMut(usize) -> Option<String>| encoded((0..rows).map(f));
    let mut r = Random(offset);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("tenant", text(&mut |_| Some("default".to_owned()))),
        ("time", times(event_times)),
        ("ingest_time", times((0..rows).map(|row| base + (row as i64 / 100) * 250).collect())),
        (
            "position",
            Arc::new(UInt64Array::from_iter_values((0..rows as u64).map(|r| offset << 20 | r))),
        ),
        ("source", text(&mut |_| Some("http".to_owned()))),
        ("event_id", Arc::new(StringArray::from(ids))),
        ("type", text(&mut |row| Some(kinds[row].to_owned()))),
        (
            "outcome",
            text(&mut |_| Some(if r.unit() < 0.9 { "success" } else { "failure" }.to_owned())),
        ),
        ("user", text(&mut |row| Some(format!("user{:05}", users[row])))),
        ("host", text(&mut |row| Some(format!("host-{:03}", users[row] % 200)))),
        (
            "src_ip",
            text(&mut |row| {
                let n = users[row] * 2 + u64::from(r.unit() < 0.2);
                Some(format!("10.{}.{}.{}", n / 65_536, n / 256 % 256, n % 256))
            }),
        ),
        (
            "src_port",
            Arc::new(Int32Array::from_iter_values(
                (0..rows).map(|_| 1024 + (r.next() % 60_000) as i32),
            )),
        ),
        ("location", text(&mut |row| Some(format!("City {}", users[row] % 97)))),
        ("user_agent", text(&mut |row| Some(format!("Mozilla/5.0 (variant {})", users[row] % 40)))),
        ("url", text(&mut |_| Some(format!("/api/v1/resource/{}", r.zipf(3000))))),
        (
            "reported_threat_score",
            Arc::new(Float64Array::from_iter_values(
                (0..rows).map(|_| (r.unit() * 100.0).round() / 100.0),
            )),
        ),
        (
            "metadata.bytes",
            Arc::new(Int64Array::from_iter_values((0..rows).map(|_| (r.next() % 100_000) as i64))),
        ),
        ("metadata.device", text(&mut |row| Some(format!("device-{}", users[row] % 1000)))),
        (
            "entropy",
            Arc::new(Float32Array::from_iter_values(
                (0..rows).map(|_| ((4.0 + r.unit()) * 256.0).round() as f32 / 256.0),
            )),
        ),
        (
            "threat_score",
            Arc::new(Float32Array::from_iter_values(
                (0..rows).map(|_| (r.unit() * r.unit() * 1000.0).round() as f32 / 1000.0),
            )),
        ),
        (
            "anomaly_score",
            Arc::new(Float32Array::from_iter_values(
                (0..rows).map(|_| (r.unit() * r.unit() * 1000.0).round() as f32 / 1000.0),
            )),
        ),
    ];
    batch(columns)
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, array)| Field::new(*name, array.data_type().clone(), true))
        .collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap_or_else(|e| fail(&e))
}

/// Events of 200 dynamic columns, of which each has about 30, and their length as JSON.
fn wide_frame(offset: u64, rows: usize, random: &mut Random) -> (RecordBatch, usize) {
    let mut raw = 0usize;
    let base = 1_700_000_000_000_000i64 + offset as i64 * 1_000_000;
    let row_times: Vec<i64> = (0..rows).map(|row| base + row as i64 * 1000).collect();
    let mut columns: Vec<(String, ArrayRef)> = vec![
        ("tenant".to_owned(), encoded((0..rows).map(|_| Some("default".to_owned())))),
        ("time".to_owned(), times(row_times.clone())),
        ("ingest_time".to_owned(), times(row_times)),
        (
            "position".to_owned(),
            Arc::new(UInt64Array::from_iter_values((0..rows as u64).map(|r| offset << 20 | r))),
        ),
    ];
    let shapes: Vec<u64> = (0..rows).map(|_| random.zipf(20)).collect();
    for column in 0..200u64 {
        let name = format!("winlog.event_data.field{column:03}");
        let distinct = [3, 20, 200, 5_000][column as usize % 4];
        let present = |row: usize| (shapes[row] * 31 + column * 7) % 20 < 3;
        let values = (0..rows).map(|row| {
            present(row)
                .then(|| format!("C:\\Windows\\System32\\value-{}.exe", random.zipf(distinct)))
        });
        let values: Vec<Option<String>> = values.collect();
        raw += values.iter().flatten().map(|v| v.len() + name.len() + 6).sum::<usize>();
        let array = if distinct > 1000 {
            Arc::new(StringArray::from(values))
        } else {
            encoded(values.into_iter())
        };
        columns.push((name, array));
    }
    (batch(columns.iter().map(|(n, a)| (n.as_str(), Arc::clone(a))).collect()), raw)
}

fn fail(error: &dyn Error) -> ! {
    eprintln!("{error}");
    std::process::exit(1)
}

fn tables(dir: &std::path::Path) -> Result<(Tables, u64), Box<dyn Error>> {
    let commits = Arc::new(MemoryCommits::default());
    let epoch = commits.claim();
    let options = TableOptions {
        compaction: CompactionPolicy { fan_in: 2, ..CompactionPolicy::default() },
        ..TableOptions::default()
    };
    Ok((Tables::open(dir, commits, options)?.0, epoch))
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let rows: usize = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(2_000_000);
    let columns = arguments.next();
    let dir = std::env::temp_dir().join(format!("palisade-seal-speed-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let done = if columns.as_deref() == Some("repeat") {
        repeat(&dir, rows)
    } else {
        narrow(&dir.join("narrow"), rows, columns.is_some())
            .and_then(|()| wide(&dir.join("wide"), rows))
    };
    std::fs::remove_dir_all(&dir)?;
    done
}

fn narrow(dir: &std::path::Path, rows: usize, columns: bool) -> Result<(), Box<dyn Error>> {
    let (tables, epoch) = tables(dir)?;
    let mut random = Random(7);
    let frame_rows = 2000;
    let mut sealed = 0.0;
    let mut offset = 0u64;
    for _ in 0..2 {
        for _ in 0..rows / frame_rows / 2 {
            tables.append(EVENTS, Offset(offset), frame(offset, frame_rows, &mut random))?;
            offset += 1;
        }
        tables.advance(Offset(offset));
        let before = cpu_seconds();
        let report = tables.seal(Offset(offset), epoch)?;
        let seconds = cpu_seconds() - before;
        sealed += seconds;
        println!(
            "sealed {} rows: {:.3} CPU us/row, {:.2} bytes/row",
            report.rows,
            seconds * 1e6 / report.rows as f64,
            report.bytes as f64 / report.rows as f64
        );
    }
    println!("seal: {:.3} CPU us/row over all", sealed * 1e6 / rows as f64);
    if columns {
        for segment in tables.list().iter().take(1) {
            print_columns(&segment.path)?;
        }
    }
    let before = cpu_seconds();
    let report = tables.maintain(0, epoch)?;
    println!(
        "merged {} rows: {:.3} CPU us/row, {:.2} bytes/row",
        report.merged_rows,
        (cpu_seconds() - before) * 1e6 / report.merged_rows.max(1) as f64,
        report.merged_bytes as f64 / report.merged_rows.max(1) as f64
    );
    Ok(())
}

/// Seals the same rows ten times, for a profiler.
fn repeat(dir: &std::path::Path, rows: usize) -> Result<(), Box<dyn Error>> {
    let (tables, epoch) = tables(dir)?;
    let mut random = Random(7);
    let frame_rows = 2000;
    let count = (rows / frame_rows / 2) as u64;
    let frames: Vec<RecordBatch> =
        (0..count).map(|offset| frame(offset, frame_rows, &mut random)).collect();
    for round in 0..10 {
        for (offset, frame) in frames.iter().enumerate() {
            tables.append(EVENTS, Offset(round * count + offset as u64), frame.clone())?;
        }
        tables.advance(Offset((round + 1) * count));
        let before = cpu_seconds();
        let report = tables.seal(Offset((round + 1) * count), epoch)?;
        println!("{:.3} CPU us/row", (cpu_seconds() - before) * 1e6 / report.rows as f64);
    }
    Ok(())
}

fn print_columns(path: &std::path::Path) -> Result<(), Box<dyn Error>> {
    use parquet::file::reader::FileReader;
    let file = std::fs::File::open(path)?;
    let reader = parquet::file::reader::SerializedFileReader::new(file)?;
    let mut sums: BTreeMap<String, (i64, i64, String)> = BTreeMap::new();
    let mut rows = 0;
    for group in reader.metadata().row_groups() {
        rows += group.num_rows();
        for column in group.columns() {
            let sum = sums.entry(column.column_path().string()).or_default();
            sum.0 += column.compressed_size();
            sum.1 += i64::from(column.bloom_filter_length().unwrap_or(0));
            sum.2 =
                format!("{:?} {:?}", column.compression(), column.encodings().collect::<Vec<_>>());
        }
    }
    for (name, (bytes, bloom, how)) in &sums {
        let per_row = |bytes: i64| bytes as f64 / rows as f64;
        println!(
            "  {name:24} {:6.3} bytes/row, bloom {:.3} {how}",
            per_row(*bytes),
            per_row(*bloom)
        );
    }
    let index = std::fs::metadata(palisade_table::EntityIndex::path_of(path))?.len();
    println!("  {:24} {:6.3}", "entity index", index as f64 / rows as f64);
    let columns: i64 = sums.values().map(|sum| sum.0 + sum.1).sum();
    let rest = std::fs::metadata(path)?.len() as i64 - columns;
    println!("  {:24} {:6.3}", "metadata, page index", rest as f64 / rows as f64);
    Ok(())
}

fn wide(dir: &std::path::Path, rows: usize) -> Result<(), Box<dyn Error>> {
    let (tables, epoch) = tables(dir)?;
    let mut random = Random(11);
    let frame_rows = 1000;
    let mut raw = 0usize;
    let frames = (rows / 20 / frame_rows).max(1) as u64;
    for offset in 0..frames {
        let (frame, bytes) = wide_frame(offset, frame_rows, &mut random);
        raw += bytes;
        tables.append(EVENTS, Offset(offset), frame)?;
    }
    tables.advance(Offset(frames));
    let before = cpu_seconds();
    let report = tables.seal(Offset(frames), epoch)?;
    let seconds = cpu_seconds() - before;
    println!(
        "sealed {} wide rows of {} raw bytes: {:.0} MB/s of raw JSON, {:.1} times smaller",
        report.rows,
        raw as u64 / report.rows.max(1),
        raw as f64 / seconds / 1e6,
        raw as f64 / report.bytes as f64
    );
    Ok(())
}
