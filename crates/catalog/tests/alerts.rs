//! Alerts' mutable side, silences, and what became of notifications; the last also under SIGKILL.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests may panic and print"
)]

mod support;

use palisade_catalog::{
    AlertChange, AlertCursor, AlertStatus, AttemptOutcome, Catalog, CatalogError, CommitError,
    DeliveryFilter, DeliveryState, NewDelivery, Pull, Silence,
};
use palisade_event::TenantId;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use support::open;

const DIRECTORY: &str = "PALISADE_CATALOG_DELIVERY_DIRECTORY";

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn id(number: u64) -> String {
    format!("{number:032x}")
}

fn at(position: u64) -> AlertCursor {
    AlertCursor { position, alert_id: id(position), revision: 0 }
}

fn delivery(number: u64, revision: u32) -> NewDelivery {
    let content = format!("content of {number}-{revision}");
    NewDelivery { tenant: tenant("default"), alert_id: id(number), revision, content }
}

fn pull(position: u64, deliveries: Vec<NewDelivery>) -> Pull {
    Pull { cursor: at(position), deliveries, ..Pull::default() }
}

#[tokio::test]
async fn decisions_about_an_alert_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let (acme, other) = (tenant("acme"), tenant("default"));
    let change = |status, reason: Option<&str>, assignee: Option<Option<&str>>| AlertChange {
        status,
        reason: reason.map(str::to_owned),
        assignee: assignee.map(|name| name.map(str::to_owned)),
    };
    let change_as = async |tenant: &TenantId, change: AlertChange, now| {
        catalog.change_alert(tenant, &id(1), &change, "key", now).await
    };
    assert!(catalog.alert_states(&acme, &[id(1)]).await.unwrap().is_empty());
    let state = change_as(&acme, change(None, None, Some(Some("ada"))), 5).await.unwrap();
    assert_eq!((state.status, state.assignee.as_deref()), (AlertStatus::New, Some("ada")));
    let acknowledged = Some(AlertStatus::Acknowledged);
    let state = change_as(&acme, change(acknowledged, None, None), 6).await.unwrap();
    assert_eq!((state.status, state.assignee.as_deref()), (AlertStatus::Acknowledged, Some("ada")));
    // Closing needs a reason, and nothing else has one.
    let closed = Some(AlertStatus::Closed);
    for bad in [
        change(closed, None, None),
        change(acknowledged, Some("x"), None),
        change(None, Some("x"), None),
        change(closed, Some(" "), None),
        change(closed, Some(&"x".repeat(1025)), None),
    ] {
        let refused = change_as(&acme, bad, 7).await.unwrap_err();
        assert!(matches!(refused, CatalogError::Invalid { .. }), "{refused}");
    }
    assert!(catalog.change_alert(&acme, "x", &AlertChange::default(), "k", 1).await.is_err());
    let state = change_as(&acme, change(closed, Some("benign"), Some(None)), 8).await.unwrap();
    assert_eq!((state.reason.as_deref(), state.assignee.as_deref()), (Some("benign"), None));
    let stored = catalog.alert_states(&acme, &[id(1), id(2)]).await.unwrap();
    assert_eq!(stored, BTreeMap::from([(id(1), state)]));
    assert!(catalog.alert_states(&other, &[id(1)]).await.unwrap().is_empty());
    let found = catalog.alerts_with_status(&acme, &[AlertStatus::Closed], 10).await.unwrap();
    assert_eq!(found, [id(1)]);
    assert!(
        catalog.alerts_with_status(&other, &[AlertStatus::Closed], 10).await.unwrap().is_empty()
    );
    // Opened again, the reason is gone.
    let state = change_as(&acme, change(Some(AlertStatus::New), None, None), 9).await.unwrap();
    assert_eq!((state.status, state.reason), (AlertStatus::New, None));

    let note = catalog.add_alert_note(&acme, &id(1), "key", 10, "looked at it").await.unwrap();
    assert!(catalog.add_alert_note(&acme, &id(1), "key", 10, "").await.is_err());
    assert_eq!(catalog.alert_notes(&acme, &id(1)).await.unwrap(), [note]);
    assert!(catalog.alert_notes(&other, &id(1)).await.unwrap().is_empty());
    assert_eq!(catalog.prune_alert_states(10).await.unwrap(), 1);
    assert_eq!(catalog.prune_alert_states(11).await.unwrap(), 1);
}

