//! The durable log: the sequencer that gives every record its position, and keeps it.
//!
//! ```text
//! ingest ──records──▶ Log::append_group ──commit group──▶ fdatasync ──▶ published, acknowledged
//!                          │ segments: 00000000000000000001.seg, …
//! start  ──Log::open───────┤ recovery: damage reported, tail cut, last group made durable
//! shards ◀──Replay─────────┤ from the checkpoint on, at start-up
//! consumers ◀──LogReader───┤ behind their cursors, while the log grows
//! checkpoints ──trim───────┘ whole segments below what anything needs, kept for reuse
//! ```
//!
//! What it promises:
//! - A group that [`Log::append_group`] returned `Ok` for is there after any crash, whole, once,
//!   in order. One that it refused is never there. One that was being written is there once, as
//!   the last, or not at all.
//! - A damaged group loses itself and nothing else, and is reported with its positions and, as far
//!   as they are readable, its senders and sequences.
//! - No position is given twice, even if the log is lost ([`RecoveryFloor`]).
//! - Reading bytes that anyone has changed never panics and never allocates more than they hold.
//!
//! Everything is synchronous and single-threaded, over a [`Vfs`]; the caller drives it from one
//! thread, or from a task of a simulation on a [`sim::SimVfs`]. The format is specified in
//! `docs/log-format.md`, and by the module docs of `group`, `codec`, `identity`, `checkpoint` and
//! `cursors`.

mod checkpoint;
mod codec;
mod cursors;
mod damage;
mod group;
mod identity;
mod image;
mod lock;
mod log;
mod options;
mod os;
mod record;
mod recover;
mod replay;
mod segment;
pub mod sim;
mod vfs;
mod walk;

pub use checkpoint::{
    Checkpoint, CheckpointError, CheckpointStore, DamagedCheckpoint, PayloadWriter,
};
pub use codec::RecordError;
pub use cursors::{Cursor, CursorError, Cursors, Overtaken};
pub use damage::{DamagedRange, DamagedRecord};
pub use identity::{LogId, stored_id};
pub use image::{SegmentImage, replay_bytes};
pub use lock::{DirLock, LockError};
pub use log::{AppendError, GroupCommitted, Log, Trimmed};
pub use options::LogOptions;
pub use os::OsVfs;
pub use record::{CommittedRecord, ControlKind, Encoding, Record, RecordKind};
pub use recover::{OpenError, RecoveryFloor, RecoveryReport};
pub use replay::{LogReader, Replay, ReplayError};
pub use segment::SegmentInfo;
pub use sim::{FaultKind, SimOp, SimVfs};
pub use vfs::{LockOutcome, Vfs, VfsFile, VfsLock, at_path};
