//! The header of a syslog line as files and pipes have it: `[<PRI>]stamp host program[pid]: message`,
//! the stamp after RFC 3164 or RFC 3339, and RFC 5424. Only what a whole line needs to be told apart by;
//! the syslog listeners have a reader of their own that keeps everything.

use super::before;
use crate::time;

/// The parts of a header. Empty texts where it has none.
pub(super) struct Header<'a> {
    pub(super) stamp: &'a str,
    pub(super) host: &'a str,
    pub(super) program: &'a str,
    pub(super) pid: &'a str,
    pub(super) message: &'a str,
}

/// The longest name of a program.
const MAX_PROGRAM: usize = 64;

/// Reads a header that names a program.
pub(super) fn read(line: &str) -> Option<Header<'_>> {
    let bytes = line.as_bytes();
    let (rest, priority) = match bytes.first()? {
        b'<' => {
            let (number, rest) = line.get(1..)?.split_once('>')?;
            if number.len() > 3 || !number.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            (rest, true)
        }
        _ => (line, false),
    };
    if priority && let Some(rest) = rest.strip_prefix("1 ") {
        return rfc5424(rest);
    }
    let (stamp, rest) = stamp(rest)?;
    let (word, after) = rest.split_once(' ')?;
    // Without a host the next word is a tag.
    let (host, mut rest) = match word.ends_with(':') || word.contains('[') {
        true => ("", rest),
        false => (word, after.trim_start_matches(' ')),
    };
    // Some devices write their name twice.
    if !host.is_empty()
        && let Some(again) = rest.strip_prefix(host)
        && let Some(again) = again.strip_prefix(' ')
    {
        rest = again;
    }
    let (program, pid, message) = tag(rest)?;
    Some(Header { stamp, host, program, pid, message })
}

/// The moment of a header's stamp.
pub(super) fn moment(stamp: &str, clock: i64) -> Option<i64> {
    let dated = stamp.as_bytes().first().is_some_and(u8::is_ascii_digit);
    time::parse_event_time(stamp, if dated { clock } else { before(clock) })
}

/// The text of the stamp, and what follows it.
fn stamp(text: &str) -> Option<(&str, &str)> {
    let bytes = text.as_bytes();
    let length = match bytes {
        [b'0'..=b'9', _, _, _, b'-', ..] => text.find(' ')?,
        [b'A'..=b'Z', b'a'..=b'z', b'a'..=b'z', b' ', ..] => {
            // `Mmm dd hh:mm:ss`, `Mmm  d hh:mm:ss`, `Mmm d hh:mm:ss`
            let mut at = 4;
            while bytes.get(at) == Some(&b' ') {
                at += 1;
            }
            let word = |from: usize| Some(from + memchr::memchr(b' ', bytes.get(from..)?)?);
            let day = word(at)?;
            let mut end = word(day + 1)?;
            if bytes.get(day + 3) != Some(&b':') {
                // A year stands before the time of day.
                end = word(end + 1)?;
                if bytes.get(day + 8) != Some(&b':') {
                    return None;
                }
            }
            end
        }
        _ => return None,
    };
    let (stamp, rest) = text.split_at_checked(length)?;
    Some((stamp, rest.trim_start_matches(' ')))
}

/// `program[pid]: message`, `program: message`, `[program]: message` or `[program] message`.
fn tag(text: &str) -> Option<(&str, &str, &str)> {
    if let Some(inner) = text.strip_prefix('[') {
        let (program, rest) = inner.split_once(']')?;
        let rest = rest.strip_prefix(':').unwrap_or(rest).strip_prefix(' ')?;
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let named = (1..=MAX_PROGRAM).contains(&program.len()) && program.bytes().all(fits);
        return named.then_some((program, "", rest));
    }
    let end = text.bytes().take(MAX_PROGRAM + 1).position(|b| matches!(b, b':' | b'[' | b' '))?;
    let (program, rest) = text.split_at_checked(end)?;
    if program.is_empty() {
        return None;
    }
    let (pid, rest) = match rest.strip_prefix('[') {
        Some(inner) => {
            let (pid, rest) = inner.split_once(']')?;
            if pid.len() > MAX_PROGRAM {
                return None;
            }
            (pid, rest)
        }
        None => ("", rest),
    };
    let message = rest.strip_prefix(':')?;
    Some((program, pid, message.strip_prefix(' ').unwrap_or(message)))
}

/// `stamp host program pid msgid structured-data message`, behind the version.
fn rfc5424(text: &str) -> Option<Header<'_>> {
    let mut words = text.splitn(6, ' ').map(|word| if word == "-" { "" } else { word });
    let (stamp, host, program) = (words.next()?, words.next()?, words.next()?);
    let (pid, _, rest) = (words.next()?, words.next()?, words.next()?);
    let message = match rest.strip_prefix("- ") {
        Some(message) => message,
        None => rest.strip_prefix('[').and_then(|rest| rest.split_once("] "))?.1,
    };
    let message = message.strip_prefix('\u{feff}').unwrap_or(message);
    Some(Header { stamp, host, program, pid, message })
}
