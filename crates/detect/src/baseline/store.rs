//! Where records live: two slabs of fixed-size records, a ring of users per slot, and an index for every
//! [`SHARD`] slots: few enough that the indexes of a small store stay in the caches, and small enough
//! that one growing pauses nobody.
//!
//! State is kept by slot (P2): a slot's users, their order and who is replaced depend on the slot's
//! own events only, so neither the number of workers nor the place of a record in a slab can change
//! a result. Slabs grow by chunks and never move a record, so growing pauses nobody.
//!
//! **Replacing users.** A full slot replaces a user by the rule of the clock ("second chance"): a
//! hand goes round the slot's users in the order of their places; who has a chance left loses one,
//! who has none is replaced, and the newcomer takes that place. Users that are learned are passed over
//! as long as the slot holds one that is not, so a flood of invented names replaces only invented
//! names. A user has no chance when new, one after the second event and three once learned.

use super::profile::{Head, Large, Profile, Record, Small};
use hashbrown::HashTable;
use palisade_event::slot::SLOTS;

const CHUNK_BITS: u32 = 8;
const CHUNK: usize = 1 << CHUNK_BITS;
/// Set in the handles of large records.
const LARGE: u32 = 1 << 31;
/// Set in the ring for users that are learned.
const LEARNED: u32 = 1 << 30;
/// No record.
pub(crate) const NONE: u32 = u32::MAX;

#[derive(Debug)]
pub(crate) struct Slab<R> {
    chunks: Vec<Box<[R]>>,
    free: Vec<u32>,
    used: u32,
}

impl<R: Default + Clone> Slab<R> {
    fn new() -> Self {
        Self { chunks: Vec::new(), free: Vec::new(), used: 0 }
    }

    fn take(&mut self) -> u32 {
        if let Some(index) = self.free.pop() {
            return index;
        }
        let index = self.used;
        if index as usize >= self.chunks.len() * CHUNK {
            self.chunks.push(vec![R::default(); CHUNK].into_boxed_slice());
        }
        self.used += 1;
        index
    }

    pub(crate) fn get(&self, index: u32) -> Option<&R> {
        self.chunks.get((index >> CHUNK_BITS) as usize)?.get(index as usize & (CHUNK - 1))
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut R> {
        self.chunks.get_mut((index >> CHUNK_BITS) as usize)?.get_mut(index as usize & (CHUNK - 1))
    }

    fn release(&mut self, index: u32) {
        if let Some(record) = self.get_mut(index) {
            *record = R::default();
            self.free.push(index);
        }
    }

    fn bytes(&self) -> usize {
        self.chunks.len() * CHUNK * size_of::<R>()
            + self.chunks.capacity() * size_of::<Box<[R]>>()
            + self.free.capacity() * size_of::<u32>()
    }
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// The upper half of the key; the lower half chooses the place in the table.
    tag: u32,
    handle: u32,
}

/// Slots that share an index.
const SHARD: usize = 16;

/// One slot's users.
#[derive(Debug, Default)]
pub(crate) struct Users {
    /// Handles by position, marked with [`LEARNED`]; the ring of the clock.
    ring: Vec<u32>,
    /// Where the clock's hand stands.
    pub(crate) hand: u16,
    /// Users were replaced in this slot.
    pub(crate) cut: bool,
}

impl Users {
    pub(crate) fn is_in_use(&self) -> bool {
        !self.ring.is_empty()
    }

    /// A place of the ring has no user: only while snapshots are being loaded.
    pub(crate) fn has_holes(&self) -> bool {
        self.ring.contains(&NONE)
    }
}

/// A user that was replaced, for the next incremental snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Removed {
    pub(crate) slot: u16,
    pub(crate) key: u64,
}

#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) small: Slab<Small>,
    pub(crate) large: Slab<Large>,
    slots: Vec<Users>,
    /// Users by key, for [`SHARD`] neighbouring slots each.
    index: Vec<HashTable<Bucket>>,
    max_users_per_slot: u16,
    users: usize,
}

fn tag(key: u64) -> u32 {
    (key >> 32) as u32
}

