//! Every query ends within its limits, and says which one ended it.

use crate::support::{
    Fixed, Row, ask, ask_within, batch, engine, rows, snapshot, tenant, value, wait,
};
use futures::StreamExt;
use palisade_event::ErrorClass;
use palisade_event::schema::EVENTS;
use palisade_query::{Excess, Limits, Options, QueryEngine, QueryError};
use serde_json::json;
use std::time::{Duration, Instant};

/// Some thousand rows: joined with themselves a few times they keep any machine busy.
fn table() -> palisade_table::Snapshot {
    let rows: Vec<Row> = (0..3_000)
        .map(|at| {
            let mut row = Row::new("a", at).user(&format!("user number {at}"));
            row.message = Some(format!("a message of some length, number {at}"));
            row
        })
        .collect();
    snapshot(EVENTS, Vec::new(), rows.chunks(500).map(batch).collect())
}

/// 3,000³ pairs: more than can be done.
const ENDLESS: &str = "SELECT count(*) FROM events a, events b, events c \
                       WHERE a.position + b.position + c.position < 0";

#[test]
fn time_is_limited() {
    let engine = engine(vec![table()]);
    let limits = Limits { time: Duration::from_millis(300), ..Limits::default() };
    for sql in [
        ENDLESS,
        "WITH RECURSIVE n AS (SELECT 1 AS v UNION ALL SELECT v + 1 FROM n) SELECT count(*) FROM n",
        "SELECT a.message FROM events a, events b, events c ORDER BY a.position + b.position + c.position LIMIT 3",
    ] {
        let started = Instant::now();
        let error = ask_within(&engine, "a", sql, limits).unwrap_err();
        assert!(matches!(error, QueryError::Time(_) | QueryError::Memory(_)), "{sql}: {error}");
        assert!(started.elapsed() < Duration::from_secs(5), "{sql}: {:?}", started.elapsed());
    }
    assert_eq!(value(&engine, "a", "SELECT count(*) FROM events"), json!(3_000));
    // What was cut off gives its memory back.
    let deadline = Instant::now() + Duration::from_secs(10);
    while engine.memory_used() > 0 {
        assert!(Instant::now() < deadline, "{} bytes are not given back", engine.memory_used());
        std::thread::yield_now();
    }
}

#[test]
fn memory_is_limited() {
    let engine = engine(vec![table()]);
    let limits = Limits { memory: 2 << 20, ..Limits::default() };
    for sql in [
        "SELECT a.message || b.message AS m, count(*) FROM events a, events b GROUP BY m",
        "SELECT a.message, b.message FROM events a, events b ORDER BY a.message || b.message LIMIT 1000000",
        "SELECT array_agg(a.message || b.message) FROM events a, events b",
    ] {
        let error = ask_within(&engine, "a", sql, limits).unwrap_err();
        assert!(matches!(error, QueryError::Memory(_)), "{sql}: {error:?}");
        assert_eq!(error.class(), ErrorClass::Permanent);
    }
    // All queries together are bounded too, and that passes.
    let options = Options { memory: 1 << 20, ..Options::default() };
    let small = QueryEngine::new(options, Fixed::with(vec![table()])).unwrap();
    let sql = "SELECT a.message || b.message AS m, count(*) FROM events a, events b GROUP BY m";
    let error = ask(&small, "a", sql).unwrap_err();
    assert!(matches!(error, QueryError::Busy(_)), "{error:?}");
    assert_eq!(error.class(), ErrorClass::Transient);
}

