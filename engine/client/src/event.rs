//! What a client tells the program around it: how each batch ended, and what happens meanwhile.

use std::{fmt, time::Duration};

use quiver_model::{Producer, RejectCode, Sequence, StreamName};
use quiver_protocol::{ConnectionCloseCode, RefusedRowCount};

/// How a batch ended. It is out of the client's hands then, and out of its spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// On the server's stable storage, exactly once. Single rows may have been refused; they are
    /// kept by the server in the stream `rejects`.
    Stored,
    /// Refused for ever; the server keeps what it refused in the stream `rejects`. Sending the
    /// same rows again would be refused again.
    Rejected {
        /// The reason, for machines; `None` if this client does not know the code.
        code: Option<RejectCode>,
        /// The number of the code on the wire.
        number: u32,
        /// What is wrong, where, and how to mend it.
        message: String,
    },
    /// Stored or rejected, but which was not told: after an interruption the server repeats a
    /// bounded number of rejects. The server's stream `rejects` knows.
    Unreported,
    /// Lost on this side: the spool's disk gave back something else than was written.
    Damaged,
}

/// What happens to a client, for logs and displays. Handed to [`Observer::on_event`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientEvent {
    /// The server admitted this client.
    Connected {
        /// Number of this connection among those of this identity and instance.
        session: u64,
        /// Name and version of the server's software.
        server: String,
    },
    /// The connection could not be made, or ended; the client tries again by itself.
    Disconnected {
        /// Why.
        reason: Disconnect,
        /// When the next attempt is made.
        retry_in: Duration,
    },
    /// A batch was refused for ever.
    Rejected {
        /// Its stream.
        stream: StreamName,
        /// Its producer.
        producer: Producer,
        /// Its sequence.
        sequence: Sequence,
        /// Number of the code on the wire.
        number: u32,
        /// What is wrong, where, and how to mend it.
        message: String,
    },
    /// Rows that were gathered could not be queued as a batch; their handles say so too.
    NotQueued {
        /// Their stream.
        stream: StreamName,
        /// How many.
        rows: u64,
        /// Why.
        message: String,
    },
    /// Batches were stored, but without some of their rows, which the server keeps in the stream
    /// `rejects`. Sending those again would not store them either.
    RowsRefused {
        /// Their stream.
        stream: StreamName,
        /// Their producer.
        producer: Producer,
        /// How many, newly, by the number of the code on the wire.
        rows: Vec<RefusedRowCount>,
    },
    /// Rejects that the server did not list one by one after an interruption.
    RejectsUnlisted {
        /// Their stream.
        stream: StreamName,
        /// How many.
        count: u64,
    },
    /// The server lacks batches that it had acknowledged; they are declared lost, and it goes on
    /// behind them.
    LostByServer {
        /// The stream.
        stream: StreamName,
        /// First batch lost.
        from: Sequence,
        /// First batch behind the loss.
        to: Sequence,
    },
    /// A stream goes on under a new producer.
    Renumbered {
        /// The stream.
        stream: StreamName,
        /// Why.
        reason: RenumberReason,
        /// The new producer.
        producer: Producer,
    },
    /// The server closed a stream for now; the client tries again by itself.
    StreamPaused {
        /// The stream.
        stream: StreamName,
        /// A `StreamCloseCode` number.
        code: u32,
        /// What the server says.
        message: String,
    },
    /// The server does not take this stream from this sender. What is queued for it stays queued;
    /// the client asks again every minute.
    StreamRefused {
        /// The stream.
        stream: StreamName,
        /// A `StreamCloseCode` number.
        code: u32,
        /// What the server says.
        message: String,
    },
    /// Part of the spool could not be read back.
    SpoolDamaged {
        /// The segment file's number.
        segment: u64,
        /// Everything in it from this byte on is lost.
        offset: u64,
    },
}

/// Why a stream goes on under a new producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenumberReason {
    /// The server has forgotten the producer, or never knew it.
    UnknownToServer,
    /// The server has more batches of the producer than this client ever made: the spool was
    /// restored from an older copy.
    ServerAhead,
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disconnect {
    /// The server closed it, and said why.
    ByServer {
        /// Its code; `None` if this client does not know the number.
        code: Option<ConnectionCloseCode>,
        /// Its reason.
        reason: String,
    },
    /// Another connection of the same identity and instance took over.
    Replaced,
    /// The TLS handshake failed: mostly a certificate of one side.
    Tls {
        /// Number of the alert, RFC 8446 section 6.
        alert: u8,
        /// What this side does not accept; `None` if it is the server that does not.
        own: Option<String>,
    },
    /// The network or the peer failed.
    Failed(String),
}

impl Disconnect {
    /// Whether trying again unchanged can help. The client tries all the same: what is wrong may
    /// be mended at the server.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::ByServer { code, .. } => code.is_some_and(|code| !code.is_retryable()),
            Self::Tls { .. } => true,
            Self::Replaced | Self::Failed(_) => false,
        }
    }
}

impl fmt::Display for Disconnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByServer { code: Some(code), reason } => write!(f, "the server closed the connection: {code}: {reason}; {}", code.remedy()),
            Self::ByServer { code: None, reason } => write!(f, "the server closed the connection: {reason}"),
            Self::Replaced => f.write_str("another connection with the same identity and instance took over; make sure that each device runs once"),
            Self::Tls { own: Some(reason), .. } => write!(f, "this side does not accept the server: {reason}; check the server's address and name, the CA certificates, and the clock"),
            Self::Tls { alert, own: None } => write!(f, "the server does not accept this side (TLS alert {alert}): {}", remedy(*alert)),
            Self::Failed(reason) => f.write_str(reason),
        }
    }
}

/// What a server's alert means for a client's certificate, and what helps.
fn remedy(alert: u8) -> &'static str {
    match alert {
        45 => "the certificate has expired; issue a new one, and check both clocks",
        44 => "the certificate is revoked; issue a new one",
        42 | 43 | 46 | 48 | 49 | 51 => {
            "the certificate is not of the server's CA; use one that this CA has issued"
        }
        116 => "it wants a certificate, or a token where it takes tokens",
        120 => "it does not speak quiver/1; check the address",
        _ => "the handshake failed; the server's log says why",
    }
}

/// Somebody who wants to know what happens to a client.
pub trait Observer: Send + Sync {
    /// Called for each event, in order, from the client's tasks: it must return at once.
    fn on_event(&self, event: &ClientEvent);
}

impl<F: Fn(&ClientEvent) + Send + Sync> Observer for F {
    fn on_event(&self, event: &ClientEvent) {
        self(event);
    }
}

/// How many batches and rows ended how, since the client was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Batches stored.
    pub stored: u64,
    /// Rows of those, without the refused ones.
    pub stored_rows: u64,
    /// Rows of stored batches that were refused one by one.
    pub refused_rows: u64,
    /// Batches rejected.
    pub rejected: u64,
    /// Rows of those.
    pub rejected_rows: u64,
    /// Batches settled without a word on how.
    pub unreported: u64,
    /// Rows of those.
    pub unreported_rows: u64,
    /// Batches that the spool's disk lost.
    pub damaged: u64,
}
