//! Tables for tests: segments written here with the Parquet writer, and in-memory batches, both from the
//! same rows.
#![allow(dead_code, reason = "every test file uses its own part")]

use arrow::array::{
    Array, ArrayRef, BooleanArray, DictionaryArray, FixedSizeBinaryBuilder, Float32Array,
    Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array,
};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, Int32Type, Schema};
use palisade_catalog::{SegmentColumn, SegmentMeta};
use palisade_event::schema::{Core, EVENTS, is_json, json_field};
use palisade_event::{Offset, TenantId};
use palisade_query::format::{Encoder, Format};
use palisade_query::{Limits, Options, QueryEngine, QueryError, Snapshots};
use palisade_table::{SegmentFile, Snapshot};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// One event.
#[derive(Debug, Clone, Default)]
pub(crate) struct Row {
    pub(crate) tenant: &'static str,
    pub(crate) time: i64,
    pub(crate) position: u64,
    pub(crate) event_id: Option<String>,
    pub(crate) record_id: Option<[u8; 16]>,
    pub(crate) kind: &'static str,
    pub(crate) outcome: Option<&'static str>,
    pub(crate) user: Option<String>,
    pub(crate) src_ip: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) entropy: Option<f32>,
    pub(crate) anomaly: Option<f32>,
    pub(crate) overflow: Option<String>,
    pub(crate) fields: BTreeMap<String, Value>,
}

impl Row {
    pub(crate) fn new(tenant: &'static str, time: i64) -> Self {
        Self { tenant, time, position: time as u64, kind: "login", ..Self::default() }
    }

    pub(crate) fn user(mut self, user: &str) -> Self {
        self.user = Some(user.to_owned());
        self
    }

    pub(crate) fn field(mut self, name: &str, value: Value) -> Self {
        self.fields.insert(name.to_owned(), value);
        self
    }
}

fn dictionary(values: Vec<Option<String>>) -> ArrayRef {
    let array: DictionaryArray<Int32Type> = values.iter().map(|value| value.as_deref()).collect();
    Arc::new(array)
}

