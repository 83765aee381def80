//! How long rows are kept, as the stores of a graph say.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    config::StoreConfig,
    graph::{Graph, Origin},
};

/// Rows that are not archived are kept for so long where the store does not say, in microseconds.
pub(crate) const SHORT_US: i64 = 3_600_000_000;

/// For how long a store keeps rows, in microseconds; `None` for ever.
pub(crate) fn kept_for(store: &StoreConfig) -> Option<i64> {
    let value = |span: &Option<crate::source::Located<i64>>| span.as_ref().map(|span| span.value);
    if store.archive {
        return value(&store.keep);
    }
    let short = value(&store.hot).max(value(&store.queue));
    Some(short.unwrap_or(SHORT_US))
}

impl Graph {
    /// The stream as which rows of an origin are stored if a store names it.
    fn stored_as(&self, origin: Origin) -> String {
        self.kept_as(origin).unwrap_or_else(|| self.name(origin))
    }

    /// For how long the rows of streams are kept, by event time: as long as any store that names
    /// them says. Streams that are not here are kept for ever.
    pub fn retention(&self) -> BTreeMap<String, Duration> {
        let mut spans: BTreeMap<String, Option<i64>> = BTreeMap::new();
        for store in &self.stores {
            let span = kept_for(&store.config);
            for edge in &store.inputs {
                let known = spans.entry(self.stored_as(edge.origin)).or_insert(span);
                *known = match (*known, span) {
                    (Some(known), Some(span)) => Some(known.max(span)),
                    _ => None,
                };
            }
        }
        let spans = spans.into_iter();
        spans
            .filter_map(|(stream, span)| {
                let micros = u64::try_from(span?).unwrap_or(0);
                Some((stream, Duration::from_micros(micros)))
            })
            .collect()
    }

    /// For how long the log keeps rows that nothing needs any more: as long as the store with the
    /// longest `queue` says; `None` if none has one.
    pub fn queue(&self) -> Option<Duration> {
        let queues = self
            .stores
            .iter()
            .filter_map(|store| store.config.queue.as_ref());
        let longest = queues.map(|queue| queue.value).max()?;
        Some(Duration::from_micros(u64::try_from(longest).unwrap_or(0)))
    }
}
