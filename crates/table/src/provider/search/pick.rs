//! Single values out of pages, without making arrays of all that stand around them.
//!
//! Rows that stand alone in their pages cost the Parquet reader as much as all rows of these pages, and all entries of
//! the dictionaries. Here a text is found where it lies, and of a page only what comes before a wanted value is
//! walked through. What is not known here (nested values, encodings of other writers) is left to the reader.

use super::file::Part;
use super::pages::{Chunk, any_in};
use super::unpack::{
    deltas, length, lengths, marked_places, numbers_at, rows_of_values, take, values_of_rows,
};
use bytes::Bytes;
use parquet::basic::{Encoding, Type};
use parquet::column::page::Page;
use parquet::file::metadata::ColumnChunkMetaData;
use std::ops::Range;

/// How values lie in a page.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Form {
    Bool,
    /// Integers of so many bytes.
    Int(usize),
    /// Other values of so many bytes.
    Fixed(usize),
    Text,
}

impl Form {
    fn of(column: &ColumnChunkMetaData) -> Option<Self> {
        Some(match column.column_type() {
            Type::BOOLEAN => Self::Bool,
            Type::INT32 => Self::Int(4),
            Type::INT64 => Self::Int(8),
            Type::FLOAT => Self::Fixed(4),
            Type::DOUBLE => Self::Fixed(8),
            Type::BYTE_ARRAY => Self::Text,
            Type::FIXED_LEN_BYTE_ARRAY => {
                let bytes = usize::try_from(column.column_descr().type_length()).ok();
                Self::Fixed(bytes.filter(|bytes| *bytes > 0)?)
            }
            Type::INT96 => return None,
        })
    }
}

/// Values one behind the other.
#[derive(Debug, Default)]
struct Picked {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Picked {
    fn push(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
        self.ends.push(self.bytes.len());
    }

    fn get(&self, number: usize) -> Option<&[u8]> {
        let start = match number.checked_sub(1) {
            Some(before) => *self.ends.get(before)?,
            None => 0,
        };
        self.bytes.get(start..*self.ends.get(number)?)
    }
}

/// The values that pages refer to by number.
struct Dictionary {
    bytes: Bytes,
    count: usize,
    /// Where texts begin, as far as was needed: the length stands before each.
    starts: Vec<usize>,
}

impl Dictionary {
    fn new(bytes: Bytes, count: usize) -> Self {
        Self { bytes, count, starts: vec![0] }
    }

    fn get(&mut self, number: usize, form: Form) -> Option<&[u8]> {
        if number >= self.count {
            return None;
        }
        let width = match form {
            Form::Int(width) | Form::Fixed(width) => width,
            Form::Bool => return None,
            Form::Text => {
                while self.starts.len() <= number {
                    let mut rest = self.bytes.get(*self.starts.last()?..)?;
                    let length = length(&mut rest)?;
                    self.starts.push(self.bytes.len() - rest.get(length..)?.len());
                }
                let mut rest = self.bytes.get(*self.starts.get(number)?..)?;
                let length = length(&mut rest)?;
                return rest.get(..length);
            }
        };
        let start = number.checked_mul(width)?;
        self.bytes.get(start..start.checked_add(width)?)
    }

    /// Which texts are wanted.
    fn marked(&self, wanted: &mut dyn FnMut(&[u8]) -> bool) -> Option<Vec<bool>> {
        let mut rest: &[u8] = &self.bytes;
        let mut marked = Vec::new();
        for _ in 0..self.count {
            let length = length(&mut rest)?;
            let value = take(&mut rest, length)?;
            marked.push(wanted(value));
        }
        Some(marked)
    }
}

/// Definition levels, where there are some; the encoding; the values.
type Parts<'p> = (Option<&'p [u8]>, Encoding, &'p [u8]);

/// A data page's levels, encoding and values.
fn parts(page: &Page, nullable: bool) -> Option<Parts<'_>> {
    let Page::DataPage { buf, encoding, def_level_encoding, .. } = page else { return None };
    let mut values: &[u8] = buf;
    if !nullable {
        return Some((None, *encoding, values));
    }
    if *def_level_encoding != Encoding::RLE {
        return None;
    }
    let length = length(&mut values)?;
    let levels = take(&mut values, length)?;
    Some((Some(levels), *encoding, values))
}

