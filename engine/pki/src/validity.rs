//! From when until when a certificate holds.

use std::time::Duration;

use quiver_model::{Clock, Timestamp};

/// How far before now a fresh certificate begins, so that a peer whose clock is a little behind
/// accepts it at once.
pub const BACKDATE: Duration = Duration::from_secs(5 * 60);

/// 9999-12-31T23:59:59Z, the last moment X.509 can express; RFC 5280's "no expiry".
const LAST_SECOND: u64 = 253_402_300_799;

/// The span in which a certificate or a revocation list holds. X.509 counts whole seconds, so
/// both ends are rounded down to one when written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    not_before: Timestamp,
    not_after: Timestamp,
}

/// The span is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a certificate must end after it begins, but not_before is {not_before} and not_after {not_after}"
)]
pub struct ValidityError {
    /// The start asked for.
    pub not_before: Timestamp,
    /// The end asked for.
    pub not_after: Timestamp,
}

impl Validity {
    /// From five minutes ago ([`BACKDATE`]) until `lifetime` from now.
    pub fn starting_now(clock: &dyn Clock, lifetime: Duration) -> Self {
        let now = clock.wall();
        let backdate_us = i64::try_from(BACKDATE.as_micros()).unwrap_or(0);
        Self {
            not_before: Timestamp(now.as_micros().saturating_sub(backdate_us)),
            not_after: now.plus(lifetime),
        }
    }

    /// Exactly this span; it may lie in the past or in the future.
    ///
    /// # Errors
    /// If `not_after` is not at least a second after `not_before`.
    pub fn between(not_before: Timestamp, not_after: Timestamp) -> Result<Self, ValidityError> {
        let this = Self {
            not_before,
            not_after,
        };
        if not_after.since(not_before) < Duration::from_secs(1) {
            return Err(ValidityError {
                not_before,
                not_after,
            });
        }
        Ok(this)
    }

    /// The first moment it holds.
    pub fn not_before(self) -> Timestamp {
        self.not_before
    }

    /// The last moment it holds.
    pub fn not_after(self) -> Timestamp {
        self.not_after
    }

    /// Whether it holds at `moment`.
    pub fn contains(self, moment: Timestamp) -> bool {
        (self.not_before..=self.not_after).contains(&moment)
    }
}

/// Whole seconds since the epoch, clamped to what X.509 can say (1970 to 9999).
pub(crate) fn since_epoch(moment: Timestamp) -> Duration {
    let seconds = u64::try_from(moment.as_micros().div_euclid(1_000_000)).unwrap_or(0);
    Duration::from_secs(seconds.min(LAST_SECOND))
}

#[cfg(test)]
mod tests {
    use quiver_model::ManualClock;

    use super::*;

    #[test]
    fn a_fresh_certificate_begins_five_minutes_ago() {
        let clock = ManualClock::new(Timestamp(1_000_000_000));
        let validity = Validity::starting_now(&clock, Duration::from_secs(60));
        assert_eq!(validity.not_before(), Timestamp(700_000_000));
        assert_eq!(validity.not_after(), Timestamp(1_060_000_000));
        assert!(validity.contains(clock.wall()));
    }

    #[test]
    fn an_empty_span_is_refused() {
        assert!(Validity::between(Timestamp(5_000_000), Timestamp(5_000_000)).is_err());
        assert!(Validity::between(Timestamp(5_000_000), Timestamp(4_000_000)).is_err());
        assert!(Validity::between(Timestamp(5_000_000), Timestamp(6_000_000)).is_ok());
    }

    #[test]
    fn moments_beyond_x509_are_clamped() {
        assert_eq!(since_epoch(Timestamp(i64::MIN)), Duration::ZERO);
        assert_eq!(
            since_epoch(Timestamp(i64::MAX)),
            Duration::from_secs(LAST_SECOND)
        );
    }
}
