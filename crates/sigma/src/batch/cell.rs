//! One value of a record as the texts that it is compared by.

use serde_json::Value;
use std::borrow::Cow;
use std::fmt::Write;

/// How deep a value is walked into.
const MAX_DEPTH: usize = 64;

/// A value: one text, or those of the members of an array. An array matches when a member does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Cell<'a> {
    One(Cow<'a, str>),
    Many(Vec<String>),
}

/// Into what a walk goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Walk {
    /// The members of arrays.
    Members,
    /// Those, and what stands in objects.
    Leaves,
}

impl<'a> Cell<'a> {
    /// The texts.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        let (one, many) = match self {
            Self::One(text) => (Some(text.as_ref()), None),
            Self::Many(texts) => (None, Some(texts)),
        };
        one.into_iter().chain(many.into_iter().flatten().map(String::as_str))
    }

    /// The value that a JSON text means; null is none.
    pub(super) fn of_json_text(text: &'a str) -> Option<Self> {
        match text.as_bytes() {
            [b'"', inner @ .., b'"'] if memchr::memchr(b'\\', inner).is_none() => {
                text.get(1..text.len() - 1).map(|text| Self::One(Cow::Borrowed(text)))
            }
            b"true" | b"false" => Some(Self::One(Cow::Borrowed(text))),
            [b'-' | b'0'..=b'9', ..] => Some(Self::One(number_text(text))),
            _ => Self::of_json(&serde_json::from_str(text).ok()?, Walk::Members),
        }
    }

    /// A JSON value; null is none, and so is an array without any scalar.
    pub(super) fn of_json(value: &Value, walk: Walk) -> Option<Self> {
        match value {
            Value::Null => None,
            Value::String(text) => Some(Self::One(Cow::Owned(text.clone()))),
            Value::Bool(value) => {
                Some(Self::One(Cow::Borrowed(if *value { "true" } else { "false" })))
            }
            Value::Number(number) => {
                let text = number.to_string();
                Some(Self::One(Cow::Owned(number_text(&text).into_owned())))
            }
            Value::Array(_) | Value::Object(_) => {
                let mut texts = Vec::new();
                collect(value, walk, 0, &mut texts);
                Some(Self::Many(texts))
            }
        }
    }

    /// What stands below a value at a dotted path; arrays on the way mean any of their members.
    pub(super) fn below(value: &Value, path: &str) -> Option<Self> {
        let mut texts = Vec::new();
        let mut found = false;
        descend(value, path, 0, &mut |value| {
            found |= !value.is_null();
            collect(value, Walk::Members, 0, &mut texts);
        });
        match (found, texts.len()) {
            (false, _) => None,
            (true, 1) => texts.pop().map(|text| Self::One(Cow::Owned(text))),
            (true, _) => Some(Self::Many(texts)),
        }
    }
}

fn descend(value: &Value, path: &str, depth: usize, visit: &mut dyn FnMut(&Value)) {
    if depth > MAX_DEPTH {
        return;
    }
    match value {
        Value::Array(members) => {
            members.iter().for_each(|member| descend(member, path, depth + 1, visit));
        }
        Value::Object(members) => {
            if let Some(value) = members.get(path) {
                visit(value);
            } else {
                for (at, _) in path.match_indices('.') {
                    if let (Some(key), Some(rest)) = (path.get(..at), path.get(at + 1..))
                        && let Some(value) = members.get(key)
                    {
                        descend(value, rest, depth + 1, visit);
                    }
                }
            }
        }
        _ => {}
    }
}

/// The scalars of a value.
fn collect(value: &Value, walk: Walk, depth: usize, texts: &mut Vec<String>) {
    if depth > MAX_DEPTH {
        return;
    }
    match value {
        Value::Null => {}
        Value::Array(members) => {
            members.iter().for_each(|member| collect(member, walk, depth + 1, texts));
        }
        Value::Object(members) if walk == Walk::Leaves => {
            members.values().for_each(|member| collect(member, walk, depth + 1, texts));
        }
        // A field is compared by what it holds, not by what stands in objects below it.
        Value::Object(_) => {}
        scalar => {
            if let Some(Cell::One(text)) = Cell::of_json(scalar, walk) {
                texts.push(text.into_owned());
            }
        }
    }
}

/// A number of JSON by its decimal form: whole numbers as they are written, others by the double that
/// they mean, so that `1.50`, `1.5` and `15e-1` are the same.
pub(super) fn number_text(text: &str) -> Cow<'_, str> {
    let whole = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    if whole && text != "-0" {
        return Cow::Borrowed(text);
    }
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Cow::Owned(double_text(value)),
        _ => Cow::Borrowed(text),
    }
}

/// A double by its decimal form.
pub(super) fn double_text(value: f64) -> String {
    let mut text = String::new();
    // Zero has no sign.
    let _ = write!(text, "{}", value + 0.0);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(json: &str) -> Option<Vec<String>> {
        Cell::of_json_text(json).map(|cell| cell.texts().map(str::to_owned).collect())
    }

    #[test]
    fn json_values_have_one_form() {
        for (json, expected) in [
            (r#""a\"b""#, vec!["a\"b"]),
            ("1.50", vec!["1.5"]),
            ("15e-1", vec!["1.5"]),
            ("100.0", vec!["100"]),
            ("-0.0", vec!["0"]),
            ("7", vec!["7"]),
            ("12345678901234567890123", vec!["12345678901234567890123"]),
            ("true", vec!["true"]),
            (r#"["a", [1, null], {"b": 2}]"#, vec!["a", "1"]),
            ("[]", vec![]),
            ("{}", vec![]),
        ] {
            assert_eq!(texts(json).unwrap(), expected, "{json}");
        }
        assert_eq!(texts("null"), None);
    }

    #[test]
    fn paths_go_through_arrays() {
        let value: Value =
            serde_json::from_str(r#"[{"a": {"b": "x"}}, {"a.b": 2}, {"c": 3}]"#).unwrap();
        let cell = Cell::below(&value, "a.b").unwrap();
        assert_eq!(cell.texts().collect::<Vec<_>>(), ["x", "2"]);
        assert_eq!(Cell::below(&value, "d"), None);
    }
}
