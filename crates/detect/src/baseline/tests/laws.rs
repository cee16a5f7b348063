//! Laws: batches and workers are invisible, snapshots restore bit for bit, damage is noticed.

use super::*;
use palisade_event::slot::partition_table;
use proptest::prelude::*;

fn rows(seed: u64, count: usize, users: u64) -> Vec<Row> {
    let mut draws = Draws(seed);
    (0..count as i64)
        .map(|i| {
            let user = draws.below(users).min(draws.below(users));
            let wide = if user.is_multiple_of(3) { 60 } else { 4 };
            let late = if draws.chance(0.05) { draws.below(40) as i64 * HOUR } else { 0 };
            let pick = |draws: &mut Draws, n: u64, name: &str| {
                (!draws.chance(0.1))
                    .then(|| format!("{name}{}", draws.below(n).min(draws.below(n))))
            };
            Row {
                time: MONDAY + i * HOUR / 3 - late,
                user: Some(format!("user{user}")).filter(|_| !draws.chance(0.02)),
                address: pick(&mut draws, wide, "10.0.0."),
                location: pick(&mut draws, 2 + wide / 5, "place"),
                event_type: pick(&mut draws, 3 + wide / 3, "type"),
                outcome: pick(&mut draws, 4, "")
                    .map(|text| if text == "3" { "failed" } else { "ok" }.to_owned()),
            }
        })
        .collect()
}

fn options(mode: Mode, per_slot: u16) -> BaselineOptions {
    BaselineOptions {
        mode,
        learning_events: 20,
        threshold: 0.5,
        half_life_micros: 36 * HOUR,
        max_users_per_slot: per_slot,
        full_snapshot_every: 3,
    }
}

/// Everything found, by row of the whole input.
type Findings = Vec<(Option<u32>, Option<(u32, Vec<String>, bool)>)>;

fn run(
    workers: &mut [Baselines],
    rows: &[Row],
    cuts: &[usize],
    (plain, spread): (bool, u16),
    between: &mut dyn FnMut(&mut [Baselines]),
) -> Findings {
    let table = partition_table(16);
    let mut findings = Vec::new();
    let (mut begin, mut cut) = (0, cuts.iter().cycle());
    let (mut out, mut selected, mut routing) = Default::default();
    let routing: &mut Routing = &mut routing;
    while begin < rows.len() {
        let end = (begin + cut.next().copied().unwrap_or(rows.len()).max(1)).min(rows.len());
        let part = batch(&rows[begin..end], plain);
        routing.fill(&part, |_| spread, &table);
        let mut found: Findings = vec![(None, None); end - begin];
        let count = workers.len() as u16;
        for (number, worker) in (0..).zip(workers.iter_mut()) {
            routing.select(|partition| partition % count == number, &mut selected);
            worker.process(&part, &RowsOfSlots { routing, rows: &selected }, &mut out);
            for (row, score) in selected.iter().zip(&out.scores) {
                found[*row as usize].0 = score.map(f32::to_bits);
            }
            for anomaly in &out.anomalies {
                let Components { time, address, location, event_type, failure, streak } =
                    anomaly.components;
                let sum = [time, address, location, event_type, failure, streak]
                    .iter()
                    .fold(0_u32, |sum, part| sum.rotate_left(5) ^ part.to_bits());
                found[anomaly.row as usize].1 =
                    Some((sum, anomaly.reasons.clone(), anomaly.incomplete));
            }
        }
        findings.extend(found);
        between(workers);
        begin = end;
    }
    findings
}

fn one(mode: Mode, per_slot: u16) -> Vec<Baselines> {
    vec![Baselines::new(options(mode, per_slot))]
}

