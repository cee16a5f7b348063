//! Reading lists.
//!
//! One entry a line: an address, a prefix (`192.0.2.0/24`, `2001:db8::/32`) or a range
//! (`192.0.2.1-192.0.2.9`), and after white space, a comma, a semicolon or a bar optionally a level
//! as a whole number. Fields in double quotes are taken without them. `#` and `;` begin comments, at
//! the start of a line or after white space. A first line that names columns (`ip,score`) says where
//! address and level stand: columns called `ip`, `address`, `ip_address`, `cidr`, `network`,
//! `prefix`, `src_ip` or `indicator`, and `level`, `score`, `count`, `confidence`, `severity` or
//! `weight`. What is read as level is multiplied by [`ListSpec::factor`] and limited to 255, so a
//! count of lists or a per cent becomes a level; other fields are ignored. Bits beyond a prefix's
//! length are ignored.

use palisade_event::ErrorClass;
use std::net::IpAddr;

/// What a list is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ListKind {
    /// Addresses with levels: events that have them are stamped with the level.
    Reputation,
    /// Senders that are refused, where refusal is configured; events that merely mention them are
    /// stamped.
    Block,
    /// Addresses that are never refused and never stamped, whatever other lists say.
    Allow,
}

/// How to read a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListSpec {
    /// Its name in reasons.
    pub name: String,
    /// What it is for.
    pub kind: ListKind,
    /// The level of entries without one, 1 to 255.
    pub default_level: u8,
    /// What levels in the file are multiplied by; 1 for levels of 0 to 255.
    pub factor: u32,
}

impl ListSpec {
    /// A list whose entries without level have level 200 (reputation) or 255 (block and allow).
    #[must_use]
    pub fn new(name: &str, kind: ListKind) -> Self {
        let default_level = if kind == ListKind::Reputation { 200 } else { 255 };
        Self { name: name.to_owned(), kind, default_level, factor: 1 }
    }
}

/// What lists are bounded by.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a file.
    pub file_bytes: usize,
    /// Bytes of a line.
    pub line_bytes: usize,
    /// Entries of a list.
    pub entries: usize,
    /// Entries of all lists together.
    pub total_entries: usize,
    /// Lists.
    pub lists: usize,
}

/// The bounds in force.
pub const LIMITS: Limits = Limits {
    file_bytes: 256 << 20,
    line_bytes: 4_096,
    entries: 4_000_000,
    total_entries: 8_000_000,
    lists: 65_535,
};

/// Why a list cannot be taken. The list that was in force stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// A line holds no address.
    #[error(
        "{file}, line {line}: '{found}' is no address, prefix or range; correct or remove the line"
    )]
    Address {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What stands there, shortened.
        found: String,
    },
    /// A level is no whole number or too large.
    #[error("{file}, line {line}: the level '{found}' is no whole number from 0 to 1000000")]
    Level {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What stands there, shortened.
        found: String,
    },
    /// A line is too long.
    #[error("{file}, line {line}: longer than {most} bytes; this is no list of addresses")]
    LongLine {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// The bound.
        most: usize,
    },
    /// A file is too large.
    #[error(
        "{file}: {bytes} bytes are more than the {most} that a list may have; split or shorten it"
    )]
    TooLarge {
        /// The file.
        file: String,
        /// Its size.
        bytes: usize,
        /// The bound.
        most: usize,
    },
    /// There are too many entries.
    #[error("{file}, line {line}: more than {most} entries; use prefixes or shorten the list")]
    TooManyEntries {
        /// The file.
        file: String,
        /// The line, from 1; 0 when it is about all lists.
        line: usize,
        /// The bound.
        most: usize,
    },
    /// There are too many lists.
    #[error("{lists} lists are more than {most}; join some")]
    TooManyLists {
        /// How many there are.
        lists: usize,
        /// The bound.
        most: usize,
    },
}

impl ListError {
    /// A bad list stays bad until someone changes it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        ErrorClass::Permanent
    }
}

/// The first and last address of an entry and its level. IPv4 addresses are numbers below 2³².
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) v4: bool,
    pub(super) first: u128,
    pub(super) last: u128,
    pub(super) level: u8,
}

/// A list that was read.
#[derive(Debug, Clone)]
pub struct List {
    pub(super) name: String,
    pub(super) kind: ListKind,
    pub(super) entries: Vec<Entry>,
}

/// Which fields of a line hold what.
#[derive(Debug, Clone, Copy)]
struct Layout {
    address: usize,
    level: Option<usize>,
    /// The fields are those that a first line named; without one the second field is a level only
    /// when it is a number.
    named: bool,
}

