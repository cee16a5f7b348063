//! Databases of every released schema version are read by this release: `golden/version-<n>.sql` is
//! the dump of a catalog as the release that brought version n wrote it. A dump is never changed.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may panic")]

mod support;

use palisade_catalog::{
    AlertChange, AlertCursor, AlertStatus, AttemptOutcome, AuditFilter, AuditRecord, AuthError,
    Catalog, CatalogError, Checkpoint, Commit, DeadLetterAction, DeliveryFilter, DeliveryState,
    HuntState, NewDelivery, OpenOptions, Pull, SCHEMA_VERSION, ScopeSet, Silence, TenantSettings,
};
use palisade_event::{Offset, TenantId};
use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};
use std::path::Path;
use support::segment;

const VERSION_1: &str = include_str!("golden/version-1.sql");
const VERSION_2: &str = include_str!("golden/version-2.sql");
const VERSION_3: &str = include_str!("golden/version-3.sql");
/// The keys in the first dump; they open nothing else.
const KEY: &str = "plsd_33hee70t12mo_sEEH7gVSR2LX90kKpxhgO0rxToK9UG7bUjU4jc9eQlQ";
const REVOKED: &str = "plsd_im55v5hlt5oc_zbks4jLZqG0zbz8klvQ3uGjtu8wZvfJirMHPJjEcCMM";

async fn load(path: &Path, dump: &'static str) {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let mut connection = options.connect().await.unwrap();
    sqlx::raw_sql(dump).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn a_catalog_of_version_1_is_migrated_and_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("catalog.db");
    load(&path, VERSION_1).await;
    let catalog = Catalog::open(&path, OpenOptions::default()).await.unwrap();
    catalog.verify().await.unwrap();

    assert_eq!(catalog.partitions(), 8);
    assert_eq!(catalog.log_id().to_string(), "5a33ae9b4179d14524fed274f01cd4cc");
    let manifest = catalog.manifest().await.unwrap();
    assert_eq!((manifest.version, manifest.position), (4, Offset(30)));
    assert_eq!(manifest.segments, [segment(3, 20, 30, 0), segment(4, 0, 20, 1)]);
    let retired = catalog.retired().await.unwrap();
    assert_eq!(retired.iter().map(|r| (r.id, r.version)).collect::<Vec<_>>(), [(1, 4), (2, 4)]);
    assert_eq!(catalog.epoch(0).await.unwrap(), 1);
    assert!(catalog.orphans().await.unwrap().is_empty());
    let checkpoints = catalog.checkpoints(0).await.unwrap();
    assert_eq!(checkpoints, [checkpoint(20), checkpoint(10)]);

    let acme = TenantId::new("acme").unwrap();
    let tenant = catalog.tenant(&acme).await.unwrap();
    assert_eq!((tenant.settings, tenant.created_at), (settings(), 1_000));
    assert_eq!(catalog.tenants().await.unwrap().len(), 3);
    let principal = catalog.authenticate(KEY, 3_000).await.unwrap();
    assert_eq!((principal.tenant, principal.scopes), (acme.clone(), scopes()));
    assert!(matches!(catalog.authenticate(REVOKED, 3_000).await, Err(AuthError::Revoked(_))));
    let audits = catalog.audits(&AuditFilter::default(), None, 10).await.unwrap();
    assert_eq!(audits.records, [audit()]);
    let letters = catalog.dead_letter_state(&acme, &[letter()]).await.unwrap();
    assert_eq!(
        letters.get(&letter()).map(|l| (l.action, l.retries, l.time)),
        Some((DeadLetterAction::Retried, 1, 2_000))
    );
    let active = catalog.active("reputation_list").await.unwrap();
    assert_eq!(active[0].content.as_deref(), Some(&b"192.0.2.0/24\n"[..]));
    assert_eq!(active[0].generation, 2);
    assert_eq!(catalog.unsettled_activations().await.unwrap().len(), 1);

    // It goes on from there.
    assert_eq!(catalog.next_gateway_epoch(1, 1).await.unwrap(), 3);
    let epoch = catalog.claim_partition(0).await.unwrap();
    assert_eq!(epoch, 2);
    assert_eq!(catalog.orphans().await.unwrap().iter().map(|o| o.id).collect::<Vec<_>>(), [5]);
    let id = catalog.pending_segments(1, "events", epoch).await.unwrap()[0];
    assert_eq!(id, 6);
    let segments = vec![segment(id, 30, 31, 0)];
    let commit = Commit { partition: 0, from: Offset(30), to: Offset(31), epoch, segments };
    assert_eq!(catalog.commit(commit).await.unwrap(), 5);
}

