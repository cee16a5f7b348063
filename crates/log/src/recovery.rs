//! Opening a log: finding its end, cutting a torn tail, refusing damage (L2).
//!
//! What is proven durable: entries below the durable end that a later frame carries, entries of all files
//! but the newest (a file is made only after the one before was fsynced), and entries below the catalog's committed
//! position. The first bad frame before that end is damage, and nothing is changed on disk. A bad frame
//! after it is the trace of a crash: it and all after it are cut off, and the cut is fsynced before anything is
//! appended, or else a frame behind the cut could come back after the next crash. What is left beyond the
//! proven end is written again and fsynced, because a page cache that survived a failed fsync shows data that is
//! not on the disk. The same holds for the names in the directory: a file in which nothing is proven is
//! copied and renamed, and a trimmed file is emptied first, so that it is known if its name comes back, or is
//! kept to be used again, which happens only when its old name is durably gone.
//!
//! [`examine`] decides and changes nothing, so `palisade log verify` says what opening would do.

use crate::disk::{Disk, DiskFile};
use crate::error::LogError;
use crate::format::{END_MARK, FrameKind, SEGMENT_HEADER_BYTES, SegmentHeader, parse_segment_name};
use crate::segment::{BLANK, Continuation, FrameScanner, SPARE, Step, list, path_of, read_header};
use palisade_event::Offset;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

/// Ending of the name of a file that is written again and then renamed over the one it replaces.
const REWRITTEN: &str = "rewritten";

/// What opening a log found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// The oldest entry kept.
    pub start: Offset,
    /// One past the newest entry.
    pub end: Offset,
    /// The end that was proven durable before anything was written again.
    pub proven: Offset,
    /// Whether the log was made just now.
    pub created: bool,
    /// The torn tail that was cut off, if there was one.
    pub cut: Option<Cut>,
    /// Bytes beyond the proven end that were written and fsynced again.
    pub rewritten_bytes: u64,
    /// Highest clock of all entries, µs since the epoch; `i64::MIN` if none was ever written.
    pub clock: i64,
}

/// A tail that holds nothing that was acknowledged: cut off at open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The segment file.
    pub file: PathBuf,
    /// Where its last good frame ends.
    pub byte: u64,
    /// How many bytes follow.
    pub bytes: u64,
    /// Why the frame there was not accepted.
    pub reason: String,
}

/// A segment file that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) first: Offset,
    pub(crate) bytes: u64,
    /// Highest clock of its entries and all before.
    pub(crate) clock: i64,
}

/// What stands on disk, and what opening would do with it.
#[derive(Debug, Default)]
pub(crate) struct Examined {
    /// Files that hold nothing: trimmed ones whose names came back, and those that the process died while
    /// making.
    leftovers: Vec<PathBuf>,
    /// All files, oldest first.
    pub(crate) segments: VecDeque<Segment>,
    /// The newest file; none in an empty directory.
    newest: Option<Newest>,
}

#[derive(Debug)]
struct Newest {
    header: SegmentHeader,
    path: PathBuf,
    end: Continuation,
    clock: i64,
    proven: Offset,
    /// Where rewriting begins; `None` when all is proven.
    unproven_from: Option<u64>,
    cut: Option<Cut>,
}

impl Examined {
    pub(crate) fn start(&self) -> Offset {
        self.segments.front().map_or(Offset(0), |segment| segment.first)
    }

    pub(crate) fn end(&self) -> Offset {
        self.newest.as_ref().map_or(Offset(0), |newest| newest.end.next)
    }

    pub(crate) fn cut(&self) -> Option<&Cut> {
        self.newest.as_ref()?.cut.as_ref()
    }

    pub(crate) fn proven(&self) -> Offset {
        self.newest.as_ref().map_or(Offset(0), |newest| newest.proven)
    }
}

/// What the writer goes on from.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) log_id: u128,
    pub(crate) segments: VecDeque<Segment>,
    /// The newest file, open for writing.
    pub(crate) file: Box<dyn DiskFile>,
    pub(crate) end: Continuation,
    pub(crate) report: Recovery,
}

