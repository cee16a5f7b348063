//! Scores of single lines, for `palisade score`.

use super::columns::Place;
use super::combine::surprise_sign;
use super::norms::SourceNorm;
use super::{Class, FOUND_FROM, ThreatScorer};
use crate::entropy;

/// The score of one line, with its reasons.
#[derive(Debug, Clone, PartialEq)]
pub struct LineScore {
    /// Bits per byte, rounded to 1/256.
    pub entropy: f32,
    /// 0 to 1, rounded to 1/1000.
    pub score: f32,
    /// The attack class, where one was found.
    pub class: Option<Class>,
    /// Why, in words with the numbers.
    pub reasons: Vec<String>,
}

impl ThreatScorer {
    /// Scores a line as the `message` of a raw log: nothing is known of it but its text.
    pub fn score_line(&mut self, line: &str) -> LineScore {
        self.score_line_against(line, None)
    }

    /// Scores a line against the norm of its source, where one is known.
    pub fn score_line_against(&mut self, line: &str, norm: Option<SourceNorm>) -> LineScore {
        let bits = entropy::bits(line.as_bytes());
        let verdict = self.matcher.look(line.as_bytes(), Place::Line);
        let mut reasons: Vec<String> = verdict
            .iter()
            .flat_map(|verdict| verdict.rules.iter())
            .map(|rule| self.reason(*rule))
            .collect();
        let mut surprise = 0.0;
        if let Some(norm) = norm {
            let deviations = norm.deviations(bits);
            surprise = surprise_sign(deviations);
            if surprise > 0.0 {
                reasons.push(format!(
                    "entropy {bits:.2} bits per byte is {deviations:.1} deviations above the {:.2} of its source",
                    norm.mean
                ));
            }
        }
        let strength = verdict.as_ref().map_or(0.0, super::matcher::Verdict::overall);
        let class = verdict
            .and_then(|verdict| verdict.best())
            .filter(|(_, strength)| *strength >= FOUND_FROM)
            .map(|(class, _)| class);
        LineScore {
            entropy: bits,
            score: Self::score_of_strength(strength, surprise),
            class,
            reasons,
        }
    }
}
