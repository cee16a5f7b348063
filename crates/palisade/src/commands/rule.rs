//! `palisade rule`: Sigma rules on files, without a server, and those of a server ([`manage`]).

use crate::config::Config;
use crate::event_files::{self, Events};
use crate::server::Failure;
use crate::{Outcome, rules};
use clap::{Args, Subcommand};
use palisade_pipeline::rules::Rules;
use palisade_sigma::Hits;
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

mod manage;
mod test;

/// Sigma rules: check, match, test, deploy, enable and disable, report on.
#[derive(Debug, Args)]
pub(crate) struct Rule {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Check rules: names every document that can't be loaded, with file, line, reason and a hint.
    Lint {
        /// Files and directories of rules; those of the configuration without one.
        rules: Vec<PathBuf>,
        /// JSON lines.
        #[arg(long)]
        json: bool,
    },
    /// List the rules and correlations that are loaded.
    List {
        /// Files and directories of rules; those of the configuration without one.
        rules: Vec<PathBuf>,
        /// JSON lines.
        #[arg(long)]
        json: bool,
    },
    /// Match rules on files of events: a line for each event that a rule matches.
    Match(Match),
    /// Say which part of a rule's condition matches which value of an event.
    Explain(Explain),
    /// Run the tests of rules (`*.test.yml` beside them).
    Test(test::Test),
    /// Put rules in force: those of a tenant, or of the installation without one.
    Deploy(manage::Deploy),
    /// Take a deployed rule out of force.
    Remove(manage::OfRule),
    /// Enable a rule for a tenant.
    Enable(manage::OfRule),
    /// Disable a rule for a tenant.
    Disable(manage::OfRule),
    /// Set the severity of a rule for a tenant.
    Severity(manage::Severity),
    /// Leave out some matches of rules for a tenant.
    Exception(manage::Exception),
    /// Say what rules would cost, how often they would alert, and what they can't see.
    Report(manage::Report),
}

/// Match rules on files of events.
#[derive(Debug, Args)]
struct Match {
    /// Files and directories of rules; those of the configuration without one.
    #[arg(long)]
    rules: Vec<PathBuf>,
    /// A file or directory of events: JSON or text, packed or not.
    #[arg(long)]
    events: PathBuf,
    /// JSON lines with the keys `file`, `index` (of the event in it, from 0) and `rules` (their ids).
    #[arg(long)]
    json: bool,
}

/// Say why a rule matches an event, or why not.
#[derive(Debug, Args)]
struct Explain {
    /// Files and directories of rules; those of the configuration without one.
    #[arg(long)]
    rules: Vec<PathBuf>,
    /// The file of the event.
    #[arg(long)]
    events: PathBuf,
    /// Which event of the file, from 0.
    #[arg(long, default_value_t = 0)]
    index: usize,
    /// The id of a rule; all that match without one.
    #[arg(long)]
    rule: Option<String>,
}

fn load(config: &Config, paths: &[PathBuf]) -> Result<Rules, Failure> {
    let paths = if paths.is_empty() { &config.detect.rules } else { paths };
    if paths.is_empty() {
        return Err("no rules: name files or directories of rules, here or in detect.rules of the configuration".into());
    }
    rules::load(paths)
}

impl Rule {
    pub(crate) fn run(self, config: &Config) -> Outcome {
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        let code = match self.what {
            What::Lint { rules, json } => lint(&load(config, &rules)?, json, &mut out)?,
            What::List { rules, json } => list(&load(config, &rules)?, json, &mut out)?,
            What::Match(found) => {
                let loaded = load(config, &found.rules)?;
                warn_of_refused(&loaded);
                found.run(&loaded, &mut out)?
            }
            What::Explain(explain) => {
                let loaded = load(config, &explain.rules)?;
                explain.run(&loaded, &mut out)?
            }
            What::Test(test) => test.run(config, &mut out)?,
            What::Deploy(deploy) => deploy.run(config, &mut out)?,
            What::Remove(rule) => rule.remove(config)?,
            What::Enable(rule) => rule.enable(config, true)?,
            What::Disable(rule) => rule.enable(config, false)?,
            What::Severity(severity) => severity.run(config)?,
            What::Exception(exception) => exception.run(config, &mut out)?,
            What::Report(report) => report.run(config, &mut out)?,
        };
        out.flush()?;
        Ok(code)
    }
}

fn warn_of_refused(rules: &Rules) {
    let refused = rules.book.refused().len();
    if refused > 0 {
        eprintln!("{refused} documents are not loaded: `palisade rule lint` names them");
    }
}

