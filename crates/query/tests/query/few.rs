//! Rows that stand alone in their pages: picked out of segments, they are those of the plain evaluation on rows in
//! memory, and hold no more memory than they show.

use crate::support::{Fixed, Row, ask, batch, engine, objects, snapshot, tenant, wait};
use arrow::array::RecordBatch;
use palisade_event::Offset;
use palisade_event::schema::EVENTS;
use palisade_query::{Limits, Options, QueryEngine, QueryError};
use palisade_table::{MemoryCommits, TableOptions, Tables};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use std::sync::Arc;

const ROWS: i64 = 120_000;
/// Rows of each rare user and address.
const RARE: i64 = 7;

/// Events with values of all kinds, with and without nulls. Every 40th row is of a user and an address that occur in
/// few places.
fn some_rows() -> Vec<Row> {
    let mut state = 5u64;
    let mut next = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    };
    (0..ROWS)
        .map(|at| {
            let mut row = Row::new("acme", at * 1_000);
            row.user = (at % 11 != 0).then(|| format!("user{:02}", next(40)));
            row.src_ip = Some(format!("10.0.0.{}", next(200)));
            if at % 40 == 1 {
                row.user = Some(format!("rare-{}", at / 40 / RARE));
                row.src_ip = Some(format!("192.0.2.{}", at / 40 % 300));
            }
            if at % 13 == 0 {
                row.record_id = Some(u128::from(next(u64::MAX)).to_be_bytes());
            } else {
                row.event_id = Some(format!("evt_{}_{:06}", 1_768_302_080 + at / 700, at % 999));
            }
            row.message =
                (at % 5 != 0).then(|| format!("a message of some length, {}", next(u64::MAX)));
            row.outcome = (at % 70_000 > 30_000).then_some("failure");
            row.entropy = (at % 3 != 0).then(|| next(1_000_000) as f32 / 7.0);
            row.anomaly = Some(next(100) as f32 / 100.0);
            if at % 6 == 0 {
                row = row.field("bytes", json!(next(1 << 40) as i64 - (1 << 39)));
            }
            row = row.field("port", json!(next(9) as i64));
            row = row.field("ratio", json!(next(u64::MAX) as f64 / 3.0));
            row = row.field("ok", json!(at % 4 == 0 || next(50) == 0));
            if at % 1_000 < 990 {
                row = row.field("path", json!(format!("/srv/{}", next(3_000))));
            }
            row.field("code", if at % 9 == 0 { json!("E5") } else { json!(next(5) as i64) })
        })
        .collect()
}

/// An engine over these rows in segments of the real writer.
fn sealed(batches: &[&[Row]]) -> (QueryEngine, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let commits = Arc::new(MemoryCommits::default());
    let epoch = commits.claim();
    let (tables, _) = Tables::open(directory.path(), commits, TableOptions::default()).unwrap();
    for (offset, rows) in batches.iter().enumerate() {
        let offset = offset as u64;
        tables.append(EVENTS, Offset(offset), batch(rows)).unwrap();
        tables.advance(Offset(offset + 1));
        tables.seal(Offset(offset + 1), epoch).unwrap();
    }
    let sealed = tables.snapshot(EVENTS);
    assert!(sealed.memory.is_empty());
    let options = Options { threads: 2, ..Options::default() };
    (QueryEngine::new(options, Fixed::with(vec![sealed])).unwrap(), directory)
}

/// How many rows a query had picked, by its plan.
fn picked(engine: &QueryEngine, sql: &str) -> usize {
    let told = objects(&ask(engine, "acme", &format!("EXPLAIN ANALYZE {sql}")).unwrap());
    let text = told.iter().map(Value::to_string).collect::<String>();
    let counts = text.split("rows_picked=").skip(1);
    let number = |rest: &str| rest.split(|c: char| !c.is_ascii_digit()).next().map(str::parse);
    counts.map(|rest| number(rest).unwrap().unwrap_or(0_usize)).sum()
}

