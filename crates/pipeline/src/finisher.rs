//! The finisher: takes finished work in order again, combines what the workers found, and appends
//! the rows to the tables, where SQL sees them at once.
//!
//! Whichever worker finishes a piece of work last hands it over. One of the workers then plays the
//! finisher for everything that is due; the others put theirs in the queue and go on.

use crate::alerts::{self, AlertRow};
use crate::checkpoint::{CORRELATIONS, CheckpointTask};
use crate::control::{CLOCK, InForce};
use crate::detectors::OrderedDetectors;
use crate::error::PipelineError;
use crate::flow::{InFlight, Results, Work, WorkKind};
use crate::ledger::Ledger;
use crate::live::Live;
use crate::metrics::{DetectorLabel, Metrics};
use arc_swap::ArcSwap;
use arrow::array::{Array, ArrayRef, RecordBatch, UInt64Array};
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use palisade_event::column::Text;
use palisade_event::schema::{ALERTS, Core, DEAD_LETTERS, EVENTS};
use palisade_event::{Entry, Frame, Offset};
use palisade_table::Tables;
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[derive(Debug)]
pub(crate) struct Finisher {
    waiting: Mutex<BTreeMap<u64, Arc<Work>>>,
    ordered: Mutex<Ordered>,
    tables: Arc<Tables>,
    ledger: Arc<Ledger>,
    live: Arc<Live>,
    metrics: Metrics,
    visible: AtomicU64,
    /// What is in force behind the last entry.
    in_force: ArcSwap<InForce>,
    moved: (Mutex<()>, Condvar),
    /// Uncommitted bytes above which workers wait for the committer (M4).
    most_uncommitted: u64,
    /// A checkpoint of the correlations is being written.
    saving: AtomicBool,
}

/// A checkpoint that the state of the correlations is being written for.
#[derive(Debug)]
struct Saving {
    task: Arc<CheckpointTask>,
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct Ordered {
    next: u64,
    detectors: OrderedDetectors,
    /// The schema of the last frame of events as it went into the tables.
    schema: Option<SchemaRef>,
    saving: Option<Saving>,
}

impl Finisher {
    pub(crate) fn new(
        detectors: OrderedDetectors,
        tables: Arc<Tables>,
        ledger: Arc<Ledger>,
        live: Arc<Live>,
        metrics: Metrics,
        from: Offset,
        most_uncommitted: u64,
    ) -> Self {
        live.set_waits_for_time(detectors.waits_for_time());
        Self {
            in_force: ArcSwap::from_pointee(detectors.in_force().clone()),
            waiting: Mutex::default(),
            ordered: Mutex::new(Ordered { next: 0, detectors, schema: None, saving: None }),
            saving: AtomicBool::new(false),
            tables,
            ledger,
            live,
            metrics,
            visible: AtomicU64::new(from.0),
            moved: (Mutex::new(()), Condvar::new()),
            most_uncommitted,
        }
    }

    /// The committer has made room.
    pub(crate) fn committed(&self) {
        self.moved.1.notify_all();
    }

    /// Entries below this offset are visible.
    pub(crate) fn visible(&self) -> Offset {
        Offset(self.visible.load(Ordering::Acquire))
    }

    /// What is in force for the next entry.
    pub(crate) fn in_force(&self) -> Arc<InForce> {
        self.in_force.load_full()
    }

    /// Waits until the visible position has moved, or the time is over.
    pub(crate) fn wait_moved(&self, time: Duration) {
        let mut guard = self.moved.0.lock();
        self.moved.1.wait_for(&mut guard, time);
    }

    /// Takes finished work; processes everything that is due, unless another worker does already.
    pub(crate) fn hand_over(&self, work: Arc<Work>) -> Result<(), PipelineError> {
        self.waiting.lock().insert(work.number, work);
        // The look after unlocking catches work that came while another worker was leaving.
        loop {
            let Some(mut ordered) = self.ordered.try_lock() else { return Ok(()) };
            loop {
                let due = self.waiting.lock().remove(&ordered.next);
                let Some(work) = due else { break };
                ordered.next += 1;
                self.finish(&mut ordered, &work)?;
            }
            let next = ordered.next;
            drop(ordered);
            if !self.waiting.lock().contains_key(&next) {
                return Ok(());
            }
        }
    }

