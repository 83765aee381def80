//! How long rows of streams are kept.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use quiver_model::StreamName;

/// Rows of a stream go within so many parts of the time they are kept for.
const PARTS: u32 = 10;
/// Longest time between two looks for rows to go.
const PAUSE_MAX: Duration = Duration::from_secs(6 * 3_600);

/// For how long the rows of each stream are kept, by event time; those of streams that are not named
/// are kept for ever. Whoever decides sets it; maintenance follows.
#[derive(Debug, Default)]
pub struct Retention {
    spans: RwLock<Arc<BTreeMap<StreamName, Duration>>>,
}

impl Retention {
    /// Puts other spans in force, for all streams.
    pub fn set(&self, spans: BTreeMap<StreamName, Duration>) {
        *self.spans.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(spans);
    }

    /// What is in force.
    pub fn spans(&self) -> Arc<BTreeMap<StreamName, Duration>> {
        let spans = self.spans.read().unwrap_or_else(PoisonError::into_inner);
        spans.clone()
    }

    /// For how long a stream's rows are kept; `None` for ever.
    pub(crate) fn span(&self, stream: &StreamName) -> Option<Duration> {
        self.spans().get(stream).copied()
    }
}

/// Time between two looks for rows to go, and how much event time a merged file may span, where rows
/// are kept for `span`: a file goes with its newest row.
pub(crate) fn part(span: Duration) -> Duration {
    (span / PARTS).min(PAUSE_MAX)
}
