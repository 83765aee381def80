//! What the values of a column say of its type.
//!
//! The first rows say whether it is numbers, booleans or text: a later value of another kind is an
//! error, not a change of type, because it is more often a mistake than a surprise. Whether numbers
//! are all whole is said by the whole file.

use quiver_model::FieldType;

/// Rows that say of what kind a column is.
pub(super) const ROWS_FOR_TYPES: u64 = 1_000;

/// What one value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A whole number that int64 holds.
    Whole,
    /// Any other number.
    Float,
    Bool,
    Text,
    /// A text of no characters, which also numbers are left out with.
    EmptyText,
}

impl Kind {
    /// What a text looks like. Digits behind a leading zero, as in 007, are an identifier: as a
    /// number they would be another one.
    pub fn of(text: &str) -> Self {
        if has_leading_zeros(text) {
            Self::Text
        } else if text.parse::<i64>().is_ok() {
            Self::Whole
        } else if text.parse::<f64>().is_ok() {
            Self::Float
        } else if boolean(text).is_some() {
            Self::Bool
        } else {
            Self::Text
        }
    }
}

/// What is known of a column's values so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Evidence {
    whole: bool,
    float: bool,
    boolean: bool,
    text: bool,
    empty_text: bool,
}

impl Evidence {
    /// Whether a later row can still say something new.
    pub fn is_open(self) -> bool {
        !(self.float || self.boolean || self.text)
    }

    /// A value in row `row`, from 0.
    pub fn add(&mut self, kind: Kind, row: u64) {
        let is_first = !(self.whole || self.float || self.boolean || self.text);
        if row < ROWS_FOR_TYPES || is_first {
            match kind {
                Kind::Whole => self.whole = true,
                Kind::Float => self.float = true,
                Kind::Bool => self.boolean = true,
                Kind::Text => self.text = true,
                Kind::EmptyText => self.empty_text = true,
            }
        } else if kind == Kind::Float && self.is_open() {
            self.float = true;
        }
    }

    /// The type that holds them all; `None` without a value.
    pub fn field_type(self) -> Option<FieldType> {
        match (self.whole || self.float, self.boolean, self.text) {
            (false, false, false) => self.empty_text.then_some(FieldType::Utf8),
            (true, false, false) if self.float => Some(FieldType::Float64),
            (true, false, false) => Some(FieldType::Int64),
            (false, true, false) => Some(FieldType::Bool),
            _ => Some(FieldType::Utf8),
        }
    }
}

/// `true` and `false`, in any case.
pub(super) fn boolean(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

/// Whether a number is written with zeros in front that it would lose.
pub(super) fn has_leading_zeros(text: &str) -> bool {
    let bytes = text.strip_prefix(['-', '+']).unwrap_or(text).as_bytes();
    matches!(bytes, [b'0', b'0'..=b'9', ..]) && text.parse::<f64>().is_ok()
}

/// A number. `inf` and `nan` are words that mean what they say; digits that make an infinity are
/// a number that would be another one when it is stored, and so is a whole number that float64
/// does not hold to its last digit.
pub(super) fn float(text: &str) -> Option<f64> {
    let value: f64 = text.parse().ok()?;
    let is_kept = value.is_finite() || !text.bytes().any(|byte| byte.is_ascii_digit());
    (is_kept && is_exact(text, value)).then_some(value)
}

/// Whether `value`, read from `text`, is it to the last digit, if it is a whole number.
fn is_exact(text: &str, value: f64) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    // Any 15 digits are kept.
    if digits.len() <= 15 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return true;
    }
    // With a precision it is written in full, not as the shortest digits that mean it.
    format!("{:.0}", value.abs()) == digits.trim_start_matches('0')
}

/// Whole numbers, also if written as decimals without a fraction.
pub(super) fn integer(text: &str) -> Option<i64> {
    let whole = match text.split_once('.') {
        Some((whole, zeros)) if zeros.bytes().all(|byte| byte == b'0') => whole,
        Some(_) => return None,
        None => text,
    };
    whole.parse().ok()
}

/// What a value that is not of the type should have been, as the end of "is not".
pub(super) fn expectation(field_type: FieldType, text: &str) -> String {
    let is_number = text.parse::<f64>().is_ok();
    match field_type {
        FieldType::Float64 if is_number => {
            "a number that float64 can hold (whole ones exactly)".into()
        }
        FieldType::Int64 if is_number => {
            "a whole number that int64 can hold, in a column of such numbers".into()
        }
        other => other.as_str().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(values: &[&str], expected: Option<FieldType>) {
        let mut evidence = Evidence::default();
        for (row, value) in (0..).zip(values) {
            evidence.add(Kind::of(value), row);
        }
        assert_eq!(evidence.field_type(), expected, "{values:?}");
    }

    #[test]
    fn a_column_has_the_type_that_holds_all_its_values() {
        check(&[], None);
        check(&["1", "-9223372036854775808", "0"], Some(FieldType::Int64));
        check(&["1", "0.1"], Some(FieldType::Float64));
        check(&["1", "9223372036854775808"], Some(FieldType::Float64));
        check(&["true", "FALSE"], Some(FieldType::Bool));
        check(&["true", "1"], Some(FieldType::Utf8));
        for identifier in ["007", "-01", "00.5", "00"] {
            check(&["1", identifier], Some(FieldType::Utf8));
        }
        check(&["0.5", "0", "-0.25"], Some(FieldType::Float64));
    }

    #[test]
    fn whole_numbers_become_float64_only_if_it_holds_them() {
        assert_eq!(float("9007199254740992"), Some(9_007_199_254_740_992.0));
        assert_eq!(float("9007199254740993"), None);
        assert_eq!(float("-9007199254740993"), None);
        assert_eq!(
            float("18446744073709551616"),
            Some(18_446_744_073_709_551_616.0)
        );
        assert_eq!(float("18446744073709551615"), None);
        assert_eq!(
            float("0.1234567890123456789"),
            Some(0.123_456_789_012_345_68)
        );
        assert_eq!(float("1e999"), None);
        assert_eq!(float("inf"), Some(f64::INFINITY));
    }
}
