//! When a frame is closed.

use super::*;
use crate::submit::Body;
use palisade_event::Offset;
use palisade_log::LogOptions;
use palisade_log::disk::RealDisk;
use palisade_pipeline::clock::SystemClock;
use palisade_pipeline::ledger::LedgerLimits;
use prometheus_client::registry::Registry;

/// A gateway over a log on disk, whose frames would stay open for a long time if nothing closed them.
fn gateway(dir: &std::path::Path, options: GatewayOptions) -> (Arc<Gateway>, Arc<Log>) {
    let log_options = LogOptions { log_id: 1, min_free_bytes: Some(0), ..LogOptions::default() };
    let (log, _) = Log::open(Arc::new(RealDisk), dir, log_options, None).unwrap();
    let log = Arc::new(log);
    let on = GatewayFoundations {
        log: Arc::clone(&log),
        ledger: Arc::new(Ledger::new(LedgerLimits::default())),
        live: Arc::default(),
        metrics: Metrics::register(&mut Registry::default()),
        clock: Arc::new(SystemClock::new()),
        identity: GatewayIdentity { region: 0, gateway: 0, epoch: 1 },
        lists: Arc::new(ArcSwap::from_pointee(Lists::default())),
    };
    (Arc::new(Gateway::start(on, options).unwrap()), log)
}

fn submission(name: &str, rows: usize) -> Submission {
    let body: String =
        (0..rows).map(|row| format!("{{\"event_id\":\"{name}-{row}\"}}\n")).collect();
    Submission {
        tenant: TenantId::new("default").unwrap(),
        source: "test".into(),
        domain: None,
        key: None,
        body: Body::Json(body.into()),
        peer: None,
    }
}

fn offset(receipt: Result<Receipt, SubmitError>) -> Offset {
    receipt.unwrap().offset.unwrap()
}

/// Far more than a frame takes, and far less than the age at which an open frame is closed.
const SOON: Duration = Duration::from_secs(20);

fn patient() -> GatewayOptions {
    GatewayOptions { decoders: 1, frame_age: Duration::from_secs(60), ..GatewayOptions::default() }
}

#[tokio::test]
async fn who_is_alone_is_answered_at_once_and_others_share_frames() {
    let dir = tempfile::tempdir().unwrap();
    let (gateway, log) = gateway(dir.path(), patient());
    let send = |name: &str| tokio::time::timeout(SOON, gateway.submit(submission(name, 3)));
    // One after the other: a frame for each.
    let first = offset(send("a").await.unwrap());
    let second = offset(send("b").await.unwrap());
    assert!(first < second);
    // Two at a time: whoever comes first may be written alone, but nobody waits for a third.
    let mut newest = second;
    let waiting = loop {
        let (third, fourth) = tokio::join!(send("c"), send("d"));
        newest = newest.max(offset(third.unwrap())).max(offset(fourth.unwrap()));
        // Two senders were seen a moment ago, so the next one's frame is kept open for the other; unless this
        // machine was so slow that the first had its answer before the second came.
        let waiting = tokio::spawn(gateway.submit(submission("e", 3)));
        tokio::time::sleep(Duration::from_millis(50)).await;
        if !waiting.is_finished() {
            break waiting;
        }
    };
    let sixth = offset(send("f").await.unwrap());
    let fifth = offset(waiting.await.unwrap());
    assert_eq!(fifth, sixth, "both are in one frame");
    assert!(fifth > newest);
    tokio::task::spawn_blocking(move || gateway.stop()).await.unwrap();
    log.close();
}

#[tokio::test]
async fn a_frame_is_closed_at_its_age_when_the_others_do_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let options = GatewayOptions { frame_age: Duration::from_millis(300), ..patient() };
    let (gateway, log) = gateway(dir.path(), options);
    loop {
        let (a, b) =
            tokio::join!(gateway.submit(submission("a", 1)), gateway.submit(submission("b", 1)));
        assert!(a.is_ok() && b.is_ok());
        let begun = Instant::now();
        tokio::time::timeout(SOON, gateway.submit(submission("c", 1))).await.unwrap().unwrap();
        // As above, two may not have been seen at a time.
        if begun.elapsed() >= Duration::from_millis(250) {
            break;
        }
    }
    tokio::task::spawn_blocking(move || gateway.stop()).await.unwrap();
    log.close();
}

#[tokio::test]
async fn a_full_frame_waits_for_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let (gateway, log) = gateway(dir.path(), GatewayOptions { frame_rows: 10, ..patient() });
    let (a, b) =
        tokio::join!(gateway.submit(submission("a", 1)), gateway.submit(submission("b", 1)));
    assert!(a.is_ok() && b.is_ok());
    let full = tokio::time::timeout(SOON, gateway.submit(submission("c", 10))).await.unwrap();
    assert_eq!(full.unwrap().accepted, 10);
    tokio::task::spawn_blocking(move || gateway.stop()).await.unwrap();
    log.close();
}
