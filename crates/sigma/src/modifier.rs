//! The modifiers of a field: which there are, which go together, and what the encoding ones make of
//! a value.

use crate::error::{Checked, Fault};
use crate::expr::{Order, Part};
use crate::pattern::{self, DASHES};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A modifier that changes values, in the order in which the rule has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transform {
    Base64,
    Base64Offset,
    Utf16Le,
    Utf16Be,
    /// With a byte order mark.
    Utf16,
    Windash,
    Expand,
    Contains,
    StartsWith,
    EndsWith,
}

/// How values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    Match,
    Regex,
    Cidr,
    Exists,
    FieldRef,
    Compare(Order),
}

/// The modifiers of a field.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Modifiers {
    pub(crate) transforms: Vec<Transform>,
    pub(crate) operator: Operator,
    pub(crate) part: Option<Part>,
    pub(crate) all: bool,
    pub(crate) cased: bool,
    pub(crate) neq: bool,
    pub(crate) flags: crate::regexes::Flags,
}

impl PartialEq for crate::regexes::Flags {
    fn eq(&self, other: &Self) -> bool {
        (self.insensitive, self.multi_line, self.dot_all)
            == (other.insensitive, other.multi_line, other.dot_all)
    }
}

const KNOWN: &str = "known are contains, startswith, endswith, all, re, i, m, s, cidr, base64, base64offset, wide, utf16, utf16le, utf16be, windash, cased, exists, fieldref, gt, gte, lt, lte, neq, expand, minute, hour, day, week, month, year";

impl Modifiers {
    pub(crate) fn parse(names: &[&str], line: u64) -> Checked<Self> {
        let mut modifiers = Self {
            transforms: Vec::new(),
            operator: Operator::Match,
            part: None,
            all: false,
            cased: false,
            neq: false,
            flags: crate::regexes::Flags::default(),
        };
        let mut flag = None;
        for name in names {
            let transform = match *name {
                "base64" => Transform::Base64,
                "base64offset" => Transform::Base64Offset,
                "wide" | "utf16le" => Transform::Utf16Le,
                "utf16be" => Transform::Utf16Be,
                "utf16" => Transform::Utf16,
                "windash" => Transform::Windash,
                "expand" => Transform::Expand,
                "contains" => Transform::Contains,
                "startswith" => Transform::StartsWith,
                "endswith" => Transform::EndsWith,
                other => {
                    modifiers.set(other, line)?;
                    if matches!(other, "i" | "m" | "s" | "ignorecase" | "multiline" | "dotall") {
                        flag = Some(other.to_owned());
                    }
                    continue;
                }
            };
            modifiers.transforms.push(transform);
        }
        if let Some(flag) = flag
            && modifiers.operator != Operator::Regex
        {
            return Err(Fault::new(
                line,
                format!("modifier `{flag}` without `re`"),
                "write `|re|i`, or leave it out: other values are compared without case",
            ));
        }
        modifiers.check(line)?;
        Ok(modifiers)
    }

    fn set(&mut self, name: &str, line: u64) -> Checked<()> {
        let operator = match name {
            "all" => {
                self.all = true;
                return Ok(());
            }
            "cased" => {
                self.cased = true;
                return Ok(());
            }
            "neq" => {
                self.neq = true;
                return Ok(());
            }
            "i" | "ignorecase" => {
                self.flags.insensitive = true;
                return Ok(());
            }
            "m" | "multiline" => {
                self.flags.multi_line = true;
                return Ok(());
            }
            "s" | "dotall" => {
                self.flags.dot_all = true;
                return Ok(());
            }
            "minute" | "hour" | "day" | "week" | "month" | "year" => {
                if self.part.is_some() {
                    return Err(Fault::new(
                        line,
                        "two parts of a moment on one field",
                        "use one of minute, hour, day, week, month, year",
                    ));
                }
                self.part = Some(match name {
                    "minute" => Part::Minute,
                    "hour" => Part::Hour,
                    "day" => Part::Day,
                    "week" => Part::Week,
                    "month" => Part::Month,
                    _ => Part::Year,
                });
                return Ok(());
            }
            "re" => Operator::Regex,
            "cidr" => Operator::Cidr,
            "exists" => Operator::Exists,
            "fieldref" => Operator::FieldRef,
            "gt" => Operator::Compare(Order::Greater),
            "gte" => Operator::Compare(Order::GreaterOrEqual),
            "lt" => Operator::Compare(Order::Less),
            "lte" => Operator::Compare(Order::LessOrEqual),
            "not" => {
                return Err(Fault::new(
                    line,
                    "`not` is no modifier",
                    "negate in the condition, or use `neq`",
                ));
            }
            unknown => {
                return Err(Fault::new(line, format!("unknown modifier `{unknown}`"), KNOWN));
            }
        };
        if self.operator != Operator::Match {
            return Err(Fault::new(
                line,
                format!("modifier `{name}` after another that says how values compare"),
                "use one of re, cidr, exists, fieldref, gt, gte, lt, lte",
            ));
        }
        self.operator = operator;
        Ok(())
    }

