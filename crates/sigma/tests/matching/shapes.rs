//! The same records in columns of every kind, and in the shapes in which senders write them.

use crate::support;
use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema};
use palisade_event::decode::DecodeLimits;
use palisade_sigma::{Hits, RuleSet};
use serde_json::{Value, json};
use std::sync::Arc;

/// A batch of these records in every representation that the engine may meet. Rows behind those of
/// the records are to be left out of account.
pub(crate) fn representations(records: &[Value]) -> Vec<(&'static str, RecordBatch)> {
    let body = |records: &[Value]| {
        let mut body = Vec::new();
        for record in records {
            serde_json::to_writer(&mut body, record).unwrap();
            body.push(b'\n');
        }
        body
    };
    let plain = support::batch(&body(records));
    let none = DecodeLimits { max_dynamic_columns: 0, ..DecodeLimits::default() };
    let few = DecodeLimits { max_dynamic_columns: 1, ..DecodeLimits::default() };
    let mut batches = vec![
        ("overflow", support::batch_with(&body(records), none)),
        ("one column", support::batch_with(&body(records), few)),
    ];
    // A record with other types in the same fields makes columns of JSON texts.
    let mut mixed = records.to_vec();
    for record in records {
        let other = record.as_object().unwrap().iter().map(|(name, value)| {
            let other = if value.is_boolean() { json!(7) } else { json!(true) };
            (name.clone(), if value.is_object() { value.clone() } else { other })
        });
        mixed.push(Value::Object(other.collect()));
    }
    batches.push(("mixed", support::batch(&body(&mixed))));
    for (name, to) in [
        ("plain texts", DataType::Utf8),
        ("views", DataType::Utf8View),
        ("large texts", DataType::LargeUtf8),
    ] {
        batches.push((name, retyped(&plain, &to)));
    }
    batches.push(("plain", plain));
    batches
}

