//! The one form of a value: what makes two spellings of an address, a name or a hash the same.
//!
//! | kind | form |
//! |---|---|
//! | address, network | the bits of the address or prefix and its length; IPv4 in IPv6 (`::ffff:a.b.c.d`) is IPv4; a port, a zone and brackets fall away |
//! | domain, hostname | ASCII letters folded, no port and no dot at the end; at least two labels of letters, digits, `-`, `_`, the last not all digits |
//! | URL | host folded, path and query as they are; scheme, user, fragment, an empty path and the ports 80 and 443 make no difference |
//! | hash | its bytes |
//! | e-mail address | ASCII letters folded; of `Name <a@b>` what is in the brackets |
//!
//! A form ends with one byte that names what it is, so that forms of all kinds stand in one table and the parents
//! of a domain are the ends of its form.

use super::Kind;
use std::borrow::Cow;
use std::net::IpAddr;

/// The longest name of a domain.
const MAX_NAME: usize = 253;
/// The longest label of one.
const MAX_LABEL: usize = 63;
/// The longest local part of an e-mail address.
const MAX_LOCAL: usize = 64;
/// The longest URL; a longer one is none.
pub(super) const MAX_URL: usize = 2048;

/// The last byte of the form of an IPv4 prefix; the byte before it is the prefix length.
pub(super) const V4: u8 = 1;
/// The same of an IPv6 prefix.
pub(super) const V6: u8 = 2;

/// The last byte of the form of a kind that is no address.
pub(super) fn tag(kind: Kind) -> u8 {
    0x10 + kind as u8
}

