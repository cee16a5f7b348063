//! What is encoded is decoded equal, whatever the batch looks like.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod samples;

use arrow::array::{
    Array, ArrayRef, AsArray, DictionaryArray, Int64Array, RecordBatch, RecordBatchOptions,
    StringArray, UInt8Array,
};
use arrow::datatypes::{Field, Int32Type, Schema, UInt8Type};
use palisade_event::{Entry, Offset};
use palisade_log::disk::SimulatedDisk;
use palisade_log::{Encoder, Log, LogOptions};
use proptest::prelude::*;
use samples::{dictionary, frame, frame_of};
use std::path::Path;
use std::sync::Arc;

/// Appends entries, opens the log again and reads them.
fn through_the_log(entries: Vec<Entry>) -> Vec<Entry> {
    let disk = SimulatedDisk::new(1);
    let open = || {
        Log::open(Arc::new(disk.clone()), Path::new("/log"), LogOptions::default(), None).unwrap().0
    };
    let log = open();
    for entry in entries {
        log.append_and_wait(entry).unwrap();
    }
    drop(log);
    open().read(Offset(0)).unwrap().map(|item| item.unwrap().1).collect()
}

fn check(batch: RecordBatch) {
    let entry = frame_of(7, batch);
    assert_eq!(through_the_log(vec![entry.clone()]), vec![entry]);
}

fn one_column(array: ArrayRef) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable([("c", array, true)]).unwrap()
}

#[test]
fn dictionaries_at_the_edges_of_the_key_widths() {
    for size in [0, 1, 255, 256, 257, 65_535, 65_536, 65_537] {
        let array = dictionary((0..size).map(|n| Some(format!("value {n}"))).chain([None]));
        assert_eq!(array.as_dictionary::<Int32Type>().values().len(), size);
        check(one_column(array));
    }
}

#[test]
fn a_dictionary_with_narrow_keys_of_its_own_keeps_them() {
    let keys = UInt8Array::from(vec![Some(1), None, Some(0)]);
    let values = Arc::new(StringArray::from(vec![Some("a"), Some("b")]));
    check(one_column(Arc::new(DictionaryArray::<UInt8Type>::try_new(keys, values).unwrap())));
}

#[test]
fn slices_and_empty_batches() {
    let Entry::Frame(whole) = frame(3, 100) else { unreachable!() };
    for (from, length) in [(0, 100), (13, 40), (99, 1), (50, 0)] {
        check(whole.batch.slice(from, length));
    }
    let options = RecordBatchOptions::new().with_row_count(Some(5));
    check(RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options).unwrap());
}

#[test]
fn metadata_of_fields_and_schema_is_kept() {
    let field = Field::new("c", arrow::datatypes::DataType::Int64, true)
        .with_metadata([("k".to_owned(), "v".to_owned()), ("a".to_owned(), "b".to_owned())].into());
    let schema = Schema::new(vec![field]).with_metadata([("x".to_owned(), "y".to_owned())].into());
    check(
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(Int64Array::from(vec![1]))]).unwrap(),
    );
}

#[test]
fn a_schema_stands_once_in_a_segment() {
    let disk = SimulatedDisk::new(1);
    let dir = Path::new("/log");
    let (log, _) = Log::open(Arc::new(disk.clone()), dir, LogOptions::default(), None).unwrap();
    let mut encoder = Encoder::new().unwrap();
    for clock in 0..20 {
        // Two schemas in turn.
        let Entry::Frame(mut sample) = frame(clock, 10) else { unreachable!() };
        if clock % 2 == 0 {
            sample.batch = sample.batch.project(&[0, 1, 2]).unwrap();
        }
        let entry = Arc::new(Entry::Frame(sample));
        let encoded = encoder.encode(&entry).unwrap();
        log.append(entry, encoded, Box::new(|result| assert!(result.is_ok()))).unwrap();
    }
    log.close();
    let report = palisade_log::inspect(&disk, dir).unwrap();
    assert_eq!((report[0].frames, report[0].schemas), (20, 2));
}

fn column(rows: usize) -> impl Strategy<Value = ArrayRef> {
    let values = prop::collection::vec(prop::option::of(0..2_000_i64), rows);
    (0..4, values).prop_map(|(kind, values)| match kind {
        0 => Arc::new(Int64Array::from(values)) as ArrayRef,
        1 => Arc::new(StringArray::from_iter(
            values.iter().map(|v| v.map(|v| "é".repeat(v as usize % 9))),
        )),
        2 => dictionary(values.iter().map(|v| v.map(|v| format!("v{v}")))),
        _ => dictionary(values.iter().map(|v| v.map(|v| format!("v{}", v % 3)))),
    })
}

fn batch() -> impl Strategy<Value = RecordBatch> {
    (0..400_usize).prop_flat_map(|rows| prop::collection::vec(column(rows), 1..6)).prop_map(
        |columns| {
            let named = columns.into_iter().enumerate();
            RecordBatch::try_from_iter_with_nullable(
                named.map(|(at, column)| (format!("c{at}"), column, true)),
            )
            .unwrap()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_batch_comes_back_equal(batches in prop::collection::vec(batch(), 1..5)) {
        let entries: Vec<_> =
            batches.into_iter().enumerate().map(|(at, batch)| frame_of(at as i64, batch)).collect();
        prop_assert_eq!(through_the_log(entries.clone()), entries);
    }
}
