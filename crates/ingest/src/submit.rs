//! The seam between the front doors and the gateway.
//!
//! A front door reads a bounded body, finds out whose it is and hands a [`Submission`] to whoever
//! implements [`Submit`]: the gateway in the server, a recorder in tests. The future resolves when
//! the records are durable (the acknowledgement) or with the reason why nothing was taken. One
//! submission is in one frame: all of it or nothing (L1).
//!
//! A submission is cheap to clone: its bytes and lists are shared. Doors without an answer channel
//! keep a clone, so they can try again and turn refused records into dead letters.

use bytes::Bytes;
use palisade_event::{ErrorClass, Offset, TenantId};
use std::borrow::Cow;
use std::future::Future;
use std::net::IpAddr;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

/// What a front door hands to the gateway.
#[derive(Debug, Clone)]
pub struct Submission {
    /// Whose records these are.
    pub tenant: TenantId,
    /// The listener or stream that they came by: the column `source`.
    pub source: Arc<str>,
    /// The time domain (T2); `None` is `live`.
    pub domain: Option<Arc<str>>,
    /// The idempotency key (L4), 1 to 255 visible ASCII characters.
    pub key: Option<String>,
    /// The records.
    pub body: Body,
    /// The sender's own address.
    pub peer: Option<IpAddr>,
}

/// The records of a submission. Indexes in a [`Receipt`] count from 0 in the order of the body.
#[derive(Debug, Clone)]
pub enum Body {
    /// JSON records: one a line, an array of them, or concatenated, also spread over lines.
    Json(Bytes),
    /// JSON records at known places. Each item is one record; an item that is no JSON object is
    /// refused alone.
    BulkItems {
        /// The bytes that the ranges point into.
        body: Bytes,
        /// One for each record.
        items: Arc<Vec<BulkItem>>,
    },
    /// Raw text lines; each becomes the `message` of one record. They may hold any bytes; a line that
    /// is not UTF-8 is refused alone.
    Lines {
        /// The bytes that the ranges point into.
        body: Bytes,
        /// The lines without their ends, none of them empty, ascending.
        ranges: Arc<Vec<Range<usize>>>,
    },
    /// Records that the door has parsed (syslog).
    Records(Arc<Vec<ParsedRecord>>),
    /// Bytes that no parser could take.
    DeadLetters(Arc<Vec<DeadLetter>>),
}

/// One document of a bulk request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BulkItem {
    /// Where the document stands in the body.
    pub range: Range<usize>,
    /// The sender's own id: the record's `event_id`, and the key of this item (L4).
    pub id: Option<String>,
}

/// A record that a door has parsed: dotted field names and values, with the text that they came
/// from.
#[derive(Debug, Clone, PartialEq)]
pub struct ParsedRecord {
    /// The whole line as text. What was received as something else than UTF-8 is decoded as
    /// ISO 8859-1, which loses nothing, and has the field `syslog.encoding`.
    pub raw: Bytes,
    /// The fields; a name stands at most once.
    pub fields: Vec<(Cow<'static, str>, OwnedValue)>,
}

/// The value of a field of a [`ParsedRecord`].
#[derive(Debug, Clone, PartialEq)]
pub enum OwnedValue {
    /// Text that stands in [`ParsedRecord::raw`] at this place: no allocation.
    Part(Range<u32>),
    /// Text of its own.
    Text(Cow<'static, str>),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// Event time, microseconds since the epoch.
    Time(i64),
    /// A JSON text, kept as it is: an array or a number that fits nothing else.
    Json(Box<str>),
}

/// A borrowed view of an [`OwnedValue`], its text resolved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FieldValue<'a> {
    /// Text.
    Text(&'a str),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// Event time, microseconds since the epoch.
    Time(i64),
    /// A JSON text (see [`OwnedValue::Json`]).
    Json(&'a str),
}

impl DeadLetter {
    /// How many bytes of memory the letter holds, about.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.raw.len() + self.reason.len() + size_of::<Self>()
    }
}

impl ParsedRecord {
    /// How many bytes of memory the record holds, about.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.raw.len()
            + size_of::<Self>()
            + self.fields.len() * size_of::<(Cow<'static, str>, OwnedValue)>()
    }

