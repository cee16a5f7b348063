//! The incremental evaluator: hits in any order that the frontiers allow, one at a time, and revisions of alerts out.
//!
//! Once everything is final, what stands equals the [`reference`](super::reference), id by id and with all evidence (K4).
//! A group keeps its hits sorted, with a flag on each whose window fulfils; episodes and alerts follow from the flags.
//!
//! - **When** (K3). An alert is given out by the hit or the progress with which the least clock of the origins that its
//!   correlation reads reaches its opening, and `patience` more where hits can falsify it; for what reads records
//!   only, never later than it is final. Revisions and retractions are given out at ticks ([`Live::tick`]), so that an
//!   alert that grows with every hit is not written with every hit. Nothing depends on where batches end (I3).
//! - **Final** (T5). [`Live::settled`] is the frontier of a correlation's output: everything that decides before it is
//!   final and was given out. Hits more than a timespan older than it leave, slot by slot, with the ticks.
//! - **Bounds** (P2). Groups and hits are bounded per slot. Beyond a bound the groups whose last hit is oldest go, and
//!   of a slot's only group the oldest hits; alerts of that slot that may have needed them say `cut`.

mod aggregate;
mod episode;
mod evaluate;
mod give;
mod hits;
mod snapshot;
mod store;
mod sweep;
mod time;

use super::alert::Revision;
use super::definition::{Correlation, Version};
use super::hit::{BACKFILL, Hit, HitKind, Origin, Position};
use super::resolve::Correlations;
use aggregate::Window;
use evaluate::{Evaluation, Flips, SMALL};
use hits::Key;
use palisade_event::slot::SLOTS;
pub use snapshot::{SnapshotError, SnapshotKind, is_full_snapshot};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use store::{Group, Name, Store};
use time::{BACKFILL_BIT, Domain, NEVER};
use xxhash_rust::xxh3::xxh3_64;

/// Bounds of the state (P2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// The most groups of all correlations in a slot.
    pub groups_per_slot: usize,
    /// The most hits in a slot.
    pub hits_per_slot: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { groups_per_slot: 1_024, hits_per_slot: 32_768 }
    }
}

/// What happened, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Hits that were counted.
    pub hits: u64,
    /// Hits that came again (H2).
    pub repeats: u64,
    /// Hits that don't count: late, or without a value that can be measured.
    pub not_counted: u64,
    /// Hits behind the frontier of their origin: a defect of what sends them.
    pub behind: u64,
    /// Groups given up to stay within bounds.
    pub groups_cut: u64,
    /// Hits given up to stay within bounds.
    pub hits_cut: u64,
}

/// A correlation with what evaluation needs to know of it.
#[derive(Debug, Clone)]
struct Rule {
    correlation: Arc<Correlation>,
    /// Its place in the correlations in force; `None` once it is not among them.
    place: Option<usize>,
    /// What it reads: the stage and the rule of each correlation.
    upstream: Vec<(u8, u32)>,
    seed: u64,
    /// History is still being read for it (B1).
    backfills: bool,
}

impl Rule {
    /// The stages whose origins it waits for.
    fn stages(&self) -> u16 {
        self.correlation.stages | if self.backfills { BACKFILL_BIT } else { 0 }
    }
}

/// The correlations of the slots of one worker.
#[derive(Debug)]
pub struct Live {
    options: Options,
    rules: Vec<Rule>,
    /// The rule of each place.
    places: Vec<u32>,
    tenants: Vec<(Arc<str>, u64)>,
    tenant_of: BTreeMap<Arc<str>, u32>,
    domains: Vec<Domain>,
    origins: BTreeSet<Origin>,
    positions: BTreeMap<Origin, Position>,
    store: Store,
    scratch: Window,
    /// Groups with revisions that are due at the next tick.
    dirty: Vec<u32>,
    ticks: u64,
    snapshots: snapshot::Snapshots,
    counters: Counters,
}

