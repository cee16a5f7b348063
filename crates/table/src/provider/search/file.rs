//! The pages of a file, read and decompressed one at a time.
//!
//! The Parquet reader makes a compressor and a decompressor for each column of each row group that it opens, which
//! costs as much as it takes to decompress a page. Here one decompressor serves a whole file: the reader is told that
//! pages are not compressed, and gives them as they are stored.

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use parquet::basic::Compression;
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

/// A larger page is left to the scan.
const MAX_PAGE: u64 = 64 << 20;

/// A file whose pages are read one at a time.
pub(super) struct PageFile {
    file: File,
    length: u64,
    read: AtomicUsize,
    /// Made for the first page that needs it.
    decompressor: Mutex<Option<zstd::bulk::Decompressor<'static>>>,
}

impl PageFile {
    pub(super) fn open(path: &Path) -> std::io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(Self { file, length, read: AtomicUsize::new(0), decompressor: Mutex::default() })
    }

    /// How many bytes were read.
    pub(super) fn read(&self) -> usize {
        self.read.load(Ordering::Relaxed)
    }

    /// What a page holds; `None` when that cannot be told here.
    fn decompressed(&self, page: Bytes, compression: Compression) -> Option<Bytes> {
        match compression {
            Compression::UNCOMPRESSED => return Some(page),
            Compression::ZSTD(_) => {}
            _ => return None,
        }
        // A page without any value.
        if page.is_empty() {
            return Some(page);
        }
        let size = zstd::zstd_safe::get_frame_content_size(&page).ok()??;
        let size = usize::try_from(size).ok().filter(|size| *size as u64 <= MAX_PAGE)?;
        let mut decompressor = self.decompressor.lock();
        let decompressor = match decompressor.as_mut() {
            Some(made) => made,
            None => decompressor.insert(zstd::bulk::Decompressor::new().ok()?),
        };
        let whole = decompressor.decompress(&page, size).ok()?;
        (whole.len() == size).then(|| Bytes::from(whole))
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

/// A page of a column chunk, or what is said of all its pages.
pub(super) enum Part {
    /// So many values that pages refer to by their number.
    Dictionary(Bytes, usize),
    /// The values of these rows, numbered from the row group's first.
    Rows(Range<u64>, Page),
}

/// The pages of a column chunk, one after the other.
pub(super) struct Pages {
    file: Arc<PageFile>,
    reader: SerializedPageReader<PageFile>,
    compression: Compression,
    /// The first row of each page that is left, and where the last one ends.
    bounds: std::iter::Peekable<std::vec::IntoIter<u64>>,
}

impl Pages {
    /// The pages of a column of a row group; `None` when it cannot be told where they lie.
    pub(super) fn open(
        file: &Arc<PageFile>,
        metadata: &ParquetMetaData,
        (group, leaf): (usize, usize),
        column: &ColumnChunkMetaData,
    ) -> Option<Self> {
        let locations = metadata.offset_index()?.get(group)?.get(leaf)?;
        let locations = locations.page_locations().clone();
        let rows = u64::try_from(metadata.row_groups().get(group)?.num_rows()).ok()?;
        let bounds: Option<Vec<u64>> =
            locations.iter().map(|page| u64::try_from(page.first_row_index).ok()).collect();
        let mut bounds = bounds?;
        bounds.push(rows);
        let plain = column.clone().into_builder().set_compression(Compression::UNCOMPRESSED);
        let total = usize::try_from(rows).ok()?;
        let of = Arc::clone(file);
        let reader =
            SerializedPageReader::new(of, &plain.build().ok()?, total, Some(locations)).ok()?;
        Some(Self {
            file: Arc::clone(file),
            reader,
            compression: column.compression(),
            bounds: bounds.into_iter().peekable(),
        })
    }

    /// The next page: the dictionary, if there is one, and then those of whose rows `wanted` says so. `None` when
    /// pages are not what they should be, `None` inside when there are no more.
    pub(super) fn next(&mut self, wanted: impl Fn(&Range<u64>) -> bool) -> Option<Option<Part>> {
        while let Some(next) = self.reader.peek_next_page().ok()? {
            let rows = if next.is_dict {
                None
            } else {
                let start = self.bounds.next()?;
                let rows = start..*self.bounds.peek()?;
                if !wanted(&rows) {
                    self.reader.skip_next_page().ok()?;
                    continue;
                }
                Some(rows)
            };
            let mut page = self.reader.get_next_page().ok()??;
            match &mut page {
                Page::DictionaryPage { buf, .. } | Page::DataPage { buf, .. } => {
                    *buf = self.file.decompressed(std::mem::take(buf), self.compression)?;
                }
                Page::DataPageV2 { .. } => return None,
            }
            return Some(Some(match (rows, page) {
                (None, Page::DictionaryPage { buf, num_values, .. }) => {
                    Part::Dictionary(buf, num_values as usize)
                }
                (Some(rows), page @ Page::DataPage { .. }) => Part::Rows(rows, page),
                _ => return None,
            }));
        }
        Some(None)
    }
}
