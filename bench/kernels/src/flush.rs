//! What a flush does with a memtable's rows: the sort, and the Parquet file.

use std::sync::Arc;

use arrow_array::RecordBatch;
use quiver_archive::stages::{Sorted, sort};
use quiver_model::StreamSchema;

use crate::{
    Entry, Fault, Kernel,
    data::{self, FIELDS, stored_batches},
};

/// Devices whose rows are flushed together.
const DEVICES: usize = 64;
/// Rows in all.
const ROWS: usize = 64_000;

pub(crate) fn entries() -> Vec<Entry> {
    let mut entries = Vec::new();
    for rows in [100, 1_000] {
        entries.push(Entry::new(
            "flush",
            format!("sort/{rows}"),
            ROWS as u64,
            move || Sort::new(rows),
        ));
        entries.push(Entry::new(
            "flush",
            format!("parquet/{rows}"),
            (ROWS * FIELDS) as u64,
            move || Encode::new(rows),
        ));
    }
    entries
}

struct Sort {
    batches: Vec<RecordBatch>,
}

impl Sort {
    fn new(rows_per_batch: usize) -> Result<Self, Fault> {
        let schema = data::stream_schema(FIELDS)?;
        Ok(Self {
            batches: stored_batches(&schema, DEVICES, ROWS, rows_per_batch)?,
        })
    }
}

impl Kernel for Sort {
    fn run(&mut self) -> Result<u64, Fault> {
        let sorted = sort(&self.batches).ok_or("the rows have another layout")?;
        Ok(sorted.rows() as u64)
    }
}

struct Encode {
    schema: Arc<StreamSchema>,
    batches: Vec<RecordBatch>,
    sorted: Sorted,
}

impl Encode {
    fn new(rows_per_batch: usize) -> Result<Self, Fault> {
        let schema = data::stream_schema(FIELDS)?;
        let batches = stored_batches(&schema, DEVICES, ROWS, rows_per_batch)?;
        Ok(Self {
            schema,
            sorted: sort(&batches).ok_or("the rows have another layout")?,
            batches,
        })
    }
}

impl Kernel for Encode {
    fn run(&mut self) -> Result<u64, Fault> {
        let files = self.sorted.encode(self.schema.stored(), &self.batches)?;
        if files.iter().any(bytes::Bytes::is_empty) {
            return Err("a file is empty".into());
        }
        Ok((self.sorted.rows() * self.schema.fields().len()) as u64)
    }
}
