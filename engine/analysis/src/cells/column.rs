//! The columns that are aggregated, as slices.

use std::borrow::Cow;

use arrow_array::{
    Array, ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray,
};
use arrow_buffer::NullBuffer;

use crate::{spec::ArgumentType, states::distinct::hash};

/// An argument's values.
#[derive(Debug)]
pub(crate) struct Column<'a> {
    pub(crate) values: Values<'a>,
    /// Which are there; all of them if `None`.
    pub(crate) nulls: Option<&'a NullBuffer>,
}

/// Values by row; of a null, anything.
#[derive(Debug)]
pub(crate) enum Values<'a> {
    Float(&'a [f64]),
    Int(Cow<'a, [i64]>),
    Text(&'a StringArray),
}

impl<'a> Column<'a> {
    /// The values of an array; `None` if it is of another type.
    pub(crate) fn new(array: &'a ArrayRef, argument: ArgumentType) -> Option<Self> {
        let any = array.as_any();
        let values = match argument {
            ArgumentType::Float64 => Values::Float(any.downcast_ref::<Float64Array>()?.values()),
            ArgumentType::Int64 => {
                Values::Int(Cow::Borrowed(any.downcast_ref::<Int64Array>()?.values()))
            }
            ArgumentType::Time => Values::Int(Cow::Borrowed(
                any.downcast_ref::<TimestampMicrosecondArray>()?.values(),
            )),
            ArgumentType::Bool => {
                let bits = any.downcast_ref::<BooleanArray>()?.values().iter();
                Values::Int(bits.map(i64::from).collect())
            }
            ArgumentType::Text => Values::Text(any.downcast_ref::<StringArray>()?),
        };
        let nulls = array.nulls().filter(|nulls| nulls.null_count() > 0);
        Some(Self { values, nulls })
    }

    /// Whether there is a value in a row.
    #[inline]
    pub(crate) fn has(&self, row: usize) -> bool {
        self.nulls.is_none_or(|nulls| nulls.is_valid(row))
    }

    /// A row's value as a float; of a text, none.
    pub(crate) fn number(&self, row: usize) -> f64 {
        let number = match &self.values {
            Values::Float(values) => values.get(row).copied(),
            Values::Int(values) => values.get(row).map(|value| *value as f64),
            Values::Text(_) => None,
        };
        number.unwrap_or(f64::NAN)
    }

    /// A row's value as a hash.
    pub(crate) fn hash(&self, row: usize) -> u64 {
        match &self.values {
            Values::Float(values) => hash::number(values.get(row).copied().unwrap_or_default()),
            Values::Int(values) => hash::whole(values.get(row).copied().unwrap_or_default()),
            Values::Text(texts) => hash::bytes(texts.value(row).as_bytes()),
        }
    }
}
