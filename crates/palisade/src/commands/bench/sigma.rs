//! `palisade bench sigma`: all rules on Windows events, beside `rsigma-eval` with its routing by log source.
//!
//! The events are varied on every pass (process ids, folders, hashes, users, command lines), so that no cache of
//! values outlives a batch. Decoding is excluded for both: the matcher gets batches, the peer parsed documents
//! with the log source that its routing asks for. Both run on one thread, in turn, on the same events.

pub(super) mod vary;

use crate::Outcome;
use crate::event_files;
use crate::rules;
use crate::server::Failure;
use arrow::array::RecordBatch;
use clap::Args;
use palisade_sigma::{Book, Hits};
use rsigma_eval::event::JsonEvent;
use rsigma_eval::{Engine, LogSourceExtractor};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use vary::{Random, label, vary};

/// Rules on events, beside rsigma-eval.
#[derive(Debug, Args)]
pub(super) struct Sigma {
    /// Files and directories of rules.
    #[arg(long, required = true)]
    rules: Vec<PathBuf>,
    /// A file or directory of Windows events: JSON, packed or not.
    #[arg(long)]
    events: PathBuf,
    /// Passes that are measured; one more before them is not.
    #[arg(long, default_value_t = 3)]
    passes: u32,
    /// Events of a batch.
    #[arg(long, default_value_t = 4096)]
    batch: usize,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// What one side did.
#[derive(Debug, Default)]
struct Side {
    seconds: f64,
    matches: usize,
}

impl Sigma {
    pub(super) fn run(self) -> Outcome {
        let texts = rules::read(&rules::find(&self.rules)?)?;
        let files = texts.files.files().iter().map(|file| (file.name.as_str(), file.text.as_str()));
        let begun = Instant::now();
        let book = Book::read(files.clone());
        let compiled = begun.elapsed().as_secs_f64();
        let engine = peer(files.map(|(_, text)| text));
        let originals = documents(&self.events)?;
        if originals.is_empty() {
            return Err(format!("no events at {}", self.events.display()).into());
        }
        let (mut ours, mut theirs) = (Side::default(), Side::default());
        let (mut events, mut routed) = (0, 0);
        let mut random = Random::new(7);
        let mut hits = Hits::new();
        for pass in 0..=self.passes {
            let mut varied = originals.clone();
            varied.iter_mut().for_each(|event| vary(event, &mut random));
            let batches = self.batches(&varied)?;
            let (mut one, mut other) = (Side::default(), Side::default());
            let begun = Instant::now();
            let mut looked_at = 0;
            for batch in &batches {
                book.matcher().matches(batch, &mut hits);
                one.matches += hits.len();
                looked_at += hits.routed();
            }
            one.seconds = begun.elapsed().as_secs_f64();
            drop(batches);
            varied.iter_mut().for_each(label);
            let begun = Instant::now();
            for event in &varied {
                other.matches += engine.evaluate(&JsonEvent::borrow(event)).len();
            }
            other.seconds = begun.elapsed().as_secs_f64();
            if pass == 0 {
                continue;
            }
            events += varied.len();
            routed += looked_at;
            for (sum, side) in [(&mut ours, one), (&mut theirs, other)] {
                sum.seconds += side.seconds;
                sum.matches += side.matches;
            }
        }
        let rate = |side: &Side| events as f64 / side.seconds;
        let figures = json!({
            "rules_loaded": book.rules().count(),
            "rules_unsupported": book.refused().len(),
            "events": events,
            "events_per_second_per_core": rate(&ours),
            "oracle_events_per_second_per_core": rate(&theirs),
            "rows_looked_at": routed as f64 / events.max(1) as f64,
            "matches": ours.matches,
            "oracle_matches": theirs.matches,
            "compile_seconds": compiled,
        });
        if self.json {
            println!("{figures}");
        } else {
            for (name, value) in figures.as_object().into_iter().flatten() {
                println!("{name:<34} {value}");
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn batches(&self, events: &[Value]) -> Result<Vec<RecordBatch>, Failure> {
        let mut batches = Vec::new();
        for chunk in events.chunks(self.batch.max(1)) {
            let mut body = Vec::new();
            for event in chunk {
                serde_json::to_writer(&mut body, event)?;
                body.push(b'\n');
            }
            batches.extend(event_files::decode(&self.events, &body).batch);
        }
        Ok(batches)
    }
}

/// The events of files as documents.
pub(super) fn documents(events: &Path) -> Result<Vec<Value>, Failure> {
    let mut documents = Vec::new();
    for path in event_files::find(events)? {
        if path.file_name().is_some_and(|name| name == "manifest.json") {
            continue;
        }
        let bytes = event_files::unpacked(&path)?;
        if !matches!(bytes.trim_ascii_start().first(), Some(b'{' | b'[')) {
            continue;
        }
        for document in serde_json::Deserializer::from_slice(&bytes).into_iter::<Value>() {
            match document.map_err(|error| format!("{}: {error}", path.display()))? {
                Value::Array(several) => documents.extend(several),
                one => documents.push(one),
            }
        }
    }
    Ok(documents)
}

/// The peer with the same rules.
fn peer<'t>(texts: impl Iterator<Item = &'t str>) -> Engine {
    let mut engine = Engine::new();
    let parsed = texts.filter_map(|text| rsigma_parser::parse_sigma_yaml(text).ok());
    let rules: Vec<_> = parsed.flat_map(|parsed| parsed.rules).collect();
    // Once for all: it builds its indexes anew with every call. What it does not load is not counted for it.
    let _ = engine.add_rules(&rules);
    engine.set_logsource_extractor(Some(LogSourceExtractor::new()));
    engine
}
