//! What entropy is normal for a source: per tenant and source, how many payloads there were and the
//! sums of their quantised entropies and of the squares.
//!
//! Sums are integers, so the order in which batches are added does not matter. What was observed
//! since the last tick waits beside the norm in force and is folded in by the tick (I3), so where
//! batches end is invisible.
//!
//! A tenant has norms for a bounded number of sources, first come, first kept; the sources beyond
//! share one norm. So nobody can make memory grow by naming ever new sources, nor take the norms away
//! from other tenants. What was kept before is never displaced.
//!
//! Serialised form, little-endian: the bytes `PSN1`; then twice, for the norm in force and for what
//! waits: a `u32` number of sources and for each, ordered by tenant and source, the tenant's length
//! (`u16`) and bytes, the source's length (`u16`) and bytes, count, sum and sum of squares (`u64`).

use crate::entropy;
use arrow::array::{Array, RecordBatch};
use palisade_event::ErrorClass;
use palisade_event::column::Text;
use palisade_event::schema::Core;
use std::collections::BTreeMap;

/// Observations below which a source has no norm yet.
pub const LEARNING: u64 = 256;
/// At this many observations a tick halves the sums, so that a norm follows its source.
const HALVE_AT: u64 = 1 << 22;
/// The least standard deviation, in bits: a source whose payloads are all alike is not surprised by
/// small differences.
const LEAST_DEVIATION: f32 = 0.25;
/// How many sources of a tenant have a norm of their own, by default.
pub const DEFAULT_SOURCES: usize = 1_000;
/// The source under whose name a tenant's further sources share a norm. It has spaces, so no sender
/// can have it.
const FURTHER: &str = "(further sources)";
const MAGIC: &[u8; 4] = b"PSN1";

/// Sums over quantised entropies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sums {
    count: u64,
    sum: u64,
    squares: u64,
}

impl Sums {
    fn observe(&mut self, quantised: u16) {
        let value = u64::from(quantised);
        self.count += 1;
        self.sum += value;
        self.squares += value * value;
    }

    fn add(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.sum = self.sum.saturating_add(other.sum);
        self.squares = self.squares.saturating_add(other.squares);
        while self.count >= HALVE_AT {
            self.count /= 2;
            self.sum /= 2;
            self.squares /= 2;
        }
    }

    fn norm(&self) -> Option<SourceNorm> {
        if self.count < LEARNING {
            return None;
        }
        let count = self.count as f64;
        let mean = self.sum as f64 / count;
        let variance = (self.squares as f64 / count - mean * mean).max(0.0);
        let steps = f64::from(entropy::STEPS_PER_BIT);
        Some(SourceNorm {
            count: self.count,
            mean: (mean / steps) as f32,
            deviation: ((variance.sqrt() / steps) as f32).max(LEAST_DEVIATION),
        })
    }
}

/// The norm of a source.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SourceNorm {
    /// How many payloads it rests on (halved now and then).
    pub count: u64,
    /// Their mean entropy in bits per byte.
    pub mean: f32,
    /// Its standard deviation in bits, at least 0.25.
    pub deviation: f32,
}

impl SourceNorm {
    /// By how many deviations an entropy in bits is above the mean; negative below it.
    #[must_use]
    pub fn deviations(&self, bits: f32) -> f32 {
        (bits - self.mean) / self.deviation
    }
}

type Key = (String, String);

/// The norms of all sources.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceNorms {
    in_force: BTreeMap<Key, Sums>,
    waiting: BTreeMap<Key, Sums>,
    /// For each tenant how many sources are in either, the shared one aside.
    sources: BTreeMap<String, usize>,
    most: usize,
}

impl Default for SourceNorms {
    fn default() -> Self {
        Self::new(DEFAULT_SOURCES)
    }
}

/// Why a serialised state cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NormError {
    /// It does not begin as it should.
    #[error(
        "the state of the source norms has an unknown format; restore an older checkpoint or the release that wrote it"
    )]
    Format,
    /// It ends too early or holds text that is no UTF-8.
    #[error("the state of the source norms is damaged at byte {0}; restore an older checkpoint")]
    Damaged(usize),
}

impl NormError {
    /// A state that cannot be read stops recovery.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        ErrorClass::Critical
    }
}

