//! Recognising what a file holds by its first bytes.

use crate::syslog::{self, Context};
use bytes::Bytes;

/// How many bytes are looked at.
pub const HEAD: usize = 64 * 1024;

/// How a file's records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// One JSON object a line.
    JsonLines,
    /// JSON values one after the other, also over several lines, or arrays of them.
    Json,
    /// Syslog lines, RFC 5424 or RFC 3164 (without priority too).
    Syslog,
    /// Other text: a line is a record.
    Text,
    /// Nothing.
    Empty,
}

impl Format {
    /// The name in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::JsonLines => "json lines",
            Self::Json => "json",
            Self::Syslog => "syslog",
            Self::Text => "text",
            Self::Empty => "empty",
        }
    }
}

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    None,
    Gzip,
    Zstd,
}

pub(super) fn packing(head: &[u8]) -> Packing {
    match head {
        [0x1f, 0x8b, 8, ..] => Packing::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Packing::Zstd,
        // A skippable frame may come first.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Packing::Zstd,
        _ => Packing::None,
    }
}

/// Binary formats that are skipped by name.
const BINARY: [(&[u8], &str); 16] = [
    (b"ElfFile\0", "a Windows event log (.evtx): export it as JSON"),
    (b"LPKSHHRH", "a systemd journal: use 'journalctl -o json' and load that"),
    (b"\xfd7zXZ\0", "xz-compressed: unpack it first"),
    (b"BZh", "bzip2-compressed: unpack it first"),
    (b"PK\x03\x04", "a zip archive: unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first"),
    (b"\x04\"M\x18", "lz4-compressed: unpack it first"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"\xd4\xc3\xb2\xa1", "a packet capture"),
    (b"\xa1\xb2\xc3\xd4", "a packet capture"),
    (b"\x0a\x0d\x0d\x0a", "a packet capture"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"\x7fELF", "a program"),
    (b"\xff\xfe", "UTF-16 text: convert it to UTF-8"),
    (b"\xfe\xff", "UTF-16 text: convert it to UTF-8"),
];

/// The byte order mark of UTF-8.
pub(super) const BOM: &[u8] = b"\xef\xbb\xbf";

/// What decompressed bytes are the beginning of. `whole` says that there are no more.
///
/// # Errors
/// Why the file is skipped.
pub fn recognise(head: &[u8], whole: bool, context: &Context) -> Result<Format, String> {
    for (magic, name) in BINARY {
        if head.starts_with(magic) {
            return Err(name.to_owned());
        }
    }
    if head.get(257..262) == Some(b"ustar") {
        return Err("a tar archive: unpack it first".to_owned());
    }
    let text = head.strip_prefix(BOM).unwrap_or(head);
    if memchr::memchr(0, text).is_some() {
        return Err("binary: it has zero bytes".to_owned());
    }
    let control = text.iter().filter(|byte| **byte < 32 && !byte.is_ascii_whitespace());
    let control = control.filter(|byte| **byte != 0x1b).count();
    if control * 50 > text.len() {
        return Err("binary: it is full of control characters".to_owned());
    }
    let text = text.trim_ascii_start();
    Ok(match text {
        [] => Format::Empty,
        [b'{', ..] => {
            if first_line_is_a_value(text, whole) {
                Format::JsonLines
            } else {
                Format::Json
            }
        }
        // `[Sun Dec 04 …]` begins a line of a web server's log.
        [b'[', rest @ ..]
            if matches!(rest.trim_ascii_start().first(), None | Some(b'{' | b'[' | b']')) =>
        {
            Format::Json
        }
        _ if is_syslog(text, whole, context) => Format::Syslog,
        _ => Format::Text,
    })
}

/// Whether the first line is a whole JSON value. A line that is longer than what is seen counts as
/// one.
fn first_line_is_a_value(text: &[u8], whole: bool) -> bool {
    let Some(end) = memchr::memchr(b'\n', text) else {
        return !whole || serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok();
    };
    let line = text.get(..end).unwrap_or_default();
    serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok()
}

/// Whether most of the first lines have a syslog header.
fn is_syslog(text: &[u8], whole: bool, context: &Context) -> bool {
    let mut lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').take(51).collect();
    if lines.len() > 50 || !whole {
        // The last one may be cut off.
        lines.pop();
    }
    let lines: Vec<&[u8]> =
        lines.into_iter().filter(|line| !line.trim_ascii().is_empty()).collect();
    let syslog = lines
        .iter()
        .filter(|line| {
            let (_, format) = syslog::parse(&Bytes::copy_from_slice(line), context);
            format != syslog::Format::Plain
        })
        .count();
    syslog > 0 && syslog * 2 >= lines.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(text: &[u8]) -> Result<Format, String> {
        recognise(text, true, &Context { now: 1_777_636_800_000_000, utc_offset_minutes: 0 })
    }

    #[test]
    fn content_decides() {
        for (text, want) in [
            (&b"{\"a\":1}\n{\"a\":2}\n"[..], Format::JsonLines),
            (b"{\"a\":1}", Format::JsonLines),
            (b"\xef\xbb\xbf {\"a\":1}\nbroken", Format::JsonLines),
            (b"{\n \"a\": 1\n}\n{}", Format::Json),
            (b"{\"a\":1}{\"a\":2}\n", Format::Json),
            (b"[{\"a\":1}]", Format::Json),
            (b"[\n  {\"a\":1}]", Format::Json),
            (b"[]", Format::Json),
            (b"[Sun Dec 04 04:47:44 2005] [notice] x\n", Format::Text),
            (b"<34>1 - - - - - - x\n", Format::Syslog),
            (b"May  1 12:00:00 host sshd[1]: x\nMay  1 12:00:00 host y\n", Format::Syslog),
            (b"2026-05-01T12:00:00Z host app: x\n", Format::Syslog),
            (b"1.2.3.4 - - [01/May/2026:12:00:00 +0000] \"GET / HTTP/1.1\" 200 1\n", Format::Text),
            (b" \n", Format::Empty),
            (b"", Format::Empty),
        ] {
            assert_eq!(format(text), Ok(want), "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn binaries_are_skipped_with_a_reason() {
        let mut tar = vec![b'a'; 600];
        tar[257..262].copy_from_slice(b"ustar");
        for (bytes, words) in [
            (&b"ElfFile\0..."[..], "evtx"),
            (b"\xff\xfea\0", "UTF-16"),
            (b"abc\0def", "zero bytes"),
            (b"\x01\x02\x03\x04abc", "control characters"),
            (&tar, "tar"),
        ] {
            assert!(format(bytes).unwrap_err().contains(words));
        }
    }
}
