//! One form for many spellings: decodes and folds a text before rules look at it.
//!
//! Two rounds undo percent encoding (`%41`, `%u0041`), HTML character references (`&#65;`, `&#x41;`,
//! `&lt;`) and backslash escapes (`\x41`, `\u0041`, `\u{41}`), each in one pass that never grows the
//! text. Then one more pass folds ASCII letters to lower case, `+` and runs of white space to one
//! space, line ends to `\n`, full-width and overlong forms to the ASCII character that they stand
//! for, typographic quotes to plain ones, and removes NULs and comments (`/* … */`; of
//! `/*!50000 … */`, which MySQL runs, only the marks). All of it is linear in the length.
//!
//! What was undone is counted, because encoding what needs no encoding is itself a sign.

use memchr::memchr3;

/// What was undone on the way; counts saturate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Undone {
    /// Letters and digits that were percent-encoded although nothing requires it.
    pub(crate) percent_letters: u16,
    /// Letters and digits that were written as character references or backslash escapes.
    pub(crate) escaped_letters: u16,
    /// Percent encodings undone in the second round that gave a character with a meaning in an
    /// attack: `%252e`, `%253c`.
    pub(crate) twice: u16,
    /// Overlong UTF-8 (`%c0%ae`).
    pub(crate) overlong: u16,
    /// Full-width forms of ASCII punctuation.
    pub(crate) wide: u16,
    /// NULs.
    pub(crate) nul: u16,
    /// Line ends that were percent-encoded.
    pub(crate) encoded_lines: u16,
    /// Comments within the text.
    pub(crate) comments: u16,
    /// Length of the longest run of one letter that does not mask.
    pub(crate) longest_run: u32,
}

/// Buffers that are reused from text to text.
#[derive(Debug, Clone, Default)]
pub(crate) struct Normaliser {
    first: Vec<u8>,
    second: Vec<u8>,
    /// The normalised text.
    pub(crate) text: Vec<u8>,
    /// What was undone.
    pub(crate) undone: Undone,
}

/// Capacity above which buffers are given back after use.
const KEEP: usize = 256 * 1024;

impl Normaliser {
    /// Normalises `raw` into `self.text`.
    pub(crate) fn run(&mut self, raw: &[u8]) {
        let mut undone = Undone::default();
        let changed = decode(raw, &mut self.first, &mut undone, false);
        let decoded: &[u8] = if !changed {
            raw
        } else if decode(&self.first, &mut self.second, &mut undone, true) {
            &self.second
        } else {
            &self.first
        };
        fold(decoded, &mut self.text, &mut undone);
        self.undone = undone;
    }

    /// Only the first round of percent decoding, for the gate; `None` when there is none to undo.
    pub(crate) fn percent_decoded(&mut self, raw: &[u8]) -> Option<(&[u8], bool)> {
        let mut undone = Undone::default();
        decode(raw, &mut self.first, &mut undone, false).then(|| {
            let suspicious = undone.encoded_lines > 0 || undone.percent_letters > 3;
            (self.first.as_slice(), suspicious)
        })
    }

    /// Gives back buffers that one long text has made large.
    pub(crate) fn trim(&mut self) {
        for buffer in [&mut self.first, &mut self.second, &mut self.text] {
            if buffer.capacity() > KEEP {
                *buffer = Vec::new();
            }
        }
    }
}

/// One round of decoding into `out`; false (and `out` undefined) when nothing was there to decode.
fn decode(raw: &[u8], out: &mut Vec<u8>, undone: &mut Undone, second: bool) -> bool {
    out.clear();
    let mut rest = raw;
    let mut changed = false;
    while let Some(at) = memchr3(b'%', b'&', b'\\', rest) {
        let (plain, tail) = rest.split_at(at);
        let mark = tail.first().copied().unwrap_or(0);
        let step = match mark {
            b'%' => percent(tail),
            b'&' => reference(tail),
            _ => backslash(tail),
        };
        out.extend_from_slice(plain);
        let Some((code, used)) = step else {
            out.push(mark);
            rest = tail.get(1..).unwrap_or_default();
            continue;
        };
        changed = true;
        count(undone, mark, code, second);
        push_code(out, code, mark == b'%' && used == 3);
        rest = tail.get(used..).unwrap_or_default();
    }
    if changed {
        out.extend_from_slice(rest);
    }
    changed
}

