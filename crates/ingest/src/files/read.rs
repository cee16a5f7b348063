//! Reading a file into bodies of a few MiB, on a blocking thread.

use super::recognise::{BOM, Format, HEAD, Packing, packing, recognise};
use super::split::{Piece, Splitter};
use super::walk::PlannedFile;
use crate::lines::LineCutter;
use crate::submit::Body;
use crate::syslog::{self, Context};
use bytes::{Bytes, BytesMut};
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use xxhash_rust::xxh3::Xxh3;

/// How many layers of compression are opened.
const MAX_LAYERS: usize = 2;
/// A file may unpack to so many times its size, but to `FREE` bytes in any case.
const MAX_RATIO: u64 = 5000;
const FREE: u64 = 1 << 30;
/// A zstd window may be 128 MiB, as `zstd --long` makes it.
const ZSTD_WINDOW_LOG: u32 = 27;
/// How much is read at a time.
const READ: usize = 256 * 1024;

/// One part of a file.
#[derive(Debug)]
pub(super) struct Chunk {
    /// Its records.
    pub(super) body: Body,
    /// `file:<hash of all bytes up to its end>:<its number>`.
    pub(super) key: String,
}

/// What a file gave, in its order.
#[derive(Debug)]
pub(super) enum Event {
    /// It was recognised.
    Format(Format),
    /// A part of it.
    Chunk(Chunk),
    /// Records that were refused before the gateway saw them: how many, and why.
    Refused(u64, String),
    /// Nothing of it, or no more of it, is loaded.
    Skipped(String),
}

struct Counting<R> {
    inner: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(out)?;
        self.count.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

type Source = Box<dyn Read>;

/// Reads at least `HEAD` bytes, or all there are.
fn head(source: &mut Source) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(HEAD);
    source.by_ref().take(HEAD as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// Opens compressed layers; gives the first bytes and a source that still has them.
fn unpack(file: &PlannedFile, count: &Arc<AtomicU64>) -> io::Result<(Vec<u8>, Source, bool)> {
    let inner =
        Counting { inner: File::open(&file.path)?.take(file.bytes), count: Arc::clone(count) };
    let mut source: Source = Box::new(inner);
    let mut packed = false;
    for layer in 0.. {
        let first = head(&mut source)?;
        let whole: Source = Box::new(Cursor::new(first.clone()).chain(source));
        let kind = if layer < MAX_LAYERS { packing(&first) } else { Packing::None };
        source = match kind {
            Packing::None => return Ok((first, whole, packed)),
            Packing::Gzip => Box::new(flate2::read::MultiGzDecoder::new(whole)),
            Packing::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::new(whole)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Box::new(decoder)
            }
        };
        packed = true;
    }
    Err(io::Error::other("too many layers of compression"))
}

/// Reads until the block is full or the source ends, so parts end at the same places every time.
fn fill(source: &mut Source, block: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(room) = block.get_mut(filled..).filter(|room| !room.is_empty()) {
        match source.read(room) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // What came before the error is still handed on; the next call meets it again.
            Err(error) if filled == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(filled)
}

/// Bounds of reading.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) chunk: usize,
    pub(super) record: usize,
}

/// Reads a file and hands over its parts; stops when `emit` returns false.
pub(super) fn read(
    file: &PlannedFile,
    context: &Context,
    bounds: Bounds,
    count: &Arc<AtomicU64>,
    emit: &mut dyn FnMut(Event) -> bool,
) {
    // The year of a stamp without one is that of the file.
    let now = file.modified.map_or(context.now, |modified| modified.min(context.now));
    let context = Context { now, ..*context };
    let mut run = || -> io::Result<()> {
        let (first, source, packed) = unpack(file, count)?;
        let format = match recognise(&first, first.len() < HEAD, &context) {
            Ok(format) => format,
            Err(reason) => {
                emit(Event::Skipped(reason));
                return Ok(());
            }
        };
        if !emit(Event::Format(format)) || format == Format::Empty {
            return Ok(());
        }
        let limit = if packed { FREE.max(file.bytes.saturating_mul(MAX_RATIO)) } else { u64::MAX };
        let skip = if first.starts_with(BOM) { BOM.len() } else { 0 };
        let mut parts = Parts { format, context, bounds, hash: Xxh3::new(), number: 0, emit };
        parts.stream(source, skip, limit)
    };
    if let Err(error) = run() {
        emit(Event::Skipped(format!("reading failed: {error}")));
    }
}

struct Parts<'a> {
    format: Format,
    context: Context,
    bounds: Bounds,
    hash: Xxh3,
    number: u64,
    emit: &'a mut dyn FnMut(Event) -> bool,
}

