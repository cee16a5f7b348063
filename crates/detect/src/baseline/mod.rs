//! Per-user behavioural baselines: what is usual for a user, and how far an event is from it.
//!
//! For each user of each tenant, the hours, source addresses, locations, event types and failures of
//! the earlier events are counted in a bounded record ([`profile`]). The first
//! [`BaselineOptions::learning_events`] events of a user are only learned; from then on each event
//! is scored in [0, 1] and then learned too. Two scores use the same records: [`Mode::StreamGuard`]
//! as that product documents it ([`streamguard`]), and [`Mode::Calibrated`], a tail probability under
//! the user's own history ([`calibrated`]).
//!
//! Invariants:
//! * A user's score depends only on the earlier events of its slot, in log order (I3, P2): neither
//!   batch boundaries nor the number of workers change a bit of it.
//! * State is bounded per user and per slot; who had to forget something says so
//!   ([`Anomaly::incomplete`]).
//! * Nothing reads a clock: decay uses event time.

mod calibrated;
mod profile;
mod reasons;
mod route;
mod snapshot;
mod store;
mod streamguard;
mod tail;

#[cfg(test)]
mod tests;

pub use route::{Routing, is_failure, route};
pub use snapshot::{BaselineError, SnapshotKind};

use arrow::array::RecordBatch;
use calibrated::Calibration;
use profile::{Decay, Event};
use snapshot::Snapshots;
use store::{NONE, Store};

/// Which score is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Weighted rarity, as StreamGuard documents it.
    StreamGuard,
    /// Tail probability under the user's own history.
    Calibrated,
}

/// How baselines are kept.
#[derive(Debug, Clone, PartialEq)]
pub struct BaselineOptions {
    /// Which score is given. Both keep the same state, so it can be changed at any time.
    pub mode: Mode,
    /// How many events of a user are learned before the first is scored.
    pub learning_events: u32,
    /// The score from which an event is an anomaly, compared after rounding to 1/1000.
    pub threshold: f32,
    /// After this much event time a weight counts half, in microseconds; at least an hour. State
    /// written under one half-life cannot be loaded under another.
    pub half_life_micros: i64,
    /// How many users a slot may hold.
    pub max_users_per_slot: u16,
    /// Every n-th snapshot is full, the others hold what changed since the one before; 1 makes all
    /// full.
    pub full_snapshot_every: u32,
}

impl Default for BaselineOptions {
    fn default() -> Self {
        Self {
            mode: Mode::Calibrated,
            learning_events: 100,
            threshold: 0.7,
            half_life_micros: 30 * 24 * 3_600_000_000,
            max_users_per_slot: 320,
            full_snapshot_every: 16,
        }
    }
}

/// How bad an anomaly is, by its score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Below 0.7, where the threshold is set lower.
    Low,
    /// From 0.7.
    Medium,
    /// From 0.8.
    High,
    /// From 0.9.
    Critical,
}

impl Severity {
    /// The severity of a score.
    #[must_use]
    pub fn of(score: f32) -> Self {
        match thousandths(score) {
            900.. => Self::Critical,
            800.. => Self::High,
            700.. => Self::Medium,
            _ => Self::Low,
        }
    }

    /// The name used in the column `severity` of alerts.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// The parts of a score, each in [0, 1]. In StreamGuard mode the rarities that are weighed; in
/// calibrated mode each dimension's own tail probability on the scale of the score (0.7 is 10⁻³).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Components {
    /// The hour of the day.
    pub time: f32,
    /// The source address.
    pub address: f32,
    /// The location.
    pub location: f32,
    /// The event type.
    pub event_type: f32,
    /// Recent failures.
    pub failure: f32,
    /// A streak of odd events; always 0 in StreamGuard mode.
    pub streak: f32,
}

/// What a mode says about an event.
#[derive(Debug, Clone, Copy)]
struct Judgement {
    score: f32,
    components: Components,
    /// The band of surprise, before the user's own correction, and whether the event is odd
    /// (calibrated mode).
    scored: Option<(usize, bool)>,
}

/// An event whose score reached the threshold.
#[derive(Debug, Clone, PartialEq)]
pub struct Anomaly {
    /// The row of the batch.
    pub row: u32,
    /// 0 to 1, rounded to 1/1000.
    pub score: f32,
    /// By the score.
    pub severity: Severity,
    /// The parts of the score.
    pub components: Components,
    /// Sentences with the numbers in them.
    pub reasons: Vec<String>,
    /// A bound made the user's history incomplete (P2); the reasons say so too.
    pub incomplete: bool,
}

/// What a worker found in the rows it was given.
#[derive(Debug, Default)]
pub struct BaselineOutput {
    /// For each given row, in the same order: the score, rounded to 1/1000; `None` while the user is
    /// being learned or where the row names no user.
    pub scores: Vec<Option<f32>>,
    /// The anomalies, in row order.
    pub anomalies: Vec<Anomaly>,
}

/// The rows of a batch that one worker is to process, in row order.
#[derive(Debug, Clone, Copy)]
pub struct RowsOfSlots<'a> {
    /// The whole batch's routing.
    pub routing: &'a Routing,
    /// The worker's rows ([`Routing::select`]).
    pub rows: &'a [u32],
}

/// The baselines of the users in one worker's slots.
#[derive(Debug)]
pub struct Baselines {
    options: BaselineOptions,
    decay: Decay,
    calibration: Calibration,
    store: Store,
    snapshots: Snapshots,
    handles: Vec<u32>,
}

/// How many rows ahead a user's record is fetched into the caches.
const AHEAD: usize = 6;

