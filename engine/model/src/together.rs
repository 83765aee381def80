//! Rows of many small batches as one: a fleet sends them one by one, and each by itself would cost
//! what a thousand cost together.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, DictionaryArray, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
    builder::{BooleanBuilder, PrimitiveBuilder, StringBuilder},
    cast::AsArray,
    new_null_array,
    types::{ArrowPrimitiveType, Float64Type, Int64Type},
};
use arrow_schema::ArrowError;

use crate::{
    CheckedBatch, FieldType, Position, StreamSchema, Timestamp, recurring::Recurring,
    schema::FIXED_COLUMN_COUNT,
};

/// A batch and the place of its record.
#[derive(Clone, Debug)]
pub struct Placed {
    /// The rows.
    pub batch: CheckedBatch,
    /// Position of the record: of its first row as sent.
    pub first: Position,
    /// Record time.
    pub time: Timestamp,
}

impl CheckedBatch {
    /// The rows of `parts` as [`CheckedBatch::place`] would store each of them, one after the other
    /// in one batch with the stored layout of `schema`.
    ///
    /// # Errors
    /// If a part is of another schema, or all of them are too large for one batch.
    pub fn place_together(
        schema: &Arc<StreamSchema>,
        parts: &[Placed],
    ) -> Result<RecordBatch, ArrowError> {
        if let [Placed { batch, first, time }] = parts {
            return batch.place(*first, *time);
        }
        if let Some(other) = parts
            .iter()
            .find(|part| part.batch.schema.id() != schema.id())
        {
            return Err(ArrowError::SchemaError(format!(
                "rows of schema {} cannot lie beside rows of schema {}",
                other.batch.schema.id(),
                schema.id()
            )));
        }
        let rows = parts.iter().map(|part| part.batch.row_count()).sum();
        let mut columns: Vec<ArrayRef> =
            Vec::with_capacity(FIXED_COLUMN_COUNT + schema.fields().len());
        columns.push(Arc::new(event_times(parts, rows)));
        columns.push(Arc::new(devices(parts, rows)?));
        columns.push(Arc::new(arrivals(parts, rows)));
        columns.push(Arc::new(positions(parts, rows)?));
        // Where each part's next column is: they ascend by index.
        let mut next = vec![0; parts.len()];
        for (index, field) in schema.fields().iter().enumerate() {
            let pieces: Vec<Piece<'_>> = parts
                .iter()
                .zip(&mut next)
                .map(|(part, next)| Piece::of(&part.batch, index, next))
                .collect();
            columns.push(
                if pieces.iter().all(|piece| matches!(piece, Piece::Nulls(_))) {
                    new_null_array(&field.field_type.arrow(), rows)
                } else {
                    joined(field.field_type, &pieces, rows)?
                },
            );
        }
        RecordBatch::try_new(schema.stored().clone(), columns)
    }
}

/// A part's piece of a column.
enum Piece<'a> {
    Values(&'a ArrayRef),
    /// So many rows without the field.
    Nulls(usize),
}

impl<'a> Piece<'a> {
    /// The piece of field `index`; `next` is where to look in the part's columns.
    fn of(batch: &'a CheckedBatch, index: usize, next: &mut usize) -> Self {
        while let Some((present, column)) = batch.columns.get(*next)
            && *present <= index
        {
            *next += 1;
            if *present == index {
                return Self::Values(column);
            }
        }
        Self::Nulls(batch.row_count())
    }
}

fn event_times(parts: &[Placed], rows: usize) -> TimestampMicrosecondArray {
    let mut times = Vec::with_capacity(rows);
    for part in parts {
        times.extend_from_slice(part.batch.event_time.values());
    }
    TimestampMicrosecondArray::from(times).with_timezone("UTC")
}