impl Parts<'_> {
    fn stream(&mut self, mut source: Source, mut skip: usize, limit: u64) -> io::Result<()> {
        let mut splitter = Splitter::new(self.bounds.record);
        let mut cutter = LineCutter::new(self.bounds.record);
        let mut buffer = BytesMut::new();
        let mut block = vec![0; READ];
        let mut total = 0_u64;
        loop {
            let read = fill(&mut source, &mut block)?;
            total += read as u64;
            let end = read == 0;
            let bytes = block.get(skip.min(read)..read).unwrap_or_default();
            skip = skip.saturating_sub(read);
            self.hash.update(bytes);
            let go_on = if self.format == Format::Json {
                let pieces = splitter.feed(bytes, self.bounds.chunk, end);
                pieces.into_iter().all(|piece| self.json(piece))
            } else {
                buffer.extend_from_slice(bytes);
                let ready = buffer.len() >= self.bounds.chunk || end;
                !ready || self.lines(&mut cutter, &mut buffer, end)
            };
            if end || !go_on {
                return Ok(());
            }
            if total > limit {
                let reason = format!("it unpacks to over {limit} bytes, so no more of it is read");
                (self.emit)(Event::Skipped(reason));
                return Ok(());
            }
        }
    }

    fn json(&mut self, piece: Piece) -> bool {
        match piece {
            Piece::Values(bytes) => self.chunk(Body::Json(bytes)),
            Piece::Dropped(bytes) => self.refused(
                1,
                format!(
                    "a value of {bytes} bytes is over the limit of {} bytes, or has no end",
                    self.bounds.record
                ),
            ),
        }
    }

    fn lines(&mut self, cutter: &mut LineCutter, buffer: &mut BytesMut, end: bool) -> bool {
        let cut = cutter.cut(buffer, end);
        for letter in &cut.dead {
            if !self.refused(1, letter.reason.clone()) {
                return false;
            }
        }
        if cut.lines.is_empty() {
            return true;
        }
        let plain = cut.dead.is_empty();
        let body = match self.format {
            // The decoder knows lines; only where one was taken out they must be named.
            Format::JsonLines if plain => Body::Json(cut.body),
            Format::JsonLines => {
                let item = |range| crate::submit::BulkItem { range, id: None };
                let items = cut.lines.into_iter().map(item).collect();
                Body::BulkItems { body: cut.body, items: Arc::new(items) }
            }
            Format::Text if std::str::from_utf8(&cut.body).is_ok() => {
                Body::Lines { body: cut.body, ranges: Arc::new(cut.lines) }
            }
            _ => {
                let parse = |range| {
                    let line: Bytes = cut.body.slice(range);
                    syslog::parse(&line, &self.context).0
                };
                Body::Records(Arc::new(cut.lines.into_iter().map(parse).collect()))
            }
        };
        self.chunk(body)
    }

    /// A chunk is named by all bytes that were read up to it, so the same file gives the same names,
    /// and a file that grew gives the same names for what it had.
    fn chunk(&mut self, body: Body) -> bool {
        let key = format!("file:{:032x}:{}", self.hash.digest128(), self.number);
        self.number += 1;
        (self.emit)(Event::Chunk(Chunk { body, key }))
    }

    fn refused(&mut self, count: u64, reason: String) -> bool {
        (self.emit)(Event::Refused(count, reason))
    }
}
