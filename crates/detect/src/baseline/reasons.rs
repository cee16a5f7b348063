//! Why an event is an anomaly, in words with the numbers.

use super::profile::{Event, Found, Profile, Value};
use super::{Judgement, Mode, calibrated, tail};
use arrow::array::RecordBatch;
use palisade_event::column::Text;
use palisade_event::schema::Core;

/// Texts longer than this are cut in reasons: they come from outside.
const MAX_TEXT: usize = 120;

/// The row that is explained.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) batch: &'a RecordBatch,
    pub(super) row: usize,
}

impl Row<'_> {
    fn text(&self, core: Core) -> String {
        let column = Text::in_batch(self.batch, core.name());
        let text = column.and_then(|column| column.get(self.row)).unwrap_or_default();
        text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect()
    }
}

/// "3 of 1204 earlier events", or "never".
fn frequency(values: &[Value], found: Option<usize>, total: u32) -> String {
    match found.and_then(|at| values.get(at)) {
        Some(value) => format!("seen in {} of {total} earlier events", value.count()),
        None => format!("never seen in {total} earlier events"),
    }
}

/// The sentences for the parts of the score that are far out.
pub(super) fn explain(
    mode: Mode,
    row: &Row<'_>,
    profile: &Profile<'_>,
    event: &Event,
    found: &Found,
    judgement: &Judgement,
) -> Vec<String> {
    let (head, parts) = (&*profile.head, &judgement.components);
    // A rarity of 95 %, or a tail probability of 2 %.
    let far = match mode {
        Mode::StreamGuard => 0.95,
        Mode::Calibrated => calibrated::score(1.7),
    };
    let number = |part: f32| match mode {
        Mode::StreamGuard => format!("rarity {part:.2}"),
        Mode::Calibrated => format!("p = {}", probability(part)),
    };
    let mut reasons = Vec::new();
    if parts.time >= far {
        let hour = event.hour();
        let count = head.hour_counts.get(hour).copied().unwrap_or(0);
        let events = head.events;
        let number = number(parts.time);
        reasons.push(format!(
            "unusual hour: {count} of {events} earlier events came at {hour:02}:00 to {hour:02}:59 UTC ({number})"
        ));
    }
    let lists = [
        (
            Core::SrcIp,
            "address",
            parts.address,
            profile.address_list(),
            found.address,
            head.address.count,
        ),
        (
            Core::Location,
            "location",
            parts.location,
            profile.location_list(),
            found.location,
            head.location.count,
        ),
        (
            Core::Type,
            "event type",
            parts.event_type,
            profile.type_list(),
            found.event_type,
            head.event_type.count,
        ),
    ];
    for (core, name, part, values, found, total) in lists {
        if part >= far {
            let unusual = if found.is_some() { "unusual" } else { "new" };
            let (text, seen, number) =
                (row.text(core), frequency(values, found, total), number(part));
            reasons.push(format!("{unusual} {name}: {text} was {seen} ({number})"));
        }
    }
    if found.location.is_none() && parts.location >= far && profile.arrives_quickly(event) {
        let seconds = event.time.div_euclid(1_000_000) - i64::from(head.location_seconds);
        let minutes = seconds.abs() / 60;
        reasons.push(format!("fast travel: seen at another location {minutes} minutes apart"));
    }
    // Failures are far out at less: their weight is small and their numbers are.
    let failing = match mode {
        Mode::StreamGuard => 0.2,
        Mode::Calibrated => far,
    };
    if let Some(failed) = event.failed.filter(|_| parts.failure >= failing) {
        let (failures, outcomes) = profile.recent_failures(failed);
        let (own, all) = (head.failures, head.outcomes);
        let number = match mode {
            Mode::StreamGuard => format!("{:.2} above the user's own rate", parts.failure),
            Mode::Calibrated => number(parts.failure),
        };
        reasons.push(format!(
            "failures: {failures} of the last {outcomes} outcomes failed, {own} of {all} before ({number})"
        ));
    }
    if parts.streak >= far {
        let odd = (head.odd << 1).count_ones() + 1;
        let number = number(parts.streak);
        reasons.push(format!("streak: {odd} of the last 16 events were odd ({number})"));
    }
    if reasons.is_empty() {
        let parts = [
            ("time", parts.time),
            ("address", parts.address),
            ("location", parts.location),
            ("event type", parts.event_type),
            ("failure", parts.failure),
        ];
        let parts: Vec<String> =
            parts.iter().map(|(name, part)| format!("{name} {}", number(*part))).collect();
        reasons.push(format!("together unusual: {}", parts.join(", ")));
    }
    if head.cut {
        reasons.push(
            "the user's history is incomplete: a bound on its size made it drop the rarest values"
                .to_owned(),
        );
    }
    reasons
}

/// The probability behind a component, with one digit.
fn probability(component: f32) -> String {
    let level = calibrated::level_of(component);
    if component >= 1.0 {
        return "less than 0.000001".to_owned();
    }
    let p = tail::exp(-f64::from(level) * std::f64::consts::LN_10);
    let digits = (level.ceil() as usize).max(2);
    format!("{p:.digits$}")
}
