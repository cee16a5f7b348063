//! `palisade validate`.

use crate::config;
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Check a configuration: opens no file but itself and no socket.
#[derive(Debug, Args)]
pub(crate) struct Validate {
    /// The file; without it the one of --config.
    file: Option<PathBuf>,
    /// Print every key with its default and what it means.
    #[arg(long)]
    defaults: bool,
    /// Print the JSON Schema.
    #[arg(long)]
    schema: bool,
    /// Print the configuration as it would be used.
    #[arg(long)]
    show: bool,
}

impl Validate {
    pub(crate) fn run(&self, given: Option<&Path>) -> ExitCode {
        if self.defaults {
            print!("{}", config::DEFAULTS);
            return ExitCode::SUCCESS;
        }
        if self.schema {
            println!("{:#}", config::schema());
            return ExitCode::SUCCESS;
        }
        let file = self.file.as_deref().or(given);
        match config::load(file, std::env::vars()) {
            Ok(config) => {
                if self.show {
                    match serde_json::to_string_pretty(&config) {
                        Ok(text) => println!("{text}"),
                        Err(error) => eprintln!("palisade: {error}"),
                    }
                } else {
                    println!(
                        "{} is fine",
                        file.map_or("the default configuration".into(), |file| file
                            .display()
                            .to_string())
                    );
                }
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("palisade: {error}");
                ExitCode::from(78)
            }
        }
    }
}
