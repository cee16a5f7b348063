//! Syslog messages: reading never fails, loses no byte, names no field twice, and the record goes
//! into a frame.

use crate::{CLOCK, CTX, limits};
use bytes::Bytes;
use palisade_event::decode::{FieldValue as Value, FrameBuilder};
use palisade_ingest::submit::FieldValue;
use palisade_ingest::syslog::time::stamp;
use palisade_ingest::syslog::{Context, Format, parse};

pub fn run(data: &[u8]) {
    let Some((head, rest)) = crate::steer::<2>(data) else { return };
    let offset = i32::from(i16::from_le_bytes(head)) % 900;
    let context = Context { now: CLOCK, utc_offset_minutes: offset };
    let line = Bytes::copy_from_slice(rest);
    let (record, format) = parse(&line, &context);
    match std::str::from_utf8(rest) {
        Ok(text) => assert_eq!(record.text(), text),
        Err(_) => {
            let latin: Vec<u8> = record.text().chars().map(|c| u32::from(c) as u8).collect();
            assert_eq!(latin, rest);
        }
    }
    let mut names: Vec<&str> = record.fields().map(|(name, _)| name).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "a name twice: {names:?}");
    if format == Format::Plain && !record.text().trim().is_empty() {
        assert!(record.get("message").is_some(), "a plain line without message");
    }
    let mut builder = FrameBuilder::new(limits());
    let mut fields = record.fields().map(|(name, value)| (name, convert(value)));
    let taken = builder.push_fields(&CTX, 0, &mut fields);
    assert_eq!(builder.rows(), usize::from(taken.is_ok()));
    if let Ok(text) = std::str::from_utf8(rest)
        && let Some((_, used)) = stamp(text, CLOCK, offset)
    {
        assert!(text.is_char_boundary(used) && used > 0);
    }
}

pub fn convert(value: FieldValue<'_>) -> Value<'_> {
    match value {
        FieldValue::Text(text) => Value::Text(text),
        FieldValue::Int(number) => Value::Int(number),
        FieldValue::Float(number) => Value::Float(number),
        FieldValue::Bool(flag) => Value::Bool(flag),
        FieldValue::Time(micros) => Value::Time(micros),
        FieldValue::Json(text) => Value::Json(text),
    }
}
