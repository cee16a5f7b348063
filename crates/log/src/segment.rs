//! Reading segment files frame by frame.

use crate::disk::{Disk, DiskFile};
use crate::error::LogError;
use crate::format::{
    BadSegmentHeader, END_MARK, FRAME_HEADER_BYTES, FRAME_MAGIC, FrameHeader, FrameKind,
    SEGMENT_HEADER_BYTES, SegmentHeader, VERSION, parse_segment_name, segment_name,
};
use palisade_event::Offset;
use std::path::{Path, PathBuf};

/// Ending of the name of a trimmed file that waits to be used again.
pub(crate) const SPARE: &str = "spare";

/// Files are read in pieces of this size, or of one frame where that is larger.
const READ_BYTES: usize = 1 << 20;

/// The offsets that the segment files of a log begin with, ascending. Other files are left alone.
pub(crate) fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<Offset>, LogError> {
    let names = disk.list(dir).map_err(LogError::io("list", dir))?;
    let mut firsts: Vec<Offset> =
        names.iter().filter_map(|name| parse_segment_name(name)).collect();
    firsts.sort_unstable();
    Ok(firsts)
}

pub(crate) fn path_of(dir: &Path, first: Offset) -> PathBuf {
    dir.join(segment_name(first))
}

/// Where a trimmed segment file waits to be used again.
pub(crate) fn spare_path_of(dir: &Path, first: Offset) -> PathBuf {
    path_of(dir, first).with_extension(SPARE)
}

/// Reads the header of a segment file.
pub(crate) fn read_header(
    file: &dyn DiskFile,
    path: &Path,
) -> Result<Result<SegmentHeader, &'static str>, LogError> {
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    let read = file.read_at(&mut bytes, 0).map_err(LogError::io("read", path))?;
    match SegmentHeader::decode(bytes.get(..read).unwrap_or_default()) {
        Ok(header) => Ok(Ok(header)),
        Err(BadSegmentHeader::Damaged(reason)) => Ok(Err(reason)),
        Err(BadSegmentHeader::Version(version)) => {
            Err(LogError::Version { file: path.to_owned(), version, supported: VERSION })
        }
    }
}

/// Where a scan stands: what the next frame has to continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Continuation {
    /// The byte in the file at which the next frame begins.
    pub(crate) byte: u64,
    /// The offset that the next entry has.
    pub(crate) next: Offset,
    /// The header checksum of the last frame.
    pub(crate) previous: u32,
}

impl Continuation {
    /// The first frame of a segment.
    pub(crate) fn of(header: &SegmentHeader) -> Self {
        Self { byte: SEGMENT_HEADER_BYTES as u64, next: header.first, previous: header.previous }
    }
}

/// Why a [`Step::Blank`] is not accepted where it is damage.
pub(crate) const BLANK: &str = "zeros stand where a frame should begin";

/// What stands at the place of the next frame.
#[derive(Debug)]
pub(crate) enum Step<'a> {
    /// A frame whose checksums are right and which continues the one before.
    Frame {
        header: FrameHeader,
        /// Where it begins.
        byte: u64,
        /// Without padding.
        payload: &'a [u8],
    },
    /// The file, or what may be read of it, ends after the last frame.
    End,
    /// Zeros stand where a frame would begin: the end mark of the newest file, if that was used before
    /// ([`crate::format`]); damage anywhere else. The scanner stays there.
    Blank,
    /// Something else. The scanner stays there.
    Bad(String),
}

/// Reads the frames of one segment file in order, verifying everything.
#[derive(Debug)]
pub(crate) struct FrameScanner {
    file: Box<dyn DiskFile>,
    pub(crate) path: PathBuf,
    log_id: u128,
    at: Continuation,
    limit: u64,
    buffer: Vec<u8>,
    /// The byte of the file at which the buffer begins, and how much of it is filled.
    buffered_at: u64,
    filled: usize,
}

impl FrameScanner {
    /// Scans the bytes from the continuation to `limit`.
    pub(crate) fn new(
        file: Box<dyn DiskFile>,
        path: PathBuf,
        log_id: u128,
        at: Continuation,
        limit: u64,
    ) -> Self {
        Self { file, path, log_id, at, limit, buffer: Vec::new(), buffered_at: 0, filled: 0 }
    }

    /// Allows reading up to this byte, because more of the file became durable.
    pub(crate) fn extend(&mut self, limit: u64) {
        self.limit = self.limit.max(limit);
    }

