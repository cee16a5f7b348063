//! Frames and log entries: the unit that the gateway writes, the log keeps and the pipeline reads.
//!
//! A frame is one Arrow batch of one stream, coalesced over the requests of the same few
//! milliseconds (L1). An entry is what stands in the log at one offset: a frame of records, a tick
//! of the gateway's clock (T3), or a control record (C1).

use crate::id::GatewayIdentity;
use arrow::array::RecordBatch;

/// The place of an entry in the log: entries are numbered from 0 without gaps.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct Offset(pub u64);

impl Offset {
    /// The offset after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The value of the column `position` for a row of the frame at this offset.
    #[must_use]
    pub fn position(self, row: usize) -> u64 {
        (self.0 << 20) | (row as u64 & 0xf_ffff)
    }
}

/// The most rows that a frame may have: rows are numbered with 20 bits in `position`.
pub const MAX_FRAME_ROWS: usize = 1 << 20;

/// What stands at one offset of the log.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// Records.
    Frame(Frame),
    /// The gateway's clock, in microseconds since the epoch: time itself, as data (T3).
    Tick {
        /// The clock.
        clock: i64,
        /// Whose clock it is.
        gateway: GatewayIdentity,
    },
    /// A control record: a gateway joins, a list is activated, an operator's version (C1, C3).
    Control {
        /// The clock at which it was written.
        clock: i64,
        /// What kind of control record, for example `gateway_joins`.
        kind: String,
        /// Its content, a JSON text.
        body: String,
    },
}

/// The kinds of entries, as the log numbers them on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum EntryKind {
    /// [`Entry::Frame`].
    Frame = 1,
    /// [`Entry::Tick`].
    Tick = 2,
    /// [`Entry::Control`].
    Control = 3,
}

/// One batch of records of one stream, with the requests that brought them.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// The stream: `events` or `dead_letters`.
    pub stream: String,
    /// The gateway's clock at which the frame was closed, in microseconds since the epoch: not
    /// below any row's `ingest_time`, monotone per gateway (T1).
    pub clock: i64,
    /// Who took the records.
    pub gateway: GatewayIdentity,
    /// The requests with an origin (L4) that this frame holds; requests without one are not listed.
    pub requests: Vec<RequestEntry>,
    /// The records.
    pub batch: RecordBatch,
}

/// A request with an idempotency key: what is needed to give a repeat its first answer.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RequestEntry {
    /// The tenant whose key it is.
    pub tenant: String,
    /// The key as the client sent it.
    pub key: String,
    /// XXH3-128 of the body as received (after content decoding), 32 hexadecimal digits.
    pub body_hash: String,
    /// The gateway's clock when the request was taken, in microseconds: keys are kept 24 h.
    pub clock: i64,
    /// How many records were accepted.
    pub accepted: u64,
    /// The index in the request and the reason of each refused record (at most 1,000 are kept).
    pub rejected: Vec<(u64, String)>,
    /// How many were refused in all.
    pub rejected_total: u64,
}
