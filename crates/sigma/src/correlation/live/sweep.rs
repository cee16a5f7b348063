//! Letting go: what is final, slot by slot with the ticks, and what is beyond the bounds.

use super::super::alert::Revision;
use super::give::patience;
use super::time::{Domain, NEVER};
use super::{Live, Rule, SMALL};
use palisade_event::slot::SLOTS;
use std::sync::Arc;

/// Each tick goes through one of so many parts of the slots.
const PARTS: u64 = 64;

impl Live {
    /// Notes, for every rule and domain, what is final by now (T5).
    pub(super) fn settle(&mut self) {
        for domain in &mut self.domains {
            for (rule, number) in self.rules.iter().zip(0..) {
                if rule.place.is_none() {
                    continue;
                }
                let correlation = &rule.correlation;
                let least = domain.least_clock(rule.stages(), &self.origins);
                let given_out = if least == i64::MAX {
                    least
                } else {
                    least.saturating_sub(patience(correlation, domain.is_live))
                };
                let frontier = domain.frontier(rule, &self.origins);
                domain.settle(number, frontier.min(given_out));
            }
        }
    }

    /// Forgets the domains, other than the live one, in which everything was final and gone at the tick before, so that
    /// whoever asks could still learn that; and notes those of which it is so now.
    pub(super) fn forget_domains(&mut self) {
        for domain in &mut self.domains {
            if domain.is_over {
                *domain = Domain::new("");
                self.snapshots.require_full();
                continue;
            }
            let is_final = |(rule, number): (&Rule, u32)| {
                rule.place.is_none() || domain.settled(number) == i64::MAX
            };
            domain.is_over = !domain.is_live
                && !domain.name.is_empty()
                && domain.groups == 0
                && self.rules.iter().zip(0..).all(is_final);
        }
    }

    /// Lets go what is final in the slots whose turn it is.
    pub(super) fn sweep(&mut self) {
        let part = (self.ticks % PARTS) as u16;
        for slot in (part..SLOTS).step_by(PARTS as usize) {
            self.sweep_slot(slot);
        }
    }

    fn sweep_slot(&mut self, slot: u16) {
        let Some(state) = self.store.slot_mut(slot) else { return };
        if state.groups.is_empty() {
            return;
        }
        let mut groups = std::mem::take(&mut state.groups);
        groups.retain(|handle| !self.sweep_group(*handle));
        if let Some(state) = self.store.slot_mut(slot) {
            state.groups = groups;
        }
    }

    /// Lets go what is final of a group; answers whether nothing of it remained.
    fn sweep_group(&mut self, handle: u32) -> bool {
        let Some(group) = self.store.get(handle) else { return true };
        let Some(rule) = self.rules.get(group.rule as usize) else { return true };
        let domain = self.domains.get(usize::from(group.domain));
        let until = domain.map_or(NEVER, |domain| domain.settled(group.rule));
        let correlation = Arc::clone(&rule.correlation);
        let leaving = group.hits.from(until.saturating_sub(correlation.timespan));
        if until == NEVER || (leaving == 0 && group.busy.is_none() && group.hits.len() > 0) {
            return false;
        }
        self.touch(handle);
        let Some(group) = self.store.get_mut(handle) else { return true };
        if let Some(busy) = &mut group.busy {
            busy.seal(&correlation, &group.hits, until);
            if let Some(window) = &mut busy.window {
                window.leave(&correlation, &group.hits, leaving);
            }
        }
        group.hits.leave(leaving);
        let remaining = group.hits.len();
        if let Some(busy) = &mut group.busy {
            if remaining < SMALL / 2 {
                busy.window = None;
            }
            if busy.is_idle() {
                group.busy = None;
            }
        }
        let is_empty = remaining == 0 && group.busy.is_none();
        let slot = group.slot;
        if let Some(state) = self.store.slot_mut(slot) {
            state.hits -= leaving.min(state.hits);
        }
        if is_empty {
            self.remove_group(handle);
        }
        is_empty
    }

    /// Removes a group; the caller takes it out of its slot's list.
    pub(super) fn remove_group(&mut self, handle: u32) {
        let Some(group) = self.store.get(handle) else { return };
        let hash = self.hash_of(group);
        self.snapshots.removed(group);
        if let Some(domain) = self.domains.get_mut(usize::from(group.domain)) {
            domain.groups -= 1;
        }
        self.store.remove(handle, hash);
    }

