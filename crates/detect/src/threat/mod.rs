//! Threat scores for raw logs, requests and structured events, with their reasons.
//!
//! Two steps, so that the costly one may run anywhere and in any order:
//!
//! 1. [`ThreatScorer::features`] looks at every text that could hold a payload, once per distinct
//!    value, and finds attack classes ([`Class`]) with a strength and reasons. It depends on the
//!    batch alone.
//! 2. [`ThreatScorer::combine`] makes the score of each row out of that, the entropy against the
//!    norm of the row's source ([`SourceNorms`], frozen between ticks: I3), the reputation of its
//!    addresses, its outcome, and the score that the sender reported.
//!
//! `docs/threat-score.md` tells the method, the figures and the limits.

pub mod columns;
mod combine;
mod features;
mod gate;
mod line;
mod matcher;
mod normalise;
mod norms;
mod rules;

pub use combine::{ALERT_FROM, Severity, ThreatAlert, ThreatOutput, alert_strength, is_failure};
pub use features::Features;
pub use line::LineScore;
pub use matcher::RuleError;
pub use norms::{DEFAULT_SOURCES, LEARNING, NormError, SourceNorm, SourceNorms};

use columns::Place;
use matcher::Matcher;

/// A class of attacks. Its name is what the column `threat_class` holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Class {
    /// `sqli`: SQL and NoSQL injection.
    Sqli,
    /// `xss`: cross-site scripting.
    Xss,
    /// `cmdi`: commands that a shell or a server would run.
    Cmdi,
    /// `path_traversal`: steps out of a directory, and the files that they are after.
    PathTraversal,
    /// `code_injection`: PHP, Java, templates, expression languages, XML entities, LDAP, XPath.
    Code,
    /// `ssrf`: URLs that make the server ask for what it should not.
    Ssrf,
    /// `scanner`: tools that name themselves, and paths that are only probed.
    Scanner,
    /// `encoded_payload`: content that is hidden by encoding.
    Encoded,
    /// `protocol_abuse`: header injection, smuggling, overlong forms, NULs, padding.
    Protocol,
}

impl Class {
    /// How many classes there are.
    pub const COUNT: usize = 9;

    /// All classes, in order.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Sqli,
        Self::Xss,
        Self::Cmdi,
        Self::PathTraversal,
        Self::Code,
        Self::Ssrf,
        Self::Scanner,
        Self::Encoded,
        Self::Protocol,
    ];

    /// The value of the column `threat_class`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sqli => "sqli",
            Self::Xss => "xss",
            Self::Cmdi => "cmdi",
            Self::PathTraversal => "path_traversal",
            Self::Code => "code_injection",
            Self::Ssrf => "ssrf",
            Self::Scanner => "scanner",
            Self::Encoded => "encoded_payload",
            Self::Protocol => "protocol_abuse",
        }
    }

    /// The class in words, for reasons.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Sqli => "SQL injection",
            Self::Xss => "cross-site scripting",
            Self::Cmdi => "command injection",
            Self::PathTraversal => "path traversal",
            Self::Code => "code injection",
            Self::Ssrf => "server-side request forgery",
            Self::Scanner => "scanner",
            Self::Encoded => "encoded payload",
            Self::Protocol => "protocol abuse",
        }
    }
}

/// The versions of the definition that this release has, ascending (C3).
///
/// 1. The first.
/// 2. Fields that name a file, a program or another thing are no longer taken for lines of logs or, from
///    a `/` on, for requests ([`columns::Place::Value`]); a message of several lines that tells of a
///    process may name programs and commands. Signs of a scanner do not add up, and a path that is only
///    probed makes no alert by itself.
pub const VERSIONS: &[u32] = &[1, 2];

/// The strength from which on a class counts as found.
pub const FOUND_FROM: f32 = 0.5;

/// What was found in one text ([`ThreatScorer::inspect`]).
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// The class with the greatest strength; `None` when that is below [`FOUND_FROM`].
    pub class: Option<Class>,
    /// How strongly the text speaks for an attack of any class, 0 to 1.
    pub strength: f32,
    /// What was found, strongest first, in words.
    pub reasons: Vec<String>,
}

/// Finds attack classes and makes scores. Built once; a clone has caches of its own, so give each
/// thread a clone. It holds no state that could change a result.
#[derive(Debug, Clone)]
pub struct ThreatScorer {
    matcher: Matcher,
}

impl ThreatScorer {
    /// Compiles the rules, which takes some ten milliseconds.
    ///
    /// # Errors
    /// [`RuleError`] when a rule is defective, which the tests of this crate exclude.
    pub fn new() -> Result<Self, RuleError> {
        Ok(Self { matcher: Matcher::new()? })
    }

    /// Uses a version of the definition, one of [`VERSIONS`], from the next text on. A number that is
    /// none of them stands for the newest; who replays a log refuses it before (C3).
    pub fn use_version(&mut self, version: u32) {
        self.matcher.use_version(version);
    }

    /// Looks at one text as it would stand in such a place.
    pub fn inspect(&mut self, place: Place, text: &str) -> Inspection {
        let Some(verdict) = self.matcher.look(text.as_bytes(), place) else {
            return Inspection { class: None, strength: 0.0, reasons: Vec::new() };
        };
        Inspection {
            class: verdict.best().filter(|(_, s)| *s >= FOUND_FROM).map(|(class, _)| class),
            strength: verdict.overall(),
            reasons: verdict.rules.iter().map(|id| self.reason(*id)).collect(),
        }
    }

    /// A rule in words: the class, then what was found.
    fn reason(&self, id: matcher::RuleId) -> String {
        let (class, what) = self.matcher.describe(id);
        format!("{}: {what}", class.title())
    }
}
