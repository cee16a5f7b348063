//! The gateway: turns submissions of the front doors into durable frames, and answers when they are.
//!
//! Each decoder thread takes waiting submissions, decodes them into the columns of one open frame, and closes it when
//! it is large, when it is [`GatewayOptions::frame_age`] old, or when every sender waits for an answer: no request is on
//! its way, and as many wait as were ever on their way at a time in the last second. A submission is in one frame
//! (L1). Its answer is given by the log's writer after the fsync, never before.
//!
//! Everything is bounded: requests and bytes that wait ([`SubmitError::Busy`] beyond), rows and
//! bytes of a frame, and the log's own queue, which makes a decoder wait.

mod decoder;
mod letters;
#[cfg(test)]
mod tests;

use crate::submit::{DomainTurn, Receipt, Submission, Submit, SubmitError, Submitted, Turned};
use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, Sender, TrySendError};
use decoder::Decoder;
use palisade_detect::reputation::{Lists, sender_refused};
use palisade_event::decode::DecodeLimits;
use palisade_event::id::GatewayIdentity;
use palisade_event::{Entry, ErrorClass, TenantId};
use palisade_log::{Log, LogError};
use palisade_pipeline::clock::Clock;
use palisade_pipeline::control;
use palisade_pipeline::ledger::{Ledger, Verdict};
use palisade_pipeline::live::Live;
use palisade_pipeline::metrics::{Metrics, StageLabel};
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How the gateway is built.
#[derive(Debug, Clone)]
pub struct GatewayOptions {
    /// Decoder threads.
    pub decoders: usize,
    /// Requests that may wait for a decoder.
    pub queue_requests: usize,
    /// Bytes of requests that may wait for a decoder or for their answer.
    pub queue_bytes: usize,
    /// A frame is closed at this many rows …
    pub frame_rows: usize,
    /// … or this many bytes …
    pub frame_bytes: usize,
    /// … or at this age.
    pub frame_age: Duration,
    /// What a busy answer tells the client to wait.
    pub retry_after_ms: u64,
    /// Bounds of the decoders.
    pub limits: DecodeLimits,
}

impl Default for GatewayOptions {
    fn default() -> Self {
        Self {
            decoders: 2,
            queue_requests: 4096,
            queue_bytes: 96 << 20,
            frame_rows: 4_096,
            frame_bytes: 8 << 20,
            frame_age: Duration::from_millis(5),
            retry_after_ms: 250,
            limits: DecodeLimits::default(),
        }
    }
}

/// What the gateway is built upon.
#[derive(Debug, Clone)]
pub struct GatewayFoundations {
    /// The log.
    pub log: Arc<Log>,
    /// The ledger of idempotency keys.
    pub ledger: Arc<Ledger>,
    /// The live counters.
    pub live: Arc<Live>,
    /// The metrics.
    pub metrics: Metrics,
    /// The clock that is stamped into records.
    pub clock: Arc<dyn Clock>,
    /// Who this gateway is.
    pub identity: GatewayIdentity,
    /// The reputation lists in force.
    pub lists: Arc<ArcSwap<Lists>>,
}

/// A submission on its way to a decoder.
struct Job {
    submission: Submission,
    request: u64,
    body_hash: String,
    bytes: usize,
    since: Instant,
    reply: oneshot::Sender<Result<Receipt, SubmitError>>,
}

/// What all threads of the gateway share.
struct Shared {
    on: GatewayFoundations,
    options: GatewayOptions,
    stopping: AtomicBool,
    /// The bounds of the decoders in force, and how often they were set.
    limits: Mutex<DecodeLimits>,
    limits_set: AtomicU64,
    queue_bytes: AtomicUsize,
    next_request: AtomicU64,
    waiting_bytes: AtomicUsize,
    /// Submissions that have no answer yet.
    active: AtomicUsize,
    /// Of these, the ones that a decoder has taken.
    taken: AtomicUsize,
    /// The most that were active at a time, in this second and in the one before.
    peaks: [AtomicUsize; 2],
    /// Records since the last tick.
    since_tick: AtomicU64,
    /// For each decoder the clock of the oldest row of its open frame, `i64::MAX` without one: what
    /// a tick may not overtake (T3).
    open: Vec<AtomicI64>,
}

