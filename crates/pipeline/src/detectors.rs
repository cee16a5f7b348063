//! Thin adapters between the detectors, which know nothing of frames, and the pipeline.
//!
//! Stateless features are computed by whichever worker's turn it is, baselines by the worker whose
//! partitions the users fall into, and what needs an order over all rows (the norms of sources) by
//! the finisher. The answers do not depend on how the work was shared (I3).

use crate::alerts::RowAlert;
use crate::alerts::{AlertRow, RuleAlert};
use crate::control::{BackfillStep, Change, ControlError, DetectorSettings, InForce, THREAT};
use crate::flow::Results;
use crate::indicators::{self, FrameIndicators};
use crate::rules::counting::Counting;
use crate::rules::{self, Books, FrameRules, Rules};
use arrow::array::{ArrayRef, Float32Array, RecordBatch};
use palisade_detect::baseline::{
    BaselineOptions, BaselineOutput, Baselines, Routing, RowsOfSlots, route,
};
use palisade_detect::indicators::{Indicators, Scanner};
use palisade_detect::threat::{DEFAULT_SOURCES, Features, SourceNorms, ThreatScorer};
use palisade_event::Offset;
use palisade_event::column::Text;
use palisade_event::schema::Core;
use palisade_event::slot::{SLOTS, partition_table};
use palisade_sigma::Hits;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How baselines are kept under these settings.
fn baseline_options(settings: &DetectorSettings) -> BaselineOptions {
    BaselineOptions {
        mode: settings.baseline,
        learning_events: settings.learning_events,
        threshold: settings.threshold,
        // The committer decides which checkpoints are full, for all workers alike.
        full_snapshot_every: u32::MAX,
        ..BaselineOptions::default()
    }
}

/// The version of the baselines' definition, part of alert ids (I2).
const BASELINE_VERSION: &str = "1";

/// A scorer by the version of the threat score's definition that is in force.
fn scorer(in_force: &InForce) -> Result<ThreatScorer, String> {
    let mut threat = ThreatScorer::new().map_err(|error| error.to_string())?;
    threat.use_version(in_force.operators.content.of(THREAT));
    Ok(threat)
}

/// The version of the threat score's definition in force, part of alert ids (I2).
fn threat_version(in_force: &InForce) -> &'static str {
    match in_force.operators.content.of(THREAT) {
        1 => "1",
        _ => "2",
    }
}

/// The partition of each row of a frame.
pub(crate) type FrameRouting = Routing;
/// What the stateless detectors found in a frame.
pub(crate) type FrameFeatures = Features;

/// What one worker's baselines found in its rows of a frame.
#[derive(Debug)]
pub(crate) struct BaselinePart {
    rows: Vec<u32>,
    output: BaselineOutput,
}

/// The detectors of one worker.
#[derive(Debug)]
pub(crate) struct WorkerDetectors {
    in_force: InForce,
    threat: ThreatScorer,
    baselines: Baselines,
    /// The partition of each slot.
    table: Arc<Vec<u16>>,
    /// Which partitions are this worker's.
    index: usize,
    workers: usize,
    books: Arc<Books>,
    rules: Option<Arc<Rules>>,
    hits: Hits,
    watched: Option<Arc<Indicators>>,
    scanner: Scanner,
}

impl WorkerDetectors {
    /// The detectors with the state of a checkpoint, for each former worker its chain of parts, under
    /// what was in force there.
    pub(crate) fn restore(
        partitions: u16,
        index: usize,
        workers: usize,
        chains: &BTreeMap<String, Vec<Vec<u8>>>,
        in_force: InForce,
        books: Arc<Books>,
    ) -> Result<Self, String> {
        let table = Arc::new(partition_table(partitions));
        let mut baselines = Baselines::new(baseline_options(&in_force.detectors.content));
        for (name, chain) in chains {
            baselines
                .load(chain.iter().map(Vec::as_slice), |slot| {
                    let partition = table.get(usize::from(slot.0)).copied().unwrap_or(0);
                    usize::from(partition) % workers == index
                })
                .map_err(|error| format!("its part '{name}': {error}"))?;
        }
        let threat = scorer(&in_force)?;
        let rules = books.get(&in_force.rules.content.set)?;
        let watched = books.watched(&in_force.indicators.content.set)?;
        Ok(Self {
            in_force,
            threat,
            baselines,
            table,
            index,
            workers,
            books,
            rules,
            hits: Hits::new(),
            watched,
            scanner: Scanner::new(),
        })
    }

