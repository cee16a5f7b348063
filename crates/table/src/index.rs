//! The entity index: which rows of a segment hold a user, a host or an address.
//!
//! It stands beside the segment as `<segment>.idx` and covers the columns [`INDEXED`]. A value leads
//! to the blocks (fixed runs of rows, as long as a Parquet page) in which it occurs, so a query for
//! one entity reads few pages. A lookup reads the header once (a few kilobytes, kept in memory) and
//! then one bucket of a dozen values with one `pread`.
//!
//! # Format, version 1
//!
//! All numbers are little-endian; `varint` is LEB128 of at most 64 bits.
//!
//! ```text
//! header
//!   magic         4 bytes   "PSIX"
//!   version       u16       1
//!   columns       u16
//!   rows          u64       rows of the segment
//!   block_rows    u32       rows of a block; the last block may be shorter
//!   header_bytes  u32       the header's length, its checksum included
//!   per column:
//!     name_len    u16, then the name
//!     values      u32       distinct values
//!     bucket_bits u8        there are 2^bucket_bits buckets
//!     data        u64       where the column's buckets begin in the file
//!     offsets     (2^bucket_bits + 1) × u32: where each bucket begins, relative to `data`
//!   checksum      u64       XXH3-64 of all header bytes before it
//! buckets, one after the other; an empty bucket has no bytes
//!   per value, sorted by fragment:
//!     fragment    u16
//!     form        varint    list of n blocks: n << 1; bitmap of n bytes: n << 1 | 1
//!     body        list: first block as varint, then for each next its distance minus one;
//!                 bitmap: bit i, lowest first, stands for block i
//!   checksum      u32       low half of XXH3-64 of the bucket's bytes before it
//! ```
//!
//! The hash of a value is XXH3-64 of its UTF-8 bytes: its highest `bucket_bits` bits name the bucket
//! and the next 16 bits are the fragment. Two values may share both, so an answer may hold blocks
//! too many, never too few. Null is not indexed. A column whose index would cost more than it saves
//! is left out ([`IndexBuilder`]); then the answer is "not indexed", and the reader scans.

mod build;

pub use build::IndexBuilder;

use crate::error::TableError;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64;

/// The columns that a segment's index may cover, most wanted first.
pub const INDEXED: [&str; 4] = ["user", "src_ip", "host", "dst_ip"];

const MAGIC: [u8; 4] = *b"PSIX";
const VERSION: u16 = 1;
/// The header's fixed part.
const FIXED_HEADER: usize = 24;
/// What `open` reads at first; nearly every header fits.
const FIRST_READ: usize = 64 << 10;
/// A header can't be longer: four columns of 2^20 buckets.
const MAX_HEADER: usize = 32 << 20;

/// An open index file. Cheap to keep: the header stands in memory, the rest stays on disk.
#[derive(Debug)]
pub struct EntityIndex {
    file: File,
    path: PathBuf,
    rows: u64,
    block_rows: u32,
    columns: Vec<IndexedColumn>,
}

/// What the header tells about one column.
#[derive(Debug)]
struct IndexedColumn {
    name: String,
    values: u32,
    bucket_bits: u8,
    data: u64,
    offsets: Vec<u32>,
}

impl EntityIndex {
    /// Where the index of a segment stands: the Parquet file's name with the extension `idx`.
    #[must_use]
    pub fn path_of(segment: &Path) -> PathBuf {
        segment.with_extension("idx")
    }

