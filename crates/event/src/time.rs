//! Event time: the common ways of writing a moment, read into microseconds since the Unix epoch.
//!
//! | form | example |
//! |---|---|
//! | epoch in seconds, milliseconds, microseconds or nanoseconds | `1696723200`, `1696723200.123`, `1696723200000` |
//! | RFC 3339 and its kin: `T`, `t` or a space; `.` or `,` before the fraction; any offset, `Z` or none (UTC) | `2023-10-08T00:00:00.123+02:00` |
//! | Windows | `2020-10-18 19:50:09.240` |
//! | RFC 3164, the year from the clock | `Oct 11 22:14:15` |
//! | Common Log Format | `10/Oct/2000:13:55:36 -0700` |
//!
//! The unit of a number follows from its magnitude: the four ranges that lie within the bounds do
//! not touch. A moment before 1990 or from 2200 on is nonsense and reads as nothing. What is finer
//! than a microsecond is cut off. A second of 60 (a leap second) is the first of the next minute.

/// 1990-01-01T00:00:00Z in seconds: earlier moments are nonsense.
const FIRST: i64 = 631_152_000;
/// 2200-01-01T00:00:00Z in seconds: moments from here on are nonsense.
const END: i64 = 7_258_118_400;

/// Microseconds in a second.
pub const SECOND: i64 = 1_000_000;
/// Microseconds in a day.
const DAY: i64 = 86_400 * SECOND;

/// Reads a moment in any of the forms of the module's table, in microseconds since the epoch.
/// `clock` (microseconds) decides the year where the text has none: the one that brings the moment
/// nearest to the clock. `None` when the text is none of the forms or the moment is nonsense.
#[must_use]
pub fn parse_event_time(text: &str, clock: i64) -> Option<i64> {
    parse_bytes(text.as_bytes(), clock)
}

/// [`parse_event_time`] on bytes; anything that is not ASCII reads as nothing.
#[must_use]
pub(crate) fn parse_bytes(text: &[u8], clock: i64) -> Option<i64> {
    let text = text.trim_ascii();
    let first = *text.first()?;
    let parsed = if first.is_ascii_digit() {
        match (text.get(2), text.get(4)) {
            (_, Some(b'-' | b'/')) => calendar(text),
            (Some(b'/'), _) => common_log(text),
            _ => return number(text),
        }
    } else if first.is_ascii_alphabetic() {
        syslog(text, clock)
    } else if first == b'[' {
        common_log(text.strip_prefix(b"[")?.strip_suffix(b"]")?)
    } else {
        return number(text);
    };
    parsed.filter(|micros| sensible(*micros))
}

/// Reads a number as epoch seconds, milliseconds, microseconds or nanoseconds, whichever its
/// magnitude says; a fraction is honoured in each. `None` when it is no decimal number or nonsense.
#[must_use]
pub fn parse_number(text: &str) -> Option<i64> {
    number(text.as_bytes().trim_ascii())
}

/// The moment that an integer means, by its magnitude, in microseconds since the epoch.
#[must_use]
pub fn from_epoch(value: i64) -> Option<i64> {
    let (unit, divisor) = unit_of(value)?;
    Some(if divisor == 1 { value * unit } else { value / divisor })
}

/// Whether a moment in microseconds lies within the bounds of sense (1990 to 2199).
#[must_use]
pub fn sensible(micros: i64) -> bool {
    (FIRST * SECOND..END * SECOND).contains(&micros)
}

/// Microseconds per unit and units per microsecond, one of them 1.
fn unit_of(value: i64) -> Option<(i64, i64)> {
    match value {
        FIRST..END => Some((SECOND, 1)),
        v if (FIRST * 1_000..END * 1_000).contains(&v) => Some((1_000, 1)),
        v if (FIRST * SECOND..END * SECOND).contains(&v) => Some((1, 1)),
        v if (FIRST * 1_000_000_000..END * 1_000_000_000).contains(&v) => Some((1, 1_000)),
        _ => None,
    }
}

pub(crate) fn number(text: &[u8]) -> Option<i64> {
    let mut whole = 0i64;
    let mut at = 0;
    for byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        whole = whole.checked_mul(10)?.checked_add(i64::from(digit))?;
        at += 1;
    }
    let rest = text.get(at..)?;
    if at == 0 {
        return None;
    }
    let Some((mark, fraction)) = rest.split_first() else {
        return from_epoch(whole);
    };
    if *mark != b'.' && *mark != b',' || !fraction.iter().all(u8::is_ascii_digit) {
        return scientific(text);
    }
    let (unit, divisor) = unit_of(whole)?;
    if divisor != 1 {
        return Some(whole / divisor);
    }
    Some(whole * unit + scaled(fraction, unit))
}

