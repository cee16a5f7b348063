//! What a loaded rule is.

use crate::expr::Expr;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How bad a match is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Enriches events, no alert.
    Informational,
    /// Notable, rarely an incident.
    Low,
    /// To be reviewed regularly.
    Medium,
    /// To be reviewed promptly.
    High,
    /// An incident.
    Critical,
}

impl Level {
    /// The level of this name, in any case.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::parse(name)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Informational => "informational",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// The score of an alert of this level, 0 to 1, beside the scores of detectors that measure one.
    #[must_use]
    pub fn score(self) -> f32 {
        match self {
            Self::Informational => 0.1,
            Self::Low => 0.3,
            Self::Medium => 0.5,
            Self::High => 0.75,
            Self::Critical => 0.95,
        }
    }

    pub(crate) const NAMES: &'static str = "informational, low, medium, high or critical";

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "informational" => Self::Informational,
            "low" => Self::Low,
            "medium" => Self::Medium,
            "high" => Self::High,
            "critical" => Self::Critical,
            _ => return None,
        })
    }
}

/// How mature a rule is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// For production.
    Stable,
    /// May need adjustments.
    Test,
    /// May give false positives.
    Experimental,
    /// Replaced by another.
    Deprecated,
    /// Can't be used as it is.
    Unsupported,
}

impl Status {
    pub(crate) const NAMES: &'static str = "stable, test, experimental, deprecated or unsupported";

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "stable" => Self::Stable,
            "test" => Self::Test,
            "experimental" => Self::Experimental,
            "deprecated" => Self::Deprecated,
            "unsupported" => Self::Unsupported,
            _ => return None,
        })
    }
}

/// The logs that a rule is meant for. An attribute that is absent says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize)]
pub struct LogSource {
    /// For example `windows`.
    pub product: Option<String>,
    /// For example `process_creation`.
    pub category: Option<String>,
    /// For example `security`.
    pub service: Option<String>,
}

impl LogSource {
    /// Whether whatever is in `other` is in this one too: each attribute that is set here is set
    /// alike there.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let agrees = |a: &Option<String>, b: &Option<String>| a.is_none() || a == b;
        agrees(&self.product, &other.product)
            && agrees(&self.category, &other.category)
            && agrees(&self.service, &other.service)
    }
}

/// A detection rule.
#[derive(Debug, Clone, Serialize)]
pub struct Rule {
    /// The rule's id; where it has none, its version.
    pub id: String,
    /// By which correlations may call it.
    pub name: Option<String>,
    /// The title.
    pub title: String,
    /// The hash of its text and of the filters applied to it, 32 hexadecimal digits.
    pub version: String,
    /// Absent in the rule means medium.
    pub level: Level,
    /// How mature it is.
    pub status: Option<Status>,
    /// ATT&CK techniques and others, as written.
    pub tags: Vec<String>,
    /// Who wrote it; named in alerts, as the Detection Rule Licence asks for.
    pub author: Option<String>,
    /// The rule's licence, else the one that the loader was given for its files.
    pub license: Option<String>,
    /// What it is about.
    pub description: Option<String>,
    /// Where it comes from.
    pub references: Vec<String>,
    /// The logs that it is meant for.
    pub source: LogSource,
    /// Fields that help an analyst.
    pub fields: Vec<String>,
    /// Known false positives.
    pub falsepositives: Vec<String>,
    /// The titles of the filters that were applied to it.
    pub filters: Vec<String>,
    /// The tenant whose rule it is, on whose records alone it is tried; none for the installation's.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_optional_text")]
    pub owner: Option<Arc<str>>,
    /// The file that it stands in.
    #[serde(serialize_with = "as_text")]
    pub file: Arc<str>,
    /// The line at which its document begins.
    pub line: u64,
    #[serde(skip)]
    pub(crate) condition: Expr,
}

fn as_text<S: serde::Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

fn as_optional_text<S: serde::Serializer>(
    text: &Option<Arc<str>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match text {
        Some(text) => serializer.serialize_some(&**text),
        None => serializer.serialize_none(),
    }
}

impl Rule {
    /// The names of all fields that the rule's condition reads, sorted.
    #[must_use]
    pub fn reads(&self) -> Vec<&str> {
        let mut names = Vec::new();
        self.condition.each_field(&mut |field| names.push(&*field.name));
        names.sort_unstable();
        names.dedup();
        names
    }
}
