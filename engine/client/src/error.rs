//! What can fail, one type per operation.

use std::io;

use quiver_model::{NameError, StreamName};
use quiver_protocol::EncodeError;

use crate::{event::Disconnect, spool::SpoolError};

/// Why a client could not be started. A server that is away is no reason.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The spool does not open.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The UDP socket could not be made.
    #[error("cannot open a UDP socket: {0}")]
    Socket(#[source] io::Error),
    /// The TLS configuration cannot be used for QUIC.
    #[error(
        "the TLS configuration cannot be used for QUIC: {0}; take quiver_pki::rustls_client_config"
    )]
    Tls(String),
}

/// Why a batch was not queued. It is the caller's again.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SendError {
    /// It has no rows.
    #[error("the batch has no rows")]
    Empty,
    /// It cannot be written: a type that telemetry may not have, or too large.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The spool has no room, and was told not to wait for some.
    #[error(
        "the spool is full ({bytes} of {bytes_max} bytes); send again when the server has taken older batches, or give it more room"
    )]
    SpoolFull {
        /// Bytes in use.
        bytes: u64,
        /// Bytes allowed.
        bytes_max: u64,
    },
    /// The spool does not work.
    #[error("the batch could not be made durable: {0}")]
    Spool(String),
    /// The server allows no more streams at once.
    #[error(
        "stream {stream} would need one more QUIC stream than the server allows ({limit}); send fewer streams from one client"
    )]
    TooManyStreams {
        /// The stream.
        stream: StreamName,
        /// How many are allowed.
        limit: usize,
    },
    /// The batch of a named producer is not the next one.
    #[error("batch {sequence} of the producer cannot follow: the next one is {expected}")]
    OutOfOrder {
        /// The sequence given.
        sequence: u64,
        /// The sequence it should have.
        expected: u64,
    },
    /// The server does not take batches of the named producer.
    #[error("the server does not take stream {stream}: {message}")]
    Refused {
        /// The stream.
        stream: StreamName,
        /// What the server says.
        message: String,
    },
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

/// Why not everything is settled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlushError {
    /// The server does not take a stream, and batches for it are queued.
    #[error("the server does not take stream {stream}: {message}")]
    StreamRefused {
        /// The stream.
        stream: StreamName,
        /// Number of the code.
        code: u32,
        /// What the server says.
        message: String,
    },
    /// Batches cannot be given their numbers, because the spool does not work.
    #[error("the spool does not work: {reason}")]
    Spool {
        /// What is wrong with it.
        reason: String,
    },
    /// The client was closed.
    #[error(
        "the client was closed before everything was settled; what is spooled is sent by the next one"
    )]
    Closed,
}

/// Why there is no connection, when the caller waited for one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The server does not want this client.
    #[error("{0}")]
    Refused(Disconnect),
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

/// Why a stream cannot be sent to.
pub type StreamError = NameError;
