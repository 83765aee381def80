//! Every knob of a load, once: its key in a scenario file, its flag, its default and what it does.
//! A key and a flag are the same word (`reconnect_every`, `--reconnect-every`); the environment's
//! twin is `QUIVER_BENCH_` and the word.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::units::{Share, Span};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }
    };
}

words! {
    /// As whom connections come.
    Identity {
        /// Each device has a connection and a certificate of its own.
        Device,
        /// Each connection is a gateway that speaks for its part of the devices.
        Gateway,
        /// Every connection is the operator, who speaks for all devices.
        Operator,
    }
}

words! {
    /// When batches are due.
    Arrivals {
        /// Evenly spaced, the sources one after the other.
        Constant,
        /// At random with exponential gaps, as independent devices are.
        Poisson,
        /// Several at the same moment, then a pause.
        Bursts,
        /// When the rows of the recorded file were measured.
        Replay,
    }
}

words! {
    /// What is sent.
    Values {
        /// Random walks, rounded: what sensors look like.
        Walk,
        /// Uniform noise in all its digits: what compresses worst.
        Noise,
        /// The same number for ever: what compresses best.
        Constant,
        /// Trucks in the shape of the iot case of the Time Series Benchmark Suite: two streams,
        /// seven and three fields.
        Trucks,
        /// One text of `message_bytes` a row.
        Messages,
        /// The rows of a recorded Parquet file or directory.
        File,
    }
}

words! {
    /// When the server acknowledges.
    Ack {
        /// When the batch is on stable storage.
        Durable,
        /// When it was received and checked.
        Received,
    }
}

words! {
    /// Compression of Arrow buffers or messages, or the compact encoding.
    Codec {
        /// None.
        None,
        /// LZ4 frames.
        Lz4,
        /// Zstandard.
        Zstd,
        /// Zstandard over whole messages.
        Message,
        /// The compact encoding: what changes from row to row.
        Compact,
    }
}

