//! What moves right now: `GET /api/v1/stats`, and `GET /api/v1/live` as server-sent events.
//!
//! The live stream begins with one event `recent` (the latest alerts, newest first), then sends
//! `stats` every second and `alert` for each new alert of the caller's tenant. A listener that is too
//! slow gets `lagged` in place of alerts; they are in the table `alerts` all the same. The key is
//! checked again every ten seconds, and the stream ends with it, or with the server.

use crate::access::{Caller, Scope};
use crate::openapi::ProblemDetails;
use crate::state::ApiState;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, stream};
use palisade_ingest::auth::authenticate;
use palisade_pipeline::live::{Counts, LiveAlert};
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

/// The most listeners of the live stream.
const LISTENERS: usize = 256;
/// The most listeners of one tenant.
const LISTENERS_OF_TENANT: usize = 32;
/// Over how long rates are taken.
const WINDOW: Duration = Duration::from_secs(5);
/// The shortest time that gives a rate.
const SHORTEST: Duration = Duration::from_millis(400);
/// How many alerts a listener gets at the start.
const RECENT: usize = 20;
/// After how many seconds a listener's key is checked again.
const RECHECK: u64 = 10;

/// Rates and listeners of the live stream.
#[derive(Debug)]
pub struct Watch {
    stop: CancellationToken,
    places: Arc<Semaphore>,
    tenants: Mutex<BTreeMap<String, TenantWatch>>,
}

#[derive(Debug)]
struct TenantWatch {
    places: Arc<Semaphore>,
    samples: VecDeque<(Instant, Counts)>,
}

impl Default for TenantWatch {
    fn default() -> Self {
        let places = Arc::new(Semaphore::new(LISTENERS_OF_TENANT));
        Self { places, samples: VecDeque::new() }
    }
}

/// How fast counters move.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub struct Rates {
    /// Records that became visible, a second.
    pub events_per_second: f64,
    /// Alerts, a second.
    pub alerts_per_second: f64,
    /// Over how many seconds this was measured.
    pub window_seconds: f64,
}

/// A tenant's counters since the start of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Totals {
    /// Records visible to SQL.
    pub stored: u64,
    /// Records refused to their sender.
    pub refused: u64,
    /// Records kept as dead letters.
    pub dead_letters: u64,
    /// Alerts of all detectors.
    pub alerts: u64,
    /// Alerts of the behavioural baselines.
    pub anomalies: u64,
}

impl From<Counts> for Totals {
    fn from(counts: Counts) -> Self {
        let Counts { stored, refused, dead_letters, alerts, anomalies } = counts;
        Self { stored, refused, dead_letters, alerts, anomalies }
    }
}

/// Where the pipeline stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Pipeline {
    /// Whether everything acknowledged before the start is visible (M4).
    pub ready: bool,
    /// The offset after the last durable entry of the log.
    pub log_end: u64,
    /// Entries below it are visible to SQL.
    pub visible: u64,
    /// Entries below it are in segments.
    pub committed: u64,
    /// Durable entries that are not visible yet.
    pub lag_entries: u64,
}

/// Counters, rates and progress at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Stats {
    /// Whose counters these are.
    pub tenant: String,
    /// When, milliseconds since the epoch.
    pub time: i64,
    /// Since the start of the process.
    pub counts: Totals,
    /// Over the last seconds; null until there is something to compare with.
    pub rates: Option<Rates>,
    /// The pipeline's progress, over all tenants.
    pub engine: Pipeline,
}

impl Watch {
    /// A watch whose streams end when `stop` is cancelled.
    #[must_use]
    pub fn new(stop: CancellationToken) -> Self {
        let places = Arc::new(Semaphore::new(LISTENERS));
        Self { stop, places, tenants: Mutex::default() }
    }