#[test]
fn few_rows_are_read_as_all_are() {
    let rows = some_rows();
    let half = ROWS as usize / 2;
    let (sealed, _directory) = sealed(&[&rows[..half], &rows[half..]]);
    let memory = engine(vec![snapshot(EVENTS, Vec::new(), vec![batch(&rows)])]);
    let same = |sql: &str| {
        let answer = |engine| {
            objects(&ask(engine, "acme", sql).unwrap_or_else(|error| panic!("{sql}: {error}")))
        };
        let wanted = answer(&memory);
        assert_eq!(answer(&sealed), wanted, "{sql}");
        wanted.len()
    };
    // All columns of a user's rows: they are picked, and are all there are.
    let all = "SELECT * FROM events WHERE \"user\" = 'rare-100' ORDER BY position";
    assert_eq!(same(all), RARE as usize);
    assert_eq!(picked(&sealed, all), RARE as usize);
    // Those of a common user are not.
    let common = "SELECT * FROM events WHERE \"user\" = 'user07' ORDER BY position";
    assert!(same(common) > 1_000);
    assert_eq!(picked(&sealed, common), 0);

    let who = (0..ROWS / 40, 0..7_u8);
    let (and, shown) = (0..9_u8, 0..7_u8);
    let mut runner = TestRunner::new(ProptestConfig::with_cases(100));
    let law = |((number, who), and, shown): ((i64, u8), u8, u8)| {
        let user = format!("rare-{}", number / RARE);
        let ip = format!("192.0.2.{}", number % 300);
        let time = |at: i64| format!("to_timestamp_micros(CAST({} AS BIGINT))", at * 40_000);
        let who = match who {
            0 | 1 => format!("\"user\" = '{user}'"),
            2 => format!("src_ip = '{ip}'"),
            3 => format!("\"user\" = '{user}' AND src_ip = '{ip}'"),
            4 => format!("\"user\" IN ('{user}', 'rare-3', 'nobody')"),
            5 => format!("src_ip = '{ip}' AND path = '/srv/{number}'"),
            _ => format!("src_ip = '{ip}' AND \"user\" LIKE 'rare-1%'"),
        };
        let and = match and {
            0 => format!(" AND time >= {}", time(number)),
            1 => format!(" AND time < {}", time(number + 3)),
            2 => " AND ok".to_owned(),
            3 => " AND bytes > 0".to_owned(),
            4 => " AND message IS NOT NULL AND entropy < 70000.0".to_owned(),
            5 => " AND code = 'E5'".to_owned(),
            6 => " AND (outcome = 'failure' OR outcome IS NULL AND port % 2 = 0)".to_owned(),
            _ => String::new(),
        };
        let sql = match shown {
            0 => format!("SELECT count(*) AS n FROM events WHERE {who}{and}"),
            1 => format!(
                "SELECT sum(bytes) AS a, max(ratio) AS b, min(id) AS c FROM events WHERE {who}{and}"
            ),
            2 => format!(
                "SELECT id, message || code AS m FROM events WHERE {who}{and} ORDER BY position"
            ),
            3 => format!(
                "SELECT * FROM events WHERE {who}{and} ORDER BY time DESC, position DESC LIMIT 3"
            ),
            4 => format!(
                "SELECT path, count(*) AS n FROM events WHERE {who}{and} GROUP BY path ORDER BY path"
            ),
            _ => format!("SELECT * FROM events WHERE {who}{and} ORDER BY position"),
        };
        same(&sql);
        Ok(())
    };
    runner.run(&(who, and, shown), |(who, and, shown)| law((who, and, shown))).unwrap();
}

#[test]
fn rows_out_of_many_pages_hold_no_pages() {
    let rows = some_rows();
    let (engine, _directory) = sealed(&[&rows]);
    let most = 4 << 20;
    let limits = Limits { memory: most, rows: 1_000, ..Limits::default() };
    // What the rows of an answer hold, and what the query held.
    let held = |sql: &str| {
        wait(async {
            let result = engine.query(&tenant("acme"), sql, limits).await?;
            let stats = Arc::clone(&result.stats);
            let batches = result.collect().await?;
            let bytes: usize = batches.iter().map(RecordBatch::get_array_memory_size).sum();
            let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
            Ok::<_, QueryError>((rows, bytes, stats.memory()))
        })
    };
    // One row of each page: with all texts of their pages they would hold 7 MiB. By the index and without.
    for (condition, count) in [
        ("position % 4000000 = 7000", 30),
        ("src_ip = '192.0.2.7'", 10),
        ("position % 40000 = 0", 100),
    ] {
        let select = format!("SELECT * FROM events WHERE {condition}");
        let (rows, bytes, memory) =
            held(&format!("{select} ORDER BY message, position LIMIT 100")).unwrap();
        assert_eq!(rows, count, "{condition}");
        assert!(bytes < 300_000 && memory < most, "{condition}: {bytes}, {memory} bytes");
    }
    let (rows, bytes, _) =
        held("SELECT message, path FROM events WHERE position % 4000000 = 7000").unwrap();
    assert!(rows == 30 && bytes < 200_000, "{rows} rows hold {bytes} bytes");
}
