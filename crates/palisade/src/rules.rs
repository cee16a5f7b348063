//! Rule files on disk: found below the configured paths, read whole, put in force when they change.

use crate::config::Config;
use crate::server::Failure;
use palisade_catalog::Catalog;
use palisade_pipeline::activate::Activator;
use palisade_pipeline::control::RULES;
use palisade_pipeline::rules::{Books, RuleFile, RuleTexts, Rules, TenantRules};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// Bytes of all rule files together: a set is kept in one piece by the catalog, which takes 64 MiB.
const MAX_BYTES: u64 = 48 << 20;
/// Directories below each other.
const MAX_DEPTH: usize = 32;
/// The kind under which the catalog keeps what tenants have changed.
const TENANT_RULES: &str = "tenant_rules";

/// A rule file, and how it was at a look.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Found {
    path: PathBuf,
    bytes: u64,
    changed: Option<SystemTime>,
}

/// The rule files (`.yml`, `.yaml`) at and below these paths, sorted.
pub(crate) fn find(paths: &[PathBuf]) -> Result<Vec<Found>, Failure> {
    let mut found = Vec::new();
    for path in paths {
        walk(path, true, 0, &mut found)?;
    }
    found.sort();
    found.dedup();
    let bytes: u64 = found.iter().map(|file| file.bytes).sum();
    if bytes > MAX_BYTES {
        return Err(format!(
            "the rule files have {bytes} bytes together, at most {MAX_BYTES} are read: name fewer directories"
        )
        .into());
    }
    Ok(found)
}

fn walk(path: &Path, named: bool, depth: usize, found: &mut Vec<Found>) -> Result<(), Failure> {
    let cant = |error: std::io::Error| format!("can't read rules at {}: {error}", path.display());
    let about = std::fs::metadata(path).map_err(cant)?;
    if about.is_dir() {
        if depth >= MAX_DEPTH {
            return Err(format!("{}: directories too deep below each other", path.display()).into());
        }
        for entry in std::fs::read_dir(path).map_err(cant)? {
            walk(&entry.map_err(cant)?.path(), false, depth + 1, found)?;
        }
        return Ok(());
    }
    let is_yaml = path.extension().is_some_and(|end| end == "yml" || end == "yaml");
    // Tests of rules stand beside them and are none.
    let is_test = path.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with(".test"));
    if named || is_yaml && !is_test {
        found.push(Found {
            path: path.to_owned(),
            bytes: about.len(),
            changed: about.modified().ok(),
        });
    }
    Ok(())
}

/// The texts of rule files. What is no UTF-8 becomes a text that is refused by name.
pub(crate) fn read(found: &[Found]) -> Result<RuleTexts, Failure> {
    let mut files = Vec::with_capacity(found.len());
    for file in found {
        let bytes = std::fs::read(&file.path)
            .map_err(|error| format!("can't read rules at {}: {error}", file.path.display()))?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        files.push(RuleFile { name: file.path.display().to_string(), text });
    }
    Ok(RuleTexts { files, tenants: BTreeMap::new() })
}

/// Reads and compiles the rules at these paths.
pub(crate) fn load(paths: &[PathBuf]) -> Result<Rules, Failure> {
    Ok(Rules::compile(read(&find(paths)?)?))
}

/// What tenants have changed.
async fn of_tenants(catalog: &Catalog) -> Result<BTreeMap<String, TenantRules>, Failure> {
    let mut tenants = BTreeMap::new();
    for active in catalog.active(TENANT_RULES).await? {
        let content = active.content.unwrap_or_default();
        tenants.insert(active.name, serde_json::from_slice(&content)?);
    }
    Ok(tenants)
}

/// Notes the intent that the rules at the configured paths are in force; the caller settles it. They are compiled
/// before, so that nobody waits for that when they come into force. Answers how they were found.
pub(crate) async fn intend(
    activator: &Activator,
    books: &Arc<Books>,
    catalog: &Catalog,
    config: &Config,
) -> Result<Vec<Found>, Failure> {
    let found = find(&config.detect.rules)?;
    let mut texts = read(&found)?;
    texts.tenants = of_tenants(catalog).await?;
    if !texts.is_empty() {
        let (hash, _) = texts.content()?;
        let compiled = texts.clone();
        let rules = tokio::task::spawn_blocking(move || Rules::compile(compiled)).await?;
        let refused = rules.book.refused();
        for refusal in refused.iter().take(20) {
            tracing::warn!(%refusal, "a rule is not loaded");
        }
        tracing::info!(
            rules = rules.book.rules().count(),
            correlations = rules.book.correlations().len(),
            refused = refused.len(),
            "rules read; `palisade rule lint` names all that are refused"
        );
        books.keep(&hash, Arc::new(rules));
    }
    // Where there never were any, there is nothing to take out of force.
    if !texts.is_empty() || !catalog.active(RULES).await?.is_empty() {
        activator.rules(&texts, None).await?;
    }
    Ok(found)
}