    /// Where the next frame begins.
    pub(crate) fn position(&self) -> Continuation {
        self.at
    }

    /// Reads the next frame.
    ///
    /// # Errors
    /// Those of the disk only; damage is a [`Step`].
    pub(crate) fn step(&mut self) -> Result<Step<'_>, LogError> {
        let byte = self.at.byte;
        let left = self.limit.saturating_sub(byte);
        if left == 0 {
            return Ok(Step::End);
        }
        if left < FRAME_HEADER_BYTES as u64 {
            return Ok(Step::Bad("the file ends within a frame header".to_owned()));
        }
        let log_id = self.log_id;
        let head = self.bytes(byte, FRAME_HEADER_BYTES)?;
        if head.starts_with(&END_MARK) {
            return Ok(Step::Blank);
        }
        let (header, crc) = match FrameHeader::decode(head, log_id) {
            Ok(read) => read,
            Err(reason) => return Ok(Step::Bad(reason.to_owned())),
        };
        let Continuation { next, previous, .. } = self.at;
        if header.offset != next {
            let reason =
                format!("entry {} stands at the place of entry {}", header.offset.0, next.0);
            return Ok(Step::Bad(reason));
        }
        if header.previous != previous {
            return Ok(Step::Bad("the frame does not continue the one before it".to_owned()));
        }
        if header.durable_end > header.offset {
            return Ok(Step::Bad("the frame claims to be older than itself".to_owned()));
        }
        // Checked against the file before anything is allocated.
        let whole = FRAME_HEADER_BYTES + header.padded();
        if whole as u64 > left {
            return Ok(Step::Bad("the file ends within a frame".to_owned()));
        }
        let stored = self.bytes(byte, whole)?.get(FRAME_HEADER_BYTES..).unwrap_or_default();
        if crc32c::crc32c(stored) != header.payload_crc {
            return Ok(Step::Bad("the checksum of the payload is wrong".to_owned()));
        }
        self.at = Continuation {
            byte: byte + whole as u64,
            next: if header.kind == FrameKind::Schema { next } else { next.next() },
            previous: crc,
        };
        let length = header.length as usize;
        let payload = self.held(byte, whole).get(FRAME_HEADER_BYTES..).unwrap_or_default();
        Ok(Step::Frame { header, byte, payload: payload.get(..length).unwrap_or_default() })
    }

    /// The highest durable end that any intact frame header after the scanner's place carries: a frame that
    /// was written later proves what was durable before (L2).
    pub(crate) fn durable_end_behind(&mut self) -> Result<Offset, LogError> {
        let mut proven = Offset(0);
        let mut byte = self.at.byte + 8;
        while byte + FRAME_HEADER_BYTES as u64 <= self.limit {
            let length = (self.limit - byte).min(READ_BYTES as u64) as usize;
            let (log_id, next) = (self.log_id, self.at.next);
            let bytes = self.bytes(byte, length)?;
            for place in (0..=length - FRAME_HEADER_BYTES).step_by(8) {
                let candidate = bytes.get(place..).unwrap_or_default();
                if candidate.starts_with(FRAME_MAGIC)
                    && let Ok((header, _)) = FrameHeader::decode(candidate, log_id)
                    && header.offset >= next
                {
                    proven = proven.max(header.durable_end);
                }
            }
            byte += (length - FRAME_HEADER_BYTES + 8) as u64 / 8 * 8;
        }
        Ok(proven)
    }

    /// Bytes of the file, read if they are not in the buffer. The range is below the limit.
    fn bytes(&mut self, at: u64, length: usize) -> Result<&[u8], LogError> {
        let held =
            at >= self.buffered_at && at + length as u64 <= self.buffered_at + self.filled as u64;
        if !held {
            let wanted = length.max(READ_BYTES).min(self.limit.saturating_sub(at) as usize);
            if self.buffer.len() < wanted {
                self.buffer.resize(wanted, 0);
            }
            let place = self.buffer.get_mut(..wanted).unwrap_or_default();
            self.filled = self.file.read_at(place, at).map_err(LogError::io("read", &self.path))?;
            self.buffered_at = at;
            if self.filled < length {
                let short = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
                return Err(LogError::io("read", &self.path)(short));
            }
        }
        Ok(self.held(at, length))
    }

    fn held(&self, at: u64, length: usize) -> &[u8] {
        let from = at.saturating_sub(self.buffered_at) as usize;
        self.buffer.get(from..from + length).unwrap_or_default()
    }
}
