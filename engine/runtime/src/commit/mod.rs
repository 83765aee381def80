//! The one place where order is decided. Requests queue up while the last commit group is being
//! synced; whatever has come by then is the next group.
//!
//! ```text
//! ingest ──try_append──▶ AppendQueue (bounded) ──▶ CommitLoop: append_group, fdatasync
//!   ▲                                               │ in position order, then a watermark to all
//!   └── Full: the batch stays with its QUIC stream  ├──▶ shard inboxes (bounded; shards never wait)
//!                                                   └──▶ control waiters
//! ```
//!
//! Epochs: when a group is refused (disk full, failed write), it and everything queued behind it
//! fails; the epoch rises, and requests made under an older one fail too. So no batch can become
//! durable after one of its predecessors did not.

mod commit_loop;
mod queue;

pub use commit_loop::{CommitLoop, FatalError};
pub use queue::{
    AppendFailure, AppendQueue, AppendRequest, CommitCommand, ControlReply, OnCommit, QueueFull,
    Settlement, TrimReport,
};
