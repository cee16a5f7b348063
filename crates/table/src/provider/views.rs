//! Texts that hold no more memory than they need.
//!
//! A text that was read from a page is a view into it, and keeps the whole page alive, or the whole dictionary. Rows out
//! of many pages then hold many times of what they show: a thousand rows of a user who has one in each page a hundred
//! megabytes. Operators count what they hold, so that would end a query at its limit.

use arrow::array::{Array, ArrayRef, AsArray, GenericByteViewArray, RecordBatch};
use arrow::datatypes::{ByteViewType, DataType};
use std::sync::Arc;

/// So many bytes, and so many for each row, are not worth a look.
const LEAST: usize = 4 << 10;
const LEAST_OF_ROW: usize = 64;

/// The same rows, with texts copied out of what is more than twice as large as they are.
pub(super) fn compacted(batch: RecordBatch) -> RecordBatch {
    let columns: Vec<Option<ArrayRef>> = batch
        .columns()
        .iter()
        .map(|column| match column.data_type() {
            DataType::Utf8View => copied(column.as_string_view()),
            DataType::BinaryView => copied(column.as_binary_view()),
            _ => None,
        })
        .collect();
    if columns.iter().all(Option::is_none) {
        return batch;
    }
    let old = batch.columns().iter().map(Arc::clone);
    let columns = old.zip(columns).map(|(old, new)| new.unwrap_or(old)).collect();
    RecordBatch::try_new(batch.schema(), columns).unwrap_or(batch)
}

fn copied<T: ByteViewType>(array: &GenericByteViewArray<T>) -> Option<ArrayRef> {
    let held: usize = array.data_buffers().iter().map(|buffer| buffer.capacity()).sum();
    if held <= LEAST + LEAST_OF_ROW * array.len() {
        return None;
    }
    (array.total_buffer_bytes_used().saturating_mul(2) < held)
        .then(|| Arc::new(array.gc()) as ArrayRef)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{StringViewArray, StringViewBuilder, UInt64Array};
    use arrow::compute::take_record_batch;
    use arrow::datatypes::{Field, Schema};

    fn batch(array: StringViewArray) -> RecordBatch {
        let schema = Schema::new(vec![Field::new("text", DataType::Utf8View, true)]);
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(array)]).unwrap()
    }

    #[test]
    fn a_row_lets_its_page_go_and_a_page_stays_as_it_is() {
        let mut texts = StringViewBuilder::new().with_fixed_block_size(96 << 10);
        for row in 0..4_000 {
            texts.append_option((row % 7 != 0).then(|| format!("a text of some length, {row}")));
        }
        let whole = batch(texts.finish());
        let page = whole.column(0).as_string_view().clone();
        let same = compacted(whole.clone());
        assert_eq!(
            same.column(0).as_string_view().data_buffers()[0].as_ptr(),
            page.data_buffers()[0].as_ptr()
        );
        for rows in [0..1, 5..9, 7..8, 3_000..3_000] {
            let rows: UInt64Array = rows.collect::<Vec<u64>>().into();
            let few = take_record_batch(&whole, &rows).unwrap();
            assert!(few.get_array_memory_size() > 80_000 || rows.is_empty());
            let cut = compacted(few.clone());
            assert_eq!(cut, few);
            assert!(cut.get_array_memory_size() < 2_000, "{}", cut.get_array_memory_size());
        }
    }
}
