//! What moves right now, per tenant: counters and the latest alerts, for the live stream and the
//! page. Held in memory only; a restart begins at zero.

use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::broadcast;

/// How many of the latest alerts are kept for a tenant.
pub const RECENT_ALERTS: usize = 100;

/// One alert as the live stream shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LiveAlert {
    /// The alert's id, 32 hexadecimal digits.
    pub alert_id: String,
    /// Event time, milliseconds since the epoch.
    pub time: i64,
    /// `baseline`, `threat`, …
    pub detector: String,
    /// `low` to `critical`.
    pub severity: String,
    /// 0 to 1.
    pub score: f32,
    /// What it is, in a few words.
    pub title: String,
    /// The user, where there is one.
    pub user: Option<String>,
    /// The source address, where there is one.
    pub src_ip: Option<String>,
    /// The sender's id of the event.
    pub event_id: Option<String>,
    /// Why, in sentences with numbers.
    pub reasons: Vec<String>,
}

/// A tenant's counters since the start of the process.
#[derive(Debug, Default)]
pub struct TenantCounters {
    stored: AtomicU64,
    refused: AtomicU64,
    dead_letters: AtomicU64,
    alerts: AtomicU64,
    anomalies: AtomicU64,
    recent: Mutex<VecDeque<Arc<LiveAlert>>>,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
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

/// The live counters of all tenants, and the channel on which alerts are announced.
#[derive(Debug)]
pub struct Live {
    tenants: RwLock<HashMap<String, Arc<TenantCounters>, foldhash::fast::FixedState>>,
    alerts: broadcast::Sender<(Arc<str>, Arc<LiveAlert>)>,
    /// Something in the pipeline is decided by time going on.
    waits_for_time: AtomicBool,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            tenants: RwLock::default(),
            alerts: broadcast::channel(1024).0,
            waits_for_time: AtomicBool::new(false),
        }
    }
}

impl Live {
    /// Whether anything waits for ticks though no records come (T3).
    #[must_use]
    pub fn waits_for_time(&self) -> bool {
        self.waits_for_time.load(Ordering::Acquire)
    }

    /// Says whether anything does.
    pub(crate) fn set_waits_for_time(&self, waits: bool) {
        self.waits_for_time.store(waits, Ordering::Release);
    }

    /// The counters of a tenant, made when first asked for.
    #[must_use]
    pub fn tenant(&self, tenant: &str) -> Arc<TenantCounters> {
        if let Some(counters) = self.tenants.read().get(tenant) {
            return Arc::clone(counters);
        }
        Arc::clone(self.tenants.write().entry(tenant.to_owned()).or_default())
    }

    /// Announcements of alerts as they become visible, with their tenant. A listener that is too
    /// slow loses the oldest and is told how many.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<(Arc<str>, Arc<LiveAlert>)> {
        self.alerts.subscribe()
    }

    /// Counts and announces a tenant's alerts.
    pub fn announce(&self, tenant: &str, alerts: Vec<LiveAlert>) {
        if alerts.is_empty() {
            return;
        }
        let counters = self.tenant(tenant);
        let anomalies = alerts.iter().filter(|alert| alert.detector == "baseline").count() as u64;
        counters.alerts.fetch_add(alerts.len() as u64, Ordering::Relaxed);
        counters.anomalies.fetch_add(anomalies, Ordering::Relaxed);
        let name: Arc<str> = Arc::from(tenant);
        let heard = self.alerts.receiver_count() > 0;
        let mut recent = counters.recent.lock();
        for alert in alerts {
            let alert = Arc::new(alert);
            if recent.len() == RECENT_ALERTS {
                recent.pop_front();
            }
            recent.push_back(Arc::clone(&alert));
            if heard {
                // Nobody listening any more is not an error.
                let _ = self.alerts.send((Arc::clone(&name), alert));
            }
        }
    }
}

impl TenantCounters {
    /// Adds stored records.
    pub fn add_stored(&self, records: u64) {
        self.stored.fetch_add(records, Ordering::Relaxed);
    }

    /// Adds refused records.
    pub fn add_refused(&self, records: u64) {
        self.refused.fetch_add(records, Ordering::Relaxed);
    }

    /// Adds dead letters.
    pub fn add_dead_letters(&self, records: u64) {
        self.dead_letters.fetch_add(records, Ordering::Relaxed);
    }

    /// The counters now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            stored: self.stored.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            dead_letters: self.dead_letters.load(Ordering::Relaxed),
            alerts: self.alerts.load(Ordering::Relaxed),
            anomalies: self.anomalies.load(Ordering::Relaxed),
        }
    }

    /// The latest alerts, newest first.
    #[must_use]
    pub fn recent(&self) -> Vec<Arc<LiveAlert>> {
        self.recent.lock().iter().rev().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(n: usize, detector: &str) -> LiveAlert {
        LiveAlert {
            alert_id: n.to_string(),
            time: 0,
            detector: detector.into(),
            severity: "high".into(),
            score: 0.8,
            title: "t".into(),
            user: None,
            src_ip: None,
            event_id: None,
            reasons: vec![],
        }
    }

    #[test]
    fn counts_and_keeps_the_latest_per_tenant() {
        let live = Live::default();
        let mut heard = live.subscribe();
        live.announce("a", (0..150).map(|n| alert(n, "baseline")).collect());
        live.announce("b", vec![alert(0, "threat")]);
        live.tenant("a").add_stored(5);
        let a = live.tenant("a");
        assert_eq!(a.recent().len(), RECENT_ALERTS);
        assert_eq!(a.recent().first().map(|alert| alert.alert_id.clone()), Some("149".into()));
        assert_eq!(
            a.counts(),
            Counts { stored: 5, alerts: 150, anomalies: 150, ..Counts::default() }
        );
        assert_eq!(live.tenant("b").counts().anomalies, 0);
        assert_eq!(heard.try_recv().map(|(tenant, _)| tenant.to_string()), Ok("a".to_owned()));
    }
}
