//! One column while a frame is being built.
//!
//! Cells are kept dense: a column that a row does not set costs that row nothing. While every row
//! so far has set the column, the cells are the rows; from the first gap on the row of each cell is
//! kept beside it, and nulls are filled in when the frame is finished.

use super::places::{Places, fitted};
use super::text::{Dictionary, Plain};
use super::written::write_string;
use crate::schema::{self, Core};
use arrow::array::{
    Array, ArrayRef, BooleanArray, DictionaryArray, FixedSizeBinaryArray, PrimitiveArray,
    StringArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Field, FieldRef, Float64Type, Int32Type, Int64Type,
    TimestampMicrosecondType,
};
use std::sync::Arc;

/// A field's value on its way into a column.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'v> {
    /// A text, and whether a JSON string of it needs escapes.
    Text(&'v [u8], bool),
    /// An integer and its text.
    Int(i64, &'v [u8]),
    /// A double that gives back the number sent, and its text.
    Float(f64, &'v [u8]),
    Bool(bool),
    /// JSON text of anything else: an array, an empty object, a number that no type holds.
    Json(&'v [u8]),
}

impl Value<'_> {
    /// Writes the value as JSON.
    pub(super) fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text(text, true) => write_string(text, out),
            Self::Text(text, false) => {
                out.push(b'"');
                out.extend_from_slice(text);
                out.push(b'"');
            }
            Self::Int(_, text) | Self::Float(_, text) | Self::Json(text) => {
                out.extend_from_slice(text);
            }
            Self::Bool(value) => {
                out.extend_from_slice(if *value { b"true" } else { b"false" });
            }
        }
    }
}

/// The cells of a column, by their type.
#[derive(Debug)]
pub(super) enum Cells {
    Bool(Vec<bool>),
    Int(Vec<i64>),
    Float(Vec<f64>),
    Dictionary(Dictionary),
    Plain(Plain),
    Json(Plain),
    Id(Vec<[u8; 16]>),
}

impl Cells {
    fn truncate(&mut self, len: usize) {
        match self {
            Self::Bool(cells) => cells.truncate(len),
            Self::Int(cells) => cells.truncate(len),
            Self::Float(cells) => cells.truncate(len),
            Self::Dictionary(cells) if len == 0 => cells.clear(),
            Self::Dictionary(cells) => cells.truncate(len),
            Self::Plain(cells) | Self::Json(cells) => cells.truncate(len),
            Self::Id(cells) => cells.truncate(len),
        }
    }

    /// Every cell as JSON text: what a column becomes when its values are of several types.
    fn to_json(&self, count: usize) -> Plain {
        let mut json = Plain::with_capacity(count + 1, count * 8);
        let mut floats = ryu::Buffer::new();
        let mut integers = itoa::Buffer::new();
        for cell in 0..count {
            match self {
                Self::Bool(cells) => {
                    Value::Bool(cells.get(cell).copied().unwrap_or_default())
                        .write_json(&mut json.data);
                }
                Self::Int(cells) => {
                    let value = cells.get(cell).copied().unwrap_or_default();
                    json.data.extend_from_slice(integers.format(value).as_bytes());
                }
                Self::Float(cells) => {
                    let value = cells.get(cell).copied().unwrap_or_default();
                    json.data.extend_from_slice(floats.format(value).as_bytes());
                }
                Self::Dictionary(cells) => write_string(cells.get(cell), &mut json.data),
                Self::Plain(cells) => write_string(cells.get(cell), &mut json.data),
                Self::Json(cells) => json.data.extend_from_slice(cells.get(cell)),
                Self::Id(_) => {}
            }
            json.ends.push(json.data.len() as i32);
        }
        json
    }
}

/// Cells that a conversion replaced, kept so that the rows that caused it can be dropped again.
#[derive(Debug)]
pub(super) struct Replaced {
    pub(super) row: u32,
    pub(super) column: u32,
    pub(super) cells: Cells,
}

/// One column while a frame is being built.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) name: Arc<str>,
    core: Option<Core>,
    cells: Cells,
    count: u32,
    /// The row of each cell, once there was a gap.
    rows: Vec<u32>,
    sparse: bool,
    /// The row after the last that set this column.
    filled: u32,
    /// For how many frames texts go without a dictionary because it did not pay.
    plain_frames: u32,
    /// The field of the last frame, to be shared with the next.
    field: Option<FieldRef>,
    /// The frame in which the column was last taken into use.
    pub(super) frame: u64,
}