fn devices(
    parts: &[Placed],
    rows: usize,
) -> Result<DictionaryArray<arrow_array::types::Int32Type>, ArrowError> {
    let mut keys: Vec<i32> = Vec::with_capacity(rows);
    let mut names = Recurring::default();
    // There are no more names than rows, and rows are counted in 32 bits.
    let mut key_of = |name| names.number(name) as i32;
    for part in parts {
        let device = &part.batch.device;
        let values = device.values().as_string::<i32>();
        if values.len() == 1 {
            let key = key_of(values.value(0));
            keys.extend(std::iter::repeat_n(key, device.len()));
            continue;
        }
        let translated: Vec<i32> = (0..values.len())
            .map(|at| key_of(values.value(at)))
            .collect();
        keys.extend(
            device
                .keys()
                .values()
                .iter()
                .map(|key| translated[*key as usize]),
        );
    }
    let names = StringArray::from_iter_values(names.names());
    DictionaryArray::try_new(Int32Array::from(keys), Arc::new(names))
}

fn arrivals(parts: &[Placed], rows: usize) -> TimestampMicrosecondArray {
    let mut arrivals = Vec::with_capacity(rows);
    for Placed { batch, time, .. } in parts {
        let time = time.as_micros();
        match &batch.arrival {
            None => arrivals.extend(std::iter::repeat_n(time, batch.row_count())),
            Some(stated) => arrivals.extend(stated.iter().map(|stated| stated.unwrap_or(time))),
        }
    }
    TimestampMicrosecondArray::from(arrivals).with_timezone("UTC")
}

fn positions(parts: &[Placed], rows: usize) -> Result<Int64Array, ArrowError> {
    let mut positions = Vec::with_capacity(rows);
    for Placed { batch, first, .. } in parts {
        let first = i64::try_from(first.get())
            .map_err(|_| ArrowError::ComputeError("position beyond 2^63".into()))?;
        match &batch.offsets {
            None => positions.extend(first..first + batch.row_count() as i64),
            Some(offsets) => {
                positions.extend(
                    offsets
                        .values()
                        .iter()
                        .map(|offset| first + i64::from(*offset)),
                );
            }
        }
    }
    Ok(positions.into())
}

