//! A schema message, read by an allow-list of types.

use std::sync::Arc;

use arrow_ipc::{
    Endianness, Field as WireField, Int, MessageHeader, Precision, TimeUnit as WireUnit, Type,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use bytes::Bytes;
use quiver_model::{BatchRefusal, RejectCode};

use super::guard::{malformed, open, too_large};
use crate::limits::{COLUMN_NAME_BYTES_MAX, DecodeLimits, TIME_ZONE_BYTES_MAX};

/// A schema, and which dictionary each column takes its values from.
#[derive(Clone, Debug)]
pub(crate) struct SchemaPlan {
    pub schema: SchemaRef,
    /// By column: the id of its dictionary, if it has one.
    pub dictionary_ids: Vec<Option<i64>>,
}

impl SchemaPlan {
    /// The plan for messages that stand alone.
    pub(crate) fn without_dictionaries(schema: &SchemaRef) -> Result<Self, BatchRefusal> {
        for field in schema.fields() {
            if !is_allowed(field.data_type()) {
                return Err(unsupported(field.name(), &format!("{}", field.data_type())));
            }
            if matches!(field.data_type(), DataType::Dictionary(..)) {
                return Err(malformed(format!(
                    "column {:?} takes its values from a dictionary, so the batch does not stand alone",
                    field.name()
                )));
            }
        }
        Ok(Self {
            schema: Arc::clone(schema),
            dictionary_ids: vec![None; schema.fields().len()],
        })
    }

    /// Whether a record batch message decodes with nothing but its schema.
    pub(crate) fn is_self_contained(&self) -> bool {
        self.dictionary_ids.iter().all(Option::is_none)
    }
}

/// Whether telemetry may have columns of this type.
pub(crate) fn is_allowed(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(key, value) => {
            key.is_dictionary_key_type() && matches!(**value, DataType::Utf8 | DataType::LargeUtf8)
        }
        other => {
            fixed_width(other).is_some()
                || matches!(
                    other,
                    DataType::Utf8 | DataType::LargeUtf8 | DataType::Boolean | DataType::Null
                )
        }
    }
}

/// Bytes of one value of an allowed type whose values have a fixed number of bytes.
pub(crate) fn fixed_width(data_type: &DataType) -> Option<usize> {
    match data_type {
        DataType::Int8 | DataType::UInt8 => Some(1),
        DataType::Int16 | DataType::UInt16 | DataType::Float16 => Some(2),
        DataType::Int32 | DataType::UInt32 | DataType::Float32 => Some(4),
        DataType::Int64 | DataType::UInt64 | DataType::Float64 | DataType::Timestamp(..) => Some(8),
        _ => None,
    }
}

fn unsupported(column: &str, wire_type: &str) -> BatchRefusal {
    BatchRefusal::new(
        RejectCode::UnsupportedType,
        format!(
            "column {column:?} has type {wire_type}; allowed are integers, floats, utf8, large_utf8, \
             dictionaries of text, bool, timestamp and null"
        ),
    )
}

/// Reads an encapsulated schema message.
pub(crate) fn read_schema(
    message: &Bytes,
    limits: &DecodeLimits,
) -> Result<SchemaPlan, BatchRefusal> {
    let (message, body) = open(message, limits)?;
    if message.header_type() != MessageHeader::Schema || !body.is_empty() {
        return Err(malformed("a schema message without a body was expected"));
    }
    let schema = message
        .header_as_schema()
        .ok_or_else(|| malformed("the schema message is empty"))?;
    if schema.endianness() != Endianness::Little {
        return Err(malformed("the schema is big-endian; write little-endian"));
    }
    let mut fields = Vec::new();
    let mut dictionary_ids = Vec::new();
    if let Some(wire_fields) = schema.fields() {
        if wire_fields.len() > limits.columns {
            return Err(too_large("columns", wire_fields.len(), limits.columns));
        }
        for wire_field in wire_fields {
            let (field, dictionary_id) = read_field(&wire_field)?;
            fields.push(field);
            dictionary_ids.push(dictionary_id);
        }
    }
    Ok(SchemaPlan {
        schema: Arc::new(Schema::new(fields)),
        dictionary_ids,
    })
}

