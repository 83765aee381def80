//! Numbers that both sides agree on: why a telemetry QUIC stream or a connection is closed, when a
//! batch is acknowledged, how it is encoded. They are on the wire: never reuse one.

use std::fmt;

macro_rules! wire_codes {
    (
        $(#[$doc:meta])* $name:ident: $number_type:ty;
        $($(#[$variant_doc:meta])* $variant:ident = $number:literal, $text:literal, $remedy:literal;)*
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum $name { $($(#[$variant_doc])* $variant = $number,)* }

        impl $name {
            /// Every code, in the order of its numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The code with this number, if it has been given a meaning.
            pub const fn from_number(number: $number_type) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }

            /// The number on the wire, also the QUIC application error code.
            pub const fn number(self) -> $number_type {
                self as $number_type
            }

            /// The word used in logs, metrics and documentation.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// What the sender does about it, in one sentence.
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

wire_codes! {
    /// Why the server closes a telemetry QUIC stream: `StreamClosed.code`, and the application
    /// error code of its STOP_SENDING. From [`StreamCloseCode::RETRYABLE_FROM`] on the cause passes
    /// by itself.
    StreamCloseCode: u32;
    /// `first_sequence` is above the next expected one and the batches between were not declared lost.
    Gap = 1, "GAP", "reopen at next_sequence, or declare the batches before first_sequence lost with lost_before";
    /// The server does not know the producer, and `first_sequence` is not 0.
    UnknownProducer = 2, "UNKNOWN_PRODUCER", "draw a new producer and send what is unsettled under it, numbered from 0";
    /// Bytes that are no message of the encoding; where the next batch begins is unknown.
    Framing = 3, "FRAMING", "reopen at next_sequence, once the Reject of the broken batch has come";
    /// A newer QUIC stream or session carries this (producer, stream).
    Superseded = 4, "SUPERSEDED", "nothing; go on with the newer QUIC stream";
    /// `OpenStream` cannot be read or contradicts itself.
    BadOpen = 5, "BAD_OPEN", "mend OpenStream as the message says; nothing was stored";
    /// The sender may not write this stream: its name belongs to the engine, or its quota of new
    /// streams is used up.
    NotAllowed = 6, "NOT_ALLOWED", "choose another stream, or ask the operator of the server";
    /// A message is longer than the limits of `Welcome`.
    TooLarge = 7, "TOO_LARGE", "split batches to the limits of Welcome; reopen at next_sequence, once the Reject has come";
    /// The disk is full for the time being.
    StorageFull = 64, "STORAGE_FULL", "wait retry_after, then reopen at next_sequence";
    /// The server has no room for more at the moment.
    Overloaded = 65, "OVERLOADED", "wait retry_after, then reopen at next_sequence";
    /// The sender exceeds its rate.
    RateLimited = 66, "RATE_LIMITED", "wait retry_after, then reopen at next_sequence, and send more slowly";
    /// A write failed and was undone; nothing of what was not acknowledged is stored.
    Retry = 67, "RETRY", "wait retry_after, then reopen at next_sequence";
}

impl StreamCloseCode {
    /// Codes from this number on, also those that a client does not know, are retryable: wait
    /// `retry_after`, then reopen at `next_sequence`.
    pub const RETRYABLE_FROM: u32 = 64;

    /// Whether the cause passes by itself.
    pub const fn is_retryable(self) -> bool {
        self.number() >= Self::RETRYABLE_FROM
    }
}

wire_codes! {
    /// Why a connection is closed: the application error code of QUIC's CONNECTION_CLOSE, and
    /// `Bye.code`.
    ConnectionCloseCode: u32;
    /// The client is done: everything is settled.
    Ok = 0, "OK", "nothing; connect again when there is something to send";
    /// The peer broke the protocol; the reason says where.
    ProtocolViolation = 1, "PROTOCOL_VIOLATION", "mend the client as the reason says; connecting again unchanged fails again";
    /// The protocol version is not spoken here.
    UnsupportedVersion = 2, "UNSUPPORTED_VERSION", "use a version that the reason names";
    /// The connection has no identity: no usable certificate and no valid token.
    Unauthenticated = 3, "UNAUTHENTICATED", "present a client certificate with one SAN URI urn:quiver:<kind>:<id>, or a valid token";
    /// The identity is genuine but not enrolled.
    NotEnrolled = 4, "NOT_ENROLLED", "enrol the device at the server, then connect again";
    /// The identity was revoked.
    Revoked = 5, "REVOKED", "stop; ask the operator of the server for a new credential";
    /// A newer connection of the same identity and instance took over.
    Replaced = 6, "REPLACED", "back off 1 s, doubling to 60 s, with jitter; make sure that each device runs once";
    /// More telemetry QUIC streams than `Welcome.limits` allows.
    TooManyStreams = 7, "TOO_MANY_STREAMS", "keep within limits.quic_streams";
    /// A limit other than that was exceeded by the peer; the reason names it.
    LimitExceeded = 8, "LIMIT_EXCEEDED", "keep within the limit that the reason names";
    /// The server stops or restarts.
    ShuttingDown = 9, "SHUTTING_DOWN", "connect again after reconnect_after, with jitter, and resume";
    /// The server has no room for the connection at the moment.
    Overloaded = 10, "OVERLOADED", "connect again after at least 1 s, doubling to 60 s, with jitter";
    /// The server failed; unacknowledged batches are not lost at the sender.
    Internal = 11, "INTERNAL", "connect again with back-off, and resume";
    /// No `Hello` came in time.
    HelloTimeout = 12, "HELLO_TIMEOUT", "open the control stream and send Hello at once";
}

impl ConnectionCloseCode {
    /// Whether connecting again, unchanged and after a pause, may succeed.
    pub const fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::Ok
                | Self::Replaced
                | Self::ShuttingDown
                | Self::Overloaded
                | Self::Internal
                | Self::HelloTimeout
        )
    }
}

/// When a batch counts as acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AckLevel {
    /// On stable storage, or durably rejected. The default.
    #[default]
    Durable,
    /// Received and checked; a power loss may still lose it. Only by the sender's own wish.
    Received,
}

impl AckLevel {
    /// The number on the wire.
    pub const fn number(self) -> u32 {
        match self {
            Self::Durable => 0,
            Self::Received => 1,
        }
    }

    /// The level with this number.
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Durable),
            1 => Some(Self::Received),
            _ => None,
        }
    }
}

/// How batches follow on a telemetry QUIC stream. Numbers from 4 on are free for encodings to come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// An Arrow IPC stream.
    #[default]
    Arrow,
    /// The messages of an Arrow IPC stream, each compressed as a whole with zstd.
    ArrowZstd,
    /// A schema message, and then what changes from row to row.
    Compact,
}

impl Encoding {
    /// The encoding that a schema message written by [`BatchEncoder`](crate::BatchEncoder) is in.
    pub fn of_schema_message(message: &[u8]) -> Self {
        // A compressed length of 4 GiB is beyond every limit, so none of its bytes but the lowest
        // two is FF where the message's own four would be behind a varint.
        let is_behind_length = || {
            crate::compact::payload_of(message)
                .is_some_and(|payload| payload.starts_with(&crate::ipc::CONTINUATION))
        };
        if message.starts_with(&crate::ipc::CONTINUATION) {
            Self::Arrow
        } else if is_behind_length() {
            Self::Compact
        } else {
            Self::ArrowZstd
        }
    }

    /// What may be sent before the QUIC stream is finished.
    pub const fn end_of_stream(self) -> &'static [u8] {
        match self {
            Self::Arrow => &crate::ipc::END_OF_STREAM,
            Self::ArrowZstd => &crate::ipc::END_OF_COMPRESSED_STREAM,
            Self::Compact => &[0],
        }
    }

    /// The number on the wire.
    pub const fn number(self) -> u32 {
        match self {
            Self::Arrow => 1,
            Self::ArrowZstd => 2,
            Self::Compact => 3,
        }
    }

    /// The encoding with this number.
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Arrow),
            2 => Some(Self::ArrowZstd),
            3 => Some(Self::Compact),
            _ => None,
        }
    }
}

/// How a connection ends, and what the peer is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {reason}")]
pub struct ConnectionClose {
    /// The application error code.
    pub code: ConnectionCloseCode,
    /// What is wrong and how to mend it, for the reason of CONNECTION_CLOSE.
    pub reason: String,
}

impl ConnectionClose {
    /// A close with its reason, cut to what fits into one packet.
    pub fn new(code: ConnectionCloseCode, reason: impl AsRef<str>) -> Self {
        Self {
            code,
            reason: crate::limits::cut(reason.as_ref(), crate::limits::MESSAGE_TEXT_BYTES_MAX),
        }
    }

    /// The peer broke the protocol.
    pub(crate) fn violation(reason: impl AsRef<str>) -> Self {
        Self::new(ConnectionCloseCode::ProtocolViolation, reason)
    }
}
