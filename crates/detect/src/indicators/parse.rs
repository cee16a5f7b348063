//! The file format of lists of indicators.
//!
//! One indicator a line. Empty lines and lines that begin with `#` say nothing, and neither does what follows a
//! `#` behind white space outside of quotes. Fields are separated by tabs where a line has any, else by commas; a
//! field may stand in double quotes, with `""` for one of them.
//!
//! A first line with a field named `value` (or `indicator`, `ioc`) is a header; besides it may name `kind`,
//! `level`, `source` and `note`, in any order, and other columns, which are not read. Without a header a line is `value,level,source,note`,
//! all but the value optional, or the same behind the name of a kind: `domain,evil.example,high`.
//!
//! The kind is recognised by the value; where it is named, the value must be of that kind. A host name is a
//! `domain`, which means all names below it too, unless the line calls it a `hostname`.

use super::set::Form;
use super::value::{self, push_email, push_name, push_prefix, push_url, tag, url_parts};
use super::{Kind, Level};
use std::borrow::Cow;
use std::net::IpAddr;

/// Bounds of lists.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a list.
    pub file_bytes: usize,
    /// Bytes of a line.
    pub line_bytes: usize,
    /// Indicators of a list.
    pub indicators: usize,
    /// Indicators of all lists together.
    pub total_indicators: usize,
    /// Bytes of all lists together, in their forms.
    pub total_bytes: usize,
    /// Lists together.
    pub lists: usize,
    /// Refused lines that are kept by number and reason; further ones are counted.
    pub refused: usize,
    /// Bytes of a source or note; the rest is cut.
    pub about_bytes: usize,
}

/// The bounds of lists.
pub const LIMITS: Limits = Limits {
    file_bytes: 60 << 20,
    line_bytes: 8 << 10,
    indicators: 1_000_000,
    total_indicators: 2_000_000,
    total_bytes: 256 << 20,
    lists: 1000,
    refused: 1000,
    about_bytes: 200,
};

/// Why a list can't be taken at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// It is too large.
    #[error("the list has {bytes} bytes, at most {most} are read: split it into several lists")]
    TooLarge {
        /// Its bytes.
        bytes: usize,
        /// How many it may have.
        most: usize,
    },
    /// There are too many lists.
    #[error("{lists} lists are too many, at most {most} are taken: put some together")]
    TooManyLists {
        /// How many there are.
        lists: usize,
        /// How many there may be.
        most: usize,
    },
    /// All lists together are too large.
    #[error(
        "all lists together have {indicators} indicators; at most {most}, and 256 MiB of them, are taken: leave some out"
    )]
    TooManyTogether {
        /// How many there are.
        indicators: usize,
        /// How many there may be.
        most: usize,
    },
    /// It has too many indicators.
    #[error("line {line}: a list may have {most} indicators: split it into several lists")]
    TooMany {
        /// The first line that is too many, from 1.
        line: usize,
        /// How many there may be.
        most: usize,
    },
}

/// A line that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its number, from 1.
    pub line: usize,
    /// Why, and what to do.
    pub reason: String,
}

/// One line's indicator in its form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line {
    /// Where its form begins in [`List::forms`], and how many bytes it has.
    pub(super) form: (u32, u16),
    pub(super) kind: Kind,
    /// `None`: that of the list.
    pub(super) level: Option<Level>,
    /// Where source and note stand, in [`List::abouts`].
    pub(super) about: Option<u32>,
}

/// A list as it was read.
#[derive(Debug, Clone, Default)]
pub struct List {
    pub(super) lines: Vec<Line>,
    pub(super) forms: Vec<u8>,
    /// Source and note, each behind its length as one byte.
    pub(super) abouts: Vec<u8>,
    refused: Vec<Refused>,
    refused_total: usize,
}

/// Which field of a line is what.
#[derive(Debug, Clone, Copy, Default)]
struct Layout {
    value: Option<usize>,
    kind: Option<usize>,
    level: Option<usize>,
    source: Option<usize>,
    note: Option<usize>,
}

const PLAIN: Layout =
    Layout { value: Some(0), kind: None, level: Some(1), source: Some(2), note: Some(3) };
const WITH_KIND: Layout =
    Layout { value: Some(1), kind: Some(0), level: Some(2), source: Some(3), note: Some(4) };

