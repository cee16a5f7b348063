//! Laws that hold for all documents and all bytes.

use crate::support::{CTX, Row, builder, cell, decode, fields, row};
use arrow::array::RecordBatch;
use palisade_event::decode::{DecodeLimits, FrameBuilder, fuzz_json};
use palisade_event::encode::{RowEncoder, RowView, encode_row};
use palisade_event::schema::{self, Core};
use palisade_event::time;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// A JSON value with its members in order, names possibly repeated.
#[derive(Debug, Clone)]
enum Json {
    Null,
    Bool(bool),
    /// As written.
    Number(String),
    Text(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

fn text_of_chars(
    characters: impl Strategy<Value = char>,
    length: std::ops::Range<usize>,
) -> impl Strategy<Value = String> {
    prop::collection::vec(characters, length).prop_map(String::from_iter)
}

fn letters(last: char, length: std::ops::Range<usize>) -> impl Strategy<Value = String> {
    text_of_chars(prop::char::range('a', last), length)
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => prop::sample::select(vec![
            "a", "b", "c", "a.b", "user", "username", "user.name", "name", "src_ip", "ip", "source", "src_port", "sourcePort",
            "type", "message", "msg", "event_id", "eventId", "timestamp", "@timestamp", "time", "threat_score", "threatScore",
            "entropy", "tenant", "overflow", "sent", "sent.entropy", "metadata", "", "host", "status",
        ]).prop_map(str::to_owned),
        1 => letters('c', 1..3),
        1 => text_of_chars(any::<char>(), 0..7),
        1 => prop::sample::select(vec!["q\"k", "back\\slash", "new\nline", "ä", "."]).prop_map(str::to_owned),
    ]
}

fn scalar() -> impl Strategy<Value = Json> {
    prop_oneof![
        1 => Just(Json::Null),
        1 => any::<bool>().prop_map(Json::Bool),
        2 => any::<i64>().prop_map(|n| Json::Number(n.to_string())),
        2 => (0i64..70_000).prop_map(|n| Json::Number(n.to_string())),
        1 => (1_600_000_000i64..1_700_000_000).prop_map(|n| Json::Number(n.to_string())),
        2 => any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(|f| Json::Number(serde_json::to_string(&f).unwrap())),
        1 => prop::sample::select(vec!["123456789012345678901", "1e400", "0.1234567890123456789012"]).prop_map(|t| Json::Number(t.to_owned())),
        4 => letters('z', 0..5).prop_map(Json::Text),
        2 => text_of_chars(any::<char>(), 0..13).prop_map(Json::Text),
        1 => text_of_chars(
            prop_oneof![6 => any::<char>(), 6 => prop::char::range(' ', '~'), 1 => prop::sample::select(vec!['"', '\\', '\n', '\t', '\u{1}'])],
            0..90,
        ).prop_map(Json::Text),
        1 => prop::sample::select(vec!["443", "2023-10-07T12:00:00Z", "0.5", "true"]).prop_map(|t| Json::Text(t.to_owned())),
    ]
}

fn object() -> impl Strategy<Value = Json> {
    let value = scalar().prop_recursive(3, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Json::Array),
            prop::collection::vec((key(), inner), 0..4).prop_map(Json::Object),
        ]
    });
    prop::collection::vec((key(), value), 0..9).prop_map(Json::Object)
}

/// Writes a value; `style` decides about white space and escapes.
fn write(value: &Json, style: &mut u64, out: &mut String) {
    let mut choice = |n: u64| {
        *style =
            style.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*style >> 33) % n
    };
    match value {
        Json::Null => out.push_str("null"),
        Json::Bool(value) => out.push_str(&value.to_string()),
        Json::Number(text) => out.push_str(text),
        Json::Text(text) => {
            out.push('"');
            for character in text.chars() {
                if choice(12) == 0 {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        out.push_str(&format!("\\u{unit:04X}"));
                    }
                } else {
                    let quoted = serde_json::to_string(&character).unwrap();
                    out.push_str(&quoted[1..quoted.len() - 1]);
                }
            }
            out.push('"');
        }
        Json::Array(values) => {
            out.push('[');
            for (index, value) in values.iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                write(value, style, out);
            }
            out.push(']');
        }
        Json::Object(members) => {
            let space = [" ", "", "", "", "\t"][choice(5) as usize];
            out.push('{');
            for (index, (key, value)) in members.iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                out.push_str(space);
                write(&Json::Text(key.clone()), style, out);
                out.push_str(space);
                out.push(':');
                out.push_str(space);
                write(value, style, out);
            }
            out.push('}');
        }
    }
}

