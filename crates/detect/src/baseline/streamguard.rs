//! The score as StreamGuard documents it.
//!
//! `0.25 · time + 0.30 · address + 0.20 · location + 0.15 · type + 0.10 · failure`, where each of
//! the first four is 1 − the value's relative frequency among the user's earlier events, and
//! failure is the share of failures among the last 16 outcomes (this one included) less the user's
//! own share over all earlier outcomes, 0 when not above it.
//!
//! Decided here, where the documents are silent: frequencies are relative to the events that had the
//! field (a user whose file events carry no location is not thereby strange); a field that the event
//! lacks counts 0 and its weight is not given to the others, because an event that says less must
//! not become more suspicious; an event without an outcome has no failure component.

use super::profile::{Dimension, Event, Found, Profile, Value};
use super::{Components, Judgement};

/// The documented weights: time, address, location, type, failure.
pub(crate) const WEIGHTS: [f64; 5] = [0.25, 0.30, 0.20, 0.15, 0.10];

/// 1 − count / total; 0 where the event has no such field or the user never had one.
fn rarity(hash: u32, values: &[Value], found: Option<usize>, dimension: &Dimension) -> f64 {
    if hash == 0 || dimension.count == 0 {
        return 0.0;
    }
    let count = found.and_then(|at| values.get(at)).map_or(0, |value| value.count());
    1.0 - f64::from(count) / f64::from(dimension.count)
}

pub(crate) fn judge(profile: &Profile<'_>, event: &Event, found: &Found) -> Judgement {
    let head = &*profile.head;
    let at_hour = head.hour_counts.get(event.hour()).copied().unwrap_or(0);
    let time = 1.0 - f64::from(at_hour) / f64::from(head.events.max(1));
    let address = rarity(event.address, profile.address_list(), found.address, &head.address);
    let location = rarity(event.location, profile.location_list(), found.location, &head.location);
    let kind = rarity(event.event_type, profile.type_list(), found.event_type, &head.event_type);
    let failure = event.failed.map_or(0.0, |failed| {
        let (failures, outcomes) = profile.recent_failures(failed);
        let recent = f64::from(failures) / f64::from(outcomes.max(1));
        let own = f64::from(head.failures) / f64::from(head.outcomes.max(1));
        (recent - own).max(0.0)
    });
    let parts = [time, address, location, kind, failure];
    let score: f64 = parts.iter().zip(&WEIGHTS).map(|(part, weight)| part * weight).sum();
    let [time, address, location, event_type, failure] = parts.map(|part| part as f32);
    Judgement {
        score: score.clamp(0.0, 1.0) as f32,
        components: Components { time, address, location, event_type, failure, streak: 0.0 },
        scored: None,
    }
}
