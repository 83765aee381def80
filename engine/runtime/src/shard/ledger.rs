//! What was received of each identity, to be compared with what is stored.

use serde::{Deserialize, Serialize};

/// Counts of one identity since it was first seen. Rows of a gateway's batch count for the device
/// they are of; what cannot be attributed to a device counts for the sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Rows that went into a table.
    pub stored: u64,
    /// Rows refused, alone or with their batch.
    pub rejected: u64,
    /// Rows kept aside because they may be right (event time too far ahead).
    pub quarantined: u64,
    /// Rows that were acknowledged and are lost in a damaged part of the log, as far as they can
    /// be counted. Rows that were counted as stored before are not in here: they are still in
    /// `stored`, and an audit misses them in the tables.
    #[serde(default)]
    pub damaged: u64,
    /// Batches refused as a whole.
    pub batches_rejected: u64,
    /// Batches that the sender declared lost.
    pub batches_lost: u64,
    /// Batches that were acknowledged and are lost in a damaged part of the log, as far as they
    /// are known.
    #[serde(default)]
    pub batches_damaged: u64,
}

impl Ledger {
    /// Rows that were received: each of them is in exactly one of the other counts.
    pub fn received(&self) -> u64 {
        self.stored + self.rejected + self.quarantined + self.damaged
    }

    /// Whether rows were stored, and nothing else is counted.
    pub(super) fn is_only_stored(&self) -> bool {
        let others = Self { stored: 0, ..*self };
        others == Self::default()
    }

    /// The counts, in an order that checkpoints rely on.
    pub(super) const fn counts(&self) -> [u64; 7] {
        [
            self.stored,
            self.rejected,
            self.quarantined,
            self.damaged,
            self.batches_rejected,
            self.batches_lost,
            self.batches_damaged,
        ]
    }

    /// The ledger that has these [`Ledger::counts`].
    pub(super) const fn of_counts(counts: [u64; 7]) -> Self {
        let [
            stored,
            rejected,
            quarantined,
            damaged,
            batches_rejected,
            batches_lost,
            batches_damaged,
        ] = counts;
        Self {
            stored,
            rejected,
            quarantined,
            damaged,
            batches_rejected,
            batches_lost,
            batches_damaged,
        }
    }

    /// Adds another ledger's counts.
    pub fn add(&mut self, other: &Self) {
        self.stored += other.stored;
        self.rejected += other.rejected;
        self.quarantined += other.quarantined;
        self.damaged += other.damaged;
        self.batches_rejected += other.batches_rejected;
        self.batches_lost += other.batches_lost;
        self.batches_damaged += other.batches_damaged;
    }
}
