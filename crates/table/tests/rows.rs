//! Whatever is appended, sealed, merged, given up and opened again: the rows are those that were
//! appended, in order, once.

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
    Array, ArrayRef, BooleanArray, Float32Array, Float64Array, Int64Array, RecordBatch,
    StringArray, TimestampMicrosecondArray, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Schema};
use palisade_event::Offset;
use palisade_event::TenantId;
use palisade_event::column::Text;
use palisade_event::schema::{is_json, json_field};
use palisade_table::provider::{ReadCache, StoredSegment, stored_memory, stored_segments};
use palisade_table::{
    CompactionPolicy, MemoryCommits, RetentionRule, Snapshot, TableOptions, Tables, verify,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use support::{plain, read, texts};

/// A value as a row of a test has it.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Json(String),
}

impl Value {
    /// As the JSON text of what was received.
    fn json(&self) -> String {
        match self {
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Float(value) => serde_json::to_string(value).unwrap(),
            Self::Text(value) => serde_json::to_string(value).unwrap(),
            Self::Json(value) => value.clone(),
        }
    }
}

/// A row: its fields by name, each as JSON text, so that rows of every layout can be compared.
type Row = BTreeMap<String, String>;

#[derive(Debug, Clone)]
struct TestRow {
    tenant: u8,
    time: i64,
    user: Option<u16>,
    address: Option<u16>,
    extra: Option<Value>,
}

#[derive(Debug, Clone)]
enum Step {
    /// One entry: rows, and whether texts come with dictionaries.
    Append(Vec<TestRow>, bool),
    Seal,
    /// A seal that dies between writing and committing.
    DieSealing,
    Merge,
    Reopen,
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        (-3i64..3000).prop_map(Value::Int),
        (-100i32..100).prop_map(|n| Value::Float(f64::from(n) / 8.0)),
        prop::collection::vec(prop::sample::select(vec!['a', 'b', '"', 'é']), 0..3)
            .prop_map(|text| Value::Text(text.into_iter().collect())),
        Just(Value::Json("{\"a\":[1]}".to_owned())),
    ]
}

fn row() -> impl Strategy<Value = TestRow> {
    let time = prop_oneof![3 => 0i64..1000, 1 => 0i64..10];
    let extra = prop::option::weighted(0.5, value());
    (0u8..3, time, prop::option::of(0u16..30), prop::option::of(0u16..500), extra).prop_map(
        |(tenant, time, user, address, extra)| TestRow { tenant, time, user, address, extra },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (prop::collection::vec(row(), 1..60), any::<bool>())
            .prop_map(|(rows, encoded)| Step::Append(rows, encoded)),
        3 => Just(Step::Seal),
        1 => Just(Step::DieSealing),
        2 => Just(Step::Merge),
        1 => Just(Step::Reopen),
    ]
}