/// The address that a text is: with or without brackets, port and zone.
#[must_use]
pub(super) fn address(text: &str) -> Option<IpAddr> {
    // The least is `::`, the longest has a zone and a port; a name is refused by its first byte mostly.
    if !(2..=80).contains(&text.len()) {
        return None;
    }
    if !matches!(
        text.as_bytes().first(),
        Some(b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F' | b':' | b'[')
    ) {
        return None;
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let inner = match text.strip_prefix('[') {
        Some(rest) => {
            let (inner, after) = rest.split_once(']')?;
            (after.is_empty() || is_port(after.strip_prefix(':')?)).then_some(inner)?
        }
        None => match text.split_once(':') {
            Some((host, port)) if is_port(port) => host,
            _ => text,
        },
    };
    let inner = inner.split_once('%').map_or(inner, |(address, _)| address);
    inner.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

fn is_port(text: &str) -> bool {
    (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Appends the form of an address's prefix of so many bits.
pub(super) fn push_prefix(address: IpAddr, bits: u8, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(v4) => {
            let host = u32::MAX.checked_shr(u32::from(bits)).unwrap_or(0);
            out.extend_from_slice(&(v4.to_bits() & !host).to_be_bytes());
            out.extend_from_slice(&[bits, V4]);
        }
        IpAddr::V6(v6) => {
            let host = u128::MAX.checked_shr(u32::from(bits)).unwrap_or(0);
            out.extend_from_slice(&(v6.to_bits() & !host).to_be_bytes());
            out.extend_from_slice(&[bits, V6]);
        }
    }
}

/// Appends a domain's name, folded and without a port and the dot at its end; false, and nothing is appended,
/// when the text is none.
pub(super) fn push_name(text: &str, out: &mut Vec<u8>) -> bool {
    let text = match text.rsplit_once(':') {
        Some((name, port)) if is_port(port) => name,
        _ => text,
    };
    let text = text.strip_suffix('.').unwrap_or(text);
    if !(3..=MAX_NAME).contains(&text.len()) {
        return false;
    }
    let start = out.len();
    let (mut label, mut labels, mut digits) = (0usize, 0usize, true);
    for byte in text.bytes() {
        match byte {
            b'.' if label == 0 => {
                out.truncate(start);
                return false;
            }
            b'.' => {
                labels += 1;
                (label, digits) = (0, true);
                out.push(b'.');
                continue;
            }
            b'0'..=b'9' => {}
            b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'_' => digits = false,
            _ => {
                out.truncate(start);
                return false;
            }
        }
        label += 1;
        if label > MAX_LABEL {
            out.truncate(start);
            return false;
        }
        out.push(byte.to_ascii_lowercase());
    }
    if label == 0 || labels == 0 || digits {
        out.truncate(start);
        return false;
    }
    true
}

/// The bytes of a hash: its kind and how many bytes of the buffer it has.
pub(super) fn hash(text: &str) -> Option<(Kind, [u8; 32], usize)> {
    let kind = match text.len() {
        32 => Kind::Md5,
        40 => Kind::Sha1,
        64 => Kind::Sha256,
        _ => return None,
    };
    let mut bytes = [0u8; 32];
    let (pairs, _) = text.as_bytes().as_chunks::<2>();
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = nibble(*high)? << 4 | nibble(*low)?;
    }
    Some((kind, bytes, pairs.len()))
}

fn nibble(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// Appends an e-mail address, folded; answers where its domain begins behind what was there before. Nothing is
/// appended when the text is none.
pub(super) fn push_email(text: &str, out: &mut Vec<u8>) -> Option<usize> {
    let text = match (text.rfind('<'), text.strip_suffix('>')) {
        (Some(at), Some(rest)) => rest.get(at + 1..)?,
        _ => text,
    };
    let text = strip_prefix_folded(text, "mailto:").unwrap_or(text);
    let (local, domain) = text.rsplit_once('@')?;
    let is_local = |byte: u8| byte.is_ascii_graphic() && !b"@<>()[],;:\\\"".contains(&byte);
    if !(1..=MAX_LOCAL).contains(&local.len()) || !local.bytes().all(is_local) {
        return None;
    }
    if domain.contains(':') {
        return None;
    }
    let start = out.len();
    out.extend(local.bytes().map(|byte| byte.to_ascii_lowercase()));
    out.push(b'@');
    if !push_name(domain, out) {
        out.truncate(start);
        return None;
    }
    Some(local.len() + 1)
}

fn strip_prefix_folded<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// The parts of a URL that make a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UrlParts<'t> {
    /// The host without user and port; an IPv6 address without its brackets.
    pub(super) host: &'t str,
    port: Option<&'t str>,
    /// Path and query; empty means `/`.
    rest: &'t str,
}

/// Takes a URL apart; `None` for a text that is none, a path alone among them. The host is not looked at.
pub(super) fn url_parts(text: &str) -> Option<UrlParts<'_>> {
    if !(4..=MAX_URL).contains(&text.len()) || text.bytes().any(|byte| byte <= b' ' || byte == 0x7f)
    {
        return None;
    }
    let after = match text.find("://") {
        Some(at) if is_scheme(text.get(..at)?) => text.get(at + 3..)?,
        _ => text.strip_prefix("//").unwrap_or(text),
    };
    let end = after.find(['/', '?', '#']).unwrap_or(after.len());
    let (authority, rest) = after.split_at_checked(end)?;
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            (host, after.strip_prefix(':'))
        }
        None => match authority.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let port = port.filter(|port| !port.is_empty());
    if host.is_empty() || port.is_some_and(|port| !is_port(port)) {
        return None;
    }
    let rest = rest.split_once('#').map_or(rest, |(rest, _)| rest);
    Some(UrlParts { host, port, rest })
}

fn is_scheme(text: &str) -> bool {
    text.as_bytes().first().is_some_and(u8::is_ascii_alphabetic)
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// Appends the form of a URL without its last byte.
pub(super) fn push_url(parts: &UrlParts<'_>, out: &mut Vec<u8>) {
    match address(parts.host) {
        Some(IpAddr::V4(address)) => out.extend_from_slice(address.to_string().as_bytes()),
        Some(IpAddr::V6(address)) => out.extend_from_slice(format!("[{address}]").as_bytes()),
        None => {
            if !push_name(parts.host, out) {
                out.extend(parts.host.bytes().map(|byte| byte.to_ascii_lowercase()));
            }
        }
    }
    if let Some(port) = parts.port.filter(|port| !matches!(*port, "80" | "443")) {
        out.push(b':');
        out.extend_from_slice(port.as_bytes());
    }
    if !parts.rest.starts_with('/') {
        out.push(b'/');
    }
    out.extend_from_slice(parts.rest.as_bytes());
}

/// Undoes what people do to indicators so that nobody clicks on them: `hxxp://evil[.]example`, `a[at]b`. `None` when
/// it was done twice.
pub(super) fn refanged(text: &str) -> Option<Cow<'_, str>> {
    let Some(once) = without_fangs(text) else { return Some(Cow::Borrowed(text)) };
    without_fangs(&once).is_none().then_some(Cow::Owned(once))
}

/// The text after one pass; `None` where that changes nothing.
fn without_fangs(text: &str) -> Option<String> {
    const FANGS: [(&str, &str); 9] = [
        ("[.]", "."),
        ("(.)", "."),
        ("{.}", "."),
        ("[dot]", "."),
        ("[:]", ":"),
        ("[://]", "://"),
        ("[/]", "/"),
        ("[@]", "@"),
        ("[at]", "@"),
    ];
    // A name may begin so too.
    let scheme = strip_prefix_folded(text, "hxxp")
        .filter(|rest| rest.trim_start_matches(['s', 'S']).starts_with([':', '[']));
    let mut out = scheme.map(|rest| format!("http{rest}"));
    if text.contains(['[', '(', '{']) {
        for (from, to) in FANGS {
            let now = out.as_deref().unwrap_or(text);
            if now.contains(from) {
                out = Some(now.replace(from, to));
            }
        }
    }
    out
}
