//! Decoding: the bytes of a request straight into the columns of a frame, in one pass.
//!
//! A [`FrameBuilder`] lives as long as its decoder thread and builds frame after frame of the stream
//! `events`. What it keeps from frame to frame makes it fast: which key follows which in each
//! sender's records, which columns gain from a dictionary, and how much room each needs.
//!
//! Where a field's value goes:
//!
//! 1. The path of a field is its keys joined by dots. A path that is an alias ([`schema::alias`]) of
//!    a core column goes there, if the row has nothing there yet and the value fits: texts, numbers
//!    and booleans fit a text column (by their JSON text), integers from 0 to 65,535 and texts of
//!    them fit a port, numbers and texts of them fit the score, and whatever
//!    [`crate::time`] reads fits the time.
//! 2. Any other value goes to the dynamic column of its path. A path that names a derived column
//!    ([`Core::is_derived`]) becomes `sent.<path>`.
//! 3. What has no column goes to the JSON object in `overflow`, under its path: a second value for
//!    the same column of a row, a value that does not fit the core column of its very name, a field
//!    past the column limits, a field whose path is empty or longer than 512 bytes.
//!
//! `null` is the same as no field. Arrays and empty objects are kept as their JSON text, and so are
//! numbers that neither an `i64` nor a double gives back. A dynamic column whose values are of
//! several JSON types within a frame holds the JSON text of each ([`schema::json_field`]). What is
//! not kept: white space, the order of fields, the spelling of a number (`1.50` is 1.5) or of an
//! escape, by which alias a core column was named, and of a time the offset and what is finer than a
//! microsecond.
//!
//! Lines of plain text have their own readers ([`lines`]); what those find goes the same ways.
//!
//! A record's id (I1) is the sender's (`event_id`), else it derives from the idempotency key, else
//! from the place where the gateway took it. A time over five minutes ahead of the clock is kept as
//! `claimed_time` and replaced by the clock (T4), in the domain `live` only.

mod body;
mod column;
pub mod lines;
mod number;
mod path;
mod places;
mod record;
mod request;
mod rows;
mod scan;
mod text;
mod written;

pub use body::fuzz_json;
pub use request::{DecodeLimits, DecodeStats, FieldValue, Mark, Outcome, RequestContext};
pub(crate) use written::{OverflowMembers, write_string};

use crate::frame::MAX_FRAME_ROWS;
use crate::schema::{self, Core};
use arrow::array::{ArrayRef, DictionaryArray, PrimitiveArray, RecordBatch, StringArray};
use arrow::datatypes::{FieldRef, Int32Type, Schema, SchemaRef, TimestampMicrosecondType};
use column::Value;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use path::{NONE, Paths};
use record::{Record, Scratch};
use rows::Rows;
use scan::{Refusal, Scan, Why};
use std::sync::Arc;

/// A sender: the tenant and the source that it named.
#[derive(Debug)]
struct Source {
    tenant: String,
    name: String,
    /// What its records look like: a place in [`FrameBuilder::paths`].
    paths: u32,
    /// It is past the tenant's bound of sources and shares what it has with others.
    further: bool,
}

/// What is known of a tenant.
#[derive(Debug)]
struct Tenant {
    /// Its number, for as long as the builder lives.
    number: u32,
    /// How many of its sources have paths of their own.
    sources: usize,
    /// The paths that the others share.
    shared: Option<u32>,
}

/// Rows that came with the same request, or with requests that have all this in common.
#[derive(Debug, Clone, Copy)]
struct Run {
    end: u32,
    source: u32,
    domain: u32,
    clock: i64,
}

/// How many senders are remembered from frame to frame before all are forgotten.
const REMEMBERED_SOURCES: usize = 256;
/// Under this name the sources of a tenant past its bound ([`DecodeLimits::max_sources`]) are reported
/// together. It has spaces, so no sender can have it.
pub const FURTHER_SOURCES: &str = "(further sources)";

/// Builds frames of the stream `events` out of requests.
#[derive(Debug)]
pub struct FrameBuilder {
    rows: Rows,
    scratch: Scratch,
    sources: Vec<Source>,
    source_by_name: HashMap<String, u32, FixedState>,
    /// What the records of each sender look like; one for all further sources of a tenant.
    paths: Vec<Paths>,
    tenants: HashMap<String, Tenant, FixedState>,
    source_key: String,
    domains: Vec<String>,
    runs: Vec<Run>,
    frame: u64,
    schema: Option<SchemaRef>,
}

