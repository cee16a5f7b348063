//! Rows of `events` back into JSON objects: for retrying dead letters, for the API and for replay.
//!
//! Dotted names nest again, unless the row also has a value at a part of the path: then the name
//! stays dotted (`{"user":"alice","user.id":7}`). Columns of JSON texts give their JSON; the fields
//! of `overflow` stand last, under their dotted names. Decoding an encoded row gives the row again:
//! core columns stand first, so that a field that is an alias of one finds it taken as it did the
//! first time, and an overflowing second value of a name is written as a second member of that name.

use crate::decode::{OverflowMembers, write_string};
use crate::schema::{self, Core};
use crate::time;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Float32Type, Float64Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType,
    UInt64Type,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// Which columns an encoded row shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowView {
    /// What the sender sent: no derived columns, and `time` as it was claimed. Decoding it again
    /// gives the same row.
    Sent,
    /// All that is stored. No name comes twice: fields of the overflow whose names are taken stay in
    /// an object `overflow`.
    Stored,
}

/// Names nested deeper than this stay dotted, so that what is written can be decoded.
const MOST_SEGMENTS: usize = 60;

/// One column of a batch, ready to be written.
struct Column<'a> {
    name: &'a str,
    segments: Vec<&'a str>,
    /// Its place among the core columns, which stand before all others.
    core: usize,
    cells: Cells<'a>,
    array: &'a ArrayRef,
    /// The columns whose names are a part of this one's path.
    above: Vec<usize>,
}

