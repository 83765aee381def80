//! What the values of a column say of its type.
//!
//! The first rows say whether it is numbers, booleans or text: a later value of another kind is an
//! error, not a change of type, because it is more often a mistake than a surprise. Numbers are
//! float64, also if all of this file's are whole: the next file of the stream may have fractions,
//! and a field never changes its type.

use quiver_model::FieldType;

/// Rows that say of what kind a column is.
pub(super) const ROWS_FOR_TYPES: u64 = 1_000;

/// What one value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Number,
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
        } else if text.parse::<f64>().is_ok() {
            Self::Number
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
    number: bool,
    boolean: bool,
    text: bool,
    empty_text: bool,
}

impl Evidence {
    /// Whether no value was seen that says something, so that a later row still can.
    pub fn is_open(self) -> bool {
        !(self.number || self.boolean || self.text)
    }

    /// A value in row `row`, from 0.
    pub fn add(&mut self, kind: Kind, row: u64) {
        if row < ROWS_FOR_TYPES || self.is_open() {
            match kind {
                Kind::Number => self.number = true,
                Kind::Bool => self.boolean = true,
                Kind::Text => self.text = true,
                Kind::EmptyText => self.empty_text = true,
            }
        }
    }

    /// The type that holds them all; `None` without a value.
    pub fn field_type(self) -> Option<FieldType> {
        match (self.number, self.boolean, self.text) {
            (false, false, false) => self.empty_text.then_some(FieldType::Utf8),
            (true, false, false) => Some(FieldType::Float64),
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

/// What a value that is not of the type should have been, as the end of "is not".
pub(super) fn expectation(field_type: FieldType, text: &str) -> String {
    let is_number = text.parse::<f64>().is_ok();
    match field_type {
        FieldType::Float64 if is_number => {
            "a number that float64 can hold (whole ones exactly)".into()
        }
        FieldType::Int64 if is_number => "a whole number that int64 can hold".into(),
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
        check(&["1", "-5", "0"], Some(FieldType::Float64));
        check(&["1", "0.1"], Some(FieldType::Float64));
        check(&["1", "9223372036854775808"], Some(FieldType::Float64));
        check(&["true", "FALSE"], Some(FieldType::Bool));
        check(&["true", "1"], Some(FieldType::Utf8));
        for identifier in ["007", "-01", "00.5", "00"] {
            check(&["1", identifier], Some(FieldType::Utf8));
        }
        check(&["0.5", "0", "-0.25"], Some(FieldType::Float64));
    }
}
