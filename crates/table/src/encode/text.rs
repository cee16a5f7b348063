//! Columns of texts and bytes.
//!
//! A column is either *numbered* (each distinct value of all batches has a number, and a row group's
//! pages hold numbers of its own dictionary) or *plain* (`DELTA_BYTE_ARRAY` when neighbours share
//! prefixes, else `DELTA_LENGTH_BYTE_ARRAY`). Batches that come with dictionaries cost one hash per
//! entry of a dictionary, not per row.

use super::chunk::{Bounds, ChunkWriter, DataPage, EncodedChunk, Scratch};
use super::{PAGE_ROWS, Run, bits};
use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, DictionaryArray, StringArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::Int32Type;
use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashTable};
use parquet::basic::Encoding;
use parquet::bloom_filter::Sbbf;
use parquet::errors::Result;
use parquet::schema::types::ColumnDescPtr;
use std::hash::BuildHasher;
use std::sync::Arc;

/// The number of a null.
pub(crate) const NULL: u32 = u32::MAX;
/// Bounds longer than this are cut.
const MAX_BOUND: usize = 64;
/// A page of texts has about this many bytes before compression …
const PAGE_BYTES: usize = 128 << 10;
/// … and ends behind this many, whatever its rows.
const MAX_PAGE_BYTES: usize = 1 << 20;
/// A dictionary page is not longer than this.
const MAX_DICTIONARY_BYTES: usize = 4 << 20;
/// Up to so many distinct values, pages tell their bounds.
const RANKED: usize = 256;
/// How many values of plain batches are looked at to decide whether they repeat.
const SAMPLE: usize = 4096;

/// Distinct texts, numbered in order of first appearance.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    table: HashTable<u32>,
    ends: Vec<usize>,
    bytes: Vec<u8>,
    state: FixedState,
}

impl Interner {
    /// The number of a text, new or old.
    fn number(&mut self, text: &[u8]) -> u32 {
        let hash = self.state.hash_one(text);
        let (ends, bytes) = (&self.ends, &self.bytes);
        let found = self.table.find(hash, |number| slice(ends, bytes, *number) == text);
        if let Some(number) = found {
            return *number;
        }
        let number = self.ends.len() as u32;
        self.bytes.extend_from_slice(text);
        self.ends.push(self.bytes.len());
        let (ends, bytes, state) = (&self.ends, &self.bytes, &self.state);
        self.table.insert_unique(hash, number, |n| state.hash_one(slice(ends, bytes, *n)));
        number
    }

    /// The text of a number.
    pub(crate) fn get(&self, number: u32) -> &[u8] {
        slice(&self.ends, &self.bytes, number)
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }
}

fn slice<'a>(ends: &[usize], bytes: &'a [u8], number: u32) -> &'a [u8] {
    let number = number as usize;
    let start = number.checked_sub(1).and_then(|before| ends.get(before)).copied().unwrap_or(0);
    let end = ends.get(number).copied().unwrap_or(start);
    bytes.get(start..end).unwrap_or_default()
}

/// How a batch's rows are read.
enum Rows {
    Absent,
    /// The batch's dictionary keys, and the column's number of each entry.
    Keys(DictionaryArray<Int32Type>, Arc<Vec<u32>>),
    /// The column's number of each row.
    Numbers(Vec<u32>),
    Encoded(DictionaryArray<Int32Type>, StringArray),
    Plain(StringArray),
    Bytes(BinaryArray),
}

/// [`Rows`] of a numbered column, taken apart.
enum Source<'a> {
    Absent,
    Keys(&'a [i32], Option<&'a NullBuffer>, &'a [u32]),
    Numbers(&'a [u32]),
}

/// A column of all batches of a unit.
pub(crate) struct TextColumn {
    rows: Vec<Rows>,
    /// The distinct values of a numbered column.
    pub(crate) interner: Interner,
    /// Whether the column is numbered.
    pub(crate) numbered: bool,
}

/// What a row group's chunk of texts is to have besides its pages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TextOptions {
    /// A bloom filter, unless the pages' bounds already tell where a value is.
    pub(crate) bloom: bool,
    /// Bounds may be kept: the column holds UTF-8.
    pub(crate) utf8: bool,
}