impl FrameBuilder {
    /// An empty builder.
    #[must_use]
    pub fn new(limits: DecodeLimits) -> Self {
        Self {
            rows: Rows::new(limits),
            scratch: Scratch::default(),
            sources: Vec::new(),
            source_by_name: HashMap::with_hasher(FixedState::default()),
            paths: Vec::new(),
            tenants: HashMap::with_hasher(FixedState::default()),
            source_key: String::new(),
            domains: Vec::new(),
            runs: Vec::new(),
            frame: 0,
            schema: None,
        }
    }

    /// Sets other bounds, from the next record on.
    pub fn set_limits(&mut self, limits: DecodeLimits) {
        self.rows.limits = limits;
        for paths in &mut self.paths {
            paths.epoch += 1;
        }
    }

    /// How many rows the frame has.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows.len() as usize
    }

    /// The bytes of the records in the frame, as they were received: a measure for closing frames.
    #[must_use]
    pub fn approximate_bytes(&self) -> usize {
        self.rows.stats.bytes
    }

    /// What was noticed since the frame began.
    #[must_use]
    pub fn stats(&self) -> DecodeStats {
        let counters = self.rows.stats;
        let mut limited_sources: Vec<_> = self
            .sources
            .iter()
            .filter(|source| self.paths.get(source.paths as usize).is_some_and(|p| p.limited))
            .map(|source| {
                let name = if source.further { FURTHER_SOURCES } else { &source.name };
                (source.tenant.clone(), name.to_owned())
            })
            .collect();
        limited_sources.sort();
        limited_sources.dedup();
        DecodeStats {
            overflow_fields: counters.overflow_fields,
            limited_fields: counters.limited_fields,
            limited_sources,
            further_source_records: counters.further_source_records,
            future_times: counters.future_times,
            unread_times: counters.unread_times,
            replaced_surrogates: counters.replaced_surrogates,
        }
    }

    /// Takes the records of a body: JSON lines, arrays of objects, concatenated or pretty-printed
    /// documents, told apart by their content. A bad record is rejected with the reason, and the
    /// others go in.
    ///
    /// A bad record ends where its brackets close; in JSON lines it ends with its line. Where invalid
    /// UTF-8 stands, only the records that contain it are rejected. Anything that is no object is
    /// rejected, to the end of its line or array element. Commas between records are not insisted on.
    pub fn push_json_body(&mut self, ctx: &RequestContext<'_>, body: &[u8]) -> Outcome {
        body::push(self, ctx, body)
    }

    /// Takes one record, a JSON object and nothing after it. `index` is its place in the request.
    /// `event_id`, if given, is the sender's id of the record, whatever its fields say.
    ///
    /// # Errors
    /// The reason why the record was refused; it left no trace.
    pub fn push_json_record(
        &mut self,
        ctx: &RequestContext<'_>,
        index: u32,
        record: &[u8],
        event_id: Option<&str>,
    ) -> Result<(), String> {
        if record.len() > self.rows.limits.max_record_bytes {
            return Err(self.too_large());
        }
        if simdutf8::basic::from_utf8(record).is_err() {
            return Err(invalid_utf8(record));
        }
        let source = self.source(ctx);
        let mut scan = self.scan(record, 0);
        let taken = self.push(ctx, source, index, record.len(), |fields| {
            if let Some(id) = event_id {
                fields.rows.put_core(Core::EventId, &Value::Text(id.as_bytes(), true));
            }
            fields.json(&mut scan)?;
            match scan.next() {
                None => Ok(()),
                Some(_) => scan.refuse(Why::Expected("nothing after the record")),
            }
        });
        taken.map_err(|refusal| self.reason(refusal, 0))
    }

    /// Takes the fields that another parser found in a record. Names go through the aliases as those
    /// of JSON records do.
    ///
    /// # Errors
    /// The reason why the record was refused; it left no trace.
    pub fn push_fields<'f>(
        &mut self,
        ctx: &RequestContext<'_>,
        index: u32,
        fields: &mut dyn Iterator<Item = (&'f str, FieldValue<'f>)>,
    ) -> Result<(), String> {
        let source = self.source(ctx);
        let limit = self.rows.limits.max_record_bytes;
        let mut keys_left = self.rows.limits.max_keys;
        let mut bytes = 0usize;
        let taken = self.push(ctx, source, index, 0, |record| {
            let mut previous = NONE;
            for (name, value) in fields {
                bytes += name.len()
                    + if let FieldValue::Text(t) | FieldValue::Json(t) = value {
                        t.len()
                    } else {
                        8
                    };
                if bytes > limit || keys_left == 0 {
                    let why = if keys_left == 0 { Why::TooManyKeys } else { Why::TooLarge };
                    return Err(Refusal { at: 0, why });
                }
                keys_left -= 1;
                let entry = record.named(name, previous);
                previous = entry;
                record.put_field(entry, value)?;
            }
            Ok(())
        });
        self.rows.stats.bytes += if taken.is_ok() { bytes } else { 0 };
        taken.map_err(|refusal| self.reason(refusal, 0))
    }

    /// The place where the frame stands now. Going back to an earlier mark is no longer possible.
    pub fn mark(&mut self) -> Mark {
        self.rows.settle();
        Mark { rows: self.rows.len(), frame: self.frame, stats: self.rows.stats }
    }

    /// Drops the rows since the latest mark: those of a request that must go into another frame. A
    /// mark of another frame changes nothing.
    pub fn rollback(&mut self, mark: Mark) {
        if mark.frame != self.frame || mark.rows > self.rows.len() {
            return;
        }
        self.rows.truncate(mark.rows, mark.stats);
        for paths in &mut self.paths {
            paths.truncate(mark.rows);
        }
        while self.runs.last().is_some_and(|run| run.end > mark.rows) {
            // A run that began before the mark keeps its rows up to it.
            let start = self.runs.iter().rev().nth(1).map_or(0, |before| before.end);
            match self.runs.last_mut() {
                Some(run) if start < mark.rows => run.end = mark.rows,
                _ => {
                    self.runs.pop();
                }
            }
        }
    }

    /// The frame's batch: core columns that have values in the order of [`Core`] (`tenant`, `time`,
    /// `ingest_time` and `source` always), then the dynamic ones sorted by name. `None` when there
    /// are no rows. The builder then begins the next frame.
    pub fn finish(&mut self) -> Option<RecordBatch> {
        let batch = (self.rows.len() > 0).then(|| self.build()).flatten();
        self.rows.begin_frame();
        self.runs.clear();
        self.domains.clear();
        self.frame += 1;
        self.forget_sources();
        for paths in &mut self.paths {
            paths.begin_frame();
        }
        batch
    }

    /// Forgets the names of further sources, and all sources when there are too many.
    fn forget_sources(&mut self) {
        if self.paths.len() > REMEMBERED_SOURCES {
            self.sources.clear();
            self.source_by_name.clear();
            self.paths.clear();
            for tenant in self.tenants.values_mut() {
                (tenant.sources, tenant.shared) = (0, None);
            }
        } else if self.sources.iter().any(|source| source.further) {
            self.sources.retain(|source| !source.further);
            self.source_by_name.clear();
            for (index, source) in self.sources.iter().enumerate() {
                source_key(&source.tenant, &source.name, &mut self.source_key);
                self.source_by_name.insert(self.source_key.clone(), index as u32);
            }
        }
    }

    fn build(&mut self) -> Option<RecordBatch> {
        let rows = self.rows.len() as usize;
        let mut fields: Vec<FieldRef> = Vec::new();
        let mut arrays: Vec<ArrayRef> = Vec::new();
        for core in Core::ALL {
            let finished = match core {
                Core::Tenant => Some((core.field(), self.names_of_runs(|source| &source.tenant))),
                Core::Source => Some((core.field(), self.names_of_runs(|source| &source.name))),
                Core::IngestTime => Some((core.field(), self.clocks())),
                Core::Domain => self.domain_column().map(|array| (core.field(), array)),
                _ => self.rows.core_column(core).map(|column| column.finish(rows)),
            };
            if let Some((field, array)) = finished {
                fields.push(field);
                arrays.push(array);
            }
        }
        for column in self.rows.dynamic_columns() {
            let (field, array) = column.finish(rows);
            fields.push(field);
            arrays.push(array);
        }
        let schema = match &self.schema {
            Some(schema) if schema.fields().as_ref() == fields.as_slice() => Arc::clone(schema),
            _ => Arc::new(Schema::new(fields)),
        };
        self.schema = Some(Arc::clone(&schema));
        RecordBatch::try_new(schema, arrays).ok()
    }

    /// The rows of each run.
    fn run_lengths(&self) -> impl Iterator<Item = (&Run, usize)> {
        let mut start = 0;
        self.runs.iter().map(move |run| {
            let length = run.end - start;
            start = run.end;
            (run, length as usize)
        })
    }

    fn names_of_runs(&self, name: impl Fn(&Source) -> &str) -> ArrayRef {
        let mut keys = Vec::with_capacity(self.rows());
        let mut values: Vec<&str> = Vec::new();
        let mut key_of_source: Vec<Option<i32>> = vec![None; self.sources.len()];
        for (run, length) in self.run_lengths() {
            let Some((source, known)) = self
                .sources
                .get(run.source as usize)
                .zip(key_of_source.get_mut(run.source as usize))
            else {
                continue;
            };
            let key = *known.get_or_insert_with(|| {
                let name = name(source);
                let place = values.iter().position(|value| *value == name).unwrap_or_else(|| {
                    values.push(name);
                    values.len() - 1
                });
                place as i32
            });
            keys.extend(std::iter::repeat_n(key, length));
        }
        dictionary(PrimitiveArray::from(keys), values)
    }

    fn clocks(&self) -> ArrayRef {
        let mut clocks = Vec::with_capacity(self.rows());
        for (run, length) in self.run_lengths() {
            clocks.extend(std::iter::repeat_n(run.clock, length));
        }
        Arc::new(PrimitiveArray::<TimestampMicrosecondType>::from(clocks).with_timezone("UTC"))
    }

    fn domain_column(&self) -> Option<ArrayRef> {
        self.runs.iter().find(|run| run.domain != NONE)?;
        let keys = self
            .run_lengths()
            .flat_map(|(run, length)| {
                let key = (run.domain != NONE).then_some(run.domain as i32);
                std::iter::repeat_n(key, length)
            })
            .collect();
        Some(dictionary(keys, self.domains.iter().map(String::as_str).collect()))
    }

    /// The sender's number, which holds for this frame.
    fn source(&mut self, ctx: &RequestContext<'_>) -> u32 {
        if let Some(run) = self.runs.last()
            && let Some(source) = self.sources.get(run.source as usize)
            && source.tenant == ctx.tenant
            && source.name == ctx.source
        {
            return run.source;
        }
        source_key(ctx.tenant, ctx.source, &mut self.source_key);
        if let Some(known) = self.source_by_name.get(&self.source_key) {
            return *known;
        }
        let index = self.sources.len() as u32;
        let (paths, further) = self.paths_of_new_source(ctx.tenant);
        self.sources.push(Source {
            tenant: ctx.tenant.to_owned(),
            name: ctx.source.to_owned(),
            paths,
            further,
        });
        self.source_by_name.insert(self.source_key.clone(), index);
        index
    }

    /// Paths for a source that is not known: its own, or past the tenant's bound the shared ones.
    fn paths_of_new_source(&mut self, tenant: &str) -> (u32, bool) {
        let new = self.paths.len() as u32;
        let most = self.rows.limits.max_sources;
        let known = match self.tenants.get_mut(tenant) {
            Some(known) => known,
            None => {
                let number = self.rows.new_tenant();
                let known = Tenant { number, sources: 0, shared: None };
                self.tenants.entry(tenant.to_owned()).or_insert(known)
            }
        };
        let further = known.sources >= most;
        let paths = if further {
            *known.shared.get_or_insert(new)
        } else {
            known.sources += 1;
            new
        };
        if paths == new {
            self.paths.push(Paths::new(known.number));
        }
        (paths, further)
    }

    fn scan<'a>(&self, bytes: &'a [u8], at: usize) -> Scan<'a> {
        let limits = &self.rows.limits;
        Scan::new(bytes, at, limits.max_keys, limits.max_depth)
    }

    /// Takes one record by letting `fields` put its fields; a refused one leaves no trace.
    fn push(
        &mut self,
        ctx: &RequestContext<'_>,
        source: u32,
        index: u32,
        bytes: usize,
        fields: impl FnOnce(&mut Record<'_>) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let full = self.rows.len() as usize >= MAX_FRAME_ROWS
            || self.rows.stats.bytes.saturating_add(bytes) > self.rows.limits.max_frame_bytes;
        let sender = self.sources.get(source as usize).filter(|_| !full);
        let Some((further, paths)) = sender
            .and_then(|sender| Some((sender.further, self.paths.get_mut(sender.paths as usize)?)))
        else {
            return Err(Refusal { at: 0, why: Why::FrameFull });
        };
        // Keys that never come again would pile up; a sender with more keys than this pays for it
        // by having them forgotten now and then.
        if paths.len() > 4 * self.rows.limits.max_dynamic_columns + 1_024 {
            paths.forget();
        }
        self.rows.begin(ctx.clock);
        let mut record =
            Record { rows: &mut self.rows, paths: &mut *paths, scratch: &mut self.scratch };
        if let Err(refusal) = fields(&mut record) {
            self.rows.abandon(paths);
            return Err(refusal);
        }
        self.rows.complete(ctx, index, bytes);
        self.rows.stats.further_source_records += u64::from(further);
        self.extend_run(ctx, source);
        Ok(())
    }

    #[inline]
    fn extend_run(&mut self, ctx: &RequestContext<'_>, source: u32) {
        let end = self.rows.len();
        let domains = &self.domains;
        let named = |index: u32| domains.get(index as usize).map(String::as_str);
        if let Some(last) = self.runs.last_mut()
            && last.source == source
            && last.clock == ctx.clock
            && named(last.domain) == ctx.domain
        {
            last.end = end;
            return;
        }
        let domain = match ctx.domain {
            None => NONE,
            Some(domain) => {
                let known = self.domains.iter().position(|known| known == domain);
                known.unwrap_or_else(|| {
                    self.domains.push(domain.to_owned());
                    self.domains.len() - 1
                }) as u32
            }
        };
        self.runs.push(Run { end, source, domain, clock: ctx.clock });
    }

    fn too_large(&self) -> String {
        let limit = self.rows.limits.max_record_bytes;
        format!("the record is larger than {limit} bytes: split it or raise the limit")
    }

    /// A refusal in words; `start` is where the record begins in the scanned bytes.
    fn reason(&self, refusal: Refusal, start: usize) -> String {
        let limits = &self.rows.limits;
        let at = refusal.at.saturating_sub(start);
        match refusal.why {
            Why::Expected(what) => format!("byte {at} of the record: expected {what}"),
            Why::TooDeep => {
                format!("byte {at} of the record: nested deeper than {} levels", limits.max_depth)
            }
            Why::TooManyKeys => format!("the record has more than {} keys", limits.max_keys),
            Why::NotAnObject => "a record must be a JSON object".to_owned(),
            Why::InvalidUtf8 => format!("byte {at} of the record: invalid UTF-8"),
            Why::TooLarge => self.too_large(),
            Why::FrameFull => "the frame is full: send fewer records in one request".to_owned(),
            Why::TooManyRecords => format!(
                "the request has more than {} records: send several requests",
                limits.max_records_per_request
            ),
        }
    }
}

fn source_key(tenant: &str, source: &str, key: &mut String) {
    key.clear();
    key.push_str(tenant);
    key.push('\0');
    key.push_str(source);
}

fn invalid_utf8(record: &[u8]) -> String {
    let at = std::str::from_utf8(record).err().map_or(0, |error| error.valid_up_to());
    format!("byte {at} of the record: invalid UTF-8")
}

fn dictionary(keys: PrimitiveArray<Int32Type>, values: Vec<&str>) -> ArrayRef {
    let rows = keys.len();
    match DictionaryArray::try_new(keys, Arc::new(StringArray::from(values))) {
        Ok(array) => Arc::new(array),
        // Keys are always below the number of values.
        Err(_) => arrow::array::new_null_array(&schema::dictionary(), rows),
    }
}
