//! The ledger of idempotency keys (L4): the first answer of every keyed request of the last 24
//! hours, so that a client that repeats an unanswered request gets one copy and the same answer.
//!
//! The key travels in the log with its records ([`RequestEntry`]), so the ledger is a function of
//! the log: a checkpoint holds it as it was, and a replay adds what came after. Keys expire by the
//! gateway's clock as found in the log, and each tenant keeps at most [`LedgerLimits::per_tenant`]
//! keys and [`LedgerLimits::per_tenant_bytes`], oldest in the log out first: an answer may list a thousand refused
//! records with their reasons, so a number of keys alone bounds little. What an entry counts for comes from its
//! content ([`kept_bytes`]) and not from the allocator, so a replay lets go of the same keys. The newest key is kept whatever its size.
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
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How long a key is kept, in microseconds of the gateway's clock: 24 hours.
pub const KEY_LIFETIME: i64 = 24 * 3600 * 1_000_000;

/// Bounds of the ledger.
#[derive(Debug, Clone, Copy)]
pub struct LedgerLimits {
    /// Keys kept for one tenant.
    pub per_tenant: usize,
    /// Bytes of memory that one tenant's keys and answers may take, about; see [`kept_bytes`].
    pub per_tenant_bytes: usize,
}

impl Default for LedgerLimits {
    fn default() -> Self {
        Self { per_tenant: 200_000, per_tenant_bytes: 128 << 20 }
    }
}

/// What an entry counts for besides its texts: itself, its places in the map and in the order.
const ENTRY_BYTES: usize = 320;
/// What a refused record counts for besides its reason.
const REFUSED_BYTES: usize = 48;

/// About how many bytes of memory an entry takes; a function of its content only. An entry with a key of 36
/// characters and no refused record counts for less than half a KiB, so 200,000 of them fit in the default bound.
#[must_use]
pub fn kept_bytes(entry: &RequestEntry) -> usize {
    let reasons = entry.rejected.iter().map(|(_, reason)| reason.len() + REFUSED_BYTES);
    // The key stands in the map and in the entry.
    ENTRY_BYTES
        + entry.tenant.len()
        + 2 * entry.key.len()
        + entry.body_hash.len()
        + reasons.sum::<usize>()
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
    /// With its place in the order.
    Durable(u64, Arc<RequestEntry>),
}

#[derive(Debug, Default)]
struct Keys {
    states: HashMap<String, State, foldhash::fast::FixedState>,
    /// By place, in the order of the log.
    order: BTreeMap<u64, Arc<RequestEntry>>,
    next: u64,
    /// The sum of [`kept_bytes`] over `order`.
    bytes: usize,
}

impl Keys {
    /// Puts an entry behind all others; lets go of what has expired at its clock and, oldest first, of
    /// what is over the limits.
    fn push(&mut self, entry: &RequestEntry, limits: LedgerLimits) {
        let entry = Arc::new(entry.clone());
        self.bytes += kept_bytes(&entry);
        self.states.insert(entry.key.clone(), State::Durable(self.next, Arc::clone(&entry)));
        self.order.insert(self.next, Arc::clone(&entry));
        self.next += 1;
        while let Some((place, oldest)) = self.order.first_key_value() {
            let expired = oldest.clock < entry.clock.saturating_sub(KEY_LIFETIME);
            let fits = self.order.len() <= limits.per_tenant
                && (self.bytes <= limits.per_tenant_bytes || self.order.len() == 1);
            if !expired && fits {
                break;
            }
            let (place, key) = (*place, oldest.key.clone());
            self.remove(place, &key);
        }
    }

