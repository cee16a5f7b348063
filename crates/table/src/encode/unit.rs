//! A unit: batches that are encoded together, and the layout of the file that they go into.

use super::chunk::{EncodedChunk, Scratch};
use super::number::{self, Gathered};
use super::text::{self, NULL, TextColumn, TextOptions};
use super::{ROW_GROUP_ROWS, Run};
use crate::error::TableError;
use crate::index::{INDEXED, IndexBuilder};
use crate::kind::{Kind, conform};
use arrow::array::{Array, ArrayRef, RecordBatch, new_null_array};
use arrow::compute::interleave;
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use palisade_event::column::Text;
use palisade_event::schema::{Core, EVENTS};
use palisade_event::{RecordId, SenderIds};
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::file::writer::SerializedRowGroupWriter;
use parquet::schema::types::SchemaDescPtr;
use std::collections::BTreeSet;
use std::io::Write;
use std::ops::Range;
use std::sync::Arc;

/// Text columns whose chunks have bloom filters.
const BLOOMED: [&str; 7] =
    ["event_id", "user", "host", "src_ip", "dst_ip", "alert_id", "dead_letter_id"];
/// Decoded bytes of a row group, about; rows that are wide make row groups of fewer rows.
const ROW_GROUP_BYTES: usize = 64 << 20;

/// The columns of a segment, in order: core columns first, the others by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) table: String,
    pub(crate) columns: Vec<(String, Kind)>,
}

impl Layout {
    /// The union of the columns of all schemas, each with the kind that holds all its values.
    pub(crate) fn union<'a>(
        table: &str,
        schemas: impl Iterator<Item = &'a SchemaRef>,
    ) -> Result<Self, TableError> {
        let mut kinds: HashMap<&str, Kind, FixedState> = HashMap::default();
        let mut last: Option<&SchemaRef> = None;
        for schema in schemas {
            // Batches of one decoder share their schema.
            if last.is_some_and(|last| Arc::ptr_eq(last, schema)) {
                continue;
            }
            last = Some(schema);
            for field in schema.fields() {
                if field.data_type().is_null() {
                    continue;
                }
                let kind = Kind::of(field).ok_or_else(|| {
                    let name = field.name();
                    TableError::columns(
                        table,
                        format!(
                            "column {name} is of type {}, which tables don't keep",
                            field.data_type()
                        ),
                    )
                })?;
                kinds
                    .entry(field.name().as_str())
                    .and_modify(|known| *known = known.unify(kind))
                    .or_insert(kind);
            }
        }
        if table == EVENTS && kinds.contains_key(Core::EventId.name()) {
            // Ids that derive from the sender's are not stored, but the column's filter knows them.
            kinds.entry(Core::RecordId.name()).or_insert(Kind::Id);
        }
        let mut columns: Vec<(String, Kind)> =
            kinds.into_iter().map(|(name, kind)| (name.to_owned(), kind)).collect();
        columns.sort_by(|(a, _), (b, _)| {
            let place = |name: &str| Core::by_name(name).map_or(usize::MAX, |core| core as usize);
            place(a).cmp(&place(b)).then_with(|| a.cmp(b))
        });
        Ok(Self { table: table.to_owned(), columns })
    }

    /// Whether the filter of `record_id` knows the ids that derive from the senders' too.
    pub(crate) fn filters_derived_ids(&self) -> bool {
        let kind = |core: Core| {
            self.columns.iter().find(|(name, _)| name == core.name()).map(|(_, kind)| *kind)
        };
        self.table == EVENTS
            && kind(Core::RecordId) == Some(Kind::Id)
            && [Core::Tenant, Core::Source, Core::EventId]
                .into_iter()
                .all(|core| matches!(kind(core), None | Some(Kind::Text)))
    }

    /// The Arrow schema of the file; `encoded` tells of each column whether it has a dictionary.
    pub(crate) fn schema(&self, encoded: impl Fn(usize) -> bool) -> Schema {
        let fields: Vec<FieldRef> = self
            .columns
            .iter()
            .enumerate()
            .map(|(index, (name, kind))| Arc::new(kind.field(name, encoded(index))))
            .collect();
        Schema::new(fields)
    }
}

/// Batches that are encoded together.
pub(crate) struct Unit<'a> {
    layout: &'a Layout,
    batches: &'a [RecordBatch],
    /// Per batch and column of the layout, the batch's field.
    places: Vec<Vec<Option<u32>>>,
}

/// A chunk of either writer.
pub(crate) enum Chunk {
    /// Encoded here.
    Own(EncodedChunk),
    /// Encoded by the Parquet library: nested columns.
    Library(ArrowColumnChunk),
}

