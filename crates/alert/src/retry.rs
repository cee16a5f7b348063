//! When a delivery is tried again, and when it is given up: a pure decision.
//!
//! The n-th attempt that fails is followed by a wait of 2 s · 2^(n−1), at most an hour, spread by ±20 % that
//! depend on the delivery's key and the attempt only. A receiver that asks for a longer wait (`Retry-After`) gets it. After
//! 40 attempts or 24 hours, or at once when the receiver says that it will never take it, the delivery
//! becomes a dead letter.

use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64;

/// How often and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The wait after the first attempt.
    pub first: Duration,
    /// The longest wait by ourselves.
    pub longest: Duration,
    /// The most attempts.
    pub attempts: u32,
    /// For how long since the delivery was made.
    pub patience: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(2),
            longest: Duration::from_secs(3600),
            attempts: 40,
            patience: Duration::from_secs(86_400),
        }
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver has it.
    Delivered,
    /// It answered with a status that is no success.
    Status {
        /// The HTTP status.
        code: u16,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
        /// The beginning of what it said.
        body: String,
    },
    /// There was no answer: the name did not resolve, the connection failed, time ran out.
    Failed(String),
    /// It cannot be sent at all: the address is refused, a secret is missing.
    Refused(String),
}

/// What is done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Nothing, it arrived.
    Done,
    /// Another attempt at this time, microseconds since the epoch.
    Again {
        /// When.
        at: i64,
        /// Why it is needed.
        error: String,
    },
    /// It is given up.
    Dead {
        /// Why.
        error: String,
    },
}

/// Statuses by which a receiver says that this request will never be taken. Others may pass: a secret
/// gets corrected, a moved address gets configured, while the delivery waits.
const NEVER: [u16; 9] = [400, 405, 406, 410, 411, 413, 414, 415, 422];

/// Decides after attempt number `attempt` (from 1) of the delivery with this key, made at `created`.
#[must_use]
pub fn decide(
    policy: &RetryPolicy,
    key: &str,
    attempt: u32,
    created: i64,
    now: i64,
    outcome: &Outcome,
) -> Next {
    let (error, asked) = match outcome {
        Outcome::Delivered => return Next::Done,
        Outcome::Status { code, body, .. } if NEVER.contains(code) => {
            return Next::Dead { error: status(*code, body) };
        }
        Outcome::Status { code, retry_after, body } => (status(*code, body), *retry_after),
        Outcome::Failed(error) | Outcome::Refused(error) => (error.clone(), None),
    };
    if attempt >= policy.attempts {
        return Next::Dead { error: format!("{error}; given up after {attempt} attempts") };
    }
    let end = created.saturating_add(micros(policy.patience));
    if now >= end {
        let hours = policy.patience.as_secs() / 3600;
        return Next::Dead { error: format!("{error}; given up after {hours} hours") };
    }
    let wait = micros(backoff(policy, key, attempt).max(asked.unwrap_or_default()));
    // The last attempt is at the end of the patience, not after it.
    Next::Again { at: now.saturating_add(wait).min(end), error }
}

fn status(code: u16, body: &str) -> String {
    let hint = match code {
        300..=399 => " (redirects are not followed: configure the address that it leads to)",
        401 | 403 => " (check the receiver's secret)",
        404 | 410 => " (check the receiver's address)",
        _ => "",
    };
    let body = body.trim();
    if body.is_empty() {
        format!("status {code}{hint}")
    } else {
        format!("status {code}{hint}: {body}")
    }
}

/// The wait after an attempt.
#[must_use]
pub fn backoff(policy: &RetryPolicy, key: &str, attempt: u32) -> Duration {
    let doublings = attempt.saturating_sub(1).min(30);
    let base = policy.first.saturating_mul(1 << doublings).min(policy.longest);
    let mut bytes = key.as_bytes().to_vec();
    bytes.extend_from_slice(&attempt.to_le_bytes());
    // 0.8 to 1.2 in steps of a thousandth.
    let share = 800 + u32::try_from(xxh3_64(&bytes) % 401).unwrap_or(200);
    base.saturating_mul(share) / 1000
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POLICY: RetryPolicy = RetryPolicy {
        first: Duration::from_secs(2),
        longest: Duration::from_secs(3600),
        attempts: 40,
        patience: Duration::from_secs(86_400),
    };

    fn answer(code: u16, retry_after: Option<u64>) -> Outcome {
        Outcome::Status {
            code,
            retry_after: retry_after.map(Duration::from_secs),
            body: String::new(),
        }
    }

    #[test]
    fn what_can_never_pass_is_given_up_at_once() {
        for code in NEVER {
            let next = decide(&POLICY, "k", 1, 0, 1, &answer(code, None));
            assert!(matches!(next, Next::Dead { .. }), "{code}");
        }
        for code in [301, 302, 401, 403, 404, 408, 425, 429, 500, 502, 503, 504] {
            let next = decide(&POLICY, "k", 1, 0, 1, &answer(code, None));
            assert!(matches!(next, Next::Again { .. }), "{code}");
        }
        assert_eq!(decide(&POLICY, "k", 40, 0, i64::MAX, &Outcome::Delivered), Next::Done);
    }

    #[test]
    fn a_receiver_that_asks_to_wait_is_left_alone_so_long() {
        let Next::Again { at, .. } = decide(&POLICY, "k", 1, 0, 5, &answer(429, Some(600))) else {
            panic!("again")
        };
        assert_eq!(at, 5 + 600_000_000);
        // But not beyond the end of the patience.
        let Next::Again { at, .. } = decide(&POLICY, "k", 1, 0, 5, &answer(503, Some(1 << 40)))
        else {
            panic!("again")
        };
        assert_eq!(at, 86_400_000_000);
        let Next::Dead { error } = decide(&POLICY, "k", 2, 0, at, &answer(503, None)) else {
            panic!("dead")
        };
        assert!(error.contains("24 hours"), "{error}");
    }

    proptest! {
        /// Whatever fails is tried again within its bounds or given up, and always the same way.
        #[test]
        fn every_delivery_ends(key in any::<u128>(), code in 300u16..600, asked in prop::option::of(0u64..10_000)) {
            let key = format!("{key:032x}-0");
            let (mut now, mut attempt) = (1_000i64, 0);
            loop {
                attempt += 1;
                let outcome = answer(code, asked);
                let next = decide(&POLICY, &key, attempt, 1_000, now, &outcome);
                prop_assert_eq!(&next, &decide(&POLICY, &key, attempt, 1_000, now, &outcome));
                match next {
                    Next::Done => prop_assert!(false, "nothing arrived"),
                    Next::Again { at, .. } => {
                        let wait = at - now;
                        let end = 1_000 + 86_400_000_000;
                        prop_assert!(wait >= 1_600_000 || at == end, "{}", wait);
                        prop_assert!(wait <= 12_000_000_000);
                        now = at;
                    }
                    Next::Dead { .. } => break,
                }
                prop_assert!(attempt <= 40);
            }
            prop_assert!(now <= 1_000 + 86_400_000_000);
        }
    }
}
