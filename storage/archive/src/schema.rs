//! A table's columns in Delta's words: from a stream's fields, and back.

use std::borrow::Cow;

use quiver_model::{
    ARRIVAL, DEVICE, DecimalScale, FieldName, FieldType, POSITION, QUIVER_DAY, StreamField, TS,
};
use serde_json::{Value, json};

/// The columns every table has, with Delta's types.
const FIXED: [(&str, &str); 5] = [
    (TS, "timestamp"),
    (DEVICE, "string"),
    (ARRIVAL, "timestamp"),
    (POSITION, "long"),
    (QUIVER_DAY, "date"),
];

/// Digits of a decimal in all: the most that Parquet stores in 64 bits.
pub(crate) const DECIMAL_PRECISION: u8 = 18;

fn delta_type(field: &StreamField) -> Cow<'static, str> {
    if let Some(scale) = field.scale {
        return format!("decimal({DECIMAL_PRECISION},{})", scale.digits()).into();
    }
    match field.field_type {
        FieldType::Int64 => "long",
        FieldType::Float64 => "double",
        FieldType::Utf8 => "string",
        FieldType::Bool => "boolean",
        FieldType::Timestamp => "timestamp",
    }
    .into()
}

/// The scale of a decimal type that Quiver writes.
fn decimal_scale(data_type: &str) -> Option<DecimalScale> {
    let (precision, scale) = data_type
        .strip_prefix("decimal(")?
        .strip_suffix(')')?
        .split_once(',')?;
    let is_ours = precision.trim().parse() == Ok(DECIMAL_PRECISION);
    let scale = scale.trim().parse().ok().and_then(DecimalScale::new)?;
    is_ours.then_some(scale)
}

/// Delta's `schemaString` of a table with these fields.
pub(crate) fn schema_string(fields: &[StreamField]) -> String {
    let column = |name: &str, data_type: &str| json!({"name": name, "type": data_type, "nullable": true, "metadata": {}});
    let [ts, device, arrival, position, day] =
        FIXED.map(|(name, data_type)| column(name, data_type));
    let mut columns = vec![ts, device, arrival, position];
    columns.extend(
        fields
            .iter()
            .map(|field| column(field.name.as_str(), &delta_type(field))),
    );
    columns.push(day);
    json!({"type": "struct", "fields": columns}).to_string()
}

/// The fields of a table with this `schemaString`.
///
/// # Errors
/// What makes it a table that Quiver did not write.
pub(crate) fn fields_of(schema_string: &str) -> Result<Vec<StreamField>, String> {
    let schema: Value = serde_json::from_str(schema_string)
        .map_err(|error| format!("its schema is not JSON: {error}"))?;
    let columns = schema["fields"]
        .as_array()
        .ok_or("its schema has no columns")?;
    let mut fields = Vec::new();
    let mut fixed = 0;
    for column in columns {
        let name = column["name"].as_str().unwrap_or_default();
        let data_type = column["type"].as_str().unwrap_or("nested");
        if let Some((_, expected)) = FIXED.iter().find(|(fixed, _)| *fixed == name) {
            if *expected != data_type {
                return Err(format!(
                    "its column {name} has type {data_type} instead of {expected}"
                ));
            }
            fixed += 1;
            continue;
        }
        let field_type = match data_type {
            "long" => FieldType::Int64,
            "double" => FieldType::Float64,
            "string" => FieldType::Utf8,
            "boolean" => FieldType::Bool,
            "timestamp" => FieldType::Timestamp,
            _ if decimal_scale(data_type).is_some() => FieldType::Float64,
            _ => {
                return Err(format!(
                    "its column {name} has type {data_type}, which Quiver does not write"
                ));
            }
        };
        let name = FieldName::new(name).map_err(|error| error.to_string())?;
        fields.push(StreamField {
            name,
            field_type,
            scale: decimal_scale(data_type),
        });
    }
    if fixed == FIXED.len() {
        Ok(fields)
    } else {
        Err("it lacks columns that every stream's table has".to_owned())
    }
}

/// `known` and the fields of `offered` that it has not; `None` if there are none.
///
/// # Errors
/// If a field has another type in the table, or another scale.
pub(crate) fn grown(
    known: &[StreamField],
    offered: &[StreamField],
) -> Result<Option<Vec<StreamField>>, String> {
    let mut grown = known.to_vec();
    for field in offered {
        match known.iter().find(|known| known.name == field.name) {
            Some(known) if known.field_type != field.field_type => {
                return Err(format!(
                    "field {} is {} in the table, {} in memory",
                    field.name,
                    known.field_type.as_str(),
                    field.field_type.as_str()
                ));
            }
            // A table that has the field as any float64 holds decimals, too; the other way round
            // there would be values that do not fit.
            Some(known) if known.scale.is_some() && known.scale != field.scale => {
                return Err(format!(
                    "field {} is {} in the table, {} in memory",
                    field.name,
                    known.type_word(),
                    field.type_word()
                ));
            }
            Some(_) => {}
            None => grown.push(field.clone()),
        }
    }
    Ok((grown.len() > known.len()).then_some(grown))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str, field_type: FieldType) -> StreamField {
        StreamField::new(FieldName::new(name).unwrap(), field_type)
    }

    fn decimal(name: &str, digits: u8) -> StreamField {
        StreamField::decimal(
            FieldName::new(name).unwrap(),
            DecimalScale::new(digits).unwrap(),
        )
    }

    #[test]
    fn a_scale_never_changes() {
        let (plain, two, three) = (
            field("a", FieldType::Float64),
            decimal("a", 2),
            decimal("a", 3),
        );
        assert_eq!(
            grown(std::slice::from_ref(&two), std::slice::from_ref(&two)),
            Ok(None)
        );
        assert_eq!(
            grown(std::slice::from_ref(&plain), std::slice::from_ref(&two)),
            Ok(None)
        );
        assert!(grown(std::slice::from_ref(&two), &[three]).is_err());
        assert!(grown(&[two], &[plain]).is_err());
        assert_eq!(decimal_scale("decimal(38,2)"), None);
        assert_eq!(decimal_scale("decimal(18,10)"), None);
    }

    #[test]
    fn fields_survive_deltas_words() {
        let fields = vec![
            field("speed", FieldType::Float64),
            field("gear", FieldType::Int64),
            field("note", FieldType::Utf8),
            field("moving", FieldType::Bool),
            field("seen", FieldType::Timestamp),
            decimal("load", 2),
        ];
        assert_eq!(fields_of(&schema_string(&fields)).unwrap(), fields);
    }

    #[test]
    fn a_foreign_table_is_refused_with_its_reason() {
        let foreign = schema_string(&[]).replace("\"long\"", "\"integer\"");
        assert!(fields_of(&foreign).unwrap_err().contains("position"));
        assert!(fields_of("{\"fields\":[]}").unwrap_err().contains("lacks"));
    }

    #[test]
    fn a_table_grows_and_never_changes_a_type() {
        let known = [field("a", FieldType::Int64)];
        assert_eq!(grown(&known, &known), Ok(None));
        let both = [field("b", FieldType::Bool), field("a", FieldType::Int64)];
        assert_eq!(grown(&known, &both).unwrap().unwrap().len(), 2);
        assert!(grown(&known, &[field("a", FieldType::Utf8)]).is_err());
        assert!(grown(&known, &[field("a", FieldType::Timestamp)]).is_err());
    }
}
