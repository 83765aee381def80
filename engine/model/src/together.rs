//! Rows of many small batches as one: a fleet sends them one by one, and each by itself would cost
//! what a thousand cost together.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, DictionaryArray, Int32Array, Int64Array, PrimitiveArray, RecordBatch,
    StringArray, TimestampMicrosecondArray,
    builder::{BooleanBuilder, StringBuilder},
    cast::AsArray,
    new_null_array,
    types::{ArrowPrimitiveType, Float64Type, Int64Type, TimestampMicrosecondType},
};
use arrow_buffer::NullBufferBuilder;
use arrow_schema::ArrowError;

use crate::{
    BatchPart, CheckedBatch, FieldType, Position, StreamSchema, Timestamp, recurring::Recurring,
    schema::FIXED_COLUMN_COUNT,
};

/// Rows, and the place of their record.
#[derive(Clone, Debug)]
pub struct Placed {
    /// The rows.
    pub part: BatchPart,
    /// Position of the record: of its first row as sent.
    pub first: Position,
    /// Record time.
    pub time: Timestamp,
}

impl CheckedBatch {
    /// The rows of `parts` as [`CheckedBatch::place`] would store them, one part after the other in
    /// one batch with the stored layout of `schema`.
    ///
    /// # Errors
    /// If a part is of another schema, or all of them are too large for one batch.
    pub fn place_together(
        schema: &Arc<StreamSchema>,
        parts: &[Placed],
    ) -> Result<RecordBatch, ArrowError> {
        if let [Placed { part, first, time }] = parts
            && part.rows().is_none()
        {
            return part.batch().place(*first, *time);
        }
        if let Some(other) = parts
            .iter()
            .find(|placed| placed.part.schema().id() != schema.id())
        {
            return Err(ArrowError::SchemaError(format!(
                "rows of schema {} cannot lie beside rows of schema {}",
                other.part.schema().id(),
                schema.id()
            )));
        }
        let rows = parts.iter().map(|placed| placed.part.row_count()).sum();
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
                .map(|(placed, next)| Piece::of(&placed.part, index, next))
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
    All(&'a ArrayRef),
    /// These of its rows.
    Some(&'a ArrayRef, &'a [u32]),
    /// So many rows without the field.
    Nulls(usize),
}

impl<'a> Piece<'a> {
    /// The piece of field `index`; `next` is where to look in the part's columns.
    fn of(part: &'a BatchPart, index: usize, next: &mut usize) -> Self {
        while let Some((present, column)) = part.batch().columns.get(*next)
            && *present <= index
        {
            *next += 1;
            if *present == index {
                return match part.rows() {
                    None => Self::All(column),
                    Some(rows) => Self::Some(column, rows),
                };
            }
        }
        Self::Nulls(part.row_count())
    }
}

/// Adds the values of these rows, or of all, each by what `of` makes of it.
fn extend<V: Copy, T>(
    to: &mut Vec<T>,
    values: &[V],
    rows: Option<&[u32]>,
    mut of: impl FnMut(V) -> T,
) {
    match rows {
        None => to.extend(values.iter().map(|value| of(*value))),
        Some(rows) => to.extend(rows.iter().map(|row| of(values[*row as usize]))),
    }
}

fn event_times(parts: &[Placed], rows: usize) -> TimestampMicrosecondArray {
    let mut times = Vec::with_capacity(rows);
    for Placed { part, .. } in parts {
        let own = part.batch().event_time.values();
        extend(&mut times, own, part.rows(), |time| time);
    }
    TimestampMicrosecondArray::from(times).with_timezone("UTC")
}

fn devices(
    parts: &[Placed],
    rows: usize,
) -> Result<DictionaryArray<arrow_array::types::Int32Type>, ArrowError> {
    const NEW: i32 = -1;
    let mut keys: Vec<i32> = Vec::with_capacity(rows);
    let mut names = Recurring::default();
    let mut translated = Vec::new();
    for Placed { part, .. } in parts {
        let device = &part.batch().device;
        let values = device.values().as_string::<i32>();
        // There are no more names than rows, and rows are counted in 32 bits.
        let mut key_of = |at: usize| names.number(values.value(at)) as i32;
        if values.len() == 1 {
            keys.extend(std::iter::repeat_n(key_of(0), part.row_count()));
            continue;
        }
        // Only the names of these rows.
        translated.clear();
        translated.resize(values.len(), NEW);
        extend(&mut keys, device.keys().values(), part.rows(), |key| {
            let key = key as usize;
            if translated[key] == NEW {
                translated[key] = key_of(key);
            }
            translated[key]
        });
    }
    let names = StringArray::from_iter_values(names.names());
    DictionaryArray::try_new(Int32Array::from(keys), Arc::new(names))
}

fn arrivals(parts: &[Placed], rows: usize) -> TimestampMicrosecondArray {
    let mut arrivals = Vec::with_capacity(rows);
    for Placed { part, time, .. } in parts {
        let time = time.as_micros();
        match (&part.batch().arrival, part.rows()) {
            (None, _) => arrivals.extend(std::iter::repeat_n(time, part.row_count())),
            (Some(stated), None) => {
                arrivals.extend(stated.iter().map(|stated| stated.unwrap_or(time)));
            }
            (Some(stated), Some(rows)) => arrivals.extend(rows.iter().map(|row| {
                let row = *row as usize;
                if stated.is_valid(row) {
                    stated.value(row)
                } else {
                    time
                }
            })),
        }
    }
    TimestampMicrosecondArray::from(arrivals).with_timezone("UTC")
}

fn positions(parts: &[Placed], rows: usize) -> Result<Int64Array, ArrowError> {
    let mut positions = Vec::with_capacity(rows);
    for Placed { part, first, .. } in parts {
        let first = i64::try_from(first.get())
            .map_err(|_| ArrowError::ComputeError("position beyond 2^63".into()))?;
        let at = |offset: u32| first + i64::from(offset);
        match (&part.batch().offsets, part.rows()) {
            (Some(offsets), rows) => extend(&mut positions, offsets.values(), rows, at),
            (None, Some(rows)) => positions.extend(rows.iter().map(|row| at(*row))),
            (None, None) => positions.extend(first..first + part.row_count() as i64),
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
        FieldType::Int64 => Arc::new(numbers::<Int64Type>(pieces, rows)?),
        FieldType::Float64 => Arc::new(numbers::<Float64Type>(pieces, rows)?),
        FieldType::Timestamp => {
            Arc::new(numbers::<TimestampMicrosecondType>(pieces, rows)?.with_timezone("UTC"))
        }
        FieldType::Bool => {
            let mut builder = BooleanBuilder::with_capacity(rows);
            for piece in pieces {
                match piece {
                    Piece::Nulls(count) => builder.append_nulls(*count),
                    Piece::All(column) => {
                        builder.append_array(column.as_boolean_opt().ok_or_else(wrong_type)?);
                    }
                    Piece::Some(column, rows) => {
                        let column = column.as_boolean_opt().ok_or_else(wrong_type)?;
                        for row in rows.iter().map(|row| *row as usize) {
                            builder.append_option(column.is_valid(row).then(|| column.value(row)));
                        }
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
                    Piece::All(column) => {
                        builder.append_array(column.as_string_opt().ok_or_else(wrong_type)?)?;
                    }
                    Piece::Some(column, rows) => {
                        let column = column.as_string_opt::<i32>().ok_or_else(wrong_type)?;
                        for row in rows.iter().map(|row| *row as usize) {
                            builder.append_option(column.is_valid(row).then(|| column.value(row)));
                        }
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
) -> Result<PrimitiveArray<T>, ArrowError> {
    let mut values: Vec<T::Native> = Vec::with_capacity(rows);
    let mut nulls = NullBufferBuilder::new(rows);
    for piece in pieces {
        let (column, rows) = match piece {
            Piece::Nulls(count) => {
                values.extend(std::iter::repeat_n(T::Native::default(), *count));
                nulls.append_n_nulls(*count);
                continue;
            }
            Piece::All(column) => (column, None),
            Piece::Some(column, rows) => (column, Some(*rows)),
        };
        let column = column.as_primitive_opt::<T>().ok_or_else(wrong_type)?;
        extend(&mut values, column.values(), rows, |value| value);
        match (column.nulls(), rows) {
            (Some(own), None) => nulls.append_buffer(own),
            (Some(own), Some(rows)) => {
                for row in rows {
                    nulls.append(own.is_valid(*row as usize));
                }
            }
            (None, rows) => nulls.append_n_non_nulls(rows.map_or(column.len(), <[u32]>::len)),
        }
    }
    PrimitiveArray::<T>::try_new(values.into(), nulls.finish())
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
            field("seen", FieldType::Timestamp),
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
                (
                    4,
                    Arc::new(
                        TimestampMicrosecondArray::from(vec![Some(-5), None, Some(0)])
                            .with_timezone("UTC"),
                    ),
                ),
            ],
            Some(vec![0, 2, 3]),
        );
        let three = batch(&[13], device(&["a"], &[0]), None, vec![], None);
        let place = |batch: CheckedBatch, first, time| Placed {
            part: batch.into(),
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
            .map(|part| part.part.batch().place(part.first, part.time).unwrap())
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

    /// Rows of a stored batch, the devices as text.
    fn text(rows: &RecordBatch) -> Vec<Vec<String>> {
        let options = arrow_cast::display::FormatOptions::default().with_null("null");
        let columns: Vec<_> = rows
            .columns()
            .iter()
            .map(|column| {
                arrow_cast::display::ArrayFormatter::try_new(column.as_ref(), &options).unwrap()
            })
            .collect();
        (0..rows.num_rows())
            .map(|row| {
                let value = |column: &arrow_cast::display::ArrayFormatter<'_>| {
                    column.value(row).to_string()
                };
                columns.iter().map(value).collect()
            })
            .collect()
    }

    #[test]
    fn the_shards_parts_are_the_rows_of_the_batch() {
        let schema = schema();
        let names = ["a", "b", "c", "d", "e", "f", "g"];
        let rows = 40_usize;
        let some = |row: usize| (!row.is_multiple_of(3)).then_some(row);
        let batch = CheckedBatch::new(
            schema.clone(),
            rows as u32 + 3,
            times(&(0..rows as i64).map(|row| row * 7 % 13).collect::<Vec<_>>()),
            device(
                &names,
                &(0..rows).map(|row| (row % 7) as i32).collect::<Vec<_>>(),
            ),
            Some(
                (0..rows)
                    .map(|row| some(row).map(|row| row as i64))
                    .collect::<TimestampMicrosecondArray>()
                    .with_timezone("UTC"),
            ),
            vec![
                (
                    0,
                    Arc::new(Float64Array::from_iter(
                        (0..rows).map(|row| some(row).map(|row| row as f64)),
                    )) as ArrayRef,
                ),
                (1, Arc::new(Int64Array::from_iter_values(0..rows as i64))),
                (
                    2,
                    Arc::new(arrow_array::BooleanArray::from_iter(
                        (0..rows).map(|row| some(row).map(|row| row < 20)),
                    )),
                ),
                (
                    3,
                    Arc::new(StringArray::from_iter(
                        (0..rows).map(|row| some(row).map(|row| "x".repeat(row))),
                    )),
                ),
                (
                    4,
                    Arc::new(
                        (0..rows)
                            .map(|row| some(row).map(|row| -(row as i64)))
                            .collect::<TimestampMicrosecondArray>()
                            .with_timezone("UTC"),
                    ),
                ),
            ],
            Some((0..rows as u32).map(|row| row + row / 15).collect()),
        );
        let whole = batch.place(Position(100), Timestamp(1_000)).unwrap();
        let parts = batch.clone().split_by_shard(4);
        assert!(parts.len() > 1, "of several shards");
        let mut seen = Vec::new();
        let mut points = 0;
        for (shard, part) in &parts {
            let placed = part.place(Position(100), Timestamp(1_000)).unwrap();
            assert_eq!(placed.num_rows(), part.row_count());
            let names = placed.column(1).as_any_dictionary();
            for name in names.values().as_string::<i32>().iter().flatten() {
                assert_eq!(crate::Partition::of_str(name).shard(4), *shard, "{name}");
            }
            // What is reserved is what they take.
            let bytes: usize = placed
                .columns()
                .iter()
                .map(|column| crate::array_bytes(column.as_ref()))
                .sum();
            assert_eq!(part.memory_size(), bytes);
            points += part.point_count();
            seen.extend(text(&placed));
        }
        assert_eq!(points, batch.point_count());
        let mut expected = text(&whole);
        seen.sort();
        expected.sort();
        assert_eq!(seen, expected);

        // Beside others, a part is what it is alone.
        let placed: Vec<Placed> = parts
            .iter()
            .zip(1..)
            .map(|((_, part), number)| Placed {
                part: part.clone(),
                first: Position(number * 1_000),
                time: Timestamp(5),
            })
            .collect();
        let together = CheckedBatch::place_together(&schema, &placed).unwrap();
        let each: Vec<_> = placed
            .iter()
            .flat_map(|placed| text(&placed.part.place(placed.first, placed.time).unwrap()))
            .collect();
        assert_eq!(text(&together), each);
    }

    #[test]
    fn rows_of_another_schema_are_refused() {
        let schema = schema();
        let stream = StreamName::new("readings").unwrap();
        let other = Arc::new(StreamSchema::new(stream, SchemaId(8), Vec::new()).unwrap());
        assert!(CheckedBatch::place_together(&other, &parts(&schema)).is_err());
    }
}