impl TextColumn {
    /// Takes the arrays of all batches; `None` when one holds no text or bytes. With `number` the
    /// column is numbered whatever its values are like.
    pub(crate) fn new(arrays: &[Option<ArrayRef>], number: bool) -> Option<Self> {
        let mut column = Self { rows: Vec::new(), interner: Interner::default(), numbered: true };
        let mut known: HashMap<(usize, usize, usize), Arc<Vec<u32>>, FixedState> =
            HashMap::default();
        column.numbered = number || repeats(arrays);
        for array in arrays {
            let rows = match array {
                None => Rows::Absent,
                Some(array) => {
                    if let Some(plain) = array.as_string_opt::<i32>() {
                        if column.numbered {
                            Rows::Numbers(column.number_rows(plain))
                        } else {
                            Rows::Plain(plain.clone())
                        }
                    } else if let Some(encoded) = array.as_dictionary_opt::<Int32Type>() {
                        let values = encoded.values().as_string_opt::<i32>()?;
                        if column.numbered {
                            let identity = (
                                values.values().as_ptr() as usize,
                                values.value_offsets().as_ptr() as usize,
                                values.len(),
                            );
                            let numbers = match known.get(&identity) {
                                Some(numbers) => Arc::clone(numbers),
                                None => {
                                    let numbers = Arc::new(column.number_rows(values));
                                    known.insert(identity, Arc::clone(&numbers));
                                    numbers
                                }
                            };
                            Rows::Keys(encoded.clone(), numbers)
                        } else {
                            Rows::Encoded(encoded.clone(), values.clone())
                        }
                    } else {
                        column.numbered = false;
                        Rows::Bytes(array.as_any().downcast_ref::<BinaryArray>()?.clone())
                    }
                }
            };
            column.rows.push(rows);
        }
        Some(column)
    }

    fn number_rows(&mut self, texts: &StringArray) -> Vec<u32> {
        if texts.null_count() == 0 {
            (0..texts.len()).map(|row| self.interner.number(texts.value(row).as_bytes())).collect()
        } else {
            texts
                .iter()
                .map(|text| text.map_or(NULL, |text| self.interner.number(text.as_bytes())))
                .collect()
        }
    }

    /// The numbers of a numbered column's rows, in order.
    pub(crate) fn numbers(&self, runs: &[Run], out: &mut Vec<u32>) {
        out.clear();
        // Looked up once a batch: where rows of several frames alternate, runs are a row long.
        let sources: Vec<_> = self
            .rows
            .iter()
            .map(|rows| match rows {
                Rows::Keys(encoded, numbers) => {
                    let nulls = encoded.keys().nulls().filter(|nulls| nulls.null_count() > 0);
                    Source::Keys(encoded.keys().values().as_ref(), nulls, numbers.as_slice())
                }
                Rows::Numbers(numbers) => Source::Numbers(numbers),
                _ => Source::Absent,
            })
            .collect();
        for run in runs {
            match sources.get(run.batch as usize) {
                Some(Source::Keys(keys, None, numbers)) => {
                    let keys = keys.get(run.range()).unwrap_or_default();
                    let number = |key: &i32| numbers.get(*key as usize).copied().unwrap_or(NULL);
                    match keys {
                        [key] => out.push(number(key)),
                        _ => out.extend(keys.iter().map(number)),
                    }
                }
                Some(Source::Keys(keys, Some(nulls), numbers)) => {
                    let keys = keys.get(run.range()).unwrap_or_default();
                    out.extend(run.range().zip(keys).map(|(row, key)| {
                        let number = numbers.get(*key as usize).filter(|_| nulls.is_valid(row));
                        number.copied().unwrap_or(NULL)
                    }));
                }
                Some(Source::Numbers(numbers)) => {
                    out.extend_from_slice(numbers.get(run.range()).unwrap_or_default());
                }
                _ => out.resize(out.len() + run.len as usize, NULL),
            }
        }
    }

    /// The values of a plain column's rows, without nulls, and which rows have one.
    fn values<'a>(&'a self, runs: &[Run], values: &mut Vec<&'a [u8]>, valid: &mut Vec<bool>) {
        for run in runs {
            let rows = self.rows.get(run.batch as usize);
            for row in run.range() {
                let value = match rows {
                    Some(Rows::Plain(texts)) => {
                        texts.is_valid(row).then(|| texts.value(row).as_bytes())
                    }
                    Some(Rows::Encoded(encoded, values)) => encoded
                        .key(row)
                        .filter(|key| values.is_valid(*key))
                        .map(|key| values.value(key).as_bytes()),
                    Some(Rows::Bytes(bytes)) => bytes.is_valid(row).then(|| bytes.value(row)),
                    _ => None,
                };
                valid.push(value.is_some());
                values.extend(value);
            }
        }
    }
}

