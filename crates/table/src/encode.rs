//! Encoding columns into Parquet column chunks.
//!
//! The general writer of the Parquet library hashes every row of a dictionary column again and walks
//! levels for every value. Here the batches' own dictionaries are merged (one hash per distinct value
//! of a batch), rows are copied by runs, and pages are packed directly; the library still writes the
//! file's structure and metadata. What comes out is plain Parquet: data pages of version 1, RLE
//! levels, zstd, dictionary, delta and plain encodings, page index, bloom filters.

pub(crate) mod bits;
pub(crate) mod chunk;
pub(crate) mod number;
pub(crate) mod text;
pub(crate) mod unit;

/// Rows of a page where a row is neither tiny nor huge, and of a block of the entity index.
pub(crate) const PAGE_ROWS: usize = 4096;
/// Rows of a full row group: 48 pages, and the bloom filter of a unique column fills 256 KiB.
pub(crate) const ROW_GROUP_ROWS: usize = 48 * PAGE_ROWS;
/// A run of consecutive rows of one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    /// Which batch of the unit.
    pub(crate) batch: u32,
    /// Its first row.
    pub(crate) start: u32,
    /// How many rows.
    pub(crate) len: u32,
}

impl Run {
    pub(crate) fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.start as usize + self.len as usize
    }
}
