//! Decoding and encoding at the public edge.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    unreachable_pub,
    reason = "tests may stop"
)]

mod bodies;
mod columns;
mod crowdsec;
mod golden;
mod laws;
mod lines;
mod support;
