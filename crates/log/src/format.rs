//! The format on disk, version 1.
//!
//! A log is a directory of **segment files**, each named by the offset of its first entry as 20 decimal
//! digits and `.log`. Entries are numbered from 0 without gaps, across files. All numbers are
//! little-endian; frames begin at multiples of 8 bytes.
//!
//! A file begins with a **segment header** of 64 bytes. It is fsynced, and its directory too, before a frame
//! follows; and the file is made only after the file before it was fsynced. So a good header proves
//! that every earlier entry is durable, and a bad header in a file longer than a header is damage.
//!
//! | byte | size | field |
//! |---|---|---|
//! | 0 | 8 | `palislog` |
//! | 8 | 4 | format version, 1 |
//! | 12 | 4 | header checksum of the last frame of the file before, 0 if there is none |
//! | 16 | 8 | offset of the first entry |
//! | 24 | 16 | log id: random, given when the log was made, the same in all its files |
//! | 40 | 8 | highest clock of all entries before, µs since the epoch |
//! | 48 | 12 | zero |
//! | 60 | 4 | CRC32C of bytes 0 to 60 |
//!
//! Then **frames** follow, each a header of 48 bytes and a payload padded with zeros to 8 bytes:
//!
//! | byte | size | field |
//! |---|---|---|
//! | 0 | 4 | `plf1` |
//! | 4 | 1 | kind: 1 frame of records, 2 tick, 3 control record, 16 schema |
//! | 5 | 1 | codec of the payload: 0 as it is, 1 LZ4 block preceded by its raw length (4 bytes) |
//! | 6 | 2 | zero |
//! | 8 | 4 | length of the payload without padding |
//! | 12 | 4 | CRC32C of the payload with padding |
//! | 16 | 8 | offset; a schema has the offset of the entry that it precedes and takes up none |
//! | 24 | 8 | the durable end (exclusive offset) known when the frame was written (L2) |
//! | 32 | 8 | clock of the entry, µs since the epoch |
//! | 40 | 4 | header checksum of the frame before, across files (0 for the log's first) (L2) |
//! | 44 | 4 | header checksum: CRC32C of the log id and bytes 0 to 44 |
//!
//! A trimmed file is kept under another name (`.spare`) and used again: overwriting blocks that a file has already
//! needs no journal of the file system, no new pages and no discarding of old ones. Frames of its earlier life then
//! stand behind the newest frame. They cannot be taken for new ones: their offsets are lower than the file's first.
//! While such bytes are left, each group of frames ends with an **end mark** of 8 zero bytes, which the next group
//! overwrites; a file is cut to its last frame before the next one is made, so only the newest file has a mark.
//!
//! Because the log id is in the checksum, bytes that a sender chooses can never pass for a frame.
//! The payloads are described in [`crate::codec`].

use palisade_event::{EntryKind, Offset};

/// The version that this release writes and reads.
pub const VERSION: u32 = 1;
/// The size of a segment header.
pub const SEGMENT_HEADER_BYTES: usize = 64;
/// The size of a frame header.
pub const FRAME_HEADER_BYTES: usize = 48;
/// The largest payload of a frame, stored or raw.
pub const MAX_PAYLOAD_BYTES: usize = 1 << 30;

const SEGMENT_MAGIC: &[u8; 8] = b"palislog";
pub(crate) const FRAME_MAGIC: &[u8; 4] = b"plf1";
/// Follows the newest frame in a file that is used again.
pub(crate) const END_MARK: [u8; 8] = [0; 8];

/// What a frame in a segment file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// An entry of the log.
    Entry(EntryKind),
    /// An Arrow schema that later frames of the same file name by hash (L1).
    Schema,
}

impl FrameKind {
    /// The number on disk.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Entry(kind) => kind as u8,
            Self::Schema => 16,
        }
    }

    fn of(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Entry(EntryKind::Frame),
            2 => Self::Entry(EntryKind::Tick),
            3 => Self::Entry(EntryKind::Control),
            16 => Self::Schema,
            _ => return None,
        })
    }

    /// The lower-case name, for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Entry(EntryKind::Frame) => "frame",
            Self::Entry(EntryKind::Tick) => "tick",
            Self::Entry(EntryKind::Control) => "control",
            Self::Schema => "schema",
        }
    }
}