#[tokio::test]
async fn a_catalog_of_version_2_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("catalog.db");
    load(&path, VERSION_2).await;
    let catalog = Catalog::open(&path, OpenOptions::default()).await.unwrap();
    catalog.verify().await.unwrap();
    let acme = TenantId::new("acme").unwrap();
    assert_eq!(catalog.tenant(&acme).await.unwrap().settings, settings());

    let states = catalog.alert_states(&acme, &[letter()]).await.unwrap();
    let state = &states[&letter()];
    assert_eq!((state.status, state.actor.as_str()), (AlertStatus::Closed, "local"));
    assert_eq!((state.reason.as_deref(), state.assignee.as_deref()), (Some("benign"), Some("ada")));
    let notes = catalog.alert_notes(&acme, &letter()).await.unwrap();
    assert_eq!((notes[0].text.as_str(), notes[0].time), ("looked at it", 2_100));
    let silences = catalog.silences(None, 0).await.unwrap();
    assert_eq!(silences, [Silence { id: silences[0].id.clone(), muted: 2, ..silence() }]);
    let all = catalog.deliveries(&acme, &DeliveryFilter::default(), None, 10).await.unwrap();
    let all: Vec<_> = all.iter().map(|one| (one.revision, one.state, one.attempts)).collect();
    assert_eq!(
        all,
        [
            (2, DeliveryState::Pending, 0),
            (1, DeliveryState::Dead, 1),
            (0, DeliveryState::Delivered, 1)
        ]
    );
    // It goes on from there.
    let claimed = catalog.claim_receiver("soc", &AlertCursor::default()).await.unwrap();
    assert_eq!(claimed.cursor, AlertCursor { position: 7, alert_id: letter(), revision: 2 });
    assert_eq!(claimed.memory["d/1"], "{}");
    assert_eq!(catalog.due_deliveries("soc", 3_000, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_catalog_of_version_3_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("catalog.db");
    load(&path, VERSION_3).await;
    let catalog = Catalog::open(&path, OpenOptions::default()).await.unwrap();
    catalog.verify().await.unwrap();
    let acme = TenantId::new("acme").unwrap();
    let mut hunts = catalog.hunts(Some(&acme)).await.unwrap();
    hunts.sort_by_key(|hunt| hunt.number);
    let states: Vec<HuntState> = hunts.iter().map(|hunt| hunt.state).collect();
    assert_eq!(states, [HuntState::Done, HuntState::Running, HuntState::Queued]);
    assert_eq!((hunts[0].ended_at, hunts[0].report.as_str()), (Some(3_200), r#"{"rows":12}"#));
    // It goes on from there.
    assert_eq!(catalog.interrupt_hunts(4_000).await.unwrap(), 1);
    let next = catalog.begin_hunt(4_100).await.unwrap().unwrap();
    assert_eq!((next.id, next.state), (hunts[2].id.clone(), HuntState::Running));
    let made = catalog.create_hunt(&acme, "local", "{}", 4, 4_200).await.unwrap();
    assert_eq!(catalog.hunt(&acme, &made).await.unwrap().number, 4);
}

#[tokio::test]
async fn a_catalog_of_a_newer_release_is_refused_untouched() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("catalog.db");
    load(&path, VERSION_1).await;
    load(
        &path,
        "INSERT INTO schema_versions VALUES (998, '3.9.0'), (999, '4.0.0');
         PRAGMA user_version = 999;",
    )
    .await;
    let refused = Catalog::open(&path, OpenOptions::default()).await.unwrap_err();
    assert_eq!(
        refused,
        CatalogError::Newer { found: 999, known: SCHEMA_VERSION, release: "4.0.0".to_owned() }
    );
    assert!(refused.to_string().contains("run palisade 4.0.0 or newer"), "{refused}");
}

fn checkpoint(position: u64) -> Checkpoint {
    Checkpoint {
        partition: 0,
        position: Offset(position),
        path: format!("checkpoints/{position}"),
        bytes: 7,
        checksum: u64::MAX,
    }
}

fn settings() -> TenantSettings {
    let mut settings = TenantSettings { spread: 16, max_dynamic_columns: 50, ..Default::default() };
    settings.retention_days.insert("events".into(), 30);
    settings.daily_limits.insert("records".into(), 1_000_000.into());
    settings
}

fn scopes() -> ScopeSet {
    ScopeSet { ingest: true, query: true, admin: false }
}

fn audit() -> AuditRecord {
    AuditRecord {
        time: 1_500,
        tenant: TenantId::new("acme").unwrap(),
        actor: "local".into(),
        action: "key:create".into(),
        subject: "beats".into(),
        detail: serde_json::json!({ "scopes": "ingest,query" }),
        request_id: String::new(),
    }
}

fn silence() -> Silence {
    Silence {
        id: String::new(),
        tenant: TenantId::new("acme").unwrap(),
        matchers: vec!["user=alice".into()],
        starts_at: 2_000,
        ends_at: 9_000,
        creator: "local".into(),
        comment: "maintenance".into(),
        created_at: 2_000,
        muted: 0,
    }
}

async fn alerts_to_dump(catalog: &Catalog, acme: &TenantId) {
    let change = AlertChange {
        status: Some(AlertStatus::Closed),
        reason: Some("benign".into()),
        assignee: Some(Some("ada".into())),
    };
    catalog.change_alert(acme, &letter(), &change, "local", 2_050).await.unwrap();
    catalog.add_alert_note(acme, &letter(), "local", 2_100, "looked at it").await.unwrap();
    let silence = catalog.create_silence(silence()).await.unwrap();
    let owner = catalog.claim_receiver("soc", &AlertCursor::default()).await.unwrap();
    let delivery = |revision| NewDelivery {
        tenant: acme.clone(),
        alert_id: letter(),
        revision,
        content: "{}".into(),
    };
    let pull = Pull {
        cursor: AlertCursor { position: 7, alert_id: letter(), revision: 2 },
        deliveries: (0..3).map(delivery).collect(),
        memory: vec![("d/1".into(), Some("{}".into()))],
        muted: [(silence.id, 2)].into(),
    };
    catalog.record_pull("soc", owner.epoch, &pull, 2_200).await.unwrap();
    let dead = AttemptOutcome::Dead { error: "status 400".into() };
    let outcomes = [(1, AttemptOutcome::Delivered), (2, dead)];
    catalog.record_attempts("soc", owner.epoch, &outcomes, 2_300).await.unwrap();
}

async fn hunts_to_dump(catalog: &Catalog, acme: &TenantId) {
    let request = r#"{"rules":"in_force","from":null,"to":9000,"include_late":false}"#;
    let first = catalog.create_hunt(acme, "local", request, 4, 3_000).await.unwrap();
    catalog.begin_hunt(3_100).await.unwrap();
    let report = (r#"{"rows":12}"#, "");
    catalog.end_hunt(&first, HuntState::Done, report, 3_200).await.unwrap();
    catalog.create_hunt(acme, "local", request, 4, 3_300).await.unwrap();
    catalog.begin_hunt(3_400).await.unwrap();
    catalog.create_hunt(acme, "local", request, 4, 3_500).await.unwrap();
}

fn letter() -> String {
    "0123456789abcdef".repeat(2)
}

/// Writes the catalog that a new version's dump is made of, at `PALISADE_GOLDEN_CATALOG`, and
/// prints its keys.
#[tokio::test]
#[ignore = "makes the source of a new dump"]
#[allow(clippy::print_stdout, reason = "shows the keys")]
async fn write_a_catalog_to_dump() {
    let Some(path) = std::env::var_os("PALISADE_GOLDEN_CATALOG") else { return };
    let catalog = Catalog::open(Path::new(&path), OpenOptions::default()).await.unwrap();
    let acme = TenantId::new("acme").unwrap();
    let epoch = catalog.claim_partition(0).await.unwrap();
    let ids = catalog.pending_segments(5, "events", epoch).await.unwrap();
    for (n, id) in (0..3).zip(&ids) {
        let (from, to) = (n * 10, n * 10 + 10);
        let segments = vec![segment(*id, from, to, 0)];
        let commit = Commit { partition: 0, from: Offset(from), to: Offset(to), epoch, segments };
        catalog.commit(commit).await.unwrap();
    }
    catalog.replace(&ids[..2], vec![segment(ids[3], 0, 20, 1)], epoch).await.unwrap();
    for position in [5, 10, 20] {
        catalog.record_checkpoint(checkpoint(position), epoch).await.unwrap();
    }
    catalog.next_gateway_epoch(1, 1).await.unwrap();
    catalog.next_gateway_epoch(1, 1).await.unwrap();
    catalog.create_tenant(&acme, settings(), 1_000).await.unwrap();
    let key = catalog.create_key(&acme, "beats", scopes(), Some(9_000), 1_500).await.unwrap();
    let revoked = catalog.create_key(&acme, "old", scopes(), None, 1_200).await.unwrap();
    catalog.revoke_key(None, &revoked.id, 1_300).await.unwrap();
    catalog.audit(audit()).await.unwrap();
    let retried = DeadLetterAction::Retried;
    catalog.touch_dead_letters(&acme, &[letter()], retried, "local", 2_000).await.unwrap();
    let generation = catalog.activate("threshold", "anomaly", "aa", b"0.7").await.unwrap();
    catalog.settle_activation(generation).await.unwrap();
    let list = b"192.0.2.0/24\n";
    catalog.activate("reputation_list", "blocked", "bb", list).await.unwrap();
    alerts_to_dump(&catalog, &acme).await;
    hunts_to_dump(&catalog, &acme).await;
    catalog.close().await.unwrap();
    println!("{} {} {}", catalog.log_id(), key.text, revoked.text);
}
