//! Which slot and partition each row belongs to, and what it says about its user, as numbers.
//!
//! This is done once a frame, before its rows are handed to workers: each distinct value of a
//! dictionary is hashed once, and no worker reads a text again unless it has an anomaly to explain.

use super::profile::Event;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampMicrosecondType};
use palisade_event::column::Text;
use palisade_event::schema::Core;
use palisade_event::slot::{entity_hash, slot_within};
use xxhash_rust::xxh3::xxh3_64;

const NO_OUTCOME: u8 = 0;
const SUCCESS: u8 = 1;
const FAILURE: u8 = 2;

/// Whether an outcome, as sent, means that what was tried did not succeed: `failure`, `failed`,
/// `fail`, `error`, `denied`, `rejected`, `unauthorized` in any case, and the HTTP statuses 401, 403
/// and 407. StreamGuard's `blocked` and `pending` are no failures there, nor are they here.
#[must_use]
pub fn is_failure(outcome: &str) -> bool {
    const WORDS: [&str; 8] =
        ["failure", "failed", "fail", "error", "denied", "rejected", "unauthorized", "invalid"];
    let outcome = outcome.trim();
    matches!(outcome, "401" | "403" | "407")
        || WORDS.iter().any(|word| outcome.eq_ignore_ascii_case(word))
}

/// The rows of a batch as the baselines see them. Reused from batch to batch ([`Routing::fill`]).
#[derive(Debug, Default)]
pub struct Routing {
    slots: Vec<u16>,
    partitions: Vec<u16>,
    keys: Vec<u64>,
    addresses: Vec<u32>,
    locations: Vec<u32>,
    types: Vec<u32>,
    outcomes: Vec<u8>,
    times: Vec<i64>,
    scratch: Scratch,
}

#[derive(Debug, Default)]
struct Scratch {
    users: Vec<u64>,
    hosts: Vec<u64>,
    addresses: Vec<u64>,
}

/// Slots and partitions of a batch; see [`Routing`].
#[must_use]
pub fn route(batch: &RecordBatch, spread: impl Fn(&str) -> u16, table: &[u16]) -> Routing {
    let mut routing = Routing::default();
    routing.fill(batch, spread, table);
    routing
}

impl Routing {
    /// Routes a batch. `spread` tells over how many slots a tenant is spread (P1), `table` the
    /// partition of each slot ([`palisade_event::slot::partition_table`]). The entity is the user,
    /// else the host, else the source address; rows without any go to slot 0 of their tenant's hash.
    pub fn fill(&mut self, batch: &RecordBatch, spread: impl Fn(&str) -> u16, table: &[u16]) {
        let rows = batch.num_rows();
        let column = |core: Core| Text::in_batch(batch, core.name());
        let Scratch { users, hosts, addresses } = &mut self.scratch;
        hashes(column(Core::User), rows, users, |user| {
            if user.trim().is_empty() { 0 } else { entity_hash(user).max(1) }
        });
        hashes(column(Core::Host), rows, hosts, |host| entity_hash(host).max(1));
        hashes(column(Core::SrcIp), rows, addresses, |address| entity_hash(address).max(1));
        let short = |hash: &u64| ((*hash >> 32) as u32 | u32::from(*hash != 0)) & mask(*hash);
        self.addresses.clear();
        self.addresses.extend(addresses.iter().map(short));
        self.slots.clear();
        self.keys.clear();
        let tenants = column(Core::Tenant);
        let mut of_tenant = TenantSlots::default();
        for (row, ((user, host), address)) in users.iter().zip(&*hosts).zip(&*addresses).enumerate()
        {
            let tenant = tenants.and_then(|tenants| tenants.get(row)).unwrap_or_default();
            of_tenant.choose(tenant, &spread);
            let entity = [*user, *host, *address].into_iter().find(|hash| *hash != 0).unwrap_or(0);
            self.slots.push(of_tenant.slot(entity));
            self.keys.push(if *user == 0 { 0 } else { of_tenant.key(*user) });
        }
        self.partitions.clear();
        let partition = |slot: &u16| table.get(usize::from(*slot)).copied().unwrap_or(0);
        self.partitions.extend(self.slots.iter().map(partition));
        let plain = |text: &str| xxh3_64(text.as_bytes()).max(1);
        for (core, list) in [(Core::Location, &mut self.locations), (Core::Type, &mut self.types)] {
            hashes(column(core), rows, users, plain);
            list.clear();
            list.extend(users.iter().map(short));
        }
        hashes(column(Core::Outcome), rows, users, |outcome| {
            u64::from(if is_failure(outcome) { FAILURE } else { SUCCESS })
        });
        self.outcomes.clear();
        self.outcomes.extend(users.iter().map(|outcome| *outcome as u8));
        self.fill_times(batch);
    }

