//! Indicators: lists of addresses, networks, domains, URLs, hashes and e-mail addresses that a record may
//! name, and finding them in columns.
//!
//! A list is read from bytes ([`List::parse`]): wrong lines are refused by number and reason, the others stay.
//! [`Indicators::build`] makes of all lists one immutable set; a [`Scanner`] asks it about the rows of a batch,
//! once per distinct value where a column has a dictionary. `docs/indicators.md` says which columns are
//! looked at, and what is the same value.
//!
//! # What a value is compared by
//! Indicator and value are brought into one form (`value.rs`) and are equal when these bytes are. The form of
//! a list's indicators stands in one buffer; a hash table of their places (XXH3-64 of the form, compared in
//! full) leads to them. Networks are looked up once for each prefix length that occurs, domains once for each parent.

mod columns;
mod parse;
mod scan;
mod set;
mod value;

pub use columns::{Looks, looks};
pub use parse::{LIMITS, Limits, List, ListError, Refused};
pub use scan::{Found, Scanner, ValueScanner};
pub use set::{Indicator, Indicators, ListInfo, ListSpec};

/// What an indicator is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// One address.
    Address,
    /// A network of addresses.
    Network,
    /// A domain and everything below it.
    Domain,
    /// Exactly this host name.
    Hostname,
    /// A URL, whatever its scheme.
    Url,
    /// A hash of 16 bytes.
    Md5,
    /// A hash of 20 bytes.
    Sha1,
    /// A hash of 32 bytes.
    Sha256,
    /// An e-mail address.
    Email,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 9] = [
        Self::Address,
        Self::Network,
        Self::Domain,
        Self::Hostname,
        Self::Url,
        Self::Md5,
        Self::Sha1,
        Self::Sha256,
        Self::Email,
    ];

    /// Its name, as a list's column `kind` has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Network => "network",
            Self::Domain => "domain",
            Self::Hostname => "hostname",
            Self::Url => "url",
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Email => "email",
        }
    }

    /// As one bit, for sets of kinds.
    pub(crate) fn bit(self) -> u16 {
        1 << self as u8
    }
}

/// How bad it is when an indicator is seen: the levels of Sigma.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Level {
    /// Enriches events.
    Informational,
    /// Notable, rarely an incident.
    Low,
    /// To be reviewed regularly.
    #[default]
    Medium,
    /// To be reviewed promptly.
    High,
    /// An incident.
    Critical,
}

impl Level {
    /// All levels, the worst last.
    pub const ALL: [Self; 5] =
        [Self::Informational, Self::Low, Self::Medium, Self::High, Self::Critical];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Informational => "informational",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// The level of this name, in any case.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name().eq_ignore_ascii_case(name))
    }
}