macro_rules! knobs {
    ($($(#[doc = $doc:literal])+ $key:ident / $env:literal : $type:ty = $default:expr;)*) => {
        /// What a scenario file or a command line says; what neither says has its default.
        #[derive(Args, Clone, Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Knobs {
            $(
                $(#[doc = $doc])+
                #[arg(long, env = $env, hide_env = true, help_heading = "Scenario")]
                pub $key: Option<$type>,
            )*
        }

        impl Knobs {
            /// Every key, in the order of the documentation.
            pub const KEYS: &'static [&'static str] = &[$(stringify!($key),)*];

            /// These, and what they leave open from `other`.
            #[must_use]
            pub fn over(self, other: Self) -> Self {
                Self { $($key: self.$key.or(other.$key),)* }
            }

            /// With defaults for what is left open.
            pub fn resolve(self) -> Scenario {
                Scenario { $($key: self.$key.unwrap_or($default),)* }
            }
        }

        /// A whole scenario: every knob has a value.
        #[derive(Clone, Debug, PartialEq, Serialize)]
        pub struct Scenario {
            $($(#[doc = $doc])+ pub $key: $type,)*
        }
    };
}

knobs! {
    /// Devices that rows are of
    devices / "QUIVER_BENCH_DEVICES": u32 = 10;
    /// As whom connections come: device (each device its own connection and certificate), gateway or operator
    identity / "QUIVER_BENCH_IDENTITY": Identity = Identity::Device;
    /// Connections; 0: one a device, or 8 of gateways and operators
    connections / "QUIVER_BENCH_CONNECTIONS": u32 = 0;
    /// Streams that each connection writes to, each on its own QUIC stream
    streams / "QUIVER_BENCH_STREAMS": u32 = 1;
    /// Name of the stream; with more than one, what their names begin with
    stream / "QUIVER_BENCH_STREAM": String = "bench".to_owned();
    /// Rows a batch
    rows / "QUIVER_BENCH_ROWS": u32 = 100;
    /// Fields a row
    fields / "QUIVER_BENCH_FIELDS": u32 = 10;
    /// Devices that the rows of one batch are of, for gateways and operators
    devices_per_batch / "QUIVER_BENCH_DEVICES_PER_BATCH": u32 = 1;
    /// Rows a second of all connections together; 0: flat out, as fast as acknowledgements let
    rate / "QUIVER_BENCH_RATE": u64 = 10_000;
    /// When batches are due: constant, poisson, bursts, or replay of --file
    arrivals / "QUIVER_BENCH_ARRIVALS": Arrivals = Arrivals::Poisson;
    /// Batches of a source that are due at the same moment, with bursts
    burst / "QUIVER_BENCH_BURST": u32 = 10;
    /// How many times faster than recorded, with replay
    speed / "QUIVER_BENCH_SPEED": f64 = 1.0;
    /// Collect what is due for this long into one batch, as an SDK does; 0: send each batch when it is due
    coalesce / "QUIVER_BENCH_COALESCE": Span = Span::seconds(0);
    /// Unacknowledged batches of a source; what is due beyond waits, and its latency counts on
    window / "QUIVER_BENCH_WINDOW": u32 = 256;
    /// Acknowledgement level: durable or received
    ack / "QUIVER_BENCH_ACK": Ack = Ack::Durable;
    /// Compression of a batch's buffers: none, lz4 or zstd
    compression / "QUIVER_BENCH_COMPRESSION": Codec = Codec::Lz4;
    /// Value model: walk, noise, constant, trucks, messages or file
    values / "QUIVER_BENCH_VALUES": Values = Values::Walk;
    /// Decimal places of random walks
    decimals / "QUIVER_BENCH_DECIMALS": u32 = 2;
    /// Bytes of a message, with values = messages
    message_bytes / "QUIVER_BENCH_MESSAGE_BYTES": u32 = 256;
    /// Parquet file, or directory of them such as a table of an archive, with values = file or arrivals = replay
    file / "QUIVER_BENCH_FILE": PathBuf = PathBuf::new();
    /// Batches of each source that are encoded before the run and sent in rotation, so that making them costs nothing; 0: made when due
    prebuilt / "QUIVER_BENCH_PREBUILT": u32 = 0;
    /// Share of rows that are older than the rows before them
    disorder / "QUIVER_BENCH_DISORDER": Share = Share(0.0);
    /// How much older they are, at most
    disorder_by / "QUIVER_BENCH_DISORDER_BY": Span = Span::seconds(10);
    /// Share of devices whose clock is late
    late / "QUIVER_BENCH_LATE": Share = Share(0.0);
    /// How late it is
    late_by / "QUIVER_BENCH_LATE_BY": Span = Span::seconds(3_600);
    /// Share of devices whose clock is ahead
    future / "QUIVER_BENCH_FUTURE": Share = Share(0.0);
    /// How far it is ahead; beyond a day the server quarantines the rows
    future_by / "QUIVER_BENCH_FUTURE_BY": Span = Span::seconds(2 * 86_400);
    /// Share of batches that are sent again although they were acknowledged
    duplicates / "QUIVER_BENCH_DUPLICATES": Share = Share(0.0);
    /// First connections a second; 0: all at once
    connect_rate / "QUIVER_BENCH_CONNECT_RATE": f64 = 500.0;
    /// Longest wait for all of them, beside what connect_rate takes; no load begins before
    connect_within / "QUIVER_BENCH_CONNECT_WITHIN": Span = Span::seconds(60);
    /// Drop all connections and connect again, all at once, this often; 0: never
    storm_every / "QUIVER_BENCH_STORM_EVERY": Span = Span::seconds(0);
    /// Each connection is closed in the middle of its work and made again this often on average; 0: never
    reconnect_every / "QUIVER_BENCH_RECONNECT_EVERY": Span = Span::seconds(0);
    /// Each UDP socket gets a new address this often (QUIC migration); 0: never
    rebind_every / "QUIVER_BENCH_REBIND_EVERY": Span = Span::seconds(0);
    /// UDP sockets of the load generator; 0: one a connection, at most 256
    sockets / "QUIVER_BENCH_SOCKETS": u32 = 0;
    /// Share of packets that are lost, each way
    loss / "QUIVER_BENCH_LOSS": Share = Share(0.0);
    /// Delay of packets, each way
    delay / "QUIVER_BENCH_DELAY": Span = Span::seconds(0);
    /// Random delay beyond that, at most; packets overtake each other
    jitter / "QUIVER_BENCH_JITTER": Span = Span::seconds(0);
    /// Threads of the load generator; 0: one a core
    threads / "QUIVER_BENCH_THREADS": u32 = 0;
    /// How long is measured
    duration / "QUIVER_BENCH_DURATION": Span = Span::seconds(30);
    /// Load before that, which is not measured
    warmup / "QUIVER_BENCH_WARMUP": Span = Span::seconds(5);
    /// Longest wait for outstanding acknowledgements at the end
    drain / "QUIVER_BENCH_DRAIN": Span = Span::seconds(30);
    /// Seed of schedules and values
    seed / "QUIVER_BENCH_SEED": u64 = 1;
}
