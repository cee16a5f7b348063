//! A tenant sees its own rows and nothing else, whatever it asks.

use crate::support::{
    Fixed, Row, ask, ask_within, batch, engine, error, objects, rows, segment, snapshot, value,
};
use palisade_event::Offset;
use palisade_event::schema::{ALERTS, EVENTS};
use palisade_query::{Limits, Options, QueryEngine, QueryError};
use palisade_table::{MemoryCommits, TableOptions, Tables};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::Arc;

const SECRET: &str = "victims-secret";

fn victim(time: i64) -> Row {
    let mut row = Row::new("victim", time).user(SECRET).field("victim_field", json!(SECRET));
    row.message = Some(format!("{SECRET} in a message"));
    row.event_id = Some(format!("{SECRET}-{time}"));
    // A value on which an arithmetic of the attacker's would fail.
    row.fields.insert("divisor".to_owned(), json!(0));
    row
}

fn attacker(time: i64) -> Row {
    Row::new("mallory", time).user("mallory").field("divisor", json!(2))
}

/// Shared segments, own segments and shared memory.
fn shared_tables(directory: &std::path::Path) -> QueryEngine {
    let mixed: Vec<Row> =
        (0..500).map(|at| if at % 2 == 0 { victim(at) } else { attacker(at) }).collect();
    let theirs: Vec<Row> = (500..600).map(victim).collect();
    let files = vec![segment(directory, 1, &mixed, 120), segment(directory, 2, &theirs, 1_000)];
    let memory = vec![batch(&[victim(600), attacker(601), victim(602)]), batch(&[victim(603)])];
    engine(vec![snapshot(EVENTS, files, memory), snapshot(ALERTS, Vec::new(), Vec::new())])
}

#[test]
fn no_text_reads_another_tenants_rows() {
    let directory = tempfile::tempdir().unwrap();
    let engine = shared_tables(directory.path());
    assert_eq!(value(&engine, "victim", "SELECT count(*) FROM events"), json!(353));
    let attacks = [
        "SELECT * FROM events",
        "SELECT * FROM events WHERE tenant = 'victim'",
        "SELECT * FROM events WHERE tenant <> 'mallory' OR TRUE",
        "SELECT * FROM events WHERE \"tenant\" IN ('victim', 'public', 'default')",
        "SELECT * FROM events UNION ALL SELECT * FROM events WHERE tenant = 'victim'",
        "SELECT (SELECT max(message) FROM events WHERE tenant = 'victim') AS m",
        "SELECT * FROM (SELECT * FROM events) AS e WHERE e.tenant LIKE 'v%'",
        "WITH tenant AS (SELECT 'victim' AS tenant) SELECT e.* FROM events e JOIN tenant t ON TRUE",
        "WITH events AS (SELECT * FROM palisade.main.events) SELECT * FROM events",
        "SELECT * FROM \"palisade\".\"main\".\"events\"",
        "SELECT * FROM main.events e FULL JOIN main.events f ON e.position = f.position + 1",
        "SELECT * FROM events WHERE EXISTS (SELECT 1 FROM events f WHERE f.tenant = 'victim')",
        "SELECT * FROM events WHERE \"user\" = 'victims-secret'",
        "SELECT * FROM events WHERE event_id LIKE 'victims%'",
        "SELECT * FROM events ORDER BY time DESC LIMIT 100",
        "SELECT DISTINCT \"user\" FROM events",
        "SELECT min(message), max(message), array_agg(message), string_agg(message, ',') FROM events",
        "SELECT first_value(message) OVER (ORDER BY time) FROM events",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM information_schema.columns",
        "SELECT * FROM information_schema.schemata",
        "SELECT * FROM system.segments",
        "SELECT * FROM system.queries",
        "SELECT * FROM system.partitions",
        "SHOW TABLES",
        "SHOW COLUMNS FROM events",
        "DESCRIBE events",
        "EXPLAIN SELECT * FROM events WHERE tenant = 'victim'",
        "EXPLAIN VERBOSE SELECT * FROM events",
        "EXPLAIN ANALYZE VERBOSE SELECT * FROM events WHERE \"user\" > 'a'",
        "VALUES ('victim')",
    ];
    // The victim's own query must not show up either.
    ask(&engine, "victim", "SELECT 'victims-secret in a query' AS q").unwrap();
    for sql in attacks {
        let batch = match ask(&engine, "mallory", sql) {
            Ok(batch) => batch,
            Err(error) => panic!("{sql}: {error}"),
        };
        for row in objects(&batch) {
            let text = row
                .to_string()
                .replace("'victims-secret'", "")
                .replace("WHERE \\\"user\\\" = victims-secret", "");
            // What the query itself says is told back by EXPLAIN and by the log.
            if !sql.contains("EXPLAIN") && !sql.contains("system.queries") {
                assert!(!text.contains(SECRET), "{sql}: {text}");
                assert!(!text.contains("victim_field"), "{sql}: {text}");
                if let Some(tenant) = row.get("tenant") {
                    assert!(tenant.is_null() || tenant == "mallory", "{sql}: {text}");
                }
            }
            assert!(
                !text.contains("in a message") && !text.contains("in a query"),
                "{sql}: {text}"
            );
        }
    }
    assert_eq!(value(&engine, "mallory", "SELECT count(*) FROM events"), json!(251));
    assert_eq!(value(&engine, "stranger", "SELECT count(*) FROM events"), json!(0));
    assert!(rows(&engine, "stranger", "SELECT * FROM system.segments").is_empty());
    assert_eq!(value(&engine, "mallory", "SELECT sum(rows) FROM system.segments"), json!(250));
    let queries = rows(&engine, "mallory", "SELECT sql FROM system.queries");
    assert_eq!(queries.len(), attacks.len() + 3);
}

