//! Files of events as batches, without a server: for rules that are tried on them.

use crate::server::Failure;
use arrow::array::RecordBatch;
use palisade_event::decode::{DecodeLimits, FrameBuilder, RequestContext};
use palisade_event::id::GatewayIdentity;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The most bytes of a file, unpacked, that are read at once.
const MAX_BYTES: u64 = 1 << 30;
/// Names that end so hold no events.
const OTHERS: [&str; 4] = ["yml", "yaml", "md", "idx"];

/// A file's events.
pub(crate) struct Events {
    /// Where they were found.
    pub(crate) path: PathBuf,
    /// A row for each event that could be read.
    pub(crate) batch: Option<RecordBatch>,
    /// For each row the number of its event in the file, from 0.
    pub(crate) places: Vec<usize>,
    /// The events that could not be read, and why.
    pub(crate) refused: Vec<(usize, String)>,
}

/// The files at and below a path, sorted.
pub(crate) fn find(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    let mut waiting = vec![(path.to_owned(), true)];
    while let Some((path, named)) = waiting.pop() {
        let cant = |error: std::io::Error| format!("can't read {}: {error}", path.display());
        if std::fs::metadata(&path).map_err(cant)?.is_dir() {
            for entry in std::fs::read_dir(&path).map_err(cant)? {
                waiting.push((entry.map_err(cant)?.path(), false));
            }
        } else if named || !OTHERS.iter().any(|end| path.extension().is_some_and(|of| of == *end)) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// A file's bytes, unpacked if they are gzip or zstd.
pub(crate) fn unpacked(path: &Path) -> Result<Vec<u8>, Failure> {
    let cant = |error: std::io::Error| format!("can't read {}: {error}", path.display());
    let packed = std::fs::read(path).map_err(cant)?;
    let mut bytes = Vec::new();
    let read = match packed.get(..4) {
        Some([0x1f, 0x8b, ..]) => flate2::read::MultiGzDecoder::new(packed.as_slice())
            .take(MAX_BYTES)
            .read_to_end(&mut bytes),
        Some([0x28, 0xb5, 0x2f, 0xfd]) => zstd::Decoder::new(packed.as_slice())
            .and_then(|decoder| decoder.take(MAX_BYTES).read_to_end(&mut bytes)),
        _ => return Ok(packed),
    };
    let read = read.map_err(cant)?;
    if read as u64 >= MAX_BYTES {
        return Err(format!("{} is larger than {MAX_BYTES} bytes: split it", path.display()).into());
    }
    Ok(bytes)
}

/// Reads a file: JSON (lines, arrays, documents one after the other) or lines of text.
pub(crate) fn read(path: &Path) -> Result<Events, Failure> {
    let bytes = unpacked(path)?;
    Ok(decode(path, &bytes))
}

/// The events in these bytes.
pub(crate) fn decode(path: &Path, bytes: &[u8]) -> Events {
    let mut builder = FrameBuilder::new(DecodeLimits::default());
    let source = format!("file:{}", path.file_name().unwrap_or_default().to_string_lossy());
    let context = RequestContext {
        tenant: "default",
        source: &source,
        clock: 0,
        domain: Some("file"),
        gateway: GatewayIdentity { region: 0, gateway: 0, epoch: 0 },
        request: 0,
        key: None,
    };
    let mut refused: Vec<(usize, String)> = Vec::new();
    let total = if matches!(bytes.trim_ascii_start().first(), Some(b'{' | b'[')) {
        let outcome = builder.push_json_body(&context, bytes);
        refused.extend(outcome.rejected.into_iter().map(|(at, why)| (at as usize, why)));
        builder.rows() + outcome.rejected_total as usize
    } else {
        let text = String::from_utf8_lossy(bytes);
        let lines = text.lines().filter(|line| !line.is_empty());
        let mut count = 0;
        for (index, line) in lines.enumerate() {
            count = index + 1;
            if let Err(why) = builder.push_line(&context, u32::try_from(index).unwrap_or(0), line) {
                refused.push((index, why));
            }
        }
        count
    };
    let places = (0..total).filter(|at| refused.binary_search_by_key(at, |(at, _)| *at).is_err());
    let places = places.collect();
    Events { path: path.to_owned(), batch: builder.finish(), places, refused }
}