    /// The whole line as text; empty when the bytes are not UTF-8, which no parser of this crate
    /// makes.
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.raw).unwrap_or_default()
    }

    /// The fields with their texts.
    pub fn fields(&self) -> impl Iterator<Item = (&str, FieldValue<'_>)> {
        let text = self.text();
        let part = move |range: &Range<u32>| {
            text.get(range.start as usize..range.end as usize).unwrap_or_default()
        };
        self.fields.iter().map(move |(name, value)| {
            let value = match value {
                OwnedValue::Part(range) => FieldValue::Text(part(range)),
                OwnedValue::Text(own) => FieldValue::Text(own),
                OwnedValue::Int(number) => FieldValue::Int(*number),
                OwnedValue::Float(number) => FieldValue::Float(*number),
                OwnedValue::Bool(value) => FieldValue::Bool(*value),
                OwnedValue::Time(micros) => FieldValue::Time(*micros),
                OwnedValue::Json(text) => FieldValue::Json(text),
            };
            (name.as_ref(), value)
        })
    }

    /// The value of the field of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<FieldValue<'_>> {
        self.fields().find(|(have, _)| *have == name).map(|(_, value)| value)
    }
}

/// Bytes that could not become a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Why: a lower-case sentence.
    pub reason: String,
    /// How to read the bytes again: `json` or `line`.
    pub content_type: &'static str,
    /// The bytes as received; of an overlong line its beginning.
    pub raw: Bytes,
}

impl Body {
    /// How many records there are, where the door knows it.
    #[must_use]
    pub fn records(&self) -> Option<usize> {
        match self {
            Self::Json(_) => None,
            Self::BulkItems { items, .. } => Some(items.len()),
            Self::Lines { ranges, .. } => Some(ranges.len()),
            Self::Records(records) => Some(records.len()),
            Self::DeadLetters(letters) => Some(letters.len()),
        }
    }

    /// XXH3-128 of the records' bytes as received, each record preceded by its length where the
    /// body is a list: equal for a repeat of the same request (L4).
    #[must_use]
    pub fn content_hash(&self) -> u128 {
        if let Self::Json(body) = self {
            return xxhash_rust::xxh3::xxh3_128(body);
        }
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        for index in 0..self.records().unwrap_or(0) {
            if let Some((raw, _)) = self.raw(index as u64) {
                hash.update(&(raw.len() as u64).to_le_bytes());
                hash.update(&raw);
            }
        }
        hash.digest128()
    }

    /// How many bytes the records have.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Json(body) | Self::BulkItems { body, .. } | Self::Lines { body, .. } => {
                body.len()
            }
            Self::Records(records) => records.iter().map(|record| record.raw.len()).sum(),
            Self::DeadLetters(letters) => letters.iter().map(|letter| letter.raw.len()).sum(),
        }
    }

    /// How many bytes of memory the body holds, about: its bytes, and what each record takes beside
    /// them, which for short records is the most of it.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        match self {
            Self::Json(body) => body.len(),
            Self::BulkItems { body, items } => body.len() + items.len() * size_of::<BulkItem>(),
            Self::Lines { body, ranges } => body.len() + ranges.len() * size_of::<Range<usize>>(),
            Self::Records(records) => records.iter().map(ParsedRecord::held_bytes).sum(),
            Self::DeadLetters(letters) => letters.iter().map(DeadLetter::held_bytes).sum(),
        }
    }

    /// The bytes and the kind (`json`, `line`) of the record at this index; `None` past the end,
    /// and for [`Body::Json`], whose records only a decoder can number.
    #[must_use]
    pub fn raw(&self, index: u64) -> Option<(Bytes, &'static str)> {
        let index = usize::try_from(index).ok()?;
        let cut = |body: &Bytes, range: &Range<usize>| {
            (range.start <= range.end && range.end <= body.len())
                .then(|| body.slice(range.start..range.end))
        };
        match self {
            Self::Json(_) => None,
            Self::BulkItems { body, items } => {
                items.get(index).and_then(|item| cut(body, &item.range)).map(|raw| (raw, "json"))
            }
            Self::Lines { body, ranges } => {
                ranges.get(index).and_then(|range| cut(body, range)).map(|raw| (raw, "line"))
            }
            Self::Records(records) => records.get(index).map(|r| (r.raw.clone(), "line")),
            Self::DeadLetters(letters) => {
                letters.get(index).map(|l| (l.raw.clone(), l.content_type))
            }
        }
    }
}

