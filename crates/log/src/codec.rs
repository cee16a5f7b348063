//! Payloads of frames: entries to bytes and back.
//!
//! Encoding runs on the caller's thread, so decoders of a gateway do it in parallel; the log's writer only
//! adds headers. A payload is the **raw** form below, as it is or as one LZ4 block
//! ([`crate::format`], "codec"). Texts are preceded by their length in 4 bytes.
//!
//! | kind | raw form |
//! |---|---|
//! | tick | region (2), gateway (2), epoch (4) |
//! | control | kind (text), body (text) |
//! | schema | number of columns (4), for each a byte: 0 as it is, 1 or 2 when its `Int32` dictionary keys are stored in that many bytes; zeros up to a multiple of 8; the Arrow IPC schema message |
//! | frame | schema hash (16), region (2), gateway (2), epoch (4), requests (4), rows (4), stream (text), then each request: tenant, key, body hash (texts), clock (8), accepted (8), rejected in all (8), number of reasons (4), each: index (8), reason (text); zeros up to a multiple of 8; Arrow IPC dictionary batches, then one record batch |
//!
//! A schema is written once per segment file, before the first frame that needs it, and named by the XXH3-128 of
//! its raw form (L1). Dictionaries travel with their batch, so every frame stands alone given its
//! schema. Their keys are stored in one or two bytes where the dictionary is small enough, which halves
//! the work of LZ4; LZ4 runs over the whole frame instead of each buffer, because setting it up
//! for each of a wide batch's thousand buffers costs more than compressing.

use crate::error::LogError;
use crate::format::{Codec, FrameKind, MAX_PAYLOAD_BYTES, padded};
use arrow::array::{
    Array, ArrayRef, AsArray, DictionaryArray, PrimitiveArray, RecordBatch, RecordBatchOptions,
};
use arrow::datatypes::{
    ArrowDictionaryKeyType, ArrowNativeType, DataType, Field, Int32Type, Schema, SchemaRef,
    UInt8Type, UInt16Type,
};
use arrow_ipc::MetadataVersion;
use arrow_ipc::writer::{IpcWriteOptions, StreamWriter};
use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};
use palisade_event::id::GatewayIdentity;
use palisade_event::{Entry, EntryKind, Frame};
use std::fmt;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_128;

mod decode;

pub(crate) use decode::{StoredSchema, decode_entry, decode_requests, raw_length};

/// An entry in the form in which it is stored, apart from what only the writer knows (its offset, the
/// durable end). Made by [`encode`] or an [`Encoder`].
#[derive(Debug, Clone)]
pub struct Encoded {
    pub(crate) clock: i64,
    pub(crate) payload: Payload,
    pub(crate) schema: Option<Arc<EncodedSchema>>,
    raw_bytes: usize,
}

impl Encoded {
    /// Bytes that the entry takes up in the log, without its schema.
    #[must_use]
    pub fn stored_bytes(&self) -> usize {
        self.payload.bytes.len() + crate::format::FRAME_HEADER_BYTES
    }

    /// Bytes before compression, about what the batch takes up in memory.
    #[must_use]
    pub fn raw_bytes(&self) -> usize {
        self.raw_bytes
    }

    /// What the entry counts against the bound of the queue: its bytes and its batch in memory.
    pub(crate) fn weight(&self) -> usize {
        self.stored_bytes() + self.raw_bytes
    }
}

/// The bytes of a frame after its header.
#[derive(Debug, Clone)]
pub(crate) struct Payload {
    pub(crate) kind: FrameKind,
    pub(crate) codec: Codec,
    /// Length without padding.
    pub(crate) length: u32,
    /// With padding.
    pub(crate) bytes: Vec<u8>,
    pub(crate) crc: u32,
}

/// A schema as it stands in a segment.
#[derive(Debug)]
pub(crate) struct EncodedSchema {
    pub(crate) hash: u128,
    pub(crate) payload: Payload,
}

/// Turns entries into bytes. Keep one per thread: it keeps its buffers.
pub struct Encoder {
    options: IpcWriteOptions,
    raw: Vec<u8>,
    packed: Vec<u8>,
    table: CompressTable,
    /// The schema of the last frame: the next one mostly has the same.
    last_schema: Option<Arc<EncodedSchema>>,
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").finish_non_exhaustive()
    }
}

/// Below this many raw bytes a payload is not compressed.
const SMALL: usize = 256;
/// Buffers above this are given back after use.
const KEPT_BUFFER: usize = 16 << 20;

impl Encoder {
    /// An encoder with empty buffers.
    ///
    /// # Errors
    /// [`LogError::Encode`] if Arrow refuses the options, which are constant.
    pub fn new() -> Result<Self, LogError> {
        Ok(Self {
            options: IpcWriteOptions::try_new(8, false, MetadataVersion::V5)
                .map_err(encode_error)?,
            raw: Vec::new(),
            packed: Vec::new(),
            table: CompressTable::large(),
            last_schema: None,
        })
    }

