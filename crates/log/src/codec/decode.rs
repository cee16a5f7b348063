//! Bytes to entries. Checksums were verified before, so what is wrong here was written wrongly; it is
//! an error all the same, never a panic and never an allocation larger than the input justifies.

use super::{widen, widen_schema};
use crate::error::LogError;
use crate::format::{Codec, MAX_PAYLOAD_BYTES};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::buffer::{Buffer, MutableBuffer};
use arrow::datatypes::SchemaRef;
use arrow_ipc::reader::{read_dictionary, read_record_batch};
use arrow_ipc::{Message, MessageHeader, root_as_message};
use palisade_event::id::GatewayIdentity;
use palisade_event::{Entry, EntryKind, Frame, RequestEntry};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// A schema read from a segment.
#[derive(Debug)]
pub(crate) struct StoredSchema {
    /// With narrowed dictionary keys, as in the IPC messages.
    stored: SchemaRef,
    /// As the gateway had it.
    original: SchemaRef,
    widths: Vec<u8>,
}

/// Length of the raw form of a stored payload.
pub(crate) fn raw_length(codec: Codec, payload: &[u8]) -> Result<usize, LogError> {
    match codec {
        Codec::Raw => Ok(payload.len()),
        Codec::Lz4 => {
            let head = payload.first_chunk::<4>().ok_or_else(|| bad("no raw length"))?;
            let raw = u32::from_le_bytes(*head) as usize;
            // One byte of LZ4 stands for at most 255 of raw text.
            if raw > MAX_PAYLOAD_BYTES || raw > payload.len().saturating_mul(255) {
                return Err(bad("the raw length is out of range"));
            }
            Ok(raw)
        }
    }
}

/// Gives the raw form of a stored payload, aligned as Arrow wants it.
fn unpack(codec: Codec, payload: &[u8]) -> Result<Buffer, LogError> {
    match codec {
        Codec::Raw => Ok(Buffer::from(payload)),
        Codec::Lz4 => {
            let raw = raw_length(codec, payload)?;
            let mut out = MutableBuffer::from_len_zeroed(raw);
            let block = payload.get(4..).unwrap_or_default();
            let written = lz4_flex::block::decompress_into(block, &mut out)
                .map_err(|error| bad(&format!("LZ4: {error}")))?;
            if written != raw {
                return Err(bad("the raw length does not match its block"));
            }
            Ok(out.into())
        }
    }
}

impl StoredSchema {
    /// Reads the payload of a schema frame; returns its hash too.
    pub(crate) fn decode(codec: Codec, payload: &[u8]) -> Result<(u128, Self), LogError> {
        let raw = unpack(codec, payload)?;
        let hash = xxhash_rust::xxh3::xxh3_128(&raw);
        let mut input = Input { raw: &raw, at: 0 };
        let count = input.u32()? as usize;
        let widths = input.take(count)?.to_vec();
        input.align()?;
        let stored = guarded(|| {
            let (message, _) = input.message()?;
            let schema = message.header_as_schema().ok_or_else(|| bad("no schema message"))?;
            Ok(arrow_ipc::convert::fb_to_schema(schema))
        })?;
        if widths.len() != stored.fields().len() {
            return Err(bad("the schema has another number of columns than its head says"));
        }
        let original = Arc::new(widen_schema(&stored, &widths));
        Ok((hash, Self { stored: Arc::new(stored), original, widths }))
    }
}

/// Reads the payload of an entry. `schema` finds a schema of the same segment by hash.
pub(crate) fn decode_entry<'s>(
    kind: EntryKind,
    codec: Codec,
    clock: i64,
    payload: &[u8],
    schema: impl FnOnce(u128) -> Option<&'s StoredSchema>,
) -> Result<Entry, LogError> {
    let raw = unpack(codec, payload)?;
    let mut input = Input { raw: &raw, at: 0 };
    let entry = match kind {
        EntryKind::Tick => Entry::Tick { clock, gateway: input.gateway()? },
        EntryKind::Control => Entry::Control { clock, kind: input.text()?, body: input.text()? },
        EntryKind::Frame => {
            let hash = u128::from_le_bytes(input.array()?);
            let gateway = input.gateway()?;
            let (requests, rows) = (input.u32()?, input.u32()? as usize);
            let stream = input.text()?;
            let requests = (0..requests).map(|_| input.request()).collect::<Result<_, _>>()?;
            input.align()?;
            let schema = schema(hash).ok_or_else(|| {
                bad(&format!("schema {hash:032x} does not stand before the frame in its segment"))
            })?;
            let batch = guarded(|| read_batch(&mut input, schema))?;
            if batch.num_rows() != rows {
                return Err(bad("the batch has another number of rows than the frame says"));
            }
            Entry::Frame(Frame { stream, clock, gateway, requests, batch })
        }
    };
    if input.at != input.raw.len() {
        return Err(bad("bytes are left after the entry"));
    }
    Ok(entry)
}

