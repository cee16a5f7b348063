//! The rows of a measurement: made once by a server of this process, used again by later runs.

use crate::config::Config;
use crate::reload::Source;
use crate::server::{Failure, Server, TableSnapshots, open_catalog};
use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use palisade_catalog::Catalog;
use palisade_event::TenantId;
use palisade_event::schema::EVENTS;
use palisade_ingest::submit::{Body, Submission, SubmitError};
use palisade_pipeline::clock::{Clock, SystemClock};
use palisade_query::Snapshots;
use palisade_table::{TableOptions, Tables};
use palisade_testkit::streamguard::{Generator, IdStyle, USERS};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Events of a submission, and how many submissions are on their way at once.
const BATCH: u64 = 2_000;
const FLYING: usize = 16;

/// Says, once all rows are there, what a directory holds.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::commands::bench) struct Mark {
    /// Of which measurement.
    pub(in crate::commands::bench) what: String,
    pub(in crate::commands::bench) rows: u64,
    pub(in crate::commands::bench) seed: u64,
}

/// The settings of a server on this directory that nobody else talks to.
pub(super) fn alone(config: &Config, directory: &Path) -> Config {
    let mut alone = config.clone();
    alone.data = directory.to_owned();
    alone.http.listen = ([127, 0, 0, 1], 0).into();
    alone.http.tls = None;
    alone.listeners.clear();
    alone
}

/// Makes the rows of the published generator, unless the directory has them.
pub(super) fn prepare(
    config: &Config,
    directory: &Path,
    rows: u64,
    seed: u64,
) -> Result<(), Failure> {
    let mark = Mark { what: "query".to_owned(), rows, seed };
    let mut generator = Generator::new(seed, USERS, IdStyle::StreamGuard);
    prepare_with(config, directory, &mark, |count| {
        let mut body = Vec::new();
        generator.fill(usize::try_from(count)?, &mut body);
        Ok(body)
    })
}

/// Makes the rows of a mark, unless the directory has them: `body` gives the next so many events as JSON lines.
pub(in crate::commands::bench) fn prepare_with(
    config: &Config,
    directory: &Path,
    mark: &Mark,
    body: impl FnMut(u64) -> Result<Vec<u8>, Failure>,
) -> Result<(), Failure> {
    let path = directory.join(format!("bench-{}.json", mark.what));
    if let Ok(bytes) = std::fs::read(&path) {
        let found: Mark = serde_json::from_slice(&bytes)?;
        if found == *mark {
            return Ok(());
        }
        return Err(format!(
            "{} holds {} rows of seed {}: name another directory with --data, or ask for these",
            directory.display(),
            found.rows,
            found.seed
        )
        .into());
    }
    if directory.join("catalog.db").exists() {
        return Err(format!(
            "{} holds data of something else, or of a measurement that was broken off: remove it or \
             name another directory with --data",
            directory.display()
        )
        .into());
    }
    let config = alone(config, directory);
    let server = Server::start(&config, Source::default())?;
    let sent = server.block_on(send(&server, mark.rows, body));
    let visible = sent.is_ok() && server.engine().wait_visible(Duration::from_secs(600));
    let drained = server.stop(Duration::from_secs(600));
    sent?;
    if !visible || !drained {
        return Err("the rows could not be committed in time".into());
    }
    compact(&config)?;
    std::fs::write(&path, serde_json::to_vec(mark)?)?;
    Ok(())
}

/// Sends the rows to the gateway, as a front door does.
async fn send(
    server: &Server,
    rows: u64,
    mut body: impl FnMut(u64) -> Result<Vec<u8>, Failure>,
) -> Result<(), Failure> {
    let bar = ProgressBar::new(rows).with_style(ProgressStyle::with_template(
        "{elapsed_precise} {wide_bar} {human_pos}/{human_len} events, {per_sec}, {eta} left",
    )?);
    let mut left = rows;
    let mut flying = JoinSet::new();
    loop {
        while left > 0 && flying.len() < FLYING {
            let count = left.min(BATCH);
            left -= count;
            let body = body(count)?;
            let submission = Submission {
                tenant: TenantId::default_tenant(),
                source: Arc::from("http"),
                domain: None,
                key: None,
                body: Body::Json(Bytes::from(body)),
                peer: None,
            };
            let submit = Arc::clone(server.submit());
            flying.spawn(async move {
                loop {
                    match submit.submit(submission.clone()).await {
                        Err(SubmitError::Busy { retry_after_ms }) => {
                            tokio::time::sleep(Duration::from_millis(retry_after_ms)).await;
                        }
                        Ok(receipt) if receipt.accepted == count => return Ok(count),
                        Ok(receipt) => {
                            return Err(format!("refused: {:?}", receipt.rejected.first()));
                        }
                        Err(error) => return Err(error.to_string()),
                    }
                }
            });
        }
        match flying.join_next().await {
            Some(sent) => bar.inc(sent??),
            None => break,
        }
    }
    bar.finish_and_clear();
    Ok(())
}

/// Merges segments until there is nothing to gain, and deletes what was merged.
fn compact(config: &Config) -> Result<(), Failure> {
    let runtime = runtime()?;
    let catalog = runtime.block_on(open_catalog(config, false))?;
    let epoch = runtime.block_on(catalog.claim_partition(0))?;
    let commits = Arc::new(catalog.blocking(runtime.handle().clone()));
    let options = TableOptions { grace_micros: 0, ..TableOptions::default() };
    let (tables, _) = Tables::open(&config.data, commits, options)?;
    let bar = ProgressBar::new_spinner().with_message("compacting");
    bar.enable_steady_tick(Duration::from_millis(200));
    let clock = SystemClock::new();
    loop {
        let report = tables.maintain(clock.now(), epoch)?;
        if !report.more && report.merged == 0 && report.deleted == 0 {
            break;
        }
    }
    bar.finish_and_clear();
    drop(tables);
    runtime.block_on(catalog.close())?;
    Ok(())
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()
}

/// The tables of a directory, open for reading.
pub(in crate::commands::bench) struct Files {
    /// The tables.
    pub(in crate::commands::bench) tables: Arc<Tables>,
    /// The Parquet files of `events`.
    pub(in crate::commands::bench) paths: Vec<PathBuf>,
    _catalog: Catalog,
    _runtime: tokio::runtime::Runtime,
}

impl Files {
    /// The tables as queries see them.
    pub(super) fn snapshots(&self) -> Arc<dyn Snapshots> {
        Arc::new(TableSnapshots(Arc::clone(&self.tables)))
    }
}

/// Opens the tables of a directory.
pub(in crate::commands::bench) fn open(
    config: &Config,
    directory: &Path,
) -> Result<Files, Failure> {
    let runtime = runtime()?;
    let catalog = runtime.block_on(open_catalog(&alone(config, directory), false))?;
    let commits = Arc::new(catalog.blocking(runtime.handle().clone()));
    let (tables, opened) = Tables::open(directory, commits, TableOptions::default())?;
    if let Some(damaged) = opened.damaged.into_iter().next() {
        return Err(damaged.into());
    }
    let segments = tables.list();
    let events = segments.iter().filter(|file| file.meta.table == EVENTS);
    let paths: Vec<PathBuf> =
        events.map(|file| std::path::absolute(&file.path)).collect::<std::io::Result<_>>()?;
    if paths.is_empty() {
        return Err("there are no events to ask about".into());
    }
    Ok(Files { tables: Arc::new(tables), paths, _catalog: catalog, _runtime: runtime })
}
