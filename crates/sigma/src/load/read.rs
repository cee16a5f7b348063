//! What the documents of a file say, each for itself: nothing here depends on other files, so that a file that did
//! not change need not be read again.

use crate::error::{Checked, Fault, Kind, Refusal};
use crate::expr::Expr;
use crate::filter::{Filter, MAX_NAME, title, version};
use crate::lower;
use crate::pipeline::{self, Pipelines};
use crate::rule::{Level, Rule, Status};
use crate::yaml::{self, Document, Node};
use std::sync::Arc;

/// A correlation, still as its parser gives it.
#[derive(Debug, Clone)]
pub(crate) struct Correlation {
    pub(crate) file: Arc<str>,
    pub(crate) owner: Option<Arc<str>>,
    pub(crate) line: u64,
    pub(crate) rule: rsigma_parser::CorrelationRule,
}

/// What a document is.
#[derive(Debug)]
pub(super) enum Said {
    /// With the bytes of its regular expressions, compiled.
    Rule(Arc<Rule>, usize),
    Filter(Arc<Filter>),
    Correlation(Arc<Correlation>),
    Nothing(Refusal),
}

/// Whose file it is and how its rules are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct How<'a> {
    pub(super) file: &'a Arc<str>,
    pub(super) owner: Option<&'a Arc<str>>,
    pub(super) license: Option<&'a str>,
    pub(super) pipelines: &'a Pipelines,
}

impl How<'_> {
    pub(super) fn refusal(&self, rule: Option<String>, line: u64, fault: Fault) -> Refusal {
        Refusal {
            kind: fault.kind,
            owner: self.owner.cloned(),
            file: Arc::clone(self.file),
            line: fault.line.or((line > 0).then_some(line)),
            rule,
            reason: fault.reason,
            hint: fault.hint,
        }
    }

    fn bound(&self, reason: String, hint: &str) -> Said {
        let fault = Fault { kind: Kind::Refused, line: None, reason, hint: hint.to_owned() };
        Said::Nothing(self.refusal(None, 0, fault))
    }

    /// What the documents of a text say.
    pub(super) fn read(&self, text: &str) -> Vec<Said> {
        if text.len() > yaml::MAX_FILE {
            let reason = format!("a file of {} bytes, at most {}", text.len(), yaml::MAX_FILE);
            return vec![self.bound(reason, "split it into several files")];
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let documents = yaml::documents(text);
        if documents.is_empty() {
            return vec![self.bound("the file has no document".to_owned(), "remove it")];
        }
        let mut said = Vec::with_capacity(documents.len());
        for (index, document) in documents.into_iter().enumerate() {
            if index >= yaml::MAX_DOCUMENTS {
                let reason = format!("over {} documents in the file", yaml::MAX_DOCUMENTS);
                said.push(self.bound(reason, "split it into several files"));
                break;
            }
            let mut name = None;
            said.push(self.document(document, &mut name).unwrap_or_else(|fault| {
                Said::Nothing(self.refusal(name, document.before + 1, fault))
            }));
        }
        said
    }

    fn document(&self, document: Document<'_>, name: &mut Option<String>) -> Checked<Said> {
        let node = yaml::read(document)?;
        node.as_map("a document")?;
        *name = called(&node);
        if let Some(action) = node.get("action") {
            return Err(Fault::unsupported(
                action.line,
                "`action`: collections of Sigma 1",
                "write each rule out",
            ));
        }
        let line = node.line;
        if node.get("correlation").is_some() {
            let rule = correlation(document.text, line)?;
            let (file, owner) = (Arc::clone(self.file), self.owner.cloned());
            return Ok(Said::Correlation(Arc::new(Correlation { file, owner, line, rule })));
        }
        if let Some(filter) = node.get("filter") {
            let filter =
                Filter::of(self.file, self.owner, self.pipelines, &node, filter, document)?;
            return Ok(Said::Filter(Arc::new(filter)));
        }
        let (rule, regexes) = self.rule(&node, version(document.text))?;
        Ok(Said::Rule(Arc::new(rule), regexes))
    }

    fn rule(&self, node: &Node, version: String) -> Checked<(Rule, usize)> {
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
        let id = node.text("id")?.filter(|id| !id.is_empty());
        if id.as_ref().is_some_and(|id| id.len() > MAX_NAME) {
            return Err(Fault::new(node.line, "an id that is too long", "use a UUID"));
        }
        let rule = Rule {
            id: id.unwrap_or_else(|| version.clone()),
            name: node.text("name")?,
            title,
            version,
            level,
            status,
            tags: node.texts("tags")?,
            author: author(node)?,
            license: node.text("license")?.or_else(|| self.license.map(str::to_owned)),
            description: node.text("description")?,
            references: node.texts("references")?,
            source: context.source.clone(),
            fields: node.texts("fields")?,
            falsepositives: node.texts("falsepositives")?,
            filters: Vec::new(),
            owner: self.owner.cloned(),
            file: Arc::clone(self.file),
            line: node.line,
            condition: Expr::all(parts),
        };
        Ok((rule, context.regexes()))
    }
}

/// A document's id, else its title.
fn called(node: &Node) -> Option<String> {
    node.text("id").ok().flatten().or_else(|| node.text("title").ok().flatten())
}

/// A document of a file: its text, its first line, and what it is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part<'t> {
    /// Its text.
    pub text: &'t str,
    /// How many lines stand before it.
    pub before: u64,
    /// Its id, else its title where it is a filter or a correlation, else the hash of its text; none where it can't be
    /// read.
    pub id: Option<String>,
}

/// The documents of a file, one by one.
#[must_use]
pub fn parts(text: &str) -> Vec<Part<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let documents = yaml::documents(text).into_iter().take(yaml::MAX_DOCUMENTS);
    documents
        .map(|document| {
            let id = yaml::read(document).ok().and_then(|node| {
                let id = node.text("id").ok().flatten().filter(|id| !id.is_empty());
                let named = node.get("correlation").or_else(|| node.get("filter")).is_some();
                id.or_else(|| if named { called(&node) } else { Some(version(document.text)) })
            });
            Part { text: document.text, before: document.before, id }
        })
        .collect()
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
