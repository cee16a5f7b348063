//! JSON objects inside messages.

use crate::submit::OwnedValue;
use palisade_event::schema::{Core, alias};
use serde_json::{Map, Value};
use std::borrow::Cow;

/// The most members that are taken out of one message; of a larger object none are.
const MAX_MEMBERS: usize = 512;

type List = Vec<(Cow<'static, str>, OwnedValue)>;

/// Adds the members of an object to the fields; nothing when it is no JSON or too large.
pub(super) fn fill(object: &str, fields: &mut List) {
    let Ok(members) = serde_json::from_str::<Map<String, Value>>(object) else { return };
    let mut flat = Vec::new();
    if flatten("", members, &mut flat).is_none() {
        return;
    }
    for (name, value) in flat {
        let taken = taken(&name, fields);
        let name = if taken { format!("json.{name}") } else { name };
        // Two members may end under one name (`{"a.b":1,"a":{"b":2}}`): a number parts them.
        let mut unique = name.clone();
        let mut count = 2;
        while fields.iter().any(|(have, _)| *have == unique) {
            unique = format!("{name}.{count}");
            count += 1;
        }
        fields.push((Cow::Owned(unique), value));
    }
}

/// Whether the name, or the core column that it means, has a value already.
fn taken(name: &str, fields: &List) -> bool {
    let core = |name: &str| alias(name).or_else(|| Core::by_name(name));
    let own = core(name);
    fields.iter().any(|(have, _)| have == name || (own.is_some() && core(have) == own))
}

fn flatten(
    prefix: &str,
    members: Map<String, Value>,
    out: &mut Vec<(String, OwnedValue)>,
) -> Option<()> {
    for (key, value) in members {
        if out.len() >= MAX_MEMBERS {
            return None;
        }
        let name = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
        let value = match value {
            Value::Null => continue,
            Value::Object(inner) => {
                flatten(&name, inner, out)?;
                continue;
            }
            Value::Bool(value) => OwnedValue::Bool(value),
            Value::String(text) => OwnedValue::Text(Cow::Owned(text)),
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(whole), _) => OwnedValue::Int(whole),
                (None, Some(real)) if number.is_f64() => OwnedValue::Float(real),
                _ => OwnedValue::Json(number.to_string().into()),
            },
            Value::Array(_) => OwnedValue::Json(value.to_string().into()),
        };
        out.push((name, value));
    }
    Some(())
}
