//! Reading columns without caring how the decoder laid them out.

use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, RecordBatch, StringArray};
use arrow::datatypes::Int32Type;

/// A text column, plain or dictionary-encoded.
#[derive(Debug, Clone, Copy)]
pub enum Text<'a> {
    /// `Utf8`.
    Plain(&'a StringArray),
    /// `Dictionary(Int32, Utf8)`.
    Dictionary(&'a DictionaryArray<Int32Type>, &'a StringArray),
}

impl<'a> Text<'a> {
    /// The column as text; `None` when it is of another type.
    #[must_use]
    pub fn of(array: &'a ArrayRef) -> Option<Self> {
        if let Some(plain) = array.as_string_opt::<i32>() {
            return Some(Self::Plain(plain));
        }
        let dictionary = array.as_dictionary_opt::<Int32Type>()?;
        let values = dictionary.values().as_string_opt::<i32>()?;
        Some(Self::Dictionary(dictionary, values))
    }

    /// The text column of this name in a batch.
    #[must_use]
    pub fn in_batch(batch: &'a RecordBatch, name: &str) -> Option<Self> {
        Self::of(batch.column_by_name(name)?)
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Plain(array) => array.len(),
            Self::Dictionary(array, _) => array.len(),
        }
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of a row; `None` when it is null or the row is out of range.
    #[must_use]
    pub fn get(&self, row: usize) -> Option<&'a str> {
        match self {
            Self::Plain(array) => {
                (row < array.len() && array.is_valid(row)).then(|| array.value(row))
            }
            Self::Dictionary(array, values) => {
                if row >= array.len() {
                    return None;
                }
                let key = array.key(row)?;
                (key < values.len() && values.is_valid(key)).then(|| values.value(key))
            }
        }
    }

    /// The dictionary key of a row where the column has a dictionary: equal keys mean equal values.
    #[must_use]
    pub fn key(&self, row: usize) -> Option<usize> {
        match self {
            Self::Plain(_) => None,
            Self::Dictionary(array, _) => {
                if row < array.len() {
                    array.key(row)
                } else {
                    None
                }
            }
        }
    }

    /// The dictionary's values, where the column has one.
    #[must_use]
    pub fn values(&self) -> Option<&'a StringArray> {
        match self {
            Self::Plain(_) => None,
            Self::Dictionary(_, values) => Some(values),
        }
    }
}
