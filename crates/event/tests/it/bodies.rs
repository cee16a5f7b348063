//! Finding records in bodies, good and bad.

use crate::support::{CTX, batch, builder, cell, decode};
use palisade_event::decode::{DecodeLimits, FrameBuilder, Outcome};

/// The values of `n` that went in, and the index and reason of what did not.
fn take(body: impl AsRef<[u8]>) -> (Vec<String>, Vec<(u64, String)>) {
    let (outcome, batch) = decode(body.as_ref());
    let rows = batch.as_ref().map_or(0, arrow::array::RecordBatch::num_rows);
    assert_eq!(outcome.accepted, rows as u64);
    assert_eq!(outcome.rejected.len() as u64, outcome.rejected_total);
    let batch = batch.as_ref();
    let values = (0..rows).map(|row| cell(batch.unwrap(), "n", row).unwrap_or_default()).collect();
    (values, outcome.rejected)
}

fn good(body: &str) -> String {
    let (values, rejected) = take(body);
    assert_eq!(rejected, [], "{body}");
    values.join(" ")
}

/// Which went in, and which were rejected.
fn mixed(body: impl AsRef<[u8]>) -> (String, Vec<u64>) {
    let (values, rejected) = take(body);
    (values.join(" "), rejected.into_iter().map(|(index, _)| index).collect())
}

#[test]
fn every_layout_is_recognised() {
    for body in [
        "{\"n\":1}\n{\"n\":2}\n{\"n\":3}",
        "{\"n\":1}\r\n\r\n{\"n\":2}\r\n{\"n\":3}\r\n",
        "\u{feff}{\"n\":1}{\"n\":2} {\"n\":3}",
        "[{\"n\":1},{\"n\":2},{\"n\":3}]",
        "[\n  {\"n\": 1},\n  {\"n\": 2},\n  {\"n\": 3}\n]\n",
        "[{\"n\":1}]\n[{\"n\":2}, {\"n\":3}]",
        "{\n  \"n\": 1\n}\n{\n  \"n\": 2\n}\n{\n\"n\":\n3}\n",
        "\u{1e}{\"n\":1}\n\u{1e}{\"n\":2}\n\u{1e}{\"n\":3}\n",
    ] {
        assert_eq!(good(body), "1 2 3", "{body}");
    }
    for body in ["", " \n\t ", "[]", "[ ]\n"] {
        assert_eq!(decode(body.as_bytes()), (Outcome::default(), None), "{body}");
    }
}

#[test]
fn a_bad_line_ends_at_its_newline() {
    for bad in [
        "{\"n\":1",
        "{\"n\":",
        "{\"n\"",
        "{",
        "{\"n\":1,",
        "{\"n\":[1,",
        "{\"n\":\"x",
        "{\"n\":1}}",
        "{\"n\":1,}",
        "{n:1}",
        "{\"n\":01}",
        "{\"n\":1.}",
        "{\"n\":tru}",
        "{\"n\":\"\\x\"}",
        "{\"n\":\"\\u12g4\"}",
        "{\"n\":\"a\tb\"}",
        "{\"n\" 1}",
        "{\"n\":1 \"m\":2}",
        "{'n':1}",
        "{\"n\":+1}",
        "{\"n\":NaN}",
        "{\"n\":1}x",
        "plain text",
        "17",
        "\"text\"",
        "null",
        "}",
        "]",
        ",",
        "{\"n\":[1 2]}",
        "{\"n\":{\"m\":1]}",
        "{\"n\":-}",
        "{\"n\":1e}",
        "{,}",
        "{\"a\":{\"n\":1}",
        "\"",
        "{\"n\":\"\\",
    ] {
        let body = format!("{{\"n\":0}}\n{bad}\n{{\"n\":2}}\n{bad}\r\n{{\"n\":4}}\n{bad}");
        let (values, rejected) = take(&body);
        let values = values.join(" ");
        // What stands before garbage on its line is a record of its own.
        let expected = if bad.starts_with("{\"n\":1}") { "0 1 2 1 4 1" } else { "0 2 4" };
        assert_eq!(values, expected, "{body}");
        assert_eq!(rejected.len(), 3, "{body}: {rejected:?}");
        // The same at the beginning of a body, where nothing is known of its layout yet.
        let (values, rejected) = mixed(format!("{bad}\n{{\"n\":1}}\n{{\"n\":2}}"));
        let expected = if bad.starts_with("{\"n\":1}") { "1 1 2" } else { "1 2" };
        // A line that ends with a colon or an open list may go on in the next.
        if !matches!(bad, "{\"n\":" | "{\"n\":[1,") {
            assert_eq!((values.as_str(), rejected.len()), (expected, 1), "{bad}");
        }
    }
}