impl List {
    /// Reads a list.
    ///
    /// # Errors
    /// [`ListError`] when it is beyond a bound. Lines that are wrong are in [`List::refused`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ListError> {
        if bytes.len() > LIMITS.file_bytes {
            return Err(ListError::TooLarge { bytes: bytes.len(), most: LIMITS.file_bytes });
        }
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let mut list = Self::default();
        let mut header = None;
        let mut first = true;
        for (index, raw) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let number = index + 1;
            if raw.len() > LIMITS.line_bytes {
                list.refuse(number, format!("the line is longer than {} bytes", LIMITS.line_bytes));
                continue;
            }
            let Ok(text) = std::str::from_utf8(raw) else {
                list.refuse(number, "the line is not UTF-8".to_owned());
                continue;
            };
            let text = without_comment(text).trim();
            if text.is_empty() {
                continue;
            }
            let fields = fields(text);
            if std::mem::take(&mut first) {
                header = heading(&fields);
                if header.is_some() {
                    continue;
                }
            }
            if list.lines.len() >= LIMITS.indicators {
                return Err(ListError::TooMany { line: number, most: LIMITS.indicators });
            }
            if let Err(reason) = list.take(&fields, header) {
                list.refuse(number, reason);
            }
        }
        Ok(list)
    }

    /// How many indicators it has; one that stands on several lines counts once for each.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The first lines that were not taken.
    #[must_use]
    pub fn refused(&self) -> &[Refused] {
        &self.refused
    }

    /// How many lines were not taken.
    #[must_use]
    pub fn refused_total(&self) -> usize {
        self.refused_total
    }

    /// How many indicators of each kind there are; kinds without any are left out.
    pub fn kinds(&self) -> impl Iterator<Item = (Kind, usize)> {
        let mut counts = [0usize; Kind::ALL.len()];
        for line in &self.lines {
            if let Some(count) = counts.get_mut(line.kind as usize) {
                *count += 1;
            }
        }
        Kind::ALL.into_iter().zip(counts).filter(|(_, count)| *count > 0)
    }

    /// The indicators as text in the one form of their values, in the order of their lines: for tests and listings.
    pub fn values(&self) -> impl Iterator<Item = (Kind, String)> {
        self.lines.iter().map(|line| (line.kind, Form(self.form(line)).to_string()))
    }

    pub(super) fn form(&self, line: &Line) -> &[u8] {
        let (start, length) = (line.form.0 as usize, usize::from(line.form.1));
        self.forms.get(start..start + length).unwrap_or_default()
    }

    fn refuse(&mut self, line: usize, reason: String) {
        self.refused_total += 1;
        if self.refused.len() < LIMITS.refused {
            self.refused.push(Refused { line, reason });
        }
    }

    fn take(&mut self, fields: &[Cow<'_, str>], header: Option<Layout>) -> Result<(), String> {
        let first = fields.first().map_or("", |field| field.as_ref());
        let layout = match header {
            Some(layout) => layout,
            None if fields.len() > 1 && named_kind(first).is_some() => WITH_KIND,
            None => PLAIN,
        };
        let field =
            |at: Option<usize>| at.and_then(|at| fields.get(at)).map_or("", |field| field.trim());
        let text = field(layout.value);
        if text.is_empty() {
            return Err("there is no value".to_owned());
        }
        let wanted = match field(layout.kind) {
            "" => None,
            name => Some(named_kind(name).ok_or_else(|| {
                format!(
                    "'{}' is no kind: use ip, domain, hostname, url, md5, sha1, sha256, hash or email",
                    shortened(name)
                )
            })?),
        };
        let level = match field(layout.level) {
            "" => None,
            name => Some(Level::by_name(name).ok_or_else(|| {
                format!(
                    "'{}' is no level: use informational, low, medium, high or critical; a value with a comma stands in double quotes",
                    shortened(name)
                )
            })?),
        };
        let start = self.forms.len();
        let kind = match push_form(text, wanted, &mut self.forms) {
            Ok(kind) => kind,
            Err(reason) => {
                self.forms.truncate(start);
                return Err(reason);
            }
        };
        let about = self.push_about(field(layout.source), field(layout.note));
        let length = u16::try_from(self.forms.len() - start).unwrap_or(u16::MAX);
        let form = (u32::try_from(start).unwrap_or(u32::MAX), length);
        self.lines.push(Line { form, kind, level, about });
        Ok(())
    }

    /// Lists mostly say the same of all lines that follow each other.
    fn push_about(&mut self, source: &str, note: &str) -> Option<u32> {
        if source.is_empty() && note.is_empty() {
            return None;
        }
        let (source, note) = (cut(source), cut(note));
        if let Some(last) = self.lines.last().and_then(|line| line.about)
            && about_at(&self.abouts, last) == Some((source, note))
        {
            return Some(last);
        }
        let at = u32::try_from(self.abouts.len()).ok()?;
        for text in [source, note] {
            self.abouts.push(u8::try_from(text.len()).ok()?);
            self.abouts.extend_from_slice(text.as_bytes());
        }
        Some(at)
    }
}