impl Chunk {
    pub(crate) fn append_to<W: Write + Send>(
        self,
        group: &mut SerializedRowGroupWriter<'_, W>,
    ) -> parquet::errors::Result<()> {
        match self {
            Self::Own(chunk) => group.append_column(&chunk.bytes, chunk.close),
            Self::Library(chunk) => chunk.append_to_row_group(group),
        }
    }
}

/// The file that rows are encoded for.
pub(crate) struct Target {
    pub(crate) schema: SchemaDescPtr,
    pub(crate) nested: ArrowRowGroupWriterFactory,
    pub(crate) scratch: Scratch,
    pub(crate) index: IndexBuilder,
    pub(crate) facts: Facts,
    /// Rows in the file so far.
    pub(crate) rows: u64,
}

/// What is learned of the rows while they are encoded.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) tenants: BTreeSet<String>,
    /// Least and greatest time.
    pub(crate) times: Option<(i64, i64)>,
    /// By column, whether it was written with a dictionary.
    pub(crate) encoded: Vec<bool>,
}

impl<'a> Unit<'a> {
    pub(crate) fn new(layout: &'a Layout, batches: &'a [RecordBatch]) -> Self {
        let columns: HashMap<&str, usize, FixedState> = layout
            .columns
            .iter()
            .enumerate()
            .map(|(index, (name, _))| (name.as_str(), index))
            .collect();
        let places = batches
            .iter()
            .map(|batch| {
                let mut places = vec![None; layout.columns.len()];
                for (at, field) in batch.schema_ref().fields().iter().enumerate() {
                    let column = columns.get(field.name().as_str());
                    if let Some(place) = column.and_then(|column| places.get_mut(*column)) {
                        *place = Some(at as u32);
                    }
                }
                places
            })
            .collect();
        Self { layout, batches, places }
    }

    /// A column's arrays, per batch, brought to its kind.
    fn arrays(&self, column: usize, kind: Kind) -> Result<Vec<Option<ArrayRef>>, TableError> {
        let mut arrays = Vec::with_capacity(self.batches.len());
        for (batch, places) in self.batches.iter().zip(&self.places) {
            let schema = batch.schema_ref();
            let found = places.get(column).copied().flatten().and_then(|at| {
                Some((batch.columns().get(at as usize)?, schema.fields().get(at as usize)?))
            });
            arrays.push(match found {
                Some((array, field)) if !field.data_type().is_null() => {
                    Some(conform(array, field, kind, &self.layout.table)?)
                }
                _ => None,
            });
        }
        Ok(arrays)
    }

    /// Encodes these columns of the row groups, column by column, so that one column's dictionaries are
    /// in memory at a time. The result is per row group, per column.
    pub(crate) fn encode(
        &self,
        columns: Range<usize>,
        groups: &[Vec<Run>],
        target: &mut Target,
    ) -> Result<Vec<Vec<Chunk>>, TableError> {
        let Target { schema, nested, scratch, index, facts, rows: first_row } = target;
        let first_row = *first_row;
        let mut chunks: Vec<Vec<Chunk>> = groups.iter().map(|_| Vec::new()).collect();
        facts.encoded.resize(self.layout.columns.len(), false);
        let wanted = self.layout.columns.iter().enumerate().take(columns.end).skip(columns.start);
        for (column, (name, kind)) in wanted {
            let failed = |error: &dyn std::fmt::Display| {
                TableError::columns(&self.layout.table, format!("column {name}: {error}"))
            };
            let unfit = || failed(&"its arrays are of another type than its field");
            let arrays = self.arrays(column, *kind)?;
            // All kinds but lists have one leaf, and a list has one too.
            let descr =
                schema.columns().get(column).cloned().ok_or_else(|| failed(&"no such leaf"))?;
            match kind {
                Kind::Text | Kind::Json | Kind::Binary => {
                    let indexed = if *kind == Kind::Text { index.column(name) } else { None };
                    let is_tenant = name == Core::Tenant.name();
                    let numbered = indexed.is_some() || is_tenant;
                    let texts = TextColumn::new(&arrays, numbered).ok_or_else(unfit)?;
                    let options = TextOptions {
                        bloom: BLOOMED.contains(&name.as_str()),
                        utf8: *kind != Kind::Binary,
                    };
                    let mut sink = Numbered::new(index, indexed, is_tenant, first_row);
                    for (runs, chunks) in groups.iter().zip(&mut chunks) {
                        let chunk = if texts.numbered {
                            sink.encode(&texts, runs, options, descr.clone(), scratch)
                        } else {
                            text::encode_column(&texts, runs, options, descr.clone(), scratch)
                        };
                        chunks.push(Chunk::Own(chunk.map_err(|error| failed(&error))?));
                    }
                    if is_tenant {
                        facts.tenants.extend(sink.seen(&texts));
                    }
                    if let Some(slot) = facts.encoded.get_mut(column) {
                        *slot |= texts.numbered;
                    }
                }
                Kind::List => {
                    for (group, (runs, chunks)) in groups.iter().zip(&mut chunks).enumerate() {
                        let chunk = self.parquet_chunk(column, group, &arrays, runs, nested);
                        chunks.push(Chunk::Library(chunk.map_err(|error| failed(&error))?));
                    }
                }
                Kind::Id => {
                    let derived = match name == Core::RecordId.name() {
                        true => self.senders()?,
                        false => None,
                    };
                    for (runs, chunks) in groups.iter().zip(&mut chunks) {
                        let derived = derived.as_ref().map(|ids| ids.of(runs)).unwrap_or_default();
                        let chunk =
                            number::encode_ids(&arrays, runs, &derived, descr.clone(), scratch);
                        chunks.push(Chunk::Own(chunk.map_err(|error| failed(&error))?));
                    }
                }
                _ => {
                    let mut gathered = Gathered::default();
                    for (runs, chunks) in groups.iter().zip(&mut chunks) {
                        gathered.gather(*kind, &arrays, runs).ok_or_else(unfit)?;
                        if name == Core::Time.name() {
                            facts.see_times(&gathered.values);
                        }
                        let chunk = number::encode(*kind, &gathered, descr.clone(), scratch);
                        chunks.push(Chunk::Own(chunk.map_err(|error| failed(&error))?));
                    }
                }
            }
        }
        Ok(chunks)
    }

