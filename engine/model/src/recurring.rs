//! The distinct names of a column. Rows of one device mostly lie together, or devices take turns:
//! both are recognised by comparing with one name, without hashing.

use std::collections::HashMap;

/// Names, numbered in order of appearance.
#[derive(Default)]
pub(crate) struct Recurring<'a> {
    names: Vec<&'a str>,
    index: HashMap<&'a str, usize>,
    /// The number that was found last.
    last: usize,
}

impl<'a> Recurring<'a> {
    /// The number of a name; a new one's is how many there were before.
    pub fn number(&mut self, name: &'a str) -> usize {
        let after = match self.last + 1 {
            end if end >= self.names.len() => 0,
            after => after,
        };
        for guess in [self.last, after] {
            if self.names.get(guess) == Some(&name) {
                self.last = guess;
                return guess;
            }
        }
        self.last = *self.index.entry(name).or_insert_with(|| {
            self.names.push(name);
            self.names.len() - 1
        });
        self.last
    }

    /// The names, in order of their numbers.
    pub fn names(&self) -> &[&'a str] {
        &self.names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_numbers_in_whatever_order_they_come() {
        let mut recurring = Recurring::default();
        let come = [
            "a", "a", "b", "c", "a", "b", "c", "c", "a", "d", "b", "a", "a",
        ];
        let numbers: Vec<usize> = come.iter().map(|name| recurring.number(name)).collect();
        assert_eq!(numbers, [0, 0, 1, 2, 0, 1, 2, 2, 0, 3, 1, 0, 0]);
        assert_eq!(recurring.names(), ["a", "b", "c", "d"]);
    }
}
