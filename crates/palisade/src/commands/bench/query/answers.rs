//! Answers of two engines, compared.

use crate::server::Failure;
use arrow::array::RecordBatch;
use palisade_query::QueryStats;
use palisade_query::format::{Encoder, Format};
use serde_json::{Map, Value};

/// The rows of an answer, each with its columns by name.
pub(super) type Answer = Vec<Map<String, Value>>;

/// Sums of floating-point numbers depend on the order of the rows; nothing else may differ.
const TOLERANCE: f64 = 1e-6;

/// Appends the rows of a batch.
pub(super) fn rows(batch: &RecordBatch, rows: &mut Answer) -> Result<(), Failure> {
    let mut encoder = Encoder::new(Format::JsonLines, &batch.schema())?;
    let mut bytes = encoder.start();
    bytes.extend(encoder.batch(batch)?);
    bytes.extend(encoder.finish(&QueryStats::default())?);
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        rows.push(serde_json::from_slice(line)?);
    }
    Ok(())
}

/// Whether two answers say the same.
///
/// # Errors
/// The first row in which they differ.
pub(super) fn compare(name: &str, ours: &Answer, theirs: &Answer) -> Result<(), Failure> {
    if ours.len() != theirs.len() {
        let counts = format!("{} rows, ClickHouse's {}", ours.len(), theirs.len());
        return Err(format!("{name}: the answers differ: Palisade's has {counts}").into());
    }
    for (number, (our, their)) in ours.iter().zip(theirs).enumerate() {
        let same =
            |(name, value): (&String, &Value)| equal(value, our.get(name).unwrap_or(&Value::Null));
        let more = our.iter().any(|(name, value)| !value.is_null() && !their.contains_key(name));
        if more || !their.iter().all(same) {
            let (our, their) = (Value::from(our.clone()), Value::from(their.clone()));
            return Err(format!(
                "{name}: the answers differ in row {number}: Palisade says {our}, ClickHouse {their}"
            )
            .into());
        }
    }
    Ok(())
}

fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => {
            if left == right {
                return true;
            }
            let (Some(left), Some(right)) = (left.as_f64(), right.as_f64()) else { return false };
            (left - right).abs() <= TOLERANCE * left.abs().max(right.abs())
        }
        _ => left == right,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer(value: Value) -> Answer {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_differs_is_told_apart_from_rounding() {
        let ours = answer(json!([{"n": 3, "mean": 0.1, "user": "a"}]));
        let same = answer(json!([{"n": 3, "mean": 0.100_000_001, "user": "a", "none": null}]));
        assert!(compare("q", &ours, &same).is_ok());
        for other in [
            json!([{"n": 4, "mean": 0.1, "user": "a"}]),
            json!([{"n": 3, "mean": 0.11, "user": "a"}]),
            json!([{"n": 3, "mean": 0.1, "user": "b"}]),
            json!([{"n": 3, "mean": 0.1}]),
            json!([{"n": 3, "mean": 0.1, "user": "a", "more": 1}]),
            json!([{"n": "3", "mean": 0.1, "user": "a"}]),
            json!([]),
        ] {
            let error = compare("q", &ours, &answer(other)).unwrap_err();
            assert!(error.to_string().starts_with("q: the answers differ"), "{error}");
        }
    }
}
