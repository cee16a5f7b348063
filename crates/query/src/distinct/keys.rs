//! Fingerprints of rows.

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, FixedSizeBinaryArray, StringArray, StringViewArray,
};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::datatypes::{
    DataType, Date32Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType,
    TimestampNanosecondType, UInt64Type,
};
use datafusion::common::{Result, internal_err};
use siphasher::sip128::SipHasher13;
use std::fmt;

/// The secret that fingerprints of a process are made with.
#[derive(Clone, Copy)]
pub(super) struct Key(SipHasher13);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

/// Whether values of this type have fingerprints: equal bytes are equal values.
pub(super) fn is_known(kind: &DataType) -> bool {
    matches!(
        kind,
        DataType::Utf8
            | DataType::Utf8View
            | DataType::FixedSizeBinary(_)
            | DataType::Boolean
            | DataType::Int32
            | DataType::Int64
            | DataType::UInt64
            | DataType::Date32
            | DataType::Timestamp(TimeUnit::Microsecond | TimeUnit::Nanosecond, _)
    )
}

/// A column whose values can be written behind each other.
struct Column<'a> {
    nulls: Option<&'a NullBuffer>,
    values: Values<'a>,
}

enum Values<'a> {
    Views(&'a StringViewArray),
    Texts(&'a StringArray),
    Bytes(&'a FixedSizeBinaryArray),
    Flags(&'a BooleanArray),
    Long(&'a [i64]),
    Unsigned(&'a [u64]),
    Short(&'a [i32]),
}

/// A text, behind its length: without it, texts of two columns could be taken apart in several ways.
fn bytes(value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    out.extend_from_slice(value);
}

impl<'a> Column<'a> {
    fn of(array: &'a ArrayRef) -> Result<Self> {
        let values = if let Some(texts) = array.as_string_view_opt() {
            Values::Views(texts)
        } else if let Some(texts) = array.as_string_opt::<i32>() {
            Values::Texts(texts)
        } else if let Some(values) = array.as_fixed_size_binary_opt() {
            Values::Bytes(values)
        } else if let Some(values) = array.as_boolean_opt() {
            Values::Flags(values)
        } else if let Some(values) = array.as_primitive_opt::<Int64Type>() {
            Values::Long(values.values())
        } else if let Some(values) = array.as_primitive_opt::<TimestampMicrosecondType>() {
            Values::Long(values.values())
        } else if let Some(values) = array.as_primitive_opt::<TimestampNanosecondType>() {
            Values::Long(values.values())
        } else if let Some(values) = array.as_primitive_opt::<UInt64Type>() {
            Values::Unsigned(values.values())
        } else if let Some(values) = array.as_primitive_opt::<Int32Type>() {
            Values::Short(values.values())
        } else if let Some(values) = array.as_primitive_opt::<Date32Type>() {
            Values::Short(values.values())
        } else {
            return internal_err!("values of {} have no fingerprint", array.data_type());
        };
        Ok(Self { nulls: array.nulls(), values })
    }

    /// Appends a row's value, behind whether there is one.
    #[inline]
    fn write(&self, row: usize, out: &mut Vec<u8>) {
        let valid = self.nulls.is_none_or(|nulls| nulls.is_valid(row));
        out.push(u8::from(valid));
        if !valid {
            return;
        }
        let number = match &self.values {
            Values::Views(texts) => return bytes(texts.value(row).as_bytes(), out),
            Values::Texts(texts) => return bytes(texts.value(row).as_bytes(), out),
            Values::Bytes(values) => return bytes(values.value(row), out),
            Values::Flags(values) => return out.push(u8::from(values.value(row))),
            Values::Long(values) => values.get(row).map(|value| value.to_le_bytes()),
            Values::Unsigned(values) => values.get(row).map(|value| value.to_le_bytes()),
            Values::Short(values) => values.get(row).map(|value| i64::from(*value).to_le_bytes()),
        };
        out.extend_from_slice(&number.unwrap_or_default());
    }
}

impl Key {
    pub(super) fn random() -> Option<Self> {
        let mut key = [0; 16];
        getrandom::fill(&mut key).ok()?;
        Some(Self(SipHasher13::new_with_key(&key)))
    }

    /// Appends the fingerprint of each row; none is zero.
    pub(super) fn fingerprints(&self, columns: &[ArrayRef], out: &mut Vec<u128>) -> Result<()> {
        let rows = columns.first().map_or(0, |column| column.len());
        let columns: Vec<Column<'_>> = columns.iter().map(Column::of).collect::<Result<_>>()?;
        let mut row_bytes = Vec::with_capacity(256);
        out.reserve(rows);
        for row in 0..rows {
            row_bytes.clear();
            for column in &columns {
                column.write(row, &mut row_bytes);
            }
            out.push(u128::from(self.0.hash(&row_bytes)).max(1));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::Int64Array;
    use std::collections::BTreeSet;
    use std::sync::Arc;

    #[test]
    fn rows_that_differ_anywhere_have_different_fingerprints() {
        let key = Key::random().unwrap();
        let left = [Some("a"), Some("ab"), Some("a"), Some(""), None, Some("x"), None];
        let right = [Some("bc"), Some("c"), None, Some("a"), Some("a"), Some("1"), None];
        let mut all = Vec::new();
        let views: [ArrayRef; 2] = [
            Arc::new(StringViewArray::from_iter(left)),
            Arc::new(StringViewArray::from_iter(right)),
        ];
        key.fingerprints(&views, &mut all).unwrap();
        let numbers: [ArrayRef; 1] = [Arc::new(Int64Array::from(vec![Some(0), Some(1), None]))];
        key.fingerprints(&numbers, &mut all).unwrap();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 10);
        // The same texts of another type are the same.
        let plain: [ArrayRef; 2] =
            [Arc::new(StringArray::from_iter(left)), Arc::new(StringArray::from_iter(right))];
        let mut again = Vec::new();
        key.fingerprints(&plain, &mut again).unwrap();
        assert_eq!(all.get(..7).unwrap(), again);
    }
}
