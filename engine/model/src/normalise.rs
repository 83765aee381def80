//! From a decoded wire batch to stored types, in two steps: [`judge`] decides (once, at ingest),
//! [`apply`] obeys (at ingest and again at every replay of the log).

use std::{collections::HashSet, sync::Arc, time::Duration};

use arrow_array::{
    Array, ArrayRef, DictionaryArray, Int64Array, RecordBatch, TimestampMicrosecondArray,
    TimestampMillisecondArray, TimestampNanosecondArray, TimestampSecondArray, UInt32Array,
    UInt64Array,
    cast::AsArray,
    types::{Float64Type, Int32Type, UInt64Type},
};
use arrow_buffer::{NullBuffer, ScalarBuffer};
use arrow_cast::cast;
use arrow_schema::{DataType, Schema, TimeUnit};

use crate::{
    ARRIVAL, BatchRefusal, CheckedBatch, DEVICE, DecimalScale, FIELD_TIME_MAX, FIELD_TIME_MIN,
    FieldName, FieldType, POSITION, QUIVER_DAY, RefusedRow, RejectCode, SenderId, SenderKind,
    StreamField, StreamName, StreamSchema, TS, Timestamp, Verdict, VerdictCounts,
    devices::{constant_device, count_mismatches, judge_devices, named_devices},
    gather::gather_names,
    schema::FIXED_COLUMN_COUNT,
};

/// Most days that the event times of one batch may span.
const BATCH_SPAN_DAYS_MAX: i64 = 366;
const DAY_US: i64 = 86_400_000_000;
/// Largest magnitude up to which every integer has an exact float64.
const EXACT_FLOAT_MAX: i64 = 1 << 53;

/// What [`judge`] needs to know beside the batch.
pub struct NormaliseContext<'a> {
    /// Who sent the batch.
    pub sender: &'a SenderId,
    /// The stream it was sent to.
    pub stream: &'a StreamName,
    /// The newest schema of the stream, if it exists.
    pub schema: Option<&'a StreamSchema>,
    /// Record time at which the batch reached the engine.
    pub now: Timestamp,
    /// How far ahead of its arrival an event may be before it is quarantined.
    pub future_limit: Duration,
    /// Whether the sender may speak for this device (asked for gateways and operators only).
    pub may_speak_for: &'a dyn Fn(&str) -> bool,
}

/// What [`judge`] decided.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// Rows refused and things counted.
    pub verdict: Verdict,
    /// Fields that the stream does not have yet, in column order. The batch has to wait until a
    /// schema with them is durable, and be judged again under it.
    pub new_fields: Vec<StreamField>,
    /// The devices that the rows name, refused rows included: [`apply`] can do without, and is
    /// quicker with them. `None` for a device's own rows.
    pub devices: Option<DictionaryArray<Int32Type>>,
}

/// How one column of the wire is treated.
enum Role {
    EventTime,
    Device,
    Arrival,
    /// A field; `None` for columns of type null, which carry nothing.
    Field(Option<FieldType>),
}

