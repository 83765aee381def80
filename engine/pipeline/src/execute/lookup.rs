//! Lookups: columns of a reference table, or attributes of the device, beside the fields of a row.

use arrow_array::{
    Array as _, ArrayRef, Int32Array, RecordBatch, StringArray, UInt32Array, cast::AsArray as _,
    types::Int32Type,
};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{DataType, Field, SchemaRef};
use arrow_select::take::take;
use hashbrown::HashMap;
use quiver_expression::FailedRow;

use crate::{
    config::{LookupConfig, LookupTable},
    execute::{
        Beside,
        bound::{PerSchema, all_failed},
        map::Mapped,
        rows::{FIXED, Rows, all_but, schema_with},
    },
};

/// Most rows of a reference table.
pub const TABLE_ROWS_MAX: usize = 10_000_000;

/// A lookup node.
#[derive(Debug)]
pub(crate) struct Lookup {
    /// Pairs of (the row's column, the table's column) that have to be equal.
    on: Vec<(String, String)>,
    source: Source,
    keeps_unmatched: bool,
    bound: PerSchema<Result<BoundLookup, String>>,
}

#[derive(Debug)]
enum Source {
    /// Attributes of the device of these keys.
    Registry(Vec<String>),
    /// A file's rows.
    Table {
        /// The columns that are added; all but the keys if empty.
        columns: Vec<String>,
        /// `None` until it is loaded.
        table: Option<Table>,
    },
}

/// A reference table with the rows of each key.
#[derive(Debug)]
struct Table {
    added: Vec<(Field, ArrayRef)>,
    keys: Vec<String>,
    key_types: Vec<DataType>,
    index: HashMap<Box<[u8]>, u32>,
}

#[derive(Debug)]
struct BoundLookup {
    /// Of the row's columns, in the order of the keys.
    keys: Vec<usize>,
    schema: SchemaRef,
    /// Fields of the row that stay: those that the table does not have, too.
    kept: Vec<usize>,
}

impl Lookup {
    pub(crate) fn new(config: &LookupConfig) -> Self {
        let columns: Vec<String> = config
            .columns
            .iter()
            .map(|column| column.as_str().to_owned())
            .collect();
        let source = match config.table {
            Some(LookupTable::Registry) => Source::Registry(columns),
            _ => Source::Table {
                columns,
                table: None,
            },
        };
        let mut on: Vec<(String, String)> = config
            .on
            .iter()
            .map(|(row, table)| (row.as_str().to_owned(), table.as_str().to_owned()))
            .collect();
        if on.is_empty() {
            on.push((
                quiver_model::DEVICE.to_owned(),
                quiver_model::DEVICE.to_owned(),
            ));
        }
        Self {
            on,
            source,
            keeps_unmatched: config.keeps_unmatched,
            bound: PerSchema::default(),
        }
    }

    /// Takes a reference table in the place of the one before.
    ///
    /// # Errors
    /// If it does not have the columns, or two rows of one key; or if a column that is added is of
    /// another type than in the table before, and its values are not such that they are of that type as
    /// well: what takes its rows was made for that.
    pub(crate) fn load(&mut self, batch: &RecordBatch) -> Result<(), String> {
        let Source::Table { columns, table } = &mut self.source else {
            return Err("this lookup is of the registry, and has no table".to_owned());
        };
        let mut next = Table::new(batch, &self.on, columns)?;
        for (field, _) in table.iter().flat_map(|before| &before.added) {
            let is_same = |(other, _): &&mut (Field, ArrayRef)| other.name() == field.name();
            match next.added.iter_mut().find(is_same) {
                Some((other, _)) if other.data_type() == field.data_type() => {}
                Some((other, values)) => {
                    let Some(same) = of_type(values, field.data_type()) else {
                        return Err(format!(
                            "column `{}` is {} now, and was {}: reload the configuration to have it so, and cast it in what is stored as it was (`CAST({} AS …)`)",
                            field.name(),
                            other.data_type(),
                            field.data_type(),
                            field.name()
                        ));
                    };
                    (*other, *values) = (field.clone(), same);
                }
                None => {
                    return Err(format!(
                        "column `{}` is not there any more: reload the configuration to do without it",
                        field.name()
                    ));
                }
            }
        }
        *table = Some(next);
        self.bound = PerSchema::default();
        Ok(())
    }

