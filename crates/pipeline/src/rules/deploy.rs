//! Putting a set of rules together and in force: the files of the configuration, what was deployed, and what tenants
//! changed.
//!
//! What was deployed and changed stands in the catalog first; the set is then put together from all of it, kept, and
//! put in force by an intent and its control record (C1). A crash in between leaves what stands in the catalog, from
//! which the next start puts the set together again. A rule that can't be taken is left out by name.

mod settings;

use super::{Books, INSTALLATION, Part, RuleFile, RuleTexts, Rules, TenantRules};
use crate::activate::Activator;
use crate::control::{BackfillWanted, ControlError, RULES, RulesInForce};
use crate::error::PipelineError;
use palisade_catalog::{Catalog, CatalogError};
use palisade_event::ErrorClass;
use palisade_sigma::correlation::Correlation;
use palisade_sigma::load::parts;
use palisade_sigma::{Book, Kind, Refusal};
use parking_lot::Mutex;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The kind under which the catalog keeps what was deployed, by owner.
const DEPLOYED: &str = "deployed_rules";
/// The kind under which the catalog keeps what tenants have changed, by tenant.
const TENANT_RULES: &str = "tenant_rules";
/// What the documents of an owner are called in messages: this and their id.
const NAME: &str = "deployed:";
/// Documents and bytes that an owner may have deployed, and bytes of all owners together.
const MOST_DOCUMENTS: usize = 10_000;
const MOST_BYTES: usize = 16 << 20;
const MOST_BYTES_OF_ALL: usize = 128 << 20;

/// Why something was not put in force.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// There is no such rule or exception.
    #[error("there is no {what} '{name}'; {hint}")]
    Unknown {
        /// What was looked for.
        what: &'static str,
        /// Under which name.
        name: String,
        /// What to do.
        hint: String,
    },
    /// The request can't be followed.
    #[error("{reason}; {hint}")]
    Invalid {
        /// Why not.
        reason: String,
        /// What to do.
        hint: &'static str,
    },
    /// A document is wrong.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// Catalog or log.
    #[error("{0}; what is noted of it comes into force as soon as they work again: ask again then")]
    Pipeline(#[from] PipelineError),
}

impl DeployError {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Unknown { .. } | Self::Invalid { .. } | Self::Refused(_) => ErrorClass::Permanent,
            Self::Pipeline(error) => error.class(),
        }
    }
}

impl From<CatalogError> for DeployError {
    fn from(error: CatalogError) -> Self {
        Self::Pipeline(error.into())
    }
}

impl From<ControlError> for DeployError {
    fn from(error: ControlError) -> Self {
        Self::Pipeline(error.into())
    }
}

/// What is to be read of history for documents that are deployed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backfill {
    /// Records with an event time from here on, microseconds since the epoch; without it, all.
    pub from: Option<i64>,
}

/// A set that was put together.
#[derive(Debug, Default)]
pub struct Current {
    /// Its hash; empty where there is no rule.
    pub set: String,
    /// Its texts.
    pub texts: RuleTexts,
    /// Compiled; none where there is no rule.
    pub rules: Option<Arc<Rules>>,
    /// The generation of its activation.
    pub generation: u64,
}

/// What became of documents that were to be deployed.
#[derive(Debug, Default)]
pub struct Deployed {
    /// The ids of those that are new or changed.
    pub taken: Vec<String>,
    /// The ids of those that were deployed already.
    pub unchanged: Vec<String>,
    /// Those that can't be taken.
    pub refused: Vec<Refusal>,
    /// Documents of others that were loaded before and are not any more, for example because a correlation's rule has
    /// another name now.
    pub broken: Vec<Refusal>,
}

type Hook = Box<dyn Fn(&Rules) + Send + Sync>;

/// Puts sets of rules together and in force. One change is made at a time.
pub struct Deployer {
    catalog: Catalog,
    books: Arc<Books>,
    /// None where no server runs: what is changed comes into force at the next start.
    activator: Option<Arc<Activator>>,
    /// The files of the configuration.
    files: tokio::sync::Mutex<Arc<Part>>,
    current: Mutex<Arc<Current>>,
    hook: Mutex<Option<Hook>>,
    /// What stands in the catalog may not have been put together.
    stale: AtomicBool,
}

