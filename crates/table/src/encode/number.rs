//! Columns of numbers, flags and ids of 16 bytes.
//!
//! Values are gathered as 64-bit patterns without nulls. Few distinct values are dictionary-encoded,
//! other integers are delta-packed, other floats plain.

use super::chunk::{Bounds, ChunkWriter, DataPage, EncodedChunk, Scratch};
use super::{PAGE_ROWS, Run, bits};
use crate::kind::Kind;
use arrow::array::{Array, ArrayRef, AsArray, FixedSizeBinaryArray};
use arrow::datatypes::{
    ArrowPrimitiveType, Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
    UInt64Type,
};
use palisade_event::RecordId;
use parquet::basic::Encoding;
use parquet::bloom_filter::Sbbf;
use parquet::errors::Result;
use parquet::schema::types::ColumnDescPtr;

/// The most entries of a dictionary of numbers.
const MAX_DICTIONARY: usize = 1 << 14;
/// How many values are looked at before a dictionary is tried.
const SAMPLE: usize = 2048;

/// A row group's values of one column: patterns without nulls, and which rows have one.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    pub(crate) values: Vec<i64>,
    /// Per row; empty when all rows have a value.
    pub(crate) valid: Vec<bool>,
    pub(crate) rows: usize,
}

impl Gathered {
    fn clear(&mut self) {
        self.values.clear();
        self.valid.clear();
        self.rows = 0;
    }

    /// Appends rows that have no value.
    fn nulls(&mut self, count: usize) {
        self.fill_valid();
        self.valid.resize(self.rows + count, false);
        self.rows += count;
    }

    fn fill_valid(&mut self) {
        if self.valid.is_empty() {
            self.valid.resize(self.rows, true);
        }
    }

    /// Appends the runs of arrays whose values `pattern` turns into 64 bits.
    fn runs<T: ArrowPrimitiveType>(
        &mut self,
        arrays: &[Option<ArrayRef>],
        runs: &[Run],
        pattern: impl Fn(T::Native) -> i64,
    ) -> Option<()> {
        // Looked up once a batch: where rows of several frames alternate, runs are a row long.
        let mut sources = Vec::with_capacity(arrays.len());
        for array in arrays {
            sources.push(match array {
                None => None,
                Some(array) => {
                    let array = array.as_primitive_opt::<T>()?;
                    let nulls = array.nulls().filter(|nulls| nulls.null_count() > 0);
                    Some((array.values().as_ref(), nulls))
                }
            });
        }
        for run in runs {
            let Some((values, nulls)) = sources.get(run.batch as usize)? else {
                self.nulls(run.len as usize);
                continue;
            };
            let values = values.get(run.range())?;
            match nulls {
                None => {
                    if !self.valid.is_empty() {
                        self.valid.resize(self.rows + values.len(), true);
                    }
                    match values {
                        [value] => self.values.push(pattern(*value)),
                        _ => self.values.extend(values.iter().map(|value| pattern(*value))),
                    }
                }
                Some(nulls) => {
                    self.fill_valid();
                    for (row, value) in run.range().zip(values) {
                        let valid = nulls.is_valid(row);
                        self.valid.push(valid);
                        if valid {
                            self.values.push(pattern(*value));
                        }
                    }
                }
            }
            self.rows += values.len();
        }
        Some(())
    }

    fn flags(&mut self, array: &ArrayRef, run: Run) -> Option<()> {
        let array = array.as_boolean_opt()?;
        self.fill_valid();
        for row in run.range() {
            let valid = array.is_valid(row);
            self.valid.push(valid);
            if valid {
                self.values.push(i64::from(array.value(row)));
            }
        }
        self.rows += run.len as usize;
        Some(())
    }

    /// Gathers the rows of one row group; `None` when an array is not of its column's kind.
    pub(crate) fn gather(
        &mut self,
        kind: Kind,
        arrays: &[Option<ArrayRef>],
        runs: &[Run],
    ) -> Option<()> {
        self.clear();
        match kind {
            Kind::I32 => self.runs::<Int32Type>(arrays, runs, i64::from),
            Kind::I64 => self.runs::<Int64Type>(arrays, runs, |v| v),
            Kind::U64 => self.runs::<UInt64Type>(arrays, runs, |v| v as i64),
            Kind::Timestamp => self.runs::<TimestampMicrosecondType>(arrays, runs, |v| v),
            Kind::F32 => self.runs::<Float32Type>(arrays, runs, |v| i64::from(v.to_bits())),
            Kind::F64 => self.runs::<Float64Type>(arrays, runs, |v| v.to_bits() as i64),
            Kind::Bool => {
                for run in runs {
                    match arrays.get(run.batch as usize)? {
                        Some(array) => self.flags(array, *run)?,
                        None => self.nulls(run.len as usize),
                    }
                }
                Some(())
            }
            _ => None,
        }
    }
}

/// Appends a value in plain encoding.
fn plain(out: &mut Vec<u8>, kind: Kind, value: i64) {
    match kind {
        Kind::I32 | Kind::F32 => out.extend_from_slice(&(value as u32).to_le_bytes()),
        _ => out.extend_from_slice(&value.to_le_bytes()),
    }
}

