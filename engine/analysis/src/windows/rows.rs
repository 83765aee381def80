//! The rows that are pushed.

use arrow_array::{Array, ArrayRef, BooleanArray, DictionaryArray, StringArray, types::Int32Type};

use crate::{
    cells::Column,
    spec::{Key, Kind, WindowSpec},
};

/// Rows of one record, in position order. All columns are equally long; nothing but keys and
/// arguments may be null.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// When each happened, in microseconds since 1970, UTC.
    pub ts: &'a [i64],
    /// When each arrived.
    pub arrival: &'a [i64],
    /// Of which device each is.
    pub device: &'a DictionaryArray<Int32Type>,
    /// As many columns as the key has.
    pub keys: &'a [&'a StringArray],
    /// Columns of the types of the arguments.
    pub arguments: &'a [ArrayRef],
    /// Which rows open a state; needed if there is a kind of that shape. Null is no.
    pub open: Option<&'a BooleanArray>,
    /// Which rows close a state; as `open`.
    pub close: Option<&'a BooleanArray>,
}

/// Why rows are not those of the windows. This is a mistake of the caller; nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowsError {
    /// A column has another length than `ts`.
    #[error("{what} has another length than `ts`")]
    Length {
        /// Which column.
        what: &'static str,
    },
    /// There are more or fewer columns.
    #[error("there are {got} {what}, where {expected} were defined")]
    Count {
        /// Of what.
        what: &'static str,
        /// How many came.
        got: usize,
        /// How many should.
        expected: usize,
    },
    /// An argument is of another type.
    #[error("argument {argument} is of another type than was defined")]
    Type {
        /// Which.
        argument: usize,
    },
    /// There are state windows, but no conditions.
    #[error("a state window needs the columns `open` and `close`")]
    NoConditions,
    /// More rows than can be numbered.
    #[error("a batch has at most {} rows", u32::MAX)]
    TooMany,
    /// A row without a device.
    #[error("a row has no device")]
    NoDevice,
}

impl<'a> Rows<'a> {
    /// The arguments as slices, if everything fits the definition.
    pub(crate) fn columns(&self, spec: &WindowSpec) -> Result<Vec<Column<'a>>, RowsError> {
        let rows = self.ts.len();
        if u32::try_from(rows).is_err() {
            return Err(RowsError::TooMany);
        }
        let length = |what: &'static str, len: usize| {
            if len == rows {
                return Ok(());
            }
            Err(RowsError::Length { what })
        };
        let count = |what: &'static str, got: usize, expected: usize| {
            if got == expected {
                return Ok(());
            }
            Err(RowsError::Count {
                what,
                got,
                expected,
            })
        };
        length("`arrival`", self.arrival.len())?;
        length("`device`", self.device.len())?;
        if self.device.null_count() > 0 {
            return Err(RowsError::NoDevice);
        }
        count("key columns", self.keys.len(), spec.key.columns())?;
        count("arguments", self.arguments.len(), spec.arguments.len())?;
        for key in self.keys {
            length("a key column", key.len())?;
        }
        let has_state = |kind: &Kind| matches!(kind, Kind::State { .. });
        if spec.kinds.iter().any(has_state) {
            let (Some(open), Some(close)) = (self.open, self.close) else {
                return Err(RowsError::NoConditions);
            };
            length("`open`", open.len())?;
            length("`close`", close.len())?;
        }
        let mut columns = Vec::with_capacity(self.arguments.len());
        for (argument, (array, kind)) in self.arguments.iter().zip(&spec.arguments).enumerate() {
            length("an argument", array.len())?;
            columns.push(Column::new(array, *kind).ok_or(RowsError::Type { argument })?);
        }
        Ok(columns)
    }

    /// The number that a row's device has among the names of the batch.
    #[inline]
    pub(crate) fn device_number(&self, row: usize) -> usize {
        let numbers = self.device.keys().values();
        let number = numbers.get(row).copied().unwrap_or_default();
        usize::try_from(number).unwrap_or_default()
    }

    /// The names of the batch's devices.
    pub(crate) fn device_names(&self) -> Option<&'a StringArray> {
        self.device.values().as_any().downcast_ref()
    }

    /// Writes a row's key columns; the device's name is written before by whom needs it.
    pub(crate) fn write_key(&self, row: usize, key: &mut Vec<u8>) {
        for column in self.keys {
            super::keys::write_text(column.is_valid(row).then(|| column.value(row)), key);
        }
    }
}

/// Whether a condition holds in a row.
pub(crate) fn holds(condition: Option<&BooleanArray>, row: usize) -> bool {
    condition.is_some_and(|condition| condition.is_valid(row) && condition.value(row))
}

impl Key {
    /// How many texts a key is made of, the device's name included.
    pub(crate) const fn texts(self) -> usize {
        self.columns() + if self.has_device() { 1 } else { 0 }
    }
}