/// The digits of a fraction as a number of parts of `unit`, cut off.
fn scaled(digits: &[u8], unit: i64) -> i64 {
    let (mut sum, mut step) = (0, unit);
    for byte in digits {
        step /= 10;
        if step == 0 {
            break;
        }
        sum += i64::from(byte.wrapping_sub(b'0')) * step;
    }
    sum
}

/// Numbers with an exponent, as Java prints large doubles.
fn scientific(text: &[u8]) -> Option<i64> {
    if text.len() > 32 || !text.iter().all(|b| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+'))
    {
        return None;
    }
    let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    if !(0.0..9.2e18).contains(&value) {
        return None;
    }
    let (unit, divisor) = unit_of(value as i64)?;
    Some(if divisor == 1 { (value * unit as f64).round() as i64 } else { value as i64 / divisor })
}

/// Walks over a text's bytes.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    /// Exactly `count` digits.
    fn digits(&mut self, count: usize) -> Option<i64> {
        let (head, tail) = self.0.split_at_checked(count)?;
        let mut value = 0;
        for byte in head {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                return None;
            }
            value = value * 10 + i64::from(digit);
        }
        self.0 = tail;
        Some(value)
    }

    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    fn take(&mut self, any_of: &[u8]) -> Option<u8> {
        let (first, tail) = self.0.split_first()?;
        if !any_of.contains(first) {
            return None;
        }
        self.0 = tail;
        Some(*first)
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        let (head, tail) = self.0.split_at_checked(word.len())?;
        if !head.eq_ignore_ascii_case(word) {
            return None;
        }
        self.0 = tail;
        Some(())
    }

    /// The name of a month, its first three letters.
    fn month(&mut self) -> Option<i64> {
        const NAMES: &[u8; 36] = b"janfebmaraprmayjunjulaugsepoctnovdec";
        let (head, tail) = self.0.split_first_chunk::<3>()?;
        let name = head.map(|b| b.to_ascii_lowercase());
        let (names, _) = NAMES.as_chunks::<3>();
        let index = names.iter().position(|n| *n == name)?;
        self.0 = tail;
        Some(index as i64 + 1)
    }

    /// `hh:mm`, then, if present, `:ss` and a fraction after `.` or `,`: microseconds of the day.
    fn time_of_day(&mut self) -> Option<i64> {
        let hour = self.digits(2)?;
        self.take(b":")?;
        let minute = self.digits(2)?;
        let mut second = 0;
        let mut micros = 0;
        if self.take(b":").is_some() {
            second = self.digits(2)?;
            if self.take(b".,").is_some() {
                let digits = self.0.iter().take_while(|b| b.is_ascii_digit()).count();
                let (fraction, tail) = self.0.split_at_checked(digits)?;
                if fraction.is_empty() {
                    return None;
                }
                micros = scaled(fraction, SECOND);
                self.0 = tail;
            }
        }
        if hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        Some(((hour * 60 + minute) * 60 + second) * SECOND + micros)
    }

    /// An offset from UTC up to the end of the text, in microseconds east; nothing is UTC.
    fn offset(&mut self) -> Option<i64> {
        while self.take(b" ").is_some() {}
        let east = match self.peek() {
            None => return Some(0),
            Some(b'+') => 1,
            Some(b'-') => -1,
            Some(_) => {
                self.word(b"utc").or_else(|| self.word(b"gmt")).or_else(|| self.word(b"z"))?;
                return self.0.is_empty().then_some(0);
            }
        };
        self.take(b"+-")?;
        let hours = self.digits(2)?;
        self.take(b":");
        let minutes = if self.0.is_empty() { 0 } else { self.digits(2)? };
        if hours > 23 || minutes > 59 || !self.0.is_empty() {
            return None;
        }
        Some(east * (hours * 60 + minutes) * 60 * SECOND)
    }
}

/// `yyyy-mm-dd` with a time of day and an offset after it, if any.
fn calendar(text: &[u8]) -> Option<i64> {
    let mut cursor = Cursor(text);
    let year = cursor.digits(4)?;
    let mark = cursor.take(b"-/")?;
    let month = cursor.digits(2)?;
    cursor.take(&[mark])?;
    let day = cursor.digits(2)?;
    let midnight = days(year, month, day)? * DAY;
    if cursor.0.is_empty() {
        return Some(midnight);
    }
    cursor.take(b"Tt ")?;
    let time = cursor.time_of_day()?;
    if cursor.0 == b"Z" {
        return Some(midnight + time);
    }
    Some(midnight + time - cursor.offset()?)
}

/// `dd/Mon/yyyy:hh:mm:ss offset`.
fn common_log(text: &[u8]) -> Option<i64> {
    let mut cursor = Cursor(text);
    let day = cursor.digits(2)?;
    cursor.take(b"/")?;
    let month = cursor.month()?;
    cursor.take(b"/")?;
    let year = cursor.digits(4)?;
    cursor.take(b": ")?;
    let time = cursor.time_of_day()?;
    Some(days(year, month, day)? * DAY + time - cursor.offset()?)
}

