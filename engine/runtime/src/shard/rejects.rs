//! Refused rows and batches as rows of stream `rejects`, and control records as rows of
//! `quiver_control`. Both are built from the log record alone, so replay builds the same.

use std::{
    collections::BTreeSet,
    sync::{Arc, OnceLock},
};

use arrow_array::{
    Array, ArrayRef, DictionaryArray, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, cast::AsArray, types::Int32Type,
};
use arrow_schema::ArrowError;
use quiver_model::{
    DEVICE, DeviceId, FieldName, FieldType, RejectCode, SchemaId, SenderId, SenderKind,
    StreamField, StreamName, StreamSchema, Verdict, row_as_json,
};

use super::{ControlRow, event::Settled};

/// Most bytes of a refused row that are kept.
const EXCERPT_BYTES_MAX: usize = 1_024;
/// Most bytes of excerpts kept of one batch: thousands of refused rows share them.
const EXCERPTS_BYTES_MAX: usize = 1 << 20;
/// Least bytes of an excerpt, however many rows share.
const EXCERPT_BYTES_MIN: usize = 32;

/// One row of `rejects` to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectNote {
    /// Row in the batch as sent (0 for a whole batch): its position is the record's plus this.
    pub offset: u32,
    /// Whose ledger it counts in.
    pub attributed: SenderId,
    /// Why.
    pub code: RejectCode,
    /// What is wrong.
    pub message: String,
    /// Rows it stands for.
    pub rows: u64,
    /// Beginning of the content.
    pub payload: String,
}

impl RejectNote {
    /// Bytes that the row takes in memory, about.
    pub fn bytes(&self) -> usize {
        self.message.len() + self.payload.len() + 160
    }
}

/// Notes for the rows of a batch that its verdict refuses.
pub fn notes_for_rows(wire: &RecordBatch, sender: &SenderId, verdict: &Verdict) -> Vec<RejectNote> {
    if verdict.refused.is_empty() {
        return Vec::new();
    }
    let excerpt_bytes =
        (EXCERPTS_BYTES_MAX / verdict.refused.len()).clamp(EXCERPT_BYTES_MIN, EXCERPT_BYTES_MAX);
    verdict
        .refused
        .iter()
        .filter(|refused| (refused.row as usize) < wire.num_rows())
        .map(|refused| RejectNote {
            offset: refused.row,
            attributed: attributed(wire, refused.row as usize, sender, refused.code),
            code: refused.code,
            message: row_message(refused.code).to_owned(),
            rows: 1,
            payload: row_as_json(wire, refused.row as usize, excerpt_bytes),
        })
        .collect()
}

/// The device a refused row counts for: its own if the sender may speak for it, else the sender.
fn attributed(wire: &RecordBatch, row: usize, sender: &SenderId, code: RejectCode) -> SenderId {
    if sender.kind == SenderKind::Device || code == RejectCode::NotEnrolled {
        return sender.clone();
    }
    wire.column_by_name(DEVICE)
        .and_then(|column| device_in_row(column, row))
        .map_or_else(|| sender.clone(), SenderId::device)
}

/// The device that a row of a text column names, if that is well formed.
pub fn device_in_row(column: &ArrayRef, row: usize) -> Option<DeviceId> {
    (row < column.len() && !column.is_null(row)).then_some(())?;
    let (values, index) = match column.as_any_dictionary_opt() {
        Some(dictionary) => (
            dictionary.values().clone(),
            *dictionary.normalized_keys().get(row)?,
        ),
        None => (column.clone(), row),
    };
    text_at(&values, index)
}

fn text_at(values: &ArrayRef, index: usize) -> Option<DeviceId> {
    (index < values.len() && !values.is_null(index)).then_some(())?;
    let text = match values.as_string_opt::<i32>() {
        Some(text) => text.value(index),
        None => values.as_string_opt::<i64>()?.value(index),
    };
    DeviceId::new(text).ok()
}

/// The well-formed device ids in a text column, each once.
pub fn distinct_devices(column: &ArrayRef) -> BTreeSet<DeviceId> {
    let values = match column.as_any_dictionary_opt() {
        Some(dictionary) => dictionary.values().clone(),
        None => column.clone(),
    };
    let mut last: Option<DeviceId> = None;
    let mut distinct = BTreeSet::new();
    for device in (0..values.len()).filter_map(|index| text_at(&values, index)) {
        if last.as_ref() != Some(&device) {
            distinct.insert(device.clone());
            last = Some(device);
        }
    }
    distinct
}

const fn row_message(code: RejectCode) -> &'static str {
    match code {
        RejectCode::NullTimestamp => "the row has no event time; every row needs a ts",
        RejectCode::TimestampRange => {
            "the event time is before 1970 or beyond what microseconds can hold, or a time in a field is not of the years 1 to 9999"
        }
        RejectCode::FutureTimestamp => {
            "the event time is too far ahead of the arrival; check the device's clock"
        }
        RejectCode::NotEnrolled => {
            "the sender may not speak for this device; enroll the device, and name the gateway with it"
        }
        RejectCode::IntegerRange => "an integer does not fit into 64 bits with a sign",
        RejectCode::InexactFloat => "an integer for a float64 field has no exact float64",
        RejectCode::DecimalScale => {
            "a number for a decimal field has more digits than the field is declared with, or is not finite; round it before sending"
        }
        _ => "the row is refused",
    }
}

