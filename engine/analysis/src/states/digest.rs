//! Quantiles without keeping the values: a t-digest.
//!
//! After Dunning and Ertl, Computing Extremely Accurate Quantiles Using t-Digests
//! (arXiv:1902.04023), the merging variant. Values lie in a sorted list of centroids (a mean and
//! how many values it stands for); a centroid near the median may stand for many values, one near
//! the ends for few, so extreme quantiles are the most exact.
//!
//! ```text
//! push ─▶ recent (up to RECENT values) ──full──▶ sorted, merged with ─▶ centroids
//! ```
//!
//! The bound is that of their scale function k₁, told as a weight: a centroid that covers the
//! quantiles q₁ to q₂ of n values stands for one, or for at most
//! 2 sin(π/δ) · n · min(√(q₁(1−q₁)), √(q₂(1−q₂))), with δ = [`COMPRESSION`]. So nothing but
//! arithmetic that is the same on every machine decides the result.
//!
//! Between the centres of centroids quantiles are interpolated linearly; the smallest and the
//! greatest value always stand for themselves. While every value does, as of fewer than [`RECENT`]
//! values, that is exactly the rule of `quantile_cont` in DuckDB and of NumPy's
//! method `linear`. Values that are infinite are counted beside the digest and keep their places at
//! its ends; what is no number counts as greater than every number, as in SQL.

use crate::bytes::{ReadBytes, SavedError, WriteBytes};

/// The t-digest's δ: there are about as many centroids, twice as many at most.
pub const COMPRESSION: usize = 100;

/// How many values are kept as they come before they are merged.
pub const RECENT: usize = 256;

/// 2 sin(π/100), from δ = [`COMPRESSION`].
const WEIGHT_LIMIT: f64 = 0.062_821_518_156_256_16;

/// Values that lie together.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Centroid {
    mean: f64,
    weight: u64,
}

/// The distribution of the values seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Digest {
    /// In order of their means; all finite.
    centroids: Vec<Centroid>,
    /// Values that are not merged yet, in order of arrival; all finite.
    recent: Vec<f64>,
    /// Sum of the weights of `centroids`.
    merged: u64,
    /// Values of −∞, +∞ and no number.
    minus_infinite: u64,
    plus_infinite: u64,
    not_numbers: u64,
}

impl Digest {
    /// Takes a value.
    pub fn push(&mut self, value: f64) {
        if value.is_finite() {
            self.recent.push(value);
            if self.recent.len() >= RECENT {
                self.compress();
            }
        } else if value == f64::INFINITY {
            self.plus_infinite += 1;
        } else if value == f64::NEG_INFINITY {
            self.minus_infinite += 1;
        } else {
            self.not_numbers += 1;
        }
    }

    /// Takes what another digest has taken. Quantiles are then about as exact as of one digest, but
    /// not the same ones.
    pub fn merge(&mut self, other: &Self) {
        self.minus_infinite = self.minus_infinite.saturating_add(other.minus_infinite);
        self.plus_infinite = self.plus_infinite.saturating_add(other.plus_infinite);
        self.not_numbers = self.not_numbers.saturating_add(other.not_numbers);
        if other.merged > 0 {
            self.take(other.centroids.iter().copied(), other.merged);
        }
        for value in &other.recent {
            self.push(*value);
        }
    }

    /// How many values there were.
    pub fn count(&self) -> u64 {
        self.finite()
            .saturating_add(self.minus_infinite)
            .saturating_add(self.plus_infinite)
            .saturating_add(self.not_numbers)
    }

    fn finite(&self) -> u64 {
        self.merged.saturating_add(self.recent.len() as u64)
    }

