//! Rows of small batches on their way into the tables. Devices that send row by row bring thousands
//! of batches in a commit group; laid together they cost a shard as much as a few large ones.
//!
//! ```text
//! ShardEvent::Rows ─▶ PendingRows ──end of the commit group, or enough of them──▶ Ready ─▶ memtable, last values, ledger
//! ```
//!
//! A shard takes out all that is pending before it says how far it is, freezes or hands over its
//! state: nobody sees that rows were waiting.

use std::sync::Arc;

use quiver_hot::{Reservation, StreamTable};
use quiver_model::{Placed, StreamSchema};

/// Batches of more bytes than this go by themselves: laying them together would only copy them.
const SMALL_BYTES: usize = 16 << 10;
/// Bytes of one table that are laid together at most: they stay in the cache meanwhile.
const PENDING_BYTES: usize = 1 << 20;
/// Batches of one table that are laid together at most.
const PENDING_BATCHES: usize = 8_192;

/// Rows of one schema that are ready for their table.
pub(super) struct Ready {
    pub table: Arc<StreamTable>,
    pub schema: Arc<StreamSchema>,
    pub parts: Vec<Placed>,
    pub reservation: Reservation,
    /// Whether they count: what a checkpoint's state was restored with was counted before it.
    pub is_news: bool,
}

impl Ready {
    /// Takes in what comes after; returns it if the two cannot be one.
    fn join(&mut self, mut after: Self) -> Result<(), Self> {
        let same = Arc::ptr_eq(&self.schema, &after.schema) && self.is_news == after.is_news;
        if !same {
            return Err(after);
        }
        let reservation = std::mem::replace(&mut after.reservation, Reservation::none());
        match self.reservation.merge(reservation) {
            Ok(()) => {
                self.parts.extend(after.parts);
                Ok(())
            }
            // Of another budget.
            Err(reservation) => Err(Self {
                reservation,
                ..after
            }),
        }
    }
}

/// What is pending, by table.
#[derive(Default)]
pub(super) struct PendingRows {
    tables: Vec<Ready>,
}

impl PendingRows {
    /// Adds a batch; what has to be applied now, in this order.
    pub fn add(&mut self, added: Ready) -> Vec<Ready> {
        let is_small = added.reservation.bytes() <= SMALL_BYTES;
        let same_table = |ready: &Ready| Arc::ptr_eq(&ready.table, &added.table);
        let at = self.tables.iter().position(same_table);
        match at {
            None if is_small => self.tables.push(added),
            None => return vec![added],
            // Rows of a table keep their order.
            Some(at) if !is_small => return vec![self.tables.swap_remove(at), added],
            Some(at) => {
                if let Err(added) = self.tables[at].join(added) {
                    return vec![std::mem::replace(&mut self.tables[at], added)];
                }
                let ready = &self.tables[at];
                let is_enough = ready.reservation.bytes() >= PENDING_BYTES
                    || ready.parts.len() >= PENDING_BATCHES;
                if is_enough {
                    return vec![self.tables.swap_remove(at)];
                }
            }
        }
        Vec::new()
    }

    /// All that is pending.
    pub fn take(&mut self) -> Vec<Ready> {
        std::mem::take(&mut self.tables)
    }
}
