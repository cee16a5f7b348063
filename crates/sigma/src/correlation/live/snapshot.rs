//! Snapshots of the state: incremental, copy-on-write, taken in small steps between hits (M2).
//!
//! A snapshot holds the state as it was when it began, though hits go on: a group that is about to change before the
//! snapshot reached it is written first. A **full** snapshot holds every group; an **incremental** one those changed
//! since the snapshot before began, and the names of those let go since. State is restored from a full snapshot and the
//! incremental ones after it, in order; the chains of several former workers can be loaded one after the other, keeping
//! only the slots that are wanted, so another number of workers works too.
//!
//! # Format, version 1
//!
//! Integers are little-endian or LEB128 varints (`v`); signed ones are zigzag varints (`z`); texts are preceded by their
//! length (`v`); `?` is a byte 0 or 1 and, after 1, the value.
//!
//! | part | bytes |
//! |---|---|
//! | header | `PCORRELA`, version u16, kind u8 (0 full, 1 incremental), sequence u64 |
//! | names | tag 1; rules: n `v`, version 32 bytes each; tenants: n `v`, text each; groups name them by place |
//! | time | tag 2; ticks `v`; positions: n `v`, then stage u8, partition `v`, offset `v`, row `v`, ordinal `v`; domains: n `v`, then name, origins n `v` (stage u8, partition `v`, clock `?z`, frontier `?z`, outputs n `v` of rule `v` and `z`), settled n `v`, `z` each |
//! | slots | tag 3, n `v`, slot `v` and the time of the last hit given up `z` |
//! | removed | tag 4, name |
//! | group | tag 5, name, words n `v`, u64 each, busy `?`: see [`format::write_busy`] |
//! | end | tag 0, number of groups `v`, number of removed `v`, XXH3-64 of all bytes before this hash, u64 |
//!
//! A name is rule `v`, tenant `v`, domain `v`, slot `v`, key as text. `removed` come before the groups.

mod format;
mod restore;

use super::Live;
use super::store::Group;
use super::time::NEVER;
use format::{Name, optional, text, varint, write_group, write_name, zigzag};
use palisade_event::ErrorClass;
use xxhash_rust::xxh3::Xxh3;

const MAGIC: &[u8; 8] = b"PCORRELA";
const VERSION: u16 = 1;
const END: u8 = 0;
const NAMES: u8 = 1;
const TIME: u8 = 2;
const SLOTS: u8 = 3;
const REMOVED: u8 = 4;
const GROUP: u8 = 5;
/// More removals than this between two snapshots make the next one full.
const MAX_REMOVED: usize = 200_000;
/// A group walked over without being written costs this fraction of one that is written.
const WALK: u64 = 16;
/// So many hits of a group cost as much as another group.
const HITS: usize = 64;

/// What a snapshot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotKind {
    /// Every group.
    Full,
    /// What changed since the snapshot before.
    Incremental,
}

/// Whether bytes begin as a full snapshot does; whether they are whole is told when they are loaded.
#[must_use]
pub fn is_full_snapshot(bytes: &[u8]) -> bool {
    bytes.get(MAGIC.len() + size_of::<u16>()) == Some(&0)
}

/// Why a snapshot could not be taken or loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// A snapshot is being taken already.
    #[error("a snapshot of the correlations is being taken already: finish or abort it first")]
    InProgress,
    /// The bytes are not what was written.
    #[error("the snapshot of the correlations is damaged ({0}): restore an older checkpoint")]
    Damaged(&'static str),
    /// Another release wrote it.
    #[error(
        "the snapshot of the correlations has format {0}, this release reads 1: start the release that wrote it"
    )]
    Version(u16),
    /// It does not continue the one loaded before it.
    #[error(
        "the snapshot of the correlations has sequence {found}, {expected} was expected: load a full one and those after it, in order"
    )]
    Sequence {
        /// What follows the last one loaded.
        expected: u64,
        /// What was found.
        found: u64,
    },
    /// It has groups of a correlation that is not in force.
    #[error(
        "the snapshot of the correlations has groups of one that is not in force: restore with what was in force there"
    )]
    UnknownCorrelation,
}

impl SnapshotError {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::InProgress => ErrorClass::Transient,
            _ => ErrorClass::Critical,
        }
    }
}

struct Running {
    kind: SnapshotKind,
    /// How far the walk over the handles is, and where it ends.
    next: u32,
    end: u32,
    /// Bytes that are to be handed out with the next step.
    ready: Vec<u8>,
    hash: Xxh3,
    groups: u64,
    removed: u64,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("kind", &self.kind).field("groups", &self.groups).finish()
    }
}

impl Running {
    /// Whether a group that last changed so belongs into it.
    fn wants(&self, changed: u32, epoch: u32) -> bool {
        changed != epoch && (self.kind == SnapshotKind::Full || changed + 1 == epoch)
    }
}

/// The state of taking snapshots.
#[derive(Debug)]
pub(super) struct Snapshots {
    /// How many snapshots were begun, and one; groups carry the epoch of their last change.
    epoch: u32,
    sequence: u64,
    needs_full: bool,
    removed: Vec<Name>,
    running: Option<Running>,
}

impl Snapshots {
    pub(super) fn new() -> Self {
        Self { epoch: 1, sequence: 0, needs_full: true, removed: Vec::new(), running: None }
    }

    /// Names that were noted do not mean what they did: the next snapshot is full.
    pub(super) fn require_full(&mut self) {
        self.needs_full = true;
    }

    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// A group is let go.
    pub(super) fn removed(&mut self, group: &Group) {
        if self.removed.len() < MAX_REMOVED {
            self.removed.push(Name::of(group));
        } else {
            self.needs_full = true;
        }
    }
}

