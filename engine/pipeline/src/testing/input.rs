//! Rows of a test as rows of a stream.

use std::{collections::BTreeMap, sync::Arc};

use arrow_array::{
    ArrayRef, BooleanArray, DictionaryArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, types::Int32Type,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use quiver_model::{ARRIVAL, DEVICE, POSITION, TS};

use crate::{
    config::{InputRow, Step, TestConfig},
    execute::Rows,
    graph::{Columns, time_type},
    source::{Located, Place},
    testing::time,
    value::Value,
};

/// The device of rows that name none.
const NO_DEVICE: &str = "device_1";

/// What is wrong with a row, and where.
pub(crate) type Problem = (Place, String);

/// A row with its times.
pub(crate) struct TimedRow<'a> {
    pub(crate) ts: Option<i64>,
    pub(crate) arrival: Option<i64>,
    pub(crate) device: &'a str,
}

/// Times and device of a row.
pub(crate) fn timed(row: &InputRow, start: i64) -> Result<TimedRow<'_>, Problem> {
    let column = |name: &str| {
        let found = row.columns.iter().find(|(column, _)| column.value == name);
        found.map(|(_, value)| value)
    };
    let at = |name: &str| match column(name) {
        None => Ok(None),
        Some(value) => match time::parse(&value.value, start) {
            Ok(micros) => Ok(Some(micros)),
            Err(problem) => Err((value.place.clone(), problem)),
        },
    };
    let device = match column(DEVICE) {
        None => NO_DEVICE,
        Some(Located {
            value: Value::Text(text),
            ..
        }) => text.value.as_str(),
        Some(value) => return Err((value.place.clone(), "a device is a text".to_owned())),
    };
    Ok(TimedRow {
        ts: at(TS)?,
        arrival: at(ARRIVAL)?,
        device,
    })
}

/// The fields of each stream that a test has rows of: those that are declared, and others as the
/// rows of the whole test have them.
pub(crate) fn schemas(
    test: &TestConfig,
    declared: impl Fn(&str) -> Columns,
) -> Result<BTreeMap<String, SchemaRef>, Problem> {
    let mut fields: BTreeMap<String, Vec<(String, DataType)>> = BTreeMap::new();
    for step in &test.steps {
        let Step::Input { stream, rows } = &step.value else {
            continue;
        };
        let known = fields
            .entry(stream.as_str().to_owned())
            .or_insert_with(|| declared(stream.as_str()).fields);
        for (name, value) in rows.iter().flat_map(|row| &row.columns) {
            if [TS, DEVICE, ARRIVAL].contains(&name.value.as_str()) {
                continue;
            }
            if name.value == POSITION {
                let problem = "positions are given by the log".to_owned();
                return Err((name.place.clone(), problem));
            }
            let data_type = match &value.value {
                Value::Text(_) => DataType::Utf8,
                Value::Integer(_) => DataType::Int64,
                Value::Float(_) => DataType::Float64,
                Value::Boolean(_) => DataType::Boolean,
                Value::Time(_) => time_type(),
                Value::Table(table) if table.entries.is_empty() => continue,
                other => {
                    let problem = format!("`{}` is {}", name.value, other.word());
                    return Err((value.place.clone(), problem));
                }
            };
            match known.iter_mut().find(|(field, _)| *field == name.value) {
                None => known.push((name.value.clone(), data_type)),
                Some((_, DataType::Float64)) if data_type == DataType::Int64 => {}
                Some((_, field)) if *field == DataType::Int64 && data_type == DataType::Float64 => {
                    if declared(stream.as_str())
                        .fields
                        .iter()
                        .any(|(field, _)| *field == name.value)
                    {
                        let problem =
                            format!("`{}` is int64 in stream `{}`", name.value, stream.as_str());
                        return Err((value.place.clone(), problem));
                    }
                    *field = DataType::Float64;
                }
                // A time may be written as a text.
                Some((_, DataType::Timestamp(..))) if data_type == DataType::Utf8 => {}
                Some((_, field)) if *field != data_type => {
                    let problem = format!(
                        "`{}` is {} here, and {field} elsewhere in stream `{}`",
                        name.value,
                        data_type,
                        stream.as_str()
                    );
                    return Err((value.place.clone(), problem));
                }
                Some(_) => {}
            }
        }
    }
    let schema = |(stream, fields): (String, Vec<(String, DataType)>)| {
        let mut all = vec![
            Field::new(TS, time_type(), false),
            Field::new(
                DEVICE,
                DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
                false,
            ),
            Field::new(ARRIVAL, time_type(), false),
            Field::new(POSITION, DataType::Int64, false),
        ];
        all.extend(
            fields
                .into_iter()
                .map(|(name, data_type)| Field::new(name, data_type, true)),
        );
        (stream, Arc::new(Schema::new(all)))
    };
    Ok(fields.into_iter().map(schema).collect())
}