impl Live {
    /// An evaluator without state, which reads from these origins.
    #[must_use]
    pub fn new(
        correlations: &Correlations,
        origins: impl IntoIterator<Item = Origin>,
        options: Options,
    ) -> Self {
        let mut live = Self {
            options,
            rules: Vec::new(),
            places: Vec::new(),
            tenants: Vec::new(),
            tenant_of: BTreeMap::new(),
            domains: Vec::new(),
            origins: origins.into_iter().collect(),
            positions: BTreeMap::new(),
            store: Store::new(),
            scratch: Window::default(),
            dirty: Vec::new(),
            ticks: 0,
            snapshots: snapshot::Snapshots::new(),
            counters: Counters::default(),
        };
        live.install(correlations);
        live
    }

    /// Puts other correlations in force. Those of the same version keep their state, whatever their place. Of those
    /// that are gone, alerts that hits could still have falsified are retracted, others are left as they are (C2).
    pub fn reload(&mut self, correlations: &Correlations, out: &mut Vec<Revision>) {
        let versions: BTreeSet<Version> =
            correlations.iter().map(|(_, correlation)| correlation.version).collect();
        let gone =
            |rule: &Rule| rule.place.is_some() && !versions.contains(&rule.correlation.version);
        if self.rules.iter().any(gone) {
            let gone: Vec<bool> = self.rules.iter().map(gone).collect();
            self.drop_rules(&gone, out);
        }
        self.install(correlations);
    }

    fn install(&mut self, correlations: &Correlations) {
        let versions: BTreeSet<Version> =
            correlations.iter().map(|(_, correlation)| correlation.version).collect();
        // The numbers of rules that are gone are given to new ones.
        let mut unused: Vec<usize> = (0..self.rules.len())
            .filter(|number| {
                let rule = self.rules.get(*number);
                rule.is_none_or(|rule| !versions.contains(&rule.correlation.version))
            })
            .collect();
        self.rules.iter_mut().for_each(|rule| rule.place = None);
        self.places.clear();
        for (place, correlation) in correlations.iter() {
            let upstream = correlation
                .reads()
                .filter_map(|read| {
                    let stage = correlations.get(read)?.depth + 1;
                    Some((stage, self.places.get(read).copied()?))
                })
                .collect();
            let [a, b, c, d, e, f, g, h, ..] = correlation.version.0;
            let rule = Rule {
                correlation: Arc::new(correlation.clone()),
                place: Some(place),
                upstream,
                seed: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
                backfills: false,
            };
            let known =
                self.rules.iter().position(|rule| rule.correlation.version == correlation.version);
            let unused = if known.is_none() { unused.pop() } else { None };
            if let Some(number) = unused {
                self.snapshots.require_full();
                self.domains.iter_mut().for_each(|domain| domain.forget_rule(number as u32));
            }
            let number = match known.or(unused) {
                Some(number) => {
                    if let Some(before) = self.rules.get_mut(number) {
                        let backfills = known.is_some() && before.backfills;
                        *before = Rule { backfills, ..rule };
                    }
                    number
                }
                None => {
                    self.rules.push(rule);
                    self.rules.len() - 1
                }
            };
            self.places.push(number as u32);
        }
    }

    /// An origin joins: nothing is given out until it has been heard of in the domain.
    pub fn join(&mut self, origin: Origin) {
        self.origins.insert(origin);
        for domain in &mut self.domains {
            for place in 0..domain.lanes.len() {
                let stages = domain.lanes.get(place).map_or(0, |lane| lane.stages);
                let least = domain.least_clock(stages, &self.origins);
                if let Some(lane) = domain.lanes.get_mut(place) {
                    lane.least = Some(least);
                }
            }
        }
    }

    /// An origin leaves: nobody waits for it any more.
    pub fn leave(&mut self, origin: Origin, out: &mut Vec<Revision>) {
        self.origins.remove(&origin);
        for domain in 0..self.domains.len() {
            self.fire(domain, None, out);
        }
    }

