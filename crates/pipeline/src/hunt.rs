//! Rules and correlations over what is all there: hunts over stored rows ([`Hunt`], [`jobs`]), and batches for tests of
//! rules ([`alerts_of`]).

mod gather;
mod history;
mod job;
pub mod jobs;
mod known;
mod results;

pub use gather::{FoundAlert, HuntError, HuntLimits};
pub(crate) use history::OF_ALERTS;
pub use history::{Hunt, HuntReport, Progress};

use crate::alerts::RecordIds;
use crate::rules::Rules;
use crate::rules::counting::{domain_key, hit_rows};
use arrow::array::RecordBatch;
use palisade_event::RecordId;
use palisade_event::slot::SLOTS;
use palisade_sigma::correlation::{Alert, Hit, HitKind, Options, Range, Value, group_slot, hunt};
use palisade_sigma::{Counted, Hits};

/// A row's match, kept until all are there and can be sorted.
#[derive(Debug)]
struct Kept {
    correlation: usize,
    input: u16,
    tenant: String,
    domain: String,
    group: Vec<u8>,
    record: RecordId,
    time: i64,
    clock: i64,
    value: Value,
}

/// What was found in batches so far.
#[derive(Debug, Default)]
pub struct Found {
    hits: Hits,
    kept: Vec<Kept>,
    /// Matches of rules that are alerts.
    pub matches: u64,
    /// Rows that were looked at.
    pub rows: u64,
}

impl Found {
    /// Takes in a batch. `each` gets each match that is an alert: its row and the rule's ordinal.
    pub fn take(&mut self, rules: &Rules, batch: &RecordBatch, mut each: impl FnMut(usize, u32)) {
        let Self { hits, kept, matches, rows } = self;
        rules.matches(batch, hits);
        *rows += batch.num_rows() as u64;
        for (row, rule) in hits.iter().filter(|(_, rule)| rules.book.makes_alerts(*rule)) {
            *matches += 1;
            each(row, rule);
        }
        let counted = rules.book.counted(batch, hits);
        if counted.is_empty() {
            return;
        }
        let ids = RecordIds::of(batch);
        let about = hit_rows(batch);
        for counted in counted {
            let Counted { row, correlation, input, group, value, .. } = counted;
            let (tenant, domain, time, clock) = about(row);
            kept.push(Kept {
                correlation,
                input,
                tenant: tenant.to_owned(),
                domain: domain_key(tenant, domain),
                group,
                record: ids.get(row),
                time,
                clock,
                value,
            });
        }
    }

    /// The final alerts of correlations over a range (K2).
    #[must_use]
    pub fn alerts(mut self, rules: &Rules, range: Range) -> Vec<Alert> {
        self.kept.sort_by_key(|kept| kept.time);
        let hits = self.kept.iter().map(|kept| Hit {
            correlation: kept.correlation,
            input: kept.input,
            tenant: &kept.tenant,
            domain: &kept.domain,
            slot: group_slot(&kept.tenant, &kept.group, SLOTS),
            group: &kept.group,
            record: kept.record,
            time: kept.time,
            clock: kept.clock,
            value: kept.value,
            kind: HitKind::Record,
        });
        hunt(rules.book.correlations(), hits, range, (SLOTS, Options::default()))
    }
}

/// The final alerts of correlations over all rows of these batches.
#[must_use]
pub fn alerts_of(rules: &Rules, batches: &[RecordBatch]) -> Vec<Alert> {
    let mut found = Found::default();
    for batch in batches {
        found.take(rules, batch, |_, _| {});
    }
    found.alerts(rules, Range::default())
}
