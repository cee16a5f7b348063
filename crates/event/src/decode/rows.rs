//! The rows of the frame being built: its columns, what the current row has set, and how rows are
//! completed or dropped again.

use super::column::{Column, Replaced, Value};
use super::path::{OVERFLOW, Paths};
use super::record::{moment, port, score};
use super::text::hash;
use super::{DecodeLimits, RequestContext};
use crate::id::RecordId;
use crate::schema::Core;
use crate::time::SECOND;
use foldhash::fast::FixedState;
use hashbrown::{HashSet, HashTable};

/// How far ahead of the clock a time may be (T4), in microseconds.
const AHEAD: i64 = 300 * SECOND;
/// After this long a full list of a tenant's columns begins anew, in microseconds.
const DAY: i64 = 86_400 * SECOND;
/// Frames' worth of dynamic columns that are remembered before all are forgotten.
const REMEMBERED_FRAMES: usize = 2;

/// What was noticed since the frame began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) bytes: usize,
    pub(super) overflow_fields: u64,
    pub(super) limited_fields: u64,
    pub(super) further_source_records: u64,
    pub(super) future_times: u64,
    pub(super) unread_times: u64,
    pub(super) replaced_surrogates: u64,
}

/// The dynamic columns that a tenant has, so that it can't bring ever new ones from frame to frame:
/// tables keep the columns of all frames.
#[derive(Debug, Default)]
struct TenantColumns {
    /// When the first came.
    since: i64,
    /// Hashes of their names.
    names: HashSet<u64, FixedState>,
}

/// The rows of the frame being built.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) limits: DecodeLimits,
    /// The core columns in their order, then the dynamic ones in the order of their appearance.
    columns: Vec<Column>,
    names: HashTable<u32>,
    tenants: Vec<TenantColumns>,
    rows: u32,
    /// The number of the frame; columns bear it that are in use.
    frame: u64,
    /// How many dynamic columns are in use.
    active: usize,
    /// In which row which column came into use.
    activated: Vec<(u32, u32)>,
    /// The columns that the current row has set.
    touched: Vec<u32>,
    replaced: Vec<Replaced>,
    /// The members of the current row's overflow: a JSON object without its end.
    pub(super) overflow: Vec<u8>,
    /// The current row's time, once a field gave it.
    time: Option<i64>,
    clock: i64,
    /// Lone surrogates that the current row had.
    pub(super) surrogates: u32,
    pub(super) stats: Counters,
    before: Counters,
}

impl Rows {
    pub(super) fn new(limits: DecodeLimits) -> Self {
        Self {
            limits,
            columns: Core::ALL.into_iter().map(Column::core).collect(),
            names: HashTable::new(),
            tenants: Vec::new(),
            rows: 0,
            frame: 1,
            active: 0,
            activated: Vec::new(),
            touched: Vec::new(),
            replaced: Vec::new(),
            overflow: Vec::new(),
            time: None,
            clock: 0,
            surrogates: 0,
            stats: Counters::default(),
            before: Counters::default(),
        }
    }

    pub(super) fn len(&self) -> u32 {
        self.rows
    }

    /// Begins a row.
    pub(super) fn begin(&mut self, clock: i64) {
        self.clock = clock;
        self.time = None;
        self.surrogates = 0;
        self.overflow.clear();
        self.touched.clear();
        self.before = self.stats;
    }

    /// Puts a value into a dynamic column; `false` when the row has one there already.
    #[inline(always)]
    pub(super) fn put(&mut self, index: u32, value: &Value<'_>) -> bool {
        let Some(column) = self.columns.get_mut(index as usize) else {
            return false;
        };
        if column.has(self.rows) {
            return false;
        }
        self.touched.push(index);
        column.push(self.rows, value, index, &mut self.replaced);
        true
    }

    /// [`Rows::put`] for a text.
    #[inline(always)]
    pub(super) fn put_text(&mut self, index: u32, text: &[u8]) -> bool {
        match self.columns.get_mut(index as usize) {
            Some(column) if !column.has(self.rows) => {
                self.touched.push(index);
                column.push_text(self.rows, text, false, index, &mut self.replaced);
                true
            }
            _ => false,
        }
    }

    /// [`Rows::put_core`] for a text; `false` also for the columns that are no text.
    #[inline(always)]
    pub(super) fn put_core_text(&mut self, core: Core, text: &[u8]) -> bool {
        let plain = match core {
            Core::Time | Core::SrcPort | Core::DstPort | Core::ReportedThreatScore => false,
            Core::EventId => !text.is_empty(),
            _ => true,
        };
        plain && self.put_text(core as u32, text)
    }