    /// History is read for the correlations in these places, which were put in force just now: until
    /// [`Live::end_backfill`] they wait for [`BACKFILL`] as for every origin that they read (B1).
    pub fn begin_backfill(&mut self, places: impl IntoIterator<Item = usize>) {
        for place in places {
            let number = self.places.get(place).copied().unwrap_or(u32::MAX);
            if let Some(rule) = self.rules.get_mut(number as usize) {
                rule.backfills = true;
            }
        }
        self.join(BACKFILL);
    }

    /// All of history was read: nobody waits for it any more.
    pub fn end_backfill(&mut self, out: &mut Vec<Revision>) {
        self.rules.iter_mut().for_each(|rule| rule.backfills = false);
        self.origins.remove(&BACKFILL);
        for number in 0..self.domains.len() {
            let Some(domain) = self.domains.get_mut(number) else { continue };
            domain.progress.remove(&BACKFILL);
            let (waited, others) = std::mem::take(&mut domain.lanes)
                .into_iter()
                .partition::<Vec<_>, _>(|lane| lane.stages & BACKFILL_BIT != 0);
            domain.lanes = others;
            for mut lane in waited {
                if let Some(to) = domain.lane(lane.stages & !BACKFILL_BIT, &self.origins) {
                    to.timers.append(&mut lane.timers);
                }
            }
            self.fire(number, None, out);
        }
    }

    /// Whether history is being read for the correlation in a place.
    #[must_use]
    pub fn is_backfilling(&self, place: usize) -> bool {
        let number = self.places.get(place).copied().unwrap_or(u32::MAX);
        self.rules.get(number as usize).is_some_and(|rule| rule.backfills)
    }

    /// Takes in a hit, which stands at a position of an origin. One that came before, or that does not count, is ignored.
    pub fn hit(
        &mut self,
        (origin, position): (Origin, Position),
        hit: &Hit<'_>,
        out: &mut Vec<Revision>,
    ) {
        match self.positions.get_mut(&origin) {
            Some(highest) if *highest >= position => {
                self.counters.repeats += 1;
                return;
            }
            Some(highest) => *highest = position,
            None => drop(self.positions.insert(origin, position)),
        }
        let Some(&number) = self.places.get(hit.correlation) else { return };
        let Some(rule) = self.rules.get(number as usize) else { return };
        let correlation = Arc::clone(&rule.correlation);
        let Some(value) = correlation.admits(hit).filter(|_| hit.slot.0 < SLOTS) else {
            self.counters.not_counted += 1;
            return;
        };
        let seed = rule.seed;
        let (tenant, domain) = (self.tenant(hit.tenant), self.domain(hit.domain));
        let settled = self.domains.get(usize::from(domain)).map_or(NEVER, |d| d.settled(number));
        if hit.time < settled {
            self.counters.behind += 1;
            return;
        }
        let of_tenant = self.tenants.get(tenant as usize).map_or(0, |(_, hash)| *hash);
        let of_domain = xxh3_64(hit.domain.as_bytes());
        let name = Name {
            rule: number,
            tenant,
            domain,
            slot: hit.slot.0,
            key: hit.group,
            hash: name_hash(seed, of_tenant, of_domain, hit.group),
        };
        let key = Key { time: hit.time, id: u128::from_be_bytes(hit.record.0), input: hit.input };
        let handle = match self.store.find(&name) {
            Some(handle) => handle,
            None if hit.kind == HitKind::Retraction => return,
            None => {
                let epoch = self.snapshots.epoch();
                if let Some(domain) = self.domains.get_mut(usize::from(domain)) {
                    domain.groups += 1;
                }
                self.store.create(&name, correlation.measure.has_value(), epoch)
            }
        };
        self.touch(handle);
        let Self { store, scratch, .. } = self;
        let Some(group) = store.get_mut(handle) else { return };
        let before = group.hits.len();
        let came = match hit.kind {
            HitKind::Retraction => remove(group, &correlation, scratch, key),
            _ => insert(group, &correlation, scratch, key, value),
        };
        let Some((flips, at)) = came else {
            self.counters.repeats += 1;
            return;
        };
        let after = group.hits.len();
        let is_dirty = update(group, &correlation, (key, at), flips);
        if is_dirty {
            self.dirty.push(handle);
        }
        self.counters.hits += 1;
        let over = match self.store.slot_mut(hit.slot.0) {
            Some(slot) => {
                slot.hits = (slot.hits + after).saturating_sub(before);
                slot.hits > self.options.hits_per_slot
                    || slot.groups.len() > self.options.groups_per_slot
            }
            None => false,
        };
        self.schedule(handle, out);
        if over {
            self.cut_slot(hit.slot.0, out);
        }
    }

