//! Running queries: on threads of their own, a bounded number at once, each within its limits.

use crate::error::QueryError;
use crate::kept::Kept;
use crate::limits::{Excess, Limits, Options};
use crate::log::QueryLog;
use crate::pool::{Budget, QueryPool};
use crate::session::{Session, Template};
use crate::snapshots::Snapshots;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::DataFusionError;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt};
use palisade_event::TenantId;
use palisade_table::Snapshot;
use palisade_table::provider::{ReadCache, find_damage};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout_at;

/// A limit of rows beyond this is none.
const MAX_ROWS: usize = 1 << 60;
/// The stack of a query thread. With it, [`crate::guard::MAX_DEPTH`] is safe by a wide margin.
const STACK_BYTES: usize = 32 << 20;

/// What is known of a query while it runs and after it.
#[derive(Debug, Default)]
pub struct QueryStats {
    rows: AtomicU64,
    truncated: AtomicBool,
    planned: AtomicU64,
    total: AtomicU64,
    memory: AtomicUsize,
    bytes: AtomicU64,
}

impl QueryStats {
    /// How many rows were given so far.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Whether rows were left out at the limit. Known once the result is read to its end.
    #[must_use]
    pub fn truncated(&self) -> bool {
        self.truncated.load(Ordering::Relaxed)
    }

    /// How long planning took.
    #[must_use]
    pub fn planning(&self) -> Duration {
        Duration::from_micros(self.planned.load(Ordering::Relaxed))
    }

    /// How long the query took in all. Known once the result is read to its end.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        Duration::from_micros(self.total.load(Ordering::Relaxed))
    }

    /// The most memory used at once, in bytes.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.memory.load(Ordering::Relaxed)
    }

    /// Bytes read from segments. Known once the result is read to its end.
    #[must_use]
    pub fn bytes_scanned(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// A result that arrives batch by batch. Dropping it stops the query.
#[derive(Debug)]
pub struct QueryResult {
    /// The columns.
    pub schema: SchemaRef,
    /// What is known of the query.
    pub stats: Arc<QueryStats>,
    batches: mpsc::Receiver<Result<RecordBatch, QueryError>>,
    deadline: Option<Deadline>,
}

/// When the reader gives up. The query's task has the same limit; but a step of a plan may keep its thread
/// for long, and nobody shall wait for that.
struct Deadline {
    at: Pin<Box<tokio::time::Sleep>>,
    limit: Duration,
}

impl std::fmt::Debug for Deadline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Deadline({:?})", self.limit)
    }
}

impl QueryResult {
    /// All batches at once: for results that are known to be small.
    ///
    /// # Errors
    /// The first error of the query.
    pub async fn collect(mut self) -> Result<Vec<RecordBatch>, QueryError> {
        let mut batches = Vec::new();
        while let Some(batch) = self.next().await {
            batches.push(batch?);
        }
        Ok(batches)
    }
}

impl Stream for QueryResult {
    type Item = Result<RecordBatch, QueryError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(deadline) = &mut self.deadline else { return Poll::Ready(None) };
        let limit = deadline.limit;
        let late = deadline.at.as_mut().poll(context).is_ready();
        match self.batches.poll_recv(context) {
            Poll::Pending if late => {
                self.batches.close();
                self.deadline = None;
                Poll::Ready(Some(Err(QueryError::Time(limit))))
            }
            other => other,
        }
    }
}

/// Answers queries over the tables that [`Snapshots`] gives.
#[derive(Debug)]
pub struct QueryEngine {
    shared: Arc<Shared>,
    turns: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    runtime: Option<tokio::runtime::Runtime>,
}

