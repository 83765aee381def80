//! How the protocol behaves towards peers that keep to it, and towards those that do not.

mod control_stream;
mod golden;
mod support;
mod telemetry_stream;
mod valid_writers;