/// Rows as a batch, with the types that the decoder chooses: a column exists when any row has a value.
pub(crate) fn batch(rows: &[Row]) -> RecordBatch {
    let mut fields: Vec<Field> = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    let mut core = |core: Core, column: ArrayRef| {
        if column.null_count() < column.len() {
            fields.push(Field::new(core.name(), column.data_type().clone(), true));
            columns.push(column);
        }
    };
    let times = |value: fn(&Row) -> i64| -> ArrayRef {
        let times: TimestampMicrosecondArray = rows.iter().map(|row| Some(value(row))).collect();
        Arc::new(times.with_timezone("UTC"))
    };
    let text = |value: fn(&Row) -> Option<String>| dictionary(rows.iter().map(value).collect());
    let plain = |value: fn(&Row) -> Option<String>| -> ArrayRef {
        Arc::new(rows.iter().map(value).collect::<StringArray>())
    };
    core(Core::Tenant, text(|row| Some(row.tenant.to_owned())));
    core(Core::Time, times(|row| row.time));
    core(Core::IngestTime, times(|row| row.time + 7));
    core(
        Core::Position,
        Arc::new(rows.iter().map(|row| Some(row.position)).collect::<UInt64Array>()),
    );
    core(Core::Source, text(|_| Some("http".to_owned())));
    core(Core::EventId, plain(|row| row.event_id.clone()));
    let mut ids = FixedSizeBinaryBuilder::new(16);
    for row in rows {
        match row.record_id {
            Some(id) => ids.append_value(id).unwrap(),
            None => ids.append_null(),
        }
    }
    core(Core::RecordId, Arc::new(ids.finish()));
    core(Core::Type, text(|row| Some(row.kind.to_owned())));
    core(Core::Outcome, text(|row| row.outcome.map(str::to_owned)));
    core(Core::User, text(|row| row.user.clone()));
    core(Core::SrcIp, text(|row| row.src_ip.clone()));
    core(Core::Message, plain(|row| row.message.clone()));
    core(Core::Overflow, plain(|row| row.overflow.clone()));
    let floats = |value: fn(&Row) -> Option<f32>| -> ArrayRef {
        Arc::new(rows.iter().map(value).collect::<Float32Array>())
    };
    core(Core::Entropy, floats(|row| row.entropy));
    core(Core::AnomalyScore, floats(|row| row.anomaly));
    let names: BTreeSet<&String> = rows.iter().flat_map(|row| row.fields.keys()).collect();
    for name in names {
        let values: Vec<Option<&Value>> = rows.iter().map(|row| row.fields.get(name)).collect();
        let (field, column) = dynamic(name, &values);
        fields.push(field);
        columns.push(column);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

fn dynamic(name: &str, values: &[Option<&Value>]) -> (Field, ArrayRef) {
    let given: Vec<&Value> = values.iter().flatten().copied().collect();
    let field = |kind| Field::new(name, kind, true);
    if given.iter().all(|value| value.is_i64()) {
        let array: Int64Array = values.iter().map(|value| (*value)?.as_i64()).collect();
        (field(DataType::Int64), Arc::new(array))
    } else if given.iter().all(|value| value.is_f64()) {
        let array: Float64Array = values.iter().map(|value| (*value)?.as_f64()).collect();
        (field(DataType::Float64), Arc::new(array))
    } else if given.iter().all(|value| value.is_boolean()) {
        let array: BooleanArray = values.iter().map(|value| (*value)?.as_bool()).collect();
        (field(DataType::Boolean), Arc::new(array))
    } else if given.iter().all(|value| value.is_string()) {
        let array: StringArray = values.iter().map(|value| (*value)?.as_str()).collect();
        (field(DataType::Utf8), Arc::new(array))
    } else {
        let array: StringArray =
            values.iter().map(|value| value.map(ToString::to_string)).collect();
        (json_field(name), Arc::new(array))
    }
}

fn kind(field: &Field) -> &'static str {
    match field.data_type() {
        _ if is_json(field) => "json",
        DataType::Boolean => "bool",
        DataType::Int32 => "i32",
        DataType::Int64 => "i64",
        DataType::UInt64 => "u64",
        DataType::Float32 => "f32",
        DataType::Float64 => "f64",
        DataType::Timestamp(_, _) => "timestamp",
        DataType::FixedSizeBinary(_) | DataType::Binary => "binary",
        DataType::List(_) => "list",
        _ => "text",
    }
}

/// Writes rows as a segment, sorted by tenant and time, with row groups of `group` rows.
pub(crate) fn segment(directory: &Path, id: u64, rows: &[Row], group: usize) -> Arc<SegmentFile> {
    let mut rows = rows.to_vec();
    rows.sort_by_key(|row| (row.tenant, row.time, row.position));
    write(directory, id, EVENTS, &[batch(&rows)], group)
}

/// Writes batches of one schema, already sorted, as a segment.
pub(crate) fn write(
    directory: &Path,
    id: u64,
    table: &str,
    batches: &[RecordBatch],
    group: usize,
) -> Arc<SegmentFile> {
    let name = format!("{table}-{id}.parquet");
    let path = directory.join(&name);
    let schema = batches[0].schema();
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).unwrap()))
        .set_max_row_group_row_count(Some(group))
        .set_data_page_row_count_limit(8_192)
        .set_write_batch_size(4_096)
        .set_statistics_enabled(EnabledStatistics::Page);
    for column in [Core::EventId, Core::RecordId] {
        let path = ColumnPath::from(column.name());
        properties = properties
            .set_column_bloom_filter_enabled(path.clone(), true)
            .set_column_bloom_filter_max_ndv(path, group as u64);
    }
    let file = std::fs::File::create(&path).unwrap();
    let mut writer = ArrowWriter::try_new(file, schema.clone(), Some(properties.build())).unwrap();
    let mut tenants = BTreeSet::new();
    let (mut low, mut high, mut count) = (i64::MAX, i64::MIN, 0);
    for batch in batches {
        writer.write(batch).unwrap();
        let names = cast(batch.column_by_name("tenant").unwrap(), &DataType::Utf8).unwrap();
        let names = names.as_any().downcast_ref::<StringArray>().unwrap();
        tenants.extend(names.iter().flatten().map(str::to_owned));
        let times = cast(batch.column_by_name("time").unwrap(), &DataType::Int64).unwrap();
        let times = times.as_any().downcast_ref::<Int64Array>().unwrap();
        low = low.min(arrow::compute::min(times).unwrap());
        high = high.max(arrow::compute::max(times).unwrap());
        count += batch.num_rows() as u64;
    }
    writer.close().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let columns = schema
        .fields()
        .iter()
        .map(|field| SegmentColumn { name: field.name().clone(), kind: kind(field).to_owned() })
        .collect();
    let meta = SegmentMeta {
        id,
        table: table.to_owned(),
        path: name,
        rows: count,
        bytes: bytes.len() as u64,
        min_time: low,
        max_time: high,
        tenants: tenants.into_iter().collect(),
        from: Offset(id * 10),
        to: Offset(id * 10 + 10),
        level: 0,
        columns,
        checksum: xxhash_rust::xxh3::xxh3_64(&bytes),
    };
    Arc::new(SegmentFile { meta, path })
}

