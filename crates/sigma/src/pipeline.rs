//! Processing pipelines in the form of pySigma: other names for fields, values for placeholders, other
//! log sources and further conditions.
//!
//! One difference follows from what they serve: pySigma translates a rule for one store, so a mapped
//! name replaces the rule's. Here records of all shapes come in together, so mapped names are tried
//! after the rule's own, and the first that has a value in a record is taken.

use crate::error::{Checked, Fault, Refusal};
use crate::field::Field;
use crate::pattern::{self, Part};
use crate::regexes::MAX_OF_DOCUMENT;
use crate::rule::LogSource;
use crate::yaml::{self, Document, Node, Value};
use std::cell::Cell;
use std::sync::Arc;

/// The pipelines that come with Palisade, and their names.
const SHIPPED: [(&str, &str); 4] = [
    ("windows", include_str!("../definitions/windows.yml")),
    ("sysmon", include_str!("../definitions/sysmon.yml")),
    ("ecs", include_str!("../definitions/ecs.yml")),
    ("ocsf", include_str!("../definitions/ocsf.yml")),
];
/// Steps of all pipelines together.
const MAX_STEPS: usize = 1_000;

/// Pipelines in the order in which they are applied.
#[derive(Debug, Clone, Default)]
pub struct Pipelines {
    steps: Vec<Step>,
}

#[derive(Debug, Clone)]
struct Step {
    /// For rules of one of these log sources; for all when there is none.
    sources: Vec<LogSource>,
    action: Action,
}

#[derive(Debug, Clone)]
enum Action {
    Names(Vec<(String, Vec<String>)>),
    Prefix(String),
    /// Placeholders and the values that they stand for.
    Placeholders(Vec<(String, Vec<String>)>),
    /// Placeholders of these names, all when there is none, stand for anything.
    Wildcards(Vec<String>),
    Source(LogSource),
    Condition(Node),
    Fail(String),
}

impl Pipelines {
    /// No pipeline.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// The pipelines that come with Palisade: `windows`, `sysmon`, `ecs` and `ocsf`.
    #[must_use]
    pub fn shipped() -> Self {
        let mut pipelines = Self::none();
        for (name, text) in SHIPPED {
            let added = pipelines.push(name, text);
            debug_assert!(added.is_ok(), "{added:?}");
        }
        pipelines
    }

    /// Adds a pipeline after the others.
    ///
    /// # Errors
    /// It is not readable, or has a transformation that is not supported.
    pub fn push(&mut self, file: &str, text: &str) -> Result<(), Box<Refusal>> {
        self.read(text).map_err(|fault| {
            Box::new(Refusal {
                kind: fault.kind,
                owner: None,
                file: Arc::from(file),
                line: fault.line,
                rule: None,
                reason: fault.reason,
                hint: fault.hint,
            })
        })
    }

    fn read(&mut self, text: &str) -> Checked<()> {
        if text.len() > yaml::MAX_FILE {
            return Err(Fault::new(
                0,
                format!("a pipeline of {} bytes, at most {}", text.len(), yaml::MAX_FILE),
                "split it",
            ));
        }
        let node = yaml::read(Document { text, before: 0 })?;
        let variables = match node.get("vars") {
            Some(vars) => names(vars)?,
            None => Vec::new(),
        };
        let Some(Node { value: Value::List(transformations), .. }) = node.get("transformations")
        else {
            return Err(Fault::new(
                node.line,
                "a pipeline without `transformations`",
                "give it a list of transformations, each with a `type`",
            ));
        };
        for transformation in transformations {
            let step = step(transformation, &variables)?;
            if self.steps.len() >= MAX_STEPS {
                return Err(Fault::new(
                    transformation.line,
                    format!("over {MAX_STEPS} transformations"),
                    "join the mappings",
                ));
            }
            self.steps.push(step);
        }
        Ok(())
    }

    /// What applies to rules of a log source.
    pub(crate) fn context(&self, source: &LogSource) -> Checked<Context<'_>> {
        let mut source = source.clone();
        let mut steps = Vec::new();
        for step in &self.steps {
            if !step.sources.is_empty() && !step.sources.iter().any(|s| s.covers(&source)) {
                continue;
            }
            match &step.action {
                Action::Source(other) => {
                    let set = |to: &mut Option<String>, from: &Option<String>| {
                        if from.is_some() {
                            to.clone_from(from);
                        }
                    };
                    set(&mut source.product, &other.product);
                    set(&mut source.category, &other.category);
                    set(&mut source.service, &other.service);
                }
                Action::Fail(message) => {
                    return Err(Fault::unsupported(
                        0,
                        format!("a pipeline refuses it: {message}"),
                        "see the pipeline's `rule_failure`",
                    ));
                }
                action => steps.push(action),
            }
        }
        Ok(Context { steps, source, regexes: Cell::new(0) })
    }
}

