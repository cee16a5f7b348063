//! `palisade bench crash`.
//!
//! A server process is killed with SIGKILL at random moments while several **lanes** send to it, and
//! started again on the same data directory. A lane is one sender: it sends its requests one after the
//! other, each with an `Idempotency-Key`, and goes on only when a request was answered; what was not
//! answered is sent again, and after each crash the last answered request too, which must bring its
//! first answer and no second copy (L4). Each lane has users and a source of its own, so the order of
//! each user's events is fixed, whatever the lanes do to each other.
//!
//! At the end the rows are compared with what the lanes know to be acknowledged, and then scores and
//! alerts with those of a server that got the same requests in the same order and was left alone. Lanes
//! are a function of `--seed`, moments of death as well (when the kernel delivers the signal is not).
//!
//! | key | meaning |
//! |---|---|
//! | `rounds` | kills |
//! | `acked` | records acknowledged |
//! | `lost` | acknowledged records that SQL does not find |
//! | `doubled` | records that SQL finds more than once |
//! | `unknown` | rows that nobody sent |
//! | `scores_differ` | rows whose anomaly score is not that of the undisturbed run |
//! | `alerts_differ` | alerts that only one of the two runs has, or has more than once |
//! | `answers_differ` | repeated requests that were not answered as they were at first |

mod lane;
mod rows;

use super::child::ServerProcess;
use crate::Outcome;
use crate::server::Failure;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use lane::{Dice, Lane, Place, Sent};
use rows::Rows;
use serde::Serialize;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Kill servers under load and look for what is lost or doubled.
#[derive(Debug, Args)]
pub(crate) struct Crash {
    /// How many times a server is killed.
    #[arg(long, default_value_t = 20)]
    rounds: u32,
    /// Senders at a time.
    #[arg(long, default_value_t = 3)]
    lanes: u32,
    /// Decides what is sent and when servers die.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keep the data in this directory; without it, only what was found wrong is kept.
    #[arg(long, value_name = "DIR")]
    keep: Option<std::path::PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What is printed.
#[derive(Debug, Default, Serialize)]
struct Report {
    rounds: u32,
    acked: u64,
    lost: u64,
    doubled: u64,
    unknown: u64,
    scores_differ: u64,
    alerts_differ: u64,
    answers_differ: u64,
    /// Alerts of the undisturbed run.
    alerts: u64,
    requests: u64,
    /// Requests that were sent again, answered before or not.
    repeats: u64,
    /// From the start of the process until every acknowledged record was visible to SQL.
    ready_p50_ms: f64,
    ready_max_ms: f64,
    seconds: f64,
    seed: u64,
}

/// Small bounds, so that commits, checkpoints, new log segments and trims all happen within a round.
const SETTINGS: [(&str, &str); 7] = [
    ("PALISADE_PIPELINE__CHECKPOINT_EVERY", "500ms"),
    ("PALISADE_PIPELINE__COMMIT", "2MiB"),
    ("PALISADE_PIPELINE__WORKERS", "2"),
    ("PALISADE_LOG__SEGMENT", "1MiB"),
    ("PALISADE_QUERY__TIME", "10m"),
    ("PALISADE_QUERY__ROWS", "100000000"),
    // Dying is no news here.
    ("PALISADE_LOGGING__LEVEL", "error"),
];

/// A start, with its replay, may take this long.
const LONGEST_START: Duration = Duration::from_secs(120);

impl Crash {
    pub(crate) fn run(self) -> Outcome {
        let temporary = tempfile::tempdir()?;
        let root = self.keep.as_deref().unwrap_or(temporary.path());
        let begun = Instant::now();
        let mut report = Report { rounds: self.rounds, seed: self.seed, ..Report::default() };
        eprintln!("palisade: seed {}", self.seed);

        let mut ready = Vec::new();
        let (sent, rows) = self.disturbed(&root.join("disturbed"), &mut ready)?;
        let calm = self.undisturbed(&root.join("undisturbed"), &sent)?;

        for lane in &sent {
            report.acked += lane.ids.len() as u64;
            report.requests += lane.requests;
            report.repeats += lane.repeats;
            report.answers_differ += lane.answers_differ;
        }
        rows.compare_with_ledger(&sent, &mut report);
        rows.compare_with(&calm, &mut report);
        ready.sort_by(f64::total_cmp);
        report.ready_p50_ms = ready.get(ready.len() / 2).copied().unwrap_or(0.0).round();
        report.ready_max_ms = ready.last().copied().unwrap_or(0.0).round();
        report.seconds = (begun.elapsed().as_secs_f64() * 10.0).round() / 10.0;
        if self.json {
            println!("{}", serde_json::to_string(&report)?);
        } else {
            println!("{report:#?}");
        }
        if report.is_fine() {
            return Ok(ExitCode::SUCCESS);
        }
        if self.keep.is_none() {
            eprintln!("palisade: the data is kept in {}", temporary.keep().display());
        }
        Ok(ExitCode::from(1))
    }