    fn check(&self, line: u64) -> Checked<()> {
        let places = self
            .transforms
            .iter()
            .filter(|t| {
                matches!(t, Transform::Contains | Transform::StartsWith | Transform::EndsWith)
            })
            .count();
        let encodes = self.transforms.len() > places;
        let fault = |reason: &str, hint: &str| Err(Fault::new(line, reason, hint));
        if places > 1 {
            return fault(
                "more than one of contains, startswith, endswith",
                "keep one of them; use wildcards for anything else",
            );
        }
        let allowed = match self.operator {
            Operator::Match => true,
            Operator::FieldRef => !encodes,
            _ => self.transforms.is_empty(),
        };
        if !allowed {
            return fault(
                "modifiers that contradict each other",
                "contains, startswith, endswith and the encodings work on texts, not with re, cidr, exists or numbers",
            );
        }
        if self.part.is_some()
            && (!self.transforms.is_empty()
                || !matches!(self.operator, Operator::Match | Operator::Compare(_)))
        {
            return fault(
                "a part of a moment can only be compared with numbers",
                "write `field|hour: 3` or `field|hour|gte: 18`",
            );
        }
        if self.operator == Operator::Exists && (self.all || self.cased || self.neq) {
            return fault("`exists` goes with no other modifier", "write `field|exists: true`");
        }
        Ok(())
    }
}

/// What of a value there can be: texts that stand for it. `line` is for faults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Encoded {
    /// As the rule writes it, wildcards included.
    Written(Vec<pattern::Part>),
    /// Bytes, not yet a text.
    Bytes(Vec<u8>),
}

impl Encoded {
    /// The bytes of a value without wildcards.
    fn bytes(self, what: &str, line: u64) -> Checked<Vec<u8>> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Written(parts) => {
                let mut bytes = Vec::new();
                for part in parts {
                    match part {
                        pattern::Part::Text(text) => bytes.extend_from_slice(text.as_bytes()),
                        _ => {
                            return Err(Fault::new(
                                line,
                                format!("`{what}` of a value with wildcards"),
                                "put a backslash before * and ?, and contains, startswith or endswith behind the encoding",
                            ));
                        }
                    }
                }
                Ok(bytes)
            }
        }
    }

    /// What this encoding makes of the value: one or several.
    pub(crate) fn encode(self, transform: Transform, line: u64) -> Checked<Vec<Self>> {
        let text = |text: String| Self::Written(vec![pattern::Part::Text(text)]);
        let wide = |this: Self, what: &str, bytes: fn(u16) -> [u8; 2], mark: bool| {
            let plain = this.bytes(what, line)?;
            let plain = String::from_utf8_lossy(&plain).into_owned();
            let mark = if mark { Some(0xfeff) } else { None };
            Ok(vec![Self::Bytes(
                mark.into_iter().chain(plain.encode_utf16()).flat_map(bytes).collect(),
            )])
        };
        match transform {
            Transform::Base64 => Ok(vec![text(STANDARD.encode(self.bytes("base64", line)?))]),
            Transform::Base64Offset => {
                Ok(offsets(&self.bytes("base64offset", line)?).into_iter().map(text).collect())
            }
            Transform::Utf16Le => wide(self, "utf16le", u16::to_le_bytes, false),
            Transform::Utf16Be => wide(self, "utf16be", u16::to_be_bytes, false),
            Transform::Utf16 => wide(self, "utf16", u16::to_le_bytes, true),
            Transform::Windash => Ok(vec![self.windash(line)?]),
            _ => Ok(vec![self]),
        }
    }

    fn windash(self, line: u64) -> Checked<Self> {
        let parts = match self {
            Self::Written(parts) => parts,
            bytes @ Self::Bytes(_) => bytes.written(line)?,
        };
        let mut dashed = Vec::new();
        for part in parts {
            let pattern::Part::Text(text) = part else {
                dashed.push(part);
                continue;
            };
            let mut plain = String::new();
            for character in text.chars() {
                if DASHES.contains(&character) {
                    dashed.push(pattern::Part::Text(std::mem::take(&mut plain)));
                    dashed.push(pattern::Part::Dash);
                } else {
                    plain.push(character);
                }
            }
            dashed.push(pattern::Part::Text(plain));
        }
        Ok(Self::Written(dashed))
    }

    /// The value as a text with wildcards.
    pub(crate) fn written(self, line: u64) -> Checked<Vec<pattern::Part>> {
        match self {
            Self::Written(parts) => Ok(parts),
            Self::Bytes(bytes) => match String::from_utf8(bytes) {
                Ok(text) => Ok(vec![pattern::Part::Text(text)]),
                Err(_) => Err(Fault::new(
                    line,
                    "an encoded value that is no text",
                    "put base64 or base64offset behind the UTF-16 modifier",
                )),
            },
        }
    }
}