#[test]
fn errors_do_not_depend_on_other_tenants_rows() {
    let directory = tempfile::tempdir().unwrap();
    let engine = shared_tables(directory.path());
    // The victim's divisor is 0: evaluated on one of its rows, these would fail.
    for sql in [
        "SELECT sum(10 / divisor) AS v FROM events",
        "SELECT count(*) AS v FROM events WHERE 10 / divisor = 5",
        "SELECT count(*) AS v FROM events WHERE CAST(\"user\" || '' AS TEXT) = 'mallory' AND 10 / divisor > 0",
    ] {
        assert!(value(&engine, "mallory", sql).as_i64().unwrap() > 0, "{sql}");
        assert!(
            matches!(error(&engine, "victim", sql), QueryError::Failed(_)) || sql.contains("CAST"),
            "{sql}"
        );
    }
}

#[test]
fn only_reading_passes() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("outside.parquet");
    let engine = shared_tables(directory.path());
    let inside = directory.path().join("events-1.parquet");
    let inside = inside.display();
    let out = file.display();
    let refused = [
        format!("COPY events TO '{out}'"),
        format!("COPY (SELECT * FROM events) TO '{out}' STORED AS PARQUET"),
        format!("CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{inside}'"),
        format!("CREATE UNBOUNDED EXTERNAL TABLE t (a INT) STORED AS CSV LOCATION '{inside}'"),
        "CREATE TABLE t AS SELECT * FROM events".to_owned(),
        "CREATE OR REPLACE TABLE events AS SELECT 1".to_owned(),
        "CREATE VIEW v AS SELECT * FROM events".to_owned(),
        "CREATE SCHEMA s".to_owned(),
        "CREATE DATABASE d".to_owned(),
        "CREATE FUNCTION f() RETURNS INT RETURN 1".to_owned(),
        "CREATE INDEX i ON events (time)".to_owned(),
        "DROP TABLE events".to_owned(),
        "DROP VIEW events".to_owned(),
        "DROP SCHEMA main CASCADE".to_owned(),
        "ALTER TABLE events ADD COLUMN x INT".to_owned(),
        "INSERT INTO events VALUES (1)".to_owned(),
        "UPDATE events SET tenant = 'mallory'".to_owned(),
        "DELETE FROM events".to_owned(),
        "TRUNCATE TABLE events".to_owned(),
        "SELECT * INTO t FROM events".to_owned(),
        "SET datafusion.execution.target_partitions = 1".to_owned(),
        "SET TIME ZONE = '+08:00'".to_owned(),
        "RESET datafusion.execution.target_partitions".to_owned(),
        "SHOW ALL".to_owned(),
        "SHOW datafusion.execution.target_partitions".to_owned(),
        "SELECT * FROM information_schema.df_settings".to_owned(),
        "PREPARE p AS SELECT 1".to_owned(),
        "EXECUTE p".to_owned(),
        "DEALLOCATE p".to_owned(),
        "BEGIN".to_owned(),
        "COMMIT".to_owned(),
        "USE main".to_owned(),
        "EXPLAIN INSERT INTO events VALUES (1)".to_owned(),
        format!("EXPLAIN COPY events TO '{out}'"),
        "EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1".to_owned(),
        "WITH x AS (INSERT INTO events VALUES (1) RETURNING *) SELECT * FROM x".to_owned(),
        format!("SELECT * FROM '{inside}'"),
        format!("SELECT * FROM \"{inside}\""),
        "SELECT * FROM 'https://example.com/x.csv'".to_owned(),
        "SELECT * FROM 'palisade://segments/events-1.parquet'".to_owned(),
        format!("SELECT * FROM read_parquet('{inside}')"),
        format!("SELECT * FROM parquet_metadata('{inside}')"),
        format!("SELECT * FROM read_csv('{inside}')"),
        "SELECT * FROM generate_series(1, 1000000000)".to_owned(),
        "SELECT * FROM events, LATERAL read_json('x')".to_owned(),
        "SELECT input_file_name() FROM events".to_owned(),
        "SELECT * FROM victim.main.events".to_owned(),
        "SELECT * FROM datafusion.public.events".to_owned(),
        String::new(),
        "-- nothing".to_owned(),
        "SELECT 1; DROP TABLE events".to_owned(),
    ];
    for sql in refused {
        let error = error(&engine, "mallory", &sql);
        let expected = matches!(
            error,
            QueryError::Refused(_)
                | QueryError::Syntax(_)
                | QueryError::Invalid(_)
                | QueryError::UnknownTable { .. }
        );
        assert!(expected, "{sql}: {error:?}");
    }
    assert!(!file.exists());
    assert_eq!(value(&engine, "mallory", "SELECT count(*) FROM events"), json!(251));
}

