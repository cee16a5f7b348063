//! Hot reload: the configuration file and the lists are looked at every second, and at SIGHUP.
//!
//! A file that is wrong changes nothing. Of one that is right, what can change at runtime does
//! ([`LIVE`]); what can't is named in the log and keeps its value until the next start. The detectors' settings
//! change through a control record (C1): the intent is in the catalog before anything else is applied, and the
//! record is appended again until it is durable.

use crate::config::{self, BaselineMode, Config, ListKind};
use crate::indicators;
use crate::local::CommandKey;
use crate::maintenance::Keep;
use crate::rules::{self, Found};
use crate::server::Failure;
use arc_swap::ArcSwap;
use palisade_api::{ConfigStatus, HostNames, ReloadError};
use palisade_catalog::{AuditRecord, Catalog};
use palisade_detect::baseline::Mode;
use palisade_detect::reputation::{self, List, ListSpec, Lists};
use palisade_event::TenantId;
use palisade_event::decode::DecodeLimits;
use palisade_event::schema::{ALERTS, DEAD_LETTERS, EVENTS};
use palisade_ingest::body::BodyLimits;
use palisade_ingest::gateway::Gateway;
use palisade_ingest::http::HttpDoors;
use palisade_pipeline::activate::Activator;
use palisade_pipeline::clock::Clock;
use palisade_pipeline::control::DetectorSettings;
use palisade_pipeline::indicators::Watchlists;
use palisade_pipeline::rules::deploy::Deployer;
use palisade_query::Limits;
use palisade_table::{RetentionRule, Tables};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio_util::sync::CancellationToken;

/// Keys, and sections with a dot behind, that take effect while the process runs.
const LIVE: [&str; 12] = [
    "detect.",
    "table.",
    "limits.body",
    "limits.decompressed",
    "limits.record",
    "limits.depth",
    "limits.keys",
    "limits.dynamic_columns",
    "limits.waiting",
    "query.time",
    "query.rows",
    "http.names",
];
/// The level of the process's log; only where the process can change it.
const LEVEL: &str = "logging.level";
/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Sets the level of the process's log; the error says why not.
pub(crate) type SetLevel = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// Where a server's configuration comes from, and what it may do with it.
#[derive(Default)]
pub(crate) struct Source {
    /// The file, when there is one.
    pub(crate) file: Option<PathBuf>,
    /// The data directory of the command line, which goes over that of the file.
    pub(crate) data: Option<PathBuf>,
    /// Sets the level of the process's log.
    pub(crate) set_level: Option<SetLevel>,
    /// Whether SIGHUP means to read the file again.
    pub(crate) hangup: bool,
    /// The server only answers: its detectors' settings do not come into force.
    pub(crate) only_asks: bool,
    /// The server is for one command of whoever owns the data directory: no other key is taken.
    pub(crate) command: Option<CommandKey>,
}

impl Source {
    /// A server for one command that changes something of a tenant.
    pub(crate) fn for_command(key: CommandKey) -> Self {
        Self { command: Some(key), ..Self::default() }
    }

    /// A server for one question.
    pub(crate) fn only_to_ask() -> Self {
        Self { only_asks: true, ..Self::default() }
    }
}

/// The detectors' settings that change results.
pub(crate) fn detector_settings(config: &Config) -> DetectorSettings {
    DetectorSettings {
        baseline: match config.detect.baseline {
            BaselineMode::Streamguard => Mode::StreamGuard,
            BaselineMode::Calibrated => Mode::Calibrated,
        },
        learning_events: config.detect.learning_events,
        threshold: config.detect.threshold,
        threat_threshold: config.detect.threat_threshold,
    }
}

/// Reads the configured reputation lists.
pub(crate) fn read_lists(config: &Config) -> Result<Lists, Failure> {
    let mut lists = Vec::new();
    for list in &config.detect.lists {
        let kind = match list.kind {
            ListKind::Reputation => reputation::ListKind::Reputation,
            ListKind::Block => reputation::ListKind::Block,
            ListKind::Allow => reputation::ListKind::Allow,
        };
        let spec = ListSpec { default_level: list.level, ..ListSpec::new(&list.name, kind) };
        let path = list.path.display().to_string();
        let bytes = std::fs::read(&list.path)
            .map_err(|error| format!("can't read the list '{}' at {path}: {error}", list.name))?;
        lists.push(List::parse(&spec, &path, &bytes)?);
    }
    Ok(Lists::build(&lists)?)
}