#[tokio::test]
async fn silences_are_made_and_lifted() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let silence = |ends_at| Silence {
        id: String::new(),
        tenant: tenant("acme"),
        matchers: vec!["user=a".into(), "severity<=low".into()],
        starts_at: 10,
        ends_at,
        creator: "local".into(),
        comment: "maintenance".into(),
        created_at: 5,
        muted: 0,
    };
    assert!(catalog.create_silence(silence(10)).await.is_err());
    let made = catalog.create_silence(silence(100)).await.unwrap();
    assert_eq!(made, Silence { id: made.id.clone(), ..silence(100) });
    let one = std::slice::from_ref(&made);
    assert_eq!(catalog.silences(None, 99).await.unwrap(), one);
    assert_eq!(catalog.silences(Some(&tenant("acme")), 5).await.unwrap(), one);
    assert!(catalog.silences(Some(&tenant("default")), 5).await.unwrap().is_empty());
    assert!(catalog.silences(None, 100).await.unwrap().is_empty());
    let unknown = catalog.lift_silence(&tenant("default"), &made.id, 50).await.unwrap_err();
    assert!(matches!(unknown, CatalogError::Unknown { .. }));
    catalog.lift_silence(&tenant("acme"), &made.id, 50).await.unwrap();
    catalog.lift_silence(&tenant("acme"), &made.id, 70).await.unwrap();
    assert_eq!(catalog.silences(None, 0).await.unwrap()[0].ends_at, 50);
    assert_eq!(catalog.prune_alert_states(51).await.unwrap(), 1);
}

#[tokio::test]
async fn a_receiver_has_one_owner_and_goes_on_where_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let first = catalog.claim_receiver("r", &at(5)).await.unwrap();
    assert_eq!((first.cursor.clone(), first.memory.len()), (at(5), 0));
    let mut next = pull(7, vec![delivery(6, 0), delivery(7, 0)]);
    next.memory = vec![("a".into(), Some("1".into())), ("b".into(), Some("2".into()))];
    catalog.record_pull("r", first.epoch, &next, 100).await.unwrap();
    let back = catalog.record_pull("r", first.epoch, &pull(6, vec![]), 100).await.unwrap_err();
    assert!(matches!(back, CommitError::Catalog(CatalogError::Invalid { .. })), "{back}");
    let mut next = pull(8, vec![delivery(7, 0), delivery(8, 0)]);
    next.memory = vec![("a".into(), None), ("b".into(), Some("3".into()))];
    catalog.record_pull("r", first.epoch, &next, 101).await.unwrap();
    assert_eq!(catalog.pending_deliveries("r").await.unwrap(), 3, "one was there already");

    let second = catalog.claim_receiver("r", &at(1000)).await.unwrap();
    assert!(second.epoch > first.epoch);
    assert_eq!(second.cursor, at(8), "not where a new one begins");
    assert_eq!(second.memory, BTreeMap::from([("b".into(), "3".into())]));
    let stale = catalog.record_pull("r", first.epoch, &pull(9, vec![]), 102).await.unwrap_err();
    assert_eq!(stale, CommitError::Stale { current: second.epoch, got: first.epoch });
    let outcomes = [(1, AttemptOutcome::Delivered)];
    assert!(catalog.record_attempts("r", first.epoch, &outcomes, 102).await.is_err());
    assert!(catalog.record_attempts("other", second.epoch, &outcomes, 102).await.is_err());
    assert_eq!(catalog.pending_deliveries("r").await.unwrap(), 3);
    // What the catalog cannot keep changes nothing.
    let bad = NewDelivery { alert_id: "x".into(), ..delivery(9, 0) };
    let half = pull(9, vec![delivery(9, 0), bad]);
    assert!(catalog.record_pull("r", second.epoch, &half, 103).await.is_err());
    assert_eq!(catalog.pending_deliveries("r").await.unwrap(), 3);
}

