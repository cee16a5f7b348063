//! The hits of a group, sorted by (time, id, input), in 24 bytes each, or 32 where they carry a value.
//!
//! The first word is the time in microseconds (53 bits), the input (9 bits) and two flags; then the id's two halves, and
//! the value. Hits leave from the front: they are only counted as gone until they are half of all, so that leaving
//! costs nothing by itself. Room grows by an eighth, because there are many groups and most stay small.

use super::super::alert::Evidence;
use palisade_event::RecordId;

const INPUT_BITS: u32 = 9;
const FLAG_BITS: u32 = 2;
const TIME_SHIFT: u32 = INPUT_BITS + FLAG_BITS;
/// The window that ends with this hit (absence: begins with it; tumbling: the window, on its first hit) fulfils the condition.
const FULFILS: u64 = 1;

/// What orders hits; the same order as [`Evidence`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) time: i64,
    pub(super) id: u128,
    pub(super) input: u16,
}

impl Key {
    /// The least key of a moment.
    pub(super) fn at(time: i64) -> Self {
        Self { time, id: 0, input: 0 }
    }

    /// The next greater key.
    pub(super) fn next(self) -> Self {
        Self { input: self.input + 1, ..self }
    }

    pub(super) fn evidence(self) -> Evidence {
        Evidence { time: self.time, record: RecordId(self.id.to_be_bytes()), input: self.input }
    }

    pub(super) fn same_record(self, other: Self) -> bool {
        self.time == other.time && self.id == other.id
    }
}

#[derive(Debug, Default)]
pub(super) struct Hits {
    words: Vec<u64>,
    /// Hits at the front that are gone.
    gone: u32,
    has_value: bool,
}

impl Hits {
    pub(super) fn new(has_value: bool) -> Self {
        Self { words: Vec::new(), gone: 0, has_value }
    }

    fn stride(&self) -> usize {
        3 + usize::from(self.has_value)
    }

    pub(super) fn len(&self) -> usize {
        self.words.len() / self.stride() - self.gone as usize
    }

    fn offset(&self, at: usize) -> usize {
        (self.gone as usize + at) * self.stride()
    }

    /// The time of a hit; beyond the end, the end of time.
    pub(super) fn time(&self, at: usize) -> i64 {
        self.words.get(self.offset(at)).map_or(i64::MAX, |word| (word >> TIME_SHIFT) as i64)
    }

    pub(super) fn input(&self, at: usize) -> u16 {
        let word = self.words.get(self.offset(at)).copied().unwrap_or(0);
        ((word >> FLAG_BITS) & ((1 << INPUT_BITS) - 1)) as u16
    }

    pub(super) fn value(&self, at: usize) -> u64 {
        if !self.has_value {
            return 0;
        }
        self.words.get(self.offset(at) + 3).copied().unwrap_or(0)
    }

    pub(super) fn fulfils(&self, at: usize) -> bool {
        self.words.get(self.offset(at)).is_some_and(|word| word & FULFILS != 0)
    }

    /// Sets whether the hit's window fulfils; answers whether that changed.
    pub(super) fn set_fulfils(&mut self, at: usize, fulfils: bool) -> bool {
        let offset = self.offset(at);
        let Some(word) = self.words.get_mut(offset) else { return false };
        let before = *word;
        *word = (before & !FULFILS) | u64::from(fulfils);
        before != *word
    }

    pub(super) fn key(&self, at: usize) -> Key {
        let offset = self.offset(at);
        let id = match self.words.get(offset + 1..offset + 3) {
            Some([high, low]) => (u128::from(*high) << 64) | u128::from(*low),
            _ => 0,
        };
        Key { time: self.time(at), id, input: self.input(at) }
    }

    /// The first place whose key is not less.
    pub(super) fn lower(&self, key: Key) -> usize {
        // Hits mostly come in order: look at the last one first.
        let len = self.len();
        if len == 0 || self.key(len - 1) < key {
            return len;
        }
        self.search(|at| self.key(at) < key)
    }

    /// The first place whose time is beyond `time`.
    pub(super) fn after(&self, time: i64) -> usize {
        self.search(|at| self.time(at) <= time)
    }

    /// The first place whose time is not before `time`.
    pub(super) fn from(&self, time: i64) -> usize {
        self.search(|at| self.time(at) < time)
    }

    fn search(&self, before: impl Fn(usize) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            if before(middle) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    pub(super) fn insert(&mut self, at: usize, key: Key, value: u64) {
        let word = ((key.time as u64) << TIME_SHIFT) | (u64::from(key.input) << FLAG_BITS);
        let hit = [word, (key.id >> 64) as u64, key.id as u64, value];
        let hit = hit.get(..self.stride()).unwrap_or_default();
        if self.words.len() + hit.len() > self.words.capacity() {
            self.drop_gone();
            if self.words.len() + hit.len() > self.words.capacity() {
                let more = (self.len() / 8).max(1) * hit.len();
                self.words.reserve_exact(more);
            }
        }
        let offset = self.offset(at);
        if offset >= self.words.len() {
            self.words.extend_from_slice(hit);
        } else {
            self.words.splice(offset..offset, hit.iter().copied());
        }
    }

    pub(super) fn remove(&mut self, at: usize) {
        let (offset, stride) = (self.offset(at), self.stride());
        if offset + stride <= self.words.len() {
            self.words.drain(offset..offset + stride);
        }
    }

    /// Lets the first hits go.
    pub(super) fn leave(&mut self, count: usize) {
        self.gone += count.min(self.len()) as u32;
        if self.gone as usize * 2 * self.stride() > self.words.len() {
            self.drop_gone();
            // Room for what a group of this size may soon need is kept, a flood's is not.
            if self.words.capacity() > self.words.len() * 2 + 16 {
                self.words.shrink_to(self.words.len() + self.words.len() / 4);
            }
        }
    }

    fn drop_gone(&mut self) {
        if self.gone > 0 {
            let offset = self.offset(0);
            self.words.drain(..offset);
            self.gone = 0;
        }
    }

    /// The hits as they are written into a snapshot.
    pub(super) fn words(&self) -> &[u64] {
        self.words.get(self.offset(0)..).unwrap_or_default()
    }

    /// Hits from a snapshot; `None` unless they are whole and in order.
    pub(super) fn restore(words: Vec<u64>, has_value: bool) -> Option<Self> {
        let hits = Self { words, gone: 0, has_value };
        let in_order = (1..hits.len()).all(|at| hits.key(at - 1) < hits.key(at));
        (hits.words.len().is_multiple_of(hits.stride()) && in_order).then_some(hits)
    }

    pub(super) fn bytes(&self) -> usize {
        self.words.capacity() * size_of::<u64>()
    }
}
