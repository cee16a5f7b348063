//! The laws that the fuzz targets try. Each module is one target: `run` takes any bytes and panics
//! when a law is broken. `fuzz_targets/` holds nothing but the calls.
#![allow(missing_docs, reason = "each module says what its law is")]

pub mod auth_header;
pub mod baseline_snapshot;
pub mod body_codings;
pub mod bulk_body;
pub mod configuration;
pub mod entity_index;
pub mod event_time;
pub mod file_pieces;
pub mod indicator_list;
pub mod json_body;
pub mod json_fields;
pub mod log_frame;
pub mod log_recovery;
pub mod raw_line;
pub mod reputation_list;
pub mod request_ledger;
pub mod score_line;
pub mod sigma_matcher;
pub mod sigma_rules;
pub mod source_norms;
pub mod syslog_message;
pub mod syslog_stream;
pub mod tcp_lines;

use palisade_event::decode::{DecodeLimits, RequestContext};
use palisade_event::encode::{RowEncoder, RowView};
use palisade_event::id::GatewayIdentity;

/// 2023-10-08T00:00:00Z in microseconds.
pub const CLOCK: i64 = 1_696_723_200_000_000;

/// Who sends in all targets.
pub const CTX: RequestContext<'static> = RequestContext {
    tenant: "fuzz",
    source: "fuzz",
    clock: CLOCK,
    domain: None,
    gateway: GatewayIdentity { region: 0, gateway: 0, epoch: 1 },
    request: 1,
    key: None,
};

/// Bounds that small inputs reach.
pub fn limits() -> DecodeLimits {
    DecodeLimits {
        max_record_bytes: 4_096,
        max_keys: 64,
        max_depth: 8,
        max_dynamic_columns: 16,
        max_frame_columns: 24,
        max_records_per_request: 200,
        ..DecodeLimits::default()
    }
}

/// The rows of a batch as JSON texts, as the sender sent them.
pub fn sent_rows(batch: &arrow::array::RecordBatch) -> Vec<String> {
    let encoder = RowEncoder::new(batch, RowView::Sent);
    (0..batch.num_rows())
        .map(|row| {
            let mut out = Vec::new();
            encoder.write(row, &mut out);
            String::from_utf8(out).expect("an encoded row is UTF-8")
        })
        .collect()
}

/// The first bytes as numbers that steer the trial, and the rest.
pub fn steer<const N: usize>(data: &[u8]) -> Option<([u8; N], &[u8])> {
    let (head, rest) = data.split_first_chunk::<N>()?;
    Some((*head, rest))
}

/// Cuts bytes into pieces of lengths that follow from a seed, so that a stream comes as a network
/// may bring it.
pub fn pieces(bytes: &[u8], seed: u8) -> Vec<&[u8]> {
    let mut state = u64::from(seed) | 0x100;
    let mut rest = bytes;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let longest = [1, 3, 16, 200][(seed & 3) as usize];
        let length = (1 + state as usize % longest).min(rest.len());
        let (piece, after) = rest.split_at(length);
        pieces.push(piece);
        rest = after;
    }
    pieces
}
