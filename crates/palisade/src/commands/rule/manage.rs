//! `palisade rule deploy|remove|enable|disable|severity|exception|report`: rules of a server. A running one is asked;
//! without one, the data directory is opened for the command.

use crate::Outcome;
use crate::client::Client;
use crate::config::{Config, Span};
use crate::local::with_server;
use crate::rules;
use crate::server::Failure;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use palisade_pipeline::clock::{Clock, SystemClock};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Which server, and whose rules.
#[derive(Debug, Args)]
pub(super) struct Where {
    /// The tenant. A server is asked with the key in PALISADE_KEY, which must be of this tenant.
    #[arg(long)]
    tenant: Option<String>,
    /// The server, for example https://siem.example.org.
    #[arg(long, env = "PALISADE_URL")]
    url: Option<String>,
}

impl Where {
    fn ask<T>(
        &self,
        config: &Config,
        work: impl FnOnce(&Client) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        with_server(self.url.as_deref(), self.tenant.as_deref(), config, work)
    }

    fn owner(&self) -> &'static str {
        if self.tenant.is_some() { "tenant" } else { "installation" }
    }
}

/// Put rules in force.
#[derive(Debug, Args)]
pub(super) struct Deploy {
    /// Files and directories of rules.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Let rules take the place of deployed ones with the same id.
    #[arg(long)]
    replace: bool,
    /// Report on them before (see `palisade rule report`).
    #[arg(long)]
    report: bool,
    /// How many days of history the report looks at.
    #[arg(long, default_value_t = 30)]
    days: u32,
    /// Read history for them too: so far back (`90d`, `12h`), or `all`. They are in force for new records meanwhile.
    #[arg(long, value_name = "TIME")]
    backfill: Option<String>,
    /// Stay in force when history is read, which they do anyway: says so where that matters to a reader.
    #[arg(long, requires = "backfill")]
    then_live: bool,
    /// Don't wait until history is read.
    #[arg(long, requires = "backfill")]
    no_wait: bool,
    #[command(flatten)]
    place: Where,
}

/// What rules would cost, how often they would alert, and what they can't see.
#[derive(Debug, Args)]
pub(super) struct Report {
    /// Files and directories of rules.
    #[arg(required_unless_present = "id")]
    paths: Vec<PathBuf>,
    /// Also rules that are loaded, by their ids.
    #[arg(long)]
    id: Vec<String>,
    /// How many days of history to look at.
    #[arg(long, default_value_t = 30)]
    days: u32,
    #[command(flatten)]
    place: Where,
}

/// One rule.
#[derive(Debug, Args)]
pub(super) struct OfRule {
    /// The rule's id.
    id: String,
    #[command(flatten)]
    place: Where,
}

/// Set the severity of a rule.
#[derive(Debug, Args)]
pub(super) struct Severity {
    /// The rule's id.
    id: String,
    /// informational, low, medium, high, critical; `original` for the rule's own.
    level: String,
    #[command(flatten)]
    place: Where,
}

/// Leave out matches of rules.
#[derive(Debug, Args)]
pub(super) struct Exception {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make an exception, or replace the one of its name.
    Add(Add),
    /// List the exceptions, as JSON lines.
    List {
        #[command(flatten)]
        place: Where,
    },
    /// End an exception.
    Remove {
        /// Its name.
        name: String,
        #[command(flatten)]
        place: Where,
    },
}

/// Make an exception.
#[derive(Debug, Args)]
struct Add {
    /// Its name.
    name: String,
    /// The id of a rule that it is for; several are possible.
    #[arg(long = "rule", required_unless_present = "filter")]
    rules: Vec<String>,
    /// What matches must have to be left out: `field=value`, with the modifiers and wildcards of Sigma
    /// (`CommandLine|contains=backup`); all of several.
    #[arg(long = "match", value_name = "FIELD=VALUE", required_unless_present = "filter")]
    matching: Vec<String>,
    /// A file with a Sigma filter, instead of the two.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["rules", "matching"])]
    filter: Option<PathBuf>,
    /// Why.
    #[arg(long)]
    reason: String,
    /// Up to which clock of a record it holds, RFC 3339; without an end if none.
    #[arg(long)]
    until: Option<String>,
    #[command(flatten)]
    place: Where,
}