struct Shared {
    options: Options,
    snapshots: Arc<dyn Snapshots>,
    template: Template,
    budget: Arc<Budget>,
    cache: Arc<ReadCache>,
    log: Arc<QueryLog>,
    kept: Kept,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Drop for QueryEngine {
    fn drop(&mut self) {
        // A runtime must not be dropped where another one runs; queries that still run are cut off.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl QueryEngine {
    /// An engine over these tables, with its own threads.
    ///
    /// # Errors
    /// [`QueryError::Internal`] when the threads cannot be made.
    pub fn new(options: Options, snapshots: Arc<dyn Snapshots>) -> Result<Self, QueryError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(options.threads.max(1))
            .thread_name("query")
            // Plans are walked by recursion; the memory is only used when a plan is that deep.
            .thread_stack_size(STACK_BYTES)
            .enable_time()
            .build()
            .map_err(|error| QueryError::Internal(format!("no threads for queries: {error}")))?;
        let share = options.spill_bytes / options.concurrent.max(1) as u64;
        let template = Template::new(options.threads.max(1), options.spill.clone(), share);
        Ok(Self {
            turns: Arc::new(Semaphore::new(options.concurrent.max(1))),
            waiting: Arc::new(AtomicUsize::new(0)),
            shared: Arc::new(Shared {
                budget: Budget::new(options.memory),
                cache: ReadCache::new(options.cache),
                log: Arc::new(QueryLog::new(options.log)),
                kept: Kept::default(),
                template,
                snapshots,
                options,
            }),
            runtime: Some(runtime),
        })
    }

    /// The last queries.
    #[must_use]
    pub fn log(&self) -> &Arc<QueryLog> {
        &self.shared.log
    }

    /// The memory that all running queries use together, in bytes.
    #[must_use]
    pub fn memory_used(&self) -> usize {
        self.shared.budget.used()
    }

    /// How many queries run now.
    #[must_use]
    pub fn running(&self) -> usize {
        self.shared.options.concurrent.max(1).saturating_sub(self.turns.available_permits())
    }

    /// Answers a query of a tenant. The answer comes when the query is planned; its rows follow as they
    /// are found. Dropping the future or the result stops the query.
    ///
    /// # Errors
    /// Any [`QueryError`]: what is wrong with the text is known before the first row; limits and damaged
    /// files may end the stream later.
    ///
    /// The future is boxed: what it holds is large, and every caller would be checked through all of it
    /// by the compiler, for minutes.
    pub fn query<'a>(
        &'a self,
        tenant: &'a TenantId,
        sql: &'a str,
        limits: Limits,
    ) -> BoxFuture<'a, Result<QueryResult, QueryError>> {
        self.query_on(Arc::clone(&self.shared.snapshots), tenant, sql, limits)
    }

    /// [`QueryEngine::query`] over other snapshots than the engine's own.
    pub(crate) fn query_on<'a>(
        &'a self,
        snapshots: Arc<dyn Snapshots>,
        tenant: &'a TenantId,
        sql: &'a str,
        limits: Limits,
    ) -> BoxFuture<'a, Result<QueryResult, QueryError>> {
        self.start(snapshots, tenant, sql, limits).boxed()
    }

    /// What the engine knows of a table.
    #[must_use]
    pub fn snapshot(&self, table: &str) -> Option<Snapshot> {
        self.shared.snapshots.snapshot(table)
    }

    /// The answers to single segments that are kept.
    pub(crate) fn kept(&self) -> &Kept {
        &self.shared.kept
    }

    /// The footers that are kept.
    #[must_use]
    pub fn cache(&self) -> &Arc<ReadCache> {
        &self.shared.cache
    }

    /// Does a short piece of work on a thread for queries, as one of those that run at once.
    pub(crate) async fn on_its_turn<T: Send + 'static>(
        &self,
        limits: Limits,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, QueryError> {
        let turn = self.turn(limits.time).await?;
        let Some(runtime) = &self.runtime else {
            return Err(QueryError::Internal("the engine is shut down".to_owned()));
        };
        let done = runtime.spawn(async move {
            let done = work();
            drop(turn);
            done
        });
        done.await.map_err(|_| QueryError::Internal("the query's task ended".to_owned()))
    }

    async fn start(
        &self,
        snapshots: Arc<dyn Snapshots>,
        tenant: &TenantId,
        sql: &str,
        limits: Limits,
    ) -> Result<QueryResult, QueryError> {
        let limit = self.shared.options.sql_bytes;
        if sql.len() > limit {
            return Err(QueryError::TooLong { bytes: sql.len(), limit });
        }
        let started = Instant::now();
        let number = self.shared.log.begin(tenant, sql, now_micros());
        let mut run = Run {
            shared: Arc::clone(&self.shared),
            snapshots,
            stats: Arc::new(QueryStats::default()),
            pool: QueryPool::new(Arc::clone(&self.shared.budget), limits.memory),
            limits,
            number,
            started,
            outcome: Outcome::Cancelled,
            turn: None,
        };
        match self.turn(limits.time).await {
            Ok(turn) => run.turn = Some(turn),
            Err(error) => {
                run.outcome = Outcome::of(&error);
                return Err(error);
            }
        }
        let Some(runtime) = &self.runtime else {
            return Err(QueryError::Internal("the engine is shut down".to_owned()));
        };
        let stats = Arc::clone(&run.stats);
        let (ready, planned) = oneshot::channel();
        let (rows, batches) = mpsc::channel(2);
        runtime.spawn(run.go(tenant.clone(), sql.to_owned(), ready, rows));
        let limit = limits.time;
        // A little later than the task itself, which can tell more.
        let at = tokio::time::Instant::from_std(started + limit + Duration::from_millis(50));
        match timeout_at(at, planned).await {
            Ok(Ok(Ok(schema))) => {
                let deadline = Some(Deadline { at: Box::pin(tokio::time::sleep_until(at)), limit });
                Ok(QueryResult { schema, stats, batches, deadline })
            }
            Ok(Ok(Err(error))) => Err(error),
            Ok(Err(_)) => Err(QueryError::Internal("the query's task ended".to_owned())),
            Err(_) => Err(QueryError::Time(limit)),
        }
    }

    /// Waits for a turn among the running queries.
    async fn turn(&self, patience: Duration) -> Result<OwnedSemaphorePermit, QueryError> {
        if let Ok(turn) = Arc::clone(&self.turns).try_acquire_owned() {
            return Ok(turn);
        }
        let bound = self.shared.options.waiting;
        let place = Place::take(&self.waiting, bound).ok_or_else(|| {
            QueryError::Busy(format!("{bound} queries are waiting for their turn already"))
        })?;
        let turn = tokio::time::timeout(patience, Arc::clone(&self.turns).acquire_owned()).await;
        drop(place);
        match turn {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(QueryError::Busy("other queries took all the time".to_owned())),
        }
    }
}