#[test]
fn names_in_the_system_tables_are_the_tenants_own() {
    let directory = tempfile::tempdir().unwrap();
    let engine = shared_tables(directory.path());
    let named = |who: &str, name: &str| {
        let sql =
            format!("SELECT count(*) FROM information_schema.columns WHERE column_name = '{name}'");
        value(&engine, who, &sql)
    };
    assert_eq!(named("victim", "victim_field"), json!(1));
    assert_eq!(named("mallory", "victim_field"), json!(0));
    assert_eq!(named("mallory", "divisor"), json!(1));
    let shared = rows(&engine, "mallory", "SELECT rows, min_time, shared FROM system.segments");
    assert_eq!(shared, [json!({"rows": 250, "min_time": null, "shared": true})]);
}

/// A random table of two tenants: how its rows are laid out, and the rows.
#[derive(Debug, Clone)]
struct Layout {
    rows: Vec<(u8, Row)>,
    group: usize,
}

fn arb_row() -> impl Strategy<Value = (u8, Row)> {
    let field = prop_oneof![
        Just(None),
        (0..4i64).prop_map(|n| Some(("num", json!(n)))),
        (0..4i64).prop_map(|n| Some(("word.Dotted", json!(format!("w{n}"))))),
        any::<bool>().prop_map(|b| Some(("flag", json!(b)))),
    ];
    (0..5u8, any::<bool>(), 0..1_000i64, 0..6u8, 0..3u8, field, 0..100u8).prop_map(
        |(place, mine, time, user, kind, field, score)| {
            let mut row = Row::new(if mine { "a" } else { "b" }, time);
            row.user = (user > 0).then(|| format!("u{user}"));
            row.kind = ["login", "file", "net"][usize::from(kind)];
            row.outcome =
                (score % 3 > 0).then_some(if score % 2 == 0 { "success" } else { "failure" });
            row.anomaly = (score > 40).then(|| f32::from(score) / 100.0);
            row.message = (score % 5 > 0).then(|| format!("message {score} of {user}"));
            row.event_id = (score % 4 > 0).then(|| format!("evt_{time}_{score}"));
            if score % 7 == 0 {
                row.overflow = Some(format!("{{\"num\":{},\"rare\":\"r{user}\"}}", score % 4));
            }
            if let Some((name, value)) = field {
                row.fields.insert(name.to_owned(), value);
            }
            (place, row)
        },
    )
}

