//! Reading few rows: those of a user or an address that stand alone in their pages.
//!
//! The entity index says in which pages a value occurs, a search through its column in these pages in which rows, and
//! of these rows the values of all columns are picked out of their pages ([`super::pick`]). The whole filter of the scan
//! is then evaluated on them, so nothing is decided here. Whatever cannot be done this way, be it a kind of column, a
//! damaged page or a filter that fails, is left to the scan: it does the same, or says what is wrong.

use super::super::adapt::RowAdapterFactory;
use super::super::files::{Footer, ReadCache, all_null, leaf};
use super::super::prune::Wanted;
use super::super::schema::{ID, stored_name};
use super::super::tenants::intersect;
use super::file::PageFile;
use super::pages::Chunk;
use super::values::Column;
use super::{begins_in, rows_of, text_leaf};
use crate::SegmentFile;
use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::FileSource;
use datafusion::datasource::physical_plan::parquet::ParquetAccessPlan;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::utils::{collect_columns, reassign_expr_columns};
use datafusion::physical_expr_adapter::PhysicalExprAdapter;
use datafusion::physical_plan::metrics::Count;
use palisade_event::schema::{Core, EVENTS};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use std::ops::Range;
use std::sync::Arc;

/// More rows of a file than this are not few.
const MAX_ROWS: usize = 4_096;
/// More bytes of them than this are too much to hold at once.
const MAX_BYTES: usize = 8 << 20;

/// Which rows a query looks for that may be few.
#[derive(Debug, Clone)]
pub(in super::super) struct Sought {
    cache: Arc<ReadCache>,
    /// Stored columns of text, and the values of which each wanted row has one.
    equal: Vec<(String, Vec<Vec<u8>>)>,
    /// The least and greatest time that is wanted.
    time: (i64, i64),
}

impl Sought {
    /// `None` when a query wants no value of a column that could be looked for.
    pub(in super::super) fn new(
        cache: &Arc<ReadCache>,
        table: &str,
        wanted: &Wanted,
    ) -> Option<Self> {
        let equal = wanted.equal.iter().filter(|(column, values)| {
            // These two are computed, whatever is stored under their names.
            let computed = *column == Core::Tenant.name() || (table == EVENTS && *column == ID);
            !computed && !values.is_empty()
        });
        let equal: Vec<(String, Vec<Vec<u8>>)> = equal
            .map(|(column, values)| {
                let values = values.iter().map(|value| value.as_bytes().to_vec()).collect();
                (stored_name(table, column).to_owned(), values)
            })
            .collect();
        let cache = Arc::clone(cache);
        (!equal.is_empty()).then_some(Self { cache, equal, time: wanted.time })
    }
}

/// How a scan reads few rows.
pub(super) struct Few {
    sought: Sought,
    /// The columns of the scan's table.
    table: SchemaRef,
    /// What the scan gives.
    output: SchemaRef,
    columns: Vec<Arc<dyn PhysicalExpr>>,
    filter: Option<Arc<dyn PhysicalExpr>>,
    adapter: RowAdapterFactory,
    /// How many rows were read, for who asks what a plan did.
    picked: Count,
}

impl std::fmt::Debug for Few {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Few").field("sought", &self.sought).finish_non_exhaustive()
    }
}

/// The expressions of a scan on the columns of one file.
struct Adapted {
    /// Which columns of the file are needed.
    needed: Vec<usize>,
    /// These columns.
    schema: SchemaRef,
    columns: Vec<Arc<dyn PhysicalExpr>>,
    filter: Option<Arc<dyn PhysicalExpr>>,
}

/// The rows of a row group that are picked.
struct Group {
    number: usize,
    rows: Vec<u64>,
}

impl Few {
    /// How this source's scan reads few rows.
    pub(super) fn new(
        sought: &Sought,
        source: &dyn FileSource,
        adapter: &RowAdapterFactory,
        picked: Count,
    ) -> Option<Self> {
        let projection = source.projection()?;
        let table = Arc::clone(source.table_schema().table_schema());
        let output = Arc::new(projection.project_schema(&table).ok()?);
        Some(Self {
            sought: sought.clone(),
            output,
            columns: projection.expr_iter().collect(),
            filter: source.filter(),
            adapter: adapter.clone(),
            picked,
            table,
        })
    }

