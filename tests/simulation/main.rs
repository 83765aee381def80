//! Engine and clients on one thread, from one seed: the real engine, the real SDK and real QUIC,
//! over a network, a disk, an archive and a clock that are simulated and do their worst.
//!
//! ```text
//!  Device × 20: quiver_client ──┐                          ┌── SimVfs: torn, lost, full, broken
//!    crashes, spools lost       ├─ Fabric: loss, ... ─ Machine: quiver_runtime, one incarnation
//!    and restored, twins        ┘                          └── SimArchive: fails, hangs, lies
//!         │ what was sent and acknowledged                      │ what is stored
//!         └──────────────▶ Model ◀── compares, after every restart and at every query ──┘
//! ```
//!
//! A failing seed prints its number; the same seed sends the same packets at the same times.
//! `QUIVER_SIM_SEED=7 cargo test -p quiver-tests --test simulation seeds` runs that one,
//! `QUIVER_SIM_SEEDS=1000` as many, `QUIVER_SIM_LOG=1` prints what happens.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test: what is not as expected ends it"
)]

mod archive;
mod audit;
mod batches;
mod contents;
mod device;
mod fabric;
mod life;
mod machine;
mod model;
mod raw_client;
mod scenario;
mod seeded;
mod simulate;
mod slow;
mod stage;
mod watch;

mod broken_disk;
mod damage;
mod flushes;
mod quic_streams;
mod registry;
mod seeds;
mod smoke;
mod spools;
