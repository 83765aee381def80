//! The command line of `quiver bench`.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Subcommand};

use crate::scenario::Knobs;

/// `bench`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BenchArgs {
    /// What to do other than run
    #[command(subcommand)]
    pub action: Option<BenchAction>,
    /// What to run
    #[command(flatten)]
    pub run: RunArgs,
}

/// Actions of `bench` other than to run.
#[derive(Subcommand, Debug)]
pub enum BenchAction {
    /// Compare results: each with the first, with bootstrap intervals of the ratios
    #[command(after_help = "Example:\n  quiver bench compare before.json after.json --gate 5%")]
    Compare {
        /// Files of --json, the oldest first
        #[arg(required = true, num_args = 2..)]
        files: Vec<PathBuf>,
        /// Fail if a figure got worse by more than this, beyond its noise
        #[arg(long, env = "QUIVER_BENCH_GATE", hide_env = true)]
        gate: Option<crate::scenario::Share>,
    },
}

/// What to run, where, and what to write.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// Scenario: the name of a shipped one (--list) or a TOML file
    #[arg(long, env = "QUIVER_BENCH_SCENARIO", hide_env = true)]
    pub scenario: Option<String>,
    /// List the shipped scenarios
    #[arg(long)]
    pub list: bool,
    /// Show every knob of the scenario with its value, as TOML, and run nothing
    #[arg(long)]
    pub show: bool,
    /// Start an engine of this program in a temporary directory and load that
    #[arg(
        long,
        env = "QUIVER_BENCH_SERVE",
        hide_env = true,
        conflicts_with = "server"
    )]
    pub serve: bool,
    /// An argument for the engine that --serve starts; may be repeated: --engine=--memory=1GiB
    #[arg(
        long = "engine",
        env = "QUIVER_BENCH_ENGINE",
        hide_env = true,
        requires = "serve",
        allow_hyphen_values = true
    )]
    pub engine: Vec<String>,
    /// Where --serve makes its directory: a place on the disk to be measured [default: the current directory]
    #[arg(long, env = "QUIVER_BENCH_WORK_DIR", hide_env = true)]
    pub work_dir: Option<PathBuf>,
    /// QUIC address of the engine to load [default: that of the engine on --data-dir]
    #[arg(long, env = "QUIVER_QUIC_SERVER", hide_env = true)]
    pub server: Option<SocketAddr>,
    /// HTTP address of the engine to load [default: that of the engine on --data-dir]
    #[arg(long, env = "QUIVER_SERVER", hide_env = true)]
    pub http: Option<SocketAddr>,
    /// Name that the server's certificate must have
    #[arg(
        long,
        env = "QUIVER_SERVER_NAME",
        hide_env = true,
        default_value = "localhost"
    )]
    pub server_name: String,
    /// Data directory of an engine on this machine: addresses, CA, credentials and token are found there
    #[arg(
        long,
        env = "QUIVER_DATA_DIR",
        hide_env = true,
        default_value = "quiver-data"
    )]
    pub data_dir: PathBuf,
    /// Directory of the CA (ca.pem, ca-key.pem) that issues devices and gateways [default: that of --data-dir]
    #[arg(long, env = "QUIVER_BENCH_CA_DIR", hide_env = true)]
    pub ca_dir: Option<PathBuf>,
    /// Certificates of the server's CA (PEM), with --cert and --key of an operator or gateway
    #[arg(long, env = "QUIVER_CA", hide_env = true, requires_all = ["cert", "key"])]
    pub ca: Option<PathBuf>,
    /// Own certificate chain (PEM)
    #[arg(long, env = "QUIVER_CERT", hide_env = true, requires_all = ["ca", "key"])]
    pub cert: Option<PathBuf>,
    /// Own private key (PEM)
    #[arg(long, env = "QUIVER_KEY", hide_env = true, requires_all = ["ca", "cert"])]
    pub key: Option<PathBuf>,
    /// Runs, one after the other; compare needs several to know how they differ
    #[arg(long, env = "QUIVER_BENCH_REPEAT", hide_env = true, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub repeat: u32,
    /// Write the result as JSON
    #[arg(long, env = "QUIVER_BENCH_JSON", hide_env = true, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the result as a page of HTML
    #[arg(long, env = "QUIVER_BENCH_HTML", hide_env = true, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Write the latency distribution for HdrHistogram's plotter
    #[arg(long, env = "QUIVER_BENCH_HGRM", hide_env = true, value_name = "FILE")]
    pub hgrm: Option<PathBuf>,
    /// Write a histogram of each second for HdrHistogram's log tools
    #[arg(long, env = "QUIVER_BENCH_HLOG", hide_env = true, value_name = "FILE")]
    pub hlog: Option<PathBuf>,
    /// Show the result only
    #[arg(long, env = "QUIVER_BENCH_QUIET", hide_env = true)]
    pub quiet: bool,
    /// The knobs of the load
    #[command(flatten)]
    pub knobs: Knobs,
}
