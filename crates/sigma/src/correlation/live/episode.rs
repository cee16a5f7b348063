//! Episodes of a group and the alerts given out for them.
//!
//! An episode is a range of hits: from its anchor to the last hit whose window fulfils. (Each of its windows begins
//! before the hit that ended the one before, so their union has no gap.) So an episode is a few numbers, however long
//! it lasts, and hits may leave once they are final and have been given out.

use super::super::alert::{Anchor, Evidence};
use super::super::definition::{Correlation, Measure};
use super::aggregate::Window;
use super::evaluate::Flips;
use super::hits::{Hits, Key};
use palisade_event::RecordId;
use smallvec::SmallVec;

/// An episode as the hits now have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Episode {
    pub(super) period: i64,
    /// The first hit of the window that opened it.
    pub(super) anchor: Key,
    /// The hit whose window opened it.
    pub(super) open: Key,
    /// When that decided.
    pub(super) opened: i64,
    /// The last hit whose window fulfils; in a tumbling window its last hit.
    pub(super) last: Key,
    pub(super) last_decided: i64,
}

/// An alert that was given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) period: i64,
    pub(super) anchor_time: i64,
    pub(super) anchor_id: u128,
    pub(super) number: u32,
    pub(super) retracted: bool,
    pub(super) opened: i64,
    /// The last evidence that was given out.
    pub(super) last: Key,
    /// Evidence changed from here on since.
    pub(super) changed: Option<Key>,
    pub(super) cut: bool,
}

impl Given {
    pub(super) fn anchor(&self) -> Anchor {
        Anchor {
            period: self.period,
            time: self.anchor_time,
            record: RecordId(self.anchor_id.to_be_bytes()),
        }
    }

    pub(super) fn is_of(&self, episode: &Episode) -> bool {
        self.period == episode.period
            && self.anchor_time == episode.anchor.time
            && self.anchor_id == episode.anchor.id
    }
}

/// What only groups have that are large, or fulfil.
#[derive(Debug, Default)]
pub(super) struct Busy {
    /// The window of the last hit, where the group is large enough to keep one.
    pub(super) window: Option<Window>,
    /// The episode that what decided before `sealed_until` ended in.
    pub(super) sealed: Option<Episode>,
    pub(super) sealed_until: Option<i64>,
    /// In order; the first may be the one that is sealed.
    pub(super) episodes: SmallVec<[Episode; 1]>,
    pub(super) given: SmallVec<[Given; 1]>,
    /// Something changed that was given out; a revision is due at the next tick.
    pub(super) is_dirty: bool,
    /// When the earliest timer that is set for the group passes.
    pub(super) timer: Option<i64>,
}

impl Busy {
    pub(super) fn is_idle(&self) -> bool {
        self.window.is_none()
            && self.sealed.is_none()
            && self.episodes.is_empty()
            && self.given.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        let spilled = |capacity: usize, inline: usize, size: usize| {
            if capacity > inline { capacity * size } else { 0 }
        };
        self.window.as_ref().map_or(0, Window::bytes)
            + spilled(self.episodes.capacity(), 1, size_of::<Episode>())
            + spilled(self.given.capacity(), 1, size_of::<Given>())
    }

    /// Whether an alert that stands was given out for an episode.
    pub(super) fn stands(&self, episode: &Episode) -> bool {
        self.given.iter().any(|given| !given.retracted && given.is_of(episode))
    }

    fn note_evidence(&mut self, key: Key) {
        for given in &mut self.given {
            if !given.retracted && key <= given.last && key.time >= given.anchor_time {
                given.changed = Some(given.changed.map_or(key, |changed| changed.min(key)));
                self.is_dirty = true;
            }
        }
    }

    /// A hit came or went, and windows flipped: brings the episodes up to date. `at` is the place of a hit that came.
    pub(super) fn update(
        &mut self,
        correlation: &Correlation,
        hits: &Hits,
        (key, at): (Key, Option<usize>),
        flips: Flips,
    ) {
        self.note_evidence(key);
        if correlation.is_tumbling() {
            self.update_tumbling(correlation, hits, key);
            return;
        }
        if correlation.measure == Measure::Absence {
            if flips.others {
                self.note_evidence(Key::at(flips.since));
                self.rebuild(correlation, hits);
            } else if let Some(at) = at.filter(|at| hits.fulfils(*at)) {
                if self.episodes.last().is_some_and(|last| key < last.last) {
                    self.rebuild(correlation, hits);
                } else {
                    self.fold(correlation, hits, at);
                }
            }
            return;
        }
        let Some(at) = at else {
            self.rebuild(correlation, hits);
            return;
        };
        if flips.others || (hits.fulfils(at) && at + 1 != hits.len()) {
            self.rebuild(correlation, hits);
        } else if hits.fulfils(at) {
            self.fold(correlation, hits, at);
        } else {
            let mut moved = false;
            for episode in &mut self.episodes {
                if key < episode.anchor && key.time > episode.open.time - correlation.timespan {
                    episode.anchor = key;
                    moved = true;
                }
            }
            self.is_dirty |= moved;
        }
    }

