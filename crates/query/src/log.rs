//! The last queries, for `system.queries`.

use palisade_event::TenantId;
use parking_lot::Mutex;
use std::collections::VecDeque;

/// What is kept of a query.
#[derive(Debug, Clone)]
pub struct LoggedQuery {
    /// Counts from 1 since the engine was made.
    pub number: u64,
    /// Who asked.
    pub tenant: TenantId,
    /// The text, at most its first 2,000 characters.
    pub sql: String,
    /// When it was asked, in microseconds since the epoch.
    pub started: i64,
    /// How long it took in all; `None` while it runs.
    pub seconds: Option<f64>,
    /// How many rows it gave.
    pub rows: u64,
    /// Bytes read from segments.
    pub bytes_scanned: u64,
    /// The most memory that it used at once, in bytes.
    pub memory: u64,
    /// `running`, `done`, `truncated`, `cancelled`, or the code of its error.
    pub state: &'static str,
    /// The error's message.
    pub error: Option<String>,
}

/// A ring of the last queries of all tenants.
#[derive(Debug)]
pub struct QueryLog {
    capacity: usize,
    inner: Mutex<Ring>,
}

#[derive(Debug, Default)]
struct Ring {
    last: u64,
    queries: VecDeque<LoggedQuery>,
}

impl QueryLog {
    /// A ring for this many queries.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), inner: Mutex::new(Ring::default()) }
    }

    /// Writes down that a query began; the answer is its number.
    pub(crate) fn begin(&self, tenant: &TenantId, sql: &str, started: i64) -> u64 {
        let mut ring = self.inner.lock();
        ring.last += 1;
        let number = ring.last;
        if ring.queries.len() >= self.capacity {
            ring.queries.pop_front();
        }
        ring.queries.push_back(LoggedQuery {
            number,
            tenant: tenant.clone(),
            sql: sql.chars().take(2_000).collect(),
            started,
            seconds: None,
            rows: 0,
            bytes_scanned: 0,
            memory: 0,
            state: "running",
            error: None,
        });
        number
    }

    /// Completes a query's entry, if it is still kept.
    pub(crate) fn end(&self, number: u64, complete: impl FnOnce(&mut LoggedQuery)) {
        let mut ring = self.inner.lock();
        if let Some(query) = ring.queries.iter_mut().find(|query| query.number == number) {
            complete(query);
        }
    }

    /// The tenant's queries, oldest first.
    #[must_use]
    pub fn of(&self, tenant: &TenantId) -> Vec<LoggedQuery> {
        let ring = self.inner.lock();
        ring.queries.iter().filter(|query| query.tenant == *tenant).cloned().collect()
    }
}