impl List {
    /// Reads a list. `file` is named in errors.
    ///
    /// # Errors
    /// [`ListError`] names file and line of the first thing that cannot be read.
    pub fn parse(spec: &ListSpec, file: &str, bytes: &[u8]) -> Result<Self, ListError> {
        let file_name = || file.to_owned();
        if bytes.len() > LIMITS.file_bytes {
            let (bytes, most) = (bytes.len(), LIMITS.file_bytes);
            return Err(ListError::TooLarge { file: file_name(), bytes, most });
        }
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let mut entries = Vec::new();
        let mut layout = Layout { address: 0, level: Some(1), named: false };
        let mut first = true;
        for (index, raw) in bytes.split(|b| *b == b'\n').enumerate() {
            let line = index + 1;
            if raw.len() > LIMITS.line_bytes {
                return Err(ListError::LongLine {
                    file: file_name(),
                    line,
                    most: LIMITS.line_bytes,
                });
            }
            let text = String::from_utf8_lossy(raw);
            let text = without_comment(&text).trim();
            if text.is_empty() {
                continue;
            }
            let fields = fields(text);
            if std::mem::take(&mut first)
                && let Some(named) = heading(&fields)
            {
                layout = named;
                continue;
            }
            let field = |at: usize| fields.get(at).copied().unwrap_or("");
            let Some((v4, start, end)) = addresses(field(layout.address)) else {
                let found = shortened(field(layout.address));
                return Err(ListError::Address { file: file_name(), line, found });
            };
            let level = match layout.level.map(field).filter(|level| !level.is_empty()) {
                Some(text) => match (text.parse::<u32>(), layout.named) {
                    (Ok(number), _) if number <= 1_000_000 => {
                        number.saturating_mul(spec.factor).min(255) as u8
                    }
                    // Without a heading a second field may be anything, for example a remark.
                    (Err(_), false)
                        if !text.starts_with(|c: char| c.is_ascii_digit() || c == '-') =>
                    {
                        spec.default_level
                    }
                    _ => {
                        let found = shortened(text);
                        return Err(ListError::Level { file: file_name(), line, found });
                    }
                },
                None => spec.default_level,
            };
            if entries.len() >= LIMITS.entries {
                let most = LIMITS.entries;
                return Err(ListError::TooManyEntries { file: file_name(), line, most });
            }
            push(&mut entries, v4, start, end, level);
        }
        Ok(Self { name: spec.name.clone(), kind: spec.kind, entries })
    }

    /// How many entries it has; a range that is no prefix counts as several.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// A range as prefixes, so that the longest prefix is defined. At most 254 of them.
fn push(entries: &mut Vec<Entry>, v4: bool, mut first: u128, last: u128, level: u8) {
    let bits = if v4 { 32 } else { 128 };
    loop {
        // The largest prefix that begins at `first` and does not go beyond `last`.
        let mut size = first.trailing_zeros().min(bits);
        let end = loop {
            let end = first | mask(size);
            if end <= last {
                break end;
            }
            size -= 1;
        };
        entries.push(Entry { v4, first, last: end, level });
        match end.checked_add(1) {
            Some(next) if next <= last => first = next,
            _ => return,
        }
    }
}

/// That many low bits.
fn mask(bits: u32) -> u128 {
    if bits >= 128 { u128::MAX } else { (1 << bits) - 1 }
}

fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}

fn without_comment(line: &str) -> &str {
    let mut previous = b' ';
    for (at, byte) in line.bytes().enumerate() {
        if matches!(byte, b'#' | b';') && previous.is_ascii_whitespace() {
            return line.get(..at).unwrap_or(line);
        }
        previous = byte;
    }
    line
}

/// The fields of a line: separated by commas, semicolons, bars or tabs where there are any, else by
/// white space.
fn fields(line: &str) -> Vec<&str> {
    let separator = |c: char| matches!(c, ',' | ';' | '|' | '\t');
    if line.contains(separator) {
        line.split(separator).take(64).map(|field| field.trim().trim_matches('"')).collect()
    } else {
        line.split_ascii_whitespace().take(64).map(|field| field.trim_matches('"')).collect()
    }
}

/// The layout that a line of column names tells; `None` when it is no such line.
fn heading(fields: &[&str]) -> Option<Layout> {
    let position = |names: &[&str]| {
        fields.iter().position(|field| names.iter().any(|name| field.eq_ignore_ascii_case(name)))
    };
    let address = position(&[
        "ip",
        "address",
        "ip_address",
        "ipaddress",
        "cidr",
        "network",
        "prefix",
        "src_ip",
        "indicator",
        "ip address",
    ])?;
    let level = position(&["level", "score", "count", "confidence", "severity", "weight"]);
    Some(Layout { address, level, named: true })
}

/// An address, prefix or range: whether it is IPv4, its first and its last address.
fn addresses(text: &str) -> Option<(bool, u128, u128)> {
    if let Some((address, length)) = text.split_once('/') {
        let (mut v4, mut number) = number(address)?;
        let mut length: u32 = length.parse().ok()?;
        // A prefix of IPv4 addresses mapped into IPv6.
        if !v4 && length >= 96 && number >> 32 == 0xffff {
            (v4, number, length) = (true, number & 0xffff_ffff, length - 96);
        }
        let bits = if v4 { 32 } else { 128 };
        let host = mask(bits.max(length) - length);
        return (length <= bits).then_some((v4, number & !host, number | host));
    }
    if let Some((first, last)) = text.split_once('-') {
        let (first, last) = (mapped(number(first.trim())?), mapped(number(last.trim())?));
        return (first.0 == last.0 && first.1 <= last.1).then_some((first.0, first.1, last.1));
    }
    let (v4, number) = mapped(number(text)?);
    Some((v4, number, number))
}

/// An IPv4 address mapped into IPv6 is an IPv4 address.
fn mapped((v4, number): (bool, u128)) -> (bool, u128) {
    if !v4 && number >> 32 == 0xffff { (true, number & 0xffff_ffff) } else { (v4, number) }
}

fn number(text: &str) -> Option<(bool, u128)> {
    match text.parse().ok()? {
        IpAddr::V4(v4) => Some((true, u128::from(v4.to_bits()))),
        IpAddr::V6(v6) => Some((false, v6.to_bits())),
    }
}