impl fmt::Debug for Deployer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deployer").finish_non_exhaustive()
    }
}

/// The name under which the catalog keeps what an owner deployed.
fn kept_name(owner: &str) -> String {
    if owner == INSTALLATION { "installation".to_owned() } else { format!("tenant:{owner}") }
}

fn owner_of(name: &str) -> &str {
    name.strip_prefix("tenant:").unwrap_or(INSTALLATION)
}

/// The id of a deployed document.
#[must_use]
pub fn deployed_id(file: &str) -> Option<&str> {
    file.strip_prefix(NAME)
}

fn is_of(refusal: &Refusal, owner: &str) -> bool {
    refusal.owner.as_deref().unwrap_or(INSTALLATION) == owner
}

/// A document that is to be deployed.
struct Candidate {
    /// Where it stands, for messages.
    file: String,
    before: u64,
    id: String,
    text: String,
}

impl Candidate {
    /// A refusal of it, told in the lines of its file.
    fn refusal(&self, of: Refusal) -> Refusal {
        let line = of.line.unwrap_or(1) + self.before;
        Refusal { file: Arc::from(self.file.as_str()), line: Some(line), ..of }
    }

    fn refused(&self, owner: &str, reason: &str, hint: &str) -> Refusal {
        self.refusal(Refusal {
            kind: Kind::Refused,
            owner: (owner != INSTALLATION).then(|| Arc::from(owner)),
            file: Arc::from(""),
            line: None,
            rule: Some(self.id.clone()),
            reason: reason.to_owned(),
            hint: hint.to_owned(),
        })
    }
}

impl Deployer {
    /// A deployer over what the catalog keeps. Nothing is in force before [`Deployer::set_files`].
    #[must_use]
    pub fn new(catalog: Catalog, books: Arc<Books>, activator: Option<Arc<Activator>>) -> Self {
        Self {
            catalog,
            books,
            activator,
            files: tokio::sync::Mutex::default(),
            current: Mutex::default(),
            hook: Mutex::default(),
            stale: AtomicBool::new(false),
        }
    }

