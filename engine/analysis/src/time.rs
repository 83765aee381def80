//! Which rows come in time.
//!
//! Every row has two times: when it happened (`ts`) and when it arrived. A third, **record time**,
//! is that of the record of the log the row came in. Words and order are those of Azure Stream
//! Analytics; timestamps are never altered:
//!
//! 1. *Late arrival*: `arrival - ts` is more than `late`.
//! 2. *Early arrival*: `ts - arrival` is more than `early`.
//! 3. *Out of order*: `ts` is before the device's **watermark**, which is the greatest `ts` of its
//!    rows so far less `out_of_order`. (Stream Analytics' documentation has a table that measures
//!    this from the arrival; its text says as is done here.)
//!
//! A row that fails is in no window and moves no watermark. What passes may still have missed some
//! of its windows, because they were closed by record time:
//!
//! - A window of one device closes when the device's watermark reaches its end; or when the device
//!   is silent: when record time reaches the window's end, and the last record with a row of the
//!   device in time, by the **wait**.
//! - A window of several devices closes when record time reaches its end by the wait. So nobody
//!   waits for an idle device, and no device's clock closes what is of others.
//!
//! The wait is `idle` if that is given, else `late`; without either it is `out_of_order`, but for
//! windows of one device at least a minute. With `late` and without `idle`, no row can be in time
//! that misses its window, if arrivals do not lie before the time of the record.

use crate::spec::{SpecError, not_negative};

/// The shortest wait for a silent device if neither `idle` nor `late` says how long.
const WAIT_MIN: i64 = 60_000_000;

/// Tolerances, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TimePolicy {
    /// How long after it happened a row may arrive; for ever if not said.
    pub late: Option<i64>,
    /// How far behind the latest row of its device a row may be.
    pub out_of_order: i64,
    /// How long before it happens a row may arrive, its device's clock being fast; for ever if not
    /// said: then such a row moves the watermark of its own device only.
    pub early: Option<i64>,
    /// How long a silent device is waited for before its windows close without it.
    pub idle: Option<i64>,
}

/// Why a row is not in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LateReason {
    /// It arrived too long after it happened.
    LateArrival,
    /// It is too far behind the latest row of its device.
    OutOfOrder,
    /// Its window was closed by record time.
    WindowClosed,
    /// It arrived too long before it happened.
    Early,
    /// Its time is outside of years 1 to 9999; it is told of no window.
    OutOfRange,
    /// The state had reached one of its limits.
    Limit,
}

impl LateReason {
    /// The word used in records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LateArrival => "late_arrival",
            Self::OutOfOrder => "out_of_order",
            Self::WindowClosed => "window_closed",
            Self::Early => "early",
            Self::OutOfRange => "out_of_range",
            Self::Limit => "limit",
        }
    }
}

impl TimePolicy {
    pub(crate) fn check(&self) -> Result<(), SpecError> {
        not_negative("`out_of_order`", self.out_of_order)?;
        not_negative("`late`", self.late.unwrap_or(0))?;
        not_negative("`early`", self.early.unwrap_or(0))?;
        not_negative("`idle`", self.idle.unwrap_or(0))
    }

    /// What is wrong with a row of a device with this watermark, if anything is.
    #[inline]
    pub(crate) fn judge(&self, ts: i64, arrival: i64, watermark: i64) -> Option<LateReason> {
        if self
            .late
            .is_some_and(|late| arrival.saturating_sub(ts) > late)
        {
            return Some(LateReason::LateArrival);
        }
        if self
            .early
            .is_some_and(|early| ts.saturating_sub(arrival) > early)
        {
            return Some(LateReason::Early);
        }
        (ts < watermark).then_some(LateReason::OutOfOrder)
    }

    /// The watermark of a device whose latest row is of `latest`.
    #[inline]
    pub(crate) const fn watermark(&self, latest: i64) -> i64 {
        latest.saturating_sub(self.out_of_order)
    }

    /// How long after its end a window closes by record time.
    pub(crate) fn wait(&self, has_device: bool) -> i64 {
        let otherwise = if has_device {
            self.out_of_order.max(WAIT_MIN)
        } else {
            self.out_of_order
        };
        self.idle.or(self.late).unwrap_or(otherwise)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stream Analytics' published example; times are seconds past midnight.
    #[test]
    fn rows_are_judged_as_in_the_published_example() {
        const SECOND: i64 = 1_000_000;
        let policy = TimePolicy {
            late: Some(15 * SECOND),
            out_of_order: 8 * SECOND,
            ..TimePolicy::default()
        };
        let rows = [
            (600, 640, Some(LateReason::LateArrival)),
            (630, 641, None),
            (642, 642, None),
            (638, 643, None),
            (635, 645, None),
            (633, 645, Some(LateReason::OutOfOrder)),
            (633, 650, Some(LateReason::LateArrival)),
        ];
        let mut latest = i64::MIN;
        for (ts, arrival, expected) in rows {
            let (ts, arrival) = (ts * SECOND, arrival * SECOND);
            let judged = policy.judge(ts, arrival, policy.watermark(latest));
            assert_eq!(judged, expected, "{ts}");
            if judged.is_none() {
                latest = latest.max(ts);
            }
        }
        assert_eq!(policy.watermark(latest), 634 * SECOND);
    }
}
