//! Looking for texts in pages, and for ids that derive from them, without making arrays of them.
//!
//! A page is looked through where it lies, decompressed: texts behind each other in one search over all of
//! them, texts that share prefixes by their new ends, numbered texts once per entry of the dictionary. A
//! found page may still have no such value (a text may run over the end of one value into the next); a page
//! that is not found has none.

use super::unpack::{any_marked, length, lengths, take};
use bytes::{Buf, Bytes};
use memchr::memmem::Finder;
use palisade_event::SenderIds;
use parquet::basic::Encoding;
use parquet::column::page::{Page, PageReader};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::serialized_reader::SerializedPageReader;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A file whose pages are read one at a time.
pub(super) struct PageFile {
    file: File,
    length: u64,
    read: AtomicUsize,
}

impl PageFile {
    pub(super) fn open(path: &Path) -> std::io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(Self { file, length, read: AtomicUsize::new(0) })
    }

    /// How many bytes were read.
    pub(super) fn read(&self) -> usize {
        self.read.load(Ordering::Relaxed)
    }
}

impl Length for PageFile {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for PageFile {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let rest = self.length.saturating_sub(start);
        let length = usize::try_from(rest).unwrap_or(usize::MAX);
        Ok(self.get_bytes(start, length)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        if start.checked_add(length as u64).is_none_or(|end| end > self.length) {
            return Err(ParquetError::EOF("a page lies behind the end of its file".to_owned()));
        }
        let mut buffer = vec![0; length];
        self.file.read_exact_at(&mut buffer, start)?;
        self.read.fetch_add(length, Ordering::Relaxed);
        Ok(Bytes::from(buffer))
    }
}

/// The pages of a column in a row group, by their rows.
pub(super) struct Chunk<'a> {
    file: &'a Arc<PageFile>,
    metadata: &'a ParquetMetaData,
    group: usize,
    leaf: usize,
}

/// What is looked for.
pub(super) enum Sought<'a> {
    /// A text inside of values.
    Text(&'a Finder<'a>),
    /// Values from which one of these ids derives.
    Ids {
        tenant: &'a str,
        source: &'a str,
        wanted: &'a [u128],
        /// Keeps what is the same for all values.
        derived: SenderIds,
    },
}

impl<'a> Sought<'a> {
    /// Senders' ids from which one of these ids derives.
    pub(super) fn ids(tenant: &'a str, source: &'a str, wanted: &'a [u128]) -> Self {
        Self::Ids { tenant, source, wanted, derived: SenderIds::default() }
    }

    /// Whether this whole value is one.
    fn is(&mut self, value: &[u8]) -> Option<bool> {
        match self {
            Self::Text(text) => Some(text.find(value).is_some()),
            Self::Ids { tenant, source, wanted, derived } => {
                let value = std::str::from_utf8(value).ok()?;
                Some(wanted.contains(&u128::from_be_bytes(derived.id(tenant, source, value).0)))
            }
        }
    }

    /// Whether any value of so many bytes each, one behind the other, is one.
    fn is_any(&mut self, mut bytes: &[u8], lengths: impl Iterator<Item = usize>) -> Option<bool> {
        for length in lengths {
            if self.is(take(&mut bytes, length)?)? {
                return Some(true);
            }
        }
        Some(false)
    }
}

/// How many pages were looked through, and how many of them had a hit.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Seen {
    pub(super) pages: usize,
    pub(super) found: usize,
}

impl<'a> Chunk<'a> {
    pub(super) fn new(
        file: &'a Arc<PageFile>,
        metadata: &'a ParquetMetaData,
        group: usize,
        leaf: usize,
    ) -> Self {
        Self { file, metadata, group, leaf }
    }

    fn column(&self) -> Option<&'a ColumnChunkMetaData> {
        let column = self.metadata.row_groups().get(self.group)?.columns().get(self.leaf)?;
        let descr = column.column_descr();
        (descr.max_rep_level() == 0 && descr.max_def_level() <= 1).then_some(column)
    }

    fn rows(&self) -> Option<u64> {
        u64::try_from(self.metadata.row_groups().get(self.group)?.num_rows()).ok()
    }

    fn open(&self) -> Option<(SerializedPageReader<PageFile>, Vec<u64>)> {
        let locations = self.metadata.offset_index()?.get(self.group)?.get(self.leaf)?;
        let locations = locations.page_locations().clone();
        let mut bounds: Vec<u64> = locations
            .iter()
            .map(|page| u64::try_from(page.first_row_index).ok())
            .collect::<Option<_>>()?;
        bounds.push(self.rows()?);
        let total = usize::try_from(self.rows()?).ok()?;
        let file = Arc::clone(self.file);
        let reader = SerializedPageReader::new(file, self.column()?, total, Some(locations));
        Some((reader.ok()?, bounds))
    }

    /// The rows, out of `rows`, of the pages that may hold what is sought. Rows are numbered from the row
    /// group's first. `None` when that cannot be told.
    pub(super) fn find(
        &self,
        rows: &[Range<u64>],
        sought: &mut Sought<'_>,
        seen: &mut Seen,
    ) -> Option<Vec<Range<u64>>> {
        let nullable = self.column()?.column_descr().max_def_level() == 1;
        let (mut reader, bounds) = self.open()?;
        let mut found: Vec<Range<u64>> = Vec::new();
        let mut marked: Option<Vec<bool>> = None;
        let mut bounds = bounds.windows(2);
        while let Some(next) = reader.peek_next_page().ok()? {
            if next.is_dict {
                let Some(Page::DictionaryPage { buf, num_values, .. }) =
                    reader.get_next_page().ok()?
                else {
                    return None;
                };
                marked = Some(mark(&buf, num_values as usize, sought)?);
                continue;
            }
            let &[start, end] = bounds.next()? else { return None };
            if !rows.iter().any(|range| range.start < end && start < range.end) {
                reader.skip_next_page().ok()?;
                continue;
            }
            let page = reader.get_next_page().ok()??;
            seen.pages += 1;
            let most = usize::try_from(end.saturating_sub(start)).ok()?;
            if has(&page, most, nullable, marked.as_deref(), sought)? {
                seen.found += 1;
                match found.last_mut() {
                    Some(last) if last.end == start => last.end = end,
                    _ => found.push(start..end),
                }
            }
        }
        Some(super::intersect(&found, rows))
    }
}

