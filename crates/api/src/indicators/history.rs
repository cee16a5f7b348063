//! Indicators in the rows that are stored already.
//!
//! Of a segment the columns that can hold an indicator are asked for their distinct values, row group by row group
//! ([`StoredSegment::narrow`]): where none of them is one, nothing else of the group is read. Of the others the rows in question
//! are read, with the columns that tell what they are. Bloom filters and the entity index are not asked: they
//! know values letter by letter, and an indicator is also in `WWW.evil.example`, in `10.0.0.1:443` and in every address of a
//! network. So what is found here is what the live matcher would have found.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use palisade_detect::indicators::{Indicators, Looks, Scanner, ValueScanner, looks};
use palisade_event::schema::{Core, is_json};
use palisade_event::{RecordId, TenantId};
use palisade_pipeline::alerts::RecordIds;
use palisade_pipeline::indicators::value_of;
use palisade_pipeline::priority::yield_to_others;
use palisade_table::Snapshot;
use palisade_table::provider::{
    ReadCache, ReadError, StoredSegment, stored_memory, stored_segments,
};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Rows of all indicators together that are told, at most.
const MOST_ROWS: usize = 200_000;

/// What is looked for, and where.
pub struct Search<'a> {
    /// The indicators.
    pub set: &'a Indicators,
    /// The rows as they are now.
    pub snapshot: &'a Snapshot,
    /// Whose rows.
    pub tenant: &'a TenantId,
    /// The footers that are kept.
    pub cache: &'a ReadCache,
    /// Event times, microseconds since the epoch.
    pub times: Range<i64>,
    /// Rows that are told of each indicator, at most: the oldest.
    pub rows: usize,
    /// Threads that search.
    pub threads: usize,
    /// Asked between segments; false ends the search.
    pub go_on: &'a (dyn Fn() -> bool + Sync),
}

impl std::fmt::Debug for Search<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Search").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

/// A row in which an indicator is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sighting {
    /// Its event time, microseconds since the epoch.
    pub time: i64,
    /// Its id.
    pub record: RecordId,
    /// The column.
    pub column: String,
    /// The row's value there.
    pub value: String,
}

/// Where an indicator is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// How many rows name it; a row that names it in two columns counts twice.
    pub count: u64,
    /// The least event time of them.
    pub first: i64,
    /// The greatest.
    pub last: i64,
    /// The oldest of them.
    pub rows: Vec<Sighting>,
}

impl Seen {
    /// Leaves the oldest rows.
    fn keep(&mut self, most: usize) {
        self.rows.sort();
        self.rows.truncate(most);
    }
}

/// What a search found.
#[derive(Debug, Default)]
pub struct Sightings {
    /// By the number of the indicator in its set.
    pub seen: BTreeMap<u32, Seen>,
    /// The rows that could have one: the tenant's, of pages in the range of time.
    pub rows: u64,
    /// Those of them that were read.
    pub rows_read: u64,
    /// Segments that were looked at.
    pub segments: usize,
    /// Whether everything was looked at.
    pub complete: bool,
}

/// What one thread has found.
struct Part<'a> {
    search: &'a Search<'a>,
    scanner: Scanner,
    found: Sightings,
    most: usize,
}

