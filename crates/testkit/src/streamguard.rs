//! The published generator of StreamGuard events: what the benchmarks of ingestion feed to Palisade
//! and to its peers.
//!
//! Its data is fixed by a seed: the same seed, number of users, id style, start, rate and share give
//! the same bytes on every machine (a golden hash in the tests holds it to that). To feed a peer,
//! write the lines to a file.
//!
//! # The line
//! One JSON object and a line feed, fields in this order, without spaces:
//!
//! | field | content |
//! |---|---|
//! | `event_id` | `evt_<seconds>_<n>` as StreamGuard writes it: the timestamp's seconds, and the event's number modulo 1,000,000 in six digits; or a random UUID of version 4 ([`IdStyle`]) |
//! | `user` | `first.last`; the busiest hundredth are services, `svc-backup-00` |
//! | `timestamp` | milliseconds since the epoch |
//! | `type` | see below |
//! | `source_ip`, `geo_location` | one of the user's usual addresses, with its city |
//! | `threat_score` | two decimals, as the sender sees it |
//! | `metadata` | `user_agent` (browser, or the sensor on the machine), `session_id` (in `LOGIN_SUCCESS`, `LOGOUT`, `PRIVILEGE_CHANGE`), `resource`, `port` (not in `FILE_ACCESS`, `PROCESS_EXECUTION`), `protocol` (not in `PROCESS_EXECUTION`), `bytes` |
//!
//! A line has 300 bytes on average (301 to 302.4 in each stretch of 100,000; 258 to 347 a line in
//! the first ten million). A random UUID makes it 15 bytes longer. zstd, level 1, shrinks the lines to 32 bytes an event.
//!
//! # The company
//! - **Users** act with the frequency of Zipf's law, exponent 1.05, over a whole day: of 10,000 the
//!   busiest makes 12.6 % of the events, the busiest hundred make 59 %, the busiest thousand 81 %.
//! - A user has one to five **addresses** (20, 30, 20, 20, 10 % of the people; services have one),
//!   used by Zipf's law too: the desk in 10/8, the home in 198.18/15, one of 512 shared VPN
//!   addresses, one of 4,096 shared mobile carrier addresses in 100.64/10, another office. 30 % of the users with
//!   several have the last one in a second **city** (16 in all).
//! - **Working hours** are 8 to 10 hours from 7 to 10 o'clock of the user's city; in another hour a
//!   user is 3 % as active. Hours of the day are balanced, so the rate is constant.
//! - One event in 1,024 of a person comes from **abroad**: one of 512 addresses of 203.0.113/24 and
//!   198.51.100/24 in eight cities where nobody works, with a raised score.
//! - **Time** advances by [`Generator::with_rate`] (default 100 events a second, so 10 million
//!   events are 28 hours); an event's timestamp lies up to 1.02 s before that, as transport delays
//!   it, so lines are not sorted by time.
//!
//! | type | office | engineers | administrators | services |
//! |---|---|---|---|---|
//! | `LOGIN_SUCCESS` | 17.2 % | 14.1 % | 18.8 % | 9.4 % |
//! | `LOGIN_FAILED` | 3.1 % | 2.3 % | 3.9 % | 0.8 % |
//! | `FILE_ACCESS` | 32.8 % | 21.9 % | 15.6 % | 29.7 % |
//! | `NETWORK_CONNECTION` | 20.3 % | 25.0 % | 21.9 % | 37.5 % |
//! | `PROCESS_EXECUTION` | 9.4 % | 18.8 % | 19.5 % | 10.2 % |
//! | `DNS_QUERY` | 14.1 % | 14.8 % | 12.5 % | 12.5 % |
//! | `PRIVILEGE_CHANGE` | 0.4 % | 0.8 % | 4.7 % | – |
//! | `LOGOUT` | 2.7 % | 2.3 % | 3.1 % | – |
//!
//! Of the people 65 % are office workers, 30 % engineers, 5 % administrators. A session id is 32
//! random bits and changes with every fourth login of its user. Distinct values: about 19,600 usual
//! addresses and 512 abroad, 34 user agents, 24 cities, and as resources 36 applications, 1,920
//! files, 400 hosts, 400 domains, 31 programs and 12 privileges; the first tenth of each list is met
//! in a third of the events. `bytes` is spread over powers of two, as sizes are.

mod population;
mod random;
mod words;

use population::{Alias, Arena, Piece, Population, Profile, pick};
use random::{Random, mix};
use std::sync::Arc;

