//! From the `detection` of a document to a condition: maps, lists, modifiers and the condition's
//! words resolved.

use crate::error::{Checked, Fault};
use crate::expr::{Cidr, Expr, How, Item, Test};
use crate::field::Field;
use crate::modifier::{Encoded, Modifiers, Operator, Transform};
use crate::pattern::{self, Part, Pattern};
use crate::pipeline::Context;
use crate::regexes::Expression;
use crate::yaml::{Node, Value};
use rsigma_parser::{ConditionExpr, Quantifier, SelectorPattern};
use std::sync::Arc;

/// Values of one list.
const MAX_VALUES: usize = 10_000;
/// Search identifiers of one rule.
const MAX_SELECTIONS: usize = 500;
/// Bytes of a value.
const MAX_VALUE: usize = 8 << 10;
/// Bytes of a condition.
const MAX_CONDITION: usize = 8 << 10;
/// How deep a condition may nest.
const MAX_DEPTH: usize = 32;
/// Values that placeholders may make of one.
const MAX_EXPANDED: usize = 10_000;
/// Parts of the finished condition.
const MAX_PARTS: usize = 20_000;
/// Up to so many dashes a `windash` value is written out in all forms, which an automaton finds
/// faster.
const DASHES_WRITTEN_OUT: usize = 2;

/// The condition of a `detection` (or of the `filter` of a filter).
pub(crate) fn detection(node: &Node, context: &Context<'_>, what: &str) -> Checked<Expr> {
    let members = node.as_map(&format!("`{what}`"))?;
    let mut selections: Vec<(&str, Expr)> = Vec::new();
    let mut condition = None;
    for (name, member) in members {
        match name.as_str() {
            "condition" => condition = Some(member),
            "timeframe" => {}
            "rules" if what == "filter" => {}
            _ => selections.push((name, selection(member, context, name)?)),
        }
    }
    let Some(condition) = condition else {
        return Err(Fault::new(
            node.line,
            format!("`{what}` has no `condition`"),
            "add `condition: selection`",
        ));
    };
    if selections.len() > MAX_SELECTIONS {
        return Err(Fault::new(
            node.line,
            format!("{} search identifiers, at most {MAX_SELECTIONS}", selections.len()),
            "split the rule",
        ));
    }
    let texts: Vec<&Node> = match &condition.value {
        Value::Text(_) => vec![condition],
        Value::List(items) if !items.is_empty() => items.iter().collect(),
        other => {
            return Err(Fault::new(
                condition.line,
                format!("`condition` must be a text, not {}", other.kind()),
                "write it like `selection and not filter`",
            ));
        }
    };
    let mut parts = Vec::new();
    for text in texts {
        parts.push(one_condition(text, &selections)?);
    }
    let expr = Expr::any(parts);
    let count = count(&expr);
    if count > MAX_PARTS {
        return Err(Fault::new(
            node.line,
            format!("a condition of {count} parts, at most {MAX_PARTS}"),
            "split the rule",
        ));
    }
    Ok(expr)
}

fn count(expr: &Expr) -> usize {
    match expr {
        Expr::And(parts) | Expr::Or(parts) | Expr::AtLeast(_, parts) => {
            parts.iter().map(count).sum::<usize>() + 1
        }
        Expr::Not(part) | Expr::Selection(_, part) => count(part) + 1,
        Expr::Item(_) => 1,
    }
}