impl SourceNorms {
    /// No norms yet, for at most `most` sources of each tenant; the ones beyond share one.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self::of(BTreeMap::new(), BTreeMap::new(), most)
    }

    fn of(in_force: BTreeMap<Key, Sums>, waiting: BTreeMap<Key, Sums>, most: usize) -> Self {
        let mut norms = Self { in_force, waiting, sources: BTreeMap::new(), most };
        let known = norms.in_force.keys();
        let new = norms.waiting.keys().filter(|key| !norms.in_force.contains_key(*key));
        for (tenant, source) in known.chain(new) {
            if source != FURTHER {
                *norms.sources.entry(tenant.clone()).or_default() += 1;
            }
        }
        norms
    }

    /// Adds the entropies of a batch's rows (as from [`entropy::quantised_rows`]) to what waits for
    /// the next tick.
    pub fn observe(&mut self, quantised: &[u16], batch: &RecordBatch) {
        let groups = Groups::of(batch);
        let mut sums = vec![Sums::default(); groups.names.len()];
        // In the order of their first observation: who comes first is kept (I3).
        let mut order = Vec::new();
        for (row, value) in quantised.iter().enumerate() {
            let group = groups.of_row(row);
            if *value != entropy::NONE
                && let Some(sums) = sums.get_mut(group)
            {
                if sums.count == 0 {
                    order.push(group);
                }
                sums.observe(*value);
            }
        }
        for group in order {
            let named = groups.names.get(group).zip(sums.get(group));
            let Some(((tenant, source), sums)) = named else { continue };
            let key = self.place(tenant, source);
            let waiting = self.waiting.entry(key).or_default();
            // Not `add`: halving before the tick would depend on where batches end.
            waiting.count += sums.count;
            waiting.sum += sums.sum;
            waiting.squares += sums.squares;
        }
    }

    /// Under which key a source is observed.
    fn place(&mut self, tenant: &str, source: &str) -> Key {
        let key = (tenant.to_owned(), source.to_owned());
        if self.in_force.contains_key(&key) || self.waiting.contains_key(&key) {
            return key;
        }
        let known = self.sources.entry(tenant.to_owned()).or_default();
        if *known < self.most {
            *known += 1;
            return key;
        }
        (tenant.to_owned(), FURTHER.to_owned())
    }

    /// A tick: what was observed since the last one comes into force.
    pub fn on_tick(&mut self) {
        for (key, sums) in std::mem::take(&mut self.waiting) {
            self.in_force.entry(key).or_default().add(&sums);
        }
    }

    /// The norm in force of a source, of a further one that of all further ones; `None` while it is
    /// being learned.
    #[must_use]
    pub fn norm(&self, tenant: &str, source: &str) -> Option<SourceNorm> {
        if self.in_force.is_empty() {
            return None;
        }
        let mut key = (tenant.to_owned(), source.to_owned());
        if let Some(sums) = self.in_force.get(&key) {
            return sums.norm();
        }
        FURTHER.clone_into(&mut key.1);
        self.in_force.get(&key)?.norm()
    }

    /// How many sources are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.in_force.len()
    }

    /// Whether no source is known yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.in_force.is_empty()
    }

    /// The state as bytes (see the module).
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        for map in [&self.in_force, &self.waiting] {
            out.extend_from_slice(&(map.len() as u32).to_le_bytes());
            for ((tenant, source), sums) in map {
                for name in [tenant, source] {
                    let name = floor(name, usize::from(u16::MAX));
                    out.extend_from_slice(&(name.len() as u16).to_le_bytes());
                    out.extend_from_slice(name.as_bytes());
                }
                for number in [sums.count, sums.sum, sums.squares] {
                    out.extend_from_slice(&number.to_le_bytes());
                }
            }
        }
        out
    }

    /// The state from bytes that [`SourceNorms::snapshot`] gave, for at most `most` sources.
    ///
    /// # Errors
    /// [`NormError`] when the bytes are of another format or damaged.
    pub fn restore(bytes: &[u8], most: usize) -> Result<Self, NormError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(NormError::Format)?;
        let mut reader = Reader { all: bytes.len(), rest };
        let in_force = reader.map()?;
        let waiting = reader.map()?;
        if !reader.rest.is_empty() {
            return Err(reader.damaged());
        }
        Ok(Self::of(in_force, waiting, most))
    }
}