#[test]
fn reasons_name_the_byte_and_what_was_expected() {
    let (_, rejected) =
        take("{\"n\":1}\n  {\"n\":1,\"m\" 2}\n[1]\n{\"n\":\"abc\n{\"n\":\"\\q\"}\n{\"a\":01}");
    let reasons: Vec<_> =
        rejected.iter().map(|(index, reason)| (*index, reason.as_str())).collect();
    assert_eq!(
        reasons,
        [
            (1, "byte 11 of the record: expected ':' after a key"),
            (2, "a record must be a JSON object"),
            (
                3,
                "byte 9 of the record: expected a string's closing quote (control characters must be escaped)"
            ),
            (4, "byte 7 of the record: expected an escape of \" \\ / b f n r t u"),
            (5, "byte 6 of the record: expected no digit after a leading zero"),
        ]
    );
}

#[test]
fn a_bad_record_of_an_array_or_of_several_lines_costs_no_other() {
    assert_eq!(mixed("[{\"n\":1},{\"n\":x},{\"n\":3}]"), ("1 3".into(), vec![1]));
    assert_eq!(
        mixed("[{\"n\":1},7,\"a,]\\\"\",[{\"n\":0}],null,{\"n\":6}]"),
        ("1 6".into(), vec![1, 2, 3, 4])
    );
    assert_eq!(mixed("[\n{\"n\":1},\n{\"n\":2,\n{\"n\":3}\n]"), ("1 3".into(), vec![1]));
    assert_eq!(mixed("[{\"n\":1},{\"n\":2}"), ("1 2".into(), vec![2]));
    assert_eq!(mixed("{\"n\":1}{\"n\":x}{\"n\":3}"), ("1 3".into(), vec![1]));
    let pretty = "{\n  \"n\": 1\n}\n{\n  \"n\": 2,\n  \"m\": [\n    {\n  \"x\" 1 }\n  ]\n}\n{\n  \"n\": 3\n}\n";
    assert_eq!(mixed(pretty), ("1 3".into(), vec![1]));
    let unclosed = "{\n  \"n\": 1\n}\n{\n  \"n\": 2,\n  \"m\": [\n\n{\n  \"n\": 3\n}\n";
    assert_eq!(mixed(unclosed), ("1 3".into(), vec![1]));
    assert_eq!(mixed("{\n  \"n\": 1,\n"), (String::new(), vec![0]));
}

#[test]
fn only_the_lines_with_invalid_utf8_are_rejected() {
    let (values, rejected) = take(b"{\"n\":1}\n{\"n\":\"\xff\"}\n{\"n\":\"\xc3\xa4\"}\n\xfe\n{\"\xc3\":1}\n{\"n\":\"\xed\xa0\x80\"}\n{\"n\":6}");
    assert_eq!(values, ["1", "\"ä\"", "6"]);
    let rejected: Vec<_> =
        rejected.iter().map(|(index, reason)| (*index, reason.as_str())).collect();
    assert_eq!(
        rejected,
        [
            (1, "byte 6 of the record: invalid UTF-8"),
            (3, "a record must be a JSON object"),
            (4, "byte 2 of the record: invalid UTF-8"),
            (5, "byte 6 of the record: invalid UTF-8"),
        ]
    );
}

