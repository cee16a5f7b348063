//! The calibrated score: how surprising is this event for this user, as a tail probability.
//!
//! For each dimension a tail probability `p` is taken from the user's own decayed history: the
//! probability that the next event shows something at most as likely as this one does.
//!
//! * **address, type** — a value never seen has the Good–Turing share: values visited once, those since
//!   dropped from the record included, plus ½, over events plus 1. A known value has the share of all
//!   values of at most its weight, and that of the unseen. Staying at the value of the event before
//!   has also the share of events that stayed. So who often shows new addresses is not punished for
//!   it, and a whole session from a new place is surprising once, when it begins.
//! * **location** — given the address: no news when the address is where it was last seen, or when a
//!   new address lies in a known place. A new place with a new address has the user's own share of
//!   such moves (with [`MOVES`] imagined moves, [`FAR`] of them far), times the share of far moves
//!   made within three hours of an event elsewhere if this is one ([`QUICK`]): impossible travel.
//! * **time** — counts active hours, not events, so bursts weigh nothing. Neighbouring hours lend
//!   each other weight (¼, ½, ¼ round the clock), and the uniform distribution is mixed in with the
//!   share of active hours that were new to the user, so a first day proves nothing.
//! * **failure** — the share of the user's own outcomes at which the last 16 held at least 1, 2, 4,
//!   8 failures, whichever level is reached now.
//!
//! * **streak** — for an event that is odd (address, location or type at most [`TRUNCATE`] likely): the
//!   share of the user's scored events at which the last 16 held at least 2, 4, 8 odd ones.
//!
//! Surprises `−ln p` of the dimensions that are at most [`TRUNCATE`] likely are summed with fixed
//! weights ([`WEIGHTS`]), and the sum's own tail probability `P`, were the dimensions independent, is
//! known ([`super::tail`]). Last, the user's history corrects the model: if events of this user
//! reached this level `r` times more often than the model says, `P` is multiplied by `r`. The score
//! says `P` on a fixed scale: 0 at 1, 0.7 at 10⁻³, 0.8 at 10⁻⁴, 0.9 at 10⁻⁵, 1 at 10⁻⁶, linear in
//! `log P` between: the greatest false-alarm rate per event that a threshold has under the user's own
//! history.

use super::profile::{
    Dimension, Event, FAILURE_LEVELS, Found, HOUR_UNIT, Head, Profile, STREAK_LEVELS,
    SURPRISE_BANDS, UNIT, Value,
};
use super::tail::{Tail, ln};
use super::{Components, Judgement};

/// The weights of the surprises: time, address, location, type, failure, streak.
pub(crate) const WEIGHTS: [f64; 6] = [0.8, 1.0, 1.0, 1.0, 0.8, 1.0];
/// Dimensions that are likelier than this say nothing.
pub(crate) const TRUNCATE: f64 = 0.05;
/// Imagined moves to a new address that every user begins with, and the share of them that is far.
const MOVES: f64 = 5.0;
const FAR: f64 = 0.05;
/// The share of imagined far moves that is quick.
const QUICK: f64 = 0.2;

/// Imagined events in a streak that every user begins with.
const STREAKS: f64 = 2.0;

/// What is the same for all users.
#[derive(Debug)]
pub(crate) struct Calibration {
    tail: Tail,
    /// −ln of [`TRUNCATE`].
    counted_from: f64,
}

impl Calibration {
    pub(crate) fn new() -> Self {
        Self { tail: Tail::new(&WEIGHTS, TRUNCATE), counted_from: -ln(TRUNCATE) }
    }