/// The gateway. Stop it with [`Gateway::stop`] before the log is closed.
pub struct Gateway {
    shared: Arc<Shared>,
    jobs: Mutex<Option<Sender<Job>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    stopped: Arc<(Mutex<bool>, Condvar)>,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

impl Gateway {
    /// Starts the decoder threads and the ticker.
    ///
    /// # Errors
    /// When a thread can't be started.
    pub fn start(on: GatewayFoundations, options: GatewayOptions) -> std::io::Result<Self> {
        let decoders = options.decoders.max(1);
        let (sender, receiver): (Sender<Job>, Receiver<Job>) =
            crossbeam_channel::bounded(options.queue_requests.max(1));
        let shared = Arc::new(Shared {
            on,
            limits: Mutex::new(options.limits.clone()),
            limits_set: AtomicU64::new(0),
            queue_bytes: AtomicUsize::new(options.queue_bytes),
            options,
            stopping: AtomicBool::new(false),
            next_request: AtomicU64::new(0),
            waiting_bytes: AtomicUsize::new(0),
            active: AtomicUsize::new(0),
            taken: AtomicUsize::new(0),
            peaks: [const { AtomicUsize::new(0) }; 2],
            since_tick: AtomicU64::new(0),
            open: (0..decoders).map(|_| AtomicI64::new(i64::MAX)).collect(),
        });
        let mut threads = Vec::new();
        for index in 0..decoders {
            let decoder = Decoder::new(index, Arc::clone(&shared), receiver.clone());
            threads.push(
                std::thread::Builder::new()
                    .name(format!("decoder-{index}"))
                    .spawn(move || decoder.run())?,
            );
        }
        let stopped = Arc::new((Mutex::new(false), Condvar::new()));
        threads.push(std::thread::Builder::new().name("ticker".into()).spawn({
            let (shared, stopped) = (Arc::clone(&shared), Arc::clone(&stopped));
            move || tick(&shared, &stopped)
        })?);
        Ok(Self { shared, jobs: Mutex::new(Some(sender)), threads: Mutex::new(threads), stopped })
    }

    /// Takes nothing more, writes what was taken, and waits until all of it is answered.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.jobs.lock().take();
        *self.stopped.0.lock() = true;
        self.stopped.1.notify_all();
        for thread in std::mem::take(&mut *self.threads.lock()) {
            if thread.join().is_err() {
                tracing::error!(
                    "a thread of the gateway panicked; what it held was not acknowledged"
                );
            }
        }
    }

    /// The lists that stamp reputation into records; store new ones to put them in force.
    #[must_use]
    pub fn lists(&self) -> &Arc<ArcSwap<Lists>> {
        &self.shared.on.lists
    }

    /// Sets other bounds of records and of the bytes that may wait, from the next frame on. Which fields are protected
    /// stays ([`Gateway::protect`]).
    pub fn set_limits(&self, limits: DecodeLimits, queue_bytes: usize) {
        {
            let mut held = self.shared.limits.lock();
            *held = DecodeLimits { protected: Arc::clone(&held.protected), ..limits };
        }
        self.shared.queue_bytes.store(queue_bytes, Ordering::Release);
        self.shared.limits_set.fetch_add(1, Ordering::AcqRel);
    }