fn role(name: &str, data_type: &DataType, sender: &SenderId) -> Result<Role, BatchRefusal> {
    let is = |reserved: &str| name.eq_ignore_ascii_case(reserved);
    if is(TS) {
        return match data_type {
            DataType::Timestamp(..) if name == TS => Ok(Role::EventTime),
            other => Err(BatchRefusal::new(
                RejectCode::MissingTimestamp,
                format!(
                    "column {name:?} is {other}; the event time must be a timestamp named \"ts\""
                ),
            )),
        };
    }
    if is(DEVICE) {
        return match field_type(data_type) {
            Some(Some(FieldType::Utf8)) if name == DEVICE => Ok(Role::Device),
            _ if sender.kind == SenderKind::Device => Ok(Role::Device),
            _ => Err(BatchRefusal::new(
                RejectCode::MissingDevice,
                format!(
                    "column {name:?} is {data_type}; device ids must be text in a column named \"device\""
                ),
            )),
        };
    }
    if is(ARRIVAL) {
        return match (sender.kind, data_type) {
            (SenderKind::Gateway | SenderKind::Node, DataType::Timestamp(..))
                if name == ARRIVAL =>
            {
                Ok(Role::Arrival)
            }
            (SenderKind::Gateway, other) => Err(BatchRefusal::new(
                RejectCode::ReservedColumn,
                format!(
                    "column {name:?} is {other}; arrival times must be timestamps in a column named \"arrival\""
                ),
            )),
            _ => Err(BatchRefusal::new(
                RejectCode::ReservedColumn,
                "column \"arrival\" may be sent by gateways only; rename the field",
            )),
        };
    }
    if is(POSITION) || is(QUIVER_DAY) {
        return Err(BatchRefusal::new(
            RejectCode::ReservedColumn,
            format!("column {name:?} is reserved for the engine; rename the field"),
        ));
    }
    match field_type(data_type) {
        Some(field_type) => Ok(Role::Field(field_type)),
        None => Err(BatchRefusal::new(
            RejectCode::UnsupportedType,
            format!(
                "column {name:?} has type {data_type}; send integers, floats, text (or a dictionary of text), booleans or timestamps"
            ),
        )),
    }
}

/// The stored type of a wire type; `Some(None)` for null columns, `None` if it is not stored.
fn field_type(data_type: &DataType) -> Option<Option<FieldType>> {
    use DataType as T;
    Some(match data_type {
        T::Int8 | T::Int16 | T::Int32 | T::Int64 | T::UInt8 | T::UInt16 | T::UInt32 | T::UInt64 => {
            Some(FieldType::Int64)
        }
        T::Float16 | T::Float32 | T::Float64 => Some(FieldType::Float64),
        T::Utf8 | T::LargeUtf8 => Some(FieldType::Utf8),
        T::Boolean => Some(FieldType::Bool),
        T::Timestamp(..) => Some(FieldType::Timestamp),
        T::Dictionary(_, value) if matches!(**value, T::Utf8 | T::LargeUtf8) => {
            Some(FieldType::Utf8)
        }
        T::Null => None,
        _ => return None,
    })
}

/// Rows refused so far; the first reason found for a row is the one that counts.
struct Refusals {
    codes: Vec<Option<RejectCode>>,
    count: usize,
}

impl Refusals {
    fn refuse(&mut self, row: usize, code: RejectCode) {
        if self.codes[row].is_none() {
            self.codes[row] = Some(code);
            self.count += 1;
        }
    }

    fn into_rows(self) -> Vec<RefusedRow> {
        if self.count == 0 {
            return Vec::new();
        }
        self.codes
            .iter()
            .enumerate()
            .filter_map(|(row, code)| {
                code.map(|code| RefusedRow {
                    row: row as u32,
                    code,
                })
            })
            .collect()
    }
}

/// Decides what becomes of a batch: refused as a whole (the error), or which rows are refused and
/// which fields are new.
pub fn judge(batch: &RecordBatch, context: &NormaliseContext<'_>) -> Result<Judged, BatchRefusal> {
    let rows = batch.num_rows();
    let mut refusals = Refusals {
        codes: vec![None; rows],
        count: 0,
    };
    let mut counts = VerdictCounts::default();
    let mut new_fields: Vec<StreamField> = Vec::new();
    let mut has_time = false;
    let mut devices = None;
    distinct_names(batch.schema_ref())?;

    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        match role(field.name(), field.data_type(), context.sender)? {
            Role::EventTime => {
                has_time = true;
                judge_event_time(column, context, &mut refusals, &mut counts)?;
            }
            Role::Device if context.sender.kind == SenderKind::Device => {
                counts.device_mismatch = count_mismatches(column, context.sender.id.as_str());
            }
            Role::Device => {
                let judged = judge_devices(column, context.may_speak_for, |row| {
                    refusals.refuse(row, RejectCode::NotEnrolled);
                })?;
                devices = Some(judged);
            }
            Role::Arrival | Role::Field(None) => {}
            Role::Field(Some(offered)) => {
                let (stored, scale) = known_type(field.name(), offered, context, &mut new_fields)?;
                judge_values(column, offered, stored, &mut refusals);
                if offered == FieldType::Timestamp {
                    judge_times(column, &mut refusals, &mut counts);
                }
                if let Some(scale) = scale {
                    judge_decimals(column, scale, &mut refusals);
                }
            }
        }
    }
    if !has_time {
        return Err(BatchRefusal::new(
            RejectCode::MissingTimestamp,
            "the batch has no column \"ts\"; send the event time as a timestamp column named \"ts\"",
        ));
    }
    if devices.is_none() && context.sender.kind.speaks_for_others() {
        return Err(BatchRefusal::new(
            RejectCode::MissingDevice,
            format!(
                "a {} must name the device of each row in a text column \"device\"",
                context.sender.kind.as_str()
            ),
        ));
    }
    // Names that collide with the stream's, and too many fields, are found by building the schema.
    grown_schema(context, &new_fields)?;
    Ok(Judged {
        verdict: Verdict {
            refused: refusals.into_rows(),
            counts,
        },
        new_fields,
        devices,
    })
}