fn count(undone: &mut Undone, mark: u8, code: u32, second: bool) {
    let letter = u8::try_from(code).is_ok_and(|b| b.is_ascii_alphanumeric());
    if mark == b'%' {
        undone.percent_letters = undone.percent_letters.saturating_add(u16::from(letter));
        let line = matches!(code, 10 | 13);
        undone.encoded_lines = undone.encoded_lines.saturating_add(u16::from(line));
        let meaning = matches!(
            u8::try_from(code),
            Ok(b'.' | b'/' | b'\\' | b'<' | b'>' | b'\'' | b'"' | b';' | b'(' | b'|' | b'%' | 0)
        );
        undone.twice = undone.twice.saturating_add(u16::from(second && meaning));
    } else {
        undone.escaped_letters = undone.escaped_letters.saturating_add(u16::from(letter));
    }
}

/// Appends a decoded character: a byte as it is, a code point as UTF-8.
fn push_code(out: &mut Vec<u8>, code: u32, byte: bool) {
    match u8::try_from(code) {
        Ok(small) if byte || small < 0x80 => out.push(small),
        _ => {
            let c = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
}

fn hex(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || digits.len() > 6 {
        return None;
    }
    digits.iter().try_fold(0u32, |value, d| Some(value << 4 | char::from(*d).to_digit(16)?))
}

/// `%41` or `%u0041` at the start of `tail`: the code and how many bytes it took.
fn percent(tail: &[u8]) -> Option<(u32, usize)> {
    match tail {
        [_, b'u' | b'U', a, b, c, d, ..] => hex(&[*a, *b, *c, *d]).map(|code| (code, 6)),
        [_, a, b, ..] => hex(&[*a, *b]).map(|code| (code, 3)),
        _ => None,
    }
}

/// Named references that matter to attacks, without `&`, in any case.
const NAMED: [(&[u8], u8); 34] = [
    (b"lt;", b'<'),
    (b"gt;", b'>'),
    (b"quot;", b'"'),
    (b"apos;", b'\''),
    (b"amp;", b'&'),
    (b"lpar;", b'('),
    (b"rpar;", b')'),
    (b"colon;", b':'),
    (b"semi;", b';'),
    (b"tab;", b'\t'),
    (b"newline;", b'\n'),
    (b"lcub;", b'{'),
    (b"lbrace;", b'{'),
    (b"lbrace", b'{'),
    (b"rcub;", b'}'),
    (b"rbrace;", b'}'),
    (b"dollar;", b'$'),
    (b"sol;", b'/'),
    (b"bsol;", b'\\'),
    (b"period;", b'.'),
    (b"comma;", b','),
    (b"equals;", b'='),
    (b"grave;", b'`'),
    (b"num;", b'#'),
    (b"percnt;", b'%'),
    (b"plus;", b'+'),
    (b"vert;", b'|'),
    (b"lsqb;", b'['),
    (b"lbrack;", b'['),
    (b"rsqb;", b']'),
    (b"excl;", b'!'),
    (b"commat;", b'@'),
    (b"ast;", b'*'),
    (b"nbsp;", b' '),
];

/// An HTML character reference at the start of `tail`.
fn reference(tail: &[u8]) -> Option<(u32, usize)> {
    let after = tail.get(1..)?;
    if let Some(number) = after.strip_prefix(b"#") {
        let (digits, radix, lead) = match number.first() {
            Some(b'x' | b'X') => (number.get(1..)?, 16, 3),
            _ => (number, 10, 2),
        };
        // Leading zeros are a way to hide: `&#0000106;`.
        let zeros = digits.iter().take(16).take_while(|d| **d == b'0').count();
        let significant = digits.get(zeros..)?;
        let length =
            significant.iter().take(7).take_while(|d| char::from(**d).is_digit(radix)).count();
        if length == 0 || length > 6 {
            return None;
        }
        let code = significant
            .get(..length)?
            .iter()
            .try_fold(0u32, |value, d| Some(value * radix + char::from(*d).to_digit(radix)?))?;
        let closed = usize::from(significant.get(length) == Some(&b';'));
        return Some((code, lead + zeros + length + closed));
    }
    if !after.first()?.is_ascii_alphabetic() {
        return None;
    }
    NAMED.iter().find_map(|(name, code)| {
        let given = after.get(..name.len())?;
        given.eq_ignore_ascii_case(name).then(|| (u32::from(*code), 1 + name.len()))
    })
}

/// `\x41`, `\u0041` or `\u{41}` at the start of `tail`.
fn backslash(tail: &[u8]) -> Option<(u32, usize)> {
    match tail {
        [_, b'x' | b'X', a, b, ..] => hex(&[*a, *b]).map(|code| (code, 4)),
        [_, b'u', b'{', digits @ ..] => {
            let length = digits.iter().take(7).take_while(|d| d.is_ascii_hexdigit()).count();
            (digits.get(length) == Some(&b'}'))
                .then(|| hex(digits.get(..length)?).map(|code| (code, length + 4)))
                .flatten()
        }
        [_, b'u', a, b, c, d, ..] => hex(&[*a, *b, *c, *d]).map(|code| (code, 6)),
        _ => None,
    }
}

/// The last pass: lower case, white space, wide and overlong forms, NULs, comments, runs.
fn fold(raw: &[u8], out: &mut Vec<u8>, undone: &mut Undone) {
    out.clear();
    out.reserve(raw.len());
    let mut at = 0;
    let mut comments_end = false;
    let mut run = Run::default();
    while let Some(&byte) = raw.get(at) {
        let (plain, used) = match byte {
            b'A'..=b'Z' => (byte | 0x20, 1),
            b'/' if !comments_end && raw.get(at + 1) == Some(&b'*') => {
                match comment(raw, at, out) {
                    Some(used) => {
                        undone.comments = undone.comments.saturating_add(1);
                        at += used;
                        continue;
                    }
                    None => {
                        comments_end = true;
                        (byte, 1)
                    }
                }
            }
            // The closing mark of `/*! … */`; a lone `*/` says nothing.
            b'*' if undone.comments > 0 && raw.get(at + 1) == Some(&b'/') => (b' ', 2),
            0x21..=0x40 | 0x5b..=0x7e if byte != b'+' => (byte, 1),
            b'\r' => {
                let used = 1 + usize::from(raw.get(at + 1) == Some(&b'\n'));
                (b'\n', used)
            }
            b'\n' => (b'\n', 1),
            0 => {
                undone.nul = undone.nul.saturating_add(1);
                if out.last() == Some(&b'.') && raw.get(at + 1) == Some(&b'.') {
                    out.push(0);
                }
                at += 1;
                continue;
            }
            1..=0x20 | b'+' | 0x7f => (b' ', 1),
            _ => wide(raw.get(at..).unwrap_or_default(), undone),
        };
        at += used;
        if plain == b' ' && matches!(out.last(), Some(b' ')) {
            continue;
        }
        run.add(plain);
        out.push(plain);
    }
    undone.longest_run = run.longest;
}

/// A comment that begins at `at`: how many bytes to skip. `None` when no comment is ended after it.
fn comment(raw: &[u8], at: usize, out: &mut Vec<u8>) -> Option<usize> {
    let body = raw.get(at + 2..)?;
    if let Some(executed) = body.strip_prefix(b"!") {
        let digits = executed.iter().take(6).take_while(|d| d.is_ascii_digit()).count();
        out.push(b' ');
        return Some(3 + digits);
    }
    let length = memchr::memmem::find(body, b"*/")?;
    if out.last() != Some(&b' ') {
        out.push(b' ');
    }
    // What is long or has marks of its own may be the attack: then only the opening mark goes.
    let content = body.get(..length).unwrap_or_default();
    let empty = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b' ' | b'_' | b'-' | b'.' | b'*');
    if length <= 64 && content.iter().all(empty) { Some(length + 4) } else { Some(2) }
}

/// A byte above 127 at the start of `tail`: what it stands for and how many bytes it took.
fn wide(tail: &[u8], undone: &mut Undone) -> (u8, usize) {
    let folded = match *tail {
        // Overlong two-byte and three-byte forms of ASCII.
        [lead @ (0xc0 | 0xc1), next @ 0x80..=0xbf, ..] => {
            undone.overlong = undone.overlong.saturating_add(1);
            Some(((lead & 1) << 6 | (next & 0x3f), 2))
        }
        [0xe0, middle @ (0x80 | 0x81), last @ 0x80..=0xbf, ..] => {
            undone.overlong = undone.overlong.saturating_add(1);
            Some(((middle & 1) << 6 | (last & 0x3f), 3))
        }
        // U+FF01 to U+FF5E, the full-width forms.
        [0xef, 0xbc, last @ 0x81..=0xbf, ..] => {
            undone.wide = undone.wide.saturating_add(1);
            Some((last - 0x60, 3))
        }
        [0xef, 0xbd, last @ 0x80..=0x9e, ..] => {
            undone.wide = undone.wide.saturating_add(1);
            Some((last - 0x20, 3))
        }
        // No-break space, typographic quotes, ideographic full stop.
        [0xc2, 0xa0, ..] => Some((b' ', 2)),
        [0xe2, 0x80, 0x98 | 0x99, ..] => Some((b'\'', 3)),
        [0xe2, 0x80, 0x9c | 0x9d, ..] => Some((b'"', 3)),
        [0xe3, 0x80, 0x82, ..] => Some((b'.', 3)),
        _ => None,
    };
    match folded {
        Some((byte, used)) if byte >= 0x20 => (byte.to_ascii_lowercase(), used),
        Some((_, used)) => (b' ', used),
        None => (tail.first().copied().unwrap_or(b' '), 1),
    }
}

/// The longest run of one letter.
#[derive(Default)]
struct Run {
    last: u8,
    length: u32,
    longest: u32,
}

impl Run {
    fn add(&mut self, byte: u8) {
        if byte == self.last {
            self.length += 1;
            // `xxxx` and `zzzz` are how logs mask.
            if self.length > self.longest
                && byte.is_ascii_lowercase()
                && byte != b'x'
                && byte != b'z'
            {
                self.longest = self.length;
            }
        } else {
            self.last = byte;
            self.length = 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(text: &str) -> String {
        let mut normaliser = Normaliser::default();
        normaliser.run(text.as_bytes());
        String::from_utf8_lossy(&normaliser.text).into_owned()
    }

    #[test]
    fn every_spelling_becomes_one() {
        for spelling in [
            "<script>",
            "%3Cscript%3E",
            "%253cscript%253e",
            "%u003cscript%u003e",
            "&lt;SCRIPT&gt;",
            "&#60;script&#x3e;",
            "&#0000060script&#62;",
            r"\x3cscript\u003e",
            r"\u{3c}script>",
            "\u{ff1c}ｓcript\u{ff1e}",
            "%c0%bcscript>",
            "<scr%00ipt>",
        ] {
            assert_eq!(normal(spelling), "<script>", "{spelling}");
        }
        assert_eq!(normal("UNION/**/ALL+%09 SELECT"), "union all select");
        assert_eq!(normal("/*!50000union*/ select"), " union select");
        assert_eq!(normal("a%0d%0aSet-Cookie: x"), "a\nset-cookie: x");
        assert_eq!(normal("100% \\ & fine &copy; /* open"), "100% \\ & fine &copy; /* open");
    }

    #[test]
    fn what_was_undone_is_counted() {
        let mut normaliser = Normaliser::default();
        normaliser.run(b"%41%42%252e%252e%252f%00%c0%ae&#97;\\x62");
        let undone = normaliser.undone;
        assert_eq!((undone.percent_letters, undone.escaped_letters), (2, 2));
        assert_eq!((undone.twice, undone.nul, undone.overlong), (3, 1, 1));
    }
}
