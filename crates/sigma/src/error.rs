//! Why a document was not loaded.

use std::fmt;
use std::sync::Arc;

/// Whether a document is wrong or asks for what this engine does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The document breaks the specification or a bound.
    Refused,
    /// The document may well be right, but can't be evaluated here.
    Unsupported,
}

impl Kind {
    /// `refused` or `unsupported`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unsupported => "unsupported",
        }
    }
}

/// A document that was not loaded, with the reason and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Refusal {
    /// Refused or unsupported.
    pub kind: Kind,
    /// The tenant whose file it is; none for the installation's.
    pub owner: Option<Arc<str>>,
    /// The file as it was named to the loader.
    pub file: Arc<str>,
    /// The line, from 1, where it is known.
    pub line: Option<u64>,
    /// The rule's id, else its title, where one could be read.
    pub rule: Option<String>,
    /// What is wrong.
    pub reason: String,
    /// What to do about it.
    pub hint: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(rule) = &self.rule {
            write!(f, ": {rule}")?;
        }
        write!(f, ": {}: {} ({})", self.kind.name(), self.reason, self.hint)
    }
}

/// What is wrong with a part of a document, before it is known which document it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    pub(crate) line: Option<u64>,
    pub(crate) reason: String,
    pub(crate) hint: String,
}

impl Fault {
    pub(crate) fn new(line: u64, reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            kind: Kind::Refused,
            line: (line > 0).then_some(line),
            reason: reason.into(),
            hint: hint.into(),
        }
    }

    pub(crate) fn unsupported(
        line: u64,
        reason: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self { kind: Kind::Unsupported, ..Self::new(line, reason, hint) }
    }
}

pub(crate) type Checked<T> = Result<T, Fault>;
