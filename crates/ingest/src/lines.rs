//! Cutting bytes into lines.
//!
//! A line ends at `\n`; a `\r` before it belongs to the end. Lines of white space only are no
//! records. [`LineCutter`] does this on a stream with a bound: a longer line becomes a dead letter
//! with its first bytes, and the stream goes on at the next newline.

use crate::submit::DeadLetter;
use bytes::{Bytes, BytesMut};
use std::ops::Range;

/// How much of an overlong line its dead letter keeps, in bytes.
pub const KEPT_OF_OVERLONG: usize = 8192;

/// The lines of a text, without their ends and without blank ones.
#[must_use]
pub fn ranges(text: &[u8]) -> Vec<Range<usize>> {
    let mut lines = Vec::with_capacity(text.len() / 128 + 1);
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', text).chain(std::iter::once(text.len())) {
        if let Some(line) = text.get(start..end) {
            let kept = trim_end(line);
            if !kept.iter().all(u8::is_ascii_whitespace) {
                lines.push(start..start + kept.len());
            }
        }
        start = end + 1;
    }
    lines
}

/// A line without `\r` and NUL at its end.
fn trim_end(line: &[u8]) -> &[u8] {
    let end = line.iter().rposition(|byte| !matches!(byte, b'\r' | 0)).map_or(0, |at| at + 1);
    line.get(..end).unwrap_or_default()
}

/// Lines that are complete.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cut {
    /// The bytes that the ranges point into.
    pub body: Bytes,
    /// The lines, as from [`ranges`].
    pub lines: Vec<Range<usize>>,
    /// Overlong lines that ended in this stretch.
    pub dead: Vec<DeadLetter>,
}

/// Cuts a stream of bytes into lines of bounded length.
#[derive(Debug)]
pub struct LineCutter {
    max_line: usize,
    /// How many bytes at the start of the buffer are known to hold no newline.
    scanned: usize,
    overlong: Option<Overlong>,
}

#[derive(Debug)]
struct Overlong {
    kept: Bytes,
    length: u64,
    ends_in_cr: bool,
    blank: Blank,
}

impl Overlong {
    fn add(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        self.ends_in_cr = bytes.last().map_or(self.ends_in_cr, |last| *last == b'\r');
        self.blank.add(bytes);
    }
}

/// Whether bytes that come piece by piece make a blank line, as [`ranges`] sees it: white space, and
/// behind it nothing but `\r` and NUL.
#[derive(Debug)]
struct Blank {
    holds: bool,
    nul: bool,
}

impl Default for Blank {
    fn default() -> Self {
        Self { holds: true, nul: false }
    }
}

impl Blank {
    fn add(&mut self, bytes: &[u8]) {
        if !self.holds {
            return;
        }
        for byte in bytes {
            self.nul |= *byte == 0;
            let fits =
                if self.nul { matches!(byte, b'\r' | 0) } else { byte.is_ascii_whitespace() };
            if !fits {
                self.holds = false;
                return;
            }
        }
    }
}

/// The length of a line as it was sent, without the newline and one `\r` before it.
fn length(body: &[u8], line: &Range<usize>) -> usize {
    let behind = body.get(line.end..).unwrap_or_default();
    match behind {
        [] | [b'\n', ..] | [b'\r'] | [b'\r', b'\n', ..] => line.len(),
        _ => {
            let end = memchr::memchr(b'\n', behind).unwrap_or(behind.len());
            let cr = behind.get(..end).is_some_and(|bytes| bytes.last() == Some(&b'\r'));
            line.len() + end - usize::from(cr)
        }
    }
}

impl LineCutter {
    /// Lines of at most this many bytes.
    #[must_use]
    pub fn new(max_line: usize) -> Self {
        Self { max_line: max_line.max(1), scanned: 0, overlong: None }
    }

    /// Takes the complete lines out of the buffer; what follows the last newline stays in it, unless
    /// the stream is at its `end`. Leaves at most the longest line and a `\r` in the buffer. What comes
    /// out does not depend on how the stream is cut into calls.
    pub fn cut(&mut self, buffer: &mut BytesMut, end: bool) -> Cut {
        let mut cut = Cut::default();
        if self.overlong.is_some() && !self.skip(buffer, end, &mut cut.dead) {
            return cut;
        }
        let fresh = buffer.get(self.scanned..).unwrap_or_default();
        let complete = match memchr::memrchr(b'\n', fresh) {
            _ if end => buffer.len(),
            Some(at) => self.scanned + at + 1,
            None => 0,
        };
        cut.body = buffer.split_to(complete).freeze();
        self.scanned = buffer.len();
        cut.lines = ranges(&cut.body);
        let (body, max_line) = (cut.body.clone(), self.max_line);
        let is_over = |line: &Range<usize>| length(&body, line) > max_line;
        if cut.lines.iter().any(is_over) {
            cut.lines.retain(|line| {
                let fits = !is_over(line);
                if !fits {
                    let kept = line.start..line.start + line.len().min(KEPT_OF_OVERLONG);
                    let length = length(&body, line) as u64;
                    cut.dead.push(overlong(body.slice(kept), length, max_line));
                }
                fits
            });
        }
        // A `\r` at the end may belong to the line's end.
        let open = buffer.len() - usize::from(buffer.last() == Some(&b'\r'));
        if open > self.max_line {
            let line = buffer.split().freeze();
            let kept = line.slice(..line.len().min(KEPT_OF_OVERLONG));
            // A copy, so that eight KiB do not keep a whole read buffer alive.
            let kept = Bytes::copy_from_slice(&kept);
            let mut overlong =
                Overlong { kept, length: 0, ends_in_cr: false, blank: Blank::default() };
            overlong.add(&line);
            self.overlong = Some(overlong);
            self.scanned = 0;
        }
        cut
    }

