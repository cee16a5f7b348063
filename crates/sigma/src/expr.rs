//! The condition of a rule as a tree: what is evaluated.

use crate::field::Field;
use crate::pattern::Pattern;
use crate::regexes::Expression;
use std::net::IpAddr;
use std::sync::Arc;

/// A condition.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Expr {
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Not(Box<Expr>),
    /// At least so many of these.
    AtLeast(usize, Vec<Expr>),
    /// A search identifier, by its name.
    Selection(Arc<str>, Box<Expr>),
    Item(Arc<Item>),
}

/// A test of one field.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Item {
    /// The field; none means that any field of the record may pass the test.
    pub(crate) field: Option<Arc<Field>>,
    pub(crate) test: Test,
    /// The key as the rule writes it.
    pub(crate) key: Arc<str>,
}

/// What a value is asked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Test {
    /// Matches one of these.
    Any(Vec<Pattern>),
    /// There is none.
    Null,
    /// There is one.
    Exists,
    Regex(Expression),
    Cidr(Cidr),
    Compare(Order, f64),
    /// Compared with the value of another field.
    Field {
        other: Arc<Field>,
        how: How,
        cased: bool,
    },
    /// A part of a moment, compared with numbers: any of these.
    Part(Part, Vec<(Order, f64)>),
}

/// How numbers compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Order {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Order {
    pub(crate) fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Self::Equal => left == right,
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
            Self::Greater => left > right,
            Self::GreaterOrEqual => left >= right,
        }
    }
}

/// How texts compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum How {
    Equal,
    StartsWith,
    EndsWith,
    Contains,
}

/// A part of a moment, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    Minute,
    Hour,
    Day,
    /// By ISO 8601.
    Week,
    Month,
    Year,
}

/// A network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Cidr {
    network: IpAddr,
    bits: u8,
}

impl Cidr {
    /// `10.0.0.0/8`, `fe80::/10`, or a single address.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let network: IpAddr = address.trim().parse().ok()?;
        let most = if network.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => bits.trim().parse().ok().filter(|bits| *bits <= most)?,
            None => most,
        };
        Some(Self { network, bits })
    }

    /// Whether a value is an address of this network; an IPv4 address written as IPv6
    /// (`::ffff:10.0.0.1`) is that IPv4 address.
    pub(crate) fn contains(&self, value: &str) -> bool {
        let Ok(address) = value.trim().parse::<IpAddr>() else { return false };
        let inside = |address: IpAddr| match (self.network, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let shift = 32 - u32::from(self.bits);
                let cut = |bits: u32| bits.checked_shr(shift).unwrap_or(0);
                cut(network.to_bits()) == cut(address.to_bits())
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let shift = 128 - u32::from(self.bits);
                let cut = |bits: u128| bits.checked_shr(shift).unwrap_or(0);
                cut(network.to_bits()) == cut(address.to_bits())
            }
            _ => false,
        };
        inside(address) || inside(address.to_canonical())
    }
}

/// A value as a number, if it reads as one.
pub(crate) fn number(value: &str) -> Option<f64> {
    let digits = value.bytes().next()?;
    if !matches!(digits, b'0'..=b'9' | b'-' | b'+' | b'.') {
        return None;
    }
    value.parse().ok()
}

impl Part {
    /// This part of a moment; `None` when the value is none.
    pub(crate) fn of(self, value: &str) -> Option<f64> {
        let micros = match palisade_event::time::parse_number(value) {
            Some(micros) => micros,
            None => palisade_event::time::parse_event_time(value, 0)?,
        };
        let days = micros.div_euclid(86_400_000_000);
        let minute = micros.rem_euclid(86_400_000_000) / 60_000_000;
        let (year, month, day) = civil(days);
        Some(match self {
            Self::Minute => minute % 60,
            Self::Hour => minute / 60,
            Self::Day => day,
            Self::Month => month,
            Self::Year => year,
            Self::Week => {
                // The week of the Thursday of the same week.
                let thursday = days - (days + 3).rem_euclid(7) + 3;
                let (year, ..) = civil(thursday);
                (thursday - days_before(year)) / 7 + 1
            }
        } as f64)
    }
}

/// Year, month and day of a day counted from 1970-01-01 (Howard Hinnant, `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The day on which a year begins, counted from 1970-01-01.
fn days_before(year: i64) -> i64 {
    let years = year - 1;
    years * 365 + years.div_euclid(4) - years.div_euclid(100) + years.div_euclid(400) - 719_162
}

impl Expr {
    /// The fields that are read, each as often as it stands there.
    pub(crate) fn each_field<'a>(&'a self, each: &mut dyn FnMut(&'a Arc<Field>)) {
        match self {
            Self::And(parts) | Self::Or(parts) | Self::AtLeast(_, parts) => {
                parts.iter().for_each(|part| part.each_field(each));
            }
            Self::Not(part) | Self::Selection(_, part) => part.each_field(each),
            Self::Item(item) => {
                item.field.iter().for_each(&mut *each);
                if let Test::Field { other, .. } = &item.test {
                    each(other);
                }
            }
        }
    }

    /// All of these.
    pub(crate) fn all(mut parts: Vec<Self>) -> Self {
        match (parts.len(), parts.pop()) {
            (1, Some(only)) => only,
            (_, Some(last)) => {
                parts.push(last);
                Self::And(parts)
            }
            (_, None) => Self::And(parts),
        }
    }

    /// Any of these.
    pub(crate) fn any(mut parts: Vec<Self>) -> Self {
        match (parts.len(), parts.pop()) {
            (1, Some(only)) => only,
            (_, Some(last)) => {
                parts.push(last);
                Self::Or(parts)
            }
            (_, None) => Self::Or(parts),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_their_addresses() {
        for (network, address, expected) in [
            ("10.0.0.0/8", "10.255.1.2", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("192.168.1.1", "192.168.1.1", true),
            ("192.168.1.1/32", "192.168.1.2", false),
            ("fe80::/10", "febf::1", true),
            ("::/0", "::1", true),
            ("10.0.0.0/8", "::ffff:10.1.1.1", true),
            ("::ffff:0:0/96", "::ffff:10.1.1.1", true),
            ("10.0.0.0/8", "10.0.0", false),
            ("10.0.0.0/8", "", false),
        ] {
            let network = Cidr::parse(network).unwrap();
            assert_eq!(network.contains(address), expected, "{network:?} {address}");
        }
        for wrong in ["10.0.0.0/33", "::/129", "10.0.0/8", "x", "10.0.0.0/-1"] {
            assert_eq!(Cidr::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn moments_have_their_parts() {
        for (moment, part, expected) in [
            ("2024-12-30T23:59:07Z", Part::Week, 1.0),
            ("2021-01-03T00:00:00Z", Part::Week, 53.0),
            ("2026-11-21 22:40:39", Part::Minute, 40.0),
            ("2026-11-21 22:40:39", Part::Hour, 22.0),
            ("2026-11-21 22:40:39", Part::Day, 21.0),
            ("2026-11-21 22:40:39", Part::Month, 11.0),
            ("2024-02-29T00:00:00+02:00", Part::Day, 28.0),
            ("2000-03-01T00:00:00Z", Part::Year, 2000.0),
        ] {
            assert_eq!(part.of(moment), Some(expected), "{moment} {part:?}");
        }
        assert_eq!(Part::Hour.of("soon"), None);
    }
}
