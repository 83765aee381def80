//! The blocks of all open windows of one kind, in one array: a window knows its block by number.

use std::sync::Arc;

use crate::{
    bytes::{ReadBytes, SavedError, WriteBytes},
    cells::{
        fold::{narrow, wide},
        large::Large,
        layout::{Cell, Class, Layout, WORDS_MAX, What},
        order,
        slab::Slab,
    },
    states::Moments,
};

/// Blocks by number.
#[derive(Clone, Debug)]
pub(crate) struct Blocks {
    pub(crate) layout: Arc<Layout>,
    pub(crate) words: Vec<u64>,
    pub(crate) large: Slab<Large>,
    free: Vec<u32>,
}

impl Blocks {
    pub(crate) fn new(layout: Arc<Layout>) -> Self {
        Self {
            layout,
            words: Vec::new(),
            large: Slab::default(),
            free: Vec::new(),
        }
    }

    /// The number of a block without rows.
    pub(crate) fn allocate(&mut self) -> u32 {
        let width = self.layout.empty.len();
        if let Some(block) = self.free.pop() {
            let at = block as usize * width;
            if let Some(words) = self.words.get_mut(at..at + width) {
                words.copy_from_slice(&self.layout.empty);
            }
            return block;
        }
        let block = self.words.len() / width;
        self.words.extend_from_slice(&self.layout.empty);
        // What a state may take is limited far below so many.
        u32::try_from(block).unwrap_or(u32::MAX)
    }

    /// Gives a block back.
    pub(crate) fn free(&mut self, block: u32) {
        let layout = Arc::clone(&self.layout);
        for cell in layout.cells.iter().filter(|cell| cell.is_in_slab()) {
            let at = self.at(block, cell);
            if let Some(number) = self.words.get_mut(at) {
                self.large.take(number);
            }
        }
        self.free.push(block);
    }

    /// A block's words.
    pub(crate) fn words(&self, block: u32) -> &[u64] {
        let width = self.layout.empty.len();
        let at = block as usize * width;
        self.words.get(at..at + width).unwrap_or(&self.layout.empty)
    }

    fn at(&self, block: u32, cell: &Cell) -> usize {
        block as usize * self.layout.empty.len() + cell.at
    }

    /// Adds what is in one block to another, whose rows are taken to have come before.
    pub(crate) fn merge(&mut self, into: u32, from: u32) {
        let layout = Arc::clone(&self.layout);
        let rows = self.words(from).first().copied().unwrap_or_default();
        if let Some(word) = self.words.get_mut(into as usize * layout.empty.len()) {
            *word += rows;
        }
        let (width, slab) = (layout.empty.len(), Cell::is_in_slab);
        let words = |block: u32| block as usize * width..(block as usize + 1) * width;
        if let Ok([held, new]) = self.words.get_disjoint_mut([words(into), words(from)]) {
            for cell in layout.cells.iter().filter(|cell| !slab(cell)) {
                merge_words(cell, held, new);
            }
        }
        for cell in layout.cells.iter().filter(|cell| slab(cell)) {
            self.merge_large(cell, into, from);
        }
    }

    /// A state of its own, or a text that may be the better one.
    fn merge_large(&mut self, cell: &Cell, into: u32, from: u32) {
        let (to, at) = (self.at(into, cell), self.at(from, cell));
        let word = |at: usize| self.words.get(at).copied().unwrap_or_default();
        let (held, new, time) = (word(to), word(at), word(at + 1));
        let Some(other) = self.large.get(new).cloned() else {
            return;
        };
        if let Some(text) = other.text() {
            self.fold_text(cell, into, text, time.cast_signed());
        } else if let Some(own) = self.large.get_mut(held) {
            own.merge(&other);
        } else if let Some(number) = self.words.get_mut(to) {
            self.large.put(number, other);
        }
    }

    /// Writes a block.
    pub(crate) fn write(&self, block: u32, out: &mut Vec<u8>) {
        let words = self.words(block);
        let word = |at: usize| words.get(at).copied().unwrap_or_default();
        out.put_varint(word(0));
        for cell in &self.layout.cells {
            for at in cell.at..cell.at + cell.what.words() {
                if at == cell.at && cell.is_in_slab() {
                    let large = self.large.get(word(at));
                    out.put_byte(u8::from(large.is_some()));
                    if let Some(large) = large {
                        large.write(out);
                    }
                } else if cell.is_computed(at) {
                    out.put_computed(f64::from_bits(word(at)));
                } else {
                    out.put_u64(word(at));
                }
            }
        }
    }

