//! The system tables: what a tenant may know about how its data is kept and about its own queries.
//!
//! Of a segment that several tenants share, a tenant sees its own number of rows and the bytes in
//! proportion, and no bounds of time, which could be others'. Offsets number the entries of the one log that all
//! tenants share, as `/readyz` shows them to everybody; rows are counted of the tenant alone.

use crate::log::LoggedQuery;
use datafusion::arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, UInt64Array,
};
use datafusion::catalog::{MemTable, TableProvider};
use datafusion::common::Result;
use palisade_table::provider::EventTable;
use std::sync::Arc;

/// The table of segments.
const SEGMENTS: &str = "segments";
/// The table of positions.
const PARTITIONS: &str = "partitions";
/// The table of queries.
pub(crate) const QUERIES: &str = "queries";
/// The names of all system tables.
pub(crate) const TABLES: [&str; 3] = [PARTITIONS, QUERIES, SEGMENTS];

/// A system table by its name.
pub(crate) fn table(
    name: &str,
    tables: &[(String, Arc<EventTable>)],
    queries: &[LoggedQuery],
) -> Result<Option<Arc<dyn TableProvider>>> {
    let batch = match name {
        SEGMENTS => segments(tables)?,
        PARTITIONS => partitions(tables)?,
        QUERIES => self::queries(queries)?,
        _ => return Ok(None),
    };
    let table = MemTable::try_new(batch.schema(), vec![vec![batch]])?;
    Ok(Some(Arc::new(table)))
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch> {
    Ok(RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, column)| (name, column, true)),
    )?)
}

fn times(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter(values).with_timezone("UTC"))
}

fn text<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

fn segments(tables: &[(String, Arc<EventTable>)]) -> Result<RecordBatch> {
    let rows: Vec<_> = tables
        .iter()
        .flat_map(|(name, table)| {
            table.segments().map(move |(file, mine)| (name, &file.meta, mine))
        })
        .collect();
    let own = |meta: &palisade_catalog::SegmentMeta| meta.tenants.len() == 1;
    let bytes = rows.iter().map(|(_, meta, mine)| {
        // In proportion to the tenant's rows; 128 bits because the product may be large.
        let share = u128::from(meta.bytes) * u128::from(*mine) / u128::from(meta.rows.max(1));
        u64::try_from(share).unwrap_or(u64::MAX)
    });
    let number = |value: fn(&palisade_catalog::SegmentMeta) -> u64| -> ArrayRef {
        Arc::new(rows.iter().map(|(_, meta, _)| Some(value(meta))).collect::<UInt64Array>())
    };
    batch(vec![
        ("table", text(rows.iter().map(|(name, _, _)| Some(name.as_str())))),
        ("segment", number(|meta| meta.id)),
        ("path", text(rows.iter().map(|(_, meta, _)| Some(meta.path.as_str())))),
        ("rows", Arc::new(rows.iter().map(|(_, _, mine)| Some(*mine)).collect::<UInt64Array>())),
        ("bytes", Arc::new(bytes.map(Some).collect::<UInt64Array>())),
        ("min_time", times(rows.iter().map(|(_, meta, _)| own(meta).then_some(meta.min_time)))),
        ("max_time", times(rows.iter().map(|(_, meta, _)| own(meta).then_some(meta.max_time)))),
        ("from_offset", number(|meta| meta.from.0)),
        ("to_offset", number(|meta| meta.to.0)),
        (
            "level",
            Arc::new(
                rows.iter()
                    .map(|(_, meta, _)| i32::try_from(meta.level).ok())
                    .collect::<Int32Array>(),
            ),
        ),
        (
            "shared",
            Arc::new(rows.iter().map(|(_, meta, _)| Some(!own(meta))).collect::<BooleanArray>()),
        ),
    ])
}

fn partitions(tables: &[(String, Arc<EventTable>)]) -> Result<RecordBatch> {
    let of = |value: fn(&EventTable) -> u64| -> ArrayRef {
        Arc::new(tables.iter().map(|(_, table)| Some(value(table))).collect::<UInt64Array>())
    };
    batch(vec![
        ("table", text(tables.iter().map(|(name, _)| Some(name.as_str())))),
        ("partition", Arc::new(tables.iter().map(|_| Some(0)).collect::<Int32Array>())),
        ("manifest_version", of(|table| table.snapshot().version)),
        ("committed_offset", of(|table| table.snapshot().committed.0)),
        ("visible_offset", of(|table| table.snapshot().visible.0)),
        ("segment_rows", of(|table| table.segments().map(|(_, rows)| rows).sum())),
        ("memory_rows", of(|table| table.memory_rows() as u64)),
    ])
}

fn queries(queries: &[LoggedQuery]) -> Result<RecordBatch> {
    let number = |value: fn(&LoggedQuery) -> u64| -> ArrayRef {
        Arc::new(
            queries.iter().map(|query| i64::try_from(value(query)).ok()).collect::<Int64Array>(),
        )
    };
    batch(vec![
        ("query", number(|query| query.number)),
        ("started", times(queries.iter().map(|query| Some(query.started)))),
        ("seconds", Arc::new(queries.iter().map(|query| query.seconds).collect::<Float64Array>())),
        ("state", text(queries.iter().map(|query| Some(query.state)))),
        ("rows", number(|query| query.rows)),
        ("bytes_scanned", number(|query| query.bytes_scanned)),
        ("memory", number(|query| query.memory)),
        ("sql", text(queries.iter().map(|query| Some(query.sql.as_str())))),
        ("error", text(queries.iter().map(|query| query.error.as_deref()))),
    ])
}