/// Source and note at a place.
pub(super) fn about_at(abouts: &[u8], at: u32) -> Option<(&str, &str)> {
    let mut rest = abouts.get(at as usize..)?;
    let mut next = || {
        let (length, after) = rest.split_first()?;
        let (text, after) = after.split_at_checked(usize::from(*length))?;
        rest = after;
        std::str::from_utf8(text).ok()
    };
    Some((next()?, next()?))
}

/// At most as many bytes of a text as are kept of a source or note.
fn cut(text: &str) -> &str {
    let end = (0..=LIMITS.about_bytes.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}

fn without_comment(line: &str) -> &str {
    let (mut previous, mut quoted) = (b' ', false);
    for (at, byte) in line.bytes().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b'#' if !quoted && previous.is_ascii_whitespace() => {
                return line.get(..at).unwrap_or(line);
            }
            _ => {}
        }
        previous = byte;
    }
    line
}

/// The fields of a line, at most 64.
fn fields(line: &str) -> Vec<Cow<'_, str>> {
    let separator = if line.contains('\t') { '\t' } else { ',' };
    let mut fields = Vec::new();
    let mut rest = Some(line);
    while let Some(text) = rest {
        let trimmed = text.trim_start_matches(' ');
        if let Some(quoted) = trimmed.strip_prefix('"')
            && let Some(end) = closing_quote(quoted)
        {
            let (value, after) = (quoted.get(..end), quoted.get(end + 1..).unwrap_or_default());
            let value = value.unwrap_or_default();
            fields.push(match value.contains("\"\"") {
                true => Cow::Owned(value.replace("\"\"", "\"")),
                false => Cow::Borrowed(value),
            });
            rest = after.find(separator).and_then(|at| after.get(at + 1..));
        } else {
            let (value, after) = match text.split_once(separator) {
                Some((value, after)) => (value, Some(after)),
                None => (text, None),
            };
            fields.push(Cow::Borrowed(value.trim()));
            rest = after;
        }
        if fields.len() == 64 {
            break;
        }
    }
    fields
}

/// Where a quoted field ends: at a quote that no other follows.
fn closing_quote(text: &str) -> Option<usize> {
    let mut bytes = text.bytes().enumerate().peekable();
    while let Some((at, byte)) = bytes.next() {
        if byte == b'"' && bytes.next_if(|(_, next)| *next == b'"').is_none() {
            return Some(at);
        }
    }
    None
}

/// The layout that a line of column names tells; `None` when it is no such line.
fn heading(fields: &[Cow<'_, str>]) -> Option<Layout> {
    let at = |names: &[&str]| {
        fields
            .iter()
            .position(|field| names.iter().any(|name| field.trim().eq_ignore_ascii_case(name)))
    };
    let value = at(&["value", "indicator", "ioc", "ioc_value"])?;
    Some(Layout {
        value: Some(value),
        kind: at(&["kind", "type", "ioc_type", "indicator_type"]),
        level: at(&["level", "severity"]),
        source: at(&["source", "feed", "reference"]),
        note: at(&["note", "comment", "description"]),
    })
}

/// What a line calls its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Named {
    Place,
    Domain,
    Hostname,
    Url,
    Hash(Option<Kind>),
    Email,
}

