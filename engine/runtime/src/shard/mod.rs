//! A shard: what the engine knows, in memory, of a fixed part of the identities and their rows.
//!
//! ```text
//! commit loop ──ShardEvent, in position order──▶ inbox ──▶ Shard::apply ──▶ memtables, last values, ledger
//!                                                             │
//!                                                             └─▶ sender's sequences ──▶ outbox of its session ──▶ Ack
//! device actors ──check and append (same thread)──▶ Shard
//! ```
//!
//! [`Shard`] is the state machine: no actor, no clock, no I/O. [`ShardActor`] is its mailbox. What
//! live events do, replayed ones do too: recovery feeds the same [`ShardEvent`]s.
//!
//! Invariant: a shard never waits. Memory for what it applies was reserved before the append.

mod actor;
mod dispatch;
mod event;
mod gaps;
mod image;
mod inbox;
mod ledger;
mod pair_bytes;
mod pending;
mod rejects;
mod roster;
mod senders;
mod state;
mod stream_set;

pub use actor::{AdoptConnection, AuditShard, CloseSender, ShardActor, StopShard};
pub use dispatch::{RowPart, RowParts, dispatch_control, dispatch_settlement};
pub use event::{ControlRow, SettledOutcome, ShardEvent};
pub use gaps::{GapWatch, SequenceGap};
pub use image::ShardImage;
pub(crate) use image::{OldShardImage, restore};
pub use inbox::{ShardInbox, ShardOutlet};
pub use ledger::Ledger;
pub use rejects::{
    RejectNote, control_schema, device_in_row, distinct_devices, note_for_batch, notes_for_rows,
    rejects_schema,
};
pub use roster::LiveSender;
pub use senders::{
    AppendRefused, LiveStream, OpenRefused, Opened, PairKey, ProducerState, RecentReject,
    SenderState, SessionHandle, StopSignal,
};
pub use state::{Shard, ShardParts};
