//! YAML documents with the line of each value.

use crate::error::{Checked, Fault};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use std::fmt;

/// Bytes of one file.
pub(crate) const MAX_FILE: usize = 4 << 20;
/// Documents of one file.
pub(crate) const MAX_DOCUMENTS: usize = 10_000;
/// Values of one document, aliases expanded.
const MAX_NODES: usize = 50_000;
/// How deep values may nest.
const MAX_DEPTH: usize = 32;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    /// The line in its file, from 1.
    pub(crate) line: u64,
    pub(crate) value: Value,
}

/// A value as YAML types it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// In the order of the file; keys are unique.
    Map(Vec<(String, Node)>),
}

impl Value {
    /// What it is, for a message.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

impl Node {
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(members) => {
                members.iter().find(|(name, _)| name == key).map(|(_, node)| node)
            }
            _ => None,
        }
    }

    pub(crate) fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The members of a map.
    pub(crate) fn as_map(&self, what: &str) -> Checked<&[(String, Node)]> {
        match &self.value {
            Value::Map(members) => Ok(members),
            other => Err(Fault::new(
                self.line,
                format!("{what} must be a map, not {}", other.kind()),
                "write it as `key: value` lines",
            )),
        }
    }

    /// A text under a key: a scalar that YAML types otherwise counts by how it is written.
    pub(crate) fn text(&self, key: &str) -> Checked<Option<String>> {
        let Some(node) = self.get(key) else { return Ok(None) };
        match &node.value {
            Value::Null => Ok(None),
            Value::Text(text) => Ok(Some(text.clone())),
            Value::Int(number) => Ok(Some(number.to_string())),
            Value::Float(number) => Ok(Some(number.to_string())),
            other => Err(Fault::new(
                node.line,
                format!("`{key}` must be a text, not {}", other.kind()),
                "put the value in quotes",
            )),
        }
    }

    /// The texts of a list under a key; a single text counts as a list of one.
    pub(crate) fn texts(&self, key: &str) -> Checked<Vec<String>> {
        let Some(node) = self.get(key) else { return Ok(Vec::new()) };
        let one = |node: &Node| match &node.value {
            Value::Text(text) => Ok(text.clone()),
            Value::Int(number) => Ok(number.to_string()),
            Value::Float(number) => Ok(number.to_string()),
            other => Err(Fault::new(
                node.line,
                format!("`{key}` must be a list of texts, but has {}", other.kind()),
                "put each entry in quotes",
            )),
        };
        match &node.value {
            Value::Null => Ok(Vec::new()),
            Value::List(items) => {
                items.iter().filter(|item| item.value != Value::Null).map(one).collect()
            }
            _ => Ok(vec![one(node)?]),
        }
    }

    fn shift(&mut self, by: u64) {
        self.line += by;
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.shift(by)),
            Value::Map(members) => members.iter_mut().for_each(|(_, node)| node.shift(by)),
            _ => {}
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { line: spanned.referenced.line(), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(Value::Bool(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(Value::Int(value))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(i64::try_from(value).map_or(Value::Float(value as f64), Value::Int))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(Value::Float(value))
            }

            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(Value::Text(value.to_owned()))
            }

            fn visit_string<E>(self, value: String) -> Result<Value, E> {
                Ok(Value::Text(value))
            }

            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }

            fn visit_none<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }

            fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Value, D::Error> {
                Value::deserialize(inner)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Value::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
                let mut map = Vec::new();
                while let Some(member) = members.next_entry()? {
                    map.push(member);
                }
                Ok(Value::Map(map))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// A document's text and the lines before it in its file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Document<'a> {
    pub(crate) text: &'a str,
    pub(crate) before: u64,
}

/// The documents of a file: what stands between lines that begin with `---`, or end with `...`.
/// They are read one by one so that a broken one does not take the others with it.
pub(crate) fn documents(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut start, mut before, mut lines) = (0, 0, 0);
    let mut at = 0;
    let mut push = |from: usize, to: usize, before: u64| {
        let part = text.get(from..to).unwrap_or_default();
        let says = |line: &str| {
            let line = line.trim();
            !line.is_empty() && !line.starts_with('#') && !line.starts_with('%')
        };
        if part.lines().any(says) {
            documents.push(Document { text: part, before });
        }
    };
    for line in text.split_inclusive('\n') {
        let bare = line.trim_end();
        let marks = bare == "---" || bare.starts_with("--- ") || bare == "...";
        if marks {
            push(start, at, before);
            start = at + line.len();
            before = lines + 1;
        }
        lines += 1;
        at += line.len();
    }
    push(start, text.len(), before);
    documents
}

/// Reads a document.
pub(crate) fn read(document: Document<'_>) -> Checked<Node> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: MAX_NODES,
            max_depth: MAX_DEPTH,
            max_documents: 1,
        },
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::Error,
        emit_comments: false,
        strict_booleans: true,
    };
    match serde_saphyr::from_str_with_options::<Node>(document.text, options) {
        Ok(mut node) => {
            node.shift(document.before);
            Ok(node)
        }
        Err(error) => {
            let line = error.location().map_or(0, |at| at.line() + document.before);
            let text = error.to_string();
            let first = text.lines().next().unwrap_or("not YAML").to_owned();
            Err(Fault::new(
                line,
                format!("not readable as YAML: {first}"),
                "check quotes, indentation and repeated keys near this line",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_apart_and_know_their_lines() {
        let text = "# head\n---\na: 1\n---\nb:\n  - x\n  - '5'\n...\n";
        let found = documents(text);
        assert_eq!(found.len(), 2);
        let second = read(found[1]).unwrap();
        let b = second.get("b").unwrap();
        let Value::List(items) = &b.value else { panic!("{b:?}") };
        assert_eq!(items[1], Node { line: 7, value: Value::Text("5".into()) });
    }

    #[test]
    fn scalars_have_their_types() {
        let node = read(Document {
            text: "a: 1\nb: '1'\nc: 1.5\nd: true\ne:\nf: 0x1000\ng: ~\nh: y\n",
            before: 0,
        })
        .unwrap();
        let value = |key: &str| node.get(key).unwrap().value.clone();
        assert_eq!(value("a"), Value::Int(1));
        assert_eq!(value("b"), Value::Text("1".into()));
        assert_eq!(value("c"), Value::Float(1.5));
        assert_eq!(value("d"), Value::Bool(true));
        assert_eq!(value("e"), Value::Null);
        assert_eq!(value("f"), Value::Int(4096));
        assert_eq!(value("g"), Value::Null);
        assert_eq!(value("h"), Value::Text("y".into()));
    }

    #[test]
    fn what_is_broken_or_too_large_is_refused_with_its_line() {
        let fault = read(Document { text: "a: 1\nb: [1, 2\n", before: 10 }).unwrap_err();
        assert!(fault.line.is_some_and(|line| line > 10), "{fault:?}");
        assert!(read(Document { text: "a: 1\na: 2\n", before: 0 }).is_err());
        let deep = format!("a: {}1{}", "[".repeat(60), "]".repeat(60));
        assert!(read(Document { text: &deep, before: 0 }).is_err());
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let refs = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb.push_str(&format!("a{level}: &a{level} [{refs}]\n"));
        }
        assert!(read(Document { text: &bomb, before: 0 }).is_err());
    }
}
