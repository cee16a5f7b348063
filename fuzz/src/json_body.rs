//! Bodies of JSON: every record is accepted or rejected, twice the same; a body of lines gives the
//! same rows in one go, in two halves cut between records, and record by record.

use crate::{CTX, limits};
use palisade_event::decode::{FrameBuilder, fuzz_json};

pub fn run(data: &[u8]) {
    fuzz_json(data);
    let Some((head, rest)) = crate::steer::<1>(data) else { return };
    // The lines that are records on their own.
    let mut single = FrameBuilder::new(limits());
    let good: Vec<&[u8]> = rest
        .split(|byte| *byte == b'\n')
        .enumerate()
        .filter(|(index, line)| single.push_json_record(&CTX, *index as u32, line, None).is_ok())
        .map(|(_, line)| line)
        .take(100)
        .collect();
    let whole = good.join(&b'\n');
    let mut builder = FrameBuilder::new(limits());
    let outcome = builder.push_json_body(&CTX, &whole);
    assert_eq!(outcome.accepted, good.len() as u64, "{outcome:?}");
    assert_eq!(outcome.rejected_total, 0, "{outcome:?}");
    let in_one = builder.finish();
    let cut = usize::from(head[0]) % (good.len() + 1);
    let (left, right) = good.split_at(cut);
    for half in [left, right] {
        let outcome = builder.push_json_body(&CTX, &half.join(&b'\n'));
        assert_eq!(outcome.accepted, half.len() as u64, "{outcome:?}");
    }
    let in_two = builder.finish();
    for (index, line) in good.iter().enumerate() {
        let taken = builder.push_json_record(&CTX, index as u32, line, None);
        assert_eq!(taken, Ok(()));
    }
    let one_by_one = builder.finish();
    assert_eq!(in_one.is_some(), !good.is_empty());
    assert_eq!(in_one, one_by_one);
    // In two bodies the places of the second begin anew, and with them the ids of its records.
    let without_ids = |batch: Option<arrow::array::RecordBatch>| {
        batch.map(|mut batch| {
            if let Ok(at) = batch.schema().index_of("record_id") {
                batch.remove_column(at);
            }
            batch
        })
    };
    assert_eq!(without_ids(in_one), without_ids(in_two));
}
