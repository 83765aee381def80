//! What a stream's rows look like: learned or declared fields of five types, beside the columns
//! every stream has. Schemas only ever grow.

use std::{collections::HashMap, sync::Arc};

use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::{DecimalScale, FieldName, SchemaId, StreamName, Timestamp};

/// Event time column.
pub const TS: &str = "ts";
/// Device column.
pub const DEVICE: &str = "device";
/// Arrival time column.
pub const ARRIVAL: &str = "arrival";
/// Log position column.
pub const POSITION: &str = "position";
/// Partition column of the archive.
pub const QUIVER_DAY: &str = "quiver_day";
/// Columns that every stored row has (the last one in the archive only); no field may be called so.
pub const RESERVED_COLUMNS: [&str; 5] = [TS, DEVICE, ARRIVAL, POSITION, QUIVER_DAY];
/// Most fields a stream may have.
pub const FIELDS_PER_STREAM_MAX: usize = 1_000;

/// Type of a field once normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldType {
    /// Every integer type of the wire.
    Int64,
    /// Every floating-point type of the wire.
    Float64,
    /// Every text type of the wire, and dictionaries of text.
    Utf8,
    /// Booleans.
    Bool,
    /// Points in time, in microseconds UTC, from [`FIELD_TIME_MIN`] to [`FIELD_TIME_MAX`]:
    /// timestamps of every unit and time zone of the wire.
    Timestamp,
}

/// The earliest time that a timestamp field holds: 0001-01-01T00:00:00Z, the first that is written
/// alike in SQL, in RFC 3339 and by those who read the archive.
pub const FIELD_TIME_MIN: Timestamp = Timestamp(-62_135_596_800_000_000);
/// The latest: 9999-12-31T23:59:59.999999Z.
pub const FIELD_TIME_MAX: Timestamp = Timestamp(253_402_300_799_999_999);

impl FieldType {
    /// The Arrow type that stores it.
    pub fn arrow(self) -> DataType {
        match self {
            Self::Int64 => DataType::Int64,
            Self::Float64 => DataType::Float64,
            Self::Utf8 => DataType::Utf8,
            Self::Bool => DataType::Boolean,
            Self::Timestamp => timestamp_type(),
        }
    }

    /// The field type that a stored Arrow type belongs to.
    pub fn from_arrow(data_type: &DataType) -> Option<Self> {
        match data_type {
            DataType::Int64 => Some(Self::Int64),
            DataType::Float64 => Some(Self::Float64),
            DataType::Utf8 => Some(Self::Utf8),
            DataType::Boolean => Some(Self::Bool),
            time if *time == timestamp_type() => Some(Self::Timestamp),
            _ => None,
        }
    }

    /// The word used in messages and configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Int64 => "int64",
            Self::Float64 => "float64",
            Self::Utf8 => "utf8",
            Self::Bool => "bool",
            Self::Timestamp => "timestamp",
        }
    }
}

/// A field of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamField {
    /// Its name.
    pub name: FieldName,
    /// Its type, for ever.
    pub field_type: FieldType,
    /// For a float64 field: the digits after the decimal point that its values have, for ever. Rows
    /// with other values are refused, and the archive stores the field as a decimal, which takes
    /// less. `None`: any float64.
    pub scale: Option<DecimalScale>,
}

impl StreamField {
    /// A field of any values of its type.
    pub const fn new(name: FieldName, field_type: FieldType) -> Self {
        Self {
            name,
            field_type,
            scale: None,
        }
    }

    /// A float64 field of decimals with `scale` digits after the point.
    pub const fn decimal(name: FieldName, scale: DecimalScale) -> Self {
        Self {
            name,
            field_type: FieldType::Float64,
            scale: Some(scale),
        }
    }

    /// Whether a stream that has this field has `offered`, too: it is of the same type, and of the
    /// same scale if it asks for one.
    pub fn holds(&self, offered: &Self) -> bool {
        self.name == offered.name
            && self.field_type == offered.field_type
            && (offered.scale.is_none() || offered.scale == self.scale)
    }

