//! The loop of one receiver: it reads alert rows behind its cursor, decides who is told ([`crate::notify`]),
//! sends, tries again, gives up. Each receiver has a loop of its own, so a slow one holds up only itself.
//!
//! In one catalog transaction a pull makes the notifications that follow from some rows, what must be remembered, and the cursor
//! behind the rows. Outcomes of attempts are recorded after the fact. So whatever instruction the process
//! dies at, nothing is lost, and what was on its way (at most `concurrency` notifications) is sent again with the same key
//! (M5). While more than `max_pending` notifications wait, no rows are pulled: they wait in the table.
//!
//! Notifications about the same alert go out in the order of revisions; those of different alerts may overtake each other.

use super::metrics::{DecisionLabel, DeliveryMetrics, OutcomeLabel, ReceiverLabel};
use super::sender::Sender;
use crate::alert::{Alert, State};
use crate::format::Notification;
use crate::notify::{Decision, Memory, Notifier};
use crate::plan::{Inhibition, Route};
use crate::retry::{Next, Outcome, RetryPolicy, decide};
use crate::silence::Silence;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use palisade_catalog::deliveries::MAX_CONTENT;
use palisade_catalog::{
    AlertCursor, AttemptOutcome, Catalog, CatalogError, CommitError, Delivery, NewDelivery, Pull,
};
use palisade_event::{ErrorClass, TenantId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often it is looked for notifications that are due, when nothing else says so.
const DUE_EVERY: Duration = Duration::from_millis(250);
/// How long after an error the next try is made.
const AFTER_ERROR: Duration = Duration::from_secs(1);
/// How long what is on its way may take at the end.
const AT_THE_END: Duration = Duration::from_secs(2);

/// Why alerts cannot be read now; it is tried again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("alerts cannot be read: {0}")]
pub struct SourceError(pub String);

/// Some rows behind a place.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rows {
    /// The rows, in the order (position, alert id, revision).
    pub alerts: Vec<Alert>,
    /// Up to where they are all that there are: the place to ask from next.
    pub end: AlertCursor,
}

/// Rows of the table `alerts`, of all tenants.
pub trait AlertSource: Send + Sync {
    /// The first rows behind a place, at most `limit`. A row whose place is before an `end` that was given
    /// already never comes later.
    fn after<'a>(
        &'a self,
        place: &'a AlertCursor,
        limit: usize,
    ) -> BoxFuture<'a, Result<Rows, SourceError>>;

    /// The place behind all rows that there are: where a receiver that was never seen begins.
    fn end(&self) -> BoxFuture<'_, Result<AlertCursor, SourceError>>;
}

/// How a deliverer works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelivererOptions {
    /// How often it is looked for new rows.
    pub poll: Duration,
    /// How many rows are read at once.
    pub rows: usize,
    /// How many notifications may wait.
    pub max_pending: u64,
    /// When they are tried again.
    pub retry: RetryPolicy,
    /// The base of links, without a slash at its end.
    pub public_url: Option<String>,
}

impl Default for DelivererOptions {
    fn default() -> Self {
        Self {
            poll: Duration::from_millis(50),
            rows: 500,
            max_pending: 10_000,
            retry: RetryPolicy::default(),
            public_url: None,
        }
    }
}

/// Why a deliverer ended by itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeliverError {
    /// Another process delivers to this receiver now, or the catalog failed.
    #[error(transparent)]
    Catalog(#[from] CommitError),
    /// Alerts cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
}

impl From<CatalogError> for DeliverError {
    fn from(error: CatalogError) -> Self {
        Self::Catalog(error.into())
    }
}

impl DeliverError {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Catalog(error) => error.class(),
            Self::Source(_) => ErrorClass::Transient,
        }
    }
}

/// A clock, microseconds since the epoch.
pub type Now = Arc<dyn Fn() -> i64 + Send + Sync>;

/// What a deliverer works with.
#[derive(Clone)]
pub struct Foundations {
    /// Cursors, waiting notifications, silences.
    pub catalog: Catalog,
    /// The alerts.
    pub source: Arc<dyn AlertSource>,
    /// The time on the wall.
    pub now: Now,
    /// Counters.
    pub metrics: DeliveryMetrics,
}

impl std::fmt::Debug for Foundations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Foundations").finish_non_exhaustive()
    }
}

