//! Hunts in the server: over its tables, on half of the cores.

use crate::config::Config;
use crate::server::cores;
use palisade_catalog::Catalog;
use palisade_pipeline::Engine;
use palisade_pipeline::clock::Clock;
use palisade_pipeline::hunt::jobs::{Hunts, JobFoundations, JobOptions};
use palisade_pipeline::rules::Books;
use palisade_table::Tables;
use std::sync::Arc;

/// The hunts over a server's tables, under the rules that are in force there.
pub(crate) fn over(
    catalog: &Catalog,
    tables: &Arc<Tables>,
    books: &Arc<Books>,
    engine: &Arc<Engine>,
    clock: &Arc<dyn Clock>,
    config: &Config,
) -> Hunts {
    let engine = Arc::clone(engine);
    let base = JobFoundations {
        catalog: catalog.clone(),
        tables: Arc::clone(tables),
        books: Arc::clone(books),
        in_force: Box::new(move || engine.in_force().rules.content.set.clone()),
        clock: Arc::clone(clock),
    };
    let threads = cores().div_ceil(2);
    Hunts::new(base, &config.data, JobOptions { threads, ..JobOptions::default() })
}