/// Two columns of one name would be one field: the values of one of them would be lost.
fn distinct_names(schema: &Schema) -> Result<(), BatchRefusal> {
    /// Up to so many columns, comparing all pairs is quicker than hashing.
    const PAIRS_MAX: usize = 32;
    let names = || schema.fields().iter().map(|field| field.name().as_str());
    let twice = if schema.fields().len() <= PAIRS_MAX {
        names().enumerate().find_map(|(index, name)| {
            let same = |other: &&str| other.eq_ignore_ascii_case(name);
            names().take(index).find(same).map(|_| name)
        })
    } else {
        let mut seen = HashSet::with_capacity(schema.fields().len());
        names().find(|name| !seen.insert(name.to_ascii_lowercase()))
    };
    match twice {
        None => Ok(()),
        Some(name) => Err(BatchRefusal::new(
            RejectCode::FieldName,
            format!(
                "column {name:?} is there twice (names are compared without case); give each column a name of its own"
            ),
        )),
    }
}

fn grown_schema(
    context: &NormaliseContext<'_>,
    new_fields: &[StreamField],
) -> Result<(), BatchRefusal> {
    if new_fields.is_empty() {
        return Ok(());
    }
    let result = match context.schema {
        Some(schema) => schema.grown(schema.id(), new_fields),
        None => StreamSchema::new(
            context.stream.clone(),
            Default::default(),
            new_fields.to_vec(),
        ),
    };
    result.map(drop).map_err(BatchRefusal::from)
}

impl From<crate::SchemaConflict> for BatchRefusal {
    fn from(conflict: crate::SchemaConflict) -> Self {
        use crate::SchemaConflict as C;
        let code = match conflict {
            C::Type { .. } => RejectCode::TypeConflict,
            C::Case { .. } => RejectCode::FieldName,
            C::Reserved { .. } => RejectCode::ReservedColumn,
            C::Full { .. } => RejectCode::FieldLimit,
        };
        Self::new(code, conflict.to_string())
    }
}

/// The type in which values of this column will be stored, and the scale of a decimal field.
fn known_type(
    name: &str,
    offered: FieldType,
    context: &NormaliseContext<'_>,
    new_fields: &mut Vec<StreamField>,
) -> Result<(FieldType, Option<DecimalScale>), BatchRefusal> {
    let existing = context
        .schema
        .and_then(|schema| schema.find_ignoring_case(name));
    let Some(existing) = existing else {
        let name = FieldName::new(name)
            .map_err(|error| BatchRefusal::new(RejectCode::FieldName, error.to_string()))?;
        new_fields.push(StreamField::new(name, offered));
        return Ok((offered, None));
    };
    if existing.name.as_str() != name {
        return Err(BatchRefusal::new(
            RejectCode::FieldName,
            format!(
                "field {name:?} differs only in case from field {} of stream {}",
                existing.name, context.stream
            ),
        ));
    }
    match (existing.field_type, offered) {
        (stored, offered) if stored == offered => Ok((stored, existing.scale)),
        (FieldType::Float64, FieldType::Int64) => Ok((FieldType::Float64, existing.scale)),
        (stored, offered) => Err(BatchRefusal::new(
            RejectCode::TypeConflict,
            format!(
                "field {name:?} of stream {} is {}; the batch has {}: convert it before sending, or use another field",
                context.stream,
                stored.as_str(),
                offered.as_str()
            ),
        )),
    }
}