/// Files as the server takes them.
fn files(paths: &[PathBuf]) -> Result<Vec<Value>, Failure> {
    let found = rules::find(paths)?;
    if found.is_empty() && !paths.is_empty() {
        return Err("there are no rules (.yml, .yaml) at these paths".into());
    }
    let files = rules::read_files(&found)?.into_iter();
    Ok(files.map(|file| json!({"name": file.name, "text": file.text})).collect())
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn words<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Says which set is in force.
fn in_force(answer: &Value) {
    eprintln!("In force: set {}", words(answer, "set"));
}

fn refusals(of: &[Value], out: &mut impl Write) -> Result<(), Failure> {
    for refusal in of {
        let line = refusal.get("line").and_then(Value::as_u64);
        let line = line.map(|line| format!(":{line}")).unwrap_or_default();
        let rule = refusal.get("rule").and_then(Value::as_str).map(|rule| format!(": {rule}"));
        let [file, kind, reason, hint] =
            ["file", "kind", "reason", "hint"].map(|key| words(refusal, key));
        writeln!(out, "{file}{line}{}: {kind}: {reason} ({hint})", rule.unwrap_or_default())?;
    }
    Ok(())
}

impl Deploy {
    pub(super) fn run(self, config: &Config, out: &mut impl Write) -> Outcome {
        let files = files(&self.paths)?;
        let backfill = self.backfill.as_deref().map(history).transpose()?;
        let answer = self.place.ask(config, |client| {
            if self.report {
                let body = json!({"files": files, "days": self.days});
                print_report(&client.json("POST", "/api/v1/rules/report", Some(&body))?, out)?;
            }
            let body = json!({"files": files, "replace": self.replace, "backfill": backfill});
            let path = format!("/api/v1/rules?owner={}", self.place.owner());
            let answer = client.json("POST", &path, Some(&body))?;
            if backfill.is_some() && !self.no_wait && !list(&answer, "deployed").is_empty() {
                wait_for_history(client)?;
            }
            Ok(answer)
        })?;
        refusals(list(&answer, "refused"), out)?;
        let broken = list(&answer, "broken");
        if !broken.is_empty() {
            writeln!(out, "Loaded before and not any more:")?;
            refusals(broken, out)?;
        }
        let number = |key| list(&answer, key).len();
        let refused = number("refused");
        writeln!(
            out,
            "{} deployed, {} unchanged, {refused} refused",
            number("deployed"),
            number("unchanged")
        )?;
        in_force(&answer);
        Ok(if refused == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}

/// What `--backfill` says, as the server takes it.
fn history(text: &str) -> Result<Value, Failure> {
    if text == "all" {
        return Ok(json!({"from": null}));
    }
    let back: Span = serde_json::from_value(json!(text)).map_err(|error| {
        format!("--backfill takes `all` or a time like 90d, 12h or 30m, not '{text}': {error}")
    })?;
    let now = SystemClock::new().now();
    let from = now.saturating_sub(i64::try_from(back.0.as_micros()).unwrap_or(i64::MAX));
    Ok(json!({"from": from / 1000}))
}

/// Shows how far history is read, until all is.
fn wait_for_history(client: &Client) -> Result<(), Failure> {
    let bar = ProgressBar::new_spinner().with_style(ProgressStyle::with_template(
        "{elapsed_precise} {spinner} history: {human_pos} rows read, {msg} matches",
    )?);
    loop {
        let config = client.json("GET", "/api/v1/config", None)?;
        let number =
            |key| config.pointer(&format!("/backfill/{key}")).and_then(Value::as_u64).unwrap_or(0);
        bar.set_position(number("rows"));
        bar.set_message(number("found").to_string());
        if config.pointer("/backfill/done").is_none_or(|done| *done == true) {
            bar.finish_and_clear();
            eprintln!("History is read: {} rows, {} matches", number("rows"), number("found"));
            return Ok(());
        }
        std::thread::park_timeout(Duration::from_millis(200));
    }
}

impl Report {
    pub(super) fn run(self, config: &Config, out: &mut impl Write) -> Outcome {
        let files = files(&self.paths)?;
        let body = json!({"files": files, "ids": self.id, "days": self.days});
        let ask = |client: &Client| client.json("POST", "/api/v1/rules/report", Some(&body));
        let answer = self.place.ask(config, ask)?;
        if std::io::stdout().is_terminal() {
            print_report(&answer, out)?;
        } else {
            writeln!(out, "{answer}")?;
        }
        let refused = list(&answer, "refused").is_empty();
        Ok(if refused { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}

/// A report as a table.
fn print_report(report: &Value, out: &mut impl Write) -> Result<(), Failure> {
    let number = |of: &Value, key: &str| of.get(key).and_then(Value::as_f64);
    let whole = |key: &str| report.get(key).and_then(Value::as_u64).unwrap_or(0);
    let days = number(report, "days").unwrap_or_default();
    writeln!(out, "{} of {} events of {days:.1} days looked at", whole("sampled"), whole("rows"))?;
    if let Some(micros) = number(report, "micros_per_million") {
        writeln!(out, "All together: {:.3} s of one core for a million events", micros / 1e6)?;
    }
    writeln!(out, "{:>12} {:>12}  {:<13} RULE", "ALERTS/DAY", "S/M EVENTS", "LEVEL")?;
    for rule in list(report, "rules") {
        let cost = number(rule, "micros_per_million");
        let cost = cost.map_or_else(|| "-".to_owned(), |micros| format!("{:.3}", micros / 1e6));
        writeln!(
            out,
            "{:>12.1} {cost:>12}  {:<13} {}  {}",
            number(rule, "alerts_per_day").unwrap_or_default(),
            words(rule, "level"),
            words(rule, "id"),
            words(rule, "title"),
        )?;
        if rule.get("blind") == Some(&Value::Bool(true)) {
            writeln!(out, "{:>12} can't match anything that is sent", "BLIND:")?;
        }
        if rule.get("source_rows").and_then(Value::as_u64) == Some(0) {
            let source = rule.get("source").and_then(Value::as_object);
            let names = source.into_iter().flat_map(Map::values).filter_map(Value::as_str);
            let names: Vec<&str> = names.collect();
            writeln!(out, "{:>12} no event of {}", "", names.join("/"))?;
        }
        let missing: Vec<&str> = list(rule, "missing").iter().filter_map(Value::as_str).collect();
        if !missing.is_empty() {
            writeln!(out, "{:>12} never sent: {}", "", missing.join(", "))?;
        }
    }
    for correlation in list(report, "correlations") {
        let rate = number(correlation, "alerts_per_day");
        let rate = rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}"));
        let (id, title) = (words(correlation, "id"), words(correlation, "title"));
        writeln!(out, "{rate:>12} {:>12}  {:<13} {id}  {title}", "", "correlation")?;
    }
    if report.get("searched_all") == Some(&Value::Bool(false)) {
        writeln!(out, "Time was up: a field called never sent may have been sent long ago")?;
    }
    refusals(list(report, "refused"), out)
}

impl OfRule {
    pub(super) fn remove(self, config: &Config) -> Outcome {
        let path = format!("/api/v1/rules/{}?owner={}", encoded(&self.id), self.place.owner());
        let answer = self.place.ask(config, |client| client.json("DELETE", &path, None))?;
        in_force(&answer);
        Ok(ExitCode::SUCCESS)
    }

    pub(super) fn enable(self, config: &Config, enabled: bool) -> Outcome {
        change(&self.id, &self.place, config, &json!({"enabled": enabled}))
    }
}

fn change(id: &str, place: &Where, config: &Config, body: &Value) -> Outcome {
    let path = format!("/api/v1/rules/{}", encoded(id));
    let answer = place.ask(config, |client| client.json("PATCH", &path, Some(body)))?;
    in_force(&answer);
    Ok(ExitCode::SUCCESS)
}

impl Severity {
    pub(super) fn run(self, config: &Config) -> Outcome {
        change(&self.id, &self.place, config, &json!({"severity": self.level}))
    }
}

impl Exception {
    pub(super) fn run(self, config: &Config, out: &mut impl Write) -> Outcome {
        const PATH: &str = "/api/v1/rules/exceptions";
        match self.what {
            What::Add(add) => {
                let body = add.body()?;
                let ask = |client: &Client| client.json("POST", PATH, Some(&body));
                in_force(&add.place.ask(config, ask)?);
            }
            What::List { place } => {
                let answer = place.ask(config, |client| client.json("GET", PATH, None))?;
                for exception in list(&answer, "exceptions") {
                    writeln!(out, "{exception}")?;
                }
            }
            What::Remove { name, place } => {
                let path = format!("{PATH}/{}", encoded(&name));
                in_force(&place.ask(config, |client| client.json("DELETE", &path, None))?);
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Add {
    fn body(&self) -> Result<Value, Failure> {
        let mut body = json!({"name": self.name, "reason": self.reason});
        let mut set = |key: &str, value: Value| {
            if let Some(body) = body.as_object_mut() {
                body.insert(key.to_owned(), value);
            }
        };
        if let Some(until) = &self.until {
            set("until", json!(until));
        }
        match &self.filter {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| format!("can't read {}: {error}", path.display()))?;
                set("filter", json!(text));
            }
            None => {
                let mut matching = Map::new();
                for pair in &self.matching {
                    let (field, value) = pair.split_once('=').ok_or_else(|| {
                        format!("'{pair}' is no condition: write it as FIELD=VALUE")
                    })?;
                    matching.insert(field.to_owned(), json!(value));
                }
                set("rules", json!(self.rules));
                set("matching", Value::Object(matching));
            }
        }
        Ok(body)
    }
}
