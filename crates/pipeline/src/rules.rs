//! Sigma rules and correlations in the pipeline.
//!
//! A set of rules is kept in the catalog under its content hash; what is in force is a control record that names the
//! hash (C1), so workers and finisher switch at the same offset, live and in a replay. Matching is stateless: one worker
//! does it for a whole frame. Correlations need an order over all rows: the finisher counts the matches of each
//! frame in the order of rows and rules ([`counting`]). Embedded, that is the internal log of H1 to H3: the
//! finisher sees the matches in the order of the positions that they derive from, and a replay derives them again.

pub(crate) mod counting;
pub mod deploy;
pub mod report;
pub mod texts;

pub use texts::{INSTALLATION, Part, RuleException, RuleFile, RuleTexts, TenantRules};

use crate::control::ControlError;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use palisade_detect::indicators::Indicators;
use palisade_event::Offset;
use palisade_event::column::Text;
use palisade_event::schema::Core;
use palisade_sigma::{
    Book, Counted, Exclusions, Filter, Hits, Level, Loader, Press, Rule, Sieve, Source,
};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

/// The kind under which the catalog keeps sets of rules.
pub const RULE_SET: &str = "rule_set";
/// Sets that are kept compiled: the one in force, the ones that wait behind it in the log, and one that is tried. Those
/// that differ only in what tenants changed share what is large.
const MOST_KEPT: usize = 8;

/// What a tenant's settings mean for the rules of a book.
#[derive(Debug, Default)]
struct Effects {
    /// Ordinals of rules that match nothing of it: disabled, or replaced by one of its own with the same id.
    off: BTreeSet<u32>,
    /// Places of correlations that make no alerts for it, for the same reasons.
    silent: BTreeSet<usize>,
    exceptions: Exclusions,
    /// For each of the exceptions, up to which clock it holds.
    until: Vec<Option<i64>>,
}

/// Ordinals of rules and places of correlations by owner and id, which together are unique.
#[derive(Debug, Default)]
struct Ids<'b> {
    rules: HashMap<(Option<&'b str>, &'b str), u32>,
    correlations: HashMap<(Option<&'b str>, &'b str), usize>,
}

impl<'b> Ids<'b> {
    fn of(book: &'b Book) -> Self {
        let rules = (0u32..).zip(book.rules());
        let rules = rules.map(|(at, rule)| ((rule.owner.as_deref(), rule.id.as_str()), at));
        let correlations = book.correlations().iter();
        let correlations =
            correlations.map(|(at, one)| ((one.owner.as_deref(), one.id.as_str()), at));
        Self { rules: rules.collect(), correlations: correlations.collect() }
    }

    fn owners(&self) -> impl Iterator<Item = &'b str> {
        let rules = self.rules.keys().filter_map(|(owner, _)| *owner);
        rules.chain(self.correlations.keys().filter_map(|(owner, _)| *owner))
    }
}

impl Effects {
    fn of(book: &Book, ids: &Ids<'_>, tenant: &str, changed: Option<&TenantRules>) -> Self {
        let mut effects = Self::default();
        for (owner, id) in ids.rules.keys() {
            if *owner == Some(tenant) {
                effects.off.extend(ids.rules.get(&(None, *id)));
            }
        }
        for (owner, id) in ids.correlations.keys() {
            if *owner == Some(tenant) {
                effects.silent.extend(ids.correlations.get(&(None, *id)));
            }
        }
        let Some(changed) = changed else { return effects };
        for id in &changed.disabled {
            for owner in [None, Some(tenant)] {
                effects.off.extend(ids.rules.get(&(owner, id.as_str())));
                effects.silent.extend(ids.correlations.get(&(owner, id.as_str())));
            }
        }
        // They were read when they were made; one that can't be read any more leaves nothing out.
        let read = |(name, of): (&String, &RuleException)| {
            Some((Filter::parse(name, &of.filter).ok()?, of.until))
        };
        let filters: Vec<(Filter, Option<i64>)> =
            changed.exceptions.iter().filter_map(read).collect();
        let only: Vec<&Filter> = filters.iter().map(|(filter, _)| filter).collect();
        let sees = |rule: &Rule| rule.owner.as_deref().is_none_or(|owner| owner == tenant);
        effects.exceptions = Exclusions::new(book, &only, sees);
        effects.until = filters.iter().map(|(_, until)| *until).collect();
        effects
    }

    fn is_empty(&self) -> bool {
        self.off.is_empty() && self.silent.is_empty() && self.exceptions.is_empty()
    }
}

/// A set, compiled.
#[derive(Debug)]
pub struct Rules {
    /// Rules and correlations; sets whose texts are the same share them.
    pub book: Arc<Book>,
    /// By tenant.
    pub tenants: BTreeMap<String, TenantRules>,
    effects: HashMap<String, Arc<Effects>>,
}

impl Rules {
    /// Compiles a set. What can't be taken of it is named in [`Book::refused`].
    #[must_use]
    pub fn compile(texts: RuleTexts) -> Self {
        Self::of(Arc::new(book(&texts, &mut Press::default())), texts.tenants, None)
    }

