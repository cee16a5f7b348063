//! Deliveries over real sockets and a real catalog: receivers that fail, are slow, redirect, ask to wait, die in the
//! middle; deliverers that die between any two steps.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests may panic")]

mod support;

use palisade_alert::settings::{ReceiverKind, ReceiverSettings, RouteSettings, Transport};
use palisade_alert::{Alert, State};
use palisade_catalog::{DeliveryFilter, DeliveryState, Silence};
use palisade_event::TenantId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::{House, Receiver, Reply, alert, settings, status, until};
use tokio::io::AsyncReadExt;

fn tenant() -> TenantId {
    TenantId::default_tenant()
}

async fn states(house: &House) -> BTreeMap<DeliveryWord, usize> {
    let all = house.catalog.deliveries(&tenant(), &DeliveryFilter::default(), None, 1000).await;
    let mut count = BTreeMap::new();
    for delivery in all.unwrap() {
        *count.entry(format!("{:?}", delivery.state)).or_default() += 1;
    }
    count
}

type DeliveryWord = String;

fn some(word: &str, count: usize) -> BTreeMap<DeliveryWord, usize> {
    BTreeMap::from([(word.to_owned(), count)])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alerts_arrive_signed_and_once() {
    let house = House::new(1).await;
    let receiver = Receiver::good().await;
    house.table.add([alert(0)]);
    let running = house.start(&settings(house.directory.path(), &[receiver.address]));
    // A new receiver is not told of the past.
    until("it is claimed", async || house.catalog.receiver_cursor("r0").await.unwrap().is_some())
        .await;
    house.table.add((1..50).map(alert));
    until("all arrived", async || states(&house).await == some("Delivered", 49)).await;
    running.stop().await;
    let received = receiver.received();
    let keys: BTreeSet<String> = received.iter().map(support::Received::key).collect();
    assert_eq!(keys, (1..50).map(|n| alert(n).key()).collect());
    assert_eq!(received.len(), 49, "once each");
    let one = &received[0];
    assert_eq!((one.path.as_str(), one.header("content-type")), ("/hook", "application/json"));
    assert!(one.header("webhook-signature").starts_with("v1,"));
    let body: serde_json::Value = serde_json::from_slice(&one.body).unwrap();
    assert_eq!(format!("{}-0", body["data"]["alert_id"].as_str().unwrap()), one.key());
    // Started again, nobody is told again.
    let running = house.start(&settings(house.directory.path(), &[receiver.address]));
    tokio::time::sleep(Duration::from_millis(300)).await;
    running.stop().await;
    assert_eq!(receiver.received().len(), 49);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_is_tried_again_with_the_same_key_until_it_arrives() {
    let house = House::new(1000).await;
    house.begin(1).await;
    let receiver = Receiver::start(Arc::new(|count, _| match count {
        0 => status(500, ""),
        1 => Reply::Die,
        2 => Reply::Half,
        3 => status(302, "location: http://127.0.0.1:1/elsewhere\r\n"),
        4 => Reply::Slow(Duration::from_secs(3)),
        5 => status(429, "retry-after: 100\r\n"),
        _ => status(200, ""),
    }))
    .await;
    house.table.add([alert(1)]);
    let before = house.wall.now();
    let running = house.start(&settings(house.directory.path(), &[receiver.address]));
    until("it arrived", async || states(&house).await == some("Delivered", 1)).await;
    running.stop().await;
    let received = receiver.received();
    assert_eq!(received.len(), 7);
    assert!(received.iter().all(|one| one.key() == alert(1).key() && one.path == "/hook"));
    // Each attempt is signed at its own time.
    let times: Vec<i64> =
        received.iter().map(|one| one.header("webhook-timestamp").parse().unwrap()).collect();
    assert!(times.is_sorted() && times[0] >= before / 1_000_000, "{times:?}");
    assert!(times[6] - times[5] >= 100, "it asked for 100 s: {times:?}");
    let all = house.catalog.deliveries(&tenant(), &DeliveryFilter::default(), None, 10).await;
    assert_eq!(all.unwrap()[0].attempts, 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_never_arrives_is_given_up_and_can_be_tried_again() {
    let house = House::new(20_000).await;
    house.begin(1).await;
    let good = Arc::new(AtomicBool::new(false));
    let is_good = Arc::clone(&good);
    let receiver = Receiver::start(Arc::new(move |_, request| {
        let refused = request.key() == alert(1).key();
        match (is_good.load(Ordering::Relaxed), refused) {
            (true, _) => status(200, ""),
            (false, true) => {
                Reply::Raw("HTTP/1.1 400 X\r\ncontent-length: 9\r\n\r\nbad\nthing".into())
            }
            (false, false) => status(503, ""),
        }
    }))
    .await;
    house.table.add([alert(1), alert(2)]);
    let running = house.start(&settings(house.directory.path(), &[receiver.address]));
    until("both are dead", async || states(&house).await == some("Dead", 2)).await;
    let dead = house.catalog.deliveries(&tenant(), &DeliveryFilter::default(), None, 10).await;
    let dead = dead.unwrap();
    let errors: BTreeMap<&str, (&str, u32)> = dead
        .iter()
        .map(|one| (one.alert_id.as_str(), (one.error.as_str(), one.attempts)))
        .collect();
    let (first, second) = (alert(1).id, alert(2).id);
    assert_eq!(errors[first.as_str()], ("status 400: bad thing", 1));
    let (error, attempts) = errors[second.as_str()];
    assert!(error.contains("24 hours") && attempts > 3, "{error} {attempts}");
    // Somebody mends the receiver and asks again.
    good.store(true, Ordering::Relaxed);
    for one in &dead {
        house.catalog.retry_delivery(&tenant(), one.id, house.wall.now()).await.unwrap();
    }
    until("both arrived", async || states(&house).await == some("Delivered", 2)).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_receiver_holds_up_only_itself() {
    let house = House::new(1).await;
    house.begin(2).await;
    let slow = Receiver::start(Arc::new(|_, _| Reply::Slow(Duration::from_millis(900)))).await;
    let good = Receiver::good().await;
    house.table.add((0..200).map(alert));
    let start = Instant::now();
    let running = house.start(&settings(house.directory.path(), &[slow.address, good.address]));
    until("the good one has all", async || good.received().len() == 200).await;
    let took = start.elapsed();
    assert!(slow.received().len() <= 4 * (took.as_millis() as usize / 900 + 1), "four at once");
    // Stopping does not wait for the slow one's whole queue.
    let start = Instant::now();
    running.stop().await;
    assert!(start.elapsed() < Duration::from_secs(4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_wait_in_the_table_while_a_receiver_is_down() {
    let mut house = House::new(1).await;
    house.begin(1).await;
    house.options.max_pending = 20;
    house.options.rows = 10;
    let good = Arc::new(AtomicBool::new(false));
    let is_good = Arc::clone(&good);
    let receiver = Receiver::start(Arc::new(move |_, _| {
        if is_good.load(Ordering::Relaxed) { status(200, "") } else { status(503, "") }
    }))
    .await;
    house.table.add((0..100).map(alert));
    let running = house.start(&settings(house.directory.path(), &[receiver.address]));
    let waiting = async || house.catalog.pending_deliveries("r0").await.unwrap();
    until("as many wait as may", async || waiting().await >= 20).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(waiting().await, 20);
    good.store(true, Ordering::Relaxed);
    until("all arrived", async || states(&house).await == some("Delivered", 100)).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retraction_follows_its_alert_and_only_to_whom_was_told() {
    let house = House::new(1000).await;
    house.begin(2).await;
    // The first attempts of the opening fail, so the retraction is there before it arrived.
    let receiver = Receiver::start(Arc::new(|count, request| {
        match count < 3 && request.key().ends_with("-0") {
            true => status(503, ""),
            false => status(200, ""),
        }
    }))
    .await;
    let other = Receiver::good().await;
    let mut settings = settings(house.directory.path(), &[receiver.address, other.address]);
    settings.routes[1] = RouteSettings::new(&["user=nobody"], &["r1"]);
    let back = |of: u64, place: u64| Alert {
        revision: 1,
        state: State::Retracted,
        position: (place + 1) << 20,
        ..alert(of)
    };
    house.table.add([alert(1), back(1, 2), back(7, 3)]);
    let running = house.start(&settings);
    until("both arrived", async || states(&house).await == some("Delivered", 2)).await;
    running.stop().await;
    let keys = receiver.keys();
    let opening = keys.iter().rposition(|key| *key == alert(1).key()).unwrap();
    let retraction = keys.iter().position(|key| *key == back(1, 2).key()).unwrap();
    assert!(opening < retraction, "{keys:?}");
    assert!(!keys.contains(&back(7, 3).key()), "nobody heard of 7");
    assert!(other.keys().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silences_and_windows_hold_across_restarts() {
    let house = House::new(1).await;
    house.begin(1).await;
    let receiver = Receiver::good().await;
    let now = house.wall.now();
    let silence = Silence {
        id: String::new(),
        tenant: tenant(),
        matchers: vec!["user=quiet".into()],
        starts_at: now - 1,
        ends_at: now + 3_600_000_000,
        creator: "local".into(),
        comment: "works there".into(),
        created_at: now,
        muted: 0,
    };
    let silence = house.catalog.create_silence(silence).await.unwrap();
    let settings = settings(house.directory.path(), &[receiver.address]);
    let of = |number: u64, user: &str| Alert {
        rule_id: "rule".into(),
        user: Some(user.into()),
        ..alert(number)
    };
    for number in 0..10 {
        house.table.add([of(number * 2, "loud"), of(number * 2 + 1, "quiet")]);
        let running = house.start(&settings);
        until("it is read", async || {
            house.catalog.silences(None, now).await.unwrap()[0].muted == number + 1
        })
        .await;
        running.stop().await;
    }
    assert_eq!(receiver.keys(), [of(0, "loud").key()], "one notification of ten");
    house.catalog.lift_silence(&tenant(), &silence.id, house.wall.now()).await.unwrap();
    house.table.add([of(30, "quiet")]);
    let running = house.start(&settings);
    until("it arrived", async || receiver.keys().len() == 2).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deliverer_that_dies_anywhere_loses_nothing_and_doubles_what_was_on_its_way() {
    const ALERTS: u64 = 300;
    let house = House::new(1).await;
    house.begin(1).await;
    let receiver = Receiver::start(Arc::new(|_, _| Reply::Slow(Duration::from_millis(2)))).await;
    let settings = settings(house.directory.path(), &[receiver.address]);
    let mut seed = 7u64;
    let (mut deaths, mut added) = (0, 0);
    while states(&house).await != some("Delivered", ALERTS as usize) {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        if added < ALERTS {
            let more = (added + 1 + (seed >> 60)).min(ALERTS);
            house.table.add((added..more).map(alert));
            added = more;
        }
        let plan = palisade_alert::Plan::check(&settings).unwrap();
        let (receiver, routes) = plan.receivers[0].clone();
        let secret = palisade_alert::format::Secret(support::SECRET.into());
        let sender =
            palisade_alert::client::Sender::new(receiver, Some(secret), plan.egress.clone());
        let deliverer = palisade_alert::client::Deliverer::new(
            sender.unwrap(),
            routes,
            plan.inhibitions.clone(),
            house.foundations(),
            house.options.clone(),
        );
        // Dropped at whichever point it waits at.
        let life = Duration::from_micros((seed >> 33) % 200_000);
        let run = deliverer.run(tokio_util::sync::CancellationToken::new());
        let _ = tokio::time::timeout(life, run).await;
        deaths += 1;
    }
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for key in receiver.keys() {
        *times.entry(key).or_default() += 1;
    }
    assert_eq!(times.len() as u64, ALERTS, "nothing is lost");
    let doubled: usize = times.values().map(|count| count - 1).sum();
    assert!(doubled <= deaths * 4, "{doubled} doubled in {deaths} deaths");
    println!("{deaths} deaths, {doubled} of {ALERTS} doubled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_owner_ends_the_first() {
    let house = House::new(1).await;
    house.begin(1).await;
    let receiver = Receiver::good().await;
    let settings = settings(house.directory.path(), &[receiver.address]);
    let first = house.start(&settings);
    house.table.add([alert(1)]);
    until("the first delivers", async || receiver.keys().len() == 1).await;
    let second = house.start(&settings);
    tokio::time::sleep(Duration::from_millis(200)).await;
    house.table.add((2..40).map(alert));
    until("all arrived", async || states(&house).await == some("Delivered", 39)).await;
    first.stop().await;
    second.stop().await;
    // The first may have sent what it had on its way, and recorded nothing.
    let doubled = receiver.keys().len() - 39;
    assert!(doubled <= 4, "{doubled}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_sent_inside_unless_allowed() {
    let house = House::new(1).await;
    house.begin(1).await;
    let receiver = Receiver::good().await;
    let mut settings = settings(house.directory.path(), &[receiver.address]);
    settings.egress.allow.clear();
    // A name is judged by what it resolves to.
    settings.receivers[0].url = Some(format!("http://localhost:{}/hook", receiver.address.port()));
    house.table.add([alert(1)]);
    let running = house.start(&settings);
    let filter = DeliveryFilter::default();
    until("it was tried", async || {
        let all = house.catalog.deliveries(&tenant(), &filter, None, 10).await.unwrap();
        all.first().is_some_and(|one| one.attempts > 0 && one.state == DeliveryState::Pending)
    })
    .await;
    running.stop().await;
    let all = house.catalog.deliveries(&tenant(), &filter, None, 10).await.unwrap();
    assert!(all[0].error.contains("this machine"), "{}", all[0].error);
    assert!(receiver.received().is_empty(), "not one connection");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn https_trusts_the_configured_authority_only() {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let house = House::new(1).await;
    house.begin(2).await;
    let ca = house.directory.path().join("ca.pem");
    std::fs::write(&ca, certified.cert.pem()).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.unwrap())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (seen, mut bodies) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut bytes = vec![0; 64 << 10];
            let Ok(read) = stream.read(&mut bytes).await else { continue };
            bytes.truncate(read);
            seen.send(bytes).unwrap();
            let answer = b"HTTP/1.1 202 X\r\ncontent-length: 0\r\n\r\n";
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    });
    let mut settings = settings(house.directory.path(), &[([127, 0, 0, 1], port).into(); 2]);
    settings.egress.allow.push("::1".into());
    settings.egress.allow_plaintext = false;
    for receiver in &mut settings.receivers {
        receiver.url = Some(format!("https://localhost:{port}/"));
    }
    settings.receivers[0].ca_file = Some(ca);
    house.table.add([alert(1)]);
    let running = house.start(&settings);
    let request = bodies.recv().await.unwrap();
    assert!(request.starts_with(b"POST / HTTP/1.1\r\n"));
    let of = |name: &str| DeliveryFilter { receiver: Some(name.into()), ..Default::default() };
    until("one arrived, the other was refused", async || {
        let trusted = house.catalog.deliveries(&tenant(), &of("r0"), None, 1).await.unwrap();
        let other = house.catalog.deliveries(&tenant(), &of("r1"), None, 1).await.unwrap();
        trusted.first().is_some_and(|one| one.state == DeliveryState::Delivered)
            && other.first().is_some_and(|one| one.error.contains("TLS with 'localhost' failed"))
    })
    .await;
    running.stop().await;
    assert!(bodies.try_recv().is_err(), "nothing was sent to whom nobody trusts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn syslog_goes_in_counted_octets() {
    let house = House::new(1).await;
    house.begin(0).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut settings = settings(house.directory.path(), &[]);
    let mut receiver = ReceiverSettings::new("siem", ReceiverKind::Syslog);
    receiver.address = Some(address.to_string());
    receiver.transport = Transport::Tcp;
    receiver.hostname = Some("box".into());
    settings.receivers.push(receiver);
    settings.routes.push(RouteSettings::new(&[], &["siem"]));
    house.catalog.claim_receiver("siem", &palisade_catalog::AlertCursor::default()).await.unwrap();
    house.table.add([alert(1)]);
    let running = house.start(&settings);
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    drop(stream);
    let text = String::from_utf8(bytes).unwrap();
    let (count, message) = text.split_once(' ').unwrap();
    assert_eq!(count.parse::<usize>().unwrap(), message.len());
    assert!(message.starts_with("<107>1 ") && message.contains(" box palisade - alert - CEF:0|"));
    until("it is noted", async || states(&house).await == some("Delivered", 1)).await;
    running.stop().await;
}
