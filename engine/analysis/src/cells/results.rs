//! Results of blocks as columns.

use std::sync::Arc;

use arrow_array::{
    ArrayRef,
    builder::{
        BooleanBuilder, Float64Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder,
    },
};

use crate::{
    cells::{
        blocks::Blocks,
        fold::wide,
        large::Large,
        layout::{Class, Layout, ROWS, Recipe},
        order,
    },
    spec::{ArgumentType, Function},
    states::Moments,
};

/// Microseconds of a second.
const SECOND: f64 = 1e6;

/// Columns of results that grow by a row for each window.
#[derive(Debug)]
pub(crate) struct Results {
    columns: Vec<Builder>,
    /// Sums of integers that were out of range.
    pub(crate) overflows: u64,
}

#[derive(Debug)]
enum Builder {
    Float(Float64Builder),
    Int(Int64Builder),
    Bool(BooleanBuilder),
    Time(TimestampMicrosecondBuilder),
    Text(StringBuilder),
}

/// A result.
enum Value<'a> {
    Null,
    Float(f64),
    Int(i64),
    Text(&'a str),
}

impl Builder {
    fn new(result: ArgumentType) -> Self {
        match result {
            ArgumentType::Float64 => Self::Float(Float64Builder::new()),
            ArgumentType::Int64 => Self::Int(Int64Builder::new()),
            ArgumentType::Bool => Self::Bool(BooleanBuilder::new()),
            ArgumentType::Time => Self::Time(
                TimestampMicrosecondBuilder::new().with_data_type(ArgumentType::Time.arrow()),
            ),
            ArgumentType::Text => Self::Text(StringBuilder::new()),
        }
    }

    fn push(&mut self, value: &Value<'_>) {
        match (self, value) {
            (Self::Float(column), Value::Float(value)) => {
                column.append_value(order::canonical(*value));
            }
            (Self::Float(column), _) => column.append_null(),
            (Self::Int(column), Value::Int(value)) => column.append_value(*value),
            (Self::Int(column), _) => column.append_null(),
            (Self::Bool(column), Value::Int(value)) => column.append_value(*value != 0),
            (Self::Bool(column), _) => column.append_null(),
            (Self::Time(column), Value::Int(value)) => column.append_value(*value),
            (Self::Time(column), _) => column.append_null(),
            (Self::Text(column), Value::Text(value)) => column.append_value(value),
            (Self::Text(column), _) => column.append_null(),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Float(column) => Arc::new(column.finish()),
            Self::Int(column) => Arc::new(column.finish()),
            Self::Bool(column) => Arc::new(column.finish()),
            Self::Time(column) => Arc::new(column.finish()),
            Self::Text(column) => Arc::new(column.finish()),
        }
    }
}

impl Results {
    pub(crate) fn new(layout: &Layout) -> Self {
        let columns = layout.recipes.iter();
        Self {
            columns: columns.map(|recipe| Builder::new(recipe.result)).collect(),
            overflows: 0,
        }
    }

    /// Adds the results of a block.
    pub(crate) fn push(&mut self, blocks: &Blocks, block: u32, end: i64) {
        let recipes = blocks.layout.recipes.iter();
        for (recipe, column) in recipes.zip(&mut self.columns) {
            column.push(&value(recipe, blocks, (block, end), &mut self.overflows));
        }
    }

    /// The columns; the next ones are empty.
    pub(crate) fn finish(&mut self) -> Vec<ArrayRef> {
        self.columns.iter_mut().map(Builder::finish).collect()
    }
}

fn value<'a>(
    recipe: &Recipe,
    blocks: &'a Blocks,
    (block, end): (u32, i64),
    overflows: &mut u64,
) -> Value<'a> {
    let words = blocks.words(block);
    let word = |at: usize| words.get(at).copied().unwrap_or_default();
    let pair = |at: usize| [word(at), word(at + 1)];
    let nulls = recipe.nulls.map_or(0, word);
    let count = word(ROWS).saturating_sub(nulls);
    let [first, second] = recipe.cells.map(pair);
    if matches!(recipe.function, Function::Rows | Function::Count) {
        return Value::Int(count.cast_signed());
    }
    if count == 0 {
        return Value::Null;
    }
    let held = |words: [u64; 2]| match recipe.class {
        Class::Float => Value::Float(f64::from_bits(words[0])),
        Class::Int => Value::Int(words[0].cast_signed()),
        Class::Text => blocks
            .large
            .get(words[0])
            .and_then(Large::text)
            .map_or(Value::Null, Value::Text),
    };
    let mut in_range = |value: i128| match i64::try_from(value) {
        Ok(value) => Value::Int(value),
        Err(_) => {
            *overflows += 1;
            Value::Null
        }
    };
    let moments = || {
        let at = recipe.cells[0];
        Moments::of_words([word(at), word(at + 1), word(at + 2)])
    };
    let some = |value: Option<f64>| value.map_or(Value::Null, Value::Float);
    let float = |word: u64| f64::from_bits(word);
    let sum = || order::total(float(first[0]), float(first[1]));
    match (recipe.function, recipe.class) {
        (Function::Sum, Class::Float) => Value::Float(sum()),
        (Function::Sum, _) => in_range(wide(first)),
        (Function::Avg, Class::Float) => Value::Float(sum() / count as f64),
        (Function::Avg, _) => Value::Float(wide(first) as f64 / count as f64),
        (Function::Min | Function::Max | Function::First | Function::Last, _) => held(first),
        (Function::MinAt | Function::MaxAt, _) => Value::Int(first[1].cast_signed()),
        (Function::Delta, Class::Float) => Value::Float(float(second[0]) - float(first[0])),
        (Function::Delta, _) => {
            in_range(i128::from(second[0].cast_signed()) - i128::from(first[0].cast_signed()))
        }
        (Function::Rate, class) => {
            let seconds = second[1]
                .cast_signed()
                .saturating_sub(first[1].cast_signed());
            if seconds <= 0 {
                return Value::Null;
            }
            let delta = if class == Class::Float {
                float(second[0]) - float(first[0])
            } else {
                let [first, second] = [first[0], second[0]].map(u64::cast_signed);
                (i128::from(second) - i128::from(first)) as f64
            };
            Value::Float(delta / (seconds as f64 / SECOND))
        }
        (Function::Stddev, _) => some(moments().deviation_sample()),
        (Function::StddevPop, _) => some(moments().deviation_population()),
        (Function::Var, _) => some(moments().variance_sample()),
        (Function::VarPop, _) => some(moments().variance_population()),
        (
            Function::Median
            | Function::Quantile
            | Function::TimeWeightedAvg
            | Function::ApproxCountDistinct,
            _,
        ) => match blocks.large.get(first[0]) {
            Some(Large::Digest(digest)) => some(digest.quantile(recipe.parameter)),
            Some(Large::Weighted(weighted)) => some(weighted.average(end)),
            Some(Large::Distinct(distinct)) => Value::Int(distinct.count().cast_signed()),
            _ => Value::Null,
        },
        (Function::Rows | Function::Count, _) => Value::Int(count.cast_signed()),
    }
}
