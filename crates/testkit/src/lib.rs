//! What tests and measurements need: generated data, loads, crashes.

pub mod load;
pub mod simulator;
pub mod streamguard;
