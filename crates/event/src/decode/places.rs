//! Where the cells of a column stand in a frame: cells are gathered dense, a frame has one for each row.

use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};

/// The vector without much room left over. Room is made for as much as the frame before had: a small
/// frame behind a large one would hold the large one's memory for as long as its rows are kept.
pub(super) fn fitted<T>(mut cells: Vec<T>) -> Vec<T> {
    if cells.capacity() > cells.len() * 2 {
        cells.shrink_to_fit();
    }
    cells
}

/// Which rows of a frame the cells of a column belong to.
pub(super) struct Places<'r> {
    pub(super) rows: usize,
    pub(super) count: usize,
    /// The row of each cell; without it the cells are the first rows.
    pub(super) of_cells: Option<&'r [u32]>,
}

impl Places<'_> {
    pub(super) fn is_full(&self) -> bool {
        self.count == self.rows
    }

    pub(super) fn nulls(&self) -> Option<NullBuffer> {
        if self.is_full() {
            return None;
        }
        let mut bits = vec![0u8; self.rows.div_ceil(8)];
        match self.of_cells {
            Some(rows) => {
                for row in rows {
                    if let Some(byte) = bits.get_mut(*row as usize / 8) {
                        *byte |= 1 << (row % 8);
                    }
                }
            }
            None => {
                let (whole, rest) = bits.split_at_mut(self.count / 8);
                whole.fill(0xff);
                if let Some(byte) = rest.first_mut() {
                    *byte = (1 << (self.count % 8)) - 1;
                }
            }
        }
        Some(NullBuffer::new(BooleanBuffer::new(Buffer::from_vec(bits), 0, self.rows)))
    }

    /// The cells at their rows, nothing between them. Full columns are given away as they are.
    pub(super) fn spread<T: Copy + Default>(&self, cells: &mut Vec<T>) -> Vec<T> {
        if self.is_full() {
            return fitted(std::mem::take(cells));
        }
        let mut full = vec![T::default(); self.rows];
        match self.of_cells {
            Some(rows) => {
                for (row, cell) in rows.iter().zip(cells.iter()) {
                    if let Some(place) = full.get_mut(*row as usize) {
                        *place = *cell;
                    }
                }
            }
            None => {
                for (place, cell) in full.iter_mut().zip(cells.iter()) {
                    *place = *cell;
                }
            }
        }
        full
    }

    /// Offsets of texts whose ends are given, one more than there are rows.
    pub(super) fn offsets(&self, ends: &[i32]) -> OffsetBuffer<i32> {
        let mut offsets = Vec::with_capacity(self.rows + 1);
        match self.of_cells {
            Some(rows) if !self.is_full() => {
                // A text begins at the offset of its row: rows up to and with it share the end of
                // the text before.
                let mut before = 0;
                for (row, end) in rows.iter().zip(ends) {
                    offsets.resize(*row as usize + 1, before);
                    before = *end;
                }
                offsets.resize(self.rows + 1, before);
            }
            _ => {
                offsets.push(0);
                offsets.extend_from_slice(ends);
                offsets.resize(self.rows + 1, ends.last().copied().unwrap_or_default());
            }
        }
        OffsetBuffer::new(ScalarBuffer::from(offsets))
    }
}
