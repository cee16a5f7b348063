//! Where values go.

use crate::support::{CLOCK, CTX, Row, batch, builder, cell, decode, expect, fields, row};
use arrow::datatypes::DataType;
use palisade_event::decode::{
    DecodeLimits, FURTHER_SOURCES, FieldValue, FrameBuilder, RequestContext,
};
use palisade_event::id::RecordId;
use palisade_event::schema::{self, Core};
use std::sync::Arc;

fn one(record: &str) -> Row {
    fields(&batch(record), 0)
}

#[test]
fn values_go_to_the_core_column_of_their_alias_and_others_to_their_own() {
    let row = one(
        r#"{"@timestamp":"2023-10-08T00:00:00Z","event":{"id":"e1","action":"login","outcome":"failure"},
            "user":{"name":"alice","id":7},"host.name":"web1","source":{"ip":"10.0.0.1","port":"443","geo":{"name":"Berlin"}},
            "dst_port":22,"threatScore":1,"ok":true,"ratio":0.25,"n":-3,"empty":{},"list":[1, "a"],"none":null}"#,
    );
    assert_eq!(
        row,
        expect(&[
            ("event_id", r#""e1""#),
            ("type", r#""login""#),
            ("outcome", r#""failure""#),
            ("user", r#""alice""#),
            ("user.id", "7"),
            ("host", r#""web1""#),
            ("src_ip", r#""10.0.0.1""#),
            ("src_port", "443"),
            ("location", r#""Berlin""#),
            ("dst_port", "22"),
            ("reported_threat_score", "1.0"),
            ("ok", "true"),
            ("ratio", "0.25"),
            ("n", "-3"),
            ("empty", "{}"),
            ("list", r#"[1, "a"]"#),
        ])
    );
}

#[test]
fn what_does_not_fit_or_comes_twice_is_kept_beside() {
    assert_eq!(
        one(r#"{"src_port":"abc","sourcePort":"08","user":["a"],"username":"b","type":{}}"#),
        expect(&[
            ("user", r#""b""#),
            ("sourcePort", r#""08""#),
            ("overflow", r#"{"src_port":"abc","user":["a"],"type":{}}"#),
        ])
    );
    assert_eq!(
        one(r#"{"username":"a","user_name":"b","user":"c","a":1,"a":"x\n\"","a":[2]}"#),
        expect(&[
            ("user", r#""a""#),
            ("user_name", r#""b""#),
            ("a", "1"),
            ("overflow", r#"{"user":"c","a":"x\n\"","a":[2]}"#),
        ])
    );
    assert_eq!(
        one(r#"{"a":{"b":1},"a.b":2,"":3,"event_id":"","status":404,"user":true}"#),
        expect(&[
            ("a.b", "1"),
            ("outcome", r#""404""#),
            ("user", r#""true""#),
            ("overflow", r#"{"a.b":2,"":3,"event_id":""}"#),
        ])
    );
    for port in ["-1", "65536", "1.0", "1e2", "\"\"", "\"+1\"", "\"65536\"", "true", "\"00\""] {
        let row = one(&format!(r#"{{"srcport":{port}}}"#));
        assert!(!row.contains_key("src_port") && row.contains_key("srcport"), "{port}: {row:?}");
    }
    assert_eq!(one(r#"{"srcport":"0"}"#), expect(&[("src_port", "0")]));
    assert_eq!(one(r#"{"srcport":65535}"#), expect(&[("src_port", "65535")]));
}

#[test]
fn names_of_derived_columns_are_set_apart() {
    assert_eq!(
        one(
            r#"{"entropy":5,"tenant":"evil","source":"x","position":1,"threat_score":0.5,"overflow":"o","record_id":"r","anomaly_score":"high","reputation":255}"#
        ),
        expect(&[
            ("sent.entropy", "5"),
            ("sent.tenant", r#""evil""#),
            ("sent.source", r#""x""#),
            ("sent.position", "1"),
            ("sent.overflow", r#""o""#),
            ("sent.record_id", r#""r""#),
            ("sent.anomaly_score", r#""high""#),
            ("sent.reputation", "255"),
            ("reported_threat_score", "0.5"),
        ])
    );
    assert_eq!(
        one(r#"{"threat_score":"high","entropy":1,"sent":{"entropy":2}}"#),
        expect(&[
            ("sent.threat_score", r#""high""#),
            ("sent.entropy", "1"),
            ("overflow", r#"{"sent.entropy":2}"#),
        ])
    );
    let batch = batch(r#"{"tenant":"evil"}"#);
    assert_eq!(cell(&batch, "tenant", 0).unwrap(), r#""acme""#);
}

#[test]
fn numbers_that_no_type_gives_back_keep_their_text() {
    let row = one(
        r#"{"a":9223372036854775807,"b":9223372036854775808,"c":0.1,"d":0.12345678901234567891,"e":1e400,"f":-0,"g":1e3,"h":1.50,"event_id":18446744073709551615}"#,
    );
    assert_eq!(
        row,
        expect(&[
            ("a", "9223372036854775807"),
            ("b", "9223372036854775808"),
            ("c", "0.1"),
            ("d", "0.12345678901234567891"),
            ("e", "1e400"),
            ("f", "-0.0"),
            ("g", "1000.0"),
            ("h", "1.5"),
            ("event_id", r#""18446744073709551615""#),
        ])
    );
}

#[test]
fn a_column_of_several_types_holds_json_texts() {
    let batch = batch(
        "{\"a\":\"x\"}\n{\"a\":1}\n{}\n{\"a\":\"1\"}\n{\"a\":true}\n{\"a\":[1]}\n{\"a\":\"\\u00e4\\\"\"}",
    );
    let field = batch.schema_ref().field_with_name("a").unwrap();
    assert!(schema::is_json(field));
    let values: Vec<_> = (0..7).map(|row| cell(&batch, "a", row)).collect();
    let expected = [
        Some(r#""x""#),
        Some("1"),
        None,
        Some(r#""1""#),
        Some("true"),
        Some("[1]"),
        Some(r#""ä\"""#),
    ];
    assert_eq!(values, expected.map(|value| value.map(str::to_owned)));
    // Integers and fractions are two types: a value is kept as received.
    let numbers = crate::support::batch("{\"a\":1}{\"a\":1.5}");
    assert_eq!(cell(&numbers, "a", 0).unwrap(), "1");
}

#[test]
fn columns_stand_in_order_and_only_where_there_are_values() {
    let batch = batch(r#"{"zeta":1,"message":"m","alpha":2,"user":"u","nothing":null}"#);
    let names: Vec<_> = batch.schema_ref().fields().iter().map(|f| f.name().as_str()).collect();
    assert_eq!(
        names,
        [
            "tenant",
            "time",
            "ingest_time",
            "source",
            "record_id",
            "user",
            "message",
            "alpha",
            "zeta"
        ]
    );
    for core in
        [Core::Tenant, Core::Time, Core::IngestTime, Core::Source, Core::RecordId, Core::Message]
    {
        let field = batch.schema_ref().field_with_name(core.name()).unwrap();
        assert_eq!(field, core.field().as_ref());
    }
}

#[test]
fn texts_that_repeat_get_a_dictionary_and_others_none() {
    let mut builder = builder();
    for frame in 0..3 {
        let lines: Vec<String> = (0..2_000)
            .map(|n| {
                format!(r#"{{"few":"v{}","many":"v{frame}-{n}","user":"u{}"}}"#, n % 7, n % 100)
            })
            .collect();
        builder.push_json_body(&CTX, lines.join("\n").as_bytes());
        let batch = builder.finish().unwrap();
        let of = |name: &str| batch.column_by_name(name).unwrap().data_type().clone();
        assert_eq!(of("few"), schema::dictionary());
        assert_eq!(of("user"), schema::dictionary());
        assert_eq!(of("many"), DataType::Utf8);
        assert_eq!(cell(&batch, "many", 1_999).unwrap(), format!("\"v{frame}-1999\""));
        assert_eq!(cell(&batch, "few", 9).unwrap(), "\"v2\"");
    }
}

#[test]
fn equal_frames_share_their_schema() {
    let mut builder = builder();
    let mut frame = || {
        builder.push_json_body(&CTX, br#"{"a":1,"b":"x"}"#);
        builder.finish().unwrap()
    };
    let (first, second) = (frame(), frame());
    assert!(Arc::ptr_eq(first.schema_ref(), second.schema_ref()));
}

#[test]
fn sparse_columns_are_null_where_no_row_set_them() {
    let lines: Vec<String> = (0..100)
        .map(|n| match n % 4 {
            0 => format!(r#"{{"all":{n},"t0":"x{n}","i0":{n}}}"#),
            1 => format!(r#"{{"all":{n},"f1":{n}.5,"b1":{}}}"#, n % 8 == 1),
            2 => format!(r#"{{"all":{n},"i0":{n},"src_port":{n}}}"#),
            _ => format!(r#"{{"all":{n},"event_id":"e{n}"}}"#),
        })
        .collect();
    let batch = batch(&lines.join("\n"));
    for n in 0..100 {
        let at = |name: &str| cell(&batch, name, n);
        let on = |classes: &[usize], value: String| classes.contains(&(n % 4)).then_some(value);
        assert_eq!(at("all"), Some(n.to_string()));
        assert_eq!(at("t0"), on(&[0], format!("\"x{n}\"")));
        assert_eq!(at("i0"), on(&[0, 2], n.to_string()));
        assert_eq!(at("f1"), on(&[1], format!("{n}.5")));
        assert_eq!(at("b1"), on(&[1], (n % 8 == 1).to_string()));
        assert_eq!(at("src_port"), on(&[2], n.to_string()));
        assert_eq!(at("event_id"), on(&[3], format!("\"e{n}\"")));
        assert_eq!(at("record_id").is_some(), n % 4 != 3);
    }
}

#[test]
fn the_first_time_that_reads_is_the_time() {
    let time = |record: &str| cell(&batch(record), "time", 0).unwrap().parse::<i64>().unwrap();
    assert_eq!(time(r#"{"a":1}"#), CLOCK);
    assert_eq!(time(r#"{"timestamp":1696723199000}"#), CLOCK - 1_000_000);
    assert_eq!(time(r#"{"ts":1696723199.25}"#), CLOCK - 750_000);
    assert_eq!(time(r#"{"ts":"1696723199"}"#), CLOCK - 1_000_000);
    assert_eq!(
        time(r#"{"timestamp":"yesterday","@timestamp":"2023-10-07T23:59:59Z"}"#),
        CLOCK - 1_000_000
    );
    assert_eq!(
        one(r#"{"timestamp":"yesterday","EventTime":1696723200,"time":5}"#),
        expect(&[("timestamp", r#""yesterday""#), ("overflow", r#"{"time":5}"#)])
    );
    assert_eq!(
        one(r#"{"EventTime":1696723200,"@timestamp":1696723201}"#),
        expect(&[("@timestamp", "1696723201")])
    );
}

#[test]
fn a_time_too_far_ahead_is_claimed_only() {
    let record = format!(r#"{{"time":{}}}"#, CLOCK + 300_000_001);
    let mut builder = builder();
    builder.push_json_body(&CTX, record.as_bytes());
    builder.push_json_body(&CTX, format!(r#"{{"time":{}}}"#, CLOCK + 300_000_000).as_bytes());
    builder.push_json_body(&RequestContext { domain: Some("import-1"), ..CTX }, record.as_bytes());
    assert_eq!(builder.stats().future_times, 1);
    let batch = builder.finish().unwrap();
    let times: Vec<_> = (0..3).map(|row| cell(&batch, "time", row).unwrap()).collect();
    assert_eq!(times, [CLOCK, CLOCK + 300_000_000, CLOCK + 300_000_001].map(|t| t.to_string()));
    let claimed: Vec<_> = (0..3).map(|row| cell(&batch, "claimed_time", row)).collect();
    assert_eq!(claimed, [Some((CLOCK + 300_000_001).to_string()), None, None]);
    let domains: Vec<_> = (0..3).map(|row| cell(&batch, "domain", row)).collect();
    assert_eq!(domains, [None, None, Some("\"import-1\"".to_owned())]);
    assert_eq!(builder.stats().future_times, 0);
}

#[test]
fn ids_come_from_the_sender_the_key_or_the_place() {
    let body = b"{\"event_id\":\"e\"}\nbad\n{\"a\":1}";
    let mut builder = builder();
    builder.push_json_body(&CTX, body);
    builder.push_json_body(&RequestContext { key: Some("k"), request: 5, ..CTX }, body);
    let batch = builder.finish().unwrap();
    let ids: Vec<_> = (0..4).map(|row| cell(&batch, "record_id", row)).collect();
    let place = RecordId::from_place(CTX.gateway, 4, 2).to_string();
    let key = RecordId::from_key("acme", "app", "k", 2).to_string();
    assert_eq!(ids, [None, Some(place), None, Some(key)]);
}

#[test]
fn a_bulk_record_takes_the_id_that_its_action_gave() {
    let mut builder = builder();
    builder
        .push_json_record(&CTX, 0, br#"{"event_id":"own","eventId":"other","a":1}"#, Some("given"))
        .unwrap();
    let error = builder.push_json_record(&CTX, 1, br#"{"a":1} x"#, Some("given")).unwrap_err();
    assert_eq!(error, "byte 8 of the record: expected nothing after the record");
    assert!(builder.push_json_record(&CTX, 2, b"[]", None).is_err());
    assert!(
        builder.push_json_record(&CTX, 3, b"{\"a\":\"\xff\"}", None).unwrap_err().contains("UTF-8")
    );
    let batch = builder.finish().unwrap();
    assert_eq!(batch.num_rows(), 1);
    assert_eq!(
        fields(&batch, 0),
        expect(&[
            ("event_id", r#""given""#),
            ("eventId", r#""other""#),
            ("a", "1"),
            ("overflow", r#"{"event_id":"own"}"#)
        ])
    );
}

#[test]
fn lines_and_fields_become_rows() {
    let mut builder = builder();
    builder.push_line(&CTX, 0, "a line \"as it is\"").unwrap();
    assert!(builder.push_line(&CTX, 1, "").is_err());
    let mut fields_of_syslog = [
        ("timestamp", FieldValue::Time(CLOCK - 5)),
        ("hostname", FieldValue::Text("web1")),
        ("syslog.severity", FieldValue::Int(3)),
        ("ratio", FieldValue::Float(0.5)),
        ("nan", FieldValue::Float(f64::NAN)),
        ("ok", FieldValue::Bool(true)),
        ("user", FieldValue::Json(r#"{"name":"bob","tags":["\u0041"]}"#)),
        ("message", FieldValue::Text("say \"hi\"")),
        ("message", FieldValue::Text("twice \"\n")),
    ]
    .into_iter();
    builder.push_fields(&CTX, 2, &mut fields_of_syslog).unwrap();
    let broken = builder.push_fields(&CTX, 3, &mut [("a", FieldValue::Json("{} x"))].into_iter());
    assert!(broken.is_err());
    let batch = builder.finish().unwrap();
    assert_eq!(fields(&batch, 0), expect(&[("message", r#""a line \"as it is\"""#)]));
    assert_eq!(cell(&batch, "time", 1).unwrap(), (CLOCK - 5).to_string());
    assert_eq!(
        fields(&batch, 1),
        expect(&[
            ("host", r#""web1""#),
            ("syslog.severity", "3"),
            ("ratio", "0.5"),
            ("ok", "true"),
            ("user", r#""bob""#),
            ("user.tags", r#"["\u0041"]"#),
            ("message", r#""say \"hi\"""#),
            ("overflow", r#"{"message":"twice \"\n"}"#),
        ])
    );
    assert_eq!(batch.num_rows(), 2);
}

#[test]
fn fields_past_the_column_limit_go_to_the_overflow_and_blind_nobody() {
    let limits = DecodeLimits {
        max_dynamic_columns: 3,
        protected: Arc::new(["winlog.event_data.Image".to_owned()].into()),
        ..DecodeLimits::default()
    };
    let mut builder = FrameBuilder::new(limits);
    let junk = r#"{"j1":1,"j2":"x","j3":true,"j4":{"k":"\u0001"},"j5":1.5,"user":"eve","winlog":{"event_data":{"Image":"cmd.exe","IpAddress":"1.2.3.4"}},"j1":2}"#;
    assert_eq!(builder.push_json_body(&CTX, junk.as_bytes()).accepted, 1);
    // Another source has columns of its own.
    let other = RequestContext { source: "other", ..CTX };
    builder.push_json_body(&other, br#"{"j4":{"k":"seen"},"z":1}"#);
    let stats = builder.stats();
    assert_eq!(stats.limited_sources, [("acme".to_owned(), "app".to_owned())]);
    assert_eq!((stats.limited_fields, stats.overflow_fields), (2, 3));
    let batch = builder.finish().unwrap();
    assert_eq!(
        fields(&batch, 0),
        expect(&[
            ("j1", "1"),
            ("j2", r#""x""#),
            ("j3", "true"),
            ("user", r#""eve""#),
            ("src_ip", r#""1.2.3.4""#),
            ("winlog.event_data.Image", r#""cmd.exe""#),
            ("overflow", r#"{"j4.k":"\u0001","j5":1.5,"j1":2}"#),
        ])
    );
    assert_eq!(fields(&batch, 1), expect(&[("j4.k", r#""seen""#), ("z", "1")]));
    // The next frame begins with no column in use.
    builder.push_json_body(&CTX, br#"{"j5":1,"j4":{"k":2}}"#);
    assert_eq!(builder.stats().limited_sources, []);
    assert_eq!(fields(&builder.finish().unwrap(), 0), expect(&[("j5", "1"), ("j4.k", "2")]));
}

#[test]
fn a_rejected_record_uses_up_no_column() {
    let limits =
        DecodeLimits { max_dynamic_columns: 2, max_frame_columns: 2, ..DecodeLimits::default() };
    let mut builder = FrameBuilder::new(limits);
    let outcome = builder.push_json_body(&CTX, b"{\"x\":1,\"y\":2,\"a\":3,!}\n{\"a\":1,\"b\":2}");
    assert_eq!(outcome.accepted, 1);
    assert_eq!(builder.stats().overflow_fields, 0);
    assert_eq!(fields(&builder.finish().unwrap(), 0), expect(&[("a", "1"), ("b", "2")]));
}

#[test]
fn sources_and_tenants_share_a_frame() {
    let mut builder = builder();
    for (tenant, source, clock) in [("a", "s", 1), ("b", "s", 1), ("a", "t", 1), ("a", "s", 2)] {
        let ctx = RequestContext { tenant, source, clock: CLOCK + clock, ..CTX };
        builder.push_json_body(&ctx, br#"{"n":1}{"n":2}"#);
    }
    let batch = builder.finish().unwrap();
    let rows: Vec<_> = (0..8)
        .map(|n| {
            let mut row = row(&batch, n);
            (
                row.remove("tenant").unwrap(),
                row.remove("source").unwrap(),
                row.remove("ingest_time").unwrap(),
            )
        })
        .collect();
    let of = |tenant: &str, source: &str, clock: i64| {
        (format!("\"{tenant}\""), format!("\"{source}\""), (CLOCK + clock).to_string())
    };
    let expected = [("a", "s", 1), ("b", "s", 1), ("a", "t", 1), ("a", "s", 2)];
    let expected: Vec<_> =
        expected.iter().flat_map(|(t, s, c)| [of(t, s, *c), of(t, s, *c)]).collect();
    assert_eq!(rows, expected);
}

#[test]
fn lone_surrogates_hide_no_record() {
    let mut builder = builder();
    let outcome = builder.push_json_body(
        &CTX,
        br#"{"a":"x\ud800y","b":["\udc00","\ud83d\ude00","\\ud800"],"c":"\ud83d\ude00","d":"\ud800\u0041"}"#,
    );
    assert_eq!(outcome.accepted, 1);
    assert_eq!(builder.stats().replaced_surrogates, 3);
    assert_eq!(
        fields(&builder.finish().unwrap(), 0),
        expect(&[
            ("a", "\"x\u{fffd}y\""),
            ("b", r#"["\ufffd","\ud83d\ude00","\\ud800"]"#),
            ("c", "\"😀\""),
            ("d", "\"\u{fffd}A\""),
        ])
    );
}

#[test]
fn keys_with_escapes_are_keys_like_others() {
    let batch =
        batch("{\"a\\\"b\":1,\"\\u0063\":2}\n{\"a\\\"b\":3,\"c\":4}\n{\"a\\\"b\":5,\"\\u0063\":6}");
    let values =
        |name: &str| (0..3).map(|row| cell(&batch, name, row).unwrap()).collect::<Vec<_>>();
    assert_eq!(values("a\"b"), ["1", "3", "5"]);
    assert_eq!(values("c"), ["2", "4", "6"]);
    // What was predicted from an escaped key is no licence for the bare one.
    let (outcome, _) = decode(b"{\"a\\\"b\":1}\n{\"a\"b\":1}");
    assert_eq!((outcome.accepted, outcome.rejected_total), (1, 1));
}

#[test]
fn sources_past_the_bound_share_one_column_limit_and_keep_their_names() {
    let limits = DecodeLimits { max_sources: 2, max_dynamic_columns: 3, ..DecodeLimits::default() };
    let mut builder = FrameBuilder::new(limits);
    for frame in 0..3 {
        for number in 0..40 {
            let name = format!("source-{number}");
            let ctx = RequestContext { source: &name, request: number, ..CTX };
            let body = format!("{{\"a{number}\":1,\"b{number}\":2}}");
            assert_eq!(builder.push_json_body(&ctx, body.as_bytes()).accepted, 1);
        }
        let other = RequestContext { tenant: "other", source: "source-9", ..CTX };
        builder.push_json_body(&other, b"{\"own1\":1,\"own2\":2,\"own3\":3}");
        let stats = builder.stats();
        assert_eq!(stats.further_source_records, 38, "frame {frame}");
        let shared = (CTX.tenant.to_owned(), FURTHER_SOURCES.to_owned());
        assert_eq!(stats.limited_sources, [shared], "named once, and only they are limited");
        let batch = builder.finish().unwrap();
        let dynamic = batch
            .schema_ref()
            .fields()
            .iter()
            .filter(|field| Core::by_name(field.name()).is_none())
            .count();
        // Two sources of two columns, three for all the others, three of the other tenant.
        assert_eq!(dynamic, 10);
        for number in 0..40 {
            let row = row(&batch, number);
            assert_eq!(row["source"], format!("\"source-{number}\""), "frame {frame}");
            // Nothing is lost: a field has its column or stands in the overflow.
            let overflow = row.get("overflow").cloned().unwrap_or_default();
            for name in ["a", "b"] {
                let name = format!("{name}{number}");
                assert!(
                    row.contains_key(&name) || overflow.contains(&format!("\"{name}\"")),
                    "{row:?}"
                );
            }
        }
        assert_eq!(row(&batch, 40)["own3"], "3");
    }
}

#[test]
fn a_tenant_brings_a_bounded_number_of_columns_whatever_the_number_of_frames() {
    let limits = DecodeLimits { max_tenant_columns: 5, ..DecodeLimits::default() };
    let mut builder = FrameBuilder::new(limits);
    let mut seen = std::collections::BTreeSet::new();
    let mut push = |tenant: &str, source: &str, clock: i64, name: &str| {
        let ctx = RequestContext { tenant, source, clock, ..CTX };
        let body = format!("{{\"{name}\":1,\"steady\":2}}");
        assert_eq!(builder.push_json_body(&ctx, body.as_bytes()).accepted, 1);
        let limited = builder.stats().limited_fields;
        let batch = builder.finish().unwrap();
        let row = row(&batch, 0);
        let value = row.get(name).cloned();
        let overflow = row.get("overflow").cloned().unwrap_or_default();
        // The field is in its column, or stands in the overflow and was counted.
        assert_eq!(value.is_none(), overflow.contains(name), "{row:?}");
        assert_eq!(limited, u64::from(value.is_none()));
        assert_eq!(row["steady"], "2", "what has a column keeps it");
        value.is_some()
    };
    for number in 0..50 {
        let name = format!("new{number}");
        if push("acme", &format!("source{}", number % 3), CLOCK, &name) {
            seen.insert(name);
        }
    }
    assert_eq!(seen.len(), 4, "and the steady one: {seen:?}");
    assert!(push("acme", "source9", CLOCK, "new0"), "what has a column keeps it");
    assert!(push("other", "source0", CLOCK, "theirs"), "another tenant has its own");
    // A day later there is room again.
    assert!(push("acme", "source0", CLOCK + 86_401_000_000, "later"));
}
