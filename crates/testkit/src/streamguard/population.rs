//! The people of the generated company: who they are, from where and when they work.
//!
//! Everything of a user that appears in a line is rendered once, into one arena; a line is then a
//! few copies. Weights are computed with additions, multiplications and divisions only, which IEEE
//! 754 rounds the same way everywhere (`powf` is not), so a seed gives the same bytes on every
//! machine.

use super::random::{Random, mix};
use super::words;
use std::fmt::Write;

/// What remains of a user's activity in an hour outside the working hours.
const OFF_HOURS: f64 = 0.03;
/// The most usual addresses of a user.
pub(super) const MAX_ADDRESSES: usize = 5;

/// A piece of the arena.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Piece {
    pub(super) from: u32,
    pub(super) to: u32,
}

/// Rendered texts, one after the other.
#[derive(Debug, Clone, Default)]
pub(super) struct Arena(String);

impl Arena {
    pub(super) fn add(&mut self, text: std::fmt::Arguments<'_>) -> Piece {
        let from = self.0.len() as u32;
        // Writing into a String cannot fail.
        let _ = self.0.write_fmt(text);
        Piece { from, to: self.0.len() as u32 }
    }

    #[inline]
    #[expect(clippy::indexing_slicing, reason = "pieces come from `add` of the same arena")]
    pub(super) fn get(&self, piece: Piece) -> &[u8] {
        &self.0.as_bytes()[piece.from as usize..piece.to as usize]
    }
}

/// What kind of work a user does; decides the shares of event types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Profile {
    Office = 0,
    Engineer = 1,
    Administrator = 2,
    Service = 3,
}

/// A user, with references into the arena.
#[derive(Debug, Clone)]
pub(super) struct User {
    /// `","user":"…","timestamp":`
    pub(super) name: Piece,
    /// `1.2.3.4","geo_location":"…","threat_score":0.` of each usual address, the most used first.
    pub(super) addresses: [Piece; MAX_ADDRESSES],
    /// How many addresses are in use.
    pub(super) address_count: u8,
    /// 0 Windows, 1 macOS, 2 Linux.
    pub(super) system: u8,
    pub(super) profile: Profile,
    pub(super) department: u8,
    /// `,"metadata":{"user_agent":"…",` with the browser …
    pub(super) browser: Piece,
    /// … and with the sensor of the machine.
    pub(super) sensor: Piece,
    /// Bit h: works in hour h UTC.
    hours: u32,
}

/// All users, by Zipf rank, and the weights by which they act in an hour.
#[derive(Debug, Clone)]
pub(super) struct Population {
    pub(super) users: Vec<User>,
    row: Vec<f64>,
    column: [f64; 24],
}

impl Population {
    pub(super) fn new(seed: u64, count: u32, arena: &mut Arena) -> Self {
        let users: Vec<User> = (0..count.max(1)).map(|rank| user(seed, rank, arena)).collect();
        let (row, column) = balance(&users);
        Self { users, row, column }
    }

    /// The sampling table of an hour of the day (UTC).
    pub(super) fn table(&self, hour: usize) -> Alias {
        let column = self.column.get(hour).copied().unwrap_or(1.0);
        let weights =
            self.users.iter().zip(&self.row).map(|(user, row)| row * column * activity(user, hour));
        Alias::new(weights.collect())
    }
}

fn user(seed: u64, rank: u32, arena: &mut Arena) -> User {
    let mut random = Random::new(mix(seed) ^ mix(u64::from(rank)));
    // The busiest hundredth are services: they never sleep and have one address.
    let service = rank.is_multiple_of(100);
    let name = if service {
        let number = rank / 100;
        let service = pick(&words::SERVICES, number);
        arena.add(format_args!("\",\"user\":\"svc-{service}-{number:02}\",\"timestamp\":"))
    } else {
        // A bijection on 0..10,000, so names repeat (with a number) only in larger populations.
        let person = (rank % 10_000).wrapping_mul(7_919) % 10_000;
        let (first, last) = (pick(&words::FIRST, person), pick(&words::LAST, person / 100));
        match rank / 10_000 {
            0 => arena.add(format_args!("\",\"user\":\"{first}.{last}\",\"timestamp\":")),
            n => arena.add(format_args!("\",\"user\":\"{first}.{last}{n}\",\"timestamp\":")),
        }
    };
    let profile = match random.below(20) {
        _ if service => Profile::Service,
        0..13 => Profile::Office,
        13..19 => Profile::Engineer,
        _ => Profile::Administrator,
    };
    let system: u8 = match (profile, random.below(10)) {
        (Profile::Service, _) | (Profile::Engineer, 0..4) | (Profile::Administrator, 0..3) => 2,
        (Profile::Engineer, 4..8) | (Profile::Office, 0..2) => 1,
        _ => 0,
    };
    let home = random.below(words::CITIES.len() as u32);
    let second =
        (home + 1 + random.below(words::CITIES.len() as u32 - 1)) % words::CITIES.len() as u32;
    let address_count =
        if service { 1 } else { pick(&[1, 1, 2, 2, 2, 3, 3, 4, 4, 5], random.below(10)) };
    // Three in ten users with several addresses have one of them in another city.
    let travels = address_count > 1 && random.below(10) < 3;
    let mut addresses = [Piece::default(); MAX_ADDRESSES];
    for (n, piece) in addresses.iter_mut().enumerate().take(address_count) {
        let away = travels && n + 1 == address_count;
        let (city, _) = pick(&words::CITIES, if away { second } else { home });
        let r = random.next() as u32;
        let (a, b, c) = (r & 0xff, (r >> 8) & 0xff, (r >> 16) & 0xff);
        let ip = match n {
            // At the desk.
            0 => [10, 10 + home, a, b],
            // At home (198.18/15 belongs to nobody).
            1 => [198, 18 + (c & 1), a, b],
            // One of 512 VPN addresses, shared.
            2 => [10, 200, a & 1, b],
            // On the road, behind one of 4,096 carrier addresses.
            3 => [100, 64, a & 0xf, b],
            // In another office.
            _ => [10, 10 + second, a, b],
        };
        let [w, x, y, z] = ip;
        *piece = arena
            .add(format_args!("{w}.{x}.{y}.{z}\",\"geo_location\":\"{city}\",\"threat_score\":0."));
    }
    let browser = match system {
        0 => pick(&words::BROWSERS, skew(&mut random, 11)),
        1 => pick(&words::BROWSERS, 11 + skew(&mut random, 7)),
        _ => pick(&words::BROWSERS, 18 + skew(&mut random, 4)),
    };
    let sensor = words::SENSORS
        .get(usize::from(system))
        .map_or("EndpointSensor", |sensors| pick(sensors, skew(&mut random, 4)));
    let offset = pick(&words::CITIES, home).1;
    let (begin, length) = (7 + random.below(4) as i32, 8 + random.below(3) as i32);
    let hours = if service {
        0xff_ffff
    } else {
        (begin..begin + length)
            .map(|local| 1 << (local - i32::from(offset)).rem_euclid(24))
            .fold(0, |hours: u32, hour: u32| hours | hour)
    };
    User {
        name,
        addresses,
        address_count: address_count as u8,
        system,
        profile,
        department: random.below(words::DEPARTMENTS.len() as u32) as u8,
        browser: arena.add(format_args!(",\"metadata\":{{\"user_agent\":\"{browser}\",")),
        sensor: arena.add(format_args!(",\"metadata\":{{\"user_agent\":\"{sensor}\",")),
        hours,
    }
}

