//! What is remembered of one user: counts for the StreamGuard score, decayed weights for the
//! calibrated one, both in one record of fixed size.
//!
//! **Decay.** Weights use forward decay in event time. Time is cut into half-lives ("eras"); within
//! an era an event weighs between [`UNIT`] and `2 · UNIT`, growing with time, and when the user's
//! latest time enters a new era all weights are halved once for each era passed. Only integers are
//! added and shifted, so the same events in the same order give the same bits everywhere. An event
//! that is older than the user's latest time is weighed as if it came at the latest time.
//!
//! **Bounds.** A record holds at most a fixed number of distinct addresses, locations and types. A
//! full list replaces its value of the least weight (the first in the list among equals). The record
//! then says that it was cut ([`Head::cut`]), and so do its alerts (P2).

/// The weight of one event at the start of an era.
pub(crate) const UNIT: u32 = 256;
/// The weight of one active hour at the start of an era; hours have 16 bits each.
pub(crate) const HOUR_UNIT: u16 = 32;
/// Weights are halved when a total passes this: a very busy user forgets faster.
const WEIGHT_LIMIT: u32 = 1 << 31;
/// The outcomes that "recent" means: the last 16 events with an outcome.
pub(crate) const RECENT: u32 = 16;
/// A location counts as reached quickly when the user was seen elsewhere less than this long ago.
pub(crate) const QUICK_SECONDS: i64 = 3 * 3600;
/// Microseconds of an hour.
const HOUR: i64 = 3_600_000_000;
/// The levels of recent failures that are counted apart: at least 1, 2, 4, 8.
pub(crate) const FAILURE_LEVELS: usize = 4;
/// The lengths of streaks that are counted apart: at least 2, 4, 8 of the last 16 scored events.
pub(crate) const STREAK_LEVELS: usize = 3;
/// The bands of past surprise that are counted apart ([`super::calibrated`]).
pub(crate) const SURPRISE_BANDS: usize = 9;

/// One remembered value of a dimension.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Value {
    /// 32 bits of the value's hash; never 0.
    pub(crate) hash: u32,
    /// Events with this value, not decayed (31 bits); the top bit says that the user came back to
    /// it after another value ([`Value::revisited`]).
    packed: u32,
    /// Decayed weight.
    pub(crate) weight: u32,
}

const REVISITED: u32 = 1 << 31;

impl Value {
    pub(crate) fn new(hash: u32, weight: u32) -> Self {
        Self { hash, packed: 1, weight }
    }

    pub(crate) fn from_parts(hash: u32, packed: u32, weight: u32) -> Self {
        Self { hash, packed, weight }
    }

    pub(crate) fn packed(self) -> u32 {
        self.packed
    }

    pub(crate) fn count(self) -> u32 {
        self.packed & !REVISITED
    }

    pub(crate) fn revisited(self) -> bool {
        self.packed & REVISITED != 0
    }

    fn add(&mut self, weight: u32, visit: bool) {
        if self.count() < REVISITED - 1 {
            self.packed += 1;
        }
        if visit {
            self.packed |= REVISITED;
        }
        self.weight = self.weight.saturating_add(weight);
    }
}

/// The totals of a dimension.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Dimension {
    /// Events that had a value here, not decayed.
    pub(crate) count: u32,
    /// Their decayed weight, values since replaced included.
    pub(crate) weight: u32,
    /// Decayed weight of the events with the same value as the one before.
    pub(crate) stay: u32,
    /// Decayed number of replaced values that had been visited once, in [`UNIT`]s.
    pub(crate) lost: u32,
    /// The value of the latest event here.
    pub(crate) last: u32,
}

