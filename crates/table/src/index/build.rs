//! Building an entity index while a segment's rows go by in file order.

use super::{FIXED_HEADER, MAGIC, VERSION, bucket_checksum, place};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

/// The most bytes a row that the whole index may cost, times 100.
const BYTES_PER_100_ROWS: u64 = 150;
/// A segment's index may always have this many bytes.
const FREE_BYTES: u64 = 64 << 10;
/// Values per bucket, about.
const BUCKET_VALUES: usize = 12;
/// The most distinct values of a column, whatever the segment's length: it bounds the memory.
const MAX_VALUES: usize = 400_000;

/// Collects where values occur and writes the index file's bytes.
///
/// Give each distinct value of a column a slot ([`IndexBuilder::slot`], a hash once per distinct
/// value of a batch's dictionary), then mark rows in ascending order ([`IndexBuilder::mark`], a
/// comparison per row). Memory stays below about 1.5 bytes a row and 60 bytes a distinct value.
///
/// A column with too many distinct values for its rows is dropped while building; when the whole
/// index costs more than 1.5 bytes a row at the end, its last columns are left out.
#[derive(Debug)]
pub struct IndexBuilder {
    block_rows: u32,
    /// The most bytes that a posting list may have before a bitmap is shorter.
    bitmap_bytes: usize,
    expected_rows: u64,
    columns: Vec<ColumnBuilder>,
}

#[derive(Debug)]
struct ColumnBuilder {
    name: String,
    slots: HashMap<u64, u32, FixedState>,
    postings: Vec<Posting>,
    dropped: bool,
}

#[derive(Debug)]
struct Posting {
    hash: u64,
    /// One more than the last block marked; 0 before the first.
    next: u32,
    count: u32,
    bitmap: bool,
    bytes: SmallVec<[u8; 16]>,
}

impl IndexBuilder {
    /// An index over segments of about `expected_rows` rows in blocks of `block_rows`, for these
    /// columns, most wanted first.
    #[must_use]
    pub fn new(expected_rows: u64, block_rows: u32, columns: &[&str]) -> Self {
        let blocks = expected_rows.div_ceil(u64::from(block_rows.max(1)));
        let columns = columns
            .iter()
            .map(|name| ColumnBuilder {
                name: (*name).to_owned(),
                slots: HashMap::with_hasher(FixedState::default()),
                postings: Vec::new(),
                dropped: false,
            })
            .collect();
        Self {
            block_rows: block_rows.max(1),
            bitmap_bytes: usize::try_from(blocks.div_ceil(8)).unwrap_or(usize::MAX),
            expected_rows,
            columns,
        }
    }

    /// The number of a column, for [`IndexBuilder::slot`]; `None` when it is not to be indexed.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name && !column.dropped)
    }

    /// The slot of a value; `None` when the column was dropped for having too many values.
    pub fn slot(&mut self, column: usize, value: &str) -> Option<u32> {
        let limit = usize::try_from(self.expected_rows / 5).unwrap_or(MAX_VALUES);
        let column = self.columns.get_mut(column).filter(|column| !column.dropped)?;
        let hash = xxh3_64(value.as_bytes());
        if let Some(slot) = column.slots.get(&hash) {
            return Some(*slot);
        }
        if column.postings.len() >= limit.clamp(16_384, MAX_VALUES) {
            *column = ColumnBuilder {
                name: std::mem::take(&mut column.name),
                slots: HashMap::with_hasher(FixedState::default()),
                postings: Vec::new(),
                dropped: true,
            };
            return None;
        }
        let slot = u32::try_from(column.postings.len()).ok()?;
        column.slots.insert(hash, slot);
        column.postings.push(Posting {
            hash,
            next: 0,
            count: 0,
            bitmap: false,
            bytes: SmallVec::new(),
        });
        Some(slot)
    }

    /// Tells that the value of this slot stands in this row of the file. Rows of one column come in
    /// ascending order.
    pub fn mark(&mut self, column: usize, slot: u32, row: u64) {
        let block = (row / u64::from(self.block_rows)) as u32;
        let posting = self.columns.get_mut(column).and_then(|c| c.postings.get_mut(slot as usize));
        if let Some(posting) = posting {
            posting.mark(block, self.bitmap_bytes);
        }
    }

    /// Marks a run of rows, `first_row` being that of `slots[0]`; `u32::MAX` stands for null.
    pub fn mark_rows(&mut self, column: usize, slots: &[u32], first_row: u64) {
        let block_rows = u64::from(self.block_rows);
        let bitmap_bytes = self.bitmap_bytes;
        let Some(column) = self.columns.get_mut(column) else { return };
        let mut row = first_row;
        let mut rest = slots;
        while !rest.is_empty() {
            let block = row / block_rows;
            let until = ((block + 1) * block_rows - row).min(rest.len() as u64);
            let (now, later) = rest.split_at(usize::try_from(until).unwrap_or(rest.len()));
            for slot in now {
                if let Some(posting) = column.postings.get_mut(*slot as usize) {
                    posting.mark(block as u32, bitmap_bytes);
                }
            }
            row += until;
            rest = later;
        }
    }

    /// The bytes of the index file of a segment of `rows` rows.
    #[must_use]
    pub fn finish(mut self, rows: u64) -> Vec<u8> {
        let budget = (rows * BYTES_PER_100_ROWS / 100).max(FREE_BYTES);
        let mut encoded = Vec::new();
        let mut spent = 0u64;
        for column in &mut self.columns {
            if column.dropped {
                continue;
            }
            let column = EncodedColumn::of(column);
            if spent + column.bytes() <= budget {
                spent += column.bytes();
                encoded.push(column);
            }
        }
        write_file(rows, self.block_rows, &encoded)
    }
}