/// Reads a log and decides, changing nothing. The newest `checked_bytes` are verified whole, older files by
/// their headers only; those are verified when they are read.
///
/// # Errors
/// [`LogError::Corrupt`], [`LogError::Version`], [`LogError::PositionOutside`]; [`LogError::Io`].
pub(crate) fn examine(
    disk: &dyn Disk,
    dir: &Path,
    checked_bytes: u64,
    committed: Option<Offset>,
) -> Result<Examined, LogError> {
    let (headers, leftovers) = read_headers(disk, dir)?;
    let mut examined = Examined { leftovers, ..Examined::default() };
    if let Some((header, length)) = headers.last() {
        let newest = examine_newest(disk, dir, header, *length, committed)?;
        examined.segments.push_front(Segment {
            first: header.first,
            bytes: newest.end.byte,
            clock: newest.clock,
        });
        examined.newest = Some(newest);
    }
    let mut checked = 0;
    for pair in headers.windows(2).rev() {
        let [(header, length), (next, _)] = pair else { continue };
        checked += length;
        if checked <= checked_bytes {
            check_whole(disk, dir, header, next, *length)?;
        }
        let segment = Segment { first: header.first, bytes: *length, clock: next.clock };
        examined.segments.push_front(segment);
    }
    let (start, end) = (examined.start(), examined.end());
    match committed {
        Some(position) if position < start || position > end => {
            Err(LogError::PositionOutside { position, start, end })
        }
        _ => Ok(examined),
    }
}

/// Opens a log for appending: examines it, cuts, writes again, fsyncs.
pub(crate) fn recover(
    disk: &dyn Disk,
    dir: &Path,
    new_log_id: u128,
    checked_bytes: u64,
    committed: Option<Offset>,
) -> Result<Recovered, LogError> {
    disk.create_dir_all(dir).map_err(LogError::io("make", dir))?;
    let examined = examine(disk, dir, checked_bytes, committed)?;
    for path in &examined.leftovers {
        clear_away(disk, path).map_err(LogError::io("remove", path))?;
    }
    let (start, end) = (examined.start(), examined.end());
    let Some(newest) = examined.newest else {
        return create_log(disk, dir, new_log_id);
    };
    let path = &newest.path;
    let mut file = disk.open(path, true).map_err(LogError::io("open", path))?;
    if newest.cut.is_some() || newest.unproven_from != Some(0) {
        // The length is set anew even where nothing is cut: a cut whose fsync failed looks done in the cache.
        file.truncate(newest.end.byte + 1)
            .and_then(|()| file.truncate(newest.end.byte))
            .map_err(LogError::io("cut", path))?;
        file.sync().map_err(LogError::io("fsync", path))?;
    }
    let mut rewritten_bytes = 0;
    if let Some(from) = newest.unproven_from {
        rewritten_bytes = newest.end.byte - from;
        // When nothing in the file is proven, its name is not either: the new name makes a new directory entry.
        let new = (from == 0).then(|| path.with_extension(REWRITTEN));
        if let Some(new) = &new {
            let copy = disk.create(new).map_err(LogError::io("make", new))?;
            copy_bytes(&*file, &*copy, from, newest.end.byte)
                .map_err(LogError::io("rewrite", new))?;
            file = copy;
        } else {
            copy_bytes(&*file, &*file, from, newest.end.byte)
                .map_err(LogError::io("rewrite", path))?;
        }
        file.sync().map_err(LogError::io("fsync", path))?;
        if let Some(new) = &new {
            disk.rename(new, path).map_err(LogError::io("rename", new))?;
        }
    }
    disk.sync_dir(dir).map_err(LogError::io("fsync", dir))?;
    let report = Recovery {
        start,
        end,
        proven: newest.proven,
        created: false,
        cut: newest.cut,
        rewritten_bytes,
        clock: newest.clock,
    };
    let log_id = newest.header.log_id;
    Ok(Recovered { log_id, segments: examined.segments, file, end: newest.end, report })
}

/// Empties a file and removes it: what its inode was named before may come back, and is then seen to hold nothing.
pub(crate) fn clear_away(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    let file = disk.open(path, true)?;
    file.truncate(0)?;
    file.sync()?;
    disk.remove(path)
}

