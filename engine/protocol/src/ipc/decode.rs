//! From checked nodes and buffers to a record batch.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType, PrimitiveArray, RecordBatch, RecordBatchOptions,
    make_array,
    types::{Float64Type, Int64Type, TimestampMicrosecondType},
};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, ScalarBuffer};
use arrow_data::ArrayData;
use arrow_ipc::{MessageHeader, RecordBatch as WireRecordBatch};
use arrow_schema::{DataType, TimeUnit};
use bytes::Bytes;
use quiver_model::BatchRefusal;

use super::{
    decompress::{Budget, Decompressor},
    dictionary::Dictionaries,
    guard::{BodyReader, Node, malformed, open, too_large},
    schema::{SchemaPlan, fixed_width},
};
use crate::limits::DecodeLimits;

/// Decodes an encapsulated record batch message.
pub(crate) fn decode_with(
    plan: &SchemaPlan,
    dictionaries: &Dictionaries,
    message: &Bytes,
    limits: &DecodeLimits,
    decompressor: &mut Decompressor,
) -> Result<RecordBatch, BatchRefusal> {
    shielded(|| {
        let (message, body) = open(message, limits)?;
        if message.header_type() != MessageHeader::RecordBatch {
            return Err(malformed("a record batch message was expected"));
        }
        let header = message
            .header_as_record_batch()
            .ok_or_else(|| malformed("the record batch message is empty"))?;
        decode_body(plan, dictionaries, header, body, limits, decompressor).map(|(batch, _)| batch)
    })
}

/// The last line: everything below reports errors, and a panic nevertheless, which could only come
/// from a defect in a dependency, costs the batch and not the process.
pub(crate) fn shielded<T>(
    decode: impl FnOnce() -> Result<T, BatchRefusal>,
) -> Result<T, BatchRefusal> {
    catch_unwind(AssertUnwindSafe(decode))
        .unwrap_or_else(|_| Err(malformed("the message could not be decoded")))
}

/// Decodes the body of a record batch; also returns how many bytes it takes decoded.
pub(crate) fn decode_body(
    plan: &SchemaPlan,
    dictionaries: &Dictionaries,
    header: WireRecordBatch<'_>,
    body: Bytes,
    limits: &DecodeLimits,
    decompressor: &mut Decompressor,
) -> Result<(RecordBatch, usize), BatchRefusal> {
    let fields = plan.schema.fields();
    if fields.len() > limits.columns {
        return Err(too_large("columns", fields.len(), limits.columns));
    }
    let reader = BodyReader::new(header, body, limits)?;
    let budget = Budget::new(limits, reader.body_bytes());
    let mut columns = Columns {
        reader,
        budget,
        decompressor,
    };
    let mut arrays = Vec::with_capacity(fields.len());
    for (field, dictionary_id) in fields.iter().zip(&plan.dictionary_ids) {
        let values = dictionary_id
            .map(|id| dictionaries.values(id, field.name()))
            .transpose()?;
        arrays.push(columns.read(field.name(), field.data_type(), values)?);
    }
    columns.reader.finish()?;
    let options = RecordBatchOptions::new().with_row_count(Some(columns.reader.rows));
    let batch = RecordBatch::try_new_with_options(plan.schema.clone(), arrays, &options)
        .map_err(|error| malformed(error.to_string()))?;
    Ok((batch, columns.budget.used()))
}

struct Columns<'a, 'b> {
    reader: BodyReader<'a>,
    budget: Budget,
    decompressor: &'b mut Decompressor,
}