    /// Reads a block that [`Self::write`] wrote.
    pub(crate) fn read(&mut self, input: &mut &[u8]) -> Result<u32, SavedError> {
        let block = self.allocate();
        match self.read_into(block, input) {
            Ok(()) => Ok(block),
            Err(error) => {
                self.free(block);
                Err(error)
            }
        }
    }

    fn read_into(&mut self, block: u32, input: &mut &[u8]) -> Result<(), SavedError> {
        let layout = Arc::clone(&self.layout);
        let start = block as usize * layout.empty.len();
        let rows = few_enough(input.varint()?)?;
        if let Some(word) = self.words.get_mut(start) {
            *word = rows;
        }
        for cell in &layout.cells {
            let is_count = matches!(cell.what, What::Nulls | What::Moments);
            for at in start + cell.at..start + cell.at + cell.what.words() {
                let word = if at == start + cell.at && cell.is_in_slab() {
                    let mut number = 0;
                    match input.byte()? {
                        0 => {}
                        1 => self.large.put(&mut number, Large::read(cell.what, input)?),
                        _ => return Err(SavedError::Invalid("there is a value or none")),
                    }
                    number
                } else if is_count && at == start + cell.at {
                    few_enough(input.u64()?)?
                } else {
                    input.u64()?
                };
                if let Some(place) = self.words.get_mut(at) {
                    *place = word;
                }
            }
        }
        Ok(())
    }
}

/// A count that can be added to.
fn few_enough(count: u64) -> Result<u64, SavedError> {
    if count > u64::MAX / 2 {
        return Err(SavedError::Invalid("rows are counted in 63 bits"));
    }
    Ok(count)
}

/// Adds a cell of a block to that of another.
#[inline]
fn merge_words(cell: &Cell, held: &mut [u64], new: &[u64]) {
    let (Some(held), Some(new)) = (held.get_mut(cell.at..), new.get(cell.at..)) else {
        return;
    };
    match (cell.what, cell.class, &mut *held, new) {
        // Most cells are one of these.
        (What::Nulls, _, [held, ..], [new, ..]) => *held = held.wrapping_add(*new),
        (What::Sum, Class::Float, [sum, lost, ..], [more, more_lost, ..]) => {
            let (mut total, mut rest) = (f64::from_bits(*sum), f64::from_bits(*lost));
            order::add(&mut total, &mut rest, f64::from_bits(*more));
            rest += f64::from_bits(*more_lost);
            (*sum, *lost) = (total.to_bits(), rest.to_bits());
        }
        (_, _, held, new) => {
            let some = |words: &[u64]| {
                let word = |at: usize| words.get(at).copied().unwrap_or_default();
                // Of cells of fewer words, the rest is another's, and not written back.
                [word(0), word(1), word(2)]
            };
            let words = merged(cell, some(held), some(new));
            for (place, word) in held.iter_mut().take(cell.what.words()).zip(words) {
                *place = word;
            }
        }
    }
}

/// A cell's words of those of two.
#[inline]
fn merged(cell: &Cell, held: [u64; WORDS_MAX], new: [u64; WORDS_MAX]) -> [u64; WORDS_MAX] {
    let time = |words: [u64; WORDS_MAX]| words[1].cast_signed();
    let float = |words: [u64; WORDS_MAX]| f64::from_bits(words[0]);
    let int = |words: [u64; WORDS_MAX]| words[0].cast_signed();
    let (less, more, same) = match cell.class {
        Class::Float => (
            order::less(float(new), float(held)),
            order::less(float(held), float(new)),
            order::same(float(held), float(new)),
        ),
        _ => (
            int(new) < int(held),
            int(new) > int(held),
            int(new) == int(held),
        ),
    };
    let earlier = time(new) < time(held);
    let takes = match cell.what {
        // Sums of floats, and nulls, are added where they lie.
        What::Nulls => return held,
        What::Sum => {
            let sum = |words: [u64; WORDS_MAX]| wide([words[0], words[1]]);
            let [low, high] = narrow(sum(held).wrapping_add(sum(new)));
            return [low, high, 0];
        }
        What::Moments => {
            let mut moments = Moments::of_words(held);
            moments.merge(&Moments::of_words(new));
            return moments.words();
        }
        // In the slab.
        What::Digest | What::Distinct | What::Weighted => false,
        What::Min => less,
        What::Max => more,
        What::MinAt => less || (same && earlier),
        What::MaxAt => more || (same && earlier),
        What::First => earlier,
        What::Last => time(new) >= time(held),
    };
    if takes { new } else { held }
}