/// Bounds of the decoders.
pub(crate) fn decode_limits(config: &Config) -> DecodeLimits {
    DecodeLimits {
        max_record_bytes: config.limits.record.bytes(),
        max_depth: u32::try_from(config.limits.depth).unwrap_or(64),
        max_keys: u32::try_from(config.limits.keys).unwrap_or(10_000),
        max_dynamic_columns: config.limits.dynamic_columns,
        max_tenant_columns: config.limits.tenant_columns,
        max_sources: config.limits.sources,
        ..DecodeLimits::default()
    }
}

/// Bounds of request bodies.
pub(crate) fn body_limits(config: &Config) -> BodyLimits {
    BodyLimits {
        compressed_bytes: config.limits.body.0,
        decoded_bytes: config.limits.decompressed.0,
        ..BodyLimits::default()
    }
}

/// What a query may use.
pub(crate) fn query_limits(config: &Config) -> Limits {
    Limits {
        time: config.query.time.0,
        memory: config.query.memory.bytes(),
        rows: config.query.rows,
        ..Limits::default()
    }
}

/// How long rows are kept.
pub(crate) fn retention(config: &Config) -> Vec<RetentionRule> {
    let table = &config.table;
    let spans = [
        (EVENTS, table.events_retention),
        (ALERTS, table.alerts_retention),
        (DEAD_LETTERS, table.dead_letters_retention),
    ];
    let rule = |(table, span): (&str, Option<config::Span>)| {
        let keep_micros = i64::try_from(span?.0.as_micros()).ok()?;
        Some(RetentionRule { table: table.to_owned(), tenant: None, keep_micros })
    };
    spans.into_iter().filter_map(rule).collect()
}

/// The names under which the open tenant answers.
pub(crate) fn host_names(config: &Config) -> HostNames {
    HostNames::new(config.http.names.iter().map(String::as_str))
}

/// How a reload went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

/// What is known of reloads.
#[derive(Debug, Clone)]
pub(crate) struct ReloadMetrics {
    reloads: Family<ResultLabel, Counter>,
    generation: Gauge,
}

impl ReloadMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self { reloads: Family::default(), generation: Gauge::default() };
        // Named from the start, so that an alert on the first refusal works.
        for result in ["applied", "partly", "refused", "unchanged"] {
            metrics.reloads.get_or_create(&ResultLabel { result }).inc_by(0);
        }
        metrics.generation.set(1);
        registry.register(
            "palisade_config_reloads",
            "Times that the configuration file was read again: applied, partly (some keys need a restart), refused (it is wrong), unchanged",
            metrics.reloads.clone(),
        );
        registry.register(
            "palisade_config_generation",
            "Configurations that came into force since the start",
            metrics.generation.clone(),
        );
        metrics
    }
}

/// What a reload changes.
pub(crate) struct Parts {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) doors: HttpDoors,
    pub(crate) tables: Arc<Tables>,
    pub(crate) catalog: Catalog,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) activator: Arc<Activator>,
    pub(crate) deployer: Arc<Deployer>,
    pub(crate) watchlists: Arc<Watchlists>,
    pub(crate) limits: Arc<ArcSwap<Limits>>,
    pub(crate) hosts: Arc<ArcSwap<HostNames>>,
    pub(crate) status: Arc<ArcSwap<ConfigStatus>>,
    pub(crate) keep: Arc<ArcSwap<Keep>>,
    pub(crate) metrics: ReloadMetrics,
}

/// Length and time of change of a file; `None` when it can't be looked at.
type Mark = Option<(u64, Option<SystemTime>)>;

fn mark(path: &std::path::Path) -> Mark {
    std::fs::metadata(path).ok().map(|file| (file.len(), file.modified().ok()))
}