/// For how many frames a dictionary that did not pay is not tried again.
const WITHOUT_DICTIONARY: u32 = 64;
/// Rows from which a frame decides about the dictionaries of the next ones.
const DECISIVE_ROWS: usize = 256;

impl Column {
    pub(super) fn core(core: Core) -> Self {
        let mut column = Self::dynamic(core.name());
        column.core = Some(core);
        column.cells = match core.data_type() {
            DataType::Utf8 => Cells::Plain(Plain::default()),
            DataType::FixedSizeBinary(_) => Cells::Id(Vec::new()),
            DataType::Float64 => Cells::Float(Vec::new()),
            DataType::Dictionary(..) => Cells::Dictionary(Dictionary::default()),
            _ => Cells::Int(Vec::new()),
        };
        column
    }

    pub(super) fn dynamic(name: &str) -> Self {
        Self {
            name: Arc::from(name),
            core: None,
            cells: Cells::Dictionary(Dictionary::default()),
            count: 0,
            rows: Vec::new(),
            sparse: false,
            filled: 0,
            plain_frames: 0,
            field: None,
            frame: 0,
        }
    }

    /// Whether this row has a value already.
    #[inline(always)]
    pub(super) fn has(&self, row: u32) -> bool {
        self.filled > row
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Counts a cell that was appended for this row.
    #[inline(always)]
    fn appended(&mut self, row: u32) {
        if self.sparse {
            self.rows.push(row);
        } else if self.count != row {
            self.begin_gaps(row);
        }
        self.count += 1;
        self.filled = row + 1;
    }

    #[cold]
    fn begin_gaps(&mut self, row: u32) {
        self.sparse = true;
        self.rows.clear();
        self.rows.extend(0..self.count);
        self.rows.push(row);
    }

    /// Appends a text.
    #[inline]
    pub(super) fn push_text(
        &mut self,
        row: u32,
        text: &[u8],
        escapes: bool,
        index: u32,
        replaced: &mut Vec<Replaced>,
    ) {
        match &mut self.cells {
            Cells::Dictionary(cells) => {
                if !cells.push(text) {
                    let mut plain = cells.to_plain();
                    plain.push(text);
                    self.cells = Cells::Plain(plain);
                    self.plain_frames = WITHOUT_DICTIONARY;
                }
                self.appended(row);
            }
            Cells::Plain(cells) => {
                cells.push(text);
                self.appended(row);
            }
            _ => self.push_other(row, &Value::Text(text, escapes), index, replaced),
        }
    }

    /// Appends any value; the column becomes one of JSON texts if it held another type.
    #[inline]
    pub(super) fn push(
        &mut self,
        row: u32,
        value: &Value<'_>,
        index: u32,
        replaced: &mut Vec<Replaced>,
    ) {
        match (&mut self.cells, value) {
            (_, Value::Text(text, escapes)) => {
                return self.push_text(row, text, *escapes, index, replaced);
            }
            (Cells::Int(cells), Value::Int(value, _)) => cells.push(*value),
            (Cells::Float(cells), Value::Float(value, _)) => cells.push(*value),
            (Cells::Bool(cells), Value::Bool(value)) => cells.push(*value),
            _ => return self.push_other(row, value, index, replaced),
        }
        self.appended(row);
    }

    /// Appends a value to a column that is empty, of JSON texts or of another type.
    fn push_other(
        &mut self,
        row: u32,
        value: &Value<'_>,
        index: u32,
        replaced: &mut Vec<Replaced>,
    ) {
        if self.count == 0 {
            self.cells = match value {
                Value::Text(text, _) => {
                    let mut cells = self.text_cells();
                    match &mut cells {
                        Cells::Plain(plain) => plain.push(text),
                        Cells::Dictionary(dictionary) => {
                            dictionary.push(text);
                        }
                        _ => {}
                    }
                    cells
                }
                Value::Int(value, _) => Cells::Int(vec![*value]),
                Value::Float(value, _) => Cells::Float(vec![*value]),
                Value::Bool(value) => Cells::Bool(vec![*value]),
                Value::Json(text) => {
                    let mut plain = Plain::default();
                    plain.push(text);
                    Cells::Json(plain)
                }
            };
            return self.appended(row);
        }
        if !matches!(self.cells, Cells::Json(_)) {
            let json = Cells::Json(self.cells.to_json(self.count as usize));
            let cells = std::mem::replace(&mut self.cells, json);
            replaced.push(Replaced { row, column: index, cells });
        }
        if let Cells::Json(cells) = &mut self.cells {
            value.write_json(&mut cells.data);
            cells.ends.push(cells.data.len() as i32);
        }
        self.appended(row);
    }

    fn text_cells(&self) -> Cells {
        if self.plain_frames > 0 {
            Cells::Plain(Plain::default())
        } else {
            Cells::Dictionary(Dictionary::default())
        }
    }

    /// Appends to a column of integers (ports, times).
    #[inline]
    pub(super) fn push_int(&mut self, row: u32, value: i64) {
        if let Cells::Int(cells) = &mut self.cells {
            cells.push(value);
            self.appended(row);
        }
    }

    /// Appends to a column of doubles.
    pub(super) fn push_float(&mut self, row: u32, value: f64) {
        if let Cells::Float(cells) = &mut self.cells {
            cells.push(value);
            self.appended(row);
        }
    }

    /// Appends to a column of ids.
    #[inline]
    pub(super) fn push_id(&mut self, row: u32, value: [u8; 16]) {
        if let Cells::Id(cells) = &mut self.cells {
            cells.push(value);
            self.appended(row);
        }
    }

    /// Puts back the cells that a conversion had replaced; [`Column::truncate`] must follow.
    pub(super) fn restore(&mut self, cells: Cells) {
        self.cells = cells;
    }

    /// Drops the cells of the rows from `row` on.
    pub(super) fn truncate(&mut self, row: u32) {
        if self.filled <= row {
            return;
        }
        if self.sparse {
            let count = self.rows.partition_point(|r| *r < row);
            self.rows.truncate(count);
            self.count = count as u32;
            self.filled = self.rows.last().map_or(0, |last| last + 1);
        } else {
            self.count = self.count.min(row);
            self.filled = self.count;
        }
        self.cells.truncate(self.count as usize);
        if self.count == 0 {
            self.sparse = false;
        }
    }

    /// The column's field and array for a frame of so many rows; the column is empty after it.
    pub(super) fn finish(&mut self, rows: usize) -> (FieldRef, ArrayRef) {
        let count = self.count as usize;
        let places = Places { rows, count, of_cells: self.sparse.then_some(self.rows.as_slice()) };
        let nulls = places.nulls();
        let mut json = false;
        let core_int = self.core.map(Core::data_type);
        let array: ArrayRef = match &mut self.cells {
            Cells::Bool(cells) => {
                let full = places.spread(cells);
                let bits = BooleanBuffer::collect_bool(rows, |row| {
                    full.get(row).copied().unwrap_or_default()
                });
                Arc::new(BooleanArray::new(bits, nulls))
            }
            Cells::Int(cells) => match core_int {
                Some(DataType::Int32) => {
                    let mut narrow: Vec<i32> = cells.drain(..).map(|port| port as i32).collect();
                    primitive::<Int32Type>(&places, &mut narrow, nulls)
                }
                Some(_) => {
                    let cells = ScalarBuffer::from(places.spread(cells));
                    Arc::new(
                        PrimitiveArray::<TimestampMicrosecondType>::new(cells, nulls)
                            .with_timezone("UTC"),
                    )
                }
                None => primitive::<Int64Type>(&places, cells, nulls),
            },
            Cells::Float(cells) => primitive::<Float64Type>(&places, cells, nulls),
            Cells::Id(cells) => {
                let bytes = Buffer::from_vec(places.spread(cells).into_flattened());
                Arc::new(FixedSizeBinaryArray::new(16, bytes, nulls))
            }
            Cells::Plain(cells) => strings(&places, cells, nulls),
            Cells::Json(cells) => {
                json = true;
                strings(&places, cells, nulls)
            }
            Cells::Dictionary(cells) => {
                let pays = cells.values.len() * 2 <= count;
                if !pays && count >= DECISIVE_ROWS {
                    self.plain_frames = WITHOUT_DICTIONARY;
                }
                if pays {
                    dictionary(&places, cells, nulls)
                } else {
                    let mut plain = cells.to_plain();
                    cells.clear();
                    strings(&places, &mut plain, nulls)
                }
            }
        };
        let field = self.shared_field(array.data_type(), json);
        self.reset(count);
        (field, array)
    }

    /// The field of the last frame if it is still right, so that equal schemas share their fields.
    fn shared_field(&mut self, data_type: &DataType, json: bool) -> FieldRef {
        if let Some(field) = &self.field
            && field.data_type() == data_type
            && schema::is_json(field) == json
        {
            return Arc::clone(field);
        }
        let field = Arc::new(match self.core {
            _ if json => schema::json_field(&self.name),
            Some(core) => core.field().as_ref().clone().with_data_type(data_type.clone()),
            None => Field::new(self.name.as_ref(), data_type.clone(), true),
        });
        self.field = Some(Arc::clone(&field));
        field
    }

    /// Empties the column for the next frame, with room for as much as this one had.
    fn reset(&mut self, count: usize) {
        let room = count + count / 8;
        match &mut self.cells {
            Cells::Bool(cells) => cells.clear(),
            Cells::Int(cells) => renew(cells, room),
            Cells::Float(cells) => renew(cells, room),
            Cells::Id(cells) => renew(cells, room),
            Cells::Dictionary(cells) => {
                let distinct = cells.values.len();
                cells.clear();
                renew(&mut cells.keys, room);
                renew(&mut cells.values.ends, distinct + 1);
                if self.plain_frames > 0 {
                    self.cells = Cells::Plain(Plain::default());
                }
            }
            Cells::Plain(cells) | Cells::Json(cells) => {
                cells.clear();
                renew(&mut cells.ends, room + 1);
            }
        }
        self.count = 0;
        self.filled = 0;
        self.sparse = false;
        self.rows.clear();
        self.plain_frames = self.plain_frames.saturating_sub(1);
        let always_plain = self.core.is_some_and(|core| core.data_type() == DataType::Utf8);
        if self.plain_frames == 0 && !always_plain && matches!(self.cells, Cells::Plain(_)) {
            self.cells = Cells::Dictionary(Dictionary::default());
        }
    }
}

/// Empties a vector and makes sure that it has room.
fn renew<T>(cells: &mut Vec<T>, room: usize) {
    cells.clear();
    cells.reserve(room);
}

fn primitive<T: ArrowPrimitiveType>(
    places: &Places<'_>,
    cells: &mut Vec<T::Native>,
    nulls: Option<NullBuffer>,
) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::from(places.spread(cells)), nulls))
}

