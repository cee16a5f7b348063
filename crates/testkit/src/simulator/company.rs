//! The company: its offices, people and service accounts, and where everybody is when.

use super::random::Random;

/// Cities as StreamGuard writes locations. The first three have offices.
pub(super) const CITIES: [&str; 40] = [
    "DE-BE-Berlin",
    "US-NY-New York",
    "SG-SG-Singapore",
    "DE-BB-Potsdam",
    "DE-HE-Frankfurt",
    "US-NJ-Newark",
    "US-VA-Ashburn",
    "MY-JH-Johor Bahru",
    "DE-HH-Hamburg",
    "DE-BY-Munich",
    "FR-IF-Paris",
    "GB-LN-London",
    "US-CA-San Francisco",
    "US-IL-Chicago",
    "US-TX-Austin",
    "JP-TK-Tokyo",
    "AU-NS-Sydney",
    "IN-KA-Bengaluru",
    "ES-MD-Madrid",
    "IT-LM-Milan",
    "NL-NH-Amsterdam",
    "SE-AB-Stockholm",
    "PL-MZ-Warsaw",
    "CZ-PR-Prague",
    "AT-WI-Vienna",
    "CH-ZH-Zurich",
    "CA-ON-Toronto",
    "BR-SP-Sao Paulo",
    "AE-DU-Dubai",
    "TH-BK-Bangkok",
    "ID-JK-Jakarta",
    "PH-MN-Manila",
    "VN-HN-Hanoi",
    "NG-LA-Lagos",
    "RO-BU-Bucharest",
    "UA-KV-Kyiv",
    "RU-MO-Moscow",
    "CN-GD-Shenzhen",
    "ZA-GP-Johannesburg",
    "MX-MX-Mexico City",
];

/// City of the office, of the suburb, of the way out of its VPN; hours east of UTC.
pub(super) const OFFICES: [(u16, u16, u16, i64); 3] = [(0, 3, 4, 1), (1, 5, 6, -5), (2, 7, 2, 8)];

const FIRST: [&str; 40] = [
    "anna", "ben", "carla", "david", "elena", "felix", "grace", "hugo", "ines", "jonas", "karin",
    "liam", "maria", "noah", "olga", "paul", "qiang", "rosa", "samuel", "tara", "umar", "vera",
    "wei", "xenia", "yusuf", "zoe", "amir", "bianca", "chen", "dora", "emil", "fatima", "george",
    "hana", "ivan", "julia", "kenji", "lena", "mateo", "nadia",
];
const LAST: [&str; 36] = [
    "meyer", "smith", "tan", "garcia", "schmidt", "johnson", "lim", "rossi", "fischer", "brown",
    "wong", "novak", "weber", "davis", "lee", "kowalski", "wagner", "miller", "ng", "silva",
    "becker", "wilson", "goh", "petrov", "hoffmann", "moore", "chua", "haddad", "koch", "taylor",
    "ong", "okafor", "richter", "clark", "teo", "yilmaz",
];

/// What somebody does for a living: decides which kinds of events they cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Clerk,
    Sales,
    Developer,
    Administrator,
    Support,
}

/// Why somebody's days differ from those of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Habit {
    Regular,
    /// Works nights.
    Shift,
    /// Is often elsewhere.
    Traveller,
    /// Mistypes passwords.
    Forgetful,
}

/// From where somebody works for a while.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stay {
    /// Minutes since the simulation's begin.
    pub(super) from: i32,
    pub(super) to: i32,
    /// Relative rate of events.
    pub(super) rate: f32,
    pub(super) address: u32,
    pub(super) city: u16,
    /// Which of the person's devices.
    pub(super) device: u8,
    /// In the office or on its VPN: file servers and hosts are in reach.
    pub(super) inside: bool,
}

/// Somebody who works here.
#[derive(Debug)]
pub(super) struct Person {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) habit: Habit,
    pub(super) office: usize,
    /// Share of log-ins that fail.
    pub(super) failing: f64,
    pub(super) host: u32,
    /// Indices into the user agents: workstation, phone.
    pub(super) agents: [u16; 2],
    /// In order of time, without overlaps.
    pub(super) stays: Vec<Stay>,
}

impl Person {
    /// Where the person is at a minute, if at work.
    pub(super) fn stay_at(&self, minute: i32) -> Option<&Stay> {
        let next = self.stays.partition_point(|stay| stay.to <= minute);
        self.stays.get(next).filter(|stay| stay.from <= minute)
    }
}

pub(super) fn city(index: u16) -> &'static str {
    CITIES.get(usize::from(index)).copied().unwrap_or("XX-XX-Unknown")
}

/// All people with their plans for the simulated days.
pub(super) fn people(seed: u64, count: u32, hosts: u32, days: u32) -> Vec<Person> {
    (0..count).map(|number| person(seed, number, hosts, days)).collect()
}

