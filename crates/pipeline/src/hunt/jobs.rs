//! Hunts that are asked for and worked off one after the other, beside everything else and at its lowest priority.
//!
//! A hunt is a row of the catalog; the rules that it brings and the alerts that it found are files below
//! `hunts/<id>/` of the data directory. One that waits when the process ends waits at the next start; one that runs then
//! is shown as interrupted and is not run again by itself: had it brought the process down, it would again.

pub use super::job::{
    HuntFigures, HuntJob, HuntRequest, HuntRules, JobError, JobOptions, ResultPage,
};

use super::gather::HuntError;
use super::history::{Hunt, HuntReport, Progress};
use super::results;
use crate::clock::Clock;
use crate::rules::{Books, RuleFile, RuleTexts, Rules};
use palisade_catalog::{Catalog, CatalogError, HuntRecord, HuntState};
use palisade_event::TenantId;
use palisade_event::schema::EVENTS;
use palisade_table::Tables;
use palisade_table::provider::ReadCache;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The name of the file with the rules that a hunt brought.
const RULES: &str = "rules.json";
/// The name of the file with what it found.
const RESULTS: &str = "results";
/// Rules that a report counts, those with the most alerts.
const COUNTED: usize = 5_000;

/// The hunt that runs.
#[derive(Debug)]
struct Running {
    id: String,
    progress: Arc<Progress>,
    since: Instant,
}

/// What the hunts of a server need of it.
pub struct JobFoundations {
    /// Where they are noted.
    pub catalog: Catalog,
    /// What is hunted over.
    pub tables: Arc<Tables>,
    /// Compiled sets of rules.
    pub books: Arc<Books>,
    /// The hash of the set in force.
    pub in_force: Box<dyn Fn() -> String + Send + Sync>,
    /// For the times of hunts.
    pub clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for JobFoundations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JobFoundations").finish_non_exhaustive()
    }
}

/// The hunts of a server. Cheap to clone.
#[derive(Clone)]
pub struct Hunts(Arc<Inner>);

struct Inner {
    base: JobFoundations,
    cache: Arc<ReadCache>,
    options: JobOptions,
    directory: PathBuf,
    wake: tokio::sync::Notify,
    running: Mutex<Option<Running>>,
    stopping: AtomicBool,
    /// Held while the row and the files of a hunt are made or removed, and while one is begun.
    one: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Hunts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hunts").field("directory", &self.0.directory).finish_non_exhaustive()
    }
}

impl Hunts {
    /// The hunts of a data directory; [`Hunts::work`] runs them.
    #[must_use]
    pub fn new(base: JobFoundations, data: &Path, options: JobOptions) -> Self {
        Self(Arc::new(Inner {
            base,
            cache: ReadCache::new(ReadCache::DEFAULT_BYTES / 2),
            options,
            directory: data.join("hunts"),
            wake: tokio::sync::Notify::new(),
            running: Mutex::new(None),
            stopping: AtomicBool::new(false),
            one: tokio::sync::Mutex::new(()),
        }))
    }

    /// Notes a hunt. `own` are the rules that it brings.
    ///
    /// # Errors
    /// [`JobError`]; nothing is noted then.
    pub async fn submit(
        &self,
        tenant: &TenantId,
        actor: &str,
        request: &HuntRequest,
        own: Option<Vec<RuleFile>>,
    ) -> Result<HuntJob, JobError> {
        let Inner { base, options, .. } = &*self.0;
        if self.0.stopping.load(Ordering::Acquire) {
            return Err(JobError::Stopped);
        }
        if request.from.is_some_and(|from| from >= request.to) {
            return Err(JobError::Invalid("from must lie before to".to_owned()));
        }
        let bytes = match &own {
            Some(own) => {
                Some(serde_json::to_vec(own).map_err(|e| JobError::Invalid(e.to_string()))?)
            }
            None => None,
        };
        if let Some(bytes) = bytes.as_ref().filter(|bytes| bytes.len() > options.rule_bytes) {
            let most = options.rule_bytes;
            let reason = format!("rules of {} bytes, at most {most} are taken", bytes.len());
            return Err(JobError::Invalid(reason));
        }
        let text = serde_json::to_string(request).map_err(|e| JobError::Invalid(e.to_string()))?;
        let now = base.clock.now();
        let one = self.0.one.lock().await;
        let id = base.catalog.create_hunt(tenant, actor, &text, options.waiting, now).await?;
        if let Some(bytes) = bytes {
            let directory = self.0.directory.join(&id);
            let written = blocking(move || {
                std::fs::create_dir_all(&directory)?;
                std::fs::write(directory.join(RULES), bytes)
            });
            if let Err(source) = written.await? {
                let why = ("", "its rules could not be kept");
                base.catalog.end_hunt(&id, HuntState::Failed, why, now).await?;
                return Err(JobError::Io { what: format!("the rules of hunt {id}"), source });
            }
        }
        drop(one);
        self.0.wake.notify_one();
        self.get(tenant, &id).await
    }