pub(crate) fn snapshot(
    table: &str,
    mut segments: Vec<Arc<SegmentFile>>,
    memory: Vec<RecordBatch>,
) -> Snapshot {
    segments.sort_by_key(|segment| segment.meta.min_time);
    Snapshot {
        table: table.to_owned(),
        version: 3,
        committed: Offset(100),
        visible: Offset(120),
        segments: Arc::new(segments),
        memory: Arc::new(memory),
    }
}

/// Tables that stand still.
#[derive(Default)]
pub(crate) struct Fixed(pub(crate) Mutex<BTreeMap<String, Snapshot>>);

impl Fixed {
    pub(crate) fn with(snapshots: Vec<Snapshot>) -> Arc<Self> {
        let named = snapshots.into_iter().map(|snapshot| (snapshot.table.clone(), snapshot));
        Arc::new(Self(Mutex::new(named.collect())))
    }
}

impl Snapshots for Fixed {
    fn snapshot(&self, table: &str) -> Option<Snapshot> {
        self.0.lock().unwrap().get(table).cloned()
    }

    fn tables(&self) -> Vec<String> {
        self.0.lock().unwrap().keys().cloned().collect()
    }
}

pub(crate) fn engine(snapshots: Vec<Snapshot>) -> QueryEngine {
    QueryEngine::new(Options::default(), Fixed::with(snapshots)).unwrap()
}

pub(crate) fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

/// Waits for a future on a small runtime of the test's own.
pub(crate) fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// The result of a query as one batch.
pub(crate) fn ask(engine: &QueryEngine, who: &str, sql: &str) -> Result<RecordBatch, QueryError> {
    ask_within(engine, who, sql, Limits { rows: 1_000_000, ..Limits::default() })
}

pub(crate) fn ask_within(
    engine: &QueryEngine,
    who: &str,
    sql: &str,
    limits: Limits,
) -> Result<RecordBatch, QueryError> {
    wait(async {
        let result = engine.query(&tenant(who), sql, limits).await?;
        let schema = result.schema.clone();
        let batches = result.collect().await?;
        Ok(concat_batches(&schema, &batches).unwrap())
    })
}

/// The rows of a query as JSON objects.
pub(crate) fn rows(engine: &QueryEngine, who: &str, sql: &str) -> Vec<Value> {
    match ask(engine, who, sql) {
        Ok(batch) => objects(&batch),
        Err(error) => panic!("{sql}: {error}"),
    }
}

/// A batch as JSON objects.
pub(crate) fn objects(batch: &RecordBatch) -> Vec<Value> {
    let mut encoder = Encoder::new(Format::JsonLines, &batch.schema()).unwrap();
    let mut bytes = encoder.start();
    bytes.extend(encoder.batch(batch).unwrap());
    bytes.extend(encoder.finish(&palisade_query::QueryStats::default()).unwrap());
    let text = String::from_utf8(bytes).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The one value of a query with one row and one column.
pub(crate) fn value(engine: &QueryEngine, who: &str, sql: &str) -> Value {
    let rows = rows(engine, who, sql);
    assert_eq!(rows.len(), 1, "{sql}");
    let row = rows[0].as_object().unwrap();
    assert_eq!(row.len(), 1, "{sql}");
    row.values().next().cloned().unwrap_or(json!(null))
}

pub(crate) fn error(engine: &QueryEngine, who: &str, sql: &str) -> QueryError {
    match ask(engine, who, sql) {
        Ok(batch) => panic!("{sql} gave {} rows", batch.num_rows()),
        Err(error) => error,
    }
}
