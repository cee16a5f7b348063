//! Reading the log in order.

use crate::codec::{StoredSchema, decode_entry, decode_requests};
use crate::error::LogError;
use crate::format::{Codec, FrameKind, SEGMENT_HEADER_BYTES};
use crate::log::Shared;
use crate::recovery::Segment;
use crate::segment::{BLANK, Continuation, FrameScanner, Step, path_of, read_header};
use palisade_event::{Entry, EntryKind, Offset, RequestEntry};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

type Schemas = BTreeMap<u128, Arc<StoredSchema>>;

/// Gives the entries of a log in offset order, up to the durable end (L2). Made by [`crate::Log::read`].
/// After an error it ends.
pub struct LogReader {
    shared: Arc<Shared>,
    next: Offset,
    /// The durable end when it was looked up last.
    end: Offset,
    current: Option<FrameScanner>,
    /// Schemas of the current file.
    schemas: Arc<Schemas>,
    failed: bool,
}

impl std::fmt::Debug for LogReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogReader").field("next", &self.next).finish_non_exhaustive()
    }
}

/// An entry whose checksums were verified but which is not decoded yet, so that decoding can be done on
/// another thread.
#[derive(Debug, Clone)]
pub struct StoredEntry {
    /// Its offset.
    pub offset: Offset,
    /// Its kind.
    pub kind: EntryKind,
    /// Its clock, µs since the epoch.
    pub clock: i64,
    codec: Codec,
    payload: Vec<u8>,
    schemas: Arc<Schemas>,
    file: PathBuf,
    byte: u64,
}

impl StoredEntry {
    /// Decodes the entry.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] when it cannot be decoded, which the checksums make unlikely.
    pub fn decode(&self) -> Result<Entry, LogError> {
        let schema = |hash| self.schemas.get(&hash).map(Arc::as_ref);
        decode_entry(self.kind, self.codec, self.clock, &self.payload, schema)
            .map_err(|error| self.corrupt(&error))
    }

    /// The keyed requests of the entry, without its rows: what a gateway has to know before it may
    /// take a request (L4).
    ///
    /// # Errors
    /// As [`StoredEntry::decode`].
    pub fn requests(&self) -> Result<Vec<RequestEntry>, LogError> {
        decode_requests(self.kind, self.codec, &self.payload).map_err(|error| self.corrupt(&error))
    }

    fn corrupt(&self, error: &LogError) -> LogError {
        LogError::Corrupt {
            file: self.file.clone(),
            byte: self.byte,
            offset: self.offset,
            reason: error.to_string(),
        }
    }

    /// Bytes that the entry takes up in the log, without its header.
    #[must_use]
    pub fn stored_bytes(&self) -> usize {
        self.payload.len()
    }
}

impl LogReader {
    pub(crate) fn new(shared: Arc<Shared>, from: Offset) -> Self {
        Self {
            shared,
            next: from,
            end: Offset(0),
            current: None,
            schemas: Arc::default(),
            failed: false,
        }
    }

    /// The offset of the entry that comes next.
    #[must_use]
    pub fn position(&self) -> Offset {
        self.next
    }

    /// The next entry, not decoded; `None` at the durable end.
    pub fn next_stored(&mut self) -> Option<Result<StoredEntry, LogError>> {
        if self.failed {
            return None;
        }
        let result = self.advance().map_err(|error| self.or_trimmed(error)).transpose();
        self.failed = matches!(result, Some(Err(_)));
        result
    }

    /// Files are emptied or used again when they are trimmed, so what reads them then fails in one way or another:
    /// the offsets, chained checksums and lengths of another life do not fit.
    fn or_trimmed(&self, error: LogError) -> LogError {
        let start = self.shared.start();
        if self.next < start { LogError::Trimmed { from: self.next, start } } else { error }
    }

    fn advance(&mut self) -> Result<Option<StoredEntry>, LogError> {
        loop {
            if self.next >= self.end {
                self.end = self.shared.state.lock().durable_end;
                if self.next >= self.end {
                    return Ok(None);
                }
            }
            let mut scanner = match self.current.take() {
                Some(scanner) => scanner,
                None => self.open()?,
            };
            let (path, before) = (scanner.path.clone(), scanner.position());
            match scanner.step()? {
                Step::Frame { header, byte, payload } => {
                    let FrameKind::Entry(kind) = header.kind else {
                        let (hash, schema) = StoredSchema::decode(header.codec, payload)
                            .map_err(|error| corrupt(path, before, &error.to_string()))?;
                        Arc::make_mut(&mut self.schemas).insert(hash, Arc::new(schema));
                        self.current = Some(scanner);
                        continue;
                    };
                    if header.offset < self.next {
                        self.current = Some(scanner);
                        continue;
                    }
                    let entry = StoredEntry {
                        offset: header.offset,
                        kind,
                        clock: header.clock,
                        codec: header.codec,
                        payload: payload.to_vec(),
                        schemas: Arc::clone(&self.schemas),
                        file: path,
                        byte,
                    };
                    self.next = header.offset.next();
                    self.current = Some(scanner);
                    return Ok(Some(entry));
                }
                Step::Bad(reason) => return Err(corrupt(path, before, &reason)),
                Step::Blank => return Err(corrupt(path, before, BLANK)),
                Step::End => {
                    let segment = self.segment()?;
                    if path_of(&self.shared.dir, segment.first) != path {
                        // The next entry stands in the next file.
                        continue;
                    }
                    if segment.bytes <= before.byte {
                        let reason = "the file ends before entries that were durable";
                        return Err(corrupt(path, before, reason));
                    }
                    scanner.extend(segment.bytes);
                    self.current = Some(scanner);
                }
            }
        }
    }

    /// The file that holds the next entry.
    fn segment(&self) -> Result<Segment, LogError> {
        let state = self.shared.state.lock();
        let after = state.segments.partition_point(|segment| segment.first <= self.next);
        match after.checked_sub(1).and_then(|at| state.segments.get(at)) {
            Some(segment) => Ok(*segment),
            None => {
                let start = state.segments.front().map_or(Offset(0), |segment| segment.first);
                Err(LogError::Trimmed { from: self.next, start })
            }
        }
    }

    fn open(&mut self) -> Result<FrameScanner, LogError> {
        let segment = self.segment()?;
        let path = path_of(&self.shared.dir, segment.first);
        let file = self.shared.disk.open(&path, false).map_err(LogError::io("open", &path))?;
        let header = read_header(&*file, &path)?;
        let start = Continuation { byte: 0, next: segment.first, previous: 0 };
        let header = header.map_err(|reason| corrupt(path.clone(), start, reason))?;
        if header.first != segment.first || header.log_id != self.shared.log_id {
            let reason = "the file belongs to another log or another place";
            return Err(corrupt(path, start, reason));
        }
        self.schemas = Arc::default();
        debug_assert!(segment.bytes >= SEGMENT_HEADER_BYTES as u64);
        let at = Continuation::of(&header);
        Ok(FrameScanner::new(file, path, self.shared.log_id, at, segment.bytes))
    }
}

fn corrupt(file: PathBuf, at: Continuation, reason: &str) -> LogError {
    LogError::Corrupt { file, byte: at.byte, offset: at.next, reason: reason.to_owned() }
}

impl Iterator for LogReader {
    type Item = Result<(Offset, Entry), LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.next_stored()?;
        let result = entry.and_then(|stored| Ok((stored.offset, stored.decode()?)));
        self.failed |= result.is_err();
        Some(result)
    }
}
