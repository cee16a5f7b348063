//! What an unknown key was meant to be.
//!
//! The known keys are taken from our own JSON Schema, never from the wording of a library's error: what
//! was written is walked beside the schema, and the first key that the schema does not have is compared with its
//! neighbours.

use serde_json::Value;

/// Names further apart than this are not taken for each other.
const FURTHEST: usize = 3;

/// A hint for the first unknown key of a configuration, for example ` (did you mean 'listen'?)`; empty
/// when every key is known or nothing resembles it.
pub(super) fn hint(written: &Value, schema: &Value) -> String {
    let Some(unknown) = unknown_key(written, schema, schema) else { return String::new() };
    let nearest = unknown
        .known
        .iter()
        .map(|name| (distance(&unknown.key, name), *name))
        .min()
        .filter(|(distance, name)| *distance <= FURTHEST.min(name.len().max(2) - 1));
    if let Some((_, name)) = nearest {
        return format!(" (did you mean '{name}'?)");
    }
    match section_of(&unknown.key, schema) {
        Some(section) => format!(" (did you mean '{section}.{}'?)", unknown.key),
        None => String::new(),
    }
}

/// A key that is written but not known, and the keys that are known in its place.
struct Unknown<'s> {
    key: String,
    known: Vec<&'s str>,
}

fn unknown_key<'s>(written: &Value, schema: &'s Value, root: &'s Value) -> Option<Unknown<'s>> {
    match written {
        Value::Object(object) => {
            let properties = properties(schema, root)?;
            object.iter().find_map(|(key, inner)| match properties.get(key) {
                Some(schema) => unknown_key(inner, schema, root),
                None => Some(Unknown {
                    key: key.clone(),
                    known: properties.keys().map(String::as_str).collect(),
                }),
            })
        }
        Value::Array(items) => {
            let schema = resolved(schema, root).find_map(|schema| schema.get("items"))?;
            items.iter().find_map(|item| unknown_key(item, schema, root))
        }
        _ => None,
    }
}

/// The top-level section that has a key of this name.
fn section_of<'s>(key: &str, root: &'s Value) -> Option<&'s str> {
    let sections = root.get("properties")?.as_object()?;
    let has = |schema| properties(schema, root).is_some_and(|inner| inner.contains_key(key));
    sections.iter().find(|(_, schema)| has(*schema)).map(|(name, _)| name.as_str())
}

/// The properties of an object's schema; `None` for what is no object with fixed keys.
fn properties<'s>(
    schema: &'s Value,
    root: &'s Value,
) -> Option<&'s serde_json::Map<String, Value>> {
    resolved(schema, root).find_map(|schema| schema.get("properties")?.as_object())
}

/// A schema and what it refers to or offers to choose from: `$ref`, `anyOf`, `oneOf`, `allOf`.
fn resolved<'s>(schema: &'s Value, root: &'s Value) -> impl Iterator<Item = &'s Value> {
    let mut all = vec![schema];
    let mut at = 0;
    // References of ours are two deep; the bound ends a circle.
    while let (Some(schema), true) = (all.get(at).copied(), all.len() < 64) {
        at += 1;
        let target =
            schema.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix('#'));
        all.extend(target.and_then(|path| root.pointer(path)));
        for choice in ["anyOf", "oneOf", "allOf"] {
            all.extend(schema.get(choice).and_then(Value::as_array).into_iter().flatten());
        }
    }
    all.into_iter()
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (y, cell) in b.iter().zip(row.iter_mut().skip(1)) {
            let above = *cell;
            left = (diagonal + usize::from(x != *y)).min(above + 1).min(left + 1);
            diagonal = above;
            *cell = left;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn hint_for(written: &Value) -> String {
        hint(written, &super::super::schema())
    }

    #[test]
    fn the_nearest_key_of_the_same_place_is_meant() {
        assert_eq!(hint_for(&json!({"http": {"lissten": 1}})), " (did you mean 'listen'?)");
        assert_eq!(hint_for(&json!({"htp": {}})), " (did you mean 'http'?)");
        assert_eq!(
            hint_for(&json!({"detect": {"lists": [{"pth": "x"}]}})),
            " (did you mean 'path'?)"
        );
        assert_eq!(
            hint_for(&json!({"http": {"tls": {"certificat": "x"}}})),
            " (did you mean 'certificate'?)"
        );
        assert_eq!(
            hint_for(&json!({"listeners": [{"adress": "x"}]})),
            " (did you mean 'address'?)"
        );
    }

    #[test]
    fn a_key_of_another_section_is_found_there() {
        assert_eq!(hint_for(&json!({"threshold": 1})), " (did you mean 'detect.threshold'?)");
    }

    #[test]
    fn nothing_is_guessed_without_a_resemblance() {
        assert_eq!(hint_for(&json!({"http": {"zebra": 1}})), "");
        assert_eq!(hint_for(&json!({"http": {"listen": "127.0.0.1:1"}})), "");
        assert_eq!(hint_for(&json!([1])), "");
    }

    #[test]
    fn distances() {
        assert_eq!(distance("lissten", "listen"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abc"), 0);
    }
}
