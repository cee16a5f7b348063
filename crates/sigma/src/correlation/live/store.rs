//! Where groups live: a slab that never moves one, a list per slot, and an index for every [`SHARD`] slots, small enough
//! that one growing pauses nobody. State is kept by slot (P2).

use super::episode::Busy;
use super::hits::Hits;
use hashbrown::HashTable;
use palisade_event::slot::SLOTS;

const CHUNK_BITS: u32 = 8;
const CHUNK: usize = 1 << CHUNK_BITS;
/// Slots that share an index.
const SHARD: usize = 16;

/// The state of one correlation for one group of a tenant and a domain.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) key: Box<[u8]>,
    pub(super) hits: Hits,
    /// What only groups have that are large, or fulfil.
    pub(super) busy: Option<Box<Busy>>,
    pub(super) rule: u32,
    pub(super) tenant: u32,
    pub(super) domain: u16,
    pub(super) slot: u16,
    /// The snapshot epoch in which it last changed; 0 where there is no group.
    pub(super) changed: u32,
}

/// What a group is found by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Name<'a> {
    pub(super) rule: u32,
    pub(super) tenant: u32,
    pub(super) domain: u16,
    pub(super) slot: u16,
    pub(super) key: &'a [u8],
    /// A hash of all that, the same wherever and whenever it is made.
    pub(super) hash: u64,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tag: u32,
    handle: u32,
}

/// What is known of a slot.
#[derive(Debug)]
pub(super) struct SlotState {
    /// Its groups, in the order in which they came.
    pub(super) groups: Vec<u32>,
    pub(super) hits: usize,
    /// The time of the latest hit that was given up to stay within bounds.
    pub(super) cut_until: i64,
}

#[derive(Debug)]
pub(super) struct Store {
    chunks: Vec<Box<[Group]>>,
    free: Vec<u32>,
    used: u32,
    index: Vec<HashTable<Bucket>>,
    pub(super) slots: Vec<SlotState>,
    groups: usize,
}

fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}

fn spread(tag: u32) -> u64 {
    u64::from(tag).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Store {
    pub(super) fn new() -> Self {
        let slot = || SlotState { groups: Vec::new(), hits: 0, cut_until: i64::MIN };
        Self {
            chunks: Vec::new(),
            free: Vec::new(),
            used: 0,
            index: (0..usize::from(SLOTS).div_ceil(SHARD)).map(|_| HashTable::new()).collect(),
            slots: (0..SLOTS).map(|_| slot()).collect(),
            groups: 0,
        }
    }

    pub(super) fn groups(&self) -> usize {
        self.groups
    }

    /// How many places were ever taken: the bound of a walk over all handles.
    pub(super) fn extent(&self) -> u32 {
        self.used
    }

    pub(super) fn get(&self, handle: u32) -> Option<&Group> {
        let chunk = self.chunks.get((handle >> CHUNK_BITS) as usize)?;
        chunk.get(handle as usize & (CHUNK - 1)).filter(|group| group.changed != 0)
    }

    pub(super) fn get_mut(&mut self, handle: u32) -> Option<&mut Group> {
        let chunk = self.chunks.get_mut((handle >> CHUNK_BITS) as usize)?;
        chunk.get_mut(handle as usize & (CHUNK - 1)).filter(|group| group.changed != 0)
    }

    pub(super) fn slot_mut(&mut self, slot: u16) -> Option<&mut SlotState> {
        self.slots.get_mut(usize::from(slot))
    }

    pub(super) fn find(&self, name: &Name<'_>) -> Option<u32> {
        let index = self.index.get(usize::from(name.slot) / SHARD)?;
        let tag = tag(name.hash);
        let same = |group: &Group| {
            group.rule == name.rule
                && group.tenant == name.tenant
                && group.domain == name.domain
                && group.slot == name.slot
                && *group.key == *name.key
        };
        let found = index.find(spread(tag), |bucket| {
            bucket.tag == tag && self.get(bucket.handle).is_some_and(same)
        });
        found.map(|bucket| bucket.handle)
    }

    pub(super) fn create(&mut self, name: &Name<'_>, has_value: bool, epoch: u32) -> u32 {
        let handle = self.free.pop().unwrap_or_else(|| {
            if self.used as usize >= self.chunks.len() * CHUNK {
                self.chunks.push((0..CHUNK).map(|_| Group::default()).collect());
            }
            self.used += 1;
            self.used - 1
        });
        let chunk = self.chunks.get_mut((handle >> CHUNK_BITS) as usize);
        if let Some(group) = chunk.and_then(|chunk| chunk.get_mut(handle as usize & (CHUNK - 1))) {
            *group = Group {
                key: Box::from(name.key),
                hits: Hits::new(has_value),
                busy: None,
                rule: name.rule,
                tenant: name.tenant,
                domain: name.domain,
                slot: name.slot,
                changed: epoch,
            };
        }
        let tag = tag(name.hash);
        if let Some(index) = self.index.get_mut(usize::from(name.slot) / SHARD) {
            index.insert_unique(spread(tag), Bucket { tag, handle }, |bucket| spread(bucket.tag));
        }
        if let Some(slot) = self.slots.get_mut(usize::from(name.slot)) {
            slot.groups.push(handle);
        }
        self.groups += 1;
        handle
    }

    /// Removes a group whose name has this hash; the caller takes it out of the slot's list.
    pub(super) fn remove(&mut self, handle: u32, hash: u64) -> Option<Group> {
        let group = std::mem::take(self.get_mut(handle)?);
        let tag = tag(hash);
        if let Some(index) = self.index.get_mut(usize::from(group.slot) / SHARD) {
            let same = |bucket: &Bucket| bucket.tag == tag && bucket.handle == handle;
            if let Ok(entry) = index.find_entry(spread(tag), same) {
                entry.remove();
            }
        }
        if let Some(slot) = self.slots.get_mut(usize::from(group.slot)) {
            slot.hits -= group.hits.len().min(slot.hits);
        }
        self.groups -= 1;
        self.free.push(handle);
        Some(group)
    }

    /// Bytes of everything held here, capacity that is not yet used included.
    pub(super) fn bytes(&self) -> usize {
        let groups: usize = (0..self.used)
            .filter_map(|handle| self.get(handle))
            .map(|group| {
                group.key.len()
                    + group.hits.bytes()
                    + group.busy.as_ref().map_or(0, |busy| size_of::<Busy>() + busy.bytes())
            })
            .sum();
        let slots: usize = self
            .slots
            .iter()
            .map(|slot| slot.groups.capacity() * size_of::<u32>() + size_of::<SlotState>())
            .sum();
        let index: usize = self.index.iter().map(HashTable::allocation_size).sum();
        self.chunks.len() * CHUNK * size_of::<Group>()
            + self.free.capacity() * size_of::<u32>()
            + groups
            + slots
            + index
    }
}
