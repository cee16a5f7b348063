//! Real and documented events.

use crate::support::{CLOCK, CTX, batch, builder, cell, decode, expect, fields, row};
use arrow::array::RecordBatch;
use palisade_event::encode::{RowEncoder, RowView, encode_row};
use palisade_event::schema;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

#[test]
fn streamguard_events_in_both_spellings() {
    let snake = r#"{"event_id":"evt_1696723200_001","user":"alice","timestamp":1696723200000,"type":"LOGIN_FAILED","source_ip":"10.0.1.50","geo_location":"San Francisco, CA","threat_score":0.45,"metadata":{"user_agent":"Mozilla/5.0","session_id":"sess_1","attempts":3,"mfa":false}}"#;
    let camel = r#"{"eventId":"evt_1696723200_001","user":"alice","timestamp":1696723200000,"eventType":"LOGIN_FAILED","sourceIp":"10.0.1.50","geoLocation":"San Francisco, CA","threatScore":0.45,"metadata":{"user_agent":"Mozilla/5.0","session_id":"sess_1","attempts":3,"mfa":false}}"#;
    for record in [snake, camel] {
        let batch = batch(record);
        assert_eq!(
            row(&batch, 0),
            expect(&[
                ("tenant", r#""acme""#),
                ("time", &CLOCK.to_string()),
                ("ingest_time", &CLOCK.to_string()),
                ("source", r#""app""#),
                ("event_id", r#""evt_1696723200_001""#),
                ("type", r#""LOGIN_FAILED""#),
                ("user", r#""alice""#),
                ("src_ip", r#""10.0.1.50""#),
                ("location", r#""San Francisco, CA""#),
                ("user_agent", r#""Mozilla/5.0""#),
                ("reported_threat_score", "0.45"),
                ("metadata.attempts", "3"),
                ("metadata.mfa", "false"),
                ("metadata.session_id", r#""sess_1""#),
            ])
        );
        assert_eq!(
            encode_row(&batch, 0, RowView::Sent),
            r#"{"time":"2023-10-08T00:00:00.000Z","event_id":"evt_1696723200_001","type":"LOGIN_FAILED","user":"alice","src_ip":"10.0.1.50","location":"San Francisco, CA","user_agent":"Mozilla/5.0","reported_threat_score":0.45,"metadata":{"attempts":3,"mfa":false,"session_id":"sess_1"}}"#
        );
        assert!(encode_row(&batch, 0, RowView::Stored).starts_with(r#"{"tenant":"acme","time":"#));
    }
}

#[test]
fn what_is_stored_names_nothing_twice() {
    let record = r#"{"user":"a","user.id":7,"username":"b","user_name":"c","a":{"b":1},"a.b":2,"x":1,"x":2,"x":3,"event_id":""}"#;
    let batch = batch(record);
    let text = encode_row(&batch, 0, RowView::Stored);
    let id = cell(&batch, "record_id", 0).unwrap();
    assert_eq!(
        text,
        format!(
            r#"{{"tenant":"acme","time":"2023-10-08T00:00:00.000Z","ingest_time":"2023-10-08T00:00:00.000Z","source":"app","record_id":"{id}","user":"a","a":{{"b":1}},"user_name":"c","username":"b","x":1,"user.id":7,"event_id":"","overflow":{{"a.b":2,"x":2,"x":3}}}}"#
        )
    );
    assert_eq!(
        encode_row(&batch, 0, RowView::Sent),
        r#"{"time":"2023-10-08T00:00:00.000Z","user":"a","a":{"b":1},"user_name":"c","username":"b","x":1,"user.id":7,"a.b":2,"x":2,"x":3,"event_id":""}"#
    );
}

fn data(folder: &str) -> Option<PathBuf> {
    let path = Path::new("../../../shared/data").join(folder);
    if !path.is_dir() {
        println!("skipped: {folder} (the test data is not there)");
        return None;
    }
    Some(path)
}

/// The leaves of a document by their dotted paths; arrays and empty objects are leaves.
fn leaves(path: &str, value: &Value, out: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (key, value) in members {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                leaves(&path, value, out);
            }
        }
        Value::Null => {}
        leaf => {
            out.insert(path.to_owned(), leaf.clone());
        }
    }
}

/// Checks that no leaf of a document is lost in its row: it stands under its path, or in the core
/// column of its alias, or is the time.
fn assert_nothing_lost(document: &Value, batch: &RecordBatch, index: usize) {
    let mut sent = BTreeMap::new();
    leaves("", document, &mut sent);
    let row = fields(batch, index);
    let mut left = row.clone();
    let overflow: BTreeMap<String, Value> =
        row.get("overflow").map(|text| serde_json::from_str(text).unwrap()).unwrap_or_default();
    left.remove("overflow");
    left.remove("claimed_time");
    let mut times = 0;
    for (path, value) in &sent {
        let same = |text: &String| serde_json::from_str::<Value>(text).unwrap() == *value;
        let target = schema::alias(path);
        if row.get(path).is_some_and(same) {
            left.remove(path);
        } else if overflow.get(path) == Some(value) {
        } else if let Some(core) = target
            && let Some(text) = row.get(core.name())
        {
            let shown = serde_json::from_str::<Value>(text).unwrap();
            let bare = |value: &Value| value.as_str().map_or(value.to_string(), str::to_owned);
            assert_eq!(bare(&shown), bare(value), "{path}");
            left.remove(core.name());
        } else {
            assert_eq!(target, Some(schema::Core::Time), "{path}: {value} is lost in {row:?}");
            times += 1;
        }
    }
    assert!(times <= 1, "{times} times were lost in {row:?}");
    assert_eq!(left, BTreeMap::new(), "a row holds what was not sent");
}

fn assert_encodes_back(batch: &RecordBatch) {
    let encoder = RowEncoder::new(batch, RowView::Sent);
    let mut again = builder();
    let mut text = Vec::new();
    for row in 0..encoder.rows() {
        text.clear();
        encoder.write(row, &mut text);
        again.push_json_record(&CTX, row as u32, &text, None).unwrap();
    }
    let again = again.finish().unwrap();
    for index in 0..batch.num_rows() {
        assert_eq!(row(&again, index), row(batch, index));
    }
}

#[test]
fn windows_events_lose_nothing() {
    let Some(folder) = data("events-otrf") else { return };
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    paths.retain(|path| path.to_string_lossy().ends_with(".json.gz"));
    let mut builder = builder();
    let mut rows = 0;
    for path in paths {
        let mut text = String::new();
        flate2::read::GzDecoder::new(std::fs::File::open(&path).unwrap())
            .read_to_string(&mut text)
            .unwrap();
        let outcome = builder.push_json_body(&CTX, text.as_bytes());
        assert_eq!(outcome.rejected, [], "{}", path.display());
        let batch = builder.finish().unwrap();
        assert_eq!(batch.num_rows(), text.lines().count());
        for (index, line) in text.lines().enumerate() {
            let document: Value = serde_json::from_str(line).unwrap();
            assert_nothing_lost(&document, &batch, index);
        }
        assert_encodes_back(&batch);
        let times: Vec<_> =
            (0..batch.num_rows()).map(|row| cell(&batch, "time", row).unwrap()).collect();
        assert!(times.iter().all(|time| *time != CLOCK.to_string()), "every event has a time");
        rows += batch.num_rows();
    }
    assert_eq!(rows, 12_707);
}

#[test]
fn sigma_regression_events_lose_nothing() {
    let Some(folder) = data("sigma/regression") else { return };
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        for file in std::fs::read_dir(entry.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            let (outcome, batch) = decode(&bytes);
            assert_eq!(outcome.rejected, [], "{}", path.display());
            let batch = batch.unwrap();
            let text = std::str::from_utf8(&bytes).unwrap().trim_start_matches('\u{feff}');
            let documents: Vec<Value> =
                serde_json::Deserializer::from_str(text).into_iter().map(Result::unwrap).collect();
            assert_eq!(documents.len(), batch.num_rows());
            for (index, document) in documents.iter().enumerate() {
                assert_nothing_lost(document, &batch, index);
            }
            assert_encodes_back(&batch);
            files += 1;
        }
    }
    assert!(files >= 98, "{files} files");
}
