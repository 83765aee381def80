//! What a window selects: aggregates of the rows, and expressions over them.
//!
//! `max(x) - min(x) AS spread` becomes two calls, whose arguments are expressions over a row, and a
//! projection over their results.

use std::ops::ControlFlow;

use arrow_schema::DataType;
use datafusion_sql::sqlparser::ast::{
    DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident,
    Spanned as _, UnaryOperator, Value, VisitMut as _, VisitorMut,
};

use crate::{
    compiled::Compiled,
    deep::on_large_stack,
    error::{Problem, Problems},
    projection::{Projection, items},
    resolve::name_of,
    scope::Scope,
    text::range,
};

/// What is an aggregate, and what else it is called.
const AGGREGATES: [(&str, &[&str]); 19] = [
    ("count", &[]),
    ("sum", &[]),
    ("min", &[]),
    ("max", &[]),
    ("avg", &["mean"]),
    ("first", &["first_value"]),
    ("last", &["last_value"]),
    ("stddev", &["stddev_samp"]),
    ("stddev_pop", &[]),
    ("var", &["var_samp", "variance"]),
    ("var_pop", &[]),
    ("median", &["approx_median"]),
    ("quantile", &["approx_percentile_cont", "percentile"]),
    ("rate", &[]),
    ("delta", &[]),
    ("time_weighted_avg", &["twa"]),
    ("count_distinct", &["approx_distinct"]),
    ("min_at", &["argmin"]),
    ("max_at", &["argmax"]),
];

/// The name of an aggregate that may be called otherwise.
fn canonical(name: &str) -> Option<&'static str> {
    AGGREGATES
        .iter()
        .find(|(canonical, others)| *canonical == name || others.contains(&name))
        .map(|(canonical, _)| *canonical)
}

pub(crate) fn is_aggregate(name: &str) -> bool {
    canonical(name).is_some()
}

/// A call of an aggregate.
#[derive(Clone, Debug)]
pub struct AggregateCall {
    /// Which: its name in lower case.
    pub function: &'static str,
    /// What is aggregated; `None` for `count(*)`.
    pub argument: Option<Compiled>,
    /// The second argument: the share of a quantile.
    pub parameter: Option<f64>,
    /// Which rows count: `FILTER (WHERE …)`.
    pub filter: Option<Compiled>,
    /// The type of its result.
    pub data_type: DataType,
}

/// Says which type the result of an aggregate of an argument of a type has, or what is wrong.
pub type AggregateTypes<'a> =
    &'a (dyn Fn(&str, Option<&DataType>) -> Result<DataType, String> + Sync);

/// A column that every result of a window has: a key, or the window's bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyColumn {
    /// Its name.
    pub name: String,
    /// Its type.
    pub data_type: DataType,
}

/// What a window selects.
#[derive(Clone, Debug)]
pub struct AggregateSelect {
    /// The aggregates.
    pub calls: Vec<AggregateCall>,
    /// What is made of them: its scope are the key columns, then one column for each call.
    pub projection: Projection,
}

impl AggregateSelect {
    /// Compiles a text over rows of `scope`, whose results have the columns `keys`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn new(
        text: &str,
        scope: &Scope,
        keys: &[KeyColumn],
        types: AggregateTypes<'_>,
    ) -> Result<Self, Problems> {
        on_large_stack(|| Self::compile(text, scope, keys, types))
    }

    fn compile(
        text: &str,
        scope: &Scope,
        keys: &[KeyColumn],
        types: AggregateTypes<'_>,
    ) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        let mut raw = items(text, scope, |_| false, &mut problems);
        let mut extract = Extract {
            text,
            scope,
            types,
            calls: Vec::new(),
            problems: &mut problems,
        };
        for item in &mut raw {
            if item.name.is_none()
                && let Expr::Function(call) = &item.tree
            {
                // `avg(x)` without a name is `avg_x`.
                item.name = implied(call).map(Ident::new);
            }
            let _ = item.tree.visit(&mut extract);
        }
        let calls = extract.calls;
        let mut results = Scope::new("the keys and aggregates of the window");
        for key in keys {
            results = results.with(key.name.clone(), key.data_type.clone());
        }
        for (index, call) in calls.iter().enumerate() {
            results = results.with(placeholder(index), call.data_type.clone());
        }
        let projection =
            Projection::of_items(raw, text, &results, problems).map_err(|problems| {
                Problems(
                    problems
                        .0
                        .into_iter()
                        .map(|problem| not_aggregated(problem, scope))
                        .collect(),
                )
            })?;
        Ok(Self { calls, projection })
    }
}

/// A name of the rows that is used as if it were one of the results.
fn not_aggregated(problem: Problem, scope: &Scope) -> Problem {
    let Some(name) = problem.unknown_column.as_deref() else {
        return problem;
    };
    if scope.find(name, false).is_some() {
        return Problem::new(
            format!("`{name}` is neither a key nor aggregated"),
            problem.span.clone(),
        )
        .help(format!(
            "say which of the rows' values: `last({name})`, `avg({name})`, …; or add it to `by`"
        ));
    }
    let columns = scope.columns().iter();
    let columns: Vec<String> = columns.map(|column| column.name.clone()).collect();
    let help = crate::resolve::meant(name, columns);
    Problem { help, ..problem }
}

