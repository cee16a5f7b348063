//! Which windows fulfil the condition, kept up as hits come (in any order) and are taken back.
//!
//! In order a hit costs O(1) amortised: it enters a window at one end while others leave it at the other. One that
//! comes behind others costs what it overtook within a timespan. Groups of up to [`SMALL`] hits keep no window, but
//! measure it anew: most groups are that small, and it saves their memory.

use super::super::definition::{Correlation, Measure};
use super::aggregate::Window;
use super::hits::{Hits, Key};

/// Groups of more hits keep their window.
pub(super) const SMALL: usize = 32;

/// What a change of the hits changed of the windows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Flips {
    /// Windows other than that of a hit that came now fulfil and did not, or the other way.
    pub(super) others: bool,
    /// The least time of a hit whose window flipped so.
    pub(super) since: i64,
}

impl Flips {
    fn note(&mut self, time: i64) {
        self.since = if self.others { self.since.min(time) } else { time };
        self.others = true;
    }

    pub(super) fn and(self, other: Self) -> Self {
        match (self.others, other.others) {
            (true, true) => Self { others: true, since: self.since.min(other.since) },
            (true, false) => self,
            _ => other,
        }
    }
}

/// The hits of a group with the window that is kept for it, if any.
pub(super) struct Evaluation<'a> {
    pub(super) correlation: &'a Correlation,
    pub(super) hits: &'a mut Hits,
    pub(super) kept: Option<&'a mut Window>,
    /// For groups without one.
    pub(super) scratch: &'a mut Window,
}

