//! Identity, tenants, keys, audit trail, dead letters' states and activations.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may panic")]

mod support;

use palisade_catalog::{
    AuditFilter, AuditRecord, AuthError, Catalog, CatalogError, DeadLetterAction, OpenOptions,
    ScopeSet, TenantSettings,
};
use palisade_event::{ErrorClass, TenantId};
use serde_json::json;
use std::collections::BTreeSet;
use support::open;

const INGEST: ScopeSet = ScopeSet { ingest: true, query: false, admin: false };

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

#[tokio::test]
async fn the_identity_is_made_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("catalog.db");
    let with = |partitions| OpenOptions { partitions, ..OpenOptions::default() };
    let missing = OpenOptions { create: false, ..OpenOptions::default() };
    assert!(Catalog::open(&path, missing).await.is_err());
    for bad in [0, 4097] {
        assert!(Catalog::open(&path, with(Some(bad))).await.is_err());
    }
    let catalog = Catalog::open(&path, with(Some(6))).await.unwrap();
    let id = catalog.log_id();
    assert_eq!(id.to_string().len(), 32);
    assert_eq!(catalog.partitions(), 6);
    assert_eq!(catalog.next_gateway_epoch(1, 2).await.unwrap(), 1);
    assert_eq!(catalog.next_gateway_epoch(1, 2).await.unwrap(), 2);
    assert_eq!(catalog.next_gateway_epoch(2, 1).await.unwrap(), 1);
    assert!(catalog.claim_partition(5).await.is_ok());
    assert!(catalog.claim_partition(6).await.is_err());
    catalog.close().await.unwrap();

    let catalog = Catalog::open(&path, with(None)).await.unwrap();
    assert_eq!((catalog.log_id(), catalog.partitions()), (id, 6));
    assert_eq!(catalog.next_gateway_epoch(1, 2).await.unwrap(), 3);
    let refused = Catalog::open(&path, with(Some(8))).await.unwrap_err();
    assert_eq!(refused, CatalogError::Partitions { found: 6, expected: 8 });
    assert_eq!(refused.class(), ErrorClass::Critical);

    let other = tempfile::tempdir().unwrap();
    assert_ne!(open(other.path()).await.log_id(), id);
}

