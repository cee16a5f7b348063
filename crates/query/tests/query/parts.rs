//! Sums and counts over the parts of a table: each segment is asked once.

use crate::ids::Real;
use crate::support::{Row, batch, objects, tenant, wait};
use palisade_event::Offset;
use palisade_event::schema::EVENTS;
use palisade_query::{Excess, Limits, Options, QueryEngine, QueryError};
use palisade_table::{CompactionPolicy, MemoryCommits, TableOptions, Tables};
use std::sync::Arc;

const BY_TYPE: &str = "SELECT type, count(*) AS n FROM events GROUP BY type";

fn row(n: i64) -> Row {
    let mut row = Row::new(if n % 5 == 0 { "other" } else { "acme" }, n);
    row.kind = if n % 3 == 0 { "login" } else { "logout" };
    row
}

/// The sum of all parts, and how many parts were asked for it.
fn sum(engine: &QueryEngine, who: &str, sql: &str) -> (i64, usize) {
    let before = engine.log().of(&tenant(who)).len();
    let parts = wait(engine.query_parts(&tenant(who), EVENTS, sql, Limits::default())).unwrap();
    let rows = parts.iter().flat_map(objects);
    let sum = rows.filter_map(|row| row["n"].as_i64()).sum();
    (sum, engine.log().of(&tenant(who)).len() - before)
}

#[test]
fn a_segment_is_asked_once_and_memory_every_time() {
    let directory = tempfile::tempdir().unwrap();
    let commits = Arc::new(MemoryCommits::default());
    let epoch = commits.claim();
    let compaction = CompactionPolicy { fan_in: 4, ..CompactionPolicy::default() };
    let options = TableOptions { compaction, ..TableOptions::default() };
    let (tables, _) = Tables::open(directory.path(), commits, options).unwrap();
    let tables = Arc::new(tables);
    let engine = QueryEngine::new(Options::default(), Arc::new(Real(Arc::clone(&tables)))).unwrap();
    assert_eq!(sum(&engine, "acme", BY_TYPE), (0, 1));

    let append = |offset: u64| {
        let rows: Vec<Row> = (offset as i64 * 100..(offset as i64 + 1) * 100).map(row).collect();
        tables.append(EVENTS, Offset(offset), batch(&rows)).unwrap();
        tables.advance(Offset(offset + 1));
    };
    for offset in 0..4 {
        append(offset);
        // The new rows are in memory, those before them in one segment for each round.
        assert_eq!(sum(&engine, "acme", BY_TYPE).0, (offset as i64 + 1) * 80);
        tables.seal(Offset(offset + 1), epoch).unwrap();
    }
    assert_eq!(sum(&engine, "acme", BY_TYPE), (320, 2));
    assert_eq!(sum(&engine, "acme", BY_TYPE), (320, 1));
    // Other tenants and other questions have answers of their own.
    assert_eq!(sum(&engine, "other", BY_TYPE), (80, 5));
    let logins = "SELECT count(*) AS n FROM events WHERE type = 'login'";
    let expected = (0..400).filter(|n| n % 5 > 0 && n % 3 == 0).count() as i64;
    assert_eq!(sum(&engine, "acme", logins), (expected, 5));
    assert_eq!(sum(&engine, "nobody", BY_TYPE), (0, 1));

    // Merged segments are new ones, with the same rows.
    assert!(tables.maintain(0, epoch).unwrap().merged > 0);
    assert_eq!(sum(&engine, "acme", BY_TYPE), (320, 2));
    append(4);
    assert_eq!(sum(&engine, "acme", BY_TYPE), (400, 1));
}

#[test]
fn parts_have_limits_and_see_one_table() {
    let directory = tempfile::tempdir().unwrap();
    let commits = Arc::new(MemoryCommits::default());
    let (tables, _) = Tables::open(directory.path(), commits, TableOptions::default()).unwrap();
    let tables = Arc::new(tables);
    let engine = QueryEngine::new(Options::default(), Arc::new(Real(Arc::clone(&tables)))).unwrap();
    tables.append(EVENTS, Offset(0), batch(&(1..5).map(row).collect::<Vec<_>>())).unwrap();
    tables.advance(Offset(1));
    let ask = |sql: &str, rows| {
        let limits = Limits { rows, excess: Excess::Refuse, ..Limits::default() };
        wait(engine.query_parts(&tenant("acme"), EVENTS, sql, limits))
    };
    assert_eq!(ask(BY_TYPE, 2).unwrap().iter().map(|batch| batch.num_rows()).sum::<usize>(), 2);
    assert!(matches!(ask(BY_TYPE, 1), Err(QueryError::Rows(1))));
    assert!(matches!(ask("DROP TABLE events", 1), Err(QueryError::Refused(_))));
}
