//! Memory of queries: each has its own bound, and all together have one.

use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryLimit, MemoryPool, MemoryReservation};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What all queries together may use.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    used: AtomicUsize,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0) })
    }

    /// How many bytes are in use.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// The memory of one query, out of the common budget.
#[derive(Debug)]
pub(crate) struct QueryPool {
    budget: Arc<Budget>,
    limit: usize,
    used: AtomicUsize,
    peak: AtomicUsize,
    common_refused: AtomicBool,
}

impl QueryPool {
    pub(crate) fn new(budget: Arc<Budget>, limit: usize) -> Arc<Self> {
        Arc::new(Self {
            budget,
            limit,
            used: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            common_refused: AtomicBool::new(false),
        })
    }

    /// The most bytes that were in use at once.
    pub(crate) fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    /// Whether the last refusal was for the common budget and not for the query's own bound.
    pub(crate) fn was_refused_by_all(&self) -> bool {
        self.common_refused.load(Ordering::Relaxed)
    }

    fn refused(&self, additional: usize, by_all: bool) -> DataFusionError {
        self.common_refused.store(by_all, Ordering::Relaxed);
        DataFusionError::ResourcesExhausted(format!("{additional} more bytes are not to be had"))
    }
}

impl fmt::Display for QueryPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "query memory: {} of {} bytes", self.used.load(Ordering::Relaxed), self.limit)
    }
}

impl MemoryPool for QueryPool {
    fn name(&self) -> &'static str {
        "query"
    }

    fn grow(&self, _: &MemoryReservation, additional: usize) {
        let used = self.used.fetch_add(additional, Ordering::Relaxed) + additional;
        self.peak.fetch_max(used, Ordering::Relaxed);
        self.budget.used.fetch_add(additional, Ordering::Relaxed);
    }

    fn shrink(&self, _: &MemoryReservation, shrink: usize) {
        self.used.fetch_sub(shrink, Ordering::Relaxed);
        self.budget.used.fetch_sub(shrink, Ordering::Relaxed);
    }

    fn try_grow(&self, _: &MemoryReservation, additional: usize) -> Result<()> {
        let within =
            |used: usize, limit: usize| used.checked_add(additional).filter(|sum| *sum <= limit);
        let order = Ordering::Relaxed;
        let own = self.used.fetch_update(order, order, |used| within(used, self.limit));
        let Ok(before) = own else { return Err(self.refused(additional, false)) };
        let budget = &self.budget;
        if budget.used.fetch_update(order, order, |used| within(used, budget.limit)).is_err() {
            self.used.fetch_sub(additional, order);
            return Err(self.refused(additional, true));
        }
        self.peak.fetch_max(before + additional, order);
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.limit)
    }
}