/// Goes through the texts of a page of at most `most` values until `see` says that it is enough. `None` for an encoding
/// that is not known here.
fn each_text(
    encoding: Encoding,
    mut bytes: &[u8],
    most: usize,
    mut see: impl FnMut(usize, &[u8]) -> bool,
) -> Option<()> {
    match encoding {
        Encoding::PLAIN => {
            let mut place = 0;
            while !bytes.is_empty() {
                let length = length(&mut bytes)?;
                if !see(place, take(&mut bytes, length)?) {
                    break;
                }
                place += 1;
            }
        }
        Encoding::DELTA_LENGTH_BYTE_ARRAY => {
            for (place, length) in lengths(&mut bytes, most)?.into_iter().enumerate() {
                if !see(place, take(&mut bytes, length)?) {
                    break;
                }
            }
        }
        Encoding::DELTA_BYTE_ARRAY => {
            let shared = lengths(&mut bytes, most)?;
            let new = lengths(&mut bytes, most)?;
            if shared.len() != new.len() {
                return None;
            }
            let mut value: Vec<u8> = Vec::new();
            for (place, (shared, new)) in shared.into_iter().zip(new).enumerate() {
                if shared > value.len() {
                    return None;
                }
                value.truncate(shared);
                value.extend_from_slice(take(&mut bytes, new)?);
                if !see(place, &value) {
                    break;
                }
            }
        }
        _ => return None,
    }
    Some(())
}

/// The values of a page of at most `most` at these places, which ascend.
fn picked(
    (encoding, mut bytes): (Encoding, &[u8]),
    form: Form,
    most: usize,
    places: &[usize],
    dictionary: Option<&mut Dictionary>,
) -> Option<Picked> {
    let mut picked = Picked::default();
    let mut left = places.iter().copied().peekable();
    match (encoding, form) {
        (Encoding::RLE_DICTIONARY, _) => {
            let dictionary = dictionary?;
            let Some((width, numbers)) = bytes.split_first() else {
                return places.is_empty().then_some(picked);
            };
            numbers_at(numbers, u32::from(*width), places, |number| {
                picked.push(dictionary.get(usize::try_from(number).ok()?, form)?);
                Some(())
            })?;
        }
        (Encoding::PLAIN, Form::Int(width) | Form::Fixed(width)) => {
            for place in left {
                let start = place.checked_mul(width)?;
                picked.push(bytes.get(start..start.checked_add(width)?)?);
            }
        }
        (Encoding::PLAIN, Form::Bool) => {
            for place in left {
                picked.push(&[bytes.get(place / 8)? >> (place % 8) & 1]);
            }
        }
        (Encoding::RLE, Form::Bool) => {
            let length = length(&mut bytes)?;
            numbers_at(take(&mut bytes, length)?, 1, places, |one| {
                picked.push(&[u8::from(one == 1)]);
                Some(())
            })?;
        }
        (Encoding::DELTA_BINARY_PACKED, Form::Int(width)) => {
            let mut at = 0usize;
            deltas(&mut bytes, most, |value| {
                if left.next_if_eq(&at).is_some() {
                    // Arithmetic of 32 bits wraps there: what is above them does not count.
                    picked.push(value.to_le_bytes().get(..width).unwrap_or_default());
                }
                at += 1;
                left.peek().is_some()
            })?;
        }
        (_, Form::Text) => each_text(encoding, bytes, most, |place, text| {
            if left.next_if_eq(&place).is_some() {
                picked.push(text);
            }
            left.peek().is_some()
        })?,
        _ => return None,
    }
    (picked.ends.len() == places.len()).then_some(picked)
}