impl Evaluation<'_> {
    /// Whether a group of so many hits should keep a window.
    pub(super) fn keeps(correlation: &Correlation, hits: usize) -> bool {
        hits > SMALL
            && match &correlation.measure {
                Measure::Absence => false,
                Measure::Events(threshold) => {
                    correlation.is_tumbling() || threshold.at_least().is_none()
                }
                _ => true,
            }
    }

    /// A window for a group that should keep one.
    pub(super) fn keep(correlation: &Correlation, hits: &Hits) -> Window {
        let mut window = Window::default();
        let Some(last) = hits.len().checked_sub(1) else {
            window.reset(correlation, 0);
            return window;
        };
        let from = if correlation.is_tumbling() {
            hits.from(correlation.decided_at(hits.time(last)) - correlation.timespan)
        } else {
            hits.after(hits.time(last) - correlation.timespan)
        };
        window.reset(correlation, from);
        while window.to < hits.len() {
            window.extend(correlation, hits);
        }
        window
    }

    /// Puts a new hit at its place.
    pub(super) fn insert(&mut self, at: usize, key: Key, value: u64) -> Flips {
        if self.correlation.measure == Measure::Absence {
            self.hits.insert(at, key, value);
            self.absence_changed(at, key, true)
        } else if self.correlation.is_tumbling() {
            self.tumbling_changed(at, key, Some(value))
        } else {
            self.sliding_changed(at, key, Some(value))
        }
    }

    /// Takes the hit at a place away.
    pub(super) fn remove(&mut self, at: usize) -> Flips {
        let key = self.hits.key(at);
        if self.correlation.measure == Measure::Absence {
            self.hits.remove(at);
            self.absence_changed(at, key, false)
        } else if self.correlation.is_tumbling() {
            self.tumbling_changed(at, key, None)
        } else {
            self.sliding_changed(at, key, None)
        }
    }

    fn sliding_changed(&mut self, at: usize, key: Key, value: Option<u64>) -> Flips {
        let correlation = self.correlation;
        let mut flips = Flips::default();
        let until = key.time + correlation.timespan;
        let is_new = |place: usize| value.is_some() && place == at;
        let at_least = match &correlation.measure {
            Measure::Events(threshold) => threshold.at_least(),
            _ => None,
        };
        if let Some(least) = at_least {
            // The window holds `least` hits exactly when the one so many before is in it.
            let least = usize::try_from(least).unwrap_or(usize::MAX);
            self.change(at, key, value);
            let mut place = at;
            while place < self.hits.len()
                && place < at.saturating_add(least.max(1))
                && self.hits.time(place) < until
            {
                let since = self.hits.time(place) - correlation.timespan;
                let fulfils = least == 0
                    || (place + 1)
                        .checked_sub(least)
                        .is_some_and(|first| self.hits.time(first) > since);
                if self.hits.set_fulfils(place, fulfils) && !is_new(place) {
                    flips.note(self.hits.time(place));
                }
                place += 1;
            }
            return flips;
        }
        let keeps = self.kept.is_some();
        if let Some(kept) = &mut self.kept {
            if at < kept.to {
                kept.rewind(correlation, self.hits, at, key.time);
            }
        } else {
            let from = self.hits.after(key.time - correlation.timespan).min(at);
            self.scratch.reset(correlation, from);
            while self.scratch.to < at {
                self.scratch.extend(correlation, self.hits);
            }
        }
        self.change(at, key, value);
        let window = match &mut self.kept {
            Some(kept) => &mut **kept,
            None => &mut *self.scratch,
        };
        while window.to < self.hits.len() {
            let place = window.to;
            let time = self.hits.time(place);
            if time >= until && !keeps {
                break;
            }
            window.advance(correlation, self.hits);
            let fulfils = window.fulfils(correlation, time);
            if self.hits.set_fulfils(place, fulfils) && !is_new(place) {
                flips.note(time);
            }
        }
        flips
    }

    fn change(&mut self, at: usize, key: Key, value: Option<u64>) {
        match value {
            Some(value) => self.hits.insert(at, key, value),
            None => self.hits.remove(at),
        }
    }

    /// A tumbling window is measured whole; its flag is on its first hit.
    fn tumbling_changed(&mut self, at: usize, key: Key, value: Option<u64>) -> Flips {
        let correlation = self.correlation;
        let end = correlation.decided_at(key.time);
        let start = end - correlation.timespan;
        // The flag goes with the window, not with the hit that was its first.
        let old_first = self.hits.from(start);
        let before = self.hits.fulfils(old_first) && self.hits.time(old_first) < end;
        if self.hits.time(old_first) < end {
            self.hits.set_fulfils(old_first, false);
        }
        let is_last = self.hits.from(end) == self.hits.len();
        self.change(at, key, value);
        let (first, beyond) = (self.hits.from(start), self.hits.from(end));
        let mut fulfils = false;
        if let Some(kept) = &mut self.kept {
            if is_last && value.is_some() && kept.from == first && kept.to == beyond - 1 {
                kept.enter(correlation, self.hits, at);
                fulfils = kept.fulfils(correlation, end);
            } else {
                kept.reset(correlation, first);
                while kept.to < beyond {
                    kept.extend(correlation, self.hits);
                }
                fulfils = kept.to > kept.from && kept.fulfils(correlation, end);
                if beyond < self.hits.len() {
                    **kept = Self::keep(correlation, self.hits);
                }
            }
        } else if first < beyond {
            self.scratch.reset(correlation, first);
            while self.scratch.to < beyond {
                self.scratch.extend(correlation, self.hits);
            }
            fulfils = self.scratch.fulfils(correlation, end);
        }
        if first < beyond {
            self.hits.set_fulfils(first, fulfils);
        }
        let mut flips = Flips::default();
        if fulfils || before {
            flips.note(key.time);
        }
        flips
    }

    /// Input 0 is the one that nothing may follow; the others answer it.
    fn absence_changed(&mut self, at: usize, key: Key, came: bool) -> Flips {
        let mut flips = Flips::default();
        if key.input == 0 {
            if came {
                let unanswered = self.is_unanswered(key.time);
                self.hits.set_fulfils(at, unanswered);
            } else {
                flips.note(key.time);
            }
            return flips;
        }
        // Those of the same moment count as earlier, though they may stand behind it.
        let mut place = self.hits.after(key.time);
        while let Some(previous) = place.checked_sub(1) {
            place = previous;
            let time = self.hits.time(place);
            if time <= key.time - self.correlation.timespan {
                break;
            }
            if self.hits.input(place) == 0 {
                let fulfils = !came && self.is_unanswered(time);
                if self.hits.set_fulfils(place, fulfils) {
                    flips.note(time);
                }
            } else if time < key.time && came {
                // All before it within a timespan of this one are within a timespan of it too.
                break;
            }
        }
        flips
    }

    fn is_unanswered(&self, time: i64) -> bool {
        let mut place = self.hits.from(time);
        while self.hits.time(place) < time + self.correlation.timespan {
            if self.hits.input(place) > 0 {
                return false;
            }
            place += 1;
        }
        true
    }
}