/// How a payload is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    /// As it is.
    Raw = 0,
    /// One LZ4 block.
    Lz4 = 1,
}

impl Codec {
    fn of(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Raw),
            1 => Some(Self::Lz4),
            _ => None,
        }
    }
}

/// The head of a segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Header checksum of the last frame of the file before.
    pub previous: u32,
    /// Offset of the first entry.
    pub first: Offset,
    /// Which log the file belongs to.
    pub log_id: u128,
    /// Highest clock of all entries before.
    pub clock: i64,
}

/// Why a segment header is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadSegmentHeader {
    /// It is shorter than a header, or its magic or checksum is wrong.
    Damaged(&'static str),
    /// It is intact, but of another version.
    Version(u32),
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut out = Fields::<SEGMENT_HEADER_BYTES>::new();
        out.put(SEGMENT_MAGIC);
        out.put(&VERSION.to_le_bytes());
        out.put(&self.previous.to_le_bytes());
        out.put(&self.first.0.to_le_bytes());
        out.put(&self.log_id.to_le_bytes());
        out.put(&self.clock.to_le_bytes());
        out.put(&[0; 12]);
        let crc = crc32c::crc32c(out.written());
        out.put(&crc.to_le_bytes());
        out.bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BadSegmentHeader> {
        use BadSegmentHeader::{Damaged, Version};
        let mut input = Input(
            bytes
                .get(..SEGMENT_HEADER_BYTES)
                .ok_or(Damaged("the file is shorter than its header"))?,
        );
        let checked = input.0.get(..SEGMENT_HEADER_BYTES - 4).unwrap_or_default();
        let (magic, version) = (input.array::<8>(), input.u32());
        let header = Self {
            previous: input.u32(),
            first: Offset(input.u64()),
            log_id: u128::from_le_bytes(input.array()),
            clock: input.u64() as i64,
        };
        let _zero = input.array::<12>();
        if &magic != SEGMENT_MAGIC {
            return Err(Damaged("the file does not begin with a segment header"));
        }
        if crc32c::crc32c(checked) != input.u32() {
            return Err(Damaged("the checksum of the segment header is wrong"));
        }
        if version != VERSION {
            return Err(Version(version));
        }
        Ok(header)
    }
}

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// What it is.
    pub kind: FrameKind,
    /// How its payload is stored.
    pub codec: Codec,
    /// Bytes of the payload without padding.
    pub length: u32,
    /// CRC32C of the payload with padding.
    pub payload_crc: u32,
    /// The entry's offset.
    pub offset: Offset,
    /// The durable end known when it was written (L2).
    pub durable_end: Offset,
    /// The entry's clock, µs since the epoch.
    pub clock: i64,
    /// Header checksum of the frame before.
    pub previous: u32,
}

impl FrameHeader {
    /// The bytes of the header, and its checksum, which the next frame carries.
    pub(crate) fn encode(&self, log_id: u128) -> ([u8; FRAME_HEADER_BYTES], u32) {
        let mut out = Fields::<FRAME_HEADER_BYTES>::new();
        out.put(FRAME_MAGIC);
        out.put(&[self.kind.number(), self.codec as u8, 0, 0]);
        out.put(&self.length.to_le_bytes());
        out.put(&self.payload_crc.to_le_bytes());
        out.put(&self.offset.0.to_le_bytes());
        out.put(&self.durable_end.0.to_le_bytes());
        out.put(&self.clock.to_le_bytes());
        out.put(&self.previous.to_le_bytes());
        let crc = header_crc(log_id, out.written());
        out.put(&crc.to_le_bytes());
        (out.bytes, crc)
    }

