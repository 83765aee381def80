//! The load itself: connections, sources and their acknowledgements.
//!
//! ```text
//! pacer thread ─▶ Inbox ─▶ source: lane + generator ─▶ QUIC stream ─▶ server
//!                              ▲                                        │
//!                          Recorder ◀─ settle ◀─ control QUIC stream ◀──┘
//! ```
//!
//! **Why not the SDK.** `quiver-client` is for devices: it has a queue, a spool task and back-off of
//! its own, one UDP socket a client, and tells that a batch is settled through a shared state and a
//! future. A load generator must know when each batch was due, when QUIC took it and when its
//! acknowledgement was read, send settled batches again, drop connections at will and move sockets;
//! the SDK does none of that, on purpose, and its hand-overs between tasks would be in every
//! figure. So the harness speaks `quiver/1` itself, over quinn and the protocol crate's
//! [`ClientConversation`](quiver_protocol::ClientConversation) and
//! [`BatchEncoder`](quiver_protocol::BatchEncoder): the same bytes as the SDK's, without its queue.
//! What an SDK that collects rows would do is the knob `coalesce`.
//!
//! Each worker is a thread with a single-threaded runtime: its connections, sources and books are
//! touched by no other, and its recorder only once a second by the sampler.

mod connection;
mod context;
mod lane;
mod source;
mod worker;

pub(crate) use context::{Phase, Signal};
pub(crate) use worker::{ConnectionPlan, SourcePlan, WorkerPlan, WorkerResult, run_worker};
