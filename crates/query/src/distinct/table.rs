//! A set of fingerprints in sixteen open-addressed tables, so that growing needs little memory at a time.

use datafusion::execution::memory_pool::MemoryReservation;

/// Bits of a fingerprint that choose a part.
const PART_BITS: u32 = 4;
/// How many parts a set has.
pub(super) const PARTS: usize = 1 << PART_BITS;
/// How often what went to disk may be taken apart anew.
pub(super) const MAX_LEVEL: u32 = 8;
/// The size of a table that has anything.
const LEAST_SLOTS: usize = 256;

/// What became of a fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is in the set from now on.
    New,
    /// It was there.
    Known,
    /// It is not there, and there is no room for it in this part.
    NoRoom(usize),
}

/// The part of a fingerprint; each level looks at other bits.
fn part_of(fingerprint: u128, level: u32) -> usize {
    let shift = 128 - PART_BITS * (level + 1);
    (fingerprint >> shift) as usize & (PARTS - 1)
}

#[derive(Debug, Default)]
struct Part {
    /// A power of two of them, or none; zero is empty.
    slots: Vec<u128>,
    used: usize,
    /// It could not grow; it may fill up further, but not to the last slot.
    last_size: bool,
}

impl Part {
    /// Where a fingerprint is or belongs; `None` without slots only, as some are always empty.
    #[inline]
    fn place(slots: &mut [u128], fingerprint: u128) -> Option<&mut u128> {
        let mask = slots.len().wrapping_sub(1);
        let mut at = fingerprint as usize;
        loop {
            let slot = *slots.get(at & mask)?;
            if slot == 0 || slot == fingerprint {
                return slots.get_mut(at & mask);
            }
            at = at.wrapping_add(1);
        }
    }

    fn grow(&mut self, memory: &MemoryReservation, bound: usize) -> bool {
        let size = (self.slots.len() * 2).max(LEAST_SLOTS);
        let (old, new) = (self.slots.len() * size_of::<u128>(), size * size_of::<u128>());
        if memory.size() + new > bound || memory.try_grow(new).is_err() {
            return false;
        }
        let slots = std::mem::replace(&mut self.slots, vec![0; size]);
        for fingerprint in slots.into_iter().filter(|slot| *slot != 0) {
            if let Some(slot) = Self::place(&mut self.slots, fingerprint) {
                *slot = fingerprint;
            }
        }
        memory.shrink(old);
        true
    }
}

/// The set. Its memory is reserved, and given back when it is cleared or dropped.
#[derive(Debug)]
pub(super) struct Fingerprints {
    parts: [Part; PARTS],
    level: u32,
    memory: MemoryReservation,
    /// The most bytes that it takes.
    bound: usize,
}

impl Fingerprints {
    pub(super) fn new(memory: MemoryReservation, bound: usize) -> Self {
        Self { parts: Default::default(), level: 0, memory, bound }
    }

    #[inline]
    pub(super) fn take(&mut self, fingerprint: u128) -> Taken {
        let number = part_of(fingerprint, self.level);
        let Some(part) = self.parts.get_mut(number) else { return Taken::NoRoom(number) };
        if !part.last_size
            && part.used * 4 >= part.slots.len() * 3
            && !part.grow(&self.memory, self.bound)
        {
            part.last_size = true;
        }
        let full = part.used * 8 >= part.slots.len() * 7;
        match Part::place(&mut part.slots, fingerprint) {
            Some(slot) if *slot != 0 => Taken::Known,
            Some(slot) if !full => {
                *slot = fingerprint;
                part.used += 1;
                Taken::New
            }
            _ => Taken::NoRoom(number),
        }
    }

    /// Forgets all, and takes fingerprints apart by the bits of this level.
    pub(super) fn clear(&mut self, level: u32) {
        self.parts = Default::default();
        self.memory.free();
        self.level = level;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::execution::memory_pool::{
        GreedyMemoryPool, MemoryConsumer, MemoryPool, UnboundedMemoryPool,
    };
    use std::collections::BTreeSet;
    use std::sync::Arc;

    fn numbers(count: u64) -> impl Iterator<Item = u128> {
        (0..count).map(|number| {
            let mixed =
                u128::from(number / 2 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
            mixed ^ mixed >> 67
        })
    }

    fn set(pool: Arc<dyn MemoryPool>, bound: usize) -> Fingerprints {
        Fingerprints::new(MemoryConsumer::new("test").register(&pool), bound)
    }

    #[test]
    fn each_fingerprint_is_new_once() {
        let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
        let mut fingerprints = set(Arc::clone(&pool), usize::MAX);
        let new = numbers(100_000).filter(|n| fingerprints.take(*n) == Taken::New).count();
        assert_eq!(new, 50_000);
        assert!(numbers(100_000).all(|number| fingerprints.take(number) == Taken::Known));
        assert!(pool.reserved() >= 50_000 * 16);
        fingerprints.clear(1);
        assert_eq!(pool.reserved(), 0);
        assert_eq!(fingerprints.take(7), Taken::New);
    }

    #[test]
    fn without_room_the_known_stay_known() {
        for (pool, bound) in [(1 << 20, usize::MAX), (usize::MAX, 1 << 20), (100, usize::MAX)] {
            let mut fingerprints = set(Arc::new(GreedyMemoryPool::new(pool)), bound);
            let mut kept = BTreeSet::new();
            let mut left = BTreeSet::new();
            for number in numbers(400_000) {
                match fingerprints.take(number) {
                    Taken::New => assert!(kept.insert(number) && !left.contains(&number)),
                    Taken::Known => assert!(kept.contains(&number)),
                    Taken::NoRoom(part) => {
                        assert_eq!(part, part_of(number, 0));
                        assert!(!kept.contains(&number));
                        left.insert(number);
                    }
                }
            }
            assert_eq!(kept.len() + left.len(), 200_000);
            assert!(!left.is_empty() && (kept.len() > 20_000 || pool == 100), "{}", kept.len());
        }
    }
}
