//! Which columns are looked at, and for what: told by their names alone. `docs/indicators.md` has the same as a
//! table.
//!
//! A column that is looked at in vain costs time and finds nothing wrong: what a value is decides its own form.

use super::Kind;
use palisade_event::schema::Core;

/// What a column is looked at for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Looks(u8);

impl Looks {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Addresses and names of hosts.
    pub const PLACES: Self = Self(1);
    /// URLs, and the hosts in them.
    pub const URLS: Self = Self(2);
    /// Hashes.
    pub const HASHES: Self = Self(4);
    /// E-mail addresses, and the domains in them.
    pub const EMAILS: Self = Self(8);

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether nothing is looked for.
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Whether something of the other is looked for too.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The kinds that can be found in such a column.
    pub(super) fn kinds(self) -> u16 {
        let names = Kind::Domain.bit() | Kind::Hostname.bit();
        let places = names | Kind::Address.bit() | Kind::Network.bit();
        let mut kinds = 0;
        for (look, of) in [
            (Self::PLACES, places),
            (Self::URLS, places | Kind::Url.bit()),
            (Self::HASHES, Kind::Md5.bit() | Kind::Sha1.bit() | Kind::Sha256.bit()),
            (Self::EMAILS, names | Kind::Email.bit()),
        ] {
            if self.has(look) {
                kinds |= of;
            }
        }
        kinds
    }
}

/// Ends of names of columns that hold addresses or names of hosts.
const PLACES: [&str; 21] = [
    "ip",
    "ips",
    "ipv4",
    "ipv6",
    "ipaddr",
    "ipaddress",
    "addr",
    "address",
    "addresses",
    "forwardedfor",
    "domain",
    "domains",
    "host",
    "hostname",
    "fqdn",
    "servername",
    "sni",
    "query",
    "queryname",
    "queryresults",
    "rrname",
];
/// Of URLs.
const URLS: [&str; 6] = ["url", "uri", "urlstring", "link", "referer", "referrer"];
/// Of hashes.
const HASHES: [&str; 6] = ["md5", "sha1", "sha256", "hash", "hashes", "fingerprint"];
/// Hashes of something else than a file's bytes.
const OTHER_HASHES: [&str; 4] = ["imphash", "ja3hash", "ja3shash", "passwordhash"];
/// Of e-mail addresses.
const EMAILS: [&str; 9] = [
    "email",
    "emails",
    "mail",
    "sender",
    "recipient",
    "recipients",
    "mailfrom",
    "rcptto",
    "userprincipalname",
];
/// Last parts of names that hold e-mail addresses below `email` and `mail`.
const IN_EMAILS: [&str; 7] = ["from", "to", "cc", "bcc", "replyto", "address", "addresses"];
/// Last parts of names that hold names of hosts below `dns`.
const IN_DNS: [&str; 7] = ["name", "data", "rdata", "answer", "answers", "question", "ttldata"];

/// What the column of this name is looked at for.
#[must_use]
pub fn looks(name: &str) -> Looks {
    if let Some(core) = Core::by_name(name) {
        return match core {
            Core::SrcIp | Core::DstIp | Core::Host => Looks::PLACES,
            Core::Url => Looks::URLS,
            Core::User => Looks::EMAILS,
            _ => Looks::NONE,
        };
    }
    // Names are as long as senders make them.
    if name.len() > 256 {
        return Looks::NONE;
    }
    let folded: String = name
        .chars()
        .filter(|c| !matches!(c, '_' | '-' | ' ' | '@' | '#'))
        .map(|c| c.to_ascii_lowercase())
        .collect();
    let (above, last) = folded.rsplit_once('.').unwrap_or(("", &folded));
    let ends = |ends: &[&str]| ends.iter().any(|end| last.ends_with(end));
    let below = |part: &str| above.split('.').any(|above| above.starts_with(part));
    let mut found = Looks::NONE;
    if ends(&PLACES) || below("dns") && IN_DNS.contains(&last) {
        found = found.and(Looks::PLACES);
    }
    if ends(&URLS) {
        found = found.and(Looks::URLS);
    }
    let is_value = matches!(last, "value" | "values");
    if ends(&HASHES) && !OTHER_HASHES.contains(&last)
        || is_value && (below("hash") || below("fingerprint"))
    {
        found = found.and(Looks::HASHES);
    }
    if ends(&EMAILS) || (below("email") || below("mail")) && IN_EMAILS.contains(&last) {
        found = found.and(Looks::EMAILS);
    }
    found
}
