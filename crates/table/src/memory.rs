//! The rows of a table that are in no segment yet: batches in log order, beyond the committed
//! position.
//!
//! They stand in chunks of [`CHUNK`] handles, of which all but the last are shared and never change,
//! so that taking a snapshot copies a handle a chunk and not one a batch.

use arrow::array::{Array, RecordBatch};
use palisade_event::Offset;
use parking_lot::Mutex;
use std::sync::Arc;

/// Batches per chunk.
const CHUNK: usize = 64;

/// One batch of one log entry.
#[derive(Debug)]
pub(crate) struct MemoryBatch {
    pub(crate) offset: Offset,
    pub(crate) batch: RecordBatch,
    /// Bytes that it holds, shared dictionaries included.
    pub(crate) bytes: usize,
}

/// A table's batches beyond the committed position.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryList {
    full: Vec<Arc<Vec<Arc<MemoryBatch>>>>,
    tail: Vec<Arc<MemoryBatch>>,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
}

impl MemoryList {
    pub(crate) fn push(&mut self, offset: Offset, batch: RecordBatch) {
        let bytes = batch_bytes(&batch);
        self.rows += batch.num_rows() as u64;
        self.bytes += bytes as u64;
        self.tail.push(Arc::new(MemoryBatch { offset, batch, bytes }));
        if self.tail.len() == CHUNK {
            self.full.push(Arc::new(std::mem::replace(&mut self.tail, Vec::with_capacity(CHUNK))));
        }
    }

    /// All batches in log order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<MemoryBatch>> {
        self.full.iter().flat_map(|chunk| chunk.iter()).chain(&self.tail)
    }

    /// Forgets the batches of entries below an offset.
    pub(crate) fn drop_before(&mut self, committed: Offset) {
        let gone = self
            .full
            .iter()
            .take_while(|chunk| chunk.last().is_some_and(|last| last.offset < committed));
        let gone = gone.count();
        let mut left = MemoryList::default();
        let mut rest = self.full.split_off(gone).into_iter();
        // The chunk that the position falls into is taken apart; those behind it stay shared.
        let broken = rest.next().map(|chunk| chunk.to_vec()).unwrap_or_default();
        let chunks: Vec<_> = rest.collect();
        if chunks.is_empty() {
            left.tail = broken.into_iter().chain(std::mem::take(&mut self.tail)).collect();
            left.tail.retain(|batch| batch.offset >= committed);
            while left.tail.len() >= CHUNK {
                let rest = left.tail.split_off(CHUNK);
                left.full.push(Arc::new(std::mem::replace(&mut left.tail, rest)));
            }
        } else {
            let kept: Vec<_> = broken.into_iter().filter(|b| b.offset >= committed).collect();
            left.full = std::iter::once(Arc::new(kept)).chain(chunks).collect();
            left.tail = std::mem::take(&mut self.tail);
        }
        (left.rows, left.bytes) = left.iter().fold((0, 0), |(rows, bytes), batch| {
            (rows + batch.batch.num_rows() as u64, bytes + batch.bytes as u64)
        });
        *self = left;
    }
}

/// The bytes of the rows that a batch shows, not of the buffers that they are slices of.
fn batch_bytes(batch: &RecordBatch) -> usize {
    let bytes = |array: &dyn Array| {
        array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size())
    };
    batch.columns().iter().map(|column| bytes(column.as_ref())).sum()
}

/// The flat list that snapshots show, kept until the rows change.
#[derive(Debug, Default)]
pub(crate) struct Flat(Mutex<Option<(u64, Arc<Vec<RecordBatch>>)>>);

impl Flat {
    /// The batches of entries below `visible`, from the cache when it is of this generation.
    pub(crate) fn get(
        &self,
        generation: u64,
        list: &MemoryList,
        visible: Offset,
    ) -> Arc<Vec<RecordBatch>> {
        let mut cached = self.0.lock();
        if let Some((known, flat)) = cached.as_ref()
            && *known == generation
        {
            return Arc::clone(flat);
        }
        let shown = list.iter().filter(|batch| batch.offset < visible);
        let flat: Arc<Vec<RecordBatch>> =
            Arc::new(shown.map(|batch| batch.batch.clone()).collect());
        if cached.as_ref().is_none_or(|(known, _)| *known < generation) {
            *cached = Some((generation, Arc::clone(&flat)));
        }
        flat
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Int32Array;
    use proptest::prelude::*;

    fn batch(value: i32) -> RecordBatch {
        let array: arrow::array::ArrayRef = Arc::new(Int32Array::from(vec![value]));
        RecordBatch::try_from_iter([("x", array)]).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// A list is what a plain vector would be, whatever is pushed and dropped.
        #[test]
        fn a_list_is_a_vector(steps in prop::collection::vec((0usize..150, 0u64..200), 1..6)) {
            let mut list = MemoryList::default();
            let mut model: Vec<(u64, i32)> = Vec::new();
            let mut offset = 0u64;
            for (pushes, drops) in steps {
                for _ in 0..pushes {
                    list.push(Offset(offset), batch(offset as i32));
                    model.push((offset, offset as i32));
                    offset += 1 + offset % 2;
                }
                let shared = list.clone();
                let before: Vec<u64> = shared.iter().map(|b| b.offset.0).collect();
                let bound = model.first().map_or(0, |first| first.0) + drops;
                list.drop_before(Offset(bound));
                model.retain(|(offset, _)| *offset >= bound);
                let seen: Vec<(u64, i32)> = list.iter().map(|b| {
                    let values = b.batch.column(0).as_any().downcast_ref::<Int32Array>().unwrap();
                    (b.offset.0, values.value(0))
                }).collect();
                prop_assert_eq!(&seen, &model);
                prop_assert_eq!(list.rows, model.len() as u64);
                // What a snapshot holds does not change.
                prop_assert_eq!(shared.iter().map(|b| b.offset.0).collect::<Vec<_>>(), before);
            }
        }
    }
}
