//! Time domains (T2) and lateness (T4).
//!
//! Records that arrive as they happen are in the domain [`LIVE`]. A historical load has a domain of its own,
//! which starts and ends with control records; in between nothing in it is late, however old.

/// The domain of records that arrive as they happen: rows without a domain are in it.
pub const LIVE: &str = "live";

/// Whether a domain is [`LIVE`]; no domain is that one too.
#[must_use]
pub fn is_live(domain: Option<&str>) -> bool {
    domain.is_none_or(|domain| domain == LIVE)
}

/// Whether a record is late (T4): in the domain [`LIVE`], when its time is further behind the gateway's clock
/// that is stamped on it than the lateness allows; in any other domain never (T2). A property of the row alone.
/// `clock`, `time` and `lateness` are in microseconds.
#[must_use]
pub fn is_late(domain: Option<&str>, clock: i64, time: i64, lateness: i64) -> bool {
    is_live(domain) && clock.saturating_sub(time) > lateness
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_live_records_are_late() {
        for domain in [None, Some(LIVE)] {
            assert!(!is_late(domain, 100, 90, 10));
            assert!(is_late(domain, 101, 90, 10));
            assert!(!is_late(domain, 90, 100, 0), "ahead of the clock");
            assert!(is_late(domain, i64::MAX, i64::MIN, i64::MAX - 1));
        }
        assert!(!is_late(Some("load:1"), i64::MAX, i64::MIN, 0));
    }
}
