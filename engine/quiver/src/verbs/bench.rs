//! `quiver bench`: the harness with what a data directory of this engine says.

use std::path::Path;

use quiver_bench::{
    BenchError,
    cli::BenchArgs,
    command::{Found, run as run_bench},
};

use crate::{
    access::{self, ServerAddresses},
    exit::{CONFIG, DATA, Failure, IO, UNAVAILABLE, USAGE},
};

/// Runs the harness.
pub fn run(args: BenchArgs) -> Result<(), Failure> {
    run_bench(args, &find).map_err(|error| {
        let code = match &error {
            BenchError::Usage(_) => USAGE,
            BenchError::Data(_) | BenchError::Audit(_) | BenchError::Regression(_) => DATA,
            BenchError::Unavailable(_) => UNAVAILABLE,
            BenchError::Io(_) => IO,
            BenchError::Config(_) => CONFIG,
        };
        Failure::with(code)(error)
    })
}

fn find(data_dir: &Path) -> Found {
    let token = std::fs::read_to_string(access::http_token_file(data_dir)).ok();
    Found {
        addresses: ServerAddresses::load(data_dir).map(|found| (found.quic, found.http)),
        token: token.map(|token| token.trim().to_owned()),
        ca: access::ca_dir(data_dir),
        operator: access::operator_dir(data_dir),
    }
}
