//! What the handlers share.

use crate::host::HostNames;
use crate::live::Watch;
use crate::settings::ConfigStatus;
use arc_swap::ArcSwap;
use palisade_catalog::Catalog;
use palisade_ingest::auth::Authenticate;
use palisade_ingest::submit::Submit;
use palisade_pipeline::Engine;
use palisade_pipeline::clock::Clock;
use palisade_pipeline::hunt::jobs::Hunts;
use palisade_pipeline::indicators::Watchlists;
use palisade_pipeline::live::Live;
use palisade_pipeline::rules::deploy::Deployer;
use palisade_query::{Limits, QueryEngine};
use palisade_table::Tables;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// What the handlers share. Cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    /// Who may do what.
    pub auth: Arc<dyn Authenticate>,
    /// Keys, tenants, audit, the mutable side of dead letters.
    pub catalog: Catalog,
    /// Answers SQL.
    pub query: Arc<QueryEngine>,
    /// The limits of a query that sets none of its own; no query may go beyond.
    pub limits: Arc<ArcSwap<Limits>>,
    /// Under which names the open tenant answers.
    pub hosts: Arc<ArcSwap<HostNames>>,
    /// Which configuration is in force, and how the last reload went.
    pub config: Arc<ArcSwap<ConfigStatus>>,
    /// The pipeline, for its progress.
    pub engine: Arc<Engine>,
    /// Rules: what is in force, and who changes it.
    pub rules: Arc<Deployer>,
    /// The tables, for reports about rules.
    pub tables: Arc<Tables>,
    /// Held while a report about rules is made: one at a time.
    pub reporting: Arc<tokio::sync::Mutex<()>>,
    /// The gateway, for dead letters that are tried again.
    pub submit: Arc<dyn Submit>,
    /// Counters and latest alerts.
    pub live: Arc<Live>,
    /// Rules over stored history.
    pub hunts: Hunts,
    /// Rates and listeners of the live stream, and the server's end.
    pub watch: Arc<Watch>,
    /// The clock of audits and of "the last hour".
    pub clock: Arc<dyn Clock>,
    /// What `/metrics` shows.
    pub registry: Arc<Registry>,
    /// The lists of indicators.
    pub watchlists: Arc<Watchlists>,
    /// Numbers requests that bring no id of their own.
    pub requests: Arc<AtomicU64>,
}

impl std::fmt::Debug for ApiState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiState").field("query", &self.query).finish_non_exhaustive()
    }
}
