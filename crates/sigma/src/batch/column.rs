//! One column, whatever its type.

use super::cell::{Cell, double_text};
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array,
    LargeStringArray, StringArray, StringViewArray, TimestampMicrosecondArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Int32Type, TimeUnit};
use std::borrow::Cow;

/// A column of a batch.
pub(super) struct Column<'a> {
    data: Data<'a>,
    nulls: Option<&'a NullBuffer>,
    /// The values are JSON texts.
    json: bool,
    empty: bool,
}

enum Data<'a> {
    Text(&'a StringArray),
    Large(&'a LargeStringArray),
    View(&'a StringViewArray),
    Int(&'a Int64Array),
    Small(&'a Int32Array),
    Float(&'a Float64Array),
    Single(&'a Float32Array),
    Bool(&'a BooleanArray),
    Time(&'a TimestampMicrosecondArray),
    Dictionary {
        keys: Keys<'a>,
        values: Box<Column<'a>>,
        distinct: usize,
    },
    /// Read by its display.
    Other(&'a ArrayRef),
}

/// What a row has in a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Nothing,
    /// A place in the dictionary.
    Place(usize),
    Int(i64),
    /// A value that has to be read.
    Value,
}

/// The keys of a dictionary.
enum Keys<'a> {
    Plain(&'a [i32]),
    Other(Vec<usize>),
}

impl<'a> Column<'a> {
    pub(super) fn new(array: &'a ArrayRef, json: bool) -> Self {
        let empty = array.null_count() == array.len() || *array.data_type() == DataType::Null;
        Self { data: Data::new(array), nulls: array.nulls(), json, empty }
    }

    /// Whether every row is null.
    pub(super) fn is_empty(&self) -> bool {
        self.empty
    }

    /// Which rows are null, where some are.
    pub(super) fn nulls(&self) -> Option<&'a NullBuffer> {
        self.nulls
    }

    /// Whether its values are texts that stand in it as they are, each for itself.
    pub(super) fn is_plain(&self) -> bool {
        !self.json && matches!(self.data, Data::Text(_) | Data::Large(_) | Data::View(_))
    }

    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// How many values its dictionary has; none without a dictionary.
    pub(super) fn distinct(&self) -> usize {
        match &self.data {
            Data::Dictionary { distinct, .. } => *distinct,
            _ => 0,
        }
    }

    /// What the row has.
    #[inline]
    pub(super) fn key(&self, row: usize) -> Key {
        if self.is_null(row) {
            return Key::Nothing;
        }
        match &self.data {
            Data::Dictionary { keys: Keys::Plain(keys), .. } => match keys.get(row) {
                Some(key) => Key::Place(*key as usize),
                None => Key::Nothing,
            },
            Data::Dictionary { keys: Keys::Other(keys), .. } => {
                keys.get(row).map_or(Key::Nothing, |key| Key::Place(*key))
            }
            Data::Int(array) if row < array.len() => Key::Int(array.value(row)),
            Data::Small(array) if row < array.len() => Key::Int(i64::from(array.value(row))),
            _ => Key::Value,
        }
    }

    #[inline]
    fn is_null(&self, row: usize) -> bool {
        self.nulls.is_some_and(|nulls| row >= nulls.len() || nulls.is_null(row))
    }

    /// The row's value as it stands in the column.
    pub(super) fn text(&self, row: usize) -> Option<Cow<'a, str>> {
        if self.is_null(row) {
            return None;
        }
        Some(match &self.data {
            Data::Text(array) if row < array.len() => Cow::Borrowed(array.value(row)),
            Data::Large(array) if row < array.len() => Cow::Borrowed(array.value(row)),
            Data::View(array) if row < array.len() => Cow::Borrowed(array.value(row)),
            Data::Int(array) if row < array.len() => Cow::Owned(array.value(row).to_string()),
            Data::Small(array) if row < array.len() => Cow::Owned(array.value(row).to_string()),
            Data::Float(array) if row < array.len() => Cow::Owned(double_text(array.value(row))),
            Data::Single(array) if row < array.len() => {
                Cow::Owned(double_text(f64::from(array.value(row))))
            }
            Data::Bool(array) if row < array.len() => {
                Cow::Borrowed(if array.value(row) { "true" } else { "false" })
            }
            Data::Time(array) if row < array.len() => {
                Cow::Owned(palisade_event::time::rfc3339(array.value(row)))
            }
            Data::Dictionary { values, .. } => match self.key(row) {
                Key::Place(place) => return values.text(place),
                _ => return None,
            },
            Data::Other(array) if row < array.len() => {
                Cow::Owned(arrow::util::display::array_value_to_string(array, row).ok()?)
            }
            _ => return None,
        })
    }

    /// The row's value.
    pub(super) fn cell(&self, row: usize) -> Option<Cell<'a>> {
        let text = self.text(row)?;
        if !self.json {
            return Some(Cell::One(text));
        }
        match text {
            Cow::Borrowed(text) => Cell::of_json_text(text),
            Cow::Owned(text) => Some(match Cell::of_json_text(&text)? {
                Cell::One(text) => Cell::One(Cow::Owned(text.into_owned())),
                Cell::Many(texts) => Cell::Many(texts),
            }),
        }
    }
}

impl<'a> Data<'a> {
    fn new(array: &'a ArrayRef) -> Self {
        match array.data_type() {
            DataType::Utf8 => Self::Text(array.as_string()),
            DataType::LargeUtf8 => Self::Large(array.as_string()),
            DataType::Utf8View => Self::View(array.as_string_view()),
            DataType::Int64 => Self::Int(array.as_primitive()),
            DataType::Int32 => Self::Small(array.as_primitive()),
            DataType::Float64 => Self::Float(array.as_primitive()),
            DataType::Float32 => Self::Single(array.as_primitive()),
            DataType::Boolean => Self::Bool(array.as_boolean()),
            DataType::Timestamp(TimeUnit::Microsecond, _) => Self::Time(array.as_primitive()),
            DataType::Dictionary(..) => match array.as_any_dictionary_opt() {
                Some(dictionary) if !dictionary.values().is_empty() => Self::Dictionary {
                    keys: match array.as_dictionary_opt::<Int32Type>() {
                        Some(plain) => Keys::Plain(plain.keys().values()),
                        None => Keys::Other(dictionary.normalized_keys()),
                    },
                    values: Box::new(Column::new(dictionary.values(), false)),
                    distinct: dictionary.values().len(),
                },
                _ => Self::Other(array),
            },
            _ => Self::Other(array),
        }
    }
}