fn text_of(value: &Json, style: u64) -> String {
    let mut out = String::new();
    write(value, &mut { style }, &mut out);
    out
}

/// The leaves of a document in their order; `path` is the name of what is inside.
fn leaves<'a>(path: Option<&str>, value: &'a Json, out: &mut Vec<(String, &'a Json)>) {
    match value {
        Json::Object(members) if path.is_none() || !members.is_empty() => {
            for (key, value) in members {
                let path = path.map_or_else(|| key.clone(), |path| format!("{path}.{key}"));
                leaves(Some(&path), value, out);
            }
        }
        Json::Null => {}
        leaf => out.push((path.unwrap_or_default().to_owned(), leaf)),
    }
}

/// JSON text in a form that does not depend on escapes and spelling of numbers.
fn normal(text: &str) -> String {
    serde_json::from_str::<serde_json::Value>(&readable(text)).unwrap().to_string()
}

/// The one number of the generators that serde_json does not read, as one that it does.
fn readable(text: &str) -> String {
    text.replace("1e400", "1e300")
}

/// What a row must hold: columns by name, and the overflow in its order. Written after the rules in
/// the documentation of `decode`, with none of its code.
fn expected_row(document: &Json) -> (BTreeMap<String, String>, Vec<(String, String)>) {
    let mut all = Vec::new();
    leaves(None, document, &mut all);
    let mut columns = BTreeMap::new();
    let mut overflow = Vec::new();
    for (path, value) in all {
        let text = text_of(value, u64::MAX);
        let core = schema::alias(&path).filter(|core| !columns.contains_key(core.name()));
        let fitting = core.and_then(|core| {
            Some((
                core.name().to_owned(),
                match core {
                    Core::Time => match value {
                        Json::Text(text) => time::parse_event_time(text, CTX.clock)?,
                        Json::Number(text) => time::parse_number(text)?,
                        _ => return None,
                    }
                    .to_string(),
                    Core::SrcPort | Core::DstPort => {
                        let (Json::Text(text) | Json::Number(text)) = value else { return None };
                        text.parse::<u16>()
                            .ok()
                            .filter(|port| port.to_string() == *text)?
                            .to_string()
                    }
                    Core::ReportedThreatScore => {
                        let (Json::Text(text) | Json::Number(text)) = value else { return None };
                        let number = text.parse::<f64>().ok()?;
                        let exact = text.parse::<i64>().map_or_else(
                            |_| serde_json::to_string(&number).unwrap() == *text,
                            |whole| whole.unsigned_abs() <= 1 << 53,
                        );
                        exact.then(|| serde_json::to_string(&number).unwrap())?
                    }
                    _ => match value {
                        Json::Text(text) if core == Core::EventId && text.is_empty() => {
                            return None;
                        }
                        Json::Text(text) => serde_json::to_string(text).unwrap(),
                        Json::Number(_) | Json::Bool(_) => format!("\"{text}\""),
                        _ => return None,
                    },
                },
            ))
        });
        let named = Core::by_name(&path);
        let own =
            if named.is_some_and(Core::is_derived) { format!("sent.{path}") } else { path.clone() };
        match fitting {
            Some((name, text)) => {
                columns.insert(name, normal(&text));
            }
            None if path.is_empty()
                || own == path && named.is_some()
                || columns.contains_key(&own) =>
            {
                overflow.push((own, normal(&text)));
            }
            None => {
                columns.insert(own, normal(&text));
            }
        }
    }
    (columns, overflow)
}

/// The members of an overflow object, repeated names included.
struct Members(Vec<(String, String)>);

impl<'de> serde::Deserialize<'de> for Members {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Members;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, serde_json::Value>()? {
                    members.push((name, value.to_string()));
                }
                Ok(Members(members))
            }
        }
        from.deserialize_map(Visitor)
    }
}

