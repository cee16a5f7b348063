//! The front doors over real sockets, with a recorder in the gateway's place.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may panic"
)]

mod clients;
mod elastic;
mod http;
mod listeners;
mod recorder;
