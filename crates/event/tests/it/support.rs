//! Reading frames back in the tests.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use palisade_event::column::Text;
use palisade_event::decode::{DecodeLimits, FrameBuilder, Outcome, RequestContext};
use palisade_event::id::GatewayIdentity;
use palisade_event::schema;
use std::collections::BTreeMap;

/// 2023-10-08T00:00:00Z, the time of StreamGuard's example.
pub const CLOCK: i64 = 1_696_723_200_000_000;

pub const CTX: RequestContext<'static> = RequestContext {
    tenant: "acme",
    source: "app",
    clock: CLOCK,
    domain: None,
    gateway: GatewayIdentity { region: 1, gateway: 2, epoch: 3 },
    request: 4,
    key: None,
};

pub fn builder() -> FrameBuilder {
    FrameBuilder::new(DecodeLimits::default())
}

pub fn decode(body: &[u8]) -> (Outcome, Option<RecordBatch>) {
    let mut builder = builder();
    let outcome = builder.push_json_body(&CTX, body);
    (outcome, builder.finish())
}

/// The batch of a body of which nothing may be rejected.
pub fn batch(body: &str) -> RecordBatch {
    let (outcome, batch) = decode(body.as_bytes());
    assert_eq!(outcome.rejected, vec![], "{body}");
    batch.unwrap()
}

/// A row as column name and JSON text of the value; strings are written as serde_json does.
pub type Row = BTreeMap<String, String>;

pub fn cell(batch: &RecordBatch, name: &str, row: usize) -> Option<String> {
    let index = batch.schema_ref().index_of(name).ok()?;
    let array = batch.column(index);
    if array.is_null(row) {
        return None;
    }
    if let Some(text) = Text::of(array) {
        let text = text.get(row).unwrap();
        return Some(if schema::is_json(batch.schema_ref().field(index)) || name == "overflow" {
            canonical(text)
        } else {
            serde_json::to_string(text).unwrap()
        });
    }
    Some(match array.data_type() {
        DataType::Boolean => array.as_boolean().value(row).to_string(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Float64 => {
            serde_json::to_string(&array.as_primitive::<Float64Type>().value(row)).unwrap()
        }
        DataType::Timestamp(..) => {
            array.as_primitive::<TimestampMicrosecondType>().value(row).to_string()
        }
        DataType::FixedSizeBinary(16) => {
            array.as_fixed_size_binary().value(row).iter().map(|b| format!("{b:02x}")).collect()
        }
        other => panic!("{name} is {other}"),
    })
}

/// JSON text with strings as serde_json writes them.
pub fn canonical(text: &str) -> String {
    if text.starts_with('"') {
        let text: String = serde_json::from_str(text).unwrap();
        return serde_json::to_string(&text).unwrap();
    }
    text.to_owned()
}

pub fn row(batch: &RecordBatch, row: usize) -> Row {
    let names = batch.schema_ref().fields().iter().map(|field| field.name().clone());
    names.filter_map(|name| Some((name.clone(), cell(batch, &name, row)?))).collect()
}

/// A row without the columns that every row has and without its positional id.
pub fn fields(batch: &RecordBatch, index: usize) -> Row {
    let mut row = row(batch, index);
    for name in ["tenant", "time", "ingest_time", "source", "record_id"] {
        row.remove(name);
    }
    row
}

pub fn expect(pairs: &[(&str, &str)]) -> Row {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}