fn step(node: &Node, variables: &[(String, Vec<String>)]) -> Checked<Step> {
    let kind = node.text("type")?.unwrap_or_default();
    let list = |key: &str| node.texts(key);
    let action = match kind.as_str() {
        "field_name_mapping" => match node.get("mapping") {
            Some(mapping) => Action::Names(names(mapping)?),
            None => {
                return Err(Fault::new(
                    node.line,
                    "`field_name_mapping` without `mapping`",
                    "add `mapping:` with `Field: other.name` lines",
                ));
            }
        },
        "field_name_prefix" => Action::Prefix(node.text("prefix")?.unwrap_or_default()),
        "value_placeholders" => {
            let include = list("include")?;
            let chosen = variables
                .iter()
                .filter(|(name, _)| include.is_empty() || include.contains(name))
                .cloned()
                .collect();
            Action::Placeholders(chosen)
        }
        "wildcard_placeholders" => Action::Wildcards(list("include")?),
        "change_logsource" => Action::Source(log_source(node)?),
        "add_condition" => match node.get("conditions") {
            Some(conditions) => Action::Condition(conditions.clone()),
            None => {
                return Err(Fault::new(
                    node.line,
                    "`add_condition` without `conditions`",
                    "add `conditions:` with `Field: value` lines",
                ));
            }
        },
        "rule_failure" => Action::Fail(node.text("message")?.unwrap_or_default()),
        other => {
            return Err(Fault::unsupported(
                node.line,
                format!("transformation `{other}`"),
                "known are field_name_mapping, field_name_prefix, value_placeholders, wildcard_placeholders, change_logsource, add_condition and rule_failure",
            ));
        }
    };
    let mut sources = Vec::new();
    if let Some(conditions) = node.get("rule_conditions") {
        let Value::List(conditions) = &conditions.value else {
            return Err(Fault::new(
                conditions.line,
                "`rule_conditions` must be a list",
                "write it as a list of `type: logsource` entries",
            ));
        };
        for condition in conditions {
            if condition.text("type")?.as_deref() != Some("logsource") {
                return Err(Fault::unsupported(
                    condition.line,
                    "a rule condition that is not `type: logsource`",
                    "choose rules by their log source",
                ));
            }
            sources.push(log_source(condition)?);
        }
    }
    Ok(Step { sources, action })
}

/// Names with a value or a list of values each.
fn names(node: &Node) -> Checked<Vec<(String, Vec<String>)>> {
    let members = node.as_map("a mapping")?;
    members.iter().map(|(name, _)| Ok((name.clone(), node.texts(name)?))).collect()
}

/// The log source in a map.
pub(crate) fn log_source(node: &Node) -> Checked<LogSource> {
    let text = |key: &str| {
        Ok(node.text(key)?.map(|text| text.to_lowercase()).filter(|text| !text.is_empty()))
    };
    Ok(LogSource {
        product: text("product")?,
        category: text("category")?,
        service: text("service")?,
    })
}

/// What pipelines do to the rules of one log source.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    steps: Vec<&'a Action>,
    /// The log source, as a pipeline may have changed it.
    pub(crate) source: LogSource,
    /// Bytes of the regular expressions that were compiled so far.
    regexes: Cell<usize>,
}