    /// Compiles of a set only the rules and correlations with these ids, and what such correlations refer to.
    #[must_use]
    pub fn compile_only(texts: RuleTexts, ids: &BTreeSet<String>) -> Self {
        let mut loader = Loader::default();
        for source in sources(&texts) {
            loader.add_of(source.owner.as_ref(), source.name, source.text);
        }
        let book = Book::of(loader.finish().only(ids));
        Self::of(Arc::new(book), texts.tenants, None)
    }

    fn of(book: Arc<Book>, tenants: BTreeMap<String, TenantRules>, before: Option<&Self>) -> Self {
        // What did not change for a tenant since a set with the same book need not be found out again.
        let same = before.filter(|before| Arc::ptr_eq(&before.book, &book));
        let ids = Ids::of(&book);
        let mut owners: BTreeSet<&str> = ids.owners().collect();
        owners.extend(tenants.keys().map(String::as_str));
        let mut effects = HashMap::new();
        for tenant in owners {
            let changed = tenants.get(tenant);
            let known = same.filter(|before| before.tenants.get(tenant) == changed);
            let of = match known.and_then(|before| before.effects.get(tenant)) {
                Some(known) => Arc::clone(known),
                None => Arc::new(Effects::of(&book, &ids, tenant, changed)),
            };
            if !of.is_empty() {
                effects.insert(tenant.to_owned(), of);
            }
        }
        Self { book, tenants, effects }
    }

    /// Writes the rules that the rows of a batch match over `hits`, as the settings of their tenants leave them.
    pub fn matches(&self, batch: &RecordBatch, hits: &mut Hits) {
        self.book.matcher().matches(batch, hits);
        self.sift(batch, hits);
    }

    /// Whether a tenant has exceptions, which may look at any field.
    #[must_use]
    pub fn has_exceptions(&self, tenant: &str) -> bool {
        self.effects.get(tenant).is_some_and(|effects| !effects.exceptions.is_empty())
    }

    /// Leaves out the matches that the settings of the rows' tenants do; the batch has the columns that their exceptions
    /// look at.
    pub fn sift(&self, batch: &RecordBatch, hits: &mut Hits) {
        if self.effects.is_empty() || hits.is_empty() {
            return;
        }
        let Some(tenants) = Text::in_batch(batch, Core::Tenant.name()) else { return };
        let clocks = batch
            .column_by_name(Core::IngestTime.name())
            .and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
        let mut sieve = None;
        hits.retain(|row, rule| {
            let effects = tenants.get(row).and_then(|tenant| self.effects.get(tenant));
            let Some(effects) = effects else { return true };
            if effects.off.contains(&rule) {
                return false;
            }
            if effects.exceptions.is_empty() {
                return true;
            }
            let clock = clocks.filter(|clocks| row < clocks.len()).map(|clocks| clocks.value(row));
            let holds = |place: usize| {
                let until = effects.until.get(place).copied().flatten();
                until.is_none_or(|until| clock.is_none_or(|clock| clock < until))
            };
            let sieve = sieve.get_or_insert_with(|| Sieve::new(batch));
            !effects.exceptions.leaves_out(sieve, (row, rule), holds)
        });
    }

    /// The severity of a rule or correlation for a tenant, which may have set another.
    #[must_use]
    pub fn severity(&self, tenant: &str, id: &str, level: Level) -> Level {
        let own = self.tenants.get(tenant).and_then(|own| own.severity.get(id));
        own.copied().unwrap_or(level)
    }

    /// Whether a tenant has disabled a rule, by its ordinal, or replaced it by one of its own.
    #[must_use]
    pub fn is_off(&self, tenant: &str, ordinal: u32) -> bool {
        self.effects.get(tenant).is_some_and(|effects| effects.off.contains(&ordinal))
    }

    /// Whether a correlation, by its place, makes no alerts for a tenant. It counts all the same.
    #[must_use]
    pub fn is_silent(&self, tenant: &str, place: usize) -> bool {
        let correlation = self.book.correlations().get(place);
        correlation.is_none_or(|correlation| !correlation.is_of(tenant))
            || self.effects.get(tenant).is_some_and(|effects| effects.silent.contains(&place))
    }
}

/// The files of a set with their owners.
fn sources(texts: &RuleTexts) -> impl Iterator<Item = Source<'_>> {
    texts.parts().flat_map(|(owner, part)| {
        let owner: Option<Arc<str>> = (owner != INSTALLATION).then(|| Arc::from(owner));
        part.files().iter().map(move |file| Source {
            owner: owner.clone(),
            name: &file.name,
            text: &file.text,
        })
    })
}

/// The book of a set's texts.
fn book(texts: &RuleTexts, press: &mut Press) -> Book {
    press.book(sources(texts))
}

type ReadSet = dyn Fn(&str) -> Result<Vec<u8>, String> + Send + Sync;

/// A set that is kept compiled.
#[derive(Debug)]
struct KeptSet {
    hash: String,
    texts: String,
    rules: Arc<Rules>,
}