/// Which entries of a dictionary are, or hold, what is sought.
fn mark(mut bytes: &[u8], count: usize, sought: &mut Sought<'_>) -> Option<Vec<bool>> {
    if let Sought::Text(text) = sought
        && text.find(bytes).is_none()
    {
        return Some(vec![false; count.min(bytes.len())]);
    }
    let mut marked = Vec::new();
    for _ in 0..count {
        let length = length(&mut bytes)?;
        marked.push(sought.is(take(&mut bytes, length)?)?);
    }
    Some(marked)
}

/// Whether a page of so many rows may hold what is sought.
fn has(
    page: &Page,
    rows: usize,
    nullable: bool,
    marked: Option<&[bool]>,
    sought: &mut Sought<'_>,
) -> Option<bool> {
    let Page::DataPage { buf, encoding, def_level_encoding, .. } = page else {
        return None;
    };
    let mut values: &[u8] = buf;
    if nullable {
        if *def_level_encoding != Encoding::RLE {
            return None;
        }
        let levels = length(&mut values)?;
        take(&mut values, levels)?;
    }
    match encoding {
        Encoding::RLE_DICTIONARY => {
            let marked = marked?;
            if !marked.contains(&true) {
                return Some(false);
            }
            let Some((width, numbers)) = values.split_first() else { return Some(false) };
            any_marked(numbers, u32::from(*width), marked)
        }
        Encoding::PLAIN => match sought {
            Sought::Text(text) => Some(text.find(values).is_some()),
            Sought::Ids { .. } => {
                while !values.is_empty() {
                    let length = length(&mut values)?;
                    if sought.is(take(&mut values, length)?)? {
                        return Some(true);
                    }
                }
                Some(false)
            }
        },
        Encoding::DELTA_LENGTH_BYTE_ARRAY => {
            let each = lengths(&mut values, rows)?;
            match sought {
                Sought::Text(text) => Some(text.find(values).is_some()),
                Sought::Ids { .. } => sought.is_any(values, each.into_iter()),
            }
        }
        Encoding::DELTA_BYTE_ARRAY => {
            let shared = lengths(&mut values, rows)?;
            let new = lengths(&mut values, rows)?;
            if shared.len() != new.len() {
                return None;
            }
            let pieces = shared.into_iter().zip(new);
            match sought {
                Sought::Text(text) => text_in_shared(values, pieces, text),
                Sought::Ids { .. } => any_of_shared(values, pieces, |value, _| sought.is(value)),
            }
        }
        _ => None,
    }
}

/// Whether `is` holds for any of the values; of each value is given how much it shares with the one before it, and
/// how many bytes follow. `is` gets the value and how much of it is shared.
fn any_of_shared(
    mut bytes: &[u8],
    pieces: impl Iterator<Item = (usize, usize)>,
    mut is: impl FnMut(&[u8], usize) -> Option<bool>,
) -> Option<bool> {
    let mut value: Vec<u8> = Vec::new();
    for (shared, new) in pieces {
        if shared > value.len() {
            return None;
        }
        value.truncate(shared);
        value.extend_from_slice(take(&mut bytes, new)?);
        if is(&value, shared)? {
            return Some(true);
        }
    }
    Some(false)
}

/// Below so many bytes a search is a comparison at each place: a searcher takes longer to set up.
const SHORT: usize = 64;

/// Whether any of the values holds a text; they are given as to [`any_of_shared`]. As long as no value holds the text,
/// a new one can only hold it where at least one of its new bytes takes part.
fn text_in_shared(
    bytes: &[u8],
    pieces: impl Iterator<Item = (usize, usize)>,
    text: &Finder<'_>,
) -> Option<bool> {
    let needle = text.needle();
    let Some((last, _)) = needle.split_last() else { return Some(true) };
    any_of_shared(bytes, pieces, |value, shared| {
        let from = (shared + 1).saturating_sub(needle.len());
        let place = value.get(from..)?;
        Some(if place.len() > SHORT {
            text.find(place).is_some()
        } else {
            place
                .windows(needle.len())
                .any(|window| window.last() == Some(last) && window == needle)
        })
    })
}
