//! Loading snapshots: a full one and the incremental ones after it.

use super::super::evaluate::Evaluation;
use super::super::hits::Hits;
use super::super::time::{Domain, NEVER};
use super::super::{Live, store};
use super::format::{Input, Name};
use super::{END, GROUP, MAGIC, NAMES, REMOVED, SLOTS, SnapshotError, TIME, VERSION};
use crate::correlation::hit::{Origin, Position};
use palisade_event::Slot;
use palisade_event::slot::SLOTS as ALL_SLOTS;
use std::sync::Arc;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// What the places in a snapshot mean here.
#[derive(Default)]
struct Places {
    rules: Vec<Option<u32>>,
    tenants: Vec<u32>,
    domains: Vec<Option<u16>>,
}

impl Places {
    fn rule(&self, place: u32) -> Result<u32, SnapshotError> {
        let rule =
            self.rules.get(place as usize).ok_or(SnapshotError::Damaged("a rule has no name"))?;
        rule.ok_or(SnapshotError::UnknownCorrelation)
    }
}

impl Live {
    /// Loads the wanted slots of one chain of snapshots (of one former worker), which this evaluator must not hold yet. The
    /// next snapshot taken will be full.
    ///
    /// # Errors
    /// [`SnapshotError`]; the evaluator is then of no use.
    pub fn load<'b>(
        &mut self,
        chain: impl IntoIterator<Item = &'b [u8]>,
        wanted: impl Fn(Slot) -> bool,
    ) -> Result<(), SnapshotError> {
        let mut expected = None;
        for bytes in chain {
            expected = Some(self.load_one(bytes, expected, &wanted)? + 1);
        }
        for slot in 0..ALL_SLOTS {
            let groups = self.store.slots.get(usize::from(slot)).map(|slot| slot.groups.clone());
            for handle in groups.unwrap_or_default() {
                self.load_finish(handle)?;
            }
        }
        self.snapshots.needs_full = true;
        Ok(())
    }

    /// Windows, timers and the list of what is dirty are made anew.
    fn load_finish(&mut self, handle: u32) -> Result<(), SnapshotError> {
        let Some(group) = self.store.get_mut(handle) else { return Ok(()) };
        let Some(rule) = self.rules.get(group.rule as usize) else { return Ok(()) };
        if Evaluation::keeps(&rule.correlation, group.hits.len()) {
            let busy = group.busy.get_or_insert_default();
            if busy.window.is_none() {
                busy.window = Some(Evaluation::keep(&rule.correlation, &group.hits));
            }
        }
        if group.busy.as_ref().is_some_and(|busy| busy.is_dirty) {
            self.dirty.push(handle);
        }
        if let Some(busy) = self.store.get_mut(handle).and_then(|group| group.busy.as_mut()) {
            busy.timer = None;
        }
        let mut out = Vec::new();
        self.schedule(handle, &mut out);
        if out.is_empty() { Ok(()) } else { Err(SnapshotError::Damaged("an alert is overdue")) }
    }

    fn load_one(
        &mut self,
        bytes: &[u8],
        expected: Option<u64>,
        wanted: &impl Fn(Slot) -> bool,
    ) -> Result<u64, SnapshotError> {
        let (body, hash) =
            bytes.split_last_chunk::<8>().ok_or(SnapshotError::Damaged("it is too short"))?;
        let mut input = Input(body);
        if input.bytes::<8>()? != *MAGIC {
            return Err(SnapshotError::Damaged("it does not begin as one"));
        }
        let version = u16::from_le_bytes(input.bytes()?);
        if version != VERSION {
            return Err(SnapshotError::Version(version));
        }
        let mut check = Xxh3::new();
        check.update(body);
        if check.digest() != u64::from_le_bytes(*hash) {
            return Err(SnapshotError::Damaged("its checksum is wrong"));
        }
        let full = !input.flag()?;
        let sequence = u64::from_le_bytes(input.bytes()?);
        match expected {
            None if !full => return Err(SnapshotError::Sequence { expected: 1, found: sequence }),
            Some(expected) if full || sequence != expected => {
                return Err(SnapshotError::Sequence { expected, found: sequence });
            }
            _ => {}
        }
        let mut places = Places::default();
        let (mut groups, mut removed) = (0_u64, 0_u64);
        loop {
            match input.byte()? {
                NAMES => self.load_names(&mut input, &mut places)?,
                TIME => self.load_time(&mut input, &mut places)?,
                SLOTS => {
                    for _ in 0..input.count(2)? {
                        let slot: u16 = input.number()?;
                        let until = input.signed()?;
                        if let Some(state) =
                            self.store.slot_mut(slot).filter(|_| wanted(Slot(slot)))
                        {
                            state.cut_until = state.cut_until.max(until);
                        }
                    }
                }
                REMOVED => {
                    let name = input.name()?;
                    if wanted(Slot(name.slot)) && places.rule(name.rule).is_ok() {
                        self.load_removed(&name, &places)?;
                    }
                    removed += 1;
                }
                GROUP => {
                    self.load_group(&mut input, &places, wanted)?;
                    groups += 1;
                }
                END => break,
                _ => return Err(SnapshotError::Damaged("it has an unknown part")),
            }
        }
        if input.varint()? != groups || input.varint()? != removed || !input.0.is_empty() {
            return Err(SnapshotError::Damaged("its parts do not add up"));
        }
        Ok(sequence)
    }

    fn load_names(
        &mut self,
        input: &mut Input<'_>,
        places: &mut Places,
    ) -> Result<(), SnapshotError> {
        for _ in 0..input.count(32)? {
            let version = input.bytes::<32>()?;
            let rule = self
                .rules
                .iter()
                .position(|rule| rule.place.is_some() && rule.correlation.version.0 == version);
            places.rules.push(rule.map(|rule| rule as u32));
        }
        for _ in 0..input.count(1)? {
            let name = std::str::from_utf8(input.text()?)
                .map_err(|_| SnapshotError::Damaged("a tenant is no text"))?;
            places.tenants.push(self.tenant(name));
        }
        Ok(())
    }

    fn load_time(
        &mut self,
        input: &mut Input<'_>,
        places: &mut Places,
    ) -> Result<(), SnapshotError> {
        self.ticks = self.ticks.max(input.varint()?);
        for _ in 0..input.count(5)? {
            let origin = Origin { stage: input.byte()?, partition: input.number()? };
            let position = Position {
                offset: input.varint()?,
                row: input.number()?,
                ordinal: input.number()?,
            };
            let known = self.positions.entry(origin).or_insert(position);
            *known = position.max(*known);
        }
        for _ in 0..input.count(3)? {
            let name = std::str::from_utf8(input.text()?)
                .map_err(|_| SnapshotError::Damaged("a domain is no text"))?;
            // One that is forgotten has no name, and nothing is in it.
            let mut forgotten = Domain::new("");
            let number = (!name.is_empty()).then(|| self.domain(name));
            places.domains.push(number);
            let known = number.and_then(|number| self.domains.get_mut(usize::from(number)));
            let domain = known.unwrap_or(&mut forgotten);
            for _ in 0..input.count(5)? {
                let origin = Origin { stage: input.byte()?, partition: input.number()? };
                let progress = domain.progress.entry(origin).or_default();
                progress.clock = progress.clock.max(input.optional()?);
                progress.frontier = progress.frontier.max(input.optional()?);
                for _ in 0..input.count(2)? {
                    let rule: u32 = input.number()?;
                    let frontier = input.signed()?;
                    if let Ok(rule) = places.rule(rule) {
                        let known = progress.outputs.entry(rule).or_insert(frontier);
                        *known = frontier.max(*known);
                    }
                }
            }
            for rule in 0..input.count(1)? {
                let until = input.signed()?;
                if let Ok(rule) = places.rule(rule as u32)
                    && until != NEVER
                {
                    domain.settle(rule, until);
                }
            }
            domain.lanes.clear();
        }
        Ok(())
    }

    fn load_removed(&mut self, name: &Name, places: &Places) -> Result<(), SnapshotError> {
        let here = self.here(name, places)?;
        let name = self.name_of(&here);
        if let Some(handle) = self.store.find(&name) {
            let hash = name.hash;
            self.store.remove(handle, hash);
            if let Some(domain) = self.domains.get_mut(usize::from(here.domain)) {
                domain.groups -= 1;
            }
            if let Some(slot) = self.store.slot_mut(here.slot) {
                slot.groups.retain(|listed| *listed != handle);
            }
        }
        Ok(())
    }

    fn load_group(
        &mut self,
        input: &mut Input<'_>,
        places: &Places,
        wanted: &impl Fn(Slot) -> bool,
    ) -> Result<(), SnapshotError> {
        let name = input.name()?;
        let words = input.words()?;
        let busy = if input.flag()? { Some(Box::new(input.busy()?)) } else { None };
        if !wanted(Slot(name.slot)) {
            return Ok(());
        }
        if name.slot >= ALL_SLOTS {
            return Err(SnapshotError::Damaged("a slot does not exist"));
        }
        self.load_removed(&name, places)?;
        let here = self.here(&name, places)?;
        let rule = self.rules.get(here.rule as usize).ok_or(SnapshotError::UnknownCorrelation)?;
        let has_value = rule.correlation.measure.has_value();
        let hits = Hits::restore(words, has_value)
            .ok_or(SnapshotError::Damaged("the hits of a group are not in order"))?;
        let epoch = self.snapshots.epoch;
        let name = self.name_of(&here);
        let handle = self.store.create(&name, has_value, epoch);
        if let Some(slot) = self.store.slot_mut(here.slot) {
            slot.hits += hits.len();
        }
        if let Some(domain) = self.domains.get_mut(usize::from(here.domain)) {
            domain.groups += 1;
        }
        if let Some(group) = self.store.get_mut(handle) {
            group.hits = hits;
            group.busy = busy;
        }
        Ok(())
    }

    /// A name with the places that things have here.
    fn here(&self, name: &Name, places: &Places) -> Result<Name, SnapshotError> {
        let damaged = SnapshotError::Damaged("a group has no name");
        Ok(Name {
            rule: places.rule(name.rule)?,
            tenant: *places.tenants.get(name.tenant as usize).ok_or(damaged)?,
            domain: places
                .domains
                .get(usize::from(name.domain))
                .copied()
                .flatten()
                .ok_or(damaged)?,
            slot: name.slot,
            key: name.key.clone(),
        })
    }

    fn name_of<'n>(&self, name: &'n Name) -> store::Name<'n> {
        let seed = self.rules.get(name.rule as usize).map_or(0, |rule| rule.seed);
        let tenant = self.tenants.get(name.tenant as usize).map_or(0, |(_, hash)| *hash);
        let domain = self.domains.get(usize::from(name.domain));
        let domain = domain.map_or(0, |domain| xxh3_64(Arc::as_ref(&domain.name).as_bytes()));
        store::Name {
            rule: name.rule,
            tenant: name.tenant,
            domain: name.domain,
            slot: name.slot,
            key: &name.key,
            hash: super::super::name_hash(seed, tenant, domain, &name.key),
        }
    }
}