/// Whether values repeat so that a dictionary pays: batches with dictionaries say so themselves, of
/// plain ones a sample is taken.
fn repeats(arrays: &[Option<ArrayRef>]) -> bool {
    let mut encoded = 0usize;
    let mut plain = 0usize;
    for array in arrays.iter().flatten() {
        let rows = array.len() - array.null_count();
        match array.as_dictionary_opt::<Int32Type>() {
            // A dictionary of nearly as many entries as rows says nothing.
            Some(dictionary) if dictionary.values().len() * 4 > rows * 3 && rows > 64 => {
                plain += rows
            }
            Some(_) => encoded += rows,
            None => plain += rows,
        }
    }
    if encoded > plain {
        return true;
    }
    let mut distinct: hashbrown::HashSet<&[u8], FixedState> = hashbrown::HashSet::default();
    let mut seen = 0usize;
    let step = (plain / SAMPLE / 16).max(1);
    for array in arrays.iter().flatten().step_by(step) {
        let Some(text) = palisade_event::column::Text::of(array) else { return false };
        for value in (0..array.len()).filter_map(|row| text.get(row)).take(SAMPLE / 4) {
            seen += 1;
            distinct.insert(value.as_bytes());
        }
        if seen >= SAMPLE {
            break;
        }
    }
    distinct.len() * 2 <= seen
}

/// A bloom filter for so many values at one false answer in a hundred.
pub(crate) fn bloom(values: usize) -> Option<Sbbf> {
    if values == 0 {
        return None;
    }
    Sbbf::new_with_ndv_fpp(values as u64, 0.01).ok()
}

/// Encodes one chunk of a numbered column, `numbers` being those of the row group's rows.
pub(crate) fn encode_numbered(
    interner: &Interner,
    numbers: &[u32],
    local: &mut Vec<u32>,
    options: TextOptions,
    descr: ColumnDescPtr,
    scratch: &mut Scratch,
) -> Result<EncodedChunk> {
    local.resize(interner.len(), NULL);
    let mut order: Vec<u32> = Vec::new();
    let mut ids: Vec<u32> = Vec::with_capacity(numbers.len());
    for number in numbers {
        let Some(slot) = local.get_mut(*number as usize) else { continue };
        if *slot == NULL {
            *slot = order.len() as u32;
            order.push(*number);
        }
        ids.push(*slot);
    }
    for number in &order {
        if let Some(slot) = local.get_mut(*number as usize) {
            *slot = NULL;
        }
    }
    let bytes: usize = order.iter().map(|number| interner.get(*number).len() + 4).sum();
    let unique = order.len() > PAGE_ROWS && order.len() * 5 > ids.len() * 3;
    let valid: Vec<bool> = if ids.len() == numbers.len() {
        Vec::new()
    } else {
        numbers.iter().map(|number| (*number as usize) < interner.len()).collect()
    };
    if unique || bytes > MAX_DICTIONARY_BYTES {
        let values: Vec<&[u8]> = numbers
            .iter()
            .filter(|number| (**number as usize) < interner.len())
            .map(|number| interner.get(*number))
            .collect();
        return encode_plain(&values, &valid, numbers.len(), options, descr, scratch);
    }
    let mut chunk = ChunkWriter::new(descr, scratch);
    let mut page = Vec::with_capacity(bytes);
    let mut bloom = if options.bloom { bloom(order.len()) } else { None };
    for number in &order {
        let value = interner.get(*number);
        page.extend_from_slice(&(value.len() as u32).to_le_bytes());
        page.extend_from_slice(value);
        if let Some(bloom) = &mut bloom {
            bloom.insert(value);
        }
    }
    chunk.dictionary_page(&page, order.len())?;
    let ranks = Ranks::of(interner, &order, options);
    let width = bits::width((order.len() as u64).saturating_sub(1));
    let page_bits = ids.len() * width as usize * PAGE_ROWS / numbers.len().max(1);
    let page_rows = if page_bits < 512 * 8 { PAGE_ROWS * 8 } else { PAGE_ROWS };
    let (mut row, mut at) = (0usize, 0usize);
    while row < numbers.len() {
        let rows = page_rows.min(numbers.len() - row);
        let valid = valid.get(row..row + rows);
        let count = valid.map_or(rows, |valid| valid.iter().filter(|valid| **valid).count());
        let ids = ids.get(at..at + count).unwrap_or_default();
        let mut out = chunk.take_values();
        out.push(width as u8);
        bits::hybrid(&mut out, ids, width);
        let bounds = ranks.as_ref().and_then(|ranks| ranks.bounds(ids));
        let valid = valid.filter(|_| count < rows);
        let encoding = Encoding::RLE_DICTIONARY;
        chunk.data_page(DataPage { rows, nulls: rows - count, valid, encoding, bounds }, out)?;
        row += rows;
        at += count;
    }
    let bounds = all_bounds(order.iter().map(|number| interner.get(*number)), options);
    chunk.finish(bounds, bloom)
}

