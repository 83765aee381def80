//! Mean, variance and standard deviation without keeping the values.
//!
//! Values are taken by Welford's method (Technometrics 4 (1962) 419), states are merged by that of
//! Chan, Golub and LeVeque (Updating Formulae and a Pairwise Algorithm for Computing Sample
//! Variances, 1979). Neither subtracts large sums from each other, so many values far from zero
//! that differ little keep their digits.

use crate::bytes::{ReadBytes, SavedError, WriteBytes};

/// Count, mean and sum of squared distances from the mean. A value that is infinite or no number
/// makes every result but the count one that is none, as SQL's functions do.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    count: u64,
    mean: f64,
    squares: f64,
}

impl Moments {
    /// Takes a value.
    pub fn push(&mut self, value: f64) {
        self.count += 1;
        let from_old = value - self.mean;
        self.mean += from_old / self.count as f64;
        self.squares += from_old * (value - self.mean);
    }

    /// Takes what another state has taken. The result is that of the values one by one, but for the
    /// last digits, which depend on how the values were divided.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            *self = *other;
            return;
        }
        let (own, others) = (self.count as f64, other.count as f64);
        let count = own + others;
        let distance = other.mean - self.mean;
        self.count = self.count.saturating_add(other.count);
        self.mean += distance * (others / count);
        self.squares += other.squares + distance * distance * (own / count * others);
    }

    /// The state as words, for arrays of states.
    pub(crate) const fn words(self) -> [u64; 3] {
        [self.count, self.mean.to_bits(), self.squares.to_bits()]
    }

    /// The state that [`Self::words`] gave.
    pub(crate) const fn of_words([count, mean, squares]: [u64; 3]) -> Self {
        Self {
            count,
            mean: f64::from_bits(mean),
            squares: f64::from_bits(squares),
        }
    }

    /// How many values there were.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Their mean; `None` without values.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then_some(self.mean)
    }

    /// The variance of the values themselves (`var_pop`), in the square of their unit; `None`
    /// without values.
    pub fn variance_population(&self) -> Option<f64> {
        (self.count > 0).then(|| self.squares / self.count as f64)
    }

    /// The variance of what the values are a sample of (`var_samp`), in the square of their unit;
    /// `None` of fewer than two values.
    pub fn variance_sample(&self) -> Option<f64> {
        (self.count > 1).then(|| self.squares / (self.count - 1) as f64)
    }

    /// The square root of [`Moments::variance_population`], in the unit of the values.
    pub fn deviation_population(&self) -> Option<f64> {
        self.variance_population().map(f64::sqrt)
    }

    /// The square root of [`Moments::variance_sample`], in the unit of the values.
    pub fn deviation_sample(&self) -> Option<f64> {
        self.variance_sample().map(f64::sqrt)
    }

    /// Adds the state to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_varint(self.count);
        if self.count > 0 {
            out.put_f64(self.mean);
            out.put_f64(self.squares);
        }
    }

    /// Takes a state off the front of `from`.
    pub fn read(from: &mut &[u8]) -> Result<Self, SavedError> {
        let count = from.varint()?;
        if count == 0 {
            return Ok(Self::default());
        }
        let (mean, squares) = (from.f64()?, from.f64()?);
        // Half of the numbers, so that merging what is damaged does not overflow.
        if count > u64::MAX / 2 || squares < 0.0 {
            return Err(SavedError::Invalid(
                "a variance is of few enough values, and not negative",
            ));
        }
        Ok(Self {
            count,
            mean,
            squares,
        })
    }
}

#[cfg(test)]
mod tests;
