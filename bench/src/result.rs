//! What a benchmark found, as its JSON has it. `compare` reads what `run` wrote, also of another
//! version: members that it does not know are passed over, those it misses are empty.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::{hgrm::percentiles, proxy::ProxyCounts, record::Counts, server::ServerSample};

/// Number of this form of the JSON.
pub const FORMAT: u32 = 1;

/// Quantiles of a histogram, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Latency {
    /// How many values.
    pub count: u64,
    /// Median.
    pub p50: u64,
    /// 90th percentile.
    pub p90: u64,
    /// 99th percentile.
    pub p99: u64,
    /// 99.9th percentile.
    pub p999: u64,
    /// Highest.
    pub max: u64,
    /// Mean.
    pub mean: f64,
}

impl Latency {
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        Self {
            count: histogram.len(),
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
            mean: histogram.mean(),
        }
    }
}

/// One second of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// End of the interval, in seconds from the start of the load.
    pub at: f64,
    /// Its length, in seconds.
    pub seconds: f64,
    /// Whether all of it lies in the measured time.
    pub measured: bool,
    /// Rows a second that were due.
    pub offered_rows: f64,
    /// Rows a second that were acknowledged.
    pub acked_rows: f64,
    /// Points a second that were acknowledged.
    pub acked_points: f64,
    /// Rows that were due and are not acknowledged.
    pub outstanding_rows: u64,
    /// Errors in it.
    pub errors: u64,
    /// Connections that are up.
    pub connected: u64,
    /// From due to acknowledged, of what was acknowledged in it.
    pub latency: Latency,
    /// Cores that the server used.
    pub server_cores: f64,
    /// Resident memory of the server, in bytes.
    pub server_bytes: u64,
    /// Cores that the load generator used.
    pub client_cores: f64,
}

/// One line of the loss audit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuditResult {
    /// Rows that the server acknowledged.
    pub acked_rows: u64,
    /// Rows that queries find more than before the run.
    pub stored_rows: u64,
    /// Rows that `rejects` has more than before, quarantined ones and others.
    pub rejects_rows: u64,
    /// Rows that should be in quarantine, because their clock was too far ahead.
    pub expected_quarantined: u64,
    /// Rows that were sent and not acknowledged: they may be stored or not.
    pub unsettled_rows: u64,
    /// Devices whose rows do not add up, each with what is wrong; the first few.
    pub faults: Vec<String>,
    /// How many such devices there are.
    pub faulty_devices: u64,
    /// Whether the server's own audit holds; `None` if it was not asked.
    pub server_audit: Option<bool>,
    /// Why the audit could not be made, if it could not.
    pub not_made: Option<String>,
}

impl AuditResult {
    /// Whether everything acknowledged is stored once, or refused as expected.
    pub fn holds(&self) -> bool {
        self.not_made.is_none() && self.faulty_devices == 0 && self.server_audit != Some(false)
    }
}

/// A run of a scenario.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Run {
    /// When the load began, RFC 3339.
    pub began: String,
    /// Measured seconds.
    pub seconds: f64,
    /// Rows a second that were due in the measured time.
    pub offered_rows_per_second: f64,
    /// Rows a second that were acknowledged in it.
    pub acked_rows_per_second: f64,
    /// Points a second that were acknowledged in it.
    pub acked_points_per_second: f64,
    /// Acknowledged batches (or arrivals, where they are collected) a second.
    pub acked_per_second: f64,
    /// Bytes a point on the wire, before encryption.
    pub bytes_per_point: f64,
    /// Processor seconds of the server for a million points.
    pub server_cpu_per_million: f64,
    /// Cores that the server used in the measured time, on average.
    pub server_cores: f64,
    /// Most resident memory of the server, in bytes.
    pub server_bytes_max: u64,
    /// Cores that the load generator used in the measured time, on average.
    pub client_cores: f64,
    /// From due to acknowledged.
    pub latency: Latency,
    /// From due to handed to QUIC: what of it the generator and flow control took.
    pub lag: Latency,
    /// From the wish to connect to `Welcome`.
    pub connect: Latency,
    /// Everything that happened, warm-up and drain included.
    pub counts: Counts,
    /// Arrivals that were due and never sent.
    pub unsent: u64,
    /// What the proxy did, if there was one.
    pub proxy: Option<ProxyCounts>,
    /// The server's metrics at the end.
    pub server: ServerSample,
    /// Second by second.
    pub samples: Vec<Sample>,
    /// Quantile, value in microseconds, of the whole.
    pub distribution: Vec<(f64, u64)>,
    /// The loss audit.
    pub audit: AuditResult,
    /// What went wrong last, if anything did.
    pub last_error: Option<String>,
}

impl Run {
    pub(crate) fn set_latency(&mut self, histogram: &Histogram<u64>) {
        self.latency = Latency::of(histogram);
        self.distribution = percentiles(histogram)
            .into_iter()
            .map(|step| (step.quantile, step.value))
            .collect();
    }
}

/// Where it ran.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Machine {
    /// Model of the processor.
    pub processor: String,
    /// Cores.
    pub cores: usize,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Operating system and its version.
    pub system: String,
    /// Whether the harness was built with optimisations.
    pub optimised: bool,
    /// Whether the server's data directory is in memory, where durable means nothing; `None` if it
    /// is not known.
    pub data_in_memory: Option<bool>,
}

impl Machine {
    pub(crate) fn this(data_dir: Option<&std::path::Path>) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key))?;
            line.split_once(':')
                .map(|(_, value)| value.trim().to_owned())
        };
        let kilobytes = field(&read("/proc/meminfo"), "MemTotal")
            .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
        const TMPFS: i64 = 0x0102_1994;
        Self {
            processor: field(&read("/proc/cpuinfo"), "model name").unwrap_or_default(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: kilobytes.unwrap_or(0) * 1_024,
            system: read("/proc/version")
                .split(" (")
                .next()
                .unwrap_or_default()
                .trim()
                .to_owned(),
            optimised: !cfg!(debug_assertions),
            data_in_memory: data_dir
                .and_then(|path| rustix::fs::statfs(path).ok())
                .map(|stat| stat.f_type == TMPFS),
        }
    }
}

/// A benchmark: a scenario and its runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Benchmark {
    /// Form of this JSON.
    pub format: u32,
    /// Name of the scenario.
    pub name: String,
    /// What it is for.
    pub purpose: String,
    /// Every knob.
    pub scenario: serde_json::Value,
    /// Where it ran.
    pub machine: Machine,
    /// Version of the harness.
    pub harness: String,
    /// Version of the server, if it said.
    pub server: String,
    /// The runs.
    pub runs: Vec<Run>,
}
