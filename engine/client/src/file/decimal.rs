//! Decimal numbers as they are written, and what of them a type holds.

/// The digits and the magnitude of a number that is written in decimal.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Decimal {
    is_negative: bool,
    /// From the first that is not 0 on; empty for zero. Zeros at the end of a fraction, or of a
    /// number with an exponent, say nothing and are left out; those of a whole number are digits.
    digits: String,
    /// The point stands behind this many of the digits.
    point: i64,
    has_exponent: bool,
}

impl Decimal {
    /// Takes a number apart: sign, digits, point, exponent. `None` for anything else.
    fn parse(text: &str) -> Option<Self> {
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, Some(exponent)),
            None => (unsigned, None),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.len() + fraction.len() == 0 || !are_digits(whole) || !are_digits(fraction) {
            return None;
        }
        let power: i64 = exponent.map_or(Some(0), |exponent| exponent.parse().ok())?;
        let mut digits = [whole, fraction].concat();
        let least = match exponent {
            Some(_) => 0,
            None => whole.len(),
        };
        let kept = digits.trim_end_matches('0').len().max(least);
        digits.truncate(kept);
        let zeros = digits.len() - digits.trim_start_matches('0').len();
        digits.drain(..zeros);
        Some(Self {
            is_negative: text.starts_with('-'),
            digits,
            point: i64::try_from(whole.len())
                .ok()?
                .saturating_add(power)
                .saturating_sub(i64::try_from(zeros).ok()?),
            has_exponent: exponent.is_some(),
        })
    }
}

/// Significant digits that float64 keeps of any normal number.
const FLOAT_DIGITS: usize = 15;
/// No float64 has more significant digits than these, written in full.
const FLOAT_DIGITS_MAX: usize = 767;

/// A number as float64, if it is still the same one then: no digit of a whole number is another,
/// nor any of the first 15 of a fraction, and what is not zero is neither zero nor infinite. `inf`
/// and `nan` are words that mean what they say.
pub(super) fn float(text: &str) -> Option<f64> {
    let value: f64 = text.parse().ok()?;
    match Decimal::parse(text) {
        Some(decimal) => is_kept(&decimal, value).then_some(value),
        None => (!value.is_finite()).then_some(value),
    }
}

fn is_kept(decimal: &Decimal, value: f64) -> bool {
    let count = decimal.digits.len();
    if count == 0 {
        return true;
    }
    if value == 0.0 || !value.is_finite() {
        return false;
    }
    let digits_before_point = decimal.point;
    let is_whole = i64::try_from(count).is_ok_and(|count| digits_before_point >= count);
    let is_large = is_whole || digits_before_point > FLOAT_DIGITS as i64;
    if value.is_normal() && (count <= FLOAT_DIGITS || !is_large) {
        return true;
    }
    if count > FLOAT_DIGITS_MAX {
        return false;
    }
    // With a precision a number is written in full; without one, as the fewest digits that mean it,
    // which is how programs write exponents.
    let in_full = format!("{:.*e}", count - 1, value.abs());
    let shortest = format!("{:e}", value.abs());
    is_written(&in_full, &decimal.digits)
        || (decimal.has_exponent && is_written(&shortest, &decimal.digits))
}

/// Whether a number in exponential notation has just these digits.
fn is_written(number: &str, digits: &str) -> bool {
    let mantissa = number
        .split_once('e')
        .map_or(number, |(mantissa, _)| mantissa);
    mantissa
        .bytes()
        .filter(|byte| *byte != b'.')
        .eq(digits.bytes())
}

/// A whole number, also if it is written as a decimal without a fraction or with an exponent.
pub(super) fn integer(text: &str) -> Option<i64> {
    let decimal = Decimal::parse(text)?;
    if decimal.digits.is_empty() {
        return Some(0);
    }
    let places = usize::try_from(decimal.point).ok()?;
    let zeros = places.checked_sub(decimal.digits.len())?;
    // No int64 has more than 19 digits.
    if places > 19 {
        return None;
    }
    let sign = if decimal.is_negative { "-" } else { "" };
    format!("{sign}{}{}", decimal.digits, "0".repeat(zeros))
        .parse()
        .ok()
}