/// The longest beginning of a text with at most `most` bytes.
fn floor(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

struct Reader<'a> {
    all: usize,
    rest: &'a [u8],
}

impl Reader<'_> {
    fn damaged(&self) -> NormError {
        NormError::Damaged(self.all - self.rest.len())
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], NormError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or_else(|| self.damaged())?;
        self.rest = rest;
        Ok(*head)
    }

    fn text(&mut self) -> Result<String, NormError> {
        let length = usize::from(u16::from_le_bytes(self.fixed()?));
        let (head, rest) = self.rest.split_at_checked(length).ok_or_else(|| self.damaged())?;
        let text = std::str::from_utf8(head).map_err(|_| self.damaged())?.to_owned();
        self.rest = rest;
        Ok(text)
    }

    fn map(&mut self) -> Result<BTreeMap<Key, Sums>, NormError> {
        let count = u32::from_le_bytes(self.fixed()?);
        let mut map = BTreeMap::new();
        for _ in 0..count {
            let key = (self.text()?, self.text()?);
            let count = u64::from_le_bytes(self.fixed()?);
            let sum = u64::from_le_bytes(self.fixed()?);
            let squares = u64::from_le_bytes(self.fixed()?);
            map.insert(key, Sums { count, sum, squares });
        }
        Ok(map)
    }
}

/// The distinct pairs of tenant and source of a batch, and which row is of which.
pub(super) struct Groups<'a> {
    /// Tenant and source; a null reads as an empty text.
    pub(super) names: Vec<(&'a str, &'a str)>,
    /// The pair of each row; empty when all rows are of the first.
    rows: Vec<u32>,
}