fn one_condition(node: &Node, selections: &[(&str, Expr)]) -> Checked<Expr> {
    let hint = "see the words of a condition in the specification: and, or, not, 1 of, all of, them, brackets";
    let Value::Text(text) = &node.value else {
        return Err(Fault::new(
            node.line,
            format!("a condition must be a text, not {}", node.value.kind()),
            hint,
        ));
    };
    if text.len() > MAX_CONDITION {
        return Err(Fault::new(
            node.line,
            format!("a condition of {} bytes, at most {MAX_CONDITION}", text.len()),
            "use `1 of selection*`",
        ));
    }
    let (mut open, mut deepest) = (0usize, 0);
    for byte in text.bytes() {
        match byte {
            b'(' => open += 1,
            b')' => open = open.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(open);
    }
    if deepest > MAX_DEPTH {
        return Err(Fault::new(
            node.line,
            format!("brackets {deepest} deep, at most {MAX_DEPTH}"),
            "take brackets away",
        ));
    }
    if text.contains('|') {
        return Err(Fault::unsupported(
            node.line,
            "a condition with `|`: aggregations of Sigma 1",
            "write a correlation rule",
        ));
    }
    let parsed = rsigma_parser::parse_condition(text).map_err(|error| {
        let error = error.to_string();
        let last = error
            .lines()
            .map(|line| line.trim_matches([' ', '=', '|', '-', '>']))
            .rfind(|line| !line.is_empty())
            .unwrap_or_default();
        Fault::new(node.line, format!("condition `{text}`: {last}"), hint)
    })?;
    resolve(&parsed, selections, node.line, 0)
}

fn resolve(
    condition: &ConditionExpr,
    selections: &[(&str, Expr)],
    line: u64,
    depth: usize,
) -> Checked<Expr> {
    if depth > MAX_DEPTH {
        return Err(Fault::new(line, "the condition is too deep", "take brackets away"));
    }
    let named =
        |(name, expr): &(&str, Expr)| Expr::Selection(Arc::from(*name), Box::new(expr.clone()));
    let all = |parts: &[ConditionExpr]| -> Checked<Vec<Expr>> {
        parts.iter().map(|part| resolve(part, selections, line, depth + 1)).collect()
    };
    Ok(match condition {
        ConditionExpr::And(parts) => Expr::all(all(parts)?),
        ConditionExpr::Or(parts) => Expr::any(all(parts)?),
        ConditionExpr::Not(part) => {
            Expr::Not(Box::new(resolve(part, selections, line, depth + 1)?))
        }
        ConditionExpr::Identifier(wanted) => {
            match selections.iter().find(|(name, _)| name == wanted) {
                Some(found) => named(found),
                None => {
                    return Err(Fault::new(
                        line,
                        format!("the condition names `{wanted}`, which is not there"),
                        "name a search identifier of this rule",
                    ));
                }
            }
        }
        ConditionExpr::Selector { quantifier, pattern } => {
            let chosen: Vec<Expr> = selections
                .iter()
                .filter(|(name, _)| match pattern {
                    SelectorPattern::Them => !name.starts_with('_'),
                    SelectorPattern::Pattern(pattern) => {
                        let parts = pattern.split('*').map(|text| Part::Text(text.to_owned()));
                        let mut pieces = Vec::new();
                        for part in parts {
                            pieces.push(part);
                            pieces.push(Part::Many);
                        }
                        pieces.pop();
                        Pattern::new(pieces, true).matches(name, name)
                    }
                })
                .map(named)
                .collect();
            if chosen.is_empty() {
                return Err(Fault::new(
                    line,
                    format!("`{quantifier} of {pattern}` chooses no search identifier"),
                    "give the pattern the beginning of their names, like `1 of selection*`",
                ));
            }
            match quantifier {
                Quantifier::Any => Expr::any(chosen),
                Quantifier::All => Expr::all(chosen),
                Quantifier::Count(least) => {
                    let least = usize::try_from(*least).unwrap_or(usize::MAX);
                    match least {
                        0 => {
                            return Err(Fault::new(
                                line,
                                "`0 of` is always true",
                                "use `not 1 of`",
                            ));
                        }
                        1 => Expr::any(chosen),
                        _ => Expr::AtLeast(least, chosen),
                    }
                }
            }
        }
    })
}

/// A search identifier: a map, a list of maps, or keywords.
pub(crate) fn selection(node: &Node, context: &Context<'_>, name: &str) -> Checked<Expr> {
    match &node.value {
        Value::Map(members) if !members.is_empty() => {
            let mut parts = Vec::new();
            for (key, value) in members {
                parts.push(field(key, value, context)?);
            }
            Ok(Expr::all(parts))
        }
        Value::List(items) if !items.is_empty() => {
            bounded(items.len(), node.line)?;
            let mut parts = Vec::new();
            let mut keywords = Vec::new();
            for item in items {
                match &item.value {
                    Value::Map(_) | Value::List(_) => parts.push(selection(item, context, name)?),
                    _ => keywords.push(item.clone()),
                }
            }
            if !keywords.is_empty() {
                let keywords = Node { line: node.line, value: Value::List(keywords) };
                parts.insert(0, field("", &keywords, context)?);
            }
            Ok(Expr::any(parts))
        }
        Value::Text(_) | Value::Int(_) | Value::Float(_) | Value::Bool(_) => {
            field("", node, context)
        }
        other => Err(Fault::new(
            node.line,
            format!(
                "search identifier `{name}` is {}",
                if matches!(other, Value::Null) { "empty" } else { "an empty list or map" }
            ),
            "give it `field: value` lines or a list of keywords",
        )),
    }
}

fn bounded(values: usize, line: u64) -> Checked<()> {
    if values > MAX_VALUES {
        return Err(Fault::new(
            line,
            format!("a list of {values} values, at most {MAX_VALUES}"),
            "keep long lists as intelligence lists, or use a placeholder with `expand`",
        ));
    }
    Ok(())
}

/// One line of a map: `field|modifiers: values`.
fn field(key: &str, node: &Node, context: &Context<'_>) -> Checked<Expr> {
    let mut words = key.split('|');
    let name = words.next().unwrap_or_default();
    let words: Vec<&str> = words.collect();
    let modifiers = Modifiers::parse(&words, node.line)?;
    let field = (!name.is_empty()).then(|| Arc::new(context.field(name)));
    let values: Vec<&Node> = match &node.value {
        Value::List(items) => {
            bounded(items.len(), node.line)?;
            items.iter().collect()
        }
        _ => vec![node],
    };
    if values.is_empty() {
        return Err(Fault::new(
            node.line,
            format!("`{key}` has an empty list"),
            "give it a value, or `null` for no value",
        ));
    }
    for value in &values {
        if matches!(value.value, Value::List(_) | Value::Map(_)) {
            return Err(Fault::new(
                value.line,
                format!("a value of `{key}` is {}", value.value.kind()),
                "values are texts, numbers, booleans or null",
            ));
        }
    }
    if modifiers.all && values.len() < 2 {
        return Err(Fault::new(
            node.line,
            format!("`{key}`: `all` with a single value"),
            "take `all` away",
        ));
    }
    let line = Line { key: Arc::from(key), field, modifiers, context };
    let mut tests = Vec::new();
    for value in &values {
        line.value(value, &mut tests)?;
    }
    let expr = if line.modifiers.all {
        Expr::all(tests.into_iter().map(Expr::any).collect())
    } else {
        line.join(tests.into_iter().flatten().collect())
    };
    if !line.modifiers.neq {
        return Ok(expr);
    }
    // What is not there differs from nothing.
    let differs = Expr::Not(Box::new(expr));
    Ok(match &line.field {
        Some(_) => Expr::And(vec![line.item(Test::Exists), differs]),
        None => differs,
    })
}

/// A line of a map while its values are read.
struct Line<'a> {
    key: Arc<str>,
    field: Option<Arc<Field>>,
    modifiers: Modifiers,
    context: &'a Context<'a>,
}

