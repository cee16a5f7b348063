//! Control records: what is in force from an offset of the log on (C1, C3), and the time domains that are
//! open there (T2).
//!
//! A control record stands in the log between the records, so a replay meets it at the same place as the
//! live run did: workers and finisher switch exactly there, a checkpoint keeps what was in force at its
//! position, and a restart with another configuration changes nothing about what is replayed. Before the
//! first activation of a log, the settings and versions of [`InForce::default`] are in force.
//!
//! # Kinds and bodies
//! Bodies are JSON objects. `release` is the release that wrote the record: who does not understand a
//! record, or lacks an operator's version, can say which release does.
//!
//! | kind | body |
//! |---|---|
//! | `activation` | `{"release":"0.1.0","generation":7,"subject":"detectors","hash":"<XXH3-128 of content>","content":"{…}"}` |
//! | `domain_starts`, `domain_ends` | `{"release":"0.1.0","tenant":"acme","domain":"load:…"}` |
//! | `backfill` | [`BackfillStep`] |
//! | `clock` | `{"release":"0.1.0"}`; the record's clock is one that no later row's is before (T3, between ticks) |
//!
//! The content of the subject `detectors` is a [`DetectorSettings`], that of `operators` an
//! [`OperatorVersions`], that of `rules` a [`RulesInForce`], that of `indicators` an [`IndicatorsInForce`]. It is the text that the catalog keeps under the same hash.
//!
//! # Rules
//! * An activation whose generation is not above the one in force is ignored (C1): a late repeat undoes
//!   nothing, and a rollback is a new generation.
//! * A record of an unknown kind, subject or form is refused, because what follows it can't be replayed.
//! * An operator's version that is newer than all that this release has is refused at once; one that is older is
//!   refused at the first record that would need it, so an upgrade after a graceful stop, which leaves nothing to
//!   replay, goes through (C3).

mod backfill;

pub use backfill::{
    BACKFILL_STEP, Backfill, BackfillStep, BackfillWanted, StoredAlert, StoredHit, StoredValue,
};

use palisade_detect::baseline::{BaselineOptions, Mode};
use palisade_detect::threat::{self, ALERT_FROM};
use palisade_event::{Entry, Offset};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_128;

/// The kind of activations.
pub const ACTIVATION: &str = "activation";
/// The kind that opens a time domain.
pub const DOMAIN_STARTS: &str = "domain_starts";
/// The kind that ends a time domain: the end tick of a historical load.
pub const DOMAIN_ENDS: &str = "domain_ends";
/// The kind that says how far the gateway's clock is, between ticks.
pub const CLOCK: &str = "clock";
/// The subject of the detectors' settings.
pub const DETECTORS: &str = "detectors";
/// The subject of the operators' versions.
pub const OPERATORS: &str = "operators";
/// The subject of the rules.
pub const RULES: &str = "rules";
/// The subject of the lists of indicators.
pub const INDICATORS: &str = "indicators";
/// The release that this process is.
pub const RELEASE: &str = env!("CARGO_PKG_VERSION");
/// The most domains that may be open; beyond, the one that was opened first is forgotten.
pub const MOST_DOMAINS: usize = 4096;

/// The detectors' settings that change results.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetectorSettings {
    /// How user behaviour is scored.
    #[serde(with = "mode")]
    pub baseline: Mode,
    /// Events of a user that are only learned from.
    pub learning_events: u32,
    /// From this score on an event is an anomaly.
    pub threshold: f32,
    /// From this threat score on a record makes an alert.
    pub threat_threshold: f32,
}

impl Default for DetectorSettings {
    fn default() -> Self {
        let baseline = BaselineOptions::default();
        Self {
            baseline: baseline.mode,
            learning_events: baseline.learning_events,
            threshold: baseline.threshold,
            threat_threshold: ALERT_FROM,
        }
    }
}

/// The rules in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RulesInForce {
    /// The hash under which the catalog keeps the set ([`crate::rules::RuleTexts`]); empty: there are none.
    pub set: String,
    /// What the activation declares to be read of history (B1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backfill: Option<BackfillWanted>,
}

/// The lists of indicators in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndicatorsInForce {
    /// The hash under which the catalog keeps the set ([`crate::indicators::IndicatorSet`]); empty: there are none.
    pub set: String,
}

