//! Values with their counts: an open-addressed table of (group, key) pairs.

/// The table stays a table below so many entries, whatever the values are.
const FEW: usize = 1 << 16;
/// The interpolation's weight is cut to so many steps, as DataFusion's is.
const STEPS: f64 = 1_000_000.0;

/// A value of a group and how often it occurred; never occurred is an empty slot.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    key: u64,
    /// The group plus one; zero marks an empty slot.
    group: u64,
    count: u64,
}

/// Counts of (group, key) pairs.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    /// A power of two of them, or none.
    slots: Vec<Slot>,
    used: usize,
}

impl Tally {
    /// Adds to the count of a key of a group.
    #[inline]
    pub(super) fn add(&mut self, group: usize, key: u64, count: u64) {
        if self.used * 4 >= self.slots.len() * 3 {
            self.grow();
        }
        let group = group as u64 + 1;
        let slot = place(&mut self.slots, group, key);
        if let Some(slot) = slot {
            if slot.group == 0 {
                *slot = Slot { key, group, count };
                self.used += 1;
            } else {
                slot.count += count;
            }
        }
    }

    /// Takes one from the count of a key of group 0; false when it has none.
    fn remove(&mut self, key: u64) -> bool {
        match place(&mut self.slots, 1, key).filter(|slot| slot.group != 0 && slot.count > 0) {
            Some(slot) => {
                slot.count -= 1;
                true
            }
            None => false,
        }
    }

    fn grow(&mut self) {
        let size = (self.slots.len() * 2).max(64);
        let old = std::mem::replace(&mut self.slots, vec![Slot::default(); size]);
        for slot in old.into_iter().filter(|slot| slot.group != 0) {
            if let Some(empty) = place(&mut self.slots, slot.group, slot.key) {
                *empty = slot;
            }
        }
    }

    fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>()
    }
}

