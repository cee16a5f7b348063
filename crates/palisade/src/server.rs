//! Putting the house together: open what is on disk, start the threads, listen, and at the end stop
//! in the order that loses nothing.

use crate::config::Config;
use crate::deliver;
use crate::maintenance::{Keep, MaintenanceMetrics, Pruning, maintain};
use crate::reload::{
    Parts, ReloadMetrics, Reloader, Source, body_limits, decode_limits, detector_settings,
    host_names, query_limits, read_lists, retention,
};
use crate::{hunts, indicators, rules};
use arc_swap::ArcSwap;
use palisade_alert::client::{DelivererOptions, Deliverers, DeliveryMetrics};
use palisade_api::alerts::TableAlerts;
use palisade_api::live::Watch;
use palisade_api::{ApiState, KeyStore};
use palisade_catalog::{Catalog, OpenOptions};
use palisade_event::ErrorClass;
use palisade_event::id::GatewayIdentity;
use palisade_ingest::auth::Authenticate;
use palisade_ingest::gateway::{Gateway, GatewayFoundations, GatewayOptions};
use palisade_ingest::http::HttpDoors;
use palisade_ingest::listen::Listener;
use palisade_ingest::listener::check_listener;
use palisade_ingest::metrics::DoorMetrics;
use palisade_ingest::serve::{ServerLimits, serve};
use palisade_ingest::submit::Submit;
use palisade_ingest::tls::Tls;
use palisade_log::disk::{Disk, RealDisk};
use palisade_log::{Log, LogOptions};
use palisade_pipeline::activate::Activator;
use palisade_pipeline::backfill::Backfiller;
use palisade_pipeline::clock::{Clock, SystemClock};
use palisade_pipeline::hunt::jobs::Hunts;
use palisade_pipeline::indicators::Watchlists;
use palisade_pipeline::ledger::{Ledger, LedgerLimits};
use palisade_pipeline::live::Live;
use palisade_pipeline::metrics::Metrics;
use palisade_pipeline::rules::deploy::Deployer;
use palisade_pipeline::{CommitOptions, Engine, EngineOptions, Foundations};
use palisade_query::{QueryEngine, Snapshots};
use palisade_table::{Snapshot, TableOptions, Tables};
use prometheus_client::registry::Registry;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// An error that ends the process, as a sentence for the terminal.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The tables as queries see them.
pub(crate) struct TableSnapshots(pub(crate) Arc<Tables>);

impl Snapshots for TableSnapshots {
    fn snapshot(&self, table: &str) -> Option<Snapshot> {
        self.0.names().iter().any(|name| name == table).then(|| self.0.snapshot(table))
    }

    fn tables(&self) -> Vec<String> {
        self.0.names()
    }
}

/// The signals that end a server.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

/// A running server. Dropping it does not drain; call [`Server::stop`].
pub(crate) struct Server {
    runtime: tokio::runtime::Runtime,
    stop: CancellationToken,
    http: Option<tokio::task::JoinHandle<()>>,
    listeners: Vec<tokio::task::JoinHandle<()>>,
    reloads: Option<tokio::task::JoinHandle<()>>,
    deliverers: Option<Deliverers>,
    hunts: Hunts,
    hunting: Option<tokio::task::JoinHandle<()>>,
    submit: Arc<dyn Submit>,
    address: SocketAddr,
    scheme: &'static str,
    log: Arc<Log>,
    gateway: Arc<Gateway>,
    engine: Arc<Engine>,
    tables: Arc<Tables>,
    catalog: Catalog,
    maintenance: Option<JoinHandle<()>>,
    backfiller: Option<JoinHandle<()>>,
    stopping: Arc<AtomicBool>,
}

/// An empty directory for what outgrows the memory of queries; an earlier process may have left
/// something there.
pub(crate) fn spill_directory(data: &Path) -> Result<PathBuf, Failure> {
    let directory = data.join("spill");
    if directory.exists() {
        std::fs::remove_dir_all(&directory)
            .map_err(|error| format!("can't empty {}: {error}", directory.display()))?;
    }
    std::fs::create_dir_all(&directory)
        .map_err(|error| format!("can't make {}: {error}", directory.display()))?;
    Ok(directory)
}

pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn or_cores(configured: usize) -> usize {
    if configured == 0 { cores() } else { configured }
}

/// Opens the catalog of a data directory.
pub(crate) async fn open_catalog(config: &Config, create: bool) -> Result<Catalog, Failure> {
    if create {
        std::fs::create_dir_all(&config.data)
            .map_err(|error| format!("can't make {}: {error}", config.data.display()))?;
    }
    let options =
        OpenOptions { partitions: Some(config.log.partitions), create, ..OpenOptions::default() };
    Ok(Catalog::open(&config.data.join("catalog.db"), options).await?)
}

fn log_options(config: &Config, disk: &dyn Disk, log_id: u128) -> LogOptions {
    let total = disk.space(&config.data).map_or(0, |space| space.total);
    let percent = total / 100 * u64::from(config.disk.keep_free_percent);
    LogOptions {
        log_id,
        segment_bytes: config.log.segment.0,
        min_free_bytes: Some(config.disk.keep_free.0.max(percent)),
        ..LogOptions::default()
    }
}

fn engine_options(config: &Config) -> EngineOptions {
    EngineOptions {
        workers: or_cores(config.pipeline.workers),
        partitions: config.log.partitions,
        queue_frames: 32,
        commit: CommitOptions {
            bytes: config.pipeline.commit.0,
            age: config.pipeline.commit_age.0,
            checkpoint_every: config.pipeline.checkpoint_every.0,
            ..CommitOptions::default()
        },
    }
}

fn gateway_options(config: &Config) -> GatewayOptions {
    GatewayOptions {
        // One decoder keeps up with several workers, and frames are larger when fewer share the load.
        decoders: match config.pipeline.decoders {
            0 => cores().div_ceil(2),
            decoders => decoders,
        },
        queue_requests: config.limits.waiting_requests,
        queue_bytes: config.limits.waiting.bytes(),
        limits: decode_limits(config),
        ..GatewayOptions::default()
    }
}