    /// Notes a tenant's counters and says how fast they moved.
    fn rates(&self, tenant: &str, now: Instant, counts: Counts) -> Option<Rates> {
        let mut tenants = self.tenants.lock();
        let samples = &mut tenants.entry(tenant.to_owned()).or_default().samples;
        while samples.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW + SHORTEST) {
            samples.pop_front();
        }
        if samples.back().is_none_or(|(at, _)| now.duration_since(*at) >= SHORTEST) {
            samples.push_back((now, counts));
        }
        let (at, before) = samples.front()?;
        let span = now.duration_since(*at);
        (span >= SHORTEST).then(|| {
            let seconds = span.as_secs_f64();
            let rate = |new: u64, old: u64| {
                (new.saturating_sub(old) as f64 / seconds * 10.0).round() / 10.0
            };
            Rates {
                events_per_second: rate(counts.stored, before.stored),
                alerts_per_second: rate(counts.alerts, before.alerts),
                window_seconds: (seconds * 1000.0).round() / 1000.0,
            }
        })
    }

    /// A place for a listener; both permits are given back when dropped.
    fn place(&self, tenant: &str) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let own = Arc::clone(&self.tenants.lock().entry(tenant.to_owned()).or_default().places);
        let own = own.try_acquire_owned().ok()?;
        Some((own, Arc::clone(&self.places).try_acquire_owned().ok()?))
    }
}

fn stats_of(state: &ApiState, tenant: &str) -> Stats {
    let counts = state.live.tenant(tenant).counts();
    let progress = state.engine.progress();
    Stats {
        tenant: tenant.to_owned(),
        time: state.clock.now().div_euclid(1000),
        counts: counts.into(),
        rates: state.watch.rates(tenant, Instant::now(), counts),
        engine: Pipeline {
            ready: progress.ready,
            log_end: progress.log_end,
            visible: progress.visible,
            committed: progress.committed,
            lag_entries: progress.log_end.saturating_sub(progress.visible),
        },
    }
}

/// `GET /api/v1/stats`: the tenant's counters and rates. Nobody measures while nobody asks, so the
/// first answer after a pause takes half a second.
#[utoipa::path(get, path = "/api/v1/stats", tag = "live", responses(
    (status = 200, description = "Counters, rates and progress", body = Stats),
))]
pub async fn get_stats(State(state): State<ApiState>, caller: Caller) -> Response {
    let tenant = match caller.may(Scope::Query) {
        Ok(tenant) => tenant.as_str(),
        Err(response) => return response,
    };
    let mut stats = stats_of(&state, tenant);
    if stats.rates.is_none() {
        tokio::time::sleep(SHORTEST + Duration::from_millis(100)).await;
        stats = stats_of(&state, tenant);
    }
    Json(stats).into_response()
}

struct Listener {
    state: ApiState,
    tenant: String,
    headers: HeaderMap,
    ticks: u64,
    interval: Interval,
    alerts: Receiver<(Arc<str>, Arc<LiveAlert>)>,
    recent: Option<Event>,
    _places: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

/// An event of this name with this JSON. A value that can't be written is left out; none of ours is.
fn event<T: Serialize>(name: &str, value: &T) -> Event {
    Event::default().event(name).json_data(value).unwrap_or_default()
}

impl Listener {
    /// Whether the caller may still listen.
    async fn may_stay(&mut self) -> bool {
        self.ticks = self.ticks.wrapping_add(1);
        if !self.ticks.is_multiple_of(RECHECK) {
            return true;
        }
        match authenticate(self.state.auth.as_ref(), &self.headers).await {
            Ok(who) => who.scopes.query && who.tenant.as_str() == self.tenant,
            // Keys that cannot be looked up for a moment end nothing.
            Err(error) => error.class() == palisade_event::ErrorClass::Transient,
        }
    }

