//! A receiver over real sockets whose behaviour a test writes, a table of alerts in memory, and deliverers over
//! a real catalog.
#![allow(dead_code, clippy::unwrap_used, reason = "each test binary uses a part; tests may panic")]

use futures::FutureExt;
use futures::future::BoxFuture;
use palisade_alert::client::{
    AlertSource, DelivererOptions, Deliverers, DeliveryMetrics, Foundations, Prepared, Rows,
    SourceError,
};
use palisade_alert::settings::{AlertSettings, ReceiverKind, ReceiverSettings, RouteSettings};
use palisade_alert::{Alert, Plan, Severity};
use palisade_catalog::{AlertCursor, Catalog, OpenOptions};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(own, _)| own == name).map_or("", |(_, value)| value)
    }

    /// The idempotency key of a webhook.
    pub(crate) fn key(&self) -> String {
        self.header("webhook-id").to_owned()
    }
}

/// What a receiver does with a request.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// Answers with these bytes.
    Raw(String),
    /// Answers 204 after so long.
    Slow(Duration),
    /// Closes the connection before an answer.
    Die,
    /// Answers a part and closes.
    Half,
}

pub(crate) fn status(code: u16, headers: &str) -> Reply {
    Reply::Raw(format!("HTTP/1.1 {code} X\r\n{headers}content-length: 0\r\n\r\n"))
}

pub(crate) type Script = Arc<dyn Fn(usize, &Received) -> Reply + Send + Sync>;

/// A receiver that listens on loopback.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Receiver {
    /// Starts one. The script is told how many requests came before.
    pub(crate) async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let kept = Arc::clone(&received);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&script), Arc::clone(&kept)));
            }
        });
        Self { address, received, task }
    }

    pub(crate) async fn good() -> Self {
        Self::start(Arc::new(|_, _| status(204, ""))).await
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        self.received().iter().map(Received::key).collect()
    }
}

async fn answer(
    mut stream: TcpStream,
    script: Script,
    kept: Arc<Mutex<Vec<Received>>>,
) -> Option<()> {
    let mut bytes = Vec::new();
    let (end, length) = loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(bytes.get(..end)?).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        break (end + 4, length?.parse::<usize>().ok()?);
    };
    while bytes.len() < end + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let head = String::from_utf8_lossy(bytes.get(..end)?).into_owned();
    let mut lines = head.lines();
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    let request = Received { path, headers, body: bytes.split_off(end) };
    let count = {
        let mut kept = kept.lock().unwrap();
        kept.push(request.clone());
        kept.len() - 1
    };
    match script(count, &request) {
        Reply::Raw(text) => stream.write_all(text.as_bytes()).await.ok()?,
        Reply::Slow(time) => {
            tokio::time::sleep(time).await;
            stream.write_all(b"HTTP/1.1 204 X\r\n\r\n").await.ok()?;
        }
        Reply::Half => stream.write_all(b"HTTP/1.1 20").await.ok()?,
        Reply::Die => {}
    }
    stream.shutdown().await.ok()
}

fn cursor_at(alert: &Alert) -> AlertCursor {
    let (position, alert_id, revision) = alert.place();
    AlertCursor { position, alert_id: alert_id.to_owned(), revision }
}

/// A table of alerts.
#[derive(Default)]
pub(crate) struct Table(Mutex<Vec<Alert>>);

impl Table {
    pub(crate) fn add(&self, alerts: impl IntoIterator<Item = Alert>) {
        let mut rows = self.0.lock().unwrap();
        rows.extend(alerts);
        assert!(rows.is_sorted_by(|a, b| a.place() < b.place()), "rows come in order");
    }
}

