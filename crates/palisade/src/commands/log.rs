//! `palisade log inspect|verify`.

use crate::Outcome;
use crate::config::Config;
use crate::server::check_data;
use clap::{Args, Subcommand};
use palisade_event::time::rfc3339;
use palisade_log::disk::RealDisk;
use std::process::ExitCode;

/// Look at the durable log, without changing it; the server may run meanwhile.
#[derive(Debug, Args)]
pub(crate) struct Log {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Verb {
    /// List the segment files with what is in them.
    Inspect,
    /// List the control records: what came into force where, and which historical loads began and ended.
    Control,
    /// Check every checksum; names file and byte of the first problem. Exit code 1 when there is one.
    Verify,
}

impl Log {
    pub(crate) fn run(self, config: &Config) -> Outcome {
        check_data(&config.data)?;
        let directory = config.data.join("log");
        match self.verb {
            Verb::Inspect => {
                println!(
                    "{:<26} {:>12} {:>12} {:>12} {:>10} {:>8}  PROBLEM",
                    "FILE", "FIRST", "END", "BYTES", "FRAMES", "TICKS"
                );
                let mut bad = false;
                for segment in palisade_log::inspect(&RealDisk, &directory)? {
                    let name = segment.file.file_name().unwrap_or_default().to_string_lossy();
                    let problem = segment
                        .problem
                        .as_ref()
                        .map_or(String::new(), |(byte, what)| format!("at byte {byte}: {what}"));
                    bad |= segment.problem.is_some();
                    println!(
                        "{name:<26} {:>12} {:>12} {:>12} {:>10} {:>8}  {problem}",
                        segment.first.0,
                        segment.end.0,
                        segment.bytes,
                        segment.frames,
                        segment.ticks
                    );
                }
                Ok(ExitCode::from(u8::from(bad)))
            }
            Verb::Control => {
                println!("{:>12}  {:<27} {:<14} WHAT", "OFFSET", "TIME", "KIND");
                palisade_log::controls(&RealDisk, &directory, |offset, clock, kind, body| {
                    println!("{:>12}  {:<27} {kind:<14} {body}", offset.0, rfc3339(clock));
                })?;
                Ok(ExitCode::SUCCESS)
            }
            Verb::Verify => {
                let committed = None;
                let report = palisade_log::verify(&RealDisk, &directory, committed)?;
                println!(
                    "{} segments, {} bytes, entries {} to {}, {} rows: every checksum holds",
                    report.segments, report.bytes, report.start.0, report.end.0, report.rows
                );
                if let Some(tail) = report.tail {
                    println!(
                        "{} bytes behind the last good frame of {} were never acknowledged; the next start cuts them off",
                        tail.bytes,
                        tail.file.display()
                    );
                }
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}
