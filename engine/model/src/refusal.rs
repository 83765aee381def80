//! Why a batch or a row is not stored. The numbers are on the wire and in the log: never reuse one.

use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        /// Reason for which a batch (below 100) or a single row (100 and above) is not stored.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum RejectCode { $($(#[$doc])* $name = $number,)* }
        impl RejectCode {
            /// Every code, for documentation and metrics.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
            /// The code with this number.
            pub const fn from_number(number: u16) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }
            /// The word used in metrics, in `rejects.code` and in messages.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

codes! {
    /// The batch's bytes are not a valid record batch message of the announced schema.
    MalformedBatch = 1, "malformed_batch";
    /// A column has a type that Quiver does not store.
    UnsupportedType = 2, "unsupported_type";
    /// A column's type conflicts with the stream's declared or learned type.
    TypeConflict = 3, "type_conflict";
    /// A column has a name that belongs to the engine.
    ReservedColumn = 4, "reserved_column";
    /// A field name has characters that are not allowed, or differs from another only in case.
    FieldName = 5, "field_name";
    /// The stream would have more fields, or the device has added more today, than is allowed.
    FieldLimit = 6, "field_limit";
    /// There is no `ts` column, or it is not a timestamp.
    MissingTimestamp = 7, "missing_timestamp";
    /// Event times of the batch span more than 366 days.
    BatchSpan = 8, "batch_span";
    /// A gateway's or operator's batch has no `device` column of text.
    MissingDevice = 9, "missing_device";
    /// The batch has more rows or bytes than the limits allow.
    BatchTooLarge = 10, "batch_too_large";
    /// The batches before this one were declared lost by the sender.
    DeclaredLost = 11, "declared_lost";
    /// The stream is strict, and the batch has a field that is not declared.
    UndeclaredField = 12, "undeclared_field";
    /// The row has no event time.
    NullTimestamp = 100, "null_timestamp";
    /// The row's event time is before 1970 or beyond what microseconds can hold, or a time in a field
    /// is not of the years 1 to 9999.
    TimestampRange = 101, "timestamp_range";
    /// The row's event time is too far ahead of its arrival; it is quarantined.
    FutureTimestamp = 102, "future_timestamp";
    /// The row is for a device that the sender may not speak for, or whose id is malformed.
    NotEnrolled = 103, "not_enrolled";
    /// An integer does not fit into a signed 64-bit one.
    IntegerRange = 104, "integer_range";
    /// An integer for a float64 column has no exact float64.
    InexactFloat = 105, "inexact_float";
    /// A number for a decimal field has more digits after the point than the field is declared
    /// with, or more than 15 digits in all, or is NaN or infinite.
    DecimalScale = 106, "decimal_scale";
}

impl RejectCode {
    /// The number on the wire and in the log.
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// Quarantined rows might be right and are kept for inspection; rejected ones are wrong.
    pub const fn is_quarantine(self) -> bool {
        matches!(self, Self::FutureTimestamp)
    }
}

impl fmt::Display for RejectCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A whole batch is refused for ever: sending the same bytes again would be refused again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BatchRefusal {
    /// The reason, for machines.
    pub code: RejectCode,
    /// What is wrong, where, and how to mend it, for people.
    pub message: String,
}

impl BatchRefusal {
    /// A refusal with its message.
    pub fn new(code: RejectCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// One row of a batch that is not stored; the others are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusedRow {
    /// Index of the row in the batch as sent.
    pub row: u32,
    /// Why.
    pub code: RejectCode,
}

/// Things that were seen, did no harm, and are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerdictCounts {
    /// Rows whose `device` value differs from the identity of the device that sent them.
    pub device_mismatch: u32,
    /// Timestamps that lost digits below a microsecond.
    pub truncated_timestamps: u32,
}

/// What ingest decided about a batch. It is part of the log record: recovery obeys it and never
/// judges again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Rows that are not stored, ascending by row.
    pub refused: Vec<RefusedRow>,
    /// What was counted.
    pub counts: VerdictCounts,
}
