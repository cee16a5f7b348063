//! `palisade intel`.

use crate::Outcome;
use crate::client::Client;
use crate::config::Config;
use crate::indicators;
use crate::reload::Source;
use crate::server::{Failure, Server, check_data};
use clap::{Args, Subcommand};
use palisade_api::indicators::MatchAnswer;
use palisade_api::indicators::history::Search;
use palisade_detect::indicators::{Indicators, Level, List, ListSpec};
use palisade_event::TenantId;
use palisade_event::schema::EVENTS;
use palisade_event::time::parse_event_time;
use palisade_pipeline::clock::{Clock, SystemClock};
use palisade_table::provider::ReadCache;
use serde_json::Value;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Lists of indicators: addresses, networks, domains, URLs, hashes, e-mail addresses.
#[derive(Debug, Args)]
pub(crate) struct Intel {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Check lists: names every line that is no indicator.
    Check {
        /// The files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Look for the indicators of a file in all rows that are stored. A running server answers; without one, the data
    /// directory is opened for this search.
    Match(Match),
}

/// Look for indicators in stored rows.
#[derive(Debug, Args)]
struct Match {
    /// The list.
    file: PathBuf,
    /// Event times from here on, for example 2026-01-31T08:00:00Z.
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Up to here, without it.
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Whose rows; a server knows that by the key.
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Rows that are told of each indicator.
    #[arg(long, default_value_t = 10)]
    rows: usize,
    /// The answer as JSON.
    #[arg(long)]
    json: bool,
    /// The server, for example https://siem.example.org.
    #[arg(long, env = "PALISADE_URL")]
    url: Option<String>,
}

impl Intel {
    pub(crate) fn run(self, config: &Config) -> Outcome {
        match self.what {
            What::Check { files } => check(&files),
            What::Match(search) => search.run(config),
        }
    }
}

fn check(files: &[PathBuf]) -> Outcome {
    let mut out = std::io::stdout().lock();
    let mut refused = 0;
    for path in files {
        let shown = path.display();
        let list =
            List::parse(&indicators::read(path)?).map_err(|error| format!("{shown}: {error}"))?;
        for line in list.refused() {
            writeln!(out, "{shown}:{}: {}", line.line, line.reason)?;
        }
        let kinds: Vec<_> =
            list.kinds().map(|(kind, count)| format!("{count} {}", kind.name())).collect();
        refused += list.refused_total();
        writeln!(
            out,
            "{shown}: {} indicators ({}), {} lines are none",
            list.len(),
            kinds.join(", "),
            list.refused_total()
        )?;
    }
    Ok(ExitCode::from(u8::from(refused > 0)))
}

impl Match {
    fn run(self, config: &Config) -> Outcome {
        let bytes = indicators::read(&self.file)?;
        let client = Client::new(self.url.as_deref(), config);
        let answer = if self.url.is_some() || client.is_up() {
            if self.tenant.is_some() {
                return Err(
                    "a running server answers for the tenant of the key in PALISADE_KEY: leave --tenant out"
                        .into(),
                );
            }
            self.ask(&client, &bytes)?
        } else {
            check_data(&config.data)?;
            self.search(config, &bytes)?
        };
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        if self.json {
            writeln!(out, "{answer}")?;
        } else {
            show(&self.file, &answer, &mut out)?;
        }
        out.flush()?;
        let complete = answer.get("complete").and_then(Value::as_bool).unwrap_or(false);
        if !complete {
            eprintln!(
                "palisade: the time was over before all rows were looked through: give --from and --to"
            );
        }
        Ok(ExitCode::from(u8::from(!complete)))
    }