impl Posting {
    #[inline]
    fn mark(&mut self, block: u32, bitmap_bytes: usize) {
        if self.next > block {
            return;
        }
        if self.bitmap {
            set_bit(&mut self.bytes, block);
        } else {
            push_varint(&mut self.bytes, u64::from(block - self.next));
            if self.bytes.len() > bitmap_bytes.max(16) {
                self.turn_to_bitmap();
                set_bit(&mut self.bytes, block);
            }
        }
        self.count += 1;
        self.next = block + 1;
    }

    /// Turns the list of all blocks but the last into a bitmap.
    fn turn_to_bitmap(&mut self) {
        let mut bits = SmallVec::new();
        let mut fields = super::Fields(&self.bytes);
        let mut next = 0u32;
        for _ in 0..self.count {
            let Some(gap) = fields.varint() else { break };
            let block = next + gap as u32;
            set_bit(&mut bits, block);
            next = block + 1;
        }
        self.bytes = bits;
        self.bitmap = true;
    }
}

fn set_bit(bits: &mut SmallVec<[u8; 16]>, block: u32) {
    let byte = block as usize / 8;
    if bits.len() <= byte {
        bits.resize(byte + 1, 0);
    }
    if let Some(byte) = bits.get_mut(byte) {
        *byte |= 1 << (block % 8);
    }
}

fn push_varint(bytes: &mut SmallVec<[u8; 16]>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// A column's buckets.
struct EncodedColumn {
    name: String,
    values: u32,
    bucket_bits: u8,
    offsets: Vec<u32>,
    data: Vec<u8>,
}

impl EncodedColumn {
    fn of(column: &mut ColumnBuilder) -> Self {
        let mut postings = std::mem::take(&mut column.postings);
        postings.retain(|posting| posting.count > 0);
        postings.sort_unstable_by_key(|posting| posting.hash);
        let buckets = (postings.len() / BUCKET_VALUES).max(1).next_power_of_two();
        let bucket_bits = buckets.trailing_zeros().min(20) as u8;
        let mut offsets = vec![0u32];
        let mut data: Vec<u8> = Vec::new();
        let mut rest = postings.as_slice();
        for bucket in 0..1usize << bucket_bits {
            let begin = data.len();
            let until = rest.partition_point(|p| place(p.hash, bucket_bits).0 <= bucket);
            let (now, later) = rest.split_at(until);
            rest = later;
            for posting in now {
                let (_, fragment) = place(posting.hash, bucket_bits);
                data.extend_from_slice(&fragment.to_le_bytes());
                let form = if posting.bitmap {
                    (posting.bytes.len() as u64) << 1 | 1
                } else {
                    u64::from(posting.count) << 1
                };
                let mut head = SmallVec::new();
                push_varint(&mut head, form);
                data.extend_from_slice(&head);
                data.extend_from_slice(&posting.bytes);
            }
            if data.len() > begin {
                let sum = bucket_checksum(data.get(begin..).unwrap_or_default());
                data.extend_from_slice(&sum.to_le_bytes());
            }
            offsets.push(u32::try_from(data.len()).unwrap_or(u32::MAX));
        }
        let values = u32::try_from(postings.len()).unwrap_or(u32::MAX);
        Self { name: std::mem::take(&mut column.name), values, bucket_bits, offsets, data }
    }

    fn header_bytes(&self) -> usize {
        2 + self.name.len() + 4 + 1 + 8 + self.offsets.len() * 4
    }

    fn bytes(&self) -> u64 {
        (self.header_bytes() + self.data.len()) as u64
    }
}

fn write_file(rows: u64, block_rows: u32, columns: &[EncodedColumn]) -> Vec<u8> {
    let header: usize =
        FIXED_HEADER + columns.iter().map(EncodedColumn::header_bytes).sum::<usize>() + 8;
    let data: usize = columns.iter().map(|column| column.data.len()).sum();
    let mut bytes = Vec::with_capacity(header + data);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&(columns.len() as u16).to_le_bytes());
    bytes.extend_from_slice(&rows.to_le_bytes());
    bytes.extend_from_slice(&block_rows.to_le_bytes());
    bytes.extend_from_slice(&(header as u32).to_le_bytes());
    let mut begin = header as u64;
    for column in columns {
        bytes.extend_from_slice(&(column.name.len() as u16).to_le_bytes());
        bytes.extend_from_slice(column.name.as_bytes());
        bytes.extend_from_slice(&column.values.to_le_bytes());
        bytes.push(column.bucket_bits);
        bytes.extend_from_slice(&begin.to_le_bytes());
        for offset in &column.offsets {
            bytes.extend_from_slice(&offset.to_le_bytes());
        }
        begin += column.data.len() as u64;
    }
    let sum = xxhash_rust::xxh3::xxh3_64(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    for column in columns {
        bytes.extend_from_slice(&column.data);
    }
    bytes
}
