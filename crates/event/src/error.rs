//! What to do about an error: every typed error of the house says one of these three.

/// The class of an error, deciding what its receiver does with it (`ARCHITECTURE.md`, "Errors").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// Worth another try after a pause: a full queue, a busy disk, a server that is away.
    Transient,
    /// Will fail the same way again: bad input. The bytes go back to the sender or become a dead
    /// letter with the reason.
    Permanent,
    /// Nothing may be acknowledged any more: the process stops, loudly.
    Critical,
}

impl ErrorClass {
    /// The lower-case name used in metrics, logs and dead letters.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Permanent => "permanent",
            Self::Critical => "critical",
        }
    }
}
