//! The session of one query: what names mean in it, and what engine runs it.

use crate::columns::BUILT_IN;
use crate::distinct::DistinctRows;
use crate::error::QueryError;
use crate::log::QueryLog;
use crate::percentile::percentile_cont;
use crate::pool::QueryPool;
use crate::snapshots::Snapshots;
use crate::{functions, guard, names, system};
use async_trait::async_trait;
use datafusion::catalog::{
    CatalogProvider, MemoryCatalogProvider, MemoryCatalogProviderList, SchemaProvider,
    TableProvider,
};
use datafusion::common::config::SpillCompression;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::config::SessionConfig;
use datafusion::execution::disk_manager::{DiskManager, DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::execution::{SessionState, SessionStateDefaults, TaskContext};
use datafusion::logical_expr::sqlparser::ast::Statement as Sql;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::object_store::memory::InMemory;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::sql::parser::Statement;
use palisade_event::TenantId;
use palisade_event::schema::Core;
use palisade_table::Snapshot;
use palisade_table::provider::{EventTable, ReadCache, STORE_URL};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

const CATALOG: &str = "palisade";
const MAIN: &str = "main";
const SYSTEM: &str = "system";
/// Functions that tell about files instead of rows.
const WITHOUT: [&str; 2] = ["input_file_name", "file_row_index"];
/// How many names one query may find in `overflow` only.
const MAX_OVERFLOW_NAMES: usize = 16;

/// What is the same in every query's session, made once.
#[derive(Debug)]
pub(crate) struct Template {
    state: SessionState,
    spill: Option<PathBuf>,
    disk_bytes: u64,
    /// Places for what outgrows the memory of a query, one for each that runs. Made when first needed and kept:
    /// a directory made and removed for every query is work for the file system's journal, which the log's
    /// syncs then wait for.
    disks: Arc<Mutex<Vec<Arc<DiskManager>>>>,
}

/// A place on disk that a query has while it runs.
struct Disk {
    of: Arc<Mutex<Vec<Arc<DiskManager>>>>,
    disk: Arc<DiskManager>,
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.of.lock().push(Arc::clone(&self.disk));
    }
}

impl Template {
    pub(crate) fn new(partitions: usize, spill: Option<PathBuf>, disk_bytes: u64) -> Self {
        let mut config = SessionConfig::new()
            .with_target_partitions(partitions)
            .with_information_schema(true)
            .with_create_default_catalog_and_schema(false)
            .with_default_catalog_and_schema(CATALOG, MAIN);
        let options = config.options_mut();
        options.execution.parquet.pushdown_filters = true;
        options.execution.parquet.reorder_filters = true;
        options.execution.parquet.enable_page_index = true;
        options.execution.collect_statistics = false;
        options.execution.time_zone = Some("+00:00".to_owned());
        options.execution.spill_compression = SpillCompression::Lz4Frame;
        // Small files are worth splitting too: reading is bound by decoding, not by the disk.
        options.optimizer.repartition_file_min_size = 1 << 20;
        let mut scalars = SessionStateDefaults::default_scalar_functions();
        scalars.retain(|function| !WITHOUT.contains(&function.name()));
        scalars.extend(functions::all());
        let mut aggregates = SessionStateDefaults::default_aggregate_functions();
        let own = percentile_cont();
        aggregates.retain(|function| function.name() != own.name());
        aggregates.push(own);
        let state = SessionStateBuilder::new()
            .with_config(config)
            .with_expr_planners(SessionStateDefaults::default_expr_planners())
            .with_scalar_functions(scalars)
            .with_higher_order_functions(SessionStateDefaults::default_higher_order_functions())
            .with_aggregate_functions(aggregates)
            .with_window_functions(SessionStateDefaults::default_window_functions());
        let state = match DistinctRows::new() {
            Some(rule) => state.with_physical_optimizer_rule(Arc::new(rule)),
            None => state,
        };
        let state = state.build();
        Self { state, spill, disk_bytes, disks: Arc::default() }
    }