impl AlertSource for Table {
    fn after<'a>(
        &'a self,
        cursor: &'a AlertCursor,
        limit: usize,
    ) -> BoxFuture<'a, Result<Rows, SourceError>> {
        async move {
            // As a real one does, it takes a moment.
            tokio::task::yield_now().await;
            let place = (cursor.position, cursor.alert_id.as_str(), cursor.revision);
            let rows = self.0.lock().unwrap();
            let alerts: Vec<Alert> =
                rows.iter().filter(|row| row.place() > place).take(limit).cloned().collect();
            let end = alerts.last().map_or_else(|| cursor.clone(), cursor_at);
            Ok(Rows { alerts, end })
        }
        .boxed()
    }

    fn end(&self) -> BoxFuture<'_, Result<AlertCursor, SourceError>> {
        let cursor = cursor_at(&self.0.lock().unwrap().last().cloned().unwrap_or_default());
        async move { Ok(cursor) }.boxed()
    }
}

pub(crate) fn alert(number: u64) -> Alert {
    Alert {
        tenant: "default".into(),
        position: (number + 1) << 20,
        id: format!("{number:032x}"),
        time: number as i64,
        ingest_time: number as i64,
        rule_id: format!("rule-{number}"),
        detector: "test".into(),
        title: "Something".into(),
        severity: Severity::High,
        user: Some(format!("user-{number}")),
        ..Alert::default()
    }
}

/// The wall, a thousand times as fast: waits of hours are over in seconds.
#[derive(Debug, Clone)]
pub(crate) struct Wall {
    start: Instant,
    speed: i64,
    added: Arc<AtomicI64>,
}

impl Wall {
    pub(crate) fn new(speed: i64) -> Self {
        Self { start: Instant::now(), speed, added: Arc::default() }
    }

    pub(crate) fn now(&self) -> i64 {
        let real = i64::try_from(self.start.elapsed().as_micros()).unwrap();
        1_767_600_000_000_000 + real * self.speed + self.added.load(Ordering::Relaxed)
    }
}

pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Settings with a webhook for each of these addresses, allowed to loopback.
pub(crate) fn settings(directory: &Path, addresses: &[SocketAddr]) -> AlertSettings {
    let secret = directory.join("secret");
    std::fs::write(&secret, SECRET).unwrap();
    let mut settings = AlertSettings::default();
    for (index, address) in addresses.iter().enumerate() {
        let name = format!("r{index}");
        let mut receiver = ReceiverSettings::new(&name, ReceiverKind::Webhook);
        receiver.url = Some(format!("http://{address}/hook"));
        receiver.secret_file = Some(secret.clone());
        receiver.timeout_seconds = 1;
        settings.receivers.push(receiver);
        settings.routes.push(RouteSettings::new(&[], &[&name]));
    }
    settings.egress.allow = vec!["127.0.0.0/8".into()];
    settings.egress.allow_plaintext = true;
    settings
}

pub(crate) struct House {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) catalog: Catalog,
    pub(crate) table: Arc<Table>,
    pub(crate) wall: Wall,
    pub(crate) options: DelivererOptions,
}

impl House {
    pub(crate) async fn new(speed: i64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("catalog.db");
        let catalog = Catalog::open(&path, OpenOptions::default()).await.unwrap();
        let options =
            DelivererOptions { poll: Duration::from_millis(5), ..DelivererOptions::default() };
        Self { directory, catalog, table: Arc::default(), wall: Wall::new(speed), options }
    }

    pub(crate) fn foundations(&self) -> Foundations {
        let wall = self.wall.clone();
        Foundations {
            catalog: self.catalog.clone(),
            source: Arc::clone(&self.table) as Arc<dyn AlertSource>,
            now: Arc::new(move || wall.now()),
            metrics: DeliveryMetrics::default(),
        }
    }

    pub(crate) fn start(&self, settings: &AlertSettings) -> Deliverers {
        let plan = Plan::check(settings).unwrap();
        Prepared::new(plan).unwrap().start(&self.foundations(), &self.options)
    }

    /// Makes receivers known, so that they begin at the table's beginning.
    pub(crate) async fn begin(&self, receivers: usize) {
        for index in 0..receivers {
            let start = AlertCursor::default();
            self.catalog.claim_receiver(&format!("r{index}"), &start).await.unwrap();
        }
    }
}

pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !condition().await {
        assert!(Instant::now() < end, "not within a minute: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