/// The batches of an entry (values of one type a batch), and the rows as they are to be read.
fn batch(offset: u64, rows: &[TestRow], encoded: bool) -> (RecordBatch, Vec<Row>) {
    let kind = rows.iter().find_map(|row| row.extra.clone());
    let same = |value: &Value| {
        kind.as_ref()
            .is_some_and(|kind| std::mem::discriminant(kind) == std::mem::discriminant(value))
    };
    let extras: Vec<Option<Value>> =
        rows.iter().map(|row| row.extra.clone().filter(same)).collect();
    let mut wanted: Vec<Row> = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        let mut fields = Row::new();
        fields.insert("tenant".into(), format!("\"t{}\"", row.tenant));
        fields.insert("time".into(), row.time.to_string());
        fields.insert("position".into(), (offset << 20 | at as u64).to_string());
        fields.insert("entropy".into(), ((row.time % 7) as f32 / 4.0).to_string());
        if let Some(user) = row.user {
            fields.insert("user".into(), format!("\"u{user}\""));
        }
        if let Some(address) = row.address {
            fields.insert("src_ip".into(), format!("\"10.0.0.{address}\""));
        }
        if let Some(value) = &extras[at] {
            fields.insert("extra".into(), value.json());
        }
        wanted.push(fields);
    }
    let time = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.time));
    let entropy = Float32Array::from_iter_values(rows.iter().map(|r| (r.time % 7) as f32 / 4.0));
    let mut columns: Vec<(Field, ArrayRef)> = vec![
        plain(
            "tenant",
            texts(rows.iter().map(|r| Some(format!("t{}", r.tenant))).collect(), encoded),
        ),
        plain("time", Arc::new(time.with_timezone("UTC"))),
        plain("entropy", Arc::new(entropy)),
        plain(
            "user",
            texts(rows.iter().map(|r| r.user.map(|u| format!("u{u}"))).collect(), encoded),
        ),
        plain(
            "position",
            Arc::new(UInt64Array::from_iter_values(
                (0..rows.len() as u64).map(|r| offset << 20 | r),
            )),
        ),
        plain(
            "src_ip",
            texts(
                rows.iter().map(|r| r.address.map(|a| format!("10.0.0.{a}"))).collect(),
                !encoded,
            ),
        ),
    ];
    let extra: Option<(Field, ArrayRef)> = match kind {
        None => None,
        Some(Value::Bool(_)) => {
            let values: BooleanArray =
                extras.iter().map(|v| v.as_ref().map(|v| matches!(v, Value::Bool(true)))).collect();
            Some(plain("extra", Arc::new(values)))
        }
        Some(Value::Int(_)) => {
            let values: Int64Array = extras
                .iter()
                .map(|v| if let Some(Value::Int(v)) = v { Some(*v) } else { None })
                .collect();
            Some(plain("extra", Arc::new(values)))
        }
        Some(Value::Float(_)) => {
            let values: Float64Array = extras
                .iter()
                .map(|v| if let Some(Value::Float(v)) = v { Some(*v) } else { None })
                .collect();
            Some(plain("extra", Arc::new(values)))
        }
        Some(Value::Text(_)) => {
            let values = extras.iter().map(|v| match v {
                Some(Value::Text(text)) => Some(text.clone()),
                _ => None,
            });
            Some(plain("extra", texts(values.collect(), encoded)))
        }
        Some(Value::Json(_)) => {
            let values = extras.iter().map(|v| v.as_ref().map(Value::json));
            Some((json_field("extra"), Arc::new(values.collect::<StringArray>()) as ArrayRef))
        }
    };
    columns.extend(extra);
    // Some entries make their segments wide, each with a hundred columns of its own and fifty of all.
    for n in 0..if rows.len().is_multiple_of(5) { 150 } else { 0 } {
        let name = if n < 50 { format!("w{n}") } else { format!("w{n}_{}", offset % 7) };
        let with = n % rows.len();
        let values = (0..rows.len()).map(|at| (at == with).then_some(n as i64));
        let array: ArrayRef = match n % 3 {
            0 => texts(values.map(|v| v.map(|v| v.to_string())).collect(), encoded),
            _ => Arc::new(values.collect::<Int64Array>()),
        };
        let value = if n % 3 == 0 { format!("\"{n}\"") } else { n.to_string() };
        wanted[with].insert(name.clone(), value);
        columns.push(plain(&name, array));
    }
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    (RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap(), wanted)
}

/// The rows of a batch, each value as JSON text.
fn rows_of(batch: &RecordBatch, rows: &mut Vec<Row>) {
    let first = rows.len();
    rows.resize(first + batch.num_rows(), Row::new());
    for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
        for row in 0..batch.num_rows() {
            let json = if let Some(text) = Text::of(array) {
                text.get(row).map(|text| {
                    if is_json(field) {
                        text.to_owned()
                    } else {
                        serde_json::to_string(text).unwrap()
                    }
                })
            } else if array.is_null(row) {
                None
            } else {
                let array = array.as_any();
                Some(if let Some(array) = array.downcast_ref::<Int64Array>() {
                    array.value(row).to_string()
                } else if let Some(array) = array.downcast_ref::<UInt64Array>() {
                    array.value(row).to_string()
                } else if let Some(array) = array.downcast_ref::<TimestampMicrosecondArray>() {
                    array.value(row).to_string()
                } else if let Some(array) = array.downcast_ref::<Float64Array>() {
                    serde_json::to_string(&array.value(row)).unwrap()
                } else if let Some(array) = array.downcast_ref::<Float32Array>() {
                    array.value(row).to_string()
                } else if let Some(array) = array.downcast_ref::<BooleanArray>() {
                    array.value(row).to_string()
                } else {
                    panic!("unexpected type {}", field.data_type())
                })
            };
            if let Some(json) = json {
                rows[first + row].insert(field.name().clone(), json);
            }
        }
    }
}

