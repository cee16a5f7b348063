//! Loading snapshots: a full one and the incremental ones after it.

use super::super::profile::{Head, Large, fits_small};
use super::super::store::NONE;
use super::super::{BaselineOptions, Baselines};
use super::format::{Input, read_user};
use super::{BaselineError, END, MAGIC, REMOVED, SLOTS, USER, VERSION};
use palisade_event::Slot;
use std::io::Read;
use xxhash_rust::xxh3::Xxh3;

impl Baselines {
    /// Baselines from one chain of snapshots: a full one and the incremental ones after it.
    ///
    /// # Errors
    /// See [`Baselines::load`].
    pub fn restore<R: Read>(
        options: BaselineOptions,
        chain: impl IntoIterator<Item = R>,
    ) -> Result<Self, BaselineError> {
        let mut baselines = Self::new(options);
        baselines.load(chain, |_| true)?;
        Ok(baselines)
    }

    /// Loads the wanted slots of one chain of snapshots (of one former worker) into these baselines,
    /// which must not hold those slots yet. The next snapshot taken will be full.
    ///
    /// # Errors
    /// [`BaselineError`]; the baselines are then of no use.
    pub fn load<R: Read>(
        &mut self,
        chain: impl IntoIterator<Item = R>,
        wanted: impl Fn(Slot) -> bool,
    ) -> Result<(), BaselineError> {
        let mut expected = None;
        for mut reader in chain {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes)?;
            let sequence = self.load_one(&bytes, expected, &wanted)?;
            expected = Some(sequence + 1);
        }
        if self.store.slots().any(|(_, users)| users.has_holes()) {
            return Err(BaselineError::Damaged("a place in a slot is empty"));
        }
        self.snapshots.needs_full = true;
        Ok(())
    }

    fn load_one(
        &mut self,
        bytes: &[u8],
        expected: Option<u64>,
        wanted: &impl Fn(Slot) -> bool,
    ) -> Result<u64, BaselineError> {
        let (body, hash) =
            bytes.split_last_chunk::<8>().ok_or(BaselineError::Damaged("it is too short"))?;
        let mut input = Input(body);
        if input.bytes::<8>()? != *MAGIC {
            return Err(BaselineError::Damaged("it does not begin as one"));
        }
        let version = u16::from_le_bytes(input.bytes()?);
        if version != VERSION {
            return Err(BaselineError::Version(version));
        }
        let mut check = Xxh3::new();
        check.update(body);
        if check.digest() != u64::from_le_bytes(*hash) {
            return Err(BaselineError::Damaged("its checksum is wrong"));
        }
        let full = input.byte()? == 0;
        let sequence = u64::from_le_bytes(input.bytes()?);
        match expected {
            None if !full => return Err(BaselineError::Sequence { expected: 1, found: sequence }),
            Some(expected) if full || sequence != expected => {
                return Err(BaselineError::Sequence { expected, found: sequence });
            }
            _ => {}
        }
        let half_life = u64::from_le_bytes(input.bytes()?);
        if half_life != self.decay.half_life() as u64 {
            return Err(BaselineError::HalfLife(half_life));
        }
        let (mut users, mut removed) = (0, 0);
        let mut hands = Vec::new();
        loop {
            match input.byte()? {
                SLOTS => {
                    for _ in 0..input.varint()? {
                        let slot = input.small()?;
                        hands.push((slot, input.small()?, input.byte()? != 0));
                    }
                }
                REMOVED => {
                    let (slot, key) = (input.small()?, u64::from_le_bytes(input.bytes()?));
                    let handle = self.store.find(slot, key);
                    if handle != NONE {
                        self.store.forget(slot, handle);
                    }
                    removed += 1;
                }
                USER => {
                    self.load_user(&mut input, wanted)?;
                    users += 1;
                }
                END => break,
                _ => return Err(BaselineError::Damaged("it has an unknown part")),
            }
        }
        if input.varint()? != users || input.varint()? != removed || !input.0.is_empty() {
            return Err(BaselineError::Damaged("its parts do not add up"));
        }
        for (slot, hand, cut) in hands.into_iter().filter(|(slot, ..)| wanted(Slot(*slot))) {
            if let Some(users) = self.store.slot_mut(slot) {
                (users.hand, users.cut) = (hand, cut);
            }
        }
        Ok(sequence)
    }

    fn load_user(
        &mut self,
        input: &mut Input<'_>,
        wanted: &impl Fn(Slot) -> bool,
    ) -> Result<(), BaselineError> {
        let mut record = Large::default();
        read_user(input, &mut record.profile())?;
        let Head { key, slot, position, .. } = record.head;
        if !wanted(Slot(slot)) {
            return Ok(());
        }
        if position >= self.options.max_users_per_slot {
            return Err(BaselineError::TooManyUsers(slot));
        }
        let old = self.store.find(slot, key);
        if old != NONE {
            self.store.forget(slot, old);
        }
        let small = fits_small(&record.head);
        let handle = self.store.place(slot, position, key, small);
        if let Some(mut profile) = self.store.profile(handle) {
            profile.take(&record.profile());
            profile.head.changed = self.snapshots.epoch;
        }
        if record.head.events >= self.options.learning_events {
            self.store.mark_learned(handle);
        }
        Ok(())
    }
}
