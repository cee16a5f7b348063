//! What to do at start, as a pure decision over what was found (M2, L3): no file is opened here, so
//! every combination can be tested.

use palisade_event::Offset;

/// What stands on disk when the process starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The oldest offset that the log still has.
    pub log_start: Offset,
    /// The offset after the last that the log has.
    pub log_end: Offset,
    /// The committed position T: the first offset whose rows are in no segment.
    pub committed: Offset,
    /// The position S of the newest readable checkpoint.
    pub checkpoint: Option<Offset>,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Replay `[state_from, committed)` for state only, then go on normally from `committed`.
    Replay {
        /// The position of the checkpoint to load; `None` begins with empty state.
        load: Option<Offset>,
        /// The first offset to read.
        state_from: Offset,
    },
    /// The pieces do not belong together; going on would lose or double records.
    Refuse(Refusal),
}

/// Why a data directory can't be gone on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The log ends before the committed position.
    #[error(
        "the catalog has committed up to offset {committed} but the log ends at {log_end}: the log files were lost or belong to another data directory; restore them from the same backup as the catalog"
    )]
    LogBehindCatalog {
        /// The committed position.
        committed: u64,
        /// The end of the log.
        log_end: u64,
    },
    /// The log no longer has what has to be read again.
    #[error(
        "the log begins at offset {log_start} but state has to be replayed from {needed}: log files were removed by hand; restore them, or start with an empty data directory"
    )]
    LogTrimmedTooFar {
        /// The first offset that is needed.
        needed: u64,
        /// The first offset that is there.
        log_start: u64,
    },
    /// A checkpoint beyond the committed position breaks S ≤ T.
    #[error(
        "the checkpoint at offset {checkpoint} is beyond the committed position {committed}: catalog and checkpoints are not of the same data directory"
    )]
    CheckpointAhead {
        /// The checkpoint's position.
        checkpoint: u64,
        /// The committed position.
        committed: u64,
    },
}

/// Decides how to start.
#[must_use]
pub fn decide(found: Found) -> Decision {
    let Found { log_start, log_end, committed, checkpoint } = found;
    if log_end < committed {
        return Decision::Refuse(Refusal::LogBehindCatalog {
            committed: committed.0,
            log_end: log_end.0,
        });
    }
    if let Some(position) = checkpoint.filter(|position| *position > committed) {
        return Decision::Refuse(Refusal::CheckpointAhead {
            checkpoint: position.0,
            committed: committed.0,
        });
    }
    let state_from = checkpoint.unwrap_or(Offset(0));
    if state_from < log_start {
        return Decision::Refuse(Refusal::LogTrimmedTooFar {
            needed: state_from.0,
            log_start: log_start.0,
        });
    }
    Decision::Replay { load: checkpoint, state_from }
}

/// The offset before which the log may be trimmed: never past a commit, never past the oldest kept
/// checkpoint, and nothing while there is no checkpoint (L3: one checkpoint behind).
#[must_use]
pub fn trim_before(committed: Offset, kept_checkpoints: &[Offset]) -> Offset {
    kept_checkpoints.iter().min().map_or(Offset(0), |oldest| (*oldest).min(committed))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every combination of small positions: a decision to replay never reads what is not there,
    /// never goes on beyond the log's end, and every refusal names what is wrong.
    #[test]
    fn all_small_worlds() {
        let mut replays = 0;
        for log_start in 0..5 {
            for log_end in log_start..6 {
                for committed in 0..6 {
                    for checkpoint in [None, Some(0), Some(1), Some(3), Some(5)] {
                        let found = Found {
                            log_start: Offset(log_start),
                            log_end: Offset(log_end),
                            committed: Offset(committed),
                            checkpoint: checkpoint.map(Offset),
                        };
                        match decide(found) {
                            Decision::Replay { load, state_from } => {
                                replays += 1;
                                assert_eq!(load, found.checkpoint);
                                assert_eq!(state_from, load.unwrap_or_default());
                                assert!(state_from.0 >= log_start && state_from.0 <= committed);
                                assert!(committed <= log_end);
                            }
                            Decision::Refuse(Refusal::LogBehindCatalog { .. }) => {
                                assert!(log_end < committed);
                            }
                            Decision::Refuse(Refusal::LogTrimmedTooFar { needed, .. }) => {
                                assert!(needed < log_start);
                            }
                            Decision::Refuse(Refusal::CheckpointAhead { checkpoint, .. }) => {
                                assert!(checkpoint > committed);
                            }
                        }
                    }
                }
            }
        }
        assert!(replays > 50);
    }

    #[test]
    fn trimming_stays_behind_the_oldest_checkpoint() {
        assert_eq!(trim_before(Offset(9), &[]), Offset(0));
        assert_eq!(trim_before(Offset(9), &[Offset(7), Offset(4)]), Offset(4));
        assert_eq!(trim_before(Offset(3), &[Offset(3)]), Offset(3));
    }
}
