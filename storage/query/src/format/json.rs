//! JSON: an array of objects, or an object a line. Nulls are written, so that all rows have the
//! same keys.

use arrow_array::RecordBatch;
use arrow_json::{
    WriterBuilder,
    writer::{JsonArray, JsonFormat, LineDelimited, Writer},
};
use arrow_schema::ArrowError;

use super::Encode;

pub(super) struct JsonEncoder<F: JsonFormat>(Writer<Vec<u8>, F>);

impl JsonEncoder<JsonArray> {
    pub(super) fn array() -> Self {
        Self(
            WriterBuilder::new()
                .with_explicit_nulls(true)
                .build(Vec::new()),
        )
    }
}

impl JsonEncoder<LineDelimited> {
    pub(super) fn lines() -> Self {
        Self(
            WriterBuilder::new()
                .with_explicit_nulls(true)
                .build(Vec::new()),
        )
    }
}

impl<F: JsonFormat + Send> Encode for JsonEncoder<F> {
    fn batch(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        self.0.write(batch)?;
        out.append(self.0.get_mut());
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        self.0.finish()?;
        out.append(self.0.get_mut());
        Ok(())
    }
}
