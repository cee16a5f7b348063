//! The ledger of idempotency keys (L4): the first answer of every keyed request of the last 24
//! hours, so that a client that repeats an unanswered request gets one copy and the same answer.
//!
//! The key travels in the log with its records ([`RequestEntry`]), so the ledger is a function of
//! the log: a checkpoint holds it as it was, and a replay adds what came after. Keys expire by the
//! gateway's clock as found in the log, and each tenant keeps at most [`LedgerLimits::per_tenant`],
//! oldest out first.
//!
//! A gateway may only ask a ledger that is whole: a client that repeats its request after a crash
//! would be taken for a new one otherwise. So at the start the heads of all frames since the
//! checkpoint are read first ([`Ledger::read_log`]), which is quick, and the rows are replayed
//! while new ones are taken already.
//!
//! # Checkpoint format
//! JSON lines, one [`RequestEntry`] each, in the order of their first appearance.

use hashbrown::HashMap;
use palisade_event::{Offset, RequestEntry};
use palisade_log::{Log, LogError};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How long a key is kept, in microseconds of the gateway's clock: 24 hours.
pub const KEY_LIFETIME: i64 = 24 * 3600 * 1_000_000;

/// Bounds of the ledger.
#[derive(Debug, Clone, Copy)]
pub struct LedgerLimits {
    /// Keys kept for one tenant.
    pub per_tenant: usize,
}

impl Default for LedgerLimits {
    fn default() -> Self {
        Self { per_tenant: 200_000 }
    }
}

/// What the ledger says to a request that is about to be taken.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Not seen: it is now in flight, and [`Ledger::forget`] or [`Ledger::record`] ends that.
    New,
    /// Seen and durable: this was the answer.
    Repeat(Arc<RequestEntry>),
    /// Being written by another request right now: ask again when that has been answered.
    InFlight,
    /// Seen with another body.
    Conflict,
}

#[derive(Debug)]
enum State {
    InFlight(String),
    Durable(Arc<RequestEntry>),
}

#[derive(Debug, Default)]
struct Keys {
    states: HashMap<String, State, foldhash::fast::FixedState>,
    order: VecDeque<Arc<RequestEntry>>,
}

/// All tenants' keys. Shared by the gateway, which asks, and the pipeline, which restores.
#[derive(Debug)]
pub struct Ledger {
    limits: LedgerLimits,
    tenants: Mutex<HashMap<String, Keys, foldhash::fast::FixedState>>,
    /// The requests of entries below this offset were read from the log at the start.
    read_until: AtomicU64,
}

impl Ledger {
    /// An empty ledger.
    #[must_use]
    pub fn new(limits: LedgerLimits) -> Self {
        Self { limits, tenants: Mutex::default(), read_until: AtomicU64::new(0) }
    }

    /// Asks about a request before its records are written.
    #[must_use]
    pub fn begin(&self, tenant: &str, key: &str, body_hash: &str) -> Verdict {
        let mut tenants = self.tenants.lock();
        let keys = match tenants.get_mut(tenant) {
            Some(keys) => keys,
            None => tenants.entry(tenant.to_owned()).or_default(),
        };
        match keys.states.get(key) {
            Some(State::Durable(entry)) if entry.body_hash == body_hash => {
                Verdict::Repeat(Arc::clone(entry))
            }
            Some(State::InFlight(hash)) if hash == body_hash => Verdict::InFlight,
            Some(_) => Verdict::Conflict,
            None => {
                keys.states.insert(key.to_owned(), State::InFlight(body_hash.to_owned()));
                Verdict::New
            }
        }
    }

    /// The request was not written after all: its key is free again.
    pub fn forget(&self, tenant: &str, key: &str) {
        if let Some(keys) = self.tenants.lock().get_mut(tenant)
            && matches!(keys.states.get(key), Some(State::InFlight(_)))
        {
            keys.states.remove(key);
        }
    }

    /// The request is durable: by the gateway when the log says so, and by a replay.
    pub fn record(&self, entry: &RequestEntry) {
        let mut tenants = self.tenants.lock();
        let keys = match tenants.get_mut(&entry.tenant) {
            Some(keys) => keys,
            None => tenants.entry(entry.tenant.clone()).or_default(),
        };
        if matches!(keys.states.get(&entry.key), Some(State::Durable(_))) {
            return;
        }
        let entry = Arc::new(entry.clone());
        keys.states.insert(entry.key.clone(), State::Durable(Arc::clone(&entry)));
        keys.order.push_back(Arc::clone(&entry));
        while let Some(oldest) = keys.order.front() {
            let expired = oldest.clock < entry.clock.saturating_sub(KEY_LIFETIME);
            if !expired && keys.order.len() <= self.limits.per_tenant {
                break;
            }
            keys.states.remove(&oldest.key);
            keys.order.pop_front();
        }
    }