impl Columns<'_, '_> {
    fn read(
        &mut self,
        name: &str,
        data_type: &DataType,
        dictionary: Option<&ArrayRef>,
    ) -> Result<ArrayRef, BatchRefusal> {
        let node = self.reader.node(name)?;
        let builder = ArrayData::builder(data_type.clone())
            .len(node.rows)
            .align_buffers(true);
        let builder = match data_type {
            DataType::Null => builder,
            DataType::Boolean => {
                let nulls = self.validity(name, node)?;
                builder
                    .nulls(nulls)
                    .add_buffer(self.exactly(name, node.rows.div_ceil(8))?)
            }
            DataType::Utf8 | DataType::LargeUtf8 => {
                let width = if *data_type == DataType::Utf8 { 4 } else { 8 };
                let nulls = self.validity(name, node)?;
                // Some writers leave the offsets of an empty column out.
                let needed = if node.rows == 0 {
                    0
                } else {
                    (node.rows + 1) * width
                };
                let offsets = self.exactly(name, needed)?;
                builder
                    .nulls(nulls)
                    .add_buffer(offsets)
                    .add_buffer(self.content(name)?)
            }
            DataType::Dictionary(key_type, _) => {
                let values = dictionary
                    .ok_or_else(|| malformed(format!("column {name:?} has no dictionary")))?;
                let width = fixed_width(key_type).unwrap_or(8);
                let nulls = self.validity(name, node)?;
                let keys = self.exactly(name, node.rows * width)?;
                builder
                    .nulls(nulls)
                    .add_buffer(keys)
                    .add_child_data(values.to_data())
            }
            other => {
                let width = fixed_width(other).ok_or_else(|| {
                    malformed(format!("column {name:?} has the unsupported type {other}"))
                })?;
                let nulls = self.validity(name, node)?;
                let values = self.exactly(name, node.rows * width)?;
                if let Some(array) = wide_numbers(data_type, &values, nulls.as_ref()) {
                    return Ok(array);
                }
                builder.nulls(nulls).add_buffer(values)
            }
        };
        // Checks offsets, UTF-8 and dictionary keys.
        let data = builder
            .build()
            .map_err(|error| malformed(format!("column {name:?}: {error}")))?;
        let array = make_array(data);
        if let Some(values) = dictionary {
            self.budget
                .take(super::dictionary::expanded_bytes(&array, values), name)?;
        }
        Ok(array)
    }

    /// The validity bitmap. It is not looked at where the node says that there are no nulls.
    fn validity(&mut self, name: &str, node: Node) -> Result<Option<NullBuffer>, BatchRefusal> {
        let raw = self.reader.buffer(name)?;
        if node.nulls == 0 {
            return Ok(None);
        }
        let bits = self
            .decompressor
            .buffer(self.reader.codec, raw, &mut self.budget, name)?;
        at_least(name, &bits, node.rows.div_ceil(8))?;
        let nulls = NullBuffer::new(BooleanBuffer::new(bits, 0, node.rows));
        if nulls.null_count() != node.nulls {
            return Err(malformed(format!(
                "column {name:?} claims {} nulls, its validity bitmap has {}",
                node.nulls,
                nulls.null_count()
            )));
        }
        Ok(Some(nulls))
    }

    /// The next buffer, all of it.
    fn content(&mut self, name: &str) -> Result<Buffer, BatchRefusal> {
        let raw = self.reader.buffer(name)?;
        self.decompressor
            .buffer(self.reader.codec, raw, &mut self.budget, name)
    }

    /// The first `needed` bytes of the next buffer. Writers may pad it; what is left of the padding
    /// would have to be a multiple of the element's size further on, so none is.
    fn exactly(&mut self, name: &str, needed: usize) -> Result<Buffer, BatchRefusal> {
        let content = self.content(name)?;
        at_least(name, &content, needed)?;
        Ok(content.slice_with_length(0, needed))
    }
}

/// Numbers and times of eight bytes, which most columns are, without what the general way spends on
/// each column. `None` if they are of another type, or lie where they cannot be read in place.
fn wide_numbers(
    data_type: &DataType,
    values: &Buffer,
    nulls: Option<&NullBuffer>,
) -> Option<ArrayRef> {
    fn of<T: ArrowPrimitiveType>(
        data_type: &DataType,
        values: &Buffer,
        nulls: Option<&NullBuffer>,
    ) -> Option<ArrayRef> {
        if values.as_ptr().align_offset(align_of::<T::Native>()) != 0 {
            return None;
        }
        let values = ScalarBuffer::from(values.clone());
        let array = PrimitiveArray::<T>::try_new(values, nulls.cloned()).ok()?;
        Some(Arc::new(array.with_data_type(data_type.clone())))
    }
    match data_type {
        DataType::Float64 => of::<Float64Type>(data_type, values, nulls),
        DataType::Int64 => of::<Int64Type>(data_type, values, nulls),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            of::<TimestampMicrosecondType>(data_type, values, nulls)
        }
        _ => None,
    }
}

fn at_least(name: &str, buffer: &Buffer, needed: usize) -> Result<(), BatchRefusal> {
    if buffer.len() >= needed {
        return Ok(());
    }
    Err(malformed(format!(
        "a buffer of column {name:?} has {} bytes and needs {needed}",
        buffer.len()
    )))
}