    /// The wanted rows of a file, where they are few; `None` when they are not, or cannot be picked.
    pub(super) async fn read(&self, file: &PartitionedFile, read: &Count) -> Option<RecordBatch> {
        let segment = file.extension::<Arc<SegmentFile>>()?;
        // Of a page that others have rows in too, not even how long its search takes is anyone's business.
        if segment.meta.tenants.len() > 1 {
            return None;
        }
        let plan = file.extension::<ParquetAccessPlan>()?;
        let footer = self.sought.cache.footer(segment).ok()?;
        if plan.len() != footer.metadata.row_groups().len() {
            return None;
        }
        let pages = Arc::new(PageFile::open(&segment.path).ok()?);
        let batch = self.pick(file, plan, &footer, &pages).await;
        read.add(pages.read());
        self.picked.add(batch.as_ref().map_or(0, RecordBatch::num_rows));
        batch
    }

    async fn pick(
        &self,
        file: &PartitionedFile,
        plan: &ParquetAccessPlan,
        footer: &Footer,
        pages: &Arc<PageFile>,
    ) -> Option<RecordBatch> {
        let groups = self.groups(file, plan, footer, pages).await?;
        let adapted = self.adapted(&footer.schema)?;
        let mut columns: Vec<Column> = Vec::with_capacity(adapted.needed.len());
        for field in adapted.schema.fields() {
            columns.push(Column::of(field.data_type())?);
        }
        let mut bytes = 0usize;
        let mut count = 0usize;
        for group in &groups {
            for (column, field) in columns.iter_mut().zip(adapted.schema.fields()) {
                let leaf = leaf(&footer.metadata, &footer.schema, field.name())?;
                if all_null(&footer.metadata, group.number, leaf) {
                    group.rows.iter().try_for_each(|_| column.push(None))?;
                    continue;
                }
                let chunk = Chunk::new(pages, &footer.metadata, group.number, leaf);
                chunk.pick(&group.rows, |value| {
                    bytes += value.map_or(0, <[u8]>::len);
                    (bytes <= MAX_BYTES).then_some(())?;
                    column.push(value)
                })?;
            }
            count += group.rows.len();
            // It is work, not waiting: others shall have their turn, and an end its effect.
            tokio::task::yield_now().await;
        }
        let columns = columns.into_iter().map(Column::finish).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let rows =
            RecordBatch::try_new_with_options(Arc::clone(&adapted.schema), columns, &options);
        self.evaluate(&adapted, rows.ok()?)
    }

    /// The rows that have the wanted values, by row group.
    async fn groups(
        &self,
        file: &PartitionedFile,
        plan: &ParquetAccessPlan,
        footer: &Footer,
        pages: &Arc<PageFile>,
    ) -> Option<Vec<Group>> {
        let metadata = &footer.metadata;
        let mut ranges = Vec::new();
        let (mut chosen, mut all) = (0u64, 0u64);
        for (number, group) in metadata.row_groups().iter().enumerate() {
            let total = usize::try_from(group.num_rows()).ok()?;
            if !begins_in(file, group) || !plan.should_scan(number) {
                continue;
            }
            let rows = rows_of(plan.inner().get(number), total);
            let rows = in_time(footer, number, self.sought.time, rows);
            chosen += rows.iter().map(|range| range.end - range.start).sum::<u64>();
            all += total as u64;
            if !rows.is_empty() {
                ranges.push((number, rows));
            }
        }
        // Where hardly anything is left out, rows are not few.
        if chosen * 2 > all {
            return None;
        }
        let mut groups = Vec::new();
        let mut left = MAX_ROWS;
        for (number, ranges) in ranges {
            let rows = self.rows(footer, pages, number, &ranges)?;
            left = left.checked_sub(rows.len())?;
            if !rows.is_empty() {
                groups.push(Group { number, rows });
            }
            tokio::task::yield_now().await;
        }
        Some(groups)
    }

