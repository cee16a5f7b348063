//! A rule book: the rules and correlations of a set of texts, compiled, and how the matches of rules reach the
//! correlations that count them.

use crate::batch::{Columns, Reads};
use crate::correlation::{
    BaseRule, Correlation, Correlations, Defaults, Draft, Measure, Value, Version, group_key,
    number, value_hash,
};
use crate::error::{Kind, Refusal};
use crate::expr::Expr;
use crate::field::Field;
use crate::load::{self, Loader, RuleSet};
use crate::matcher::{Hits, Matcher, Rows, Workshop};
use crate::pipeline::Pipelines;
use crate::rule::Rule;
use arrow::array::RecordBatch;
use palisade_event::column::Text;
use palisade_event::schema::Core;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Fields that an alert names of what matched, at most.
const MOST_FIELDS: usize = 16;
/// Bytes of a value that an alert names.
const MOST_VALUE: usize = 512;

/// A row's match on its way to one input of one correlation.
#[derive(Debug, Clone, PartialEq)]
pub struct Counted {
    /// The row in the batch.
    pub row: usize,
    /// Which of the row's, from 0: part of the position of the hit (H1).
    pub ordinal: u32,
    /// The correlation's place in [`Book::correlations`].
    pub correlation: usize,
    /// Which of its inputs.
    pub input: u16,
    /// The group.
    pub group: Vec<u8>,
    /// The measured value.
    pub value: Value,
}

/// An input of a correlation that reads a rule, with the fields of its group and value as records may name them.
#[derive(Debug)]
struct Reader {
    correlation: usize,
    input: u16,
    group: Vec<Arc<Field>>,
    value: Vec<Arc<Field>>,
    /// Whether distinct values are counted; else numbers are measured.
    counts_values: bool,
    /// The tenant whose correlation it is, where it is one's own.
    owner: Option<Arc<str>>,
}

/// A file of rules.
#[derive(Debug, Clone)]
pub struct Source<'t> {
    /// The tenant whose rules they are, tried on its records alone; none for the installation's.
    pub owner: Option<Arc<str>>,
    /// Its name, for messages.
    pub name: &'t str,
    /// YAML: rules, filters, correlations.
    pub text: &'t str,
}

/// Makes books one after the other, each from what is left of the one before: files that did not change are not read
/// again, and rules of a log source are compiled again only where one of them changed.
#[derive(Debug, Default)]
pub struct Press {
    loader: Loader,
    workshop: Workshop,
}

impl Press {
    /// The book of these files, in their order. What can't be taken is among [`Book::refused`].
    #[must_use]
    pub fn book<'t>(&mut self, files: impl IntoIterator<Item = Source<'t>>) -> Book {
        for Source { owner, name, text } in files {
            self.loader.add_of(owner.as_ref(), name, text);
        }
        let set = self.loader.take();
        Book::made(set, &mut self.workshop)
    }
}

/// Rules and correlations, compiled.
#[derive(Debug)]
pub struct Book {
    matcher: Matcher,
    correlations: Correlations,
    refused: Vec<Refusal>,
    /// For each rule, who counts it.
    readers: Vec<Vec<Reader>>,
    /// For each rule, whether its matches are alerts: not where they are only counted (`generate: false`).
    alerts: Vec<bool>,
    pub(crate) pipelines: Arc<Pipelines>,
}

