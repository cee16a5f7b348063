//! Looking for texts in pages, and for ids that derive from them, without making arrays of them.
//!
//! A page is looked through where it lies, decompressed: texts behind each other in one search over all of
//! them, texts that share prefixes by their new ends, numbered texts once per entry of the dictionary. A
//! found page may still have no such value (a text may run over the end of one value into the next); a page
//! that is not found has none.

use super::file::{PageFile, Pages, Part};
use super::unpack::{any_marked, length, lengths, take};
use memchr::memmem::Finder;
use palisade_event::SenderIds;
use parquet::basic::Encoding;
use parquet::column::page::Page;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use std::ops::Range;
use std::sync::Arc;

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
        wanted: &'a [u128],
        /// Keeps what is the same for all values.
        derived: SenderIds,
    },
}

impl<'a> Sought<'a> {
    /// Senders' ids from which one of these ids derives.
    pub(super) fn ids(tenant: &str, source: &str, wanted: &'a [u128]) -> Self {
        let mut derived = SenderIds::default();
        derived.begin(tenant, source);
        Self::Ids { wanted, derived }
    }

    /// Whether this whole value is one.
    fn is(&mut self, value: &[u8]) -> Option<bool> {
        match self {
            Self::Text(text) => Some(text.find(value).is_some()),
            Self::Ids { wanted, derived } => is_wanted(derived, wanted, 0, value),
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

/// Whether the id is wanted that derives from a value, which begins with so many bytes of the one before.
fn is_wanted(derived: &mut SenderIds, wanted: &[u128], shared: usize, rest: &[u8]) -> Option<bool> {
    Some(wanted.contains(&u128::from_be_bytes(derived.next(shared, rest)?.0)))
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

    pub(super) fn column(&self) -> Option<&'a ColumnChunkMetaData> {
        let column = self.metadata.row_groups().get(self.group)?.columns().get(self.leaf)?;
        let descr = column.column_descr();
        (descr.max_rep_level() == 0 && descr.max_def_level() <= 1).then_some(column)
    }

    /// Whether there may be nulls.
    pub(super) fn nullable(&self) -> Option<bool> {
        Some(self.column()?.column_descr().max_def_level() == 1)
    }

    pub(super) fn pages(&self) -> Option<Pages> {
        Pages::open(self.file, self.metadata, (self.group, self.leaf), self.column()?)
    }

    /// The rows, out of `rows`, of the pages that may hold what is sought. Rows are numbered from the row
    /// group's first. `None` when that cannot be told.
    pub(super) fn find(
        &self,
        rows: &[Range<u64>],
        sought: &mut Sought<'_>,
        seen: &mut Seen,
    ) -> Option<Vec<Range<u64>>> {
        let nullable = self.nullable()?;
        let mut pages = self.pages()?;
        let mut found: Vec<Range<u64>> = Vec::new();
        let mut marked: Option<Vec<bool>> = None;
        while let Some(part) = pages.next(|page| any_in(rows, page))? {
            match part {
                Part::Dictionary(bytes, count) => marked = Some(mark(&bytes, count, sought)?),
                Part::Rows(page_rows, page) => {
                    seen.pages += 1;
                    let most = usize::try_from(page_rows.end.checked_sub(page_rows.start)?).ok()?;
                    if has(&page, most, nullable, marked.as_deref(), sought)? {
                        seen.found += 1;
                        match found.last_mut() {
                            Some(last) if last.end == page_rows.start => last.end = page_rows.end,
                            _ => found.push(page_rows),
                        }
                    }
                }
            }
        }
        Some(super::intersect(&found, rows))
    }
}

/// Whether a page has any of these rows.
pub(super) fn any_in(rows: &[Range<u64>], page: &Range<u64>) -> bool {
    rows.iter().any(|range| range.start < page.end && page.start < range.end)
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
                Sought::Ids { wanted, derived } => {
                    for (number, (shared, new)) in pieces.enumerate() {
                        // A page's first value has none before it.
                        if number == 0 && shared > 0 {
                            return None;
                        }
                        if is_wanted(derived, wanted, shared, take(&mut values, new)?)? {
                            return Some(true);
                        }
                    }
                    Some(false)
                }
            }
        }
        _ => None,
    }
}

/// Below so many bytes a search is a comparison at each place: a searcher takes longer to set up.
const SHORT: usize = 64;

/// Whether any of the values holds a text; of each value is given how much it shares with the one before it, and how
/// many bytes follow. As long as no value holds the text, a new one can only hold it where at least one of its new bytes
/// takes part.
fn text_in_shared(
    mut bytes: &[u8],
    pieces: impl Iterator<Item = (usize, usize)>,
    text: &Finder<'_>,
) -> Option<bool> {
    let needle = text.needle();
    let Some((last, _)) = needle.split_last() else { return Some(true) };
    let mut value: Vec<u8> = Vec::new();
    for (shared, new) in pieces {
        if shared > value.len() {
            return None;
        }
        value.truncate(shared);
        value.extend_from_slice(take(&mut bytes, new)?);
        let place = value.get((shared + 1).saturating_sub(needle.len())..)?;
        let holds = if place.len() > SHORT {
            text.find(place).is_some()
        } else {
            place
                .windows(needle.len())
                .any(|window| window.last() == Some(last) && window == needle)
        };
        if holds {
            return Some(true);
        }
    }
    Some(false)
}