/// Watches files and puts in force what they say.
pub(crate) struct Reloader {
    source: Source,
    config: Config,
    parts: Parts,
    /// The file as it was when it was read.
    file: Mark,
    /// The file as it was at the last look.
    seen: Mark,
    lists: Vec<Mark>,
    /// The rule files as they were when they were read, and at the last look.
    rules: Vec<Found>,
    seen_rules: Vec<Found>,
    /// The same of files of indicators.
    indicators: Vec<Mark>,
    seen_indicators: Vec<Mark>,
}

impl Reloader {
    /// A reloader for a server that runs with `config`, as it was read from `source`.
    pub(crate) fn new(source: Source, config: Config, parts: Parts) -> Self {
        let status = ConfigStatus {
            generation: 1,
            loaded_at: parts.clock.now().div_euclid(1000),
            file: source.file.as_ref().map(|file| file.display().to_string()),
            ..ConfigStatus::default()
        };
        parts.status.store(Arc::new(status));
        let mut reloader = Self {
            source,
            config,
            parts,
            file: None,
            seen: None,
            lists: Vec::new(),
            rules: Vec::new(),
            seen_rules: Vec::new(),
            indicators: Vec::new(),
            seen_indicators: Vec::new(),
        };
        reloader.indicators = reloader.mark_indicators();
        reloader.seen_indicators.clone_from(&reloader.indicators);
        reloader.rules = reloader.find_rules();
        reloader.seen_rules.clone_from(&reloader.rules);
        reloader.file = reloader.mark_file();
        reloader.seen = reloader.file;
        reloader.lists = reloader.mark_lists();
        reloader
    }

    fn mark_file(&self) -> Mark {
        self.source.file.as_deref().and_then(mark)
    }

    fn find_rules(&self) -> Vec<Found> {
        rules::find(&self.config.detect.rules).unwrap_or_default()
    }

    fn mark_indicators(&self) -> Vec<Mark> {
        self.config.detect.indicators.iter().map(|list| mark(&list.file)).collect()
    }

    fn mark_lists(&self) -> Vec<Mark> {
        self.config.detect.lists.iter().map(|list| mark(&list.path)).collect()
    }

    /// Watches until `stop`.
    pub(crate) async fn watch(mut self, stop: CancellationToken) {
        use tokio::signal::unix::{SignalKind, signal};
        let mut hangup = match self.source.hangup.then(|| signal(SignalKind::hangup())) {
            Some(Ok(signal)) => Some(signal),
            Some(Err(error)) => {
                tracing::warn!(%error, "SIGHUP will not reload the configuration");
                None
            }
            None => None,
        };
        loop {
            let asked = async {
                match &mut hangup {
                    Some(signal) => signal.recv().await.is_some(),
                    None => std::future::pending().await,
                }
            };
            let asked = tokio::select! {
                () = stop.cancelled() => return,
                asked = asked => asked,
                () = tokio::time::sleep(LOOK) => false,
            };
            let file = self.mark_file();
            // A file that was just changed may still be being written, and half a file may be a right one:
            // it is read when it has rested from one look to the next.
            if asked || file != self.file && file == self.seen {
                self.file = file;
                self.reload().await;
            }
            self.seen = file;
            let lists = self.mark_lists();
            if lists != self.lists {
                self.lists = lists;
                self.reload_lists();
            }
            let found = self.find_rules();
            if found != self.rules && found == self.seen_rules {
                self.reload_rules().await;
            }
            self.seen_rules = found;
            if !self.source.only_asks
                && let Err(error) = self.parts.deployer.try_again().await
            {
                tracing::warn!(%error, "rules are not in force yet, it is tried again");
            }
            let marks = self.mark_indicators();
            if marks != self.indicators && marks == self.seen_indicators {
                self.reload_indicators().await;
                self.indicators.clone_from(&marks);
            }
            self.seen_indicators = marks;
            if self.parts.activator.is_pending()
                && !self.source.only_asks
                && let Err(error) = self.parts.activator.settle().await
            {
                tracing::warn!(%error, "settings are not in force yet, it is tried again");
            }
        }
    }

