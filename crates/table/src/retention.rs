//! How long rows are kept.

use palisade_catalog::SegmentMeta;
use std::collections::BTreeMap;

/// How long a table keeps the rows of a tenant, by their `time`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetentionRule {
    /// The table.
    pub table: String,
    /// The tenant; `None` for all that have no rule of their own.
    pub tenant: Option<String>,
    /// Microseconds that a row is kept. Files go when all their rows are older, so rows may stay
    /// somewhat longer.
    pub keep_micros: i64,
}

/// Before which time a tenant's rows are too old, for one table at one instant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cutoffs {
    by_tenant: BTreeMap<String, i64>,
    others: Option<i64>,
}

/// What retention has to do with a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// Every row may still be wanted, or too few are not.
    Keep,
    /// All rows are too old.
    Drop,
    /// About half of the rows or more are too old.
    Rewrite,
}

impl Cutoffs {
    pub(crate) fn of(rules: &[RetentionRule], table: &str, now: i64) -> Self {
        let mut cutoffs = Self::default();
        for rule in rules.iter().filter(|rule| rule.table == table) {
            let cutoff = now.saturating_sub(rule.keep_micros.max(0));
            match &rule.tenant {
                Some(tenant) => {
                    cutoffs.by_tenant.insert(tenant.clone(), cutoff);
                }
                None => cutoffs.others = Some(cutoff),
            }
        }
        cutoffs
    }

    /// Rows of this tenant with a lesser time are too old; `None` when they are kept for ever.
    pub(crate) fn before(&self, tenant: &str) -> Option<i64> {
        self.by_tenant.get(tenant).copied().or(self.others)
    }

    /// What is to be done with a segment, from what the catalog knows of it: its tenants and the range
    /// of its times, over which its rows are taken to be spread evenly.
    pub(crate) fn judge(&self, segment: &SegmentMeta) -> Expiry {
        let tenants = segment.tenants.len();
        let cutoffs: Vec<i64> =
            segment.tenants.iter().filter_map(|tenant| self.before(tenant)).collect();
        if tenants > 0
            && cutoffs.len() == tenants
            && cutoffs.iter().all(|cutoff| segment.max_time < *cutoff)
        {
            return Expiry::Drop;
        }
        let span = (i128::from(segment.max_time) - i128::from(segment.min_time)).max(1);
        let old: i128 = cutoffs
            .iter()
            .map(|cutoff| (i128::from(*cutoff) - i128::from(segment.min_time)).clamp(0, span))
            .sum();
        if old * 2 >= span * (tenants as i128).max(1) { Expiry::Rewrite } else { Expiry::Keep }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use palisade_event::Offset;

    fn segment(tenants: &[&str], times: (i64, i64)) -> SegmentMeta {
        SegmentMeta {
            id: 1,
            table: "events".to_owned(),
            path: String::new(),
            rows: 1,
            bytes: 1,
            min_time: times.0,
            max_time: times.1,
            tenants: tenants.iter().map(|t| (*t).to_owned()).collect(),
            from: Offset(0),
            to: Offset(1),
            level: 0,
            columns: Vec::new(),
            checksum: 0,
        }
    }

    #[test]
    fn files_go_when_every_tenant_lets_them() {
        let rule = |tenant: Option<&str>, keep_micros| RetentionRule {
            table: "events".to_owned(),
            tenant: tenant.map(str::to_owned),
            keep_micros,
        };
        let cutoffs = Cutoffs::of(&[rule(None, 100), rule(Some("b"), 1000)], "events", 1100);
        assert_eq!(cutoffs.judge(&segment(&["a"], (0, 999))), Expiry::Drop);
        assert_eq!(cutoffs.judge(&segment(&["a"], (0, 1000))), Expiry::Rewrite);
        assert_eq!(cutoffs.judge(&segment(&["a"], (900, 1200))), Expiry::Keep);
        assert_eq!(cutoffs.judge(&segment(&["a", "b"], (200, 400))), Expiry::Rewrite);
        assert_eq!(cutoffs.judge(&segment(&["b"], (200, 400))), Expiry::Keep);
        assert_eq!(Cutoffs::of(&[rule(None, 0)], "alerts", 1100), Cutoffs::default());
        assert_eq!(Cutoffs::default().judge(&segment(&["a"], (0, 1))), Expiry::Keep);
    }
}