/// The part of the base64 form that does not depend on what stands around a value, for each of the
/// three places that it can have in a group of three bytes.
fn offsets(bytes: &[u8]) -> Vec<String> {
    /// Characters that also carry bits of what stands before.
    const START: [usize; 3] = [0, 2, 3];
    /// By the length modulo three: characters at the end that also carry what follows.
    const END: [usize; 3] = [0, 3, 2];
    (0..3)
        .map(|offset| {
            let mut shifted = vec![b' '; offset];
            shifted.extend_from_slice(bytes);
            let encoded = STANDARD.encode(&shifted);
            let start = START.get(offset).copied().unwrap_or(0);
            let end = END.get(shifted.len() % 3).copied().unwrap_or(0);
            encoded.get(start..encoded.len().saturating_sub(end)).unwrap_or_default().to_owned()
        })
        .filter(|text| !text.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn the_three_offsets_are_found_wherever_the_value_stands() {
        for before in 0..6 {
            for after in 0..6 {
                let text = format!("{}foobar{}", "x".repeat(before), "y".repeat(after));
                let encoded = STANDARD.encode(text);
                assert!(offsets(b"foobar").iter().any(|part| encoded.contains(part)), "{encoded}");
            }
        }
        assert_eq!(offsets(b"foobar"), ["Zm9vYmFy", "Zvb2Jhc", "mb29iYX"]);
    }

    #[test]
    fn encodings_follow_each_other() {
        let value = Encoded::Written(vec![pattern::Part::Text("cmd".into())]);
        let wide = value.clone().encode(Transform::Utf16Le, 0).unwrap().remove(0);
        assert_eq!(wide, Encoded::Bytes(b"c\0m\0d\0".to_vec()));
        let base = wide.encode(Transform::Base64, 0).unwrap().remove(0).written(0).unwrap();
        assert_eq!(base, [pattern::Part::Text("YwBtAGQA".into())]);
        let marked = value.clone().encode(Transform::Utf16, 0).unwrap().remove(0);
        assert_eq!(marked, Encoded::Bytes(b"\xff\xfec\0m\0d\0".to_vec()));
        assert!(marked.written(3).is_err());
        let big = value.encode(Transform::Utf16Be, 0).unwrap().remove(0);
        assert_eq!(big, Encoded::Bytes(b"\0c\0m\0d".to_vec()));
    }

    #[test]
    fn modifiers_that_contradict_each_other_are_refused() {
        for wrong in [
            &["contains", "startswith"][..],
            &["re", "contains"],
            &["cidr", "re"],
            &["i"],
            &["exists", "all"],
            &["hour", "contains"],
            &["hour", "day"],
            &["gt", "base64"],
            &["unheard"],
            &["not"],
        ] {
            let fault = Modifiers::parse(wrong, 5).unwrap_err();
            assert_eq!((fault.kind, fault.line), (Kind::Refused, Some(5)), "{wrong:?}");
        }
        let right = Modifiers::parse(&["wide", "base64offset", "contains", "all"], 5).unwrap();
        assert_eq!(
            right.transforms,
            [Transform::Utf16Le, Transform::Base64Offset, Transform::Contains]
        );
        assert!(right.all);
    }
}