/// The least and greatest of some values; `None` when there is none that can be ordered.
fn bounds(kind: Kind, values: &[i64]) -> Option<(i64, i64)> {
    let floats = |number: fn(i64) -> f64, pattern: fn(f64) -> i64| {
        let mut range: Option<(f64, f64)> = None;
        for value in values.iter().map(|value| number(*value)).filter(|value| !value.is_nan()) {
            range = Some(range.map_or((value, value), |(a, b)| (a.min(value), b.max(value))));
        }
        // The specification asks for both zeros to be covered.
        range.map(|(min, max)| {
            (
                pattern(if min == 0.0 { -0.0 } else { min }),
                pattern(if max == 0.0 { 0.0 } else { max }),
            )
        })
    };
    match kind {
        Kind::F32 => {
            floats(|v| f64::from(f32::from_bits(v as u32)), |v| i64::from((v as f32).to_bits()))
        }
        Kind::F64 => floats(|v| f64::from_bits(v as u64), |v| v.to_bits() as i64),
        Kind::U64 => {
            let first = *values.first()? as u64;
            let both = |(a, b): (u64, u64), v: &i64| (a.min(*v as u64), b.max(*v as u64));
            let (min, max) = values.iter().fold((first, first), both);
            Some((min as i64, max as i64))
        }
        _ => {
            let first = *values.first()?;
            let both = |(a, b): (i64, i64), v: &i64| (a.min(*v), b.max(*v));
            Some(values.iter().fold((first, first), both))
        }
    }
}

fn plain_bounds(kind: Kind, (min, max): (i64, i64)) -> Bounds {
    let bytes = |value| {
        let mut out = Vec::with_capacity(8);
        match kind {
            Kind::Bool => out.push(u8::from(value != 0)),
            _ => plain(&mut out, kind, value),
        }
        out
    };
    Bounds { min: bytes(min), max: bytes(max) }
}

/// A dictionary of 64-bit patterns, by order of first appearance.
struct Numbers {
    /// The entry's number plus one, by hash.
    table: Vec<u32>,
    values: Vec<i64>,
}

impl Numbers {
    fn new() -> Self {
        Self { table: vec![0; 1024], values: Vec::new() }
    }

