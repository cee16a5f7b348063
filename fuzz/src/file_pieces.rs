//! Files: recognising never fails in another way than with a reason, and a stream of JSON that is
//! cut into pieces holds the same values.

use crate::CLOCK;
use palisade_ingest::files::recognise::recognise;
use palisade_ingest::files::split::{Piece, Splitter};
use palisade_ingest::syslog::Context;
use serde_json::Value;

/// Values one after the other, arrays taken apart; `None` when the bytes are not that.
fn values(bytes: &[u8]) -> Option<Vec<Value>> {
    let mut all = Vec::new();
    for value in serde_json::Deserializer::from_slice(bytes).into_iter::<Value>() {
        match value.ok()? {
            Value::Array(items) => all.extend(items),
            value => all.push(value),
        }
    }
    Some(all)
}

pub fn run(data: &[u8]) {
    let Some((head, rest)) = crate::steer::<3>(data) else { return };
    let context = Context { now: CLOCK, utc_offset_minutes: 0 };
    for whole in [true, false] {
        if let Err(reason) = recognise(rest, whole, &context) {
            assert!(!reason.is_empty());
        }
    }
    let most = 1 << 10;
    let mut splitter = Splitter::new(most);
    let piece = usize::from(head[1]);
    let mut got = Vec::new();
    let feeds = crate::pieces(rest, head[0]);
    let count = feeds.len();
    for (at, feed) in feeds.into_iter().chain([&[][..]]).enumerate() {
        got.extend(splitter.feed(feed, piece, at == count));
    }
    let dropped = got.iter().any(|piece| matches!(piece, Piece::Dropped(_)));
    let expected = values(rest).filter(|values| {
        // Scalars between values have no ends of their own.
        !dropped && values.iter().all(|value| value.is_object() || value.is_array())
    });
    let Some(expected) = expected else { return };
    let mut found = Vec::new();
    for piece in got {
        let Piece::Values(bytes) = piece else { continue };
        found.extend(values(&bytes).expect("a piece of sound values is sound"));
    }
    assert_eq!(found, expected);
}
