//! A decoder thread and its open frame.

use super::letters::Letters;
use super::{Job, Shared};
use crate::submit::{Body, BulkItem, FieldValue, Receipt, Submission, SubmitError};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::Schema;
use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use hashbrown::HashSet;
use palisade_event::decode::{FieldValue as Value, FrameBuilder, RequestContext};
use palisade_event::frame::MAX_FRAME_ROWS;
use palisade_event::schema::{Core, DEAD_LETTERS, EVENTS};
use palisade_event::{Entry, Frame, Offset, RequestEntry};
use palisade_log::{Encoded, Encoder, LogError};
use palisade_pipeline::ledger::Verdict;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::sync::oneshot;

/// Refused records whose reasons are given back and kept with an idempotency key.
const KEPT_REASONS: usize = 1000;

/// A submission whose records are in the open frame.
struct Pending {
    reply: oneshot::Sender<Result<Receipt, SubmitError>>,
    receipt: Receipt,
    bytes: usize,
    since: Instant,
}

pub(super) struct Decoder {
    index: usize,
    shared: Arc<Shared>,
    jobs: Receiver<Job>,
    builder: FrameBuilder,
    letters: Letters,
    encoder: Option<Encoder>,
    pending: Vec<Pending>,
    requests: Vec<RequestEntry>,
    /// Keys of bulk items whose rows are in the open frame.
    begun: HashSet<(String, String), foldhash::fast::FixedState>,
    opened: Option<Instant>,
    /// Which setting of the bounds the builder has.
    limits_set: u64,
}

/// What became of the records of one submission.
#[derive(Default)]
struct Taken {
    accepted: u64,
    rejected: Vec<(u64, String)>,
    rejected_total: u64,
}

impl Taken {
    fn refuse(&mut self, index: u64, reason: String, keep_all: bool) {
        if keep_all || self.rejected.len() < KEPT_REASONS {
            self.rejected.push((index, reason));
        }
        self.rejected_total += 1;
    }

    fn count(&mut self, index: usize, result: Result<(), String>, keep_all: bool) {
        match result {
            Ok(()) => self.accepted += 1,
            Err(reason) => self.refuse(index as u64, reason, keep_all),
        }
    }
}

impl Decoder {
    pub(super) fn new(index: usize, shared: Arc<Shared>, jobs: Receiver<Job>) -> Self {
        let builder = FrameBuilder::new(shared.options.limits.clone());
        Self {
            index,
            shared,
            jobs,
            builder,
            letters: Letters::default(),
            encoder: None,
            pending: Vec::new(),
            requests: Vec::new(),
            begun: HashSet::default(),
            opened: None,
            limits_set: 0,
        }
    }

