//! Row functions that the reader puts into plans: record ids, JSON texts as text, and fields that stand
//! in `overflow`. [`overflow_get`] is also a function of the SQL dialect.

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanBuilder, Float64Builder, Int64Builder, StringViewArray,
    StringViewBuilder, new_null_array,
};
use arrow::compute::{cast, is_not_null};
use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature,
    Volatility,
};
use palisade_event::SenderIds;
use serde_json::Value;
use std::sync::Arc;

/// An argument as an array of text.
fn text(value: &ColumnarValue, rows: usize) -> Result<StringViewArray> {
    let array = value.clone().into_array(rows)?;
    let array = cast(&array, &DataType::Utf8View)?;
    Ok(array.as_string_view().clone())
}

fn get(array: &StringViewArray, row: usize) -> Option<&str> {
    array.is_valid(row).then(|| array.value(row))
}

/// The computed column `id`: 32 hexadecimal digits. Arguments: the row's source, its `event_id` and its
/// `record_id`; a column that the file lacks is a null literal.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct RecordIdText {
    tenant: Arc<str>,
    signature: Signature,
}

impl RecordIdText {
    pub(super) fn new(tenant: Arc<str>) -> Self {
        Self { tenant, signature: Signature::any(3, Volatility::Immutable) }
    }
}

/// Writes 16 bytes as 32 hexadecimal digits.
fn hex(bytes: [u8; 16], out: &mut [u8; 32]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in out.chunks_exact_mut(2).zip(bytes) {
        for (digit, nibble) in pair.iter_mut().zip([byte >> 4, byte & 15]) {
            *digit = DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0');
        }
    }
}

impl ScalarUDFImpl for RecordIdText {
    fn name(&self) -> &'static str {
        "record_id_text"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let [source, event_id, record_id] = args.args.as_slice() else {
            return exec_err!("record_id_text takes three arguments");
        };
        let source = text(source, rows)?;
        let event_id = text(event_id, rows)?;
        let record_id = record_id.clone().into_array(rows)?;
        let record_id = record_id.as_fixed_size_binary_opt();
        let mut out = StringViewBuilder::with_capacity(rows);
        let mut derived = SenderIds::default();
        let mut digits = [0u8; 32];
        for row in 0..rows {
            let id = if let Some(event_id) = get(&event_id, row) {
                derived.id(&self.tenant, get(&source, row).unwrap_or(""), event_id).0
            } else if let Some(stored) = record_id.filter(|ids| ids.is_valid(row))
                && let Ok(stored) = <[u8; 16]>::try_from(stored.value(row))
            {
                stored
            } else {
                out.append_null();
                continue;
            };
            hex(id, &mut digits);
            out.append_value(std::str::from_utf8(&digits).unwrap_or_default());
        }
        Ok(ColumnarValue::Array(Arc::new(out.finish())))
    }
}

/// JSON texts as text: a JSON string without its quotes, `null` as null, any other value as its text.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct JsonText {
    signature: Signature,
}

impl JsonText {
    pub(super) fn new() -> Self {
        Self { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for JsonText {
    fn name(&self) -> &'static str {
        "json_text"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let [value] = args.args.as_slice() else {
            return exec_err!("json_text takes one argument");
        };
        let values = text(value, rows)?;
        let mut out = StringViewBuilder::with_capacity(rows);
        for row in 0..rows {
            match get(&values, row) {
                None | Some("null") => out.append_null(),
                Some(json) if json.starts_with('"') => match serde_json::from_str::<String>(json) {
                    Ok(decoded) => out.append_value(decoded),
                    Err(_) => out.append_value(json),
                },
                Some(json) => out.append_value(json),
            }
        }
        Ok(ColumnarValue::Array(Arc::new(out.finish())))
    }
}

/// A field out of an overflow text: the whole dotted name as a key first, then key by key.
fn overflow_value(overflow: &str, name: &str) -> Option<Value> {
    // Most rows have no overflow, and most overflows not this field: look before parsing.
    let last = name.rsplit('.').next().unwrap_or(name);
    if !last.contains(['"', '\\']) && last.is_ascii() && !overflow.contains(last) {
        return None;
    }
    let Ok(Value::Object(mut fields)) = serde_json::from_str::<Value>(overflow) else {
        return None;
    };
    if let Some(value) = fields.remove(name) {
        return Some(value);
    }
    let mut rest = name;
    let mut object = fields;
    while let Some((key, behind)) = rest.split_once('.') {
        object = match object.remove(key) {
            Some(Value::Object(inner)) => inner,
            _ => return None,
        };
        if let Some(value) = object.remove(behind) {
            return Some(value);
        }
        rest = behind;
    }
    None
}

fn json_as_text(value: Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    }
}

/// The fields of this name out of a column of overflow texts, as `target`: text takes every value, a
/// number or boolean column only values of its own type (the others are still in `overflow`).
fn overflow_column(overflow: &StringViewArray, name: &str, target: &DataType) -> Result<ArrayRef> {
    let found = (0..overflow.len())
        .map(|row| get(overflow, row).and_then(|overflow| overflow_value(overflow, name)));
    Ok(match target {
        DataType::Int64 => {
            let mut out = Int64Builder::with_capacity(overflow.len());
            found.for_each(|value| out.append_option(value.and_then(|value| value.as_i64())));
            Arc::new(out.finish())
        }
        DataType::Float64 => {
            let mut out = Float64Builder::with_capacity(overflow.len());
            found.for_each(|value| out.append_option(value.and_then(|value| value.as_f64())));
            Arc::new(out.finish())
        }
        DataType::Boolean => {
            let mut out = BooleanBuilder::with_capacity(overflow.len());
            found.for_each(|value| out.append_option(value.and_then(|value| value.as_bool())));
            Arc::new(out.finish())
        }
        DataType::Utf8View => {
            let mut out = StringViewBuilder::with_capacity(overflow.len());
            found.for_each(|value| out.append_option(value.and_then(json_as_text)));
            Arc::new(out.finish())
        }
        other => new_null_array(other, overflow.len()),
    })
}

/// A dynamic column together with `overflow`: the column's value, or else that of the field of its name
/// in the overflow. Arguments: the column (of the target type) and `overflow`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct WithOverflow {
    name: Arc<str>,
    target: DataType,
    signature: Signature,
}