impl Book {
    /// The book of these files (name, YAML text), in their order. What can't be taken is among [`Book::refused`].
    #[must_use]
    pub fn read<'t>(files: impl IntoIterator<Item = (&'t str, &'t str)>) -> Self {
        let mut loader = Loader::default();
        for (name, text) in files {
            loader.add(name, text);
        }
        Self::of(loader.finish())
    }

    /// The book of a loaded set.
    #[must_use]
    pub fn of(set: RuleSet) -> Self {
        Self::made(set, &mut Workshop::default())
    }

    fn made(set: RuleSet, workshop: &mut Workshop) -> Self {
        let rules: Vec<Arc<Rule>> = set.rules().map(Arc::clone).collect();
        let base: Vec<BaseRule> = rules
            .iter()
            .map(|rule| BaseRule {
                id: rule.id.clone(),
                name: rule.name.clone(),
                version: version(&rule.version),
            })
            .collect();
        let drafts = set.correlations.iter().map(|draft| Draft {
            file: &draft.file,
            owner: draft.owner.as_deref(),
            rule: draft.rule.clone(),
        });
        let drafts: Vec<Draft<'_>> = drafts.collect();
        let owner_of = |rule: usize| rules.get(rule).and_then(|rule| rule.owner.as_deref());
        let resolved = Correlations::resolve(&drafts, &base, &owner_of, Defaults::default());
        let mut refused = set.refused().to_vec();
        refused.extend(resolved.refused.into_iter().map(|refusal| {
            let draft = set.correlations.iter().find(|draft| {
                *draft.file == *refusal.file && draft.rule.id.as_deref() == Some(&refusal.rule)
            });
            let of_file = || set.correlations.iter().find(|draft| *draft.file == *refusal.file);
            Refusal {
                kind: Kind::Refused,
                owner: draft.or_else(of_file).and_then(|draft| draft.owner.clone()),
                file: Arc::from(refusal.file),
                line: draft.map(|draft| draft.line),
                rule: Some(refusal.rule),
                reason: refusal.reason,
                hint: refusal.hint,
            }
        }));
        let correlations = resolved.correlations;
        let (mut readers, mut alerts) = (Vec::new(), Vec::new());
        for (ordinal, rule) in rules.iter().enumerate() {
            let of_rule: Vec<Reader> = correlations
                .readers_of_rule(ordinal)
                .filter_map(|place| reader(&set, rule, &correlations, place))
                .collect();
            // A tenant's correlation over a rule of the installation silences it for nobody.
            let mut silencing =
                of_rule.iter().filter(|reader| reader.owner == rule.owner).peekable();
            let generates = |reader: &Reader| {
                correlations.get(reader.correlation).is_some_and(|reader| reader.generate)
            };
            alerts.push(silencing.peek().is_none() || silencing.any(generates));
            readers.push(of_rule);
        }
        let matcher = set.matcher_of(workshop);
        Self { matcher, correlations, refused, readers, alerts, pipelines: set.pipelines }
    }

    /// The paths under which the installation's rules and correlations may find their fields; see [`RuleSet::paths`].
    /// Tenants' own are not among them: they would lift the bounds of columns for everybody.
    #[must_use]
    pub fn paths(&self) -> BTreeSet<String> {
        let mut paths = load::paths(self.matcher.rules());
        for reader in self.readers.iter().flatten().filter(|reader| reader.owner.is_none()) {
            let fields = reader.group.iter().chain(&reader.value);
            paths.extend(fields.flat_map(|field| field.plain_paths()).cloned());
        }
        paths
    }

    /// The rules by their ordinals.
    pub fn rules(&self) -> impl Iterator<Item = &Arc<Rule>> {
        (0..self.readers.len() as u32).filter_map(|ordinal| self.matcher.rule(ordinal))
    }

    /// A rule by its ordinal.
    #[must_use]
    pub fn rule(&self, ordinal: u32) -> Option<&Arc<Rule>> {
        self.matcher.rule(ordinal)
    }

    /// The documents that were not loaded.
    #[must_use]
    pub fn refused(&self) -> &[Refusal] {
        &self.refused
    }

    /// The matcher of its rules.
    #[must_use]
    pub fn matcher(&self) -> &Matcher {
        &self.matcher
    }

    /// Its correlations.
    #[must_use]
    pub fn correlations(&self) -> &Correlations {
        &self.correlations
    }

    /// Whether the matches of a rule are alerts.
    #[must_use]
    pub fn makes_alerts(&self, ordinal: u32) -> bool {
        self.alerts.get(ordinal as usize).copied().unwrap_or_default()
    }

    /// Whether correlations count the matches of a rule.
    #[must_use]
    pub fn is_counted(&self, ordinal: u32) -> bool {
        self.readers.get(ordinal as usize).is_some_and(|readers| !readers.is_empty())
    }

    /// The columns from which comes what alerts name of the matches of these rules, and what correlations count of them.
    #[must_use]
    pub fn reads_of_rules(&self, rules: &BTreeSet<u32>) -> Reads {
        let mut reads = self.matcher.reads_of_rules(rules);
        for rule in rules {
            for reader in self.readers.get(*rule as usize).into_iter().flatten() {
                reader.group.iter().chain(&reader.value).for_each(|field| reads.add(field));
            }
        }
        reads
    }

    /// Whether nothing can come of any record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.readers.is_empty()
    }

    /// What the matches of a batch are to correlations, by row, rule and reader. A match without a value for each
    /// field of the group is in no group and left out.
    #[must_use]
    pub fn counted(&self, batch: &RecordBatch, hits: &Hits) -> Vec<Counted> {
        let reads = |(_, rule): &(usize, u32)| self.is_counted(*rule);
        let mut hits = hits.iter().filter(reads).peekable();
        let mut counted = Vec::new();
        if hits.peek().is_none() {
            return counted;
        }
        let mut rows = Rows::new(Columns::new(batch));
        let tenants = Text::in_batch(batch, Core::Tenant.name());
        let mut last = (usize::MAX, 0u32);
        for (row, rule) in hits {
            if last.0 != row {
                last = (row, 0);
            }
            let tenant = tenants.and_then(|tenants| tenants.get(row));
            for reader in self.readers.get(rule as usize).into_iter().flatten() {
                if reader.owner.as_deref().is_some_and(|owner| tenant != Some(owner)) {
                    continue;
                }
                let ordinal = last.1;
                last.1 += 1;
                let group: Vec<Option<String>> =
                    reader.group.iter().map(|field| text(&mut rows, field, row)).collect();
                let Some(group) = group_key(group.iter().map(|t| t.as_deref().map(str::as_bytes)))
                else {
                    continue;
                };
                let value: Vec<Option<String>> =
                    reader.value.iter().map(|field| text(&mut rows, field, row)).collect();
                let mut texts = value.iter().map(|text| text.as_deref().map(str::as_bytes));
                let value = if reader.value.is_empty() {
                    Value::None
                } else if reader.counts_values {
                    value_hash(texts)
                } else {
                    texts.next().flatten().map_or(Value::None, number)
                };
                let (correlation, input) = (reader.correlation, reader.input);
                counted.push(Counted { row, ordinal, correlation, input, group, value });
            }
        }
        counted
    }

    /// For each of these matches the fields that fulfil the rule's condition, as `name=value`.
    #[must_use]
    pub fn matched_fields(&self, batch: &RecordBatch, hits: &[(usize, u32)]) -> Vec<Vec<String>> {
        if hits.is_empty() {
            return Vec::new();
        }
        let mut rows = Rows::new(Columns::new(batch));
        let fields = hits.iter().map(|(row, rule)| {
            let mut found = BTreeMap::new();
            if let Some(rule) = self.matcher.rule(*rule) {
                fulfilled(&mut rows, &rule.condition, *row, &mut found);
            }
            found.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
        });
        fields.collect()
    }
}

