//! From one batch to the shards of its rows.

use std::{sync::Arc, time::Duration};

use arrow_array::RecordBatch;
use quiver_hot::{Reservation, Tables};
use quiver_log::{Encoding, Record, RecordKind};
use quiver_model::{CheckedBatch, Position, Producer, SenderId, Sequence, StreamSchema, Verdict};
use quiver_runtime::{
    admit::prepare,
    commit::Settlement,
    shard::{SettledOutcome, ShardEvent, dispatch_settlement},
};

use crate::{
    Entry, Fault, Kernel,
    data::{self, Device, FIELDS, Source},
};

/// Shards that rows are dealt to.
const SHARDS: u16 = 2;

pub(crate) fn entries() -> Vec<Entry> {
    let split = [(100, 10), (1_000, 1)].map(|(devices, rows)| {
        Entry::new(
            "route",
            format!("split/{devices}x{rows}"),
            (devices * rows) as u64,
            move || Split::new(devices, rows),
        )
    });
    let dispatch = [1, 100, 1_000].map(|rows| {
        Entry::new(
            "route",
            format!("dispatch/{rows}"),
            rows as u64,
            move || Dispatch::new(rows),
        )
    });
    split.into_iter().chain(dispatch).collect()
}

/// A gateway's batch of many devices: each shard's rows, as it stores them.
struct Split {
    checked: CheckedBatch,
}

impl Split {
    fn new(devices: usize, rows_per_device: usize) -> Result<Self, Fault> {
        let schema = data::stream_schema(FIELDS)?;
        let mut gateway = Source::gateway(0, devices as u64, devices, FIELDS)?;
        let batch = gateway.batch(devices * rows_per_device)?;
        let (_, checked) = data::check(&batch, &schema, gateway.sender())?;
        Ok(Self { checked })
    }
}

impl Kernel for Split {
    fn run(&mut self) -> Result<u64, Fault> {
        let parts = self.checked.clone().split_by_shard(SHARDS);
        let mut rows = 0;
        for (_, part) in parts {
            rows += part.place(Position(1), data::NOW)?.num_rows() as u64;
        }
        Ok(rows)
    }
}

/// A device's batch: prepared for its shard, and told to it.
struct Dispatch {
    tables: Tables,
    batch: RecordBatch,
    schema: Arc<StreamSchema>,
    sender: SenderId,
    record: Record,
}

impl Dispatch {
    fn new(rows: usize) -> Result<Self, Fault> {
        let mut device = Device::new(1, FIELDS);
        let sender = device.sender()?;
        Ok(Self {
            tables: Tables::new(SHARDS),
            batch: device.batch(rows)?,
            schema: data::stream_schema(FIELDS)?,
            record: data_record(&sender, rows)?,
            sender,
        })
    }
}

/// A record of a batch, without its payload.
pub(crate) fn data_record(sender: &SenderId, rows: usize) -> Result<Record, Fault> {
    let mut record = Record::control(RecordKind::Data, data::NOW);
    record.encoding = Encoding::ArrowIpcMessage;
    record.sender = Some(sender.clone());
    record.producer = Producer(1);
    record.stream = Some(data::stream()?);
    record.rows = u32::try_from(rows)?;
    record.sequence = Sequence(0);
    Ok(record)
}

impl Kernel for Dispatch {
    fn run(&mut self) -> Result<u64, Fault> {
        let prepared = prepare(
            &self.batch,
            &self.schema,
            &self.sender,
            &Verdict::default(),
            None,
            SHARDS,
        )
        .map_err(|refusal| refusal.message)?;
        let settlement = Settlement {
            sender: self.sender.clone(),
            rows: Some(prepared.into_parts(&self.tables, Reservation::none())),
            outcome: SettledOutcome::Stored,
            received: Duration::ZERO,
        };
        let mut told = 0;
        let mut tell = |_, event| {
            if let ShardEvent::Rows { rows, .. } = event {
                told += rows.row_count() as u64;
            }
        };
        dispatch_settlement(
            &self.tables,
            SHARDS,
            Position(1),
            &self.record,
            settlement,
            &mut tell,
        );
        Ok(told)
    }
}