/// `Mon dd hh:mm:ss`, the day padded with a space or a zero or not at all, a year possibly after it.
fn syslog(text: &[u8], clock: i64) -> Option<i64> {
    let mut cursor = Cursor(text);
    let month = cursor.month()?;
    cursor.take(b" ")?;
    while cursor.take(b" ").is_some() {}
    let day = cursor.digits(2).or_else(|| cursor.digits(1))?;
    cursor.take(b" ")?;
    let mut sent_year = None;
    if cursor.0.get(4) == Some(&b' ') {
        sent_year = Some(cursor.digits(4)?);
        cursor.take(b" ")?;
    }
    let time = cursor.time_of_day()?;
    let offset = cursor.offset()?;
    let moment = |year| Some(days(year, month, day)? * DAY + time - offset);
    if let Some(year) = sent_year {
        return moment(year);
    }
    // A clock out of bounds (a file's date may be anything) is as near as it can be.
    let clock = clock.clamp(FIRST * SECOND, (END - 1) * SECOND);
    let (this_year, _, _) = civil(clock.div_euclid(DAY));
    [this_year - 1, this_year, this_year + 1]
        .into_iter()
        .filter_map(moment)
        .filter(|candidate| sensible(*candidate))
        .min_by_key(|candidate| candidate.abs_diff(clock))
}

/// Days since the epoch of a date of the Gregorian calendar; `None` when there is no such date.
/// Years are counted from March, so that the leap day is the last of its year.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(leap),
        _ => return None,
    };
    if day < 1 || day > length {
        return None;
    }
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let of_year = (153 * month + 2) / 5 + day - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    Some(365 * year + leap_days + of_year - 719_468)
}

/// The year, month and day of a number of days since the epoch.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Writes a moment as RFC 3339 in UTC with three digits of a second, or six where they are needed:
/// `2023-10-08T00:00:00.000Z`.
pub fn write_rfc3339(micros: i64, out: &mut String) {
    use std::fmt::Write;
    let (year, month, day) = civil(micros.div_euclid(DAY));
    let of_day = micros.rem_euclid(DAY);
    let (seconds, fraction) = (of_day / SECOND, of_day % SECOND);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    // Writing into a String cannot fail.
    let _ = write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.");
    let _ = if fraction % 1_000 == 0 {
        write!(out, "{:03}Z", fraction / 1_000)
    } else {
        write!(out, "{fraction:06}Z")
    };
}