    pub(crate) fn evaluate(&mut self, rows: &Rows, beside: &Beside) -> Mapped {
        let (on, source) = (&self.on, &self.source);
        let bound = self.bound.get(rows.schema(), beside, || {
            BoundLookup::new(rows.schema(), on, source)
        });
        let bound = match bound.as_ref() {
            Ok(bound) => bound,
            Err(reason) => {
                let failed = all_failed(rows.len(), reason);
                return Mapped {
                    out: rows.without(&failed),
                    errors: Some(rows.failed(&failed)),
                };
            }
        };
        let (more, failed) = match &self.source {
            Source::Registry(keys) => {
                let columns = keys
                    .iter()
                    .map(|key| beside.attributes.column(rows.device(), key));
                (columns.collect(), Vec::new())
            }
            Source::Table { table: None, .. } => {
                let reason = "the reference table has not been loaded";
                (Vec::new(), all_failed(rows.len(), reason))
            }
            Source::Table {
                table: Some(table), ..
            } => match table.matches(rows, &bound.keys, self.keeps_unmatched) {
                Ok(found) => found,
                Err(reason) => (Vec::new(), all_failed(rows.len(), &reason)),
            },
        };
        if failed.len() == rows.len() && !failed.is_empty() {
            return Mapped {
                out: rows.without(&failed),
                errors: Some(rows.failed(&failed)),
            };
        }
        let fields = rows.batch().columns();
        let mut columns: Vec<ArrayRef> = bound
            .kept
            .iter()
            .map(|index| fields[*index].clone())
            .collect();
        columns.extend(more);
        let out = rows.with_fields(&bound.schema, columns);
        if failed.is_empty() {
            return Mapped { out, errors: None };
        }
        Mapped {
            out: out.filter(&all_but(rows.len(), &failed)),
            errors: Some(rows.failed(&failed)),
        }
    }
}

impl BoundLookup {
    fn new(schema: &SchemaRef, on: &[(String, String)], source: &Source) -> Result<Self, String> {
        let added: Vec<Field> = match source {
            Source::Registry(keys) => keys
                .iter()
                .map(|key| Field::new(key, DataType::Utf8, true))
                .collect(),
            Source::Table { table, .. } => table
                .iter()
                .flat_map(|table| table.added.iter().map(|(field, _)| field.clone()))
                .collect(),
        };
        let keys = match source {
            Source::Registry(_) => Vec::new(),
            Source::Table { .. } => {
                let index = |(name, _): &(String, String)| {
                    let problem = |_| format!("the rows have no column `{name}`");
                    schema.index_of(name).map_err(problem)
                };
                on.iter().map(index).collect::<Result<_, _>>()?
            }
        };
        let is_added = |name: &str| {
            added
                .iter()
                .any(|field| field.name().eq_ignore_ascii_case(name))
        };
        let fields = schema.fields();
        let kept: Vec<usize> = (FIXED..fields.len())
            .filter(|index| !is_added(fields[*index].name()))
            .collect();
        let base = super::rows::schema_of(
            schema,
            kept.iter().map(|index| fields[*index].as_ref().clone()),
        );
        Ok(Self {
            keys,
            schema: schema_with(&base, added),
            kept,
        })
    }
}

/// The same values of another type; `None` if that would be others.
fn of_type(values: &ArrayRef, data_type: &DataType) -> Option<ArrayRef> {
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    let cast = cast_with_options(values, data_type, &options).ok()?;
    let back = cast_with_options(&cast, values.data_type(), &options).ok()?;
    (back.as_ref() == values.as_ref()).then_some(cast)
}

impl Table {
    fn new(
        batch: &RecordBatch,
        on: &[(String, String)],
        columns: &[String],
    ) -> Result<Self, String> {
        if batch.num_rows() > TABLE_ROWS_MAX {
            return Err(format!("the table has more than {TABLE_ROWS_MAX} rows"));
        }
        let schema = batch.schema();
        let column = |name: &str| {
            schema.index_of(name).map_err(|_| {
                let names: Vec<String> = schema
                    .fields()
                    .iter()
                    .map(|field| format!("`{}`", field.name()))
                    .collect();
                format!(
                    "the table has no column `{name}`; there is {}",
                    names.join(", ")
                )
            })
        };
        let keys: Vec<usize> = on
            .iter()
            .map(|(_, name)| column(name))
            .collect::<Result<_, _>>()?;
        let wanted: Vec<usize> = if columns.is_empty() {
            (0..schema.fields().len())
                .filter(|index| !keys.contains(index))
                .collect()
        } else {
            columns
                .iter()
                .map(|name| column(name))
                .collect::<Result<_, _>>()?
        };
        let mut added = Vec::with_capacity(wanted.len());
        for index in wanted {
            let field = schema.field(index);
            quiver_model::FieldName::new(field.name()).map_err(|error| error.to_string())?;
            let stored = stored_type(field.data_type()).ok_or_else(|| {
                format!(
                    "column `{}` is of type {}, which a stream cannot have",
                    field.name(),
                    field.data_type()
                )
            })?;
            let values = cast(batch.column(index), &stored)?;
            added.push((Field::new(field.name(), stored, true), values));
        }
        let key_columns: Vec<ArrayRef> = keys
            .iter()
            .map(|index| batch.column(*index).clone())
            .collect();
        let texts = texts(&key_columns)?;
        let mut found: HashMap<Box<[u8]>, u32> = HashMap::with_capacity(batch.num_rows());
        let mut key = Vec::new();
        for row in 0..batch.num_rows() {
            if !write_key(&texts, row, &mut key) {
                continue;
            }
            let number = u32::try_from(row).map_err(|error| error.to_string())?;
            if let Some(first) = found.insert(key.as_slice().into(), number) {
                return Err(format!(
                    "rows {} and {} of the table have the same key",
                    first + 1,
                    row + 1
                ));
            }
        }
        Ok(Self {
            added,
            keys: on.iter().map(|(_, name)| name.clone()).collect(),
            key_types: key_columns
                .iter()
                .map(|column| column.data_type().clone())
                .collect(),
            index: found,
        })
    }