    /// A place to spill to; `None` where there is none, which is no reason to refuse queries that need none.
    fn disk(&self) -> Option<Disk> {
        let directory = self.spill.as_ref()?;
        let known = self.disks.lock().pop();
        let disk = match known {
            Some(disk) => disk,
            None => {
                let made = DiskManagerBuilder::default()
                    .with_mode(DiskManagerMode::Directories(vec![directory.clone()]))
                    .with_max_temp_directory_size(self.disk_bytes)
                    .build();
                match made {
                    Ok(disk) => Arc::new(disk),
                    Err(error) => {
                        tracing::warn!(%error, "queries can't write what outgrows their memory");
                        return None;
                    }
                }
            }
        };
        Some(Disk { of: Arc::clone(&self.disks), disk })
    }

    fn runtime(&self, pool: Arc<QueryPool>, disk: Option<&Disk>) -> Result<Arc<RuntimeEnv>> {
        let nowhere = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
        let mut runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(pool as Arc<dyn MemoryPool>)
            .with_disk_manager_builder(nowhere)
            .build()?;
        if let Some(disk) = disk {
            runtime.disk_manager = Arc::clone(&disk.disk);
        }
        // The only object store is an empty one; not even local files have one.
        runtime.deregister_object_store(ObjectStoreUrl::local_filesystem().as_ref())?;
        runtime.register_object_store(
            ObjectStoreUrl::parse(STORE_URL)?.as_ref(),
            Arc::new(InMemory::new()),
        );
        Ok(Arc::new(runtime))
    }
}

/// The session of one query of one tenant.
pub(crate) struct Session {
    state: SessionState,
    main: Arc<MainSchema>,
    /// Given back with the session.
    _disk: Option<Disk>,
}

impl Session {
    /// A session in which only the tenant's tables exist, as they are now.
    pub(crate) fn new(
        template: &Template,
        tenant: &TenantId,
        snapshots: &dyn Snapshots,
        cache: &Arc<ReadCache>,
        log: &Arc<QueryLog>,
        pool: Arc<QueryPool>,
    ) -> Result<Self> {
        let built_in = BUILT_IN.map(|name| (name.to_owned(), Snapshot::empty(name)));
        let mut tables = BTreeMap::from(built_in);
        let names = snapshots.tables().into_iter();
        tables.extend(
            names.filter_map(|name| snapshots.snapshot(&name).map(|snapshot| (name, snapshot))),
        );
        let main = Arc::new(MainSchema {
            tenant: tenant.clone(),
            tables,
            cache: Arc::clone(cache),
            made: Mutex::new(BTreeMap::new()),
            overflow: Mutex::new(Vec::new()),
        });
        let system = SystemSchema { main: Arc::clone(&main), log: Arc::clone(log) };
        let catalog = MemoryCatalogProvider::new();
        catalog.register_schema(MAIN, Arc::clone(&main) as Arc<dyn SchemaProvider>)?;
        catalog.register_schema(SYSTEM, Arc::new(system))?;
        let catalogs = MemoryCatalogProviderList::new();
        datafusion::catalog::CatalogProviderList::register_catalog(
            &catalogs,
            CATALOG.to_owned(),
            Arc::new(catalog),
        );
        let disk = template.disk();
        let mut state = SessionStateBuilder::new_from_existing(template.state.clone())
            .with_catalog_list(Arc::new(catalogs))
            .with_runtime_env(template.runtime(pool, disk.as_ref())?)
            .build();
        // What `now()` answers, the same in the whole query.
        state.mark_start_execution();
        Ok(Self { state, main, _disk: disk })
    }

    /// The names of the tables.
    pub(crate) fn tables(&self) -> Vec<String> {
        let system = system::TABLES.iter().map(|name| format!("{SYSTEM}.{name}"));
        self.main.tables.keys().cloned().chain(system).collect()
    }

