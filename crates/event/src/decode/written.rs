//! JSON text that is written or read again: strings, mended surrogates, the members of `overflow`.

use super::scan::{Scan, run};

/// Writes a text as a JSON string, quotes included.
pub(crate) fn write_string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text;
    loop {
        let (plain, tail) = rest.split_at_checked(run(rest)).unwrap_or((rest, &[]));
        out.extend_from_slice(plain);
        let Some((byte, tail)) = tail.split_first() else {
            break;
        };
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => {
                let digit =
                    |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0') as u8;
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[digit(control >> 4), digit(control & 15)]);
            }
        }
        rest = tail;
    }
    out.push(b'"');
}

/// The text of a value that [`Scan::skip`] has checked, its lone surrogates replaced by `\ufffd`
/// (an escape of the same length), so that every reader of JSON can read it.
pub(super) fn replace_surrogates(text: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(text);
    let code = |at: usize| -> Option<u32> {
        let digits = text.get(at..)?.strip_prefix(b"\\u")?.get(..4)?;
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let mut at = 0;
    while let Some(found) = memchr::memchr(b'\\', text.get(at..).unwrap_or_default()) {
        at += found;
        match code(at) {
            None => at += 2,
            Some(0xd800..0xdc00) if matches!(code(at + 6), Some(0xdc00..0xe000)) => at += 12,
            Some(0xd800..0xe000) => {
                if let Some(escape) = out.get_mut(at..at + 6) {
                    escape.copy_from_slice(b"\\ufffd");
                }
                at += 6;
            }
            Some(_) => at += 6,
        }
    }
}

/// The members of an `overflow` object: name and JSON text of each. Ends early where the text is no
/// JSON object.
pub(crate) struct OverflowMembers<'a> {
    scan: Scan<'a>,
    name: Vec<u8>,
}

impl<'a> OverflowMembers<'a> {
    pub(crate) fn of(text: &'a str) -> Self {
        let mut scan = Scan::new(text.as_bytes(), 0, u32::MAX, u32::MAX);
        scan.next();
        Self { scan, name: Vec::new() }
    }
}

impl<'a> Iterator for OverflowMembers<'a> {
    type Item = (Vec<u8>, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if !matches!(self.scan.next(), Some(b'{' | b',')) {
            return None;
        }
        self.scan.step();
        self.scan.expect(b'"', "a name").ok()?;
        let name = self.scan.string(&mut self.name).ok()?.to_vec();
        self.scan.expect(b':', "':'").ok()?;
        self.scan.next();
        let start = self.scan.at();
        self.scan.skip(0).ok()?;
        Some((name, self.scan.since(start)))
    }
}
