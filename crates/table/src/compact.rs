//! Which segments to merge.
//!
//! Segments are merged by size, neighbours in the log only, so that a file stays narrow in time.
//! Small segments are classed by powers of [`CompactionPolicy::fan_in`], and so many neighbours of one
//! class make one of the next: a row is rewritten once a class. A segment of half a million rows or more is good
//! to read as it is, so these wait until there are [`CompactionPolicy::large_files`] and are then
//! merged once, up to [`CompactionPolicy::target_rows`]. At full load, where every sealed segment has
//! more than that, a row is so written once when sealed and at most once more.
//!
//! A Parquet file describes each of its column chunks (bounds, pages, places), and whoever writes or reads
//! it holds all descriptions. Where there are thousands of columns, these outgrow the rows, so a merge makes
//! a file of at most [`CompactionPolicy::target_chunks`]. Neighbours that would make more are left beside each other for
//! good: more neighbours only make it more. Those before them are merged once more, into a file that is as full as it gets.

use crate::encode::ROW_GROUP_ROWS;
use foldhash::fast::FixedState;
use hashbrown::HashSet;
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
    /// A merge makes a file of at most so many column chunks (row groups times columns), about. Each
    /// takes one to two KiB of memory while the file is written.
    pub target_chunks: u64,
    /// The most bytes that a merge may use for rows in memory.
    pub memory_bytes: usize,
}

/// The class of segments that are good as they are, for long.
const LARGE: u32 = 100;
/// So many small segments between two large ones are merged, whatever their classes.
const SHUT_IN: usize = 4;
/// The class of segments that are not merged any more.
const FINISHED: u32 = 101;
/// Where rows are wide, a row group has at least this part of a merge's memory as stored bytes.
const GROUP_PART: usize = 16;