fn judge_event_time(
    column: &ArrayRef,
    context: &NormaliseContext<'_>,
    refusals: &mut Refusals,
    counts: &mut VerdictCounts,
) -> Result<(), BatchRefusal> {
    let times = Micros::of(column);
    counts.truncated_timestamps = counts.truncated_timestamps.saturating_add(times.truncated);
    let latest = context.now.plus(context.future_limit).as_micros();
    let (mut first, mut last) = (i64::MAX, i64::MIN);
    for row in 0..times.values.len() {
        if times.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            let code = if column.is_null(row) {
                RejectCode::NullTimestamp
            } else {
                RejectCode::TimestampRange
            };
            refusals.refuse(row, code);
            continue;
        }
        let time = times.values[row];
        if time < 0 {
            refusals.refuse(row, RejectCode::TimestampRange);
        } else if time > latest {
            refusals.refuse(row, RejectCode::FutureTimestamp);
        } else {
            first = first.min(time);
            last = last.max(time);
        }
    }
    if first <= last && last - first > BATCH_SPAN_DAYS_MAX * DAY_US {
        return Err(BatchRefusal::new(
            RejectCode::BatchSpan,
            format!(
                "event times span from {} to {}, more than {BATCH_SPAN_DAYS_MAX} days: send smaller batches",
                Timestamp(first),
                Timestamp(last)
            ),
        ));
    }
    Ok(())
}

/// Times in microseconds. `nulls` also marks values that do not fit.
struct Micros {
    values: ScalarBuffer<i64>,
    nulls: Option<NullBuffer>,
    truncated: u32,
}

impl Micros {
    fn of(column: &ArrayRef) -> Self {
        match column.data_type() {
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                let array: &TimestampMicrosecondArray = column.as_primitive();
                Self {
                    values: array.values().clone(),
                    nulls: array.nulls().cloned(),
                    truncated: 0,
                }
            }
            DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                let array: &TimestampNanosecondArray = column.as_primitive();
                let nanos = array.values().iter();
                // What lies in the slot of a null is no time.
                let truncated = array.iter().flatten().filter(|nanos| nanos % 1_000 != 0);
                Self {
                    truncated: u32::try_from(truncated.count()).unwrap_or(u32::MAX),
                    values: nanos.map(|nanos| nanos.div_euclid(1_000)).collect(),
                    nulls: array.nulls().cloned(),
                }
            }
            DataType::Timestamp(TimeUnit::Millisecond, _) => {
                let array: &TimestampMillisecondArray = column.as_primitive();
                Self::scaled(array.values(), array.nulls(), 1_000)
            }
            DataType::Timestamp(TimeUnit::Second, _) => {
                let array: &TimestampSecondArray = column.as_primitive();
                Self::scaled(array.values(), array.nulls(), 1_000_000)
            }
            // `role` admits timestamps only; anything else reads as "no time" and refuses the rows.
            _ => Self {
                values: vec![0; column.len()].into(),
                nulls: Some(NullBuffer::new_null(column.len())),
                truncated: 0,
            },
        }
    }

    fn scaled(values: &ScalarBuffer<i64>, nulls: Option<&NullBuffer>, factor: i64) -> Self {
        let fits: Vec<bool> = values
            .iter()
            .enumerate()
            .map(|(row, value)| {
                nulls.is_none_or(|nulls| nulls.is_valid(row)) && value.checked_mul(factor).is_some()
            })
            .collect();
        let scaled = values
            .iter()
            .map(|value| value.wrapping_mul(factor))
            .collect();
        let nulls = fits
            .iter()
            .any(|fits| !fits)
            .then(|| NullBuffer::from(fits));
        Self {
            values: scaled,
            nulls,
            truncated: 0,
        }
    }
}