#[tokio::test]
async fn notifications_wait_their_turn() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let owner = catalog.claim_receiver("r", &at(0)).await.unwrap().epoch;
    let other = catalog.claim_receiver("s", &at(0)).await.unwrap().epoch;
    let two = vec![delivery(1, 0), delivery(1, 1), delivery(2, 0)];
    catalog.record_pull("r", owner, &pull(3, two), 100).await.unwrap();
    catalog.record_pull("s", other, &pull(3, vec![delivery(1, 0)]), 100).await.unwrap();
    let due = async |now| {
        let due = catalog.due_deliveries("r", now, 10).await.unwrap();
        due.into_iter()
            .map(|d| (d.id, format!("{}-{}", d.alert_id, d.revision)))
            .collect::<Vec<_>>()
    };
    assert!(due(99).await.is_empty());
    let first = due(100).await;
    assert_eq!(
        first.iter().map(|(_, key)| key.clone()).collect::<Vec<_>>(),
        [format!("{}-0", id(1)), format!("{}-0", id(2)),]
    );
    let again = AttemptOutcome::Again { at: 500, error: "busy".into() };
    let outcomes = [(first[0].0, again), (first[1].0, AttemptOutcome::Delivered)];
    catalog.record_attempts("r", owner, &outcomes, 110).await.unwrap();
    // The later revision waits for the earlier one.
    assert!(due(499).await.is_empty());
    assert_eq!(due(500).await, [first[0].clone()]);
    let error = "ä".repeat(1000);
    let dead = [(first[0].0, AttemptOutcome::Dead { error })];
    catalog.record_attempts("r", owner, &dead, 510).await.unwrap();
    assert_eq!(due(510).await[0].1, format!("{}-1", id(1)));
    // A late answer to what is settled changes nothing.
    let late = [(first[0].0, AttemptOutcome::Delivered)];
    catalog.record_attempts("r", owner, &late, 511).await.unwrap();

    let default = tenant("default");
    let filter = |state| DeliveryFilter { state, ..DeliveryFilter::default() };
    let all = catalog.deliveries(&default, &filter(None), None, 10).await.unwrap();
    assert_eq!(all.len(), 4);
    let page = catalog.deliveries(&default, &filter(None), Some(all[1].id), 1).await.unwrap();
    assert_eq!(page, [all[2].clone()]);
    assert!(catalog.deliveries(&tenant("acme"), &filter(None), None, 10).await.unwrap().is_empty());
    let dead = catalog.deliveries(&default, &filter(Some(DeliveryState::Dead)), None, 10).await;
    let dead = dead.unwrap();
    assert_eq!((dead.len(), dead[0].attempts, dead[0].error.len()), (1, 2, 1024));
    let told = catalog.told("r", &[("default".into(), id(1)), ("default".into(), id(9))]).await;
    assert_eq!(told.unwrap(), BTreeSet::from([("default".into(), id(1))]));

    // Tried again it is as new.
    assert!(catalog.retry_delivery(&tenant("acme"), dead[0].id, 600).await.is_err());
    catalog.retry_delivery(&default, dead[0].id, 600).await.unwrap();
    assert!(catalog.retry_delivery(&default, dead[0].id, 600).await.is_err());
    assert_eq!(due(600).await[0].1, format!("{}-0", id(1)));
    // Only what is settled is forgotten.
    assert_eq!(catalog.prune_deliveries(10_000, 100).await.unwrap(), 1);
    assert_eq!(catalog.pending_deliveries("r").await.unwrap(), 2);
}