    /// Type and scale as one word, for records: `float64`, or `decimal(2)`.
    pub fn type_word(&self) -> String {
        match self.scale {
            Some(scale) => format!("decimal({})", scale.digits()),
            None => self.field_type.as_str().to_owned(),
        }
    }

    /// A field whose type is given by [`Self::type_word`]; `None` if there is no such type.
    pub fn from_type_word(name: FieldName, word: &str) -> Option<Self> {
        let field_type = match word {
            "int64" => FieldType::Int64,
            "float64" => FieldType::Float64,
            "utf8" => FieldType::Utf8,
            "bool" => FieldType::Bool,
            "timestamp" => FieldType::Timestamp,
            _ => {
                let digits = word.strip_prefix("decimal(")?.strip_suffix(')')?;
                let scale = digits.parse().ok().and_then(DecimalScale::new)?;
                return Some(Self::decimal(name, scale));
            }
        };
        Some(Self::new(name, field_type))
    }
}

/// Why a schema cannot grow by a field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaConflict {
    /// The field exists with another type.
    #[error("field {field} is {stored} in stream {stream}; it cannot become {offered}")]
    Type {
        /// The stream.
        stream: StreamName,
        /// The field.
        field: FieldName,
        /// The type it has.
        stored: String,
        /// The type that was offered.
        offered: String,
    },
    /// A field exists whose name differs only in case.
    #[error("field {field} differs only in case from field {stored} of stream {stream}")]
    Case {
        /// The stream.
        stream: StreamName,
        /// The offered name.
        field: FieldName,
        /// The name it collides with.
        stored: FieldName,
    },
    /// The name belongs to the engine.
    #[error("field name {field} is reserved; rename the field")]
    Reserved {
        /// The offered name.
        field: FieldName,
    },
    /// The stream is full.
    #[error("stream {stream} would have more than {FIELDS_PER_STREAM_MAX} fields")]
    Full {
        /// The stream.
        stream: StreamName,
    },
}

/// One version of a stream's schema. Versions are records in the log; a version's fields begin
/// with all fields of the version before it.
#[derive(Clone, Debug)]
pub struct StreamSchema {
    stream: StreamName,
    id: SchemaId,
    fields: Vec<StreamField>,
    by_lower_name: HashMap<String, usize>,
    stored: SchemaRef,
}

impl PartialEq for StreamSchema {
    fn eq(&self, other: &Self) -> bool {
        self.stream == other.stream && self.id == other.id && self.fields == other.fields
    }
}

impl StreamSchema {
    /// The schema of `stream` with these fields.
    pub fn new(
        stream: StreamName,
        id: SchemaId,
        fields: Vec<StreamField>,
    ) -> Result<Self, SchemaConflict> {
        let mut schema = Self {
            stored: Arc::new(Schema::new(fixed_columns())),
            by_lower_name: HashMap::new(),
            fields: Vec::new(),
            stream,
            id,
        };
        for field in fields {
            schema.push(field)?;
        }
        schema.stored = schema.stored_schema();
        Ok(schema)
    }

    fn push(&mut self, field: StreamField) -> Result<(), SchemaConflict> {
        if RESERVED_COLUMNS
            .iter()
            .any(|reserved| field.name.as_str().eq_ignore_ascii_case(reserved))
        {
            return Err(SchemaConflict::Reserved { field: field.name });
        }
        if let Some(existing) = self.find_ignoring_case(field.name.as_str()) {
            return Err(if existing.name == field.name {
                SchemaConflict::Type {
                    stream: self.stream.clone(),
                    stored: existing.type_word(),
                    offered: field.type_word(),
                    field: field.name,
                }
            } else {
                SchemaConflict::Case {
                    stream: self.stream.clone(),
                    stored: existing.name.clone(),
                    field: field.name,
                }
            });
        }
        if self.fields.len() >= FIELDS_PER_STREAM_MAX {
            return Err(SchemaConflict::Full {
                stream: self.stream.clone(),
            });
        }
        self.by_lower_name
            .insert(field.name.as_str().to_ascii_lowercase(), self.fields.len());
        self.fields.push(field);
        Ok(())
    }

