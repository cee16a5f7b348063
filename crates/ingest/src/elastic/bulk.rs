//! The body of an Elasticsearch `_bulk` request, and its answer.
//!
//! The body is lines: an action (`{"index":{"_index":"x","_id":"1"}}`, or `create`, `update`,
//! `delete`), and behind all but `delete` a document. The last line must end too. What is wrong with
//! the form of the body refuses it whole, as Elasticsearch does; what is wrong with one document or
//! one index name is answered for that item alone.
//!
//! `update` and `delete` are answered per item with an error: what was logged stays as it was.

use crate::submit::BulkItem;
use bytes::Bytes;
use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// The most different indexes that one request may name.
pub const MAX_INDEXES: usize = 256;
/// The longest `_id`, as in Elasticsearch.
pub const MAX_ID: usize = 512;

/// What an item asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Store the document.
    Index,
    /// Store the document; its id is new.
    Create,
    /// Change a stored document: refused.
    Update,
    /// Delete a stored document: refused.
    Delete,
}

impl Action {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "index" => Self::Index,
            "create" => Self::Create,
            "update" => Self::Update,
            "delete" => Self::Delete,
            _ => return None,
        })
    }

    /// The name in requests and answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Index => "index",
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

/// One item of a request, in the order of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// What it asks for.
    pub action: Action,
    /// Which of [`Parsed::indexes`] it names.
    pub index: usize,
    /// The sender's own id.
    pub id: Option<String>,
    /// Its place among the documents of its index; or why it is refused.
    pub document: Result<usize, ItemError>,
}

/// Why an item is refused before it reaches the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemError {
    /// Elasticsearch's name of the error.
    pub kind: &'static str,
    /// In words.
    pub reason: String,
}

/// One index and the documents for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Documents {
    /// The index's name.
    pub name: Arc<str>,
    /// The documents.
    pub items: Vec<BulkItem>,
}

/// A request that was understood.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parsed {
    /// All items.
    pub operations: Vec<Operation>,
    /// The documents, by index.
    pub indexes: Vec<Documents>,
}

/// Why a whole request is refused: status 400, Elasticsearch's name of the error, and the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Malformed {
    /// Elasticsearch's name of the error.
    pub kind: &'static str,
    /// In words.
    pub reason: String,
}

fn malformed(reason: impl Into<String>) -> Malformed {
    Malformed { kind: "illegal_argument_exception", reason: reason.into() }
}

/// Reads a request. `default_index` is the one in the path.
///
/// # Errors
/// [`Malformed`] when the form of the body is wrong.
pub fn parse(body: &Bytes, default_index: Option<&str>) -> Result<Parsed, Malformed> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(Malformed {
            kind: "parse_exception",
            reason: "request body is required".to_owned(),
        });
    }
    if body.last() != Some(&b'\n') {
        return Err(malformed("The bulk request must be terminated by a newline [\\n]"));
    }
    let mut lines = Lines { body, at: 0, number: 0 };
    let mut parsed = Parsed::default();
    let mut memory: Option<(&[u8], Action, usize)> = None;
    while let Some((line, _)) = lines.next() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let number = lines.number;
        // Most senders repeat one action line without an id, so the last one is remembered.
        let (action, index, id) = match memory {
            Some((same, action, index)) if same == line => (action, index, None),
            _ => {
                let head = action_line(line, number)?;
                let name = head.index.as_deref().or(default_index).ok_or_else(|| Malformed {
                    kind: "action_request_validation_exception",
                    reason: "Validation Failed: 1: index is missing;".to_owned(),
                })?;
                let index = parsed.index(name)?;
                if head.id.is_none() {
                    memory = Some((line, head.action, index));
                }
                (head.action, index, head.id)
            }
        };
        let document = if action == Action::Delete {
            None
        } else {
            let (_, range) = lines.next().ok_or_else(|| {
                malformed(format!(
                    "Malformed action/metadata line [{number}]: no document line follows the action [{}]",
                    action.as_str()
                ))
            })?;
            Some(range)
        };
        parsed.push(action, index, id, document);
    }
    Ok(parsed)
}

impl Parsed {
    fn index(&mut self, name: &str) -> Result<usize, Malformed> {
        if let Some(at) = self.indexes.iter().position(|index| index.name.as_ref() == name) {
            return Ok(at);
        }
        if self.indexes.len() == MAX_INDEXES {
            return Err(malformed(format!(
                "a request may name at most {MAX_INDEXES} different indexes"
            )));
        }
        self.indexes.push(Documents { name: Arc::from(name), items: Vec::new() });
        Ok(self.indexes.len() - 1)
    }

