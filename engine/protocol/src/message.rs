//! The control messages as protobuf. These structs are what is on the wire, unchecked; the
//! conversations turn them into checked types. Field numbers are for ever.
//!
//! Numbers reserved for messages that later versions build: in `ClientMessage` 2
//! (`CommandResult`) and 3 (`ReportState`); in `ServerMessage` 6 (`Command`), 7 (`DesiredState`)
//! and 8 (`Redirect`). A member that the receiver does not know decodes to `None`; it is ignored
//! and counted, so either side may be newer than the other.

use crate::limits::Limits;

/// What a client sends on the control stream.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ClientMessage {
    /// Exactly one of the messages; `None` is one from the future.
    #[prost(oneof = "client_message::Message", tags = "1")]
    pub message: Option<client_message::Message>,
}

/// Members of [`ClientMessage`].
pub mod client_message {
    /// The messages of a client.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Message {
        /// The first message, once.
        #[prost(message, tag = "1")]
        Hello(super::Hello),
    }
}

/// What a server sends on the control stream.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ServerMessage {
    /// Exactly one of the messages; `None` is one from the future.
    #[prost(oneof = "server_message::Message", tags = "1, 2, 3, 4, 5")]
    pub message: Option<server_message::Message>,
}

/// Members of [`ServerMessage`].
pub mod server_message {
    /// The messages of a server.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Message {
        /// The answer to `Hello`, once.
        #[prost(message, tag = "1")]
        Welcome(super::Welcome),
        /// Batches are settled.
        #[prost(message, tag = "2")]
        Ack(super::Ack),
        /// A batch is refused for ever.
        #[prost(message, tag = "3")]
        Reject(super::Reject),
        /// A telemetry QUIC stream was closed by the server.
        #[prost(message, tag = "4")]
        StreamClosed(super::StreamClosed),
        /// The connection is about to be closed by the server.
        #[prost(message, tag = "5")]
        Bye(super::Bye),
    }
}

/// The client introduces itself.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Hello {
    /// Version of the protocol: 1.
    #[prost(uint32, tag = "1")]
    pub protocol: u32,
    /// Id of the device; needed with a token only.
    #[prost(string, tag = "2")]
    pub device_id: String,
    /// Random number of this installation: a second connection of the same identity and instance
    /// takes the first one's place.
    #[prost(fixed64, tag = "3")]
    pub instance: u64,
    /// Bearer token, where no certificate is used.
    #[prost(string, tag = "4")]
    pub token: String,
    /// Name and version of the client's software.
    #[prost(string, tag = "5")]
    pub client: String,
    /// What the client knows to be settled, for each pair it wants to resume.
    #[prost(message, repeated, tag = "6")]
    pub last_acks: Vec<LastAck>,
}

/// What a client knows of one (producer, stream).
#[derive(Clone, PartialEq, prost::Message)]
pub struct LastAck {
    /// The producer.
    #[prost(fixed64, tag = "1")]
    pub producer: u64,
    /// The stream.
    #[prost(string, tag = "2")]
    pub stream: String,
    /// The sequence after the last acknowledged one; 0 if none was.
    #[prost(uint64, tag = "3")]
    pub next_sequence: u64,
}

/// The server admits the client.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Welcome {
    /// What the client has to keep to.
    #[prost(message, optional, tag = "1")]
    pub limits: Option<Limits>,
    /// An answer to each pair of `Hello.last_acks`, in the same order.
    #[prost(message, repeated, tag = "2")]
    pub resume: Vec<Resume>,
    /// Number of this connection among those of the identity and instance.
    #[prost(uint64, tag = "3")]
    pub session: u64,
    /// Name and version of the server's software.
    #[prost(string, tag = "4")]
    pub server: String,
}

/// What the server knows of one (producer, stream).
#[derive(Clone, PartialEq, prost::Message)]
pub struct Resume {
    /// The producer.
    #[prost(fixed64, tag = "1")]
    pub producer: u64,
    /// The stream.
    #[prost(string, tag = "2")]
    pub stream: String,
    /// Durable batches: the sequence to go on with. 0 for an unknown pair.
    #[prost(uint64, tag = "3")]
    pub next_sequence: u64,
    /// Whether the server knows the pair.
    #[prost(bool, tag = "4")]
    pub known: bool,
    /// Rejects of sequences from the client's `next_sequence` on, oldest first.
    #[prost(message, repeated, tag = "5")]
    pub rejects: Vec<ResumeReject>,
    /// How many such rejects there are; more than are listed if the list was cut.
    #[prost(uint64, tag = "6")]
    pub rejects_total: u64,
    /// Rows of settled batches that were refused one by one, by reason, since the pair is known.
    #[prost(message, repeated, tag = "7")]
    pub refused_rows: Vec<RefusedRows>,
}

