//! Conditions on alerts, as people write them in routes, silences and inhibitions:
//! `severity>=high`, `user=alice`, `tag=~attack\.t1059.*`, `field.Image!~.*\\cmd\.exe`.
//!
//! | operator | meaning |
//! |---|---|
//! | `=`, `!=` | is, is not; capitals do not matter |
//! | `=~`, `!~` | the whole value matches the regular expression, or does not |
//! | `>=`, `<=` | for `severity` only |
//!
//! `tag`, `entity` (user, host or source address) and `field.<name>` have several values: `=` and `=~` ask
//! whether one of them does, `!=` and `!~` whether none does. What an alert lacks is the empty text.

use crate::alert::{Alert, Severity};
use regex::{Regex, RegexBuilder};
use std::fmt;
use std::str::FromStr;

/// The longest condition, in bytes.
const MAX_LENGTH: usize = 1024;
/// The most memory of a compiled regular expression, in bytes.
const MAX_REGEX: usize = 1 << 20;

/// A field of an alert.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "they are called as in the table")]
pub enum Field {
    Severity,
    Detector,
    RuleId,
    Title,
    User,
    Host,
    SrcIp,
    Group,
    Domain,
    Author,
    Tag,
    /// User, host or source address.
    Entity,
    /// What matched under this name.
    Matched(String),
}

impl Field {
    /// The names that can be written.
    pub const NAMES: &'static str = "severity, detector, rule_id, title, user, host, src_ip, group_key, domain, author, tag, entity, field.<name>";

    fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "severity" => Self::Severity,
            "detector" => Self::Detector,
            "rule_id" => Self::RuleId,
            "title" => Self::Title,
            "user" => Self::User,
            "host" => Self::Host,
            "src_ip" => Self::SrcIp,
            "group_key" => Self::Group,
            "domain" => Self::Domain,
            "author" => Self::Author,
            "tag" => Self::Tag,
            "entity" => Self::Entity,
            _ => Self::Matched(name.strip_prefix("field.").filter(|name| !name.is_empty())?.into()),
        })
    }

    /// The values that an alert has there; one empty text when it has none.
    #[must_use]
    pub fn values(&self, alert: &Alert) -> Vec<String> {
        let one = |text: Option<&str>| vec![text.unwrap_or("").to_owned()];
        let mut values = match self {
            Self::Severity => one(Some(alert.severity.as_str())),
            Self::Detector => one(Some(&alert.detector)),
            Self::RuleId => one(Some(&alert.rule_id)),
            Self::Title => one(Some(&alert.title)),
            Self::User => one(alert.user.as_deref()),
            Self::Host => one(alert.host.as_deref()),
            Self::SrcIp => one(alert.src_ip.as_deref()),
            Self::Group => one(Some(alert.group())),
            Self::Domain => one(Some(alert.domain.as_deref().unwrap_or("live"))),
            Self::Author => one(alert.author.as_deref()),
            Self::Tag => alert.tags.clone(),
            Self::Entity => alert.entities().into_iter().map(|entity| entity.name).collect(),
            Self::Matched(name) => alert.matched(name).map(str::to_owned).collect(),
        };
        if values.is_empty() {
            values.push(String::new());
        }
        values
    }
}

impl FromStr for Field {
    type Err = MatcherError;

    fn from_str(text: &str) -> Result<Self, MatcherError> {
        Self::by_name(text.trim()).ok_or_else(|| MatcherError::field(text))
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Severity => "severity",
            Self::Detector => "detector",
            Self::RuleId => "rule_id",
            Self::Title => "title",
            Self::User => "user",
            Self::Host => "host",
            Self::SrcIp => "src_ip",
            Self::Group => "group_key",
            Self::Domain => "domain",
            Self::Author => "author",
            Self::Tag => "tag",
            Self::Entity => "entity",
            Self::Matched(name) => return write!(f, "field.{name}"),
        })
    }
}

/// Why a text is no condition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is no condition: {reason}")]
pub struct MatcherError {
    /// The text, its beginning if it is long.
    pub text: String,
    /// What is wrong and what would be right.
    pub reason: String,
}

impl MatcherError {
    fn new(text: &str, reason: impl Into<String>) -> Self {
        Self { text: text.chars().take(80).collect(), reason: reason.into() }
    }

    fn field(text: &str) -> Self {
        Self::new(text, format!("the field must be one of {}", Field::NAMES))
    }
}

#[derive(Debug, Clone)]
enum Test {
    Is(String),
    Like(Regex),
    AtLeast(Severity),
    AtMost(Severity),
}

