//! Converts typed columns to types that are stored, without losing a digit: what cannot be held is
//! named with its row.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, Float64Array, Int64Array,
    cast::AsArray,
    types::{Float64Type, Int64Type, UInt64Type},
};
use arrow_cast::{CastOptions, cast_with_options, display::array_value_to_string};
use arrow_schema::{ArrowError, DataType};
use quiver_model::FieldType;

use super::decimal::{float, integer};

/// Decimal digits that float64 keeps, whatever they are.
const FLOAT_DIGITS: u8 = 15;

/// Why a column cannot be converted.
#[derive(Debug)]
pub(super) enum Loss {
    /// The value of this row, from 0, would become another one.
    Row(usize),
    /// There is no such conversion.
    Type(ArrowError),
}

impl From<ArrowError> for Loss {
    fn from(error: ArrowError) -> Self {
        Self::Type(error)
    }
}

/// `column` as `to`.
pub(super) fn convert(column: &ArrayRef, to: FieldType) -> Result<ArrayRef, Loss> {
    let decoded;
    let column = match column.data_type() {
        DataType::Dictionary(_, value_type) => {
            decoded = cast(column, value_type)?;
            &decoded
        }
        _ => column,
    };
    let from = column.data_type();
    if *from == to.arrow() {
        return Ok(Arc::clone(column));
    }
    let is_text = matches!(
        from,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
    );
    match to {
        FieldType::Float64 if from.is_decimal() => return decimals(column),
        FieldType::Float64 if is_text => {
            let values = each_text(column, |text| float(text.trim()))?;
            return Ok(Arc::new(Float64Array::from(values)));
        }
        FieldType::Int64 if is_text || from.is_decimal() => {
            let values = each_text(column, |text| integer(text.trim()))?;
            return Ok(Arc::new(Int64Array::from(values)));
        }
        _ => {}
    }
    let converted = cast(column, &to.arrow())?;
    // Asked once of the column: a call for each value costs more than the cast.
    let (nulls, nulls_after) = (column.logical_nulls(), converted.logical_nulls());
    let is_valid = |row| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
    let lost = |is_lost: &dyn Fn(usize) -> bool| {
        (0..column.len()).find(|row| is_valid(*row) && is_lost(*row))
    };
    let lost = match to {
        FieldType::Float64 if *from == DataType::UInt64 => {
            let whole = column.as_primitive::<UInt64Type>().values();
            lost(&|row| !is_kept(whole[row].into()))
        }
        FieldType::Float64 if from.is_integer() => {
            let whole = cast(column, &DataType::Int64)?;
            let whole = whole.as_primitive::<Int64Type>().values();
            lost(&|row| !is_kept(whole[row].into()))
        }
        FieldType::Int64 if from.is_floating() => {
            let floats = cast(column, &DataType::Float64)?;
            let floats = floats.as_primitive::<Float64Type>().values();
            let whole = converted.as_primitive::<Int64Type>().values();
            lost(&|row| whole[row] as f64 != floats[row])
        }
        _ => None,
    };
    // What has no such value became null.
    let gone = nulls_after.as_ref().and_then(|after| {
        let before = nulls.as_ref().map_or(0, |nulls| nulls.null_count());
        let is_gone = |row: &usize| after.is_null(*row) && is_valid(*row);
        (after.null_count() > before).then(|| (0..column.len()).find(is_gone))?
    });
    match lost.into_iter().chain(gone).min() {
        Some(row) => Err(Loss::Row(row)),
        None => Ok(converted),
    }
}

/// A value as an error shows it.
pub(super) fn shown(column: &ArrayRef, row: usize) -> String {
    array_value_to_string(column, row).unwrap_or_default()
}

/// What cannot be converted becomes null.
fn cast(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    let options = CastOptions {
        safe: true,
        ..CastOptions::default()
    };
    cast_with_options(column, to, &options)
}

/// Whether float64 holds a whole number.
fn is_kept(value: i128) -> bool {
    (value as f64) as i128 == value
}

fn each_text<T>(
    column: &ArrayRef,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Vec<Option<T>>, Loss> {
    let texts = cast(column, &DataType::Utf8)?;
    let texts = texts.as_string::<i32>().iter().enumerate();
    texts
        .map(|(row, text)| match text {
            None => Ok(None),
            Some(text) => read(text).map(Some).ok_or(Loss::Row(row)),
        })
        .collect()
}

/// Decimals as the nearest float64, which must be the same decimal with as many places.
fn decimals(column: &ArrayRef) -> Result<ArrayRef, Loss> {
    let (precision, scale) = match column.data_type() {
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => (*precision, *scale),
        _ => (0, 0),
    };
    if precision <= FLOAT_DIGITS && scale >= 0 {
        return Ok(cast(column, &DataType::Float64)?);
    }
    let places = usize::try_from(scale).unwrap_or(0);
    let values = each_text(column, |text| {
        let value: f64 = text.parse().ok()?;
        (format!("{value:.places$}") == text).then_some(value)
    })?;
    Ok(Arc::new(Float64Array::from(values)))
}

#[cfg(test)]
mod tests {
    use arrow_array::{Decimal128Array, StringArray, UInt64Array};

    use super::*;

    #[track_caller]
    fn check(column: impl Array + 'static, to: FieldType, lost: Option<usize>) {
        let column: ArrayRef = Arc::new(column);
        match (convert(&column, to), lost) {
            (Ok(converted), None) => assert_eq!(converted.len(), column.len()),
            (Err(Loss::Row(row)), Some(lost)) => assert_eq!(row, lost),
            (found, lost) => panic!("{found:?}, not {lost:?}"),
        }
    }

    #[test]
    fn what_would_become_another_value_is_found() {
        let (int, float) = (FieldType::Int64, FieldType::Float64);
        let large = 9_007_199_254_740_993;
        check(UInt64Array::from(vec![1, 1 << 63, 2]), int, Some(1));
        check(UInt64Array::from(vec![1, 1 << 63, 2]), float, None);
        check(UInt64Array::from(vec![1, u64::MAX]), float, Some(1));
        check(Int64Array::from(vec![None, Some(large)]), float, Some(1));
        check(Int64Array::from(vec![None, Some(large - 1)]), float, None);
        check(Float64Array::from(vec![1.0, 1.5]), int, Some(1));
        check(Float64Array::from(vec![1.0, f64::NAN]), int, Some(1));
        check(StringArray::from(vec!["1", "9007199254740993"]), int, None);
        check(
            StringArray::from(vec!["1", "9007199254740993"]),
            float,
            Some(1),
        );
        check(StringArray::from(vec!["007"]), FieldType::Utf8, None);
        let decimals = |values: Vec<i128>, precision, scale| {
            Decimal128Array::from(values)
                .with_precision_and_scale(precision, scale)
                .unwrap()
        };
        check(decimals(vec![1, -123_456_789], 12, 2), float, None);
        check(decimals(vec![10, -5, 0, 123_456], 38, 2), float, None);
        check(
            decimals(vec![1, 123_456_789_012_345_678_901], 38, 10),
            float,
            Some(1),
        );
        check(decimals(vec![100, 150], 10, 2), int, Some(1));
    }
}
