//! `palisade bench`: measurements that anyone can repeat; `--json` prints fixed keys.

mod child;
mod crash;
mod hunt;
mod ingest;
mod query;
mod rules;
mod sigma;

use crate::Outcome;
use crate::config::Config;
use clap::{Args, Subcommand};
use std::path::Path;

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
    /// Rules over stored history: all of them, and some alone.
    Hunt(hunt::Hunt),
    /// Ingestion over HTTP on loopback: CPU per event, rate, latencies, stored bytes, memory.
    Ingest(ingest::Ingest),
    /// Queries against ClickHouse's engine on the same files, or StreamGuard's endpoints over HTTP.
    Query(query::Query),
    /// What rules and correlations cost a running server, and how soon alerts arrive.
    Rules(rules::Rules),
    /// Sigma rules on Windows events, beside rsigma-eval with routing on.
    Sigma(sigma::Sigma),
}

impl Bench {
    /// Whether it measures hunts, which work in this process as a server does.
    pub(crate) fn is_hunt(&self) -> bool {
        matches!(self.what, What::Hunt(_))
    }

    /// `data` is the directory that the command line names, if it does.
    pub(crate) fn run(self, config: &Config, data: Option<&Path>) -> Outcome {
        match self.what {
            What::Crash(crash) => crash.run(),
            What::Hunt(hunt) => hunt.run(config, data),
            What::Ingest(ingest) => ingest.run(),
            What::Query(query) => query.run(config, data),
            What::Rules(rules) => rules.run(),
            What::Sigma(sigma) => sigma.run(),
        }
    }
}
