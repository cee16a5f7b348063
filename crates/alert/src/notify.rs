//! Who is told: the decisions for one receiver, one alert after the other in the order of the table.
//!
//! An alert revision passes, in this order: the routes that lead to the receiver, the question whether
//! it is old news, silences, inhibition, deduplication.
//!
//! Time here is the alert's `ingest_time`, the gateway's clock in the row, so the same rows give the same decisions; only
//! silences are asked at the moment that the caller gives, because people set them by the clock on the wall.
//!
//! - **Deduplication.** The first alert of a group (tenant and the values of `group_by`) is notified and opens a window. Further ones within it
//!   are counted, and the next notification of the group tells how many. One that is more severe than what was notified
//!   is notified at once and opens a new window.
//! - **Inhibition.** An alert that fulfils `source` mutes, for some time and for the same values of `equal`, less severe alerts that fulfil
//!   `target`. It does so whether or not this receiver is told of it, and no longer once it is retracted.
//! - **Retractions** go to a receiver that was told of the alert, whatever is silenced, and to no other.
//!
//! What must be remembered between two alerts ([`Memory`]) is bounded at [`MAX_MEMORY`] entries, of which those that
//! end first go first, and is handed out change by change, to be stored together with the place in the table.

use crate::alert::{Alert, Severity, State};
use crate::matcher::{self, Field};
use crate::plan::{Inhibition, Route};
use crate::silence::Silence;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

/// The most entries that are remembered for a receiver.
pub const MAX_MEMORY: usize = 10_000;

/// Something remembered until its time is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Since when, microseconds since the epoch.
    pub since: i64,
    /// Until before when.
    pub until: i64,
    /// The alert that it comes from.
    pub alert_id: String,
    /// How severe that was.
    pub severity: Severity,
    /// How many alerts were counted instead of notified.
    #[serde(default)]
    pub suppressed: u64,
}

impl Memory {
    /// When it is forgotten. A window that counted something stays twice as long, so that the next
    /// notification of the group can say so.
    fn end(&self) -> i64 {
        let longer = if self.suppressed > 0 { self.until.saturating_sub(self.since) } else { 0 };
        self.until.saturating_add(longer)
    }
}

/// What becomes of an alert revision at a receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It is notified. `suppressed` alerts of its group were counted since the last notification.
    Notify {
        /// How many.
        suppressed: u64,
    },
    /// No route leads here.
    NoRoute,
    /// It is old news (B1, T2).
    Historical,
    /// A silence mutes it.
    Silenced {
        /// The silence's id.
        silence: String,
    },
    /// A more severe alert about the same mutes it.
    Inhibited {
        /// That alert's id.
        by: String,
    },
    /// It was counted: its group was notified already.
    Duplicate {
        /// The alert that was notified.
        of: String,
    },
    /// It takes back what this receiver was never told.
    NotTold,
}

impl Decision {
    /// The name in metrics.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Notify { .. } => "notify",
            Self::NoRoute => "no_route",
            Self::Historical => "historical",
            Self::Silenced { .. } => "silenced",
            Self::Inhibited { .. } => "inhibited",
            Self::Duplicate { .. } => "duplicate",
            Self::NotTold => "not_told",
        }
    }
}

/// The decisions for one receiver.
#[derive(Debug, Clone)]
pub struct Notifier {
    routes: Vec<Route>,
    inhibitions: Arc<Vec<Inhibition>>,
    memory: BTreeMap<String, Memory>,
    by_end: BTreeSet<(i64, String)>,
    changed: BTreeSet<String>,
}

impl Notifier {
    /// A notifier that goes on from what was stored.
    #[must_use]
    pub fn new(
        routes: Vec<Route>,
        inhibitions: Arc<Vec<Inhibition>>,
        memory: BTreeMap<String, Memory>,
    ) -> Self {
        let by_end = memory.iter().map(|(key, entry)| (entry.end(), key.clone())).collect();
        Self { routes, inhibitions, memory, by_end, changed: BTreeSet::new() }
    }

    /// Decides about the next alert revision. `told` says whether this receiver was notified of an
    /// earlier revision of it; `now` is the time on the wall.
    pub fn decide(
        &mut self,
        alert: &Alert,
        silences: &[Silence],
        told: bool,
        now: i64,
    ) -> Decision {
        let time = alert.ingest_time;
        self.forget(time);
        let inhibitions = Arc::clone(&self.inhibitions);
        for rule in inhibitions.iter() {
            self.note_source(rule, alert, time);
        }
        let route = self.routes.iter().find(|route| {
            let of_tenant = route.tenants.is_empty()
                || route.tenants.iter().any(|tenant| tenant.as_str() == alert.tenant);
            of_tenant && matcher::all(&route.matchers, alert)
        });
        if alert.state == State::Retracted {
            // Who was told hears of it, even where the route does not match the last revision any more.
            let wanted = route.is_none_or(|route| route.retractions);
            return match told && wanted {
                true => Decision::Notify { suppressed: 0 },
                false => Decision::NotTold,
            };
        }
        let Some(route) = route else { return Decision::NoRoute };
        let is_old = alert.historical || alert.domain.as_deref().is_some_and(|name| name != "live");
        if is_old && !route.historical {
            return Decision::Historical;
        }
        if let Some(silence) = silences.iter().find(|silence| silence.mutes(alert, now)) {
            return Decision::Silenced { silence: silence.id.clone() };
        }
        if let Some(by) = inhibitions.iter().find_map(|rule| self.muted(rule, alert, time)) {
            return Decision::Inhibited { by };
        }
        let (window, key) = (route.window, group_key(route, alert));
        let mut suppressed = 0;
        if let Some(entry) = self.memory.get(&key) {
            if time < entry.until && alert.severity <= entry.severity {
                let of = entry.alert_id.clone();
                let entry = Memory { suppressed: entry.suppressed + 1, ..entry.clone() };
                self.remember(key, entry);
                return Decision::Duplicate { of };
            }
            suppressed = entry.suppressed;
        }
        if window > 0 {
            let entry = Memory {
                since: time,
                until: time.saturating_add(window),
                alert_id: alert.id.clone(),
                severity: alert.severity,
                suppressed: 0,
            };
            self.remember(key, entry);
        }
        Decision::Notify { suppressed }
    }