/// The slot of a pair, or the empty one that it belongs into; `None` for no slots only, as one in four
/// is always empty.
#[inline]
fn place(slots: &mut [Slot], group: u64, key: u64) -> Option<&mut Slot> {
    let mask = slots.len().wrapping_sub(1);
    let mixed = (key ^ group.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut at = (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 24;
    loop {
        let index = at as usize & mask;
        let slot = slots.get(index)?;
        if slot.group == 0 || (slot.key == key && slot.group == group) {
            return slots.get_mut(index);
        }
        at += 1;
    }
}

/// The keys with counts of a group, and its keys that are kept one by one.
pub(super) type Group = (Vec<(u64, u64)>, Vec<u64>);

/// All values of an aggregate: counted while they repeat, one by one when they hardly do.
#[derive(Debug, Clone, Default)]
pub(super) struct Held {
    tally: Tally,
    /// How many values were counted.
    counted: u64,
    /// By group; once anything stands here, further new values do as well.
    plain: Option<Vec<Vec<u64>>>,
    /// The capacity of all lists of `plain`.
    plain_capacity: usize,
}

impl Held {
    /// Adds a value.
    #[inline]
    pub(super) fn add(&mut self, group: usize, key: u64) {
        if self.plain.is_some() {
            return self.add_plain(group, key);
        }
        self.counted += 1;
        self.tally.add(group, key, 1);
        if self.tally.used >= FEW && self.tally.used as u64 > self.counted / 2 {
            self.plain = Some(Vec::new());
        }
    }

    fn add_plain(&mut self, group: usize, key: u64) {
        let Some(plain) = &mut self.plain else { return };
        if plain.len() <= group {
            plain.resize(group + 1, Vec::new());
        }
        if let Some(keys) = plain.get_mut(group) {
            let before = keys.capacity();
            keys.push(key);
            self.plain_capacity += keys.capacity() - before;
        }
    }

    /// Adds what another part has counted.
    pub(super) fn merge(&mut self, group: usize, key: u64, count: u64) {
        if count == 1 {
            return self.add(group, key);
        }
        self.counted += count;
        self.tally.add(group, key, count);
    }

    /// Takes a value of group 0 back; false when it is not there.
    pub(super) fn remove(&mut self, key: u64) -> bool {
        if self.tally.remove(key) {
            self.counted = self.counted.saturating_sub(1);
            return true;
        }
        let Some(keys) = self.plain.as_mut().and_then(|plain| plain.first_mut()) else {
            return false;
        };
        let found = keys.iter().position(|kept| *kept == key);
        found.map(|index| keys.swap_remove(index)).is_some()
    }

    /// The bytes that it holds.
    pub(super) fn bytes(&self) -> usize {
        let lists = self.plain.as_ref().map_or(0, |plain| plain.capacity() * size_of::<Vec<u64>>());
        self.tally.bytes() + lists + self.plain_capacity * size_of::<u64>()
    }

    /// What group 0 holds, which stays.
    pub(super) fn only_group(&mut self) -> (Vec<(u64, u64)>, &mut [u64]) {
        let counted = self.tally.slots.iter().filter(|slot| slot.group == 1 && slot.count > 0);
        let entries = counted.map(|slot| (slot.key, slot.count)).collect();
        let plain = self.plain.as_mut().and_then(|plain| plain.first_mut());
        (entries, plain.map_or(&mut [], Vec::as_mut_slice))
    }

    /// What each of the first `count` groups holds; the groups after them become the first.
    pub(super) fn take_groups(&mut self, count: usize) -> Vec<Group> {
        let mut groups: Vec<Group> = vec![Group::default(); count];
        let old = std::mem::take(&mut self.tally);
        for slot in old.slots.into_iter().filter(|slot| slot.group != 0 && slot.count > 0) {
            let group = usize::try_from(slot.group - 1).unwrap_or(usize::MAX);
            match groups.get_mut(group) {
                Some((entries, _)) => entries.push((slot.key, slot.count)),
                None => self.tally.add(group - count, slot.key, slot.count),
            }
        }
        if let Some(plain) = &mut self.plain {
            let later = plain.split_off(count.min(plain.len()));
            let first = std::mem::replace(plain, later);
            for ((_, keys), emitted) in groups.iter_mut().zip(first) {
                *keys = emitted;
            }
            self.plain_capacity = plain.iter().map(Vec::capacity).sum();
        }
        groups
    }
}

/// The two keys around a percentile and how far it lies from the first to the second, as DataFusion
/// computes it: at the place `share * (n - 1)` of the sorted values, its fraction cut to a millionth.
/// `None` when there is no value. `plain` changes its order.
pub(super) fn interpolate(
    mut entries: Vec<(u64, u64)>,
    plain: &mut [u64],
    share: f64,
) -> Option<(u64, u64, f64)> {
    let count = entries.iter().map(|(_, count)| *count).sum::<u64>() + plain.len() as u64;
    let last = count.checked_sub(1)?;
    let place = share * last as f64;
    let (low, high) = (place.floor() as u64, place.ceil() as u64);
    let weight = if low == high { 0.0 } else { ((place - place.floor()) * STEPS).floor() / STEPS };
    if entries.is_empty() {
        let at = |rank: u64| usize::try_from(rank).unwrap_or(usize::MAX).min(plain.len() - 1);
        let (low, high) = (at(low), at(high));
        let lower = *plain.select_nth_unstable(low).1;
        let upper = *plain.select_nth_unstable(high).1;
        return Some((lower, upper, weight));
    }
    entries.sort_unstable();
    plain.sort_unstable();
    let (mut entries, mut plain) = (entries.into_iter().peekable(), plain.iter().peekable());
    let mut lower = None;
    let mut passed = 0;
    loop {
        let (key, times) = match (entries.peek(), plain.peek()) {
            (Some((entry, times)), single) if single.is_none_or(|single| entry <= *single) => {
                let found = (*entry, *times);
                entries.next();
                found
            }
            (_, Some(single)) => {
                let found = (**single, 1);
                plain.next();
                found
            }
            _ => return None,
        };
        passed += times;
        if lower.is_none() && passed > low {
            lower = Some(key);
        }
        if let Some(lower) = lower.filter(|_| passed > high) {
            return Some((lower, key, weight));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: u64, distinct: u64) -> Vec<u64> {
        let mut state = 7u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % distinct
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn percentiles_are_those_of_the_sorted_values() {
        for (count, distinct) in [(1, 5), (2, 5), (1000, 10), (300_000, 100), (300_000, 1 << 40)] {
            let values = numbers(count, distinct);
            let mut sorted = values.clone();
            sorted.sort_unstable();
            let mut held = Held::default();
            values.iter().for_each(|value| held.add(0, *value));
            assert_eq!(held.plain.is_some(), distinct > 1000, "{distinct}");
            for share in [0.0, 0.25, 0.5, 0.95, 0.999, 1.0] {
                let place = share * (count - 1) as f64;
                let (entries, plain) = held.only_group();
                let (lower, upper, weight) = interpolate(entries, plain, share).unwrap();
                assert_eq!(lower, sorted[place.floor() as usize], "{count} {distinct} {share}");
                assert_eq!(upper, sorted[place.ceil() as usize], "{count} {distinct} {share}");
                assert!((place.fract() - weight).abs() < 1e-6);
            }
        }
        assert_eq!(interpolate(Vec::new(), &mut [], 0.5), None);
    }

    #[test]
    fn groups_are_emitted_in_order_and_later_ones_stay() {
        let values = numbers(200_000, 1 << 40);
        let mut held = Held::default();
        for (row, value) in values.iter().enumerate() {
            held.add(row % 10, *value);
        }
        let sum = |groups: &[Group]| -> Vec<u64> {
            let of = |(entries, plain): &Group| {
                let counted = entries.iter().map(|(key, count)| key * count).sum::<u64>();
                counted + plain.iter().sum::<u64>()
            };
            groups.iter().map(of).collect()
        };
        let wanted: Vec<u64> =
            (0..10).map(|group| values.iter().skip(group).step_by(10).sum()).collect();
        let first = held.take_groups(4);
        held.add(0, 5);
        let rest = held.take_groups(6);
        let mut got = sum(&first);
        got.extend(sum(&rest));
        got[4] -= 5;
        assert_eq!(got, wanted);
        assert_eq!(held.bytes(), held.plain.map_or(0, |plain| plain.capacity() * 24));
    }

    #[test]
    fn what_is_taken_back_was_there() {
        let mut held = Held::default();
        held.add(0, 3);
        held.add(0, 3);
        assert!(held.remove(3) && held.remove(3));
        assert!(!held.remove(3) && !held.remove(4));
        assert!(held.only_group().0.is_empty());
    }
}
