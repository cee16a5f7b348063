//! Correlations over correlations: an alert as a hit of those that read its correlation (H1).

use super::alert::{AlertId, Revision, Standing};
use super::definition::{Correlation, Measure, Source};
use super::hit::{Hit, HitKind, Value, group_key, group_slot, group_values, number, value_hash};
use super::resolve::Correlations;
use palisade_event::RecordId;

/// The hit that an alert is to a correlation that reads it: it has the alert's id, the time of its opening hit, and the
/// fields of its group.
#[derive(Debug, Clone, PartialEq)]
pub struct ChainedHit<'a> {
    reader: (usize, u16),
    tenant: &'a str,
    domain: &'a str,
    group: Vec<u8>,
    id: AlertId,
    time: i64,
    value: Value,
    kind: HitKind,
}

impl ChainedHit<'_> {
    /// As a hit, its tenant spread over `spread` slots (P1).
    #[must_use]
    pub fn as_hit(&self, spread: u16) -> Hit<'_> {
        Hit {
            correlation: self.reader.0,
            input: self.reader.1,
            tenant: self.tenant,
            domain: self.domain,
            slot: group_slot(self.tenant, &self.group, spread),
            group: &self.group,
            record: RecordId(self.id.0),
            time: self.time,
            clock: self.time,
            value: self.value,
            kind: self.kind,
        }
    }
}

impl Correlation {
    /// The places of the correlations that it reads.
    pub fn reads(&self) -> impl Iterator<Item = usize> {
        self.inputs.iter().filter_map(|input| match &input.source {
            Source::Correlation { place, .. } => Some(*place),
            Source::Rule(_) => None,
        })
    }
}

impl Correlations {
    /// The hit that an alert (its id, opening time and whether it stands) of a tenant, domain and group is to an
    /// input (correlation's place, input) that reads it; `None` also where the reader is another tenant's.
    #[must_use]
    pub fn hit_of_alert<'a>(
        &self,
        reader: (usize, u16),
        (id, time, kind): (AlertId, i64, HitKind),
        (tenant, domain): (&'a str, &'a str),
        group: &[u8],
    ) -> Option<ChainedHit<'a>> {
        let correlation = self.get(reader.0).filter(|reader| reader.is_of(tenant))?;
        let Source::Correlation { group: of_group, value: of_value, .. } =
            &correlation.inputs.get(usize::from(reader.1))?.source
        else {
            return None;
        };
        let values = group_values(group);
        let at = |place: &usize| values.get(*place).copied();
        let value = match &correlation.measure {
            Measure::Values { .. } => value_hash(of_value.iter().map(at)),
            measure if measure.has_value() => {
                of_value.first().and_then(at).map_or(Value::None, number)
            }
            _ => Value::None,
        };
        let group = group_key(of_group.iter().map(at))?;
        Some(ChainedHit { reader, tenant, domain, group, id, time, value, kind })
    }

    /// The hits that a revision is to those that read its correlation: none where it changes neither whether the alert
    /// stands nor when it opened.
    #[must_use]
    pub fn hits_of_revision<'a>(&self, revision: &'a Revision) -> Vec<ChainedHit<'a>> {
        let stands = revision.standing == Standing::Stands;
        let now = stands.then_some(revision.opened);
        if now == revision.opened_before {
            return Vec::new();
        }
        let mut hits = Vec::new();
        for reader in self.readers_of_correlation(revision.correlation) {
            for (time, kind) in
                [(revision.opened_before, HitKind::Retraction), (now, HitKind::Alert)]
            {
                let Some(time) = time else { continue };
                hits.extend(self.hit_of_alert(
                    reader,
                    (revision.id, time, kind),
                    (&revision.tenant, &revision.domain),
                    &revision.group,
                ));
            }
        }
        hits
    }
}
