//! Rule files on disk: found below the configured paths, read whole, put in force when they change.

use crate::config::Config;
use crate::server::Failure;
use palisade_catalog::Catalog;
use palisade_pipeline::rules::deploy::Deployer;
use palisade_pipeline::rules::{Books, RuleFile, RuleTexts, Rules};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

/// Bytes of all rule files together: a set is kept in one piece by the catalog, which takes 64 MiB.
const MAX_BYTES: u64 = 48 << 20;
/// Directories below each other.
const MAX_DEPTH: usize = 32;

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
pub(crate) fn read_files(found: &[Found]) -> Result<Vec<RuleFile>, Failure> {
    let mut files = Vec::with_capacity(found.len());
    for file in found {
        let bytes = std::fs::read(&file.path)
            .map_err(|error| format!("can't read rules at {}: {error}", file.path.display()))?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        files.push(RuleFile { name: file.path.display().to_string(), text });
    }
    Ok(files)
}

/// The set of these rule files.
pub(crate) fn read(found: &[Found]) -> Result<RuleTexts, Failure> {
    Ok(RuleTexts::of_files(read_files(found)?)?)
}

/// Reads and compiles the rules at these paths.
pub(crate) fn load(paths: &[PathBuf]) -> Result<Rules, Failure> {
    Ok(Rules::compile(read(&find(paths)?)?))
}

/// The sets of rules that the catalog keeps.
pub(crate) fn books(catalog: &Catalog, runtime: &tokio::runtime::Handle) -> Books {
    let (catalog, runtime) = (catalog.clone(), runtime.clone());
    Books::new(move |hash| {
        runtime.block_on(catalog.content(hash)).map_err(|error| error.to_string())
    })
}

/// Notes the intent that the rules at the configured paths, with all that was deployed and changed, are in force; the
/// caller settles it. They are compiled before, so that nobody waits for that when they come into force. Answers how they
/// were found.
pub(crate) async fn intend(deployer: &Deployer, config: &Config) -> Result<Vec<Found>, Failure> {
    let begun = Instant::now();
    let found = find(&config.detect.rules)?;
    let current = deployer.set_files(read_files(&found)?).await?;
    if let Some(rules) = &current.rules {
        let refused = rules.book.refused();
        for refusal in refused.iter().take(20) {
            tracing::warn!(%refusal, "a rule is not loaded");
        }
        tracing::info!(
            rules = rules.book.rules().count(),
            correlations = rules.book.correlations().len(),
            refused = refused.len(),
            milliseconds = begun.elapsed().as_millis() as u64,
            "rules read; `palisade rule lint` names all that are refused"
        );
    }
    Ok(found)
}
