//! Arrow IPC stream.

use arrow_array::RecordBatch;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, SchemaRef};

use super::Encode;

pub(super) struct ArrowEncoder(StreamWriter<Vec<u8>>);

impl ArrowEncoder {
    pub(super) fn new(schema: &SchemaRef) -> Result<Self, ArrowError> {
        StreamWriter::try_new(Vec::new(), schema).map(Self)
    }
}

impl Encode for ArrowEncoder {
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
