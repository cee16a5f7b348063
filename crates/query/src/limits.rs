//! How an engine is set up, and what one query may use of it.

use palisade_table::provider::ReadCache;
use std::path::PathBuf;
use std::time::Duration;

/// How an engine is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many threads queries run on, and how many parts a query is split into.
    pub threads: usize,
    /// The most memory of all queries together, in bytes.
    pub memory: usize,
    /// How many queries run at once.
    pub concurrent: usize,
    /// How many queries may wait for their turn; one more is refused as busy.
    pub waiting: usize,
    /// The longest text of a query, in bytes.
    pub sql_bytes: usize,
    /// The most steps of a query's plan.
    pub plan_nodes: usize,
    /// How many queries are kept for `system.queries`.
    pub log: usize,
    /// The most memory for footers and page indexes of segments, in bytes.
    pub cache: usize,
    /// Where sorts and groups that outgrow their memory may write; nowhere when there is none.
    pub spill: Option<PathBuf>,
    /// The most bytes of all queries in that directory: each query gets its share of them.
    pub spill_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Self {
            threads,
            memory: 256 << 20,
            concurrent: threads.max(2) * 2,
            waiting: 64,
            sql_bytes: 64 << 10,
            plan_nodes: 1_000,
            log: 1_000,
            cache: ReadCache::DEFAULT_BYTES,
            spill: None,
            // The share of one query on two cores holds a hundred million pairs of short texts.
            spill_bytes: 8 << 30,
        }
    }
}

/// What one query may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long it may take, its result's delivery and its wait for a turn included.
    pub time: Duration,
    /// How much memory it may use, in bytes, within that of all queries.
    pub memory: usize,
    /// How many rows it may give.
    pub rows: usize,
    /// What happens to a result with more rows.
    pub excess: Excess,
}

/// What happens to a result that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// It is cut, and says so.
    Truncate,
    /// It is an error.
    Refuse,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(30),
            memory: 192 << 20,
            rows: 10_000,
            excess: Excess::Truncate,
        }
    }
}
