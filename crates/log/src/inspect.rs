//! Looking at a log without opening it for writing, for `palisade log inspect` and `palisade log verify`.

use crate::codec::{StoredSchema, decode_entry, raw_length};
use crate::disk::Disk;
use crate::error::LogError;
use crate::format::{Codec, FrameKind, SegmentHeader};
use crate::recovery::{Cut, examine};
use crate::segment::{BLANK, Continuation, FrameScanner, Step, list, path_of, read_header};
use palisade_event::{EntryKind, Offset};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// One segment file, as far as it could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentReport {
    /// The file.
    pub file: PathBuf,
    /// Its length in bytes, to its end mark if it has one.
    pub bytes: u64,
    /// Offset of the first entry, by the file's name.
    pub first: Offset,
    /// One past the last readable entry.
    pub end: Offset,
    /// Frames of records.
    pub frames: u64,
    /// Ticks.
    pub ticks: u64,
    /// Control records.
    pub controls: u64,
    /// Schemas.
    pub schemas: u64,
    /// Bytes of all payloads as stored.
    pub stored_bytes: u64,
    /// Bytes of all payloads before compression.
    pub raw_bytes: u64,
    /// Lowest and highest clock of its entries, µs since the epoch.
    pub clocks: Option<(i64, i64)>,
    /// The byte and the reason at which reading stopped before the end of the file.
    pub problem: Option<(u64, String)>,
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameReport {
    /// The byte of the file at which it begins.
    pub byte: u64,
    /// Offset of the entry.
    pub offset: Offset,
    /// `frame`, `tick`, `control` or `schema`.
    pub kind: &'static str,
    /// Bytes of the payload as stored, without padding.
    pub stored_bytes: u64,
    /// Bytes of the payload before compression.
    pub raw_bytes: u64,
    /// CRC32C of the payload.
    pub checksum: u32,
    /// The durable end known when it was written.
    pub durable_end: Offset,
    /// Its clock, µs since the epoch.
    pub clock: i64,
}

/// What [`verify`] found.
#[derive(Debug)]
pub struct Verification {
    /// The oldest entry kept.
    pub start: Offset,
    /// One past the newest entry.
    pub end: Offset,
    /// One past the newest entry that is proven durable; those after it will be written again at open.
    pub proven: Offset,
    /// Segment files.
    pub segments: usize,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Rows of all frames.
    pub rows: u64,
    /// A torn tail, or the tail of a running process: it holds nothing acknowledged and is cut at open.
    pub tail: Option<Cut>,
}

/// Describes every segment file of a log, oldest first. A file that cannot be read to its end says where and why.
///
/// # Errors
/// [`LogError::Io`] only: damage is in the reports.
pub fn inspect(disk: &dyn Disk, dir: &Path) -> Result<Vec<SegmentReport>, LogError> {
    let mut reports = Vec::new();
    let firsts = list(disk, dir)?;
    let newest = firsts.last().copied();
    for first in firsts {
        let path = path_of(dir, first);
        let mut report = SegmentReport {
            bytes: 0,
            first,
            end: first,
            frames: 0,
            ticks: 0,
            controls: 0,
            schemas: 0,
            stored_bytes: 0,
            raw_bytes: 0,
            clocks: None,
            problem: None,
            file: path.clone(),
        };
        let stop = frames(disk, &path, |frame| {
            match frame.kind {
                "frame" => report.frames += 1,
                "tick" => report.ticks += 1,
                "control" => report.controls += 1,
                _ => report.schemas += 1,
            }
            report.stored_bytes += frame.stored_bytes;
            report.raw_bytes += frame.raw_bytes;
            if frame.kind != "schema" {
                report.end = frame.offset.next();
                let (low, high) = report.clocks.unwrap_or((frame.clock, frame.clock));
                report.clocks = Some((low.min(frame.clock), high.max(frame.clock)));
            }
        });
        match stop {
            Ok(bytes) => report.bytes = bytes,
            Err(LogError::Corrupt { byte, reason, .. })
                if reason == BLANK && Some(first) == newest =>
            {
                report.bytes = byte;
            }
            Err(LogError::Corrupt { byte, reason, .. }) => {
                let file = disk.open(&path, false).map_err(LogError::io("open", &path))?;
                report.bytes = file.len().map_err(LogError::io("read", &path))?;
                if report.bytes == 0 {
                    // Trimmed, only its name is left.
                    continue;
                }
                report.problem = Some((byte, reason));
            }
            Err(LogError::Version { version, .. }) => {
                report.problem = Some((8, format!("format version {version} is not known")));
            }
            Err(error) => return Err(error),
        }
        reports.push(report);
    }
    Ok(reports)
}

