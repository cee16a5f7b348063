//! Texts and ids that are looked for in the pages of segments: the answers are those of the plain evaluation
//! on rows in memory, which are not searched.

use crate::support::{Fixed, Row, ask, batch, engine, objects, snapshot};
use palisade_event::schema::EVENTS;
use palisade_event::{Offset, RecordId};
use palisade_query::{Options, QueryEngine};
use palisade_table::{MemoryCommits, TableOptions, Tables};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use std::sync::Arc;

const ROWS: i64 = 40_000;

/// Events, half of them in a segment that two tenants share: ids that share prefixes, texts of all kinds with
/// and without nulls, a column of few values; some senders gave no id.
fn some_rows() -> Vec<Row> {
    let mut state = 3u64;
    let mut next = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    };
    (0..ROWS)
        .map(|at| {
            let shared = at < ROWS / 2 && at % 3 == 0;
            let mut row = Row::new(if shared { "other" } else { "acme" }, at * 1_000);
            row.user = Some(format!("user{:03}", next(300)));
            if at % 13 == 0 {
                row.record_id = Some(u128::from(next(u64::MAX)).to_be_bytes());
            } else {
                row.event_id =
                    Some(format!("evt_{}_{:06}", 1_768_302_080 + at / 700, next(1_000_000)));
            }
            if at % 5 != 0 {
                let words = ["sudo", "GET /a%b", "c_d\\e", "ärger 😀", "\n", "x"];
                let text: Vec<&str> = (0..next(6)).map(|_| words[next(6) as usize]).collect();
                row.message = Some(format!("{}{}", text.join(" "), next(100_000)));
            }
            row.field("path", json!(format!("/srv/{}/{}", next(40), next(3_000))))
        })
        .collect()
}

struct Both {
    rows: Vec<Row>,
    sealed: QueryEngine,
    memory: QueryEngine,
    _directory: tempfile::TempDir,
}

/// The rows as segments of the real writer, and in memory.
fn both() -> Both {
    let directory = tempfile::tempdir().unwrap();
    let rows = some_rows();
    let commits = Arc::new(MemoryCommits::default());
    let epoch = commits.claim();
    let options = TableOptions::default();
    let (tables, _) = Tables::open(directory.path(), commits, options).unwrap();
    for (offset, half) in rows.chunks(ROWS as usize / 2).enumerate() {
        let offset = offset as u64;
        tables.append(EVENTS, Offset(offset), batch(half)).unwrap();
        tables.advance(Offset(offset + 1));
        tables.seal(Offset(offset + 1), epoch).unwrap();
    }
    let sealed = tables.snapshot(EVENTS);
    assert_eq!((sealed.segments.len(), sealed.memory.len()), (2, 0));
    let options = Options { threads: 2, ..Options::default() };
    let sealed = QueryEngine::new(options, Fixed::with(vec![sealed])).unwrap();
    let memory = engine(vec![snapshot(EVENTS, Vec::new(), vec![batch(&rows)])]);
    Both { rows, sealed, memory, _directory: directory }
}