/// The child: pulls and delivers until it is killed. Row n makes a notification unless n divides by 3.
#[tokio::test]
#[ignore = "runs as the child of the test below"]
async fn delivers_without_end() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let catalog = open(std::path::Path::new(&directory)).await;
    let claimed = catalog.claim_receiver("r", &at(0)).await.unwrap();
    let mut position = claimed.cursor.position;
    for now in 1_000_000.. {
        let rows = position + 1..position + 2 + now % 5;
        position = rows.end - 1;
        let deliveries = rows.filter(|n| n % 3 > 0).map(|n| delivery(n, 0)).collect();
        let mut next = pull(position, deliveries);
        next.memory = vec![("last".into(), Some(position.to_string()))];
        catalog.record_pull("r", claimed.epoch, &next, now as i64).await.unwrap();
        let due = catalog.due_deliveries("r", now as i64, 5).await.unwrap();
        let outcomes: Vec<_> = due.iter().map(|d| (d.id, AttemptOutcome::Delivered)).collect();
        catalog.record_attempts("r", claimed.epoch, &outcomes, now as i64).await.unwrap();
        let mut out = std::io::stdout().lock();
        writeln!(out, "\nacknowledged {position}").unwrap();
        for one in due {
            writeln!(out, "delivered {}", one.alert_id).unwrap();
        }
        out.flush().unwrap();
    }
}

/// Every notification that rows up to the cursor make, once, and what is remembered with it.
async fn check(catalog: &Catalog, acknowledged: u64, delivered: &BTreeSet<String>) -> u64 {
    catalog.verify().await.unwrap();
    let claimed = catalog.claim_receiver("r", &at(0)).await.unwrap();
    let position = claimed.cursor.position;
    assert!(position >= acknowledged, "{position} {acknowledged}");
    if position > 0 {
        assert_eq!(claimed.memory["last"], position.to_string());
    }
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let filter = DeliveryFilter::default();
        let page = catalog.deliveries(&tenant("default"), &filter, cursor, 1000).await.unwrap();
        let Some(last) = page.last() else { break };
        cursor = Some(last.id);
        found.extend(page);
    }
    let ids: Vec<String> = found.iter().rev().map(|one| one.alert_id.clone()).collect();
    let expected: Vec<String> = (1..=position).filter(|n| n % 3 > 0).map(id).collect();
    assert_eq!(ids, expected);
    for one in found {
        if delivered.contains(&one.alert_id) {
            assert_eq!(one.state, DeliveryState::Delivered, "{}", one.alert_id);
        }
    }
    position
}

#[tokio::test]
async fn cursor_and_notifications_are_one_after_sigkill() {
    let directory = tempfile::tempdir().unwrap();
    let (mut acknowledged, mut delivered) = (0, BTreeSet::new());
    for round in 0..10u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["delivers_without_end", "--exact", "--ignored", "--nocapture"])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut note = |line: String| {
            if let Some(position) = line.strip_prefix("acknowledged ") {
                acknowledged = position.parse().unwrap();
            } else if let Some(id) = line.strip_prefix("delivered ") {
                delivered.insert(id.to_owned());
            }
        };
        for _ in 0..(round * 37 % 200) {
            note(lines.next().expect("the child lives").unwrap());
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // The last line may be cut short.
        let rest: Vec<String> = lines.map_while(Result::ok).collect();
        let whole = rest.len().saturating_sub(1);
        rest.into_iter().take(whole).for_each(&mut note);
        let catalog = open(directory.path()).await;
        acknowledged = check(&catalog, acknowledged, &delivered).await;
    }
    assert!(acknowledged > 100, "the children worked: {acknowledged}");
    println!("{acknowledged} rows, {} noted as delivered", delivered.len());
}
