//! `palisade rule test`: tests written in YAML beside the rules, in files `*.test.yml`.
//!
//! ```yaml
//! rules: [brute_force.yml]        # files beside this one; without it, all rules in its directory
//! cases:
//!   - name: five failures in a minute
//!     events:                     # records as they are sent, in order
//!       - {timestamp: "2026-01-05T09:00:00Z", type: login_failed, src_ip: 10.0.0.1}
//!     matches: [rule-id]          # ids of the rules that match any event, exactly these
//!     alerts: {correlation-id: 1} # final alerts of correlations, exactly these; none without it
//! ```

use super::load;
use crate::config::Config;
use crate::event_files;
use crate::server::Failure;
use clap::Args;
use palisade_pipeline::hunt::alerts_of;
use palisade_pipeline::rules::Rules;
use palisade_sigma::Hits;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Run the tests of rules.
#[derive(Debug, Args)]
pub(super) struct Test {
    /// Files `*.test.yml`, and directories that hold some.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Write a report as JUnit has it to this file.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TestFile {
    #[serde(default)]
    rules: Vec<PathBuf>,
    cases: Vec<Case>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    events: Vec<serde_json::Value>,
    #[serde(default)]
    matches: BTreeSet<String>,
    #[serde(default)]
    alerts: BTreeMap<String, usize>,
}

/// A case that was run: file, name, and what is wrong.
type Ran = (String, String, Option<String>);

impl Test {
    pub(super) fn run(self, config: &Config, out: &mut impl Write) -> Result<ExitCode, Failure> {
        let mut files = Vec::new();
        for path in &self.paths {
            find(path, &mut files)?;
        }
        files.sort();
        let mut ran: Vec<Ran> = Vec::new();
        for file in &files {
            run_file(config, file, &mut ran)?;
        }
        for (file, name, wrong) in &ran {
            match wrong {
                Some(wrong) => writeln!(out, "FAILED  {file}: {name}: {wrong}")?,
                None => writeln!(out, "ok      {file}: {name}")?,
            }
        }
        let failed = ran.iter().filter(|(_, _, wrong)| wrong.is_some()).count();
        writeln!(out, "{} cases in {} files, {failed} failed", ran.len(), files.len())?;
        if let Some(path) = &self.junit {
            std::fs::write(path, junit(&ran))
                .map_err(|error| format!("can't write {}: {error}", path.display()))?;
        }
        Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}

fn find(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let cant = |error: std::io::Error| format!("can't read {}: {error}", path.display());
    if std::fs::metadata(path).map_err(cant)?.is_dir() {
        for entry in std::fs::read_dir(path).map_err(cant)? {
            let path = entry.map_err(cant)?.path();
            let name = path.to_string_lossy();
            if path.is_dir() || name.ends_with(".test.yml") || name.ends_with(".test.yaml") {
                find(&path, files)?;
            }
        }
    } else {
        files.push(path.to_owned());
    }
    Ok(())
}

fn run_file(config: &Config, file: &Path, ran: &mut Vec<Ran>) -> Result<(), Failure> {
    let name = file.display().to_string();
    let text =
        std::fs::read_to_string(file).map_err(|error| format!("can't read {name}: {error}"))?;
    let test: TestFile = match serde_saphyr::from_str(&text) {
        Ok(test) => test,
        Err(error) => {
            ran.push((name, "(the file)".to_owned(), Some(error.to_string())));
            return Ok(());
        }
    };
    let beside = file.parent().unwrap_or(Path::new("."));
    let paths: Vec<PathBuf> = match test.rules.as_slice() {
        [] => vec![if beside == Path::new("") { PathBuf::from(".") } else { beside.to_owned() }],
        named => named.iter().map(|path| beside.join(path)).collect(),
    };
    let rules = load(config, &paths)?;
    if let Some(refusal) = rules.book.refused().first() {
        ran.push((name.clone(), "(its rules)".to_owned(), Some(refusal.to_string())));
    }
    for case in test.cases {
        let wrong = run_case(&rules, &case).err();
        ran.push((name.clone(), case.name, wrong));
    }
    Ok(())
}

fn run_case(rules: &Rules, case: &Case) -> Result<(), String> {
    let mut body = Vec::new();
    for event in &case.events {
        serde_json::to_writer(&mut body, event).map_err(|error| error.to_string())?;
        body.push(b'\n');
    }
    let events = event_files::decode(Path::new("test"), &body);
    if let Some((at, why)) = events.refused.first() {
        return Err(format!("event {at} can't be read: {why}"));
    }
    let mut found = BTreeSet::new();
    let mut alerts: BTreeMap<String, usize> = BTreeMap::new();
    if let Some(batch) = &events.batch {
        let mut hits = Hits::new();
        rules.book.matcher().matches(batch, &mut hits);
        let of = |(_, rule): (usize, u32)| rules.book.rule(rule).map(|rule| rule.id.clone());
        found.extend(hits.iter().filter_map(of));
        for alert in alerts_of(rules, std::slice::from_ref(batch)) {
            if let Some(correlation) = rules.book.correlations().get(alert.correlation) {
                *alerts.entry(correlation.id.clone()).or_default() += 1;
            }
        }
    }
    if found != case.matches {
        return Err(format!("matching are {found:?}, expected {:?}", case.matches));
    }
    if alerts != case.alerts {
        return Err(format!("alerts are {alerts:?}, expected {:?}", case.alerts));
    }
    Ok(())
}

/// The report as JUnit has it.
fn junit(ran: &[Ran]) -> String {
    let escape = |text: &str| {
        text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
    };
    let failures = ran.iter().filter(|(_, _, wrong)| wrong.is_some()).count();
    let mut report = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(
        report,
        "<testsuites><testsuite name=\"palisade rule test\" tests=\"{}\" failures=\"{failures}\">",
        ran.len()
    );
    for (file, name, wrong) in ran {
        let (file, name) = (escape(file), escape(name));
        let _ = match wrong {
            None => writeln!(report, "<testcase classname=\"{file}\" name=\"{name}\"/>"),
            Some(wrong) => writeln!(
                report,
                "<testcase classname=\"{file}\" name=\"{name}\"><failure message=\"{}\"/></testcase>",
                escape(wrong)
            ),
        };
    }
    report.push_str("</testsuite></testsuites>\n");
    report
}