/// An element, the number taken modulo the length.
#[expect(clippy::indexing_slicing, reason = "the index is reduced to the length, which is not 0")]
pub(super) fn pick<T: Copy, const N: usize>(list: &[T; N], number: u32) -> T {
    list[number as usize % N]
}

/// From `0..n`, the lower ones more often.
fn skew(random: &mut Random, n: u32) -> u32 {
    random.below(n).min(random.below(n))
}

/// `1 / k^1.05` for k from 1 to `count`.
pub(super) fn zipf(count: u32) -> Vec<f64> {
    // The twentieth root of k by Newton's method from above, in plain arithmetic. The start is
    // above the root because (1 + 1 / (20 j))^20 ≥ 1 + 1 / j.
    let mut root = 1.0_f64;
    (1..=count)
        .map(|k| {
            let k = f64::from(k);
            if k > 1.0 {
                root *= 1.0 + 1.0 / (20.0 * (k - 1.0));
            }
            loop {
                let p2 = root * root;
                let p4 = p2 * p2;
                let p16 = p4 * p4 * (p4 * p4);
                let next = (19.0 * root + k / (p16 * p2 * root)) / 20.0;
                if next >= root {
                    break 1.0 / (k * root);
                }
                root = next;
            }
        })
        .collect()
}

fn activity(user: &User, hour: usize) -> f64 {
    if user.hours >> hour & 1 == 1 { 1.0 } else { OFF_HOURS }
}

/// Factors of users and hours such that over a whole day each user acts as Zipf says, and each hour
/// has the same number of events (iterative proportional fitting).
fn balance(users: &[User]) -> (Vec<f64>, [f64; 24]) {
    let shares = zipf(users.len() as u32);
    let total: f64 = shares.iter().sum();
    let mut row: Vec<f64> = shares.clone();
    let mut column = [1.0; 24];
    for _ in 0..30 {
        for (hour, column) in column.iter_mut().enumerate() {
            let sum: f64 =
                users.iter().zip(&row).map(|(user, row)| row * activity(user, hour)).sum();
            *column = total / 24.0 / sum;
        }
        for ((user, row), share) in users.iter().zip(&mut row).zip(&shares) {
            let sum: f64 =
                column.iter().enumerate().map(|(hour, c)| c * activity(user, hour)).sum();
            *row = share / sum;
        }
    }
    (row, column)
}

/// Draws an index by weight in constant time (Walker's alias method).
#[derive(Debug, Clone)]
pub(super) struct Alias(Vec<(u32, u32)>);

impl Alias {
    #[expect(clippy::indexing_slicing, reason = "all indices are below the common length")]
    fn new(mut weights: Vec<f64>) -> Self {
        let count = weights.len();
        let mean = weights.iter().sum::<f64>() / count as f64;
        weights.iter_mut().for_each(|weight| *weight /= mean);
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..count).partition(|index| weights[*index] < 1.0);
        let mut table: Vec<(u32, u32)> = (0..count as u32).map(|own| (u32::MAX, own)).collect();
        while let (Some(low), Some(high)) = (small.pop(), large.last().copied()) {
            // Of the column of `low`, the part above its weight belongs to `high`.
            table[low] = ((weights[low] * f64::from(u32::MAX)) as u32, high as u32);
            weights[high] -= 1.0 - weights[low];
            if weights[high] < 1.0 {
                large.pop();
                small.push(high);
            }
        }
        Self(table)
    }

    #[inline]
    #[expect(clippy::indexing_slicing, reason = "the product's upper half is below the length")]
    pub(super) fn draw(&self, bits: u64) -> usize {
        let index = (((bits >> 32) * self.0.len() as u64) >> 32) as usize;
        let (own, other) = self.0[index];
        if (bits as u32) <= own { index } else { other as usize }
    }
}