enum Cells<'a> {
    Text(Box<dyn Fn(usize) -> &'a str + 'a>),
    Json(Box<dyn Fn(usize) -> &'a str + 'a>),
    Bool(&'a arrow::array::BooleanArray),
    Int32(&'a [i32]),
    Int64(&'a [i64]),
    UInt64(&'a [u64]),
    Float32(&'a [f32]),
    Float64(&'a [f64]),
    Moment(&'a [i64]),
    Id(&'a arrow::array::FixedSizeBinaryArray),
    Other(Option<ArrayFormatter<'a>>),
}

/// Writes the rows of one batch of `events` as JSON objects.
pub struct RowEncoder<'a> {
    view: RowView,
    rows: usize,
    /// Core columns in their order, then the others by their segments, so that what nests together
    /// stands together.
    columns: Vec<Column<'a>>,
    overflow: Option<Cells<'a>>,
    overflow_array: Option<&'a ArrayRef>,
    claimed_time: Option<usize>,
}

impl std::fmt::Debug for RowEncoder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RowEncoder").field("view", &self.view).field("rows", &self.rows).finish()
    }
}

impl<'a> RowEncoder<'a> {
    /// An encoder of the rows of a batch.
    #[must_use]
    pub fn new(batch: &'a RecordBatch, view: RowView) -> Self {
        let mut columns = Vec::new();
        let (mut overflow, mut overflow_array) = (None, None);
        for (field, array) in batch.schema_ref().fields().iter().zip(batch.columns()) {
            let core = Core::by_name(field.name());
            if core == Some(Core::Overflow) {
                overflow = Some(Cells::of(array, false));
                overflow_array = Some(array);
                continue;
            }
            let sent = core.is_none_or(|core| {
                !core.is_derived() || matches!(core, Core::ReportedThreatScore | Core::ClaimedTime)
            });
            if view == RowView::Sent && !sent {
                continue;
            }
            columns.push(Column {
                name: field.name(),
                segments: field.name().split('.').collect(),
                core: core.map_or(Core::ALL.len(), |core| core as usize),
                cells: Cells::of(array, schema::is_json(field)),
                array,
                above: Vec::new(),
            });
        }
        columns.sort_by(|a, b| (a.core, &a.segments).cmp(&(b.core, &b.segments)));
        let above: Vec<Vec<usize>> = columns
            .iter()
            .map(|column| {
                let is_above = |other: &Column<'_>| {
                    column.name.strip_prefix(other.name).is_some_and(|rest| rest.starts_with('.'))
                };
                let places = columns.iter().enumerate();
                places.filter(|(_, other)| is_above(other)).map(|(place, _)| place).collect()
            })
            .collect();
        for (column, above) in columns.iter_mut().zip(above) {
            column.above = above;
        }
        let claimed_time = columns
            .iter()
            .position(|column| view == RowView::Sent && column.name == Core::ClaimedTime.name());
        Self { view, rows: batch.num_rows(), columns, overflow, overflow_array, claimed_time }
    }

    /// How many rows there are.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Writes a row as a JSON object; a row out of range is an empty object.
    pub fn write(&self, row: usize, out: &mut Vec<u8>) {
        let valid = |array: &ArrayRef| row < array.len() && array.is_valid(row);
        let present: Vec<bool> = self.columns.iter().map(|column| valid(column.array)).collect();
        let has = |place: usize| present.get(place).copied().unwrap_or_default();
        let stays_dotted = |column: &Column<'_>| {
            // The object `overflow` must not come twice either.
            let like_overflow = column.segments.first() == Some(&"overflow");
            like_overflow && self.view == RowView::Stored
                || column.segments.len() > MOST_SEGMENTS
                || column.above.iter().any(|place| has(*place))
        };
        out.push(b'{');
        let mut writer = Nesting { open: Vec::new(), first: true };
        for (place, column) in self.columns.iter().enumerate() {
            if !has(place) || Some(place) == self.claimed_time || stays_dotted(column) {
                continue;
            }
            let cells = match self.claimed_time.and_then(|place| self.columns.get(place)) {
                Some(claimed) if column.name == Core::Time.name() && valid(claimed.array) => {
                    &claimed.cells
                }
                _ => &column.cells,
            };
            writer.name(&column.segments, out);
            cells.write(row, out);
        }
        writer.close_to(0, out);
        for (place, column) in self.columns.iter().enumerate() {
            if has(place) && Some(place) != self.claimed_time && stays_dotted(column) {
                writer.name(&[column.name], out);
                column.cells.write(row, out);
            }
        }
        let overflow = self.overflow_array.filter(|array| valid(array));
        if let Some(Cells::Text(text)) = self.overflow.as_ref().filter(|_| overflow.is_some()) {
            self.write_overflow(text(row), &present, &mut writer, out);
        }
        out.push(b'}');
    }

    fn write_overflow(
        &self,
        text: &str,
        present: &[bool],
        writer: &mut Nesting<'a>,
        out: &mut Vec<u8>,
    ) {
        let mut kept: Vec<u8> = Vec::new();
        let mut seen: Vec<Vec<u8>> = Vec::new();
        for (name, value) in OverflowMembers::of(text) {
            let taken = self.view == RowView::Stored && {
                let columns = self.columns.iter().zip(present);
                let column =
                    columns.filter(|(_, has)| **has).any(|(c, _)| c.name.as_bytes() == name);
                let nests_over = |column: &Column<'_>| {
                    column
                        .name
                        .as_bytes()
                        .strip_prefix(name.as_slice())
                        .is_some_and(|rest| rest.starts_with(b"."))
                };
                let columns = self.columns.iter().zip(present);
                let inner = columns.filter(|(_, has)| **has).any(|(c, _)| nests_over(c));
                column || inner || seen.contains(&name) || name == b"overflow"
            };
            let target = if taken { &mut kept } else { &mut *out };
            if taken {
                target.push(if target.is_empty() { b'{' } else { b',' });
            } else {
                writer.comma(target);
            }
            write_string(&name, target);
            target.push(b':');
            target.extend_from_slice(value);
            seen.push(name);
        }
        if !kept.is_empty() {
            writer.name(&["overflow"], out);
            out.extend_from_slice(&kept);
            out.push(b'}');
        }
    }
}

/// A row of a batch of `events` as a JSON object. For many rows, keep a [`RowEncoder`].
#[must_use]
pub fn encode_row(batch: &RecordBatch, row: usize, view: RowView) -> String {
    let mut out = Vec::new();
    RowEncoder::new(batch, view).write(row, &mut out);
    String::from_utf8(out)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// Which objects are open while a row is written.
struct Nesting<'a> {
    open: Vec<&'a str>,
    first: bool,
}

impl<'a> Nesting<'a> {
    fn comma(&mut self, out: &mut Vec<u8>) {
        if !self.first {
            out.push(b',');
        }
        self.first = false;
    }

    /// Closes and opens objects so that the last segment can be written, and writes it.
    fn name(&mut self, segments: &[&'a str], out: &mut Vec<u8>) {
        let Some((last, parents)) = segments.split_last() else {
            return;
        };
        let shared = self.open.iter().zip(parents).take_while(|(a, b)| a == b).count();
        self.close_to(shared, out);
        for parent in parents.iter().skip(shared) {
            self.key(parent, out);
            out.push(b'{');
            self.first = true;
            self.open.push(parent);
        }
        self.key(last, out);
    }

    fn key(&mut self, key: &str, out: &mut Vec<u8>) {
        self.comma(out);
        write_string(key.as_bytes(), out);
        out.push(b':');
    }

    fn close_to(&mut self, depth: usize, out: &mut Vec<u8>) {
        while self.open.len() > depth {
            self.open.pop();
            out.push(b'}');
            self.first = false;
        }
    }
}

impl<'a> Cells<'a> {
    fn of(array: &'a ArrayRef, json: bool) -> Self {
        if let Some(text) = text(array) {
            return if json { Self::Json(text) } else { Self::Text(text) };
        }
        match array.data_type() {
            DataType::Boolean => Self::Bool(array.as_boolean()),
            DataType::Int32 => Self::Int32(array.as_primitive::<Int32Type>().values()),
            DataType::Int64 => Self::Int64(array.as_primitive::<Int64Type>().values()),
            DataType::UInt64 => Self::UInt64(array.as_primitive::<UInt64Type>().values()),
            DataType::Float32 => Self::Float32(array.as_primitive::<Float32Type>().values()),
            DataType::Float64 => Self::Float64(array.as_primitive::<Float64Type>().values()),
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                Self::Moment(array.as_primitive::<TimestampMicrosecondType>().values())
            }
            DataType::FixedSizeBinary(_) => Self::Id(array.as_fixed_size_binary()),
            _ => Self::Other(ArrayFormatter::try_new(array, &FormatOptions::new()).ok()),
        }
    }

    /// Writes the value of a row that has one.
    fn write(&self, row: usize, out: &mut Vec<u8>) {
        fn integer(value: Option<&(impl itoa::Integer + Copy)>, out: &mut Vec<u8>) {
            let value = value.map(|value| itoa::Buffer::new().format(*value).as_bytes().to_vec());
            out.extend_from_slice(value.as_deref().unwrap_or(b"null"));
        }
        fn float(value: Option<impl ryu::Float>, finite: bool, out: &mut Vec<u8>) {
            match value.filter(|_| finite) {
                Some(value) => {
                    out.extend_from_slice(ryu::Buffer::new().format_finite(value).as_bytes())
                }
                None => out.extend_from_slice(b"null"),
            }
        }
        match self {
            Self::Text(text) => write_string(text(row).as_bytes(), out),
            Self::Json(text) => out.extend_from_slice(text(row).as_bytes()),
            Self::Bool(cells) => {
                out.extend_from_slice(if cells.value(row) { b"true" } else { b"false" });
            }
            Self::Int32(cells) => integer(cells.get(row), out),
            Self::Int64(cells) => integer(cells.get(row), out),
            Self::UInt64(cells) => integer(cells.get(row), out),
            Self::Float32(cells) => {
                float(cells.get(row).copied(), cells.get(row).is_some_and(|v| v.is_finite()), out);
            }
            Self::Float64(cells) => {
                float(cells.get(row).copied(), cells.get(row).is_some_and(|v| v.is_finite()), out);
            }
            Self::Moment(cells) => {
                let moment = time::rfc3339(cells.get(row).copied().unwrap_or_default());
                write_string(moment.as_bytes(), out);
            }
            Self::Id(cells) => {
                out.push(b'"');
                for byte in cells.value(row) {
                    let digit =
                        |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0') as u8;
                    out.extend_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
                }
                out.push(b'"');
            }
            Self::Other(formatter) => {
                let text = formatter.as_ref().map(|f| f.value(row).to_string()).unwrap_or_default();
                write_string(text.as_bytes(), out);
            }
        }
    }
}

/// How to read a text of a row that has one, in whichever layout the texts are.
fn text<'a>(array: &'a ArrayRef) -> Option<Box<dyn Fn(usize) -> &'a str + 'a>> {
    if let Some(texts) = array.as_string_opt::<i32>() {
        return Some(Box::new(|row| texts.value(row)));
    }
    if let Some(texts) = array.as_string_view_opt() {
        return Some(Box::new(|row| texts.value(row)));
    }
    if let Some(texts) = array.as_string_opt::<i64>() {
        return Some(Box::new(|row| texts.value(row)));
    }
    let dictionary = array.as_dictionary_opt::<Int32Type>()?;
    let texts = text(dictionary.values())?;
    Some(Box::new(move |row| dictionary.key(row).map(&texts).unwrap_or_default()))
}