fn arb_layout() -> impl Strategy<Value = Layout> {
    (prop::collection::vec(arb_row(), 1..120), 5..60usize).prop_map(|(mut rows, group)| {
        for (position, (_, row)) in rows.iter_mut().enumerate() {
            row.position = position as u64;
        }
        Layout { rows, group }
    })
}

/// A random SELECT, out of parts that all can be combined; the result is sorted by the test.
fn arb_select() -> impl Strategy<Value = String> {
    let predicate = prop_oneof![
        Just("TRUE".to_owned()),
        (1..7u8).prop_map(|n| format!("\"user\" = 'u{n}'")),
        (1..7u8).prop_map(|n| format!("\"user\" IN ('u{n}', 'u1', 'nobody')")),
        Just("\"user\" IS NULL".to_owned()),
        (0..1_000i64).prop_map(|n| format!("time >= to_timestamp_micros({n})")),
        (0..1_000i64).prop_map(|n| format!("time < to_timestamp_micros({n})")),
        (0..1_000i64, 0..100u8).prop_map(|(t, s)| format!("event_id = 'evt_{t}_{s}'")),
        (0..10u8).prop_map(|n| format!("anomaly_score > 0.{n}")),
        (0..4i64).prop_map(|n| format!("num = {n}")),
        (0..4i64).prop_map(|n| format!("num > {n}")),
        Just("num IS NOT NULL".to_owned()),
        (0..4i64).prop_map(|n| format!("word.Dotted = 'w{n}'")),
        Just("flag".to_owned()),
        Just("NOT flag".to_owned()),
        Just("flag IS NULL".to_owned()),
        (0..10u8).prop_map(|n| format!("message LIKE '%{n}%'")),
        Just("tenant = 'b'".to_owned()),
        Just("tenant = 'a'".to_owned()),
        Just("type <> 'login'".to_owned()),
        Just("outcome = 'failure'".to_owned()),
        Just("id IS NOT NULL".to_owned()),
        Just("length(coalesce(message, '')) % 2 = 0".to_owned()),
    ];
    let filter = prop::collection::vec((predicate, 0..3u8), 1..4).prop_map(|parts| {
        parts.into_iter().fold(String::new(), |filter, (part, how)| {
            match (filter.is_empty(), how) {
                (true, 2) => format!("NOT ({part})"),
                (true, _) => part,
                (false, 0) => format!("({filter}) AND {part}"),
                (false, 1) => format!("({filter}) OR {part}"),
                (false, _) => format!("({filter}) AND NOT ({part})"),
            }
        })
    });
    let shape = prop_oneof![
        Just("SELECT * FROM events WHERE {}"),
        Just(
            "SELECT count(*) AS n, count(DISTINCT \"user\") AS u, max(anomaly_score) AS m, min(time) AS t FROM events WHERE {}"
        ),
        Just(
            "SELECT \"user\", type, count(*) AS n, sum(num) AS s FROM events WHERE {} GROUP BY \"user\", type"
        ),
        Just("SELECT position, id, time FROM events WHERE {} ORDER BY time DESC, position LIMIT 7"),
        Just(
            "SELECT position, message FROM events WHERE {} ORDER BY anomaly_score DESC NULLS LAST, position LIMIT 5"
        ),
        Just("SELECT DISTINCT outcome, flag FROM events WHERE {}"),
        Just(
            "SELECT e.position, f.position AS g FROM events e JOIN events f ON e.\"user\" = f.\"user\" AND e.position < f.position WHERE {E}"
        ),
        Just(
            "SELECT position FROM events WHERE position IN (SELECT max(position) FROM events WHERE {} GROUP BY \"user\")"
        ),
        Just(
            "SELECT position, row_number() OVER (PARTITION BY \"user\" ORDER BY position) AS r FROM events WHERE {}"
        ),
        Just(
            "SELECT tenant, count(*) AS n FROM (SELECT * FROM events WHERE {} UNION ALL SELECT * FROM events) GROUP BY tenant"
        ),
        Just(
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'events' AND 'x' <> '{Q}'"
        ),
    ];
    (shape, filter).prop_map(|(shape, filter)| {
        let qualified = if shape.contains("{E}") { "e.position >= 0" } else { "" };
        shape
            .replace("{}", &filter)
            .replace("{E}", qualified)
            .replace("{Q}", &filter.replace('\'', "''"))
    })
}