/// The entries of a small dictionary in order, so that a page's bounds are those of small numbers.
struct Ranks {
    rank: Vec<u32>,
    /// By rank.
    bounds: Vec<Bounds>,
}

impl Ranks {
    fn of(interner: &Interner, order: &[u32], options: TextOptions) -> Option<Self> {
        if order.len() > RANKED || !options.utf8 {
            return None;
        }
        let mut sorted: Vec<u32> = (0..order.len() as u32).collect();
        let text = |id: u32| order.get(id as usize).map_or(&[][..], |number| interner.get(*number));
        sorted.sort_unstable_by(|a, b| text(*a).cmp(text(*b)));
        let mut rank = vec![0; order.len()];
        let mut bounds = Vec::new();
        for (at, id) in sorted.iter().enumerate() {
            if let Some(slot) = rank.get_mut(*id as usize) {
                *slot = at as u32;
            }
            let text = text(*id);
            bounds.push(Bounds { min: lower(text), max: upper(text)? });
        }
        Some(Self { rank, bounds })
    }

    fn bounds(&self, ids: &[u32]) -> Option<Bounds> {
        let (mut least, mut greatest) = (u32::MAX, 0u32);
        for id in ids {
            let rank = self.rank.get(*id as usize).copied()?;
            least = least.min(rank);
            greatest = greatest.max(rank);
        }
        Some(Bounds {
            min: self.bounds.get(least as usize)?.min.clone(),
            max: self.bounds.get(greatest as usize)?.max.clone(),
        })
    }
}

/// Not above any text that begins like this one.
fn lower(text: &[u8]) -> Vec<u8> {
    cut(text).to_vec()
}

/// Not below the text: itself, or its beginning with the last character raised.
fn upper(text: &[u8]) -> Option<Vec<u8>> {
    if text.len() <= MAX_BOUND {
        return Some(text.to_vec());
    }
    let mut kept = cut(text).to_vec();
    // Only ASCII is raised: raising a longer character could leave UTF-8.
    while let Some(last) = kept.pop() {
        if last < 0x7f {
            kept.push(last + 1);
            return Some(kept);
        }
    }
    None
}

/// At most [`MAX_BOUND`] bytes, whole characters.
fn cut(text: &[u8]) -> &[u8] {
    if text.len() <= MAX_BOUND {
        return text;
    }
    let end = (0..=MAX_BOUND)
        .rev()
        .find(|end| text.get(*end).is_some_and(|byte| byte & 0xc0 != 0x80))
        .unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

fn all_bounds<'a>(
    texts: impl Iterator<Item = &'a [u8]>,
    options: TextOptions,
) -> Option<(Bounds, bool)> {
    if !options.utf8 {
        return None;
    }
    let (min, max) = ends(texts)?;
    let exact = min.len() <= MAX_BOUND && max.len() <= MAX_BOUND;
    Some((Bounds { min: lower(min), max: upper(max)? }, exact))
}

/// The least and the greatest of some texts.
fn ends<'a>(mut texts: impl Iterator<Item = &'a [u8]>) -> Option<(&'a [u8], &'a [u8])> {
    let first = texts.next()?;
    let (mut min, mut max) = (first, first);
    for text in texts {
        if text > max {
            max = text;
        } else if text < min {
            min = text;
        }
    }
    Some((min, max))
}

/// Encodes one chunk of a plain column.
pub(crate) fn encode_column(
    column: &TextColumn,
    runs: &[Run],
    options: TextOptions,
    descr: ColumnDescPtr,
    scratch: &mut Scratch,
) -> Result<EncodedChunk> {
    let mut values = Vec::new();
    let mut valid = Vec::new();
    column.values(runs, &mut values, &mut valid);
    let rows = valid.len();
    if values.len() == rows {
        valid.clear();
    }
    encode_plain(&values, &valid, rows, options, descr, scratch)
}