/// A row with the time at which it arrives, in microseconds since 1970.
pub(crate) struct Arriving<'a> {
    pub(crate) row: &'a InputRow,
    pub(crate) device: &'a str,
    pub(crate) ts: i64,
    pub(crate) arrival: i64,
}

/// Rows of a stream, at positions from `position`.
pub(crate) fn rows(
    arriving: &[Arriving<'_>],
    schema: &SchemaRef,
    position: i64,
    start: i64,
) -> Result<Rows, Problem> {
    let nowhere = || Place {
        file: 0,
        span: 0..0,
    };
    let place = arriving
        .first()
        .map_or_else(nowhere, |row| row.row.place.clone());
    let times = |of: fn(&Arriving<'_>) -> i64| -> ArrayRef {
        let times: Vec<i64> = arriving.iter().map(of).collect();
        Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"))
    };
    let devices: DictionaryArray<Int32Type> = arriving.iter().map(|row| Some(row.device)).collect();
    let positions = position..position.saturating_add(arriving.len() as i64);
    let mut columns: Vec<ArrayRef> = vec![
        times(|row| row.ts),
        Arc::new(devices),
        times(|row| row.arrival),
        Arc::new(Int64Array::from_iter_values(positions)),
    ];
    for field in schema.fields().iter().skip(columns.len()) {
        columns.push(column(arriving, field, start)?);
    }
    RecordBatch::try_new(Arc::clone(schema), columns)
        .map_err(|error| (place.clone(), error.to_string()))
        .and_then(|batch| Rows::new(batch).map_err(|error| (place, error.to_string())))
}

fn column(arriving: &[Arriving<'_>], field: &Field, start: i64) -> Result<ArrayRef, Problem> {
    let values = arriving.iter().map(|row| {
        let columns = row.row.columns.iter();
        let mut found = columns.filter(|(name, _)| name.value == *field.name());
        found
            .next()
            .map(|(_, value)| value)
            .filter(|value| !matches!(&value.value, Value::Table(_)))
    });
    let wrong = |value: &Located<Value>| {
        let problem = format!(
            "`{}` is {}, and the stream's field is {}",
            field.name(),
            value.value.word(),
            field.data_type()
        );
        (value.place.clone(), problem)
    };
    Ok(match field.data_type() {
        DataType::Int64 => {
            let read = |value: Option<&Located<Value>>| match value {
                None => Ok(None),
                Some(Located {
                    value: Value::Integer(number),
                    ..
                }) => Ok(Some(*number)),
                Some(value) => Err(wrong(value)),
            };
            Arc::new(values.map(read).collect::<Result<Int64Array, _>>()?)
        }
        DataType::Float64 => {
            let read = |value: Option<&Located<Value>>| match value {
                None => Ok(None),
                Some(value) => match value.value {
                    Value::Integer(number) => Ok(Some(number as f64)),
                    Value::Float(number) => Ok(Some(number)),
                    _ => Err(wrong(value)),
                },
            };
            Arc::new(values.map(read).collect::<Result<Float64Array, _>>()?)
        }
        DataType::Boolean => {
            let read = |value: Option<&Located<Value>>| match value {
                None => Ok(None),
                Some(Located {
                    value: Value::Boolean(is_true),
                    ..
                }) => Ok(Some(*is_true)),
                Some(value) => Err(wrong(value)),
            };
            Arc::new(values.map(read).collect::<Result<BooleanArray, _>>()?)
        }
        DataType::Timestamp(..) => {
            let read = |value: Option<&Located<Value>>| match value {
                None => Ok(None),
                Some(value) => time::parse(&value.value, start)
                    .map(Some)
                    .map_err(|problem| (value.place.clone(), problem)),
            };
            let times = values
                .map(read)
                .collect::<Result<TimestampMicrosecondArray, _>>()?;
            Arc::new(times.with_timezone("UTC"))
        }
        _ => {
            let read = |value: Option<&Located<Value>>| match value {
                None => Ok(None),
                Some(Located {
                    value: Value::Text(text),
                    ..
                }) => Ok(Some(text.value.clone())),
                Some(value) => Err(wrong(value)),
            };
            Arc::new(values.map(read).collect::<Result<StringArray, _>>()?)
        }
    })
}