fn snapshot_rows(snapshot: &Snapshot) -> Vec<Row> {
    let mut rows = Vec::new();
    for segment in snapshot.segments.iter() {
        read(&segment.path).iter().for_each(|batch| rows_of(batch, &mut rows));
    }
    snapshot.memory.iter().for_each(|batch| rows_of(batch, &mut rows));
    rows
}

/// The rows of a tenant as a hunt reads them.
fn stored_rows(snapshot: &Snapshot, tenant: &str, times: &Range<i64>) -> Vec<Row> {
    let tenant = TenantId::new(tenant).unwrap();
    let cache = ReadCache::new(ReadCache::DEFAULT_BYTES);
    let mut rows = Vec::new();
    for segment in stored_segments(snapshot, &tenant, &cache, times).unwrap() {
        let before = rows.len();
        for batch in segment.read(&|_| true).unwrap() {
            rows_of(&batch.unwrap(), &mut rows);
        }
        assert!(rows.len() - before <= segment.rows() as usize);
        narrowed(segment, &rows[before..]);
    }
    for batch in stored_memory(snapshot, &tenant, times) {
        rows_of(&batch, &mut rows);
    }
    rows
}

/// A segment that is narrowed to some texts gives exactly the rows that have one; a shared one gives all.
fn narrowed(mut segment: StoredSegment, all: &[Row]) {
    let is_text =
        |field: &Field| matches!(field.data_type(), DataType::Dictionary(..) | DataType::Utf8);
    let schema = Arc::clone(segment.schema());
    let fields: Vec<&Arc<Field>> = schema.fields().iter().filter(|field| is_text(field)).collect();
    let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
    let shared = segment.file().meta.tenants.len() > 1;
    let is_wanted = |text: &str| text.ends_with('3') || text.contains('\u{e4}');
    let mut asked = 0;
    segment
        .narrow(&names, &mut |place, text| {
            asked += 1;
            // Which column it is, is told too.
            names[place] != "tenant" && is_wanted(text)
        })
        .unwrap();
    assert!(asked == 0 || !shared, "nothing is asked about other tenants");
    let mut found = Vec::new();
    for batch in segment.read(&|_| true).unwrap() {
        rows_of(&batch.unwrap(), &mut found);
    }
    let has_one = |row: &&Row| {
        fields.iter().filter(|field| field.name() != "tenant").any(|field| {
            let Some(json) = row.get(field.name()) else { return false };
            let text =
                if is_json(field) { json.clone() } else { serde_json::from_str(json).unwrap() };
            is_wanted(&text)
        })
    };
    let expected: Vec<Row> = all.iter().filter(|row| shared || has_one(row)).cloned().collect();
    assert_eq!(found, expected);
}

fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort();
    rows
}

fn small_options() -> TableOptions {
    TableOptions {
        seal_rows: 100,
        // So little memory that wide segments are merged a few columns at a time.
        compaction: CompactionPolicy {
            fan_in: 2,
            memory_bytes: 8 << 10,
            target_chunks: u64::MAX,
            ..CompactionPolicy::default()
        },
        retention: Vec::new(),
        grace_micros: 0,
    }
}