/// Note for a batch refused as a whole, of which `rows` rows are known.
pub fn note_for_batch(
    sender: &SenderId,
    code: RejectCode,
    message: &str,
    rows: u64,
    payload: &str,
) -> RejectNote {
    RejectNote {
        offset: 0,
        attributed: sender.clone(),
        code,
        message: message.to_owned(),
        rows,
        payload: payload.to_owned(),
    }
}

fn schema_of(stream: StreamName, fields: &[(&str, FieldType)]) -> Option<Arc<StreamSchema>> {
    let fields = fields
        .iter()
        .map(|(name, field_type)| Some(StreamField::new(FieldName::new(name).ok()?, *field_type)))
        .collect::<Option<Vec<_>>>()?;
    StreamSchema::new(stream, SchemaId(0), fields)
        .ok()
        .map(Arc::new)
}

/// Schema of stream `rejects`. `None` only if the names above were not well formed; a test says
/// they are.
pub fn rejects_schema() -> Option<Arc<StreamSchema>> {
    static SCHEMA: OnceLock<Option<Arc<StreamSchema>>> = OnceLock::new();
    SCHEMA
        .get_or_init(|| {
            schema_of(
                StreamName::rejects(),
                &[
                    ("stream", FieldType::Utf8),
                    ("sender", FieldType::Utf8),
                    ("producer", FieldType::Utf8),
                    ("sequence", FieldType::Int64),
                    ("code", FieldType::Utf8),
                    ("message", FieldType::Utf8),
                    ("quarantined", FieldType::Bool),
                    ("rows", FieldType::Int64),
                    ("payload", FieldType::Utf8),
                    ("attributed", FieldType::Utf8),
                ],
            )
        })
        .clone()
}

/// Schema of stream `quiver_control`.
pub fn control_schema() -> Option<Arc<StreamSchema>> {
    static SCHEMA: OnceLock<Option<Arc<StreamSchema>>> = OnceLock::new();
    SCHEMA
        .get_or_init(|| {
            schema_of(
                StreamName::control(),
                &[
                    ("kind", FieldType::Utf8),
                    ("stream", FieldType::Utf8),
                    ("body", FieldType::Utf8),
                ],
            )
        })
        .clone()
}

fn devices(names: Vec<String>) -> Result<DictionaryArray<Int32Type>, ArrowError> {
    let keys: Vec<i32> = (0..names.len() as i32).collect();
    DictionaryArray::try_new(Int32Array::from(keys), Arc::new(StringArray::from(names)))
}

fn times(micros: Vec<i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(micros).with_timezone("UTC"))
}

/// Rows of `rejects` for a settled batch.
pub(super) fn reject_rows(
    schema: &StreamSchema,
    settled: &Settled,
) -> Result<RecordBatch, ArrowError> {
    let notes = &settled.rejects;
    let text = |of: &dyn Fn(&RejectNote) -> String| -> ArrayRef {
        Arc::new(StringArray::from(notes.iter().map(of).collect::<Vec<_>>()))
    };
    let time = settled.time.as_micros();
    let position = |note: &RejectNote| settled.position.plus(u64::from(note.offset)).get() as i64;
    let quarantined: Vec<bool> = notes.iter().map(|note| note.code.is_quarantine()).collect();
    let columns: Vec<ArrayRef> = vec![
        times(vec![time; notes.len()]),
        Arc::new(devices(
            notes
                .iter()
                .map(|note| note.attributed.id.to_string())
                .collect(),
        )?),
        times(vec![time; notes.len()]),
        Arc::new(Int64Array::from(
            notes.iter().map(position).collect::<Vec<_>>(),
        )),
        text(&|_| settled.stream.to_string()),
        text(&|_| settled.sender.to_string()),
        text(&|_| format!("{:016x}", settled.producer.get())),
        Arc::new(Int64Array::from(vec![
            settled.sequence.get() as i64;
            notes.len()
        ])),
        text(&|note| note.code.to_string()),
        text(&|note| note.message.clone()),
        Arc::new(arrow_array::BooleanArray::from(quarantined)),
        Arc::new(Int64Array::from(
            notes
                .iter()
                .map(|note| note.rows as i64)
                .collect::<Vec<_>>(),
        )),
        text(&|note| note.payload.clone()),
        text(&|note| note.attributed.to_string()),
    ];
    RecordBatch::try_new(schema.stored().clone(), columns)
}

/// The rows of `quiver_control` for control records.
pub(super) fn control_rows(
    schema: &StreamSchema,
    rows: &[ControlRow],
) -> Result<RecordBatch, ArrowError> {
    let time = || times(rows.iter().map(|row| row.time.as_micros()).collect());
    let positions = rows.iter().map(|row| row.position.get() as i64);
    // One name for all of them.
    let names = StringArray::from(vec!["quiver"]);
    let columns: Vec<ArrayRef> = vec![
        time(),
        Arc::new(DictionaryArray::try_new(
            Int32Array::from(vec![0; rows.len()]),
            Arc::new(names),
        )?),
        time(),
        Arc::new(Int64Array::from_iter_values(positions)),
        Arc::new(StringArray::from_iter_values(
            rows.iter().map(|row| row.kind),
        )),
        Arc::new(
            rows.iter()
                .map(|row| row.stream.as_deref())
                .collect::<StringArray>(),
        ),
        Arc::new(StringArray::from_iter_values(
            rows.iter().map(|row| &row.body),
        )),
    ];
    RecordBatch::try_new(schema.stored().clone(), columns)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_engines_own_schemas_are_well_formed() {
        assert_eq!(super::rejects_schema().unwrap().fields().len(), 10);
        assert_eq!(super::control_schema().unwrap().fields().len(), 3);
    }
}
