//! Reading records from a connection that gets no answers: framing, batching and backpressure.
//!
//! What a read brings in complete messages is handed over at once when nothing waits for durability.
//! While something waits, messages collect, and are handed over when that is done, when 10 ms have
//! passed, or when a batch is large; at most four batches and the configured number of bytes wait at
//! once, then reading stops, and TCP slows the sender. When the sender ends its half of the
//! connection, all that it sent is made durable before the server ends its own.

use crate::listener::Validated;
use crate::metrics::Door;
use crate::submit::{Body, DeadLetter, Submission, Submit, SubmitError};
use crate::unanswered::deliver;
use bytes::BytesMut;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// How long complete messages wait for company at most.
const LINGER: Duration = Duration::from_millis(10);
/// A batch of this size does not wait.
const BATCH: usize = 256 * 1024;
/// How many batches wait for durability at most.
const BATCHES: usize = 4;
/// How much is read at a time.
const READ: usize = 64 * 1024;

/// The clock of the doors, microseconds since the epoch: for stamps without a year.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// What a protocol does with the bytes of a connection.
pub trait Protocol: Send {
    /// Takes complete messages out of the buffer (all of it at the `end`) and keeps them.
    fn feed(&mut self, buffer: &mut BytesMut, end: bool, now: i64);
    /// How many bytes of memory the complete messages hold.
    fn kept(&self) -> usize;
    /// Gives away what is kept.
    fn drain(&mut self) -> Vec<Body>;
}

/// What a connection belongs to.
pub struct Connection {
    /// The listener.
    pub listener: Arc<Validated>,
    /// Who takes the records.
    pub submit: Arc<dyn Submit>,
    /// The sender.
    pub peer: IpAddr,
    /// The clock.
    pub clock: Clock,
    /// The counters.
    pub door: Door,
    /// Ends the connection: what was read is still made durable.
    pub stop: CancellationToken,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Connection {
    /// Reads until the sender ends, is silent for too long, or the server stops.
    ///
    /// # Errors
    /// [`SubmitError::Stopped`] or [`SubmitError::Refused`]: not all that was read is durable.
    pub async fn run<S, P>(self, mut stream: S, mut protocol: P) -> Result<(), SubmitError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
        P: Protocol,
    {
        let mut buffer = BytesMut::with_capacity(READ);
        let mut waiting = FuturesUnordered::new();
        let mut waiting_bytes = 0;
        // When the oldest kept message came.
        let mut since: Option<Instant> = None;
        let mut heard = Instant::now();
        loop {
            let kept = protocol.kept();
            let linger = since.is_some_and(|since| since.elapsed() >= LINGER);
            if kept > 0
                && waiting.len() < BATCHES
                && (waiting.is_empty() || kept >= BATCH || linger)
            {
                since = None;
                for body in protocol.drain() {
                    waiting_bytes += body.held_bytes();
                    waiting.push(self.hand_over(body));
                }
                continue;
            }
            let room = waiting_bytes + kept < self.listener.max_in_flight;
            let flush = since.filter(|_| waiting.len() < BATCHES).map(|since| since + LINGER);
            tokio::select! {
                Some((bytes, result)) = waiting.next(), if !waiting.is_empty() => {
                    result?;
                    waiting_bytes -= bytes;
                    heard = Instant::now();
                }
                read = read(&mut stream, &mut buffer), if room => {
                    match read {
                        Ok(0) => break,
                        Ok(count) => {
                            self.door.bytes.inc_by(count as u64);
                            heard = Instant::now();
                            protocol.feed(&mut buffer, false, (self.clock)());
                            if protocol.kept() > 0 {
                                since.get_or_insert(heard);
                            }
                        }
                        Err(error) => {
                            tracing::debug!(peer = %self.peer, %error, "connection broke");
                            break;
                        }
                    }
                }
                () = sleep_until(flush.unwrap_or(heard)), if flush.is_some() => {}
                () = sleep_until(heard + self.listener.idle), if waiting.is_empty() => {
                    self.door.refuse("idle");
                    break;
                }
                () = self.stop.cancelled() => break,
            }
        }
        protocol.feed(&mut buffer, true, (self.clock)());
        for body in protocol.drain() {
            waiting.push(self.hand_over(body));
        }
        while let Some((_, result)) = waiting.next().await {
            result?;
        }
        // The sender that waits for this knows that all is durable.
        let _ = timeout(Duration::from_secs(1), stream.shutdown()).await;
        Ok(())
    }

    /// Makes a batch durable; gives its bytes back.
    async fn hand_over(&self, body: Body) -> (usize, Result<(), SubmitError>) {
        let bytes = body.held_bytes();
        let submission = Submission {
            tenant: self.listener.tenant.clone(),
            source: Arc::clone(&self.listener.source),
            domain: None,
            key: None,
            body,
            peer: Some(self.peer),
        };
        (bytes, deliver(self.submit.as_ref(), submission, &self.door).await)
    }
}

async fn read<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut BytesMut,
) -> std::io::Result<usize> {
    buffer.reserve(READ);
    // Bounded, so that one read cannot pass the bound of bytes in flight by much.
    stream.take(READ as u64).read_buf(buffer).await
}

/// Adds dead letters to a list of bodies.
pub(crate) fn push_dead(bodies: &mut Vec<Body>, dead: &mut Vec<DeadLetter>) {
    if !dead.is_empty() {
        bodies.push(Body::DeadLetters(Arc::new(std::mem::take(dead))));
    }
}