/// How the events are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdStyle {
    /// `evt_<seconds>_<n>`, as StreamGuard does.
    StreamGuard,
    /// Random UUIDs of version 4: the worst case for storage.
    RandomUuid,
}

/// The number of users in the published data.
pub const USERS: u32 = 10_000;
/// The seed of the published data.
pub const SEED: u64 = 1;
/// When the published data begins: Monday 2026-01-05 00:00 UTC, in milliseconds since the epoch.
pub const START: i64 = 1_767_571_200_000;
/// Events a second of event time in the published data.
pub const RATE: u32 = 100;
/// The highest rate at which `evt_<seconds>_<n>` is unique.
pub const MAX_RATE: u32 = 450_000;

const TYPES: [&str; 8] = [
    "LOGIN_SUCCESS",
    "LOGIN_FAILED",
    "FILE_ACCESS",
    "NETWORK_CONNECTION",
    "PROCESS_EXECUTION",
    "DNS_QUERY",
    "PRIVILEGE_CHANGE",
    "LOGOUT",
];
const LOGIN_SUCCESS: usize = 0;
const LOGIN_FAILED: usize = 1;
const FILE_ACCESS: usize = 2;
const NETWORK_CONNECTION: usize = 3;
const PROCESS_EXECUTION: usize = 4;
const DNS_QUERY: usize = 5;
const PRIVILEGE_CHANGE: usize = 6;
const LOGOUT: usize = 7;

/// Of 256 events of a profile, how many are of each type.
const MIX: [[u16; 8]; 4] = [
    [44, 8, 84, 52, 24, 36, 1, 7],
    [36, 6, 56, 64, 48, 38, 2, 6],
    [48, 10, 40, 56, 50, 32, 12, 8],
    [24, 2, 76, 96, 26, 32, 0, 0],
];

/// The least score of a type in hundredths, and how far above it scores go.
const SCORES: [(u64, u64); 8] =
    [(2, 28), (30, 40), (1, 29), (2, 38), (2, 33), (1, 19), (35, 45), (1, 5)];

/// The least power of two of a type's `bytes`, and how many powers there are.
const SIZES: [(u64, u64); 8] = [(9, 4), (9, 2), (10, 13), (8, 17), (15, 7), (6, 3), (8, 2), (8, 2)];

/// The decimal digits of 0 to 999.
#[expect(clippy::indexing_slicing, reason = "evaluated when compiled")]
const DIGITS: [[u8; 3]; 1000] = {
    let mut table = [[0; 3]; 1000];
    let mut n = 0;
    while n < 1000 {
        table[n] = [b'0' + (n / 100) as u8, b'0' + (n / 10 % 10) as u8, b'0' + (n % 10) as u8];
        n += 1;
    }
    table
};

const HEX: &[u8; 16] = b"0123456789abcdef";
const HOUR: i64 = 3_600_000;

/// Makes events without end. See the module's documentation for what they are.
#[derive(Debug, Clone)]
pub struct Generator {
    seed: u64,
    ids: IdStyle,
    random: Random,
    /// Shared by all streams that are made of one, like the population.
    arena: Arc<Arena>,
    population: Arc<Population>,
    users: Alias,
    sessions: Vec<[u8; 8]>,
    /// Which address is used, by number of addresses less one.
    address: [[u8; 64]; population::MAX_ADDRESSES],
    /// Which type is used, by profile.
    mix: [[u8; 256]; 4],
    /// `,"type":"…","source_ip":"` by type.
    types: [Piece; 8],
    abroad: Vec<Piece>,
    /// `"resource":"…",…"bytes":`: applications, then files by department, and so on.
    apps: Vec<Piece>,
    files: Vec<Vec<Piece>>,
    hosts: Vec<Piece>,
    domains: Vec<Piece>,
    programs: Vec<Vec<Piece>>,
    privileges: Vec<Piece>,
    start: i64,
    rate: u32,
    index: u32,
    shares: u32,
    clock: Clock,
}

/// Where event time stands.
#[derive(Debug, Clone)]
struct Clock {
    /// Milliseconds since the epoch …
    now: i64,
    /// … and the rest, in milliseconds times the rate.
    rest: u64,
    /// Added for each event, likewise.
    step: u64,
    step_rest: u64,
    rate: u64,
    /// When the users' table changes.
    hour_ends: i64,
    /// The event's number modulo a million.
    number: u32,
    number_step: u32,
}