    /// Opens an index file and checks its header.
    ///
    /// # Errors
    /// [`TableError::Missing`] when there is no such file, [`TableError::Damaged`] when its header
    /// is not what was written, [`TableError::Io`] when it can't be read.
    pub fn open(path: &Path) -> Result<Self, TableError> {
        let file = File::open(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => TableError::Missing { path: path.to_owned() },
            _ => TableError::io("open", path)(error),
        })?;
        let len = file.metadata().map_err(TableError::io("look at", path))?.len();
        let first = usize::try_from(len).unwrap_or(usize::MAX).min(FIRST_READ);
        let mut bytes = vec![0; first];
        file.read_exact_at(&mut bytes, 0).map_err(TableError::io("read", path))?;
        let wanted = header_bytes(&bytes)
            .filter(|wanted| *wanted as u64 <= len && *wanted <= MAX_HEADER)
            .ok_or_else(|| TableError::damaged(path, "no index header of a known version"))?;
        if wanted > bytes.len() {
            bytes.resize(wanted, 0);
            file.read_exact_at(&mut bytes, 0).map_err(TableError::io("read", path))?;
        }
        bytes.truncate(wanted);
        let (rows, block_rows, columns) =
            parse_header(&bytes, len).map_err(|reason| TableError::damaged(path, reason))?;
        Ok(Self { file, path: path.to_owned(), rows, block_rows, columns })
    }

    /// The rows of the segment.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The rows of a block; the last block may be shorter.
    #[must_use]
    pub fn block_rows(&self) -> u32 {
        self.block_rows
    }

    /// The columns that are indexed, each with its number of distinct values.
    pub fn columns(&self) -> impl Iterator<Item = (&str, u32)> {
        self.columns.iter().map(|column| (column.name.as_str(), column.values))
    }

    /// The rows, as ascending ranges in file order, outside of which no row has exactly this value in
    /// this column; empty when no row has it. `None` when the index can't tell: the column is not
    /// indexed, or its bucket can't be read (then a warning is logged); the caller scans.
    #[must_use]
    pub fn blocks(&self, column: &str, value: &str) -> Option<Vec<Range<u64>>> {
        match self.lookup(column, value) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "entity index not usable, scanning instead");
                None
            }
        }
    }

    /// As [`EntityIndex::blocks`], with damage reported.
    ///
    /// # Errors
    /// [`TableError::Io`] or [`TableError::Damaged`] when the value's bucket can't be read.
    pub fn lookup(&self, column: &str, value: &str) -> Result<Option<Vec<Range<u64>>>, TableError> {
        let Some(column) = self.columns.iter().find(|indexed| indexed.name == column) else {
            return Ok(None);
        };
        let hash = xxh3_64(value.as_bytes());
        let (bucket, fragment) = place(hash, column.bucket_bits);
        let bytes = self.bucket(column, bucket)?;
        let damaged = || TableError::damaged(&self.path, "an index bucket can't be decoded");
        let mut blocks = Vec::new();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (found, posting, after) = split_entry(rest).ok_or_else(damaged)?;
            if found == fragment {
                decode_posting(&posting, self.block_count(), &mut blocks).ok_or_else(damaged)?;
            } else if found > fragment {
                break;
            }
            rest = after;
        }
        blocks.sort_unstable();
        blocks.dedup();
        Ok(Some(self.ranges(&blocks)))
    }

    /// Reads every bucket and checks it.
    ///
    /// # Errors
    /// [`TableError::Io`] or [`TableError::Damaged`].
    pub fn verify(&self) -> Result<(), TableError> {
        let damaged = || TableError::damaged(&self.path, "an index bucket can't be decoded");
        for column in &self.columns {
            let mut values = 0u32;
            for bucket in 0..column.offsets.len().saturating_sub(1) {
                let bytes = self.bucket(column, bucket)?;
                let mut rest = bytes.as_slice();
                while !rest.is_empty() {
                    let (_, posting, after) = split_entry(rest).ok_or_else(damaged)?;
                    let mut blocks = Vec::new();
                    decode_posting(&posting, self.block_count(), &mut blocks)
                        .ok_or_else(damaged)?;
                    values += 1;
                    rest = after;
                }
            }
            if values != column.values {
                return Err(damaged());
            }
        }
        Ok(())
    }

    fn block_count(&self) -> u64 {
        self.rows.div_ceil(u64::from(self.block_rows))
    }

    /// The checked bytes of a bucket, without its checksum.
    fn bucket(&self, column: &IndexedColumn, bucket: usize) -> Result<Vec<u8>, TableError> {
        let bounds = column.offsets.get(bucket).zip(column.offsets.get(bucket + 1));
        let Some((&from, &to)) = bounds.filter(|(from, to)| to > from) else {
            return Ok(Vec::new());
        };
        let mut bytes = vec![0; (to - from) as usize];
        self.file
            .read_exact_at(&mut bytes, column.data + u64::from(from))
            .map_err(TableError::io("read", &self.path))?;
        let sound = bytes
            .split_last_chunk::<4>()
            .is_some_and(|(body, sum)| u32::from_le_bytes(*sum) == bucket_checksum(body));
        if !sound {
            return Err(TableError::damaged(&self.path, "an index bucket has a wrong checksum"));
        }
        bytes.truncate(bytes.len() - 4);
        Ok(bytes)
    }

    /// Sorted block numbers as row ranges, neighbours joined.
    fn ranges(&self, blocks: &[u64]) -> Vec<Range<u64>> {
        let size = u64::from(self.block_rows);
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for block in blocks {
            let start = block * size;
            let end = (start + size).min(self.rows);
            match ranges.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => ranges.push(start..end),
            }
        }
        ranges
    }
}

/// The bucket and the fragment of a value's hash.
fn place(hash: u64, bucket_bits: u8) -> (usize, u16) {
    let bits = u32::from(bucket_bits);
    let bucket = hash.checked_shr(64 - bits).unwrap_or(0);
    (usize::try_from(bucket).unwrap_or(0), ((hash << bits) >> 48) as u16)
}

fn bucket_checksum(body: &[u8]) -> u32 {
    (xxh3_64(body) & 0xffff_ffff) as u32
}