    /// Takes in a control record: the next row is the first under what it says.
    pub(crate) fn control(
        &mut self,
        offset: Offset,
        clock: i64,
        kind: &str,
        body: &str,
    ) -> Result<(), ControlError> {
        match self.in_force.apply(offset, clock, kind, body)? {
            Change::Detectors => {
                let settings = &self.in_force.detectors.content;
                let DetectorSettings { baseline, learning_events, threshold, .. } = *settings;
                self.baselines.reconfigure(baseline, learning_events, threshold);
            }
            Change::Operators => {
                self.threat.use_version(self.in_force.operators.content.of(THREAT));
            }
            Change::Rules => {
                self.rules = self.books.in_force(offset, &self.in_force.rules.content.set)?;
            }
            Change::Indicators => {
                self.watched =
                    self.books.watched_from(offset, &self.in_force.indicators.content.set)?;
            }
            Change::Nothing | Change::Domains | Change::Backfill | Change::Clock => {}
        }
        Ok(())
    }

    /// What the rules in force find in a frame; nothing when there are none.
    pub(crate) fn rules(&mut self, batch: &RecordBatch) -> Option<FrameRules> {
        let rules = self.rules.as_ref().filter(|rules| !rules.book.is_empty())?;
        Some(rules::matches(rules, batch, &mut self.hits))
    }

    /// The indicators in a frame; nothing when no list is in force.
    pub(crate) fn indicators(&mut self, batch: &RecordBatch) -> Option<FrameIndicators> {
        indicators::matches(self.watched.as_ref()?, batch, &mut self.scanner)
    }

    /// Whether this release has the operators in force (C3).
    pub(crate) fn check(&self, offset: Offset) -> Result<(), ControlError> {
        self.in_force.check(offset)
    }

    pub(crate) fn features(&mut self, batch: &RecordBatch) -> FrameFeatures {
        self.threat.features(batch)
    }

    pub(crate) fn route(&self, batch: &RecordBatch) -> FrameRouting {
        route(batch, |_| SLOTS, &self.table)
    }

    pub(crate) fn baseline(&mut self, batch: &RecordBatch, routing: &FrameRouting) -> BaselinePart {
        let mut rows = Vec::new();
        let (index, workers) = (self.index, self.workers);
        routing.select(|partition| usize::from(partition) % workers == index, &mut rows);
        let mut output = BaselineOutput::default();
        self.baselines.process(batch, &RowsOfSlots { routing, rows: &rows }, &mut output);
        BaselinePart { rows, output }
    }

    /// Room for a snapshot, in bytes: users take up more in memory than in it.
    pub(crate) fn snapshot_room(&self) -> usize {
        self.baselines.memory_bytes()
    }

    /// Begins a snapshot; false when an earlier one is still being written, which is a defect.
    pub(crate) fn begin_snapshot(&mut self, full: bool) -> bool {
        if full {
            self.baselines.require_full_snapshot();
        }
        self.baselines.begin_snapshot().is_ok()
    }

    pub(crate) fn snapshot_step(&mut self, users: usize, out: &mut Vec<u8>) -> bool {
        self.baselines.snapshot_step(users, out)
    }
}

/// What is known about a frame once all detectors are done.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    pub(crate) columns: Vec<(Core, ArrayRef)>,
    pub(crate) alerts: Vec<RowAlert>,
    /// Of correlations.
    pub(crate) revisions: Vec<AlertRow>,
}

/// The detectors that need an order over all rows.
#[derive(Debug)]
pub(crate) struct OrderedDetectors {
    in_force: InForce,
    threat: ThreatScorer,
    norms: SourceNorms,
    books: Arc<Books>,
    counting: Counting,
}

impl OrderedDetectors {
    pub(crate) fn restore(
        norms: &[u8],
        correlations: &[Vec<u8>],
        in_force: InForce,
        books: Arc<Books>,
    ) -> Result<Self, String> {
        let norms = if norms.is_empty() {
            SourceNorms::new(DEFAULT_SOURCES)
        } else {
            SourceNorms::restore(norms, DEFAULT_SOURCES)
                .map_err(|error| format!("its part 'norms': {error}"))?
        };
        let threat = scorer(&in_force)?;
        let rules = books.get(&in_force.rules.content.set)?;
        let counting = Counting::restore(rules, correlations, in_force.backfill.as_ref())
            .map_err(|error| format!("its part 'correlations': {error}"))?;
        Ok(Self { in_force, threat, norms, books, counting })
    }

