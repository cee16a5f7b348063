//! `palisade ingest PATH…`.

use crate::Outcome;
use crate::client::{Client, RemoteDoor};
use crate::config::Config;
use crate::reload::Source;
use crate::server::{Failure, Server};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use palisade_event::TenantId;
use palisade_ingest::files::{self, LoadOptions, LoadReport, Progress};
use palisade_ingest::submit::Submit;
use palisade_pipeline::clock::{Clock, SystemClock};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Load files: JSON lines, arrays and concatenated JSON, syslog and plain text, also gzip and zstd.
/// Formats are recognised by content. A running server takes the records; without one, the data
/// directory is opened for the load.
#[derive(Debug, Args)]
pub(crate) struct Ingest {
    /// Files and directories.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// The tenant, when no server runs; a server takes the tenant from the key.
    #[arg(long, default_value = TenantId::DEFAULT)]
    tenant: String,
    /// What the clocks of the files' writers were ahead of UTC, in minutes.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    utc_offset_minutes: i32,
    /// The server, for example https://siem.example.org.
    #[arg(long, env = "PALISADE_URL")]
    url: Option<String>,
}

impl Ingest {
    pub(crate) fn run(self, config: &Config) -> Outcome {
        let client = Client::new(self.url.as_deref(), config);
        if self.url.is_some() || client.is_up() {
            eprintln!("Loading into the server at {}", client.url());
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()?;
            let door: Arc<dyn Submit> = Arc::new(RemoteDoor::new(client));
            let report = runtime.block_on(self.load(door.as_ref()))?;
            return show(&report);
        }
        eprintln!("No server answers at {}; loading into {}", client.url(), config.data.display());
        let mut alone = config.clone();
        alone.http.listen = ([127, 0, 0, 1], 0).into();
        alone.http.tls = None;
        alone.listeners.clear();
        let server = Server::start(&alone, Source::default())?;
        let submit = Arc::clone(server.submit());
        let report = server.block_on(self.load(submit.as_ref()));
        if !server.stop(Duration::from_secs(600)) {
            eprintln!(
                "palisade: not everything is in segments yet; the rest is in the log and follows at the next start"
            );
        }
        show(&report?)
    }

    async fn load(&self, submit: &dyn Submit) -> Result<LoadReport, Failure> {
        let plan = files::plan(&self.paths)?;
        let bar = ProgressBar::new(plan.bytes()).with_style(ProgressStyle::with_template(
            "{elapsed_precise} {wide_bar} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left  {msg}",
        )?);
        let mut options = LoadOptions::new(TenantId::new(&self.tenant)?, SystemClock::new().now());
        options.utc_offset_minutes = self.utc_offset_minutes;
        let mut progress = |progress: &Progress<'_>| {
            bar.set_position(progress.bytes_done);
            bar.set_message(format!("{} records", progress.accepted));
        };
        let begun = Instant::now();
        let report = files::load(plan, submit, &options, &mut progress).await?;
        bar.finish_and_clear();
        eprintln!("{:.1} s", begun.elapsed().as_secs_f64());
        Ok(report)
    }
}

/// What became of each file; exit code 1 when records were refused.
fn show(report: &LoadReport) -> Outcome {
    println!("{:>12} {:>10}  {:<12} FILE", "ACCEPTED", "REFUSED", "FORMAT");
    for file in &report.files {
        let format = file.format.map_or("-", files::Format::as_str);
        println!(
            "{:>12} {:>10}  {format:<12} {}",
            file.accepted,
            file.refused,
            file.path.display()
        );
        if let Some(reason) = &file.skipped {
            println!("{:>26}skipped: {reason}", "");
        }
        if file.repeated > 0 {
            println!("{:>26}{} records were loaded before", "", file.repeated);
        }
        for (reason, count) in &file.reasons {
            println!("{:>26}{count} refused: {reason}", "");
        }
    }
    println!(
        "{:>12} {:>10}  in all, time domain {}",
        report.accepted(),
        report.refused(),
        report.domain
    );
    Ok(ExitCode::from(u8::from(report.refused() > 0)))
}