    /// `hour_surprise` is −ln p of the event's hour ([`hour_surprise`]).
    pub(crate) fn judge(
        &self,
        profile: &Profile<'_>,
        event: &Event,
        found: &Found,
        hour_surprise: f32,
    ) -> Judgement {
        let head = &*profile.head;
        let address =
            probability(event.address, profile.address_list(), found.address, &head.address);
        let location = location_probability(profile, event, found);
        let kind =
            probability(event.event_type, profile.type_list(), found.event_type, &head.event_type);
        let failure = failure_probability(profile, event);
        let odd = address.min(location).min(kind) <= TRUNCATE;
        let streak = if odd { streak_probability(head) } else { 1.0 };
        let surprises = [
            f64::from(hour_surprise),
            surprise(address),
            surprise(location),
            surprise(kind),
            surprise(failure),
            surprise(streak),
        ];
        let counted =
            surprises.iter().zip(&WEIGHTS).filter(|(part, _)| **part >= self.counted_from);
        let sum: f64 = counted.map(|(part, weight)| part * weight).sum();
        let level = self.tail.level(sum as f32);
        let band = band(level);
        let corrected = level - excess(head, band);
        let [time, address, location, event_type, failure, streak] =
            surprises.map(|nats| component(nats as f32));
        Judgement {
            score: score(corrected),
            components: Components { time, address, location, event_type, failure, streak },
            scored: Some((band, odd)),
        }
    }
}

fn surprise(p: f64) -> f64 {
    if p >= 1.0 { 0.0 } else { -ln(p) }
}

/// A component on the scale of the score: −log₁₀ p as if it stood alone.
fn component(nats: f32) -> f32 {
    score(nats * std::f32::consts::LOG10_E)
}

/// The score of a level −log₁₀ P.
pub(crate) fn score(level: f32) -> f32 {
    if level <= 3.0 { (level * (0.7 / 3.0)).max(0.0) } else { (0.4 + 0.1 * level).min(1.0) }
}

/// The level of a score of at least 0.7, or of a component.
pub(crate) fn level_of(score: f32) -> f32 {
    if score <= 0.7 { score * (3.0 / 0.7) } else { (score - 0.4) * 10.0 }
}

/// Bands begin at the levels 1, 1.5, 2, …, 5; band 0 is below.
fn band(level: f32) -> usize {
    if level < 1.0 { 0 } else { (((level - 1.0) * 2.0) as usize + 1).min(SURPRISE_BANDS) }
}

/// log₁₀ of how much more often than the model says this user reached the band or a higher one.
fn excess(head: &Head, band: usize) -> f32 {
    let Some(from) = band.checked_sub(1) else { return 0.0 };
    let reached: u64 = head.surprises.iter().skip(from).map(|weight| u64::from(*weight)).sum();
    if reached == 0 {
        return 0.0;
    }
    const EXPECTED: [f64; SURPRISE_BANDS] =
        [1e-1, 3.162_278e-2, 1e-2, 3.162_278e-3, 1e-3, 3.162_278e-4, 1e-4, 3.162_278e-5, 1e-5];
    let expected = EXPECTED.get(from).copied().unwrap_or(1.0) * f64::from(head.scored);
    let ratio = (reached as f64 + f64::from(UNIT)) / (expected + f64::from(UNIT));
    if ratio <= 1.0 { 0.0 } else { (ln(ratio) / std::f64::consts::LN_10) as f32 }
}

/// The decayed number of values that were visited once, in events.
fn seen_once(values: &[Value], dimension: &Dimension) -> f64 {
    let once: u32 = values.iter().filter(|v| !v.revisited()).map(|v| v.weight.min(UNIT)).sum();
    f64::from(once) + f64::from(dimension.lost)
}

fn probability(hash: u32, values: &[Value], found: Option<usize>, dimension: &Dimension) -> f64 {
    if hash == 0
        || dimension.weight == 0
        || (hash == dimension.last && dimension.stay * 2 > dimension.weight)
    {
        return 1.0;
    }
    let (unit, all) = (f64::from(UNIT), f64::from(dimension.weight));
    // A record with one value has been "visited once" by having begun.
    let once = (seen_once(values, dimension) - if values.len() == 1 { unit } else { 0.0 }).max(0.0);
    let unseen = ((once + unit * 0.5) / (all + unit)).min(1.0);
    let Some(own) = found.and_then(|at| values.get(at)) else { return unseen };
    let (mut kept, mut rarer) = (0_u64, 0_u64);
    for value in values {
        let weight = u64::from(value.weight);
        kept += weight;
        rarer += if value.weight <= own.weight { weight } else { 0 };
    }
    // What was dropped from the list counts as rarer than anything in it.
    let rarer = rarer + u64::from(dimension.weight).saturating_sub(kept);
    let p = unseen + (1.0 - unseen) * (rarer as f64 / all).min(1.0);
    if hash == dimension.last { (p + f64::from(dimension.stay) / all).min(1.0) } else { p }
}

