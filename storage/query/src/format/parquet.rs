//! A Parquet file. Bytes come a row group at a time.

use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, SchemaRef};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};

use super::Encode;

/// Rows of a row group: bounds what the writer holds in memory.
const ROW_GROUP_ROWS: usize = 128 * 1024;

pub(super) struct ParquetEncoder(ArrowWriter<Vec<u8>>);

impl ParquetEncoder {
    pub(super) fn new(schema: &SchemaRef) -> Result<Self, ArrowError> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
            .build();
        Ok(Self(ArrowWriter::try_new(
            Vec::new(),
            schema.clone(),
            Some(properties),
        )?))
    }
}

impl Encode for ParquetEncoder {
    fn batch(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        self.0.write(batch)?;
        // The writer counts its bytes itself; taking those that are there leaves its offsets right.
        self.0.sync().map_err(ArrowError::from)?;
        out.append(self.0.inner_mut());
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        self.0.finish()?;
        out.append(self.0.inner_mut());
        Ok(())
    }
}
