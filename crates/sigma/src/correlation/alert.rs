//! What correlations answer: alerts, and while they are not final, revisions of them (I2).

use super::definition::Correlation;
use palisade_event::{RecordId, Slot};
use std::fmt;
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

/// An alert's id: a hash of rule id, rule version, tenant, domain, group and anchor (I2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AlertId(pub [u8; 16]);

impl fmt::Display for AlertId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// What an alert hangs on: the cut period that it opened in, and time and id of its episode's first hit (I2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Anchor {
    /// The number of the cut period, from the epoch.
    pub period: i64,
    /// The first hit's time, microseconds.
    pub time: i64,
    /// The first hit's record.
    pub record: RecordId,
}

impl AlertId {
    /// The id of a correlation's alert: XXH3-128 over the parts, each preceded by its length.
    #[must_use]
    pub fn new(
        correlation: &Correlation,
        tenant: &str,
        domain: &str,
        group: &[u8],
        anchor: &Anchor,
    ) -> Self {
        let mut hash = Xxh3::new();
        for part in [
            correlation.id.as_bytes(),
            &correlation.version.0,
            tenant.as_bytes(),
            domain.as_bytes(),
            group,
            &anchor.period.to_le_bytes(),
            &anchor.time.to_le_bytes(),
            &anchor.record.0,
        ] {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(hash.digest128().to_be_bytes())
    }
}

/// A hit as evidence. Evidence is ordered as hits are: by time, id and input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Evidence {
    /// Microseconds.
    pub time: i64,
    /// The record, or the alert of a correlation that is read.
    pub record: RecordId,
    /// Through which input it came.
    pub input: u16,
}

/// An alert as it stands once final.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// Its id.
    pub id: AlertId,
    /// The correlation's place.
    pub correlation: usize,
    /// Whose data.
    pub tenant: Arc<str>,
    /// The time domain.
    pub domain: Arc<str>,
    /// The group ([`super::group_key`]).
    pub group: Arc<[u8]>,
    /// What the id hangs on.
    pub anchor: Anchor,
    /// The time of its opening hit; for absence a timespan later, for a tumbling window its end. Its time as a hit.
    pub opened: i64,
    /// In order.
    pub evidence: Vec<Evidence>,
}

/// What a revision says of its alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It stands.
    Stands,
    /// It does not stand any more.
    Retracted,
}

/// A revision of an alert. Evidence that earlier revisions named and that lies before `from` stays; all from there on is
/// replaced by `evidence`. So an alert that grows for a day costs what it grows by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// The alert.
    pub id: AlertId,
    /// Counts from 1; goes on when an id comes back.
    pub number: u32,
    /// Whether it stands.
    pub standing: Standing,
    /// The correlation's place.
    pub correlation: usize,
    /// Whose data.
    pub tenant: Arc<str>,
    /// The time domain.
    pub domain: Arc<str>,
    /// The group's slot.
    pub slot: Slot,
    /// The group.
    pub group: Arc<[u8]>,
    /// What the id hangs on.
    pub anchor: Anchor,
    /// The time of its opening hit, see [`Alert::opened`].
    pub opened: i64,
    /// The opening time that the revision before named, when that one stood.
    pub opened_before: Option<i64>,
    /// Evidence from here on is replaced.
    pub from: Evidence,
    /// The evidence from there on, in order.
    pub evidence: Vec<Evidence>,
    /// State that it needed was given up to stay within bounds (P2): it may be incomplete.
    pub cut: bool,
}
