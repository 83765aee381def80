//! A list of expressions with names: what follows `SELECT`.

use arrow_array::ArrayRef;
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::DataType;
use datafusion_sql::sqlparser::ast::{Expr, Ident, SelectItem, Spanned as _};

use crate::{
    compiled::{Compiled, Input, type_word},
    deep::on_large_stack,
    error::{Problem, Problems},
    evaluate::{Evaluated, FailedRow, stored_type},
    parse,
    scope::Scope,
    text::range,
};

/// A column of a projection.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its name.
    pub name: String,
    /// Its values, before they are of [`Self::stored`].
    pub expression: Compiled,
    /// The type in which a stream has it: int64, float64, utf8, boolean, or time in microseconds.
    pub stored: DataType,
    /// Where it is in the text, in bytes.
    pub span: std::ops::Range<usize>,
}

/// A list of expressions with names.
#[derive(Clone, Debug)]
pub struct Projection {
    /// The columns, in order. Their names differ.
    pub items: Vec<Item>,
}

/// An item of a list before it is compiled.
pub(crate) struct Raw {
    pub(crate) tree: Expr,
    pub(crate) name: Option<Ident>,
    pub(crate) span: std::ops::Range<usize>,
}

/// The items of a text; every column of the scope that `is_expanded` for a `*`.
pub(crate) fn items(
    text: &str,
    scope: &Scope,
    is_expanded: impl Fn(&str) -> bool,
    problems: &mut Vec<Problem>,
) -> Vec<Raw> {
    let parsed = match parse::projection(text) {
        Ok(parsed) => parsed,
        Err(problem) => {
            problems.push(problem);
            return Vec::new();
        }
    };
    let mut items = Vec::with_capacity(parsed.len());
    for item in parsed {
        let span = range(text, item.span());
        match item {
            SelectItem::UnnamedExpr(tree) => items.push(Raw {
                tree,
                name: None,
                span,
            }),
            SelectItem::ExprWithAlias { expr, alias } => items.push(Raw {
                tree: expr,
                name: Some(alias),
                span,
            }),
            SelectItem::Wildcard(options)
                if options
                    == datafusion_sql::sqlparser::ast::WildcardAdditionalOptions {
                        wildcard_token: options.wildcard_token.clone(),
                        ..Default::default()
                    } =>
            {
                let columns = scope.columns().iter().map(|column| column.name.clone());
                items.extend(columns.filter(|name| is_expanded(name)).map(|name| Raw {
                    tree: Expr::Identifier(Ident::with_quote('"', name)),
                    name: None,
                    span: span.clone(),
                }));
            }
            SelectItem::Wildcard(_)
            | SelectItem::QualifiedWildcard(..)
            | SelectItem::ExprWithAliases { .. } => problems.push(
                Problem::new("this is not understood in a list of columns", span)
                    .help("name columns, `expression AS name`, or `*` for all of them"),
            ),
        }
    }
    items
}

/// The name of an item: the one it is given, or that of the column that it is.
pub(crate) fn name_of(raw: &Raw) -> Result<String, Problem> {
    match (&raw.name, &raw.tree) {
        (Some(name), _) => Ok(name.value.clone()),
        (None, Expr::Identifier(name)) => Ok(name.value.clone()),
        (None, Expr::CompoundIdentifier(parts)) => Ok(parts
            .last()
            .map_or_else(String::new, |part| part.value.clone())),
        (None, _) => Err(Problem::new("this column needs a name", raw.span.clone())
            .help("add `AS name` behind it")),
    }
}

impl Projection {
    /// Compiles a text. `*` stands for the columns of the scope that `is_expanded`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn new(
        text: &str,
        scope: &Scope,
        is_expanded: impl Fn(&str) -> bool + Send,
    ) -> Result<Self, Problems> {
        on_large_stack(|| {
            let mut problems = Vec::new();
            let raw = items(text, scope, is_expanded, &mut problems);
            Self::of_items(raw, text, scope, problems)
        })
    }

    pub(crate) fn of_items(
        raw: Vec<Raw>,
        text: &str,
        scope: &Scope,
        mut problems: Vec<Problem>,
    ) -> Result<Self, Problems> {
        let mut items: Vec<Item> = Vec::with_capacity(raw.len());
        for raw in raw {
            let name = name_of(&raw);
            let span = raw.span.clone();
            let expression = match Compiled::of_tree(raw.tree, text, scope) {
                Ok(expression) => expression,
                Err(Problems(found)) => {
                    problems.extend(found);
                    continue;
                }
            };
            let name = match name {
                Ok(name) => name,
                Err(problem) => {
                    problems.push(problem);
                    continue;
                }
            };
            if let Some(other) = items
                .iter()
                .find(|item| item.name.eq_ignore_ascii_case(&name))
            {
                let problem = Problem::new(format!("there are two columns `{name}`"), span);
                problems.push(problem.help(format!(
                    "rename one of them with `AS`; the first is `{}`",
                    text.get(other.span.clone()).unwrap_or_default()
                )));
                continue;
            }
            let Some(stored) = stored_type(expression.data_type()) else {
                let found = type_word(expression.data_type());
                let problem = Problem::new(
                    format!("`{name}` is {found}, which a stream cannot have"),
                    span,
                );
                problems
                    .push(problem.help("CAST it to BIGINT, DOUBLE, VARCHAR, BOOLEAN or TIMESTAMP"));
                continue;
            };
            items.push(Item {
                name,
                expression,
                stored,
                span,
            });
        }
        if problems.is_empty() {
            Ok(Self { items })
        } else {
            problems.sort_by_key(|problem| problem.span.start);
            Err(Problems(problems))
        }
    }
}

impl Item {
    /// The values for `rows` rows as a stream has them; a row whose value cannot be stored so has
    /// failed.
    pub fn evaluate(&self, inputs: &[ArrayRef], rows: usize) -> Evaluated {
        let Evaluated { values, failed } = self.expression.evaluate(inputs, rows);
        if *values.data_type() == self.stored {
            return Evaluated { values, failed };
        }
        let options = CastOptions {
            safe: true,
            ..CastOptions::default()
        };
        let Ok(cast) = cast_with_options(&values, &self.stored, &options) else {
            return Evaluated { values, failed };
        };
        if cast.null_count() == values.logical_null_count() {
            return Evaluated {
                values: cast,
                failed,
            };
        }
        let before = values.logical_nulls();
        let mut failed = failed;
        for row in 0..rows {
            let was_null = before.as_ref().is_some_and(|nulls| nulls.is_null(row));
            if cast.is_null(row) && !was_null {
                failed.push(FailedRow {
                    row: u32::try_from(row).unwrap_or(u32::MAX),
                    reason: format!(
                        "the value of `{}` is beyond what a stream can have",
                        self.name
                    ),
                });
            }
        }
        failed.sort_by_key(|failed| failed.row);
        failed.dedup_by_key(|failed| failed.row);
        Evaluated {
            values: cast,
            failed,
        }
    }

    /// Whether it is a column of the scope as it is.
    pub fn as_column(&self) -> Option<usize> {
        self.expression
            .as_column()
            .filter(|_| *self.expression.data_type() == self.stored)
    }

    /// What has to be given to [`Self::evaluate`].
    pub fn inputs(&self) -> &[Input] {
        self.expression.inputs()
    }
}
