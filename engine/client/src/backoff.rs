//! How long to wait before trying again: doubling, bounded, and jittered, so that a fleet that lost
//! its server does not come back as one.

use std::time::Duration;

use quiver_model::Entropy;

/// Pauses between attempts to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackoffOptions {
    /// The first pause; it doubles with each failure.
    pub first: Duration,
    /// The longest pause.
    pub max: Duration,
    /// A connection that lasted this long was a good one: the next pause is the first again.
    pub reset_after: Duration,
}

impl Default for BackoffOptions {
    /// From 1 s to 60 s; after a connection of 10 s, from 1 s again.
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            max: Duration::from_secs(60),
            reset_after: Duration::from_secs(10),
        }
    }
}

/// The state of it.
#[derive(Debug)]
pub(crate) struct Backoff {
    options: BackoffOptions,
    failures: u32,
}

impl Backoff {
    pub fn new(options: BackoffOptions) -> Self {
        Self {
            options,
            failures: 0,
        }
    }

    /// A connection ended that had been up for `lasted`.
    pub fn on_connection_ended(&mut self, lasted: Duration) {
        if lasted >= self.options.reset_after {
            self.failures = 0;
        }
    }

    /// The pause before the next attempt: between half of the nominal one and all of it.
    pub fn next_pause(&mut self, entropy: &dyn Entropy) -> Duration {
        let nominal = self
            .options
            .first
            .saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX))
            .min(self.options.max);
        self.failures = (self.failures + 1).min(31);
        let half = nominal / 2;
        let spread = u64::try_from(half.as_micros()).unwrap_or(u64::MAX).max(1);
        half + Duration::from_micros(entropy.next_u64() % spread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Fixed(u64);
    impl Entropy for Fixed {
        fn next_u64(&self) -> u64 {
            self.0
        }
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_stay_within_half_of_the_nominal_one() {
        for draw in [0, 499_999, u64::MAX, 123_456_789] {
            let mut backoff = Backoff::new(BackoffOptions::default());
            for nominal in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
                let pause = backoff.next_pause(&Fixed(draw));
                let nominal = Duration::from_secs(nominal);
                assert!(
                    pause >= nominal / 2 && pause <= nominal,
                    "{pause:?} of {nominal:?}"
                );
            }
        }
    }

    #[test]
    fn a_short_connection_does_not_reset_the_pause_and_a_long_one_does() {
        let mut backoff = Backoff::new(BackoffOptions::default());
        for _ in 0..4 {
            backoff.next_pause(&Fixed(0));
        }
        backoff.on_connection_ended(Duration::from_secs(9));
        assert_eq!(backoff.next_pause(&Fixed(0)), Duration::from_secs(8));
        backoff.on_connection_ended(Duration::from_secs(10));
        assert_eq!(backoff.next_pause(&Fixed(0)), Duration::from_millis(500));
    }
}
