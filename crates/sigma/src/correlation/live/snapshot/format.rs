//! How one group is written and read.

use super::super::episode::{Busy, Episode, Given};
use super::super::hits::Key;
use super::super::store::Group;
use super::{GROUP, SnapshotError};

/// What a group is found by, with places in the lists of the snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) rule: u32,
    pub(super) tenant: u32,
    pub(super) domain: u16,
    pub(super) slot: u16,
    pub(super) key: Box<[u8]>,
}

impl Name {
    pub(super) fn of(group: &Group) -> Self {
        let Group { rule, tenant, domain, slot, .. } = *group;
        Self { rule, tenant, domain, slot, key: group.key.clone() }
    }
}

pub(super) fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

pub(super) fn optional(value: Option<i64>, out: &mut Vec<u8>) {
    out.push(value.is_some().into());
    if let Some(value) = value {
        varint(zigzag(value), out);
    }
}

pub(super) fn text(text: &[u8], out: &mut Vec<u8>) {
    varint(text.len() as u64, out);
    out.extend_from_slice(text);
}

fn name(rule: u32, tenant: u32, (domain, slot): (u16, u16), key: &[u8], out: &mut Vec<u8>) {
    varint(rule.into(), out);
    varint(tenant.into(), out);
    varint(domain.into(), out);
    varint(slot.into(), out);
    text(key, out);
}

pub(super) fn write_name(of: &Name, out: &mut Vec<u8>) {
    name(of.rule, of.tenant, (of.domain, of.slot), &of.key, out);
}

pub(super) fn write_group(group: &Group, out: &mut Vec<u8>) {
    out.push(GROUP);
    name(group.rule, group.tenant, (group.domain, group.slot), &group.key, out);
    let words = group.hits.words();
    varint(words.len() as u64, out);
    words.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
    out.push(group.busy.is_some().into());
    if let Some(busy) = &group.busy {
        write_busy(busy, out);
    }
}

fn write_key(key: Key, out: &mut Vec<u8>) {
    varint(zigzag(key.time), out);
    out.extend_from_slice(&key.id.to_le_bytes());
    varint(key.input.into(), out);
}

fn write_episode(episode: &Episode, out: &mut Vec<u8>) {
    varint(zigzag(episode.period), out);
    write_key(episode.anchor, out);
    write_key(episode.open, out);
    varint(zigzag(episode.opened), out);
    write_key(episode.last, out);
    varint(zigzag(episode.last_decided), out);
}

/// Writes what a group has that is busy: the sealed episode `?`, sealed until `?z`, episodes n `v`, alerts given out n
/// `v`, dirty u8. A key is time `z`, id u128, input `v`; an episode period `z`, anchor and opening key, opened `z`, last
/// key, last decided `z`; an alert period `z`, anchor time `z`, anchor id u128, number `v`, retracted u8, opened `z`, last
/// key, changed `?` key, cut u8. Its window is measured anew.
pub(super) fn write_busy(busy: &Busy, out: &mut Vec<u8>) {
    out.push(busy.sealed.is_some().into());
    if let Some(sealed) = &busy.sealed {
        write_episode(sealed, out);
    }
    optional(busy.sealed_until, out);
    varint(busy.episodes.len() as u64, out);
    busy.episodes.iter().for_each(|episode| write_episode(episode, out));
    varint(busy.given.len() as u64, out);
    for given in &busy.given {
        varint(zigzag(given.period), out);
        varint(zigzag(given.anchor_time), out);
        out.extend_from_slice(&given.anchor_id.to_le_bytes());
        varint(given.number.into(), out);
        out.push(given.retracted.into());
        varint(zigzag(given.opened), out);
        write_key(given.last, out);
        out.push(given.changed.is_some().into());
        if let Some(changed) = given.changed {
            write_key(changed, out);
        }
        out.push(given.cut.into());
    }
    out.push(busy.is_dirty.into());
}