    /// A bad list keeps the old lists in force.
    fn reload_lists(&self) {
        match read_lists(&self.config) {
            Ok(new) => {
                tracing::info!(entries = new.entries(), "reputation lists read again");
                self.parts.gateway.lists().store(Arc::new(new));
            }
            Err(error) => tracing::error!(%error, "the lists in force stay"),
        }
    }

    /// Rules that can't be read leave the old ones in force and are tried again at the next look; single rules that
    /// are wrong are left out by name.
    async fn reload_rules(&mut self) {
        if self.source.only_asks {
            return;
        }
        match rules::intend(&self.parts.deployer, &self.config).await {
            Ok(found) => self.rules = found,
            Err(error) => {
                tracing::error!(%error, "the rules in force stay, it is tried again");
            }
        }
    }

    /// Lists that can't be read leave the old ones in force; single lines that are wrong are left out.
    async fn reload_indicators(&self) {
        if self.source.only_asks {
            return;
        }
        if let Err(error) = indicators::intend(&self.parts.watchlists, &self.config).await {
            tracing::error!(%error, "the lists of indicators in force stay");
        }
    }

    async fn reload(&mut self) {
        let result = match self.try_reload().await {
            Ok(result) => {
                self.note(|status| status.last_error = None);
                result
            }
            Err(error) => {
                tracing::error!(%error, "the configuration in force stays");
                let time = self.parts.clock.now().div_euclid(1000);
                let message = error.to_string();
                self.note(|status| status.last_error = Some(ReloadError { time, message }));
                "refused"
            }
        };
        self.parts.metrics.reloads.get_or_create(&ResultLabel { result }).inc();
    }

    fn note(&self, change: impl FnOnce(&mut ConfigStatus)) {
        let mut status = ConfigStatus::clone(&self.parts.status.load());
        change(&mut status);
        self.parts.status.store(Arc::new(status));
    }

    async fn try_reload(&mut self) -> Result<&'static str, Failure> {
        let Some(file) = &self.source.file else {
            return Err(
                "there is no configuration file to read again: name one with --config".into()
            );
        };
        let mut new = config::load(Some(file), std::env::vars())?;
        if let Some(data) = &self.source.data {
            new.data.clone_from(data);
        }
        let (merged, live, restart) = self.merge(&new)?;
        config::check(&merged, &format!("{} without what needs a restart", file.display()))?;
        for key in &restart {
            tracing::error!(key, "a change of {key} needs a restart; the value in force stays");
        }
        if !live.is_empty() {
            self.apply(merged, &live).await?;
        }
        let result = match (live.is_empty(), restart.is_empty()) {
            (true, true) => "unchanged",
            (false, true) => "applied",
            (_, false) => "partly",
        };
        self.note(|status| status.needs_restart = restart);
        Ok(result)
    }

    /// The configuration in force with what can change at runtime taken from `new`; the changed keys that
    /// can, and those that can't.
    fn merge(&self, new: &Config) -> Result<(Config, Vec<String>, Vec<String>), Failure> {
        let (old, new) = (serde_json::to_value(&self.config)?, serde_json::to_value(new)?);
        let mut changed = Vec::new();
        differences(&old, &new, &mut String::new(), &mut changed);
        let is_live = |key: &String| {
            LIVE.iter().any(|live| key == live || live.ends_with('.') && key.starts_with(live))
                || key == LEVEL && self.source.set_level.is_some()
        };
        let (live, restart): (Vec<_>, Vec<_>) = changed.into_iter().partition(is_live);
        let mut merged = old;
        for key in &live {
            let pointer = format!("/{}", key.replace('.', "/"));
            if let (Some(to), Some(from)) = (merged.pointer_mut(&pointer), new.pointer(&pointer)) {
                to.clone_from(from);
            }
        }
        Ok((serde_json::from_value(merged)?, live, restart))
    }

    /// Puts a configuration in force that differs in `keys`. What can fail comes first.
    async fn apply(&mut self, new: Config, keys: &[String]) -> Result<(), Failure> {
        let parts = &self.parts;
        let lists = match new.detect.lists == self.config.detect.lists {
            true => None,
            false => Some(read_lists(&new)?),
        };
        let settings = detector_settings(&new);
        parts
            .catalog
            .audit(AuditRecord {
                time: parts.clock.now(),
                tenant: TenantId::default_tenant(),
                actor: "configuration".to_owned(),
                action: "config:reload".to_owned(),
                subject: "file".to_owned(),
                detail: json!({"keys": keys}),
                request_id: String::new(),
            })
            .await?;
        if settings != detector_settings(&self.config) {
            parts.activator.detectors(&settings).await?;
            if let Err(error) = parts.activator.settle().await {
                tracing::warn!(%error, "settings are not in force yet, it is tried again");
            }
        }
        if new.detect.rules != self.config.detect.rules {
            rules::intend(&parts.deployer, &new).await?;
        }
        if new.detect.indicators != self.config.detect.indicators {
            indicators::intend(&parts.watchlists, &new).await?;
        }
        if let Some(set) = &self.source.set_level
            && let Err(error) = set(&new.logging.level)
        {
            tracing::error!(error, "the level of the log stays");
        }
        if let Some(lists) = lists {
            parts.gateway.lists().store(Arc::new(lists));
        }
        parts.gateway.set_limits(decode_limits(&new), new.limits.waiting.bytes());
        parts.doors.set_limits(body_limits(&new));
        parts.tables.set_retention(retention(&new));
        parts.keep.store(Arc::new(Keep::of(&new)));
        parts.limits.store(Arc::new(query_limits(&new)));
        parts.hosts.store(Arc::new(host_names(&new)));
        let now = parts.clock.now().div_euclid(1000);
        self.note(|status| {
            status.generation += 1;
            status.loaded_at = now;
        });
        self.parts.metrics.generation.inc();
        tracing::info!(keys = keys.join(", "), "the configuration was read again");
        self.config = new;
        self.lists = self.mark_lists();
        self.rules = self.find_rules();
        self.seen_rules.clone_from(&self.rules);
        self.indicators = self.mark_indicators();
        self.seen_indicators.clone_from(&self.indicators);
        Ok(())
    }
}