    fn push(
        &mut self,
        action: Action,
        index: usize,
        id: Option<String>,
        document: Option<Range<usize>>,
    ) {
        let Some(documents) = self.indexes.get_mut(index) else { return };
        let refuse = |kind, reason: String| Err(ItemError { kind, reason });
        let place = match (action, document) {
            (Action::Index | Action::Create, Some(range)) => {
                if let Err(reason) = check_index(&documents.name) {
                    refuse("invalid_index_name_exception", reason)
                } else if id.as_ref().is_some_and(|id| id.is_empty() || id.len() > MAX_ID) {
                    refuse(
                        "illegal_argument_exception",
                        format!("id must be 1 to {MAX_ID} bytes long"),
                    )
                } else {
                    documents.items.push(BulkItem { range, id: id.clone() });
                    Ok(documents.items.len() - 1)
                }
            }
            _ => refuse(
                "illegal_argument_exception",
                format!("[{}] is not supported: what was logged stays as it was", action.as_str()),
            ),
        };
        self.operations.push(Operation { action, index, id, document: place });
    }
}

/// Elasticsearch's rules for the names of indexes and data streams.
///
/// # Errors
/// The reason in words.
pub fn check_index(name: &str) -> Result<(), String> {
    let invalid = |why: &str| {
        Err(format!("Invalid index name [{}], {why}", name.chars().take(80).collect::<String>()))
    };
    if name.is_empty() || name.len() > 255 {
        return invalid("must be 1 to 255 bytes long");
    }
    if name.starts_with(['-', '_', '+']) {
        return invalid("must not start with '_', '-', or '+'");
    }
    if name == "." || name == ".." {
        return invalid("must not be '.' or '..'");
    }
    if name.contains(|c: char| c.is_control() || " \"*\\<|,>/?#:".contains(c)) {
        return invalid(
            "must not contain the following characters [ , \", *, \\, <, |, ,, >, /, ?, #, :]",
        );
    }
    if name.chars().any(char::is_uppercase) {
        return invalid("must be lowercase");
    }
    Ok(())
}

struct Lines<'a> {
    body: &'a Bytes,
    at: usize,
    number: usize,
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Option<(&'a [u8], Range<usize>)> {
        let rest = self.body.get(self.at..)?;
        let length = memchr::memchr(b'\n', rest)?;
        let line = rest.get(..length)?;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let range = self.at..self.at + line.len();
        self.at += length + 1;
        self.number += 1;
        Some((line, range))
    }
}

struct Head<'a> {
    action: Action,
    index: Option<Cow<'a, str>>,
    id: Option<String>,
}

fn action_line(line: &[u8], number: usize) -> Result<Head<'_>, Malformed> {
    let mut json = serde_json::Deserializer::from_slice(line);
    let visitor = ActionVisitor { number };
    let head = json.deserialize_map(visitor).and_then(|head| json.end().map(|()| head));
    head.map_err(|error| {
        let text = error.to_string();
        // The visitor's own messages say all; the parser's get the line that they are about.
        if text.starts_with("Malformed action") {
            malformed(text.split(" at line 1").next().unwrap_or_default())
        } else {
            malformed(format!(
                "Malformed action/metadata line [{number}], expected START_OBJECT with one action: {text}"
            ))
        }
    })
}

struct ActionVisitor {
    number: usize,
}

impl<'de> Visitor<'de> for ActionVisitor {
    type Value = Head<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with one action")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let wrong = |found: &str| {
            let found: String = found.chars().take(40).collect();
            serde::de::Error::custom(format!(
                "Malformed action/metadata line [{}], expected field [create], [delete], [index] or [update] but found [{found}]",
                self.number
            ))
        };
        let name: Text<'de> = map.next_key_seed(TextSeed)?.ok_or_else(|| wrong("END_OBJECT"))?;
        let action = Action::parse(&name.0).ok_or_else(|| wrong(&name.0))?;
        let (index, id) = map.next_value_seed(MetadataSeed)?;
        if let Some(second) = map.next_key_seed(TextSeed)? {
            return Err(wrong(&second.0));
        }
        Ok(Head { action, index, id })
    }
}

/// Text that borrows from the line where it has no escapes; a number counts as its digits.
struct Text<'a>(Cow<'a, str>);
struct TextSeed;

impl<'de> serde::de::DeserializeSeed<'de> for TextSeed {
    type Value = Text<'de>;

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<Text<'de>, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for TextSeed {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Owned(text.to_owned())))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Owned(number.to_string())))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Owned(number.to_string())))
    }
}

struct MetadataSeed;
type Metadata<'a> = (Option<Cow<'a, str>>, Option<String>);