/// Reads the requests at the head of a frame's payload; other entries have none.
pub(crate) fn decode_requests(
    kind: EntryKind,
    codec: Codec,
    payload: &[u8],
) -> Result<Vec<RequestEntry>, LogError> {
    if kind != EntryKind::Frame {
        return Ok(Vec::new());
    }
    let raw = unpack(codec, payload)?;
    let mut input = Input { raw: &raw, at: 0 };
    input.array::<16>()?;
    input.gateway()?;
    let (requests, _rows) = (input.u32()?, input.u32()?);
    input.text()?;
    (0..requests).map(|_| input.request()).collect()
}

fn read_batch(input: &mut Input<'_>, schema: &StoredSchema) -> Result<RecordBatch, LogError> {
    let mut dictionaries: HashMap<i64, ArrayRef> = HashMap::default();
    loop {
        let (message, body) = input.message()?;
        let version = message.version();
        match message.header_type() {
            MessageHeader::DictionaryBatch => {
                let batch = message.header_as_dictionary_batch();
                let batch = batch.ok_or_else(|| bad("no dictionary batch"))?;
                let data = batch.data().ok_or_else(|| bad("a dictionary without values"))?;
                check_bounds(&data, &body)?;
                read_dictionary(&body, batch, &schema.stored, &mut dictionaries, &version)
                    .map_err(|error| bad(&error.to_string()))?;
            }
            MessageHeader::RecordBatch => {
                let batch = message.header_as_record_batch().ok_or_else(|| bad("no batch"))?;
                check_bounds(&batch, &body)?;
                let stored = Arc::clone(&schema.stored);
                let batch = read_record_batch(&body, batch, stored, &dictionaries, None, &version)
                    .map_err(|error| bad(&error.to_string()))?;
                return widen(&batch, &schema.original, &schema.widths)
                    .map_err(|error| bad(&error.to_string()));
            }
            other => return Err(bad(&format!("unexpected message {other:?}"))),
        }
    }
}

/// Refuses what Arrow's reader would index without looking.
fn check_bounds(batch: &arrow_ipc::RecordBatch<'_>, body: &Buffer) -> Result<(), LogError> {
    let fits = |offset: i64, length: i64| {
        offset >= 0
            && length >= 0
            && offset.checked_add(length).is_some_and(|end| end <= body.len() as i64)
    };
    let bits = (body.len() as i64).saturating_mul(8).saturating_add(1);
    let buffers =
        batch.buffers().is_some_and(|all| all.iter().all(|b| fits(b.offset(), b.length())));
    let nodes = batch.nodes().is_some_and(|all| {
        all.iter()
            .all(|node| node.length() >= 0 && (0..=node.length()).contains(&node.null_count()))
    });
    // Every value takes up at least a bit of some buffer, but for columns of type null.
    let rows = batch.length() >= 0 && (batch.length() <= bits || batch.length() <= 1 << 20);
    if buffers && nodes && rows && batch.compression().is_none() {
        Ok(())
    } else {
        Err(bad("a batch reaches out of its message"))
    }
}

/// Arrow's reader panics on some malformed input; that becomes an error too.
fn guarded<T>(read: impl FnOnce() -> Result<T, LogError>) -> Result<T, LogError> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err(bad("malformed Arrow message")))
}

fn bad(reason: &str) -> LogError {
    LogError::Decode { reason: reason.to_owned() }
}

struct Input<'a> {
    raw: &'a Buffer,
    at: usize,
}

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], LogError> {
        let rest = self.raw.get(self.at..).unwrap_or_default();
        let taken = rest.get(..length).ok_or_else(|| bad("the payload ends too early"))?;
        self.at += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], LogError> {
        self.take(N)?.first_chunk().copied().ok_or_else(|| bad("the payload ends too early"))
    }

    fn u32(&mut self) -> Result<u32, LogError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, LogError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn text(&mut self) -> Result<String, LogError> {
        let length = self.u32()? as usize;
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| bad("a text is not UTF-8"))
    }

    fn align(&mut self) -> Result<(), LogError> {
        let padding = crate::format::padded(self.at) - self.at;
        self.take(padding).map(drop)
    }

    fn gateway(&mut self) -> Result<GatewayIdentity, LogError> {
        Ok(GatewayIdentity {
            region: u16::from_le_bytes(self.array()?),
            gateway: u16::from_le_bytes(self.array()?),
            epoch: self.u32()?,
        })
    }

    fn request(&mut self) -> Result<RequestEntry, LogError> {
        Ok(RequestEntry {
            tenant: self.text()?,
            key: self.text()?,
            body_hash: self.text()?,
            clock: self.u64()? as i64,
            accepted: self.u64()?,
            rejected_total: self.u64()?,
            rejected: {
                let count = self.u32()?;
                (0..count)
                    .map(|_| Ok((self.u64()?, self.text()?)))
                    .collect::<Result<_, LogError>>()?
            },
        })
    }

    /// The next IPC message and its body.
    fn message(&mut self) -> Result<(Message<'a>, Buffer), LogError> {
        if self.u32()? != u32::MAX {
            return Err(bad("no Arrow message begins here"));
        }
        let length = self.u32()? as usize;
        let message =
            root_as_message(self.take(length)?).map_err(|error| bad(&error.to_string()))?;
        let body = usize::try_from(message.bodyLength()).map_err(|_| bad("a negative length"))?;
        let start = self.at;
        self.take(body)?;
        Ok((message, self.raw.slice_with_length(start, body)))
    }
}