fn lint(rules: &Rules, json: bool, out: &mut impl Write) -> Result<ExitCode, Failure> {
    let book = &rules.book;
    for refusal in book.refused() {
        if json {
            let line = json!({
                "kind": refusal.kind.name(), "file": &*refusal.file, "line": refusal.line,
                "rule": refusal.rule, "reason": refusal.reason, "hint": refusal.hint,
            });
            writeln!(out, "{line}")?;
        } else {
            writeln!(out, "{refusal}")?;
        }
    }
    if !json {
        let (loaded, correlations) = (book.rules().count(), book.correlations().len());
        let refused = book.refused().len();
        writeln!(
            out,
            "{loaded} rules and {correlations} correlations loaded, {refused} documents not"
        )?;
    }
    Ok(if book.refused().is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn list(rules: &Rules, as_json: bool, out: &mut impl Write) -> Result<ExitCode, Failure> {
    for rule in rules.book.rules() {
        if as_json {
            writeln!(out, "{}", serde_json::to_string(rule.as_ref())?)?;
        } else {
            let source = [&rule.source.product, &rule.source.category, &rule.source.service];
            let source: Vec<&str> = source.into_iter().flatten().map(String::as_str).collect();
            writeln!(
                out,
                "{}  {:<13} {:<32} {}",
                rule.id,
                rule.level.name(),
                source.join("/"),
                rule.title
            )?;
        }
    }
    for (_, correlation) in rules.book.correlations().iter() {
        let (id, about) = (&correlation.id, &correlation.about);
        let level = about.level.as_deref().unwrap_or("medium");
        if as_json {
            let line = json!({
                "id": id, "title": about.title, "level": level, "version": correlation.version.to_string(),
                "tags": about.tags, "author": about.author, "correlation": true,
            });
            writeln!(out, "{line}")?;
        } else {
            writeln!(out, "{id}  {level:<13} {:<32} {}", "correlation", about.title)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Match {
    fn run(self, rules: &Rules, out: &mut impl Write) -> Result<ExitCode, Failure> {
        let mut hits = Hits::new();
        let (mut events, mut matched, mut unread) = (0, 0, 0);
        for path in event_files::find(&self.events)? {
            let file = event_files::read(&path)?;
            unread += file.refused.len();
            let Some(batch) = &file.batch else { continue };
            rules.book.matcher().matches(batch, &mut hits);
            events += batch.num_rows();
            for (row, place) in file.places.iter().enumerate() {
                let of_row = hits.of(row);
                if of_row.is_empty() {
                    continue;
                }
                matched += 1;
                let found = of_row.iter().filter_map(|rule| rules.book.rule(*rule));
                if self.json {
                    let ids: Vec<&str> = found.map(|rule| rule.id.as_str()).collect();
                    let name = file.path.to_string_lossy();
                    writeln!(out, "{}", json!({"file": name, "index": place, "rules": ids}))?;
                } else {
                    for rule in found {
                        let (level, path) = (rule.level.name(), file.path.display());
                        writeln!(out, "{path}:{place}  {level:<13} {}  {}", rule.id, rule.title)?;
                    }
                }
            }
        }
        eprintln!("{matched} of {events} events match; {unread} could not be read");
        Ok(ExitCode::SUCCESS)
    }
}

impl Explain {
    fn run(self, rules: &Rules, out: &mut impl Write) -> Result<ExitCode, Failure> {
        let Events { batch, places, path, .. } = event_files::read(&self.events)?;
        let row = places.iter().position(|place| *place == self.index);
        let (Some(row), Some(batch)) = (row, batch) else {
            let (path, index) = (path.display(), self.index);
            return Err(format!("{path} has no event {index} that can be read").into());
        };
        let ordinals: Vec<u32> = match &self.rule {
            Some(id) => {
                let at = rules.book.rules().position(|rule| rule.id == *id);
                let at = at.ok_or_else(|| {
                    format!("no rule has the id {id}: `palisade rule list` names them")
                })?;
                vec![at as u32]
            }
            None => {
                let mut hits = Hits::new();
                rules.book.matcher().matches(&batch, &mut hits);
                hits.of(row).to_vec()
            }
        };
        for ordinal in ordinals {
            if let Some(explanation) = rules.book.matcher().explain(&batch, row, ordinal) {
                writeln!(out, "{}", serde_json::to_string_pretty(&explanation)?)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
