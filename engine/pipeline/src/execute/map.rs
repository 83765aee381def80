//! Maps: other columns of each row.

use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_schema::{Field, SchemaRef};
use quiver_expression::{FailedRow, Input, Projection, Scope};

use crate::{
    config::MapConfig,
    execute::{
        Beside,
        bound::{Bound, PerSchema, all_failed, compile, inputs, scope},
        rows::{Rows, all_but, schema_of},
    },
    graph::{Columns, is_field},
};

/// A map node.
#[derive(Debug)]
pub(crate) struct Map {
    condition: Option<String>,
    select: Option<String>,
    bound: PerSchema<BoundMap>,
}

#[derive(Debug)]
struct BoundMap {
    condition: Option<Bound>,
    select: Option<Result<BoundSelect, String>>,
}

#[derive(Debug)]
struct BoundSelect {
    scope: Scope,
    projection: Projection,
    /// Everything that the items ask for, once.
    wanted: Vec<Input>,
    schema: SchemaRef,
}

/// Rows that go on, and those that failed with their reasons.
pub(crate) struct Mapped {
    pub(crate) out: Rows,
    pub(crate) errors: Option<Rows>,
}

impl Map {
    pub(crate) fn new(config: &MapConfig) -> Self {
        let text = |text: &Option<crate::source::Located<crate::value::Text>>| {
            text.as_ref().map(|text| text.as_str().to_owned())
        };
        Self {
            condition: text(&config.condition),
            select: text(&config.select),
            bound: PerSchema::default(),
        }
    }

    pub(crate) fn evaluate(&mut self, rows: &Rows, declared: &Columns, beside: &Beside) -> Mapped {
        let (condition, select) = (&self.condition, &self.select);
        let bound = self.bound.get(rows.schema(), beside, || BoundMap {
            condition: condition
                .as_ref()
                .map(|text| Bound::condition(text, rows.schema(), declared, beside)),
            select: select
                .as_ref()
                .map(|text| BoundSelect::new(text, rows.schema(), declared, beside)),
        });
        let mut errors = Vec::new();
        let taken = match &bound.condition {
            None => rows.clone(),
            Some(condition) => {
                let (mask, failed) = condition.mask(rows, beside);
                if !failed.is_empty() {
                    errors.push(rows.failed(&failed));
                }
                rows.filter(&mask)
            }
        };
        let out = match &bound.select {
            None => taken,
            Some(Ok(select)) => {
                let (out, failed) = select.evaluate(&taken, beside);
                if !failed.is_empty() {
                    errors.push(taken.failed(&failed));
                }
                out
            }
            Some(Err(reason)) => {
                let failed = all_failed(taken.len(), reason);
                if !failed.is_empty() {
                    errors.push(taken.failed(&failed));
                }
                taken.filter(&std::iter::repeat_n(Some(false), taken.len()).collect())
            }
        };
        Mapped {
            out,
            errors: joined(errors),
        }
    }
}

/// Rows of one schema as one batch.
pub(crate) fn joined(mut parts: Vec<Rows>) -> Option<Rows> {
    if parts.len() < 2 {
        return parts.pop();
    }
    let batches: Vec<_> = parts.iter().map(Rows::batch).collect();
    let schema = batches[0].schema();
    arrow_select::concat::concat_batches(&schema, batches)
        .ok()
        .and_then(|batch| Rows::new(batch).ok())
}

impl BoundSelect {
    fn new(
        text: &str,
        schema: &SchemaRef,
        declared: &Columns,
        beside: &Beside,
    ) -> Result<Self, String> {
        // A `*` means what rows have, not what they may come to have.
        let present = scope(schema, &Columns::default(), beside);
        let is_present: Vec<String> = present
            .columns()
            .iter()
            .map(|column| column.name.clone())
            .collect();
        let is_expanded = |name: &str| is_field(name) && is_present.iter().any(|had| had == name);
        let scope = scope(schema, declared, beside);
        let (projection, scope) = compile(scope, |scope| Projection::new(text, scope, is_expanded))
            .map_err(|problems| problems.to_string())?;
        let mut wanted: Vec<Input> = Vec::new();
        for item in &projection.items {
            for input in item.inputs() {
                if !wanted.contains(input) {
                    wanted.push(input.clone());
                }
            }
        }
        let fields = projection
            .items
            .iter()
            .map(|item| Field::new(&item.name, item.stored.clone(), true));
        let schema = schema_of(schema, fields);
        Ok(Self {
            scope,
            projection,
            wanted,
            schema,
        })
    }

    fn evaluate(&self, rows: &Rows, beside: &Beside) -> (Rows, Vec<FailedRow>) {
        let given = inputs(&self.wanted, &self.scope, rows, beside);
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.projection.items.len());
        let mut failed: Vec<FailedRow> = Vec::new();
        for item in &self.projection.items {
            let wanted: Vec<ArrayRef> = item
                .inputs()
                .iter()
                .filter_map(|input| {
                    let index = self.wanted.iter().position(|known| known == input)?;
                    Some(Arc::clone(&given[index]))
                })
                .collect();
            if item.as_column().is_some() && wanted.len() == 1 {
                columns.push(Arc::clone(&wanted[0]));
                continue;
            }
            let evaluated = item.evaluate(&wanted, rows.len());
            columns.push(evaluated.values);
            failed.extend(evaluated.failed.into_iter().map(|row| FailedRow {
                reason: format!("`{}`: {}", item.name, row.reason),
                ..row
            }));
        }
        let out = rows.with_fields(&self.schema, columns);
        if failed.is_empty() {
            return (out, failed);
        }
        failed.sort_by_key(|row| row.row);
        failed.dedup_by_key(|row| row.row);
        (out.filter(&all_but(rows.len(), &failed)), failed)
    }
}
