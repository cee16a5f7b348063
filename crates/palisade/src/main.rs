//! The binary: command line, configuration, wiring. What it does is done in the other rooms.
//!
//! Exit codes: 0 fine, 1 findings or a failure, 2 usage, 3 a hunt found something (where asked for), 78 bad configuration.

mod allocator;
mod client;
mod commands;
mod config;
mod deliver;
mod event_files;
mod hunts;
mod indicators;
mod local;
mod maintenance;
mod reload;
mod rules;
mod server;

use clap::{Parser, Subcommand};
use config::{Config, ConfigError};
use reload::{SetLevel, Source};
use server::Failure;
use std::path::PathBuf;
use std::process::ExitCode;

/// Security events in, durably; threats found while they stream; SQL over all of history.
#[derive(Debug, Parser)]
#[command(name = "palisade", version, max_term_width = 110)]
struct Arguments {
    /// The configuration file; every default works without one.
    #[arg(long, short, global = true, env = "PALISADE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data directory.
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server.
    Run(commands::run::Run),
    /// Show Palisade on a simulated company: detections against what was planted.
    Demo(commands::demo::Demo),
    /// Load files.
    Ingest(commands::ingest::Ingest),
    /// Check a configuration without starting anything.
    Validate(commands::validate::Validate),
    /// Ask SQL.
    Query(commands::query::Query),
    /// Read lines, print entropy, threat score and reasons as JSON lines.
    Score(commands::score::Score),
    /// Sigma rules: check, match, test, deploy, enable and disable, report on.
    Rule(commands::rule::Rule),
    /// Look for what rules match in stored history.
    Hunt(commands::hunt::Hunt),
    /// Lists of indicators: check them, look for them in stored rows.
    Intel(commands::intel::Intel),
    /// Make, list and revoke API keys.
    Key(commands::key::Key),
    /// Look at the durable log.
    Log(commands::log::Log),
    /// Look at dead letters, try them again, or drop them.
    Dlq(commands::dlq::Dlq),
    /// Look at the tables' segments.
    Table(commands::table::Table),
    /// Measure this build on this machine.
    Bench(commands::bench::Bench),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let works_long = match &arguments.command {
        Command::Run(_) | Command::Demo(_) | Command::Hunt(_) => true,
        Command::Bench(bench) => bench.is_hunt(),
        _ => false,
    };
    if works_long {
        allocator::restart_with_settings();
    }
    if let Command::Validate(validate) = &arguments.command {
        return validate.run(arguments.config.as_deref());
    }
    let config = match configuration(&arguments) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("palisade: {error}");
            return ExitCode::from(78);
        }
    };
    let set_level = start_logging(&config, matches!(arguments.command, Command::Run(_)));
    let result = match arguments.command {
        Command::Run(run) => {
            let source = Source {
                file: arguments.config,
                data: arguments.data,
                set_level,
                hangup: true,
                ..Source::default()
            };
            run.run(&config, source)
        }
        Command::Demo(demo) => demo.run(&config),
        Command::Ingest(ingest) => ingest.run(&config),
        Command::Dlq(dlq) => dlq.run(&config),
        Command::Table(table) => table.run(&config),
        Command::Query(query) => query.run(&config),
        Command::Score(score) => score.run(),
        Command::Rule(rule) => rule.run(&config),
        Command::Hunt(hunt) => hunt.run(&config),
        Command::Intel(intel) => intel.run(&config),
        Command::Key(key) => key.run(&config),
        Command::Log(log) => log.run(&config),
        Command::Bench(bench) => bench.run(&config, arguments.data.as_deref()),
        Command::Validate(_) => Ok(ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("palisade: {error}");
        ExitCode::from(1)
    })
}

fn configuration(arguments: &Arguments) -> Result<Config, ConfigError> {
    let mut config = config::load(arguments.config.as_deref(), std::env::vars())?;
    if let Some(data) = &arguments.data {
        config.data.clone_from(data);
    }
    Ok(config)
}

/// Servers log what happens, commands only what is wrong. Everything goes to standard error. Returns how to
/// set another level.
fn start_logging(config: &Config, server: bool) -> Option<SetLevel> {
    use tracing_subscriber::EnvFilter;
    use tracing_subscriber::util::SubscriberInitExt;
    let level = if server { config.logging.level.as_str() } else { "warn" };
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    // The two formats have handles of different types.
    macro_rules! start {
        ($builder:expr) => {{
            let builder = $builder.with_filter_reloading();
            let handle = builder.reload_handle();
            let set: SetLevel = Box::new(move |level| {
                let filter = EnvFilter::try_new(level).map_err(|error| error.to_string())?;
                handle.reload(filter).map_err(|error| error.to_string())
            });
            (builder.finish().try_init(), set)
        }};
    }
    let (started, set) = if config.logging.json {
        start!(builder.json().with_target(true))
    } else {
        start!(builder)
    };
    if let Err(error) = started {
        eprintln!("palisade: no log: {error}");
        return None;
    }
    Some(set)
}

/// What a command gives back: the exit code, or a sentence about what went wrong.
type Outcome = Result<ExitCode, Failure>;