/// Calls `each` with every frame of a segment file in order; returns the file's length in bytes.
///
/// # Errors
/// [`LogError::Corrupt`] at the first thing that is no good frame, be it damage, a torn tail or an end mark;
/// [`LogError::Version`]; [`LogError::Io`].
pub fn frames(
    disk: &dyn Disk,
    path: &Path,
    mut each: impl FnMut(&FrameReport),
) -> Result<u64, LogError> {
    let (mut scanner, bytes) = open(disk, path)?;
    loop {
        let at = scanner.position();
        match scanner.step()? {
            Step::Frame { header, byte, payload } => each(&FrameReport {
                byte,
                offset: header.offset,
                kind: header.kind.name(),
                stored_bytes: u64::from(header.length),
                raw_bytes: raw_length(header.codec, payload)? as u64,
                checksum: header.payload_crc,
                durable_end: header.durable_end,
                clock: header.clock,
            }),
            Step::End => return Ok(bytes),
            Step::Blank => return Err(corrupt(path, at, BLANK)),
            Step::Bad(reason) => return Err(corrupt(path, at, &reason)),
        }
    }
}

/// Calls `each` with offset, clock (µs since the epoch), kind and body of every control record of a log, oldest
/// first. A torn tail ends the newest file.
///
/// # Errors
/// [`LogError::Corrupt`] when a control record can't be decoded; [`LogError::Version`]; [`LogError::Io`].
pub fn controls(
    disk: &dyn Disk,
    dir: &Path,
    mut each: impl FnMut(Offset, i64, &str, &str),
) -> Result<(), LogError> {
    for first in list(disk, dir)? {
        let path = path_of(dir, first);
        let (mut scanner, _) = open(disk, &path)?;
        loop {
            let at = scanner.position();
            match scanner.step()? {
                Step::Frame { header, payload, .. } => {
                    let FrameKind::Entry(kind @ EntryKind::Control) = header.kind else { continue };
                    let entry = decode_entry(kind, header.codec, header.clock, payload, |_| None)
                        .map_err(|error| corrupt(&path, at, &error.to_string()))?;
                    if let palisade_event::Entry::Control { clock, kind, body } = entry {
                        each(header.offset, clock, &kind, &body);
                    }
                }
                Step::End | Step::Blank | Step::Bad(_) => break,
            }
        }
    }
    Ok(())
}

/// Verifies a log: every checksum, the order, that no file is missing, and that every entry can be decoded. With
/// `committed`, the catalog's committed position, more of the newest file is known to be durable.
///
/// # Errors
/// [`LogError::Corrupt`] names file and byte of the first problem; [`LogError::PositionOutside`];
/// [`LogError::Version`]; [`LogError::Io`].
pub fn verify(
    disk: &dyn Disk,
    dir: &Path,
    committed: Option<Offset>,
) -> Result<Verification, LogError> {
    let examined = examine(disk, dir, u64::MAX, committed)?;
    let mut found = Verification {
        start: examined.start(),
        end: examined.end(),
        proven: examined.proven(),
        segments: examined.segments.len(),
        bytes: examined.segments.iter().map(|segment| segment.bytes).sum(),
        rows: 0,
        tail: examined.cut().cloned(),
    };
    for segment in &examined.segments {
        let path = path_of(dir, segment.first);
        let (mut scanner, _) = open(disk, &path)?;
        let mut schemas: BTreeMap<u128, StoredSchema> = BTreeMap::new();
        loop {
            let at = scanner.position();
            let wrong = |error: LogError| corrupt(&path, at, &error.to_string());
            match scanner.step()? {
                Step::Frame { header, payload, .. } => match header.kind {
                    FrameKind::Schema => {
                        let (hash, schema) =
                            StoredSchema::decode(header.codec, payload).map_err(wrong)?;
                        schemas.insert(hash, schema);
                    }
                    FrameKind::Entry(kind) => {
                        found.rows += rows(kind, header.codec, payload, &schemas).map_err(wrong)?;
                    }
                },
                // The torn tail of the newest file; everything else was refused above.
                Step::End | Step::Blank | Step::Bad(_) => break,
            }
        }
    }
    Ok(found)
}

fn rows(
    kind: EntryKind,
    codec: Codec,
    payload: &[u8],
    schemas: &BTreeMap<u128, StoredSchema>,
) -> Result<u64, LogError> {
    match decode_entry(kind, codec, 0, payload, |hash| schemas.get(&hash))? {
        palisade_event::Entry::Frame(frame) => Ok(frame.batch.num_rows() as u64),
        _ => Ok(0),
    }
}

fn open(disk: &dyn Disk, path: &Path) -> Result<(FrameScanner, u64), LogError> {
    let file = disk.open(path, false).map_err(LogError::io("open", path))?;
    let bytes = file.len().map_err(LogError::io("read", path))?;
    let nowhere = Continuation { byte: 0, next: Offset(0), previous: 0 };
    let header: SegmentHeader =
        read_header(&*file, path)?.map_err(|reason| corrupt(path, nowhere, reason))?;
    let at = Continuation::of(&header);
    Ok((FrameScanner::new(file, path.to_owned(), header.log_id, at, bytes), bytes))
}

fn corrupt(path: &Path, at: Continuation, reason: &str) -> LogError {
    LogError::Corrupt {
        file: path.to_owned(),
        byte: at.byte,
        offset: at.next,
        reason: reason.to_owned(),
    }
}
