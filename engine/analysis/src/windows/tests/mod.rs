//! What windows do: told by small examples, and of random rows.

mod examples;
mod harness;
mod naive;
mod saved;
mod splits;
mod wide;
