//! Pure detectors over columns: Shannon entropy, threat scores with reasons, reputation lists, indicators, and
//! per-user behavioural baselines.
//!
//! Nothing here performs I/O, reads a clock or a random number: bytes and batches in, columns and
//! decisions out.

pub mod baseline;
pub mod entropy;
pub mod indicators;
pub mod reputation;
pub mod threat;
