//! From text to a physical plan over the tables at Q.

use std::sync::Arc;

use datafusion::{
    catalog::{
        CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList,
    },
    common::tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    error::{DataFusionError, Result},
    execution::{
        SessionState, SessionStateBuilder, SessionStateDefaults, TaskContext,
        context::{SQLOptions, SessionContext},
        memory_pool::FairSpillPool,
        runtime_env::RuntimeEnv,
    },
    logical_expr::LogicalPlan,
    physical_plan::{ExecutionPlan, coop::CooperativeExec},
    prelude::SessionConfig,
};

use crate::{
    catalog::{PublicSchema, QueryCatalog, UnknownStream},
    classify::classify,
    error::QueryError,
    functions::scalar_functions,
    last_cache::{LAST_CACHE, LastCache},
    limits::{BATCH_ROWS, PLAN_NODES_MAX, QueryLimits},
    statement::parse,
};

const CATALOG: &str = "quiver";
const SCHEMA: &str = "public";

/// A plan that is ready to run, and what it runs with.
pub(crate) struct Planned {
    pub(crate) plan: Arc<dyn ExecutionPlan>,
    pub(crate) context: Arc<TaskContext>,
}

/// Makes plans. Everything that queries share is made once.
#[derive(Debug)]
pub(crate) struct Planner {
    template: SessionState,
    runtime: RuntimeEnv,
    memory_bytes: usize,
}

impl Planner {
    pub(crate) fn new(runtime: RuntimeEnv, limits: &QueryLimits) -> Self {
        let mut config = SessionConfig::new()
            .with_target_partitions(limits.partitions.max(1))
            .with_batch_size(BATCH_ROWS)
            .with_information_schema(true)
            .with_default_catalog_and_schema(CATALOG, SCHEMA)
            .with_create_default_catalog_and_schema(false);
        let options = config.options_mut();
        // Files are sorted by (device, ts): a filter on either skips most pages before the other
        // columns are decoded.
        options.execution.parquet.pushdown_filters = true;
        options.execution.parquet.reorder_filters = true;
        options.sql_parser.map_string_types_to_utf8view = false;
        let template = SessionStateBuilder::new()
            .with_config(config)
            .with_scalar_functions(scalar_functions())
            .with_aggregate_functions(SessionStateDefaults::default_aggregate_functions())
            .with_window_functions(SessionStateDefaults::default_window_functions())
            .with_expr_planners(SessionStateDefaults::default_expr_planners())
            .with_table_function_list(SessionStateDefaults::default_table_functions())
            .build();
        Self {
            template,
            runtime,
            memory_bytes: limits.memory_bytes,
        }
    }

    fn session(&self, catalog: &Arc<QueryCatalog>) -> Result<SessionContext> {
        let public = MemoryCatalogProvider::new();
        public.register_schema(SCHEMA, Arc::new(PublicSchema(Arc::clone(catalog))))?;
        let catalogs = MemoryCatalogProviderList::new();
        catalogs.register_catalog(CATALOG.into(), Arc::new(public));
        // A pool of its own: a query's fate does not depend on what others use.
        let runtime = RuntimeEnv {
            memory_pool: Arc::new(FairSpillPool::new(self.memory_bytes)),
            ..self.runtime.clone()
        };
        let mut state = self.template.clone();
        state.register_catalog_list(Arc::new(catalogs));
        let function = Arc::new(LastCache(Arc::clone(catalog)));
        state.register_udtf(LAST_CACHE, Arc::clone(&function) as _);
        let table_functions = state.table_functions().clone();
        let state = SessionStateBuilder::new_from_existing(state)
            .with_runtime_env(Arc::new(runtime))
            .with_table_functions(table_functions)
            .build();
        Ok(SessionContext::new_with_state(state))
    }

