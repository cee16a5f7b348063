//! Bodies of `_bulk`: every operation has a document within the body or a reason, documents do not
//! overlap, and each is accepted or refused by the decoder.

use crate::{CTX, limits};
use bytes::Bytes;
use palisade_event::decode::FrameBuilder;
use palisade_ingest::elastic::answer::{Filter, items};
use palisade_ingest::elastic::bulk::parse;
use palisade_ingest::submit::Receipt;

pub fn run(data: &[u8]) {
    let body = Bytes::copy_from_slice(data);
    let alone = parse(&body, None);
    let Ok(parsed) = parse(&body, Some("logs")) else {
        assert!(alone.is_err(), "what fails with an index fails without one");
        return;
    };
    let mut ends = vec![0; parsed.indexes.len()];
    let documents = parsed.operations.iter().filter(|o| o.document.is_ok()).count();
    let listed: usize = parsed.indexes.iter().map(|index| index.items.len()).sum();
    assert_eq!(documents, listed);
    let mut outcomes = Vec::new();
    for (index, end) in parsed.indexes.iter().zip(&mut ends) {
        let mut builder = FrameBuilder::new(limits());
        let mut receipt = Receipt::default();
        for (at, item) in index.items.iter().enumerate() {
            assert!(item.range.start >= *end && item.range.end <= body.len());
            *end = item.range.end + 1;
            let document = &body[item.range.clone()];
            assert!(!document.contains(&b'\n'));
            let taken = builder.push_json_record(&CTX, at as u32, document, item.id.as_deref());
            match taken {
                Ok(()) => receipt.accepted += 1,
                Err(reason) => {
                    receipt.rejected.push((at as u64, reason));
                    receipt.rejected_total += 1;
                }
            }
        }
        assert_eq!(receipt.accepted + receipt.rejected_total, index.items.len() as u64);
        let rows = builder.finish().map_or(0, |batch| batch.num_rows() as u64);
        assert_eq!(rows, receipt.accepted);
        outcomes.push(Ok(receipt));
    }
    let answer = items(&parsed, &outcomes, 1, "fuzz", Filter::ALL);
    let answer: serde_json::Value = serde_json::from_slice(&answer).expect("the answer is JSON");
    let answered = answer["items"].as_array().expect("items").len();
    assert_eq!(answered, parsed.operations.len());
    let refused = parsed.operations.len() as u64
        - outcomes.iter().flatten().map(|receipt| receipt.accepted).sum::<u64>();
    assert_eq!(answer["errors"], refused > 0);
}