    /// What is in force for the next record.
    pub(crate) fn in_force(&self) -> &InForce {
        &self.in_force
    }

    /// Takes in a control record. Answers what it decides about alerts of correlations.
    pub(crate) fn control(
        &mut self,
        offset: Offset,
        clock: i64,
        kind: &str,
        body: &str,
    ) -> Result<Vec<AlertRow>, ControlError> {
        let before = self.in_force.domains.clone();
        let at = (offset, clock);
        match self.in_force.apply(offset, clock, kind, body)? {
            Change::Rules => {
                let rules = self.books.in_force(offset, &self.in_force.rules.content.set)?;
                let declared = self.in_force.backfill.as_ref();
                let declared = declared.filter(|backfill| backfill.offset == offset.0);
                Ok(self.counting.reload(rules, at, declared))
            }
            Change::Backfill => {
                let step = BackfillStep::read(offset, body)?;
                Ok(self.counting.stored(at, step, &self.in_force))
            }
            Change::Domains => {
                let now = &self.in_force.domains;
                let ended = before.iter().filter(|open| !now.contains(open));
                Ok(ended
                    .flat_map(|open| self.counting.end(&open.tenant, &open.domain, at))
                    .collect())
            }
            Change::Clock => Ok(self.counting.clock(at)),
            Change::Nothing | Change::Detectors | Change::Operators | Change::Indicators => {
                Ok(Vec::new())
            }
        }
    }

    pub(crate) fn save(&self) -> Vec<u8> {
        self.norms.snapshot()
    }

    /// Begins to write the state of the correlations; false when it is being written already, which is a defect.
    pub(crate) fn begin_snapshot(&mut self, full: bool) -> bool {
        self.counting.begin_snapshot(full)
    }

    /// Goes on writing it; true when all is written.
    pub(crate) fn snapshot_step(&mut self, out: &mut Vec<u8>) -> bool {
        self.counting.snapshot_step(out)
    }

    /// Whether time alone can decide something (T3).
    pub(crate) fn waits_for_time(&self) -> bool {
        self.counting.waits()
    }

    /// Time goes on. Answers what that decides about alerts of correlations.
    pub(crate) fn on_tick(&mut self, offset: Offset, clock: i64) -> Vec<AlertRow> {
        self.norms.on_tick();
        self.counting.tick((offset, clock), &self.in_force)
    }

    /// Combines what the workers found in a frame.
    pub(crate) fn combine(
        &mut self,
        (offset, clock): (Offset, i64),
        batch: &RecordBatch,
        results: Results,
    ) -> Judged {
        let mut judged = Judged::default();
        let rows = batch.num_rows();
        if let Some(found) = results.rules {
            judged.revisions = self.counting.frame(offset, clock, batch, &found);
            judged.alerts.extend(rule_alerts(batch, found));
        }
        if let Some(found) = results.indicators {
            judged.alerts.extend(found.alerts(batch));
        }
        if let Some(features) = results.features {
            let from = self.in_force.detectors.content.threat_threshold;
            let output = self.threat.combine_from(&features, batch, &self.norms, from);
            self.norms.observe(features.quantised(), batch);
            judged.columns.push((Core::Entropy, Arc::new(features.entropy())));
            judged.columns.push((Core::ThreatScore, Arc::new(output.threat_score)));
            if let Some(class) = output.threat_class {
                judged.columns.push((Core::ThreatClass, Arc::new(class)));
            }
            judged.alerts.extend(output.alerts.into_iter().map(|alert| RowAlert {
                row: alert.row,
                detector: "threat",
                rule_id: "threat.score".into(),
                rule_version: threat_version(&self.in_force).into(),
                title: alert.class.map_or_else(
                    || "high threat score".to_owned(),
                    |class| class.title().to_owned(),
                ),
                severity: alert.severity.as_str(),
                score: alert.score,
                reasons: alert.reasons,
                details: Vec::new(),
                rule: None,
            }));
        }
        let mut scores: Vec<Option<f32>> = vec![None; rows];
        let mut any = false;
        for BaselinePart { rows: of, output } in results.baselines {
            for (row, score) in of.iter().zip(output.scores) {
                if let (Some(cell), Some(_)) = (scores.get_mut(*row as usize), score) {
                    *cell = score;
                    any = true;
                }
            }
            judged.alerts.extend(output.anomalies.into_iter().map(|anomaly| RowAlert {
                row: anomaly.row as usize,
                detector: "baseline",
                rule_id: "baseline.user".into(),
                rule_version: BASELINE_VERSION.into(),
                title: "unusual behaviour of a user".to_owned(),
                severity: anomaly.severity.as_str(),
                score: anomaly.score,
                reasons: anomaly.reasons,
                details: vec![
                    ("baseline.time", anomaly.components.time),
                    ("baseline.address", anomaly.components.address),
                    ("baseline.location", anomaly.components.location),
                    ("baseline.type", anomaly.components.event_type),
                    ("baseline.failure", anomaly.components.failure),
                    ("baseline.streak", anomaly.components.streak),
                ],
                rule: None,
            }));
        }
        if any {
            let column = Float32Array::from(scores);
            judged.columns.push((Core::AnomalyScore, Arc::new(column)));
        }
        judged
    }
}

