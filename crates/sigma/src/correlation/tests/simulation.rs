//! Partitions that read each other's logs in any order, are stopped and restored, and are told of other rules.

use super::cases::{Matched, Owned, Random};
use crate::correlation::live::SnapshotKind;
use crate::correlation::*;
use std::collections::{BTreeMap, VecDeque};

#[derive(Debug, Clone)]
enum Message {
    Hit(Position, Owned),
    Progress { domain: String, clock: i64, frontier: Option<i64> },
    Output { domain: String, correlation: usize, frontier: i64 },
}

#[derive(Debug, Clone)]
enum Step {
    Message(Origin, Message),
    Tick,
    Reload(Correlations),
}

struct Saving {
    bytes: Vec<u8>,
    set: Correlations,
    steps: Vec<Step>,
    out: Vec<Revision>,
}

struct Partition {
    live: Live,
    set: Correlations,
    chain: Vec<Vec<u8>>,
    saving: Option<Saving>,
    positions: BTreeMap<u8, u64>,
}

impl Partition {
    fn take(live: &mut Live, step: &Step, out: &mut Vec<Revision>) {
        match step {
            Step::Message(origin, Message::Hit(position, hit)) => {
                live.hit((*origin, *position), &hit.hit(), out);
            }
            Step::Message(origin, Message::Progress { domain, clock, frontier }) => {
                live.progress(*origin, domain, *clock, *frontier, out);
            }
            Step::Message(origin, Message::Output { domain, correlation, frontier }) => {
                live.progress_output(*origin, domain, *correlation, *frontier);
            }
            Step::Tick => live.tick(out),
            Step::Reload(set) => live.reload(set, out),
        }
    }

    fn step(&mut self, step: &Step) -> Vec<Revision> {
        let mut out = Vec::new();
        Self::take(&mut self.live, step, &mut out);
        if let Some(saving) = &mut self.saving {
            saving.steps.push(step.clone());
            saving.out.extend(out.iter().cloned());
        }
        out
    }
}

pub(super) struct Simulation<'s> {
    set: &'s Correlations,
    with_others: Correlations,
    partitions: Vec<Partition>,
    origins: Vec<Origin>,
    queues: BTreeMap<(Origin, usize), VecDeque<Message>>,
    told: BTreeMap<(Origin, String, Option<usize>), i64>,
    pub(super) standings: Standings,
    pub(super) revisions: u64,
    /// What happened, for a single seed.
    pub(super) log: Vec<String>,
}

const DOMAINS: [&str; 2] = ["live", "load:1"];

impl<'s> Simulation<'s> {
    pub(super) fn new(
        set: &'s Correlations,
        with_others: Correlations,
        records: &[Matched],
        random: &mut Random,
    ) -> Self {
        let (sources, readers) = (random.between(1, 5) as u16, random.between(1, 3) as usize);
        let deepest = set.iter().map(|(_, correlation)| correlation.depth).max().unwrap_or(0);
        let mut origins: Vec<Origin> =
            (0..sources).map(|partition| Origin { stage: 0, partition }).collect();
        for stage in 1..=deepest {
            origins.extend((0..readers as u16).map(|partition| Origin { stage, partition }));
        }
        let partitions = (0..readers)
            .map(|_| Partition {
                live: Live::new(set, origins.iter().copied(), Options::default()),
                set: set.clone(),
                chain: Vec::new(),
                saving: None,
                positions: BTreeMap::new(),
            })
            .collect();
        let mut simulation = Self {
            set,
            with_others,
            partitions,
            origins,
            queues: BTreeMap::new(),
            told: BTreeMap::new(),
            standings: Standings::default(),
            revisions: 0,
            log: Vec::new(),
        };
        simulation.send_records(records, random);
        simulation
    }

    fn reader(&self, hit: &Hit<'_>) -> usize {
        usize::from(hit.slot.0) % self.partitions.len()
    }

    fn push(&mut self, origin: Origin, reader: usize, message: Message) {
        self.queues.entry((origin, reader)).or_default().push_back(message);
    }

    fn push_all(&mut self, origin: Origin, message: &Message) {
        for reader in 0..self.partitions.len() {
            self.push(origin, reader, message.clone());
        }
    }

    fn send_records(&mut self, records: &[Matched], random: &mut Random) {
        let sources: Vec<Origin> =
            self.origins.iter().copied().filter(|origin| origin.stage == 0).collect();
        let mut of_source: Vec<Vec<&Matched>> = vec![Vec::new(); sources.len()];
        for record in records {
            of_source[random.below(sources.len() as u64) as usize].push(record);
        }
        for (origin, mut records) in sources.into_iter().zip(of_source) {
            // In the live domain the clock of a source is monotone; anywhere else records come in any order.
            records.sort_by_key(|record| record.clock);
            for (offset, record) in (1..).zip(records) {
                for (ordinal, hit) in (0..).zip(record.hits(self.set)) {
                    let position = Position { offset, row: 0, ordinal };
                    let reader = self.reader(&hit.hit());
                    self.push(origin, reader, Message::Hit(position, hit));
                }
                if record.domain == "live" && random.chance(60) {
                    let message = Message::Progress {
                        domain: "live".to_owned(),
                        clock: record.clock,
                        frontier: None,
                    };
                    self.push_all(origin, &message);
                }
            }
            for domain in DOMAINS {
                let message = Message::Progress {
                    domain: domain.to_owned(),
                    clock: i64::MAX,
                    frontier: Some(i64::MAX),
                };
                self.push_all(origin, &message);
            }
        }
    }

