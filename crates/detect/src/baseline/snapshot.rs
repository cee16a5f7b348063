//! Snapshots of the baselines: incremental, copy-on-write, taken in small steps between batches (M2).
//!
//! A snapshot holds the state as it was when it began, though batches go on: a record that is about
//! to change before the snapshot reached it is written first. A **full** snapshot holds every user; an
//! **incremental** one the users changed since the snapshot before began, and those removed since.
//! State is restored from a full snapshot and the incremental ones after it, in order; snapshots of
//! several workers can be loaded one chain after the other, keeping only the slots that are wanted,
//! so another number of workers works too.
//!
//! # Format, version 1
//!
//! Integers are little-endian or LEB128 varints (`v`); signed ones are zigzag varints (`z`).
//!
//! | part | bytes |
//! |---|---|
//! | header | `PBASELIN`, version u16, kind u8 (0 full, 1 incremental), sequence u64, half-life in µs u64 |
//! | slots | tag 1, n `v`, then n times: slot `v`, hand `v`, cut u8; slots without users are left out |
//! | removed | tag 2, slot `v`, key u64 |
//! | user | tag 3, see [`write_user`] |
//! | end | tag 0, number of users `v`, number of removed `v`, XXH3-64 of all bytes before this hash, u64 |
//!
//! Parts come in any order between header and end, but `removed` before `user`. Sequences count from 1
//! without gaps within a chain.

use super::profile::{Dimension, Head, Large, Profile, Value};
use super::store::{NONE, Removed, Store};
use super::{BaselineOptions, Baselines};
use palisade_event::{ErrorClass, Slot};
use std::io::Read;
use xxhash_rust::xxh3::Xxh3;

const MAGIC: &[u8; 8] = b"PBASELIN";
const VERSION: u16 = 1;
const END: u8 = 0;
const SLOTS: u8 = 1;
const REMOVED: u8 = 2;
const USER: u8 = 3;
/// More removals than this between two snapshots make the next one full.
const MAX_REMOVED: usize = 200_000;
/// Records walked over without being written cost this fraction of one that is written.
const WALK: u32 = 16;

/// What a snapshot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotKind {
    /// Every user.
    Full,
    /// What changed since the snapshot before.
    Incremental,
}

/// Why a snapshot could not be taken or loaded.
#[derive(Debug, thiserror::Error)]
pub enum BaselineError {
    /// A snapshot is being taken already.
    #[error("a snapshot of the baselines is being taken already: finish or abort it first")]
    InProgress,
    /// The bytes could not be read.
    #[error("cannot read the snapshot of the baselines: {0}")]
    Read(#[from] std::io::Error),
    /// The bytes are not what was written.
    #[error("the snapshot of the baselines is damaged ({0}): restore an older checkpoint")]
    Damaged(&'static str),
    /// Another release wrote it.
    #[error(
        "the snapshot of the baselines has format {0}, this release reads 1: start the release that wrote it"
    )]
    Version(u16),
    /// It does not continue the one loaded before it.
    #[error(
        "the snapshot of the baselines has sequence {found}, {expected} was expected: load a full one and those after it, in order"
    )]
    Sequence {
        /// What follows the last one loaded.
        expected: u64,
        /// What was found.
        found: u64,
    },
    /// It was written under another half-life.
    #[error(
        "the snapshot of the baselines was written with a half-life of {0} µs: set it back, or start the baselines anew"
    )]
    HalfLife(u64),
    /// It has more users in a slot than the options allow.
    #[error(
        "slot {0} of the snapshot of the baselines has more users than max_users_per_slot: raise it"
    )]
    TooManyUsers(u16),
}

impl BaselineError {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::InProgress | Self::Read(_) => ErrorClass::Transient,
            _ => ErrorClass::Critical,
        }
    }
}

struct Running {
    kind: SnapshotKind,
    /// How far the walk over all handles is, and where it ends.
    walked: u32,
    small: u32,
    large: u32,
    small_end: u32,
    /// Bytes that are to be handed out with the next step.
    ready: Vec<u8>,
    hash: Xxh3,
    users: u64,
    removed: u64,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("kind", &self.kind).field("users", &self.users).finish()
    }
}