/// The part of a record that does not grow.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Head {
    /// Hash of tenant and user; 0 in a free record.
    pub(crate) key: u64,
    /// The latest event time, in microseconds.
    pub(crate) latest: i64,
    /// The snapshot epoch of the last change ([`super::snapshot`]).
    pub(crate) changed: u32,
    /// Where the user stands in the store.
    pub(crate) slot: u16,
    pub(crate) position: u16,
    /// How many of the lists' places are taken.
    pub(crate) address_len: u8,
    pub(crate) location_len: u8,
    pub(crate) type_len: u8,
    /// Second chances left before the user may be replaced ([`super::store`]).
    pub(crate) chances: u8,
    /// Something of this user's history was dropped by a bound.
    pub(crate) cut: bool,
    /// How many bits of `recent` are valid.
    pub(crate) recent_len: u8,
    /// The outcomes of the last 16 events that had one, the latest in bit 0; 1 is a failure.
    pub(crate) recent: u16,
    /// The era of `latest`.
    pub(crate) era: u32,
    /// All events, not decayed.
    pub(crate) events: u32,
    pub(crate) outcomes: u32,
    pub(crate) failures: u32,
    pub(crate) address: Dimension,
    pub(crate) location: Dimension,
    pub(crate) event_type: Dimension,
    /// When the user was last seen at the latest location, seconds since the epoch.
    pub(crate) location_seconds: u32,
    /// Decayed weights of events with a new address; of those, at a new location; of those, reached
    /// quickly.
    pub(crate) moved: u32,
    pub(crate) moved_far: u32,
    pub(crate) moved_quickly: u32,
    /// Decayed weight of events with an outcome, and of those with at least 1, 2, 4, 8 recent failures.
    pub(crate) outcome_weight: u32,
    pub(crate) failing: [u32; FAILURE_LEVELS],
    /// The last hour counted (hours since the epoch), and how surprising it was, in nats.
    pub(crate) hour_index: u32,
    pub(crate) hour_surprise: f32,
    /// Decayed number of active hours that were new to the user when they came.
    pub(crate) hours_new: u16,
    /// Decayed number of active hours by hour of the day.
    pub(crate) hour_weights: [u16; 24],
    /// Events by hour of the day, not decayed.
    pub(crate) hour_counts: [u32; 24],
    /// Which of the last 16 scored events were odd, the latest in bit 0; and the decayed weight of
    /// scored events at which at least 2, 4, 8 of them were.
    pub(crate) odd: u16,
    pub(crate) streaks: [u32; STREAK_LEVELS],
    /// Decayed weight of scored events, and of those by band of surprise.
    pub(crate) scored: u32,
    pub(crate) surprises: [u32; SURPRISE_BANDS],
}

/// A record with room for `A` addresses, `L` locations and `T` types.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Record<const A: usize, const L: usize, const T: usize> {
    pub(crate) head: Head,
    addresses: [Value; A],
    /// The location at which each address was last seen.
    places: [u32; A],
    locations: [Value; L],
    types: [Value; T],
}

/// What most users need.
pub(crate) type Small = Record<6, 3, 8>;
/// The bound for any user.
pub(crate) type Large = Record<20, 8, 14>;

impl<const A: usize, const L: usize, const T: usize> Default for Record<A, L, T> {
    fn default() -> Self {
        let none = Value::default();
        Self {
            head: Head::default(),
            addresses: [none; A],
            places: [0; A],
            locations: [none; L],
            types: [none; T],
        }
    }
}

impl<const A: usize, const L: usize, const T: usize> Record<A, L, T> {
    pub(crate) fn touch(&self) -> u32 {
        let head = &self.head;
        let lists = [self.addresses.first(), self.addresses.get(5), self.locations.first()];
        let types = [self.types.first(), self.types.get(5)];
        let values =
            lists.into_iter().chain(types).flatten().fold(0, |sum, value| sum ^ value.hash);
        values
            ^ head.events
            ^ head.hour_index
            ^ head.scored
            ^ head.address.last
            ^ head.event_type.last
    }

    pub(crate) fn profile(&mut self) -> Profile<'_> {
        Profile {
            head: &mut self.head,
            addresses: &mut self.addresses,
            places: &mut self.places,
            locations: &mut self.locations,
            types: &mut self.types,
        }
    }
}

/// Whether a user's lists fit a small record.
pub(crate) fn fits_small(head: &Head) -> bool {
    head.address_len <= 6 && head.location_len <= 3 && head.type_len <= 8
}

/// A record of either size, borrowed.
#[derive(Debug)]
pub(crate) struct Profile<'a> {
    pub(crate) head: &'a mut Head,
    pub(crate) addresses: &'a mut [Value],
    pub(crate) places: &'a mut [u32],
    pub(crate) locations: &'a mut [Value],
    pub(crate) types: &'a mut [Value],
}

