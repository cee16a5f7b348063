//! One column chunk: pages, their compression, the page index, statistics, the bloom filter.

use super::bits;
use bytes::Bytes;
use parquet::basic::{Compression, Encoding, PageType, Type, ZstdLevel};
use parquet::bloom_filter::Sbbf;
use parquet::column::page::{CompressedPage, Page, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{
    ColumnChunkMetaData, ColumnIndexBuilder, OffsetIndexBuilder, PageEncodingStats,
};
use parquet::file::statistics::{Statistics, ValueStatistics};
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;

/// Level of zstd: the budget of a sealed event is half a microsecond.
const ZSTD_LEVEL: i32 = 1;
/// A chunk whose first page shrinks by less than a thirty-second part is stored as it is.
const LEAST_GAIN: usize = 32;

/// Buffers and the compressor, used for one chunk after the other.
pub(crate) struct Scratch {
    compressor: zstd::bulk::Compressor<'static>,
    compressed: Vec<u8>,
    body: Vec<u8>,
    /// For encoders: a page's encoded values.
    pub(crate) values: Vec<u8>,
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scratch").finish_non_exhaustive()
    }
}

impl Scratch {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            compressor: zstd::bulk::Compressor::new(ZSTD_LEVEL)?,
            compressed: Vec::new(),
            body: Vec::new(),
            values: Vec::new(),
        })
    }
}

/// A finished chunk: its bytes and what the file's metadata says about it.
pub(crate) struct EncodedChunk {
    pub(crate) bytes: Bytes,
    pub(crate) close: ColumnCloseResult,
}

/// The least and greatest value of a page or chunk, in Parquet's plain encoding (texts without their
/// length).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) min: Vec<u8>,
    pub(crate) max: Vec<u8>,
}

/// What a data page tells about itself.
pub(crate) struct DataPage<'a> {
    pub(crate) rows: usize,
    pub(crate) nulls: usize,
    /// Per row whether it has a value; `None` when all have.
    pub(crate) valid: Option<&'a [bool]>,
    pub(crate) encoding: Encoding,
    /// `None` when the page's bounds are not known; then the chunk has no column index.
    pub(crate) bounds: Option<Bounds>,
}

/// Writes the pages of one chunk into memory.
pub(crate) struct ChunkWriter<'a> {
    descr: ColumnDescPtr,
    scratch: &'a mut Scratch,
    out: TrackedWrite<Vec<u8>>,
    /// Decided by the first page that is large enough to tell.
    compress: Option<bool>,
    column_index: ColumnIndexBuilder,
    offset_index: OffsetIndexBuilder,
    dictionary_at: Option<i64>,
    data_at: Option<i64>,
    uncompressed: usize,
    rows: u64,
    nulls: u64,
    encodings: Vec<Encoding>,
    page_stats: Vec<PageEncodingStats>,
}

impl<'a> ChunkWriter<'a> {
    pub(crate) fn new(descr: ColumnDescPtr, scratch: &'a mut Scratch) -> Self {
        let physical = descr.physical_type();
        Self {
            descr,
            scratch,
            out: TrackedWrite::new(Vec::with_capacity(64 << 10)),
            compress: None,
            column_index: ColumnIndexBuilder::new(physical),
            offset_index: OffsetIndexBuilder::new(),
            dictionary_at: None,
            data_at: None,
            uncompressed: 0,
            rows: 0,
            nulls: 0,
            encodings: vec![Encoding::RLE],
            page_stats: Vec::new(),
        }
    }

    /// The buffer in which an encoder puts a page's values together; give it back to
    /// [`ChunkWriter::data_page`].
    pub(crate) fn take_values(&mut self) -> Vec<u8> {
        let mut values = std::mem::take(&mut self.scratch.values);
        values.clear();
        values
    }

    /// Writes the dictionary page: `values` in plain encoding.
    pub(crate) fn dictionary_page(&mut self, values: &[u8], count: usize) -> Result<()> {
        let mut body = std::mem::take(&mut self.scratch.body);
        body.clear();
        body.extend_from_slice(values);
        let written = self.write(&body, PageType::DICTIONARY_PAGE, Encoding::PLAIN, |buf| {
            Page::DictionaryPage {
                buf,
                num_values: count as u32,
                encoding: Encoding::PLAIN,
                is_sorted: false,
            }
        });
        self.scratch.body = body;
        self.dictionary_at = Some(written?.0 as i64);
        Ok(())
    }

    /// Writes a data page and takes the values' buffer back.
    pub(crate) fn data_page(&mut self, page: DataPage<'_>, values: Vec<u8>) -> Result<()> {
        let mut body = std::mem::take(&mut self.scratch.body);
        body.clear();
        body.extend_from_slice(&[0; 4]);
        bits::levels(&mut body, page.rows, page.valid);
        let levels = (body.len() - 4) as u32;
        if let Some(head) = body.first_chunk_mut::<4>() {
            *head = levels.to_le_bytes();
        }
        body.extend_from_slice(&values);
        self.scratch.values = values;
        let written = self.write(&body, PageType::DATA_PAGE, page.encoding, |buf| Page::DataPage {
            buf,
            num_values: page.rows as u32,
            encoding: page.encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        });
        self.scratch.body = body;
        let (at, size) = written?;
        self.data_at.get_or_insert(at as i64);
        self.offset_index.append_row_count(page.rows as i64);
        self.offset_index.append_offset_and_size(at as i64, size as i32);
        self.rows += page.rows as u64;
        self.nulls += page.nulls as u64;
        if page.nulls == page.rows {
            self.column_index.append(true, Vec::new(), Vec::new(), page.nulls as i64);
        } else if let Some(bounds) = page.bounds {
            self.column_index.append(false, bounds.min, bounds.max, page.nulls as i64);
        } else {
            self.column_index.to_invalid();
        }
        Ok(())
    }