    pub(super) fn run(&mut self, random: &mut Random) {
        loop {
            let waiting: Vec<(Origin, usize)> = self
                .queues
                .iter()
                .filter(|(_, queue)| !queue.is_empty())
                .map(|(key, _)| *key)
                .collect();
            if waiting.is_empty() {
                break;
            }
            let (origin, reader) = *random.pick(&waiting);
            let queue = self.queues.get_mut(&(origin, reader)).unwrap();
            let message = queue.pop_front().unwrap();
            if matches!(message, Message::Hit(..)) && random.chance(5) {
                // An append that happened twice (H2).
                queue.push_back(message.clone());
            }
            self.step(reader, &Step::Message(origin, message));
            if random.chance(25) {
                self.step(reader, &Step::Tick);
            }
            if random.chance(2) {
                let others = random.chance(50);
                let set = if others { self.with_others.clone() } else { self.set.clone() };
                self.partitions[reader].set = set.clone();
                self.step(reader, &Step::Reload(set));
            }
            self.save(reader, random);
        }
    }

    /// Until nothing more comes.
    pub(super) fn finish(&mut self, random: &mut Random) {
        for _ in 0..8 {
            for reader in 0..self.partitions.len() {
                self.step(reader, &Step::Tick);
            }
            self.run(random);
        }
        for partition in &mut self.partitions {
            let counters = partition.live.counters();
            assert_eq!(counters.behind, 0, "a hit came behind its frontier");
            let mut out = Vec::new();
            for _ in 0..64 {
                partition.live.tick(&mut out);
            }
            assert!(out.is_empty(), "{out:?}");
            assert_eq!(partition.live.groups(), 0, "state remained");
        }
    }

    fn step(&mut self, reader: usize, step: &Step) {
        let out = self.partitions[reader].step(step);
        if std::env::var_os("PALISADE_SEED").is_some() {
            self.log.push(match step {
                Step::Reload(set) => format!("{reader}: reload {}", set.len()),
                step => format!("{reader}: {step:?}"),
            });
            self.log.extend(out.iter().map(|revision| format!("    {revision:?}")));
        }
        for revision in &out {
            self.revisions += 1;
            self.standings.apply(revision);
            let stage = self.set.get(revision.correlation).unwrap().depth + 1;
            for chained in self.set.hits_of_revision(revision) {
                let hit = chained.as_hit(palisade_event::slot::SLOTS);
                let next = self.partitions[reader].positions.entry(stage).or_default();
                *next += 1;
                let position = Position { offset: *next, row: 0, ordinal: 0 };
                let message = Message::Hit(position, Owned::of(&hit));
                let to = self.reader(&hit);
                self.push(Origin { stage, partition: reader as u16 }, to, message);
            }
        }
        for domain in DOMAINS {
            for origin in self.origins.clone() {
                if origin.stage == 0 || usize::from(origin.partition) != reader {
                    continue;
                }
                let clock = self.partitions[reader].live.clock(origin.stage, domain);
                if self.is_news(origin, domain, None, clock) {
                    let domain = domain.to_owned();
                    self.push_all(origin, &Message::Progress { domain, clock, frontier: None });
                }
                for (place, correlation) in self.set.iter() {
                    let settled = self.partitions[reader].live.settled(place, domain);
                    if correlation.depth + 1 == origin.stage
                        && self.is_news(origin, domain, Some(place), settled)
                    {
                        let message = Message::Output {
                            domain: domain.to_owned(),
                            correlation: place,
                            frontier: settled,
                        };
                        self.push_all(origin, &message);
                    }
                }
            }
        }
    }

    fn is_news(&mut self, origin: Origin, domain: &str, place: Option<usize>, value: i64) -> bool {
        let told = self.told.entry((origin, domain.to_owned(), place)).or_insert(i64::MIN);
        let news = value > *told;
        *told = value.max(*told);
        news
    }

    /// Snapshots while hits go on, and sometimes a stop with a restore and a replay.
    fn save(&mut self, reader: usize, random: &mut Random) {
        let origins = self.origins.clone();
        let partition = &mut self.partitions[reader];
        if partition.saving.is_none() && random.chance(3) {
            if partition.live.begin_snapshot().unwrap() == SnapshotKind::Full {
                partition.chain.clear();
            }
            let set = partition.set.clone();
            let saving = Saving { bytes: Vec::new(), set, steps: Vec::new(), out: Vec::new() };
            partition.saving = Some(saving);
        }
        let Some(saving) = &mut partition.saving else { return };
        if !random.chance(50) || !partition.live.snapshot_step(1, &mut saving.bytes) {
            return;
        }
        let Some(saving) = partition.saving.take() else { return };
        partition.chain.push(saving.bytes);
        if random.chance(60) {
            let mut restored = Live::new(&saving.set, origins, Options::default());
            restored.load(partition.chain.iter().map(Vec::as_slice), |_| true).unwrap();
            let mut out = Vec::new();
            for step in &saving.steps {
                Partition::take(&mut restored, step, &mut out);
            }
            assert_eq!(out, saving.out, "the replay gave out something else");
            partition.live = restored;
            partition.chain.clear();
        }
    }
}