    async fn next(&mut self) -> Option<Event> {
        if let Some(recent) = self.recent.take() {
            return Some(recent);
        }
        loop {
            tokio::select! {
                biased;
                () = self.state.watch.stop.cancelled() => return None,
                _ = self.interval.tick() => {
                    if !self.may_stay().await {
                        return None;
                    }
                    return Some(event("stats", &stats_of(&self.state, &self.tenant)));
                }
                heard = self.alerts.recv() => match heard {
                    Ok((tenant, alert)) if *tenant == *self.tenant => {
                        return Some(event("alert", &*alert));
                    }
                    Ok(_) => {}
                    // How many were missed would tell of other tenants' alerts.
                    Err(RecvError::Lagged(_)) => return Some(event("lagged", &true)),
                    Err(RecvError::Closed) => return None,
                },
            }
        }
    }
}

fn events(listener: Listener) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(listener, |mut listener| async move {
        let event = listener.next().await?;
        Some((Ok(event), listener))
    })
}

/// `GET /api/v1/live`: server-sent events `recent`, `stats` and `alert`.
#[utoipa::path(get, path = "/api/v1/live", tag = "live", responses(
    (status = 200, description = "Server-sent events: `recent`, then `stats` every second and `alert`",
        body = String, content_type = "text/event-stream"),
    (status = 503, description = "Too many listen", body = ProblemDetails, content_type = "application/problem+json"),
))]
pub async fn get_live(
    State(state): State<ApiState>,
    caller: Caller,
    headers: HeaderMap,
) -> Response {
    let tenant = match caller.may(Scope::Query) {
        Ok(tenant) => tenant.to_string(),
        Err(response) => return response,
    };
    let Some(places) = state.watch.place(&tenant) else {
        return caller.problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "listeners",
            "too many listen",
            format!("at most {LISTENERS_OF_TENANT} may listen to a tenant: close another page"),
        );
    };
    let mut interval = tokio::time::interval(Duration::from_secs(1));
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    // Listening begins before the latest are read, so none falls between.
    let alerts = state.live.subscribe();
    let recent: Vec<_> = state.live.tenant(&tenant).recent().into_iter().take(RECENT).collect();
    let recent: Vec<&LiveAlert> = recent.iter().map(|alert| &**alert).collect();
    let recent = Some(event("recent", &recent));
    let listener =
        Listener { state, tenant, headers, ticks: 0, interval, alerts, recent, _places: places };
    let alive = KeepAlive::new().interval(Duration::from_secs(15));
    let buffering = HeaderName::from_static("x-accel-buffering");
    ([(buffering, "no")], Sse::new(events(listener)).keep_alive(alive)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(stored: u64) -> Counts {
        Counts { stored, ..Counts::default() }
    }

    #[tokio::test]
    async fn rates_are_of_the_last_seconds_only() {
        let watch = Watch::new(CancellationToken::new());
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(watch.rates("a", at(0), counts(0)), None);
        assert_eq!(watch.rates("a", at(100), counts(50)), None);
        let rates = watch.rates("a", at(1000), counts(500)).unwrap();
        assert_eq!((rates.events_per_second, rates.window_seconds), (500.0, 1.0));
        assert_eq!(watch.rates("b", at(1000), counts(9)), None, "tenants are apart");
        // After a pause the old samples do not count.
        assert_eq!(watch.rates("a", at(60_000), counts(900)), None);
        let rates = watch.rates("a", at(62_000), counts(920)).unwrap();
        assert_eq!(rates.events_per_second, 10.0);
    }

    #[tokio::test]
    async fn listeners_are_bounded_by_tenant_and_in_all() {
        let watch = Watch::new(CancellationToken::new());
        let mut held: Vec<_> =
            (0..LISTENERS_OF_TENANT).map(|_| watch.place("a").unwrap()).collect();
        assert!(watch.place("a").is_none());
        held.pop();
        assert!(watch.place("a").is_some(), "a place is given back");
        for tenant in 1..LISTENERS / LISTENERS_OF_TENANT {
            held.extend(
                (0..LISTENERS_OF_TENANT).map(|_| watch.place(&format!("t{tenant}")).unwrap()),
            );
        }
        held.push(watch.place("z").unwrap());
        assert!(watch.place("z").is_none(), "all places are taken");
    }
}