impl Live {
    /// To be called before a group changes: saves it if the running snapshot still needs it.
    pub(super) fn touch(&mut self, handle: u32) {
        let Self { store, snapshots, .. } = self;
        let epoch = snapshots.epoch;
        let Some(group) = store.get_mut(handle) else { return };
        if group.changed == epoch {
            return;
        }
        if let Some(running) = &mut snapshots.running
            && handle >= running.next
            && running.wants(group.changed, epoch)
        {
            write_group(group, &mut running.ready);
            running.groups += 1;
        }
        group.changed = epoch;
    }

    /// Makes the next snapshot full: the first of a chain, or one after a snapshot that was not kept.
    pub fn require_full_snapshot(&mut self) {
        self.snapshots.needs_full = true;
    }

    /// Begins a snapshot of the state as it is now. Costs a walk over the slots, not over the groups.
    ///
    /// # Errors
    /// [`SnapshotError::InProgress`].
    pub fn begin_snapshot(&mut self) -> Result<SnapshotKind, SnapshotError> {
        if self.snapshots.running.is_some() {
            return Err(SnapshotError::InProgress);
        }
        let full = std::mem::take(&mut self.snapshots.needs_full);
        let kind = if full { SnapshotKind::Full } else { SnapshotKind::Incremental };
        self.snapshots.sequence += 1;
        self.snapshots.epoch += 1;
        let removed = std::mem::take(&mut self.snapshots.removed);
        let mut ready = Vec::new();
        ready.extend_from_slice(MAGIC);
        ready.extend_from_slice(&VERSION.to_le_bytes());
        ready.push(u8::from(!full));
        ready.extend_from_slice(&self.snapshots.sequence.to_le_bytes());
        self.write_names(&mut ready);
        self.write_time(&mut ready);
        self.write_slots(&mut ready);
        let mut removals = 0;
        for name in removed.iter().filter(|_| !full) {
            ready.push(REMOVED);
            write_name(name, &mut ready);
            removals += 1;
        }
        self.snapshots.running = Some(Running {
            kind,
            next: 0,
            end: self.store.extent(),
            ready,
            hash: Xxh3::new(),
            groups: 0,
            removed: removals,
        });
        Ok(kind)
    }

    /// Goes on with the snapshot: writes groups of about `budget` (a group with its first 64 hits costs 1) behind `out`.
    /// Answers true once the snapshot is complete, and at once when none was begun. Call between hits.
    pub fn snapshot_step(&mut self, budget: usize, out: &mut Vec<u8>) -> bool {
        let Self { snapshots, store, .. } = self;
        let epoch = snapshots.epoch;
        let Some(running) = &mut snapshots.running else { return true };
        let begin = out.len();
        out.append(&mut running.ready);
        let mut budget = (budget.max(1) as u64).saturating_mul(WALK);
        while budget > 0 && running.next < running.end {
            let group = store.get(running.next);
            running.next += 1;
            budget -= 1;
            if let Some(group) = group.filter(|group| running.wants(group.changed, epoch)) {
                write_group(group, out);
                running.groups += 1;
                let cost = 1 + group.hits.len() / HITS;
                budget = budget.saturating_sub(cost as u64 * WALK);
            }
        }
        let done = running.next >= running.end;
        if done {
            out.push(END);
            varint(running.groups, out);
            varint(running.removed, out);
        }
        running.hash.update(out.get(begin..).unwrap_or_default());
        if done {
            out.extend_from_slice(&running.hash.digest().to_le_bytes());
            snapshots.running = None;
        }
        done
    }

    /// Gives the running snapshot up. The next one will be full.
    pub fn abort_snapshot(&mut self) {
        self.snapshots.running = None;
        self.snapshots.needs_full = true;
    }

    fn write_names(&self, out: &mut Vec<u8>) {
        out.push(NAMES);
        varint(self.rules.len() as u64, out);
        for rule in &self.rules {
            out.extend_from_slice(&rule.correlation.version.0);
        }
        varint(self.tenants.len() as u64, out);
        for (tenant, _) in &self.tenants {
            text(tenant.as_bytes(), out);
        }
    }

    fn write_time(&self, out: &mut Vec<u8>) {
        out.push(TIME);
        varint(self.ticks, out);
        varint(self.positions.len() as u64, out);
        for (origin, position) in &self.positions {
            out.push(origin.stage);
            varint(origin.partition.into(), out);
            varint(position.offset, out);
            varint(position.row.into(), out);
            varint(position.ordinal.into(), out);
        }
        varint(self.domains.len() as u64, out);
        for domain in &self.domains {
            text(domain.name.as_bytes(), out);
            varint(domain.progress.len() as u64, out);
            for (origin, progress) in &domain.progress {
                out.push(origin.stage);
                varint(origin.partition.into(), out);
                optional(progress.clock, out);
                optional(progress.frontier, out);
                varint(progress.outputs.len() as u64, out);
                for (rule, frontier) in &progress.outputs {
                    varint((*rule).into(), out);
                    varint(zigzag(*frontier), out);
                }
            }
            varint(domain.settled.len() as u64, out);
            domain.settled.iter().for_each(|until| varint(zigzag(*until), out));
        }
    }

    fn write_slots(&self, out: &mut Vec<u8>) {
        let cut =
            || self.store.slots.iter().zip(0_u64..).filter(|(slot, _)| slot.cut_until != NEVER);
        out.push(SLOTS);
        varint(cut().count() as u64, out);
        for (slot, number) in cut() {
            varint(number, out);
            varint(zigzag(slot.cut_until), out);
        }
    }
}
