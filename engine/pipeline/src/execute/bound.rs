//! Expressions over rows of a certain schema.
//!
//! Streams learn fields while they run, and an expression may name one that has not come yet: it is
//! compiled anew for every schema, with columns that are not there as NULL.

use std::sync::Arc;

use arrow_array::{ArrayRef, cast::AsArray as _, new_null_array, types::Int32Type};
use arrow_schema::{DataType, SchemaRef};
use arrow_select::take::take;
use quiver_expression::{Compiled, FailedRow, Input, Problems, Scope};

use crate::{
    execute::{Beside, rows::Rows},
    graph::Columns,
};

/// Most schemas that a node keeps expressions for: as many versions of its streams' as may be in use
/// at one time.
const SCHEMAS_MAX: usize = 64;
/// Most columns that an expression names and rows do not have.
const ABSENT_MAX: usize = 1_000;

/// What was made for each schema, the latest first.
#[derive(Debug)]
pub(crate) struct PerSchema<T> {
    made: Vec<(SchemaRef, Arc<T>)>,
    /// Of [`Lasts::epoch`](super::last::Lasts::epoch) when they were made.
    epoch: u64,
}

impl<T> Default for PerSchema<T> {
    fn default() -> Self {
        Self {
            made: Vec::new(),
            epoch: 0,
        }
    }
}

impl<T> PerSchema<T> {
    /// What was made for this schema, or is made now.
    pub(crate) fn get(
        &mut self,
        schema: &SchemaRef,
        beside: &Beside,
        make: impl FnOnce() -> T,
    ) -> Arc<T> {
        if self.epoch != beside.lasts.epoch() {
            self.epoch = beside.lasts.epoch();
            self.made.clear();
        }
        let is_same = |(known, _): &(SchemaRef, Arc<T>)| Arc::ptr_eq(known, schema);
        let is_alike = |(known, _): &(SchemaRef, Arc<T>)| known == schema;
        let found = self.made.iter().position(is_same);
        if let Some(index) = found.or_else(|| self.made.iter().position(is_alike)) {
            return Arc::clone(&self.made[index].1);
        }
        let made = Arc::new(make());
        self.made.truncate(SCHEMAS_MAX - 1);
        self.made.insert(0, (Arc::clone(schema), Arc::clone(&made)));
        made
    }
}

/// The scope of rows: their columns, and those that are declared and have not come yet.
pub(crate) fn scope(schema: &SchemaRef, declared: &Columns, beside: &Beside) -> Scope {
    let mut scope = Scope::new("the rows")
        .with_attributes()
        .with_lasts(beside.lasts.streams().iter().cloned());
    for field in schema.fields() {
        let data_type = match field.data_type() {
            DataType::Dictionary(_, values) => values.as_ref().clone(),
            other => other.clone(),
        };
        scope = scope.with(field.name().clone(), data_type);
    }
    for (name, data_type) in &declared.fields {
        if schema.field_with_name(name).is_err() {
            scope = scope.with(name.clone(), data_type.clone());
        }
    }
    scope
}

/// Compiles with columns that nobody knows as NULL.
pub(crate) fn compile<T>(
    mut scope: Scope,
    compile: impl Fn(&Scope) -> Result<T, Problems>,
) -> Result<(T, Scope), Problems> {
    for _ in 0..=ABSENT_MAX {
        let problems = match compile(&scope) {
            Ok(compiled) => return Ok((compiled, scope)),
            Err(problems) => problems,
        };
        let absent: Vec<String> = problems
            .0
            .iter()
            .filter_map(|problem| problem.unknown_column.clone())
            .collect();
        if absent.is_empty() {
            return Err(problems);
        }
        for name in absent {
            let columns = scope.columns();
            if !columns.iter().any(|column| column.name == name) {
                scope = scope.with(name, DataType::Null);
            }
        }
    }
    compile(&scope).map(|compiled| (compiled, scope))
}

/// The values that an expression asks for.
pub(crate) fn inputs(
    wanted: &[Input],
    scope: &Scope,
    rows: &Rows,
    beside: &Beside,
) -> Vec<ArrayRef> {
    let batch = rows.batch();
    wanted
        .iter()
        .map(|input| match input {
            Input::Attribute(key) => beside.attributes.column(rows.device(), key),
            Input::Last { stream, field } => beside.lasts.column(stream, field, rows),
            Input::Column(index) => match batch.columns().get(*index) {
                Some(column) => plain(column),
                None => {
                    let column = scope.columns().get(*index);
                    let data_type =
                        column.map_or(DataType::Null, |column| column.data_type.clone());
                    new_null_array(&data_type, rows.len())
                }
            },
        })
        .collect()
}

/// A column without its dictionary.
fn plain(column: &ArrayRef) -> ArrayRef {
    match column.as_dictionary_opt::<Int32Type>() {
        Some(dictionary) => take(dictionary.values(), dictionary.keys(), None)
            .unwrap_or_else(|_| new_null_array(&DataType::Utf8, column.len())),
        None => Arc::clone(column),
    }
}

/// An expression over rows of one schema, or why it has none over these.
#[derive(Debug)]
pub(crate) struct Bound {
    scope: Scope,
    compiled: Result<Compiled, String>,
}

impl Bound {
    /// A condition.
    pub(crate) fn condition(
        text: &str,
        schema: &SchemaRef,
        declared: &Columns,
        beside: &Beside,
    ) -> Self {
        let scope = scope(schema, declared, beside);
        match compile(scope, |scope| Compiled::condition(text, scope)) {
            Ok((compiled, scope)) => Self {
                scope,
                compiled: Ok(compiled),
            },
            Err(problems) => Self {
                scope: Scope::default(),
                compiled: Err(problems.to_string()),
            },
        }
    }

    /// Which rows meet it, and which have failed.
    pub(crate) fn mask(
        &self,
        rows: &Rows,
        beside: &Beside,
    ) -> (arrow_array::BooleanArray, Vec<FailedRow>) {
        match &self.compiled {
            Ok(compiled) => {
                let inputs = inputs(compiled.inputs(), &self.scope, rows, beside);
                compiled.evaluate_condition(&inputs, rows.len())
            }
            Err(reason) => {
                let none = std::iter::repeat_n(Some(false), rows.len()).collect();
                (none, all_failed(rows.len(), reason))
            }
        }
    }
}

/// Every row failed for the same reason.
pub(crate) fn all_failed(rows: usize, reason: &str) -> Vec<FailedRow> {
    (0..u32::try_from(rows).unwrap_or(u32::MAX))
        .map(|row| FailedRow {
            row,
            reason: reason.to_owned(),
        })
        .collect()
}
