//! A token bucket for rows.

use std::time::Duration;

/// Longest wait for a debt at a time.
const DEBT_MAX_SECONDS: f64 = 3_600.0;

/// Lets `rate` rows a second pass in the long run, and a second's worth at once.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    rate: u64,
    tokens: f64,
    last: Duration,
}

impl TokenBucket {
    /// A full bucket at monotonic time `now`; `rate` 0 means no limit.
    pub fn new(rate: u64, now: Duration) -> Self {
        Self {
            rate,
            tokens: rate as f64,
            last: now,
        }
    }

    /// Takes `rows` tokens, and may leave a debt; how long until it is paid. Whoever waits before
    /// the next rows, and not before these, keeps to the rate and holds nothing meanwhile.
    pub fn charge(&mut self, rows: u64, now: Duration) -> Duration {
        if self.rate == 0 {
            return Duration::ZERO;
        }
        self.refill(now);
        self.tokens -= rows as f64;
        Duration::from_secs_f64((-self.tokens / self.rate as f64).clamp(0.0, DEBT_MAX_SECONDS))
    }

    fn refill(&mut self, now: Duration) {
        let elapsed = now.saturating_sub(self.last).as_secs_f64();
        self.last = now;
        self.tokens = (self.tokens + elapsed * self.rate as f64).min(self.rate as f64);
    }

    /// Takes `rows` tokens, or says how long until they are there. A batch larger than the bucket
    /// passes when the bucket is full, and leaves a debt.
    pub fn take(&mut self, rows: u64, now: Duration) -> Result<(), Duration> {
        if self.rate == 0 {
            return Ok(());
        }
        let rate = self.rate as f64;
        self.refill(now);
        let needed = (rows as f64).min(rate);
        if self.tokens >= needed {
            self.tokens -= rows as f64;
            return Ok(());
        }
        Err(Duration::from_secs_f64(
            ((needed - self.tokens) / rate).clamp(0.001, 60.0),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_may_burst_a_second_and_then_keeps_to_its_rate() {
        let mut bucket = TokenBucket::new(100, Duration::ZERO);
        assert_eq!(bucket.take(100, Duration::ZERO), Ok(()));
        let wait = bucket.take(50, Duration::ZERO).unwrap_err();
        assert_eq!(wait, Duration::from_millis(500));
        assert_eq!(bucket.take(50, Duration::from_millis(500)), Ok(()));
    }

    #[test]
    fn a_debt_is_paid_before_the_next_rows() {
        let mut bucket = TokenBucket::new(100, Duration::ZERO);
        assert_eq!(bucket.charge(100, Duration::ZERO), Duration::ZERO);
        assert_eq!(
            bucket.charge(50, Duration::ZERO),
            Duration::from_millis(500)
        );
        assert_eq!(
            bucket.charge(10, Duration::from_millis(500)),
            Duration::from_millis(100)
        );
    }

    #[test]
    fn a_batch_larger_than_the_bucket_passes_and_leaves_a_debt() {
        let mut bucket = TokenBucket::new(10, Duration::ZERO);
        assert_eq!(bucket.take(30, Duration::ZERO), Ok(()));
        assert!(bucket.take(1, Duration::from_secs(1)).is_err());
        assert_eq!(bucket.take(1, Duration::from_secs(3)), Ok(()));
    }
}
