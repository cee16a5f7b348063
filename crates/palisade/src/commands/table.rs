//! `palisade table list|verify`.

use crate::Outcome;
use crate::config::Config;
use crate::server::{check_data, open_catalog};
use clap::{Args, Subcommand};
use indicatif::ProgressBar;
use std::process::ExitCode;

/// Look at the committed segments of the tables; the server may run meanwhile.
#[derive(Debug, Args)]
pub(crate) struct Table {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Verb {
    /// List the live segments.
    List,
    /// Read every row of every live segment and check it. Exit code 1 names what is damaged.
    Verify,
}

impl Table {
    pub(crate) fn run(self, config: &Config) -> Outcome {
        check_data(&config.data)?;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let catalog = runtime.block_on(open_catalog(config, false))?;
        let manifest = runtime.block_on(catalog.manifest())?;
        runtime.block_on(catalog.close())?;
        match self.verb {
            Verb::List => {
                println!(
                    "{:<13} {:>8} {:>12} {:>14} {:>6} {:>11} {:>11}  FILE",
                    "TABLE", "SEGMENT", "ROWS", "BYTES", "LEVEL", "FROM", "TO"
                );
                for segment in &manifest.segments {
                    println!(
                        "{:<13} {:>8} {:>12} {:>14} {:>6} {:>11} {:>11}  {}",
                        segment.table,
                        segment.id,
                        segment.rows,
                        segment.bytes,
                        segment.level,
                        segment.from.0,
                        segment.to.0,
                        segment.path
                    );
                }
                Ok(ExitCode::SUCCESS)
            }
            Verb::Verify => {
                let bar = ProgressBar::new(manifest.segments.len() as u64);
                let checked = palisade_table::verify(&config.data, &manifest, |done| {
                    bar.set_position(done as u64);
                });
                bar.finish_and_clear();
                let bad: Vec<_> =
                    checked.iter().filter(|segment| segment.error.is_some()).collect();
                for segment in &bad {
                    if let Some(error) = &segment.error {
                        println!("{} segment {}: {error}", segment.table, segment.id);
                    }
                }
                println!("{} segments, {} damaged", checked.len(), bad.len());
                Ok(ExitCode::from(u8::from(!bad.is_empty())))
            }
        }
    }
}
