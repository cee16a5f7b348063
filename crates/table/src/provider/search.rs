//! Looking for what no index knows: texts inside of values, and values and derived ids that a Bloom filter
//! only suspects.
//!
//! Just before a segment's file is scanned, the pages of the column in question are looked through as bytes
//! ([`pages`]): that costs a fraction of making an array of every value and evaluating the filter on each.
//! Pages without a hit are taken out of the file's access plan, for all columns. The query's own filter stays
//! in the scan and decides about the rows that are left, so this is free to keep too much. It stops by
//! itself where most pages have a hit. Segments that several tenants share are not searched: nothing of a query
//! is ever evaluated on another tenant's row.
//!
//! Where the entity index leaves few rows, these are read here too ([`few`]), and the scan has nothing left to do.

mod few;
mod file;
mod holding;
mod pages;
mod pick;
mod source;
mod unpack;
mod values;

use super::files::{Footer, ReadCache, all_null, constant_in, leaf};
use super::prune::{MAX_SOUGHT, Wanted, record_ids};
use super::schema::{ID, stored_name};
use super::tenants::{intersect, selection};
use crate::SegmentFile;
use crate::index::INDEXED;
use arrow::datatypes::DataType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::{ParquetAccessPlan, RowGroupAccess};
use datafusion::physical_plan::metrics::Count;
pub(super) use few::Sought as FewSought;
use file::PageFile;
pub(super) use holding::rows_holding;
use memchr::memmem::Finder;
use pages::{Chunk, Seen, Sought};
use palisade_event::TenantId;
use palisade_event::schema::{Core, EVENTS, is_json};
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::statistics::Statistics;
pub(super) use source::SegmentSource;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// After so many pages it is asked whether the search pays.
const TRIAL: usize = 96;

/// A column and a text that each wanted row holds in it.
#[derive(Debug)]
struct Text {
    column: String,
    /// One of these.
    finders: Vec<Finder<'static>>,
    /// Equal values: only worth looking for where a filter says that a row group has one.
    equal: bool,
}

/// What a scan looks for in the pages of its files.
#[derive(Debug)]
pub(super) struct Search {
    cache: Arc<ReadCache>,
    texts: Vec<Text>,
    /// Ids of records, of which each wanted row has one.
    ids: Vec<u128>,
    tenant: TenantId,
    /// The least and greatest time that is wanted.
    time: (i64, i64),
    pages: AtomicUsize,
    found: AtomicUsize,
}

impl Search {
    /// What is to be looked for of what a query wants; `None` when that is nothing.
    pub(super) fn new(
        cache: &Arc<ReadCache>,
        tenant: &TenantId,
        table: &str,
        wanted: &Wanted,
    ) -> Option<Self> {
        let finder = |text: &str| Finder::new(text.as_bytes()).into_owned();
        let mut texts: Vec<Text> = Vec::new();
        for (column, text) in &wanted.holds {
            // These two are computed, whatever is stored under their names.
            if column == Core::Tenant.name() || (table == EVENTS && column == ID) {
                continue;
            }
            let column = stored_name(table, column).to_owned();
            texts.push(Text { column, finders: vec![finder(text)], equal: false });
        }
        for (column, values) in &wanted.equal {
            // The entity index knows some by page already, and ids are computed.
            let known = INDEXED.contains(&column.as_str()) || (table == EVENTS && column == ID);
            if !known
                && (1..=MAX_SOUGHT).contains(&values.len())
                && values.iter().all(|value| !value.is_empty())
            {
                let column = stored_name(table, column).to_owned();
                let finders = values.iter().map(|value| finder(value)).collect();
                texts.push(Text { column, finders, equal: true });
            }
        }
        let ids = wanted.equal.get(ID).filter(|ids| table == EVENTS && ids.len() <= MAX_SOUGHT);
        let ids = ids.map(|ids| record_ids(ids)).unwrap_or_default();
        let ids: Vec<u128> = ids.into_iter().map(u128::from_be_bytes).collect();
        (!texts.is_empty() || !ids.is_empty()).then(|| Self {
            cache: Arc::clone(cache),
            texts,
            ids,
            tenant: tenant.clone(),
            time: wanted.time,
            pages: AtomicUsize::new(0),
            found: AtomicUsize::new(0),
        })
    }

    /// Whether so many pages have hits that looking for them is in vain.
    fn is_vain(&self) -> bool {
        let pages = self.pages.load(Ordering::Relaxed);
        pages >= TRIAL && self.found.load(Ordering::Relaxed) * 2 > pages
    }

    /// Whether a row group may have rows of the wanted time; the scan leaves out others by itself.
    fn is_in_time(&self, footer: &Footer, group: usize) -> bool {
        let leaf = leaf(&footer.metadata, &footer.schema, Core::Time.name());
        let column =
            leaf.and_then(|leaf| footer.metadata.row_groups().get(group)?.columns().get(leaf));
        let Some(Statistics::Int64(bounds)) = column.and_then(|column| column.statistics()) else {
            return true;
        };
        bounds.min_opt().is_none_or(|min| *min <= self.time.1)
            && bounds.max_opt().is_none_or(|max| *max >= self.time.0)
    }