/// Delivers to one receiver.
#[derive(Debug)]
pub struct Deliverer {
    name: String,
    sender: Arc<Sender>,
    routes: Vec<Route>,
    inhibitions: Arc<Vec<Inhibition>>,
    base: Foundations,
    options: DelivererOptions,
}

type Running = FuturesUnordered<BoxFuture<'static, (Delivery, Option<Alert>, Outcome)>>;

/// What a deliverer knows while it owns its receiver.
struct Owned {
    epoch: u64,
    /// Up to where rows were looked for; the stored cursor moves only with rows.
    place: AlertCursor,
    notifier: Notifier,
    pending: u64,
    running: Running,
    on_their_way: BTreeSet<u64>,
    /// What the catalog could not take yet: nothing goes on before it has.
    pull: Option<Pull>,
    outcomes: Vec<(u64, AttemptOutcome)>,
    silences: (Vec<palisade_catalog::Silence>, Vec<Silence>),
    looked: Option<Instant>,
}

impl Deliverer {
    /// A deliverer to a receiver over its routes.
    #[must_use]
    pub fn new(
        sender: Sender,
        routes: Vec<Route>,
        inhibitions: Arc<Vec<Inhibition>>,
        base: Foundations,
        options: DelivererOptions,
    ) -> Self {
        let name = sender.receiver().name.clone();
        Self { name, sender: Arc::new(sender), routes, inhibitions, base, options }
    }