/// Rows that were refused one by one for the same reason, while their batches were stored.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct RefusedRows {
    /// A `RejectCode` of single rows: 100 and above.
    #[prost(uint32, tag = "1")]
    pub code: u32,
    /// How many.
    #[prost(uint64, tag = "2")]
    pub rows: u64,
}

/// A reject repeated in `Welcome`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ResumeReject {
    /// The refused batch.
    #[prost(uint64, tag = "1")]
    pub sequence: u64,
    /// A `RejectCode`.
    #[prost(uint32, tag = "2")]
    pub code: u32,
    /// What is wrong, where, and how to mend it.
    #[prost(string, tag = "3")]
    pub message: String,
}

/// Every batch up to and including `sequence` is settled.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Ack {
    /// The producer.
    #[prost(fixed64, tag = "1")]
    pub producer: u64,
    /// The stream.
    #[prost(string, tag = "2")]
    pub stream: String,
    /// The last settled batch.
    #[prost(uint64, tag = "3")]
    pub sequence: u64,
    /// Rows of settled batches that were refused one by one, by reason, since the pair is known.
    #[prost(message, repeated, tag = "4")]
    pub refused_rows: Vec<RefusedRows>,
}

/// One batch is refused for ever. Comes before the `Ack` that passes it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Reject {
    /// The producer.
    #[prost(fixed64, tag = "1")]
    pub producer: u64,
    /// The stream.
    #[prost(string, tag = "2")]
    pub stream: String,
    /// The refused batch.
    #[prost(uint64, tag = "3")]
    pub sequence: u64,
    /// A `RejectCode`.
    #[prost(uint32, tag = "4")]
    pub code: u32,
    /// What is wrong, where, and how to mend it.
    #[prost(string, tag = "5")]
    pub message: String,
}

/// The server closed a telemetry QUIC stream.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StreamClosed {
    /// The producer; 0 if `OpenStream` could not be read.
    #[prost(fixed64, tag = "1")]
    pub producer: u64,
    /// The stream; empty if `OpenStream` could not be read.
    #[prost(string, tag = "2")]
    pub stream: String,
    /// Durable batches: the sequence to go on with.
    #[prost(uint64, tag = "3")]
    pub next_sequence: u64,
    /// A [`StreamCloseCode`](crate::StreamCloseCode).
    #[prost(uint32, tag = "4")]
    pub code: u32,
    /// Milliseconds to wait before opening the next one.
    #[prost(uint32, tag = "5")]
    pub retry_after: u32,
    /// What is wrong and how to mend it.
    #[prost(string, tag = "6")]
    pub message: String,
    /// Id of the QUIC stream that was closed.
    #[prost(uint64, tag = "7")]
    pub quic_stream: u64,
}

/// The server is about to close the connection.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Bye {
    /// A [`ConnectionCloseCode`](crate::ConnectionCloseCode).
    #[prost(uint32, tag = "1")]
    pub code: u32,
    /// What is wrong and how to mend it.
    #[prost(string, tag = "2")]
    pub message: String,
    /// Milliseconds to wait before connecting again.
    #[prost(uint32, tag = "3")]
    pub reconnect_after: u32,
}

/// The first message on a telemetry QUIC stream.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OpenStream {
    /// The stream.
    #[prost(string, tag = "1")]
    pub stream: String,
    /// The producer.
    #[prost(fixed64, tag = "2")]
    pub producer: u64,
    /// Sequence of the first batch that follows.
    #[prost(uint64, tag = "3")]
    pub first_sequence: u64,
    /// Batches before this sequence that were never settled are lost for good; 0 for none.
    #[prost(uint64, tag = "4")]
    pub lost_before: u64,
    /// An [`Encoding`](crate::Encoding).
    #[prost(uint32, tag = "5")]
    pub encoding: u32,
    /// An [`AckLevel`](crate::AckLevel).
    #[prost(uint32, tag = "6")]
    pub ack_level: u32,
    /// A backlog: lower priority than live data.
    #[prost(bool, tag = "7")]
    pub replayed: bool,
}
