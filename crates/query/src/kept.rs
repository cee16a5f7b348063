//! Answers to single segments, kept: for counts and sums over all of a table that are asked again and
//! again.
//!
//! A segment never changes, so the answer of a query to it never changes either. A query whose answer over
//! a table follows from its answers over the table's parts is asked of each segment once and of the
//! in-memory rows every time ([`QueryEngine::query_parts`]); the caller puts the parts together. Which
//! segments there are tells the snapshot, so merged, expired and new segments need no further care, and
//! all parts together are one consistent view (M3).

use crate::engine::QueryEngine;
use crate::error::QueryError;
use crate::limits::Limits;
use crate::snapshots::Snapshots;
use datafusion::arrow::array::RecordBatch;
use palisade_event::TenantId;
use palisade_table::{SegmentFile, Snapshot};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// How many questions (a tenant's query each) are kept; the one that was not asked for longest goes first.
const MAX_QUESTIONS: usize = 256;
/// An answer of more rows than this is not kept.
const MAX_ROWS: usize = 1_024;

/// Answers by question and segment.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    questions: Mutex<Questions>,
    /// Held by the one caller who asks the segments: others wait for its answers.
    filling: tokio::sync::Mutex<()>,
}

type Question = (TenantId, String);
type Answers = BTreeMap<u64, Vec<RecordBatch>>;

#[derive(Debug, Default)]
struct Questions {
    clock: u64,
    answers: BTreeMap<Question, (u64, Answers)>,
}

impl Kept {
    /// The answers to a question that are kept of these segments; others are forgotten.
    fn of(&self, question: &Question, segments: &[&Arc<SegmentFile>]) -> Answers {
        let mut questions = self.questions.lock();
        questions.clock += 1;
        let now = questions.clock;
        let Some((used, answers)) = questions.answers.get_mut(question) else {
            return Answers::default();
        };
        *used = now;
        answers.retain(|id, _| segments.iter().any(|segment| segment.meta.id == *id));
        answers.clone()
    }

    fn keep(&self, question: &Question, segment: u64, answer: &[RecordBatch]) {
        if answer.iter().map(RecordBatch::num_rows).sum::<usize>() > MAX_ROWS {
            return;
        }
        let mut questions = self.questions.lock();
        questions.clock += 1;
        let now = questions.clock;
        if !questions.answers.contains_key(question) {
            if questions.answers.len() >= MAX_QUESTIONS {
                let oldest = questions.answers.iter().min_by_key(|(_, (used, _))| *used);
                if let Some(oldest) = oldest.map(|(question, _)| question.clone()) {
                    questions.answers.remove(&oldest);
                }
            }
            questions.answers.insert(question.clone(), (now, Answers::default()));
        }
        if let Some((_, answers)) = questions.answers.get_mut(question) {
            answers.insert(segment, answer.to_vec());
        }
    }
}

/// A part of one table.
struct Part(Snapshot);

impl Snapshots for Part {
    fn snapshot(&self, table: &str) -> Option<Snapshot> {
        (self.0.table == table).then(|| self.0.clone())
    }

    fn tables(&self) -> Vec<String> {
        vec![self.0.table.clone()]
    }
}

impl QueryEngine {
    /// The answers of a query of a tenant to each part of a table: to each segment that holds rows of the
    /// tenant, and to the rows in memory. The query must name no other table, nothing that changes with
    /// time, and must be one whose answer to the whole can be had from those to the parts: counts, sums,
    /// least and greatest values, by groups or not. `limits` bounds each part; all parts together may
    /// take `limits.time`, and what was answered until then is not asked again the next time.
    ///
    /// # Errors
    /// As [`QueryEngine::query`].
    pub async fn query_parts(
        &self,
        tenant: &TenantId,
        table: &str,
        sql: &str,
        limits: Limits,
    ) -> Result<Vec<RecordBatch>, QueryError> {
        let started = Instant::now();
        let whole = self.snapshot(table).unwrap_or_else(|| Snapshot::empty(table));
        let holds = |segment: &&Arc<SegmentFile>| {
            segment.meta.tenants.iter().any(|name| name == tenant.as_str())
        };
        let segments: Vec<&Arc<SegmentFile>> = whole.segments.iter().filter(holds).collect();
        let question = (tenant.clone(), sql.to_owned());
        let mut known = self.kept().of(&question, &segments);
        let mut answers = Vec::new();
        if segments.iter().any(|segment| !known.contains_key(&segment.meta.id)) {
            let _filling = self.kept().filling.lock().await;
            known = self.kept().of(&question, &segments);
            for segment in &segments {
                if known.contains_key(&segment.meta.id) {
                    continue;
                }
                if started.elapsed() > limits.time {
                    return Err(QueryError::Time(limits.time));
                }
                let part = Snapshot {
                    segments: Arc::new(vec![Arc::clone(segment)]),
                    memory: Arc::default(),
                    ..whole.clone()
                };
                let answer = self.ask_part(part, tenant, sql, limits).await?;
                self.kept().keep(&question, segment.meta.id, &answer);
                answers.extend(answer);
            }
        }
        answers.extend(known.into_values().flatten());
        let memory = Snapshot { segments: Arc::default(), ..whole.clone() };
        answers.extend(self.ask_part(memory, tenant, sql, limits).await?);
        Ok(answers)
    }

    async fn ask_part(
        &self,
        part: Snapshot,
        tenant: &TenantId,
        sql: &str,
        limits: Limits,
    ) -> Result<Vec<RecordBatch>, QueryError> {
        self.query_on(Arc::new(Part(part)), tenant, sql, limits).await?.collect().await
    }
}