/// A mode by its name in the configuration.
mod mode {
    use palisade_detect::baseline::Mode;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(mode: &Mode, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(match mode {
            Mode::StreamGuard => "streamguard",
            Mode::Calibrated => "calibrated",
        })
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Mode, D::Error> {
        match String::deserialize(from)?.as_str() {
            "streamguard" => Ok(Mode::StreamGuard),
            "calibrated" => Ok(Mode::Calibrated),
            other => Err(D::Error::unknown_variant(other, &["streamguard", "calibrated"])),
        }
    }
}

/// An operator and its versions that this release has, ascending.
#[derive(Debug, Clone, Copy)]
pub struct Operator {
    /// Its name.
    pub name: &'static str,
    /// The versions of its definition; a change of results is a new version.
    pub versions: &'static [u32],
}

/// The operator that makes threat scores.
pub(crate) const THREAT: &str = "threat";

/// What this release has. A release keeps the previous version of each.
pub const KNOWN: [Operator; 8] = [
    Operator { name: "alerts", versions: &[1] },
    Operator { name: "baseline", versions: &[1] },
    Operator { name: "correlations", versions: &[1] },
    Operator { name: "decoder", versions: &[1, 2] },
    Operator { name: "indicators", versions: &[1] },
    Operator { name: "norms", versions: &[1] },
    Operator { name: "rules", versions: &[1] },
    Operator { name: THREAT, versions: threat::VERSIONS },
];

/// The version in force of each operator, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OperatorVersions(pub BTreeMap<String, u32>);

impl Default for OperatorVersions {
    /// The first version of each.
    fn default() -> Self {
        Self(KNOWN.iter().map(|operator| (operator.name.to_owned(), 1)).collect())
    }
}

impl OperatorVersions {
    /// The newest versions that this release has.
    #[must_use]
    pub fn newest() -> Self {
        let newest = |operator: &Operator| operator.versions.last().copied().unwrap_or(1);
        Self(KNOWN.iter().map(|operator| (operator.name.to_owned(), newest(operator))).collect())
    }

    /// The version of an operator; 1 where none is named.
    pub(crate) fn of(&self, operator: &str) -> u32 {
        self.0.get(operator).copied().unwrap_or(1)
    }

    /// The first operator whose version is not among the known ones.
    fn lacking(&self, known: &[Operator]) -> Option<Lack> {
        let unknown = self.0.iter().find_map(|(name, version)| {
            let operator = known.iter().find(|operator| operator.name == name);
            let versions = operator.map_or(&[][..], |operator| operator.versions);
            (!versions.contains(version)).then(|| Lack {
                operator: name.clone(),
                version: *version,
                newer: versions.last().is_none_or(|newest| version > newest),
            })
        });
        unknown.or_else(|| {
            let missing = known.iter().find(|operator| !self.0.contains_key(operator.name))?;
            Some(Lack { operator: missing.name.to_owned(), version: 0, newer: false })
        })
    }
}

/// An operator's version that this release lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Lack {
    operator: String,
    version: u32,
    newer: bool,
}

/// Something in force: which generation brought it, and which release.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stated<T> {
    /// The generation of its activation; 0 for what is in force before the first.
    pub generation: u64,
    /// The release that activated it.
    pub release: String,
    /// What.
    pub content: T,
}

impl<T: Default> Default for Stated<T> {
    fn default() -> Self {
        Self { generation: 0, release: "0.1.0".to_owned(), content: T::default() }
    }
}

/// A time domain that has started and not ended: nothing in it is late, and its frontier is −∞ (T2, T5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenDomain {
    /// Whose.
    pub tenant: String,
    /// Its name.
    pub domain: String,
    /// The clock at which it started, microseconds since the epoch.
    pub since: i64,
}

/// What is in force at an offset of the log.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InForce {
    /// The detectors' settings.
    pub detectors: Stated<DetectorSettings>,
    /// The operators' versions.
    pub operators: Stated<OperatorVersions>,
    /// The open domains, in the order in which they started.
    pub domains: Vec<OpenDomain>,
    /// The rules.
    #[serde(default)]
    pub rules: Stated<RulesInForce>,
    /// The backfill that was declared last, done or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backfill: Option<Backfill>,
    /// The lists of indicators.
    #[serde(default)]
    pub indicators: Stated<IndicatorsInForce>,
}