    /// The run with the kills: what was acknowledged, and what SQL says in the end.
    fn disturbed(&self, data: &Path, ready: &mut Vec<f64>) -> Result<(Vec<Sent>, Rows), Failure> {
        let bar =
            ProgressBar::new(u64::from(self.rounds)).with_style(ProgressStyle::with_template(
                "{elapsed_precise} {wide_bar} {pos}/{len} kills, {eta} left",
            )?);
        let mut dice = Dice::new(self.seed ^ 0x6b69_6c6c);
        let place = Place::default();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let lanes: Vec<_> = (0..self.lanes.max(1))
                .map(|number| {
                    let lane = Lane::new(self.seed, number, self.lanes.max(1));
                    let (place, stop) = (&place, &stop);
                    scope.spawn(move || lane.send(place, |_| stop.load(Ordering::Acquire), true))
                })
                .collect();
            let mut last = || -> Result<ServerProcess, Failure> {
                for _ in 0..self.rounds {
                    // One in four dies while it starts and replays.
                    if dice.below(4) == 0 {
                        let age = format!("{}ms", 200 + dice.below(800));
                        let after = Duration::from_millis(dice.below(250));
                        ServerProcess::start_and_kill(data, &settings(&age), after)?;
                    } else {
                        let age = format!("{}ms", 200 + dice.below(800));
                        let after = Duration::from_millis(50 + dice.below(1450));
                        let server = started(data, &age, &place, ready)?;
                        pause(after);
                        place.set(None);
                        // Dropping kills.
                        drop(server);
                    }
                    bar.inc(1);
                }
                started(data, "500ms", &place, ready)
            };
            let server = last();
            stop.store(true, Ordering::Release);
            if server.is_err() {
                place.give_up();
            }
            let sent: Vec<Result<Sent, Failure>> = lanes.into_iter().map(joined).collect();
            bar.finish_and_clear();
            let server = server?;
            let sent = sent.into_iter().collect::<Result<Vec<_>, _>>()?;
            server.wait_visible(LONGEST_START)?;
            let rows = Rows::read(&server)?;
            server.stop()?;
            Ok((sent, rows))
        })
    }

    /// The same requests to a server that is left alone.
    fn undisturbed(&self, data: &Path, sent: &[Sent]) -> Result<Rows, Failure> {
        let server = started(data, "500ms", &Place::default(), &mut Vec::new())?;
        let place = Place::default();
        place.set(Some(server.address));
        std::thread::scope(|scope| {
            let lanes: Vec<_> = (0_u32..)
                .zip(sent)
                .map(|(number, sent)| {
                    let lane = Lane::new(self.seed, number, self.lanes.max(1));
                    let place = &place;
                    scope.spawn(move || lane.send(place, |done| done == sent.requests, false))
                })
                .collect();
            lanes.into_iter().map(joined).collect::<Result<Vec<_>, _>>()
        })?;
        server.wait_visible(LONGEST_START)?;
        let rows = Rows::read(&server)?;
        server.stop()?;
        Ok(rows)
    }
}

fn joined(
    thread: std::thread::ScopedJoinHandle<'_, Result<Sent, Failure>>,
) -> Result<Sent, Failure> {
    thread.join().unwrap_or_else(|_| Err("a sender panicked".into()))
}

fn settings(commit_age: &str) -> Vec<(&str, &str)> {
    let mut settings = SETTINGS.to_vec();
    settings.push(("PALISADE_PIPELINE__COMMIT_AGE", commit_age));
    settings
}

/// Starts a server, tells the lanes where it is, and waits until what was acknowledged is visible.
fn started(
    data: &Path,
    commit_age: &str,
    place: &Place,
    ready: &mut Vec<f64>,
) -> Result<ServerProcess, Failure> {
    let begun = Instant::now();
    let server = ServerProcess::start_with(data, &settings(commit_age))?;
    place.set(Some(server.address));
    server.wait_ready(LONGEST_START)?;
    ready.push(begun.elapsed().as_secs_f64() * 1e3);
    Ok(server)
}

/// Waits all of a time.
fn pause(time: Duration) {
    let end = Instant::now() + time;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::park_timeout(left);
    }
}

impl Report {
    fn is_fine(&self) -> bool {
        self.lost + self.doubled + self.unknown == 0
            && self.scores_differ + self.alerts_differ + self.answers_differ == 0
    }
}
