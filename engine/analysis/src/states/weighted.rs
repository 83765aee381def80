//! The average of a value over time: each value holds until the next row, so a value that stood for
//! an hour weighs sixty times as much as one that stood for a minute.
//!
//! ```text
//!         start    10 ────────┐ 20 ──┐                    end
//!           │      ┊          └──────┘ 5 ─────────────────▶│
//!           │ not  ├─────────────── averaged ──────────────┤
//!           │ known
//! ```
//!
//! At the window's edges: before its first row a window knows nothing, so the average begins there;
//! the last value holds until the end of the window.
//!
//! Rows are taken in order of arrival, which need not be that of their times. The newest
//! [`KEPT`] rows are kept, so a row that is overtaken by fewer than that is put where it belongs;
//! one before the first row extends the average backwards, which is exact too. An older row is
//! ignored, and counted: how long it held is no longer known. Of rows with the same time the last
//! to arrive holds.

use crate::bytes::{ReadBytes, SavedError, WriteBytes};

/// How many of the newest rows (by time) are kept to be told apart. With the one that comes they
/// fill a vector of 16.
pub const KEPT: usize = 15;

/// A value that holds from a time on.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Row {
    ts: i64,
    value: f64,
}

/// Two states of which neither ends before the other begins: which value held when is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the rows of two time-weighted averages lie among each other")]
pub struct Interleaved;

/// The average over time of one value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weighted {
    /// Time of the first row, if there is a row.
    first: i64,
    /// Sum of value × microseconds from `first` to the oldest row that is kept.
    integral: Compensated,
    /// The newest rows in order of time, at most [`KEPT`]; empty only if there are no rows.
    kept: Vec<Row>,
    ignored: u64,
}

impl Weighted {
    /// Takes a row: its time in microseconds since the epoch, and its value.
    pub fn push(&mut self, ts: i64, value: f64) {
        let row = Row { ts, value };
        match (self.kept.first(), self.kept.last()) {
            (Some(oldest), Some(newest)) => {
                if newest.ts <= ts {
                    self.kept.push(row);
                } else if oldest.ts <= ts {
                    let at = self.kept.partition_point(|other| other.ts <= ts);
                    self.kept.insert(at, row);
                } else if ts < self.first && self.first == oldest.ts {
                    // Nothing older than the kept rows has been added up: this one is kept too.
                    self.first = ts;
                    self.kept.insert(0, row);
                } else if ts < self.first {
                    self.integral.add_product(value, micros(ts, self.first));
                    self.first = ts;
                } else {
                    self.ignored = self.ignored.saturating_add(1);
                }
            }
            _ => {
                self.first = ts;
                self.kept.push(row);
            }
        }
        if let [oldest, next, ..] = self.kept[..]
            && self.kept.len() > KEPT
        {
            self.integral
                .add_product(oldest.value, micros(oldest.ts, next.ts));
            self.kept.remove(0);
        }
    }

    /// Takes what another state has taken, if all of it is later or all of it earlier than what
    /// this one has; equal times count as later. Else nothing changes.
    ///
    /// The result is that of all rows in one state, but for the last digits and for rows that come
    /// later and belong between the two: they are ignored.
    pub fn merge(&mut self, other: &Self) -> Result<(), Interleaved> {
        let (Some(own_last), Some(others_last)) = (self.kept.last(), other.kept.last()) else {
            if self.kept.is_empty() {
                let ignored = self.ignored;
                self.clone_from(other);
                self.ignored = self.ignored.saturating_add(ignored);
            } else {
                self.ignored = self.ignored.saturating_add(other.ignored);
            }
            return Ok(());
        };
        let merged = if own_last.ts <= other.first {
            self.followed_by(other)
        } else if others_last.ts <= self.first {
            other.followed_by(self)
        } else {
            return Err(Interleaved);
        };
        *self = merged;
        Ok(())
    }

