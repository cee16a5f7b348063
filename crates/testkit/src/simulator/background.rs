//! What goes on without anybody attacking: people at work, service accounts, machines, visitors of
//! the web site, and the internet's scanners, which are harmless here.

use super::company::{Habit, Person, Role, Stay, city};
use super::random::Random;
use super::records::{Act, Actor};

/// A service account, busy all day.
struct Service {
    name: &'static str,
    weight: f64,
    /// How many addresses it comes from; 0 for pods, whose addresses are ever new.
    addresses: u64,
    city: &'static str,
    failing: f64,
    /// Shares of log-ins, files, processes and connections, in percent; the rest is `ssh`.
    shares: [u64; 4],
}

const FRANKFURT: &str = "DE-HE-Frankfurt";
const ASHBURN: &str = "US-VA-Ashburn";

const SERVICES: [Service; 10] = [
    Service {
        name: "svc-monitor",
        weight: 3.0,
        addresses: 180,
        city: FRANKFURT,
        failing: 0.02,
        shares: [30, 0, 0, 70],
    },
    Service {
        name: "svc-k8s",
        weight: 2.5,
        addresses: 0,
        city: ASHBURN,
        failing: 0.01,
        shares: [10, 0, 40, 50],
    },
    Service {
        name: "svc-ci",
        weight: 2.0,
        addresses: 400,
        city: ASHBURN,
        failing: 0.01,
        shares: [5, 40, 40, 15],
    },
    Service {
        name: "svc-backup",
        weight: 1.5,
        addresses: 6,
        city: FRANKFURT,
        failing: 0.0,
        shares: [1, 89, 0, 10],
    },
    Service {
        name: "svc-mailgw",
        weight: 1.5,
        addresses: 3,
        city: FRANKFURT,
        failing: 0.05,
        shares: [20, 0, 0, 80],
    },
    Service {
        name: "svc-ldap",
        weight: 1.2,
        addresses: 90,
        city: FRANKFURT,
        failing: 0.08,
        shares: [100, 0, 0, 0],
    },
    Service {
        name: "svc-crm",
        weight: 0.8,
        addresses: 25,
        city: ASHBURN,
        failing: 0.01,
        shares: [10, 10, 0, 80],
    },
    Service {
        name: "svc-print",
        weight: 0.6,
        addresses: 60,
        city: FRANKFURT,
        failing: 0.03,
        shares: [20, 80, 0, 0],
    },
    Service {
        name: "svc-deploy",
        weight: 0.5,
        addresses: 4,
        city: FRANKFURT,
        failing: 0.01,
        shares: [5, 25, 40, 10],
    },
    Service {
        name: "svc-report",
        weight: 0.4,
        addresses: 1,
        city: FRANKFURT,
        failing: 0.0,
        shares: [5, 50, 25, 20],
    },
];

/// Names that scanners try.
const GUESSES: [&str; 10] =
    ["root", "admin", "test", "ubuntu", "oracle", "postgres", "git", "pi", "guest", "user"];
/// Pages that scanners ask for; looking is all they do.
const SCANNED: [(&str, u16); 10] = [
    ("/.env", 404),
    ("/wp-login.php", 404),
    ("/phpmyadmin/index.php", 404),
    ("/robots.txt", 200),
    ("/actuator/health", 404),
    ("/.git/config", 404),
    ("/admin/", 403),
    ("/favicon.ico", 200),
    ("/xmlrpc.php", 404),
    ("/server-status", 403),
];

/// Minutes of the day at which deployments begin; they take ten minutes.
const DEPLOYMENTS: [i32; 3] = [10 * 60 + 30, 14 * 60 + 15, 20 * 60];

/// Shares in percent: log-in, file, process, connection, name, audit, web, logon, ssh, administration.
fn shares(role: Role, stay: &Stay) -> [u64; 10] {
    match (role, stay) {
        (_, Stay { device: 1, .. }) => [15, 0, 0, 10, 15, 20, 40, 0, 0, 0],
        (_, Stay { inside: false, .. }) => [10, 0, 20, 25, 20, 5, 20, 0, 0, 0],
        (Role::Clerk, _) => [5, 30, 12, 16, 14, 8, 11, 4, 0, 0],
        (Role::Sales, _) => [6, 18, 8, 20, 16, 14, 14, 4, 0, 0],
        (Role::Developer, _) => [4, 16, 26, 20, 14, 4, 8, 2, 6, 0],
        (Role::Administrator, _) => [6, 14, 18, 20, 10, 5, 8, 6, 10, 3],
        (Role::Support, _) => [6, 18, 10, 16, 14, 20, 12, 4, 0, 0],
    }
}

fn choose(random: &mut Random, shares: &[u64]) -> usize {
    let mut left = random.below(shares.iter().sum());
    for (at, share) in shares.iter().enumerate() {
        if left < *share {
            return at;
        }
        left -= share;
    }
    0
}

/// What somebody at work does next.
pub(super) fn person_act(random: &mut Random, person: &Person, stay: &Stay) -> Act {
    if random.chance(1.0 / 4000.0) {
        // Once in a while everybody sets a mailbox rule or a second factor.
        return Act::Audit { kind: 4 + random.below(2) as u8, ok: true };
    }
    match choose(random, &shares(person.role, stay)) {
        0 => Act::Login { ok: !random.chance(person.failing) },
        1 => Act::File {
            number: random.skewed(30_000, 2) as u32,
            write: random.chance(0.3),
            sensitive: random.chance(0.002),
        },
        2 => Act::Process { number: random.skewed(40_000, 2) as u32 },
        3 => Act::Connection {
            to: random.address(),
            port: if random.chance(0.9) { 443 } else { 80 },
            bytes: 500 + random.skewed(4_000_000, 4),
        },
        4 => Act::Dns { number: random.skewed(9000, 2) as u32 },
        5 => Act::Audit { kind: random.skewed(4, 2) as u8, ok: !random.chance(0.01) },
        6 => web(random),
        7 => Act::Logon {
            ok: !random.chance(person.failing),
            kind: if stay.city < 3 { 2 } else { 10 },
        },
        8 => Act::Ssh { ok: !random.chance(person.failing / 2.0), unknown: false },
        _ => Act::Audit { kind: 6 + random.below(4) as u8, ok: true },
    }
}