impl<'a> Groups<'a> {
    pub(super) fn of(batch: &'a RecordBatch) -> Self {
        let tenant = Text::in_batch(batch, Core::Tenant.name());
        let source = Text::in_batch(batch, Core::Source.name());
        let single = |column: &Option<Text<'a>>| match column {
            None => Some(""),
            Some(Text::Dictionary(keys, values)) if values.len() == 1 => {
                (keys.null_count() == 0 && values.is_valid(0)).then(|| values.value(0))
            }
            Some(_) => None,
        };
        if let (Some(tenant), Some(source)) = (single(&tenant), single(&source)) {
            return Self { names: vec![(tenant, source)], rows: Vec::new() };
        }
        let at = |column: &Option<Text<'a>>, row| column.and_then(|c| c.get(row)).unwrap_or("");
        let mut names: Vec<(&'a str, &'a str)> = Vec::new();
        let mut index = hashbrown::HashMap::with_hasher(foldhash::fast::FixedState::default());
        let mut rows = Vec::with_capacity(batch.num_rows());
        let mut last = None;
        for row in 0..batch.num_rows() {
            let pair = (at(&tenant, row), at(&source, row));
            let group = match last {
                Some((known, group)) if known == pair => group,
                _ => *index.entry(pair).or_insert_with(|| {
                    names.push(pair);
                    names.len() as u32 - 1
                }),
            };
            last = Some((pair, group));
            rows.push(group);
        }
        if names.is_empty() {
            names.push(("", ""));
        }
        Self { names, rows }
    }

    /// The index in `names` of a row's pair.
    pub(super) fn of_row(&self, row: usize) -> usize {
        self.rows.get(row).map_or(0, |group| *group as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, StringArray};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn batch(sources: &[&str]) -> RecordBatch {
        let tenants = StringArray::from(vec!["t"; sources.len()]);
        RecordBatch::try_from_iter([
            ("tenant", Arc::new(tenants) as ArrayRef),
            ("source", Arc::new(StringArray::from(sources.to_vec())) as ArrayRef),
        ])
        .unwrap()
    }

    proptest! {
        /// The order and the sizes of batches between two ticks are invisible.
        #[test]
        fn only_ticks_matter(
            rows in prop::collection::vec((0u16..2049, 0usize..3), 1..600),
            cut in 0usize..600,
        ) {
            let names = ["a", "b", "c"];
            let all = |rows: &[(u16, usize)], norms: &mut SourceNorms| {
                let values: Vec<u16> = rows.iter().map(|r| r.0).collect();
                let sources: Vec<&str> = rows.iter().map(|r| names[r.1]).collect();
                norms.observe(&values, &batch(&sources));
            };
            let mut whole = SourceNorms::default();
            all(&rows, &mut whole);
            let mut split = SourceNorms::default();
            let (head, tail) = rows.split_at(cut.min(rows.len()));
            all(tail, &mut split);
            all(head, &mut split);
            prop_assert_eq!(&whole, &split);
            whole.on_tick();
            split.on_tick();
            prop_assert_eq!(&whole, &split);
            let again = SourceNorms::restore(&whole.snapshot(), DEFAULT_SOURCES).unwrap();
            prop_assert_eq!(whole, again);
        }

        #[test]
        fn damaged_states_are_refused(cut in 0usize..80) {
            let mut norms = SourceNorms::default();
            norms.observe(&[5, 6], &batch(&["a", "b"]));
            let bytes = norms.snapshot();
            prop_assume!(cut < bytes.len());
            prop_assert!(SourceNorms::restore(&bytes[..cut], 10).is_err());
        }
    }

    #[test]
    fn a_norm_needs_observations_and_a_tick() {
        let mut norms = SourceNorms::default();
        let sources = vec!["web"; 300];
        let values: Vec<u16> = (0..300).map(|i| 1024 + (i % 3) * 128).collect();
        norms.observe(&values, &batch(&sources));
        assert_eq!(norms.norm("t", "web"), None);
        norms.on_tick();
        let norm = norms.norm("t", "web").unwrap();
        assert_eq!(norm.mean, 4.5);
        assert!((norm.deviation - 0.408).abs() < 0.001, "{norm:?}");
        assert!(norm.deviations(8.0) > 8.0);
        assert_eq!(norms.norm("other", "web"), None);
    }

    #[test]
    fn sources_are_bounded_for_each_tenant_and_the_further_ones_share() {
        let of = |tenant: &str, source: &str, rows: usize| {
            let column = |text: &str| Arc::new(StringArray::from(vec![text; rows])) as ArrayRef;
            RecordBatch::try_from_iter([("tenant", column(tenant)), ("source", column(source))])
                .unwrap()
        };
        let mut norms = SourceNorms::new(2);
        norms.observe(&[1024; 300], &of("t", "a", 300));
        norms.on_tick();
        // A flood of names in one second does not displace what is known.
        for number in 0..500 {
            norms.observe(&[2048], &of("t", &format!("junk{number}"), 1));
        }
        norms.observe(&[1024; 300], &of("t", "a", 300));
        norms.observe(&[512; 300], &of("other", "a", 300));
        norms.on_tick();
        assert_eq!(norms.len(), 4, "a, junk0, the further ones; and the other tenant's");
        assert_eq!(norms.norm("t", "a").map(|norm| norm.count), Some(600));
        assert_eq!(norms.norm("t", "junk0"), None, "it is being learned");
        let shared = norms.norm("t", "junk77").unwrap();
        assert_eq!((shared.count, shared.mean), (499, 8.0));
        assert_eq!(norms.norm("t", "never seen"), Some(shared));
        assert_eq!(norms.norm("other", "a").unwrap().mean, 2.0);
        assert_eq!(norms.norm("other", "b"), None);
        // The bound holds after a restart too.
        let mut again = SourceNorms::restore(&norms.snapshot(), 2).unwrap();
        assert_eq!(again, norms);
        again.observe(&[7], &of("t", "late", 1));
        again.on_tick();
        assert_eq!(again.len(), 4);
    }

    proptest! {
        /// Where batches end is invisible at the bound too, whichever rows have no entropy.
        #[test]
        fn who_comes_first_is_kept(
            rows in prop::collection::vec((prop_oneof![Just(entropy::NONE), Just(7u16)], 0usize..6), 1..40),
            cut in 0usize..40,
        ) {
            let names = ["a", "b", "c", "d", "e", "f"];
            let observe = |rows: &[(u16, usize)], norms: &mut SourceNorms| {
                let values: Vec<u16> = rows.iter().map(|row| row.0).collect();
                let sources: Vec<&str> = rows.iter().map(|row| names[row.1]).collect();
                norms.observe(&values, &batch(&sources));
            };
            let (mut whole, mut split) = (SourceNorms::new(2), SourceNorms::new(2));
            observe(&rows, &mut whole);
            let (head, tail) = rows.split_at(cut.min(rows.len()));
            observe(head, &mut split);
            observe(tail, &mut split);
            prop_assert_eq!(&whole, &split);
        }
    }
}