fn actual_row(
    batch: &RecordBatch,
    index: usize,
    has_time: bool,
) -> (BTreeMap<String, String>, Option<String>) {
    let mut row = fields(batch, index);
    let overflow = row.remove("overflow");
    if has_time {
        let claimed = row.remove("claimed_time");
        row.insert(
            "time".to_owned(),
            claimed.unwrap_or_else(|| cell(batch, "time", index).unwrap()),
        );
    }
    (row.into_iter().map(|(name, text)| (name, normal(&text))).collect(), overflow)
}

fn assert_overflow(
    expected: &[(String, String)],
    actual: Option<&str>,
) -> Result<(), TestCaseError> {
    match actual {
        None => prop_assert!(expected.is_empty(), "{:?} is missing", expected),
        Some(text) => {
            let Members(members) = serde_json::from_str(&readable(text)).unwrap();
            prop_assert_eq!(members, expected);
        }
    }
    Ok(())
}

/// Documents that may be joined by newlines.
fn lines(documents: &[Json], style: u64) -> Vec<String> {
    documents
        .iter()
        .enumerate()
        .map(|(n, document)| text_of(document, style.wrapping_add(n as u64)))
        .collect()
}

fn logical(batch: &RecordBatch, index: usize) -> Row {
    let id = cell(batch, "record_id", index);
    let mut row = row(batch, index);
    row.remove("record_id");
    let mut row: Row = row.into_iter().map(|(name, text)| (name, normal(&text))).collect();
    row.extend(id.map(|id| ("record_id".to_owned(), id)));
    row
}

fn encode_all(batch: &RecordBatch) -> Vec<String> {
    let encoder = RowEncoder::new(batch, RowView::Sent);
    (0..batch.num_rows())
        .map(|row| {
            let mut out = Vec::new();
            encoder.write(row, &mut out);
            String::from_utf8(out).unwrap()
        })
        .collect()
}

