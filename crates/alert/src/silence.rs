//! Silences: for some time nobody is told of the alerts that fulfil some conditions. They stay rows of
//! the table, and people see them.

use crate::alert::Alert;
use crate::matcher::{self, Matcher, MatcherError};

/// The longest that a silence may last, in microseconds: a year.
pub const MAX_LENGTH: i64 = 366 * 86_400 * 1_000_000;
/// The most conditions of a silence.
pub const MAX_MATCHERS: usize = 20;

/// A silence of a tenant. Times are microseconds since the epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct Silence {
    /// Its id.
    pub id: String,
    /// Whose alerts.
    pub tenant: String,
    /// What an alert must fulfil, all of them.
    pub matchers: Vec<Matcher>,
    /// From when on.
    pub starts_at: i64,
    /// Until before when.
    pub ends_at: i64,
}

/// Why there can be no such silence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SilenceError {
    /// A condition is none.
    #[error(transparent)]
    Matcher(#[from] MatcherError),
    /// None at all would silence everything, and too many are a mistake.
    #[error("a silence needs 1 to {MAX_MATCHERS} matchers, this has {0}")]
    Matchers(usize),
    /// It ends before it starts, or lasts too long.
    #[error("a silence must end after it starts and within 366 days of that")]
    Times,
}

impl Silence {
    /// Checks and makes a silence.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(
        id: &str,
        tenant: &str,
        matchers: &[String],
        starts_at: i64,
        ends_at: i64,
    ) -> Result<Self, SilenceError> {
        if !(1..=MAX_MATCHERS).contains(&matchers.len()) {
            return Err(SilenceError::Matchers(matchers.len()));
        }
        let length = ends_at.checked_sub(starts_at).ok_or(SilenceError::Times)?;
        if !(1..=MAX_LENGTH).contains(&length) {
            return Err(SilenceError::Times);
        }
        let matchers = matcher::parse_all(matchers)?;
        Ok(Self { id: id.to_owned(), tenant: tenant.to_owned(), matchers, starts_at, ends_at })
    }

    /// Whether it silences an alert at a moment.
    #[must_use]
    pub fn mutes(&self, alert: &Alert, now: i64) -> bool {
        (self.starts_at..self.ends_at).contains(&now)
            && self.tenant == alert.tenant
            && matcher::all(&self.matchers, alert)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::Severity;

    #[test]
    fn a_silence_mutes_its_tenants_alerts_while_it_lasts() {
        let silence = Silence::new("s", "acme", &["user=alice".into()], 10, 20).unwrap();
        let alert = |tenant: &str, user: &str| Alert {
            tenant: tenant.into(),
            user: Some(user.into()),
            severity: Severity::Critical,
            ..Alert::default()
        };
        assert!(silence.mutes(&alert("acme", "alice"), 10));
        assert!(silence.mutes(&alert("acme", "alice"), 19));
        for (tenant, user, now) in
            [("acme", "alice", 9), ("acme", "alice", 20), ("acme", "bob", 15), ("b", "alice", 15)]
        {
            assert!(!silence.mutes(&alert(tenant, user), now), "{tenant} {user} {now}");
        }
    }

    #[test]
    fn silences_of_everything_or_for_ever_are_refused() {
        let one = ["user=a".to_owned()];
        assert_eq!(Silence::new("s", "t", &[], 0, 1), Err(SilenceError::Matchers(0)));
        for (from, to) in [(5, 5), (5, 4), (0, MAX_LENGTH + 1), (i64::MIN, i64::MAX)] {
            assert_eq!(Silence::new("s", "t", &one, from, to), Err(SilenceError::Times));
        }
    }
}
