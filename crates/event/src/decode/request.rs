//! What goes into the decoder beside bytes, and what comes out beside rows.

use super::rows::Counters;
use crate::id::GatewayIdentity;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The bounds of decoding. Past a bound of a record, the record is refused; past a bound of columns,
/// fields go to `overflow`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Bytes of one record; default 1 MiB.
    pub max_record_bytes: usize,
    /// How deep objects and arrays may nest; default 64.
    pub max_depth: u32,
    /// Keys of one record, nested ones included; default 10,000.
    pub max_keys: u32,
    /// Dynamic columns that one source of one tenant may use in a frame; default 1,000.
    pub max_dynamic_columns: usize,
    /// Dynamic columns of one frame over all sources; default 4,000.
    pub max_frame_columns: usize,
    /// Dynamic columns that one tenant may bring in a day, over all frames of a decoder; default 4,000.
    /// Tables keep the columns of all frames, so without it ever new names would make them ever wider.
    pub max_tenant_columns: usize,
    /// Sources of one tenant that have column limits and memory of their own; default 128. The ones
    /// beyond share those of one source: a sender can't make memory grow, or get more columns, by
    /// naming ever new sources. Their records are taken as they are.
    pub max_sources: usize,
    /// Records of one request; default 500,000. The ones beyond are refused.
    pub max_records_per_request: u64,
    /// Bytes of records in one frame; default 512 MiB, which keeps offsets within 31 bits.
    pub max_frame_bytes: usize,
    /// Paths of fields that have a column whatever the limits: those that loaded rules and shipped
    /// mappings name.
    pub protected: Arc<BTreeSet<String>>,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self {
            max_record_bytes: 1 << 20,
            max_depth: 64,
            max_keys: 10_000,
            max_dynamic_columns: 1_000,
            max_frame_columns: 4_000,
            max_tenant_columns: 4_000,
            max_sources: 128,
            max_records_per_request: 500_000,
            max_frame_bytes: 512 << 20,
            protected: Arc::default(),
        }
    }
}

/// Whose records a request brings, and when.
#[derive(Debug, Clone, Copy)]
pub struct RequestContext<'a> {
    /// The tenant.
    pub tenant: &'a str,
    /// The listener or stream that it came by.
    pub source: &'a str,
    /// The gateway's clock, in microseconds since the epoch (T1).
    pub clock: i64,
    /// The time domain (T2); none means `live`.
    pub domain: Option<&'a str>,
    /// Who takes the request.
    pub gateway: GatewayIdentity,
    /// The request's sequence number at the gateway.
    pub request: u64,
    /// The idempotency key, if the client sent one (L4).
    pub key: Option<&'a str>,
}

impl RequestContext<'_> {
    pub(super) fn is_live(&self) -> bool {
        crate::domain::is_live(self.domain)
    }
}

/// What became of the records of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// How many became rows.
    pub accepted: u64,
    /// The index in the request and the reason of each refused record; at most
    /// [`Outcome::MOST_REASONS`] are kept.
    pub rejected: Vec<(u64, String)>,
    /// How many were refused in all.
    pub rejected_total: u64,
}

impl Outcome {
    /// How many reasons are kept.
    pub const MOST_REASONS: usize = 1_000;

    /// How many records were seen: each was accepted or rejected.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.accepted + self.rejected_total
    }

    pub(super) fn reject(&mut self, reason: impl FnOnce() -> String) {
        if self.rejected.len() < Self::MOST_REASONS {
            self.rejected.push((self.seen(), reason()));
        }
        self.rejected_total += 1;
    }
}

/// What was noticed in the frame being built; [`FrameBuilder::finish`] begins anew.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DecodeStats {
    /// Fields that stand in `overflow`, for whatever reason.
    pub overflow_fields: u64,
    /// Names of fields that got no column because of a limit.
    pub limited_fields: u64,
    /// Records of sources past their tenant's bound ([`DecodeLimits::max_sources`]).
    pub further_source_records: u64,
    /// The tenants and sources that reached the column limit, sorted; further sources stand together
    /// as [`super::FURTHER_SOURCES`].
    pub limited_sources: Vec<(String, String)>,
    /// Times over five minutes ahead of the clock, kept in `claimed_time` (T4).
    pub future_times: u64,
    /// Fields named like a time that do not read as one.
    pub unread_times: u64,
    /// Halves of surrogate pairs that were replaced by U+FFFD.
    pub replaced_surrogates: u64,
}

/// A place in a frame to go back to: [`FrameBuilder::rollback`].
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    pub(super) rows: u32,
    pub(super) frame: u64,
    pub(super) stats: Counters,
}

/// The value of a field that some other parser found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FieldValue<'a> {
    /// A text.
    Text(&'a str),
    /// An integer.
    Int(i64),
    /// A number; one that is not finite is left out.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// A moment in microseconds since the epoch.
    Time(i64),
    /// Valid JSON text of any value.
    Json(&'a str),
}