/// A place in the queue, given back when dropped.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(waiting: &Arc<AtomicUsize>, bound: usize) -> Option<Self> {
        let next = |count: usize| (count < bound).then_some(count + 1);
        let order = Ordering::Relaxed;
        waiting.fetch_update(order, order, next).ok().map(|_| Self(Arc::clone(waiting)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How a query ended.
enum Outcome {
    Done,
    Truncated,
    Cancelled,
    Failed(&'static str, String),
}

impl Outcome {
    fn of(error: &QueryError) -> Self {
        Self::Failed(error.code(), error.to_string())
    }
}

/// One query on its way. Dropping it writes its end into the log.
struct Run {
    shared: Arc<Shared>,
    snapshots: Arc<dyn Snapshots>,
    stats: Arc<QueryStats>,
    pool: Arc<QueryPool>,
    limits: Limits,
    number: u64,
    started: Instant,
    outcome: Outcome,
    /// Given back after the log has the query's end: who sees a free turn finds the end in the log.
    turn: Option<OwnedSemaphorePermit>,
}

impl Drop for Run {
    fn drop(&mut self) {
        let elapsed = self.started.elapsed();
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        self.stats.total.store(micros, Ordering::Relaxed);
        let (state, error) = match &self.outcome {
            Outcome::Done => ("done", None),
            Outcome::Truncated => ("truncated", None),
            Outcome::Cancelled => ("cancelled", None),
            Outcome::Failed(code, message) => (*code, Some(message.clone())),
        };
        let stats = &self.stats;
        self.shared.log.end(self.number, |query| {
            query.seconds = Some(elapsed.as_secs_f64());
            query.rows = stats.rows();
            query.bytes_scanned = stats.bytes_scanned();
            query.memory = stats.memory() as u64;
            query.state = state;
            query.error = error;
        });
        self.turn = None;
    }
}

impl Run {
    async fn go(
        mut self,
        tenant: TenantId,
        sql: String,
        mut ready: oneshot::Sender<Result<SchemaRef, QueryError>>,
        rows: mpsc::Sender<Result<RecordBatch, QueryError>>,
    ) {
        let planned = tokio::select! {
            () = ready.closed() => return,
            planned = self.within(self.plan(&tenant, &sql)) => planned,
        };
        let (session, plan) = match planned {
            Ok(planned) => planned,
            Err(error) => {
                self.outcome = Outcome::of(&error);
                drop(self);
                let _ = ready.send(Err(error));
                return;
            }
        };
        let micros = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.stats.planned.store(micros, Ordering::Relaxed);
        if ready.send(Ok(plan.schema())).is_err() {
            return;
        }
        let ended = tokio::select! {
            () = rows.closed() => return,
            ended = self.within(self.rows(&session, &plan, &rows)) => ended,
        };
        self.stats.bytes.store(bytes_scanned(&plan), Ordering::Relaxed);
        self.stats.memory.store(self.pool.peak(), Ordering::Relaxed);
        self.outcome = match &ended {
            // Nobody has read to the end.
            Ok(()) if rows.is_closed() => Outcome::Cancelled,
            Ok(()) if self.stats.truncated() => Outcome::Truncated,
            Ok(()) => Outcome::Done,
            Err(error) => Outcome::of(error),
        };
        // The log knows the end before the receiver does; the turn is free before it too.
        drop(plan);
        drop(session);
        drop(self);
        if let Err(error) = ended {
            let _ = rows.send(Err(error)).await;
        }
    }

    /// Runs a part of the query until the time is over.
    async fn within<T>(
        &self,
        work: impl Future<Output = Result<T, QueryError>>,
    ) -> Result<T, QueryError> {
        let deadline = tokio::time::Instant::from_std(self.started + self.limits.time);
        timeout_at(deadline, work).await.unwrap_or(Err(QueryError::Time(self.limits.time)))
    }

    async fn plan(
        &self,
        tenant: &TenantId,
        sql: &str,
    ) -> Result<(Session, Arc<dyn ExecutionPlan>), QueryError> {
        let shared = &self.shared;
        let session = Session::new(
            &shared.template,
            tenant,
            self.snapshots.as_ref(),
            &shared.cache,
            &shared.log,
            Arc::clone(&self.pool),
        )
        .map_err(|error| QueryError::of(&error, &[]))?;
        // One row more than allowed tells whether there are more.
        let rows = self.limits.rows.min(MAX_ROWS) + 1;
        let plan = session.plan(sql, shared.options.plan_nodes, rows).await?;
        Ok((session, plan))
    }

    /// Hands over the rows up to the limit.
    async fn rows(
        &self,
        session: &Session,
        plan: &Arc<dyn ExecutionPlan>,
        rows: &mpsc::Sender<Result<RecordBatch, QueryError>>,
    ) -> Result<(), QueryError> {
        let failed = |error: DataFusionError| self.failure(session, &error);
        let mut stream = execute_stream(Arc::clone(plan), session.task()).map_err(failed)?;
        let mut left = self.limits.rows;
        while let Some(batch) = stream.next().await {
            let mut batch = batch.map_err(failed)?;
            if batch.num_rows() > left {
                if self.limits.excess == Excess::Refuse {
                    return Err(QueryError::Rows(self.limits.rows));
                }
                self.stats.truncated.store(true, Ordering::Relaxed);
                batch = batch.slice(0, left);
            }
            left -= batch.num_rows();
            self.stats.rows.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
            if batch.num_rows() > 0 && rows.send(Ok(batch)).await.is_err() {
                return Ok(());
            }
            if self.stats.truncated() {
                break;
            }
        }
        Ok(())
    }

    /// What a failed execution means.
    fn failure(&self, session: &Session, error: &DataFusionError) -> QueryError {
        match error.find_root() {
            DataFusionError::ResourcesExhausted(_) if self.pool.was_refused_by_all() => {
                QueryError::Busy("all queries together need more memory than there is".to_owned())
            }
            DataFusionError::ResourcesExhausted(_) => QueryError::Memory(self.limits.memory),
            // What outgrew the memory has outgrown its share of the disk too.
            _ if error.to_string().contains("max_temp_directory_size") => {
                QueryError::Memory(self.limits.memory)
            }
            DataFusionError::ParquetError(_) | DataFusionError::ArrowError(_, _) => {
                let named = QueryError::of(error, &[]);
                if let QueryError::Read(_) = named {
                    return named;
                }
                // Decoding does not say in which file it failed.
                let parquet = matches!(error.find_root(), DataFusionError::ParquetError(_))
                    || error.to_string().contains("Parquet");
                let tables = if parquet { session.read_tables() } else { Vec::new() };
                tables.iter().find_map(|table| find_damage(table)).map_or(named, QueryError::Read)
            }
            _ => QueryError::of(error, &session.tables()),
        }
    }
}

/// The bytes that a plan's scans read.
fn bytes_scanned(plan: &Arc<dyn ExecutionPlan>) -> u64 {
    let own = plan.metrics().and_then(|metrics| metrics.sum_by_name("bytes_scanned"));
    let own = own.map_or(0, |bytes| bytes.as_usize() as u64);
    own + plan.children().into_iter().map(bytes_scanned).sum::<u64>()
}

/// The wall clock, for the log of queries only.
#[expect(clippy::disallowed_methods, reason = "a measurement: no row or alert depends on it (T3)")]
fn now_micros() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.ok().and_then(|now| i64::try_from(now.as_micros()).ok()).unwrap_or(0)
}