    /// What the ids of events that their senders named derive from; `None` where the filter of ids shall
    /// not know them.
    fn senders(&self) -> Result<Option<Senders>, TableError> {
        if !self.layout.filters_derived_ids() {
            return Ok(None);
        }
        let texts = |core: Core| {
            let column = self.layout.columns.iter().position(|(name, _)| name == core.name());
            match column {
                Some(column) => self.arrays(column, Kind::Text),
                None => Ok(vec![None; self.batches.len()]),
            }
        };
        Ok(Some(Senders {
            tenants: texts(Core::Tenant)?,
            sources: texts(Core::Source)?,
            event_ids: texts(Core::EventId)?,
        }))
    }

    /// A nested column's chunk, by the Parquet library.
    fn parquet_chunk(
        &self,
        column: usize,
        group: usize,
        arrays: &[Option<ArrayRef>],
        runs: &[Run],
        nested: &ArrowRowGroupWriterFactory,
    ) -> parquet::errors::Result<ArrowColumnChunk> {
        let missing = || parquet::errors::ParquetError::General("no such column".to_owned());
        let (name, kind) = self.layout.columns.get(column).ok_or_else(missing)?;
        let field = kind.field(name, false);
        let absent = new_null_array(field.data_type(), 1);
        let arrays: Vec<&dyn Array> = arrays
            .iter()
            .map(|array| array.as_ref().map_or(absent.as_ref(), |array| array.as_ref()))
            .collect();
        let mut rows: Vec<(usize, usize)> = Vec::new();
        for run in runs {
            let batch = run.batch as usize;
            let is_absent =
                arrays.get(batch).is_none_or(|array| std::ptr::addr_eq(*array, absent.as_ref()));
            rows.extend(run.range().map(|row| (batch, if is_absent { 0 } else { row })));
        }
        let array = interleave(&arrays, &rows)?;
        let writers = nested.create_column_writers(group)?;
        let mut writer = writers.into_iter().nth(column).ok_or_else(missing)?;
        for leaf in compute_leaves(&field, &array)? {
            writer.write(&leaf)?;
        }
        writer.close()
    }
}

/// The columns, per batch, that ids derive from where senders named their events (I1).
struct Senders {
    tenants: Vec<Option<ArrayRef>>,
    sources: Vec<Option<ArrayRef>>,
    event_ids: Vec<Option<ArrayRef>>,
}

impl Senders {
    /// The ids of the named events of these rows.
    fn of(&self, runs: &[Run]) -> Vec<RecordId> {
        let mut hashing = SenderIds::default();
        let mut ids = Vec::new();
        for run in runs {
            let text = |columns: &'_ [Option<ArrayRef>]| -> Option<ArrayRef> {
                columns.get(run.batch as usize)?.clone()
            };
            let columns = [text(&self.tenants), text(&self.sources), text(&self.event_ids)];
            let [tenants, sources, event_ids] =
                columns.each_ref().map(|column| column.as_ref().and_then(Text::of));
            let Some(event_ids) = event_ids else { continue };
            for row in run.range() {
                let Some(event_id) = event_ids.get(row) else { continue };
                let tenant = tenants.as_ref().and_then(|texts| texts.get(row)).unwrap_or("");
                let source = sources.as_ref().and_then(|texts| texts.get(row)).unwrap_or("");
                ids.push(hashing.id(tenant, source, event_id));
            }
        }
        ids
    }
}

