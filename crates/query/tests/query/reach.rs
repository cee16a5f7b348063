//! How far back the newest rows of a user reach.

use crate::support::{Fixed, Row, batch, tenant, wait};
use palisade_event::Offset;
use palisade_event::schema::EVENTS;
use palisade_query::{Limits, Options, QueryEngine, Reach};
use palisade_table::{MemoryCommits, TableOptions, Tables};

const ROWS: i64 = 200_000;

/// "rare" has every 5,000th row, "often" every third, and another tenant's "rare" all the rest.
fn row(at: i64) -> Row {
    match at {
        at if at % 5_000 == 0 => Row::new("acme", at).user("rare"),
        at if at % 3 == 0 => Row::new("acme", at).user("often"),
        at if at % 3 == 1 => Row::new("acme", at).user(&format!("u{}", at % 900)),
        at => Row::new("other", at).user("rare"),
    }
}

#[test]
fn the_newest_rows_of_a_user_reach_as_far_as_told() {
    let directory = tempfile::tempdir().unwrap();
    let commits = std::sync::Arc::new(MemoryCommits::default());
    let epoch = commits.claim();
    let (tables, _) = Tables::open(directory.path(), commits, TableOptions::default()).unwrap();
    for part in 0..2 {
        let rows: Vec<Row> = (part * ROWS / 2..(part + 1) * ROWS / 2).map(row).collect();
        tables.append(EVENTS, Offset(part as u64), batch(&rows)).unwrap();
        tables.advance(Offset(part as u64 + 1));
        tables.seal(Offset(part as u64 + 1), epoch).unwrap();
    }
    let snapshot = tables.snapshot(EVENTS);
    let engine = QueryEngine::new(Options::default(), Fixed::with(vec![snapshot])).unwrap();
    let reach = |who: &str, column: &str, user: &str, rows: usize| {
        let (who, limits) = (tenant(who), Limits::default());
        wait(engine.reach(&who, EVENTS, (column, user), rows, limits)).unwrap()
    };
    // Many in each page: a part of the newest pages will do.
    let often = reach("acme", "user", "often", 100).unwrap();
    assert!(!often.scattered);
    assert!(often.since.is_some_and(|since| (ROWS / 2..ROWS - 300).contains(&since)), "{often:?}");
    // At most one in a page: as many pages as rows, and no page more.
    for wanted in [1, 5, 10] {
        let since = reach("acme", "user", "rare", wanted).unwrap().since.unwrap();
        let last = ROWS - wanted as i64 * 5_000;
        assert!((last - 10_000..=last).contains(&since), "{since} for {wanted}");
    }
    // All there are.
    assert_eq!(reach("acme", "user", "rare", 1_000).unwrap().since, None);
    assert_eq!(reach("acme", "user", "nobody", 1).unwrap().since, None);
    assert_eq!(reach("nobody", "user", "rare", 1), Some(Reach { since: None, scattered: false }));
    // What is not indexed is not told.
    assert_eq!(reach("acme", "message", "rare", 1), None);
    assert_eq!(reach("acme", "user", "rare", 1).map(|_| ()), Some(()));
}