    fn stored_schema(&self) -> SchemaRef {
        let mut columns = fixed_columns();
        columns.extend(
            self.fields
                .iter()
                .map(|field| Field::new(field.name.as_str(), field.field_type.arrow(), true)),
        );
        Arc::new(Schema::new(columns))
    }

    /// This schema grown by `added`, as the next version with number `id`.
    pub fn grown(&self, id: SchemaId, added: &[StreamField]) -> Result<Self, SchemaConflict> {
        let mut next = Self { id, ..self.clone() };
        for field in added {
            next.push(field.clone())?;
        }
        next.stored = next.stored_schema();
        Ok(next)
    }

    /// The stream this schema belongs to.
    pub fn stream(&self) -> &StreamName {
        &self.stream
    }

    /// Number of this version's record.
    pub fn id(&self) -> SchemaId {
        self.id
    }

    /// The fields, oldest first, without the columns every stream has.
    pub fn fields(&self) -> &[StreamField] {
        &self.fields
    }

    /// Index and field with exactly this name.
    pub fn find(&self, name: &str) -> Option<(usize, &StreamField)> {
        let index = *self.by_lower_name.get(&name.to_ascii_lowercase())?;
        let field = &self.fields[index];
        (field.name.as_str() == name).then_some((index, field))
    }

    /// The field whose name equals `name` ignoring case.
    pub fn find_ignoring_case(&self, name: &str) -> Option<&StreamField> {
        self.by_lower_name
            .get(&name.to_ascii_lowercase())
            .map(|index| &self.fields[*index])
    }

    /// Arrow schema of stored rows in memory: `ts` (µs UTC), `device` (dictionary of text),
    /// `arrival` (µs UTC), `position` (int64), then the fields, nullable.
    pub fn stored(&self) -> &SchemaRef {
        &self.stored
    }
}

/// Number of columns in front of the fields in [`StreamSchema::stored`].
pub(crate) const FIXED_COLUMN_COUNT: usize = 4;

/// Type of `ts`, of `arrival` and of timestamp fields.
pub(crate) fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// Type of `device` in memory: one entry per distinct device of a batch instead of one per row.
pub(crate) fn device_type() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

fn fixed_columns() -> Vec<Field> {
    vec![
        Field::new(TS, timestamp_type(), false),
        Field::new(DEVICE, device_type(), false),
        Field::new(ARRIVAL, timestamp_type(), false),
        Field::new(POSITION, DataType::Int64, false),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_survives_being_a_word() {
        let name = FieldName::new("speed").unwrap();
        let types = [
            FieldType::Int64,
            FieldType::Float64,
            FieldType::Utf8,
            FieldType::Bool,
            FieldType::Timestamp,
        ];
        for field_type in types {
            assert_eq!(FieldType::from_arrow(&field_type.arrow()), Some(field_type));
        }
        let plain = types.map(|field_type| StreamField::new(name.clone(), field_type));
        let decimals = DecimalScale::all().map(|scale| StreamField::decimal(name.clone(), scale));
        for field in plain.into_iter().chain(decimals) {
            let word = field.type_word();
            assert_eq!(
                StreamField::from_type_word(name.clone(), &word),
                Some(field)
            );
        }
        let two = StreamField::decimal(name.clone(), DecimalScale::new(2).unwrap());
        let any = StreamField::new(name.clone(), FieldType::Float64);
        assert!(two.holds(&two) && two.holds(&any) && !any.holds(&two));
        for word in [
            "",
            "float32",
            "decimal(10)",
            "decimal(-1)",
            "decimal(",
            "decimal(2",
        ] {
            assert_eq!(
                StreamField::from_type_word(name.clone(), word),
                None,
                "{word}"
            );
        }
    }
}