/// Column by column the same cells, whatever their layout.
fn assert_same_batch(
    a: Option<&RecordBatch>,
    b: Option<&RecordBatch>,
) -> Result<(), TestCaseError> {
    prop_assert_eq!(a, b);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn rows_hold_what_was_sent_and_nothing_else(documents in prop::collection::vec(object(), 1..12), style in any::<u64>()) {
        let lines = lines(&documents, style);
        let (outcome, batch) = decode(lines.join("\n").as_bytes());
        prop_assert_eq!(outcome.rejected, vec![], "{:?}", lines);
        let batch = batch.unwrap();
        prop_assert_eq!(batch.num_rows(), documents.len());
        for (index, document) in documents.iter().enumerate() {
            let (columns, overflow) = expected_row(document);
            let (actual, actual_overflow) = actual_row(&batch, index, columns.contains_key("time"));
            prop_assert_eq!(&actual, &columns, "{}", lines[index]);
            assert_overflow(&overflow, actual_overflow.as_deref())?;
        }
    }

    #[test]
    fn an_encoded_row_decodes_to_itself(documents in prop::collection::vec(object(), 1..8), style in any::<u64>()) {
        let (_, batch) = decode(lines(&documents, style).join("\n").as_bytes());
        let batch = batch.unwrap();
        let encoded = encode_all(&batch);
        let mut again = builder();
        for (index, text) in encoded.iter().enumerate() {
            let taken = again.push_json_record(&CTX, index as u32, text.as_bytes(), None);
            prop_assert_eq!(taken, Ok(()), "{}", text);
        }
        let again = again.finish().unwrap();
        for (index, text) in encoded.iter().enumerate() {
            prop_assert_eq!(logical(&again, index), logical(&batch, index), "{}", text);
            // Stored rows name nothing twice on any level.
            let stored = encode_row(&batch, index, RowView::Stored);
            prop_assert!(unique_names(&stored), "{}", stored);
        }
    }

    #[test]
    fn limits_move_fields_and_lose_none(documents in prop::collection::vec(object(), 1..8), style in any::<u64>(), most in 0usize..6) {
        let limits = DecodeLimits { max_dynamic_columns: most, ..DecodeLimits::default() };
        let mut builder = FrameBuilder::new(limits);
        let lines = lines(&documents, style);
        builder.push_json_body(&CTX, lines.join("\n").as_bytes());
        let batch = builder.finish().unwrap();
        for (index, document) in documents.iter().enumerate() {
            let (mut columns, overflow) = expected_row(document);
            let (mut actual, actual_overflow) = actual_row(&batch, index, columns.contains_key("time"));
            prop_assert!(actual.keys().filter(|name| Core::by_name(name).is_none()).count() <= most);
            let text = actual_overflow.unwrap_or_else(|| "{}".to_owned());
            let Members(members) = serde_json::from_str(&readable(&text)).unwrap();
            let mut later = Vec::new();
            for (name, value) in members {
                if columns.get(&name) == Some(&value) && !actual.contains_key(&name) {
                    actual.insert(name, value);
                } else {
                    later.push((name, value));
                }
            }
            columns.retain(|name, _| name != "overflow");
            prop_assert_eq!(actual, columns, "{}", lines[index]);
            prop_assert_eq!(later, overflow, "{}", lines[index]);
        }
    }

    #[test]
    fn a_rejected_record_leaves_no_trace(
        documents in prop::collection::vec((object(), any::<bool>(), 0usize..200), 1..14), style in any::<u64>(),
    ) {
        let mut with = builder();
        let mut without = builder();
        for (index, (document, bad, cut)) in documents.iter().enumerate() {
            let text = text_of(document, style);
            let index = index as u32;
            if *bad {
                let mut cut = (*cut).min(text.len() - 1);
                while !text.is_char_boundary(cut) { cut -= 1; }
                let broken = format!("{}!", &text[..cut]);
                prop_assert!(with.push_json_record(&CTX, index, broken.as_bytes(), None).is_err(), "{}", broken);
                // As if everything but the end were fine.
                let broken = format!("{text}!");
                prop_assert!(with.push_json_record(&CTX, index, broken.as_bytes(), None).is_err());
            } else {
                prop_assert_eq!(with.push_json_record(&CTX, index, text.as_bytes(), None), Ok(()));
                prop_assert_eq!(without.push_json_record(&CTX, index, text.as_bytes(), None), Ok(()));
            }
        }
        prop_assert_eq!(with.stats(), without.stats());
        prop_assert_eq!((with.rows(), with.approximate_bytes()), (without.rows(), without.approximate_bytes()));
        assert_same_batch(with.finish().as_ref(), without.finish().as_ref())?;
    }

    #[test]
    fn a_rollback_is_as_if_nothing_had_come(
        before in prop::collection::vec(object(), 0..6), dropped in prop::collection::vec(object(), 0..6),
        after in prop::collection::vec(object(), 0..6), style in any::<u64>(), frames in 0usize..3,
    ) {
        let mut with = builder();
        let mut without = builder();
        for builder in [&mut with, &mut without] {
            for _ in 0..frames {
                builder.push_json_body(&CTX, lines(&after, style).join("\n").as_bytes());
                builder.finish();
            }
            builder.push_json_body(&CTX, lines(&before, style).join("\n").as_bytes());
        }
        let mark = with.mark();
        let other = palisade_event::decode::RequestContext { source: "late", tenant: "other", request: 9, ..CTX };
        with.push_json_body(&CTX, lines(&dropped, style).join("\n").as_bytes());
        with.push_json_body(&other, lines(&dropped, style).join(" ").as_bytes());
        with.rollback(mark);
        prop_assert_eq!(with.stats(), without.stats());
        for builder in [&mut with, &mut without] {
            builder.push_json_body(&CTX, lines(&after, style).join("\n").as_bytes());
        }
        prop_assert_eq!((with.rows(), with.approximate_bytes()), (without.rows(), without.approximate_bytes()));
        assert_same_batch(with.finish().as_ref(), without.finish().as_ref())?;
    }

    #[test]
    fn frames_do_not_depend_on_the_frames_before(
        earlier in prop::collection::vec(object(), 1..20), documents in prop::collection::vec(object(), 1..20), style in any::<u64>(),
    ) {
        let mut used = builder();
        used.push_json_body(&CTX, lines(&earlier, style).join("\n").as_bytes());
        used.finish();
        let body = lines(&documents, style).join("\n");
        used.push_json_body(&CTX, body.as_bytes());
        prop_assert_eq!(used.finish(), decode(body.as_bytes()).1);
    }

    #[test]
    fn layouts_are_the_same_to_rows(documents in prop::collection::vec(object(), 1..6), style in any::<u64>()) {
        let lines = lines(&documents, style);
        let plain = decode(lines.join("\n").as_bytes());
        let array = format!(" [{}]", lines.join(" , "));
        prop_assert_eq!(&decode(array.as_bytes()), &plain);
        prop_assert_eq!(&decode(lines.concat().as_bytes()), &plain);
    }

    #[test]
    fn any_bytes_are_accounted_for(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        fuzz_json(&bytes);
    }

    #[test]
    fn bytes_like_json_are_accounted_for(parts in prop::collection::vec(prop::sample::select(vec![
        "{", "}", "[", "]", ",", ":", "\"", "\\", "\n", " ", "\"a\"", "\"b\":", "1", "-", "1.5e3", "true", "null", "{\"a\":1}",
        "{\"user\":\"x\"}\n", "\\u00", "\\ud800", "x", "\"time\":1696723200", "\u{e4}", "\u{feff}", "{\"a\":[{\"b\":", "\r\n",
    ]), 0..60), broken in any::<u8>(), at in 0usize..200) {
        let mut bytes = parts.concat().into_bytes();
        fuzz_json(&bytes);
        if at < bytes.len() { bytes[at] = broken; }
        fuzz_json(&bytes);
    }

    #[test]
    fn each_line_is_one_record(lines in prop::collection::vec(prop::sample::select(vec![
        "{\"a\":1}", "{\"a\":\"\\n\"}", "{\"a\":{\"b\":[1,{}]}}", "{\"a\":1", "{\"a\":1,", "{\"a", "{\"a\":}", "text", "17", "{\"a\":[1}", "{", "{\"a\":\"\u{1}\"}",
    ]), 0..30)) {
        let body = format!("{{\"first\":1}}\n{}", lines.join("\n"));
        let (outcome, _) = decode(body.as_bytes());
        prop_assert_eq!(outcome.seen(), 1 + lines.len() as u64, "{}", body);
        let good = lines.iter().filter(|line| serde_json::from_str::<serde_json::Map<_, _>>(line).is_ok()).count();
        prop_assert_eq!(outcome.accepted, 1 + good as u64);
        let bad: Vec<u64> = outcome.rejected.iter().map(|(index, _)| *index).collect();
        let expected: Vec<u64> = lines.iter().enumerate()
            .filter(|(_, line)| serde_json::from_str::<serde_json::Map<_, _>>(line).is_err())
            .map(|(index, _)| index as u64 + 1).collect();
        prop_assert_eq!(bad, expected);
    }

    /// What serde_json takes is taken, and what it refuses is refused.
    #[test]
    fn the_grammar_is_that_of_json(document in object(), style in any::<u64>(), at in any::<prop::sample::Index>(), byte in prop::sample::select(b"{}[]:,\"\\0e-. \n\tx1u".to_vec()), how in 0u8..3) {
        let mut bytes = text_of(&document, style).into_bytes();
        let at = at.index(bytes.len());
        match how { 0 => bytes[at] = byte, 1 => bytes.insert(at, byte), _ => { bytes.remove(at); } }
        let oracle = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&bytes);
        let taken = builder().push_json_record(&CTX, 0, &bytes, None);
        let out_of_range = oracle.as_ref().is_err_and(|error| {
            let error = error.to_string();
            error.contains("out of range") || error.contains("surrogate") || error.contains("unexpected end of hex escape")
        });
        if !out_of_range {
            prop_assert_eq!(taken.is_ok(), oracle.is_ok(), "{:?} {:?} {:?}", String::from_utf8_lossy(&bytes), taken, oracle);
        }
    }
}

/// Whether no object of a JSON text has a name twice, the object `overflow` aside.
fn unique_names(text: &str) -> bool {
    let Members(members) = serde_json::from_str(&readable(text)).unwrap();
    let mut names: Vec<_> = members.iter().map(|(name, _)| name).collect();
    names.sort();
    let count = names.len();
    names.dedup();
    count == names.len()
}