    /// An origin's clock, and for origins of records its frontier where that is not clock − lateness (domains other
    /// than the live one; at a domain's end both are `i64::MAX`). What an earlier call said never goes back.
    pub fn progress(
        &mut self,
        origin: Origin,
        domain: &str,
        clock: i64,
        frontier: Option<i64>,
        out: &mut Vec<Revision>,
    ) {
        if domain.is_empty() {
            return;
        }
        let number = usize::from(self.domain(domain));
        let Some(domain) = self.domains.get_mut(number) else { return };
        let progress = domain.progress.entry(origin).or_default();
        progress.clock = progress.clock.max(Some(clock));
        progress.frontier = progress.frontier.max(frontier);
        self.fire(number, Some(origin), out);
    }

    /// The frontier of a correlation's output at an origin of alerts, as [`Live::settled`] told it there.
    pub fn progress_output(
        &mut self,
        origin: Origin,
        domain: &str,
        correlation: usize,
        frontier: i64,
    ) {
        let Some(&rule) = self.places.get(correlation).filter(|_| !domain.is_empty()) else {
            return;
        };
        let number = usize::from(self.domain(domain));
        if let Some(domain) = self.domains.get_mut(number) {
            let known = domain.progress.entry(origin).or_default().outputs.entry(rule);
            let known = known.or_insert(frontier);
            *known = frontier.max(*known);
        }
    }

    /// A tick of the log: gives out what changed since the last, then lets go what is final.
    pub fn tick(&mut self, out: &mut Vec<Revision>) {
        self.ticks += 1;
        self.forget_domains();
        self.flush(out);
        self.settle();
        self.sweep();
    }

    /// The frontier of a correlation's output in a domain, as of the last tick.
    #[must_use]
    pub fn settled(&self, correlation: usize, domain: &str) -> i64 {
        let Some(&rule) = self.places.get(correlation) else { return NEVER };
        let domain = self.domains.iter().find(|known| &*known.name == domain);
        domain.map_or(NEVER, |domain| domain.settled(rule))
    }

    /// The clock of this evaluator's output of a stage in a domain: the least clock of the origins of the stages below.
    #[must_use]
    pub fn clock(&self, stage: u8, domain: &str) -> i64 {
        let below = 1_u16.checked_shl(u32::from(stage)).map_or(u16::MAX, |bit| bit - 1);
        let domain = self.domains.iter().find(|known| &*known.name == domain);
        domain.map_or(NEVER, |domain| domain.least_clock(below, &self.origins))
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The highest offset of the alerts that correlations over correlations have read here.
    pub(super) fn highest_of_alerts(&self) -> u64 {
        let alerts = self.positions.iter().filter(|(origin, _)| origin.stage > 0);
        alerts.map(|(_, position)| position.offset).max().unwrap_or(0)
    }

    /// How many groups there are.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.store.groups()
    }

