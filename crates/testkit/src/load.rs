//! A load generator for HTTP: cheap enough to share two cores with the server that it measures.
//!
//! Each connection has a thread that writes a request, reads the answer and goes on ([`send_all`], closed loop), or
//! requests are sent at times fixed beforehand ([`send_paced`], open loop): there a latency is counted from the moment
//! at which the request was due, so a server that stalls cannot hide it by slowing the generator.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

/// Where and how to send.
#[derive(Debug, Clone)]
pub struct Target {
    /// The server.
    pub address: SocketAddr,
    /// The path, for example `/api/v1/streams/events/records`.
    pub path: String,
    /// Further header lines, each ended by CR LF.
    pub headers: String,
}

/// One kept-alive connection.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
    head: String,
    answer: Vec<u8>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// The largest answer that is read.
const MOST_ANSWER: usize = 16 << 20;

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When the server does not accept within five seconds.
    pub fn open(target: &Target) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&target.address, Duration::from_secs(5))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let head = format!(
            "POST {} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/x-ndjson\r\n{}",
            target.path, target.address, target.headers
        );
        Ok(Self { stream: BufReader::new(stream), head, answer: Vec::new() })
    }

    /// Sends a body and waits for the answer. `headers` are further header lines of this request.
    ///
    /// # Errors
    /// When the connection breaks or the answer is no HTTP.
    pub fn send(&mut self, headers: &str, body: &[u8]) -> io::Result<Answer> {
        let head = format!("{}{headers}content-length: {}\r\n\r\n", self.head, body.len());
        let stream = self.stream.get_mut();
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        self.read_answer()
    }

    fn read_answer(&mut self) -> io::Result<Answer> {
        let broken = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let mut line = Vec::new();
        self.read_line(&mut line)?;
        let status = std::str::from_utf8(&line)
            .ok()
            .and_then(|line| line.split(' ').nth(1)?.parse().ok())
            .ok_or_else(|| broken("no status line"))?;
        let mut length = 0;
        loop {
            self.read_line(&mut line)?;
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end();
            if text.is_empty() {
                break;
            }
            if let Some((name, value)) = text.split_once(':') {
                if name.eq_ignore_ascii_case("content-length") {
                    length = value.trim().parse().map_err(|_| broken("no content length"))?;
                } else if name.eq_ignore_ascii_case("transfer-encoding") {
                    return Err(broken("the load generator reads no chunked answers"));
                }
            }
        }
        if length > MOST_ANSWER {
            return Err(broken("the answer is too large"));
        }
        self.answer.resize(length, 0);
        self.stream.read_exact(&mut self.answer)?;
        Ok(Answer { status, body: self.answer.clone() })
    }

    fn read_line(&mut self, line: &mut Vec<u8>) -> io::Result<()> {
        line.clear();
        let read = self.stream.by_ref().take(64 << 10).read_until(b'\n', line)?;
        if read == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

/// Latencies in buckets of 2 %: small, mergeable, and exact enough for percentiles.
#[derive(Debug, Clone)]
pub struct Latencies {
    buckets: Vec<u64>,
    count: u64,
}

/// The upper bound of the first bucket, in seconds, and by how much the next is larger.
const FIRST: f64 = 1e-6;
const STEP: f64 = 1.02;

impl Default for Latencies {
    fn default() -> Self {
        Self { buckets: vec![0; 1024], count: 0 }
    }
}

impl Latencies {
    /// Counts one.
    pub fn add(&mut self, latency: Duration) {
        let bucket = (latency.as_secs_f64().max(FIRST) / FIRST).log(STEP) as usize;
        let last = self.buckets.len().saturating_sub(1);
        if let Some(count) = self.buckets.get_mut(bucket.min(last)) {
            *count += 1;
        }
        self.count += 1;
    }

    /// Adds another's.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The latency below which this share (0 to 1) lies, in milliseconds; 0 without any.
    #[must_use]
    pub fn percentile_ms(&self, share: f64) -> f64 {
        let wanted = (share * self.count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted && self.count > 0 {
                return FIRST * STEP.powi(i32::try_from(bucket + 1).unwrap_or(i32::MAX)) * 1e3;
            }
        }
        0.0
    }
}

/// What a run of one connection did.
#[derive(Debug, Clone, Default)]
pub struct Sent {
    /// Records that the server acknowledged.
    pub records: u64,
    /// Bytes of bodies acknowledged.
    pub bytes: u64,
    /// Answers that told to come back later; each was repeated.
    pub busy: u64,
    /// From the moment a request was due to its acknowledgement.
    pub latencies: Latencies,
}

impl Sent {
    fn count(&mut self, due: Instant, records: u64, body: &[u8]) {
        self.latencies.add(due.elapsed());
        self.records += records;
        self.bytes += body.len() as u64;
    }

    /// Adds another connection's.
    pub fn merge(&mut self, other: &Self) {
        self.records += other.records;
        self.bytes += other.bytes;
        self.busy += other.busy;
        self.latencies.merge(&other.latencies);
    }
}

/// Sends bodies over one connection until there is no more, each when the last is answered (closed loop). `next`
/// fills the body and says how many records it has; 0 ends the run. Busy answers are repeated after a short pause.
///
/// # Errors
/// When the connection breaks, or the server refuses records.
pub fn send_all(
    target: &Target,
    mut next: impl FnMut(&mut Vec<u8>) -> u64,
    mut progress: impl FnMut(u64),
) -> io::Result<Sent> {
    let mut connection = Connection::open(target)?;
    let mut sent = Sent::default();
    let mut body = Vec::new();
    loop {
        body.clear();
        let records = next(&mut body);
        if records == 0 {
            return Ok(sent);
        }
        let due = Instant::now();
        sent.busy += send_until_taken(&mut connection, &body)?;
        sent.count(due, records, &body);
        progress(records);
    }
}

/// A request of [`send_paced`].
struct Request {
    due: Instant,
    records: u64,
    body: Vec<u8>,
}

/// Sends a body each `interval`, whatever the answers do (open loop), over whichever of the connections is free. As in
/// [`send_all`], `next` makes the bodies; one thread calls it, ahead of time, so that many overdue requests do not
/// make many threads that compete with the server for cores. A request that finds no connection free waits for one.
///
/// # Errors
/// As [`send_all`].
pub fn send_paced(
    target: &Target,
    connections: u32,
    interval: Duration,
    mut next: impl FnMut(&mut Vec<u8>) -> u64,
    progress: impl Fn(u64) + Sync,
) -> io::Result<Sent> {
    let opened: Vec<Connection> =
        (0..connections.max(1)).map(|_| Connection::open(target)).collect::<io::Result<_>>()?;
    let (requests, due_requests) = mpsc::sync_channel::<Request>(opened.len());
    let (used, empty) = mpsc::channel::<Vec<u8>>();
    let due_requests = Arc::new(Mutex::new(due_requests));
    std::thread::scope(|scope| {
        let threads: Vec<_> = opened
            .into_iter()
            .map(|mut connection| {
                let (due_requests, used) = (Arc::clone(&due_requests), used.clone());
                let progress = &progress;
                scope.spawn(move || {
                    let mut sent = Sent::default();
                    while let Some(request) = take(&due_requests) {
                        sent.busy += send_until_taken(&mut connection, &request.body)?;
                        sent.count(request.due, request.records, &request.body);
                        progress(request.records);
                        // At the end nobody needs it any more.
                        let _ = used.send(request.body);
                    }
                    io::Result::Ok(sent)
                })
            })
            .collect();
        drop((due_requests, used));
        let mut due = Instant::now() + interval;
        loop {
            let mut body = empty.try_recv().unwrap_or_default();
            body.clear();
            let records = next(&mut body);
            if records == 0 {
                break;
            }
            loop {
                let left = due.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                std::thread::park_timeout(left);
            }
            if requests.send(Request { due, records, body }).is_err() {
                // Every connection broke; the first error is given below.
                break;
            }
            due += interval;
        }
        drop(requests);
        let mut sum = Sent::default();
        for thread in threads {
            let sent = thread.join().unwrap_or_else(|_| Err(io::Error::other("a sender panicked")));
            sum.merge(&sent?);
        }
        Ok(sum)
    })
}

fn take(requests: &Mutex<mpsc::Receiver<Request>>) -> Option<Request> {
    requests.lock().ok()?.recv().ok()
}

/// Sends a body, again and again while the server is busy; says how often it was.
fn send_until_taken(connection: &mut Connection, body: &[u8]) -> io::Result<u64> {
    let mut busy = 0;
    loop {
        let answer = connection.send("", body)?;
        match answer.status {
            200 => return Ok(busy),
            429 | 503 => {
                busy += 1;
                std::thread::park_timeout(Duration::from_millis(20));
            }
            status => {
                let text =
                    String::from_utf8_lossy(&answer.body).chars().take(300).collect::<String>();
                return Err(io::Error::other(format!("the server answered {status}: {text}")));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_two_percent() {
        let mut latencies = Latencies::default();
        for millis in 1..=1000 {
            latencies.add(Duration::from_millis(millis));
        }
        for (share, want) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let got = latencies.percentile_ms(share);
            assert!((got / want - 1.0).abs() < 0.025, "{share}: {got} instead of {want}");
        }
        assert!(Latencies::default().percentile_ms(0.5).abs() < f64::EPSILON);
    }
}
