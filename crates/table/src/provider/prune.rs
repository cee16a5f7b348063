//! What of a table a query cannot need, found before anything is scanned.
//!
//! Segments go by their time range. Rows of a segment go by tenant ([`super::tenants`]), by the entity
//! index, and by the Bloom filters of its row groups, of which only the one block that a value falls
//! into is read. What is left is given to the scan as an access plan, and the scan prunes further by
//! statistics and pages. All of this only leaves out rows that the query's own filter refuses.

use super::files::{Footer, ReadCache, ReadError, all_null, leaf, read_range};
use super::like::longest_text;
use super::schema::ID;
use super::tenants::{intersect, selection, tenant_rows};
use crate::SegmentFile;
use datafusion::common::ScalarValue;
use datafusion::datasource::physical_plan::parquet::{ParquetAccessPlan, RowGroupAccess};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use palisade_event::schema::{Core, timestamp};
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use xxhash_rust::xxh64::xxh64;

/// The most values of one `IN` list or chain of `OR` that are looked up.
const MAX_VALUES: usize = 64;
/// The most of them that are looked for in pages.
pub(super) const MAX_SOUGHT: usize = 4;

/// What a conjunction of filters says that a wanted row must be. Less is said than the filters say,
/// never more.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wanted {
    /// The least and greatest time, inclusive, in microseconds.
    pub(super) time: (i64, i64),
    /// Columns that must equal one of the values.
    pub(super) equal: BTreeMap<String, Vec<String>>,
    /// Columns that must hold a text.
    pub(super) holds: Vec<(String, String)>,
}

impl Wanted {
    pub(super) fn by(filters: &[Expr]) -> Self {
        let mut wanted =
            Self { time: (i64::MIN, i64::MAX), equal: BTreeMap::new(), holds: Vec::new() };
        for filter in filters {
            wanted.and(filter);
        }
        wanted
    }

    fn and(&mut self, filter: &Expr) {
        match filter {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
                self.and(left);
                self.and(right);
            }
            Expr::Between(between) if !between.negated => {
                if let (Expr::Column(column), Expr::Literal(low, _), Expr::Literal(high, _)) =
                    (between.expr.as_ref(), between.low.as_ref(), between.high.as_ref())
                {
                    self.compare(&column.name, Operator::GtEq, low);
                    self.compare(&column.name, Operator::LtEq, high);
                }
            }
            Expr::Like(like) if !like.negated && !like.case_insensitive => {
                if let (Expr::Column(column), Expr::Literal(pattern, _), None) =
                    (like.expr.as_ref(), like.pattern.as_ref(), like.escape_char)
                    && let Some(Some(pattern)) = pattern.try_as_str()
                    && let Some(text) = longest_text(pattern)
                {
                    self.holds.push((column.name.clone(), text));
                }
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if *op != Operator::Or => {
                match (left.as_ref(), right.as_ref()) {
                    (Expr::Column(column), Expr::Literal(value, _)) => {
                        self.compare(&column.name, *op, value);
                    }
                    (Expr::Literal(value, _), Expr::Column(column)) => {
                        if let Some(op) = op.swap() {
                            self.compare(&column.name, op, value);
                        }
                    }
                    _ => {}
                }
            }
            other => {
                let mut values = Vec::new();
                if let Some(column) = one_of(other, &mut values) {
                    self.equals(&column, values);
                }
            }
        }
    }

    fn compare(&mut self, column: &str, op: Operator, value: &ScalarValue) {
        if column == Core::Time.name() {
            // Bounds are taken as inclusive: finer units are rounded, which must not lose a row.
            let Some(at) = micros(value) else { return };
            if matches!(op, Operator::Gt | Operator::GtEq | Operator::Eq) {
                self.time.0 = self.time.0.max(at);
            }
            if matches!(op, Operator::Lt | Operator::LtEq | Operator::Eq) {
                self.time.1 = self.time.1.min(at.saturating_add(1));
            }
        } else if op == Operator::Eq
            && let Some(Some(text)) = value.try_as_str()
        {
            self.equals(column, vec![text.to_owned()]);
        }
    }

    fn equals(&mut self, column: &str, values: Vec<String>) {
        self.equal.entry(column.to_owned()).or_insert(values);
    }