impl Facts {
    fn see_times(&mut self, times: &[i64]) {
        let range = times.iter().min().zip(times.iter().max());
        if let Some((min, max)) = range {
            let (a, b) = self.times.unwrap_or((*min, *max));
            self.times = Some((a.min(*min), b.max(*max)));
        }
    }
}

/// Encodes the row groups of a numbered column and tells the entity index of their rows.
struct Numbered<'a> {
    index: &'a mut IndexBuilder,
    indexed: Option<usize>,
    /// Whether [`Numbered::seen`] will be asked.
    track: bool,
    row: u64,
    numbers: Vec<u32>,
    local: Vec<u32>,
    /// By number, the index's slot; [`NULL`] when not asked for yet.
    slots: Vec<u32>,
    seen: Vec<bool>,
}

impl<'a> Numbered<'a> {
    fn new(
        index: &'a mut IndexBuilder,
        indexed: Option<usize>,
        track: bool,
        first_row: u64,
    ) -> Self {
        Self {
            index,
            indexed,
            track,
            row: first_row,
            numbers: Vec::new(),
            local: Vec::new(),
            slots: Vec::new(),
            seen: Vec::new(),
        }
    }

    fn encode(
        &mut self,
        texts: &TextColumn,
        runs: &[Run],
        options: TextOptions,
        descr: parquet::schema::types::ColumnDescPtr,
        scratch: &mut Scratch,
    ) -> parquet::errors::Result<EncodedChunk> {
        texts.numbers(runs, &mut self.numbers);
        let numbers = &self.numbers;
        self.seen.resize(texts.interner.len(), false);
        let chunk = text::encode_numbered(
            &texts.interner,
            numbers,
            &mut self.local,
            options,
            descr,
            scratch,
        )?;
        if let Some(column) = self.indexed {
            self.slots.resize(texts.interner.len(), NULL);
            let mut marks = Vec::with_capacity(numbers.len());
            for number in numbers {
                let Some(slot) = self.slots.get_mut(*number as usize) else {
                    marks.push(NULL);
                    continue;
                };
                if *slot == NULL {
                    let text = std::str::from_utf8(texts.interner.get(*number)).unwrap_or_default();
                    let Some(given) = self.index.slot(column, text) else {
                        self.indexed = None;
                        break;
                    };
                    *slot = given;
                }
                marks.push(*slot);
            }
            if self.indexed.is_some() {
                self.index.mark_rows(column, &marks, self.row);
            }
        }
        if self.track {
            for number in numbers {
                if let Some(seen) = self.seen.get_mut(*number as usize) {
                    *seen = true;
                }
            }
        }
        self.row += self.numbers.len() as u64;
        Ok(chunk)
    }

    /// The distinct values that rows had.
    fn seen<'t>(&self, texts: &'t TextColumn) -> impl Iterator<Item = String> + use<'t, '_> {
        let seen = self.seen.iter().enumerate().filter(|(_, seen)| **seen);
        seen.map(|(number, _)| {
            String::from_utf8_lossy(texts.interner.get(number as u32)).into_owned()
        })
    }
}

/// Rows of a row group for rows of so many decoded bytes.
pub(crate) fn group_rows(bytes: usize, rows: usize) -> usize {
    let row_bytes = (bytes / rows.max(1)).max(1);
    let fit = ROW_GROUP_BYTES / row_bytes / super::PAGE_ROWS * super::PAGE_ROWS;
    fit.clamp(super::PAGE_ROWS, ROW_GROUP_ROWS)
}

/// Cuts runs into pieces of `rows` rows; the last may be shorter.
pub(crate) fn cut_runs(runs: &[Run], rows: usize) -> Vec<Vec<Run>> {
    let mut groups = Vec::new();
    let mut group = Vec::new();
    let mut left = rows;
    for run in runs {
        let mut run = *run;
        while run.len > 0 {
            let len = (run.len as usize).min(left) as u32;
            group.push(Run { len, ..run });
            left -= len as usize;
            run = Run { batch: run.batch, start: run.start + len, len: run.len - len };
            if left == 0 {
                groups.push(std::mem::take(&mut group));
                left = rows;
            }
        }
    }
    if !group.is_empty() {
        groups.push(group);
    }
    groups
}

/// The columns of a layout that the entity index covers.
pub(crate) fn indexed_columns(layout: &Layout) -> Vec<&'static str> {
    let texts = |name: &&str| {
        layout.columns.iter().any(|(column, kind)| column == *name && *kind == Kind::Text)
    };
    INDEXED.into_iter().filter(texts).collect()
}
