//! A rule book: the rules and correlations of a set of texts, compiled, and how the matches of rules reach the
//! correlations that count them.

use crate::batch::{Columns, Reads};
use crate::correlation::{
    BaseRule, Correlations, Defaults, Measure, Value, Version, group_key, number, value_hash,
};
use crate::error::{Kind, Refusal};
use crate::expr::Expr;
use crate::field::Field;
use crate::load::{Loader, RuleSet};
use crate::matcher::{Hits, Matcher, Rows};
use crate::rule::Rule;
use arrow::array::RecordBatch;
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
        let rules: Vec<Arc<Rule>> = set.rules().map(Arc::clone).collect();
        let base: Vec<BaseRule> = rules
            .iter()
            .map(|rule| BaseRule {
                id: rule.id.clone(),
                name: rule.name.clone(),
                version: version(&rule.version),
            })
            .collect();
        let drafts: Vec<(&str, rsigma_parser::CorrelationRule)> =
            set.correlations.iter().map(|draft| (&*draft.file, draft.rule.clone())).collect();
        let resolved = Correlations::resolve(&drafts, &base, Defaults::default());
        let mut refused = set.refused().to_vec();
        refused.extend(resolved.refused.into_iter().map(|refusal| {
            let draft = set.correlations.iter().find(|draft| {
                *draft.file == *refusal.file && draft.rule.id.as_deref() == Some(&refusal.rule)
            });
            Refusal {
                kind: Kind::Refused,
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
            let generates = |reader: &Reader| {
                correlations.get(reader.correlation).is_some_and(|reader| reader.generate)
            };
            alerts.push(of_rule.is_empty() || of_rule.iter().any(generates));
            readers.push(of_rule);
        }
        Self { matcher: set.matcher(), correlations, refused, readers, alerts }
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
        let mut last = (usize::MAX, 0u32);
        for (row, rule) in hits {
            if last.0 != row {
                last = (row, 0);
            }
            for reader in self.readers.get(rule as usize).into_iter().flatten() {
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
    let correlation = correlations.get(place)?;
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
