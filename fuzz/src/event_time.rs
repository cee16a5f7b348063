//! Event times: what is read lies within the bounds, and a moment that is written reads the same.

use palisade_event::time::{from_epoch, parse_event_time, parse_number, rfc3339, sensible};

pub fn run(data: &[u8]) {
    let Some((head, rest)) = crate::steer::<8>(data) else { return };
    let clock = i64::from_le_bytes(head);
    if let Ok(text) = std::str::from_utf8(rest) {
        for now in [clock, crate::CLOCK] {
            if let Some(micros) = parse_event_time(text, now) {
                assert!(sensible(micros), "{text:?} gave {micros}");
                assert_eq!(parse_event_time(&format!(" {text}\t"), now), Some(micros));
            }
        }
        if let Some(micros) = parse_number(text) {
            assert!(sensible(micros), "{text:?} gave {micros}");
        }
    }
    if let Some(micros) = from_epoch(clock) {
        assert!(sensible(micros), "{clock} gave {micros}");
    }
    let written = rfc3339(clock);
    if sensible(clock) {
        assert_eq!(parse_event_time(&written, 0), Some(clock), "{written}");
        assert_eq!(parse_number(&clock.to_string()), Some(clock));
        assert_eq!(from_epoch(clock), Some(clock));
    }
}
