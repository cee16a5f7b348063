//! Giving alerts out: when they are due, and as revisions when they change.

use super::super::alert::{AlertId, Revision, Standing};
use super::super::definition::Correlation;
use super::super::hit::Origin;
use super::Live;
use super::episode::{Episode, Given, evidence};
use super::hits::Key;
use super::store::Group;
use super::time::{NEVER, Timer};
use palisade_event::Slot;
use std::cmp::Reverse;
use std::sync::Arc;

/// Microseconds of clock that an answer waits behind its opening (K3): nothing where hits can only strengthen it. What reads
/// records only never waits longer than until it is final.
pub(super) fn patience(correlation: &Correlation, is_live: bool) -> i64 {
    if !correlation.is_falsifiable() {
        0
    } else if correlation.depth == 0 && is_live {
        correlation.patience.min(correlation.lateness.saturating_add(1))
    } else {
        correlation.patience
    }
}

impl Live {
    /// Clocks of a domain went on: gives out what waited for them.
    pub(super) fn fire(&mut self, number: usize, origin: Option<Origin>, out: &mut Vec<Revision>) {
        let Some(domain) = self.domains.get_mut(number) else { return };
        let mut due = Vec::new();
        for place in 0..domain.lanes.len() {
            let stages = domain.lanes.get(place).map_or(0, |lane| lane.stages);
            let concerns = |origin: Origin| stages >> origin.stage.min(15) & 1 == 1;
            if origin.is_some_and(|origin| !concerns(origin)) {
                continue;
            }
            let least = domain.least_clock(stages, &self.origins);
            let Some(lane) = domain.lanes.get_mut(place) else { continue };
            lane.least = Some(least);
            while let Some(Reverse(timer)) = lane.timers.peek() {
                if timer.due > least {
                    break;
                }
                due.push(*timer);
                lane.timers.pop();
            }
        }
        // In the order of groups, not of dues: a timer may be one that was set for what is no more.
        due.sort_unstable_by_key(|timer| (timer.slot, timer.hash, timer.handle));
        due.dedup_by_key(|timer| (timer.hash, timer.handle));
        for timer in due {
            let Some(group) = self.store.get(timer.handle) else { continue };
            if self.hash_of(group) != timer.hash {
                continue;
            }
            if let Some(busy) =
                self.store.get_mut(timer.handle).and_then(|group| group.busy.as_mut())
            {
                busy.timer = None;
            }
            self.schedule(timer.handle, out);
        }
    }

    /// Gives out what is due of a group, and sets a timer for what is not yet.
    pub(super) fn schedule(&mut self, handle: u32, out: &mut Vec<Revision>) {
        let Some(group) = self.store.get(handle) else { return };
        let Some(busy) = &group.busy else { return };
        let waits = |episode: &&Episode| !busy.stands(episode);
        if busy.episodes.iter().all(|episode| !waits(&episode)) {
            return;
        }
        let Some(rule) = self.rules.get(group.rule as usize) else { return };
        let (correlation, stages) = (Arc::clone(&rule.correlation), rule.stages());
        let (number, slot) = (usize::from(group.domain), group.slot);
        let waiting: Vec<Episode> = busy.episodes.iter().filter(waits).copied().collect();
        let set = busy.timer;
        let Some(domain) = self.domains.get_mut(number) else { return };
        let patience = patience(&correlation, domain.is_live);
        let Some(lane) = domain.lane(stages, &self.origins) else { return };
        let least = lane.least.unwrap_or(NEVER);
        let due = |episode: &Episode| episode.opened.saturating_add(patience);
        let next = waiting.iter().map(due).filter(|due| *due > least).min();
        if let Some(next) = next
            && set.is_none_or(|set| set > next)
        {
            let hash = self.store.get(handle).map_or(0, |group| self.hash_of(group));
            let domain = self.domains.get_mut(number);
            if let Some(lane) = domain.and_then(|d| d.lane(stages, &self.origins)) {
                lane.timers.push(Reverse(Timer { due: next, slot, hash, handle }));
            }
            if let Some(busy) = self.store.get_mut(handle).and_then(|group| group.busy.as_mut()) {
                busy.timer = Some(next);
            }
        }
        for episode in waiting.iter().filter(|episode| due(episode) <= least) {
            self.touch(handle);
            self.give(handle, &correlation, episode, out);
        }
    }