#[test]
fn records_are_bounded_in_size_depth_and_keys() {
    let limits = DecodeLimits {
        max_record_bytes: 100,
        max_keys: 4,
        max_depth: 3,
        max_records_per_request: 9,
        ..DecodeLimits::default()
    };
    let mut builder = FrameBuilder::new(limits);
    let long = "x".repeat(100);
    let fits = "x".repeat(92);
    let body = [
        "{\"n\":0}".to_owned(),
        format!("{{\"n\":\"{long}\"}}"),
        format!("{{\"n\":\"{fits}\"}}"),
        "{\"n\":3,\"b\":[[1]],\"c\":{\"d\":{}}}".to_owned(),
        "{\"n\":4,\"b\":[[[1]]]}".to_owned(),
        "{\"n\":5,\"b\":{\"c\":{\"d\":{}}}}".to_owned(),
        "{\"n\":6,\"b\":[{\"c\":1,\"d\":2}],\"e\":1}".to_owned(),
        "{\"n\":7,\"b\":[{\"c\":1,\"d\":2}]}".to_owned(),
        "{\"n\":8}".to_owned(),
        "{\"n\":9}".to_owned(),
        "{\"n\":10}".to_owned(),
    ];
    let outcome = builder.push_json_body(&CTX, body.join("\n").as_bytes());
    let reasons: Vec<_> =
        outcome.rejected.iter().map(|(index, reason)| (*index, reason.as_str())).collect();
    assert_eq!(
        reasons,
        [
            (1, "the record is larger than 100 bytes: split it or raise the limit"),
            (4, "byte 13 of the record: nested deeper than 3 levels"),
            (5, "byte 21 of the record: nested deeper than 3 levels"),
            (6, "the record has more than 4 keys"),
            (9, "the request has more than 9 records: send several requests"),
            (10, "the request has more than 9 records: send several requests"),
        ]
    );
    assert_eq!(outcome.accepted, 5);
    assert_eq!(builder.finish().unwrap().num_rows(), 5);
}

#[test]
fn hostile_bodies_are_refused_in_time() {
    // Each of these would cost much more than its length if recovery or rollback were naive.
    let deep = "[".repeat(1 << 20);
    let deep_object = "{\"a\":".repeat(1 << 18);
    let braces = "{\n".repeat(1 << 19);
    let bad_lines = "{\"a\":1,x}\n".repeat(100_000);
    let open_lists = "{\"a\":[\n".repeat(1 << 17);
    let strings = "\"\n".repeat(1 << 19);
    let quotes = format!("{{\"a\":\"{}", "\\\"".repeat(1 << 20));
    let keys: String = (0..20_000).map(|n| format!("\"k{n}\":1,")).collect();
    let many_keys = format!("{{{keys}\"z\":1}}\n").repeat(5);
    let junk: String = (0..200)
        .map(|m| {
            let keys: Vec<_> = (0..500).map(|n| format!("\"k{m}_{n}\":1")).collect();
            format!("{{{},!}}\n", keys.join(","))
        })
        .collect();
    for body in [deep, deep_object, braces, bad_lines, open_lists, strings, quotes, many_keys, junk]
    {
        let start = std::time::Instant::now();
        let mut builder = builder();
        let outcome = builder.push_json_body(&CTX, body.as_bytes());
        assert_eq!(outcome.accepted, 0);
        assert!(outcome.rejected_total > 0 && outcome.rejected.len() <= Outcome::MOST_REASONS);
        assert!(builder.finish().is_none());
        let elapsed = start.elapsed();
        assert!(elapsed.as_secs() < 10, "{elapsed:?} for {}", &body[..40]);
    }
}

#[test]
fn long_lines_pass() {
    let text = "ab\\n\u{e4}".repeat(50_000);
    let batch = batch(&format!("{{\"n\":\"{text}\",\"message\":\"{text}\"}}"));
    let expected = serde_json::to_string(&"ab\n\u{e4}".repeat(50_000)).unwrap();
    assert_eq!(cell(&batch, "n", 0).unwrap(), expected);
    assert_eq!(cell(&batch, "message", 0).unwrap(), expected);
}