    /// Works until the gateway drops its end of the queue and the queue is empty.
    pub(super) fn run(mut self) {
        loop {
            let job = match self.opened {
                None => self.jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(opened) => self.jobs.recv_deadline(opened + self.shared.options.frame_age),
            };
            match job {
                Ok(job) => {
                    self.take(job);
                    if self.is_due() {
                        self.close();
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.close(),
                Err(RecvTimeoutError::Disconnected) => {
                    self.close();
                    return;
                }
            }
        }
    }

    fn rows(&self) -> usize {
        self.builder.rows() + self.letters.rows()
    }

    fn is_due(&self) -> bool {
        let Some(opened) = self.opened else { return false };
        let options = &self.shared.options;
        self.rows() >= options.frame_rows
            || self.builder.approximate_bytes() + self.letters.bytes() >= options.frame_bytes
            || (self.jobs.is_empty()
                && (self.shared.nobody_else() || opened.elapsed() >= options.frame_age))
    }

    fn take(&mut self, job: Job) {
        // The shortest record has two bytes and a separator.
        if self.rows() > 0 && self.rows() + job.bytes / 3 >= MAX_FRAME_ROWS {
            self.close();
        }
        self.shared.taken.fetch_add(1, Ordering::AcqRel);
        let shared = Arc::clone(&self.shared);
        let on = &shared.on;
        let clock = on.clock.now();
        if self.opened.is_none() {
            let set = shared.limits_set.load(Ordering::Acquire);
            if set != self.limits_set {
                self.limits_set = set;
                self.builder.set_limits(shared.limits.lock().clone());
            }
            self.opened = Some(Instant::now());
            if let Some(open) = self.shared.open.get(self.index) {
                open.store(clock, Ordering::Release);
            }
        }
        let Job { submission, request, body_hash, bytes, since, reply } = job;
        let taken = self.decode(&submission, clock, request);
        on.metrics.bytes_received.inc_by(bytes as u64);
        on.metrics.records_received.inc_by(taken.accepted + taken.rejected_total);
        on.metrics.records_refused.inc_by(taken.rejected_total);
        self.shared.since_tick.fetch_add(taken.accepted, Ordering::AcqRel);
        if taken.rejected_total > 0 {
            on.live.tenant(submission.tenant.as_str()).add_refused(taken.rejected_total);
        }
        if let Some(key) = submission.key.clone() {
            self.requests.push(RequestEntry {
                tenant: submission.tenant.as_str().to_owned(),
                key,
                body_hash,
                clock,
                accepted: taken.accepted,
                rejected: taken.rejected.iter().take(KEPT_REASONS).cloned().collect(),
                rejected_total: taken.rejected_total,
            });
        }
        let receipt = Receipt {
            accepted: taken.accepted,
            rejected: taken.rejected,
            rejected_total: taken.rejected_total,
            repeated: false,
            offset: None,
        };
        self.pending.push(Pending { reply, receipt, bytes, since });
    }

    fn decode(&mut self, submission: &Submission, clock: i64, request: u64) -> Taken {
        let context = RequestContext {
            tenant: submission.tenant.as_str(),
            source: &submission.source,
            clock,
            domain: submission.domain.as_deref(),
            gateway: self.shared.on.identity,
            request,
            key: submission.key.as_deref(),
        };
        let mut taken = Taken::default();
        match &submission.body {
            Body::Json(body) => {
                let outcome = self.builder.push_json_body(&context, body);
                taken.accepted = outcome.accepted;
                taken.rejected = outcome.rejected;
                taken.rejected_total = outcome.rejected_total;
            }
            Body::BulkItems { body, items } => {
                self.decode_items(&context, body, items, &mut taken);
            }
            Body::Lines { body, ranges } => {
                for (index, range) in ranges.iter().enumerate() {
                    let result = match body.get(range.clone()).map(std::str::from_utf8) {
                        Some(Ok(line)) => self.builder.push_line(&context, index as u32, line),
                        Some(Err(_)) => Err("the line is not UTF-8".to_owned()),
                        None => Err("the line lies outside the body".to_owned()),
                    };
                    taken.count(index, result, false);
                }
            }
            Body::Records(records) => {
                for (index, record) in records.iter().enumerate() {
                    let mut fields = record.fields().map(|(name, value)| (name, convert(value)));
                    let result = self.builder.push_fields(&context, index as u32, &mut fields);
                    taken.count(index, result, false);
                }
            }
            Body::DeadLetters(letters) => {
                for (index, letter) in letters.iter().enumerate() {
                    self.letters.push(&context, index as u32, letter);
                    taken.accepted += 1;
                }
            }
        }
        taken
    }

    /// Bulk items: an item with an `_id` has that as its key (L4).
    fn decode_items(
        &mut self,
        context: &RequestContext<'_>,
        body: &Bytes,
        items: &[BulkItem],
        taken: &mut Taken,
    ) {
        for (index, item) in items.iter().enumerate() {
            let Some(document) = body.get(item.range.clone()) else {
                taken.refuse(index as u64, "the document lies outside the body".into(), true);
                continue;
            };
            let Some(id) = &item.id else {
                let result = self.builder.push_json_record(context, index as u32, document, None);
                taken.count(index, result, true);
                continue;
            };
            let key = format!("_id:{}:{id}", context.source);
            let hash = format!("{:032x}", xxhash_rust::xxh3::xxh3_128(document));
            let known = (context.tenant.to_owned(), key.clone());
            match self.shared.on.ledger.begin(context.tenant, &key, &hash) {
                Verdict::New => {
                    let result =
                        self.builder.push_json_record(context, index as u32, document, Some(id));
                    if result.is_ok() {
                        self.begun.insert(known);
                        self.requests.push(RequestEntry {
                            tenant: context.tenant.to_owned(),
                            key,
                            body_hash: hash,
                            clock: context.clock,
                            accepted: 1,
                            rejected: Vec::new(),
                            rejected_total: 0,
                        });
                    } else {
                        self.shared.on.ledger.forget(context.tenant, &key);
                    }
                    taken.count(index, result, true);
                }
                Verdict::Repeat(_) => taken.accepted += 1,
                Verdict::InFlight if self.begun.contains(&known) => taken.accepted += 1,
                Verdict::InFlight => taken.refuse(
                    index as u64,
                    "busy: this _id is being written by another request, send it again".into(),
                    true,
                ),
                Verdict::Conflict => taken.refuse(
                    index as u64,
                    "conflict: this _id was used with another document within 24 hours".into(),
                    true,
                ),
            }
        }
    }

    /// Closes the open frame and hands it to the log; the log's writer answers when it is durable.
    fn close(&mut self) {
        if self.opened.take().is_none() {
            return;
        }
        let stats = self.builder.stats();
        let metrics = &self.shared.on.metrics;
        metrics.fields_overflowed.inc_by(stats.overflow_fields);
        metrics.further_source_records.inc_by(stats.further_source_records);
        metrics.records_ahead_of_clock.inc_by(stats.future_times);
        let letters = self.letters.finish();
        let events = self.builder.finish();
        let pending = std::mem::take(&mut self.pending);
        let requests = std::mem::take(&mut self.requests);
        self.begun.clear();
        let clock = self.shared.on.clock.now();
        // The answers hang on the last entry: entries become durable in order.
        if let (Some(letters), true) = (&letters, events.is_some()) {
            self.append(DEAD_LETTERS, letters.clone(), Vec::new(), Vec::new(), clock);
        }
        match (events, letters) {
            (Some(events), _) => {
                let events = self.stamp(events);
                self.append(EVENTS, events, requests, pending, clock);
            }
            (None, Some(letters)) => {
                self.append(DEAD_LETTERS, letters, requests, pending, clock);
            }
            (None, None) => self.answer_without_records(requests, pending),
        }
        if let Some(open) = self.shared.open.get(self.index) {
            open.store(i64::MAX, Ordering::Release);
        }
    }

    /// Every record was refused or was a repeat: there is nothing to wait for.
    fn answer_without_records(&self, requests: Vec<RequestEntry>, pending: Vec<Pending>) {
        for request in requests {
            self.shared.on.ledger.forget(&request.tenant, &request.key);
        }
        answer(&self.shared, pending, Ok(None));
    }

    /// Looks the addresses up in the reputation lists and stamps the answer into the records (C4).
    fn stamp(&self, batch: RecordBatch) -> RecordBatch {
        let lists = self.shared.on.lists.load();
        let Some(levels) = palisade_detect::reputation::stamp(&batch, &lists) else { return batch };
        let schema = batch.schema();
        let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
        let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
        let after = fields
            .iter()
            .position(|field| {
                Core::by_name(field.name()).is_none_or(|core| core > Core::Reputation)
            })
            .unwrap_or(fields.len());
        fields.insert(after, Core::Reputation.field());
        columns.insert(after, Arc::new(levels));
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap_or(batch)
    }

    fn encode(&mut self, entry: &Entry) -> Result<Encoded, LogError> {
        let encoder = match self.encoder.take() {
            Some(encoder) => encoder,
            None => Encoder::new()?,
        };
        self.encoder.insert(encoder).encode(entry)
    }

    fn append(
        &mut self,
        stream: &str,
        batch: RecordBatch,
        requests: Vec<RequestEntry>,
        pending: Vec<Pending>,
        clock: i64,
    ) {
        let entry = Arc::new(Entry::Frame(Frame {
            stream: stream.to_owned(),
            clock,
            gateway: self.shared.on.identity,
            requests,
            batch,
        }));
        let encoded = match self.encode(&entry) {
            Ok(encoded) => encoded,
            Err(error) => return self.fail(&entry, pending, &error),
        };
        let shared = Arc::clone(&self.shared);
        let durable = Arc::clone(&entry);
        // The callback owns the answers; when the log refuses at once it is dropped, and with it
        // the senders, which the waiting requests see as "stopped". So a refusal is told apart first.
        let waiting = Arc::new(parking_lot::Mutex::new(pending));
        let held = Arc::clone(&waiting);
        let done = Box::new(move |result: Result<Offset, LogError>| {
            let pending = std::mem::take(&mut *held.lock());
            if let Entry::Frame(frame) = durable.as_ref() {
                for request in &frame.requests {
                    match &result {
                        Ok(_) => shared.on.ledger.record(request),
                        Err(_) => shared.on.ledger.forget(&request.tenant, &request.key),
                    }
                }
            }
            answer(&shared, pending, result.as_ref().map(|offset| Some(*offset)));
        });
        if let Err(error) = self.shared.on.log.append(Arc::clone(&entry), encoded, done) {
            let pending = std::mem::take(&mut *waiting.lock());
            self.fail(&entry, pending, &error);
        }
    }

    fn fail(&self, entry: &Entry, pending: Vec<Pending>, error: &LogError) {
        if let Entry::Frame(frame) = entry {
            for request in &frame.requests {
                self.shared.on.ledger.forget(&request.tenant, &request.key);
            }
        }
        answer(&self.shared, pending, Err(error));
    }
}

/// Gives the answers of a frame.
fn answer(shared: &Shared, pending: Vec<Pending>, result: Result<Option<Offset>, &LogError>) {
    let metrics = &shared.on.metrics;
    for Pending { reply, mut receipt, bytes, since } in pending {
        let answer = match result {
            Ok(offset) => {
                receipt.offset = offset;
                metrics.records_accepted.inc_by(receipt.accepted);
                metrics.ack_seconds.observe(since.elapsed().as_secs_f64());
                Ok(receipt)
            }
            Err(error) => Err(shared.refusal(error)),
        };
        shared.answered(bytes, true);
        // A client that hung up gets no answer; its records are durable all the same.
        let _ = reply.send(answer);
    }
}

fn convert(value: FieldValue<'_>) -> Value<'_> {
    match value {
        FieldValue::Text(text) => Value::Text(text),
        FieldValue::Int(number) => Value::Int(number),
        FieldValue::Float(number) => Value::Float(number),
        FieldValue::Bool(flag) => Value::Bool(flag),
        FieldValue::Time(micros) => Value::Time(micros),
        FieldValue::Json(text) => Value::Json(text),
    }
}