    /// What changed since the last call: entries by key, `None` for those that are forgotten.
    pub fn take_changes(&mut self) -> Vec<(String, Option<Memory>)> {
        std::mem::take(&mut self.changed)
            .into_iter()
            .map(|key| {
                let entry = self.memory.get(&key).cloned();
                (key, entry)
            })
            .collect()
    }

    /// How many entries are remembered.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.memory.len()
    }

    fn note_source(&mut self, rule: &Inhibition, alert: &Alert, time: i64) {
        if !matcher::all(&rule.source, alert) {
            return;
        }
        for key in inhibition_keys(rule, alert) {
            let known = self.memory.get(&key);
            if alert.state == State::Retracted {
                if known.is_some_and(|entry| entry.alert_id == alert.id) {
                    self.drop_entry(&key);
                }
                continue;
            }
            // A less severe source must not shorten what a more severe one mutes.
            if known.is_some_and(|entry| entry.until > time && entry.severity > alert.severity) {
                continue;
            }
            let entry = Memory {
                since: time,
                until: time.saturating_add(rule.lasting),
                alert_id: alert.id.clone(),
                severity: alert.severity,
                suppressed: 0,
            };
            self.remember(key, entry);
        }
    }

    /// The alert that mutes this one by a rule.
    fn muted(&self, rule: &Inhibition, alert: &Alert, time: i64) -> Option<String> {
        if !matcher::all(&rule.target, alert) {
            return None;
        }
        inhibition_keys(rule, alert).into_iter().find_map(|key| {
            let entry = self.memory.get(&key)?;
            let mutes =
                time < entry.until && entry.severity > alert.severity && entry.alert_id != alert.id;
            mutes.then(|| entry.alert_id.clone())
        })
    }

    fn remember(&mut self, key: String, entry: Memory) {
        self.drop_entry(&key);
        self.by_end.insert((entry.end(), key.clone()));
        self.memory.insert(key.clone(), entry);
        self.changed.insert(key);
        while self.memory.len() > MAX_MEMORY
            && let Some((_, oldest)) = self.by_end.pop_first()
        {
            self.memory.remove(&oldest);
            self.changed.insert(oldest);
        }
    }

    fn drop_entry(&mut self, key: &str) {
        if let Some(entry) = self.memory.remove(key) {
            self.by_end.remove(&(entry.end(), key.to_owned()));
            self.changed.insert(key.to_owned());
        }
    }

    /// Forgets what is over.
    fn forget(&mut self, time: i64) {
        while let Some((_, key)) = self.by_end.first().filter(|(end, _)| *end <= time).cloned() {
            self.drop_entry(&key);
        }
    }
}

fn hashed(parts: &[&str]) -> String {
    let mut hash = Xxh3::new();
    for part in parts {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    format!("{:032x}", hash.digest128())
}

/// The group of an alert on a route.
fn group_key(route: &Route, alert: &Alert) -> String {
    let mut parts = vec![alert.tenant.clone()];
    for field in &route.group_by {
        parts.push(field.to_string());
        parts.extend(field.values(alert));
    }
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    format!("d/{}", hashed(&parts))
}

/// The keys under which a source mutes and a target is muted. They do not depend on the rule's place in
/// the configuration.
fn inhibition_keys(rule: &Inhibition, alert: &Alert) -> Vec<String> {
    let words = |matchers: &[matcher::Matcher]| {
        matchers.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    let (source, target) = (words(&rule.source), words(&rule.target));
    let mut parts = vec![source, target, alert.tenant.clone()];
    for field in rule.equal.iter().filter(|field| **field != Field::Entity) {
        parts.push(field.to_string());
        parts.extend(field.values(alert));
    }
    if !rule.equal.contains(&Field::Entity) {
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        return vec![format!("i/{}", hashed(&parts))];
    }
    let of_entity = |entity: crate::alert::Entity| {
        let mut parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        parts.extend([entity.kind.as_str(), &entity.name]);
        format!("i/{}", hashed(&parts))
    };
    alert.entities().into_iter().map(of_entity).collect()
}

#[cfg(test)]
mod tests;
