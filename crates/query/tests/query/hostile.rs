//! Whatever comes in as SQL: an answer or an error that says something, in bounded time, of the asker's rows
//! only, and nothing but reading.

use crate::support::{Fixed, Row, ask_within, batch, segment, snapshot};
use palisade_event::schema::EVENTS;
use palisade_query::{Limits, Options, QueryEngine, QueryError};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::json;
use std::time::{Duration, Instant};

/// What no answer may hold: it stands in each text of another tenant's rows.
const SECRET: &str = "s3cr3t";
const TIME: Duration = Duration::from_millis(500);

struct House {
    engine: QueryEngine,
    directory: tempfile::TempDir,
}

fn house() -> House {
    let directory = tempfile::tempdir().unwrap();
    let rows: Vec<Row> = (0..200)
        .map(|at| {
            let (tenant, word) = if at % 2 == 0 { ("mine", "plain") } else { ("other", SECRET) };
            let mut row = Row::new(tenant, at).user(&format!("{word}{at}"));
            row.event_id = Some(format!("{word}-{at}"));
            row.message = Some(format!("a {word} text"));
            let row = row.field("note", json!(word));
            if tenant == "other" { row.field(&format!("field_{SECRET}"), json!(1)) } else { row }
        })
        .collect();
    let file = segment(directory.path(), 1, &rows[..100], 50);
    let memory = vec![batch(&rows[100..])];
    let options = Options { threads: 2, ..Options::default() };
    let tables = Fixed::with(vec![snapshot(EVENTS, vec![file], memory)]);
    House { engine: QueryEngine::new(options, tables).unwrap(), directory }
}

/// What a statement that was let through may begin with.
const READS: [&str; 10] =
    ["SELECT", "WITH", "VALUES", "EXPLAIN", "SHOW", "DESCRIBE", "DESC", "TABLE", "FROM", "("];

fn law(house: &House, sql: &str) {
    let limits = Limits { time: TIME, memory: 32 << 20, rows: 100, ..Limits::default() };
    let begun = Instant::now();
    let answer = ask_within(&house.engine, "mine", sql, limits);
    // Far above the limit, as other work may hold the processor; far below what a loop would take.
    assert!(begun.elapsed() < TIME * 20, "{sql:?} took {:?}", begun.elapsed());
    match answer {
        Ok(rows) => {
            let mut told = format!("{:?}", rows.schema());
            // No more than so many rows are shown of an array.
            for from in (0..rows.num_rows()).step_by(10) {
                told += &format!("{:?}", rows.slice(from, 10.min(rows.num_rows() - from)));
            }
            // What the asker wrote may come back.
            assert!(sql.contains("s3c") || !told.contains(SECRET), "{sql:?} tells {told}");
            let start =
                sql.trim_start_matches(|c: char| c.is_whitespace() || c == ';').to_uppercase();
            let comment = start.starts_with("--") || start.starts_with("/*");
            assert!(
                comment || READS.iter().any(|read| start.starts_with(read)),
                "{sql:?} was let through"
            );
        }
        Err(error) => {
            assert!(!matches!(error, QueryError::Internal(_)), "{sql:?}: {error}");
            assert!(
                !error.to_string().is_empty() && !error.to_string().contains(SECRET),
                "{sql:?}: {error}"
            );
        }
    }
    assert_eq!(
        std::fs::read_dir(house.directory.path()).unwrap().count(),
        1,
        "{sql:?} wrote a file"
    );
}

const WORDS: &[&str] = &[
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP BY",
    "ORDER BY",
    "HAVING",
    "LIMIT",
    "OFFSET",
    "UNION ALL",
    "EXCEPT",
    "WITH",
    "RECURSIVE",
    "AS",
    "VALUES",
    "JOIN",
    "LATERAL",
    "ON",
    "IN",
    "NOT",
    "AND",
    "OR",
    "LIKE",
    "SIMILAR TO",
    "BETWEEN",
    "CASE",
    "WHEN",
    "THEN",
    "ELSE",
    "END",
    "CAST",
    "INTERVAL",
    "DISTINCT",
    "OVER",
    "PARTITION BY",
    "EXPLAIN",
    "ANALYZE",
    "SHOW",
    "TABLES",
    "DESCRIBE",
    "TABLE",
    "INSERT INTO",
    "UPDATE",
    "DELETE FROM",
    "SET",
    "CREATE TABLE",
    "CREATE EXTERNAL TABLE",
    "CREATE VIEW",
    "CREATE FUNCTION",
    "DROP TABLE",
    "ALTER TABLE",
    "COPY",
    "TO",
    "STORED AS PARQUET",
    "LOCATION",
    "TRUNCATE",
    "MERGE INTO",
    "USING",
    "PREPARE",
    "EXECUTE",
    "DEALLOCATE",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "CALL",
    "GRANT",
    "RESET",
    "KILL",
    "USE",
    "ATTACH",
    "PRAGMA",
    "events",
    "alerts",
    "system.queries",
    "system.segments",
    "information_schema.tables",
    "information_schema.columns",
    "information_schema.df_settings",
    "other.main.events",
    "\"events\"",
    "'/etc/passwd'",
    "'events-1.parquet'",
    "tenant",
    "\"user\"",
    "event_id",
    "note",
    "message",
    "time",
    "id",
    "field_x",
    "overflow",
    "count",
    "sum",
    "now",
    "random",
    "uuid",
    "version",
    "arrow_typeof",
    "regexp_match",
    "repeat",
    "generate_series",
    "range",
    "unnest",
    "read_csv",
    "read_parquet",
    "overflow_get",
    "*",
    ",",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ".",
    ";",
    "=",
    "<>",
    "<",
    "||",
    "+",
    "-",
    "/",
    "%",
    "::",
    "->",
    "@",
    "$1",
    "?",
    "--",
    "/*",
    "*/",
    "'",
    "''",
    "\"",
    "`",
    "\\",
    "'%a%'",
    "'other'",
    "0",
    "1",
    "-1",
    "9223372036854775807",
    "1e308",
    "NULL",
    "TRUE",
    "'a'",
    "x'00'",
    "E'\\x00'",
    "\u{0}",
    "\u{feff}",
    "ä",
    "😀",
];

