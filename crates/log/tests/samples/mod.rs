//! Entries to try the log with.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
#![allow(dead_code, reason = "each test file uses some of them")]

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, FixedSizeBinaryArray, Float64Array, Int64Array,
    ListBuilder, RecordBatch, StringArray, StringBuilder, StringDictionaryBuilder,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{Field, Int32Type, Schema};
use palisade_event::id::GatewayIdentity;
use palisade_event::{Entry, Frame, RequestEntry, schema};
use std::sync::Arc;

pub(crate) fn gateway() -> GatewayIdentity {
    GatewayIdentity { region: 1, gateway: 2, epoch: 3 }
}

pub(crate) fn tick(clock: i64) -> Entry {
    Entry::Tick { clock, gateway: gateway() }
}

pub(crate) fn control(clock: i64, body: &str) -> Entry {
    Entry::Control { clock, kind: "gateway_joins".into(), body: body.into() }
}

pub(crate) fn dictionary(values: impl IntoIterator<Item = Option<String>>) -> ArrayRef {
    let mut builder = StringDictionaryBuilder::<Int32Type>::new();
    for value in values {
        builder.append_option(value);
    }
    Arc::new(builder.finish())
}

pub(crate) fn frame_of(clock: i64, batch: RecordBatch) -> Entry {
    Entry::Frame(Frame {
        stream: "events".into(),
        clock,
        gateway: gateway(),
        requests: vec![],
        batch,
    })
}

/// A frame with every type of column that the streams and tables have, and a request with an origin.
pub(crate) fn frame(clock: i64, rows: usize) -> Entry {
    let number = |row: usize| row as i64 * 31 + clock;
    let mut list = ListBuilder::new(StringBuilder::new());
    for row in 0..rows {
        for item in 0..row % 3 {
            list.values().append_value(format!("reason {item}"));
        }
        list.append(row % 4 != 3);
    }
    let time = TimestampMicrosecondArray::from_iter_values((0..rows).map(number));
    let ids = (0..rows).map(|row| (row % 2 == 0).then_some([row as u8; 16]));
    let columns: Vec<(Field, ArrayRef)> = vec![
        (
            Field::new("tenant", schema::dictionary(), false),
            dictionary((0..rows).map(|_| Some("default".into()))),
        ),
        (Field::new("time", schema::timestamp(), false), Arc::new(time.with_timezone("UTC"))),
        (
            Field::new("user", schema::dictionary(), true),
            dictionary((0..rows).map(|row| (row % 5 != 0).then(|| format!("user{}", row % 300)))),
        ),
        (
            Field::new("record_id", schema::Core::RecordId.data_type(), true),
            Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(ids, 16).unwrap()),
        ),
        (
            schema::json_field("payload"),
            Arc::new(StringArray::from_iter(
                (0..rows).map(|row| (row % 3 == 0).then(|| format!("[{row}]"))),
            )),
        ),
        (
            Field::new("size", arrow::datatypes::DataType::Int64, true),
            Arc::new(Int64Array::from_iter(
                (0..rows).map(|row| (row % 2 == 1).then(|| number(row))),
            )),
        ),
        (
            Field::new("score", arrow::datatypes::DataType::Float64, true),
            Arc::new(Float64Array::from_iter((0..rows).map(|row| Some(row as f64 / 7.0)))),
        ),
        (
            Field::new("flag", arrow::datatypes::DataType::Boolean, true),
            Arc::new(BooleanArray::from_iter((0..rows).map(|row| Some(row % 3 == 1)))),
        ),
        (
            Field::new("raw", arrow::datatypes::DataType::Binary, true),
            Arc::new(BinaryArray::from_iter((0..rows).map(|row| Some([row as u8, 0xff, 0])))),
        ),
        {
            let list: ArrayRef = Arc::new(list.finish());
            (Field::new("reasons", list.data_type().clone(), true), list)
        },
    ];
    let (fields, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap();
    let Entry::Frame(mut frame) = frame_of(clock, batch) else { unreachable!() };
    frame.requests.push(RequestEntry {
        tenant: "acme".into(),
        key: format!("key-{clock}"),
        body_hash: "0123456789abcdef0123456789abcdef".into(),
        clock,
        accepted: rows as u64,
        rejected: vec![(7, "no time".into()), (9, "ünicode".into())],
        rejected_total: 12,
    });
    Entry::Frame(frame)
}

/// A mix of all kinds.
pub(crate) fn entry(number: i64) -> Entry {
    match number % 4 {
        0 => tick(number),
        1 => control(number, &format!("{{\"n\":{number}}}")),
        _ => frame(number, (number % 50) as usize),
    }
}