    /// The set that was put together last.
    #[must_use]
    pub fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.lock())
    }

    /// Calls `hook` with the rules of the current set, and of every one that follows.
    pub fn on_change(&self, hook: impl Fn(&Rules) + Send + Sync + 'static) {
        if let Some(rules) = &self.current().rules {
            hook(rules);
        }
        *self.hook.lock() = Some(Box::new(hook));
    }

    /// The files of the configuration are these now: notes the intent of the set with them. [`Activator::settle`] puts
    /// it in force.
    ///
    /// # Errors
    /// When the catalog fails; the files before stay.
    pub async fn set_files(&self, files: Vec<RuleFile>) -> Result<Arc<Current>, DeployError> {
        let mut held = self.files.lock().await;
        let files = Arc::new(Part::new(files)?);
        let current = self.intend(&files, None).await?;
        *held = files;
        Ok(current)
    }

    /// The files of the configuration are those of the set that was put in force last: for who does not know the
    /// configuration.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn keep_files(&self) -> Result<Arc<Current>, DeployError> {
        let mut held = self.files.lock().await;
        let damaged = |reason: String| ControlError::Damaged(format!("in the catalog: {reason}"));
        if let Some(active) = self.catalog.active(RULES).await?.into_iter().next() {
            let content = active.content.unwrap_or_default();
            let now: RulesInForce =
                serde_json::from_slice(&content).map_err(|error| damaged(error.to_string()))?;
            if !now.set.is_empty() {
                let books = Arc::clone(&self.books);
                let read = tokio::task::spawn_blocking(move || books.texts(&now.set)).await;
                let texts = read.map_err(|_| PipelineError::Panicked("rules"))?.map_err(damaged)?;
                *held = texts.files;
            }
        }
        let files = Arc::clone(&held);
        self.intend(&files, None).await
    }

    /// Puts the set together again where that failed after a change; the caller settles it.
    ///
    /// # Errors
    /// When the catalog fails; it is to be tried again.
    pub async fn try_again(&self) -> Result<(), DeployError> {
        if self.stale.load(Ordering::Acquire) {
            let files = self.files.lock().await;
            self.intend(&files, None).await?;
        }
        Ok(())
    }

    /// The set of these files and what stands in the catalog.
    async fn texts(&self, files: &Arc<Part>) -> Result<RuleTexts, DeployError> {
        let damaged = |error: serde_json::Error| {
            DeployError::from(ControlError::Damaged(format!("in the catalog: {error}")))
        };
        let mut texts = RuleTexts { files: Arc::clone(files), ..RuleTexts::default() };
        for active in self.catalog.active(DEPLOYED).await? {
            let content = active.content.unwrap_or_default();
            let part = Part::new(serde_json::from_slice(&content).map_err(damaged)?)?;
            texts.deployed.insert(owner_of(&active.name).to_owned(), Arc::new(part));
        }
        for active in self.catalog.active(TENANT_RULES).await? {
            let content = active.content.unwrap_or_default();
            let changed: TenantRules = serde_json::from_slice(&content).map_err(damaged)?;
            if !changed.is_empty() {
                texts.tenants.insert(active.name, changed);
            }
        }
        Ok(texts)
    }

    async fn compile(
        &self,
        texts: RuleTexts,
    ) -> Result<(RuleTexts, String, Arc<Rules>), DeployError> {
        let books = Arc::clone(&self.books);
        let work = tokio::task::spawn_blocking(move || {
            books.compile(&texts).map(|(hash, rules)| (texts, hash, rules))
        });
        let done = work.await.map_err(|_| PipelineError::Panicked("rules"))?;
        Ok(done?)
    }

    async fn intend(
        &self,
        files: &Arc<Part>,
        backfill: Option<BackfillWanted>,
    ) -> Result<Arc<Current>, DeployError> {
        self.stale.store(true, Ordering::Release);
        let texts = self.texts(files).await?;
        let mut current = if texts.is_empty() {
            Current { texts, ..Current::default() }
        } else {
            let (texts, set, rules) = self.compile(texts).await?;
            Current { set, texts, rules: Some(rules), generation: 0 }
        };
        // Where there never were any, there is nothing to take out of force.
        if let Some(activator) = &self.activator
            && (!current.texts.is_empty() || !self.catalog.active(RULES).await?.is_empty())
        {
            current.generation = activator.rules(&current.texts, backfill).await?;
        }
        let current = Arc::new(current);
        let before = std::mem::replace(&mut *self.current.lock(), Arc::clone(&current));
        self.stale.store(false, Ordering::Release);
        let book = |of: &Arc<Current>| of.rules.as_ref().map(|rules| Arc::as_ptr(&rules.book));
        if let (Some(rules), Some(hook)) = (&current.rules, self.hook.lock().as_ref())
            && book(&before) != book(&current)
        {
            hook(rules);
        }
        Ok(current)
    }

    /// Puts the set together and in force: when this returns, its control record is durable.
    async fn put_in_force(
        &self,
        files: &Arc<Part>,
        backfill: Option<BackfillWanted>,
    ) -> Result<Arc<Current>, DeployError> {
        let current = self.intend(files, backfill).await?;
        if let Some(activator) = &self.activator {
            activator.settle().await?;
        }
        Ok(current)
    }

    /// Deploys documents for an owner (a tenant or [`INSTALLATION`]): files with rules, filters and correlations. Those
    /// that are wrong are left out by name. `replace` says whether a document of an id that is deployed takes its place.
    /// When this returns, the set is in force. With `backfill`, history is read for those that are new or changed (B1),
    /// from that event time on, or all of it.
    ///
    /// # Errors
    /// When bounds are passed, when a correlation is to be backfilled that reads another which is not, and when catalog
    /// or log fail.
    pub async fn deploy(
        &self,
        owner: &str,
        files: &[RuleFile],
        (replace, backfill): (bool, Option<Backfill>),
    ) -> Result<(Deployed, Arc<Current>), DeployError> {
        let held = self.files.lock().await;
        let before = self.compile_current(&held).await?;
        let deployed_before = before.0.deployed.get(owner).cloned().unwrap_or_default();
        let mut documents: BTreeMap<String, String> = deployed_before
            .files()
            .iter()
            .map(|file| (file.name.clone(), file.text.clone()))
            .collect();
        let mut deployed = Deployed::default();
        let mut candidates: BTreeMap<String, Candidate> = BTreeMap::new();
        for (at, file) in files.iter().enumerate() {
            for part in parts(&file.text) {
                let id = part.id.unwrap_or_else(|| format!("unreadable {at} {}", part.before));
                let candidate = Candidate {
                    file: file.name.clone(),
                    before: part.before,
                    text: part.text.to_owned(),
                    id,
                };
                let name = format!("{NAME}{}", candidate.id);
                let known = documents.get(&name);
                if known.is_some_and(|known| *known == candidate.text) {
                    deployed.unchanged.push(candidate.id);
                } else if known.is_some() && !replace {
                    deployed.refused.push(candidate.refused(
                        owner,
                        "its id is deployed with another text",
                        "ask for it to be replaced, or give it an id of its own",
                    ));
                } else if let Entry::Vacant(free) = candidates.entry(name) {
                    free.insert(candidate);
                } else {
                    deployed.refused.push(candidate.refused(
                        owner,
                        "its id stands twice in what is to be deployed",
                        "give it an id of its own",
                    ));
                }
            }
        }
        let with = |documents: &mut BTreeMap<String, String>,
                    from: &BTreeMap<String, Candidate>| {
            documents.extend(from.iter().map(|(name, of)| (name.clone(), of.text.clone())));
        };
        let mut trial = documents.clone();
        with(&mut trial, &candidates);
        let (_, rules) = self.trial(&before.0, owner, trial).await?;
        let mut wrong: BTreeSet<String> = BTreeSet::new();
        for refusal in rules.iter().flat_map(|rules| rules.book.refused()) {
            if is_of(refusal, owner)
                && let Some(candidate) = candidates.get(&*refusal.file)
            {
                wrong.insert(refusal.file.to_string());
                deployed.refused.push(candidate.refusal(refusal.clone()));
            }
        }
        candidates.retain(|name, _| !wrong.contains(name));
        if candidates.is_empty() {
            return Ok((deployed, self.current()));
        }
        with(&mut documents, &candidates);
        check_bounds(&before.0, owner, &documents)?;
        let ids = || candidates.values().map(|candidate| candidate.id.clone());
        let backfill = backfill.map(|Backfill { from }| BackfillWanted {
            owner: owner.to_owned(),
            rules: ids().collect(),
            from,
        });
        if let (Some(wanted), Some(rules)) = (&backfill, &rules) {
            check_reads(&rules.book, wanted)?;
        }
        self.keep_deployed(owner, documents).await?;
        let current = self.put_in_force(&held, backfill).await?;
        deployed.taken = candidates.into_values().map(|candidate| candidate.id).collect();
        let known: BTreeSet<String> = before
            .1
            .iter()
            .flat_map(|rules| rules.book.refused())
            .map(ToString::to_string)
            .collect();
        let now = current.rules.iter().flat_map(|rules| rules.book.refused());
        deployed.broken =
            now.filter(|refusal| !known.contains(&refusal.to_string())).cloned().collect();
        Ok((deployed, current))
    }

    /// What is there now, compiled.
    async fn compile_current(
        &self,
        files: &Arc<Part>,
    ) -> Result<(RuleTexts, Option<Arc<Rules>>), DeployError> {
        let texts = self.texts(files).await?;
        if texts.is_empty() {
            return Ok((texts, None));
        }
        let (texts, _, rules) = self.compile(texts).await?;
        Ok((texts, Some(rules)))
    }

    /// The set in which an owner has these documents, compiled and not put in force.
    async fn trial(
        &self,
        texts: &RuleTexts,
        owner: &str,
        documents: BTreeMap<String, String>,
    ) -> Result<(RuleTexts, Option<Arc<Rules>>), DeployError> {
        let mut texts = texts.clone();
        let files = documents.into_iter().map(|(name, text)| RuleFile { name, text }).collect();
        texts.deployed.insert(owner.to_owned(), Arc::new(Part::new(files)?));
        if texts.is_empty() {
            return Ok((texts, None));
        }
        let (texts, _, rules) = self.compile(texts).await?;
        Ok((texts, Some(rules)))
    }

    /// The set with documents of an owner beside what is deployed, in the place of those with the same ids: compiled for
    /// a look and not put in force.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn look(
        &self,
        owner: &str,
        files: &[RuleFile],
    ) -> Result<Option<Arc<Rules>>, DeployError> {
        let held = self.files.lock().await;
        let texts = self.texts(&held).await?;
        let deployed = texts.deployed.get(owner).cloned().unwrap_or_default();
        let known = deployed.files().iter().map(|file| (file.name.clone(), file.text.clone()));
        let mut documents: BTreeMap<String, String> = known.collect();
        for part in files.iter().flat_map(|file| parts(&file.text)) {
            if let Some(id) = part.id {
                documents.insert(format!("{NAME}{id}"), part.text.to_owned());
            }
        }
        Ok(self.trial(&texts, owner, documents).await?.1)
    }

    /// Takes a deployed document away. When this returns, the set without it is in force.
    ///
    /// # Errors
    /// [`DeployError::Unknown`] when the owner has deployed no such document, and when catalog or log fail.
    pub async fn remove(&self, owner: &str, id: &str) -> Result<Arc<Current>, DeployError> {
        let held = self.files.lock().await;
        let texts = self.texts(&held).await?;
        let name = format!("{NAME}{id}");
        let part = texts.deployed.get(owner).cloned().unwrap_or_default();
        if !part.files().iter().any(|file| file.name == name) {
            return Err(DeployError::Unknown {
                what: "deployed rule",
                name: id.to_owned(),
                hint: "rules of files are removed there, and a tenant can disable any rule"
                    .to_owned(),
            });
        }
        let left = part.files().iter().filter(|file| file.name != name);
        let left = left.map(|file| (file.name.clone(), file.text.clone())).collect();
        self.keep_deployed(owner, left).await?;
        self.put_in_force(&held, None).await
    }

    async fn keep_deployed(
        &self,
        owner: &str,
        documents: BTreeMap<String, String>,
    ) -> Result<(), DeployError> {
        let files = documents.into_iter().map(|(name, text)| RuleFile { name, text }).collect();
        let part = Part::new(files)?;
        let name = kept_name(owner);
        let generation = if part.files().is_empty() {
            self.catalog.deactivate(DEPLOYED, &name).await?
        } else {
            self.catalog.activate(DEPLOYED, &name, part.hash(), &part.content()?).await?
        };
        // It is no record of its own: what is in force says the activation that names it.
        Ok(self.catalog.settle_activation(generation).await?)
    }
}

