//! Reading request bodies within bounds: size on the wire, size after decoding, speed, and the
//! memory of all requests together.
//!
//! A body that is not compressed and came in one piece is handed on without a copy. A compressed
//! body is decoded on the async thread up to 256 KiB of output and beyond that on a blocking
//! thread. Decoding stops at the bound, so a decompression bomb costs no more than the bound.

use axum::body::Body;
use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// Output that is decoded on the async thread before a blocking thread takes over.
const INLINE: usize = 256 * 1024;
/// How much memory is reserved at a time while a body grows.
const STEP: usize = 1 << 20;
/// A zstd window may be 8 MiB, which RFC 8878 recommends decoders to support.
const ZSTD_WINDOW_LOG: u32 = 23;

/// Bounds of request bodies.
#[derive(
    Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields, default)]
pub struct BodyLimits {
    /// The most bytes of a compressed body on the wire.
    pub compressed_bytes: u64,
    /// The most bytes of a body after decoding.
    pub decoded_bytes: u64,
    /// How long a body may take before its rate matters, in seconds.
    pub grace_seconds: u64,
    /// The least rate of a body after the grace, in bytes per second.
    pub min_bytes_per_second: u64,
    /// The most bytes that the bodies of all requests may hold at once.
    pub memory_bytes: u64,
    /// The most requests at once.
    pub requests: usize,
    /// The most records of one request of raw lines or of `_bulk`; of JSON bodies the decoder counts
    /// the records, by the same default.
    pub records: usize,
}

impl Default for BodyLimits {
    fn default() -> Self {
        Self {
            compressed_bytes: 16 << 20,
            decoded_bytes: 64 << 20,
            grace_seconds: 10,
            min_bytes_per_second: 4096,
            memory_bytes: 256 << 20,
            requests: 1024,
            records: 500_000,
        }
    }
}

/// The memory of all bodies together.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Semaphore>);

impl Budget {
    /// A budget of this many bytes, counted in KiB.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let kib = usize::try_from(bytes / 1024).unwrap_or(usize::MAX);
        Self(Arc::new(Semaphore::new(kib.clamp(1, Semaphore::MAX_PERMITS))))
    }

    fn reserve(&self, bytes: usize) -> Result<OwnedSemaphorePermit, BodyError> {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        Arc::clone(&self.0).try_acquire_many_owned(kib).map_err(|_| BodyError::Busy)
    }
}

/// Memory that a body holds, given back when dropped.
#[derive(Debug)]
pub struct Reserved {
    budget: Budget,
    permit: OwnedSemaphorePermit,
    bytes: usize,
}

impl Reserved {
    fn new(budget: &Budget, bytes: usize) -> Result<Self, BodyError> {
        Ok(Self { budget: budget.clone(), permit: budget.reserve(bytes)?, bytes })
    }

    /// Makes the reservation at least this large in all.
    ///
    /// # Errors
    /// [`BodyError::Busy`] when the budget has no more.
    pub(crate) fn cover(&mut self, bytes: usize) -> Result<(), BodyError> {
        if bytes > self.bytes {
            let more = (bytes - self.bytes).next_multiple_of(STEP);
            self.permit.merge(self.budget.reserve(more)?);
            self.bytes += more;
        }
        Ok(())
    }
}

/// Why a body was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Over a bound.
    #[error("the body is over the limit of {limit} bytes {}: send smaller requests", if *.on_the_wire { "as sent" } else { "after decoding" })]
    TooLarge {
        /// The bound in bytes.
        limit: u64,
        /// Whether the compressed bytes passed it, or the decoded ones.
        on_the_wire: bool,
    },
    /// More records than a request may have.
    #[error("the request has more than {limit} records: send several requests")]
    TooManyRecords {
        /// The bound.
        limit: u64,
    },
    /// An unknown `Content-Encoding`.
    #[error("content encoding '{0}' is not understood: use gzip, zstd, deflate or identity")]
    UnknownEncoding(String),
    /// The compressed bytes are damaged or cut.
    #[error("the body does not decode: {0}")]
    Corrupt(String),
    /// Slower than the least rate.
    #[error("the body came too slowly: under {0} bytes per second")]
    Slow(u64),
    /// The connection broke.
    #[error("the body was cut off: {0}")]
    Disconnected(String),
    /// No memory for more bodies now.
    #[error("the bodies of other requests fill the memory for them: try again")]
    Busy,
}

