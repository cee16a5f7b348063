//! Pure detectors over columns: Shannon entropy, threat scores with reasons, and reputation lists.
//!
//! Nothing here performs I/O, reads a clock or a random number: bytes and batches in, columns and
//! decisions out.

pub mod entropy;
pub mod reputation;
pub mod threat;
//! Pure detectors over batches (see `ARCHITECTURE.md`). No I/O, no clock, no randomness.
pub mod baseline;