fn joined(
    field_type: FieldType,
    pieces: &[Piece<'_>],
    rows: usize,
) -> Result<ArrayRef, ArrowError> {
    Ok(match field_type {
        FieldType::Int64 => numbers::<Int64Type>(pieces, rows)?,
        FieldType::Float64 => numbers::<Float64Type>(pieces, rows)?,
        FieldType::Bool => {
            let mut builder = BooleanBuilder::with_capacity(rows);
            for piece in pieces {
                match piece {
                    Piece::Nulls(count) => builder.append_nulls(*count),
                    Piece::Values(column) => {
                        builder.append_array(column.as_boolean_opt().ok_or_else(wrong_type)?);
                    }
                }
            }
            Arc::new(builder.finish())
        }
        FieldType::Utf8 => {
            let mut builder = StringBuilder::new();
            for piece in pieces {
                match piece {
                    Piece::Nulls(count) => builder.append_nulls(*count),
                    Piece::Values(column) => {
                        builder.append_array(column.as_string_opt().ok_or_else(wrong_type)?)?;
                    }
                }
            }
            Arc::new(builder.finish())
        }
    })
}

fn numbers<T: ArrowPrimitiveType>(
    pieces: &[Piece<'_>],
    rows: usize,
) -> Result<ArrayRef, ArrowError> {
    let mut builder = PrimitiveBuilder::<T>::with_capacity(rows);
    for piece in pieces {
        match piece {
            Piece::Nulls(count) => builder.append_nulls(*count),
            Piece::Values(column) => {
                builder.append_array(column.as_primitive_opt().ok_or_else(wrong_type)?);
            }
        }
    }
    Ok(Arc::new(builder.finish()))
}

fn wrong_type() -> ArrowError {
    ArrowError::SchemaError("a column is not of its field's stored type".to_owned())
}

#[cfg(test)]
mod tests {
    use arrow_array::{Float64Array, UInt32Array};
    use arrow_select::concat::concat_batches;

    use super::*;
    use crate::{FieldName, SchemaId, StreamField, StreamName};

    fn schema() -> Arc<StreamSchema> {
        let field = |name: &str, of| StreamField::new(FieldName::new(name).unwrap(), of);
        let fields = vec![
            field("speed", FieldType::Float64),
            field("count", FieldType::Int64),
            field("on", FieldType::Bool),
            field("note", FieldType::Utf8),
        ];
        let stream = StreamName::new("readings").unwrap();
        Arc::new(StreamSchema::new(stream, SchemaId(7), fields).unwrap())
    }

    fn device(names: &[&str], keys: &[i32]) -> DictionaryArray<arrow_array::types::Int32Type> {
        let names = StringArray::from_iter_values(names);
        DictionaryArray::try_new(Int32Array::from(keys.to_vec()), Arc::new(names)).unwrap()
    }

    fn times(values: &[i64]) -> TimestampMicrosecondArray {
        TimestampMicrosecondArray::from(values.to_vec()).with_timezone("UTC")
    }

    /// Every way in which a batch may differ: columns that are missing, nulls, arrivals that are
    /// stated, rows that were refused, several devices, devices that come again.
    fn parts(schema: &Arc<StreamSchema>) -> Vec<Placed> {
        let batch = |event: &[i64], device, arrival, columns, offsets: Option<Vec<u32>>| {
            CheckedBatch::new(
                schema.clone(),
                event.len() as u32 + 1,
                times(event),
                device,
                arrival,
                columns,
                offsets.map(UInt32Array::from),
            )
        };
        let one = batch(
            &[10],
            device(&["a"], &[0]),
            None,
            vec![
                (0, Arc::new(Float64Array::from(vec![1.5])) as ArrayRef),
                (3, Arc::new(StringArray::from(vec![Some("x")]))),
            ],
            None,
        );
        let two = batch(
            &[11, 9, 12],
            device(&["b", "a"], &[0, 1, 0]),
            Some(
                TimestampMicrosecondArray::from(vec![Some(3), None, Some(5)]).with_timezone("UTC"),
            ),
            vec![
                (
                    0,
                    Arc::new(Float64Array::from(vec![None, Some(2.0), None])) as ArrayRef,
                ),
                (
                    2,
                    Arc::new(arrow_array::BooleanArray::from(vec![
                        Some(true),
                        None,
                        Some(false),
                    ])),
                ),
            ],
            Some(vec![0, 2, 3]),
        );
        let three = batch(&[13], device(&["a"], &[0]), None, vec![], None);
        let place = |batch, first, time| Placed {
            batch,
            first: Position(first),
            time: Timestamp(time),
        };
        vec![
            place(one, 100, 1_000),
            place(two, 102, 1_001),
            place(three, 106, 1_002),
        ]
    }

    #[test]
    fn together_is_what_each_is_alone() {
        let schema = schema();
        let parts = parts(&schema);
        let together = CheckedBatch::place_together(&schema, &parts).unwrap();
        let each: Vec<RecordBatch> = parts
            .iter()
            .map(|part| part.batch.place(part.first, part.time).unwrap())
            .collect();
        let expected = concat_batches(schema.stored(), &each).unwrap();
        assert_eq!(together.num_rows(), 5);
        for (column, expected) in together.columns().iter().zip(expected.columns()) {
            // Dictionaries may number their names differently.
            let text = |array: &ArrayRef| -> Vec<String> {
                let options = arrow_cast::display::FormatOptions::default().with_null("null");
                let formatter =
                    arrow_cast::display::ArrayFormatter::try_new(array, &options).unwrap();
                (0..array.len())
                    .map(|row| formatter.value(row).to_string())
                    .collect()
            };
            assert_eq!(text(column), text(expected));
        }
        assert_eq!(together.column(1).as_any_dictionary().values().len(), 2);
    }

    #[test]
    fn rows_of_another_schema_are_refused() {
        let schema = schema();
        let stream = StreamName::new("readings").unwrap();
        let other = Arc::new(StreamSchema::new(stream, SchemaId(8), Vec::new()).unwrap());
        assert!(CheckedBatch::place_together(&other, &parts(&schema)).is_err());
    }
}