    /// Fields of these paths get columns from now on whatever else is sent, beyond the bounds of columns: those that
    /// rules need.
    pub fn protect(&self, paths: BTreeSet<String>) {
        let mut held = self.shared.limits.lock();
        if *held.protected != paths {
            held.protected = Arc::new(paths);
            self.shared.limits_set.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Appends a control record and waits until it is durable. What was acknowledged before stands before
    /// it in the log.
    fn write_turn(
        &self,
        tenant: &TenantId,
        domain: &str,
        turn: DomainTurn,
    ) -> Result<(), SubmitError> {
        let on = &self.shared.on;
        if self.shared.stopping.load(Ordering::Acquire) {
            return Err(SubmitError::Stopped);
        }
        let ends = turn == DomainTurn::Ends;
        let entry = control::domain(on.clock.now(), tenant.as_str(), domain, ends)
            .map_err(|error| SubmitError::Invalid(error.to_string()))?;
        on.log.append_and_wait(entry).map(drop).map_err(|error| self.shared.refusal(&error))
    }

    /// Hands a job to the decoders; what can't be taken comes back.
    fn enqueue(&self, job: Job) -> Result<(), Box<(SubmitError, Job)>> {
        let jobs = self.jobs.lock().clone();
        let Some(jobs) = jobs else { return Err(Box::new((SubmitError::Stopped, job))) };
        let busy = SubmitError::Busy { retry_after_ms: self.shared.options.retry_after_ms };
        match jobs.try_send(job) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(job)) => Err(Box::new((busy, job))),
            Err(TrySendError::Disconnected(job)) => Err(Box::new((SubmitError::Stopped, job))),
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Submit for Arc<Gateway> {
    fn submit(&self, submission: Submission) -> Submitted {
        let gateway = Self::clone(self);
        Box::pin(async move { gateway.take(submission).await })
    }

    fn turn_domain(&self, tenant: TenantId, domain: Arc<str>, turn: DomainTurn) -> Turned {
        let gateway = Self::clone(self);
        Box::pin(async move {
            let written =
                tokio::task::spawn_blocking(move || gateway.write_turn(&tenant, &domain, turn));
            written.await.unwrap_or(Err(SubmitError::Stopped))
        })
    }
}

impl Gateway {
    async fn take(&self, submission: Submission) -> Result<Receipt, SubmitError> {
        let shared = &self.shared;
        let metrics = &shared.on.metrics;
        metrics.requests.inc();
        if shared.stopping.load(Ordering::Acquire) {
            return Err(SubmitError::Stopped);
        }
        if let Some(peer) = submission.peer
            && let Some(listed) = sender_refused(&shared.on.lists.load(), peer)
        {
            return Err(SubmitError::Refused(format!(
                "the sender's address {peer} is on the block list '{}'",
                listed.list
            )));
        }
        let key = submission.key.clone();
        let tenant = submission.tenant.clone();
        let body_hash = match &key {
            Some(key) => {
                let hash = format!("{:032x}", submission.body.content_hash());
                match self.ask_ledger(tenant.as_str(), key, &hash).await? {
                    Some(receipt) => return Ok(receipt),
                    None => hash,
                }
            }
            None => String::new(),
        };
        let result = self.hand_over(submission, body_hash).await;
        if result.is_err()
            && let Some(key) = &key
        {
            shared.on.ledger.forget(tenant.as_str(), key);
        }
        result
    }

    async fn ask_ledger(
        &self,
        tenant: &str,
        key: &str,
        hash: &str,
    ) -> Result<Option<Receipt>, SubmitError> {
        // A request with the same key that is being written is answered within the time that its
        // fsync takes; a client that repeats even faster waits here for that.
        for _ in 0..200 {
            match self.shared.on.ledger.begin(tenant, key, hash) {
                Verdict::New => return Ok(None),
                Verdict::Conflict => return Err(SubmitError::KeyConflict),
                Verdict::Repeat(entry) => {
                    self.shared.on.metrics.requests_repeated.inc();
                    return Ok(Some(Receipt {
                        accepted: entry.accepted,
                        rejected: entry.rejected.clone(),
                        rejected_total: entry.rejected_total,
                        repeated: true,
                        offset: None,
                    }));
                }
                Verdict::InFlight => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
        Err(SubmitError::Busy { retry_after_ms: self.shared.options.retry_after_ms })
    }

    async fn hand_over(
        &self,
        submission: Submission,
        body_hash: String,
    ) -> Result<Receipt, SubmitError> {
        let shared = &self.shared;
        let metrics = &shared.on.metrics;
        let bytes = submission.body.bytes();
        let waiting = shared.waiting_bytes.fetch_add(bytes, Ordering::AcqRel);
        // One request may always wait, however large the doors let it be.
        if waiting > 0 && waiting + bytes > shared.queue_bytes.load(Ordering::Relaxed) {
            shared.waiting_bytes.fetch_sub(bytes, Ordering::AcqRel);
            metrics.requests_busy.inc();
            return Err(SubmitError::Busy { retry_after_ms: shared.options.retry_after_ms });
        }
        let active = shared.active.fetch_add(1, Ordering::AcqRel) + 1;
        let [this_second, _] = &shared.peaks;
        this_second.fetch_max(active, Ordering::AcqRel);
        let (reply, answer) = oneshot::channel();
        let job = Job {
            submission,
            request: shared.next_request.fetch_add(1, Ordering::Relaxed),
            body_hash,
            bytes,
            since: Instant::now(),
            reply,
        };
        if let Err(refused) = self.enqueue(job) {
            let (error, job) = *refused;
            metrics.requests_busy.inc();
            shared.answered(job.bytes, false);
            return Err(error);
        }
        answer.await.unwrap_or(Err(SubmitError::Stopped))
    }
}

impl Shared {
    /// What a refusal of the log means to a sender.
    fn refusal(&self, error: &LogError) -> SubmitError {
        match error {
            LogError::DiskLow { .. } => SubmitError::DiskLow,
            error if error.class() == ErrorClass::Transient => {
                SubmitError::Busy { retry_after_ms: self.options.retry_after_ms }
            }
            _ => SubmitError::Stopped,
        }
    }

    /// Accounts for a submission that has its answer.
    fn answered(&self, bytes: usize, taken: bool) {
        self.waiting_bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.active.fetch_sub(1, Ordering::AcqRel);
        if taken {
            self.taken.fetch_sub(1, Ordering::AcqRel);
        }
        let depth = self.active.load(Ordering::Relaxed);
        let label = StageLabel { stage: "gateway" };
        self.on
            .metrics
            .queue_depth
            .get_or_create(&label)
            .set(i64::try_from(depth).unwrap_or(i64::MAX));
    }

    /// Whether waiting longer would gain nothing: every submission on its way is in some open or closed frame already,
    /// and as many senders wait for an answer as ever did at a time lately. A sender that is alone is never kept
    /// waiting; many that don't wait for each other fill frames together, which costs each record less.
    fn nobody_else(&self) -> bool {
        let active = self.active.load(Ordering::Acquire);
        let peak =
            self.peaks.iter().map(|peak| peak.load(Ordering::Acquire)).fold(0, std::cmp::max);
        active <= self.taken.load(Ordering::Acquire) && active >= peak
    }
}

/// How often the gateway's clock is appended while records come that something waits for …
const CLOCK_EVERY: Duration = Duration::from_millis(100);
/// … and every how many of these there is a tick.
const CLOCKS_PER_TICK: u32 = 10;

/// Appends the gateway's clock every second in which something could wait for it (T3): a second
/// with records, and one more; as long as the pipeline says that something waits. Between the ticks, clock records
/// follow the records that correlations wait for, so that an alert is not a second late.
fn tick(shared: &Shared, stopped: &(Mutex<bool>, Condvar)) {
    let mut quiet = true;
    let (mut clocks, mut seen) = (0, 0);
    loop {
        {
            let mut stop = stopped.0.lock();
            if !*stop {
                stopped.1.wait_for(&mut stop, CLOCK_EVERY);
            }
            if *stop {
                return;
            }
        }
        clocks += 1;
        if clocks < CLOCKS_PER_TICK {
            let came = shared.since_tick.load(Ordering::Acquire);
            if came > seen && shared.on.live.waits_for_time() {
                append_clock(shared);
            }
            seen = came;
            continue;
        }
        (clocks, seen) = (0, 0);
        let [this_second, last_second] = &shared.peaks;
        let peak = this_second.swap(shared.active.load(Ordering::Acquire), Ordering::AcqRel);
        last_second.store(peak, Ordering::Release);
        let records = shared.since_tick.swap(0, Ordering::AcqRel);
        if records == 0 && quiet && !shared.on.live.waits_for_time() {
            continue;
        }
        quiet = records == 0;
        let entry = Entry::Tick { clock: open_clock(shared), gateway: shared.on.identity };
        let appended = palisade_log::encode(&entry)
            .and_then(|encoded| shared.on.log.append(Arc::new(entry), encoded, Box::new(|_| ())));
        if let Err(error) = appended {
            tracing::warn!(%error, "the clock's tick could not be written; it is tried again in a second");
            quiet = false;
        }
    }
}

/// No row that is appended from now on has an older clock.
fn open_clock(shared: &Shared) -> i64 {
    let now = shared.on.clock.now();
    shared.open.iter().map(|open| open.load(Ordering::Acquire)).fold(now, i64::min)
}

/// Appends a clock record. One that can't be written is made up for by the next tick.
fn append_clock(shared: &Shared) {
    let Ok(entry) = control::clock(open_clock(shared)) else { return };
    let appended = palisade_log::encode(&entry)
        .and_then(|encoded| shared.on.log.append(Arc::new(entry), encoded, Box::new(|_| ())));
    if let Err(error) = appended {
        tracing::debug!(%error, "a clock record could not be written");
    }
}
