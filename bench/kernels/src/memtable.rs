//! Durable rows into memory: the memtable alone, and all that a shard does with a batch.

use std::{sync::Arc, time::Duration};

use arrow_array::RecordBatch;
use quiver_hot::{Appended, Reservation, StreamTable};
use quiver_model::{CheckedBatch, Position, ShardId, StreamSchema};
use quiver_runtime::{
    commit::AppendQueue,
    shard::{Shard, ShardEvent, ShardImage},
};

use crate::{
    Entry, Fault, Kernel,
    actor::shard_parts,
    data::{self, Device, FIELDS},
};

/// A memtable begins anew after so many rows: about what a flush takes.
const ROWS_MAX: u64 = 100_000;

pub(crate) fn entries() -> Vec<Entry> {
    let mut entries = Vec::new();
    for rows in [1, 100, 1_000] {
        entries.push(Entry::new(
            "memtable",
            format!("append/{rows}"),
            rows as u64,
            move || Append::new(rows),
        ));
        entries.push(Entry::new(
            "memtable",
            format!("shard/{rows}"),
            rows as u64,
            move || Apply::new(rows),
        ));
    }
    entries
}

fn checked(schema: &Arc<StreamSchema>, rows: usize) -> Result<CheckedBatch, Fault> {
    let mut device = Device::new(1, FIELDS);
    let sender = device.sender()?;
    Ok(data::check(&device.batch(rows)?, schema, &sender)?.1)
}

struct Append {
    schema: Arc<StreamSchema>,
    table: StreamTable,
    batch: CheckedBatch,
    next: Position,
    placed: Option<RecordBatch>,
}

impl Append {
    fn new(rows: usize) -> Result<Self, Fault> {
        let schema = data::stream_schema(FIELDS)?;
        Ok(Self {
            table: StreamTable::new(schema.clone(), 1),
            batch: checked(&schema, rows)?,
            schema,
            next: Position(1),
            placed: None,
        })
    }
}

impl Kernel for Append {
    fn prepare(&mut self) -> Result<(), Fault> {
        if self.next.get() > ROWS_MAX {
            self.table = StreamTable::new(self.schema.clone(), 1);
            self.next = Position(1);
        }
        self.placed = Some(self.batch.place(self.next, data::NOW)?);
        self.next = self.next.plus(self.batch.row_count() as u64);
        Ok(())
    }

    fn run(&mut self) -> Result<u64, Fault> {
        let batch = self.placed.take().ok_or("the run was not prepared")?;
        let rows = batch.num_rows() as u64;
        let appended = self
            .table
            .append(ShardId(0), batch, Reservation::none(), Duration::ZERO)?;
        match appended {
            Appended::Stored => Ok(rows),
            Appended::AlreadyArchived => Ok(0),
        }
    }
}

struct Apply {
    schema: Arc<StreamSchema>,
    shard: Shard,
    table: Arc<StreamTable>,
    batch: CheckedBatch,
    next: Position,
    event: Option<ShardEvent>,
}

impl Apply {
    fn new(rows: usize) -> Result<Self, Fault> {
        let schema = data::stream_schema(FIELDS)?;
        let (queue, _) = AppendQueue::new();
        let parts = shard_parts(queue);
        Ok(Self {
            shard: Shard::new(ShardId(0), parts, Position(0), ShardImage::default()),
            table: Arc::new(StreamTable::new(schema.clone(), 1)),
            batch: checked(&schema, rows)?,
            schema,
            next: Position(1),
            event: None,
        })
    }
}

impl Kernel for Apply {
    fn prepare(&mut self) -> Result<(), Fault> {
        if self.next.get() > ROWS_MAX {
            self.table = Arc::new(StreamTable::new(self.schema.clone(), 1));
            self.next = Position(1);
        }
        self.event = Some(ShardEvent::Rows {
            table: self.table.clone(),
            rows: self.batch.clone().into(),
            reservation: Reservation::none(),
            first: self.next,
            time: data::NOW,
        });
        self.next = self.next.plus(self.batch.row_count() as u64);
        Ok(())
    }

    fn run(&mut self) -> Result<u64, Fault> {
        let before = self.table.stats().rows;
        self.shard
            .apply(self.event.take().ok_or("the run was not prepared")?);
        // The end of the commit group, here of one batch: what was pending goes into the table.
        let last = Position(self.next.get() - 1);
        self.shard.apply(ShardEvent::Watermark(last));
        Ok(self.table.stats().rows - before)
    }
}
