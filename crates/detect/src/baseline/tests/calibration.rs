//! The stated false-alarm rates hold for users that go on as they always did.

use super::*;

/// How a user behaves, for ever.
struct Habit {
    name: &'static str,
    /// Share of events that begin a session at another address, and at a never seen one.
    switch: f64,
    fresh: f64,
    addresses: u64,
    /// New addresses are at new places.
    roams: bool,
    types: u64,
    failing: f64,
    hours: std::ops::Range<i64>,
}

const HABITS: [Habit; 6] = [
    Habit {
        name: "clerk",
        switch: 0.01,
        fresh: 0.0,
        addresses: 2,
        roams: false,
        types: 5,
        failing: 0.01,
        hours: 8..17,
    },
    Habit {
        name: "traveller",
        switch: 0.02,
        fresh: 0.005,
        addresses: 3,
        roams: true,
        types: 5,
        failing: 0.02,
        hours: 7..21,
    },
    Habit {
        name: "service",
        switch: 1.0,
        fresh: 0.0,
        addresses: 2000,
        roams: false,
        types: 3,
        failing: 0.05,
        hours: 0..24,
    },
    Habit {
        name: "rotating",
        switch: 0.3,
        fresh: 0.3,
        addresses: 1,
        roams: false,
        types: 8,
        failing: 0.1,
        hours: 0..24,
    },
    Habit {
        name: "forgetful",
        switch: 0.05,
        fresh: 0.002,
        addresses: 4,
        roams: false,
        types: 12,
        failing: 0.3,
        hours: 9..18,
    },
    Habit {
        name: "curious",
        switch: 0.05,
        fresh: 0.001,
        addresses: 4,
        roams: true,
        types: 40,
        failing: 0.02,
        hours: 20..24,
    },
];

/// Events of one user over a number of days.
fn life(habit: &Habit, user: &str, days: i64, draws: &mut Draws) -> Vec<Row> {
    let (mut address, mut place, mut fresh) = (0, 0, 0);
    let mut rows = Vec::new();
    for day in 0..days {
        for hour in habit.hours.clone() {
            for i in 0..20 {
                if draws.chance(habit.fresh) {
                    fresh += 1;
                    address = 1_000_000 + fresh;
                    place = if habit.roams { fresh } else { 0 };
                } else if draws.chance(habit.switch) {
                    address = draws.below(habit.addresses);
                    place = if habit.addresses < 10 { address } else { 0 };
                }
                let kind = draws.below(habit.types).min(draws.below(habit.types));
                let time = MONDAY + (day * 24 + hour) * HOUR + i * HOUR / 20;
                let (address, place) = (format!("a{address}"), format!("p{place}"));
                rows.push(row(
                    time,
                    user,
                    &address,
                    &place,
                    &format!("k{kind}"),
                    !draws.chance(habit.failing),
                ));
            }
        }
    }
    rows
}

/// Shares of scored events that reach 0.7, 0.8 and 0.9.
fn rates(mode: Mode, habit: &Habit) -> ([f64; 3], usize) {
    let mut draws = Draws(42);
    let (mut reached, mut scored) = ([0_usize; 3], 0_usize);
    let users = if cfg!(debug_assertions) { 4 } else { 40 };
    for user in 0..users {
        let rows = life(habit, &format!("u{user}"), 40, &mut draws);
        let mut baselines = Baselines::new(BaselineOptions { mode, ..BaselineOptions::default() });
        for score in process(&mut baselines, &rows).scores.into_iter().flatten() {
            scored += 1;
            for (count, threshold) in reached.iter_mut().zip([0.7, 0.8, 0.9]) {
                *count += usize::from(score >= threshold);
            }
        }
    }
    (reached.map(|count| count as f64 / scored as f64), scored)
}

#[test]
fn false_alarms_stay_below_the_stated_rates() {
    for habit in &HABITS {
        let (found, scored) = rates(Mode::Calibrated, habit);
        let (documented, _) = rates(Mode::StreamGuard, habit);
        println!(
            "{:10} {scored} events: calibrated {found:.6?} streamguard {documented:.6?}",
            habit.name
        );
        for (found, stated) in found.iter().zip([1e-3, 1e-4, 1e-5]) {
            // Two events of slack: these are counts.
            assert!(
                *found <= stated + 2.0 / scored as f64,
                "{}: {found} above {stated}",
                habit.name
            );
        }
    }
    let service = HABITS.iter().find(|habit| habit.name == "service").unwrap();
    assert!(rates(Mode::StreamGuard, service).0[0] < 1.0);
}

#[test]
fn scores_say_their_probability() {
    use crate::baseline::calibrated::{level_of, score};
    for (level, expected) in
        [(0.0, 0.0), (3.0, 0.7), (4.0, 0.8), (5.0, 0.9), (6.0, 1.0), (9.0, 1.0)]
    {
        assert!((score(level) - expected).abs() < 1e-6);
        assert!(level > 6.0 || (level_of(expected) - level).abs() < 1e-4);
    }
}