    /// Compresses and writes one page; where it begins and its size with header.
    fn write(
        &mut self,
        body: &[u8],
        kind: PageType,
        encoding: Encoding,
        page: impl FnOnce(Bytes) -> Page,
    ) -> Result<(u64, u64)> {
        let stored = if self.compress == Some(false) {
            Bytes::copy_from_slice(body)
        } else {
            let out = &mut self.scratch.compressed;
            out.clear();
            out.reserve(zstd::zstd_safe::compress_bound(body.len()));
            self.scratch.compressor.compress_to_buffer(body, out)?;
            // A small first page tells nothing, and costs nothing when it is compressed in vain.
            let decided = *self.compress.get_or_insert_with(|| {
                body.len() < 1024 || out.len() + body.len() / LEAST_GAIN < body.len()
            });
            Bytes::copy_from_slice(if decided { out } else { body })
        };
        let page = CompressedPage::new(page(stored), body.len());
        let spec = SerializedPageWriter::new(&mut self.out).write_page(page)?;
        self.uncompressed += spec.uncompressed_size;
        if !self.encodings.contains(&encoding) {
            self.encodings.push(encoding);
        }
        match self
            .page_stats
            .iter_mut()
            .find(|stats| stats.page_type == kind && stats.encoding == encoding)
        {
            Some(stats) => stats.count += 1,
            None => self.page_stats.push(PageEncodingStats { page_type: kind, encoding, count: 1 }),
        }
        Ok((spec.offset, spec.bytes_written))
    }

    /// Ends the chunk. `bounds` are those of all its values and whether they are exact.
    pub(crate) fn finish(
        self,
        bounds: Option<(Bounds, bool)>,
        bloom_filter: Option<Sbbf>,
    ) -> Result<EncodedChunk> {
        // A row group may have thousands of chunks, most of them of a few bytes: none may keep the room in
        // which it was written.
        let bytes = Bytes::from(self.out.into_inner()?.into_boxed_slice());
        let compression = if self.compress == Some(false) {
            Compression::UNCOMPRESSED
        } else {
            Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?)
        };
        let metadata = ColumnChunkMetaData::builder(self.descr.clone())
            .set_compression(compression)
            .set_encodings(self.encodings)
            .set_page_encoding_stats(self.page_stats)
            .set_total_compressed_size(bytes.len() as i64)
            .set_total_uncompressed_size(self.uncompressed as i64)
            .set_num_values(self.rows as i64)
            .set_data_page_offset(self.data_at.unwrap_or(0))
            .set_dictionary_page_offset(self.dictionary_at)
            .set_statistics(statistics(self.descr.physical_type(), bounds, self.nulls)?)
            .build()?;
        let column_index =
            if self.column_index.valid() { Some(self.column_index.build()?) } else { None };
        Ok(EncodedChunk {
            close: ColumnCloseResult {
                bytes_written: bytes.len() as u64,
                rows_written: self.rows,
                metadata,
                bloom_filter,
                column_index,
                offset_index: Some(self.offset_index.build()),
            },
            bytes,
        })
    }

    /// Each page's bounds so far are in the column index.
    pub(crate) fn has_page_bounds(&self) -> bool {
        self.column_index.valid()
    }
}

/// The chunk's statistics from bounds in plain encoding.
fn statistics(physical: Type, bounds: Option<(Bounds, bool)>, nulls: u64) -> Result<Statistics> {
    let (min, max, exact) = match bounds {
        Some((bounds, exact)) => (Some(bounds.min), Some(bounds.max), exact),
        None => (None, None, true),
    };
    macro_rules! fixed {
        ($type:ty) => {{
            let number = |bytes: Option<Vec<u8>>| {
                bytes.as_deref().and_then(|b| b.first_chunk()).map(|b| <$type>::from_le_bytes(*b))
            };
            let (min, max) = (number(min), number(max));
            ValueStatistics::new(min, max, None, Some(nulls), false).into()
        }};
    }
    Ok(match physical {
        Type::BOOLEAN => {
            let flag = |bytes: Option<Vec<u8>>| bytes.and_then(|b| b.first().map(|b| *b != 0));
            ValueStatistics::new(flag(min), flag(max), None, Some(nulls), false).into()
        }
        Type::INT32 => fixed!(i32),
        Type::INT64 => fixed!(i64),
        Type::FLOAT => fixed!(f32),
        Type::DOUBLE => fixed!(f64),
        Type::BYTE_ARRAY => {
            let (min, max) = (min.map(Into::into), max.map(Into::into));
            Statistics::ByteArray(
                ValueStatistics::new(min, max, None, Some(nulls), false)
                    .with_min_is_exact(exact)
                    .with_max_is_exact(exact),
            )
        }
        Type::FIXED_LEN_BYTE_ARRAY => {
            let fixed =
                |bytes: Option<Vec<u8>>| bytes.map(parquet::data_type::FixedLenByteArray::from);
            Statistics::FixedLenByteArray(ValueStatistics::new(
                fixed(min),
                fixed(max),
                None,
                Some(nulls),
                false,
            ))
        }
        Type::INT96 => return Err(ParquetError::General("no column is of type INT96".to_owned())),
    })
}
