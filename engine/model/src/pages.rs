//! Rows of a fixed width that are only ever added: what there is of many devices.

use std::sync::Arc;

/// Rows of a page.
pub(crate) const PAGE_ROWS: usize = 1_024;

/// Rows of `width` values each, in pages, so that growing neither copies what is there nor takes
/// twice the room. A clone is cheap and stays as it is: it shares the pages, and a page that is
/// written afterwards is copied first.
#[derive(Clone, Debug)]
pub struct Pages<T> {
    width: usize,
    pages: Vec<Arc<Vec<T>>>,
    rows: usize,
}

impl<T> Default for Pages<T> {
    fn default() -> Self {
        Self::of_width(1)
    }
}

impl<T> Pages<T> {
    /// No rows yet; each will have `width` values (at least one).
    pub const fn of_width(width: usize) -> Self {
        Self {
            width: if width == 0 { 1 } else { width },
            pages: Vec::new(),
            rows: 0,
        }
    }

    /// Number of rows.
    pub const fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The values of a row.
    pub fn row(&self, row: usize) -> Option<&[T]> {
        let start = row % PAGE_ROWS * self.width;
        self.pages
            .get(row / PAGE_ROWS)?
            .get(start..start + self.width)
    }

    /// The first value of a row: the only one if rows are of width 1.
    pub fn get(&self, row: usize) -> Option<&T> {
        self.row(row)?.first()
    }

    /// Bytes of memory it takes, without what its values point to.
    pub fn bytes(&self) -> usize {
        let pages: usize = self.pages.iter().map(|page| page.capacity()).sum();
        pages * size_of::<T>()
            + self.pages.capacity() * size_of::<Arc<Vec<T>>>()
            + self.pages.len() * (size_of::<Vec<T>>() + 2 * size_of::<usize>())
    }
}

impl<T: Clone> Pages<T> {
    /// The values of a row, to be written.
    pub fn row_mut(&mut self, row: usize) -> Option<&mut [T]> {
        let start = row % PAGE_ROWS * self.width;
        let page = self.pages.get_mut(row / PAGE_ROWS)?;
        Arc::make_mut(page).get_mut(start..start + self.width)
    }

    /// The first value of a row, to be written.
    pub fn get_mut(&mut self, row: usize) -> Option<&mut T> {
        self.row_mut(row)?.first_mut()
    }

    /// Adds a row that has `value` in every place; its number.
    pub fn push(&mut self, value: T) -> usize {
        let row = self.rows;
        if row.is_multiple_of(PAGE_ROWS) {
            self.pages.push(Arc::default());
        }
        // Only a few rows may ever come: the first page grows as a vector does, the others are
        // there whole.
        let is_first = self.pages.len() == 1;
        if let Some(page) = self.pages.last_mut() {
            let page = Arc::make_mut(page);
            if !is_first && page.capacity() < PAGE_ROWS * self.width {
                page.reserve_exact(PAGE_ROWS * self.width - page.len());
            }
            page.extend(std::iter::repeat_n(value, self.width));
        }
        self.rows += 1;
        row
    }

    /// Adds rows that have `value` in every place until there are `rows`.
    pub fn grow(&mut self, rows: usize, value: &T) {
        while self.rows < rows {
            self.push(value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_where_they_were_put_and_a_clone_stays_as_it_was() {
        let mut pages = Pages::of_width(3);
        for row in 0..5_000_u32 {
            assert_eq!(pages.push(row), row as usize);
        }
        let before = pages.clone();
        pages.row_mut(2_000).unwrap()[1] = 7;
        pages.push(9);
        pages.grow(5_010, &1);
        assert_eq!(pages.row(2_000), Some(&[2_000, 7, 2_000][..]));
        assert_eq!(pages.row(5_000), Some(&[9, 9, 9][..]));
        assert_eq!((pages.len(), pages.get(5_009)), (5_010, Some(&1)));
        assert_eq!(pages.row(5_010), None);
        assert_eq!(before.row(2_000), Some(&[2_000; 3][..]));
        assert_eq!((before.len(), before.row(5_000)), (5_000, None));
        assert_eq!(before.get(4_999), Some(&4_999));
    }

    #[test]
    fn nothing_is_doubled_when_there_are_many() {
        let mut pages = Pages::of_width(2);
        pages.grow(PAGE_ROWS * 10 + 1, &0_u64);
        assert!(
            pages.bytes() < PAGE_ROWS * 11 * 16 + 1_024,
            "{}",
            pages.bytes()
        );
        let mut few = Pages::of_width(10);
        few.push(0_u64);
        assert!(few.bytes() < 1_024, "{}", few.bytes());
    }
}