    /// The durable keys as checkpoint bytes. Keys newer than the checkpoint's position may be among
    /// them: a replay finds them there already and leaves them alone. Gateways wait only while the
    /// entries are listed, not while they are written.
    ///
    /// # Errors
    /// When an entry can't be written as JSON (it always can).
    pub fn save(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut all: Vec<(String, Vec<Arc<RequestEntry>>)> = {
            let tenants = self.tenants.lock();
            let list = |keys: &Keys| keys.order.iter().cloned().collect();
            tenants.iter().map(|(tenant, keys)| (tenant.clone(), list(keys))).collect()
        };
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut bytes = Vec::new();
        for entry in all.iter().flat_map(|(_, entries)| entries) {
            serde_json::to_writer(&mut bytes, entry.as_ref())?;
            bytes.push(b'\n');
        }
        Ok(bytes)
    }

    /// Takes over what [`Ledger::save`] wrote.
    ///
    /// # Errors
    /// When a line is not a [`RequestEntry`].
    pub fn restore(&self, bytes: &[u8]) -> Result<(), serde_json::Error> {
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            self.record(&serde_json::from_slice(line)?);
        }
        Ok(())
    }

    /// How many keys are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tenants.lock().values().map(|keys| keys.states.len()).sum()
    }

    /// Whether no key is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes in the requests of all entries from `from` up to `to` (exclusive).
    ///
    /// # Errors
    /// When the log can't be read.
    pub fn read_log(&self, log: &Log, from: Offset, to: Offset) -> Result<(), LogError> {
        if from < to {
            let mut reader = log.read(from)?;
            while reader.position() < to
                && let Some(entry) = reader.next_stored()
            {
                entry?.requests()?.iter().for_each(|request| self.record(request));
            }
        }
        self.read_until.store(to.0, Ordering::Release);
        Ok(())
    }

    /// Takes in the requests of an entry that the pipeline has come to, unless
    /// [`Ledger::read_log`] has read them: taking them in again would bring back keys that have
    /// expired since and push out newer ones.
    pub fn follow(&self, offset: Offset, requests: &[RequestEntry]) {
        if offset.0 >= self.read_until.load(Ordering::Acquire) {
            requests.iter().for_each(|entry| self.record(entry));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, hash: &str, clock: i64) -> RequestEntry {
        RequestEntry {
            tenant: "t".into(),
            key: key.into(),
            body_hash: hash.into(),
            clock,
            accepted: 3,
            rejected: vec![(1, "no".into())],
            rejected_total: 1,
        }
    }

    #[test]
    fn a_repeat_gets_the_first_answer_and_another_body_a_conflict() {
        let ledger = Ledger::new(LedgerLimits::default());
        assert_eq!(ledger.begin("t", "k", "h"), Verdict::New);
        assert_eq!(ledger.begin("t", "k", "h"), Verdict::InFlight);
        assert_eq!(ledger.begin("t", "k", "other"), Verdict::Conflict);
        assert_eq!(ledger.begin("u", "k", "other"), Verdict::New);
        ledger.record(&entry("k", "h", 1));
        assert_eq!(ledger.begin("t", "k", "h"), Verdict::Repeat(Arc::new(entry("k", "h", 1))));
        assert_eq!(ledger.begin("t", "k", "other"), Verdict::Conflict);
    }

    #[test]
    fn a_request_that_failed_can_be_tried_again() {
        let ledger = Ledger::new(LedgerLimits::default());
        assert_eq!(ledger.begin("t", "k", "h"), Verdict::New);
        ledger.forget("t", "k");
        assert_eq!(ledger.begin("t", "k", "h2"), Verdict::New);
        ledger.record(&entry("k", "h2", 1));
        ledger.forget("t", "k");
        assert_eq!(ledger.begin("t", "k", "h"), Verdict::Conflict);
    }

    #[test]
    fn keys_expire_by_the_clock_of_the_log_and_by_number() {
        let ledger = Ledger::new(LedgerLimits { per_tenant: 2 });
        ledger.record(&entry("a", "h", 0));
        ledger.record(&entry("b", "h", KEY_LIFETIME + 1));
        assert_eq!(ledger.len(), 1);
        ledger.record(&entry("c", "h", KEY_LIFETIME + 2));
        ledger.record(&entry("d", "h", KEY_LIFETIME + 3));
        assert_eq!(ledger.len(), 2);
        assert_eq!(ledger.begin("t", "b", "h"), Verdict::New);
    }

    #[test]
    fn saved_and_restored_it_answers_the_same() -> Result<(), serde_json::Error> {
        let ledger = Ledger::new(LedgerLimits::default());
        for n in 0..10 {
            ledger.record(&entry(&format!("k{n}"), "h", n));
        }
        let other = Ledger::new(LedgerLimits::default());
        other.restore(&ledger.save()?)?;
        other.follow(Offset(3), &[entry("k9", "h", 9)]);
        assert_eq!(other.save()?, ledger.save()?);
        Ok(())
    }
}
