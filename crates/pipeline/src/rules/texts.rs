//! A set of rules as texts, and how the catalog keeps it.
//!
//! A set is a small JSON document under its content hash that names its parts by theirs: the files of the configuration
//! are one part, what was deployed for the installation another, and what each tenant deployed one each. So a tenant that disables a rule adds a
//! few bytes to the catalog and not all texts again.
//!
//! ```json
//! {"files":"<hash>","deployed":{"":"<hash>","acme":"<hash>"},"tenants":{"acme":{"disabled":["id"],"severity":{},"exceptions":{}}}}
//! ```
//! A part is a JSON list of [`RuleFile`]s. Sets of earlier releases have the list itself under `files`.

use crate::control::{ControlError, content_hash};
use palisade_sigma::Level;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Whom the part of the installation's deployed rules belongs to; no tenant is called so.
pub const INSTALLATION: &str = "";

/// A file of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleFile {
    /// Its name, for messages.
    pub name: String,
    /// YAML: rules, filters, correlations.
    pub text: String,
}

/// A named filter that leaves out a tenant's matches of some rules: such a match makes no alert and no correlation counts
/// it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleException {
    /// A Sigma filter: a match stays where its condition holds.
    pub filter: String,
    /// Who made it.
    pub author: String,
    /// Why.
    pub reason: String,
    /// Up to which clock of a record (its `ingest_time`, microseconds since the epoch) it holds; without an end if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
}

/// What a tenant has changed of a set, without touching its texts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantRules {
    /// Ids of rules that match nothing of it, and of correlations that make no alerts for it.
    #[serde(default)]
    pub disabled: BTreeSet<String>,
    /// Severities that differ, by the id of a rule or correlation.
    #[serde(default)]
    pub severity: BTreeMap<String, Level>,
    /// By name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub exceptions: BTreeMap<String, RuleException>,
}

impl TenantRules {
    /// Whether nothing is changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.disabled.is_empty() && self.severity.is_empty() && self.exceptions.is_empty()
    }
}

/// A part of a set: files in their order, and the hash under which the catalog keeps them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Part {
    files: Vec<RuleFile>,
    hash: String,
}

impl Part {
    /// A part of these files.
    ///
    /// # Errors
    /// When it can't be written as JSON (it always can).
    pub fn new(files: Vec<RuleFile>) -> Result<Self, ControlError> {
        if files.is_empty() {
            return Ok(Self::default());
        }
        let hash = content_hash(&json(&files)?);
        Ok(Self { files, hash })
    }

    /// Its files.
    #[must_use]
    pub fn files(&self) -> &[RuleFile] {
        &self.files
    }

    /// The hash of its content; empty where it has no file.
    #[must_use]
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// As the catalog keeps it.
    pub(crate) fn content(&self) -> Result<Vec<u8>, ControlError> {
        Ok(json(&self.files)?.into_bytes())
    }
}

fn json<T: Serialize>(content: &T) -> Result<String, ControlError> {
    serde_json::to_string(content).map_err(|error| ControlError::Damaged(error.to_string()))
}

/// A set of rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleTexts {
    /// The files of the configuration, sorted by name: of two rules with the same id the first stays.
    pub files: Arc<Part>,
    /// What was deployed, by tenant, and for the installation under [`INSTALLATION`]: behind the files.
    pub deployed: BTreeMap<String, Arc<Part>>,
    /// What tenants have changed.
    pub tenants: BTreeMap<String, TenantRules>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Files {
    Kept(String),
    Listed(Vec<RuleFile>),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    files: Files,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    deployed: BTreeMap<String, String>,
    #[serde(default)]
    tenants: BTreeMap<String, TenantRules>,
}

impl RuleTexts {
    /// The set of these files and nothing else.
    ///
    /// # Errors
    /// As [`Part::new`].
    pub fn of_files(files: Vec<RuleFile>) -> Result<Self, ControlError> {
        Ok(Self { files: Arc::new(Part::new(files)?), ..Self::default() })
    }

