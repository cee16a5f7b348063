//! `palisade score`.

use crate::Outcome;
use clap::Args;
use palisade_detect::threat::ThreatScorer;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// The longest line that is scored; the rest of a longer one is skipped and the answer says so.
const LONGEST_LINE: u64 = 1 << 20;

/// Read lines, print entropy, threat score and reasons as JSON lines.
#[derive(Debug, Args)]
pub(crate) struct Score {
    /// Files; without them standard input.
    files: Vec<PathBuf>,
}

impl Score {
    pub(crate) fn run(self) -> Outcome {
        let mut scorer = ThreatScorer::new()?;
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        if self.files.is_empty() {
            score(&mut scorer, std::io::stdin().lock(), &mut out)?;
        }
        for path in &self.files {
            let file = std::fs::File::open(path)
                .map_err(|error| format!("can't read {}: {error}", path.display()))?;
            score(&mut scorer, BufReader::new(file), &mut out)?;
        }
        out.flush()?;
        Ok(ExitCode::SUCCESS)
    }
}

fn score(
    scorer: &mut ThreatScorer,
    mut input: impl BufRead,
    out: &mut impl Write,
) -> std::io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if input.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let cut = line.last() != Some(&b'\n') && line.len() as u64 == LONGEST_LINE;
        if cut {
            input.skip_until(b'\n')?;
        }
        let text = String::from_utf8_lossy(&line);
        let scored = scorer.score_line(text.trim_end_matches(['\n', '\r']));
        let answer = serde_json::json!({
            "entropy": scored.entropy,
            "score": scored.score,
            "class": scored.class.map(palisade_detect::threat::Class::as_str),
            "reasons": scored.reasons,
            "truncated": cut,
        });
        writeln!(out, "{answer}")?;
    }
}