    /// The tables that the query read, for the search for a damaged file.
    pub(crate) fn read_tables(&self) -> Vec<Arc<EventTable>> {
        self.main.made.lock().values().cloned().collect()
    }

    pub(crate) fn task(&self) -> Arc<TaskContext> {
        self.state.task_ctx()
    }

    /// The physical plan of a query that only reads, giving at most `rows` rows.
    pub(crate) async fn plan(
        &self,
        sql: &str,
        nodes: usize,
        rows: usize,
    ) -> std::result::Result<Arc<dyn ExecutionPlan>, QueryError> {
        let tables = self.tables();
        let named = |error: DataFusionError| QueryError::of(&error, &tables);
        guard::check_text(sql)?;
        let dialect = self.state.config().options().sql_parser.dialect;
        let mut statement = self.state.sql_to_statement(sql, &dialect).map_err(named)?;
        guard::check_statement(&statement)?;
        guard::check_depth(&mut statement)?;
        let logical = self.logical(statement).await?;
        guard::check_plan(&logical, nodes)?;
        let logical = match logical {
            told @ (LogicalPlan::Explain(_)
            | LogicalPlan::Analyze(_)
            | LogicalPlan::DescribeTable(_)) => told,
            read => LogicalPlanBuilder::from(read)
                .limit(0, Some(rows))
                .and_then(LogicalPlanBuilder::build)
                .map_err(named)?,
        };
        self.state.create_physical_plan(&logical).await.map_err(named)
    }

    /// Plans a statement; a name that no column has may still stand in `overflow`.
    async fn logical(&self, statement: Statement) -> std::result::Result<LogicalPlan, QueryError> {
        let tables = self.tables();
        let read = self.state.resolve_table_references(&statement);
        let read: Vec<String> =
            read.unwrap_or_default().iter().map(|name| name.table().to_owned()).collect();
        loop {
            let mut attempt = statement.clone();
            self.resolve_names(&mut attempt, &read).await?;
            let error = match self.state.statement_to_plan(attempt).await {
                Ok(plan) => return Ok(plan),
                Err(error) => QueryError::of(&error, &tables),
            };
            let QueryError::UnknownColumn { name, .. } = &error else { return Err(error) };
            let mut spelling = statement.clone();
            let spelled = sql_of(&mut spelling).and_then(|sql| names::spelled(sql, name));
            if !self.found_in_overflow(spelled.as_deref().unwrap_or(name), &read).await? {
                return Err(error);
            }
        }
    }

    /// Lets dotted and capital names stand without quotes.
    async fn resolve_names(
        &self,
        statement: &mut Statement,
        read: &[String],
    ) -> std::result::Result<(), QueryError> {
        let mut known = BTreeSet::new();
        for name in read {
            if let Some(table) = self.main.get(name)? {
                let schema = table.schema();
                let fields = schema.fields().iter().map(|field| field.name());
                known.extend(
                    fields
                        .filter(|name| name.contains('.') || name.chars().any(char::is_uppercase))
                        .cloned(),
                );
            }
        }
        if known.is_empty() {
            return Ok(());
        }
        if let Some(sql) = sql_of(statement) {
            names::resolve(sql, &known);
        }
        Ok(())
    }

