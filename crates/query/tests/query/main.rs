//! The query engine at its public edge. One binary, because linking the SQL engine takes longer than all
//! of these tests.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "tests may panic; their modules are shared within this binary"
)]

mod aggregates;
mod distinct;
mod few;
mod formats;
mod hostile;
mod ids;
mod isolation;
mod limits;
mod parts;
mod reach;
mod reading;
mod search;
mod support;