/// The parquet files below a directory.
fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() { waiting.push(path) } else { found.push(path) }
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn rows_are_never_lost_doubled_or_changed(steps in prop::collection::vec(step(), 1..25)) {
        let dir = tempfile::tempdir().unwrap();
        let commits = Arc::new(MemoryCommits::default());
        let mut epoch = commits.claim();
        let open = || Tables::open(dir.path(), commits.clone(), small_options()).unwrap().0;
        let mut tables = open();
        // The log: what each entry brought, in both forms.
        let mut log: Vec<(RecordBatch, Vec<Row>)> = Vec::new();
        for step in steps {
            match step {
                Step::Append(rows, encoded) => {
                    let entry = batch(log.len() as u64, &rows, encoded);
                    tables.append("events", Offset(log.len() as u64), entry.0.clone()).unwrap();
                    log.push(entry);
                    tables.advance(Offset(log.len() as u64));
                }
                Step::Seal => {
                    let report = tables.seal(Offset(log.len() as u64), epoch).unwrap();
                    prop_assert_eq!(report.to, Offset(log.len() as u64));
                    prop_assert_eq!(tables.uncommitted().rows, 0);
                }
                Step::DieSealing => {
                    // Another owner takes over while the seal writes: its commit is refused.
                    let old = epoch;
                    epoch = commits.claim();
                    if tables.uncommitted().rows > 0 {
                        prop_assert!(tables.seal(Offset(log.len() as u64), old).is_err());
                    }
                    tables = reopen(&open, &log);
                }
                Step::Merge => {
                    tables.maintain(0, epoch).unwrap();
                }
                Step::Reopen => {
                    epoch = commits.claim();
                    tables = reopen(&open, &log);
                }
            }
            let wanted: Vec<Row> = log.iter().flat_map(|(_, rows)| rows.clone()).collect();
            let snapshot = tables.snapshot("events");
            let found = snapshot_rows(&snapshot);
            let is_json = |rows: &Row| rows.get("extra").cloned();
            prop_assert_eq!(
                sorted(found.clone()).iter().map(is_json).collect::<Vec<_>>(),
                sorted(wanted.clone()).iter().map(is_json).collect::<Vec<_>>()
            );
            prop_assert_eq!(sorted(found), sorted(wanted.clone()));
            for (tenant, times) in [("t0", i64::MIN..i64::MAX), ("t1", 5..400), ("t2", 9..10)] {
                let of_tenant = wanted.iter().filter(|row| {
                    row["tenant"] == format!("\"{tenant}\"")
                        && times.contains(&row["time"].parse().unwrap())
                });
                let of_tenant: Vec<Row> = of_tenant.cloned().collect();
                prop_assert_eq!(sorted(stored_rows(&snapshot, tenant, &times)), sorted(of_tenant));
            }
        }
        let manifest = palisade_table::Commits::manifest(commits.as_ref()).unwrap();
        for segment in verify(dir.path(), &manifest, |_| {}) {
            prop_assert!(segment.error.is_none(), "{:?}", segment.error);
        }
        // Every live file is there, and what is not live goes.
        tables.maintain(1, epoch).unwrap();
        while tables.maintain(2, epoch).unwrap().more {}
        tables.maintain(3, epoch).unwrap();
        let live = tables.list().len() * 2;
        prop_assert_eq!(files(dir.path()).len(), live);
    }
}

/// Opens the tables as a new process does, and replays the log from the committed position.
fn reopen(open: &dyn Fn() -> Tables, log: &[(RecordBatch, Vec<Row>)]) -> Tables {
    let tables = open();
    let from = tables.uncommitted().committed.0;
    for (offset, (batch, _)) in log.iter().enumerate().skip(from as usize) {
        tables.append("events", Offset(offset as u64), batch.clone()).unwrap();
    }
    tables.advance(Offset(log.len() as u64));
    tables
}

