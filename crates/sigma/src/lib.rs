//! Sigma rules and correlations over columns, pure: rules and batches in, matches and alerts out. No I/O, no clock.

pub mod correlation;
