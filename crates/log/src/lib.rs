//! The durable log of one process: entries in, fsynced, in order, and out again.
//!
//! What it promises (`SEMANTICS.md`): one request is in one frame, all of it or nothing (L1); what is acknowledged
//! survives whatever the process or the machine does, and nothing that was not durable is ever read (L2); files are
//! durable before anything refers to them (L3); idempotency keys travel in the frames (L4).
//!
//! - [`encode`] turns an entry into bytes on the caller's thread;
//! - [`Log::append`] queues it, one writer thread fsyncs what many appended, then says so;
//! - [`Log::subscribe`] hands on every durable entry, [`Log::read`] reads them back;
//! - [`inspect`] and [`verify`] look at a directory without opening it for writing.
//!
//! The format on disk is described in [`format`] and [`codec`].

pub mod codec;
pub mod disk;
mod error;
pub mod format;
mod inspect;
mod log;
mod reader;
mod recovery;
mod segment;
mod stats;
mod writer;

#[cfg(test)]
mod law;

pub use codec::{Encoded, Encoder, encode};
pub use error::LogError;
pub use inspect::{FrameReport, SegmentReport, Verification, controls, frames, inspect, verify};
pub use log::{Deliver, Done, Log, LogOptions, Refused, Retention};
pub use reader::{LogReader, StoredEntry};
pub use recovery::{Cut, Recovery};
pub use stats::{FSYNC_BUCKETS_MICROS, LogStats};