impl<'de> serde::de::DeserializeSeed<'de> for MetadataSeed {
    type Value = Metadata<'de>;

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MetadataSeed {
    type Value = Metadata<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of metadata")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut index, mut id) = (None, None);
        while let Some(key) = map.next_key_seed(TextSeed)? {
            match key.0.as_ref() {
                "_index" => index = map.next_value_seed(MaybeTextSeed)?.map(|text| text.0),
                "_id" => id = map.next_value_seed(MaybeTextSeed)?.map(|text| text.0.into_owned()),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok((index, id))
    }
}

/// A text, a number, or null.
struct MaybeTextSeed;

impl<'de> serde::de::DeserializeSeed<'de> for MaybeTextSeed {
    type Value = Option<Text<'de>>;

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        struct Maybe;
        impl<'de> Visitor<'de> for Maybe {
            type Value = Option<Text<'de>>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or null")
            }

            fn visit_none<E>(self) -> Result<Self::Value, E> {
                Ok(None)
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(None)
            }

            fn visit_some<D: serde::Deserializer<'de>>(
                self,
                json: D,
            ) -> Result<Self::Value, D::Error> {
                json.deserialize_any(TextSeed).map(Some)
            }
        }
        json.deserialize_option(Maybe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ok(body: &str) -> Parsed {
        parse(&Bytes::copy_from_slice(body.as_bytes()), None).unwrap()
    }

    fn reason(body: &str) -> String {
        parse(&Bytes::copy_from_slice(body.as_bytes()), None).unwrap_err().reason
    }

    #[test]
    fn items_keep_their_order_index_and_id() {
        let body = "{\"index\":{\"_index\":\"a\",\"_id\":\"1\"}}\n{\"x\":1}\n\n{\"create\":{\"_index\":\"b\"}}\r\n{\"x\":2}\r\n{\"create\":{\"_index\":\"b\"}}\r\n{\"x\":3}\n{\"delete\":{\"_index\":\"a\",\"_id\":7}}\n{\"update\":{\"_index\":\"a\",\"_id\":\"u\"}}\n{\"doc\":{}}\n{\"index\":{\"_index\":\"a\",\"_id\":null,\"pipeline\":\"p\"}}\n{\"x\":4}\n";
        let parsed = ok(body);
        let documents: Vec<Vec<&str>> = parsed
            .indexes
            .iter()
            .map(|index| index.items.iter().map(|item| &body[item.range.clone()]).collect())
            .collect();
        assert_eq!(documents, [vec!["{\"x\":1}", "{\"x\":4}"], vec!["{\"x\":2}", "{\"x\":3}"]]);
        let places: Vec<_> =
            parsed.operations.iter().map(|op| op.document.as_ref().ok().copied()).collect();
        assert_eq!(places, [Some(0), Some(0), Some(1), None, None, Some(1)]);
        assert_eq!(parsed.operations[3].id.as_deref(), Some("7"));
        assert_eq!(parsed.indexes[0].items[0].id.as_deref(), Some("1"));
        assert_eq!(parsed.indexes[0].items[1].id, None);
    }

    #[test]
    fn the_form_of_the_body_is_checked() {
        assert_eq!(reason(""), "request body is required");
        assert!(reason("{\"index\":{\"_index\":\"a\"}}\n{}").contains("terminated by a newline"));
        assert!(reason("{\"index\":{\"_index\":\"a\"}}\n").contains("no document line"));
        assert!(reason("{\"index\":{}}\n{}\n").contains("index is missing"));
        assert_eq!(
            reason("{\"index\":{\"_index\":\"a\"}}\n{}\n{\"oops\":{}}\n{}\n"),
            "Malformed action/metadata line [3], expected field [create], [delete], [index] or [update] but found [oops]"
        );
        for bad in [
            "5\n{}\n",
            "[]\n",
            "{\"index\"\n",
            "{\"index\":5}\n{}\n",
            "{}\n",
            "{\"index\":{\"_index\":\"a\"}} x\n{}\n",
            "{\"index\":{\"_index\":\"a\"},\"create\":{}}\n{}\n",
        ] {
            assert!(
                reason(bad).starts_with("Malformed action/metadata line [1]"),
                "{}",
                reason(bad)
            );
        }
    }

    #[test]
    fn a_bad_index_name_or_id_refuses_its_item_only() {
        let parsed = ok(
            "{\"index\":{\"_index\":\"Bad\"}}\n{}\n{\"index\":{\"_index\":\"good\"}}\n{}\n{\"index\":{\"_index\":\"good\",\"_id\":\"\"}}\n{}\n",
        );
        let results: Vec<bool> = parsed.operations.iter().map(|op| op.document.is_ok()).collect();
        assert_eq!(results, [false, true, false]);
        for bad in ["", "_x", "-x", "a b", "a*", "A", "..", "a:b", "a\u{0}"] {
            assert!(check_index(bad).is_err(), "{bad}");
        }
        for good in ["logs-generic-default", ".ds-x-2024.01.01-000001", "ä"] {
            assert!(check_index(good).is_ok(), "{good}");
        }
    }

    proptest! {
        /// Any bytes: no panic, and every operation with a document has it inside the body.
        #[test]
        fn any_bytes_are_answered(lines in proptest::collection::vec(prop_oneof![
            Just(b"{\"index\":{\"_index\":\"a\"}}".to_vec()),
            Just(b"{\"create\":{\"_id\":\"x\"}}".to_vec()),
            Just(b"{\"delete\":{\"_id\":\"x\"}}".to_vec()),
            Just(b"{\"a\":1}".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..30),
        ], 0..12)) {
            let mut body = lines.join(&b'\n');
            body.push(b'\n');
            let body = Bytes::from(body);
            if let Ok(parsed) = parse(&body, Some("d")) {
                let documents: usize = parsed.indexes.iter().map(|index| index.items.len()).sum();
                let placed = parsed.operations.iter().filter(|op| op.document.is_ok()).count();
                prop_assert_eq!(documents, placed);
                for index in &parsed.indexes {
                    for item in &index.items {
                        prop_assert!(body.get(item.range.clone()).is_some());
                    }
                }
            }
        }
    }
}