impl Context<'_> {
    /// Takes in a compiled expression of so many bytes.
    pub(crate) fn count_regex(&self, bytes: usize, line: u64) -> Checked<()> {
        let sum = self.regexes.get().saturating_add(bytes);
        self.regexes.set(sum);
        if sum > MAX_OF_DOCUMENT {
            return Err(Fault::new(
                line,
                format!("the regular expressions have over {MAX_OF_DOCUMENT} bytes when compiled"),
                "split the document into several rules, or make repetitions smaller",
            ));
        }
        Ok(())
    }

    /// Bytes of the regular expressions that were compiled so far.
    pub(crate) fn regexes(&self) -> usize {
        self.regexes.get()
    }

    pub(crate) fn field(&self, name: &str) -> Field {
        let mut mapped = Vec::new();
        for step in &self.steps {
            match step {
                Action::Names(names) => {
                    for (_, paths) in names.iter().filter(|(from, _)| from == name) {
                        mapped.extend(paths.iter().cloned());
                    }
                }
                Action::Prefix(prefix) => mapped.push(format!("{prefix}{name}")),
                _ => {}
            }
        }
        Field::new(name, &mapped)
    }

    /// Conditions that pipelines add.
    pub(crate) fn conditions(&self) -> impl Iterator<Item = &Node> {
        self.steps.iter().filter_map(|step| match step {
            Action::Condition(node) => Some(node),
            _ => None,
        })
    }

    /// The values that a value with placeholders stands for.
    pub(crate) fn expand(&self, text: &str, most: usize, line: u64) -> Checked<Vec<Vec<Part>>> {
        let mut forms: Vec<Vec<Part>> = vec![Vec::new()];
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            let (before, from) = rest.split_at_checked(at).unwrap_or((rest, ""));
            let name = from.get(1..).and_then(|from| from.split_once('%'));
            if let Some(before) = before.strip_suffix('\\') {
                plain.push_str(before);
                plain.push('%');
                rest = from.get(1..).unwrap_or_default();
                continue;
            }
            plain.push_str(before);
            let Some((name, behind)) = name.filter(|(name, _)| !name.is_empty()) else {
                plain.push('%');
                rest = from.get(1..).unwrap_or_default();
                continue;
            };
            let literal = pattern::pieces(&std::mem::take(&mut plain));
            let values = self.placeholder(name).ok_or_else(|| {
                Fault::unsupported(
                    line,
                    format!("placeholder `%{name}%` has no value"),
                    "give it values in a pipeline: `vars` and a transformation `value_placeholders`",
                )
            })?;
            if forms.len().saturating_mul(values.len()) > most {
                return Err(Fault::new(
                    line,
                    format!("placeholders that make over {most} values of one"),
                    "use fewer placeholders in one value",
                ));
            }
            forms = forms
                .iter()
                .flat_map(|form| {
                    let literal = &literal;
                    values.iter().map(move |value| {
                        form.iter().chain(literal).chain(value).cloned().collect()
                    })
                })
                .collect();
            rest = behind;
        }
        plain.push_str(rest);
        let literal = pattern::pieces(&plain);
        for form in &mut forms {
            form.extend(literal.iter().cloned());
        }
        Ok(forms)
    }

    fn placeholder(&self, name: &str) -> Option<Vec<Vec<Part>>> {
        self.steps.iter().find_map(|step| match step {
            Action::Placeholders(known) => known
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, values)| values.iter().map(|value| pattern::pieces(value)).collect()),
            Action::Wildcards(names) if names.is_empty() || names.iter().any(|n| n == name) => {
                Some(vec![vec![Part::Many]])
            }
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_pipelines_read_and_map() {
        let mut pipelines = Pipelines::none();
        for (name, text) in SHIPPED {
            pipelines.push(name, text).unwrap();
        }
        let context = pipelines.context(&LogSource::default()).unwrap();
        let field = context.field("CommandLine");
        assert!(field.paths.iter().any(|path| path == "process.command_line"));
        assert_eq!(field.paths.first().map(String::as_str), Some("CommandLine"));
    }

    #[test]
    fn placeholders_stand_for_values() {
        let mut pipelines = Pipelines::none();
        let text = "vars:\n  servers: ['srv*', 'dc1']\n  site: x\ntransformations:\n  - type: value_placeholders\n";
        pipelines.push("p", text).unwrap();
        let context = pipelines.context(&LogSource::default()).unwrap();
        let expand = |text: &str| {
            context.expand(text, 10, 3).map(|forms| {
                forms
                    .into_iter()
                    .map(|parts| {
                        parts
                            .into_iter()
                            .map(|part| match part {
                                Part::Text(text) => text,
                                _ => "*".to_owned(),
                            })
                            .collect::<String>()
                    })
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(expand("a-%servers%-%site%").unwrap(), ["a-srv*-x", "a-dc1-x"]);
        assert_eq!(expand(r"\%plain%servers%").unwrap(), ["%plainsrv*", "%plaindc1"]);
        assert_eq!(expand("50%").unwrap(), ["50%"]);
        let fault = expand("%unknown%").unwrap_err();
        assert_eq!((fault.kind, fault.line), (crate::error::Kind::Unsupported, Some(3)));
    }

    #[test]
    fn an_unknown_transformation_is_named() {
        let refusal =
            Pipelines::none().push("p.yml", "transformations:\n  - type: magic\n").unwrap_err();
        assert!(refusal.to_string().starts_with("p.yml:2: unsupported: transformation `magic`"));
    }
}
