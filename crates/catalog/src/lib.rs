//! The catalog: what Palisade knows about its own files and users, in one SQLite database.
//!
//! | part | invariants | module |
//! |---|---|---|
//! | log id, partitions, gateway epochs, ownership epochs | I1, M1 | [`identity`] |
//! | segments: pending → live → retired, the commit | M1, M3, L3 | [`segments`] |
//! | checkpoints | M2 | [`checkpoints`] |
//! | tenants, API keys | | [`tenants`], [`keys`] |
//! | audit trail, dead letters' mutable side | | [`audit`], [`dead_letters`] |
//! | activations of rules, lists, thresholds | C1 | [`activations`] |
//! | alerts' mutable side, silences | M1 | [`alerts`] |
//! | notifications: cursors, what waits, what was given up | M5 | [`deliveries`] |
//! | hunts that were asked for | | [`hunts`] |
//!
//! # Durability
//! The database runs in WAL mode with `synchronous=FULL`: when a function that changes something
//! returns `Ok`, the change is fsynced (L3). There is one connection that writes and a small pool
//! that reads; readers never wait for the writer. SQLite's own checkpoints (moving pages from the
//! WAL into the database) are made here, explicitly, after every 64 transactions, because SQLite
//! swallows the errors of its automatic ones. After an I/O error at a commit or such a checkpoint the catalog
//! takes no more writes ([`CatalogError::Poisoned`]): an fsync is never retried (L2).
//!
//! # Files
//! The database (mode 0600, it holds hashes of keys), `-wal` and `-shm` beside it. `application_id`
//! is `PLSD`; `user_version` is the schema version; the table `schema_versions` says which release
//! brought each version, so that an older release can name the one that is needed. Migrations are
//! `migrations/*.sql`, each applied in one transaction with its version.
//!
//! # Cancelling
//! Every change is one transaction. A future that is dropped has changed all or nothing.
//!
//! # Threads without a runtime
//! [`BlockingCatalog`] is the same catalog for plain threads.

pub mod activations;
pub mod alerts;
pub mod audit;
mod blocking;
pub mod checkpoints;
pub mod dead_letters;
pub mod deliveries;
mod error;
pub mod hunts;
pub mod identity;
pub mod keys;
mod lists;
mod open;
mod schema;
pub mod segments;
pub mod tenants;
pub mod types;

pub use activations::Activation;
pub use alerts::{AlertChange, AlertNote, AlertState, AlertStatus, Silence};
pub use audit::{AuditFilter, AuditPage, AuditRecord};
pub use blocking::BlockingCatalog;
pub use dead_letters::{DeadLetterAction, DeadLetterState};
pub use deliveries::{
    AlertCursor, AttemptOutcome, ClaimedReceiver, Delivery, DeliveryFilter, DeliveryState,
    NewDelivery, Pull,
};
pub use error::{AuthError, CatalogError, CommitError};
pub use hunts::{HuntRecord, HuntState};
pub use identity::LogId;
pub use keys::{KeyInfo, NewKey, Principal, ScopeSet};
pub use open::{Catalog, OpenOptions};
pub use schema::SCHEMA_VERSION;
pub use segments::segment_path;
pub use tenants::{Tenant, TenantSettings};
pub use types::{
    Checkpoint, Commit, Manifest, PendingSegment, RetiredSegment, SegmentColumn, SegmentMeta,
};
