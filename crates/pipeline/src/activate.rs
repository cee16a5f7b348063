//! Activating: an intent in the catalog, a control record in the log, then the intent is settled (C1).
//!
//! The intent is made first and the record repeated until it is durable, over restarts too. So a crash
//! anywhere leaves either the old settings in force or the new ones from one offset on; a record that is
//! there twice is ignored the second time, its generation not being above its own.

use crate::clock::Clock;
use crate::control::{
    BackfillWanted, ControlError, DETECTORS, DetectorSettings, INDICATORS, InForce,
    IndicatorsInForce, OPERATORS, OperatorVersions, RELEASE, RULES, RulesInForce, activation,
    content_hash,
};
use crate::error::PipelineError;
use crate::rules::{Part, RULE_SET, RuleTexts};
use palisade_catalog::Catalog;
use palisade_event::Offset;
use palisade_log::Log;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The name within a subject: there is one set of settings for all tenants.
const NAME: &str = "default";

/// The kind under which the catalog keeps the files of sets of rules.
const RULE_FILES: &str = "rule_files";

/// Puts settings and operators' versions in force. One of it writes at a time.
#[derive(Debug)]
pub struct Activator {
    log: Arc<Log>,
    catalog: Catalog,
    clock: Arc<dyn Clock>,
    one: tokio::sync::Mutex<()>,
    pending: AtomicBool,
    /// The hash of the part of the files that the catalog was last given.
    files: Mutex<String>,
}

impl Activator {
    /// An activator that appends to `log`.
    #[must_use]
    pub fn new(log: Arc<Log>, catalog: Catalog, clock: Arc<dyn Clock>) -> Self {
        Self {
            log,
            catalog,
            clock,
            one: tokio::sync::Mutex::new(()),
            pending: AtomicBool::new(true),
            files: Mutex::default(),
        }
    }

    /// Notes the intent that these settings are in force and returns its generation; the same one when
    /// they are already. [`Activator::settle`] appends the control record.
    ///
    /// # Errors
    /// When the catalog fails; nothing is changed then.
    pub async fn detectors(&self, settings: &DetectorSettings) -> Result<u64, PipelineError> {
        self.intend(DETECTORS, serde_json::to_string(settings)).await
    }

    /// Keeps a set of rules in the catalog and notes the intent that it is in force; the generation as for the
    /// others. The parts that were deployed are in the catalog already, that is where they come from. With a backfill,
    /// history is read for some of its rules (B1), which must not have been in force before.
    ///
    /// # Errors
    /// When the catalog fails, or the set is larger than it keeps; nothing is changed then.
    pub async fn rules(
        &self,
        texts: &RuleTexts,
        backfill: Option<BackfillWanted>,
    ) -> Result<u64, PipelineError> {
        let set = if texts.is_empty() {
            String::new()
        } else {
            self.keep_files(&texts.files).await?;
            let (hash, bytes) = texts.content()?;
            let kept = self.catalog.activate(RULE_SET, NAME, &hash, &bytes).await?;
            // It is no record of its own: what is in force says the activation that names it.
            self.catalog.settle_activation(kept).await?;
            hash
        };
        self.intend(RULES, serde_json::to_string(&RulesInForce { set, backfill })).await
    }

    async fn keep_files(&self, files: &Part) -> Result<(), PipelineError> {
        if files.hash().is_empty() || *self.files.lock() == files.hash() {
            return Ok(());
        }
        let kept = self.catalog.activate(RULE_FILES, NAME, files.hash(), &files.content()?).await?;
        self.catalog.settle_activation(kept).await?;
        files.hash().clone_into(&mut self.files.lock());
        Ok(())
    }

    /// Notes the intent that the lists of indicators of the set that is kept under a hash are in force; the generation
    /// as for the others. [`crate::indicators::Watchlists`] keeps sets.
    ///
    /// # Errors
    /// When the catalog fails; nothing is changed then.
    pub(crate) async fn indicators(&self, set: String) -> Result<u64, PipelineError> {
        self.intend(INDICATORS, serde_json::to_string(&IndicatorsInForce { set })).await
    }

    /// Notes the intent that this release's newest operators are in force (C3).
    ///
    /// # Errors
    /// When what is in force or intended is of a newer release, and when the catalog fails.
    pub async fn operators(&self, now: &InForce) -> Result<u64, PipelineError> {
        now.check_newer(self.log.durable_end())?;
        for active in self.catalog.active(OPERATORS).await? {
            let text = active.content.unwrap_or_default();
            let mut intended = now.clone();
            intended.operators.content = serde_json::from_slice::<OperatorVersions>(&text)
                .map_err(|error| ControlError::Damaged(format!("in the catalog: {error}")))?;
            // The catalog keeps no release beside the versions; this one is older, that is known.
            intended.operators.release = format!("newer than {RELEASE}");
            intended.check_newer(self.log.durable_end())?;
        }
        self.intend(OPERATORS, serde_json::to_string(&OperatorVersions::newest())).await
    }

    async fn intend(
        &self,
        subject: &str,
        content: Result<String, serde_json::Error>,
    ) -> Result<u64, PipelineError> {
        let content = content.map_err(|error| ControlError::Damaged(error.to_string()))?;
        let hash = content_hash(&content);
        let generation = self.catalog.activate(subject, NAME, &hash, content.as_bytes()).await?;
        self.pending.store(true, Ordering::Release);
        Ok(generation)
    }

    /// Whether a control record may be missing in the log.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire)
    }

    /// Appends the control record of every intent that has none, in the order of generations, and waits
    /// until they are durable. Returns the offset of the last one.
    ///
    /// # Errors
    /// When log or catalog fail. Transient errors (the disk is nearly full) leave the intent for the next
    /// call; what was in force stays in force until then.
    pub async fn settle(&self) -> Result<Option<Offset>, PipelineError> {
        let _one = self.one.lock().await;
        // Before the look: an intent that comes meanwhile is pending again.
        self.pending.store(false, Ordering::Release);
        let result = self.append_unsettled().await;
        if result.is_err() {
            self.pending.store(true, Ordering::Release);
        }
        result
    }

    async fn append_unsettled(&self) -> Result<Option<Offset>, PipelineError> {
        let mut last = None;
        for intent in self.catalog.unsettled_activations().await? {
            // What else is activated belongs to others.
            if ![DETECTORS, INDICATORS, OPERATORS, RULES].contains(&intent.kind.as_str()) {
                continue;
            }
            let damaged =
                |reason: String| ControlError::Damaged(format!("in the catalog: {reason}"));
            let content = String::from_utf8(intent.content.unwrap_or_default())
                .map_err(|error| damaged(error.to_string()))?;
            let entry = activation(self.clock.now(), intent.generation, &intent.kind, &content)
                .map_err(|error| damaged(error.to_string()))?;
            let log = Arc::clone(&self.log);
            let appended = tokio::task::spawn_blocking(move || log.append_and_wait(entry)).await;
            let offset = appended.map_err(|_| PipelineError::Panicked("activation"))??;
            self.catalog.settle_activation(intent.generation).await?;
            tracing::info!(
                subject = intent.kind,
                generation = intent.generation,
                offset = offset.0,
                "in force from this offset on"
            );
            last = Some(offset);
        }
        Ok(last)
    }
}
