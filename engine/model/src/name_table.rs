//! Names that are kept for as long as the process runs: each once, numbered in the order they came.

use std::{hash::BuildHasher, sync::Arc};

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::pages::PAGE_ROWS;

/// From so many names on the index has [`PARTS`] parts, which grow one by one: no one name waits
/// for all of it to be built anew.
const SPLIT_AT: usize = 16_384;
const PARTS: usize = 64;
/// Bits of a hash that choose the part: neither those that choose a bucket nor those that mark it.
const PART_SHIFT: u32 = 40;

/// Names by number. A clone is cheap and stays as it is.
#[derive(Clone, Debug, Default)]
pub struct Names {
    pages: Vec<Arc<Page>>,
    len: usize,
}

#[derive(Clone, Debug, Default)]
struct Page {
    /// Where each name ends in `bytes`.
    ends: Vec<u32>,
    bytes: Vec<u8>,
}

impl Names {
    /// How many there are.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The name with this number.
    pub fn get(&self, number: usize) -> Option<&[u8]> {
        let page = self.pages.get(number / PAGE_ROWS)?;
        let row = number % PAGE_ROWS;
        let end = *page.ends.get(row)? as usize;
        let start = match row.checked_sub(1) {
            None => 0,
            Some(before) => *page.ends.get(before)? as usize,
        };
        page.bytes.get(start..end)
    }

    /// The name with this number as text; `None` also if it is none.
    pub fn text(&self, number: usize) -> Option<&str> {
        std::str::from_utf8(self.get(number)?).ok()
    }

    /// All names, in order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> + '_ {
        (0..self.len).map_while(|number| self.get(number))
    }

    fn push(&mut self, name: &[u8]) {
        if self.len.is_multiple_of(PAGE_ROWS) {
            let page = self.new_page();
            self.pages.push(Arc::new(page));
        }
        if let Some(page) = self.pages.last_mut() {
            let page = Arc::make_mut(page);
            page.bytes.extend_from_slice(name);
            // At most `PAGE_ROWS` names that are not longer than their callers allow.
            page.ends
                .push(u32::try_from(page.bytes.len()).unwrap_or(u32::MAX));
        }
        self.len += 1;
    }

    /// A page after those that are full; what these have too much is given back.
    fn new_page(&mut self) -> Page {
        let Some(full) = self.pages.last_mut() else {
            return Page::default();
        };
        let full = Arc::make_mut(full);
        full.bytes.shrink_to_fit();
        full.ends.shrink_to_fit();
        Page {
            ends: Vec::with_capacity(PAGE_ROWS),
            // The next names are probably as long as those before.
            bytes: Vec::with_capacity(full.bytes.len()),
        }
    }

    fn bytes(&self) -> usize {
        let page = |page: &Arc<Page>| {
            page.ends.capacity() * size_of::<u32>()
                + page.bytes.capacity()
                + size_of::<Page>()
                + 2 * size_of::<usize>()
        };
        self.pages.iter().map(page).sum::<usize>() + self.pages.capacity() * size_of::<Arc<Page>>()
    }
}

/// Names, and the number of each.
#[derive(Clone, Debug)]
pub struct NameTable {
    hasher: DefaultHashBuilder,
    /// Numbers by the hashes of their names: one part, or [`PARTS`].
    index: Vec<HashTable<u32>>,
    names: Names,
}

impl Default for NameTable {
    fn default() -> Self {
        Self {
            hasher: DefaultHashBuilder::default(),
            index: vec![HashTable::new()],
            names: Names::default(),
        }
    }
}

fn part_of(hash: u64, parts: usize) -> usize {
    if parts == 1 {
        0
    } else {
        (hash >> PART_SHIFT) as usize % PARTS
    }
}

impl NameTable {
    /// The names.
    pub const fn names(&self) -> &Names {
        &self.names
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The number of a name.
    pub fn find(&self, name: &[u8]) -> Option<usize> {
        self.find_hashed(self.hasher.hash_one(name), name)
    }

    fn find_hashed(&self, hash: u64, name: &[u8]) -> Option<usize> {
        let found = self
            .index
            .get(part_of(hash, self.index.len()))?
            .find(hash, |number| {
                self.names.get(*number as usize) == Some(name)
            });
        found.map(|number| *number as usize)
    }

    /// The number of a name, which is added if it is new: then its number is the [`NameTable::len`]
    /// of before. `None` if there are 2³² names already.
    pub fn intern(&mut self, name: &[u8]) -> Option<usize> {
        let hash = self.hasher.hash_one(name);
        if let Some(known) = self.find_hashed(hash, name) {
            return Some(known);
        }
        let number = u32::try_from(self.names.len()).ok()?;
        self.names.push(name);
        self.insert(hash, number);
        if self.index.len() == 1 && self.names.len() >= SPLIT_AT {
            self.split();
        }
        Some(number as usize)
    }

    fn insert(&mut self, hash: u64, number: u32) {
        let (names, hasher) = (&self.names, &self.hasher);
        let part = part_of(hash, self.index.len());
        if let Some(index) = self.index.get_mut(part) {
            index.insert_unique(hash, number, |number| {
                hasher.hash_one(names.get(*number as usize).unwrap_or_default())
            });
        }
    }

    fn split(&mut self) {
        let whole = std::mem::replace(&mut self.index, vec![HashTable::new(); PARTS]);
        for number in whole.into_iter().flatten() {
            let name = self.names.get(number as usize).unwrap_or_default();
            self.insert(self.hasher.hash_one(name), number);
        }
    }

    /// Bytes of memory it takes.
    pub fn bytes(&self) -> usize {
        let index: usize = self.index.iter().map(HashTable::allocation_size).sum();
        index + self.index.capacity() * size_of::<HashTable<u32>>() + self.names.bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_are_those_of_a_map(names in prop::collection::vec("[a-c]{0,4}", 0..200)) {
            let mut table = NameTable::default();
            let mut model = HashMap::new();
            for name in &names {
                prop_assert_eq!(table.find(name.as_bytes()), model.get(name).copied());
                let next = model.len();
                let number = *model.entry(name.clone()).or_insert(next);
                prop_assert_eq!(table.intern(name.as_bytes()), Some(number));
            }
            prop_assert_eq!(table.len(), model.len());
            for (name, number) in &model {
                prop_assert_eq!(table.names().text(*number), Some(name.as_str()));
            }
        }
    }

    #[test]
    fn many_names_are_found_and_a_clone_of_them_stays_as_it_was() {
        let mut table = NameTable::default();
        let name = |number: usize| format!("device-{number:06}");
        for number in 0..40_000 {
            assert_eq!(table.intern(name(number).as_bytes()), Some(number));
        }
        let before = table.names().clone();
        for number in 40_000..45_000 {
            assert_eq!(table.intern(name(number).as_bytes()), Some(number));
        }
        for number in 0..45_000 {
            assert_eq!(table.find(name(number).as_bytes()), Some(number));
            assert_eq!(table.names().text(number), Some(name(number).as_str()));
        }
        assert_eq!(table.find(b"device-045000"), None);
        assert_eq!((before.len(), before.get(40_000)), (40_000, None));
        assert_eq!(before.text(39_999), Some("device-039999"));
        assert_eq!(before.iter().count(), 40_000);
        let each = table.bytes() / 45_000;
        assert!(each <= 13 + 4 + 12, "{each} bytes a name");
    }
}
