//! Building frames of dead letters.

use crate::submit::DeadLetter;
use arrow::array::{
    ArrayRef, BinaryBuilder, RecordBatch, StringBuilder, StringDictionaryBuilder,
    TimestampMicrosecondBuilder,
};
use arrow::datatypes::{Int32Type, Schema};
use palisade_event::decode::RequestContext;
use palisade_event::schema::{Core, dead_letter_fields};
use palisade_event::{ErrorClass, RecordId};
use std::sync::Arc;

/// The open frame's dead letters, column by column.
#[derive(Default)]
pub(super) struct Letters {
    tenant: StringDictionaryBuilder<Int32Type>,
    source: StringDictionaryBuilder<Int32Type>,
    class: StringDictionaryBuilder<Int32Type>,
    content_type: StringDictionaryBuilder<Int32Type>,
    times: Vec<i64>,
    id: StringBuilder,
    reason: StringBuilder,
    raw: BinaryBuilder,
    bytes: usize,
}

impl Letters {
    pub(super) fn rows(&self) -> usize {
        self.times.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a letter. Its time is the gateway's clock: bytes that can't be read have no event time.
    pub(super) fn push(&mut self, context: &RequestContext<'_>, index: u32, letter: &DeadLetter) {
        let id = match context.key {
            Some(key) => RecordId::from_key(context.tenant, context.source, key, u64::from(index)),
            None => RecordId::from_place(context.gateway, context.request, index),
        };
        self.tenant.append_value(context.tenant);
        self.source.append_value(context.source);
        self.class.append_value(ErrorClass::Permanent.as_str());
        self.content_type.append_value(letter.content_type);
        self.times.push(context.clock);
        self.id.append_value(id.to_string());
        self.reason.append_value(&letter.reason);
        self.raw.append_value(&letter.raw);
        self.bytes += letter.raw.len() + letter.reason.len() + 64;
    }

    /// The batch, when there is a letter; the next frame begins empty.
    pub(super) fn finish(&mut self) -> Option<RecordBatch> {
        if self.times.is_empty() {
            return None;
        }
        self.bytes = 0;
        let times = std::mem::take(&mut self.times);
        let stamp = || {
            let mut builder = TimestampMicrosecondBuilder::new().with_timezone("UTC");
            builder.append_slice(&times);
            Arc::new(builder.finish()) as ArrayRef
        };
        let mut fields = Vec::new();
        let mut columns: Vec<ArrayRef> = Vec::new();
        for field in dead_letter_fields() {
            let column: ArrayRef = match field.name().as_str() {
                name if name == Core::Tenant.name() => Arc::new(self.tenant.finish()),
                name if name == Core::Source.name() => Arc::new(self.source.finish()),
                "time" | "ingest_time" => stamp(),
                "dead_letter_id" => Arc::new(self.id.finish()),
                "class" => Arc::new(self.class.finish()),
                "reason" => Arc::new(self.reason.finish()),
                "content_type" => Arc::new(self.content_type.finish()),
                "raw" => Arc::new(self.raw.finish()),
                // The position is given in the pipeline.
                _ => continue,
            };
            fields.push(field);
            columns.push(column);
        }
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use palisade_event::column::Text;
    use palisade_event::id::GatewayIdentity;

    #[test]
    fn a_letter_keeps_its_bytes_and_reason() {
        let context = RequestContext {
            tenant: "acme",
            source: "tcp",
            clock: 7,
            domain: None,
            gateway: GatewayIdentity { region: 0, gateway: 0, epoch: 1 },
            request: 2,
            key: None,
        };
        let mut letters = Letters::default();
        assert!(letters.finish().is_none());
        let letter = DeadLetter {
            reason: "the line is too long".into(),
            content_type: "line",
            raw: Bytes::from_static(b"\xff\x00abc"),
        };
        letters.push(&context, 3, &letter);
        assert_eq!(letters.rows(), 1);
        let batch = letters.finish().unwrap();
        assert_eq!(Text::in_batch(&batch, "reason").unwrap().get(0), Some("the line is too long"));
        use arrow::array::AsArray;
        assert_eq!(
            batch.column_by_name("raw").unwrap().as_binary::<i32>().value(0),
            b"\xff\x00abc"
        );
        assert!(letters.finish().is_none());
    }
}
