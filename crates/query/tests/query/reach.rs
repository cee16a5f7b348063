//! How far back the newest rows of a user reach.

use crate::support::{Fixed, Row, batch, tenant, wait};
use palisade_event::Offset;
use palisade_event::schema::EVENTS;
use palisade_query::{Limits, Options, QueryEngine, Reach};
use palisade_table::{MemoryCommits, TableOptions, Tables};
use std::sync::Arc;

const ROWS: i64 = 200_000;
/// The most rows of a page of times, and so by how much the answer may be too early.
const PAGE: i64 = 32_768;

/// "rare" has every 20,000th row, "often" every third.
fn row(at: i64) -> Row {
    match at {
        at if at % 20_000 == 0 => Row::new("acme", at).user("rare"),
        at if at % 3 == 0 => Row::new("acme", at).user("often"),
        at => Row::new("acme", at).user(&format!("u{}", at % 900)),
    }
}

#[test]
fn the_newest_rows_of_a_user_reach_as_far_as_told() {
    let directory = tempfile::tempdir().unwrap();
    let commits = Arc::new(MemoryCommits::default());
    let epoch = commits.claim();
    let (tables, _) = Tables::open(directory.path(), commits, TableOptions::default()).unwrap();
    let mine: Vec<Row> = (0..ROWS).map(row).collect();
    let others: Vec<Row> =
        (ROWS..ROWS + 9_000).map(|at| Row::new("other", at).user("rare")).collect();
    for (offset, rows) in [mine, others].into_iter().enumerate() {
        let offset = offset as u64;
        tables.append(EVENTS, Offset(offset), batch(&rows)).unwrap();
        tables.advance(Offset(offset + 1));
        tables.seal(Offset(offset + 1), epoch).unwrap();
    }
    let snapshot = tables.snapshot(EVENTS);
    let engine = QueryEngine::new(Options::default(), Fixed::with(vec![snapshot])).unwrap();
    let reach = |who: &str, column: &str, user: &str, rows: usize| {
        let (who, limits) = (tenant(who), Limits::default());
        wait(engine.reach(&who, EVENTS, (column, user), rows, limits)).unwrap()
    };
    // Many in each page: a part of the newest pages will do.
    let often = reach("acme", "user", "often", 20).unwrap();
    assert!(!often.scattered, "{often:?}");
    assert!(often.since.is_some_and(|since| (ROWS / 2..ROWS - 60).contains(&since)), "{often:?}");
    // At most one in a page: as many pages as rows. Another tenant's newer rows of that name do not count.
    for wanted in [1, 3, 8] {
        let told = reach("acme", "user", "rare", wanted).unwrap();
        let last = ROWS - wanted as i64 * 20_000;
        let near = last - PAGE..=last;
        assert!(
            told.scattered && told.since.is_some_and(|since| near.contains(&since)),
            "{told:?}"
        );
    }
    // All there are.
    let all = Reach { since: None, scattered: true };
    assert_eq!(reach("acme", "user", "rare", 1_000), Some(all));
    assert_eq!(reach("acme", "user", "nobody", 1).unwrap().since, None);
    let nothing = Reach { since: None, scattered: false };
    assert_eq!(reach("nobody", "user", "rare", 1), Some(nothing));
    // What is not indexed is not told.
    assert_eq!(reach("acme", "message", "rare", 1), None);
}