#[cfg(unix)]
#[tokio::test]
async fn the_files_are_their_owners_only() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    catalog.claim_partition(0).await.unwrap();
    for file in ["catalog.db", "catalog.db-wal", "catalog.db-shm"] {
        let mode = std::fs::metadata(directory.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[tokio::test]
async fn files_that_are_no_catalog_are_refused_untouched() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("catalog.db");
    std::fs::write(&path, b"not a database, but long enough to look at".repeat(100)).unwrap();
    let before = std::fs::read(&path).unwrap();
    let refused = Catalog::open(&path, OpenOptions::default()).await.unwrap_err();
    assert_eq!(refused.class(), ErrorClass::Critical, "{refused}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn tenants_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let names = |tenants: Vec<palisade_catalog::Tenant>| {
        tenants.into_iter().map(|t| t.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(catalog.tenants().await.unwrap()), ["default", "public"]);
    let mut settings = TenantSettings { spread: 16, ..TenantSettings::default() };
    settings.retention_days.insert("events".into(), 30);
    settings.daily_limits.insert("bytes".into(), json!(1_000_000_000_u64));
    let made = catalog.create_tenant(&tenant("acme"), settings.clone(), 5).await.unwrap();
    assert_eq!(catalog.tenant(&tenant("acme")).await.unwrap(), made);
    assert_eq!((&made.settings, made.created_at), (&settings, 5));
    assert_eq!(names(catalog.tenants().await.unwrap()), ["acme", "default", "public"]);

    let taken = catalog.create_tenant(&tenant("acme"), settings.clone(), 6).await.unwrap_err();
    assert!(matches!(taken, CatalogError::Exists { .. }));
    assert_eq!(taken.class(), ErrorClass::Permanent);
    for spread in [0, 4097] {
        let bad = TenantSettings { spread, ..TenantSettings::default() };
        assert!(catalog.create_tenant(&tenant("b"), bad, 5).await.is_err());
    }
    settings.max_dynamic_columns = 7;
    catalog.update_tenant(&tenant("acme"), settings.clone()).await.unwrap();
    assert_eq!(catalog.tenant(&tenant("acme")).await.unwrap().settings, settings);
    settings.spread = 17;
    let refused = catalog.update_tenant(&tenant("acme"), settings.clone()).await.unwrap_err();
    assert!(matches!(refused, CatalogError::Invalid { what: "spread", .. }));
    assert!(matches!(
        catalog.update_tenant(&tenant("nobody"), settings).await,
        Err(CatalogError::Unknown { .. })
    ));
    assert!(catalog.tenant(&tenant("nobody")).await.is_err());
}

#[tokio::test]
async fn a_key_opens_its_tenant_until_it_is_revoked() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    assert!(!catalog.any_key_exists().await.unwrap());
    catalog.create_tenant(&tenant("acme"), TenantSettings::default(), 0).await.unwrap();
    let key = catalog.create_key(&tenant("acme"), "beats", INGEST, None, 10).await.unwrap();
    assert!(catalog.any_key_exists().await.unwrap());
    assert_eq!(key.text, format!("plsd_{}_{}", key.id, key.secret()));
    assert_eq!((key.id.len(), key.secret().len()), (12, 43));
    assert!(!format!("{key:?}").contains(key.secret()));
    for file in ["catalog.db", "catalog.db-wal"] {
        let bytes = std::fs::read(directory.path().join(file)).unwrap();
        let secret = key.secret().as_bytes();
        assert!(!bytes.windows(secret.len()).any(|w| w == secret), "the secret is in {file}");
    }

    for _ in 0..2 {
        // The second time out of the cache.
        let principal = catalog.authenticate(&key.text, 11).await.unwrap();
        assert_eq!(&*principal.key_id, key.id);
        assert_eq!(principal.tenant, tenant("acme"));
        assert_eq!(principal.scopes, INGEST);
        assert_eq!(catalog.authenticate_pair(&key.id, key.secret(), 11).await.unwrap(), principal);
        assert_eq!(catalog.authenticate_pair(&key.id, &key.text, 11).await.unwrap(), principal);
    }
    let other = catalog.create_key(&tenant("default"), "cli", INGEST, None, 10).await.unwrap();
    let crossed = format!("plsd_{}_{}", key.id, other.secret());
    let mut cut = key.text.clone();
    cut.pop();
    for bad in [&crossed, &cut, &"plsd_nobody_x".to_owned()] {
        assert_eq!(catalog.authenticate(bad, 11).await.unwrap_err(), AuthError::Unknown, "{bad}");
    }
    for bad in ["", "Bearer x", "plsd_", &"x".repeat(100_000)] {
        assert_eq!(catalog.authenticate(bad, 11).await.unwrap_err(), AuthError::Malformed);
    }
    let refused = catalog.authenticate_pair(&other.id, &key.text, 11).await.unwrap_err();
    assert_eq!(refused, AuthError::Malformed, "another id than the key's own");

    let not_mine = catalog.revoke_key(Some(&tenant("default")), &key.id, 12).await.unwrap_err();
    assert!(matches!(not_mine, CatalogError::Unknown { .. }));
    assert!(catalog.authenticate(&key.text, 12).await.is_ok());
    catalog.revoke_key(Some(&tenant("acme")), &key.id, 13).await.unwrap();
    catalog.revoke_key(None, &key.id, 14).await.unwrap();
    let refused = catalog.authenticate(&key.text, 13).await.unwrap_err();
    assert_eq!(refused, AuthError::Revoked(key.id.clone()), "the cache forgot it");
    assert_eq!(catalog.authenticate(&crossed, 13).await.unwrap_err(), AuthError::Unknown);
    assert!(catalog.authenticate(&other.text, 13).await.is_ok());

    let keys = catalog.list_keys(None).await.unwrap();
    assert_eq!(
        keys.iter().map(|k| (k.name.as_str(), k.revoked_at)).collect::<Vec<_>>(),
        [("beats", Some(13)), ("cli", None)]
    );
    assert_eq!(catalog.list_keys(Some(&tenant("default"))).await.unwrap().len(), 1);
    catalog.revoke_key(None, &other.id, 14).await.unwrap();
    drop(catalog);
    let catalog = open(directory.path()).await;
    assert!(catalog.any_key_exists().await.unwrap(), "revoking the last key opens nothing");
}

#[tokio::test]
async fn keys_expire_out_of_the_cache_too() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let key = catalog.create_key(&tenant("default"), "k", INGEST, Some(100), 10).await.unwrap();
    assert!(catalog.authenticate(&key.text, 99).await.is_ok());
    assert_eq!(
        catalog.authenticate(&key.text, 100).await.unwrap_err(),
        AuthError::Expired(key.id.clone())
    );
    for (tenant_name, name, scopes, expires) in [
        ("default", "", INGEST, None),
        ("default", "k", ScopeSet::default(), None),
        ("default", "k", INGEST, Some(10)),
        ("public", "k", INGEST, None),
        ("nobody", "k", INGEST, None),
    ] {
        let refused =
            catalog.create_key(&tenant(tenant_name), name, scopes, expires, 10).await.unwrap_err();
        assert_eq!(refused.class(), ErrorClass::Permanent, "{refused}");
    }
    let all = ScopeSet { ingest: true, query: true, admin: true };
    let key = catalog.create_key(&tenant("default"), "all", all, None, 10).await.unwrap();
    let principal = catalog.authenticate(&key.text, 10).await.unwrap();
    assert_eq!(principal.scopes.to_string(), "ingest,query,admin");
}