/// What became of a submission: its records are durable.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Receipt {
    /// How many records were taken.
    pub accepted: u64,
    /// Index and reason of refused records, ascending: all of them, except that of [`Body::Json`] and of
    /// repeated answers the first 1,000 may be all that is kept.
    pub rejected: Vec<(u64, String)>,
    /// How many were refused in all.
    pub rejected_total: u64,
    /// This is the answer of an earlier submission with the same key (L4).
    pub repeated: bool,
    /// Where in the log the records are, when something was written: with it the structured logs lead
    /// from a request to the commit that has its rows.
    pub offset: Option<Offset>,
}

/// Why nothing of a submission was taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The queues are full.
    #[error("the server is busy: try again in {retry_after_ms} ms")]
    Busy {
        /// When to try again, in milliseconds.
        retry_after_ms: u64,
    },
    /// The key was used with another body within the last 24 hours (L4).
    #[error("this idempotency key was used with another body: use a new key for new records")]
    KeyConflict,
    /// The body is over a bound.
    #[error("the body is over the limit of {limit} bytes: send smaller requests")]
    TooLarge {
        /// The bound in bytes.
        limit: u64,
    },
    /// The disk is at its reserved low-water mark.
    #[error(
        "the disk is nearly full: free space or shorten retention, ingestion resumes by itself"
    )]
    DiskLow,
    /// The process takes nothing more: it is stopping, or its log failed.
    #[error(
        "the server is stopping and acknowledges nothing more: send it again after the restart"
    )]
    Stopped,
    /// The sender is not wanted: its own address is on a block list that refuses.
    #[error("{0}")]
    Refused(String),
    /// The submission as a whole cannot be understood.
    #[error("{0}")]
    Invalid(String),
}

impl SubmitError {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Busy { .. } | Self::DiskLow => ErrorClass::Transient,
            Self::KeyConflict | Self::TooLarge { .. } | Self::Refused(_) | Self::Invalid(_) => {
                ErrorClass::Permanent
            }
            Self::Stopped => ErrorClass::Critical,
        }
    }
}

/// The answer to a submission, once it is durable.
pub type Submitted = Pin<Box<dyn Future<Output = Result<Receipt, SubmitError>> + Send>>;

/// What happens to a time domain (T2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DomainTurn {
    /// A historical load begins: until its end nothing in its domain is late.
    Starts,
    /// All of the load is durable: the end tick of its domain.
    Ends,
}

/// The answer to the turn of a domain, once it is durable.
pub type Turned = Pin<Box<dyn Future<Output = Result<(), SubmitError>> + Send>>;

/// Takes submissions and makes them durable.
pub trait Submit: Send + Sync {
    /// Takes a submission. What was handed over is processed even if the future is dropped.
    fn submit(&self, submission: Submission) -> Submitted;

    /// Writes the start or the end of a tenant's time domain (T2) into the log, for every partition to
    /// see. Its end belongs behind the answers to all its submissions. Again changes nothing.
    fn turn_domain(&self, tenant: TenantId, domain: Arc<str>, turn: DomainTurn) -> Turned;
}
