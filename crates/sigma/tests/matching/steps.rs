//! Matching in steps, as hunts do, each over no more columns than it asks for: the same matches.

use crate::support;
use arrow::array::{Array, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Field, Schema};
use palisade_sigma::{Book, Hits, Matcher};
use std::sync::Arc;

/// The columns of a batch that are wanted.
fn some(batch: &RecordBatch, wanted: impl Fn(&Field) -> bool) -> RecordBatch {
    let schema = batch.schema();
    let (fields, columns): (Vec<_>, Vec<_>) = (schema.fields().iter().zip(batch.columns()))
        .filter(|(field, _)| wanted(field))
        .map(|(field, column)| (Arc::clone(field), Arc::clone(column)))
        .unzip();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options).unwrap()
}

/// The rules that each row matches, found in steps; and how many columns the last step but one read.
pub(crate) fn in_steps(matcher: &Matcher, batch: &RecordBatch) -> (Vec<Vec<u32>>, usize) {
    let schema = batch.schema();
    let held = schema.fields().iter().zip(batch.columns());
    let held = held.filter(|(_, column)| column.null_count() < column.len());
    let groups = matcher.possible(held.map(|(field, _)| field.as_ref()));
    let routing = matcher.routing_reads(&groups);
    let (mut found, mut keep) = (matcher.no_groups(), Vec::new());
    let few = some(batch, |field| routing.wants(field));
    matcher.routed(&few, &groups, &mut found, |any| keep.push(any));
    assert_eq!(keep.len(), batch.num_rows());
    let reads = matcher.reads(&found);
    let columns = some(batch, |field| reads.wants(field));
    let left = filter_record_batch(&columns, &BooleanArray::from(keep.clone())).unwrap();
    let mut hits = Hits::new();
    matcher.matches_of(&left, Some(&found), &mut hits);
    let mut at = 0;
    let rows = keep.iter().map(|keep| {
        if !keep {
            return Vec::new();
        }
        at += 1;
        hits.of(at - 1).to_vec()
    });
    (rows.collect(), columns.num_columns())
}

#[test]
fn all_rules_match_real_events_alike_in_steps() {
    let Some(rules) = support::sigma_hq_rules() else { return };
    let Some(events) = support::oracle_events() else { return };
    let book = Book::of(rules);
    let matcher = book.matcher();
    let mut hits = Hits::new();
    let (mut matches, mut narrower) = (0, 0);
    for events in events {
        let batch = support::batch(&events.body);
        matcher.matches(&batch, &mut hits);
        let whole: Vec<Vec<u32>> = (0..batch.num_rows()).map(|row| hits.of(row).to_vec()).collect();
        let (steps, columns) = in_steps(matcher, &batch);
        assert_eq!(whole, steps, "{}", events.name);
        matches += hits.len();
        narrower += usize::from(columns < batch.num_columns());
        // What an alert names is read from the columns that the book asks for.
        let pairs: Vec<(usize, u32)> = hits.iter().collect();
        let reads = book.reads_of_rules(&pairs.iter().map(|(_, rule)| *rule).collect());
        let few = some(&batch, |field| reads.wants(field));
        assert_eq!(book.matched_fields(&batch, &pairs), book.matched_fields(&few, &pairs));
    }
    assert!(matches > 600 && narrower > 0, "{matches} {narrower}");
}

#[test]
fn a_rule_whose_fields_are_not_there_is_not_possible() {
    let rule = |id: &str, detection: &str| {
        format!(
            "title: {id}\nid: {id}\nlogsource:\n  product: windows\n  service: {id}\ndetection:\n  s:\n    {detection}\n  condition: s\n"
        )
    };
    let texts = [
        rule("security", "Image|endswith: x"),
        rule("system", "Image: null"),
        rule("application", "Image|re: a"),
    ];
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let matcher = support::rules(&texts).matcher();
    let text = |name: &str| Field::new(name, arrow::datatypes::DataType::Utf8, true);
    let possible = |columns: &[Field]| {
        let groups = matcher.possible(columns);
        matcher.rules_of(&groups).collect::<Vec<u32>>()
    };
    assert_eq!(possible(&[text("Channel"), text("Image")]), [0, 1, 2]);
    assert_eq!(possible(&[text("Channel"), text("Event.EventData.Image")]), [0, 1, 2]);
    assert_eq!(possible(&[text("Channel"), text("Other")]), [1]);
    assert_eq!(possible(&[text("Image")]), [] as [u32; 0]);
    // Nobody knows what stands in the overflow.
    assert_eq!(possible(&[text("overflow")]), [0, 1, 2]);
}
