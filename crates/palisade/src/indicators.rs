//! Files of indicators: read whole, put in force when they change.

use crate::config::{Config, IndicatorLevel};
use crate::server::Failure;
use palisade_detect::indicators::{LIMITS, Level};
use palisade_pipeline::indicators::{Configured, Watchlists};
use std::path::Path;

/// The level by its name in the configuration.
pub(crate) fn level(level: IndicatorLevel) -> Level {
    match level {
        IndicatorLevel::Informational => Level::Informational,
        IndicatorLevel::Low => Level::Low,
        IndicatorLevel::Medium => Level::Medium,
        IndicatorLevel::High => Level::High,
        IndicatorLevel::Critical => Level::Critical,
    }
}

/// Reads a file of indicators.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let shown = path.display();
    let cant = |error: std::io::Error| format!("can't read the indicators at {shown}: {error}");
    let bytes = std::fs::metadata(path).map_err(cant)?.len();
    if bytes > LIMITS.file_bytes as u64 {
        let most = LIMITS.file_bytes;
        return Err(format!(
            "{shown} has {bytes} bytes, at most {most} are read: split it into several lists"
        )
        .into());
    }
    Ok(std::fs::read(path).map_err(cant)?)
}

/// Notes the intent that the configured lists are in force; the caller settles it. They are read and made ready before,
/// so that nobody waits for that when they come into force.
pub(crate) async fn intend(watchlists: &Watchlists, config: &Config) -> Result<(), Failure> {
    let mut lists = Vec::with_capacity(config.detect.indicators.len());
    for list in &config.detect.indicators {
        let (name, bytes) = (list.name.clone(), read(&list.file)?);
        lists.push(Configured { name, level: level(list.level), bytes });
    }
    Ok(watchlists.configure(lists).await?)
}
