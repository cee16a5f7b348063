//! A server of this build as a child process with its own data directory, and what the system says
//! about it.

use crate::server::Failure;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Linux counts process time in hundredths of a second.
const TICKS_PER_SECOND: f64 = 100.0;

/// A server process; killed when dropped.
pub(crate) struct ServerProcess {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) data: PathBuf,
}

impl ServerProcess {
    /// Starts a server on a free port of loopback and waits until it listens.
    pub(crate) fn start(data: &Path) -> Result<Self, Failure> {
        Self::start_with(data, &[])
    }

    /// The same with further settings, names and values of environment variables.
    pub(crate) fn start_with(data: &Path, settings: &[(&str, &str)]) -> Result<Self, Failure> {
        let mut child = spawn(data, settings)?;
        let out = child.stdout.take().ok_or("the server has no output")?;
        let mut lines = BufReader::new(out).lines();
        let first = match lines.next() {
            Some(line) => line?,
            None => {
                let _ = child.kill();
                let _ = child.wait();
                return Err("the server ended before it listened".into());
            }
        };
        // The rest of what it prints must be read, or it would wait for us one day.
        std::thread::spawn(move || lines.for_each(drop));
        let address = first
            .split("http://")
            .nth(1)
            .and_then(|rest| rest.split(',').next())
            .and_then(|address| address.parse().ok())
            .ok_or_else(|| format!("the server said '{first}'"))?;
        Ok(Self { child, address, data: data.to_owned() })
    }

    /// Starts a server and kills it after a while, whatever it is about.
    pub(crate) fn start_and_kill(
        data: &Path,
        settings: &[(&str, &str)],
        after: Duration,
    ) -> Result<(), Failure> {
        let mut child = spawn(data, settings)?;
        let end = Instant::now() + after;
        while Instant::now() < end {
            std::thread::park_timeout(end.saturating_duration_since(Instant::now()));
        }
        // It must not have ended by itself: a start that fails is what this is looking for.
        let ended = child.try_wait()?;
        let _ = child.kill();
        child.wait()?;
        match ended {
            Some(status) => Err(format!("the server ended by itself with {status}").into()),
            None => Ok(()),
        }
    }

    /// Waits until every record that was ever acknowledged is visible to SQL (M4).
    pub(crate) fn wait_ready(&self, longest: Duration) -> Result<(), Failure> {
        self.wait(longest, is_ready)
    }

    /// Waits until everything in the log is visible to SQL; nothing may be sent meanwhile.
    pub(crate) fn wait_visible(&self, longest: Duration) -> Result<(), Failure> {
        self.wait(longest, |progress| {
            is_ready(progress) && progress.get("lag_entries").is_some_and(|lag| *lag == 0)
        })
    }

    fn wait(
        &self,
        longest: Duration,
        enough: impl Fn(&serde_json::Value) -> bool,
    ) -> Result<(), Failure> {
        let end = Instant::now() + longest;
        loop {
            let progress = self.progress();
            if enough(&progress) {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(
                    format!("the server was not ready after {longest:?}: {progress}").into()
                );
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// What `/readyz` answers; null without an answer.
    fn progress(&self) -> serde_json::Value {
        let url = format!("http://{}/readyz", self.address);
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let text = agent.get(url).call().and_then(|mut answer| answer.body_mut().read_to_string());
        text.ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    }

    /// The value of a metric without labels; 0 when it is not there.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let url = format!("http://{}/metrics", self.address);
        let text = ureq::get(url).call().and_then(|mut answer| answer.body_mut().read_to_string());
        let text = text.unwrap_or_default();
        let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
        text.lines().find_map(value).unwrap_or(0.0)
    }

    /// The generation of the rules in force; null without an answer.
    pub(crate) fn rules_in_force(&self) -> serde_json::Value {
        let url = format!("http://{}/api/v1/config", self.address);
        let text = ureq::get(url).call().and_then(|mut answer| answer.body_mut().read_to_string());
        let config: serde_json::Value =
            text.ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        config.pointer("/rules/generation").cloned().unwrap_or_default()
    }

    /// Tells it to read its configuration and its lists again.
    pub(crate) fn hang_up(&self) -> Result<(), Failure> {
        let id = i32::try_from(self.child.id())?;
        let pid = rustix::process::Pid::from_raw(id).ok_or("the server has no process id")?;
        Ok(rustix::process::kill_process(pid, rustix::process::Signal::HUP)?)
    }

    /// CPU seconds that it has used, in user and system mode.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        cpu_seconds(&self.child.id().to_string())
    }

    /// The most memory that it has held, in bytes.
    pub(crate) fn peak_rss_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib =
            line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    }

    /// Waits until everything sent so far is committed and compaction has caught up: until for three seconds in a row
    /// no file of the tables changed and hardly any CPU was used.
    pub(crate) fn wait_idle(&self, longest: Duration) -> Result<(), Failure> {
        let end = Instant::now() + longest;
        // Ticks go on where correlations have state, so the log's end may never be what is committed.
        let offset = |name: &str| self.progress().get(name).and_then(serde_json::Value::as_u64);
        let sent = offset("log_end");
        let (mut files, mut cpu, mut quiet) = (self.table_files(), self.cpu_seconds(), 0);
        while quiet < 3 {
            if Instant::now() > end {
                return Err(format!("the server was not idle after {longest:?}").into());
            }
            std::thread::park_timeout(Duration::from_secs(1));
            let (new_files, new_cpu) = (self.table_files(), self.cpu_seconds());
            // A commit happens at the latest five seconds after its first row.
            let still = new_files == files
                && new_cpu - cpu < 0.05
                && offset("committed").is_some_and(|committed| Some(committed) >= sent);
            quiet = if still { quiet + 1 } else { 0 };
            (files, cpu) = (new_files, new_cpu);
        }
        Ok(())
    }

    /// Names and sizes of the files of all tables.
    fn table_files(&self) -> Vec<(PathBuf, u64)> {
        let mut files = Vec::new();
        list(&self.data.join("tables"), &mut files);
        files.sort();
        files
    }

    /// Bytes that the tables take on disk, indexes included.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.table_files().iter().map(|(_, bytes)| bytes).sum()
    }

    /// Asks it to stop and waits.
    pub(crate) fn stop(mut self) -> Result<(), Failure> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let status = self.child.wait()?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("the server ended with {status}").into())
        }
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(data: &Path, settings: &[(&str, &str)]) -> std::io::Result<Child> {
    Command::new(std::env::current_exe()?)
        .arg("--data")
        .arg(data)
        .args(["run"])
        .env("PALISADE_HTTP__LISTEN", "127.0.0.1:0")
        .env("PALISADE_LOGGING__LEVEL", "warn")
        .envs(settings.iter().copied())
        .stdout(Stdio::piped())
        .spawn()
}

/// Whether every record that was acknowledged before the start is visible (M4).
fn is_ready(progress: &serde_json::Value) -> bool {
    progress.get("ready").is_some_and(|ready| *ready == true)
}

fn list(directory: &Path, files: &mut Vec<(PathBuf, u64)>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => list(&entry.path(), files),
            Ok(metadata) => files.push((entry.path(), metadata.len())),
            Err(_) => {}
        }
    }
}

/// CPU seconds that a process (`self` is this one) has used, in user and system mode, its ended threads included.
pub(super) fn cpu_seconds(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name in parentheses may hold anything; the 12th and 13th fields after it are the times.
    let after = stat.rsplit(')').next().unwrap_or("");
    let times = after.split_whitespace().skip(11).take(2);
    times.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SECOND
}