fn create_log(disk: &dyn Disk, dir: &Path, log_id: u128) -> Result<Recovered, LogError> {
    let header = SegmentHeader { previous: 0, first: Offset(0), log_id, clock: i64::MIN };
    let file = create_segment(disk, dir, &header)
        .map_err(LogError::io("make", &path_of(dir, header.first)))?;
    let bytes = SEGMENT_HEADER_BYTES as u64;
    Ok(Recovered {
        log_id,
        segments: VecDeque::from([Segment { first: header.first, bytes, clock: header.clock }]),
        file,
        end: Continuation::of(&header),
        report: Recovery {
            start: header.first,
            end: header.first,
            proven: header.first,
            created: true,
            cut: None,
            rewritten_bytes: 0,
            clock: header.clock,
        },
    })
}

/// Makes a segment file with its header, durable before it is returned (L3: files, then directories).
pub(crate) fn create_segment(
    disk: &dyn Disk,
    dir: &Path,
    header: &SegmentHeader,
) -> io::Result<Box<dyn DiskFile>> {
    let file = disk.create(&path_of(dir, header.first))?;
    file.write_all_at(&mut [IoSlice::new(&header.encode())], 0)?;
    file.sync()?;
    disk.sync_dir(dir)?;
    Ok(file)
}

/// As [`create_segment`], with a trimmed file that was put aside. The file under its old name is durably gone, so
/// overwriting it takes nothing from the log; and it has its new name only when its new header is durable.
pub(crate) fn reuse_segment(
    disk: &dyn Disk,
    dir: &Path,
    spare: &Path,
    header: &SegmentHeader,
) -> io::Result<Box<dyn DiskFile>> {
    let file = disk.open(spare, true)?;
    file.write_all_at(&mut [IoSlice::new(&header.encode()), IoSlice::new(&END_MARK)], 0)?;
    file.sync()?;
    disk.rename(spare, &path_of(dir, header.first))?;
    disk.sync_dir(dir)?;
    Ok(file)
}

type Headers = Vec<(SegmentHeader, u64)>;

/// The header and length of every file, and the files that hold nothing.
///
/// A header is fsynced before a frame follows it, so a file that is no longer than a header and has no good
/// one was never finished; a trimmed file is emptied before its name is removed. Such names can come back when
/// the fsync of a directory failed. Whether a file is missing is seen from the offsets of the others.
fn read_headers(disk: &dyn Disk, dir: &Path) -> Result<(Headers, Vec<PathBuf>), LogError> {
    let (mut headers, mut leftovers) = (Headers::new(), Vec::new());
    let names = disk.list(dir).map_err(LogError::io("list", dir))?;
    let unfinished = names.iter().filter(|name| {
        name.strip_suffix(REWRITTEN)
            .or_else(|| name.strip_suffix(SPARE))
            .and_then(|stem| stem.strip_suffix('.'))
            .is_some_and(|stem| parse_segment_name(&format!("{stem}.log")).is_some())
    });
    leftovers.extend(unfinished.map(|name| dir.join(name)));
    let mut last_empty = None;
    for first in list(disk, dir)? {
        let path = path_of(dir, first);
        let file = disk.open(&path, false).map_err(LogError::io("open", &path))?;
        let length = file.len().map_err(LogError::io("read", &path))?;
        let damaged = |reason: &str| LogError::Corrupt {
            file: path.clone(),
            byte: 0,
            offset: first,
            reason: reason.to_owned(),
        };
        match read_header(&*file, &path)? {
            Ok(header) if header.first != first => {
                return Err(damaged(
                    "the file's name and its header disagree about its first entry",
                ));
            }
            Ok(header) => {
                if headers.last().is_some_and(|(last, _)| last.log_id != header.log_id) {
                    return Err(damaged("the file belongs to another log"));
                }
                headers.push((header, length));
            }
            Err(_) if length <= SEGMENT_HEADER_BYTES as u64 => {
                last_empty = Some(first);
                leftovers.push(path);
            }
            Err(reason) => return Err(damaged(reason)),
        }
    }
    match last_empty {
        // A log that is just being made has one file, which begins with entry 0.
        Some(first) if headers.is_empty() && first.0 > 0 => Err(LogError::Corrupt {
            file: path_of(dir, first),
            byte: 0,
            offset: first,
            reason: "the log's only file has no header".to_owned(),
        }),
        _ => Ok((headers, leftovers)),
    }
}

