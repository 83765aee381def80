//! Which column of a file becomes what.

use std::{
    collections::{HashMap, hash_map::Entry},
    path::Path,
    sync::Arc,
};

use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use quiver_model::{DEVICE, FIELDS_PER_STREAM_MAX, FieldName, FieldType, RESERVED_COLUMNS, TS};

use super::{FileError, FileOptions};

/// Names of the column of event times, in order of preference.
const TIME_NAMES: [&str; 7] = [
    "ts",
    "timestamp",
    "time",
    "datetime",
    "date_time",
    "event_time",
    "date",
];

/// What a file's column looks like, before anybody decides.
#[derive(Clone, Debug)]
pub(super) struct SourceColumn {
    pub name: String,
    /// The type its values suggest; `None` if it has no values.
    pub suggested: Option<FieldType>,
    /// Its values are points in time by themselves.
    pub is_time: bool,
    /// Its type, if that is one that cannot be stored.
    pub unsupported: Option<String>,
}

/// What becomes of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Time,
    Device,
    /// A field: its place among the fields, and its type.
    Field(usize, FieldType),
    Dropped,
}

impl Role {
    /// Whether its values are read as points in time.
    pub fn is_time(&self) -> bool {
        matches!(self, Self::Time | Self::Field(_, FieldType::Timestamp))
    }
}

/// What becomes of every column.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// One for each column of the file.
    pub roles: Vec<Role>,
    pub names: Vec<String>,
    /// `ts`, `device`, fields.
    pub schema: SchemaRef,
}

impl Layout {
    pub fn new(options: &FileOptions, columns: &[SourceColumn]) -> Result<Self, FileError> {
        let path = options.path.as_path();
        let names: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
        let find = |name: &str| names.iter().position(|column| column == name);
        let must_find = |name: &String| {
            find(name).ok_or_else(|| FileError::NoColumn {
                path: path.to_owned(),
                column: name.clone(),
                columns: names.clone(),
            })
        };
        for named in options
            .map
            .iter()
            .map(|map| &map.source)
            .chain(&options.drop)
        {
            must_find(named)?;
        }
        check_choices(options)?;
        let time = match &options.time_column {
            Some(name) => must_find(name)?,
            None => find_time(options, columns).ok_or_else(|| FileError::NoTime {
                path: path.to_owned(),
                columns: names.clone(),
            })?,
        };
        let mut roles = Vec::with_capacity(columns.len());
        let mut fields: Vec<Field> = Vec::new();
        let mut taken = Taken {
            path,
            names: &names,
            by: HashMap::new(),
        };
        let mut has_device = false;
        for (index, column) in columns.iter().enumerate() {
            let map = options.map.iter().find(|map| map.source == column.name);
            let target = map.and_then(|map| map.target.as_deref());
            roles.push(if options.drop.contains(&column.name) {
                Role::Dropped
            } else if index == time {
                taken.take(TS, index)?;
                Role::Time
            } else if target.unwrap_or(&column.name) == DEVICE {
                if options.device.is_some() {
                    return Err(FileError::DeviceTwice {
                        path: path.to_owned(),
                    });
                }
                taken.take(DEVICE, index)?;
                has_device = true;
                Role::Device
            } else {
                if let Some(data_type) = &column.unsupported {
                    return Err(FileError::ColumnType {
                        path: path.to_owned(),
                        column: column.name.clone(),
                        data_type: data_type.clone(),
                    });
                }
                let field_type = map.and_then(|map| map.field_type).or(column.suggested);
                match field_type {
                    // Without a value or a word on its type there is nothing to store.
                    None => Role::Dropped,
                    Some(field_type) => {
                        let name = field_name(column, target, index, &mut taken)?;
                        fields.push(Field::new(name, field_type.arrow(), true));
                        Role::Field(fields.len() - 1, field_type)
                    }
                }
            });
        }
        if fields.len() > FIELDS_PER_STREAM_MAX {
            return Err(FileError::TooManyFields {
                path: path.to_owned(),
                fields: fields.len(),
            });
        }
        if !has_device && options.device.is_none() {
            return Err(FileError::NoDevice {
                path: path.to_owned(),
            });
        }
        let ts = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let mut all = vec![
            Field::new(TS, ts, false),
            Field::new(DEVICE, DataType::Utf8, false),
        ];
        all.extend(fields);
        Ok(Self {
            roles,
            names,
            schema: Arc::new(Schema::new(all)),
        })
    }