/// The dotted keys in which two configurations differ.
fn differences(old: &Value, new: &Value, path: &mut String, found: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let added = new.keys().filter(|key| !old.contains_key(*key));
            for key in old.keys().chain(added) {
                let length = path.len();
                if length > 0 {
                    path.push('.');
                }
                path.push_str(key);
                let of = |side: &Map<String, Value>| side.get(key).cloned().unwrap_or_default();
                differences(&of(old), &of(new), path, found);
                path.truncate(length);
            }
        }
        // A section that came or went is a change of its keys' parent: `http.tls`.
        _ if old != new => found.push(path.clone()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(old: &Config, new: &Config) -> Vec<String> {
        let (old, new) = (serde_json::to_value(old).unwrap(), serde_json::to_value(new).unwrap());
        let mut found = Vec::new();
        differences(&old, &new, &mut String::new(), &mut found);
        found.sort();
        found
    }

    #[test]
    fn changes_are_named_by_their_keys() {
        let old = Config::default();
        assert!(changed(&old, &old).is_empty());
        let mut new = old.clone();
        new.detect.threshold = 0.5;
        new.http.listen = ([127, 0, 0, 1], 1).into();
        new.http.names = vec!["a.example".into()];
        new.table.events_retention = Some(config::Span(Duration::from_secs(1)));
        new.http.tls = serde_json::from_value(json!({"certificate": "c", "key": "k"})).unwrap();
        let expected =
            ["detect.threshold", "http.listen", "http.names", "http.tls", "table.events_retention"];
        assert_eq!(changed(&old, &new), expected);
    }

    /// Every key named as live exists, so a renamed key can't silently need a restart.
    #[test]
    fn live_keys_exist() {
        let config = serde_json::to_value(Config::default()).unwrap();
        for key in LIVE.iter().chain([&LEVEL]) {
            let pointer = format!("/{}", key.trim_end_matches('.').replace('.', "/"));
            assert!(config.pointer(&pointer).is_some(), "{key}");
        }
    }
}
