//! The distinct names of a column. Rows of one device mostly lie together, or devices take turns:
//! both are recognised by comparing with one name, without hashing.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

/// Names, numbered in order of appearance.
#[derive(Default)]
pub(crate) struct Recurring<'a> {
    hasher: DefaultHashBuilder,
    names: Vec<&'a str>,
    index: HashTable<usize>,
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
        let Self {
            hasher,
            names,
            index,
            last,
        } = self;
        let hash = hasher.hash_one(name);
        *last = match index.find(hash, |number| names[*number] == name) {
            Some(number) => *number,
            None => {
                let number = names.len();
                names.push(name);
                index.insert_unique(hash, number, |number| hasher.hash_one(names[*number]));
                number
            }
        };
        *last
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