/// The whole state, as a full snapshot without the sequence number and checksum.
fn state(baselines: &mut Baselines) -> Vec<u8> {
    baselines.abort_snapshot();
    baselines.begin_snapshot().unwrap();
    let mut bytes = Vec::new();
    while !baselines.snapshot_step(usize::MAX >> 8, &mut bytes) {}
    let restored = Baselines::restore(baselines.options().clone(), [&bytes[..]]).unwrap();
    // Order users by slot and place: handles are not part of the state.
    let mut users: Vec<String> = Vec::new();
    let (small, large) = restored.store.extent();
    let handles = (0..small).chain((0..large).map(|index| index | 1 << 31));
    let mut restored = restored;
    for handle in handles {
        if let Some(profile) = restored.store.profile(handle) {
            profile.head.changed = 0;
            let head = *profile.head;
            let lists = (profile.address_list(), profile.location_list(), profile.type_list());
            let places = &profile.places[..usize::from(head.address_len)];
            if head.key != 0 {
                users.push(format!(
                    "{:05} {:05} {head:?} {lists:?} {places:?}",
                    head.slot, head.position
                ));
            }
        }
    }
    users.sort();
    for (slot, ring) in restored.store.slots().filter(|(_, users)| users.is_in_use()) {
        users.push(format!("{slot} {} {}", ring.hand, ring.cut));
    }
    users.join("\n").into_bytes()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Batch boundaries, column encodings and the number of workers change no bit.
    #[test]
    fn batches_and_workers_are_invisible(
        seed in any::<u64>(),
        cuts in prop::collection::vec(1_usize..300, 1..6),
        workers in 1_usize..5,
        plain in any::<bool>(),
        streamguard in any::<bool>(),
        per_slot in 1_u16..6,
        spread in prop::sample::select(vec![1_u16, 4, 4096]),
    ) {
        let mode = if streamguard { Mode::StreamGuard } else { Mode::Calibrated };
        let rows = rows(seed, 1500, 25);
        let whole = run(&mut one(mode, per_slot), &rows, &[1500], (false, spread), &mut |_| {});
        let mut several: Vec<_> = (0..workers).flat_map(|_| one(mode, per_slot)).collect();
        let split = run(&mut several, &rows, &cuts, (plain, spread), &mut |_| {});
        prop_assert!(whole.iter().any(|(score, _)| score.is_some()) || spread < 4096);
        prop_assert_eq!(whole, split);
    }

    /// Snapshots taken in steps while batches go on, restored and continued, equal an undisturbed
    /// run: scores, reasons and the whole state.
    #[test]
    fn snapshots_restore_bit_for_bit(
        seed in any::<u64>(),
        cut in 1_usize..120,
        budget in 1_usize..12,
        stop_at in 1_usize..7,
        per_slot in 2_u16..9,
        spread in prop::sample::select(vec![2_u16, 7, 4096]),
    ) {
        let rows = rows(seed, 1800, 30);
        let mut undisturbed = one(Mode::Calibrated, per_slot);
        let expected = run(&mut undisturbed, &rows, &[cut], (false, spread), &mut |_| {});
        let mut worker = one(Mode::Calibrated, per_slot);
        // (rows at begin, bytes, full) of each finished snapshot.
        let mut finished: Vec<(usize, Vec<u8>, bool)> = Vec::new();
        let mut running: Option<(usize, Vec<u8>, bool)> = None;
        let mut done = 0;
        let found = run(&mut worker, &rows, &[cut], (false, spread), &mut |workers| {
            done = (done + cut).min(1800);
            let baselines = &mut workers[0];
            match &mut running {
                Some((_, bytes, _)) => {
                    let complete = baselines.snapshot_step(budget, bytes);
                    finished.extend(running.take_if(|_| complete));
                }
                None if done % 3 != 0 || cut > 40 => {
                    let kind = baselines.begin_snapshot().unwrap();
                    running = Some((done, Vec::new(), kind == SnapshotKind::Full));
                }
                None => {}
            }
        });
        prop_assert_eq!(&found, &expected, "taking snapshots changes nothing");
        prop_assume!(!finished.is_empty());
        let last = stop_at.min(finished.len()) - 1;
        let first = finished[..=last].iter().rposition(|(_, _, full)| *full).unwrap();
        let chain: Vec<&[u8]> = finished[first..=last].iter().map(|(_, bytes, _)| &bytes[..]).collect();
        let at = finished[last].0;
        // Restored onto three workers by slot, and onto one.
        let mut three: Vec<Baselines> = (0..3_u16)
            .map(|number| {
                let mut part = Baselines::new(options(Mode::Calibrated, per_slot));
                let table = partition_table(16);
                part.load(chain.clone(), |slot| table[usize::from(slot.0)] % 3 == number).unwrap();
                part
            })
            .collect();
        let rest = run(&mut three, &rows[at..], &[97], (true, spread), &mut |_| {});
        prop_assert_eq!(&rest[..], &expected[at..]);
        let mut again = Baselines::restore(options(Mode::Calibrated, per_slot), chain).unwrap();
        let rest = run(std::slice::from_mut(&mut again), &rows[at..], &[cut], (false, spread), &mut |_| {});
        prop_assert_eq!(&rest[..], &expected[at..]);
        prop_assert_eq!(state(&mut again), state(&mut undisturbed[0]));
    }

    /// Other settings from one row on (C1): a snapshot before and one behind that row, restored under what
    /// was in force where it was taken and continued, equal the undisturbed run; full slots, where it
    /// matters who counts as learned, too.
    #[test]
    fn other_settings_split_exactly_and_survive_restores(
        seed in any::<u64>(),
        change_at in 200_usize..900,
        learning in prop::sample::select(vec![0_u32, 1, 8, 40]),
        threshold in prop::sample::select(vec![0.3_f32, 0.7]),
        per_slot in 2_u16..9,
        spread in prop::sample::select(vec![2_u16, 7, 4096]),
    ) {
        let rows = rows(seed, 1500, 30);
        let other = |baselines: &mut Baselines| {
            baselines.reconfigure(Mode::StreamGuard, learning, threshold);
        };
        let go = |workers: &mut [Baselines], rows: &[Row]| {
            run(workers, rows, &[61], (false, spread), &mut |_| {})
        };
        let mut undisturbed = one(Mode::Calibrated, per_slot);
        let before = go(&mut undisturbed, &rows[..change_at]);
        let snapshot_before = snapshot(&mut undisturbed[0]);
        other(&mut undisturbed[0]);
        let middle = go(&mut undisturbed, &rows[change_at..1200]);
        let snapshot_behind = snapshot(&mut undisturbed[0]);
        let rest = go(&mut undisturbed, &rows[1200..]);
        let limit = |findings: &Findings, threshold: f32| {
            findings.iter().all(|(score, anomaly)| {
                let score = score.map_or(0.0, f32::from_bits);
                anomaly.is_some() == (thousandths(score) >= thousandths(threshold))
            })
        };
        prop_assert!(limit(&before, 0.5) && limit(&middle, threshold) && limit(&rest, threshold));

        let restored = |options, chain: &[&[u8]]| {
            vec![Baselines::restore(options, chain.iter().copied()).unwrap()]
        };
        let mut first = restored(options(Mode::Calibrated, per_slot), &[&snapshot_before]);
        other(&mut first[0]);
        prop_assert_eq!(&go(&mut first, &rows[change_at..1200]), &middle);
        prop_assert_eq!(&go(&mut first, &rows[1200..]), &rest);
        let changed = BaselineOptions {
            learning_events: learning,
            threshold,
            ..options(Mode::StreamGuard, per_slot)
        };
        let mut second = restored(changed, &[&snapshot_before, &snapshot_behind]);
        prop_assert_eq!(&go(&mut second, &rows[1200..]), &rest);
        prop_assert_eq!(state(&mut second[0]), state(&mut undisturbed[0]));
    }
}