impl Generator {
    /// The published data when called with [`SEED`] and [`USERS`]. `users` is at least 1; 10,000 of
    /// them take 4 MB and 20 ms.
    #[must_use]
    pub fn new(seed: u64, users: u32, ids: IdStyle) -> Self {
        let mut arena = Arena::default();
        let population = Population::new(seed, users, &mut arena);
        let types =
            TYPES.map(|name| arena.add(format_args!(",\"type\":\"{name}\",\"source_ip\":\"")));
        let abroad = (0..512_u32)
            .map(|n| {
                let net = if n < 256 { "203.0.113" } else { "198.51.100" };
                let (host, city) = (n % 256, pick(&words::ABROAD, n / 8));
                arena.add(format_args!(
                    "{net}.{host}\",\"geo_location\":\"{city}\",\"threat_score\":0."
                ))
            })
            .collect();
        let mut generator = Self {
            seed,
            ids,
            random: Random::new(seed),
            users: population.table(0),
            sessions: (0..population.users.len() as u64)
                .map(|user| hex8(mix(seed ^ user.rotate_left(32)) as u32))
                .collect(),
            address: address_tables(),
            mix: MIX.map(|shares| spread(&shares.map(f64::from))),
            types,
            abroad,
            apps: apps(&mut arena),
            files: words::DEPARTMENTS.iter().map(|name| files(name, &mut arena)).collect(),
            hosts: hosts(&mut arena),
            domains: domains(&mut arena),
            programs: words::PROGRAMS.iter().map(|list| programs(list, &mut arena)).collect(),
            privileges: privileges(&mut arena),
            start: START,
            rate: RATE,
            index: 0,
            shares: 1,
            clock: Clock::new(START, RATE, 0, 1),
            population: Arc::new(population),
            arena: Arc::new(arena),
        };
        generator.restart();
        generator
    }

    /// Begins at another time, in milliseconds since the epoch (at least 0, before the year 2286).
    #[must_use]
    pub fn with_start(mut self, start: i64) -> Self {
        self.start = start.clamp(2 * HOUR, 9_999_000_000_000);
        self.restart();
        self
    }

    /// Lets event time pass at another rate: events a second, 1 to [`MAX_RATE`].
    #[must_use]
    pub fn with_rate(mut self, events_per_second: u32) -> Self {
        self.rate = events_per_second.clamp(1, MAX_RATE);
        self.restart();
        self
    }

    /// Makes one of several streams that run side by side and together have the rate: the one with
    /// number `index` of `shares` has the events number `index`, `index + shares`, … Their ids
    /// differ from the other streams'. Clones share what is large.
    #[must_use]
    pub fn with_share(mut self, index: u32, shares: u32) -> Self {
        self.shares = shares.clamp(1, 1000);
        self.index = index % self.shares;
        self.restart();
        self
    }

    fn restart(&mut self) {
        self.random = Random::new(mix(self.seed) ^ u64::from(self.index));
        self.clock = Clock::new(self.start, self.rate, self.index, self.shares);
        self.turn_hour();
    }

    fn turn_hour(&mut self) {
        let hour = self.clock.now.div_euclid(HOUR);
        self.users = self.population.table(hour.rem_euclid(24) as usize);
        self.clock.hour_ends = (hour + 1) * HOUR;
    }

    /// Appends the next `count` events to `out`, each a line with its line feed.
    pub fn fill(&mut self, count: usize, out: &mut Vec<u8>) {
        out.reserve(count.saturating_mul(330));
        for _ in 0..count {
            if self.clock.now >= self.clock.hour_ends {
                self.turn_hour();
            }
            self.line(out);
            self.clock.advance();
        }
    }