/// The table's hash: the key is a hash already, its low bits turned up for the control bytes.
fn spread(tag: u32) -> u64 {
    u64::from(tag).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Store {
    pub(crate) fn new(max_users_per_slot: u16) -> Self {
        Self {
            small: Slab::new(),
            large: Slab::new(),
            slots: (0..SLOTS).map(|_| Users::default()).collect(),
            index: (0..usize::from(SLOTS).div_ceil(SHARD)).map(|_| HashTable::new()).collect(),
            max_users_per_slot: max_users_per_slot.max(1),
            users: 0,
        }
    }

    pub(crate) fn users(&self) -> usize {
        self.users
    }

    pub(crate) fn slots(&self) -> impl Iterator<Item = (u16, &Users)> {
        (0..SLOTS).zip(&self.slots)
    }

    pub(crate) fn slot_mut(&mut self, slot: u16) -> Option<&mut Users> {
        self.slots.get_mut(usize::from(slot))
    }

    /// How many records of each size were ever taken: the bounds of a walk over all handles.
    pub(crate) fn extent(&self) -> (u32, u32) {
        (self.small.used, self.large.used)
    }

    pub(crate) fn head(&self, handle: u32) -> Option<&Head> {
        if handle & LARGE == 0 {
            self.small.get(handle).map(|record| &record.head)
        } else {
            self.large.get(handle & !LARGE).map(|record| &record.head)
        }
    }

    pub(crate) fn profile(&mut self, handle: u32) -> Option<Profile<'_>> {
        if handle & LARGE == 0 {
            self.small.get_mut(handle).map(Record::profile)
        } else {
            self.large.get_mut(handle & !LARGE).map(Record::profile)
        }
    }

    /// Reads a little of each part of a record, so that it is in the caches when it is needed.
    pub(crate) fn touch(&self, handle: u32) -> u32 {
        if handle & LARGE == 0 {
            self.small.get(handle).map_or(0, Record::touch)
        } else {
            self.large.get(handle & !LARGE).map_or(0, Record::touch)
        }
    }

    pub(crate) fn is_small(handle: u32) -> bool {
        handle & LARGE == 0
    }

    /// The user's handle, or [`NONE`].
    pub(crate) fn find(&self, slot: u16, key: u64) -> u32 {
        let Some(index) = self.index.get(usize::from(slot) / SHARD) else { return NONE };
        let tag = tag(key);
        let same = |head: &Head| head.key == key && head.slot == slot;
        let bucket = index.find(spread(tag), |bucket| {
            bucket.tag == tag && self.head(bucket.handle).is_some_and(same)
        });
        bucket.map_or(NONE, |bucket| bucket.handle)
    }

    /// The position that a new user of this slot would take over from another, by the rule of the
    /// clock; `None` while the slot has room. Chances are taken on the way from every user passed,
    /// so each is shown to `before` first, as it is about to change.
    pub(crate) fn victim(
        &mut self,
        slot: u16,
        mut before: impl FnMut(&mut Self, u32),
    ) -> Option<(u32, Removed)> {
        let users = self.slots.get(usize::from(slot))?;
        if users.ring.len() < usize::from(self.max_users_per_slot) {
            return None;
        }
        let spare_learned = users.ring.iter().any(|place| place & LEARNED == 0);
        loop {
            let users = self.slots.get_mut(usize::from(slot))?;
            let position = usize::from(users.hand) % users.ring.len();
            users.hand = ((position + 1) % users.ring.len()) as u16;
            let place = *users.ring.get(position)?;
            if spare_learned && place & LEARNED != 0 {
                continue;
            }
            let handle = place & !LEARNED;
            before(self, handle);
            let profile = self.profile(handle)?;
            if profile.head.chances == 0 {
                let removed = Removed { slot, key: profile.head.key };
                return Some((handle, removed));
            }
            profile.head.chances -= 1;
        }
    }

    /// Puts a new user into its slot, at the place of `instead` or behind the others.
    pub(crate) fn insert(&mut self, slot: u16, key: u64, instead: Option<u32>) -> u32 {
        let position = match instead {
            Some(old) => {
                let position = self.head(old).map_or(0, |head| head.position);
                self.forget(slot, old);
                if let Some(users) = self.slot_mut(slot) {
                    users.cut = true;
                }
                position
            }
            None => self.slots.get(usize::from(slot)).map_or(0, |users| users.ring.len() as u16),
        };
        self.place(slot, position, key, true)
    }

    /// Makes an empty record for a user at a position of the slot's ring.
    pub(crate) fn place(&mut self, slot: u16, position: u16, key: u64, small: bool) -> u32 {
        let handle = if small { self.small.take() } else { self.large.take() | LARGE };
        let Some(users) = self.slots.get_mut(usize::from(slot)) else { return NONE };
        let cut = users.cut;
        let tag = tag(key);
        if let Some(index) = self.index.get_mut(usize::from(slot) / SHARD) {
            index.insert_unique(spread(tag), Bucket { tag, handle }, |bucket| spread(bucket.tag));
        }
        if users.ring.len() <= usize::from(position) {
            users.ring.resize(usize::from(position) + 1, NONE);
        }
        if let Some(place) = users.ring.get_mut(usize::from(position)) {
            *place = handle;
        }
        self.users += 1;
        if let Some(profile) = self.profile(handle) {
            *profile.head = Head { key, slot, position, cut, ..Head::default() };
        }
        handle
    }

    /// Notes that a user is learned.
    pub(crate) fn mark_learned(&mut self, handle: u32) {
        let Some(&Head { slot, position, .. }) = self.head(handle) else { return };
        let users = self.slots.get_mut(usize::from(slot));
        if let Some(place) = users.and_then(|users| users.ring.get_mut(usize::from(position))) {
            *place |= LEARNED;
        }
    }

    /// Marks every user anew: learned from so many events on.
    pub(crate) fn mark_all_learned(&mut self, learning_events: u32) {
        let Self { small, large, slots, .. } = self;
        for place in
            slots.iter_mut().flat_map(|users| &mut users.ring).filter(|place| **place != NONE)
        {
            let handle = *place & !LEARNED;
            let head = if handle & LARGE == 0 {
                small.get(handle).map(|record| &record.head)
            } else {
                large.get(handle & !LARGE).map(|record| &record.head)
            };
            let learned = head.is_some_and(|head| head.events >= learning_events);
            *place = if learned { handle | LEARNED } else { handle };
        }
    }

    /// Removes a user; its place in the ring stays, empty.
    pub(crate) fn forget(&mut self, slot: u16, handle: u32) {
        let Some(&Head { key, position, .. }) = self.head(handle) else { return };
        let tag = tag(key);
        let Some(users) = self.slots.get_mut(usize::from(slot)) else { return };
        let same = |bucket: &Bucket| bucket.tag == tag && bucket.handle == handle;
        let index = self.index.get_mut(usize::from(slot) / SHARD);
        if let Some(Ok(entry)) = index.map(|index| index.find_entry(spread(tag), same)) {
            entry.remove();
            self.users -= 1;
        }
        if let Some(place) = users.ring.get_mut(usize::from(position)) {
            *place = NONE;
        }
        self.release(handle);
    }

    fn release(&mut self, handle: u32) {
        if handle & LARGE == 0 {
            self.small.release(handle);
        } else {
            self.large.release(handle & !LARGE);
        }
    }

    /// Moves a user into a large record and answers its new handle.
    pub(crate) fn promote(&mut self, handle: u32) -> u32 {
        if handle & LARGE != 0 {
            return handle;
        }
        let index = self.large.take();
        let (Some(small), Some(large)) = (self.small.get_mut(handle), self.large.get_mut(index))
        else {
            return handle;
        };
        large.profile().take(&small.profile());
        let Head { key, slot, position, .. } = large.head;
        let (tag, promoted) = (tag(key), index | LARGE);
        let same = |bucket: &Bucket| bucket.tag == tag && bucket.handle == handle;
        let index = self.index.get_mut(usize::from(slot) / SHARD);
        if let Some(bucket) = index.and_then(|index| index.find_mut(spread(tag), same)) {
            bucket.handle = promoted;
        }
        let users = self.slots.get_mut(usize::from(slot));
        if let Some(place) = users.and_then(|users| users.ring.get_mut(usize::from(position))) {
            *place = promoted | (*place & LEARNED);
        }
        self.release(handle);
        promoted
    }

    /// Bytes of everything held here, capacity that is not yet used included.
    pub(crate) fn bytes(&self) -> usize {
        let slots: usize = self
            .slots
            .iter()
            .map(|users| users.ring.capacity() * size_of::<u32>() + size_of::<Users>())
            .sum();
        let index: usize = self.index.iter().map(HashTable::allocation_size).sum();
        self.small.bytes() + self.large.bytes() + slots + index
    }
}
