//! Pure detectors over batches (see `ARCHITECTURE.md`). No I/O, no clock, no randomness.

pub mod baseline;