    fn ask(&self, client: &Client, bytes: &[u8]) -> Result<Value, Failure> {
        let mut path = format!("/api/v1/indicators/match?rows={}", self.rows);
        for (name, value) in [("from", &self.from), ("to", &self.to)] {
            if let Some(value) = value {
                let value = percent_encoding::utf8_percent_encode(
                    value,
                    percent_encoding::NON_ALPHANUMERIC,
                );
                path.push_str(&format!("&{name}={value}"));
            }
        }
        let mut text = String::new();
        client
            .post(&path, &[("content-type", "text/plain")], bytes)?
            .take(1 << 30)
            .read_to_string(&mut text)?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Searches the data directory, in which no server runs.
    fn search(&self, config: &Config, bytes: &[u8]) -> Result<Value, Failure> {
        let tenant = match &self.tenant {
            Some(name) => TenantId::new(name)?,
            None => TenantId::default_tenant(),
        };
        let now = SystemClock::new().now();
        let time = |name: &str, text: &Option<String>, none: i64| match text {
            Some(text) => parse_event_time(text, now)
                .ok_or_else(|| format!("{name} must be a time such as 2026-01-31T08:00:00Z")),
            None => Ok(none),
        };
        let times = time("--from", &self.from, i64::MIN)?..time("--to", &self.to, i64::MAX)?;
        let list = List::parse(bytes)?;
        if list.is_empty() {
            return Err("no line of the file is an indicator: see `palisade intel check`".into());
        }
        let spec = ListSpec {
            tenant: None,
            name: String::new(),
            level: Level::default(),
            version: String::new(),
        };
        let set = Indicators::build(vec![(spec, list)])?;
        let mut alone = config.clone();
        alone.http.listen = ([127, 0, 0, 1], 0).into();
        alone.http.tls = None;
        alone.listeners.clear();
        let server = Server::start(&alone, Source::only_to_ask())?;
        if !server.engine().wait_visible(Duration::from_secs(600)) {
            return Err("the log could not be read to its end; see `palisade log verify`".into());
        }
        let snapshot = server.tables().snapshot(EVENTS);
        let begun = Instant::now();
        let search = Search {
            set: &set,
            snapshot: &snapshot,
            tenant: &tenant,
            cache: &ReadCache::new(ReadCache::DEFAULT_BYTES),
            times,
            rows: self.rows,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            go_on: &|| true,
        };
        let sightings = search.run();
        let took = begun.elapsed();
        server.stop(Duration::from_secs(60));
        Ok(serde_json::to_value(MatchAnswer::new(&set, sightings?, took))?)
    }
}

/// The answer for people.
fn show(file: &Path, answer: &Value, out: &mut impl Write) -> Result<(), Failure> {
    let text = |value: &Value, name: &str| {
        value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let number = |name: &str| answer.get(name).and_then(Value::as_u64).unwrap_or(0);
    let array = |value: &Value, name: &str| {
        value.get(name).and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let found = array(answer, "found");
    for indicator in &found {
        let about = [text(indicator, "source"), text(indicator, "note")];
        let about: Vec<_> = about.into_iter().filter(|text| !text.is_empty()).collect();
        writeln!(
            out,
            "{} {} ({}{}{}): {} times from {} to {}",
            text(indicator, "kind"),
            text(indicator, "indicator"),
            text(indicator, "level"),
            if about.is_empty() { "" } else { ", " },
            about.join(", "),
            indicator.get("count").and_then(Value::as_u64).unwrap_or(0),
            text(indicator, "first_time"),
            text(indicator, "last_time"),
        )?;
        for row in array(indicator, "rows") {
            let of = |name| text(&row, name);
            writeln!(out, "  {} {} {}={}", of("time"), of("id"), of("column"), of("value"))?;
        }
    }
    for line in array(answer, "refused") {
        let at = line.get("line").and_then(Value::as_u64).unwrap_or(0);
        eprintln!("{}:{at}: {}", file.display(), text(&line, "reason"));
    }
    writeln!(
        out,
        "{} of {} indicators found; {} rows in {} segments, {} of them read, {:.3} s",
        found.len(),
        number("indicators"),
        number("rows"),
        number("segments"),
        number("rows_read"),
        answer.get("seconds").and_then(Value::as_f64).unwrap_or(0.0),
    )?;
    Ok(())
}
