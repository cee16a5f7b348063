//! Distinct rows, in memory and on disk.

use crate::support::{Fixed, Row, ask_within, batch, objects, snapshot};
use palisade_event::schema::EVENTS;
use palisade_query::{Limits, Options, QueryEngine, QueryError};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// A few users, each with many ids of which some repeat, and some rows without either.
fn some_rows(count: u64) -> Vec<Row> {
    let mut state = 5u64;
    (0..count as i64)
        .map(|at| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let mut row = Row::new("acme", at);
            row.user = (state >> 40 & 31 != 0).then(|| format!("user{}", state >> 60));
            row.event_id =
                (state >> 50 & 63 != 0).then(|| format!("evt_{}", (state >> 20) % (count * 2)));
            row.field("code", json!((state >> 30) % 1_000))
        })
        .collect()
}

fn engine(rows: &[Row], spill: Option<&std::path::Path>) -> QueryEngine {
    let batches = rows.chunks(8_192).map(batch).collect();
    let spill = spill.map(std::path::Path::to_owned);
    let options = Options { spill, threads: 2, ..Options::default() };
    QueryEngine::new(options, Fixed::with(vec![snapshot(EVENTS, Vec::new(), batches)])).unwrap()
}

type Pairs<'r> = BTreeMap<Option<&'r str>, BTreeSet<&'r str>>;

fn pairs(rows: &[Row]) -> Pairs<'_> {
    let mut pairs = Pairs::new();
    for row in rows {
        let ids = pairs.entry(row.user.as_deref()).or_default();
        ids.extend(row.event_id.as_deref());
    }
    pairs
}

const BY_USER: &str = "SELECT \"user\" AS u, count(DISTINCT event_id) AS n FROM events GROUP BY u ORDER BY u NULLS FIRST";

#[test]
fn distinct_values_are_counted_exactly_in_little_memory() {
    let rows = some_rows(400_000);
    let wanted: Vec<Value> = pairs(&rows)
        .into_iter()
        .map(|(user, ids)| match user {
            Some(user) => json!({"u": user, "n": ids.len()}),
            None => json!({"n": ids.len()}),
        })
        .collect();
    let directory = tempfile::tempdir().unwrap();
    let bare = engine(&rows, None);
    let spilling = engine(&rows, Some(directory.path()));
    let ask = |engine: &QueryEngine, sql: &str, memory| {
        let limits = Limits { memory, rows: 1_000_000, ..Limits::default() };
        ask_within(engine, "acme", sql, limits)
    };
    let plain = |answer: Result<_, QueryError>| -> Vec<Value> {
        let mut rows = objects(&answer.unwrap());
        for row in &mut rows {
            row.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        }
        rows
    };
    assert_eq!(plain(ask(&bare, BY_USER, 256 << 20)), wanted);
    // Three hundred thousand fingerprints are five megabytes; the rows come back from disk in parts, and
    // parts of parts.
    for memory in [24 << 20, 4 << 20] {
        assert_eq!(plain(ask(&spilling, BY_USER, memory)), wanted, "{memory}");
    }
    assert!(matches!(ask(&bare, BY_USER, 4 << 20), Err(QueryError::Memory(_))));
    let all: BTreeSet<&str> = rows.iter().filter_map(|row| row.event_id.as_deref()).collect();
    let sql = "SELECT count(DISTINCT event_id) AS n FROM events";
    assert_eq!(plain(ask(&spilling, sql, 8 << 20)), [json!({"n": all.len()})]);
    let codes: BTreeSet<(Option<&str>, i64)> = rows
        .iter()
        .map(|row| (row.user.as_deref(), row.fields["code"].as_i64().unwrap()))
        .collect();
    let sql = "SELECT count(*) AS n FROM (SELECT DISTINCT \"user\", code FROM events)";
    assert_eq!(plain(ask(&spilling, sql, 64 << 20)), [json!({"n": codes.len()})]);
    let sql =
        "SELECT count(*) AS n FROM (SELECT event_id FROM events UNION SELECT \"user\" FROM events)";
    let users = pairs(&rows).into_keys().flatten().count();
    assert_eq!(plain(ask(&spilling, sql, 64 << 20)), [json!({"n": all.len() + users + 1})]);
    drop(spilling);
}