fn placeholder(index: usize) -> String {
    format!("aggregate {index}")
}

/// `avg(x)` as a name: `avg_x`.
fn implied(call: &Function) -> Option<String> {
    let name = canonical(&name_of(call))?;
    match &call.args {
        FunctionArguments::List(list) => match &list.args[..] {
            [FunctionArg::Unnamed(FunctionArgExpr::Wildcard)] | [] => Some(name.to_owned()),
            [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Identifier(argument)))] => {
                Some(format!("{name}_{}", argument.value))
            }
            _ => None,
        },
        _ => None,
    }
}

struct Extract<'a> {
    text: &'a str,
    scope: &'a Scope,
    types: AggregateTypes<'a>,
    calls: Vec<AggregateCall>,
    problems: &'a mut Vec<Problem>,
}

impl VisitorMut for Extract<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let Expr::Function(call) = expr else {
            return ControlFlow::Continue(());
        };
        let Some(function) = canonical(&name_of(call)).filter(|_| call.over.is_none()) else {
            return ControlFlow::Continue(());
        };
        let span = range(self.text, call.span());
        let index = match self.call(function, call, span) {
            Ok(call) => {
                self.calls.push(call);
                self.calls.len() - 1
            }
            Err(Problems(problems)) => {
                self.problems.extend(problems);
                // Of no meaning: the text is refused.
                *expr = Expr::Value(Value::Null.into());
                return ControlFlow::Continue(());
            }
        };
        *expr = Expr::Identifier(Ident::with_quote('"', placeholder(index)));
        ControlFlow::Continue(())
    }
}

impl Extract<'_> {
    fn call(
        &mut self,
        function: &'static str,
        call: &Function,
        span: std::ops::Range<usize>,
    ) -> Result<AggregateCall, Problems> {
        let wrong = |message: &str, help: &str| -> Problems {
            Problem::new(message, span.clone()).help(help).into()
        };
        let FunctionArguments::List(list) = &call.args else {
            return Err(wrong(
                &format!("`{function}` needs an argument"),
                &format!("write `{function}(field)`"),
            ));
        };
        if !list.clauses.is_empty() || !call.within_group.is_empty() {
            return Err(wrong(
                "rows are aggregated in the order of their times",
                "leave the ORDER BY out: `first` and `last` go by `ts`",
            ));
        }
        let mut function = function;
        match list.duplicate_treatment {
            Some(DuplicateTreatment::Distinct) if function == "count" => {
                function = "count_distinct";
            }
            Some(DuplicateTreatment::Distinct) => {
                return Err(wrong(
                    "only `count` can be of distinct values",
                    "write `count(DISTINCT field)`",
                ));
            }
            _ => {}
        }
        let mut arguments = Vec::new();
        for argument in &list.args {
            match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(tree)) => arguments.push(Some(tree)),
                FunctionArg::Unnamed(FunctionArgExpr::Wildcard) => arguments.push(None),
                _ => {
                    return Err(wrong(
                        "arguments have no names here",
                        &format!("write `{function}(field)`"),
                    ));
                }
            }
        }
        let compile = |tree: &Expr| Compiled::of_tree(tree.clone(), self.text, self.scope);
        let (argument, parameter) = match (function, &arguments[..]) {
            ("count", [] | [None]) => (None, None),
            ("quantile", [Some(argument), Some(share)]) => {
                let share = number(share).filter(|share| (0.0..=1.0).contains(share));
                let Some(share) = share else {
                    return Err(wrong(
                        "the share of a quantile is a number from 0 to 1",
                        "write `quantile(field, 0.95)`",
                    ));
                };
                (Some(compile(argument)?), Some(share))
            }
            ("quantile", _) => {
                return Err(wrong(
                    "`quantile` needs a field and a share",
                    "write `quantile(field, 0.95)`",
                ));
            }
            (_, [Some(argument)]) => (Some(compile(argument)?), None),
            _ => {
                return Err(wrong(
                    &format!("`{function}` needs one argument"),
                    &format!("write `{function}(field)`"),
                ));
            }
        };
        let filter = match &call.filter {
            Some(tree) => Some(compile(tree)?),
            None => None,
        };
        if let Some(filter) = &filter
            && *filter.data_type() != DataType::Boolean
        {
            return Err(wrong(
                "the filter of an aggregate is a condition",
                "write `FILTER (WHERE field > 0)`",
            ));
        }
        let data_type = (self.types)(function, argument.as_ref().map(Compiled::data_type))
            .map_err(|message| Problems::from(Problem::new(message, span.clone())))?;
        Ok(AggregateCall {
            function,
            argument,
            parameter,
            filter,
            data_type,
        })
    }
}

fn number(tree: &Expr) -> Option<f64> {
    match tree {
        Expr::Value(value) => match &value.value {
            Value::Number(digits, _) => digits.parse().ok(),
            _ => None,
        },
        Expr::UnaryOp {
            op: UnaryOperator::Minus,
            expr,
        } => number(expr).map(|number| -number),
        _ => None,
    }
}