    /// This state and one that begins when this one has ended.
    fn followed_by(&self, later: &Self) -> Self {
        if later.kept.first().is_some_and(|row| row.ts == later.first) {
            // All of its rows are there: rows that come later can still be put between them.
            let mut merged = self.clone();
            for row in &later.kept {
                merged.push(row.ts, row.value);
            }
            merged.ignored = merged.ignored.saturating_add(later.ignored);
            return merged;
        }
        let mut integral = self.until(later.first);
        integral.add(later.integral.sum);
        integral.add(later.integral.rest);
        Self {
            first: self.first,
            integral,
            kept: later.kept.clone(),
            ignored: self.ignored.saturating_add(later.ignored),
        }
    }

    /// The sum from the first row to `end`.
    fn until(&self, end: i64) -> Compensated {
        let mut integral = self.integral;
        for (index, row) in self.kept.iter().enumerate() {
            let until = self.kept.get(index + 1).map_or(end, |next| next.ts);
            integral.add_product(row.value, micros(row.ts, until));
        }
        integral
    }

    /// The average from the first row to `end`, the window's end in microseconds since the epoch;
    /// `None` without rows. If no time passes between the two, it is the last value.
    pub fn average(&self, end: i64) -> Option<f64> {
        let last = self.kept.last()?;
        let end = end.max(last.ts);
        let time = micros(self.first, end);
        Some(if time == 0.0 {
            last.value
        } else {
            self.until(end).total() / time
        })
    }

    /// How many rows came too late to be averaged.
    pub const fn ignored(&self) -> u64 {
        self.ignored
    }

    /// Bytes of memory it takes beside itself.
    pub const fn heap_bytes(&self) -> usize {
        self.kept.capacity() * size_of::<Row>()
    }

    /// Adds the state to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_varint(self.ignored);
        out.put_count(self.kept.len());
        let mut before = 0_i64;
        for row in &self.kept {
            out.put_signed(row.ts.wrapping_sub(before));
            out.put_f64(row.value);
            before = row.ts;
        }
        if let Some(oldest) = self.kept.first() {
            out.put_signed(oldest.ts.wrapping_sub(self.first));
            out.put_computed(self.integral.sum);
            out.put_computed(self.integral.rest);
        }
    }

    /// Takes a state off the front of `from`.
    pub fn read(from: &mut &[u8]) -> Result<Self, SavedError> {
        const ORDER: SavedError =
            SavedError::Invalid("rows are in order of time, and not too many");
        let ignored = from.varint()?;
        let count = from.count(1 + size_of::<f64>())?;
        if count > KEPT {
            return Err(ORDER);
        }
        let mut kept: Vec<Row> = Vec::with_capacity(count);
        let mut before = 0_i64;
        for index in 0..count {
            let ts = before.wrapping_add(from.signed()?);
            if index > 0 && ts < before {
                return Err(ORDER);
            }
            let value = from.f64()?;
            kept.push(Row { ts, value });
            before = ts;
        }
        let mut state = Self {
            ignored,
            ..Self::default()
        };
        if let Some(oldest) = kept.first() {
            state.first = oldest.ts.wrapping_sub(from.signed()?);
            if state.first > oldest.ts {
                return Err(ORDER);
            }
            state.integral.sum = from.f64()?;
            state.integral.rest = from.f64()?;
        }
        state.kept = kept;
        Ok(state)
    }
}

/// Microseconds from one time to another that is not earlier.
fn micros(from: i64, to: i64) -> f64 {
    to.abs_diff(from) as f64
}

/// A sum that also keeps what rounding took from it (Neumaier, ZAMM 54 (1974) 39).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Compensated {
    sum: f64,
    rest: f64,
}

impl Compensated {
    fn add(&mut self, value: f64) {
        let sum = self.sum + value;
        self.rest += if self.sum.abs() >= value.abs() {
            (self.sum - sum) + value
        } else {
            (value - sum) + self.sum
        };
        self.sum = sum;
    }

    /// Adds value × time. What held for no time counts nothing, even if it is infinite.
    fn add_product(&mut self, value: f64, time: f64) {
        if time > 0.0 {
            self.add(value * time);
        }
    }

    /// The sum. If it is infinite or no number, what rounding took is none and says nothing.
    fn total(self) -> f64 {
        if self.sum.is_finite() {
            self.sum + self.rest
        } else {
            self.sum
        }
    }
}

#[cfg(test)]
mod tests;