/// Reads a snapshot's bytes; every step may find them damaged.
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let (head, tail) =
            self.0.split_first_chunk::<N>().ok_or(SnapshotError::Damaged("it ends too soon"))?;
        self.0 = tail;
        Ok(*head)
    }

    pub(super) fn byte(&mut self) -> Result<u8, SnapshotError> {
        Ok(u8::from_le_bytes(self.bytes()?))
    }

    pub(super) fn flag(&mut self) -> Result<bool, SnapshotError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(SnapshotError::Damaged("a flag is neither 0 nor 1")),
        }
    }

    pub(super) fn varint(&mut self) -> Result<u64, SnapshotError> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            let placed = bits.checked_shl(shift).filter(|placed| placed >> shift == bits);
            value |= placed.ok_or(SnapshotError::Damaged("a number is too long"))?;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(SnapshotError::Damaged("a number is too long"))
    }

    pub(super) fn number<T: TryFrom<u64>>(&mut self) -> Result<T, SnapshotError> {
        T::try_from(self.varint()?).map_err(|_| SnapshotError::Damaged("a number is too great"))
    }

    pub(super) fn signed(&mut self) -> Result<i64, SnapshotError> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    pub(super) fn optional(&mut self) -> Result<Option<i64>, SnapshotError> {
        if self.flag()? { self.signed().map(Some) } else { Ok(None) }
    }

    /// How many things of at least `least` bytes follow.
    pub(super) fn count(&mut self, least: usize) -> Result<usize, SnapshotError> {
        let count: usize = self.number()?;
        if count > self.0.len() / least.max(1) {
            return Err(SnapshotError::Damaged("it ends too soon"));
        }
        Ok(count)
    }

    pub(super) fn text(&mut self) -> Result<&'a [u8], SnapshotError> {
        let length = self.count(1)?;
        let (head, tail) =
            self.0.split_at_checked(length).ok_or(SnapshotError::Damaged("it ends too soon"))?;
        self.0 = tail;
        Ok(head)
    }

    pub(super) fn name(&mut self) -> Result<Name, SnapshotError> {
        Ok(Name {
            rule: self.number()?,
            tenant: self.number()?,
            domain: self.number()?,
            slot: self.number()?,
            key: Box::from(self.text()?),
        })
    }

    pub(super) fn words(&mut self) -> Result<Vec<u64>, SnapshotError> {
        let count = self.count(8)?;
        let mut words = Vec::with_capacity(count);
        for _ in 0..count {
            words.push(u64::from_le_bytes(self.bytes()?));
        }
        Ok(words)
    }

    fn key(&mut self) -> Result<Key, SnapshotError> {
        let time = self.signed()?;
        let id = u128::from_le_bytes(self.bytes()?);
        // One less than all bits: the next key exists.
        let input = self.number::<u16>()?.min(u16::MAX - 1);
        Ok(Key { time, id, input })
    }

    fn episode(&mut self) -> Result<Episode, SnapshotError> {
        Ok(Episode {
            period: self.signed()?,
            anchor: self.key()?,
            open: self.key()?,
            opened: self.signed()?,
            last: self.key()?,
            last_decided: self.signed()?,
        })
    }

    pub(super) fn busy(&mut self) -> Result<Busy, SnapshotError> {
        let mut busy = Busy::default();
        if self.flag()? {
            busy.sealed = Some(self.episode()?);
        }
        busy.sealed_until = self.optional()?;
        for _ in 0..self.count(40)? {
            busy.episodes.push(self.episode()?);
        }
        for _ in 0..self.count(40)? {
            busy.given.push(Given {
                period: self.signed()?,
                anchor_time: self.signed()?,
                anchor_id: u128::from_le_bytes(self.bytes()?),
                number: self.number()?,
                retracted: self.flag()?,
                opened: self.signed()?,
                last: self.key()?,
                changed: if self.flag()? { Some(self.key()?) } else { None },
                cut: self.flag()?,
            });
        }
        busy.is_dirty = self.flag()?;
        Ok(busy)
    }
}
