//! SQL that handlers ask on behalf of a caller: texts are made safe here, and rows come back as JSON.

use crate::state::ApiState;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use palisade_event::TenantId;
use palisade_event::schema::is_json;
use palisade_query::format::{Encoder, Format};
use palisade_query::{Excess, Limits, QueryError, QueryStats};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// How long a handler's own query may take.
pub(crate) const TIME: Duration = Duration::from_secs(10);

/// One row: its columns by name. A null may be missing.
pub(crate) type Row = Map<String, Value>;

/// A text as an SQL literal.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A column's name as SQL, whatever it is made of.
pub(crate) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A moment, microseconds since the epoch, as SQL.
pub(crate) fn moment(micros: i64) -> String {
    format!("to_timestamp_micros(CAST({micros} AS BIGINT))")
}

/// The names of the columns that a table of the tenant has; none when there is no such table.
pub(crate) async fn columns(
    state: &ApiState,
    tenant: &TenantId,
    table: &str,
) -> Result<BTreeSet<String>, QueryError> {
    state.query.columns(tenant, table, limits(state, 1)).await
}

/// What bounds a handler's own query of at most this many rows.
pub(crate) fn limits(state: &ApiState, rows: usize) -> Limits {
    let limits = **state.limits.load();
    Limits { time: TIME.min(limits.time), rows, ..limits }
}

/// Asks for at most this many rows. Columns that hold JSON texts come back as what the texts say.
pub(crate) async fn rows(
    state: &ApiState,
    tenant: &TenantId,
    sql: &str,
    most: usize,
) -> Result<Vec<Row>, QueryError> {
    let result = state.query.query(tenant, sql, limits(state, most)).await?;
    let schema = Arc::clone(&result.schema);
    as_rows(&schema, &result.collect().await?)
}

/// The answers to each part of a table, of queries that [`palisade_query::QueryEngine::query_parts`] may
/// be asked. A part with more rows than `most` is an error.
pub(crate) async fn parts(
    state: &ApiState,
    tenant: &TenantId,
    table: &str,
    sql: &str,
    most: usize,
) -> Result<Vec<Row>, QueryError> {
    let limits = Limits { excess: Excess::Refuse, ..limits(state, most) };
    let mut rows = Vec::new();
    for batch in state.query.query_parts(tenant, table, sql, limits).await? {
        rows.extend(as_rows(&batch.schema(), &[batch])?);
    }
    Ok(rows)
}

fn as_rows(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Vec<Row>, QueryError> {
    let mut encoder = Encoder::new(Format::Json, schema)?;
    let mut bytes = encoder.start();
    for batch in batches {
        bytes.extend(encoder.batch(batch)?);
    }
    bytes.extend(encoder.finish(&QueryStats::default())?);
    let mut rows: Vec<Row> = serde_json::from_slice(&bytes)
        .map_err(|error| QueryError::Internal(format!("rows are no JSON: {error}")))?;
    for field in schema.fields().iter().filter(|field| is_json(field)) {
        for row in &mut rows {
            let Some(value) = row.get_mut(field.name()) else { continue };
            if let Some(Ok(parsed)) = value.as_str().map(serde_json::from_str) {
                *value = parsed;
            }
        }
    }
    Ok(rows)
}

/// A text of a row.
pub(crate) fn text(row: &Row, name: &str) -> Option<String> {
    match row.get(name)? {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// A whole number of a row.
pub(crate) fn integer(row: &Row, name: &str) -> Option<i64> {
    row.get(name)?.as_i64()
}

/// A number of a row.
pub(crate) fn number(row: &Row, name: &str) -> Option<f64> {
    row.get(name)?.as_f64()
}

/// The texts of a list of a row.
pub(crate) fn texts(row: &Row, name: &str) -> Vec<String> {
    let list = row.get(name).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_names_cannot_leave_their_quotes() {
        assert_eq!(literal("o'brien' OR '1'='1"), "'o''brien'' OR ''1''=''1'");
        assert_eq!(literal("\\'; --"), "'\\''; --'");
        assert_eq!(identifier("metadata.a\"b"), "\"metadata.a\"\"b\"");
    }

    #[test]
    fn rows_are_read_by_name_and_type() {
        let row: Row =
            serde_json::from_str(r#"{"a":"x","b":3,"c":0.5,"d":["p",null,"q"],"e":null,"f":true}"#)
                .unwrap();
        assert_eq!(text(&row, "a").as_deref(), Some("x"));
        assert_eq!(text(&row, "f").as_deref(), Some("true"));
        assert_eq!(text(&row, "e"), None);
        assert_eq!(text(&row, "zz"), None);
        assert_eq!(integer(&row, "b"), Some(3));
        assert_eq!(number(&row, "c"), Some(0.5));
        assert_eq!(number(&row, "b"), Some(3.0));
        assert_eq!(texts(&row, "d"), ["p", "q"]);
        assert!(texts(&row, "a").is_empty());
    }
}