/// Verifies a file that has a successor: all of it is proven durable.
fn check_whole(
    disk: &dyn Disk,
    dir: &Path,
    header: &SegmentHeader,
    next: &SegmentHeader,
    length: u64,
) -> Result<(), LogError> {
    let path = path_of(dir, header.first);
    let mut scanner = scanner(disk, &path, header, length)?;
    let reason = loop {
        match scanner.step()? {
            Step::Frame { .. } => {}
            Step::Bad(reason) => break Some(reason),
            Step::Blank => break Some(BLANK.to_owned()),
            Step::End => break None,
        }
    };
    let end = scanner.position();
    let reason = match reason {
        None if end.next != next.first => Some(format!(
            "the file ends before entry {}, the next file begins with entry {}",
            end.next.0, next.first.0
        )),
        None if end.previous != next.previous => {
            Some("the next file does not continue this one".to_owned())
        }
        other => other,
    };
    match reason {
        None => Ok(()),
        Some(reason) => {
            Err(LogError::Corrupt { file: path, byte: end.byte, offset: end.next, reason })
        }
    }
}

fn examine_newest(
    disk: &dyn Disk,
    dir: &Path,
    header: &SegmentHeader,
    length: u64,
    committed: Option<Offset>,
) -> Result<Newest, LogError> {
    let path = path_of(dir, header.first);
    let mut scanner = scanner(disk, &path, header, length)?;
    let mut clock = header.clock;
    let mut proven = header.first.max(committed.unwrap_or_default());
    // Where each frame begins that is not proven by a later one.
    let mut unproven: VecDeque<(Offset, u64)> = VecDeque::new();
    let (bad, marked) = loop {
        match scanner.step()? {
            Step::Frame { header, byte, .. } => {
                if header.kind != FrameKind::Schema {
                    clock = clock.max(header.clock);
                }
                proven = proven.max(header.durable_end);
                unproven.push_back((header.offset, byte));
                while unproven.front().is_some_and(|(offset, _)| *offset < proven) {
                    unproven.pop_front();
                }
            }
            Step::Bad(reason) => break (Some(reason), false),
            Step::Blank => break (Some(BLANK.to_owned()), true),
            Step::End => break (None, false),
        }
    };
    let end = scanner.position();
    let cut = match bad {
        None => None,
        Some(reason) => {
            proven = proven.max(scanner.durable_end_behind()?);
            if proven > end.next {
                let (byte, offset) = (end.byte, end.next);
                return Err(LogError::Corrupt { file: path, byte, offset, reason });
            }
            let bytes = length - end.byte;
            (!marked).then(|| Cut { file: path.clone(), byte: end.byte, bytes, reason })
        }
    };
    // When nothing in the file is proven, its header is not either.
    let unproven_from = if proven <= header.first {
        Some(0)
    } else {
        unproven.into_iter().find(|(offset, _)| *offset >= proven).map(|(_, byte)| byte)
    };
    let proven = proven.min(end.next);
    Ok(Newest { header: *header, path, end, clock, proven, unproven_from, cut })
}

fn scanner(
    disk: &dyn Disk,
    path: &Path,
    header: &SegmentHeader,
    length: u64,
) -> Result<FrameScanner, LogError> {
    let file = disk.open(path, false).map_err(LogError::io("open", path))?;
    let at = Continuation::of(header);
    Ok(FrameScanner::new(file, path.to_owned(), header.log_id, at, length))
}

/// Copies a range of bytes to the same place, of the same file or another.
fn copy_bytes(source: &dyn DiskFile, target: &dyn DiskFile, from: u64, to: u64) -> io::Result<()> {
    let mut buffer = vec![0; (to - from).min(1 << 20) as usize];
    let mut at = from;
    while at < to {
        let length = (to - at).min(buffer.len() as u64) as usize;
        let piece = buffer.get_mut(..length).unwrap_or_default();
        if source.read_at(piece, at)? < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        target.write_all_at(&mut [IoSlice::new(piece)], at)?;
        at += length as u64;
    }
    Ok(())
}
