//! Rules and batches in, matches out: what the specification says, the same whatever the columns, and
//! the same as the oracles say.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may panic"
)]

#[path = "../support/mod.rs"]
mod support;

mod differential;
mod loading;
mod modifiers;
mod oracle;
mod press;
mod properties;
mod shapes;
mod steps;
