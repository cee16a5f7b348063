//! Who hears of alerts: the live stream and a webhook, each read by a thread that notes when a name came.

use crate::server::Failure;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A body that a webhook is sent, at most.
const MOST_BODY: usize = 1 << 20;

/// When each name was first heard.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    names: Mutex<HashMap<String, Instant>>,
    came: Condvar,
    alerts: AtomicU64,
}

impl Arrivals {
    /// When a name came, if it does before long.
    pub(super) fn wait(&self, name: &str, longest: Duration) -> Option<Instant> {
        let end = Instant::now() + longest;
        let mut names = self.names();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if let Some(at) = names.get(name).copied().or(left.is_zero().then_some(end)) {
                return Some(at).filter(|at| *at != end);
            }
            let waited = self.came.wait_timeout(names, left);
            names = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn names(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Alerts that were heard.
    pub(super) fn count(&self) -> u64 {
        self.alerts.load(Ordering::Acquire)
    }

    /// Notes every name of a marked record in a text.
    fn hear(&self, text: &str) {
        let now = Instant::now();
        for marker in ["probe-", "pair-"] {
            for (at, _) in text.match_indices(marker) {
                let rest = text.get(at..).unwrap_or_default();
                let end = rest.get(marker.len()..).unwrap_or_default();
                let digits = end.bytes().take_while(u8::is_ascii_digit).count();
                if digits > 0
                    && let Some(name) = rest.get(..marker.len() + digits)
                {
                    self.names().entry(name.to_owned()).or_insert(now);
                }
            }
        }
        self.came.notify_all();
    }
}

/// Reads the live stream until the server ends it.
pub(super) fn listen_live(address: SocketAddr) -> Result<Arc<Arrivals>, Failure> {
    let mut stream = TcpStream::connect(address)?;
    write!(
        stream,
        "GET /api/v1/live HTTP/1.1\r\nhost: {address}\r\naccept: text/event-stream\r\n\r\n"
    )?;
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    lines.read_line(&mut line)?;
    if !line.contains("200") {
        return Err(format!("the live stream answered '{}'", line.trim()).into());
    }
    let arrivals = Arc::new(Arrivals::default());
    std::thread::spawn({
        let arrivals = Arc::clone(&arrivals);
        move || {
            let mut is_alert = false;
            for line in lines.lines().map_while(Result::ok) {
                if let Some(event) = line.strip_prefix("event:") {
                    is_alert = event.trim() == "alert";
                } else if let Some(data) = line.strip_prefix("data:").filter(|_| is_alert) {
                    arrivals.alerts.fetch_add(1, Ordering::AcqRel);
                    arrivals.hear(data);
                }
            }
        }
    });
    Ok(arrivals)
}

/// A receiver of webhooks.
#[derive(Debug)]
pub(super) struct Webhook {
    pub(super) address: SocketAddr,
    pub(super) arrivals: Arc<Arrivals>,
}

/// Answers every request on a free port of loopback with 200.
pub(super) fn receive_webhooks() -> Result<Webhook, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let arrivals = Arc::new(Arrivals::default());
    std::thread::spawn({
        let arrivals = Arc::clone(&arrivals);
        move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let arrivals = Arc::clone(&arrivals);
                std::thread::spawn(move || answer(stream, &arrivals));
            }
        }
    });
    Ok(Webhook { address, arrivals })
}

/// The requests of one connection.
fn answer(stream: TcpStream, arrivals: &Arrivals) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if line.trim().is_empty() {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
        }
        if length > MOST_BODY {
            return None;
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).ok()?;
        arrivals.hear(&String::from_utf8_lossy(&body));
        stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()?;
    }
}
