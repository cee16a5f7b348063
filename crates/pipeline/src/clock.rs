//! The only clock of the house. A gateway stamps it into records and ticks (T1, T3); the command
//! line and measurements may look at it; nothing that can change a result does.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A source of the current time in microseconds since the epoch.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The time now; never below an earlier answer of the same clock.
    fn now(&self) -> i64;
}

/// The machine's clock, made monotone: when the machine's clock is set back, this one stands still
/// until it is caught up.
#[derive(Debug, Default)]
pub struct SystemClock {
    last: AtomicI64,
}

impl SystemClock {
    /// A clock that is monotone from its first answer on.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> i64 {
        #[expect(clippy::disallowed_methods, reason = "this is the one place that may")]
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX));
        self.last.fetch_max(now, Ordering::AcqRel).max(now)
    }
}

/// A clock that stands where it was put: for tests and replays.
#[derive(Debug, Default)]
pub struct SetClock(AtomicI64);

impl SetClock {
    /// A clock that shows `micros`.
    #[must_use]
    pub fn at(micros: i64) -> Self {
        Self(AtomicI64::new(micros))
    }

    /// Moves the clock forward to `micros`; earlier values are ignored.
    pub fn set(&self, micros: i64) {
        self.0.fetch_max(micros, Ordering::AcqRel);
    }
}

impl Clock for SetClock {
    fn now(&self) -> i64 {
        self.0.load(Ordering::Acquire)
    }
}