    fn fill_times(&mut self, batch: &RecordBatch) {
        self.times.clear();
        let Some(times) = batch.column_by_name(Core::Time.name()) else {
            self.times.resize(batch.num_rows(), 0);
            return;
        };
        match times.data_type() {
            DataType::Timestamp(TimeUnit::Microsecond, _) => self
                .times
                .extend_from_slice(times.as_primitive::<TimestampMicrosecondType>().values()),
            DataType::Int64 => {
                self.times.extend_from_slice(times.as_primitive::<Int64Type>().values());
            }
            _ => self.times.resize(batch.num_rows(), 0),
        }
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The slot of each row.
    #[must_use]
    pub fn slots(&self) -> &[u16] {
        &self.slots
    }

    /// The partition of each row.
    #[must_use]
    pub fn partitions(&self) -> &[u16] {
        &self.partitions
    }

    /// The rows, in order, whose partition is wanted. `out` is cleared first.
    pub fn select(&self, wanted: impl Fn(u16) -> bool, out: &mut Vec<u32>) {
        out.clear();
        let rows = self.partitions.iter().zip(0_u32..);
        out.extend(rows.filter(|(partition, _)| wanted(**partition)).map(|(_, row)| row));
    }

    /// Slot, key of the user and what the row says; `None` for a row without a user.
    pub(crate) fn event(&self, row: u32) -> Option<(u16, u64, Event)> {
        let row = row as usize;
        let key = *self.keys.get(row)?;
        if key == 0 {
            return None;
        }
        let event = Event {
            time: *self.times.get(row)?,
            address: *self.addresses.get(row)?,
            location: *self.locations.get(row)?,
            event_type: *self.types.get(row)?,
            failed: match *self.outcomes.get(row)? {
                NO_OUTCOME => None,
                outcome => Some(outcome == FAILURE),
            },
        };
        Some((*self.slots.get(row)?, key, event))
    }
}

/// All ones for a hash, 0 for 0.
fn mask(hash: u64) -> u32 {
    if hash == 0 { 0 } else { u32::MAX }
}

/// The hash of each row's value, 0 where there is none; one call per distinct value where the
/// column has a dictionary that is not much longer than the batch.
fn hashes(column: Option<Text<'_>>, rows: usize, out: &mut Vec<u64>, hash: impl Fn(&str) -> u64) {
    out.clear();
    match column {
        None => out.resize(rows, 0),
        Some(Text::Dictionary(array, values)) if values.len() <= rows.saturating_mul(4) => {
            let distinct: Vec<u64> = (0..values.len())
                .map(|key| if values.is_valid(key) { hash(values.value(key)) } else { 0 })
                .collect();
            let of = |key: &i32| distinct.get(*key as usize).copied().unwrap_or(0);
            if array.null_count() == 0 {
                out.extend(array.keys().values().iter().map(of));
            } else {
                out.extend(array.keys().iter().map(|key| key.as_ref().map_or(0, of)));
            }
        }
        Some(text) => out.extend((0..rows).map(|row| text.get(row).map_or(0, &hash))),
    }
}

/// The slots of the tenant that is being routed; neighbours mostly share theirs.
#[derive(Default)]
struct TenantSlots {
    tenant: Option<(String, u64, u16)>,
}

impl TenantSlots {
    fn choose(&mut self, tenant: &str, spread: impl Fn(&str) -> u16) {
        if self.tenant.as_ref().is_none_or(|(name, ..)| name != tenant) {
            let seed = xxh3_64(tenant.as_bytes());
            self.tenant = Some((tenant.to_owned(), seed, spread(tenant)));
        }
    }

    fn slot(&self, entity: u64) -> u16 {
        self.tenant.as_ref().map_or(0, |(_, seed, spread)| slot_within(*seed, entity, *spread).0)
    }

    /// The key of a user's record: never 0.
    fn key(&self, user: u64) -> u64 {
        let seed = self.tenant.as_ref().map_or(0, |(_, seed, _)| *seed);
        let mixed = (user ^ seed.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ (mixed >> 29)).max(1)
    }
}