/// What a row says about its user. Hashes are 0 where the row has no value.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Event {
    /// Event time, in microseconds since the epoch.
    pub(crate) time: i64,
    pub(crate) address: u32,
    pub(crate) location: u32,
    pub(crate) event_type: u32,
    /// Whether it failed; `None` without an outcome.
    pub(crate) failed: Option<bool>,
}

impl Event {
    /// The hour of the day, UTC.
    pub(crate) fn hour(&self) -> usize {
        self.time.div_euclid(HOUR).rem_euclid(24) as usize
    }

    /// Hours since the epoch.
    pub(crate) fn hour_index(&self) -> u32 {
        self.time.div_euclid(HOUR).clamp(0, i64::from(u32::MAX)) as u32
    }

    fn seconds(&self) -> u32 {
        self.time.div_euclid(1_000_000).clamp(0, i64::from(u32::MAX)) as u32
    }
}

/// Where an event's values stand in the user's lists.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Found {
    pub(crate) address: Option<usize>,
    pub(crate) location: Option<usize>,
    pub(crate) event_type: Option<usize>,
}

/// Eras and the growing weight within one.
#[derive(Debug, Clone)]
pub(crate) struct Decay {
    half_life: i64,
    /// `UNIT · 2^(i/64)`.
    growth: [u32; 64],
}

impl Decay {
    /// With a half-life in microseconds (at least an hour).
    pub(crate) fn new(half_life: i64) -> Self {
        // Square roots are exact by IEEE 754, so the table is the same on every machine.
        let mut step = 2.0_f64;
        for _ in 0..6 {
            step = step.sqrt();
        }
        let mut growth = [UNIT; 64];
        let mut factor = 1.0;
        for weight in &mut growth {
            *weight = (f64::from(UNIT) * factor + 0.5) as u32;
            factor *= step;
        }
        Self { half_life: half_life.max(HOUR), growth }
    }

    pub(crate) fn half_life(&self) -> i64 {
        self.half_life
    }

    fn era(&self, time: i64) -> u32 {
        time.div_euclid(self.half_life).clamp(0, i64::from(u32::MAX)) as u32
    }

    /// The weight of an event at this time.
    fn weight(&self, time: i64) -> u32 {
        let step = i128::from(time.rem_euclid(self.half_life)) * 64 / i128::from(self.half_life);
        self.growth.get(step as usize).copied().unwrap_or(UNIT)
    }
}

fn find(values: &[Value], len: u8, hash: u32) -> Option<usize> {
    if hash == 0 {
        return None;
    }
    values.iter().take(len.into()).position(|value| value.hash == hash)
}

