//! Which segments to merge.
//!
//! Segments are merged by size, neighbours in the log only, so that a file stays narrow in time.
//! Small segments are classed by powers of [`CompactionPolicy::fan_in`], and so many neighbours of one
//! class make one of the next: a row is rewritten once a class. A segment of half a million rows or more is good
//! to read as it is, so these wait until there are [`CompactionPolicy::large_files`] and are then
//! merged once, up to [`CompactionPolicy::target_rows`]. At full load, where every sealed segment has
//! more than that, a row is so written once when sealed and at most once more.

use palisade_catalog::SegmentMeta;

/// When segments are merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactionPolicy {
    /// How many small neighbours make a merge, and twice so many are merged at most.
    pub fan_in: usize,
    /// From so many rows on a segment is large.
    pub large_rows: u64,
    /// How many large neighbours make a merge.
    pub large_files: usize,
    /// A merge makes a file of at most so many rows.
    pub target_rows: u64,
    /// The most bytes that a merge may use for rows in memory.
    pub memory_bytes: usize,
}

/// The class of segments that are good as they are, for long.
const LARGE: u32 = 100;
/// So many small segments between two large ones are merged, whatever their classes.
const SHUT_IN: usize = 4;
/// The class of segments that are not merged any more.
const FINISHED: u32 = 101;

impl Default for CompactionPolicy {
    fn default() -> Self {
        Self {
            fan_in: 8,
            large_rows: 1 << 19,
            large_files: 32,
            target_rows: 16 << 20,
            memory_bytes: 96 << 20,
        }
    }
}

impl CompactionPolicy {
    /// The class of a segment's size.
    fn class(&self, rows: u64) -> u32 {
        match rows {
            _ if rows >= self.target_rows / 2 => FINISHED,
            _ if rows >= self.large_rows => LARGE,
            _ => rows.max(1).ilog(self.fan_in.max(2) as u64),
        }
    }

    /// The next merge of a table's segments, as indexes; `None` when there is nothing to gain. The
    /// segments are in the order of the log.
    pub(crate) fn choose(&self, segments: &[&SegmentMeta]) -> Option<Vec<usize>> {
        let most = self.fan_in.max(2) * 2;
        let top = self.class(self.large_rows.saturating_sub(1)).min(LARGE - 1);
        for class in (0..=top).chain([LARGE]) {
            let enough = if class == LARGE { self.large_files } else { self.fan_in }.max(2);
            // Neighbours of this class or a smaller one; a smaller one between two of this class would
            // otherwise part them for ever.
            let mut run: Vec<usize> = Vec::new();
            let mut of_class = 0usize;
            for (index, segment) in segments.iter().enumerate() {
                let own = self.class(segment.rows);
                if own <= class {
                    run.push(index);
                    of_class += usize::from(own == class);
                    continue;
                }
                // Small ones of several classes that are shut in by large ones get no more neighbours.
                if class == top && run.len() >= SHUT_IN {
                    of_class = enough;
                }
                if of_class >= enough {
                    break;
                }
                run.clear();
                of_class = 0;
            }
            if of_class < enough {
                continue;
            }
            let mut rows = 0u64;
            let mut chosen = Vec::new();
            for index in run {
                let segment = segments.get(index)?;
                if chosen.len() >= 2
                    && (rows + segment.rows > self.target_rows || chosen.len() == most)
                {
                    break;
                }
                rows += segment.rows;
                chosen.push(index);
            }
            if rows <= self.target_rows {
                return Some(chosen);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use palisade_event::Offset;

    fn segment(rows: u64) -> SegmentMeta {
        SegmentMeta {
            id: 0,
            table: "events".to_owned(),
            path: String::new(),
            rows,
            bytes: 0,
            min_time: 0,
            max_time: 0,
            tenants: Vec::new(),
            from: Offset(0),
            to: Offset(0),
            level: 0,
            columns: Vec::new(),
            checksum: 0,
        }
    }

    /// Seals segments of these sizes one by one and merges whenever the policy says so; the segments
    /// left, and rows written by merges per row sealed.
    fn run(policy: &CompactionPolicy, sizes: impl Iterator<Item = u64>) -> (Vec<u64>, f64) {
        let mut live: Vec<SegmentMeta> = Vec::new();
        let (mut sealed, mut merged) = (0u64, 0u64);
        for rows in sizes {
            sealed += rows;
            live.push(segment(rows));
            while let Some(chosen) = policy.choose(&live.iter().collect::<Vec<_>>()) {
                assert!(chosen.windows(2).all(|pair| pair[1] == pair[0] + 1), "not neighbours");
                assert!(chosen.len() >= 2);
                let rows: u64 = chosen.iter().map(|index| live[*index].rows).sum();
                assert!(rows <= policy.target_rows);
                merged += rows;
                let first = chosen[0];
                live.drain(first..first + chosen.len());
                live.insert(first, segment(rows));
            }
        }
        (live.iter().map(|segment| segment.rows).collect(), merged as f64 / sealed as f64)
    }

    #[test]
    fn at_full_load_a_row_is_rewritten_at_most_once() {
        let policy = CompactionPolicy::default();
        let (live, amplification) = run(&policy, std::iter::repeat_n(800_000, 600));
        assert!(amplification <= 1.0, "{amplification}");
        assert!(live.len() < 80, "{} files", live.len());
        // A bench of 20 million events has nothing to merge.
        let (_, amplification) = run(&policy, std::iter::repeat_n(800_000, 24));
        assert_eq!(amplification, 0.0);
    }

    #[test]
    fn at_any_load_files_stay_few_and_rewrites_bounded() {
        let policy = CompactionPolicy::default();
        for rows in [1u64, 50, 5_000, 100_000, 700_000] {
            let (live, amplification) = run(&policy, std::iter::repeat_n(rows, 5_000));
            let finished = rows * 5_000 / (policy.target_rows / 2);
            assert!(live.len() as u64 <= finished + 80, "{} files of {rows}", live.len());
            assert!(amplification <= 5.0, "{amplification} at {rows}");
        }
        // Sizes that change all the time.
        let (live, amplification) =
            run(&policy, (0..5_000u64).map(|i| i * 7919 % 13 * (i * 104_729 % 40_000) + 1));
        let finished = live.iter().filter(|rows| **rows >= policy.target_rows / 2).count();
        assert!(live.len() <= finished * 3 + 80, "{} files, {finished} finished", live.len());
        assert!(amplification <= 5.0, "{amplification}");
    }
}
