//! Incidents: alerts of a tenant that belong together because they share a user, host or source
//! address and follow each other within a gap of event time.
//!
//! Two alerts are linked when they share an entity and no more than `gap` lies between them along that
//! entity's alerts; an incident is what is linked directly or through others. No incident crosses a **cut**, a multiple
//! of max(24 h, 4 gaps) since the epoch (as K2 does it for correlations), so the incidents between two cuts
//! do not depend on where a query began. Its id is the XXH3-128 of the word `incident`, the tenant and the id of its anchor,
//! the first alert by (time, id): the order of arrival changes nothing. A later alert that joins two
//! incidents leaves the id of the earlier one.
//!
//! The alerts are the latest revision of each id; retracted ones belong to none.

use crate::alert::{Alert, Entity, Severity, State};
use palisade_event::RecordId;
use std::collections::{BTreeMap, BTreeSet};
use xxhash_rust::xxh3::Xxh3;

/// An hour, in microseconds: the gap when none is asked for.
pub const GAP: i64 = 3_600_000_000;
/// A day, in microseconds.
const DAY: i64 = 86_400_000_000;

/// Alerts that belong together. Times are microseconds since the epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident {
    /// 32 hexadecimal digits.
    pub id: String,
    /// Whose.
    pub tenant: String,
    /// The event time of the first alert.
    pub first_time: i64,
    /// The event time of the last.
    pub last_time: i64,
    /// The worst severity.
    pub severity: Severity,
    /// The alerts' ids, by (time, id); the first is the anchor.
    pub alerts: Vec<String>,
    /// The rules that raised them.
    pub rules: BTreeSet<String>,
    /// Their tags.
    pub tags: BTreeSet<String>,
    /// Whom they are about.
    pub entities: BTreeSet<Entity>,
}

/// The length of a period between cuts, for a gap.
#[must_use]
pub fn period(gap: i64) -> i64 {
    DAY.max(gap.max(1).saturating_mul(4))
}

/// The cut at or before a moment.
#[must_use]
pub fn cut_before(time: i64, gap: i64) -> i64 {
    let period = period(gap);
    time.div_euclid(period).saturating_mul(period)
}

/// The incidents of these alerts, the one with the newest alert first.
#[must_use]
pub fn group(alerts: &[Alert], gap: i64) -> Vec<Incident> {
    let mut ordered: Vec<&Alert> =
        alerts.iter().filter(|alert| alert.state == State::Open).collect();
    ordered.sort_by(|a, b| (&a.tenant, a.time, &a.id).cmp(&(&b.tenant, b.time, &b.id)));
    ordered.dedup_by(|a, b| a.tenant == b.tenant && a.id == b.id);

    let mut sets = Sets::new(ordered.len());
    let mut last: BTreeMap<(&str, Entity), (usize, i64)> = BTreeMap::new();
    for (index, alert) in ordered.iter().enumerate() {
        for entity in alert.entities() {
            let seen = last.insert((&alert.tenant, entity), (index, alert.time));
            if let Some((before, time)) = seen
                && alert.time.saturating_sub(time) <= gap
                && cut_before(time, gap) == cut_before(alert.time, gap)
            {
                sets.join(before, index);
            }
        }
    }

    // Indices ascend by time, so the first of a set is its anchor.
    let mut incidents: BTreeMap<usize, Incident> = BTreeMap::new();
    for (index, alert) in ordered.iter().enumerate() {
        let incident = incidents.entry(sets.first(index)).or_insert_with(|| Incident {
            id: id_of(&alert.tenant, &alert.id),
            tenant: alert.tenant.clone(),
            first_time: alert.time,
            last_time: alert.time,
            severity: alert.severity,
            alerts: Vec::new(),
            rules: BTreeSet::new(),
            tags: BTreeSet::new(),
            entities: BTreeSet::new(),
        });
        incident.last_time = alert.time;
        incident.severity = incident.severity.max(alert.severity);
        incident.alerts.push(alert.id.clone());
        incident.rules.insert(alert.rule_id.clone());
        incident.tags.extend(alert.tags.iter().cloned());
        incident.entities.extend(alert.entities());
    }
    let mut incidents: Vec<Incident> = incidents.into_values().collect();
    incidents.sort_by(|a, b| (b.last_time, &a.id).cmp(&(a.last_time, &b.id)));
    incidents
}

