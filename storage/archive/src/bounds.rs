//! Least and greatest values: of pages and column chunks for Parquet, of files for Delta.

use std::cmp::Ordering;

use parquet::{
    basic::Type,
    data_type::ByteArray,
    file::statistics::{Statistics, ValueStatistics},
};

use crate::gather::Number;

/// Exponent of a float64 that is infinite or not a number.
const NOT_FINITE: u64 = 0x7ff0_0000_0000_0000;

/// Least and greatest of some values.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Bounds {
    /// There are none, or none that can be compared.
    None,
    Integers(i64, i64),
    /// Without those that are not numbers.
    Floats(f64, f64),
    /// In byte order.
    Texts(String, String),
}

impl Bounds {
    /// Of numbers, as bits.
    pub(crate) fn of(number: Number, bits: &[u64]) -> Self {
        match number {
            Number::Integer => {
                let (mut least, mut greatest) = (i64::MAX, i64::MIN);
                for bits in bits {
                    least = least.min(bits.cast_signed());
                    greatest = greatest.max(bits.cast_signed());
                }
                if least <= greatest {
                    Self::Integers(least, greatest)
                } else {
                    Self::None
                }
            }
            Number::Float => {
                let (mut least, mut greatest) = (f64::INFINITY, f64::NEG_INFINITY);
                // Comparisons are false for what is not a number. Without a branch: several values
                // at a time.
                for bits in bits {
                    let value = f64::from_bits(*bits);
                    least = if value < least { value } else { least };
                    greatest = if value > greatest { value } else { greatest };
                }
                if least <= greatest {
                    Self::Floats(least, greatest)
                } else {
                    Self::None
                }
            }
        }
    }

    /// Of these values and others.
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Integers(least, greatest), Self::Integers(low, high)) => {
                Self::Integers(least.min(low), greatest.max(high))
            }
            (Self::Floats(least, greatest), Self::Floats(low, high)) => {
                Self::Floats(least.min(low), greatest.max(high))
            }
            (Self::Texts(least, greatest), Self::Texts(low, high)) => {
                Self::Texts(least.min(low), greatest.max(high))
            }
            (Self::None, bounds) | (bounds, _) => bounds,
        }
    }

    /// How the least and the greatest value compare with those of other bounds.
    pub(crate) fn compare(&self, other: &Self) -> Option<(Ordering, Ordering)> {
        match (self, other) {
            (Self::Integers(least, greatest), Self::Integers(low, high)) => {
                Some((least.cmp(low), greatest.cmp(high)))
            }
            (Self::Floats(least, greatest), Self::Floats(low, high)) => {
                Some((least.partial_cmp(low)?, greatest.partial_cmp(high)?))
            }
            (Self::Texts(least, greatest), Self::Texts(low, high)) => {
                Some((least.cmp(low), greatest.cmp(high)))
            }
            _ => None,
        }
    }

    /// With zeros as Parquet wants them: a least one is negative, a greatest one positive, as
    /// readers may tell the two apart.
    fn zeros(least: f64, greatest: f64) -> (f64, f64) {
        let signed = |value: f64, zero: f64| if value == 0.0 { zero } else { value };
        (signed(least, -0.0), signed(greatest, 0.0))
    }

    /// As the column index has them; `None` if there are none.
    pub(crate) fn bytes(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        match self {
            Self::None => None,
            Self::Integers(least, greatest) => Some((
                least.to_le_bytes().to_vec(),
                greatest.to_le_bytes().to_vec(),
            )),
            Self::Floats(least, greatest) => {
                let (least, greatest) = Self::zeros(*least, *greatest);
                Some((
                    least.to_le_bytes().to_vec(),
                    greatest.to_le_bytes().to_vec(),
                ))
            }
            Self::Texts(least, greatest) => {
                Some((least.as_bytes().to_vec(), greatest.as_bytes().to_vec()))
            }
        }
    }

    /// The statistics of a column chunk of this type.
    pub(crate) fn statistics(&self, column: Type, nulls: u64) -> Statistics {
        match (self, column) {
            (Self::Integers(least, greatest), _) => {
                ValueStatistics::new(Some(*least), Some(*greatest), None, Some(nulls), false)
                    .with_backwards_compatible_min_max(true)
                    .into()
            }
            (Self::Floats(least, greatest), _) => {
                let (least, greatest) = Self::zeros(*least, *greatest);
                ValueStatistics::new(Some(least), Some(greatest), None, Some(nulls), false)
                    .with_backwards_compatible_min_max(true)
                    .into()
            }
            (Self::Texts(least, greatest), _) => {
                let text = |text: &String| Some(ByteArray::from(text.as_str()));
                Statistics::byte_array(text(least), text(greatest), None, Some(nulls), false)
            }
            (Self::None, Type::DOUBLE) => Statistics::double(None, None, None, Some(nulls), false),
            (Self::None, Type::BYTE_ARRAY) => {
                Statistics::byte_array(None, None, None, Some(nulls), false)
            }
            (Self::None, _) => Statistics::int64(None, None, None, Some(nulls), false),
        }
    }
}

/// Whether all of these float64 are numbers, and finite: only then bounds say something about each.
pub(crate) fn are_finite(bits: &[u64]) -> bool {
    bits.iter().fold(true, |are_finite, bits| {
        are_finite & (bits & NOT_FINITE != NOT_FINITE)
    })
}