    fn give(
        &mut self,
        handle: u32,
        correlation: &Correlation,
        episode: &Episode,
        out: &mut Vec<Revision>,
    ) {
        let Some(group) = self.store.get(handle) else { return };
        let cut = self.is_cut(group.slot, correlation, episode.opened);
        let Some(busy) = &group.busy else { return };
        let before = busy.given.iter().find(|given| given.is_of(episode));
        let given = Given {
            period: episode.period,
            anchor_time: episode.anchor.time,
            anchor_id: episode.anchor.id,
            number: before.map_or(1, |given| given.number + 1),
            retracted: false,
            opened: episode.opened,
            last: episode.last,
            changed: None,
            cut,
        };
        out.extend(self.revision(group, &given, None, (episode.anchor, episode.last)));
        let Some(busy) = self.store.get_mut(handle).and_then(|group| group.busy.as_mut()) else {
            return;
        };
        match busy.given.iter_mut().find(|given| given.is_of(episode)) {
            Some(known) => *known = given,
            None => busy.given.push(given),
        }
    }

    /// Whether an alert of a slot may lack what was given up there.
    fn is_cut(&self, slot: u16, correlation: &Correlation, opened: i64) -> bool {
        let cut_until =
            self.store.slots.get(usize::from(slot)).map_or(NEVER, |slot| slot.cut_until);
        cut_until != NEVER && cut_until >= opened.saturating_sub(correlation.timespan)
    }

    fn revision(
        &self,
        group: &Group,
        given: &Given,
        opened_before: Option<i64>,
        (from, last): (Key, Key),
    ) -> Option<Revision> {
        let rule = self.rules.get(group.rule as usize)?;
        let correlation = &rule.correlation;
        let (tenant, _) = self.tenants.get(group.tenant as usize)?;
        let domain = &self.domains.get(usize::from(group.domain))?.name;
        let anchor = given.anchor();
        let standing = if given.retracted { Standing::Retracted } else { Standing::Stands };
        Some(Revision {
            id: AlertId::new(correlation, tenant, domain, &group.key, &anchor),
            number: given.number,
            standing,
            correlation: rule.place?,
            tenant: Arc::clone(tenant),
            domain: Arc::clone(domain),
            slot: Slot(group.slot),
            group: Arc::from(&*group.key),
            anchor,
            opened: given.opened,
            opened_before,
            from: from.evidence(),
            evidence: match standing {
                Standing::Stands => evidence(correlation, &group.hits, from, last),
                Standing::Retracted => Vec::new(),
            },
            cut: given.cut,
        })
    }

    /// Gives out the revisions and retractions that came to be due since the last tick.
    pub(super) fn flush(&mut self, out: &mut Vec<Revision>) {
        let dirty = std::mem::take(&mut self.dirty);
        let mut groups: Vec<(u16, u64, u32)> = dirty
            .into_iter()
            .filter_map(|handle| {
                let group = self.store.get(handle)?;
                group.busy.as_ref().filter(|busy| busy.is_dirty)?;
                Some((group.slot, self.hash_of(group), handle))
            })
            .collect();
        groups.sort_unstable();
        for (_, _, handle) in groups {
            self.touch(handle);
            self.flush_group(handle, out);
        }
    }

    pub(super) fn flush_group(&mut self, handle: u32, out: &mut Vec<Revision>) {
        let Some(group) = self.store.get(handle) else { return };
        let Some(rule) = self.rules.get(group.rule as usize) else { return };
        let Some(busy) = group.busy.as_ref().filter(|busy| busy.is_dirty) else { return };
        let mut all = busy.given.clone();
        for given in all.iter_mut().filter(|given| !given.retracted) {
            let anchor = Key { time: given.anchor_time, id: given.anchor_id, input: 0 };
            let opened_before = Some(given.opened);
            let Some(episode) = busy.episodes.iter().find(|episode| given.is_of(episode)) else {
                given.retracted = true;
                given.number += 1;
                given.changed = None;
                out.extend(self.revision(group, given, opened_before, (anchor, anchor)));
                continue;
            };
            let mut from = given.changed;
            if episode.last != given.last {
                let beyond = episode.last.min(given.last).next();
                from = Some(from.map_or(beyond, |from| from.min(beyond)));
            }
            let cut = given.cut || self.is_cut(group.slot, &rule.correlation, episode.opened);
            if from.is_none() && episode.opened == given.opened && cut == given.cut {
                continue;
            }
            given.number += 1;
            (given.last, given.opened) = (episode.last, episode.opened);
            (given.changed, given.cut) = (None, cut);
            let from = from.unwrap_or_else(|| episode.last.next()).max(anchor);
            out.extend(self.revision(group, given, opened_before, (from, episode.last)));
        }
        if let Some(busy) = self.store.get_mut(handle).and_then(|group| group.busy.as_mut()) {
            busy.given = all;
            busy.is_dirty = false;
        }
    }
}
