//! The control stream as a pair of state machines without sockets: bytes in, events and bytes out.
//!
//! ```text
//!  QUIC ──handle_bytes──▶ [ServerConversation] ──poll_event──▶ runtime
//!  QUIC ◀─poll_transmit── [                  ] ◀─welcome/ack/reject/…── runtime
//! ```
//!
//! What can be judged without state is judged here (form, order of messages, limits, versions,
//! that identity and credential fit); what a sequence means is the runtime's question.
//!
//! Both sides end in the same way: an event `Closed`, after which nothing more comes out; the
//! caller closes the connection with the code and reason it carries.

mod client;
mod server;

pub use client::{
    ClientConversation, ClientEvent, ClientHello, RefusedRowCount, Resumed, ResumedReject,
};
pub use server::{
    Credential, HelloReceived, PairState, ServerConversation, ServerEvent, ServerRules,
};

use quiver_model::{Producer, StreamName};

/// A producer on a stream: the scope in which sequences are dense.
pub type ProducerStream = (Producer, StreamName);