impl Chunk<'_> {
    /// Gives the values of these rows, which ascend and are numbered from the row group's first, in their order: `None`
    /// for a null, little-endian bytes for a number, 0 or 1 for a boolean. `None` when a value cannot be picked, or
    /// `give` says so.
    pub(super) fn pick(
        &self,
        rows: &[u64],
        mut give: impl FnMut(Option<&[u8]>) -> Option<()>,
    ) -> Option<()> {
        let form = Form::of(self.column()?)?;
        let nullable = self.nullable()?;
        let mut pages = self.pages()?;
        let mut dictionary = None;
        let mut left = rows;
        while let Some(first) = left.first() {
            match pages.next(|page| page.contains(first))?? {
                Part::Dictionary(bytes, count) => dictionary = Some(Dictionary::new(bytes, count)),
                Part::Rows(page_rows, page) => {
                    let end = left.partition_point(|row| *row < page_rows.end);
                    let (mine, later) = left.split_at_checked(end)?;
                    left = later;
                    let mine: Option<Vec<usize>> = mine
                        .iter()
                        .map(|row| usize::try_from(row.checked_sub(page_rows.start)?).ok())
                        .collect();
                    let mine = mine?;
                    let most = usize::try_from(page_rows.end.checked_sub(page_rows.start)?).ok()?;
                    let (levels, encoding, values) = parts(&page, nullable)?;
                    let places = match levels {
                        Some(levels) => values_of_rows(levels, &mine)?,
                        None => mine.into_iter().map(Some).collect(),
                    };
                    let given: Vec<usize> = places.iter().flatten().copied().collect();
                    let of = (encoding, values);
                    let picked = picked(of, form, most, &given, dictionary.as_mut())?;
                    let mut number = 0;
                    for place in places {
                        let value = match place {
                            Some(_) => {
                                number += 1;
                                Some(picked.get(number - 1)?)
                            }
                            None => None,
                        };
                        give(value)?;
                    }
                }
            }
        }
        Some(())
    }

    /// Whether every data page refers to the dictionary.
    fn is_numbered(&self) -> bool {
        let encodings = self.column().and_then(ColumnChunkMetaData::page_encoding_stats_mask);
        encodings.is_some_and(|encodings| encodings.is_only(Encoding::RLE_DICTIONARY))
    }

    /// The rows, out of `rows` and ascending, that have one of these texts. `None` when that cannot be told.
    pub(super) fn rows_with(&self, rows: &[Range<u64>], texts: &[Vec<u8>]) -> Option<Vec<u64>> {
        self.rows_where(rows, &mut |value| texts.iter().any(|text| text == value))
    }

    /// The rows, out of `rows` and ascending, whose text is wanted; asked once per text where they are numbered. `None`
    /// when that cannot be told.
    pub(super) fn rows_where(
        &self,
        rows: &[Range<u64>],
        wanted: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Option<Vec<u64>> {
        if Form::of(self.column()?)? != Form::Text {
            return None;
        }
        let nullable = self.nullable()?;
        let mut pages = self.pages()?;
        let mut marked: Option<Vec<bool>> = None;
        let mut found = Vec::new();
        while let Some(part) = pages.next(|page| any_in(rows, page))? {
            let (page_rows, page) = match part {
                Part::Dictionary(bytes, count) => {
                    let any = marked.insert(Dictionary::new(bytes, count).marked(wanted)?);
                    // Where all pages refer to it, none of them needs to be read.
                    if !any.contains(&true) && self.is_numbered() {
                        return Some(found);
                    }
                    continue;
                }
                Part::Rows(page_rows, page) => (page_rows, page),
            };
            let most = usize::try_from(page_rows.end.checked_sub(page_rows.start)?).ok()?;
            let (levels, encoding, values) = parts(&page, nullable)?;
            let mut places = Vec::new();
            if encoding == Encoding::RLE_DICTIONARY {
                let marked = marked.as_deref()?;
                if let Some((width, numbers)) = values.split_first()
                    && marked.contains(&true)
                {
                    places = marked_places(numbers, u32::from(*width), most, marked)?;
                }
            } else {
                each_text(encoding, values, most, |place, value| {
                    if wanted(value) {
                        places.push(place);
                    }
                    true
                })?;
            }
            let own = match levels {
                Some(levels) => rows_of_values(levels, &places)?,
                None => places,
            };
            let own = own.into_iter().map(|row| page_rows.start + row as u64);
            found.extend(own.filter(|row| rows.iter().any(|range| range.contains(row))));
        }
        Some(found)
    }
}