/// The sets that are compiled, by hash: of rules, and of indicators ([`crate::indicators`]).
pub struct Books {
    pub(crate) read: Box<ReadSet>,
    kept: Mutex<Vec<KeptSet>>,
    press: Mutex<Press>,
    pub(crate) watched: Mutex<Vec<(String, Arc<Indicators>)>>,
}

impl fmt::Debug for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Books").finish_non_exhaustive()
    }
}

impl Books {
    /// Sets are read with this function, by their hash.
    pub fn new(read: impl Fn(&str) -> Result<Vec<u8>, String> + Send + Sync + 'static) -> Self {
        Self {
            read: Box::new(read),
            kept: Mutex::default(),
            press: Mutex::default(),
            watched: Mutex::default(),
        }
    }

    /// Compiles a set and keeps it, so that putting it in force makes nobody wait. Of what is the same as in a set
    /// before nothing is compiled again.
    ///
    /// # Errors
    /// As [`RuleTexts::content`].
    pub fn compile(&self, texts: &RuleTexts) -> Result<(String, Arc<Rules>), ControlError> {
        let (hash, _) = texts.content()?;
        let of_texts = texts.texts_hash();
        let (known, same) = {
            let kept = self.kept.lock();
            let known = kept.iter().find(|set| set.hash == hash).map(|set| Arc::clone(&set.rules));
            let same = kept.iter().rfind(|set| set.texts == of_texts);
            (known, same.map(|set| Arc::clone(&set.rules)))
        };
        let rules = known.unwrap_or_else(|| {
            let book = match &same {
                Some(same) => Arc::clone(&same.book),
                None => Arc::new(book(texts, &mut self.press.lock())),
            };
            Arc::new(Rules::of(book, texts.tenants.clone(), same.as_deref()))
        });
        keep(&mut self.kept.lock(), &hash, of_texts, &rules);
        Ok((hash, rules))
    }

    /// The texts of the set of a hash.
    pub(crate) fn texts(&self, hash: &str) -> Result<RuleTexts, String> {
        RuleTexts::restore(&(self.read)(hash)?, |part| (self.read)(part))
    }

    /// The set of a hash; `None` for the empty one.
    ///
    /// # Errors
    /// Why it can't be had.
    pub fn get(&self, hash: &str) -> Result<Option<Arc<Rules>>, String> {
        if hash.is_empty() {
            return Ok(None);
        }
        // Held while a set is compiled: workers that ask for the same one wait for it and don't do it again.
        let mut kept = self.kept.lock();
        if let Some(set) = kept.iter().find(|set| set.hash == hash) {
            return Ok(Some(Arc::clone(&set.rules)));
        }
        let texts = self.texts(hash)?;
        let of_texts = texts.texts_hash();
        let same = kept.iter().rfind(|set| set.texts == of_texts);
        let same = same.map(|set| Arc::clone(&set.rules));
        let book = match &same {
            Some(same) => Arc::clone(&same.book),
            None => Arc::new(book(&texts, &mut self.press.lock())),
        };
        let rules = Arc::new(Rules::of(book, texts.tenants, same.as_deref()));
        keep(&mut kept, hash, of_texts, &rules);
        Ok(Some(rules))
    }

    /// The set of a hash that the record at `offset` puts in force.
    pub(crate) fn in_force(
        &self,
        offset: Offset,
        hash: &str,
    ) -> Result<Option<Arc<Rules>>, ControlError> {
        self.get(hash).map_err(|reason| ControlError::Rules { offset: offset.0, reason })
    }
}

/// Keeps a set as the newest; the oldest go.
fn keep(kept: &mut Vec<KeptSet>, hash: &str, texts: String, rules: &Arc<Rules>) {
    kept.retain(|set| set.hash != hash);
    kept.push(KeptSet { hash: hash.to_owned(), texts, rules: Arc::clone(rules) });
    let over = kept.len().saturating_sub(MOST_KEPT);
    kept.drain(..over);
}

/// What the rules found in a frame.
#[derive(Debug)]
pub(crate) struct FrameRules {
    /// By which rules: the finisher may have gone on to others.
    pub(crate) rules: Arc<Rules>,
    /// Row, ordinal of the rule, and the fields that matched, of matches that are alerts.
    pub(crate) alerts: Vec<(usize, u32, Vec<String>)>,
    /// What correlations count.
    pub(crate) counted: Vec<Counted>,
}

/// Matches the rows of a frame.
pub(crate) fn matches(rules: &Arc<Rules>, batch: &RecordBatch, hits: &mut Hits) -> FrameRules {
    let book = &rules.book;
    rules.matches(batch, hits);
    let alerts: Vec<(usize, u32)> =
        hits.iter().filter(|(_, rule)| book.makes_alerts(*rule)).collect();
    let fields = book.matched_fields(batch, &alerts);
    let alerts = alerts.into_iter().zip(fields).map(|((row, rule), fields)| (row, rule, fields));
    FrameRules {
        rules: Arc::clone(rules),
        alerts: alerts.collect(),
        counted: book.counted(batch, hits),
    }
}