fn read_field(field: &WireField<'_>) -> Result<(Field, Option<i64>), BatchRefusal> {
    let name = field.name().unwrap_or_default();
    if name.len() > COLUMN_NAME_BYTES_MAX {
        return Err(BatchRefusal::new(
            RejectCode::FieldName,
            format!(
                "a column name has {} bytes; field names have at most 63",
                name.len()
            ),
        ));
    }
    if field
        .children()
        .is_some_and(|children| !children.is_empty())
    {
        return Err(unsupported(
            name,
            field.type_type().variant_name().unwrap_or("unknown"),
        ));
    }
    let value_type = read_type(field, name)?;
    let Some(dictionary) = field.dictionary() else {
        return Ok((Field::new(name, value_type, field.nullable()), None));
    };
    // The format's default for an absent index type is int32.
    let key_type = dictionary
        .indexType()
        .map_or(Ok(DataType::Int32), |index| read_int(&index, name))?;
    let data_type = DataType::Dictionary(Box::new(key_type), Box::new(value_type));
    if !is_allowed(&data_type) {
        return Err(unsupported(name, &format!("{data_type}")));
    }
    Ok((
        Field::new(name, data_type, field.nullable()),
        Some(dictionary.id()),
    ))
}

fn read_type(field: &WireField<'_>, name: &str) -> Result<DataType, BatchRefusal> {
    let missing = || malformed(format!("the type of column {name:?} is missing"));
    match field.type_type() {
        Type::Null => Ok(DataType::Null),
        Type::Bool => Ok(DataType::Boolean),
        Type::Utf8 => Ok(DataType::Utf8),
        Type::LargeUtf8 => Ok(DataType::LargeUtf8),
        Type::Int => read_int(&field.type_as_int().ok_or_else(missing)?, name),
        Type::FloatingPoint => match field
            .type_as_floating_point()
            .ok_or_else(missing)?
            .precision()
        {
            Precision::HALF => Ok(DataType::Float16),
            Precision::SINGLE => Ok(DataType::Float32),
            Precision::DOUBLE => Ok(DataType::Float64),
            other => Err(unsupported(
                name,
                &format!("float of precision {}", other.0),
            )),
        },
        Type::Timestamp => {
            let timestamp = field.type_as_timestamp().ok_or_else(missing)?;
            let unit = match timestamp.unit() {
                WireUnit::SECOND => TimeUnit::Second,
                WireUnit::MILLISECOND => TimeUnit::Millisecond,
                WireUnit::MICROSECOND => TimeUnit::Microsecond,
                WireUnit::NANOSECOND => TimeUnit::Nanosecond,
                other => return Err(unsupported(name, &format!("timestamp of unit {}", other.0))),
            };
            let zone = timestamp.timezone().filter(|zone| !zone.is_empty());
            if zone.is_some_and(|zone| zone.len() > TIME_ZONE_BYTES_MAX) {
                return Err(unsupported(name, "timestamp with an overlong time zone"));
            }
            Ok(DataType::Timestamp(unit, zone.map(Into::into)))
        }
        other => Err(unsupported(name, other.variant_name().unwrap_or("unknown"))),
    }
}

fn read_int(int: &Int<'_>, name: &str) -> Result<DataType, BatchRefusal> {
    match (int.bitWidth(), int.is_signed()) {
        (8, true) => Ok(DataType::Int8),
        (16, true) => Ok(DataType::Int16),
        (32, true) => Ok(DataType::Int32),
        (64, true) => Ok(DataType::Int64),
        (8, false) => Ok(DataType::UInt8),
        (16, false) => Ok(DataType::UInt16),
        (32, false) => Ok(DataType::UInt32),
        (64, false) => Ok(DataType::UInt64),
        (width, _) => Err(unsupported(name, &format!("integer of {width} bits"))),
    }
}
