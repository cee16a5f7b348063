//! From the texts of files to a set of rules. A document that can't be taken is named with the
//! reason; all others stay.

mod read;

pub use read::{Part, parts};

use crate::error::{Checked, Fault, Kind, Refusal};
use crate::expr::Expr;
use crate::field::Field;
use crate::filter::Filter;
use crate::matcher::{Matcher, Workshop};
use crate::pipeline::Pipelines;
use crate::regexes::MAX_OF_SET;
use crate::rule::{LogSource, Rule};
use crate::source::Sources;
use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashSet};
pub(crate) use read::Correlation;
use read::{How, Said};
use std::collections::BTreeSet;
use std::sync::Arc;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// Rules of one set.
pub const MAX_RULES: usize = 100_000;
/// Log sources whose conditions are kept for the next set.
const MAX_SOURCES: usize = 4_096;
/// Files of one set.
const MAX_FILES: usize = 200_000;

/// Reads files of rules, filters and correlations, one by one, into a [`RuleSet`].
///
/// It may be used for several sets, one after the other ([`Loader::take`]): a file that was in the set before, with the
/// same name and text, is not read again.
#[derive(Debug)]
pub struct Loader {
    pipelines: Arc<Pipelines>,
    license: Option<String>,
    sources: Option<Sources>,
    files: usize,
    rules: Vec<Arc<Rule>>,
    filters: Vec<Arc<Filter>>,
    correlations: Vec<Arc<Correlation>>,
    refused: Vec<Refusal>,
    /// The files in which ids and names stand, by their owner: those of two tenants have nothing to do with each other.
    known: HashMap<(Option<Arc<str>>, String), Arc<str>, FixedState>,
    /// The condition on records of each log source that was met.
    conditions: HashMap<LogSource, Option<Arc<Expr>>, FixedState>,
    /// What the files of this set said, and those of the one before, by the hash of owner, name, licence and text.
    read: HashMap<u128, Arc<Vec<Said>>, FixedState>,
    before: HashMap<u128, Arc<Vec<Said>>, FixedState>,
    /// Bytes of all regular expressions, compiled.
    regexes: usize,
}

impl Default for Loader {
    fn default() -> Self {
        Self::new(Pipelines::shipped())
    }
}