/// Groups and sorts that outgrow their memory go to disk, and give the same answers.
#[test]
fn what_outgrows_its_memory_is_written_to_disk() {
    let directory = tempfile::tempdir().unwrap();
    let spill = Some(directory.path().join("spill"));
    let options = Options { spill, threads: 2, ..Options::default() };
    let engine = QueryEngine::new(options, Fixed::with(vec![table()])).unwrap();
    let limits = Limits { memory: 64 << 20, rows: 10, ..Limits::default() };
    let pairs = "(SELECT a.message || '/' || b.message AS m \
                 FROM events a, events b WHERE b.position < 300)";
    for (sql, expected) in [
        (
            format!(
                "SELECT count(*) AS n FROM (SELECT m, count(*) AS c FROM {pairs} GROUP BY m) WHERE c = 1"
            ),
            json!(900_000),
        ),
        (
            format!(
                "SELECT count(*) AS n FROM (SELECT m, row_number() OVER (ORDER BY m) AS r FROM {pairs}) WHERE r > 0"
            ),
            json!(900_000),
        ),
    ] {
        let batch =
            ask_within(&engine, "a", &sql, limits).unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert_eq!(crate::support::objects(&batch), [json!({"n": expected})], "{sql}");
        // Without a disk it does not fit.
        let bare = crate::support::engine(vec![table()]);
        assert!(
            matches!(ask_within(&bare, "a", &sql, limits), Err(QueryError::Memory(_))),
            "{sql}"
        );
    }
    // The directories of queries to come stay, what was written into them does not.
    let files = |place: std::fs::DirEntry| std::fs::read_dir(place.path()).unwrap().count();
    let left = || {
        let places = std::fs::read_dir(directory.path().join("spill")).unwrap();
        places.map(|place| files(place.unwrap())).sum::<usize>()
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    while left() > 0 {
        assert!(Instant::now() < deadline, "files are left on disk");
        std::thread::yield_now();
    }
}

#[test]
fn rows_are_limited() {
    let engine = engine(vec![table()]);
    let cut = Limits { rows: 10, ..Limits::default() };
    wait(async {
        let mut result = engine.query(&tenant("a"), "SELECT * FROM events", cut).await.unwrap();
        let stats = result.stats.clone();
        let mut count = 0;
        while let Some(batch) = result.next().await {
            count += batch.unwrap().num_rows();
        }
        assert_eq!((count, stats.rows(), stats.truncated()), (10, 10, true));
        let exact = Limits { rows: 3_000, ..Limits::default() };
        let result = engine.query(&tenant("a"), "SELECT * FROM events", exact).await.unwrap();
        let stats = result.stats.clone();
        result.collect().await.unwrap();
        assert_eq!((stats.rows(), stats.truncated()), (3_000, false));
    });
    let refuse = Limits { excess: Excess::Refuse, ..cut };
    let error = ask_within(&engine, "a", "SELECT * FROM events", refuse).unwrap_err();
    assert!(matches!(error, QueryError::Rows(10)), "{error:?}");
    let fits = ask_within(&engine, "a", "SELECT * FROM events LIMIT 10", refuse).unwrap();
    assert_eq!(fits.num_rows(), 10);
}

#[test]
fn texts_and_plans_are_limited() {
    let engine = engine(vec![table()]);
    let long = format!("SELECT '{}'", "x".repeat(70_000));
    assert!(matches!(ask(&engine, "a", &long), Err(QueryError::TooLong { .. })));
    let union = vec!["SELECT 1"; 1_500].join(" UNION ALL ");
    let error = ask(&engine, "a", &union).unwrap_err();
    assert!(matches!(error, QueryError::TooComplex { .. } | QueryError::Syntax(_)), "{error:?}");
    let nested = format!("SELECT {}1{}", "(".repeat(5_000), ")".repeat(5_000));
    let error = ask(&engine, "a", &nested).unwrap_err();
    assert!(matches!(error, QueryError::TooComplex { .. }), "{error:?}");
    let selects = format!("{}SELECT 1{}", "SELECT * FROM (".repeat(500), ")".repeat(500));
    assert!(ask(&engine, "a", &selects).is_err());
    let terms = vec!["position = 1"; 4_000].join(" OR ");
    let sql = format!("SELECT count(*) FROM events WHERE {terms}");
    let error = ask(&engine, "a", &sql).unwrap_err();
    assert!(matches!(error, QueryError::TooComplex { .. }), "{error:?}");
    let deepest = vec!["position = 1"; 490].join(" OR ");
    for text in
        [deepest.clone(), format!("NOT ({deepest})"), format!("CASE WHEN {deepest} THEN TRUE END")]
    {
        ask(&engine, "a", &format!("SELECT count(*) FROM events WHERE {text}")).unwrap();
    }
    let plus = vec!["1"; 30_000].join("+");
    let error = ask(&engine, "a", &format!("SELECT {plus}")).unwrap_err();
    assert!(matches!(error, QueryError::TooComplex { .. }), "{error:?}");
    let list = (0..9_000).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    let sql = format!("SELECT count(*) AS n FROM events WHERE position IN ({list})");
    assert_eq!(value(&engine, "a", &sql), json!(3_000));
}

#[test]
fn too_many_at_once_are_busy() {
    let options = Options { concurrent: 1, waiting: 1, threads: 1, ..Options::default() };
    let engine = QueryEngine::new(options, Fixed::with(vec![table()])).unwrap();
    let limits = Limits { time: Duration::from_secs(20), ..Limits::default() };
    wait(async {
        let who = tenant("a");
        // Nobody reads it, so it waits with its turn in hand.
        let sql = "SELECT a.message FROM events a, events b";
        let unread = Limits { time: Duration::from_secs(60), rows: usize::MAX, ..limits };
        let running = engine.query(&who, sql, unread).await.unwrap();
        assert_eq!(engine.running(), 1);
        let short = Limits { time: Duration::from_millis(200), ..Limits::default() };
        let (second, third) = tokio::join!(
            engine.query(&who, "SELECT 1", short),
            engine.query(&who, "SELECT 1", short)
        );
        assert!(matches!(second, Err(QueryError::Busy(_))), "{second:?}");
        assert!(matches!(third, Err(QueryError::Busy(_))), "{third:?}");
        drop(running);
        // The place is free again at once.
        let next = engine.query(&who, "SELECT 1 AS one", limits).await.unwrap();
        assert_eq!(next.collect().await.unwrap().len(), 1);
    });
}

#[test]
fn dropping_a_result_stops_its_query() {
    let options = Options { concurrent: 1, waiting: 1, threads: 2, ..Options::default() };
    let engine = QueryEngine::new(options, Fixed::with(vec![table()])).unwrap();
    wait(async {
        let who = tenant("a");
        for _ in 0..3 {
            let limits = Limits { time: Duration::from_secs(600), ..Limits::default() };
            drop(engine.query(&who, ENDLESS, limits).await.unwrap());
            // Also while it is being sent: nothing waits for a reader who has gone.
            let sql = "SELECT a.message FROM events a, events b";
            let many = Limits { rows: usize::MAX, ..limits };
            let mut result = engine.query(&who, sql, many).await.unwrap();
            result.next().await.unwrap().unwrap();
            drop(result);
        }
        let next = engine.query(&who, "SELECT 1 AS one", Limits::default()).await.unwrap();
        next.collect().await.unwrap();
    });
    let states = rows(&engine, "a", "SELECT state FROM system.queries ORDER BY query");
    let states: Vec<&str> = states.iter().map(|row| row["state"].as_str().unwrap()).collect();
    assert_eq!(
        states,
        [
            "cancelled",
            "cancelled",
            "cancelled",
            "cancelled",
            "cancelled",
            "cancelled",
            "done",
            "running"
        ]
    );
}

#[test]
fn the_log_tells_what_became_of_queries() {
    let options = Options { log: 4, ..Options::default() };
    let engine = QueryEngine::new(options, Fixed::with(vec![table()])).unwrap();
    for n in 0..3 {
        ask(&engine, "a", &format!("SELECT {n} AS n")).unwrap();
    }
    ask(&engine, "b", "SELECT 'mine' AS n").unwrap();
    ask(&engine, "a", "SELECT nothing").unwrap_err();
    let told =
        rows(&engine, "a", "SELECT sql, state, rows, error FROM system.queries ORDER BY query");
    let states: Vec<(&str, &str)> = told
        .iter()
        .map(|row| (row["sql"].as_str().unwrap(), row["state"].as_str().unwrap()))
        .collect();
    assert_eq!(
        states,
        [
            ("SELECT 2 AS n", "done"),
            ("SELECT nothing", "unknown_column"),
            ("SELECT sql, state, rows, error FROM system.queries ORDER BY query", "running"),
        ]
    );
    assert!(told[1]["error"].as_str().unwrap().contains("nothing"));
}