/// A key that this process has never seen is looked up, while invented ones can't keep the catalog busy nor
/// shut out a key that was good before.
#[tokio::test]
async fn a_key_made_by_another_process_counts_at_once_and_invented_ones_are_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let other = open(directory.path()).await;
    let key = other.create_key(&tenant("default"), "k", INGEST, None, 10).await.unwrap();
    assert!(catalog.authenticate(&key.text, 11).await.is_ok());
    let mut refusals = std::collections::BTreeSet::new();
    let begun = tokio::time::Instant::now();
    for n in 0..2 * palisade_catalog::keys::UNKNOWN_LOOKUPS {
        let invented = format!("plsd_invented_{n}");
        refusals.insert(catalog.authenticate(&invented, 11).await.unwrap_err().to_string());
    }
    assert!(refusals.contains(&AuthError::Unknown.to_string()), "{refusals:?}");
    if begun.elapsed() < std::time::Duration::from_millis(900) {
        assert!(refusals.contains(&AuthError::Busy.to_string()), "{refusals:?}");
    }
    assert!(catalog.authenticate(&key.text, 12).await.is_ok(), "in the cache");
    tokio::time::sleep(palisade_catalog::keys::CACHE_LIFE).await;
    let flood = async {
        for n in 0..5_000 {
            let _ = catalog.authenticate(&format!("plsd_flood_{n}"), 12).await;
        }
    };
    let good = async {
        for _ in 0..50 {
            assert!(catalog.authenticate(&key.text, 12).await.is_ok(), "a flood shut it out");
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(flood, good);
}

#[tokio::test]
async fn a_key_revoked_by_another_process_is_refused_soon() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let key = catalog.create_key(&tenant("default"), "k", INGEST, None, 10).await.unwrap();
    catalog.authenticate(&key.text, 11).await.unwrap();
    open(directory.path()).await.revoke_key(None, &key.id, 12).await.unwrap();
    let until = tokio::time::Instant::now() + 2 * palisade_catalog::keys::CACHE_LIFE;
    while catalog.authenticate(&key.text, 13).await.is_ok() {
        assert!(tokio::time::Instant::now() < until, "still open");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// However authentications and the revocation are interleaved: once it has returned, the key is
/// refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_wins_every_race() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    for _ in 0..30 {
        let key = catalog.create_key(&tenant("default"), "k", INGEST, None, 10).await.unwrap();
        let asking: Vec<_> = (0..4)
            .map(|_| {
                let (catalog, text) = (catalog.clone(), key.text.clone());
                tokio::spawn(async move {
                    for _ in 0..20 {
                        let _ = catalog.authenticate(&text, 11).await;
                    }
                })
            })
            .collect();
        catalog.revoke_key(None, &key.id, 11).await.unwrap();
        assert!(catalog.authenticate(&key.text, 12).await.is_err());
        for task in asking {
            task.await.unwrap();
        }
        assert!(catalog.authenticate(&key.text, 12).await.is_err());
    }
}

