//! `palisade bench`: measurements that anyone can repeat; `--json` prints fixed keys.

mod child;
mod crash;
mod ingest;

use crate::Outcome;
use clap::{Args, Subcommand};

/// Measure this build on this machine.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Kill servers under load: nothing acknowledged may be lost, nothing doubled, no alert differ.
    Crash(crash::Crash),
    /// Ingestion over HTTP on loopback: CPU per event, rate, latencies, stored bytes, memory.
    Ingest(ingest::Ingest),
}

impl Bench {
    pub(crate) fn run(self) -> Outcome {
        match self.what {
            What::Crash(crash) => crash.run(),
            What::Ingest(ingest) => ingest.run(),
        }
    }
}