impl Server {
    /// Opens everything, starts it and listens.
    pub(crate) fn start(config: &Config, source: Source) -> Result<Self, Failure> {
        let only_asks = source.only_asks;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(cores())
            .thread_name("network")
            .enable_all()
            .build()?;
        let catalog = runtime.block_on(open_catalog(config, true))?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let epoch = runtime.block_on(catalog.claim_partition(0))?;
        let identity = GatewayIdentity {
            region: 0,
            gateway: 0,
            epoch: runtime.block_on(catalog.next_gateway_epoch(0, 0))?,
        };
        let manifest = runtime.block_on(catalog.manifest())?;

        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let options = log_options(config, disk.as_ref(), u128::from_be_bytes(catalog.log_id().0));
        let (log, recovery) =
            Log::open(disk, &config.data.join("log"), options, Some(manifest.position))?;
        let log = Arc::new(log);
        tracing::info!(
            start = recovery.start.0,
            end = recovery.end.0,
            committed = manifest.position.0,
            "log open"
        );
        let commits = Arc::new(catalog.blocking(runtime.handle().clone()));
        let options = TableOptions { retention: retention(config), ..TableOptions::default() };
        let (tables, opened) = Tables::open(&config.data, commits, options)?;
        for error in &opened.damaged {
            tracing::error!(%error, "queries that need this segment will fail; see `palisade table verify`");
        }
        let tables = Arc::new(tables);
        let lists = Arc::new(ArcSwap::from_pointee(read_lists(config)?));

        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let reload_metrics = ReloadMetrics::register(&mut registry);
        let maintenance_metrics = MaintenanceMetrics::register(&mut registry);
        let door_metrics = DoorMetrics::register(&mut registry);
        let delivery_metrics = DeliveryMetrics::register(&mut registry);
        let live = Arc::new(Live::default());
        let ledger = Arc::new(Ledger::new(LedgerLimits::default()));
        let books = Arc::new(rules::books(&catalog, runtime.handle()));
        let engine = Arc::new(Engine::start(
            Foundations {
                log: Arc::clone(&log),
                tables: Arc::clone(&tables),
                catalog: catalog.clone(),
                runtime: runtime.handle().clone(),
                ledger: Arc::clone(&ledger),
                live: Arc::clone(&live),
                metrics: metrics.clone(),
                books: Arc::clone(&books),
            },
            &engine_options(config),
            &config.data,
            epoch,
        )?);
        let activator =
            Arc::new(Activator::new(Arc::clone(&log), catalog.clone(), Arc::clone(&clock)));
        let backfill = Backfiller {
            engine: Arc::clone(&engine),
            log: Arc::clone(&log),
            tables: Arc::clone(&tables),
            books: Arc::clone(&books),
            clock: Arc::clone(&clock),
            metrics: metrics.clone(),
        };
        let writer = (!source.only_asks).then(|| Arc::clone(&activator));
        let deployer = Arc::new(Deployer::new(catalog.clone(), Arc::clone(&books), writer));
        let watchlists =
            Arc::new(Watchlists::new(Arc::clone(&activator), Arc::clone(&books), catalog.clone()));
        if source.command.is_some() {
            // The command may have been given no configuration: what is in force stays.
            runtime.block_on(deployer.keep_files())?;
        } else if !source.only_asks {
            runtime
                .block_on(put_in_force((&activator, &engine, &deployer, &watchlists), config))?;
        }
        let gateway = Arc::new(Gateway::start(
            GatewayFoundations {
                log: Arc::clone(&log),
                ledger,
                live: Arc::clone(&live),
                metrics,
                clock: Arc::clone(&clock),
                identity,
                lists,
            },
            gateway_options(config),
        )?);
        let protecting = Arc::clone(&gateway);
        deployer.on_change(move |rules| protecting.protect(rules.book.paths()));
        let limits = Arc::new(ArcSwap::from_pointee(query_limits(config)));
        let hosts = Arc::new(ArcSwap::from_pointee(host_names(config)));
        let status = Arc::new(ArcSwap::default());
        let keep = Arc::new(ArcSwap::from_pointee(Keep::of(config)));
        let query = Arc::new(QueryEngine::new(
            palisade_query::Options {
                memory: config.query.memory.bytes(),
                concurrent: config.query.concurrent,
                spill: Some(spill_directory(&config.data)?),
                ..palisade_query::Options::default()
            },
            Arc::new(TableSnapshots(Arc::clone(&tables))),
        )?);

        let listener = runtime.block_on(TcpListener::bind(config.http.listen)).map_err(|error| {
            format!(
                "can't listen on {}: {error}; choose another with PALISADE_HTTP__LISTEN=127.0.0.1:PORT",
                config.http.listen
            )
        })?;
        let address = listener.local_addr()?;
        let tls = match &config.http.tls {
            Some(files) => Some(Tls::load(files, true)?),
            None => None,
        };
        let scheme = if tls.is_some() { "https" } else { "http" };
        let loopback = config.http.listen.ip().is_loopback();
        let keys = Arc::new(runtime.block_on(KeyStore::new(
            catalog.clone(),
            Arc::clone(&clock),
            loopback,
        ))?);
        let auth: Arc<dyn Authenticate> = match &source.command {
            Some(key) => Arc::new(key.clone()),
            None => keys.clone(),
        };
        let stop = CancellationToken::new();
        let hunts = hunts::over(&catalog, &tables, &books, &engine, &clock, config);
        let hunting = (!only_asks).then(|| runtime.spawn(hunts.clone().work()));
        let submit: Arc<dyn Submit> = Arc::new(Arc::clone(&gateway));
        let state = ApiState {
            auth: Arc::clone(&auth),
            catalog: catalog.clone(),
            query: Arc::clone(&query),
            limits: Arc::clone(&limits),
            hosts: Arc::clone(&hosts),
            config: Arc::clone(&status),
            engine: Arc::clone(&engine),
            rules: Arc::clone(&deployer),
            tables: Arc::clone(&tables),
            reporting: Arc::default(),
            submit: Arc::clone(&submit),
            live,
            hunts: hunts.clone(),
            watch: Arc::new(Watch::new(stop.clone())),
            clock: Arc::clone(&clock),
            registry: Arc::new(registry),
            watchlists: Arc::clone(&watchlists),
            requests: Arc::new(AtomicU64::new(0)),
        };
        let doors = HttpDoors::new(Arc::clone(&submit), auth, body_limits(config), &door_metrics);
        let router = palisade_api::router(state, doors.clone());
        let server_limits =
            ServerLimits { connections: config.http.max_connections, ..ServerLimits::default() };
        let http = runtime.spawn(serve(
            listener,
            tls,
            router,
            server_limits,
            door_metrics.door("http"),
            stop.clone(),
        ));
        runtime.spawn(watch_keys(keys, stop.clone()));
        let reloader = Reloader::new(
            source,
            config.clone(),
            Parts {
                gateway: Arc::clone(&gateway),
                doors,
                tables: Arc::clone(&tables),
                catalog: catalog.clone(),
                clock: Arc::clone(&clock),
                activator,
                deployer,
                watchlists,
                limits,
                hosts,
                status,
                keep: Arc::clone(&keep),
                metrics: reload_metrics,
            },
        );
        let reloads = runtime.spawn(reloader.watch(stop.clone()));
        let mut listeners = Vec::new();
        for listener in &config.listeners {
            let checked = check_listener(listener)?;
            let tls = match &checked.tls {
                Some(files) => Some(Tls::load(files, false)?),
                None => None,
            };
            let open = runtime.block_on(Listener::bind(checked, tls))?;
            let (submit, metrics, stop) = (Arc::clone(&submit), door_metrics.clone(), stop.clone());
            let clock = Arc::clone(&clock);
            listeners.push(runtime.spawn(async move {
                let now = Arc::new(move || clock.now());
                if let Err(error) = open.run(submit, now, &metrics, stop).await {
                    tracing::error!(%error, "a listener ended before all it had read was durable");
                }
            }));
        }
        let receivers = if only_asks { None } else { deliver::prepare(&config.alerts)? };
        let deliverers = receivers.map(|prepared| {
            let clock = Arc::clone(&clock);
            let base = palisade_alert::client::Foundations {
                catalog: catalog.clone(),
                source: Arc::new(TableAlerts::new(
                    Arc::clone(&tables),
                    Arc::clone(&query),
                    catalog.clone(),
                )),
                now: Arc::new(move || clock.now()),
                metrics: delivery_metrics,
            };
            let _entered = runtime.enter();
            prepared.start(&base, &DelivererOptions::default())
        });
        let stopping = Arc::new(AtomicBool::new(false));
        let backfiller = if only_asks {
            None
        } else {
            let (job, stopping) = (backfill, Arc::clone(&stopping));
            let thread = std::thread::Builder::new().name("backfill".to_owned());
            Some(thread.spawn(move || job.run(&stopping))?)
        };
        let pruning = Pruning { catalog: catalog.clone(), runtime: runtime.handle().clone(), keep };
        let maintenance = maintain(
            Arc::clone(&tables),
            pruning,
            epoch,
            clock,
            maintenance_metrics,
            Arc::clone(&stopping),
        )?;
        Ok(Self {
            runtime,
            stop,
            http: Some(http),
            listeners,
            reloads: Some(reloads),
            deliverers,
            hunts,
            hunting,
            submit,
            address,
            scheme,
            log,
            gateway,
            engine,
            tables,
            catalog,
            maintenance: Some(maintenance),
            backfiller,
            stopping,
        })
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// The gateway, for records that come from this process itself.
    pub(crate) fn submit(&self) -> &Arc<dyn Submit> {
        &self.submit
    }

    /// Runs a future on the server's runtime.
    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// The pipeline.
    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// The tables.
    pub(crate) fn tables(&self) -> &Arc<Tables> {
        &self.tables
    }

    /// The hunts.
    pub(crate) fn hunts(&self) -> &Hunts {
        &self.hunts
    }

    /// Takes over SIGTERM and SIGINT: from here on they are what [`Server::wait`] waits for. To be called before
    /// anybody is told that the server is there.
    pub(crate) fn signals(&self) -> Result<Signals, Failure> {
        let _entered = self.runtime.enter();
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for a signal or a critical error; the error's message if it was that.
    pub(crate) fn wait(&self, mut signals: Signals) -> Option<String> {
        self.runtime.block_on(async {
            let mut fatal = self.engine.fatal();
            tokio::select! {
                _ = signals.terminate.recv() => None,
                _ = signals.interrupt.recv() => None,
                message = fatal.wait_for(Option::is_some) => {
                    message.map_or(None, |message| message.clone())
                }
                () = poisoned(&self.log) => Some(
                    "the log's disk failed: nothing more can be acknowledged; check the disk and start again".to_owned(),
                ),
            }
        })
    }

    /// Stops listening, answers what was taken, makes everything visible and commits it.
    pub(crate) fn stop(mut self, drain: Duration) -> bool {
        self.stop.cancel();
        self.hunts.stop();
        if let Some(http) = self.http.take() {
            let _ = self.runtime.block_on(http);
        }
        for listener in std::mem::take(&mut self.listeners) {
            let _ = self.runtime.block_on(listener);
        }
        if let Some(reloads) = self.reloads.take() {
            let _ = self.runtime.block_on(reloads);
        }
        if let Some(deliverers) = self.deliverers.take() {
            self.runtime.block_on(deliverers.stop());
        }
        if let Some(hunting) = self.hunting.take() {
            let _ = self.runtime.block_on(hunting);
        }
        self.gateway.stop();
        self.stopping.store(true, Ordering::Release);
        self.tables.stop_maintenance();
        if let Some(backfiller) = self.backfiller.take() {
            backfiller.thread().unpark();
            let _ = backfiller.join();
        }
        let done = self.engine.drain(drain);
        if let Some(maintenance) = self.maintenance.take() {
            maintenance.thread().unpark();
            let _ = maintenance.join();
        }
        self.log.close();
        let closed = self.runtime.block_on(self.catalog.close());
        if let Err(error) = closed {
            tracing::warn!(%error, "the catalog did not close cleanly; it is whole all the same");
        }
        done
    }
}

/// Puts this release's operators and the configured settings in force from the next entry of the log on
/// (C1, C3): before anything is taken, and whatever is still being replayed stays under what was in force there.
async fn put_in_force(
    (activator, engine, deployer, watchlists): (&Activator, &Engine, &Deployer, &Watchlists),
    config: &Config,
) -> Result<(), Failure> {
    activator.operators(&engine.in_force()).await?;
    activator.detectors(&detector_settings(config)).await?;
    rules::intend(deployer, config).await?;
    indicators::intend(watchlists, config).await?;
    match activator.settle().await {
        Ok(_) => Ok(()),
        // The intents are in the catalog; a nearly full disk refuses records as it refuses these.
        Err(error) if error.class() == ErrorClass::Transient => {
            tracing::warn!(%error, "settings are not in force yet, it is tried again");
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

async fn poisoned(log: &Log) {
    while !log.is_poisoned() {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Closes the open tenant soon after a key was made.
async fn watch_keys(keys: Arc<KeyStore>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        if let Err(error) = keys.refresh().await {
            tracing::warn!(%error, "can't see whether API keys exist");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
}

/// Makes sure that a path exists before anything is opened in it.
pub(crate) fn check_data(path: &Path) -> Result<(), Failure> {
    if !path.join("catalog.db").exists() {
        return Err(format!(
            "{} holds no Palisade data; start `palisade run` first, or name the directory with PALISADE_DATA",
            path.display()
        )
        .into());
    }
    Ok(())
}