    /// Takes in the fulfilling window of the hit at a place, which is behind all taken in.
    fn fold(&mut self, correlation: &Correlation, hits: &Hits, at: usize) {
        let key = hits.key(at);
        let decided = correlation.decided_at(key.time);
        let period = decided.div_euclid(correlation.period());
        self.is_dirty |= !self.given.is_empty();
        match self.episodes.last_mut() {
            Some(last)
                if last.period == period && decided - last.last_decided < correlation.timespan =>
            {
                (last.last, last.last_decided) = (key, decided);
            }
            _ => {
                let anchor = if correlation.measure == Measure::Absence {
                    key
                } else {
                    hits.key(hits.after(key.time - correlation.timespan))
                };
                self.episodes.push(Episode {
                    period,
                    anchor,
                    open: key,
                    opened: decided,
                    last: key,
                    last_decided: decided,
                });
            }
        }
    }

    /// Makes the episodes anew from what is sealed and the windows behind it.
    fn rebuild(&mut self, correlation: &Correlation, hits: &Hits) {
        // Those before the sealed one are final too: a cut ended them.
        let sealed = self.sealed;
        self.episodes.retain(|episode| sealed.is_some_and(|sealed| episode.open < sealed.open));
        self.episodes.extend(sealed);
        self.is_dirty |= !self.given.is_empty();
        for at in self.unsealed(correlation, hits)..hits.len() {
            if hits.fulfils(at) {
                self.fold(correlation, hits, at);
            }
        }
    }

    /// The first hit that decides at or after what is sealed.
    fn unsealed(&self, correlation: &Correlation, hits: &Hits) -> usize {
        let Some(until) = self.sealed_until else { return 0 };
        let delay = correlation.decided_at(0);
        hits.from(until.saturating_sub(delay))
    }

    /// A hit came into, or left, the tumbling window of `key`.
    fn update_tumbling(&mut self, correlation: &Correlation, hits: &Hits, key: Key) {
        let decided = correlation.decided_at(key.time);
        let first = hits.from(decided - correlation.timespan);
        let place = self.episodes.partition_point(|episode| episode.opened < decided);
        let known = self.episodes.get(place).is_some_and(|episode| episode.opened == decided);
        let fulfils = hits.time(first) < decided && hits.fulfils(first);
        if known {
            self.is_dirty |= !self.given.is_empty();
            self.episodes.remove(place);
        }
        if fulfils {
            let last = hits.key(hits.from(decided).saturating_sub(1));
            self.episodes.insert(
                place,
                Episode {
                    period: decided.div_euclid(correlation.period()),
                    anchor: hits.key(first),
                    open: hits.key(first),
                    opened: decided,
                    last,
                    last_decided: decided,
                },
            );
        }
    }

    /// Everything that decides before `until` is final and was given out: what can't change any more is let go, so that
    /// hits more than a timespan older are not needed.
    pub(super) fn seal(&mut self, correlation: &Correlation, hits: &Hits, until: i64) {
        if self.sealed_until.is_some_and(|sealed| until <= sealed) {
            return;
        }
        let tumbling = correlation.is_tumbling();
        if !tumbling {
            let final_ones = self.episodes.iter().rev().find(|episode| episode.opened < until);
            if let Some(&episode) = final_ones {
                let mut sealed = episode;
                if episode.last_decided >= until {
                    // The last of its windows that is final.
                    let mut at = hits.from(until.saturating_sub(correlation.decided_at(0)));
                    (sealed.last, sealed.last_decided) = self
                        .sealed
                        .filter(|before| before.open == episode.open)
                        .map_or((episode.open, episode.opened), |before| {
                            (before.last, before.last_decided)
                        });
                    while let Some(previous) = at.checked_sub(1) {
                        at = previous;
                        if hits.fulfils(at) {
                            let key = hits.key(at);
                            if key > sealed.last {
                                sealed.last = key;
                                sealed.last_decided = correlation.decided_at(key.time);
                            }
                            break;
                        }
                    }
                }
                self.sealed = Some(sealed);
            }
        }
        self.sealed_until = Some(until);
        let reach = if tumbling { 0 } else { correlation.timespan };
        let is_over = |episode: &Episode| episode.last_decided.saturating_add(reach) < until;
        self.sealed = self.sealed.filter(|sealed| !is_over(sealed));
        let Self { episodes, given, .. } = self;
        given.retain(|given| {
            let episode = episodes.iter().find(|episode| given.is_of(episode));
            match episode {
                Some(episode) => !is_over(episode),
                None => given.anchor_time.saturating_add(correlation.timespan * 2) >= until,
            }
        });
        episodes.retain(|episode| !is_over(episode));
    }
}

/// The evidence of an episode from a key on.
pub(super) fn evidence(
    correlation: &Correlation,
    hits: &Hits,
    from: Key,
    last: Key,
) -> Vec<Evidence> {
    let absence = correlation.measure == Measure::Absence;
    (hits.lower(from)..hits.len())
        .map(|at| (at, hits.key(at)))
        .take_while(|(_, key)| *key <= last)
        .filter(|(at, _)| !absence || hits.fulfils(*at))
        .map(|(_, key)| key.evidence())
        .collect()
}
