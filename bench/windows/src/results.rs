//! What windows gave: rows that can be written as Parquet.

use std::{fs::File, path::Path, sync::Arc};

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;

use crate::Fault;

/// Results, a row for each window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Results {
    /// Whose.
    pub device: Vec<String>,
    /// From when, in microseconds since 1970.
    pub start: Vec<i64>,
    /// How many rows.
    pub count: Vec<i64>,
    /// Of each field the average, and then the least and the greatest value if they were wanted.
    pub values: Vec<Vec<f64>>,
}

impl Results {
    /// Appends others.
    pub fn append(&mut self, other: Self) {
        self.device.extend(other.device);
        self.start.extend(other.start);
        self.count.extend(other.count);
        let columns = self.values.len().max(other.values.len());
        self.values.resize(columns, Vec::new());
        for (column, more) in self.values.iter_mut().zip(other.values) {
            column.extend(more);
        }
    }

    /// Writes them.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(self, path: &Path) -> Result<(), Fault> {
        let mut columns: Vec<(String, ArrayRef)> = vec![
            ("device".into(), Arc::new(StringArray::from(self.device))),
            ("start".into(), Arc::new(Int64Array::from(self.start))),
            ("rows".into(), Arc::new(Int64Array::from(self.count))),
        ];
        for (number, column) in self.values.into_iter().enumerate() {
            let array = Arc::new(Float64Array::from(column));
            columns.push((format!("result_{number}"), array));
        }
        let batch = RecordBatch::try_from_iter(columns)?;
        let mut writer = ArrowWriter::try_new(File::create(path)?, batch.schema(), None)?;
        writer.write(&batch)?;
        writer.close()?;
        Ok(())
    }
}