    fn place(&self, value: i64) -> usize {
        let hash = (value as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (hash >> (64 - self.table.len().trailing_zeros())) as usize
    }

    /// The entry's number, new or old.
    fn id(&mut self, value: i64) -> u32 {
        let mask = self.table.len() - 1;
        let mut at = self.place(value);
        while let Some(&entry) = self.table.get(at) {
            if entry == 0 {
                break;
            }
            if self.values.get(entry as usize - 1) == Some(&value) {
                return entry - 1;
            }
            at = (at + 1) & mask;
        }
        self.values.push(value);
        let entry = self.values.len() as u32;
        if let Some(slot) = self.table.get_mut(at) {
            *slot = entry;
        }
        if self.values.len() * 2 > self.table.len() {
            self.grow();
        }
        entry - 1
    }

    fn grow(&mut self) {
        self.table = vec![0; self.table.len() * 2];
        let mask = self.table.len() - 1;
        for (index, value) in self.values.iter().enumerate() {
            let mut at = self.place(*value);
            while self.table.get(at).is_some_and(|entry| *entry != 0) {
                at = (at + 1) & mask;
            }
            if let Some(slot) = self.table.get_mut(at) {
                *slot = index as u32 + 1;
            }
        }
    }
}

/// The dictionary numbers of all values, when there are few enough distinct ones.
fn dictionary(kind: Kind, values: &[i64]) -> Option<(Numbers, Vec<u32>)> {
    let (share, limit) = match kind {
        Kind::Bool | Kind::Timestamp | Kind::U64 => return None,
        // Rounded scores: at most a few thousand distinct values, four or eight bytes each.
        Kind::F32 | Kind::F64 => (2, MAX_DICTIONARY),
        _ => (4, MAX_DICTIONARY),
    };
    let mut numbers = Numbers::new();
    let mut ids = Vec::with_capacity(values.len());
    for (index, value) in values.iter().enumerate() {
        ids.push(numbers.id(*value));
        let distinct = numbers.values.len();
        if distinct > limit || (index + 1 == SAMPLE && distinct > SAMPLE / share) {
            return None;
        }
    }
    (numbers.values.len() * share <= values.len()).then_some((numbers, ids))
}

/// Encodes one chunk of numbers or flags.
pub(crate) fn encode(
    kind: Kind,
    gathered: &Gathered,
    descr: ColumnDescPtr,
    scratch: &mut Scratch,
) -> Result<EncodedChunk> {
    let mut chunk = ChunkWriter::new(descr, scratch);
    let dictionary = dictionary(kind, &gathered.values);
    let mut page_rows = PAGE_ROWS;
    if let Some((numbers, _)) = &dictionary {
        let mut page = Vec::with_capacity(numbers.values.len() * 8);
        numbers.values.iter().for_each(|value| plain(&mut page, kind, *value));
        chunk.dictionary_page(&page, numbers.values.len())?;
    }
    let width = dictionary
        .as_ref()
        .map_or(64, |(numbers, _)| bits::width((numbers.values.len() as u64).saturating_sub(1)));
    // A page of almost nothing costs more in its header than in its values.
    let packed_bits = if kind == Kind::Bool { 1 } else { u64::from(width) };
    let page_bits = gathered.values.len() as u64 * packed_bits * PAGE_ROWS as u64
        / (gathered.rows as u64).max(1);
    if page_bits < 512 * 8 {
        page_rows = PAGE_ROWS * 8;
    }
    let mut row = 0usize;
    let mut value = 0usize;
    // The pages' bounds, of which the chunk's are made.
    let mut ends: Vec<i64> = Vec::new();
    while row < gathered.rows {
        let rows = page_rows.min(gathered.rows - row);
        let valid = gathered.valid.get(row..row + rows);
        let count = valid.map_or(rows, |valid| valid.iter().filter(|valid| **valid).count());
        let range = value..value + count;
        let values = gathered.values.get(range.clone()).unwrap_or_default();
        let mut out = chunk.take_values();
        let encoding = match &dictionary {
            Some((_, ids)) => {
                out.push(width as u8);
                bits::hybrid(&mut out, ids.get(range).unwrap_or_default(), width);
                Encoding::RLE_DICTIONARY
            }
            None if kind == Kind::Bool => {
                for group in values.chunks(8) {
                    out.push(
                        group.iter().enumerate().fold(0, |byte, (bit, v)| byte | (*v as u8) << bit),
                    );
                }
                Encoding::PLAIN
            }
            None if matches!(kind, Kind::F32 | Kind::F64) => {
                values.iter().for_each(|value| plain(&mut out, kind, *value));
                Encoding::PLAIN
            }
            None => {
                bits::delta(&mut out, values, kind == Kind::I32);
                Encoding::DELTA_BINARY_PACKED
            }
        };
        let page = bounds(kind, values);
        ends.extend(page.map(|(min, max)| [min, max]).into_iter().flatten());
        let bounds = page.filter(|_| kind != Kind::Bool).map(|page| plain_bounds(kind, page));
        let valid = valid.filter(|_| count < rows);
        chunk.data_page(DataPage { rows, nulls: rows - count, valid, encoding, bounds }, out)?;
        row += rows;
        value += count;
    }
    let all = bounds(kind, &ends).map(|all| (plain_bounds(kind, all), true));
    chunk.finish(all, None)
}

/// Encodes one chunk of ids of 16 bytes, with a bloom filter that knows further ids as well.
pub(crate) fn encode_ids(
    arrays: &[Option<ArrayRef>],
    runs: &[Run],
    further: &[RecordId],
    descr: ColumnDescPtr,
    scratch: &mut Scratch,
) -> Result<EncodedChunk> {
    let mut ids: Vec<&[u8]> = Vec::new();
    let mut valid: Vec<bool> = Vec::new();
    for run in runs {
        let array = arrays.get(run.batch as usize).and_then(Option::as_ref);
        let array = array.and_then(|array| array.as_any().downcast_ref::<FixedSizeBinaryArray>());
        for row in run.range() {
            let id = array.filter(|array| array.is_valid(row)).map(|array| array.value(row));
            valid.push(id.is_some());
            ids.extend(id);
        }
    }
    let mut chunk = ChunkWriter::new(descr, scratch);
    let mut bloom = super::text::bloom(ids.len() + further.len());
    if let Some(bloom) = &mut bloom {
        further.iter().for_each(|id| bloom.insert(id.0.as_slice()));
    }
    let page_rows = if ids.is_empty() { PAGE_ROWS * 8 } else { PAGE_ROWS };
    let mut rest = ids.as_slice();
    for valid in valid.chunks(page_rows) {
        let count = valid.iter().filter(|valid| **valid).count();
        let (now, later) = rest.split_at_checked(count).unwrap_or((rest, &[]));
        rest = later;
        let mut out = chunk.take_values();
        for id in now {
            out.extend_from_slice(id);
            if let Some(bloom) = &mut bloom {
                bloom.insert(*id);
            }
        }
        let bounds = now.iter().min().zip(now.iter().max());
        let bounds = bounds.map(|(min, max)| Bounds { min: min.to_vec(), max: max.to_vec() });
        let page = DataPage {
            rows: valid.len(),
            nulls: valid.len() - count,
            valid: (count < valid.len()).then_some(valid),
            encoding: Encoding::PLAIN,
            bounds,
        };
        chunk.data_page(page, out)?;
    }
    let bounds = ids.iter().min().zip(ids.iter().max());
    let bounds = bounds.map(|(min, max)| (Bounds { min: min.to_vec(), max: max.to_vec() }, true));
    let bloom: Option<Sbbf> = bloom;
    chunk.finish(bounds, bloom)
}
