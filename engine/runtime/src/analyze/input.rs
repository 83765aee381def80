//! From records of the log to rows.

use arrow_array::RecordBatch;
use quiver_log::{CommittedRecord, RecordKind};

use crate::{
    admit::{ReplayRefusal, decode_record},
    control::ControlState,
};

/// The rows of a record in the layout of `StreamSchema::stored`; `None` if it has none.
///
/// # Errors
/// If it cannot be decoded, although it could when it was accepted.
pub(super) fn rows_of(
    committed: &CommittedRecord,
    control: &ControlState,
) -> Result<Option<RecordBatch>, ReplayRefusal> {
    let record = &committed.record;
    if record.kind != RecordKind::Data {
        return Ok(None);
    }
    let sender = record
        .sender
        .as_ref()
        .ok_or(ReplayRefusal::Missing("sender"))?;
    let (wire, schema) = decode_record(record, control)?;
    let checked = quiver_model::apply(&wire, &schema, sender, &record.verdict, None)
        .map_err(|error| ReplayRefusal::Payload(error.to_string()))?;
    if checked.row_count() == 0 {
        return Ok(None);
    }
    checked
        .place(committed.position, record.time)
        .map(Some)
        .map_err(|error| ReplayRefusal::Payload(error.to_string()))
}
