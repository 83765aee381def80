//! Decimal fields: float64 fields whose values have a declared number of digits after the point.
//! They are float64 on the wire, in memory and in SQL; the archive stores them as integers, exactly.

/// Most digits after the point.
const DIGITS_MAX: u8 = 9;
/// Scaled values are smaller: a decimal of at most 15 digits survives the way to float64 and back
/// (IEEE 754 binary64 has `DBL_DIG` = 15).
const SCALED_LIMIT: f64 = 1e15;
const POWERS: [f64; DIGITS_MAX as usize + 1] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

/// How many digits after the decimal point the values of a field have: 0 to 9.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DecimalScale(u8);

impl DecimalScale {
    /// Every scale, smallest first.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=DIGITS_MAX).map(Self)
    }

    /// The scale of so many digits; `None` if there are more than 9.
    pub const fn new(digits: u8) -> Option<Self> {
        if digits <= DIGITS_MAX {
            Some(Self(digits))
        } else {
            None
        }
    }

    /// Digits after the point.
    pub const fn digits(self) -> u8 {
        self.0
    }

    fn power(self) -> f64 {
        POWERS.get(usize::from(self.0)).copied().unwrap_or(1.0)
    }

    /// `value` × 10^digits, if that is an integer of at most 15 digits from which
    /// [`Self::value`] makes the same number again. `None` for NaN and infinities. Negative zero
    /// is zero.
    pub fn scaled(self, value: f64) -> Option<i64> {
        let scaled = (value * self.power()).round_ties_even();
        // False for NaN, too.
        let fits = scaled.abs() < SCALED_LIMIT && scaled / self.power() == value;
        fits.then_some(scaled as i64)
    }

    /// Whether [`Self::scaled`] has a result.
    pub fn fits(self, value: f64) -> bool {
        self.scaled(value).is_some()
    }

    /// `scaled` / 10^digits, the nearest float64: both are exact in float64, and a division of
    /// IEEE 754 rounds once.
    pub fn value(self, scaled: i64) -> f64 {
        scaled as f64 / self.power()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scale(digits: u8) -> DecimalScale {
        DecimalScale::new(digits).unwrap()
    }

    #[test]
    fn what_does_not_fit_is_told() {
        for value in [
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            0.001,
            1e15,
            f64::MAX,
        ] {
            assert_eq!(scale(2).scaled(value), None, "{value}");
        }
        // One bit beside a decimal is another number.
        assert!(!scale(2).fits(f64::from_bits(0.07_f64.to_bits() + 1)));
        assert_eq!(scale(2).scaled(0.07), Some(7));
        assert_eq!(scale(2).scaled(-0.0), Some(0));
        assert_eq!(scale(0).scaled(-3.0), Some(-3));
        assert_eq!(DecimalScale::new(10), None);
        assert_eq!(DecimalScale::all().count(), 10);
    }

    proptest! {
        /// The same text with a point, read by the standard library, is the same number.
        #[test]
        fn decimals_of_15_digits_survive(
            scaled in -999_999_999_999_999_i64..=999_999_999_999_999,
            digits in 0_u8..=9,
        ) {
            let scale = scale(digits);
            let value: f64 = format!("{scaled}e-{digits}").parse().unwrap();
            prop_assert_eq!(scale.value(scaled).to_bits(), value.to_bits());
            prop_assert_eq!(scale.scaled(value), Some(scaled));
        }

        /// What fits comes back, whatever the bits are.
        #[test]
        fn what_fits_comes_back_exactly(bits in any::<u64>(), digits in 0_u8..=9) {
            let value = f64::from_bits(bits);
            if let Some(scaled) = scale(digits).scaled(value) {
                prop_assert_eq!((scale(digits).value(scaled) + 0.0).to_bits(), (value + 0.0).to_bits());
            }
        }
    }
}