    /// Whether a name is that of a field in `overflow` of a table that is read; then it is a column from
    /// now on.
    async fn found_in_overflow(
        &self,
        name: &str,
        read: &[String],
    ) -> std::result::Result<bool, QueryError> {
        let known = self.main.overflow.lock().clone();
        if known.len() >= MAX_OVERFLOW_NAMES {
            return Ok(false);
        }
        let mut candidates = vec![name.to_owned()];
        // With the table's name before it.
        candidates.extend(name.split_once('.').map(|(_, rest)| rest.to_owned()));
        for candidate in candidates {
            if known.contains(&candidate) {
                continue;
            }
            for table in read {
                if self.main.get(table)?.is_some() && self.overflow_has(table, &candidate).await? {
                    self.main.overflow.lock().push(candidate);
                    self.main.made.lock().clear();
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    async fn overflow_has(&self, table: &str, name: &str) -> std::result::Result<bool, QueryError> {
        let quote = |text: &str| text.replace('\'', "''");
        let overflow = Core::Overflow.name();
        let sql = format!(
            "SELECT 1 FROM \"{}\" WHERE {overflow} IS NOT NULL AND \
             overflow_get({overflow}, '{}') IS NOT NULL LIMIT 1",
            table.replace('"', "\"\""),
            quote(name)
        );
        let found = async {
            let plan = self.state.create_logical_plan(&sql).await?;
            let plan = self.state.create_physical_plan(&plan).await?;
            collect(plan, self.task()).await
        };
        match found.await {
            Ok(batches) => Ok(batches.iter().any(|batch| batch.num_rows() > 0)),
            // A table without overflow has nothing in it.
            Err(error) => match QueryError::of(&error, &[]) {
                QueryError::Read(error) => Err(QueryError::Read(error)),
                _ => Ok(false),
            },
        }
    }
}

/// The SQL of a statement, that which it explains included.
fn sql_of(statement: &mut Statement) -> Option<&mut Sql> {
    match statement {
        Statement::Statement(sql) => Some(sql),
        Statement::Explain(explain) => match explain.statement.as_mut() {
            Statement::Statement(sql) => Some(sql),
            _ => None,
        },
        _ => None,
    }
}

/// The tenant's tables, each made when it is first named.
struct MainSchema {
    tenant: TenantId,
    tables: BTreeMap<String, Snapshot>,
    cache: Arc<ReadCache>,
    made: Mutex<BTreeMap<String, Arc<EventTable>>>,
    /// Columns that are looked for in `overflow`.
    overflow: Mutex<Vec<String>>,
}

impl std::fmt::Debug for MainSchema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MainSchema").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

impl MainSchema {
    fn get(
        &self,
        name: &str,
    ) -> std::result::Result<Option<Arc<EventTable>>, palisade_table::provider::ReadError> {
        if let Some(made) = self.made.lock().get(name) {
            return Ok(Some(Arc::clone(made)));
        }
        let Some(snapshot) = self.tables.get(name) else { return Ok(None) };
        let cache = Arc::clone(&self.cache);
        let mut table = EventTable::with_cache(snapshot.clone(), &self.tenant, cache)?;
        let overflow = self.overflow.lock().clone();
        if !overflow.is_empty() && table.schema().index_of(Core::Overflow.name()).is_ok() {
            table = table.with_overflow_columns(&overflow);
        }
        let table = Arc::new(table);
        self.made.lock().insert(name.to_owned(), Arc::clone(&table));
        Ok(Some(table))
    }
}

#[async_trait]
impl SchemaProvider for MainSchema {
    fn table_names(&self) -> Vec<String> {
        self.tables.keys().cloned().collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        Ok(self.get(name)?.map(|table| table as Arc<dyn TableProvider>))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.tables.contains_key(name)
    }
}

/// The tables about the tenant's tables.
#[derive(Debug)]
struct SystemSchema {
    main: Arc<MainSchema>,
    log: Arc<QueryLog>,
}

#[async_trait]
impl SchemaProvider for SystemSchema {
    fn table_names(&self) -> Vec<String> {
        system::TABLES.iter().map(|name| (*name).to_owned()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let mut tables = Vec::new();
        if name != system::QUERIES {
            for name in self.main.tables.keys() {
                tables.extend(self.main.get(name)?.map(|table| (name.clone(), table)));
            }
        }
        system::table(name, &tables, &self.log.of(&self.main.tenant))
    }

    fn table_exist(&self, name: &str) -> bool {
        system::TABLES.contains(&name)
    }
}