    /// Puts a value into a core column; `false` when the row has one there already or it does not
    /// fit.
    #[inline]
    pub(super) fn put_core(&mut self, core: Core, value: &Value<'_>) -> bool {
        if core == Core::Time {
            if self.time.is_some() {
                return false;
            }
            self.time = moment(value, self.clock);
            self.stats.unread_times += u64::from(self.time.is_none());
            return self.time.is_some();
        }
        let (index, row) = (core as u32, self.rows);
        let Some(column) = self.columns.get_mut(index as usize) else {
            return false;
        };
        if column.has(row) {
            return false;
        }
        match core {
            Core::SrcPort | Core::DstPort => match port(value) {
                Some(port) => column.push_int(row, port),
                None => return false,
            },
            Core::ReportedThreatScore => match score(value) {
                Some(score) => column.push_float(row, score),
                None => return false,
            },
            _ => {
                let text = match value {
                    Value::Text(text, _) | Value::Int(_, text) | Value::Float(_, text) => *text,
                    Value::Bool(true) => b"true",
                    Value::Bool(false) => b"false",
                    // A number that no type holds; its digits may well be an id.
                    Value::Json(text @ [b'-' | b'0'..=b'9', ..]) => *text,
                    Value::Json(_) => return false,
                };
                // An empty id would make all its bearers the same record.
                if core == Core::EventId && text.is_empty() {
                    return false;
                }
                column.push_text(row, text, false, index, &mut self.replaced);
            }
        }
        self.touched.push(index);
        true
    }

    /// Sets the row's time; `false` when it has one.
    pub(super) fn put_time(&mut self, micros: i64) -> bool {
        let free = self.time.is_none();
        if free {
            self.time = Some(micros);
        }
        free
    }

    /// Completes the row: its time, its id, its overflow.
    pub(super) fn complete(&mut self, ctx: &RequestContext<'_>, index: u32, bytes: usize) {
        let mut time = self.time.take().unwrap_or(self.clock);
        if time > self.clock.saturating_add(AHEAD) && ctx.is_live() {
            self.stats.future_times += 1;
            self.core_mut(Core::ClaimedTime, |column, row| column.push_int(row, time));
            time = self.clock;
        }
        self.core_mut(Core::Time, |column, row| column.push_int(row, time));
        let named = self.columns.get(Core::EventId as usize).is_some_and(|c| c.has(self.rows));
        if !named {
            let id = match ctx.key {
                Some(key) => RecordId::from_key(ctx.tenant, ctx.source, key, u64::from(index)),
                None => RecordId::from_place(ctx.gateway, ctx.request, index),
            };
            self.core_mut(Core::RecordId, |column, row| column.push_id(row, id.0));
        }
        if !self.overflow.is_empty() {
            self.overflow.push(b'}');
            let overflow = std::mem::take(&mut self.overflow);
            self.core_mut(Core::Overflow, |column, row| {
                column.push_text(row, &overflow, true, Core::Overflow as u32, &mut Vec::new());
            });
            self.overflow = overflow;
        }
        self.stats.replaced_surrogates += u64::from(self.surrogates);
        self.stats.bytes += bytes;
        self.rows += 1;
    }

    #[inline]
    fn core_mut(&mut self, core: Core, push: impl FnOnce(&mut Column, u32)) {
        if let Some(column) = self.columns.get_mut(core as usize) {
            push(column, self.rows);
        }
    }

    /// Drops what the current row has set.
    pub(super) fn abandon(&mut self, paths: &mut Paths) {
        self.stats = self.before;
        self.restore(self.rows);
        for index in &self.touched {
            if let Some(column) = self.columns.get_mut(*index as usize) {
                column.truncate(self.rows);
            }
        }
        self.touched.clear();
        self.forget_columns(self.rows);
        paths.truncate(self.rows);
    }

    /// Drops the rows from `row` on; the paths of all senders must be truncated too.
    pub(super) fn truncate(&mut self, row: u32, stats: Counters) {
        self.restore(row);
        for column in &mut self.columns {
            column.truncate(row);
        }
        self.forget_columns(row);
        self.stats = stats;
        self.rows = self.rows.min(row);
    }

    /// Undoes conversions of columns.
    fn restore(&mut self, row: u32) {
        while let Some(replaced) = self.replaced.pop_if(|replaced| replaced.row >= row) {
            if let Some(column) = self.columns.get_mut(replaced.column as usize) {
                column.restore(replaced.cells);
            }
        }
    }

    /// Forgets that a rollback is possible to before now.
    pub(super) fn settle(&mut self) {
        self.replaced.clear();
    }