    /// The file without the pages in which nothing can be found.
    async fn narrow(&self, file: PartitionedFile, read: &Count) -> PartitionedFile {
        let Some(segment) = file.extension::<Arc<SegmentFile>>().map(Arc::clone) else {
            return file;
        };
        // Of a page that others have rows in too, not even how long its search takes is anyone's business.
        if segment.meta.tenants.len() > 1 {
            return file;
        }
        // What cannot be read is told by the scan.
        let (Ok(footer), Ok(pages)) = (self.cache.footer(&segment), PageFile::open(&segment.path))
        else {
            return file;
        };
        let pages = Arc::new(pages);
        let groups = footer.metadata.row_groups();
        let given = file.extension::<ParquetAccessPlan>().cloned();
        let mut plan = given.unwrap_or_else(|| ParquetAccessPlan::new_all(groups.len()));
        if plan.len() != groups.len() {
            return file;
        }
        let mut narrowed = false;
        for (index, group) in groups.iter().enumerate() {
            let own = begins_in(&file, group);
            if !own || !plan.should_scan(index) || !self.is_in_time(&footer, index) {
                continue;
            }
            if self.is_vain() {
                break;
            }
            let total = usize::try_from(group.num_rows()).unwrap_or(0);
            let rows = rows_of(plan.inner().get(index), total);
            let found = self.rows(&footer, &pages, index, rows.clone());
            if found != rows {
                narrowed = true;
                plan.set(
                    index,
                    match found.as_slice() {
                        [] => RowGroupAccess::Skip,
                        some => RowGroupAccess::Selection(selection(some, total)),
                    },
                );
            }
            // A search is work, not waiting: others shall have their turn, and an end its effect.
            tokio::task::yield_now().await;
        }
        read.add(pages.read());
        if narrowed { file.with_extension(plan) } else { file }
    }

    /// The rows, out of `rows`, of a row group that may be wanted.
    fn rows(
        &self,
        footer: &Footer,
        file: &Arc<PageFile>,
        group: usize,
        mut rows: Vec<Range<u64>>,
    ) -> Vec<Range<u64>> {
        let mut seen = Seen::default();
        for text in &self.texts {
            if let Some(found) = text.find(footer, file, group, &rows, &mut seen) {
                rows = found;
            }
        }
        if !self.ids.is_empty()
            && let Some(found) = self.derived(footer, file, group, &rows, &mut seen)
        {
            rows = found;
        }
        self.pages.fetch_add(seen.pages, Ordering::Relaxed);
        self.found.fetch_add(seen.found, Ordering::Relaxed);
        rows
    }
}

impl Search {
    /// The rows that may have one of the ids, where all ids of a row group derive from the senders';
    /// `None` when that cannot be told. Hashing what stands in a page costs half of what it costs the scan, which
    /// makes arrays of sources, senders' ids and the texts of ids.
    fn derived(
        &self,
        footer: &Footer,
        file: &Arc<PageFile>,
        group: usize,
        rows: &[Range<u64>],
        seen: &mut Seen,
    ) -> Option<Vec<Range<u64>>> {
        let metadata = &footer.metadata;
        let of = |core: Core| leaf(metadata, &footer.schema, core.name());
        if of(Core::RecordId).is_some_and(|leaf| !all_null(metadata, group, leaf)) {
            return None;
        }
        let source = match of(Core::Source) {
            Some(leaf) if !all_null(metadata, group, leaf) => constant_in(metadata, group, leaf)?,
            _ => "",
        };
        let chunk = Chunk::new(file, metadata, group, text_leaf(footer, Core::EventId.name())?);
        let mut sought = Sought::ids(self.tenant.as_str(), source, &self.ids);
        chunk.find(rows, &mut sought, seen)
    }
}

impl Text {
    /// The rows that may hold one of the texts; `None` when that cannot be told.
    fn find(
        &self,
        footer: &Footer,
        file: &Arc<PageFile>,
        group: usize,
        rows: &[Range<u64>],
        seen: &mut Seen,
    ) -> Option<Vec<Range<u64>>> {
        // A dynamic column's value may stand in `overflow` instead.
        if Core::by_name(&self.column).is_none() && footer.has_overflow() {
            return None;
        }
        let metadata = &footer.metadata;
        let leaf = text_leaf(footer, &self.column)?;
        let column = metadata.row_groups().get(group)?.columns().get(leaf)?;
        if self.equal && column.bloom_filter_offset().is_none() {
            return None;
        }
        let chunk = Chunk::new(file, metadata, group, leaf);
        let mut found = Vec::new();
        for finder in &self.finders {
            found.extend(chunk.find(rows, &mut Sought::Text(finder), seen)?);
        }
        Some(super::files::union(found))
    }
}

/// Whether a row group begins in the file's range: the others are read by other parts of the scan.
fn begins_in(file: &PartitionedFile, group: &RowGroupMetaData) -> bool {
    let start = group.columns().first().map_or(0, |column| {
        column.dictionary_page_offset().unwrap_or_else(|| column.data_page_offset())
    });
    file.range.as_ref().is_none_or(|range| range.contains(start))
}

/// The place of a column that holds texts and nothing else; `None` for any other.
fn text_leaf(footer: &Footer, column: &str) -> Option<usize> {
    let field = footer.schema.field_with_name(column).ok()?;
    if field.data_type() != &DataType::Utf8View || is_json(field) {
        return None;
    }
    leaf(&footer.metadata, &footer.schema, column)
}

/// The rows of a row group that an access plan has read, numbered from its first.
fn rows_of(access: Option<&RowGroupAccess>, total: usize) -> Vec<Range<u64>> {
    match access {
        Some(RowGroupAccess::Selection(selection)) => {
            let mut at = 0u64;
            let mut ranges = Vec::new();
            for part in selection.iter() {
                let end = at + part.row_count as u64;
                if !part.skip && part.row_count > 0 {
                    ranges.push(at..end);
                }
                at = end;
            }
            ranges
        }
        Some(RowGroupAccess::Scan) => std::iter::once(0..total as u64).collect(),
        _ => Vec::new(),
    }
}