    /// The added columns for each row, and the rows without a match if those do not go on.
    fn matches(
        &self,
        rows: &Rows,
        keys: &[usize],
        keeps_unmatched: bool,
    ) -> Result<(Vec<ArrayRef>, Vec<FailedRow>), String> {
        let mut columns = Vec::with_capacity(keys.len());
        for (index, data_type) in keys.iter().zip(&self.key_types) {
            let column = rows.batch().column(*index);
            // Both sides as the table has it: 1.0 of a number matches 1 of an integer.
            columns.push(match data_type {
                DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => column.clone(),
                other => cast(column, other)?,
            });
        }
        let texts = texts(&columns)?;
        let mut failed = Vec::new();
        let mut key = Vec::new();
        let found: Vec<Option<u32>> = (0..rows.len())
            .map(|row| {
                let is_whole = write_key(&texts, row, &mut key);
                let found = is_whole
                    .then(|| self.index.get(key.as_slice()).copied())
                    .flatten();
                if found.is_none() && !keeps_unmatched {
                    failed.push(FailedRow {
                        row: u32::try_from(row).unwrap_or(u32::MAX),
                        reason: format!(
                            "the table has no row whose `{}` is this row's",
                            self.keys.join("`, `")
                        ),
                    });
                }
                found
            })
            .collect();
        let found = UInt32Array::from(found);
        let added = self
            .added
            .iter()
            .map(|(_, values)| take(values, &found, None).map_err(|error| error.to_string()))
            .collect::<Result<_, _>>()?;
        Ok((added, failed))
    }
}

/// The type in which a stream has values of this type.
pub(crate) fn stored_type(data_type: &DataType) -> Option<DataType> {
    Some(match data_type {
        DataType::UInt64 => DataType::Float64,
        data_type if data_type.is_integer() => DataType::Int64,
        data_type if data_type.is_numeric() => DataType::Float64,
        DataType::Boolean => DataType::Boolean,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Dictionary(_, values) => stored_type(values)?,
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => {
            DataType::Timestamp(arrow_schema::TimeUnit::Microsecond, Some("UTC".into()))
        }
        DataType::Null => DataType::Utf8,
        _ => return None,
    })
}

fn cast(values: &ArrayRef, data_type: &DataType) -> Result<ArrayRef, String> {
    if values.data_type() == data_type {
        return Ok(values.clone());
    }
    cast_with_options(values, data_type, &CastOptions::default()).map_err(|error| error.to_string())
}

/// The columns as texts, those with dictionaries by their numbers.
enum Texts {
    Plain(StringArray),
    Dictionary(Int32Array, StringArray),
}

fn texts(columns: &[ArrayRef]) -> Result<Vec<Texts>, String> {
    let text = |column: &ArrayRef| match column.as_dictionary_opt::<Int32Type>() {
        Some(dictionary) => Ok(Texts::Dictionary(
            dictionary.keys().clone(),
            cast(dictionary.values(), &DataType::Utf8)?
                .as_string()
                .clone(),
        )),
        None => Ok(Texts::Plain(
            cast(column, &DataType::Utf8)?.as_string().clone(),
        )),
    };
    columns.iter().map(text).collect()
}

/// Writes the key of a row; whether it has one: a null equals nothing.
fn write_key(texts: &[Texts], row: usize, key: &mut Vec<u8>) -> bool {
    key.clear();
    for text in texts {
        let value = match text {
            Texts::Plain(values) if values.is_valid(row) => values.value(row),
            Texts::Dictionary(keys, values) if keys.is_valid(row) => {
                match usize::try_from(keys.value(row)) {
                    Ok(index) if index < values.len() && values.is_valid(index) => {
                        values.value(index)
                    }
                    _ => return false,
                }
            }
            _ => return false,
        };
        key.extend((value.len() as u64).to_le_bytes());
        key.extend(value.as_bytes());
    }
    true
}