    fn finish(&self, ordered: &mut Ordered, work: &Work) -> Result<(), PipelineError> {
        let Ordered { detectors, schema, saving, .. } = ordered;
        let flight = match &work.kind {
            WorkKind::Entry(flight) => flight,
            WorkKind::Checkpoint(task) => {
                if detectors.begin_snapshot(task.full) {
                    *saving = Some(Saving { task: Arc::clone(task), bytes: Vec::new() });
                    self.saving.store(true, Ordering::Release);
                } else {
                    task.fail("the correlations are still writing the one before".to_owned());
                }
                task.part("norms".to_owned(), detectors.save());
                match detectors.in_force().save() {
                    Ok(bytes) => task.part("control".to_owned(), bytes),
                    Err(error) => task.fail(error.to_string()),
                }
                return Ok(());
            }
        };
        if flight.full {
            self.wait_for_room();
        }
        match flight.entry.as_ref() {
            Entry::Frame(frame) => {
                self.ledger.follow(flight.offset, &frame.requests);
                self.finish_frame(detectors, schema, flight, frame)?;
            }
            Entry::Tick { clock, .. } => {
                detectors.in_force().check(flight.offset)?;
                let revisions = detectors.on_tick(flight.offset, *clock);
                self.add_alerts(flight, &revisions)?;
            }
            Entry::Control { clock, kind, body } => {
                let revisions = detectors.control(flight.offset, *clock, kind, body)?;
                self.add_alerts(flight, &revisions)?;
                if kind != CLOCK {
                    self.in_force.store(Arc::new(detectors.in_force().clone()));
                }
            }
        }
        self.live.set_waits_for_time(detectors.waits_for_time());
        let visible = flight.offset.next();
        if flight.full {
            self.tables.advance(visible);
        }
        self.visible.store(visible.0, Ordering::Release);
        self.metrics.visible_position.set(i64::try_from(visible.0).unwrap_or(i64::MAX));
        self.moved.1.notify_all();
        Ok(())
    }

    /// Waits until few enough bytes are uncommitted (M4).
    fn wait_for_room(&self) {
        loop {
            let bytes = self.tables.uncommitted().bytes;
            self.metrics.uncommitted_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
            if bytes <= self.most_uncommitted {
                return;
            }
            self.wait_moved(Duration::from_millis(20));
        }
    }

    fn finish_frame(
        &self,
        detectors: &mut OrderedDetectors,
        schema: &mut Option<SchemaRef>,
        flight: &InFlight,
        frame: &Frame,
    ) -> Result<(), PipelineError> {
        let columns = |source| PipelineError::Columns { offset: flight.offset.0, source };
        let rows = frame.batch.num_rows();
        if frame.stream != EVENTS {
            if flight.full {
                let added = vec![position(flight.offset, rows)];
                let batch = with_columns(&frame.batch, added, &mut None).map_err(columns)?;
                self.count(&batch, |counters, rows| counters.add_dead_letters(rows));
                self.metrics.records_dead_lettered.inc_by(rows as u64);
                self.tables.append(DEAD_LETTERS, flight.offset, batch)?;
            }
            return Ok(());
        }
        let results: Results = std::mem::take(&mut *flight.results.lock());
        let judged = detectors.combine((flight.offset, frame.clock), &frame.batch, results);
        if !flight.full {
            return Ok(());
        }
        let mut added = vec![position(flight.offset, rows)];
        added.extend(judged.columns);
        let batch = with_columns(&frame.batch, added, schema).map_err(columns)?;
        for alert in judged.alerts.iter().filter(|alert| alert.detector == "baseline") {
            self.metrics.streamguard_anomalies.inc();
            self.metrics.streamguard_score.observe(f64::from(alert.score));
        }
        let mut alerts = alerts::rows(&frame.batch, flight.offset, judged.alerts);
        alerts.extend(judged.revisions);
        self.add_alerts(flight, &alerts)?;
        self.count(&batch, |counters, rows| counters.add_stored(rows));
        self.tables.append(EVENTS, flight.offset, batch)?;
        self.metrics.frames.inc();
        self.metrics.frame_rows.observe(rows as f64);
        self.metrics.records_stored.inc_by(rows as u64);
        self.metrics.streamguard_events.inc_by(rows as u64);
        let elapsed = flight.since.elapsed().as_secs_f64();
        self.metrics.visible_seconds.observe(elapsed);
        self.metrics.streamguard_latency.observe(elapsed);
        Ok(())
    }

