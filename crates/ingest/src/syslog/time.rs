//! Time stamps at the beginning of a text, as syslog senders write them.
//!
//! | form | example |
//! |---|---|
//! | RFC 3339 | `2026-05-01T12:00:00.123456+02:00`, `2026-05-01T12:00:00Z` |
//! | date and time | `2026-05-01 12:00:00.123`, also with `,` before the fraction |
//! | RFC 3164 | `May  1 12:00:00` |
//! | with fraction, year or zone | `May  1 12:00:00.123`, `May 01 2026 12:00:00`, `May  1 12:00:00 UTC` |
//!
//! Where no zone is written the sender's offset from UTC is taken. Where no year is written it is
//! the latest one that does not put the time over a day ahead of the given clock.

/// Microseconds in a second.
const SECOND: i64 = 1_000_000;
/// Microseconds in a day.
const DAY: i64 = 86_400 * SECOND;

/// The days from 1970-01-01 to a date of the Gregorian calendar.
fn days(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month = i64::from(if month > 2 { month - 3 } else { month + 9 });
    let day_of_year = (153 * month + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The year in which a number of microseconds since the epoch lies.
fn year_of(micros: i64) -> i64 {
    let mut year = 1970 + micros.div_euclid(DAY) / 366;
    while days(year + 1, 1, 1) * DAY <= micros {
        year += 1;
    }
    while days(year, 1, 1) * DAY > micros {
        year -= 1;
    }
    year
}

fn days_in(year: i64, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        let (first, rest) = self.rest.split_first()?;
        (*first == byte).then(|| self.rest = rest)
    }

    fn digit(&mut self) -> Option<u32> {
        let (first, rest) = self.rest.split_first()?;
        first.is_ascii_digit().then(|| {
            self.rest = rest;
            u32::from(first - b'0')
        })
    }

    fn digits(&mut self, count: usize) -> Option<u32> {
        let mut number = 0;
        for _ in 0..count {
            number = number * 10 + self.digit()?;
        }
        Some(number)
    }

    /// `hh:mm:ss` and a fraction: microseconds of the day. A leap second counts as the one before.
    fn time_of_day(&mut self) -> Option<i64> {
        let hour = self.digits(2)?;
        self.take(b':')?;
        let minute = self.digits(2)?;
        self.take(b':')?;
        let second = self.digits(2)?;
        if hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let mut micros = 0;
        if matches!(self.peek(), Some(b'.' | b','))
            && self.rest.get(1).is_some_and(u8::is_ascii_digit)
        {
            self.rest = self.rest.get(1..).unwrap_or_default();
            let mut unit = 100_000;
            while let Some(digit) = self.digit() {
                micros += i64::from(digit) * unit;
                unit /= 10;
            }
        }
        let seconds = i64::from(hour * 3600 + minute * 60 + second.min(59));
        Some(seconds * SECOND + micros)
    }

    /// `Z`, `+hh:mm`, `+hhmm` or `+hh`, in minutes.
    fn offset(&mut self) -> Option<i64> {
        match self.peek()? {
            b'Z' | b'z' => self.rest = self.rest.get(1..).unwrap_or_default(),
            sign @ (b'+' | b'-') => {
                let mut ahead = Reader { rest: self.rest.get(1..).unwrap_or_default() };
                let hours = ahead.digits(2)?;
                let before = ahead.rest;
                let _ = ahead.take(b':');
                let minutes = ahead.digits(2).unwrap_or_else(|| {
                    ahead.rest = before;
                    0
                });
                if hours > 23 || minutes > 59 {
                    return None;
                }
                self.rest = ahead.rest;
                let offset = i64::from(hours * 60 + minutes);
                return Some(if sign == b'-' { -offset } else { offset });
            }
            _ => return None,
        }
        Some(0)
    }

    fn month(&mut self) -> Option<u32> {
        const NAMES: [&[u8; 3]; 12] = [
            b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov",
            b"dec",
        ];
        let name = self.rest.get(..3)?;
        let at = NAMES.iter().position(|month| name.eq_ignore_ascii_case(month.as_slice()))?;
        self.rest = self.rest.get(3..)?;
        u32::try_from(at + 1).ok()
    }
}

/// Reads the time stamp that a text begins with: microseconds since the epoch, and the length of the
/// stamp in bytes. `now` is the clock, `offset_minutes` what the sender's clock is ahead of UTC.
#[must_use]
pub fn stamp(text: &str, now: i64, offset_minutes: i32) -> Option<(i64, usize)> {
    let mut reader = Reader { rest: text.as_bytes() };
    let micros = match reader.peek()? {
        b'0'..=b'9' => numeric(&mut reader, offset_minutes)?,
        _ => named(&mut reader, now, offset_minutes)?,
    };
    Some((micros, text.len() - reader.rest.len()))
}

fn numeric(reader: &mut Reader<'_>, offset_minutes: i32) -> Option<i64> {
    let year = i64::from(reader.digits(4)?);
    let separator = reader.peek().filter(|byte| matches!(byte, b'-' | b'/'))?;
    reader.take(separator)?;
    let month = reader.digits(2)?;
    reader.take(separator)?;
    let day = reader.digits(2)?;
    if !matches!(reader.peek(), Some(b'T' | b't' | b' ')) {
        return None;
    }
    reader.rest = reader.rest.get(1..)?;
    let time = reader.time_of_day()?;
    let offset = reader.offset().unwrap_or(i64::from(offset_minutes));
    if !(1..=12).contains(&month) || day == 0 || day > days_in(year, month) {
        return None;
    }
    Some(days(year, month, day) * DAY + time - offset * 60 * SECOND)
}

fn named(reader: &mut Reader<'_>, now: i64, offset_minutes: i32) -> Option<i64> {
    let month = reader.month()?;
    reader.take(b' ')?;
    let _ = reader.take(b' ');
    let mut day = reader.digit()?;
    if let Some(second) = reader.digit() {
        day = day * 10 + second;
    }
    reader.take(b' ')?;
    // A year stands here where a colon does not follow two digits.
    let mut year = None;
    if reader.rest.get(2) != Some(&b':') {
        year = Some(i64::from(reader.digits(4)?));
        reader.take(b' ')?;
    }
    let time = reader.time_of_day()?;
    let before = reader.rest;
    let mut offset = i64::from(offset_minutes);
    if reader.take(b' ').is_some() {
        if let Some(zone) = reader.rest.strip_prefix(b"UTC").or(reader.rest.strip_prefix(b"GMT"))
            && matches!(zone.first(), None | Some(b' ' | b':'))
        {
            reader.rest = zone;
            offset = 0;
        } else {
            reader.rest = before;
        }
    }
    let at = |year: i64| {
        (1..=days_in(year, month))
            .contains(&day)
            .then(|| days(year, month, day) * DAY + time - offset * 60 * SECOND)
    };
    match year {
        Some(year) => at(year),
        None => {
            // 29 February comes every four years, or every eight.
            let latest = year_of(now) + 1;
            (0..=9).filter_map(|back| at(latest - back)).find(|time| *time <= now + DAY)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 2026-05-01T12:00:00Z.
    const NOW: i64 = 1_777_636_800 * SECOND;

    fn seconds(text: &str) -> Option<f64> {
        let (micros, length) = stamp(text, NOW, 0)?;
        assert!(text[length..].is_empty() || text[length..].starts_with([' ', ':']), "{text}");
        Some((micros - NOW) as f64 / 1e6)
    }

    #[test]
    fn stamps_of_all_forms() {
        for (text, want) in [
            ("2026-05-01T12:00:00Z", 0.0),
            ("2026-05-01T14:00:00.5+02:00 host", 0.5),
            ("2026-05-01T12:00:00.123456789Z", 0.123_456),
            ("2026-05-01T07:00:00-0500", 0.0),
            ("2026-05-01 12:00:01,250 x", 1.25),
            ("2026/05/01 12:00:01", 1.0),
            ("May  1 12:00:00 host", 0.0),
            ("May 1 12:00:00", 0.0),
            ("May 01 2026 12:00:02: %ASA", 2.0),
            ("May  1 12:00:00.500 UTC: %SYS", 0.5),
            ("May  2 11:59:59", 86_399.0),
            ("May  2 12:00:01", 86_401.0 - 365.0 * 86_400.0),
            ("Dec 31 23:59:59", -10_411_201.0),
            ("2016-12-31T23:59:60Z", -294_408_001.0),
        ] {
            assert_eq!(seconds(text), Some(want), "{text}");
        }
    }

    #[test]
    fn leap_days_without_year_find_a_leap_year() {
        let (micros, _) = stamp("Feb 29 00:00:00", NOW, 0).unwrap();
        assert_eq!(micros, days(2024, 2, 29) * DAY);
        // Around new year: a sender an hour ahead, and one a day behind.
        let new_year = days(2026, 1, 1) * DAY;
        assert_eq!(stamp("Jan  1 01:00:00", new_year, 0).unwrap().0, new_year + 3600 * SECOND);
        assert_eq!(stamp("Dec 31 00:00:00", new_year, 0).unwrap().0, new_year - DAY);
    }

    #[test]
    fn offsets_apply_where_no_zone_is_written() {
        assert_eq!(stamp("May  1 14:00:00", NOW, 120).unwrap().0, NOW);
        assert_eq!(stamp("2026-05-01 14:00:00", NOW, 120).unwrap().0, NOW);
        assert_eq!(stamp("2026-05-01 12:00:00Z", NOW, 120).unwrap().0, NOW);
    }

    #[test]
    fn other_texts_are_no_stamps() {
        for text in [
            "",
            "May",
            "May 32 12:00:00",
            "2026-02-30T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "Mayor",
            "12:00:00",
            "May  1 25:00:00",
            "2026-05-01",
            "Feb 30 00:00:00",
        ] {
            assert_eq!(stamp(text, NOW, 0), None, "{text}");
        }
    }

    #[test]
    fn the_year_of_a_time_is_that_of_the_calendar() {
        for year in [1600, 1969, 1970, 1972, 2000, 2024, 2100, 9999] {
            assert_eq!(year_of(days(year, 1, 1) * DAY), year);
            assert_eq!(year_of(days(year + 1, 1, 1) * DAY - 1), year);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_not(
            parts in proptest::collection::vec(proptest::sample::select(vec![
                "May", "Feb", "29", " ", "  ", "1", "12:00:00", "2026", "-05-", "T", "Z", "+02:00", ".", ",5", ":", "é", "UTC", "9999", "00",
            ]), 0..12),
            now in any::<i32>(),
        ) {
            let text = parts.concat();
            if let Some((_, length)) = stamp(&text, i64::from(now) * 1000 * SECOND, 0) {
                prop_assert!(text.get(..length).is_some());
            }
        }
    }
}