fn encode_plain(
    values: &[&[u8]],
    valid: &[bool],
    rows: usize,
    options: TextOptions,
    descr: ColumnDescPtr,
    scratch: &mut Scratch,
) -> Result<EncodedChunk> {
    let total: usize = values.iter().map(|value| value.len()).sum();
    let mean = total / values.len().max(1);
    let page_rows = if total == 0 {
        PAGE_ROWS * 8
    } else {
        (PAGE_BYTES / (mean + 1)).clamp(64, PAGE_ROWS).next_power_of_two().min(PAGE_ROWS)
    };
    let bounded = options.utf8 && mean <= MAX_BOUND;
    let shared = shares_prefixes(values);
    let mut chunk = ChunkWriter::new(descr, scratch);
    let mut pages: Vec<Bounds> = Vec::new();
    // The pages' least and greatest values, of which the chunk's bounds are made.
    let mut all: Vec<&[u8]> = Vec::new();
    let (mut row, mut at) = (0usize, 0usize);
    while row < rows {
        // A page ends at its rows or, where values are huge, behind its bytes.
        let (first_row, first) = (row, at);
        let mut bytes = 0usize;
        while row < rows && row - first_row < page_rows && bytes < MAX_PAGE_BYTES {
            if valid.is_empty() || valid.get(row) == Some(&true) {
                bytes += values.get(at).map_or(0, |value| value.len());
                at += 1;
            }
            row += 1;
        }
        let now = values.get(first..at).unwrap_or_default();
        let mut out = chunk.take_values();
        let encoding = if shared {
            delta_bytes(&mut out, now);
            Encoding::DELTA_BYTE_ARRAY
        } else {
            delta_length(&mut out, now);
            Encoding::DELTA_LENGTH_BYTE_ARRAY
        };
        let ends = if bounded { ends(now.iter().copied()) } else { None };
        all.extend(ends.map(|(min, max)| [min, max]).into_iter().flatten());
        let bounds = ends.and_then(|(min, max)| Some(Bounds { min: lower(min), max: upper(max)? }));
        pages.extend(bounds.clone());
        let nulls = (row - first_row) - now.len();
        let valid = valid.get(first_row..row).filter(|_| nulls > 0);
        chunk.data_page(DataPage { rows: row - first_row, nulls, valid, encoding, bounds }, out)?;
    }
    let ordered = chunk.has_page_bounds() && nearly_disjoint(&pages);
    let mut bloom = if options.bloom && !ordered { bloom(values.len()) } else { None };
    if let Some(bloom) = &mut bloom {
        values.iter().for_each(|value| bloom.insert(*value));
    }
    let bounds = all_bounds(all.into_iter(), options);
    chunk.finish(bounds, bloom)
}

/// Whether a value lies within the bounds of a quarter of the pages at most, so that a bloom filter
/// would save little: ids that begin with a time, for example.
fn nearly_disjoint(pages: &[Bounds]) -> bool {
    let holds =
        |value: &Vec<u8>| pages.iter().filter(|p| p.min <= *value && *value <= p.max).count();
    let all: usize = pages.iter().map(|page| holds(&page.min)).sum();
    !pages.is_empty() && all * 4 <= pages.len() * pages.len()
}

/// Whether neighbours begin alike.
fn shares_prefixes(values: &[&[u8]]) -> bool {
    let middle = values.len() / 2;
    let sample = values.get(middle..(middle + 512).min(values.len())).unwrap_or_default();
    let shared: usize = sample
        .windows(2)
        .map(|pair| match pair {
            [a, b] => common_prefix(a, b),
            _ => 0,
        })
        .sum();
    shared > sample.len() * 4
}

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let mut same = 0;
    let (a_words, _) = a.as_chunks::<8>();
    let (b_words, _) = b.as_chunks::<8>();
    for (x, y) in a_words.iter().zip(b_words) {
        let differing = u64::from_le_bytes(*x) ^ u64::from_le_bytes(*y);
        if differing != 0 {
            return same + (differing.trailing_zeros() / 8) as usize;
        }
        same += 8;
    }
    let (a, b) = (a.get(same..).unwrap_or_default(), b.get(same..).unwrap_or_default());
    same + a.iter().zip(b).take_while(|(x, y)| x == y).count()
}

fn delta_length(out: &mut Vec<u8>, values: &[&[u8]]) {
    let lengths: Vec<i64> = values.iter().map(|value| value.len() as i64).collect();
    bits::delta(out, &lengths, true);
    values.iter().for_each(|value| out.extend_from_slice(value));
}

fn delta_bytes(out: &mut Vec<u8>, values: &[&[u8]]) {
    let mut prefixes = Vec::with_capacity(values.len());
    let mut suffixes = Vec::with_capacity(values.len());
    let mut previous: &[u8] = &[];
    for value in values {
        let prefix = common_prefix(previous, value);
        prefixes.push(prefix as i64);
        suffixes.push(value.get(prefix..).unwrap_or_default());
        previous = value;
    }
    bits::delta(out, &prefixes, true);
    delta_length(out, &suffixes);
}
