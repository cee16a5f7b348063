//! Deliverers read every alert once and in order, wherever rows stand: in memory, in segments, of several tenants,
//! sealed while they are read.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may panic")]

use arrow::array::{
    ArrayRef, Int32Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array,
};
use palisade_alert::client::AlertSource;
use palisade_api::alerts::TableAlerts;
use palisade_catalog::{AlertCursor, Catalog, OpenOptions, TenantSettings};
use palisade_event::{Offset, TenantId};
use palisade_query::{Options, QueryEngine, Snapshots};
use palisade_table::{Snapshot, TableOptions, Tables};
use std::sync::Arc;

struct All(Arc<Tables>);

impl Snapshots for All {
    fn snapshot(&self, table: &str) -> Option<Snapshot> {
        self.0.names().iter().any(|name| name == table).then(|| self.0.snapshot(table))
    }

    fn tables(&self) -> Vec<String> {
        self.0.names()
    }
}

/// The alerts of an entry: (tenant, row, id, revision).
fn batch(offset: u64, rows: &[(&str, u64, String, i32)]) -> RecordBatch {
    let text = |of: &dyn Fn(usize) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values((0..rows.len()).map(of)))
    };
    let times = || -> ArrayRef {
        let times = TimestampMicrosecondArray::from(vec![offset as i64; rows.len()]);
        Arc::new(times.with_timezone("UTC"))
    };
    let positions = rows.iter().map(|(_, row, _, _)| offset << 20 | row);
    RecordBatch::try_from_iter(vec![
        ("tenant", text(&|n| rows[n].0.to_owned())),
        ("time", times()),
        ("ingest_time", times()),
        ("position", Arc::new(UInt64Array::from_iter_values(positions)) as ArrayRef),
        ("alert_id", text(&|n| rows[n].2.clone())),
        ("revision", Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row.3)))),
        ("detector", text(&|_| "test".into())),
        ("rule_id", text(&|_| "rule".into())),
        ("rule_version", text(&|_| "1".into())),
        ("title", text(&|_| "title".into())),
        ("severity", text(&|_| "high".into())),
        ("first_time", times()),
        ("last_time", times()),
    ])
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_is_read_once_and_in_order_wherever_it_stands() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalog.db");
    let catalog = Catalog::open(&path, OpenOptions::default()).await.unwrap();
    let acme = TenantId::new("acme").unwrap();
    catalog.create_tenant(&acme, TenantSettings::default(), 0).await.unwrap();
    let epoch = catalog.claim_partition(0).await.unwrap();
    let commits = Arc::new(catalog.blocking(tokio::runtime::Handle::current()));
    let open = || Tables::open(dir.path(), commits.clone(), TableOptions::default()).unwrap();
    let tables = Arc::new(tokio::task::block_in_place(open).0);
    let query = QueryEngine::new(Options::default(), Arc::new(All(Arc::clone(&tables)))).unwrap();
    let source = TableAlerts::new(Arc::clone(&tables), Arc::new(query), catalog.clone());
    assert_eq!(source.end().await.unwrap(), AlertCursor::default());

    let (mut written, mut seed) = (Vec::new(), 11u64);
    // From the beginning, from time to time, and now and then a second reader that begins anew.
    let (mut place, mut seen) = (AlertCursor::default(), Vec::new());
    for offset in 0..120u64 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let count = (seed >> 40) % 4;
        let mut rows: Vec<(&str, u64, String, i32)> = (0..count)
            .map(|n| {
                let tenant = if (seed >> (45 + n)) % 2 == 0 { "acme" } else { "default" };
                // Two alerts of one row, with ids in another order than they were raised in.
                let id = u128::from(seed).wrapping_mul(u128::from(n + 1)) << 32;
                (tenant, n / 2, format!("{id:032x}"), (n % 2) as i32)
            })
            .collect();
        if count > 0 {
            tables.append("alerts", Offset(offset), batch(offset, &rows)).unwrap();
        }
        rows.sort_by(|a, b| (a.1, &a.2, a.3).cmp(&(b.1, &b.2, b.3)));
        written.extend(rows.into_iter().map(|(_, row, id, _)| (offset << 20 | row, id)));
        tables.advance(Offset(offset + 1));
        if seed >> 61 == 0 {
            let seal = || tables.seal(Offset(offset + 1), epoch).unwrap();
            tokio::task::block_in_place(seal);
        }
        for _ in 0..(seed >> 50) % 3 {
            let rows = source.after(&place, 1 + (seed >> 55) as usize % 5).await.unwrap();
            assert!(rows.end >= place, "{:?} {place:?}", rows.end);
            seen.extend(rows.alerts.into_iter().map(|alert| (alert.position, alert.id)));
            place = rows.end;
        }
        if offset % 40 == 39 {
            let all = read_all(&source, AlertCursor::default(), 7).await;
            assert_eq!(all, written, "from the beginning");
        }
    }
    seen.extend(read_all(&source, place, 3).await);
    assert_eq!(seen, written);
    // Nobody new is told of the past, and nothing behind the end is passed over.
    let end = source.end().await.unwrap();
    assert!(read_all(&source, end.clone(), 10).await.is_empty());
    let next = ("default", 0, "f".repeat(32), 0);
    tables.append("alerts", Offset(120), batch(120, std::slice::from_ref(&next))).unwrap();
    assert!(read_all(&source, end.clone(), 10).await.is_empty(), "it is not visible yet");
    tables.advance(Offset(121));
    tokio::task::block_in_place(|| tables.seal(Offset(121), epoch).unwrap());
    assert_eq!(read_all(&source, end, 10).await, [(120 << 20, next.2)]);
}

async fn read_all(source: &TableAlerts, mut place: AlertCursor, step: usize) -> Vec<(u64, String)> {
    let mut seen = Vec::new();
    loop {
        let rows = source.after(&place, step).await.unwrap();
        let more = rows.alerts.len() == step;
        seen.extend(rows.alerts.into_iter().map(|alert| (alert.position, alert.id)));
        place = rows.end;
        if !more {
            return seen;
        }
    }
}