fn thousandths(score: f32) -> u32 {
    (score * 1000.0 + 0.5) as u32
}

impl Baselines {
    /// Empty baselines.
    #[must_use]
    pub fn new(options: BaselineOptions) -> Self {
        Self {
            decay: Decay::new(options.half_life_micros),
            calibration: Calibration::new(),
            store: Store::new(options.max_users_per_slot),
            snapshots: Snapshots::new(options.full_snapshot_every),
            handles: Vec::new(),
            options,
        }
    }

    /// How they are kept.
    #[must_use]
    pub fn options(&self) -> &BaselineOptions {
        &self.options
    }

    /// Scores with other settings from the next event on; what was learned stays. Whether a user counts as
    /// learned follows `learning_events` at once, as it would after a restore under the new settings, so
    /// a replay across this place gives the same state: when it changes, all users are walked over.
    pub fn reconfigure(&mut self, mode: Mode, learning_events: u32, threshold: f32) {
        let changed = self.options.learning_events != learning_events;
        self.options.mode = mode;
        self.options.threshold = threshold;
        self.options.learning_events = learning_events;
        if changed {
            self.store.mark_all_learned(learning_events);
        }
    }

    /// How many users are known.
    #[must_use]
    pub fn users(&self) -> usize {
        self.store.users()
    }

    /// Bytes of memory held, reserved ones included.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.store.bytes() + self.snapshots.bytes() + self.handles.capacity() * size_of::<u32>()
    }

    /// Scores the rows in order, then learns each. `out` is cleared first.
    pub fn process(
        &mut self,
        batch: &RecordBatch,
        rows: &RowsOfSlots<'_>,
        out: &mut BaselineOutput,
    ) {
        out.scores.clear();
        out.anomalies.clear();
        out.scores.reserve(rows.rows.len());
        // All users are looked up first: independent look-ups overlap their cache misses.
        let mut handles = std::mem::take(&mut self.handles);
        handles.clear();
        handles.extend(rows.rows.iter().map(|row| match rows.routing.event(*row) {
            Some((slot, key, _)) => self.store.find(slot, key),
            None => NONE,
        }));
        let mut ahead = handles.iter().skip(AHEAD);
        for (row, handle) in rows.rows.iter().zip(&handles) {
            if let Some(next) = ahead.next() {
                std::hint::black_box(self.store.touch(*next));
            }
            let score = rows.routing.event(*row).and_then(|(slot, key, event)| {
                let handle = self.handle(slot, key, *handle);
                self.observe(handle, &event, *row, batch, &mut out.anomalies)
            });
            out.scores.push(score);
        }
        self.handles = handles;
    }

    /// The user's record, made if there is none; `guess` is where it was at the batch's beginning.
    fn handle(&mut self, slot: u16, key: u64, guess: u32) -> u32 {
        if self.store.head(guess).is_some_and(|head| head.key == key && head.slot == slot) {
            return guess;
        }
        let handle = self.store.find(slot, key);
        if handle != NONE {
            return handle;
        }
        let snapshots = &mut self.snapshots;
        let victim =
            self.store.victim(slot, |store, handle| snapshots.before_change(store, handle));
        let instead = victim.map(|(handle, removed)| {
            self.snapshots.removed(removed);
            handle
        });
        let handle = self.store.insert(slot, key, instead);
        self.snapshots.created(&mut self.store, handle);
        handle
    }

    fn observe(
        &mut self,
        mut handle: u32,
        event: &Event,
        row: u32,
        batch: &RecordBatch,
        anomalies: &mut Vec<Anomaly>,
    ) -> Option<f32> {
        if self.snapshots.is_running() {
            self.snapshots.before_change(&mut self.store, handle);
        }
        let mut profile = self.store.profile(handle)?;
        profile.head.changed = self.snapshots.epoch();
        profile.advance(event.time, &self.decay);
        let found = profile.find(event);
        if profile.is_full_for(event, &found) && Store::is_small(handle) {
            handle = self.store.promote(handle);
            profile = self.store.profile(handle)?;
        }
        let hour_surprise = calibrated::hour_surprise(profile.head, event);
        let learned = profile.head.events >= self.options.learning_events;
        // The calibrated judgement is made in either mode: its bands are part of the state.
        let calibrated =
            learned.then(|| self.calibration.judge(&profile, event, &found, hour_surprise));
        let judgement = calibrated.map(|calibrated| match self.options.mode {
            Mode::Calibrated => calibrated,
            Mode::StreamGuard => streamguard::judge(&profile, event, &found),
        });
        let score = judgement.map(|judgement| {
            let rounded = thousandths(judgement.score);
            let score = rounded as f32 / 1000.0;
            if rounded >= thousandths(self.options.threshold) {
                let mode = self.options.mode;
                let text = reasons::Row { batch, row: row as usize };
                anomalies.push(Anomaly {
                    row,
                    score,
                    severity: Severity::of(score),
                    components: judgement.components,
                    reasons: reasons::explain(mode, &text, &profile, event, &found, &judgement),
                    incomplete: profile.head.cut,
                });
            }
            score
        });
        let scored = calibrated.and_then(|judgement| judgement.scored);
        profile.learn(event, &found, hour_surprise, scored, &self.decay);
        let head = profile.head;
        head.chances = match head.events {
            0 | 1 => 0,
            events if events < self.options.learning_events => 1,
            _ => 3,
        };
        if head.events == self.options.learning_events.max(1) {
            self.store.mark_learned(handle);
        }
        score
    }
}