impl Search<'_> {
    /// Searches.
    ///
    /// # Errors
    /// [`ReadError`] when a segment cannot be read.
    pub fn run(&self) -> Result<Sightings, ReadError> {
        let segments = stored_segments(self.snapshot, self.tenant, self.cache, &self.times)?;
        let most = self.rows.min(MOST_ROWS / self.set.len().max(1));
        let part = || Part {
            search: self,
            scanner: Scanner::new(),
            found: Sightings { complete: true, ..Sightings::default() },
            most,
        };
        let mut memory = part();
        for batch in stored_memory(self.snapshot, self.tenant, &self.times) {
            memory.found.rows += batch.num_rows() as u64;
            memory.take(&batch);
        }
        let mut all = memory.found;
        let threads = self.threads.clamp(1, segments.len().max(1));
        let left = Mutex::new(segments.into_iter());
        let done = AtomicUsize::new(0);
        let work = || -> Result<Sightings, ReadError> {
            yield_to_others();
            let mut part = part();
            loop {
                let next = left.lock().next();
                let Some(segment) = next else { return Ok(part.found) };
                if !(self.go_on)() {
                    part.found.complete = false;
                    return Ok(part.found);
                }
                part.segment(segment)?;
                done.fetch_add(1, Ordering::Relaxed);
            }
        };
        std::thread::scope(|scope| -> Result<(), ReadError> {
            let handles: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            for handle in handles {
                match handle.join() {
                    Ok(found) => all.add(found?, most),
                    // A defect; what the others found would not be everything.
                    Err(_) => all.complete = false,
                }
            }
            Ok(())
        })?;
        all.segments = done.load(Ordering::Relaxed);
        all.seen.values_mut().for_each(|seen| seen.keep(most));
        Ok(all)
    }
}

impl Sightings {
    fn add(&mut self, other: Self, most: usize) {
        self.rows += other.rows;
        self.rows_read += other.rows_read;
        self.complete &= other.complete;
        for (indicator, seen) in other.seen {
            match self.seen.get_mut(&indicator) {
                Some(known) => {
                    known.count += seen.count;
                    known.first = known.first.min(seen.first);
                    known.last = known.last.max(seen.last);
                    known.rows.extend(seen.rows);
                    known.keep(most);
                }
                None => {
                    self.seen.insert(indicator, seen);
                }
            }
        }
    }
}

impl Part<'_> {
    fn segment(&mut self, mut segment: StoredSegment) -> Result<(), ReadError> {
        let set = self.search.set;
        self.found.rows += segment.rows();
        let fields = segment.schema().fields().clone();
        let columns: Vec<(&str, Looks, bool)> = fields
            .iter()
            .map(|field| (field.name().as_str(), looks(field.name()), is_json(field)))
            .filter(|(_, looks, _)| set.may_be_in(*looks))
            .collect();
        if columns.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = columns.iter().map(|(name, ..)| *name).collect();
        let mut values = ValueScanner::default();
        let mut hits = Vec::new();
        segment.narrow(&names, &mut |place, text| {
            let Some((_, looks, json)) = columns.get(place) else { return false };
            hits.clear();
            values.find(set, *looks, *json, text, &mut hits);
            !hits.is_empty()
        })?;
        if segment.rows() == 0 {
            return Ok(());
        }
        let about = [Core::Tenant, Core::Source, Core::EventId, Core::RecordId].map(Core::name);
        let wanted = |name: &str| names.contains(&name) || about.contains(&name);
        for batch in segment.read(&wanted)? {
            self.take(&batch?);
        }
        Ok(())
    }

    fn take(&mut self, batch: &RecordBatch) {
        self.found.rows_read += batch.num_rows() as u64;
        let found = self.scanner.scan(self.search.set, batch);
        if found.is_empty() {
            return;
        }
        let ids = RecordIds::of(batch);
        let times = batch.column_by_name(Core::Time.name());
        let times = times.and_then(|times| times.as_primitive_opt::<TimestampMicrosecondType>());
        for found in found {
            let row = found.row as usize;
            let time = times.filter(|times| row < times.len()).map_or(0, |times| times.value(row));
            let seen = self.found.seen.entry(found.indicator).or_insert_with(|| Seen {
                count: 0,
                first: time,
                last: time,
                rows: Vec::new(),
            });
            seen.count += 1;
            seen.first = seen.first.min(time);
            seen.last = seen.last.max(time);
            // Twice as many are kept before the latest of them go.
            let (column, value) = value_of(batch, found);
            seen.rows.push(Sighting { time, record: ids.get(row), column, value });
            if seen.rows.len() >= self.most.saturating_mul(2).max(1) {
                seen.keep(self.most);
            }
        }
    }
}