fn small_state() -> Baselines {
    let mut worker = one(Mode::Calibrated, 4);
    run(&mut worker, &rows(5, 400, 5), &[50], (false, 3), &mut |_| {});
    worker.pop().unwrap()
}

fn snapshot(baselines: &mut Baselines) -> Vec<u8> {
    baselines.begin_snapshot().unwrap();
    let mut bytes = Vec::new();
    while !baselines.snapshot_step(2, &mut bytes) {}
    bytes
}

/// Version 1 of the format, byte for byte.
#[test]
fn the_format_is_the_golden_one() {
    let golden = include_bytes!("golden-v1.bin");
    let bytes = snapshot(&mut small_state());
    assert!(bytes == golden, "the format changed: raise its version and keep reading version 1");
    let mut restored = Baselines::restore(options(Mode::Calibrated, 4), [&golden[..]]).unwrap();
    assert_eq!(state(&mut restored), state(&mut small_state()));
}

/// Writes the golden file anew; run by hand when a new version is made.
#[test]
#[ignore = "writes the golden file"]
fn write_golden() {
    let path = "src/baseline/tests/golden-v1.bin";
    std::fs::write(path, snapshot(&mut small_state())).unwrap();
}

#[test]
fn damage_is_noticed_wherever_it_is() {
    let good = snapshot(&mut small_state());
    for at in (0..good.len()).step_by(if cfg!(debug_assertions) { 17 } else { 1 }) {
        let mut bad = good.clone();
        bad[at] ^= 0x41;
        assert!(Baselines::restore(options(Mode::Calibrated, 4), [&bad[..]]).is_err(), "byte {at}");
        assert!(
            Baselines::restore(options(Mode::Calibrated, 4), [&good[..at]]).is_err(),
            "cut {at}"
        );
    }
}

#[test]
fn chains_are_checked() {
    let mut baselines = small_state();
    let (full, second, third) =
        (snapshot(&mut baselines), snapshot(&mut baselines), snapshot(&mut baselines));
    let restore = |chain: &[&Vec<u8>]| {
        let chain = chain.iter().map(|bytes| &bytes[..]);
        Baselines::restore(options(Mode::Calibrated, 4), chain).map(|_| ())
    };
    restore(&[&full, &second, &third]).unwrap();
    assert!(second.len() < full.len() / 3, "nothing changed, so nothing is written");
    assert!(matches!(
        restore(&[&full, &third]),
        Err(BaselineError::Sequence { expected: 2, found: 3 })
    ));
    assert!(matches!(restore(&[&second]), Err(BaselineError::Sequence { .. })));
    let other = BaselineOptions { half_life_micros: 40 * HOUR, ..options(Mode::Calibrated, 4) };
    assert!(matches!(Baselines::restore(other, [&full[..]]), Err(BaselineError::HalfLife(_))));
    let fewer = Baselines::restore(options(Mode::Calibrated, 1), [&full[..]]);
    assert!(matches!(fewer, Err(BaselineError::TooManyUsers(_))));
    assert_eq!(baselines.begin_snapshot().unwrap(), SnapshotKind::Full, "every third is full");
    assert!(matches!(baselines.begin_snapshot(), Err(BaselineError::InProgress)));
    baselines.abort_snapshot();
    assert_eq!(baselines.begin_snapshot().unwrap(), SnapshotKind::Full, "after an abort too");
}