    /// Drops the rest of an overlong line; true when it has ended.
    fn skip(&mut self, buffer: &mut BytesMut, end: bool, dead: &mut Vec<DeadLetter>) -> bool {
        let newline = memchr::memchr(b'\n', buffer);
        let dropped = newline.unwrap_or(buffer.len());
        if let Some(overlong) = &mut self.overlong {
            overlong.add(buffer.get(..dropped).unwrap_or_default());
        }
        let _ = buffer.split_to(newline.map_or(buffer.len(), |at| at + 1));
        self.scanned = 0;
        if newline.is_none() && !end {
            return false;
        }
        if let Some(Overlong { kept, length, ends_in_cr, blank }) = self.overlong.take()
            && !blank.holds
        {
            dead.push(overlong(kept, length - u64::from(ends_in_cr), self.max_line));
        }
        true
    }
}

fn overlong(kept: Bytes, length: u64, limit: usize) -> DeadLetter {
    let reason = format!(
        "line of {length} bytes is over the limit of {limit}: its first {} bytes are kept",
        kept.len()
    );
    DeadLetter { reason, content_type: "line", raw: kept }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(body: &[u8], lines: &[Range<usize>]) -> Vec<Vec<u8>> {
        lines.iter().map(|line| body[line.clone()].to_vec()).collect()
    }

    #[test]
    fn lines_lose_their_ends_and_blank_ones_are_none() {
        let text = b"one\r\n\n  \ntwo\0\nthree";
        assert_eq!(texts(text, &ranges(text)), [b"one".to_vec(), b"two".into(), b"three".into()]);
        assert!(ranges(b"").is_empty() && ranges(b"\n\r\n").is_empty());
    }

    #[test]
    fn an_overlong_line_dies_and_the_next_one_lives() {
        let mut cutter = LineCutter::new(10);
        let mut buffer = BytesMut::from(&b"short\n0123456789abc"[..]);
        let first = cutter.cut(&mut buffer, false);
        assert_eq!(texts(&first.body, &first.lines), [b"short".to_vec()]);
        buffer.extend_from_slice(b"def\nnext\n");
        let second = cutter.cut(&mut buffer, false);
        assert_eq!(texts(&second.body, &second.lines), [b"next".to_vec()]);
        assert_eq!(second.dead.len(), 1);
        assert!(second.dead[0].reason.starts_with("line of 16 bytes"), "{}", second.dead[0].reason);
        assert_eq!(second.dead[0].raw, "0123456789abc");
    }

    proptest! {
        /// However the bytes arrive, the same lines live and the same ones die.
        #[test]
        fn pieces_do_not_matter(
            text in proptest::collection::vec(prop_oneof![
                Just(b'\n'), Just(b'\r'), Just(0), Just(b' '), Just(b'a'), any::<u8>(),
            ], 0..400),
            cuts in proptest::collection::vec(1..40usize, 1..40),
        ) {
            let whole = LineCutter::new(20).cut(&mut BytesMut::from(text.as_slice()), true);
            let mut cutter = LineCutter::new(20);
            let mut buffer = BytesMut::new();
            let (mut lived, mut dead) = (Vec::new(), Vec::new());
            let mut rest = text.as_slice();
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                buffer.extend_from_slice(now);
                rest = later;
                let got = cutter.cut(&mut buffer, rest.is_empty());
                lived.extend(texts(&got.body, &got.lines));
                dead.extend(got.dead);
                prop_assert!(buffer.len() <= 21);
                if rest.is_empty() { break; }
            }
            prop_assert_eq!(lived, texts(&whole.body, &whole.lines));
            prop_assert_eq!(dead.len(), whole.dead.len());
            for (one, other) in dead.iter().zip(&whole.dead) {
                let number = |letter: &DeadLetter| {
                    letter.reason.split(' ').nth(2).map(str::to_owned)
                };
                prop_assert_eq!(number(one), number(other));
                let shorter = one.raw.len().min(other.raw.len());
                prop_assert_eq!(&one.raw[..shorter], &other.raw[..shorter]);
            }
        }

        /// Lines are those of the text; the long ones die.
        #[test]
        fn long_lines_die(text in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'a')], 0..400)) {
            let cut = LineCutter::new(20).cut(&mut BytesMut::from(text.as_slice()), true);
            let (fit, long): (Vec<_>, Vec<_>) =
                texts(&text, &ranges(&text)).into_iter().partition(|line| line.len() <= 20);
            prop_assert_eq!(texts(&cut.body, &cut.lines), fit);
            prop_assert_eq!(cut.dead.len(), long.len());
        }
    }
}
