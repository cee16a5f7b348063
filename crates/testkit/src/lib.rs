//! What tests and measurements need: generated data, loads, crashes.

pub mod simulator;
pub mod streamguard;