/// Rows into segments 0 to 2 (each of both tenants or of one, as it happens) and memory 3 and 4.
fn lay_out(layout: &Layout, directory: &std::path::Path) -> QueryEngine {
    let of = |place: u8| -> Vec<Row> {
        layout.rows.iter().filter(|(at, _)| *at == place).map(|(_, row)| row.clone()).collect()
    };
    let files = (0..3u8)
        .filter(|place| !of(*place).is_empty())
        .map(|place| segment(directory, u64::from(place), &of(place), layout.group))
        .collect();
    let memory =
        (3..5u8).map(of).filter(|rows| !rows.is_empty()).map(|rows| batch(&rows)).collect();
    two_threads(vec![snapshot(EVENTS, files, memory)])
}

/// The same through the real write side: every segment place is sealed by itself, with its index.
fn sealed(layout: &Layout, directory: &std::path::Path) -> QueryEngine {
    let commits = Arc::new(MemoryCommits::default());
    let epoch = commits.claim();
    let (tables, _) = Tables::open(directory, commits, TableOptions::default()).unwrap();
    for place in 0..5u8 {
        let rows: Vec<Row> =
            layout.rows.iter().filter(|(at, _)| *at == place).map(|(_, row)| row.clone()).collect();
        if !rows.is_empty() {
            tables.append(EVENTS, Offset(u64::from(place)), batch(&rows)).unwrap();
        }
        tables.advance(Offset(u64::from(place) + 1));
        if place < 3 {
            tables.seal(Offset(u64::from(place) + 1), epoch).unwrap();
        }
    }
    two_threads(vec![tables.snapshot(EVENTS)])
}

fn two_threads(snapshots: Vec<palisade_table::Snapshot>) -> QueryEngine {
    QueryEngine::new(Options { threads: 2, ..Options::default() }, Fixed::with(snapshots)).unwrap()
}

fn sorted(engine: &QueryEngine, sql: &str) -> Result<Vec<String>, String> {
    let limits = Limits { rows: 1_000_000, ..Limits::default() };
    let batch = ask_within(engine, "a", sql, limits).map_err(|error| error.code().to_owned())?;
    let mut rows: Vec<String> = objects(&batch).iter().map(Value::to_string).collect();
    rows.sort();
    Ok(rows)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Whatever is asked of a table of two tenants, and however it is laid out, the answer is that of a
    /// table which has only the asker's rows, all in memory.
    #[test]
    fn any_query_answers_as_if_the_others_did_not_exist(
        layout in arb_layout(),
        queries in prop::collection::vec(arb_select(), 6),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let both = lay_out(&layout, directory.path());
        let sealed = sealed(&layout, directory.path());
        let mine: Vec<Row> =
            layout.rows.iter().filter(|(_, row)| row.tenant == "a").map(|(_, row)| row.clone()).collect();
        let memory = if mine.is_empty() { Vec::new() } else { vec![batch(&mine)] };
        let alone = two_threads(vec![snapshot(EVENTS, Vec::new(), memory)]);
        for sql in queries {
            let expected = sorted(&alone, &sql);
            prop_assert_eq!(sorted(&both, &sql), expected.clone(), "{}", sql);
            prop_assert_eq!(sorted(&sealed, &sql), expected, "sealed: {}", sql);
        }
    }
}

#[test]
fn a_snapshot_of_the_engine_is_taken_once_per_query() {
    // Both sides of the union must see the same moment, even when the table moves on between them.
    struct Moving(std::sync::atomic::AtomicI64);
    impl palisade_query::Snapshots for Moving {
        fn snapshot(&self, _: &str) -> Option<palisade_table::Snapshot> {
            let at = self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            Some(snapshot(EVENTS, Vec::new(), vec![batch(&[Row::new("a", at)])]))
        }
        fn tables(&self) -> Vec<String> {
            vec![EVENTS.to_owned()]
        }
    }
    let engine = QueryEngine::new(
        Options::default(),
        Arc::new(Moving(std::sync::atomic::AtomicI64::new(0))),
    )
    .unwrap();
    let sql = "SELECT count(DISTINCT time) FROM (SELECT time FROM events UNION ALL SELECT time FROM events)";
    for _ in 0..5 {
        assert_eq!(value(&engine, "a", sql), json!(1));
    }
}
