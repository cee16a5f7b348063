//! The labelled simulator: a company's security events, with attacks planted in them.
//!
//! A company with offices in three time zones works for some days: people with office hours, homes,
//! VPN leases, phones, journeys and night shifts, the forgetful ones with their failures; service
//! accounts busy round the clock from many addresses; deployments that come in bursts; visitors of the
//! web site; and scanners of the internet, which are harmless. In the later part of the last day,
//! attacks are planted ([`AttackKind`]). The same options give the same bytes.
//!
//! Records come as JSON lines in event-time order, in the shapes of several products (module
//! `records`). Each has an `event_id`, so that detections can be joined with the [`Planted`] labels;
//! nothing in a record tells the label.

mod attacks;
mod background;
mod company;
mod evaluation;
mod random;
mod records;

#[cfg(test)]
mod tests;

pub use attacks::AttackKind;
pub use evaluation::{Detection, KindReport, Report, evaluate};

use attacks::{Planner, Sketch, Step, Who};
use background::Machine;
use company::{Person, city};
use random::Random;
use records::{Actor, Writer, address_text, event_id};

const MINUTE: i64 = 60_000_000;

/// What is simulated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimulatorOptions {
    /// The same seed gives the same bytes.
    pub seed: u64,
    /// How many people work for the company (1 to 50,000).
    pub people: u32,
    /// How many hosts it has (1 to 50,000).
    pub hosts: u32,
    /// How many records there are in all. Those of attacks are among them; fewer than they are
    /// (about 6,000 with 500 people) leaves out everything else.
    pub records: u64,
    /// How many days are simulated (1 to 90); attacks come on the last.
    pub days: u32,
    /// When it begins, in microseconds since the epoch; best a midnight UTC.
    pub start: i64,
}

impl Default for SimulatorOptions {
    /// 500 people and 200 hosts on Monday, 2024-03-04, in 2 million records.
    fn default() -> Self {
        Self {
            seed: 1,
            people: 500,
            hosts: 200,
            records: 2_000_000,
            days: 1,
            start: 1_709_510_400_000_000,
        }
    }
}

/// An attack that was planted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planted {
    /// Its number, from 0.
    pub attack: u32,
    /// What it is.
    pub kind: AttackKind,
    /// The attacked or misused account, where it is one.
    pub user: Option<String>,
    /// Where it comes from.
    pub src_ip: Option<String>,
    /// The ids of its records, as far as they were written.
    pub event_ids: Vec<String>,
    /// Time of its first record, in microseconds since the epoch.
    pub start: i64,
    /// Time of its last record.
    pub end: i64,
}

/// The simulation as it goes on.
#[derive(Debug)]
pub struct Simulator {
    options: SimulatorOptions,
    people: Vec<Person>,
    steps: Vec<Step>,
    next_step: usize,
    labels: Vec<Planted>,
    /// How many background records there are up to the end of each minute.
    schedule: Vec<u64>,
    minute: i32,
    /// Times of the minute's background records, and how many are written.
    times: Vec<i64>,
    next_time: usize,
    /// Who may act in this minute: running sums of rates.
    rates: Vec<(f64, Source)>,
    /// Where each person's current or next stay is.
    stays: Vec<usize>,
    machine_unit: f64,
    random: Random,
    writer: Writer,
}

#[derive(Debug, Clone, Copy)]
enum Source {
    Person(usize, usize),
    Machine(Machine),
}

impl Simulator {
    /// Plans a simulation; options out of range are brought into it.
    #[must_use]
    pub fn new(options: SimulatorOptions) -> Self {
        let options = SimulatorOptions {
            people: options.people.clamp(1, 50_000),
            hosts: options.hosts.clamp(1, 50_000),
            days: options.days.clamp(1, 90),
            ..options
        };
        let people = company::people(options.seed, options.people, options.hosts, options.days);
        let planner = Planner {
            random: Random::new(options.seed, 2),
            people: &people,
            hosts: options.hosts,
            last_day: (options.days as i32 - 1) * 1440,
            used: vec![false; people.len()],
            steps: Vec::new(),
            sketches: Vec::new(),
        };
        let (steps, sketches) = planner.plan((options.people / 100).clamp(1, 20));
        let labels = labels(&people, &steps, &sketches, options.start);
        let background = options.records.saturating_sub(steps.len() as u64);
        let (schedule, machine_unit) = schedule(&people, options.days, background);
        let mut simulator = Self {
            steps,
            next_step: 0,
            labels,
            schedule,
            minute: -1,
            times: Vec::new(),
            next_time: 0,
            rates: Vec::new(),
            stays: vec![0; people.len()],
            machine_unit,
            random: Random::new(options.seed, 3),
            writer: Writer::default(),
            people,
            options,
        };
        simulator.next_minute();
        simulator
    }

    /// What is simulated.
    #[must_use]
    pub fn options(&self) -> &SimulatorOptions {
        &self.options
    }