    /// Whether a segment may hold wanted rows.
    pub(super) fn may_be_in(&self, segment: &SegmentFile) -> bool {
        segment.meta.min_time <= self.time.1 && segment.meta.max_time >= self.time.0
    }
}

fn micros(value: &ScalarValue) -> Option<i64> {
    match value.cast_to(&timestamp()).ok()? {
        ScalarValue::TimestampMicrosecond(at, _) => at,
        _ => None,
    }
}

/// The column of which an expression says that it equals one of some texts.
fn one_of(expr: &Expr, values: &mut Vec<String>) -> Option<String> {
    let found = match expr {
        Expr::InList(list) if !list.negated => {
            let Expr::Column(column) = list.expr.as_ref() else { return None };
            for item in &list.list {
                let Expr::Literal(value, _) = item else { return None };
                // A null in the list equals nothing.
                if let Some(text) = value.try_as_str()? {
                    values.push(text.to_owned());
                }
            }
            Some(column.name.clone())
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            let (left, right) = (one_of(left, values)?, one_of(right, values)?);
            (left == right).then_some(left)
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => {
            match (left.as_ref(), right.as_ref()) {
                (Expr::Column(column), Expr::Literal(value, _))
                | (Expr::Literal(value, _), Expr::Column(column)) => {
                    values.push(value.try_as_str()??.to_owned());
                    Some(column.name.clone())
                }
                _ => None,
            }
        }
        _ => None,
    };
    found.filter(|_| values.len() <= MAX_VALUES)
}

/// Which rows of a segment a query of a tenant has to look at.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Rows {
    /// All of them.
    All,
    /// None.
    None,
    /// Those in these ranges, ascending, numbered over the whole file.
    Ranges(Vec<Range<u64>>),
}

impl Rows {
    fn and(self, ranges: &[Range<u64>]) -> Self {
        let ranges = match self {
            Self::All => ranges.to_vec(),
            Self::None => return Self::None,
            Self::Ranges(own) => intersect(&own, ranges),
        };
        if ranges.is_empty() { Self::None } else { Self::Ranges(ranges) }
    }

    /// How many rows there are, of `total`.
    pub(super) fn count(&self, total: u64) -> u64 {
        match self {
            Self::All => total,
            Self::None => 0,
            Self::Ranges(ranges) => ranges.iter().map(|range| range.end - range.start).sum(),
        }
    }
}

/// The rows of a segment that are the tenant's: all of them in a segment of its own.
///
/// # Errors
/// [`ReadError`] when the file cannot be read.
pub(super) fn rows_of_tenant(
    cache: &ReadCache,
    segment: &SegmentFile,
    tenant: &str,
) -> Result<Rows, ReadError> {
    match segment.meta.tenants.as_slice() {
        [only] if only == tenant => Ok(Rows::All),
        tenants if tenants.iter().any(|other| other == tenant) => {
            Ok(Rows::All.and(tenant_rows(cache, segment)?.of(tenant)))
        }
        _ => Ok(Rows::None),
    }
}

/// The rows out of `rows` that may be wanted, by the entity index and the Bloom filters.
///
/// # Errors
/// [`ReadError`] when the file cannot be read.
pub(super) fn wanted_rows(
    cache: &ReadCache,
    segment: &SegmentFile,
    wanted: &Wanted,
    mut rows: Rows,
) -> Result<Rows, ReadError> {
    if wanted.equal.is_empty() || rows == Rows::None {
        return Ok(rows);
    }
    let footer = cache.footer(segment)?;
    let mut filtered = Vec::new();
    for (column, values) in &wanted.equal {
        if let Some(ranges) = footer.indexed_rows(segment, column, values) {
            rows = rows.and(&ranges);
        } else if Core::by_name(column).is_some() || !footer.has_overflow() {
            // A dynamic column's value may stand in `overflow` instead, where no filter knows it.
            filtered.push((column, values));
        }
    }
    if filtered.is_empty() || rows == Rows::None {
        return Ok(rows);
    }
    let mut file = None;
    let mut start = 0;
    let mut kept: Vec<Range<u64>> = Vec::new();
    for (index, group) in footer.metadata.row_groups().iter().enumerate() {
        let end = start + u64::try_from(group.num_rows()).unwrap_or(0);
        let inside = rows.clone().and(std::slice::from_ref(&(start..end)));
        let mut possible = inside != Rows::None;
        for (column, values) in &filtered {
            possible = possible
                && (if column.as_str() == ID {
                    may_hold_id(segment, &footer, index, values, &mut file)?
                } else {
                    let values = values.iter().map(String::as_bytes);
                    may_hold(segment, &footer, index, column, values, &mut file)?
                });
        }
        if possible {
            match kept.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => kept.push(start..end),
            }
        }
        start = end;
    }
    if kept.len() == 1 && kept.first().is_some_and(|range| *range == (0..start)) {
        return Ok(rows);
    }
    Ok(rows.and(&kept))
}

