//! Syslog in datagrams (RFC 5426): one message each.
//!
//! UDP loses datagrams: on the way, and in the kernel when they come faster than they are taken. What
//! arrives is counted as `palisade_received_requests_total{door="syslog:<name>"}`; what the kernel
//! dropped stands in the column `drops` of `/proc/net/udp` (and `/proc/net/udp6`). When the gateway is
//! busy the door stops reading, so the kernel drops, and counts, what nobody could store.

use super::{Context, parse};
use crate::connection::{Clock, push_dead};
use crate::lines::KEPT_OF_OVERLONG;
use crate::listener::Validated;
use crate::metrics::Door;
use crate::submit::{Body, DeadLetter, ParsedRecord, Submission, Submit, SubmitError};
use crate::unanswered::deliver;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::io::ErrorKind;
use std::sync::Arc;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

/// The longest datagram.
const LONGEST: usize = 65_536;
/// The most messages of one submission.
const BATCH: usize = 1000;
/// A submission has about so many bytes at most, beside its last message.
const BATCH_BYTES: usize = 1 << 20;
/// The most submissions that wait for durability.
const BATCHES: usize = 16;

/// Takes datagrams until `stop`; what was taken is made durable before this returns.
///
/// # Errors
/// [`SubmitError::Stopped`]: not all that was read is durable.
pub async fn serve(
    socket: UdpSocket,
    listener: Arc<Validated>,
    submit: Arc<dyn Submit>,
    clock: Clock,
    door: Door,
    stop: CancellationToken,
) -> Result<(), SubmitError> {
    let mut waiting = FuturesUnordered::new();
    let mut datagram = vec![0; LONGEST];
    loop {
        tokio::select! {
            Some(result) = waiting.next(), if !waiting.is_empty() => ended(result)?,
            ready = socket.readable(), if waiting.len() < BATCHES => {
                if let Err(error) = ready {
                    tracing::warn!(%error, listener = listener.name, "socket cannot be read");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                }
                let Taken { records, mut dead } =
                    batch(&socket, &mut datagram, &listener, &clock, &door);
                let mut bodies = Vec::new();
                if !records.is_empty() {
                    bodies.push(Body::Records(Arc::new(records)));
                }
                push_dead(&mut bodies, &mut dead);
                for body in bodies {
                    let submission = Submission {
                        tenant: listener.tenant.clone(),
                        source: Arc::clone(&listener.source),
                        domain: None,
                        key: None,
                        body,
                        peer: None,
                    };
                    waiting.push(deliver(submit.as_ref(), submission, &door));
                }
            }
            () = stop.cancelled() => break,
        }
    }
    while let Some(result) = waiting.next().await {
        ended(result)?;
    }
    Ok(())
}

/// A refused sender ends a connection, not a socket that many share.
fn ended(result: Result<(), SubmitError>) -> Result<(), SubmitError> {
    match result {
        Err(SubmitError::Refused(_)) => Ok(()),
        other => other,
    }
}

/// What datagrams held.
#[derive(Default)]
struct Taken {
    records: Vec<ParsedRecord>,
    dead: Vec<DeadLetter>,
}

/// The messages that are there now.
fn batch(
    socket: &UdpSocket,
    datagram: &mut [u8],
    listener: &Validated,
    clock: &Clock,
    door: &Door,
) -> Taken {
    let context = Context { now: clock(), utc_offset_minutes: listener.utc_offset_minutes };
    let mut taken = Taken::default();
    let mut bytes = 0;
    while taken.records.len() + taken.dead.len() < BATCH && bytes < BATCH_BYTES {
        match socket.try_recv_from(datagram) {
            Ok((length, sender)) => {
                door.bytes.inc_by(length as u64);
                if !listener.admits(sender.ip()) {
                    door.refuse("sender_network");
                    continue;
                }
                let message = datagram.get(..length).unwrap_or_default();
                let blank = |byte: &u8| *byte == 0 || byte.is_ascii_whitespace();
                let end = message.iter().rposition(|byte| !blank(byte)).map_or(0, |at| at + 1);
                match message.get(..end) {
                    Some(message) if end > 0 && end <= listener.max_line => {
                        let message = Bytes::copy_from_slice(message);
                        let record = parse(&message, &context).0;
                        bytes += record.held_bytes();
                        taken.records.push(record);
                    }
                    Some(message) if end > 0 => {
                        let kept = message.get(..end.min(KEPT_OF_OVERLONG)).unwrap_or_default();
                        let letter = DeadLetter {
                            reason: format!(
                                "datagram of {end} bytes is over the limit of {}: its first {} bytes are kept",
                                listener.max_line,
                                kept.len()
                            ),
                            content_type: "line",
                            raw: Bytes::copy_from_slice(kept),
                        };
                        bytes += letter.held_bytes();
                        taken.dead.push(letter);
                        door.refuse("too_large");
                    }
                    _ => door.refuse("empty"),
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            // An ICMP answer to something that was sent from here; nothing was lost.
            Err(_) => {}
        }
    }
    taken
}