    /// Whether there is no rule.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts().next().is_none()
    }

    /// The parts that have files, each with its owner: [`INSTALLATION`] or a tenant.
    pub fn parts(&self) -> impl Iterator<Item = (&str, &Arc<Part>)> {
        let deployed = self.deployed.iter().map(|(owner, part)| (owner.as_str(), part));
        let all = std::iter::once((INSTALLATION, &self.files)).chain(deployed);
        all.filter(|(_, part)| !part.files.is_empty())
    }

    /// The hash of what is compiled: sets that differ only in what tenants changed have the same.
    pub(crate) fn texts_hash(&self) -> String {
        let parts: Vec<String> =
            self.parts().map(|(owner, part)| format!("{owner} {}", part.hash)).collect();
        content_hash(&parts.join("\n"))
    }

    /// Its hash and its bytes; the parts have contents of their own.
    ///
    /// # Errors
    /// When it can't be written as JSON (it always can).
    pub fn content(&self) -> Result<(String, Vec<u8>), ControlError> {
        let deployed = self.deployed.iter().filter(|(_, part)| !part.files.is_empty());
        let kept = Kept {
            files: Files::Kept(self.files.hash.clone()),
            deployed: deployed.map(|(owner, part)| (owner.clone(), part.hash.clone())).collect(),
            tenants: self.tenants.clone(),
        };
        let text = json(&kept)?;
        Ok((content_hash(&text), text.into_bytes()))
    }

    /// The set of a content, its parts got by `read`.
    pub(crate) fn restore(
        content: &[u8],
        read: impl Fn(&str) -> Result<Vec<u8>, String>,
    ) -> Result<Self, String> {
        let bad = |error: serde_json::Error| error.to_string();
        let kept: Kept = serde_json::from_slice(content).map_err(bad)?;
        let part = |hash: String| {
            let files = match hash.as_str() {
                "" => Vec::new(),
                hash => serde_json::from_slice(&read(hash)?).map_err(bad)?,
            };
            Ok::<_, String>(Arc::new(Part { files, hash }))
        };
        let files = match kept.files {
            Files::Kept(hash) => part(hash)?,
            Files::Listed(files) => Arc::new(Part::new(files).map_err(|error| error.to_string())?),
        };
        let deployed = kept.deployed.into_iter();
        let deployed: Result<_, String> =
            deployed.map(|(owner, hash)| Ok((owner, part(hash)?))).collect();
        Ok(Self { files, deployed: deployed?, tenants: kept.tenants })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> RuleFile {
        RuleFile { name: name.to_owned(), text: format!("title: {name}") }
    }

    #[test]
    fn a_set_is_restored_from_its_parts() {
        let mut texts = RuleTexts::of_files(vec![file("a"), file("b")]).unwrap();
        let own = Arc::new(Part::new(vec![file("c")]).unwrap());
        texts.deployed.insert("acme".into(), Arc::clone(&own));
        let same = texts.texts_hash();
        texts.tenants.entry("acme".into()).or_default().disabled.insert("x".into());
        assert_eq!(texts.texts_hash(), same);
        let (hash, content) = texts.content().unwrap();
        assert!(content.len() < 300, "the texts stand in the parts");
        let read = |hash: &str| {
            let part = [&texts.files, &own].into_iter().find(|part| part.hash() == hash);
            part.map(|part| part.content().unwrap()).ok_or_else(|| "unknown".to_owned())
        };
        let restored = RuleTexts::restore(&content, read).unwrap();
        assert_eq!(restored, texts);
        assert_eq!(restored.content().unwrap().0, hash);
    }

    /// The form of release 0.2: files in the set itself.
    #[test]
    fn an_older_set_is_read() {
        let old = br#"{"files":[{"name":"a","text":"title: a"}],"tenants":{"acme":{"disabled":["x"],"severity":{"y":"low"}}}}"#;
        let texts = RuleTexts::restore(old, |_| Err("no parts".to_owned())).unwrap();
        assert_eq!(texts.files.files(), [file("a")]);
        assert_eq!(texts.tenants["acme"].severity["y"], Level::Low);
        assert!(texts.tenants["acme"].exceptions.is_empty());
    }
}