/// Whether a row group may hold a row of one of these ids. An id is stored, or computed from `event_id`;
/// the filter of `record_id` knows both, except in files of earlier releases, where it knows the stored
/// ones only.
fn may_hold_id(
    segment: &SegmentFile,
    footer: &Footer,
    group: usize,
    ids: &[String],
    file: &mut Option<File>,
) -> Result<bool, ReadError> {
    let metadata = &footer.metadata;
    let given = leaf(metadata, &footer.schema, Core::EventId.name());
    if !footer.derived_ids && given.is_some_and(|leaf| !all_null(metadata, group, leaf)) {
        return Ok(true);
    }
    let stored = record_ids(ids);
    let name = Core::RecordId.name();
    let stored = stored.iter().map(<[u8; 16]>::as_slice);
    may_hold(segment, footer, group, name, stored, file)
}

/// The bytes of ids in their text form; other texts are the ids of no record.
pub(super) fn record_ids(ids: &[String]) -> Vec<[u8; 16]> {
    ids.iter()
        .filter(|id| id.len() == 32)
        .filter_map(|id| u128::from_str_radix(id, 16).ok())
        .map(u128::to_be_bytes)
        .collect()
}

/// Whether a row group may hold one of these values in a column: false only when a Bloom filter rules
/// out all of them.
fn may_hold<'a>(
    segment: &SegmentFile,
    footer: &Footer,
    group: usize,
    column: &str,
    values: impl Iterator<Item = &'a [u8]>,
    file: &mut Option<File>,
) -> Result<bool, ReadError> {
    let metadata = &footer.metadata;
    let Some(leaf) = leaf(metadata, &footer.schema, column) else { return Ok(true) };
    let column = metadata.row_groups().get(group).and_then(|group| group.columns().get(leaf));
    // A converted column is not what the filter was built on.
    let stored_as_text = footer
        .schema
        .field_with_name(column.map_or("", |column| column.column_descr().name()))
        .is_ok_and(|field| {
            matches!(
                field.data_type(),
                arrow::datatypes::DataType::Utf8View
                    | arrow::datatypes::DataType::FixedSizeBinary(_)
            ) && !palisade_event::schema::is_json(field)
        });
    let Some(filter) = column.filter(|_| stored_as_text).and_then(Bloom::at) else {
        return Ok(true);
    };
    for value in values {
        if filter.may_hold(segment, value, file)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Where a split-block Bloom filter stands in a file.
struct Bloom {
    offset: u64,
    length: u64,
}

impl Bloom {
    fn at(column: &parquet::file::metadata::ColumnChunkMetaData) -> Option<Self> {
        let offset = u64::try_from(column.bloom_filter_offset()?).ok()?;
        let length = u64::try_from(column.bloom_filter_length()?).ok()?;
        Some(Self { offset, length })
    }

    /// Reads the one block of 32 bytes that decides about a value. The filter's header is a thrift
    /// structure whose first field is the number of bytes of the blocks that follow it.
    fn may_hold(
        &self,
        segment: &SegmentFile,
        value: &[u8],
        file: &mut Option<File>,
    ) -> Result<bool, ReadError> {
        let head = read_range(&segment.path, file, &(self.offset..self.offset + 8))?;
        let Some(bytes) = header_bytes(&head).filter(|bytes| *bytes < self.length) else {
            return Ok(true);
        };
        let blocks = bytes / 32;
        let hash = xxh64(value, 0);
        let block = ((hash >> 32) * blocks) >> 32;
        let start = self.offset + self.length - bytes + block * 32;
        let block = read_range(&segment.path, file, &(start..start + 32))?;
        Ok(block.chunks_exact(4).zip(SALT).all(|(word, salt)| {
            let word = word.try_into().map_or(u32::MAX, u32::from_le_bytes);
            word & (1 << ((hash as u32).wrapping_mul(salt) >> 27)) != 0
        }))
    }
}

/// The salts of the Parquet format.
const SALT: [u32; 8] = [
    0x47b6_137b,
    0x4497_4d91,
    0x8824_ad5b,
    0xa2b7_289d,
    0x7054_95c7,
    0x2df1_424b,
    0x9efc_4947,
    0x5c6b_fb31,
];

/// The number of bytes of blocks, out of a filter's header: field 1, a zigzag varint.
fn header_bytes(head: &[u8]) -> Option<u64> {
    let (first, rest) = head.split_first()?;
    if *first != 0x15 {
        return None;
    }
    let mut raw = 0u64;
    for (place, byte) in rest.iter().enumerate().take(5) {
        raw |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            let bytes = raw >> 1;
            return (raw & 1 == 0 && bytes >= 32 && bytes.is_multiple_of(32)).then_some(bytes);
        }
    }
    None
}

/// Ranges of rows as what to do with each row group.
pub(super) fn access_plan(footer: &Footer, ranges: &[Range<u64>]) -> ParquetAccessPlan {
    let mut start = 0;
    let groups = footer.metadata.row_groups().iter().map(|group| {
        let rows = u64::try_from(group.num_rows()).unwrap_or(0);
        let end = start + rows;
        let inside: Vec<Range<u64>> = intersect(ranges, std::slice::from_ref(&(start..end)))
            .into_iter()
            .map(|range| range.start - start..range.end - start)
            .collect();
        start = end;
        match inside.as_slice() {
            [] => RowGroupAccess::Skip,
            [all] if *all == (0..rows) => RowGroupAccess::Scan,
            some => RowGroupAccess::Selection(selection(some, usize::try_from(rows).unwrap_or(0))),
        }
    });
    ParquetAccessPlan::new(groups.collect())
}

/// A time of the catalog as a scalar of the column `time`.
pub(super) fn time_scalar(at: i64) -> ScalarValue {
    ScalarValue::TimestampMicrosecond(Some(at), Some("UTC".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::logical_expr::{col, lit};

    #[test]
    fn filters_say_what_is_wanted() {
        let at = |at| lit(ScalarValue::TimestampMicrosecond(Some(at), None));
        let wanted = Wanted::by(&[
            col("time").gt_eq(at(10)).and(col("time").lt(at(20))),
            col("user").eq(lit("bob")).or(col("user").eq(lit("eve"))),
            col("host").in_list(vec![lit("a"), lit("b")], false),
            col("src_ip").in_list(vec![lit("c")], true),
            col("user").eq(lit("x")).or(col("host").eq(lit("y"))),
            lit("z").eq(col("type")),
            col("host").like(lit("%a_bc%")),
            col("host").not_like(lit("%d%")),
        ]);
        assert_eq!(wanted.holds, [("host".to_owned(), "bc".to_owned())]);
        assert_eq!(wanted.time, (10, 21));
        let values = |name: &str| wanted.equal.get(name).map(|v| v.join(","));
        assert_eq!(values("user").as_deref(), Some("bob,eve"));
        assert_eq!(values("host").as_deref(), Some("a,b"));
        assert_eq!(values("type").as_deref(), Some("z"));
        assert_eq!(values("src_ip"), None);
    }

    #[test]
    fn nanoseconds_do_not_lose_a_row() {
        let at = lit(ScalarValue::TimestampNanosecond(Some(1_500), None));
        assert_eq!(Wanted::by(&[col("time").lt(at.clone())]).time, (i64::MIN, 2));
        assert_eq!(Wanted::by(&[col("time").gt(at)]).time, (1, i64::MAX));
    }

    #[test]
    fn headers_of_bloom_filters_are_read() {
        assert_eq!(header_bytes(&[0x15, 0x80, 0x01, 0x1c]), Some(64));
        assert_eq!(header_bytes(&[0x15, 0x40]), Some(32));
        assert_eq!(header_bytes(&[0x16, 0x40]), None);
        assert_eq!(header_bytes(&[0x15, 0x41]), None);
    }
}