pub(super) fn web(random: &mut Random) -> Act {
    let status = match random.below(100) {
        0..90 => 200,
        90..95 => 304,
        95..98 => 302,
        98 => 404,
        _ => 500,
    };
    Act::Web {
        page: random.skewed(20_000, 2) as u32,
        status,
        bytes: 300 + random.skewed(90_000, 3) as u32,
    }
}

/// Everything in the background but people at work: a kind is drawn by weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Machine {
    /// By its place in the list of service accounts.
    Service(usize),
    Host,
    Visitor,
    Scanner,
}

/// The rates of machines at a minute, in shares of the people's mean rate.
pub(super) fn machines(minute: i32) -> impl Iterator<Item = (Machine, f64)> {
    let of_day = minute.rem_euclid(1440);
    let deploying = DEPLOYMENTS.iter().any(|begin| (*begin..begin + 10).contains(&of_day));
    let total: f64 = SERVICES.iter().map(|service| service.weight).sum();
    let services = SERVICES.iter().enumerate().map(move |(at, service)| {
        let bursts = deploying && matches!(service.name, "svc-ci" | "svc-deploy" | "svc-k8s");
        let rate = 0.17 * service.weight / total * if bursts { 6.0 } else { 1.0 };
        (Machine::Service(at), rate)
    });
    // Visitors sleep too, though less at once: from 0.4 to 1.6 round the clock.
    let phase = (f64::from(of_day) - 900.0).abs();
    let awake = 1.6 - 1.2 * (phase.min(1440.0 - phase) / 720.0);
    services.chain([
        (Machine::Host, 0.09),
        (Machine::Visitor, 0.14 * awake),
        (Machine::Scanner, 0.03),
    ])
}

/// What a machine does next.
pub(super) fn machine_act(
    random: &mut Random,
    machine: Machine,
    minute: i32,
    hosts: u32,
) -> (Actor<'static>, Act) {
    let host = random.below(u64::from(hosts.max(1))) as u32;
    let nobody = Actor { user: "", address: 0x0a05_0000 | (host + 10), city: "", agent: 0, host };
    match machine {
        Machine::Service(at) => {
            let Some(service) = SERVICES.get(at) else { return (nobody, Act::Dns { number: 0 }) };
            let address = if service.addresses == 0 {
                // Pods live for about an hour and a half, some dozens at once.
                0x0a2a_0000 | ((minute as u32 / 3 + random.below(30) as u32) & 0xffff)
            } else {
                0x0a14_0000 | ((at as u32) << 10) | random.skewed(service.addresses, 2) as u32
            };
            let actor = Actor { user: service.name, address, city: service.city, agent: 11, host };
            let ok = !random.chance(service.failing);
            let act = match choose(random, &service.shares) {
                0 => Act::Login { ok },
                1 => Act::File {
                    number: random.skewed(30_000, 2) as u32,
                    write: random.chance(0.5),
                    sensitive: false,
                },
                2 => Act::Process { number: 6 + random.below(8) as u32 },
                _ => Act::Connection {
                    to: 0x0a05_0000 | (random.below(200) as u32 + 10),
                    port: 443,
                    bytes: 200 + random.skewed(9_000_000, 5),
                },
            };
            (actor, act)
        }
        Machine::Host => {
            let act = if random.chance(0.6) {
                Act::Dns { number: random.skewed(9000, 2) as u32 }
            } else {
                Act::Connection {
                    to: random.address(),
                    port: 443,
                    bytes: 200 + random.skewed(900_000, 4),
                }
            };
            (nobody, act)
        }
        Machine::Visitor => {
            let visitor = random.skewed(60_000, 2) as u32;
            let address = 0xc612_0000 | (visitor.wrapping_mul(40_503) & 0x1_ffff);
            let agent = if visitor.is_multiple_of(50) { 13 } else { (visitor % 10) as u16 };
            (Actor { user: "", address, city: "", agent, host }, web(random))
        }
        Machine::Scanner => {
            // Some dozens a day, each at work for hours.
            let scanner = (minute as u32 / 240) * 7 + random.below(25) as u32;
            let address = 0xc612_0000 | (scanner.wrapping_mul(91_193).wrapping_add(977) & 0x1_ffff);
            let actor =
                Actor { user: "", address, city: "", agent: 10 + (scanner % 3) as u16, host };
            if scanner.is_multiple_of(2) {
                let (url, status) = random.pick(&SCANNED).copied().unwrap_or_default();
                (actor, Act::Probe { url, status })
            } else {
                let user = random.pick(&GUESSES).copied().unwrap_or_default();
                (Actor { user, ..actor }, Act::Ssh { ok: false, unknown: user != "root" })
            }
        }
    }
}

/// The actor of somebody at work.
pub(super) fn actor<'a>(person: &'a Person, stay: &Stay) -> Actor<'a> {
    let agent = person.agents.get(usize::from(stay.device)).copied().unwrap_or(0);
    Actor {
        user: &person.name,
        address: stay.address,
        city: city(stay.city),
        agent,
        host: person.host,
    }
}

/// Whether somebody is fit to be a victim whose attack must stand out from their history.
pub(super) fn is_steady(person: &Person) -> bool {
    matches!(person.habit, Habit::Regular | Habit::Forgetful)
}
