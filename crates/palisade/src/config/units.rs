//! Sizes and durations as people write them: `256MiB`, `5s`.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// A number of bytes, written `512`, `64KiB`, `256MiB`, `2GiB` or `1TiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Size(pub(crate) u64);

/// A span of time, written `250ms`, `5s`, `10m`, `24h` or `30d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span(pub(crate) Duration);

const SIZES: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("", 1)];
const SPANS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

impl Size {
    /// The bytes as a `usize`.
    pub(crate) fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fitting =
            SIZES.iter().find(|(_, factor)| self.0.is_multiple_of(*factor) && self.0 >= *factor);
        let (unit, factor) = fitting.copied().unwrap_or(("", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        let fitting = SPANS
            .iter()
            .rev()
            .find(|(_, factor)| millis.is_multiple_of(*factor) && millis >= *factor);
        let (unit, factor) = fitting.copied().unwrap_or(("ms", 1));
        write!(f, "{}{unit}", millis / factor)
    }
}

macro_rules! as_text {
    ($type:ident, $parse:expr, $pattern:literal, $help:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl de::Visitor<'_> for Visitor {
                    type Value = $type;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($help)
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$type, E> {
                        $parse(text)
                            .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
                    }

                    fn visit_u64<E: de::Error>(self, number: u64) -> Result<$type, E> {
                        self.visit_str(&number.to_string())
                    }

                    fn visit_i64<E: de::Error>(self, number: i64) -> Result<$type, E> {
                        self.visit_str(&number.to_string())
                    }
                }
                deserializer.deserialize_any(Visitor)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": ["string", "integer"], "pattern": $pattern, "description": $help
                })
            }
        }
    };
}

as_text!(
    Size,
    |text: &str| parse(text, &SIZES).map(Size),
    "^[0-9]+(KiB|MiB|GiB|TiB)?$",
    "a size such as 512, 64KiB, 256MiB or 2GiB"
);
as_text!(
    Span,
    |text: &str| parse(text, &SPANS).map(|millis| Span(Duration::from_millis(millis))),
    "^[0-9]+(ms|s|m|h|d)$",
    "a duration such as 250ms, 5s, 10m, 24h or 30d"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_the_same() {
        for text in ["\"512\"", "\"64KiB\"", "\"3MiB\"", "\"2GiB\"", "\"0\""] {
            let size: Size = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&size).unwrap(), text);
        }
        for text in ["\"250ms\"", "\"5s\"", "\"10m\"", "\"36h\"", "\"30d\""] {
            let span: Span = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&span).unwrap(), text);
        }
        for bad in ["\"5 parsecs\"", "\"-1\"", "\"99999999999TiB\"", "\"\""] {
            assert!(serde_json::from_str::<Size>(bad).is_err(), "{bad}");
            assert!(serde_json::from_str::<Span>(bad).is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<Span>("\"5\"").is_err(), "a bare number has no unit");
    }
}
