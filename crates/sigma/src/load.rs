//! From the texts of files to a set of rules. A document that can't be taken is named with the
//! reason; all others stay.

use crate::error::{Checked, Fault, Kind, Refusal};
use crate::expr::Expr;
use crate::lower;
use crate::matcher::Matcher;
use crate::pipeline::{self, Pipelines};
use crate::regexes::MAX_OF_SET;
use crate::rule::{Level, LogSource, Rule, Status};
use crate::source::Sources;
use crate::yaml::{self, Document, Node, Value};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_128;

/// Rules of one set.
pub const MAX_RULES: usize = 100_000;
/// Files of one set.
const MAX_FILES: usize = 200_000;
/// Bytes of a title or an id.
const MAX_NAME: usize = 1_024;

/// A correlation, still as its parser gives it.
#[derive(Debug, Clone)]
pub(crate) struct Correlation {
    pub(crate) file: Arc<str>,
    pub(crate) line: u64,
    pub(crate) rule: rsigma_parser::CorrelationRule,
}

/// A filter: a condition to be added to rules.
#[derive(Debug)]
struct Filter {
    file: Arc<str>,
    line: u64,
    title: String,
    version: String,
    source: LogSource,
    /// Ids, names or titles of rules; none means every rule.
    rules: Option<Vec<String>>,
    document: Node,
}

/// Reads files of rules, filters and correlations, one by one, into a [`RuleSet`].
#[derive(Debug)]
pub struct Loader {
    pipelines: Pipelines,
    license: Option<String>,
    sources: Option<Sources>,
    files: usize,
    rules: Vec<Rule>,
    filters: Vec<Filter>,
    correlations: Vec<Correlation>,
    refused: Vec<Refusal>,
    /// The files in which ids and names stand.
    known: HashMap<String, Arc<str>, FixedState>,
    /// The condition on records of each log source that was met.
    conditions: HashMap<LogSource, Option<Expr>, FixedState>,
    /// Bytes of all regular expressions, compiled.
    regexes: usize,
}

impl Default for Loader {
    fn default() -> Self {
        Self::new(Pipelines::shipped())
    }
}

impl Loader {
    /// A loader that applies these pipelines to every rule.
    #[must_use]
    pub fn new(pipelines: Pipelines) -> Self {
        Self {
            pipelines,
            license: None,
            sources: Sources::shipped().ok(),
            files: 0,
            rules: Vec::new(),
            filters: Vec::new(),
            correlations: Vec::new(),
            refused: Vec::new(),
            known: HashMap::default(),
            conditions: HashMap::default(),
            regexes: 0,
        }
    }

    /// Sets the licence of rules that name none, in the files added from now on.
    pub fn set_license(&mut self, license: Option<&str>) {
        self.license = license.map(str::to_owned);
    }