impl Profile<'_> {
    /// Takes over what another record holds; lists that do not fit are cut to the front.
    pub(crate) fn take(&mut self, from: &Profile<'_>) {
        fn copy<X: Copy>(to: &mut [X], from: &[X]) {
            for (to, from) in to.iter_mut().zip(from) {
                *to = *from;
            }
        }
        *self.head = *from.head;
        copy(self.addresses, from.addresses);
        copy(self.places, from.places);
        copy(self.locations, from.locations);
        copy(self.types, from.types);
    }

    pub(crate) fn find(&self, event: &Event) -> Found {
        Found {
            address: find(self.addresses, self.head.address_len, event.address),
            location: find(self.locations, self.head.location_len, event.location),
            event_type: find(self.types, self.head.type_len, event.event_type),
        }
    }

    /// The addresses, locations and types in use.
    pub(crate) fn address_list(&self) -> &[Value] {
        self.addresses.get(..self.head.address_len.into()).unwrap_or(&[])
    }

    pub(crate) fn location_list(&self) -> &[Value] {
        self.locations.get(..self.head.location_len.into()).unwrap_or(&[])
    }

    pub(crate) fn type_list(&self) -> &[Value] {
        self.types.get(..self.head.type_len.into()).unwrap_or(&[])
    }

    /// Whether learning this event would replace a value.
    pub(crate) fn is_full_for(&self, event: &Event, found: &Found) -> bool {
        let full = |hash: u32, found: Option<usize>, len: u8, room: usize| {
            hash != 0 && found.is_none() && usize::from(len) >= room
        };
        full(event.address, found.address, self.head.address_len, self.addresses.len())
            || full(event.location, found.location, self.head.location_len, self.locations.len())
            || full(event.event_type, found.event_type, self.head.type_len, self.types.len())
    }

    /// Moves the user's time forward and decays what has aged. Called before scoring.
    pub(crate) fn advance(&mut self, time: i64, decay: &Decay) {
        if self.head.events == 0 {
            self.head.latest = time;
            self.head.era = decay.era(time);
            return;
        }
        self.head.latest = self.head.latest.max(time);
        let era = decay.era(self.head.latest);
        if era > self.head.era {
            self.fade((era - self.head.era).min(31));
            self.head.era = era;
        }
    }

    fn fade(&mut self, shift: u32) {
        let head = &mut *self.head;
        for list in [&mut *self.addresses, &mut *self.locations, &mut *self.types] {
            for value in list {
                value.weight >>= shift;
            }
        }
        for dimension in [&mut head.address, &mut head.location, &mut head.event_type] {
            dimension.weight >>= shift;
            dimension.stay >>= shift;
            dimension.lost >>= shift;
        }
        for weight in [
            &mut head.moved,
            &mut head.moved_far,
            &mut head.moved_quickly,
            &mut head.outcome_weight,
            &mut head.scored,
        ] {
            *weight >>= shift;
        }
        head.failing.iter_mut().for_each(|weight| *weight >>= shift);
        head.streaks.iter_mut().for_each(|weight| *weight >>= shift);
        head.surprises.iter_mut().for_each(|weight| *weight >>= shift);
        fade_hours(head, shift.min(15));
    }

    /// Adds the event. `hour_surprise` is that of the event's hour where it is a new active hour,
    /// `scored` the band of surprise and the oddness where the event was scored.
    pub(crate) fn learn(
        &mut self,
        event: &Event,
        found: &Found,
        hour_surprise: f32,
        scored: Option<(usize, bool)>,
        decay: &Decay,
    ) {
        let weight = decay.weight(self.head.latest);
        self.learn_hour(event, hour_surprise, weight);
        self.learn_travel(event, found, weight);
        let head = &mut *self.head;
        let mut cut = false;
        if event.address != 0 {
            let (at, dropped) = learn_value(
                &mut head.address,
                self.addresses,
                &mut head.address_len,
                (event.address, found.address),
                weight,
            );
            if (event.location != 0 || found.address.is_none())
                && let Some(place) = self.places.get_mut(at)
            {
                *place = event.location;
            }
            cut |= dropped;
        }
        if event.location != 0 {
            let (_, dropped) = learn_value(
                &mut head.location,
                self.locations,
                &mut head.location_len,
                (event.location, found.location),
                weight,
            );
            cut |= dropped;
        }
        if event.event_type != 0 {
            let (_, dropped) = learn_value(
                &mut head.event_type,
                self.types,
                &mut head.type_len,
                (event.event_type, found.event_type),
                weight,
            );
            cut |= dropped;
        }
        head.cut |= cut;
        if let Some(failed) = event.failed {
            head.outcomes = head.outcomes.saturating_add(1);
            head.failures = head.failures.saturating_add(failed.into());
            head.recent = (head.recent << 1) | u16::from(failed);
            head.recent_len = (head.recent_len + 1).min(RECENT as u8);
            head.outcome_weight = head.outcome_weight.saturating_add(weight);
            let recent = head.recent.count_ones();
            for (level, total) in head.failing.iter_mut().enumerate() {
                if recent >= 1 << level {
                    *total = total.saturating_add(weight);
                }
            }
        }
        if let Some((band, odd)) = scored {
            head.scored = head.scored.saturating_add(weight);
            head.odd = (head.odd << 1) | u16::from(odd);
            let length = head.odd.count_ones();
            for (level, total) in head.streaks.iter_mut().enumerate() {
                if length >= 2 << level {
                    *total = total.saturating_add(weight);
                }
            }
            if let Some(total) = band.checked_sub(1).and_then(|band| head.surprises.get_mut(band)) {
                *total = total.saturating_add(weight);
            }
        }
        head.events = head.events.saturating_add(1);
        let most = head.address.weight.max(head.location.weight).max(head.event_type.weight);
        if most.max(head.outcome_weight).max(head.scored) > WEIGHT_LIMIT {
            self.fade(1);
        }
    }

    fn learn_hour(&mut self, event: &Event, surprise: f32, weight: u32) {
        let (head, hour) = (&mut *self.head, event.hour());
        if let Some(count) = head.hour_counts.get_mut(hour) {
            *count = count.saturating_add(1);
        }
        let index = event.hour_index();
        if head.events > 0 && index <= head.hour_index {
            return;
        }
        // Same growth within an era, in the smaller unit.
        let weight = (weight * u32::from(HOUR_UNIT) / UNIT) as u16;
        head.hour_index = index;
        head.hour_surprise = surprise;
        let Some(total) = head.hour_weights.get_mut(hour) else { return };
        if *total == 0 {
            head.hours_new = head.hours_new.saturating_add(weight);
        }
        *total = total.saturating_add(weight);
        if *total > u16::MAX / 2 || head.hours_new > u16::MAX / 2 {
            fade_hours(head, 1);
        }
    }

    fn learn_travel(&mut self, event: &Event, found: &Found, weight: u32) {
        let quick = self.arrives_quickly(event);
        let head = &mut *self.head;
        let first = found.address.is_none() && head.address.count > 0;
        if event.address != 0 && event.location != 0 && first {
            head.moved = head.moved.saturating_add(weight);
            if found.location.is_none() {
                head.moved_far = head.moved_far.saturating_add(weight);
                if quick {
                    head.moved_quickly = head.moved_quickly.saturating_add(weight);
                }
            }
        }
        if event.location != 0 {
            head.location_seconds = event.seconds();
        }
    }

    /// Whether the user was at another location less than [`QUICK_SECONDS`] before.
    pub(crate) fn arrives_quickly(&self, event: &Event) -> bool {
        let head = &*self.head;
        let away = i64::from(event.seconds()) - i64::from(head.location_seconds);
        head.location.count > 0
            && event.location != 0
            && event.location != head.location.last
            && away.abs() < QUICK_SECONDS
    }

    /// How many of the last 16 outcomes were failures, this event's included, and how many outcomes
    /// that are.
    pub(crate) fn recent_failures(&self, failed: bool) -> (u32, u32) {
        let mask = (self.head.recent << 1) | u16::from(failed);
        (mask.count_ones(), (u32::from(self.head.recent_len) + 1).min(RECENT))
    }
}