/// The version of a rule as correlations hash it.
fn version(text: &str) -> Version {
    let mut version = [0; 32];
    for (to, from) in version.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    Version(version)
}

fn reader(
    set: &RuleSet,
    rule: &Rule,
    correlations: &Correlations,
    (place, input): (usize, u16),
) -> Option<Reader> {
    let correlation: &Correlation = correlations.get(place)?;
    let of = correlation.inputs.get(usize::from(input))?;
    let context = set.pipelines.context(&rule.source).ok()?;
    let fields =
        |names: &[String]| names.iter().map(|name| Arc::new(context.field(name))).collect();
    Some(Reader {
        correlation: place,
        input,
        group: fields(&of.group_fields),
        value: fields(&of.value_fields),
        counts_values: matches!(correlation.measure, Measure::Values { .. }),
        owner: correlation.owner.as_deref().map(Arc::from),
    })
}

/// A row's value of a field; of several the first.
fn text(rows: &mut Rows<'_>, field: &Arc<Field>, row: usize) -> Option<String> {
    rows.value(field, row)?.texts().next().map(str::to_owned)
}

/// The fields of the lines that fulfil a condition.
fn fulfilled(rows: &mut Rows<'_>, expr: &Expr, row: usize, found: &mut BTreeMap<String, String>) {
    if found.len() >= MOST_FIELDS {
        return;
    }
    match expr {
        Expr::And(parts) => parts.iter().for_each(|part| fulfilled(rows, part, row, found)),
        Expr::Or(parts) | Expr::AtLeast(_, parts) => {
            for part in parts {
                if rows.fulfils(part, row) {
                    fulfilled(rows, part, row, found);
                }
            }
        }
        Expr::Selection(_, part) => fulfilled(rows, part, row, found),
        Expr::Not(_) => {}
        Expr::Item(item) => {
            let value = match &item.field {
                Some(field) if rows.passes(item, row) => rows.value(field, row).and_then(|cell| {
                    let fold = crate::pattern::fold;
                    let decided = cell.texts().find(|text| item.test.passes(text, &fold(text)));
                    decided.or_else(|| cell.texts().next()).map(str::to_owned)
                }),
                Some(_) => None,
                None => rows.keyword(&item.test, row),
            };
            let name = item.field.as_ref().map_or("keywords", |field| &*field.name);
            if let Some(mut value) = value {
                let end = (0..=MOST_VALUE.min(value.len())).rev();
                let end = end.into_iter().find(|at| value.is_char_boundary(*at)).unwrap_or(0);
                value.truncate(end);
                found.insert(name.to_owned(), value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, StringArray};

    const RULES: &str = "title: Failed login\nid: failed\nname: failed_login\nlogsource:\n  category: authentication\ndetection:\n  selection:\n    type: login_failed\n    user|startswith: a\n  condition: selection\nlevel: low\n---\ntitle: Many failed logins\nid: many\ncorrelation:\n  type: event_count\n  rules:\n    - failed_login\n  group-by:\n    - src_ip\n  timespan: 1m\n  condition:\n    gte: 2\nlevel: high\n";

    fn batch() -> RecordBatch {
        let text =
            |values: Vec<Option<&str>>| std::sync::Arc::new(StringArray::from(values)) as ArrayRef;
        RecordBatch::try_from_iter([
            ("type", text(vec![Some("login_failed"), Some("login"), Some("login_failed")])),
            ("user", text(vec![Some("Ada"), Some("ada"), Some("anna")])),
            ("src_ip", text(vec![Some("10.0.0.1"), Some("10.0.0.1"), None])),
        ])
        .unwrap()
    }

    #[test]
    fn matches_reach_the_correlations_that_count_them() {
        let book = Book::read([("rules.yml", RULES)]);
        assert!(book.refused().is_empty(), "{:?}", book.refused());
        assert_eq!((book.rules().count(), book.correlations().len()), (1, 1));
        assert!(!book.makes_alerts(0), "it is only counted");
        let (batch, mut hits) = (batch(), Hits::new());
        book.matcher().matches(&batch, &mut hits);
        assert_eq!(hits.iter().collect::<Vec<_>>(), [(0, 0), (2, 0)]);
        // The third row has no address, so it is in no group.
        let counted = book.counted(&batch, &hits);
        assert_eq!(counted.len(), 1);
        assert_eq!((counted[0].row, counted[0].ordinal, counted[0].value), (0, 0, Value::None));
        assert_eq!(counted[0].group, group_key([Some(b"10.0.0.1".as_slice())]).unwrap());
        let fields = book.matched_fields(&batch, &[(0, 0)]);
        assert_eq!(fields, [["type=login_failed", "user=Ada"]]);
    }
}