fn soup() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(WORDS), 0..24).prop_map(|words| words.join(" "))
}

/// A statement that is answered, with words put in, left out or exchanged.
fn changed() -> impl Strategy<Value = String> {
    const GOOD: &[&str] = &[
        "SELECT \"user\" , count ( * ) FROM events WHERE note LIKE '%a%' GROUP BY \"user\" ORDER BY 2 LIMIT 3",
        "WITH t AS ( SELECT * FROM events ) SELECT t . id FROM t JOIN events e ON t . id = e . id",
        "SELECT * FROM ( VALUES ( 1 , 'a' ) ) AS v ( n , s ) UNION ALL SELECT 1 , message FROM events",
        "EXPLAIN SELECT DISTINCT note FROM events WHERE time > now ( ) - INTERVAL '1 day'",
        "SELECT table_name , column_name FROM information_schema.columns",
        "SELECT row_number ( ) OVER ( PARTITION BY note ORDER BY time ) FROM events",
        "SHOW TABLES",
    ];
    let change = (any::<prop::sample::Index>(), prop::sample::select(WORDS), 0..3);
    (prop::sample::select(GOOD), prop::collection::vec(change, 0..4)).prop_map(|(good, changes)| {
        let mut words: Vec<&str> = good.split(' ').collect();
        for (at, word, what) in changes {
            let at = at.index(words.len());
            match what {
                0 => words.insert(at, word),
                1 => words[at] = word,
                _ if words.len() > 1 => {
                    words.remove(at);
                }
                _ => {}
            }
        }
        words.join(" ")
    })
}

/// The same again and again: nesting and length.
fn repeated() -> impl Strategy<Value = String> {
    const PARTS: &[&str] = &[
        "(",
        "NOT ",
        "- ",
        "SELECT (",
        "CASE WHEN ",
        "[",
        "a.",
        "1 OR ",
        "1 + ",
        "SELECT 1 UNION ",
        "(SELECT ",
        "EXPLAIN ",
        "WITH t AS (",
        "'",
        "/*",
        "x IN (",
        "CAST(",
        "abs(",
        "1 IS NULL = ",
        "ARRAY[",
        "{",
        "EXISTS(",
        "events, ",
        "1::INT",
        "~",
        "INTERVAL ",
        "EXPLAIN ANALYZE ",
        "CAST(1 AS ARRAY<",
        "ARRAY<",
        "STRUCT<a ",
        "[]",
        "*, ",
    ];
    const BEFORE: &[&str] = &["", "SELECT ", "SELECT * FROM "];
    let part = prop::sample::select(PARTS);
    (prop::sample::select(BEFORE), part, 1..12_000_usize, soup())
        .prop_map(|(before, part, count, behind)| format!("{before}{}{behind}", part.repeat(count)))
}

fn each(cases: u32, texts: impl Strategy<Value = String>) {
    let house = house();
    let mut runner = TestRunner::new(ProptestConfig::with_cases(cases));
    let tried = runner.run(&texts, |sql| {
        law(&house, &sql);
        Ok(())
    });
    tried.unwrap();
}

#[test]
fn any_text_is_answered_or_refused() {
    each(400, prop::collection::vec(any::<char>(), 0..60).prop_map(String::from_iter));
}

#[test]
fn any_words_are_answered_or_refused() {
    each(800, soup());
}

#[test]
fn any_change_of_a_query_is_answered_or_refused() {
    each(800, changed());
}

/// Each of these once ended the process, or could have: the parser and the planner follow them by recursion,
/// or put the columns of all tables together at each.
#[test]
fn what_is_followed_without_end_is_too_complex() {
    let house = house();
    for sql in [
        format!("{} SELECT 1", "EXPLAIN ".repeat(8_000)),
        format!("{} SELECT 1", "EXPLAIN ANALYZE ".repeat(4_000)),
        format!("SELECT {}", "INTERVAL ".repeat(7_000)),
        format!("SELECT CAST(1 AS {}", "ARRAY<".repeat(10_000)),
        format!("SELECT CAST(1 AS INT{})", "[]".repeat(30_000)),
        format!("SELECT * FROM events MATCH_RECOGNIZE (PATTERN {}", "(".repeat(60_000)),
        format!("SELECT count(*) FROM events{}", ", events".repeat(8_000)),
        format!("SELECT *{} FROM events", ", *".repeat(20_000)),
    ] {
        let limits = Limits { time: TIME, ..Limits::default() };
        let error = ask_within(&house.engine, "mine", &sql, limits).unwrap_err();
        let shown: String = sql.chars().take(60).collect();
        assert!(matches!(error, QueryError::TooComplex { .. }), "{shown}: {error}");
    }
    for sql in ["EXPLAIN SELECT 1", "SELECT INTERVAL '1 day'", "SELECT [[1], [2]]"] {
        law(&house, sql);
        assert!(ask_within(&house.engine, "mine", sql, Limits::default()).is_ok(), "{sql}");
    }
}

#[test]
fn any_nesting_is_answered_or_refused() {
    each(80, repeated());
}
