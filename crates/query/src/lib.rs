//! SQL over everything, one tenant at a time, read-only and bounded.
//!
//! [`QueryEngine`] makes a fresh DataFusion session for every query. In it are only the tables of the
//! asking tenant ([`palisade_table::provider::EventTable`]), the system tables about them, and
//! functions that compute; there is no file format, no table factory, no table function and no object
//! store that holds anything. A plan is run only when every node of it, in subqueries too, is one that
//! reads ([`guard`]). Time, memory, rows and the number of queries at once are bounded ([`Limits`],
//! [`Options`]). Queries run on threads of their own, so ingestion does not wait for them.
//!
//! | table | what it holds |
//! |---|---|
//! | `events`, `alerts`, `dead_letters` | the tenant's rows; there before the first one |
//! | `system.segments` | the files that hold them |
//! | `system.partitions` | how far each table is committed and visible |
//! | `system.queries` | the tenant's last queries |
//! | `information_schema.tables`, `.columns`, … | the names of all these |
//!
//! Results stream ([`QueryResult`]) and are written as JSON, JSON lines, CSV, Arrow or a table for a
//! terminal by [`format::Encoder`].

mod columns;
mod distinct;
mod engine;
mod error;
pub mod format;
mod functions;
pub mod guard;
mod kept;
mod limits;
mod log;
mod names;
mod percentile;
mod pool;
mod reach;
mod session;
mod snapshots;
mod system;
mod walk;

pub use engine::{QueryEngine, QueryResult, QueryStats};
pub use error::QueryError;
pub use limits::{Excess, Limits, Options};
pub use log::{LoggedQuery, QueryLog};
pub use palisade_table::provider::Reach;
pub use snapshots::Snapshots;
