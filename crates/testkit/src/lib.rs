//! What tests and measurements need: generated data, loads, crashes.

pub mod streamguard;
//! testkit
pub mod simulator;