fn id_of(tenant: &str, anchor: &str) -> String {
    let mut hash = Xxh3::new();
    for part in ["incident", tenant, anchor] {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    RecordId(hash.digest128().to_be_bytes()).to_string()
}

/// Disjoint sets of indices, each named by its least.
struct Sets(Vec<usize>);

impl Sets {
    fn new(count: usize) -> Self {
        Self((0..count).collect())
    }

    fn first(&mut self, index: usize) -> usize {
        let mut root = index;
        while let Some(parent) = self.0.get(root).copied()
            && parent != root
        {
            root = parent;
        }
        let mut walk = index;
        while walk != root
            && let Some(parent) = self.0.get_mut(walk)
        {
            walk = std::mem::replace(parent, root);
        }
        root
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.first(a), self.first(b));
        if let Some(parent) = self.0.get_mut(a.max(b)) {
            *parent = a.min(b);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn alert(id: u32, time: i64, user: Option<u8>, src_ip: Option<u8>) -> Alert {
        Alert {
            tenant: "acme".into(),
            id: format!("{id:032x}"),
            time,
            user: user.map(|n| format!("user{n}")),
            src_ip: src_ip.map(|n| format!("10.0.0.{n}")),
            rule_id: format!("rule{}", id % 3),
            ..Alert::default()
        }
    }

    #[test]
    fn alerts_that_share_an_entity_in_time_are_one_incident() {
        let alerts = [
            alert(1, 0, Some(1), Some(1)),
            alert(2, GAP, None, Some(1)),
            alert(3, GAP + 5, Some(2), Some(1)),
            // Too long after.
            alert(4, 2 * GAP + 10, Some(1), Some(9)),
            // Of user 2, through alert 3 one with the first.
            alert(5, 2 * GAP, Some(2), None),
            Alert { state: State::Retracted, ..alert(6, 5, Some(1), None) },
            Alert { tenant: "other".into(), ..alert(7, 3, Some(1), None) },
        ];
        let incidents = group(&alerts, GAP);
        let sizes: Vec<(usize, &str)> =
            incidents.iter().map(|one| (one.alerts.len(), one.tenant.as_str())).collect();
        assert_eq!(sizes, [(1, "acme"), (4, "acme"), (1, "other")]);
        let big = &incidents[1];
        assert_eq!(big.alerts[0], format!("{:032x}", 1));
        assert_eq!((big.first_time, big.last_time), (0, 2 * GAP));
        assert_eq!(big.entities.len(), 3);
        assert_eq!(big.rules.len(), 3);
    }

    #[test]
    fn an_incident_never_crosses_a_cut() {
        let alerts = [alert(1, DAY - 1, Some(1), None), alert(2, DAY, Some(1), None)];
        assert_eq!(group(&alerts, GAP).len(), 2);
        assert_eq!((period(GAP), period(DAY)), (DAY, 4 * DAY));
        assert_eq!(cut_before(-1, GAP), -DAY);
    }

    type Rows = Vec<(i64, Option<u8>, Option<u8>)>;

    fn rows() -> impl Strategy<Value = Rows> {
        let one = (0i64..3 * DAY, prop::option::of(0u8..4), prop::option::of(0u8..6));
        prop::collection::vec(one, 0..60)
    }

    proptest! {
        /// The order of arrival changes nothing; the incidents after a cut do not depend on what lies
        /// before it; and they are what following the links one by one gives.
        #[test]
        fn incidents_are_deterministic(rows in rows(), seed in any::<u64>()) {
            let alerts: Vec<Alert> = rows.iter().enumerate()
                .map(|(id, (time, user, ip))| alert(id as u32, *time, *user, *ip)).collect();
            let found = group(&alerts, GAP);

            let mut shuffled = alerts.clone();
            shuffled.sort_by_key(|alert| xxhash_rust::xxh3::xxh3_64_with_seed(alert.id.as_bytes(), seed));
            prop_assert_eq!(&group(&shuffled, GAP), &found);

            let late: Vec<Alert> = alerts.iter().filter(|a| a.time >= DAY).cloned().collect();
            let after: Vec<Incident> = found.iter().filter(|i| i.first_time >= DAY).cloned().collect();
            prop_assert_eq!(group(&late, GAP), after);

            // Reference: spread labels until nothing changes.
            let mut sorted = alerts.clone();
            sorted.sort_by(|a, b| (a.time, &a.id).cmp(&(b.time, &b.id)));
            let mut label: Vec<usize> = (0..sorted.len()).collect();
            loop {
                let before = label.clone();
                for i in 0..sorted.len() {
                    for j in 0..i {
                        let (a, b) = (&sorted[j], &sorted[i]);
                        let shares = a.entities().iter().any(|e| b.entities().contains(e) && {
                            // No gap along this entity.
                            let times: Vec<i64> = sorted[j..=i].iter()
                                .filter(|x| x.entities().contains(e)).map(|x| x.time).collect();
                            times.windows(2).all(|w| w[1] - w[0] <= GAP)
                        });
                        if shares && cut_before(a.time, GAP) == cut_before(b.time, GAP) {
                            let least = label[i].min(label[j]);
                            (label[i], label[j]) = (least, least);
                        }
                    }
                }
                if label == before { break }
            }
            let mut expected: BTreeMap<usize, Vec<String>> = BTreeMap::new();
            for (index, alert) in sorted.iter().enumerate() {
                expected.entry(label[index]).or_default().push(alert.id.clone());
            }
            let mut expected: Vec<Vec<String>> = expected.into_values().collect();
            let mut got: Vec<Vec<String>> = found.into_iter().map(|i| i.alerts).collect();
            expected.sort();
            got.sort();
            prop_assert_eq!(got, expected);
        }
    }
}