    #[inline]
    #[expect(
        clippy::indexing_slicing,
        reason = "tables are full for the masked or scaled indices, which a benchmark's hot loop needs"
    )]
    fn line(&mut self, out: &mut Vec<u8>) {
        let arena = &self.arena;
        let number = self.users.draw(self.random.next());
        let user = &self.population.users[number];
        // 8 bits type, 6 address, 10 abroad, 10 + 10 delay, 8 + 8 score
        let r = self.random.next();
        let kind = usize::from(self.mix[user.profile as usize][(r & 0xff) as usize]);
        let delay = ((r >> 24 & 0x3ff) * (r >> 34 & 0x3ff)) >> 10;
        let skewed = ((r >> 44 & 0xff) * (r >> 52 & 0xff)) >> 8;
        let abroad = r >> 14 & 0x3ff == 0 && user.profile != Profile::Service;
        // 16 + 16 bits resource, 8 + 8 power of the size, 24 the rest of it; a session takes some of them
        let q = self.random.next();

        let time = self.clock.now - delay as i64;
        let seconds = time / 1000;
        let mut stamp = [0; 13];
        let s = seconds as usize;
        stamp[0] = b'0' + (s / 1_000_000_000) as u8;
        stamp[1..4].copy_from_slice(&DIGITS[s / 1_000_000 % 1000]);
        stamp[4..7].copy_from_slice(&DIGITS[s / 1000 % 1000]);
        stamp[7..10].copy_from_slice(&DIGITS[s % 1000]);
        stamp[10..13].copy_from_slice(&DIGITS[(time - seconds * 1000) as usize]);

        match self.ids {
            IdStyle::StreamGuard => {
                let mut id = *b"{\"event_id\":\"evt_0000000000_000000";
                id[17..27].copy_from_slice(&stamp[..10]);
                let n = self.clock.number as usize;
                id[28..31].copy_from_slice(&DIGITS[n / 1000]);
                id[31..34].copy_from_slice(&DIGITS[n % 1000]);
                out.extend_from_slice(&id);
            }
            IdStyle::RandomUuid => {
                let mut id = *b"{\"event_id\":\"00000000-0000-4000-8000-000000000000";
                uuid(&mut id[13..], self.random.next(), self.random.next());
                out.extend_from_slice(&id);
            }
        }
        out.extend_from_slice(arena.get(user.name));
        out.extend_from_slice(&stamp);
        out.extend_from_slice(arena.get(self.types[kind]));
        let place = if abroad {
            self.abroad[(q & 0x1ff) as usize]
        } else {
            let table = &self.address[usize::from(user.address_count) - 1];
            user.addresses[usize::from(table[(r >> 8 & 0x3f) as usize])]
        };
        out.extend_from_slice(arena.get(place));
        let (least, range) = SCORES[kind];
        // Failures and changes of privilege are spread evenly, all else is mostly low.
        let height =
            if kind == LOGIN_FAILED || kind == PRIVILEGE_CHANGE { r >> 44 & 0xff } else { skewed };
        let score = (least + ((height * range) >> 8) + if abroad { 45 } else { 0 }).min(99);
        out.extend_from_slice(&DIGITS[score as usize][1..]);

        let signing = kind == LOGIN_SUCCESS || kind == LOGIN_FAILED || kind == LOGOUT;
        out.extend_from_slice(arena.get(if signing { user.browser } else { user.sensor }));
        if kind == LOGIN_SUCCESS || kind == LOGOUT || kind == PRIVILEGE_CHANGE {
            let session = &mut self.sessions[number];
            if kind == LOGIN_SUCCESS && q >> 32 & 3 == 0 {
                *session = hex8((q >> 32) as u32 ^ (r as u32).rotate_left(7));
            }
            let mut text = *b"\"session_id\":\"00000000\",";
            text[14..22].copy_from_slice(session);
            out.extend_from_slice(&text);
        }
        let list = match kind {
            FILE_ACCESS => &self.files[usize::from(user.department)],
            NETWORK_CONNECTION => &self.hosts,
            PROCESS_EXECUTION => &self.programs[usize::from(user.system)],
            DNS_QUERY => &self.domains,
            PRIVILEGE_CHANGE => &self.privileges,
            _ => &self.apps,
        };
        // The product of two even numbers: the first tenth of a list gets a third of the events.
        let place = (q & 0xffff) * (q >> 16 & 0xffff);
        out.extend_from_slice(arena.get(list[((place * list.len() as u64) >> 32) as usize]));
        let (power, powers) = SIZES[kind];
        let power = power + (((q >> 32 & 0xff) * (q >> 56) * powers) >> 16);
        let bytes = 1 << power | (q >> 40) & ((1 << power) - 1);
        out.extend_from_slice(itoa::Buffer::new().format(bytes).as_bytes());
        out.extend_from_slice(b"}}\n");
    }
}

impl Clock {
    fn new(start: i64, rate: u32, index: u32, shares: u32) -> Self {
        let rate = u64::from(rate);
        let before = 1000 * u64::from(index);
        let step = 1000 * u64::from(shares);
        Self {
            // The first event's delay must not lead before the start.
            now: start + 1024 + (before / rate) as i64,
            rest: before % rate,
            step: step / rate,
            step_rest: step % rate,
            rate,
            hour_ends: i64::MAX,
            number: index,
            number_step: shares,
        }
    }