fn judge_values(column: &ArrayRef, offered: FieldType, stored: FieldType, refusals: &mut Refusals) {
    if let Some(unsigned) = column.as_primitive_opt::<UInt64Type>() {
        refuse_where(unsigned, refusals, RejectCode::IntegerRange, |value| {
            i64::try_from(value).is_err()
        });
    }
    if offered == FieldType::Int64
        && stored == FieldType::Float64
        && let Ok(integers) = cast(column, &DataType::Int64)
    {
        let integers: &Int64Array = integers.as_primitive();
        for (row, value) in integers.iter().enumerate() {
            if value.is_some_and(|value| !is_exact_float(value)) {
                refusals.refuse(row, RejectCode::InexactFloat);
            }
        }
    }
}

/// Refuses what a timestamp field cannot hold, and counts the digits that it loses.
fn judge_times(column: &ArrayRef, refusals: &mut Refusals, counts: &mut VerdictCounts) {
    let times = Micros::of(column);
    counts.truncated_timestamps = counts.truncated_timestamps.saturating_add(times.truncated);
    let holds = FIELD_TIME_MIN.as_micros()..=FIELD_TIME_MAX.as_micros();
    for (row, time) in times.values.iter().enumerate() {
        let fits = times.nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
        if column.is_valid(row) && !(fits && holds.contains(time)) {
            refusals.refuse(row, RejectCode::TimestampRange);
        }
    }
}

/// Refuses what a decimal field cannot hold. Never rounds: the sender knows what was meant.
fn judge_decimals(column: &ArrayRef, scale: DecimalScale, refusals: &mut Refusals) {
    // Integers that have no exact float64 have too many digits, too.
    let Ok(numbers) = cast(column, &DataType::Float64) else {
        return;
    };
    for (row, value) in numbers.as_primitive::<Float64Type>().iter().enumerate() {
        if value.is_some_and(|value| !scale.fits(value)) {
            refusals.refuse(row, RejectCode::DecimalScale);
        }
    }
}

fn refuse_where(
    array: &UInt64Array,
    refusals: &mut Refusals,
    code: RejectCode,
    wrong: impl Fn(u64) -> bool,
) {
    for (row, value) in array.iter().enumerate() {
        if value.is_some_and(&wrong) {
            refusals.refuse(row, code);
        }
    }
}

fn is_exact_float(value: i64) -> bool {
    if (-EXACT_FLOAT_MAX..=EXACT_FLOAT_MAX).contains(&value) {
        return true;
    }
    // Beyond 2^53 an integer is exact iff it survives the round trip (i128: 2^63 must not saturate).
    (value as f64) as i128 == i128::from(value)
}