/// A batch with its texts in another type.
fn retyped(batch: &RecordBatch, to: &DataType) -> RecordBatch {
    let (mut fields, mut columns): (Vec<_>, Vec<ArrayRef>) = (Vec::new(), Vec::new());
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let text = matches!(field.data_type(), DataType::Utf8 | DataType::Dictionary(..));
        if text {
            fields.push(Arc::new(field.as_ref().clone().with_data_type(to.clone())));
            columns.push(cast(column, to).unwrap());
        } else {
            fields.push(Arc::clone(field));
            columns.push(Arc::clone(column));
        }
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

/// The ordinals of the rules that each record matches: by the matcher and by plain evaluation, over
/// every representation, which must all agree.
pub(crate) fn matched(rules: &RuleSet, records: &[Value]) -> Vec<Vec<u32>> {
    let matcher = rules.matcher();
    let mut hits = Hits::new();
    let mut first: Option<Vec<Vec<u32>>> = None;
    for (name, batch) in representations(records) {
        matcher.matches(&batch, &mut hits);
        let found: Vec<Vec<u32>> = (0..batch.num_rows()).map(|row| hits.of(row).to_vec()).collect();
        assert_eq!(found, matcher.matches_plainly(&batch), "plain evaluation, {name}");
        assert_eq!(found, crate::steps::in_steps(&matcher, &batch).0, "in steps, {name}");
        let found = found[..records.len()].to_vec();
        match &first {
            None => first = Some(found),
            Some(first) => assert_eq!(*first, found, "{name}: {records:?}"),
        }
    }
    first.unwrap()
}

/// A rule for all records with this detection.
pub(crate) fn rule(detection: &str) -> String {
    let detection: String = detection.lines().map(|line| format!("    {line}\n")).collect();
    format!("title: test\nlogsource: {{}}\ndetection:\n{detection}")
}

/// Whether a record matches a detection.
pub(crate) fn matches(detection: &str, record: &Value) -> bool {
    let rules = support::rules(&[&rule(detection)]);
    assert!(rules.refused().is_empty(), "{detection}\n{:?}", rules.refused());
    !matched(&rules, std::slice::from_ref(record))[0].is_empty()
}

const WINDOWS: &str = "
title: shapes
logsource: {product: windows, category: process_creation}
detection:
    selection:
        Image|endswith: '\\whoami.exe'
        Provider_Name: Microsoft-Windows-Sysmon
        ParentProcessId: 6304
    condition: selection
";

#[test]
fn a_record_is_found_in_whatever_shape_it_is_written() {
    let rules = support::rules(&[WINDOWS]);
    let channel = "Microsoft-Windows-Sysmon/Operational";
    let records = [
        json!({"Channel": channel, "EventID": 1, "Image": "C:\\x\\WHOAMI.exe", "ParentProcessId": "6304",
            "SourceName": "Microsoft-Windows-Sysmon"}),
        json!({"Event": {"System": {"Channel": channel, "EventID": 1,
            "Provider": {"#attributes": {"Name": "Microsoft-Windows-Sysmon"}}},
            "EventData": {"Image": "C:\\x\\whoami.exe", "ParentProcessId": 6304}}}),
        json!({"Event": {"System": {"Channel": channel,
            "EventID": {"#attributes": {"Qualifiers": 0}, "#text": 1},
            "Provider": {"#attributes": {"Name": "Microsoft-Windows-Sysmon"}}},
            "EventData": {"Image": "C:\\x\\whoami.exe", "ParentProcessId": 6304}}}),
        json!({"winlog": {"channel": channel, "event_id": "1", "provider_name": "Microsoft-Windows-Sysmon",
            "event_data": {"Image": "C:\\x\\whoami.exe", "ParentProcessId": "6304"}}}),
        json!({"winlog.channel": channel, "event.code": 1, "winlog.provider_name": "Microsoft-Windows-Sysmon",
            "process": {"executable": "C:\\x\\whoami.exe", "parent": {"pid": 6304}}}),
        json!({"logsource": {"product": "windows", "category": "process_creation"}, "Provider_Name":
            "Microsoft-Windows-Sysmon", "Image": "C:\\x\\whoami.exe", "Parent Process Id": 6304}),
        // The wrong event, the wrong channel, no channel.
        json!({"Channel": channel, "EventID": 5, "Image": "C:\\x\\whoami.exe", "ParentProcessId": 6304,
            "SourceName": "Microsoft-Windows-Sysmon"}),
        json!({"Channel": "Security", "EventID": 1, "Image": "C:\\x\\whoami.exe", "ParentProcessId": 6304,
            "SourceName": "Microsoft-Windows-Sysmon"}),
        json!({"EventID": 1, "Image": "C:\\x\\whoami.exe", "ParentProcessId": 6304,
            "SourceName": "Microsoft-Windows-Sysmon"}),
    ];
    let found: Vec<bool> =
        matched(&rules, &records).iter().map(|rules| !rules.is_empty()).collect();
    assert_eq!(found, [true, true, true, true, true, true, false, false, false]);
}

#[test]
fn a_field_that_went_to_a_core_column_is_found_under_the_name_it_was_sent_by() {
    for (field, record) in [
        ("TargetUserName", json!({"TargetUserName": "adm"})),
        ("Hostname", json!({"Hostname": "adm"})),
        ("Computer", json!({"Hostname": "x", "Computer": "adm"})),
        ("message", json!({"msg": "adm"})),
        ("user", json!({"user": {"name": "adm"}})),
        ("source", json!({"source": "adm"})),
        ("domain", json!({"domain": "adm"})),
        ("New Value", json!({"New Value": "adm"})),
        ("NewValue", json!({"New Value": "adm"})),
        ("a.b", json!({"a": [{"c": 1}, {"b": ["x", "adm"]}]})),
    ] {
        let detection = format!("selection:\n    {field}: adm\ncondition: selection");
        assert!(matches(&detection, &record), "{field} {record}");
    }
    assert!(!matches("selection:\n    source: test\ncondition: selection", &json!({"a": 1})));
}

#[test]
fn an_explanation_names_the_value_that_decided() {
    let rules = support::rules(&[WINDOWS]);
    let record = json!({"Channel": "Microsoft-Windows-Sysmon/Operational", "EventID": 1,
        "Image": "C:\\x\\whoami.exe", "ParentProcessId": 1, "Provider_Name": "microsoft-windows-sysmon"});
    let (_, batch) = representations(&[record]).remove(0);
    let explanation = rules.matcher().explain(&batch, 0, 0).unwrap();
    assert!(!explanation.matches);
    assert!(explanation.source.unwrap().fulfilled);
    let selection = &explanation.condition.parts[0];
    let lines: Vec<(&str, bool, Option<&str>)> = selection
        .parts
        .iter()
        .map(|part| (part.what.as_str(), part.fulfilled, part.value.as_deref()))
        .collect();
    assert_eq!(
        lines,
        [
            ("Image|endswith: *\\whoami.exe", true, Some("C:\\x\\whoami.exe")),
            ("Provider_Name: microsoft-windows-sysmon", true, Some("microsoft-windows-sysmon")),
            ("ParentProcessId", false, Some("1")),
        ]
    );
    assert!(rules.matcher().explain(&batch, 1, 0).is_none());
    assert!(rules.matcher().explain(&batch, 0, 1).is_none());
}
