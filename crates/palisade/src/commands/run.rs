//! `palisade run`.

use crate::Outcome;
use crate::config::Config;
use crate::reload::Source;
use crate::server::Server;
use clap::Args;
use std::process::ExitCode;
use std::time::Duration;

/// Run the server.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// How long to wait at the end until everything is committed; the rest is done at the next start.
    #[arg(long, default_value = "60", value_name = "SECONDS")]
    drain: u64,
}

impl Run {
    pub(crate) fn run(self, config: &Config, source: Source) -> Outcome {
        let server = Server::start(config, source)?;
        let signals = server.signals()?;
        let url = server.url();
        println!("Palisade listens on {url}, data in {}", config.data.display());
        println!("  send   curl {url}/api/v1/streams/events/records --data-binary @events.jsonl");
        println!("  ask    palisade query \"SELECT type, count(*) FROM events GROUP BY type\"");
        println!("  look   {url}/");
        if let Some(message) = server.wait(signals) {
            eprintln!("palisade: stopped: {message}");
            // Nothing more may be acknowledged, and a drain could hang on what is broken.
            std::process::exit(1);
        }
        eprintln!("palisade: stopping, everything acknowledged is being committed");
        if server.stop(Duration::from_secs(self.drain)) {
            Ok(ExitCode::SUCCESS)
        } else {
            Err("not everything could be committed in time; nothing is lost, it is in the log and will be committed at the next start".into())
        }
    }
}
