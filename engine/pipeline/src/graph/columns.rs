//! The columns of a port.

use arrow_schema::{DataType, TimeUnit};
use quiver_expression::Scope;
use quiver_model::{ARRIVAL, DEVICE, POSITION, StreamField, TS};

/// Why a row could not be evaluated: a column of every port `errors`.
pub const ERROR_REASON: &str = "error_reason";
/// Why a row is late: a column of every port `late`.
pub const LATE_REASON: &str = "late_reason";
/// When a window begins.
pub const WINDOW_START: &str = "window_start";
/// When it ends; this is not in it any more.
pub const WINDOW_END: &str = "window_end";
/// Which size a window has, of nodes with several.
pub const WINDOW_SIZE: &str = "window_size";
/// Number of a window's revision, from 0, of windows that are put out whenever they change.
pub const REVISION: &str = "revision";

/// The fields that rows of a port have beside `ts`, `device`, `arrival` and `position`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// Those that are known, with their types: of 64-bit numbers, texts, booleans, times.
    pub fields: Vec<(String, DataType)>,
    /// Whether there may be others.
    pub is_open: bool,
    /// Whether some of what its select makes could not be told, so that nobody can say what is not
    /// there.
    pub is_partial: bool,
}

/// The type of times.
pub(crate) fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

impl Columns {
    /// Of which nothing is known.
    pub fn unknown() -> Self {
        Self {
            fields: Vec::new(),
            is_open: true,
            is_partial: false,
        }
    }

    /// These and no others.
    pub fn of(fields: impl IntoIterator<Item = (String, DataType)>) -> Self {
        Self {
            fields: fields.into_iter().collect(),
            is_open: false,
            is_partial: false,
        }
    }

    /// Of a stream's fields.
    pub fn of_fields<'a>(fields: impl IntoIterator<Item = &'a StreamField>) -> Self {
        Self::of(
            fields
                .into_iter()
                .map(|field| (field.name.as_str().to_owned(), field.field_type.arrow())),
        )
    }

    /// Whether nothing is known, so that nothing can be judged.
    pub fn is_unknown(&self) -> bool {
        self.is_partial || (self.is_open && self.fields.is_empty())
    }

    /// With one more; one of the same name is replaced.
    #[must_use]
    pub fn with(mut self, name: &str, data_type: DataType) -> Self {
        self.fields
            .retain(|(field, _)| !field.eq_ignore_ascii_case(name));
        self.fields.push((name.to_owned(), data_type));
        self
    }

    /// What an expression over its rows may name.
    pub fn scope(&self, subject: impl Into<String>) -> Scope {
        let mut scope = Scope::new(subject)
            .with_attributes()
            .with(TS, time_type())
            .with(DEVICE, DataType::Utf8)
            .with(ARRIVAL, time_type())
            .with(POSITION, DataType::Int64);
        for (name, data_type) in &self.fields {
            scope = scope.with(name.clone(), data_type.clone());
        }
        scope
    }
}

/// Whether a `*` means this column: the fields, without what every row has.
pub(crate) fn is_field(name: &str) -> bool {
    ![TS, DEVICE, ARRIVAL, POSITION].contains(&name)
}