fn audit(n: i64, name: &str) -> AuditRecord {
    AuditRecord {
        time: n,
        tenant: tenant(name),
        actor: format!("key{}", n % 2),
        action: "key:create".into(),
        subject: format!("s{n}"),
        detail: json!({ "n": n }),
        request_id: "r-1".into(),
    }
}

#[tokio::test]
async fn the_audit_trail_is_read_in_pages_and_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    for n in 0..10 {
        catalog.audit(audit(n, if n < 7 { "acme" } else { "default" })).await.unwrap();
    }
    let acme = AuditFilter { tenant: Some(tenant("acme")), ..AuditFilter::default() };
    let (mut cursor, mut seen) = (None, vec![]);
    loop {
        let page = catalog.audits(&acme, cursor, 3).await.unwrap();
        assert!(page.records.len() <= 3);
        seen.extend(page.records);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, (0..7).rev().map(|n| audit(n, "acme")).collect::<Vec<_>>());
    let times = |filter: AuditFilter| {
        let catalog = catalog.clone();
        async move {
            let page = catalog.audits(&filter, None, 100).await.unwrap();
            page.records.iter().map(|r| r.time).collect::<Vec<_>>()
        }
    };
    let range = AuditFilter { from: Some(3), to: Some(6), ..AuditFilter::default() };
    assert_eq!(times(range).await, [5, 4, 3]);
    let odd = AuditFilter { actor: Some("key1".into()), from: Some(5), ..AuditFilter::default() };
    assert_eq!(times(odd).await, [9, 7, 5]);
    let none = AuditFilter { action: Some("x' OR 1=1 --".into()), ..AuditFilter::default() };
    assert_eq!(times(none).await, [0_i64; 0]);

    assert_eq!(catalog.prune_audits(2, 5).await.unwrap(), 5);
    assert_eq!(times(AuditFilter::default()).await, [9, 8, 7, 6, 5]);
    assert_eq!(catalog.prune_audits(0, 5).await.unwrap(), 0);

    let long = AuditRecord { subject: "x".repeat(1025), ..audit(1, "acme") };
    assert!(catalog.audit(long).await.is_err());
    let big = AuditRecord { detail: json!("x".repeat(70_000)), ..audit(1, "acme") };
    assert!(catalog.audit(big).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audit_records_that_were_acknowledged_are_there_once() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let tasks: Vec<_> = (0..200)
        .map(|n| {
            let catalog = catalog.clone();
            tokio::spawn(async move {
                // Some callers go away while they wait.
                if n % 5 == 0 {
                    let wait = std::time::Duration::from_micros(n as u64);
                    let _ = tokio::time::timeout(wait, catalog.audit(audit(n, "default"))).await;
                    None
                } else {
                    catalog.audit(audit(n, "default")).await.unwrap();
                    Some(n)
                }
            })
        })
        .collect();
    let mut acknowledged = BTreeSet::new();
    for task in tasks {
        acknowledged.extend(task.await.unwrap());
    }
    // Another process sees them.
    let page = open(directory.path()).await.audits(&AuditFilter::default(), None, 1000).await;
    let times: Vec<i64> = page.unwrap().records.iter().map(|r| r.time).collect();
    let found: BTreeSet<i64> = times.iter().copied().collect();
    assert_eq!(found.len(), times.len(), "none twice");
    assert!(acknowledged.is_subset(&found));
}

