//! Where the engine takes snapshots of tables from.

use palisade_table::Snapshot;

/// The tables of a running server, or of a directory that is only read.
pub trait Snapshots: Send + Sync + 'static {
    /// A consistent view of a table as of now; `None` when there is no such table.
    fn snapshot(&self, table: &str) -> Option<Snapshot>;

    /// The names of all tables.
    fn tables(&self) -> Vec<String>;
}
