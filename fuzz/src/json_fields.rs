//! A row encoded as JSON decodes to itself, and what serde_json takes as an object is taken.

use crate::{CTX, limits, sent_rows};
use palisade_event::decode::{DecodeLimits, FrameBuilder};
use palisade_event::encode::{RowView, encode_row};

pub fn run(data: &[u8]) {
    let mut builder = FrameBuilder::new(limits());
    let taken = builder.push_json_record(&CTX, 0, data, None);
    let oracle = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(data);
    let strange = oracle.as_ref().is_err_and(|error| {
        // What serde_json cannot hold and JSON allows.
        let error = error.to_string();
        ["out of range", "surrogate", "hex escape", "recursion"]
            .iter()
            .any(|word| error.contains(word))
    });
    let over_a_bound = taken.as_ref().is_err_and(|reason| {
        ["nested deeper", "more than 64 keys", "larger than"]
            .iter()
            .any(|word| reason.contains(word))
    });
    if !strange && !over_a_bound {
        assert_eq!(taken.is_ok(), oracle.is_ok(), "{taken:?} {oracle:?}");
    }
    let Some(batch) = builder.finish() else { return };
    assert_eq!(batch.num_rows(), 1);
    let stored = encode_row(&batch, 0, RowView::Stored);
    serde_json::from_str::<serde::de::IgnoredAny>(&stored).expect("a stored row is JSON");
    let sent = sent_rows(&batch).remove(0);
    // Dotted names nest, so what is written may be deeper and have more keys; the bounds of columns
    // must be the same.
    let wide =
        DecodeLimits { max_record_bytes: 1 << 20, max_depth: 64, max_keys: 10_000, ..limits() };
    let mut again = FrameBuilder::new(wide);
    let taken = again.push_json_record(&CTX, 0, sent.as_bytes(), None);
    assert_eq!(taken, Ok(()), "{sent}");
    let second = again.finish().expect("a row");
    assert_eq!(sent_rows(&second).remove(0), sent);
}