impl Default for CompactionPolicy {
    fn default() -> Self {
        Self {
            fan_in: 8,
            large_rows: 1 << 19,
            large_files: 32,
            target_rows: 16 << 20,
            target_chunks: 32 << 10,
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
                // A run whose segments don't fit with each other does not hold up those behind it.
                if of_class >= enough
                    && let Some(chosen) = self.pick(segments, &run, class, enough)
                {
                    return Some(chosen);
                }
                run.clear();
                of_class = 0;
            }
            if of_class >= enough
                && let Some(chosen) = self.pick(segments, &run, class, enough)
            {
                return Some(chosen);
            }
        }
        None
    }

    /// The first of a run's segments that make one file; `None` when no two neighbours do.
    fn pick(
        &self,
        segments: &[&SegmentMeta],
        run: &[usize],
        class: u32,
        enough: usize,
    ) -> Option<Vec<usize>> {
        let most = self.fan_in.max(2) * 2;
        let mut start = 0;
        while let Some(rest) = run.get(start..).filter(|rest| rest.len() >= 2) {
            let mut chosen: Vec<&SegmentMeta> = Vec::new();
            let mut full = false;
            for index in rest.iter().take(most) {
                chosen.push(segments.get(*index)?);
                if !self.fits(&chosen) {
                    chosen.pop();
                    full = true;
                    break;
                }
            }
            full |= chosen.len() == most;
            // The run has enough; what is left of it behind neighbours that don't fit may not.
            let of_class = || chosen.iter().filter(|one| self.class(one.rows) == class).count();
            if chosen.len() >= 2 && (start == 0 || full || of_class() >= enough) {
                return rest.get(..chosen.len()).map(<[usize]>::to_vec);
            }
            start += chosen.len().max(1);
        }
        None
    }

    /// Whether segments may become one file.
    fn fits(&self, segments: &[&SegmentMeta]) -> bool {
        let rows: u64 = segments.iter().map(|segment| segment.rows).sum();
        if rows > self.target_rows {
            return false;
        }
        let bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
        let group_bytes = (self.memory_bytes / GROUP_PART).max(1) as u64;
        let groups = rows.div_ceil(ROW_GROUP_ROWS as u64).max(bytes / group_bytes).max(1);
        let columns = (self.target_chunks / groups) as usize;
        let counts = || segments.iter().map(|segment| segment.columns.len());
        // Names are only compared where it depends on how many columns the segments share.
        if counts().sum::<usize>() <= columns {
            return true;
        }
        if counts().max().unwrap_or(0) > columns {
            return false;
        }
        let mut names: HashSet<&str, FixedState> = HashSet::default();
        names.extend(segments.iter().flat_map(|one| &one.columns).map(|one| one.name.as_str()));
        names.len() <= columns
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use palisade_catalog::SegmentColumn;
    use palisade_event::Offset;
    use std::collections::BTreeSet;

    fn segment(rows: u64, columns: &BTreeSet<u32>) -> SegmentMeta {
        let column = |n: &u32| SegmentColumn { name: n.to_string(), kind: "i64".to_owned() };
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
            columns: columns.iter().map(column).collect(),
            checksum: 0,
        }
    }

    /// Seals segments of these sizes one by one and merges whenever the policy says so; the segments
    /// left, and rows written by merges per row sealed.
    fn run(policy: &CompactionPolicy, sizes: impl Iterator<Item = u64>) -> (Vec<u64>, f64) {
        run_wide(policy, sizes.map(|rows| (rows, BTreeSet::new())))
    }

    /// The same with columns.
    fn run_wide(
        policy: &CompactionPolicy,
        sizes: impl Iterator<Item = (u64, BTreeSet<u32>)>,
    ) -> (Vec<u64>, f64) {
        let mut live: Vec<(SegmentMeta, BTreeSet<u32>)> = Vec::new();
        let (mut sealed, mut merged) = (0u64, 0u64);
        for (rows, columns) in sizes {
            sealed += rows;
            live.push((segment(rows, &columns), columns));
            while let Some(chosen) =
                policy.choose(&live.iter().map(|(meta, _)| meta).collect::<Vec<_>>())
            {
                assert!(chosen.windows(2).all(|pair| pair[1] == pair[0] + 1), "not neighbours");
                assert!(chosen.len() >= 2);
                let first = chosen[0];
                let inputs: Vec<_> = live.drain(first..first + chosen.len()).collect();
                let rows: u64 = inputs.iter().map(|(meta, _)| meta.rows).sum();
                let columns: BTreeSet<u32> =
                    inputs.iter().flat_map(|(_, columns)| columns).copied().collect();
                assert!(rows <= policy.target_rows);
                let groups = rows.div_ceil(ROW_GROUP_ROWS as u64);
                assert!(groups * columns.len() as u64 <= policy.target_chunks);
                merged += rows;
                live.insert(first, (segment(rows, &columns), columns));
            }
        }
        let rows = live.iter().map(|(meta, _)| meta.rows).collect();
        (rows, merged as f64 / sealed as f64)
    }

    /// A hundredth of the default in columns and chunks.
    fn small() -> CompactionPolicy {
        let default = CompactionPolicy::default();
        CompactionPolicy { target_chunks: default.target_chunks / 100, ..default }
    }

    #[test]
    fn segments_of_many_columns_stay_few_too() {
        let policy = small();
        let wide: BTreeSet<u32> = (0..40).collect();
        let narrow: BTreeSet<u32> = (0..3).collect();
        for rows in [1u64, 5_000, 100_000, 700_000] {
            // All wide, every other one, every fiftieth: the merged ones are all wide.
            for every in [1, 2, 50] {
                let columns = |n: u64| {
                    if n.is_multiple_of(every) { wide.clone() } else { narrow.clone() }
                };
                let sizes = (0..2_000).map(|n| (rows, columns(n)));
                let (live, amplification) = run_wide(&policy, sizes);
                let groups = policy.target_chunks / wide.len() as u64;
                let full = rows * 2_000 / (groups * ROW_GROUP_ROWS as u64 / 2);
                let name = format!("{rows} rows, every {every}");
                assert!(live.len() as u64 <= full + 80, "{} files, {full}: {name}", live.len());
                assert!(amplification <= 6.0, "{amplification}: {name}");
            }
        }
    }

    #[test]
    fn segments_whose_columns_differ_are_merged_up_to_the_bound() {
        let policy = small();
        // Five new columns in each: sixty-five segments fill a file.
        let sizes = (0..2_000u32).map(|n| (1_000, (n * 5..n * 5 + 5).collect()));
        let (live, amplification) = run_wide(&policy, sizes);
        assert!(live.len() < 2 * 2_000 / 65 + 30, "{} files", live.len());
        assert!(amplification <= 6.0, "{amplification}");
        // Each nearly fills one alone: nothing is merged, and nothing is tried for ever.
        let sizes = (0..300u32).map(|n| (1_000, (n * 200..n * 200 + 200).collect()));
        assert_eq!(run_wide(&policy, sizes).1, 0.0);
        // Nor do such neighbours keep those behind a large segment from being merged.
        let unfit = (0..300u32).map(|n| (1_000, (n * 200..n * 200 + 200).collect()));
        let large = std::iter::once((2 << 20, BTreeSet::new()));
        let small = (0..2_000).map(|_| (1_000, BTreeSet::from([u32::MAX])));
        let (live, amplification) = run_wide(&policy, unfit.chain(large).chain(small));
        assert!(live.len() < 300 + 40, "{} files", live.len());
        assert!(amplification <= 5.0, "{amplification}");
        // A file that takes no more does not keep the small ones behind it from being merged.
        let filler = std::iter::once((1_000, (0..policy.target_chunks as u32).collect()));
        let small = (0..2_000).map(|_| (1_000, BTreeSet::from([u32::MAX])));
        let (live, amplification) = run_wide(&policy, filler.chain(small));
        assert!(live.len() < 40, "{} files", live.len());
        assert!(amplification <= 5.0, "{amplification}");
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
