//! The kinds of values that columns hold, and how columns of one name but several kinds become one.
//!
//! | kind | Arrow type |
//! |---|---|
//! | `bool` | `Boolean` |
//! | `i32`, `i64`, `u64`, `f32`, `f64` | the numbers |
//! | `timestamp` | microseconds, UTC |
//! | `text` | `Utf8` or `Dictionary(Int32, Utf8)` |
//! | `json` | `Utf8` with the metadata `palisade.kind = json`: each value is a JSON text |
//! | `binary` | `Binary`; `FixedSizeBinary(16)` where it holds record ids |
//! | `list` | `List(Utf8)` |
//!
//! A column that has one kind in some batches and another in others becomes `json`, with each value
//! as the JSON text of what was received, so no meaning is lost. Only `i32` widens to `i64` and
//! `f32` to `f64` instead.

use crate::error::TableError;
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, FixedSizeBinaryArray, StringArray, StringBuilder,
};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Field, Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
    UInt64Type,
};
use palisade_event::column::Text;
use palisade_event::schema::{dictionary, is_json, json_field, timestamp};
use std::sync::Arc;

/// The kind of a column's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// True or false.
    Bool,
    /// 32-bit integers.
    I32,
    /// 64-bit integers.
    I64,
    /// 64-bit integers without sign.
    U64,
    /// 32-bit floats.
    F32,
    /// 64-bit floats.
    F64,
    /// Microseconds since the epoch, UTC.
    Timestamp,
    /// UTF-8 text.
    Text,
    /// JSON texts.
    Json,
    /// Bytes.
    Binary,
    /// Exactly 16 bytes.
    Id,
    /// Lists of texts.
    List,
}

impl Kind {
    /// The kind of a batch's column; `None` for a type that tables don't keep as it is.
    #[must_use]
    pub fn of(field: &Field) -> Option<Self> {
        Some(match field.data_type() {
            DataType::Boolean => Self::Bool,
            DataType::Int32
            | DataType::Int8
            | DataType::Int16
            | DataType::UInt8
            | DataType::UInt16 => Self::I32,
            DataType::Int64 | DataType::UInt32 => Self::I64,
            DataType::UInt64 => Self::U64,
            DataType::Float32 => Self::F32,
            DataType::Float64 => Self::F64,
            DataType::Timestamp(_, _) => Self::Timestamp,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View if is_json(field) => {
                Self::Json
            }
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Self::Text,
            DataType::Dictionary(_, values)
                if matches!(
                    **values,
                    DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
                ) =>
            {
                if is_json(field) {
                    Self::Json
                } else {
                    Self::Text
                }
            }
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => Self::Binary,
            DataType::FixedSizeBinary(16) => Self::Id,
            DataType::List(item) if *item.data_type() == DataType::Utf8 => Self::List,
            _ => return None,
        })
    }

    /// The name used in [`palisade_catalog::SegmentColumn`].
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::U64 => "u64",
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::Timestamp => "timestamp",
            Self::Text => "text",
            Self::Json => "json",
            Self::Binary | Self::Id => "binary",
            Self::List => "list",
        }
    }

    /// The kind that holds the values of both without losing any.
    #[must_use]
    pub fn unify(self, other: Self) -> Self {
        match (self, other) {
            (a, b) if a == b => a,
            (Self::I32, Self::I64) | (Self::I64, Self::I32) => Self::I64,
            (Self::F32, Self::F64) | (Self::F64, Self::F32) => Self::F64,
            _ => Self::Json,
        }
    }

    /// The field of a segment's column; `encoded` asks for a dictionary where the kind is text.
    #[must_use]
    pub fn field(self, name: &str, encoded: bool) -> Field {
        let data_type = match self {
            Self::Bool => DataType::Boolean,
            Self::I32 => DataType::Int32,
            Self::I64 => DataType::Int64,
            Self::U64 => DataType::UInt64,
            Self::F32 => DataType::Float32,
            Self::F64 => DataType::Float64,
            Self::Timestamp => timestamp(),
            Self::Text if encoded => dictionary(),
            Self::Text => DataType::Utf8,
            Self::Json => return json_field(name),
            Self::Binary => DataType::Binary,
            Self::Id => DataType::FixedSizeBinary(16),
            Self::List => DataType::List(Arc::new(Field::new("item", DataType::Utf8, true))),
        };
        Field::new(name, data_type, true)
    }
}

/// A batch's column brought to a kind that holds its values: text stays plain or encoded as it is,
/// numbers widen, and whatever meets another kind becomes JSON texts.
///
/// # Errors
/// [`TableError::Columns`] when the column's type is none that tables keep.
pub(crate) fn conform(
    array: &ArrayRef,
    field: &Field,
    kind: Kind,
    table: &str,
) -> Result<ArrayRef, TableError> {
    let unfit = |error: &dyn std::fmt::Display| {
        TableError::columns(table, format!("column {}: {error}", field.name()))
    };
    let own = Kind::of(field)
        .ok_or_else(|| unfit(&format!("type {} is none that tables keep", field.data_type())))?;
    let narrowed = match array.data_type() {
        DataType::LargeUtf8 | DataType::Utf8View => cast(array, &DataType::Utf8),
        DataType::LargeBinary | DataType::BinaryView => cast(array, &DataType::Binary),
        DataType::Dictionary(key, values)
            if **key != DataType::Int32 || **values != DataType::Utf8 =>
        {
            cast(array, &dictionary())
        }
        DataType::Int8 | DataType::Int16 | DataType::UInt8 | DataType::UInt16 => {
            cast(array, &DataType::Int32)
        }
        DataType::UInt32 => cast(array, &DataType::Int64),
        DataType::Timestamp(_, _) if *array.data_type() != timestamp() => cast(array, &timestamp()),
        _ => Ok(Arc::clone(array)),
    };
    let array = narrowed.map_err(|error| unfit(&error))?;
    match (own, kind) {
        (own, kind) if own == kind => Ok(array),
        (Kind::I32, Kind::I64) => cast(&array, &DataType::Int64).map_err(|error| unfit(&error)),
        (Kind::F32, Kind::F64) => cast(&array, &DataType::Float64).map_err(|error| unfit(&error)),
        (own, Kind::Json) => Ok(Arc::new(json_texts(&array, own))),
        (own, kind) => Err(unfit(&format!("{} can't become {}", own.name(), kind.name()))),
    }
}

