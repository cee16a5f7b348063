//! Records are found by ids that are not stored, without reading the segments.

use crate::support::{Row, batch, rows, tenant, wait};
use palisade_event::schema::EVENTS;
use palisade_event::{Offset, RecordId};
use palisade_query::{Limits, Options, QueryEngine, Snapshots};
use palisade_table::{CompactionPolicy, MemoryCommits, Snapshot, TableOptions, Tables};
use serde_json::{Value, json};
use std::sync::Arc;

pub(crate) struct Real(pub(crate) Arc<Tables>);

impl Snapshots for Real {
    fn snapshot(&self, table: &str) -> Option<Snapshot> {
        Some(self.0.snapshot(table))
    }

    fn tables(&self) -> Vec<String> {
        self.0.names()
    }
}

/// Every third event has a name of its sender's, every other third an id of its own.
fn row(n: i64) -> Row {
    let mut row = Row::new("acme", n);
    match n % 3 {
        0 => row.event_id = Some(format!("evt_{n}")),
        1 => row.record_id = Some((n as u128).to_be_bytes()),
        _ => {}
    }
    row.message = Some(format!("{:x}", (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    row
}

fn id(n: i64) -> String {
    match n % 3 {
        0 => RecordId::from_sender("acme", "http", &format!("evt_{n}")).to_string(),
        _ => RecordId((n as u128).to_be_bytes()).to_string(),
    }
}

/// The rows of a query and the bytes that it read from segments.
fn scanned(engine: &QueryEngine, sql: &str) -> (Vec<Value>, u64) {
    wait(async {
        let result = engine.query(&tenant("acme"), sql, Limits::default()).await.unwrap();
        let stats = Arc::clone(&result.stats);
        let batches = result.collect().await.unwrap();
        (batches.iter().flat_map(crate::support::objects).collect(), stats.bytes_scanned())
    })
}

#[test]
fn ids_that_are_not_stored_are_found_without_reading_the_segments() {
    const ROWS: i64 = 30_000;
    let directory = tempfile::tempdir().unwrap();
    let commits = Arc::new(MemoryCommits::default());
    let epoch = commits.claim();
    let compaction = CompactionPolicy { fan_in: 4, ..CompactionPolicy::default() };
    let options = TableOptions { compaction, ..TableOptions::default() };
    let (tables, _) = Tables::open(directory.path(), commits, options).unwrap();
    let tables = Arc::new(tables);
    let engine = QueryEngine::new(Options::default(), Arc::new(Real(Arc::clone(&tables)))).unwrap();
    for seal in 0..6 {
        let part: Vec<Row> = (seal * ROWS / 6..(seal + 1) * ROWS / 6).map(row).collect();
        tables.append(EVENTS, Offset(seal as u64), batch(&part)).unwrap();
        tables.advance(Offset(seal as u64 + 1));
        tables.seal(Offset(seal as u64 + 1), epoch).unwrap();
    }
    for compacted in [false, true] {
        if compacted {
            assert!(tables.maintain(0, epoch).unwrap().merged > 0);
        }
        let by_id =
            |id: &str| format!("SELECT CAST(time AS BIGINT) AS n FROM events WHERE id = '{id}'");
        let (_, all) = scanned(&engine, "SELECT count(id), count(message) FROM events");
        for n in [0, 1, 3, 14_997, 14_998, 29_997] {
            let (found, bytes) = scanned(&engine, &by_id(&id(n)));
            assert_eq!(found, [json!({"n": n})], "compacted: {compacted}");
            assert!(bytes > 0 && bytes < all / 2, "{bytes} of {all}, compacted: {compacted}");
        }
        let absent = RecordId::from_sender("acme", "http", "evt_1").to_string();
        assert_eq!(scanned(&engine, &by_id(&absent)), (vec![], 0), "compacted: {compacted}");
        // Another tenant's or source's event of the same name has another id.
        for (who, source) in [("other", "http"), ("acme", "syslog")] {
            let other = RecordId::from_sender(who, source, "evt_0").to_string();
            assert!(scanned(&engine, &by_id(&other)).0.is_empty());
        }
    }
    // Nobody sees the filter's ids as values.
    let sql = "SELECT count(*) AS n FROM events WHERE id IS NULL";
    assert_eq!(rows(&engine, "acme", sql), [json!({"n": ROWS / 3})]);
}
