//! Aggregates that are Palisade's own.

use crate::support::{Row, batch, engine, error, rows, segment, snapshot, value};
use palisade_event::schema::EVENTS;
use palisade_query::{Limits, QueryEngine, QueryError};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const SHARES: [f64; 7] = [0.0, 0.01, 0.25, 0.5, 0.95, 0.999, 1.0];

/// Entropies that repeat, sizes that do not, for a few users; some rows have neither.
fn some_rows() -> Vec<Row> {
    let mut state = 11u64;
    (0..40_000)
        .map(|at| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let mut row = Row::new("acme", at).user(&format!("user{}", state >> 60));
            if !state.is_multiple_of(17) {
                row.entropy = Some(((state >> 40) % 2_000) as f32 / 256.0);
                row = row.field("size", json!((state >> 20) as f64 * 0.37));
            }
            row
        })
        .collect()
}

/// Half of the rows in two segments, half in memory.
fn tables(directory: &std::path::Path, all: &[Row]) -> QueryEngine {
    let files = vec![
        segment(directory, 1, &all[..10_000], 3_000),
        segment(directory, 2, &all[10_000..20_000], 3_000),
    ];
    engine(vec![snapshot(EVENTS, files, vec![batch(&all[20_000..])])])
}

/// The percentile by sorting everything.
fn percentile(mut values: Vec<f64>, share: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let place = share * (values.len().checked_sub(1)?) as f64;
    let (low, high) = (values[place.floor() as usize], values[place.ceil() as usize]);
    Some(low + (high - low) * place.fract())
}

fn near(found: &Value, wanted: f64) -> bool {
    found.as_f64().is_some_and(|found| (found - wanted).abs() <= 2e-6 * wanted.abs().max(1.0))
}