fn fade_hours(head: &mut Head, shift: u32) {
    head.hour_weights.iter_mut().for_each(|weight| *weight >>= shift);
    head.hours_new >>= shift;
}

/// Counts a value; answers where it now stands and whether another one was dropped for it.
fn learn_value(
    dimension: &mut Dimension,
    values: &mut [Value],
    len: &mut u8,
    (hash, found): (u32, Option<usize>),
    weight: u32,
) -> (usize, bool) {
    let same = dimension.last == hash;
    dimension.count = dimension.count.saturating_add(1);
    dimension.weight = dimension.weight.saturating_add(weight);
    if same {
        dimension.stay = dimension.stay.saturating_add(weight);
    }
    dimension.last = hash;
    if let Some((at, value)) = found.and_then(|at| Some((at, values.get_mut(at)?))) {
        value.add(weight, !same);
        return (at, false);
    }
    let fresh = Value::new(hash, weight);
    if let Some(free) = values.get_mut(usize::from(*len)) {
        *free = fresh;
        *len += 1;
        return (usize::from(*len) - 1, false);
    }
    let least = values.iter().enumerate().min_by_key(|(at, value)| (value.weight, *at));
    let at = least.map_or(0, |(at, _)| at);
    if let Some(value) = values.get_mut(at) {
        if !value.revisited() {
            dimension.lost = dimension.lost.saturating_add(value.weight.min(UNIT));
        }
        *value = fresh;
    }
    (at, true)
}