    /// The column of event times.
    pub fn time_column(&self) -> usize {
        self.roles
            .iter()
            .position(|role| *role == Role::Time)
            .unwrap_or(0)
    }
}

fn find_time(options: &FileOptions, columns: &[SourceColumn]) -> Option<usize> {
    let is_kept = |column: &&SourceColumn| !options.drop.contains(&column.name);
    let mapped = options
        .map
        .iter()
        .find(|map| map.target.as_deref() == Some(TS));
    if let Some(mapped) = mapped {
        return columns
            .iter()
            .position(|column| column.name == mapped.source);
    }
    TIME_NAMES
        .iter()
        .find_map(|name| {
            columns
                .iter()
                .position(|column| is_kept(&column) && column.name.eq_ignore_ascii_case(name))
        })
        .or_else(|| {
            columns
                .iter()
                .position(|column| is_kept(&column) && column.is_time)
        })
}

/// Each column may be mapped once, and not be left out as well.
fn check_choices(options: &FileOptions) -> Result<(), FileError> {
    let used = options.map.iter().map(|map| &map.source);
    for column in used.clone().chain(&options.time_column) {
        if options.drop.contains(column) {
            return Err(FileError::DroppedAndUsed {
                path: options.path.clone(),
                column: column.clone(),
            });
        }
    }
    for (index, column) in used.clone().enumerate() {
        if used.clone().take(index).any(|other| other == column) {
            return Err(FileError::MappedTwice {
                path: options.path.clone(),
                column: column.clone(),
            });
        }
    }
    Ok(())
}

/// Names in the stream that columns have, ignoring case.
struct Taken<'a> {
    path: &'a Path,
    /// Names of all columns in the file.
    names: &'a [String],
    /// Which column has a name.
    by: HashMap<String, usize>,
}

impl Taken<'_> {
    /// Gives `name` to the column `index`.
    fn take(&mut self, name: &str, index: usize) -> Result<(), FileError> {
        let first = match self.by.entry(name.to_ascii_lowercase()) {
            Entry::Vacant(free) => {
                free.insert(index);
                return Ok(());
            }
            Entry::Occupied(first) => *first.get(),
        };
        let column = |index: usize| self.names.get(index).cloned().unwrap_or_default();
        let (path, target) = (self.path.to_owned(), name.to_owned());
        let columns = (column(first), column(index));
        Err(if columns.0 == columns.1 {
            FileError::SameName {
                path,
                column: columns.0,
                numbers: (first + 1, index + 1),
            }
        } else {
            FileError::SameTarget {
                path,
                columns,
                target,
            }
        })
    }
}

/// The field's name: as mapped, or the column's own with every other character as `_`.
fn field_name(
    column: &SourceColumn,
    target: Option<&str>,
    index: usize,
    taken: &mut Taken<'_>,
) -> Result<String, FileError> {
    let path = taken.path;
    let refuse = |reason: String| FileError::FieldName {
        path: path.to_owned(),
        column: column.name.clone(),
        reason,
    };
    let name = match target {
        Some(target) => target.to_owned(),
        None => sanitised(&column.name),
    };
    FieldName::new(&name).map_err(|error| refuse(error.to_string()))?;
    taken.take(&name, index)?;
    if RESERVED_COLUMNS
        .iter()
        .any(|reserved| reserved.eq_ignore_ascii_case(&name))
    {
        return Err(refuse(format!("the name {name:?} belongs to the engine")));
    }
    Ok(name)
}

fn sanitised(column: &str) -> String {
    let mut name = String::new();
    for character in column.trim().chars() {
        if character.is_ascii_alphanumeric() || character == '_' {
            name.push(character);
        } else if !name.ends_with('_') {
            name.push('_');
        }
    }
    let trimmed = name.trim_end_matches('_');
    let mut name = if trimmed.is_empty() {
        name
    } else {
        trimmed.to_owned()
    };
    if name.starts_with(|first: char| first.is_ascii_digit()) {
        name.insert(0, '_');
    }
    name.truncate(63);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_header_becomes_a_field_name() {
        for (column, name) in [
            ("value", "value"),
            ("Engine Temp (°C)", "Engine_Temp_C"),
            ("2nd", "_2nd"),
            (" a-b.c ", "a_b_c"),
            ("_", "_"),
        ] {
            assert_eq!(sanitised(column), name);
            assert!(FieldName::new(&sanitised(column)).is_ok());
        }
    }
}