    /// Brings a slot back within its bounds: an eighth of the bound is freed at once, so that the next hit finds room.
    /// The groups whose last hit is oldest go first; of the last one its oldest hits.
    pub(super) fn cut_slot(&mut self, slot: u16, out: &mut Vec<Revision>) {
        let most_groups = self.options.groups_per_slot - self.options.groups_per_slot / 8;
        let most_hits = self.options.hits_per_slot - self.options.hits_per_slot / 8;
        let Some(state) = self.store.slot_mut(slot) else { return };
        let (mut hits, listed) = (state.hits, state.groups.clone());
        let mut order: Vec<(i64, u64, u32)> = listed
            .iter()
            .filter_map(|handle| {
                let group = self.store.get(*handle)?;
                let last = group.hits.len().checked_sub(1).map_or(NEVER, |at| group.hits.time(at));
                Some((last, self.hash_of(group), *handle))
            })
            .collect();
        order.sort_unstable();
        let mut groups = order.len();
        for (last, _, handle) in order {
            let group_is_too_many = groups > most_groups.max(1);
            if !group_is_too_many && hits <= most_hits.max(1) {
                break;
            }
            let of_group = self.store.get(handle).map_or(0, |group| group.hits.len());
            self.touch(handle);
            if groups == 1 || (!group_is_too_many && hits - of_group < most_hits / 2) {
                let leaving = hits.saturating_sub(most_hits).min(of_group);
                self.cut_group(handle, leaving, out);
                hits -= leaving;
                continue;
            }
            self.note_cut(slot, last, of_group);
            self.mark_cut(handle, out);
            self.counters.groups_cut += 1;
            self.remove_group(handle);
            if let Some(state) = self.store.slot_mut(slot) {
                state.groups.retain(|listed| *listed != handle);
            }
            groups -= 1;
            hits -= of_group;
        }
    }

    fn note_cut(&mut self, slot: u16, until: i64, hits: usize) {
        self.counters.hits_cut += hits as u64;
        if let Some(state) = self.store.slot_mut(slot) {
            state.cut_until = state.cut_until.max(until);
        }
    }

    /// Says of a group's standing alerts that they may be incomplete.
    fn mark_cut(&mut self, handle: u32, out: &mut Vec<Revision>) {
        if let Some(busy) = self.store.get_mut(handle).and_then(|group| group.busy.as_mut())
            && !busy.given.is_empty()
        {
            busy.is_dirty = true;
        }
        self.flush_group(handle, out);
    }

    /// Gives up the oldest hits of a group.
    fn cut_group(&mut self, handle: u32, leaving: usize, out: &mut Vec<Revision>) {
        let Some(group) = self.store.get(handle).filter(|_| leaving > 0) else { return };
        let (slot, last) = (group.slot, group.hits.time(leaving - 1));
        let Some(rule) = self.rules.get(group.rule as usize) else { return };
        let correlation = Arc::clone(&rule.correlation);
        self.note_cut(slot, last, leaving);
        self.mark_cut(handle, out);
        let Some(group) = self.store.get_mut(handle) else { return };
        if let Some(busy) = &mut group.busy {
            // What decided before the first hit that stays can't be made anew.
            let until =
                correlation.decided_at(group.hits.time(leaving)).min(last.saturating_add(1));
            busy.seal(&correlation, &group.hits, until);
            if let Some(window) = &mut busy.window {
                window.leave(&correlation, &group.hits, leaving);
            }
        }
        group.hits.leave(leaving);
        if let Some(state) = self.store.slot_mut(slot) {
            state.hits -= leaving.min(state.hits);
        }
    }

    /// Gives up the groups of rules that are not in force any more (C2).
    pub(super) fn drop_rules(&mut self, gone: &[bool], out: &mut Vec<Revision>) {
        let is_gone = |rule: u32| gone.get(rule as usize).copied().unwrap_or(false);
        for slot in 0..SLOTS {
            let Some(state) = self.store.slot_mut(slot) else { continue };
            let mut groups = std::mem::take(&mut state.groups);
            groups.retain(|handle| {
                let Some(group) = self.store.get(*handle) else { return false };
                if !is_gone(group.rule) {
                    return true;
                }
                self.retract_all(*handle, out);
                self.remove_group(*handle);
                false
            });
            if let Some(state) = self.store.slot_mut(slot) {
                state.groups = groups;
            }
        }
    }

    fn retract_all(&mut self, handle: u32, out: &mut Vec<Revision>) {
        self.touch(handle);
        let Some(group) = self.store.get_mut(handle) else { return };
        let falsifiable = self
            .rules
            .get(group.rule as usize)
            .is_some_and(|rule| rule.correlation.is_falsifiable());
        if let Some(busy) = &mut group.busy {
            if falsifiable {
                // Those that are final are left as they are.
                let until = busy.sealed_until.unwrap_or(NEVER);
                busy.episodes.retain(|episode| episode.opened < until);
            }
            busy.is_dirty = true;
        }
        self.flush_group(handle, out);
    }
}