    /// The value that a part `q` (0 to 1; what is outside counts as the nearer end) of the values
    /// lies below; `None` without values, or if `q` is no number.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let count = self.count();
        if count == 0 || q.is_nan() {
            return None;
        }
        // The place among the sorted values, from 0, as a fraction.
        let place = q.clamp(0.0, 1.0) * (count - 1) as f64;
        let finite = self.finite() as f64;
        let below = self.minus_infinite as f64;
        let not_above = below + finite + self.plus_infinite as f64;
        Some(if place > not_above - 1.0 {
            f64::NAN
        } else if place > below + finite - 1.0 && self.plus_infinite > 0 {
            f64::INFINITY
        } else if place < below {
            f64::NEG_INFINITY
        } else {
            self.finite_at(place - below)
        })
    }

    /// The value at a place among the finite ones, of which there is one at least.
    fn finite_at(&self, place: f64) -> f64 {
        if self.recent.is_empty() {
            return at(&self.centroids, place);
        }
        let mut merged = self.clone();
        if self.merged == 0 {
            // All values stand for themselves.
            merged.recent.sort_unstable_by(f64::total_cmp);
            let below = place.floor();
            let index = below as usize;
            let low = merged.recent.get(index).or(merged.recent.last());
            let low = low.copied().unwrap_or(f64::NAN);
            let high = merged.recent.get(index + 1).copied().unwrap_or(low);
            return between(low, high, place - below);
        }
        merged.compress();
        at(&merged.centroids, place)
    }

    /// Merges the recent values with the centroids.
    fn compress(&mut self) {
        let mut recent = std::mem::take(&mut self.recent);
        recent.sort_unstable_by(f64::total_cmp);
        let each = recent.iter().map(|value| Centroid {
            mean: *value,
            weight: 1,
        });
        self.take(each, recent.len() as u64);
        recent.clear();
        self.recent = recent;
    }

    /// Merges sorted centroids with those that are there: neighbours become one as long as the
    /// bound allows.
    fn take(&mut self, others: impl Iterator<Item = Centroid>, weight: u64) {
        self.merged = self.merged.saturating_add(weight);
        let total = self.merged as f64;
        let mut own = std::mem::take(&mut self.centroids).into_iter().peekable();
        let mut others = others.peekable();
        let mut before = 0_u64;
        let mut open: Option<Centroid> = None;
        let mut closed = Vec::with_capacity(COMPRESSION);
        loop {
            let is_own = match (own.peek(), others.peek()) {
                (Some(own), Some(other)) => own.mean <= other.mean,
                (own, _) => own.is_some(),
            };
            let Some(next) = (if is_own { own.next() } else { others.next() }) else {
                break;
            };
            open = Some(match open {
                None => next,
                Some(last) if may_be_one(before, last, next, total) => one(last, next),
                Some(last) => {
                    before = before.saturating_add(last.weight);
                    closed.push(last);
                    next
                }
            });
        }
        closed.extend(open);
        self.centroids = closed;
    }

    /// Bytes of memory it takes beside itself.
    pub const fn heap_bytes(&self) -> usize {
        self.centroids.capacity() * size_of::<Centroid>()
            + self.recent.capacity() * size_of::<f64>()
    }

    /// Adds the state to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_count(self.recent.len());
        for value in &self.recent {
            out.put_f64(*value);
        }
        out.put_count(self.centroids.len());
        for centroid in &self.centroids {
            out.put_f64(centroid.mean);
            out.put_varint(centroid.weight);
        }
        out.put_varint(self.minus_infinite);
        out.put_varint(self.plus_infinite);
        out.put_varint(self.not_numbers);
    }

    /// Takes a state off the front of `from`.
    pub fn read(from: &mut &[u8]) -> Result<Self, SavedError> {
        const RECENT_VALUES: SavedError =
            SavedError::Invalid("a digest's recent values are finite, and not too many");
        const CENTROIDS: SavedError =
            SavedError::Invalid("a digest's centroids are in order, finite, and of some weight");
        let mut digest = Self::default();
        let recent = from.count(size_of::<f64>())?;
        if recent >= RECENT {
            return Err(RECENT_VALUES);
        }
        digest.recent.reserve_exact(recent);
        for _ in 0..recent {
            let value = from.f64()?;
            if !value.is_finite() {
                return Err(RECENT_VALUES);
            }
            digest.recent.push(value);
        }
        let centroids = from.count(size_of::<f64>() + 1)?;
        digest.centroids.reserve_exact(centroids);
        let mut before = f64::MIN;
        for _ in 0..centroids {
            let (mean, weight) = (from.f64()?, from.varint()?);
            let merged = digest.merged.checked_add(weight);
            if !mean.is_finite() || mean < before || weight == 0 {
                return Err(CENTROIDS);
            }
            digest.merged = merged.ok_or(CENTROIDS)?;
            digest.centroids.push(Centroid { mean, weight });
            before = mean;
        }
        digest.minus_infinite = from.varint()?;
        digest.plus_infinite = from.varint()?;
        digest.not_numbers = from.varint()?;
        // So that counting on does not overflow.
        let counts = [
            digest.merged,
            digest.minus_infinite,
            digest.plus_infinite,
            digest.not_numbers,
        ];
        if counts.iter().any(|count| *count > u64::MAX / 16) {
            return Err(SavedError::Invalid("a digest is of few enough values"));
        }
        Ok(digest)
    }
}

/// Whether two neighbours may become one, with `before` values in front of them.
fn may_be_one(before: u64, left: Centroid, right: Centroid, total: f64) -> bool {
    let weight = left.weight.saturating_add(right.weight) as f64;
    let spread = |q: f64| (q * (1.0 - q)).max(0.0).sqrt();
    let from = before as f64 / total;
    let to = (before as f64 + weight) / total;
    weight <= WEIGHT_LIMIT * total * spread(from).min(spread(to))
}

/// Two neighbours as one; its mean lies between theirs, whatever is rounded.
fn one(left: Centroid, right: Centroid) -> Centroid {
    let weight = left.weight.saturating_add(right.weight);
    let of_right = right.weight as f64 / weight as f64;
    let mean = between(left.mean, right.mean, of_right);
    Centroid {
        mean: mean.max(left.mean).min(right.mean),
        weight,
    }
}

/// The value a part `part` of the way from `low` to `high`, both finite.
fn between(low: f64, high: f64, part: f64) -> f64 {
    let distance = high - low;
    if distance.is_finite() {
        low + distance * part
    } else {
        low * (1.0 - part) + high * part
    }
}

/// The value at a place among the values of centroids, of which there is one at least: that at the
/// centre of a centroid is its mean.
fn at(centroids: &[Centroid], place: f64) -> f64 {
    let mut before = 0_u64;
    let mut left: Option<(f64, f64)> = None;
    for centroid in centroids {
        let centre = before as f64 + (centroid.weight as f64 - 1.0) / 2.0;
        if place < centre {
            let (left, low) = left.unwrap_or((place, centroid.mean));
            return between(low, centroid.mean, (place - left) / (centre - left));
        }
        left = Some((centre, centroid.mean));
        before = before.saturating_add(centroid.weight);
    }
    left.map_or(f64::NAN, |(_, mean)| mean)
}

#[cfg(test)]
mod tests;