fn location_probability(profile: &Profile<'_>, event: &Event, found: &Found) -> f64 {
    let head = &*profile.head;
    if event.location == 0 || head.location.weight == 0 || event.location == head.location.last {
        return 1.0;
    }
    match (found.address, found.location) {
        (Some(at), _) if profile.places.get(at) == Some(&event.location) => 1.0,
        (None, Some(_)) if event.address != 0 => 1.0,
        (None, None) if event.address != 0 => {
            let imagined = f64::from(UNIT) * MOVES;
            let (moved, far) = (f64::from(head.moved), f64::from(head.moved_far));
            let far_share = (far + imagined * FAR) / (moved + imagined);
            if !profile.arrives_quickly(event) {
                return far_share.min(1.0);
            }
            let quick = (f64::from(head.moved_quickly) + imagined * QUICK) / (far + imagined);
            (far_share * quick).min(1.0)
        }
        _ => probability(event.location, profile.location_list(), found.location, &head.location),
    }
}

fn failure_probability(profile: &Profile<'_>, event: &Event) -> f64 {
    let Some(failed) = event.failed else { return 1.0 };
    let (failures, _) = profile.recent_failures(failed);
    if failures == 0 {
        return 1.0;
    }
    let level = (failures.ilog2() as usize).min(FAILURE_LEVELS - 1);
    let head = &*profile.head;
    let reached = head.failing.get(level).copied().unwrap_or(0);
    let unit = f64::from(UNIT);
    ((f64::from(reached) + unit * 0.5) / (f64::from(head.outcome_weight) + unit)).min(1.0)
}

/// For an odd event.
fn streak_probability(head: &Head) -> f64 {
    let length = (head.odd.count_ones() - u32::from(head.odd >> 15)) + 1;
    let Some(level) = length.ilog2().checked_sub(1) else { return 1.0 };
    let level = (level as usize).min(STREAK_LEVELS - 1);
    let reached = head.streaks.get(level).copied().unwrap_or(0);
    let imagined = f64::from(UNIT) * STREAKS;
    ((f64::from(reached) + imagined) / (f64::from(head.scored) + imagined)).min(1.0)
}

/// −ln p of an event's hour of the day. For the hour that the user is in, what was found when it
/// began holds to its end.
pub(crate) fn hour_surprise(head: &Head, event: &Event) -> f32 {
    if head.events == 0 {
        return 0.0;
    }
    if event.hour_index() == head.hour_index {
        return head.hour_surprise;
    }
    let weights = head.hour_weights.map(u32::from);
    let all: u32 = weights.iter().sum();
    if all == 0 {
        return 0.0;
    }
    let before = weights.iter().cycle().skip(23);
    let after = weights.iter().cycle().skip(1);
    // Four times the smoothed weight of each hour.
    let mut smooth = [0_u32; 24];
    for (((out, own), before), after) in smooth.iter_mut().zip(&weights).zip(before).zip(after) {
        *out = before + 2 * own + after;
    }
    let own = smooth.get(event.hour()).copied().unwrap_or(0);
    let (mut rarer, mut hours) = (0_u32, 0_u32);
    for weight in smooth {
        if weight <= own {
            rarer += weight;
            hours += 1;
        }
    }
    let unit = f64::from(HOUR_UNIT);
    let uniform = ((f64::from(head.hours_new) + unit) / (f64::from(all) + 2.0 * unit)).min(1.0);
    let p =
        (1.0 - uniform) * f64::from(rarer) / f64::from(4 * all) + uniform * f64::from(hours) / 24.0;
    surprise(p.clamp(1e-12, 1.0)) as f32
}