    /// Reads a file. Files are to be added in a fixed order, for example sorted by their paths: of two
    /// rules with the same id the first stays.
    pub fn add(&mut self, file: &str, text: &str) {
        let file: Arc<str> = Arc::from(file);
        self.files += 1;
        let bound = |reason: String, hint: &str| Refusal {
            kind: Kind::Refused,
            file: Arc::clone(&file),
            line: None,
            rule: None,
            reason,
            hint: hint.to_owned(),
        };
        if self.files > MAX_FILES {
            if self.files == MAX_FILES + 1 {
                self.refused.push(bound(format!("over {MAX_FILES} files"), "join files"));
            }
            return;
        }
        if text.len() > yaml::MAX_FILE {
            let reason = format!("a file of {} bytes, at most {}", text.len(), yaml::MAX_FILE);
            self.refused.push(bound(reason, "split it into several files"));
            return;
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let documents = yaml::documents(text);
        if documents.is_empty() {
            self.refused.push(bound("the file has no document".to_owned(), "remove it"));
        }
        for (index, document) in documents.into_iter().enumerate() {
            if index >= yaml::MAX_DOCUMENTS {
                let reason = format!("over {} documents in the file", yaml::MAX_DOCUMENTS);
                self.refused.push(bound(reason, "split it into several files"));
                return;
            }
            let mut name = None;
            if let Err(fault) = self.document(&file, document, &mut name) {
                self.refuse(&file, name, document.before + 1, fault);
            }
        }
    }

    /// Notes a document that could not be read at all, for example because the file is no UTF-8.
    pub fn unreadable(&mut self, file: &str, reason: &str) {
        let fault = Fault::new(0, reason, "rules are UTF-8 texts");
        self.refuse(&Arc::from(file), None, 0, fault);
    }

    fn refuse(&mut self, file: &Arc<str>, rule: Option<String>, line: u64, fault: Fault) {
        self.refused.push(Refusal {
            kind: fault.kind,
            file: Arc::clone(file),
            line: fault.line.or((line > 0).then_some(line)),
            rule,
            reason: fault.reason,
            hint: fault.hint,
        });
    }

    fn document(
        &mut self,
        file: &Arc<str>,
        document: Document<'_>,
        name: &mut Option<String>,
    ) -> Checked<()> {
        let node = yaml::read(document)?;
        node.as_map("a document")?;
        *name = node.text("id").ok().flatten().or_else(|| node.text("title").ok().flatten());
        if let Some(action) = node.get("action") {
            return Err(Fault::unsupported(
                action.line,
                "`action`: collections of Sigma 1",
                "write each rule out",
            ));
        }
        let version = format!("{:032x}", xxh3_128(document.text.trim().as_bytes()));
        let line = node.line;
        if node.get("correlation").is_some() {
            let rule = correlation(document.text, line)?;
            self.claim(file, line, rule.id.as_deref(), rule.name.as_deref())?;
            self.correlations.push(Correlation { file: Arc::clone(file), line, rule });
            return Ok(());
        }
        if let Some(filter) = node.get("filter") {
            let rules = match filter.get("rules") {
                None => {
                    return Err(Fault::new(
                        filter.line,
                        "a filter without `rules`",
                        "list the ids of the rules that it is for, or write `rules: any`",
                    ));
                }
                Some(Node { value: Value::Text(text), .. }) if text == "any" => None,
                Some(_) => Some(filter.texts("rules")?),
            };
            let title = title(&node)?;
            let source = node.get("logsource").map(pipeline::log_source).transpose()?;
            let source = source.unwrap_or_default();
            // So that it is refused here should it be wrong.
            lower::detection(filter, &self.pipelines.context(&source)?, "filter")?;
            self.filters.push(Filter {
                file: Arc::clone(file),
                line,
                title,
                version,
                source,
                rules,
                document: filter.clone(),
            });
            return Ok(());
        }
        if self.rules.len() >= MAX_RULES {
            return Err(Fault::new(line, format!("over {MAX_RULES} rules"), "remove some"));
        }
        let rule = self.rule(file, &node, version)?;
        self.claim(file, line, Some(&rule.id), rule.name.as_deref())?;
        self.rules.push(rule);
        Ok(())
    }

    /// Takes an id and a name that no other document may have.
    fn claim(
        &mut self,
        file: &Arc<str>,
        line: u64,
        id: Option<&str>,
        name: Option<&str>,
    ) -> Checked<()> {
        for (what, key) in [("id", id), ("name", name)] {
            if let Some(other) = key.and_then(|key| self.known.get(key)) {
                return Err(Fault::new(
                    line,
                    format!("its {what} stands already in {other}"),
                    format!("give it an {what} of its own, or remove one of the two"),
                ));
            }
        }
        for key in [id, name].into_iter().flatten() {
            self.known.insert(key.to_owned(), Arc::clone(file));
        }
        Ok(())
    }

    fn rule(&mut self, file: &Arc<str>, node: &Node, version: String) -> Checked<Rule> {
        let title = title(node)?;
        let Some(logsource) = node.get("logsource") else {
            return Err(Fault::new(
                node.line,
                "a rule without `logsource`",
                "add `logsource:` with product, category or service",
            ));
        };
        logsource.as_map("`logsource`")?;
        let source = pipeline::log_source(logsource)?;
        let Some(detection) = node.get("detection") else {
            return Err(Fault::new(
                node.line,
                "a rule without `detection`",
                "add `detection:` with a selection and a condition",
            ));
        };
        let level = match node.get("level") {
            None => Level::Medium,
            Some(level) => level.as_text().and_then(Level::parse).ok_or_else(|| {
                Fault::new(level.line, "unknown `level`", format!("use {}", Level::NAMES))
            })?,
        };
        let status = match node.get("status") {
            None => None,
            Some(status) => Some(status.as_text().and_then(Status::parse).ok_or_else(|| {
                Fault::new(status.line, "unknown `status`", format!("use {}", Status::NAMES))
            })?),
        };
        let context = self.pipelines.context(&source)?;
        let mut parts = vec![lower::detection(detection, &context, "detection")?];
        for condition in context.conditions() {
            parts.push(lower::selection(condition, &context, "add_condition")?);
        }
        count_regexes(&mut self.regexes, context.regexes(), node.line)?;
        let id = node.text("id")?.filter(|id| !id.is_empty());
        if id.as_ref().is_some_and(|id| id.len() > MAX_NAME) {
            return Err(Fault::new(node.line, "an id that is too long", "use a UUID"));
        }
        Ok(Rule {
            id: id.unwrap_or_else(|| version.clone()),
            name: node.text("name")?,
            title,
            version,
            level,
            status,
            tags: node.texts("tags")?,
            author: author(node)?,
            license: node.text("license")?.or_else(|| self.license.clone()),
            description: node.text("description")?,
            references: node.texts("references")?,
            source: context.source.clone(),
            fields: node.texts("fields")?,
            falsepositives: node.texts("falsepositives")?,
            filters: Vec::new(),
            file: Arc::clone(file),
            line: node.line,
            condition: Expr::all(parts),
        })
    }

    /// Applies the filters and gives the rules.
    #[must_use]
    pub fn finish(mut self) -> RuleSet {
        for filter in std::mem::take(&mut self.filters) {
            if let Err(fault) = self.apply(&filter) {
                self.refuse(&filter.file, Some(filter.title.clone()), filter.line, fault);
            }
        }
        let mut rules = Vec::new();
        for rule in std::mem::take(&mut self.rules) {
            match self.source_condition(&rule.source) {
                Ok(source) => rules.push((Arc::new(rule), source)),
                Err(fault) => {
                    let line = rule.line;
                    self.refuse(&Arc::clone(&rule.file), Some(rule.id), line, fault);
                }
            }
        }
        let Self { refused, correlations, pipelines, .. } = self;
        RuleSet { rules, refused, correlations, pipelines }
    }

    fn source_condition(&mut self, source: &LogSource) -> Checked<Option<Expr>> {
        if let Some(condition) = self.conditions.get(source) {
            return Ok(condition.clone());
        }
        let condition = match &self.sources {
            Some(sources) => sources.condition(source, &self.pipelines)?,
            None => None,
        };
        self.conditions.insert(source.clone(), condition.clone());
        Ok(condition)
    }

    fn apply(&mut self, filter: &Filter) -> Checked<()> {
        let mut applied = false;
        for rule in &mut self.rules {
            let meant = filter.rules.as_ref().is_none_or(|rules| {
                rules.iter().any(|wanted| {
                    *wanted == rule.id
                        || *wanted == rule.title
                        || Some(wanted) == rule.name.as_ref()
                })
            });
            if !meant || !filter.source.covers(&rule.source) {
                continue;
            }
            let context = self.pipelines.context(&rule.source)?;
            let condition = lower::detection(&filter.document, &context, "filter")?;
            count_regexes(&mut self.regexes, context.regexes(), filter.line)?;
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
            Err(Fault::new(
                0,
                "the filter is for no loaded rule",
                "check the ids under `rules`, and that its `logsource` is theirs",
            ))
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

fn title(node: &Node) -> Checked<String> {
    match node.text("title")?.filter(|title| !title.is_empty()) {
        Some(title) if title.len() <= MAX_NAME => Ok(title),
        Some(_) => Err(Fault::new(node.line, "a title that is too long", "shorten it")),
        None => Err(Fault::new(node.line, "a document without `title`", "add a title")),
    }
}

/// Some write a list of authors.
fn author(node: &Node) -> Checked<Option<String>> {
    let authors = node.texts("author")?;
    Ok((!authors.is_empty()).then(|| authors.join(", ")))
}

fn correlation(text: &str, line: u64) -> Checked<rsigma_parser::CorrelationRule> {
    let hint = "see the specification of correlations";
    let parsed = rsigma_parser::parse_sigma_yaml(text)
        .map_err(|error| Fault::new(line, error.to_string(), hint))?;
    if let Some(error) = parsed.errors.first() {
        return Err(Fault::new(line, error.clone(), hint));
    }
    parsed
        .correlations
        .into_iter()
        .next()
        .ok_or_else(|| Fault::new(line, "not readable as a correlation", hint))
}

/// Rules that are ready to be matched, and what was not taken.
#[derive(Debug)]
pub struct RuleSet {
    /// Each with the condition on records of its log source.
    pub(crate) rules: Vec<(Arc<Rule>, Option<Expr>)>,
    refused: Vec<Refusal>,
    pub(crate) correlations: Vec<Correlation>,
    pub(crate) pipelines: Pipelines,
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
        let mut paths = BTreeSet::new();
        for (rule, source) in &self.rules {
            rule.condition.paths(&mut paths);
            if let Some(source) = source {
                source.paths(&mut paths);
            }
        }
        paths
    }

    /// Compiles the rules.
    #[must_use]
    pub fn matcher(&self) -> Matcher {
        Matcher::new(&self.rules)
    }
}