/// The hash of texts, each preceded by its length.
fn hash_of(texts: [&str; 4]) -> u128 {
    let mut hash = Xxh3::new();
    for text in texts {
        hash.update(&(text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    }
    hash.digest128()
}

impl Loader {
    /// A loader that applies these pipelines to every rule.
    #[must_use]
    pub fn new(pipelines: Pipelines) -> Self {
        Self {
            pipelines: Arc::new(pipelines),
            license: None,
            sources: Sources::shipped().ok(),
            files: 0,
            rules: Vec::new(),
            filters: Vec::new(),
            correlations: Vec::new(),
            refused: Vec::new(),
            known: HashMap::default(),
            conditions: HashMap::default(),
            read: HashMap::default(),
            before: HashMap::default(),
            regexes: 0,
        }
    }

    /// Sets the licence of rules that name none, in the files added from now on.
    pub fn set_license(&mut self, license: Option<&str>) {
        self.license = license.map(str::to_owned);
    }

    /// Reads a file of the installation. Files are to be added in a fixed order, for example sorted by their paths: of
    /// two rules with the same id the first stays.
    pub fn add(&mut self, file: &str, text: &str) {
        self.add_of(None, file, text);
    }

    /// Reads a file of a tenant, whose rules are tried on its records alone; of the installation where there is none.
    pub fn add_of(&mut self, owner: Option<&Arc<str>>, file: &str, text: &str) {
        let file: Arc<str> = Arc::from(file);
        let how = How {
            file: &file,
            owner,
            license: self.license.as_deref(),
            pipelines: &self.pipelines,
        };
        self.files += 1;
        if self.files > MAX_FILES {
            if self.files == MAX_FILES + 1 {
                let fault = Fault::new(0, format!("over {MAX_FILES} files"), "join files");
                self.refused.push(how.refusal(None, 0, fault));
            }
            return;
        }
        let license = self.license.as_deref().unwrap_or_default();
        let key = hash_of([owner.map_or("", |owner| owner), &file, license, text]);
        let said = self.before.remove(&key).unwrap_or_else(|| Arc::new(how.read(text)));
        for said in said.iter() {
            self.admit(said);
        }
        self.read.insert(key, said);
    }

    /// Notes a document that could not be read at all, for example because the file is no UTF-8.
    pub fn unreadable(&mut self, file: &str, reason: &str) {
        let fault = Fault::new(0, reason, "rules are UTF-8 texts");
        self.refuse((None, &Arc::from(file)), None, 0, fault);
    }

    fn refuse(
        &mut self,
        (owner, file): (Option<&Arc<str>>, &Arc<str>),
        rule: Option<String>,
        line: u64,
        fault: Fault,
    ) {
        self.refused.push(Refusal {
            kind: fault.kind,
            owner: owner.cloned(),
            file: Arc::clone(file),
            line: fault.line.or((line > 0).then_some(line)),
            rule,
            reason: fault.reason,
            hint: fault.hint,
        });
    }

    /// Takes a document into the set.
    fn admit(&mut self, said: &Said) {
        match said {
            Said::Nothing(refusal) => self.refused.push(refusal.clone()),
            Said::Filter(filter) => self.filters.push(Arc::clone(filter)),
            Said::Correlation(correlation) => {
                let Correlation { file, owner, line, rule } = correlation.as_ref();
                let names = (rule.id.as_deref(), rule.name.as_deref());
                match self.claim((owner.as_ref(), file), *line, names) {
                    Ok(()) => self.correlations.push(Arc::clone(correlation)),
                    Err(fault) => {
                        let called = rule.id.clone().unwrap_or_else(|| rule.title.clone());
                        self.refuse((owner.as_ref(), file), Some(called), *line, fault);
                    }
                }
            }
            Said::Rule(rule, regexes) => {
                let at = (rule.owner.as_ref(), &rule.file);
                let claimed = if self.rules.len() >= MAX_RULES {
                    let reason = format!("over {MAX_RULES} rules");
                    Err(Fault::new(rule.line, reason, "remove some"))
                } else {
                    count_regexes(&mut self.regexes, *regexes, rule.line).and_then(|()| {
                        self.claim(at, rule.line, (Some(&rule.id), rule.name.as_deref()))
                    })
                };
                match claimed {
                    Ok(()) => self.rules.push(Arc::clone(rule)),
                    Err(fault) => self.refuse(at, Some(rule.id.clone()), rule.line, fault),
                }
            }
        }
    }

    /// Takes an id and a name that no other document of the owner may have.
    fn claim(
        &mut self,
        (owner, file): (Option<&Arc<str>>, &Arc<str>),
        line: u64,
        (id, name): (Option<&str>, Option<&str>),
    ) -> Checked<()> {
        let key = |key: &str| (owner.cloned(), key.to_owned());
        for (what, text) in [("id", id), ("name", name)] {
            if let Some(other) = text.and_then(|text| self.known.get(&key(text))) {
                return Err(Fault::new(
                    line,
                    format!("its {what} stands already in {other}"),
                    format!("give it an {what} of its own, or remove one of the two"),
                ));
            }
        }
        for text in [id, name].into_iter().flatten() {
            self.known.insert(key(text), Arc::clone(file));
        }
        Ok(())
    }

    /// Applies the filters and gives the rules.
    #[must_use]
    pub fn finish(mut self) -> RuleSet {
        self.take()
    }

    /// As [`Loader::finish`]; the loader begins the next set, and keeps what the files of this one said.
    #[must_use]
    pub fn take(&mut self) -> RuleSet {
        for filter in std::mem::take(&mut self.filters) {
            if let Err(fault) = self.apply(&filter) {
                let title = Some(filter.title.clone());
                self.refuse((filter.owner.as_ref(), &filter.file), title, filter.line, fault);
            }
        }
        let mut rules = Vec::new();
        for rule in std::mem::take(&mut self.rules) {
            match self.source_condition(&rule.source) {
                Ok(source) => rules.push((rule, source)),
                Err(fault) => {
                    let at = (rule.owner.as_ref(), &rule.file);
                    self.refuse(at, Some(rule.id.clone()), rule.line, fault);
                }
            }
        }
        self.before = std::mem::take(&mut self.read);
        self.known.clear();
        if self.conditions.len() > MAX_SOURCES {
            self.conditions.clear();
        }
        (self.files, self.regexes) = (0, 0);
        RuleSet {
            rules,
            refused: std::mem::take(&mut self.refused),
            correlations: std::mem::take(&mut self.correlations),
            pipelines: Arc::clone(&self.pipelines),
        }
    }

    fn source_condition(&mut self, source: &LogSource) -> Checked<Option<Arc<Expr>>> {
        if let Some(condition) = self.conditions.get(source) {
            return Ok(condition.clone());
        }
        let condition = match &self.sources {
            Some(sources) => sources.condition(source, &self.pipelines)?.map(Arc::new),
            None => None,
        };
        self.conditions.insert(source.clone(), condition.clone());
        Ok(condition)
    }

    fn apply(&mut self, filter: &Filter) -> Checked<()> {
        let mut applied = false;
        for rule in &mut self.rules {
            if rule.owner != filter.owner || !filter.is_for(rule) {
                continue;
            }
            let (condition, regexes) = filter.condition(&self.pipelines, &rule.source)?;
            count_regexes(&mut self.regexes, regexes, filter.line)?;
            let rule = Arc::make_mut(rule);
            let before = std::mem::replace(&mut rule.condition, Expr::And(Vec::new()));
            rule.condition = Expr::And(vec![before, condition]);
            let both = format!("{} {}", rule.version, filter.version);
            rule.version = format!("{:032x}", xxh3_128(both.as_bytes()));
            rule.filters.push(filter.title.clone());
            applied = true;
        }
        if applied {
            Ok(())
        } else {
            Err(Fault {
                kind: Kind::Refused,
                line: None,
                reason: "the filter is for no loaded rule".to_owned(),
                hint: "check the ids under `rules`, and that its `logsource` is theirs".to_owned(),
            })
        }
    }
}

/// Takes in the regular expressions of a document.
fn count_regexes(all: &mut usize, bytes: usize, line: u64) -> Checked<()> {
    let sum = all.saturating_add(bytes);
    if sum > MAX_OF_SET {
        return Err(Fault::new(
            line,
            format!(
                "the regular expressions of all rules have over {MAX_OF_SET} bytes when compiled"
            ),
            "load fewer rules with large regular expressions",
        ));
    }
    *all = sum;
    Ok(())
}

/// Rules that are ready to be matched, and what was not taken.
#[derive(Debug)]
pub struct RuleSet {
    /// Each with the condition on records of its log source.
    pub(crate) rules: Vec<(Arc<Rule>, Option<Arc<Expr>>)>,
    refused: Vec<Refusal>,
    pub(crate) correlations: Vec<Arc<Correlation>>,
    pub(crate) pipelines: Arc<Pipelines>,
}

impl RuleSet {
    /// The loaded rules. A rule's place here is its ordinal.
    pub fn rules(&self) -> impl ExactSizeIterator<Item = &Arc<Rule>> {
        self.rules.iter().map(|(rule, _)| rule)
    }

    /// The documents that were not loaded, in the order in which they were met.
    #[must_use]
    pub fn refused(&self) -> &[Refusal] {
        &self.refused
    }

    /// The paths under which the rules may find their fields, for
    /// [`palisade_event::decode::DecodeLimits::protected`]: so that they get columns whatever else is
    /// sent.
    #[must_use]
    pub fn paths(&self) -> BTreeSet<String> {
        paths(&self.rules)
    }

    /// Compiles the rules.
    #[must_use]
    pub fn matcher(&self) -> Matcher {
        self.matcher_of(&mut Workshop::default())
    }

    pub(crate) fn matcher_of(&self, workshop: &mut Workshop) -> Matcher {
        Matcher::new(&self.rules, workshop)
    }
}

/// The paths under which rules of the installation and the conditions of their log sources may find their fields.
pub(crate) fn paths(rules: &[(Arc<Rule>, Option<Arc<Expr>>)]) -> BTreeSet<String> {
    let mut fields: HashSet<&Field, FixedState> = HashSet::default();
    let mut last: Option<&Arc<Expr>> = None;
    for (rule, source) in rules.iter().filter(|(rule, _)| rule.owner.is_none()) {
        rule.condition.each_field(&mut |field| {
            fields.insert(field);
        });
        // Rules of one log source mostly stand beside each other.
        if let Some(source) = source
            && !last.is_some_and(|last| Arc::ptr_eq(last, source))
        {
            source.each_field(&mut |field| {
                fields.insert(field);
            });
            last = Some(source);
        }
    }
    fields.into_iter().flat_map(Field::plain_paths).cloned().collect()
}