fn person(seed: u64, number: u32, hosts: u32, days: u32) -> Person {
    let mut random = Random::new(seed, 0x1000 + u64::from(number));
    let (first, last) = (number as usize % FIRST.len(), number as usize / FIRST.len());
    let family = LAST.get((last + first * 7) % LAST.len()).copied().unwrap_or_default();
    let mut name = format!("{}.{family}", FIRST.get(first).copied().unwrap_or_default());
    if last >= LAST.len() {
        name.push_str(&(last / LAST.len() + 1).to_string());
    }
    let role = match random.below(100) {
        0..40 => Role::Clerk,
        40..58 => Role::Sales,
        58..80 => Role::Developer,
        80..86 => Role::Administrator,
        _ => Role::Support,
    };
    let habit = match random.below(100) {
        0..8 => Habit::Shift,
        8..14 => Habit::Traveller,
        14..22 => Habit::Forgetful,
        _ => Habit::Regular,
    };
    let office = match random.below(100) {
        0..55 => 0,
        55..85 => 1,
        _ => 2,
    };
    let failing = if habit == Habit::Forgetful {
        0.15 + 0.2 * random.unit()
    } else {
        0.01 + 0.03 * random.unit()
    };
    let mut person = Person {
        name,
        role,
        habit,
        office,
        failing,
        host: number % hosts.max(1),
        agents: [random.below(6) as u16, 6 + random.below(4) as u16],
        stays: Vec::new(),
    };
    plan(&mut person, number, &mut random, days);
    person
}

/// Writes the person's stays: for every local day where, when and how busily they work.
fn plan(person: &mut Person, number: u32, random: &mut Random, days: u32) {
    let (office, suburb, tunnel, east) = OFFICES.get(person.office).copied().unwrap_or_default();
    let desk = 0x0a00_0000 | ((person.office as u32 + 1) << 16) | (number % 60_000 + 10);
    let mut home = random.address();
    let home_city = if random.chance(0.6) { office } else { suburb };
    let begins =
        if person.habit == Habit::Shift { 21 * 60 } else { 7 * 60 + random.between(30, 150) };
    let works = random.between(7 * 60, 9 * 60);
    let pace = (0.5 + 1.2 * random.unit()) as f32;
    let last_day = i64::from(days);
    for day in -1..=last_day {
        let midnight = day * 1440 - east * 60;
        let begin = midnight + begins + random.between(-20, 25);
        let lunch = begin + works / 2 + random.between(-30, 30);
        let back = lunch + random.between(25, 65);
        let end = begin + works + random.between(0, 80);
        if random.chance(0.05) {
            // The provider at home gives another address.
            home = random.address();
        }
        let away = match person.habit {
            Habit::Traveller => 0.45,
            _ => 0.01,
        };
        let mut stay =
            |from: i64, to: i64, rate: f32, address: u32, city: u16, device: u8, inside: bool| {
                let (from, to) = (from.max(0), to.min(last_day * 1440));
                if from < to {
                    let rate = rate * pace;
                    person.stays.push(Stay {
                        from: from as i32,
                        to: to as i32,
                        rate,
                        address,
                        city,
                        device,
                        inside,
                    });
                }
            };
        let phone = random.address();
        if random.chance(away) {
            // A day elsewhere: a hotel, then a customer, on the VPN in between.
            let city = 8 + random.below(26) as u16;
            let (hotel, guest) = (random.address(), random.address());
            stay(begin, begin + 70, 0.6, hotel, city, 0, false);
            stay(begin + 90, lunch, 0.7, guest, city, 0, false);
            stay(back, end - 60, 0.7, guest, city, 0, false);
            stay(end, end + 100, 0.4, hotel, city, 0, false);
        } else if random.chance(0.3) {
            // At home: first without, then on the VPN, whose addresses are lent out anew each time.
            let lease = |random: &mut Random| {
                0x0a63_0000 | ((person.office as u32) << 12) | random.below(900) as u32
            };
            stay(begin - 10, begin, 0.5, home, home_city, 0, false);
            let first = lease(random);
            stay(begin, lunch, 0.9, first, tunnel, 0, true);
            stay(lunch, back, 0.1, phone, home_city, 1, false);
            let second = if random.chance(0.5) { lease(random) } else { first };
            stay(back, end, 0.9, second, tunnel, 0, true);
        } else {
            if random.chance(0.5) {
                stay(begin - 45, begin - 20, 0.15, phone, home_city, 1, false);
            }
            stay(begin, lunch, 1.0, desk, office, 0, true);
            if random.chance(0.5) {
                stay(lunch, back, 0.1, phone, office, 1, false);
            }
            stay(back, end, 1.0, desk, office, 0, true);
        }
        // Some look in again in the evening; few are called at night.
        if random.chance(0.15) {
            let at = end + random.between(120, 240);
            stay(at, at + random.between(10, 60), 0.3, home, home_city, 0, false);
        } else if random.chance(0.01) {
            let at = end + random.between(360, 500);
            stay(at, at + random.between(30, 90), 0.6, home, home_city, 0, false);
        }
    }
    person.stays.sort_by_key(|stay| stay.from);
    let mut free_from = 0;
    person.stays.retain_mut(|stay| {
        stay.from = stay.from.max(free_from);
        free_from = free_from.max(stay.to);
        stay.from < stay.to
    });
}