impl WithOverflow {
    pub(super) fn new(name: &str, target: DataType) -> Self {
        let signature = Signature::any(2, Volatility::Immutable);
        Self { name: Arc::from(name), target, signature }
    }
}

impl ScalarUDFImpl for WithOverflow {
    fn name(&self) -> &'static str {
        "with_overflow"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.target.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let [column, overflow] = args.args.as_slice() else {
            return exec_err!("with_overflow takes two arguments");
        };
        let column = column.clone().into_array(rows)?;
        let overflow = text(overflow, rows)?;
        if overflow.null_count() == rows {
            return Ok(ColumnarValue::Array(column));
        }
        let found = overflow_column(&overflow, &self.name, &self.target)?;
        if column.null_count() == rows {
            return Ok(ColumnarValue::Array(found));
        }
        let given = is_not_null(&column)?;
        Ok(ColumnarValue::Array(arrow::compute::kernels::zip::zip(&given, &column, &found)?))
    }
}

/// `overflow_get(overflow, 'a.b')`: the field of this dotted name out of an overflow text, as text; null
/// where there is none.
#[derive(Debug, PartialEq, Eq, Hash)]
struct OverflowGet {
    signature: Signature,
}

impl ScalarUDFImpl for OverflowGet {
    fn name(&self) -> &'static str {
        "overflow_get"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let [overflow, name] = args.args.as_slice() else {
            return exec_err!("overflow_get takes two arguments: the overflow and a field's name");
        };
        let overflow = text(overflow, rows)?;
        if let ColumnarValue::Scalar(name) = name {
            return match name.try_as_str() {
                Some(Some(name)) => {
                    let found = overflow_column(&overflow, name, &DataType::Utf8View)?;
                    Ok(ColumnarValue::Array(found))
                }
                _ => Ok(ColumnarValue::Scalar(ScalarValue::Utf8View(None))),
            };
        }
        let names = text(name, rows)?;
        let mut out = StringViewBuilder::with_capacity(rows);
        for row in 0..rows {
            let value = match (get(&overflow, row), get(&names, row)) {
                (Some(overflow), Some(name)) => overflow_value(overflow, name),
                _ => None,
            };
            out.append_option(value.and_then(json_as_text));
        }
        Ok(ColumnarValue::Array(Arc::new(out.finish())))
    }
}

/// The SQL function `overflow_get(overflow, name)`.
#[must_use]
pub fn overflow_get() -> Arc<ScalarUDF> {
    let signature = Signature::one_of(vec![TypeSignature::String(2)], Volatility::Immutable);
    Arc::new(ScalarUDF::from(OverflowGet { signature }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overflow_fields_are_found_flat_and_nested() {
        let overflow = r#"{"a.b":1,"c":{"d":{"e":"x"},"f.g":[1]},"n":null}"#;
        let text = |name| overflow_value(overflow, name).and_then(json_as_text);
        assert_eq!(text("a.b").as_deref(), Some("1"));
        assert_eq!(text("c.d.e").as_deref(), Some("x"));
        assert_eq!(text("c.f.g").as_deref(), Some("[1]"));
        assert_eq!(text("c.d").as_deref(), Some(r#"{"e":"x"}"#));
        assert_eq!(text("n"), None);
        assert_eq!(text("b"), None);
        assert_eq!(overflow_value("no json", "json"), None);
    }

    #[test]
    fn ids_are_written_as_record_ids_are() {
        let id = palisade_event::RecordId::from_sender("t", "s", "e");
        let mut digits = [0u8; 32];
        hex(id.0, &mut digits);
        assert_eq!(std::str::from_utf8(&digits).unwrap(), id.to_string());
    }
}