    /// The header and its checksum, or what is wrong with it.
    pub(crate) fn decode(bytes: &[u8], log_id: u128) -> Result<(Self, u32), &'static str> {
        let bytes = bytes.get(..FRAME_HEADER_BYTES).ok_or("the file ends within a frame header")?;
        let mut input = Input(bytes);
        if &input.array::<4>() != FRAME_MAGIC {
            return Err("no frame begins here");
        }
        let [kind, codec, zero, zero2] = input.array::<4>();
        let (length, payload_crc) = (input.u32(), input.u32());
        let (offset, durable_end) = (Offset(input.u64()), Offset(input.u64()));
        let (clock, previous, crc) = (input.u64() as i64, input.u32(), input.u32());
        let checked = bytes.get(..FRAME_HEADER_BYTES - 4).unwrap_or_default();
        if header_crc(log_id, checked) != crc {
            return Err("the checksum of the frame header is wrong");
        }
        let kind = FrameKind::of(kind).ok_or("the kind of the frame is unknown")?;
        let codec = Codec::of(codec).ok_or("the codec of the frame is unknown")?;
        if zero != 0 || zero2 != 0 || length as usize > MAX_PAYLOAD_BYTES {
            return Err("the frame header is out of range");
        }
        let header =
            Self { kind, codec, length, payload_crc, offset, durable_end, clock, previous };
        Ok((header, crc))
    }

    /// Bytes of the payload on disk, with padding.
    #[must_use]
    pub fn padded(&self) -> usize {
        padded(self.length as usize)
    }
}

/// A length rounded up to the next multiple of 8.
pub(crate) fn padded(length: usize) -> usize {
    length.next_multiple_of(8)
}

fn header_crc(log_id: u128, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&log_id.to_le_bytes()), bytes)
}

/// The name of the segment file that begins with this offset.
#[must_use]
pub fn segment_name(first: Offset) -> String {
    format!("{:020}.log", first.0)
}

/// The first offset of the segment file of this name; `None` if it is no segment file.
#[must_use]
pub fn parse_segment_name(name: &str) -> Option<Offset> {
    let digits = name.strip_suffix(".log")?;
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit()))
        .then(|| digits.parse().ok().map(Offset))?
}

/// A fixed number of bytes, filled field by field.
struct Fields<const N: usize> {
    bytes: [u8; N],
    at: usize,
}

impl<const N: usize> Fields<N> {
    fn new() -> Self {
        Self { bytes: [0; N], at: 0 }
    }

    fn put(&mut self, field: &[u8]) {
        let end = self.at + field.len();
        if let Some(place) = self.bytes.get_mut(self.at..end) {
            place.copy_from_slice(field);
        }
        self.at = end;
    }

    fn written(&self) -> &[u8] {
        self.bytes.get(..self.at).unwrap_or_default()
    }
}

/// Fields read from bytes whose length was checked before; past the end they read as zero.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn array<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk::<N>() {
            Some((field, rest)) => {
                self.0 = rest;
                *field
            }
            None => [0; N],
        }
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> FrameHeader {
        FrameHeader {
            kind: FrameKind::Entry(EntryKind::Tick),
            codec: Codec::Lz4,
            length: 13,
            payload_crc: 7,
            offset: Offset(3),
            durable_end: Offset(2),
            clock: -5,
            previous: 9,
        }
    }

    #[test]
    fn headers_are_read_as_written() {
        let segment = SegmentHeader { previous: 1, first: Offset(2), log_id: 3, clock: -4 };
        assert_eq!(SegmentHeader::decode(&segment.encode()), Ok(segment));
        let (bytes, crc) = frame().encode(77);
        assert_eq!(FrameHeader::decode(&bytes, 77), Ok((frame(), crc)));
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_seen() {
        let segment =
            SegmentHeader { previous: 1, first: Offset(2), log_id: 3, clock: -4 }.encode();
        for bit in 0..segment.len() * 8 {
            let mut bytes = segment;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&bytes).is_err(), "bit {bit}");
        }
        let (frame, _) = frame().encode(77);
        for bit in 0..frame.len() * 8 {
            let mut bytes = frame;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(FrameHeader::decode(&bytes, 77).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_frame_of_another_log_is_no_frame() {
        let (bytes, _) = frame().encode(77);
        assert!(FrameHeader::decode(&bytes, 78).is_err());
    }

    #[test]
    fn names_of_segments() {
        assert_eq!(segment_name(Offset(42)), "00000000000000000042.log");
        assert_eq!(parse_segment_name("00000000000000000042.log"), Some(Offset(42)));
        for other in ["42.log", "0000000000000000004x.log", "99999999999999999999.log", "lock"] {
            assert_eq!(parse_segment_name(other), None, "{other}");
        }
    }
}
