//! Some rows of a column. A gateway's batch is dealt out to shards row by row, and is small: what a
//! general kernel does around its loop costs more than the loop.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType, DictionaryArray, Int32Array, PrimitiveArray, StringArray,
    UInt32Array,
    cast::AsArray,
    types::{Float64Type, Int32Type, Int64Type},
};
use arrow_schema::{ArrowError, DataType};
use arrow_select::take::take;

/// Rows `rows` of a field's column.
pub(crate) fn gather_column(column: &ArrayRef, rows: &UInt32Array) -> Result<ArrayRef, ArrowError> {
    match column.data_type() {
        DataType::Float64 => Ok(Arc::new(gather::<Float64Type>(
            column.as_primitive(),
            rows,
        )?)),
        DataType::Int64 => Ok(Arc::new(gather::<Int64Type>(column.as_primitive(), rows)?)),
        _ => take(column, rows, None),
    }
}

/// Rows `rows` of numbers or times.
pub(crate) fn gather<T: ArrowPrimitiveType>(
    column: &PrimitiveArray<T>,
    rows: &UInt32Array,
) -> Result<PrimitiveArray<T>, ArrowError> {
    if column.null_count() > 0 {
        return Ok(take(column, rows, None)?.as_primitive().clone());
    }
    let values = column.values();
    let gathered: Vec<T::Native> = rows
        .values()
        .iter()
        .map(|row| values[*row as usize])
        .collect();
    Ok(PrimitiveArray::<T>::new(gathered.into(), None).with_data_type(column.data_type().clone()))
}

/// Rows `rows` of devices, none of which is null, with the names of these rows only: others would
/// take memory again in each part.
pub(crate) fn gather_names(
    devices: &DictionaryArray<Int32Type>,
    rows: &UInt32Array,
) -> Result<DictionaryArray<Int32Type>, ArrowError> {
    const NEW: i32 = -1;
    let (keys, names) = (devices.keys().values(), devices.values().as_string::<i32>());
    let mut renumbered = vec![NEW; names.len()];
    let mut kept: Vec<&str> = Vec::new();
    let gathered: Vec<i32> = rows
        .values()
        .iter()
        .map(|row| {
            let key = keys[*row as usize] as usize;
            if renumbered[key] == NEW {
                renumbered[key] = kept.len() as i32;
                kept.push(names.value(key));
            }
            renumbered[key]
        })
        .collect();
    let names = StringArray::from_iter_values(kept);
    DictionaryArray::try_new(Int32Array::from(gathered), Arc::new(names))
}

#[cfg(test)]
mod tests {
    use arrow_array::{BooleanArray, Float64Array, Int64Array, TimestampMicrosecondArray};

    use super::*;

    #[test]
    fn it_is_what_arrow_takes() {
        let rows = UInt32Array::from(vec![4, 0, 2]);
        let none = UInt32Array::from(Vec::<u32>::new());
        let columns: [ArrayRef; 6] = [
            Arc::new(Float64Array::from(vec![1.0, f64::NAN, -0.0, 4.0, 5.5])),
            Arc::new(Float64Array::from(vec![
                None,
                Some(1.0),
                Some(2.0),
                None,
                None,
            ])),
            Arc::new(Int64Array::from(vec![1, 2, 3, 4, 5])),
            Arc::new(Int64Array::from(vec![0, 1, 2, 3, 4, 5]).slice(1, 5)),
            Arc::new(BooleanArray::from(vec![true, false, true, true, false])),
            Arc::new(StringArray::from(vec!["a", "b", "c", "d", "e"])),
        ];
        for column in columns {
            for rows in [&rows, &none] {
                let taken = take(&column, rows, None).unwrap();
                assert_eq!(&gather_column(&column, rows).unwrap(), &taken);
            }
        }
        let times = TimestampMicrosecondArray::from(vec![1, 2, 3, 4, 5]).with_timezone("UTC");
        let gathered = gather(&times, &rows).unwrap();
        assert_eq!(gathered.values(), &[5, 1, 3]);
        assert_eq!(gathered.data_type(), times.data_type());
    }

    #[test]
    fn only_the_names_of_the_rows_are_kept() {
        let names = Arc::new(StringArray::from(vec!["a", "b", "c"]));
        let devices =
            DictionaryArray::try_new(Int32Array::from(vec![0, 1, 2, 2, 1]), names).unwrap();
        let gathered = gather_names(&devices, &UInt32Array::from(vec![4, 2, 3, 1])).unwrap();
        assert_eq!(gathered.keys().values(), &[0, 1, 1, 0]);
        let names: Vec<&str> = gathered
            .values()
            .as_string::<i32>()
            .iter()
            .flatten()
            .collect();
        assert_eq!(names, ["b", "c"]);
    }
}