/// Turns the rows that `verdict` lets pass into stored types under `schema`.
///
/// `batch` must be the batch the verdict was given on, and `schema` must have its fields with the
/// types they were judged by; the log keeps both. An error means that it is not so (a damaged or
/// forged log), never that a value is unwelcome. `devices` are those of the judgement, where it is
/// at hand.
pub fn apply(
    batch: &RecordBatch,
    schema: &Arc<StreamSchema>,
    sender: &SenderId,
    verdict: &Verdict,
    devices: Option<&DictionaryArray<Int32Type>>,
) -> Result<CheckedBatch, BatchRefusal> {
    let rows_sent = batch.num_rows();
    let kept = kept_rows(rows_sent, verdict)?;
    let mut event_time = None;
    let mut device = None;
    let mut arrival = None;
    let mut columns = Vec::with_capacity(batch.num_columns());

    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        match role(field.name(), field.data_type(), sender)? {
            Role::EventTime => event_time = Some(select(&time_column(column)?, kept.as_ref())?),
            Role::Device if sender.kind == SenderKind::Device => {}
            Role::Device => {
                let named = match devices {
                    Some(known) => known.clone(),
                    None => named_devices(column, kept.as_ref())?,
                };
                device = Some(match &kept {
                    None => named,
                    Some(kept) => {
                        gather_names(&named, kept).map_err(|error| malformed(error.to_string()))?
                    }
                });
            }
            Role::Arrival => arrival = Some(select(&nullable_time_column(column), kept.as_ref())?),
            Role::Field(None) => {}
            Role::Field(Some(_)) => {
                let (index, stored) = schema.find(field.name()).ok_or_else(|| {
                    malformed(format!(
                        "schema {} has no field {:?}",
                        schema.id(),
                        field.name()
                    ))
                })?;
                let selected = select(column, kept.as_ref())?;
                let stored_type = schema
                    .stored()
                    .field(FIXED_COLUMN_COUNT + index)
                    .data_type();
                let converted = if selected.data_type() == stored_type {
                    selected
                } else if stored.field_type == FieldType::Timestamp {
                    if !matches!(selected.data_type(), DataType::Timestamp(..)) {
                        return Err(malformed(format!("field {:?} is no time", field.name())));
                    }
                    // As for `ts`: a cast rounds towards 1970.
                    nullable_time_column(&selected)
                } else {
                    cast(&selected, stored_type).map_err(|error| malformed(error.to_string()))?
                };
                let converted = match stored.scale {
                    Some(_) => without_negative_zeros(&converted),
                    None => converted,
                };
                columns.push((index, converted));
            }
        }
    }
    let event_time = event_time.ok_or_else(|| malformed("no column \"ts\""))?;
    let rows = event_time.len();
    let device = match device {
        Some(device) => device,
        None if sender.kind == SenderKind::Device => constant_device(&sender.id, rows)?,
        None => return Err(malformed("no column \"device\"")),
    };
    columns.sort_by_key(|(index, _)| *index);
    Ok(CheckedBatch::new(
        schema.clone(),
        rows_sent as u32,
        event_time.as_primitive().clone(),
        device,
        arrival.map(|times| times.as_primitive().clone()),
        columns,
        kept,
    ))
}

/// Decimals know one zero: what is in memory is what the archive will give back.
fn without_negative_zeros(column: &ArrayRef) -> ArrayRef {
    match column.as_primitive_opt::<Float64Type>() {
        // IEEE 754: -0.0 + 0.0 = 0.0, and every other number stays.
        Some(floats) => Arc::new(floats.unary::<_, Float64Type>(|value| value + 0.0)),
        None => Arc::clone(column),
    }
}

pub(crate) fn malformed(message: impl Into<String>) -> BatchRefusal {
    BatchRefusal::new(RejectCode::MalformedBatch, message)
}

/// Indices of the rows that pass, or `None` if all do.
fn kept_rows(rows: usize, verdict: &Verdict) -> Result<Option<UInt32Array>, BatchRefusal> {
    if verdict.refused.is_empty() {
        return Ok(None);
    }
    let mut kept = Vec::with_capacity(rows.saturating_sub(verdict.refused.len()));
    let mut refused = verdict
        .refused
        .iter()
        .map(|refused| refused.row as usize)
        .peekable();
    for row in 0..rows {
        if refused.next_if_eq(&row).is_none() {
            kept.push(row as u32);
        }
    }
    if refused.peek().is_some() {
        return Err(malformed(
            "the verdict refuses rows that the batch does not have",
        ));
    }
    Ok(Some(kept.into()))
}

fn select(column: &ArrayRef, kept: Option<&UInt32Array>) -> Result<ArrayRef, BatchRefusal> {
    match kept {
        None => Ok(column.clone()),
        Some(kept) => arrow_select::take::take(column, kept, None)
            .map_err(|error| malformed(error.to_string())),
    }
}

fn time_column(column: &ArrayRef) -> Result<ArrayRef, BatchRefusal> {
    let times = Micros::of(column);
    // Rows without a time are refused rows; their slots are never selected.
    let array = TimestampMicrosecondArray::try_new(times.values, None)
        .map_err(|error| malformed(error.to_string()))?;
    Ok(Arc::new(array.with_timezone("UTC")))
}

fn nullable_time_column(column: &ArrayRef) -> ArrayRef {
    let times = Micros::of(column);
    let array = TimestampMicrosecondArray::new(times.values, times.nulls);
    Arc::new(array.with_timezone("UTC"))
}

#[cfg(test)]
mod tests;