/// Each value as the JSON text of what it was.
fn json_texts(array: &ArrayRef, own: Kind) -> StringArray {
    let mut out = StringBuilder::with_capacity(array.len(), array.len() * 8);
    let mut text = String::new();
    for row in 0..array.len() {
        text.clear();
        if array.is_valid(row) && json_text(array, own, row, &mut text).is_some() {
            out.append_value(&text);
        } else {
            out.append_null();
        }
    }
    out.finish()
}

/// Appends the JSON text of one value; `None` when it is null.
fn json_text(array: &ArrayRef, own: Kind, row: usize, out: &mut String) -> Option<()> {
    use std::fmt::Write;
    match own {
        Kind::Bool => {
            out.push_str(if array.as_boolean_opt()?.value(row) { "true" } else { "false" });
        }
        Kind::I32 => write!(out, "{}", array.as_primitive_opt::<Int32Type>()?.value(row)).ok()?,
        Kind::I64 => write!(out, "{}", array.as_primitive_opt::<Int64Type>()?.value(row)).ok()?,
        Kind::U64 => write!(out, "{}", array.as_primitive_opt::<UInt64Type>()?.value(row)).ok()?,
        Kind::F32 => {
            let value = array.as_primitive_opt::<Float32Type>()?.value(row);
            push_float(out, f64::from(value), ryu::Buffer::new().format(value));
        }
        Kind::F64 => {
            let value = array.as_primitive_opt::<Float64Type>()?.value(row);
            push_float(out, value, ryu::Buffer::new().format(value));
        }
        Kind::Timestamp => {
            let micros = array.as_primitive_opt::<TimestampMicrosecondType>()?.value(row);
            match arrow::temporal_conversions::timestamp_us_to_datetime(micros) {
                Some(time) => write!(out, "\"{}Z\"", time.format("%Y-%m-%dT%H:%M:%S%.6f")).ok()?,
                None => write!(out, "{micros}").ok()?,
            }
        }
        Kind::Text => push_string(out, Text::of(array)?.get(row)?),
        Kind::Json => out.push_str(Text::of(array)?.get(row)?),
        Kind::Binary => {
            push_hex(out, array.as_any().downcast_ref::<BinaryArray>()?.value(row));
        }
        Kind::Id => {
            push_hex(out, array.as_any().downcast_ref::<FixedSizeBinaryArray>()?.value(row));
        }
        Kind::List => {
            let values = array.as_list_opt::<i32>()?.value(row);
            let values = values.as_string_opt::<i32>()?;
            out.push('[');
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                match value {
                    Some(value) => push_string(out, value),
                    None => out.push_str("null"),
                }
            }
            out.push(']');
        }
    }
    Some(())
}

fn push_float(out: &mut String, value: f64, text: &str) {
    if value.is_finite() {
        out.push_str(text);
    } else {
        push_string(out, text);
    }
}

fn push_string(out: &mut String, value: &str) {
    out.push_str(&serde_json::Value::from(value).to_string());
}

fn push_hex(out: &mut String, bytes: &[u8]) {
    use std::fmt::Write;
    out.push('"');
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{BooleanArray, DictionaryArray, Float64Array, Int64Array};

    #[test]
    fn values_of_another_kind_become_their_json_texts() {
        let check = |array: ArrayRef, wanted: &[Option<&str>]| {
            let field = Field::new("x", array.data_type().clone(), true);
            let texts = conform(&array, &field, Kind::Json, "t").unwrap();
            let texts: Vec<_> = texts.as_string::<i32>().iter().collect();
            assert_eq!(texts, wanted);
        };
        check(Arc::new(Int64Array::from(vec![Some(-7), None])), &[Some("-7"), None]);
        check(
            Arc::new(Float64Array::from(vec![1.5, 1.0, 1e300])),
            &[Some("1.5"), Some("1.0"), Some("1e300")],
        );
        check(Arc::new(BooleanArray::from(vec![true, false])), &[Some("true"), Some("false")]);
        check(
            Arc::new(StringArray::from(vec!["a\"b\n", "7"])),
            &[Some("\"a\\\"b\\n\""), Some("\"7\"")],
        );
        let encoded: DictionaryArray<Int32Type> =
            vec![Some("x"), None, Some("x")].into_iter().collect();
        check(Arc::new(encoded), &[Some("\"x\""), None, Some("\"x\"")]);
    }

    #[test]
    fn kinds_unify_without_loss() {
        assert_eq!(Kind::I32.unify(Kind::I64), Kind::I64);
        assert_eq!(Kind::I64.unify(Kind::F64), Kind::Json);
        assert_eq!(Kind::Text.unify(Kind::Text), Kind::Text);
        assert_eq!(Kind::Json.unify(Kind::Text), Kind::Json);
    }
}
