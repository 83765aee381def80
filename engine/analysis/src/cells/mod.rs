//! What is kept of the rows of a window.
//!
//! ```text
//! spec ──Layout──▶ cells of a block, recipes of the results
//! rows ──fold──▶ Blocks (one array of words) ──merge──▶ Blocks ──recipes──▶ result columns
//!                   │ ▲
//!               write  read: a checkpoint's bytes
//! ```

mod blocks;
mod column;
mod fold;
mod large;
mod layout;
mod order;
mod results;
mod slab;

pub(crate) use blocks::Blocks;
pub(crate) use column::Column;
pub(crate) use fold::Run;
pub(crate) use layout::{Layout, Mark};
pub(crate) use results::Results;