    /// Bytes of all groups and their hits, capacity that is not yet used included. Walks over all groups.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.store.bytes()
    }

    fn tenant(&mut self, name: &str) -> u32 {
        if let Some((last, _)) = self.tenants.first()
            && &**last == name
        {
            return 0;
        }
        if let Some(tenant) = self.tenant_of.get(name) {
            return *tenant;
        }
        let name: Arc<str> = Arc::from(name);
        let tenant = self.tenants.len() as u32;
        self.tenants.push((Arc::clone(&name), xxh3_64(name.as_bytes())));
        self.tenant_of.insert(name, tenant);
        tenant
    }

    fn domain(&mut self, name: &str) -> u16 {
        let known = self.domains.iter().position(|domain| &*domain.name == name);
        if let Some(known) = known {
            return known as u16;
        }
        let domain = Domain::new(name);
        // The place of one that is forgotten has no name.
        if let Some(place) = self.domains.iter().position(|domain| domain.name.is_empty()) {
            if let Some(forgotten) = self.domains.get_mut(place) {
                *forgotten = domain;
            }
            return place as u16;
        }
        self.domains.push(domain);
        (self.domains.len() - 1) as u16
    }

    /// The hash of a group's name.
    fn hash_of(&self, group: &Group) -> u64 {
        let seed = self.rules.get(group.rule as usize).map_or(0, |rule| rule.seed);
        let tenant = self.tenants.get(group.tenant as usize).map_or(0, |(_, hash)| *hash);
        let domain = self.domains.get(usize::from(group.domain));
        let domain = domain.map_or(0, |domain| xxh3_64(domain.name.as_bytes()));
        name_hash(seed, tenant, domain, &group.key)
    }
}

fn name_hash(seed: u64, tenant: u64, domain: u64, key: &[u8]) -> u64 {
    let mut hash = seed;
    for part in [tenant, domain, xxh3_64(key)] {
        hash = (hash ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
    hash ^ (hash >> 32)
}

/// Puts a hit into a group; `None` when it is there already. A record that counts once is there with its first input.
fn insert(
    group: &mut Group,
    correlation: &Correlation,
    scratch: &mut Window,
    key: Key,
    value: u64,
) -> Option<(Flips, Option<usize>)> {
    let Group { hits, busy, .. } = group;
    let kept = busy.as_mut().and_then(|busy| busy.window.as_mut());
    let mut evaluation = Evaluation { correlation, hits, kept, scratch };
    let mut flips = Flips::default();
    let at = if correlation.measure.is_per_record() {
        let at = evaluation.hits.lower(Key { input: 0, ..key });
        if at < evaluation.hits.len() && evaluation.hits.key(at).same_record(key) {
            if evaluation.hits.input(at) <= key.input {
                return None;
            }
            flips = evaluation.remove(at);
            flips = flips.and(Flips { others: true, since: key.time });
        }
        at
    } else {
        let at = evaluation.hits.lower(key);
        if at < evaluation.hits.len() && evaluation.hits.key(at) == key {
            return None;
        }
        at
    };
    flips = flips.and(evaluation.insert(at, key, value));
    Some((flips, Some(at)))
}

/// Takes a hit out of a group; `None` when it is not there.
fn remove(
    group: &mut Group,
    correlation: &Correlation,
    scratch: &mut Window,
    key: Key,
) -> Option<(Flips, Option<usize>)> {
    let Group { hits, busy, .. } = group;
    let at = hits.lower(key);
    if at >= hits.len() || hits.key(at) != key {
        return None;
    }
    let kept = busy.as_mut().and_then(|busy| busy.window.as_mut());
    let flips = Evaluation { correlation, hits, kept, scratch }.remove(at);
    Some((flips, None))
}

/// Brings a group's episodes up to date, and its window; answers whether a revision came to be due.
fn update(
    group: &mut Group,
    correlation: &Correlation,
    (key, at): (Key, Option<usize>),
    flips: Flips,
) -> bool {
    let Group { hits, busy, .. } = group;
    let keeps = Evaluation::keeps(correlation, hits.len());
    let fulfils = at.is_some_and(|at| hits.fulfils(at));
    if busy.is_none() && !keeps && !flips.others && !fulfils {
        return false;
    }
    let busy = busy.get_or_insert_default();
    let was_dirty = busy.is_dirty;
    if flips.others || fulfils || !busy.episodes.is_empty() || !busy.given.is_empty() {
        busy.update(correlation, hits, (key, at), flips);
    }
    if keeps && busy.window.is_none() {
        busy.window = Some(Evaluation::keep(correlation, hits));
    }
    busy.is_dirty && !was_dirty
}