/// The header's length as the file's first bytes tell it.
fn header_bytes(bytes: &[u8]) -> Option<usize> {
    let mut fields = Fields(bytes);
    (fields.take::<4>()? == MAGIC && u16::from_le_bytes(fields.take()?) == VERSION).then_some(())?;
    let _columns_and_rows = fields.take::<10>()?;
    let _block_rows = fields.take::<4>()?;
    let wanted = u32::from_le_bytes(fields.take()?) as usize;
    (wanted >= FIXED_HEADER + 8).then_some(wanted)
}

type Header = (u64, u32, Vec<IndexedColumn>);

/// Takes a whole header apart; every length is checked against the file's.
fn parse_header(bytes: &[u8], file_len: u64) -> Result<Header, &'static str> {
    const SHORT: &str = "the index header ends too early";
    let (body, sum) = bytes.split_last_chunk::<8>().ok_or(SHORT)?;
    if xxh3_64(body) != u64::from_le_bytes(*sum) {
        return Err("the index header has a wrong checksum");
    }
    let mut fields = Fields(body);
    let _magic_and_version = fields.take::<6>().ok_or(SHORT)?;
    let count = u16::from_le_bytes(fields.take().ok_or(SHORT)?);
    let rows = u64::from_le_bytes(fields.take().ok_or(SHORT)?);
    let block_rows = u32::from_le_bytes(fields.take().ok_or(SHORT)?);
    let _header_bytes = fields.take::<4>().ok_or(SHORT)?;
    if block_rows == 0 {
        return Err("the index has blocks of no rows");
    }
    let mut columns = Vec::new();
    for _ in 0..count {
        let name_len = u16::from_le_bytes(fields.take().ok_or(SHORT)?);
        let name = fields.slice(usize::from(name_len)).ok_or(SHORT)?;
        let name =
            std::str::from_utf8(name).map_err(|_| "an indexed column's name is not UTF-8")?;
        let values = u32::from_le_bytes(fields.take().ok_or(SHORT)?);
        let [bucket_bits] = fields.take::<1>().ok_or(SHORT)?;
        if bucket_bits > 20 {
            return Err("the index has too many buckets");
        }
        let data = u64::from_le_bytes(fields.take().ok_or(SHORT)?);
        let table = fields.slice(((1usize << bucket_bits) + 1) * 4).ok_or(SHORT)?;
        let (chunks, _) = table.as_chunks::<4>();
        let offsets: Vec<u32> = chunks.iter().map(|chunk| u32::from_le_bytes(*chunk)).collect();
        let end = data.saturating_add(u64::from(offsets.last().copied().unwrap_or(0)));
        if !offsets.is_sorted() || end > file_len {
            return Err("the index's buckets lie outside of the file");
        }
        columns.push(IndexedColumn { name: name.to_owned(), values, bucket_bits, data, offsets });
    }
    Ok((rows, block_rows, columns))
}

/// A value's blocks, as they stand in a bucket.
enum Posting<'a> {
    List(u64, &'a [u8]),
    Bitmap(&'a [u8]),
}

/// The first entry of a bucket: fragment, posting, and what follows.
fn split_entry(bytes: &[u8]) -> Option<(u16, Posting<'_>, &[u8])> {
    let mut fields = Fields(bytes);
    let fragment = u16::from_le_bytes(fields.take()?);
    let form = fields.varint()?;
    let count = form >> 1;
    if form & 1 == 1 {
        let bits = fields.slice(usize::try_from(count).ok()?)?;
        return Some((fragment, Posting::Bitmap(bits), fields.0));
    }
    let body = fields.0;
    for _ in 0..count {
        fields.varint()?;
    }
    let used = body.len() - fields.0.len();
    Some((fragment, Posting::List(count, body.get(..used)?), fields.0))
}

/// Appends a posting's block numbers; `None` when one is outside of the segment.
fn decode_posting(posting: &Posting<'_>, block_count: u64, blocks: &mut Vec<u64>) -> Option<()> {
    match posting {
        Posting::List(count, body) => {
            let mut fields = Fields(body);
            let mut next = 0u64;
            for _ in 0..*count {
                let block = next.checked_add(fields.varint()?)?;
                (block < block_count).then_some(())?;
                blocks.push(block);
                next = block + 1;
            }
        }
        Posting::Bitmap(bytes) => {
            for (index, byte) in bytes.iter().enumerate() {
                for bit in 0..8u64 {
                    if byte >> bit & 1 == 1 {
                        let block = index as u64 * 8 + bit;
                        (block < block_count).then_some(())?;
                        blocks.push(block);
                    }
                }
            }
        }
    }
    Some(())
}

/// Reads fields from the front of a slice.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn slice(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.take::<1>()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
