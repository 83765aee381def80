//! How many single rows were refused, by reason: what a sender is told of rows that its settled
//! batches had and that are not stored.

use crate::RejectCode;

/// Rows refused one by one, counted by reason. Mostly empty, and never longer than there are
/// reasons.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefusedRows(Vec<(RejectCode, u64)>);

impl RefusedRows {
    /// Counts `rows` more.
    pub fn add(&mut self, code: RejectCode, rows: u64) {
        if rows == 0 {
            return;
        }
        match self.0.binary_search_by_key(&code, |(code, _)| *code) {
            Ok(index) => self.0[index].1 = self.0[index].1.saturating_add(rows),
            Err(index) => self.0.insert(index, (code, rows)),
        }
    }

    /// Rows refused for this reason.
    pub fn get(&self, code: RejectCode) -> u64 {
        let found = self.0.binary_search_by_key(&code, |(code, _)| *code);
        found.map_or(0, |index| self.0[index].1)
    }

    /// Reasons and rows, ascending by the code's number.
    pub fn iter(&self) -> impl Iterator<Item = (RejectCode, u64)> + '_ {
        self.0.iter().copied()
    }

    /// Whether none was refused.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Rows refused for whatever reason.
    pub fn total(&self) -> u64 {
        self.iter()
            .fold(0, |sum, (_, rows)| sum.saturating_add(rows))
    }

    /// What this counts beyond `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        self.iter()
            .map(|(code, rows)| (code, rows.saturating_sub(earlier.get(code))))
            .collect()
    }

    /// The larger of both counts, reason by reason: counts only grow, so that is the later one.
    #[must_use]
    pub fn latest(&self, other: &Self) -> Self {
        let mut latest = self.clone();
        for (code, rows) in other.since(self).iter() {
            latest.add(code, rows);
        }
        latest
    }
}

impl FromIterator<(RejectCode, u64)> for RefusedRows {
    fn from_iter<T: IntoIterator<Item = (RejectCode, u64)>>(counts: T) -> Self {
        let mut rows = Self::default();
        for (code, count) in counts {
            rows.add(code, count);
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_only_grow_and_their_difference_is_what_is_new() {
        let mut earlier = RefusedRows::default();
        earlier.add(RejectCode::NotEnrolled, 3);
        let mut later = earlier.clone();
        later.add(RejectCode::NullTimestamp, 2);
        later.add(RejectCode::NotEnrolled, 1);
        later.add(RejectCode::IntegerRange, 0);
        assert_eq!(later.total(), 6);
        let new: Vec<_> = later.since(&earlier).iter().collect();
        assert_eq!(
            new,
            [(RejectCode::NullTimestamp, 2), (RejectCode::NotEnrolled, 1)]
        );
        assert_eq!(earlier.latest(&later), later);
        assert_eq!(later.latest(&earlier), later);
        assert!(earlier.since(&later).is_empty());
    }
}
