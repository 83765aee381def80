//! What the engine does with hostile input, as plain functions: each takes bytes and panics if a
//! promise breaks. `tests/` runs them on stable Rust over the committed corpus and seeded changes
//! of it; `cargo-fuzz/` wraps them for libFuzzer, with nightly:
//!
//! ```text
//! cd fuzz/cargo-fuzz && cargo +nightly fuzz run --fuzz-dir . ipc_frame ../corpus/ipc_frame
//! ```
//!
//! One target, one file; the corpus of a target is `corpus/<target>/`.

mod control_frame;
mod corpus;
mod ipc_frame;
mod log_replay;

pub use control_frame::control_frame;
pub use corpus::{changed, inputs};
pub use ipc_frame::ipc_frame;
pub use log_replay::log_replay;