impl BodyError {
    /// The word for metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::TooManyRecords { .. } => "too_many_records",
            Self::UnknownEncoding(_) => "unknown_encoding",
            Self::Corrupt(_) => "corrupt",
            Self::Slow(_) => "slow",
            Self::Disconnected(_) => "disconnected",
            Self::Busy => "busy",
        }
    }

    /// The HTTP status that says so.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::TooLarge { .. } | Self::TooManyRecords { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnknownEncoding(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Corrupt(_) | Self::Disconnected(_) => StatusCode::BAD_REQUEST,
            Self::Slow(_) => StatusCode::REQUEST_TIMEOUT,
            Self::Busy => StatusCode::TOO_MANY_REQUESTS,
        }
    }
}

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// Not at all.
    Identity,
    /// RFC 1952, several members one after the other too.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// RFC 1950, or bare RFC 1951 as some clients send it.
    Deflate,
}

impl Coding {
    /// The coding that the headers name.
    ///
    /// # Errors
    /// [`BodyError::UnknownEncoding`] for another one, or several on top of each other.
    pub fn of(headers: &HeaderMap) -> Result<Self, BodyError> {
        let Some(value) = headers.get(header::CONTENT_ENCODING) else {
            return Ok(Self::Identity);
        };
        let name = value.to_str().unwrap_or("?").trim();
        Ok(match name.to_ascii_lowercase().as_str() {
            "" | "identity" => Self::Identity,
            "gzip" | "x-gzip" => Self::Gzip,
            "zstd" => Self::Zstd,
            "deflate" => Self::Deflate,
            _ => {
                return Err(BodyError::UnknownEncoding(name.chars().take(40).collect()));
            }
        })
    }
}

/// A body that was read, with the memory that it holds.
#[derive(Debug)]
pub struct Received {
    /// The body after decoding.
    pub bytes: Bytes,
    /// How many bytes came over the wire.
    pub wire_bytes: usize,
    /// Keep it until the body is no longer needed.
    pub reserved: Reserved,
}

impl Received {
    /// Looks at the lines before they are listed: refuses too many, and reserves the memory that a
    /// list of them takes, at `each` bytes a line. Without this, a body of empty lines would take many
    /// times the memory that was reserved for its bytes.
    ///
    /// # Errors
    /// [`BodyError::TooManyRecords`] over `most` lines, [`BodyError::Busy`].
    pub(crate) fn admit_lines(&mut self, most: usize, each: usize) -> Result<(), BodyError> {
        let lines = memchr::memchr_iter(b'\n', &self.bytes).count() + 1;
        if lines > most.saturating_add(1) {
            return Err(BodyError::TooManyRecords { limit: most as u64 });
        }
        self.reserved.cover(self.bytes.len().saturating_add(lines.saturating_mul(each)))
    }
}

/// Reads a whole body within the bounds.
///
/// # Errors
/// Every [`BodyError`].
pub async fn read(
    body: Body,
    headers: &HeaderMap,
    limits: &BodyLimits,
    budget: &Budget,
) -> Result<Received, BodyError> {
    let coding = Coding::of(headers)?;
    let decoded_limit = usize::try_from(limits.decoded_bytes).unwrap_or(usize::MAX);
    let (wire_limit, on_the_wire) = if coding == Coding::Identity {
        (decoded_limit, false)
    } else {
        (usize::try_from(limits.compressed_bytes).unwrap_or(usize::MAX), true)
    };
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse::<usize>().ok());
    if announced.is_some_and(|length| length > wire_limit) {
        return Err(BodyError::TooLarge { limit: wire_limit as u64, on_the_wire });
    }
    let mut reserved = Reserved::new(budget, announced.unwrap_or(0))?;
    let wire = collect(body, limits, wire_limit, on_the_wire, announced, &mut reserved).await?;
    let wire_bytes = wire.len();
    let bytes = if coding == Coding::Identity {
        wire
    } else {
        decode(wire, coding, decoded_limit, &mut reserved).await?
    };
    Ok(Received { bytes, wire_bytes, reserved })
}

