//! Streams and stores as they are written.

use quiver_model::{DecimalScale, FieldName, FieldType, StreamField};

use crate::{
    config::TableReader,
    diagnostics::Diagnostic,
    source::Located,
    value::{Text, Value},
};

/// What becomes of fields that are not declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mode {
    /// A row that has them is refused.
    Strict,
    /// They are learned beside those that are declared.
    #[default]
    Relaxed,
    /// All fields are learned; what is declared says only what they mean.
    Learned,
}

/// A declared field.
#[derive(Clone, Debug)]
pub struct FieldConfig {
    /// Its name.
    pub name: Located<String>,
    /// Name, type and scale.
    pub field: StreamField,
    /// Its unit, as people write it: `km/h`.
    pub unit: Option<String>,
    /// What it is.
    pub description: Option<String>,
}

/// A declared stream.
#[derive(Clone, Debug)]
pub struct StreamConfig {
    /// Its name.
    pub name: Located<String>,
    /// What becomes of other fields.
    pub mode: Mode,
    /// Its fields.
    pub fields: Vec<FieldConfig>,
    /// What it is.
    pub description: Option<String>,
}

/// What is kept of streams or of what nodes put out.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Its name.
    pub name: Located<String>,
    /// Of what.
    pub from: Vec<Located<Text>>,
    /// How long rows stay in memory for live views, in microseconds.
    pub hot: Option<Located<i64>>,
    /// How long rows can be read again from the log, in microseconds.
    pub queue: Option<Located<i64>>,
    /// Whether rows are archived.
    pub archive: bool,
    /// How long the archive keeps them, in microseconds; for ever if not said.
    pub keep: Option<Located<i64>>,
}

pub(crate) fn read_stream(name: Located<String>, mut reader: TableReader<'_>) -> StreamConfig {
    let words = [
        ("strict", Mode::Strict),
        ("relaxed", Mode::Relaxed),
        ("learned", Mode::Learned),
    ];
    let mode = reader.one_of("mode", &words);
    let description = reader.text("description").map(|text| text.value.value);
    let mut fields = Vec::new();
    if let Some((table, _)) = reader.table("fields") {
        for (field, value) in &table.entries {
            if let Some(field) = read_field(field, value, &mut reader) {
                fields.push(field);
            }
        }
    }
    if let Some(mode) = &mode
        && mode.value == Mode::Strict
        && fields.is_empty()
    {
        let message = format!(
            "{} is strict and declares no fields: every row would be refused",
            reader.subject
        );
        let problem = Diagnostic::error(message, mode.place.clone());
        reader
            .diagnostics
            .push(problem.help(format!("declare them in `[stream.{}.fields]`", name.value)));
    }
    reader.finish();
    let default = if fields.is_empty() {
        Mode::Learned
    } else {
        Mode::Relaxed
    };
    StreamConfig {
        name,
        mode: mode.map_or(default, |mode| mode.value),
        fields,
        description,
    }
}

const TYPES: [(&str, FieldType); 5] = [
    ("float64", FieldType::Float64),
    ("int64", FieldType::Int64),
    ("utf8", FieldType::Utf8),
    ("bool", FieldType::Bool),
    ("timestamp", FieldType::Timestamp),
];

fn read_field(
    name: &Located<String>,
    value: &Located<Value>,
    reader: &mut TableReader<'_>,
) -> Option<FieldConfig> {
    let field_name = match FieldName::new(&name.value) {
        Ok(field_name) => field_name,
        Err(error) => {
            reader
                .diagnostics
                .push(Diagnostic::error(error.to_string(), name.place.clone()));
            return None;
        }
    };
    if quiver_model::RESERVED_COLUMNS
        .iter()
        .any(|reserved| reserved.eq_ignore_ascii_case(&name.value))
    {
        let message = format!("`{}` is a column that every stream has", name.value);
        reader.diagnostics.push(
            Diagnostic::error(message, name.place.clone())
                .help("leave it out, or rename the field"),
        );
        return None;
    }
    let subject = format!("field `{}` of {}", name.value, reader.subject);
    let (field_type, scale, unit, description) = match &value.value {
        Value::Text(text) => match TYPES.iter().find(|(word, _)| *word == text.value) {
            Some((_, field_type)) => (*field_type, None, None, None),
            None => {
                let words: Vec<&str> = TYPES.iter().map(|(word, _)| *word).collect();
                let message = format!("{subject} cannot be of type {:?}", text.value);
                reader.diagnostics.push(
                    Diagnostic::error(message, value.place.clone())
                        .help(format!("a type is one of {}", words.join(", "))),
                );
                return None;
            }
        },
        Value::Table(table) => {
            let place = name.place.clone();
            let mut inner = TableReader::new(table, subject, place, reader.diagnostics);
            let field_type = inner.one_of("type", &TYPES);
            let unit = inner.text("unit").map(|text| text.value.value);
            let description = inner.text("description").map(|text| text.value.value);
            let scale = inner.integer("scale").and_then(|scale| {
                let digits = u8::try_from(scale.value).ok().and_then(DecimalScale::new);
                if digits.is_none() {
                    inner.invalid(
                        "scale",
                        "the digits behind the point are 0 to 9",
                        scale.place.clone(),
                    );
                }
                digits.map(|digits| Located::new(digits, scale.place))
            });
            if let (Some(scale), Some(field_type)) = (&scale, &field_type)
                && field_type.value != FieldType::Float64
            {
                inner.invalid(
                    "scale",
                    "only float64 fields have a scale",
                    scale.place.clone(),
                );
            }
            inner.finish();
            (
                field_type.map_or(FieldType::Float64, |field_type| field_type.value),
                scale,
                unit,
                description,
            )
        }
        other => {
            let message = format!("{subject} is {}", other.word());
            reader.diagnostics.push(
                Diagnostic::error(message, value.place.clone())
                    .help("write its type, or `{ type = \"float64\", unit = \"km/h\" }`"),
            );
            return None;
        }
    };
    let field = match scale {
        Some(scale) if field_type == FieldType::Float64 => {
            StreamField::decimal(field_name, scale.value)
        }
        _ => StreamField::new(field_name, field_type),
    };
    Some(FieldConfig {
        name: name.clone(),
        field,
        unit,
        description,
    })
}

pub(crate) fn read_store(name: Located<String>, mut reader: TableReader<'_>) -> StoreConfig {
    let from = super::node::read_from(&mut reader);
    let hot = reader.duration("hot");
    let queue = reader.duration("queue");
    let archive = reader.boolean("archive");
    let keep = reader.duration("keep");
    if let (Some(keep), Some(archive)) = (&keep, &archive)
        && !archive.value
    {
        let message = format!("{} keeps nothing in the archive", reader.subject);
        let problem = Diagnostic::error(message, keep.place.clone());
        reader.diagnostics.push(
            problem
                .related(archive.place.clone(), "because of this")
                .help("`keep` says how long the archive keeps rows: leave one of them out"),
        );
    }
    reader.finish();
    StoreConfig {
        name,
        from,
        hot,
        queue,
        archive: archive.is_none_or(|archive| archive.value),
        keep,
    }
}