/// The alerts of rules about single records.
pub(crate) fn rule_alerts(batch: &RecordBatch, found: FrameRules) -> Vec<RowAlert> {
    let FrameRules { rules, alerts, .. } = found;
    let tenants = Text::in_batch(batch, Core::Tenant.name());
    let alerts = alerts.into_iter().filter_map(|(row, ordinal, fields)| {
        let rule = rules.book.rule(ordinal)?;
        let tenant = tenants.and_then(|tenants| tenants.get(row)).unwrap_or_default();
        let level = rules.severity(tenant, &rule.id, rule.level);
        let reason = format!("matches the rule on {}", fields.join(", "));
        Some(RowAlert {
            row,
            detector: "sigma",
            rule_id: rule.id.clone().into(),
            rule_version: rule.version.clone().into(),
            title: rule.title.clone(),
            severity: level.name(),
            score: level.score(),
            reasons: vec![reason],
            details: Vec::new(),
            rule: Some(RuleAlert { rule: Some(Arc::clone(rule)), fields }),
        })
    });
    alerts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{OPERATORS, OperatorVersions, activation};
    use arrow::array::StringArray;
    use palisade_event::Entry;

    /// C3: what a log was judged by stays so, up to the control record and over a restart.
    #[test]
    fn threat_scores_are_of_the_version_in_force() {
        let column = Arc::new(StringArray::from(vec!["/usr/bin/git"])) as ArrayRef;
        let batch = RecordBatch::try_from_iter([("metadata.resource", column)]).unwrap();
        let start = |in_force: InForce| {
            let books = Arc::new(Books::new(|_| Err("there are none".to_owned())));
            let none = BTreeMap::new();
            let worker =
                WorkerDetectors::restore(1, 0, 1, &none, in_force.clone(), Arc::clone(&books));
            (worker.unwrap(), OrderedDetectors::restore(b"", &[], in_force, books).unwrap())
        };
        let judge = |(worker, ordered): &mut (WorkerDetectors, OrderedDetectors)| {
            let results = Results { features: Some(worker.features(&batch)), ..Results::default() };
            let judged = ordered.combine((Offset(0), 0), &batch, results);
            let class = judged.columns.iter().any(|(core, _)| *core == Core::ThreatClass);
            (class, threat_version(ordered.in_force()))
        };
        // Of a log from before operators were control records, version 1 is in force.
        let mut detectors = start(InForce::default());
        assert_eq!(judge(&mut detectors), (true, "1"));
        let newest = serde_json::to_string(&OperatorVersions::newest()).unwrap();
        let Entry::Control { clock, kind, body } = activation(7, 1, OPERATORS, &newest).unwrap()
        else {
            panic!("no control record")
        };
        let checkpoint = detectors.1.in_force().clone();
        detectors.0.control(Offset(3), clock, &kind, &body).unwrap();
        detectors.1.control(Offset(3), clock, &kind, &body).unwrap();
        assert_eq!(judge(&mut detectors), (false, "2"));
        assert_eq!(judge(&mut start(checkpoint)), (true, "1"));
        assert_eq!(judge(&mut start(detectors.1.in_force().clone())), (false, "2"));
    }
}