fn named_kind(name: &str) -> Option<Named> {
    Some(match name.trim().to_ascii_lowercase().as_str() {
        "ip" | "address" | "ipv4" | "ipv6" | "network" | "cidr" | "ip-src" | "ip-dst"
        | "ipv4-addr" | "ipv6-addr" => Named::Place,
        "domain" | "domain-name" => Named::Domain,
        "hostname" | "host" => Named::Hostname,
        "url" | "uri" => Named::Url,
        "hash" => Named::Hash(None),
        "md5" => Named::Hash(Some(Kind::Md5)),
        "sha1" | "sha-1" => Named::Hash(Some(Kind::Sha1)),
        "sha256" | "sha-256" => Named::Hash(Some(Kind::Sha256)),
        "email" | "e-mail" | "email-addr" | "mail" => Named::Email,
        _ => return None,
    })
}

/// Appends the form of an indicator; the error says what it is not.
fn push_form(text: &str, wanted: Option<Named>, out: &mut Vec<u8>) -> Result<Kind, String> {
    let plain = value::refanged(text)
        .ok_or_else(|| format!("'{}' is put in brackets twice", shortened(text)))?;
    let text: &str = &plain;
    let allowed = |named: Named| wanted.is_none_or(|wanted| wanted == named);
    if allowed(Named::Place)
        && let Some((address, bits)) = network(text)?
    {
        let whole = if address.is_ipv4() { 32 } else { 128 };
        push_prefix(address, bits, out);
        return Ok(if bits == whole { Kind::Address } else { Kind::Network });
    }
    if let Some((kind, bytes, length)) = value::hash(text)
        && wanted.is_none_or(
            |wanted| matches!(wanted, Named::Hash(of) if of.is_none_or(|of| of == kind)),
        )
    {
        out.extend_from_slice(bytes.get(..length).unwrap_or_default());
        out.push(tag(kind));
        return Ok(kind);
    }
    if allowed(Named::Email) && push_email(text, out).is_some() {
        out.push(tag(Kind::Email));
        return Ok(Kind::Email);
    }
    let is_url = wanted == Some(Named::Url) || text.contains("://") || text.contains('/');
    if is_url
        && allowed(Named::Url)
        && let Some(parts) = url_parts(text)
        && is_host(parts.host)
    {
        push_url(&parts, out);
        out.push(tag(Kind::Url));
        return Ok(Kind::Url);
    }
    let is_name = matches!(wanted, None | Some(Named::Domain | Named::Hostname));
    let name = text.strip_prefix("*.").or_else(|| text.strip_prefix('.')).unwrap_or(text);
    if is_name && !name.contains(':') && push_name(name, out) {
        let kind = if wanted == Some(Named::Hostname) { Kind::Hostname } else { Kind::Domain };
        out.push(tag(kind));
        return Ok(kind);
    }
    let hint = match wanted {
        None if !text.is_ascii() => ": write a name in its ASCII form (xn--…)",
        None if text.contains('-')
            && text.contains('.')
            && text.starts_with(|c: char| c.is_ascii_digit()) =>
        {
            ": write a range of addresses as networks"
        }
        None => "",
        Some(_) => " of the kind that its line names",
    };
    Err(format!(
        "'{}' is no address, network, domain, URL, MD5, SHA-1, SHA-256 or e-mail address{hint}",
        shortened(text)
    ))
}

/// A host that may stand in a URL: a name of several labels, or an address.
fn is_host(host: &str) -> bool {
    value::address(host).is_some() || push_name(host, &mut Vec::new())
}

/// An address or a network; `None` for what is neither.
fn network(text: &str) -> Result<Option<(IpAddr, u8)>, String> {
    let Some((address, bits)) = text.split_once('/') else {
        let address = text.parse::<IpAddr>().ok().map(|address| address.to_canonical());
        return Ok(address.map(|address| (address, if address.is_ipv4() { 32 } else { 128 })));
    };
    let (Ok(address), Ok(bits)) = (address.parse::<IpAddr>(), bits.parse::<u8>()) else {
        return Ok(None);
    };
    let most = if address.is_ipv4() { 32 } else { 128 };
    let canonical = address.to_canonical();
    // A prefix of IPv4 addresses mapped into IPv6.
    let (address, bits, most) = match (address.is_ipv4(), canonical.is_ipv4(), bits) {
        (false, true, 96..) => (canonical, bits - 96, 32u8),
        _ => (address, bits, most),
    };
    if bits > most {
        return Err(format!("a network of these addresses has a prefix of at most {most} bits"));
    }
    if bits == 0 {
        return Err("a network of all addresses would match every record".to_owned());
    }
    Ok(Some((address, bits)))
}
