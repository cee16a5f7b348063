//! Results in every format, streamed.

use crate::support::{Row, batch, engine, snapshot, tenant, wait};
use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use futures::StreamExt;
use palisade_event::schema::EVENTS;
use palisade_query::format::{Encoder, Format};
use palisade_query::{Limits, QueryEngine};
use serde_json::{Value, json};

fn table() -> QueryEngine {
    let mut first = Row::new("a", 1_700_000_000_123_456).user("bob, \"the\" builder");
    first.message = Some("line\nwith \u{1b}[31mcolour".to_owned());
    first.anomaly = Some(0.73);
    let second = Row::new("a", 1_700_000_001_000_000).field("list", json!([1, "x"]));
    engine(vec![snapshot(EVENTS, Vec::new(), vec![batch(&[first, second])])])
}

fn write(engine: &QueryEngine, format: Format, sql: &str, limits: Limits) -> Vec<u8> {
    wait(async {
        let mut result = engine.query(&tenant("a"), sql, limits).await.unwrap();
        let mut encoder = Encoder::new(format, &result.schema).unwrap();
        let mut out = encoder.start();
        while let Some(batch) = result.next().await {
            out.extend(encoder.batch(&batch.unwrap()).unwrap());
        }
        out.extend(encoder.finish(&result.stats).unwrap());
        out
    })
}

fn text(format: Format, sql: &str) -> String {
    String::from_utf8(write(&table(), format, sql, Limits::default())).unwrap()
}

const SQL: &str = "SELECT time, \"user\", anomaly_score, [position, 1] AS nested, \
                   arrow_cast(0.0, 'Float64') / 0.0 AS nan FROM events ORDER BY time";

fn expected() -> Value {
    json!([
        {
            "time": "2023-11-14T22:13:20.123456Z",
            "user": "bob, \"the\" builder",
            "anomaly_score": 0.73,
            "nested": [1_700_000_000_123_456i64, 1],
            "nan": null,
        },
        {
            "time": "2023-11-14T22:13:21Z",
            "user": null,
            "anomaly_score": null,
            "nested": [1_700_000_001_000_000i64, 1],
            "nan": null,
        },
    ])
}

#[test]
fn json_is_an_array_of_objects() {
    let found: Value = serde_json::from_str(&text(Format::Json, SQL)).unwrap();
    assert_eq!(found, expected());
    assert_eq!(text(Format::Json, "SELECT 1 AS a WHERE FALSE").trim(), "[]");
}

#[test]
fn json_lines_are_objects() {
    let lines = text(Format::JsonLines, SQL);
    let found: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(Value::Array(found), expected());
    assert_eq!(text(Format::JsonLines, "SELECT 1 AS a WHERE FALSE"), "");
}

#[test]
fn json_rows_name_their_columns_once() {
    let found: Value = serde_json::from_str(&text(Format::JsonRows, SQL)).unwrap();
    assert_eq!(
        found["columns"],
        json!([
            {"name": "time", "type": "timestamp"},
            {"name": "user", "type": "text"},
            {"name": "anomaly_score", "type": "float32"},
            {"name": "nested", "type": found["columns"][3]["type"]},
            {"name": "nan", "type": "float64"},
        ])
    );
    let values: Vec<Vec<Value>> = expected()
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            ["time", "user", "anomaly_score", "nested", "nan"]
                .map(|name| row[name].clone())
                .to_vec()
        })
        .collect();
    assert_eq!(found["rows"], json!(values));
    assert_eq!((&found["row_count"], &found["truncated"]), (&json!(2), &json!(false)));
    let cut = Limits { rows: 1, ..Limits::default() };
    let cut: Value = serde_json::from_slice(&write(&table(), Format::JsonRows, SQL, cut)).unwrap();
    assert_eq!((&cut["row_count"], &cut["truncated"]), (&json!(1), &json!(true)));
    let none = text(Format::JsonRows, "SELECT 1 AS a WHERE FALSE");
    let none: Value = serde_json::from_str(&none).unwrap();
    assert_eq!(none["rows"], json!([]));
}

#[test]
fn csv_quotes_what_must_be_quoted() {
    assert_eq!(
        text(
            Format::Csv,
            "SELECT time, \"user\", anomaly_score, [1, NULL] AS l FROM events ORDER BY time"
        ),
        "time,user,anomaly_score,l\n\
         2023-11-14T22:13:20.123456Z,\"bob, \"\"the\"\" builder\",0.73,\"[1,null]\"\n\
         2023-11-14T22:13:21Z,,,\"[1,null]\"\n"
    );
    assert_eq!(text(Format::Csv, "SELECT 1 AS a, 2 AS b WHERE FALSE"), "a,b\n");
}

#[test]
fn arrow_streams_are_read_back() {
    let engine = table();
    let bytes = write(&engine, Format::Arrow, "SELECT * FROM events", Limits::default());
    let reader = StreamReader::try_new(bytes.as_slice(), None).unwrap();
    let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 2);
    assert_eq!(batches[0].num_columns(), 29);
}

#[test]
fn tables_are_for_the_eye() {
    let sql = "SELECT time, \"user\", anomaly_score AS score, message FROM events ORDER BY time";
    let table = text(Format::Table(100), sql);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(
        lines[..4],
        [
            "time                        │ user               │ score │ message",
            "────────────────────────────┼────────────────────┼───────┼────────────────────────────",
            "2023-11-14T22:13:20.123456Z │ bob, \"the\" builder │  0.73 │ line\\nwith \\u{1b}[31mcolour",
            "2023-11-14T22:13:21Z        │                    │       │ ",
        ]
    );
    assert!(lines[4].starts_with("(2 rows in "), "{}", lines[4]);
    let narrow = text(Format::Table(60), sql);
    assert!(narrow.lines().all(|line| line.chars().count() <= 61), "{narrow}");
}

#[test]
fn names_of_formats_are_known() {
    for (name, format) in
        [("json", Format::Json), ("jsonl", Format::JsonLines), ("csv", Format::Csv)]
    {
        assert_eq!(name.parse(), Ok(format));
    }
    assert!("xml".parse::<Format>().unwrap_err().contains("jsonl"));
    assert_eq!(Format::Arrow.media_type(), "application/vnd.apache.arrow.stream");
}