    #[inline]
    fn advance(&mut self) {
        self.now += self.step as i64;
        self.rest += self.step_rest;
        if self.rest >= self.rate {
            self.rest -= self.rate;
            self.now += 1;
        }
        self.number += self.number_step;
        if self.number >= 1_000_000 {
            self.number -= 1_000_000;
        }
    }
}

/// Which of up to 256 cells belongs to which index, in proportion to the shares.
fn spread<const CELLS: usize>(shares: &[f64]) -> [u8; CELLS] {
    let total: f64 = shares.iter().sum();
    let mut cells = [0; CELLS];
    for (n, cell) in cells.iter_mut().enumerate() {
        let at = (n as f64 + 0.5) / CELLS as f64 * total;
        let mut sum = 0.0;
        let index = shares.iter().position(|share| {
            sum += share;
            at < sum
        });
        *cell = index.unwrap_or(0) as u8;
    }
    cells
}

fn address_tables() -> [[u8; 64]; population::MAX_ADDRESSES] {
    let mut tables = [[0; 64]; population::MAX_ADDRESSES];
    for (n, table) in (1..).zip(&mut tables) {
        *table = spread(&population::zipf(n));
    }
    tables
}

fn apps(arena: &mut Arena) -> Vec<Piece> {
    let render = |app: &&str| {
        arena.add(format_args!(
            "\"resource\":\"{app}\",\"port\":443,\"protocol\":\"HTTPS\",\"bytes\":"
        ))
    };
    words::APPS.iter().map(render).collect()
}

/// 160 files: in each of 8 folders 20 documents.
fn files(department: &str, arena: &mut Arena) -> Vec<Piece> {
    (0..160_u32)
        .map(|n| {
            // 53 has no factor in common with 160: every pair of folder and document comes once.
            let (folder, document) =
                (pick(&words::FOLDERS, n * 53 / 20), pick(&words::DOCUMENTS, n * 53));
            arena.add(format_args!(
                "\"resource\":\"/{department}/{folder}/{document}\",\"protocol\":\"SMB\",\"bytes\":"
            ))
        })
        .collect()
}

/// 400 hosts, each reached at one port.
fn hosts(arena: &mut Arena) -> Vec<Piece> {
    (0..400_u32)
        .map(|n| {
            let role = pick(&words::HOST_ROLES, n);
            let (port, protocol) = pick(&words::PORTS, n / 10 + n);
            arena.add(format_args!(
                "\"resource\":\"{role}-{n:03}\",\"port\":{port},\
                 \"protocol\":\"{protocol}\",\"bytes\":"
            ))
        })
        .collect()
}

/// 400 domains.
fn domains(arena: &mut Arena) -> Vec<Piece> {
    (0..400_u32)
        .map(|n| {
            let head = pick(&words::DOMAIN_HEADS, n / 20);
            let tail = pick(&words::DOMAIN_TAILS, n);
            arena.add(format_args!(
                "\"resource\":\"{head}.{tail}\",\"port\":53,\"protocol\":\"UDP\",\"bytes\":"
            ))
        })
        .collect()
}

fn programs(list: &[&str], arena: &mut Arena) -> Vec<Piece> {
    list.iter().map(|path| arena.add(format_args!("\"resource\":\"{path}\",\"bytes\":"))).collect()
}

fn privileges(arena: &mut Arena) -> Vec<Piece> {
    let render = |name: &&str| {
        arena.add(format_args!(
            "\"resource\":\"{name}\",\"protocol\":\"LDAP\",\"port\":636,\"bytes\":"
        ))
    };
    words::PRIVILEGES.iter().map(render).collect()
}

#[expect(clippy::indexing_slicing, reason = "four bits are below 16")]
fn hex8(bits: u32) -> [u8; 8] {
    let mut text = [0; 8];
    for (n, digit) in text.iter_mut().enumerate() {
        *digit = HEX[(bits >> (4 * n) & 0xf) as usize];
    }
    text
}

/// Writes a UUID of version 4 over 36 bytes that hold its dashes, version and variant.
#[expect(clippy::indexing_slicing, reason = "four bits are below 16")]
fn uuid(text: &mut [u8], mut low: u64, mut high: u64) {
    for (n, digit) in text.iter_mut().enumerate() {
        if n == 18 {
            low = high;
            high = 0;
        }
        match n {
            8 | 13 | 14 | 18 | 23 => {}
            19 => {
                *digit = HEX[(8 | low & 3) as usize];
                low >>= 4;
            }
            _ => {
                *digit = HEX[(low & 0xf) as usize];
                low >>= 4;
            }
        }
    }
}
