//! From a syntax tree with resolved names to something that can be evaluated.

use std::{
    borrow::Cow,
    collections::HashMap,
    ops::ControlFlow,
    sync::{Arc, LazyLock},
};

use arrow_schema::{DataType, Field, Schema};
use datafusion_common::{
    DFSchema, DataFusionError, Result, TableReference, config::ConfigOptions, plan_err,
};
use datafusion_expr::{
    AggregateUDF, HigherOrderUDF, ScalarUDF, TableSource, WindowUDF,
    execution_props::ExecutionProps,
    physical_planning_context::PhysicalPlanningContext,
    planner::{ContextProvider, ExprPlanner},
    simplify::SimplifyContext,
};
use datafusion_functions::{
    core::planner::CoreFunctionPlanner, datetime::planner::DatetimeFunctionPlanner,
    unicode::planner::UnicodeFunctionPlanner,
};
use datafusion_optimizer::simplify_expressions::ExprSimplifier;
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion_sql::{
    planner::{ParserOptions, PlannerContext, SqlToRel},
    sqlparser::ast::{Expr, Spanned as _, Visit as _, Visitor},
};

use crate::{
    compiled::{Compiled, Input},
    deep::check_planned,
    error::{Problem, Problems},
    functions::{Function, function, names},
    resolve::Names,
    scope::Scope,
    text::range,
};

/// What the planner asks: functions, and nothing else.
#[derive(Debug)]
struct Context {
    options: ConfigOptions,
    planners: Vec<Arc<dyn ExprPlanner>>,
}

static CONTEXT: LazyLock<Context> = LazyLock::new(|| Context {
    options: ConfigOptions::default(),
    planners: vec![
        Arc::new(CoreFunctionPlanner::default()),
        Arc::new(DatetimeFunctionPlanner),
        Arc::new(UnicodeFunctionPlanner),
    ],
});

impl ContextProvider for Context {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        plan_err!("an expression cannot read a table ({name})")
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        match function(name) {
            Some(Function::Usable(function)) => Some(Arc::clone(function)),
            _ => None,
        }
    }

    fn get_higher_order_meta(&self, _name: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, _name: &str) -> Option<Arc<AggregateUDF>> {
        None
    }

    fn get_window_meta(&self, _name: &str) -> Option<Arc<WindowUDF>> {
        None
    }

    fn get_variable_type(&self, _names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.options
    }

    fn udf_names(&self) -> Vec<String> {
        names()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udwf_names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Compiles a tree whose names are resolved.
pub(crate) fn compile(
    tree: Expr,
    text: &str,
    names: Names,
    scope: &Scope,
) -> Result<Compiled, Problems> {
    let type_of = |input: &Input| match input {
        Input::Column(index) => scope.columns()[*index].data_type.clone(),
        Input::Attribute(_) => DataType::Utf8,
        Input::Last { stream, field } => scope.last_type(stream, field),
    };
    let fields: Vec<Field> = names
        .inputs
        .iter()
        .map(|(name, input)| Field::new(name, type_of(input), true))
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let whole = |error: &DataFusionError| Problem::new(message(error), 0..text.len());
    let columns = DFSchema::from_unqualified_fields(schema.fields().clone(), HashMap::new())
        .map_err(|error| whole(&error))?;
    let columns = Arc::new(columns);
    match physical(tree.clone(), &columns) {
        Ok(physical) => {
            check_planned(&physical, text)?;
            let data_type = physical.data_type(&schema).map_err(|error| whole(&error))?;
            let inputs = names.inputs.into_iter().map(|(_, input)| input).collect();
            Ok(Compiled {
                inputs,
                schema,
                physical,
                data_type,
            })
        }
        Err(error) => {
            let (part, error) = smallest(&tree, error, &columns);
            let span = range(text, part.span());
            Err(Problem::new(message(&error), span).into())
        }
    }
}

fn physical(tree: Expr, columns: &Arc<DFSchema>) -> Result<Arc<dyn PhysicalExpr>> {
    let options = ParserOptions::default().with_map_string_types_to_utf8view(false);
    let planner = SqlToRel::new_with_options(&*CONTEXT, options);
    let logical = planner.sql_to_expr(tree, columns, &mut PlannerContext::new())?;
    let simplifier = ExprSimplifier::new(
        SimplifyContext::builder()
            .with_schema(Arc::clone(columns))
            .build(),
    );
    let coerced = simplifier.coerce(logical, columns)?;
    let simplified = simplifier.simplify(coerced)?;
    create_physical_expr(
        &simplified,
        columns,
        &ExecutionProps::new(),
        &PhysicalPlanningContext::default(),
    )
}

/// The smallest part of a tree that cannot be planned by itself, and why not: from the whole tree,
/// which cannot, down to the first part of each that cannot either.
fn smallest<'a>(
    tree: &'a Expr,
    error: DataFusionError,
    columns: &Arc<DFSchema>,
) -> (Cow<'a, Expr>, DataFusionError) {
    let mut found = (Cow::Borrowed(tree), error);
    loop {
        let mut parts = Parts { columns, depth: 0 };
        match found.0.visit(&mut parts) {
            ControlFlow::Break((part, error)) => found = (Cow::Owned(part), error),
            ControlFlow::Continue(()) => return found,
        }
    }
}

/// Plans the parts that a tree is made of by themselves, until one cannot be planned.
struct Parts<'a> {
    columns: &'a Arc<DFSchema>,
    depth: usize,
}

impl Visitor for Parts<'_> {
    type Break = (Expr, DataFusionError);

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Self::Break> {
        self.depth += 1;
        // The tree itself is 1; what its parts are made of is not looked at.
        if self.depth == 2
            && let Err(error) = physical(expr.clone(), self.columns)
        {
            return ControlFlow::Break((expr.clone(), error));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, _expr: &Expr) -> ControlFlow<Self::Break> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }
}

/// DataFusion's message without what it says about itself.
pub(crate) fn message(error: &DataFusionError) -> String {
    let root = error.find_root();
    let text = root.strip_backtrace();
    let mut text = text.as_str();
    for prefix in [
        "Error during planning: ",
        "Execution error: ",
        "Arrow error: ",
        "Schema error: ",
        "Internal error: ",
        "This feature is not implemented: ",
        "SQL error: ",
        "Optimizer rule 'simplify_expressions' failed: ",
        "Cast error: ",
        "Compute error: ",
        "Invalid argument error: ",
        "Arithmetic overflow: ",
    ] {
        text = text.strip_prefix(prefix).unwrap_or(text);
    }
    let first = text.lines().next().unwrap_or(text);
    let first = first
        .split(". No function matches")
        .next()
        .unwrap_or(first)
        .trim_end_matches('.');
    let mut letters = first.chars();
    match letters.next() {
        Some(letter) => letter.to_lowercase().chain(letters).collect(),
        None => "it cannot be planned".to_owned(),
    }
}