fn strings(places: &Places<'_>, cells: &mut Plain, nulls: Option<NullBuffer>) -> ArrayRef {
    let offsets = places.offsets(&cells.ends);
    let room = cells.data.len() + cells.data.len() / 8;
    let data = std::mem::replace(&mut cells.data, Vec::with_capacity(room));
    Arc::new(text_array(offsets, fitted(data), nulls))
}

/// Every cell came out of checked UTF-8; should one not have, its text is mended, never the frame
/// lost.
fn text_array(offsets: OffsetBuffer<i32>, data: Vec<u8>, nulls: Option<NullBuffer>) -> StringArray {
    let buffer = Buffer::from_vec(data);
    match StringArray::try_new(offsets.clone(), buffer.clone(), nulls.clone()) {
        Ok(array) => array,
        Err(_) => offsets
            .windows(2)
            .enumerate()
            .map(|(row, ends)| {
                let [start, end] = *ends else { return None };
                let bytes = buffer.get(start as usize..end as usize).unwrap_or_default();
                let valid = nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
                valid.then(|| String::from_utf8_lossy(bytes).into_owned())
            })
            .collect(),
    }
}

fn dictionary(places: &Places<'_>, cells: &mut Dictionary, nulls: Option<NullBuffer>) -> ArrayRef {
    let distinct = cells.values.len();
    let all = Places { rows: distinct, count: distinct, of_cells: None };
    let values = strings(&all, &mut cells.values, None);
    let keys =
        PrimitiveArray::<Int32Type>::new(ScalarBuffer::from(places.spread(&mut cells.keys)), nulls);
    match DictionaryArray::try_new(keys.clone(), Arc::clone(&values)) {
        Ok(array) => Arc::new(array),
        // Keys are always below the number of values.
        Err(_) => Arc::new(StringArray::new_null(keys.len())),
    }
}