    /// How many records there will be in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.steps.len() as u64 + self.schedule.last().copied().unwrap_or(0)
    }

    /// The attacks; their `event_ids` are complete once all records were written.
    #[must_use]
    pub fn labels(&self) -> &[Planted] {
        &self.labels
    }

    /// Writes up to `max_records` lines behind `out`; answers how many, 0 at the end.
    pub fn fill(&mut self, out: &mut Vec<u8>, max_records: usize) -> usize {
        let mut written = 0;
        while written < max_records {
            let Some(&time) = self.times.get(self.next_time) else {
                if self.minute_step(out) {
                    written += 1;
                } else if !self.next_minute() {
                    break;
                }
                continue;
            };
            written += 1;
            match self.steps.get(self.next_step) {
                Some(step) if step.time < time => self.write_step(out),
                _ => {
                    self.next_time += 1;
                    self.write_background(time, out);
                }
            }
        }
        written
    }

    /// Writes an attack's record that lies in this minute, if one is left.
    fn minute_step(&mut self, out: &mut Vec<u8>) -> bool {
        let end = i64::from(self.minute + 1) * MINUTE;
        let due = self.steps.get(self.next_step).is_some_and(|step| step.time < end);
        if due {
            self.write_step(out);
        }
        due
    }

    fn next_minute(&mut self) -> bool {
        self.minute += 1;
        let at = self.minute as usize;
        let Some(&until) = self.schedule.get(at) else { return false };
        let before = at.checked_sub(1).and_then(|at| self.schedule.get(at)).copied().unwrap_or(0);
        let begin = i64::from(self.minute) * MINUTE;
        let random = &mut self.random;
        self.times.clear();
        self.next_time = 0;
        self.times.extend((before..until).map(|_| begin + random.between(0, MINUTE)));
        self.times.sort_unstable();
        self.rates.clear();
        let mut sum = 0.0;
        for (number, (person, next)) in self.people.iter().zip(&mut self.stays).enumerate() {
            while person.stays.get(*next).is_some_and(|stay| stay.to <= self.minute) {
                *next += 1;
            }
            if let Some(stay) = person.stays.get(*next).filter(|stay| stay.from <= self.minute) {
                sum += f64::from(stay.rate);
                self.rates.push((sum, Source::Person(number, *next)));
            }
        }
        for (machine, rate) in background::machines(self.minute) {
            sum += rate * self.machine_unit;
            self.rates.push((sum, Source::Machine(machine)));
        }
        true
    }

    fn write_background(&mut self, time: i64, out: &mut Vec<u8>) {
        let total = self.rates.last().map_or(0.0, |(sum, _)| *sum);
        let drawn = self.random.unit() * total;
        let at = self.rates.partition_point(|(sum, _)| *sum <= drawn);
        let Some(&(_, source)) = self.rates.get(at) else { return };
        let (actor, act) = match source {
            Source::Person(person, stay) => {
                let person = self.people.get(person);
                let stay = person.and_then(|person| person.stays.get(stay));
                let (Some(person), Some(stay)) = (person, stay) else { return };
                let act = background::person_act(&mut self.random, person, stay);
                (background::actor(person, stay), act)
            }
            Source::Machine(machine) => {
                let hosts = self.options.hosts;
                background::machine_act(&mut self.random, machine, self.minute, hosts)
            }
        };
        self.writer.write(self.options.start + time, &actor, &act, out);
    }

    fn write_step(&mut self, out: &mut Vec<u8>) {
        let Some(&step) = self.steps.get(self.next_step) else { return };
        self.next_step += 1;
        let user = match step.who {
            Who::Person(person) => {
                self.people.get(person as usize).map_or("", |person| &person.name)
            }
            Who::Nobody => "",
        };
        let city = if step.city == u16::MAX { "" } else { city(step.city) };
        let Step { address, agent, host, act, .. } = step;
        let time = self.options.start + step.time;
        if let Some(label) = self.labels.get_mut(step.attack as usize) {
            label.event_ids.push(event_id(time, self.writer.sequence));
        }
        self.writer.write(time, &Actor { user, address, city, agent, host }, &act, out);
    }
}

/// Each record as one line without its newline. [`Simulator::fill`] is faster.
impl Iterator for Simulator {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let mut line = Vec::new();
        if self.fill(&mut line, 1) == 0 {
            return None;
        }
        line.pop();
        String::from_utf8(line).ok()
    }
}

fn labels(people: &[Person], steps: &[Step], sketches: &[Sketch], start: i64) -> Vec<Planted> {
    let planted = sketches.iter().zip(0..).map(|(sketch, attack)| {
        let mut times = steps.iter().filter(|step| step.attack == attack).map(|step| step.time);
        let first = times.next().unwrap_or(0);
        Planted {
            attack,
            kind: sketch.kind,
            user: match sketch.who {
                Who::Person(person) => {
                    people.get(person as usize).map(|person| person.name.clone())
                }
                Who::Nobody => None,
            },
            src_ip: (sketch.address != 0).then(|| address_text(sketch.address)),
            event_ids: Vec::new(),
            start: start + first,
            end: start + times.next_back().unwrap_or(first),
        }
    });
    planted.collect()
}

/// How many background records there are up to the end of each minute, by everybody's rates; and the
/// people's mean rate, in which machines' rates are given.
fn schedule(people: &[Person], days: u32, records: u64) -> (Vec<u64>, f64) {
    let minutes = days as usize * 1440;
    let mut rates = vec![0.0_f64; minutes];
    for stay in people.iter().flat_map(|person| &person.stays) {
        for rate in rates.iter_mut().take(stay.to as usize).skip(stay.from as usize) {
            *rate += f64::from(stay.rate);
        }
    }
    let unit = (rates.iter().sum::<f64>() / minutes as f64).max(1e-6) / 0.7;
    for (minute, rate) in (0..).zip(&mut rates) {
        *rate += background::machines(minute).map(|(_, rate)| rate * unit).sum::<f64>();
    }
    let total: f64 = rates.iter().sum();
    let mut sum = 0.0;
    let mut schedule: Vec<u64> = rates
        .iter()
        .map(|rate| {
            sum += rate;
            (sum / total * records as f64) as u64
        })
        .collect();
    if let Some(last) = schedule.last_mut() {
        *last = records;
    }
    (schedule, unit)
}
