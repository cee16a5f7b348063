//! Disjoint ranges of addresses with a value each: what prefixes become before they are looked up.
//!
//! IPv4: the starts of all ranges in order, the gaps being ranges without a value, and a table that
//! says for each upper half of an address where its ranges begin; most upper halves have one or two,
//! so a lookup is two loads and a short scan. IPv6: a binary search over the starts.

use super::parse::Entry;
use std::net::IpAddr;

/// A level and the number of the list that gave it. Ordered by level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Value(u32);

impl Value {
    /// No list names the address.
    const NONE: Self = Self(0);

    fn new(level: u8, list: u16) -> Self {
        Self(u32::from(level) << 16 | u32::from(list))
    }

    pub(super) fn level(self) -> u8 {
        (self.0 >> 16) as u8
    }

    pub(super) fn list(self) -> u16 {
        self.0 as u16
    }

    /// The worse of two; the earlier list when they are the same.
    fn worse(self, other: Self) -> Self {
        if other.level() > self.level() { other } else { self }
    }
}

/// Ranges in the making: the start of each range and its value, in order, beginning at 0. A range
/// ends where the next begins.
#[derive(Debug, Clone)]
struct Steps(Vec<(u128, Value)>);

impl Default for Steps {
    fn default() -> Self {
        Self(vec![(0, Value::NONE)])
    }
}

impl Steps {
    /// The longest prefix wins. `prefixes` are first and last address, level, in any order.
    fn of_prefixes(mut prefixes: Vec<(u128, u128, u8)>, list: u16) -> Self {
        // Wider prefixes first where two begin together; of two equal ones the worse wins.
        prefixes.sort_unstable_by_key(|(first, last, level)| (*first, u128::MAX - *last, *level));
        let mut steps = Self::default();
        let mut open: Vec<(u128, Value)> = Vec::new();
        for (first, last, level) in prefixes {
            while let Some((end, _)) = open.last().copied() {
                if end >= first {
                    break;
                }
                open.pop();
                let below = open.last().map_or(Value::NONE, |(_, value)| *value);
                steps.push(end + 1, below);
            }
            let value = if level == 0 { Value::NONE } else { Value::new(level, list) };
            steps.push(first, value);
            open.push((last, value));
        }
        while let Some((end, _)) = open.pop() {
            let below = open.last().map_or(Value::NONE, |(_, value)| *value);
            if let Some(next) = end.checked_add(1) {
                steps.push(next, below);
            }
        }
        steps
    }

    fn push(&mut self, start: u128, value: Value) {
        match self.0.last_mut() {
            Some((last, old)) if *last == start => *old = value,
            Some((_, old)) if *old == value => {}
            _ => self.0.push((start, value)),
        }
    }

    /// Both together, range by range.
    fn merge(&self, other: &Self, together: impl Fn(Value, Value) -> Value) -> Self {
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        let (mut a, mut b) = (Value::NONE, Value::NONE);
        let mut out = Self(Vec::with_capacity(self.0.len() + other.0.len()));
        loop {
            let start = match (left.peek(), right.peek()) {
                (Some((l, _)), Some((r, _))) => *l.min(r),
                (Some((l, _)), None) => *l,
                (None, Some((r, _))) => *r,
                (None, None) => return out,
            };
            if let Some((_, value)) = left.next_if(|(at, _)| *at == start) {
                a = *value;
            }
            if let Some((_, value)) = right.next_if(|(at, _)| *at == start) {
                b = *value;
            }
            out.push(start, together(a, b));
        }
    }
}

/// Ranges of both families in the making.
#[derive(Debug, Default, Clone)]
pub(super) struct RangesBuilder {
    v4: Steps,
    v6: Steps,
}

impl RangesBuilder {
    /// The ranges of one list.
    pub(super) fn of_list(entries: &[Entry], list: u16) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for entry in entries {
            let side = if entry.v4 { &mut v4 } else { &mut v6 };
            side.push((entry.first, entry.last, entry.level));
        }
        Self { v4: Steps::of_prefixes(v4, list), v6: Steps::of_prefixes(v6, list) }
    }

    /// Takes the worse value of both.
    pub(super) fn worsen(&mut self, other: &Self) {
        self.v4 = self.v4.merge(&other.v4, Value::worse);
        self.v6 = self.v6.merge(&other.v6, Value::worse);
    }

    /// Takes away what the other holds.
    pub(super) fn remove(&mut self, other: &Self) {
        let keep = |a: Value, b: Value| if b == Value::NONE { a } else { Value::NONE };
        self.v4 = self.v4.merge(&other.v4, keep);
        self.v6 = self.v6.merge(&other.v6, keep);
    }

    pub(super) fn build(mut self) -> Ranges {
        let mut ranges = Ranges::default();
        // A range that ends with the last address ends a step beyond it, which begins nothing.
        self.v4.0.retain(|(start, _)| *start <= u128::from(u32::MAX));
        if self.v4.0.len() > 1 || self.v4.0.first().is_some_and(|(_, v)| *v != Value::NONE) {
            ranges.starts = self.v4.0.iter().map(|(start, _)| *start as u32).collect();
            ranges.values = self.v4.0.iter().map(|(_, value)| *value).collect();
            let mut from = Vec::with_capacity(0x1_0001);
            let mut at = 0usize;
            for upper in 0..=0xffff_u32 {
                // The range that holds the first address of this upper half.
                while ranges.starts.get(at + 1).is_some_and(|next| *next <= upper << 16) {
                    at += 1;
                }
                from.push(at as u32);
            }
            from.push(ranges.starts.len().saturating_sub(1) as u32);
            ranges.from = from;
        }
        if self.v6.0.len() > 1 || self.v6.0.first().is_some_and(|(_, v)| *v != Value::NONE) {
            ranges.v6 = self.v6.0;
        }
        ranges
    }
}

/// Ranges of both families, ready for lookups.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    starts: Vec<u32>,
    values: Vec<Value>,
    /// For each upper half of an IPv4 address, the index of the range that holds its first address;
    /// one more at the end.
    from: Vec<u32>,
    v6: Vec<(u128, Value)>,
}

impl Ranges {
    pub(super) fn is_empty(&self) -> bool {
        self.starts.is_empty() && self.v6.is_empty()
    }

    pub(super) fn find(&self, address: IpAddr) -> Option<Value> {
        match address.to_canonical() {
            IpAddr::V4(v4) => self.find_v4(v4.to_bits()),
            IpAddr::V6(v6) => {
                let at = self.v6.partition_point(|(start, _)| *start <= v6.to_bits());
                let (_, value) = self.v6.get(at.checked_sub(1)?)?;
                (*value != Value::NONE).then_some(*value)
            }
        }
    }

    pub(super) fn find_v4(&self, address: u32) -> Option<Value> {
        let upper = (address >> 16) as usize;
        let from = *self.from.get(upper)? as usize;
        let to = *self.from.get(upper + 1)? as usize;
        let at = if to - from < 8 {
            let mut at = from;
            while at < to && self.starts.get(at + 1).is_some_and(|next| *next <= address) {
                at += 1;
            }
            at
        } else {
            let inner = self.starts.get(from..=to)?;
            from + inner.partition_point(|start| *start <= address).saturating_sub(1)
        };
        let value = *self.values.get(at)?;
        (value != Value::NONE).then_some(value)
    }
}
