//! What an expression may name.

use arrow_schema::DataType;

/// The qualifier of a device's attributes: `device.fleet`.
pub const ATTRIBUTES: &str = "device";

/// The qualifier of last values: `last.readings.velocity`.
pub const LAST: &str = "last";

/// A stream whose last values an expression may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastStream {
    /// Its name.
    pub name: String,
    /// Its fields, as far as they are known.
    pub fields: Vec<ScopeColumn>,
    /// Whether there may be others: of these no value is known yet.
    pub is_open: bool,
}

/// A column that an expression may name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeColumn {
    /// Its name.
    pub name: String,
    /// Its type.
    pub data_type: DataType,
}

/// The columns that an expression may name, and whether it may ask for attributes of the row's
/// device. Names are unique ignoring case, as the fields of a stream are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    columns: Vec<ScopeColumn>,
    has_attributes: bool,
    lasts: Vec<LastStream>,
    /// What the columns are of, for messages: `stream readings`.
    subject: String,
}

impl Scope {
    /// No columns; `subject` says what they are of, for messages: `stream readings`.
    pub fn new(subject: impl Into<String>) -> Self {
        Self {
            subject: subject.into(),
            ..Self::default()
        }
    }

    /// With attributes of the row's device, which are text, and null where a device has none.
    #[must_use]
    pub fn with_attributes(mut self) -> Self {
        self.has_attributes = true;
        self
    }

    /// With last values of these streams.
    #[must_use]
    pub fn with_lasts(mut self, lasts: impl IntoIterator<Item = LastStream>) -> Self {
        self.lasts.extend(lasts);
        self
    }

    /// Streams whose last values may be asked for.
    pub fn lasts(&self) -> &[LastStream] {
        &self.lasts
    }

    /// The type of a last value.
    pub(crate) fn last_type(&self, stream: &str, field: &str) -> DataType {
        let stream = self.lasts.iter().find(|known| known.name == stream);
        let fields = stream.iter().flat_map(|stream| &stream.fields);
        let mut found = fields.filter(|known| known.name == field);
        let field = found.next();
        field.map_or(DataType::Null, |field| field.data_type.clone())
    }

    /// With another column, whose index is the number of columns before.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, data_type: DataType) -> Self {
        self.columns.push(ScopeColumn {
            name: name.into(),
            data_type,
        });
        self
    }

    /// The columns, by index.
    pub fn columns(&self) -> &[ScopeColumn] {
        &self.columns
    }

    /// What the columns are of.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Whether attributes of the row's device may be named.
    pub fn has_attributes(&self) -> bool {
        self.has_attributes
    }

    /// The column of this name: exactly so, or else the one that differs in case only if it was
    /// written without quotes.
    pub(crate) fn find(&self, name: &str, is_quoted: bool) -> Option<usize> {
        let exact = self.columns.iter().position(|column| column.name == name);
        exact.or_else(|| {
            let alike = |column: &ScopeColumn| column.name.eq_ignore_ascii_case(name);
            (!is_quoted)
                .then(|| self.columns.iter().position(alike))
                .flatten()
        })
    }
}
