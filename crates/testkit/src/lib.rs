//! testkit

pub mod simulator;