    /// The hunts of a tenant, the newest first.
    ///
    /// # Errors
    /// [`JobError::Catalog`].
    pub async fn list(&self, tenant: &TenantId) -> Result<Vec<HuntJob>, JobError> {
        let records = self.0.base.catalog.hunts(Some(tenant)).await?;
        records.into_iter().map(|record| self.shown(record)).collect()
    }

    /// A hunt of a tenant.
    ///
    /// # Errors
    /// [`JobError::Catalog`], also for an id that the tenant has no hunt of.
    pub async fn get(&self, tenant: &TenantId, id: &str) -> Result<HuntJob, JobError> {
        self.shown(self.0.base.catalog.hunt(tenant, id).await?)
    }

    /// Ends a hunt; one that is over is forgotten with what it found.
    ///
    /// # Errors
    /// [`JobError::Catalog`], also for an id that the tenant has no hunt of.
    pub async fn cancel(&self, tenant: &TenantId, id: &str) -> Result<(), JobError> {
        let base = &self.0.base;
        let record = base.catalog.hunt(tenant, id).await?;
        if record.state.is_over() {
            return self.forget(&record.id).await;
        }
        base.catalog.end_hunt(id, HuntState::Cancelled, ("", ""), base.clock.now()).await?;
        if let Some(running) = self.0.running.lock().as_ref().filter(|running| running.id == id) {
            running.progress.cancelled.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Results of a hunt that is done, from number `from` on.
    ///
    /// # Errors
    /// [`JobError`].
    pub async fn results(
        &self,
        tenant: &TenantId,
        id: &str,
        from: u64,
        limit: u64,
    ) -> Result<ResultPage, JobError> {
        let record = self.0.base.catalog.hunt(tenant, id).await?;
        if record.state != HuntState::Done {
            return Err(JobError::NoResults(record.state.name()));
        }
        let path = self.0.directory.join(id).join(RESULTS);
        let read = blocking(move || results::read(&path, from, limit)).await?;
        let (alerts, next) = read
            .map_err(|source| JobError::Io { what: format!("the results of hunt {id}"), source })?;
        Ok(ResultPage { alerts, next })
    }

    /// Works off what is asked for until [`Hunts::stop`]. What ran when an earlier process ended is noted as interrupted.
    pub async fn work(self) {
        let base = &self.0.base;
        if let Err(error) = base.catalog.interrupt_hunts(base.clock.now()).await {
            tracing::warn!(%error, "can't see what hunts an earlier process left");
        }
        while !self.0.stopping.load(Ordering::Acquire) {
            if let Err(error) = self.clean().await {
                tracing::warn!(%error, "old hunts could not be removed");
            }
            let begun = {
                let _one = self.0.one.lock().await;
                base.catalog.begin_hunt(base.clock.now()).await
            };
            match begun {
                Ok(Some(record)) => {
                    self.run(record).await;
                    continue;
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "can't see what hunts wait"),
            }
            let hour = tokio::time::sleep(Duration::from_secs(3_600));
            tokio::select! {
                () = self.0.wake.notified() => {}
                () = hour => {}
            }
        }
    }

    /// Ends the hunt that runs, if one does, and lets [`Hunts::work`] return.
    pub fn stop(&self) {
        self.0.stopping.store(true, Ordering::Release);
        if let Some(running) = self.0.running.lock().as_ref() {
            running.progress.cancelled.store(true, Ordering::Relaxed);
        }
        self.0.wake.notify_one();
    }

    fn shown(&self, record: HuntRecord) -> Result<HuntJob, JobError> {
        let damaged = |error: serde_json::Error| {
            CatalogError::Damaged(format!("hunt {}: {error}", record.id))
        };
        let request = serde_json::from_str(&record.request).map_err(damaged)?;
        let mut figures = HuntFigures::default();
        if !record.report.is_empty() {
            figures = serde_json::from_str(&record.report).map_err(damaged)?;
        } else if let Some(running) = self.0.running.lock().as_ref()
            && running.id == record.id
        {
            figures = figures_of(&running.progress, running.since);
        }
        Ok(HuntJob { record, request, figures })
    }

    /// Runs a hunt to its end, whatever that is.
    async fn run(&self, record: HuntRecord) {
        let base = &self.0.base;
        let (progress, since) = (Arc::new(Progress::default()), Instant::now());
        *self.0.running.lock() =
            Some(Running { id: record.id.clone(), progress: Arc::clone(&progress), since });
        // Somebody may have cancelled it between the two.
        let still = base.catalog.hunt(&record.tenant, &record.id).await;
        let stopping = self.0.stopping.load(Ordering::Acquire);
        if stopping || still.is_ok_and(|still| still.state.is_over()) {
            progress.cancelled.store(true, Ordering::Relaxed);
        }
        let (jobs, id) = (self.clone(), record.id.clone());
        let (hunted, watched) = (Arc::clone(&progress), Arc::clone(&progress));
        let work = blocking(move || jobs.hunt(&record, &hunted));
        tokio::pin!(work);
        let mut late = false;
        let found = tokio::select! {
            found = &mut work => found,
            () = tokio::time::sleep(self.0.options.longest) => {
                late = true;
                watched.cancelled.store(true, Ordering::Relaxed);
                work.await
            }
        };
        let now = base.clock.now();
        let figures = |found: HuntFigures| serde_json::to_string(&found).unwrap_or_default();
        let so_far = || figures(figures_of(&progress, since));
        let ended =
            match found.unwrap_or_else(|_| Err("it panicked, a defect: report it".to_owned())) {
                Ok(Some(found)) => {
                    let report =
                        figures(HuntFigures { seconds: since.elapsed().as_secs_f64(), ..found });
                    base.catalog.end_hunt(&id, HuntState::Done, (&report, ""), now).await
                }
                Ok(None) if late => {
                    let hours = self.0.options.longest.as_secs() / 3_600;
                    let why = format!("it took more than {hours} hours: hunt over less");
                    base.catalog.end_hunt(&id, HuntState::Failed, (&so_far(), &why), now).await
                }
                Ok(None) if self.0.stopping.load(Ordering::Acquire) => {
                    let why = "the server stopped while it ran: ask for it again";
                    base.catalog.end_hunt(&id, HuntState::Interrupted, (&so_far(), why), now).await
                }
                Ok(None) => {
                    base.catalog.end_hunt(&id, HuntState::Cancelled, (&so_far(), ""), now).await
                }
                Err(why) => {
                    let why: String = why.chars().take(4_096).collect();
                    base.catalog.end_hunt(&id, HuntState::Failed, (&so_far(), &why), now).await
                }
            };
        *self.0.running.lock() = None;
        if let Err(error) = ended {
            tracing::error!(%error, hunt = id, "the end of a hunt could not be noted");
        }
    }

    /// The rules in force; `None` when there are none.
    ///
    /// # Errors
    /// Why they can't be had.
    pub fn in_force(&self) -> Result<Option<Arc<Rules>>, String> {
        self.0.base.books.get(&(self.0.base.in_force)())
    }

    /// Of the rules in force those with these ids, and what their correlations refer to; `None` when there are none.
    ///
    /// # Errors
    /// Why they can't be had, or that none has one of these ids.
    pub fn in_force_only(&self, ids: &BTreeSet<String>) -> Result<Option<Arc<Rules>>, String> {
        let base = &self.0.base;
        let set = (base.in_force)();
        if set.is_empty() {
            return Ok(None);
        }
        let texts = base.books.texts(&set)?;
        let rules = Rules::compile_only(texts, ids);
        if rules.book.is_empty() {
            return Err("none of the rules in force has one of these ids".to_owned());
        }
        Ok(Some(Arc::new(rules)))
    }

    /// The work of a hunt; nothing when it was cancelled.
    fn hunt(
        &self,
        record: &HuntRecord,
        progress: &Progress,
    ) -> Result<Option<HuntFigures>, String> {
        let Inner { base, options, cache, directory, .. } = &*self.0;
        let directory = directory.join(&record.id);
        let request: HuntRequest =
            serde_json::from_str(&record.request).map_err(|error| error.to_string())?;
        let rules = self.rules(&request, &directory)?;
        let Some(rules) = rules else { return Err("there are no rules in force".to_owned()) };
        let refused_rules = rules.book.refused().len() as u64;
        let hunt = Hunt {
            rules,
            tenant: record.tenant.clone(),
            times: request.from.unwrap_or(i64::MIN)..request.to,
            include_late: request.include_late,
            threads: options.threads,
            eager: false,
            limits: options.limits,
        };
        let found = match hunt.run(&base.tables.snapshot(EVENTS), cache, progress) {
            Ok(found) => found,
            Err(HuntError::Cancelled) => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let disk = |error: io::Error| format!("what was found can't be kept: {error}");
        std::fs::create_dir_all(&directory).map_err(disk)?;
        results::write(&directory.join(RESULTS), &found.alerts).map_err(disk)?;
        let HuntReport { alerts, cut, by_rule, rows } = found;
        let all = by_rule.values().sum();
        let mut most: Vec<(String, u64)> = by_rule.into_iter().collect();
        most.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        most.truncate(COUNTED);
        let bytes = progress.bytes.load(Ordering::Relaxed);
        Ok(Some(HuntFigures {
            rows,
            rows_done: rows,
            bytes,
            bytes_done: bytes,
            seconds: 0.0,
            matches: progress.matches.load(Ordering::Relaxed),
            alerts: all,
            results: alerts.len() as u64,
            cut,
            by_rule: most.into_iter().collect(),
            refused_rules,
        }))
    }

    fn rules(&self, request: &HuntRequest, directory: &Path) -> Result<Option<Arc<Rules>>, String> {
        match &request.rules {
            HuntRules::InForce => self.in_force(),
            HuntRules::Ids(ids) => self.in_force_only(ids),
            HuntRules::Own => {
                let bytes = std::fs::read(directory.join(RULES))
                    .map_err(|error| format!("its rules can't be read: {error}"))?;
                let files = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
                let texts = RuleTexts::of_files(files).map_err(|error| error.to_string())?;
                let rules = Rules::compile(texts);
                if rules.book.is_empty() {
                    let why = rules.book.refused().first().map(ToString::to_string);
                    return Err(format!("no rule could be taken: {}", why.unwrap_or_default()));
                }
                Ok(Some(Arc::new(rules)))
            }
        }
    }

    /// Removes hunts beyond what is kept, and files that belong to none.
    async fn clean(&self) -> Result<(), JobError> {
        let Inner { base, options, directory, .. } = &*self.0;
        let oldest = base.clock.now().saturating_sub(options.kept_for);
        let _one = self.0.one.lock().await;
        let mut of_tenant: BTreeMap<TenantId, usize> = BTreeMap::new();
        let mut known = BTreeSet::new();
        for record in base.catalog.hunts(None).await? {
            if record.state.is_over() {
                let kept = of_tenant.entry(record.tenant.clone()).or_default();
                *kept += 1;
                if *kept > options.kept || record.ended_at.is_some_and(|ended| ended < oldest) {
                    self.forget(&record.id).await?;
                    continue;
                }
            }
            known.insert(record.id);
        }
        let directory = directory.clone();
        let removed = blocking(move || remove_others(&directory, &known)).await?;
        removed.map_err(|source| JobError::Io { what: "files of old hunts".to_owned(), source })
    }

    async fn forget(&self, id: &str) -> Result<(), JobError> {
        self.0.base.catalog.forget_hunt(id).await?;
        let directory = self.0.directory.join(id);
        match blocking(move || std::fs::remove_dir_all(directory)).await? {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(JobError::Io { what: format!("the files of hunt {id}"), source: error })
            }
            _ => Ok(()),
        }
    }
}

fn figures_of(progress: &Progress, since: Instant) -> HuntFigures {
    HuntFigures {
        rows: progress.rows.load(Ordering::Relaxed),
        rows_done: progress.rows_done.load(Ordering::Relaxed),
        bytes: progress.bytes.load(Ordering::Relaxed),
        bytes_done: progress.bytes_done.load(Ordering::Relaxed),
        seconds: since.elapsed().as_secs_f64(),
        matches: progress.matches.load(Ordering::Relaxed),
        ..HuntFigures::default()
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JobError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| JobError::Stopped)
}

/// Removes the directories of hunts that nobody knows: what a crash left behind.
fn remove_others(directory: &Path, known: &BTreeSet<String>) -> io::Result<()> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let is_hunt = name.to_str().is_some_and(|name| {
            name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
        });
        if is_hunt && !name.to_str().is_some_and(|name| known.contains(name)) {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}