/// While rows are appended and sealed, every snapshot has each row exactly once (M3).
#[test]
fn snapshots_are_consistent_while_sealing() {
    let dir = tempfile::tempdir().unwrap();
    let commits = Arc::new(MemoryCommits::default());
    let epoch = commits.claim();
    let options = TableOptions {
        compaction: CompactionPolicy { fan_in: 3, ..CompactionPolicy::default() },
        ..small_options()
    };
    let tables = Arc::new(Tables::open(dir.path(), commits, options).unwrap().0);
    let done = AtomicBool::new(false);
    let entries = 400u64;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for offset in 0..entries {
                let rows: Vec<TestRow> = (0..5)
                    .map(|r| TestRow {
                        tenant: 0,
                        time: (offset * 5 + r) as i64,
                        user: None,
                        address: None,
                        extra: None,
                    })
                    .collect();
                let (events, _) = batch(offset, &rows, true);
                tables.append("events", Offset(offset), events.clone()).unwrap();
                tables.append("alerts", Offset(offset), events.slice(0, 1)).unwrap();
                tables.advance(Offset(offset + 1));
                if offset % 7 == 0 {
                    std::thread::yield_now();
                }
            }
            done.store(true, Ordering::SeqCst);
        });
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                tables.seal(tables.uncommitted().visible, epoch).unwrap();
            }
        });
        scope.spawn(|| {
            let mut now = 0;
            while !done.load(Ordering::SeqCst) {
                tables.maintain(now, epoch).unwrap();
                now += 1;
            }
        });
        let mut seen = 0usize;
        let mut last = Offset(0);
        while !done.load(Ordering::SeqCst) || seen == 0 {
            let both = tables.snapshots(&["events", "alerts"]);
            let [events, alerts] = both.as_slice() else { panic!() };
            assert_eq!(events.visible, alerts.visible);
            assert!(events.visible >= last);
            last = events.visible;
            let positions = |snapshot: &Snapshot| {
                let mut positions: Vec<u64> = snapshot_rows(snapshot)
                    .iter()
                    .map(|row| row["position"].parse().unwrap())
                    .collect();
                positions.sort_unstable();
                positions
            };
            let wanted: Vec<u64> =
                (0..events.visible.0).flat_map(|o| (0..5).map(move |r| o << 20 | r)).collect();
            assert_eq!(positions(events), wanted);
            let wanted: Vec<u64> = (0..events.visible.0).map(|offset| offset << 20).collect();
            assert_eq!(positions(alerts), wanted);
            seen += 1;
        }
    });
}

#[test]
fn what_is_not_visible_yet_is_neither_shown_nor_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let commits = Arc::new(MemoryCommits::default());
    let epoch = commits.claim();
    let (tables, _) = Tables::open(dir.path(), commits, small_options()).unwrap();
    let row = TestRow { tenant: 0, time: 1, user: None, address: None, extra: None };
    tables.append("events", Offset(0), batch(0, std::slice::from_ref(&row), true).0).unwrap();
    assert_eq!(tables.snapshot("events").memory.len(), 0);
    assert!(tables.seal(Offset(1), epoch).is_err());
    tables.advance(Offset(1));
    assert_eq!(tables.snapshot("events").memory.len(), 1);
    assert!(tables.append("events", Offset(0), batch(0, &[row], true).0).is_err());
    assert_eq!(tables.uncommitted().oldest, Some(Offset(0)));
    // An interval without rows moves the position all the same.
    tables.seal(Offset(1), epoch).unwrap();
    tables.advance(Offset(9));
    let report = tables.seal(Offset(9), epoch).unwrap();
    assert_eq!((report.segments, report.to), (0, Offset(9)));
    assert_eq!(tables.uncommitted().committed, Offset(9));
}

