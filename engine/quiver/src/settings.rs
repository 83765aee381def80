//! What `serve` and `demo` can be told about the engine.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;
use quiver_archive::MaintenanceOptions;
use quiver_runtime::EngineOptions;

use crate::{
    memory::MemoryShares,
    numbers::{parse_bytes, parse_duration},
};

/// Engine settings, shared by the verbs that run one.
#[derive(Args, Clone, Debug)]
pub struct EngineArgs {
    /// Memory that the engine may take in all; at least 512MiB. A connection takes about 80KiB of it:
    /// 1GiB is enough for some 2,800 under full load
    #[arg(long, env = "QUIVER_MEMORY", default_value = "1GiB", value_parser = parse_bytes)]
    pub memory: u64,
    /// Of that, for queues and memtables of rows that senders send; at least 150MiB, what one batch of
    /// the limits announced to senders may take. Messages that are being received take up to 3/8 of it
    /// more, and a merge of archived files half, 256MiB at most [default: half of what --memory has
    /// beyond --query-memory and 256MiB]
    #[arg(long, env = "QUIVER_INGEST_MEMORY", value_parser = parse_bytes)]
    pub ingest_memory: Option<u64>,
    /// Flush a stream when its rows in memory take this much
    #[arg(long, env = "QUIVER_FLUSH_BYTES", default_value = "64MiB", value_parser = parse_bytes)]
    pub flush_bytes: u64,
    /// Flush a stream when its oldest row in memory is this old
    #[arg(long, env = "QUIVER_FLUSH_AGE", default_value = "10m", value_parser = parse_duration)]
    pub flush_age: Duration,
    /// How long a connection may outlive its client's certificate
    #[arg(long, env = "QUIVER_CERTIFICATE_GRACE", default_value = "5m", value_parser = parse_duration)]
    pub certificate_grace: Duration,
    /// Time between checkpoints
    #[arg(long, env = "QUIVER_CHECKPOINT_INTERVAL", default_value = "60s", value_parser = parse_duration)]
    pub checkpoint_interval: Duration,
    /// Merge small files of the archive in the background, and delete replaced ones after 7 days: time
    /// between two looks for something to do; 0 for never
    #[arg(long, env = "QUIVER_COMPACT_EVERY", default_value = "60s", value_parser = parse_duration)]
    pub compact_every: Duration,
    /// Refuse ingest while less than this is free on the disk
    #[arg(long, env = "QUIVER_DISK_RESERVE", default_value = "512MiB", value_parser = parse_bytes)]
    pub disk_reserve: u64,
    /// Shards, each a thread [default: the number of cores]
    #[arg(long, env = "QUIVER_SHARDS", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub shards: Option<u16>,
    /// Most rows a second of one sender; 0 for no limit
    #[arg(long, env = "QUIVER_RATE_LIMIT", default_value_t = 0)]
    pub rate_limit: u64,
    /// Of --memory, what a query may use [default: a quarter]
    #[arg(long, env = "QUIVER_QUERY_MEMORY", value_parser = parse_bytes)]
    pub query_memory: Option<u64>,
    /// Time that a query may take
    #[arg(long, env = "QUIVER_QUERY_TIMEOUT", default_value = "5m", value_parser = parse_duration)]
    pub query_timeout: Duration,
}

/// Where an engine listens, and by what it is known.
#[derive(Clone, Debug)]
pub struct Doors {
    /// QUIC.
    pub quic: SocketAddr,
    /// HTTP.
    pub http: SocketAddr,
    /// Names under which HTTP may be asked, beside loopback's.
    pub http_hosts: Vec<String>,
    /// CA, certificate and key in PEM, instead of the development CA's.
    pub certificates: Option<(PathBuf, PathBuf, PathBuf)>,
    /// Whether bearer tokens may stand in for certificates.
    pub tokens: bool,
    /// Whether unknown identities with a certificate of the CA are enrolled.
    pub enroll_unknown: bool,
    /// Configuration of the graph, if there is one.
    pub config: Option<std::path::PathBuf>,
}

impl EngineArgs {
    /// What each part of the program may take.
    pub fn memory_shares(&self) -> MemoryShares {
        MemoryShares::of(self.memory, self.ingest_memory, self.query_memory)
    }

    /// The runtime's options.
    pub fn options(&self, data_dir: &std::path::Path, enroll_unknown: bool) -> EngineOptions {
        let mut options = EngineOptions::new(data_dir);
        let rows = self.memory_shares().rows;
        options.memory_bytes = usize::try_from(rows).unwrap_or(usize::MAX);
        options.flush_bytes = usize::try_from(self.flush_bytes).unwrap_or(usize::MAX);
        options.flush_age = self.flush_age;
        options.certificate_grace = self.certificate_grace;
        options.checkpoint_interval = self.checkpoint_interval;
        options.disk_reserve_bytes = self.disk_reserve;
        options.rows_per_second_max = self.rate_limit;
        options.enroll_unknown = enroll_unknown;
        if let Some(shards) = self.shards {
            options.shard_count = shards;
        }
        options
    }

    /// How the archive is kept in shape while an engine runs. Where merging is turned off, it is
    /// still looked for what is older than it is kept.
    pub fn maintenance(&self) -> MaintenanceOptions {
        let defaults = MaintenanceOptions::default();
        let is_merging = !self.compact_every.is_zero();
        MaintenanceOptions {
            merge_every: if is_merging {
                self.compact_every
            } else {
                defaults.merge_every
            },
            is_merging,
            memory_bytes: self.memory_shares().merge,
            ..defaults
        }
    }

    /// Limits of queries.
    pub fn query_limits(&self, data_dir: &std::path::Path) -> quiver_query::QueryLimits {
        quiver_query::QueryLimits {
            memory_bytes: usize::try_from(self.memory_shares().query).unwrap_or(usize::MAX),
            timeout: self.query_timeout,
            spill_directory: Some(data_dir.join("spill")),
            ..quiver_query::QueryLimits::default()
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_help_names_the_least_memory_that_starts() {
        use clap::CommandFactory;
        let least = format!("{}MiB", quiver_runtime::MEMORY_BYTES_MIN.div_ceil(1 << 20));
        let mut cli = crate::cli::Cli::command();
        let serve = cli.find_subcommand_mut("serve").unwrap();
        assert!(
            serve.render_long_help().to_string().contains(&least),
            "{least}"
        );
    }
}