async fn collect(
    mut body: Body,
    limits: &BodyLimits,
    limit: usize,
    on_the_wire: bool,
    announced: Option<usize>,
    reserved: &mut Reserved,
) -> Result<Bytes, BodyError> {
    let start = Instant::now();
    let rate = limits.min_bytes_per_second.max(1);
    let grace = Duration::from_secs(limits.grace_seconds.max(1));
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    loop {
        let received = first.len() + rest.len();
        let allowed = grace + Duration::from_secs_f64(received as f64 / rate as f64);
        let frame = tokio::time::timeout_at(start + allowed, body.frame())
            .await
            .map_err(|_| BodyError::Slow(rate))?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| BodyError::Disconnected(error.to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        let length = received + data.len();
        if length > limit {
            return Err(BodyError::TooLarge { limit: limit as u64, on_the_wire });
        }
        reserved.cover(length)?;
        if received == 0 {
            first = data;
        } else {
            if rest.is_empty() {
                rest.reserve(announced.unwrap_or(0).clamp(length, limit));
                rest.extend_from_slice(&first);
                first = Bytes::new();
            }
            rest.extend_from_slice(&data);
        }
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

type Decoder = Box<dyn Read + Send>;

fn decoder(wire: Bytes, coding: Coding) -> std::io::Result<Decoder> {
    let zlib = matches!(wire.as_ref(), [cmf, flg, ..]
        if cmf & 0x0f == 8 && (u16::from(*cmf) << 8 | u16::from(*flg)) % 31 == 0);
    let reader = wire.reader();
    Ok(match coding {
        Coding::Identity => Box::new(reader),
        Coding::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        Coding::Deflate if zlib => Box::new(flate2::bufread::ZlibDecoder::new(reader)),
        Coding::Deflate => Box::new(flate2::bufread::DeflateDecoder::new(reader)),
        Coding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(reader)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
    })
}

/// Decodes until `upto` bytes are out; true when the stream has ended.
fn advance(decoder: &mut Decoder, out: &mut Vec<u8>, upto: usize) -> std::io::Result<bool> {
    let want = upto.saturating_sub(out.len());
    let got = decoder.take(want as u64).read_to_end(out)?;
    Ok(got < want)
}

async fn decode(
    wire: Bytes,
    coding: Coding,
    limit: usize,
    reserved: &mut Reserved,
) -> Result<Bytes, BodyError> {
    let corrupt = |error: std::io::Error| BodyError::Corrupt(error.to_string());
    if wire.is_empty() {
        return Ok(wire);
    }
    let mut out = Vec::with_capacity((wire.len() * 4).min(INLINE).min(limit + 1));
    let mut decoder = decoder(wire, coding).map_err(corrupt)?;
    let over = limit.saturating_add(1);
    reserved.cover(INLINE.min(limit))?;
    let mut ended = advance(&mut decoder, &mut out, INLINE.min(over)).map_err(corrupt)?;
    while !ended && out.len() < over {
        let upto = out.len().saturating_add(4 * STEP).min(over);
        reserved.cover(upto)?;
        let step = tokio::task::spawn_blocking(move || {
            let ended = advance(&mut decoder, &mut out, upto);
            (decoder, out, ended)
        });
        let result = step.await.map_err(|error| BodyError::Corrupt(error.to_string()))?;
        (decoder, out) = (result.0, result.1);
        ended = result.2.map_err(corrupt)?;
    }
    if out.len() > limit {
        return Err(BodyError::TooLarge { limit: limit as u64, on_the_wire: false });
    }
    Ok(Bytes::from(out))
}