/// Why the log can't be gone on with behind a control record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// A record of another release.
    #[error(
        "the control record at offset {offset} is not understood ({reason}): palisade {release} wrote it, this is {RELEASE}; run palisade {release}"
    )]
    NotUnderstood {
        /// Where it stands.
        offset: u64,
        /// What is not understood.
        reason: String,
        /// The release that wrote it, or `(unknown)`.
        release: String,
    },
    /// An operator's version that this release lacks (C3).
    #[error(
        "from offset {offset} on the log needs version {version} of the operator '{operator}', which palisade {release} has and this one ({RELEASE}) lacks: run palisade {release}{remedy}"
    )]
    Operator {
        /// The first offset that can't be processed.
        offset: u64,
        /// The operator.
        operator: String,
        /// The version in force.
        version: u32,
        /// The release that has it.
        release: String,
        /// What to do besides.
        remedy: &'static str,
    },
    /// The part of a checkpoint.
    #[error("its part 'control': {0}")]
    Damaged(String),
    /// The rules or lists that a record puts in force.
    #[error(
        "the rules and lists in force from offset {offset} on can't be had: {reason}; restore the catalog"
    )]
    Rules {
        /// The record.
        offset: u64,
        /// Why not.
        reason: String,
    },
}

/// What a control record changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing: its generation was not above the one in force.
    Nothing,
    /// The detectors' settings.
    Detectors,
    /// The operators' versions.
    Operators,
    /// The open domains.
    Domains,
    /// The rules.
    Rules,
    /// A backfill is a step further.
    Backfill,
    /// No later row has a clock before this record's.
    Clock,
    /// The lists of indicators.
    Indicators,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ActivationBody {
    release: String,
    generation: u64,
    subject: String,
    hash: String,
    content: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DomainBody {
    release: String,
    tenant: String,
    domain: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClockBody {
    release: String,
}

/// Of a body that is not understood, what every body has.
#[derive(Debug, Deserialize)]
struct AnyBody {
    release: String,
}

/// The hash that a content is kept under: XXH3-128, 32 hexadecimal digits.
#[must_use]
pub fn content_hash(content: &str) -> String {
    format!("{:032x}", xxh3_128(content.as_bytes()))
}

/// The control record of an activation.
///
/// # Errors
/// When the body can't be written as JSON (it always can).
pub fn activation(
    clock: i64,
    generation: u64,
    subject: &str,
    content: &str,
) -> Result<Entry, serde_json::Error> {
    let body = serde_json::to_string(&ActivationBody {
        release: RELEASE.to_owned(),
        generation,
        subject: subject.to_owned(),
        hash: content_hash(content),
        content: content.to_owned(),
    })?;
    Ok(Entry::Control { clock, kind: ACTIVATION.to_owned(), body })
}

/// The control record that starts or ends a tenant's time domain (T2).
///
/// # Errors
/// When the body can't be written as JSON (it always can).
pub fn domain(
    clock: i64,
    tenant: &str,
    domain: &str,
    ends: bool,
) -> Result<Entry, serde_json::Error> {
    let body = serde_json::to_string(&DomainBody {
        release: RELEASE.to_owned(),
        tenant: tenant.to_owned(),
        domain: domain.to_owned(),
    })?;
    let kind = if ends { DOMAIN_ENDS } else { DOMAIN_STARTS };
    Ok(Entry::Control { clock, kind: kind.to_owned(), body })
}

/// The record that says how far the gateway's clock is: no row that comes later has one before it.
///
/// # Errors
/// When the body can't be written as JSON (it always can).
pub fn clock(clock: i64) -> Result<Entry, serde_json::Error> {
    let body = serde_json::to_string(&ClockBody { release: RELEASE.to_owned() })?;
    Ok(Entry::Control { clock, kind: CLOCK.to_owned(), body })
}

impl InForce {
    /// What the part of a checkpoint says; of a checkpoint from before there were control records, the
    /// defaults.
    ///
    /// # Errors
    /// [`ControlError::Damaged`].
    pub fn restore(bytes: &[u8]) -> Result<Self, ControlError> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_slice(bytes).map_err(|error| ControlError::Damaged(error.to_string()))
    }

    /// The part of a checkpoint.
    ///
    /// # Errors
    /// [`ControlError::Damaged`] when it can't be written as JSON (it always can).
    pub fn save(&self) -> Result<Vec<u8>, ControlError> {
        serde_json::to_vec(self).map_err(|error| ControlError::Damaged(error.to_string()))
    }

    /// Takes in the control record at `offset`.
    ///
    /// # Errors
    /// [`ControlError`]: nothing behind the record can be processed by this release.
    pub fn apply(
        &mut self,
        offset: Offset,
        clock: i64,
        kind: &str,
        body: &str,
    ) -> Result<Change, ControlError> {
        let not_understood = |reason: String| ControlError::NotUnderstood {
            offset: offset.0,
            reason,
            release: serde_json::from_str::<AnyBody>(body)
                .map_or_else(|_| "(unknown)".to_owned(), |body| body.release),
        };
        let bad = |error: serde_json::Error| not_understood(error.to_string());
        match kind {
            ACTIVATION => {
                let body: ActivationBody = serde_json::from_str(body).map_err(bad)?;
                if content_hash(&body.content) != body.hash {
                    return Err(not_understood("its content does not have its hash".to_owned()));
                }
                match body.subject.as_str() {
                    DETECTORS => {
                        let content = serde_json::from_str(&body.content).map_err(bad)?;
                        Ok(self.detectors.replace(&body, content, Change::Detectors))
                    }
                    OPERATORS => {
                        let content = serde_json::from_str(&body.content).map_err(bad)?;
                        let change = self.operators.replace(&body, content, Change::Operators);
                        self.check_newer(offset)?;
                        Ok(change)
                    }
                    RULES => {
                        let content: RulesInForce =
                            serde_json::from_str(&body.content).map_err(bad)?;
                        let wanted = content.backfill.clone();
                        let change = self.rules.replace(&body, content, Change::Rules);
                        if let Some(wanted) = wanted.filter(|_| change == Change::Rules) {
                            self.backfill =
                                Some(Backfill::new(body.generation, offset, clock, wanted));
                        }
                        Ok(change)
                    }
                    INDICATORS => {
                        let content = serde_json::from_str(&body.content).map_err(bad)?;
                        Ok(self.indicators.replace(&body, content, Change::Indicators))
                    }
                    other => Err(not_understood(format!("the subject is '{other}'"))),
                }
            }
            DOMAIN_STARTS | DOMAIN_ENDS => {
                let body: DomainBody = serde_json::from_str(body).map_err(bad)?;
                Ok(self.turn_domain(clock, body, kind == DOMAIN_ENDS))
            }
            BACKFILL_STEP => {
                let step = serde_json::from_str(body).map_err(bad)?;
                Ok(if self.step(&step) { Change::Backfill } else { Change::Nothing })
            }
            CLOCK => {
                let _: ClockBody = serde_json::from_str(body).map_err(bad)?;
                Ok(Change::Clock)
            }
            other => Err(not_understood(format!("the kind is '{other}'"))),
        }
    }

    fn turn_domain(&mut self, clock: i64, body: DomainBody, ends: bool) -> Change {
        let DomainBody { tenant, domain, .. } = body;
        let at =
            self.domains.iter().position(|open| open.tenant == tenant && open.domain == domain);
        match (at, ends) {
            (Some(at), true) => {
                self.domains.remove(at);
            }
            (None, false) => {
                if self.domains.len() >= MOST_DOMAINS {
                    self.domains.remove(0);
                }
                self.domains.push(OpenDomain { tenant, domain, since: clock });
            }
            // Started again by a load that is repeated after a crash, or ended twice.
            (Some(_), false) | (None, true) => return Change::Nothing,
        }
        Change::Domains
    }

    /// Whether records and ticks at `offset` can be processed by this release (C3).
    ///
    /// # Errors
    /// [`ControlError::Operator`] names the release that is needed.
    pub fn check(&self, offset: Offset) -> Result<(), ControlError> {
        self.check_known(offset, &KNOWN, false)
    }

    /// Whether what is in force at `offset` is of this release or an older one.
    ///
    /// # Errors
    /// [`ControlError::Operator`] names the release that is needed.
    pub fn check_newer(&self, offset: Offset) -> Result<(), ControlError> {
        self.check_known(offset, &KNOWN, true)
    }

    fn check_known(
        &self,
        offset: Offset,
        known: &[Operator],
        newer_only: bool,
    ) -> Result<(), ControlError> {
        match self.operators.content.lacking(known) {
            Some(lack) if lack.newer || !newer_only => Err(ControlError::Operator {
                offset: offset.0,
                operator: lack.operator,
                version: lack.version,
                release: self.operators.release.clone(),
                remedy: if lack.newer {
                    ""
                } else {
                    " once more and stop it with SIGTERM, which leaves nothing to replay, then upgrade"
                },
            }),
            _ => Ok(()),
        }
    }
}

impl<T> Stated<T> {
    fn replace(&mut self, body: &ActivationBody, content: T, change: Change) -> Change {
        if body.generation <= self.generation {
            return Change::Nothing;
        }
        self.generation = body.generation;
        self.release.clone_from(&body.release);
        self.content = content;
        change
    }
}

#[cfg(test)]
mod tests;
