//! The whole evidence of an alert: what its revisions say, one after the other.
//!
//! A revision of a correlation's alert names the evidence that changed: what earlier ones named stays up to its
//! `evidence_from`, and what follows is replaced. [`fold`] does what `sigma::correlation::Standings` does with the
//! revisions themselves. Rows tell records and no times, so where a revision begins with a record that none named before, the place is
//! that of the first record that both have.

use crate::sql::{self, Row};
use crate::state::ApiState;
use palisade_event::TenantId;
use palisade_query::QueryError;
use std::collections::BTreeSet;

/// The most records that are shown.
const MAX_RECORDS: usize = 10_000;
/// The most revisions that are gone through.
const MAX_REVISIONS: usize = 2_000;

/// The evidence of an alert.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Whole {
    /// Ids of records, each once, in their order.
    pub(super) records: Vec<String>,
    /// There are more.
    pub(super) more: bool,
}

/// What a revision says of the evidence.
#[derive(Debug, Default)]
struct Part {
    retracted: bool,
    from: Option<(String, usize)>,
    evidence: Vec<String>,
}

impl Part {
    fn of(row: &Row) -> Self {
        let from = sql::text(row, "evidence_from");
        let from = from.as_deref().and_then(|from| from.split_once('/'));
        Self {
            retracted: sql::text(row, "state").as_deref() == Some("retracted"),
            from: from.map(|(record, often)| (record.to_owned(), often.parse().unwrap_or(0))),
            evidence: sql::texts(row, "evidence"),
        }
    }
}

/// The evidence of an alert of the tenant.
pub(super) async fn whole(
    state: &ApiState,
    tenant: &TenantId,
    id: &str,
) -> Result<Whole, QueryError> {
    let have = sql::columns(state, tenant, palisade_event::schema::ALERTS).await?;
    let from = if have.contains("evidence_from") { "\"evidence_from\"" } else { "NULL" };
    let text = format!(
        "SELECT \"state\", \"evidence\", {from} AS \"evidence_from\" FROM alerts \
         WHERE \"alert_id\" = {} ORDER BY \"revision\", \"position\" LIMIT {}",
        sql::literal(id),
        MAX_REVISIONS + 1
    );
    let mut rows = sql::rows(state, tenant, &text, MAX_REVISIONS + 1).await?;
    let too_many = rows.len() > MAX_REVISIONS;
    rows.truncate(MAX_REVISIONS);
    let mut whole = fold(rows.iter().map(Part::of));
    whole.more |= too_many;
    Ok(whole)
}

fn fold(parts: impl Iterator<Item = Part>) -> Whole {
    let mut held: Vec<String> = Vec::new();
    for part in parts {
        match &part.from {
            _ if part.retracted => held.clear(),
            None => held.clear(),
            Some((record, often)) => {
                held.truncate(stays(&held, record, *often, &part.evidence));
            }
        }
        held.extend(part.evidence);
    }
    let mut seen = BTreeSet::new();
    let mut records: Vec<String> =
        held.into_iter().filter(|record| seen.insert(record.clone())).collect();
    let more = records.len() > MAX_RECORDS;
    records.truncate(MAX_RECORDS);
    Whole { records, more }
}

/// How many of the records that are held stay.
fn stays(held: &[String], record: &str, often: usize, new: &[String]) -> usize {
    let mut at = held.iter().enumerate().filter(|(_, held)| *held == record).map(|(at, _)| at);
    if let Some(first) = at.next() {
        return match often.checked_sub(1) {
            None => first,
            Some(further) => at.take(further).last().unwrap_or(first) + 1,
        };
    }
    let new: BTreeSet<&String> = new.iter().collect();
    held.iter().position(|held| new.contains(held)).unwrap_or(held.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(from: Option<(&str, usize)>, evidence: &str) -> Part {
        Part {
            retracted: false,
            from: from.map(|(record, often)| (record.to_owned(), often)),
            evidence: evidence.split_whitespace().map(str::to_owned).collect(),
        }
    }

    fn folded(parts: Vec<Part>) -> String {
        fold(parts.into_iter()).records.join(" ")
    }

    #[test]
    fn what_lies_before_stays_and_the_rest_is_replaced() {
        let first = || part(None, "a b c");
        assert_eq!(folded(vec![first()]), "a b c");
        // It grows behind its last record.
        let grown = || vec![first(), part(Some(("c", 1)), "d e")];
        assert_eq!(folded(grown()), "a b c d e");
        // A late record comes between.
        let mut late = grown();
        late.push(part(Some(("x", 0)), "x c d e"));
        assert_eq!(folded(late), "a b x c d e");
        // The tail goes, and nothing comes instead.
        let mut less = grown();
        less.push(part(Some(("b", 1)), ""));
        assert_eq!(folded(less), "a b");
        // From a known record on.
        let mut other = grown();
        other.push(part(Some(("b", 0)), "y z"));
        assert_eq!(folded(other), "a y z");
        // A record that is evidence through two rules counts once.
        let twice =
            vec![part(None, "a r r"), part(Some(("r", 2)), "s"), part(Some(("r", 1)), "r t")];
        assert_eq!(folded(twice), "a r t");
    }

    #[test]
    fn a_retraction_leaves_nothing_and_what_comes_back_begins_anew() {
        let mut parts = vec![part(None, "a b"), Part { retracted: true, ..Part::default() }];
        assert_eq!(fold(std::mem::take(&mut parts).into_iter()), Whole::default());
        parts = vec![
            part(None, "a b"),
            Part { retracted: true, ..Part::default() },
            part(Some(("c", 0)), "c d"),
        ];
        assert_eq!(folded(parts), "c d");
    }

    #[test]
    fn what_is_shown_is_bounded() {
        let many: Vec<String> = (0..MAX_RECORDS + 1).map(|n| format!("{n}")).collect();
        let whole = fold(std::iter::once(Part { evidence: many, ..Part::default() }));
        assert_eq!((whole.records.len(), whole.more), (MAX_RECORDS, true));
    }
}