/// A moment as RFC 3339 in UTC: [`write_rfc3339`] into a new string.
#[must_use]
pub fn rfc3339(micros: i64) -> String {
    let mut out = String::with_capacity(27);
    write_rfc3339(micros, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 2023-10-08T00:00:00Z.
    const CLOCK: i64 = 1_696_723_200 * SECOND;

    fn read(text: &str) -> Option<i64> {
        parse_event_time(text, CLOCK)
    }

    /// Found by fuzzing: the year of a stamp without one overflowed.
    #[test]
    fn no_clock_is_too_strange_for_a_stamp_without_a_year() {
        for clock in [i64::MIN, i64::MIN / 2, -1, 0, i64::MAX / 2, i64::MAX] {
            let read = parse_event_time("Oct 11 22:14:15", clock);
            assert!(read.is_some_and(sensible), "{clock}: {read:?}");
        }
    }

    #[test]
    fn every_form_reads_as_the_moment_that_it_means() {
        let same = [
            "1696723200",
            "1696723200000",
            "1696723200000000",
            "1696723200000000000",
            "1696723200.0",
            "1.6967232E9",
            "2023-10-08T00:00:00Z",
            "2023-10-08T00:00:00z",
            "2023-10-08t00:00:00.000Z",
            "2023-10-08 00:00:00",
            "2023-10-08 00:00:00 UTC",
            "2023-10-08 00:00:00 +0000",
            "2023/10/08 00:00:00",
            "2023-10-08T02:00:00+02:00",
            "2023-10-07T17:00:00-0700",
            "2023-10-08T05:30:00+05:30",
            "2023-10-08T00:00Z",
            "2023-10-08",
            " 2023-10-08T00:00:00,000000000Z ",
            "2023-10-07T23:59:60Z",
            "Oct  8 00:00:00",
            "Oct 08 00:00:00",
            "oct 8 00:00:00",
            "Oct 8 2023 00:00:00",
            "08/Oct/2023:00:00:00 +0000",
            "07/Oct/2023:17:00:00 -0700",
            "[08/Oct/2023:00:00:00 +0000]",
        ];
        for text in same {
            assert_eq!(read(text), Some(CLOCK), "{text}");
        }
        assert_eq!(read("2020-10-18 19:50:09.240"), Some(1_603_050_609_240_000));
        assert_eq!(read("10/Oct/2000:13:55:36 -0700"), Some(971_211_336_000_000));
        assert_eq!(read("2023-10-08T00:00:00.123456789Z"), Some(CLOCK + 123_456));
        assert_eq!(read("1696723200.123"), Some(CLOCK + 123_000));
        assert_eq!(read("1696723200123.5"), Some(CLOCK + 123_500));
        assert_eq!(read("1696723200123456789"), Some(CLOCK + 123_456));
    }

    #[test]
    fn a_text_without_a_year_takes_the_nearest() {
        let new_year = read("2024-01-01T00:00:05Z").unwrap();
        let old_year = read("2023-12-31T23:59:58Z").unwrap();
        assert_eq!(parse_event_time("Dec 31 23:59:58", new_year), Some(old_year));
        assert_eq!(parse_event_time("Jan  1 00:00:05", old_year), Some(new_year));
        let leap_day = read("2024-02-29T12:00:00Z").unwrap();
        assert_eq!(parse_event_time("Feb 29 12:00:00", new_year), Some(leap_day));
        assert_eq!(parse_event_time("Feb 29 12:00:00", leap_day - 730 * DAY), None);
    }

    #[test]
    fn nonsense_reads_as_nothing() {
        for text in [
            "",
            " ",
            "-",
            "0",
            "-1696723200",
            "631151999",
            "7258118400",
            "12345",
            "99999999999999999999",
            "1989-12-31T23:59:59Z",
            "2200-01-01T00:00:00Z",
            "2023-02-29T00:00:00Z",
            "2023-13-01",
            "2023-00-01",
            "2023-10-08T24:00:00Z",
            "2023-10-08T00:60:00Z",
            "2023-10-08T00:00:61Z",
            "2023-10-08T00:00:00.Z",
            "2023-10-08T00:00:00+2",
            "2023-10-08T00:00:00+24:00",
            "2023-10-08T00:00:00 CEST",
            "2023-10-08x",
            "2023-10/08",
            "Oct",
            "Oct 11",
            "Oct 32 00:00:00",
            "Okt 11 22:14:15",
            "10/Oct/2000",
            "1696723200.12x",
            "1.7.0",
            "1e400",
            "NaN",
            "inf",
            "١٦٩٦٧٢٣٢٠٠",
            "2023-10-08T00:00:00Zulu",
            "10.0.0.1",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(micros in FIRST * SECOND..END * SECOND) {
            prop_assert_eq!(read(&rfc3339(micros)), Some(micros));
            prop_assert_eq!(from_epoch(micros), Some(micros));
            prop_assert_eq!(read(&(micros / SECOND).to_string()), Some(micros / SECOND * SECOND));
            let decimal = format!("{}.{:06}", micros / SECOND, micros % SECOND);
            prop_assert_eq!(parse_number(&decimal), Some(micros));
        }

        #[test]
        fn an_offset_moves_the_moment(micros in FIRST * SECOND + DAY..END * SECOND - DAY, minutes in -1_439i64..1_440) {
            let mut text = rfc3339(micros + minutes * 60 * SECOND);
            text.pop();
            let sign = if minutes < 0 { '-' } else { '+' };
            text.push_str(&format!("{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60));
            prop_assert_eq!(read(&text), Some(micros));
        }

        #[test]
        fn days_and_dates_are_inverse(day in -200_000i64..200_000) {
            let (year, month, of_month) = civil(day);
            prop_assert_eq!(days(year, month, of_month), Some(day));
        }

        #[test]
        fn the_year_taken_is_the_nearest(micros in FIRST * SECOND + DAY..END * SECOND - DAY, away in -180i64..180) {
            let micros = micros / SECOND * SECOND;
            let (_, month, day) = civil(micros.div_euclid(DAY));
            prop_assume!((month, day) != (2, 29));
            let name = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"][month as usize - 1];
            let whole = rfc3339(micros);
            let text = format!("{name} {day:>2} {}", &whole[11..19]);
            prop_assert_eq!(parse_event_time(&text, micros + away * DAY), Some(micros), "{}", text);
        }

        #[test]
        fn anything_is_read_without_panic(
            any in prop::collection::vec(any::<char>(), 0..40),
            like in prop::collection::vec(prop::sample::select(b"0123456789-/:. TZ+,Oct[]eE".to_vec()), 0..40),
        ) {
            let like = String::from_utf8(like).unwrap();
            for text in [String::from_iter(any), like] {
                if let Some(micros) = read(&text) {
                    prop_assert!(sensible(micros));
                }
            }
        }
    }
}