    fn remove(&mut self, place: u64, key: &str) {
        if let Some(gone) = self.order.remove(&place) {
            self.bytes = self.bytes.saturating_sub(kept_bytes(&gone));
            self.states.remove(key);
        }
    }
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
            Some(State::Durable(_, entry)) if entry.body_hash == body_hash => {
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

    /// The request is durable: by the gateway when the log says so.
    pub fn record(&self, entry: &RequestEntry) {
        self.with_keys(&entry.tenant, |keys| {
            if !matches!(keys.states.get(&entry.key), Some(State::Durable(..))) {
                keys.push(entry, self.limits);
            }
        });
    }

    /// The request is read from the log again, in its order. The checkpoint that the ledger was restored
    /// from may have been written when later requests had come, and pushed out this one. So each
    /// request takes the last place, whether its key is there or not: at the end of the log all are in its
    /// order, and what is kept is what was kept before.
    pub fn replay(&self, entry: &RequestEntry) {
        self.with_keys(&entry.tenant, |keys| {
            if let Some(State::Durable(place, _)) = keys.states.get(&entry.key) {
                let place = *place;
                keys.remove(place, &entry.key);
            }
            keys.push(entry, self.limits);
        });
    }

    fn with_keys(&self, tenant: &str, change: impl FnOnce(&mut Keys)) {
        let mut tenants = self.tenants.lock();
        match tenants.get_mut(tenant) {
            Some(keys) => change(keys),
            None => change(tenants.entry(tenant.to_owned()).or_default()),
        }
    }

    /// The durable keys as checkpoint bytes. Keys newer than the checkpoint's position may be among
    /// them: a replay puts them where they belong ([`Ledger::replay`]). Gateways wait only while the
    /// entries are listed, not while they are written.
    ///
    /// # Errors
    /// When an entry can't be written as JSON (it always can).
    pub fn save(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut all: Vec<(String, Vec<Arc<RequestEntry>>)> = {
            let tenants = self.tenants.lock();
            let list = |keys: &Keys| keys.order.values().cloned().collect();
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

    /// About how many bytes the durable keys of all tenants take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.tenants.lock().values().map(|keys| keys.bytes).sum()
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
                entry?.requests()?.iter().for_each(|request| self.replay(request));
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
    use proptest::prelude::*;

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
        let ledger = Ledger::new(LedgerLimits { per_tenant: 2, ..LedgerLimits::default() });
        ledger.record(&entry("a", "h", 0));
        ledger.record(&entry("b", "h", KEY_LIFETIME + 1));
        assert_eq!(ledger.len(), 1);
        ledger.record(&entry("c", "h", KEY_LIFETIME + 2));
        ledger.record(&entry("d", "h", KEY_LIFETIME + 3));
        assert_eq!(ledger.len(), 2);
        assert_eq!(ledger.begin("t", "b", "h"), Verdict::New);
    }

    #[test]
    fn long_answers_push_out_old_keys_and_never_the_newest() {
        let long = |key: &str, reasons: usize, clock| RequestEntry {
            rejected: (0..reasons as u64).map(|n| (n, "no".repeat(50))).collect(),
            ..entry(key, "h", clock)
        };
        let limit = 2 * kept_bytes(&long("a", 1000, 0));
        let limits = LedgerLimits { per_tenant_bytes: limit, ..LedgerLimits::default() };
        let ledger = Ledger::new(limits);
        for (clock, key) in ["a", "b", "c"].into_iter().enumerate() {
            ledger.record(&long(key, 1000, clock as i64));
        }
        assert_eq!((ledger.len(), ledger.bytes()), (2, limit));
        assert_eq!(ledger.begin("t", "a", "h"), Verdict::New);
        ledger.forget("t", "a");
        ledger.record(&long("d", 5000, 4));
        assert_eq!(ledger.len(), 1);
        assert!(matches!(ledger.begin("t", "d", "h"), Verdict::Repeat(_)));
        ledger.record(&entry("e", "h", 5));
        assert_eq!((ledger.len(), ledger.bytes()), (1, kept_bytes(&entry("e", "h", 5))));
    }

    #[test]
    fn a_checkpoint_from_before_the_bound_of_bytes_is_read_and_cut() -> Result<(), serde_json::Error>
    {
        let before = Ledger::new(LedgerLimits { per_tenant_bytes: usize::MAX, ..LIMITS });
        for n in 0..LIMITS.per_tenant as i64 {
            before.record(&RequestEntry {
                rejected: vec![(0, "x".repeat(900))],
                ..entry(&n.to_string(), "h", n)
            });
        }
        let now = Ledger::new(LIMITS);
        now.restore(&before.save()?)?;
        assert!(now.len() < before.len() && now.bytes() <= LIMITS.per_tenant_bytes);
        assert!(before.save()?.ends_with(&now.save()?));
        Ok(())
    }

    const LIMITS: LedgerLimits = LedgerLimits { per_tenant: 6, per_tenant_bytes: 4_000 };

    proptest! {
        /// Requests with few different keys, answers of all sizes and hours between them: wherever a
        /// checkpoint stands and however much later its ledger was written, what is restored from it and
        /// replayed is what there would be without a restart, and the bounds hold all the time.
        #[test]
        fn a_replay_gives_the_same_ledger(
            requests in prop::collection::vec(
                (0u8..2, 0u8..10, 0usize..1500, 0i64..KEY_LIFETIME / 4),
                1..60,
            ),
            from in 0.0..1.0f64,
            saved in 0.0..1.0f64,
        ) {
            let live = Ledger::new(LIMITS);
            let mut log: Vec<RequestEntry> = Vec::new();
            let mut checkpoint = live.save().unwrap();
            let at = (saved * requests.len() as f64) as usize;
            let mut position = 0;
            let mut clock = 0;
            for (number, (tenant, key, reason, pause)) in requests.into_iter().enumerate() {
                clock += pause;
                let request = RequestEntry {
                    tenant: tenant.to_string(),
                    rejected: vec![(0, "x".repeat(reason))],
                    ..entry(&key.to_string(), &number.to_string(), clock)
                };
                if live.begin(&request.tenant, &request.key, &request.body_hash) == Verdict::New {
                    live.record(&request);
                    log.push(request);
                }
                for keys in live.tenants.lock().values() {
                    let bytes: usize = keys.order.values().map(|entry| kept_bytes(entry)).sum();
                    prop_assert_eq!((bytes, keys.order.len()), (keys.bytes, keys.states.len()));
                    prop_assert!(bytes <= LIMITS.per_tenant_bytes && keys.order.len() <= 6);
                }
                if number == at {
                    checkpoint = live.save().unwrap();
                    position = (from * log.len() as f64) as usize;
                }
            }
            let again = Ledger::new(LIMITS);
            again.restore(&checkpoint).unwrap();
            log.iter().skip(position).for_each(|request| again.replay(request));
            prop_assert_eq!(again.save().unwrap(), live.save().unwrap());
        }
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