impl Line<'_> {
    /// A regular expression, within what a document may have of them.
    fn expression(&self, text: &str, line: u64) -> Checked<Expression> {
        let expression = Expression::compile(text, self.modifiers.flags, line)?;
        self.context.count_regex(expression.size, line)?;
        Ok(expression)
    }

    fn item(&self, test: Test) -> Expr {
        Expr::Item(Arc::new(Item { field: self.field.clone(), test, key: Arc::clone(&self.key) }))
    }

    /// Any of these, all patterns in one item.
    fn join(&self, parts: Vec<Expr>) -> Expr {
        let (mut patterns, mut others) = (Vec::new(), Vec::new());
        for part in parts {
            match part {
                Expr::Item(item) if matches!(item.test, Test::Any(_)) => {
                    if let Test::Any(some) = &item.test {
                        patterns.extend(some.iter().cloned());
                    }
                }
                other => others.push(other),
            }
        }
        if !patterns.is_empty() {
            others.insert(0, self.item(Test::Any(patterns)));
        }
        Expr::any(others)
    }

    /// Adds what one value asks for: any of the tests of an entry.
    fn value(&self, node: &Node, tests: &mut Vec<Vec<Expr>>) -> Checked<()> {
        let wrong = |wanted: &str| {
            Err(Fault::new(
                node.line,
                format!("`{}` has {} as value", self.key, node.value.kind()),
                format!("give it {wanted}"),
            ))
        };
        let compare = |order| match number(&node.value) {
            Some(number) => Ok((order, number)),
            None => wrong("a number").map(|()| (order, 0.0)),
        };
        if let Value::Text(text) = &node.value
            && text.len() > MAX_VALUE
        {
            return Err(Fault::new(
                node.line,
                format!("a value of {} bytes, at most {MAX_VALUE}", text.len()),
                "shorten it",
            ));
        }
        let test = match (self.modifiers.operator, self.modifiers.part) {
            (Operator::Compare(order), Some(part)) => Test::Part(part, vec![compare(order)?]),
            (_, Some(part)) => Test::Part(part, vec![compare(crate::expr::Order::Equal)?]),
            (Operator::Compare(order), None) => {
                let (order, number) = compare(order)?;
                Test::Compare(order, number)
            }
            (Operator::Match, None) => {
                tests.push(vec![self.patterns(node)?]);
                return Ok(());
            }
            (Operator::Regex, None) => match &node.value {
                Value::Text(text) => Test::Regex(self.expression(text, node.line)?),
                Value::Int(number) => Test::Regex(self.expression(&number.to_string(), node.line)?),
                _ => return wrong("a regular expression in quotes"),
            },
            (Operator::Cidr, None) => match &node.value {
                Value::Text(text) => match Cidr::parse(text) {
                    Some(network) => Test::Cidr(network),
                    None => {
                        return Err(Fault::new(
                            node.line,
                            format!("`{text}` is no network"),
                            "write it like 10.0.0.0/8 or fe80::/10",
                        ));
                    }
                },
                _ => return wrong("a network like 10.0.0.0/8"),
            },
            (Operator::Exists, None) => {
                let exists = match &node.value {
                    Value::Bool(exists) => *exists,
                    Value::Text(text) if matches!(text.as_str(), "true" | "yes") => true,
                    Value::Text(text) if matches!(text.as_str(), "false" | "no") => false,
                    _ => return wrong("true or false"),
                };
                if self.field.is_none() {
                    return wrong("a field before `|exists`");
                }
                tests.push(vec![self.item(if exists { Test::Exists } else { Test::Null })]);
                return Ok(());
            }
            (Operator::FieldRef, None) => match (&node.value, &self.field) {
                (Value::Text(other), Some(_)) if !other.is_empty() => Test::Field {
                    other: Arc::new(self.context.field(other)),
                    how: match self.modifiers.transforms.first() {
                        Some(Transform::StartsWith) => How::StartsWith,
                        Some(Transform::EndsWith) => How::EndsWith,
                        Some(Transform::Contains) => How::Contains,
                        _ => How::Equal,
                    },
                    cased: self.modifiers.cased,
                },
                _ => return wrong("the name of another field"),
            },
        };
        tests.push(vec![self.item(test)]);
        Ok(())
    }

    /// A value without a type modifier.
    fn patterns(&self, node: &Node) -> Checked<Expr> {
        let (line, modifiers) = (node.line, &self.modifiers);
        let written = match &node.value {
            Value::Null if !modifiers.transforms.is_empty() || self.field.is_none() => {
                return Err(Fault::new(
                    line,
                    format!("`{}` has null as value", self.key),
                    "null stands alone, without modifiers, for a field that is not there",
                ));
            }
            Value::Null => return Ok(self.item(Test::Null)),
            Value::Text(text) if modifiers.transforms.contains(&Transform::Expand) => {
                self.context.expand(text, MAX_EXPANDED, line)?
            }
            Value::Text(text) => vec![pattern::pieces(text)],
            other => vec![vec![Part::Text(scalar(other))]],
        };
        let mut values: Vec<Encoded> = written.into_iter().map(Encoded::Written).collect();
        for transform in &modifiers.transforms {
            let mut next = Vec::new();
            for value in values {
                next.extend(value.encode(*transform, line)?);
            }
            values = next;
        }
        let mut patterns = Vec::new();
        for value in values {
            let mut parts = value.written(line)?;
            let place = |wanted: Transform| modifiers.transforms.contains(&wanted);
            // A keyword may stand anywhere.
            let anywhere = place(Transform::Contains)
                || self.field.is_none()
                    && !place(Transform::StartsWith)
                    && !place(Transform::EndsWith);
            if anywhere || place(Transform::EndsWith) {
                parts.insert(0, Part::Many);
            }
            if anywhere || place(Transform::StartsWith) {
                parts.push(Part::Many);
            }
            for parts in write_out_dashes(parts) {
                patterns.push(Pattern::new(parts, modifiers.cased));
            }
        }
        if patterns.is_empty() {
            return Err(Fault::new(
                line,
                format!("`{}` has a value too short for its encoding", self.key),
                "base64offset needs at least two bytes",
            ));
        }
        Ok(self.item(Test::Any(patterns)))
    }
}

/// A value with few dashes in every form that `windash` allows.
fn write_out_dashes(parts: Vec<Part>) -> Vec<Vec<Part>> {
    let dashes = parts.iter().filter(|part| **part == Part::Dash).count();
    if dashes == 0 || dashes > DASHES_WRITTEN_OUT {
        return vec![parts];
    }
    let mut forms = vec![Vec::new()];
    for part in parts {
        forms = match part {
            Part::Dash => forms
                .iter()
                .flat_map(|form| {
                    pattern::DASHES.iter().map(move |dash| {
                        let mut form: Vec<Part> = form.clone();
                        form.push(Part::Text(dash.to_string()));
                        form
                    })
                })
                .collect(),
            other => {
                forms.iter_mut().for_each(|form| form.push(other.clone()));
                forms
            }
        };
    }
    forms
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Int(number) => Some(*number as f64),
        Value::Float(number) => Some(*number),
        Value::Text(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// A scalar as the text that it is compared by.
fn scalar(value: &Value) -> String {
    match value {
        Value::Int(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Bool(value) => value.to_string(),
        Value::Text(text) => text.clone(),
        _ => String::new(),
    }
}