/// The rows for which a condition holds, the same of segments and of memory.
fn found(both: &Both, condition: &str) -> Vec<Value> {
    let sql = format!("SELECT position, id FROM events WHERE {condition} ORDER BY position");
    let answer =
        |engine| objects(&ask(engine, "acme", &sql).unwrap_or_else(|e| panic!("{sql}: {e}")));
    let wanted = answer(&both.memory);
    assert_eq!(answer(&both.sealed), wanted, "{sql}");
    wanted
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A part of a text in which some characters are wildcards, escaped or not.
fn pattern(text: &str, from: usize, length: usize, change: &[u8]) -> String {
    let part = text.chars().skip(from % text.chars().count().max(1)).take(length);
    let mut pattern = String::new();
    for (char, change) in part.zip(change.iter().cycle()) {
        match change {
            0 => pattern.push('_'),
            1 => pattern.push('%'),
            2 => pattern.extend(['\\', char]),
            _ => pattern.push(char),
        }
    }
    pattern
}

/// Tries a law on so many cases.
fn each<S: Strategy>(cases: u32, strategy: S, law: impl Fn(S::Value)) {
    let mut runner = TestRunner::new(ProptestConfig::with_cases(cases));
    let tried = runner.run(&strategy, |case| {
        law(case);
        Ok(())
    });
    tried.unwrap();
}

#[test]
fn texts_are_found_as_without_a_search() {
    let both = both();
    let place = (0..ROWS as usize, 0..4_u8, 0..12_usize, 0..14_usize);
    let change = prop::collection::vec(0..12_u8, 1..8);
    let around = (any::<bool>(), any::<bool>(), 0..8_u8, 0..4_u8);
    each(150, (place, change, around), |(place, change, around)| {
        let (row, column, from, length) = place;
        let (before, behind, negated, more) = around;
        let row = &both.rows[row];
        let path = row.fields["path"].as_str().map(str::to_owned);
        let (name, text) = match column {
            0 => ("event_id", row.event_id.clone()),
            1 => ("message", row.message.clone()),
            2 => ("\"user\"", row.user.clone()),
            _ => ("path", path),
        };
        let text = text.unwrap_or_else(|| "nothing".to_owned());
        let user = row.user.clone().unwrap_or_default();
        let mut like = pattern(&text, from, length, &change);
        if before {
            like.insert(0, '%');
        }
        if behind {
            like.push('%');
        }
        let not = if negated == 0 { "NOT " } else { "" };
        let condition = format!("{name} {not}LIKE {}", quoted(&like));
        let further = match more {
            0 => format!(" AND \"user\" = {}", quoted(&user)),
            1 => format!(" AND time < to_timestamp_micros({})", row.time + 1),
            2 => format!(" AND {name} = {}", quoted(&text)),
            _ => String::new(),
        };
        found(&both, &(condition + &further));
    });
}

#[test]
fn ids_are_found_as_without_a_search() {
    let both = both();
    each(100, 0..ROWS as usize, |row| {
        let row = &both.rows[row];
        let id = match (&row.event_id, row.record_id) {
            (Some(event), _) => RecordId::from_sender(row.tenant, "http", event),
            (None, id) => RecordId(id.unwrap()),
        };
        let mine = usize::from(row.tenant == "acme");
        assert_eq!(found(&both, &format!("id = '{id}'")).len(), mine);
        if let Some(event) = &row.event_id {
            let same = found(&both, &format!("event_id = {}", quoted(event)));
            assert!(same.len() >= mine);
        }
    });
}

/// Senders' ids that share prefixes, that repeat, and of all lengths.
fn derived_row(at: i64) -> Row {
    let mut row = Row::new("acme", at);
    row.event_id = Some(match at / 30_000 {
        0 => format!("evt_{}_{at:06}", 1_768_302_080 + at / 700),
        1 => format!("again-{}", at % 50),
        _ => "x".repeat((at * 7 % 40) as usize) + &format!("ö{:x}", at.wrapping_mul(0x9e37_79b9)),
    });
    row
}

#[test]
fn ids_are_found_where_all_derive_from_the_senders() {
    let directory = tempfile::tempdir().unwrap();
    let commits = Arc::new(MemoryCommits::default());
    let epoch = commits.claim();
    let (tables, _) = Tables::open(directory.path(), commits, TableOptions::default()).unwrap();
    for part in 0..3 {
        let rows: Vec<Row> = (part * 30_000..(part + 1) * 30_000).map(derived_row).collect();
        tables.append(EVENTS, Offset(part as u64), batch(&rows)).unwrap();
        tables.advance(Offset(part as u64 + 1));
        tables.seal(Offset(part as u64 + 1), epoch).unwrap();
    }
    let sealed = engine(vec![tables.snapshot(EVENTS)]);
    let id = |source: &str, at: i64| {
        let event = derived_row(at).event_id.unwrap();
        RecordId::from_sender("acme", source, &event).to_string()
    };
    let times = |condition: String| {
        let sql =
            format!("SELECT CAST(time AS BIGINT) AS n FROM events WHERE {condition} ORDER BY n");
        let found = objects(&ask(&sealed, "acme", &sql).unwrap());
        found.iter().map(|row| row["n"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    for at in [0, 1, 4_095, 4_096, 29_999, 60_000, 60_001, 77_777, 89_999] {
        assert_eq!(times(format!("id = '{}'", id("http", at))), [at]);
        assert_eq!(times(format!("id = '{}'", id("syslog", at))), [0; 0], "another source's");
        assert_eq!(
            times(format!("id = '{}' AND time < to_timestamp_micros({at})", id("http", at))),
            [0; 0]
        );
    }
    let again: Vec<i64> = (30_000..60_000).filter(|at| at % 50 == 7).collect();
    assert_eq!(times(format!("id = '{}'", id("http", 30_007))), again);
    let two = format!("id IN ('{}', '{}')", id("http", 5), id("http", 88_888));
    assert_eq!(times(two), [5, 88_888]);
    assert_eq!(times("id = 'evt_1'".to_owned()), [0; 0]);
}
