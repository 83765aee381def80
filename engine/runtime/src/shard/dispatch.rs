//! From a durable record to what each shard is told of it. Live commits and replay both go
//! through here.

use std::sync::Arc;

use quiver_hot::{Reservation, StreamTable, Tables};
use quiver_log::{ControlKind, Record, RecordKind};
use quiver_model::{BatchPart, Position, ShardId};

use super::{ControlRow, RejectNote, ShardEvent, event::Settled};
use crate::{commit::Settlement, damage::DamageReport};

/// The rows of one shard.
pub struct RowPart {
    /// The shard.
    pub shard: ShardId,
    /// The rows.
    pub rows: BatchPart,
    /// Memory they were admitted with.
    pub reservation: Reservation,
}

/// A batch's rows, and what is kept of its refused ones.
pub struct RowParts {
    /// Table of the stream; `None` if no row is stored.
    pub table: Option<Arc<StreamTable>>,
    /// By shard.
    pub parts: Vec<RowPart>,
    /// Refused rows, or the refused batch.
    pub rejects: Vec<RejectNote>,
    /// Memory for those.
    pub rejects_reservation: Option<Reservation>,
    /// Memory of the record itself, until it is in the log and the shards know of it.
    pub queued: Reservation,
}

/// Tells the shards of a sender's record: rows to the shards of their devices, then the settled
/// sequence to the shard of the sender.
pub fn dispatch_settlement(
    tables: &Tables,
    shard_count: u16,
    position: Position,
    record: &Record,
    settlement: Settlement,
    tell: &mut dyn FnMut(ShardId, ShardEvent),
) {
    let Settlement {
        sender,
        rows,
        outcome,
        received,
    } = settlement;
    let mut rejects = Vec::new();
    let mut rejects_table = None;
    if let Some(rows) = rows {
        if let Some(table) = rows.table {
            for RowPart {
                shard,
                rows,
                reservation,
            } in rows.parts
            {
                let table = table.clone();
                tell(
                    shard,
                    ShardEvent::Rows {
                        table,
                        rows,
                        reservation,
                        first: position,
                        time: record.time,
                    },
                );
            }
        }
        rejects = rows.rejects;
        rejects_table = rows.rejects_reservation.and_then(|reservation| {
            Some((tables.get_or_create(&super::rejects_schema()?), reservation))
        });
    }
    let Some(stream) = record.stream.clone() else {
        return;
    };
    let shard = sender.shard(shard_count);
    let settled = Settled {
        sender,
        producer: record.producer,
        producer_kind: record.producer_kind,
        stream,
        sequence: record.sequence,
        position,
        time: record.time,
        outcome,
        rejects,
        rejects_table,
        received: Some(received),
    };
    tell(shard, ShardEvent::Settled(Box::new(settled)));
}

/// Tells the shards what a control record says of senders, and adds its row to `rows`: those of
/// records that follow each other are told to shard 0 together.
pub fn dispatch_control(
    shard_count: u16,
    position: Position,
    record: &Record,
    rows: &mut Vec<ControlRow>,
    tell: &mut dyn FnMut(ShardId, ShardEvent),
) {
    rows.extend(ControlRow::of(position, record));
    if record.kind == RecordKind::Control(ControlKind::DamageReported)
        // One that cannot be read was said to be so when it was applied to the control state.
        && let Ok(report) = DamageReport::read(record)
    {
        for damage in report.senders {
            let Some((sender, _, _)) = damage.key() else {
                continue;
            };
            let event = ShardEvent::Damaged {
                position,
                time: record.time,
                damage: Box::new(damage),
            };
            tell(sender.shard(shard_count), event);
        }
    }
}
