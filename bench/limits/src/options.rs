//! What is measured, and how.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use quiver_bench_kernels::data::{FIELDS, Source};
use quiver_protocol::Compression;

use crate::Fault;

/// Measures what this machine can do with the engine's parts.
#[derive(Debug, Parser)]
#[command(name = "quiver-bench-limits", version)]
pub struct Arguments {
    /// What to measure.
    #[command(subcommand)]
    pub what: What,
    /// How.
    #[command(flatten)]
    pub options: Options,
}

/// What to measure.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum What {
    /// Everything, and the limit composed from the stages.
    All,
    /// QUIC alone: the scenario's messages received and dropped.
    Quic,
    /// Rows one per packet: packets a second.
    Packets,
    /// Framing, guard and decoding of Arrow IPC.
    Decode,
    /// Judging, conversion to stored types and positions.
    Append,
    /// fdatasync of a plain file.
    Fdatasync,
    /// fdatasync under a load: writes that are due at random moments, and how long each waits.
    Paced,
    /// The engine's log: commit groups of several sizes.
    Log,
    /// Flush sort, Parquet, and the file.
    Encode,
    /// The bare pipeline.
    Pipeline,
    /// The load generator; started by the others as a process of its own.
    #[command(hide = true)]
    Generate(Generate),
}

/// How to measure.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Seconds that each measurement lasts.
    #[arg(long, global = true, default_value_t = 5.0)]
    pub seconds: f64,
    /// How often each is measured; the median counts.
    #[arg(long, global = true, default_value_t = 1)]
    pub runs: usize,
    /// Seconds before it that are not counted, where a generator has to get going.
    #[arg(long, global = true, default_value_t = 2.0)]
    pub warm_up: f64,
    /// Connections, where the scenario's own number of them (64 of `few-large`, 16 of `gateway`) is
    /// not to be used.
    #[arg(long, global = true)]
    pub connections: Option<usize>,
    /// Connections of the rows that come one per packet.
    #[arg(long, global = true, default_value_t = 10_000)]
    pub packet_connections: usize,
    /// Has each of those rows answered, as an engine that acknowledges them has to.
    #[arg(long, global = true)]
    pub answered: bool,
    /// Writes a second of `paced`.
    #[arg(long, global = true, default_value_t = 1_000.0)]
    pub writes_per_second: f64,
    /// Bytes of each.
    #[arg(long, global = true, default_value_t = 48 << 10)]
    pub write_bytes: usize,
    /// Rows that the bare pipeline flushes at once.
    #[arg(long, global = true, default_value_t = 1_000_000)]
    pub flush_rows: usize,
    /// Messages that each connection has ready and sends over and over.
    #[arg(long, global = true, default_value_t = 64)]
    pub messages: usize,
    /// Only this scenario.
    #[arg(long, global = true)]
    pub scenario: Option<ScenarioName>,
    /// Only this compression.
    #[arg(long, global = true)]
    pub compression: Option<Codec>,
    /// Where files are written; a directory on the disk that the engine would use.
    #[arg(long, global = true, default_value = ".")]
    pub directory: PathBuf,
    /// Writes the table there, between the markers `<!-- limits -->` and `<!-- /limits -->`.
    #[arg(long, global = true)]
    pub page: Option<PathBuf>,
    /// Writes the results there as JSON.
    #[arg(long, global = true)]
    pub json: Option<PathBuf>,
}

/// A workload, named as the scenarios of `quiver bench` are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ScenarioName {
    /// Batches of 1,000 rows.
    FewLarge,
    /// Batches of 100 rows.
    Gateway,
}

/// How batches are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Codec {
    /// Not at all.
    None,
    /// LZ4, buffer by buffer.
    Lz4,
    /// ZSTD, buffer by buffer.
    Zstd,
    /// ZSTD over whole messages.
    Message,
    /// The compact encoding.
    Compact,
}

impl Codec {
    /// As the protocol calls it.
    pub fn compression(self) -> Compression {
        match self {
            Self::None => Compression::None,
            Self::Lz4 => Compression::Lz4,
            Self::Zstd => Compression::Zstd,
            Self::Message => Compression::ZstdMessage,
            Self::Compact => Compression::Compact,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
            Self::Message => "message",
            Self::Compact => "compact",
        }
    }
}

/// What the generator process is told.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Generate {
    /// The server.
    #[arg(long)]
    pub server: SocketAddr,
    /// Directory with a client's credential.
    #[arg(long)]
    pub credential: PathBuf,
    /// Connections.
    #[arg(long)]
    pub connections: usize,
    /// Devices of each: it is a gateway if there are several, and otherwise the device itself.
    #[arg(long)]
    pub devices: u64,
    /// Devices of a gateway's batch.
    #[arg(long)]
    pub devices_per_batch: usize,
    /// Rows of a message.
    #[arg(long)]
    pub rows: usize,
    /// Messages that each connection has ready.
    #[arg(long)]
    pub ready: usize,
    /// How they are compressed.
    #[arg(long)]
    pub codec: Codec,
    /// Whether each message is to leave in a packet of its own.
    #[arg(long)]
    pub one_per_packet: bool,
}

/// One workload.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Name and compression.
    pub name: String,
    /// Rows of a batch.
    pub rows: usize,
    /// Compression.
    pub codec: Codec,
    /// Connections.
    pub connections: usize,
    /// Devices of each: it is a gateway if there are several, and otherwise the device itself.
    pub devices: u64,
    /// Devices of a gateway's batch.
    pub devices_per_batch: usize,
    /// How long to measure.
    pub duration: Duration,
}

impl Scenario {
    /// What sends over connection `number`, counted from 0.
    ///
    /// # Errors
    /// Never in practice: the names are well formed.
    pub fn source(&self, number: u64) -> Result<Source, Fault> {
        source(number, self.devices, self.devices_per_batch)
    }
}

/// What sends over connection `number`, counted from 0.
///
/// # Errors
/// Never in practice: the names are well formed.
pub fn source(number: u64, devices: u64, devices_per_batch: usize) -> Result<Source, Fault> {
    if devices > 1 {
        Source::gateway(number, devices, devices_per_batch, FIELDS)
    } else {
        Source::device(number, FIELDS)
    }
}

impl Options {
    /// How long to measure.
    pub fn duration(&self) -> Duration {
        seconds(self.seconds)
    }

    /// How long before that.
    pub fn warm_up(&self) -> Duration {
        seconds(self.warm_up)
    }

    /// The workloads that are asked for.
    pub fn scenarios(&self) -> Vec<Scenario> {
        // As the scenarios of `quiver bench` have it.
        let all = [
            (ScenarioName::FewLarge, "few-large", 1_000, 64, 1, 1),
            (ScenarioName::Gateway, "gateway", 100, 16, 100, 10),
        ];
        let mut scenarios = Vec::new();
        for (scenario, name, rows, connections, devices, devices_per_batch) in all {
            for codec in [Codec::Zstd, Codec::Lz4, Codec::None] {
                let wanted = self.scenario.is_none_or(|wanted| wanted == scenario)
                    && self.compression.is_none_or(|wanted| wanted == codec);
                if wanted {
                    scenarios.push(Scenario {
                        name: format!("{name}/{}", codec.name()),
                        rows,
                        codec,
                        connections: self.connections.unwrap_or(connections).max(1),
                        devices,
                        devices_per_batch,
                        duration: self.duration(),
                    });
                }
            }
        }
        scenarios
    }
}

/// Anything that is no duration is the shortest one.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}