    /// The rows of a row group, out of `ranges`, that have a wanted value in each column of which that can be told;
    /// `None` when it can of none.
    fn rows(
        &self,
        footer: &Footer,
        pages: &Arc<PageFile>,
        group: usize,
        ranges: &[Range<u64>],
    ) -> Option<Vec<u64>> {
        let mut found: Option<Vec<u64>> = None;
        for (column, values) in &self.sought.equal {
            // A dynamic column's value may stand in `overflow` instead.
            if Core::by_name(column).is_none() && footer.has_overflow() {
                continue;
            }
            let Some(leaf) = text_leaf(footer, column) else { continue };
            let chunk = Chunk::new(pages, &footer.metadata, group, leaf);
            let here: Vec<Range<u64>>;
            let ranges = match &found {
                Some(rows) => {
                    here = rows.iter().map(|row| *row..row + 1).collect();
                    here.as_slice()
                }
                None => ranges,
            };
            if let Some(rows) = chunk.rows_with(ranges, values) {
                found = Some(rows);
            }
        }
        found
    }

    fn adapted(&self, physical: &SchemaRef) -> Option<Adapted> {
        let adapter = self.adapter.adapter(Arc::clone(&self.table), Arc::clone(physical));
        let rewrite = |expr: &Arc<dyn PhysicalExpr>| adapter.rewrite(Arc::clone(expr)).ok();
        let columns = self.columns.iter().map(rewrite).collect::<Option<Vec<_>>>()?;
        let filter = match &self.filter {
            Some(filter) => Some(rewrite(filter)?),
            None => None,
        };
        let mut needed: Vec<usize> = columns
            .iter()
            .chain(&filter)
            .flat_map(collect_columns)
            .map(|column| column.index())
            .collect();
        needed.sort_unstable();
        needed.dedup();
        let schema = Arc::new(physical.project(&needed).ok()?);
        let on_needed = |expr| reassign_expr_columns(expr, &schema).ok();
        let columns = columns.into_iter().map(on_needed).collect::<Option<Vec<_>>>()?;
        let filter = match filter {
            Some(filter) => Some(on_needed(filter)?),
            None => None,
        };
        Some(Adapted { needed, schema, columns, filter })
    }

    fn evaluate(&self, adapted: &Adapted, mut rows: RecordBatch) -> Option<RecordBatch> {
        if let Some(filter) = &adapted.filter {
            let passed = filter.evaluate(&rows).ok()?.into_array(rows.num_rows()).ok()?;
            if passed.data_type() != &DataType::Boolean {
                return None;
            }
            rows = filter_record_batch(&rows, passed.as_boolean()).ok()?;
        }
        let count = rows.num_rows();
        let columns: Option<Vec<ArrayRef>> = adapted
            .columns
            .iter()
            .map(|column| column.evaluate(&rows).ok()?.into_array(count).ok())
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let output = Arc::clone(&self.output);
        RecordBatch::try_new_with_options(output, columns?, &options).ok()
    }
}

/// The rows, out of `rows`, of pages that may have a row of the wanted time.
fn in_time(
    footer: &Footer,
    group: usize,
    time: (i64, i64),
    rows: Vec<Range<u64>>,
) -> Vec<Range<u64>> {
    let pages = || -> Option<Vec<Range<u64>>> {
        let metadata = &footer.metadata;
        let leaf = leaf(metadata, &footer.schema, Core::Time.name())?;
        let pages = metadata.offset_index()?.get(group)?.get(leaf)?.page_locations();
        let ColumnIndexMetaData::INT64(times) = metadata.column_index()?.get(group)?.get(leaf)?
        else {
            return None;
        };
        if times.min_values().len() != pages.len() || times.max_values().len() != pages.len() {
            return None;
        }
        let total = metadata.row_groups().get(group)?.num_rows();
        let mut kept = Vec::new();
        for (number, page) in pages.iter().enumerate() {
            let end = pages.get(number + 1).map_or(total, |next| next.first_row_index);
            let before = times.max_value(number).is_some_and(|max| *max < time.0);
            let after = times.min_value(number).is_some_and(|min| *min > time.1);
            if !before && !after {
                let start = u64::try_from(page.first_row_index).ok()?;
                kept.push(start..u64::try_from(end).ok()?);
            }
        }
        Some(kept)
    };
    match pages() {
        Some(pages) => intersect(&rows, &pages),
        None => rows,
    }
}