/// What is backfilled reads only records, or correlations that are backfilled with it: the alerts of others are not made
/// again.
fn check_reads(book: &Book, wanted: &BackfillWanted) -> Result<(), DeployError> {
    let is_wanted = |one: &Correlation| wanted.has(one.owner.as_deref(), &one.id);
    let correlations = book.correlations();
    for (_, correlation) in correlations.iter().filter(|(_, one)| is_wanted(one)) {
        let reads = correlation.reads().filter_map(|place| correlations.get(place));
        if let Some(other) = reads.into_iter().find(|other| !is_wanted(other)) {
            return Err(DeployError::Invalid {
                reason: format!(
                    "'{}' reads '{}', which is in force already: its alerts of the past are not made again",
                    correlation.id, other.id
                ),
                hint: "deploy both together under ids of their own, or without a backfill",
            });
        }
    }
    Ok(())
}

fn check_bounds(
    texts: &RuleTexts,
    owner: &str,
    documents: &BTreeMap<String, String>,
) -> Result<(), DeployError> {
    let bytes: usize = documents.values().map(String::len).sum();
    let others = texts.deployed.iter().filter(|(of, _)| *of != owner);
    let others = others.flat_map(|(_, part)| part.files()).map(|file| file.text.len());
    let all = bytes + others.sum::<usize>();
    if documents.len() > MOST_DOCUMENTS || bytes > MOST_BYTES || all > MOST_BYTES_OF_ALL {
        return Err(DeployError::Invalid {
            reason: format!(
                "over {MOST_DOCUMENTS} deployed documents or {} MiB of them, or over {} MiB of all owners",
                MOST_BYTES >> 20,
                MOST_BYTES_OF_ALL >> 20
            ),
            hint: "remove some first",
        });
    }
    Ok(())
}
