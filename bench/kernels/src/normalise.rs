//! Judging a batch and turning it into stored types.

use std::sync::Arc;

use arrow_array::RecordBatch;
use quiver_model::{SenderId, StreamSchema};

use crate::{
    Entry, Fault, Kernel,
    data::{self, Device, FIELDS},
};

pub(crate) fn entries() -> Vec<Entry> {
    [1, 100, 1_000]
        .map(|rows| {
            Entry::new(
                "normalise",
                rows.to_string(),
                (rows * FIELDS) as u64,
                move || Normalise::new(rows),
            )
        })
        .into()
}

struct Normalise {
    batch: RecordBatch,
    schema: Arc<StreamSchema>,
    sender: SenderId,
}

impl Normalise {
    fn new(rows: usize) -> Result<Self, Fault> {
        let mut device = Device::new(1, FIELDS);
        Ok(Self {
            batch: device.batch(rows)?,
            schema: data::stream_schema(FIELDS)?,
            sender: device.sender()?,
        })
    }
}

impl Kernel for Normalise {
    fn run(&mut self) -> Result<u64, Fault> {
        let (_, checked) = data::check(&self.batch, &self.schema, &self.sender)?;
        Ok(checked.point_count())
    }
}
