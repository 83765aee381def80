//! Decimal fields in files: float64 in memory, DECIMAL(18, scale) in Parquet, which is an integer
//! that delta encoding makes small. The way there and back is exact.
//!
//! Which columns of a layout are decimals is in their fields' metadata, so that one schema says
//! everything of a file's columns.

use std::{collections::HashMap, sync::Arc};

use arrow_array::{
    Array, ArrayRef, Decimal64Array, RecordBatch, cast::AsArray, types::Float64Type,
};
use arrow_buffer::ScalarBuffer;
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use quiver_model::{DecimalScale, StreamField};

use crate::{gather::Values, schema::DECIMAL_PRECISION};

/// Key of the metadata that has the scale of a column.
const SCALE: &str = "quiver.scale";

/// A value that its field cannot hold. Ingest refuses such values, so this is a mistake of the
/// caller.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotDecimal {
    #[error("value {value} of field {field} is no decimal with {digits} digits after the point")]
    Value {
        field: String,
        value: f64,
        digits: u8,
    },
    #[error(transparent)]
    Arrow(#[from] ArrowError),
}

/// `stored` with the scales of `fields` noted at their columns.
pub(crate) fn marked(stored: &SchemaRef, fields: &[StreamField]) -> SchemaRef {
    if fields.iter().all(|field| field.scale.is_none()) {
        return Arc::clone(stored);
    }
    let columns = stored.fields().iter().map(|column| {
        let field = fields
            .iter()
            .find(|field| field.name.as_str() == column.name());
        match field.and_then(|field| field.scale) {
            Some(scale) => {
                let note = HashMap::from([(SCALE.to_owned(), scale.digits().to_string())]);
                Arc::new(Field::clone(column).with_metadata(note))
            }
            None => Arc::clone(column),
        }
    });
    Arc::new(Schema::new(columns.collect::<Vec<_>>()))
}

/// The scale of a column that is a decimal.
pub(crate) fn scale_of(column: &Field) -> Option<DecimalScale> {
    let digits = column.metadata().get(SCALE)?;
    digits.parse().ok().and_then(DecimalScale::new)
}

/// Turns stored rows into what a file holds.
pub(crate) struct Decimals {
    schema: SchemaRef,
    scales: Vec<Option<DecimalScale>>,
}

impl Decimals {
    /// For rows of `layout`.
    pub(crate) fn of(layout: &SchemaRef) -> Self {
        let scales: Vec<_> = layout
            .fields()
            .iter()
            .map(|column| scale_of(column))
            .collect();
        let schema = if scales.iter().all(Option::is_none) {
            Arc::clone(layout)
        } else {
            let columns = layout.fields().iter().zip(&scales);
            let columns = columns.map(|(column, scale)| match scale {
                Some(scale) => Arc::new(Field::new(column.name(), decimal_type(*scale), true)),
                None => Arc::clone(column),
            });
            Arc::new(Schema::new(columns.collect::<Vec<_>>()))
        };
        Self { schema, scales }
    }

    /// The columns of the file.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The values of a column as the file holds them.
    pub(crate) fn replace(&self, column: usize, values: &mut Values) -> Result<(), NotDecimal> {
        let Some(scale) = self.scales.get(column).copied().flatten() else {
            return Ok(());
        };
        values.try_replace(|bits| {
            let value = f64::from_bits(bits);
            let scaled = scale.scaled(value).map(i64::cast_unsigned);
            scaled.ok_or_else(|| NotDecimal::Value {
                field: self.schema.field(column).name().clone(),
                value,
                digits: scale.digits(),
            })
        })
    }

    /// The rows as the file holds them.
    pub(crate) fn apply(&self, batch: &RecordBatch) -> Result<RecordBatch, NotDecimal> {
        if self.scales.iter().all(Option::is_none) {
            return Ok(batch.clone());
        }
        let columns = batch.columns().iter().zip(self.schema.fields());
        let columns = columns
            .zip(&self.scales)
            .map(|((column, field), scale)| match scale {
                Some(scale) => to_decimal(column, *scale, field.name()),
                None => Ok(Arc::clone(column)),
            });
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

fn decimal_type(scale: DecimalScale) -> DataType {
    DataType::Decimal64(DECIMAL_PRECISION, scale.digits().cast_signed())
}

/// The decimals of a float64 column.
pub(crate) fn to_decimal(
    column: &ArrayRef,
    scale: DecimalScale,
    field: &str,
) -> Result<ArrayRef, NotDecimal> {
    let floats = column
        .as_primitive_opt::<Float64Type>()
        .ok_or_else(|| ArrowError::SchemaError(format!("decimal field {field} is no float64")))?;
    let mut scaled = Vec::with_capacity(floats.len());
    for (row, value) in floats.values().iter().enumerate() {
        match scale.scaled(*value) {
            Some(value) => scaled.push(value),
            // What a null has in its slot does not matter.
            None if floats.is_null(row) => scaled.push(0),
            None => {
                return Err(NotDecimal::Value {
                    field: field.to_owned(),
                    value: *value,
                    digits: scale.digits(),
                });
            }
        }
    }
    let decimals = Decimal64Array::try_new(ScalarBuffer::from(scaled), floats.nulls().cloned())?
        .with_data_type(decimal_type(scale));
    Ok(Arc::new(decimals))
}