/// The state of taking snapshots.
#[derive(Debug)]
pub(super) struct Snapshots {
    every: u32,
    /// How many snapshots were begun; records carry the epoch of their last change.
    epoch: u32,
    sequence: u64,
    since_full: u32,
    needs_full: bool,
    removed: Vec<Removed>,
    running: Option<Running>,
}

impl Snapshots {
    pub(super) fn new(every: u32) -> Self {
        Self {
            every: every.max(1),
            epoch: 1,
            sequence: 0,
            since_full: 0,
            needs_full: true,
            removed: Vec::new(),
            running: None,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.removed.capacity() * size_of::<Removed>()
            + self.running.as_ref().map_or(0, |running| running.ready.capacity())
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// What a record's `changed` must be when it changes.
    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// To be called before a record changes: saves it if the running snapshot still needs it.
    pub(super) fn before_change(&mut self, store: &mut Store, handle: u32) {
        let epoch = self.epoch;
        let Some(profile) = store.profile(handle) else { return };
        if profile.head.changed == epoch {
            return;
        }
        if let Some(running) = &mut self.running
            && running.wants(profile.head, epoch)
            && !running.has_passed(handle)
        {
            write_user(&profile, &mut running.ready);
            running.users += 1;
        }
        profile.head.changed = epoch;
    }

    /// A record was made: no running snapshot knows it.
    pub(super) fn created(&mut self, store: &mut Store, handle: u32) {
        if let Some(profile) = store.profile(handle) {
            profile.head.changed = self.epoch;
        }
    }

    /// A user was replaced.
    pub(super) fn removed(&mut self, removed: Removed) {
        if self.removed.len() < MAX_REMOVED {
            self.removed.push(removed);
        } else {
            self.needs_full = true;
        }
    }
}

impl Running {
    /// Whether a record that did not change since the snapshot began belongs into it.
    fn wants(&self, head: &Head, epoch: u32) -> bool {
        head.key != 0
            && head.changed != epoch
            && (self.kind == SnapshotKind::Full || head.changed + 1 == epoch)
    }

    fn has_passed(&self, handle: u32) -> bool {
        if Store::is_small(handle) {
            handle < self.small
        } else {
            (handle & !(1 << 31)) < self.large
        }
    }
}

impl Baselines {
    /// Begins a snapshot of the state as it is now. Costs a walk over the slots, not over the users.
    ///
    /// # Errors
    /// [`BaselineError::InProgress`].
    pub fn begin_snapshot(&mut self) -> Result<SnapshotKind, BaselineError> {
        let snapshots = &mut self.snapshots;
        if snapshots.running.is_some() {
            return Err(BaselineError::InProgress);
        }
        let full = snapshots.needs_full || snapshots.since_full + 1 >= snapshots.every;
        let kind = if full { SnapshotKind::Full } else { SnapshotKind::Incremental };
        snapshots.since_full = if full { 0 } else { snapshots.since_full + 1 };
        snapshots.needs_full = false;
        snapshots.sequence += 1;
        snapshots.epoch += 1;
        let removed = std::mem::take(&mut snapshots.removed);
        let mut ready = Vec::new();
        ready.extend_from_slice(MAGIC);
        ready.extend_from_slice(&VERSION.to_le_bytes());
        ready.push(u8::from(!full));
        ready.extend_from_slice(&snapshots.sequence.to_le_bytes());
        ready.extend_from_slice(&self.decay.half_life().to_le_bytes());
        let mut slots = Vec::new();
        let mut count = 0;
        for (slot, users) in self.store.slots().filter(|(_, users)| users.is_in_use()) {
            count += 1;
            varint(slot.into(), &mut slots);
            varint(users.hand.into(), &mut slots);
            slots.push(users.cut.into());
        }
        ready.push(SLOTS);
        varint(count, &mut ready);
        ready.append(&mut slots);
        let mut removals = 0;
        for removed in removed.iter().filter(|_| !full) {
            ready.push(REMOVED);
            varint(removed.slot.into(), &mut ready);
            ready.extend_from_slice(&removed.key.to_le_bytes());
            removals += 1;
        }
        let (small_end, large_end) = self.store.extent();
        snapshots.running = Some(Running {
            kind,
            walked: small_end + large_end,
            small: 0,
            large: 0,
            small_end,
            ready,
            hash: Xxh3::new(),
            users: 0,
            removed: removals,
        });
        Ok(kind)
    }

    /// Goes on with the snapshot: writes up to about `budget_entries` users behind `out`. Answers
    /// true once the snapshot is complete, and at once when none was begun. Call between batches.
    pub fn snapshot_step(&mut self, budget_entries: usize, out: &mut Vec<u8>) -> bool {
        let (snapshots, store) = (&mut self.snapshots, &mut self.store);
        let epoch = snapshots.epoch;
        let Some(running) = &mut snapshots.running else { return true };
        let begin = out.len();
        out.append(&mut running.ready);
        let mut cost = (budget_entries.max(1) as u64) * u64::from(WALK);
        while cost > 0 && running.small + running.large < running.walked {
            let handle = if running.small < running.small_end {
                running.small += 1;
                running.small - 1
            } else {
                running.large += 1;
                (running.large - 1) | (1 << 31)
            };
            cost -= 1;
            let Some(profile) = store.profile(handle) else { continue };
            if running.wants(profile.head, epoch) {
                write_user(&profile, out);
                running.users += 1;
                cost = cost.saturating_sub(u64::from(WALK));
            }
        }
        let done = running.small + running.large >= running.walked;
        if done {
            out.push(END);
            varint(running.users, out);
            varint(running.removed, out);
        }
        running.hash.update(out.get(begin..).unwrap_or(&[]));
        if done {
            out.extend_from_slice(&running.hash.digest().to_le_bytes());
            snapshots.running = None;
        }
        done
    }

    /// Gives the running snapshot up (its bytes could not be kept). The next one will be full.
    pub fn abort_snapshot(&mut self) {
        self.snapshots.running = None;
        self.snapshots.needs_full = true;
    }

    /// Makes the next snapshot full: to be called when an earlier one of the chain was not kept.
    pub fn require_full_snapshot(&mut self) {
        self.snapshots.needs_full = true;
    }

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
        let small = super::profile::fits_small(&record.head);
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

/// Writes one user: tag, slot `v`, position `v`, key u64, latest `z`, flags u8 (1 = cut), chances u8,
/// recent u16, recent_len u8, era `v`, events, outcomes, failures `v`; three dimensions (address,
/// location, type) of five `v` each with their list (length u8, then per value hash u32, packed `v`,
/// weight `v`, and for addresses the place u32); location_seconds, moved, moved_far, moved_quickly,
/// outcome_weight, four failing, hour_index `v`, hour_surprise f32 bits, hours_new `v`, 24 hour
/// weights `v`, 24 hour counts `v`, odd u16, three streaks `v`, scored `v`, nine surprises `v`.
fn write_user(profile: &Profile<'_>, out: &mut Vec<u8>) {
    let head = &*profile.head;
    out.push(USER);
    varint(head.slot.into(), out);
    varint(head.position.into(), out);
    out.extend_from_slice(&head.key.to_le_bytes());
    varint(zigzag(head.latest), out);
    out.push(head.cut.into());
    out.push(head.chances);
    out.extend_from_slice(&head.recent.to_le_bytes());
    out.push(head.recent_len);
    for number in [head.era, head.events, head.outcomes, head.failures] {
        varint(number.into(), out);
    }
    let list = |dimension: &Dimension, values: &[Value], places: &[u32], out: &mut Vec<u8>| {
        let Dimension { count, weight, stay, lost, last } = *dimension;
        for number in [count, weight, stay, lost] {
            varint(number.into(), out);
        }
        out.extend_from_slice(&last.to_le_bytes());
        out.push(values.len() as u8);
        for (at, value) in values.iter().enumerate() {
            out.extend_from_slice(&value.hash.to_le_bytes());
            varint(value.packed().into(), out);
            varint(value.weight.into(), out);
            if let Some(place) = places.get(at) {
                out.extend_from_slice(&place.to_le_bytes());
            }
        }
    };
    list(&head.address, profile.address_list(), profile.places, out);
    list(&head.location, profile.location_list(), &[], out);
    list(&head.event_type, profile.type_list(), &[], out);
    for number in
        [head.location_seconds, head.moved, head.moved_far, head.moved_quickly, head.outcome_weight]
    {
        varint(number.into(), out);
    }
    head.failing.iter().for_each(|number| varint(u64::from(*number), out));
    varint(head.hour_index.into(), out);
    out.extend_from_slice(&head.hour_surprise.to_bits().to_le_bytes());
    varint(head.hours_new.into(), out);
    head.hour_weights.iter().for_each(|number| varint(u64::from(*number), out));
    head.hour_counts.iter().for_each(|number| varint(u64::from(*number), out));
    out.extend_from_slice(&head.odd.to_le_bytes());
    head.streaks.iter().for_each(|number| varint(u64::from(*number), out));
    varint(head.scored.into(), out);
    head.surprises.iter().for_each(|number| varint(u64::from(*number), out));
}

fn read_user(input: &mut Input<'_>, profile: &mut Profile<'_>) -> Result<(), BaselineError> {
    let head = &mut *profile.head;
    (head.slot, head.position) = (input.small()?, input.small()?);
    head.key = u64::from_le_bytes(input.bytes()?);
    head.latest = unzigzag(input.varint()?);
    head.cut = input.byte()? != 0;
    head.chances = input.byte()?;
    head.recent = u16::from_le_bytes(input.bytes()?);
    head.recent_len = input.byte()?;
    for number in [&mut head.era, &mut head.events, &mut head.outcomes, &mut head.failures] {
        *number = input.number()?;
    }
    let lists = [
        (&mut head.address, &mut *profile.addresses, &mut head.address_len, &mut *profile.places),
        (&mut head.location, &mut *profile.locations, &mut head.location_len, &mut []),
        (&mut head.event_type, &mut *profile.types, &mut head.type_len, &mut []),
    ];
    for (dimension, values, len, places) in lists {
        let Dimension { count, weight, stay, lost, last } = dimension;
        for number in [count, weight, stay, lost] {
            *number = input.number()?;
        }
        *last = u32::from_le_bytes(input.bytes()?);
        *len = input.byte()?;
        if usize::from(*len) > values.len() {
            return Err(BaselineError::Damaged("a list is too long"));
        }
        for (at, value) in values.iter_mut().take(usize::from(*len)).enumerate() {
            let hash = u32::from_le_bytes(input.bytes()?);
            *value = Value::from_parts(hash, input.number()?, input.number()?);
            if let Some(place) = places.get_mut(at) {
                *place = u32::from_le_bytes(input.bytes()?);
            }
        }
    }
    for number in [
        &mut head.location_seconds,
        &mut head.moved,
        &mut head.moved_far,
        &mut head.moved_quickly,
        &mut head.outcome_weight,
    ] {
        *number = input.number()?;
    }
    for number in &mut head.failing {
        *number = input.number()?;
    }
    head.hour_index = input.number()?;
    head.hour_surprise = f32::from_bits(u32::from_le_bytes(input.bytes()?));
    head.hours_new = input.small()?;
    for number in &mut head.hour_weights {
        *number = input.small()?;
    }
    for number in &mut head.hour_counts {
        *number = input.number()?;
    }
    head.odd = u16::from_le_bytes(input.bytes()?);
    for number in &mut head.streaks {
        *number = input.number()?;
    }
    head.scored = input.number()?;
    for number in &mut head.surprises {
        *number = input.number()?;
    }
    if head.key == 0 {
        return Err(BaselineError::Damaged("a user has no key"));
    }
    Ok(())
}

fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

/// What is left to read.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], BaselineError> {
        let (bytes, rest) =
            self.0.split_first_chunk().ok_or(BaselineError::Damaged("it ends too early"))?;
        self.0 = rest;
        Ok(*bytes)
    }

    fn byte(&mut self) -> Result<u8, BaselineError> {
        self.bytes::<1>().map(|[byte]| byte)
    }

    fn varint(&mut self) -> Result<u64, BaselineError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(BaselineError::Damaged("a number is too long"))
    }

    fn number(&mut self) -> Result<u32, BaselineError> {
        u32::try_from(self.varint()?).map_err(|_| BaselineError::Damaged("a number is too great"))
    }

    fn small(&mut self) -> Result<u16, BaselineError> {
        u16::try_from(self.varint()?).map_err(|_| BaselineError::Damaged("a number is too great"))
    }
}
