//! Keeping lists of indicators: those of the configuration, and those that tenants send.

use super::{INDICATOR_LIST, INDICATOR_SET, IndicatorSet, NamedList};
use crate::activate::Activator;
use crate::control::{ControlError, INDICATORS, IndicatorsInForce};
use crate::error::PipelineError;
use crate::rules::Books;
use palisade_catalog::{Catalog, CatalogError};
use palisade_detect::indicators::{Indicators, LIMITS, Level, List, ListError, ListInfo};
use palisade_event::ErrorClass;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// The longest name of a list, in bytes.
const MAX_NAME: usize = 64;
/// The most lists of a tenant.
const MAX_OF_TENANT: usize = 64;
/// Lists that are being sent or looked for at a time.
const MOST_TURNS: usize = 2;
/// The name of a set within its kind: there is one for all tenants.
const NAME: &str = "default";

/// A list of the configuration, as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configured {
    /// Its name.
    pub name: String,
    /// The level of indicators that bring none.
    pub level: Level,
    /// What stands in its file.
    pub bytes: Vec<u8>,
}

/// A list that is in force or will be soon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListStatus {
    /// What is known of it.
    pub info: ListInfo,
    /// The generation that brings the set that it is in.
    pub generation: u64,
}

/// Why a list was not taken.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// It can't be a list.
    #[error("{0}")]
    List(#[from] ListError),
    /// Its name can't be one.
    #[error("'{0}' can't name a list: use 1 to 64 letters, digits, '-', '_' and '.', not 'match'")]
    Name(String),
    /// No line of it is an indicator.
    #[error("no line of the list is an indicator; {0}")]
    Nothing(String),
    /// A tenant has too many.
    #[error("a tenant may have {MAX_OF_TENANT} lists: delete one, or put some together")]
    TooMany,
    /// A tenant has too many indicators.
    #[error("a tenant's lists may have {most} indicators together, with this one it would be {would}: delete a list", most = LIMITS.indicators)]
    TooManyOwn {
        /// How many there would be.
        would: usize,
    },
    /// There is no such list.
    #[error("there is no list '{0}' of this tenant")]
    Unknown(String),
    /// The pipeline or its catalog failed.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
}

impl WatchError {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Pipeline(error) => error.class(),
            _ => ErrorClass::Permanent,
        }
    }
}

impl From<CatalogError> for WatchError {
    fn from(error: CatalogError) -> Self {
        Self::Pipeline(error.into())
    }
}

impl From<ControlError> for WatchError {
    fn from(error: ControlError) -> Self {
        Self::Pipeline(error.into())
    }
}

/// The lists. One change is made at a time.
#[derive(Debug)]
pub struct Watchlists {
    activator: Arc<Activator>,
    books: Arc<Books>,
    catalog: Catalog,
    one: tokio::sync::Mutex<()>,
    turns: Arc<Semaphore>,
}