/// One condition.
#[derive(Debug, Clone)]
pub struct Matcher {
    text: String,
    field: Field,
    test: Test,
    negated: bool,
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Matcher {
    type Err = MatcherError;

    fn from_str(text: &str) -> Result<Self, MatcherError> {
        if text.len() > MAX_LENGTH {
            return Err(MatcherError::new(text, format!("use at most {MAX_LENGTH} bytes")));
        }
        // Names of fields have none of these characters; values may.
        let at = text.find(['=', '!', '<', '>']).ok_or_else(|| {
            MatcherError::new(text, "write <field><operator><value>, for example severity>=high")
        })?;
        let (name, rest) = text.split_at(at);
        let field: Field = name.parse().map_err(|_| MatcherError::field(text))?;
        let operators = ["=~", "!~", ">=", "<=", "!=", "="];
        let found = operators.into_iter().find_map(|sign| Some((sign, rest.strip_prefix(sign)?)));
        let Some((sign, value)) = found else {
            return Err(MatcherError::new(text, "the operator must be = != =~ !~ >= or <="));
        };
        let value = value.trim();
        let severity = || {
            Severity::by_name(value).ok_or_else(|| {
                let names = Severity::ALL.map(Severity::as_str).join(", ");
                MatcherError::new(text, format!("the severity must be one of {names}"))
            })
        };
        let test = match sign {
            ">=" | "<=" if field != Field::Severity => {
                return Err(MatcherError::new(text, ">= and <= are for severity only"));
            }
            ">=" => Test::AtLeast(severity()?),
            "<=" => Test::AtMost(severity()?),
            "=~" | "!~" => Test::Like(whole(value).map_err(|error| {
                MatcherError::new(text, format!("no regular expression: {error}"))
            })?),
            _ => {
                if field == Field::Severity {
                    severity()?;
                }
                Test::Is(value.to_lowercase())
            }
        };
        let negated = sign.starts_with('!');
        Ok(Self { text: format!("{field}{sign}{value}"), field, test, negated })
    }
}

/// The regular expression that the whole value must match.
fn whole(pattern: &str) -> Result<Regex, regex::Error> {
    let build = |pattern: &str| {
        RegexBuilder::new(pattern).size_limit(MAX_REGEX).case_insensitive(true).build()
    };
    // By itself first: one that closes the group around it would not be anchored.
    build(pattern)?;
    build(&format!("^(?:{pattern})$"))
}

impl Matcher {
    /// Whether an alert fulfils the condition.
    #[must_use]
    pub fn matches(&self, alert: &Alert) -> bool {
        let found = match &self.test {
            Test::AtLeast(least) => alert.severity >= *least,
            Test::AtMost(most) => alert.severity <= *most,
            Test::Is(wanted) => {
                self.field.values(alert).iter().any(|value| value.to_lowercase() == *wanted)
            }
            Test::Like(regex) => self.field.values(alert).iter().any(|value| regex.is_match(value)),
        };
        found != self.negated
    }
}

/// Reads several conditions.
///
/// # Errors
/// The first that is none.
pub fn parse_all<T: AsRef<str>>(texts: &[T]) -> Result<Vec<Matcher>, MatcherError> {
    texts.iter().map(|text| text.as_ref().parse()).collect()
}

/// Whether an alert fulfils all conditions; none is fulfilled by every alert.
#[must_use]
pub fn all(matchers: &[Matcher], alert: &Alert) -> bool {
    matchers.iter().all(|matcher| matcher.matches(alert))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn alert() -> Alert {
        Alert {
            severity: Severity::High,
            user: Some("Alice".into()),
            src_ip: Some("10.0.0.1".into()),
            tags: vec!["attack.t1059.001".into(), "attack.execution".into()],
            fields: vec!["Image=C:\\Windows\\cmd.exe".into(), "CommandLine=a=b".into()],
            ..Alert::default()
        }
    }

    fn holds(text: &str) -> bool {
        text.parse::<Matcher>().unwrap().matches(&alert())
    }

    #[test]
    fn conditions_mean_what_they_say() {
        for text in [
            "severity>=high",
            "severity=high",
            "severity<=critical",
            "user=alice",
            "user!=bob",
            "host=",
            "tag=~attack\\.t1059.*",
            "tag!=attack.t1003",
            "entity=10.0.0.1",
            "field.Image=~.*\\\\cmd\\.exe",
            "field.CommandLine=a=b",
            "domain = live",
        ] {
            assert!(holds(text), "{text}");
        }
        for text in [
            "severity>=critical",
            "user=ali",
            "user=~ali",
            "tag!=attack.execution",
            "tag!~attack\\..*",
            "field.None=x",
            "host!=",
        ] {
            assert!(!holds(text), "{text}");
        }
    }

    #[test]
    fn what_is_no_condition_says_why() {
        for (text, part) in [
            ("severity", "<field>"),
            ("colour=blue", "severity, detector"),
            ("user>=a", "severity only"),
            ("severity>=bad", "informational, low"),
            ("user=~(", "no regular expression"),
            ("user=~a)|(b", "no regular expression"),
            ("user=~(a{1000}){1000}", "no regular expression"),
            ("user<a", "operator"),
            ("field.=a", "severity, detector"),
        ] {
            let error = text.parse::<Matcher>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    /// Texts that come near to conditions.
    fn texts() -> impl Strategy<Value = String> {
        let parts = [
            "user", "severity", "tag", "field.", "Image", "entity", "=", "!", "~", ">", "<", " ",
            "high", "(", ")", "|", ".*", "\\", "ä", "[", "{9}", "alice", "\n", "?",
        ];
        let text = prop::collection::vec(prop::sample::select(parts.to_vec()), 0..10);
        text.prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn any_text_is_a_condition_or_an_error(text in texts()) {
            if let Ok(matcher) = text.parse::<Matcher>() {
                let again: Matcher = matcher.to_string().parse().unwrap();
                prop_assert_eq!(again.matches(&alert()), matcher.matches(&alert()));
            }
        }
    }
}
