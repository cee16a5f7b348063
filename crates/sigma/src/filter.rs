//! Filters: conditions that are joined to those of rules.

use crate::error::{Checked, Fault, Refusal};
use crate::expr::Expr;
use crate::lower;
use crate::pipeline::{self, Pipelines};
use crate::rule::{LogSource, Rule};
use crate::yaml::{self, Document, Node, Value};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_128;

/// A filter: a record is a match of its rules only where it fulfils this condition too.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    pub(crate) file: Arc<str>,
    pub(crate) owner: Option<Arc<str>>,
    pub(crate) line: u64,
    pub(crate) title: String,
    pub(crate) version: String,
    pub(crate) source: LogSource,
    /// Ids, names or titles of rules; none means every rule.
    pub(crate) rules: Option<Vec<String>>,
    document: Node,
}

/// The hash of a document's text, 32 hexadecimal digits.
pub(crate) fn version(text: &str) -> String {
    format!("{:032x}", xxh3_128(text.trim().as_bytes()))
}

impl Filter {
    /// Reads a text that is a filter and nothing else, with the pipelines that come with Palisade. `name` stands for
    /// it in messages.
    ///
    /// # Errors
    /// What is wrong with it, where, and a hint.
    pub fn parse(name: &str, text: &str) -> Result<Self, Box<Refusal>> {
        let refusal = |fault: Fault| {
            Box::new(Refusal {
                kind: fault.kind,
                owner: None,
                file: Arc::from(name),
                line: fault.line,
                rule: None,
                reason: fault.reason,
                hint: fault.hint,
            })
        };
        let hint = "write one document with `title`, and `filter` with `rules`, selections and a condition";
        if text.len() > yaml::MAX_FILE {
            return Err(refusal(Fault::new(0, "a filter that is too long", "shorten it")));
        }
        let documents = yaml::documents(text);
        let [document] = documents.as_slice() else {
            return Err(refusal(Fault::new(0, "not exactly one document", hint)));
        };
        let read = |document: Document<'_>| {
            let node = yaml::read(document)?;
            match node.get("filter") {
                Some(filter) => {
                    Self::of(&Arc::from(name), None, &Pipelines::shipped(), &node, filter, document)
                }
                None => Err(Fault::new(node.line, "not a filter", hint)),
            }
        };
        read(*document).map_err(refusal)
    }

    pub(crate) fn of(
        file: &Arc<str>,
        owner: Option<&Arc<str>>,
        pipelines: &Pipelines,
        node: &Node,
        filter: &Node,
        document: Document<'_>,
    ) -> Checked<Self> {
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
        let title = title(node)?;
        let source = node.get("logsource").map(pipeline::log_source).transpose()?;
        let source = source.unwrap_or_default();
        // So that it is refused here should it be wrong.
        lower::detection(filter, &pipelines.context(&source)?, "filter")?;
        Ok(Self {
            file: Arc::clone(file),
            owner: owner.cloned(),
            line: node.line,
            title,
            version: version(document.text),
            source,
            rules,
            document: filter.clone(),
        })
    }

    /// Its title.
    #[must_use]
    pub fn title(&self) -> &str {
        &self.title
    }

    /// The ids, names or titles of the rules that it is for; `None` for every rule.
    #[must_use]
    pub fn rules(&self) -> Option<&[String]> {
        self.rules.as_deref()
    }

    /// Whether it is for a rule: it names it, and its log source covers the rule's.
    #[must_use]
    pub fn is_for(&self, rule: &Rule) -> bool {
        let named = self.rules.as_ref().is_none_or(|rules| {
            rules.iter().any(|wanted| {
                *wanted == rule.id || *wanted == rule.title || Some(wanted) == rule.name.as_ref()
            })
        });
        named && self.source.covers(&rule.source)
    }

    /// Its condition for rules of a log source, and the bytes of its regular expressions, compiled.
    pub(crate) fn condition(
        &self,
        pipelines: &Pipelines,
        source: &LogSource,
    ) -> Checked<(Expr, usize)> {
        let context = pipelines.context(source)?;
        let condition = lower::detection(&self.document, &context, "filter")?;
        Ok((condition, context.regexes()))
    }
}

/// Bytes of a title or an id.
pub(crate) const MAX_NAME: usize = 1_024;

/// The title of a document.
pub(crate) fn title(node: &Node) -> Checked<String> {
    match node.text("title")?.filter(|title| !title.is_empty()) {
        Some(title) if title.len() <= MAX_NAME => Ok(title),
        Some(_) => Err(Fault::new(node.line, "a title that is too long", "shorten it")),
        None => Err(Fault::new(node.line, "a document without `title`", "add a title")),
    }
}