    /// Delivers until it is told to stop. Errors that may pass are logged, counted, and tried again.
    ///
    /// # Errors
    /// When another process took the receiver over, or the catalog failed for good.
    pub async fn run(self, stop: CancellationToken) -> Result<(), DeliverError> {
        let mut owned = loop {
            match self.claim().await {
                Ok(owned) => break owned,
                Err(error) => self.may_pass(error)?,
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(AFTER_ERROR) => {}
            }
        };
        loop {
            let wait = match self.step(&mut owned).await {
                Ok(true) => Duration::ZERO,
                Ok(false) => self.options.poll,
                Err(error) => {
                    self.may_pass(error)?;
                    AFTER_ERROR
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return self.end(owned).await,
                Some(done) = owned.running.next(), if !owned.running.is_empty() => {
                    self.note(&mut owned, done);
                }
                () = tokio::time::sleep(wait), if !wait.is_zero() => {}
                () = std::future::ready(()), if wait.is_zero() => {}
            }
            while let Some(Some(done)) = owned.running.next().now_or_never() {
                self.note(&mut owned, done);
            }
        }
    }

    /// Logs and counts an error that may pass.
    fn may_pass(&self, error: DeliverError) -> Result<(), DeliverError> {
        if error.class() == ErrorClass::Critical {
            return Err(error);
        }
        tracing::warn!(receiver = self.name, %error, "notifications wait");
        self.base.metrics.failures.get_or_create(&self.label()).inc();
        Ok(())
    }

    fn label(&self) -> ReceiverLabel {
        ReceiverLabel { receiver: self.name.clone() }
    }

    async fn claim(&self) -> Result<Owned, DeliverError> {
        let start = self.base.source.end().await?;
        let claimed = self.base.catalog.claim_receiver(&self.name, &start).await?;
        // What this release cannot read is forgotten: a window opens anew.
        let memory: BTreeMap<String, Memory> = claimed
            .memory
            .into_iter()
            .filter_map(|(key, text)| Some((key, serde_json::from_str(&text).ok()?)))
            .collect();
        let pending = self.base.catalog.pending_deliveries(&self.name).await?;
        Ok(Owned {
            epoch: claimed.epoch,
            place: claimed.cursor,
            notifier: Notifier::new(self.routes.clone(), Arc::clone(&self.inhibitions), memory),
            pending,
            running: Running::new(),
            on_their_way: BTreeSet::new(),
            pull: None,
            outcomes: Vec::new(),
            silences: Default::default(),
            looked: None,
        })
    }

    /// One round: records, pulls, starts attempts. Whether there is more to do at once.
    async fn step(&self, owned: &mut Owned) -> Result<bool, DeliverError> {
        let recorded = self.record(owned).await?;
        let pulled = self.pull(owned).await?;
        let due = owned.looked.is_none_or(|looked| looked.elapsed() >= DUE_EVERY);
        if (recorded || pulled > 0 || due)
            && owned.running.len() < self.sender.receiver().concurrency
        {
            self.start(owned).await?;
        }
        self.base
            .metrics
            .pending
            .get_or_create(&self.label())
            .set(i64::try_from(owned.pending).unwrap_or(i64::MAX));
        Ok(pulled >= self.options.rows)
    }

    /// Records what the catalog has not taken yet.
    async fn record(&self, owned: &mut Owned) -> Result<bool, DeliverError> {
        let now = (self.base.now)();
        if let Some(pull) = &owned.pull {
            self.base.catalog.record_pull(&self.name, owned.epoch, pull, now).await?;
            owned.pending += pull.deliveries.len() as u64;
            owned.pull = None;
        }
        if owned.outcomes.is_empty() {
            return Ok(false);
        }
        let catalog = &self.base.catalog;
        catalog.record_attempts(&self.name, owned.epoch, &owned.outcomes, now).await?;
        for (id, outcome) in owned.outcomes.drain(..) {
            owned.on_their_way.remove(&id);
            if !matches!(outcome, AttemptOutcome::Again { .. }) {
                owned.pending = owned.pending.saturating_sub(1);
            }
        }
        Ok(true)
    }

    /// Reads rows, decides about them, and records what follows. How many rows there were.
    async fn pull(&self, owned: &mut Owned) -> Result<usize, DeliverError> {
        if owned.pending >= self.options.max_pending {
            return Ok(0);
        }
        let Rows { alerts, end } = self.base.source.after(&owned.place, self.options.rows).await?;
        let Some(last) = alerts.last() else {
            owned.place = end;
            return Ok(0);
        };
        let (position, alert_id, revision) = last.place();
        let cursor = AlertCursor { position, alert_id: alert_id.to_owned(), revision };
        let now = (self.base.now)();
        self.refresh_silences(owned, now).await?;
        let asked: Vec<(String, String)> = alerts
            .iter()
            .filter(|alert| alert.revision > 0 || alert.state == State::Retracted)
            .map(|alert| (alert.tenant.clone(), alert.id.clone()))
            .collect();
        let mut told = match asked.is_empty() {
            true => BTreeSet::new(),
            false => self.base.catalog.told(&self.name, &asked).await?,
        };
        let count = alerts.len();
        let mut pull = Pull { cursor, ..Pull::default() };
        for alert in alerts {
            let key = (alert.tenant.clone(), alert.id.clone());
            let decision =
                owned.notifier.decide(&alert, &owned.silences.1, told.contains(&key), now);
            let label = DecisionLabel { receiver: self.name.clone(), decision: decision.as_str() };
            self.base.metrics.decisions.get_or_create(&label).inc();
            match decision {
                Decision::Notify { suppressed } => {
                    pull.deliveries.extend(self.delivery(alert, suppressed));
                    told.insert(key);
                }
                Decision::Silenced { silence } => *pull.muted.entry(silence).or_default() += 1,
                _ => {}
            }
        }
        pull.memory = owned
            .notifier
            .take_changes()
            .into_iter()
            .map(|(key, entry)| (key, entry.and_then(|entry| serde_json::to_string(&entry).ok())))
            .collect();
        owned.pull = Some(pull);
        owned.place = end;
        self.record(owned).await?;
        Ok(count)
    }

    /// The notification of an alert, as it is kept.
    fn delivery(&self, alert: Alert, suppressed: u64) -> Option<NewDelivery> {
        let tenant = TenantId::new(&alert.tenant).ok()?;
        let hex = |c: u8| matches!(c, b'0'..=b'9' | b'a'..=b'f');
        if alert.id.len() != 32 || !alert.id.bytes().all(hex) {
            tracing::error!(receiver = self.name, id = alert.id, "this alert has no proper id");
            return None;
        }
        let (alert_id, revision) = (alert.id.clone(), alert.revision);
        let link = self.options.public_url.as_ref().map(|url| format!("{url}/#/alerts/{alert_id}"));
        let mut notification = Notification { alert, suppressed, link };
        let mut content = serde_json::to_string(&notification).ok()?;
        if content.len() > MAX_CONTENT {
            let alert = &mut notification.alert;
            alert.evidence.truncate(10);
            for list in [&mut alert.reasons, &mut alert.tags, &mut alert.fields] {
                list.truncate(5);
            }
            content = serde_json::to_string(&notification).ok()?;
        }
        Some(NewDelivery { tenant, alert_id, revision, content })
    }

    async fn refresh_silences(&self, owned: &mut Owned, now: i64) -> Result<(), DeliverError> {
        let stored = self.base.catalog.silences(None, now).await?;
        if stored == owned.silences.0 {
            return Ok(());
        }
        let read = |one: &palisade_catalog::Silence| {
            let (id, tenant) = (&one.id, one.tenant.as_str());
            Silence::new(id, tenant, &one.matchers, one.starts_at, one.ends_at).ok()
        };
        let silences = stored.iter().filter_map(read).collect();
        owned.silences = (stored, silences);
        Ok(())
    }

    /// Starts attempts for what is due, as many as may be on their way.
    async fn start(&self, owned: &mut Owned) -> Result<(), DeliverError> {
        let most = self.sender.receiver().concurrency;
        let free = most.saturating_sub(owned.running.len());
        let limit = u32::try_from(free + owned.on_their_way.len()).unwrap_or(u32::MAX);
        let now = (self.base.now)();
        let due = self.base.catalog.due_deliveries(&self.name, now, limit).await?;
        owned.looked = Some(Instant::now());
        if due.is_empty() {
            // Somebody may have made dead ones pending again.
            owned.pending = self.base.catalog.pending_deliveries(&self.name).await?;
        }
        let fresh = due.into_iter().filter(|delivery| !owned.on_their_way.contains(&delivery.id));
        let fresh: Vec<Delivery> = fresh.take(free).collect();
        for delivery in fresh {
            owned.on_their_way.insert(delivery.id);
            let (sender, now) = (Arc::clone(&self.sender), Arc::clone(&self.base.now));
            let attempt = async move {
                match serde_json::from_str::<Notification>(&delivery.content) {
                    Ok(notification) => {
                        let outcome = sender.send(&notification, now()).await;
                        (delivery, Some(notification.alert), outcome)
                    }
                    Err(error) => {
                        let error = format!("the kept notification cannot be read: {error}");
                        (delivery, None, Outcome::Refused(error))
                    }
                }
            };
            owned.running.push(attempt.boxed());
        }
        Ok(())
    }

    /// Decides what follows from the end of an attempt.
    fn note(&self, owned: &mut Owned, done: (Delivery, Option<Alert>, Outcome)) {
        let (delivery, alert, outcome) = done;
        let now = (self.base.now)();
        let key = format!("{}-{}", delivery.alert_id, delivery.revision);
        let attempt = delivery.attempts.saturating_add(1);
        let policy = &self.options.retry;
        let next = decide(policy, &key, attempt, delivery.created_at, now, &outcome);
        let (word, outcome) = match next {
            Next::Done => ("delivered", AttemptOutcome::Delivered),
            Next::Again { at, error } => {
                tracing::debug!(receiver = self.name, key, attempt, error, "tried again later");
                ("retried", AttemptOutcome::Again { at, error })
            }
            Next::Dead { error } => {
                tracing::error!(
                    receiver = self.name,
                    key,
                    attempt,
                    error,
                    "a notification was given up"
                );
                ("dead", AttemptOutcome::Dead { error })
            }
        };
        let label = OutcomeLabel { receiver: self.name.clone(), outcome: word };
        self.base.metrics.attempts.get_or_create(&label).inc();
        if let (AttemptOutcome::Delivered, Some(alert)) = (&outcome, alert) {
            let micros = u32::try_from(now.saturating_sub(alert.ingest_time).max(0) / 1000);
            let seconds = f64::from(micros.unwrap_or(u32::MAX)) / 1000.0;
            self.base.metrics.seconds.get_or_create(&self.label()).observe(seconds);
        }
        owned.outcomes.push((delivery.id, outcome));
    }

    /// Gives what is on its way a little time, and records how it ended.
    async fn end(&self, mut owned: Owned) -> Result<(), DeliverError> {
        let until = Instant::now() + AT_THE_END;
        while let Ok(Some(done)) = tokio::time::timeout_at(until, owned.running.next()).await {
            self.note(&mut owned, done);
        }
        self.record(&mut owned).await?;
        Ok(())
    }
}
