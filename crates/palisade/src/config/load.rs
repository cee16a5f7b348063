//! Loading: file, then environment, then flags; errors name the place and what was meant.

use super::Config;
use super::suggest::hint;
use palisade_api::HostNames;
use palisade_ingest::listener::check_listener;
use palisade_pipeline::indicators::check_name;
use serde_json::{Map, Value};
use std::path::Path;

/// Why a configuration can't be used. Exit code 78.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what each is")]
pub(crate) enum ConfigError {
    #[error("can't read the configuration {path}: {source}")]
    Read { path: String, source: std::io::Error },
    #[error("the configuration {place} is wrong: {reason}{hint}")]
    Wrong { place: String, reason: String, hint: String },
}

/// Loads the configuration: defaults, the file if one is given, the environment.
pub(crate) fn load(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    let mut value = Value::Object(Map::new());
    if let Some(path) = file {
        let place = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: place.clone(), source })?;
        // Typed first, because only then errors carry the line.
        serde_saphyr::from_str::<Config>(&text)
            .map_err(|error| wrong_yaml(&place, &text, &error))?;
        value = serde_saphyr::from_str(&text).map_err(|error| wrong_yaml(&place, &text, &error))?;
    }
    let place = match file {
        Some(path) => format!("{} with the environment", path.display()),
        None => "in the environment".to_owned(),
    };
    overlay(&mut value, environment);
    let config: Config = serde_json::from_value(value.clone()).map_err(|error| {
        let hint = hint(&value, &super::schema());
        ConfigError::Wrong { place: place.clone(), reason: error.to_string(), hint }
    })?;
    check(&config, &place)?;
    Ok(config)
}

/// Puts `PALISADE_SECTION__KEY` variables over a configuration.
fn overlay(value: &mut Value, environment: impl Iterator<Item = (String, String)>) {
    let mut variables: Vec<_> = environment
        .filter_map(|(name, text)| {
            let path = name.strip_prefix("PALISADE_")?.to_ascii_lowercase();
            // Single-word names other than the data directory are switches of the process, not keys.
            (path.contains("__") || path == "data").then_some((path, text))
        })
        .collect();
    variables.sort();
    for (path, text) in variables {
        let new = serde_saphyr::from_str(&text).unwrap_or(Value::String(text));
        put(value, &path.split("__").collect::<Vec<_>>(), new);
    }
}

fn put(at: &mut Value, path: &[&str], new: Value) {
    let Some((first, rest)) = path.split_first() else {
        *at = new;
        return;
    };
    if !at.is_object() {
        *at = Value::Object(Map::new());
    }
    if let Some(object) = at.as_object_mut() {
        put(object.entry((*first).to_owned()).or_insert(Value::Null), rest, new);
    }
}

/// What types alone can't say.
pub(crate) fn check(config: &Config, place: &str) -> Result<(), ConfigError> {
    let wrong = |reason: String| ConfigError::Wrong {
        place: place.to_owned(),
        reason,
        hint: String::new(),
    };
    if !config.http.listen.ip().is_loopback()
        && config.http.tls.is_none()
        && !config.http.allow_plaintext
    {
        return Err(wrong(format!(
            "http.listen {} is not loopback and http.tls is not set: give a certificate, or set http.allow_plaintext, and whoever can read the network can read keys and records",
            config.http.listen
        )));
    }
    if config.log.partitions == 0 || config.log.partitions > 1024 {
        return Err(wrong("log.partitions must be 1 to 1024".into()));
    }
    if !(0.0..=1.0).contains(&config.detect.threshold) {
        return Err(wrong("detect.threshold must be 0 to 1".into()));
    }
    if !(0.0..=1.0).contains(&config.detect.threat_threshold) {
        return Err(wrong("detect.threat_threshold must be 0 to 1".into()));
    }
    let mut names = std::collections::BTreeSet::new();
    for list in &config.detect.indicators {
        if let Err(error) = check_name(&list.name) {
            return Err(wrong(format!("detect.indicators: {error}")));
        }
        if !names.insert(&list.name) {
            return Err(wrong(format!("detect.indicators: two lists are called '{}'", list.name)));
        }
    }
    if let Err(error) = palisade_alert::Plan::check(&config.alerts) {
        return Err(wrong(error.to_string()));
    }
    if let Err(error) = tracing_subscriber::EnvFilter::try_new(&config.logging.level) {
        return Err(wrong(format!(
            "logging.level '{}' is no filter: {error}",
            config.logging.level
        )));
    }
    if let Some(name) = config.http.names.iter().find(|name| !HostNames::is_name(name)) {
        return Err(wrong(format!("http.names: '{name}' is no host name; leave the port out")));
    }
    if config.disk.keep_free_percent > 90 {
        return Err(wrong("disk.keep_free_percent must be 0 to 90".into()));
    }
    if config.limits.decompressed < config.limits.body {
        return Err(wrong("limits.decompressed must not be below limits.body".into()));
    }
    for listener in &config.listeners {
        check_listener(listener).map_err(|error| wrong(error.to_string()))?;
    }
    Ok(())
}

/// An error of the YAML library, with the line and column that it names and a hint from our own schema.
fn wrong_yaml(path: &str, text: &str, error: &serde_saphyr::Error) -> ConfigError {
    let written: Option<Value> = serde_saphyr::from_str(text).ok();
    let place = match error.location() {
        Some(at) => format!("{path}:{}:{}", at.line(), at.column()),
        None => path.to_owned(),
    };
    ConfigError::Wrong {
        place,
        reason: error.to_string(),
        hint: written.map_or_else(String::new, |written| hint(&written, &super::schema())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_text(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("palisade.yaml");
        std::fs::write(&path, text).unwrap();
        let environment = environment.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned()));
        load(Some(&path), environment)
    }

    #[test]
    fn file_then_environment() {
        let config = load_text(
            "http: {listen: '127.0.0.1:1'}\npipeline: {commit_age: 2s}\n",
            &[
                ("PALISADE_HTTP__LISTEN", "127.0.0.1:2"),
                ("PALISADE_DATA", "elsewhere"),
                ("PALISADE_SEEDS", "7"),
            ],
        )
        .unwrap();
        assert_eq!(config.http.listen.port(), 2);
        assert_eq!(config.data.to_str(), Some("elsewhere"));
        assert_eq!(config.pipeline.commit_age.to_string(), "2s");
        assert_eq!(load(None, std::iter::empty()).unwrap(), Config::default());
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_a_suggestion() {
        let error =
            load_text("data: x\nhttp:\n  lissten: 127.0.0.1:1\n", &[]).unwrap_err().to_string();
        assert!(error.contains("lissten") && error.contains("did you mean 'listen'"), "{error}");
        assert!(error.contains("line 3") || error.contains("3:"), "{error}");
        let error = load_text("", &[("PALISADE_HTTP__LISSTEN", "x")]).unwrap_err().to_string();
        assert!(error.contains("did you mean 'listen'"), "{error}");
    }

    #[test]
    fn off_loopback_needs_tls_or_the_flag() {
        let open = "http: {listen: '0.0.0.0:7300'}";
        assert!(load_text(open, &[]).unwrap_err().to_string().contains("allow_plaintext"));
        assert!(load_text(open, &[("PALISADE_HTTP__ALLOW_PLAINTEXT", "true")]).is_ok());
    }
}