#[tokio::test]
async fn dead_letters_have_a_state_once_touched() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let (acme, ids) = (tenant("acme"), ["0", "1", "a"].map(|digit| digit.repeat(32)));
    assert!(catalog.dead_letter_state(&acme, &ids).await.unwrap().is_empty());
    let retried = DeadLetterAction::Retried;
    catalog.touch_dead_letters(&acme, &ids[..2], retried, "key1", 5).await.unwrap();
    catalog.touch_dead_letters(&acme, &ids[..1], retried, "key1", 6).await.unwrap();
    catalog
        .touch_dead_letters(&acme, &ids[1..2], DeadLetterAction::Dropped, "key2", 7)
        .await
        .unwrap();
    let states = catalog.dead_letter_state(&acme, &ids).await.unwrap();
    let found: Vec<_> =
        states.values().map(|s| (s.action, s.retries, s.actor.as_str(), s.time)).collect();
    assert_eq!(found, [(retried, 2, "key1", 6), (DeadLetterAction::Dropped, 1, "key2", 7)]);
    let foreign = catalog.dead_letter_state(&tenant("default"), &ids).await.unwrap();
    assert!(foreign.is_empty(), "of its own tenant only");
    let bad = ["x".to_owned()];
    assert!(catalog.touch_dead_letters(&acme, &bad, retried, "k", 5).await.is_err());
    assert!(catalog.dead_letter_state(&acme, &bad).await.is_err());
    assert_eq!(catalog.prune_dead_letter_states(7).await.unwrap(), 1);
    assert_eq!(catalog.dead_letter_state(&acme, &ids).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_rollback_is_a_new_generation() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let first = catalog.activate("rule", "r1", "aa", b"one").await.unwrap();
    assert_eq!(catalog.activate("rule", "r1", "aa", b"one").await.unwrap(), first, "in force");
    let second = catalog.activate("rule", "r1", "bb", b"two").await.unwrap();
    let back = catalog.activate("rule", "r1", "aa", b"one").await.unwrap();
    let list = catalog.activate("list", "r1", "aa", b"one").await.unwrap();
    assert!(first < second && second < back && back < list);
    let refused = catalog.activate("rule", "r2", "aa", b"other").await.unwrap_err();
    assert!(matches!(refused, CatalogError::Invalid { what: "content hash", .. }));

    let active = catalog.active("rule").await.unwrap();
    assert_eq!(active.len(), 1);
    assert_eq!((active[0].generation, active[0].content.as_deref()), (back, Some(&b"one"[..])));

    let open_ones: Vec<u64> =
        catalog.unsettled_activations().await.unwrap().iter().map(|a| a.generation).collect();
    assert_eq!(open_ones, [back, list], "what was overtaken is not repeated");
    catalog.settle_activation(back).await.unwrap();
    assert_eq!(catalog.unsettled_activations().await.unwrap().len(), 1);
    assert!(catalog.settle_activation(99).await.is_err());

    let gone = catalog.deactivate("rule", "r1").await.unwrap();
    assert!(gone > list);
    assert_eq!(catalog.deactivate("rule", "r1").await.unwrap(), gone);
    assert!(catalog.deactivate("rule", "r9").await.is_err());
    drop(catalog);
    let catalog = open(directory.path()).await;
    assert!(catalog.active("rule").await.unwrap().is_empty());
    let unsettled = catalog.unsettled_activations().await.unwrap();
    assert_eq!((unsettled[1].generation, unsettled[1].content_hash.as_deref()), (gone, None));
}
