//! What was detected against what was planted.

use super::Planted;
use super::attacks::AttackKind;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// How long after an attack's end a detection without record ids still counts for it: 15 minutes.
const AFTERWARDS: i64 = 15 * 60 * 1_000_000;

/// Something that a detector raised: an alert.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Detection {
    /// When, in microseconds since the epoch of event time.
    pub time: i64,
    /// The user it names.
    pub user: Option<String>,
    /// The source address it names.
    pub src_ip: Option<String>,
    /// The senders' ids of the records it rests on.
    pub event_ids: Vec<String>,
}

/// The figures of one kind of attack.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KindReport {
    /// Attacks planted.
    pub planted: usize,
    /// Attacks with at least one detection.
    pub found: usize,
    /// Detections that belong to them.
    pub detections: usize,
    /// Median of the time from an attack's first record to its first detection, in microseconds,
    /// over those found.
    pub median_delay: i64,
}

/// Precision and recall.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// The share of detections that belong to an attack; 1 without detections.
    pub precision: f64,
    /// The share of attacks found; 1 without attacks.
    pub recall: f64,
    /// All detections.
    pub detections: usize,
    /// Those that belong to no attack.
    pub false_alarms: usize,
    /// By kind.
    pub kinds: BTreeMap<AttackKind, KindReport>,
}

/// Joins detections with labels. A detection with record ids belongs to the attacks whose records it
/// names, whatever else it says; one without belongs to the attacks with its user or its source address
/// during which, or at most 15 minutes after which, it was raised.
#[must_use]
pub fn evaluate(labels: &[Planted], detections: &[Detection]) -> Report {
    let mut by_id: BTreeMap<&str, usize> = BTreeMap::new();
    for (number, label) in labels.iter().enumerate() {
        by_id.extend(label.event_ids.iter().map(|id| (id.as_str(), number)));
    }
    let mut first: BTreeMap<usize, i64> = BTreeMap::new();
    let mut report = Report { detections: detections.len(), ..Report::default() };
    for label in labels {
        report.kinds.entry(label.kind).or_default().planted += 1;
    }
    for detection in detections {
        let attacks = attacks_of(detection, labels, &by_id);
        if attacks.is_empty() {
            report.false_alarms += 1;
        }
        for number in attacks {
            let at = first.entry(number).or_insert(detection.time);
            *at = (*at).min(detection.time);
            if let Some(label) = labels.get(number) {
                report.kinds.entry(label.kind).or_default().detections += 1;
            }
        }
    }
    for (kind, figures) in &mut report.kinds {
        let of_kind = |number: &usize| labels.get(*number).filter(|label| label.kind == *kind);
        let mut delays: Vec<i64> = first
            .iter()
            .filter_map(|(number, at)| of_kind(number).map(|label| (at - label.start).max(0)))
            .collect();
        delays.sort_unstable();
        figures.found = delays.len();
        figures.median_delay = delays.get(delays.len() / 2).copied().unwrap_or(0);
    }
    let share = |part: usize, of: usize| if of == 0 { 1.0 } else { part as f64 / of as f64 };
    report.precision = share(report.detections - report.false_alarms, report.detections);
    report.recall = share(first.len(), labels.len());
    report
}

fn attacks_of(
    detection: &Detection,
    labels: &[Planted],
    by_id: &BTreeMap<&str, usize>,
) -> BTreeSet<usize> {
    if !detection.event_ids.is_empty() {
        return detection
            .event_ids
            .iter()
            .filter_map(|id| by_id.get(id.as_str()).copied())
            .collect();
    }
    let same = |a: &Option<String>, b: &Option<String>| a.is_some() && a == b;
    let belongs = |label: &Planted| {
        (same(&detection.user, &label.user) || same(&detection.src_ip, &label.src_ip))
            && (label.start..=label.end + AFTERWARDS).contains(&detection.time)
    };
    (0..).zip(labels).filter(|(_, label)| belongs(label)).map(|(number, _)| number).collect()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<20} {:>8} {:>6} {:>11} {:>13}",
            "attack", "planted", "found", "detections", "median delay"
        )?;
        for (kind, figures) in &self.kinds {
            let KindReport { planted, found, detections, median_delay } = figures;
            let delay = if *found == 0 {
                "-".to_owned()
            } else {
                format!("{} s", median_delay / 1_000_000)
            };
            writeln!(
                f,
                "{:<20} {planted:>8} {found:>6} {detections:>11} {delay:>13}",
                kind.as_str()
            )?;
        }
        write!(
            f,
            "precision {:.3}, recall {:.3}, {} detections, {} of them false alarms",
            self.precision, self.recall, self.detections, self.false_alarms
        )
    }
}