/// Whether a list can have this name.
///
/// # Errors
/// [`WatchError::Name`] says what a name is.
pub fn check_name(name: &str) -> Result<(), WatchError> {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    // Of `match` the REST interface has another idea.
    let good = (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(is_letter)
        && name.bytes().any(|byte| byte.is_ascii_alphanumeric())
        && name != "match";
    if good { Ok(()) } else { Err(WatchError::Name(name.chars().take(MAX_NAME).collect())) }
}

impl Watchlists {
    /// The lists of a server.
    #[must_use]
    pub fn new(activator: Arc<Activator>, books: Arc<Books>, catalog: Catalog) -> Self {
        let turns = Arc::new(Semaphore::new(MOST_TURNS));
        Self { activator, books, catalog, one: tokio::sync::Mutex::new(()), turns }
    }

    /// The turns of those who send a list, to keep it or to hold it against stored rows.
    #[must_use]
    pub fn turns(&self) -> &Arc<Semaphore> {
        &self.turns
    }

    /// Notes the intent that these are the lists of the configuration; [`Activator::settle`] puts them in force.
    ///
    /// # Errors
    /// [`WatchError`]; nothing is changed then.
    pub async fn configure(&self, lists: Vec<Configured>) -> Result<(), WatchError> {
        let _one = self.one.lock().await;
        let mut set = self.intended().await?.unwrap_or_default();
        if lists.is_empty() && set.lists.iter().all(|list| list.tenant.is_some()) {
            // Nothing to take out of force; what there is of tenants stays.
            return Ok(());
        }
        set.lists.retain(|list| list.tenant.is_some());
        for list in lists {
            check_name(&list.name)?;
            let hash = self.keep(None, &list.name, &list.bytes).await?;
            let (name, level) = (list.name, list.level.name().to_owned());
            set.lists.push(NamedList { tenant: None, name, level, hash });
        }
        self.put_in_force(set).await?;
        Ok(())
    }

    /// Takes a tenant's list in the place of the one of that name, and puts it in force.
    ///
    /// # Errors
    /// [`WatchError`]; nothing is changed then.
    pub async fn put(
        &self,
        tenant: &str,
        name: &str,
        level: Level,
        bytes: Vec<u8>,
    ) -> Result<ListStatus, WatchError> {
        check_name(name)?;
        let bytes = Arc::new(bytes);
        let read = Arc::clone(&bytes);
        let list = tokio::task::spawn_blocking(move || List::parse(&read)).await;
        let list = list.map_err(|_| PipelineError::Panicked("indicators"))??;
        if list.is_empty() {
            let refused = list.refused().first();
            let why = refused.map(|refused| format!("line {}: {}", refused.line, refused.reason));
            return Err(WatchError::Nothing(why.unwrap_or_else(|| "it is empty".to_owned())));
        }
        let indicators = list.len();
        drop(list);
        let _one = self.one.lock().await;
        // Nobody's lists shall take the room of everybody else's.
        let known = self.lists(tenant).await?;
        let others = known
            .iter()
            .map(|known| &known.info)
            .filter(|info| info.spec.tenant.as_deref() == Some(tenant) && info.spec.name != name);
        let others: usize = others.flat_map(|info| &info.kinds).map(|(_, count)| count).sum();
        if others + indicators > LIMITS.indicators {
            return Err(WatchError::TooManyOwn { would: others + indicators });
        }
        let mut set = self.intended().await?.unwrap_or_default();
        let is_this =
            |list: &NamedList| list.tenant.as_deref() == Some(tenant) && list.name == name;
        set.lists.retain(|list| !is_this(list));
        let own = set.lists.iter().filter(|list| list.tenant.as_deref() == Some(tenant)).count();
        if own >= MAX_OF_TENANT {
            return Err(WatchError::TooMany);
        }
        let hash = self.keep(Some(tenant), name, &bytes).await?;
        let (of, level) = (Some(tenant.to_owned()), level.name().to_owned());
        set.lists.push(NamedList { tenant: of, name: name.to_owned(), level, hash });
        let (generation, ready) = self.put_in_force(set).await?;
        self.settle().await?;
        let info = ready.and_then(|ready| info_of(&ready, Some(tenant), name));
        let info = info.ok_or_else(|| WatchError::Unknown(name.to_owned()))?;
        Ok(ListStatus { info, generation })
    }

    /// Takes a tenant's list out of force.
    ///
    /// # Errors
    /// [`WatchError`]; nothing is changed then.
    pub async fn remove(&self, tenant: &str, name: &str) -> Result<(), WatchError> {
        let _one = self.one.lock().await;
        let mut set = self.intended().await?.unwrap_or_default();
        let before = set.lists.len();
        set.lists.retain(|list| list.tenant.as_deref() != Some(tenant) || list.name != name);
        if set.lists.len() == before {
            return Err(WatchError::Unknown(name.to_owned()));
        }
        self.put_in_force(set).await?;
        self.settle().await
    }

    /// The lists that are for a tenant's rows: its own, and those of the configuration.
    ///
    /// # Errors
    /// [`WatchError::Pipeline`].
    pub async fn lists(&self, tenant: &str) -> Result<Vec<ListStatus>, WatchError> {
        let Some((generation, hash)) = self.intended_hash().await? else { return Ok(Vec::new()) };
        let books = Arc::clone(&self.books);
        let ready = tokio::task::spawn_blocking(move || books.watched(&hash)).await;
        let ready = ready.map_err(|_| PipelineError::Panicked("indicators"))?;
        let ready = ready.map_err(ControlError::Damaged)?;
        let lists = ready.iter().flat_map(|ready| ready.lists());
        let lists = lists
            .filter(|info| info.spec.tenant.as_deref().is_none_or(|own| own == tenant))
            .map(|info| ListStatus { info: info.clone(), generation });
        Ok(lists.collect())
    }

    /// The generation and the hash of the set that is in force or will be.
    async fn intended_hash(&self) -> Result<Option<(u64, String)>, WatchError> {
        let Some(active) = self.catalog.active(INDICATORS).await?.pop() else { return Ok(None) };
        let content = active.content.unwrap_or_default();
        let named: IndicatorsInForce = serde_json::from_slice(&content).map_err(damaged)?;
        Ok((!named.set.is_empty()).then_some((active.generation, named.set)))
    }

    async fn intended(&self) -> Result<Option<IndicatorSet>, WatchError> {
        let Some((_, hash)) = self.intended_hash().await? else { return Ok(None) };
        let content = self.catalog.content(&hash).await?;
        Ok(Some(serde_json::from_slice(&content).map_err(damaged)?))
    }

    /// Keeps the bytes of a list and answers their hash.
    async fn keep(
        &self,
        tenant: Option<&str>,
        name: &str,
        bytes: &[u8],
    ) -> Result<String, WatchError> {
        if bytes.len() > LIMITS.file_bytes {
            let (bytes, most) = (bytes.len(), LIMITS.file_bytes);
            return Err(ListError::TooLarge { bytes, most }.into());
        }
        let hash = hash_of(bytes);
        let name = format!("{}/{name}", tenant.unwrap_or_default());
        let kept = self.catalog.activate(INDICATOR_LIST, &name, &hash, bytes).await?;
        // It is no record of its own: what is in force says the activation of the set that names it.
        self.catalog.settle_activation(kept).await?;
        Ok(hash)
    }

    /// Makes a set ready, keeps it, and notes the intent that it is in force.
    async fn put_in_force(
        &self,
        mut set: IndicatorSet,
    ) -> Result<(u64, Option<Arc<Indicators>>), WatchError> {
        set.lists.sort();
        if set.lists.is_empty() {
            return Ok((self.activator.indicators(String::new()).await?, None));
        }
        let (hash, bytes) = set.content()?;
        let mut contents = Vec::with_capacity(set.lists.len());
        for list in &set.lists {
            contents.push(self.catalog.content(&list.hash).await?);
        }
        let ready = tokio::task::spawn_blocking(move || {
            let lists = set.lists.iter().zip(contents);
            let lists: Result<Vec<_>, ListError> =
                lists.map(|(named, bytes)| Ok((named.spec(), List::parse(&bytes)?))).collect();
            Indicators::build(lists?)
        });
        let ready = ready.await.map_err(|_| PipelineError::Panicked("indicators"))??;
        let ready = Arc::new(ready);
        let kept = self.catalog.activate(INDICATOR_SET, NAME, &hash, &bytes).await?;
        self.catalog.settle_activation(kept).await?;
        self.books.keep_watched(&hash, Arc::clone(&ready));
        tracing::info!(
            lists = ready.lists().len(),
            indicators = ready.len(),
            bytes = ready.memory_bytes(),
            "lists of indicators read"
        );
        for list in ready.lists().iter().filter(|list| list.refused_total > 0) {
            let refused = list.refused.first();
            tracing::warn!(
                list = list.spec.name,
                lines = list.refused_total,
                first = refused.map(|refused| format!("line {}: {}", refused.line, refused.reason)),
                "lines of a list of indicators are not taken"
            );
        }
        Ok((self.activator.indicators(hash).await?, Some(ready)))
    }

    /// Appends the control record; while the disk is nearly full, it is tried again later.
    async fn settle(&self) -> Result<(), WatchError> {
        match self.activator.settle().await {
            Err(error) if error.class() != ErrorClass::Transient => Err(error.into()),
            Err(error) => {
                tracing::warn!(%error, "lists are not in force yet, it is tried again");
                Ok(())
            }
            Ok(_) => Ok(()),
        }
    }
}

fn info_of(ready: &Indicators, tenant: Option<&str>, name: &str) -> Option<ListInfo> {
    let mut lists = ready.lists().iter();
    let list = lists.find(|list| list.spec.tenant.as_deref() == tenant && list.spec.name == name);
    list.cloned()
}

/// The hash of a list's bytes, as [`crate::control::content_hash`] has it of a text.
fn hash_of(bytes: &[u8]) -> String {
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(bytes))
}

fn damaged(error: serde_json::Error) -> WatchError {
    ControlError::Damaged(format!("in the catalog: {error}")).into()
}