/// `text · 10^places`, with digits beyond cut; `None` if it is no number, or beyond int64.
pub(super) fn scaled(text: &str, places: usize) -> Option<i64> {
    let decimal = Decimal::parse(text)?;
    if decimal.digits.is_empty() {
        return Some(0);
    }
    let places = decimal.point.checked_add(i64::try_from(places).ok()?)?;
    let Ok(places) = usize::try_from(places) else {
        return Some(0);
    };
    if places > 19 {
        return None;
    }
    let digits: String = decimal
        .digits
        .chars()
        .chain(std::iter::repeat('0'))
        .take(places)
        .collect();
    if digits.is_empty() {
        return Some(0);
    }
    let sign = if decimal.is_negative { "-" } else { "" };
    format!("{sign}{digits}").parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_become_float64_only_if_they_stay_the_same() {
        for (text, value) in [
            ("9007199254740992", 9_007_199_254_740_992.0),
            ("9007199254740992.0", 9_007_199_254_740_992.0),
            ("18446744073709551616", 18_446_744_073_709_551_616.0),
            ("0.1234567890123456789", 0.123_456_789_012_345_68),
            ("0.99999999999999999999", 1.0),
            ("1234567890123456.5", 1_234_567_890_123_456.5),
            ("1e30", 1e30),
            ("1.7976931348623157e308", f64::MAX),
            ("4.9e-324", 4.9e-324),
            ("4.9406564584124654e-324", 4.9e-324),
            ("5E-324", 4.9e-324),
            ("0e-999", 0.0),
            ("-0.0", 0.0),
            (".5", 0.5),
            ("+5.", 5.0),
            ("inf", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
        ] {
            assert_eq!(float(text), Some(value), "{text}");
        }
        for text in [
            "9007199254740993",
            "-9007199254740993",
            "9007199254740993.0",
            "9007199254740993.000",
            "9007199254740993.5",
            "9.007199254740993e15",
            "90071992547409930e-1",
            "4503599627370497.5",
            "1234567890123456.7",
            "18446744073709551615",
            "100000000000000000000000",
            "1e-400",
            "-1e-400",
            "0.0000000001e-320",
            "1.2345678e-322",
            "1e999",
            "1.8e308",
            "",
            "e5",
            ".",
            "1e",
            "0x10",
        ] {
            assert_eq!(float(text), None, "{text}");
        }
        assert!(float("nan").is_some_and(f64::is_nan));
    }

    #[test]
    fn whole_numbers_are_read_to_the_last_digit_however_they_are_written() {
        for (text, value) in [
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
            ("007", 7),
            ("5.000", 5),
            ("1e3", 1_000),
            ("1.5e1", 15),
            ("-0", 0),
        ] {
            assert_eq!(integer(text), Some(value), "{text}");
        }
        for text in ["9223372036854775808", "1.5", "1e-1", "1e19", "", "x", "inf"] {
            assert_eq!(integer(text), None, "{text}");
        }
    }

    #[test]
    fn a_scaled_number_has_its_further_digits_cut() {
        for (text, places, value) in [
            ("1.25", 6, Some(1_250_000)),
            ("-0.5", 6, Some(-500_000)),
            ("-1.9999999", 6, Some(-1_999_999)),
            ("1.7e9", 6, Some(1_700_000_000_000_000)),
            ("0.00000001", 6, Some(0)),
            ("99999999999999999", 6, None),
            ("soon", 6, None),
        ] {
            assert_eq!(scaled(text, places), value, "{text}");
        }
    }

    proptest! {
        /// What any program writes of a float64 is one.
        #[test]
        fn every_float64_is_read_as_it_was_written(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            for text in [format!("{value:e}"), format!("{value:.16e}"), format!("{value:.40}")] {
                if text.contains('e') || value.abs() > 1e-10 {
                    prop_assert_eq!(float(&text), Some(value), "{}", text);
                }
            }
        }
    }
}