#[test]
fn damage_is_reported_by_name_and_the_rest_stays_readable() {
    let dir = tempfile::tempdir().unwrap();
    let commits = Arc::new(MemoryCommits::default());
    let epoch = commits.claim();
    let (tables, _) = Tables::open(dir.path(), commits.clone(), small_options()).unwrap();
    for offset in 0..3u64 {
        let row = |time| TestRow { tenant: 0, time, user: Some(1), address: None, extra: None };
        let rows: Vec<TestRow> = (0..50).map(row).collect();
        tables.append("events", Offset(offset), batch(offset, &rows, true).0).unwrap();
        tables.advance(Offset(offset + 1));
        tables.seal(Offset(offset + 1), epoch).unwrap();
    }
    let segments = tables.list();
    drop(tables);
    std::fs::remove_file(&segments[0].path).unwrap();
    let mut bytes = std::fs::read(&segments[1].path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&segments[1].path, bytes).unwrap();
    let (tables, report) = Tables::open(dir.path(), commits.clone(), small_options()).unwrap();
    assert_eq!(report.damaged.len(), 1);
    let name = segments[0].path.file_name().unwrap().to_str().unwrap();
    assert!(report.damaged[0].to_string().contains(name), "{}", report.damaged[0]);
    assert_eq!(tables.snapshot("events").segments.len(), 3);
    let manifest = palisade_table::Commits::manifest(commits.as_ref()).unwrap();
    let checked = verify(dir.path(), &manifest, |_| {});
    let wrong: Vec<bool> = checked.iter().map(|segment| segment.error.is_some()).collect();
    assert_eq!(wrong, [true, true, false]);
    // Maintenance reports what it can't read and then leaves it alone.
    assert!(tables.maintain(0, epoch).is_err());
    tables.maintain(1, epoch).unwrap();
}

#[test]
fn old_rows_go_by_tenant_and_files_only_when_nobody_reads_them() {
    let dir = tempfile::tempdir().unwrap();
    let commits = Arc::new(MemoryCommits::default());
    let epoch = commits.claim();
    let keep = |tenant: Option<&str>, keep_micros| RetentionRule {
        table: "events".to_owned(),
        tenant: tenant.map(str::to_owned),
        keep_micros,
    };
    let options = TableOptions {
        retention: vec![keep(None, 1000), keep(Some("t1"), 5000)],
        compaction: CompactionPolicy::default(),
        seal_rows: 1 << 20,
        grace_micros: 10,
    };
    let (tables, _) = Tables::open(dir.path(), commits, options).unwrap();
    let mut offset = 0;
    let mut seal = |tenant: u8, times: std::ops::Range<i64>| {
        let row = |time| TestRow { tenant, time, user: None, address: None, extra: None };
        let rows: Vec<TestRow> = times.map(row).collect();
        tables.append("events", Offset(offset), batch(offset, &rows, true).0).unwrap();
        offset += 1;
        tables.advance(Offset(offset));
        tables.seal(Offset(offset), epoch).unwrap();
    };
    seal(0, 0..100);
    seal(1, 0..100);
    seal(0, 0..1000);
    let snapshot = tables.snapshot("events");
    let report = tables.maintain(1700, epoch).unwrap();
    assert_eq!((report.dropped, report.merged, report.expired_rows), (1, 1, 700));
    let times = |tables: &Tables| -> Vec<i64> {
        let rows = snapshot_rows(&tables.snapshot("events"));
        let mut times: Vec<i64> = rows.iter().map(|row| row["time"].parse().unwrap()).collect();
        times.sort_unstable();
        times
    };
    assert_eq!(times(&tables), (0..100).chain(700..1000).collect::<Vec<_>>());
    // The files stay for the snapshot, and for the grace after it is gone.
    assert_eq!(snapshot_rows(&snapshot).len(), 1200);
    tables.maintain(1705, epoch).unwrap();
    tables.maintain(1750, epoch).unwrap();
    assert_eq!(files(dir.path()).len(), 8);
    drop(snapshot);
    assert_eq!(tables.maintain(1751, epoch).unwrap().deleted, 2);
    assert_eq!(files(dir.path()).len(), 4);
    // Other rules hold from the next step on.
    tables.set_retention(Vec::new());
    assert_eq!(tables.maintain(10_000, epoch).unwrap().dropped, 0);
    tables.set_retention(vec![keep(None, 1000), keep(Some("t1"), 5000)]);
    assert_eq!(tables.maintain(10_000, epoch).unwrap().dropped, 2);
    assert_eq!(tables.snapshot("events").segments.len(), 0);
}
