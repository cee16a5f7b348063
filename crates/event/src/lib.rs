//! The nouns of Palisade, shared by every other room: tenants, streams and their Arrow schemas,
//! record ids, event time, slots, frames, and the decoding of outside bytes into columns.
//!
//! Nothing here performs I/O, reads a clock or a random number (see `ARCHITECTURE.md`, "The
//! principle"). Arrows point down only: this crate uses no other Palisade crate.

pub mod column;
pub mod decode;
pub mod domain;
pub mod encode;
pub mod error;
pub mod frame;
pub mod id;
pub mod network;
pub mod schema;
pub mod slot;
pub mod tenant;
pub mod time;

pub use error::ErrorClass;
pub use frame::{Entry, EntryKind, Frame, Offset, RequestEntry};
pub use id::{RecordId, SenderIds};
pub use slot::Slot;
pub use tenant::TenantId;