    /// Plans `sql` over the catalog's tables. Recursion is as deep as the text nests: poll it on a
    /// large stack.
    pub(crate) async fn plan(
        &self,
        sql: &str,
        catalog: &Arc<QueryCatalog>,
    ) -> Result<Planned, QueryError> {
        let statement = parse(sql)?;
        let fail = |error| self.explain(error, catalog);
        let session = self.session(catalog).map_err(fail)?;
        let logical = session
            .state()
            .statement_to_plan(statement)
            .await
            .map_err(fail)?;
        check_size(&logical)?;
        // The statement's kind was checked before; this also looks into the plan (SELECT … INTO).
        SQLOptions::new()
            .with_allow_ddl(false)
            .with_allow_dml(false)
            .with_allow_statements(false)
            .verify_plan(&logical)
            .map_err(|error| QueryError::Refused {
                reason: error.find_root().strip_backtrace(),
            })?;
        let frame = session.execute_logical_plan(logical).await.map_err(fail)?;
        let context = Arc::new(frame.task_ctx());
        let plan = frame
            .create_physical_plan()
            .await
            .and_then(yielding)
            .map_err(fail)?;
        Ok(Planned { plan, context })
    }

    /// What an error means for the query.
    pub(crate) fn explain(&self, error: DataFusionError, catalog: &QueryCatalog) -> QueryError {
        if let Some(failure) = catalog.reads().failure() {
            return failure.clone().into();
        }
        if let Some(unknown) = unknown_stream(&error, catalog) {
            return QueryError::UnknownTable {
                name: unknown.name,
                near: unknown.near,
                streams: unknown.streams,
            };
        }
        classify(error, self.memory_bytes)
    }
}

/// The stream that does not exist, if that is what `error` is about.
fn unknown_stream(error: &DataFusionError, catalog: &QueryCatalog) -> Option<UnknownStream> {
    match error.find_root() {
        DataFusionError::External(source) => source
            .downcast_ref::<UnknownStream>()
            .map(|unknown| catalog.unknown(&unknown.name)),
        DataFusionError::Plan(message) => {
            // DataFusion has no class for this; the message is "table 'catalog.schema.name' not found".
            let name = message
                .strip_prefix("table '")?
                .split_once("' not found")?
                .0;
            let prefix = format!("{CATALOG}.{SCHEMA}.");
            Some(catalog.unknown(name.strip_prefix(&prefix).unwrap_or(name)))
        }
        _ => None,
    }
}

/// Refuses a plan with too many nodes, looking at no more than that many.
fn check_size(plan: &LogicalPlan) -> Result<(), QueryError> {
    let mut nodes = 0;
    let counted = plan.apply(|_| {
        nodes += 1;
        Ok(if nodes > PLAN_NODES_MAX {
            TreeNodeRecursion::Stop
        } else {
            TreeNodeRecursion::Continue
        })
    });
    if counted.is_err() || nodes > PLAN_NODES_MAX {
        return Err(QueryError::Refused {
            reason: format!(
                "the plan has more than {PLAN_NODES_MAX} nodes; common table expressions that use each other multiply"
            ),
        });
    }
    Ok(())
}

/// Operators that can make any amount of output from a little input.
const MULTIPLYING: [&str; 8] = [
    "CrossJoinExec",
    "HashJoinExec",
    "NestedLoopJoinExec",
    "PiecewiseMergeJoinExec",
    "RecursiveQueryExec",
    "SortMergeJoinExec",
    "SymmetricHashJoinExec",
    "UnnestExec",
];

/// `plan`, in which multiplying operators give way to other tasks now and then. DataFusion has only
/// sources do that; an aggregate over a cross join would not, and no timeout could end it.
fn yielding(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let plan = plan.transform_up(|node| {
        Ok(if MULTIPLYING.contains(&node.name()) {
            Transformed::yes(Arc::new(CooperativeExec::new(node)) as Arc<dyn ExecutionPlan>)
        } else {
            Transformed::no(node)
        })
    })?;
    Ok(plan.data)
}