    /// Encodes an entry.
    ///
    /// # Errors
    /// [`LogError::TooLarge`] past [`MAX_PAYLOAD_BYTES`]; [`LogError::Encode`] when Arrow refuses the batch.
    pub fn encode(&mut self, entry: &Entry) -> Result<Encoded, LogError> {
        self.raw.clear();
        let (kind, clock, schema) = match entry {
            Entry::Tick { clock, gateway } => {
                put_gateway(&mut self.raw, *gateway);
                (EntryKind::Tick, *clock, None)
            }
            Entry::Control { clock, kind, body } => {
                put_text(&mut self.raw, kind);
                put_text(&mut self.raw, body);
                (EntryKind::Control, *clock, None)
            }
            Entry::Frame(frame) => (EntryKind::Frame, frame.clock, Some(self.encode_frame(frame)?)),
        };
        let raw_bytes = self.raw.len();
        let payload = self.pack(FrameKind::Entry(kind))?;
        if self.raw.capacity() > KEPT_BUFFER {
            (self.raw, self.packed) = (Vec::new(), Vec::new());
        }
        Ok(Encoded { clock, payload, schema, raw_bytes })
    }

    /// Writes the raw form of a frame and gives its schema.
    fn encode_frame(&mut self, frame: &Frame) -> Result<Arc<EncodedSchema>, LogError> {
        let (batch, widths) = narrow(&frame.batch).map_err(encode_error)?;
        put_schema_head(&mut self.raw, &widths);
        let out = std::mem::take(&mut self.raw);
        // The stream writer writes the schema message at once and each batch when told, so one pass gives both.
        let mut writer =
            StreamWriter::try_new_with_options(out, &batch.schema(), self.options.clone())
                .map_err(encode_error)?;
        let hash = xxh3_128(writer.get_ref());
        let schema = match self.last_schema.take().filter(|last| last.hash == hash) {
            Some(last) => last,
            None => {
                self.raw = std::mem::take(writer.get_mut());
                let payload = self.pack(FrameKind::Schema)?;
                *writer.get_mut() = std::mem::take(&mut self.raw);
                Arc::new(EncodedSchema { hash, payload })
            }
        };
        self.last_schema = Some(Arc::clone(&schema));
        writer.get_mut().clear();
        put_frame_head(writer.get_mut(), frame, hash)?;
        let written = writer.write(&batch);
        self.raw = std::mem::take(writer.get_mut());
        written.map_err(encode_error)?;
        Ok(schema)
    }

    /// Makes a payload of `self.raw`.
    fn pack(&mut self, kind: FrameKind) -> Result<Payload, LogError> {
        let raw = self.raw.as_slice();
        if raw.len() > MAX_PAYLOAD_BYTES {
            return Err(LogError::TooLarge { bytes: raw.len(), limit: MAX_PAYLOAD_BYTES });
        }
        let mut codec = Codec::Raw;
        let mut stored = raw;
        if raw.len() >= SMALL {
            let most = 4 + get_maximum_output_size(raw.len());
            if self.packed.len() < most {
                self.packed.resize(most, 0);
            }
            if let Some((head, block)) = self.packed.split_first_chunk_mut::<4>() {
                *head = (raw.len() as u32).to_le_bytes();
                let length = compress_into_with_table(raw, block, &mut self.table)
                    .map_err(|error| LogError::Encode { reason: error.to_string() })?;
                if length + 4 < raw.len() {
                    codec = Codec::Lz4;
                    stored = self.packed.get(..length + 4).unwrap_or_default();
                }
            }
        }
        let length = stored.len();
        let mut bytes = Vec::with_capacity(padded(length));
        bytes.extend_from_slice(stored);
        bytes.resize(padded(length), 0);
        let crc = crc32c::crc32c(&bytes);
        Ok(Payload { kind, codec, length: length as u32, bytes, crc })
    }
}

/// Encodes one entry; [`Encoder::encode`] does the same with buffers that are kept.
///
/// # Errors
/// As [`Encoder::encode`].
pub fn encode(entry: &Entry) -> Result<Encoded, LogError> {
    Encoder::new()?.encode(entry)
}

fn encode_error(error: impl fmt::Display) -> LogError {
    LogError::Encode { reason: error.to_string() }
}

