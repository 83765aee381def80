//! What single aggregates know of the values they have seen. Each state takes values one by one in
//! row order, can be merged, and is saved by `write` and restored by `read` to the same bits, so
//! that a result does not depend on where a restart fell.

mod digest;
pub mod distinct;
mod moments;
mod weighted;

pub use digest::Digest;
pub use distinct::Distinct;
pub use moments::Moments;
pub use weighted::{Interleaved, Weighted};
