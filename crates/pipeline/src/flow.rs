//! What flows from the log to the workers and on to the finisher.
//!
//! Every piece of work has a number; pieces are handed to all workers in the same order, and the
//! finisher takes them in that order again. A checkpoint's marker is a piece of work like any other,
//! so all workers and the finisher see it at the same place of the log (M2).

use crate::checkpoint::CheckpointTask;
use crate::detectors::{BaselinePart, FrameFeatures, FrameRouting};
use crate::indicators::FrameIndicators;
use crate::rules::FrameRules;
use palisade_event::{Entry, Offset};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// One piece of work.
#[derive(Debug)]
pub(crate) struct Work {
    /// Its number, from 0 without gaps since the start of the process.
    pub(crate) number: u64,
    /// What it is.
    pub(crate) kind: WorkKind,
    /// How many workers have not finished it.
    pub(crate) remaining: AtomicUsize,
}

#[derive(Debug)]
pub(crate) enum WorkKind {
    /// An entry of the log.
    Entry(Box<InFlight>),
    /// Take a checkpoint of the state as it is here.
    Checkpoint(Arc<CheckpointTask>),
}

/// An entry on its way.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) offset: Offset,
    pub(crate) entry: Arc<Entry>,
    /// Whether its rows go to the tables; a replay below the committed position only renews state.
    pub(crate) full: bool,
    /// When it was handed over, for the latency histograms only.
    pub(crate) since: Instant,
    /// The partition of each row, computed by the first worker that needs it.
    pub(crate) routing: OnceLock<FrameRouting>,
    pub(crate) results: Mutex<Results>,
}

/// What the workers found in a frame.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) features: Option<FrameFeatures>,
    pub(crate) rules: Option<FrameRules>,
    pub(crate) indicators: Option<FrameIndicators>,
    pub(crate) baselines: Vec<BaselinePart>,
}

impl Work {
    pub(crate) fn new(number: u64, workers: usize, kind: WorkKind) -> Arc<Self> {
        Arc::new(Self { number, kind, remaining: AtomicUsize::new(workers) })
    }

    /// Says that one worker is done; true for the last.
    pub(crate) fn done(&self) -> bool {
        self.remaining.fetch_sub(1, Ordering::AcqRel) == 1
    }
}
