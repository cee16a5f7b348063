//! Reading a table: one schema over segments and memory, ids, overflow, pruning, broken files.

use crate::support::{Row, ask, batch, engine, error, rows, segment, snapshot, value};
use palisade_event::RecordId;
use palisade_event::schema::EVENTS;
use palisade_query::QueryError;
use palisade_table::provider::ReadError;
use serde_json::{Value, json};
use std::os::unix::fs::FileExt;

const MINUTE: i64 = 60_000_000;

#[test]
fn columns_of_different_types_become_one() {
    let directory = tempfile::tempdir().unwrap();
    let first = segment(
        directory.path(),
        1,
        &[
            Row::new("a", 1).field("code", json!(7)).field("bytes", json!(100)),
            Row::new("a", 2).field("code", json!(8)).field("ok", json!(true)),
        ],
        100,
    );
    let second = segment(
        directory.path(),
        2,
        &[
            Row::new("a", 3).field("code", json!("x7")).field("ok", json!(false)),
            Row::new("a", 4).field("ratio", json!(0.5)).field("mixed", json!("say \"hi\"")),
            Row::new("a", 5).field("mixed", json!({"k": [1, 2]})),
        ],
        100,
    );
    let memory = batch(&[
        Row::new("a", 6).field("code", json!(1.5)).field("mixed", json!(3)),
        Row::new("a", 7).field("bytes", json!(-1)).field("ok", json!(true)),
    ]);
    let engine = engine(vec![snapshot(EVENTS, vec![first, second], vec![memory])]);
    let found =
        rows(&engine, "a", "SELECT code, bytes, ok, ratio, mixed FROM events ORDER BY time");
    let row = |code: Value, bytes: Value, ok: Value, ratio: Value, mixed: Value| json!({"code": code, "bytes": bytes, "ok": ok, "ratio": ratio, "mixed": mixed});
    let null = || Value::Null;
    assert_eq!(
        found,
        [
            row(json!("7"), json!(100), null(), null(), null()),
            row(json!("8"), null(), json!(true), null(), null()),
            row(json!("x7"), null(), json!(false), null(), null()),
            row(null(), null(), null(), json!(0.5), json!("say \"hi\"")),
            row(null(), null(), null(), null(), json!(r#"{"k":[1,2]}"#)),
            row(json!("1.5"), null(), null(), null(), json!("3")),
            row(null(), json!(-1), json!(true), null(), null()),
        ]
    );
    // Filters see the unified values, whichever type a file has.
    for (filter, count) in [
        ("code = '7'", 1),
        ("code IN ('8', 'x7', '1.5')", 3),
        ("code IS NULL", 3),
        ("mixed = '3'", 1),
        ("mixed = 'say \"hi\"'", 1),
        ("mixed LIKE '%[1,2]%'", 1),
        ("bytes < 50", 1),
        ("ok", 2),
        ("NOT ok", 1),
        ("ratio > 0.4", 1),
        ("host IS NULL", 7),
        ("host = 'x'", 0),
        ("coalesce(host, 'none') = 'none'", 7),
    ] {
        let sql = format!("SELECT count(*) FROM events WHERE {filter}");
        assert_eq!(value(&engine, "a", &sql), json!(count), "{filter}");
    }
}

#[test]
fn ids_are_computed_and_looked_up() {
    let directory = tempfile::tempdir().unwrap();
    let stored = RecordId([0xab; 16]);
    let mut named = Row::new("a", 1);
    named.event_id = Some("evt_1".to_owned());
    let mut unnamed = Row::new("a", 2);
    unnamed.record_id = Some(stored.0);
    let own = Row::new("a", 3).field("id", json!("their own"));
    let mut late = Row::new("a", 4);
    late.record_id = Some([0xcd; 16]);
    let file = segment(directory.path(), 1, &[named.clone()], 100);
    let other = segment(directory.path(), 2, &[unnamed, own], 100);
    let engine = engine(vec![snapshot(EVENTS, vec![file, other], vec![batch(&[late])])]);
    let from_sender = RecordId::from_sender("a", "http", "evt_1").to_string();
    let found = rows(&engine, "a", "SELECT id, event_id, \"sent.id\" FROM events ORDER BY time");
    assert_eq!(
        found,
        [
            json!({"id": from_sender, "event_id": "evt_1", "sent.id": null}),
            json!({"id": stored.to_string(), "event_id": null, "sent.id": null}),
            json!({"id": null, "event_id": null, "sent.id": "their own"}),
            json!({"id": "cd".repeat(16), "event_id": null, "sent.id": null}),
        ]
    );
    for (id, time) in [(from_sender, 1), (stored.to_string(), 2), ("cd".repeat(16), 4)] {
        let sql = format!("SELECT CAST(time AS BIGINT) FROM events WHERE id = '{id}'");
        assert_eq!(value(&engine, "a", &sql), json!(time));
    }
    assert!(rows(&engine, "a", "SELECT time FROM events WHERE id = 'no such'").is_empty());
    assert!(matches!(
        error(&engine, "a", "SELECT record_id FROM events"),
        QueryError::UnknownColumn { .. }
    ));
}

#[test]
fn fields_in_overflow_are_found_by_their_names() {
    let directory = tempfile::tempdir().unwrap();
    let mut first = Row::new("a", 1).field("late", json!(1));
    first.overflow = Some(r#"{"Deep.Name":"x","n":{"m":5}}"#.to_owned());
    let second = Row::new("a", 2).field("late", json!(2));
    let mut third = Row::new("a", 3);
    third.overflow = Some(r#"{"late":3,"Deep.Name":true}"#.to_owned());
    let file = segment(directory.path(), 1, &[first, second], 100);
    let engine = engine(vec![snapshot(EVENTS, vec![file], vec![batch(&[third])])]);
    let sql = "SELECT late, \"Deep.Name\" AS d, n.m AS m FROM events ORDER BY time";
    assert_eq!(
        rows(&engine, "a", sql),
        [
            json!({"late": 1, "d": "x", "m": "5"}),
            json!({"late": 2, "d": null, "m": null}),
            json!({"late": 3, "d": "true", "m": null}),
        ]
    );
    assert_eq!(value(&engine, "a", "SELECT count(*) FROM events WHERE late = 3"), json!(1));
    assert_eq!(value(&engine, "a", "SELECT count(*) FROM events WHERE Deep.Name = 'x'"), json!(1));
    let sql = "SELECT overflow_get(overflow, 'n.m') FROM events WHERE time < '1970-01-01T00:00:00.000002Z'";
    assert_eq!(value(&engine, "a", sql), json!("5"));
    let unknown = error(&engine, "a", "SELECT nowhere FROM events");
    assert!(matches!(unknown, QueryError::UnknownColumn { ref name, .. } if name == "nowhere"));
}

#[test]
fn memory_and_segments_are_read_once_each() {
    let directory = tempfile::tempdir().unwrap();
    let all: Vec<Row> =
        (0..5_000).map(|at| Row::new("a", at).user(&format!("u{}", at % 7))).collect();
    let files = vec![
        segment(directory.path(), 1, &all[..2_000], 300),
        segment(directory.path(), 2, &all[2_000..4_000], 5_000),
    ];
    let memory = all[4_000..].chunks(128).map(batch).collect();
    let engine = engine(vec![snapshot(EVENTS, files, memory)]);
    assert_eq!(value(&engine, "a", "SELECT count(*) FROM events"), json!(5_000));
    assert_eq!(value(&engine, "a", "SELECT count(DISTINCT position) FROM events"), json!(5_000));
    assert_eq!(value(&engine, "a", "SELECT sum(position) FROM events"), json!(4_999 * 5_000 / 2));
    assert_eq!(value(&engine, "a", "SELECT CAST(max(time) AS BIGINT) FROM events"), json!(4_999));
    assert_eq!(value(&engine, "a", "SELECT CAST(min(time) AS BIGINT) FROM events"), json!(0));
    let newest = rows(&engine, "a", "SELECT position FROM events ORDER BY time DESC LIMIT 1100");
    let expected: Vec<Value> = (0..1_100).map(|n| json!({"position": 4_999 - n})).collect();
    assert_eq!(newest, expected);
    let sql = "SELECT position FROM events WHERE \"user\" = 'u3' ORDER BY time DESC LIMIT 3";
    let of_user: Vec<i64> =
        rows(&engine, "a", sql).iter().map(|row| row["position"].as_i64().unwrap()).collect();
    assert_eq!(of_user, [4_994, 4_987, 4_980]);
}

#[test]
fn pruning_by_time_and_by_bloom_filters_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for part in 0..8i64 {
        let part_rows: Vec<Row> = (0..3_000)
            .map(|n| {
                let mut row = Row::new("a", part * MINUTE + n * 1_000);
                row.event_id = Some(format!("evt_{}", (part * 3_000 + n) * 7_919 % 24_000));
                row
            })
            .collect();
        files.push(segment(directory.path(), part as u64, &part_rows, 1_000));
    }
    let engine = engine(vec![snapshot(EVENTS, files, Vec::new())]);
    for n in (0..24_000).step_by(997) {
        let sql = format!("SELECT count(*) FROM events WHERE event_id = 'evt_{n}'");
        assert_eq!(value(&engine, "a", &sql), json!(1), "{n}");
    }
    let sql = "SELECT count(*) FROM events WHERE event_id IN ('evt_1', 'evt_2', 'none', 'evt_3')";
    assert_eq!(value(&engine, "a", sql), json!(3));
    assert_eq!(value(&engine, "a", "SELECT count(*) FROM events WHERE event_id = 'x'"), json!(0));
    let sql = "SELECT count(*) FROM events WHERE time >= '1970-01-01T00:02:00Z' AND time < '1970-01-01T00:03:00Z'";
    assert_eq!(value(&engine, "a", sql), json!(3_000));
    let sql = "SELECT count(*) FROM events WHERE time BETWEEN '1970-01-01T00:02:01Z' AND '1970-01-01T00:02:02Z'";
    assert_eq!(value(&engine, "a", sql), json!(1_001));
    // Nothing of the other segments is read.
    let plan =
        rows(&engine, "a", "EXPLAIN SELECT * FROM events WHERE time < '1970-01-01T00:00:01Z'");
    let text = plan.iter().map(Value::to_string).collect::<String>();
    assert!(text.contains("events-0.parquet") && !text.contains("events-1.parquet"), "{text}");
}

#[test]
fn missing_and_damaged_files_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let many: Vec<Row> = (0..20_000)
        .map(|at| {
            let mut row = Row::new("a", at);
            row.message = Some(format!("message {}", at * 7_919 % 20_011));
            row
        })
        .collect();
    let file = segment(directory.path(), 1, &many, 100_000);
    let table = || snapshot(EVENTS, vec![file.clone()], Vec::new());
    let sql = "SELECT count(DISTINCT message) FROM events";
    assert_eq!(value(&engine(vec![table()]), "a", sql), json!(20_000));

    // Pages in the middle are overwritten.
    let open = std::fs::OpenOptions::new().write(true).open(&file.path).unwrap();
    let half = vec![0xff; usize::try_from(file.meta.bytes / 2).unwrap()];
    open.write_all_at(&half, file.meta.bytes / 4).unwrap();
    let damaged = error(&engine(vec![table()]), "a", sql);
    let QueryError::Read(ReadError::Damaged { path, .. }) = &damaged else { panic!("{damaged:?}") };
    assert_eq!(path, &file.path);

    // The footer is cut off.
    open.set_len(file.meta.bytes - 20).unwrap();
    let damaged = error(&engine(vec![table()]), "a", sql);
    assert!(matches!(damaged, QueryError::Read(ReadError::Damaged { .. })), "{damaged:?}");

    std::fs::remove_file(&file.path).unwrap();
    let missing = error(&engine(vec![table()]), "a", sql);
    let QueryError::Read(ReadError::Missing(path)) = &missing else { panic!("{missing:?}") };
    assert_eq!(path, &file.path);
    assert!(missing.to_string().contains("events-1.parquet"));
}

#[test]
fn mistakes_are_answered_with_what_was_meant() {
    let engine = engine(vec![snapshot(
        EVENTS,
        Vec::new(),
        vec![batch(&[Row::new("a", 1).field("winlog.event_data.Image", json!("cmd.exe"))])],
    )]);
    let hint = |sql: &str| error(&engine, "a", sql).hint().map(str::to_owned);
    assert_eq!(hint("SELECT sorce FROM events").as_deref(), Some("source"));
    assert_eq!(hint("SELECT * FROM event").as_deref(), Some("events"));
    assert_eq!(hint("SELECT image FROM events").as_deref(), Some("\"winlog.event_data.Image\""));
    let sql =
        "SELECT winlog.event_data.Image AS i FROM events WHERE winlog.event_data.Image IS NOT NULL";
    assert_eq!(rows(&engine, "a", sql), [json!({"i": "cmd.exe"})]);
    assert!(matches!(error(&engine, "a", "SELEC 1"), QueryError::Syntax(_)));
    assert!(matches!(error(&engine, "a", "SELECT nofunction(1)"), QueryError::Invalid(_)));
    assert!(matches!(error(&engine, "a", "SELECT 1/0"), QueryError::Failed(_)));
    assert!(ask(&engine, "a", "SELECT 1; SELECT 2").is_err());
}

#[test]
fn an_empty_table_has_its_columns() {
    let engine = engine(vec![snapshot(EVENTS, Vec::new(), Vec::new())]);
    assert_eq!(value(&engine, "a", "SELECT count(*) FROM events"), json!(0));
    assert!(rows(&engine, "a", "SELECT * FROM events WHERE anomaly_score > 0.7").is_empty());
    let batch = ask(&engine, "a", "SELECT * FROM events").unwrap();
    assert_eq!(batch.num_columns(), 28);
}

#[test]
fn the_functions_of_security_questions_exist() {
    let mut row = Row::new("a", 1);
    row.src_ip = Some("10.1.2.3".to_owned());
    let engine = engine(vec![snapshot(EVENTS, Vec::new(), vec![batch(&[row])])]);
    for (expression, expected) in [
        ("cidr_contains(src_ip, '10.0.0.0/8')", json!(true)),
        ("cidr_contains(src_ip, '192.168.0.0/16')", json!(false)),
        ("cidr_contains('nonsense', '::/0')", json!(null)),
        ("approx_percentile_cont(0.5) WITHIN GROUP (ORDER BY position)", json!(1.0)),
        ("max(date_bin(INTERVAL '1 minute', time))", json!("1970-01-01T00:00:00Z")),
    ] {
        let sql = format!("SELECT {expression} AS v FROM events");
        assert_eq!(value(&engine, "a", &sql), expected, "{expression}");
    }
    let wrong = error(&engine, "a", "SELECT cidr_contains(src_ip, '10.0.0.0/40') FROM events");
    assert!(wrong.to_string().contains("no network"), "{wrong}");
}
