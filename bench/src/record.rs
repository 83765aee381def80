//! What is recorded while the load runs: histograms and counts, one recorder a worker thread, so
//! that no two threads write the same one. The sampler takes the interval's histogram out once a
//! second and merges what all threads recorded.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Highest latency that is told apart, in microseconds: an hour.
const HIGHEST_US: u64 = 3_600_000_000;

/// An empty histogram of microseconds with three significant digits.
#[expect(clippy::expect_used, reason = "constant bounds; a test makes one")]
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, HIGHEST_US, 3).expect("valid constant bounds")
}

/// Records a span of time, at least a microsecond.
pub(crate) fn record(histogram: &mut Histogram<u64>, span: Duration) {
    let micros = u64::try_from(span.as_micros()).unwrap_or(HIGHEST_US);
    histogram.saturating_record(micros.max(1));
}

macro_rules! counts {
    ($($(#[doc = $doc:literal])+ $name:ident,)*) => {
        /// What happened, since the start of the load.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct Counts { $($(#[doc = $doc])+ pub $name: u64,)* }

        impl Counts {
            /// Both together.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }

            /// What happened since `earlier`.
            #[must_use]
            pub fn since(&self, earlier: &Self) -> Self {
                Self { $($name: self.$name.saturating_sub(earlier.$name),)* }
            }
        }
    };
}

counts! {
    /// Arrivals that were due.
    offered,
    /// Rows of those.
    offered_rows,
    /// Batches handed to QUIC for the first time.
    sent,
    /// Batches handed to QUIC again: after a lost connection, or as duplicates.
    resent,
    /// Bytes of batches handed to QUIC, again or not, before encryption.
    sent_bytes,
    /// Arrivals that were acknowledged.
    acked,
    /// Rows of those.
    acked_rows,
    /// Points of those.
    acked_points,
    /// Batches that the server refused for ever.
    rejected,
    /// Rows of those.
    rejected_rows,
    /// Connections that were welcomed.
    connects,
    /// Attempts to connect that failed.
    connect_failures,
    /// Connections that ended other than by the harness's own wish.
    disconnects,
    /// Telemetry streams that the server closed.
    streams_closed,
    /// Times that a UDP socket got a new address.
    rebinds,
    /// Batches that could not be made or encoded.
    encode_failures,
}

impl Counts {
    /// What went wrong, other than by the harness's own wish.
    pub fn errors(&self) -> u64 {
        self.rejected
            + self.connect_failures
            + self.disconnects
            + self.streams_closed
            + self.encode_failures
    }
}

/// What one worker recorded.
#[derive(Debug)]
pub(crate) struct Recording {
    pub counts: Counts,
    /// From due to acknowledged, since it was taken last.
    pub interval: Histogram<u64>,
    /// The same, of all arrivals that were due in the measured time.
    pub latency: Histogram<u64>,
    /// From due to handed to QUIC, of the same: how far behind the generator or flow control was.
    pub lag: Histogram<u64>,
    /// From begun to welcomed.
    pub connect: Histogram<u64>,
    /// Connections that are up.
    pub connected: u64,
    /// Last thing that went wrong, in words.
    pub last_error: Option<String>,
}

/// Where one worker records.
#[derive(Debug)]
pub(crate) struct Recorder(Mutex<Recording>);

impl Recorder {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Recording {
            counts: Counts::default(),
            interval: histogram(),
            latency: histogram(),
            lag: histogram(),
            connect: histogram(),
            connected: 0,
            last_error: None,
        }))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Recording> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All workers' recordings together.
pub(crate) struct Merged {
    pub counts: Counts,
    pub interval: Histogram<u64>,
    pub connected: u64,
    pub last_error: Option<String>,
}

/// Takes what was recorded since the last time, of all workers.
pub(crate) fn take_interval(recorders: &[std::sync::Arc<Recorder>]) -> Merged {
    let mut merged = Merged {
        counts: Counts::default(),
        interval: histogram(),
        connected: 0,
        last_error: None,
    };
    for recorder in recorders {
        let mut recording = recorder.lock();
        merged.counts.add(&recording.counts);
        merge(&mut merged.interval, &recording.interval);
        recording.interval.reset();
        merged.connected += recording.connected;
        merged.last_error = recording.last_error.clone().or(merged.last_error);
    }
    merged
}

/// Adds one histogram to another of the same bounds.
pub(crate) fn merge(into: &mut Histogram<u64>, from: &Histogram<u64>) {
    // The same bounds on both sides: it cannot fail.
    let _ = into.add(from);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_threads_recorded_is_merged_and_taken_once() {
        let recorders = [Arc::new(Recorder::new()), Arc::new(Recorder::new())];
        for (index, recorder) in recorders.iter().enumerate() {
            let mut recording = recorder.lock();
            recording.counts.acked = 5;
            for millis in 1..=50 {
                let span = Duration::from_millis(millis + 50 * index as u64);
                record(&mut recording.interval, span);
            }
        }
        let merged = take_interval(&recorders);
        assert_eq!((merged.counts.acked, merged.interval.len()), (10, 100));
        let p99 = merged.interval.value_at_quantile(0.99);
        assert!((98_900..=99_200).contains(&p99), "{p99}");
        assert_eq!(take_interval(&recorders).interval.len(), 0);
    }
}