/// The batch with the keys of small dictionaries narrowed, and for each column the bytes of a key, 0 where
/// nothing was changed.
fn narrow(batch: &RecordBatch) -> Result<(RecordBatch, Vec<u8>), arrow::error::ArrowError> {
    let mut widths = vec![0; batch.num_columns()];
    let mut columns = batch.columns().to_vec();
    let schema = batch.schema_ref();
    let mut fields = schema.fields().to_vec();
    for ((column, field), width) in columns.iter_mut().zip(&mut fields).zip(&mut widths) {
        let Some(array) = column.as_dictionary_opt::<Int32Type>() else { continue };
        let narrowed: ArrayRef = match array.values().len() {
            0..=0x100 => {
                *width = 1;
                Arc::new(rekey::<Int32Type, UInt8Type>(array, |key| key as u8)?)
            }
            0x101..=0x1_0000 => {
                *width = 2;
                Arc::new(rekey::<Int32Type, UInt16Type>(array, |key| key as u16)?)
            }
            _ => continue,
        };
        *field = Arc::new(Field::clone(field).with_data_type(narrowed.data_type().clone()));
        *column = narrowed;
    }
    let schema = Schema::new_with_metadata(fields, schema.metadata().clone());
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok((RecordBatch::try_new_with_options(Arc::new(schema), columns, &options)?, widths))
}

/// The batch as it was before [`narrow`].
fn widen(
    batch: &RecordBatch,
    schema: &SchemaRef,
    widths: &[u8],
) -> Result<RecordBatch, arrow::error::ArrowError> {
    let mut columns = batch.columns().to_vec();
    for (column, width) in columns.iter_mut().zip(widths) {
        if *width == 1
            && let Some(array) = column.as_dictionary_opt::<UInt8Type>()
        {
            *column = Arc::new(rekey::<UInt8Type, Int32Type>(array, i32::from)?);
        } else if *width == 2
            && let Some(array) = column.as_dictionary_opt::<UInt16Type>()
        {
            *column = Arc::new(rekey::<UInt16Type, Int32Type>(array, i32::from)?);
        }
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}

/// The schema as it was before [`narrow`].
fn widen_schema(stored: &Schema, widths: &[u8]) -> Schema {
    let fields: Vec<_> = stored
        .fields()
        .iter()
        .zip(widths)
        .map(|(field, width)| match field.data_type() {
            DataType::Dictionary(_, value) if *width != 0 => {
                let wide = DataType::Dictionary(Box::new(DataType::Int32), value.clone());
                Arc::new(Field::clone(field).with_data_type(wide))
            }
            _ => Arc::clone(field),
        })
        .collect();
    Schema::new_with_metadata(fields, stored.metadata().clone())
}

fn rekey<From, To>(
    array: &DictionaryArray<From>,
    convert: impl Fn(From::Native) -> To::Native,
) -> Result<DictionaryArray<To>, arrow::error::ArrowError>
where
    From: ArrowDictionaryKeyType,
    To: ArrowDictionaryKeyType,
    To::Native: ArrowNativeType,
{
    let keys = array.keys();
    let converted = keys.values().iter().map(|key| convert(*key)).collect();
    let keys = PrimitiveArray::<To>::try_new(converted, keys.nulls().cloned())?;
    DictionaryArray::try_new(keys, Arc::clone(array.values()))
}

fn put_schema_head(out: &mut Vec<u8>, widths: &[u8]) {
    out.clear();
    out.extend_from_slice(&(widths.len() as u32).to_le_bytes());
    out.extend_from_slice(widths);
    out.resize(padded(out.len()), 0);
}

fn put_frame_head(out: &mut Vec<u8>, frame: &Frame, schema: u128) -> Result<(), LogError> {
    out.extend_from_slice(&schema.to_le_bytes());
    put_gateway(out, frame.gateway);
    out.extend_from_slice(&(frame.requests.len() as u32).to_le_bytes());
    out.extend_from_slice(&(frame.batch.num_rows() as u32).to_le_bytes());
    put_text(out, &frame.stream);
    for request in &frame.requests {
        put_text(out, &request.tenant);
        put_text(out, &request.key);
        put_text(out, &request.body_hash);
        out.extend_from_slice(&request.clock.to_le_bytes());
        out.extend_from_slice(&request.accepted.to_le_bytes());
        out.extend_from_slice(&request.rejected_total.to_le_bytes());
        out.extend_from_slice(&(request.rejected.len() as u32).to_le_bytes());
        for (index, reason) in &request.rejected {
            out.extend_from_slice(&index.to_le_bytes());
            put_text(out, reason);
        }
    }
    out.resize(padded(out.len()), 0);
    if out.len() > MAX_PAYLOAD_BYTES {
        return Err(LogError::TooLarge { bytes: out.len(), limit: MAX_PAYLOAD_BYTES });
    }
    Ok(())
}

fn put_gateway(out: &mut Vec<u8>, gateway: GatewayIdentity) {
    out.extend_from_slice(&gateway.region.to_le_bytes());
    out.extend_from_slice(&gateway.gateway.to_le_bytes());
    out.extend_from_slice(&gateway.epoch.to_le_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    // A text past 4 GiB makes the payload too large anyway, which `pack` refuses.
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}
