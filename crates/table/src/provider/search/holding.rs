//! The rows that hold one of many values in one of several columns, told by the values' pages alone: who looks for
//! thousands of indicators asks once per distinct value of a row group, and reads nothing else of those without any.

use super::super::files::{Footer, ReadError, all_null, leaf, union};
use super::super::tenants::intersect;
use super::file::PageFile;
use super::pages::Chunk;
use arrow::datatypes::DataType;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// The rows, out of `rows` and numbered over the whole file, that may hold a wanted text in one of the columns; `wanted`
/// is given the column's place among `columns` and the text. Of a row group in which that cannot be told, all rows.
///
/// # Errors
/// [`ReadError`] when the file cannot be opened.
pub(in super::super) fn rows_holding(
    path: &Path,
    footer: &Footer,
    rows: &[Range<u64>],
    columns: &[&str],
    wanted: &mut dyn FnMut(usize, &str) -> bool,
) -> Result<Vec<Range<u64>>, ReadError> {
    let file = PageFile::open(path).map_err(|error| ReadError::from_io(path, &error))?;
    let file = Arc::new(file);
    let mut held: Vec<Range<u64>> = Vec::new();
    let mut first = 0u64;
    for (group, meta) in footer.metadata.row_groups().iter().enumerate() {
        let end = first + u64::try_from(meta.num_rows()).unwrap_or(0);
        let mine = intersect(rows, std::slice::from_ref(&(first..end)));
        if !mine.is_empty() {
            let inside: Vec<_> =
                mine.iter().map(|range| range.start - first..range.end - first).collect();
            match held_in(&file, footer, group, &inside, columns, wanted) {
                Some(found) => {
                    held.extend(found.into_iter().map(|row| first + row..first + row + 1))
                }
                None => held.extend(mine),
            }
        }
        first = end;
    }
    Ok(union(held))
}

/// The rows of one group, numbered from its first; `None` when they cannot be told.
fn held_in(
    file: &Arc<PageFile>,
    footer: &Footer,
    group: usize,
    rows: &[Range<u64>],
    columns: &[&str],
    wanted: &mut dyn FnMut(usize, &str) -> bool,
) -> Option<Vec<u64>> {
    let mut held = Vec::new();
    for (place, column) in columns.iter().enumerate() {
        let Ok(field) = footer.schema.field_with_name(column) else { continue };
        if field.data_type() != &DataType::Utf8View {
            continue;
        }
        let leaf = leaf(&footer.metadata, &footer.schema, column)?;
        if all_null(&footer.metadata, group, leaf) {
            continue;
        }
        let chunk = Chunk::new(file, &footer.metadata, group, leaf);
        let mut is_wanted =
            |value: &[u8]| std::str::from_utf8(value).is_ok_and(|text| wanted(place, text));
        held.extend(chunk.rows_where(rows, &mut is_wanted)?);
    }
    Some(held)
}