    /// Takes columns out of use that came into it with the rows from `row` on.
    fn forget_columns(&mut self, row: u32) {
        while let Some((_, index)) = self.activated.pop_if(|(begun, _)| *begun >= row) {
            self.active -= 1;
            let Some(column) = self.columns.get_mut(index as usize) else {
                continue;
            };
            column.frame = 0;
            // Columns are made one after the other, so a new one is the last.
            if index as usize + 1 == self.columns.len() {
                self.remove_last_column();
            }
        }
    }

    fn remove_last_column(&mut self) {
        let Some(column) = self.columns.pop() else {
            return;
        };
        let index = self.columns.len() as u32;
        let hash = hash(column.name.as_bytes(), 0);
        if let Ok(found) = self.names.find_entry(hash, |other| *other == index) {
            found.remove();
        }
    }

    /// Lets a sender use the dynamic column of this name, or says that there is none for it.
    pub(super) fn begin_column(&mut self, paths: &mut Paths, name: &str, path: &str) -> u32 {
        let hash = hash(name.as_bytes(), 0);
        let columns = &self.columns;
        let same = |index: &u32| {
            columns.get(*index as usize).is_some_and(|column| column.name.as_ref() == name)
        };
        let found = self.names.find(hash, same).copied();
        if let Some(index) = found
            && paths.uses(index)
        {
            return index;
        }
        let active = found
            .and_then(|index| self.columns.get(index as usize))
            .is_some_and(|column| column.frame == self.frame);
        let limits = &self.limits;
        let exempt = limits.protected.contains(path) || limits.protected.contains(name);
        if !exempt
            && (paths.counted() >= limits.max_dynamic_columns
                || !active && self.active >= limits.max_frame_columns
                || !self.admits(paths.tenant, hash))
        {
            paths.limited = true;
            self.stats.limited_fields += 1;
            return OVERFLOW;
        }
        let index = match found {
            Some(index) => index,
            None => self.add_column(name, hash),
        };
        if !active {
            self.active += 1;
            self.activated.push((self.rows, index));
            if let Some(column) = self.columns.get_mut(index as usize) {
                column.frame = self.frame;
            }
        }
        paths.begin(self.rows, index, !exempt);
        index
    }

    /// A number for a tenant that was not seen before.
    pub(super) fn new_tenant(&mut self) -> u32 {
        self.tenants.push(TenantColumns::default());
        self.tenants.len() as u32 - 1
    }

    /// Whether a tenant may have this column: it has it, or has room for one more. When it is full, it
    /// begins anew after a day, so that what is no longer sent makes room.
    fn admits(&mut self, tenant: u32, name: u64) -> bool {
        let (most, clock) = (self.limits.max_tenant_columns, self.clock);
        let Some(known) = self.tenants.get_mut(tenant as usize) else { return true };
        if known.names.contains(&name) {
            return true;
        }
        if known.names.len() >= most && clock.saturating_sub(known.since) > DAY {
            known.names.clear();
        }
        if known.names.len() >= most {
            return false;
        }
        if known.names.is_empty() {
            known.since = clock;
        }
        known.names.insert(name)
    }

    fn add_column(&mut self, name: &str, name_hash: u64) -> u32 {
        let index = self.columns.len() as u32;
        self.columns.push(Column::dynamic(name));
        let columns = &self.columns;
        self.names.insert_unique(name_hash, index, |index| {
            columns.get(*index as usize).map_or(0, |column| hash(column.name.as_bytes(), 0))
        });
        index
    }

    /// The name of a dynamic column.
    pub(super) fn column_name(&self, index: u32) -> Option<std::sync::Arc<str>> {
        self.columns.get(index as usize).map(|column| column.name.clone())
    }

    /// The column of a core name.
    pub(super) fn core_column(&mut self, core: Core) -> Option<&mut Column> {
        self.columns.get_mut(core as usize).filter(|column| !column.is_empty())
    }

    /// The dynamic columns that have values, sorted by name.
    pub(super) fn dynamic_columns(&mut self) -> Vec<&mut Column> {
        let mut columns: Vec<_> =
            self.columns.iter_mut().skip(Core::ALL.len()).filter(|c| !c.is_empty()).collect();
        columns.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        columns
    }

    /// Begins the next frame, after the columns were finished.
    pub(super) fn begin_frame(&mut self) {
        self.rows = 0;
        self.frame += 1;
        self.active = 0;
        self.activated.clear();
        self.replaced.clear();
        self.stats = Counters::default();
        let most = Core::ALL.len() + REMEMBERED_FRAMES * self.limits.max_frame_columns;
        if self.columns.len() > most {
            self.columns.truncate(Core::ALL.len());
            self.names.clear();
        }
    }
}
