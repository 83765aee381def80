//! A batch whose every value may be stored.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, DictionaryArray, Int64Array, RecordBatch, TimestampMicrosecondArray,
    UInt32Array, new_null_array, types::Int32Type,
};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::{ArrowError, DataType};

use crate::{Position, StreamSchema, Timestamp, schema::FIXED_COLUMN_COUNT};

/// Rows that passed ingest's judgement, normalised to stored types, not yet given positions.
#[derive(Clone, Debug)]
pub struct CheckedBatch {
    pub(crate) schema: Arc<StreamSchema>,
    pub(crate) rows_sent: u32,
    pub(crate) event_time: TimestampMicrosecondArray,
    pub(crate) device: DictionaryArray<Int32Type>,
    /// Arrival times that a gateway stated; null where it did not.
    pub(crate) arrival: Option<TimestampMicrosecondArray>,
    /// (index into `schema.fields()`, values), ascending by index.
    pub(crate) columns: Vec<(usize, ArrayRef)>,
    /// Index of each row in the batch as sent; `None` if they are 0, 1, 2, ….
    pub(crate) offsets: Option<UInt32Array>,
}

impl CheckedBatch {
    pub(crate) fn new(
        schema: Arc<StreamSchema>,
        rows_sent: u32,
        event_time: TimestampMicrosecondArray,
        device: DictionaryArray<Int32Type>,
        arrival: Option<TimestampMicrosecondArray>,
        columns: Vec<(usize, ArrayRef)>,
        offsets: Option<UInt32Array>,
    ) -> Self {
        Self {
            schema,
            rows_sent,
            event_time,
            device,
            arrival,
            columns,
            offsets,
        }
    }

    /// The schema the rows were normalised to.
    pub fn schema(&self) -> &Arc<StreamSchema> {
        &self.schema
    }

    /// Rows that will be stored.
    pub fn row_count(&self) -> usize {
        self.event_time.len()
    }

    /// Rows of the batch as sent, refused ones included: the positions its record takes.
    pub fn rows_sent(&self) -> u32 {
        self.rows_sent
    }

    /// Field values that are not null: the measure of throughput.
    pub fn point_count(&self) -> u64 {
        self.columns
            .iter()
            .map(|(_, column)| (column.len() - column.null_count()) as u64)
            .sum()
    }

    /// Dictionary-encoded devices of the rows.
    pub fn device(&self) -> &DictionaryArray<Int32Type> {
        &self.device
    }

    /// Event times of the rows.
    pub fn event_time(&self) -> &TimestampMicrosecondArray {
        &self.event_time
    }

    /// The rows as they are stored (layout of [`StreamSchema::stored`]), now that the record has
    /// positions: row i of the batch as sent is at `first + i`. Rows without an arrival of their
    /// own get `record_time`.
    pub fn place(
        &self,
        first: Position,
        record_time: Timestamp,
    ) -> Result<RecordBatch, ArrowError> {
        let rows = self.row_count();
        let first = i64::try_from(first.get())
            .map_err(|_| ArrowError::ComputeError("position beyond 2^63".into()))?;
        let position: Int64Array = match &self.offsets {
            None => (first..first + rows as i64).collect::<Vec<_>>().into(),
            Some(offsets) => offsets
                .values()
                .iter()
                .map(|offset| first + i64::from(*offset))
                .collect::<Vec<_>>()
                .into(),
        };
        let arrival = match &self.arrival {
            None => vec![record_time.as_micros(); rows],
            Some(stated) => stated
                .iter()
                .map(|time| time.unwrap_or(record_time.as_micros()))
                .collect(),
        };
        let mut columns: Vec<ArrayRef> =
            Vec::with_capacity(FIXED_COLUMN_COUNT + self.schema.fields().len());
        columns.push(Arc::new(self.event_time.clone()));
        columns.push(Arc::new(self.device.clone()));
        columns.push(Arc::new(
            TimestampMicrosecondArray::from(arrival).with_timezone("UTC"),
        ));
        columns.push(Arc::new(position));
        let mut present = self.columns.iter().peekable();
        for (index, field) in self.schema.fields().iter().enumerate() {
            // A column that is there twice does not pass `judge`; a log may have one all the same.
            while present.next_if(|(present, _)| *present < index).is_some() {}
            columns.push(match present.next_if(|(present, _)| *present == index) {
                Some((_, column)) => column.clone(),
                None => new_null_array(&field.field_type.arrow(), rows),
            });
        }
        RecordBatch::try_new(self.schema.stored().clone(), columns)
    }
}

/// One row as JSON text of at most `bytes_max` bytes, for the stream of rejects. Longer text is
/// cut at a character boundary and ends in `…`.
pub fn row_as_json(batch: &RecordBatch, row: usize, bytes_max: usize) -> String {
    let options = FormatOptions::default().with_null("null");
    let mut text = String::from("{");
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        if text.len() > bytes_max {
            break;
        }
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(&serde_json::Value::from(field.name().as_str()).to_string());
        text.push(':');
        let value = match ArrayFormatter::try_new(column.as_ref(), &options) {
            Ok(formatter) => formatter
                .value(row)
                .try_to_string()
                // A time beyond every calendar: the error says the number.
                .unwrap_or_else(|error| error.to_string()),
            Err(_) => "null".into(),
        };
        let plain = column.is_null(row)
            || (column.data_type().is_numeric() && value.parse::<f64>().is_ok_and(f64::is_finite))
            || *column.data_type() == DataType::Boolean;
        if plain {
            text.push_str(&value);
        } else {
            text.push_str(&serde_json::Value::from(value).to_string());
        }
    }
    text.push('}');
    shorten(text, bytes_max)
}

/// `text`, cut to at most `bytes_max` bytes at a character boundary, marked with `…` if it was cut.
fn shorten(mut text: String, bytes_max: usize) -> String {
    const MARK: &str = "…";
    if text.len() <= bytes_max {
        return text;
    }
    let mut end = bytes_max.saturating_sub(MARK.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text.push_str(MARK);
    text
}