    /// Puts rows into the table of alerts, unless they are there from before a restart.
    fn add_alerts(&self, flight: &InFlight, rows: &[AlertRow]) -> Result<(), PipelineError> {
        if !flight.full {
            return Ok(());
        }
        let built = alerts::build(rows)
            .map_err(|source| PipelineError::Columns { offset: flight.offset.0, source })?;
        let Some(built) = built else { return Ok(()) };
        for row in rows.iter().filter(|row| row.revision == 0) {
            let (detector, severity) = (row.detector, row.severity);
            self.metrics.alerts.get_or_create(&DetectorLabel { detector, severity }).inc();
        }
        self.tables.append(ALERTS, flight.offset, built.batch)?;
        for (tenant, alerts) in built.live {
            self.live.announce(&tenant, alerts);
        }
        Ok(())
    }

    /// Whether [`Finisher::save_some`] has something to do.
    pub(crate) fn is_saving(&self) -> bool {
        self.saving.load(Ordering::Acquire)
    }

    /// Goes on with a checkpoint of the correlations, unless frames are being finished: they come first.
    pub(crate) fn save_some(&self) {
        if !self.is_saving() {
            return;
        }
        let Some(mut ordered) = self.ordered.try_lock() else { return };
        let Ordered { detectors, saving, .. } = &mut *ordered;
        let Some(open) = saving else { return };
        let begun = Instant::now();
        let done = detectors.snapshot_step(&mut open.bytes);
        self.metrics.checkpoint_pause_seconds.observe(begun.elapsed().as_secs_f64());
        if done && let Some(Saving { task, bytes }) = saving.take() {
            self.saving.store(false, Ordering::Release);
            task.part(CORRELATIONS.to_owned(), bytes);
        }
    }

    /// Counts a batch's rows for each of its tenants.
    fn count(&self, batch: &RecordBatch, add: impl Fn(&crate::live::TenantCounters, u64)) {
        let Some(tenants) = Text::in_batch(batch, Core::Tenant.name()) else { return };
        let mut per_key: BTreeMap<&str, u64> = BTreeMap::new();
        match tenants.values() {
            Some(values) if values.len() == 1 && values.is_valid(0) => {
                per_key.insert(values.value(0), batch.num_rows() as u64);
            }
            _ => {
                for tenant in (0..tenants.len()).filter_map(|row| tenants.get(row)) {
                    *per_key.entry(tenant).or_default() += 1;
                }
            }
        }
        for (tenant, rows) in per_key {
            add(&self.live.tenant(tenant), rows);
        }
    }
}

fn position(offset: Offset, rows: usize) -> (Core, ArrayRef) {
    let positions = UInt64Array::from_iter_values((0..rows).map(|row| offset.position(row)));
    (Core::Position, Arc::new(positions))
}

/// The batch with further core columns, in the order of [`Core`] before the dynamic ones. Frames of the
/// same columns share `last`: a query then adapts its expressions to them once and not for each.
fn with_columns(
    batch: &RecordBatch,
    added: Vec<(Core, ArrayRef)>,
    last: &mut Option<SchemaRef>,
) -> Result<RecordBatch, arrow::error::ArrowError> {
    let schema = batch.schema();
    let mut columns: Vec<(Option<Core>, FieldRef, ArrayRef)> = schema
        .fields()
        .iter()
        .zip(batch.columns())
        .map(|(field, array)| (Core::by_name(field.name()), Arc::clone(field), Arc::clone(array)))
        .collect();
    for (core, array) in added {
        let field = core.field();
        let field = if field.data_type() == array.data_type() {
            field
        } else {
            Arc::new(field.as_ref().clone().with_data_type(array.data_type().clone()))
        };
        columns.push((Some(core), field, array));
    }
    columns.sort_by_key(|(core, _, _)| core.map_or(u8::MAX, |core| core as u8));
    let (fields, arrays): (Vec<FieldRef>, Vec<ArrayRef>) =
        columns.into_iter().map(|(_, field, array)| (field, array)).unzip();
    let same = |schema: &SchemaRef| {
        schema.fields().len() == fields.len()
            && schema.fields().iter().zip(&fields).all(|(a, b)| Arc::ptr_eq(a, b) || a == b)
    };
    let schema = match last.take().filter(same) {
        Some(schema) => schema,
        None => Arc::new(Schema::new(fields)),
    };
    *last = Some(Arc::clone(&schema));
    RecordBatch::try_new(schema, arrays)
}