#[test]
fn percentiles_are_exact_over_all_rows_and_by_group() {
    let directory = tempfile::tempdir().unwrap();
    let all = some_rows();
    let engine = tables(directory.path(), &all);
    let entropy = |row: &Row| row.entropy.map(f64::from);
    let size = |row: &Row| row.fields.get("size").and_then(Value::as_f64);
    type Of<'v> = &'v dyn Fn(&Row) -> Option<f64>;
    let columns: [(&str, Of<'_>); 2] = [("entropy", &entropy), ("size", &size)];
    for (column, of) in columns {
        for share in SHARES {
            let call = format!("percentile_cont({share}) WITHIN GROUP (ORDER BY {column})");
            let wanted = percentile(all.iter().filter_map(of).collect(), share).unwrap();
            let found = value(&engine, "acme", &format!("SELECT {call} FROM events"));
            assert!(near(&found, wanted), "{call}: {found} is not {wanted}");

            let sql = format!(
                "SELECT \"user\" AS u, {call} AS p, {call} FILTER (WHERE time < to_timestamp_micros(25000)) AS early \
                 FROM events GROUP BY \"user\""
            );
            let groups = rows(&engine, "acme", &sql);
            assert_eq!(groups.len(), 16);
            for group in groups {
                let mine = |row: &&Row| row.user.as_deref() == group["u"].as_str();
                let of_group: Vec<&Row> = all.iter().filter(mine).collect();
                let wanted = percentile(of_group.iter().filter_map(|row| of(row)).collect(), share);
                assert!(near(&group["p"], wanted.unwrap()), "{call}: {group}");
                let early = of_group.iter().filter(|row| row.time < 25_000);
                let wanted = percentile(early.filter_map(|row| of(row)).collect(), share);
                assert!(near(&group["early"], wanted.unwrap()), "{call}: {group}");
            }
        }
    }
}

#[test]
fn percentiles_go_down_distinct_and_along_windows() {
    let directory = tempfile::tempdir().unwrap();
    let all = some_rows();
    let engine = tables(directory.path(), &all);
    let one = |call: &str| value(&engine, "acme", &format!("SELECT {call} FROM events"));
    assert_eq!(
        one("percentile_cont(0.9) WITHIN GROUP (ORDER BY entropy DESC)"),
        one("percentile_cont(0.1) WITHIN GROUP (ORDER BY entropy)")
    );
    assert_eq!(one("quantile_cont(entropy, 0.5)"), one("percentile_cont(entropy, 0.5)"));
    let mut distinct: Vec<f64> = all.iter().filter_map(|row| row.entropy.map(f64::from)).collect();
    distinct.sort_by(f64::total_cmp);
    distinct.dedup();
    let found = one("percentile_cont(DISTINCT entropy, 0.5)");
    assert!(near(&found, percentile(distinct, 0.5).unwrap()), "{found}");
    // A whole number is taken as a floating-point one, as before.
    let found = one("percentile_cont(position, 0.5)");
    assert!(near(&found, 19_999.5), "{found}");

    let sql = "SELECT position AS at, percentile_cont(entropy, 0.5) OVER \
               (ORDER BY position ROWS BETWEEN 4 PRECEDING AND CURRENT ROW) AS p \
               FROM events WHERE position < 300 ORDER BY position";
    for (at, row) in rows(&engine, "acme", sql).iter().enumerate() {
        let window = &all[at.saturating_sub(4)..=at];
        let wanted = window.iter().filter_map(|row| row.entropy.map(f64::from)).collect();
        match percentile(wanted, 0.5) {
            Some(wanted) => assert!(near(&row["p"], wanted), "{row}"),
            None => assert!(row.get("p").is_none_or(Value::is_null), "{row}"),
        }
    }
}

#[test]
fn a_percentile_of_nothing_is_null_and_a_wrong_one_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let engine = tables(directory.path(), &some_rows());
    let sql = "SELECT percentile_cont(entropy, 0.5) AS p FROM events WHERE type = 'none'";
    assert!(rows(&engine, "acme", sql)[0].get("p").is_none_or(Value::is_null));
    for share in ["1.5", "-0.1"] {
        let sql = format!("SELECT percentile_cont(entropy, {share}) FROM events");
        assert!(error(&engine, "acme", &sql).to_string().contains("ercentile"), "{share}");
    }
}

#[test]
fn a_percentile_of_what_does_not_repeat_stays_within_its_memory() {
    let directory = tempfile::tempdir().unwrap();
    let all = some_rows();
    let engine = tables(directory.path(), &all);
    // Ten copies of 40,000 sizes, made different.
    let sql = "SELECT percentile_cont(s, 0.5) AS p FROM \
               (SELECT e.size + c.x AS s FROM events e CROSS JOIN \
               (VALUES (0.1), (0.2), (0.3), (0.4), (0.5), (0.6), (0.7), (0.8), (0.9), (1.0)) AS c(x))";
    let limits = |memory| Limits { memory, ..Limits::default() };
    let ask = |memory| crate::support::ask_within(&engine, "acme", sql, limits(memory));
    assert!(ask(64 << 20).is_ok());
    assert!(matches!(ask(3 << 20), Err(QueryError::Memory(_))));
    let deadline = Instant::now() + Duration::from_secs(10);
    while engine.memory_used() > 0 {
        assert!(Instant::now() < deadline, "{} bytes are not given back", engine.memory_used());
        std::thread::yield_now();
    }
}

#[test]
fn built_in_tables_are_there_before_their_first_row() {
    let engine = engine(Vec::new());
    for (table, column) in
        [("events", "threat_score"), ("alerts", "severity"), ("dead_letters", "reason")]
    {
        let sql = format!("SELECT count(*) FROM {table} WHERE {column} IS NOT NULL");
        assert_eq!(value(&engine, "acme", &sql), json!(0), "{table}");
        let all = rows(&engine, "acme", &format!("SELECT * FROM {table} ORDER BY time"));
        assert!(all.is_empty(), "{table}");
        let sql = format!(
            "SELECT count(*) FROM information_schema.columns \
             WHERE table_name = '{table}' AND column_name = '{column}'"
        );
        assert_eq!(value(&engine, "acme", &sql), json!(1), "{table}");
    }
    assert!(matches!(
        error(&engine, "acme", "SELECT * FROM event"),
        QueryError::UnknownTable { hint: Some(hint), .. } if hint == "events"
    ));
}
