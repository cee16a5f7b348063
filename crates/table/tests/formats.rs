//! What segments look like on disk: every kind of column, bounds of pages, the index, version 1.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "tests may panic; their modules are shared within this binary"
)]

mod support;

use arrow::array::{
    Array, ArrayRef, BooleanArray, FixedSizeBinaryArray, Float32Array, Int32Array, Int64Array,
    ListBuilder, RecordBatch, StringBuilder, TimestampMicrosecondArray, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Schema};
use palisade_event::Offset;
use palisade_event::column::Text;
use palisade_table::{CompactionPolicy, EntityIndex, MemoryCommits, TableOptions, Tables, verify};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use support::{plain, read, texts};

/// Rows of all kinds that a table of ours has, many enough for several pages and row groups.
fn wide_batch(offset: u64, rows: usize) -> RecordBatch {
    let n = |row: usize| offset as usize * rows + row;
    let mut lists = ListBuilder::new(StringBuilder::new());
    for row in 0..rows {
        for item in 0..n(row) % 3 {
            lists.values().append_value(format!("reason {item} of {}", n(row)));
        }
        lists.append(n(row) % 5 != 0);
    }
    let id = |row: usize| (n(row) % 2 == 0).then(|| (n(row) as u128).to_be_bytes());
    let time = |row: usize| (n(row) as i64 * 7919) % 1_000_003;
    let columns: Vec<(Field, ArrayRef)> = vec![
        plain("tenant", texts((0..rows).map(|r| Some(format!("t{}", n(r) % 2))).collect(), true)),
        plain(
            "time",
            Arc::new(
                TimestampMicrosecondArray::from_iter_values((0..rows).map(time))
                    .with_timezone("UTC"),
            ),
        ),
        plain(
            "position",
            Arc::new(UInt64Array::from_iter_values((0..rows).map(|r| offset << 20 | r as u64))),
        ),
        plain(
            "record_id",
            Arc::new(
                FixedSizeBinaryArray::try_from_sparse_iter_with_size((0..rows).map(id), 16)
                    .unwrap(),
            ),
        ),
        plain(
            "event_id",
            texts((0..rows).map(|r| Some(format!("{:x}", n(r) * 7919))).collect(), false),
        ),
        plain(
            "user",
            texts((0..rows).map(|r| Some(format!("u{}", n(r) * n(r) % 977))).collect(), true),
        ),
        plain(
            "src_port",
            Arc::new(
                (0..rows)
                    .map(|r| (n(r) % 3 != 0).then_some((n(r) * 31 % 65_536) as i32))
                    .collect::<Int32Array>(),
            ),
        ),
        plain(
            "signed",
            Arc::new(
                (0..rows)
                    .map(|r| {
                        Some(if n(r) % 2 == 0 {
                            i64::MIN + n(r) as i64
                        } else {
                            i64::MAX - n(r) as i64
                        })
                    })
                    .collect::<Int64Array>(),
            ),
        ),
        plain(
            "narrow",
            Arc::new(
                (0..rows)
                    .map(|r| {
                        Some(if n(r) % 2 == 0 {
                            i32::MIN + n(r) as i32
                        } else {
                            i32::MAX - n(r) as i32
                        })
                    })
                    .collect::<Int32Array>(),
            ),
        ),
        plain(
            "score",
            Arc::new(
                (0..rows)
                    .map(|r| Some(if n(r) % 1000 == 0 { f32::NAN } else { n(r) as f32 / 3.0 }))
                    .collect::<Float32Array>(),
            ),
        ),
        plain("flag", Arc::new((0..rows).map(|r| Some(n(r) % 3 == 0)).collect::<BooleanArray>())),
        plain("reasons", Arc::new(lists.finish())),
        plain(
            "message",
            texts(
                (0..rows)
                    .map(|r| {
                        (n(r) % 4 != 1).then(|| format!("line {} {}", n(r), "é".repeat(n(r) % 90)))
                    })
                    .collect(),
                false,
            ),
        ),
        plain(
            "raw",
            Arc::new(arrow::array::BinaryArray::from_iter_values(
                (0..rows).map(|r| n(r).to_le_bytes()),
            )),
        ),
    ];
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

/// The rows in the order of a segment, by Arrow's own kernels.
fn in_order(batches: &[RecordBatch]) -> RecordBatch {
    let all = arrow::compute::concat_batches(&batches[0].schema(), batches).unwrap();
    let key = |name: &str| {
        let array = all.column_by_name(name).unwrap();
        let array = match array.data_type() {
            DataType::Dictionary(_, _) => arrow::compute::cast(array, &DataType::Utf8).unwrap(),
            _ => Arc::clone(array),
        };
        arrow::compute::SortColumn { values: array, options: None }
    };
    let order =
        arrow::compute::lexsort_to_indices(&[key("tenant"), key("time"), key("position")], None)
            .unwrap();
    arrow::compute::take_record_batch(&all, &order).unwrap()
}

fn assert_same(found: &RecordBatch, wanted: &RecordBatch) {
    assert_eq!(found.num_rows(), wanted.num_rows());
    for field in wanted.schema().fields() {
        let name = field.name();
        let found = found.column_by_name(name).unwrap();
        let wanted = wanted.column_by_name(name).unwrap();
        let plain = |array: &ArrayRef| match array.data_type() {
            DataType::Dictionary(_, _) => arrow::compute::cast(array, &DataType::Utf8).unwrap(),
            _ => Arc::clone(array),
        };
        let (found, wanted) = (plain(found), plain(wanted));
        for from in (0..wanted.len()).step_by(10_000) {
            let len = (wanted.len() - from).min(10_000);
            assert_eq!(&found.slice(from, len), &wanted.slice(from, len), "{name} from row {from}");
        }
    }
}

/// Every kind of column over several pages and row groups, sealed and merged, equals what Arrow's own
/// sort makes of it; and the page index, read by the library, prunes to the right rows.
#[test]
fn all_kinds_survive_sealing_and_merging() {
    let dir = tempfile::tempdir().unwrap();
    let commits = Arc::new(MemoryCommits::default());
    let epoch = commits.claim();
    let options = TableOptions {
        seal_rows: 1 << 21,
        compaction: CompactionPolicy { fan_in: 2, memory_bytes: 8 << 20, ..Default::default() },
        ..TableOptions::default()
    };
    let (tables, _) = Tables::open(dir.path(), commits.clone(), options).unwrap();
    let batches: Vec<RecordBatch> = (0..8).map(|offset| wide_batch(offset, 60_000)).collect();
    for (offset, batch) in batches.iter().enumerate() {
        tables.append("events", Offset(offset as u64), batch.clone()).unwrap();
        if offset == 3 {
            tables.advance(Offset(4));
            tables.seal(Offset(4), epoch).unwrap();
        }
    }
    tables.advance(Offset(8));
    tables.seal(Offset(8), epoch).unwrap();
    let sealed = tables.list();
    assert_eq!(sealed.len(), 2);
    for segment in &sealed {
        let part = if segment.meta.from == Offset(0) { &batches[..4] } else { &batches[4..] };
        let found = read(&segment.path);
        assert_same(
            &arrow::compute::concat_batches(&found[0].schema(), &found).unwrap(),
            &in_order(part),
        );
    }
    let report = tables.maintain(0, epoch).unwrap();
    assert_eq!((report.merged, report.merged_rows), (2, 8 * 60_000));
    let merged = tables.list();
    assert_eq!(merged.len(), 1);
    assert_eq!(merged[0].meta.level, 1);
    let found = read(&merged[0].path);
    let found = arrow::compute::concat_batches(&found[0].schema(), &found).unwrap();
    assert_same(&found, &in_order(&batches));
    let manifest = palisade_table::Commits::manifest(commits.as_ref()).unwrap();
    assert!(verify(dir.path(), &manifest, |_| {}).iter().all(|s| s.error.is_none()));

    // Bounds of pages and chunks hold for every value in them.
    check_bounds(&merged[0].path, &found);

    // The index's answers hold every row of a value.
    let index = EntityIndex::open(&EntityIndex::path_of(&merged[0].path)).unwrap();
    let users = Text::in_batch(&found, "user").unwrap();
    for wanted in ["u0", "u1", "u976", "u3", "nobody"] {
        let ranges = index.blocks("user", wanted).unwrap();
        for row in 0..found.num_rows() {
            if users.get(row) == Some(wanted) {
                assert!(ranges.iter().any(|range| range.contains(&(row as u64))), "{wanted} {row}");
            }
        }
        let covered: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        if wanted == "nobody" {
            assert_eq!(covered, 0);
        }
    }
}

/// Reads each page's rows by its place in the offset index, and compares with its bounds.
fn check_bounds(path: &Path, rows: &RecordBatch) {
    use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
    use parquet::file::metadata::PageIndexPolicy;
    use parquet::file::page_index::column_index::ColumnIndexMetaData;
    let file = std::fs::File::open(path).unwrap();
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
    let metadata = ArrowReaderMetadata::load(&file, options).unwrap();
    let metadata = metadata.metadata();
    let mut first = 0usize;
    let mut checked = BTreeMap::<&str, usize>::new();
    for (group, row_group) in metadata.row_groups().iter().enumerate() {
        for (column, chunk) in row_group.columns().iter().enumerate() {
            let name = chunk.column_path().parts()[0].as_str();
            let array = rows.column_by_name(name).unwrap();
            let index = &metadata.column_index().unwrap()[group][column];
            let pages = metadata.offset_index().unwrap()[group][column].page_locations();
            for (page, location) in pages.iter().enumerate() {
                let start = first + location.first_row_index as usize;
                let end = pages
                    .get(page + 1)
                    .map_or(row_group.num_rows() as usize, |next| next.first_row_index as usize);
                let slice = array.slice(start, first + end - start);
                let nulls = slice.logical_null_count() as i64;
                if matches!(index, ColumnIndexMetaData::NONE) || name == "reasons" {
                    continue;
                }
                if let Some(count) = index.null_count(page) {
                    assert_eq!(count, nulls, "{name} page {page}");
                }
                match index {
                    ColumnIndexMetaData::INT64(index) => {
                        let min = *index.min_value(page).unwrap();
                        let max = *index.max_value(page).unwrap();
                        let values: Vec<i64> = if let Some(a) =
                            slice.as_any().downcast_ref::<Int64Array>()
                        {
                            a.iter().flatten().collect()
                        } else if let Some(a) = slice.as_any().downcast_ref::<UInt64Array>() {
                            a.iter().flatten().map(|v| v as i64).collect()
                        } else {
                            let a =
                                slice.as_any().downcast_ref::<TimestampMicrosecondArray>().unwrap();
                            a.iter().flatten().collect()
                        };
                        assert_eq!(Some(&min), values.iter().min());
                        assert_eq!(Some(&max), values.iter().max());
                        *checked.entry(name).or_default() += 1;
                    }
                    ColumnIndexMetaData::BYTE_ARRAY(index) => {
                        let Some(text) = Text::of(&slice) else { continue };
                        let min = index.min_value(page).unwrap();
                        let max = index.max_value(page).unwrap();
                        for value in (0..slice.len()).filter_map(|row| text.get(row)) {
                            assert!(min <= value.as_bytes() && value.as_bytes() <= max, "{name}");
                        }
                        *checked.entry(name).or_default() += 1;
                    }
                    _ => {}
                }
            }
        }
        first += row_group.num_rows() as usize;
    }
    for name in ["time", "position", "signed", "tenant", "event_id"] {
        assert!(checked.get(name).is_some_and(|pages| *pages > 2), "{name}: {checked:?}");
    }
}

/// Version 1 of a segment and its index: `segment-v1` was written before the filter of `record_id` knew
/// derived ids, `segment-v1-ids` since. Later releases must read both, and a change of what is written is
/// seen here (`PALISADE_WRITE_GOLDEN=1` writes the newer one anew).
#[test]
fn segment_format_version_1() {
    let golden = Path::new("tests/golden").to_owned();
    let batches: Vec<RecordBatch> = (0..2).map(|offset| wide_batch(offset, 40)).collect();
    let wanted = in_order(&batches);
    let dir = tempfile::tempdir().unwrap();
    let commits = Arc::new(MemoryCommits::default());
    let epoch = commits.claim();
    let (tables, _) = Tables::open(dir.path(), commits, TableOptions::default()).unwrap();
    for (offset, batch) in batches.into_iter().enumerate() {
        tables.append("events", Offset(offset as u64), batch).unwrap();
    }
    tables.advance(Offset(2));
    tables.seal(Offset(2), epoch).unwrap();
    let written = tables.list()[0].path.clone();
    if std::env::var_os("PALISADE_WRITE_GOLDEN").is_some() {
        std::fs::create_dir_all(&golden).unwrap();
        std::fs::copy(&written, golden.join("segment-v1-ids.parquet")).unwrap();
        std::fs::copy(EntityIndex::path_of(&written), golden.join("segment-v1-ids.idx")).unwrap();
    }
    for name in ["segment-v1", "segment-v1-ids"] {
        let stored = read(&golden.join(format!("{name}.parquet")));
        let stored = arrow::compute::concat_batches(&stored[0].schema(), &stored).unwrap();
        assert_same(&stored, &wanted);
        let index = EntityIndex::open(&golden.join(format!("{name}.idx"))).unwrap();
        index.verify().unwrap();
        assert_eq!(index.blocks("user", "u4").unwrap().len(), 1);
        assert_eq!(index.blocks("user", "u5").unwrap().len(), 0);
    }
    let same = |a: &Path, b: &Path| std::fs::read(a).unwrap() == std::fs::read(b).unwrap();
    assert!(
        same(&written, &golden.join("segment-v1-ids.parquet")),
        "segments are written otherwise"
    );
    let index = EntityIndex::path_of(&written);
    assert!(same(&index, &golden.join("segment-v1-ids.idx")), "indexes are written otherwise");
}
